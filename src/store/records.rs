//! What the questions are answered with that is no row of one table.

use jiff::Timestamp;
use serde_json::Value;

use crate::model::{DagId, DagRun, RunId, TaskId, Usage};
use crate::scheduler::change::DagRecord;

/// A DAG and its newest run by run_after.
#[derive(Clone, Debug, PartialEq)]
pub struct DagListing {
    pub dag: DagRecord,
    pub last_run: Option<DagRun>,
}

/// How many DAGs there are. `broken` counts files under `dags/` that cannot be loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DagCounts {
    /// With a file.
    pub total: u64,
    /// With a file, and not paused.
    pub active: u64,
    /// With a file, and paused.
    pub paused: u64,
    pub broken: u64,
}

/// How many task instances or runs of a DAG are in a state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateCount {
    pub dag_id: DagId,
    /// `run` or `task`.
    pub kind: String,
    /// The state of a task instance that waits is `none`.
    pub state: String,
    pub count: i64,
}

/// A task instance that has failed for good.
#[derive(Clone, Debug, PartialEq)]
pub struct RecentFailure {
    pub dag_id: DagId,
    pub run_id: RunId,
    pub task_id: TaskId,
    pub map_index: i32,
    pub try_number: u32,
    pub end_date: Option<Timestamp>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub reason: Option<String>,
    pub start_date: Option<Timestamp>,
    pub usage: Option<Box<Usage>>,
}

/// An entry of the audit log, as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRecord {
    pub at: Timestamp,
    pub event: String,
    pub dag_id: Option<DagId>,
    pub run_id: Option<String>,
    pub task_id: Option<String>,
    pub owner: String,
    pub extra: Value,
}

/// Which entries of the audit log are meant: all that every part allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter<'a> {
    pub dag_id: Option<&'a str>,
    pub run_id: Option<&'a str>,
    /// Not earlier.
    pub since: Option<Timestamp>,
    pub event: Option<&'a str>,
}
