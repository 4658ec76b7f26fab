//! When a line of a crontab fires: the five fields or the nickname, read as Vixie's cron and cronie read them.
//!
//! Knows no zone; [`fires`](super::fires) finds the instants, [`expression`](super::expression) says the same to minflow.

use std::ops::Range;

use jiff::civil::{Date, DateTime};

use crate::diagnostic::did_you_mean;

/// What a field may hold.
struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", low: 0, high: 59, names: &[] },
    Field { name: "hour", low: 0, high: 23, names: &[] },
    Field { name: "day of month", low: 1, high: 31, names: &[] },
    Field {
        name: "month",
        low: 1,
        high: 12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    Field { name: "day of week", low: 0, high: 7, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

/// cron's nicknames, which it knows in lower case only, and the fields that they stand for.
const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// No day suits an expression within so many years: it never fires. Leap days that must fall on a day of the week come within 40.
const YEARS: i16 = 50;

/// The fields of a line as bit masks: bit `n` is value `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    pub(super) minutes: u64,
    pub(super) hours: u64,
    pub(super) days: u64,
    pub(super) months: u64,
    /// Sunday is bit 0.
    pub(super) weekdays: u64,
    /// Which fields begin with `*`, as in `*/2`: cron treats them apart.
    pub(super) stars: Stars,
}

/// Fields whose text begins with `*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stars {
    /// Of minute or hour. Such a line follows the clock through its changes; any other runs once for each time that it names.
    pub(super) of_time: bool,
    /// Of day of month or day of week: then both must suit a day, otherwise one of them is enough.
    pub(super) of_day: bool,
}

/// What is wrong with a field. `range` is in bytes of the text that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhenFault {
    pub range: Range<usize>,
    pub message: String,
    pub help: String,
}

impl When {
    /// Reads `@daily` and its like, without the command behind it.
    ///
    /// # Errors
    /// cron knows no such nickname. `@reboot` is none of these: it names no time.
    pub fn of_nickname(text: &str) -> Result<Self, WhenFault> {
        if let Some((_, fields)) = NICKNAMES.iter().find(|(name, _)| *name == text) {
            let fields: Vec<&str> = fields.split(' ').collect();
            return Self::of_fields([0, 1, 2, 3, 4].map(|n| (fields[n], 0)));
        }
        let known = NICKNAMES.iter().map(|(name, _)| *name).chain(["@reboot"]);
        let help = match did_you_mean(text, known) {
            Some(name) => format!("did you mean `{name}`?"),
            None => {
                "cron knows @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually and @reboot".to_owned()
            }
        };
        Err(WhenFault { range: 0..text.len(), message: format!("cron knows no `{text}`"), help })
    }

    /// Reads five fields, each with the place where it begins.
    ///
    /// # Errors
    /// What the first bad field holds, and what to write instead.
    pub fn of_fields(texts: [(&str, usize); 5]) -> Result<Self, WhenFault> {
        let mut masks = [0; 5];
        for ((mask, field), (text, at)) in masks.iter_mut().zip(&FIELDS).zip(texts) {
            *mask = field.read(text, at)?;
        }
        let [minutes, hours, days, months, weekdays] = masks;
        let has_star = |n: usize| texts[n].0.starts_with('*');
        let stars = Stars { of_time: has_star(0) || has_star(1), of_day: has_star(2) || has_star(4) };
        let weekdays = (weekdays | weekdays >> 7) & 0x7f;
        Ok(Self { minutes, hours, days, months, weekdays, stars })
    }

    /// The rule of the two day fields.
    pub(super) fn has_day(&self, date: Date) -> bool {
        let day = self.days & 1 << date.day() != 0;
        let weekday = self.weekdays & 1 << date.weekday().to_sunday_zero_offset() != 0;
        if self.stars.of_day { day && weekday } else { day || weekday }
    }

