//! The scheduler's end of the supervisor's socket. Sending never blocks; what comes back is handed to one callback.
//!
//! Knows the protocol and nothing of tasks. The executor calls it through [`Supervise`], so that tests can put a fake there.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::Timespec;

use crate::model::TryKey;
use crate::supervisor::cgroup;
use crate::supervisor::protocol::{self, Answer, Decoder, Request, Start};

/// Longer than a supervisor waits for an earlier one to let go of the home.
const GREETING_WAIT: Duration = Duration::from_secs(15);
/// How many bytes that nobody waits for are kept until something else is sent.
const MOST_UNSENT: usize = 4 << 10;
/// How many bytes of an empty buffer are kept.
const MOST_KEPT: usize = 64 << 10;
/// How long a closed supervisor is awaited: it ends what it still has first.
const CLOSING_WAIT: Duration = Duration::from_secs(10);

/// Runs processes. No call blocks; answers come as [`Notice`]s.
pub trait Supervise: Send + Sync {
    /// In this order.
    ///
    /// # Errors
    /// The supervisor is gone; none of them was or will be started.
    fn start(&self, starts: Vec<Start>) -> Result<(), Gone>;
    /// Ends a try; one that is over is left alone. `immediate`: without kill signal and grace.
    fn kill(&self, key: TryKey, reason: &str, force: crate::scheduler::port::Force);
    /// Stops the processes of a try and its timeout.
    fn pause(&self, key: TryKey);
    /// Has them go on.
    fn resume(&self, key: TryKey);
    /// These ends are recorded.
    fn acknowledge(&self, keys: &[TryKey]);
    /// It is about to be dropped while it has tries that it keeps for the next scheduler: nobody waits for its end.
    fn leave(&self) {}
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
    /// All that has come was told.
    Quiet,
    /// It ended without being asked to. Nothing comes after this.
    Gone {
        reason: String,
    },
}

/// With what a supervisor is spawned.
#[derive(Clone, Debug)]
pub struct Origin {
    /// This binary.
    pub exe: PathBuf,
    pub home: PathBuf,
    /// `core.cgroup`: a folder, or `off`; None: what was delegated to minflow.
    pub cgroup: Option<String>,
    pub tasks: Tasks,
}

/// What becomes of tasks that run when their scheduler goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tasks {
    /// The supervisor ends them.
    EndWithIt,
    /// The supervisor keeps them for the next scheduler.
    OutliveIt,
}

/// A supervisor that was spawned and not greeted yet.
#[derive(Debug)]
pub struct SupervisorHandle {
    origin: Origin,
    socket: UnixStream,
    child: Child,
}

impl SupervisorHandle {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// To spawn another.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// Spawns a supervisor for a home. To be called before threads, sockets and locks exist: a small parent is cheap to copy, and
/// what is not there cannot be inherited.
///
/// # Errors
/// The binary cannot be executed, or the host lacks processes or descriptors.
pub fn spawn(origin: &Origin) -> io::Result<SupervisorHandle> {
    let home = std::path::absolute(&origin.home)?;
    let (ours, theirs) = UnixStream::pair()?;
    let child = Command::new(program(origin))
        .arg0(&origin.exe)
        .arg("supervise")
        .arg("--home")
        .arg(&home)
        .envs(origin.cgroup.as_ref().map(|cgroup| (cgroup::VARIABLE, cgroup)))
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()?;
    Ok(SupervisorHandle { origin: Origin { home, ..origin.clone() }, socket: ours, child })
}

/// The binary, or what runs now if that has been removed or replaced since: another might speak another version.
fn program(origin: &Origin) -> &Path {
    match std::env::current_exe() {
        Ok(path) if !path.exists() => Path::new("/proc/self/exe"),
        _ => &origin.exe,
    }
}

/// A connected supervisor. Dropping it closes the socket: the supervisor then ends what it still runs, unless it is to keep that, and
/// itself.
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
    /// The socket did not take all: the reader goes on when it has room.
    is_full: AtomicBool,
    is_closing: AtomicBool,
    /// It keeps its tries, and is not waited for.
    is_left: AtomicBool,
}

#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    /// An empty buffer, for what comes while `bytes` are written.
    spare: Vec<u8>,
    /// Somebody writes, outside of the lock, and goes on until nothing is left.
    is_writing: bool,
    is_gone: bool,
}

