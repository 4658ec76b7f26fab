//! What a scheduler is given by the benches that measure it alone: a store that keeps nothing, an executor that runs nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use minflow::clock::{BootInstant, Clock};
use minflow::dagfile::{self, Defaults};
use minflow::health::Health;
use minflow::model::{AssetKey, Pool, PoolName, ProcessIdentity, TryKey, Usage, Wait};
use minflow::scheduler::command::{Asker, Stop};
use minflow::scheduler::gauge::{GaugeBoard, Heartbeat};
use minflow::scheduler::port::{Call, FileWatch, FileWish, Followers, History, HostWatch, Kill, Left};
use minflow::scheduler::ready::Choosing;
use minflow::scheduler::turn::{Parts, Scheduler};
use minflow::scheduler::world::Settings;
use minflow::scheduler::{
    Attempt, Changes, DagFile, Event, Executor, Found, Outcome, Snapshot, Store, StoreError, Timer, Triggerer, TryEnd,
    Work,
};
use parking_lot::Mutex;

/// Takes every commit and keeps nothing: what is left is the cost of deciding.
pub struct Forgetful;

impl Store for Forgetful {
    fn load(&mut self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot::default())
    }

    fn commit(&mut self, changes: &Changes) -> Result<(), StoreError> {
        divan::black_box(changes);
        Ok(())
    }
}

impl History for Forgetful {}

/// Notes what it is to start.
#[derive(Clone, Default)]
pub struct Notebook(Arc<Mutex<Vec<TryKey>>>);

impl Notebook {
    /// What it was to start since it was last asked.
    pub fn take(&self) -> Vec<TryKey> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Executor for Notebook {
    fn prepare(&mut self, _: Work) {}

    fn start(&mut self, keys: &[TryKey]) {
        self.0.lock().extend(keys);
    }

    fn kill(&mut self, _: TryKey, _: Kill) {}

    fn pause(&mut self, _: TryKey) {}

    fn resume(&mut self, _: TryKey) {}

    fn reclaim(&mut self, _: Left) {}

    fn call(&mut self, _: Box<Call>) {}

    fn look(&mut self, _: Vec<Work>) {}

    fn forget(&mut self, _: TryKey) {}

    fn acknowledge(&mut self, _: &[TryKey]) {}
}

struct Unarmed;

impl Triggerer for Unarmed {
    fn watch(&mut self, _: TryKey, _: &Wait) {}

    fn forget(&mut self, _: TryKey) {}
}

impl Timer for Unarmed {
    fn arm(&mut self, _: Option<Timestamp>, _: Option<BootInstant>) {}
}

impl Followers for Unarmed {
    fn pools_changed(&mut self, _: BTreeMap<PoolName, i64>) {}
    fn stopping(&mut self, _: Stop, _: Asker, _: Duration) {}
}

impl HostWatch for Unarmed {
    fn ask(&mut self) {}
}

impl FileWatch for Unarmed {
    fn watch(&mut self, _: AssetKey, _: FileWish) {}
    fn forget(&mut self, _: AssetKey) {}
}

/// A scheduler whose DAGs are these files; all of them are live.
pub fn scheduler(
    files: Vec<DagFile>,
    parallelism: u32,
    store: Box<dyn Store>,
    executor: Notebook,
    clock: Arc<dyn Clock>,
) -> Scheduler {
    let pool = Pool { name: "default_pool".into(), slots: -1, description: String::new(), include_deferred: false };
    let settings = Settings {
        parallelism,
        admission: minflow::model::AdmissionRules::default(),
        drain_timeout: Duration::from_secs(5),
        drained: minflow::scheduler::world::Drained::Kept,
        choosing: Choosing::default(),
        pools: vec![pool],
        overrides: minflow::params::Override::Params,
        assets: Vec::new(),
    };
    let parts = Parts {
        store,
        executor: Box::new(executor),
        triggerer: Box::new(Unarmed),
        timer: Box::new(Unarmed),
        files: Box::new(Unarmed),
        followers: Box::new(Unarmed),
        host: Box::new(Unarmed),
        clock,
        health: Health::default(),
        gauges: GaugeBoard::default(),
        heartbeat: Heartbeat::default(),
    };
    let fresh = Snapshot { next_run_key: 1, next_instance_key: 1, next_version_key: 1, ..Snapshot::default() };
    let mut scheduler = Scheduler::new(settings, fresh, Box::new(|_, _| None), parts);
    scheduler.turn(vec![Event::DagFiles { files, complete: true }, Event::Scanned]);
    while scheduler.world().has_more() {
        scheduler.turn(Vec::new());
    }
    scheduler
}

/// A DAG file as the watcher hands it over.
pub fn file(name: &str, text: &str) -> DagFile {
    let dag = dagfile::parse(Path::new(name), text.as_bytes(), &Defaults::default());
    let found = Found::Parsed {
        dag: Arc::new(dag.expect("the text is valid")),
        source: text.into(),
        hash: "0123456789abcdef".into(),
    };
    DagFile { path: name.into(), modified_at: None, found }
}

/// A try that begins and ends within one turn.
pub fn lived(key: TryKey, at: Timestamp) -> [Event; 2] {
    let process = ProcessIdentity { pid: 4_711, start_ticks: 123_456, boot_id: String::new() };
    let end =
        TryEnd { started_at: Some(at), usage: Some(Usage::default()), ..TryEnd::new(key, Outcome::Exited(0), at) };
    [Event::Started(Attempt { key, process, started_at: at }), Event::Ended(Box::new(end))]
}
