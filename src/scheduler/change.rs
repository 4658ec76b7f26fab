//! What one turn changes, and what a start finds: the two shapes that cross between scheduler and store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::model::deadline::DeadlineRow;
pub use crate::model::run::NextRun;
use crate::model::{
    Asset, AssetKey, Backfill, BackfillId, BackfillPlace, CallbackRow, Dag, DagId, DagRun, DataInterval, DateFate,
    DeadlineKey, EventSource, Instance, InstanceKey, Pool, PoolName, RunId, RunKey, SkipDecision, Stamp, TaskId,
    TaskState, TryKey, VersionKey,
};

/// All that one turn changes; committed in one transaction, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    pub versions: Vec<VersionWrite>,
    /// Whole rows; the newest state of each DAG that changed.
    pub dags: Vec<DagRecord>,
    pub pools: Vec<Pool>,
    pub dropped_pools: Vec<PoolName>,
    pub runs: Vec<RunWrite>,
    /// Tries that make way for the next try of their instance; they precede `instances`.
    pub history: Vec<Instance>,
    pub instances: Vec<InstanceWrite>,
    /// A try starts: its instance's XComs are removed (before `xcoms` are put).
    pub cleared_xcoms: Vec<InstanceKey>,
    pub xcoms: Vec<XcomWrite>,
    /// The lengths of XComs go with them: `cleared_xcoms` removes both.
    pub lengths: Vec<LengthWrite>,
    /// For each file, all its errors now; an empty list removes them.
    pub import_errors: Vec<(String, Vec<ImportError>)>,
    pub audit: Vec<AuditEntry>,
    pub notes: Vec<NoteWrite>,
    pub pauses: Vec<PauseWrite>,
    pub acts: Vec<ActWrite>,
    pub backfill: BackfillChanges,
    /// Whole rows; of one that changes twice the last counts.
    pub callbacks: Vec<CallbackRow>,
    pub streaks: Vec<Streak>,
    pub deadlines: Vec<DeadlineWrite>,
    pub expectations: Vec<ExpectationWrite>,
    pub assets: AssetChanges,
    /// History that goes.
    pub retirement: RetireChanges,
}

/// What of the history goes in one turn; carried out in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetireChanges {
    /// Rows of runs that are over, with all that is read by them; and when.
    pub runs: Vec<(RetiredRun, Timestamp)>,
    pub purged: Option<Purge>,
    /// Nothing is left of these.
    pub forgotten: Vec<RunKey>,
    /// Entries of the audit log up to a key: at most so many of the oldest.
    pub audit: Option<(i64, u32)>,
    /// All that is known of a DAG without runs.
    pub dag: Option<DagId>,
    /// So many pages that hold nothing are given back.
    pub free_pages: Option<u32>,
    /// What instances, entries and pages may take, each: then the rest is left to the next order. Something they always do. None: all the
    /// time that it takes.
    pub within: Option<Duration>,
}

/// A run that is over and goes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RetiredRun {
    pub key: RunKey,
    pub dag_id: DagId,
    pub run_id: RunId,
    pub run_after: Timestamp,
    /// As it was planned: a run that has ended again since stays.
    pub end_date: Timestamp,
}

/// At most `rows` instances of runs that are gone, of one run after the other, with all that belongs to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Purge {
    pub runs: Vec<(RunKey, DagId)>,
    pub rows: u32,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        // Taken apart to the last field: what is left out here would never be committed.
        let Self {
            versions,
            dags,
            pools,
            dropped_pools,
            runs,
            history,
            instances,
            cleared_xcoms,
            xcoms,
            lengths,
            import_errors,
            audit,
            notes,
            pauses,
            acts,
            backfill,
            callbacks,
            streaks,
            deadlines,
            expectations,
            assets,
            retirement,
        } = self;
        let BackfillChanges { backfills, planned, fates, cancelled } = backfill;
        let rows = [
            versions.len(),
            dags.len(),
            pools.len(),
            dropped_pools.len(),
            runs.len(),
            history.len(),
            instances.len(),
            cleared_xcoms.len(),
            xcoms.len(),
            lengths.len(),
            import_errors.len(),
            audit.len(),
            notes.len(),
            pauses.len(),
            acts.len(),
            backfills.len(),
            planned.len(),
            fates.len(),
            cancelled.len(),
            callbacks.len(),
            streaks.len(),
            deadlines.len(),
            expectations.len(),
            assets.len(),
        ];
        rows.iter().all(|&rows| rows == 0) && *retirement == RetireChanges::default()
    }

    /// How many rows it writes, to bound a turn.
    pub fn rows(&self) -> usize {
        self.versions.len()
            + self.dags.len()
            + self.runs.len()
            + self.history.len()
            + self.instances.len()
            + self.xcoms.len()
            + self.lengths.len()
            + self.backfill.fates.len()
            + self.callbacks.len()
            + self.deadlines.len()
            + self.assets.events.len()
            + self.retirement.runs.len()
            + self.retirement.purged.as_ref().map_or(0, |purge| purge.rows as usize)
    }
}

