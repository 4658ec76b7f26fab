//! Simulations of the loop: a fake clock, a fake executor, a store in memory, and a script of events. What the loop asks of the
//! executor and what it commits is a trace in words, which the tests compare.

mod acts;
mod admission;
mod assets;
mod backfill;
mod callbacks;
mod choosing;
mod cross_dag;
mod deadlines;
mod explain;
mod gates;
mod mapped;
mod memory;
mod mortal;
mod order;
mod pools;
mod property;
mod random;
mod recovery;
mod replay;
mod retire;
mod retries;
mod rows;
mod runs;
mod seeds;
mod sensors;
mod skips;
mod stops;
mod story;
mod task_limits;
mod tests;
mod ties;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, unbounded};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::clock::{BootInstant, Clock, SimulatedClock};
use crate::dagfile::{self, Defaults};
use crate::health::Health;
use crate::model::{AssetKey, Pool, PoolName, ProcessIdentity, RunState, TaskState, TryKey, Wait};
use crate::scheduler::Store;
use crate::scheduler::command::{Asker, Command, Reply, Stop};
use crate::scheduler::event::{Attempt, DagFile, Event, Found, Outcome, TryEnd, Verdict};
use crate::scheduler::gauge::{GaugeBoard, Heartbeat};
use crate::scheduler::port::{
    Call, Executor, FileWatch, FileWish, Followers, HostWatch, Kill, Left, ReplyTo, Timer, Triggerer, Work,
};
use crate::scheduler::ready::Choosing;
use crate::scheduler::simulation::mortal::Lot;
use crate::scheduler::turn::{Parts, Scheduler};
use crate::scheduler::world::{Drained, Restore, Settings};
use crate::store::MemoryStore;

/// What the loop asked of the executor, in order.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    trace: Vec<String>,
    /// Waits for the commit of its turn.
    prepared: BTreeMap<TryKey, Work>,
    names: BTreeMap<TryKey, String>,
    /// What the triggerer looks for.
    watched: BTreeSet<TryKey>,
    /// What is asked of a service now.
    looks: BTreeSet<TryKey>,
    armed: (Option<Timestamp>, Option<BootInstant>),
    /// By name, what the last try was told of how often lists were given.
    epochs: BTreeMap<String, u64>,
    /// Says whether the process has ended.
    store: MemoryStore,
    /// So many of its acts are done after its last commit, and the rest never.
    last_acts: u32,
    /// What has become of what was handed over, until its end is recorded; it outlives the process.
    host: BTreeMap<TryKey, Lot>,
    /// The tries that were handed over since somebody looked last.
    begins: Vec<TryKey>,
    /// Tries of callbacks that were made; the list outlives the process.
    made: BTreeSet<TryKey>,
    /// What an earlier process has left, and whether it can be known of it that it had not begun.
    left: BTreeMap<TryKey, bool>,
    events: u64,
}

impl Calls {
    /// Of each act after a commit: false if the process has ended before it.
    fn is_done(&self) -> bool {
        let mut recorded = self.0.lock();
        if !recorded.store.has_ended() {
            return true;
        }
        let left = recorded.last_acts;
        recorded.last_acts = left.saturating_sub(1);
        left > 0
    }
}

impl Executor for Calls {
    fn prepare(&mut self, work: Work) {
        assert!(self.0.lock().prepared.insert(work.key, work).is_none(), "it is prepared once");
    }

    fn start(&mut self, keys: &[TryKey]) {
        for key in keys {
            if !self.is_done() {
                return;
            }
            let mut recorded = self.0.lock();
            let work = recorded.prepared.remove(key).expect("what starts was prepared");
            let mut name = format!("{}.{}", work.dag.dag_id, work.dag.task(work.task).task_id);
            if work.map_index >= 0 {
                name.push_str(&format!("[{}]", work.map_index));
            }
            recorded.trace.push(format!("start {name} try {}", key.try_number));
            recorded.epochs.insert(name.clone(), work.epoch);
            recorded.names.insert(*key, name);
            recorded.begins.push(*key);
            let before = recorded.host.insert(*key, Lot::Handed);
            assert!(before.is_none(), "{key:?} is begun again, and is {before:?}");
        }
    }

    fn kill(&mut self, key: TryKey, how: Kill) {
        if !self.is_done() {
            return;
        }
        let mut recorded = self.0.lock();
        let name = recorded.names.get(&key).map_or("?", String::as_str).to_owned();
        recorded.trace.push(format!("kill {name}: {}", how.reason));
    }

