//! Runs that go just like an earlier one of their DAG: decided once, and counted as often as they come.
//!
//! What is decided follows from the state, the event and the instant, and of the instant only where a definition looks at dates. So
//! a run that begins when nothing is under way goes like any other of its DAG that began so, as long as all tries succeed and nothing
//! comes in between: its tries and its waits lie at the same distances from its beginning. Which run comes next, and when, is asked
//! of the timetable each time. The report is the same either way.

use jiff::Timestamp;

use crate::model::{Dag, NextRun, Operator, Schedule};
use crate::scheduler::world::DagIx;
use crate::simulate::past;
use crate::simulate::tally::{Before, Share};

#[cfg(test)]
mod tests;

/// A DAG whose runs may be alike.
pub(super) struct Alike {
    /// A run has an instance of each task if its logical date is neither before the one nor after the other.
    first: Timestamp,
    last: Timestamp,
    pub model: Option<Model>,
}

/// How a run of the DAG goes by itself.
pub(super) struct Model {
    /// How many instants it has.
    pub instants: u64,
    pub share: Share,
}

/// A run that has begun, and may become the [`Model`] of its DAG.
pub(super) struct Watched {
    pub dag: DagIx,
    /// How many instants were lived through before it.
    pub instants: u64,
    /// When something else comes.
    pub disturbed_at: Option<Timestamp>,
    pub before: Before,
}

impl Alike {
    /// None: a run of the DAG looks at dates, at other runs or at other DAGs, or they at it.
    pub(super) fn of(dag: &Dag) -> Option<Self> {
        let is_timed = matches!(dag.schedule, Schedule::Cron(_) | Schedule::Every(_) | Schedule::Events(_));
        let is_alone = dag.tasks.iter().all(|task| {
            task.outlets.is_empty() && !matches!(task.operator, Operator::Sensor(_) | Operator::TriggerDag(_))
        });
        let is_plain = dag.mappings.is_empty() && dag.asset_schedule.is_none();
        if !is_timed || !is_alone || !is_plain || past::is_asked(dag) {
            return None;
        }
        Some(Self {
            first: dag.tasks.iter().filter_map(|task| task.start_date).max().unwrap_or(Timestamp::MIN),
            last: dag.tasks.iter().filter_map(|task| task.end_date).min().unwrap_or(Timestamp::MAX),
            model: None,
        })
    }

    /// The run has all its instances.
    pub(super) fn is_whole(&self, run: &NextRun) -> bool {
        self.first <= run.logical_date && run.logical_date <= self.last
    }
}
