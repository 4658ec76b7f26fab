//! Python's two ways of formatting: `'%d' % value` and `'{:d}'.format(value)`.

use std::iter::Peekable;
use std::str::Chars;

use crate::jinja::arguments::Args;
use crate::jinja::fault::{Fault, Res, type_error, value_error};
use crate::jinja::interpreter::Vm;
use crate::jinja::number::{self, Style};
use crate::jinja::value::Value;
use crate::jinja::{meter, print};

/// The widest that a text may be padded to, and the most digits behind a point.
const MOST_WIDTH: usize = 1 << 20;
const MOST_PRECISION: usize = 1 << 10;

/// Looks at a width before it is padded to.
///
/// # Errors
/// It is too large.
pub fn width(width: usize) -> Res<usize> {
    if width > MOST_WIDTH {
        return value_error(format!("a width of {width} is too large: at most {MOST_WIDTH}"));
    }
    meter::room(width * 4)?;
    meter::read(width)?;
    Ok(width)
}

fn precision(digits: usize) -> Res<usize> {
    if digits > MOST_PRECISION {
        return value_error(format!("a precision of {digits} is too large: at most {MOST_PRECISION}"));
    }
    Ok(digits)
}

/// How a field is padded.
struct Padding {
    fill: char,
    /// `<`, `>`, `^`, or `=` between sign and digits.
    align: char,
    width: usize,
}

impl Padding {
    fn pad(&self, text: &str) -> Res<String> {
        let missing = width(self.width)?.saturating_sub(text.chars().count());
        let fill = |count: usize| self.fill.to_string().repeat(count);
        Ok(match self.align {
            '<' => format!("{text}{}", fill(missing)),
            '^' => format!("{}{text}{}", fill(missing / 2), fill(missing - missing / 2)),
            '=' => {
                let signs = text.find(|c: char| !matches!(c, '+' | '-' | ' ')).unwrap_or(0);
                let prefix = if ["0x", "0X", "0o", "0b"].iter().any(|p| text[signs..].starts_with(p)) { 2 } else { 0 };
                let (sign, digits) = text.split_at(signs + prefix);
                format!("{sign}{}{digits}", fill(missing))
            }
            _ => format!("{}{text}", fill(missing)),
        })
    }
}

fn digits(chars: &mut Peekable<Chars<'_>>) -> Option<usize> {
    let mut number: Option<usize> = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        number = Some(number.unwrap_or(0).saturating_mul(10).saturating_add(digit as usize));
        chars.next();
    }
    number
}

/// `pattern % values`: one value, a tuple of them, or a dict for `%(name)s`.
///
/// # Errors
/// Python's: too few or too many values, one of the wrong type, an unknown conversion.
pub fn percent(pattern: &str, values: &Value) -> Res<String> {
    meter::read(pattern.len())?;
    let all = match values {
        Value::Tuple(items) => items.to_vec(),
        one => vec![one.clone()],
    };
    let mut left = all.iter();
    let mut is_named = false;
    let mut out = String::with_capacity(pattern.len() * 2);
    let mut chars = pattern.chars().peekable();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        let mut named = None;
        if chars.next_if_eq(&'(').is_some() {
            let name: String = chars.by_ref().take_while(|c| *c != ')').collect();
            let Value::Dict(dict) = values else { return type_error("format requires a mapping") };
            named = Some(dict.get_text(&name).ok_or_else(|| Fault::new("KeyError", print::quoted(&name)))?);
            is_named = true;
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|c| "#0- +".contains(*c)) {
            flags.push(flag);
        }
        let mut take = || left.next().ok_or_else(|| Fault::new("TypeError", "not enough arguments for format string"));
        let mut star = |chars: &mut Peekable<Chars<'_>>| -> Res<Option<i64>> {
            if chars.next_if_eq(&'*').is_some() {
                return crate::jinja::arguments::int_of(take()?).map(Some);
            }
            Ok(digits(chars).map(|number| i64::try_from(number).unwrap_or(i64::MAX)))
        };
        let field_width = star(&mut chars)?;
        let field_precision = match chars.next_if_eq(&'.') {
            Some(_) => Some(precision(usize::try_from(star(&mut chars)?.unwrap_or(0)).unwrap_or(0))?),
            None => None,
        };
        while chars.next_if(|c| "hlL".contains(*c)).is_some() {}
        let Some(conversion) = chars.next() else { return value_error("incomplete format") };
        if conversion == '%' {
            out.push('%');
            continue;
        }
        let value = match named {
            Some(value) => value,
            None => {
                left.next().cloned().ok_or_else(|| Fault::new("TypeError", "not enough arguments for format string"))?
            }
        };
        let is_left = flags.contains('-') || field_width.is_some_and(|width| width < 0);
        let text = converted(conversion, &value, &flags, field_precision)?;
        let is_numeric = !matches!(conversion, 's' | 'r' | 'a' | 'c');
        let is_zeroed = flags.contains('0') && is_numeric && !is_left;
        let padding = Padding {
            fill: if is_zeroed { '0' } else { ' ' },
            align: if is_left {
                '<'
            } else if is_zeroed {
                '='
            } else {
                '>'
            },
            width: field_width.map_or(0, |width| usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX)),
        };
        out.push_str(&padding.pad(&text)?);
        meter::room(out.len())?;
    }
    if left.next().is_some() && !is_named && !matches!(values, Value::Dict(_)) {
        return type_error("not all arguments converted during string formatting");
    }
    Ok(out)
}

