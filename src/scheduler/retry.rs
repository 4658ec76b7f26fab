//! Whether a failed try is followed by another one, and when (SEMANTICS 11).
//!
//! Pure arithmetic; the caller knows the task, the clock and what failed. The jitter of a backoff is a hash of the try's identity,
//! so that the same try has the same delay after a restart.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::model::{EndedBy, Exceeded, RetryRule, Task};
use crate::scheduler::event::{Outcome, TryEnd};

/// Beyond it no backoff grows (Airflow: `core.max_task_retry_delay`).
const MAX_BACKOFF: Duration = Duration::from_secs(86_400);

/// Whether the failed try `try_number` (1 for the first) is followed by another one.
pub const fn is_eligible(max_tries: u32, try_number: u32) -> bool {
    max_tries != 0 && try_number <= max_tries
}

/// What a rule of `retry_on` decides for a failed try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// Its place in the list, from 1.
    pub number: usize,
    pub max_tries: u32,
    /// None: the task's own delay.
    pub delay: Option<Duration>,
}

/// The first rule of the task that fits the end of a try. `max_tries` is that of the instance: it exceeds the task's retries by the
/// tries that it had before it was cleared.
pub fn ruling(task: &Task, end: &TryEnd, max_tries: u32) -> Option<Ruling> {
    let at = task.retry_on.iter().position(|rule| fits(rule, end))?;
    let rule = &task.retry_on[at];
    let max_tries =
        rule.retries.map_or(max_tries, |retries| max_tries.saturating_sub(task.retries).saturating_add(retries));
    Some(Ruling { number: at + 1, max_tries, delay: rule.retry_delay })
}

fn fits(rule: &RetryRule, end: &TryEnd) -> bool {
    let ended = match (&rule.ended, &end.outcome) {
        (None, _) => true,
        (Some(EndedBy::ExitCode(codes)), Outcome::Exited(code)) => codes.contains(code),
        (Some(EndedBy::Signal(wanted)), Outcome::Signaled(signal)) => wanted == signal,
        (Some(EndedBy::Timeout), Outcome::TimedOut) => true,
        (Some(ended), Outcome::Exceeded { limit, exit_code, signal }) => match ended {
            EndedBy::ExitCode(codes) => exit_code.is_some_and(|code| codes.contains(&code)),
            EndedBy::Signal(wanted) => *signal == Some(*wanted),
            EndedBy::OutOfMemory => *limit == Exceeded::Memory,
            EndedBy::Timeout => false,
        },
        _ => false,
    };
    ended && rule.output.as_ref().is_none_or(|pattern| end.matched.contains(pattern))
}

/// How a task's delay grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    pub retry_delay: Duration,
    /// Of each delay to the one before; 0 and 1 mean: always `retry_delay`, and so does what is below 0.
    pub multiplier: f64,
    /// Zero is none. It bounds a delay that grows, no other.
    pub max_retry_delay: Option<Duration>,
}

impl Backoff {
    pub fn of(task: &Task) -> Self {
        Self {
            retry_delay: task.retry_delay,
            multiplier: task.retry_exponential_backoff,
            max_retry_delay: task.max_retry_delay,
        }
    }
}

/// What the jitter is made of: the failed try.
#[derive(Clone, Copy, Debug)]
pub struct FailedTry<'a> {
    pub dag_id: &'a str,
    pub task_id: &'a str,
    pub logical_date: Option<Timestamp>,
    pub try_number: u32,
}

impl FailedTry<'_> {
    /// The text that is hashed: Airflow's, so that a task has the same delays here and there.
    fn identity(&self) -> String {
        let date = self.logical_date.map_or_else(|| "None".to_owned(), python_text);
        format!("{}#{}#{date}#{}", self.dag_id, self.task_id, self.try_number)
    }
}

/// How Python prints an instant in UTC; microseconds only where there are some.
pub(super) fn python_text(instant: Timestamp) -> String {
    let utc = instant.to_zoned(TimeZone::UTC);
    let micros = utc.subsec_nanosecond() / 1_000;
    let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    format!("{}{fraction}+00:00", utc.strftime("%Y-%m-%d %H:%M:%S"))
}

/// How long after the end of a failed try the next one may start. `by_rule` is the delay of a rule, which counts alone, even if it
/// is zero.
pub fn delay(backoff: Backoff, failed: FailedTry<'_>, by_rule: Option<Duration>) -> Duration {
    if let Some(delay) = by_rule {
        return delay;
    }
    let Backoff { retry_delay, multiplier, max_retry_delay } = backoff;
    if multiplier == 1.0 || multiplier.is_nan() || multiplier <= 0.0 {
        return retry_delay;
    }
    let grown = grown_seconds(retry_delay, multiplier, failed.try_number)
        .map_or(MAX_BACKOFF, |seconds| Duration::from_secs(seconds + jitter(failed, seconds)).min(MAX_BACKOFF));
    max_retry_delay.filter(|most| !most.is_zero()).map_or(grown, |most| grown.min(most))
}

