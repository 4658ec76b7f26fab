//! What goes over the home's socket: one JSON value a line, a request from the client, then its answer.
//!
//! Knows where the socket of a home lies and how both sides reach it; knows no thread.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
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

/// `sun_path` has 108 bytes, and the last one is zero.
const MAX_SOCKET_PATH: usize = 107;

/// A path of a socket in a home that fits into a socket address, however deep the home is.
#[derive(Debug)]
pub(crate) struct SocketPath {
    pub(crate) path: PathBuf,
    /// Keeps `/proc/self/fd/N` alive as long as the path is in use.
    _folder: Option<OwnedFd>,
}

impl SocketPath {
    /// # Errors
    /// The home cannot be opened.
    pub(crate) fn new(home: &Path, name: &str) -> io::Result<Self> {
        let path = home.join(name);
        if path.as_os_str().len() <= MAX_SOCKET_PATH {
            return Ok(Self { path, _folder: None });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(home, flags, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
        Ok(Self { path, _folder: Some(folder) })
    }
}
