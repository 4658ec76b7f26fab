//! Backfills: their rows, the dates of each in order, and what has become of the dates.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, params};

use crate::model::{Backfill, BackfillId, DagId, DagRun, DateFate, NextRun};
use crate::scheduler::StoreError;
use crate::scheduler::change::{BackfillChanges, BackfillProgress, CancelledBackfill, FateWrite, PlannedDates};
use crate::store::fault::Fault;
use crate::store::put::Counts;
use crate::store::read::{Reader, collect, first};
use crate::store::row::{Fields, maybe_micros, micros, run_columns};

/// A date of a backfill as lists show it.
#[derive(Clone, Debug, PartialEq)]
pub struct BackfillDate {
    pub ordinal: u32,
    pub logical_date: jiff::Timestamp,
    pub run_id: Option<String>,
    /// Of the run; null while there is none.
    pub state: Option<String>,
    /// Why there is no run for it: `in flight`, `already exists`, `cancelled`, `removed` (it is gone), `unreadable` (nobody knows what for);
    /// null if there is one, or will be.
    pub reason: Option<String>,
}

/// How many dates of a backfill have come how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackfillCounts {
    pub dates: u64,
    pub skipped: u64,
    pub queued: u64,
    pub running: u64,
    pub success: u64,
    pub failed: u64,
}

macro_rules! backfill_columns {
    () => {
        "b.id, b.dag_id, b.from_date, b.to_date, b.reprocess_behavior, b.is_backwards, b.max_active_runs, b.dag_run_conf, \
         b.is_paused, b.is_cancelled, b.created_at, b.completed_at"
    };
}

pub(super) const ALL: &str = concat!("SELECT ", backfill_columns!(), " FROM backfill b ORDER BY b.id");
const OF_DAG: &str = concat!("SELECT ", backfill_columns!(), " FROM backfill b WHERE b.dag_id = ?1 ORDER BY b.id");
const ONE: &str = concat!("SELECT ", backfill_columns!(), " FROM backfill b WHERE b.id = ?1");
pub(super) const UNCOMPLETED: &str =
    concat!("SELECT ", backfill_columns!(), " FROM backfill b WHERE b.completed_at IS NULL ORDER BY b.id");
const DATES: &str = "SELECT d.sort_ordinal, d.logical_date, r.run_id, r.state, d.exception_reason FROM backfill_dag_run d \
     LEFT JOIN dag_run r ON r.key = d.run_key WHERE d.backfill_id = ?1 ORDER BY d.sort_ordinal";
/// The same of all that are not completed; which one stands behind.
pub(super) const ALL_PENDING: &str = "SELECT d.sort_ordinal, d.logical_date, d.data_interval_start, d.data_interval_end, d.run_after, \
     d.backfill_id FROM backfill b CROSS JOIN backfill_dag_run d ON d.backfill_id = b.id \
     WHERE b.completed_at IS NULL AND d.run_key IS NULL AND d.exception_reason IS NULL ORDER BY d.backfill_id, d.sort_ordinal";
const PENDING: &str = "SELECT sort_ordinal, logical_date, data_interval_start, data_interval_end, run_after \
     FROM backfill_dag_run WHERE backfill_id = ?1 AND run_key IS NULL AND exception_reason IS NULL ORDER BY sort_ordinal";
pub(super) const QUEUED_RUNS: &str = concat!(
    "SELECT ",
    run_columns!(),
    " FROM dag_run r WHERE r.backfill_id = ?1 AND r.state = 'queued' AND r.sort_ordinal > ?2 AND NOT r.is_released ORDER BY r.sort_ordinal \
     LIMIT ?3"
);
pub(super) const COUNT_RUNS: &str = "SELECT state, count(*) FROM dag_run WHERE backfill_id = ?1 GROUP BY state";

/// Those that wait for it.
pub(super) const COUNT_QUEUED: &str =
    "SELECT count(*) FROM dag_run WHERE backfill_id = ?1 AND state = 'queued' AND NOT is_released";

