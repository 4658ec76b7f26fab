//! From a turn's changes to rows.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, params};

use crate::model::{DagId, DagRun, Instance, InstanceKey, Pool, PoolName, Wait};
use crate::scheduler::change::{
    AuditEntry, Changes, DagRecord, ImportError, InstanceWrite, LengthWrite, RunWrite, VersionWrite, XcomWrite,
};
use crate::store::fault::Fault;
use crate::store::row::{duration, integer, maybe_micros, micros};
use crate::store::xcom::stored_path;
use crate::store::{act, asset, backfill, callback, deadline, retire};

/// Writes all of them within the transaction that `connection` is in. `folder` holds the database: files are named as seen from there.
pub(super) fn put(connection: &Connection, changes: &Changes, folder: &Path) -> Result<(), Fault> {
    let mut counts = Counts::default();
    put_versions(connection, &changes.versions)?;
    put_dags(connection, &changes.dags)?;
    put_pools(connection, &changes.pools)?;
    drop_pools(connection, &changes.dropped_pools)?;
    put_runs(connection, &changes.runs, &mut counts)?;
    put_history(connection, &changes.history)?;
    put_instances(connection, &changes.instances, &mut counts)?;
    clear_xcoms(connection, &changes.cleared_xcoms)?;
    put_xcoms(connection, &changes.xcoms, folder)?;
    put_lengths(connection, &changes.lengths)?;
    for (filename, errors) in &changes.import_errors {
        put_import_errors(connection, filename, errors)?;
    }
    put_audit(connection, &changes.audit)?;
    act::put_notes(connection, &changes.notes)?;
    act::put_pauses(connection, &changes.pauses)?;
    act::put(connection, &changes.acts)?;
    backfill::put(connection, &changes.backfill, &mut counts)?;
    callback::put(connection, &changes.callbacks)?;
    callback::put_streaks(connection, &changes.streaks)?;
    deadline::put(connection, &changes.deadlines)?;
    deadline::put_expectations(connection, &changes.expectations)?;
    asset::put(connection, &changes.assets)?;
    retire::put(connection, &changes.retirement, &mut counts)?;
    counts.put(connection)?;
    Ok(())
}

/// What the turn adds to the counts by state: summed up first, so that a turn writes each count once.
#[derive(Default)]
pub(super) struct Counts<'a>(BTreeMap<(&'a str, &'static str, &'static str), i64>);

impl<'a> Counts<'a> {
    fn moved(&mut self, dag_id: &'a DagId, kind: &'static str, from: Option<&'static str>, to: &'static str) {
        self.moved_many(dag_id, kind, from, to, 1);
    }

    pub(super) fn moved_many(
        &mut self,
        dag_id: &'a DagId,
        kind: &'static str,
        from: Option<&'static str>,
        to: &'static str,
        count: i64,
    ) {
        if from == Some(to) {
            return;
        }
        if let Some(from) = from {
            *self.0.entry((dag_id, kind, from)).or_default() -= count;
        }
        *self.0.entry((dag_id, kind, to)).or_default() += count;
    }

    /// Rows in that state have gone.
    pub(super) fn gone(&mut self, dag_id: &'a DagId, kind: &'static str, state: &'static str, count: i64) {
        *self.0.entry((dag_id, kind, state)).or_default() -= count;
    }

    fn put(self, connection: &Connection) -> Result<(), Fault> {
        let mut statement = connection.prepare_cached(
            "INSERT INTO state_count (dag_id, kind, state, count) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (dag_id, kind, state) DO UPDATE SET count = count + excluded.count",
        )?;
        for ((dag_id, kind, state), change) in self.0 {
            if change != 0 {
                statement.execute(params![dag_id, kind, state, change])?;
            }
        }
        Ok(())
    }
}

fn put_versions(connection: &Connection, versions: &[VersionWrite]) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached(
        // Also where it is not known which one was the last.
        "INSERT INTO dag_version (key, dag_id, number, hash, source, created_at) VALUES (?1, ?2, max(?3, \
         (SELECT coalesce(max(number), 0) + 1 FROM dag_version WHERE dag_id = ?2 AND number < 4000000000)), ?4, ?5, ?6)",
    )?;
    for version in versions {
        statement.execute(params![
            version.key.0,
            version.dag_id.as_str(),
            version.number,
            version.hash,
            version.source,
            micros(version.created_at),
        ])?;
    }
    Ok(())
}

