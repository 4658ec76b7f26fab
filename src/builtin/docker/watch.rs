//! The watcher of a container: a process that does nothing until the operator is gone, and then removes the container.
//!
//! It is `minflow operator docker-end`, in a session of its own, without the mark of a try and without the try's log, so that what
//! ends a try does not end it. Its standard input is a pipe from the operator: what to watch as a line of JSON, then a line for each
//! step, and the end of the pipe when the operator is gone, however that came.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use serde::{Deserialize, Serialize};

use super::cli::Cli;
use crate::builtin::Failed;
use crate::supervisor::MARK;

/// As `minflow operator` calls it.
pub const NAME: &str = "docker-end";

/// How long the watcher may take to be ready.
const READINESS: Duration = Duration::from_secs(30);
/// How long it tries to remove a container while the engine does not answer.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long after the operator's end the engine may still make a container that it was asked for.
const LATE_CREATION: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);

const SETTLED: &str = "settled";
const OVER: &str = "over";

#[derive(Debug, Serialize, Deserialize)]
struct Watched {
    program: String,
    name: String,
}

/// The operator's end of the pipe.
pub struct Watcher {
    process: Child,
    pipe: ChildStdin,
    is_settled: bool,
}

impl Watcher {
    /// Returns when it watches.
    ///
    /// # Errors
    /// There is none, and the text says why.
    pub fn start(home: &Path, program: &str, name: &str) -> Result<Self, String> {
        let failed = |error: io::Error| format!("nobody would end the container: its watcher does not start: {error}");
        let mut command = Command::new("/proc/self/exe");
        // As the operator is called, for those who look at processes.
        command.arg0(std::env::args_os().next().unwrap_or_else(|| "minflow".into()));
        command.args(["operator", NAME, "--home"]).arg(home).env_remove(MARK).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().map_err(failed)?;
        let (pipe, ready) = (process.stdin.take(), process.stdout.take());
        let (mut pipe, mut ready) = pipe.zip(ready).expect("both were asked for");
        let watched = Watched { program: program.to_owned(), name: name.to_owned() };
        let line = serde_json::to_string(&watched).expect("texts have a form in JSON");
        writeln!(pipe, "{line}").map_err(failed)?;
        let at_most = Timespec { tv_sec: READINESS.as_secs() as i64, tv_nsec: 0 };
        let has_said = poll(&mut [PollFd::new(&ready.as_fd(), PollFlags::IN)], Some(&at_most));
        let mut said = [0];
        match has_said {
            Ok(1..) if ready.read(&mut said).is_ok_and(|count| count == 1) => {
                Ok(Self { process, pipe, is_settled: false })
            }
            _ => {
                let _ = process.kill();
                let _ = process.wait();
                Err(failed(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// The engine has answered: there is a container, or none will come.
    pub fn tell_settled(&mut self) {
        self.is_settled = true;
        // A watcher that is gone hears nothing; the next try looks for what is left.
        let _ = writeln!(self.pipe, "{SETTLED}");
    }

    /// The container may stay as it is, or is gone. One whose making was cut short may yet come, and the watcher waits for that.
    pub fn dismiss(mut self) {
        if self.is_settled && writeln!(self.pipe, "{OVER}").is_ok() {
            let _ = self.process.wait();
        }
    }
}

/// What the watcher does.
///
/// # Errors
/// `input` names nothing to watch, or the container could not be removed.
pub fn run(input: impl Read) -> Result<(), Failed> {
    let mut lines = BufReader::new(input).lines();
    let first = lines.next().and_then(Result::ok).unwrap_or_default();
    let watched: Watched = serde_json::from_str(&first)
        .map_err(|error| Failed(format!("nothing to watch ({error}); minflow starts this command by itself")))?;
    // It fails for a group's leader, which it is not.
    let _ = rustix::process::setsid();
    io::stdout().write_all(b"\n").and_then(|()| io::stdout().flush()).map_err(|error| Failed(error.to_string()))?;
    let mut is_settled = false;
    for line in lines.map_while(Result::ok) {
        match &*line {
            SETTLED => is_settled = true,
            OVER => return Ok(()),
            _ => {}
        }
    }
    remove(&watched, is_settled)
}

fn remove(watched: &Watched, is_settled: bool) -> Result<(), Failed> {
    let cli = Cli::new(&watched.program, None);
    let began_at = Instant::now();
    loop {
        match cli.remove(&watched.name) {
            Ok(()) if is_settled || began_at.elapsed() > LATE_CREATION => return Ok(()),
            Err(said) if began_at.elapsed() > PATIENCE => return Err(Failed(said)),
            _ => std::thread::sleep(PAUSE),
        }
    }
}
