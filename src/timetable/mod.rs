//! When a DAG's next run is due: Airflow's trigger timetables over cron expressions and fixed periods (SEMANTICS 6).
//!
//! Pure: every instant, the clock's too, is given by the caller. Knows no run, no DAG and no limit.

mod cron;
mod search;

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use cron::Cron;

use crate::model::{Catchup, DataInterval, Every, NextRun, Period, Schedule};

/// A schedule that cannot be understood. `range` is in bytes of its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleError {
    pub message: String,
    /// What may stand there.
    pub help: String,
    pub range: Range<usize>,
}

/// A schedule, ready to be asked.
#[derive(Clone, Debug)]
pub struct Timetable {
    kind: Kind,
    zone: TimeZone,
}

#[derive(Clone, Debug)]
enum Kind {
    Never,
    Once,
    /// Airflow's CronTriggerTimetable with an empty interval.
    Cron {
        cron: Box<Cron>,
        text: String,
    },
    /// Airflow's DeltaTriggerTimetable with an empty interval.
    Every(Duration),
}

/// The part of an hour or a day within which a first run may lie in the past (Airflow: `run_immediately` unset).
const FIRST_RUN_BUFFER: Duration = Duration::from_secs(5 * 60);

impl Timetable {
    /// `zone` is the DAG's: cron fields are its wall clock.
    ///
    /// # Errors
    /// The cron expression or preset is not understood.
    pub fn new(schedule: &Schedule, zone: &TimeZone) -> Result<Self, ScheduleError> {
        let kind = match schedule {
            Schedule::Never => Kind::Never,
            Schedule::Once => Kind::Once,
            Schedule::Cron(crons) => {
                let text = &crons.expressions[0];
                Kind::Cron { cron: Box::new(Cron::parse(text)?), text: text.clone() }
            }
            Schedule::Every(Every { period: Period::Fixed(period), .. }) => Kind::Every(*period),
            Schedule::Every(_) | Schedule::Continuous | Schedule::Events(_) => Kind::Never,
        };
        Ok(Self { kind, zone: zone.clone() })
    }

    /// The run after the one with interval `last` (SEMANTICS 6.4). Null: none is to come, or none is found within 50 years.
    ///
    /// `last` is the interval of the DAG's newest scheduled run by logical date. `earliest` and `latest` are inclusive; what
    /// `earliest` is to be, [`earliest`](Self::earliest) says. Without `catchup`, runs before the newest one that is due at `now` are
    /// left out.
    pub fn next_run(
        &self,
        last: Option<DataInterval>,
        earliest: Option<Timestamp>,
        latest: Option<Timestamp>,
        catchup: Catchup,
        now: Timestamp,
    ) -> Option<NextRun> {
        let catchup = catchup != Catchup::Latest;
        let due = match self.kind {
            Kind::Never => None,
            Kind::Once if last.is_some() => None,
            Kind::Once => Some(earliest.unwrap_or(now)),
            Kind::Cron { .. } | Kind::Every(_) => self.next_tick(last, earliest, catchup, now),
        }?;
        if latest.is_some_and(|latest| latest < due) {
            return None;
        }
        Some(NextRun { logical_date: due, data_interval: self.infer_manual(due), run_after: due })
    }

    /// The lower bound to give to [`next_run`](Self::next_run) for a DAG with this `start_date` that minflow first saw unpaused at
    /// `first_seen`.
    ///
    /// minflow's own rule, not Airflow's: a DAG does not start a run that was due before it was seen, unless `catchup` asks for
    /// that; and `every` without a start_date begins one period after it was seen. `@once` is not bound by it.
    pub fn earliest(
        &self,
        start_date: Option<Timestamp>,
        first_seen: Timestamp,
        catchup: Catchup,
    ) -> Option<Timestamp> {
        let catchup = catchup != Catchup::Latest;
        match (&self.kind, start_date) {
            (Kind::Never | Kind::Once, _) => start_date,
            (_, Some(_)) if catchup => start_date,
            (Kind::Every(period), None) => Some(first_seen.checked_add(*period).unwrap_or(Timestamp::MAX)),
            (_, start_date) => start_date.max(Some(first_seen)),
        }
    }

    /// The interval of a run that somebody starts by hand: empty, at `run_after`.
    pub fn infer_manual(&self, run_after: Timestamp) -> DataInterval {
        DataInterval { start: run_after, end: run_after }
    }

    /// As lists show it: the expression as written, `every 1h30m`, `@once`; null for none.
    pub fn summary(&self) -> Option<String> {
        match &self.kind {
            Kind::Never => None,
            Kind::Once => Some("@once".to_owned()),
            Kind::Cron { text, .. } => Some(text.clone()),
            Kind::Every(period) => Some(format!("every {}", in_words(*period))),
        }
    }

    fn next_tick(
        &self,
        last: Option<DataInterval>,
        earliest: Option<Timestamp>,
        catchup: bool,
        now: Timestamp,
    ) -> Option<Timestamp> {
        if catchup {
            return match (last, earliest) {
                (Some(last), _) => self.next(last.end),
                (None, Some(earliest)) => self.align_next(earliest),
                (None, None) => self.first_run(now),
            };
        }
        let mut due = self.align_prev(now)?;
        match (last, earliest) {
            (Some(last), _) => due = due.max(self.next(last.end)?),
            (None, None) => due = due.max(self.first_run(now)?),
            (None, Some(_)) => {}
        }
        if let Some(earliest) = earliest {
            due = due.max(self.align_next(earliest)?);
        }
        Some(due)
    }

    /// Of a DAG without any bound: the run just missed, if that is not long ago.
    fn first_run(&self, now: Timestamp) -> Option<Timestamp> {
        let past = self.align_prev(now)?;
        let next = self.align_next(now)?;
        let buffer = (past.duration_until(next) / 10).max(FIRST_RUN_BUFFER.try_into().ok()?);
        Some(if past.duration_until(now) <= buffer { past } else { next })
    }

    fn next(&self, instant: Timestamp) -> Option<Timestamp> {
        match &self.kind {
            Kind::Cron { cron, .. } => cron.next(instant, &self.zone),
            Kind::Every(period) => instant.checked_add(*period).ok(),
            Kind::Never | Kind::Once => None,
        }
    }

    fn align_next(&self, instant: Timestamp) -> Option<Timestamp> {
        match &self.kind {
            Kind::Cron { cron, .. } => cron.align_next(instant, &self.zone),
            _ => Some(instant),
        }
    }

    fn align_prev(&self, instant: Timestamp) -> Option<Timestamp> {
        match &self.kind {
            Kind::Cron { cron, .. } => cron.align_prev(instant, &self.zone),
            _ => Some(instant),
        }
    }
}

/// `1h30m`; what is below a second is not shown.
fn in_words(period: Duration) -> String {
    let mut rest = period.as_secs();
    let mut words = String::new();
    for (unit, seconds) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if rest >= seconds {
            words.push_str(&format!("{}{unit}", rest / seconds));
            rest %= seconds;
        }
    }
    words
}

#[cfg(test)]
mod tests;
