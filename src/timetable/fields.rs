//! One field of a cron expression in croniter's dialect (SEMANTICS 6.2): text to a set of values, or what is wrong and where.
//!
//! Knows the fields one by one; what they mean together is [`cron`](super::cron)'s.

use std::ops::Range;

use super::ScheduleError;

/// What a field may hold.
pub(super) struct Field {
    pub(super) name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
    /// The number of the first name.
    first_name: u32,
    allowed: &'static str,
}

pub(super) const MINUTE: Field = Field {
    name: "minute",
    min: 0,
    max: 59,
    names: &[],
    first_name: 0,
    allowed: "the minute is `*`, 0 to 59, a range `0-30`, a step `*/5`, or a list of these with commas",
};
pub(super) const HOUR: Field = Field {
    name: "hour",
    min: 0,
    max: 23,
    names: &[],
    first_name: 0,
    allowed: "the hour is `*`, 0 to 23, a range `9-17`, a step `*/2`, or a list of these with commas",
};
pub(super) const DAY: Field = Field {
    name: "day of month",
    min: 1,
    max: 31,
    names: &[],
    first_name: 0,
    allowed: "the day of month is `*`, `?`, 1 to 31, `L` for the last day, a range `1-7`, a step `*/10`, a list of these with commas, or \
              `15W` alone for the weekday nearest to a day",
};
pub(super) const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    first_name: 1,
    allowed: "the month is `*`, 1 to 12, `jan` to `dec`, a range `jan-mar`, a step `*/3`, or a list of these with commas",
};
pub(super) const WEEKDAY: Field = Field {
    name: "day of week",
    min: 0,
    max: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    first_name: 0,
    allowed: "the day of week is `*`, `?`, 0 to 7 (0 and 7 are Sunday), `sun` to `sat`, a range `mon-fri`, a step `*/2`, a list of these \
              with commas, `fri#2` for the second Friday of the month, or `L5` for its last",
};
pub(super) const SECOND: Field = Field {
    name: "second",
    min: 0,
    max: 59,
    names: &[],
    first_name: 0,
    allowed: "the second, the sixth field, is `*`, 0 to 59, a range `0-30`, a step `*/5`, or a list of these with commas",
};
pub(super) const YEAR: Field = Field {
    name: "year",
    min: 1970,
    max: 2099,
    names: &[],
    first_name: 0,
    allowed: "the year, the seventh field, is `*`, 1970 to 2099, a range `2025-2030`, a step `2025/2`, or a list of these with commas",
};

impl Field {
    fn is_weekday(&self) -> bool {
        self.max == WEEKDAY.max
    }

    fn is_day(&self) -> bool {
        self.max == DAY.max
    }

    fn len(&self) -> u32 {
        self.max - self.min + 1
    }

    pub(super) fn fault(&self, range: Range<usize>, message: impl Into<String>) -> ScheduleError {
        ScheduleError { message: message.into(), help: self.allowed.to_owned(), range }
    }

    /// A number or a name; 7 is Sunday among weekdays. Not checked against the field's bounds.
    fn value(&self, text: &str) -> Option<u32> {
        if is_number(text) {
            // More digits than fit are out of every field's range all the same.
            let value = text.parse().unwrap_or(u32::MAX);
            return Some(if self.is_weekday() && value == 7 { 0 } else { value });
        }
        let at = self.names.iter().position(|name| name.eq_ignore_ascii_case(text))?;
        Some(at as u32 + self.first_name)
    }

    /// A number of at most four digits that is one of the field's values.
    fn plain_number(&self, text: &str) -> Option<u32> {
        if text.is_empty() || text.len() > 4 {
            return None;
        }
        let mut value = 0;
        for digit in text.bytes() {
            value = value * 10 + u32::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
        }
        (self.min..=self.max).contains(&value).then_some(value)
    }

    /// `from` to `to` in steps, as far as they lie within the field.
    fn steps(&self, from: u32, to: u32, step: u32) -> Set {
        let mut set = Set::default();
        let to = to.min(self.max);
        if step == 1 {
            set.insert_range(self.offset(from), self.offset(to));
        } else {
            (from..=to).step_by(step as usize).for_each(|value| set.insert(self.offset(value)));
        }
        set
    }

    /// Years are kept from 1970 on, everything else as it is.
    fn offset(&self, value: u32) -> u32 {
        if self.min == YEAR.min { value - YEAR.min } else { value }
    }
}

/// A part of the expression, and where it begins.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

impl Piece<'_> {
    pub(super) fn range(self) -> Range<usize> {
        self.at..self.at + self.text.len()
    }
}

/// Values of a field: bit `n` is value `n`, of years 1970 + `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set([u64; 3]);

impl Set {
    fn insert(&mut self, bit: u32) {
        self.0[bit as usize / 64] |= 1 << (bit % 64);
    }