    fn pause(&mut self, key: TryKey) {
        let mut recorded = self.0.lock();
        let name = recorded.names.get(&key).map_or("?", String::as_str).to_owned();
        recorded.trace.push(format!("pause {name}"));
    }

    fn resume(&mut self, key: TryKey) {
        let mut recorded = self.0.lock();
        let name = recorded.names.get(&key).map_or("?", String::as_str).to_owned();
        recorded.trace.push(format!("resume {name}"));
    }

    fn reclaim(&mut self, left: Left) {
        if !self.is_done() {
            return;
        }
        let mut recorded = self.0.lock();
        for stray in left.tries {
            let mut name = format!("{}.{}", stray.run.dag_id, stray.task_id);
            if stray.map_index >= 0 {
                name.push_str(&format!("[{}]", stray.map_index));
            }
            recorded.trace.push(format!("reclaim {name} try {}", stray.key.try_number));
            recorded.left.insert(stray.key, stray.handed_at.is_some());
            recorded.names.insert(stray.key, name);
        }
        for call in left.calls {
            let name = call_name(&call);
            recorded.trace.push(format!("reclaim {name} try {}", call.row.tries));
            recorded.names.insert(call.row.try_key(), name);
        }
    }

    fn call(&mut self, call: Box<Call>) {
        if !self.is_done() {
            return;
        }
        let mut recorded = self.0.lock();
        let name = call_name(&call);
        recorded.trace.push(format!("call {name} try {}", call.row.tries));
        assert!(recorded.made.insert(call.row.try_key()), "{name} try {} is made again", call.row.tries);
        recorded.names.insert(call.row.try_key(), name);
    }

    fn look(&mut self, works: Vec<Work>) {
        let mut recorded = self.0.lock();
        for work in works {
            recorded.trace.push(format!("look {}.{}", work.dag.dag_id, work.dag.task(work.task).task_id));
            assert!(recorded.looks.insert(work.key), "{:?} is looked for already", work.key);
        }
    }

    fn forget(&mut self, key: TryKey) {
        self.0.lock().looks.remove(&key);
    }

    fn acknowledge(&mut self, keys: &[TryKey]) {
        for key in keys {
            if !self.is_done() {
                return;
            }
            let mut recorded = self.0.lock();
            recorded.names.remove(key);
            recorded.host.remove(key);
        }
    }
}

fn call_name(call: &Call) -> String {
    let task = call.row.occasion.task.as_ref().map_or_else(String::new, |task| format!(".{}", task.task_id));
    format!("{} {} {}{task}", call.row.hook, call.row.number, call.row.dag_id)
}

impl Triggerer for Calls {
    fn watch(&mut self, key: TryKey, wait: &Wait) {
        let mut recorded = self.0.lock();
        recorded.trace.push(format!("watch: {}", wait.words()));
        assert!(recorded.watched.insert(key), "{key:?} is watched already");
    }

    fn forget(&mut self, key: TryKey) {
        let mut recorded = self.0.lock();
        recorded.trace.push("forget".to_owned());
        recorded.watched.remove(&key);
    }
}

impl Timer for Calls {
    fn arm(&mut self, wall: Option<Timestamp>, boot: Option<BootInstant>) {
        self.0.lock().armed = (wall, boot);
    }
}

impl HostWatch for Calls {
    fn ask(&mut self) {
        self.0.lock().trace.push("ask the host".to_owned());
    }
}

impl FileWatch for Calls {
    fn watch(&mut self, _: AssetKey, wish: FileWish) {
        self.0.lock().trace.push(format!("watch {} ({} known)", wish.pattern, wish.known.len()));
    }

    fn forget(&mut self, _: AssetKey) {
        self.0.lock().trace.push("forget files".to_owned());
    }
}

impl Followers for Calls {
    fn pools_changed(&mut self, sizes: BTreeMap<PoolName, i64>) {
        let sizes: Vec<String> = sizes.iter().map(|(name, slots)| format!("{name} {slots}")).collect();
        self.0.lock().trace.push(format!("pools: {}", sizes.join(", ")));
    }

    fn stopping(&mut self, _: Stop, _: Asker, _: Duration) {}
}

/// One simulated minflow.
struct Simulation {
    clock: SimulatedClock,
    store: MemoryStore,
    calls: Calls,
    scheduler: Scheduler,
    settings: Settings,
    files: BTreeMap<String, String>,
    health: Health,
}

