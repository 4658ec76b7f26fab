//! Cron expressions of five fields in croniter's dialect (SEMANTICS 6.2): text to sets of values, or what is wrong and where.
//!
//! Knows no zone and no instant; [`search`](super::search) finds the matches on the naive calendar.

use std::ops::Range;

use super::ScheduleError;
use crate::diagnostic::did_you_mean;

/// Airflow's presets, which it looks up as written, before croniter sees them.
const PRESETS: [(&str, &str); 6] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@quarterly", "0 0 1 */3 *"),
    ("@yearly", "0 0 1 1 *"),
];

/// croniter's own, which it looks up in lower case. `@quarterly` is not among them.
const CRONITER_PRESETS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

const PRESET_NAMES: &str = "@hourly, @daily, @midnight, @weekly, @monthly, @quarterly, @yearly, @annually";

/// A parsed expression. Sets are bit masks: bit `n` is value `n`; Sunday is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    pub(super) minutes: u64,
    pub(super) hours: u64,
    /// The hour field is `*`: wall-clock jumps are ignored (SEMANTICS 6.3).
    pub(super) every_hour: bool,
    pub(super) months: u64,
    /// The days of a match: a day must suit one of these.
    pub(super) days: DayRule,
}

/// Which days match, of those in a matching month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DayRule {
    /// Days of the month; null for all.
    pub(super) days: Option<DaysOfMonth>,
    /// Days of the week; null for all.
    pub(super) weekdays: Option<u64>,
    /// Both of the above are restricted: one of them is enough.
    pub(super) either: bool,
    /// `15W`: the weekday nearest to this day replaces `days`.
    pub(super) nearest: Option<u8>,
    /// By weekday, bit `n` for its n-th day in the month, bit 0 for its last: replaces `weekdays` if any is set.
    pub(super) nth: [u8; 7],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DaysOfMonth {
    pub(super) set: u64,
    /// `L`.
    pub(super) last: bool,
}

impl Cron {
    /// Reads five fields or a preset. The `range` of an error is in bytes of `text`.
    ///
    /// # Errors
    /// What the first bad field holds, and what it may hold.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let lower = text.to_ascii_lowercase();
        let preset = PRESETS.iter().find(|(name, _)| *name == text);
        let preset = preset.or_else(|| CRONITER_PRESETS.iter().find(|(name, _)| *name == lower));
        if let Some((_, fields)) = preset {
            return Self::parse_fields(fields);
        }
        if text.trim_start().starts_with('@') {
            return Err(unknown_preset(text));
        }
        Self::parse_fields(&lower)
    }

    fn parse_fields(lower: &str) -> Result<Self, ScheduleError> {
        let pieces = split(lower);
        let &[minute, hour, dom, month, dow] = &pieces[..] else {
            return Err(wrong_count(lower, pieces.len()));
        };
        let mut nth = [0; 7];
        let mut nearest = None;
        let minutes = read_field(&MINUTE, minute, &mut nth)?.collapsed(&MINUTE, true);
        let hours = read_field(&HOUR, hour, &mut nth)?.collapsed(&HOUR, true);
        let days = match nearest_weekday(dom)? {
            Some(day) => {
                nearest = Some(day);
                Values { set: 1 << day, ..Values::default() }
            }
            None => read_field(&DAY, dom, &mut nth)?.collapsed(&DAY, dow.text.contains('*')),
        };
        let months = read_field(&MONTH, month, &mut nth)?.collapsed(&MONTH, true);
        let weekdays = read_field(&WEEKDAY, dow, &mut nth)?;
        refuse_mixed_weekdays(&weekdays, &nth, dow)?;
        let weekdays = weekdays.collapsed(&WEEKDAY, dom.text.contains('*'));
        Ok(Self {
            minutes: minutes.mask(&MINUTE),
            hours: hours.mask(&HOUR),
            every_hour: hours == ANY,
            months: months.mask(&MONTH),
            days: DayRule {
                days: (!days.star).then_some(DaysOfMonth { set: days.set, last: days.last }),
                weekdays: (!weekdays.star).then_some(weekdays.set),
                either: !days.star && !weekdays.star,
                nearest,
                nth,
            },
        })
    }
}

