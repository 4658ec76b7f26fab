//! When a DAG's next run is due: Airflow's timetables (SEMANTICS 6), and minflow's bounds on them.
//!
//! Pure: every instant, the clock's too, is given by the caller. Knows no run, no DAG and no limit. `cron` and `fields` read an
//! expression, `search` finds its matches, `ticks` has them and periods alike, `rules` makes runs of ticks.

mod cron;
mod description;
mod fields;
mod rules;
mod search;
mod ticks;
mod transition;
mod words;

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use cron::{Cron, FieldValue};
pub use description::describe;
pub use transition::Mark;

use crate::keytable::print_period;
use crate::model::{Catchup, Dag, DataInterval, Intervals, NextRun, RunImmediately, Schedule};
use rules::Question;
use ticks::Ticks;

/// A schedule that cannot be understood. `range` is in bytes of the faulty expression's text.
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
    run_immediately: RunImmediately,
    summary: Option<String>,
}

#[derive(Clone, Debug)]
enum Kind {
    Never,
    Once,
    Continuous,
    /// In ascending order.
    Events(Vec<Timestamp>),
    /// Airflow's CronDataIntervalTimetable and DeltaDataIntervalTimetable.
    Data(Ticks),
    /// Airflow's CronTriggerTimetable and DeltaTriggerTimetable; of several crons, MultipleCronTriggerTimetable.
    Trigger {
        ticks: Vec<Ticks>,
        interval: Duration,
    },
}

impl Timetable {
    /// `zone` is the DAG's: cron fields are its wall clock, unless the schedule names another. Several cron expressions are triggers, as
    /// in Airflow, whatever their intervals are to be.
    ///
    /// # Errors
    /// The first cron expression or preset that is not understood.
    pub fn new(schedule: &Schedule, zone: &TimeZone) -> Result<Self, ScheduleError> {
        let kind = match schedule {
            Schedule::Never => Kind::Never,
            Schedule::Once => Kind::Once,
            Schedule::Continuous => Kind::Continuous,
            Schedule::Events(events) => Kind::Events(events.clone()),
            Schedule::Every(every) => Kind::of(vec![Ticks::Every(every.period)], every.intervals),
            Schedule::Cron(crons) => {
                let zone = crons.timezone.as_ref().unwrap_or(zone);
                let parse = |text: &String| Ok(Ticks::Cron { cron: Box::new(Cron::parse(text)?), zone: zone.clone() });
                Kind::of(crons.expressions.iter().map(parse).collect::<Result<_, _>>()?, crons.intervals)
            }
        };
        Ok(Self { kind, run_immediately: RunImmediately::No, summary: summary(schedule) })
    }

    /// The DAG's own: its schedule in its zone, with its `run_immediately`.
    ///
    /// # Errors
    /// As of [`new`](Self::new); the parser of DAG files has refused such a DAG.
    pub fn of(dag: &Dag) -> Result<Self, ScheduleError> {
        Ok(Self::new(&dag.schedule, &dag.timezone)?.with_run_immediately(dag.run_immediately))
    }

    /// The same with another `run_immediately`.
    pub fn with_run_immediately(mut self, run_immediately: RunImmediately) -> Self {
        self.run_immediately = run_immediately;
        self
    }

    /// The run after the one with interval `last` (SEMANTICS 6.4). Null: none is to come, or none is found within 50 years.
    ///
    /// `last` is the interval of the DAG's newest scheduled run by logical date. `earliest` and `latest` are inclusive; what
    /// `earliest` is to be, [`earliest`](Self::earliest) says. `now` decides what has been missed, and with `catchup` how much of that
    /// is made up for.
    ///
    /// Where Airflow's timetable fails although ticks are to come, as before the first date of an expression with years, its DAG waits
    /// until a later parse of the file succeeds, perhaps for ever. Nobody asks minflow again, so it takes the first tick to come.
    pub fn next_run(
        &self,
        last: Option<DataInterval>,
        earliest: Option<Timestamp>,
        latest: Option<Timestamp>,
        catchup: Catchup,
        now: Timestamp,
    ) -> Option<NextRun> {
        let asked = Question { last, earliest, latest, catchup, now };
        self.by_airflow(&asked).or_else(|| match &self.kind {
            Kind::Never | Kind::Once | Kind::Continuous | Kind::Events(_) => None,
            Kind::Data(ticks) => rules::first_interval_to_come(ticks, &asked),
            Kind::Trigger { ticks, interval } => rules::first_to_come(ticks, *interval, &asked),
        })
    }

    /// The same as Airflow's function answers it, which is null where that fails.
    pub fn next_run_by_airflow(
        &self,
        last: Option<DataInterval>,
        earliest: Option<Timestamp>,
        latest: Option<Timestamp>,
        catchup: Catchup,
        now: Timestamp,
    ) -> Option<NextRun> {
        self.by_airflow(&Question { last, earliest, latest, catchup, now })
    }

