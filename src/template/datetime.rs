//! Times, dates and durations as templates see them: Python's and pendulum's attributes and methods.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use jiff::civil::{self, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan, Zoned};
use minijinja::value::{DynObject, Kwargs, Object, ObjectRepr, Value, from_args};
use minijinja::{Error, ErrorKind, State};

use crate::template::strftime::{self, Parts, strftime};

fn invalid(message: impl fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.to_string())
}

/// A moment with microseconds; without a zone it is naive, as Python calls it.
#[derive(Clone)]
pub(super) enum DateTime {
    Aware(Zoned),
    Naive(civil::DateTime),
}

impl DateTime {
    pub(super) fn utc(at: Timestamp) -> Self {
        Self::Aware(at.to_zoned(TimeZone::UTC))
    }

    fn civil(&self) -> civil::DateTime {
        match self {
            Self::Aware(zoned) => zoned.datetime(),
            Self::Naive(at) => *at,
        }
    }

    fn zoned(&self) -> Option<&Zoned> {
        match self {
            Self::Aware(zoned) => Some(zoned),
            Self::Naive(_) => None,
        }
    }

    pub(super) fn parts(&self) -> Parts<'_> {
        Parts { at: self.civil(), zoned: self.zoned() }
    }

    /// The instant; a naive time counts as UTC.
    fn timestamp(&self) -> Timestamp {
        match self {
            Self::Aware(zoned) => zoned.timestamp(),
            Self::Naive(at) => at.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp()).unwrap_or(Timestamp::MAX),
        }
    }

    /// The same wall clock with another reading.
    fn with_civil(&self, at: civil::DateTime) -> Result<Self, Error> {
        Ok(match self {
            Self::Aware(zoned) => Self::Aware(at.to_zoned(zoned.time_zone().clone()).map_err(invalid)?),
            Self::Naive(_) => Self::Naive(at),
        })
    }

    fn shifted(&self, span: Span) -> Result<Self, Error> {
        Ok(match self {
            Self::Aware(zoned) => Self::Aware(zoned.checked_add(span).map_err(invalid)?),
            Self::Naive(at) => Self::Naive(at.checked_add(span).map_err(invalid)?),
        })
    }

    pub(super) fn add(&self, delta: TimeDelta) -> Result<Self, Error> {
        self.shifted(Span::new().try_microseconds(delta.micros).map_err(invalid)?)
    }

    /// `self - other` as pendulum gives it.
    pub(super) fn since(&self, other: &Self) -> Interval {
        Interval { start: other.clone(), end: self.clone() }
    }

    fn in_timezone(&self, name: &str) -> Result<Self, Error> {
        let zone = TimeZone::get(name)
            .map_err(|_| invalid(format!("unknown time zone `{name}`; write an IANA name such as `Europe/Berlin`")))?;
        Ok(Self::Aware(self.timestamp().to_zoned(zone)))
    }

    fn text(&self, separator: &str) -> String {
        let format = if self.civil().subsec_nanosecond() == 0 { "%H:%M:%S" } else { "%H:%M:%S.%f" };
        let mut text = strftime(self.parts(), &format!("%Y-%m-%d{separator}{format}"));
        if let Some(zoned) = self.zoned() {
            text.push_str(&strftime::offset(zoned.offset(), ":"));
        }
        text
    }

    pub(super) fn isoformat(&self) -> String {
        self.text("T")
    }

    fn attribute(&self, name: &str) -> Option<Value> {
        let at = self.civil();
        Some(match name {
            "year" => Value::from(at.year()),
            "month" => Value::from(at.month()),
            "day" => Value::from(at.day()),
            "hour" => Value::from(at.hour()),
            "minute" => Value::from(at.minute()),
            "second" => Value::from(at.second()),
            "microsecond" => Value::from(at.subsec_nanosecond() / 1000),
            "day_of_week" => Value::from(at.weekday().to_monday_zero_offset()),
            "day_of_year" => Value::from(at.date().day_of_year()),
            "week_of_year" => Value::from(at.date().iso_week_date().week()),
            "week_of_month" => {
                let lead = at.date().first_of_month().weekday().to_monday_zero_offset();
                Value::from((at.day() + lead - 1) / 7 + 1)
            }
            "days_in_month" => Value::from(at.date().days_in_month()),
            "quarter" => Value::from(strftime::quarter(at.date())),
            "int_timestamp" => Value::from(self.timestamp().as_second()),
            "float_timestamp" => Value::from(self.seconds()),
            "timezone_name" | "timezone" | "tz" | "tzinfo" => match self.zoned() {
                Some(zoned) => Value::from(zone_name(zoned)),
                None => Value::from(()),
            },
            "offset" => self.zoned().map_or(Value::from(()), |zoned| Value::from(zoned.offset().seconds())),
            _ => return None,
        })
    }

    fn seconds(&self) -> f64 {
        self.timestamp().as_microsecond() as f64 / 1e6
    }

    fn start_of(&self, unit: &str) -> Result<Self, Error> {
        let at = self.civil();
        let date = at.date();
        let day = match unit {
            "second" => return self.with_civil(at.with().subsec_nanosecond(0).build().map_err(invalid)?),
            "minute" => return self.with_civil(date.at(at.hour(), at.minute(), 0, 0)),
            "hour" => return self.with_civil(date.at(at.hour(), 0, 0, 0)),
            "day" => date,
            "week" => date.checked_sub(i64::from(at.weekday().to_monday_zero_offset()).days()).map_err(invalid)?,
            "month" => date.first_of_month(),
            "quarter" => date.with().month(strftime::quarter(date) * 3 - 2).day(1).build().map_err(invalid)?,
            "year" => date.first_of_year(),
            "decade" => civil::date(date.year() - date.year().rem_euclid(10), 1, 1),
            _ => {
                return Err(invalid(format!(
                    "unknown unit `{unit}`; write second, minute, hour, day, week, month, quarter, year or decade"
                )));
            }
        };
        self.with_civil(day.at(0, 0, 0, 0))
    }

    /// The last microsecond of the unit.
    fn end_of(&self, unit: &str) -> Result<Self, Error> {
        let start = self.start_of(unit)?;
        let length = match unit {
            "second" => 1.second(),
            "minute" => 1.minute(),
            "hour" => 1.hour(),
            "day" => 1.day(),
            "week" => 1.week(),
            "month" => 1.month(),
            "quarter" => 3.months(),
            "year" => 1.year(),
            _ => 10.years(),
        };
        let next = start.civil().checked_add(length).map_err(invalid)?;
        start.with_civil(next.checked_sub(1.microsecond()).map_err(invalid)?)
    }

    fn replace(&self, kwargs: &Kwargs) -> Result<Self, Error> {
        let at = self.civil();
        let mut with = at.with();
        if let Some(year) = kwargs.get::<Option<i16>>("year")? {
            with = with.year(year);
        }
        for (name, set) in [
            ("month", civil::DateTimeWith::month as fn(civil::DateTimeWith, i8) -> civil::DateTimeWith),
            ("day", civil::DateTimeWith::day),
            ("hour", civil::DateTimeWith::hour),
            ("minute", civil::DateTimeWith::minute),
            ("second", civil::DateTimeWith::second),
        ] {
            if let Some(value) = kwargs.get::<Option<i8>>(name)? {
                with = set(with, value);
            }
        }
        if let Some(micros) = kwargs.get::<Option<i32>>("microsecond")? {
            with =
                with.subsec_nanosecond(micros.checked_mul(1000).ok_or_else(|| invalid("microsecond is out of range"))?);
        }
        let replaced = with.build().map_err(invalid)?;
        match kwargs.get::<Option<Value>>("tzinfo")? {
            Some(zone) if zone.is_none() => Ok(Self::Naive(replaced)),
            Some(zone) => {
                let name = zone.to_string();
                let zone = TimeZone::get(&name).map_err(|_| invalid(format!("unknown time zone `{name}`")))?;
                Ok(Self::Aware(replaced.to_zoned(zone).map_err(invalid)?))
            }
            None => self.with_civil(replaced),
        }
    }

    fn method(&self, method: &str, args: &[Value]) -> Result<Value, Error> {
        let at = self.civil();
        Ok(match method {
            "strftime" => Value::from(strftime(self.parts(), from_args::<(&str,)>(args)?.0)),
            "format" => Value::from(strftime::pendulum(self.parts(), from_args::<(&str,)>(args)?.0)),
            "isoformat" | "to_iso8601_string" | "to_rfc3339_string" => {
                let (separator, kwargs): (Option<&str>, Kwargs) = from_args(args)?;
                let named: Option<String> = kwargs.get("sep")?;
                kwargs.assert_all_used()?;
                let text = self.text(named.as_deref().or(separator).unwrap_or("T"));
                Value::from(match method {
                    "to_iso8601_string" => text.replace("+00:00", "Z"),
                    _ => text,
                })
            }
            "to_date_string" => Value::from(strftime(self.parts(), "%Y-%m-%d")),
            "to_time_string" => Value::from(strftime(self.parts(), "%H:%M:%S")),
            "to_datetime_string" => Value::from(strftime(self.parts(), "%Y-%m-%d %H:%M:%S")),
            "to_day_datetime_string" => Value::from(strftime(self.parts(), "%a, %b %-d, %Y %-I:%M %p")),
            "date" => Value::from_object(Date(at.date())),
            "time" => Value::from(strftime(
                self.parts(),
                if at.subsec_nanosecond() == 0 { "%H:%M:%S" } else { "%H:%M:%S.%f" },
            )),
            "timestamp" => Value::from(self.seconds()),
            "weekday" => Value::from(at.weekday().to_monday_zero_offset()),
            "isoweekday" => Value::from(at.weekday().to_monday_one_offset()),
            "is_leap_year" => Value::from(at.date().in_leap_year()),
            "utcoffset" => match self.zoned() {
                Some(zoned) => {
                    Value::from_object(TimeDelta { micros: i64::from(zoned.offset().seconds()) * 1_000_000 })
                }
                None => Value::from(()),
            },
            "tzname" => Value::from(strftime(self.parts(), "%Z")),
            "naive" => Value::from_object(Self::Naive(at)),
            "in_timezone" | "in_tz" | "astimezone" => {
                let (name,): (Value,) = from_args(args)?;
                Value::from_object(self.in_timezone(&name.to_string())?)
            }
            "add" | "subtract" => {
                let (delta, kwargs): (Option<Value>, Kwargs) = from_args(args)?;
                let sign = if method == "add" { 1 } else { -1 };
                let moved = match delta.as_ref().map(TimeDelta::of) {
                    Some(delta) => self.add(delta?.times(sign))?,
                    None => self.shifted(span_of(&kwargs, sign)?)?,
                };
                kwargs.assert_all_used()?;
                Value::from_object(moved)
            }
            "replace" | "set" => {
                let (kwargs,): (Kwargs,) = from_args(args)?;
                let replaced = self.replace(&kwargs)?;
                kwargs.assert_all_used()?;
                Value::from_object(replaced)
            }
            "start_of" => Value::from_object(self.start_of(from_args::<(&str,)>(args)?.0)?),
            "end_of" => Value::from_object(self.end_of(from_args::<(&str,)>(args)?.0)?),
            "diff" => {
                let (other,): (Value,) = from_args(args)?;
                let other = other.downcast_object_ref::<Self>().ok_or_else(|| invalid("`diff` takes a datetime"))?;
                Value::from_object(other.since(self))
            }
            "next" | "previous" => {
                let (weekday,): (Option<i8>,) = from_args(args)?;
                let weekday = match weekday {
                    Some(day) => Weekday::from_monday_zero_offset(day).map_err(invalid)?,
                    None => at.weekday(),
                };
                let date = at.date().nth_weekday(if method == "next" { 1 } else { -1 }, weekday).map_err(invalid)?;
                Value::from_object(self.with_civil(date.at(0, 0, 0, 0))?)
            }
            _ => return Err(Error::from(ErrorKind::UnknownMethod)),
        })
    }
}

