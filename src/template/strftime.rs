//! Dates as text: Python's `strftime` and `strptime`, and pendulum's `format` tokens.

use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned};

use crate::jinja::{Res, meter};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// From Monday.
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// What a format reads: a wall-clock time and, if it is aware, its zone.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) at: DateTime,
    pub(super) zoned: Option<&'a Zoned>,
}

/// `strftime` of an instant in UTC.
pub(super) fn utc(at: Timestamp, format: &str) -> String {
    let zoned = at.to_zoned(TimeZone::UTC);
    strftime(Parts { at: zoned.datetime(), zoned: Some(&zoned) }, format)
}

fn month(at: DateTime) -> &'static str {
    MONTHS[at.month() as usize - 1]
}

fn day(at: DateTime) -> &'static str {
    DAYS[at.weekday().to_monday_zero_offset() as usize]
}

fn hour12(at: DateTime) -> i8 {
    match at.hour() % 12 {
        0 => 12,
        hour => hour,
    }
}

/// `+00:00`, or `+0000` with an empty separator.
pub(super) fn offset(offset: Offset, separator: &str) -> String {
    let seconds = offset.seconds();
    let (sign, seconds) = if seconds < 0 { ('-', -seconds) } else { ('+', seconds) };
    let mut text = format!("{sign}{:02}{separator}{:02}", seconds / 3600, seconds / 60 % 60);
    if seconds % 60 != 0 {
        text.push_str(&format!("{separator}{:02}", seconds % 60));
    }
    text
}

/// The offset that a text such as `+02:00` is.
pub(super) fn read_offset(text: &str) -> Option<Offset> {
    let mut reader = Reader { rest: text, fields: Fields::default() };
    if !text.starts_with(['+', '-']) {
        return None;
    }
    reader.offset().filter(|_| reader.rest.is_empty())
}

/// The zone's abbreviation, e.g. `UTC`, `EST`.
fn abbreviation(zoned: &Zoned) -> String {
    zoned.time_zone().to_offset_info(zoned.timestamp()).abbreviation().to_owned()
}

/// The week of the year, 0 to 53, whose first day is `first`; days before the first such day are week 0.
fn week_from(date: Date, first: Weekday) -> i16 {
    let since = i16::from(date.weekday().since(first));
    (date.day_of_year() + 6 - since) / 7
}

/// A format that a template gives. Each byte costs a step, since a short directive can become a long text.
///
/// # Errors
/// It is too long.
pub(super) fn weigh(format: &str) -> Res<()> {
    meter::step(format.len())
}

/// Python's `strftime` with glibc's extensions `%-d` (no padding) and `%s`. Unknown codes stay as they are, as in glibc.
pub(super) fn strftime(parts: Parts<'_>, format: &str) -> String {
    let mut out = String::with_capacity(format.len() * 2);
    let mut chars = format.chars().peekable();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        let is_unpadded = chars.next_if_eq(&'-').is_some();
        let Some(code) = chars.next() else {
            out.push('%');
            break;
        };
        match field(parts, code) {
            Some(text) if is_unpadded => {
                let short = text.trim_start_matches(['0', ' ']);
                out.push_str(if short.is_empty() { "0" } else { short });
            }
            Some(text) => out.push_str(&text),
            None => {
                out.push('%');
                out.extend(is_unpadded.then_some('-'));
                out.push(code);
            }
        }
    }
    out
}

