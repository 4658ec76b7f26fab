//! One turn's decisions: which runs are created and promoted, which instances become ready, which of them start (SEMANTICS 2, 5, 7, 9).
//!
//! The passes are Airflow's; they are repeated until nothing changes, since an event loop has no next loop to leave work to.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::Offset;

use crate::model::{DagRun, InstanceKey, Operator, RunId, RunKey, RunState, RunType, TaskState};
use crate::scheduler::change::{NextRun, RunLookup};
use crate::scheduler::command::Done;
use crate::scheduler::machine::{self, RunEvent, TaskEvent};
use crate::scheduler::pools::Claim;
use crate::scheduler::port::{Force, Kill, StoreError, Work};
use crate::scheduler::progress::{InstanceIx, Pass, RunFailure, Verdict};
use crate::scheduler::ready::Candidate;
use crate::scheduler::reload::fresh_row;
use crate::scheduler::timers::Deadline;
use crate::scheduler::world::{
    Action, DagIx, Definition, History, InstanceEntry, Now, Run, RunIx, Slot, TimerKey, World,
};

/// About how many rows a turn changes; what is left is the next turn's first event.
const TURN_ROWS: usize = 5_000;

impl World {
    /// Decides until nothing changes or the turn is full.
    ///
    /// # Errors
    /// The database could not be asked; what depends on it stays due.
    pub fn decide(&mut self, now: Now, history: &mut dyn History) -> Result<(), StoreError> {
        if !self.is_scanned {
            return Ok(());
        }
        let mut asked = Ok(());
        while self.pending_rows() < TURN_ROWS {
            let mut has_changed = false;
            if self.stopping.is_none() && asked.is_ok() {
                asked = self.create_due_runs(now, history).map(|created| has_changed |= created);
            }
            has_changed |= self.promote(now);
            has_changed |= self.pass_active(now);
            has_changed |= self.start_ready(now);
            if !has_changed {
                break;
            }
        }
        self.is_full = self.pending_rows() >= TURN_ROWS;
        asked
    }

    /// One run for each DAG that is due, oldest first (SEMANTICS 7.1).
    fn create_due_runs(&mut self, now: Now, history: &mut dyn History) -> Result<bool, StoreError> {
        if self.due.is_empty() {
            return Ok(false);
        }
        let due: Vec<(Timestamp, DagIx)> = self.due.iter().copied().collect();
        let mut has_created = false;
        for (_, ix) in due {
            if self.pending_rows() >= TURN_ROWS {
                break;
            }
            has_created |= self.create_due_run(ix, now, history)?;
        }
        Ok(has_created)
    }

    fn create_due_run(&mut self, ix: DagIx, now: Now, history: &mut dyn History) -> Result<bool, StoreError> {
        let entry = self.dag(ix);
        let next = entry.record.next_run.filter(|next| next.run_after <= now.wall);
        let (Some(next), Some(definition), true) = (next, entry.definition.clone(), entry.may_schedule()) else {
            self.set_due(ix, None);
            return Ok(false);
        };
        if entry.runs.len() >= entry.record.max_active_runs as usize {
            // It stays planned; the end of a run makes it due again.
            self.set_due(ix, None);
            return Ok(false);
        }
        let dag_id = entry.record.dag_id.clone();
        let has_just_ended = self.ended_dates.contains(&(ix, next.logical_date));
        let is_live = entry.runs.iter().any(|&(_, run)| self.run(run).row.logical_date == Some(next.logical_date));
        let is_taken = is_live
            || has_just_ended
            || history.find_run(&dag_id, &RunLookup::ByLogicalDate(next.logical_date))?.is_some();
        if !is_taken {
            let run_id = RunId::from(format!("{}__{}", RunType::Scheduled, iso(next.run_after)));
            let key = RunKey(self.new_run_key());
            let row = DagRun {
                logical_date: Some(next.logical_date),
                data_interval: Some(next.data_interval),
                queued_at: Some(now.wall),
                ..DagRun::new(key, dag_id, run_id, RunType::Scheduled, next.run_after)
            };
            self.create_run(ix, row, &definition);
        }
        self.advance_schedule(ix, next, now);
        Ok(true)
    }

