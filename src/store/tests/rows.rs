//! Rows that no minflow wrote: a start goes on whatever stands in them.

use std::path::Path;

use rusqlite::Connection;
use serde_json::json;

use super::*;
use crate::scheduler::Store;
use crate::scheduler::change::Snapshot;
use crate::store::{AuditFilter, AuditRecord};

const VALUES: [&str; 7] =
    ["x'ff00'", "CAST(x'61ff' AS TEXT)", "'odd'", "-9e18", "NULL", "9223372036854775807", "-9223372036854775807"];

/// A little of all, of which most is not over.
fn prepare(path: &Path) {
    let mut database = Database::open(path, Synchronous::Normal).unwrap();
    let mut changes = one_of_everything();
    changes.instances.push(new_instance(Instance { map_index: 7, ..instance(4, 1, "load", TaskState::Queued) }));
    database.commit(&changes).unwrap();
    database.connection().execute_batch(include_str!("../../../tests/fixtures/later-rows.sql")).unwrap();
    database.connection().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
}

/// Each column of each table.
fn columns(path: &Path) -> Vec<(String, String)> {
    let connection = Connection::open(path).unwrap();
    let sql = "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table' ORDER BY t.name, c.cid";
    let mut names = connection.prepare(sql).unwrap();
    names.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

/// Puts a value into the first row of a table that a start reads; false: the column takes no such value.
fn damage(connection: &Connection, (table, column): (&str, &str), value: &str) -> bool {
    let mut keys =
        connection.prepare("SELECT '\"' || name || '\"' FROM pragma_table_info(?1) WHERE pk ORDER BY pk").unwrap();
    let keys: Vec<String> = keys.query_map([table], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let (key, first) = (keys.join(", "), if table == "xcom" { "WHERE key = 'skipmixin_key'" } else { "" });
    let sql = format!(
        "UPDATE {table} SET \"{column}\" = {value} WHERE ({key}) = (SELECT {key} FROM {table} {first} ORDER BY {key} LIMIT 1)"
    );
    connection.execute(&sql, []).is_ok_and(|changed| changed == 1)
}

/// Whether a start does without the column, or without a row that has such a value in it.
fn is_not_read(table: &str, column: &str) -> bool {
    matches!(
        (table, column),
        ("log" | "state_count" | "task_instance_history", _)
            // A run in an unknown state belongs to nobody, and so do others of which it is unknown whether they are over.
            | ("dag_run" | "callback", "state")
            | ("deadline", "missed_at")
            | ("backfill", "completed_at")
            | ("task_instance", "run_key")
            | ("task_map" | "xcom", "instance_key")
            | ("xcom", "key" | "pushed_at" | "file")
    )
}

fn mends(reader: &Reader) -> Vec<AuditRecord> {
    reader.audit(&AuditFilter { event: Some("mend"), ..AuditFilter::default() }, 1_000).unwrap()
}

#[test]
fn rows_that_cannot_be_read_fail_their_runs_and_not_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = open_in(folder.path());
    let write = |key: i64| RunWrite { run: run(key, "sales", RunState::Running), prior: None };
    let row = |key: i64, run: i64| InstanceWrite {
        instance: instance(key, run, "load", TaskState::Running),
        dag_id: "sales".into(),
        prior: None,
    };
    let versions = vec![version(1, "sales")];
    let runs = vec![write(1), write(2), write(3)];
    let instances = vec![row(1, 1), row(2, 2), row(3, 3)];
    database.commit(&Changes { versions, runs, instances, ..Changes::default() }).unwrap();
    let other = rusqlite::Connection::open(folder.path().join("minflow.db")).unwrap();
    other.execute("UPDATE task_instance SET state = 'flying' WHERE key = 1", []).unwrap();
    other.execute("UPDATE dag_run SET run_type = 'odd' WHERE key = 2", []).unwrap();
    let loaded = database.load().unwrap();
    let kept: Vec<i64> = loaded.runs.iter().map(|run| run.key.0).collect();
    assert_eq!((kept, loaded.instances.len()), (vec![3], 1));
    let state = |sql: &str| -> (String, Option<String>) {
        other.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    for key in [1, 2] {
        let (found, reason) = state(&format!("SELECT state, reason FROM dag_run WHERE key = {key}"));
        assert!(found == "failed" && reason.as_ref().unwrap().starts_with("an impossible row: "), "{found} {reason:?}");
    }
    let (found, reason) = state("SELECT state, reason FROM task_instance WHERE key = 1");
    assert!(found == "failed" && reason.unwrap().contains("flying"));
    assert_eq!(state("SELECT state, reason FROM task_instance WHERE key = 2").0, "skipped");
    let counted = "SELECT group_concat(kind || ' ' || state || ' ' || count, ', '), NULL FROM (SELECT * FROM state_count \
        WHERE count <> 0 ORDER BY kind, state)";
    let counts = "run failed 2, run running 1, task failed 1, task running 1, task skipped 1";
    assert_eq!(state(counted).0, counts);
    assert_eq!(database.load().unwrap().runs.len(), 1);
    // Nobody stumbles over them any more, and what was there is kept.
    let reader = reader_in(folder.path());
    assert_eq!((reader.runs("sales", None).unwrap().len(), reader.unreadable().unwrap()), (3, Vec::new()));
    let audit = reader.audit(&AuditFilter { event: Some("mend"), ..AuditFilter::default() }, 9).unwrap();
    let kept: Vec<_> = audit.iter().rev().map(|entry| (entry.run_id.as_deref().unwrap(), &entry.extra)).collect();
    let of = |table, key, column, was, fault| json!({"table": table, "key": key, "column": column, "was": was, "fault": fault});
    let run = of("dag_run", 2, "run_type", "odd", "unknown name `odd`");
    let task = of("task_instance", 1, "state", "flying", "unknown name `flying`");
    assert_eq!(kept, [("scheduled__2", &run), ("scheduled__1", &task)]);
}

/// Each column of the tables that are meant takes four of the values, in turn. What `look` is given: the column and the value as words, the database before the start, what the start has found, and what cannot be read
/// before it.
fn for_each_damage(
    is_meant: impl Fn(&str) -> bool,
    mut look: impl FnMut(&str, (&str, &str), &Reader, &Snapshot, &[String]),
) -> usize {
    let prepared = tempfile::tempdir().unwrap();
    let whole = prepared.path().join("minflow.db");
    prepare(&whole);
    let (bytes, columns) = (std::fs::read(&whole).unwrap(), columns(&whole));
    let mut damages = 0;
    let turns = columns.iter().enumerate().filter(|(_, (table, _))| is_meant(table));
    for ((table, column), value) in
        turns.flat_map(|(at, cell)| VALUES.iter().cycle().skip(at * 4).take(4).map(move |value| (cell, value)))
    {
        let what = format!("{table}.{column} = {value}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("minflow.db");
        std::fs::write(&path, &bytes).unwrap();
        let mut database = Database::open(&path, Synchronous::Normal).unwrap();
        if !damage(database.connection(), (table, column), value) {
            continue;
        }
        damages += 1;
        let reader = reader_in(folder.path());
        let unreadable = reader.unreadable().unwrap();
        let loaded = database.load().unwrap_or_else(|error| panic!("{what}: {error}; {}", error.help));
        look(&what, (table, column), &reader, &loaded, &unreadable);
        if !unreadable.is_empty() {
            // What is mended is not met again.
            let mended = mends(&reader);
            assert_eq!(database.load().unwrap(), loaded, "{what}");
            assert_eq!(mends(&reader), mended, "{what}");
        }
    }
    damages
}

#[test]
fn whatever_column_cannot_be_read_its_run_fails_and_all_can_be_read_afterwards() {
    let mut mended = 0;
    let is_of_run = |table: &str| ["dag_run", "task_instance"].contains(&table);
    for_each_damage(is_of_run, |what, (table, column), reader, loaded, unreadable| {
        if is_not_read(table, column) || column == "key" {
            return;
        }
        assert_eq!(loaded.runs.is_empty(), !unreadable.is_empty(), "{what}");
        if let Some(fault) = unreadable.first() {
            mended += 1;
            assert!(fault.starts_with(&format!("{table} 1, column {column}: ")), "{what}: {fault}");
            assert_eq!((reader.unreadable().unwrap(), reader.check().unwrap()), (Vec::new(), Vec::new()), "{what}");
            assert_eq!(reader.instances(RunKey(1)).unwrap().len(), 3, "{what}");
            assert_eq!(mends(reader)[0].extra["column"], *column, "{what}");
        }
    });
    assert!(mended > 60, "{mended}");
}

#[test]
fn whatever_stands_in_any_cell_the_start_goes_on_and_nothing_that_was_paused_begins() {
    let (mut mended, mut aside) = (0, 0);
    let damages = for_each_damage(
        |_| true,
        |what, (table, column), reader, loaded, unreadable| {
            for dag in &loaded.dags {
                assert!(dag.is_paused || what == "dag.is_paused = NULL", "{what}");
            }
            if is_not_read(table, column) {
                return;
            }
            assert_eq!(reader.unreadable().unwrap(), Vec::<String>::new(), "{what}");
            let kept = mends(reader);
            assert_eq!(kept.is_empty(), unreadable.is_empty(), "{what}: {unreadable:?}");
            let Some(first) = kept.last() else { return };
            mended += 1;
            let extra = &first.extra;
            assert_eq!(extra["table"], *table, "{what}");
            assert!(
                unreadable[0].starts_with(table) && unreadable[0].contains(extra["column"].as_str().unwrap()),
                "{what}: {unreadable:?}"
            );
            // What was there is kept: the value, or all of the row.
            aside += usize::from(extra["row"].is_object());
            let was = extra.get("row").map_or(&extra["was"], |row| &row[column]);
            assert!(!was.is_null() || what.ends_with("= NULL"), "{what}: {extra}");
        },
    );
    assert!(damages > 500 && mended > 150 && aside > 20, "{damages} {mended} {aside}");
}

/// What was told, by a reader of this test alone.
static TOLD: parking_lot::Mutex<Vec<String>> = parking_lot::Mutex::new(Vec::new());

#[test]
fn a_list_shows_what_it_can_read_and_tells_once_of_each_row_that_it_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = open_in(folder.path());
    let mut changes = one_of_everything();
    changes.instances.push(new_instance(instance(4, 2, "report", TaskState::Failed)));
    database.commit(&changes).unwrap();
    let harm = |sql: &str| database.connection().execute_batch(sql).unwrap();
    harm("UPDATE dag_run SET run_type = 'odd' WHERE key = 2; UPDATE task_instance SET state = 'odd' WHERE key = 3;");
    let reader = reader_in(folder.path()).telling(|row| TOLD.lock().push(row.to_owned()));
    let told = || std::mem::take(&mut *TOLD.lock());
    let runs = || reader.runs("sales", None).unwrap().iter().map(|run| run.key.0).collect::<Vec<_>>();
    assert_eq!(runs(), [1]);
    let sentence = |row: &str, column: &str| {
        format!(
            "{row} cannot be read and is left out: column {column}: unknown name `odd` (`minflow db check` names all such rows)"
        )
    };
    assert_eq!(told(), [sentence("dag_run 2", "run_type")]);
    assert_eq!((runs(), told()), (vec![1], Vec::new()));
    let keys = |instances: Vec<Instance>| instances.iter().map(|instance| instance.key.0).collect::<Vec<_>>();
    assert_eq!(keys(reader.instances(RunKey(2)).unwrap()), [4]);
    assert_eq!(keys(reader.grid("sales", 5).unwrap()), [1, 2, 4]);
    assert_eq!(told(), [sentence("task_instance 3", "state")]);
    // A DAG is listed without its last run.
    let dags = reader.dags().unwrap();
    assert_eq!((dags.len(), &dags[0].last_run), (1, &None));
    assert_eq!(reader.dag("sales").unwrap().unwrap().last_run, None);
    harm("UPDATE task_instance SET user_cpu = 'odd', end_date = 'odd' WHERE key = 4");
    assert_eq!(reader.recent_failures(9).unwrap(), []);
    assert_eq!(reader.usual_durations("sales", 5).unwrap(), std::collections::BTreeMap::new());
    // Who asks for the one alone is told why there is none, and so is the loop, which asks on.
    assert!(reader.run("sales", "scheduled__2").unwrap_err().message.contains("dag_run 2, column run_type"));
    let mut history = |limit| history_of(&mut database, limit);
    assert_eq!((history(9), history(1)), (vec![1], vec![]));
    // What tasks work on is never less than it was.
    database.connection().execute_batch("UPDATE xcom SET value = 'odd' WHERE instance_key = 1").unwrap();
    assert!(reader.xcoms(RunKey(1), "load", "return_value").is_err());
}

fn history_of(database: &mut Database, limit: u32) -> Vec<i64> {
    use crate::scheduler::port::History;
    database.newest_runs(&"sales".into(), limit).unwrap().iter().map(|run| run.key.0).collect()
}
