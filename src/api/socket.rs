//! The server side of the home's socket: turns a line of JSON into an event for the scheduler, and its reply into a line.
//!
//! Knows no command. One thread for each connection, at most [`MAX_CONNECTIONS`], each asleep until something comes. A client
//! that awaits a run holds its own thread here and none of HTTP's.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::bounded;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::socket_peercred;

use crate::api::protocol::{Answer, Ask, MAX_REQUEST, PROTOCOL, Pong, Request, SOCKET};
use crate::home_socket::{self, SocketPath};
use crate::lack::Lack;
use crate::scheduler::command::{Command, CommandError};
use crate::scheduler::event::{Event, EventSender};
use crate::scheduler::port::ReplyTo;

/// Further clients are told to come again.
pub const MAX_CONNECTIONS: usize = 256;

/// Enough for parsing a request: serde_json's depth is bounded.
const STACK_BYTES: usize = 512 * 1024;

/// How long one line may take to arrive or to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub request: Duration,
    pub write: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { request: Duration::from_secs(10), write: Duration::from_secs(10) }
    }
}

/// Why the socket could not be opened.
#[derive(Debug)]
pub struct SocketError {
    path: PathBuf,
    cause: io::Error,
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let help = if self.cause.kind() == ErrorKind::AlreadyExists {
            "move that file away: minflow needs the name for its socket"
        } else if let Some(lack) = Lack::of_process(&self.cause) {
            lack.remedy()
        } else {
            "the home must be writable and on a file system that has sockets (not NFS, 9p or a shared folder); \
             name another with `--home`"
        };
        write!(f, "open the socket `{}`: {}\nhelp: {help}", self.path.display(), self.cause)
    }
}

impl std::error::Error for SocketError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// The open socket. Dropping it closes the socket and removes its file; connections that still wait are left to their end.
#[derive(Debug)]
pub struct SocketServer {
    shared: Arc<Shared>,
    home: PathBuf,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    pong: Pong,
    events: EventSender,
    patience: Patience,
    connections: AtomicUsize,
    is_stopping: AtomicBool,
}

