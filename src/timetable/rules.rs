//! Which tick makes the next run: Airflow's rules, one function for each kind of timetable (SEMANTICS 6.4), and minflow's window.
//!
//! Knows ticks and bounds. Null stands for "no run", and for what makes Airflow's own functions fail: its scheduler treats both alike.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::ticks::Ticks;
use crate::model::{Catchup, DataInterval, NextRun, RunImmediately};

/// What is asked of a timetable. `last` is the interval of the reference run; both bounds are inclusive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) last: Option<DataInterval>,
    pub(super) earliest: Option<Timestamp>,
    pub(super) latest: Option<Timestamp>,
    pub(super) catchup: Catchup,
    pub(super) now: Timestamp,
}

impl Question {
    /// What is due before this instant is not made up for.
    fn floor(&self) -> Option<Timestamp> {
        match self.catchup {
            Catchup::Window(window) => Some(self.now.checked_sub(window).unwrap_or(Timestamp::MIN)),
            Catchup::All | Catchup::Latest => None,
        }
    }

    /// The latest instant after which a run may still lie, of one that may not be before `last_end`.
    fn just_before(&self, last_end: Option<Timestamp>) -> Timestamp {
        let nano = SignedDuration::from_nanos(1);
        let floor = match self.catchup {
            Catchup::Latest => Some(self.now),
            Catchup::All | Catchup::Window(_) => self.floor(),
        };
        let bound = floor.max(self.earliest).map(|bound| bound.checked_sub(nano).unwrap_or(Timestamp::MIN));
        bound.max(last_end).unwrap_or(self.now)
    }

    fn is_too_late(&self, instant: Timestamp) -> bool {
        self.latest.is_some_and(|latest| latest < instant)
    }
}

/// Airflow's trigger timetables: due at a tick, with an interval of fixed length before it. Of several crons
/// (MultipleCronTriggerTimetable), with catchup the oldest run that one of them gives; without, the newest that is not in the future,
/// else the first that is. One that finds no tick takes the others with it, as its error does there.
pub(super) fn trigger(
    all: &[Ticks],
    interval: Duration,
    run_immediately: RunImmediately,
    asked: &Question,
) -> Option<NextRun> {
    let mut runs = Vec::with_capacity(all.len());
    for ticks in all {
        let due = next_due(ticks, run_immediately, asked)?;
        if !asked.is_too_late(due) {
            runs.push(over(DataInterval { start: due.checked_sub(interval).ok()?, end: due }));
        }
    }
    runs.into_iter().min_by_key(|run| {
        let date = run.logical_date.as_nanosecond();
        let is_ahead = asked.catchup != Catchup::Latest || run.logical_date > asked.now;
        (is_ahead, if is_ahead { date } else { -date })
    })
}

fn next_due(ticks: &Ticks, run_immediately: RunImmediately, asked: &Question) -> Option<Timestamp> {
    if asked.catchup == Catchup::Latest {
        return newest_tick(ticks, run_immediately, asked);
    }
    let due = match (asked.last, asked.earliest) {
        (Some(last), _) => ticks.next(last.end),
        (None, Some(earliest)) => ticks.align_next(earliest),
        (None, None) => ticks.first_run(run_immediately, asked.now),
    }?;
    match asked.floor() {
        Some(floor) => ticks.not_before(due, floor),
        None => Some(due),
    }
}

fn newest_tick(ticks: &Ticks, run_immediately: RunImmediately, asked: &Question) -> Option<Timestamp> {
    let after_last = asked.last.map(|last| ticks.next(last.end));
    let mut due = match after_last.flatten().filter(|&after| after > asked.now && ticks.go_back_in_order()) {
        // No tick up to now lies later: the usual case, as a run is planned when the one before it has been created.
        Some(after) => after,
        None => ticks.align_prev(asked.now)?,
    };
    match (after_last, asked.earliest) {
        (Some(after), _) => due = due.max(after?),
        (None, None) => due = due.max(ticks.first_run(run_immediately, asked.now)?),
        (None, Some(_)) => {}
    }
    // A tick that is not before the bound is not before the first tick from there either.
    if let Some(earliest) = asked.earliest.filter(|earliest| due < *earliest) {
        due = due.max(ticks.align_next(earliest)?);
    }
    Some(due)
}

