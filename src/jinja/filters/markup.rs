//! Filters that make markup, JSON or URLs.

use crate::jinja::arguments::{Args, given, size_of_argument};
use crate::jinja::fault::{Fault, Res, value_error};
use crate::jinja::filters::{defined, flag};
use crate::jinja::json::{Layout, dumps};
use crate::jinja::operators::{escape, escaped, with_escapes};
use crate::jinja::value::Value;
use crate::jinja::{format, meter, print};

pub(super) fn call(name: &str, input: &Value, args: Args) -> Res<Value> {
    match name {
        "escape" | "e" => {
            args.none(name)?;
            Ok(Value::markup(escaped(input)?))
        }
        "forceescape" => {
            args.none(name)?;
            Ok(Value::markup(escape(&print::text(input)?)?))
        }
        "safe" => {
            args.none(name)?;
            Ok(Value::markup(print::text(input)?))
        }
        "striptags" => {
            args.none(name)?;
            Ok(Value::text(without_tags(&print::text(input)?)))
        }
        "tojson" => {
            let [indent] = args.bind(name, ["indent"])?;
            let indent = given(indent).map(|indent| size_of_argument(&indent).and_then(format::width)).transpose()?;
            defined(input)?;
            let layout =
                Layout { indent: indent.map(|width| " ".repeat(width)), sorts_keys: true, ..Layout::default() };
            let text = dumps(input, &layout)?;
            let escapes = [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\'', "\\u0027")];
            Ok(Value::markup(with_escapes(&text, &escapes)?))
        }
        "urlencode" => {
            args.none(name)?;
            url_encoded(input)
        }
        "urlize" => linked(&print::text(input)?, args),
        _ => attributes(input, args),
    }
}

fn quote_plus(text: &str, is_query: bool) -> Res<String> {
    let is_kept = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-~/ ".contains(byte);
    let size = text.len() + 2 * text.bytes().filter(|byte| !is_kept(byte)).count();
    meter::read(size)?;
    meter::room(size)?;
    let mut out = String::with_capacity(size);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.push(char::from(byte)),
            b'/' if !is_query => out.push('/'),
            b' ' if is_query => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(out)
}

/// Percent-encoding; of a dict or of pairs, a query.
fn url_encoded(input: &Value) -> Res<Value> {
    defined(input)?;
    let pairs = match input {
        Value::Dict(dict) => dict.entries(),
        Value::Text(_) => return Ok(Value::text(quote_plus(&print::text(input)?, false)?)),
        _ => match input.to_vec() {
            Err(_) => return Ok(Value::text(quote_plus(&print::text(input)?, false)?)),
            Ok(items) => {
                let mut pairs = Vec::new();
                for item in items {
                    match <[Value; 2]>::try_from(item.to_vec()?) {
                        Ok([key, value]) => pairs.push((key, value)),
                        Err(_) => return value_error("urlencode takes a text, a dict, or pairs of key and value"),
                    }
                }
                pairs
            }
        },
    };
    let mut parts = Vec::new();
    for (key, value) in pairs {
        parts.push(format!("{}={}", quote_plus(&print::text(&key)?, true)?, quote_plus(&print::text(&value)?, true)?));
    }
    Ok(Value::text(parts.join("&")))
}

/// Without comments, tags and doubled blanks, and with the entities resolved.
fn without_tags(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('<') {
        let is_comment = rest[open..].starts_with("<!--");
        let close = if is_comment {
            rest[open..].find("-->").map(|at| at + 3)
        } else {
            rest[open..].find('>').map(|at| at + 1)
        };
        let Some(close) = close else { break };
        plain.push_str(&rest[..open]);
        rest = &rest[open + close..];
    }
    plain.push_str(rest);
    let spaced: Vec<&str> = plain.split_whitespace().collect();
    unescaped(&spaced.join(" "))
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some(end) = rest.find(';').filter(|end| *end <= 10) else {
            out.push('&');
            rest = &rest[1..];
            continue;
        };
        let name = &rest[1..end];
        let char = match name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            "nbsp" => Some('\u{a0}'),
            _ => match name.strip_prefix("#x").or(name.strip_prefix("#X")) {
                Some(hex) => u32::from_str_radix(hex, 16).ok().and_then(char::from_u32),
                None => name.strip_prefix('#').and_then(|code| code.parse().ok()).and_then(char::from_u32),
            },
        };
        match char {
            Some(char) => out.push(char),
            None => out.push_str(&rest[..=end]),
        }
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    out
}

