//! The process that makes the looks of `http` and `sql` sensors: many of them, one after the other and at the same time.
//!
//! A process of its own, so that no answer of a server and no query of a user can reach minflow itself: what hangs or takes too much
//! memory is ended with it. Each line on its standard input, which is a socket, is an [`Asked`], each line that it writes there a
//! [`Seen`]. It ends when the other side does. The executor starts it when it is needed.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::builtin::http::task::HttpTask;
use crate::builtin::sql::SqlTask;
use crate::builtin::{Failed, Finality, Verdict, Voice, http, sql};

/// The name under which `minflow operator` knows it.
pub const NAME: &str = "looks";
/// At most so many looks are under way.
pub const AT_ONCE: usize = 64;
/// What it may take of memory; a look that wants more ends it, and is told so.
const MAX_BYTES: u64 = 1 << 30;
/// The body of a look may be an expression that recurses.
const STACK_BYTES: usize = 1 << 20;
/// While looks wait for a thread, or what was seen to be told, one looks so often whether that goes on.
const TICK: Duration = Duration::from_millis(10);
/// So long a thread waits for something to do before it ends: its stack is memory.
const IDLE: Duration = Duration::from_secs(10);
/// How long a query may take that has no `timeout` of its own.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);

/// One look; all of it is rendered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Looking {
    Http(Box<HttpTask>),
    Sql(Box<SqlTask>),
}

impl Looking {
    /// A query without an end would keep its place for good.
    pub fn sql(task: SqlTask) -> Self {
        Self::Sql(Box::new(SqlTask { timeout: Some(task.timeout.unwrap_or(QUERY_TIMEOUT)), ..task }))
    }

    /// Within which it comes back by itself.
    pub fn bound(&self) -> Duration {
        match self {
            Self::Http(task) => task.request.timeout,
            Self::Sql(task) => task.timeout.unwrap_or(QUERY_TIMEOUT),
        }
    }

    /// Of a failure, what the log tells of it and what its end does.
    fn make(&self, voice: &Voice) -> Result<Option<Value>, (Failed, Verdict)> {
        match self {
            Self::Http(task) => http::task::ask(task, voice).map_err(|(failed, finality)| {
                let verdict = Verdict::failed(failed.0.clone(), finality);
                (failed, verdict)
            }),
            Self::Sql(task) => sql::perform(task, voice, |_| Ok(())).map_err(|failed| {
                let verdict = Verdict::failed(sql::reason(&failed), Finality::Open);
                (failed, verdict)
            }),
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    pub id: u64,
    pub looking: Looking,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub id: u64,
    /// For the log: lines, each with its end.
    pub said: String,
    pub answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// As the operator's value is.
    Found(Option<Value>),
    /// It could not look.
    Failed(Verdict),
}

/// Serves until the other side ends.
///
/// # Errors
/// Standard input is no socket.
pub fn serve() -> Result<(), Failed> {
    let wrong = |error: io::Error| Failed(format!("standard input is no socket of minflow's: {error}"));
    // A test under a tighter limit keeps it.
    let _ = setrlimit(Resource::Data, Rlimit { current: Some(MAX_BYTES), maximum: Some(MAX_BYTES) });
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().map_err(wrong)?);
    let answers = Mutex::new(socket.try_clone().map_err(wrong)?);
    let crew = Arc::new(Crew { state: Mutex::default(), answers });
    let mut lines = BufReader::new(socket);
    let (mut line, mut batch) = (String::new(), Vec::new());
    let (mut is_behind, mut ticked_at) = (false, Instant::now());
    loop {
        if !lines.buffer().contains(&b'\n') {
            crew.give(std::mem::take(&mut batch))?;
            is_behind = crew.is_behind();
            let has_waited = is_behind && !is_readable(lines.get_ref());
            if has_waited || (is_behind && ticked_at.elapsed() > TICK) {
                crew.tick()?;
                ticked_at = Instant::now();
            }
            if has_waited {
                continue;
            }
        }
        line.clear();
        if !lines.read_line(&mut line).is_ok_and(|count| count > 0) {
            // Nobody is left to be told of what is still under way.
            std::process::exit(0)
        }
        if !is_behind {
            ticked_at = Instant::now();
        }
        batch.push(
            serde_json::from_str(&line).map_err(|_| {
                Failed("what was asked cannot be read; minflow starts this command by itself".to_owned())
            })?,
        );
    }
}

/// Whether something has come before the next tick.
fn is_readable(socket: &UnixStream) -> bool {
    let timeout = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
    // If the kernel cannot say it, reading does.
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout)).map_or(true, |count| count > 0)
}

