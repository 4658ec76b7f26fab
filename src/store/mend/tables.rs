//! What a start reads, table by table, and what is safe in the place of a value that cannot be read.
//!
//! Safe is what begins nothing that the user has paused or that is done already, and loses nothing that can be told by something else.

use rusqlite::Row;

use crate::store::fault::Fault;
use crate::store::read::{
    ALL_DAGS, IMPORT_ERRORS, LIVE_VERSIONS, POOLS, UNFINISHED_DECISIONS, UNFINISHED_INSTANCES, UNFINISHED_LENGTHS,
    UNFINISHED_RUNS, decision, import_error, instance, length, run, version,
};
use crate::store::row::Fields;
use crate::store::{act, asset, backfill, callback, deadline, load, retire};

/// What becomes of a value that cannot be read and of which nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Otherwise {
    Null,
    /// Its row is put aside.
    Aside,
}

/// A table that a start reads. Expressions are SQL about one row, in which `?1` is now and `?2` says what was wrong.
pub(in crate::store) struct Table {
    pub name: &'static str,
    /// What tells a row from all others; `list` has these columns.
    pub key: &'static [&'static str],
    /// The rows that a start reads.
    pub list: &'static str,
    pub read: fn(&Row<'_>) -> Result<(), Fault>,
    /// By column what stands in the place of what cannot be read.
    pub safe: &'static [(&'static str, &'static str)],
    pub otherwise: Otherwise,
    /// What else is set in such a row.
    pub marks: &'static [(&'static str, &'static str)],
    /// The key of the run that fails with it.
    pub run: Option<&'static str>,
    /// Of the DAG, the run and the task.
    pub ids: [&'static str; 3],
    /// For people.
    pub outcome: &'static str,
}

impl Table {
    /// None: the row is put aside.
    pub(super) fn safe(&self, column: &str) -> Option<&'static str> {
        let otherwise = (self.otherwise == Otherwise::Null).then_some("NULL");
        self.safe.iter().find(|(name, _)| *name == column).map(|(_, safe)| *safe).or(otherwise)
    }
}

/// Of the newest run of a DAG's schedule.
macro_rules! last_of_schedule {
    ($column:literal) => {
        concat!(
            "(SELECT r.",
            $column,
            " FROM dag_run r WHERE r.dag_id = dag.dag_id AND r.logical_date IS NOT NULL AND r.run_type = 'scheduled' \
             ORDER BY r.logical_date DESC LIMIT 1)"
        )
    };
}

/// Of the dates of a backfill.
macro_rules! edge_of_dates {
    ($edge:literal) => {
        concat!(
            "(SELECT coalesce(",
            $edge,
            "(d.logical_date), ?1) FROM backfill_dag_run d WHERE d.backfill_id = backfill.id AND typeof(d.logical_date) = 'integer')"
        )
    };
}

const START_OF_BACKFILL: &str = "(SELECT b.from_date FROM backfill b WHERE b.id = backfill_id)";
const OF_INSTANCE: [&str; 3] = [
    "(SELECT r.dag_id FROM task_instance i JOIN dag_run r ON r.key = i.run_key WHERE i.key = instance_key)",
    "(SELECT r.run_id FROM task_instance i JOIN dag_run r ON r.key = i.run_key WHERE i.key = instance_key)",
    "(SELECT i.task_id FROM task_instance i WHERE i.key = instance_key)",
];
const RUN_OF_INSTANCE: &str = "(SELECT i.run_key FROM task_instance i WHERE i.key = instance_key)";
const RUN_ID: &str = "(SELECT r.run_id FROM dag_run r WHERE r.key = run_key)";

/// What many have in common.
const ANY: Table = Table {
    name: "",
    key: &["key"],
    list: "",
    read: |_| Ok(()),
    safe: &[],
    otherwise: Otherwise::Aside,
    marks: &[],
    run: None,
    ids: ["dag_id", "NULL", "NULL"],
    outcome: "the row is put aside",
};

