//! The nearest match of a cron expression, after or before an instant: first on the naive calendar, then in a zone.
//!
//! Skips by months, days, hours and minutes, so that even a search that fails looks at days only.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan};

use super::cron::{Cron, DayRule};

/// croniter's: matches further away than this do not count.
const YEARS: i16 = 50;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

impl Cron {
    /// The first match later than `instant` (SEMANTICS 6.3); null if there is none within 50 years.
    pub fn next(&self, instant: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let naive = zone.to_datetime(instant);
        let first = naive.with().second(0).subsec_nanosecond(0).build().ok()?.checked_add(1.minute()).ok()?;
        self.localize(instant, naive, self.search(first, Direction::Forward)?, zone)
    }

    /// The last match earlier than `instant`; null if there is none within 50 years.
    pub fn prev(&self, instant: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let naive = zone.to_datetime(instant);
        let first = naive.checked_sub(1.microsecond()).ok()?.with().second(0).subsec_nanosecond(0).build().ok()?;
        self.localize(instant, naive, self.search(first, Direction::Backward)?, zone)
    }

    /// `instant` if it is a match, else the first one after it.
    pub fn align_next(&self, instant: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let next = self.next(instant, zone)?;
        if self.prev(next, zone)? == instant { Some(instant) } else { Some(next) }
    }

    /// `instant` if it is a match, else the last one before it.
    pub fn align_prev(&self, instant: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let prev = self.prev(instant, zone)?;
        if self.next(prev, zone)? == instant { Some(instant) } else { Some(prev) }
    }

    /// From the naive match back to an instant (SEMANTICS 6.3). What runs in every hour keeps its distance; anything else keeps its
    /// wall time: the second of two, and the gap later where there is none.
    fn localize(&self, instant: Timestamp, naive: DateTime, found: DateTime, zone: &TimeZone) -> Option<Timestamp> {
        if self.every_hour {
            let distance: SignedDuration = naive.duration_until(found);
            return instant.checked_add(distance).ok();
        }
        zone.to_ambiguous_timestamp(found).later().ok()
    }

    /// The match at or beyond `first`, which has whole minutes.
    fn search(&self, first: DateTime, direction: Direction) -> Option<DateTime> {
        let mut date = first.date();
        loop {
            if (date.year() - first.year()).abs() > YEARS {
                return None;
            }
            if self.months & 1 << date.month() == 0 {
                date = beyond_month(date, direction)?;
                continue;
            }
            if self.days.matches(date) {
                let limit = (date == first.date()).then(|| (first.hour() as u32, first.minute() as u32));
                if let Some((hour, minute)) = self.time_of_day(limit, direction) {
                    return Some(date.at(hour as i8, minute as i8, 0, 0));
                }
            }
            date = match direction {
                Direction::Forward => date.tomorrow().ok()?,
                Direction::Backward => date.yesterday().ok()?,
            };
        }
    }

    /// The first (or last) hour and minute, at or beyond `limit`.
    fn time_of_day(&self, limit: Option<(u32, u32)>, direction: Direction) -> Option<(u32, u32)> {
        let nearest = |set: u64, limit: Option<u32>| match direction {
            Direction::Forward => lowest(set, limit.unwrap_or(0)),
            Direction::Backward => highest(set, limit.unwrap_or(63)),
        };
        let Some((hour, minute)) = limit else {
            return Some((nearest(self.hours, None)?, nearest(self.minutes, None)?));
        };
        if self.hours & 1 << hour != 0
            && let Some(minute) = nearest(self.minutes, Some(minute))
        {
            return Some((hour, minute));
        }
        let hour = match direction {
            Direction::Forward => lowest(self.hours, hour + 1)?,
            Direction::Backward => highest(self.hours, hour.checked_sub(1)?)?,
        };
        Some((hour, nearest(self.minutes, None)?))
    }
}

impl DayRule {
    /// croniter's rules: `W` and `#` bind always, beside them the two fields as in cron.
    fn matches(&self, date: Date) -> bool {
        let weekday = date.weekday().to_sunday_zero_offset() as usize;
        let has_nth = self.nth != [0; 7];
        if self.nearest.is_some_and(|day| nearest_weekday(date, day as i8) != date.day())
            || (has_nth && !self.is_nth(date, weekday))
        {
            return false;
        }
        let is_last = date.day() == date.days_in_month();
        let by_day = self.nearest.is_some()
            || self.days.is_none_or(|days| days.set & 1 << date.day() != 0 || (days.last && is_last));
        let by_weekday = has_nth || self.weekdays.is_none_or(|set| set & 1 << weekday != 0);
        if self.either { by_day || by_weekday } else { by_day && by_weekday }
    }

    fn is_nth(&self, date: Date, weekday: usize) -> bool {
        let is_last = date.day() > date.days_in_month() - 7;
        let occurrence = (date.day() - 1) / 7 + 1;
        self.nth[weekday] & 1 << occurrence != 0 || (is_last && self.nth[weekday] & 1 != 0)
    }
}

/// The Monday-to-Friday day nearest to `day` in the month of `date`, without leaving the month.
fn nearest_weekday(date: Date, day: i8) -> i8 {
    let day = day.min(date.days_in_month());
    let Ok(target) = date.with().day(day).build() else {
        return day;
    };
    match target.weekday().to_sunday_zero_offset() {
        6 if day == 1 => 3,
        6 => day - 1,
        0 if day == date.days_in_month() => day - 2,
        0 => day + 1,
        _ => day,
    }
}

fn beyond_month(date: Date, direction: Direction) -> Option<Date> {
    match direction {
        Direction::Forward => date.last_of_month().tomorrow().ok(),
        Direction::Backward => date.first_of_month().yesterday().ok(),
    }
}

fn lowest(set: u64, from: u32) -> Option<u32> {
    let rest = set & (u64::MAX.checked_shl(from)?);
    (rest != 0).then(|| rest.trailing_zeros())
}

fn highest(set: u64, to: u32) -> Option<u32> {
    let rest = set & (u64::MAX >> (63 - to.min(63)));
    (rest != 0).then(|| 63 - rest.leading_zeros())
}