fn converted(conversion: char, value: &Value, flags: &str, digits: Option<usize>) -> Res<String> {
    let cut = |text: String| match digits {
        Some(digits) => text.chars().take(digits).collect(),
        None => text,
    };
    let sign = if flags.contains('+') {
        '+'
    } else if flags.contains(' ') {
        ' '
    } else {
        '-'
    };
    let is_alternate = flags.contains('#');
    Ok(match conversion {
        's' => cut(print::text(value)?),
        'r' => cut(print::repr(value)?),
        'a' => cut(ascii(&print::repr(value)?)),
        'c' => match value {
            Value::Text(text) if text.as_str().chars().count() == 1 => text.as_str().to_owned(),
            _ => match value.as_int().and_then(|code| u32::try_from(code).ok()).and_then(char::from_u32) {
                Some(char) => char.to_string(),
                None => return type_error("%c requires int or char"),
            },
        },
        'd' | 'i' | 'u' | 'o' | 'x' | 'X' => {
            let number = match value {
                Value::Undefined(undefined) => return Err(undefined.fault()),
                Value::Float(number) if matches!(conversion, 'd' | 'i' | 'u') => number::truncated(*number)?,
                _ => match value.as_int() {
                    Some(number) => number,
                    None if matches!(conversion, 'd' | 'i' | 'u') => {
                        return type_error(format!(
                            "%{conversion} format: a real number is required, not {}",
                            value.type_name()
                        ));
                    }
                    None => {
                        return type_error(format!(
                            "%{conversion} format: an integer is required, not {}",
                            value.type_name()
                        ));
                    }
                },
            };
            let text = number::integer(
                number,
                if matches!(conversion, 'i' | 'u') { 'd' } else { conversion },
                sign,
                is_alternate,
            );
            let bare = text.trim_start_matches(['+', '-', ' ']);
            let missing = digits.unwrap_or(0).saturating_sub(bare.len());
            format!("{}{}{bare}", &text[..text.len() - bare.len()], "0".repeat(missing))
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let Some(number) = value.as_float() else {
                return match value {
                    Value::Undefined(undefined) => Err(undefined.fault()),
                    _ => type_error(format!("must be real number, not {}", value.type_name())),
                };
            };
            number::float(number, &Style { kind: conversion, digits: Some(digits.unwrap_or(6)), sign, is_alternate })
        }
        _ => {
            return value_error(format!("unsupported format character '{conversion}' (0x{:x})", u32::from(conversion)));
        }
    })
}

/// Python's `ascii` of a `repr`.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match u32::from(char) {
            0..=0x7f => out.push(char),
            code @ 0x80..=0xff => out.push_str(&format!("\\x{code:02x}")),
            code @ 0x100..=0xffff => out.push_str(&format!("\\u{code:04x}")),
            code => out.push_str(&format!("\\U{code:08x}")),
        }
    }
    out
}