fn put_dags(connection: &Connection, dags: &[DagRecord]) -> Result<(), Fault> {
    if dags.is_empty() {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(
        "INSERT INTO dag (dag_id, file, is_paused, is_active, has_import_errors, schedule, timezone, description, owner, \
         tags, max_active_runs, max_active_tasks, version_key, first_seen_at, next_logical_date, next_interval_start, \
         next_interval_end, next_run_after, last_interval_start, last_interval_end, pause_reason) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21) \
         ON CONFLICT (dag_id) DO UPDATE SET file = ?2, is_paused = ?3, is_active = ?4, has_import_errors = ?5, \
         schedule = ?6, timezone = ?7, description = ?8, owner = ?9, tags = ?10, max_active_runs = ?11, \
         max_active_tasks = ?12, version_key = ?13, first_seen_at = ?14, next_logical_date = ?15, \
         next_interval_start = ?16, next_interval_end = ?17, next_run_after = ?18, last_interval_start = ?19, \
         last_interval_end = ?20, pause_reason = ?21",
    )?;
    for dag in dags {
        let next = dag.next_run;
        statement.execute(params![
            dag.dag_id.as_str(),
            dag.file,
            dag.is_paused,
            dag.is_active,
            dag.has_import_errors,
            dag.schedule,
            dag.timezone,
            dag.description,
            dag.owner,
            json(&dag.tags),
            dag.max_active_runs,
            dag.max_active_tasks,
            dag.version.map(|key| key.0),
            maybe_micros(dag.first_seen_at),
            maybe_micros(next.map(|next| next.logical_date)),
            maybe_micros(next.map(|next| next.data_interval.start)),
            maybe_micros(next.map(|next| next.data_interval.end)),
            maybe_micros(next.map(|next| next.run_after)),
            maybe_micros(dag.last_interval.map(|interval| interval.start)),
            maybe_micros(dag.last_interval.map(|interval| interval.end)),
            dag.pause_reason,
        ])?;
    }
    Ok(())
}

fn put_pools(connection: &Connection, pools: &[Pool]) -> Result<(), Fault> {
    for pool in pools {
        connection
            .prepare_cached(
                "INSERT INTO pool (name, slots, description, include_deferred) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (name) DO UPDATE SET slots = ?2, description = ?3, include_deferred = ?4",
            )?
            .execute(params![pool.name.as_str(), pool.slots, pool.description, pool.include_deferred])?;
    }
    Ok(())
}

fn drop_pools(connection: &Connection, names: &[PoolName]) -> Result<(), Fault> {
    for name in names {
        connection.prepare_cached("DELETE FROM pool WHERE name = ?1")?.execute([name.as_str()])?;
    }
    Ok(())
}

fn put_runs<'a>(connection: &Connection, runs: &'a [RunWrite], counts: &mut Counts<'a>) -> Result<(), Fault> {
    for RunWrite { run, prior } in runs {
        counts.moved(&run.dag_id, "run", prior.map(|state| state.as_str()), run.state.as_str());
        match prior {
            None => insert_run(connection, run)?,
            Some(prior) if prior.is_finished() || run.is_released => requeue_run(connection, run)?,
            Some(_) => update_run(connection, run)?,
        }
    }
    Ok(())
}

fn insert_run(connection: &Connection, run: &DagRun) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "INSERT INTO dag_run (key, dag_id, run_id, run_type, state, run_after, logical_date, data_interval_start, \
             data_interval_end, queued_at, start_date, end_date, conf, reason, lag, backfill_id, sort_ordinal) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
        )?
        .execute(params![
            run.key.0,
            run.dag_id.as_str(),
            run.run_id.as_str(),
            run.run_type.as_str(),
            run.state.as_str(),
            micros(run.run_after),
            maybe_micros(run.logical_date),
            maybe_micros(run.data_interval.map(|interval| interval.start)),
            maybe_micros(run.data_interval.map(|interval| interval.end)),
            maybe_micros(run.queued_at),
            maybe_micros(run.start_date),
            maybe_micros(run.end_date),
            json(&run.conf),
            run.reason,
            run.lag.map(duration),
            run.backfill.map(|place| place.backfill.0),
            run.backfill.map(|place| place.ordinal),
        ])?;
    Ok(())
}

/// What a run is does not change: only what becomes of it is written, and no index but that of unfinished runs is touched.
fn update_run(connection: &Connection, run: &DagRun) -> Result<(), Fault> {
    let changed = connection
        .prepare_cached(
            "UPDATE dag_run SET state = ?2, queued_at = ?3, start_date = ?4, end_date = ?5, conf = ?6, reason = ?7, lag = ?8, \
             clear_number = ?9 WHERE key = ?1",
        )?
        .execute(params![
            run.key.0,
            run.state.as_str(),
            maybe_micros(run.queued_at),
            maybe_micros(run.start_date),
            maybe_micros(run.end_date),
            json(&run.conf),
            run.reason,
            run.lag.map(duration),
            run.clear_number,
        ])?;
    if changed == 0 { Err(Fault::Missing { table: "dag_run", key: run.key.0 }) } else { Ok(()) }
}

