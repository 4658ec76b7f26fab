//! Deadlines by key, on both clocks: what is due, and what comes next.
//!
//! Knows no clock and arms nothing: the loop asks with the instants of the turn, and hands [`Timers::next`] to the timer.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::clock::BootInstant;

/// An instant on one of the two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deadline {
    /// On the wall clock: when a run is due.
    Wall(Timestamp),
    /// On the clock that counts suspend: retries, timeouts, graces.
    Boot(BootInstant),
}

/// At most one deadline for each key.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    deadlines: BTreeMap<K, Deadline>,
    wall: BTreeSet<(Timestamp, K)>,
    boot: BTreeSet<(BootInstant, K)>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { deadlines: BTreeMap::new(), wall: BTreeSet::new(), boot: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Sets the deadline of `key`, in place of the one that it had.
    pub fn set(&mut self, key: K, deadline: Deadline) {
        let before = self.deadlines.insert(key.clone(), deadline);
        if before == Some(deadline) {
            return;
        }
        if let Some(before) = before {
            self.unlist(before, key.clone());
        }
        match deadline {
            Deadline::Wall(at) => self.wall.insert((at, key)),
            Deadline::Boot(at) => self.boot.insert((at, key)),
        };
    }

    /// Forgets the deadline of `key`, and says which it was.
    pub fn cancel(&mut self, key: &K) -> Option<Deadline> {
        let deadline = self.deadlines.remove(key)?;
        self.unlist(deadline, key.clone());
        Some(deadline)
    }

    fn unlist(&mut self, deadline: Deadline, key: K) {
        match deadline {
            Deadline::Wall(at) => self.wall.remove(&(at, key)),
            Deadline::Boot(at) => self.boot.remove(&(at, key)),
        };
    }

    pub fn get(&self, key: &K) -> Option<Deadline> {
        self.deadlines.get(key).copied()
    }

    /// Takes what is due at these instants, deadlines equal to them included: first those of the wall clock, then the others,
    /// each in order of (deadline, key).
    pub fn due(&mut self, now: Timestamp, boot: BootInstant) -> Vec<K> {
        let mut due = Vec::new();
        while let Some(first) = self.wall.first().filter(|(at, _)| *at <= now).cloned() {
            self.wall.remove(&first);
            due.push(first.1);
        }
        while let Some(first) = self.boot.first().filter(|(at, _)| *at <= boot).cloned() {
            self.boot.remove(&first);
            due.push(first.1);
        }
        for key in &due {
            self.deadlines.remove(key);
        }
        due
    }

    /// The earliest deadline on each clock.
    pub fn next(&self) -> (Option<Timestamp>, Option<BootInstant>) {
        (self.wall.first().map(|(at, _)| *at), self.boot.first().map(|(at, _)| *at))
    }

    /// The deadlines of the wall clock up to `at`, in order of (deadline, key).
    pub fn on_wall_until(&self, at: Timestamp) -> impl Iterator<Item = &K> {
        self.wall.iter().take_while(move |(deadline, _)| *deadline <= at).map(|(_, key)| key)
    }

    #[cfg(test)]
    pub fn all(&self) -> impl Iterator<Item = (&K, Deadline)> {
        self.deadlines.iter().map(|(key, deadline)| (key, *deadline))
    }

    pub fn len(&self) -> usize {
        self.deadlines.len()
    }

    pub fn is_empty(&self) -> bool {
        self.deadlines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn wall(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn boot(second: u64) -> BootInstant {
        BootInstant(Duration::from_secs(second))
    }

    #[test]
    fn what_is_due_comes_once_in_order_of_deadline_and_key() {
        let mut timers = Timers::default();
        timers.set("c", Deadline::Wall(wall(2)));
        timers.set("b", Deadline::Wall(wall(2)));
        timers.set("a", Deadline::Boot(boot(1)));
        timers.set("d", Deadline::Wall(wall(1)));
        timers.set("e", Deadline::Wall(wall(3)));
        assert!(timers.on_wall_until(wall(2)).eq(&["d", "b", "c"]));
        assert_eq!(timers.due(wall(2), boot(1)), ["d", "b", "c", "a"]);
        assert_eq!(timers.due(wall(2), boot(1)), Vec::<&str>::new());
        assert_eq!(timers.next(), (Some(wall(3)), None));
    }

    #[test]
    fn a_new_deadline_replaces_the_old_one_even_on_the_other_clock() {
        let mut timers = Timers::default();
        timers.set(1, Deadline::Wall(wall(1)));
        timers.set(1, Deadline::Boot(boot(9)));
        assert_eq!(timers.next(), (None, Some(boot(9))));
        assert!(timers.due(wall(100), boot(8)).is_empty());
        assert_eq!(timers.due(wall(100), boot(9)), [1]);
        assert!(timers.is_empty());
    }

    #[test]
    fn a_cancelled_deadline_never_comes() {
        let mut timers = Timers::default();
        timers.set(1, Deadline::Wall(wall(1)));
        assert_eq!(timers.cancel(&1), Some(Deadline::Wall(wall(1))));
        assert_eq!(timers.cancel(&1), None);
        assert_eq!(timers.next(), (None, None));
        assert!(timers.due(wall(5), boot(5)).is_empty());
    }
}
