//! One turn's decisions: which runs are created and promoted, which instances become ready, which of them start (SEMANTICS 2, 5, 7, 9).
//!
//! The passes are Airflow's; they are repeated until nothing changes, since an event loop has no next loop to leave work to.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::Offset;

use crate::model::{DagRun, Hook, RunState, TaskIx, TaskState};
use crate::scheduler::command::Done;
use crate::scheduler::machine::{self, RunEvent, TaskEvent};
use crate::scheduler::pools::Claim;
use crate::scheduler::port::{Force, Kill, StoreError, Work};
use crate::scheduler::progress::{Pass, RunFailure, Verdict};
use crate::scheduler::ready::{Candidate, Choosing, ReadyQueue};
use crate::scheduler::timers::Deadline;
use crate::scheduler::world::{Action, DagIx, Definition, Handle, History, Now, RunIx, Slot, TimerKey, World};

/// About how many rows a turn changes; what is left is the next turn's first event.
pub(super) const TURN_ROWS: usize = 5_000;
/// About how many instances of one run a turn moves, if there are more: who wants another task killed waits for two such turns.
pub(super) const PIECE_ROWS: usize = 1_000;

/// What a turn decides, in this order, until nothing changes (SEMANTICS 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Due runs are created, one for each DAG.
    Create,
    /// Queued runs start running.
    Promote,
    /// One pass over each run that has something to look at.
    Pass,
    /// What is ready starts, as far as there are slots.
    Start,
}

impl Step {
    pub const ALL: [Self; 4] = [Self::Create, Self::Promote, Self::Pass, Self::Start];
}

impl World {
    /// Decides until nothing changes or the turn is full.
    ///
    /// # Errors
    /// The database could not be asked; what depends on it stays due.
    pub fn decide(&mut self, now: Now, history: &mut dyn History) -> Result<(), StoreError> {
        let decided = self.decide_what_is_due(now, history);
        // In the turn that commits the runs, whatever else was put off.
        decided.and(self.date_runs(now, history))
    }

    fn decide_what_is_due(&mut self, now: Now, history: &mut dyn History) -> Result<(), StoreError> {
        let mut asked = self.make_backfill_runs(now, history);
        asked = asked.and(self.advance_acts(now, history));
        if !self.is_scanned {
            return asked;
        }
        self.is_cut = false;
        if std::mem::take(&mut self.is_full) && self.actions.iter().any(|action| matches!(action, Action::Kill(..))) {
            // What is to be ended is not kept waiting for what is left of the turns before.
            self.is_full = true;
            return asked;
        }
        while !self.is_turn_full() {
            let mut has_changed = false;
            self.refresh_due(now);
            match self.meet_across(now, history) {
                Ok(changed) => has_changed |= changed,
                Err(error) => asked = Err(error),
            }
            for step in Step::ALL {
                // What the database is not needed for goes on without it.
                match self.step(step, now, history) {
                    Ok(changed) => has_changed |= changed,
                    Err(error) => asked = Err(error),
                }
            }
            if !has_changed || asked.is_err() || self.is_settled() {
                break;
            }
        }
        // In the turn that commits the failures: after a crash nobody would look at them again.
        asked = asked.and(self.pause_failing(now, history).map(|_| ()));
        asked = asked.and(self.miss_deadlines(now, history));
        self.start_callbacks(now);
        self.is_full = self.is_turn_full();
        asked
    }

    /// After the last step: nothing is noted that another round of steps would look at.
    fn is_settled(&self) -> bool {
        (self.due.is_empty() && self.promotable.is_empty() && self.active.is_empty())
            && (self.failing.is_empty() && !self.backfills.has_due())
            && (!self.assets.has_ripe() && !self.cross_dag.has_more())
    }

    /// No run is under way and nothing is left to decide: only time or an event brings something new.
    pub fn is_idle(&self) -> bool {
        self.free_runs.len() == self.runs.len() && !self.has_more() && self.is_settled()
    }

