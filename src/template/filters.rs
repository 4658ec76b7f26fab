//! Filters that Jinja has not: Airflow's for dates, and minflow's own.

use std::rc::Rc;

use crate::jinja::fault::{Fault, Res, type_error};
use crate::jinja::json::{Layout, dumps};
use crate::jinja::{Function, Value, print};
use crate::template::datetime::DateTime;
use crate::template::strftime::strftime;

/// The filters' names, for did-you-mean and the documentation.
pub(super) const NAMES: [&str; 7] = ["ds", "ds_nodash", "json", "sh", "ts", "ts_nodash", "ts_nodash_with_tz"];

/// The filter of that name.
pub(super) fn named(name: &str) -> Option<Function> {
    let name = *NAMES.iter().find(|known| **known == name)?;
    Some(Rc::new(move |_, args| {
        let [value] = args.all(name, ["value"])?;
        match name {
            "json" => dumps(&value, &Layout::default()).map(Value::text),
            "sh" => sh(&value).map(Value::text),
            _ => dated(&value, |at| date_text(name, at)),
        }
    }))
}

/// What the filter, or the variable, of that name writes of a moment.
pub(super) fn date_text(name: &str, at: &DateTime) -> String {
    match name {
        "ds" => strftime(at.parts(), "%Y-%m-%d"),
        "ds_nodash" => strftime(at.parts(), "%Y%m%d"),
        "ts" => at.isoformat(),
        "ts_nodash" => strftime(at.parts(), "%Y%m%dT%H%M%S"),
        _ => at.isoformat().replace(['-', ':'], ""),
    }
}

/// Airflow's date filters hand None on.
fn dated(value: &Value, write: impl FnOnce(&DateTime) -> String) -> Res<Value> {
    if value.is_none() {
        return Ok(Value::None);
    }
    match (value.downcast::<DateTime>(), value) {
        (Some(at), _) => Ok(Value::text(write(at))),
        (None, Value::Undefined(undefined)) => Err(undefined.fault()),
        (None, _) => {
            type_error(format!("`{}` is no datetime; the date filters take e.g. `logical_date`", print::text(value)?))
        }
    }
}

/// One word for a POSIX shell; a list becomes one word for each item.
fn sh(value: &Value) -> Res<String> {
    match value {
        Value::Undefined(undefined) => Err(undefined.fault()),
        Value::List(_) | Value::Tuple(_) | Value::Range(_) | Value::View(..) | Value::Stream(_) => {
            let words = value.to_vec()?.iter().map(|item| quote(&print::text(item)?)).collect::<Res<Vec<_>>>()?;
            Ok(words.join(" "))
        }
        _ => quote(&print::text(value)?),
    }
}

fn quote(text: &str) -> Res<String> {
    if text.contains('\0') {
        return Err(Fault::new("ValueError", "a shell word cannot hold a NUL character"));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@%+=:,./-_".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return Ok(text.to_owned());
    }
    Ok(format!("'{}'", text.replace('\'', "'\"'\"'")))
}
