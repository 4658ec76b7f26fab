//! What a service manager hears of minflow, and what its tasks do not hear of the manager.

use std::collections::VecDeque;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::process::Signal;

use crate::harness::{Home, Minflow, PATIENCE, signal};

/// The manager's end.
struct Ears {
    socket: UnixDatagram,
    heard: VecDeque<String>,
}

impl Ears {
    fn new(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, heard: VecDeque::new() }
    }

    /// The next message that is no sign of life.
    fn next(&mut self) -> String {
        loop {
            let message = self.message();
            if message != "WATCHDOG=1" {
                return message;
            }
            self.heard.push_back(message);
        }
    }

    fn message(&self) -> String {
        let mut bytes = [0; 4_096];
        let length = self.socket.recv(&mut bytes).expect("a message");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }
}

fn threads(minflow: &Minflow) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", minflow.pid())).unwrap();
    let name = |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.unwrap().path().join("comm")).ok();
    tasks.filter_map(name).map(|name| name.trim().to_owned()).collect()
}

#[test]
fn a_manager_hears_of_the_start_of_a_reload_and_of_the_stop() {
    let home = Home::new();
    let path = home.file("notify");
    let mut ears = Ears::new(UnixDatagram::bind(&path).unwrap());
    home.dag("d", "[tasks.a]\nbash = 'env > \"$MINFLOW_HOME/env\"'\n");
    let mut command = home.command("run --port 0");
    command.env("NOTIFY_SOCKET", &path);
    let mut minflow = home.start_as(command);
    assert_eq!(ears.next(), format!("READY=1\nSTATUS=http://{}", minflow.address));
    minflow.await_dag("d");
    assert_eq!(home.run_dag("d", "r").code, Some(0));
    let environment = home.read("env");
    assert!(environment.contains("MINFLOW_TASK_ID=a"), "{environment}");
    assert!(!environment.contains("NOTIFY_SOCKET") && !environment.contains("WATCHDOG"), "{environment}");
    assert!(!threads(&minflow).contains(&"watchdog".to_owned()), "nobody wants to know");

    signal(minflow.pid(), Signal::HUP);
    let reloading = ears.next();
    let [first, at, _] = reloading.lines().collect::<Vec<_>>()[..] else { panic!("{reloading}") };
    let at: u64 = at.strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec as u64;
    assert!(first == "RELOADING=1" && at / 1_000_000 <= now && at / 1_000_000 + 60 > now, "{reloading} {now}");
    assert_eq!(ears.next(), format!("READY=1\nSTATUS=http://{}", minflow.address));
    home.write("airflow.toml", "nonsense");
    signal(minflow.pid(), Signal::HUP);
    assert!(ears.next().starts_with("RELOADING=1\n"));
    let faulty = ears.next();
    assert!(faulty.starts_with("READY=1\n") && faulty.contains("what was read before goes on"), "{faulty}");

    minflow.stop();
    let stopping = ears.next();
    assert!(stopping.starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=65000000\n"), "{stopping}");
}

#[test]
fn a_watchdog_is_told_again_and_again_that_the_loop_is_alive() {
    let home = Home::new();
    let name = format!("minflow-test-{}-{}", std::process::id(), home.path().display());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let mut ears = Ears::new(UnixDatagram::bind_addr(&address).unwrap());
    let mut command = home.command("run --port 0");
    command.env("NOTIFY_SOCKET", format!("@{name}")).env("WATCHDOG_USEC", "20000");
    let mut minflow = home.start_as(command);
    assert!(ears.next().starts_with("READY=1\n"));
    let signs = (0..20).filter(|_| ears.message() == "WATCHDOG=1").count();
    assert_eq!(signs, 20);
    minflow.stop();
    assert!(ears.next().starts_with("STOPPING=1\n"));
}

#[test]
fn a_watchdog_of_another_process_and_a_manager_that_is_gone_keep_nobody_from_starting() {
    let home = Home::new();
    let path = home.file("notify");
    let mut ears = Ears::new(UnixDatagram::bind(&path).unwrap());
    let mut command = home.command("run --port 0");
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000").env("WATCHDOG_PID", "1");
    let mut minflow = home.start_as(command);
    assert!(ears.next().starts_with("READY=1\n"));
    assert!(!threads(&minflow).contains(&"watchdog".to_owned()));
    minflow.stop();
    drop(ears);
    for address in ["nowhere", "/nowhere/notify", path.to_str().unwrap(), ""] {
        let mut command = home.command("run --port 0");
        command.env("NOTIFY_SOCKET", address).env("WATCHDOG_USEC", "20000");
        let mut minflow = home.start_as(command);
        assert!(!threads(&minflow).contains(&"watchdog".to_owned()));
        minflow.stop();
    }
}