/// What a field may hold.
struct Field {
    name: &'static str,
    min: u8,
    max: u8,
    names: &'static [&'static str],
    /// The number of the first name.
    first_name: u8,
    allowed: &'static str,
}

const MINUTE: Field = Field {
    name: "minute",
    min: 0,
    max: 59,
    names: &[],
    first_name: 0,
    allowed: "the minute is `*`, 0 to 59, a range `0-30`, a step `*/5`, or a list of these with commas",
};
const HOUR: Field = Field {
    name: "hour",
    min: 0,
    max: 23,
    names: &[],
    first_name: 0,
    allowed: "the hour is `*`, 0 to 23, a range `9-17`, a step `*/2`, or a list of these with commas",
};
const DAY: Field = Field {
    name: "day of month",
    min: 1,
    max: 31,
    names: &[],
    first_name: 0,
    allowed: "the day of month is `*`, `?`, 1 to 31, `L` for the last day, a range `1-7`, a step `*/10`, a list of these with commas, or \
              `15W` alone for the weekday nearest to a day",
};
const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    first_name: 1,
    allowed: "the month is `*`, 1 to 12, `jan` to `dec`, a range `jan-mar`, a step `*/3`, or a list of these with commas",
};
const WEEKDAY: Field = Field {
    name: "day of week",
    min: 0,
    max: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    first_name: 0,
    allowed: "the day of week is `*`, `?`, 0 to 7 (0 and 7 are Sunday), `sun` to `sat`, a range `mon-fri`, a step `*/2`, a list of these \
              with commas, `fri#2` for the second Friday of the month, or `L5` for its last",
};

impl Field {
    fn is_weekday(&self) -> bool {
        self.max == WEEKDAY.max
    }

    fn is_day(&self) -> bool {
        self.max == DAY.max
    }

    fn fault(&self, range: Range<usize>, message: impl Into<String>) -> ScheduleError {
        ScheduleError { message: message.into(), help: self.allowed.to_owned(), range }
    }

    /// A number or a name; 7 is Sunday among weekdays. Not checked against the field's bounds.
    fn value(&self, text: &str) -> Option<u32> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // More digits than fit are out of every field's range all the same.
            let value = text.parse().unwrap_or(u32::MAX);
            return Some(if self.is_weekday() && value == 7 { 0 } else { value });
        }
        let at = self.names.iter().position(|name| *name == text)?;
        Some(at as u32 + u32::from(self.first_name))
    }
}

/// A part of the expression, and where it begins.
#[derive(Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    at: usize,
}

impl Piece<'_> {
    fn range(self) -> Range<usize> {
        self.at..self.at + self.text.len()
    }
}

/// The values of a field: croniter's list, with `*` and `l` beside the numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Values {
    set: u64,
    star: bool,
    last: bool,
}

const ANY: Values = Values { set: 0, star: true, last: false };

impl Values {
    /// croniter makes `*` of a list as long as its field has values. `allowed` is false for a day field when the other one
    /// holds no `*`: there, `1-31` must stay a restriction, so that either field is enough.
    fn collapsed(self, field: &Field, allowed: bool) -> Self {
        let len = self.set.count_ones() + u32::from(self.star) + u32::from(self.last);
        if allowed && len == u32::from(field.max - field.min) + 1 { ANY } else { self }
    }

    fn mask(self, field: &Field) -> u64 {
        if self.star { mask(u32::from(field.min), u32::from(field.max), 1) } else { self.set }
    }
}

/// The bits `from..=to`, each `step`-th.
fn mask(from: u32, to: u32, step: u32) -> u64 {
    (from..=to).step_by(step as usize).fold(0, |set, value| set | 1 << value)
}

fn split(text: &str) -> Vec<Piece<'_>> {
    let start = text.as_ptr() as usize;
    text.split_ascii_whitespace().map(|piece| Piece { text: piece, at: piece.as_ptr() as usize - start }).collect()
}

