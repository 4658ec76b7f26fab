//! How long a sensor waits from one look to the next (SEMANTICS 14).
//!
//! Pure arithmetic, for the workers and the triggerer alike. The jitter of a growing interval is a hash of the sensor's identity and of the
//! number of the look, as Airflow's; which look it is follows from how long it has waited, so that nothing is counted over a restart.

use std::time::Duration;

use jiff::Timestamp;

use crate::keytable::print_duration;
use crate::model::{Pace, SensorMode, Wait};
use crate::scheduler::event::Outcome;
use crate::scheduler::retry::python_text;

/// Beyond it no interval grows, in seconds (Airflow: a second less than the longest `timedelta`).
const LONGEST: u64 = 86_399_999_999_998;

/// A sensor as Airflow's rule for the next interval sees it; lengths in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Beat<'a> {
    pub dag_id: &'a str,
    pub task_id: &'a str,
    /// When its clock began, in the text that is hashed.
    pub started_at: &'a str,
    pub mode: SensorMode,
    pub poke_interval: f64,
    pub is_exponential: bool,
    /// Null and zero bound nothing.
    pub max_wait: Option<f64>,
    pub timeout: f64,
}

impl Beat<'_> {
    /// From look number `poke_count` (from 1), made after `elapsed` seconds, to the next. It may be negative: the timeout is over
    /// (Airflow: `BaseSensorOperator._get_next_poke_interval`). In mode `reschedule` the number follows from `elapsed`.
    pub fn next_interval(&self, elapsed: f64, poke_count: u32) -> f64 {
        if !self.is_exponential {
            return self.poke_interval;
        }
        let number = match self.mode {
            SensorMode::Poke => poke_count,
            SensorMode::Reschedule => self.number_after(elapsed),
        };
        let interval = (self.timeout - elapsed.trunc()).min(self.grown(number) as f64);
        self.max_wait.filter(|most| *most != 0.0).map_or(interval, |most| most.min(interval))
    }

    /// The number of the look that is made after so many seconds, if each has waited for its interval.
    pub fn number_after(&self, elapsed: f64) -> u32 {
        let (mut number, mut gone) = (0, 0.0);
        while gone <= elapsed {
            number += 1;
            gone += self.grown(number) as f64;
        }
        number
    }

    /// The interval after look `number`, with its jitter and without bounds.
    fn grown(&self, number: u32) -> u64 {
        let power = 2_f64.powf(f64::from(number) - 2.0);
        // A float beyond the integers becomes the greatest of them.
        let base = ((self.poke_interval * power) as u64).clamp(1, LONGEST);
        let text = format!("{}#{}#{}#{number}", self.dag_id, self.task_id, self.started_at);
        let hash = sha1_smol::Sha1::from(text).digest().bytes();
        (base + hash.iter().fold(0, |rest, byte| ((rest << 8) | u64::from(*byte)) % base)).min(LONGEST)
    }
}

/// What follows a look in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It looks again so much later; the last time when its timeout is over.
    After(Duration),
    GiveUp,
}

/// What follows a look that was made at `now` in vain.
pub fn after_look(wait: &Wait, dag_id: &str, task_id: &str, now: Timestamp) -> Next {
    let elapsed = Duration::try_from(now.duration_since(wait.since)).unwrap_or_default();
    let left = wait.timeout.map(|timeout| timeout.saturating_sub(elapsed));
    if left.is_some_and(|left| left.is_zero()) {
        return Next::GiveUp;
    }
    let Pace { poke_interval, is_exponential, max_wait } = wait.pace;
    let beat = Beat {
        dag_id,
        task_id,
        started_at: &python_text(wait.since),
        mode: SensorMode::Reschedule,
        poke_interval: poke_interval.as_secs_f64(),
        is_exponential,
        max_wait: max_wait.map(|most| most.as_secs_f64()),
        timeout: wait.timeout.map_or(f64::INFINITY, |timeout| timeout.as_secs_f64()),
    };
    let interval = beat.next_interval(elapsed.as_secs_f64(), 1);
    let interval = Duration::try_from_secs_f64(interval).unwrap_or(Duration::ZERO);
    Next::After(left.map_or(interval, |left| interval.min(left)))
}

/// The end of a sensor that has waited for as long as it may: there is no other try. `state` says how things stand.
pub fn wait_is_over(wait: &Wait, state: &str) -> Outcome {
    let length = print_duration(wait.timeout.unwrap_or_default());
    let reason = format!("the sensor's timeout of {length} is over, and {state}");
    if wait.soft_fail { Outcome::Skipped { reason } } else { Outcome::GivenUp { reason } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Awaited;

    fn wait(pace: Pace, timeout: u64) -> Wait {
        Wait {
            awaited: Awaited::Instant(Timestamp::MAX),
            mode: SensorMode::Poke,
            since: Timestamp::UNIX_EPOCH,
            timeout: Some(Duration::from_secs(timeout)),
            execution_timeout: None,
            soft_fail: false,
            pace,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_last_look_is_made_when_the_timeout_is_over() {
        let pace = Pace { poke_interval: Duration::from_secs(60), is_exponential: false, max_wait: None };
        let next = |second| after_look(&wait(pace, 90), "d", "t", at(second));
        assert_eq!(next(0), Next::After(Duration::from_secs(60)));
        assert_eq!(next(60), Next::After(Duration::from_secs(30)));
        assert_eq!(next(90), Next::GiveUp);
        assert_eq!(after_look(&wait(pace, 0), "d", "t", at(0)), Next::GiveUp, "one look");
        assert_eq!(after_look(&wait(pace, 10), "d", "t", at(0)), Next::After(Duration::from_secs(10)));
    }

    #[test]
    fn intervals_grow_up_to_their_bound_and_the_looks_end_at_the_timeout() {
        let max_wait = Some(Duration::from_secs(300));
        let pace = Pace { poke_interval: Duration::from_secs(10), is_exponential: true, max_wait };
        let wait = wait(pace, 3_600);
        let (mut now, mut before, mut looks) = (Timestamp::UNIX_EPOCH, Duration::ZERO, 0);
        while let Next::After(interval) = after_look(&wait, "d", "t", now) {
            assert!(interval <= Duration::from_secs(300) && !interval.is_zero(), "{interval:?}");
            (now, before, looks) = (now + interval, interval, looks + 1);
        }
        assert_eq!(now, at(3_600));
        assert!((12..40).contains(&looks), "{looks} looks, the last after {before:?}");
    }
}
