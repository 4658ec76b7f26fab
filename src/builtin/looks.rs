//! The process that makes the looks of `http` and `sql` sensors: many of them, one after the other and at the same time.
//!
//! A process of its own, so that no answer of a server and no query of a user can reach minflow itself: what hangs or takes too much
//! memory is ended with it. Each line on its standard input, which is a socket, is an [`Asked`], each line that it writes there a
//! [`Seen`]. It ends when the other side does. The executor starts it when it is needed.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
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
    let (give, asked) = unbounded::<Asked>();
    let crew = Arc::new(Crew { asked, idle: AtomicUsize::new(0), answers });
    let mut threads = 0;
    for line in BufReader::new(socket).lines() {
        let Ok(line) = line else { break };
        let Ok(asked) = serde_json::from_str::<Asked>(&line) else {
            return Err(Failed("what was asked cannot be read; minflow starts this command by itself".to_owned()));
        };
        if crew.idle.load(Ordering::Acquire) == 0 && threads < AT_ONCE {
            let crew = crew.clone();
            let thread = std::thread::Builder::new().name(format!("look-{threads}")).stack_size(STACK_BYTES);
            // Without another thread, those that there are do it later.
            threads += usize::from(thread.spawn(move || crew.work()).is_ok());
        }
        if threads == 0 {
            return Err(Failed("the host has no threads left; raise the limit (ulimit -u)".to_owned()));
        }
        let _ = Sender::send(&give, asked);
    }
    // Nobody is left to be told of what is still under way.
    std::process::exit(0)
}

struct Crew {
    asked: Receiver<Asked>,
    /// Threads that wait for something to do, less what has been given and not begun.
    idle: AtomicUsize,
    answers: Mutex<UnixStream>,
}

impl Crew {
    fn work(&self) {
        loop {
            self.idle.fetch_add(1, Ordering::AcqRel);
            let next = self.asked.recv();
            self.idle.fetch_sub(1, Ordering::AcqRel);
            let Ok(asked) = next else { return };
            let mut line = serde_json::to_vec(&look(&asked)).expect("texts and values have a form in JSON");
            line.push(b'\n');
            // Who asked may be gone.
            let _ = self.answers.lock().write_all(&line);
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
