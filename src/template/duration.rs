//! Spans of time as templates see them: Python's `timedelta`, and pendulum's `Interval` between two moments.

use std::any::Any;
use std::cmp::Ordering;

use jiff::{Span, Unit};

use crate::jinja::arguments::{given, int_of, needed};
use crate::jinja::fault::{Fault, Res, type_error, value_error};
use crate::jinja::{Args, Object, Value, Vm, meter, print};
use crate::template::calendar::span_of;
use crate::template::datetime::DateTime;

pub(super) const DAY: i64 = 86_400_000_000;

/// A span of exact time, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeDelta {
    pub(super) micros: i64,
}

fn out_of_range() -> Box<Fault> {
    Fault::new("OverflowError", "the timedelta is out of range")
}

fn micros_of(float: f64) -> Res<i64> {
    if float.abs() > 9e18 || float.is_nan() { Err(out_of_range()) } else { Ok(float.round_ties_even() as i64) }
}

impl TimeDelta {
    /// The span that a value is, if it is one.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn of(value: &Value) -> Res<Self> {
        if let Some(delta) = value.downcast::<Self>() {
            return Ok(*delta);
        }
        match value.downcast::<Interval>() {
            Some(interval) => Ok(interval.delta()),
            None => type_error(format!(
                "a duration is wanted, not {}; write e.g. `days=1` or `macros.timedelta(days=1)`",
                value.type_name()
            )),
        }
    }

    pub(super) fn times(self, factor: i64) -> Self {
        Self { micros: self.micros.saturating_mul(factor) }
    }

    /// `timedelta(days=0, seconds=0, microseconds=0, milliseconds=0, minutes=0, hours=0, weeks=0)`.
    ///
    /// # Errors
    /// Wrong arguments, or a span of more than 290,000 years.
    pub(super) fn from_arguments(args: Args) -> Res<Self> {
        let names = ["days", "seconds", "microseconds", "milliseconds", "minutes", "hours", "weeks"];
        let units = [DAY as f64, 1e6, 1.0, 1e3, 6e7, 3.6e9, 7.0 * DAY as f64];
        let mut micros = 0.0;
        for ((value, unit), name) in args.bind("timedelta", names)?.into_iter().zip(units).zip(names) {
            let Some(value) = value else { continue };
            let Some(number) = value.as_float() else {
                return type_error(format!("unsupported type for timedelta {name} component: {}", value.type_name()));
            };
            micros += number * unit;
        }
        Ok(Self { micros: micros_of(micros)? })
    }
}

impl Object for TimeDelta {
    fn type_name(&self) -> &str {
        "datetime.timedelta"
    }

    fn text(&self) -> String {
        let days = self.micros.div_euclid(DAY);
        let rest = self.micros.rem_euclid(DAY);
        let seconds = rest / 1_000_000;
        let mut text = match days {
            0 => String::new(),
            _ => format!("{days} day{}, ", if days.abs() == 1 { "" } else { "s" }),
        };
        text.push_str(&format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
        if rest % 1_000_000 != 0 {
            text.push_str(&format!(".{:06}", rest % 1_000_000));
        }
        text
    }

    fn repr(&self) -> String {
        let parts = [
            ("days", self.micros.div_euclid(DAY)),
            ("seconds", self.micros.rem_euclid(DAY) / 1_000_000),
            ("microseconds", self.micros.rem_euclid(1_000_000)),
        ];
        let shown: Vec<String> =
            parts.iter().filter(|(_, count)| *count != 0).map(|(name, count)| format!("{name}={count}")).collect();
        format!("datetime.timedelta({})", if shown.is_empty() { "0".to_owned() } else { shown.join(", ") })
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        Ok(whole_part(self.micros, name))
    }

    fn methods(&self) -> &'static [&'static str] {
        &[
            "total_seconds",
            "total_minutes",
            "total_hours",
            "total_days",
            "total_weeks",
            "in_seconds",
            "in_minutes",
            "in_hours",
            "in_days",
            "in_weeks",
        ]
    }

    fn call_method(&self, _: &mut Vm<'_>, name: &str, args: Args) -> Res<Value> {
        args.none(name)?;
        in_units(self.micros, name)
    }

    fn is_true(&self) -> bool {
        self.micros != 0
    }

    fn order(&self, other: &Value) -> Option<Ordering> {
        Some(self.micros.cmp(&Self::of(other).ok()?.micros))
    }