    /// One step of Airflow's loop, once. True: it has changed something.
    ///
    /// # Errors
    /// The database could not be asked; what depends on it stays due.
    pub fn step(&mut self, step: Step, now: Now, history: &mut dyn History) -> Result<bool, StoreError> {
        match step {
            Step::Create if self.stopping.is_some() => Ok(false),
            Step::Create => Ok(self.pause_failing(now, history)?
                | self.create_asset_runs(now)
                | self.create_due_runs(now, history)?),
            Step::Promote => Ok(self.promote(now) | self.advance_backfills(now, history)?),
            Step::Pass => self.pass_active(now, history),
            Step::Start => self.learn_rest(history).map(|()| self.start_ready(now)),
        }
    }

    /// One pass over every run that has something to look at.
    fn pass_active(&mut self, now: Now, history: &mut dyn History) -> Result<bool, StoreError> {
        let mut has_changed = false;
        let mut asked = Ok(());
        let active = self.active.take();
        for &run in &active {
            if self.is_turn_full() || asked.is_err() {
                self.active.insert(run);
                continue;
            }
            match self.pass_run(run, now, history) {
                Ok(changed) => has_changed |= changed,
                Err(error) => {
                    self.active.insert(run);
                    asked = Err(error);
                }
            }
        }
        self.active.give_back(active);
        asked.map(|()| has_changed)
    }

    fn pass_run(&mut self, run: RunIx, now: Now, history: &mut dyn History) -> Result<bool, StoreError> {
        let this = self.run(run);
        if this.row.state != RunState::Running || !self.dag(this.dag).record.is_active || self.is_run_held(run) {
            return Ok(false);
        }
        if this.definition.is_none() {
            // Nothing is known of its tasks: it waits for a file that holds, and has not succeeded.
            return Ok(false);
        }
        if let Some(ahead) = this.row.logical_date.filter(|&date| date > now.wall && !this.is_examined) {
            // Airflow does not examine a run whose logical date lies ahead. One that is under way goes on, though the clock was set back.
            self.arm(TimerKey::Wake(run), Deadline::Wall(ahead));
            return Ok(false);
        }
        self.run_quiet(run).is_examined = true;
        let room = self.room();
        let Pass { marks, schedulable, asks, growth, is_cut, verdict } =
            self.run_quiet(run).progress.pass_at_most(room);
        let has_changed = !marks.is_empty() || !schedulable.is_empty() || is_cut;
        self.apply_growth(run, growth);
        for (ix, state) in marks {
            self.mark(run, self.run(run).slot_of(ix), state, now);
        }
        if is_cut {
            self.is_cut = true;
            self.active.insert(run);
        }
        let may_schedule = self.dag(self.run(run).dag).may_schedule() && self.stopping.is_none();
        if may_schedule {
            self.learn_needs(run, &schedulable, history)?;
            self.weigh(run, history)?;
            let room = self.room();
            for &ix in schedulable.iter().take(room) {
                self.schedule(run, self.run(run).slot_of(ix), now);
            }
            if schedulable.len() > room {
                self.is_cut = true;
                self.active.insert(run);
            }
        }
        // What left the definition while it ran counts for nothing, but a run is not over while it runs: the next start looks for
        // what lives only in unfinished runs.
        let verdict = if verdict != Verdict::Running && self.has_executing(run) { Verdict::Running } else { verdict };
        match verdict {
            Verdict::Running => {}
            Verdict::Success => self.end_run(run, RunEvent::Succeed, None, now),
            Verdict::Failed(RunFailure::TaskFailure) => self.end_run(run, RunEvent::Fail, Some("task_failure"), now),
            Verdict::Failed(RunFailure::AllTasksDeadlocked) => {
                self.end_run(run, RunEvent::Fail, Some("all_tasks_deadlocked"), now);
            }
        }
        let mut has_changed = has_changed || verdict != Verdict::Running;
        if self.is_live(run) && self.run(run).progress.is_to_grow() {
            // Found while that grew which it waited for: nothing else would have the next pass made.
            self.active.insert(run);
            has_changed = true;
        }
        if may_schedule && self.is_live(run) && !asks.is_empty() && self.answer_past(run, &asks, history)? {
            self.active.insert(run);
            has_changed = true;
        }
        Ok(has_changed)
    }

