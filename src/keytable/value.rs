//! Values as users write them: durations, sizes, times, signals.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use serde_json::{Map, Number, Value};
use toml::de::DeValue;
use toml::value::Datetime;

use crate::model::dag::Period;

/// A hundred years: longer ones are slips of the pen, and sums with an instant must not overflow.
const MAX_SECONDS: u64 = 100 * 366 * 86_400;

const UNITS: [(&str, u64); 5] = [("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

const CALENDAR_UNITS: [(&str, u32); 2] = [("y", 12), ("mo", 1)];

/// `90s`, `1h30m`, `2d`: whole numbers with the units w, d, h, m, s, each at most once, larger ones first.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut seconds = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let unit_length = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (_, factor) = units.find(|(unit, _)| *unit == &after[..unit_length])?;
        seconds = seconds.checked_add(number.checked_mul(*factor)?)?;
        rest = &after[unit_length..];
    }
    let given = !text.is_empty() && seconds <= MAX_SECONDS;
    given.then(|| Duration::from_secs(seconds))
}

/// Whole seconds as [`parse_duration`] reads them, in as few units as need be.
pub fn print_duration(duration: Duration) -> String {
    let mut rest = duration.as_secs();
    let mut text = String::new();
    for (unit, factor) in &UNITS[1..] {
        if rest >= *factor {
            text += &format!("{}{unit}", rest / factor);
            rest %= factor;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A duration, or one that starts with the calendar's units y and mo: `1mo`, `1y6mo`, `1mo2d`. None also for an empty one, and
/// beyond a hundred years.
pub fn parse_period(text: &str) -> Option<Period> {
    let mut rest = text;
    let mut months = 0_u32;
    for (unit, factor) in CALENDAR_UNITS {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let Some(after) = rest[digits..].strip_prefix(unit) else { continue };
        months = months.checked_add(rest[..digits].parse::<u32>().ok()?.checked_mul(factor)?)?;
        rest = after;
    }
    let is_whole = rest.is_empty() && rest.len() < text.len();
    let rest = if is_whole { Duration::ZERO } else { parse_duration(rest)? };
    let seconds = u64::from(months).checked_mul(MAX_SECONDS / 1_200)?.checked_add(rest.as_secs())?;
    (0 < seconds && seconds <= MAX_SECONDS).then_some(match months {
        0 => Period::Fixed(rest),
        months => Period::Calendar { months, rest },
    })
}

/// As [`parse_period`] reads it, in as few units as need be.
pub fn print_period(period: Period) -> String {
    let (months, rest) = match period {
        Period::Fixed(duration) => return print_duration(duration),
        Period::Calendar { months, rest } => (months, rest),
    };
    let count = |number: u32, unit: &str| if number == 0 { String::new() } else { format!("{number}{unit}") };
    let rest = if rest.is_zero() { String::new() } else { print_duration(rest) };
    count(months / 12, "y") + &count(months % 12, "mo") + &rest
}

/// The period that a TOML value gives: text, or whole seconds.
pub(super) fn period_of(value: &DeValue<'_>) -> Option<Period> {
    match value {
        DeValue::String(text) => parse_period(text),
        _ => duration_of(value).filter(|duration| !duration.is_zero()).map(Period::Fixed),
    }
}

/// The duration behind a prefix, as in `window:6h`; at least a second.
pub fn parse_prefixed(text: &str, prefix: &str) -> Option<Duration> {
    parse_duration(text.strip_prefix(prefix)?).filter(|duration| !duration.is_zero())
}

/// The duration that a TOML value gives: text, or whole seconds.
pub(super) fn duration_of(value: &DeValue<'_>) -> Option<Duration> {
    match value {
        DeValue::String(text) => parse_duration(text),
        DeValue::Integer(_) => {
            let seconds = u64::try_from(integer_of(value)?).ok()?;
            (seconds <= MAX_SECONDS).then(|| Duration::from_secs(seconds))
        }
        _ => None,
    }
}

const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// `100MB`, `2GiB`: a whole number of bytes with a unit, decimal or binary, in any case.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim_start();
    let (_, factor) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor).filter(|&bytes| i64::try_from(bytes).is_ok())
}

/// Bytes as [`parse_size`] reads them, in the largest unit that needs no fraction.
pub fn print_size(bytes: u64) -> String {
    let fitting = SIZES.iter().filter(|(_, factor)| bytes.is_multiple_of(*factor) && bytes >= *factor);
    match fitting.max_by_key(|(_, factor)| *factor) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

/// Bytes for people, with one digit behind the point.
pub fn rough_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    let unit = UNITS.iter().find(|(_, size)| bytes >= *size);
    unit.map_or_else(|| format!("{bytes} B"), |(name, size)| format!("{:.1} {name}", bytes as f64 / *size as f64))
}

/// The bytes that a TOML value gives: text, or a whole number.
pub(super) fn size_of(value: &DeValue<'_>) -> Option<u64> {
    match value {
        DeValue::String(text) => parse_size(text),
        DeValue::Integer(_) => u64::try_from(integer_of(value)?).ok(),
        _ => None,
    }
}

/// An instant, or a local time that a zone makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Instant(Timestamp),
    Local(DateTime),
}

