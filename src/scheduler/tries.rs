//! What becomes of a try: it has started, it has ended, its retry delay is over, it could not be started.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::model::{Hook, Instance, Operator, RunType, SensorMode, TaskState, TryKey};
use crate::scheduler::change::XcomWrite;
use crate::scheduler::command::Stop;
use crate::scheduler::event::{Attempt, Outcome, TryEnd};
use crate::scheduler::machine::{self, TaskEvent};
use crate::scheduler::pools::{Claim, Held};
use crate::scheduler::port::{Force, Kill};
use crate::scheduler::reload::is_unfit;
use crate::scheduler::retry::{self, Backoff, FailedTry, Ruling};
use crate::scheduler::timers::Deadline;
use crate::scheduler::waits::is_waiting;
use crate::scheduler::world::{Action, Definition, Drained, Now, RunIx, Slot, TimerKey, World};

/// How long an instance waits that could not be started for want of processes, memory or descriptors.
const REQUEUE_DELAY: Duration = Duration::from_secs(1);

/// The reason of a kill because minflow stops.
pub(super) const STOPPED: &str = "stopped";

/// What an end means for its instance.
struct Meaning {
    event: TaskEvent,
    exit_code: Option<i32>,
    signal: Option<i32>,
    reason: Option<String>,
}

impl World {
    /// The executor has it from now on; `claim` is held until its end has come.
    pub(super) fn hold(&mut self, run: RunIx, slot: Slot, claim: Claim) {
        let this = self.run_quiet(run);
        this.held += 1;
        let entry = &mut this.instances[slot.0 as usize];
        entry.claim = Some((claim, Held::Queued));
        let key = entry.row.try_key();
        self.held.insert(key, (run, slot));
    }

    /// Its process runs: what it holds counts as running.
    pub(super) fn hold_as_running(&mut self, run: RunIx, slot: Slot) {
        let entry = &mut self.run_quiet(run).instances[slot.0 as usize];
        if let Some((claim, held @ Held::Queued)) = &mut entry.claim {
            *held = Held::Running;
            let claim = *claim;
            self.limits.start(claim);
        }
    }

    /// The executor has no part in it any longer; what it held is free.
    fn release(&mut self, run: RunIx, slot: Slot, key: TryKey) {
        self.held.remove(&key);
        self.forget_pause(key);
        let this = self.run(run);
        if this.row.state.is_finished() {
            // Until this turn is committed the database has not what the end of its process changes.
            self.just_ended.insert((this.dag, run));
        }
        let this = self.run_quiet(run);
        let Some((claim, held)) = this.instances[slot.0 as usize].claim.take_if(|(_, held)| *held != Held::Deferred)
        else {
            return;
        };
        this.held -= 1;
        self.limits.release(claim, held);
    }

    /// The process of a try runs.
    pub(super) fn apply_started(&mut self, attempt: Attempt, now: Now) {
        let Some(&(run, slot)) = self.held.get(&attempt.key) else { return };
        let entry = self.run(run).entry(slot);
        let Ok(state) = machine::next_task(entry.row.state, TaskEvent::Start) else {
            // It was marked in between: its row keeps the mark, and its process is being ended.
            return;
        };
        let is_resumed = is_resumed(&self.run(run).entry(slot).row);
        let entry = self.entry_mut(run, slot);
        let begins_at = Some(attempt.started_at);
        // Of a sensor that looks again the try has begun before.
        entry.row.start_date = entry.row.start_date.filter(|_| entry.row.deferral.is_some()).or(begins_at);
        entry.row.end_date = None;
        entry.row.process = Some(Box::new(attempt.process));
        self.set_task_state(run, slot, state);
        self.hold_as_running(run, slot);
        self.note_first_start(run, attempt.started_at);
        if !is_resumed {
            self.call_for_task(run, slot, Hook::OnExecute, now);
        }
    }

    /// Records how late the run began, at its first start. A backfill's run is for a past date and cannot be late.
    pub(super) fn note_first_start(&mut self, run: RunIx, started_at: jiff::Timestamp) {
        let this = self.run(run);
        if this.row.lag.is_some() || this.row.run_type == RunType::Backfill {
            return;
        }
        // A clock that was set back meanwhile makes no run early.
        let lag = Duration::try_from(started_at.duration_since(this.row.run_after)).unwrap_or_default();
        let is_prompt = this.is_prompt;
        self.run_mut(run).row.lag = Some(lag);
        if is_prompt {
            self.record_lag(lag);
        }
    }

