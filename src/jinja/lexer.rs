//! A text to tokens, as Jinja's default delimiters cut it.

use std::rc::Rc;

use crate::jinja::fault::{Fault, Place, Res, SYNTAX};

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// Text outside of tags.
    Data(String),
    BeginPrint,
    EndPrint,
    BeginBlock,
    EndBlock,
    Name(Rc<str>),
    Text(String),
    Int(i128),
    Float(f64),
    Operator(&'static str),
    End,
}

impl Token {
    /// As Jinja names it in its sentences.
    pub fn describe(&self) -> String {
        match self {
            Self::Data(_) => "template data / text".to_owned(),
            Self::BeginPrint => "begin of print statement".to_owned(),
            Self::EndPrint => "end of print statement".to_owned(),
            Self::BeginBlock => "begin of statement block".to_owned(),
            Self::EndBlock => "end of statement block".to_owned(),
            Self::Name(name) => name.to_string(),
            Self::Text(_) => "string".to_owned(),
            Self::Int(_) => "integer".to_owned(),
            Self::Float(_) => "float".to_owned(),
            Self::Operator(operator) => (*operator).to_owned(),
            Self::End => "end of template".to_owned(),
        }
    }
}

/// A token and the byte at which it begins.
pub type Placed = (Token, usize);

/// Longest first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";",
];

/// Jinja's own view of a text: one kind of line end, and none at its end.
pub fn normalized(source: &str) -> String {
    let mut text =
        if source.contains('\r') { source.replace("\r\n", "\n").replace('\r', "\n") } else { source.to_owned() };
    if text.ends_with('\n') {
        text.pop();
    }
    text
}

/// The tokens of a [`normalized`] text.
///
/// # Errors
/// A tag, text or comment that does not end, a bracket that does not match, a character that means nothing.
pub fn lex(source: &str) -> Res<Vec<Placed>> {
    let mut lexer = Lexer { source, at: 0, tokens: Vec::new() };
    lexer.run()?;
    lexer.tokens.push((Token::End, source.len()));
    Ok(lexer.tokens)
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    tokens: Vec<Placed>,
}