    /// The first time that the fields name from `from` on and before `end`, on a calendar without zones. Null also if there is none
    /// within 50 years.
    pub(super) fn first_named(&self, from: DateTime, end: DateTime) -> Option<DateTime> {
        let mut date = from.date();
        let last_year = date.year().saturating_add(YEARS);
        while date <= end.date() && date.year() <= last_year {
            if self.months & 1 << date.month() == 0 {
                date = date.last_of_month().tomorrow().ok()?;
                continue;
            }
            if self.has_day(date) {
                // The seconds of `from` are past their minute.
                let is_first = date == from.date();
                let earliest = if is_first { minute_of_day(from) + u32::from(has_seconds(from)) } else { 0 };
                if let Some(found) = self.first_minute(earliest) {
                    let found = date.at((found / 60) as i8, (found % 60) as i8, 0, 0);
                    return (found < end).then_some(found);
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// The first minute of a day that the fields name, from `earliest` on.
    fn first_minute(&self, earliest: u32) -> Option<u32> {
        let (hour, minute) = (earliest / 60, earliest % 60);
        let first = |set: u64| (set != 0).then(|| set.trailing_zeros());
        let from = |set: u64, value: u32| if value > 63 { None } else { first(set & u64::MAX << value) };
        if hour < 24
            && self.hours & 1 << hour != 0
            && let Some(minute) = from(self.minutes, minute)
        {
            return Some(hour * 60 + minute);
        }
        Some(from(self.hours, hour + 1)? * 60 + first(self.minutes)?)
    }
}

fn minute_of_day(at: DateTime) -> u32 {
    at.hour() as u32 * 60 + at.minute() as u32
}

fn has_seconds(at: DateTime) -> bool {
    at.second() != 0 || at.subsec_nanosecond() != 0
}

impl Field {
    /// `range {"," range}`
    fn read(&self, text: &str, at: usize) -> Result<u64, WhenFault> {
        let mut mask = 0;
        let mut from = at;
        for item in text.split(',') {
            mask |= self.range(item, text, from)?;
            from += item.len() + 1;
        }
        Ok(mask)
    }

    /// `*`, `*/n`, `a`, `a-b`, `a-b/n`
    fn range(&self, item: &str, text: &str, at: usize) -> Result<u64, WhenFault> {
        let Self { name, low, high, .. } = *self;
        let refuse = |message: String, help: String| Err(WhenFault { range: at..at + item.len(), message, help });
        if item.is_empty() {
            return refuse(format!("a list in the {name} has an empty place"), self.allowed());
        }
        if item.contains('~') {
            let message = format!("`{item}`: cron picks the {name} at random each time that it reads the crontab");
            return refuse(
                message,
                format!("pick a {name} yourself: minflow's schedules give the same answer each time"),
            );
        }
        let (bounds, step) = item.split_once('/').map_or((item, None), |(bounds, step)| (bounds, Some(step)));
        let step = match step.map(number) {
            None => 1,
            Some(Some(0)) => return refuse(format!("the step in the {name} is at least 1"), self.allowed()),
            Some(Some(step)) => step,
            Some(None) => return refuse(format!("`{item}`: the step in the {name} is no number"), self.allowed()),
        };
        let (first, last) = match bounds.split_once('-') {
            _ if bounds == "*" => (low, high),
            Some((first, last)) => (self.value(first), self.value(last)).both(),
            None if item.contains('/') && self.value(bounds).is_some() => {
                let message = format!("`{item}`: cron takes a step after `*` or a range only");
                return refuse(
                    message,
                    format!("write `{bounds}-{high}/{step}` if that is what it means, else `{bounds}`"),
                );
            }
            None => (self.value(bounds), self.value(bounds)).both(),
        };
        if first == NOTHING {
            return refuse(format!("`{item}` is no {name}"), self.hint(text));
        }
        if first < low || last > high {
            return refuse(format!("`{item}` is out of range for the {name}"), self.allowed());
        }
        if first > last {
            let help = match (first, last) {
                (first, 0) if high == 7 => format!("write Sunday as 7: `{first}-7`"),
                _ => format!("write both parts: `{first}-{high},{low}-{last}`"),
            };
            return refuse(format!("`{item}` ends before it begins, so that cron refuses it or never runs it"), help);
        }
        Ok((first..=last).step_by(step as usize).fold(0, |mask, value| mask | 1 << value))
    }

    fn value(&self, text: &str) -> Option<u32> {
        let named = || self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        number(text).or_else(|| Some(named()? as u32 + self.low))
    }

    fn allowed(&self) -> String {
        let Self { name, low, high, .. } = self;
        let names = match self.names {
            [first, .., last] => format!(" or a name from `{first}` to `{last}`"),
            _ => String::new(),
        };
        format!(
            "the {name} is `*`, {low} to {high}{names}, a range `a-b`, a step `*/n` or `a-b/n`, or a list of these with commas"
        )
    }

    /// What has most likely gone wrong with a field that is none.
    fn hint(&self, text: &str) -> String {
        if text.contains(['L', 'W', '#', '?', 'H']) {
            return format!("cron knows no `{text}`, though other schedulers do; {}", self.allowed());
        }
        self.allowed()
    }
}

/// What stands for "no value": larger than any.
const NOTHING: u32 = u32::MAX;

trait Both {
    /// The two values, or twice [`NOTHING`].
    fn both(self) -> (u32, u32);
}

impl Both for (Option<u32>, Option<u32>) {
    fn both(self) -> (u32, u32) {
        self.0.zip(self.1).unwrap_or((NOTHING, NOTHING))
    }
}

/// Digits alone; what has too many is out of every range.
fn number(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(NOTHING - 1))
}
