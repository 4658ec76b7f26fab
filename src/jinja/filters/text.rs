//! Filters of texts.

use crate::jinja::arguments::{Args, given, int_of, size_of_argument};
use crate::jinja::fault::{Fault, Res, type_error};
use crate::jinja::filters::{argument, chars_stripped, flag};
use crate::jinja::value::Value;
use crate::jinja::{filters, format, meter, methods, print};

pub(super) fn call(name: &str, input: &Value, args: Args) -> Res<Value> {
    if name == "filesizeformat" {
        return file_size(input, args);
    }
    if name == "pprint" {
        args.none(name)?;
        let mut out = String::new();
        pretty(&mut out, input, 0, 0)?;
        return Ok(Value::text(out));
    }
    let text = print::text(input)?;
    meter::read(text.len())?;
    Ok(Value::text(match name {
        "capitalize" => {
            args.none(name)?;
            methods::capitalize(&text)
        }
        "lower" => {
            args.none(name)?;
            text.to_lowercase()
        }
        "upper" => {
            args.none(name)?;
            text.to_uppercase()
        }
        "title" => {
            args.none(name)?;
            title(&text)
        }
        "trim" => {
            let [chars] = args.bind(name, ["chars"])?;
            chars_stripped(&text, chars)?
        }
        "wordcount" => {
            args.none(name)?;
            let words = text.split(|char: char| !(char.is_alphanumeric() || char == '_'));
            return Ok(Value::count(words.filter(|word| !word.is_empty()).count()));
        }
        "replace" => {
            let [old, new, most] = args.bind(name, ["old", "new", "count"])?;
            let (old, new) = (argument(old, name, "old")?, argument(new, name, "new")?);
            let most = given(most).map_or(Ok(-1), |most| int_of(&most))?;
            methods::replaced(&text, &old, &new, most)?
        }
        "center" => {
            let [width] = args.bind(name, ["width"])?;
            let width = format::width(width.map_or(Ok(80), |width| size_of_argument(&width))?)?;
            let room = width.saturating_sub(text.chars().count());
            let left = room / 2 + (room & width & 1);
            format!("{}{text}{}", " ".repeat(left), " ".repeat(room - left))
        }
        "indent" => indent(&text, args)?,
        "truncate" => truncate(&text, args)?,
        _ => wrap(&text, args)?,
    }))
}

/// Jinja's: a letter at the start, or after a blank, a hyphen or an opening bracket, is large.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_first = true;
    for char in text.chars() {
        if is_first {
            out.extend(char.to_uppercase());
        } else {
            out.extend(char.to_lowercase());
        }
        is_first = char.is_whitespace() || matches!(char, '-' | '(' | '{' | '[' | '<');
    }
    out
}

fn indent(text: &str, args: Args) -> Res<String> {
    let [width, first, blank] = args.bind("indent", ["width", "first", "blank"])?;
    let indent = match width {
        Some(Value::Text(text)) => text.as_str().to_owned(),
        Some(width) => " ".repeat(format::width(size_of_argument(&width)?)?),
        None => "    ".to_owned(),
    };
    let (first, blank) = (flag(first, false)?, flag(blank, false)?);
    let whole = format!("{text}\n");
    let lines = methods::lines(&whole, false)?;
    let bytes = indent.len().saturating_mul(lines.len()).saturating_add(text.len());
    meter::read(bytes)?;
    meter::room(bytes)?;
    let mut out = String::with_capacity(bytes);
    for (at, line) in lines.iter().enumerate() {
        if at > 0 {
            out.push('\n');
        }
        let is_indented = if at == 0 { first } else { blank || !line.is_empty() };
        if is_indented {
            out.push_str(&indent);
        }
        out.push_str(line);
    }
    Ok(out)
}

fn truncate(text: &str, args: Args) -> Res<String> {
    let [length, kills_words, end, leeway] = args.bind("truncate", ["length", "killwords", "end", "leeway"])?;
    let length = length.map_or(Ok(255), |length| size_of_argument(&length))?;
    let kills_words = flag(kills_words, false)?;
    let end = end.map_or(Ok("...".to_owned()), |end| print::text(&end))?;
    let leeway = given(leeway).map_or(Ok(5), |leeway| size_of_argument(&leeway))?;
    let end_length = end.chars().count();
    if length < end_length {
        return Err(Fault::new("AssertionError", format!("expected length >= {end_length}, got {length}")));
    }
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.to_owned());
    }
    let cut: String = text.chars().take(length - end_length).collect();
    let kept = if kills_words { &*cut } else { cut.rsplit_once(' ').map_or(&*cut, |(before, _)| before) };
    Ok(format!("{kept}{end}"))
}