/// At least one second, and less than [`MAX_BACKOFF`]; None beyond that, and when the power is beyond what a float holds, even if
/// the delay is zero.
fn grown_seconds(retry_delay: Duration, multiplier: f64, try_number: u32) -> Option<u64> {
    let power = multiplier.powf(f64::from(try_number) - 1.0);
    // As Python counts the seconds of a timedelta: one division, one rounding.
    let seconds = (retry_delay.as_micros() as f64 / 1e6 * power).ceil();
    (power.is_finite() && seconds < MAX_BACKOFF.as_secs_f64()).then(|| (seconds as u64).max(1))
}

/// The hash of the try, modulo `below`.
fn jitter(failed: FailedTry<'_>, below: u64) -> u64 {
    let hash = sha1_smol::Sha1::from(failed.identity()).digest().bytes();
    hash.iter().fold(0, |rest, byte| ((rest << 8) | u64::from(*byte)) % below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Operator, TryKey};

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

    fn failed(try_number: u32) -> FailedTry<'static> {
        FailedTry { dag_id: "d", task_id: "t", logical_date: None, try_number }
    }

    #[test]
    fn a_growing_delay_lies_between_the_power_and_twice_the_power_and_never_beyond_its_bounds() {
        let minute = Duration::from_secs(60);
        let backoff = Backoff { retry_delay: minute, multiplier: 2.0, max_retry_delay: None };
        for try_number in 1..=8 {
            let least = minute * 2_u32.pow(try_number - 1);
            let got = delay(backoff, failed(try_number), None);
            assert!(least <= got && got < least * 2, "{try_number}: {got:?}");
            assert_eq!(got, delay(backoff, failed(try_number), None), "the jitter is a hash, not chance");
        }
        assert_eq!(delay(backoff, failed(u32::MAX), None), MAX_BACKOFF);
        let bounded = Backoff { max_retry_delay: Some(minute * 5), ..backoff };
        assert_eq!(delay(bounded, failed(5), None), minute * 5);
        assert_eq!(delay(bounded, failed(5), Some(Duration::ZERO)), Duration::ZERO);
        let level = Backoff { multiplier: 1.0, retry_delay: minute * 9, ..bounded };
        assert_eq!(delay(level, failed(5), None), minute * 9, "what does not grow has no bound");
    }

    #[test]
    fn a_date_is_hashed_as_python_prints_it() {
        let text = |at: &str| python_text(at.parse().unwrap());
        assert_eq!(text("2026-01-02T03:04:05Z"), "2026-01-02 03:04:05+00:00");
        assert_eq!(text("2026-01-02T03:04:05.00012Z"), "2026-01-02 03:04:05.000120+00:00");
        assert_eq!(failed(3).identity(), "d#t#None#3");
    }

    fn end(outcome: Outcome, matched: &[&str]) -> TryEnd {
        let key = TryKey { instance: crate::model::InstanceKey(1), try_number: 1 };
        TryEnd {
            matched: matched.iter().map(|&pattern| pattern.to_owned()).collect(),
            ..TryEnd::new(key, outcome, Timestamp::UNIX_EPOCH)
        }
    }

    #[test]
    fn the_first_rule_whose_conditions_all_hold_decides() {
        let rule = |ended, output: Option<&str>, retries| RetryRule {
            ended,
            output: output.map(str::to_owned),
            retries: Some(retries),
            retry_delay: None,
        };
        let mut task = Task::new("t".into(), Operator::Empty);
        task.retries = 2;
        task.retry_on = vec![
            rule(Some(EndedBy::ExitCode(vec![1, 7])), Some("reset"), 10),
            rule(Some(EndedBy::ExitCode(vec![7])), None, 0),
            rule(Some(EndedBy::Signal(11)), None, 1),
            rule(Some(EndedBy::Timeout), None, 4),
            rule(None, Some("busy"), 5),
        ];
        let number = |outcome, matched: &[&str]| ruling(&task, &end(outcome, matched), 2).map(|ruling| ruling.number);
        assert_eq!(number(Outcome::Exited(7), &["reset"]), Some(1));
        assert_eq!(number(Outcome::Exited(7), &[]), Some(2));
        assert_eq!(number(Outcome::Exited(1), &[]), None);
        assert_eq!(number(Outcome::Signaled(11), &["reset"]), Some(3));
        assert_eq!(number(Outcome::Signaled(7), &[]), None);
        assert_eq!(number(Outcome::TimedOut, &[]), Some(4));
        assert_eq!(number(Outcome::Exited(1), &["busy"]), Some(5));
        assert_eq!(number(Outcome::Lost, &[]), None);
        assert_eq!(number(Outcome::Killed { reason: "stopped".to_owned() }, &[]), None);
    }

    #[test]
    fn a_rule_counts_its_tries_from_the_last_clear_as_the_task_does() {
        let mut task = Task::new("t".into(), Operator::Empty);
        task.retries = 2;
        let ended = Some(EndedBy::ExitCode(vec![7]));
        task.retry_on = vec![RetryRule { ended, output: None, retries: Some(0), retry_delay: None }];
        let max_tries = |task: &Task, of_instance| {
            ruling(task, &end(Outcome::Exited(7), &[]), of_instance).map(|ruling| ruling.max_tries)
        };
        assert_eq!((max_tries(&task, 2), max_tries(&task, 5)), (Some(0), Some(3)));
        task.retry_on[0].retries = None;
        assert_eq!(max_tries(&task, 5), Some(5));
    }
}
