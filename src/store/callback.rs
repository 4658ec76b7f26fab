//! Rows of callbacks, and of what their conditions remember.

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use serde::Serialize;

use crate::model::callback::{CallbackRow, Hook};
use crate::model::{CallbackKey, DagId, RunId, RunKey, TaskId};
use crate::scheduler::StoreError;
use crate::scheduler::change::{StoredCallback, Streak};
use crate::store::Reader;
use crate::store::fault::Fault;
use crate::store::load::find_run_by_key;
use crate::store::read::collect;
use crate::store::row::{Fields, maybe_micros, micros};

macro_rules! callback_columns {
    () => {
        "key, dag_id, run_key, hook, number, callback, occasion, state, tries, failures, created_at, started_at, ended_at, reason"
    };
}
pub(super) const ALL: &str = concat!("SELECT ", callback_columns!(), " FROM callback ORDER BY key");
/// Those that are not over.
pub(super) const UNFINISHED: &str =
    concat!("SELECT ", callback_columns!(), " FROM callback WHERE state IN ('queued', 'running') ORDER BY key");
pub(super) const STREAKS: &str =
    "SELECT dag_id, task_id, run_key, failures FROM failure_streak ORDER BY dag_id, task_id";

pub(super) fn put(connection: &Connection, rows: &[CallbackRow]) -> Result<(), Fault> {
    for row in rows {
        connection
            .prepare_cached(
                "INSERT INTO callback (key, dag_id, run_key, hook, number, callback, occasion, state, tries, failures, \
                 created_at, started_at, ended_at, reason) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) \
                 ON CONFLICT (key) DO UPDATE SET state = ?8, tries = ?9, failures = ?10, started_at = ?12, ended_at = ?13, \
                 reason = ?14",
            )?
            .execute(params![
                row.key.0,
                row.dag_id.as_str(),
                row.run.map(|run| run.0),
                row.hook.as_str(),
                row.number,
                json(&row.callback),
                json(&row.occasion),
                row.state.as_str(),
                row.tries,
                row.failures,
                micros(row.created_at),
                maybe_micros(row.started_at),
                maybe_micros(row.ended_at),
                row.reason,
            ])?;
    }
    Ok(())
}

pub(super) fn put_streaks(connection: &Connection, streaks: &[Streak]) -> Result<(), Fault> {
    for streak in streaks {
        let task_id = streak.task_id.as_ref().map_or("", TaskId::as_str);
        if streak.failures == 0 {
            connection
                .prepare_cached("DELETE FROM failure_streak WHERE dag_id = ?1 AND task_id = ?2")?
                .execute([streak.dag_id.as_str(), task_id])?;
            continue;
        }
        connection
            .prepare_cached(
                "INSERT INTO failure_streak (dag_id, task_id, run_key, failures) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (dag_id, task_id) DO UPDATE SET run_key = ?3, failures = ?4",
            )?
            .execute(params![streak.dag_id.as_str(), task_id, streak.run.0, streak.failures])?;
    }
    Ok(())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("it has text keys and finite numbers")
}

pub(super) fn row(row: &Row<'_>) -> Result<CallbackRow, Fault> {
    let mut fields = Fields::new(row, "callback");
    Ok(CallbackRow {
        key: CallbackKey(fields.take()?),
        dag_id: DagId::from(fields.take::<String>()?),
        run: fields.take::<Option<i64>>()?.map(RunKey),
        hook: fields.named()?,
        number: fields.take()?,
        callback: fields.json()?,
        occasion: fields.json()?,
        state: fields.named()?,
        tries: fields.take()?,
        failures: fields.take()?,
        created_at: fields.instant()?,
        started_at: fields.maybe_instant()?,
        ended_at: fields.maybe_instant()?,
        reason: fields.take()?,
    })
}

/// Those that are not over, by key. One whose run cannot be read is made without it.
pub(super) fn unfinished(connection: &Connection) -> Result<Vec<StoredCallback>, Fault> {
    let rows = collect(connection, UNFINISHED, [], row)?;
    let with_run = |row: CallbackRow| {
        let run = match row.run.map(|run| find_run_by_key(connection, run)) {
            Some(Err(Fault::Value { row: of, column, what })) => {
                log::error!(
                    "{of}, column {column}: {what}; `{}` of `{}` is made without its run (`minflow db check`)",
                    row.hook,
                    row.dag_id
                );
                None
            }
            Some(found) => found?,
            None => None,
        };
        Ok(StoredCallback { row, run })
    };
    rows.into_iter().map(with_run).collect()
}

pub(super) fn streaks(connection: &Connection) -> Result<Vec<Streak>, Fault> {
    collect(connection, STREAKS, [], streak)
}

pub(super) fn streak(row: &Row<'_>) -> Result<Streak, Fault> {
    let mut fields = Fields::new(row, "failure_streak");
    let (dag_id, task_id): (String, String) = (fields.take()?, fields.take()?);
    Ok(Streak {
        dag_id: dag_id.into(),
        task_id: (!task_id.is_empty()).then(|| task_id.into()),
        run: RunKey(fields.take()?),
        failures: fields.take()?,
    })
}

/// A callback that has failed for good.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedCallback {
    pub dag_id: DagId,
    /// Null: there was no run.
    pub run_id: Option<RunId>,
    /// Null: it is not a task's.
    pub task_id: Option<TaskId>,
    pub hook: Hook,
    /// Its place in the list, from 1.
    pub number: u32,
    /// Of a task's: which of its instances and tries.
    pub map_index: Option<i32>,
    pub try_number: Option<u32>,
    pub ended_at: Option<Timestamp>,
    pub reason: Option<String>,
}

impl Reader {
    /// The callbacks that failed last, newest first.
    pub fn failed_callbacks(&self, limit: u32) -> Result<Vec<FailedCallback>, StoreError> {
        let sql = "SELECT c.dag_id, r.run_id, c.task ->> 'task_id', c.hook, c.number, c.task ->> 'map_index', \
                   c.task ->> 'try_number', c.ended_at, c.reason FROM (SELECT *, \
                   iif(occasion ->> 'subject' = 'task', occasion -> 'task', NULL) AS task FROM callback \
                   WHERE state = 'failed' ORDER BY ended_at DESC LIMIT ?1) c LEFT JOIN dag_run r ON r.key = c.run_key \
                   ORDER BY c.ended_at DESC";
        self.list("list the callbacks that failed", sql, [limit], |row| {
            let mut fields = Fields::new(row, "callback");
            Ok(FailedCallback {
                dag_id: DagId::from(fields.take::<String>()?),
                run_id: fields.take::<Option<String>>()?.map(RunId::from),
                task_id: fields.take::<Option<String>>()?.map(TaskId::from),
                hook: fields.named()?,
                number: fields.take()?,
                map_index: fields.take()?,
                try_number: fields.take()?,
                ended_at: fields.maybe_instant()?,
                reason: fields.take()?,
            })
        })
    }
}
