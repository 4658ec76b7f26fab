//! The board on which every part says what is wrong with it now; `/health`, `/status` and the log read it.
//!
//! A condition is raised under a fixed name and cleared under the same name when it is over, or lapses if it was raised for a
//! while only. What cannot raise any, since raising is logged, is asked when the board is read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Shared; copies are the same board.
#[derive(Clone, Debug, Default)]
pub struct Health {
    board: Arc<Mutex<BTreeMap<&'static str, Condition>>>,
    log: Arc<Mutex<Option<LogProbe>>>,
}

/// Tells what is wrong with minflow's own log now.
pub struct LogProbe(pub Box<dyn Fn() -> Option<String> + Send>);

impl fmt::Debug for LogProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogProbe")
    }
}

/// The name under which the log's faults are shown.
const LOG: &str = "daemon_log";

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

    /// Whether it is to be said again after what holds, or held, under the same name.
    fn is_news(&self, old: Option<&Self>) -> bool {
        old.filter(|old| old.holds()).is_none_or(|old| self.until.is_none() && self.reason != old.reason)
    }
}

impl Health {
    /// Says that `condition` holds, and what to do about it. Logged when it is new or its reason has changed.
    pub fn raise(&self, condition: &'static str, reason: impl Into<String>) {
        self.set(condition, Condition { reason: reason.into(), until: None });
    }

    /// As [`raise`](Self::raise), for what shows itself in attempts alone: it lapses unless an attempt raises it again in time,
    /// since what was attempted may have been given up. Logged when it is new: of a thousand attempts each has a reason of its own.
    pub fn raise_for(&self, condition: &'static str, reason: impl Into<String>, span: Duration) {
        let until = Instant::now().checked_add(span);
        self.set(condition, Condition { reason: reason.into(), until });
    }

    fn set(&self, condition: &'static str, new: Condition) {
        let mut board = self.board.lock();
        if new.is_news(board.get(condition)) {
            log::error!("{condition}: {}", new.reason);
        }
        board.insert(condition, new);
    }

    /// Says that `condition` is over. Does nothing if it never held.
    pub fn clear(&self, condition: &'static str) {
        if self.board.lock().remove(condition).is_some() {
            log::info!("{condition}: over");
        }
    }

    /// Has the log asked whenever the board is read.
    pub fn ask_log(&self, probe: LogProbe) {
        *self.log.lock() = Some(probe);
    }

    /// What holds now, as `condition: reason`, in order of the names. Empty: healthy.
    pub fn reasons(&self) -> Vec<String> {
        let of_log = self.log.lock().as_ref().and_then(|probe| probe.0());
        let board = self.board.lock();
        let holding = board.iter().filter(|(_, condition)| condition.holds());
        let mut reasons: Vec<(&str, &str)> = holding.map(|(name, condition)| (*name, &*condition.reason)).collect();
        reasons.extend(of_log.as_deref().map(|reason| (LOG, reason)));
        reasons.sort_unstable();
        reasons.into_iter().map(|(name, reason)| format!("{name}: {reason}")).collect()
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
    fn the_log_is_asked_when_the_board_is_read() {
        let (health, fault) = (Health::default(), Arc::new(Mutex::new(None)));
        let asked = fault.clone();
        health.ask_log(LogProbe(Box::new(move || asked.lock().clone())));
        health.raise("tasks", "no memory");
        health.raise("database", "disk full");
        assert_eq!(health.reasons(), ["database: disk full", "tasks: no memory"]);
        *fault.lock() = Some("no room".to_owned());
        assert_eq!(health.reasons(), ["daemon_log: no room", "database: disk full", "tasks: no memory"]);
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

    #[test]
    fn what_is_raised_for_a_while_is_said_once_whatever_the_attempts_give_for_reasons() {
        let hour = Instant::now().checked_add(Duration::from_secs(3_600));
        let condition = |reason: &str, until| Condition { reason: reason.to_owned(), until };
        let holds = condition("no room for 1.log", hour);
        assert!(holds.is_news(None) && holds.is_news(Some(&condition("no room for 1.log", Some(Instant::now())))));
        assert!(!condition("no room for 2.log", hour).is_news(Some(&holds)));
        assert!(condition("still full", None).is_news(Some(&condition("full", None))));
        assert!(!condition("full", None).is_news(Some(&condition("full", None))));
    }
}
