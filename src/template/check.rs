//! What can be said of a DAG's templates before any run: whether they parse and have filters and tests that exist, and whether
//! what is mapped hides a variable of theirs.
//!
//! Variables are looked up when a try renders them, since only a run has them all.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::diagnostic::Diagnostic;
use crate::jinja;
use crate::model::callback::Action;
use crate::model::dag::Position;
use crate::model::{Dag, Mapping, Operator, Requirements, Script, SqlDatabase, SqlScript, Task, Template};
use crate::template::variables::NAMES;
use crate::template::{TemplateError, filters, has_tags};

/// The faults of syntax in the templates of `dag`, whose file `path` holds `source`; in the order of its tasks.
pub fn check(dag: &Dag, path: &Path, source: &str) -> Vec<Diagnostic> {
    let file: Arc<str> = path.to_string_lossy().into();
    let mut faults = Vec::new();
    let fault_of = |text: &str, at: Position| {
        if !has_tags(text) {
            return None;
        }
        let fault = jinja::check(text, &|name| filters::NAMES.contains(&name)).err()?;
        Some(TemplateError::new(*fault, at, &file))
    };
    for task in &dag.tasks {
        let found = templates(task).filter_map(|template| fault_of(&template.text, template.at));
        faults.extend(found.map(|error| shown(error, path, source)));
        let operator = &task.operator;
        let (values, at): (Vec<&Value>, Position) = if let Some(python) = operator.python() {
            (python.args.iter().chain(python.kwargs.values()).collect(), python.arguments_at)
        } else if let Some(sql) = operator.sql() {
            (vec![&sql.parameters], sql.parameters_at)
        } else if let Operator::TriggerDag(trigger) = operator {
            (vec![&trigger.conf], trigger.conf_at)
        } else {
            let fields = operator.tool().into_iter().flat_map(|tool| &tool.fields);
            for field in fields.filter(|field| !field.is_plain) {
                each_text(&field.value, &mut |text| {
                    let is_whole = field.value.is_string();
                    let Position { line, column } = field.at;
                    let error = fault_of(text, field.at);
                    let error =
                        error.map(|error| if is_whole { error } else { TemplateError { line, column, ..error } });
                    faults.extend(error.map(|error| shown(error, path, source)));
                });
            }
            continue;
        };
        for value in values {
            each_text(value, &mut |text| {
                // As when it is rendered: where a text stands inside the arguments is not known.
                let error = fault_of(text, at).map(|error| TemplateError { line: at.line, column: at.column, ..error });
                faults.extend(error.map(|error| shown(error, path, source)));
            });
        }
    }
    let of_tasks = dag.tasks.iter().filter_map(|task| task.callbacks.as_deref()).flat_map(|callbacks| callbacks.iter());
    // What airflow.toml gives has been checked there, and its places are not this file's.
    let callbacks = of_tasks.map(|(_, callback)| callback).chain(&dag.on_success).chain(&dag.on_failure);
    for callback in callbacks.filter(|callback| callback.file.is_none()) {
        each_template(&callback.action, &mut |text, at, is_exact| {
            let error = fault_of(text, at);
            let error =
                error.map(
                    |error| if is_exact { error } else { TemplateError { line: at.line, column: at.column, ..error } },
                );
            faults.extend(error.map(|error| shown(error, path, source)));
        });
    }
    for mapping in &dag.mappings {
        let found = mapping.templates().into_iter().filter_map(|template| fault_of(&template.text, template.at));
        faults.extend(found.map(|error| shown(error, path, source)));
        faults.extend(hidden(mapping, &file).map(|error| shown(error, path, source)));
    }
    faults
}

/// Each text of a callback that is rendered, with the place where it, or what holds it, stands; whether it is its own.
fn each_template(action: &Action, look_at: &mut impl FnMut(&str, Position, bool)) {
    match action {
        Action::Bash(template) => look_at(&template.text, template.at, true),
        Action::Http(fields, at) => {
            fields.values().for_each(|value| each_text(value, &mut |text| look_at(text, *at, false)));
        }
        Action::Notify(_) => {}
    }
}

