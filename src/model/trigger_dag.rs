//! Tasks that reach into other DAGs (SEMANTICS 22): `trigger_dag` asks for a run and may wait for it, `external_task_marker` names a
//! task that is cleared with it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::dag::{Position, Template};
use super::ids::{DagId, RunId, TaskId};
use super::state::RunState;

/// A run of another DAG to make.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerDag {
    pub dag_id: Template,
    /// A table whose texts are templates, or a template that becomes one.
    pub conf: Value,
    /// Where `conf` stands in the DAG file, for messages.
    pub conf_at: Position,
    /// An instant, or `none` for a run without a logical date; left out, it is the instant at which the run is made.
    pub logical_date: Option<Template>,
    /// Left out, it is made of the logical date.
    pub run_id: Option<Template>,
    pub existing: Existing,
    /// The task waits for the run's end; None: it succeeds when the run has been made.
    pub wait: Option<AwaitedStates>,
}

impl TriggerDag {
    /// All that is rendered as text.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        [Some(&self.dag_id), self.logical_date.as_ref(), self.run_id.as_ref()].into_iter().flatten()
    }
}

/// What becomes of a run that is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// The task fails, and is not retried.
    #[default]
    Refused,
    /// The task is skipped.
    Skipped,
    /// All of the run is done over again.
    Reset,
}

/// What the end of an awaited run means for the task that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitedStates {
    /// The task succeeds.
    pub allowed: Vec<RunState>,
    /// The task fails, and may be retried.
    pub failed: Vec<RunState>,
}

/// What a task has asked for, rendered.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRequest {
    pub dag_id: DagId,
    pub conf: serde_json::Map<String, Value>,
    pub logical_date: AskedDate,
    pub run_id: Option<RunId>,
    pub existing: Existing,
    pub wait: Option<AwaitedStates>,
}

/// The logical date of a run that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedDate {
    /// The instant at which the run is made.
    Now,
    None,
    At(jiff::Timestamp),
}

/// `external_task_marker = …`: does nothing, and a clear of it clears that task too, with what comes after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalTaskMarker {
    pub dag_id: DagId,
    pub task_id: TaskId,
    /// From the logical date of the marker's run to that of the other run.
    pub execution_delta: Duration,
}
