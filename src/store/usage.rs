//! What the tries of a DAG's tasks have cost, over a period.

use jiff::Timestamp;
use rusqlite::params;

use crate::model::{Cost, Instance, RunId, TaskId};
use crate::scheduler::StoreError;
use crate::store::Reader;
use crate::store::row::{Fields, instance_columns, micros};

/// The current tries and those before them, of all tasks or of one.
pub(super) const USAGE: &str = "SELECT i.key, i.task_id, i.start_date, i.end_date, i.user_cpu, i.system_cpu, i.max_rss, \
     i.read_bytes, i.write_bytes FROM dag_run r JOIN task_instance i ON i.run_key = r.key \
     WHERE r.dag_id = ?1 AND r.run_after >= ?2 AND (?3 IS NULL OR i.task_id = ?3) AND i.user_cpu IS NOT NULL \
     AND i.end_date >= i.start_date";
pub(super) const EARLIER_USAGE: &str = "SELECT i.key, i.task_id, h.start_date, h.end_date, h.user_cpu, h.system_cpu, h.max_rss, \
     h.read_bytes, h.write_bytes FROM dag_run r JOIN task_instance i ON i.run_key = r.key \
     JOIN task_instance_history h ON h.instance_key = i.key \
     WHERE r.dag_id = ?1 AND r.run_after >= ?2 AND (?3 IS NULL OR i.task_id = ?3) AND i.try_number > 1 AND h.user_cpu IS NOT NULL \
     AND h.end_date >= h.start_date";

pub(super) const RUNNING: &str = concat!(
    "SELECT ",
    instance_columns!(),
    ", r.run_id AS run FROM dag_run r JOIN task_instance i ON i.run_key = r.key \
     WHERE r.state IN ('queued', 'running') AND +r.dag_id = ?1 AND i.state = 'running'"
);

impl Reader {
    /// What runs of a DAG, with the runs' ids.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn running(&self, dag_id: &str) -> Result<Vec<(RunId, Instance)>, StoreError> {
        self.list("list what runs", RUNNING, [dag_id], |row| {
            let run_id = RunId::from(row.get::<_, String>("run")?);
            Ok((run_id, Fields::new(row, "task_instance").instance()?))
        })
    }

    /// What each try has cost that had a process and is over, of the runs that were due since then; in no order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn costs(
        &self,
        dag_id: &str,
        task_id: Option<&str>,
        since: Timestamp,
    ) -> Result<Vec<(TaskId, Cost)>, StoreError> {
        let mut costs = Vec::new();
        for sql in [USAGE, EARLIER_USAGE] {
            costs.extend(self.list(
                "read what tries have cost",
                sql,
                params![dag_id, micros(since), task_id],
                |row| {
                    let mut fields = Fields::new(row, "task_instance");
                    fields.take::<i64>()?;
                    let task_id = TaskId::from(fields.take::<String>()?);
                    let (started_at, ended_at) = (fields.instant()?, fields.instant()?);
                    let cpu = fields.micros()? + fields.micros()?;
                    let (memory, read, written) = (fields.size()?, fields.size()?, fields.size()?);
                    Ok((task_id, Cost { started_at, ended_at, cpu, memory, read, written }))
                },
            )?);
        }
        Ok(costs)
    }
}
