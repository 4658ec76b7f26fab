//! From bytes to a TOML table with places: the limits, the faults of syntax, and keys given twice.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::faults::Faults;

/// What a document may not exceed. Checked before the TOML parser sees it, which has no such bounds on memory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bytes: usize,
    /// Of brackets and of the dots in keys, together.
    pub depth: usize,
}

impl Limits {
    /// A text within the limits, or why it is none: `(code, message, help)`, a fault of the whole file.
    pub fn read<'a>(&self, bytes: &'a [u8]) -> Result<&'a str, (&'static str, String, String)> {
        if bytes.len() > self.bytes {
            let message = format!("the file has {} bytes, more than the limit of {}", bytes.len(), self.bytes);
            return Err(("too-large", message, "keep data and long scripts in files of their own".to_owned()));
        }
        if bytes.contains(&0) {
            let help = "a TOML file holds text only; is this another kind of file?".to_owned();
            return Err(("binary", "the file is binary: it holds a zero byte".to_owned(), help));
        }
        std::str::from_utf8(bytes).map_err(|error| {
            let line = bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
            let message = format!("the file is not UTF-8: see byte {} in line {line}", error.valid_up_to());
            ("not-utf8", message, "save it in the encoding UTF-8".to_owned())
        })
    }

    /// The first place that is nested too deeply.
    fn find_too_deep(&self, text: &str) -> Option<usize> {
        let bytes = text.as_bytes();
        // A key's dots nest what stands in the brackets behind it.
        let (mut at, mut depth, mut dots, mut key_dots) = (0, 0_usize, 0, 0);
        let mut open = Vec::new();
        while at < bytes.len() {
            match bytes[at] {
                b'#' => at += bytes[at..].iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len() - at - 1),
                b'"' | b'\'' => at = end_of_string(bytes, at),
                b'[' | b'{' => {
                    depth += 1 + key_dots;
                    open.push(1 + key_dots);
                    (dots, key_dots) = (0, 0);
                }
                b']' | b'}' => {
                    depth -= open.pop().unwrap_or(0);
                    (dots, key_dots) = (0, 0);
                }
                b'.' => dots += 1,
                b'=' => (dots, key_dots) = (0, dots),
                b'\n' | b',' => (dots, key_dots) = (0, 0),
                _ => {}
            }
            if depth + dots > self.depth {
                return Some(at);
            }
            at += 1;
        }
        None
    }
}

/// The last byte of the string that starts at `at`; where it does not end, the end of its line or of the text.
fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let quote = bytes[at];
    let triple = bytes[at..].starts_with(&[quote; 3]);
    let mut end = if triple { at + 3 } else { at + 1 };
    while end < bytes.len() {
        match bytes[end] {
            b'\\' if quote == b'"' => end += 1,
            b'\n' if !triple => return end,
            byte if byte == quote && !triple => return end,
            byte if byte == quote && bytes[end..].starts_with(&[quote; 3]) => return end + 2,
            _ => {}
        }
        end += 1;
    }
    bytes.len()
}

/// Beyond this only the first fault of syntax is reported: the TOML parser keeps every one it finds in memory.
const RECOVERABLE_BYTES: usize = 256 << 10;

/// Reads a text as TOML. Faults of syntax and keys given twice are added to `faults`; what could be read is given.
pub fn parse_document<'a>(limits: &Limits, faults: &mut Faults<'a>) -> Option<DeTable<'a>> {
    let text = faults.source.text;
    if let Some(at) = limits.find_too_deep(text) {
        let message = format!("nested deeper than the limit of {}", limits.depth);
        faults.add(at..at + 1, "too-deep", message, "flatten it, or keep the data in a file of its own");
        return None;
    }
    let first = match DeTable::parse(text) {
        Ok(table) => return Some(table.into_inner()),
        Err(error) => error,
    };
    if text.len() > RECOVERABLE_BYTES {
        let span = first.span().unwrap_or(0..0);
        faults.add_syntax(span, first.message(), "mend it and check again: in so large a file only the first is shown");
        return None;
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut doubled = Vec::new();
    let mut previous = (String::new(), 0);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        if error.message().starts_with("duplicate key") {
            doubled.push(span);
            continue;
        }
        let raw = &text[span.clone()];
        let (message, help) = match error.message().split_once(", expected ") {
            Some((message, "literal string")) if !raw.contains(['\n', '"']) => (message, format!("write `\"{raw}\"`")),
            Some((message, expected)) => (message, format!("expected {expected}")),
            None => (error.message(), String::new()),
        };
        // One bracket that is never closed is met again in every line that follows.
        let line = faults.source.position(span.start).line;
        let is_echo = previous.0 == message && line.abs_diff(previous.1) <= 1;
        previous = (message.to_owned(), line);
        if !is_echo {
            faults.add_syntax(span, message, help);
        }
    }
    report_doubled(&doubled, faults);
    Some(table.into_inner())
}

