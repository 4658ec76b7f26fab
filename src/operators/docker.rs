//! `docker = …`: from rendered fields to the container that the operator has an engine run.

use serde_json::{Map, Value};

use crate::builtin::docker::DockerTask;
use crate::model::docker::{AutoRemove, Mount, MountKind, Pull};
use crate::operators::{Fault, Place, Program, builtin, find_program, text, words, write_file};

/// The longest line that docker reads from a file of variables, in bytes, is 64 KiB.
const MAX_LINE: usize = 60_000;

pub fn prepare(fields: &Map<String, Value>, place: &Place<'_>) -> Result<Program, Fault> {
    let program = find_program("docker", place.search_path).ok_or_else(|| {
        Fault::Task(
            "`docker` was not found on PATH: install the Docker command line (package docker-ce-cli or docker.io), or correct PATH in `env`"
                .to_owned(),
        )
    })?;
    let (lines, more_variables) = variables(fields);
    let task = task(fields, place).map_err(Fault::Task)?;
    let file = if lines.is_empty() { None } else { Some(write_file(place, ".variables", &lines)?) };
    let run_dir = text(place.context.run_dir.clone())?;
    let verdict = builtin::verdict_path(place);
    let task = DockerTask { program, variables: file.clone(), more_variables, run_dir, verdict, ..task };
    let program = builtin::program("docker", &task, builtin::value_path(place), place)?;
    // Its value is its output, as that of a script.
    let files = program.files.iter().cloned().chain(file).collect();
    Ok(Program { value: None, files, ..program })
}

/// What rendered fields ask for; what lies in files is left to the caller.
fn task(fields: &Map<String, Value>, place: &Place<'_>) -> Result<DockerTask, String> {
    let given = |name: &str| match fields.get(name) {
        Some(Value::String(text)) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let image = given("image").unwrap_or_default();
    if image.is_empty() || image.starts_with('-') || image.contains(char::is_whitespace) {
        return Err(format!("`{image}` is not the name of an image; look at what the template of `image` gives"));
    }
    let mounts = fields.get("mounts").and_then(Value::as_array).into_iter().flatten();
    Ok(DockerTask {
        program: String::new(),
        home: place.home.to_owned(),
        image,
        command: command(fields.get("command"))?,
        mounts: mounts.map(|mount| mounted(mount, place)).collect::<Result<_, _>>()?,
        variables: None,
        more_variables: Vec::new(),
        working_dir: given("working_dir"),
        network: given("network"),
        user: given("user"),
        auto_remove: fields.get("auto_remove").and_then(AutoRemove::of).unwrap_or_default(),
        pull: fields.get("pull").and_then(Value::as_str).and_then(Pull::from_name).unwrap_or_default(),
        run_dir: String::new(),
        labels: labels(place),
        verdict: Default::default(),
    })
}

/// Airflow: `DockerOperator.format_command`, and of another text what docker's client makes of it.
fn command(given: Option<&Value>) -> Result<Vec<String>, String> {
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match given {
        Some(Value::Array(list)) => Ok(list.iter().map(word).collect()),
        Some(Value::String(text)) if text.trim().starts_with('[') => match crate::jinja::read_literal(text.trim()) {
            Some(Value::Array(list)) => Ok(list.iter().map(word).collect()),
            _ => Err("`command` begins with `[`, and is not a list as Python writes it: correct it, such as `['sh', '-c', 'true']`, or give a list".to_owned()),
        },
        Some(Value::String(text)) => {
            words::split(text).map_err(|error| format!("`command` cannot be parted into words: {error}; correct it, or give a list"))
        }
        _ => Ok(Vec::new()),
    }
}

fn mounted(value: &Value, place: &Place<'_>) -> Result<String, String> {
    let mut mount = Mount::of(value)?;
    if let (MountKind::Bind, Some(source)) = (mount.kind, &mount.source) {
        let path: std::path::PathBuf = place.dag_folder.join(source).components().collect();
        mount.source = Some(path.to_string_lossy().into_owned());
    }
    Ok(mount.option())
}

/// The lines of a file of variables, and those that no line can hold.
fn variables(fields: &Map<String, Value>) -> (String, Vec<(String, String)>) {
    let (mut lines, mut more) = (String::new(), Vec::new());
    for (name, value) in fields.get("environment").and_then(Value::as_object).into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        let is_line = !value.contains(['\n', '\r']) && name.len() + value.len() < MAX_LINE;
        match is_line {
            true => lines += &format!("{name}={value}\n"),
            false => more.push((name.clone(), value.to_owned())),
        }
    }
    (lines, more)
}

fn labels(place: &Place<'_>) -> Vec<(String, String)> {
    let context = place.context;
    let mut labels = vec![
        ("minflow.home".to_owned(), place.home.to_string_lossy().into_owned()),
        ("minflow.dag_id".to_owned(), context.dag.dag_id.to_string()),
        ("minflow.run_id".to_owned(), context.run.run_id.to_string()),
        ("minflow.task_id".to_owned(), context.dag.task(context.task).task_id.to_string()),
        ("minflow.try_number".to_owned(), context.try_number.to_string()),
    ];
    if context.map_index >= 0 {
        labels.push(("minflow.map_index".to_owned(), context.map_index.to_string()));
    }
    labels
}

#[cfg(test)]
#[path = "docker_tests.rs"]
mod tests;
