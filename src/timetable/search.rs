//! The nearest match of a cron expression, after or before an instant: first on the naive calendar, then in a zone.
//!
//! A month's days are one bit mask, and so are the hours, minutes and seconds of a day: the search takes a step for each month that it
//! looks at, and none for a day.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::cron::{Cron, Times};

/// croniter's: matches further away than this do not count.
const YEARS: i16 = 50;
/// The first year of the year field.
const FIRST_YEAR: i16 = 1970;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}

/// Which of the two day fields a day must suit, beside what `W`, `#` and `L` say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Both,
    Either,
    DayOfMonth,
    Weekday,
}

impl Cron {
    /// The first match later than `instant` (SEMANTICS 6.3); null if there is none within 50 years.
    pub fn next(&self, instant: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let naive = zone.to_datetime(instant);
        self.localize(instant, naive, self.next_naive(naive)?, zone)
    }

    /// The last match earlier than `instant`; null if there is none within 50 years.
    pub fn prev(&self, instant: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let naive = zone.to_datetime(instant);
        self.localize(instant, naive, self.prev_naive(naive)?, zone)
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

    /// The first match later than `naive` on a calendar without zones.
    pub fn next_naive(&self, naive: DateTime) -> Option<DateTime> {
        self.find(Second::after(naive)?, Direction::Forward)
    }

    /// The last match earlier than `naive` on a calendar without zones.
    pub fn prev_naive(&self, naive: DateTime) -> Option<DateTime> {
        self.find(Second::before(naive)?, Direction::Backward)
    }

    /// No date suits the fields, as in `0 0 30 2 *`: Airflow accepts such an expression, and its DAG never runs.
    pub fn is_never(&self) -> bool {
        // Every calendar there is: fourteen kinds of years, all of which begin within 28 years that no century interrupts.
        let sides = self.sides();
        let years = if self.year.is_some_and(|year| !year.star) { 1970..=2099 } else { 2001..=2028 };
        let comes = |side: Side| {
            years.clone().filter(|&year| self.has_year(year)).any(|year| {
                (1..=12).any(|month| self.times.months & 1 << month != 0 && self.days_of_month(side, year, month) != 0)
            })
        };
        !sides.into_iter().flatten().all(comes)
    }

    /// From the naive match back to an instant (SEMANTICS 6.3). What runs in every hour keeps its distance; anything else keeps its
    /// wall time: the second of two, and the gap later where there is none.
    fn localize(&self, instant: Timestamp, naive: DateTime, found: DateTime, zone: &TimeZone) -> Option<Timestamp> {
        if self.is_every_hour() {
            let distance: SignedDuration = naive.duration_until(found);
            return instant.checked_add(distance).ok();
        }
        zone.to_ambiguous_timestamp(found).later().ok()
    }

    /// The match at or beyond `first`.
    fn find(&self, first: Second, direction: Direction) -> Option<DateTime> {
        let [side, other] = self.sides();
        let found = self.find_side(side?, first, direction)?;
        let Some(other) = other else { return Some(found) };
        let other = self.find_side(other, first, direction)?;
        Some(match direction {
            Direction::Forward => found.min(other),
            Direction::Backward => found.max(other),
        })
    }

    /// How the two day fields go together: one search for most expressions. croniter makes two of it where both are restricted, and
    /// an expression with `W`, `#` or `L` weekdays, which bind on both sides, has a match only if both searches end with one.
    fn sides(&self) -> [Option<Side>; 2] {
        if self.day.star || self.weekday.star {
            return [Some(Side::Both), None];
        }
        if self.nearest.is_some() || self.has_nth() {
            return [Some(Side::DayOfMonth), Some(Side::Weekday)];
        }
        [Some(Side::Either), None]
    }

    fn has_nth(&self) -> bool {
        self.nth != [0; 7]
    }

    fn has_year(&self, year: i16) -> bool {
        self.year.is_none_or(|years| years.star || years.set.contains((i32::from(year) - i32::from(FIRST_YEAR)) as u32))
    }

    fn find_side(&self, side: Side, first: Second, direction: Direction) -> Option<DateTime> {
        let mut year = first.year;
        let mut months = beyond(self.times.months, first.month, direction);
        loop {
            if self.has_year(year) {
                while let Some(month) = nearest(months, direction) {
                    months &= !(1 << month);
                    let days = self.days_of_month(side, year, month as i8);
                    let at_first = year == first.year && month == first.month;
                    let found = if at_first { self.in_first_month(days, first, direction) } else { None };
                    if let Some(found) = found {
                        return Some(found);
                    }
                    if !at_first && let Some(day) = nearest(days, direction) {
                        return date_time(year, month, day, self.times.outermost(direction)?);
                    }
                }
            }
            year = match direction {
                Direction::Forward => year + 1,
                Direction::Backward => year - 1,
            };
            if (year - first.year).abs() > YEARS {
                return None;
            }
            months = self.times.months;
        }
    }

    /// The match in the month of `first`, at or beyond it.
    fn in_first_month(&self, days: u64, first: Second, direction: Direction) -> Option<DateTime> {
        let Second { year, month, day, .. } = first;
        if days & 1 << day != 0
            && let Some(time) = self.times.at_or_beyond(first, direction)
        {
            return date_time(year, month, day, time);
        }
        let day = nearest(beyond(days, day, direction) & !(1 << day), direction)?;
        date_time(year, month, day, self.times.outermost(direction)?)
    }

    /// The matching days of a month; bit 1 is its first.
    fn days_of_month(&self, side: Side, year: i16, month: i8) -> u64 {
        let month = Month { year, month, len: days_in(year, month) };
        let all = month.all();
        let by_day = match self.nearest {
            Some(day) => 1 << month.nearest_weekday(u32::from(day)),
            None if self.day.star || side == Side::Weekday => all,
            None => self.day.set.low() | if self.day.last { 1 << month.len } else { 0 },
        };
        let by_weekday = if self.has_nth() {
            month.nth_weekdays(&self.nth)
        } else if self.weekday.star || side == Side::DayOfMonth {
            all
        } else {
            month.weekdays(self.weekday.set.low())
        };
        all & if side == Side::Either { by_day | by_weekday } else { by_day & by_weekday }
    }
}

/// A second of the naive calendar. Its parts are asked for one by one, and its neighbours are mostly of the same minute.
#[derive(Clone, Copy)]
struct Second {
    year: i16,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
}

impl Second {
    fn of(naive: DateTime) -> Self {
        Self {
            year: naive.year(),
            month: naive.month() as u32,
            day: naive.day() as u32,
            hour: naive.hour() as u32,
            minute: naive.minute() as u32,
            second: naive.second() as u32,
        }
    }

