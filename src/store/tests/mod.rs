//! The store against real files.

mod archive;
mod counts;
mod disk;
mod faults;
mod files;
mod migrations;
mod plans;
mod retire;
mod round_trip;
mod rows;
mod unfinished;

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::config::Synchronous;
use std::sync::Arc;

use crate::model::callback::{Action, Callback, CallbackRow, CallbackState, Hook, Occasion, Subject, When};
use crate::model::dag::{Position, Template};
use crate::model::deadline::DeadlineRow;
use crate::model::{
    Asset, AssetDefinition, AssetKey, DagId, DagRun, DataInterval, EventSource, Instance, InstanceKey, Pool,
    ProcessIdentity, RunKey, RunState, RunType, Stamp, TaskState, Usage, VersionKey,
};
use crate::model::{Awaited, Pace, SensorMode, Wait};
use crate::model::{CallbackKey, DeadlineKey};
use crate::scheduler::change::{
    ActWrite, AssetChanges, AssetReference, AuditEntry, BackfillChanges, Changes, Consumption, DagRecord,
    DeadlineWrite, EventWrite, ExpectationWrite, ImportError, LengthWrite, NextRun, NoteWrite, PauseWrite,
    RetireChanges, Streak, VersionWrite, XcomWrite,
};
use crate::scheduler::{InstanceWrite, RunWrite};
use crate::store::{Database, Reader};

pub(super) fn open_in(folder: &Path) -> Database {
    Database::open(&folder.join("minflow.db"), Synchronous::Full).unwrap()
}

pub(super) fn reader_in(folder: &Path) -> Reader {
    Reader::open(&folder.join("minflow.db")).unwrap()
}

/// A turn that writes about `bytes`.
pub(super) fn audit_of(bytes: usize) -> Changes {
    Changes { audit: vec![audit_entry(json!({ "text": "x".repeat(bytes) }))], ..Changes::default() }
}

pub(super) fn pages_of_log(database: &Database) -> u64 {
    let log = database.path().with_extension("db-wal");
    log.metadata().unwrap().len() / 4096
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_microsecond(1_795_000_000_000_000 + second * 1_000_000 + 123_456).unwrap()
}

pub(super) fn audit_entry(extra: Value) -> AuditEntry {
    AuditEntry {
        at: at(9),
        event: "trigger",
        dag_id: Some(DagId::from("sales")),
        run_id: Some("manual__1".to_owned()),
        task_id: Some("load".to_owned()),
        owner: "cli".to_owned(),
        extra,
    }
}

pub(super) fn interval(second: i64) -> DataInterval {
    DataInterval { start: at(second), end: at(second + 60) }
}

/// Every field differs from its default.
pub(super) fn dag(dag_id: &str, version: i64) -> DagRecord {
    DagRecord {
        dag_id: DagId::from(dag_id),
        file: format!("team/{dag_id}.toml"),
        is_paused: true,
        is_active: true,
        has_import_errors: true,
        schedule: Some("0 6 * * *".to_owned()),
        timezone: "Europe/London".to_owned(),
        description: "Daily \"sales\" — ü".to_owned(),
        owner: "finance".to_owned(),
        tags: vec!["a,b".to_owned(), "ü".to_owned()],
        max_active_runs: 3,
        max_active_tasks: 4,
        version: Some(VersionKey(version)),
        first_seen_at: Some(at(1)),
        next_run: Some(NextRun { logical_date: at(2), data_interval: interval(3), run_after: at(4) }),
        last_interval: Some(interval(5)),
        pause_reason: None,
    }
}

pub(super) fn version(key: i64, dag_id: &str) -> VersionWrite {
    VersionWrite {
        key: VersionKey(key),
        dag_id: DagId::from(dag_id),
        number: 7,
        hash: "0badcafe".into(),
        source: "[tasks.a]\nbash = 'true'\n".into(),
        created_at: at(6),
    }
}

pub(super) fn run(key: i64, dag_id: &str, state: RunState) -> DagRun {
    DagRun {
        key: RunKey(key),
        dag_id: DagId::from(dag_id),
        run_id: format!("scheduled__{key}").into(),
        run_type: RunType::Scheduled,
        state,
        run_after: at(key * 100),
        logical_date: Some(at(key * 100 - 1)),
        data_interval: Some(interval(key * 100 - 60)),
        queued_at: Some(at(key * 100 + 1)),
        start_date: Some(at(key * 100 + 2)),
        end_date: Some(at(key * 100 + 3)),
        conf: json!({ "z": 1, "a": [true, null, "ü"] }).as_object().unwrap().clone(),
        reason: Some("task_failure".to_owned()),
        lag: Some(Duration::from_micros(1_234)),
        backfill: None,
        is_released: false,
        clear_number: 0,
    }
}

