//! What one run has added to the counts, to be added again for each run that goes just like it.

use super::{Cause, DagTally, Tally};
use crate::model::NextRun;
use crate::scheduler::world::DagIx;
use crate::simulate::drive::instant;
use crate::simulate::gauges::{Gain, Gauges, Step};
use crate::simulate::report::Totals;

/// The counts as they stood before a run.
pub(in crate::simulate) struct Before {
    at: i64,
    dag: DagTally,
    gauges: Gauges,
    /// How many steps of the gauges there were.
    steps: usize,
}

/// What a run has added. What the longest and the first of something is, it does not say: that was the run itself, or an earlier one.
pub(in crate::simulate) struct Share {
    /// Of the run, from the instant at which it was due to its end, in microseconds.
    pub lasted: i64,
    totals: Totals,
    over: u64,
    total: i128,
    /// How many waits for each cause, and how long in all.
    waits: Vec<(Cause, u64, i128)>,
    gauges: Vec<Gain>,
    steps: Vec<Step>,
}

impl Tally {
    /// The counts of a DAG and of the limits as they stand now, before a run of the DAG.
    pub(in crate::simulate) fn before(&self, dag: DagIx) -> Before {
        Before {
            at: self.at,
            dag: self.dags[dag.0 as usize].clone(),
            gauges: self.gauges.clone(),
            steps: self.steps.as_ref().map_or(0, Vec::len),
        }
    }

    /// What has been added since by the only run that there was. None: there was another number of runs, or not all of its instances,
    /// `tasks` of them, have succeeded with their first try.
    pub(in crate::simulate) fn share_since(&self, before: &Before, dag: DagIx, tasks: usize) -> Option<Share> {
        let now = &self.dags[dag.0 as usize];
        let totals = now.totals.since(&before.dag.totals);
        let tasks = tasks as u64;
        let smooth =
            Totals { runs: 1, succeeded_runs: 1, instances: tasks, succeeded_instances: tasks, ..Totals::default() };
        if totals != smooth {
            return None;
        }
        let waits = now.waits.iter().enumerate().map(|(at, (cause, waits))| {
            let before = before.dag.waits.get(at).map_or((0, 0), |(_, before)| (before.count, before.total));
            (*cause, waits.count - before.0, waits.total - before.1)
        });
        let steps = self.steps.as_ref().map_or(&[][..], |steps| &steps[before.steps..]);
        Some(Share {
            lasted: self.at - before.at,
            totals,
            over: now.over - before.dag.over,
            total: now.total - before.dag.total,
            waits: waits.filter(|(_, count, _)| *count > 0).collect(),
            gauges: self.gauges.gained_since(&before.gauges),
            steps: steps.iter().map(|step| step.later(-before.at)).collect(),
        })
    }

    /// Counts the run `run`, which begins at the instant up to which all is counted and does what `share` tells of an earlier one of
    /// the same DAG; returns its end.
    pub(in crate::simulate) fn repeat(&mut self, dag: DagIx, run: &NextRun, share: &Share) -> i64 {
        let counts = &mut self.dags[dag.0 as usize];
        counts.totals.add(&share.totals);
        counts.over += share.over;
        counts.total += share.total;
        counts.last_run = counts.last_run.max(Some(run.run_after));
        for (cause, count, total) in &share.waits {
            if let Some((_, waits)) = counts.waits.iter_mut().find(|(known, _)| known == cause) {
                waits.count += count;
                waits.total += total;
            }
        }
        self.gauges.gain(&share.gauges);
        if let Some(steps) = &mut self.steps {
            steps.extend(share.steps.iter().map(|step| step.later(self.at)));
        }
        self.at += share.lasted;
        debug_assert!(instant(self.at) >= run.run_after);
        self.at
    }
}

impl Totals {
    fn since(&self, before: &Self) -> Self {
        Self {
            runs: self.runs - before.runs,
            succeeded_runs: self.succeeded_runs - before.succeeded_runs,
            failed_runs: self.failed_runs - before.failed_runs,
            unfinished_runs: self.unfinished_runs - before.unfinished_runs,
            instances: self.instances - before.instances,
            succeeded_instances: self.succeeded_instances - before.succeeded_instances,
            failed_instances: self.failed_instances - before.failed_instances,
            unrun_instances: self.unrun_instances - before.unrun_instances,
            retries: self.retries - before.retries,
            overlaps: self.overlaps - before.overlaps,
        }
    }
}
