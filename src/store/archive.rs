//! The second file that takes in what is to go: a database of the same tables, which is known as an archive by its application id.
//!
//! Keys are those of the database, which gives none twice. A name is given again once its run has gone, so an archive may have several runs
//! of one name or logical date, each with what belongs to it.

use std::path::Path;

use rusqlite::Connection;

use crate::config::Synchronous;
use crate::scheduler::StoreError;
use crate::scheduler::change::RetiredRun;
use crate::store::fault::Fault;
use crate::store::open::{self, Kind};
use crate::store::place::identity;

/// What is unique in a database is not in an archive: a run, or a version, of a name that was given again.
const MANY_OF_A_NAME: &str = "BEGIN IMMEDIATE; DROP INDEX IF EXISTS dag_run_run_id; DROP INDEX IF EXISTS dag_run_logical_date; DROP INDEX IF EXISTS dag_version_number; \
     CREATE INDEX IF NOT EXISTS archived_run_id ON dag_run (dag_id, run_id); \
     CREATE INDEX IF NOT EXISTS archived_logical_date ON dag_run (dag_id, logical_date) WHERE logical_date IS NOT NULL; \
     CREATE INDEX IF NOT EXISTS archived_version_number ON dag_version (dag_id, number); COMMIT";

/// Whether the archive has something else under the key of a run, or under the key of what belongs to it.
const OTHERS: [&str; 5] = [
    "SELECT 1 FROM source.dag_run s JOIN main.dag_run a ON a.key = s.key WHERE s.key = ?1 AND (a.dag_id <> s.dag_id OR a.run_id <> s.run_id)",
    "SELECT 1 FROM source.task_instance s JOIN main.task_instance a ON a.key = s.key \
     WHERE s.run_key = ?1 AND (a.run_key <> s.run_key OR a.task_id <> s.task_id OR a.map_index <> s.map_index)",
    "SELECT 1 FROM source.callback s JOIN main.callback a ON a.key = s.key \
     WHERE s.run_key = ?1 AND (a.run_key IS NOT s.run_key OR a.created_at <> s.created_at)",
    "SELECT 1 FROM source.deadline s JOIN main.deadline a ON a.key = s.key \
     WHERE s.run_key = ?1 AND (a.run_key IS NOT s.run_key OR a.number <> s.number)",
    "SELECT 1 FROM source.dag_run r JOIN source.dag_version s ON s.dag_id = r.dag_id JOIN main.dag_version a ON a.key = s.key \
     WHERE r.key = ?1 AND (a.dag_id <> s.dag_id OR a.hash <> s.hash) \
     UNION ALL SELECT 1 FROM source.dag_run r JOIN source.backfill s ON s.dag_id = r.dag_id JOIN main.backfill a ON a.id = s.id \
     WHERE r.key = ?1 AND (a.dag_id <> s.dag_id OR a.created_at <> s.created_at)",
];

/// The same of the entries of the audit log up to a key.
const OTHER_ENTRY: &str = "SELECT 1 FROM source.log s JOIN main.log a ON a.key = s.key \
     WHERE s.key <= ?1 AND (a.at <> s.at OR a.event <> s.event)";

