//! Instances that wait without a process: sensors between two looks (SEMANTICS 14).
//!
//! A try that has to wait gives up its slots and becomes `deferred`, or in mode `reschedule` `up_for_reschedule`. What it waits for is
//! in its row, with wall instants, so that after a restart what is left of its clocks goes on. Instants are deadlines of the loop
//! itself. However a wait ends, it ends as a try does, through `settle_end`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::BootInstant;
use crate::model::{Awaited, TaskState, TryKey, Wait};
use crate::scheduler::event::{Outcome, TryEnd, Verdict};
use crate::scheduler::machine::{self, TaskEvent};
use crate::scheduler::sensor::wait_is_over;
use crate::scheduler::timers::Deadline;
use crate::scheduler::world::{Action, Now, RunIx, Slot, TimerKey, World};

/// A limit of a wait is armed by itself when it is as near as that, or twice as far.
const NEAR: Duration = Duration::from_secs(3_600);

/// Whether an instance in this state has nothing at work on it and goes on by itself.
pub(super) const fn is_waiting(state: TaskState) -> bool {
    matches!(state, TaskState::Deferred | TaskState::UpForReschedule)
}

/// What ends a wait that nothing has ended before, and after how long since an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// The sensor's `timeout`.
    Patience,
    /// The `execution_timeout` of its try.
    Try,
}

/// The limit that comes first, with the instant from which it counts; `started_at` is when the try began.
fn first_limit(wait: &Wait, started_at: Timestamp) -> Option<(Limit, Timestamp, Duration)> {
    let patience = wait.timeout.map(|timeout| (Limit::Patience, wait.since, timeout));
    let of_try = wait.execution_timeout.map(|timeout| (Limit::Try, started_at, timeout));
    [patience, of_try].into_iter().flatten().min_by_key(|(_, from, length)| from.saturating_add(*length).ok())
}

/// As [`first_limit`], if it ends the wait before what is awaited comes.
fn limit_before(wait: &Wait, started_at: Timestamp) -> Option<(Timestamp, Duration)> {
    let (_, from, length) = first_limit(wait, started_at)?;
    let comes = match wait.awaited {
        Awaited::Instant(at) => Some(at),
        Awaited::Look { from, after } | Awaited::Service { from, after } => {
            Some(from.saturating_add(after).unwrap_or(Timestamp::MAX))
        }
        Awaited::File { .. } | Awaited::Run(_) | Awaited::Tasks(_) => None,
    };
    let is_first = comes.is_none_or(|at| from.saturating_add(length).is_ok_and(|end| end < at));
    is_first.then_some((from, length))
}

/// When a look is made that is due at `at`, `after` the one before: not earlier, and with others that are due within a tenth of a second.
/// A turn of the loop and the wake-ups of all who have a part in a look cost more than the look. Of short intervals it is a hundredth.
fn in_company(at: BootInstant, after: Duration) -> BootInstant {
    const TOGETHER: Duration = Duration::from_millis(100);
    let grain = (after / 100).min(TOGETHER).as_nanos().max(1);
    let nanoseconds = at.0.as_nanos().div_ceil(grain) * grain;
    BootInstant(u64::try_from(nanoseconds).map_or(at.0, Duration::from_nanos))
}

/// How long after `from` a look is made that was due `after` it, if nobody looked until `now`: on the beat of its interval, and when the
/// `timeout` is over at the latest.
fn resumed(wait: &Wait, from: Timestamp, after: Duration, now: Timestamp) -> Duration {
    const LONGEST: Duration = Duration::from_secs(60);
    let gone = Duration::try_from(now.duration_since(from)).unwrap_or_default();
    let beat = wait.pace.poke_interval.min(LONGEST).as_nanos().max(1);
    let beats = gone.saturating_sub(after).as_nanos().div_ceil(beat);
    let next = u64::try_from(beats * beat).map_or(Duration::MAX, Duration::from_nanos).saturating_add(after);
    let end = wait.timeout.and_then(|timeout| wait.since.saturating_add(timeout).ok()).unwrap_or(Timestamp::MAX);
    next.min(Duration::try_from(end.duration_since(from)).unwrap_or_default().max(after))
}

