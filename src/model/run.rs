//! A DAG run as it is stored.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::backfill::BackfillPlace;
use crate::model::ids::{DagId, RunId, RunKey};
use crate::model::state::{RunState, RunType};

/// `[start, end]` in UTC; empty (start = end) for a cron run by default (SEMANTICS 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataInterval {
    pub start: Timestamp,
    pub end: Timestamp,
}

/// The next run that a timetable gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextRun {
    pub logical_date: Timestamp,
    pub data_interval: DataInterval,
    /// When it is due.
    pub run_after: Timestamp,
}

/// One run of a DAG. Instants have microseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct DagRun {
    pub key: RunKey,
    pub dag_id: DagId,
    pub run_id: RunId,
    pub run_type: RunType,
    pub state: RunState,
    pub run_after: Timestamp,
    pub logical_date: Option<Timestamp>,
    pub data_interval: Option<DataInterval>,
    pub queued_at: Option<Timestamp>,
    pub start_date: Option<Timestamp>,
    pub end_date: Option<Timestamp>,
    pub conf: Map<String, Value>,
    /// Why it failed: `task_failure`, `all_tasks_deadlocked`, `timed_out`, `dag_removed`, `backfill_cancelled`.
    pub reason: Option<String>,
    /// From run_after to the start of its first task, or of an `empty` one to its success; null until then, and of backfills.
    pub lag: Option<Duration>,
    /// The backfill that made or did it over last.
    pub backfill: Option<BackfillPlace>,
    /// It was cleared by hand since: it waits and counts as any other run of its DAG, no longer with its backfill.
    pub is_released: bool,
    /// How many times it, or some of its tasks, were cleared.
    pub clear_number: u32,
}

impl DagRun {
    /// A queued run that nothing has looked at yet.
    pub fn new(key: RunKey, dag_id: DagId, run_id: RunId, run_type: RunType, run_after: Timestamp) -> Self {
        Self {
            key,
            dag_id,
            run_id,
            run_type,
            state: RunState::Queued,
            run_after,
            logical_date: None,
            data_interval: None,
            queued_at: None,
            start_date: None,
            end_date: None,
            conf: Map::new(),
            reason: None,
            lag: None,
            backfill: None,
            is_released: false,
            clear_number: 0,
        }
    }

    /// The backfill in whose line it waits and with whose runs it counts; None: with those of its DAG.
    pub fn counts_with(&self) -> Option<BackfillPlace> {
        self.backfill.filter(|_| !self.is_released)
    }
}
