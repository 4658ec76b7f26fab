//! Dependence on the past: whether a task's own instance in the run before lets this one go on (SEMANTICS 4).
//!
//! The run before may be alive, or finished and so only in the database, which is asked once for each instance whose turn it is
//! otherwise. What is blocked is asked about again when the instance that it waits for moves.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;

use crate::model::{Catchup, Dag, DagRun, RunId, RunState, RunType, TaskId, TaskIx, TaskState};
use crate::scheduler::backfill::CANCELLED;
use crate::scheduler::change::Earlier;
use crate::scheduler::port::StoreError;
use crate::scheduler::progress::{InstanceIx, PastRule};
use crate::scheduler::world::{DagIx, History, Run, RunIx, Slot, World};

/// What of the past keeps an instance from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PastBlock {
    /// Its own instance in the run before is neither `success` nor `skipped`.
    Instance { run_id: RunId, state: TaskState },
    /// The run before has no instance of it, though an earlier one has, or `ignore_first_depends_on_past` is off.
    Absent { run_id: RunId },
    /// `wait_for_downstream`: a task right after it in the run before is neither `success` nor `skipped`.
    Downstream { run_id: RunId, task_id: TaskId, state: TaskState },
}

/// The run before, wherever it is known from.
enum Before {
    Live(RunIx),
    Stored(Box<DagRun>),
}

/// For each task how it depends on the past; empty if none does.
pub(super) fn rules_of(dag: &Dag) -> Arc<[PastRule]> {
    let rule = |task: &crate::model::Task| PastRule {
        depends: task.depends_on_past,
        withholds_skips: task.depends_on_past && task.wait_for_past_depends_before_skipping,
    };
    if dag.tasks.iter().any(|task| task.depends_on_past) {
        dag.tasks.iter().map(rule).collect()
    } else {
        Arc::default()
    }
}

/// A run of a backfill that is queued, or was when its backfill was cancelled: under Airflow it has instances, which wait.
fn has_not_begun(row: &DagRun, states: &[TaskState]) -> bool {
    let is_cancelled = states.is_empty() && row.reason.as_deref() == Some(CANCELLED);
    row.backfill.is_some() && (row.state == RunState::Queued || is_cancelled)
}

const fn lets_go_on(state: TaskState) -> bool {
    matches!(state, TaskState::Success | TaskState::Skipped)
}

impl World {
    /// Answers what a pass asks about the past of these instances. True: one of them may go on.
    pub(super) fn answer_past(
        &mut self,
        run: RunIx,
        asks: &[InstanceIx],
        history: &mut dyn History,
    ) -> Result<bool, StoreError> {
        let mut may_go_on = false;
        // The instances of a mapped task have the same past.
        let mut known: BTreeMap<TaskIx, Option<PastBlock>> = BTreeMap::new();
        for &ix in asks {
            let task = self.run(run).progress.task(ix);
            let block = match known.get(&task) {
                Some(block) => block.clone(),
                None => self.past_block(run, task, history)?,
            };
            known.insert(task, block.clone());
            may_go_on |= block.is_none();
            let (dag, date) = (self.run(run).dag, self.run(run).row.logical_date);
            let this = self.run_quiet(run);
            this.progress.answer_past(ix, block.is_none());
            let Some(block) = block else {
                this.past_blocks.remove(&ix);
                continue;
            };
            this.past_blocks.insert(ix, block);
            if let Some(date) = date {
                self.dag_quiet(dag).past_waiters.insert((date, run));
            }
        }
        Ok(may_go_on)
    }

    /// What keeps `task` of a run waiting; none if its past allows it.
    fn past_block(&self, run: RunIx, task: TaskIx, history: &mut dyn History) -> Result<Option<PastBlock>, StoreError> {
        let this = self.run(run);
        let (Some(date), Some(definition)) = (this.row.logical_date, &this.definition) else { return Ok(None) };
        let dag = &definition.dag;
        let spec = dag.task(task);
        let is_first = this.row.backfill.is_some_and(|place| place.ordinal == 1);
        if !spec.depends_on_past || is_first {
            return Ok(None);
        }
        let catches_up = dag.catchup != Catchup::Latest;
        let earlier = Earlier { than: date, but_manual: catches_up };
        let Some(before) = self.run_before(this, earlier, history)? else { return Ok(None) };
        let (run_id, date_before) = match &before {
            Before::Live(ix) => (self.run(*ix).row.run_id.clone(), self.run(*ix).row.logical_date),
            Before::Stored(row) => (row.run_id.clone(), row.logical_date),
        };
        if catches_up && spec.start_date.is_some_and(|start| date_before.is_some_and(|before| before < start)) {
            return Ok(None);
        }
        let states = self.states_in(&before, &spec.task_id, history)?;
        if matches!(&before, Before::Stored(row) if has_not_begun(row, &states)) {
            // Its instances are made when it is promoted; those of a run that was cleared wait.
            return Ok(Some(PastBlock::Absent { run_id }));
        }
        if states.is_empty() {
            let is_first = spec.ignore_first_depends_on_past
                && !self.has_earlier_instance(this.dag, &spec.task_id, date, history)?;
            return Ok((!is_first).then_some(PastBlock::Absent { run_id }));
        }
        if let Some(&state) = states.iter().find(|state| !lets_go_on(**state)) {
            return Ok(Some(PastBlock::Instance { run_id, state }));
        }
        if !spec.wait_for_downstream {
            return Ok(None);
        }
        for &down in dag.graph.downstream(task) {
            let task_id = &dag.task(down).task_id;
            let states = self.states_in(&before, task_id, history)?;
            if let Some(&state) = states.iter().find(|state| !lets_go_on(**state)) {
                return Ok(Some(PastBlock::Downstream { run_id, task_id: task_id.clone(), state }));
            }
        }
        Ok(None)
    }