impl Moment {
    /// Of a local time that the clocks show twice the second is taken, and one that they skip is put off by what they skip: as
    /// `pendulum.datetime(…, tz=…)` does, in which DAGs of Airflow are written. None where the instant is beyond what can be
    /// counted.
    pub fn in_zone(self, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Instant(instant) => Some(instant),
            Self::Local(local) => zone.to_ambiguous_timestamp(local).later().ok(),
        }
    }
}

/// A date, a local or an offset date-time in TOML's notation. None for a time of day.
pub fn parse_moment(text: &str) -> Option<Moment> {
    moment_of_datetime(&text.parse::<Datetime>().ok()?)
}

/// The end of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    Open,
    TimeOfDay(Time),
    Moment(Moment),
}

/// Empty text, a time of day such as `22:00`, or what [`moment_of`] reads.
pub fn edge_of(value: &DeValue<'_>) -> Option<Edge> {
    let datetime = match value {
        DeValue::String(text) if text.is_empty() => return Some(Edge::Open),
        DeValue::String(text) => text.parse().ok()?,
        DeValue::Datetime(datetime) => *datetime,
        _ => return None,
    };
    match (datetime.date, datetime.time) {
        (None, Some(time)) => {
            let micros = (time.nanosecond.unwrap_or(0) / 1_000 * 1_000) as i32;
            let second = time.second.unwrap_or(0).min(59) as i8;
            Time::new(time.hour as i8, time.minute as i8, second, micros).ok().map(Edge::TimeOfDay)
        }
        _ => moment_of_datetime(&datetime).map(Edge::Moment),
    }
}

/// The years that a time in a file may have: those that cron knows.
pub(super) const YEARS: std::ops::RangeInclusive<u16> = 1970..=2099;

/// The year as it is written.
pub(super) fn year_of(value: &DeValue<'_>) -> Option<u16> {
    let datetime = match value {
        DeValue::String(text) => text.parse().ok()?,
        DeValue::Datetime(datetime) => *datetime,
        _ => return None,
    };
    datetime.date.map(|date| date.year)
}

fn moment_of_datetime(datetime: &Datetime) -> Option<Moment> {
    let date = datetime.date?;
    let (hour, minute, second, nanosecond) = match datetime.time {
        Some(time) => (time.hour, time.minute, time.second.unwrap_or(0), time.nanosecond.unwrap_or(0)),
        None => (0, 0, 0, 0),
    };
    // Instants have microseconds everywhere; a leap second is the one before it.
    let micros = (nanosecond / 1_000 * 1_000) as i32;
    let local = DateTime::new(
        i16::try_from(date.year).ok()?,
        date.month as i8,
        date.day as i8,
        hour as i8,
        minute as i8,
        second.min(59) as i8,
        micros,
    )
    .ok()?;
    let Some(offset) = datetime.offset else {
        return Some(Moment::Local(local));
    };
    let minutes = match offset {
        toml::value::Offset::Z => 0,
        toml::value::Offset::Custom { minutes } => i32::from(minutes),
    };
    let offset = Offset::from_seconds(minutes * 60).ok()?;
    offset.to_timestamp(local).ok().map(Moment::Instant)
}