/// `xmlattr(autospace=true)`: a dict as attributes of a tag.
fn attributes(input: &Value, args: Args) -> Res<Value> {
    let [autospace] = args.bind("xmlattr", ["autospace"])?;
    let Value::Dict(dict) = input else {
        defined(input)?;
        return Err(Fault::new("AttributeError", format!("'{}' object has no attribute 'items'", input.type_name())));
    };
    let mut parts = Vec::new();
    for (key, value) in dict.entries() {
        if value.is_none() || value.is_undefined() {
            continue;
        }
        let key = print::text(&key)?;
        if key.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '>' | '=')) {
            return value_error(format!("Invalid character in attribute name: {}", print::quoted(&key)));
        }
        parts.push(format!("{}=\"{}\"", escape(&key)?, escaped(&value)?));
    }
    let text = parts.join(" ");
    Ok(Value::text(if flag(autospace, true)? && !text.is_empty() { format!(" {text}") } else { text }))
}

/// Whether a word is an address by Jinja's rule: a host with a known ending, or any with `http://`, `https://` or `www.` before it.
fn is_address(word: &str) -> bool {
    const ENDINGS: [&str; 8] = ["com", "net", "int", "edu", "gov", "org", "info", "mil"];
    let bare = word.strip_prefix("https://").or(word.strip_prefix("http://"));
    let is_marked = bare.is_some() || word.starts_with("www.");
    let rest = bare.unwrap_or(word);
    let host = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let host = match host.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => host,
    };
    let is_number =
        bare.is_some() && host.split('.').count() == 4 && host.split('.').all(|part| part.parse::<u8>().is_ok());
    let labels: Vec<&str> = host.split('.').collect();
    let is_label = |label: &&str| !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || "_%-".contains(c));
    let Some((ending, names)) = labels.split_last() else { return false };
    let is_ending =
        ending.len() >= 2 && (ending.bytes().all(|byte| byte.is_ascii_alphabetic()) || ending.starts_with("xn--"));
    let has_names = names.iter().all(is_label);
    is_number || (has_names && is_ending && (is_marked || (!names.is_empty() && ENDINGS.contains(ending))))
}

/// `urlize(trim_url_limit, nofollow, target, rel, extra_schemes)`: addresses in a text as links.
fn linked(text: &str, args: Args) -> Res<Value> {
    let [limit, nofollow, target, rel, schemes] =
        args.bind("urlize", ["trim_url_limit", "nofollow", "target", "rel", "extra_schemes"])?;
    let limit = given(limit).map(|limit| size_of_argument(&limit)).transpose()?;
    let mut rels: Vec<String> =
        given(rel).map_or(Ok(String::new()), |rel| print::text(&rel))?.split_whitespace().map(str::to_owned).collect();
    if flag(nofollow, false)? {
        rels.push("nofollow".to_owned());
    }
    rels.push("noopener".to_owned());
    rels.sort();
    rels.dedup();
    let target = given(target).map(|target| print::text(&target)).transpose()?;
    let schemes: Vec<String> = match given(schemes) {
        Some(schemes) => schemes.to_vec()?.iter().map(print::text).collect::<Res<_>>()?,
        None => Vec::new(),
    };
    let target = match target {
        Some(target) => format!(" target=\"{}\"", escape(&target)?),
        None => String::new(),
    };
    let rel = format!(" rel=\"{}\"", escape(&rels.join(" "))?);
    meter::read(text.len() * 4)?;
    let mut out = String::new();
    for word in escape(text)?.split_inclusive(char::is_whitespace) {
        let bare = word.trim_end();
        let head_length = bare.len() - bare.trim_start_matches(['(', '<']).len();
        let (head, rest) = bare.split_at(if bare.starts_with("&lt;") { 4 } else { head_length });
        let middle = rest.trim_end_matches([')', '.', ',', '>', '\n']);
        let tail = &rest[middle.len()..];
        let is_url = is_address(middle);
        let is_host = is_url && !middle.starts_with("http://") && !middle.starts_with("https://");
        let is_extra = schemes.iter().any(|scheme| middle.starts_with(&**scheme) && middle != *scheme);
        let is_mail = middle.contains('@')
            && middle.split('@').nth(1).is_some_and(|host| host.contains('.'))
            && !middle.contains(':');
        let href = if (is_url && !is_host) || is_extra {
            middle.to_owned()
        } else if is_host {
            format!("https://{middle}")
        } else if is_mail {
            format!("mailto:{middle}")
        } else {
            out.push_str(word);
            continue;
        };
        let shown = match limit {
            Some(limit) if middle.chars().count() > limit => middle.chars().take(limit).collect::<String>() + "...",
            _ => middle.to_owned(),
        };
        let rel = if is_mail { "" } else { &*rel };
        let target = if is_mail { "" } else { &*target };
        out.push_str(&format!("{head}<a href=\"{href}\"{rel}{target}>{shown}</a>{tail}{}", &word[bare.len()..]));
        meter::room(out.len())?;
    }
    Ok(Value::text(out))
}
