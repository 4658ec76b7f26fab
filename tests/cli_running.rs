//! Commands beside a running minflow: the real binary against the real socket, with a scheduler that answers by script.

#![allow(clippy::unwrap_used)] // a test that cannot go on is a failed test

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command as Process, Output, Stdio};
use std::thread::JoinHandle;

use minflow::api::protocol::Pong;
use minflow::api::socket::{Patience, SocketServer};
use minflow::config::Synchronous;
use minflow::model::{DagRun, Instance, InstanceKey, RunKey, RunState, RunType, TaskState};
use minflow::scheduler::command::Done;
use minflow::scheduler::event::{self, EventSender};
use minflow::scheduler::{Changes, Command, Event, InstanceWrite, Reply, RunWrite, Store};
use minflow::store::Database;
use tempfile::TempDir;

const RUN: &str = "manual__2026-11-21T06:00:00+00:00";

/// A home whose minflow runs: its socket is open, and its database has one run of `sales`.
struct Running {
    home: TempDir,
    database: Database,
    _server: SocketServer,
    _scheduler: JoinHandle<()>,
}

impl Running {
    /// `answer` says what the scheduler replies; None leaves the client waiting.
    fn new(answer: impl Fn(&Command) -> Option<Reply> + Send + 'static) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("dags")).unwrap();
        fs::write(home.path().join("dags/sales.toml"), "[tasks.load]\nbash = \"true\"\n").unwrap();
        let mut database = Database::open(&home.path().join("minflow.db"), Synchronous::Full).unwrap();
        let changes = Changes {
            runs: vec![RunWrite { run: run(), prior: None }],
            instances: vec![write(TaskState::Running, None)],
            ..Changes::default()
        };
        database.commit(&changes).unwrap();
        let (events, inbox): (EventSender, _) = event::channel();
        let pong = Pong { pid: 42, version: "0.1.0".to_owned(), http: None };
        let server = SocketServer::start(home.path(), pong, events, Patience::default()).unwrap();
        let scheduler = std::thread::spawn(move || {
            let mut waiting = Vec::new();
            while let Ok(Event::Command { command, reply }) = inbox.recv() {
                match answer(&command) {
                    Some(answer) => reply.send(answer),
                    None => waiting.push(reply),
                }
            }
        });
        Self { home, database, _server: server, _scheduler: scheduler }
    }

