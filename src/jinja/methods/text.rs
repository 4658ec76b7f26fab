//! Methods of texts.

use crate::jinja::arguments::{Args, given, int_of, needed, size_of_argument, text_of};
use crate::jinja::fault::{Fault, Res, type_error, value_error};
use crate::jinja::interpreter::Vm;
use crate::jinja::tests_of_values::is_case;
use crate::jinja::value::Value;
use crate::jinja::{format, meter};

pub(super) const NAMES: [&str; 44] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];

pub(super) fn call(vm: &mut Vm<'_>, text: &str, name: &str, args: Args) -> Res<Value> {
    meter::read(text.len())?;
    let plain: Option<fn(&str) -> String> = match name {
        "upper" => Some(str::to_uppercase),
        "lower" => Some(str::to_lowercase),
        "casefold" => Some(|text| text.to_lowercase().replace('ß', "ss")),
        "title" => Some(title),
        "capitalize" => Some(capitalize),
        "swapcase" => Some(swapcase),
        _ => None,
    };
    if let Some(change) = plain {
        args.none(name)?;
        meter::room(text.len() * 2)?;
        return Ok(Value::text(change(text)));
    }
    if let Some(known) = name.strip_prefix("is") {
        args.none(name)?;
        return Ok(Value::Bool(is(text, known)));
    }
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = args.bind(name, ["chars"])?;
            let chars = given(chars);
            let chars = chars.as_ref().map(|chars| text_of(chars, "chars")).transpose()?;
            Ok(Value::text(stripped(text, name, chars)))
        }
        "startswith" | "endswith" => {
            let [affix, start, end] = args.bind(name, ["prefix", "start", "end"])?;
            let (text, _) = part_of(text, start, end)?;
            let affix = needed(affix, name, "prefix")?;
            let has = |affix: &Value| -> Res<bool> {
                let affix = text_of(affix, "the first argument")?;
                Ok(if name == "startswith" { text.starts_with(affix) } else { text.ends_with(affix) })
            };
            if let Value::Tuple(items) = &affix {
                for affix in items.to_vec() {
                    if has(&affix)? {
                        return Ok(Value::Bool(true));
                    }
                }
                return Ok(Value::Bool(false));
            }
            Ok(Value::Bool(has(&affix)?))
        }
        "removeprefix" => {
            let [affix] = args.all(name, ["prefix"])?;
            Ok(Value::text(text.strip_prefix(text_of(&affix, "prefix")?).unwrap_or(text)))
        }
        "removesuffix" => {
            let [affix] = args.all(name, ["suffix"])?;
            Ok(Value::text(text.strip_suffix(text_of(&affix, "suffix")?).unwrap_or(text)))
        }
        "replace" => {
            let [old, new, most] = args.bind(name, ["old", "new", "count"])?;
            let (old, new) = (needed(old, name, "old")?, needed(new, name, "new")?);
            let most = most.map_or(Ok(-1), |most| int_of(&most))?;
            replaced(text, text_of(&old, "replace() argument 1")?, text_of(&new, "replace() argument 2")?, most)
                .map(Value::text)
        }
        "split" | "rsplit" => split(text, name == "rsplit", args),
        "splitlines" => {
            let [keeps] = args.bind(name, ["keepends"])?;
            let keeps = keeps.map_or(Ok(false), |keeps| keeps.is_true())?;
            let lines = lines(text, keeps)?;
            meter::room(lines.len() * PIECE_BYTES)?;
            Ok(Value::list(lines.into_iter().map(Value::text).collect()))
        }
        "partition" | "rpartition" => {
            let [separator] = args.all(name, ["sep"])?;
            let separator = text_of(&separator, "sep")?;
            if separator.is_empty() {
                return value_error("empty separator");
            }
            let parts = match name {
                "partition" => {
                    text.split_once(separator).map_or([text, "", ""], |(before, after)| [before, separator, after])
                }
                _ => text.rsplit_once(separator).map_or(["", "", text], |(before, after)| [before, separator, after]),
            };
            Ok(Value::tuple(parts.into_iter().map(Value::text).collect()))
        }
        "join" => {
            let [items] = args.all(name, ["iterable"])?;
            join(text, &items)
        }
        "find" | "rfind" | "index" | "rindex" | "count" => search(text, name, args),
        "zfill" => {
            let [width] = args.all(name, ["width"])?;
            let width = format::width(size_of_argument(&width)?)?;
            let sign = text.len() - text.trim_start_matches(['-', '+']).len();
            let (sign, digits) = text.split_at(sign.min(1));
            let zeros = width.saturating_sub(text.chars().count());
            Ok(Value::text(format!("{sign}{}{digits}", "0".repeat(zeros))))
        }
        "ljust" | "rjust" | "center" => justified(text, name, args),
        "expandtabs" => {
            let [size] = args.bind(name, ["tabsize"])?;
            let size = format::width(size.map_or(Ok(8), |size| size_of_argument(&size))?)?;
            meter::room(size.saturating_mul(text.matches('\t').count()).saturating_add(text.len()))?;
            Ok(Value::text(tabs_expanded(text, size)))
        }
        "format" => format::braces(vm, text, &args).map(Value::text),
        "format_map" => {
            let [mapping] = args.all(name, ["mapping"])?;
            let Value::Dict(dict) = &mapping else { return type_error("format_map() takes a dict") };
            let named =
                dict.entries().into_iter().filter_map(|(key, value)| Some((key.as_str()?.into(), value))).collect();
            format::braces(vm, text, &Args { positional: Vec::new(), named }).map(Value::text)
        }
        _ => Err(Fault::new("AttributeError", format!("'str' object has no attribute '{name}'"))),
    }
}