    /// How many instances a pass may still move in this turn; one at least, so that it gets on.
    fn room(&self) -> usize {
        PIECE_ROWS.saturating_sub(self.pending_rows()).max(1)
    }

    fn has_executing(&self, run: RunIx) -> bool {
        let this = self.run(run);
        let is_awaited = |state: TaskState| state.is_executing() || state == TaskState::Restarting;
        this.held > 0 && this.instances.iter().any(|entry| entry.is_held() && is_awaited(entry.row.state))
    }

    fn is_live(&self, run: RunIx) -> bool {
        self.runs[run.0 as usize].as_ref().is_some_and(|run| run.row.state == RunState::Running)
    }

    /// A pass has decided an instance's state. The progress knows already; a process that still runs is ended, and the row keeps the mark.
    pub(super) fn mark(&mut self, run: RunIx, slot: Slot, state: TaskState, now: Now) {
        self.forget_waits(run, slot);
        self.set_task_state(run, slot, state);
        let entry = self.entry_mut(run, slot);
        entry.row.start_date = entry.row.start_date.or(Some(now.wall));
        entry.row.end_date = Some(now.wall);
        if entry.is_held() {
            let kill = Kill { reason: state.as_str().to_owned(), force: Force::Graceful };
            let key = entry.row.try_key();
            self.actions.push(Action::Kill(key, kill));
        }
    }

    /// The dependencies of an instance are met (SEMANTICS 1: try_number is raised here).
    fn schedule(&mut self, run: RunIx, slot: Slot, now: Now) {
        let (task, definition) = (self.run(run).entry(slot).task, self.run(run).definition.clone());
        let (Some(task), Some(definition)) = (task, definition) else { return };
        let is_again = self.run(run).entry(slot).row.state == TaskState::UpForReschedule;
        // The try of an instance that was cleared is in history already.
        if !is_again && self.run(run).entry(slot).row.scheduled_at.is_some() {
            self.archive_try(run, slot);
        }
        let entry = self.entry_mut(run, slot);
        entry.row.try_number += u32::from(!is_again);
        entry.row.scheduled_at = Some(now.wall);
        // What was removed and is back has an instant of its mark, and has not begun.
        entry.row.start_date = entry.row.start_date.filter(|_| is_again);
        entry.row.version = Some(definition.version);
        let is_empty = definition.dag.task(task).operator.is_idle();
        let event = if is_empty { TaskEvent::SucceedEmpty } else { TaskEvent::Schedule };
        let state = machine::next_task(entry.row.state, event).expect("a pass gives only schedulable instances");
        if is_empty {
            entry.row.start_date = Some(now.wall);
            entry.row.end_date = Some(now.wall);
            self.note_first_start(run, now.wall);
        }
        self.set_task_state(run, slot, state);
        if is_empty {
            self.produce_outlets(run, slot, &[], now);
        } else {
            self.enter_ready_queue(run, slot);
            return;
        }
        for hook in [Hook::OnExecute, Hook::OnSuccess] {
            self.call_for_task(run, slot, hook, now);
        }
    }

    /// The try that ended goes to history, and its columns are cleared for the next.
    pub(super) fn archive_try(&mut self, run: RunIx, slot: Slot) {
        let row = self.entry_mut(run, slot).row.clone();
        self.changes.history.push(row);
        let row = &mut self.entry_mut(run, slot).row;
        row.queued_at = None;
        row.start_date = None;
        row.end_date = None;
        row.process = None;
        row.exit_code = None;
        row.signal = None;
        row.reason = None;
        row.usage = None;
        row.rendered_map_index = None;
        row.retry_delay_override = None;
    }

