//! The loop at scale: ten thousand DAGs due in the same minute, and the whole life of an instance without disk and processes.
//!
//! `cargo bench --bench many`. The figures to hold: all runs of a minute created within a second and in few transactions; at most
//! 4 KB for a DAG that waits, beside its definition. The last two lines show what one instance costs over its whole life, with
//! nothing written and nothing run.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use minflow::clock::{Clock, SimulatedClock};
use minflow::config::Synchronous;
use minflow::model::{DagId, DagRun, RunKey, TaskId, TaskState};
use minflow::scheduler::change::{Earlier, RunLookup};
use minflow::scheduler::port::History;
use minflow::scheduler::turn::Scheduler;
use minflow::scheduler::{Changes, DagFile, Event, Snapshot, Store, StoreError};
use minflow::store::Database;

use crate::memory::resident_bytes;
use crate::stage::{Forgetful, Notebook, file, lived, scheduler};

#[path = "stage/memory.rs"]
mod memory;
mod stage;

fn main() {
    // `cargo bench --bench many -- 720` lets the many DAGs run for so many hours.
    let hours = std::env::args().skip(1).find_map(|hours| hours.parse().ok()).unwrap_or(24);
    idle_dags(10_000);
    due_at_once(10_000);
    life_of_an_instance(1_000, hours);
    life_of_an_instance(1, 24 * 365);
}

fn start() -> Timestamp {
    "2026-11-21T00:00:30Z".parse().expect("it is an instant")
}

/// DAGs of five tasks, one after the other, each hour.
fn hourly(dags: usize) -> Vec<DagFile> {
    let mut text = String::from("schedule = \"0 * * * *\"\n");
    for task in 0..5 {
        let upstream = if task == 0 { String::new() } else { format!("depends_on = [\"step_{}\"]\n", task - 1) };
        let _ = write!(text, "\n[tasks.step_{task}]\nbash = \"true\"\n{upstream}");
    }
    (0..dags).map(|number| file(&format!("hourly_{number:05}.toml"), &text)).collect()
}

/// What the scheduler keeps for a DAG, beside its definition.
fn idle_dags(dags: usize) {
    let files = hourly(dags);
    let defined = resident_bytes();
    let clock = SimulatedClock::starting_at(start());
    let executor = Notebook::default();
    let mut scheduler = scheduler(files, 100_000, Box::new(Forgetful), executor.clone(), Arc::new(clock.clone()));
    let kilobytes = || resident_bytes().saturating_sub(defined) as f64 / dags as f64 / 1e3;
    println!("{dags} DAGs that wait: {:.2} kB each beside the definition", kilobytes());
    clock.advance(Duration::from_secs(3_600));
    scheduler.turn(vec![Event::Tick]);
    let ended = run_to_the_end(&mut scheduler, &executor, clock.now());
    assert_eq!(ended, dags * 5, "every task of every run was started");
    println!("{dags} DAGs that wait, after a run of each: {:.2} kB each", kilobytes());
}

/// The whole life of an instance: created, scheduled, started, ended, its run over.
fn life_of_an_instance(dags: usize, hours: u64) {
    let clock = SimulatedClock::starting_at(start());
    let executor = Notebook::default();
    let files = hourly(dags);
    let mut scheduler = scheduler(files, 100_000, Box::new(Forgetful), executor.clone(), Arc::new(clock.clone()));
    let began = Instant::now();
    let mut ended = 0;
    for _ in 0..hours {
        clock.advance(Duration::from_secs(3_600));
        scheduler.turn(vec![Event::Tick]);
        ended += run_to_the_end(&mut scheduler, &executor, clock.now());
    }
    let took = began.elapsed();
    assert_eq!(ended, dags * 5 * hours as usize, "every task of every run was started");
    let each = took.as_nanos() as f64 / ended as f64;
    println!("{dags} DAGs of 5 tasks, each hour for {hours} h: {:.2} s, {each:.0} ns an instance", took.as_secs_f64());
}

