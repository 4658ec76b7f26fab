//! The questions that the command line, the status pages and the workers ask.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, Params, Row, params};
use serde_json::Value;

use crate::model::SkipDecision;
use crate::model::{DagId, DagRun, Instance, InstanceKey, Pool, RunId, RunKey, TaskId, VersionKey};
use crate::scheduler::StoreError;
use crate::scheduler::change::{ImportError, LengthWrite, VersionWrite};
use crate::store::fault::{Fault, LeftOut};
use crate::store::open::Kind;
use crate::store::place::{FileIdentity, identity};
use crate::store::records::{AuditFilter, AuditRecord, DagCounts, DagListing, RecentFailure, StateCount};
use crate::store::row::{
    DAG_COLUMNS, Fields, dag_columns, import_error_columns, instance_columns, micros, run_columns, try_columns,
    version_columns,
};
use crate::store::{OpenError, open};

/// A connection that only reads. It never waits for the writer, nor the writer for it.
pub struct Reader {
    connection: Connection,
    /// The file that `connection` has open.
    file: Option<FileIdentity>,
    path: PathBuf,
    kind: Kind,
    left_out: LeftOut,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("path", &self.path).finish_non_exhaustive()
    }
}

pub(super) const LIST_DAGS: &str = concat!(
    "SELECT ",
    dag_columns!(),
    ", ",
    run_columns!(),
    " FROM dag d LEFT JOIN dag_run r ON r.key = (SELECT n.key FROM dag_run n WHERE n.dag_id = d.dag_id \
     ORDER BY n.run_after DESC, n.key DESC LIMIT 1) ORDER BY d.dag_id"
);
pub(super) const RECENT_DAGS: &str = concat!(
    "SELECT ",
    dag_columns!(),
    ", ",
    run_columns!(),
    " FROM dag d LEFT JOIN dag_run r ON r.key = (SELECT n.key FROM dag_run n WHERE n.dag_id = d.dag_id \
     ORDER BY n.run_after DESC, n.key DESC LIMIT 1) WHERE d.is_active \
     ORDER BY r.run_after DESC NULLS LAST, d.dag_id LIMIT ?1"
);
pub(super) const ONE_DAG: &str = concat!(
    "SELECT ",
    dag_columns!(),
    ", ",
    run_columns!(),
    " FROM dag d LEFT JOIN dag_run r ON r.key = (SELECT n.key FROM dag_run n WHERE n.dag_id = d.dag_id \
     ORDER BY n.run_after DESC, n.key DESC LIMIT 1) WHERE d.dag_id = ?1"
);
pub(super) const RUNS: &str = concat!(
    "SELECT ",
    run_columns!(),
    " FROM dag_run r WHERE r.dag_id = ?1 ORDER BY r.run_after DESC, r.key DESC LIMIT ?2"
);
pub(super) const NEWEST_KEYS: &str =
    "SELECT r.key FROM dag_run r WHERE r.dag_id = ?1 ORDER BY r.run_after DESC, r.key DESC LIMIT ?2";
pub(super) const RUN_BY_ID: &str =
    concat!("SELECT ", run_columns!(), " FROM dag_run r WHERE r.dag_id = ?1 AND r.run_id = ?2");
pub(super) const RUN_BY_KEY: &str = concat!("SELECT ", run_columns!(), " FROM dag_run r WHERE r.key = ?1");
pub(super) const RUN_BY_DATE: &str =
    concat!("SELECT ", run_columns!(), " FROM dag_run r WHERE r.dag_id = ?1 AND r.logical_date = ?2");
