//! What is wrong with a template, and where in the DAG file.

use std::fmt;
use std::sync::Arc;

use crate::jinja::fault::{ASSERTION, LIMIT, SYNTAX, UNDEFINED};
use crate::jinja::{self, Fault, Place};
use crate::model::dag::Position;

/// A fault in a template. Displays as `file:line:column: message`, then `help: …` on a line of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// The DAG file, as [`Context::file`](crate::template::Context::file) names it; or the template file, beside it.
    pub path: Arc<str>,
    /// Counts from 1.
    pub line: u32,
    /// Counts from 1, in characters.
    pub column: u32,
    pub message: String,
    /// What to write instead; may be empty.
    pub help: String,
    /// The class that Airflow's error has, e.g. `UndefinedError`.
    pub class: &'static str,
}

impl TemplateError {
    /// `at` is where the text's first character stands in the DAG file.
    pub(super) fn new(fault: Fault, at: Position, file: &Arc<str>) -> Self {
        let place = fault.place.clone().unwrap_or(Place { file: None, line: 1, column: 1 });
        let (path, line, column) = match &place.file {
            Some(name) => (beside(file, name), place.line, place.column),
            None if place.line == 1 => (file.clone(), at.line, at.column + place.column - 1),
            None => (file.clone(), at.line + place.line - 1, place.column),
        };
        let class = fault.class;
        let (message, help) = explain(fault);
        Self { path, line, column, message, help, class }
    }
}

/// The path of a template file, which is relative to the DAG file's folder.
fn beside(dag_file: &str, name: &str) -> Arc<str> {
    match dag_file.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/{name}").into(),
        None => name.into(),
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

fn explain(fault: Fault) -> (String, String) {
    let Fault { class, message, subject, .. } = fault;
    match class {
        UNDEFINED => explain_undefined(message, &subject),
        LIMIT if message.contains("recursion") => {
            (message, "let its macros and loops call each other less deeply".to_owned())
        }
        LIMIT if message.contains("result") => {
            (message, "write large data to a file in {{ run_dir }} and hand on its path".to_owned())
        }
        LIMIT => (message, "shorten its loops and texts, or do the work in the task itself".to_owned()),
        SYNTAX if message == "Missing end of comment tag" => (COMMENT.0.to_owned(), COMMENT.1.to_owned()),
        ASSERTION | SYNTAX => {
            let unknown = message.strip_prefix("No filter named '").and_then(|rest| rest.strip_suffix("'."));
            let near = unknown.and_then(|name| {
                let known = jinja::filter_names().iter().chain(&super::filters::NAMES).copied();
                crate::diagnostic::did_you_mean(name, known)
            });
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    "mend the expression; braces that are not the template's go between `{% raw %}` and `{% endraw %}`"
                        .to_owned()
                }
            };
            (format!("syntax error: {message}"), help)
        }
        "SecurityError" => (message, "attributes that begin with two underscores are closed to templates".to_owned()),
        _ => (message, String::new()),
    }
}

fn explain_undefined(detail: String, subject: &str) -> (String, String) {
    let message = if subject.is_empty() { detail } else { format!("`{subject}` is undefined") };
    let root = subject.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
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
            format!("write `{subject} | default('…')` if it may be missing")
        } else {
            format!("did you mean `{near}`?")
        }
    } else {
        "`| default('…')` gives a value where there is none".to_owned()
    };
    (message, help)
}
