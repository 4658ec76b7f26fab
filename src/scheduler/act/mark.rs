//! A mark in one run (SEMANTICS 12): a user says what became of its task instances, or of the run itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use super::{Mark, refusal};
use crate::model::{DagRun, RunId, RunState, TaskId, TaskState};
use crate::scheduler::change::RunLookup;
use crate::scheduler::command::{CommandError, Done, Reply};
use crate::scheduler::machine::{self, RunEvent, TaskEvent};
use crate::scheduler::port::{Force, Kill};
use crate::scheduler::steer::unreadable;
use crate::scheduler::subset;
use crate::scheduler::world::{Action, DagIx, Definition, History, Now, RunIx, Slot, World};

/// The `reason` of what a user has set.
const SET_BY_USER: &str = "set_by_user";

impl World {
    /// Sets the instances to the state, and clears what has failed after them, so that it runs again: how many those are.
    pub(super) fn mark_slots(
        &mut self,
        run: RunIx,
        slots: &[Slot],
        mark: &Mark,
        definition: &Arc<Definition>,
        now: Now,
    ) -> u32 {
        for &slot in slots {
            self.set_by_user(run, slot, mark.state, now);
        }
        if slots.is_empty() {
            return 0;
        }
        self.active.insert(run);
        self.reconsider_past(run, definition);
        let below: BTreeSet<&TaskId> = mark.below.iter().collect();
        let has_failed = |slot: &Slot| {
            let row = &self.run(run).entry(*slot).row;
            row.state.is_failed_like() && below.contains(&row.task_id)
        };
        let failed: Vec<Slot> = self.run(run).slots_in_order().filter(has_failed).collect();
        self.clear_slots(run, &failed, definition, now);
        failed.len() as u32
    }

    /// A process that lives is ended; its row keeps the state.
    fn set_by_user(&mut self, run: RunIx, slot: Slot, state: TaskState, now: Now) {
        let before = self.run(run).entry(slot).row.state;
        let Ok(next) = machine::next_task(before, TaskEvent::Set(state)) else { return };
        self.forget_waits(run, slot);
        self.set_task_state(run, slot, next);
        let entry = self.entry_mut(run, slot);
        let row = &mut entry.row;
        row.start_date = row.start_date.or(Some(now.wall));
        row.end_date = row.end_date.filter(|_| before.is_finished()).or(Some(now.wall));
        row.reason = Some(SET_BY_USER.to_owned());
        row.retry_delay_override = None;
        if entry.is_held() && before != TaskState::Restarting {
            let key = entry.row.try_key();
            let kill = Kill { reason: format!("set to {state}"), force: Force::Graceful };
            self.actions.push(Action::Kill(key, kill));
        }
    }

    /// Ends a run by a user's word. What runs gets the run's state, what has not run is skipped. Teardowns that are not over are left
    /// to run, and as long as there are some the run goes on.
    pub(super) fn mark_run(
        &mut self,
        dag_id: &str,
        run_id: &RunId,
        state: RunState,
        now: Now,
        history: &mut dyn History,
    ) -> Reply {
        let ix = self.known_dag(dag_id)?;
        let (run, is_new) = self.run_to_end(ix, run_id, now, history)?;
        let was = self.run(run).row.state;
        let ended = if state == RunState::Success { TaskState::Success } else { TaskState::Failed };
        let definition = self.dag(ix).definition.clone();
        let is_teardown = |task_id: &TaskId| {
            let task = definition.as_ref().and_then(|definition| Some((definition, definition.dag.find(task_id)?)));
            task.is_some_and(|(definition, task)| subset::is_teardown(&definition.dag.graph, task))
        };
        let (mut instances, mut is_open) = (0, false);
        for slot in self.run(run).slots_in_order() {
            let row = &self.run(run).entry(slot).row;
            if row.state.is_finished() {
                continue;
            }
            if is_teardown(&row.task_id) {
                // Nobody runs it in a run that is over.
                is_open |= !was.is_finished();
                continue;
            }
            let to = if is_at_work(row.state) { ended } else { TaskState::Skipped };
            self.set_by_user(run, slot, to, now);
            instances += 1;
        }
        self.active.insert(run);
        let changes_run = !is_open && was != state;
        if changes_run && was.is_finished() {
            // From one end to another: its dates stay.
            let row = &mut self.run_mut(run).row;
            row.state = machine::next_run(was, RunEvent::Set(state)).expect("one end is not the other");
            row.reason = Some(SET_BY_USER.to_owned());
            let (dag_id, run_id) = (row.dag_id.clone(), row.run_id.clone());
            self.cross_dag.wake(&dag_id, Some(&run_id));
        } else if changes_run {
            self.end_run(run, RunEvent::Set(state), Some(SET_BY_USER), now);
        }
        if !changes_run && instances == 0 {
            if is_new {
                self.let_go(run);
            }
        } else {
            let extra = json!({ "state": state, "was": was, "instances": instances });
            let dag_id = self.dag(ix).record.dag_id.clone();
            self.audit(now, "mark_run", Some(&dag_id), Some(run_id), extra);
            if let Some(definition) = &definition {
                self.reconsider_past(run, definition);
            }
        }
        Ok(Done::RunMarked { was, instances, is_open })
    }

    /// The run, and whether it came into memory for this. One that waits in the line of its backfill leaves the line, and gets its
    /// instances.
    fn run_to_end(
        &mut self,
        ix: DagIx,
        run_id: &RunId,
        now: Now,
        history: &mut dyn History,
    ) -> Result<(RunIx, bool), CommandError> {
        let held = self.held.values().map(|&(run, _)| run).filter(|&run| self.run(run).dag == ix);
        if let Some(run) = self.known_runs(ix).chain(held).find(|&run| self.run(run).row.run_id == *run_id) {
            return Ok((run, false));
        }
        let dag_id = self.dag(ix).record.dag_id.clone();
        let found = history.find_run(&dag_id, &RunLookup::ById(run_id.clone())).map_err(unreadable)?;
        let Some(mut row) = found else {
            let help = format!("`minflow dags list-runs {dag_id}` shows its runs");
            return Err(refusal("unknown-run", format!("`{dag_id}` has no run `{run_id}`"), help));
        };
        let place = Some(&row).filter(|row| !row.state.is_finished()).and_then(DagRun::counts_with);
        // From now on the loop has it: a cancelled backfill must not end it in the database.
        row.is_released |= place.is_some();
        let run = self.bring_back(ix, row, history).map_err(unreadable)?;
        if let Some(place) = place {
            self.run_mut(run);
            self.leave_backfill_line(ix, place);
            if let Some(definition) = self.dag(ix).definition.clone() {
                self.take_definition(run, &definition, now);
            }
        }
        Ok((run, true))
    }
}

/// Something is at work on it, or waits outside.
const fn is_at_work(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::Running
            | TaskState::Restarting
            | TaskState::Deferred
            | TaskState::UpForReschedule
            | TaskState::AwaitingInput
    )
}