fn defaults() -> Defaults {
    let mut defaults = Defaults::default();
    defaults.pools.extend([("narrow".into(), 1), ("wide".into(), 1)]);
    defaults
}

fn pool(name: &str, slots: i64) -> Pool {
    Pool { name: name.into(), slots, description: String::new(), include_deferred: false }
}

/// The world after a first scan of these DAG files.
pub(super) fn world_of(files: &[(&str, &str)]) -> crate::scheduler::world::World {
    Simulation::with(files).scheduler.world
}

impl Simulation {
    /// At 2026-11-21 12:30 UTC, with these DAG files, and all of them seen.
    fn with(files: &[(&str, &str)]) -> Self {
        Self::with_parallelism(32, files)
    }

    fn with_parallelism(parallelism: u32, files: &[(&str, &str)]) -> Self {
        let clock = SimulatedClock::starting_at("2026-11-21T12:30:00Z".parse().unwrap());
        let settings = Settings {
            parallelism,
            admission: crate::model::AdmissionRules::default(),
            drain_timeout: Duration::from_secs(5),
            drained: Drained::Kept,
            choosing: Choosing::default(),
            pools: vec![pool("default_pool", 128), pool("narrow", 1)],
            overrides: crate::params::Override::Params,
            assets: Vec::new(),
        };
        let store = MemoryStore::default();
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let mut simulation = Self::start(clock, store, settings, files);
        simulation.rescan();
        simulation
    }

    fn start(clock: SimulatedClock, store: MemoryStore, settings: Settings, files: BTreeMap<String, String>) -> Self {
        Self::start_after(Recorded::default(), clock, store, settings, files)
    }

    /// `recorded` is what has outlived the process before.
    fn start_after(
        recorded: Recorded,
        clock: SimulatedClock,
        store: MemoryStore,
        settings: Settings,
        files: BTreeMap<String, String>,
    ) -> Self {
        let restore = Box::new(|record: &super::DagRecord, version: &super::change::VersionWrite| {
            dagfile::parse(Path::new(&record.file), version.source.as_bytes(), &defaults().for_stored())
                .ok()
                .map(Arc::new)
        });
        Self::start_with((store, recorded), clock, settings, files, restore)
    }

    fn start_with(
        (store, recorded): (MemoryStore, Recorded),
        clock: SimulatedClock,
        settings: Settings,
        files: BTreeMap<String, String>,
        restore: Box<Restore>,
    ) -> Self {
        let (calls, health) = (Calls(Arc::new(Mutex::new(recorded))), Health::default());
        calls.0.lock().store = store.clone();
        let parts = Parts {
            store: Box::new(store.clone()),
            executor: Box::new(calls.clone()),
            triggerer: Box::new(calls.clone()),
            timer: Box::new(calls.clone()),
            files: Box::new(calls.clone()),
            followers: Box::new(calls.clone()),
            host: Box::new(calls.clone()),
            clock: Arc::new(clock.clone()),
            health: health.clone(),
            gauges: GaugeBoard::default(),
            heartbeat: Heartbeat::default(),
        };
        let snapshot = store.clone().load().unwrap();
        let mut scheduler = Scheduler::new(settings.clone(), snapshot, restore, parts);
        scheduler.turn(Vec::new());
        Self { clock, store, calls, scheduler, settings, files, health }
    }

    /// The process dies, and another one starts on the same database.
    fn crash_and_restart(self) -> Self {
        let mut next = Self::start(self.clock, self.store, self.settings, self.files);
        next.rescan();
        next
    }

