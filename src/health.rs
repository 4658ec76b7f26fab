//! The board on which every part says what is wrong with it now; `/health`, `/status` and the log read it.
//!
//! A condition is raised under a fixed name and cleared under the same name when it is over, or lapses if it was raised for a
//! while only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Shared; copies are the same board.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Condition>>>);

#[derive(Debug)]
struct Condition {
    reason: String,
    /// When it lapses; None: it holds until it is cleared.
    until: Option<Instant>,
}

impl Condition {
    fn holds(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

impl Health {
    /// Says that `condition` holds, and what to do about it. Logged when it is new or its reason has changed.
    pub fn raise(&self, condition: &'static str, reason: impl Into<String>) {
        self.set(condition, Condition { reason: reason.into(), until: None });
    }

    /// As [`raise`](Self::raise), for what shows itself in attempts alone: it lapses unless an attempt raises it again in time,
    /// since what was attempted may have been given up.
    pub fn raise_for(&self, condition: &'static str, reason: impl Into<String>, span: Duration) {
        let until = Instant::now().checked_add(span);
        self.set(condition, Condition { reason: reason.into(), until });
    }

    fn set(&self, condition: &'static str, new: Condition) {
        let mut board = self.0.lock();
        if board.get(condition).is_none_or(|old| old.reason != new.reason || !old.holds()) {
            log::error!("{condition}: {}", new.reason);
        }
        board.insert(condition, new);
    }

    /// Says that `condition` is over. Does nothing if it never held.
    pub fn clear(&self, condition: &'static str) {
        if self.0.lock().remove(condition).is_some() {
            log::info!("{condition}: over");
        }
    }

    /// What holds now, as `condition: reason`, in order of the names. Empty: healthy.
    pub fn reasons(&self) -> Vec<String> {
        let board = self.0.lock();
        let holding = board.iter().filter(|(_, condition)| condition.holds());
        holding.map(|(name, condition)| format!("{name}: {}", condition.reason)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_holds_until_it_is_cleared() {
        let health = Health::default();
        health.raise("database", "disk full");
        health.raise("database", "still full");
        assert_eq!(health.clone().reasons(), ["database: still full"]);
        health.clear("database");
        health.clear("database");
        assert!(health.reasons().is_empty());
    }

    #[test]
    fn a_condition_that_was_raised_for_a_while_lapses_unless_it_is_raised_again() {
        let health = Health::default();
        health.raise_for("tasks", "no memory", Duration::ZERO);
        assert!(health.reasons().is_empty());
        health.raise_for("tasks", "no memory", Duration::from_secs(3_600));
        assert_eq!(health.reasons(), ["tasks: no memory"]);
        health.clear("tasks");
        assert!(health.reasons().is_empty());
    }
}
