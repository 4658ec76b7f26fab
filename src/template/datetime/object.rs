//! A moment as a value of a template: its attributes, what compares it, adds to it and prints it, and the names of its methods.

use std::any::Any;
use std::cmp::Ordering;

use crate::jinja::fault::{Res, type_error};
use crate::jinja::{Args, Object, Value, Vm};
use crate::template::calendar::{Zone, date_attribute, zone_name};
use crate::template::datetime::DateTime;
use crate::template::duration::{Interval, TimeDelta};
use crate::template::strftime::{self, strftime};

const METHODS: [&str; 64] = [
    "add",
    "astimezone",
    "at",
    "average",
    "closest",
    "ctime",
    "date",
    "diff",
    "diff_for_humans",
    "dst",
    "end_of",
    "farthest",
    "first_of",
    "for_json",
    "format",
    "in_timezone",
    "in_tz",
    "is_anniversary",
    "is_birthday",
    "is_dst",
    "is_future",
    "is_leap_year",
    "is_local",
    "is_long_year",
    "is_past",
    "is_same_day",
    "is_utc",
    "isocalendar",
    "isoformat",
    "isoweekday",
    "last_of",
    "naive",
    "next",
    "nth_of",
    "on",
    "previous",
    "replace",
    "set",
    "start_of",
    "strftime",
    "subtract",
    "time",
    "timestamp",
    "timetz",
    "to_atom_string",
    "to_cookie_string",
    "to_date_string",
    "to_datetime_string",
    "to_day_datetime_string",
    "to_formatted_date_string",
    "to_iso8601_string",
    "to_rfc1036_string",
    "to_rfc1123_string",
    "to_rfc2822_string",
    "to_rfc3339_string",
    "to_rfc822_string",
    "to_rfc850_string",
    "to_rss_string",
    "to_time_string",
    "to_w3c_string",
    "toordinal",
    "tzname",
    "utcoffset",
    "weekday",
];

/// Those of Python's own class.
const PLAIN_METHODS: [&str; 16] = [
    "astimezone",
    "ctime",
    "date",
    "dst",
    "isocalendar",
    "isoformat",
    "isoweekday",
    "replace",
    "strftime",
    "time",
    "timestamp",
    "timetz",
    "toordinal",
    "tzname",
    "utcoffset",
    "weekday",
];

/// The attributes of Python's own class.
const PLAIN_ATTRIBUTES: [&str; 9] =
    ["year", "month", "day", "hour", "minute", "second", "microsecond", "tzinfo", "fold"];

impl Object for DateTime {
    fn type_name(&self) -> &str {
        if self.is_plain { "datetime.datetime" } else { "DateTime" }
    }

    fn text(&self) -> String {
        self.text_with(" ")
    }

    fn repr(&self) -> String {
        let at = self.civil();
        let micros = at.subsec_nanosecond() / 1000;
        let mut text = if self.is_plain { "datetime.datetime(" } else { "DateTime(" }.to_owned();
        text.push_str(&format!("{}, {}, {}, {}, {}", at.year(), at.month(), at.day(), at.hour(), at.minute()));
        if !self.is_plain || at.second() != 0 || micros != 0 {
            text.push_str(&format!(", {}", at.second()));
        }
        if micros != 0 {
            text.push_str(&format!(", {micros}"));
        }
        if let Some(zoned) = self.zoned() {
            text.push_str(&format!(", tzinfo=Timezone('{}')", zone_name(zoned)));
        }
        text + ")"
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        let at = self.civil();
        if self.is_plain && !PLAIN_ATTRIBUTES.contains(&name) {
            return Ok(None);
        }
        if let Some(found) = date_attribute(at.date(), name) {
            return Ok(Some(found));
        }
        Ok(Some(match name {
            "hour" => Value::int(at.hour()),
            "minute" => Value::int(at.minute()),
            "second" => Value::int(at.second()),
            "microsecond" => Value::int(at.subsec_nanosecond() / 1000),
            // pendulum's times say 1 unless told otherwise, Python's 0.
            "fold" => Value::Int(i128::from(!self.is_plain)),
            "int_timestamp" => Value::int(self.timestamp().as_second()),
            "float_timestamp" => Value::Float(self.seconds()),
            "timezone_name" => self.zoned().map_or(Value::None, |zoned| Value::text(zone_name(zoned))),
            "timezone" | "tz" | "tzinfo" => match self.zoned() {
                Some(zoned) => Value::object(Zone(zone_name(zoned))),
                None => Value::None,
            },
            "offset" => self.zoned().map_or(Value::None, |zoned| Value::int(zoned.offset().seconds())),
            "offset_hours" => {
                self.zoned().map_or(Value::None, |zoned| Value::Float(f64::from(zoned.offset().seconds()) / 3600.0))
            }
            _ => return Ok(None),
        }))
    }

    fn methods(&self) -> &'static [&'static str] {
        if self.is_plain { &PLAIN_METHODS } else { &METHODS }
    }

    fn call_method(&self, vm: &mut Vm<'_>, name: &str, args: Args) -> Res<Value> {
        self.method(vm, name, args)
    }

    fn order(&self, other: &Value) -> Option<Ordering> {
        let other = other.downcast::<Self>()?;
        // Python compares no naive time with an aware one.
        (self.zoned().is_some() == other.zoned().is_some()).then(|| self.timestamp().cmp(&other.timestamp()))
    }

    fn operate(&self, operator: &str, other: &Value, is_right: bool) -> Option<Res<Value>> {
        if let Ok(delta) = TimeDelta::of(other) {
            return match operator {
                "+" => Some(self.add(delta).map(Value::object)),
                "-" if !is_right => Some(self.add(delta.times(-1)).map(Value::object)),
                _ => None,
            };
        }
        let theirs = other.downcast::<Self>().filter(|_| operator == "-" && !is_right);
        let Some(theirs) = theirs else {
            let is_number = other.as_float().is_some() && matches!(operator, "+" | "-");
            return is_number.then(|| {
                type_error(format!(
                    "unsupported operand type(s) for {operator}: a time and {}: to a time one adds a duration, e.g. `macros.timedelta(days=1)`",
                    other.type_name()
                ))
            });
        };
        if self.zoned().is_some() != theirs.zoned().is_some() {
            return Some(type_error("can't subtract offset-naive and offset-aware datetimes"));
        }
        let interval = Interval::between(theirs, self);
        Some(Ok(if self.is_plain && theirs.is_plain {
            Value::object(interval.delta())
        } else {
            Value::object(interval)
        }))
    }

    fn format(&self, spec: &str) -> Res<String> {
        strftime::weigh(spec)?;
        Ok(match spec {
            "" => self.text(),
            _ if spec.contains('%') || self.is_plain => strftime(self.parts(), spec),
            _ => strftime::pendulum(self.parts(), spec),
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