impl World {
    /// Arms what ends the wait of an instance.
    pub(super) fn arm_wait(&mut self, run: RunIx, slot: Slot, now: Now) {
        let row = &self.run(run).entry(slot).row;
        let Some(wait) = row.deferral.clone() else { return };
        let comes = match wait.awaited {
            Awaited::Instant(at) => Some(Deadline::Wall(at)),
            Awaited::Look { from, after } => Some(Deadline::Boot(now.boot_after(from, after))),
            Awaited::Service { from, after } => Some(Deadline::Boot(in_company(now.boot_after(from, after), after))),
            Awaited::File { .. } => {
                let key = row.try_key();
                if self.watched.insert(key, (run, slot)).is_none() {
                    self.actions.push(Action::Watch(key, wait.clone()));
                }
                None
            }
            Awaited::Run(_) | Awaited::Tasks(_) => {
                self.look_across(run, slot);
                None
            }
        };
        if let Some(deadline) = comes {
            self.arm(TimerKey::Wait(run, slot), deadline);
        }
        self.arm_limit(run, slot, now);
    }

    /// Arms what ends a wait that takes too long. That lies far ahead mostly, and thousands may wait: a limit that is not near is looked
    /// at again with the others of its run.
    fn arm_limit(&mut self, run: RunIx, slot: Slot, now: Now) {
        let row = &self.run(run).entry(slot).row;
        let limit = row.deferral.as_deref().and_then(|wait| limit_before(wait, row.start_date.unwrap_or(now.wall)));
        let Some((from, length)) = limit else { return };
        let at = now.boot_after(from, length);
        if at <= now.boot.after(2 * NEAR) {
            self.arm(TimerKey::WaitLimit(run, slot), Deadline::Boot(at));
        } else if self.timers.get(&TimerKey::FarLimits(run)).is_none() {
            self.arm(TimerKey::FarLimits(run), Deadline::Boot(now.boot.after(NEAR)));
        }
    }

    /// Some limits of a run may be near by now.
    pub(super) fn arm_limits(&mut self, run: RunIx, now: Now) {
        for slot in self.run(run).slots_in_order() {
            let row = &self.run(run).entry(slot).row;
            // A look that is under way has a limit of its own.
            let is_looking = row.deferral.as_ref().is_some_and(|wait| matches!(wait.awaited, Awaited::Service { .. }))
                && self.watched.contains_key(&row.try_key());
            if is_waiting(row.state) && !is_looking {
                self.arm_limit(run, slot, now);
            }
        }
    }

    /// Arms what ends the wait of an instance that has waited before the start. A service that was asked while nobody ran is not asked by
    /// all at once: each goes on with its beat, and looks within a minute.
    pub(super) fn resume_wait(&mut self, run: RunIx, slot: Slot, now: Now) {
        let wait = self.run(run).entry(slot).row.deferral.clone();
        if let Some(wait) = wait.as_deref()
            && let Awaited::Service { from, after } = wait.awaited
        {
            let awaited = Awaited::Service { from, after: resumed(wait, from, after, now.wall) };
            return self.wait_on(run, slot, Wait { awaited, ..wait.clone() }, now);
        }
        self.arm_wait(run, slot, now);
    }

    /// The instance waits no longer.
    pub(super) fn end_wait(&mut self, run: RunIx, slot: Slot) {
        let key = self.run(run).entry(slot).row.try_key();
        if self.watched.remove(&key).is_some() {
            self.actions.push(Action::Forget(key));
        }
        if self.run(run).has_deadlines {
            self.timers.cancel(&TimerKey::Wait(run, slot));
            self.timers.cancel(&TimerKey::WaitLimit(run, slot));
        }
    }

    /// What the instance waits for has come by itself.
    pub(super) fn meet_wait(&mut self, run: RunIx, slot: Slot, now: Now) {
        let row = &self.run(run).entry(slot).row;
        match row.deferral.as_ref().map(|wait| &wait.awaited) {
            Some(Awaited::Instant(_)) => self.conclude_wait(run, slot, Outcome::Exited(0), now),
            Some(Awaited::Look { .. }) => self.send_to_look(run, slot),
            Some(Awaited::Service { .. }) => self.ask_service(run, slot, now),
            // These no timer ends.
            Some(Awaited::File { .. } | Awaited::Run(_) | Awaited::Tasks(_)) | None => {}
        }
    }