pub(super) fn instance(key: i64, run: i64, task_id: &str, state: TaskState) -> Instance {
    Instance {
        key: InstanceKey(key),
        run: RunKey(run),
        task_id: task_id.into(),
        map_index: -1,
        state,
        try_number: 2,
        max_tries: 3,
        scheduled_at: Some(at(key)),
        queued_at: Some(at(key + 1)),
        start_date: Some(at(key + 2)),
        end_date: Some(at(key + 3)),
        pool: "cpu".into(),
        pool_slots: 2,
        priority_weight: -(1_i64 << 40),
        operator: "bash".into(),
        version: Some(VersionKey(1)),
        process: Some(Box::new(ProcessIdentity { pid: 4711, start_ticks: 1 << 50, boot_id: "b0071d".to_owned() })),
        exit_code: Some(3),
        signal: Some(9),
        reason: Some("timed_out".to_owned()),
        usage: Some(Box::new(Usage {
            user_cpu: Duration::from_micros(1_500_001),
            system_cpu: Duration::from_micros(7),
            max_rss: 5 << 40,
            read_bytes: 11,
            write_bytes: 12,
            voluntary_switches: 13,
            involuntary_switches: 14,
        })),
        rendered_map_index: Some("north-west".into()),
        retry_delay_override: Some(Duration::from_micros(7_250_000)),
        deferral: Some(Arc::new(wait())),
    }
}

/// Of a sensor.
fn wait() -> Wait {
    Wait {
        awaited: Awaited::Instant(at(60)),
        mode: SensorMode::Reschedule,
        since: at(0),
        timeout: Some(Duration::from_secs(3_600)),
        execution_timeout: None,
        soft_fail: true,
        pace: Pace { poke_interval: Duration::from_secs(60), is_exponential: false, max_wait: None },
    }
}

pub(super) fn new_run(run: DagRun) -> RunWrite {
    RunWrite { run, prior: None }
}

pub(super) fn new_instance(instance: Instance) -> InstanceWrite {
    InstanceWrite { instance, dag_id: DagId::from("sales"), prior: None }
}

pub(super) fn xcom(instance: i64, key: &str, value: Value) -> XcomWrite {
    XcomWrite { instance: InstanceKey(instance), key: key.to_owned(), value, file: None, pushed_at: at(8) }
}

pub(super) fn length(instance: i64, key: &str, length: u32) -> LengthWrite {
    LengthWrite { instance: InstanceKey(instance), key: key.into(), length }
}

pub(super) fn import_error(filename: &str, line: u32) -> ImportError {
    ImportError {
        filename: filename.to_owned(),
        line,
        column: 5,
        code: "unknown-key".to_owned(),
        message: "unknown key `retrys`".to_owned(),
        help: "did you mean `retries`?".to_owned(),
        timestamp: at(7),
    }
}

/// Of the one instance that runs.
pub(super) fn pause(paused_at: Option<Timestamp>) -> PauseWrite {
    PauseWrite { key: instance(1, 1, "load", TaskState::Running).try_key(), paused_at }
}

