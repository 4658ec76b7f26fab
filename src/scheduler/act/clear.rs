//! A clear in one run (SEMANTICS 12): its instances are done over again, and a run that was over is queued again.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{DagRun, Instance, RunState, TaskId, TaskState};
use crate::scheduler::machine::{self, RunEvent, TaskEvent};
use crate::scheduler::port::{Force, Kill, StoreError};
use crate::scheduler::world::{Action, DagIx, Definition, History, Now, RunIx, Slot, TimerKey, World};

impl World {
    /// Puts a run that is over into memory for this turn. Until it is queued again it is one that has ended in this turn.
    ///
    /// # Errors
    /// The database could not be asked; nothing has changed.
    pub(super) fn bring_back(
        &mut self,
        dag: DagIx,
        row: DagRun,
        history: &mut dyn History,
    ) -> Result<RunIx, StoreError> {
        let rows = history.instances(row.key)?;
        self.bring_back_with(dag, row, rows, history)
    }

    /// As [`World::bring_back`], with its instances, by key.
    ///
    /// # Errors
    /// As there.
    pub(super) fn bring_back_with(
        &mut self,
        dag: DagIx,
        row: DagRun,
        rows: Vec<Instance>,
        history: &mut dyn History,
    ) -> Result<RunIx, StoreError> {
        // What an act has read of it so far may no longer be so.
        self.acts.forget_read(row.key);
        let decisions: BTreeMap<_, _> = history.decisions(row.key)?.into_iter().collect();
        let lengths = history.lengths(row.key)?;
        let run = self.load_run(dag, row, rows, decisions);
        self.load_lengths(run, &lengths);
        Ok(run)
    }

    /// Nothing of a run that was brought back has changed.
    pub(super) fn let_go(&mut self, run: RunIx) {
        let this = self.run(run);
        let (dag, date) = (this.dag, this.row.logical_date);
        if self.just_ended.remove(&(dag, run))
            && let Some(date) = date
        {
            self.dag_quiet(dag).dates.remove(&date);
        }
        self.forget_if_over(run);
    }

    /// Has the instances done over again, and their run looked at.
    pub(super) fn clear_slots(&mut self, run: RunIx, slots: &[Slot], definition: &Arc<Definition>, now: Now) {
        if slots.is_empty() {
            return;
        }
        self.clear_more(run, slots, definition, now);
        let row = &mut self.run_mut(run).row;
        row.clear_number += 1;
        row.queued_at = Some(now.wall);
        if row.state.is_finished() {
            self.requeue(run, definition, now);
        }
        self.redate_run(run);
        self.active.insert(run);
        self.reconsider_past(run, definition);
    }

    /// Further instances of a run that is cleared already.
    pub(super) fn clear_more(&mut self, run: RunIx, slots: &[Slot], definition: &Arc<Definition>, now: Now) {
        for &slot in slots {
            self.clear_slot(run, slot, definition, now);
        }
    }

    /// A clear or a mark has changed what later runs look back at.
    pub(super) fn reconsider_past(&mut self, run: RunIx, definition: &Definition) {
        let (dag, date) = (self.run(run).dag, self.run(run).row.logical_date);
        if let (Some(date), true) = (date, definition.has_past) {
            self.run_quiet(run).progress.ask_all_past_again();
            self.reconsider_later(dag, date);
        }
    }

    /// A process that lives is ended first, and its try goes to history at its end; whatever else it did goes there now.
    fn clear_slot(&mut self, run: RunIx, slot: Slot, definition: &Arc<Definition>, now: Now) {
        self.forget_waits(run, slot);
        let entry = self.run(run).entry(slot);
        let (state, key, is_held) = (entry.row.state, entry.row.try_key(), entry.is_held());
        if is_held {
            if let Ok(restarting) = machine::next_task(state, TaskEvent::Restart) {
                self.set_task_state(run, slot, restarting);
                let kill = Kill { reason: "cleared".to_owned(), force: Force::Graceful };
                self.actions.push(Action::Kill(key, kill));
            }
            return;
        }
        let is_known = definition.dag.find(&self.run(run).entry(slot).row.task_id).is_some();
        self.reset(run, slot, is_known, now);
        if !is_known && let Ok(removed) = machine::next_task(TaskState::None, TaskEvent::Vanish) {
            // Its run goes on, and no reload comes that would say so.
            self.set_task_state(run, slot, removed);
            return;
        }
        // A run that was over while a process of it lived has not followed the live definition: its tasks are numbered by its own.
        // When it is queued again it follows as a whole.
        let (task, own) = (self.run(run).entry(slot).task, self.run(run).definition.clone());
        if let Some((task, own)) = task.zip(own) {
            self.follow_in_instance(run, slot, task, None, &own);
        }
    }

