//! `macros.yaml`: plain values as YAML and back, as far as JSON has the values.

use crate::jinja::dict::Dict;
use crate::jinja::fault::{Fault, Res};
use crate::jinja::number::{read_float, read_int};
use crate::jinja::{Value, json, meter, print};

/// How deep values may stand in each other.
const MOST_DEEP: usize = 32;

fn refused(message: &str) -> Box<Fault> {
    Fault::new("YAMLError", format!("{message}; write JSON, which every YAML reader takes, e.g. with `macros.json`"))
}

/// PyYAML's `dump`.
///
/// # Errors
/// A value that is no plain data, or nested too deeply.
pub(super) fn dump(value: &Value, is_flow: bool, sorts_keys: bool) -> Res<String> {
    let mut out = String::new();
    if is_flow || is_scalar(value) {
        flow(&mut out, value, sorts_keys, 0)?;
        out.push_str(if is_scalar(value) { "\n...\n" } else { "\n" });
        return Ok(out);
    }
    block(&mut out, value, sorts_keys, 0, false)?;
    Ok(out)
}

fn is_scalar(value: &Value) -> bool {
    match value {
        Value::List(items) | Value::Tuple(items) => items.is_empty(),
        Value::Dict(dict) => dict.is_empty(),
        _ => true,
    }
}

fn entries(dict: &Dict, sorts_keys: bool) -> Res<Vec<(String, Value)>> {
    let mut entries = Vec::new();
    for (key, value) in dict.entries() {
        entries.push((scalar(&key)?, value));
    }
    if sorts_keys {
        entries.sort_by(|one, other| one.0.cmp(&other.0));
    }
    Ok(entries)
}

fn block(out: &mut String, value: &Value, sorts_keys: bool, depth: usize, is_behind_dash: bool) -> Res<()> {
    if depth > MOST_DEEP {
        return Err(refused("the value is nested too deeply"));
    }
    meter::step(1)?;
    meter::room(out.len() + depth * 2)?;
    let indent = "  ".repeat(depth);
    match value {
        Value::Dict(dict) => {
            for (at, (key, item)) in entries(dict, sorts_keys)?.iter().enumerate() {
                if at > 0 || !is_behind_dash {
                    out.push_str(&indent);
                }
                out.push_str(key);
                out.push(':');
                match item {
                    _ if is_scalar(item) => {
                        out.push(' ');
                        flow(out, item, sorts_keys, depth)?;
                        out.push('\n');
                    }
                    // PyYAML does not indent a list below its key.
                    Value::List(_) | Value::Tuple(_) => {
                        out.push('\n');
                        block(out, item, sorts_keys, depth, false)?;
                    }
                    _ => {
                        out.push('\n');
                        block(out, item, sorts_keys, depth + 1, false)?;
                    }
                }
            }
        }
        _ => {
            for (at, item) in value.to_vec()?.iter().enumerate() {
                if at > 0 || !is_behind_dash {
                    out.push_str(&indent);
                }
                out.push_str("- ");
                if is_scalar(item) {
                    flow(out, item, sorts_keys, depth)?;
                    out.push('\n');
                } else {
                    block(out, item, sorts_keys, depth + 1, true)?;
                }
            }
        }
    }
    Ok(())
}

fn flow(out: &mut String, value: &Value, sorts_keys: bool, depth: usize) -> Res<()> {
    if depth > MOST_DEEP {
        return Err(refused("the value is nested too deeply"));
    }
    meter::step(1)?;
    meter::room(out.len())?;
    match value {
        Value::Dict(dict) => {
            out.push('{');
            for (at, (key, item)) in entries(dict, sorts_keys)?.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                out.push_str(key);
                out.push_str(": ");
                flow(out, item, sorts_keys, depth + 1)?;
            }
            out.push('}');
        }
        Value::List(_) | Value::Tuple(_) => {
            out.push('[');
            for (at, item) in value.to_vec()?.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                flow(out, item, sorts_keys, depth + 1)?;
            }
            out.push(']');
        }
        _ => out.push_str(&scalar(value)?),
    }
    Ok(())
}

