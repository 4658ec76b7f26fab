//! Why something is where it is.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::api::json::Instant;
use crate::model::{DagId, RunId, RunState, TaskId};
use crate::scheduler::explain;

/// What is known of a run and its task instances.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    pub dag_id: DagId,
    pub run_id: RunId,
    pub state: RunState,
    #[serde(flatten)]
    pub run: Finding,
    /// All that were asked about, or all but those that have succeeded.
    pub tasks: Vec<TaskFinding>,
    /// How many more there are.
    pub omitted: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskFinding {
    pub dag_id: DagId,
    pub run_id: RunId,
    pub task_id: TaskId,
    /// -1 unless mapped.
    pub map_index: i32,
    /// Null: created, and waiting for its dependencies.
    pub state: Option<&'static str>,
    pub try_number: u32,
    #[serde(flatten)]
    pub finding: Finding,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The name of the gate that is shut; null: nothing keeps it.
    pub gate: Option<String>,
    pub message: String,
    /// The same with its holders and instants, these in UTC.
    pub line: String,
    pub since: Option<Instant>,
    pub until: Option<Instant>,
    /// `until` is what the holders usually take, and no deadline.
    pub is_expected: bool,
    pub held_by: Vec<Holder>,
    /// How many more holders there are.
    pub more_holders: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Holder {
    pub dag_id: DagId,
    pub run_id: RunId,
    /// Null: the whole run.
    pub task_id: Option<TaskId>,
    pub map_index: i32,
    pub state: String,
    /// Slots of a pool, else 1.
    pub units: u32,
    pub since: Option<Instant>,
    pub expected_end: Option<Instant>,
}

impl From<&explain::Explanation> for Explanation {
    fn from(told: &explain::Explanation) -> Self {
        Self {
            dag_id: told.dag_id.clone(),
            run_id: told.run_id.clone(),
            state: told.state,
            run: Finding::from(&told.run),
            tasks: told.tasks.iter().map(TaskFinding::from).collect(),
            omitted: told.omitted,
        }
    }
}

impl From<&explain::TaskFinding> for TaskFinding {
    fn from(told: &explain::TaskFinding) -> Self {
        Self {
            dag_id: told.dag_id.clone(),
            run_id: told.run_id.clone(),
            task_id: told.task_id.clone(),
            map_index: told.map_index,
            state: told.state.as_nullable(),
            try_number: told.try_number,
            finding: Finding::from(&told.finding),
        }
    }
}

impl From<&explain::Finding> for Finding {
    fn from(told: &explain::Finding) -> Self {
        Self {
            gate: told.gate.clone(),
            message: told.message.clone(),
            line: told.line(Timestamp::now(), &TimeZone::UTC),
            since: told.since.map(Instant),
            until: told.until.map(Instant),
            is_expected: told.is_expected,
            held_by: told.held_by.iter().map(Holder::from).collect(),
            more_holders: told.more_holders,
        }
    }
}

impl From<&explain::Holder> for Holder {
    fn from(told: &explain::Holder) -> Self {
        Self {
            dag_id: told.dag_id.clone(),
            run_id: told.run_id.clone(),
            task_id: told.task_id.clone(),
            map_index: told.map_index,
            state: told.state.clone(),
            units: told.units,
            since: told.since.map(Instant),
            expected_end: told.expected_end.map(Instant),
        }
    }
}
