//! What the scheduler reads: all that is not finished, at a start, and of what is, the little that a decision needs.

use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params};

use crate::model::SkipDecision;
use crate::model::{DagId, DagRun, Instance, InstanceKey, RunKey, TaskId, TaskState};
use crate::scheduler::change::{Earlier, LengthWrite, RunLookup, Snapshot};
use crate::store::fault::{Fault, LeftOut};
use crate::store::read::{
    ALL_DAGS, DATE_BEFORE, DATE_BEFORE_BUT_MANUAL, DECISIONS, EARLIER_INSTANCE, IMPORT_ERRORS, INSTANCES,
    INSTANCES_BEHIND, LENGTHS, LIVE_VERSIONS, NEWEST_KEYS, RUN_BEFORE, RUN_BEFORE_BUT_MANUAL, RUN_BY_DATE, RUN_BY_ID,
    RUN_BY_KEY, RUNS, TASK_STATES, UNFINISHED_RUNS, collect, collect_readable, decision, first, import_error, instance,
    length, pools, run, version,
};
use crate::store::row::{Fields, key_limit, micros};
use crate::store::unfinished::{self, SHARED_FROM, Unfinished};
use crate::store::{act, asset, backfill, callback, deadline, retire};

/// All that is not finished, read in one transaction, beside which nobody writes.
pub(super) fn snapshot(connection: &Connection) -> Result<Snapshot, Fault> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let next = |sql: &str| -> Result<i64, Fault> { Ok(transaction.query_row(sql, [], |row| row.get(0))?) };
    collect(connection, FLOORS, [], floor)?;
    let runs = collect(connection, UNFINISHED_RUNS, [], run)?;
    let Unfinished { instances, lengths, decisions } =
        unfinished::read(connection, runs.iter().map(|run| run.key), SHARED_FROM)?;
    Ok(Snapshot {
        dags: collect(connection, ALL_DAGS, [], |row| Fields::new(row, "dag").dag())?,
        versions: collect(connection, LIVE_VERSIONS, [], version)?,
        pools: pools(connection)?,
        runs,
        instances,
        paused: act::paused(connection)?,
        lengths,
        acts: act::unfinished(connection)?,
        callbacks: callback::unfinished(connection)?,
        streaks: callback::streaks(connection)?,
        next_callback_key: next(&next_key("callback", "key"))?,
        deadlines: deadline::open(connection)?,
        expectations: deadline::expectations(connection)?,
        next_deadline_key: next(&next_key("deadline", "key"))?,
        decisions,
        import_errors: collect(connection, IMPORT_ERRORS, [], import_error)?,
        next_run_key: next(&next_key("dag_run", "key"))?,
        next_instance_key: next(&next_key("task_instance", "key"))?,
        next_version_key: next(&next_key("dag_version", "key"))?,
        retiring: retire::names(connection)?,
        backfills: backfill::uncompleted(connection)?,
        next_backfill_id: next(&next_key("backfill", "id"))?,
        assets: asset::snapshot(&transaction)?,
    })
}

/// The greatest keys of rows that have gone, by table.
pub(super) const FLOORS: &str = "SELECT \"table\", key FROM key_floor ORDER BY \"table\"";

/// For its faults alone: where it counts, it is asked for by table.
pub(super) fn floor(row: &Row<'_>) -> Result<(), Fault> {
    let mut fields = Fields::new(row, "key_floor");
    fields.take::<String>()?;
    fields.take::<i64>().map(drop)
}

/// No key is given twice, also not that of a row that has gone. A key that no minflow can have given does not count.
fn next_key(table: &str, column: &str) -> String {
    const LIMIT: &str = key_limit!();
    format!(
        "SELECT max(coalesce((SELECT max({column}) FROM {table} WHERE {column} < {LIMIT}), 0), \
         coalesce((SELECT key FROM key_floor WHERE \"table\" = '{table}' AND key < {LIMIT}), 0)) + 1"
    )
}

pub(super) fn find_run(connection: &Connection, dag_id: &DagId, lookup: &RunLookup) -> Result<Option<DagRun>, Fault> {
    match lookup {
        RunLookup::ById(run_id) => first(connection, RUN_BY_ID, [dag_id.as_str(), run_id.as_str()], run),
        RunLookup::ByLogicalDate(date) => first(connection, RUN_BY_DATE, params![dag_id.as_str(), micros(*date)], run),
    }
}