impl Reader {
    /// Backfills by number, of one DAG or of all.
    pub fn backfills(&self, dag_id: Option<&str>) -> Result<Vec<Backfill>, StoreError> {
        match dag_id {
            Some(dag_id) => self.list("list the backfills", OF_DAG, [dag_id], backfill),
            None => self.list("list the backfills", ALL, [], backfill),
        }
    }

    pub fn backfill(&self, id: BackfillId) -> Result<Option<Backfill>, StoreError> {
        self.one("read a backfill", ONE, [id.0], backfill)
    }

    /// The dates of a backfill in order, with what has become of them.
    pub fn backfill_dates(&self, id: BackfillId) -> Result<Vec<BackfillDate>, StoreError> {
        self.list("list the dates of a backfill", DATES, [id.0], |row| {
            let mut fields = Fields::new(row, "backfill_dag_run");
            Ok(BackfillDate {
                ordinal: fields.take()?,
                logical_date: fields.instant()?,
                run_id: fields.take()?,
                state: fields.take()?,
                reason: fields.take()?,
            })
        })
    }

    /// Runs are counted with the backfill that made or cleared them last.
    pub fn backfill_counts(&self, id: BackfillId) -> Result<BackfillCounts, StoreError> {
        let sql = "SELECT count(*), count(exception_reason) FILTER (WHERE exception_reason <> 'removed') FROM backfill_dag_run WHERE backfill_id = ?1";
        let dates = self.one("count the dates of a backfill", sql, [id.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (dates, skipped): (i64, i64) = dates.unwrap_or_default();
        let states = self.list("count the runs of a backfill", COUNT_RUNS, [id.0], state_count)?;
        let states: BTreeMap<String, i64> = states.into_iter().collect();
        let count = |state: &str| states.get(state).copied().unwrap_or_default().unsigned_abs();
        Ok(BackfillCounts {
            dates: dates.unsigned_abs(),
            skipped: skipped.unsigned_abs(),
            queued: count("queued"),
            running: count("running"),
            success: count("success"),
            failed: count("failed"),
        })
    }
}

/// Those that are not completed, with what is left of them to do.
pub(super) fn uncompleted(connection: &Connection) -> Result<Vec<BackfillProgress>, Fault> {
    let mut found = Vec::new();
    for backfill in collect(connection, UNCOMPLETED, [], backfill)? {
        let id = backfill.id.0;
        let pending = collect(connection, PENDING, [id], pending)?;
        let queued = first(connection, COUNT_QUEUED, [id], |row| Ok(row.get(0)?))?.unwrap_or_default();
        found.push(BackfillProgress { backfill, pending, queued });
    }
    Ok(found)
}

pub(super) fn find(connection: &Connection, id: BackfillId) -> Result<Option<Backfill>, Fault> {
    first(connection, ONE, [id.0], backfill)
}

/// The next queued runs after the place `after`, at most `limit`.
pub(super) fn queued_runs(
    connection: &Connection,
    id: BackfillId,
    after: u32,
    limit: usize,
) -> Result<Vec<DagRun>, Fault> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    collect(connection, QUEUED_RUNS, params![id.0, after, limit], |row| Fields::new(row, "dag_run").run())
}

pub(super) fn put<'a>(
    connection: &Connection,
    changes: &'a BackfillChanges,
    counts: &mut Counts<'a>,
) -> Result<(), Fault> {
    for backfill in &changes.backfills {
        put_backfill(connection, backfill)?;
    }
    for planned in &changes.planned {
        put_dates(connection, planned)?;
    }
    put_fates(connection, &changes.fates)?;
    changes.cancelled.iter().try_for_each(|cancelled| cancel(connection, cancelled, counts))
}

