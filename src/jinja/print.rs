//! Values as texts: Python's `str` and `repr`.

use std::fmt::Write as _;

use crate::jinja::fault::{Fault, LIMIT, Res};
use crate::jinja::undefined::UndefinedKind;
use crate::jinja::value::{Items, Mark, Value, View};
use crate::jinja::{json, meter};

/// How deep values may stand in each other when they are written: deeper ones come from nobody's hand, and the stack is finite.
pub const MOST_DEEP: usize = 64;

pub fn too_deep() -> Box<Fault> {
    Fault::new(LIMIT, format!("a value is nested deeper than {MOST_DEEP} levels"))
}

/// Python's `str`, appended to `out`.
///
/// # Errors
/// A strictly undefined value, or one that is too large or too deep.
pub fn write_text(out: &mut String, value: &Value) -> Res<()> {
    match value {
        Value::Text(text) => {
            meter::read(text.as_str().len())?;
            out.push_str(text.as_str());
        }
        Value::Undefined(undefined) => {
            undefined.lenient()?;
            if undefined.kind == UndefinedKind::Debug {
                write!(out, "{{{{ {} }}}}", undefined.shown).expect("a text takes all");
            }
        }
        Value::Object(object) => out.push_str(&object.text()),
        Value::List(items) if items.mark() == Mark::Json => {
            out.push_str(&json::dumps(value, &json::Layout::default())?)
        }
        Value::Dict(dict) if dict.is_json() => out.push_str(&json::dumps(value, &json::Layout::default())?),
        _ => write_repr(out, value, 0)?,
    }
    Ok(())
}

/// Python's `str`.
///
/// # Errors
/// As [`write_text`].
pub fn text(value: &Value) -> Res<String> {
    let mut out = String::new();
    write_text(&mut out, value)?;
    Ok(out)
}

/// Python's `repr`.
///
/// # Errors
/// As [`write_text`].
pub fn repr(value: &Value) -> Res<String> {
    let mut out = String::new();
    write_repr(&mut out, value, 0)?;
    Ok(out)
}

/// For messages.
pub fn repr_or_type(value: &Value) -> String {
    repr(value).unwrap_or_else(|_| value.type_name().to_owned())
}

fn write_repr(out: &mut String, value: &Value, depth: usize) -> Res<()> {
    if depth > MOST_DEEP {
        return Err(too_deep());
    }
    meter::step(1)?;
    meter::room(out.len())?;
    match value {
        // Its `repr` is allowed where nothing else is.
        Value::Undefined(_) => out.push_str("Undefined"),
        Value::None => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Int(number) => write!(out, "{number}").expect("a text takes all"),
        Value::Float(number) => out.push_str(&float(*number)),
        Value::Text(text) => {
            meter::read(text.as_str().len())?;
            if text.is_markup() {
                write!(out, "Markup({})", quoted(text.as_str())).expect("a text takes all");
            } else {
                out.push_str(&quoted(text.as_str()));
            }
        }
        Value::List(items) => {
            out.push('[');
            write_items(out, items, depth)?;
            out.push(']');
        }
        Value::Tuple(items) if items.mark() == Mark::Calendar => {
            out.push_str("datetime.IsoCalendarDate(");
            for (at, name) in ["year=", ", week=", ", weekday="].into_iter().enumerate() {
                out.push_str(name);
                write_repr(out, &items.get(at).unwrap_or(Value::None), depth + 1)?;
            }
            out.push(')');
        }
        Value::Tuple(items) => {
            out.push('(');
            write_items(out, items, depth)?;
            out.push_str(if items.len() == 1 { ",)" } else { ")" });
        }
        Value::Dict(dict) => {
            out.push('{');
            for at in 0..dict.len() {
                let Some((key, item)) = dict.entry(at) else { break };
                if at > 0 {
                    out.push_str(", ");
                }
                write_repr(out, &key, depth + 1)?;
                out.push_str(": ");
                write_repr(out, &item, depth + 1)?;
            }
            out.push('}');
        }
        Value::Range(range) if range.step == 1 => {
            write!(out, "range({}, {})", range.start, range.stop).expect("a text takes all");
        }
        Value::Range(range) => {
            write!(out, "range({}, {}, {})", range.start, range.stop, range.step).expect("a text takes all");
        }
        Value::View(view, dict) => {
            out.push_str(value.type_name());
            out.push_str("([");
            for at in 0..dict.len() {
                let Some((key, item)) = dict.entry(at) else { break };
                if at > 0 {
                    out.push_str(", ");
                }
                let shown = match view {
                    View::Keys => key,
                    View::Values => item,
                    View::Items => Value::tuple(vec![key, item]),
                };
                write_repr(out, &shown, depth + 1)?;
            }
            out.push_str("])");
        }
        Value::Stream(_) => out.push_str("<generator object>"),
        Value::Object(object) => out.push_str(&object.repr()),
    }
    Ok(())
}

fn write_items(out: &mut String, items: &Items, depth: usize) -> Res<()> {
    for at in 0..items.len() {
        let Some(item) = items.get(at) else { break };
        if at > 0 {
            out.push_str(", ");
        }
        write_repr(out, &item, depth + 1)?;
    }
    Ok(())
}

/// A text as Python's `repr` shows it.
pub fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for char in text.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if char == quote => {
                out.push('\\');
                out.push(char);
            }
            ' '..='~' => out.push(char),
            _ if is_shown(char) => out.push(char),
            _ => {
                let code = u32::from(char);
                let escape = match code {
                    0..=0xff => format!("\\x{code:02x}"),
                    0x100..=0xffff => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                };
                out.push_str(&escape);
            }
        }
    }
    out.push(quote);
    out
}

/// Whether Python's `repr` shows a character outside ASCII as it is: separators and controls it does not.
fn is_shown(char: char) -> bool {
    !char.is_control()
        && !char.is_whitespace()
        && !matches!(char, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e000}'..='\u{f8ff}')
}

/// A float as Python's `repr` writes it: the shortest digits that mean it, with an exponent when it is very large or small.
pub fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number == 0.0 || (-4..16).contains(&exponent) {
        let plain = format!("{number}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}