impl SocketServer {
    /// Opens `HOME/minflow.sock`, mode 0600. The caller holds the lock of the home: a socket that lies there is a dead
    /// minflow's, and is replaced.
    ///
    /// # Errors
    /// The home cannot hold a socket, or the name is taken by a file that is none.
    pub fn start(home: &Path, pong: Pong, events: EventSender, patience: Patience) -> Result<Self, SocketError> {
        let fail = |cause| SocketError { path: home.join(SOCKET), cause };
        let listener = home_socket::listen(home, SOCKET).map_err(fail)?;
        let shared = Arc::new(Shared {
            pong,
            events,
            patience,
            connections: AtomicUsize::new(0),
            is_stopping: AtomicBool::new(false),
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name("socket".to_owned()).stack_size(STACK_BYTES);
            thread.spawn(move || accept(&listener, &shared)).map_err(fail)?
        };
        Ok(Self { shared, home: home.to_owned(), accepting: Some(accepting) })
    }
}

impl Drop for SocketServer {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        let reached = SocketPath::new(&self.home, SOCKET).and_then(|socket| UnixStream::connect(socket.path));
        if reached.is_ok()
            && let Some(thread) = self.accepting.take()
            && thread.join().is_err()
        {
            log::error!("the thread that accepts commands had panicked");
        }
        // A file that is already gone is as good.
        let _ = std::fs::remove_file(self.home.join(SOCKET));
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        if shared.is_stopping.load(Ordering::SeqCst) {
            return;
        }
        match accepted {
            Ok((stream, _)) => admit(stream, shared),
            Err(error) => {
                log::warn!("a command could not be taken: {error}");
                // No descriptors left, most likely: the connection waits in the backlog until there are, and nothing tells when that is.
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Counts a connection for as long as it lives.
struct Seat(Arc<Shared>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

fn admit(mut stream: UnixStream, shared: &Arc<Shared>) {
    let taken = shared.connections.fetch_add(1, Ordering::SeqCst);
    let seat = Seat(Arc::clone(shared));
    if stream.set_write_timeout(Some(shared.patience.write)).is_err() {
        return;
    }
    if let Some(refusal) = refuse(&stream, taken) {
        // A client that has gone does not need to know.
        let _ = write_answer(&mut stream, &Answer::Refused(refusal));
        return;
    }
    let thread = std::thread::Builder::new().name("command".to_owned()).stack_size(STACK_BYTES);
    let spawned = thread.spawn(move || {
        if let Err(error) = serve(stream, &seat.0) {
            log::debug!("a client of the socket has gone: {error}");
        }
    });
    if let Err(error) = spawned {
        log::warn!("a command could not be taken: {error}");
    }
}

fn refuse(stream: &UnixStream, taken: usize) -> Option<CommandError> {
    let uid = socket_peercred(stream).map(|peer| peer.uid);
    if !uid.is_ok_and(|uid| uid.is_root() || uid == rustix::process::geteuid()) {
        return Some(refusal("denied", "this minflow belongs to another user", "run the command as that user"));
    }
    if taken >= MAX_CONNECTIONS {
        let message = format!("{MAX_CONNECTIONS} commands are waiting already");
        return Some(refusal("busy", &message, "try again when one of them has ended"));
    }
    None
}

fn refusal(code: &str, message: &str, help: &str) -> CommandError {
    CommandError { code: code.to_owned(), message: message.to_owned(), help: help.to_owned() }
}

/// Answers the requests of one client until it goes.
fn serve(mut stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let line = match read_line(&mut stream, &mut buffer, shared.patience.request)? {
            Line::Whole(line) => line,
            Line::End => return Ok(()),
            Line::TooLong => {
                let message = format!("the request is longer than {MAX_REQUEST} bytes");
                let too_long = refusal("too-long", &message, "give the run a smaller `conf`; pass large data as files");
                return write_answer(&mut stream, &Answer::Refused(too_long));
            }
        };
        let answer = match understand(&line) {
            Ok(Ask::Ping) => Answer::Pong(shared.pong.clone()),
            Ok(Ask::Command(command)) => match carry_out(&stream, shared, command)? {
                Some(answer) => answer,
                None => return Ok(()),
            },
            Err(error) => Answer::Refused(error),
        };
        write_answer(&mut stream, &answer)?;
    }
}

fn understand(line: &[u8]) -> Result<Ask, CommandError> {
    let help = "use the `minflow` command of the version that is running";
    // The version is read by itself first: what else a request of another version holds is not ours to judge.
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let invalid = |error: serde_json::Error| refusal("invalid-request", &format!("invalid request: {error}"), help);
    let Version { version } = serde_json::from_slice(line).map_err(invalid)?;
    if version != PROTOCOL {
        let message = format!("the request is of protocol {version}, the running minflow speaks {PROTOCOL}");
        return Err(refusal("version", &message, help));
    }
    serde_json::from_slice::<Request>(line).map(|request| request.ask).map_err(invalid)
}

/// Gives a command to the scheduler and waits for its reply. Null: the client has gone meanwhile.
fn carry_out(stream: &UnixStream, shared: &Shared, command: Command) -> io::Result<Option<Answer>> {
    let (reply_sender, replies) = bounded(1);
    // The wake end is closed once the reply is in the channel, or was dropped: poll sees either.
    let (wake, waiting) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(error) => {
            let message = format!("minflow cannot take the command: {error}");
            let help = "raise its limit of descriptors (`ulimit -n`), or try again when fewer commands wait";
            return Ok(Some(Answer::Refused(refusal("descriptors", &message, help))));
        }
    };
    let reply = ReplyTo::new(move |reply| {
        // Capacity one and one reply: never full. A receiver that has gone is no error.
        let _ = reply_sender.try_send(reply);
        drop(wake);
    });
    let stopping = || Answer::Refused(refusal("stopping", "minflow is stopping", "start it again with `minflow run`"));
    if shared.events.send(Event::Command { command, reply }).is_err() {
        return Ok(Some(stopping()));
    }
    loop {
        // No POLLIN for the client: what it sends early stays in the socket. POLLHUP always comes.
        let mut watched = [PollFd::new(stream, PollFlags::empty()), PollFd::new(&waiting, PollFlags::IN)];
        match poll(&mut watched, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let [client, woken] = watched.map(|fd| !fd.revents().is_empty());
        if woken {
            return Ok(Some(replies.try_recv().map_or_else(|_| stopping(), Answer::Reply)));
        }
        if client {
            return Ok(None);
        }
    }
}

enum Line {
    /// Without its end.
    Whole(Vec<u8>),
    End,
    TooLong,
}

/// Reads up to the next newline; what follows it stays in `buffer`. A client that is silent for `patience` is gone.
fn read_line(stream: &mut UnixStream, buffer: &mut Vec<u8>, patience: Duration) -> io::Result<Line> {
    let deadline = Instant::now() + patience;
    let mut searched = 0;
    let mut chunk = [0; 8 * 1024];
    loop {
        if let Some(end) = buffer[searched..].iter().position(|&byte| byte == b'\n') {
            let mut line: Vec<u8> = buffer.drain(..=searched + end).collect();
            line.pop();
            return Ok(Line::Whole(line));
        }
        searched = buffer.len();
        if searched > MAX_REQUEST {
            return Ok(Line::TooLong);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(Line::End),
            Ok(count) => buffer.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn write_answer(stream: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    stream.write_all(&line)
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
