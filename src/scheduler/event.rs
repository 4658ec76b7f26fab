//! What can happen to the scheduler.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use jiff::Timestamp;
use serde_json::Value;

use crate::diagnostic::Diagnostic;
pub use crate::model::SkipDecision;
use crate::model::{AssetKey, OutletEvent, SettledFile};
use crate::model::{Dag, Exceeded, ProcessIdentity, RunRequest, TryKey, Usage, Wait};
use crate::scheduler::admission::HostReading;
use crate::scheduler::command::{Command, Reply};
use crate::scheduler::port::ReplyTo;
use crate::scheduler::world::Settings;

/// The way to the loop, from all threads.
pub type EventSender = mpsc::Sender<Event>;

/// The loop's end of it.
pub type EventReceiver = mpsc::Receiver<Event>;

/// A way to the loop that never fills. It is the standard library's, since who waits there sleeps at once: a receiver of crossbeam's
/// gives its time slice away four times before, and where tasks keep the host busy each of them lasts for milliseconds.
pub fn channel() -> (EventSender, EventReceiver) {
    mpsc::channel()
}

/// One thing that happened. The loop drains all that have come and makes one turn of them.
#[derive(Debug)]
pub enum Event {
    /// Files under `dags/` that are new, changed or gone. The first scan tells its files in pieces, so that their DAGs go live
    /// while the rest is read. `complete` ends it: all the files there are have been told, so that one which only the database
    /// knows is gone.
    DagFiles {
        files: Vec<DagFile>,
        complete: bool,
    },
    /// The first look at the dags folder is over, whatever it could not see: what is known may be acted upon.
    Scanned,
    Command {
        command: Command,
        reply: ReplyTo<Reply>,
    },
    /// The supervisor has started the process of a try.
    Started(Attempt),
    /// Of the tries that an earlier minflow had left under way these are not lost.
    Adopted(Vec<Adopted>),
    /// A try is over, or never began.
    Ended(Box<TryEnd>),
    /// A try of a callback is over, or never began.
    Called(Box<CallEnd>),
    /// Files of an asset have settled, or those that had are gone.
    Files {
        asset: AssetKey,
        files: Vec<SettledFile>,
        gone: Vec<PathBuf>,
    },
    /// The triggerer has found what the instance of a try waits for.
    Fired {
        key: TryKey,
        verdict: Verdict,
    },
    /// Looks have been made for deferred instances; each ends its try, or is `Deferred` again.
    Looked(Vec<TryEnd>),
    /// The configuration was read again.
    Reconfigured(Box<Reconfigured>),
    /// It was read again and has faults: what was read before goes on.
    ConfigurationFaults {
        file: String,
        faults: Vec<Diagnostic>,
    },
    /// Somebody wants to know whether the loop is alive; it is answered at once.
    Probe(ReplyTo<()>),
    /// The host as it is now, since the loop asked.
    Host(Box<HostReading>),
    /// A deadline that was armed has come.
    Tick,
    /// The wall clock was set.
    ClockJumped,
}

/// What the configuration says now.
#[derive(Clone, Debug)]
pub struct Reconfigured {
    pub settings: Settings,
    /// Where it stands.
    pub file: String,
    /// The names of what has changed.
    pub changed: Vec<String>,
}

/// What came of looking for what an instance waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is there, and this is its value.
    There(Value),
    /// It cannot be looked for; another try may.
    Failed { reason: String },
}

/// A file under `dags/`.
#[derive(Clone, Debug)]
pub struct DagFile {
    /// Relative to the dags folder.
    pub path: PathBuf,
    /// Null when it is gone, or nobody can tell.
    pub modified_at: Option<Timestamp>,
    pub found: Found,
}

/// What a DAG file holds.
#[derive(Clone, Debug)]
pub enum Found {
    Parsed {
        dag: Arc<Dag>,
        /// The text of the file: kept with the version, so that a run can go on when the file is gone or broken.
        source: Arc<str>,
        /// Of `source`, in hexadecimal: equal hashes are the same definition.
        hash: Arc<str>,
    },
    Broken(Vec<Diagnostic>),
    Gone,
}

/// A try that has begun.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    pub key: TryKey,
    pub process: ProcessIdentity,
    pub started_at: Timestamp,
}

