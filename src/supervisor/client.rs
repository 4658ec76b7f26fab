//! The scheduler's end of the supervisor's socket. Sending never blocks; what comes back is handed to one callback.
//!
//! Knows the protocol and nothing of tasks. The executor calls it through [`Supervise`], so that tests can put a fake there.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::Timespec;

use crate::model::TryKey;
use crate::supervisor::protocol::{self, Answer, Decoder, Request, Start};

/// Longer than a supervisor waits for an earlier one to let go of the home.
const GREETING_WAIT: Duration = Duration::from_secs(15);
/// How many bytes that nobody waits for are kept until something else is sent.
const MOST_UNSENT: usize = 4 << 10;
/// How long a closed supervisor is awaited: it ends what it still has first.
const CLOSING_WAIT: Duration = Duration::from_secs(10);

/// Runs processes. No call blocks; answers come as [`Notice`]s.
pub trait Supervise: Send + Sync {
    /// # Errors
    /// The supervisor is gone; nothing was or will be started.
    fn start(&self, start: Start) -> Result<(), Gone>;
    /// Ends a try; one that is over is left alone. `immediate`: without kill signal and grace.
    fn kill(&self, key: TryKey, reason: &str, force: crate::scheduler::port::Force);
    /// These ends are recorded.
    fn acknowledge(&self, keys: &[TryKey]);
}

/// The supervisor is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the supervisor is gone")
    }
}

impl std::error::Error for Gone {}

/// What a supervisor tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    Answer(Answer),
    /// It ended without being asked to. Nothing comes after this.
    Gone {
        reason: String,
    },
}

/// A supervisor that was spawned and not greeted yet.
#[derive(Debug)]
pub struct SupervisorHandle {
    exe: PathBuf,
    home: PathBuf,
    socket: UnixStream,
    child: Child,
}

impl SupervisorHandle {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The binary and the home with which it was spawned, to spawn another.
    pub fn origin(&self) -> (PathBuf, PathBuf) {
        (self.exe.clone(), self.home.clone())
    }
}

/// Spawns a supervisor for `home`. To be called before threads, sockets and locks exist: a small parent is cheap to copy, and
/// what is not there cannot be inherited.
///
/// # Errors
/// The binary cannot be executed, or the host lacks processes or descriptors.
pub fn spawn(exe: &Path, home: &Path) -> io::Result<SupervisorHandle> {
    let home = std::path::absolute(home)?;
    let (ours, theirs) = UnixStream::pair()?;
    let child = Command::new(exe)
        .arg("supervise")
        .arg("--home")
        .arg(&home)
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()?;
    Ok(SupervisorHandle { exe: exe.to_owned(), home, socket: ours, child })
}

/// A connected supervisor. Dropping it closes the socket: the supervisor then ends what it still runs, and itself.
pub struct SupervisorClient {
    line: Arc<Line>,
    reader: Option<JoinHandle<()>>,
    pid: i32,
}

struct Line {
    socket: UnixStream,
    /// Wakes the reader: there is something to write, or it is to end.
    wake: OwnedFd,
    outbox: Mutex<Outbox>,
    is_closing: AtomicBool,
}

#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    /// The socket did not take all: the reader goes on when it has room.
    is_full: bool,
    is_gone: bool,
}

impl SupervisorClient {
    /// Greets the supervisor, and has `notify` called for all that it tells, from one thread.
    ///
    /// # Errors
    /// It does not answer, speaks another version, or an earlier supervisor of the home does not let go.
    pub fn connect(handle: SupervisorHandle, notify: impl Fn(Notice) + Send + 'static) -> io::Result<Self> {
        let SupervisorHandle { socket, mut child, .. } = handle;
        let mut decoder = Decoder::default();
        if let Err(error) = greet(&socket, &mut decoder) {
            // Its end of the socket closes with ours, and it ends by itself.
            drop(socket);
            let _ = child.wait();
            return Err(error);
        }
        socket.set_read_timeout(None)?;
        socket.set_nonblocking(true)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let line = Line { socket, wake, outbox: Mutex::default(), is_closing: AtomicBool::new(false) };
        let line = Arc::new(line);
        let pid = child.id() as i32;
        let reading = line.clone();
        let reader = std::thread::Builder::new()
            .name("supervisor".to_owned())
            // It reads the JSON that a task has printed, which may nest; what is not touched costs no memory.
            .stack_size(1 << 20)
            .spawn(move || read(&reading, decoder, child, notify))?;
        Ok(Self { line, reader: Some(reader), pid })
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }
}

impl Supervise for SupervisorClient {
    fn start(&self, start: Start) -> Result<(), Gone> {
        self.line.send(&Request::Start(Box::new(start)))
    }

    fn kill(&self, key: TryKey, reason: &str, force: crate::scheduler::port::Force) {
        let immediate = force == crate::scheduler::port::Force::Immediate;
        // If it is gone, its tries are ended by whoever hears of that.
        let _ = self.line.send(&Request::Kill { key, reason: reason.to_owned(), immediate });
    }

    fn acknowledge(&self, keys: &[TryKey]) {
        // If it is gone, it remembers nothing any more.
        let _ = self.line.mention(&Request::Acknowledge { keys: keys.to_vec() });
    }
}