fn fault_at(source: &str, offset: usize, message: impl Into<String>) -> Box<Fault> {
    let mut fault = Fault::new(SYNTAX, message);
    fault.place = Some(Place::of(source, offset, None));
    fault
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn fault<T>(&self, offset: usize, message: impl Into<String>) -> Res<T> {
        Err(fault_at(self.source, offset, message))
    }

    fn run(&mut self) -> Res<()> {
        let mut strips_left = false;
        while self.at < self.source.len() {
            let open = self.next_tag();
            let end = open.unwrap_or(self.source.len());
            let tag = &self.source[end..];
            let mark = tag.as_bytes().get(2).copied();
            let mut data = &self.source[self.at..end];
            if strips_left {
                data = data.trim_start();
            }
            if mark == Some(b'-') {
                data = data.trim_end();
            }
            if !data.is_empty() {
                self.tokens.push((Token::Data(data.to_owned()), self.at));
            }
            if open.is_none() {
                return Ok(());
            }
            self.at = end + if matches!(mark, Some(b'-' | b'+')) { 3 } else { 2 };
            strips_left = match tag.as_bytes()[1] {
                b'#' => self.comment(end)?,
                b'{' => self.tag(end, Token::BeginPrint)?,
                _ => match self.raw(end)? {
                    Some(strips) => strips,
                    None => self.tag(end, Token::BeginBlock)?,
                },
            };
        }
        Ok(())
    }

    fn next_tag(&self) -> Option<usize> {
        let bytes = self.source.as_bytes();
        let mut from = self.at;
        while let Some(open) = self.source[from..].find('{').map(|at| from + at) {
            if matches!(bytes.get(open + 1), Some(b'{' | b'%' | b'#')) {
                return Some(open);
            }
            from = open + 1;
        }
        None
    }

    fn comment(&mut self, open: usize) -> Res<bool> {
        let Some(close) = self.rest().find("#}") else { return self.fault(open, "Missing end of comment tag") };
        let strips = self.rest()[..close].ends_with('-');
        self.at += close + 2;
        Ok(strips)
    }

    /// `{% raw %}…{% endraw %}` as data; None if this tag is another one. Gives whether what follows loses its whitespace.
    fn raw(&mut self, open: usize) -> Res<Option<bool>> {
        let Some(inside) = self.rest().trim_start().strip_prefix("raw") else { return Ok(None) };
        let inside = inside.trim_start();
        let strips_left = inside.starts_with("-%}");
        let Some(body) = inside.strip_prefix(['-', '+']).unwrap_or(inside).strip_prefix("%}") else { return Ok(None) };
        let mut from = 0;
        while let Some(begin) = body[from..].find("{%").map(|at| from + at) {
            let tag = &body[begin + 2..];
            let strips_before = tag.starts_with('-');
            let name = tag.strip_prefix(['-', '+']).unwrap_or(tag).trim_start();
            if let Some(after) = name.strip_prefix("endraw").map(str::trim_start) {
                let strips_after = after.starts_with('-');
                if let Some(rest) = after.strip_prefix(['-', '+']).unwrap_or(after).strip_prefix("%}") {
                    let mut data = &body[..begin];
                    if strips_left {
                        data = data.trim_start();
                    }
                    if strips_before {
                        data = data.trim_end();
                    }
                    self.tokens.push((Token::Data(data.to_owned()), open));
                    self.at = self.source.len() - rest.len();
                    return Ok(Some(strips_after));
                }
            }
            from = begin + 2;
        }
        self.fault(open, "Missing end of raw directive")
    }

    /// One tag's tokens. Gives whether what follows loses its whitespace.
    fn tag(&mut self, open: usize, begin: Token) -> Res<bool> {
        let (end, close) = if begin == Token::BeginPrint { (Token::EndPrint, "}}") } else { (Token::EndBlock, "%}") };
        self.tokens.push((begin, open));
        let mut brackets: Vec<&'static str> = Vec::new();
        loop {
            self.at = self.source.len() - self.rest().trim_start().len();
            let rest = self.rest();
            if rest.is_empty() {
                // Jinja finds out when the parser meets the end.
                return Ok(false);
            }
            if brackets.is_empty() {
                let strips = rest.strip_prefix('-').is_some_and(|rest| rest.starts_with(close));
                let is_kept = begin_matches_plus(rest, close);
                if strips || is_kept || rest.starts_with(close) {
                    self.tokens.push((end, self.at));
                    self.at += close.len() + usize::from(strips || is_kept);
                    return Ok(strips);
                }
            }
            self.token(&mut brackets)?;
        }
    }

    fn token(&mut self, brackets: &mut Vec<&'static str>) -> Res<()> {
        let (rest, at) = (self.rest(), self.at);
        let first = rest.chars().next().expect("the text is not at its end");
        if first.is_ascii_digit() {
            return self.number();
        }
        if first == '_' || first.is_alphabetic() {
            let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
            self.tokens.push((Token::Name(rest[..end].into()), at));
            self.at += end;
            return Ok(());
        }
        if first == '\'' || first == '"' {
            return self.text(first);
        }
        let Some(operator) = OPERATORS.iter().find(|operator| rest.starts_with(**operator)) else {
            return self.fault(at, format!("unexpected char {} at {at}", super::print::quoted(&first.to_string())));
        };
        match *operator {
            "(" => brackets.push(")"),
            "[" => brackets.push("]"),
            "{" => brackets.push("}"),
            ")" | "]" | "}" => match brackets.pop() {
                None => return self.fault(at, format!("unexpected '{operator}'")),
                Some(wanted) if wanted != *operator => {
                    return self.fault(at, format!("unexpected '{operator}', expected '{wanted}'"));
                }
                Some(_) => {}
            },
            _ => {}
        }
        self.tokens.push((Token::Operator(operator), at));
        self.at += operator.len();
        Ok(())
    }

    fn number(&mut self) -> Res<()> {
        let (rest, at) = (self.rest(), self.at);
        let radix = match rest.as_bytes().get(1).map(u8::to_ascii_lowercase) {
            Some(b'x') if rest.starts_with('0') => 16,
            Some(b'o') if rest.starts_with('0') => 8,
            Some(b'b') if rest.starts_with('0') => 2,
            _ => 10,
        };
        if radix != 10 {
            let digits = digits(&rest[2..], radix);
            if digits > 0 {
                let text = rest[2..2 + digits].replace('_', "");
                let number = i128::from_str_radix(&text, radix);
                let Ok(number) = number else { return self.fault(at, "the number is too large") };
                self.tokens.push((Token::Int(number), at));
                self.at += 2 + digits;
                return Ok(());
            }
        }
        let whole = digits(rest, 10);
        let mut end = whole;
        let mut is_float = false;
        if rest[end..].starts_with('.') {
            let fraction = digits(&rest[end + 1..], 10);
            if fraction > 0 {
                end += 1 + fraction;
                is_float = true;
            }
        }
        if let Some(exponent) = rest[end..].strip_prefix(['e', 'E']) {
            let sign = usize::from(exponent.starts_with(['+', '-']));
            let length = digits(&exponent[sign..], 10);
            if length > 0 {
                end += 1 + sign + length;
                is_float = true;
            }
        }
        let text = rest[..end].replace('_', "");
        let token = if is_float {
            Token::Float(text.parse().expect("the digits were looked at"))
        } else if text.len() > 1 && text.starts_with('0') && text.trim_start_matches('0').is_empty() {
            Token::Int(0)
        } else {
            match text.parse() {
                Ok(number) => Token::Int(number),
                Err(_) => return self.fault(at, "the number is too large"),
            }
        };
        self.tokens.push((token, at));
        self.at += end;
        Ok(())
    }

    fn text(&mut self, quote: char) -> Res<()> {
        let (rest, at) = (self.rest(), self.at);
        let mut is_escaped = false;
        for (end, char) in rest.char_indices().skip(1) {
            match char {
                _ if is_escaped => is_escaped = false,
                '\\' => is_escaped = true,
                _ if char == quote => {
                    let text = unescaped(&rest[1..end]).map_err(|message| fault_at(self.source, at, message))?;
                    self.tokens.push((Token::Text(text), at));
                    self.at += end + 1;
                    return Ok(());
                }
                _ => {}
            }
        }
        self.fault(at, format!("unexpected char {} at {at}", super::print::quoted(&quote.to_string())))
    }
}

