//! History that goes: which runs may, and how their rows go a few at a time.
//!
//! The row of a run goes first, together with all that others read of it, and leaves a row of `retired_run`: from then on nobody finds the
//! run, and what is left of it (instances, folders) can go at leisure and after a crash.

use std::str::FromStr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use crate::model::{DagId, DagRun, RunId, RunKey, TaskState};
use crate::scheduler::StoreError;
use crate::scheduler::change::{Purge, RetireChanges, RetiredRun};
use crate::store::backup;
use crate::store::fault::Fault;
use crate::store::put::Counts;
use crate::store::read::{Reader, run};
use crate::store::row::{Fields, micros, run_columns};

/// Which runs are to go, if nothing needs them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disposal {
    /// That have ended before.
    pub before: Option<Timestamp>,
    /// All but so many of the newest of their DAG.
    pub keep: Option<u64>,
    /// At most so many of each DAG.
    pub limit: usize,
    /// Also those that a later decision may ask for: all of the DAG is to go.
    pub everything: bool,
}

/// What of a DAG may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disposable {
    /// Oldest first.
    pub runs: Vec<RetiredRun>,
    /// Those that would go as well if their rows could be read: they stay, for somebody to look at.
    pub unreadable: Vec<Unreadable>,
}

/// A run whose row no minflow wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub key: RunKey,
    pub dag_id: DagId,
    pub error: StoreError,
}

/// The runs of a DAG that nothing asks for, oldest first. Finished ones, and none of these: the newest by run_after and by logical date, with
/// and without the manual ones; the newest successful one; the one before an unfinished run, and all after that; those of a backfill that is
/// not completed; those with a callback that is not over; and while some DAG pulls XComs with `include_prior_dates`, those that hold the
/// newest value under a key of a task.
const DISPOSABLE: &str = concat!(
    "WITH \
     oldest (date) AS (SELECT min(logical_date) FROM dag_run WHERE dag_id = ?1 AND state IN ('queued', 'running')), \
     needed (date) AS (SELECT coalesce((SELECT max(r.logical_date) FROM dag_run r WHERE r.dag_id = ?1 AND r.logical_date < o.date), o.date) FROM oldest o), \
     kept (key) AS (SELECT * FROM (SELECT key FROM dag_run WHERE dag_id = ?1 ORDER BY run_after DESC, key DESC LIMIT 1) \
     UNION SELECT * FROM (SELECT key FROM dag_run WHERE dag_id = ?1 AND logical_date IS NOT NULL ORDER BY logical_date DESC LIMIT 1) \
     UNION SELECT * FROM (SELECT key FROM dag_run WHERE dag_id = ?1 AND logical_date IS NOT NULL AND run_type <> 'manual' ORDER BY logical_date DESC LIMIT 1) \
     UNION SELECT * FROM (SELECT key FROM dag_run WHERE dag_id = ?1 AND logical_date IS NOT NULL AND run_type = 'scheduled' ORDER BY logical_date DESC LIMIT 1) \
     UNION SELECT * FROM (SELECT key FROM dag_run WHERE dag_id = ?1 AND logical_date IS NOT NULL AND state = 'success' ORDER BY logical_date DESC LIMIT 1) \
     UNION SELECT * FROM (SELECT key FROM dag_run WHERE dag_id = ?1 AND state = 'success' ORDER BY run_after DESC, key DESC LIMIT 1)) \
     SELECT ",
    run_columns!(),
    " FROM dag_run r WHERE r.dag_id = ?1 AND r.state IN ('success', 'failed') \
     AND r.end_date IS NOT NULL AND (?2 IS NULL OR r.end_date < ?2) \
     AND (?4 OR (r.key NOT IN (SELECT key FROM kept) \
     AND NOT EXISTS (SELECT 1 FROM needed n WHERE r.logical_date >= n.date) \
     AND NOT (?5 AND EXISTS (SELECT 1 FROM task_instance i JOIN xcom x ON x.instance_key = i.key WHERE i.run_key = r.key AND NOT EXISTS ( \
     SELECT 1 FROM dag_run n JOIN task_instance j ON j.run_key = n.key AND j.task_id = i.task_id JOIN xcom y ON y.instance_key = j.key AND y.key = x.key \
     WHERE n.dag_id = ?1 AND n.logical_date > r.logical_date))))) \
     AND NOT EXISTS (SELECT 1 FROM callback c WHERE c.run_key = r.key AND c.state IN ('queued', 'running')) \
     AND NOT EXISTS (SELECT 1 FROM backfill_dag_run b JOIN backfill f ON f.id = b.backfill_id WHERE b.run_key = r.key AND f.completed_at IS NULL) \
     ORDER BY r.run_after, r.key LIMIT ?3"
);