fn read_field(field: &Field, piece: Piece<'_>, nth: &mut [u8; 7]) -> Result<Values, ScheduleError> {
    if piece.text.contains('?') {
        if piece.text != "?" {
            return Err(
                field.fault(piece.range(), format!("`?` stands alone in its field, not as in `{}`", piece.text))
            );
        }
        if !field.is_day() && !field.is_weekday() {
            return Err(field.fault(piece.range(), format!("`?` is not allowed as {}", field.name)));
        }
        return Ok(ANY);
    }
    let mut values = Values::default();
    let mut at = piece.at;
    for text in piece.text.split(',') {
        let item = Piece { text, at };
        at += text.len() + 1;
        if text.is_empty() {
            return Err(field.fault(piece.range(), format!("a list in the {} has an empty place", field.name)));
        }
        read_item(field, item, &mut values, nth)?;
    }
    Ok(values)
}

/// One place of a list.
fn read_item(field: &Field, item: Piece<'_>, values: &mut Values, nth: &mut [u8; 7]) -> Result<(), ScheduleError> {
    if item.text == "*" {
        values.star = true;
        return Ok(());
    }
    if field.is_day() && item.text == "l" {
        values.last = true;
        return Ok(());
    }
    if field.is_weekday()
        && let Some((text, occurrence)) = named_weekday(field, item)?
    {
        let set = read_range(field, item, text)?;
        (0..7).filter(|day| set & 1 << day != 0).for_each(|day| nth[day] |= 1 << occurrence);
        values.set |= set;
        return Ok(());
    }
    values.set |= read_range(field, item, item.text)?;
    Ok(())
}

/// `fri#2`, `mon-fri#1` (of names only), `l5`: the weekdays, and which of the month (0: the last).
fn named_weekday<'a>(field: &Field, item: Piece<'a>) -> Result<Option<(&'a str, u8)>, ScheduleError> {
    if let Some(day) = item.text.strip_prefix('l')
        && !day.is_empty()
        && day.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Ok(Some((day, 0)));
    }
    let Some((days, occurrence)) = item.text.split_once('#') else {
        return Ok(None);
    };
    let ranges_of_names = days.split('-').all(|day| field.names.contains(&day));
    if days.is_empty() || days.contains(['*', '/']) || (days.contains('-') && !ranges_of_names) {
        return Err(field.fault(item.range(), format!("`{}` is no weekday of the month", item.text)));
    }
    match occurrence.parse::<u8>() {
        Ok(occurrence @ 1..=5) if !occurrence_has_sign(item.text) => Ok(Some((days, occurrence))),
        _ => Err(field.fault(item.range(), format!("`{}`: what follows `#` is 1 to 5", item.text))),
    }
}

fn occurrence_has_sign(text: &str) -> bool {
    text.contains("#+")
}

/// `a`, `a-b`, `a-b/n`, `*/n`, `a/n`.
fn read_range(field: &Field, item: Piece<'_>, text: &str) -> Result<u64, ScheduleError> {
    let refuse = |message: String| Err(field.fault(item.range(), message));
    let (bounds, step) = match text.split_once('/') {
        Some((bounds, step)) => (bounds, Some(step)),
        None => (text, None),
    };
    let width = match step {
        None => 1,
        Some(step) if !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit()) => {
            step.parse().unwrap_or(u32::MAX)
        }
        Some(step) => return refuse(format!("the step `{step}` in the {} is no number", field.name)),
    };
    if width == 0 {
        return refuse(format!("the step in the {} is at least 1", field.name));
    }
    let (low, high) = (u32::from(field.min), u32::from(field.max));
    if bounds == "*" {
        return Ok(mask(low, high, width));
    }
    let (from, to) = match bounds.split_once('-') {
        Some((from, to)) => (from, Some(to)),
        None => (bounds, None),
    };
    let read = |text: &str| match field.value(text) {
        Some(value) if value > high => Err(format!("`{text}` is out of range for the {}", field.name)),
        Some(value) => Ok(value),
        None if matches!(text, "h" | "r") => {
            Err(format!("`{}`: hashed and random fields are not supported", text.to_uppercase()))
        }
        None => Err(format!("`{}` is no {}", item.text, field.name)),
    };
    let start = match read(from) {
        Ok(start) => start,
        Err(message) => return refuse(message),
    };
    let end = match to {
        Some("l") if field.is_day() => Ok(high),
        Some(to) => read(to),
        // `a/n` ends with the field.
        None if step.is_some() => Ok(high),
        None => Ok(start),
    };
    let set = match end {
        Err(message) => return refuse(message),
        // croniter: a range of equal ends that is written out is the whole field.
        Ok(end) if end == start && to.is_some() => mask(low, high, width),
        Ok(end) if end < start => wrapped(field, start, end, width),
        Ok(end) => mask(start, end, width),
    };
    if set & mask(low, high, 1) != set {
        return refuse(format!("`{}` is out of range for the {}", item.text, field.name));
    }
    Ok(set)
}

