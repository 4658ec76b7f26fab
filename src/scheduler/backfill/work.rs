//! A backfill's runs: made of its dates, promoted in their order within its own limit, and its completion.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::model::SkipDecision;
use crate::model::{
    BackfillPlace, DagRun, DateFate, Instance, InstanceKey, NextRun, RunKey, RunType, SkipReason, TaskState,
};
use crate::scheduler::backfill::{Fate, fate_of, run_id};
use crate::scheduler::change::{FateWrite, InstanceWrite, RunLookup, RunWrite};
use crate::scheduler::command::Done;
use crate::scheduler::decide::{TURN_ROWS, iso};
use crate::scheduler::machine::{self, RunEvent, TaskEvent};
use crate::scheduler::port::StoreError;
use crate::scheduler::timers::Deadline;
use crate::scheduler::world::{Action, DagIx, Definition, History, Now, RunIx, TimerKey, World};

impl World {
    /// Looks at dates of new backfills until the turn is full. A DAG whose file is gone is not waited for, one whose file has not
    /// been seen yet is: its definition says how many tries a cleared instance has.
    ///
    /// # Errors
    /// The database could not be asked; the dates wait.
    pub(in crate::scheduler) fn make_backfill_runs(
        &mut self,
        now: Now,
        history: &mut dyn History,
    ) -> Result<(), StoreError> {
        let due: Vec<DagIx> = self.backfills.due.iter().copied().collect();
        let mut asked = Ok(());
        for ix in due {
            let Some(live) = self.backfills.live.get(&ix) else { continue };
            let is_known = self.is_scanned || self.dag(ix).definition.is_some();
            if live.pending.is_empty() || self.stopping.is_some() || !is_known {
                continue;
            }
            if live.is_committed
                && let Err(error) = self.make_runs(ix, now, history)
            {
                asked = Err(error);
                self.backfills.unasked.insert(ix);
                continue;
            }
            // Its runs can be promoted, and the rest of them made, once this turn is committed.
            self.backfills.next.insert(ix);
        }
        asked
    }

    fn make_runs(&mut self, ix: DagIx, now: Now, history: &mut dyn History) -> Result<(), StoreError> {
        let in_flight = self.dates_in_flight(ix);
        let unfinished = &self.dag(ix).runs;
        let just_ended = self.known_runs(ix).filter(|&run| !unfinished.contains(&(self.run(run).row.run_after, run)));
        let just_ended: BTreeSet<Timestamp> = just_ended.filter_map(|run| self.run(run).row.logical_date).collect();
        while self.pending_rows() < TURN_ROWS {
            let Some(live) = self.backfills.live.get_mut(&ix) else { return Ok(()) };
            let Some(&(ordinal, date)) = live.pending.front() else { break };
            if just_ended.contains(&date.logical_date) {
                // Its run has ended in this turn: what it came to is in the database in the next one.
                return Ok(());
            }
            let place = BackfillPlace { backfill: live.row.id, ordinal };
            self.make_run(ix, place, date, in_flight.contains(&date.logical_date), now, history)?;
            if let Some(live) = self.backfills.live.get_mut(&ix) {
                live.pending.pop_front();
            }
        }
        self.conclude_making(ix);
        Ok(())
    }

    /// Logical dates whose runs are in memory: not over, or with a process that still lives.
    fn dates_in_flight(&self, ix: DagIx) -> BTreeSet<Timestamp> {
        let unfinished = self.dag(ix).runs.iter().map(|&(_, run)| run);
        let held = self.held.values().map(|&(run, _)| run).filter(|&run| self.run(run).dag == ix);
        unfinished.chain(held).filter_map(|run| self.run(run).row.logical_date).collect()
    }

    fn make_run(
        &mut self,
        ix: DagIx,
        place: BackfillPlace,
        date: NextRun,
        is_in_flight: bool,
        now: Now,
        history: &mut dyn History,
    ) -> Result<(), StoreError> {
        let reprocess = self.backfills.live[&ix].row.reprocess;
        let dag_id = self.dag(ix).record.dag_id.clone();
        let by_date = RunLookup::ByLogicalDate(date.logical_date);
        let existing = match history.find_run(&dag_id, &by_date) {
            _ if is_in_flight => None,
            Err(error) if history.has_run(&dag_id, &by_date)? => {
                log::error!(
                    "a backfill of `{dag_id}` leaves {} as it is: {error}; {}",
                    iso(date.logical_date),
                    error.help
                );
                self.note_fate(ix, place, DateFate::Skipped(SkipReason::AlreadyExists));
                return Ok(());
            }
            found => found?,
        };
        let fate = if is_in_flight { Fate::Skip(SkipReason::InFlight) } else { fate_of(existing.as_ref(), reprocess) };
        let fate = match (fate, existing) {
            (Fate::Skip(reason), _) => DateFate::Skipped(reason),
            (Fate::Clear, Some(existing)) => {
                let instances = history.instances(existing.key)?;
                DateFate::Run(self.clear_run(ix, place, existing, instances, now))
            }
            (Fate::Create | Fate::Clear, _) => {
                // An earlier schedule may have had another date due at this instant.
                if history.has_run(&dag_id, &RunLookup::ById(run_id(&date)))? {
                    DateFate::Skipped(SkipReason::AlreadyExists)
                } else {
                    DateFate::Run(self.queue_run(ix, place, date, now))
                }
            }
        };
        self.note_fate(ix, place, fate);
        Ok(())
    }