    /// The triggerer has found something. Of an instance that waits no longer it is old news.
    pub(super) fn apply_fired(&mut self, key: TryKey, verdict: Verdict, now: Now) {
        let Some((run, slot)) = self.watched.remove(&key) else { return };
        let mut end = TryEnd::new(key, Outcome::Exited(0), now.wall);
        match verdict {
            Verdict::There(value) => {
                let count = value.as_array().map_or(1, |list| list.len() as u32);
                end.lengths = self.lengths_awaited(run, slot).into_iter().map(|name| (name, count)).collect();
                end.xcoms.push(("return_value".to_owned(), value));
            }
            Verdict::Failed { reason } => end.outcome = Outcome::Faulted { reason },
        }
        self.settle_end(run, slot, end, now);
    }

    /// A look is due that takes no worker.
    fn ask_service(&mut self, run: RunIx, slot: Slot, now: Now) {
        let this = self.run(run);
        let entry = this.entry(slot);
        let Some(wait) = entry.row.deferral.clone() else { return };
        let Some((task, definition)) = entry.task.zip(this.definition.clone()) else {
            // Nobody knows what to ask until its file is back.
            let from = now.wall;
            let awaited = Awaited::Service { from, after: wait.pace.poke_interval };
            return self.wait_on(run, slot, Wait { awaited, ..(*wait).clone() }, now);
        };
        if !definition.dag.task(task).asks_service() {
            // It is another sensor by now, or none.
            return self.send_to_look(run, slot);
        }
        let key = entry.row.try_key();
        let began_at = entry.row.start_date.unwrap_or(now.wall);
        if self.watched.insert(key, (run, slot)).is_some() {
            return;
        }
        // The last look may outlast the sensor's timeout, but not what its try may take.
        if let Some(length) = wait.execution_timeout {
            self.arm(TimerKey::WaitLimit(run, slot), Deadline::Boot(now.boot_after(began_at, length)));
        }
        let work = self.work(run, slot, &definition, task);
        self.actions.push(Action::Look(Box::new(work)));
    }

    /// A look has been made. Of an instance that waits no longer it is old news.
    pub(super) fn apply_looked(&mut self, end: TryEnd, now: Now) {
        let Some((run, slot)) = self.watched.remove(&end.key) else { return };
        self.timers.cancel(&TimerKey::WaitLimit(run, slot));
        match end.outcome {
            Outcome::Deferred(wait) => self.wait_on(run, slot, *wait, now),
            _ => self.settle_end(run, slot, end, now),
        }
    }

    /// It goes on waiting, and its row does not tell that it was looked for.
    fn wait_on(&mut self, run: RunIx, slot: Slot, wait: Wait, now: Now) {
        self.run_quiet(run).instances[slot.0 as usize].row.deferral = Some(Arc::new(wait));
        self.arm_wait(run, slot, now);
    }

    /// A worker is to look again, in the same try.
    fn send_to_look(&mut self, run: RunIx, slot: Slot) {
        if let Ok(scheduled) = machine::next_task(self.run(run).entry(slot).row.state, TaskEvent::Resume) {
            self.set_task_state(run, slot, scheduled);
            self.enter_ready_queue(run, slot);
            return;
        }
        // Of mode `reschedule` the dependencies are looked at again, as Airflow does.
        self.end_retry_wait(run, slot);
    }

    /// It has waited for as long as it may.
    pub(super) fn time_out_wait(&mut self, run: RunIx, slot: Slot, now: Now) {
        let row = &self.run(run).entry(slot).row;
        let Some(wait) = row.deferral.clone() else { return };
        let Some((limit, ..)) = first_limit(&wait, row.start_date.unwrap_or(now.wall)) else { return };
        self.conclude_wait(run, slot, given_up(&wait, limit), now);
    }

    pub(super) fn conclude_wait(&mut self, run: RunIx, slot: Slot, outcome: Outcome, now: Now) {
        let key: TryKey = self.run(run).entry(slot).row.try_key();
        if is_waiting(self.run(run).entry(slot).row.state) {
            self.settle_end(run, slot, TryEnd::new(key, outcome, now.wall), now);
        }
    }
}

/// The end of a wait that took too long (SEMANTICS 14: after the sensor's own timeout there is no other try).
fn given_up(wait: &Wait, limit: Limit) -> Outcome {
    match (limit, wait.soft_fail) {
        (Limit::Patience, _) => wait_is_over(wait, &format!("it still {}", wait.words())),
        (Limit::Try, true) => Outcome::Skipped { reason: "timed_out".to_owned() },
        (Limit::Try, false) => Outcome::TimedOut,
    }
}
