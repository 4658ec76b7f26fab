//! Admission in the world: when the host is read, and what a reading changes.

use crate::model::AdmissionRules;
use crate::scheduler::admission::{Admission, Door, FRESH, HostReading};
use crate::scheduler::timers::Deadline;
use crate::scheduler::world::{Action, Now, TimerKey, World};

impl World {
    /// Whether anything may start now. Asks for a reading of the host, if it takes one to know.
    pub(super) fn is_admitted(&mut self, now: Now) -> bool {
        match self.admission.door(now.boot) {
            Door::Open => return true,
            Door::Stale => {
                self.ask_host();
                return true;
            }
            Door::Unknown => self.ask_host(),
            Door::Shut => self.look_at_host_later(now),
        }
        false
    }

    /// Something waits though all slots are taken: the host is read, whether it bears more or too much already.
    pub(super) fn adapt_parallelism(&mut self, now: Now) {
        let is_wanted = self.settings.admission.parallelism.is_some() && self.is_parallelism_wanted();
        if is_wanted && self.timers.get(&TimerKey::Host).is_none() {
            self.look_at_host_later(now);
        }
    }

    /// As many instances are under way as may be, and more wait.
    fn is_parallelism_wanted(&self) -> bool {
        !self.limits.has_free_slot() && !self.ready.is_empty()
    }

    fn look_at_host_later(&mut self, now: Now) {
        match self.admission.next_look(now.boot) {
            Some(at) if at > now.boot => self.arm(TimerKey::Host, Deadline::Boot(at)),
            Some(_) => self.ask_host(),
            None => {}
        }
    }

    pub(super) fn ask_host(&mut self) {
        if self.admission.ask() {
            self.actions.push(Action::AskHost);
        }
    }

    /// Other rules hold from now on. What was chosen of a range goes on from where it is.
    pub(super) fn set_admission(&mut self, parallelism: u32, rules: &AdmissionRules) {
        let (before, now) = (self.settings.admission.parallelism, rules.parallelism);
        let parallelism = match (before, now) {
            (Some(_), Some(range)) => self.limits.parallelism().clamp(range.floor, range.ceiling),
            _ => parallelism,
        };
        self.limits.set_parallelism(parallelism);
        self.limits.set_reserves(rules.memory, rules.millicpus);
        if *rules != self.settings.admission {
            if self.admission.reserve().is_some() {
                self.actions.push(Action::TellReserve(None));
            }
            self.admission = Admission::new(rules.clone());
        }
    }

    pub(super) fn apply_host(&mut self, reading: &HostReading, now: Now) {
        for unread in self.admission.unread(reading) {
            log::warn!("admission: `{unread}` has no effect: this host does not tell");
        }
        let was_used_up = self.admission.reserve().is_some();
        let has_changed = self.admission.read(reading, now.boot);
        let reserve = self.admission.reserve().map(str::to_owned);
        if reserve.is_some() {
            // Also while nothing waits: whoever is told of a full disk is told when it has room again.
            self.arm(TimerKey::Host, Deadline::Boot(now.boot.after(FRESH)));
        }
        if reserve.is_some() || was_used_up {
            self.actions.push(Action::TellReserve(reserve));
        }
        if has_changed {
            match self.admission.shut() {
                [] => log::info!("admission: the host lets tasks start again"),
                reasons => log::warn!("admission: nothing new starts: {}", reasons.join("; ")),
            }
        }
        let before = self.limits.parallelism();
        if let Some((parallelism, why)) = self.admission.parallelism(reading, before, self.is_parallelism_wanted()) {
            log::info!("admission: parallelism {before} -> {parallelism}: {why}");
            self.limits.set_parallelism(parallelism);
        }
    }
}
