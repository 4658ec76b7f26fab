//! What is wrong with a template, and where in the DAG file.

use std::fmt;
use std::sync::Arc;

use minijinja::ErrorKind;

use crate::model::dag::Position;
use crate::template::Context;

/// A fault in a template. Displays as `file:line:column: message`, then `help: …` on a line of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// The DAG file, as [`Context::file`] names it.
    pub path: Arc<str>,
    /// Counts from 1, in the DAG file.
    pub line: u32,
    /// Counts from 1, in characters, in the DAG file.
    pub column: u32,
    pub message: String,
    /// What to write instead; may be empty.
    pub help: String,
}

impl TemplateError {
    /// `text` is as the user wrote it up to `first_edit` (in bytes); behind that only its lines are.
    pub(super) fn new(error: &minijinja::Error, text: &str, first_edit: usize, at: Position, file: &Arc<str>) -> Self {
        let comment = unclosed_comment(text);
        // A comment that swallows the rest of the text is the cause of whatever was said about its end.
        let offset = match comment {
            Some(offset) if error.kind() == ErrorKind::SyntaxError => offset,
            _ => offset_of(error, text),
        };
        let is_shifted = offset > first_edit && !text[first_edit..offset].contains('\n');
        let place = place_of(text, if is_shifted { first_edit } else { offset }, at);
        let spanned = error.range().and_then(|range| text.get(range)).unwrap_or_default();
        let (message, help) = match comment {
            Some(_) if error.kind() == ErrorKind::SyntaxError => (COMMENT.0.to_owned(), COMMENT.1.to_owned()),
            _ => explain(error, spanned),
        };
        Self { path: file.clone(), line: place.line, column: place.column, message, help }
    }

    pub(super) fn too_long(text: &str, at: Position, context: &Context, limit: usize) -> Self {
        let place = place_of(text, 0, at);
        Self {
            path: context.file.clone(),
            line: place.line,
            column: place.column,
            message: format!("the template's result is longer than {} MiB", limit >> 20),
            help: "write large data to a file in {{ run_dir }} and hand on its path".to_owned(),
        }
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.path, self.line, self.column, self.message)?;
        if !self.help.is_empty() {
            write!(f, "\nhelp: {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for TemplateError {}

/// Message and help for bash's `${#a[@]}`.
const COMMENT: (&str, &str) = (
    "`{#` opens a template comment that is never closed by `#}`",
    "in a script, write `{{ '{#' }}` for the two characters (bash: `${{ '{#' }}a[@]}`), or put the script between `{% raw %}` and `{% endraw %}`",
);

/// Where a `{#` opens that no `#}` closes, in bytes.
fn unclosed_comment(text: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(open) = text[from..].find("{#").map(|at| from + at) {
        match text[open + 2..].find("#}") {
            Some(close) => from = open + 2 + close + 2,
            None => return Some(open),
        }
    }
    None
}

fn offset_of(error: &minijinja::Error, text: &str) -> usize {
    if let Some(range) = error.range() {
        return range.start.min(text.len());
    }
    let line = error.line().unwrap_or(1).max(1);
    text.split_inclusive('\n').take(line - 1).map(str::len).sum::<usize>().min(text.len())
}

/// The place in the DAG file of the byte `offset` of a text whose first character stands at `at`.
fn place_of(text: &str, offset: usize, at: Position) -> Position {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    match before.rfind('\n') {
        None => Position { line: at.line, column: at.column + before.chars().count() as u32 },
        Some(newline) => Position {
            line: at.line + before.matches('\n').count() as u32,
            column: before[newline + 1..].chars().count() as u32 + 1,
        },
    }
}

/// The variables that only runs with a logical date have.
const DATED: [&str; 10] = [
    "ds",
    "ds_nodash",
    "ts",
    "ts_nodash",
    "ts_nodash_with_tz",
    "logical_date",
    "data_interval_start",
    "data_interval_end",
    "prev_data_interval_start_success",
    "prev_data_interval_end_success",
];

/// What Airflow 2 had and Airflow 3 removed, and what to write instead.
const REMOVED: [(&str, &str); 9] = [
    ("execution_date", "logical_date"),
    ("next_ds", "data_interval_end | ds"),
    ("prev_ds", "macros.ds_add(ds, -1)"),
    ("tomorrow_ds", "macros.ds_add(ds, 1)"),
    ("yesterday_ds", "macros.ds_add(ds, -1)"),
    ("tomorrow_ds_nodash", "logical_date.add(days=1) | ds_nodash"),
    ("yesterday_ds_nodash", "logical_date.subtract(days=1) | ds_nodash"),
    ("prev_execution_date", "prev_data_interval_start_success"),
    ("conf", "dag_run.conf"),
];

fn explain(error: &minijinja::Error, spanned: &str) -> (String, String) {
    let detail = error.detail().unwrap_or_default();
    match error.kind() {
        ErrorKind::UndefinedError => explain_undefined(detail, spanned),
        ErrorKind::OutOfFuel => (
            "the template takes too long".to_owned(),
            "shorten its loops, or do the work in the task itself".to_owned(),
        ),
        ErrorKind::SyntaxError => (
            format!("syntax error: {detail}"),
            "mend the expression; braces that are not the template's go between `{% raw %}` and `{% endraw %}`"
                .to_owned(),
        ),
        ErrorKind::InvalidOperation
            if detail.contains("operator on unsupported types") && detail.contains("plain object") =>
        {
            (
                detail.to_owned(),
                "for times write a method: `logical_date.add(days=1)`, `.subtract(hours=5)`, `.diff(other)`".to_owned(),
            )
        }
        _ if detail.is_empty() => (error.kind().to_string(), String::new()),
        ErrorKind::InvalidOperation => (detail.to_owned(), String::new()),
        kind => (format!("{kind}: {detail}"), String::new()),
    }
}

fn explain_undefined(detail: &str, spanned: &str) -> (String, String) {
    let name = spanned.trim();
    let message = match (name, detail) {
        ("", "") => "an undefined value is used".to_owned(),
        ("", detail) => detail.to_owned(),
        (name, _) => format!("`{name}` is undefined"),
    };
    let root = name.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
    let help = if DATED.contains(&root) {
        "this run has no logical date; use `dag_run.run_after` or `run_id`, or give one with `--logical-date`"
            .to_owned()
    } else if let Some((_, instead)) = REMOVED.iter().find(|(old, _)| *old == root) {
        format!("Airflow 3 removed `{root}`; write `{instead}`")
    } else if root == "var" {
        "write `var.value.NAME` for a text, `var.json.NAME` for JSON".to_owned()
    } else if root == "conn" {
        "write `conn.ID.host`, or login, password, port, schema, conn_type, extra, extra_dejson, get_uri()".to_owned()
    } else if let Some(near) = crate::diagnostic::did_you_mean(root, super::variables::NAMES.iter().copied()) {
        if near == root {
            format!("write `{name} | default('…')` if it may be missing")
        } else {
            format!("did you mean `{near}`?")
        }
    } else {
        "`| default('…')` gives a value where there is none".to_owned()
    };
    (message, help)
}
