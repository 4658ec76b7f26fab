//! What goes over the home's socket: one JSON value a line, a request from the client, then its answer.
//!
//! Knows the name of the home's socket; knows no thread.

use serde::{Deserialize, Serialize};

use crate::scheduler::command::{Command, CommandError, Reply};

/// Raised when a request or an answer is no longer understood by the version before.
pub const PROTOCOL: u32 = 1;

/// The socket's name in its home.
pub const SOCKET: &str = "minflow.sock";

/// The longest request line in bytes; a run's `conf` is the only thing in it that grows.
pub const MAX_REQUEST: usize = 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub version: u32,
    pub ask: Ask,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Who is there? Answered without the scheduler.
    Ping,
    Command(Command),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Pong(Pong),
    Reply(Reply),
    /// The request never reached the scheduler.
    Refused(CommandError),
}

/// Which minflow answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    pub pid: u32,
    pub version: String,
    /// Where HTTP listens, e.g. `127.0.0.1:8080`.
    pub http: Option<String>,
}
