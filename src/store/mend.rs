//! Rows of unfinished runs that cannot be read, since no minflow wrote them: their runs fail, so that the start can go on with the others,
//! and what cannot be read gives way to something that can, so that nobody else stumbles over it.
//!
//! Called only when the state cannot be loaded otherwise; what it changes stands in the log, with the run, and in the audit log, which keeps
//! what was there.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};
use serde_json::{Value, json};

use crate::store::fault::Fault;
use crate::store::read::{
    INSTANCE_BY_KEY, RUN_BY_KEY, UNFINISHED_INSTANCES, UNFINISHED_RUNS, collect, first, instance, run,
};
use crate::store::row::micros;

const FAIL_RUN: &str = "UPDATE dag_run SET state = 'failed', reason = ?2, end_date = ?3 WHERE key = ?1";
const FAIL_INSTANCE: &str = "UPDATE task_instance SET state = 'failed', reason = ?2, end_date = ?3 WHERE key = ?1";
const END_INSTANCES: &str = "UPDATE task_instance SET state = 'skipped', end_date = ?2 WHERE run_key = ?1 AND (state IS NULL OR \
    state NOT IN ('success', 'failed', 'skipped', 'upstream_failed', 'removed'))";
const RUN_OF_INSTANCE: &str = "SELECT run_key FROM task_instance WHERE key = ?1";
const IDS_OF_RUN: &str = "INSERT INTO log (at, event, dag_id, run_id, task_id, owner, extra) \
    SELECT ?2, 'mend', dag_id, run_id, NULL, 'minflow', ?3 FROM dag_run WHERE key = ?1";
const IDS_OF_INSTANCE: &str = "INSERT INTO log (at, event, dag_id, run_id, task_id, owner, extra) \
    SELECT ?2, 'mend', r.dag_id, r.run_id, i.task_id, 'minflow', ?3 FROM task_instance i JOIN dag_run r ON r.key = i.run_key WHERE i.key = ?1";
const DAG_OF_RUN: &str = "SELECT dag_id FROM dag_run WHERE key = ?1";
const COUNTED_DAGS: &str = "SELECT DISTINCT dag_id FROM state_count";
const FORGET_COUNTS: &str = "DELETE FROM state_count WHERE dag_id = ?1";
const COUNT: &str = "INSERT INTO state_count (dag_id, kind, state, count) \
    SELECT ?1, 'run', state, count(*) FROM dag_run WHERE dag_id = ?1 GROUP BY state UNION ALL \
    SELECT ?1, 'task', coalesce(i.state, 'none'), count(*) FROM dag_run r CROSS JOIN task_instance i ON i.run_key = r.key \
    WHERE r.dag_id = ?1 GROUP BY i.state";

