//! Regular expressions as Python's `re` reads them, as far as a few rules can turn them into those of regex-lite.

use std::sync::LazyLock;

use regex_lite::Regex;

/// What `\w` and `\s` stand for in Python beyond ASCII, as the inside of a class.
static WORD: LazyLock<String> = LazyLock::new(|| ranges(|c| c == '_' || c.is_alphanumeric()));
static SPACE: LazyLock<String> = LazyLock::new(|| ranges(|c| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)));

/// Python's `re.compile`.
///
/// # Errors
/// Why it is none, in a few words; also for what minflow does not know, look-around and back-references.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    if repeats_a_repetition(pattern) {
        return Err("a repetition follows a repetition".to_owned());
    }
    Regex::new(&translated(pattern)).map_err(|error| error.to_string())
}

/// Such as `a**`, which Python refuses; `a*?` and `a*+` are one.
fn repeats_a_repetition(pattern: &str) -> bool {
    let (mut repeated, mut is_in_class) = (0, false);
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        let mut is_repetition = false;
        match c {
            '\\' => length += rest[1..].chars().next().map_or(0, char::len_utf8),
            '[' if !is_in_class => {
                is_in_class = true;
                let first = rest[1..].trim_start_matches('^');
                length = rest.len() - first.strip_prefix(']').unwrap_or(first).len();
            }
            ']' => is_in_class = false,
            _ if is_in_class => {}
            '*' | '+' | '?' => is_repetition = true,
            '{' => {
                let counts = rest.split_once('}').map(|(counts, _)| &counts[1..]);
                let is_counts =
                    |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b',');
                if let Some(counts) = counts.filter(is_counts) {
                    (is_repetition, length) = (true, counts.len() + 2);
                }
            }
            _ => {}
        }
        let is_suffix = repeated == 1 && matches!(c, '?' | '+');
        if is_repetition && repeated > 0 && !is_suffix {
            return true;
        }
        // A group begins with a question mark that repeats nothing.
        repeated = if is_repetition && c != '(' { repeated + 1 } else { 0 };
        if rest.starts_with("(?") && !is_in_class {
            length = 2;
        }
        rest = &rest[length..];
    }
    false
}

/// Whether Python would take it: minflow cannot search by all that it can read.
pub fn is_regex(pattern: &str) -> bool {
    match compile(pattern) {
        Ok(_) => true,
        Err(reason) => reason.contains("look-around is not supported") || reason.contains("backreference"),
    }
}

fn ranges(is_in: impl Fn(char) -> bool) -> String {
    let mut text = String::new();
    let mut open: Option<(char, char)> = None;
    for c in (char::MIN..=char::MAX).filter(|&c| is_in(c)) {
        match &mut open {
            Some((_, last)) if *last as u32 + 1 == c as u32 => *last = c,
            _ => {
                text.extend(open.map(range));
                open = Some((c, c));
            }
        }
    }
    text.extend(open.map(range));
    text
}

fn range((first, last): (char, char)) -> String {
    format!("\\x{{{:x}}}-\\x{{{:x}}}", first as u32, last as u32)
}

fn translated(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len());
    let mut is_in_class = false;
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let Some(escaped) = chars.next() else { return format!("{text}\\") };
                match (escaped, is_in_class) {
                    ('w', true) => text += &WORD,
                    ('s', true) => text += &SPACE,
                    ('w', false) => text += &format!("[{}]", *WORD),
                    ('W', false) => text += &format!("[^{}]", *WORD),
                    ('s', false) => text += &format!("[{}]", *SPACE),
                    ('S', false) => text += &format!("[^{}]", *SPACE),
                    ('Z', false) => text += "\\z",
                    // Escaped for no reason, as Python allows of all that is no letter or digit.
                    (other, _) if !other.is_ascii_alphanumeric() && other.is_ascii() => text.extend(['\\', other]),
                    (other, _) if !other.is_ascii() => text.push(other),
                    (other, _) => text.extend(['\\', other]),
                }
            }
            '[' if !is_in_class => {
                is_in_class = true;
                text.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    text.push('^');
                }
                // A bracket that stands first is one of the class.
                if chars.next_if_eq(&']').is_some() {
                    text += "\\]";
                }
            }
            '[' | '&' | '~' if is_in_class => text.extend(['\\', c]),
            ']' if is_in_class => {
                is_in_class = false;
                text.push(']');
            }
            // To Python a brace without numbers is itself, and a missing least number zero.
            '{' if !is_in_class => {
                let rest: String = chars.clone().take_while(|&c| c != '}').collect();
                let is_closed = chars.clone().any(|c| c == '}');
                let (least, most) = rest.split_once(',').unwrap_or((&rest, "0"));
                let is_count = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
                if !is_closed || rest.is_empty() || !is_count(least) || !is_count(most) {
                    text += "\\{";
                } else if least.is_empty() {
                    text += "{0";
                } else {
                    text.push('{');
                }
            }
            // Python's end may be before a last newline.
            '$' if !is_in_class => text += "(?:\\n?\\z)",
            _ => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_searched_for_as_python_does() {
        let cases = [
            ("^a+$", "aa", true),
            ("^a+$", "aa\n", true),
            ("^a+$", "aa\n\n", false),
            ("^a+\\Z", "aa\n", false),
            ("b", "abc", true),
            ("^\\w+$", "täglich_1", true),
            ("^\\w+$", "a€", false),
            ("^\\W$", "€", true),
            ("^[\\w.]+$", "ä.b", true),
            ("^\\s$", "\u{a0}", true),
            ("^[$]$", "$", true),
            ("^[]a]+$", "a]", true),
            ("^[^]a]+$", "a]", false),
            ("^[[a]+$", "[a", true),
            ("^(?P<x>a)(?:b|c)?$", "ac", true),
            ("(?i)^abc$", "ABC", true),
            ("^a{2,3}$", "aaaa", false),
            ("^\\-\\/\\.$", "-/.", true),
            ("^a{,2}$", "aaa", false),
            ("^a{,}$", "aaa", true),
            ("^{x}{$", "{x}{", true),
            ("", "anything", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(compile(pattern).unwrap().is_match(text), expected, "{pattern} in {text:?}");
        }
    }

    #[test]
    fn what_python_would_take_is_told_from_what_it_would_not() {
        for pattern in
            ["a", "a*?b+?", "[*+]+", "\\*+", "(?:a?)?", "a{,}", "[]*]*", "(?=a)b", "(?<!x)y", "(a)\\1", "(?P<n>a)"]
        {
            assert!(is_regex(pattern), "{pattern}");
        }
        for pattern in ["(", "[a", "a**", "a{2}{3}", "a*??", "(?:a)+*", "*a", "a{3,2}", "(?P<n", "\\"] {
            assert!(!is_regex(pattern), "{pattern}");
        }
        assert!(compile("(?=a)b").is_err(), "minflow does not look around");
    }
}
