//! The client of a running minflow: what the command line talks through.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::protocol::{Answer, Ask, PROTOCOL, Pong, Request, SOCKET};
use crate::home_socket::SocketPath;
use crate::scheduler::command::{Command, CommandError, Reply};

/// How long a ping may take. It is answered without the scheduler, so that only a stopped process is slower.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to the minflow of one home.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

/// Why no minflow could be reached.
#[derive(Debug)]
pub enum ConnectError {
    /// No minflow runs on this home.
    NotRunning(PathBuf),
    /// It runs as another user.
    Denied(PathBuf),
    Io(PathBuf, io::Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(home) => write!(
                f,
                "no minflow is running on `{0}`\nhelp: start it with `minflow run --home {0}`, or name another home",
                home.display()
            ),
            Self::Denied(home) => write!(
                f,
                "the minflow of `{}` belongs to another user\nhelp: run this command as that user",
                home.display()
            ),
            Self::Io(home, error) => write!(
                f,
                "cannot reach the minflow of `{}`: {error}\nhelp: check that the folder can be read",
                home.display()
            ),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::NotRunning(_) | Self::Denied(_) => None,
        }
    }
}

/// Why a request got no reply of the scheduler.
#[derive(Debug)]
pub enum RequestError {
    /// The connection ended first: minflow stopped or crashed. Whether the command was carried out is not known.
    Disconnected,
    /// Refused before it reached the scheduler; nothing was changed.
    Refused(CommandError),
    /// The answer is not one that this version knows.
    Unintelligible(String),
    Io(io::Error),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected => f.write_str(
                "minflow ended the connection before it answered\nhelp: see with `minflow status` whether it still runs",
            ),
            Self::Refused(error) => error.fmt(f),
            Self::Unintelligible(answer) => write!(
                f,
                "the running minflow answered `{answer}`\nhelp: it is of another version; restart it with this one"
            ),
            Self::Io(error) => {
                write!(f, "cannot talk to the running minflow: {error}\nhelp: see with `minflow status` whether it still runs")
            }
        }
    }
}

impl std::error::Error for RequestError {}

impl Client {
    /// # Errors
    /// No minflow runs on `home`, or it cannot be reached.
    pub fn connect(home: &Path) -> Result<Self, ConnectError> {
        let connect = || UnixStream::connect(SocketPath::new(home, SOCKET)?.path);
        match connect() {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream) }),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ConnectError::NotRunning(home.to_owned()),
                io::ErrorKind::PermissionDenied => ConnectError::Denied(home.to_owned()),
                _ => ConnectError::Io(home.to_owned(), error),
            }),
        }
    }

    /// Asks who is there. Works while the scheduler is stalled.
    ///
    /// # Errors
    /// No answer came within five seconds, or none that is understood.
    pub fn ping(&mut self) -> Result<Pong, RequestError> {
        self.ping_within(PING_TIMEOUT)
    }

    /// As [`Self::ping`], and waits for no longer than this.
    ///
    /// # Errors
    /// As there.
    pub fn ping_within(&mut self, patience: Duration) -> Result<Pong, RequestError> {
        self.stream.get_ref().set_read_timeout(Some(patience)).map_err(RequestError::Io)?;
        let answer = self.ask(Ask::Ping, |_| ());
        self.stream.get_ref().set_read_timeout(None).map_err(RequestError::Io)?;
        match answer? {
            Answer::Pong(pong) => Ok(pong),
            Answer::Refused(error) => Err(RequestError::Refused(error)),
            other @ Answer::Reply(_) => Err(RequestError::Unintelligible(format!("{other:?}"))),
        }
    }

    /// Has a command carried out, and waits for as long as that takes: a commit that a full disk holds up is made later.
    ///
    /// # Errors
    /// The scheduler gave no reply. A command that it refused is `Ok(Err(…))`.
    pub fn request(&mut self, command: &Command) -> Result<Reply, RequestError> {
        self.request_with(command, |_| ())
    }

    /// As [`Self::request`]; `wait` is called with the socket when the request is on its way, and returns when the answer comes.
    ///
    /// # Errors
    /// As there.
    pub fn request_with(
        &mut self,
        command: &Command,
        wait: impl FnOnce(BorrowedFd<'_>),
    ) -> Result<Reply, RequestError> {
        match self.ask(Ask::Command(command.clone()), wait)? {
            Answer::Reply(reply) => Ok(reply),
            Answer::Refused(error) => Err(RequestError::Refused(error)),
            other @ Answer::Pong(_) => Err(RequestError::Unintelligible(format!("{other:?}"))),
        }
    }

    fn ask(&mut self, ask: Ask, wait: impl FnOnce(BorrowedFd<'_>)) -> Result<Answer, RequestError> {
        let request = Request { version: PROTOCOL, ask };
        let mut line = serde_json::to_vec(&request).map_err(|error| RequestError::Io(error.into()))?;
        line.push(b'\n');
        // A server that refuses may have answered and closed before it took all of the request.
        let sent = self.stream.get_mut().write_all(&line);
        wait(self.stream.get_ref().as_fd());
        let mut answer = String::new();
        match self.stream.read_line(&mut answer) {
            Ok(0) => return Err(RequestError::Disconnected),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(RequestError::Disconnected),
            Err(error) => return Err(RequestError::Io(sent.err().unwrap_or(error))),
        }
        serde_json::from_str(&answer).map_err(|_| RequestError::Unintelligible(answer.trim_end().to_owned()))
    }
}
