//! A whole run that is done over again because a task asks for it (`reset_dag_run`).

use std::sync::Arc;

use crate::model::{DagRun, TaskState};
use crate::scheduler::port::StoreError;
use crate::scheduler::world::{DagIx, Definition, History, Now, Slot, World};

impl World {
    /// Clears all instances of a run, whatever became of them; those of tasks that its DAG has no longer are removed.
    ///
    /// # Errors
    /// The database could not be asked; nothing has changed.
    pub(in crate::scheduler) fn reset_run(
        &mut self,
        dag: DagIx,
        row: DagRun,
        definition: &Arc<Definition>,
        now: Now,
        history: &mut dyn History,
    ) -> Result<(), StoreError> {
        let known = self.runs_by_key(dag).get(&row.key).copied();
        let run = match known {
            Some(run) => run,
            // It waits for its backfill, and runs in any case.
            None if !row.state.is_finished() => return Ok(()),
            None => self.bring_back(dag, row, history)?,
        };
        // As any clear: what waits for its first try runs in any case, and what is removed stays so.
        let has_been =
            |slot: &Slot| !matches!(self.run(run).entry(*slot).row.state, TaskState::None | TaskState::Removed);
        let slots: Vec<Slot> = self.run(run).slots_in_order().filter(has_been).collect();
        if slots.is_empty() && known.is_none() {
            self.let_go(run);
        }
        self.clear_slots(run, &slots, definition, now);
        Ok(())
    }
}