    fn insert_range(&mut self, from: u32, to: u32) {
        for (word, low) in self.0.iter_mut().zip([0, 64, 128]) {
            if from < low + 64 && to >= low && from <= to {
                let head = u64::MAX << from.saturating_sub(low);
                let tail = u64::MAX >> 63u32.saturating_sub(to - low);
                *word |= head & tail;
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(word, more)| *word |= more);
    }

    pub(super) fn contains(&self, bit: u32) -> bool {
        self.0.get(bit as usize / 64).is_some_and(|word| word & 1 << (bit % 64) != 0)
    }

    fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// The first 64 values: all of them, but for years.
    pub(super) fn low(&self) -> u64 {
        self.0[0]
    }
}

/// The values of a field as croniter lists them: numbers, with `*` and `l` beside them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Values {
    pub(super) set: Set,
    pub(super) star: bool,
    pub(super) last: bool,
}

/// What `*` alone gives.
pub(super) const ANY: Values = Values { set: Set([0; 3]), star: true, last: false };

impl Values {
    pub(super) fn only(value: u8) -> Self {
        let mut values = Self::default();
        values.set.insert(u32::from(value));
        values
    }

    fn len(&self) -> u32 {
        self.set.len() + u32::from(self.star) + u32::from(self.last)
    }

    /// croniter makes `*` of a list as long as its field has values. `allowed` is false for a day field when the other one
    /// holds no `*`: there, `1-31` must stay a restriction, so that either field is enough.
    pub(super) fn collapsed(self, field: &Field, allowed: bool) -> Self {
        if allowed && self.len() == field.len() { ANY } else { self }
    }

    /// The values that match; `*` among them makes it all.
    pub(super) fn mask(&self, field: &Field) -> u64 {
        if self.star { field.steps(field.min, field.max, 1).low() } else { self.set.low() }
    }

    /// The numbers, in order.
    pub(super) fn numbers(&self, field: &Field) -> impl Iterator<Item = u32> {
        let (min, set) = (field.min - field.offset(field.min), self.set);
        (0..192).filter(move |bit| set.contains(*bit)).map(move |bit| bit + min)
    }
}

/// By weekday, bit `n` for its n-th day in the month, bit 0 for its last.
pub(super) type Nth = [u8; 7];

/// Reads a field; what is said of `#` and `L` weekdays is added to `nth`.
pub(super) fn read_field(field: &Field, piece: Piece<'_>, nth: &mut Nth) -> Result<Values, ScheduleError> {
    if piece.text.contains('?') {
        return read_question_mark(field, piece);
    }
    if let Some(kind) = hashed_or_random(piece.text) {
        let message =
            format!("`{}`: a {kind} {} is not supported, its values must be written out", piece.text, field.name);
        return Err(field.fault(piece.range(), message));
    }
    let mut values = Values::default();
    let mut at = piece.at;
    for text in piece.text.split(',') {
        let item = Piece { text, at };
        at += text.len() + 1;
        // Long lists are of plain numbers, as a rule.
        if let Some(value) = field.plain_number(text) {
            values.set.insert(field.offset(value));
            continue;
        }
        if text.is_empty() {
            return Err(field.fault(piece.range(), format!("a list in the {} has an empty place", field.name)));
        }
        read_item(field, item, &mut values, nth)?;
    }
    Ok(values)
}

fn read_question_mark(field: &Field, piece: Piece<'_>) -> Result<Values, ScheduleError> {
    if piece.text != "?" {
        let message = format!("`?` stands alone in the {}, not as in `{}`", field.name, piece.text);
        return Err(field.fault(piece.range(), message));
    }
    if !field.is_day() && !field.is_weekday() {
        return Err(field.fault(piece.range(), format!("`?` is not allowed as {}", field.name)));
    }
    Ok(ANY)
}

/// `H`, `R(1-5)`, `H/3`: Jenkins' and croniter's ways to leave the value to the machine.
fn hashed_or_random(text: &str) -> Option<&'static str> {
    let (first, rest) = text.split_at_checked(1)?;
    if !rest.is_empty() && !rest.starts_with(['(', '/', ',', '-']) {
        return None;
    }
    match first {
        "h" | "H" => Some("hashed"),
        "r" | "R" => Some("random"),
        _ => None,
    }
}

/// One place of a list.
fn read_item(field: &Field, item: Piece<'_>, values: &mut Values, nth: &mut Nth) -> Result<(), ScheduleError> {
    if item.text == "*" {
        values.star = true;
        return Ok(());
    }
    if field.is_day() && item.text.eq_ignore_ascii_case("l") {
        values.last = true;
        return Ok(());
    }
    if field.is_weekday()
        && let Some((text, occurrence)) = named_weekday(field, item)?
    {
        let set = read_range(field, item, text)?;
        (0..7).filter(|&day| set.contains(day)).for_each(|day| nth[day as usize] |= 1 << occurrence);
        values.set.add(set);
        return Ok(());
    }
    values.set.add(read_range(field, item, item.text)?);
    Ok(())
}