fn scalar(value: &Value) -> Res<String> {
    Ok(match value {
        Value::None => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Text(text) => {
            let text = text.as_str();
            let is_plain = !text.is_empty()
                && text.trim() == text
                && matches!(plain(text), Value::Text(_))
                && !text.starts_with([
                    '-', '?', ':', ',', '[', ']', '{', '}', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`', '=',
                ])
                && !text.contains(": ")
                && !text.contains(" #")
                && !text.ends_with(':')
                && !text.contains(['\n', '\t', '[', ']', '{', '}', ','])
                && text.chars().all(|c| !c.is_control() && c.is_ascii());
            if is_plain {
                text.to_owned()
            } else if text.contains(['\n', '\t']) || !text.is_ascii() || text.chars().any(char::is_control) {
                json::dumps(value, &json::Layout::default())?
            } else {
                format!("'{}'", text.replace('\'', "''"))
            }
        }
        _ => print::text(value)?,
    })
}

/// What a word without quotes means.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::None,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ => {
            let is_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
            let whole = read_int(text, 0).filter(|_| is_number).map(Value::Int);
            let float = || read_float(text).filter(|_| is_number && text.contains('.')).map(Value::Float);
            whole.or_else(float).unwrap_or_else(|| Value::text(text))
        }
    }
}

/// PyYAML's `safe_load` of the plain forms: JSON, mappings, lists and scalars by indent.
///
/// # Errors
/// The text is none of these.
pub(super) fn load(text: &str) -> Res<Value> {
    meter::read(text.len())?;
    if let Ok(value) = json::loads(text) {
        return Ok(value);
    }
    let mut lines: Vec<(usize, &str)> = Vec::new();
    for line in text.lines() {
        let bare = line.trim_end();
        let body = bare.trim_start();
        if !body.is_empty() && !body.starts_with('#') && body != "---" && body != "..." {
            lines.push((bare.len() - body.len(), body));
        }
    }
    let mut at = 0;
    let value = match lines.first() {
        None => Value::None,
        Some((indent, _)) => read_block(&lines, &mut at, *indent, 0)?,
    };
    if at < lines.len() {
        return Err(refused("this YAML is not read here: only mappings, lists and plain values by indent are"));
    }
    Ok(value)
}

fn read_block(lines: &[(usize, &str)], at: &mut usize, indent: usize, depth: usize) -> Res<Value> {
    if depth > MOST_DEEP {
        return Err(refused("the text is nested too deeply"));
    }
    let Some((_, first)) = lines.get(*at) else { return Ok(Value::None) };
    if first.starts_with("- ") || *first == "-" {
        let mut items = Vec::new();
        while let Some((own, body)) =
            lines.get(*at).filter(|(own, body)| *own == indent && (body.starts_with("- ") || *body == "-"))
        {
            meter::step(1)?;
            let rest = body[1..].trim_start();
            if rest.is_empty() {
                *at += 1;
                items.push(read_below(lines, at, *own, depth)?);
            } else if split_key(rest).is_some() {
                // A mapping that begins behind the dash goes on at the column where it began.
                let column = own + body.len() - rest.len();
                let mut inner: Vec<(usize, &str)> = vec![(column, rest)];
                *at += 1;
                while let Some(line) = lines.get(*at).filter(|(own, _)| *own >= column) {
                    inner.push(*line);
                    *at += 1;
                }
                let mut inner_at = 0;
                items.push(read_block(&inner, &mut inner_at, column, depth + 1)?);
            } else {
                *at += 1;
                items.push(read_scalar(rest)?);
            }
        }
        return Ok(Value::list(items));
    }
    if split_key(first).is_none() {
        *at += 1;
        return read_scalar(first);
    }
    let mut pairs = Vec::new();
    while let Some((own, body)) = lines.get(*at).filter(|(own, _)| *own == indent) {
        meter::step(1)?;
        let Some((key, rest)) = split_key(body) else { break };
        *at += 1;
        let value = if rest.is_empty() { read_below(lines, at, *own, depth)? } else { read_scalar(rest)? };
        pairs.push((read_scalar(key)?, value));
    }
    Ok(Value::Dict(Dict::from_pairs(pairs)?))
}

/// What stands below a key or a dash; a list may stand at the key's own column.
fn read_below(lines: &[(usize, &str)], at: &mut usize, indent: usize, depth: usize) -> Res<Value> {
    match lines.get(*at) {
        Some((own, _)) if *own > indent => read_block(lines, at, *own, depth + 1),
        Some((own, body)) if *own == indent && body.starts_with("- ") => read_block(lines, at, *own, depth + 1),
        _ => Ok(Value::None),
    }
}

fn split_key(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['"', '\'', '[', '{']) {
        return None;
    }
    let (key, rest) = text.split_once(": ").or_else(|| Some((text.strip_suffix(':')?, "")))?;
    Some((key.trim(), rest.trim()))
}

fn read_scalar(text: &str) -> Res<Value> {
    let text = match text.find(" #") {
        Some(at) if !text.starts_with(['"', '\'']) => text[..at].trim_end(),
        _ => text,
    };
    if let Some(inside) = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return Ok(Value::text(inside.replace("''", "'")));
    }
    if text.starts_with(['"', '[', '{']) {
        return json::loads(text).or_else(|_| read_flow_list(text));
    }
    if text.starts_with(['&', '*', '!', '|', '>']) {
        return Err(refused("anchors, tags and folded texts of YAML are not read here"));
    }
    Ok(plain(text))
}

/// `[a, b]` with plain words.
fn read_flow_list(text: &str) -> Res<Value> {
    let inside = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match inside {
        Some(inside) if !inside.contains(['[', '{', '"', '\'']) => {
            Ok(Value::list(inside.split(',').map(|item| plain(item.trim())).collect()))
        }
        _ => Err(refused("this YAML is not read here")),
    }
}
