//! What one instance's end does to others beyond the trigger rules: a branch's or a short circuit's decision (SEMANTICS 13), and
//! `fail_fast` (SEMANTICS 11).
//!
//! A decision is kept with its run for as long as its XCom lives: until the next try of its task begins. From the XComs it is known
//! again after a restart, and when a run that was over comes back.

use std::collections::BTreeSet;

use crate::model::{Dag, Role, SkipDecision, TaskId, TaskIx, TaskState};
use crate::scheduler::machine::{self, TaskEvent};
use crate::scheduler::progress::Choice;
use crate::scheduler::world::{Now, RunIx, Slot, World};

/// A decision over the tasks of a DAG; ids that it does not have are left out.
fn choice(decision: &SkipDecision, dag: &Dag) -> Choice {
    let (SkipDecision::Followed(named) | SkipDecision::Skipped(named)) = decision;
    let named: BTreeSet<&TaskId> = named.iter().collect();
    let tasks: Vec<TaskIx> = dag.graph.indexes().filter(|&task| named.contains(&dag.task(task).task_id)).collect();
    match decision {
        SkipDecision::Followed(_) => Choice::Followed(tasks),
        SkipDecision::Skipped(_) => Choice::Skipped(tasks),
    }
}

impl World {
    /// The instance has succeeded and decided which tasks after it run. A mapped one skips nothing at once: those after it are
    /// skipped when it is their turn.
    pub(super) fn apply_decision(&mut self, run: RunIx, slot: Slot, decision: SkipDecision, now: Now) {
        let against = self.tasks_against(run, slot, &decision);
        let this = self.run_quiet(run);
        this.decisions.insert(slot, decision);
        let entry = this.entry(slot);
        let (Some(ix), is_mapped) = (entry.ix, entry.row.map_index >= 0) else { return };
        this.progress.bar(ix, &against);
        self.active.insert(run);
        if is_mapped {
            return;
        }
        for skipped in self.run_quiet(run).progress.skip_at_once(&against) {
            let slot = self.run(run).slot_of(skipped);
            self.mark(run, slot, TaskState::Skipped, now);
        }
    }

    /// The instance runs again: what it decided before is void.
    pub(super) fn forget_decision(&mut self, run: RunIx, slot: Slot) {
        let this = self.run_quiet(run);
        let ix = this.entry(slot).ix;
        if let (Some(_), Some(ix)) = (this.decisions.remove(&slot), ix) {
            this.progress.unbar(ix);
            self.active.insert(run);
        }
    }

    /// The run's progress is new: it is told what was decided before.
    pub(super) fn retell_decisions(&mut self, run: RunIx) {
        for (slot, decision) in self.run(run).decisions.clone() {
            let against = self.tasks_against(run, slot, &decision);
            let this = self.run_quiet(run);
            if let Some(ix) = this.entry(slot).ix {
                this.progress.bar(ix, &against);
            }
        }
    }

    fn tasks_against(&self, run: RunIx, slot: Slot, decision: &SkipDecision) -> Vec<TaskIx> {
        let this = self.run(run);
        let decider = this.entry(slot).task.zip(this.definition.as_ref());
        decider.map_or_else(Vec::new, |(task, definition)| {
            choice(decision, &definition.dag).against(&definition.dag.graph, task)
        })
    }

    /// The instance has failed for good in a DAG that fails fast: what else runs fails too, and what is not over is skipped. Teardowns
    /// and the other instances of the same task are left alone, as Airflow does.
    pub(super) fn fail_fast(&mut self, run: RunIx, failed: Slot, now: Now) {
        let this = self.run(run);
        let Some(definition) = this.definition.clone().filter(|definition| definition.dag.fail_fast) else { return };
        let failed = this.entry(failed).task;
        let is_teardown = |task| matches!(definition.dag.graph.node(task).role, Role::Teardown { .. });
        for slot in self.run(run).slots_in_order() {
            let entry = self.run(run).entry(slot);
            if entry.task.is_none_or(|task| Some(task) == failed || is_teardown(task)) {
                continue;
            }
            let state = entry.row.state;
            let event = if state == TaskState::Running { TaskEvent::Fail } else { TaskEvent::RunEnded };
            if let Ok(next) = machine::next_task(state, event) {
                self.mark(run, slot, next, now);
                self.entry_mut(run, slot).row.reason = Some("fail_fast".to_owned());
            }
        }
    }
}
