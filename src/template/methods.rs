//! Python's methods of texts, dicts and lists.

use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};

use crate::template::strftime::quoted;

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// minijinja asks here for every method that it does not know.
pub(super) fn call(_state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let found = match value.kind() {
        ValueKind::String => of_text(value.as_str().unwrap_or_default(), method, args)?,
        ValueKind::Map => of_dict(value, method, args)?,
        ValueKind::Seq => of_list(value, method, args)?,
        ValueKind::Number => of_number(value, method, args)?,
        _ => None,
    };
    found.ok_or_else(|| Error::new(ErrorKind::UnknownMethod, format!("{} has no method `{method}`", value.kind())))
}

fn of_dict(dict: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let pair = |key: Value| -> Result<Value, Error> {
        let item = dict.get_item(&key)?;
        Ok(Value::from(minijinja::value::Tuple::from(vec![key, item])))
    };
    Ok(Some(match method {
        "get" => {
            let (key, default): (Value, Option<Value>) = from_args(args)?;
            match dict.get_item(&key)? {
                found if found.is_undefined() => default.unwrap_or(Value::from(())),
                found => found,
            }
        }
        "keys" => dict.try_iter()?.collect(),
        "values" => dict.try_iter()?.map(|key| dict.get_item(&key)).collect::<Result<Value, _>>()?,
        "items" => dict.try_iter()?.map(pair).collect::<Result<Value, _>>()?,
        "copy" => dict.clone(),
        _ => return Ok(None),
    }))
}

fn of_list(list: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "count" => {
            let (wanted,): (Value,) = from_args(args)?;
            Value::from(list.try_iter()?.filter(|item| *item == wanted).count())
        }
        "index" => {
            let (wanted,): (Value,) = from_args(args)?;
            match list.try_iter()?.position(|item| item == wanted) {
                Some(at) => Value::from(at),
                None => return Err(invalid(format!("{wanted:?} is not in list"))),
            }
        }
        "copy" => list.clone(),
        "append" | "extend" | "insert" | "pop" | "remove" | "sort" | "reverse" | "clear" => {
            return Err(invalid(format!(
                "lists cannot be changed in a template, so there is no `{method}`; make a new one, e.g. `{{% set l = l + [x] %}}`"
            )));
        }
        _ => return Ok(None),
    }))
}

fn of_number(number: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let () = from_args(args)?;
    Ok(match method {
        "is_integer" => Some(Value::from(f64::try_from(number.clone())?.fract() == 0.0)),
        "bit_length" => number.as_i64().map(|whole| Value::from(64 - whole.unsigned_abs().leading_zeros())),
        _ => None,
    })
}

/// The characters that `strip` takes away: whitespace unless given.
fn stripped<'t>(text: &'t str, method: &str, chars: Option<&str>) -> &'t str {
    let is_taken = |char: char| chars.map_or(char.is_whitespace(), |chars| chars.contains(char));
    match method {
        "lstrip" => text.trim_start_matches(is_taken),
        "rstrip" => text.trim_end_matches(is_taken),
        _ => text.trim_matches(is_taken),
    }
}

/// One affix or a tuple of them.
fn has_affix(affixes: &Value, has: impl Fn(&str) -> bool) -> Result<bool, Error> {
    match affixes.as_str() {
        Some(one) => Ok(has(one)),
        None => Ok(affixes.try_iter()?.any(|affix| affix.as_str().is_some_and(&has))),
    }
}