    /// Puts a new run and its instances into memory, to be written with this turn.
    pub(super) fn create_run(&mut self, dag: DagIx, row: DagRun, definition: &Arc<Definition>) -> RunIx {
        let key = row.key;
        let mut instances = Vec::with_capacity(definition.dag.graph.len());
        for task in definition.dag.graph.indexes() {
            let instance = InstanceKey(self.new_instance_key());
            let row = fresh_row(instance, key, task, definition);
            let ix = Some(InstanceIx(task.0));
            instances.push(InstanceEntry { ix, task: Some(task), ..InstanceEntry::new(row, None) });
        }
        let slots = (0..instances.len() as u32).map(Slot).collect();
        let run = self.insert_run(Run {
            row,
            prior: None,
            dag,
            definition: Some(definition.clone()),
            instances,
            progress: definition.blank.clone(),
            slots,
            held: 0,
            has_started: false,
            is_examined: false,
            waiting: Vec::new(),
            unwritten: 0,
            has_deadlines: false,
            shared: None,
        });
        self.run_mut(run);
        for slot in self.run(run).slots_in_order() {
            self.entry_mut(run, slot);
        }
        self.promotable.insert(dag);
        run
    }

    /// The schedule goes on from the run just created (or found to exist).
    fn advance_schedule(&mut self, ix: DagIx, created: NextRun, now: Now) {
        self.dag_mut(ix).record.last_interval = Some(created.data_interval);
        self.plan_next_run(ix, now);
    }

    /// Computes the DAG's next run, and wakes when it is due (SEMANTICS 6.4, 7.1).
    pub(super) fn plan_next_run(&mut self, ix: DagIx, now: Now) {
        let entry = self.dag(ix);
        let next = match &entry.definition {
            Some(definition) if entry.record.is_active => {
                let dag = &definition.dag;
                let first_seen = entry.record.first_seen_at.unwrap_or(now.wall);
                let earliest = definition.timetable.earliest(dag.earliest(), first_seen, dag.catchup);
                definition.timetable.next_run(entry.record.last_interval, earliest, dag.latest(), dag.catchup, now.wall)
            }
            _ => None,
        };
        if entry.record.next_run != next {
            self.dag_mut(ix).record.next_run = next;
        }
        self.await_next_run(ix, now);
    }

    /// The DAG has a run to create, planned for `at`; None: it has none now.
    fn set_due(&mut self, ix: DagIx, at: Option<Timestamp>) {
        let before = std::mem::replace(&mut self.dag_quiet(ix).due_at, at);
        if before != at {
            if let Some(before) = before {
                self.due.remove(&(before, ix));
            }
            self.due.extend(at.map(|at| (at, ix)));
        }
    }

    /// Due now, or woken when it is.
    pub(super) fn await_next_run(&mut self, ix: DagIx, now: Now) {
        let entry = self.dag(ix);
        let next = entry.record.next_run.filter(|_| entry.may_schedule());
        match next {
            Some(next) if next.run_after <= now.wall => {
                self.timers.cancel(&TimerKey::Due(ix));
                self.set_due(ix, Some(next.run_after));
            }
            Some(next) => {
                self.set_due(ix, None);
                self.arm(TimerKey::Due(ix), Deadline::Wall(next.run_after));
            }
            None => {
                self.set_due(ix, None);
                self.timers.cancel(&TimerKey::Due(ix));
            }
        }
    }

    /// Queued runs start running, oldest run_after first, while their DAG's limit allows (SEMANTICS 7.4).
    fn promote(&mut self, now: Now) -> bool {
        let mut has_changed = false;
        for ix in self.promotable.take() {
            if !self.dag(ix).may_schedule() || self.stopping.is_some() {
                continue;
            }
            let entry = self.dag(ix);
            let is_queued = |&(_, run): &(Timestamp, RunIx)| self.run(run).row.state == RunState::Queued;
            let room = entry.record.max_active_runs.saturating_sub(entry.running) as usize;
            // No more than may run: thousands may be queued by hand.
            let queued: Vec<(Timestamp, RunIx)> = entry.runs.iter().copied().filter(is_queued).take(room).collect();
            for (run_after, run) in queued {
                if run_after > now.wall {
                    self.arm(TimerKey::Wake(run), Deadline::Wall(run_after));
                    break;
                }
                self.promote_run(ix, run, now);
                has_changed = true;
            }
        }
        has_changed
    }

    fn promote_run(&mut self, dag: DagIx, run: RunIx, now: Now) {
        let row = &mut self.run_mut(run).row;
        row.state = machine::next_run(row.state, RunEvent::Promote).expect("only queued runs are promoted");
        row.start_date = Some(now.wall);
        self.dag_quiet(dag).running += 1;
        self.arm_run_timeout(run, now);
        self.active.insert(run);
    }