/// A mapping's variable would stand before one that every template has, and what uses that would fail in a strange place.
fn hidden(mapping: &Mapping, file: &Arc<str>) -> Option<TemplateError> {
    let name = mapping.names().find(|name| NAMES.contains(name))?;
    let Position { line, column } = mapping.at;
    let message = format!("`{name}` is a variable that every template has: nothing that is mapped can be called so");
    let help = format!("rename it, for example to `my_{name}`");
    Some(TemplateError { path: Arc::clone(file), line, column, message, help, class: "AirflowException" })
}

fn templates(task: &Task) -> impl Iterator<Item = &Template> {
    let (bash, python) = (task.operator.bash(), task.operator.python());
    let script = bash.map(|bash| &bash.script).or(python.map(|python| &python.script));
    let script = script.and_then(|script| match script {
        Script::Text(template) => Some(template),
        Script::File(_) => None,
    });
    let own = script.or(task.operator.expr()).into_iter().chain(python.map(|python| &python.interpreter));
    let triggers = if let Operator::TriggerDag(trigger) = &task.operator { Some(trigger) } else { None };
    let packages = python.and_then(|python| python.venv.as_ref()).map(|venv| match &venv.requirements {
        Requirements::List(lines) => lines.as_slice(),
        Requirements::File(_) => &[],
    });
    let own = own.chain(packages.into_iter().flatten()).chain(sql_templates(task));
    let own = own.chain(triggers.into_iter().flat_map(|trigger| trigger.templates()));
    own.chain(task.env.iter().map(|(_, value)| value)).chain(&task.cwd).chain(&task.map_index_template)
}

fn sql_templates(task: &Task) -> impl Iterator<Item = &Template> {
    let sql = task.operator.sql();
    let script = sql.and_then(|sql| match &sql.script {
        SqlScript::Text(template) => Some(template),
        SqlScript::File(_) => None,
    });
    let database = sql.map(|sql| match &sql.database {
        SqlDatabase::Path(template) | SqlDatabase::Connection(template) => template,
    });
    script.into_iter().chain(database)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dagfile::{Defaults, parse};

    fn faults(keys: &str) -> Vec<String> {
        let text = format!("[tasks.t]\nbash = \"true\"\n{keys}\n");
        let path = Path::new("d.toml");
        let dag = parse(path, text.as_bytes(), &Defaults::default()).unwrap();
        check(&dag, path, &text)
            .iter()
            .map(|fault| format!("{}:{}: {}", fault.line, fault.column, fault.message))
            .collect()
    }

    #[test]
    fn the_templates_of_a_mapping_are_checked_at_their_places() {
        let keys = "map_index_template = '{{ x'\nexpand.x = { zip = [{ values = [1], map = '{{ item + }}' }], filter = '{% if %}' }";
        let places: Vec<String> =
            faults(keys).iter().map(|fault| fault.split(": ").next().unwrap().to_owned()).collect();
        let line = keys.lines().nth(1).unwrap();
        let column = |text: &str| line.find(text).unwrap() as u32 + 1;
        assert_eq!(places.len(), 3, "{places:?}");
        assert!(places[0].starts_with("3:"), "{places:?}");
        // A fault stands where the template goes wrong.
        for (place, text) in [(&places[1], "{% if"), (&places[2], "{{ item")] {
            let found: u32 = place.strip_prefix("4:").unwrap().parse().unwrap();
            assert!((column(text)..column(text) + 12).contains(&found), "{place} {text}");
        }
        assert_eq!(faults("expand.x = { values = [1], map = '{{ item }}' }"), [""; 0]);
    }

    #[test]
    fn what_is_mapped_hides_no_variable_of_every_template() {
        for keys in ["expand.ds = [1]", "expand_kwargs = [{ a = 1 }, { ds = 2 }]", "expand.a = [1]\npartial.ds = 1"] {
            let expected = "3:1: `ds` is a variable that every template has: nothing that is mapped can be called so";
            assert_eq!(faults(keys), [expected], "{keys}");
        }
        assert_eq!(faults("expand = { item = [1], my_ds = [2] }"), [""; 0]);
    }
}
