//! A text with its lines, and the faults found in it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use super::Table;
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::model::dag::Position;

/// A document's text and where its lines start.
#[derive(Debug)]
pub struct Source<'a> {
    pub path: &'a Path,
    pub text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub fn new(path: &'a Path, text: &'a str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n').map(|(at, _)| at + 1);
        Self { path, text, line_starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    /// The line and column of a byte.
    pub fn position(&self, at: usize) -> Position {
        let at = at.min(self.text.len());
        let line = self.line_starts.partition_point(|&start| start <= at);
        let column = self.text[self.line_starts[line - 1]..at].chars().count() + 1;
        Position { line: line as u32, column: column as u32 }
    }

    /// Where the first character of a string stands, given the span of the value with its quotes.
    pub fn content_start(&self, span: &Range<usize>) -> usize {
        let raw = &self.text[span.clone()];
        let multiline = raw.starts_with("\"\"\"") || raw.starts_with("'''");
        if !multiline {
            return span.start + usize::from(raw.starts_with(['"', '\'']));
        }
        let body = &raw[3..];
        let first = if body.starts_with("\r\n") { 2 } else { usize::from(body.starts_with('\n')) };
        // A backslash at the end of a line swallows the white space up to the next character.
        let rest = &body[first..];
        let swallowed = match rest.strip_prefix('\\') {
            Some(after) if raw.starts_with('"') && after.trim_start_matches([' ', '\t', '\r']).starts_with('\n') => {
                rest.len() - after.trim_start().len()
            }
            _ => 0,
        };
        span.start + 3 + first + swallowed
    }

    /// The place of a part of a string's text; the whole value where escapes make the two differ.
    pub fn inner_span(&self, span: &Range<usize>, text: &str, part: Range<usize>) -> Range<usize> {
        let start = self.content_start(span);
        if self.text[start..].starts_with(text) { start + part.start..start + part.end } else { span.clone() }
    }
}

/// More faults than this help nobody.
const MAX_FAULTS: usize = 100;
/// What the source lines of all faults may take: a file of one endless line must not be copied for each of them.
const MAX_SOURCE_LINES: usize = 8 << 20;

/// Collects the faults of one document.
#[derive(Debug)]
pub struct Faults<'a> {
    pub source: &'a Source<'a>,
    list: Vec<Diagnostic>,
    /// What is no fault, and likely not meant.
    warnings: Vec<Diagnostic>,
    source_lines: usize,
    omitted: usize,
    /// Lines that could not be read as TOML: what is missing may be on them.
    broken_lines: Vec<u32>,
    open: Option<Open<'a>>,
}

/// A table that has more keys than it lists: some of the user's own.
#[derive(Clone, Copy, Debug)]
pub struct Open<'a> {
    pub table: &'static Table,
    /// None: any whose value is a table.
    pub names: Option<&'a BTreeSet<String>>,
}

impl<'a> Faults<'a> {
    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    /// What more could be written in the place of what came after the first `known` faults.
    pub(super) fn add_to_help(&mut self, known: usize, more: &str) {
        self.list.iter_mut().skip(known).for_each(|fault| fault.help.push_str(more));
    }

    pub fn new(source: &'a Source<'a>) -> Self {
        Self {
            source,
            list: Vec::new(),
            warnings: Vec::new(),
            source_lines: 0,
            omitted: 0,
            broken_lines: Vec::new(),
            open: None,
        }
    }

    pub fn open(&mut self, open: Open<'a>) {
        self.open = Some(open);
    }

    /// Whether a key that the table does not list is one of the user's own.
    pub(super) fn is_own(&self, table: &Table, name: &str, is_table: bool) -> bool {
        let open = self.open.filter(|open| std::ptr::eq(open.table, table));
        open.is_some_and(|open| open.names.map_or(is_table, |names| names.contains(name)))
    }

    /// The user's own keys of a table.
    pub(super) fn own_names(&self, table: &Table) -> impl Iterator<Item = &'a str> + use<'a> {
        let names = self.open.filter(|open| std::ptr::eq(open.table, table)).and_then(|open| open.names);
        names.into_iter().flatten().map(String::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether further faults are only counted, so that costly helps need not be made.
    pub fn is_full(&self) -> bool {
        self.list.len() >= MAX_FAULTS || self.source_lines >= MAX_SOURCE_LINES
    }

    /// Whether some line is no TOML: what seems to be missing may stand there.
    pub fn has_broken_lines(&self) -> bool {
        !self.broken_lines.is_empty()
    }

    pub fn add(&mut self, span: Range<usize>, code: &'static str, message: impl Into<String>, help: impl Into<String>) {
        if self.is_full() {
            self.omitted += 1;
            return;
        }
        let fault = Diagnostic::at(self.source.path, self.source.text, span, code, message, help);
        if self.broken_lines.contains(&fault.line) {
            return;
        }
        self.source_lines += fault.source_line.len();
        self.list.push(fault);
    }

    /// Notes what is no fault, and likely not meant: once for each place, and no more of them than of faults.
    pub fn warn(
        &mut self,
        span: Range<usize>,
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let place = self.source.position(span.start);
        let is_known = |known: &Diagnostic| (known.line, known.column) == (place.line, place.column);
        if self.warnings.len() < MAX_FAULTS && !self.warnings.iter().any(is_known) {
            self.warnings.push(Diagnostic::at(self.source.path, self.source.text, span, code, message, help));
        }
    }

    /// All warnings in the order of the text.
    pub fn take_warnings(&mut self) -> Vec<Diagnostic> {
        self.warnings.sort_by_key(|warning| (warning.line, warning.column));
        std::mem::take(&mut self.warnings)
    }

    /// A line that is no TOML. Other faults on it are not reported: what was read there is a guess.
    pub fn add_syntax(&mut self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        let before = self.list.len();
        self.add(span, "syntax", message, help);
        if let Some(fault) = self.list.get(before) {
            self.broken_lines.push(fault.line);
        }
    }

    pub fn add_to_file(&mut self, code: &'static str, message: impl Into<String>, help: impl Into<String>) {
        self.list.push(Diagnostic::of_file(self.source.path, code, message, help));
    }

    /// All faults in the order of the text.
    pub fn into_list(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|fault| (fault.line, fault.column));
        if self.omitted > 0 {
            let message = format!("{} more faults are not shown", self.omitted);
            self.list.push(Diagnostic::of_file(
                self.source.path,
                "more-faults",
                message,
                "mend the ones above and check again",
            ));
        }
        self.list
    }
}

/// The candidate that was most likely meant. Looks at a bounded number of bytes: a file may have thousands of ids.
pub fn suggest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const MAX_TYPED: usize = 64;
    const MAX_CANDIDATES: usize = 2_000;
    if typed.len() > MAX_TYPED {
        return None;
    }
    let near = candidates.into_iter().filter(|candidate| candidate.len().abs_diff(typed.len()) <= 4);
    did_you_mean(typed, near.take(MAX_CANDIDATES))
}
