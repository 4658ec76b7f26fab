//! What one turn costs: its decisions, and its commit to a real file with `synchronous = "full"`.
//!
//! `cargo bench --bench turn`. The commit's figure is mostly the disk's; the share of the rows shows between the sizes.

use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use jiff::Timestamp;
use minflow::clock::SystemClock;
use minflow::config::Synchronous;
use minflow::model::{DagRun, Instance, InstanceKey, ProcessIdentity, RunKey, RunState, RunType, TaskState};
use minflow::scheduler::command::{LogicalDate, Trigger};
use minflow::scheduler::port::ReplyTo;
use minflow::scheduler::turn::Scheduler;
use minflow::scheduler::{Changes, Command, Event, InstanceWrite, Reply, RunWrite, Store};
use minflow::store::Database;
use serde_json::Map;

use crate::stage::{Forgetful, Notebook, file, lived, scheduler};

mod stage;

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
        state,
        try_number: 1,
        scheduled_at: Some(day()),
        queued_at: Some(day()),
        start_date: has_begun.then(day),
        process: has_begun.then(|| Box::new(process.clone())),
        usage: has_begun.then(Box::default),
        ..Instance::new(InstanceKey(key), RunKey(1), format!("task_{key}"), "default_pool", "bash")
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
        lag: None,
        backfill: None,
        is_released: false,
        clear_number: 0,
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

/// A scheduler that knows one DAG: one task, `width` tasks, one task.
fn wide(width: usize, parallelism: u32, executor: Notebook) -> Scheduler {
    let ids: Vec<String> = (0..width).map(|number| format!("t{number}")).collect();
    let tasks: String = ids.iter().map(|id| format!("[tasks.{id}]\nbash = \"true\"\n")).collect();
    let all = ids.join(", ");
    let text = format!(
        "max_active_tasks = {parallelism}\nchain = [\"first >> [{all}] >> last\"]\n\
         [tasks.first]\nbash = \"true\"\n[tasks.last]\nbash = \"true\"\n{tasks}"
    );
    scheduler(vec![file("wide.toml", &text)], parallelism, Box::new(Forgetful), executor, Arc::new(SystemClock))
}

fn trigger() -> Event {
    let trigger = Trigger {
        dag_id: "wide".into(),
        run_id: None,
        logical_date: LogicalDate::RunAfter,
        data_interval: None,
        conf: Map::new(),
        unpause: true,
    };
    Event::Command { command: Command::Trigger(trigger), reply: ReplyTo::new(|reply: Reply| assert!(reply.is_ok())) }
}

/// One run from trigger to end, with as many tasks in a turn as run at once; the figure is per task.
#[divan::bench(args = [(500, 1), (500, 32), (5_000, 32), (5_000, 1_000)])]
fn decide_a_wide_run(bencher: Bencher<'_, '_>, (width, parallelism): (usize, u32)) {
    let executor = Notebook::default();
    bencher
        .counter(ItemsCount::new(width + 2))
        .with_inputs(|| wide(width, parallelism, executor.clone()))
        .bench_local_values(|mut scheduler| {
            scheduler.turn(vec![trigger()]);
            let mut ended = 0;
            loop {
                let started = executor.take();
                if started.is_empty() && !scheduler.world().has_more() {
                    break;
                }
                ended += started.len();
                scheduler.turn(started.into_iter().flat_map(|key| lived(key, day())).collect());
            }
            assert_eq!(ended, width + 2, "every task of the run was started");
        });
}
