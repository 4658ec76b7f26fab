//! What a spell has added to the counts (see [`alike`](crate::simulate::alike)), to be added again for each that goes just like it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Cause, DagTally, Tally};
use crate::scheduler::world::{DagIx, Slated};
use crate::simulate::gauges::{Gain, Gauges, Step};
use crate::simulate::picture::Stroke;
use crate::simulate::report::Totals;

/// The counts as they stood before a spell.
pub(in crate::simulate) struct Before {
    at: i64,
    /// Of each DAG that has given a run since.
    dags: BTreeMap<DagIx, DagTally>,
    gauges: Gauges,
    /// How many steps of the gauges there were.
    steps: usize,
}

/// What a spell has added. What the longest and the first of something is, it does not say: that was in this spell, or in an earlier
/// one.
pub(in crate::simulate) struct Share {
    /// From its beginning to its end, in microseconds.
    pub lasted: i64,
    /// In order.
    dags: Vec<(DagIx, DagShare)>,
    gauges: Vec<Gain>,
    steps: Vec<Step>,
    /// As they were drawn when it began at `drawn_at`, in microseconds.
    strokes: Vec<Stroke>,
    drawn_at: i64,
}

/// What the runs of one DAG have added.
struct DagShare {
    totals: Totals,
    over: u64,
    total: i128,
    /// How many waits for each cause, and how long in all.
    waits: Vec<(Cause, u64, i128)>,
}

impl Share {
    /// How much there is to remember.
    pub(in crate::simulate) fn entries(&self) -> usize {
        let of_dags: usize = self.dags.iter().map(|(_, dag)| 1 + dag.waits.len()).sum();
        of_dags + self.steps.len() + self.strokes.len() * (1 + self.gauges.len())
    }
}

#[cfg(test)]
impl Share {
    /// How often a run or an instance has waited.
    pub(in crate::simulate) fn waits(&self) -> u64 {
        self.dags.iter().flat_map(|(_, dag)| &dag.waits).map(|(_, count, _)| count).sum()
    }
}

impl DagTally {
    /// What was added by runs of `tasks` instances each. None: not all of these have succeeded with their first try.
    fn share_since(&self, before: &Self, tasks: usize) -> Option<DagShare> {
        let totals = self.totals.since(&before.totals);
        let (runs, instances) = (totals.runs, totals.runs * tasks as u64);
        let smooth = Totals {
            runs,
            succeeded_runs: runs,
            instances,
            succeeded_instances: instances,
            overlaps: totals.overlaps,
            ..Totals::default()
        };
        if totals != smooth {
            return None;
        }
        let waits = self.waits.iter().enumerate().map(|(at, (cause, waits))| {
            let before = before.waits.get(at).map_or((0, 0), |(_, before)| (before.count, before.total));
            (*cause, waits.count - before.0, waits.total - before.1)
        });
        Some(DagShare {
            totals,
            over: self.over - before.over,
            total: self.total - before.total,
            waits: waits.filter(|(_, count, _)| *count > 0).collect(),
        })
    }

    /// Counts the same again, the last run being due at `last_run`.
    fn repeat(&mut self, share: &DagShare, last_run: Timestamp) {
        self.totals.add(&share.totals);
        self.over += share.over;
        self.total += share.total;
        self.last_run = self.last_run.max(Some(last_run));
        for (cause, count, total) in &share.waits {
            if let Some((_, waits)) = self.waits.iter_mut().find(|(known, _)| known == cause) {
                waits.count += count;
                waits.total += total;
            }
        }
    }
}

impl Tally {
    /// The counts as they stand now; what is drawn from now on is kept until [`Tally::unwatch`].
    pub(in crate::simulate) fn watch(&mut self) -> Before {
        self.canvas.watch();
        Before {
            at: self.at,
            dags: BTreeMap::new(),
            gauges: self.gauges.clone(),
            steps: self.steps.as_ref().map_or(0, Vec::len),
        }
    }

    /// Nothing is watched any longer.
    pub(in crate::simulate) fn unwatch(&mut self) {
        self.canvas.unwatch();
    }

    /// How much has been drawn of what is watched.
    pub(in crate::simulate) fn strokes(&self) -> usize {
        self.canvas.strokes().len() * (1 + self.gauges.len())
    }

    /// A run of this DAG is about to be counted.
    pub(in crate::simulate) fn note_before(&self, before: &mut Before, dag: DagIx) {
        before.dags.entry(dag).or_insert_with(|| self.dags[dag.0 as usize].clone());
    }

    /// What has been added since, by DAGs of so many tasks. None: there was no run, or not all instances have succeeded with their first
    /// try.
    pub(in crate::simulate) fn share_since(&self, before: &Before, tasks: impl Fn(DagIx) -> usize) -> Option<Share> {
        let share =
            |(&dag, before): (&DagIx, _)| Some((dag, self.dags[dag.0 as usize].share_since(before, tasks(dag))?));
        let dags = before.dags.iter().map(share).collect::<Option<Vec<_>>>().filter(|dags| !dags.is_empty())?;
        let steps = self.steps.as_ref().map_or(&[][..], |steps| &steps[before.steps..]);
        Some(Share {
            lasted: self.at - before.at,
            dags,
            gauges: self.gauges.gained_since(&before.gauges),
            steps: steps.iter().map(|step| step.later(-before.at)).collect(),
            strokes: self.canvas.strokes().to_vec(),
            drawn_at: before.at,
        })
    }

    /// Counts the runs `runs`, in order of their DAGs and instants, of which the first begin at the instant up to which all is counted,
    /// and that do what `share` tells of earlier ones.
    pub(in crate::simulate) fn repeat(&mut self, share: &Share, runs: &[Slated]) {
        for ((dag, share), runs) in share.dags.iter().zip(runs.chunk_by(|a, b| a.dag == b.dag)) {
            debug_assert_eq!(*dag, runs[0].dag);
            self.dags[dag.0 as usize].repeat(share, runs[runs.len() - 1].run_after);
        }
        self.gauges.gain(&share.gauges);
        if let Some(steps) = &mut self.steps {
            steps.extend(share.steps.iter().map(|step| step.later(self.at)));
        }
        self.canvas.repeat(&share.strokes, self.at - share.drawn_at);
        self.at += share.lasted;
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
