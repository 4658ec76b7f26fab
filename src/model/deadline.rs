//! Deadlines of runs (SEMANTICS 19), and the time of day by which a DAG is expected to have succeeded.

use std::time::Duration;

use jiff::Timestamp;

use crate::model::callback::Callback;
use crate::model::ids::{DagId, DeadlineKey, RunId, RunKey};

/// One entry of `deadlines = [ … ]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Deadline {
    pub reference: Reference,
    /// Added to the reference.
    pub interval: Duration,
    /// Empty: the DAG's `on_failure`.
    pub callbacks: Vec<Callback>,
}

/// From when a deadline counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A run without one has no such deadline.
    LogicalDate,
    /// Counted anew when the run is cleared.
    QueuedAt,
    /// The creation of the run and the mean duration of the newest runs that have ended, at most `max_runs` of them; with fewer than
    /// `min_runs` there is no deadline.
    AverageRuntime {
        max_runs: u32,
        min_runs: u32,
    },
    At(Timestamp),
}

/// A deadline of one run, or that of a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadlineRow {
    pub key: DeadlineKey,
    pub dag_id: DagId,
    /// Null: on the day there was no run.
    pub run: Option<(RunKey, RunId)>,
    /// Its place in the DAG's list, from 1; 0: `expect_by`.
    pub number: u32,
    pub at: Timestamp,
    /// When it was found to be missed.
    pub missed_at: Option<Timestamp>,
}
