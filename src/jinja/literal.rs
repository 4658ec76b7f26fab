//! Python's literals, as native rendering reads them from a text.

use crate::jinja::dict::Dict;
use crate::jinja::lexer::unescaped;
use crate::jinja::value::Value;
use crate::jinja::{meter, number};

/// The value of a text that is one literal; None if it is not.
pub fn read(text: &str) -> Option<Value> {
    // Python's parser takes an indent for a mistake.
    if text.starts_with([' ', '\t', '\u{c}']) || meter::read(text.len()).is_err() {
        return None;
    }
    let mut reader = Reader { rest: text, depth: 0, is_bracketed: false };
    reader.skip_lines();
    let value = reader.tuple()?;
    reader.skip_lines();
    reader.rest.is_empty().then_some(value)
}

struct Reader<'t> {
    rest: &'t str,
    depth: usize,
    /// Inside of brackets a line's end is only a space.
    is_bracketed: bool,
}

impl Reader<'_> {
    fn skip(&mut self) {
        loop {
            let ends: &[char] =
                if self.is_bracketed { &[' ', '\t', '\u{c}', '\n', '\r'] } else { &[' ', '\t', '\u{c}'] };
            self.rest = self.rest.trim_start_matches(ends);
            match self.rest.strip_prefix('#') {
                Some(comment) => self.rest = comment.find('\n').map_or("", |at| &comment[at..]),
                None => return,
            }
            if !self.is_bracketed {
                return;
            }
        }
    }

    fn skip_lines(&mut self) {
        self.is_bracketed = true;
        self.skip();
        self.is_bracketed = false;
    }

    fn take(&mut self, text: &str) -> bool {
        self.skip();
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// One value, or several with commas.
    fn tuple(&mut self) -> Option<Value> {
        let first = self.sum()?;
        if !self.take(",") {
            return Some(first);
        }
        let mut items = vec![first];
        loop {
            self.skip();
            if self.rest.is_empty() || self.rest.starts_with([')', '\n']) {
                return Some(Value::tuple(items));
            }
            items.push(self.sum()?);
            if !self.take(",") {
                return Some(Value::tuple(items));
            }
        }
    }

    fn sum(&mut self) -> Option<Value> {
        self.skip();
        for (sign, is_minus) in [("-", true), ("+", false)] {
            if self.take(sign) {
                self.depth += 1;
                if self.depth > 50 {
                    return None;
                }
                let of = self.sum()?;
                self.depth -= 1;
                return match of {
                    Value::Int(number) => Some(Value::Int(if is_minus { -number } else { number })),
                    Value::Float(number) => Some(Value::Float(if is_minus { -number } else { number })),
                    _ => None,
                };
            }
        }
        self.atom()
    }

    fn inside(&mut self, close: &str, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.depth += 1;
        if self.depth > 50 {
            return None;
        }
        let outer = std::mem::replace(&mut self.is_bracketed, true);
        loop {
            if self.take(close) {
                break;
            }
            item(self)?;
            if self.take(",") {
                continue;
            }
            if !self.take(close) {
                return None;
            }
            break;
        }
        self.is_bracketed = outer;
        self.depth -= 1;
        Some(())
    }

    fn atom(&mut self) -> Option<Value> {
        self.skip();
        let first = self.rest.chars().next()?;
        match first {
            '[' => {
                self.rest = &self.rest[1..];
                let mut items = Vec::new();
                self.inside("]", |reader| reader.sum().map(|item| items.push(item)))?;
                Some(Value::list(items))
            }
            '(' => {
                self.rest = &self.rest[1..];
                let outer = std::mem::replace(&mut self.is_bracketed, true);
                self.depth += 1;
                if self.depth > 50 {
                    return None;
                }
                let value = if self.take(")") {
                    Value::tuple(Vec::new())
                } else {
                    let value = self.tuple()?;
                    if !self.take(")") {
                        return None;
                    }
                    value
                };
                self.depth -= 1;
                self.is_bracketed = outer;
                Some(value)
            }
            '{' => self.braces(),
            '0'..='9' | '.' => self.number(),
            _ => self.word(),
        }
    }

    /// A dict, or a set, which is shown as a list.
    fn braces(&mut self) -> Option<Value> {
        self.rest = &self.rest[1..];
        let mut pairs = Vec::new();
        let mut items = Vec::new();
        self.inside("}", |reader| {
            let key = reader.sum()?;
            if reader.take(":") {
                pairs.push((key, reader.sum()?));
            } else {
                items.push(key);
            }
            Some(())
        })?;
        match (pairs.is_empty(), items.is_empty()) {
            (_, true) => Dict::from_pairs(pairs).ok().map(Value::Dict),
            (true, false) => Some(Value::list(items)),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Value> {
        let is_hex = self.rest.starts_with("0x") || self.rest.starts_with("0X");
        let mut end = 0;
        let mut last = ' ';
        for (at, char) in self.rest.char_indices() {
            let is_sign = matches!(char, '+' | '-') && matches!(last, 'e' | 'E') && !is_hex;
            if !(char.is_ascii_alphanumeric() || char == '_' || char == '.' || is_sign) {
                break;
            }
            last = char;
            end = at + 1;
        }
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
            || (is_hex || text.starts_with("0o") || text.starts_with("0b"))
        {
            // Python refuses `007`.
            let is_padded =
                text.len() > 1 && text.starts_with('0') && !is_hex && text.bytes().all(|b| b.is_ascii_digit());
            if is_padded && text.bytes().any(|byte| byte != b'0') {
                return None;
            }
            return number::read_int(text, 0).map(Value::Int);
        }
        let is_float = text.bytes().all(|byte| byte.is_ascii_digit() || b"._eE+-".contains(&byte)) && text != ".";
        if is_float { number::read_float(text).map(Value::Float) } else { None }
    }

    fn word(&mut self) -> Option<Value> {
        for (word, value) in [("None", Value::None), ("True", Value::Bool(true)), ("False", Value::Bool(false))] {
            if let Some(rest) = self.rest.strip_prefix(word)
                && !rest.starts_with(|c: char| c == '_' || c.is_alphanumeric())
            {
                self.rest = rest;
                return Some(value);
            }
        }
        let mut joined: Option<String> = None;
        loop {
            self.skip();
            let after = self.rest.trim_start_matches(['r', 'R', 'u', 'U']);
            let prefix = &self.rest[..self.rest.len() - after.len()];
            if !after.starts_with(['\'', '"']) || prefix.len() > 1 {
                return joined.map(Value::text);
            }
            let is_raw = prefix.eq_ignore_ascii_case("r");
            let quote = &after[..1];
            let triple = quote.repeat(3);
            let quote = if after.starts_with(&triple) { &*triple } else { quote };
            let body = &after[quote.len()..];
            let mut is_escaped = false;
            let end = body.char_indices().find_map(|(at, char)| {
                if is_escaped {
                    is_escaped = false;
                } else if char == '\\' {
                    is_escaped = true;
                } else if body[at..].starts_with(quote) {
                    return Some(at);
                }
                None
            })?;
            if quote.len() == 1 && body[..end].contains('\n') {
                return None;
            }
            let text = if is_raw { body[..end].to_owned() } else { unescaped(&body[..end]).ok()? };
            joined.get_or_insert_default().push_str(&text);
            self.rest = &body[end + quote.len()..];
        }
    }
}
