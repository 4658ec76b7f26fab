//! Operators that decide which of the tasks after them run (SEMANTICS 13): `branch`, `short_circuit` and `latest_only`.

use jiff::Timestamp;
use jiff::civil::{Time, Weekday};
use serde_json::Value;

use crate::model::dag::{Bash, Python, Template};

/// `branch = …`
#[derive(Clone, Debug, PartialEq)]
pub enum Branch {
    /// Whatever answers names the tasks and groups that are followed.
    Ask(Question),
    When(Choice),
}

/// One of two lists, by the time at which it is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    pub condition: Condition,
    /// An id or a list of ids, of tasks and groups that exist.
    pub if_true: Value,
    pub if_false: Value,
}

/// What is asked of the clock; days and times of day are those of the DAG's zone.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// It is one of these days; at least one.
    Weekday(Vec<Weekday>),
    /// It is neither before the first nor after the second; None: open.
    Between { lower: Option<Bound>, upper: Option<Bound> },
}

/// An end of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Of the day on which it is asked.
    TimeOfDay(Time),
    At(Timestamp),
}

/// `short_circuit = …`
#[derive(Clone, Debug, PartialEq)]
pub struct ShortCircuit {
    /// Whose answer is true or false.
    pub question: Question,
    /// Whether all tasks after it are skipped, and not only those directly after it.
    pub ignore_downstream_trigger_rules: bool,
}

/// What gives an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// What the template becomes; no process is started.
    Expr(Template),
    Bash(Bash),
    Python(Python),
}