/// `22-3`: to the end of the field and on from its beginning. With a step, croniter goes on one value later than the step alone
/// would, where the step reaches past the end.
fn wrapped(field: &Field, start: u32, end: u32, step: u32) -> u64 {
    let (low, high) = (u32::from(field.min), u32::from(field.max));
    let head = mask(start, high, step);
    let last = 63 - head.leading_zeros();
    let after_last = high - last;
    let reaches_past = u64::from(last - low) + u64::from(step) > u64::from(high - low + 1);
    let skipped = if reaches_past && after_last < step { step - after_last } else { 0 };
    let tail = low.saturating_add(skipped);
    if tail > end { head } else { head | mask(tail, end, step) }
}

/// `15W` or `W15`, alone in the field.
fn nearest_weekday(piece: Piece<'_>) -> Result<Option<u8>, ScheduleError> {
    if !piece.text.contains('w') {
        return Ok(None);
    }
    let day = piece.text.strip_suffix('w').or_else(|| piece.text.strip_prefix('w')).unwrap_or("");
    match DAY.value(day) {
        Some(day @ 1..=31) => Ok(Some(day as u8)),
        Some(_) => Err(DAY.fault(piece.range(), format!("`{day}` is out of range for the day of month"))),
        None => Err(
            DAY.fault(piece.range(), format!("`W` stands with one day alone, as in `15W`, not as in `{}`", piece.text))
        ),
    }
}

/// croniter: plain weekdays beside `#` or `L` ones are refused, unless they have one too, or the field names the whole week.
fn refuse_mixed_weekdays(weekdays: &Values, nth: &[u8; 7], piece: Piece<'_>) -> Result<(), ScheduleError> {
    let named = (0..7).filter(|&day| nth[day] != 0).fold(0, |set: u64, day| set | 1 << day);
    let len = weekdays.set.count_ones() + u32::from(weekdays.star);
    if named == 0 || weekdays.set & !named == 0 || len == 7 {
        return Ok(());
    }
    let message = "plain days of the week cannot stand beside `#` or `L` ones";
    Err(WEEKDAY.fault(piece.range(), message))
}

fn wrong_count(text: &str, count: usize) -> ScheduleError {
    let message = match count {
        0 => "the schedule is empty".to_owned(),
        1 => format!("a cron expression has five fields, and `{}` is none", text.trim()),
        6 | 7 => format!("a cron expression has five fields, not {count}: seconds and years are not supported"),
        _ => format!("a cron expression has five fields, not {count}"),
    };
    let help =
        format!("write `minute hour day-of-month month day-of-week`, e.g. `0 6 * * mon-fri`, or one of {PRESET_NAMES}");
    ScheduleError { message, help, range: 0..text.len() }
}

fn unknown_preset(text: &str) -> ScheduleError {
    let mut names: Vec<&str> = PRESET_NAMES.split(", ").collect();
    names.push("@once");
    let help = match did_you_mean(text, names) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!(
            "the presets are {PRESET_NAMES} and @once; for a fixed period write `schedule = {{ every = \"5m\" }}`"
        ),
    };
    ScheduleError { message: format!("unknown preset `{text}`"), help, range: 0..text.len() }
}
