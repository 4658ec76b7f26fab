//! Filters: Airflow's, minflow's own, and Jinja's where minijinja has none or another result.

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind};

use crate::template::datetime::DateTime;
use crate::template::python::dumps;
use crate::template::strftime::strftime;

pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_filter("ds", |value: &Value| dated(value, |at| strftime(at.parts(), "%Y-%m-%d")));
    environment.add_filter("ds_nodash", |value: &Value| dated(value, |at| strftime(at.parts(), "%Y%m%d")));
    environment.add_filter("ts", |value: &Value| dated(value, DateTime::isoformat));
    environment.add_filter("ts_nodash", |value: &Value| dated(value, |at| strftime(at.parts(), "%Y%m%dT%H%M%S")));
    environment
        .add_filter("ts_nodash_with_tz", |value: &Value| dated(value, |at| at.isoformat().replace(['-', ':'], "")));
    environment.add_filter("sh", sh);
    environment.add_filter("json", |value: &Value| dumps(value, None, false));
    environment.add_filter("tojson", to_json);
}

/// Airflow's date filters hand None on.
fn dated(value: &Value, write: impl FnOnce(&DateTime) -> String) -> Result<Value, Error> {
    if value.is_none() {
        return Ok(Value::from(()));
    }
    match value.downcast_object_ref::<DateTime>() {
        Some(at) => Ok(Value::from(write(at))),
        None => Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("`{value}` is no datetime; the date filters take e.g. `logical_date`"),
        )),
    }
}

/// One word for a POSIX shell; a list becomes one word for each item.
fn sh(value: &Value) -> Result<String, Error> {
    use minijinja::value::ValueKind;
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            Ok(value.try_iter()?.map(|item| quote(&item.to_string())).collect::<Result<Vec<_>, _>>()?.join(" "))
        }
        ValueKind::Undefined => Err(Error::from(ErrorKind::UndefinedError)),
        _ => quote(&value.to_string()),
    }
}

fn quote(text: &str) -> Result<String, Error> {
    if text.contains('\0') {
        return Err(Error::new(ErrorKind::InvalidOperation, "a shell word cannot hold a NUL character"));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@%+=:,./-_".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return Ok(text.to_owned());
    }
    Ok(format!("'{}'", text.replace('\'', "'\"'\"'")))
}

/// Jinja's `tojson`: keys sorted, and the characters that HTML minds written as escapes.
fn to_json(value: &Value, indent: Option<usize>, kwargs: Kwargs) -> Result<String, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => kwargs.get::<Option<usize>>("indent")?,
    };
    kwargs.assert_all_used()?;
    let text = dumps(value, indent, true)?;
    let escapes = [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\'', "\\u0027")];
    Ok(escapes.iter().fold(text, |text, (char, escape)| text.replace(*char, escape)))
}