fn is(text: &str, known: &str) -> bool {
    let all = |holds: fn(char) -> bool| !text.is_empty() && text.chars().all(holds);
    match known {
        "digit" => all(|char| char.is_ascii_digit() || matches!(char, '²' | '³' | '¹')),
        "decimal" => all(|char| char.is_ascii_digit()),
        "numeric" => all(char::is_numeric),
        "alpha" => all(char::is_alphabetic),
        "alnum" => all(char::is_alphanumeric),
        "space" => all(char::is_whitespace),
        "ascii" => text.is_ascii(),
        "printable" => !text.chars().any(char::is_control),
        "identifier" => {
            text.starts_with(|c: char| c == '_' || c.is_alphabetic())
                && text.chars().all(|c| c == '_' || c.is_alphanumeric())
        }
        "upper" => is_case(text, char::is_uppercase, char::is_lowercase),
        "lower" => is_case(text, char::is_lowercase, char::is_uppercase),
        _ => text.chars().any(char::is_alphabetic) && title(text) == text,
    }
}

/// The characters that `strip` takes away: whitespace unless given.
pub fn stripped<'t>(text: &'t str, method: &str, chars: Option<&str>) -> &'t str {
    let is_taken = |char: char| chars.map_or(char.is_whitespace(), |chars| chars.contains(char));
    match method {
        "lstrip" => text.trim_start_matches(is_taken),
        "rstrip" => text.trim_end_matches(is_taken),
        _ => text.trim_matches(is_taken),
    }
}

/// Python's `replace`; a negative count is all of them.
///
/// # Errors
/// The result is too large.
pub fn replaced(text: &str, old: &str, new: &str, most: i64) -> Res<String> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() }.min(most);
    let bytes = text.len().saturating_add(found.saturating_mul(new.len()));
    meter::read(bytes)?;
    meter::room(bytes)?;
    Ok(text.replacen(old, new, most))
}

/// Python's `separator.join(items)`.
///
/// # Errors
/// An item that is no text, or too much of them.
fn join(separator: &str, items: &Value) -> Res<Value> {
    let mut joined = String::new();
    for (at, item) in items.iterate()?.enumerate() {
        let Value::Text(text) = &item else {
            if let Value::Undefined(undefined) = &item {
                return Err(undefined.fault());
            }
            return type_error(format!("sequence item {at}: expected str instance, {} found", item.type_name()));
        };
        meter::read(separator.len() + text.as_str().len())?;
        meter::room(joined.len() + separator.len() + text.as_str().len())?;
        if at > 0 {
            joined.push_str(separator);
        }
        joined.push_str(text.as_str());
    }
    Ok(Value::text(joined))
}

/// The part of a text between two places, counted in characters, and where it begins.
fn part_of(text: &str, start: Option<Value>, end: Option<Value>) -> Res<(&str, usize)> {
    let (start, end) = (given(start), given(end));
    if start.is_none() && end.is_none() {
        return Ok((text, 0));
    }
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let bound = |at: Option<Value>, default: i64| -> Res<usize> {
        let at = at.map_or(Ok(default), |at| int_of(&at))?;
        Ok(usize::try_from(if at < 0 { (at + length).max(0) } else { at.min(length) }).unwrap_or(0))
    };
    let (start, end) = (bound(start, 0)?, bound(end, length)?);
    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    let (from, to) = (byte(start), byte(end));
    Ok((if from <= to { &text[from..to] } else { "" }, start))
}

fn search(text: &str, name: &str, args: Args) -> Res<Value> {
    let [part, start, end] = args.bind(name, ["sub", "start", "end"])?;
    let part = needed(part, name, "sub")?;
    let part = text_of(&part, "the first argument")?;
    let (inside, offset) = part_of(text, start, end)?;
    if name == "count" {
        return Ok(Value::count(inside.matches(part).count()));
    }
    let found = if name.starts_with('r') { inside.rfind(part) } else { inside.find(part) };
    match found {
        Some(at) => Ok(Value::count(offset + inside[..at].chars().count())),
        None if name.ends_with("find") => Ok(Value::Int(-1)),
        None => value_error("substring not found"),
    }
}

