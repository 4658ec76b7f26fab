//! A temporary home, and the real binary that runs on it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use minflow::api::client::Client;
use minflow::model::RunId;
use minflow::scheduler::Command as Order;
use minflow::scheduler::command::{Done, LogicalDate, Trigger};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::ground;
use crate::rows::Rows;

pub const BINARY: &str = env!("CARGO_BIN_EXE_minflow");

/// How long anything may take before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(300);

pub struct Home(PathBuf);

impl Home {
    pub fn new(parallelism: usize) -> Self {
        let home = Self(ground::folder());
        fs::create_dir(home.path().join("dags")).expect("a new folder takes a folder");
        let settings = format!(
            "[core]\nparallelism = {parallelism}\nmax_active_tasks_per_dag = {parallelism}\n[database]\nsynchronous = \"full\"\n"
        );
        fs::write(home.path().join("airflow.toml"), settings).expect("a new folder takes a file");
        home
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Gives `default_pool` so many slots.
    pub fn slots(&self, slots: usize) {
        let path = self.path().join("airflow.toml");
        let settings = fs::read_to_string(&path).expect("it was written");
        fs::write(&path, format!("{settings}[pools]\ndefault_pool = {slots}\n")).expect("it takes another line");
    }

    pub fn dag(&self, dag_id: &str, text: &str) {
        fs::write(self.path().join(format!("dags/{dag_id}.toml")), text).expect("the dags folder takes a file");
    }

    /// Starts minflow; it may not answer yet.
    pub fn exec(&self) -> Server<'_> {
        let errors = fs::File::create(self.path().join("stderr.txt")).expect("a new folder takes a file");
        let mut command = Command::new(BINARY);
        command.args(["run", "--port", "0", "--home"]).arg(self.path());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("MINFLOW_") || text.starts_with("AIRFLOW_") || text == "RUST_LOG" {
                command.env_remove(&name);
            }
        }
        let began = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn();
        Server {
            home: self,
            child: child.expect("the binary was built with this bench"),
            began,
            address: String::new(),
        }
    }

    /// Starts minflow and waits until it is healthy and `dags` DAGs are live.
    pub fn start(&self, dags: usize) -> Server<'_> {
        let mut server = self.exec();
        server.await_health();
        server.await_live(dags);
        server
    }
}

/// A running minflow; dropped, it is stopped.
pub struct Server<'a> {
    home: &'a Home,
    child: Child,
    began: Instant,
    address: String,
}

impl Server<'_> {
    /// Seconds since it was executed.
    pub fn age(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub fn client(&self) -> Client {
        Client::connect(self.home.path()).expect("it answers already")
    }

    /// Waits until `/health` says 200.
    pub fn await_health(&mut self) {
        self.address = self.until("it answers on its socket", Duration::from_micros(200), |server| {
            Client::connect(server.home.path()).ok()?.ping().ok()?.http
        });
        self.until("it is healthy", Duration::from_micros(500), |server| {
            get(&server.address, "/health").filter(|answer| answer.starts_with("HTTP/1.1 200"))
        });
    }

    /// Waits until `/status` counts so many active DAGs.
    pub fn await_live(&mut self, dags: usize) {
        self.until("all DAGs are live", Duration::from_millis(4), |server| {
            // Asked for one DAG that does not exist: the list of all would be most of the work.
            (server.status("-")?["dag_counts"]["active"] == dags).then_some(())
        });
    }

    /// What `/status` tells with the list of one DAG.
    pub fn status(&self, dag_id: &str) -> Option<Value> {
        let answer = get(&self.address, &format!("/status?dag_id={dag_id}"))?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// The answer for a path.
    pub fn page(&self, path: &str) -> String {
        get(&self.address, path).expect("it answers")
    }

    /// Ends minflow by SIGKILL; its tasks go on.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// From its start to the first task that it queues, in milliseconds.
    pub fn first_decision(&mut self, rows: &Rows) -> f64 {
        let executed_at = Timestamp::now().as_microsecond() as f64 / 1e3 - self.age() * 1e3;
        self.until("it has decided", Duration::from_millis(1), |_| rows.queued_after(executed_at)) - executed_at
    }

    /// Waits for something that `look` finds, and looks each `pause`.
    pub fn until<T>(&mut self, what: &str, pause: Duration, look: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            let is_gone = self.child.try_wait().is_ok_and(|status| status.is_some());
            if is_gone || Instant::now() > deadline {
                let errors = fs::read_to_string(self.home.path().join("stderr.txt")).unwrap_or_default();
                panic!("waited in vain until {what}; minflow said: {errors}");
            }
            std::thread::sleep(pause);
        }
    }

    /// Triggers a run. Gives its run_id.
    pub fn trigger(&self, dag_id: &str) -> RunId {
        let trigger = Trigger {
            dag_id: dag_id.into(),
            run_id: None,
            logical_date: LogicalDate::RunAfter,
            data_interval: None,
            conf: serde_json::Map::new(),
            unpause: false,
        };
        match self.client().request(&Order::Trigger(trigger)) {
            Ok(Ok(Done::Triggered { run_id, .. })) => run_id,
            other => panic!("failed to trigger `{dag_id}`: {other:?}"),
        }
    }

    /// Triggers a run and waits for its end. Gives its run_id.
    pub fn run(&self, dag_id: &str) -> String {
        let run_id = self.trigger(dag_id);
        match self.client().request(&Order::Await { dag_id: dag_id.into(), run_id: run_id.clone() }) {
            Ok(Ok(Done::Ended { state })) if state == "success" => run_id.to_string(),
            other => panic!("run `{run_id}` of `{dag_id}` did not succeed: {other:?}"),
        }
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        let _ = kill_process(pid, Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(15);
        while Instant::now() < deadline {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        eprintln!("  minflow did not stop within 15 s and was killed");
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