fn zone_name(zoned: &Zoned) -> String {
    match zoned.time_zone().iana_name() {
        Some(name) => name.to_owned(),
        None => strftime::offset(zoned.offset(), ":"),
    }
}

/// `years=`, `months=`, … as pendulum's `add` takes them.
fn span_of(kwargs: &Kwargs, sign: i64) -> Result<Span, Error> {
    let mut span = Span::new();
    for (name, set) in [
        ("years", Span::try_years::<i64> as fn(Span, i64) -> Result<Span, jiff::Error>),
        ("months", Span::try_months),
        ("weeks", Span::try_weeks),
        ("days", Span::try_days),
        ("hours", Span::try_hours),
        ("minutes", Span::try_minutes),
        ("seconds", Span::try_seconds),
        ("microseconds", Span::try_microseconds),
    ] {
        if let Some(amount) = kwargs.get::<Option<i64>>(name)? {
            span = set(span, amount.saturating_mul(sign)).map_err(invalid)?;
        }
    }
    Ok(span)
}

impl fmt::Debug for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(" "))
    }
}

impl Object for DateTime {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.attribute(key.as_str()?)
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        self.method(method, args)
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        Some(self.timestamp().cmp(&other.downcast_ref::<Self>()?.timestamp()))
    }
}

/// A calendar day.
#[derive(Clone, Copy)]
pub(super) struct Date(pub(super) civil::Date);

