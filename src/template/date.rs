//! Days and times of day as templates see them.

use std::any::Any;
use std::cmp::Ordering;

use jiff::civil;
use jiff::{Span, ToSpan};

use crate::jinja::fault::{Res, type_error};
use crate::jinja::{Args, Object, Value, Vm, print};
use crate::template::calendar::{date_attribute, invalid};
use crate::template::datetime::DateTime;
use crate::template::duration::{DAY, Interval, TimeDelta};
use crate::template::strftime::{self, Parts};

/// The first day of the unit that a day lies in.
///
/// # Errors
/// There is no such unit.
pub(super) fn unit_start(date: civil::Date, unit: &str) -> Res<civil::Date> {
    Ok(match unit {
        "day" => date,
        "week" => date.checked_sub(i64::from(date.weekday().to_monday_zero_offset()).days()).map_err(invalid)?,
        "month" => date.first_of_month(),
        "quarter" => date.with().month(strftime::quarter(date) * 3 - 2).day(1).build().map_err(invalid)?,
        "year" => date.first_of_year(),
        "decade" => civil::Date::new(date.year() - date.year().rem_euclid(10), 1, 1).map_err(invalid)?,
        "century" => {
            civil::Date::new(date.year() - 1 - (date.year() - 1).rem_euclid(100) + 1, 1, 1).map_err(invalid)?
        }
        _ => {
            return Err(invalid(format!(
                "unknown unit `{unit}`; write second, minute, hour, day, week, month, quarter, year, decade or century"
            )));
        }
    })
}

/// How long a unit of days is.
///
/// # Errors
/// There is no such unit.
pub(super) fn unit_length(unit: &str) -> Res<Span> {
    Ok(match unit {
        "day" => 1.day(),
        "week" => 1.week(),
        "month" => 1.month(),
        "quarter" => 3.months(),
        "year" => 1.year(),
        "decade" => 10.years(),
        "century" => 100.years(),
        _ => return Err(invalid(format!("unknown unit `{unit}`"))),
    })
}

/// A calendar day.
#[derive(Clone, Copy)]
pub(super) struct Date {
    pub(super) day: civil::Date,
    /// Python's own class, and not pendulum's.
    pub(super) is_plain: bool,
}

impl Date {
    /// Whole days, as Python moves a date.
    fn add(self, delta: TimeDelta) -> Res<Self> {
        let days = Span::new().try_days(delta.micros.div_euclid(DAY)).map_err(invalid)?;
        Ok(Self { day: self.day.checked_add(days).map_err(invalid)?, ..self })
    }

    pub(super) fn midnight(self) -> DateTime {
        DateTime::naive(self.day.at(0, 0, 0, 0))
    }
}

const METHODS: [&str; 34] = [
    "add",
    "average",
    "closest",
    "ctime",
    "diff",
    "diff_for_humans",
    "end_of",
    "farthest",
    "first_of",
    "format",
    "is_anniversary",
    "is_birthday",
    "is_leap_year",
    "is_long_year",
    "is_same_day",
    "isocalendar",
    "isoformat",
    "isoweekday",
    "last_of",
    "next",
    "nth_of",
    "previous",
    "replace",
    "set",
    "start_of",
    "strftime",
    "subtract",
    "to_date_string",
    "to_formatted_date_string",
    "toordinal",
    "weekday",
    "is_past",
    "is_future",
    "for_json",
];

impl Object for Date {
    fn type_name(&self) -> &str {
        if self.is_plain { "datetime.date" } else { "Date" }
    }

    fn text(&self) -> String {
        self.day.to_string()
    }

    fn repr(&self) -> String {
        let day = self.day;
        let class = if self.is_plain { "datetime.date" } else { "Date" };
        format!("{class}({}, {}, {})", day.year(), day.month(), day.day())
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        Ok(date_attribute(self.day, name))
    }

    fn methods(&self) -> &'static [&'static str] {
        &METHODS
    }

    fn call_method(&self, vm: &mut Vm<'_>, name: &str, args: Args) -> Res<Value> {
        if matches!(name, "isoformat" | "for_json") {
            args.none(name)?;
            return Ok(Value::text(self.text()));
        }
        let value = self.midnight().call_method(vm, name, args)?;
        // What moves a date gives a date.
        Ok(match value.downcast::<DateTime>() {
            Some(moved) => Value::object(Self { day: moved.civil().date(), ..*self }),
            None => value,
        })
    }

    fn order(&self, other: &Value) -> Option<Ordering> {
        Some(self.day.cmp(&other.downcast::<Self>()?.day))
    }

    fn operate(&self, operator: &str, other: &Value, is_right: bool) -> Option<Res<Value>> {
        if let Ok(delta) = TimeDelta::of(other) {
            return match operator {
                "+" => Some(self.add(delta).map(Value::object)),
                "-" if !is_right => Some(self.add(delta.times(-1)).map(Value::object)),
                _ => None,
            };
        }
        let theirs = other.downcast::<Self>().filter(|_| operator == "-" && !is_right)?;
        let between = Interval::between(&theirs.midnight(), &self.midnight()).of_days();
        Some(Ok(if self.is_plain && theirs.is_plain { Value::object(between.delta()) } else { Value::object(between) }))
    }

    fn format(&self, spec: &str) -> Res<String> {
        if spec.is_empty() { Ok(self.text()) } else { self.midnight().format(spec) }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A time of day.
#[derive(Clone, Copy)]
pub(super) struct Time(pub(super) civil::Time);

impl Time {
    fn parts(&self) -> Parts<'static> {
        Parts { at: civil::date(1900, 1, 1).to_datetime(self.0), zoned: None }
    }
}

impl Object for Time {
    fn type_name(&self) -> &str {
        "Time"
    }

    fn text(&self) -> String {
        let format = if self.0.subsec_nanosecond() == 0 { "%H:%M:%S" } else { "%H:%M:%S.%f" };
        strftime::strftime(self.parts(), format)
    }

    fn repr(&self) -> String {
        let micros = self.0.subsec_nanosecond() / 1000;
        let micros = if micros == 0 { String::new() } else { format!(", {micros}") };
        format!("Time({}, {}, {}{micros})", self.0.hour(), self.0.minute(), self.0.second())
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        Ok(Some(match name {
            "hour" => Value::int(self.0.hour()),
            "minute" => Value::int(self.0.minute()),
            "second" => Value::int(self.0.second()),
            "microsecond" => Value::int(self.0.subsec_nanosecond() / 1000),
            _ => return Ok(None),
        }))
    }

    fn methods(&self) -> &'static [&'static str] {
        &["isoformat", "strftime", "format"]
    }

    fn call_method(&self, _: &mut Vm<'_>, name: &str, args: Args) -> Res<Value> {
        if name == "isoformat" {
            args.none(name)?;
            return Ok(Value::text(self.text()));
        }
        let [format] = args.all(name, ["format"])?;
        let format = print::text(&format)?;
        strftime::weigh(&format)?;
        Ok(Value::text(if name == "strftime" {
            strftime::strftime(self.parts(), &format)
        } else {
            strftime::pendulum(self.parts(), &format)
        }))
    }

    fn order(&self, other: &Value) -> Option<Ordering> {
        Some(self.0.cmp(&other.downcast::<Self>()?.0))
    }

    fn operate(&self, operator: &str, other: &Value, _: bool) -> Option<Res<Value>> {
        let name = other.type_name();
        Some(type_error(format!("unsupported operand type(s) for {operator}: 'Time' and '{name}'")))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