    /// A scheduled instance waits for a slot from now on. Does nothing while its DAG is paused or gone, or when it waits already.
    pub(super) fn enter_ready_queue(&mut self, run: RunIx, slot: Slot) {
        let this = self.run(run);
        let entry = this.entry(slot);
        let is_held_back = this.has_deadlines && self.timers.get(&TimerKey::Requeue(run, slot)).is_some();
        let waits = entry.row.state == TaskState::Scheduled && entry.handle.is_none() && !entry.is_held();
        let (true, false, Some(task)) = (waits, is_held_back, entry.task) else { return };
        if this.row.state != RunState::Running || !self.dag(this.dag).may_schedule() {
            return;
        }
        let (priority_weight, map_index) = (entry.row.priority_weight, entry.row.map_index);
        let (logical_date, since) = (this.row.logical_date, entry.row.scheduled_at.unwrap_or_default());
        let claim = self.claim_of(run, slot);
        let handle = self.new_handle(run, slot);
        let (dag, order) = (self.run(run).dag.0, task.0);
        self.ready.insert(Candidate { handle, claim, dag, since, priority_weight, logical_date, map_index, order });
        self.run_quiet(run).instances[slot.0 as usize].handle = Some(Handle::new(handle));
    }

    fn new_handle(&mut self, run: RunIx, slot: Slot) -> u32 {
        if let Some(handle) = self.free_handles.pop() {
            self.handles[handle as usize] = (run, slot);
            return handle;
        }
        self.handles.push((run, slot));
        self.handles.len() as u32 - 1
    }

    /// The instance waits for no slot any longer.
    pub(super) fn leave_ready_queue(&mut self, run: RunIx, slot: Slot) {
        if let Some(handle) = self.run_quiet(run).instances[slot.0 as usize].handle.take() {
            self.ready.remove(handle.number());
            self.free_handles.push(handle.number());
        }
    }

    /// Every instance of the run that waits for a slot does so, or none does.
    pub(super) fn refresh_ready_queue(&mut self, run: RunIx) {
        for slot in self.run(run).slots_in_order() {
            self.enter_ready_queue(run, slot);
        }
    }

    /// What waits is chosen from in another way from now on.
    pub(super) fn set_choosing(&mut self, choosing: &Choosing) {
        if *choosing == self.settings.choosing {
            return;
        }
        let runs: Vec<RunIx> =
            (0..self.runs.len() as u32).map(RunIx).filter(|ix| self.runs[ix.index()].is_some()).collect();
        for &run in &runs {
            for slot in self.run(run).slots_in_order() {
                self.leave_ready_queue(run, slot);
            }
        }
        self.ready = ReadyQueue::new(choosing);
        let held = self.runs.iter().flatten().flat_map(|run| run.instances.iter().filter_map(|entry| entry.claim));
        self.limits.count_shares(choosing.fair_share, held);
        runs.into_iter().for_each(|run| self.refresh_ready_queue(run));
    }

    /// Nothing of the DAG's runs starts any more: it is paused, or has no file.
    pub(super) fn withdraw(&mut self, ix: DagIx) {
        self.set_due(ix, None);
        self.timers.cancel(&TimerKey::Due(ix));
        let runs: Vec<RunIx> = self.dag(ix).runs.iter().map(|&(_, run)| run).collect();
        for run in runs {
            for slot in self.run(run).slots_in_order() {
                self.leave_ready_queue(run, slot);
            }
        }
    }

    /// The DAG's runs go on: it is unpaused, or its file is back.
    pub(super) fn resume(&mut self, ix: DagIx, now: Now) {
        let runs: Vec<RunIx> = self.dag(ix).runs.iter().map(|&(_, run)| run).collect();
        for run in runs {
            self.run_quiet(run).progress.mark_all_changed();
            self.active.insert(run);
            self.refresh_ready_queue(run);
        }
        // What was due until now was not late by itself.
        self.dag_quiet(ix).held_back_at = Some(now.wall);
        self.promotable.insert(ix);
    }