impl Date {
    /// Whole days, as Python moves a date.
    pub(super) fn add(self, delta: TimeDelta) -> Result<Self, Error> {
        let days = Span::new().try_days(delta.micros.div_euclid(DAY)).map_err(invalid)?;
        self.0.checked_add(days).map(Self).map_err(invalid)
    }

    pub(super) fn since(self, other: Self) -> TimeDelta {
        let midnight = |date: Self| DateTime::Naive(date.0.at(0, 0, 0, 0)).timestamp().as_microsecond();
        TimeDelta { micros: midnight(self) - midnight(other) }
    }
}

impl fmt::Debug for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Object for Date {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        let is_of_time = matches!(name, "hour" | "minute" | "second" | "microsecond") || name.contains("timestamp");
        if is_of_time { None } else { DateTime::Naive(self.0.at(0, 0, 0, 0)).attribute(name) }
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        if matches!(method, "isoformat" | "to_date_string") {
            return Ok(Value::from(self.0.to_string()));
        }
        let value = DateTime::Naive(self.0.at(0, 0, 0, 0)).method(method, args)?;
        // What moves a date gives a date.
        Ok(match value.downcast_object_ref::<DateTime>() {
            Some(moved) => Value::from_object(Self(moved.civil().date())),
            None => value,
        })
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        Some(self.0.cmp(&other.downcast_ref::<Self>()?.0))
    }
}