fn field(parts: Parts<'_>, code: char) -> Option<String> {
    let Parts { at, zoned } = parts;
    let again = |format: &str| strftime(parts, format);
    Some(match code {
        'Y' => at.year().to_string(),
        'C' => format!("{:02}", at.year() / 100),
        'y' => format!("{:02}", at.year().rem_euclid(100)),
        'm' => format!("{:02}", at.month()),
        'd' => format!("{:02}", at.day()),
        'e' => format!("{:2}", at.day()),
        'H' => format!("{:02}", at.hour()),
        'k' => format!("{:2}", at.hour()),
        'I' => format!("{:02}", hour12(at)),
        'l' => format!("{:2}", hour12(at)),
        'M' => format!("{:02}", at.minute()),
        'S' => format!("{:02}", at.second()),
        'f' => format!("{:06}", at.subsec_nanosecond() / 1000),
        'j' => format!("{:03}", at.date().day_of_year()),
        'A' => day(at).to_owned(),
        'a' => day(at)[..3].to_owned(),
        'B' => month(at).to_owned(),
        'b' | 'h' => month(at)[..3].to_owned(),
        'p' => if at.hour() < 12 { "AM" } else { "PM" }.to_owned(),
        'P' => if at.hour() < 12 { "am" } else { "pm" }.to_owned(),
        'w' => at.weekday().to_sunday_zero_offset().to_string(),
        'u' => at.weekday().to_monday_one_offset().to_string(),
        'U' => format!("{:02}", week_from(at.date(), Weekday::Sunday)),
        'W' => format!("{:02}", week_from(at.date(), Weekday::Monday)),
        'V' => format!("{:02}", at.date().iso_week_date().week()),
        'G' => at.date().iso_week_date().year().to_string(),
        'g' => format!("{:02}", at.date().iso_week_date().year().rem_euclid(100)),
        'z' => zoned.map_or(String::new(), |zoned| offset(zoned.offset(), "")),
        'Z' => zoned.map_or(String::new(), abbreviation),
        's' => match zoned {
            Some(zoned) => zoned.timestamp().as_second().to_string(),
            None => at.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second().to_string(),
        },
        'F' => again("%Y-%m-%d"),
        'T' | 'X' => again("%H:%M:%S"),
        'R' => again("%H:%M"),
        'r' => again("%I:%M:%S %p"),
        'D' | 'x' => again("%m/%d/%y"),
        'c' => again("%a %b %e %H:%M:%S %Y"),
        'n' => "\n".to_owned(),
        't' => "\t".to_owned(),
        '%' => "%".to_owned(),
        _ => return None,
    })
}

/// pendulum's tokens, longest first, and those that stand for several.
const TOKENS: [&str; 44] = [
    "SSSSSS", "SSSSS", "SSSS", "LLLL", "YYYY", "MMMM", "DDDD", "dddd", "DDDo", "SSS", "MMM", "DDD", "ddd", "LLL",
    "LTS", "YY", "MM", "DD", "dd", "Do", "Mo", "Qo", "do", "HH", "hh", "mm", "ss", "SS", "ZZ", "zz", "LL", "LT", "L",
    "Y", "Q", "M", "D", "d", "E", "H", "h", "m", "s", "S",
];
const ONE_LETTER: &str = "AZxXz";