/// Python's `format(value, spec)`.
///
/// # Errors
/// A specification that is none, or not one for this type.
pub fn formatted(value: &Value, spec: &str) -> Res<String> {
    match value {
        Value::Object(object) => return object.format(spec),
        Value::Undefined(undefined) if undefined.lenient().is_err() => return Err(undefined.fault()),
        _ if spec.is_empty() => return print::text(value),
        Value::Text(_) | Value::Int(_) | Value::Bool(_) | Value::Float(_) => {}
        _ => return type_error(format!("unsupported format string passed to {}.__format__", value.type_name())),
    }
    let spec = Spec::read(spec)?;
    let text = match value {
        Value::Text(text) => match spec.kind {
            None | Some('s') => match spec.precision {
                Some(digits) => text.as_str().chars().take(digits).collect(),
                None => text.as_str().to_owned(),
            },
            Some(kind) => return value_error(format!("Unknown format code '{kind}' for object of type 'str'")),
        },
        _ => spec.number(value)?,
    };
    let is_text = matches!(value, Value::Text(_));
    let align = spec.align.unwrap_or(if is_text { '<' } else { '>' });
    Padding { fill: spec.fill, align, width: spec.width }.pad(&text)
}

struct Spec {
    fill: char,
    align: Option<char>,
    sign: char,
    is_alternate: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

impl Spec {
    fn read(text: &str) -> Res<Self> {
        let mut chars = text.chars().peekable();
        let mut spec = Self {
            fill: ' ',
            align: None,
            sign: '-',
            is_alternate: false,
            width: 0,
            grouping: None,
            precision: None,
            kind: None,
        };
        let mut ahead = text.chars();
        let (first, second) = (ahead.next(), ahead.next());
        if let (Some(fill), Some(align @ ('<' | '>' | '^' | '='))) = (first, second) {
            spec.fill = fill;
            spec.align = Some(align);
            chars.nth(1);
        } else if let Some(align @ ('<' | '>' | '^' | '=')) = first {
            spec.align = Some(align);
            chars.next();
        }
        if let Some(sign) = chars.next_if(|c| "+- ".contains(*c)) {
            spec.sign = sign;
        }
        chars.next_if_eq(&'z');
        spec.is_alternate = chars.next_if_eq(&'#').is_some();
        if chars.next_if_eq(&'0').is_some() && spec.align.is_none() {
            spec.fill = '0';
            spec.align = Some('=');
        }
        spec.width = digits(&mut chars).unwrap_or(0);
        spec.grouping = chars.next_if(|c| ",_".contains(*c));
        if chars.next_if_eq(&'.').is_some() {
            let Some(wanted) = digits(&mut chars) else { return value_error("Format specifier missing precision") };
            spec.precision = Some(precision(wanted)?);
        }
        spec.kind = chars.next();
        if chars.next().is_some() {
            return value_error(format!("Invalid format specifier '{text}'"));
        }
        Ok(spec)
    }