    fn operate(&self, operator: &str, other: &Value, is_right: bool) -> Option<Res<Value>> {
        let of = |micros: Option<i64>| micros.map(|micros| Value::object(Self { micros })).ok_or_else(out_of_range);
        if matches!(operator, "neg" | "pos" | "abs") {
            return Some(Ok(Value::object(Self {
                micros: match operator {
                    "neg" => -self.micros,
                    "abs" => self.micros.abs(),
                    _ => self.micros,
                },
            })));
        }
        if let Ok(other) = Self::of(other) {
            let (left, right) = if is_right { (other.micros, self.micros) } else { (self.micros, other.micros) };
            let by_zero = || Err(Fault::new("ZeroDivisionError", "integer division or modulo by zero"));
            return match operator {
                "+" => Some(of(left.checked_add(right))),
                "-" => Some(of(left.checked_sub(right))),
                "/" | "//" | "%" if right == 0 => Some(by_zero()),
                "/" => Some(Ok(Value::Float(left as f64 / right as f64))),
                "//" => Some(Ok(Value::int((left as f64 / right as f64).floor() as i64))),
                "%" => Some(of(left.checked_sub(right * ((left as f64 / right as f64).floor() as i64)))),
                _ => None,
            };
        }
        let number = other.as_float()?;
        match operator {
            "*" => Some(micros_of(self.micros as f64 * number).map(|micros| Value::object(Self { micros }))),
            "/" | "//" if !is_right && number == 0.0 => Some(Err(Fault::new("ZeroDivisionError", "division by zero"))),
            "/" if !is_right => {
                Some(micros_of(self.micros as f64 / number).map(|micros| Value::object(Self { micros })))
            }
            "//" if !is_right => {
                Some(micros_of((self.micros as f64 / number).floor()).map(|micros| Value::object(Self { micros })))
            }
            _ => None,
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn whole_part(micros: i64, name: &str) -> Option<Value> {
    let rest = micros.rem_euclid(DAY);
    Some(match name {
        "days" => Value::int(micros.div_euclid(DAY)),
        "seconds" => Value::int(rest / 1_000_000),
        "microseconds" => Value::int(rest % 1_000_000),
        _ => return None,
    })
}

/// What pendulum's durations have beyond Python's: units with fractions, and whole ones truncated towards zero.
fn in_units(micros: i64, method: &str) -> Res<Value> {
    let unit = match method.split_once('_').map_or("", |(_, unit)| unit) {
        "seconds" => 1_000_000,
        "minutes" => 60_000_000,
        "hours" => 3_600_000_000,
        "days" => DAY,
        "weeks" => 7 * DAY,
        _ => return Err(Fault::new("AttributeError", format!("a duration has no attribute '{method}'"))),
    };
    Ok(if method.starts_with("total") { Value::Float(micros as f64 / unit as f64) } else { Value::int(micros / unit) })
}

/// The difference of two moments, as pendulum gives it.
#[derive(Clone)]
pub(super) struct Interval {
    start: DateTime,
    end: DateTime,
    /// Between days rather than moments.
    is_of_days: bool,
}

impl Interval {
    pub(super) fn between(start: &DateTime, end: &DateTime) -> Self {
        Self { start: start.clone(), end: end.clone(), is_of_days: false }
    }

    pub(super) fn of_days(self) -> Self {
        Self { is_of_days: true, ..self }
    }

    pub(super) fn delta(&self) -> TimeDelta {
        TimeDelta { micros: self.end.timestamp().as_microsecond() - self.start.timestamp().as_microsecond() }
    }

    pub(super) fn absolute(self) -> Self {
        if self.delta().micros < 0 { Self { start: self.end, end: self.start, ..self } } else { self }
    }

    /// Years, months, days and so on between the two, all of one sign.
    fn span(&self) -> Span {
        let end = self.end.as_zoned();
        let start = self.start.as_zoned().with_time_zone(end.time_zone().clone());
        start.until((Unit::Year, &end)).unwrap_or_default()
    }

    fn part(&self, name: &str) -> Option<i64> {
        let span = self.span();
        Some(match name {
            "years" => span.get_years().into(),
            "months" => span.get_months().into(),
            "weeks" => (span.get_days() / 7).into(),
            "remaining_days" => (span.get_days() % 7).into(),
            "hours" => span.get_hours().into(),
            "minutes" => span.get_minutes(),
            "remaining_seconds" => span.get_seconds(),
            "days" => self.delta().micros / DAY,
            "seconds" => self.delta().micros % DAY / 1_000_000,
            "microseconds" => self.delta().micros % 1_000_000,
            _ => return None,
        })
    }

    fn count(&self, name: &str) -> i64 {
        self.part(name).unwrap_or(0).abs()
    }

    /// `1 week 2 days`.
    fn in_words(&self, separator: &str) -> String {
        let units = ["years", "months", "weeks", "remaining_days", "hours", "minutes", "remaining_seconds"];
        let names = ["year", "month", "week", "day", "hour", "minute", "second"];
        let mut parts = Vec::new();
        for (unit, name) in units.iter().zip(names) {
            let count = self.part(unit).unwrap_or(0);
            if count != 0 {
                parts.push(format!("{count} {name}{}", plural(count)));
            }
        }
        if parts.is_empty() {
            let micros = self.delta().micros.abs();
            return if micros == 0 {
                "0 microseconds".to_owned()
            } else {
                format!("{:.2} second", micros as f64 / 1e6)
            };
        }
        parts.join(separator)
    }

    /// pendulum's `diff_for_humans`, of the start against the end.
    pub(super) fn for_humans(&self, is_now: bool, is_absolute: bool) -> String {
        let [years, months, weeks, days, hours, minutes, seconds] =
            ["years", "months", "weeks", "remaining_days", "hours", "minutes", "remaining_seconds"]
                .map(|name| self.count(name));
        let more = |holds: bool| i64::from(holds);
        let (count, unit) = if years > 0 {
            (years + more(months > 6), "year")
        } else if months == 11 && weeks * 7 + days > 15 {
            (1, "year")
        } else if months > 0 {
            (months + more(weeks * 7 + days >= 27), "month")
        } else if weeks > 0 {
            (weeks + more(days > 3), "week")
        } else if days > 0 {
            (days + more(hours >= 22), "day")
        } else if hours > 0 {
            (hours, "hour")
        } else if minutes > 0 {
            (minutes, "minute")
        } else if seconds > 10 {
            (seconds, "second")
        } else {
            (0, "")
        };
        let amount = if count == 0 { "a few seconds".to_owned() } else { format!("{count} {unit}{}", plural(count)) };
        let is_later = self.delta().micros < 0;
        match (is_absolute, is_now, is_later) {
            (true, ..) => amount,
            (_, true, true) => format!("in {amount}"),
            (_, true, false) => format!("{amount} ago"),
            (_, false, true) => format!("{amount} after"),
            (_, false, false) => format!("{amount} before"),
        }
    }

    /// The moments from start to end, both included, a step apart.
    fn range(&self, unit: &str, amount: i64) -> Res<Vec<Value>> {
        let units = ["years", "months", "weeks", "days", "hours", "minutes", "seconds", "microseconds"];
        let Some(at) = units.iter().position(|known| *known == unit) else {
            return value_error(format!("unknown unit `{unit}`; write {}", units.join(", ")));
        };
        if amount <= 0 {
            return value_error("the step of a range is at least 1");
        }
        let is_back = self.delta().micros < 0;
        let mut moments = Vec::new();
        for n in 0.. {
            meter::step(4)?;
            meter::room(moments.len() * 128)?;
            let mut step = [const { None }; 8];
            step[at] = Some(Value::int(i128::from(amount) * n));
            let moment = self.start.shifted(span_of(&step, if is_back { -1 } else { 1 })?)?;
            let is_past = if is_back {
                moment.timestamp() < self.end.timestamp()
            } else {
                moment.timestamp() > self.end.timestamp()
            };
            if is_past {
                break;
            }
            moments.push(Value::object(moment));
        }
        Ok(moments)
    }
}

fn plural(count: i64) -> &'static str {
    if count.abs() == 1 { "" } else { "s" }
}

impl Object for Interval {
    fn type_name(&self) -> &str {
        "Interval"
    }

    fn text(&self) -> String {
        let shown = |at: &DateTime| if self.is_of_days { at.civil().date().to_string() } else { at.text() };
        format!("<Interval [{} -> {}]>", shown(&self.start), shown(&self.end))
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        Ok(match name {
            "start" => Some(Value::object(self.start.clone())),
            "end" => Some(Value::object(self.end.clone())),
            "invert" => Some(Value::Bool(self.delta().micros < 0)),
            _ => self.part(name).map(Value::int),
        })
    }

    fn methods(&self) -> &'static [&'static str] {
        &[
            "total_seconds",
            "total_minutes",
            "total_hours",
            "total_days",
            "total_weeks",
            "in_seconds",
            "in_minutes",
            "in_hours",
            "in_days",
            "in_weeks",
            "in_months",
            "in_years",
            "in_words",
            "as_duration",
            "as_timedelta",
            "range",
        ]
    }

    fn call_method(&self, _: &mut Vm<'_>, name: &str, args: Args) -> Res<Value> {
        match name {
            "range" => {
                let [unit, amount] = args.bind(name, ["unit", "amount"])?;
                let unit = print::text(&needed(unit, name, "unit")?)?;
                let amount = amount.map_or(Ok(1), |amount| int_of(&amount))?;
                return self.range(&unit, amount).map(Value::stream);
            }
            "in_words" => {
                let [_locale, separator] = args.bind(name, ["locale", "separator"])?;
                let separator = given(separator).map_or(Ok(" ".to_owned()), |separator| print::text(&separator))?;
                return Ok(Value::text(self.in_words(&separator)));
            }
            _ => args.none(name)?,
        }
        let part = |name: &str| self.part(name).unwrap_or(0);
        Ok(match name {
            "in_years" => Value::int(part("years")),
            "in_months" => Value::int(part("years") * 12 + part("months")),
            "as_duration" | "as_timedelta" => Value::object(self.delta()),
            _ => return in_units(self.delta().micros, name),
        })
    }

    fn is_true(&self) -> bool {
        self.delta().micros != 0
    }

    fn items(&self) -> Option<Vec<Value>> {
        self.range("days", 1).ok()
    }

    fn order(&self, other: &Value) -> Option<Ordering> {
        Some(self.delta().micros.cmp(&TimeDelta::of(other).ok()?.micros))
    }

    fn operate(&self, operator: &str, other: &Value, is_right: bool) -> Option<Res<Value>> {
        match operator {
            "neg" => Some(Ok(Value::object(Self { start: self.end.clone(), end: self.start.clone(), ..*self }))),
            "abs" => Some(Ok(Value::object(self.clone().absolute()))),
            _ => self.delta().operate(operator, other, is_right),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