    fn spawn(&self, command: &str) -> Child {
        Process::new(env!("CARGO_BIN_EXE_minflow"))
            .args(command.split_whitespace())
            .current_dir(self.home.path())
            .env_clear()
            .env("TZ", "UTC")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    #[track_caller]
    fn expect(&self, command: &str, code: i32, stdout: &str, stderr: &str) {
        let done = self.spawn(command).wait_with_output().unwrap();
        assert_eq!(texts(&done), (Some(code), stdout.to_owned(), stderr.to_owned()));
    }
}

fn texts(done: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

fn run() -> DagRun {
    let tick = "2026-11-21T06:00:00Z".parse().unwrap();
    DagRun {
        key: RunKey(1),
        dag_id: "sales".into(),
        run_id: RUN.into(),
        run_type: RunType::Manual,
        state: RunState::Running,
        run_after: tick,
        logical_date: Some(tick),
        data_interval: None,
        queued_at: Some(tick),
        start_date: Some(tick),
        end_date: None,
        conf: serde_json::Map::new(),
        reason: None,
        lag: None,
        backfill: None,
        is_released: false,
        clear_number: 0,
    }
}

fn write(state: TaskState, prior: Option<TaskState>) -> InstanceWrite {
    let instance =
        Instance { state, try_number: 1, ..Instance::new(InstanceKey(1), RunKey(1), "load", "default_pool", "bash") };
    InstanceWrite { instance, dag_id: "sales".into(), prior }
}

fn answer_trigger(state: &'static str, is_paused: bool) -> impl Fn(&Command) -> Option<Reply> + Send {
    move |command| {
        Some(Ok(match command {
            Command::Trigger(_) => Done::Triggered { run_id: RUN.into(), is_paused },
            Command::Await { .. } => Done::Ended { state: state.to_owned() },
            other => panic!("{other:?}"),
        }))
    }
}

#[test]
fn trigger_and_wait_exits_as_the_run_ends() {
    Running::new(answer_trigger("success", false)).expect(
        "dags trigger sales --wait",
        0,
        "success\n",
        &format!("{RUN}\n"),
    );
    Running::new(answer_trigger("failed", false)).expect(
        "dags trigger sales --wait",
        1,
        "failed\n",
        &format!("{RUN}\n"),
    );
}

#[test]
fn a_run_that_failed_is_followed_by_the_tasks_that_failed_and_their_logs() {
    let mut running = Running::new(answer_trigger("failed", false));
    let mut failed = write(TaskState::Failed, Some(TaskState::Running));
    failed.instance.exit_code = Some(3);
    running.database.commit(&Changes { instances: vec![failed], ..Changes::default() }).unwrap();
    running.expect(
        "dags trigger sales --wait",
        1,
        "failed\n",
        &format!("{RUN}\n`load` failed: exit code 3\n  minflow tasks logs sales load {RUN}\n"),
    );
}

#[test]
fn a_task_that_came_to_a_limit_is_told_of_in_words() {
    let mut running = Running::new(answer_trigger("failed", false));
    let mut failed = write(TaskState::Failed, Some(TaskState::Running));
    failed.instance.reason = Some("processes".to_owned());
    running.database.commit(&Changes { instances: vec![failed], ..Changes::default() }).unwrap();
    let said = "`load` was ended at its limit of processes";
    running.expect(
        "dags trigger sales --wait",
        1,
        "failed\n",
        &format!("{RUN}\n{said}\n  minflow tasks logs sales load {RUN}\n"),
    );
}

#[test]
fn a_run_that_failed_by_no_task_says_why() {
    let mut running = Running::new(answer_trigger("failed", false));
    let timed_out = DagRun { state: RunState::Failed, reason: Some("timed_out".to_owned()), ..run() };
    let write = RunWrite { run: timed_out, prior: Some(RunState::Running) };
    running.database.commit(&Changes { runs: vec![write], ..Changes::default() }).unwrap();
    running.expect(
        "dags trigger sales --wait",
        1,
        "failed\n",
        &format!("{RUN}\nthe run took longer than its dagrun_timeout, and was ended\n"),
    );
}

#[test]
fn a_logical_date_ahead_is_said_to_be_waited_for() {
    Running::new(answer_trigger("success", false)).expect(
        "dags trigger sales --logical-date 2099-01-01",
        0,
        &format!("{RUN}\n"),
        "its logical date lies ahead: its tasks start at 2099-01-01 00:00:00 UTC\n",
    );
}

#[test]
fn trigger_without_waiting_prints_the_run_id() {
    Running::new(answer_trigger("success", false)).expect("dags trigger sales", 0, &format!("{RUN}\n"), "");
}

#[test]
fn a_run_of_a_paused_dag_is_not_waited_for() {
    let help = "`minflow dags unpause sales` lets it start";
    Running::new(answer_trigger("success", true)).expect(
        "dags trigger sales --wait",
        1,
        "",
        &format!("error: run `{RUN}` waits: `sales` is paused\nhelp: {help}; --unpause does both\n"),
    );
    Running::new(answer_trigger("success", true)).expect(
        "dags trigger sales",
        0,
        &format!("{RUN}\n"),
        &format!("`sales` is paused; {help}\n"),
    );
}

#[test]
fn pausing_what_is_paused_says_so() {
    let running = Running::new(|_| Some(Ok(Done::PausedSet { was: true })));
    running.expect("dags pause sales -o plain", 0, "dag_id  is_paused\nsales   true\n", "`sales` was paused already\n");
    running.expect("dags unpause sales -o plain", 0, "dag_id  is_paused\nsales   false\n", "");
}

#[test]
fn a_misspelt_dag_among_several_leaves_all_as_they_are() {
    let running = Running::new(|command| panic!("{command:?}"));
    let help = "help: did you mean `sales`? `minflow dags list` lists them all\n";
    running.expect("dags pause sales saels", 1, "", &format!("error: unknown dag_id `saels`\n{help}"));
}

fn append(log: &Path, text: &str) {
    OpenOptions::new().append(true).create(true).open(log).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn logs_follow_a_try_until_it_has_ended() {
    let mut running = Running::new(|_| None);
    let folder = running.home.path().join(format!("logs/dag_id=sales/run_id={RUN}/task_id=load"));
    fs::create_dir_all(&folder).unwrap();
    let log = folder.join("attempt=1.log");
    append(&log, "first\n");
    let mut child = running.spawn("tasks logs sales load -f");
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut read = || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(read(), "first\n");
    append(&log, "second\n");
    assert_eq!(read(), "second\n");
    append(&log, "last\n");
    let instances = vec![write(TaskState::Success, Some(TaskState::Running))];
    running.database.commit(&Changes { instances, ..Changes::default() }).unwrap();
    assert_eq!(read(), "last\n");
    assert_eq!(read(), "");
    let done = child.wait_with_output().unwrap();
    assert_eq!((done.status.code(), done.stderr), (Some(0), Vec::new()));
}

/// The instance with so many tries.
fn after(state: TaskState, try_number: u32, prior: TaskState) -> InstanceWrite {
    let mut write = write(state, Some(prior));
    write.instance.try_number = try_number;
    write
}

#[test]
fn logs_follow_from_try_to_try_until_the_task_has_ended() {
    let mut running = Running::new(|_| None);
    let folder = running.home.path().join(format!("logs/dag_id=sales/run_id={RUN}/task_id=load"));
    fs::create_dir_all(&folder).unwrap();
    append(&folder.join("attempt=1.log"), "first\n");
    let follow = |command: &str| {
        let mut child = running.spawn(command);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    };
    let (mut all, mut shown) = follow("tasks logs sales load -f");
    let (mut one, mut shown_of_one) = follow("tasks logs sales load -f --try-number 1");
    let (mut last, mut shown_last) = follow("tasks logs sales load -f --bytes -3");
    let (mut few, mut shown_few) = follow("tasks logs sales load -f --bytes 2-7");
    assert_eq!(shown.next().unwrap().unwrap(), "first");
    assert_eq!(shown_of_one.next().unwrap().unwrap(), "first");
    assert_eq!(shown_last.next().unwrap().unwrap(), "st");
    assert_eq!(shown_few.next().unwrap().unwrap(), "rst");
    let mut commit = |write| {
        running.database.commit(&Changes { instances: vec![write], ..Changes::default() }).unwrap();
    };
    commit(after(TaskState::UpForRetry, 1, TaskState::Running));
    assert!(shown_of_one.next().is_none(), "that try has ended");
    assert_eq!(one.wait().unwrap().code(), Some(0));
    append(&folder.join("attempt=2.log"), "second\n");
    commit(after(TaskState::Running, 2, TaskState::UpForRetry));
    assert_eq!(shown.next().unwrap().unwrap(), "second");
    assert_eq!(shown_last.next().unwrap().unwrap(), "second");
    assert_eq!(shown_few.next().unwrap().unwrap(), "se");
    assert!(shown_few.next().is_none(), "all that was asked for was shown");
    assert_eq!(few.wait().unwrap().code(), Some(0));
    commit(after(TaskState::Success, 2, TaskState::Running));
    for (mut lines, child) in [(shown, &mut all), (shown_last, &mut last)] {
        assert!(lines.next().is_none());
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_log_that_is_cut_at_its_limit_is_followed_to_its_end_and_shows_no_hole() {
    let mut running = Running::new(|_| None);
    fs::write(running.home.path().join("airflow.toml"), "[logging]\nmax_file_size = 1000\n").unwrap();
    let folder = running.home.path().join(format!("logs/dag_id=sales/run_id={RUN}/task_id=load"));
    fs::create_dir_all(&folder).unwrap();
    let log = folder.join("attempt=1.log");
    let line = "a line of twenty by\n";
    append(&log, &line.repeat(50));
    let mut child = running.spawn("tasks logs sales load -f");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..50 {
        assert_eq!(lines.next().unwrap().unwrap(), line.trim_end());
    }
    // What lies behind the limit is punched out while the task runs, and cut at its end.
    OpenOptions::new().write(true).open(&log).unwrap().set_len(5_000).unwrap();
    let running_yet = running.spawn("tasks logs sales load").wait_with_output().unwrap();
    assert_eq!(texts(&running_yet), (Some(0), line.repeat(50), String::new()));
    OpenOptions::new().write(true).open(&log).unwrap().set_len(1_000).unwrap();
    append(&log, "dropped\nended\n");
    let instances = vec![write(TaskState::Success, Some(TaskState::Running))];
    running.database.commit(&Changes { instances, ..Changes::default() }).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "dropped");
    assert_eq!(lines.next().unwrap().unwrap(), "ended");
    assert!(lines.next().is_none());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
