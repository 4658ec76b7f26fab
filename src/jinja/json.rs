//! JSON in both directions, as Python's `json` module reads and writes it.

use std::fmt::Write as _;

use crate::jinja::dict::Dict;
use crate::jinja::fault::{Fault, Res, type_error};
use crate::jinja::print::{MOST_DEEP, too_deep};
use crate::jinja::value::{Items, Mark, Value};
use crate::jinja::{meter, print};

/// A JSON value as a template sees it: dicts keep their order.
pub fn from_json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::None,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Value::int(whole),
            (None, Some(whole)) => Value::int(whole),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::text(text.as_str()),
        serde_json::Value::Array(items) => Value::list(items.iter().map(from_json).collect()),
        serde_json::Value::Object(pairs) => {
            Value::Dict(Dict::of_texts(pairs.iter().map(|(key, item)| (key.clone(), from_json(item)))))
        }
    }
}

/// The same; a list or dict prints as JSON.
pub fn printed_as_json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Array(items) => {
            Value::List(Items::marked(items.iter().map(from_json).collect(), Mark::Json))
        }
        serde_json::Value::Object(pairs) => {
            Value::Dict(Dict::printed(pairs.iter().map(|(key, item)| (key.clone(), from_json(item))), true))
        }
        _ => from_json(value),
    }
}

/// A value as plain JSON data: a tuple is a list, a time its text.
///
/// # Errors
/// A value that is undefined, too deep or too large.
pub fn to_json(value: &Value) -> Res<serde_json::Value> {
    convert(value, 0, &mut 0)
}

/// `taken`: the bytes of what has been converted, since a value may hold another many times.
fn convert(value: &Value, depth: usize, taken: &mut usize) -> Res<serde_json::Value> {
    if depth > MOST_DEEP {
        return Err(too_deep());
    }
    meter::step(1)?;
    *taken += size_of::<serde_json::Value>();
    if let Value::Text(text) = value {
        meter::read(text.as_str().len())?;
        *taken += text.as_str().len();
    }
    meter::room(*taken)?;
    Ok(match value {
        Value::Undefined(undefined) => {
            undefined.lenient()?;
            serde_json::Value::Null
        }
        Value::None => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(number) => match (i64::try_from(*number), u64::try_from(*number)) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            _ => (*number as f64).into(),
        },
        Value::Float(number) => (*number).into(),
        Value::Text(text) => text.as_str().into(),
        Value::Dict(dict) => {
            let mut pairs = serde_json::Map::new();
            for (key, item) in dict.entries() {
                let name = print::text(&key)?;
                *taken += name.len();
                pairs.insert(name, convert(&item, depth + 1, taken)?);
            }
            pairs.into()
        }
        Value::Object(object) => match object.data() {
            Some(data) => convert(&data, depth + 1, taken)?,
            None => object.text().into(),
        },
        Value::List(_) | Value::Tuple(_) | Value::Range(_) | Value::View(..) | Value::Stream(_) => {
            value.to_vec()?.iter().map(|item| convert(item, depth + 1, taken)).collect::<Res<Vec<_>>>()?.into()
        }
    })
}

/// How JSON is written.
#[derive(Clone, Debug)]
pub struct Layout {
    /// What each level is indented by; None: all on one line.
    pub indent: Option<String>,
    pub sorts_keys: bool,
    pub escapes_unicode: bool,
    pub between_items: String,
    pub behind_keys: String,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            indent: None,
            sorts_keys: false,
            escapes_unicode: true,
            between_items: ", ".to_owned(),
            behind_keys: ": ".to_owned(),
        }
    }
}

impl Layout {
    fn line(&self, out: &mut String, depth: usize) -> Res<()> {
        if let Some(indent) = &self.indent {
            meter::room(out.len().saturating_add(indent.len().saturating_mul(depth)))?;
            out.push('\n');
            for _ in 0..depth {
                out.push_str(indent);
            }
        }
        Ok(())
    }

    fn comma(&self, out: &mut String) {
        out.push_str(if self.indent.is_some() { self.between_items.trim_end() } else { &self.between_items });
    }
}

/// Python's `json.dumps`.
///
/// # Errors
/// A value that JSON cannot hold.
pub fn dumps(value: &Value, layout: &Layout) -> Res<String> {
    let mut out = String::new();
    write(&mut out, value, layout, 0)?;
    Ok(out)
}

fn write(out: &mut String, value: &Value, layout: &Layout, depth: usize) -> Res<()> {
    if depth > MOST_DEEP {
        return Err(too_deep());
    }
    meter::step(1)?;
    meter::room(out.len())?;
    match value {
        Value::Undefined(undefined) => return Err(undefined.fault()),
        Value::None => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(number) => write!(out, "{number}").expect("a text takes all"),
        Value::Float(number) => out.push_str(&match () {
            () if number.is_nan() => "NaN".to_owned(),
            () if number.is_infinite() => if *number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
            () => print::float(*number),
        }),
        Value::Text(text) => {
            meter::read(text.as_str().len())?;
            write_text(out, text.as_str(), layout.escapes_unicode);
        }
        Value::Dict(dict) => {
            let mut entries = dict.entries();
            if layout.sorts_keys {
                crate::jinja::filters::sorted(&mut entries, |(key, _)| key.clone())?;
            }
            out.push('{');
            for (at, (key, item)) in entries.iter().enumerate() {
                if at > 0 {
                    layout.comma(out);
                }
                layout.line(out, depth + 1)?;
                match key {
                    Value::Text(text) => write_text(out, text.as_str(), layout.escapes_unicode),
                    Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                        let mut text = String::new();
                        write(&mut text, key, layout, depth + 1)?;
                        write_text(out, &text, layout.escapes_unicode);
                    }
                    _ => {
                        let name = key.type_name();
                        return type_error(format!("keys must be str, int, float, bool or None, not {name}"));
                    }
                }
                out.push_str(&layout.behind_keys);
                write(out, item, layout, depth + 1)?;
            }
            if !entries.is_empty() {
                layout.line(out, depth)?;
            }
            out.push('}');
        }
        Value::List(items) | Value::Tuple(items) => {
            out.push('[');
            let items = items.to_vec();
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    layout.comma(out);
                }
                layout.line(out, depth + 1)?;
                write(out, item, layout, depth + 1)?;
            }
            if !items.is_empty() {
                layout.line(out, depth)?;
            }
            out.push(']');
        }
        Value::Object(object) if object.data().is_some() => {
            write(out, &object.data().unwrap_or(Value::None), layout, depth + 1)?;
        }
        Value::Range(_) | Value::View(..) | Value::Stream(_) | Value::Object(_) => {
            return type_error(format!(
                "Object of type {} is not JSON serializable; make a text of it first, e.g. with `| string`",
                value.type_name()
            ));
        }
    }
    Ok(())
}

fn write_text(out: &mut String, text: &str, escapes_unicode: bool) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(char),
            _ if !escapes_unicode && u32::from(char) > 0x1f => out.push(char),
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").expect("a text takes all");
                }
            }
        }
    }
    out.push('"');
}

/// Python's `json.loads`.
///
/// # Errors
/// The text is no JSON.
pub fn loads(text: &str) -> Res<Value> {
    meter::read(text.len())?;
    // A JSON value takes some 32 bytes for two characters at the worst.
    meter::room(text.len().saturating_mul(16))?;
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| Fault::new("JSONDecodeError", format!("not JSON: {error}")))?;
    Ok(from_json(&value))
}