    /// The end of the process that a clear has ended has come.
    pub(in crate::scheduler) fn end_restart(&mut self, run: RunIx, slot: Slot, now: Now) {
        let is_known = self.run(run).entry(slot).task.is_some();
        let definition = self.run(run).definition.clone();
        self.reset(run, slot, is_known, now);
        let task = self.run(run).entry(slot).task;
        if let Some((task, definition)) = task.zip(definition) {
            self.follow_in_instance(run, slot, task, None, &definition);
        }
    }

    /// The instance is as it was before its first try, but for the tries that it has had. `is_known`: its DAG has the task.
    fn reset(&mut self, run: RunIx, slot: Slot, is_known: bool, now: Now) {
        let row = &self.run(run).entry(slot).row;
        let (state, try_number, has_tried) = (row.state, row.try_number, row.scheduled_at.is_some());
        if has_tried {
            self.archive_try(run, slot);
            if let Some(past) = self.changes.history.last_mut().filter(|_| !state.is_finished()) {
                // Airflow counts what it did not let end as a failure.
                past.state = TaskState::Failed;
                past.end_date = past.end_date.or(Some(now.wall));
            }
        }
        let event = if state == TaskState::Restarting { TaskEvent::Halted } else { TaskEvent::Clear };
        let next = machine::next_task(state, event).expect("nobody holds it");
        self.set_task_state(run, slot, next);
        let retries = self.retries_of(run, slot);
        let row = &mut self.entry_mut(run, slot).row;
        row.scheduled_at = None;
        row.queued_at = None;
        row.start_date = None;
        row.end_date = None;
        row.reason = None;
        row.retry_delay_override = None;
        row.max_tries = match retries.filter(|_| is_known) {
            Some(retries) => try_number.saturating_add(retries),
            None => row.max_tries.max(try_number),
        };
    }

    /// The retries that the live definition gives to an instance's task.
    fn retries_of(&self, run: RunIx, slot: Slot) -> Option<u32> {
        let this = self.run(run);
        let task_id: &TaskId = &this.entry(slot).row.task_id;
        let definition = this.definition.as_ref().or(self.dag(this.dag).definition.as_ref())?;
        definition.dag.find(task_id).map(|task| definition.dag.task(task).retries)
    }

    /// Neither a slot nor a delay is waited for any longer.
    pub(in crate::scheduler) fn forget_waits(&mut self, run: RunIx, slot: Slot) {
        self.leave_ready_queue(run, slot);
        if self.run(run).has_deadlines {
            self.timers.cancel(&TimerKey::Retry(run, slot));
            self.timers.cancel(&TimerKey::Requeue(run, slot));
        }
    }

    /// A run that was over is queued again, as any other run of its DAG, and follows the live definition.
    fn requeue(&mut self, run: RunIx, definition: &Arc<Definition>, now: Now) {
        let dag = self.run(run).dag;
        self.just_ended.remove(&(dag, run));
        let row = &mut self.run_mut(run).row;
        row.state = machine::next_run(row.state, RunEvent::Clear).expect("only runs that are over are queued again");
        row.start_date = None;
        row.end_date = None;
        row.reason = None;
        row.is_released = row.backfill.is_some();
        debug_assert_eq!(row.state, RunState::Queued);
        self.enlist(run);
        self.take_definition(run, definition, now);
        self.promotable.insert(dag);
        self.await_next_run(dag, now);
    }
}