/// A span of exact time, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeDelta {
    pub(super) micros: i64,
}

const DAY: i64 = 86_400_000_000;

impl TimeDelta {
    /// The span that a value is, if it is one.
    pub(super) fn of(value: &Value) -> Result<Self, Error> {
        if let Some(delta) = value.downcast_object_ref::<Self>() {
            return Ok(*delta);
        }
        match value.downcast_object_ref::<Interval>() {
            Some(interval) => Ok(interval.delta()),
            None => {
                Err(invalid(format!("`{value}` is no duration; write e.g. `days=1` or `macros.timedelta(days=1)`")))
            }
        }
    }

    pub(super) fn times(self, factor: i64) -> Self {
        Self { micros: self.micros.saturating_mul(factor) }
    }

    /// `timedelta(days=0, seconds=0, microseconds=0, milliseconds=0, minutes=0, hours=0, weeks=0)`.
    ///
    /// # Errors
    /// Wrong arguments, or a span of more than 290,000 years.
    pub(super) fn from_arguments(args: &[Value]) -> Result<Self, Error> {
        let (days, seconds, microseconds, kwargs): (Option<f64>, Option<f64>, Option<f64>, Kwargs) = from_args(args)?;
        let mut micros = 0.0;
        for (amount, unit) in [(days, DAY as f64), (seconds, 1e6), (microseconds, 1.0)] {
            micros += amount.unwrap_or_default() * unit;
        }
        for (name, unit) in [
            ("weeks", 7.0 * DAY as f64),
            ("days", DAY as f64),
            ("hours", 3.6e9),
            ("minutes", 6e7),
            ("seconds", 1e6),
            ("milliseconds", 1e3),
            ("microseconds", 1.0),
        ] {
            micros += kwargs.get::<Option<f64>>(name)?.unwrap_or_default() * unit;
        }
        kwargs.assert_all_used()?;
        if micros.abs() > 9e18 {
            return Err(invalid("the timedelta is out of range"));
        }
        Ok(Self { micros: micros.round_ties_even() as i64 })
    }
}

