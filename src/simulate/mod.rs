//! Looking ahead: what minflow would do from one instant to another.
//!
//! Drives the scheduler's own world on a virtual clock: [`drive`] hands it deadlines and the ends of tries, [`tally`] counts what
//! comes out of it, [`slots`] finds what a change of the clocks does to a schedule, [`picture`] draws. [`apart`] gives DAGs that
//! never meet at a limit a world each, and [`alike`] decides once what comes again; both are faster and come to the same.
//! Decides nothing about scheduling itself. Pure: knows no file, thread, database or clock; the same plan gives the same report.

mod ahead;
mod alike;
mod apart;
mod drive;
mod gauges;
mod past;
mod picture;
mod report;
mod sensor;
mod slots;
mod start;
mod tally;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::{Dag, DataInterval, Pool};
pub use crate::scheduler::ready::Choosing;

pub use ahead::next_runs;
pub use apart::{Part, simulate, simulate_with};
pub use picture::{Picture, draw};
pub use report::{
    Behind, DagReport, Deadline, DeadlineKind, LimitKind, LimitReport, Odd, Report, Totals, Transition, WaitReport,
};

/// What is to be looked ahead to.
#[derive(Clone, Debug)]
pub struct Plan {
    pub from: Timestamp,
    /// What is due at it or later is left out.
    pub until: Timestamp,
    /// In order of their dag_ids.
    pub subjects: Vec<Subject>,
    pub parallelism: u32,
    pub pools: Vec<Pool>,
    pub choosing: Choosing,
    /// Decides which tries fail.
    pub seed: u64,
    /// Whether a [`Picture`] is to be made.
    pub is_drawn: bool,
}

/// A DAG that is simulated.
#[derive(Clone, Debug)]
pub struct Subject {
    pub dag: Arc<Dag>,
    /// Relative to the dags folder.
    pub file: Arc<str>,
    /// As minflow has noted it; None: it has not seen the DAG unpaused.
    pub first_seen_at: Option<Timestamp>,
    /// Of its newest scheduled run.
    pub last_interval: Option<DataInterval>,
    /// By task.
    pub outlooks: Vec<Outlook>,
}

/// What is expected of one task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// Of each try; not asked of `empty`.
    pub lasts_for: Duration,
    /// The probability with which a try fails.
    pub fails: f64,
}