pub(super) const UNFINISHED_RUNS: &str = concat!(
    "SELECT ",
    run_columns!(),
    " FROM dag_run r WHERE r.state IN ('queued', 'running') AND (r.state = 'running' OR r.backfill_id IS NULL OR r.is_released) ORDER BY r.key"
);
pub(super) const PREVIOUS_SUCCESS: &str = concat!(
    "SELECT ",
    run_columns!(),
    " FROM dag_run r WHERE r.dag_id = ?1 AND r.logical_date < ?2 AND r.state = 'success' \
     ORDER BY r.logical_date DESC LIMIT 1"
);
pub(super) const RUN_BEFORE: &str = concat!(
    "SELECT ",
    run_columns!(),
    " FROM dag_run r WHERE r.dag_id = ?1 AND r.logical_date < ?2 ORDER BY r.logical_date DESC LIMIT 1"
);
/// Goes over the manual runs that lie between.
pub(super) const RUN_BEFORE_BUT_MANUAL: &str = concat!(
    "SELECT ",
    run_columns!(),
    " FROM dag_run r WHERE r.dag_id = ?1 AND r.logical_date < ?2 AND r.run_type <> 'manual' \
     ORDER BY r.logical_date DESC LIMIT 1"
);
pub(super) const DATE_BEFORE: &str = "SELECT r.logical_date FROM dag_run r WHERE r.dag_id = ?1 AND r.logical_date < ?2 \
     ORDER BY r.logical_date DESC LIMIT 1";
pub(super) const DATE_BEFORE_BUT_MANUAL: &str = "SELECT r.logical_date FROM dag_run r WHERE r.dag_id = ?1 \
     AND r.logical_date < ?2 AND r.run_type <> 'manual' ORDER BY r.logical_date DESC LIMIT 1";
pub(super) const TASK_STATES: &str =
    "SELECT i.key, i.state FROM task_instance i WHERE i.run_key = ?1 AND i.task_id = ?2 ORDER BY i.map_index";
/// For a task that is new it goes over all earlier runs of the DAG, by two indexes.
pub(super) const EARLIER_INSTANCE: &str = "SELECT i.key FROM dag_run r CROSS JOIN task_instance i \
     ON i.run_key = r.key AND i.task_id = ?2 WHERE r.dag_id = ?1 AND r.logical_date < ?3 LIMIT 1";
pub(super) const NEWEST_SCHEDULED: &str = concat!(
    "SELECT ",
    run_columns!(),
    " FROM dag_run r WHERE r.dag_id = ?1 AND r.logical_date IS NOT NULL AND r.run_type = 'scheduled' \
     ORDER BY r.logical_date DESC LIMIT 1"
);
pub(super) const INSTANCES: &str =
    concat!("SELECT ", instance_columns!(), " FROM task_instance i WHERE i.run_key = ?1 ORDER BY i.key");
pub(super) const INSTANCES_BEHIND: &str = concat!(
    "SELECT ",
    instance_columns!(),
    " FROM task_instance i WHERE i.run_key = ?1 AND (i.task_id, i.map_index) > (?2, ?3) \
     ORDER BY i.task_id, i.map_index LIMIT ?4"
);
pub(super) const INSTANCE: &str = concat!(
    "SELECT ",
    instance_columns!(),
    " FROM task_instance i WHERE i.run_key = ?1 AND i.task_id = ?2 AND i.map_index = ?3"
);
pub(super) const GRID: &str = concat!(
    "SELECT ",
    instance_columns!(),
    " FROM task_instance i WHERE i.run_key IN (SELECT r.key FROM dag_run r WHERE r.dag_id = ?1 \
     ORDER BY r.run_after DESC, r.key DESC LIMIT ?2) ORDER BY i.key"
);
pub(super) const UNFINISHED_INSTANCES: &str = concat!(
    "SELECT ",
    instance_columns!(),
    " FROM task_instance i WHERE i.run_key IN (SELECT key FROM dag_run WHERE state IN ('queued', 'running') \
     AND (state = 'running' OR backfill_id IS NULL OR is_released)) ORDER BY i.key"
);
pub(super) const UNFINISHED_LENGTHS: &str = "SELECT m.instance_key, m.key, m.length FROM dag_run r \
     CROSS JOIN task_instance i ON i.run_key = r.key CROSS JOIN task_map m ON m.instance_key = i.key \
     WHERE r.state IN ('queued', 'running') AND (r.state = 'running' OR r.backfill_id IS NULL OR r.is_released) ORDER BY m.instance_key, m.key";
pub(super) const LENGTHS: &str = "SELECT m.instance_key, m.key, m.length FROM task_instance i \
     CROSS JOIN task_map m ON m.instance_key = i.key WHERE i.run_key = ?1 ORDER BY m.instance_key, m.key";
