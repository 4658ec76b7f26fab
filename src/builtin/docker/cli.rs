//! The docker command: asked for one thing at a time, each within its time.
//!
//! What it starts is not in the task's process group, whose signals are answered by the operator alone, bears no mark of a try, and
//! ends with the thread that has started it.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::Timespec;

use super::shortened;
use crate::supervisor::{MARK, sys};

/// How much of an answer is looked at.
const MAX_ANSWER: u64 = 1 << 20;
/// How long a removal is tried again that another one is in the way of, and how often.
const REMOVAL: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

pub struct Cli {
    program: String,
    /// Readable when a signal has come that is heeded.
    signals: Option<OwnedFd>,
}

/// Whether a signal ends the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heeds {
    Signals,
    Nothing,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Stopped {
    Signal(i32),
    /// Its time was over.
    Late(String),
    Unstarted(String),
}

/// What it has said.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub is_well: bool,
    pub out: String,
    pub err: String,
}

impl Answer {
    /// What it said of its failure, in one line.
    pub fn reason(&self) -> String {
        let lines = self.err.lines().map(str::trim).filter(|line| !line.is_empty());
        // Where to read about the command is no reason.
        let lines: Vec<&str> = lines.filter(|line| !line.contains("--help")).collect();
        if lines.is_empty() { "it does not say why".to_owned() } else { shortened(&lines.join(" ")) }
    }
}

impl Cli {
    pub fn new(program: &str, signals: Option<OwnedFd>) -> Self {
        Self { program: program.to_owned(), signals }
    }

    /// A command that is not started yet, without standard input.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).env_remove(MARK).stdin(Stdio::null()).process_group(0);
        sys::end_with_this_thread(&mut command);
        command
    }

    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, mut command: Command) -> Result<Child, Stopped> {
        command.spawn().map_err(|error| Stopped::Unstarted(format!("`{}` cannot be started: {error}", self.program)))
    }

    /// Asks, and ends the command if it takes longer.
    ///
    /// # Errors
    /// A signal came, or the time was over.
    pub fn ask(&self, words: &[&str], at_most: Duration, heeds: Heeds) -> Result<Answer, Stopped> {
        self.hear(self.command(words), words[0], at_most, heeds)
    }

    /// The same, with what it says beside errors on standard output.
    ///
    /// # Errors
    /// As [`Cli::ask`].
    pub fn ask_aloud(&self, words: &[&str], at_most: Duration, heeds: Heeds) -> Result<Answer, Stopped> {
        let err = answer_file()?;
        let mut command = self.command(words);
        command.stdout(Stdio::inherit()).stderr(copy(&err)?);
        let is_well = self.complete(command, words[0], at_most, heeds)?;
        Ok(Answer { is_well, out: String::new(), err: read(err)? })
    }

    /// Runs a command of [`Cli::command`] to its end; `verb` is what messages call it.
    ///
    /// # Errors
    /// As [`Cli::ask`].
    pub fn hear(&self, mut command: Command, verb: &str, at_most: Duration, heeds: Heeds) -> Result<Answer, Stopped> {
        let (out, err) = (answer_file()?, answer_file()?);
        command.stdout(copy(&out)?).stderr(copy(&err)?);
        let is_well = self.complete(command, verb, at_most, heeds)?;
        Ok(Answer { is_well, out: read(out)?, err: read(err)? })
    }

    fn complete(&self, command: Command, verb: &str, at_most: Duration, heeds: Heeds) -> Result<bool, Stopped> {
        let mut child = self.spawn(command)?;
        let ended = self.await_end(&mut child, Some(Instant::now() + at_most), heeds);
        if ended.is_err() {
            end(&mut child);
        }
        match ended {
            Ok(status) => Ok(status.success()),
            Err(Stopped::Late(_)) => Err(Stopped::Late(format!(
                "`docker {verb}` was not done within {} s: look at the engine (`docker info`), and at its disk and network",
                at_most.as_secs_f64()
            ))),
            Err(stopped) => Err(stopped),
        }
    }

    /// # Errors
    /// A signal came, or it is late. The child goes on then.
    pub fn await_end(&self, child: &mut Child, until: Option<Instant>, heeds: Heeds) -> Result<ExitStatus, Stopped> {
        let of_kernel = |error: io::Error| Stopped::Unstarted(format!("`docker` cannot be awaited: {error}"));
        let pid = Pid::from_child(child);
        let handle = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| of_kernel(errno.into()))?;
        let signals = self.signals.as_ref().filter(|_| heeds == Heeds::Signals);
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let left =
                left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
            let mut watched = vec![PollFd::new(&handle, PollFlags::IN)];
            watched.extend(signals.map(|signals| PollFd::new(signals, PollFlags::IN)));
            match poll(&mut watched, left.as_ref()) {
                Ok(0) => return Err(Stopped::Late(String::new())),
                Ok(_) if !watched[0].revents().is_empty() => return child.wait().map_err(of_kernel),
                Ok(_) => {
                    let mut record = [0; sys::SIGNAL_RECORD];
                    let read = signals.map(|signals| rustix::io::read(signals, &mut record));
                    if matches!(read, Some(Ok(count)) if count >= 4) {
                        let number = i32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
                        return Err(Stopped::Signal(number));
                    }
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(of_kernel(errno.into())),
            }
        }
    }

    /// Ends the container and takes it away; one that is not there is gone as well.
    ///
    /// # Errors
    /// What the engine says, or that it says nothing.
    pub fn remove(&self, name: &str) -> Result<(), String> {
        let deadline = Instant::now() + REMOVAL;
        loop {
            let words = ["rm", "--force", "--volumes", name];
            let said = match self.ask(&words, REMOVAL, Heeds::Nothing) {
                Ok(answer) if answer.is_well || answer.err.contains("No such container") => return Ok(()),
                Ok(answer) => answer.reason(),
                Err(Stopped::Late(said) | Stopped::Unstarted(said)) => said,
                Err(Stopped::Signal(_)) => continue,
            };
            if !said.contains("in progress") || Instant::now() > deadline {
                return Err(said);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// With all that it has started.
fn end(child: &mut Child) {
    // It leads its group, and has not been awaited: the number is its own.
    let _ = sys::kill(-(child.id() as i32), libc::SIGKILL);
    let _ = child.kill();
    let _ = child.wait();
}

fn answer_file() -> Result<File, Stopped> {
    let made = memfd_create(c"answer", MemfdFlags::CLOEXEC);
    made.map(File::from).map_err(|errno| Stopped::Unstarted(format!("no memory for an answer: {errno}")))
}

fn copy(file: &File) -> Result<File, Stopped> {
    file.try_clone().map_err(|error| Stopped::Unstarted(format!("no descriptor for an answer: {error}")))
}

fn read(mut file: File) -> Result<String, Stopped> {
    let mut bytes = Vec::new();
    let read = file.rewind().and_then(|()| file.take(MAX_ANSWER).read_to_end(&mut bytes));
    read.map_err(|error| Stopped::Unstarted(format!("an answer cannot be read: {error}")))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
