//! The instants at which cron starts a line: its own rule for changes of the clocks, which is not minflow's.
//!
//! Where the host's clocks skip up to three hours, cron runs what has a fixed time right after the gap, once for each time that was
//! skipped; where they go back, such lines do not run again. Lines with `*` in minute or hour follow the clock. A line with a zone of
//! its own (`CRON_TZ`) is only compared with that zone's clock, whatever it does; but cronie starts no fixed time while the host's
//! clock repeats an hour.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::when::When;

/// From this many minutes on a jump of the clock is none of summer time: cron goes on from the new time.
const LARGEST_GAP: i32 = 180 * 60;
const LARGEST_FOLD: i32 = 181 * 60;
/// So short a gap is taken for a late start: everything that it skips is run.
const SMALLEST_GAP: i32 = 5 * 60;

/// The clocks that a line goes by.
#[derive(Clone, Debug)]
pub struct Clocks {
    pub host: TimeZone,
    /// `CRON_TZ`
    pub own: Option<TimeZone>,
}

impl Clocks {
    /// The zone of the line's fields.
    pub fn zone(&self) -> &TimeZone {
        self.own.as_ref().unwrap_or(&self.host)
    }
}

impl When {
    /// The starts after `after` and before `until`, in order, at most `count`. An instant stands there as often as cron starts the
    /// line at it.
    pub fn fires(&self, clocks: &Clocks, after: Timestamp, until: Timestamp, count: usize) -> Vec<Timestamp> {
        let zone = clocks.zone();
        let mut found = Vec::new();
        let mut start = after.checked_add(SignedDuration::from_nanos(1)).unwrap_or(after);
        // From one change of the clocks to the next, wall time and instants go together.
        while start < until && found.len() < count {
            let change = zone.following(start).find(|change| is_shift(zone, change.timestamp()));
            let end = change.map_or(until, |change| change.timestamp().min(until));
            self.run_of_hours(clocks, (start, end), count, &mut found);
            if end < until {
                self.catch_up(clocks, end, &mut found);
            }
            if end == start {
                break;
            }
            start = end;
        }
        found.truncate(count);
        found
    }

    /// The starts from `start` on and before `end`, between which the clock does not change.
    fn run_of_hours(
        &self,
        clocks: &Clocks,
        (start, end): (Timestamp, Timestamp),
        count: usize,
        found: &mut Vec<Timestamp>,
    ) {
        let offset = clocks.zone().to_offset(start);
        let end = offset.to_datetime(end);
        let mut from = offset.to_datetime(start);
        while found.len() < count
            && let Some(named) = self.first_named(from, end)
        {
            let Ok(at) = offset.to_timestamp(named) else { return };
            if self.stars.of_time || !is_repeated(&clocks.host, at) {
                found.push(at);
            }
            let Ok(next) = named.checked_add(SignedDuration::from_mins(1)) else { return };
            from = next;
        }
    }

    /// What the clocks have skipped at `at`, and cron does right after.
    fn catch_up(&self, clocks: &Clocks, at: Timestamp, found: &mut Vec<Timestamp>) {
        let (before, after) = offsets(&clocks.host, at);
        let gap = after - before;
        let is_run = match gap {
            _ if clocks.own.is_some() || gap <= 0 || gap >= LARGEST_GAP => false,
            _ => gap < SMALLEST_GAP || !self.stars.of_time,
        };
        if !is_run {
            return;
        }
        let Ok(just_before) = at.checked_sub(SignedDuration::from_nanos(1)) else { return };
        let mut from = clocks.host.to_offset(just_before).to_datetime(at);
        let end = clocks.host.to_datetime(at);
        while let Some(named) = self.first_named(from, end) {
            found.push(at);
            let Ok(next) = named.checked_add(SignedDuration::from_mins(1)) else { return };
            from = next;
        }
    }
}

/// The offsets in seconds just before and at an instant.
fn offsets(zone: &TimeZone, at: Timestamp) -> (i32, i32) {
    let just_before = at.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(at);
    (zone.to_offset(just_before).seconds(), zone.to_offset(at).seconds())
}

/// Some changes of a zone are of its name alone.
pub(super) fn is_shift(zone: &TimeZone, at: Timestamp) -> bool {
    let (before, after) = offsets(zone, at);
    before != after
}

/// The host's clock shows this time for the second time.
fn is_repeated(host: &TimeZone, at: Timestamp) -> bool {
    let Ok(just_after) = at.checked_add(SignedDuration::from_nanos(1)) else { return false };
    let changes = host.preceding(just_after).map(|change| change.timestamp());
    // Two changes within a few hours happen nowhere; one without a shift may come after one with.
    changes.take(2).any(|change| {
        let (before, after) = offsets(host, change);
        let fold = before - after;
        fold > 0 && fold <= LARGEST_FOLD && at.as_second() < change.as_second() + i64::from(fold)
    })
}
