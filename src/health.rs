//! The board on which every part says what is wrong with it now; `/health`, `/status` and the log read it.
//!
//! A condition is raised under a fixed name and cleared under the same name when it is over.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Shared; copies are the same board.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Health {
    /// Says that `condition` holds, and what to do about it. Logged when it is new or its reason has changed.
    pub fn raise(&self, condition: &'static str, reason: impl Into<String>) {
        let reason = reason.into();
        let mut board = self.0.lock();
        if board.get(condition) != Some(&reason) {
            log::error!("{condition}: {reason}");
            board.insert(condition, reason);
        }
    }

    /// Says that `condition` is over. Does nothing if it never held.
    pub fn clear(&self, condition: &'static str) {
        if self.0.lock().remove(condition).is_some() {
            log::info!("{condition}: over");
        }
    }

    /// What holds now, as `condition: reason`, in order of the names. Empty: healthy.
    pub fn reasons(&self) -> Vec<String> {
        self.0.lock().iter().map(|(condition, reason)| format!("{condition}: {reason}")).collect()
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
}