    /// The critical section (SEMANTICS 9): what is ready starts, by priority, while slots are free.
    fn start_ready(&mut self, now: Now) -> bool {
        if self.stopping.is_some() || self.ready.is_empty() || !self.is_admitted(now) {
            return false;
        }
        self.ready.set_now(now.wall);
        if let Some(rows) = self.settings.choosing.rows {
            let started = self.ready.pass(&mut self.limits, rows.get());
            for &(handle, claim) in &started {
                self.start(handle, claim, now);
            }
            self.adapt_parallelism(now);
            return !started.is_empty();
        }
        let mut has_started = false;
        while self.pending_rows() < TURN_ROWS {
            let Some((handle, claim)) = self.ready.take(&mut self.limits) else { break };
            self.start(handle, claim, now);
            has_started = true;
        }
        self.adapt_parallelism(now);
        has_started
    }

    /// What has left the ready queue starts; `claim` is held from now on.
    fn start(&mut self, handle: u32, claim: Claim, now: Now) {
        let (run, slot) = self.handles[handle as usize];
        self.free_handles.push(handle);
        self.run_quiet(run).instances[slot.0 as usize].handle = None;
        let this = self.run(run);
        let (task, definition) = (this.entry(slot).task, this.definition.clone());
        let (Some(task), Some(definition)) = (task, definition) else { return };
        let entry = self.entry_mut(run, slot);
        let state =
            machine::next_task(entry.row.state, TaskEvent::Enqueue).expect("only scheduled instances wait for a slot");
        entry.row.queued_at = Some(now.wall);
        // It may have followed another definition since it was scheduled.
        entry.row.version = Some(definition.version);
        let key = entry.row.try_key();
        if key.try_number > 1 {
            self.changes.cleared_xcoms.push(key.instance);
            self.forget_decision(run, slot);
            self.forget_lengths(run, slot);
        }
        self.set_task_state(run, slot, state);
        self.hold(run, slot, claim);
        let work = self.work(run, slot, &definition, task);
        self.actions.push(Action::Start(work));
    }

    /// What the executor has to know of an instance's try.
    pub(super) fn work(&mut self, run: RunIx, slot: Slot, definition: &Definition, task: TaskIx) -> Work {
        let shared_run = self.shared_run(run);
        let this = self.run(run);
        let row = &this.entry(slot).row;
        Work {
            key: row.try_key(),
            dag: definition.dag.clone(),
            file: definition.file.clone(),
            task,
            map_index: row.map_index,
            run: shared_run,
            max_tries: row.max_tries,
            earlier: row.deferral.clone(),
            epoch: this.push_epoch(),
        }
    }

    pub(super) fn shared_run(&mut self, run: RunIx) -> Arc<DagRun> {
        let run = self.run_quiet(run);
        run.shared.get_or_insert_with(|| Arc::new(run.row.clone())).clone()
    }