/// Finding the first place of a doubled key parses the text again: so many bytes in all may be spent on it.
const LOCATING_BYTES: usize = 2 << 20;

fn report_doubled(doubled: &[Range<usize>], faults: &mut Faults<'_>) {
    let text = faults.source.text;
    let mut headers: Vec<usize> = Vec::new();
    let mut budget = LOCATING_BYTES;
    for span in doubled {
        let first = if faults.is_full() { None } else { find_first(text, span, &mut budget) };
        // The parser pours the second of two equal tables into the first: their keys are not doubled by themselves.
        let poured = |first: usize| headers.iter().any(|&header| first < header && header < span.start);
        if first.as_ref().is_some_and(|first| poured(first.start)) {
            continue;
        }
        let line_start = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
        if text[line_start..].trim_start().starts_with('[') {
            headers.push(span.start);
        }
        let key = &text[span.clone()];
        let message = match first {
            Some(first) => {
                let place = faults.source.position(first.start);
                format!("`{key}` is given twice: first in line {}, column {}", place.line, place.column)
            }
            None => format!("`{key}` is given twice"),
        };
        faults.add(span.clone(), "duplicate-key", message, "keep one of the two, or rename one");
    }
}

/// The first place of the key that stands again at `second`: the one whose renaming makes the parser content with the second.
fn find_first(text: &str, second: &Range<usize>, budget: &mut usize) -> Option<Range<usize>> {
    *budget = budget.checked_sub(text.len())?;
    let line_start = text[..second.start].rfind('\n').map_or(0, |at| at + 1);
    let mut candidates = Vec::new();
    let (before, _) = DeTable::parse_recoverable(&text[..line_start]);
    collect_keys(before.get_ref(), &text[second.clone()], text, &mut candidates);
    let (line, _) = DeTable::parse_recoverable(&text[line_start..second.start]);
    let mut on_line = Vec::new();
    collect_keys(line.get_ref(), &text[second.clone()], &text[line_start..], &mut on_line);
    candidates.extend(on_line.into_iter().map(|span| span.start + line_start..span.end + line_start));
    candidates.sort_by_key(|span| std::cmp::Reverse(span.start));
    candidates.dedup();
    candidates.into_iter().find(|candidate| {
        let Some(left) = budget.checked_sub(text.len()) else { return false };
        *budget = left;
        let other = if text[candidate.clone()].starts_with('x') { "y" } else { "x" };
        let mut renamed = text.to_owned();
        renamed.replace_range(candidate.clone(), &other.repeat(candidate.len()));
        let (_, errors) = DeTable::parse_recoverable(&renamed);
        !errors.iter().any(|error| error.span().as_ref() == Some(second))
    })
}

fn collect_keys(table: &DeTable<'_>, name: &str, text: &str, found: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        if text.get(key.span()) == Some(name) {
            found.push(key.span());
        }
        collect_keys_of_value(value.get_ref(), name, text, found);
    }
}

fn collect_keys_of_value(value: &DeValue<'_>, name: &str, text: &str, found: &mut Vec<Range<usize>>) {
    match value {
        DeValue::Table(table) => collect_keys(table, name, text, found),
        DeValue::Array(list) => list.iter().for_each(|item| collect_keys_of_value(item.get_ref(), name, text, found)),
        _ => {}
    }
}
