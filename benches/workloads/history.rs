//! W9, W10: what years of history and a crash in the midst of much work cost.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use minflow::clock::SystemClock;
use minflow::config::Synchronous;
use minflow::health::Health;
use minflow::keep::{self, Places};
use minflow::model::{DagId, DagRun, Instance, InstanceKey, ProcessIdentity, RunKey, RunState, RunType, TaskState};
use minflow::scheduler::change::{Earlier, RunLookup};
use minflow::scheduler::command::{Done, Keep};
use minflow::scheduler::port::{History, ReplyTo};
use minflow::scheduler::turn::Scheduler;
use minflow::scheduler::{Changes, Command, CommandError, Event, InstanceWrite, RunWrite, Snapshot, Store, StoreError};
use minflow::store::{Checkpointer, Database, Disposal, Reader};
use rusqlite::Connection;
use serde_json::Map;

use crate::home::Home;
use crate::host;
use crate::measure::Effort;
use crate::rows::Rows;
use crate::stage::{self, Notebook};
use crate::table::{Goal, Table, median, percentile};

/// Always has something to decide.
const BUSY: &str = "schedule = \"* * * * *\"\nstart_date = 2020-01-01\ncatchup = true\nmax_active_runs = 4\n\
    [tasks.a]\nbash = \"sleep 0.02\"\n[tasks.b]\nbash = \"sleep 0.02\"\ndepends_on = [\"a\"]\n";

/// Instances of each run of the history.
const WIDTH: i64 = 10;

/// A database whose newest rows have the keys up to these.
struct Filled {
    database: Database,
    runs: i64,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).expect("it is within the range of instants")
}

fn run(key: i64, dags: i64) -> RunWrite {
    let date = at(key / dags * 60);
    let run = DagRun {
        key: RunKey(key),
        dag_id: format!("dag_{}", key % dags).into(),
        run_id: format!("scheduled__{date}").into(),
        run_type: RunType::Scheduled,
        state: RunState::Success,
        run_after: date,
        logical_date: Some(date),
        data_interval: None,
        queued_at: Some(date),
        start_date: Some(date),
        end_date: Some(date),
        conf: Map::new(),
        reason: None,
        lag: None,
        backfill: None,
        is_released: false,
        clear_number: 0,
    };
    RunWrite { run, prior: None }
}

fn instances(run: i64, dags: i64, state: TaskState, prior: Option<TaskState>) -> impl Iterator<Item = InstanceWrite> {
    let process =
        ProcessIdentity { pid: 4_711, start_ticks: 123_456, boot_id: "0f3c7a9e-5b1d-4c7e-9b52-1f0a".to_owned() };
    (0..WIDTH).map(move |number| {
        let instance = Instance {
            state,
            try_number: 1,
            scheduled_at: Some(at(run)),
            queued_at: Some(at(run)),
            start_date: Some(at(run)),
            end_date: (state == TaskState::Success).then(|| at(run + 1)),
            exit_code: (state == TaskState::Success).then_some(0),
            process: Some(Box::new(process.clone())),
            usage: Some(Box::default()),
            ..Instance::new(
                InstanceKey(run * WIDTH + number),
                RunKey(run),
                format!("task_{number}"),
                "default_pool",
                "bash",
            )
        };
        InstanceWrite { instance, dag_id: format!("dag_{}", run % dags).into(), prior }
    })
}

/// Adds finished runs, those of `dags` DAGs in turns.
fn fill(path: &Path, runs: i64, dags: i64) -> Filled {
    let mut database = Database::open(path, Synchronous::Normal).expect("the database was made by this minflow");
    let keys: Vec<i64> = (1..=runs).collect();
    for (number, piece) in keys.chunks(1_000).enumerate() {
        let changes = Changes {
            runs: piece.iter().map(|&key| run(key, dags)).collect(),
            instances: piece.iter().flat_map(|&key| instances(key, dags, TaskState::Success, None)).collect(),
            ..Changes::default()
        };
        database.commit(&changes).expect("the disk takes it");
        if number % 20 == 19 {
            checkpoint(path);
        }
    }
    checkpoint(path);
    Filled { database, runs }
}

