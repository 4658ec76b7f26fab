//! Values as Python shows them, and JSON in both directions.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Value, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, escape_formatter};

/// A JSON value as a template sees it: dicts keep their order.
pub(super) fn from_json(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Value::from(whole),
            (None, Some(whole)) => Value::from(whole),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text),
        serde_json::Value::Array(items) => items.into_iter().map(from_json).collect(),
        serde_json::Value::Object(pairs) => {
            Value::from_pairs(pairs.into_iter().map(|(key, item)| (key, from_json(item))))
        }
    }
}

/// Python's `json.dumps` with its default separators; `indent` as there.
///
/// # Errors
/// A value that JSON cannot hold.
pub(super) fn dumps(value: &Value, indent: Option<usize>, sorts_keys: bool) -> Result<String, Error> {
    let mut out = String::new();
    write_json(&mut out, value, Layout { indent, sorts_keys, depth: 0 })?;
    Ok(out)
}

#[derive(Clone, Copy)]
struct Layout {
    indent: Option<usize>,
    sorts_keys: bool,
    depth: usize,
}

impl Layout {
    fn deeper(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }

    fn separate(self, out: &mut String, is_first: bool) {
        match self.indent {
            Some(width) => {
                out.push_str(if is_first { "\n" } else { ",\n" });
                out.push_str(&" ".repeat(width.min(16) * (self.depth + 1)));
            }
            None if !is_first => out.push_str(", "),
            None => {}
        }
    }

    fn close(self, out: &mut String, is_empty: bool) {
        if let (Some(width), false) = (self.indent, is_empty) {
            out.push('\n');
            out.push_str(&" ".repeat(width.min(16) * self.depth));
        }
    }
}

/// How deep JSON may nest: deeper values come from nobody's hand, and the stack is finite.
const MAX_DEPTH: usize = 128;

fn write_json(out: &mut String, value: &Value, layout: Layout) -> Result<(), Error> {
    if layout.depth > MAX_DEPTH {
        return Err(Error::new(ErrorKind::BadSerialization, format!("a value nested deeper than {MAX_DEPTH} levels")));
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&value.to_string()),
        ValueKind::String => write_json_text(out, value.as_str().unwrap_or_default()),
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if layout.sorts_keys {
                keys.sort();
            }
            out.push('{');
            for (at, key) in keys.iter().enumerate() {
                layout.separate(out, at == 0);
                match key.as_str() {
                    Some(text) => write_json_text(out, text),
                    None => {
                        let mut text = String::new();
                        write_json(&mut text, key, layout.deeper())?;
                        write_json_text(out, &text);
                    }
                }
                out.push_str(": ");
                write_json(out, &value.get_item(key)?, layout.deeper())?;
            }
            layout.close(out, keys.is_empty());
            out.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            let mut is_empty = true;
            for item in value.try_iter()? {
                layout.separate(out, is_empty);
                is_empty = false;
                write_json(out, &item, layout.deeper())?;
            }
            layout.close(out, is_empty);
            out.push(']');
        }
        ValueKind::Plain => {
            return Err(Error::new(
                ErrorKind::BadSerialization,
                format!("`{value}` cannot be written as JSON; make a text of it first, e.g. with `| string`"),
            ));
        }
        kind => return Err(Error::new(ErrorKind::BadSerialization, format!("{kind} cannot be written as JSON"))),
    }
    Ok(())
}

/// Python writes everything outside ASCII as `\uXXXX`.
fn write_json_text(out: &mut String, text: &str) {
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
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
}

/// A list or dict that prints as JSON and is otherwise itself (CONTRACTS 7, `xcom`).
pub(super) struct Json(Value);

impl Json {
    /// Only lists and dicts need it. A bool or null stays what it is, so that `== true` and `is none` hold; see [`mark_json`].
    pub(super) fn value(value: serde_json::Value) -> Value {
        let inner = from_json(value);
        match inner.kind() {
            ValueKind::Map | ValueKind::Seq => Value::from_object(Self(inner)),
            _ => inner,
        }
    }
}

/// Under this name a render remembers how much fuel was used when `xcom` last gave a bool or null.
const JSON_MARK: &str = "xcom";

fn used_fuel(state: &State<'_, '_>) -> i64 {
    state.fuel_levels().map_or(0, |(used, _)| used as i64)
}

/// Has the value print as JSON if the very next instruction prints it, as in `{{ xcom('a') }}`.
pub(super) fn mark_json(state: &mut State<'_, '_>, value: &Value) {
    if matches!(value.kind(), ValueKind::Bool | ValueKind::None) {
        let used = used_fuel(state);
        state.set_temp(JSON_MARK, Value::from(used));
    }
}

/// Writes what `{{ … }}` gives.
pub(super) fn print(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let text = match value.kind() {
        ValueKind::Bool if value.is_true() => "true",
        ValueKind::Bool => "false",
        ValueKind::None => "null",
        _ => return escape_formatter(out, state, value),
    };
    let is_marked = state.get_temp(JSON_MARK).and_then(|mark| mark.as_i64()) == Some(used_fuel(state) - 1);
    if !is_marked {
        return escape_formatter(out, state, value);
    }
    out.write_str(text).map_err(|error| Error::new(ErrorKind::WriteFailure, "cannot print").with_source(error))
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&dumps(&self.0, None, false).map_err(|_| fmt::Error)?)
    }
}

impl Object for Json {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        if self.0.kind() == ValueKind::Map { ObjectRepr::Map } else { ObjectRepr::Seq }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.as_object()?.get_value(key)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.0.as_object().map_or(Enumerator::Empty, |object| object.enumerate())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