    /// The run with the greatest logical date of those that are `earlier`, whatever its state.
    fn run_before(
        &self,
        this: &Run,
        earlier: Earlier,
        history: &mut dyn History,
    ) -> Result<Option<Before>, StoreError> {
        let is_meant = |ix: &RunIx| !(earlier.but_manual && self.run(*ix).row.run_type == RunType::Manual);
        let live = self.dag(this.dag).dates.range(..earlier.than).rev().map(|(_, &ix)| ix).find(is_meant);
        let stored = history.run_before(&this.row.dag_id, earlier)?;
        let live_date = live.and_then(|ix| self.run(ix).row.logical_date);
        // A row that is in memory too is older there.
        Ok(match (live, stored) {
            (_, Some(row)) if row.logical_date > live_date => Some(Before::Stored(Box::new(row))),
            (Some(ix), _) => Some(Before::Live(ix)),
            (None, stored) => stored.map(|row| Before::Stored(Box::new(row))),
        })
    }

    fn states_in(
        &self,
        before: &Before,
        task_id: &TaskId,
        history: &mut dyn History,
    ) -> Result<Vec<TaskState>, StoreError> {
        match before {
            Before::Live(ix) => {
                let of_task = self.run(*ix).instances.iter().filter(|entry| entry.row.task_id == *task_id);
                Ok(of_task.map(|entry| entry.row.state).collect())
            }
            Before::Stored(row) => history.task_states(row.key, task_id),
        }
    }

    fn has_earlier_instance(
        &self,
        dag: DagIx,
        task_id: &TaskId,
        than: Timestamp,
        history: &mut dyn History,
    ) -> Result<bool, StoreError> {
        let is_live = self.known_runs(dag).map(|ix| self.run(ix)).any(|run| {
            run.row.logical_date.is_some_and(|date| date < than)
                && run.instances.iter().any(|entry| entry.row.task_id == *task_id)
        });
        if is_live {
            return Ok(true);
        }
        history.has_earlier_instance(&self.dag(dag).record.dag_id, task_id, than)
    }

    /// The DAG's runs whose rows may differ from those in the database: alive, or ended in this turn.
    pub(super) fn known_runs(&self, dag: DagIx) -> impl Iterator<Item = RunIx> + '_ {
        let ended = self.just_ended.range((dag, RunIx(0))..=(dag, RunIx(u32::MAX))).map(|&(_, run)| run);
        self.dag(dag).runs.iter().map(|&(_, run)| run).chain(ended)
    }

    /// An instance has become, or is no longer, what lets its successors go on: those that wait for it are asked about again.
    pub(super) fn wake_successors(&mut self, run: RunIx, slot: Slot) {
        let this = self.run(run);
        let (dag, task) = (this.dag, this.entry(slot).task);
        if self.dag(dag).past_waiters.is_empty() {
            return;
        }
        let (Some(date), Some(definition), Some(task)) = (this.row.logical_date, this.definition.clone(), task) else {
            return;
        };
        let catches_up = definition.dag.catchup != Catchup::Latest;
        let from = (Bound::Excluded((date, RunIx(u32::MAX))), Bound::Unbounded);
        let waiting: Vec<RunIx> = self.dag(dag).past_waiters.range(from).map(|&(_, run)| run).collect();
        for later in waiting {
            let progress = &mut self.run_quiet(later).progress;
            progress.ask_past_again(task);
            for &up in definition.dag.graph.upstream(task) {
                if definition.dag.task(up).wait_for_downstream {
                    progress.ask_past_again(up);
                }
            }
            self.active.insert(later);
            // With catchup nobody waits for a manual run, and so one after another may look at the same run.
            if !(catches_up && self.run(later).row.run_type == RunType::Manual) {
                break;
            }
        }
    }

    /// A run has come between others: whoever is later may have another run before it.
    pub(super) fn reconsider_later(&mut self, dag: DagIx, date: Timestamp) {
        let later = (Bound::Excluded(date), Bound::Unbounded);
        let is_unfinished = |run: &RunIx| !self.run(*run).row.state.is_finished();
        let later: Vec<RunIx> = self.dag(dag).dates.range(later).map(|(_, &run)| run).filter(is_unfinished).collect();
        for run in later {
            self.run_quiet(run).progress.ask_all_past_again();
            self.active.insert(run);
        }
    }
}