/// Airflow's data interval timetables: from a tick to the next, when it is due.
pub(super) fn data_interval(ticks: &Ticks, asked: &Question) -> Option<NextRun> {
    let earliest = match (asked.catchup, asked.earliest) {
        (Catchup::Latest, earliest) => {
            let newest = ticks.newest_over(earliest, asked.now)?;
            Some(match earliest {
                Some(earliest) => newest.max(ticks.align_next(earliest)?),
                None => newest,
            })
        }
        (_, Some(earliest)) => Some(ticks.align_next(earliest)?),
        (_, None) => None,
    };
    let start = match asked.last {
        None => earliest?,
        Some(last) => {
            let aligned = ticks.align_prev(last.end)?;
            let start = earliest.map_or(aligned, |earliest| earliest.max(aligned));
            if start > last.start { start } else { ticks.next(start).filter(|start| *start > last.start)? }
        }
    };
    let start = match asked.floor() {
        Some(floor) => ending_not_before(ticks, start, floor)?,
        None => start,
    };
    if asked.is_too_late(start) {
        return None;
    }
    Some(over(DataInterval { start, end: ticks.next(start)? }))
}

/// The first interval from `start` on whose end is not before `floor`.
fn ending_not_before(ticks: &Ticks, start: Timestamp, floor: Timestamp) -> Option<Timestamp> {
    let end = ticks.next(start)?;
    if end >= floor {
        return Some(start);
    }
    // The end before that one; of months, which a subtraction may not lead back to, it is looked for from the start.
    let last_end = ticks.not_before(end, floor)?;
    match ticks {
        Ticks::Cron { .. } => ticks.prev(last_end),
        Ticks::Every(_) => {
            let (mut start, mut end) = (start, end);
            if ticks.prev(last_end).is_some_and(|prev| ticks.next(prev) == Some(last_end)) {
                return ticks.prev(last_end);
            }
            while end < last_end {
                (start, end) = (end, ticks.next(end)?);
            }
            Some(start)
        }
    }
}

/// What [`trigger`] would give if the ticks went back for ever: for where Airflow's functions fail for want of them.
pub(super) fn first_to_come(all: &[Ticks], interval: Duration, asked: &Question) -> Option<NextRun> {
    let from = asked.just_before(asked.last.map(|last| last.end));
    let due = all.iter().filter_map(|ticks| ticks.next(from)).min()?;
    if asked.is_too_late(due) {
        return None;
    }
    Some(over(DataInterval { start: due.checked_sub(interval).ok()?, end: due }))
}

/// The same for [`data_interval`]: an interval may begin where the last one ended.
pub(super) fn first_interval_to_come(ticks: &Ticks, asked: &Question) -> Option<NextRun> {
    let nano = SignedDuration::from_nanos(1);
    let last_end = asked.last.map(|last| last.end.checked_sub(nano).unwrap_or(Timestamp::MIN));
    let start = ticks.next(asked.just_before(last_end))?;
    if asked.is_too_late(start) {
        return None;
    }
    Some(over(DataInterval { start, end: ticks.next(start)? }))
}

/// Once, at `earliest` or now, whatever catchup says.
pub(super) fn once(asked: &Question) -> Option<NextRun> {
    let due = asked.earliest.unwrap_or(asked.now);
    if asked.last.is_some() || asked.is_too_late(due) {
        return None;
    }
    Some(over(DataInterval { start: due, end: due }))
}

/// From the end of the run before to now.
pub(super) fn continuous(asked: &Question) -> Option<NextRun> {
    let begin = asked.earliest.unwrap_or(asked.now);
    let interval = match asked.last {
        None => DataInterval { start: begin, end: begin.max(asked.now) },
        Some(last) if last.end > asked.now => {
            let length = last.start.duration_until(last.end);
            DataInterval { start: begin, end: begin.checked_add(length).ok()? }
        }
        Some(last) => DataInterval { start: last.end, end: asked.now },
    };
    if asked.is_too_late(interval.end) {
        return None;
    }
    Some(over(interval))
}

/// The first of `events`, which are in order, that is neither before `earliest` nor done. Without catchup none lies in the past.
pub(super) fn events(events: &[Timestamp], asked: &Question) -> Option<NextRun> {
    let floor = match asked.catchup {
        Catchup::Latest => Some(asked.now),
        Catchup::All | Catchup::Window(_) => asked.floor(),
    };
    let earliest = asked.earliest.max(floor);
    let is_past = |event: &Timestamp| {
        earliest.is_some_and(|earliest| *event < earliest) || asked.last.is_some_and(|last| *event <= last.end)
    };
    let event = *events.get(events.partition_point(is_past))?;
    if asked.is_too_late(event) {
        return None;
    }
    Some(over(DataInterval { start: event, end: event }))
}

/// The run of an interval: named by its start, due at its end.
fn over(interval: DataInterval) -> NextRun {
    NextRun { logical_date: interval.start, data_interval: interval, run_after: interval.end }
}