impl SupervisorClient {
    /// Greets the supervisor, and has `notify` called for all that it tells, from one thread.
    ///
    /// # Errors
    /// It does not answer, speaks another version, or an earlier supervisor of the home does not let go.
    pub fn connect(handle: SupervisorHandle, notify: impl Fn(Notice) + Send + 'static) -> io::Result<Self> {
        let SupervisorHandle { socket, mut child, origin } = handle;
        let mut decoder = Decoder::default();
        if let Err(error) = greet(&socket, origin.tasks, &mut decoder) {
            // Its end of the socket closes with ours, and it ends by itself.
            drop(socket);
            let _ = child.wait();
            return Err(error);
        }
        socket.set_read_timeout(None)?;
        socket.set_nonblocking(true)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let line = Line {
            socket,
            wake,
            outbox: Mutex::default(),
            is_full: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            is_left: AtomicBool::new(false),
        };
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
    fn start(&self, starts: Vec<Start>) -> Result<(), Gone> {
        self.line.send(starts.into_iter().map(|start| Request::Start(Box::new(start))))
    }

    fn kill(&self, key: TryKey, reason: &str, force: crate::scheduler::port::Force) {
        let immediate = force == crate::scheduler::port::Force::Immediate;
        // If it is gone, its tries are ended by whoever hears of that.
        let _ = self.line.send([Request::Kill { key, reason: reason.to_owned(), immediate }]);
    }

    fn pause(&self, key: TryKey) {
        // If it is gone, so is what was to stand still.
        let _ = self.line.send([Request::Pause { key }]);
    }

    fn resume(&self, key: TryKey) {
        // As above.
        let _ = self.line.send([Request::Resume { key }]);
    }

    fn acknowledge(&self, keys: &[TryKey]) {
        // If it is gone, it remembers nothing any more.
        let _ = self.line.mention(&Request::Acknowledge { keys: keys.to_vec() });
    }

    fn leave(&self) {
        self.line.is_left.store(true, Ordering::Release);
    }
}

impl Drop for SupervisorClient {
    fn drop(&mut self) {
        // What was only mentioned is said: else the supervisor would keep for the next scheduler what is recorded.
        if !self.line.is_full.load(Ordering::Acquire) {
            self.line.flush(self.line.outbox.lock());
        }
        self.line.is_closing.store(true, Ordering::Release);
        self.line.wake_reader();
        if let Some(reader) = self.reader.take()
            && reader.thread().id() != std::thread::current().id()
        {
            let _ = reader.join();
        }
    }
}

/// Why a supervisor does not begin, and what to do: `what; help`.
#[derive(Debug)]
pub struct Refusal(String);

impl Refusal {
    /// What is wrong, and what helps.
    pub fn parts(&self) -> (&str, &str) {
        self.0.split_once("; ").unwrap_or((&self.0, "start minflow again; if that does not help, please report it"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

fn greet(mut socket: &UnixStream, tasks: Tasks, decoder: &mut Decoder) -> io::Result<()> {
    let mut hello = Vec::new();
    if tasks == Tasks::OutliveIt {
        protocol::encode(&Request::Outlive, &mut hello);
    }
    protocol::encode(&Request::Hello { version: protocol::VERSION }, &mut hello);
    socket.write_all(&hello)?;
    socket.set_read_timeout(Some(GREETING_WAIT))?;
    let mut bytes = [0; 4096];
    loop {
        match decoder.take()? {
            Some(Answer::Hello { .. }) => return Ok(()),
            Some(Answer::Refused { message }) => return Err(io::Error::other(Refusal(message))),
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
    fn send(&self, requests: impl IntoIterator<Item = Request>) -> Result<(), Gone> {
        let mut outbox = self.outbox.lock();
        if outbox.is_gone {
            return Err(Gone);
        }
        requests.into_iter().for_each(|request| protocol::encode(&request, &mut outbox.bytes));
        if !self.is_full.load(Ordering::Acquire) {
            self.flush(outbox);
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
        if outbox.bytes.len() > MOST_UNSENT && !self.is_full.load(Ordering::Acquire) {
            self.flush(outbox);
        }
        Ok(())
    }

    /// Writes what there is, unless somebody does already. The lock is not held while the kernel works.
    fn flush(&self, mut outbox: MutexGuard<'_, Outbox>) {
        if outbox.is_writing {
            return;
        }
        outbox.is_writing = true;
        while !outbox.bytes.is_empty() {
            let spare = std::mem::take(&mut outbox.spare);
            let mut bytes = std::mem::replace(&mut outbox.bytes, spare);
            let taken = MutexGuard::unlocked(&mut outbox, || self.write(&bytes));
            bytes.drain(..taken);
            if !bytes.is_empty() {
                bytes.append(&mut outbox.bytes);
                outbox.bytes = bytes;
                outbox.is_writing = false;
                self.is_full.store(true, Ordering::Release);
                return self.wake_reader();
            }
            // A burst's buffer is not kept.
            outbox.spare = if bytes.capacity() > MOST_KEPT { Vec::new() } else { bytes };
        }
        outbox.is_writing = false;
        self.is_full.store(false, Ordering::Release);
    }

    /// How many bytes the socket has taken: fewer than all where it is full or broken, of which the reader hears.
    fn write(&self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            match (&self.socket).write(&bytes[taken..]) {
                Ok(count) => taken += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        taken
    }

    fn wake_reader(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Waits until there is something to read, and meanwhile writes what did not fit.
    fn wait(&self) -> io::Result<()> {
        loop {
            if self.is_full.load(Ordering::Acquire) {
                self.flush(self.outbox.lock());
            }
            let interest =
                if self.is_full.load(Ordering::Acquire) { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
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
        if !line.is_left.load(Ordering::Acquire) {
            await_end(&mut child);
        }
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
        let mut has_told = false;
        loop {
            match decoder.take() {
                Ok(Some(answer)) => {
                    notify(Notice::Answer(answer));
                    has_told = true;
                }
                Ok(None) => break,
                Err(error) => return format!("the supervisor speaks another protocol: {error}"),
            }
        }
        if has_told {
            notify(Notice::Quiet);
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