    /// A try is over, or never began.
    pub fn apply_ended(&mut self, end: TryEnd, now: Now) {
        let Some(&(run, slot)) = self.held.get(&end.key) else {
            // A repeated report of an end that is committed already.
            self.actions.push(Action::Acknowledge(end.key));
            return;
        };
        let was_running = self.run(run).entry(slot).row.state == TaskState::Running;
        self.actions.push(Action::Acknowledge(end.key));
        if let (false, Some(started_at)) = (was_running, end.started_at) {
            self.note_first_start(run, started_at);
        }
        self.settle_end(run, slot, end, now);
        // Its end may be what the run waited for, though its task counts no longer.
        self.active.insert(run);
        self.forget_if_over(run);
    }

    pub(super) fn settle_end(&mut self, run: RunIx, slot: Slot, end: TryEnd, now: Now) {
        let meaning = self.meaning_of(run, slot, &end.outcome);
        let ruling = if meaning.event == TaskEvent::Fail { self.ruling_of(run, slot, &end) } else { None };
        let run_is_over = self.run(run).row.state.is_finished();
        let is_dropped = self.is_dropped(run, slot);
        let state = self.run(run).entry(slot).row.state;
        let is_resumed = is_resumed(&self.run(run).entry(slot).row);
        self.release(run, slot, end.key);
        if end.usage.is_some() {
            self.forget_needs(run, slot);
        }
        let row = &mut self.entry_mut(run, slot).row;
        row.exit_code = meaning.exit_code;
        row.signal = meaning.signal;
        row.usage = end.usage.map(Box::new);
        row.rendered_map_index = end.rendered_map_index;
        if state == TaskState::Restarting {
            row.start_date = end.started_at.or(row.start_date);
            row.end_date = Some(end.ended_at);
            row.reason = Some("cleared".to_owned());
            self.end_restart(run, slot, now);
            let is_gone = is_dropped.then(|| machine::next_task(TaskState::None, TaskEvent::Vanish));
            if let Some(Ok(removed)) = is_gone {
                self.set_task_state(run, slot, removed);
                self.replace_unfit(run, slot, now);
            }
            return;
        }
        if !state.is_executing() && !is_waiting(state) {
            // Marked while it ran: the mark stays, the facts of its end are added.
            return;
        }
        // It says what code and signal cannot: why there is another try, or none.
        row.reason = meaning
            .reason
            .or(end.reason)
            .or_else(|| ruling.as_ref().map(|rule| format!("rule {} of retry_on", rule.number)));
        row.start_date = match row.deferral {
            Some(_) => row.start_date.or(end.started_at),
            None => end.started_at.or(row.start_date),
        };
        row.start_date = row.start_date.or(Some(end.ended_at));
        row.end_date = Some(end.ended_at);
        let max_tries = ruling.as_ref().map_or(row.max_tries, |rule| rule.max_tries);
        let is_last = matches!(end.outcome, Outcome::GivenUp { .. }) || (end.is_final && ruling.is_none());
        let can_retry = !is_last && !run_is_over && !is_dropped && retry::is_eligible(max_tries, row.try_number);
        let event = match meaning.event {
            TaskEvent::Fail if can_retry => TaskEvent::Retry,
            TaskEvent::Requeue | TaskEvent::Defer | TaskEvent::Reschedule if run_is_over => TaskEvent::RunEnded,
            other => other,
        };
        if event == TaskEvent::Retry {
            row.retry_delay_override = ruling.and_then(|rule| rule.delay);
        }
        if event == TaskEvent::Requeue {
            let has_begun = is_resumed || state == TaskState::Running || end.started_at.is_some();
            row.start_date = row.start_date.filter(|_| has_begun);
            row.end_date = None;
            row.queued_at = None;
        }
        let requeue_delay = if end.outcome == Outcome::NeverBegun { Duration::ZERO } else { REQUEUE_DELAY };
        match end.outcome {
            Outcome::Deferred(wait) => {
                row.end_date = None;
                row.deferral = Some(Arc::from(wait));
            }
            _ if event == TaskEvent::Retry => {
                // In mode `reschedule` all tries share a clock.
                row.deferral.take_if(|wait| wait.mode == SensorMode::Poke);
            }
            _ => {}
        }
        // An end may overtake the news of its start.
        let from = match (state, event) {
            (TaskState::Queued, TaskEvent::Requeue)
            | (TaskState::Running | TaskState::Deferred | TaskState::UpForReschedule, _) => state,
            _ => machine::next_task(state, TaskEvent::Start).unwrap_or(state),
        };
        let next = machine::next_task(from, event)
            .expect("what executes or waits can succeed, skip, fail or retry; what executes can requeue or wait too");
        let instance = row.key;
        if state == TaskState::Queued && end.started_at.is_some() && !is_resumed {
            self.call_for_task(run, slot, Hook::OnExecute, now);
        }
        if !next.is_finished() {
            self.follow_after_try(run, slot);
        }
        self.set_task_state(run, slot, next);
        let hook = match next {
            TaskState::Success => Some(Hook::OnSuccess),
            TaskState::Failed => Some(Hook::OnFailure),
            TaskState::UpForRetry => Some(Hook::OnRetry),
            TaskState::Skipped if event == TaskEvent::Skip => Some(Hook::OnSkipped),
            _ => None,
        };
        if let Some(hook) = hook {
            self.call_for_task(run, slot, hook, now);
        }
        self.apply_lengths(run, slot, end.lengths);
        if is_dropped && let Ok(removed) = machine::next_task(next, TaskEvent::Vanish) {
            // It could not be started, and is not to be any longer.
            self.set_task_state(run, slot, removed);
        }
        let inline = end.xcoms.into_iter().map(|(key, value)| (key, value, None));
        let large = end.large.into_iter().map(|large| (large.key, Value::Null, Some(large.path)));
        self.push_xcoms(inline.chain(large).map(|(key, value, file)| XcomWrite {
            instance,
            key,
            value,
            file,
            pushed_at: end.ended_at,
        }));
        if next == TaskState::Success {
            self.produce_outlets(run, slot, &end.outlet_events, now);
        }
        if let (TaskState::Success, Some(decision)) = (next, end.decision) {
            self.apply_decision(run, slot, decision, now);
        }
        match self.run(run).entry(slot).row.state {
            TaskState::Failed if !run_is_over => self.fail_fast(run, slot, now),
            TaskState::UpForRetry => self.await_retry(run, slot, now),
            TaskState::Deferred | TaskState::UpForReschedule => self.arm_wait(run, slot, now),
            TaskState::Scheduled => {
                self.arm(TimerKey::Requeue(run, slot), Deadline::Boot(now.boot.after(requeue_delay)))
            }
            TaskState::Removed => self.replace_unfit(run, slot, now),
            _ => {}
        }
    }