fn of_text(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let char_index = |at: usize| Value::from(text[..at].chars().count());
    let tuple = |parts: [&str; 3]| {
        Value::from(minijinja::value::Tuple::from(parts.iter().map(|part| Value::from(*part)).collect::<Vec<_>>()))
    };
    Ok(Some(match method {
        "upper" => Value::from(text.to_uppercase()),
        "lower" | "casefold" => Value::from(text.to_lowercase()),
        "title" => Value::from(title(text)),
        "capitalize" => Value::from(capitalize(text)),
        "swapcase" => {
            text.chars()
                .map(|char| {
                    if char.is_uppercase() { char.to_lowercase().to_string() } else { char.to_uppercase().to_string() }
                })
                .collect::<String>()
                .into()
        }
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            Value::from(stripped(text, method, chars))
        }
        "startswith" => Value::from(has_affix(&from_args::<(Value,)>(args)?.0, |affix| text.starts_with(affix))?),
        "endswith" => Value::from(has_affix(&from_args::<(Value,)>(args)?.0, |affix| text.ends_with(affix))?),
        "removeprefix" => {
            let (affix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(affix).unwrap_or(text))
        }
        "removesuffix" => {
            let (affix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(affix).unwrap_or(text))
        }
        "replace" => {
            let (old, new, most): (&str, &str, Option<i64>) = from_args(args)?;
            Value::from(match most.and_then(|most| usize::try_from(most).ok()) {
                Some(most) => text.replacen(old, new, most),
                None => text.replace(old, new),
            })
        }
        "split" | "rsplit" => split(text, method == "rsplit", args)?,
        "splitlines" => text.lines().map(Value::from).collect(),
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            tuple(text.split_once(separator).map_or([text, "", ""], |(before, after)| [before, separator, after]))
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            tuple(text.rsplit_once(separator).map_or(["", "", text], |(before, after)| [before, separator, after]))
        }
        "join" => {
            let (items,): (Value,) = from_args(args)?;
            let mut parts = Vec::new();
            for item in items.try_iter()? {
                let part =
                    item.as_str().ok_or_else(|| invalid(format!("join takes texts only, not {}", item.kind())))?;
                parts.push(part.to_owned());
            }
            Value::from(parts.join(text))
        }
        "find" | "rfind" | "index" | "rindex" => {
            let (part,): (&str,) = from_args(args)?;
            match if method.starts_with('r') { text.rfind(part) } else { text.find(part) } {
                Some(at) => char_index(at),
                None if method.ends_with("find") => Value::from(-1),
                None => return Err(invalid(format!("{} is not in {}", quoted(part), quoted(text)))),
            }
        }
        "count" => {
            let (part,): (&str,) = from_args(args)?;
            Value::from(text.matches(part).count())
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let (sign, digits) = match text.strip_prefix(['-', '+']) {
                Some(digits) => text.split_at(text.len() - digits.len()),
                None => ("", text),
            };
            let zeros = bounded(width)?.saturating_sub(text.chars().count());
            Value::from(format!("{sign}{}{digits}", "0".repeat(zeros)))
        }
        "ljust" | "rjust" | "center" => justified(text, method, args)?,
        "format" => {
            use minijinja::formatting::{FormatStyle, format};
            Value::from(format(FormatStyle::StrFormat, text, args)?)
        }
        "isdigit" | "isdecimal" | "isnumeric" => Value::from(!text.is_empty() && text.chars().all(char::is_numeric)),
        "isalpha" => Value::from(!text.is_empty() && text.chars().all(char::is_alphabetic)),
        "isalnum" => Value::from(!text.is_empty() && text.chars().all(char::is_alphanumeric)),
        "isspace" => Value::from(!text.is_empty() && text.chars().all(char::is_whitespace)),
        "isupper" => Value::from(text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)),
        "islower" => Value::from(text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)),
        _ => return Ok(None),
    }))
}

/// A width that a template may pad to.
fn bounded(width: usize) -> Result<usize, Error> {
    if width > 1 << 20 { Err(invalid(format!("a width of {width} is too large"))) } else { Ok(width) }
}

fn justified(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (width, fill): (usize, Option<&str>) = from_args(args)?;
    let fill = fill.unwrap_or(" ");
    let room = bounded(width)?.saturating_sub(text.chars().count());
    let left = match method {
        "ljust" => 0,
        "rjust" => room,
        // Python puts the odd one to the left when the width is odd.
        _ => room / 2 + (room & width & 1),
    };
    Ok(Value::from(format!("{}{text}{}", fill.repeat(left), fill.repeat(room - left))))
}

fn split(text: &str, is_from_right: bool, args: &[Value]) -> Result<Value, Error> {
    let (separator, most, kwargs): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = match separator {
        Some(given) => Some(given),
        None => kwargs.get::<Option<Value>>("sep")?,
    };
    let most = match most {
        Some(given) => given,
        None => kwargs.get::<Option<i64>>("maxsplit")?.unwrap_or(-1),
    };
    kwargs.assert_all_used()?;
    let pieces = usize::try_from(most).map_or(usize::MAX, |most| most.saturating_add(1));
    let separator = separator.filter(|given| !given.is_none());
    let mut parts: Vec<&str> = match separator.as_ref().map(|given| given.as_str()) {
        Some(None) => return Err(invalid("`split` takes a text")),
        Some(Some("")) => return Err(invalid("empty separator")),
        Some(Some(separator)) if is_from_right => text.rsplitn(pieces, separator).collect(),
        Some(Some(separator)) => text.splitn(pieces, separator).collect(),
        None => return Ok(split_whitespace(text, pieces, is_from_right)),
    };
    if is_from_right {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

fn split_whitespace(text: &str, pieces: usize, is_from_right: bool) -> Value {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        if parts.len() + 1 >= pieces {
            parts.push(rest);
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
    if is_from_right {
        parts.reverse();
    }
    parts.into_iter().map(Value::from).collect()
}

fn capitalize(text: &str) -> String {
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