/// What one turn changes in assets; committed in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AssetChanges {
    /// Whole rows.
    pub assets: Vec<Asset>,
    /// For each DAG, all that it has to do with now.
    pub references: Vec<(DagId, Vec<AssetReference>)>,
    /// An alias, and an asset that it stands for.
    pub resolved: Vec<(AssetKey, AssetKey)>,
    pub events: Vec<EventWrite>,
    /// For each DAG that waits for assets, those that have had an event since its last run, and when the last.
    pub queues: Vec<(DagId, Vec<(AssetKey, Timestamp)>)>,
    /// For each DAG the newest event that is behind it; null: it waits for no assets any longer.
    pub consumed_until: Vec<(DagId, Option<i64>)>,
    pub consumptions: Vec<Consumption>,
    /// Files that have been seen; null: one that has gone.
    pub files: Vec<(AssetKey, PathBuf, Option<Stamp>)>,
    /// All files of these are forgotten, before `files` are put.
    pub forgotten_files: Vec<AssetKey>,
}

impl AssetChanges {
    /// How many rows it writes.
    pub fn len(&self) -> usize {
        let Self { assets, references, resolved, events, queues, consumed_until, consumptions, files, forgotten_files } =
            self;
        let rows = [
            assets.len(),
            references.len(),
            resolved.len(),
            events.len(),
            queues.len(),
            consumed_until.len(),
            consumptions.len(),
            files.len(),
            forgotten_files.len(),
        ];
        rows.iter().sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How a DAG has to do with an asset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AssetReference {
    pub asset: AssetKey,
    /// `schedule`, `outlet` or `inlet`.
    pub role: &'static str,
    /// Empty for a schedule.
    pub task_id: String,
}

/// An event of an asset.
#[derive(Clone, Debug, PartialEq)]
pub struct EventWrite {
    pub key: i64,
    pub asset: AssetKey,
    pub timestamp: Timestamp,
    pub extra: Map<String, Value>,
    pub source: Option<EventSource>,
    /// The alias by which a task named the asset.
    pub alias: Option<AssetKey>,
}

/// A run consumes the events of some assets, and those that came by some aliases.
#[derive(Clone, Debug, PartialEq)]
pub struct Consumption {
    pub run: RunKey,
    /// Behind this event.
    pub after: i64,
    /// Up to this one.
    pub until: i64,
    pub assets: Vec<AssetKey>,
    pub aliases: Vec<AssetKey>,
}

/// What the database holds of assets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AssetSnapshot {
    pub assets: Vec<Asset>,
    pub resolved: Vec<(AssetKey, AssetKey)>,
    pub queues: Vec<(DagId, AssetKey, Timestamp)>,
    pub consumed_until: Vec<(DagId, i64)>,
    pub files: Vec<(AssetKey, PathBuf, Stamp)>,
    pub next_asset_key: i64,
    pub next_event_key: i64,
}

/// What one turn changes in backfills; committed in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BackfillChanges {
    /// Whole rows.
    pub backfills: Vec<Backfill>,
    /// The dates of new backfills.
    pub planned: Vec<PlannedDates>,
    pub fates: Vec<FateWrite>,
    pub cancelled: Vec<CancelledBackfill>,
}

/// The dates of a new backfill in order; the first has place 1.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedDates {
    pub backfill: BackfillId,
    pub dates: Arc<[NextRun]>,
}

/// A date of a backfill has led to something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FateWrite {
    pub place: BackfillPlace,
    pub fate: DateFate,
}

