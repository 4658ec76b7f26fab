//! Filters: Airflow's, minflow's own, and Jinja's where minijinja has none or another result.

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind};

use crate::template::arithmetic;
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
    environment.add_filter(arithmetic::PLUS, arithmetic::plus);
    environment.add_filter(arithmetic::MINUS, arithmetic::minus);
    environment.add_filter(arithmetic::PERCENT, arithmetic::percent);
    environment.add_filter("urlencode", url_encode);
    environment.add_filter("wordcount", word_count);
    environment.add_filter("truncate", truncate);
    environment.add_filter("filesizeformat", file_size);
}

/// Percent-encoding; of a dict, a query.
fn url_encode(value: &Value) -> Result<String, Error> {
    let encode = |text: &str, is_query: bool| -> String {
        let mut out = String::new();
        for byte in text.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.push(char::from(byte)),
                b'/' if !is_query => out.push('/'),
                b' ' if is_query => out.push('+'),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
        out
    };
    if value.kind() != minijinja::value::ValueKind::Map {
        return Ok(encode(&value.to_string(), false));
    }
    let mut pairs = Vec::new();
    for key in value.try_iter()? {
        let item = value.get_item(&key)?;
        pairs.push(format!("{}={}", encode(&key.to_string(), true), encode(&item.to_string(), true)));
    }
    Ok(pairs.join("&"))
}

/// How many runs of letters, digits and underscores.
fn word_count(text: &str) -> usize {
    text.split(|char: char| !(char.is_alphanumeric() || char == '_')).filter(|word| !word.is_empty()).count()
}

/// Jinja's `truncate(length=255, killwords=false, end='...', leeway=5)`.
fn truncate(
    text: &str,
    length: Option<usize>,
    kills_words: Option<bool>,
    end: Option<&str>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let named_end: Option<String> = kwargs.get("end")?;
    let length = length.or(kwargs.get("length")?).unwrap_or(255);
    let kills_words = kills_words.or(kwargs.get("killwords")?).unwrap_or_default();
    let leeway = kwargs.get::<Option<usize>>("leeway")?.unwrap_or(5);
    let end = end.or(named_end.as_deref()).unwrap_or("...");
    kwargs.assert_all_used()?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.to_owned());
    }
    let room = length.checked_sub(end.chars().count()).ok_or_else(|| {
        Error::new(ErrorKind::InvalidOperation, format!("truncate to {length} leaves no room for its end `{end}`"))
    })?;
    let cut: String = text.chars().take(room).collect();
    let kept = if kills_words { &*cut } else { cut.rsplit_once(' ').map_or(&*cut, |(before, _)| before) };
    Ok(format!("{kept}{end}"))
}

/// Jinja's `filesizeformat(binary=false)`.
fn file_size(bytes: f64, is_binary: Option<bool>) -> String {
    let (base, units) = if is_binary.unwrap_or_default() {
        (1024.0, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"])
    } else {
        (1000.0, ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"])
    };
    if bytes == 1.0 {
        return "1 Byte".to_owned();
    }
    if bytes < base {
        return format!("{} Bytes", bytes.trunc());
    }
    let mut size = bytes / base;
    let mut unit = 0;
    while size >= base && unit + 1 < units.len() {
        size /= base;
        unit += 1;
    }
    format!("{size:.1} {}", units[unit])
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
