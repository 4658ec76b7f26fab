//! Instances that wait without a process: sensors between two looks (SEMANTICS 14).
//!
//! A try that has to wait gives up its slots and becomes `deferred`, or in mode `reschedule` `up_for_reschedule`. What it waits for is
//! in its row, with wall instants, so that after a restart what is left of its clocks goes on. Instants are deadlines of the loop
//! itself. However a wait ends, it ends as a try does, through `settle_end`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::{Awaited, TaskState, TryKey, Wait};
use crate::scheduler::event::{Outcome, TryEnd, Verdict};
use crate::scheduler::machine::{self, TaskEvent};
use crate::scheduler::sensor::wait_is_over;
use crate::scheduler::timers::Deadline;
use crate::scheduler::world::{Action, Now, RunIx, Slot, TimerKey, World};

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

impl World {
    /// Arms what ends the wait of an instance; again after a restart.
    pub(super) fn arm_wait(&mut self, run: RunIx, slot: Slot, now: Now) {
        let row = &self.run(run).entry(slot).row;
        let Some(wait) = row.deferral.clone() else { return };
        let limit = first_limit(&wait, row.start_date.unwrap_or(now.wall));
        let comes = match wait.awaited {
            Awaited::Instant(at) => Some((Deadline::Wall(at), at)),
            Awaited::Look { from, after } | Awaited::Service { from, after } => {
                let at = from.saturating_add(after).unwrap_or(Timestamp::MAX);
                Some((Deadline::Boot(now.boot_after(from, after)), at))
            }
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
        if let Some((deadline, _)) = comes {
            self.arm(TimerKey::Wait(run, slot), deadline);
        }
        // A limit that lies behind what is awaited is none.
        if let Some((_, from, length)) = limit.filter(|(_, from, length)| {
            comes.is_none_or(|(_, at)| from.saturating_add(*length).is_ok_and(|end| end < at))
        }) {
            self.arm(TimerKey::WaitLimit(run, slot), Deadline::Boot(now.boot_after(from, length)));
        }
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