fn put_backfill(connection: &Connection, backfill: &Backfill) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "INSERT INTO backfill (id, dag_id, from_date, to_date, reprocess_behavior, is_backwards, max_active_runs, \
             dag_run_conf, is_paused, is_cancelled, created_at, completed_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
             ON CONFLICT (id) DO UPDATE SET is_paused = ?9, is_cancelled = ?10, completed_at = ?12",
        )?
        .execute(params![
            backfill.id.0,
            backfill.dag_id.as_str(),
            micros(backfill.from_date),
            micros(backfill.to_date),
            backfill.reprocess.as_str(),
            backfill.is_backwards,
            backfill.max_active_runs,
            backfill.conf.as_ref().map(super::put::json),
            backfill.is_paused,
            backfill.is_cancelled,
            micros(backfill.created_at),
            maybe_micros(backfill.completed_at),
        ])?;
    Ok(())
}

fn put_dates(connection: &Connection, planned: &PlannedDates) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO backfill_dag_run (backfill_id, sort_ordinal, logical_date, data_interval_start, data_interval_end, \
         run_after) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for (ordinal, date) in (1_i64..).zip(planned.dates.iter()) {
        statement.execute(params![
            planned.backfill.0,
            ordinal,
            micros(date.logical_date),
            micros(date.data_interval.start),
            micros(date.data_interval.end),
            micros(date.run_after),
        ])?;
    }
    Ok(())
}

fn put_fates(connection: &Connection, fates: &[FateWrite]) -> Result<(), Fault> {
    for FateWrite { place, fate } in fates {
        let (run, reason) = match fate {
            DateFate::Run(key) => (Some(key.0), None),
            DateFate::Skipped(reason) => (None, Some(reason.as_str())),
        };
        connection
            .prepare_cached(
                "UPDATE backfill_dag_run SET run_key = ?3, exception_reason = ?4 \
                 WHERE backfill_id = ?1 AND sort_ordinal = ?2",
            )?
            .execute(params![place.backfill.0, place.ordinal, run, reason])?;
    }
    Ok(())
}

/// What is queued fails, and what has not been looked at is left: in two statements, however much it is.
fn cancel<'a>(connection: &Connection, cancelled: &'a CancelledBackfill, counts: &mut Counts<'a>) -> Result<(), Fault> {
    let failed = connection
        .prepare_cached(
            "UPDATE dag_run SET state = 'failed', end_date = ?2, reason = 'backfill_cancelled' \
             WHERE backfill_id = ?1 AND state = 'queued' AND NOT is_released",
        )?
        .execute(params![cancelled.backfill.0, micros(cancelled.at)])?;
    counts.moved_many(&cancelled.dag_id, "run", Some("queued"), "failed", i64::try_from(failed).unwrap_or(i64::MAX));
    connection
        .prepare_cached(
            "UPDATE backfill_dag_run SET exception_reason = 'cancelled' \
             WHERE backfill_id = ?1 AND run_key IS NULL AND exception_reason IS NULL",
        )?
        .execute([cancelled.backfill.0])?;
    Ok(())
}

pub(super) fn backfill(row: &Row<'_>) -> Result<Backfill, Fault> {
    let mut fields = Fields::new(row, "backfill");
    Ok(Backfill {
        id: BackfillId(fields.take()?),
        dag_id: DagId::from(fields.take::<String>()?),
        from_date: fields.instant()?,
        to_date: fields.instant()?,
        reprocess: fields.named()?,
        is_backwards: fields.take()?,
        max_active_runs: fields.take()?,
        conf: fields.maybe_json()?,
        is_paused: fields.take()?,
        is_cancelled: fields.take()?,
        created_at: fields.instant()?,
        completed_at: fields.maybe_instant()?,
    })
}

pub(super) fn pending(row: &Row<'_>) -> Result<(u32, NextRun), Fault> {
    let mut fields = Fields::new(row, "backfill_dag_run");
    let ordinal = fields.take()?;
    let logical_date = fields.instant()?;
    let data_interval = crate::model::DataInterval { start: fields.instant()?, end: fields.instant()? };
    Ok((ordinal, NextRun { logical_date, data_interval, run_after: fields.instant()? }))
}

fn state_count(row: &Row<'_>) -> Result<(String, i64), Fault> {
    Ok((row.get(0)?, row.get(1)?))
}