fn justified(text: &str, name: &str, args: Args) -> Res<Value> {
    let [width, fill] = args.bind(name, ["width", "fillchar"])?;
    let width = format::width(size_of_argument(&needed(width, name, "width")?)?)?;
    let fill = fill.unwrap_or_else(|| Value::text(" "));
    let fill = text_of(&fill, "the fill character")?;
    if fill.chars().count() != 1 {
        return type_error("The fill character must be exactly one character long");
    }
    let room = width.saturating_sub(text.chars().count());
    let left = match name {
        "ljust" => 0,
        "rjust" => room,
        // Python puts the odd one to the left when the width is odd.
        _ => room / 2 + (room & width & 1),
    };
    Ok(Value::text(format!("{}{text}{}", fill.repeat(left), fill.repeat(room - left))))
}

/// What one of many pieces of a text costs as a value, in bytes.
const PIECE_BYTES: usize = 96;
/// More pieces than a render has steps are not made.
const MOST_PIECES: usize = meter::MOST_STEPS as usize + 1;

fn split(text: &str, is_from_right: bool, args: Args) -> Res<Value> {
    let [separator, most] = args.bind("split", ["sep", "maxsplit"])?;
    let most = most.map_or(Ok(-1), |most| int_of(&most))?;
    let pieces = usize::try_from(most).map_or(usize::MAX, |most| most.saturating_add(1));
    let separator = given(separator);
    let mut parts: Vec<&str> = match &separator {
        None => words(text, pieces, is_from_right),
        Some(separator) => match text_of(separator, "sep")? {
            "" => return value_error("empty separator"),
            separator if is_from_right => text.rsplitn(pieces, separator).take(MOST_PIECES).collect(),
            separator => text.splitn(pieces, separator).take(MOST_PIECES).collect(),
        },
    };
    if is_from_right {
        parts.reverse();
    }
    meter::step(parts.len())?;
    meter::room(parts.len() * PIECE_BYTES)?;
    Ok(Value::list(parts.into_iter().map(Value::text).collect()))
}

/// The words of a text; from the right, the last comes first.
fn words(text: &str, pieces: usize, is_from_right: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() && parts.len() < MOST_PIECES {
        if parts.len() + 1 >= pieces {
            // What is not split keeps its outer blanks on the far side.
            let whole = if is_from_right {
                &text[..rest.as_ptr() as usize - text.as_ptr() as usize + rest.len()]
            } else {
                &text[rest.as_ptr() as usize - text.as_ptr() as usize..]
            };
            parts.push(whole);
            break;
        }
        let at = if is_from_right { rest.rfind(char::is_whitespace) } else { rest.find(char::is_whitespace) };
        let Some(at) = at else {
            parts.push(rest);
            break;
        };
        if is_from_right {
            parts.push(rest[at..].trim_start());
            rest = rest[..at].trim_end();
        } else {
            parts.push(&rest[..at]);
            rest = rest[at..].trim_start();
        }
    }
    parts
}

/// Python's `splitlines`.
///
/// # Errors
/// There are too many.
pub fn lines(text: &str, keeps_ends: bool) -> Res<Vec<&str>> {
    let mut lines = Vec::new();
    let mut rest = text;
    let is_end = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    while !rest.is_empty() {
        meter::step(1)?;
        let Some(at) = rest.find(is_end) else {
            lines.push(rest);
            break;
        };
        let end = if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        lines.push(if keeps_ends { &rest[..at + end] } else { &rest[..at] });
        rest = &rest[at + end..];
    }
    Ok(lines)
}

fn tabs_expanded(text: &str, size: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut column = 0;
    for char in text.chars() {
        match char {
            '\t' if size > 0 => {
                let missing = size - column % size;
                out.push_str(&" ".repeat(missing));
                column += missing;
            }
            '\t' => {}
            '\n' | '\r' => {
                out.push(char);
                column = 0;
            }
            _ => {
                out.push(char);
                column += 1;
            }
        }
    }
    out
}

pub fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars.as_str().to_lowercase().chars()).collect(),
        None => String::new(),
    }
}

/// Python's: a letter after anything but a letter is large.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_inside = false;
    for char in text.chars() {
        if is_inside {
            out.extend(char.to_lowercase());
        } else {
            out.extend(char.to_uppercase());
        }
        is_inside = char.is_alphabetic();
    }
    out
}

fn swapcase(text: &str) -> String {
    let swap = |char: char| {
        if char.is_uppercase() { char.to_lowercase().to_string() } else { char.to_uppercase().to_string() }
    };
    text.chars().map(swap).collect()
}
