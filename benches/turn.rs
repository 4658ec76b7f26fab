//! What one turn costs: its decisions, and its commit to a real file with `synchronous = "full"`.
//!
//! `cargo bench --bench turn`. The commit's figure is mostly the disk's; the share of the rows shows between the sizes.

use std::path::Path;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use jiff::Timestamp;
use minflow::clock::{BootInstant, SystemClock};
use minflow::config::Synchronous;
use minflow::dagfile::{self, Defaults};
use minflow::health::Health;
use minflow::model::{
    DagId, DagRun, Instance, InstanceKey, Pool, ProcessIdentity, RunKey, RunState, RunType, TaskState, TryKey, Usage,
};
use minflow::scheduler::change::RunLookup;
use minflow::scheduler::command::{LogicalDate, Trigger};
use minflow::scheduler::gauge::{GaugeBoard, Heartbeat};
use minflow::scheduler::port::{Kill, ReplyTo, Stray};
use minflow::scheduler::turn::{Parts, Scheduler};
use minflow::scheduler::world::Settings;
use minflow::scheduler::{
    Attempt, Changes, Command, DagFile, Event, Executor, Found, InstanceWrite, Outcome, Reply, RunWrite, Snapshot,
    Store, StoreError, Timer, TryEnd, Work,
};
use minflow::store::Database;
use parking_lot::Mutex;
use serde_json::Map;

fn main() {
    divan::main();
}

fn day() -> Timestamp {
    "2026-11-21T00:00:00Z".parse().expect("it is an instant")
}

/// The instances of a run, all in `state`.
fn instances(count: i64, state: TaskState, prior: Option<TaskState>) -> Vec<InstanceWrite> {
    let process =
        ProcessIdentity { pid: 4_711, start_ticks: 123_456, boot_id: "0f3c7a9e-5b1d-4c7e-9b52-1f0a".to_owned() };
    let has_begun = prior.is_some();
    let instance = |key: i64| Instance {
        key: InstanceKey(key),
        run: RunKey(1),
        task_id: format!("task_{key}").into(),
        map_index: -1,
        state,
        try_number: 1,
        max_tries: 0,
        scheduled_at: Some(day()),
        queued_at: Some(day()),
        start_date: has_begun.then(day),
        end_date: None,
        pool: "default_pool".into(),
        pool_slots: 1,
        priority_weight: 1,
        operator: "bash".into(),
        version: None,
        process: has_begun.then(|| process.clone()),
        exit_code: None,
        signal: None,
        reason: None,
        usage: has_begun.then(Usage::default),
    };
    (1..=count).map(|key| InstanceWrite { instance: instance(key), dag_id: "sales".into(), prior }).collect()
}

/// Rows that exist are changed, as by the starts and ends of tasks.
#[divan::bench(args = [1, 100, 1_000])]
fn commit_changed_rows(bencher: Bencher<'_, '_>, rows: i64) {
    let folder = tempfile::tempdir().expect("the folder of temporary files is writable");
    let database = Database::open(&folder.path().join("minflow.db"), Synchronous::Full);
    let mut database = database.expect("a new folder takes a database");
    let run = DagRun {
        key: RunKey(1),
        dag_id: "sales".into(),
        run_id: "manual__2026-11-21".into(),
        run_type: RunType::Manual,
        state: RunState::Running,
        run_after: day(),
        logical_date: Some(day()),
        data_interval: None,
        queued_at: Some(day()),
        start_date: Some(day()),
        end_date: None,
        conf: Map::new(),
        reason: None,
    };
    let first = Changes {
        runs: vec![RunWrite { run, prior: None }],
        instances: instances(rows, TaskState::Queued, None),
        ..Changes::default()
    };
    database.commit(&first).expect("the disk takes it");
    let mut to_running =
        Changes { instances: instances(rows, TaskState::Running, Some(TaskState::Queued)), ..Changes::default() };
    let mut to_queued =
        Changes { instances: instances(rows, TaskState::Queued, Some(TaskState::Running)), ..Changes::default() };
    bencher.counter(ItemsCount::new(rows as usize)).bench_local(|| {
        database.commit(&to_running).expect("the disk takes it");
        std::mem::swap(&mut to_running, &mut to_queued);
    });
}

/// Takes every commit and keeps nothing: what is left is the cost of deciding.
struct Forgetful;

