//! Runs of more instances than a turn reads or clears.
//!
//! One that is over is read piece by piece before it comes into memory. Then it is cleared in pieces, each committed with the place that
//! the act has come to. With the first one it is queued again, and from then to the last it is held: it is not promoted, no pass looks
//! at it, and it neither times out nor is ended by a user, so that nothing runs on what is to be cleared yet. A crash in between leaves
//! a queued run that the act, which the next start takes up, holds as before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::work::Piece;
use super::{Act, Within};
use crate::model::{DagId, Instance, RunId, RunKey, TaskId};
use crate::scheduler::port::StoreError;
use crate::scheduler::timers::Deadline;
use crate::scheduler::world::{Definition, History, Now, RunIx, Slot, TimerKey, World};

/// How soon a run that is held is looked at again whose time is over.
const TIMEOUT_PAUSE: Duration = Duration::from_millis(100);

impl World {
    /// An act is in the midst of it.
    pub(in crate::scheduler) fn is_run_held(&self, run: RunIx) -> bool {
        let row = &self.run(run).row;
        self.acts.holds(row.key) || self.is_name_taken(&row.dag_id, &row.run_id)
    }

    pub(super) fn is_held(&self, dag_id: &DagId, run_id: &RunId) -> bool {
        let run = self.find_dag(dag_id).and_then(|(ix, _)| self.find_live_run(ix, run_id));
        run.is_some_and(|run| self.is_run_held(run))
    }

    /// The run's time is over, and it is held: it times out when it is no longer.
    pub(in crate::scheduler) fn put_off_timeout(&mut self, run: RunIx, now: Now) {
        self.arm(TimerKey::RunTimeout(run), Deadline::Boot(now.boot.after(TIMEOUT_PAUSE)));
    }

    /// Reads on in the instances of a run that is over. All of them, by key, or None: more are left.
    ///
    /// # Errors
    /// The database could not be asked; what was read is read again.
    pub(super) fn read_on(
        &mut self,
        run: RunKey,
        history: &mut dyn History,
    ) -> Result<Option<Vec<Instance>>, StoreError> {
        let mut rows = self.acts.read.remove(&run).unwrap_or_default();
        let limit = self.acts.bounds.read;
        let page = history.instances_behind(run, rows.last().map(|row| (&row.task_id, row.map_index)), limit)?;
        let is_all = page.len() < limit;
        rows.extend(page);
        if is_all {
            rows.sort_unstable_by_key(|row| row.key);
            return Ok(Some(rows));
        }
        self.acts.read.insert(run, rows);
        Ok(None)
    }

    /// The next instances that the act selects, at most `most`.
    pub(super) fn piece(
        &self,
        run: RunIx,
        act: &Act,
        tasks: &BTreeSet<&TaskId>,
        within: Option<Within>,
        most: usize,
    ) -> Piece {
        let instances = &self.run(run).instances;
        let first = within.map_or(0, |within| instances.partition_point(|entry| entry.row.key <= within.after));
        let mut piece = Piece { seen: 0, slots: Vec::new(), after: None };
        for (entry, at) in instances[first..].iter().zip(first as u32..) {
            if piece.slots.len() == most {
                piece.after = piece.slots.last().map(|slot: &Slot| instances[slot.0 as usize].row.key);
                break;
            }
            if act.covers(&entry.row, tasks) {
                piece.seen += 1;
                if act.selects(entry.row.state) {
                    piece.slots.push(Slot(at));
                }
            }
        }
        piece
    }

    /// A further piece of a run that was cleared before. With the last one it is looked at again.
    pub(super) fn clear_rest(
        &mut self,
        run: RunIx,
        slots: &[Slot],
        is_last: bool,
        definition: &Arc<Definition>,
        now: Now,
    ) {
        self.clear_more(run, slots, definition, now);
        if is_last {
            let dag = self.run(run).dag;
            self.active.insert(run);
            self.promotable.insert(dag);
            self.await_next_run(dag, now);
            self.reconsider_past(run, definition);
        }
    }

    /// What users have asked of runs while they were held is carried out.
    pub(super) fn catch_up(&mut self, now: Now, history: &mut dyn History) {
        for (command, reply) in std::mem::take(&mut self.acts.late) {
            let done = self.apply_act_command(command, reply, now, history);
            debug_assert!(done.is_none(), "only acts are late");
        }
    }
}