/// A table whose rows are read by key, and what stands in the place of a value that cannot be read: SQL, in which `?2` is now. Null where
/// nothing is named.
struct Table {
    name: &'static str,
    by_key: &'static str,
    read: fn(&Row<'_>) -> Result<(), Fault>,
    safe: &'static [(&'static str, &'static str)],
}

const RUN: Table = Table {
    name: "dag_run",
    by_key: RUN_BY_KEY,
    read: |row| run(row).map(drop),
    safe: &[
        ("dag_id", "'unreadable'"),
        ("run_id", "'unreadable__' || key"),
        ("run_type", "'manual'"),
        ("run_after", "?2"),
        ("conf", "'{}'"),
        ("is_released", "0"),
        ("clear_number", "0"),
    ],
};

const INSTANCE: Table = Table {
    name: "task_instance",
    by_key: INSTANCE_BY_KEY,
    read: |row| instance(row).map(drop),
    safe: &[
        ("task_id", "'unreadable__' || key"),
        // Below all that the task has: no two instances are one.
        (
            "map_index",
            "(SELECT coalesce(min(min(o.map_index), 0), 0) - 1 FROM task_instance o WHERE o.run_key = task_instance.run_key \
             AND o.task_id = task_instance.task_id AND typeof(o.map_index) = 'integer' AND o.map_index BETWEEN -1000000 AND 0)",
        ),
        ("state", "'failed'"),
        (
            "try_number",
            "1 + (SELECT coalesce(max(try_number), 0) FROM task_instance_history WHERE instance_key = task_instance.key)",
        ),
        ("max_tries", "0"),
        ("pool", "'default_pool'"),
        ("pool_slots", "1"),
        ("priority_weight", "1"),
        ("operator", "'unreadable'"),
    ],
};

/// A value that could not be read.
struct Replaced {
    column: String,
    /// As JSON has it; of bytes that are no text, their hexadecimal digits.
    was: Value,
    what: String,
}

/// Fails each unfinished run that has such a row, itself or of an instance.
pub(super) fn mend(connection: &mut Connection, now: Timestamp) -> Result<(), Fault> {
    let transaction = connection.transaction()?;
    // By run, what is wrong with it.
    let mut faults = BTreeMap::<i64, String>::new();
    let mut replaced = Vec::new();
    for key in unread(&transaction, UNFINISHED_RUNS, RUN.read)? {
        let found = RUN.settle(&transaction, key, now)?;
        faults.extend(found.first().map(|first| (key, worded(&RUN, key, first))));
        replaced.extend(found.into_iter().map(|found| (&RUN, key, found)));
    }
    for key in unread(&transaction, UNFINISHED_INSTANCES, INSTANCE.read)? {
        let found = INSTANCE.settle(&transaction, key, now)?;
        let Some(what) = found.first().map(|first| worded(&INSTANCE, key, first)) else { continue };
        transaction.execute(FAIL_INSTANCE, params![key, what, micros(now)])?;
        faults.entry(transaction.query_row(RUN_OF_INSTANCE, [key], |row| row.get(0))?).or_insert(what);
        replaced.extend(found.into_iter().map(|found| (&INSTANCE, key, found)));
    }
    let mut dags = BTreeSet::new();
    for (key, what) in faults {
        log::error!("the run with the key {key} fails: {what}");
        transaction.execute(FAIL_RUN, params![key, what, micros(now)])?;
        transaction.execute(END_INSTANCES, params![key, micros(now)])?;
        dags.insert(transaction.query_row(DAG_OF_RUN, [key], |row| row.get::<_, String>(0))?);
    }
    if replaced.iter().any(|(.., found)| found.column == "dag_id") {
        // Which DAG has lost a run, nobody knows.
        dags.extend(collect(&transaction, COUNTED_DAGS, [], |row| Ok(row.get(0)?))?);
    }
    for (table, key, found) in replaced {
        note(&transaction, table, key, found, now)?;
    }
    for dag_id in dags {
        transaction.execute(FORGET_COUNTS, [&dag_id])?;
        transaction.execute(COUNT, [&dag_id])?;
    }
    transaction.commit()?;
    Ok(())
}

/// The keys of the rows that cannot be read.
fn unread(connection: &Connection, sql: &str, read: fn(&Row<'_>) -> Result<(), Fault>) -> Result<Vec<i64>, Fault> {
    let keys = collect(connection, sql, [], |row| match read(row) {
        Err(Fault::Value { .. }) => Ok(Some(row.get(0)?)),
        other => other.map(|()| None),
    })?;
    Ok(keys.into_iter().flatten().collect())
}

impl Table {
    /// Puts something readable in the place of each value of a row that is not.
    fn settle(&self, connection: &Connection, key: i64, now: Timestamp) -> Result<Vec<Replaced>, Fault> {
        let mut replaced: Vec<Replaced> = Vec::new();
        loop {
            match first(connection, self.by_key, [key], self.read) {
                Err(Fault::Value { column, what, .. }) if replaced.iter().all(|found| found.column != column) => {
                    let value = format!("SELECT \"{column}\" FROM {} WHERE key = ?1", self.name);
                    let was = connection.query_row(&value, [key], |row| Ok(shown(row.get_ref(0)?)))?;
                    let safe = self.safe.iter().find(|(name, _)| *name == column).map_or("NULL", |(_, safe)| safe);
                    let put =
                        format!("UPDATE {} SET \"{column}\" = {safe} WHERE key = ?1 AND ?2 IS NOT NULL", self.name);
                    connection.execute(&put, params![key, micros(now)])?;
                    replaced.push(Replaced { column, was, what });
                }
                read => return read.map(|_| replaced),
            }
        }
    }
}

/// What was there, in the log and in the audit log.
fn note(connection: &Connection, table: &Table, key: i64, found: Replaced, now: Timestamp) -> Result<(), Fault> {
    let Replaced { column, was, what } = found;
    log::error!(
        "{} {key}, column {column}: {what}; the audit log keeps what was there (`minflow audit --event mend`)",
        table.name
    );
    let ids = if table.name == RUN.name { IDS_OF_RUN } else { IDS_OF_INSTANCE };
    let extra = json!({"table": table.name, "key": key, "column": column, "was": was, "fault": what});
    connection.execute(ids, params![key, micros(now), extra.to_string()])?;
    Ok(())
}

fn shown(value: ValueRef<'_>) -> Value {
    let bytes = match value {
        ValueRef::Null => return Value::Null,
        ValueRef::Integer(number) => return number.into(),
        ValueRef::Real(number) => return number.into(),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => return text.into(),
            Err(_) => text,
        },
        ValueRef::Blob(bytes) => bytes,
    };
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({ "hex": digits })
}

fn worded(table: &Table, key: i64, found: &Replaced) -> String {
    format!("an impossible row: {} {key}, column {}: {}", table.name, found.column, found.what)
}
