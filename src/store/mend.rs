//! Rows of unfinished runs that cannot be read, since no minflow wrote them: their runs fail, so that the start can go on with the others.
//!
//! Called only when the state cannot be loaded otherwise; what it changes stands in the log and with the run.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::{Connection, params};

use crate::store::fault::Fault;
use crate::store::read::{UNFINISHED_INSTANCES, UNFINISHED_RUNS, instance, run};
use crate::store::row::micros;

const FAIL_RUN: &str = "UPDATE dag_run SET state = 'failed', reason = ?2, end_date = ?3 WHERE key = ?1";
const FAIL_INSTANCE: &str = "UPDATE task_instance SET state = 'failed', reason = ?2, end_date = ?3 WHERE key = ?1";
const END_INSTANCES: &str = "UPDATE task_instance SET state = 'skipped', end_date = ?2 WHERE run_key = ?1 AND (state IS NULL OR \
    state NOT IN ('success', 'failed', 'skipped', 'upstream_failed', 'removed'))";
const DAG_OF_RUN: &str = "SELECT dag_id FROM dag_run WHERE key = ?1";
const FORGET_COUNTS: &str = "DELETE FROM state_count WHERE dag_id = ?1";
const COUNT: &str = "INSERT INTO state_count (dag_id, kind, state, count) \
    SELECT ?1, 'run', state, count(*) FROM dag_run WHERE dag_id = ?1 GROUP BY state UNION ALL \
    SELECT ?1, 'task', coalesce(i.state, 'none'), count(*) FROM dag_run r CROSS JOIN task_instance i ON i.run_key = r.key \
    WHERE r.dag_id = ?1 GROUP BY i.state";

/// Fails each unfinished run that has such a row, itself or of an instance.
pub(super) fn mend(connection: &mut Connection, now: Timestamp) -> Result<(), Fault> {
    let transaction = connection.transaction()?;
    // By run, what is wrong with it; and those of its instances that are.
    let (mut faults, mut instances) = (BTreeMap::<i64, String>::new(), Vec::<(i64, String)>::new());
    {
        let mut statement = transaction.prepare(UNFINISHED_RUNS)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Err(fault) = run(row) {
                faults.insert(row.get(0)?, worded(fault)?);
            }
        }
        let mut statement = transaction.prepare(UNFINISHED_INSTANCES)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Err(fault) = instance(row) {
                let what = worded(fault)?;
                instances.push((row.get(0)?, what.clone()));
                faults.entry(row.get(1)?).or_insert(what);
            }
        }
    }
    let mut dags = BTreeSet::new();
    for (key, what) in instances {
        transaction.execute(FAIL_INSTANCE, params![key, what, micros(now)])?;
    }
    for (key, what) in faults {
        log::error!("the run with the key {key} fails: {what}");
        transaction.execute(FAIL_RUN, params![key, what, micros(now)])?;
        transaction.execute(END_INSTANCES, params![key, micros(now)])?;
        dags.insert(transaction.query_row(DAG_OF_RUN, [key], |row| row.get::<_, String>(0))?);
    }
    for dag_id in dags {
        transaction.execute(FORGET_COUNTS, [&dag_id])?;
        transaction.execute(COUNT, [&dag_id])?;
    }
    transaction.commit()?;
    Ok(())
}

/// Of a row that cannot be: the reason. Of all else: the fault.
fn worded(fault: Fault) -> Result<String, Fault> {
    match fault {
        Fault::Value { place, what } => Ok(format!("an impossible row: {place}: {what}")),
        other => Err(other),
    }
}
