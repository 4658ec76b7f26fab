//! Whether a database is sound: its pages, its references, its counts, and whether each row can be read as the program reads it.

use rusqlite::{Connection, Row};

use crate::scheduler::StoreError;
use crate::store::fault::Fault;
use crate::store::read::{Reader, entry, instance, length, run, state_count, version};
use crate::store::records::StateCount;
use crate::store::row::{Fields, instance_columns, run_columns, try_columns, version_columns};
use crate::store::{backfill, callback, deadline, mend};

/// Of rows that cannot be read so many are named; of the others it is said how many there are.
const NAMED: usize = 20;

/// Instances of a run that is gone refer to nothing until they have gone as well.
const CHECK_REFERENCES: &str = "SELECT f.\"table\", f.rowid, f.parent FROM pragma_foreign_key_check f WHERE NOT (f.\"table\" = 'task_instance' \
     AND EXISTS (SELECT 1 FROM task_instance i JOIN retired_run t ON t.key = i.run_key WHERE i.key = f.rowid))";

const RUNS: &str = concat!("SELECT ", run_columns!(), " FROM dag_run r ORDER BY r.key");
const INSTANCES: &str = concat!("SELECT ", instance_columns!(), " FROM task_instance i ORDER BY i.key");
const TRIES: &str = concat!(
    "SELECT i.key, i.run_key, i.task_id, i.map_index, ",
    try_columns!("h"),
    ", NULL, NULL FROM task_instance_history h JOIN task_instance i ON i.key = h.instance_key"
);
const VERSIONS: &str = concat!("SELECT ", version_columns!(), " FROM dag_version v ORDER BY v.key");
const ENTRIES: &str = "SELECT key, at, event, dag_id, run_id, task_id, owner, extra FROM log ORDER BY key";
const XCOMS: &str = "SELECT instance_key, key, value, file, pushed_at FROM xcom";
const LENGTHS: &str = "SELECT instance_key, key, length FROM task_map";
const COUNTS: &str = "SELECT dag_id, kind, state, count FROM state_count";

/// Reads a row for its faults alone.
type Look = fn(&Row<'_>) -> Result<(), Fault>;

/// Those of which a start does not read all rows, or none.
const TABLES: [(&str, &str, Look); 11] = [
    ("dag_version", VERSIONS, |row| version(row).map(drop)),
    ("dag_run", RUNS, |row| run(row).map(drop)),
    ("task_instance", INSTANCES, |row| instance(row).map(drop)),
    ("task_instance_history", TRIES, |row| {
        Fields::new(row, "task_instance_history of task_instance").instance().map(drop)
    }),
    ("xcom", XCOMS, xcom),
    ("task_map", LENGTHS, |row| length(row).map(drop)),
    ("callback", callback::ALL, |row| callback::row(row).map(drop)),
    ("deadline", deadline::ALL, |row| deadline::row(row).map(drop)),
    ("backfill", backfill::ALL, |row| backfill::backfill(row).map(drop)),
    ("state_count", COUNTS, |row| state_count(row).map(drop)),
    ("log", ENTRIES, |row| entry(row).map(drop)),
];

fn xcom(row: &Row<'_>) -> Result<(), Fault> {
    let mut fields = Fields::new(row, "xcom of task_instance");
    fields.take::<i64>()?;
    fields.take::<String>()?;
    // A value that lies in a file is looked at by who asks for it.
    fields.json::<serde::de::IgnoredAny>()?;
    fields.take::<Option<String>>()?;
    fields.instant().map(drop)
}

impl Reader {
    /// Looks at every page, index, reference and kept count. What is wrong, one sentence each; empty: all is well.
    ///
    /// # Errors
    /// The file cannot be read at all.
    pub fn check(&self) -> Result<Vec<String>, StoreError> {
        let mut found =
            self.list("check the database", "PRAGMA integrity_check", [], |row| Ok(row.get::<_, String>(0)?))?;
        found.retain(|line| line != "ok");
        found.extend(self.list("check the references", CHECK_REFERENCES, [], |row| {
            let (table, key, parent): (String, Option<i64>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let key = key.map_or_else(String::new, |key| format!(" {key}"));
            Ok(format!("{table}{key} refers to a row of {parent} that is not there"))
        })?);
        let sql = "SELECT dag_id, kind, state, sum(kept), sum(counted) FROM ( \
                   SELECT dag_id, kind, state, count AS kept, 0 AS counted FROM state_count \
                   UNION ALL SELECT dag_id, 'run', state, 0, count(*) FROM dag_run GROUP BY dag_id, state \
                   UNION ALL SELECT coalesce(r.dag_id, t.dag_id), 'task', coalesce(i.state, 'none'), 0, count(*) FROM task_instance i \
                   LEFT JOIN dag_run r ON r.key = i.run_key LEFT JOIN retired_run t ON t.key = i.run_key \
                   WHERE coalesce(r.key, t.key) IS NOT NULL GROUP BY coalesce(r.dag_id, t.dag_id), i.state) \
                   GROUP BY dag_id, kind, state HAVING sum(kept) <> sum(counted)";
        found.extend(self.list("check the counts by state", sql, [], |row| {
            let StateCount { dag_id, kind, state, count } = state_count(row)?;
            let counted: i64 = row.get(4)?;
            Ok(format!("state_count of DAG `{dag_id}`: {kind} {state} is kept as {count}, but there are {counted}"))
        })?);
        Ok(found)
    }

    /// Reads every row as the program reads it. Those that it cannot read, one sentence each, of which the last may stand for many.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn unreadable(&self) -> Result<Vec<String>, StoreError> {
        self.ask("read all rows", |connection| {
            let mut found = Found::default();
            for (_, sql, look) in TABLES {
                found.look(connection, sql, look)?;
            }
            for table in mend::TABLES.iter().filter(|table| TABLES.iter().all(|(name, ..)| *name != table.name)) {
                found.look(connection, table.list, table.read)?;
            }
            Ok(found.told())
        })
    }
}

#[derive(Default)]
struct Found {
    all: Vec<String>,
    more: u64,
}

impl Found {
    fn look(&mut self, connection: &Connection, sql: &str, look: Look) -> Result<(), Fault> {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.note(look(row))?;
        }
        Ok(())
    }

    fn note(&mut self, read: Result<(), Fault>) -> Result<(), Fault> {
        match read {
            Err(Fault::Value { row, column, what }) if self.all.len() < NAMED => {
                self.all.push(format!("{row}, column {column}: {what}"));
            }
            Err(Fault::Value { .. }) => self.more += 1,
            other => other?,
        }
        Ok(())
    }

    fn told(mut self) -> Vec<String> {
        if self.more > 0 {
            self.all.push(format!("and {} more", self.more));
        }
        self.all
    }
}