    fn file(&self, name: &str) -> DagFile {
        let now = Some(self.clock.now());
        let Some(text) = self.files.get(name) else {
            return DagFile { path: name.into(), modified_at: None, found: Found::Gone };
        };
        let found = match dagfile::parse(Path::new(name), text.as_bytes(), &defaults()) {
            Ok(dag) => Found::Parsed {
                dag: Arc::new(dag),
                source: text.as_str().into(),
                hash: format!("{:x}", text.bytes().fold(7_u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into())))
                    .into(),
            },
            Err(faults) => Found::Broken(faults),
        };
        DagFile { path: name.into(), modified_at: now, found }
    }

    /// The first scan, in the watcher's pieces.
    fn rescan(&mut self) {
        let files = self.files.keys().map(|name| self.file(name)).collect();
        self.turn(Event::DagFiles { files, complete: false });
        self.turn(Event::DagFiles { files: Vec::new(), complete: true });
        self.turn(Event::Scanned);
    }

    /// Saves a file, and the watcher sees it.
    fn save(&mut self, name: &str, text: &str) {
        self.files.insert(name.to_owned(), text.to_owned());
        let file = self.file(name);
        self.turn(Event::DagFiles { files: vec![file], complete: false });
    }

    fn remove(&mut self, name: &str) {
        self.files.remove(name);
        let file = self.file(name);
        self.turn(Event::DagFiles { files: vec![file], complete: false });
    }

    fn turn(&mut self, event: Event) {
        self.turn_all(vec![event]);
    }

    /// All in one turn.
    fn turn_all(&mut self, events: Vec<Event>) {
        self.calls.0.lock().events += events.len() as u64;
        self.scheduler.turn(events);
    }

    /// airflow.toml says something else, and SIGHUP has minflow read it.
    fn reconfigure(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        let (settings, file, changed) = (self.settings.clone(), "airflow.toml".to_owned(), Vec::new());
        self.turn(Event::Reconfigured(Box::new(super::event::Reconfigured { settings, file, changed })));
    }

    /// Time passes, deadline by deadline, as the timer would wake the loop.
    fn advance(&mut self, by: Duration) {
        let until = self.clock.boot().after(by);
        loop {
            let (now, boot) = (self.clock.now(), self.clock.boot());
            let (wall_at, boot_at) = self.calls.0.lock().armed;
            let to_wall = wall_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
            let to_boot = boot_at.map(|at| at.since(boot));
            let next = to_wall.into_iter().chain(to_boot).min();
            let left = until.since(boot);
            match next {
                Some(step) if step <= left => {
                    self.clock.advance(step);
                    self.turn(Event::Tick);
                }
                _ => {
                    self.clock.advance(left);
                    return;
                }
            }
        }
    }

    fn command(&mut self, command: Command) -> Receiver<Reply> {
        let (sender, replies) = unbounded();
        let reply = ReplyTo::new(move |reply| {
            let _ = sender.send(reply);
        });
        self.turn(Event::Command { command, reply });
        replies
    }

    /// The key of the try of `dag.task` or `dag.task[index]` that the executor has; of a mapped task without an index, of the oldest.
    fn key(&self, name: &str) -> TryKey {
        let recorded = self.calls.0.lock();
        let is_it = |known: &str| known == name || known.split_once('[').is_some_and(|(task, _)| task == name);
        let found = recorded.names.iter().find(|(_, known)| is_it(known));
        *found.unwrap_or_else(|| panic!("the executor does not have {name}: {:?}", recorded.trace)).0
    }

    fn started(&mut self, name: &str) {
        let process = ProcessIdentity { pid: 1_000, start_ticks: 1, boot_id: "boot".to_owned() };
        let attempt = Attempt { key: self.key(name), process, started_at: self.clock.now() };
        self.turn(Event::Started(attempt));
    }

    fn end(&mut self, name: &str, outcome: Outcome) {
        self.end_matching(name, outcome, &[]);
    }

    /// The try's output matches these patterns of its `retry_on`.
    fn end_matching(&mut self, name: &str, outcome: Outcome, matched: &[&str]) {
        let now = self.clock.now();
        let end = TryEnd {
            started_at: Some(now),
            matched: matched.iter().map(|&pattern| pattern.to_owned()).collect(),
            ..TryEnd::new(self.key(name), outcome, now)
        };
        self.turn(Event::Ended(Box::new(end)));
    }

    fn succeed(&mut self, name: &str) {
        self.started(name);
        self.end(name, Outcome::Exited(0));
    }

    /// The triggerer has found what the only one waits for that it looks for.
    fn fire(&mut self, verdict: Verdict) {
        let key = self.calls.0.lock().watched.pop_first().expect("something is looked for");
        self.turn(Event::Fired { key, verdict });
    }

    /// What the executor was asked since the last look.
    fn trace(&mut self) -> Vec<String> {
        std::mem::take(&mut self.calls.0.lock().trace)
    }

    fn task_state(&self, task: &str) -> TaskState {
        let instances = self.store.instances();
        instances.iter().rfind(|row| &*row.task_id == task).unwrap_or_else(|| panic!("no instance of {task}")).state
    }

    fn run_states(&self) -> Vec<(String, RunState)> {
        self.store.runs().into_iter().map(|run| (run.run_id.to_string(), run.state)).collect()
    }
}