    /// Wakes when the run's dagrun_timeout has passed since its start.
    pub(super) fn arm_run_timeout(&mut self, run: RunIx, now: Now) {
        let this = self.run(run);
        let timeout = this.definition.as_ref().and_then(|definition| definition.dag.dagrun_timeout);
        let key = TimerKey::RunTimeout(run);
        match (timeout, this.row.start_date) {
            (Some(timeout), Some(started)) if this.row.state == RunState::Running => {
                self.arm(key, Deadline::Boot(now.boot_after(started, timeout)));
            }
            _ if this.has_deadlines => {
                self.timers.cancel(&key);
            }
            _ => {}
        }
    }

    /// One pass over every run that has something to look at.
    fn pass_active(&mut self, now: Now) -> bool {
        let mut has_changed = false;
        for run in self.active.take() {
            if self.pending_rows() >= TURN_ROWS {
                self.active.insert(run);
                continue;
            }
            has_changed |= self.pass_run(run, now);
        }
        has_changed
    }

    fn pass_run(&mut self, run: RunIx, now: Now) -> bool {
        let this = self.run(run);
        if this.row.state != RunState::Running || !self.dag(this.dag).record.is_active {
            return false;
        }
        if this.definition.is_none() {
            // Nothing is known of its tasks: it waits for a file that holds, and has not succeeded.
            return false;
        }
        if let Some(ahead) = this.row.logical_date.filter(|&date| date > now.wall && !this.is_examined) {
            // Airflow does not examine a run whose logical date lies ahead. One that is under way goes on, though the clock was set back.
            self.arm(TimerKey::Wake(run), Deadline::Wall(ahead));
            return false;
        }
        let this = self.run_quiet(run);
        this.is_examined = true;
        let Pass { marks, schedulable, verdict } = this.progress.pass();
        let has_changed = !marks.is_empty() || !schedulable.is_empty();
        for (ix, state) in marks {
            self.mark(run, self.run(run).slot_of(ix), state, now);
        }
        let may_schedule = self.dag(self.run(run).dag).may_schedule() && self.stopping.is_none();
        if may_schedule {
            for ix in schedulable {
                self.schedule(run, self.run(run).slot_of(ix), now);
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
        if has_changed && may_schedule && self.is_live(run) {
            self.active.insert(run);
        }
        has_changed || verdict != Verdict::Running
    }

    fn has_executing(&self, run: RunIx) -> bool {
        let this = self.run(run);
        this.held > 0 && this.instances.iter().any(|entry| entry.held.is_some() && entry.row.state.is_executing())
    }

    fn is_live(&self, run: RunIx) -> bool {
        self.runs[run.0 as usize].as_ref().is_some_and(|run| run.row.state == RunState::Running)
    }

    /// A pass has decided an instance's state. The progress knows already; a process that still runs is ended, and the row keeps the mark.
    fn mark(&mut self, run: RunIx, slot: Slot, state: TaskState, now: Now) {
        self.leave_ready_queue(run, slot);
        self.set_task_state(run, slot, state);
        let entry = self.entry_mut(run, slot);
        entry.row.start_date = entry.row.start_date.or(Some(now.wall));
        entry.row.end_date = Some(now.wall);
        if entry.held.is_some() {
            let kill = Kill { reason: state.as_str().to_owned(), force: Force::Graceful };
            let key = entry.row.try_key();
            self.actions.push(Action::Kill(key, kill));
        }
    }

    /// The dependencies of an instance are met (SEMANTICS 1: try_number is raised here).
    fn schedule(&mut self, run: RunIx, slot: Slot, now: Now) {
        let (task, definition) = (self.run(run).entry(slot).task, self.run(run).definition.clone());
        let (Some(task), Some(definition)) = (task, definition) else { return };
        if self.run(run).entry(slot).row.try_number > 0 {
            self.archive_try(run, slot);
        }
        let entry = self.entry_mut(run, slot);
        entry.row.try_number += 1;
        entry.row.scheduled_at = Some(now.wall);
        entry.row.version = Some(definition.version);
        let is_empty = matches!(definition.dag.task(task).operator, Operator::Empty);
        let event = if is_empty { TaskEvent::SucceedEmpty } else { TaskEvent::Schedule };
        let state = machine::next_task(entry.row.state, event).expect("a pass gives only schedulable instances");
        if is_empty {
            entry.row.start_date = Some(now.wall);
            entry.row.end_date = Some(now.wall);
        }
        self.set_task_state(run, slot, state);
        if !is_empty {
            self.enter_ready_queue(run, slot);
        }
    }

    /// The try that ended goes to history, and its columns are cleared for the next.
    fn archive_try(&mut self, run: RunIx, slot: Slot) {
        let row = self.run(run).entry(slot).row.clone();
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
    }

    /// A scheduled instance waits for a slot from now on. Does nothing while its DAG is paused or gone, or when it waits already.
    pub(super) fn enter_ready_queue(&mut self, run: RunIx, slot: Slot) {
        let this = self.run(run);
        let entry = this.entry(slot);
        let is_held_back = this.has_deadlines && self.timers.get(&TimerKey::Requeue(run, slot)).is_some();
        let waits = entry.row.state == TaskState::Scheduled && entry.handle.is_none() && entry.held.is_none();
        let (true, false, Some(task)) = (waits, is_held_back, entry.task) else { return };
        if this.row.state != RunState::Running || !self.dag(this.dag).may_schedule() {
            return;
        }
        let (pool, pool_slots) = (entry.row.pool.clone(), entry.row.pool_slots);
        let (priority_weight, map_index) = (entry.row.priority_weight, entry.row.map_index);
        let logical_date = this.row.logical_date;
        let claim = Claim { run, pool: self.limits.pools.intern(&pool), pool_slots };
        let handle = self.new_handle(run, slot);
        self.ready.insert(Candidate { handle, claim, priority_weight, logical_date, map_index, order: task.0 });
        self.run_quiet(run).instances[slot.0 as usize].handle = Some(handle);
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
            self.ready.remove(handle);
            self.free_handles.push(handle);
        }
    }

    /// Every instance of the run that waits for a slot does so, or none does.
    pub(super) fn refresh_ready_queue(&mut self, run: RunIx) {
        for slot in self.run(run).slots_in_order() {
            self.enter_ready_queue(run, slot);
        }
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
    pub(super) fn resume(&mut self, ix: DagIx) {
        let runs: Vec<RunIx> = self.dag(ix).runs.iter().map(|&(_, run)| run).collect();
        for run in runs {
            self.run_quiet(run).progress.mark_all_changed();
            self.active.insert(run);
            self.refresh_ready_queue(run);
        }
        self.promotable.insert(ix);
    }

    /// The critical section (SEMANTICS 9): what is ready starts, by priority, while slots are free.
    fn start_ready(&mut self, now: Now) -> bool {
        if self.stopping.is_some() {
            return false;
        }
        let mut has_started = false;
        while self.pending_rows() < TURN_ROWS {
            let Some((handle, claim)) = self.ready.take(&mut self.limits) else { break };
            let (run, slot) = self.handles[handle as usize];
            self.free_handles.push(handle);
            self.run_quiet(run).instances[slot.0 as usize].handle = None;
            self.start(run, slot, claim, now);
            has_started = true;
        }
        has_started
    }

    /// `claim` is held from now on.
    fn start(&mut self, run: RunIx, slot: Slot, claim: Claim, now: Now) {
        let this = self.run(run);
        let (task, definition) = (this.entry(slot).task, this.definition.clone());
        let (Some(task), Some(definition)) = (task, definition) else { return };
        let entry = self.entry_mut(run, slot);
        let state =
            machine::next_task(entry.row.state, TaskEvent::Enqueue).expect("only scheduled instances wait for a slot");
        entry.row.queued_at = Some(now.wall);
        // It may have followed another definition since it was scheduled.
        entry.row.version = Some(definition.version);
        let (key, map_index, max_tries) = (entry.row.try_key(), entry.row.map_index, entry.row.max_tries);
        if key.try_number > 1 {
            self.changes.cleared_xcoms.push(key.instance);
        }
        self.set_task_state(run, slot, state);
        self.hold(run, slot, claim);
        let work = Work {
            key,
            dag: definition.dag.clone(),
            file: definition.file.clone(),
            task,
            map_index,
            run: self.shared_run(run),
            max_tries,
        };
        self.actions.push(Action::Start(work));
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
        let run_after = this.row.run_after;
        let waiting = std::mem::take(&mut this.waiting);
        for reply in waiting {
            self.actions.push(Action::Reply(reply, Ok(Done::Ended { state: state.to_string() })));
        }
        for slot in self.run(run).slots_in_order() {
            self.leave_ready_queue(run, slot);
        }
        self.cancel_deadlines(run);
        self.ended_dates.extend(self.run(run).row.logical_date.map(|date| (dag, date)));
        let entry = self.dag_quiet(dag);
        entry.runs.remove(&(run_after, run));
        entry.running -= u32::from(was_running);
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
        }
        self.timers.cancel(&TimerKey::RunTimeout(run));
        self.timers.cancel(&TimerKey::Wake(run));
    }

    /// The run has taken longer than its dagrun_timeout: it fails, and what is not over is skipped (SEMANTICS 5).
    pub(super) fn time_out_run(&mut self, run: RunIx, now: Now) {
        if !self.is_live(run) {
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