const PUT_TRY: &str = "INSERT INTO task_instance_history (instance_key, state, try_number, max_tries, scheduled_at, queued_at, \
    start_date, end_date, pool, pool_slots, priority_weight, operator, version_key, pid, start_ticks, boot_id, exit_code, \
    signal, reason, user_cpu, system_cpu, max_rss, read_bytes, write_bytes, rendered_map_index, voluntary_switches, \
    involuntary_switches) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, \
    ?25, ?26, ?27)";

const INSERT_INSTANCE: &str = "INSERT INTO task_instance (key, state, try_number, max_tries, scheduled_at, queued_at, \
    start_date, end_date, pool, pool_slots, priority_weight, operator, version_key, pid, start_ticks, boot_id, exit_code, \
    signal, reason, user_cpu, system_cpu, max_rss, read_bytes, write_bytes, rendered_map_index, voluntary_switches, \
    involuntary_switches, retry_delay_override, deferral, map_index, run_key, task_id) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, \
    ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32)";

const UPDATE_INSTANCE: &str = "UPDATE task_instance SET state = ?2, try_number = ?3, max_tries = ?4, scheduled_at = ?5, \
    queued_at = ?6, start_date = ?7, end_date = ?8, pool = ?9, pool_slots = ?10, priority_weight = ?11, operator = ?12, \
    version_key = ?13, pid = ?14, start_ticks = ?15, boot_id = ?16, exit_code = ?17, signal = ?18, reason = ?19, \
    user_cpu = ?20, system_cpu = ?21, max_rss = ?22, read_bytes = ?23, write_bytes = ?24, rendered_map_index = ?25, \
    voluntary_switches = ?26, involuntary_switches = ?27, retry_delay_override = ?28, deferral = ?29, map_index = ?30 WHERE key = ?1";

/// Binds parameters 1 to 27, which the three statements above share.
fn bind_try(statement: &mut rusqlite::Statement<'_>, instance: &Instance) -> rusqlite::Result<()> {
    let (process, usage) = (instance.process.as_ref(), instance.usage.as_ref());
    statement.raw_bind_parameter(1, instance.key.0)?;
    statement.raw_bind_parameter(2, instance.state.as_nullable())?;
    statement.raw_bind_parameter(3, instance.try_number)?;
    statement.raw_bind_parameter(4, instance.max_tries)?;
    statement.raw_bind_parameter(5, maybe_micros(instance.scheduled_at))?;
    statement.raw_bind_parameter(6, maybe_micros(instance.queued_at))?;
    statement.raw_bind_parameter(7, maybe_micros(instance.start_date))?;
    statement.raw_bind_parameter(8, maybe_micros(instance.end_date))?;
    statement.raw_bind_parameter(9, instance.pool.as_str())?;
    statement.raw_bind_parameter(10, instance.pool_slots)?;
    statement.raw_bind_parameter(11, instance.priority_weight)?;
    statement.raw_bind_parameter(12, &*instance.operator)?;
    statement.raw_bind_parameter(13, instance.version.map(|key| key.0))?;
    statement.raw_bind_parameter(14, process.map(|process| process.pid))?;
    statement.raw_bind_parameter(15, process.map(|process| integer(process.start_ticks)))?;
    statement.raw_bind_parameter(16, process.map(|process| process.boot_id.as_str()))?;
    statement.raw_bind_parameter(17, instance.exit_code)?;
    statement.raw_bind_parameter(18, instance.signal)?;
    statement.raw_bind_parameter(19, instance.reason.as_deref())?;
    statement.raw_bind_parameter(20, usage.map(|usage| duration(usage.user_cpu)))?;
    statement.raw_bind_parameter(21, usage.map(|usage| duration(usage.system_cpu)))?;
    statement.raw_bind_parameter(22, usage.map(|usage| integer(usage.max_rss)))?;
    statement.raw_bind_parameter(23, usage.map(|usage| integer(usage.read_bytes)))?;
    statement.raw_bind_parameter(24, usage.map(|usage| integer(usage.write_bytes)))?;
    statement.raw_bind_parameter(25, instance.rendered_map_index.as_deref())?;
    statement.raw_bind_parameter(26, usage.map(|usage| integer(usage.voluntary_switches)))?;
    statement.raw_bind_parameter(27, usage.map(|usage| integer(usage.involuntary_switches)))
}