/// What the branches of a run have decided; few tasks push under this key.
pub(super) const DECISIONS: &str = "SELECT x.instance_key, x.value FROM task_instance i CROSS JOIN xcom x \
     ON x.instance_key = i.key AND x.key = 'skipmixin_key' WHERE i.run_key = ?1 ORDER BY i.key";
pub(super) const UNFINISHED_DECISIONS: &str = "SELECT x.instance_key, x.value, x.key FROM dag_run r CROSS JOIN task_instance i \
     ON i.run_key = r.key CROSS JOIN xcom x ON x.instance_key = i.key AND x.key = 'skipmixin_key' \
     WHERE r.state IN ('queued', 'running') AND (r.state = 'running' OR r.backfill_id IS NULL OR r.is_released) ORDER BY i.key";
pub(super) const EARLIER_TRIES: &str = concat!(
    "SELECT i.key, i.run_key, i.task_id, i.map_index, ",
    try_columns!("h"),
    ", NULL, NULL FROM task_instance_history h JOIN task_instance i ON i.key = h.instance_key WHERE h.instance_key = ?1 \
     ORDER BY h.try_number"
);
pub(super) const INSTANCE_BY_KEY: &str =
    concat!("SELECT ", instance_columns!(), " FROM task_instance i WHERE i.key = ?1");
pub(super) const XCOM: &str = "SELECT i.key, x.value, x.file FROM task_instance i JOIN xcom x ON x.instance_key = i.key \
     WHERE i.run_key = ?1 AND i.task_id = ?2 AND i.map_index = ?3 AND x.key = ?4";
pub(super) const XCOMS: &str = "SELECT i.key, i.map_index, x.value, x.file FROM task_instance i JOIN xcom x \
     ON x.instance_key = i.key WHERE i.run_key = ?1 AND i.task_id = ?2 AND x.key = ?3 ORDER BY i.map_index";
pub(super) const RUN_WITH_XCOM: &str = "SELECT r.key FROM dag_run r WHERE r.dag_id = ?1 AND r.logical_date < ?2 \
     AND EXISTS (SELECT 1 FROM task_instance i JOIN xcom x ON x.instance_key = i.key \
     WHERE i.run_key = r.key AND i.task_id = ?3 AND x.key = ?4) ORDER BY r.logical_date DESC LIMIT 1";
pub(super) const RECENT_FAILURES: &str = "SELECT i.key, r.dag_id, r.run_id, i.task_id, i.map_index, i.try_number, \
     i.end_date, i.exit_code, i.signal, i.reason, i.start_date, i.user_cpu, i.system_cpu, i.max_rss, i.read_bytes, i.write_bytes, \
     i.voluntary_switches, i.involuntary_switches FROM task_instance i JOIN dag_run r ON r.key = i.run_key WHERE i.state = 'failed' \
     ORDER BY i.end_date DESC LIMIT ?1";
pub(super) const LIVE_VERSIONS: &str =
    concat!("SELECT ", version_columns!(), " FROM dag d JOIN dag_version v ON v.key = d.version_key ORDER BY d.dag_id");
pub(super) const ALL_DAGS: &str = concat!("SELECT ", dag_columns!(), " FROM dag d ORDER BY d.dag_id");
pub(super) const IMPORT_ERRORS: &str =
    concat!("SELECT ", import_error_columns!(), ", position FROM import_error ORDER BY filename, position");
pub(super) const POOLS: &str = "SELECT name, slots, description, include_deferred FROM pool ORDER BY name";