impl Reader {
    /// The runs of a DAG that may go, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn disposable(&self, dag_id: &DagId, what: &Disposal) -> Result<Disposable, StoreError> {
        let counted = "SELECT count(*) FROM dag_run WHERE dag_id = ?1";
        let limit = match what.keep {
            Some(keep) => {
                let runs: Option<i64> =
                    self.one("count the runs", counted, [dag_id.as_str()], |row| Ok(row.get(0)?))?;
                what.limit.min(
                    usize::try_from(runs.unwrap_or_default().unsigned_abs().saturating_sub(keep)).unwrap_or(usize::MAX),
                )
            }
            None => what.limit,
        };
        let looks_back = "SELECT 1 FROM dag d JOIN dag_version v ON v.key = d.version_key WHERE v.source LIKE '%include_prior_dates%' LIMIT 1";
        let looks_back = self.one("read the definitions", looks_back, [], |row| Ok(row.get::<_, i64>(0)?))?.is_some();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let parameters = params![dag_id.as_str(), what.before.map(micros), limit, what.everything, looks_back];
        let found = self.list("list the runs that may go", DISPOSABLE, parameters, |row| match run(row) {
            Err(fault @ Fault::Value { .. }) => {
                let error = fault.into_store_error("retire a run", self.path());
                Ok(Err(Unreadable { key: RunKey(row.get(0)?), dag_id: dag_id.clone(), error }))
            }
            found => Ok(Ok(found?)),
        })?;
        let mut disposable = Disposable::default();
        for found in found {
            match found {
                Ok(DagRun { key, dag_id, run_id, run_after, end_date, .. }) => {
                    let end_date = end_date.unwrap_or(run_after);
                    disposable.runs.push(RetiredRun { key, dag_id, run_id, run_after, end_date });
                }
                Err(unreadable) => disposable.unreadable.push(unreadable),
            }
        }
        Ok(disposable)
    }

    /// The ids of all DAGs, also of those whose file is gone. More of them is not read, so that no row of a run can be in the way.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn dag_ids(&self) -> Result<Vec<DagId>, StoreError> {
        let sql = "SELECT dag_id FROM dag ORDER BY dag_id";
        self.list("list the DAGs", sql, [], |row| Ok(DagId::from(row.get::<_, String>(0)?)))
    }

    /// At most `limit` ids of a DAG's runs behind `after`, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn run_ids(&self, dag_id: &DagId, after: Option<&RunId>, limit: u32) -> Result<Vec<RunId>, StoreError> {
        let sql = "SELECT run_id FROM dag_run WHERE dag_id = ?1 AND run_id > ?2 AND typeof(run_id) = 'text' ORDER BY run_id LIMIT ?3";
        let after = after.map_or("", RunId::as_str);
        self.list("list the runs", sql, params![dag_id.as_str(), after, limit], |row| {
            Ok(RunId::from(row.get::<_, String>(0)?))
        })
    }

    /// The ids of the DAGs that have a file now.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn loaded_dag_ids(&self) -> Result<Vec<DagId>, StoreError> {
        let sql = "SELECT dag_id FROM dag WHERE is_active ORDER BY dag_id";
        self.list("list the DAGs", sql, [], |row| Ok(DagId::from(row.get::<_, String>(0)?)))
    }

    /// Runs whose rows are gone, and of which something may be left, with their ids.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn retired(&self) -> Result<Vec<(RunKey, DagId, RunId)>, StoreError> {
        self.list("list what is going", RETIRED, [], retired)
    }

    /// Whether rows of instances are left of a run.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn has_instances(&self, run: RunKey) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM task_instance WHERE run_key = ?1 LIMIT 1";
        Ok(self.one("look for task instances", sql, [run.0], |row| Ok(row.get::<_, i64>(0)?))?.is_some())
    }

    /// How many instances the runs have.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn count_instances(&self, run: RunKey) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM task_instance WHERE run_key = ?1";
        Ok(self
            .one("count the task instances", sql, [run.0], |row| Ok(row.get::<_, i64>(0)?))?
            .unwrap_or_default()
            .unsigned_abs())
    }

    /// How many entries of the audit log are older, and the key of the last of them. The newest entry of all stays: the next one is to
    /// have a key that none had before.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn audit_before(&self, before: Timestamp) -> Result<(u64, i64), StoreError> {
        let sql = "SELECT count(*), coalesce(max(key), 0) FROM log WHERE at < ?1 AND key < (SELECT max(key) FROM log)";
        let found =
            self.one("read the audit log", sql, [micros(before)], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))?;
        Ok(found.map(|(count, key)| (count.unsigned_abs(), key)).unwrap_or_default())
    }
}

