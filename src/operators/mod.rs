//! What a task does: the program of its process with arguments and files, or an answer that needs none, and what a decider's answer
//! means.
//!
//! Knows the operators and renders their fields. Starts nothing, and knows neither logs nor XComs. Called by the executor's
//! workers at the start of each try.

mod bash;
pub mod builtin;
pub mod decider;
mod docker;
pub mod email;
mod files;
pub mod http;
pub mod notify;
pub mod plugin;
mod python;
pub mod sensor;
pub mod sql;
pub mod tool;
mod trigger_dag;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

use crate::lack::Lack;
use crate::model::{Operator, RunRequest, Wait};
use crate::template::{self, Context, TemplateError};

pub use files::TemplateFolder;

/// Longer scripts go through a file: Linux holds one argument to 128 KiB.
const MAX_INLINE: usize = 100 << 10;

/// Where a try prepares and finds its files.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The folder of the DAG file, absolute.
    pub dag_folder: &'a Path,
    /// minflow's home, absolute.
    pub home: &'a Path,
    /// A path inside an existing folder, for files of this try alone: `SCRATCH.script` and so on.
    pub scratch: &'a Path,
    /// The `PATH` that the task will have.
    pub search_path: &'a str,
    pub context: &'a Context,
    /// What its task has waited for before, in this try or in one whose clock it shares.
    pub earlier: Option<&'a Wait>,
    /// When the try began.
    pub now: Timestamp,
}

/// What a try has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Have this run.
    Run(Program),
    /// Ask the scheduler for a run.
    Ask(Box<RunRequest>),
    /// Nothing more: this is the answer of an operator that needs no process.
    Answer(Value),
    Nothing,
    /// Go on when this has come.
    Wait(Wait),
}

/// A program to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The executable's absolute path first.
    pub argv: Vec<String>,
    /// A file that is its standard input; None: it has none.
    pub stdin: Option<PathBuf>,
    /// Where it leaves its value as JSON, if it has one; None: its output is its value.
    pub value: Option<PathBuf>,
    /// Where it leaves what it says of its failure, as JSON; it need not.
    pub verdict: Option<PathBuf>,
    /// To be removed when the try is over.
    pub files: Vec<PathBuf>,
}

/// Why there is no program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Something is wrong with the task; the text says what to do.
    Task(String),
    /// The host lacks something just now: the try waits.
    Host(String),
}