fn checkpoint(path: &Path) {
    let connection = Connection::open(path).expect("the database is there");
    let done = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    assert_eq!(done.ok(), Some(0), "nobody else has it");
}

impl Filled {
    /// One turn's commit as of ten tasks that end, each at the end of a run that it first adds. In milliseconds.
    fn commit(&mut self, dags: i64) -> f64 {
        self.runs += 1;
        let key = self.runs;
        let instances = |state, prior| instances(key, dags, state, prior).collect();
        let first = Changes {
            runs: vec![run(key, dags)],
            instances: instances(TaskState::Running, None),
            ..Changes::default()
        };
        self.database.commit(&first).expect("the disk takes it");
        let ends = Changes { instances: instances(TaskState::Success, Some(TaskState::Running)), ..Changes::default() };
        let began = Instant::now();
        self.database.commit(&ends).expect("the disk takes it");
        began.elapsed().as_secs_f64() * 1e3
    }
}

/// A home of DAGs that rest, with their history.
fn aged(dags: i64, runs: i64) -> Home {
    let home = Home::new(8);
    for number in 0..dags {
        let tasks: String = (0..WIDTH).map(|task| format!("[tasks.task_{task}]\nbash = \"true\"\n")).collect();
        home.dag(&format!("dag_{number}"), &tasks);
    }
    drop(home.start(dags as usize));
    if runs > 0 {
        fill(&home.path().join("minflow.db"), runs, dags);
    }
    home
}

