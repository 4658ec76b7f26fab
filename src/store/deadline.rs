//! Rows of deadlines and of what is expected next.

use rusqlite::{Connection, Row, params};

use crate::model::deadline::DeadlineRow;
use crate::model::{DagId, DeadlineKey, RunId, RunKey};
use crate::scheduler::StoreError;
use crate::scheduler::change::{DeadlineWrite, ExpectationWrite};
use crate::store::Reader;
use crate::store::fault::Fault;
use crate::store::read::collect;
use crate::store::row::{Fields, maybe_micros, micros};

pub(super) fn put(connection: &Connection, writes: &[DeadlineWrite]) -> Result<(), Fault> {
    for write in writes {
        match write {
            DeadlineWrite::Remove(key) => {
                connection.prepare_cached("DELETE FROM deadline WHERE key = ?1")?.execute([key.0])?;
            }
            DeadlineWrite::Put(row) => {
                connection
                    .prepare_cached(
                        "INSERT INTO deadline (key, dag_id, run_key, number, deadline_at, missed_at) \
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                         ON CONFLICT (key) DO UPDATE SET deadline_at = ?5, missed_at = ?6",
                    )?
                    .execute(params![
                        row.key.0,
                        row.dag_id.as_str(),
                        row.run.as_ref().map(|(key, _)| key.0),
                        row.number,
                        micros(row.at),
                        maybe_micros(row.missed_at),
                    ])?;
            }
        }
    }
    Ok(())
}

pub(super) fn put_expectations(connection: &Connection, writes: &[ExpectationWrite]) -> Result<(), Fault> {
    for ExpectationWrite { dag_id, at } in writes {
        match at {
            Some(at) => connection
                .prepare_cached(
                    "INSERT INTO expectation (dag_id, expected_at) VALUES (?1, ?2) \
                     ON CONFLICT (dag_id) DO UPDATE SET expected_at = ?2",
                )?
                .execute(params![dag_id.as_str(), micros(*at)])?,
            None => {
                connection.prepare_cached("DELETE FROM expectation WHERE dag_id = ?1")?.execute([dag_id.as_str()])?
            }
        };
    }
    Ok(())
}

macro_rules! deadlines {
    ($rest:literal) => {
        concat!(
            "SELECT d.key, d.dag_id, d.run_key, r.run_id, d.number, d.deadline_at, d.missed_at FROM deadline d \
             LEFT JOIN dag_run r ON r.key = d.run_key",
            $rest
        )
    };
}
pub(super) const ALL: &str = deadlines!(" ORDER BY d.key");
/// Those that nobody has found missed.
pub(super) const OPEN: &str = deadlines!(" WHERE d.missed_at IS NULL ORDER BY d.key");
const MISSED: &str = deadlines!(" WHERE d.missed_at IS NOT NULL ORDER BY d.missed_at DESC LIMIT ?1");
pub(super) const EXPECTATIONS: &str = "SELECT dag_id, expected_at FROM expectation ORDER BY dag_id";

pub(super) fn row(row: &Row<'_>) -> Result<DeadlineRow, Fault> {
    let mut fields = Fields::new(row, "deadline");
    let (key, dag_id): (i64, String) = (fields.take()?, fields.take()?);
    let (run, run_id): (Option<i64>, Option<String>) = (fields.take()?, fields.take()?);
    Ok(DeadlineRow {
        key: DeadlineKey(key),
        dag_id: DagId::from(dag_id),
        run: run.map(RunKey).zip(run_id.map(RunId::from)),
        number: fields.take()?,
        at: fields.instant()?,
        missed_at: fields.maybe_instant()?,
    })
}

pub(super) fn open(connection: &Connection) -> Result<Vec<DeadlineRow>, Fault> {
    collect(connection, OPEN, [], row)
}

pub(super) fn expectations(connection: &Connection) -> Result<Vec<ExpectationWrite>, Fault> {
    collect(connection, EXPECTATIONS, [], expectation)
}

pub(super) fn expectation(row: &Row<'_>) -> Result<ExpectationWrite, Fault> {
    let mut fields = Fields::new(row, "expectation");
    let dag_id = DagId::from(fields.take::<String>()?);
    Ok(ExpectationWrite { dag_id, at: Some(fields.instant()?) })
}

impl Reader {
    /// The deadlines that were missed last, newest first.
    pub fn missed_deadlines(&self, limit: u32) -> Result<Vec<DeadlineRow>, StoreError> {
        self.list("list the missed deadlines", MISSED, [limit], row)
    }
}