/// A try that an earlier minflow had begun.
#[derive(Clone, Debug, PartialEq)]
pub enum Adopted {
    /// It goes on. None: its process is just being made, or has just ended.
    Runs(TryKey, Option<Attempt>),
    /// It has ended meanwhile, and its end follows.
    Over(TryKey),
}

/// How a try ended. One event carries all that is committed with the end.
#[derive(Clone, Debug, PartialEq)]
pub struct TryEnd {
    pub key: TryKey,
    pub outcome: Outcome,
    /// When its process began; null if none did.
    pub started_at: Option<Timestamp>,
    pub ended_at: Timestamp,
    pub usage: Option<Usage>,
    /// XComs in the order in which they were pushed; `return_value` among them. Empty unless it succeeded or was skipped.
    pub xcoms: Vec<(String, Value)>,
    /// Those of its XComs that are too large for the database.
    pub large: Vec<LargeXcom>,
    /// What it said of its failure, where that is more than its outcome tells.
    pub reason: Option<String>,
    /// Whether it said that another try would come to the same: none follows, whatever its task's `retries`.
    pub is_final: bool,
    /// Those `output` patterns of its task's `retry_on` that its last output matches. Empty unless it failed.
    pub matched: Vec<String>,
    /// Which of the tasks after it run, if it is a task that decides so and it has succeeded.
    pub decision: Option<SkipDecision>,
    /// What it says of the events of its outlets.
    pub outlet_events: Vec<OutletEvent>,
    /// How many elements those of its XComs have, by key, that tasks after it are mapped over.
    pub lengths: Vec<(String, u32)>,
    /// What its task's `map_index_template` gives.
    pub rendered_map_index: Option<Arc<str>>,
}

/// How a try of a callback ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallEnd {
    /// [`CallbackRow::try_key`](crate::model::CallbackRow::try_key).
    pub key: TryKey,
    pub outcome: CallOutcome,
    pub ended_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    Done,
    /// It counts as a try.
    Failed {
        reason: String,
    },
    /// It could not be started, or minflow has ended it: it does not count, and is made again.
    CutOff {
        reason: String,
    },
}

/// An XCom whose value lies in a file, as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargeXcom {
    pub key: String,
    /// Absolute.
    pub path: PathBuf,
}

impl TryEnd {
    /// An end that leaves nothing behind.
    pub fn new(key: TryKey, outcome: Outcome, ended_at: Timestamp) -> Self {
        Self {
            key,
            outcome,
            started_at: None,
            ended_at,
            usage: None,
            xcoms: Vec::new(),
            large: Vec::new(),
            reason: None,
            is_final: false,
            matched: Vec::new(),
            decision: None,
            outlet_events: Vec::new(),
            lengths: Vec::new(),
            rendered_map_index: None,
        }
    }
}

/// The way in which a try ended, before the retry rule has spoken.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Exited(i32),
    Signaled(i32),
    /// Its `execution_timeout` passed.
    TimedOut,
    /// It came to one of its limits. What its process said of it: mostly a signal.
    Exceeded {
        limit: Exceeded,
        exit_code: Option<i32>,
        signal: Option<i32>,
    },
    /// It was ended at our wish, e.g. `stopped`; a run that is over has marked its instances itself.
    Killed {
        reason: String,
    },
    /// All that it does is to ask for a run, which the loop makes.
    Asks(Box<RunRequest>),
    /// It failed outside its process: a template's error, a missing interpreter, an output that is not JSON, too large an XCom.
    Faulted {
        reason: String,
    },
    /// It is not to run, though its dependencies let it: the filter of its mapping refuses its element.
    Skipped {
        reason: String,
    },
    /// It failed, and another try would fail as well: a sensor has waited for as long as it may.
    GivenUp {
        reason: String,
    },
    /// It is not over: it has given up its slots and goes on when this has come.
    Deferred(Box<Wait>),
    /// Nothing was started, and nothing is wrong with the task: no processes, memory or descriptors left. It waits and is tried again.
    Unstarted {
        reason: String,
    },
    /// It was handed over by an earlier minflow, and no supervisor has begun it: it is as if it had not been started yet.
    NeverBegun,
    /// Nobody knows how it ended: scheduler and supervisor were gone. What still lived of it has been ended.
    Lost,
}
