//! Worlds of one DAG for the vectors about runs: what the loop would drive, without its threads, its executor and its file.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use minflow::clock::BootInstant;
use minflow::model::{
    Awaited, Dag, DagId, DagRun, Instance, InstanceKey, Pace, Pool, RunKey, RunState, RunType, SensorMode, TaskState,
    VersionKey, Wait,
};
use minflow::scheduler::change::{DagRecord, RunWrite, VersionWrite};
use minflow::scheduler::event::{DagFile, Event, Found};
use minflow::scheduler::ready::Choosing;
use minflow::scheduler::world::{Action, Now, Settings, World};
use minflow::scheduler::{Changes, InstanceWrite, Snapshot, Store};
use minflow::store::MemoryStore;

/// A world, and the store that it is written to after each turn.
pub struct Stage {
    pub world: World,
    pub store: MemoryStore,
    pub wall: Timestamp,
    saves: u32,
}

impl Stage {
    /// Starts on what the store holds, and sees the one file that defines the DAG.
    pub fn start(mut store: MemoryStore, dag: &Arc<Dag>, wall: Timestamp) -> Self {
        let pools =
            vec![Pool { name: "default_pool".into(), slots: -1, description: String::new(), include_deferred: false }];
        let settings = Settings {
            parallelism: 1_000,
            admission: minflow::model::AdmissionRules::default(),
            drain_timeout: Duration::from_secs(1),
            drained: minflow::scheduler::world::Drained::Kept,
            choosing: Choosing::default(),
            pools,
            overrides: minflow::params::Override::Params,
            assets: Vec::new(),
        };
        let snapshot: Snapshot = store.load().unwrap();
        let world = World::new(settings, snapshot, Box::new(|_, _| None), at(wall));
        let mut stage = Self { world, store, wall, saves: 0 };
        stage.save(dag);
        stage.apply(Event::Scanned);
        stage
    }

    pub fn now(&self) -> Now {
        at(self.wall)
    }

    pub fn apply(&mut self, event: Event) {
        let now = self.now();
        self.world.apply(event, now, &mut self.store);
    }

    /// The file is parsed, with another text each time.
    pub fn save(&mut self, dag: &Arc<Dag>) {
        self.saves += 1;
        let text = self.saves.to_string();
        let found = Found::Parsed { dag: dag.clone(), source: text.as_str().into(), hash: text.as_str().into() };
        let files = vec![DagFile { path: "d.toml".into(), modified_at: None, found }];
        self.apply(Event::DagFiles { files, complete: true });
    }

    /// Commits the turn, and gives up what it would do.
    pub fn commit(&mut self) -> Vec<Action> {
        let (changes, actions) = self.world.take_turn();
        self.store.commit(&changes).unwrap();
        actions
    }
}

pub fn at(wall: Timestamp) -> Now {
    Now { wall, boot: BootInstant(Duration::from_secs(1)) }
}

/// A DAG's row, as a minflow leaves it that has seen the DAG before.
pub fn record(dag: &Dag, first_seen_at: Timestamp) -> DagRecord {
    DagRecord { first_seen_at: Some(first_seen_at), is_paused: false, ..DagRecord::new(dag, "d.toml".to_owned()) }
}

/// A run of the DAG `d`, named by its key.
pub fn run(key: i64, run_type: RunType, date: Timestamp, state: RunState) -> DagRun {
    let run_id = format!("{run_type}__{key}");
    DagRun {
        state,
        logical_date: Some(date),
        ..DagRun::new(RunKey(key), DagId::from("d"), run_id.as_str().into(), run_type, date)
    }
}

pub fn instance(key: i64, run: &DagRun, task_id: &str, state: TaskState) -> Instance {
    begun(Instance { state, ..Instance::new(InstanceKey(key), run.key, task_id, "default_pool", "bash") })
}

/// The row as a minflow has written it that began a try, or has it wait: a start refuses one that cannot be.
pub fn begun(row: Instance) -> Instance {
    let waits = matches!(row.state, TaskState::Deferred | TaskState::UpForReschedule);
    if !(waits || row.state.is_executing() || row.state == TaskState::Restarting) {
        return row;
    }
    let wait = || Wait {
        awaited: Awaited::Instant(Timestamp::MAX),
        mode: SensorMode::Poke,
        since: Timestamp::UNIX_EPOCH,
        timeout: None,
        execution_timeout: None,
        soft_fail: false,
        pace: Pace { poke_interval: Duration::from_secs(60), is_exponential: false, max_wait: None },
    };
    Instance { try_number: 1, version: Some(VersionKey(1)), deferral: waits.then(|| Arc::new(wait())), ..row }
}

/// What a database holds with this DAG and these runs.
pub fn stored(dag: &Dag, first_seen_at: Timestamp, runs: &[DagRun], instances: Vec<Instance>) -> MemoryStore {
    let mut store = MemoryStore::default();
    let write = |instance| InstanceWrite { instance, dag_id: dag.dag_id.clone(), prior: None };
    let version = VersionWrite {
        key: VersionKey(1),
        dag_id: dag.dag_id.clone(),
        number: 1,
        hash: "".into(),
        source: "".into(),
        created_at: first_seen_at,
    };
    let changes = Changes {
        versions: vec![version],
        dags: vec![record(dag, first_seen_at)],
        runs: runs.iter().map(|run| RunWrite { run: run.clone(), prior: None }).collect(),
        instances: instances.into_iter().map(write).collect(),
        ..Changes::default()
    };
    store.commit(&changes).unwrap();
    store
}
