//! Runs that go just like earlier ones: decided once, and counted as often as they come.
//!
//! What is decided follows from the state, the event and the instant, and of the instant only where a definition looks at dates. So
//! take all runs that begin from an instant at which nothing is under way until nothing is under way again, a *spell*: they go like
//! those of an earlier spell, if the same DAGs gave runs at the same distances from its beginning and of the same logical dates, as
//! seen from there; as long as nothing else comes in between, none of the DAGs looks at dates, at other runs or at assets, and all
//! tries succeed. Tries, and waits for the limits at which the DAGs meet, then lie at the same distances, too. Which runs come, and
//! when, is asked of the timetables each time. The report is the same either way.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::model::{Dag, Operator, RunType, Schedule};
use crate::scheduler::world::{DagIx, Run, Slated};
use crate::simulate::drive::instant;
use crate::simulate::past;
use crate::simulate::tally::{Before, Share, Tally};

#[cfg(test)]
mod tests;

/// For each DAG and each task of a world, how many entries the models that are kept may have in all.
const ROOM: usize = 32;

/// A DAG whose runs may be alike.
pub(super) struct Alike {
    /// A run has an instance of each task if its logical date is neither before the one nor after the other.
    first: Timestamp,
    last: Timestamp,
    /// How many tasks it has.
    pub tasks: usize,
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
            tasks: dag.tasks.len(),
        })
    }

    /// A run of this logical date has all its instances.
    pub(super) fn is_whole(&self, logical_date: Timestamp) -> bool {
        self.first <= logical_date && logical_date <= self.last
    }
}

/// How a spell goes.
pub(super) struct Model {
    /// Its beginning, in microseconds.
    at: i64,
    /// In order of their DAGs, then of their instants.
    runs: Vec<Slated>,
    /// How many instants it has.
    pub instants: u64,
    pub share: Share,
    /// How often it has come again.
    #[cfg(test)]
    pub repeats: u64,
}

impl Model {
    /// The runs of such a spell that begins at `at`; None: they lie beyond all instants.
    pub(super) fn runs_from(&self, at: i64) -> Option<Vec<Slated>> {
        let shift = SignedDuration::from_micros(at - self.at);
        let later = |run: &Slated| {
            let (run_after, logical_date) = (run.run_after.checked_add(shift), run.logical_date.checked_add(shift));
            Some(Slated { run_after: run_after.ok()?, logical_date: logical_date.ok()?, ..*run })
        };
        self.runs.iter().map(later).collect()
    }
}

#[cfg(test)]
impl Model {
    fn dags(&self) -> usize {
        self.runs.chunk_by(|a, b| a.dag == b.dag).count()
    }

    fn has_later_runs(&self) -> bool {
        self.runs.iter().any(|run| run.run_after > instant(self.at))
    }
}

/// The spells that are known.
pub(super) struct Models {
    /// By the DAGs with which they begin.
    by_first: BTreeMap<Vec<DagIx>, Vec<Model>>,
    entries: usize,
    /// Together they have at most so many: a home in which no spell is like another is not remembered for ever.
    most: usize,
}

impl Models {
    /// For a world of these DAGs.
    pub(super) fn new<'a>(dags: impl Iterator<Item = &'a Dag>) -> Self {
        Self { by_first: BTreeMap::new(), entries: 0, most: dags.map(|dag| ROOM * (1 + dag.tasks.len())).sum() }
    }

    /// Those that begin with runs of these DAGs.
    pub(super) fn of(&mut self, first: &[DagIx]) -> &mut [Model] {
        self.by_first.get_mut(first).map_or(&mut [], Vec::as_mut_slice)
    }

    /// When there is no room left, all are forgotten: those that come again are soon known again.
    fn add(&mut self, first: Vec<DagIx>, model: Model) {
        let entries = model.runs.len() + model.share.entries();
        if self.entries + entries > self.most {
            self.by_first.clear();
            self.entries = 0;
        }
        if entries <= self.most {
            self.entries += entries;
            self.by_first.entry(first).or_default().push(model);
        }
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = &Model> {
        self.by_first.values().flatten()
    }
}

/// A spell that has begun, and may become a [`Model`].
pub(super) struct Watched {
    at: i64,
    first: Vec<DagIx>,
    runs: Vec<Slated>,
    /// How many instants were lived through before it.
    instants: u64,
    before: Before,
    /// With more entries than that it is not remembered.
    most: usize,
}

impl Watched {
    /// One that begins with runs of the DAGs `first`, after so many instants, and is to become one of `models`.
    pub(super) fn new(at: i64, first: Vec<DagIx>, instants: u64, before: Before, models: &Models) -> Self {
        Self { at, first, runs: Vec::new(), instants, before, most: models.most }
    }

    /// Takes in a run that has been created at `at`. False: a spell with such a run is like no other.
    pub(super) fn take_in(&mut self, run: &Run, at: i64, alike: &[Option<Alike>], tally: &Tally) -> bool {
        let Some(logical_date) = run.row.logical_date else { return false };
        let slated = Slated { dag: run.dag, run_after: run.row.run_after, logical_date };
        let is_usual = self.runs.len() + tally.strokes() < self.most
            && run.row.run_type == RunType::Scheduled
            && slated.run_after == instant(at)
            && alike[run.dag.0 as usize].as_ref().is_some_and(|alike| alike.is_whole(logical_date));
        if is_usual {
            self.runs.push(slated);
            tally.note_before(&mut self.before, run.dag);
        }
        is_usual
    }

    /// Nothing is under way any longer, after so many instants in all.
    pub(super) fn end(mut self, instants: u64, alike: &[Option<Alike>], tally: &Tally, models: &mut Models) {
        let tasks = |dag: DagIx| alike[dag.0 as usize].as_ref().map_or(0, |alike| alike.tasks);
        if let Some(share) = tally.share_since(&self.before, tasks) {
            self.runs.sort_unstable();
            let Self { at, first, runs, .. } = self;
            let instants = instants - self.instants;
            models.add(
                first,
                Model {
                    at,
                    runs,
                    instants,
                    share,
                    #[cfg(test)]
                    repeats: 0,
                },
            );
        }
    }
}
