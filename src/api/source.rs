//! Where the answers come from, as a trait: the daemon gives the database's readers, tests give fixed records.

use std::fmt;
use std::time::Duration;

use crate::api::json::{Dag, DagCounts, FailedCallback, Failure, ImportError, MissedDeadline};
use crate::model::{DagId, TaskId};

/// What the database tells. Called on HTTP threads, several at once; a call may wait for the disk but never for the loop.
pub trait Source: Send + Sync {
    /// All that one `/status` shows of the database.
    ///
    /// # Errors
    /// The database cannot be read.
    fn read(&self, which: &Which) -> Result<Facts, SourceError>;

    /// How long the newest successful tries of these tasks took, in the middle. None: nobody knows.
    fn usual(&self, tasks: &[(&DagId, &TaskId)]) -> Vec<Option<Duration>>;
}

/// Which DAGs are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All up to this many, else those last active, by dag_id.
    UpTo(usize),
    /// That one, if it exists.
    One(String),
}

/// What a `/status` needs of the database.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    pub dags: Vec<Dag>,
    pub dags_truncated: bool,
    pub dag_counts: DagCounts,
    pub import_errors: Vec<ImportError>,
    /// Newest first.
    pub recent_failures: Vec<Failure>,
    /// Newest first.
    pub missed_deadlines: Vec<MissedDeadline>,
    /// Callbacks that are not tried again; newest first.
    pub failed_callbacks: Vec<FailedCallback>,
}

/// The database could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError(pub String);

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SourceError {}
