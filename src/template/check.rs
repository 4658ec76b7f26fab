//! What can be said of a DAG's templates before any run: whether they parse.
//!
//! Names and filters are looked up when a try renders them, since only a run has them all.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::diagnostic::Diagnostic;
use crate::model::dag::Position;
use crate::model::{Dag, Script, Task, Template};
use crate::template::{ENVIRONMENT, TemplateError, has_tags};

/// The faults of syntax in the templates of `dag`, whose file `path` holds `source`; in the order of its tasks.
pub fn check(dag: &Dag, path: &Path, source: &str) -> Vec<Diagnostic> {
    let file: Arc<str> = path.to_string_lossy().into();
    let mut faults = Vec::new();
    let fault_of = |text: &str, at: Position| {
        if !has_tags(text) {
            return None;
        }
        let error = ENVIRONMENT.template_from_named_str(&file, text).err()?;
        Some(TemplateError::new(&error, text, usize::MAX, at, &file))
    };
    for task in &dag.tasks {
        let found = templates(task).filter_map(|template| fault_of(&template.text, template.at));
        faults.extend(found.map(|error| shown(error, path, source)));
        let Some(python) = task.operator.python() else { continue };
        let at = python.arguments_at;
        for value in python.args.iter().chain(python.kwargs.values()) {
            each_text(value, &mut |text| {
                // As when it is rendered: where a text stands inside the arguments is not known.
                let error = fault_of(text, at).map(|error| TemplateError { line: at.line, column: at.column, ..error });
                faults.extend(error.map(|error| shown(error, path, source)));
            });
        }
    }
    faults
}

fn templates(task: &Task) -> impl Iterator<Item = &Template> {
    let (bash, python) = (task.operator.bash(), task.operator.python());
    let script = bash.map(|bash| &bash.script).or(python.map(|python| &python.script));
    let script = script.and_then(|script| match script {
        Script::Text(template) => Some(template),
        Script::File(_) => None,
    });
    let own = script.or(task.operator.expr()).into_iter().chain(python.map(|python| &python.interpreter));
    own.chain(task.env.iter().map(|(_, value)| value)).chain(&task.cwd)
}

fn each_text(value: &Value, look_at: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => look_at(text),
        Value::Array(items) => items.iter().for_each(|item| each_text(item, look_at)),
        Value::Object(pairs) => pairs.values().for_each(|item| each_text(item, look_at)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn shown(error: TemplateError, path: &Path, source: &str) -> Diagnostic {
    let source_line = source.lines().nth(error.line.saturating_sub(1) as usize).unwrap_or_default().to_owned();
    Diagnostic {
        path: path.to_owned(),
        line: error.line,
        column: error.column,
        width: 1,
        source_line,
        code: "bad-template",
        message: error.message,
        help: error.help,
    }
}