impl Store for Forgetful {
    fn load(&mut self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot::default())
    }

    fn commit(&mut self, changes: &Changes) -> Result<(), StoreError> {
        divan::black_box(changes);
        Ok(())
    }

    fn find_run(&mut self, _: &DagId, _: &RunLookup) -> Result<Option<DagRun>, StoreError> {
        Ok(None)
    }
}

/// Notes what it is to start.
#[derive(Clone, Default)]
struct Notebook(Arc<Mutex<Vec<TryKey>>>);

impl Executor for Notebook {
    fn start(&mut self, work: Work) {
        self.0.lock().push(work.key);
    }

    fn kill(&mut self, _: TryKey, _: Kill) {}

    fn reclaim(&mut self, _: Stray) {}

    fn acknowledge(&mut self, _: &[TryKey]) {}
}

struct Unarmed;

impl Timer for Unarmed {
    fn arm(&mut self, _: Option<Timestamp>, _: Option<BootInstant>) {}
}

/// A scheduler that knows one DAG: one task, `width` tasks, one task.
fn scheduler(width: usize, parallelism: u32, executor: Notebook) -> Scheduler {
    let ids: Vec<String> = (0..width).map(|number| format!("t{number}")).collect();
    let tasks: String = ids.iter().map(|id| format!("[tasks.{id}]\nbash = \"true\"\n")).collect();
    let all = ids.join(", ");
    let source = format!(
        "max_active_tasks = {parallelism}\nchain = [\"first >> [{all}] >> last\"]\n\
         [tasks.first]\nbash = \"true\"\n[tasks.last]\nbash = \"true\"\n{tasks}"
    );
    let dag = dagfile::parse(Path::new("dags/wide.toml"), source.as_bytes(), &Defaults::default());
    let found = Found::Parsed {
        dag: Arc::new(dag.expect("the text is valid")),
        source: source.into(),
        hash: "0123456789abcdef".into(),
    };
    let file = DagFile { path: "wide.toml".into(), modified_at: None, found };
    let pool = Pool { name: "default_pool".into(), slots: 1_000, description: String::new() };
    let settings = Settings { parallelism, drain_timeout: std::time::Duration::from_secs(5), pools: vec![pool] };
    let parts = Parts {
        store: Box::new(Forgetful),
        executor: Box::new(executor),
        timer: Box::new(Unarmed),
        clock: Arc::new(SystemClock),
        health: Health::default(),
        gauges: GaugeBoard::default(),
        heartbeat: Heartbeat::default(),
    };
    let mut scheduler = Scheduler::new(settings, Snapshot::default(), Box::new(|_, _| None), parts);
    scheduler.turn(vec![Event::DagFiles { files: vec![file], complete: true }, Event::Scanned]);
    scheduler
}

fn trigger() -> Event {
    let trigger = Trigger {
        dag_id: "wide".into(),
        run_id: None,
        logical_date: LogicalDate::RunAfter,
        conf: Map::new(),
        unpause: true,
    };
    Event::Command { command: Command::Trigger(trigger), reply: ReplyTo::new(|reply: Reply| assert!(reply.is_ok())) }
}

/// A try that begins and ends within one turn.
fn lived(key: TryKey) -> [Event; 2] {
    let process = ProcessIdentity { pid: 4_711, start_ticks: 123_456, boot_id: String::new() };
    let end = TryEnd {
        key,
        outcome: Outcome::Exited(0),
        started_at: Some(day()),
        ended_at: day(),
        usage: Some(Usage::default()),
        xcoms: Vec::new(),
    };
    [Event::Started(Attempt { key, process, started_at: day() }), Event::Ended(Box::new(end))]
}

/// One run from trigger to end, with as many tasks in a turn as run at once; the figure is per task.
#[divan::bench(args = [(500, 1), (500, 32), (5_000, 32), (5_000, 1_000)])]
fn decide_a_wide_run(bencher: Bencher<'_, '_>, (width, parallelism): (usize, u32)) {
    let executor = Notebook::default();
    bencher
        .counter(ItemsCount::new(width + 2))
        .with_inputs(|| scheduler(width, parallelism, executor.clone()))
        .bench_local_values(|mut scheduler| {
            scheduler.turn(vec![trigger()]);
            let mut ended = 0;
            loop {
                let started = std::mem::take(&mut *executor.0.lock());
                if started.is_empty() && !scheduler.world().has_more() {
                    break;
                }
                ended += started.len();
                scheduler.turn(started.into_iter().flat_map(lived).collect());
            }
            assert_eq!(ended, width + 2, "every task of the run was started");
        });
}