/// All queued runs of the backfill fail, and dates that have not been looked at are left.
#[derive(Clone, Debug, PartialEq)]
pub struct CancelledBackfill {
    pub backfill: BackfillId,
    pub dag_id: DagId,
    pub at: Timestamp,
}

/// A backfill that is not completed, and what is left of it to do.
#[derive(Clone, Debug, PartialEq)]
pub struct BackfillProgress {
    pub backfill: Backfill,
    /// The dates that have not been looked at, with their places, in order.
    pub pending: Vec<(u32, NextRun)>,
    /// How many of its runs are queued.
    pub queued: u32,
}

/// The scheduling columns of a DAG, and what lists and pages show of it.
#[derive(Clone, Debug, PartialEq)]
pub struct DagRecord {
    pub dag_id: DagId,
    /// Relative to the dags folder.
    pub file: String,
    pub is_paused: bool,
    /// False when its file is gone.
    pub is_active: bool,
    pub has_import_errors: bool,
    /// As shown, e.g. `0 6 * * *`, `every 5s`, `@once`; null for none.
    pub schedule: Option<String>,
    /// In which the schedule's wall times are.
    pub timezone: String,
    pub description: String,
    pub owner: String,
    pub tags: Vec<String>,
    pub max_active_runs: u32,
    pub max_active_tasks: u32,
    /// The live definition.
    pub version: Option<VersionKey>,
    /// When minflow first saw it unpaused: the lower bound of its first run.
    pub first_seen_at: Option<Timestamp>,
    pub next_run: Option<NextRun>,
    /// The data interval of the newest scheduled run by logical date: what the timetable goes on from.
    pub last_interval: Option<DataInterval>,
    /// Why minflow itself has paused it, e.g. `the last 3 runs failed`; null if it has not.
    pub pause_reason: Option<String>,
}

impl DagRecord {
    /// What is noted of a DAG when its file is seen for the first time.
    pub fn new(dag: &Dag, file: String) -> Self {
        Self {
            dag_id: dag.dag_id.clone(),
            file,
            is_paused: dag.is_paused_upon_creation,
            is_active: true,
            has_import_errors: false,
            schedule: None,
            timezone: dag.schedule_zone().iana_name().unwrap_or("UTC").to_owned(),
            description: dag.description.clone(),
            owner: dag.owner.clone(),
            tags: dag.tags.clone(),
            max_active_runs: dag.max_active_runs,
            max_active_tasks: dag.max_active_tasks,
            version: None,
            first_seen_at: None,
            next_run: None,
            last_interval: None,
            pause_reason: None,
        }
    }
}

/// A new definition of a DAG.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionWrite {
    pub key: VersionKey,
    pub dag_id: DagId,
    /// 1 for the first definition of the DAG.
    pub number: u32,
    pub hash: Arc<str>,
    /// The TOML text.
    pub source: Arc<str>,
    pub created_at: Timestamp,
}

/// A run to insert or update.
#[derive(Clone, Debug, PartialEq)]
pub struct RunWrite {
    pub run: DagRun,
    /// Null for a new row.
    pub prior: Option<crate::model::RunState>,
}

/// A task instance to insert or update. `prior` lets the store keep counts by state instead of counting.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceWrite {
    pub instance: Instance,
    pub dag_id: DagId,
    /// Null for a new row.
    pub prior: Option<TaskState>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct XcomWrite {
    pub instance: InstanceKey,
    pub key: String,
    /// Null if it lies in a file.
    pub value: Value,
    /// Where it lies as JSON, absolute, if it is too large for a row.
    pub file: Option<PathBuf>,
    pub pushed_at: Timestamp,
}

/// How many elements an XCom has that other tasks are mapped over.
#[derive(Clone, Debug, PartialEq)]
pub struct LengthWrite {
    pub instance: InstanceKey,
    /// The XCom's.
    pub key: Arc<str>,
    pub length: u32,
}

/// A note of a run, or of an instance of it; null takes it away.
#[derive(Clone, Debug, PartialEq)]
pub struct NoteWrite {
    pub run: RunKey,
    pub instance: Option<InstanceKey>,
    pub note: Option<String>,
}

/// A try that stands still; null: it goes on, or is over.
#[derive(Clone, Debug, PartialEq)]
pub struct PauseWrite {
    pub key: TryKey,
    pub paused_at: Option<Timestamp>,
}

