//! A backfill as it is stored: a list of dates whose runs are made up for, and how far that has come (SEMANTICS 8).

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::model::ids::{BackfillId, DagId, RunKey};
use crate::model::state::{Reprocess, SkipReason};

/// What was asked for, and what has become of it. Instants have microseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Backfill {
    pub id: BackfillId,
    pub dag_id: DagId,
    /// Inclusive bounds of the dates.
    pub from_date: Timestamp,
    pub to_date: Timestamp,
    pub reprocess: Reprocess,
    /// The newest date comes first.
    pub is_backwards: bool,
    /// How many of its runs run at once; they do not count against the DAG's own limit. At least 1.
    pub max_active_runs: u32,
    /// Of its runs; null leaves the conf of runs that it clears.
    pub conf: Option<Map<String, Value>>,
    /// Its queued runs stay queued.
    pub is_paused: bool,
    pub is_cancelled: bool,
    pub created_at: Timestamp,
    /// When no run of it was queued or running any more, or when it was cancelled; null until then.
    pub completed_at: Option<Timestamp>,
}

/// A run's place in a backfill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackfillPlace {
    pub backfill: BackfillId,
    /// The place of its date in the list, from 1; skipped dates count.
    pub ordinal: u32,
}

/// What a date of a backfill has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DateFate {
    /// A run: a new one, or one that was cleared.
    Run(RunKey),
    Skipped(SkipReason),
}
