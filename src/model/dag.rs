//! A DAG's definition, checked and with every default filled in.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use crate::model::graph::{Graph, TaskIx};
use crate::model::ids::{DagId, PoolName, TaskId};

/// One DAG as its file defines it. `tasks[i]` is the task at `TaskIx(i)` of `graph`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dag {
    pub dag_id: DagId,
    pub description: String,
    pub owner: String,
    pub doc_md: String,
    pub tags: Vec<String>,
    pub schedule: Schedule,
    /// The zone of the schedule and of local times in the file.
    pub timezone: TimeZone,
    pub start_date: Option<Timestamp>,
    pub end_date: Option<Timestamp>,
    pub catchup: bool,
    /// At least 1.
    pub max_active_runs: u32,
    /// At least 1. Per run, as in Airflow 3.
    pub max_active_tasks: u32,
    pub dagrun_timeout: Option<Duration>,
    pub is_paused_upon_creation: bool,
    /// Defaults by name, in the order of the file.
    pub params: Map<String, Value>,
    pub tasks: Vec<Task>,
    /// Shared with the runs that follow this definition.
    pub graph: Arc<Graph>,
}

impl Dag {
    pub fn task(&self, task: TaskIx) -> &Task {
        &self.tasks[task.index()]
    }

    pub fn find(&self, task_id: &str) -> Option<TaskIx> {
        let at = self.tasks.iter().position(|task| &*task.task_id == task_id)?;
        Some(TaskIx(at as u32))
    }
}

/// When runs are due; the timetable makes instants of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Only by hand.
    Never,
    /// `@once`.
    Once,
    /// Five cron fields or a preset, as written.
    Cron(String),
    /// A fixed period, at least one second.
    Every(Duration),
}

/// One task. Its trigger rule, role and weights are in the DAG's graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub task_id: TaskId,
    pub operator: Operator,
    pub owner: String,
    pub doc_md: String,
    pub retries: u32,
    pub retry_delay: Duration,
    pub execution_timeout: Option<Duration>,
    /// Between the kill signal and SIGKILL.
    pub grace: Duration,
    /// A signal's number, e.g. 15.
    pub kill_signal: i32,
    pub pool: PoolName,
    /// At least 1.
    pub pool_slots: u32,
    /// Added to the inherited environment, in the order of the file.
    pub env: Vec<(String, Template)>,
    /// None: the run_dir.
    pub cwd: Option<Template>,
    pub output: Output,
    pub skip_on_exit_code: Vec<i32>,
}

/// What a task does.
#[derive(Clone, Debug, PartialEq)]
pub enum Operator {
    Bash(Bash),
    Python(Python),
    /// Does nothing, and starts no process.
    Empty,
}

impl Operator {
    /// The key that names it in a DAG file.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Bash(_) => "bash",
            Self::Python(_) => "python",
            Self::Empty => "empty",
        }
    }
}

/// `bash = …`
#[derive(Clone, Debug, PartialEq)]
pub struct Bash {
    pub script: Script,
}

/// `python = …`
#[derive(Clone, Debug, PartialEq)]
pub struct Python {
    pub script: Script,
    /// The function of `Script::File` to call; None runs the file as a script.
    pub function: Option<String>,
    /// JSON whose texts are templates.
    pub args: Vec<Value>,
    pub kwargs: Map<String, Value>,
    /// Where `args` and `kwargs` stand in the DAG file, for messages.
    pub arguments_at: Position,
    pub interpreter: Template,
}

/// A script, given in the DAG file or as a file of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Script {
    Text(Template),
    /// A path, relative to the DAG file's folder. It is not rendered, and neither is the file.
    File(String),
}

/// Text that is rendered before use, with the place where it stands in the DAG file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub text: String,
    pub at: Position,
}

/// A place in a DAG file; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

/// What becomes of a task's output (the XCom `return_value`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The last non-empty line.
    Text,
    /// That line, parsed.
    Json,
    None,
}