/// What has started ends, until nothing starts any more. Returns how many.
fn run_to_the_end(scheduler: &mut Scheduler, executor: &Notebook, at: Timestamp) -> usize {
    let mut ended = 0;
    loop {
        let started = executor.take();
        if started.is_empty() && !scheduler.world().has_more() {
            return ended;
        }
        ended += started.len();
        scheduler.turn(started.into_iter().flat_map(|key| lived(key, at)).collect());
    }
}

#[derive(Clone, Default)]
struct Tally {
    commits: Arc<AtomicU64>,
    runs: Arc<AtomicU64>,
    nanoseconds: Arc<AtomicU64>,
}

/// A database that counts what is written.
struct Counted {
    database: Database,
    tally: Tally,
}

impl Store for Counted {
    fn load(&mut self) -> Result<Snapshot, StoreError> {
        self.database.load()
    }

    fn commit(&mut self, changes: &Changes) -> Result<(), StoreError> {
        let began = Instant::now();
        self.database.commit(changes)?;
        self.tally.nanoseconds.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        self.tally.commits.fetch_add(1, Ordering::Relaxed);
        let created = changes.runs.iter().filter(|write| write.prior.is_none()).count();
        self.tally.runs.fetch_add(created as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl History for Counted {
    fn find_run(&mut self, dag_id: &DagId, lookup: &RunLookup) -> Result<Option<DagRun>, StoreError> {
        self.database.find_run(dag_id, lookup)
    }

    fn run_before(&mut self, dag_id: &DagId, earlier: Earlier) -> Result<Option<DagRun>, StoreError> {
        self.database.run_before(dag_id, earlier)
    }

    fn task_states(&mut self, run: RunKey, task_id: &TaskId) -> Result<Vec<TaskState>, StoreError> {
        self.database.task_states(run, task_id)
    }

    fn has_earlier_instance(&mut self, dag_id: &DagId, task_id: &TaskId, than: Timestamp) -> Result<bool, StoreError> {
        self.database.has_earlier_instance(dag_id, task_id, than)
    }

    fn newest_runs(&mut self, dag_id: &DagId, limit: u32) -> Result<Vec<DagRun>, StoreError> {
        self.database.newest_runs(dag_id, limit)
    }
}

/// From the tick to the commit of the last run that was due, with `synchronous = "full"` on a real file.
fn due_at_once(dags: usize) {
    let folder = tempfile::tempdir().expect("the folder of temporary files is writable");
    let database = Database::open(&folder.path().join("minflow.db"), Synchronous::Full);
    let tally = Tally::default();
    let store = Counted { database: database.expect("a new folder takes a database"), tally: tally.clone() };
    let clock = SimulatedClock::starting_at(start());
    let mut scheduler = scheduler(hourly(dags), 32, Box::new(store), Notebook::default(), Arc::new(clock.clone()));
    for _ in 0..3 {
        let runs = tally.runs.swap(0, Ordering::Relaxed);
        assert!(runs == 0 || runs == dags as u64, "every DAG gets a run each hour");
        let before = (tally.commits.load(Ordering::Relaxed), tally.nanoseconds.load(Ordering::Relaxed));
        clock.advance(Duration::from_secs(3_600));
        let began = Instant::now();
        scheduler.turn(vec![Event::Tick]);
        while tally.runs.load(Ordering::Relaxed) < dags as u64 {
            scheduler.turn(Vec::new());
        }
        let seconds = began.elapsed().as_secs_f64();
        let commits = tally.commits.load(Ordering::Relaxed) - before.0;
        let written = (tally.nanoseconds.load(Ordering::Relaxed) - before.1) as f64 / 1e9;
        println!(
            "{dags} DAGs due at once: all runs created within {seconds:.2} s, in {commits} transactions; {written:.2} s of it \
             in the database"
        );
    }
}
