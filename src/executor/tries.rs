//! Tries between the turn that prepares them and their ends: who has them, and whether they are to be ended.
//!
//! Knows no template and no file. Its lock is held for moments only: the loop, the workers and the supervisor's reader meet there.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::executor::gate::Gate;
use crate::executor::worker::Begun;
use crate::executor::{Job, Shared, Told};
use crate::model::{ProcessIdentity, TryKey};
use crate::scheduler::port::{Kill, Work};
use crate::supervisor::Supervise;
use crate::supervisor::adopter::AdoptedLine;
use crate::supervisor::protocol::Start;

/// A try between `prepare` and its end.
#[derive(Default)]
pub(super) struct Slot {
    /// Opened when it is started.
    pub(super) gate: Arc<Gate>,
    /// That it is to be ended.
    kill: Option<Kill>,
    /// All that it needs to start.
    ready: Option<(Box<Begun>, Start)>,
    pub(super) handed: Option<Handed>,
}

impl Slot {
    #[cfg(test)]
    pub(super) fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    fn killed(&self) -> Option<Told> {
        self.kill.as_ref().map(|kill| Told::Killed { reason: kill.reason.clone() })
    }
}

/// The supervisor has it, or is being given it.
pub(super) struct Handed {
    pub(super) begun: Box<Begun>,
    /// The request is on the line: a kill may follow it.
    is_sent: bool,
    pub(super) process: Option<ProcessIdentity>,
    /// The earlier supervisor that has it; None: the own one.
    pub(super) line: Option<Arc<AdoptedLine>>,
}

impl Handed {
    fn new(begun: Box<Begun>) -> Self {
        Self { begun, is_sent: false, process: None, line: None }
    }
}

impl Shared {
    /// Why it is to be ended, if it is.
    pub(super) fn killed(&self, key: TryKey) -> Option<String> {
        Some(self.tries.lock().get(&key)?.kill.as_ref()?.reason.clone())
    }

    /// See [`prepare`](crate::scheduler::port::Executor::prepare).
    pub(super) fn prepare(&self, work: Work) {
        let slot = Slot::default();
        let gate = slot.gate.clone();
        self.tries.lock().insert(work.key, slot);
        self.crew.give(Job::Run(Box::new(work), gate));
    }

    /// See [`start`](crate::scheduler::port::Executor::start).
    pub(super) fn start(&self, keys: &[TryKey]) {
        let mut tries = self.tries.lock();
        let (mut starts, mut refused) = (Vec::with_capacity(keys.len()), Vec::new());
        for key in keys {
            // One that needs no process may be over.
            let Some(slot) = tries.get_mut(key) else { continue };
            slot.gate.open();
            let Some((begun, start)) = slot.ready.take() else { continue };
            match slot.killed() {
                Some(told) => refused.push((begun, told)),
                None => {
                    slot.handed = Some(Handed::new(begun));
                    starts.push(start);
                }
            }
        }
        let supervisor = self.supervisor.lock().clone();
        drop(tries);
        if !starts.is_empty() {
            refused.extend(self.send(supervisor, starts));
        }
        for (begun, told) in refused {
            self.crew.give(Job::Conclude(begun, told));
        }
    }

    /// Takes what was prepared, and gives it to the supervisor once it is started: now, or by [`start`](crate::scheduler::port::Executor::start).
    pub(super) fn hand_over(&self, begun: Box<Begun>, start: Start) -> Result<(), (Box<Begun>, Told)> {
        let mut tries = self.tries.lock();
        let slot = tries.entry(start.key).or_default();
        if let Some(told) = slot.killed() {
            return Err((begun, told));
        }
        if !slot.gate.is_open() {
            slot.ready = Some((begun, start));
            return Ok(());
        }
        slot.handed = Some(Handed::new(begun));
        let supervisor = self.supervisor.lock().clone();
        drop(tries);
        self.send(supervisor, vec![start]).pop().map_or(Ok(()), Err)
    }

