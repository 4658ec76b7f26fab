//! `minflow stop`: what it waits for, what it ends, and what it says meanwhile.

use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::harness::{Beside, Heard, Home, Minflow, is_alive, signal, until};

/// A task that ends when the home has a file `go`, and leaves its process's number behind.
const WAITS: &str =
    "[tasks.a]\nbash = 'echo $$ > \"$MINFLOW_HOME/pid\"; while [ ! -e \"$MINFLOW_HOME/go\" ]; do sleep 0.01; done'\n";

/// A minflow whose task runs, and its process.
fn busy(home: &Home, configuration: &str) -> (Minflow, i32) {
    home.write("airflow.toml", configuration);
    home.dag("d", WAITS);
    let minflow = home.start();
    minflow.await_dag("d");
    home.trigger("d", "r");
    let pid = until("the task's process", || home.read("pid").trim().parse().ok());
    until("its row", || (home.task("d", "r", "a")["state"] == "running").then_some(()));
    (minflow, pid)
}

fn launch(mut command: Command) -> Beside {
    command.stdin(Stdio::null());
    Beside::start(command, Heard::Err)
}

#[test]
fn a_drain_waits_for_what_runs_however_long_it_takes_and_names_it() {
    let home = Home::new();
    let (mut minflow, task) = busy(&home, "[scheduler]\ndrain_timeout = 0\n");
    let mut client = launch(home.command("stop --drain"));
    assert_eq!(client.line(), Some(format!("stopping minflow (process {})", minflow.pid())));
    assert_eq!(client.line().as_deref(), Some("still running: d.a (r)"));
    let refused = home.cli("dags trigger d");
    assert!(refused.code == Some(1) && refused.err.contains("minflow is stopping"), "{refused:?}");
    assert!(is_alive(task) && client.ended().is_none() && minflow.ended().is_none());
    home.write("go", "");
    assert_eq!(client.await_end().code(), Some(0));
    assert_eq!((client.line().as_deref(), client.line()), (Some("minflow has ended"), None));
    assert!(!is_alive(minflow.pid()), "it waited for the process, not for its answer");
    assert_eq!(minflow.await_end().code(), Some(0));
    assert_eq!(home.task("d", "r", "a")["state"], "success");
}

#[test]
fn a_stop_is_a_sigterm_that_is_waited_for() {
    let home = Home::new();
    let (mut minflow, task) = busy(&home, "[scheduler]\ndrain_timeout = 0\n");
    let stopped = home.cli("stop");
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    assert!(stopped.err.ends_with("minflow has ended\nleft running for the next start: d.a (r)\n"), "{stopped:?}");
    assert!(!is_alive(minflow.pid()) && is_alive(task));
    assert_eq!(minflow.await_end().code(), Some(0));
    let _minflow = home.start();
    home.write("go", "");
    assert_eq!(home.await_run("d", "r"), "success");
    assert_eq!(home.task("d", "r", "a")["try_number"], 1);
}

#[test]
fn keep_running_waits_for_nothing() {
    let home = Home::new();
    let (mut minflow, task) = busy(&home, "[scheduler]\ndrain_timeout = \"1d\"\n");
    let stopped = home.cli("stop --keep-running");
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    assert!(stopped.err.ends_with("left running for the next start: d.a (r)\n"), "{stopped:?}");
    assert_eq!(minflow.await_end().code(), Some(0));
    assert!(is_alive(task));
    home.write("go", "");
    until("the end of the task, with nobody there", || (!is_alive(task)).then_some(()));
    let _minflow = home.start();
    assert_eq!(home.await_run("d", "r"), "success");
    for two in ["--drain --now", "--drain --keep-running", "--now --keep-running"] {
        assert_eq!(home.cli(&format!("stop {two}")).code, Some(2), "{two}");
    }
}

#[test]
fn now_ends_what_runs_and_a_harder_stop_overtakes_a_milder_one() {
    let home = Home::new();
    let (mut minflow, task) = busy(&home, "[scheduler]\ndrain_timeout = \"1d\"\n");
    let mut client = launch(home.command("stop --drain"));
    client.line().unwrap();
    // A milder one changes nothing.
    let mut second = launch(home.command("stop"));
    second.line().unwrap();
    assert!(is_alive(task));
    assert_eq!(home.cli("stop --now").code, Some(0));
    assert_eq!(client.await_end().code(), Some(0));
    assert_eq!(second.await_end().code(), Some(0));
    assert!(!is_alive(task));
    assert_eq!(minflow.await_end().code(), Some(0));
}

#[test]
fn who_waits_no_longer_leaves_minflow_stopping() {
    let home = Home::new();
    let (mut minflow, _) = busy(&home, "");
    let mut client = launch(home.command("stop --drain"));
    client.line().unwrap();
    // As by Ctrl-C, which whoever was started in the background may have to ignore.
    signal(client.pid(), Signal::TERM);
    assert_eq!(client.await_end().code(), None);
    assert!(minflow.ended().is_none());
    home.write("go", "");
    assert_eq!(minflow.await_end().code(), Some(0));
}

#[test]
fn without_a_minflow_there_is_nothing_to_stop_and_a_broken_configuration_keeps_nobody_from_it() {
    let home = Home::new();
    let absent = home.cli("stop");
    assert_eq!(absent.code, Some(4), "{absent:?}");
    assert!(absent.err.starts_with("error: no minflow is running on `HOME`\n"), "{absent:?}");
    let mut minflow = home.start();
    home.write("airflow.toml", "nonsense");
    assert_eq!(home.cli("stop").code, Some(0));
    assert_eq!(minflow.await_end().code(), Some(0));
    assert_eq!(home.cli("stop --drain --now").code, Some(2));
}