/// W9: a million finished runs.
pub fn history(table: &mut Table, effort: Effort) {
    const DAGS: i64 = 100;
    let runs = effort.pick(1_000_000, 50_000);
    let (empty, full) = (aged(DAGS, 0), aged(DAGS, runs));
    let database = |home: &Home, runs| Filled {
        database: Database::open(&home.path().join("minflow.db"), Synchronous::Full).expect("minflow has made it"),
        runs,
    };
    let (mut small, mut large) = (database(&empty, 0), database(&full, runs));
    let (mut commits, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..effort.pick(300, 50) {
        floors.push(small.commit(DAGS));
        commits.push(large.commit(DAGS));
    }
    drop((small, large));
    let what = format!("W9 commit of 10 ends, {runs} runs beside none");
    table.beside(what, &commits, &floors, "ms", Goal::AtMost(1.5));
    let size = std::fs::metadata(full.path().join("minflow.db")).map_or(f64::NAN, |file| file.len() as f64);
    table.figure("W9 database", size / 1e6, "MB", Goal::None);
    let reader = Reader::open(&full.path().join("minflow.db")).expect("minflow has made it");
    let mut lists = Vec::new();
    for number in 0..200 {
        let began = Instant::now();
        let listed = reader.runs(&format!("dag_{}", number % DAGS), Some(25)).expect("it can be read");
        lists.push(began.elapsed().as_secs_f64() * 1e3);
        assert_eq!(listed.len(), 25);
    }
    table.figure("W9 a DAG's last 25 runs, median", median(&lists), "ms", Goal::AtMost(5.0));
    for (what, home) in [("without history", &empty), ("with it", &full)] {
        let mut server = home.exec();
        server.await_health();
        table.figure(format!("W9 exec to healthy {what}"), server.age() * 1e3, "ms", Goal::None);
        server.await_live(DAGS as usize);
        let mut asked = Vec::new();
        for _ in 0..effort.pick(100, 20) {
            let began = Instant::now();
            assert!(server.page("/status").contains("\"dag_99\""), "all DAGs are told of");
            asked.push(began.elapsed().as_secs_f64() * 1e3);
        }
        table.figure(format!("W9 /status of {DAGS} DAGs {what}, median"), median(&asked), "ms", Goal::AtMost(20.0));
        let memory = host::pss_megabytes(&host::processes(home.path()));
        table.figure(format!("W9 memory {what} (PSS)"), memory, "MB", Goal::None);
    }
    // What the disk takes for a commit is not minflow's: without that it tells what a step itself takes.
    for (synchronous, how) in [(Synchronous::Full, "with its commit"), (Synchronous::Normal, "but for the disk's sync")]
    {
        let (turns, gone) = retention(full.path(), DAGS, effort.pick(20_000, 2_000), synchronous);
        let what = format!("W9 loop held by a step of retention {how}");
        table.figure(format!("{what}, {gone} runs go, p99"), percentile(&turns, 99.0), "ms", Goal::None);
        table.figure(format!("{what}, longest"), percentile(&turns, 100.0), "ms", Goal::AtMost(5.0));
    }
}

/// Retention's orders as the loop carries them out, and how long each holds it.
struct Held {
    scheduler: Scheduler,
    /// In milliseconds.
    turns: Vec<f64>,
}

impl keep::Port for Held {
    fn keep(&mut self, keep: Keep) -> Result<Vec<RunKey>, CommandError> {
        let (sender, answer) = mpsc::channel();
        let reply = ReplyTo::new(move |reply| drop(sender.send(reply)));
        let began = Instant::now();
        self.scheduler.turn(vec![Event::Command { command: Command::Keep(keep), reply }]);
        self.turns.push(began.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(keep::PAUSE);
        match answer.recv().expect("a turn answers its commands")? {
            Done::Kept { runs } => Ok(runs),
            other => unreachable!("an order is answered by what was kept, not by {other:?}"),
        }
    }
}

/// The history of a home, to which nothing is written but what goes: its DAGs are known there already.
struct Past(Database);

impl Store for Past {
    fn load(&mut self) -> Result<Snapshot, StoreError> {
        self.0.load()
    }

    fn commit(&mut self, changes: &Changes) -> Result<(), StoreError> {
        self.0.commit(&Changes { retirement: changes.retirement.clone(), ..Changes::default() })
    }
}

impl History for Past {
    fn find_run(&mut self, dag_id: &DagId, lookup: &RunLookup) -> Result<Option<DagRun>, StoreError> {
        self.0.find_run(dag_id, lookup)
    }

    fn newest_keys(&mut self, dag_id: &DagId, limit: u32) -> Result<Vec<RunKey>, StoreError> {
        self.0.newest_keys(dag_id, limit)
    }

    fn date_before(&mut self, dag_id: &DagId, earlier: Earlier) -> Result<Option<Timestamp>, StoreError> {
        self.0.date_before(dag_id, earlier)
    }
}

/// How long the loop is held by each step of retention, in milliseconds, while the oldest of the runs go; and how many these are.
fn retention(home: &Path, dags: i64, runs: usize, synchronous: Synchronous) -> (Vec<f64>, usize) {
    let path = home.join("minflow.db");
    let mut database = Database::open(&path, synchronous).expect("minflow has made it");
    let _checkpointer = Checkpointer::start(&mut database, Health::default()).expect("there is room for a thread");
    let files = (0..dags).map(|number| stage::file(&format!("dag_{number}.toml"), "[tasks.a]\nbash = \"true\"\n"));
    let clock = Arc::new(SystemClock);
    let scheduler = stage::scheduler(files.collect(), 8, Box::new(Past(database)), Notebook::default(), clock);
    let mut held = Held { scheduler, turns: Vec::new() };
    let reader = Reader::open(&path).expect("minflow has made it");
    let what = Disposal { limit: runs / dags as usize, ..Disposal::default() };
    let mut going = Vec::new();
    for number in 0..dags {
        going.extend(reader.disposable(&format!("dag_{number}").into(), &what).expect("it can be read").runs);
    }
    let gone = keep::retire(&mut held, &going, false, None, None).expect("nobody refuses it");
    assert_eq!(gone.len(), going.len(), "nothing needs these");
    let folder = |name: &str| home.join(name);
    let places = Places {
        home: home.to_owned(),
        logs: folder("logs"),
        runs: folder("runs"),
        xcoms: folder("xcoms"),
        venvs: folder("venvs"),
    };
    keep::sweep(&mut held, &reader, &places, &|| true).expect("the disk takes it");
    keep::shrink(&mut held, &path, &|| true).expect("the disk takes it");
    (held.turns, gone.len())
}

/// W10: killed while a thousand tasks run and a hundred thousand instances are not finished; and again and again with some history.
pub fn crash(table: &mut Table, effort: Effort) {
    taken_over(table, effort);
    decided(table, effort);
}

fn taken_over(table: &mut Table, effort: Effort) {
    const ROUNDS: usize = 5;
    const WIDTH: usize = 100;
    let runs = effort.pick(1_000, 100);
    let home = Home::new(runs + 8);
    home.slots(runs + 8);
    let wait = effort.pick(120, 30);
    let mut text = format!("max_active_runs = {runs}\n[tasks.first]\nbash = \"exec sleep {wait}\"\n");
    for number in 1..WIDTH {
        text.push_str(&format!("[tasks.t{number}]\nempty = true\ndepends_on = [\"first\"]\n"));
    }
    home.dag("work", &text);
    home.dag("busy", BUSY);
    let mut server = home.start(2);
    let rows = Rows::open(home.path());
    let supervisor = host::supervisor(home.path());
    let before = host::anonymous_kilobytes(&[supervisor]);
    for _ in 0..runs {
        server.trigger("work");
    }
    server.until("all of them run", Duration::from_millis(50), |_| {
        (rows.in_state("running") >= runs as i64).then_some(())
    });
    let each = (host::anonymous_kilobytes(&[supervisor]) - before) * 1_024.0 / runs as f64;
    table.figure(format!("W10 supervisor's memory for each of {runs} tasks"), each / 1e3, "kB", Goal::AtMost(20.0));
    let idle = Home::new(8);
    idle.dag("busy", BUSY);
    drop(idle.start(1));
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    server.kill();
    for _ in 0..ROUNDS {
        let mut other = idle.exec();
        floors.push(other.first_decision(&Rows::open(idle.path())));
        other.kill();
        server = home.exec();
        ours.push(server.first_decision(&rows));
        server.kill();
    }
    server = home.exec();
    server.await_health();
    let what = format!("W10 restart to first decision, {runs} running of {} unfinished, beside none", runs * WIDTH);
    table.beside(what, &ours, &floors, "ms", Goal::None);
    let more = median(&ours) - median(&floors);
    table.figure("W10 recovery: what that start takes longer", more, "ms", Goal::AtMost(200.0));
    std::fs::remove_file(home.path().join("dags/busy.toml")).expect("it was written");
    server.until("all have ended as they do", Duration::from_millis(200), |_| {
        (rows.successes("work") == (runs * WIDTH) as i64).then_some(())
    });
}

/// From the start after a SIGKILL to its first decision.
fn decided(table: &mut Table, effort: Effort) {
    const DAGS: i64 = 10;
    let home = aged(DAGS, effort.pick(10_000, 1_000));
    home.dag("busy", BUSY);
    drop(home.start(DAGS as usize + 1));
    let rows = Rows::open(home.path());
    let mut taken = Vec::new();
    for _ in 0..effort.pick(100, 10) {
        let mut server = home.exec();
        taken.push(server.first_decision(&rows));
        server.kill();
    }
    table.figure("W10 restart to first decision, p50", percentile(&taken, 50.0), "ms", Goal::None);
    table.figure("W10 restart to first decision, p99", percentile(&taken, 99.0), "ms", Goal::AtMost(300.0));
}
