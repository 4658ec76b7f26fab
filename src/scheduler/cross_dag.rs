//! What instances wait for in other DAGs (SEMANTICS 22): the end of a run, or tasks of the run with a certain logical date.
//!
//! Nothing is polled. Who waits is looked at when its wait begins and after a restart, and then whenever something has ended of
//! what it waits for; a run in memory answers, else the database does.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::branching::around;
use crate::model::wait::{Among, AwaitedRun, AwaitedTasks};
use crate::model::{Awaited, DagId, RunId, RunState, TaskState, TryKey};
use crate::scheduler::change::RunLookup;
use crate::scheduler::decide::iso;
use crate::scheduler::event::Outcome;
use crate::scheduler::port::StoreError;
use crate::scheduler::world::{DagIx, History, Now, RunIx, Slot, World};

/// An instance that waits, in its present try.
type Waiter = (RunIx, Slot, TryKey);

/// Who waits for something in another DAG.
#[derive(Debug, Default)]
pub(super) struct CrossDag {
    /// By the DAG that is waited for, which need not be known.
    waiting: BTreeMap<DagId, Waiters>,
    /// To be looked at in this turn.
    to_look: BTreeSet<Waiter>,
}

#[derive(Debug, Default)]
struct Waiters {
    /// For the end of one run.
    of_runs: BTreeMap<RunId, BTreeSet<Waiter>>,
    /// For anything that ends in the DAG.
    of_tasks: BTreeSet<Waiter>,
}

impl CrossDag {
    /// Something of the DAG has ended: a task, or with `run_id` a run.
    pub(super) fn wake(&mut self, dag_id: &DagId, run_id: Option<&RunId>) {
        let Some(waiters) = self.waiting.get_mut(dag_id) else { return };
        self.to_look.append(&mut waiters.of_tasks);
        self.to_look.extend(run_id.and_then(|run_id| waiters.of_runs.remove(run_id)).into_iter().flatten());
        if waiters.of_runs.is_empty() && waiters.of_tasks.is_empty() {
            self.waiting.remove(dag_id);
        }
    }

    /// Anybody waits for anything.
    pub(super) fn is_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Somebody is to be looked at.
    pub(super) fn has_more(&self) -> bool {
        !self.to_look.is_empty()
    }

    /// Who is to be looked at now or when something has ended, as often as it is.
    #[cfg(test)]
    pub(super) fn waiters(&self) -> impl Iterator<Item = Waiter> + '_ {
        let of_waiters = |waiters: &'_ Waiters| -> Vec<Waiter> {
            waiters.of_runs.values().flatten().chain(&waiters.of_tasks).copied().collect()
        };
        self.waiting.values().flat_map(of_waiters).chain(self.to_look.iter().copied())
    }

    fn await_run(&mut self, awaited: &AwaitedRun, waiter: Waiter) {
        let waiters = self.waiting.entry(awaited.dag_id.clone()).or_default();
        waiters.of_runs.entry(awaited.run_id.clone()).or_default().insert(waiter);
    }

    fn await_tasks(&mut self, awaited: &AwaitedTasks, waiter: Waiter) {
        self.waiting.entry(awaited.dag_id.clone()).or_default().of_tasks.insert(waiter);
    }
}

impl World {
    /// The instance begins to wait for something in another DAG.
    pub(super) fn look_across(&mut self, run: RunIx, slot: Slot) {
        let key = self.run(run).entry(slot).row.try_key();
        self.cross_dag.to_look.insert((run, slot, key));
    }

    /// Looks at those whose wait has begun, or for whom something has ended. True: something has come of it.
    ///
    /// # Errors
    /// The database could not be asked; who was not looked at is looked at later.
    pub(super) fn meet_across(&mut self, now: Now, history: &mut dyn History) -> Result<bool, StoreError> {
        let mut has_met = false;
        while let Some(&waiter) = self.cross_dag.to_look.first() {
            let (run, slot, _) = waiter;
            let outcome = match self.awaited_across(waiter) {
                Some(Awaited::Run(awaited)) => {
                    let outcome = self.look_at_run(&awaited, history)?;
                    if outcome.is_none() {
                        self.cross_dag.await_run(&awaited, waiter);
                    }
                    outcome
                }
                Some(Awaited::Tasks(awaited)) => {
                    let outcome = self.look_at_tasks(&awaited, history)?;
                    if outcome.is_none() {
                        self.cross_dag.await_tasks(&awaited, waiter);
                    }
                    outcome
                }
                _ => None,
            };
            self.cross_dag.to_look.remove(&waiter);
            if let Some(outcome) = outcome {
                self.conclude_wait(run, slot, self.softened(run, slot, outcome), now);
                has_met = true;
            }
        }
        Ok(has_met)
    }

    /// A sensor that fails softly is skipped.
    fn softened(&self, run: RunIx, slot: Slot, outcome: Outcome) -> Outcome {
        let is_soft = self.run(run).entry(slot).row.deferral.as_ref().is_some_and(|wait| wait.soft_fail);
        match outcome {
            Outcome::Faulted { reason } if is_soft => Outcome::Skipped { reason },
            other => other,
        }
    }