/// The time that a TOML value gives.
pub fn moment_of(value: &DeValue<'_>) -> Option<Moment> {
    match value {
        DeValue::String(text) => parse_moment(text),
        DeValue::Datetime(datetime) => moment_of_datetime(datetime),
        _ => None,
    }
}

/// A finite number.
pub(super) fn number_of(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().parse().ok().filter(|number: &f64| number.is_finite()),
        _ => integer_of(value).map(|integer| integer as f64),
    }
}

pub(super) fn integer_of(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A TOML value as JSON. None for a number that JSON cannot hold. A time becomes its text.
pub fn json(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(is) => Value::Bool(*is),
        DeValue::Integer(_) => Value::from(integer_of(value)?),
        DeValue::Float(float) => Value::Number(Number::from_f64(float.as_str().parse().ok()?)?),
        DeValue::Datetime(datetime) => Value::String(datetime.to_string()),
        DeValue::Array(list) => Value::Array(list.iter().map(|item| json(item.get_ref())).collect::<Option<_>>()?),
        DeValue::Table(table) => {
            let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
                let key: &std::borrow::Cow<'_, str> = key.get_ref();
                Some((key.to_string(), json(value.get_ref())?))
            };
            Value::Object(table.iter().map(entry).collect::<Option<Map<_, _>>>()?)
        }
    })
}

/// Signals by name, without `SIG`, and number.
pub type Signals = &'static [(&'static str, i32)];

/// The signals that end a process, and those that programs take as a request to end.
pub const KILL_SIGNALS: Signals = ENDING_SIGNALS.split_at(8).0;

/// The signals by which processes are seen to end; first those of [`KILL_SIGNALS`].
pub const ENDING_SIGNALS: Signals = &[
    ("TERM", libc::SIGTERM),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("HUP", libc::SIGHUP),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("ABRT", libc::SIGABRT),
    ("SEGV", libc::SIGSEGV),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("ILL", libc::SIGILL),
    ("SYS", libc::SIGSYS),
    ("TRAP", libc::SIGTRAP),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
];

