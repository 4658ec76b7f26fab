//! What the operators do that are built in, each in a process of its own: `minflow operator NAME`, with its task as JSON on standard
//! input.
//!
//! Knows neither DAGs nor runs: all has been rendered and looked up before. What it prints is the try's log, and an error's place and
//! remedy stand there; its value goes to a file. Called by the command line alone; `operators` writes its tasks. [`looks`] is another
//! such process, which makes the looks of sensors.

pub mod docker;
pub mod email;
pub mod http;
pub mod looks;
pub mod sql;
pub mod venv;

use std::cell::RefCell;
use std::fmt;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Why it could not do what was asked: the whole of it, with place and remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed(pub String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

/// Who is told what an operator does while it does it.
#[derive(Debug)]
pub enum Voice {
    /// Standard output, which is the try's log.
    Aloud,
    /// It is kept for whoever writes the log.
    Kept(RefCell<String>),
}

impl Voice {
    pub fn kept() -> Self {
        Self::Kept(RefCell::default())
    }

    /// Says a line.
    pub fn say(&self, line: impl fmt::Display) {
        match self {
            Self::Aloud => println!("{line}"),
            Self::Kept(said) => {
                let mut said = said.borrow_mut();
                said.push_str(&line.to_string());
                said.push('\n');
            }
        }
    }

    /// What was kept.
    pub fn into_said(self) -> String {
        match self {
            Self::Aloud => String::new(),
            Self::Kept(said) => said.into_inner(),
        }
    }
}

/// What a process says of its own end, beside its exit code. It leaves it in a file, which need not be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Why it failed: a sentence.
    pub reason: String,
    pub finality: Finality,
}

/// More is no reason.
const MAX_VERDICT_BYTES: u64 = 1 << 20;

/// Whether another try may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finality {
    /// As the task's `retries` say.
    Open,
    /// It would come to the same.
    Final,
}

impl Verdict {
    pub fn failed(reason: String, finality: Finality) -> Self {
        Self { reason, finality }
    }

    /// None: it said nothing.
    pub fn read(path: &Path) -> Option<Self> {
        let mut text = String::new();
        std::fs::File::open(path).ok()?.take(MAX_VERDICT_BYTES).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// # Errors
    /// The file cannot be written.
    pub fn leave(&self, path: &Path) -> Result<(), Failed> {
        let json = serde_json::to_string(self).expect("texts have a form in JSON");
        std::fs::write(path, json).map_err(|error| {
            Failed(format!("{}\nand this cannot be told through `{}`: {error}", self.reason, path.display()))
        })
    }
}

/// Whether it starts programs of others, and ends up as one.
pub fn hands_over(name: &str) -> bool {
    name == "venv"
}

/// Does what the task on `input` says, and gives the exit code to end with.
///
/// # Errors
/// The task is none, or it could not be done.
pub fn run(name: &str, mut input: impl Read) -> Result<u8, Failed> {
    if name == looks::NAME {
        return looks::serve().map(|()| 0);
    }
    // Its input does not end before what it watches does.
    if name == docker::watch::NAME {
        return docker::watch::run(input).map(|()| 0);
    }
    let mut task = String::new();
    input.read_to_string(&mut task).map_err(|error| Failed(format!("its task cannot be read: {error}")))?;
    let no_task = |error: serde_json::Error| {
        Failed(format!("standard input holds no task of `{name}` ({error}); minflow starts this command by itself"))
    };
    let done = match name {
        "docker" => return docker::run(&serde_json::from_str(&task).map_err(no_task)?),
        "email" => email::run(&serde_json::from_str(&task).map_err(no_task)?),
        "http" => http::task::run(&serde_json::from_str(&task).map_err(no_task)?),
        "sql" => sql::run(&serde_json::from_str(&task).map_err(no_task)?),
        "venv" => venv::run(&serde_json::from_str(&task).map_err(no_task)?),
        _ => Err(Failed(format!(
            "there is no operator `{name}` here; those that are built in are `docker`, `email`, `http`, `sql` and `venv`"
        ))),
    };
    done.map(|()| 0)
}