/// The second file that takes in what is to go.
pub struct Archive {
    connection: Connection,
    path: std::path::PathBuf,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Archive {
    /// Opens the archive, or makes it (mode 0600): a database of the same tables. `source` is the one that rows are taken of.
    ///
    /// # Errors
    /// One of the two cannot be used.
    pub fn open(path: &Path, source: &Path) -> Result<Self, StoreError> {
        if identity(path).is_ok_and(|found| found.is_some() && Ok(found) == identity(source).map_err(drop)) {
            return Err(StoreError {
                message: format!("open the archive `{}`: it is the database itself", path.display()),
                help: "name another file: what goes from the one is to be kept in the other".to_owned(),
            });
        }
        let made = open::writer(path, Synchronous::Full, Kind::Archive)?;
        let many = made.execute_batch(MANY_OF_A_NAME);
        many.map_err(|error| Fault::from(error).into_store_error("open the archive", path))?;
        drop(made);
        let attach = || -> rusqlite::Result<Connection> {
            let connection = open::beside(path, Synchronous::Full)?;
            connection.busy_timeout(std::time::Duration::from_secs(10))?;
            // What a row refers to may come after it.
            open::pragma(&connection, "foreign_keys", "OFF")?;
            connection.execute("ATTACH ?1 AS source", [source.to_string_lossy()])?;
            Ok(connection)
        };
        let connection = attach().map_err(|error| Fault::from(error).into_store_error("open the archive", path))?;
        Ok(Self { connection, path: path.to_owned() })
    }

    /// Copies runs with all that belongs to them; on the disk when it returns. What it had of them before is replaced.
    ///
    /// # Errors
    /// Nothing of them was written. So it is as well where it has other runs under the same keys.
    pub fn take(&mut self, runs: &[RetiredRun]) -> Result<(), StoreError> {
        for run in runs {
            for sql in OTHERS {
                self.refuse_others(sql, run.key.0)?;
            }
        }
        let path = self.path.clone();
        self.take_all(runs).map_err(|error| Fault::from(error).into_store_error("archive", &path))
    }

    /// Refuses what would take the place of rows of another database: one that was begun anew, or that was restored and has gone another way
    /// since, gives its keys a second time.
    fn refuse_others(&self, sql: &str, key: i64) -> Result<(), StoreError> {
        let found = self.connection.prepare_cached(sql).and_then(|mut statement| statement.exists([key]));
        if found.map_err(|error| Fault::from(error).into_store_error("archive", &self.path))? {
            return Err(StoreError {
                message: format!(
                    "archive to `{}`: it holds what another database had, or this one before it was restored",
                    self.path.display()
                ),
                help: "name another file with --archive, or move that one away; nothing of it was overwritten"
                    .to_owned(),
            });
        }
        Ok(())
    }

    fn take_all(&mut self, runs: &[RetiredRun]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        for run in runs {
            let (key, dag_id) = (run.key.0, run.dag_id.as_str());
            for table in ["dag", "dag_version", "backfill"] {
                transaction
                    .prepare_cached(&format!(
                        "INSERT OR REPLACE INTO main.{table} SELECT * FROM source.{table} WHERE dag_id = ?1"
                    ))?
                    .execute([dag_id])?;
            }
            transaction
                .prepare_cached("INSERT OR REPLACE INTO main.dag_run SELECT * FROM source.dag_run WHERE key = ?1")?
                .execute([key])?;
            for table in ["task_instance", "callback", "deadline"] {
                transaction
                    .prepare_cached(&format!(
                        "INSERT OR REPLACE INTO main.{table} SELECT * FROM source.{table} WHERE run_key = ?1"
                    ))?
                    .execute([key])?;
            }
            for table in ["task_instance_history", "xcom", "task_map"] {
                let sql = format!(
                    "INSERT OR REPLACE INTO main.{table} SELECT t.* FROM source.task_instance i JOIN source.{table} t ON t.instance_key = i.key \
                     WHERE i.run_key = ?1"
                );
                transaction.prepare_cached(&sql)?.execute([key])?;
            }
        }
        transaction.commit()
    }

    /// Copies the entries of the audit log up to a key.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn take_audit(&mut self, until: i64) -> Result<(), StoreError> {
        self.refuse_others(OTHER_ENTRY, until)?;
        let sql = "INSERT OR REPLACE INTO main.log SELECT * FROM source.log WHERE key <= ?1";
        let taken = self.connection.execute(sql, [until]);
        taken.map(drop).map_err(|error| Fault::from(error).into_store_error("archive", &self.path))
    }

    /// Settles its counts by state, so that it checks as any database does, and moves all into one file.
    ///
    /// # Errors
    /// It cannot be written; what was taken is there.
    pub fn finish(self) -> Result<(), StoreError> {
        let sql = "BEGIN; DELETE FROM main.state_count; \
                   INSERT INTO main.state_count SELECT dag_id, 'run', state, count(*) FROM main.dag_run GROUP BY dag_id, state \
                   UNION ALL SELECT r.dag_id, 'task', coalesce(i.state, 'none'), count(*) FROM main.task_instance i \
                   JOIN main.dag_run r ON r.key = i.run_key GROUP BY r.dag_id, i.state; COMMIT";
        self.connection.execute_batch(sql).map_err(|error| Fault::from(error).into_store_error("archive", &self.path))
    }
}