    /// The one that follows that of `naive`; null at the end of the calendar.
    fn after(naive: DateTime) -> Option<Self> {
        let this = Self::of(naive);
        if this.second < 59 {
            return Some(Self { second: this.second + 1, ..this });
        }
        Some(Self::of(naive.checked_add(SignedDuration::from_secs(1)).ok()?))
    }

    /// The one in which the microsecond before `naive` lies; null at the beginning of the calendar.
    fn before(naive: DateTime) -> Option<Self> {
        let this = Self::of(naive);
        if naive.subsec_nanosecond() >= 1_000 {
            return Some(this);
        }
        if this.second > 0 {
            return Some(Self { second: this.second - 1, ..this });
        }
        Some(Self::of(naive.checked_sub(SignedDuration::from_micros(1)).ok()?))
    }
}

impl Times {
    /// The first time of a day, or its last.
    fn outermost(&self, direction: Direction) -> Option<(u32, u32, u32)> {
        let of = |set| nearest(set, direction);
        Some((of(self.hours)?, of(self.minutes)?, of(self.seconds)?))
    }

    /// The time nearest to `limit` that is not on its other side.
    fn at_or_beyond(&self, limit: Second, direction: Direction) -> Option<(u32, u32, u32)> {
        let Second { hour, minute, second, .. } = limit;
        let from = |set, value| nearest(beyond(set, value, direction), direction);
        let after = |set, value| nearest(beyond(set, value, direction) & !(1 << value), direction);
        let of = |set| nearest(set, direction);
        if self.hours & 1 << hour != 0 {
            if self.minutes & 1 << minute != 0
                && let Some(second) = from(self.seconds, second)
            {
                return Some((hour, minute, second));
            }
            if let Some(minute) = after(self.minutes, minute) {
                return Some((hour, minute, of(self.seconds)?));
            }
        }
        Some((after(self.hours, hour)?, of(self.minutes)?, of(self.seconds)?))
    }
}

/// What a month looks like in the calendar.
struct Month {
    year: i16,
    month: i8,
    /// Days.
    len: u32,
}

fn days_in(year: i16, month: i8) -> u32 {
    match month {
        2 => 28 + u32::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl Month {
    /// The weekday of its first day; Sunday is 0. Most expressions never ask.
    fn first(&self) -> u32 {
        // Years that begin in March, so that the leap day is the last one.
        let shifted = i32::from(self.year) - i32::from(self.month < 3);
        let leaps = shifted.div_euclid(4) - shifted.div_euclid(100) + shifted.div_euclid(400);
        const OFFSETS: [i32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        (shifted + leaps + OFFSETS[self.month as usize - 1] + 1).rem_euclid(7) as u32
    }

    fn all(&self) -> u64 {
        (1 << (self.len + 1)) - 2
    }

    /// All days that fall on one of `weekdays`; bit 0 is Sunday.
    fn weekdays(&self, weekdays: u64) -> u64 {
        let first = self.first();
        let from_first = (weekdays >> first | weekdays << (7 - first)) & 0x7f;
        // The week, five times over.
        (from_first * 0x1020_4081) << 1
    }

    fn nth_weekdays(&self, nth: &[u8; 7]) -> u64 {
        let mut days = 0;
        let first_day = self.first();
        for (weekday, &set) in (0..7).zip(nth) {
            let first = 1 + (weekday + 7 - first_day) % 7;
            for n in (1..=5).filter(|n| set & 1 << n != 0) {
                days |= 1 << (first + 7 * (n - 1));
            }
            if set & 1 != 0 {
                days |= 1 << (first + (self.len - first) / 7 * 7);
            }
        }
        days
    }

    /// The Monday-to-Friday day nearest to `day`, without leaving the month.
    fn nearest_weekday(&self, day: u32) -> u32 {
        let day = day.min(self.len);
        match (self.first() + day - 1) % 7 {
            6 if day == 1 => 3,
            6 => day - 1,
            0 if day == self.len => day - 2,
            0 => day + 1,
            _ => day,
        }
    }
}

fn date_time(year: i16, month: u32, day: u32, (hour, minute, second): (u32, u32, u32)) -> Option<DateTime> {
    DateTime::new(year, month as i8, day as i8, hour as i8, minute as i8, second as i8, 0).ok()
}

/// The first member, or the last.
fn nearest(set: u64, direction: Direction) -> Option<u32> {
    if set == 0 {
        return None;
    }
    Some(match direction {
        Direction::Forward => set.trailing_zeros(),
        Direction::Backward => 63 - set.leading_zeros(),
    })
}

/// The members from `value` on, or up to it. `value` is at most 63.
fn beyond(set: u64, value: u32, direction: Direction) -> u64 {
    match direction {
        Direction::Forward => set & u64::MAX << value,
        Direction::Backward => set & u64::MAX >> (63 - value),
    }
}