    /// The schedule does not go on from here: dates before these may be left to it, and those that have a run it passes over.
    fn note_fate(&mut self, ix: DagIx, place: BackfillPlace, fate: DateFate) {
        self.changes.backfill.fates.push(FateWrite { place, fate });
        let Some(live) = self.backfills.live.get_mut(&ix) else { return };
        match fate {
            DateFate::Skipped(_) => live.made.skipped += 1,
            DateFate::Run(_) => {
                live.made.runs += 1;
                live.queued += 1;
                live.unseen += 1;
            }
        }
    }

    /// A new run: a row, until it is promoted.
    fn queue_run(&mut self, ix: DagIx, place: BackfillPlace, date: NextRun, now: Now) -> RunKey {
        let key = RunKey(self.new_run_key());
        let conf = self.backfills.live[&ix].row.conf.clone();
        let row = DagRun {
            logical_date: Some(date.logical_date),
            data_interval: Some(date.data_interval),
            queued_at: Some(now.wall),
            // Airflow sets it here already; a promotion sets it again.
            start_date: Some(now.wall),
            conf: conf.unwrap_or_default(),
            backfill: Some(place),
            ..DagRun::new(key, self.dag(ix).record.dag_id.clone(), run_id(&date), RunType::Backfill, date.run_after)
        };
        self.changes.runs.push(RunWrite { run: row, prior: None });
        // Whoever else would make a run of this date does not find it in the database yet.
        self.made_dates.insert((ix, date.logical_date));
        key
    }

    /// All that an existing run did is to be done again: its tries go to history (SEMANTICS 8, clear path).
    fn clear_run(
        &mut self,
        ix: DagIx,
        place: BackfillPlace,
        existing: DagRun,
        instances: Vec<Instance>,
        now: Now,
    ) -> RunKey {
        let definition = self.dag(ix).definition.clone();
        self.acts.forget_read(existing.key);
        for instance in instances {
            self.clear_instance(&existing, instance, definition.as_deref());
        }
        let (key, prior) = (existing.key, existing.state);
        let state = machine::next_run(prior, RunEvent::Clear).expect("only runs that are over are cleared");
        let conf = self.backfills.live[&ix].row.conf.clone();
        let row = DagRun {
            run_type: RunType::Backfill,
            state,
            queued_at: Some(now.wall),
            start_date: None,
            end_date: None,
            reason: None,
            lag: None,
            conf: conf.unwrap_or(existing.conf),
            backfill: Some(place),
            is_released: false,
            clear_number: existing.clear_number + 1,
            key: existing.key,
            dag_id: existing.dag_id,
            run_id: existing.run_id,
            run_after: existing.run_after,
            logical_date: existing.logical_date,
            data_interval: existing.data_interval,
        };
        self.made_dates.extend(row.logical_date.map(|date| (ix, date)));
        self.changes.runs.push(RunWrite { run: row, prior: Some(prior) });
        key
    }

    fn clear_instance(&mut self, run: &DagRun, instance: Instance, definition: Option<&Definition>) {
        let task = definition
            .and_then(|definition| definition.dag.find(&instance.task_id).map(|task| definition.dag.task(task)));
        let prior = instance.state;
        let Ok(state) = machine::next_task(prior, TaskEvent::Clear) else { return };
        if prior == TaskState::Removed && task.is_none() {
            return;
        }
        let max_tries = task.map_or(instance.max_tries.max(instance.try_number), |task| {
            instance.try_number.saturating_add(task.retries)
        });
        let cleared = Instance {
            state,
            max_tries,
            scheduled_at: None,
            queued_at: None,
            start_date: None,
            end_date: None,
            process: None,
            exit_code: None,
            signal: None,
            reason: None,
            usage: None,
            rendered_map_index: None,
            retry_delay_override: None,
            deferral: None,
            ..instance.clone()
        };
        if instance.try_number > 0 && instance.scheduled_at.is_some() {
            self.changes.history.push(instance);
        }
        self.changes.instances.push(InstanceWrite {
            instance: cleared,
            dag_id: run.dag_id.clone(),
            prior: Some(prior),
        });
    }

