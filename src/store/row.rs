//! Rows to plain data and back: column lists, and the functions that read them in the same order.
//!
//! Nothing here asks the database; read.rs and write.rs do.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Row;
use rusqlite::types::{FromSql, Value as Cell, ValueRef};
use serde::de::DeserializeOwned;

use crate::model::{
    BackfillId, BackfillPlace, DagId, DagRun, DataInterval, Instance, InstanceKey, Pool, PoolName, ProcessIdentity,
    RunId, RunKey, TaskId, TaskState, Usage, VersionKey, Wait,
};
use crate::scheduler::change::{DagRecord, ImportError, NextRun, VersionWrite};
use crate::store::fault::Fault;

/// The columns of a try, in the order in which [`Fields::instance`] reads them; `$t` is the table's alias.
macro_rules! try_columns {
    ($t:literal) => {
        concat!(
            $t,
            ".state, ",
            $t,
            ".try_number, ",
            $t,
            ".max_tries, ",
            $t,
            ".scheduled_at, ",
            $t,
            ".queued_at, ",
            $t,
            ".start_date, ",
            $t,
            ".end_date, ",
            $t,
            ".pool, ",
            $t,
            ".pool_slots, ",
            $t,
            ".priority_weight, ",
            $t,
            ".operator, ",
            $t,
            ".version_key, ",
            $t,
            ".pid, ",
            $t,
            ".start_ticks, ",
            $t,
            ".boot_id, ",
            $t,
            ".exit_code, ",
            $t,
            ".signal, ",
            $t,
            ".reason, ",
            $t,
            ".user_cpu, ",
            $t,
            ".system_cpu, ",
            $t,
            ".max_rss, ",
            $t,
            ".read_bytes, ",
            $t,
            ".write_bytes, ",
            $t,
            ".voluntary_switches, ",
            $t,
            ".involuntary_switches, ",
            $t,
            ".rendered_map_index"
        )
    };
}
pub(super) use try_columns;

/// The columns of an instance `i` in its current try.
macro_rules! instance_columns {
    () => {
        concat!(
            "i.key, i.run_key, i.task_id, i.map_index, ",
            crate::store::row::try_columns!("i"),
            ", i.retry_delay_override, i.deferral"
        )
    };
}
pub(super) use instance_columns;

/// How many columns `instance_columns!` names.
pub(super) const INSTANCE_COLUMNS: usize = 32;

/// Null where all columns of `instance_columns!` are null that may be, but for the state: nothing has happened to the instance yet. SQLite
/// finds that out in a fraction of the time that it takes to ask it for each of them.
macro_rules! has_history {
    () => {
        "coalesce(i.scheduled_at, i.queued_at, i.start_date, i.end_date, i.version_key, i.pid, i.start_ticks, i.boot_id, i.exit_code, \
         i.signal, i.reason, i.user_cpu, i.system_cpu, i.max_rss, i.read_bytes, i.write_bytes, i.voluntary_switches, \
         i.involuntary_switches, i.rendered_map_index, i.retry_delay_override, i.deferral)"
    };
}
pub(super) use has_history;

/// The columns of a run `r`.
macro_rules! run_columns {
    () => {
        "r.key, r.dag_id, r.run_id, r.run_type, r.state, r.run_after, r.logical_date, r.data_interval_start, \
         r.data_interval_end, r.queued_at, r.start_date, r.end_date, r.conf, r.reason, r.lag, r.backfill_id, r.sort_ordinal, \
         r.is_released, r.clear_number"
    };
}
pub(super) use run_columns;

/// The columns of a DAG `d`.
macro_rules! dag_columns {
    () => {
        "d.dag_id, d.file, d.is_paused, d.is_active, d.has_import_errors, d.schedule, d.timezone, d.description, d.owner, \
         d.tags, d.max_active_runs, d.max_active_tasks, d.version_key, d.first_seen_at, d.next_logical_date, \
         d.next_interval_start, d.next_interval_end, d.next_run_after, d.last_interval_start, d.last_interval_end, d.pause_reason"
    };
}
pub(super) use dag_columns;