    fn number(&self, value: &Value) -> Res<String> {
        let kind = match (self.kind, value) {
            (Some(kind), _) => kind,
            (None, Value::Float(_)) => 'r',
            (None, _) => 'd',
        };
        let text = match (kind, value.as_int()) {
            ('d' | 'n' | 'b' | 'o' | 'x' | 'X', Some(_)) if self.precision.is_some() => {
                return value_error("Precision not allowed in integer format specifier");
            }
            ('d' | 'n' | 'b' | 'o' | 'x' | 'X', Some(whole)) => {
                number::integer(whole, if kind == 'n' { 'd' } else { kind }, self.sign, self.is_alternate)
            }
            ('c', Some(whole)) => match u32::try_from(whole).ok().and_then(char::from_u32) {
                Some(char) => char.to_string(),
                None => return Err(Fault::new("OverflowError", "%c arg not in range(0x110000)")),
            },
            ('e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'n' | '%' | 'r', _) => {
                let Some(float) = value.as_float() else { return value_error("no number") };
                if kind == '%' {
                    let style = Style {
                        kind: 'f',
                        digits: Some(self.precision.unwrap_or(6)),
                        sign: self.sign,
                        is_alternate: self.is_alternate,
                    };
                    number::float(float * 100.0, &style) + "%"
                } else {
                    let kind = if kind == 'n' { 'g' } else { kind };
                    let digits = if kind == 'r' { self.precision } else { Some(self.precision.unwrap_or(6)) };
                    number::float(float, &Style { kind, digits, sign: self.sign, is_alternate: self.is_alternate })
                }
            }
            _ => {
                return value_error(format!("Unknown format code '{kind}' for object of type '{}'", value.type_name()));
            }
        };
        Ok(match self.grouping {
            Some(mark) => number::grouped(&text, mark, if matches!(kind, 'b' | 'o' | 'x' | 'X') { 4 } else { 3 }),
            None => text,
        })
    }
}

/// `pattern.format(*args, **kwargs)`.
///
/// # Errors
/// Python's: a field that is not there, a brace without another, a bad specification.
pub fn braces(vm: &mut Vm<'_>, pattern: &str, args: &Args) -> Res<String> {
    let mut next = 0;
    fields(vm, pattern, args, &mut next, 2)
}

fn fields(vm: &mut Vm<'_>, pattern: &str, args: &Args, next: &mut usize, depth: usize) -> Res<String> {
    if depth == 0 {
        return value_error("Max string recursion exceeded");
    }
    meter::read(pattern.len())?;
    let mut out = String::with_capacity(pattern.len() * 2);
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out.push_str(brace);
            rest = after;
            continue;
        }
        if brace == "}" {
            return value_error("Single '}' encountered in format string");
        }
        let mut open = 1;
        let end = rest.char_indices().find_map(|(at, char)| {
            open += i32::from(char == '{') - i32::from(char == '}');
            (open == 0).then_some(at)
        });
        let Some(end) = end else {
            let message = if rest.is_empty() {
                "Single '{' encountered in format string"
            } else {
                "expected '}' before end of string"
            };
            return value_error(message);
        };
        let field = &rest[..end];
        rest = &rest[end + 1..];
        let name_end = field.find([':', '!']).unwrap_or(field.len());
        let (name, how) = field.split_at(name_end);
        let value = look_up(vm, name, args, next)?;
        let (conversion, spec) = match how.strip_prefix('!') {
            Some(how) => match how.split_once(':') {
                Some((conversion, spec)) => (conversion, spec),
                None => (how, ""),
            },
            None => ("", how.strip_prefix(':').unwrap_or("")),
        };
        let spec = if spec.contains('{') { fields(vm, spec, args, next, depth - 1)? } else { spec.to_owned() };
        out.push_str(&match conversion {
            "" => formatted(&value, &spec)?,
            "s" => formatted(&Value::text(print::text(&value)?), &spec)?,
            "r" => formatted(&Value::text(print::repr(&value)?), &spec)?,
            "a" => formatted(&Value::text(ascii(&print::repr(&value)?)), &spec)?,
            other => return value_error(format!("Unknown conversion specifier {other}")),
        });
        meter::room(out.len())?;
    }
    out.push_str(rest);
    Ok(out)
}

/// `name`, `0`, nothing, with `.attribute` and `[key]` behind.
fn look_up(vm: &mut Vm<'_>, field: &str, args: &Args, next: &mut usize) -> Res<Value> {
    let end = field.find(['.', '[']).unwrap_or(field.len());
    let (first, mut rest) = field.split_at(end);
    let at = if first.is_empty() {
        *next += 1;
        Some(*next - 1)
    } else {
        first.parse::<usize>().ok()
    };
    let mut value = match at {
        Some(at) => args.positional.get(at).cloned().ok_or_else(|| {
            Fault::new("IndexError", format!("Replacement index {at} out of range for positional args tuple"))
        })?,
        None => {
            let found = args.named.iter().find(|(name, _)| **name == *first).map(|(_, value)| value.clone());
            found.ok_or_else(|| Fault::new("KeyError", print::quoted(first)))?
        }
    };
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            value = vm.attribute(&value, &after[..end])?;
            rest = &after[end..];
        } else if let Some((key, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let key = key.parse::<i128>().map_or_else(|_| Value::text(key), Value::Int);
            value = vm.item(&value, &key)?;
            rest = after;
        } else {
            return value_error("Missing ']' in format string");
        }
    }
    Ok(value)
}