    /// Gives the supervisor tries that are marked as handed; gives back those that it does not take. The lock is not held meanwhile:
    /// whoever waited for it would wait for the kernel. It is the supervisor that there was when they were marked: if it is gone,
    /// [`abandon`](Shared::abandon) has them, or they come back, but another never gets what was abandoned.
    fn send(&self, supervisor: Option<Arc<dyn Supervise>>, starts: Vec<Start>) -> Vec<(Box<Begun>, Told)> {
        let keys: Vec<TryKey> = starts.iter().map(|start| start.key).collect();
        let is_sent = supervisor.as_ref().is_some_and(|supervisor| supervisor.start(starts).is_ok());
        let mut refused = Vec::new();
        let mut tries = self.tries.lock();
        for key in keys {
            // It may be over by now.
            let Some(slot) = tries.get_mut(&key).filter(|slot| slot.handed.is_some()) else { continue };
            if !is_sent {
                refused.extend(slot.handed.take().map(|handed| (handed.begun, Told::without_supervisor())));
                continue;
            }
            slot.handed.iter_mut().for_each(|handed| handed.is_sent = true);
            // It came while the start was on its way.
            if let (Some(kill), Some(supervisor)) = (&slot.kill, &supervisor) {
                supervisor.kill(key, &kill.reason, kill.force);
            }
        }
        refused
    }

    /// Tells the supervisor about a try that it has been given.
    pub(super) fn tell_supervisor(&self, key: TryKey, tell: impl FnOnce(&dyn Supervise)) {
        let tries = self.tries.lock();
        let Some(handed) = tries.get(&key).and_then(|slot| slot.handed.as_ref()) else { return };
        self.tell_owner(handed, tell);
    }

    /// Tells the supervisor that has the try.
    fn tell_owner(&self, handed: &Handed, tell: impl FnOnce(&dyn Supervise)) {
        if let Some(line) = &handed.line {
            tell(&**line);
        } else if let Some(supervisor) = &*self.supervisor.lock() {
            tell(&**supervisor);
        }
    }

    /// Takes in a try that an earlier supervisor has.
    pub(super) fn adopt_try(&self, begun: Box<Begun>, process: Option<ProcessIdentity>, line: Arc<AdoptedLine>) {
        let handed = Handed { is_sent: true, process, line: Some(line), ..Handed::new(begun) };
        let key = handed.begun.key();
        self.tries.lock().insert(key, Slot { handed: Some(handed), ..Slot::default() });
    }

    /// Whether an earlier supervisor has it, as far as is known here.
    pub(super) fn has_adopted(&self, key: TryKey) -> bool {
        self.tries.lock().get(&key).is_some_and(|slot| slot.handed.as_ref().is_some_and(|handed| handed.line.is_some()))
            || self.calls.lock().get(&key).is_some_and(|slot| slot.line.is_some())
    }

    /// The tries that an earlier supervisor has.
    pub(super) fn tries_of(&self, line: &Arc<AdoptedLine>) -> BTreeMap<TryKey, Option<ProcessIdentity>> {
        let tries = self.tries.lock();
        let handed = tries.iter().filter_map(|(&key, slot)| Some((key, slot.handed.as_ref()?)));
        let of_line = handed.filter(|(_, handed)| handed.line.as_ref().is_some_and(|own| Arc::ptr_eq(own, line)));
        of_line.map(|(key, handed)| (key, handed.process.clone())).collect()
    }

    /// Whether the own supervisor has anything.
    pub(super) fn has_handed(&self) -> bool {
        let is_own = |slot: &Slot| slot.handed.as_ref().is_some_and(|handed| handed.line.is_none());
        self.tries.lock().values().any(is_own)
            || self.calls.lock().values().any(|slot| slot.begun.is_some() && slot.line.is_none())
    }

    /// The process of a try is known by now.
    pub(super) fn note_process(&self, key: TryKey, process: &ProcessIdentity) {
        if let Some(handed) = self.tries.lock().get_mut(&key).and_then(|slot| slot.handed.as_mut()) {
            handed.process = Some(process.clone());
        }
    }

    /// See [`kill`](crate::scheduler::port::Executor::kill).
    pub(super) fn kill(&self, key: TryKey, how: Kill) {
        let mut tries = self.tries.lock();
        let Some(slot) = tries.get_mut(&key) else { return };
        if let Some(handed) = slot.handed.as_ref().filter(|handed| handed.is_sent) {
            self.tell_owner(handed, |supervisor| supervisor.kill(key, &how.reason, how.force));
        }
        // The first reason stands, as it does with the supervisor; the last may be more urgent.
        let force = how.force;
        slot.kill.get_or_insert(how).force = force;
    }
}