/// How many columns `dag_columns!` names.
pub(super) const DAG_COLUMNS: usize = 21;

/// The columns of a version `v`.
macro_rules! version_columns {
    () => {
        "v.key, v.dag_id, v.number, v.hash, v.source, v.created_at"
    };
}
pub(super) use version_columns;

/// Below it are all keys that minflow gives: one more than them can be given.
macro_rules! key_limit {
    () => {
        "4611686018427387904"
    };
}
pub(super) use key_limit;

/// The columns of an import error.
macro_rules! import_error_columns {
    () => {
        "filename, line, \"column\", code, message, help, timestamp"
    };
}
pub(super) use import_error_columns;

/// How many columns lie between `max_tries` and `pool`.
const INSTANTS: usize = 4;

/// A column of an instance in which many rows say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Common {
    TaskId,
    Pool,
    Operator,
}

/// Reads the columns of one row from left to right. An impossible value names its table, row and column; the row's name is
/// its first column.
pub(super) struct Fields<'a> {
    row: &'a Row<'a>,
    table: &'static str,
    first: usize,
    next: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(row: &'a Row<'a>, table: &'static str) -> Self {
        Self { row, table, first: 0, next: 0 }
    }

    /// The columns from `first` on, where a row joins two tables.
    pub(super) fn starting_at(row: &'a Row<'a>, table: &'static str, first: usize) -> Self {
        Self { row, table, first, next: first }
    }

    pub(super) fn take<T: FromSql>(&mut self) -> Result<T, Fault> {
        self.next += 1;
        self.row.get(self.next - 1).map_err(|error| self.fault(&error.to_string()))
    }

    pub(super) fn instant(&mut self) -> Result<Timestamp, Fault> {
        let micros = self.take()?;
        self.to_instant(micros)
    }

    pub(super) fn maybe_instant(&mut self) -> Result<Option<Timestamp>, Fault> {
        let micros: Option<i64> = self.take()?;
        micros.map(|micros| self.to_instant(micros)).transpose()
    }

    fn to_instant(&self, micros: i64) -> Result<Timestamp, Fault> {
        Timestamp::from_microsecond(micros).map_err(|error| self.fault(&error.to_string()))
    }

    fn interval(&mut self) -> Result<Option<DataInterval>, Fault> {
        let (start, end) = (self.maybe_instant()?, self.maybe_instant()?);
        Ok(start.zip(end).map(|(start, end)| DataInterval { start, end }))
    }

    /// A text that names a variant.
    pub(super) fn named<T: FromStr<Err: std::fmt::Display>>(&mut self) -> Result<T, Fault> {
        let text: String = self.take()?;
        text.parse().map_err(|error: T::Err| self.fault(&error.to_string()))
    }

    pub(super) fn task_state(&mut self) -> Result<TaskState, Fault> {
        if self.row.get_ref(self.next)? == ValueRef::Null {
            self.next += 1;
            return Ok(TaskState::None);
        }
        let text = self.text()?;
        text.parse().map_err(|error: crate::model::state::UnknownName| self.fault(&error.to_string()))
    }

    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Result<T, Fault> {
        let text: String = self.take()?;
        serde_json::from_str(&text).map_err(|error| self.fault(&error.to_string()))
    }

    pub(super) fn maybe_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Fault> {
        let text: Option<String> = self.take()?;
        text.map(|text| serde_json::from_str(&text).map_err(|error| self.fault(&error.to_string()))).transpose()
    }

    pub(super) fn size(&mut self) -> Result<u64, Fault> {
        let size: i64 = self.take::<Option<i64>>()?.unwrap_or_default();
        u64::try_from(size).map_err(|_| self.fault("is negative"))
    }

    fn maybe_duration(&mut self) -> Result<Option<Duration>, Fault> {
        let micros: Option<i64> = self.take()?;
        let length = |micros| u64::try_from(micros).map(Duration::from_micros).map_err(|_| self.fault("is negative"));
        micros.map(length).transpose()
    }

    pub(super) fn micros(&mut self) -> Result<Duration, Fault> {
        self.size().map(Duration::from_micros)
    }

    /// The column that was read last is impossible.
    fn fault(&self, what: &str) -> Fault {
        let column = self.row.as_ref().column_name(self.next - 1).unwrap_or("?").to_owned();
        let key = match self.row.get::<_, Cell>(self.first) {
            Ok(Cell::Integer(key)) => key.to_string(),
            Ok(Cell::Text(key)) => format!("`{key}`"),
            _ => "?".to_owned(),
        };
        Fault::Value { row: format!("{} {key}", self.table), column, what: what.to_owned() }
    }

    pub(super) fn instance(self) -> Result<Instance, Fault> {
        self.instance_of(&mut |_, text| text.into())
    }

    /// `keep` is given the texts that instances have in common.
    pub(super) fn instance_of(mut self, keep: &mut impl FnMut(Common, &str) -> Arc<str>) -> Result<Instance, Fault> {
        Ok(Instance {
            key: InstanceKey(self.take()?),
            run: RunKey(self.take()?),
            task_id: TaskId::from(keep(Common::TaskId, self.text()?)),
            map_index: self.take()?,
            state: self.task_state()?,
            try_number: self.take()?,
            max_tries: self.take()?,
            scheduled_at: self.maybe_instant()?,
            queued_at: self.maybe_instant()?,
            start_date: self.maybe_instant()?,
            end_date: self.maybe_instant()?,
            pool: PoolName::from(keep(Common::Pool, self.text()?)),
            pool_slots: self.take()?,
            priority_weight: self.take()?,
            operator: keep(Common::Operator, self.text()?),
            version: self.take::<Option<i64>>()?.map(VersionKey),
            process: self.process()?,
            exit_code: self.take()?,
            signal: self.take()?,
            reason: self.take()?,
            usage: self.usage()?,
            rendered_map_index: self.take()?,
            retry_delay_override: self.maybe_duration()?,
            deferral: self.maybe_wait()?,
        })
    }

    /// As [`Fields::instance_of`] reads a row in which `has_history!` is null.
    pub(super) fn blank_instance(mut self, keep: &mut impl FnMut(Common, &str) -> Arc<str>) -> Result<Instance, Fault> {
        let (key, run) = (InstanceKey(self.take()?), RunKey(self.take()?));
        let task_id = TaskId::from(keep(Common::TaskId, self.text()?));
        let map_index = self.take()?;
        let (state, try_number, max_tries) = (self.task_state()?, self.take()?, self.take()?);
        self.next += INSTANTS;
        let pool = PoolName::from(keep(Common::Pool, self.text()?));
        let (pool_slots, priority_weight) = (self.take()?, self.take()?);
        let operator = keep(Common::Operator, self.text()?);
        Ok(Instance {
            map_index,
            state,
            try_number,
            max_tries,
            pool_slots,
            priority_weight,
            ..Instance::new(key, run, task_id, pool, operator)
        })
    }

    fn text(&mut self) -> Result<&'a str, Fault> {
        let row = self.row;
        match row.get_ref(self.next).ok().and_then(|value| value.as_str().ok()) {
            Some(text) => {
                self.next += 1;
                Ok(text)
            }
            None => self.take::<String>().and_then(|_| Err(self.fault("is no text"))),
        }
    }

    fn maybe_wait(&mut self) -> Result<Option<Arc<Wait>>, Fault> {
        let text: Option<String> = self.take()?;
        let wait =
            text.map(|text| Wait::from_json(&text).map(Arc::new).map_err(|error| self.fault(&error.to_string())));
        wait.transpose()
    }

    fn process(&mut self) -> Result<Option<Box<ProcessIdentity>>, Fault> {
        let pid: Option<i32> = self.take()?;
        let start_ticks = self.size()?;
        let boot_id: Option<String> = self.take()?;
        let boot_id = boot_id.unwrap_or_default();
        Ok(pid.map(|pid| Box::new(ProcessIdentity { pid, start_ticks, boot_id })))
    }

    pub(super) fn usage(&mut self) -> Result<Option<Box<Usage>>, Fault> {
        let is_known = self.row.get_ref(self.next)? != ValueRef::Null;
        let usage = Usage {
            user_cpu: self.micros()?,
            system_cpu: self.micros()?,
            max_rss: self.size()?,
            read_bytes: self.size()?,
            write_bytes: self.size()?,
            voluntary_switches: self.size()?,
            involuntary_switches: self.size()?,
        };
        Ok(is_known.then(|| Box::new(usage)))
    }

    pub(super) fn run(mut self) -> Result<DagRun, Fault> {
        Ok(DagRun {
            key: RunKey(self.take()?),
            dag_id: DagId::from(self.take::<String>()?),
            run_id: RunId::from(self.take::<String>()?),
            run_type: self.named()?,
            state: self.named()?,
            run_after: self.instant()?,
            logical_date: self.maybe_instant()?,
            data_interval: self.interval()?,
            queued_at: self.maybe_instant()?,
            start_date: self.maybe_instant()?,
            end_date: self.maybe_instant()?,
            conf: self.json()?,
            reason: self.take()?,
            lag: self.maybe_duration()?,
            backfill: self.place()?,
            is_released: self.take()?,
            clear_number: self.take()?,
        })
    }

    fn place(&mut self) -> Result<Option<BackfillPlace>, Fault> {
        let (backfill, ordinal): (Option<i64>, Option<u32>) = (self.take()?, self.take()?);
        Ok(backfill.zip(ordinal).map(|(id, ordinal)| BackfillPlace { backfill: BackfillId(id), ordinal }))
    }

    pub(super) fn dag(mut self) -> Result<DagRecord, Fault> {
        Ok(DagRecord {
            dag_id: DagId::from(self.take::<String>()?),
            file: self.take()?,
            is_paused: self.take()?,
            is_active: self.take()?,
            has_import_errors: self.take()?,
            schedule: self.take()?,
            timezone: self.take()?,
            description: self.take()?,
            owner: self.take()?,
            tags: self.json()?,
            max_active_runs: self.take()?,
            max_active_tasks: self.take()?,
            version: self.take::<Option<i64>>()?.map(VersionKey),
            first_seen_at: self.maybe_instant()?,
            next_run: self.next_run()?,
            last_interval: self.interval()?,
            pause_reason: self.take()?,
        })
    }

    fn next_run(&mut self) -> Result<Option<NextRun>, Fault> {
        let logical_date = self.maybe_instant()?;
        let data_interval = self.interval()?;
        let run_after = self.maybe_instant()?;
        // Known in part, it is as good as unknown: it is planned anew by the DAG's file.
        let dates = logical_date.zip(data_interval).zip(run_after);
        Ok(dates.map(|((logical_date, data_interval), run_after)| NextRun { logical_date, data_interval, run_after }))
    }

    pub(super) fn version(mut self) -> Result<VersionWrite, Fault> {
        Ok(VersionWrite {
            key: VersionKey(self.take()?),
            dag_id: DagId::from(self.take::<String>()?),
            number: self.take()?,
            hash: self.take()?,
            source: self.take()?,
            created_at: self.instant()?,
        })
    }

    pub(super) fn pool(mut self) -> Result<Pool, Fault> {
        Ok(Pool {
            name: PoolName::from(self.take::<String>()?),
            slots: self.take()?,
            description: self.take()?,
            include_deferred: self.take()?,
        })
    }

    pub(super) fn import_error(mut self) -> Result<ImportError, Fault> {
        Ok(ImportError {
            filename: self.take()?,
            line: self.take()?,
            column: self.take()?,
            code: self.take()?,
            message: self.take()?,
            help: self.take()?,
            timestamp: self.instant()?,
        })
    }
}

pub(super) fn micros(instant: Timestamp) -> i64 {
    instant.as_microsecond()
}

pub(super) fn maybe_micros(instant: Option<Timestamp>) -> Option<i64> {
    instant.map(micros)
}

/// What is beyond SQLite's integers is stored as the greatest of them.
pub(super) fn integer(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

pub(super) fn duration(length: Duration) -> i64 {
    i64::try_from(length.as_micros()).unwrap_or(i64::MAX)
}
