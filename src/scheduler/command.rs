//! What users ask of a scheduler that changes something.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{
    BackfillId, DagId, DataInterval, Pool, PoolName, ProcessIdentity, Reprocess, RunId, RunKey, RunState, TaskId,
    TaskState,
};
use crate::scheduler::change::RetiredRun;
use crate::scheduler::explain::{ExplainedTask, Explanation, TaskFinding};

/// A request. It is decided and committed within one turn; the reply is sent after the commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Trigger(Trigger),
    /// Triggers the DAG that produces an asset, named by its name or uri.
    Materialize {
        asset: String,
        conf: Map<String, Value>,
    },
    /// Pauses or unpauses a DAG.
    SetPaused {
        dag_id: DagId,
        is_paused: bool,
    },
    /// Has task instances done over again, in one run or in many; replies when all of them have been looked at.
    Clear(Clear),
    /// Sets the state of task instances.
    MarkTasks(MarkTasks),
    /// Ends a run as `success` or `failed`, whatever its tasks say; `queued` does all of it over again.
    MarkRun {
        dag_id: DagId,
        run_id: RunId,
        state: RunState,
    },
    /// Writes a note to a run, or to a task instance of it; null takes it away.
    Note {
        dag_id: DagId,
        run_id: RunId,
        task: Option<(TaskId, i32)>,
        note: Option<String>,
    },
    /// Has what runs of a task stand still, or go on.
    SetTaskPaused(PauseTask),
    /// Replies when the run has ended, or at once if it has.
    Await {
        dag_id: DagId,
        run_id: RunId,
    },
    /// Replies when the runs of all its dates have been made.
    CreateBackfill(NewBackfill),
    /// A paused backfill starts no further run.
    SetBackfillPaused {
        id: BackfillId,
        is_paused: bool,
    },
    /// Ends a backfill: its queued runs fail, its running runs go on.
    CancelBackfill {
        id: BackfillId,
    },
    /// Replies when the backfill is completed, or at once if it is.
    AwaitBackfill {
        id: BackfillId,
    },
    /// Tells why a run, or some of its instances, are where they are. Changes nothing.
    Explain {
        dag_id: DagId,
        run_id: RunId,
        task: Option<ExplainedTask>,
    },
    /// Lists at most `limit` instances that wait for a slot, of one DAG or of all. Changes nothing.
    ListWaiting {
        dag_id: Option<DagId>,
        limit: usize,
    },
    /// Lists at most `limit` tries whose processes run, of one DAG or of all. Changes nothing.
    ListRunning {
        dag_id: Option<DagId>,
        limit: usize,
    },
    /// Defines pools, or changes their slots and descriptions; all or none.
    SetPools {
        pools: Vec<Pool>,
    },
    /// Takes a pool away that a command has defined.
    DeletePool {
        name: PoolName,
    },
    /// A small piece of the work on history that goes.
    Keep(Keep),
    /// Ends minflow. No new starts from now on.
    Stop {
        how: Stop,
        by: Asker,
    },
}

impl Command {
    /// It is refused while the database cannot be written. A stop is not, and neither is who waits.
    pub const fn changes_something(&self) -> bool {
        let is_question = matches!(self, Self::Explain { .. } | Self::ListWaiting { .. } | Self::ListRunning { .. });
        !is_question && !matches!(self, Self::Await { .. } | Self::AwaitBackfill { .. } | Self::Stop { .. })
    }
}

/// A try whose process runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunningTry {
    pub dag_id: DagId,
    pub run_id: RunId,
    pub task_id: TaskId,
    /// -1 unless mapped.
    pub map_index: i32,
    pub try_number: u32,
    pub started_at: Option<Timestamp>,
    pub process: ProcessIdentity,
    pub is_paused: bool,
}

/// An order of who looks after the history: one turn's work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The rows of runs go, unless they live again or are needed; the first [`RETIRED_RUNS`](crate::scheduler::RETIRED_RUNS) of them.
    Retire {
        runs: Vec<RetiredRun>,
        /// Also what a later run of the DAG may ask for.
        everything: bool,
        /// What a user has asked for, as the audit log shows it.
        asked: Option<Value>,
    },
    /// Instances of runs that are gone, of one run after the other.
    Purge { runs: Vec<(RunKey, DagId)> },
    /// Nothing is left of these runs.
    Forget { runs: Vec<(RunKey, DagId, RunId)> },
    /// The oldest entries of the audit log, up to this key.
    CutAudit { until: i64 },
    /// The file gives some pages back that hold nothing.
    FreePages,
    /// What is known of a DAG that has neither a file nor runs.
    DeleteDag { dag_id: DagId },
}

/// What to do over again (SEMANTICS 12).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clear {
    pub dag_id: DagId,
    pub tasks: Chosen,
    pub spread: Spread,
    /// Of the chosen tasks only this instance; the tasks that come along are cleared whole.
    pub map_index: Option<i32>,
    pub runs: RunRange,
    pub only: Only,
    /// Only tells what would be cleared.
    pub is_dry: bool,
}

/// A state to set (SEMANTICS 12).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MarkTasks {
    pub dag_id: DagId,
    pub tasks: Vec<String>,
    pub spread: Spread,
    /// Of the chosen tasks only this instance; the tasks that come along are marked whole.
    pub map_index: Option<i32>,
    pub runs: RunRange,
    /// `success`, `failed` or `skipped`.
    pub state: TaskState,
}

/// Which processes are to stand still, or to go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PauseTask {
    pub dag_id: DagId,
    pub run_id: RunId,
    pub task_id: TaskId,
    /// Null: all instances that run.
    pub map_index: Option<i32>,
    pub is_paused: bool,
}