/// `+%}` and `+}}`.
fn begin_matches_plus(rest: &str, close: &str) -> bool {
    rest.strip_prefix('+').is_some_and(|rest| rest.starts_with(close))
}

/// How many bytes of digits, with underscores between them, `text` begins with.
fn digits(text: &str, radix: u32) -> usize {
    let mut end = 0;
    let bytes = text.as_bytes();
    while let Some(byte) = bytes.get(end) {
        let is_digit = |byte: &u8| char::from(*byte).is_digit(radix);
        if is_digit(byte) || (*byte == b'_' && end > 0 && bytes.get(end + 1).is_some_and(is_digit)) {
            end += 1;
        } else {
            break;
        }
    }
    end
}

/// Python's escapes in a text.
///
/// # Errors
/// Python's sentence about one that is cut short.
pub fn unescaped(text: &str) -> Result<String, String> {
    if !text.contains('\\') {
        return Ok(text.to_owned());
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.chars().next().ok_or("a text ends with a backslash")?;
        rest = &after[code.len_utf8()..];
        let simple = match code {
            '\n' => None,
            '\\' | '\'' | '"' => Some(code),
            'n' => Some('\n'),
            't' => Some('\t'),
            'r' => Some('\r'),
            'a' => Some('\u{7}'),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'v' => Some('\u{b}'),
            'x' | 'u' | 'U' => {
                let length = [2, 4, 8]["xuU".find(code).expect("it is one of them")];
                let digits = rest.get(..length).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
                let digits = digits.ok_or_else(|| format!("truncated \\{code} escape"))?;
                rest = &rest[length..];
                let number = u32::from_str_radix(digits, 16).map_err(|error| error.to_string())?;
                Some(char::from_u32(number).ok_or("illegal Unicode character")?)
            }
            '0'..='7' => {
                let length = after.bytes().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
                rest = &after[length..];
                u32::from_str_radix(&after[..length], 8).ok().and_then(char::from_u32)
            }
            _ => {
                out.push('\\');
                Some(code)
            }
        };
        out.extend(simple);
    }
    out.push_str(rest);
    Ok(out)
}
