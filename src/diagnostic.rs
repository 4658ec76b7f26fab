//! A fault in a user's file: where it is, what it is, and what to write instead.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// One fault. Prints as `path:line:column: code: message`, the source line, a caret and `help: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// As the user would name it: relative to the home where it lies inside.
    pub path: PathBuf,
    /// Counts from 1; 0 when the fault is of the whole file.
    pub line: u32,
    /// Counts from 1, in characters; 0 when the fault is of the whole file.
    pub column: u32,
    /// How many characters the caret underlines; at least 1.
    pub width: u32,
    /// The line of the source, without its end; empty when the fault is of the whole file.
    pub source_line: String,
    /// A fixed kebab-case name of the kind of fault, e.g. `unknown-key`.
    pub code: &'static str,
    pub message: String,
    /// What to write instead; may be empty.
    pub help: String,
}

impl Diagnostic {
    /// A fault of the whole file: unreadable, too large, not UTF-8.
    pub fn of_file(
        path: impl Into<PathBuf>,
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            path: path.into(),
            line: 0,
            column: 0,
            width: 1,
            source_line: String::new(),
            code,
            message: message.into(),
            help: help.into(),
        }
    }

    /// A fault at the bytes `span` of `text`.
    pub fn at(
        path: impl Into<PathBuf>,
        text: &str,
        span: Range<usize>,
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let start = floor_char_boundary(text, span.start);
        let end = floor_char_boundary(text, span.end.max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let shown_end = end.min(line_end);
        Self {
            path: path.into(),
            line: text[..start].matches('\n').count() as u32 + 1,
            column: text[line_start..start].chars().count() as u32 + 1,
            width: (text[start..shown_end.max(start)].chars().count() as u32).max(1),
            source_line: text[line_start..line_end].trim_end_matches('\r').to_owned(),
            code,
            message: message.into(),
            help: help.into(),
        }
    }

    /// The same without what `mask` hides in its texts. The caret may then stand beside its place.
    pub fn masked(mut self, mask: impl Fn(&mut String)) -> Self {
        for text in [&mut self.source_line, &mut self.message, &mut self.help] {
            mask(text);
        }
        self
    }

    /// The line and the caret below it, without an end of line. Only for a fault that has a line.
    pub fn excerpt(&self) -> String {
        let column = (self.column as usize).saturating_sub(1);
        let first = if column < SHOWN_CHARS { 0 } else { column - SHOWN_CHARS / 2 };
        let shown: String = self.source_line.chars().skip(first).take(SHOWN_CHARS).collect();
        let margin = self.line.to_string();
        let lead: String = shown.chars().take(column - first).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let room = shown.chars().count().saturating_sub(column - first).max(1);
        let carets = "^".repeat((self.width as usize).min(room));
        format!("{margin} | {shown}\n{} | {lead}{carets}", " ".repeat(margin.len()))
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// How much of a source line is shown: a file of one endless line must not fill the terminal.
const SHOWN_CHARS: usize = 160;

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        if self.line == 0 {
            write!(f, "{path}: {}: {}", self.code, self.message)?;
        } else {
            writeln!(f, "{path}:{}:{}: {}: {}", self.line, self.column, self.code, self.message)?;
            write!(f, "{}", self.excerpt())?;
        }
        if !self.help.is_empty() {
            write!(f, "\nhelp: {}", self.help)?;
        }
        Ok(())
    }
}

/// The candidate that `typed` most likely meant, if one is near enough.
pub fn did_you_mean<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed_lower = typed.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&typed_lower, &candidate.to_lowercase()), candidate))
        .filter(|&(distance, candidate)| distance <= (typed.len().max(candidate.len()) / 3).clamp(1, 4))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_prints_its_place_its_line_a_caret_and_the_help() {
        let text = "a = 1\nretrys = 3\n";
        let fault = Diagnostic::at(
            "dags/x.toml",
            text,
            6..12,
            "unknown-key",
            "unknown key `retrys`",
            "did you mean `retries`?",
        );
        assert_eq!(
            fault.to_string(),
            "dags/x.toml:2:1: unknown-key: unknown key `retrys`\n2 | retrys = 3\n  | ^^^^^^\nhelp: did you mean `retries`?"
        );
    }

    #[test]
    fn columns_count_characters_not_bytes() {
        let text = "ä = \"ö\" x";
        let at = text.find('x').unwrap();
        let fault = Diagnostic::at("f", text, at..at + 1, "c", "m", "");
        assert_eq!(fault.column, 9);
    }

    #[test]
    fn an_endless_line_is_cut_around_the_caret() {
        let text = format!("{}x{}", "a".repeat(10_000), "b".repeat(10_000));
        let fault = Diagnostic::at("f", &text, 10_000..10_001, "c", "m", "");
        let printed = fault.to_string();
        let lines: Vec<&str> = printed.lines().collect();
        assert!(lines[1].len() < 200);
        assert_eq!(&lines[1][lines[2].find('^').unwrap()..][..1], "x");
    }

    #[test]
    fn only_what_is_near_is_suggested() {
        assert_eq!(did_you_mean("retrys", ["retries", "owner"]), Some("retries"));
        assert_eq!(did_you_mean("Schedule", ["schedule"]), Some("schedule"));
        assert_eq!(did_you_mean("xyz", ["retries", "owner"]), None);
    }
}
