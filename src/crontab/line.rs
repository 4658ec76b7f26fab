//! One line of a crontab, by Vixie's grammar: blank or comment, an assignment, or a time with a command.
//!
//! Places are bytes of the line.

use std::ops::Range;

/// What a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Empty,
    /// Without its `#`.
    Comment(&'a str),
    Assignment {
        name: String,
        value: String,
    },
    Entry(Entry<'a>),
}

/// A time with a command, both not yet looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// A `-` before it, by which cronie keeps a line out of the system's log.
    pub is_unlogged: bool,
    pub time: Time<'a>,
    /// What stands behind the time: the command, with a user before it in a system's crontab. Its trailing blanks are kept.
    pub rest: &'a str,
    pub rest_at: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Time<'a> {
    /// With its `@`.
    Nickname(&'a str, usize),
    Fields([(&'a str, usize); 5]),
    /// Fewer than five.
    Incomplete(Range<usize>),
}

impl<'a> Line<'a> {
    /// `text` is without its end of line.
    pub(super) fn read(text: &'a str) -> Self {
        let trimmed = text.trim_start_matches([' ', '\t']);
        if trimmed.is_empty() {
            return Self::Empty;
        }
        if let Some(comment) = trimmed.strip_prefix('#') {
            return Self::Comment(comment);
        }
        match assignment(trimmed) {
            Some((name, value)) => Self::Assignment { name, value },
            None => Self::Entry(Entry::read(text, text.len() - trimmed.len())),
        }
    }
}

impl<'a> Entry<'a> {
    fn read(text: &'a str, mut at: usize) -> Self {
        let is_unlogged = text[at..].starts_with('-');
        at += usize::from(is_unlogged);
        let start = at;
        let mut word = || {
            let rest = &text[at..];
            let len = rest.find(is_blank).unwrap_or(rest.len());
            let found = (&rest[..len], at);
            let behind = &rest[len..];
            at += rest.len() - behind.trim_start_matches(is_blank).len();
            (found, at)
        };
        let (first, mut rest_at) = word();
        let time = if first.0.starts_with('@') {
            Time::Nickname(first.0, first.1)
        } else {
            let mut fields = [first; 5];
            for field in &mut fields[1..] {
                let (found, behind) = word();
                (*field, rest_at) = (found, behind);
            }
            match fields.iter().any(|(field, _)| field.is_empty()) {
                true => Time::Incomplete(start..text.trim_end().len().max(start)),
                false => Time::Fields(fields),
            }
        };
        Self { is_unlogged, time, rest: &text[rest_at..], rest_at }
    }

    /// The user of a system's crontab, the command behind it, and where each begins.
    pub(super) fn user_and_command(&self) -> ((&'a str, usize), (&'a str, usize)) {
        let len = self.rest.find(is_blank).unwrap_or(self.rest.len());
        let command = self.rest[len..].trim_start_matches(is_blank);
        ((&self.rest[..len], self.rest_at), (command, self.rest_at + self.rest.len() - command.len()))
    }
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

/// `NAME = value`, either with quotes around it; blanks at the ends of a value without quotes do not count. None: it is none.
fn assignment(text: &str) -> Option<(String, String)> {
    let (name, rest) = match text.chars().next() {
        Some(quote @ ('\'' | '"')) => {
            let (name, rest) = text[1..].split_once(quote)?;
            if name.contains('=') {
                return None;
            }
            (name, rest)
        }
        _ => {
            let end = text.find(|c: char| c == '=' || c.is_ascii_whitespace())?;
            (&text[..end], &text[end..])
        }
    };
    let value = rest.trim_start_matches(|c: char| c.is_ascii_whitespace()).strip_prefix('=')?;
    let value = value.trim_start_matches(|c: char| c.is_ascii_whitespace());
    let value = match value.chars().next() {
        Some(quote @ ('\'' | '"')) => {
            let (value, rest) = value[1..].split_once(quote)?;
            if !rest.trim_ascii().is_empty() {
                return None;
            }
            value
        }
        _ => value.trim_ascii_end(),
    };
    Some((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(text: &str) -> Option<(String, String)> {
        match Line::read(text) {
            Line::Assignment { name, value } => Some((name, value)),
            _ => None,
        }
    }

    #[test]
    fn an_assignment_is_read_as_cron_reads_it() {
        for (text, name, value) in [
            ("MAILTO=anna", "MAILTO", "anna"),
            ("  MAILTO = anna  ", "MAILTO", "anna"),
            ("MAILTO=\"\"", "MAILTO", ""),
            ("MAILTO=", "MAILTO", ""),
            ("'MAIL TO'=\" a b \"  ", "MAIL TO", " a b "),
            ("A=b # no comment", "A", "b # no comment"),
            ("A=$HOME/bin:$PATH", "A", "$HOME/bin:$PATH"),
            ("A=it's", "A", "it's"),
            ("A=b=c", "A", "b=c"),
        ] {
            assert_eq!(assigned(text), Some((name.to_owned(), value.to_owned())), "{text}");
        }
        for text in ["# A=b", "\"A=b\"=c", "A='b' c", "A=\"b", "0 5 * * * A=b true", "* * * * * x=y"] {
            assert_eq!(assigned(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_and_its_command_are_taken_apart_at_blanks() {
        let Line::Entry(entry) = Line::read(" \t*/5 1,2\t3 4 mon-fri  echo  hi  ") else { panic!() };
        let Time::Fields(fields) = entry.time else { panic!() };
        assert_eq!(fields.map(|(text, _)| text), ["*/5", "1,2", "3", "4", "mon-fri"]);
        assert_eq!(fields[0].1, 2);
        assert_eq!((entry.rest, entry.rest_at), ("echo  hi  ", 23));
        let Line::Entry(entry) = Line::read("-@daily  root \techo hi") else { panic!() };
        assert_eq!(entry.time, Time::Nickname("@daily", 1));
        assert!(entry.is_unlogged);
        assert_eq!(entry.user_and_command(), (("root", 9), ("echo hi", 15)));
        let Line::Entry(entry) = Line::read("0 5 *") else { panic!() };
        assert_eq!(entry.time, Time::Incomplete(0..5));
    }

    #[test]
    fn comments_and_blank_lines_are_none_of_these() {
        assert_eq!(Line::read(" \t"), Line::Empty);
        assert_eq!(Line::read("  # why"), Line::Comment(" why"));
    }
}