/// `TERM` or `SIGTERM`, in any case, if it is one of `signals`.
pub fn signal_number(signals: Signals, name: &str) -> Option<i32> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    signals.iter().find(|(signal, _)| *signal == bare).map(|&(_, number)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_printed() {
        let cases = [
            ("90s", Some(90), "1m30s"),
            ("1h30m", Some(5_400), "1h30m"),
            ("2d", Some(172_800), "2d"),
            ("1w", Some(604_800), "7d"),
            ("0s", Some(0), "0s"),
            ("", None, ""),
            ("90", None, ""),
            ("s", None, ""),
            ("1.5h", None, ""),
            ("-1s", None, ""),
            ("30m1h", None, ""),
            ("1h1h", None, ""),
            ("5min", None, ""),
            ("5 m", None, ""),
            ("1mo", None, ""),
            ("99999999999999999999s", None, ""),
            ("4000000000s", None, ""),
            ("1١s", None, ""),
        ];
        for (text, seconds, printed) in cases {
            let read = parse_duration(text);
            assert_eq!(read, seconds.map(Duration::from_secs), "{text}");
            assert_eq!(read.map_or(String::new(), print_duration), printed, "{text}");
        }
    }

    #[test]
    fn periods_are_durations_or_start_with_months_and_years() {
        let fixed = |seconds| Some(Period::Fixed(Duration::from_secs(seconds)));
        let calendar = |months, seconds| Some(Period::Calendar { months, rest: Duration::from_secs(seconds) });
        let cases = [
            ("90s", fixed(90), "1m30s"),
            ("2w", fixed(1_209_600), "14d"),
            ("1mo", calendar(1, 0), "1mo"),
            ("1y", calendar(12, 0), "1y"),
            ("1y6mo", calendar(18, 0), "1y6mo"),
            ("18mo", calendar(18, 0), "1y6mo"),
            ("1mo2d", calendar(1, 172_800), "1mo2d"),
            ("1y1w", calendar(12, 604_800), "1y7d"),
            ("1mo1m", calendar(1, 60), "1mo1m"),
            ("0mo90s", fixed(90), "1m30s"),
            ("100y", calendar(1_200, 0), "100y"),
            ("101y", None, ""),
            ("5000000000y", None, ""),
            ("99999999999mo", None, ""),
            ("0s", None, ""),
            ("0mo", None, ""),
            ("", None, ""),
            ("mo", None, ""),
            ("y6mo", None, ""),
            ("6mo1y", None, ""),
            ("2d1mo", None, ""),
            ("1M", None, ""),
            ("1 mo", None, ""),
            ("1.5mo", None, ""),
            ("1mo1mo", None, ""),
        ];
        for (text, period, printed) in cases {
            assert_eq!(parse_period(text), period, "{text}");
            assert_eq!(parse_period(text).map_or(String::new(), print_period), printed, "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_printed() {
        let cases = [
            ("100MB", Some(100_000_000), "100MB"),
            ("2GiB", Some(2 << 30), "2GiB"),
            ("1 kb", Some(1_000), "1kB"),
            ("7B", Some(7), "7B"),
            ("0B", Some(0), "0B"),
            ("7", None, ""),
            ("1.5GB", None, ""),
            ("99999999TB", None, ""),
            ("-1MB", None, ""),
        ];
        for (text, bytes, printed) in cases {
            assert_eq!(parse_size(text), bytes, "{text}");
            assert_eq!(parse_size(text).map_or(String::new(), print_size), printed, "{text}");
        }
    }

    #[test]
    fn times_are_local_unless_they_have_an_offset() {
        let london = TimeZone::get("Europe/London").unwrap();
        let cases = [
            ("2026-07-01", Some("2026-06-30T23:00:00Z")),
            ("2026-07-01T06:00:00", Some("2026-07-01T05:00:00Z")),
            ("2026-07-01 06:00:00.1234567", Some("2026-07-01T05:00:00.123456Z")),
            ("2026-07-01T06:00:00Z", Some("2026-07-01T06:00:00Z")),
            ("2026-07-01T06:00:00+02:00", Some("2026-07-01T04:00:00Z")),
            // Skipped by the clocks, and shown twice by them.
            ("2026-03-29T01:30:00", Some("2026-03-29T01:30:00Z")),
            ("2026-10-25T01:30:00", Some("2026-10-25T01:30:00Z")),
            ("06:00:00", None),
            ("2026-02-30", None),
            ("tomorrow", None),
            ("", None),
        ];
        for (text, instant) in cases {
            let read = parse_moment(text).and_then(|moment| moment.in_zone(&london));
            assert_eq!(read.map(|at| at.to_string()).as_deref(), instant, "{text}");
        }
    }

    #[test]
    fn signals_are_named_with_and_without_their_prefix() {
        assert_eq!(signal_number(KILL_SIGNALS, "TERM"), Some(15));
        assert_eq!(signal_number(KILL_SIGNALS, "SIGINT"), Some(2));
        assert_eq!(signal_number(KILL_SIGNALS, "sigkill"), Some(9));
        assert_eq!(signal_number(KILL_SIGNALS, "STOP"), None);
        assert_eq!(signal_number(KILL_SIGNALS, "15"), None);
        assert_eq!(signal_number(KILL_SIGNALS, "SEGV"), None);
        assert_eq!(signal_number(ENDING_SIGNALS, "SIGSEGV"), Some(11));
    }
}