    fn by_airflow(&self, asked: &Question) -> Option<NextRun> {
        match &self.kind {
            Kind::Never => None,
            Kind::Once => rules::once(asked),
            Kind::Continuous => rules::continuous(asked),
            Kind::Events(events) => rules::events(events, asked),
            Kind::Data(ticks) => rules::data_interval(ticks, asked),
            Kind::Trigger { ticks, interval } => rules::trigger(ticks, *interval, self.run_immediately, asked),
        }
    }

    /// The lower bound to give to [`next_run`](Self::next_run) for a DAG with this `start_date` (the least of its own and its tasks')
    /// that minflow first saw unpaused at `first_seen`.
    ///
    /// minflow's own rule, not Airflow's: a DAG does not start a run that was due before it was seen, unless a start_date and `catchup`
    /// or `run_immediately` ask for it; and `every` without a start_date begins one period after it was seen. What has no ticks is not
    /// bound.
    pub fn earliest(
        &self,
        start_date: Option<Timestamp>,
        first_seen: Timestamp,
        catchup: Catchup,
    ) -> Option<Timestamp> {
        let ticks = match &self.kind {
            Kind::Never | Kind::Once | Kind::Continuous | Kind::Events(_) => return start_date,
            Kind::Data(ticks) => std::slice::from_ref(ticks),
            Kind::Trigger { ticks, .. } => ticks,
        };
        if start_date.is_some() && catchup != Catchup::Latest {
            return start_date;
        }
        let bound = match self.run_immediately {
            RunImmediately::Yes => return start_date,
            RunImmediately::Within(duration) => first_seen.checked_sub(duration).unwrap_or(Timestamp::MIN),
            RunImmediately::No => first_seen,
        };
        let bound = match (&self.kind, ticks) {
            // The interval that is under way ends later, so it is not missed. An expression without a date has no runs to bound.
            (Kind::Data(_), [ticks @ Ticks::Cron { .. }]) => ticks.prev(ticks.align_next(bound)?)?,
            (Kind::Trigger { .. }, [ticks @ Ticks::Every(_)]) if start_date.is_none() => {
                ticks.next(bound).unwrap_or(Timestamp::MAX)
            }
            _ => bound,
        };
        start_date.max(Some(bound))
    }

    /// The interval of a run that somebody starts by hand (SEMANTICS 6.4). Null: the schedule has no tick before `run_after` within 50
    /// years, or the interval begins before the calendar does.
    pub fn infer_manual(&self, run_after: Timestamp) -> Option<DataInterval> {
        match &self.kind {
            Kind::Never | Kind::Once | Kind::Continuous | Kind::Events(_) => {
                Some(DataInterval { start: run_after, end: run_after })
            }
            Kind::Data(ticks) => {
                let end = ticks.align_prev(run_after)?;
                Some(DataInterval { start: ticks.prev(end)?, end })
            }
            Kind::Trigger { interval, .. } => {
                Some(DataInterval { start: run_after.checked_sub(*interval).ok()?, end: run_after })
            }
        }
    }

    /// The last instant at or before `at` at which a run by its rule or list is due; null: there is none.
    pub fn last_due(&self, at: Timestamp) -> Option<Timestamp> {
        match &self.kind {
            Kind::Never | Kind::Once | Kind::Continuous => None,
            Kind::Events(events) => events.iter().copied().filter(|&event| event <= at).max(),
            Kind::Data(ticks) => ticks.align_prev(at),
            Kind::Trigger { ticks, .. } => ticks.iter().filter_map(|ticks| ticks.align_prev(at)).max(),
        }
    }

    /// As lists show it: expressions as written, `every 1h30m`, `@once`, `3 events`; null for none.
    pub fn summary(&self) -> Option<String> {
        self.summary.clone()
    }

    /// Its runs come again and again by a rule or a list (Airflow: `periodic`).
    pub fn is_periodic(&self) -> bool {
        !matches!(self.kind, Kind::Never | Kind::Once | Kind::Continuous)
    }
}

impl Kind {
    fn of(mut ticks: Vec<Ticks>, intervals: Intervals) -> Self {
        match intervals {
            Intervals::Trigger(interval) => Self::Trigger { ticks, interval },
            Intervals::Data if ticks.len() == 1 => Self::Data(ticks.remove(0)),
            Intervals::Data => Self::Trigger { ticks, interval: Duration::ZERO },
        }
    }
}

fn summary(schedule: &Schedule) -> Option<String> {
    Some(match schedule {
        Schedule::Never => return None,
        Schedule::Once => "@once".to_owned(),
        Schedule::Continuous => "@continuous".to_owned(),
        Schedule::Cron(crons) => crons.expressions.join(", "),
        Schedule::Every(every) => format!("every {}", print_period(every.period)),
        Schedule::Events(events) if events.len() == 1 => "1 event".to_owned(),
        Schedule::Events(events) => format!("{} events", events.len()),
    })
}

#[cfg(test)]
mod tests;
