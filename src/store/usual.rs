//! How long things usually take: medians of the newest runs of a DAG.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, params};

use crate::model::TaskId;
use crate::model::cost::{median, percentile};
use crate::scheduler::StoreError;
use crate::store::Reader;
use crate::store::fault::{Fault, LeftOut};
use crate::store::read::collect_readable;

/// How many of a DAG's newest runs say how long its tasks usually take.
pub const USUAL_RUNS: u32 = 100;

pub(super) const SUCCESSFUL_DURATIONS: &str = "SELECT i.task_id, i.end_date - i.start_date FROM task_instance i \
     WHERE i.run_key IN (SELECT r.key FROM dag_run r WHERE r.dag_id = ?1 ORDER BY r.run_after DESC, r.key DESC LIMIT ?2) \
     AND i.state = 'success' AND i.end_date >= i.start_date";
/// Of one task; a mapped one may have many tries in each run.
pub(super) const TASK_DURATIONS: &str = "SELECT i.end_date - i.start_date FROM task_instance i \
     WHERE i.run_key IN (SELECT r.key FROM dag_run r WHERE r.dag_id = ?1 ORDER BY r.run_after DESC, r.key DESC LIMIT ?2) \
     AND i.task_id = ?3 AND i.state = 'success' AND i.end_date >= i.start_date LIMIT 1000";
pub(super) const RUN_DURATIONS: &str = "SELECT end_date - start_date FROM (SELECT r.state, r.start_date, r.end_date \
     FROM dag_run r WHERE r.dag_id = ?1 ORDER BY r.run_after DESC, r.key DESC LIMIT ?2) \
     WHERE state = 'success' AND end_date >= start_date";

pub(super) const MEMORY: &str = "SELECT i.max_rss FROM task_instance i \
     WHERE i.run_key IN (SELECT r.key FROM dag_run r WHERE r.dag_id = ?1 ORDER BY r.run_after DESC, r.key DESC LIMIT ?2) \
     AND i.task_id = ?3 AND i.state = 'success' AND i.max_rss IS NOT NULL ORDER BY i.max_rss";

/// How many of them say how long the paths through a DAG are, and when `/status` expects a gate to open: they are asked often.
pub(super) const PATH_RUNS: u32 = 20;

/// How many tries it takes to say what is usual.
const ENOUGH: usize = 3;

/// What nineteen of twenty of a task's newest successful tries kept within, in bytes; None: there are too few.
pub(super) fn memory(
    connection: &Connection,
    dag_id: &str,
    task_id: &str,
    left_out: &LeftOut,
) -> Result<Option<u64>, Fault> {
    let asked = params![dag_id, USUAL_RUNS, task_id];
    let taken = collect_readable(connection, MEMORY, asked, left_out, |row| Ok(row.get::<_, i64>(0)?.unsigned_abs()))?;
    Ok(percentile(&taken, 95).filter(|_| taken.len() >= ENOUGH))
}

/// See [`Reader::usual_durations`].
pub(super) fn durations(
    connection: &Connection,
    dag_id: &str,
    runs: u32,
    left_out: &LeftOut,
) -> Result<BTreeMap<TaskId, Duration>, Fault> {
    let tries = collect_readable(connection, SUCCESSFUL_DURATIONS, params![dag_id, runs], left_out, |row| {
        Ok((TaskId::from(row.get::<_, String>(0)?), micros(row.get(1)?)))
    })?;
    let mut by_task: BTreeMap<TaskId, Vec<u64>> = BTreeMap::new();
    for (task_id, lasted) in tries {
        by_task.entry(task_id).or_default().push(lasted);
    }
    Ok(by_task.into_iter().filter_map(|(task_id, all)| Some((task_id, usual(all)?))).collect())
}

impl Reader {
    /// The median of what the successful tries took in the newest `runs` runs of a DAG, by task.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn usual_durations(&self, dag_id: &str, runs: u32) -> Result<BTreeMap<TaskId, Duration>, StoreError> {
        self.ask("read how long tasks took", |connection| durations(connection, dag_id, runs, self.left_out()))
    }

    /// The median of what the successful tries of a task took in the DAG's newest runs; None: there are none.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn usual_duration(&self, dag_id: &str, task_id: &str) -> Result<Option<Duration>, StoreError> {
        let asked = params![dag_id, PATH_RUNS, task_id];
        let all = self.list("read how long a task took", TASK_DURATIONS, asked, |row| Ok(micros(row.get(0)?)))?;
        Ok(usual(all))
    }

    /// The median of what the successful ones of the newest `runs` runs of a DAG took; None: none of them was.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn usual_run_duration(&self, dag_id: &str, runs: u32) -> Result<Option<Duration>, StoreError> {
        let all =
            self.list("read how long runs took", RUN_DURATIONS, params![dag_id, runs], |row| Ok(micros(row.get(0)?)))?;
        Ok(usual(all))
    }
}

fn micros(lasted: i64) -> u64 {
    lasted.unsigned_abs()
}

fn usual(all: Vec<u64>) -> Option<Duration> {
    median(all).map(|micros| Duration::from_micros(micros as u64))
}
