//! A whole run that is done over again because a task asks for it (`reset_dag_run`).

use std::sync::Arc;

use crate::model::DagRun;
use crate::scheduler::port::StoreError;
use crate::scheduler::world::{DagIx, Definition, History, Now, Slot, World};

impl World {
    /// Clears all instances of a run, whatever became of them.
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
        let run = match self.runs_by_key(dag).get(&row.key) {
            Some(&run) => run,
            // It waits for its backfill, and runs in any case.
            None if !row.state.is_finished() => return Ok(()),
            None => self.bring_back(dag, row, history)?,
        };
        let slots: Vec<Slot> = self.run(run).slots_in_order().collect();
        self.clear_slots(run, &slots, definition, now);
        Ok(())
    }
}