/// `fri#2`, `mon-fri#1` (of names only), `l5`: the weekdays, and which of the month (0: the last).
fn named_weekday<'a>(field: &Field, item: Piece<'a>) -> Result<Option<(&'a str, u8)>, ScheduleError> {
    if let Some(day) = item.text.strip_prefix(['l', 'L'])
        && is_number(day)
    {
        return Ok(Some((day, 0)));
    }
    let Some((days, occurrence)) = item.text.split_once('#') else {
        return Ok(None);
    };
    let is_name = |day: &str| field.names.iter().any(|name| name.eq_ignore_ascii_case(day));
    if days.is_empty() || days.contains(['*', '/']) || (days.contains('-') && !days.split('-').all(is_name)) {
        return Err(field.fault(item.range(), format!("`{}` is no day of week of the month", item.text)));
    }
    match occurrence.parse::<u8>() {
        Ok(occurrence @ 1..=5) if is_number(&item.text[days.len() + 1..]) => Ok(Some((days, occurrence))),
        _ => Err(field.fault(item.range(), format!("`{}`: what follows `#` in the day of week is 1 to 5", item.text))),
    }
}

/// `a`, `a-b`, `a-b/n`, `*/n`, `a/n`.
fn read_range(field: &Field, item: Piece<'_>, text: &str) -> Result<Set, ScheduleError> {
    let refuse = |message: String| field.fault(item.range(), message);
    let (bounds, step) = match text.split_once('/') {
        Some((bounds, step)) => (bounds, Some(step)),
        None => (text, None),
    };
    let width = match step {
        None => 1,
        Some(step) if is_number(step) => step.parse().unwrap_or(u32::MAX),
        Some(step) => return Err(refuse(format!("the step `{step}` in the {} is no number", field.name))),
    };
    if width == 0 {
        return Err(refuse(format!("the step in the {} is at least 1", field.name)));
    }
    let (low, high) = (field.min, field.max);
    if bounds == "*" {
        return Ok(field.steps(low, high, width));
    }
    let (from, to) = match bounds.split_once('-') {
        Some((from, to)) => (from, Some(to)),
        None => (bounds, None),
    };
    let read = |text: &str| match field.value(text) {
        Some(value) if value > high => Err(refuse(format!("`{text}` is out of range for the {}", field.name))),
        Some(value) => Ok(value),
        None => Err(refuse(format!("`{}` is no {}", item.text, field.name))),
    };
    let start = read(from)?;
    let end = match to {
        Some(to) if field.is_day() && to.eq_ignore_ascii_case("l") => high,
        Some(to) => read(to)?,
        // `a/n` ends with the field.
        None if step.is_some() => high,
        None => start,
    };
    // croniter: a range of equal ends that is written out is the whole field, even if the end is none of its values.
    if end == start && to.is_some() {
        return Ok(field.steps(low, high, width));
    }
    if start < low {
        return Err(refuse(format!("`{}` is out of range for the {}", item.text, field.name)));
    }
    Ok(if end < start { wrapped(field, start, end, width) } else { field.steps(start, end, width) })
}

/// `22-3`: to the end of the field and on from its beginning. With a step, croniter goes on one value later than the step alone
/// would, where the step reaches past the end.
fn wrapped(field: &Field, start: u32, end: u32, step: u32) -> Set {
    let (low, high) = (field.min, field.max);
    let mut set = field.steps(start, high, step);
    let last = start + (high - start) / step * step;
    let after_last = high - last;
    let reaches_past = u64::from(last - low) + u64::from(step) > u64::from(field.len());
    let skipped = if reaches_past && after_last < step { step - after_last } else { 0 };
    let tail = low.saturating_add(skipped);
    if tail <= end {
        set.add(field.steps(tail, end, step));
    }
    set
}

/// `15W` or `W15`, alone in the field.
pub(super) fn read_nearest_weekday(piece: Piece<'_>) -> Result<Option<u8>, ScheduleError> {
    if !piece.text.contains(['w', 'W']) {
        return Ok(None);
    }
    let day = piece.text.strip_suffix(['w', 'W']).or_else(|| piece.text.strip_prefix(['w', 'W'])).unwrap_or("");
    match DAY.value(day) {
        Some(day @ 1..=31) => Ok(Some(day as u8)),
        Some(_) => Err(DAY.fault(piece.range(), format!("`{day}` is out of range for the day of month"))),
        None => {
            let message = format!("`W` stands with one day of month alone, as in `15W`, not as in `{}`", piece.text);
            Err(DAY.fault(piece.range(), message))
        }
    }
}

/// croniter: plain weekdays beside `#` or `L` ones are refused, unless they have one too, or the field names the whole week.
pub(super) fn refuse_mixed_weekdays(weekdays: &Values, nth: &Nth, piece: Piece<'_>) -> Result<(), ScheduleError> {
    let named = (0..7).filter(|&day| nth[day] != 0).fold(0, |set: u64, day| set | 1 << day);
    if named == 0 || weekdays.set.low() & !named == 0 || weekdays.len() == WEEKDAY.len() {
        return Ok(());
    }
    let message = "plain days cannot stand beside `#` or `L` ones in the day of week";
    Err(WEEKDAY.fault(piece.range(), message))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