impl Reader {
    /// Opens a database that is there, of the version of this minflow.
    ///
    /// # Errors
    /// It is absent, older, newer, damaged, or no database of minflow's.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let connection = open::reader(path)?;
        Ok(Self::of(connection, path, Kind::Database))
    }

    fn of(connection: Connection, path: &Path, kind: Kind) -> Self {
        let file = identity(path).ok().flatten();
        Self { connection, file, path: path.to_owned(), kind, left_out: LeftOut::logged() }
    }

    /// Has `tell` told of each row that a list leaves out since it cannot be read; else the log is.
    #[must_use]
    pub fn telling(mut self, tell: fn(&str)) -> Self {
        self.left_out = LeftOut::telling(tell);
        self
    }

    /// Opens what `db clean` has archived, or a backup.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_archive(path: &Path) -> Result<Self, OpenError> {
        let (connection, kind) = open::reader_of_any(path)?;
        Ok(Self::of(connection, path, kind))
    }

    /// It may have several runs of one name.
    pub(super) fn is_archive(&self) -> bool {
        self.kind == Kind::Archive
    }

    /// Whether no other file than the one that it reads stands at its path.
    pub(super) fn is_current(&self) -> bool {
        identity(&self.path).is_ok_and(|found| found.is_none() || found == self.file)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// In which the database lies.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Lets `ask` see the database as it is at its first question, whatever is committed meanwhile. Not to be nested.
    pub fn at_one_moment<T>(&self, ask: impl FnOnce(&Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let fault = |error: rusqlite::Error| Fault::from(error).into_store_error("begin to read", &self.path);
        let _moment = self.connection.unchecked_transaction().map_err(fault)?;
        ask(self)
    }

    /// All DAGs, also those whose file is gone, by dag_id.
    pub fn dags(&self) -> Result<Vec<DagListing>, StoreError> {
        self.list("list the DAGs", LIST_DAGS, [], |row| self.listing(row))
    }

    /// The DAGs with a file whose last run is newest, at most `limit`; those that never ran come last.
    pub fn recent_dags(&self, limit: u32) -> Result<Vec<DagListing>, StoreError> {
        self.list("list the DAGs", RECENT_DAGS, [limit], |row| self.listing(row))
    }

    pub fn dag(&self, dag_id: &str) -> Result<Option<DagListing>, StoreError> {
        self.one("read a DAG", ONE_DAG, [dag_id], |row| self.listing(row))
    }

    /// Broken are DAG files alone: that airflow.toml defines an asset otherwise than a file does is told of it as well.
    pub fn dag_counts(&self) -> Result<DagCounts, StoreError> {
        let sql = "SELECT count(*), count(*) FILTER (WHERE NOT is_paused), count(*) FILTER (WHERE is_paused), \
                   (SELECT count(DISTINCT e.filename) FROM import_error e WHERE e.code <> 'asset-conflict' \
                   OR EXISTS (SELECT 1 FROM dag d WHERE d.is_active AND d.file = e.filename)) FROM dag WHERE is_active";
        let counts = self.one("count the DAGs", sql, [], |row| {
            let count = |at| -> Result<u64, Fault> { Ok(row.get::<_, i64>(at)?.unsigned_abs()) };
            Ok(DagCounts { total: count(0)?, active: count(1)?, paused: count(2)?, broken: count(3)? })
        })?;
        Ok(counts.unwrap_or_default())
    }

    /// Runs of a DAG, newest first by run_after; all of them without a limit.
    pub fn runs(&self, dag_id: &str, limit: Option<u32>) -> Result<Vec<DagRun>, StoreError> {
        self.list("list the runs", RUNS, params![dag_id, limit.map_or(-1, i64::from)], run)
    }

    pub fn run(&self, dag_id: &str, run_id: &str) -> Result<Option<DagRun>, StoreError> {
        self.one("find a run", RUN_BY_ID, [dag_id, run_id], run)
    }

    pub fn run_by_logical_date(&self, dag_id: &str, logical_date: Timestamp) -> Result<Option<DagRun>, StoreError> {
        self.one("find a run", RUN_BY_DATE, params![dag_id, micros(logical_date)], run)
    }

    /// The run of type `scheduled` with the latest logical date.
    pub fn newest_scheduled(&self, dag_id: &str) -> Result<Option<DagRun>, StoreError> {
        self.one("find a run", NEWEST_SCHEDULED, [dag_id], run)
    }

    /// The successful run with the latest logical date before `before`.
    pub fn previous_success(&self, dag_id: &str, before: Timestamp) -> Result<Option<DagRun>, StoreError> {
        self.one("find the previous success", PREVIOUS_SUCCESS, params![dag_id, micros(before)], run)
    }

    /// All task instances of a run in the order in which they were made, which is the order of the DAG file.
    pub fn instances(&self, run: RunKey) -> Result<Vec<Instance>, StoreError> {
        self.list("list the task instances", INSTANCES, [run.0], instance)
    }

    /// `map_index` is -1 unless the task is mapped.
    pub fn instance(&self, run: RunKey, task_id: &str, map_index: i32) -> Result<Option<Instance>, StoreError> {
        self.one("find a task instance", INSTANCE, params![run.0, task_id, map_index], instance)
    }

    /// The task instances of the newest `runs` runs of a DAG.
    pub fn grid(&self, dag_id: &str, runs: u32) -> Result<Vec<Instance>, StoreError> {
        self.list("list the task instances", GRID, params![dag_id, runs], instance)
    }

    /// All tries of an instance, oldest first; the last is the current one.
    pub fn tries(&self, key: InstanceKey) -> Result<Vec<Instance>, StoreError> {
        let mut tries = self.list("list the tries", EARLIER_TRIES, [key.0], instance)?;
        tries.extend(self.one("list the tries", INSTANCE_BY_KEY, [key.0], instance)?);
        Ok(tries)
    }

    /// The value that a task pushed under `key`; null where it pushed none. `map_index` is -1 unless the task is mapped.
    pub fn xcom(&self, run: RunKey, task_id: &str, map_index: i32, key: &str) -> Result<Option<Value>, StoreError> {
        let found = self.one("read an XCom", XCOM, params![run.0, task_id, map_index, key], |row| {
            let mut fields = Fields::new(row, "xcom");
            fields.take::<i64>()?;
            Ok(self.xcom_value(&mut fields)?.0)
        })?;
        Ok(found.flatten())
    }

    /// The values that all instances of a task pushed under `key`, with their map indexes, in the order of these.
    pub fn xcoms(&self, run: RunKey, task_id: &str, key: &str) -> Result<Vec<(i32, Value)>, StoreError> {
        let found = self.all("read an XCom", XCOMS, params![run.0, task_id, key], |row| {
            let mut fields = Fields::new(row, "xcom");
            fields.take::<i64>()?;
            Ok((fields.take()?, self.xcom_value(&mut fields)?.0))
        })?;
        Ok(found.into_iter().filter_map(|(map_index, value)| Some((map_index, value?))).collect())
    }

    /// The same of the run with the latest logical date before `before` that has any.
    pub fn earlier_xcoms(
        &self,
        dag_id: &str,
        task_id: &str,
        key: &str,
        before: Timestamp,
    ) -> Result<Vec<(i32, Value)>, StoreError> {
        let run: Option<i64> =
            self.one("read an XCom", RUN_WITH_XCOM, params![dag_id, micros(before), task_id, key], |row| {
                Ok(row.get::<_, i64>(0)?)
            })?;
        run.map_or(Ok(Vec::new()), |run| self.xcoms(RunKey(run), task_id, key))
    }

    /// By file, in the order in which the file shows them.
    pub fn import_errors(&self) -> Result<Vec<ImportError>, StoreError> {
        self.list("list the import errors", IMPORT_ERRORS, [], import_error)
    }

    /// The task instances that failed last, newest first.
    pub fn recent_failures(&self, limit: u32) -> Result<Vec<RecentFailure>, StoreError> {
        self.list("list the failures", RECENT_FAILURES, [limit], |row| {
            let mut fields = Fields::new(row, "task_instance");
            fields.take::<i64>()?;
            Ok(RecentFailure {
                dag_id: DagId::from(fields.take::<String>()?),
                run_id: RunId::from(fields.take::<String>()?),
                task_id: TaskId::from(fields.take::<String>()?),
                map_index: fields.take()?,
                try_number: fields.take()?,
                end_date: fields.maybe_instant()?,
                exit_code: fields.take()?,
                signal: fields.take()?,
                reason: fields.take()?,
                start_date: fields.maybe_instant()?,
                usage: fields.usage()?,
            })
        })
    }

    pub fn pools(&self) -> Result<Vec<Pool>, StoreError> {
        self.list("list the pools", POOLS, [], |row| Fields::new(row, "pool").pool())
    }

    /// Kept counts, without those that are 0; of one DAG or of all.
    pub fn state_counts(&self, dag_id: Option<&str>) -> Result<Vec<StateCount>, StoreError> {
        let sql = "SELECT dag_id, kind, state, count FROM state_count WHERE count <> 0 AND (?1 IS NULL OR dag_id = ?1) \
                   ORDER BY dag_id, kind, state";
        self.list("read the counts by state", sql, [dag_id], state_count)
    }

    pub fn version(&self, key: VersionKey) -> Result<Option<VersionWrite>, StoreError> {
        let sql = concat!("SELECT ", version_columns!(), " FROM dag_version v WHERE v.key = ?1");
        self.one("read a DAG's definition", sql, [key.0], version)
    }

    /// The definitions of a DAG, oldest first.
    pub fn versions(&self, dag_id: &str) -> Result<Vec<VersionWrite>, StoreError> {
        let sql = concat!("SELECT ", version_columns!(), " FROM dag_version v WHERE v.dag_id = ?1 ORDER BY v.number");
        self.list("read a DAG's definitions", sql, [dag_id], version)
    }

    /// The latest entries of the audit log that are meant, newest first.
    pub fn audit(&self, meant: &AuditFilter<'_>, limit: u32) -> Result<Vec<AuditRecord>, StoreError> {
        let sql = "SELECT key, at, event, dag_id, run_id, task_id, owner, extra FROM log WHERE (?2 IS NULL OR dag_id = ?2) \
                   AND (?3 IS NULL OR run_id = ?3) AND (?4 IS NULL OR at >= ?4) AND (?5 IS NULL OR event = ?5) ORDER BY key DESC LIMIT ?1";
        let AuditFilter { dag_id, run_id, since, event } = meant;
        self.list("read the audit log", sql, params![limit, dag_id, run_id, since.map(micros), event], entry)
    }

    /// The runs that are not over, by their ids.
    pub fn unfinished(&self) -> Result<Vec<(DagId, RunId)>, StoreError> {
        let sql = "SELECT dag_id, run_id FROM dag_run WHERE state IN ('queued', 'running')";
        self.list("list the runs that are not over", sql, [], |row| {
            Ok((DagId::from(row.get::<_, String>(0)?), RunId::from(row.get::<_, String>(1)?)))
        })
    }

    /// Whether another run of the DAG has a run_dir of the same name.
    pub fn has_namesake(&self, dag_id: &str, run_id: &str) -> Result<bool, StoreError> {
        // Made-up names hold an instant each, and no two of them differ in what is replaced alone.
        if run_id.contains("__") {
            return Ok(false);
        }
        let sql = "SELECT 1 FROM dag_run WHERE dag_id = ?1 AND run_id <> ?2 AND replace(replace(replace(run_id, ':', '_'), '+', '_'), '/', '_') \
                   = replace(replace(replace(?2, ':', '_'), '+', '_'), '/', '_') LIMIT 1";
        Ok(self.one("look for a run", sql, [dag_id, run_id], |row| Ok(row.get::<_, i64>(0)?))?.is_some())
    }

    pub fn schema_version(&self) -> Result<u32, StoreError> {
        let found = self.one("read the version", "PRAGMA user_version", [], |row| Ok(row.get(0)?))?;
        Ok(found.unwrap_or_default())
    }

    pub(super) fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn ask<T>(
        &self,
        action: &str,
        ask: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        ask(&self.connection).map_err(|fault| fault.into_store_error(action, &self.path))
    }

    /// A DAG whose last run cannot be read is listed without it.
    fn listing(&self, row: &Row<'_>) -> Result<DagListing, Fault> {
        let dag = Fields::new(row, "dag").dag()?;
        let has_run = row.get_ref(DAG_COLUMNS)? != rusqlite::types::ValueRef::Null;
        let last_run = match has_run.then(|| Fields::starting_at(row, "dag_run", DAG_COLUMNS).run()) {
            Some(Err(Fault::Value { row, column, what })) => {
                self.left_out.note(&row, &column, &what);
                None
            }
            last_run => last_run.transpose()?,
        };
        Ok(DagListing { dag, last_run })
    }

    /// For people: without the rows that cannot be read, which are told of.
    pub(super) fn list<T>(
        &self,
        action: &str,
        sql: &str,
        params: impl Params,
        read: impl Fn(&Row<'_>) -> Result<T, Fault>,
    ) -> Result<Vec<T>, StoreError> {
        let found = collect_readable(&self.connection, sql, params, &self.left_out, read);
        found.map_err(|fault| fault.into_store_error(action, &self.path))
    }

    /// For tasks, whose work would be another one without a row.
    pub(super) fn all<T>(
        &self,
        action: &str,
        sql: &str,
        params: impl Params,
        read: impl Fn(&Row<'_>) -> Result<T, Fault>,
    ) -> Result<Vec<T>, StoreError> {
        collect(&self.connection, sql, params, read).map_err(|fault| fault.into_store_error(action, &self.path))
    }

    pub(super) fn one<T>(
        &self,
        action: &str,
        sql: &str,
        params: impl Params,
        read: impl Fn(&Row<'_>) -> Result<T, Fault>,
    ) -> Result<Option<T>, StoreError> {
        first(&self.connection, sql, params, read).map_err(|fault| fault.into_store_error(action, &self.path))
    }
}

/// Null: a user's own XCom of that name.
pub(super) fn decision(row: &Row<'_>) -> Result<Option<(InstanceKey, SkipDecision)>, Fault> {
    let mut fields = Fields::new(row, "xcom");
    let key = InstanceKey(fields.take()?);
    Ok(SkipDecision::from_xcom(&fields.json()?).map(|decision| (key, decision)))
}

pub(super) fn pools(connection: &Connection) -> Result<Vec<Pool>, Fault> {
    collect(connection, POOLS, [], |row| Fields::new(row, "pool").pool())
}

pub(super) fn run(row: &Row<'_>) -> Result<DagRun, Fault> {
    Fields::new(row, "dag_run").run()
}

pub(super) fn instance(row: &Row<'_>) -> Result<Instance, Fault> {
    Fields::new(row, "task_instance").instance()
}

pub(super) fn length(row: &Row<'_>) -> Result<LengthWrite, Fault> {
    let mut fields = Fields::new(row, "task_map");
    Ok(LengthWrite { instance: InstanceKey(fields.take()?), key: fields.take()?, length: fields.take()? })
}

pub(super) fn version(row: &Row<'_>) -> Result<VersionWrite, Fault> {
    Fields::new(row, "dag_version").version()
}

pub(super) fn import_error(row: &Row<'_>) -> Result<ImportError, Fault> {
    Fields::new(row, "import_error").import_error()
}

/// Of the audit log.
pub(super) fn entry(row: &Row<'_>) -> Result<AuditRecord, Fault> {
    let mut fields = Fields::new(row, "log");
    fields.take::<i64>()?;
    Ok(AuditRecord {
        at: fields.instant()?,
        event: fields.take()?,
        dag_id: fields.take::<Option<String>>()?.map(DagId::from),
        run_id: fields.take()?,
        task_id: fields.take()?,
        owner: fields.take()?,
        extra: fields.json()?,
    })
}

pub(super) fn state_count(row: &Row<'_>) -> Result<StateCount, Fault> {
    let mut fields = Fields::new(row, "state_count");
    Ok(StateCount {
        dag_id: DagId::from(fields.take::<String>()?),
        kind: fields.take()?,
        state: fields.take()?,
        count: fields.take()?,
    })
}

pub(super) fn collect<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl Fn(&Row<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// The same without the rows that cannot be read.
pub(super) fn collect_readable<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    left_out: &LeftOut,
    read: impl Fn(&Row<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let found = collect(connection, sql, params, |row| match read(row) {
        Err(Fault::Value { row, column, what }) => {
            left_out.note(&row, &column, &what);
            Ok(None)
        }
        found => found.map(Some),
    })?;
    Ok(found.into_iter().flatten().collect())
}

pub(super) fn first<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl Fn(&Row<'_>) -> Result<T, Fault>,
) -> Result<Option<T>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    rows.next()?.map(read).transpose()
}
