//! What a change of the clocks does to a fire time: moved, repeated, lost (SEMANTICS 6.3). For people who want to see it coming.
//!
//! Knows expressions and zones; decides nothing.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::Cron;

/// One thing that is odd about a fire time. Wall times are those of the zone asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The expression names a time that the clocks skip: it fires at `at`, later by the length of the gap.
    Moved { named: DateTime, at: DateTime },
    /// The wall time comes twice, and this is the first of them: only what runs in every hour fires there.
    FirstOfTwo,
    /// The wall time comes twice, and this is the second of them. `is_repeat`: it has fired at the first one too.
    SecondOfTwo { is_repeat: bool },
    /// The expression names another time: what runs in every hour keeps its distance to the fire time before, also where that is days
    /// and the clocks change between them.
    Shifted { named: DateTime, at: DateTime },
    /// Times that the expression names do not fire: they lie in a gap of the clocks since the fire time before, or between its end and
    /// the place to which another time was moved.
    Lost { first: DateTime, count: u64 },
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Some zones have changed sides of the date line, and skipped a day.
            Self::Moved { named, at } if named.date() != at.date() => {
                write!(f, "{named} does not exist, so it runs at {at}")
            }
            Self::Moved { named, at } => {
                write!(f, "{} does not exist, so it runs at {}", named.time(), at.time())
            }
            Self::FirstOfTwo => f.write_str("the first of two such times"),
            Self::SecondOfTwo { is_repeat: true } => f.write_str("the second of two such times, of which both run"),
            Self::SecondOfTwo { is_repeat: false } => f.write_str("the second of two such times, of which one runs"),
            Self::Shifted { named, at } => {
                write!(f, "{} in place of {}: the distance counts, not the clock", at.time(), named.time())
            }
            Self::Lost { first, count: 1 } => write!(f, "{first} is passed over by the clocks, and does not run"),
            Self::Lost { first, count } => {
                write!(f, "{first} and {} more after it are passed over by the clocks, and do not run", count - 1)
            }
        }
    }
}

impl Cron {
    /// What is odd about the fire time that follows `before` in `zone`; null if none follows. Empty nearly always.
    pub fn marks_after(&self, before: Timestamp, zone: &TimeZone) -> Option<Vec<Mark>> {
        let fire = self.next(before, zone)?;
        let from = zone.to_datetime(before);
        let named = self.next_naive(from)?;
        let at = zone.to_datetime(fire);
        let mut marks = Vec::new();
        if self.is_every_hour() {
            // From hour to hour the clock may say what it likes; further on, the fire time is not the one that the fields name.
            let is_far = from.duration_until(named) > SignedDuration::from_hours(1);
            if at != named && (is_far || !self.names(at)) {
                marks.push(Mark::Shifted { named, at });
            }
        } else if at != named {
            marks.push(Mark::Moved { named, at });
        }
        if let AmbiguousOffset::Fold { after, .. } = zone.to_ambiguous_timestamp(at).offset() {
            marks.push(match zone.to_offset(fire) == after {
                true => Mark::SecondOfTwo { is_repeat: self.is_every_hour() },
                false => Mark::FirstOfTwo,
            });
        }
        let moved = Some(named).filter(|named| !self.is_every_hour() && *named != at);
        marks.extend(self.lost(before, fire, moved, zone));
        Some(marks)
    }

    /// The expression names this wall time.
    fn names(&self, at: DateTime) -> bool {
        let just_before = at.checked_sub(SignedDuration::from_nanos(1)).ok();
        just_before.and_then(|before| self.next_naive(before)) == Some(at)
    }

    /// Of the times that the clocks go over between two fire times, those that are not even moved.
    fn lost(&self, before: Timestamp, fire: Timestamp, moved: Option<DateTime>, zone: &TimeZone) -> Option<Mark> {
        let (mut first, mut count) = (None, 0);
        for change in zone.following(before).take_while(|change| change.timestamp() <= fire) {
            let just_before = change.timestamp().checked_sub(SignedDuration::from_nanos(1)).ok()?;
            // A fold ends before it begins, and has no times in it.
            let mut last = zone.to_datetime(just_before);
            let gap_end = change.offset().to_datetime(change.timestamp());
            let end = match moved.filter(|moved| last < *moved && *moved < gap_end) {
                Some(_) => zone.to_datetime(fire),
                None => gap_end,
            };
            while let Some(time) = self.next_naive(last).filter(|time| *time < end) {
                last = time;
                if Some(time) != moved {
                    first = first.or(Some(time));
                    count += 1;
                }
            }
        }
        Some(Mark::Lost { first: first?, count })
    }
}