/// What a user has asked for, as far as it has come; null: it is over. Only the scheduler knows the shape of the body.
#[derive(Clone, Debug, PartialEq)]
pub struct ActWrite {
    pub key: i64,
    pub body: Option<Value>,
}

/// Runs of a DAG by (run_after, key).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunSpan {
    /// Behind this one; null: from the first.
    pub after: Option<(Timestamp, RunKey)>,
    /// None with a greater key.
    pub until: RunKey,
    /// Inclusive bounds of the logical dates; a run without one is outside of both.
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
}

/// How many runs in a row of a DAG, or of a task of it, have failed. Kept where a callback's condition asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streak {
    pub dag_id: DagId,
    /// Null: of the DAG's runs.
    pub task_id: Option<TaskId>,
    /// The last one.
    pub run: RunKey,
    /// 0: it is over, and the row goes.
    pub failures: u32,
}

/// A deadline to insert or update, or to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadlineWrite {
    Put(DeadlineRow),
    Remove(DeadlineKey),
}

/// When a run of the DAG is expected to have succeeded next; null: it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectationWrite {
    pub dag_id: DagId,
    pub at: Option<Timestamp>,
}

/// A callback that is not over.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredCallback {
    pub row: CallbackRow,
    pub run: Option<DagRun>,
}

/// One fault of one DAG file, as users are shown it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ImportError {
    /// Relative to the dags folder.
    pub filename: String,
    pub line: u32,
    pub column: u32,
    pub code: String,
    pub message: String,
    pub help: String,
    pub timestamp: Timestamp,
}

/// One act of a user or of minflow on their behalf.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    pub at: Timestamp,
    /// e.g. `trigger`, `pause`, `unpause`, `stop`.
    pub event: &'static str,
    pub dag_id: Option<DagId>,
    pub run_id: Option<String>,
    pub task_id: Option<String>,
    /// Who asked: `cli`, `minflow`.
    pub owner: String,
    /// Further facts as a JSON object.
    pub extra: Value,
}

/// What the database holds that a scheduler needs to go on: everything that is not finished.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub dags: Vec<DagRecord>,
    /// Of each DAG, its live definition.
    pub versions: Vec<VersionWrite>,
    pub pools: Vec<Pool>,
    /// Runs that are queued or running, without the queued runs of backfills: those are read when it is their turn.
    pub runs: Vec<DagRun>,
    /// All instances of those runs, finished ones too; of each ordered by key.
    pub instances: BTreeMap<RunKey, Vec<Instance>>,
    /// Those of their tries that stand still.
    pub paused: std::collections::BTreeSet<TryKey>,
    /// Of those instances.
    pub lengths: Vec<LengthWrite>,
    /// What the branches and short circuits among them have decided.
    pub decisions: Vec<(InstanceKey, SkipDecision)>,
    /// Those that are not over, by key.
    pub callbacks: Vec<StoredCallback>,
    pub streaks: Vec<Streak>,
    pub next_callback_key: i64,
    /// Those that nobody has found missed, by key.
    pub deadlines: Vec<DeadlineRow>,
    pub expectations: Vec<ExpectationWrite>,
    pub next_deadline_key: i64,
    /// What users have asked for that was not over, by key.
    pub acts: Vec<(i64, Value)>,
    pub import_errors: Vec<ImportError>,
    /// Runs that are gone, of which something may be left.
    pub retiring: Vec<(RunKey, DagId, RunId)>,
    pub next_run_key: i64,
    pub next_instance_key: i64,
    pub next_version_key: i64,
    /// Not completed.
    pub backfills: Vec<BackfillProgress>,
    pub next_backfill_id: i64,
    pub assets: AssetSnapshot,
}

/// Which of a DAG's runs come before a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// Their logical dates are less.
    pub than: Timestamp,
    /// Without those of type `manual`.
    pub but_manual: bool,
}

/// What the store knows of a run that may be finished.
#[derive(Clone, Debug, PartialEq)]
pub enum RunLookup {
    ById(crate::model::RunId),
    ByLogicalDate(Timestamp),
}

impl RunLookup {
    /// Whether it is this run that is looked for, among those of its DAG.
    pub fn fits(&self, row: &DagRun) -> bool {
        match self {
            Self::ById(run_id) => row.run_id == *run_id,
            Self::ByLogicalDate(date) => row.logical_date == Some(*date),
        }
    }
}