/// Which tasks are meant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chosen {
    All,
    /// Those in whose id this pattern is found.
    Matching(String),
    /// Ids of tasks or groups; of a group all its tasks.
    Named(Vec<String>),
}

/// What comes along with the chosen tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    pub upstream: bool,
    pub downstream: bool,
}

/// Which runs are meant: all that every part allows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunRange {
    /// This one, and with `past` or `future` those before or after it.
    pub run_id: Option<RunId>,
    pub past: bool,
    pub future: bool,
    /// Inclusive bounds of the logical dates.
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
}

/// Which states are meant; neither: all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Only {
    /// `failed` and `upstream_failed`.
    pub failed: bool,
    /// `running`.
    pub running: bool,
}

/// A manual run (SEMANTICS 7.3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    pub dag_id: DagId,
    pub run_id: Option<RunId>,
    pub logical_date: LogicalDate,
    /// None: the timetable infers it, if there is a logical date.
    pub data_interval: Option<DataInterval>,
    pub conf: Map<String, Value>,
    /// Unpauses the DAG in the same turn.
    pub unpause: bool,
}

/// A backfill to create (SEMANTICS 8).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewBackfill {
    pub dag_id: DagId,
    /// Inclusive bounds of the dates.
    pub from_date: Timestamp,
    pub to_date: Timestamp,
    pub reprocess: Reprocess,
    /// The newest date comes first.
    pub is_backwards: bool,
    /// At least 1.
    pub max_active_runs: u32,
    /// Null leaves the conf of runs that it clears.
    pub conf: Option<Map<String, Value>>,
}

/// The logical date of a manual run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogicalDate {
    /// Its run_after.
    RunAfter,
    None,
    At(Timestamp),
}

/// Who asks for a stop, as the audit log names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asker {
    /// A user, by a command.
    Cli,
    /// SIGTERM, SIGINT, or a SIGHUP of a terminal that has gone: a service manager, the host's shutdown.
    Signal,
}

impl Asker {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cli => "cli",
            Self::Signal => "signal",
        }
    }
}

/// How to stop what still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Waits for it, however long it takes.
    Finish,
    /// Waits for `scheduler.drain_timeout`, then leaves it to the next start.
    Drain,
    /// Leaves it to the next start at once.
    KeepRunning,
    /// Ends it at once.
    Now,
}

/// What a command led to.
pub type Reply = Result<Done, CommandError>;

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    Triggered {
        run_id: RunId,
        is_paused: bool,
    },
    Materialized {
        dag_id: DagId,
        run_id: RunId,
        is_paused: bool,
    },
    /// `was` tells whether anything changed.
    PausedSet {
        was: bool,
    },
    /// `state` is `success` or `failed`.
    Ended {
        state: String,
    },
    /// All its dates have been looked at; `runs` were made or cleared.
    BackfillCreated {
        id: BackfillId,
        runs: u32,
        skipped: u32,
        /// The DAG is paused: nothing starts.
        is_paused: bool,
    },
    /// `queued` runs have failed.
    BackfillCancelled {
        queued: u32,
    },
    BackfillEnded {
        is_cancelled: bool,
    },
    /// These instances are done over again, or would be, in the order of their runs and of their tasks.
    Cleared {
        instances: Vec<Touched>,
        runs: u32,
    },
    /// These instances were set to another state; `cleared` failed ones after them are done over again.
    Marked {
        instances: Vec<Touched>,
        cleared: u32,
        runs: u32,
    },
    /// `was` is the state before; `instances` were set to another state. If `is_open`, teardowns are still to run before the run is
    /// over.
    RunMarked {
        was: RunState,
        instances: u32,
        is_open: bool,
    },
    Noted,
    /// So many tries stand still now, or go on, and so many did before.
    TaskPausedSet {
        changed: u32,
        unchanged: u32,
    },
    Explained(Box<Explanation>),
    /// Those first that wait longest.
    Waiting(Vec<TaskFinding>),
    /// Those first that have run longest.
    Running(Vec<RunningTry>),
    /// So many were not so already.
    PoolsSet {
        changed: u32,
    },
    /// As it was, and the DAGs that name it.
    PoolDeleted {
        pool: Pool,
        waiting: Vec<DagId>,
    },
    /// These runs were retired.
    Kept {
        runs: Vec<RunKey>,
    },
    /// These still run, by name; of many the first and how many more.
    Stopping {
        running: Vec<String>,
    },
}

/// A task instance that a command is about, as it was before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    pub dag_id: DagId,
    pub run_id: RunId,
    pub task_id: TaskId,
    pub map_index: i32,
    pub state: TaskState,
}

/// Why a command was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandError {
    /// Kebab-case: `unknown-dag`, `unknown-run`, `run-exists`, `invalid-run-id`, `invalid-conf`, `stopping`, `database`,
    /// `invalid-range`, `invalid-limit`, `depends-on-past`, `no-dates`, `too-many-dates`, `backfill-exists`, `backfill-completed`,
    /// `backfill-cancelled`, `unknown-backfill`, `in-backfill`, `unknown-task`, `unknown-map-index`,
    /// `no-runs`, `invalid-pattern`, `invalid-state`, `unknown-asset`, `no-producer`, `several-producers`, `invalid-pool`,
    /// `unknown-pool`, `not-running`, `default-pool`, `pool-of-configuration`, `has-file`, `has-runs`.
    pub code: String,
    pub message: String,
    /// What to do next.
    pub help: String,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.help.is_empty() {
            write!(f, "\nhelp: {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for CommandError {}
