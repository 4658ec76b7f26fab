//! What the operators do that are built in, each in a process of its own: `minflow operator NAME`, with its task as JSON on standard
//! input.
//!
//! Knows neither DAGs nor runs: all has been rendered and looked up before. What it prints is the try's log, and an error's place and
//! remedy stand there; its value goes to a file. Called by the command line alone; `operators` writes its tasks.

pub mod sql;

use std::fmt;
use std::io::Read;

/// Why it could not do what was asked: the whole of it, with place and remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed(pub String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

/// Does what the task on `input` says.
///
/// # Errors
/// The task is none, or it could not be done.
pub fn run(name: &str, mut input: impl Read) -> Result<(), Failed> {
    let mut task = String::new();
    input.read_to_string(&mut task).map_err(|error| Failed(format!("its task cannot be read: {error}")))?;
    let no_task = |error: serde_json::Error| {
        Failed(format!("standard input holds no task of `{name}` ({error}); minflow starts this command by itself"))
    };
    match name {
        "sql" => sql::run(&serde_json::from_str(&task).map_err(no_task)?),
        _ => Err(Failed(format!("there is no operator `{name}` here; the only one is `sql`"))),
    }
}