    /// A task that has left its DAG has no next try, nor has one of many whose task is mapped no longer; a DAG without a definition may
    /// get it back.
    fn is_dropped(&self, run: RunIx, slot: Slot) -> bool {
        let (this, entry) = (self.run(run), self.run(run).entry(slot));
        let is_fit = |definition: &Definition| entry.task.is_some_and(|task| !is_unfit(entry, task, definition));
        this.definition.as_ref().is_some_and(|definition| !is_fit(definition))
    }

    /// While a try is under way it stays where it queued, whatever its file says meanwhile; the next one follows that.
    fn follow_after_try(&mut self, run: RunIx, slot: Slot) {
        let this = self.run(run);
        if let Some((task, definition)) = this.entry(slot).task.zip(this.definition.clone()) {
            self.follow_in_row(run, slot, task, &definition);
        }
    }

    /// What `retry_on` says about a failed try.
    fn ruling_of(&self, run: RunIx, slot: Slot, end: &TryEnd) -> Option<Ruling> {
        let this = self.run(run);
        let entry = this.entry(slot);
        let (task, definition) = entry.task.zip(this.definition.as_ref())?;
        retry::ruling(definition.dag.task(task), end, entry.row.max_tries)
    }

    fn meaning_of(&self, run: RunIx, slot: Slot, outcome: &Outcome) -> Meaning {
        let this = self.run(run);
        let entry = this.entry(slot);
        let spec = entry.task.zip(this.definition.as_ref()).map(|(task, definition)| definition.dag.task(task));
        let failed = |reason: &str| Meaning {
            event: TaskEvent::Fail,
            exit_code: None,
            signal: None,
            reason: Some(reason.to_owned()),
        };
        let is_sensor = spec.is_some_and(|spec| matches!(spec.operator, Operator::Sensor(_)));
        let again = |reason: &str| Meaning { event: TaskEvent::Requeue, ..failed(reason) };
        match outcome {
            Outcome::Exited(0) => Meaning { event: TaskEvent::Succeed, exit_code: Some(0), signal: None, reason: None },
            Outcome::Exited(code) if spec.is_some_and(|spec| spec.skip_on_exit_code.contains(code)) => {
                Meaning { event: TaskEvent::Skip, exit_code: Some(*code), signal: None, reason: None }
            }
            Outcome::Exited(code) => {
                Meaning { event: TaskEvent::Fail, exit_code: Some(*code), signal: None, reason: None }
            }
            Outcome::Signaled(signal) => {
                Meaning { event: TaskEvent::Fail, exit_code: None, signal: Some(*signal), reason: None }
            }
            Outcome::TimedOut => failed("timed_out"),
            Outcome::Exceeded { limit, exit_code, signal } => {
                Meaning { exit_code: *exit_code, signal: *signal, ..failed(limit.reason()) }
            }
            // A look that was cut off says nothing of what is awaited.
            Outcome::NeverBegun => again("minflow ended before it began"),
            Outcome::Lost if is_sensor => again("lost"),
            Outcome::Killed { reason } if is_sensor && reason == STOPPED => again(STOPPED),
            Outcome::Lost => failed("lost"),
            Outcome::GivenUp { reason } => failed(reason),
            // Its instance was marked meanwhile, and no run is made.
            Outcome::Asks(_) => Meaning { event: TaskEvent::Succeed, exit_code: None, signal: None, reason: None },
            Outcome::Deferred(wait) => {
                let event = match wait.mode {
                    SensorMode::Poke => TaskEvent::Defer,
                    SensorMode::Reschedule => TaskEvent::Reschedule,
                };
                Meaning { event, exit_code: None, signal: None, reason: Some(wait.words()) }
            }
            Outcome::Killed { reason } | Outcome::Faulted { reason } => failed(reason),
            Outcome::Skipped { reason } => {
                Meaning { event: TaskEvent::Skip, exit_code: None, signal: None, reason: Some(reason.clone()) }
            }
            Outcome::Unstarted { reason } => {
                Meaning { event: TaskEvent::Requeue, exit_code: None, signal: None, reason: Some(reason.clone()) }
            }
        }
    }