/// The threads that look. A quick service is asked by one of them alone, whatever is due together; while looks wait, their number doubles
/// with each tick.
struct Crew {
    state: Mutex<State>,
    answers: Mutex<UnixStream>,
}

#[derive(Default)]
struct State {
    asked: VecDeque<Asked>,
    /// Lines that are to be written. Several are one write, which wakes minflow once.
    seen: Vec<u8>,
    threads: usize,
    /// Of the threads, those that were woken or started and have not looked at what is asked.
    waking: usize,
    /// Those that wait to be woken; the last one was busy last.
    idle: Vec<Thread>,
}

impl Crew {
    fn give(self: &Arc<Self>, batch: Vec<Asked>) -> Result<(), Failed> {
        let mut state = self.state.lock();
        state.asked.extend(batch);
        if !state.asked.is_empty() && state.threads == state.idle.len() { self.add(&mut state, 1) } else { Ok(()) }
    }

    /// Something waits for a thread to be free, or for one to say what it has seen.
    fn is_behind(&self) -> bool {
        let state = self.state.lock();
        state.asked.len() > state.waking || !state.seen.is_empty()
    }

    fn tick(self: &Arc<Self>) -> Result<(), Failed> {
        let mut state = self.state.lock();
        let busy = state.threads - state.idle.len();
        let wanted = state.asked.len().min(busy.max(1));
        self.add(&mut state, wanted)?;
        self.tell(state);
        Ok(())
    }

    /// Has so many more threads look at what is asked, so far as there may be more.
    fn add(self: &Arc<Self>, state: &mut State, count: usize) -> Result<(), Failed> {
        for _ in 0..count {
            if let Some(idle) = state.idle.pop() {
                idle.unpark();
                state.waking += 1;
            } else if state.threads < AT_ONCE {
                let crew = self.clone();
                let thread = std::thread::Builder::new().name("look".to_owned()).stack_size(STACK_BYTES);
                // Without another thread, those that there are do it later.
                let started = usize::from(thread.spawn(move || crew.work()).is_ok());
                state.threads += started;
                state.waking += started;
            }
        }
        match state.threads {
            0 if count > 0 => Err(Failed("the host has no threads left; raise the limit (ulimit -u)".to_owned())),
            _ => Ok(()),
        }
    }

    fn work(&self) {
        let own = std::thread::current();
        let mut state = self.state.lock();
        state.waking -= 1;
        loop {
            if let Some(asked) = state.asked.pop_front() {
                drop(state);
                let mut line = serde_json::to_vec(&look(&asked)).expect("texts and values have a form in JSON");
                line.push(b'\n');
                state = self.state.lock();
                state.seen.append(&mut line);
                continue;
            }
            // Who has taken the last look may be long at it.
            if !state.seen.is_empty() {
                self.tell(state);
                state = self.state.lock();
                continue;
            }
            state.idle.push(own.clone());
            drop(state);
            std::thread::park_timeout(IDLE);
            state = self.state.lock();
            // Nobody has woken it.
            if let Some(at) = state.idle.iter().position(|idle| idle.id() == own.id()) {
                state.idle.remove(at);
                state.threads -= 1;
                return;
            }
            state.waking -= 1;
        }
    }

    /// Writes what has been seen by now.
    fn tell(&self, mut state: MutexGuard<'_, State>) {
        let lines = std::mem::take(&mut state.seen);
        drop(state);
        if !lines.is_empty() {
            // Who asked may be gone.
            let _ = self.answers.lock().write_all(&lines);
        }
    }
}

fn look(asked: &Asked) -> Seen {
    let voice = Voice::kept();
    let made = catch_unwind(AssertUnwindSafe(|| asked.looking.make(&voice))).unwrap_or_else(|_| {
        let message = "minflow failed on this look, which is a fault of minflow: please report it".to_owned();
        Err((Failed(message.clone()), Verdict::failed(message, Finality::Open)))
    });
    let mut said = voice.into_said();
    let answer = match made {
        Ok(value) => Answer::Found(value),
        Err((failed, verdict)) => {
            said.push_str(&format!("{failed}\n"));
            Answer::Failed(verdict)
        }
    };
    Seen { id: asked.id, said, answer }
}
