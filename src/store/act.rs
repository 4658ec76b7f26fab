//! What acts of users need: the runs that they go over, the acts that are not over, and notes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use serde_json::Value;

use crate::model::{DagId, DagRun, InstanceKey, RunKey, TryKey};
use crate::scheduler::StoreError;
use crate::scheduler::change::{ActWrite, NoteWrite, PauseWrite, RunSpan};
use crate::store::fault::{Fault, LeftOut};
use crate::store::put::json;
use crate::store::read::{Reader, collect, collect_readable, run};
use crate::store::row::{Fields, maybe_micros, micros, run_columns};

pub(super) const RUNS_IN: &str = concat!(
    "SELECT ",
    run_columns!(),
    " FROM dag_run r WHERE r.dag_id = ?1 AND (r.run_after, r.key) > (?2, ?3) AND r.key <= ?4 \
     AND (?5 IS NULL OR r.logical_date >= ?5) AND (?6 IS NULL OR r.logical_date <= ?6) \
     ORDER BY r.run_after, r.key LIMIT ?7"
);
pub(super) const ACTS: &str = "SELECT key, body FROM act ORDER BY key";
pub(super) const PAUSED: &str = "SELECT instance_key, try_number, paused_at FROM paused_try ORDER BY instance_key";

impl Reader {
    /// What users have noted of the runs of a DAG.
    pub fn run_notes(&self, dag_id: &str) -> Result<BTreeMap<RunKey, String>, StoreError> {
        let sql = "SELECT key, note FROM dag_run WHERE dag_id = ?1 AND note IS NOT NULL";
        let notes = self.list("read the notes", sql, [dag_id], |row| Ok((RunKey(row.get(0)?), row.get(1)?)))?;
        Ok(notes.into_iter().collect())
    }

    /// What users have noted of the task instances of a run.
    pub fn instance_notes(&self, run: RunKey) -> Result<BTreeMap<InstanceKey, String>, StoreError> {
        let sql = "SELECT key, note FROM task_instance WHERE run_key = ?1 AND note IS NOT NULL";
        let notes = self.list("read the notes", sql, [run.0], |row| Ok((InstanceKey(row.get(0)?), row.get(1)?)))?;
        Ok(notes.into_iter().collect())
    }
}

impl Reader {
    /// The DAG, run and task of each instance that a process runs for, in order of their keys.
    pub fn under_way(&self) -> Result<Vec<(String, String, String)>, StoreError> {
        let sql = "SELECT r.dag_id, r.run_id, i.task_id FROM dag_run r CROSS JOIN task_instance i ON i.run_key = r.key \
            WHERE r.state IN ('queued', 'running') AND i.state IN ('running', 'restarting') ORDER BY i.key";
        self.list("read what runs", sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
    }

    /// Since when those of the running task instances of a run stand still that do.
    pub fn pauses(&self, run: RunKey) -> Result<BTreeMap<InstanceKey, Timestamp>, StoreError> {
        // What a crash has left tells of an earlier try.
        let sql = "SELECT key, paused_at FROM task_instance JOIN paused_try \
            ON instance_key = key AND paused_try.try_number = task_instance.try_number \
            WHERE run_key = ?1 AND state = 'running'";
        let pauses = self.list("read what is paused", sql, [run.0], |row| {
            Ok((InstanceKey(row.get(0)?), Timestamp::from_microsecond(row.get(1)?).unwrap_or_default()))
        })?;
        Ok(pauses.into_iter().collect())
    }
}

/// The tries that stand still.
pub(super) fn paused(connection: &Connection) -> Result<BTreeSet<TryKey>, Fault> {
    Ok(collect(connection, PAUSED, [], paused_try)?.into_iter().collect())
}

pub(super) fn paused_try(row: &Row<'_>) -> Result<TryKey, Fault> {
    let mut fields = Fields::new(row, "paused_try");
    let key = TryKey { instance: InstanceKey(fields.take()?), try_number: fields.take()? };
    fields.instant()?;
    Ok(key)
}

/// What was asked for and is not over, by key.
pub(super) fn unfinished(connection: &Connection) -> Result<Vec<(i64, Value)>, Fault> {
    collect(connection, ACTS, [], body)
}

/// Without those that cannot be read.
pub(super) fn runs_in(
    connection: &Connection,
    dag_id: &DagId,
    span: &RunSpan,
    limit: usize,
    left_out: &LeftOut,
) -> Result<Vec<DagRun>, Fault> {
    let (run_after, key) = span.after.map_or((i64::MIN, 0), |(run_after, key)| (micros(run_after), key.0));
    let (from, to) = (maybe_micros(span.from), maybe_micros(span.to));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let meant = params![dag_id.as_str(), run_after, key, span.until.0, from, to, limit];
    collect_readable(connection, RUNS_IN, meant, left_out, run)
}

pub(super) fn body(row: &Row<'_>) -> Result<(i64, Value), Fault> {
    let mut fields = Fields::new(row, "act");
    Ok((fields.take()?, fields.json()?))
}

pub(super) fn put_notes(connection: &Connection, notes: &[NoteWrite]) -> Result<(), Fault> {
    for NoteWrite { run, instance, note } in notes {
        let (sql, key) = match instance {
            Some(instance) => ("UPDATE task_instance SET note = ?2 WHERE key = ?1", instance.0),
            None => ("UPDATE dag_run SET note = ?2 WHERE key = ?1", run.0),
        };
        connection.prepare_cached(sql)?.execute(params![key, note])?;
    }
    Ok(())
}

pub(super) fn put_pauses(connection: &Connection, pauses: &[PauseWrite]) -> Result<(), Fault> {
    const PUT: &str = "INSERT OR REPLACE INTO paused_try (instance_key, try_number, paused_at) VALUES (?1, ?2, ?3)";
    const REMOVE: &str = "DELETE FROM paused_try WHERE instance_key = ?1";
    for PauseWrite { key: TryKey { instance, try_number }, paused_at } in pauses {
        match paused_at {
            Some(at) => {
                connection.prepare_cached(PUT)?.execute(params![instance.0, try_number, at.as_microsecond()])?
            }
            None => connection.prepare_cached(REMOVE)?.execute([instance.0])?,
        };
    }
    Ok(())
}

pub(super) fn put(connection: &Connection, acts: &[ActWrite]) -> Result<(), Fault> {
    for ActWrite { key, body } in acts {
        match body {
            Some(body) => connection
                .prepare_cached(
                    "INSERT INTO act (key, body) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET body = ?2",
                )?
                .execute(params![key, json(body)])?,
            None => connection.prepare_cached("DELETE FROM act WHERE key = ?1")?.execute([key])?,
        };
    }
    Ok(())
}