    /// All dates have been looked at: who asked is told.
    fn conclude_making(&mut self, ix: DagIx) {
        let is_paused = self.dag(ix).record.is_paused;
        let Some(live) = self.backfills.live.get_mut(&ix).filter(|live| live.pending.is_empty()) else { return };
        let done =
            Done::BackfillCreated { id: live.row.id, runs: live.made.runs, skipped: live.made.skipped, is_paused };
        if let Some(creator) = live.creator.take() {
            self.actions.push(Action::Reply(creator, Ok(done)));
        }
    }

    /// Queued runs start running in the order of their dates, as many as each backfill allows; what has nothing left is completed.
    ///
    /// # Errors
    /// The database could not be asked; the runs wait.
    pub(in crate::scheduler) fn advance_backfills(
        &mut self,
        now: Now,
        history: &mut dyn History,
    ) -> Result<bool, StoreError> {
        let mut has_changed = false;
        while let Some(&ix) = self.backfills.due.first() {
            if self.pending_rows() >= TURN_ROWS {
                break;
            }
            has_changed |= self.promote_backfill(ix, now, history)?;
            self.backfills.due.remove(&ix);
            self.complete_if_over(ix, now);
        }
        Ok(has_changed)
    }

    fn promote_backfill(&mut self, ix: DagIx, now: Now, history: &mut dyn History) -> Result<bool, StoreError> {
        let entry = self.dag(ix);
        let may_promote = entry.may_schedule() && self.stopping.is_none();
        let (Some(definition), true) = (entry.definition.clone(), may_promote) else { return Ok(false) };
        let Some(live) = self.backfills.live.get(&ix).filter(|live| !live.row.is_paused) else { return Ok(false) };
        let room = live.row.max_active_runs.saturating_sub(live.running).min(live.queued - live.unseen);
        if room == 0 {
            return Ok(false);
        }
        let queued = history.queued_runs(live.row.id, live.promoted, room as usize)?;
        let mut has_changed = false;
        for row in queued {
            if row.logical_date.is_some_and(|date| self.dag(ix).dates.contains_key(&date)) {
                // A user has taken it out of the line in this turn, of which the database does not know yet.
                self.backfills.next.insert(ix);
                continue;
            }
            if row.run_after > now.wall {
                self.arm(TimerKey::Backfill(ix), Deadline::Wall(row.run_after));
                break;
            }
            if self.is_name_taken(&row.dag_id, &row.run_id) {
                // Until its namesake's folders have gone, which takes moments.
                self.arm(TimerKey::Backfill(ix), Deadline::Boot(now.boot.after(std::time::Duration::from_millis(200))));
                break;
            }
            if self.pending_rows() >= TURN_ROWS {
                self.backfills.next.insert(ix);
                break;
            }
            let instances = history.instances(row.key)?;
            let decisions = history.decisions(row.key)?.into_iter().collect();
            let lengths = history.lengths(row.key)?;
            let run = self.take_up(ix, row, instances, decisions);
            self.load_lengths(run, &lengths);
            self.start_taken_up(ix, run, &definition, now);
            has_changed = true;
        }
        Ok(has_changed)
    }

    /// A queued run comes into memory.
    fn take_up(
        &mut self,
        ix: DagIx,
        row: DagRun,
        rows: Vec<Instance>,
        decisions: BTreeMap<InstanceKey, SkipDecision>,
    ) -> RunIx {
        if let (Some(live), Some(place)) = (self.backfills.live.get_mut(&ix), row.backfill) {
            live.promoted = place.ordinal;
            live.queued -= 1;
        }
        self.load_run(ix, row, rows, decisions)
    }

    fn start_taken_up(&mut self, ix: DagIx, run: RunIx, definition: &Arc<Definition>, now: Now) {
        self.promote_run(ix, run, now);
        self.take_definition(run, definition, now);
        if let (Some(date), true) = (self.run(run).row.logical_date, definition.has_past) {
            self.reconsider_later(ix, date);
        }
    }

    /// Its dates have been looked at, and none of its runs is queued or running.
    fn complete_if_over(&mut self, ix: DagIx, now: Now) {
        let is_over = |live: &super::LiveBackfill| {
            live.is_committed && live.pending.is_empty() && live.queued == 0 && live.running == 0
        };
        if self.backfills.live.get(&ix).is_some_and(is_over) {
            self.complete_backfill(ix, now);
        }
    }

    pub(super) fn complete_backfill(&mut self, ix: DagIx, now: Now) {
        let Some(mut live) = self.backfills.live.remove(&ix) else { return };
        self.backfills.due.remove(&ix);
        self.timers.cancel(&TimerKey::Backfill(ix));
        live.row.completed_at = Some(now.wall);
        let done = Done::BackfillEnded { is_cancelled: live.row.is_cancelled };
        for reply in live.waiting {
            self.actions.push(Action::Reply(reply, Ok(done.clone())));
        }
        self.changes.backfill.backfills.push(live.row);
    }
}
