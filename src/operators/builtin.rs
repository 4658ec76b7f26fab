//! Operators that are built in: this program itself, with the task as JSON on standard input.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::operators::{Fault, Place, Program, text, write_file};

/// Where the operator leaves its value.
pub fn value_path(place: &Place<'_>) -> PathBuf {
    let mut value = place.scratch.as_os_str().to_owned();
    value.push(".value");
    PathBuf::from(value)
}

/// Where it says why it failed.
pub fn verdict_path(place: &Place<'_>) -> PathBuf {
    let mut verdict = place.scratch.as_os_str().to_owned();
    verdict.push(".verdict");
    PathBuf::from(verdict)
}

/// `minflow operator NAME` with `task`, which leaves its value at `value`.
pub fn program(name: &str, task: &impl Serialize, value: PathBuf, place: &Place<'_>) -> Result<Program, Fault> {
    let json = serde_json::to_string(task).expect("a task has text keys and finite numbers");
    // A file of the try, readable by its owner alone: arguments can be read by everybody, and a task may hold a password.
    let task = write_file(place, ".task", &json)?;
    let argv = vec![
        this_program()?,
        "operator".to_owned(),
        name.to_owned(),
        "--home".to_owned(),
        text(place.home.to_owned())?,
    ];
    let verdict = verdict_path(place);
    Ok(Program {
        argv,
        stdin: Some(task.clone()),
        value: Some(value.clone()),
        verdict: Some(verdict.clone()),
        files: vec![task, value, verdict],
    })
}

/// What runs now, even if its file has been replaced since.
///
/// # Errors
/// Its path is not UTF-8.
pub fn this_program() -> Result<String, Fault> {
    let own = Path::new("/proc/self/exe");
    match std::env::current_exe() {
        Ok(path) if path.exists() => text(path),
        _ => text(own.to_owned()),
    }
}