/// In an order in which what a table tells of another is settled before.
pub(in crate::store) const TABLES: &[Table] = &[
    Table {
        name: "dag",
        key: &["dag_id"],
        list: ALL_DAGS,
        read: |row| Fields::new(row, "dag").dag().map(drop),
        safe: &[
            ("dag_id", "(SELECT v.dag_id FROM dag_version v WHERE v.key = version_key)"),
            ("file", "'unreadable'"),
            ("is_paused", "1"),
            // One that has left its file to another does not come back.
            (
                "is_active",
                "NOT EXISTS (SELECT 1 FROM dag o WHERE o.file = dag.file AND o.dag_id <> dag.dag_id AND o.is_active)",
            ),
            ("has_import_errors", "0"),
            ("timezone", "'UTC'"),
            ("description", "''"),
            ("owner", "''"),
            ("tags", "'[]'"),
            ("max_active_runs", "1"),
            ("max_active_tasks", "1"),
            ("version_key", "(SELECT max(v.key) FROM dag_version v WHERE v.dag_id = dag.dag_id)"),
            ("last_interval_start", last_of_schedule!("data_interval_start")),
            ("last_interval_end", last_of_schedule!("data_interval_end")),
        ],
        otherwise: Otherwise::Null,
        outcome: "something safe takes its place until the DAG's file is read; a DAG of which it is not known is paused (`minflow dags unpause`)",
        ..ANY
    },
    Table {
        name: "dag_version",
        list: LIVE_VERSIONS,
        read: |row| version(row).map(drop),
        safe: &[
            ("dag_id", "(SELECT d.dag_id FROM dag d WHERE d.version_key = dag_version.key)"),
            (
                "number",
                "(SELECT coalesce(max(v.number), 0) + 1 FROM dag_version v WHERE v.dag_id = dag_version.dag_id AND v.number < 4000000000)",
            ),
            ("hash", "''"),
            ("source", "''"),
            ("created_at", "?1"),
        ],
        outcome: "the DAG's file is read as a new version of it; while that is broken, the DAG has none",
        ..ANY
    },
    Table {
        name: "pool",
        key: &["name"],
        list: POOLS,
        read: |row| Fields::new(row, "pool").pool().map(drop),
        safe: &[("slots", "0"), ("description", "''"), ("include_deferred", "1")],
        ids: ["NULL"; 3],
        outcome: "a pool whose slots are not known has none (`minflow pools set`)",
        ..ANY
    },
    Table {
        name: "dag_run",
        list: UNFINISHED_RUNS,
        read: |row| run(row).map(drop),
        safe: &[
            ("dag_id", "'unreadable__' || key"),
            ("run_id", "'unreadable__' || key"),
            ("run_type", "'manual'"),
            ("run_after", "?1"),
            ("conf", "'{}'"),
            ("is_released", "0"),
            ("clear_number", "0"),
        ],
        otherwise: Otherwise::Null,
        run: Some("key"),
        ids: ["dag_id", "run_id", "NULL"],
        outcome: "its run fails",
        ..ANY
    },
    Table {
        name: "task_instance",
        list: UNFINISHED_INSTANCES,
        read: |row| instance(row).map(drop),
        safe: &[
            ("task_id", "'unreadable__' || key"),
            // Below all that the task has: no two instances are one.
            (
                "map_index",
                "(SELECT coalesce(min(min(o.map_index), 0), 0) - 1 FROM task_instance o WHERE o.run_key = task_instance.run_key \
                 AND o.task_id = task_instance.task_id AND typeof(o.map_index) = 'integer' AND o.map_index BETWEEN -1000000 AND 0)",
            ),
            ("state", "'failed'"),
            (
                "try_number",
                "1 + (SELECT coalesce(max(try_number), 0) FROM task_instance_history WHERE instance_key = task_instance.key)",
            ),
            ("max_tries", "0"),
            ("pool", "'default_pool'"),
            ("pool_slots", "1"),
            ("priority_weight", "1"),
            ("operator", "'unreadable'"),
        ],
        otherwise: Otherwise::Null,
        marks: &[("state", "'failed'"), ("reason", "?2"), ("end_date", "?1")],
        run: Some("run_key"),
        ids: ["(SELECT r.dag_id FROM dag_run r WHERE r.key = run_key)", RUN_ID, "task_id"],
        outcome: "its run fails",
        ..ANY
    },
    Table {
        name: "task_map",
        key: &["instance_key", "key"],
        list: UNFINISHED_LENGTHS,
        read: |row| length(row).map(drop),
        run: Some(RUN_OF_INSTANCE),
        ids: OF_INSTANCE,
        outcome: "its run fails",
        ..ANY
    },
    Table {
        name: "xcom",
        key: &["instance_key", "key"],
        list: UNFINISHED_DECISIONS,
        read: |row| decision(row).map(drop),
        safe: &[("value", "'null'")],
        run: Some(RUN_OF_INSTANCE),
        ids: OF_INSTANCE,
        outcome: "its run fails",
        ..ANY
    },
    Table {
        name: "paused_try",
        key: &["instance_key"],
        list: act::PAUSED,
        read: |row| act::paused_try(row).map(drop),
        safe: &[
            ("try_number", "(SELECT i.try_number FROM task_instance i WHERE i.key = instance_key)"),
            ("paused_at", "?1"),
        ],
        ids: OF_INSTANCE,
        outcome: "the task stands still (`minflow tasks resume`)",
        ..ANY
    },
    Table {
        name: "act",
        list: act::ACTS,
        read: |row| act::body(row).map(drop),
        ids: ["NULL"; 3],
        outcome: "a clear or a mark of many runs is not gone on with: ask for it again",
        ..ANY
    },
    Table {
        name: "callback",
        list: callback::UNFINISHED,
        read: |row| callback::row(row).map(drop),
        safe: &[
            ("dag_id", "'unreadable'"),
            ("hook", "'on_failure'"),
            ("number", "1"),
            (
                "callback",
                "'{\"action\":{\"Notify\":\"unreadable\"},\"when\":\"Every\",\"timeout\":null,\"file\":null}'",
            ),
            (
                "occasion",
                "'{\"subject\":\"dag\",\"task\":null,\"state\":\"\",\"reason\":null,\"exception\":null,\"failed_tasks\":[],\
                 \"more_failed\":0,\"in_a_row\":0,\"deadline\":null}'",
            ),
            ("tries", "0"),
            ("failures", "0"),
            ("created_at", "?1"),
        ],
        otherwise: Otherwise::Null,
        marks: &[("state", "'failed'"), ("reason", "?2"), ("ended_at", "?1")],
        ids: ["dag_id", RUN_ID, "NULL"],
        outcome: "the callback is not made",
        ..ANY
    },
    Table {
        name: "failure_streak",
        key: &["dag_id", "task_id"],
        list: callback::STREAKS,
        read: |row| callback::streak(row).map(drop),
        ids: ["dag_id", "NULL", "task_id"],
        outcome: "failures in a row are counted anew",
        ..ANY
    },
    Table {
        name: "deadline",
        list: deadline::OPEN,
        read: |row| deadline::row(row).map(drop),
        ids: ["dag_id", RUN_ID, "NULL"],
        outcome: "nobody is told when that deadline is missed; its run goes on",
        ..ANY
    },
    Table {
        name: "expectation",
        key: &["dag_id"],
        list: deadline::EXPECTATIONS,
        read: |row| deadline::expectation(row).map(drop),
        outcome: "the next day by which a run is expected is counted from now on",
        ..ANY
    },
    Table {
        name: "import_error",
        key: &["filename", "position"],
        list: IMPORT_ERRORS,
        read: |row| import_error(row).map(drop),
        ids: ["NULL"; 3],
        outcome: "its file is read again now",
        ..ANY
    },
    Table {
        name: "retired_run",
        list: retire::RETIRED,
        read: |row| retire::retired(row).map(drop),
        safe: &[("dag_id", "'unreadable'"), ("run_id", "'unreadable__' || key")],
        ids: ["dag_id", "run_id", "NULL"],
        outcome: "folders of a run that is gone may stay (`minflow du`)",
        ..ANY
    },
    Table {
        name: "key_floor",
        key: &["table"],
        list: load::FLOORS,
        read: load::floor,
        // Above all that are there, by more than have gone.
        safe: &[(
            "key",
            "1000000 + (SELECT max(key) FROM (SELECT key FROM dag_run UNION ALL SELECT key FROM task_instance UNION ALL SELECT key FROM callback \
             UNION ALL SELECT key FROM deadline UNION ALL SELECT key FROM dag_version UNION ALL SELECT id FROM backfill UNION ALL SELECT 0) \
             WHERE key < 4611686018427387904)",
        )],
        ids: ["NULL"; 3],
        outcome: "new keys begin far behind the old ones",
        ..ANY
    },
    Table {
        name: "backfill",
        key: &["id"],
        list: backfill::UNCOMPLETED,
        read: |row| backfill::backfill(row).map(drop),
        safe: &[
            (
                "dag_id",
                "coalesce((SELECT r.dag_id FROM dag_run r WHERE r.backfill_id = backfill.id LIMIT 1), 'unreadable')",
            ),
            ("from_date", edge_of_dates!("min")),
            ("to_date", edge_of_dates!("max")),
            ("reprocess_behavior", "'none'"),
            ("is_backwards", "0"),
            ("max_active_runs", "1"),
            ("is_paused", "1"),
            ("is_cancelled", "0"),
            ("created_at", "?1"),
        ],
        otherwise: Otherwise::Null,
        marks: &[("is_paused", "1")],
        outcome: "the backfill is paused (`minflow backfill unpause` or `cancel`)",
        ..ANY
    },
    Table {
        name: "backfill_dag_run",
        key: &["backfill_id", "sort_ordinal"],
        list: backfill::ALL_PENDING,
        read: |row| backfill::pending(row).map(drop),
        safe: &[
            ("logical_date", START_OF_BACKFILL),
            ("data_interval_start", START_OF_BACKFILL),
            ("data_interval_end", START_OF_BACKFILL),
            ("run_after", START_OF_BACKFILL),
        ],
        marks: &[("exception_reason", "'unreadable'")],
        ids: ["(SELECT b.dag_id FROM backfill b WHERE b.id = backfill_id)", "NULL", "NULL"],
        outcome: "the backfill makes no run for that date",
        ..ANY
    },
    Table {
        name: "asset",
        list: asset::ASSETS,
        read: |row| asset::asset(row).map(drop),
        safe: &[
            ("name", "'unreadable__' || key"),
            ("uri", "name"),
            ("group", "'asset'"),
            ("extra", "'{}'"),
            ("is_alias", "0"),
            ("settle", "2000000"),
            ("catchup", "0"),
            // What lies there now does not count.
            ("watched_since", "?1"),
        ],
        ids: ["NULL"; 3],
        outcome: "what its DAG files or airflow.toml say of it takes its place",
        ..ANY
    },
    Table {
        name: "asset_alias_asset",
        key: &["alias_key", "asset_key"],
        list: asset::RESOLVED,
        read: |row| asset::resolved(row).map(drop),
        ids: ["NULL"; 3],
        outcome: "the alias does not stand for that asset before its next event",
        ..ANY
    },
    Table {
        name: "asset_dag_run_queue",
        key: &["dag_id", "asset_key"],
        list: asset::QUEUES,
        read: |row| asset::queued(row).map(drop),
        safe: &[("created_at", "?1")],
        outcome: "an event that nobody can tell the DAG or the asset of makes no run (`minflow dags trigger`)",
        ..ANY
    },
    Table {
        name: "asset_consumer",
        key: &["dag_id"],
        list: asset::CONSUMERS,
        read: |row| asset::consumer(row).map(drop),
        safe: &[("consumed_until", "(SELECT coalesce(max(key), 0) FROM asset_event)")],
        outcome: "the DAG's next run has the events from now on",
        ..ANY
    },
    Table {
        name: "asset_file",
        key: &["asset_key", "path"],
        list: asset::FILES,
        read: |row| asset::file(row).map(drop),
        safe: &[("path", "CAST(path AS BLOB)"), ("inode", "0"), ("size", "0"), ("modified_at", "0")],
        // As `Stamp::UNKNOWN` has it.
        marks: &[("inode", "0"), ("size", "0"), ("modified_at", "-9223372036854775807 - 1")],
        ids: ["NULL"; 3],
        outcome: "the file counts as one that was told, as it is now",
        ..ANY
    },
];