/// One of everything: run 1 runs and has two instances, run 2 is over and has one.
pub(super) fn one_of_everything() -> Changes {
    let mut earlier = instance(1, 1, "load", TaskState::Failed);
    earlier.try_number = 1;
    // History has none: it says when the next try started.
    earlier.retry_delay_override = None;
    earlier.deferral = None;
    Changes {
        retirement: RetireChanges::default(),
        versions: vec![version(1, "sales")],
        dags: vec![dag("sales", 1)],
        pools: vec![Pool {
            name: "cpu".into(),
            slots: -1,
            description: "CPU-bound".to_owned(),
            include_deferred: true,
        }],
        dropped_pools: vec!["gone".into()],
        runs: vec![new_run(run(1, "sales", RunState::Running)), new_run(run(2, "sales", RunState::Success))],
        history: vec![earlier],
        instances: vec![
            new_instance(instance(1, 1, "load", TaskState::Running)),
            new_instance(instance(2, 1, "report", TaskState::None)),
            new_instance(instance(3, 2, "load", TaskState::Failed)),
        ],
        cleared_xcoms: vec![InstanceKey(1)],
        xcoms: vec![xcom(1, "return_value", json!({ "b": 1, "a": "ü" })), xcom(3, "k", Value::Null)],
        lengths: vec![length(1, "return_value", 2)],
        import_errors: vec![("x.toml".to_owned(), vec![import_error("x.toml", 9), import_error("x.toml", 2)])],
        audit: vec![audit_entry(json!({ "conf": {} }))],
        notes: vec![NoteWrite { run: RunKey(2), instance: Some(InstanceKey(3)), note: Some("known".to_owned()) }],
        pauses: vec![pause(Some(at(7)))],
        acts: vec![ActWrite { key: 1, body: Some(json!({ "deed": "clear" })) }],
        backfill: BackfillChanges::default(),
        callbacks: vec![callback_row(1)],
        deadlines: vec![DeadlineWrite::Put(deadline_row(1))],
        expectations: vec![ExpectationWrite { dag_id: "sales".into(), at: Some(at(77)) }],
        streaks: vec![Streak { dag_id: "sales".into(), task_id: Some("load".into()), run: RunKey(2), failures: 3 }],
        assets: assets(),
    }
}

pub(super) fn deadline_row(key: i64) -> DeadlineRow {
    let run = Some((RunKey(2), run(2, "sales", RunState::Success).run_id));
    DeadlineRow { key: DeadlineKey(key), dag_id: "sales".into(), run, number: 2, at: at(55), missed_at: None }
}

/// Of the run that is over, about its task that has failed.
pub(super) fn callback_row(key: i64) -> CallbackRow {
    let script = Template { text: "mail 'ü' {{ exception }}".to_owned(), at: Position { line: 3, column: 9 } };
    CallbackRow {
        key: CallbackKey(key),
        dag_id: "sales".into(),
        run: Some(RunKey(2)),
        hook: Hook::OnFailure,
        number: 2,
        callback: Callback {
            action: Action::Bash(script),
            when: When::InARow(3),
            timeout: Some(Duration::from_secs(7)),
            file: Some("airflow.toml".into()),
        },
        occasion: Occasion { in_a_row: 3, reason: Some("task_failure".to_owned()), ..Occasion::new(Subject::Run) },
        state: CallbackState::Running,
        tries: 2,
        failures: 1,
        created_at: at(1),
        started_at: Some(at(2)),
        ended_at: None,
        reason: Some("exit code 1".to_owned()),
    }
}

/// An alias that has stood for an asset of files: two events have come, one of them by the alias, and run 1 has consumed both.
fn assets() -> AssetChanges {
    let (alias, files) = (AssetKey(1), AssetKey(2));
    let asset = |key, definition, watched_since| Asset { key, definition, watched_since };
    let source =
        EventSource { dag_id: "sales".to_owned(), run_id: "r".to_owned(), task_id: "load".to_owned(), map_index: -1 };
    let event = |key, source, alias| EventWrite {
        key,
        asset: files,
        timestamp: at(key),
        extra: Map::from_iter([("path".to_owned(), json!("/in/ü"))]),
        source,
        alias,
    };
    let stamp = Stamp { inode: u64::MAX, size: 7, modified_at: 1 };
    AssetChanges {
        assets: vec![
            asset(alias, AssetDefinition { is_alias: true, ..AssetDefinition::implied("days") }, None),
            asset(files, AssetDefinition { catchup: true, ..AssetDefinition::implied("file:///in/*") }, Some(at(1))),
        ],
        references: vec![(
            "sales".into(),
            vec![AssetReference { asset: alias, role: "outlet", task_id: "load".to_owned() }],
        )],
        resolved: vec![(alias, files)],
        events: vec![event(1, None, None), event(2, Some(source), Some(alias))],
        queues: vec![("sales".into(), vec![(files, at(2))])],
        consumed_until: vec![("sales".into(), Some(2))],
        consumptions: vec![Consumption {
            run: RunKey(1),
            after: 0,
            until: 2,
            assets: vec![files],
            aliases: vec![alias],
        }],
        files: vec![(files, "/in/ü".into(), Some(stamp)), (files, "/in/gone".into(), None)],
        forgotten_files: vec![alias],
    }
}
