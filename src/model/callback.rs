//! Callbacks: what users want done when a task or a run comes to something, and each one that is to be done, as it is stored.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::dag::{Position, Template};
use crate::model::ids::{CallbackKey, DagId, InstanceKey, RunKey, TaskId, TryKey};
use crate::model::state::named;

/// How long a callback may take unless it, or its notifier, says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

named!(
    /// To what a callback belongs.
    Hook {
        OnExecute = "on_execute",
        OnSuccess = "on_success",
        /// Of a task: no try is left.
        OnFailure = "on_failure",
        OnRetry = "on_retry",
        /// The task itself said so.
        OnSkipped = "on_skipped",
        Deadline = "deadline",
        ExpectBy = "expect_by",
    }
);

named!(
    /// How far a callback has come.
    CallbackState {
        /// It waits for its turn, or to be tried again.
        Queued = "queued",
        Running = "running",
        Success = "success",
        /// It is not tried again.
        Failed = "failed",
    }
);

/// One entry of `on_failure = [ … ]` and its like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Callback {
    pub action: Action,
    pub when: When,
    /// None: the notifier's, else [`DEFAULT_TIMEOUT`].
    pub timeout: Option<Duration>,
    /// The file that its templates stand in; None: the DAG file.
    pub file: Option<Arc<str>>,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    Bash(Template),
    /// The keys of a request, whose texts are templates; they stand at the position.
    Http(Map<String, Value>, Position),
    /// A notifier of airflow.toml.
    Notify(Arc<str>),
}

/// At which of the ends it is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    #[default]
    Every,
    /// Of a failure: the run before, or the task in the run before, had not failed.
    First,
    /// Of a success: the one before had failed.
    Recovered,
    /// Of a failure: it is the one that makes so many runs in a row fail.
    InARow(u32),
}

/// The callbacks of a task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskCallbacks {
    pub on_execute: Vec<Callback>,
    pub on_success: Vec<Callback>,
    pub on_failure: Vec<Callback>,
    pub on_retry: Vec<Callback>,
    pub on_skipped: Vec<Callback>,
}

impl TaskCallbacks {
    pub fn of(&self, hook: Hook) -> &[Callback] {
        match hook {
            Hook::OnExecute => &self.on_execute,
            Hook::OnSuccess => &self.on_success,
            Hook::OnFailure => &self.on_failure,
            Hook::OnRetry => &self.on_retry,
            Hook::OnSkipped => &self.on_skipped,
            Hook::Deadline | Hook::ExpectBy => &[],
        }
    }

    /// All of them with their hooks.
    pub fn iter(&self) -> impl Iterator<Item = (Hook, &Callback)> {
        Hook::ALL.iter().flat_map(|&hook| self.of(hook).iter().map(move |callback| (hook, callback)))
    }
}

/// Whether any of the callbacks asks what has become of earlier runs.
pub fn is_conditional<'c>(callbacks: impl IntoIterator<Item = &'c Callback>) -> bool {
    callbacks.into_iter().any(|callback| callback.when != When::Every)
}

named!(
    /// Whose end, or missing, a callback is about.
    Subject {
        Task = "task",
        Run = "run",
        /// There is no run.
        Dag = "dag",
    }
);

/// What it is called for, as it was then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Occasion {
    pub subject: Subject,
    /// Of a task's callback its try; of a run's the try that decided it, if there is one.
    pub task: Option<OccasionTask>,
    /// The state that the task or the run came to; empty where none did.
    pub state: String,
    /// As the row says it, e.g. `task_failure`, `timed_out`; of a task that ended by itself `exit code 1`. Null after a success.
    pub reason: Option<String>,
    /// What went wrong, for people. Null after a success.
    pub exception: Option<String>,
    /// The tasks that have failed, of a run; the first few of them.
    pub failed_tasks: Vec<String>,
    /// How many more of those there are.
    pub more_failed: usize,
    /// How many runs in a row have failed, this one included; of a success, before it. 0: not counted.
    pub in_a_row: u32,
    /// The instant that was missed.
    pub deadline: Option<Timestamp>,
}

impl Occasion {
    pub fn new(subject: Subject) -> Self {
        Self {
            subject,
            task: None,
            state: String::new(),
            reason: None,
            exception: None,
            failed_tasks: Vec::new(),
            more_failed: 0,
            in_a_row: 0,
            deadline: None,
        }
    }
}

/// The try of a task that a callback is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OccasionTask {
    pub instance: InstanceKey,
    pub task_id: TaskId,
    /// -1 unless mapped.
    pub map_index: i32,
    pub try_number: u32,
    pub max_tries: u32,
}

/// One callback that is to be made, or was.
#[derive(Clone, Debug, PartialEq)]
pub struct CallbackRow {
    pub key: CallbackKey,
    pub dag_id: DagId,
    /// Null: it is called because there was no run.
    pub run: Option<RunKey>,
    pub hook: Hook,
    /// Its place in the list, from 1.
    pub number: u32,
    pub callback: Callback,
    pub occasion: Occasion,
    pub state: CallbackState,
    /// How often it was begun.
    pub tries: u32,
    /// How many of these have failed; those that minflow's end cut off have not.
    pub failures: u32,
    pub created_at: Timestamp,
    /// Of the last try.
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// Why the last try failed.
    pub reason: Option<String>,
}

impl CallbackRow {
    /// Under which the supervisor knows its present try. Instances have positive keys, so that no try of a task has the same.
    pub fn try_key(&self) -> TryKey {
        TryKey { instance: InstanceKey(-self.key.0), try_number: self.tries }
    }
}