/// pendulum's `format`: tokens such as `YYYY-MM-DD`; text in `[…]` and what stands behind a backslash stay as they are.
pub(super) fn pendulum(parts: Parts<'_>, format: &str) -> String {
    let mut out = String::with_capacity(format.len() * 2);
    let mut rest = format;
    while let Some(first) = rest.chars().next() {
        if let Some(inside) = rest.strip_prefix('[')
            && let Some(close) = inside.find(']')
        {
            out.push_str(&inside[..close]);
            rest = &inside[close + 1..];
        } else if let Some(escaped) = rest.strip_prefix('\\').filter(|escaped| !escaped.is_empty()) {
            let length = escaped.chars().next().map_or(0, char::len_utf8);
            out.push_str(&escaped[..length]);
            rest = &escaped[length..];
        } else if let Some(token) = TOKENS.iter().find(|token| rest.starts_with(**token)) {
            out.push_str(&token_text(parts, token));
            rest = &rest[token.len()..];
        } else if ONE_LETTER.contains(first) {
            out.push_str(&token_text(parts, &rest[..1]));
            rest = &rest[1..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

fn token_text(parts: Parts<'_>, token: &str) -> String {
    let Parts { at, zoned } = parts;
    let micros = at.subsec_nanosecond() / 1000;
    match token {
        "YYYY" => format!("{:04}", at.year()),
        "YY" => format!("{:02}", at.year().rem_euclid(100)),
        "Y" => at.year().to_string(),
        "Q" => quarter(at.date()).to_string(),
        "Qo" => ordinal(quarter(at.date()).into()),
        "MMMM" => month(at).to_owned(),
        "MMM" => month(at)[..3].to_owned(),
        "MM" => format!("{:02}", at.month()),
        "M" => at.month().to_string(),
        "Mo" => ordinal(at.month().into()),
        "DDDD" => format!("{:03}", at.date().day_of_year()),
        "DDD" => at.date().day_of_year().to_string(),
        "DDDo" => ordinal(at.date().day_of_year()),
        "DD" => format!("{:02}", at.day()),
        "D" => at.day().to_string(),
        "Do" => ordinal(at.day().into()),
        "dddd" => day(at).to_owned(),
        "ddd" => day(at)[..3].to_owned(),
        "dd" => day(at)[..2].to_owned(),
        "d" => at.weekday().to_sunday_zero_offset().to_string(),
        "do" => ordinal(at.weekday().to_monday_one_offset().into()),
        "E" => at.weekday().to_monday_one_offset().to_string(),
        "HH" => format!("{:02}", at.hour()),
        "H" => at.hour().to_string(),
        "hh" => format!("{:02}", hour12(at)),
        "h" => hour12(at).to_string(),
        "mm" => format!("{:02}", at.minute()),
        "m" => at.minute().to_string(),
        "ss" => format!("{:02}", at.second()),
        "s" => at.second().to_string(),
        "A" => if at.hour() < 12 { "AM" } else { "PM" }.to_owned(),
        "ZZ" => zoned.map_or(String::new(), |zoned| offset(zoned.offset(), "")),
        "Z" => zoned.map_or(String::new(), |zoned| offset(zoned.offset(), ":")),
        "zz" => zoned.map_or(String::new(), abbreviation),
        "z" => zoned.and_then(|zoned| zoned.time_zone().iana_name()).unwrap_or_default().to_owned(),
        "X" => zoned.map_or(String::new(), |zoned| zoned.timestamp().as_second().to_string()),
        "x" => zoned.map_or(String::new(), |zoned| zoned.timestamp().as_millisecond().to_string()),
        "LTS" => pendulum(parts, "h:mm:ss A"),
        "LT" => pendulum(parts, "h:mm A"),
        "L" => pendulum(parts, "MM/DD/YYYY"),
        "LL" => pendulum(parts, "MMMM D, YYYY"),
        "LLL" => pendulum(parts, "MMMM D, YYYY h:mm A"),
        "LLLL" => pendulum(parts, "dddd, MMMM D, YYYY h:mm A"),
        // S to SSSSSS: that many digits of the fraction.
        fraction => format!("{micros:06}")[..fraction.len()].to_owned(),
    }
}

pub(super) fn quarter(date: Date) -> i8 {
    (date.month() + 2) / 3
}

fn ordinal(number: i16) -> String {
    let ending = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// Python's `strptime`; the offset is given when the format reads one.
///
/// # Errors
/// Python's sentence.
pub(super) fn strptime(text: &str, format: &str) -> Result<(DateTime, Option<Offset>), String> {
    let mismatch = || format!("time data {} does not match format {}", quoted(text), quoted(format));
    let mut reader = Reader { rest: text, fields: Fields::default() };
    let mut codes = format.chars();
    while let Some(char) = codes.next() {
        let read = if char == '%' {
            let code = codes.next().ok_or_else(|| format!("stray %% in format {}", quoted(format)))?;
            reader.read(code)
        } else if char.is_whitespace() {
            reader.rest = reader.rest.trim_start();
            Some(())
        } else {
            reader.literal(char)
        };
        read.ok_or_else(mismatch)?;
    }
    if !reader.rest.is_empty() {
        return Err(format!("unconverted data remains: {}", reader.rest));
    }
    let offset = reader.fields.offset;
    reader.fields.settle().map(|at| (at, offset)).ok_or_else(mismatch)
}

/// A text as Python's `repr` shows it.
pub(super) fn quoted(text: &str) -> String {
    crate::jinja::print::quoted(text)
}

struct Reader<'a> {
    rest: &'a str,
    fields: Fields,
}

struct Fields {
    year: i16,
    month: i8,
    day: i8,
    day_of_year: Option<i16>,
    hour: i8,
    is_afternoon: Option<bool>,
    minute: i8,
    second: i8,
    nanosecond: i32,
    offset: Option<Offset>,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            year: 1900,
            month: 1,
            day: 1,
            day_of_year: None,
            hour: 0,
            is_afternoon: None,
            minute: 0,
            second: 0,
            nanosecond: 0,
            offset: None,
        }
    }
}

impl Fields {
    fn settle(self) -> Option<DateTime> {
        let hour = match self.is_afternoon {
            Some(is_afternoon) => self.hour % 12 + if is_afternoon { 12 } else { 0 },
            None => self.hour,
        };
        let date = match self.day_of_year {
            Some(day) => Date::new(self.year, 1, 1).ok()?.with().day_of_year(day).build().ok()?,
            None => Date::new(self.year, self.month, self.day).ok()?,
        };
        let time = jiff::civil::Time::new(hour, self.minute, self.second, self.nanosecond).ok()?;
        Some(date.to_datetime(time))
    }
}

impl Reader<'_> {
    fn literal(&mut self, char: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(char)?;
        Some(())
    }

    fn digits(&mut self, most: usize) -> Option<&str> {
        let length = self.rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.rest.split_at_checked(length).filter(|_| length > 0)?;
        self.rest = rest;
        Some(digits)
    }

    fn number<T: std::str::FromStr>(&mut self, most: usize) -> Option<T> {
        self.digits(most)?.parse().ok()
    }

    /// Reads one of the names, whole or its first three letters; gives its place.
    fn name(&mut self, names: &[&str]) -> Option<usize> {
        for is_whole in [true, false] {
            for (at, name) in names.iter().enumerate() {
                let name = if is_whole { name } else { &name[..name.len().min(3)] };
                if self.rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)) {
                    self.rest = &self.rest[name.len()..];
                    return Some(at);
                }
            }
        }
        None
    }

    fn read(&mut self, code: char) -> Option<()> {
        match code {
            'Y' => {
                let digits = self.digits(4).filter(|digits| digits.len() == 4)?;
                self.fields.year = digits.parse().ok()?;
            }
            'y' => {
                let year: i16 = self.number(2)?;
                self.fields.year = if year < 69 { 2000 + year } else { 1900 + year };
            }
            'm' => self.fields.month = self.number(2)?,
            'd' | 'e' => self.fields.day = self.number(2)?,
            'j' => self.fields.day_of_year = Some(self.number(3)?),
            'H' | 'I' => self.fields.hour = self.number(2)?,
            'M' => self.fields.minute = self.number(2)?,
            'S' => self.fields.second = self.number(2)?,
            'f' => {
                let digits = self.digits(6)?;
                self.fields.nanosecond = format!("{digits:0<9}").parse().ok()?;
            }
            'p' => self.fields.is_afternoon = Some(self.name(&["AM", "PM"])? == 1),
            'A' | 'a' => {
                self.name(&DAYS)?;
            }
            'B' | 'b' => self.fields.month = self.name(&MONTHS)? as i8 + 1,
            'z' => self.fields.offset = Some(self.offset()?),
            'Z' => {
                self.rest = self.rest.strip_prefix("UTC").or_else(|| self.rest.strip_prefix("GMT"))?;
            }
            '%' => self.literal('%')?,
            _ => return None,
        }
        Some(())
    }

    fn offset(&mut self) -> Option<Offset> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Some(Offset::UTC);
        }
        let is_behind = self.rest.starts_with('-');
        self.rest = self.rest.strip_prefix(['+', '-'])?;
        let hours: i32 = self.number(2)?;
        self.rest = self.rest.strip_prefix(':').unwrap_or(self.rest);
        let minutes: i32 = self.number(2)?;
        let seconds = hours * 3600 + minutes * 60;
        Offset::from_seconds(if is_behind { -seconds } else { seconds }).ok()
    }
}