    /// What the instance waits for, if it still does so in this try.
    fn awaited_across(&self, (run, slot, key): Waiter) -> Option<Awaited> {
        let run = self.runs.get(run.0 as usize)?.as_ref()?;
        let row = &run.instances.get(slot.0 as usize)?.row;
        let waits = matches!(row.state, TaskState::Deferred | TaskState::UpForReschedule) && row.try_key() == key;
        waits.then(|| row.deferral.as_ref().map(|wait| wait.awaited.clone())).flatten()
    }

    /// None: the run goes on, or has ended in a state that decides nothing; it may be cleared and end otherwise, as in Airflow.
    fn look_at_run(&self, awaited: &AwaitedRun, history: &mut dyn History) -> Result<Option<Outcome>, StoreError> {
        let AwaitedRun { dag_id, run_id, states } = awaited;
        let found = match self.dag_index.get(dag_id) {
            Some(&ix) => self.run_states(ix, &RunLookup::ById(run_id.clone()), history)?,
            None => None,
        };
        let Some((state, _)) = found else {
            let reason = format!("the run `{run_id}` of `{dag_id}` is gone; clear this task, and it asks for another");
            return Ok(Some(Outcome::Faulted { reason }));
        };
        if states.allowed.contains(&state) {
            return Ok(Some(Outcome::Exited(0)));
        }
        let reason = format!(
            "the run `{run_id}` of `{dag_id}` ended as {state}; `minflow tasks states-for-dag-run {dag_id} {run_id}` shows why"
        );
        Ok(states.failed.contains(&state).then_some(Outcome::Faulted { reason }))
    }

    /// None: not yet. A DAG, run or task that does not exist is waited for, as in Airflow.
    fn look_at_tasks(&self, awaited: &AwaitedTasks, history: &mut dyn History) -> Result<Option<Outcome>, StoreError> {
        let Some(&ix) = self.dag_index.get(&awaited.dag_id) else { return Ok(None) };
        let date = awaited.logical_date;
        let Some((state, tasks)) = self.run_states(ix, &RunLookup::ByLogicalDate(date), history)? else {
            return Ok(None);
        };
        let states = match &awaited.among {
            Among::Run => vec![as_task_state(state)],
            Among::Tasks(ids) => {
                let mut states = Vec::new();
                for id in ids {
                    let of_task: Vec<TaskState> =
                        tasks.iter().filter(|(task, _)| **task == **id).map(|(_, state)| *state).collect();
                    states.extend(of_task.is_empty().then_some(TaskState::None));
                    states.extend(of_task);
                }
                states
            }
            Among::Group(group) => {
                let of_group: Vec<TaskState> = tasks
                    .into_iter()
                    .filter(|(task, _)| self.is_in_group(ix, task, group))
                    .map(|(_, state)| state)
                    .collect();
                if of_group.is_empty() { vec![TaskState::None] } else { of_group }
            }
        };
        let has = |wanted: &[TaskState]| states.iter().any(|state| wanted.contains(state));
        let named = || format!("{} for the logical date {}", awaited.words(), iso(date));
        Ok(if has(&awaited.failed) {
            Some(Outcome::Faulted { reason: format!("{} ended in one of its `failed_states`", named()) })
        } else if has(&awaited.skipped) {
            Some(Outcome::Skipped { reason: format!("{} ended in one of its `skipped_states`", named()) })
        } else {
            states.iter().all(|state| awaited.allowed.contains(state)).then_some(Outcome::Exited(0))
        })
    }

    fn is_in_group(&self, ix: DagIx, task_id: &str, group: &str) -> bool {
        let Some(definition) = &self.dag(ix).definition else { return false };
        let dag = &definition.dag;
        let Some(task) = dag.find(task_id) else { return false };
        around(dag, dag.task(task).group).any(|around| dag.groups[around.index()].group_id == group)
    }

    /// The state of a run as it stands in this turn, and those of its instances.
    #[expect(clippy::type_complexity, reason = "a pair that is taken apart at once")]
    fn run_states(
        &self,
        ix: DagIx,
        lookup: &RunLookup,
        history: &mut dyn History,
    ) -> Result<Option<(RunState, Vec<(crate::model::TaskId, TaskState)>)>, StoreError> {
        let known = self.known_runs(ix).find(|&run| lookup.fits(&self.run(run).row));
        if let Some(run) = known {
            let run = self.run(run);
            let states = run.instances.iter().map(|entry| (entry.row.task_id.clone(), entry.row.state)).collect();
            return Ok(Some((run.row.state, states)));
        }
        let Some(row) = history.find_run(&self.dag(ix).record.dag_id, lookup)? else { return Ok(None) };
        let instances = history.instances(row.key)?;
        Ok(Some((row.state, instances.into_iter().map(|row| (row.task_id, row.state)).collect())))
    }
}

/// A run's state among those that a sensor names.
const fn as_task_state(state: RunState) -> TaskState {
    match state {
        RunState::Queued => TaskState::Queued,
        RunState::Running => TaskState::Running,
        RunState::Success => TaskState::Success,
        RunState::Failed => TaskState::Failed,
    }
}