impl Reader {
    /// Whether there are entries of the audit log up to a key that may go.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn has_audit(&self, until: i64) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM log WHERE key <= ?1 AND key < (SELECT max(key) FROM log) LIMIT 1";
        Ok(self.one("read the audit log", sql, [until], |row| Ok(row.get::<_, i64>(0)?))?.is_some())
    }
}

pub(super) const RETIRED: &str = "SELECT key, dag_id, run_id FROM retired_run ORDER BY key";

pub(super) fn retired(row: &rusqlite::Row<'_>) -> Result<(RunKey, DagId, RunId), Fault> {
    let mut fields = Fields::new(row, "retired_run");
    Ok((RunKey(fields.take()?), DagId::from(fields.take::<String>()?), RunId::from(fields.take::<String>()?)))
}

/// The ids of the runs of which folders may be left.
pub(super) fn names(connection: &Connection) -> Result<Vec<(RunKey, DagId, RunId)>, Fault> {
    crate::store::read::collect(connection, RETIRED, [], retired)
}

/// How long something may take from now on.
struct Patience {
    began: Instant,
    within: Option<Duration>,
}

impl Patience {
    fn of(within: Option<Duration>) -> Self {
        Self { began: Instant::now(), within }
    }

    fn is_over(&self) -> bool {
        self.within.is_some_and(|within| self.began.elapsed() >= within)
    }
}

/// So many entries of the audit log go at once.
const PIECE: u32 = 20;

pub(super) fn put<'a>(
    connection: &Connection,
    changes: &'a RetireChanges,
    counts: &mut Counts<'a>,
) -> Result<(), Fault> {
    for (run, at) in &changes.runs {
        drop_run(connection, run, *at, counts)?;
    }
    if let Some(purge) = &changes.purged {
        drop_instances(connection, purge, &Patience::of(changes.within), counts)?;
    }
    for run in &changes.forgotten {
        connection.prepare_cached("DELETE FROM retired_run WHERE key = ?1")?.execute([run.0])?;
    }
    if let Some((until, rows)) = changes.audit {
        cut_audit(connection, until, rows, Patience::of(changes.within))?;
    }
    if let Some(dag_id) = &changes.dag {
        drop_dag(connection, dag_id)?;
    }
    if let Some(pages) = changes.free_pages {
        let patience = Patience::of(changes.within);
        backup::free_pages(connection, pages, || patience.is_over())?;
    }
    Ok(())
}

fn raise_floor(connection: &Connection, table: &str, key: i64) -> Result<(), Fault> {
    let sql = "INSERT INTO key_floor (\"table\", key) VALUES (?1, ?2) ON CONFLICT (\"table\") DO UPDATE SET key = max(key, excluded.key)";
    connection.prepare_cached(sql)?.execute(params![table, key])?;
    Ok(())
}

/// At most `rows` entries of the audit log up to a key, the oldest first.
fn cut_audit(connection: &Connection, until: i64, rows: u32, patience: Patience) -> Result<(), Fault> {
    let sql = "DELETE FROM log WHERE key IN (SELECT key FROM log WHERE key <= ?1 AND key < (SELECT max(key) FROM log) ORDER BY key LIMIT ?2)";
    let mut statement = connection.prepare_cached(sql)?;
    let mut left = rows;
    while left > 0 && statement.execute(params![until, left.min(PIECE)])? > 0 && !patience.is_over() {
        left = left.saturating_sub(PIECE);
    }
    Ok(())
}

fn drop_run<'a>(
    connection: &Connection,
    run: &'a RetiredRun,
    at: Timestamp,
    counts: &mut Counts<'a>,
) -> Result<(), Fault> {
    let key = run.key.0;
    let state: Option<String> = connection
        .prepare_cached("DELETE FROM dag_run WHERE key = ?1 AND state IN ('success', 'failed') RETURNING state")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    let state = match state.as_deref() {
        Some("success") => "success",
        Some(_) => "failed",
        // Somebody else was here before.
        None => return Ok(()),
    };
    counts.gone(&run.dag_id, "run", state, 1);
    for table in ["callback", "deadline"] {
        let greatest = format!("SELECT max(key) FROM {table} WHERE run_key = ?1");
        let greatest: Option<i64> = connection.prepare_cached(&greatest)?.query_row([key], |row| row.get(0))?;
        if let Some(greatest) = greatest {
            raise_floor(connection, table, greatest)?;
        }
    }
    for sql in [
        "DELETE FROM callback WHERE run_key = ?1",
        "DELETE FROM deadline WHERE run_key = ?1",
        "DELETE FROM dagrun_asset_event WHERE run_key = ?1",
        "UPDATE backfill_dag_run SET run_key = NULL, exception_reason = 'removed' WHERE run_key = ?1",
    ] {
        connection.prepare_cached(sql)?.execute([key])?;
    }
    connection
        .prepare_cached("INSERT OR REPLACE INTO retired_run (key, dag_id, run_id, retired_at) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![key, run.dag_id.as_str(), run.run_id.as_str(), micros(at)])?;
    raise_floor(connection, "dag_run", key)
}

/// At most `rows` instances, with all that belongs to them, and no more than there is time for.
fn drop_instances<'a>(
    connection: &Connection,
    purge: &'a Purge,
    patience: &Patience,
    counts: &mut Counts<'a>,
) -> Result<(), Fault> {
    let (mut left, mut greatest) = (purge.rows, 0);
    for (run, dag_id) in &purge.runs {
        let goes_on = drop_instances_of(connection, (*run, dag_id), &mut left, &mut greatest, patience, counts)?;
        if !goes_on {
            break;
        }
    }
    if greatest > 0 { raise_floor(connection, "task_instance", greatest) } else { Ok(()) }
}