impl Drop for SupervisorClient {
    fn drop(&mut self) {
        self.line.is_closing.store(true, Ordering::Release);
        self.line.wake_reader();
        if let Some(reader) = self.reader.take()
            && reader.thread().id() != std::thread::current().id()
        {
            let _ = reader.join();
        }
    }
}

fn greet(mut socket: &UnixStream, decoder: &mut Decoder) -> io::Result<()> {
    let mut hello = Vec::new();
    protocol::encode(&Request::Hello { version: protocol::VERSION }, &mut hello);
    socket.write_all(&hello)?;
    socket.set_read_timeout(Some(GREETING_WAIT))?;
    let mut bytes = [0; 4096];
    loop {
        match decoder.take()? {
            Some(Answer::Hello { .. }) => return Ok(()),
            Some(Answer::Refused { message }) => return Err(io::Error::other(message)),
            Some(_) => return Err(io::Error::other("the supervisor answers before it was asked")),
            None => {}
        }
        match socket.read(&mut bytes) {
            Ok(0) => return Err(io::Error::other("the supervisor ended before it began")),
            Ok(count) => decoder.feed(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::other("the supervisor does not answer"));
            }
            Err(error) => return Err(error),
        }
    }
}

impl Line {
    fn send(&self, request: &Request) -> Result<(), Gone> {
        let mut outbox = self.outbox.lock();
        if outbox.is_gone {
            return Err(Gone);
        }
        protocol::encode(request, &mut outbox.bytes);
        self.flush(&mut outbox);
        if outbox.is_full {
            self.wake_reader();
        }
        Ok(())
    }

    /// As `send`, with what is sent next: nobody waits for it.
    fn mention(&self, request: &Request) -> Result<(), Gone> {
        let mut outbox = self.outbox.lock();
        if outbox.is_gone {
            return Err(Gone);
        }
        protocol::encode(request, &mut outbox.bytes);
        if outbox.bytes.len() > MOST_UNSENT && !outbox.is_full {
            self.flush(&mut outbox);
            if outbox.is_full {
                self.wake_reader();
            }
        }
        Ok(())
    }

    fn flush(&self, outbox: &mut Outbox) {
        while !outbox.bytes.is_empty() {
            match (&self.socket).write(&outbox.bytes) {
                Ok(count) => drop(outbox.bytes.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // If it is broken, the reader hears of it.
                Err(_) => return outbox.is_full = true,
            }
        }
        outbox.is_full = false;
    }

    fn wake_reader(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Waits until there is something to read, and meanwhile writes what did not fit.
    fn wait(&self) -> io::Result<()> {
        loop {
            let is_full = {
                let mut outbox = self.outbox.lock();
                if outbox.is_full {
                    self.flush(&mut outbox);
                }
                outbox.is_full
            };
            let interest = if is_full { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            let mut watched = [
                PollFd::from_borrowed_fd(self.socket.as_fd(), interest),
                PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN),
            ];
            match poll(&mut watched, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if !watched[1].revents().is_empty() {
                let mut count = [0_u8; 8];
                let _ = rustix::io::read(&self.wake, &mut count);
            }
            if self.is_closing.load(Ordering::Acquire) || watched[0].revents().intersects(!PollFlags::OUT) {
                return Ok(());
            }
        }
    }
}

/// The reader's thread.
fn read(line: &Line, mut decoder: Decoder, mut child: Child, notify: impl Fn(Notice)) {
    let why = listen(line, &mut decoder, &notify);
    {
        let mut outbox = line.outbox.lock();
        outbox.is_gone = true;
        outbox.bytes = Vec::new();
    }
    let _ = line.socket.shutdown(std::net::Shutdown::Both);
    if line.is_closing.load(Ordering::Acquire) {
        await_end(&mut child);
        return;
    }
    // It may only have closed its socket; a supervisor that cannot be reached must not start anything more.
    let _ = child.kill();
    let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    notify(Notice::Gone { reason: format!("{why} ({status})") });
}

fn listen(line: &Line, decoder: &mut Decoder, notify: &impl Fn(Notice)) -> String {
    let mut bytes = [0; 16 << 10];
    loop {
        loop {
            match decoder.take() {
                Ok(Some(answer)) => notify(Notice::Answer(answer)),
                Ok(None) => break,
                Err(error) => return format!("the supervisor speaks another protocol: {error}"),
            }
        }
        match (&line.socket).read(&mut bytes) {
            Ok(0) => return "the supervisor ended".to_owned(),
            Ok(count) => {
                decoder.feed(&bytes[..count]);
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return format!("the supervisor ended: {error}"),
            Err(_) => {}
        }
        if let Err(error) = line.wait() {
            return format!("the supervisor cannot be heard: {error}");
        }
        if line.is_closing.load(Ordering::Acquire) {
            return String::new();
        }
    }
}

/// Bounded: a task with a grace of an hour does not keep minflow from ending.
fn await_end(child: &mut Child) {
    let pid = Pid::from_raw(child.id() as i32);
    if let Some(Ok(process)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        let limit = Timespec { tv_sec: CLOSING_WAIT.as_secs() as i64, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit));
    }
    let _ = child.try_wait();
}
