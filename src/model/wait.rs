//! What a deferred instance waits for: all that is needed to go on after a restart without rendering again.
//!
//! The database keeps it as JSON with a version; the scheduler, the triggerer and the workers hold the same shape.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::ids::{DagId, RunId, TaskId};
use crate::model::sensor::{Pace, SensorMode};
use crate::model::state::TaskState;
use crate::model::trigger_dag::AwaitedStates;

/// An instance that has no process and goes on when something is so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    pub awaited: Awaited,
    pub mode: SensorMode,
    /// When the clock of `timeout` began.
    pub since: Timestamp,
    /// After which it is given up for good; None: never.
    pub timeout: Option<Duration>,
    /// After which its try ends as one whose process takes too long, counted from the start of the try; None: never.
    pub execution_timeout: Option<Duration>,
    /// When it is given up it is skipped, and has not failed.
    pub soft_fail: bool,
    pub pace: Pace,
}

/// What must come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Awaited {
    /// The wall clock shows this instant, or a later one.
    Instant(Timestamp),
    /// A file that matches the absolute pattern and has not changed for `settle`.
    File {
        pattern: Arc<str>,
        settle: Duration,
        /// The pattern as people may read it, if it holds what is secret.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shown: Option<Box<String>>,
    },
    /// A worker has looked, and looks again so long after this instant.
    Look { from: Timestamp, after: Duration },
    /// A service is asked so long after this instant, and again, by no worker. In the row stands the first time alone, since what is
    /// in vain is not written down.
    Service { from: Timestamp, after: Duration },
    /// A run of another DAG is over.
    Run(Box<AwaitedRun>),
    /// Tasks of another DAG have come to certain states, in the run with a logical date.
    Tasks(Box<AwaitedTasks>),
}

/// A run whose end is awaited.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AwaitedRun {
    pub dag_id: DagId,
    pub run_id: RunId,
    pub states: AwaitedStates,
}

/// What an external-task sensor looks at (SEMANTICS 22).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AwaitedTasks {
    pub dag_id: DagId,
    pub among: Among,
    /// Of their run.
    pub logical_date: Timestamp,
    /// All must be in one of these.
    pub allowed: Vec<TaskState>,
    /// One in one of these fails the sensor.
    pub failed: Vec<TaskState>,
    /// One in one of these skips it, if none fails it.
    pub skipped: Vec<TaskState>,
}

/// Of a DAG that is waited for, what is looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Among {
    /// The run itself.
    Run,
    Tasks(Vec<TaskId>),
    /// The id of a group.
    Group(String),
}

impl AwaitedTasks {
    /// What is looked at, in words.
    pub fn words(&self) -> String {
        match &self.among {
            Among::Run => format!("`{}`", self.dag_id),
            Among::Tasks(ids) => {
                let ids: Vec<String> = ids.iter().map(|id| format!("`{id}`")).collect();
                format!("{} of `{}`", ids.join(", "), self.dag_id)
            }
            Among::Group(group) => format!("group `{group}` of `{}`", self.dag_id),
        }
    }
}

impl Wait {
    /// For the end of a run, however long it takes.
    pub fn for_run(dag_id: DagId, run_id: RunId, states: AwaitedStates, since: Timestamp) -> Self {
        Self {
            awaited: Awaited::Run(Box::new(AwaitedRun { dag_id, run_id, states })),
            mode: SensorMode::Poke,
            since,
            timeout: None,
            execution_timeout: None,
            soft_fail: false,
            pace: Pace { poke_interval: Duration::from_secs(60), is_exponential: false, max_wait: None },
        }
    }

    /// As the database has it.
    ///
    /// # Panics
    /// Never: it has no map keys but texts.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&Stored::V1(self)).expect("a wait has no maps but those with text keys")
    }

    /// # Errors
    /// No minflow of this version wrote it.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        let Stored::V1(wait) = serde_json::from_str(text)?;
        Ok(wait)
    }

    /// Takes what is secret out of what is told of it; `mask` gives the text without, None if nothing is secret in it.
    pub fn conceal(&mut self, mask: impl Fn(&str) -> Option<String>) {
        if let Awaited::File { pattern, shown, .. } = &mut self.awaited {
            *shown = mask(pattern).map(Box::new);
        }
    }

    /// Shown as the instance's `reason`, without what [`Wait::conceal`] has hidden: fits after its state.
    pub fn words(&self) -> String {
        match &self.awaited {
            Awaited::Instant(at) => format!("waits until {at}"),
            Awaited::File { pattern, shown, .. } => {
                format!("waits for {}", shown.as_ref().map_or(&**pattern, |shown| shown))
            }
            Awaited::Look { from, after } => match from.checked_add(*after) {
                Ok(at) => format!("looks again at {at}"),
                Err(_) => "looks no more".to_owned(),
            },
            Awaited::Service { .. } if self.pace.is_exponential => "looks at growing intervals".to_owned(),
            Awaited::Service { .. } => format!("looks every {} s", self.pace.poke_interval.as_secs_f64()),
            Awaited::Run(run) => format!("waits for the end of run `{}` of `{}`", run.run_id, run.dag_id),
            Awaited::Tasks(tasks) => format!("waits for {} of the run for {}", tasks.words(), tasks.logical_date),
        }
    }
}

/// A shape that changes gets another version, and the one before stays readable.
#[derive(Serialize, Deserialize)]
#[serde(tag = "version")]
enum Stored<W> {
    #[serde(rename = "1")]
    V1(W),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait() -> Wait {
        Wait {
            awaited: Awaited::Instant("2026-11-21T06:00:00Z".parse().unwrap()),
            mode: SensorMode::Reschedule,
            since: "2026-11-20T23:59:59.000001Z".parse().unwrap(),
            timeout: Some(Duration::from_secs(604_800)),
            execution_timeout: None,
            soft_fail: true,
            pace: Pace { poke_interval: Duration::from_secs(60), is_exponential: true, max_wait: None },
        }
    }

    #[test]
    fn what_is_secret_of_a_path_is_kept_to_go_on_and_not_told() {
        let awaited = Awaited::File { pattern: "/in/s3same/*".into(), settle: Duration::ZERO, shown: None };
        let mut wait = Wait { awaited, ..wait() };
        wait.conceal(|_| None);
        assert_eq!(wait.words(), "waits for /in/s3same/*");
        wait.conceal(|text| Some(text.replace("s3same", "***")));
        let again = Wait::from_json(&wait.to_json()).unwrap();
        assert_eq!(again.words(), "waits for /in/***/*");
        assert!(matches!(again.awaited, Awaited::File { pattern, .. } if &*pattern == "/in/s3same/*"));
    }

    #[test]
    fn a_wait_is_the_same_after_it_was_stored() {
        let wait = wait();
        let text = wait.to_json();
        assert!(text.starts_with("{\"version\":\"1\","), "{text}");
        assert_eq!(Wait::from_json(&text).unwrap(), wait);
        assert!(Wait::from_json(&text.replace("\"1\"", "\"2\"")).is_err(), "another version's");
    }
}
