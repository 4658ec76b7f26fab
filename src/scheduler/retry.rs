//! Whether a failed try is followed by another one, and when (SEMANTICS 11).
//!
//! Pure arithmetic; the caller knows the task, the clock and what failed.

use std::time::Duration;

use crate::clock::BootInstant;

/// Whether the failed try `try_number` (1 for the first) is followed by another one.
pub const fn is_eligible(max_tries: u32, try_number: u32) -> bool {
    max_tries != 0 && try_number <= max_tries
}

/// When the next try may start. On the clock that counts suspend, so that a step of the wall clock moves it not.
pub fn ready_after(ended: BootInstant, delay: Duration) -> BootInstant {
    ended.after(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_with_two_retries_has_three_tries() {
        assert!(is_eligible(2, 1));
        assert!(is_eligible(2, 2));
        assert!(!is_eligible(2, 3));
    }

    #[test]
    fn a_task_without_retries_has_one_try() {
        assert!(!is_eligible(0, 0));
        assert!(!is_eligible(0, 1));
    }

    #[test]
    fn an_endless_delay_does_not_overflow() {
        let ended = BootInstant(Duration::from_secs(10));
        assert_eq!(ready_after(ended, Duration::from_secs(5)), BootInstant(Duration::from_secs(15)));
        assert_eq!(ready_after(ended, Duration::MAX), BootInstant(Duration::MAX));
    }
}
