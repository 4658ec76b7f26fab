//! When things happened, as minflow.db remembers it.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// When a task's process began and ended, in milliseconds since 1970.
pub struct Span {
    pub start: f64,
    pub end: f64,
}

pub struct Rows(Connection);

impl Rows {
    pub fn open(home: &Path) -> Self {
        let connection = Connection::open_with_flags(home.join("minflow.db"), OpenFlags::SQLITE_OPEN_READ_ONLY);
        let rows = Self(connection.expect("minflow has made its database"));
        rows.0.busy_timeout(std::time::Duration::from_secs(5)).expect("a timeout can always be set");
        rows
    }

    /// The tasks of one run, in the order in which they began.
    pub fn spans(&self, dag_id: &str, run_id: &str) -> Vec<Span> {
        let sql = "SELECT i.start_date, i.end_date FROM task_instance i JOIN dag_run r ON r.key = i.run_key \
            WHERE r.dag_id = ?1 AND r.run_id = ?2 AND i.state = 'success' ORDER BY i.start_date";
        let mut statement = self.0.prepare(sql).expect("the schema has these columns");
        let span = |row: &rusqlite::Row<'_>| Ok(Span { start: millis(row.get(0)?), end: millis(row.get(1)?) });
        let rows = statement.query_map([dag_id, run_id], span).expect("the query takes two texts");
        rows.map(|row| row.expect("a task that succeeded has both instants")).collect()
    }

    /// From a run's start to its end, in milliseconds.
    pub fn run_length(&self, dag_id: &str, run_id: &str) -> f64 {
        let sql = "SELECT end_date - start_date FROM dag_run WHERE dag_id = ?1 AND run_id = ?2";
        let length = self.0.query_row(sql, [dag_id, run_id], |row| row.get(0));
        millis(length.expect("the run is over"))
    }

    /// From due to the start of the first process, in milliseconds, for each scheduled run that has begun.
    pub fn lags(&self) -> Vec<f64> {
        let sql = "SELECT min(i.start_date) - r.run_after FROM task_instance i JOIN dag_run r ON r.key = i.run_key \
            WHERE r.run_type = 'scheduled' AND i.start_date IS NOT NULL GROUP BY r.key";
        let mut statement = self.0.prepare(sql).expect("the schema has these columns");
        let rows = statement.query_map([], |row| Ok(millis(row.get(0)?))).expect("the query takes nothing");
        rows.map(|row| row.expect("both instants are there")).collect()
    }

    /// When the first task of all ended, in milliseconds since 1970.
    pub fn first_end(&self) -> Option<f64> {
        let sql = "SELECT min(end_date) FROM task_instance WHERE state = 'success'";
        let end: Option<i64> = self.0.query_row(sql, [], |row| row.get(0)).expect("the schema has these columns");
        end.map(millis)
    }

    /// The process of a task that runs.
    pub fn running_pid(&self, task_id: &str) -> Option<i32> {
        let sql = "SELECT pid FROM task_instance WHERE task_id = ?1 AND state = 'running'";
        self.0.query_row(sql, [task_id], |row| row.get(0)).ok()
    }

    /// When the instances of a task that have begun did, in order, in milliseconds since 1970.
    pub fn starts(&self, task_id: &str) -> Vec<f64> {
        let sql =
            "SELECT start_date FROM task_instance WHERE task_id = ?1 AND start_date IS NOT NULL ORDER BY start_date";
        let mut statement = self.0.prepare(sql).expect("the schema has these columns");
        let rows = statement.query_map([task_id], |row| Ok(millis(row.get(0)?))).expect("the query takes a text");
        rows.map(|row| row.expect("it is not null")).collect()
    }

    /// When the first instance was queued after an instant; both in milliseconds since 1970.
    pub fn queued_after(&self, at: f64) -> Option<f64> {
        // Only the newest can be: a count of all would take longer than what is measured.
        let sql = "SELECT min(queued_at) FROM (SELECT queued_at FROM task_instance ORDER BY key DESC LIMIT 100) WHERE queued_at > ?1";
        let found: Option<i64> =
            self.0.query_row(sql, [at * 1e3], |row| row.get(0)).expect("the schema has these columns");
        found.map(millis)
    }

    /// How many instances of a DAG have succeeded.
    pub fn successes(&self, dag_id: &str) -> i64 {
        let sql =
            "SELECT coalesce(sum(count), 0) FROM state_count WHERE dag_id = ?1 AND kind = 'task' AND state = 'success'";
        self.0.query_row(sql, [dag_id], |row| row.get(0)).expect("the schema has these columns")
    }

    /// How many instances are in a state.
    pub fn in_state(&self, state: &str) -> i64 {
        let sql = "SELECT count(*) FROM task_instance WHERE state = ?1";
        self.0.query_row(sql, [state], |row| row.get(0)).expect("the schema has this column")
    }

    /// How many events all assets have had.
    pub fn asset_events(&self) -> i64 {
        self.0.query_row("SELECT count(*) FROM asset_event", [], |row| row.get(0)).expect("the schema has this table")
    }

    /// How many instances a task has.
    pub fn instances(&self, task_id: &str) -> i64 {
        let sql = "SELECT count(*) FROM task_instance WHERE task_id = ?1";
        self.0.query_row(sql, [task_id], |row| row.get(0)).expect("the schema has this column")
    }

    /// Runs and tasks that are over.
    pub fn finished(&self) -> (i64, i64) {
        let of = |kind: &str| {
            let sql =
                "SELECT coalesce(sum(count), 0) FROM state_count WHERE kind = ?1 AND state IN ('success', 'failed')";
            self.0.query_row(sql, [kind], |row| row.get(0)).expect("the schema has these columns")
        };
        (of("run"), of("task"))
    }
}

fn millis(micros: i64) -> f64 {
    micros as f64 / 1e3
}