impl fmt::Debug for TimeDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.micros.div_euclid(DAY);
        let rest = self.micros.rem_euclid(DAY);
        if days != 0 {
            write!(f, "{days} day{}, ", if days.abs() == 1 { "" } else { "s" })?;
        }
        let seconds = rest / 1_000_000;
        write!(f, "{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
        if rest % 1_000_000 != 0 {
            write!(f, ".{:06}", rest % 1_000_000)?;
        }
        Ok(())
    }
}

fn delta_attribute(micros: i64, name: &str) -> Option<Value> {
    let rest = micros.rem_euclid(DAY);
    Some(match name {
        "days" => Value::from(micros.div_euclid(DAY)),
        "seconds" => Value::from(rest / 1_000_000),
        "microseconds" => Value::from(rest % 1_000_000),
        _ => return None,
    })
}

/// What pendulum's durations have beyond Python's: whole units, truncated towards zero.
fn in_units(micros: i64, method: &str) -> Result<Value, Error> {
    let unit = match method {
        "total_seconds" => return Ok(Value::from(micros as f64 / 1e6)),
        "total_minutes" => return Ok(Value::from(micros as f64 / 6e7)),
        "total_hours" => return Ok(Value::from(micros as f64 / 3.6e9)),
        "total_days" => return Ok(Value::from(micros as f64 / DAY as f64)),
        "in_seconds" => 1_000_000,
        "in_minutes" => 60_000_000,
        "in_hours" => 3_600_000_000,
        "in_days" => DAY,
        "in_weeks" => 7 * DAY,
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    };
    Ok(Value::from(micros / unit))
}

impl Object for TimeDelta {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        delta_attribute(self.micros, key.as_str()?)
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        let () = from_args(args)?;
        in_units(self.micros, method)
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.micros != 0
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        Some(self.micros.cmp(&other.downcast_ref::<Self>()?.micros))
    }
}

/// The difference of two times, as pendulum gives it.
pub(super) struct Interval {
    start: DateTime,
    end: DateTime,
}

impl Interval {
    pub(super) fn delta(&self) -> TimeDelta {
        TimeDelta { micros: self.end.timestamp().as_microsecond() - self.start.timestamp().as_microsecond() }
    }
}

impl fmt::Debug for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Interval [{:?} -> {:?}]>", self.start, self.end)
    }
}

impl Object for Interval {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "start" => Some(Value::from_object(self.start.clone())),
            "end" => Some(Value::from_object(self.end.clone())),
            name => delta_attribute(self.delta().micros, name),
        }
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        let () = from_args(args)?;
        in_units(self.delta().micros, method)
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.delta().micros != 0
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        Some(self.delta().micros.cmp(&other.downcast_ref::<Self>()?.delta().micros))
    }
}