    /// Ends a run. Instances that are not over keep their states, except that what still runs is ended by the caller's marks.
    pub(super) fn end_run(&mut self, run: RunIx, event: RunEvent, reason: Option<&str>, now: Now) {
        let dag = self.run(run).dag;
        let was_running = self.run(run).row.state == RunState::Running;
        let this = self.run_mut(run);
        let Ok(state) = machine::next_run(this.row.state, event) else { return };
        this.row.state = state;
        this.row.end_date = Some(now.wall);
        this.row.reason = reason.map(str::to_owned);
        let (run_after, logical_date, place) = (this.row.run_after, this.row.logical_date, this.row.counts_with());
        let waiting = std::mem::take(&mut this.waiting);
        let (dag_id, run_id) = (this.row.dag_id.clone(), this.row.run_id.clone());
        self.cross_dag.wake(&dag_id, Some(&run_id));
        for reply in waiting {
            self.actions.push(Action::Reply(reply, Ok(Done::Ended { state: state.to_string() })));
        }
        for slot in self.run(run).slots_in_order() {
            self.leave_ready_queue(run, slot);
        }
        self.cancel_deadlines(run);
        if state == RunState::Success {
            self.prune_deadlines(run);
        }
        if matches!(event, RunEvent::Succeed | RunEvent::Fail) {
            self.call_for_run(run, now);
        }
        self.just_ended.insert((dag, run));
        self.forget_durations(dag);
        if state == RunState::Failed {
            self.failing.insert(dag);
        }
        let entry = self.dag_quiet(dag);
        entry.runs.remove(&(run_after, run));
        entry.run_ids.remove(&run_id);
        if let Some(date) = logical_date {
            entry.past_waiters.remove(&(date, run));
        }
        entry.backfilled -= u32::from(place.is_some());
        if let Some(running) = self.running_of(dag, place).filter(|_| was_running) {
            *running -= 1;
        }
        self.promotable.insert(dag);
        self.await_next_run(dag, now);
    }

    fn cancel_deadlines(&mut self, run: RunIx) {
        if !self.run(run).has_deadlines {
            return;
        }
        for slot in self.run(run).slots_in_order() {
            self.timers.cancel(&TimerKey::Retry(run, slot));
            self.timers.cancel(&TimerKey::Requeue(run, slot));
            self.end_wait(run, slot);
        }
        self.timers.cancel(&TimerKey::RunTimeout(run));
        self.timers.cancel(&TimerKey::Wake(run));
        self.timers.cancel(&TimerKey::FarLimits(run));
    }

    /// The run has taken longer than its dagrun_timeout: it fails, and what is not over is skipped (SEMANTICS 5).
    pub(super) fn time_out_run(&mut self, run: RunIx, now: Now) {
        if !self.is_live(run) {
            return;
        }
        if self.is_run_held(run) {
            self.put_off_timeout(run, now);
            return;
        }
        for slot in self.run(run).slots_in_order() {
            let state = self.run(run).entry(slot).row.state;
            if let Ok(next) = machine::next_task(state, TaskEvent::RunEnded) {
                self.mark(run, slot, next, now);
            }
        }
        self.end_run(run, RunEvent::Fail, Some("timed_out"), now);
    }
}

/// As Airflow writes an instant into a run_id: `2026-11-21T00:00:00+00:00`, with microseconds only if there are any.
pub(super) fn iso(instant: Timestamp) -> String {
    let civil = Offset::UTC.to_datetime(instant);
    let mut text = String::with_capacity(32);
    if civil.year() < 0 {
        text.push('-');
    }
    put_digits(&mut text, civil.year().unsigned_abs().into(), 4);
    for (mark, number) in
        [('-', civil.month()), ('-', civil.day()), ('T', civil.hour()), (':', civil.minute()), (':', civil.second())]
    {
        text.push(mark);
        put_digits(&mut text, number.unsigned_abs().into(), 2);
    }
    let micros = instant.subsec_nanosecond().unsigned_abs() / 1_000;
    if micros != 0 {
        text.push('.');
        put_digits(&mut text, micros, 6);
    }
    text.push_str("+00:00");
    text
}

/// By hand: a formatter takes longer than all else that creates a run.
fn put_digits(text: &mut String, number: u32, digits: u32) {
    for place in (0..digits).rev() {
        text.push(char::from(b'0' + (number / 10_u32.pow(place) % 10) as u8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_in_a_run_id_has_microseconds_only_if_there_are_any() {
        for text in ["2026-11-21T00:00:00", "1970-01-02T03:04:05", "2099-12-31T23:59:59.000007"] {
            assert_eq!(iso(format!("{text}Z").parse().unwrap()), format!("{text}+00:00"));
        }
    }
}