impl Fault {
    /// Of an act such as "write" on a file.
    pub fn of_file(act: &str, path: &Path, error: &io::Error) -> Self {
        let shown = path.display();
        if let Some(lack) = Lack::of(error) {
            return Self::Host(format!("cannot {act} `{shown}`: {lack}"));
        }
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EIO | libc::EROFS) => {
                Self::Host(format!("cannot {act} `{shown}`: {error}; check the disk"))
            }
            _ => Self::Task(format!("cannot {act} `{shown}`: {error}; check the path and its modes")),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(reason) | Self::Host(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Fault {}

impl From<TemplateError> for Fault {
    fn from(error: TemplateError) -> Self {
        Self::Task(error.to_string())
    }
}

/// The work of one try, with its templates rendered.
///
/// # Errors
/// A template's fault, a missing script or interpreter, a disk that takes no file.
pub fn prepare(operator: &Operator, place: &Place<'_>) -> Result<Step, Fault> {
    if let Some(bash) = operator.bash() {
        return bash::prepare(bash, place).map(Step::Run);
    }
    if let Some(python) = operator.python() {
        return python::prepare(python, place).map(Step::Run);
    }
    if let Operator::Sql(sql) = operator {
        return sql::prepare(sql, place).map(Step::Run);
    }
    if let Operator::Sensor(sensor) = operator {
        return sensor::prepare(sensor, place);
    }
    if let Operator::Tool(tool) = operator {
        return tool::prepare(tool, place).map(Step::Run);
    }
    if let Operator::TriggerDag(trigger) = operator {
        return trigger_dag::prepare(trigger, place).map(|request| Step::Ask(Box::new(request)));
    }
    let context = place.context;
    if let Some(expr) = operator.expr() {
        return Ok(Step::Answer(Value::String(template::render(expr, context)?)));
    }
    let answer = decider::by_the_clock(&context.dag, context.task, &context.run, place.now);
    Ok(answer.map_or(Step::Nothing, Step::Answer))
}

/// The path of a script that the DAG file names, which must exist.
fn script_path(name: &str, place: &Place<'_>) -> Result<String, Fault> {
    let path = place.dag_folder.join(name);
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => text(path),
        Ok(_) => Err(Fault::Task(format!("the script `{}` is not a file: correct `file`", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Fault::Task(format!(
            "the script `{}` does not exist: create it, or correct `file` (relative to the DAG file's folder)",
            path.display()
        ))),
        Err(error) => Err(Fault::of_file("read", &path, &error)),
    }
}

/// Writes a file of the try, readable by its owner alone.
fn write_file(place: &Place<'_>, suffix: &str, content: &str) -> Result<PathBuf, Fault> {
    let mut name = place.scratch.as_os_str().to_owned();
    name.push(suffix);
    let path = PathBuf::from(name);
    let mut options = fs::File::options();
    let written = options
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(content.as_bytes()));
    written.map(|()| path.clone()).map_err(|error| Fault::of_file("write", &path, &error))
}

fn text(path: PathBuf) -> Result<String, Fault> {
    path.into_os_string()
        .into_string()
        .map_err(|name| Fault::Task(format!("the path `{}` is not UTF-8: rename it", name.display())))
}

/// The executable that `name` means: itself if it has a slash, else the first of that name on `search_path`. What was found is
/// remembered for as long as it is there, so that a try does not walk the path again.
fn find_program(name: &str, search_path: &str) -> Option<String> {
    static FOUND: Mutex<BTreeMap<(String, String), String>> = Mutex::new(BTreeMap::new());
    if name.contains('/') {
        return Some(name.to_owned());
    }
    let key = (name.to_owned(), search_path.to_owned());
    let remembered = FOUND.lock().get(&key).cloned();
    if let Some(found) = remembered.filter(|found| is_executable(found)) {
        return Some(found);
    }
    let folders = search_path.split(':').filter(|folder| folder.starts_with('/'));
    let found = folders.map(|folder| format!("{folder}/{name}")).find(|candidate| is_executable(candidate))?;
    let mut remembered = FOUND.lock();
    if remembered.len() >= MAX_REMEMBERED {
        remembered.clear();
    }
    remembered.insert(key, found.clone());
    Some(found)
}

/// A template may make a new `PATH` for each try.
const MAX_REMEMBERED: usize = 64;

fn is_executable(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_on_the_path_that_the_task_will_have() {
        let folder = tempfile::tempdir().unwrap();
        let tool = folder.path().join("tool");
        fs::write(&tool, "").unwrap();
        let search_path = format!("/nowhere:{}", folder.path().display());
        assert_eq!(find_program("tool", &search_path), None, "it is not executable yet");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_program("tool", &search_path), tool.to_str().map(str::to_owned));
        assert_eq!(find_program("./tool", "/nowhere"), Some("./tool".to_owned()));
        fs::remove_file(&tool).unwrap();
        assert_eq!(find_program("tool", &search_path), None, "what has gone is not remembered");
    }

    #[test]
    fn a_full_disk_is_the_hosts_fault_and_a_missing_folder_the_tasks() {
        let of = |number| Fault::of_file("write", Path::new("/x"), &io::Error::from_raw_os_error(number));
        assert!(matches!(of(libc::ENOSPC), Fault::Host(_)));
        assert!(matches!(of(libc::EMFILE), Fault::Host(_)));
        assert!(matches!(of(libc::ENOENT), Fault::Task(_)));
    }
}
