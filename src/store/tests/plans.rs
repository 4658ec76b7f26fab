//! The questions of pages walk indexes: none scans runs, instances, tries or XComs.

use super::*;
use crate::store::{act, asset, backfill, read, unfinished, usage, usual, xcom};

fn plan_of(reader: &Reader, sql: &str) -> String {
    let mut statement = reader.connection().prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let values = vec![None::<i64>; statement.parameter_count()];
    let lines = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
    lines.collect::<rusqlite::Result<Vec<_>>>().unwrap().join("\n")
}

#[test]
fn every_question_of_a_page_is_answered_by_an_index() {
    let folder = tempfile::tempdir().unwrap();
    drop(open_in(folder.path()));
    let reader = reader_in(folder.path());
    let questions = [
        (read::LIST_DAGS, "dag_run_newest"),
        (read::RECENT_DAGS, "dag_run_newest"),
        (read::ONE_DAG, "dag_run_newest"),
        (read::RUNS, "dag_run_newest"),
        (read::RUN_BY_ID, "dag_run_run_id"),
        (read::RUN_BY_DATE, "dag_run_logical_date"),
        (read::UNFINISHED_RUNS, "dag_run_unfinished"),
        (read::UNFINISHED_INSTANCES, "dag_run_unfinished"),
        (read::UNFINISHED_LENGTHS, "dag_run_unfinished"),
        (read::UNFINISHED_DECISIONS, "dag_run_unfinished"),
        (unfinished::EXTENT, "COVERING INDEX task_instance_identity"),
        (unfinished::INSTANCES_BETWEEN, "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (unfinished::LENGTHS_BETWEEN, "PRIMARY KEY (instance_key>? AND instance_key<?)"),
        (unfinished::DECISIONS_BETWEEN, "PRIMARY KEY (instance_key>? AND instance_key<?)"),
        (read::DECISIONS, "task_instance_identity"),
        (asset::EVENTS, "asset_event_asset"),
        (asset::CONSUMED, "PRIMARY KEY"),
        (act::RUNS_IN, "dag_run_newest"),
        (backfill::COUNT_QUEUED, "dag_run_backfill"),
        (backfill::QUEUED_RUNS, "dag_run_backfill"),
        (read::PREVIOUS_SUCCESS, "dag_run_logical_date"),
        (read::NEWEST_SCHEDULED, "dag_run_logical_date"),
        (read::RUN_BEFORE, "dag_run_logical_date"),
        (read::RUN_BEFORE_BUT_MANUAL, "dag_run_logical_date"),
        (read::NEWEST_KEYS, "dag_run_newest"),
        (read::DATE_BEFORE, "dag_run_logical_date"),
        (read::DATE_BEFORE_BUT_MANUAL, "dag_run_logical_date"),
        (read::TASK_STATES, "task_instance_identity"),
        (read::EARLIER_INSTANCE, "dag_run_logical_date"),
        (read::EARLIER_INSTANCE, "task_instance_identity"),
        (read::INSTANCES, "task_instance_identity"),
        (read::INSTANCES_BEHIND, "task_instance_identity"),
        (read::INSTANCE, "task_instance_identity"),
        (read::LENGTHS, "task_instance_identity"),
        (read::GRID, "task_instance_identity"),
        (usual::SUCCESSFUL_DURATIONS, "task_instance_identity"),
        (usual::MEMORY, "task_instance_identity"),
        (usual::TASK_DURATIONS, "task_instance_identity"),
        (usage::USAGE, "dag_run_newest"),
        (usage::USAGE, "task_instance_identity"),
        (usage::EARLIER_USAGE, "PRIMARY KEY"),
        (usage::RUNNING, "dag_run_unfinished"),
        (usual::RUN_DURATIONS, "dag_run_newest"),
        (read::EARLIER_TRIES, "PRIMARY KEY"),
        (read::XCOM, "task_instance_identity"),
        (read::XCOMS, "task_instance_identity"),
        (read::RUN_WITH_XCOM, "dag_run_logical_date"),
        (xcom::XCOMS_OF_TASK, "task_instance_identity"),
        (read::RECENT_FAILURES, "task_instance_failed"),
    ];
    for (sql, index) in questions {
        let plan = plan_of(&reader, sql);
        assert!(plan.contains(index), "{sql}\n{plan}");
        for table in ["r", "i", "h", "x", "n", "m"] {
            let is_scan = |line: &str| line == format!("SCAN {table}");
            assert!(!plan.lines().any(is_scan), "{sql}\n{plan}");
        }
    }
}

#[test]
fn the_newest_runs_of_a_dag_and_the_last_failures_are_read_without_sorting_them() {
    let folder = tempfile::tempdir().unwrap();
    drop(open_in(folder.path()));
    let reader = reader_in(folder.path());
    for sql in [
        read::RUNS,
        read::PREVIOUS_SUCCESS,
        read::RUN_BEFORE,
        read::RUN_BEFORE_BUT_MANUAL,
        read::NEWEST_SCHEDULED,
        read::RECENT_FAILURES,
    ] {
        let plan = plan_of(&reader, sql);
        assert!(!plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
}