/// A run that had ended, or has left its backfill's line: it may have become another kind of run.
fn requeue_run(connection: &Connection, run: &DagRun) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "UPDATE dag_run SET run_type = ?2, backfill_id = ?3, sort_ordinal = ?4, is_released = ?5 WHERE key = ?1",
        )?
        .execute(params![
            run.key.0,
            run.run_type.as_str(),
            run.backfill.map(|place| place.backfill.0),
            run.backfill.map(|place| place.ordinal),
            run.is_released,
        ])?;
    update_run(connection, run)
}

fn put_history(connection: &Connection, tries: &[Instance]) -> Result<(), Fault> {
    for instance in tries {
        let mut statement = connection.prepare_cached(PUT_TRY)?;
        bind_try(&mut statement, instance)?;
        statement.raw_execute()?;
    }
    Ok(())
}

fn put_instances<'a>(
    connection: &Connection,
    instances: &'a [InstanceWrite],
    counts: &mut Counts<'a>,
) -> Result<(), Fault> {
    for InstanceWrite { instance, dag_id, prior } in instances {
        counts.moved(dag_id, "task", prior.map(|state| state.as_str()), instance.state.as_str());
        if prior.is_none() {
            let mut statement = connection.prepare_cached(INSERT_INSTANCE)?;
            bind_try(&mut statement, instance)?;
            statement.raw_bind_parameter(28, instance.retry_delay_override.map(duration))?;
            statement.raw_bind_parameter(29, instance.deferral.as_deref().map(Wait::to_json))?;
            statement.raw_bind_parameter(30, instance.map_index)?;
            statement.raw_bind_parameter(31, instance.run.0)?;
            statement.raw_bind_parameter(32, instance.task_id.as_str())?;
            statement.raw_execute()?;
        } else {
            let mut statement = connection.prepare_cached(UPDATE_INSTANCE)?;
            bind_try(&mut statement, instance)?;
            statement.raw_bind_parameter(28, instance.retry_delay_override.map(duration))?;
            statement.raw_bind_parameter(29, instance.deferral.as_deref().map(Wait::to_json))?;
            // A mapped task's only row becomes the first of many.
            statement.raw_bind_parameter(30, instance.map_index)?;
            if statement.raw_execute()? == 0 {
                return Err(Fault::Missing { table: "task_instance", key: instance.key.0 });
            }
        }
    }
    Ok(())
}

fn clear_xcoms(connection: &Connection, instances: &[InstanceKey]) -> Result<(), Fault> {
    for instance in instances {
        connection.prepare_cached("DELETE FROM xcom WHERE instance_key = ?1")?.execute([instance.0])?;
        connection.prepare_cached("DELETE FROM task_map WHERE instance_key = ?1")?.execute([instance.0])?;
    }
    Ok(())
}

fn put_xcoms(connection: &Connection, xcoms: &[XcomWrite], folder: &Path) -> Result<(), Fault> {
    for xcom in xcoms {
        let file = xcom.file.as_ref().map(|file| stored_path(folder, file));
        connection
            .prepare_cached(
                "INSERT INTO xcom (instance_key, key, pushed_at, value, file) VALUES (?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT (instance_key, key) DO UPDATE SET pushed_at = ?3, value = ?4, file = ?5",
            )?
            .execute(params![xcom.instance.0, xcom.key, micros(xcom.pushed_at), json(&xcom.value), file])?;
    }
    Ok(())
}

fn put_lengths(connection: &Connection, lengths: &[LengthWrite]) -> Result<(), Fault> {
    for LengthWrite { instance, key, length } in lengths {
        connection
            .prepare_cached(
                "INSERT INTO task_map (instance_key, key, length) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (instance_key, key) DO UPDATE SET length = ?3",
            )?
            .execute(params![instance.0, key, length])?;
    }
    Ok(())
}

fn put_import_errors(connection: &Connection, filename: &str, errors: &[ImportError]) -> Result<(), Fault> {
    connection.prepare_cached("DELETE FROM import_error WHERE filename = ?1")?.execute([filename])?;
    for (position, error) in (0_i64..).zip(errors) {
        connection
            .prepare_cached(
                "INSERT INTO import_error (filename, position, line, \"column\", code, message, help, timestamp) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                filename,
                position,
                error.line,
                error.column,
                error.code,
                error.message,
                error.help,
                micros(error.timestamp),
            ])?;
    }
    Ok(())
}

fn put_audit(connection: &Connection, entries: &[AuditEntry]) -> Result<(), Fault> {
    for entry in entries {
        connection
            .prepare_cached(
                "INSERT INTO log (at, event, dag_id, run_id, task_id, owner, extra) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                micros(entry.at),
                entry.event,
                entry.dag_id.as_ref().map(DagId::as_str),
                entry.run_id,
                entry.task_id,
                entry.owner,
                json(&entry.extra),
            ])?;
    }
    Ok(())
}

pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("JSON values and lists of text have a text")
}
