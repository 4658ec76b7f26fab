//! The tables as others read them: named as Airflow's, with ids in place of keys, instants as text and durations in seconds.

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use rusqlite::types::ValueRef;
use serde_json::Value;

use crate::scheduler::StoreError;
use crate::store::fault::Fault;
use crate::store::read::Reader;

/// The tables that can be exported, and where their rows come from. `i` is the instance of a row, `r` its run.
const TABLES: [(&str, &str); 18] = [
    ("asset", "SELECT * FROM asset ORDER BY key"),
    (
        "asset_event",
        "SELECT a.name AS asset, e.* FROM asset_event e JOIN asset a ON a.key = e.asset_key ORDER BY e.key",
    ),
    ("backfill", "SELECT * FROM backfill ORDER BY id"),
    (
        "backfill_dag_run",
        "SELECT b.*, r.run_id FROM backfill_dag_run b LEFT JOIN dag_run r ON r.key = b.run_key ORDER BY 1, 2",
    ),
    ("callback", "SELECT r.run_id, c.* FROM callback c LEFT JOIN dag_run r ON r.key = c.run_key ORDER BY c.key"),
    ("dag", "SELECT * FROM dag ORDER BY dag_id"),
    ("dag_run", "SELECT * FROM dag_run ORDER BY key"),
    ("dag_version", "SELECT * FROM dag_version ORDER BY key"),
    (
        "dagrun_asset_event",
        "SELECT r.dag_id, r.run_id, e.event_key FROM dagrun_asset_event e JOIN dag_run r ON r.key = e.run_key ORDER BY e.run_key, e.event_key",
    ),
    ("deadline", "SELECT r.run_id, d.* FROM deadline d LEFT JOIN dag_run r ON r.key = d.run_key ORDER BY d.key"),
    ("failure_streak", "SELECT * FROM failure_streak ORDER BY dag_id, task_id"),
    ("import_error", "SELECT * FROM import_error ORDER BY filename, position"),
    ("log", "SELECT * FROM log ORDER BY key"),
    ("pool", "SELECT * FROM pool ORDER BY name"),
    (
        "task_instance",
        "SELECT r.dag_id, r.run_id, i.* FROM task_instance i JOIN dag_run r ON r.key = i.run_key ORDER BY i.key",
    ),
    (
        "task_instance_history",
        "SELECT r.dag_id, r.run_id, r.key AS run_key, i.task_id, i.map_index, h.* FROM task_instance_history h \
      JOIN task_instance i ON i.key = h.instance_key JOIN dag_run r ON r.key = i.run_key ORDER BY h.instance_key, h.try_number",
    ),
    (
        "task_map",
        "SELECT r.dag_id, r.run_id, r.key AS run_key, i.task_id, i.map_index, m.key, m.length FROM task_map m \
      JOIN task_instance i ON i.key = m.instance_key JOIN dag_run r ON r.key = i.run_key ORDER BY m.instance_key, m.key",
    ),
    (
        "xcom",
        "SELECT r.dag_id, r.run_id, r.key AS run_key, i.task_id, i.map_index, x.key, x.pushed_at AS timestamp, x.value, x.file FROM xcom x \
      JOIN task_instance i ON i.key = x.instance_key JOIN dag_run r ON r.key = i.run_key ORDER BY x.instance_key, x.key",
    ),
];

/// Keys of rows that say nothing outside of the file; the ids that stand for them are there. Of an archive `run_key` is told, which is the `key`
/// of `dag_run`: it may have several runs of one name.
const INNER: [&str; 4] = ["run_key", "instance_key", "version_key", "created_version_key"];

/// Columns that hold JSON.
const JSON: [&str; 8] = ["conf", "dag_run_conf", "extra", "tags", "value", "deferral", "callback", "occasion"];

/// Columns that hold microseconds.
const SPANS: [&str; 6] = ["user_cpu", "system_cpu", "lag", "settle", "retry_delay_override", "duration"];

/// The names of all tables that [`Reader::export`] knows.
pub fn tables() -> impl Iterator<Item = &'static str> {
    TABLES.iter().map(|(name, _)| *name)
}

impl Reader {
    /// Hands the names of the columns of a table over, and then each of its rows. False from `put`: enough.
    ///
    /// # Errors
    /// The database cannot be read.
    ///
    /// # Panics
    /// There is no such table.
    pub fn export(
        &self,
        table: &str,
        mut put: impl FnMut(&[String], Option<Vec<Value>>) -> bool,
    ) -> Result<(), StoreError> {
        let (_, sql) = TABLES.iter().find(|(name, _)| *name == table).expect("a table that can be exported");
        let mut export = || -> Result<(), Fault> {
            let mut statement = self.connection().prepare(sql)?;
            let all: Vec<String> = statement.column_names().map(str::to_owned).collect();
            let is_told_apart = |name: &str| self.is_archive() && name == "run_key";
            let shown = (0..all.len()).filter(|&at| is_shown(&all, at) || is_told_apart(&all[at]));
            let shown: Vec<usize> = shown.collect();
            let names: Vec<String> = shown.iter().map(|&at| all[at].clone()).collect();
            let mut rows = statement.query([])?;
            if !put(&names, None) {
                return Ok(());
            }
            while let Some(row) = rows.next()? {
                let mut cells = Vec::with_capacity(shown.len());
                for &at in &shown {
                    cells.push(cell(&all[at], row.get_ref(at)?));
                }
                if !put(&names, Some(cells)) {
                    break;
                }
            }
            Ok(())
        };
        export().map_err(|fault| fault.into_store_error(&format!("export the table {table}"), self.path()))
    }
}

/// The first of several columns of one name, and no inner key.
fn is_shown(names: &[String], at: usize) -> bool {
    !INNER.contains(&names[at].as_str()) && !names[..at].contains(&names[at])
}

fn is_instant(name: &str) -> bool {
    let tails = ["_at", "_date", "_start", "_end"];
    tails.iter().any(|tail| name.ends_with(tail))
        || [
            "at",
            "timestamp",
            "run_after",
            "next_run_after",
            "last_scheduling_decision",
            "watched_since",
            "trigger_timeout",
        ]
        .contains(&name)
}

fn cell(name: &str, value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number)
            if name.starts_with("is_") || name.starts_with("has_") || name == "include_deferred" =>
        {
            Value::Bool(number != 0)
        }
        ValueRef::Integer(number) if SPANS.contains(&name) => (number as f64 / 1e6).into(),
        ValueRef::Integer(number) if is_instant(name) && name != "modified_at" => {
            const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
            Timestamp::from_microsecond(number).map_or(number.into(), |at| PRINTER.timestamp_to_string(&at).into())
        }
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) => {
            let text = String::from_utf8_lossy(text);
            let parsed = JSON.contains(&name).then(|| serde_json::from_str(&text).ok()).flatten();
            parsed.unwrap_or_else(|| text.into_owned().into())
        }
        ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned().into(),
    }
}