fn file_size(input: &Value, args: Args) -> Res<Value> {
    let [binary] = args.bind("filesizeformat", ["binary"])?;
    let (base, units) = if flag(binary, false)? {
        (1024.0, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"])
    } else {
        (1000.0, ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"])
    };
    let bytes = match input {
        Value::Undefined(undefined) => return Err(undefined.fault()),
        Value::Text(text) => crate::jinja::number::read_float(text.as_str()).ok_or_else(|| {
            Fault::new("ValueError", format!("could not convert string to float: {}", print::quoted(text.as_str())))
        })?,
        _ => match input.as_float() {
            Some(bytes) => bytes,
            None => {
                return type_error(format!(
                    "float() argument must be a string or a real number, not '{}'",
                    input.type_name()
                ));
            }
        },
    };
    if bytes == 1.0 {
        return Ok(Value::text("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::text(format!("{} Bytes", bytes.trunc())));
    }
    let mut size = bytes / base;
    let mut unit = 0;
    while size >= base && unit + 1 < units.len() {
        size /= base;
        unit += 1;
    }
    Ok(Value::text(format!("{size:.1} {}", units[unit])))
}

/// `wordwrap(width=79, break_long_words=true, wrapstring=newline, break_on_hyphens=true)`.
fn wrap(text: &str, args: Args) -> Res<String> {
    let [width, breaks, with, hyphens] =
        args.bind("wordwrap", ["width", "break_long_words", "wrapstring", "break_on_hyphens"])?;
    let width = width.map_or(Ok(79), |width| size_of_argument(&width))?;
    let with = given(with).map_or(Ok("\n".to_owned()), |with| print::text(&with))?;
    let (breaks, hyphens) = (flag(breaks, true)?, flag(hyphens, true)?);
    if width == 0 {
        return crate::jinja::fault::value_error(format!("invalid width {width} (must be > 0)"));
    }
    meter::read(text.len().saturating_mul(4))?;
    let mut lines: Vec<String> = Vec::new();
    for line in methods::lines(text, false)? {
        let wrapped = wrap_line(line, width, breaks, hyphens);
        if wrapped.is_empty() {
            lines.push(String::new());
        }
        lines.extend(wrapped);
    }
    meter::room(lines.len().saturating_mul(with.len() + 24).saturating_add(text.len()))?;
    Ok(lines.join(&with))
}

/// The pieces that a line may be broken between: blanks, words, and the parts of words with hyphens.
fn pieces(line: &str, hyphens: bool) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let chars: Vec<(usize, char)> = line.char_indices().collect();
    for (n, (at, char)) in chars.iter().enumerate() {
        let Some((_, next)) = chars.get(n + 1) else { break };
        let is_edge = char.is_whitespace() != next.is_whitespace();
        let before = n.checked_sub(1).map(|n| chars[n].1);
        let is_hyphen = hyphens && *char == '-' && next.is_alphabetic() && before.is_some_and(char::is_alphanumeric);
        if is_edge || is_hyphen {
            pieces.push(&line[start..at + char.len_utf8()]);
            start = at + char.len_utf8();
        }
    }
    pieces.push(&line[start..]);
    pieces
}

fn wrap_line(line: &str, width: usize, breaks: bool, hyphens: bool) -> Vec<String> {
    let length = |text: &str| text.chars().count();
    let mut lines = Vec::new();
    let mut current = String::new();
    let mut used = 0;
    for piece in pieces(line, hyphens).into_iter().filter(|piece| !piece.is_empty()) {
        let is_blank = piece.trim().is_empty();
        let mut piece = piece;
        if used + length(piece) > width {
            if is_blank {
                if !current.is_empty() {
                    lines.push(std::mem::take(&mut current).trim_end().to_owned());
                }
                used = 0;
                continue;
            }
            if length(piece) <= width || !breaks {
                if !current.trim().is_empty() {
                    lines.push(current.trim_end().to_owned());
                }
                current.clear();
                used = 0;
            }
            while breaks && used + length(piece) > width {
                let room = width - used;
                let cut = piece.char_indices().nth(room).map_or(piece.len(), |(at, _)| at);
                current.push_str(&piece[..cut]);
                lines.push(std::mem::take(&mut current));
                used = 0;
                piece = &piece[cut..];
            }
        }
        if is_blank && used == 0 && !lines.is_empty() {
            continue;
        }
        current.push_str(piece);
        used += length(piece);
    }
    if !current.trim().is_empty() {
        lines.push(current.trim_end().to_owned());
    }
    lines
}

/// Python's `pprint`: on one line if it fits into 80 characters, else an item a line.
fn pretty(out: &mut String, value: &Value, indent: usize, behind: usize) -> Res<()> {
    const WIDTH: usize = 80;
    let shown = sorted_repr(value)?;
    let fits = indent + shown.chars().count() + behind <= WIDTH;
    let open = indent + 1;
    match value {
        Value::Dict(dict) if !fits && !dict.is_empty() => {
            let mut entries = dict.entries();
            filters::sorted(&mut entries, |(key, _)| key.clone())?;
            out.push('{');
            let last = entries.len() - 1;
            for (at, (key, item)) in entries.iter().enumerate() {
                let key = print::repr(key)?;
                out.push_str(&key);
                out.push_str(": ");
                pretty(out, item, open + key.chars().count() + 2, if at == last { behind + 1 } else { 1 })?;
                separate(out, at == last, open);
            }
            out.push('}');
        }
        Value::List(items) | Value::Tuple(items) if !fits && !items.is_empty() => {
            let is_list = matches!(value, Value::List(_));
            out.push(if is_list { '[' } else { '(' });
            let last = items.len() - 1;
            for (at, item) in items.to_vec().iter().enumerate() {
                pretty(out, item, open, if at == last { behind + 1 } else { 1 })?;
                separate(out, at == last, open);
            }
            out.push(if is_list { ']' } else { ')' });
        }
        _ => out.push_str(&shown),
    }
    meter::room(out.len())
}

fn separate(out: &mut String, is_last: bool, indent: usize) {
    if !is_last {
        out.push_str(",\n");
        out.push_str(&" ".repeat(indent));
    }
}

/// `repr`, with the keys of a dict in order.
fn sorted_repr(value: &Value) -> Res<String> {
    let Value::Dict(dict) = value else { return print::repr(value) };
    let mut entries = dict.entries();
    // Keys without an order stay in theirs.
    let is_sorted = filters::sorted(&mut entries, |(key, _)| key.clone());
    if is_sorted.is_err() {
        return print::repr(value);
    }
    print::repr(&Value::Dict(crate::jinja::dict::Dict::from_pairs(entries)?))
}