    /// Wakes when the instance's retry delay, counted from its end, is over.
    pub(super) fn await_retry(&mut self, run: RunIx, slot: Slot, now: Now) {
        let this = self.run(run);
        let entry = this.entry(slot);
        let delay = entry.task.zip(this.definition.as_ref()).map(|(task, definition)| {
            let failed = FailedTry {
                dag_id: &this.row.dag_id,
                task_id: &entry.row.task_id,
                logical_date: this.row.logical_date,
                try_number: entry.row.try_number,
            };
            retry::delay(Backoff::of(definition.dag.task(task)), failed, entry.row.retry_delay_override)
        });
        let ended_at = entry.row.end_date.unwrap_or(now.wall);
        self.arm(TimerKey::Retry(run, slot), Deadline::Boot(now.boot_after(ended_at, delay.unwrap_or_default())));
    }

    /// Takes in the deadlines that have come.
    pub fn apply_deadlines(&mut self, now: Now) {
        for key in self.timers.due(now.wall, now.boot) {
            match key {
                TimerKey::Due(dag) => self.await_next_run(dag, now),
                TimerKey::Wake(run) => {
                    self.promotable.insert(self.run(run).dag);
                    self.run_quiet(run).progress.mark_all_changed();
                    self.active.insert(run);
                }
                TimerKey::RunTimeout(run) => self.time_out_run(run, now),
                TimerKey::Retry(run, slot) => self.end_retry_wait(run, slot),
                TimerKey::Requeue(run, slot) => self.enter_ready_queue(run, slot),
                TimerKey::Wait(run, slot) => self.meet_wait(run, slot, now),
                TimerKey::WaitLimit(run, slot) => self.time_out_wait(run, slot, now),
                TimerKey::FarLimits(run) => self.arm_limits(run, now),
                TimerKey::Drain => {
                    self.end_drain();
                }
                TimerKey::Deadline(key) => self.pass_deadline(key),
                TimerKey::Expect(dag) => self.pass_expectation(dag),
                TimerKey::Callback(key) => self.wake_callback(key),
                TimerKey::Backfill(dag) => self.wake_backfill(dag),
                TimerKey::Host => self.ask_host(),
                TimerKey::Again => {}
            }
        }
    }

    /// What still runs has had its time.
    fn end_drain(&mut self) {
        match self.settings.drained {
            Drained::Kept if self.stopping == Some(Stop::Drain) => self.leave_held(),
            Drained::Kept => {}
            Drained::Ended => {
                let names = self.held_names(20).join(", ");
                log::warn!("the drain_timeout is over; still running, and ended now: {names}");
                self.end_held(Force::Graceful);
            }
        }
    }

    /// What still runs is left to the next start.
    pub(super) fn leave_held(&mut self) {
        self.is_leaving = true;
        if !self.held.is_empty() {
            let names = self.held_names(20).join(", ");
            log::warn!("still running, and left for the next start to take over: {names}");
        }
    }

    pub(super) fn end_retry_wait(&mut self, run: RunIx, slot: Slot) {
        let this = self.run_quiet(run);
        if let Some(ix) = this.instances[slot.0 as usize].ix {
            this.progress.retry_is_over(ix);
            self.active.insert(run);
        }
    }

    /// Ends every process that still runs: minflow stops.
    pub(super) fn end_held(&mut self, force: Force) {
        for &key in self.held.keys() {
            self.actions.push(Action::Kill(key, Kill { reason: STOPPED.to_owned(), force }));
        }
        self.end_callbacks(force);
    }
}

/// Whether the try of an instance that is queued has begun before: it is a sensor's that looks again, or what it asked for could not
/// be answered.
fn is_resumed(row: &Instance) -> bool {
    row.start_date.is_some()
}