pub(super) fn has_run(connection: &Connection, dag_id: &DagId, lookup: &RunLookup) -> Result<bool, Fault> {
    const BY_ID: &str = "SELECT 1 FROM dag_run WHERE dag_id = ?1 AND run_id = ?2";
    const BY_DATE: &str = "SELECT 1 FROM dag_run WHERE dag_id = ?1 AND logical_date = ?2";
    Ok(match lookup {
        RunLookup::ById(run_id) => connection.prepare_cached(BY_ID)?.exists([dag_id.as_str(), run_id.as_str()])?,
        RunLookup::ByLogicalDate(date) => {
            connection.prepare_cached(BY_DATE)?.exists(params![dag_id.as_str(), micros(*date)])?
        }
    })
}

pub(super) fn find_run_by_key(connection: &Connection, key: RunKey) -> Result<Option<DagRun>, Fault> {
    first(connection, RUN_BY_KEY, [key.0], run)
}

pub(super) fn run_before(
    connection: &Connection,
    dag_id: &DagId,
    Earlier { than, but_manual }: Earlier,
) -> Result<Option<DagRun>, Fault> {
    let sql = if but_manual { RUN_BEFORE_BUT_MANUAL } else { RUN_BEFORE };
    first(connection, sql, params![dag_id.as_str(), micros(than)], run)
}

pub(super) fn task_states(connection: &Connection, run: RunKey, task_id: &str) -> Result<Vec<TaskState>, Fault> {
    collect(connection, TASK_STATES, params![run.0, task_id], |row| {
        let mut fields = Fields::new(row, "task_instance");
        fields.take::<i64>()?;
        fields.task_state()
    })
}

pub(super) fn has_earlier_instance(
    connection: &Connection,
    dag_id: &DagId,
    task_id: &str,
    than: Timestamp,
) -> Result<bool, Fault> {
    let found = first(connection, EARLIER_INSTANCE, params![dag_id.as_str(), task_id, micros(than)], |row| {
        Ok(row.get::<_, i64>(0)?)
    })?;
    Ok(found.is_some())
}

/// Without those that cannot be read.
pub(super) fn newest_runs(
    connection: &Connection,
    dag_id: &DagId,
    limit: u32,
    left_out: &LeftOut,
) -> Result<Vec<DagRun>, Fault> {
    collect_readable(connection, RUNS, params![dag_id.as_str(), limit], left_out, run)
}

pub(super) fn newest_keys(connection: &Connection, dag_id: &DagId, limit: u32) -> Result<Vec<RunKey>, Fault> {
    collect(connection, NEWEST_KEYS, params![dag_id.as_str(), limit], |row| Ok(RunKey(row.get(0)?)))
}

/// A date that is none counts as the earliest: nothing is taken for older than it.
pub(super) fn date_before(
    connection: &Connection,
    dag_id: &DagId,
    Earlier { than, but_manual }: Earlier,
) -> Result<Option<Timestamp>, Fault> {
    let sql = if but_manual { DATE_BEFORE_BUT_MANUAL } else { DATE_BEFORE };
    first(connection, sql, params![dag_id.as_str(), micros(than)], |row| {
        Ok(Fields::new(row, "dag_run").instant().unwrap_or(Timestamp::MIN))
    })
}

/// All task instances of a run, in the order in which they were made.
pub(super) fn instances_of(connection: &Connection, run: RunKey) -> Result<Vec<Instance>, Fault> {
    collect(connection, INSTANCES, [run.0], instance)
}

/// By (task_id, map_index): a run may have more than are to be read at once.
pub(super) fn instances_behind(
    connection: &Connection,
    run: RunKey,
    after: Option<(&TaskId, i32)>,
    limit: usize,
) -> Result<Vec<Instance>, Fault> {
    // No task has an empty id.
    let (task_id, map_index) = after.map_or(("", 0), |(task_id, map_index)| (task_id.as_str(), map_index));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    collect(connection, INSTANCES_BEHIND, params![run.0, task_id, map_index, limit], instance)
}

pub(super) fn lengths_of(connection: &Connection, run: RunKey) -> Result<Vec<LengthWrite>, Fault> {
    collect(connection, LENGTHS, [run.0], length)
}

pub(super) fn decisions_of(connection: &Connection, run: RunKey) -> Result<Vec<(InstanceKey, SkipDecision)>, Fault> {
    Ok(collect(connection, DECISIONS, [run.0], decision)?.into_iter().flatten().collect())
}
