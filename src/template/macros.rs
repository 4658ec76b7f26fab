//! `macros`: Airflow's functions and the parts of Python's standard library that it hands to templates.
//!
//! `time`, `uuid` and `random` are left out: a template has no clock and no chance, so that a try can be rendered again.

use std::fmt;
use std::sync::Arc;

use jiff::ToSpan;
use jiff::civil;
use minijinja::value::{Kwargs, Object, ObjectRepr, Rest, Value, from_args};
use minijinja::{Error, ErrorKind, State};

use crate::template::datetime::{Date, DateTime, TimeDelta};
use crate::template::python::{dumps, from_json};
use crate::template::strftime::{self, Parts, strptime};

fn invalid(message: impl fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.to_string())
}

/// The variable `macros`.
pub(super) struct Macros;

impl fmt::Debug for Macros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<macros>")
    }
}

impl Object for Macros {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        Some(match key.as_str()? {
            "datetime" => Value::from_object(Module::DateTime),
            "json" => Value::from_object(Module::Json),
            "dateutil" => Value::from_object(Module::Dateutil),
            "timedelta" => Value::from_object(Module::TimeDelta),
            "ds_add" => Value::from_function(ds_add),
            "ds_format" => Value::from_function(ds_format),
            _ => return None,
        })
    }

    fn call_method(self: &Arc<Self>, state: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        match self.get_value(&Value::from(method)) {
            Some(function) => function.call(state, args),
            None => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// `macros.ds_add(ds, days)`.
fn ds_add(ds: &str, days: i64) -> Result<String, Error> {
    let (at, _) = strptime(ds, "%Y-%m-%d").map_err(invalid)?;
    let days = jiff::Span::new().try_days(days).map_err(invalid)?;
    Ok(at.date().checked_add(days).map_err(invalid)?.to_string())
}

/// `macros.ds_format(ds, input_format, output_format)`.
fn ds_format(ds: &str, input: &str, output: &str) -> Result<String, Error> {
    let (at, _) = strptime(ds, input).map_err(invalid)?;
    Ok(strftime::strftime(Parts { at, zoned: None }, output))
}

/// A Python module or class inside `macros`.
#[derive(Clone, Copy, Debug)]
enum Module {
    DateTime,
    TimeDelta,
    Json,
    Dateutil,
    DateutilParser,
}

impl Object for Module {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match (**self, key.as_str()?) {
            (Self::Dateutil, "parser") => Some(Value::from_object(Self::DateutilParser)),
            _ => None,
        }
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        match **self {
            Self::DateTime => new_datetime(args),
            Self::TimeDelta => TimeDelta::from_arguments(args).map(Value::from_object),
            _ => Err(invalid(format!("{self:?} is a module, not a function"))),
        }
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        match (**self, method) {
            (Self::DateTime, "strptime") => {
                let (text, format): (&str, &str) = from_args(args)?;
                let (at, offset) = strptime(text, format).map_err(invalid)?;
                Ok(Value::from_object(match offset {
                    Some(offset) => DateTime::Aware(at.to_zoned(offset.to_time_zone()).map_err(invalid)?),
                    None => DateTime::Naive(at),
                }))
            }
            (Self::DateTime, "fromisoformat") | (Self::DateutilParser, "parse" | "isoparse") => {
                parse_iso(from_args::<(&str,)>(args)?.0)
            }
            (Self::DateTime, "date") => {
                let (year, month, day): (i16, i8, i8) = from_args(args)?;
                civil::Date::new(year, month, day).map(|date| Value::from_object(Date(date))).map_err(invalid)
            }
            (Self::DateTime, "now" | "utcnow" | "today") => Err(invalid(
                "a template has no clock; use `logical_date`, `dag_run.run_after` or `date` in the task itself",
            )),
            (Self::Json, "dumps") => {
                let (value, kwargs): (Value, Kwargs) = from_args(args)?;
                let indent = kwargs.get::<Option<usize>>("indent")?;
                let sorts_keys = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or_default();
                kwargs.assert_all_used()?;
                dumps(&value, indent, sorts_keys).map(Value::from)
            }
            (Self::Json, "loads") => {
                let (text,): (&str,) = from_args(args)?;
                serde_json::from_str(text).map(from_json).map_err(|error| invalid(format!("not JSON: {error}")))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// `datetime(year, month, day, hour=0, minute=0, second=0, microsecond=0)`, naive.
fn new_datetime(args: &[Value]) -> Result<Value, Error> {
    let (year, month, day, Rest(mut rest)): (i16, i8, i8, Rest<Value>) = from_args(args)?;
    let kwargs = match rest.pop_if(|last| last.is_kwargs()) {
        Some(last) => Kwargs::try_from(last)?,
        None => Kwargs::from_iter(std::iter::empty::<(String, Value)>()),
    };
    if rest.len() > 4 {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let or_named = |at: usize, name: &str| -> Result<i32, Error> {
        Ok(match rest.get(at) {
            Some(given) => i32::try_from(given.clone())?,
            None => kwargs.get::<Option<i32>>(name)?.unwrap_or_default(),
        })
    };
    let small = |at: usize, name: &str| -> Result<i8, Error> {
        i8::try_from(or_named(at, name)?).map_err(|_| invalid(format!("{name} is out of range")))
    };
    let (hour, minute, second) = (small(0, "hour")?, small(1, "minute")?, small(2, "second")?);
    let micros = or_named(3, "microsecond")?;
    kwargs.assert_all_used()?;
    let nanos = micros.checked_mul(1000).ok_or_else(|| invalid("microsecond is out of range"))?;
    let at = civil::DateTime::new(year, month, day, hour, minute, second, nanos).map_err(invalid)?;
    Ok(Value::from_object(DateTime::Naive(at)))
}

/// ISO 8601 as Python reads it: a date, or a date and a time, with or without an offset.
fn parse_iso(text: &str) -> Result<Value, Error> {
    let text = text.trim();
    let aware = text.parse::<jiff::Timestamp>().ok().and_then(|_| {
        let pieces = jiff::fmt::temporal::Pieces::parse(text).ok()?;
        let offset = pieces.to_numeric_offset()?;
        pieces.date().to_datetime(pieces.time()?).to_zoned(offset.to_time_zone()).ok()
    });
    if let Some(zoned) = aware {
        return Ok(Value::from_object(DateTime::Aware(zoned)));
    }
    let naive = text.parse::<civil::DateTime>().ok().and_then(|at| at.checked_add(0.seconds()).ok());
    naive.map(|at| Value::from_object(DateTime::Naive(at))).ok_or_else(|| {
        invalid(format!("{} is no ISO 8601 date or time; write e.g. '2024-02-03T04:05:06'", strftime::quoted(text)))
    })
}