/// Takes those that go from `left`. False: the rest is for another time.
fn drop_instances_of<'a>(
    connection: &Connection,
    (run, dag_id): (RunKey, &'a DagId),
    left: &mut u32,
    greatest: &mut i64,
    patience: &Patience,
    counts: &mut Counts<'a>,
) -> Result<bool, Fault> {
    let found: Vec<(i64, Option<TaskState>)> = connection
        .prepare_cached(
            "SELECT key, state FROM task_instance WHERE run_key = ?1 AND EXISTS (SELECT 1 FROM retired_run WHERE key = ?1) LIMIT ?2",
        )?
        .query_map(params![run.0, *left], |row| Ok((row.get(0)?, counted_state(row.get_ref(1)?))))?
        .collect::<rusqlite::Result<_>>()?;
    for (key, state) in found {
        if *greatest > 0 && patience.is_over() {
            return Ok(false);
        }
        // One value may be large, and a task may have pushed many.
        let next_value =
            "DELETE FROM xcom WHERE instance_key = ?1 AND key = (SELECT min(key) FROM xcom WHERE instance_key = ?1)";
        let mut next_value = connection.prepare_cached(next_value)?;
        while next_value.execute([key])? > 0 {
            if patience.is_over() {
                return Ok(false);
            }
        }
        for sql in [
            "DELETE FROM task_instance_history WHERE instance_key = ?1",
            "DELETE FROM task_map WHERE instance_key = ?1",
            "DELETE FROM task_instance WHERE key = ?1",
        ] {
            connection.prepare_cached(sql)?.execute([key])?;
        }
        if let Some(state) = state {
            counts.gone(dag_id, "task", state.as_str(), 1);
        }
        *greatest = (*greatest).max(key);
        *left -= 1;
    }
    Ok(*left > 0)
}

/// None: no minflow wrote it, and none has counted it.
fn counted_state(state: ValueRef<'_>) -> Option<TaskState> {
    match state {
        ValueRef::Null => Some(TaskState::None),
        other => other.as_str().ok().and_then(|name| TaskState::from_str(name).ok()),
    }
}

/// All that is known of a DAG without runs.
fn drop_dag(connection: &Connection, dag_id: &DagId) -> Result<(), Fault> {
    let floor: Option<i64> =
        connection
            .query_row("SELECT max(key) FROM dag_version WHERE dag_id = ?1", [dag_id.as_str()], |row| row.get(0))?;
    raise_floor(connection, "dag_version", floor.unwrap_or_default())?;
    let backfill = "SELECT coalesce(max(id), 0) FROM backfill WHERE dag_id = ?1";
    raise_floor(connection, "backfill", connection.query_row(backfill, [dag_id.as_str()], |row| row.get(0))?)?;
    for sql in [
        "DELETE FROM backfill_dag_run WHERE backfill_id IN (SELECT id FROM backfill WHERE dag_id = ?1)",
        "DELETE FROM backfill WHERE dag_id = ?1",
        "DELETE FROM callback WHERE dag_id = ?1",
        "DELETE FROM deadline WHERE dag_id = ?1",
        "DELETE FROM expectation WHERE dag_id = ?1",
        "DELETE FROM failure_streak WHERE dag_id = ?1",
        "DELETE FROM asset_reference WHERE dag_id = ?1",
        "DELETE FROM asset_dag_run_queue WHERE dag_id = ?1",
        "DELETE FROM asset_consumer WHERE dag_id = ?1",
        "DELETE FROM state_count WHERE dag_id = ?1 AND NOT EXISTS (SELECT 1 FROM retired_run WHERE dag_id = ?1)",
        "DELETE FROM dag_version WHERE dag_id = ?1",
        "DELETE FROM dag WHERE dag_id = ?1",
    ] {
        connection.prepare_cached(sql)?.execute([dag_id.as_str()])?;
    }
    Ok(())
}
