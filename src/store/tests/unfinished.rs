//! What a start reads of unfinished runs is the same whichever way it is read.

use rusqlite::types::Value as Cell;

use super::*;
use crate::model::SkipDecision;
use crate::scheduler::Store;
use crate::store::load::{decisions_of, instances_of, lengths_of};
use crate::store::unfinished::{self, Unfinished};

/// Looked for run by run.
fn looked_for(reader: &Reader, runs: &[RunKey]) -> Unfinished {
    let mut found = Unfinished::default();
    for &run in runs {
        let instances = instances_of(reader.connection(), run).unwrap();
        if !instances.is_empty() {
            found.instances.insert(run, instances);
        }
        found.lengths.extend(lengths_of(reader.connection(), run).unwrap());
        found.decisions.extend(decisions_of(reader.connection(), run).unwrap());
    }
    found.lengths.sort_by_key(|length| (length.instance, length.key.clone()));
    found.decisions.sort_by_key(|&(instance, _)| instance);
    found
}

#[test]
fn instances_that_stand_side_by_side_or_not_are_read_by_one_thread_or_two() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = open_in(folder.path());
    // Of run 1 and 2 they stand side by side, those of 3 and 4 among each other, and 5 has none.
    let of_runs = [(1, vec![1, 2, 3]), (2, vec![4, 5]), (3, vec![6, 8, 11]), (4, vec![7, 9]), (5, vec![])];
    let mut changes = Changes { versions: vec![version(1, "sales")], ..Changes::default() };
    for (run_key, keys) in &of_runs {
        changes.runs.push(new_run(run(*run_key, "sales", RunState::Running)));
        for &key in keys {
            // Not in the order of their ids.
            changes.instances.push(new_instance(instance(
                key,
                *run_key,
                &format!("t{}", 99 - key),
                TaskState::Running,
            )));
            changes.lengths.push(length(key, "return_value", key as u32));
            changes.xcoms.push(xcom(key, "return_value", json!(key)));
            changes.xcoms.push(xcom(key, SkipDecision::XCOM_KEY, json!({ "skipped": [format!("t{key}")] })));
        }
    }
    changes.instances.sort_by_key(|write| write.instance.key);
    // A run that is over stands between.
    changes.runs.push(new_run(run(6, "sales", RunState::Success)));
    changes.instances.push(new_instance(instance(10, 6, "over", TaskState::Success)));
    database.commit(&changes).unwrap();
    let reader = reader_in(folder.path());
    let runs: Vec<RunKey> = (1..=5).map(RunKey).collect();
    let expected = looked_for(&reader, &runs);
    assert_eq!((expected.instances.len(), expected.lengths.len(), expected.decisions.len()), (4, 10, 10));
    for shared_from in [i64::MAX, 1] {
        let found = unfinished::read(reader.connection(), runs.iter().copied(), shared_from).unwrap();
        assert_eq!(found, expected);
    }
    let loaded = database.load().unwrap();
    assert_eq!(
        (loaded.instances, loaded.lengths, loaded.decisions),
        (expected.instances, expected.lengths, expected.decisions)
    );
}

#[test]
fn an_instance_that_has_not_begun_is_read_as_any_other_whatever_is_known_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = open_in(folder.path());
    let blank = Instance::new(InstanceKey(1), RunKey(1), "load", "cpu", "bash");
    let blank = Instance { map_index: 7, pool_slots: 2, priority_weight: -3, max_tries: 4, ..blank };
    let runs = vec![new_run(run(1, "sales", RunState::Running))];
    database.commit(&Changes { runs, instances: vec![new_instance(blank.clone())], ..Changes::default() }).unwrap();
    assert_eq!(database.load().unwrap().instances[&RunKey(1)], [blank]);
    let other = rusqlite::Connection::open(database.path()).unwrap();
    let nullable = "SELECT name FROM pragma_table_info('task_instance') WHERE NOT \"notnull\" AND pk = 0";
    let mut nullable = other.prepare(nullable).unwrap();
    let columns: Vec<String> = nullable.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut refused = 0;
    for column in columns {
        let possible = match &*column {
            "state" => Cell::Text("scheduled".to_owned()),
            "deferral" => Cell::Text(wait().to_json()),
            "boot_id" | "reason" | "rendered_map_index" => Cell::Text("x".to_owned()),
            _ => Cell::Integer(5),
        };
        for value in [possible, Cell::Blob(vec![0]), Cell::Null] {
            other.execute(&format!("UPDATE task_instance SET \"{column}\" = ?1"), [value]).unwrap();
            let expected = instances_of(&other, RunKey(1)).map_err(|fault| format!("{fault:?}"));
            let found = unfinished::read(&other, [RunKey(1)].into_iter(), i64::MAX);
            let found = found.map(|mut found| found.instances.remove(&RunKey(1)).unwrap());
            assert_eq!(found.map_err(|fault| format!("{fault:?}")), expected, "{column}");
            refused += i32::from(expected.is_err());
        }
    }
    assert_eq!(refused, 22, "the state, and each column that is null until something has happened");
}
