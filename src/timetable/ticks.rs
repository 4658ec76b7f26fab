//! The instants at which a schedule ticks: of a cron expression in a zone, or of a period (SEMANTICS 6.3, 6.4).
//!
//! Knows what comes before and after an instant; which tick makes a run is [`rules`](super::rules)'s.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::Cron;
use crate::model::{Period, RunImmediately};

/// The least time that a first run may lie in the past, of a schedule that does not say (Airflow: `run_immediately` unset).
const FIRST_RUN_BUFFER: Duration = Duration::from_secs(5 * 60);

#[derive(Clone, Debug)]
pub(super) enum Ticks {
    Cron {
        cron: Box<Cron>,
        zone: TimeZone,
    },
    /// Airflow's timedelta and relativedelta. It has no grid of its own: any instant is a tick, and the next lies a period later.
    Every(Period),
}

impl Ticks {
    pub(super) fn next(&self, instant: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron { cron, zone } => cron.next(instant, zone),
            Self::Every(period) => add(instant, *period),
        }
    }

    pub(super) fn prev(&self, instant: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron { cron, zone } => cron.prev(instant, zone),
            Self::Every(period) => subtract(instant, *period),
        }
    }

    pub(super) fn align_next(&self, instant: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron { cron, zone } => cron.align_next(instant, zone),
            Self::Every(_) => Some(instant),
        }
    }

    pub(super) fn align_prev(&self, instant: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron { cron, zone } => cron.align_prev(instant, zone),
            Self::Every(_) => Some(instant),
        }
    }

    /// [`align_prev`](Self::align_prev) gives an instant of its own or an earlier one, if there is any tick at all. Of other
    /// expressions the tick before one that a change of the clocks moved may come later, and a field of years may end them.
    pub(super) fn go_back_in_order(&self) -> bool {
        match self {
            Self::Cron { cron, zone } => {
                cron.year.is_none_or(|years| years.star) && (cron.is_every_hour() || *zone == TimeZone::UTC)
            }
            Self::Every(_) => true,
        }
    }

    /// Of a DAG without any bound: the run just missed if `run_immediately` reaches so far back, else the next. A period starts at
    /// once.
    pub(super) fn first_run(&self, run_immediately: RunImmediately, now: Timestamp) -> Option<Timestamp> {
        let past = self.align_prev(now)?;
        let next = self.align_next(now)?;
        let buffer = match run_immediately {
            RunImmediately::Yes => return Some(past),
            RunImmediately::Within(duration) => duration,
            RunImmediately::No => {
                let gap: Duration = past.duration_until(next).try_into().ok()?;
                (gap / 10).max(FIRST_RUN_BUFFER)
            }
        };
        Some(if past.duration_until(now) <= buffer.try_into().ok()? { past } else { next })
    }

    /// The first tick not before `floor` of those that follow `tick`, itself included.
    pub(super) fn not_before(&self, tick: Timestamp, floor: Timestamp) -> Option<Timestamp> {
        if tick >= floor {
            return Some(tick);
        }
        match self {
            Self::Cron { .. } => self.align_next(floor),
            Self::Every(Period::Fixed(period)) => {
                let period = i128::try_from(period.as_nanos()).ok()?;
                let behind = floor.as_nanosecond() - tick.as_nanosecond();
                let steps = (behind + period - 1) / period;
                Timestamp::from_nanosecond(tick.as_nanosecond() + steps * period).ok()
            }
            Self::Every(period) => {
                let mut tick = tick;
                while tick < floor {
                    tick = add(tick, *period)?;
                }
                Some(tick)
            }
        }
    }

    /// The start of the newest interval that was over at `now`, as an Airflow DAG without catchup takes it (`_skip_to_latest`).
    /// `earliest` is the grid of a period in months, which has no other.
    pub(super) fn newest_over(&self, earliest: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron { .. } => {
                let prev = self.prev(now)?;
                match self.next(prev)?.cmp(&now) {
                    std::cmp::Ordering::Equal => Some(prev),
                    std::cmp::Ordering::Greater => self.prev(prev),
                    // Airflow fails here: an hourly schedule of some days only, after the clocks have changed.
                    std::cmp::Ordering::Less => None,
                }
            }
            Self::Every(Period::Fixed(period)) => {
                let period = i128::try_from(period.as_nanos()).ok()?;
                let now = now.as_nanosecond();
                Timestamp::from_nanosecond(now - now.rem_euclid(period) - period).ok()
            }
            Self::Every(period) => {
                let mut tick = earliest.unwrap_or(now);
                while let Some(next) = add(tick, *period).filter(|next| *next <= now) {
                    tick = next;
                }
                subtract(tick, *period)
            }
        }
    }
}

/// Calendar units count on UTC's calendar, and a day that the month lacks is its last one (dateutil's relativedelta).
fn add(instant: Timestamp, period: Period) -> Option<Timestamp> {
    match period {
        Period::Fixed(period) => instant.checked_add(period).ok(),
        Period::Calendar { months, rest } => {
            let moved = in_utc(instant, |date| date.checked_add(in_months(months)?))?;
            moved.checked_add(rest).ok()
        }
    }
}

fn subtract(instant: Timestamp, period: Period) -> Option<Timestamp> {
    match period {
        Period::Fixed(period) => instant.checked_sub(period).ok(),
        Period::Calendar { months, rest } => {
            let moved = in_utc(instant, |date| date.checked_sub(in_months(months)?))?;
            moved.checked_sub(rest).ok()
        }
    }
}

fn in_months(months: u32) -> Result<Span, jiff::Error> {
    Span::new().try_months(months)
}

fn in_utc(
    instant: Timestamp,
    change: impl Fn(jiff::civil::DateTime) -> Result<jiff::civil::DateTime, jiff::Error>,
) -> Option<Timestamp> {
    let moved = change(TimeZone::UTC.to_datetime(instant)).ok()?;
    TimeZone::UTC.to_timestamp(moved).ok()
}
