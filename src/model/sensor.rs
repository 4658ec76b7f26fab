//! `sensor = …`: what a task waits for, as its file says it (SEMANTICS 14).

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{Time, Weekday};
use serde::{Deserialize, Serialize};

use crate::model::dag::{Bash, Python, Template};
use crate::model::ids::DagId;
use crate::model::sql::Sql;
use crate::model::state::TaskState;
use crate::model::tool::Tool;
use crate::model::wait::Among;

/// A task that succeeds when something is so.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensor {
    pub kind: SensorKind,
    pub pace: Pace,
    /// From the beginning of the wait; zero: it looks once.
    pub timeout: Duration,
    pub mode: SensorMode,
    /// A sensor that gives up is skipped, and has not failed.
    pub soft_fail: bool,
}

/// What it waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum SensorKind {
    /// So long after the end of the run's data interval, or after its run_after if it has none.
    TimeDelta(Duration),
    Date(Timestamp),
    /// On the day on which the try begins, in the DAG's zone.
    Time(Time),
    /// Any of these days, in the DAG's zone; at least one.
    Weekday(Vec<Weekday>),
    /// A path or a pattern, relative to the DAG file's folder; what matches must not have changed for `settle`.
    File {
        path: Template,
        settle: Duration,
    },
    /// The script ends with exit code 0.
    Bash(Bash),
    /// The value is true, by Python's rule.
    Python(Python),
    /// Tasks of another DAG, or a run of it, have come to certain states.
    Task(Box<ExternalTask>),
    /// The answer is as it is expected.
    Http(Tool),
    /// The first value of the first row is true, by Python's rule.
    Sql(Sql),
}

impl SensorKind {
    /// Whether somebody else is asked for an answer.
    pub const fn is_service(&self) -> bool {
        matches!(self, Self::Http(_) | Self::Sql(_))
    }

    /// The key that names it in a DAG file.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TimeDelta(_) => "time_delta",
            Self::Date(_) => "date",
            Self::Time(_) => "time",
            Self::Weekday(_) => "weekday",
            Self::File { .. } => "file",
            Self::Bash(_) => "bash",
            Self::Python(_) => "python",
            Self::Task(_) => "task",
            Self::Http(_) => "http",
            Self::Sql(_) => "sql",
        }
    }
}

/// What a sensor of another DAG looks at (SEMANTICS 22).
#[derive(Clone, Debug, PartialEq)]
pub struct ExternalTask {
    pub dag_id: DagId,
    pub among: Among,
    /// From the logical date of the other run to that of the sensor's own.
    pub execution_delta: Duration,
    pub allowed: Vec<TaskState>,
    pub failed: Vec<TaskState>,
    pub skipped: Vec<TaskState>,
}

/// Whose clock the timeout follows (SEMANTICS 14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SensorMode {
    /// That of the try: each try has the whole timeout. While it waits it is `deferred`.
    #[default]
    Poke,
    /// That of all tries together. While it waits it is `up_for_reschedule`.
    Reschedule,
}

/// How often it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    pub poke_interval: Duration,
    /// The interval doubles from look to look, with a jitter.
    pub is_exponential: bool,
    /// Bounds an interval that grows.
    pub max_wait: Option<Duration>,
}
