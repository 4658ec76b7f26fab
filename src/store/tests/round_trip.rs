//! What is written is read again, by the writer, by readers and after a reopen.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::model::callback::OccasionTask;
use crate::model::{InstanceKey, TaskId};
use crate::scheduler::Store;
use crate::scheduler::change::RunLookup;
use crate::scheduler::port::History;
use crate::store::{AuditFilter, DagCounts, MemoryStore, ReaderPool};

#[test]
fn a_reopened_database_loads_all_that_is_not_finished_in_every_field() {
    let folder = tempfile::tempdir().unwrap();
    let changes = one_of_everything();
    let mut database = open_in(folder.path());
    database.commit(&changes).unwrap();
    let before = database.load().unwrap();
    drop(database);
    let after = open_in(folder.path()).load().unwrap();
    assert_eq!(before, after);
    assert_eq!(after.dags, changes.dags);
    assert_eq!(after.versions, changes.versions);
    assert_eq!(after.pools, changes.pools);
    assert_eq!(after.runs, [changes.runs[0].run.clone()]);
    let unfinished: Vec<_> = changes.instances[..2].iter().map(|write| write.instance.clone()).collect();
    assert_eq!(after.instances, BTreeMap::from([(RunKey(1), unfinished)]));
    assert_eq!(after.import_errors, changes.import_errors[0].1);
    let callbacks: Vec<_> = after.callbacks.iter().map(|stored| stored.row.clone()).collect();
    assert_eq!(callbacks, changes.callbacks);
    assert_eq!(after.callbacks[0].run, Some(changes.runs[1].run.clone()));
    assert_eq!(after.deadlines, [deadline_row(1)]);
    assert_eq!((after.expectations, after.next_deadline_key), (changes.expectations, 2));
    assert_eq!((after.streaks, after.next_callback_key), (changes.streaks, 2));
    assert_eq!((after.next_run_key, after.next_instance_key, after.next_version_key), (3, 4, 2));
}

#[test]
fn callbacks_that_failed_for_good_are_listed_newest_first_with_what_their_logs_are_called_by() {
    let folder = tempfile::tempdir().unwrap();
    let task =
        OccasionTask { instance: InstanceKey(3), task_id: "load".into(), map_index: 4, try_number: 2, max_tries: 1 };
    let of_task = Occasion { task: Some(task.clone()), ..Occasion::new(Subject::Task) };
    let of_run = Occasion { task: Some(task), ..Occasion::new(Subject::Run) };
    let row = |key, state, occasion, ended_at| CallbackRow {
        state,
        occasion,
        ended_at: Some(at(ended_at)),
        ..callback_row(key)
    };
    let callbacks = vec![
        row(1, CallbackState::Failed, of_task, 3),
        row(2, CallbackState::Failed, of_run, 5),
        row(3, CallbackState::Success, Occasion::new(Subject::Run), 6),
        CallbackRow { run: None, ..row(4, CallbackState::Failed, Occasion::new(Subject::Dag), 4) },
    ];
    open_in(folder.path()).commit(&Changes { callbacks, ..one_of_everything() }).unwrap();
    let reader = reader_in(folder.path());
    let found = reader.failed_callbacks(10).unwrap();
    let of = |failed: &crate::store::FailedCallback| {
        (failed.run_id.is_some(), failed.task_id.clone(), failed.map_index, failed.try_number)
    };
    let expected = [(true, None, None, None), (false, None, None, None), (true, Some("load".into()), Some(4), Some(2))];
    assert_eq!(found.iter().map(of).collect::<Vec<_>>(), expected);
    assert_eq!((found[0].hook, found[0].number), (Hook::OnFailure, 2));
    assert_eq!(reader.failed_callbacks(1).unwrap(), found[..1]);
}

#[test]
fn assets_come_back_with_their_events_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let changes = one_of_everything();
    open_in(folder.path()).commit(&changes).unwrap();
    let (found, expected) = (open_in(folder.path()).load().unwrap().assets, &changes.assets);
    let in_memory = {
        let mut store = crate::store::MemoryStore::default();
        store.commit(&changes).unwrap();
        store.load().unwrap().assets
    };
    assert_eq!(found, in_memory);
    assert_eq!((&found.assets, &found.resolved), (&expected.assets, &expected.resolved));
    assert_eq!(found.queues, [("sales".into(), AssetKey(2), at(2))]);
    assert_eq!(found.consumed_until, [("sales".into(), 2)]);
    assert_eq!(found.files, [(AssetKey(2), "/in/ü".into(), expected.files[0].2.unwrap())]);
    assert_eq!((found.next_asset_key, found.next_event_key), (3, 3));
    let reader = reader_in(folder.path());
    let events = reader.triggering_events(RunKey(1)).unwrap();
    assert_eq!(events.iter().map(|event| event.key).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(events[1].source, expected.events[1].source);
    assert_eq!((&*events[0].uri, &events[0].extra), ("file:///in/*", &expected.events[0].extra));
    let of_alias = reader.asset_events(AssetKey(1), 10).unwrap();
    assert_eq!(of_alias, events[1..]);
    assert_eq!(reader.asset_events(AssetKey(2), 1).unwrap(), events[1..]);
    assert_eq!(reader.asset_references().unwrap()[0].role, "outlet");
}

#[test]
fn what_is_paused_is_told_until_it_goes_on_or_its_try_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = open_in(folder.path());
    database.commit(&one_of_everything()).unwrap();
    let reader = reader_in(folder.path());
    let paused = || reader.pauses(RunKey(1)).unwrap();
    assert_eq!(paused(), [(InstanceKey(1), at(7))].into());
    assert!(reader.pauses(RunKey(2)).unwrap().is_empty());
    database.commit(&Changes { pauses: vec![pause(None)], ..Changes::default() }).unwrap();
    assert!(paused().is_empty());
    database.commit(&Changes { pauses: vec![pause(Some(at(8)))], ..Changes::default() }).unwrap();
    assert_eq!(paused(), [(InstanceKey(1), at(8))].into());
    let key = pause(None).key;
    assert_eq!(database.load().unwrap().paused, [key].into(), "the next start has it stand still as well");
    // What a crash has left of a try that is over.
    let over = instance(1, 1, "load", TaskState::Success);
    let write = InstanceWrite { instance: over, dag_id: "etl".into(), prior: Some(TaskState::Running) };
    database.commit(&Changes { instances: vec![write], ..Changes::default() }).unwrap();
    assert!(database.load().unwrap().paused.is_empty());
}

#[test]
fn absent_values_stay_absent() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = open_in(folder.path());
    let mut changes = one_of_everything();
    let dag = &mut changes.dags[0];
    (dag.schedule, dag.version, dag.first_seen_at, dag.next_run, dag.last_interval) = (None, None, None, None, None);
    let run = &mut changes.runs[0].run;
    (run.logical_date, run.data_interval, run.queued_at, run.start_date, run.end_date) = (None, None, None, None, None);
    run.reason = None;
    let blank = &mut changes.instances[0].instance;
    (blank.scheduled_at, blank.queued_at, blank.start_date, blank.end_date) = (None, None, None, None);
    (blank.version, blank.process, blank.exit_code, blank.signal) = (None, None, None, None);
    (blank.reason, blank.usage) = (None, None);
    database.commit(&changes).unwrap();
    let found = database.load().unwrap();
    assert_eq!(found.dags, changes.dags);
    assert_eq!(found.runs, [changes.runs[0].run.clone()]);
    assert_eq!(found.instances[&RunKey(1)][0], changes.instances[0].instance);
}

#[test]
fn an_update_replaces_the_state_of_a_run_and_of_an_instance() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = open_in(folder.path());
    database.commit(&one_of_everything()).unwrap();
    let mut ended = run(1, "sales", RunState::Failed);
    ended.end_date = Some(at(999));
    let mut done = instance(2, 1, "report", TaskState::Success);
    done.try_number = 5;
    let changes = Changes {
        runs: vec![RunWrite { run: ended.clone(), prior: Some(RunState::Running) }],
        instances: vec![InstanceWrite { prior: Some(TaskState::None), ..new_instance(done.clone()) }],
        import_errors: vec![("x.toml".to_owned(), vec![])],
        dropped_pools: vec!["cpu".into()],
        ..Changes::default()
    };
    database.commit(&changes).unwrap();
    let reader = reader_in(folder.path());
    assert_eq!(reader.run("sales", "scheduled__1").unwrap(), Some(ended));
    assert_eq!(reader.instances(RunKey(1)).unwrap()[1], done);
    let left = database.load().unwrap();
    assert!(
        left.runs.is_empty() && left.instances.is_empty() && left.import_errors.is_empty() && left.pools.is_empty()
    );
    assert_eq!(reader.check().unwrap(), Vec::<String>::new());
}

#[test]
fn a_reader_answers_every_question() {
    let folder = tempfile::tempdir().unwrap();
    let changes = one_of_everything();
    open_in(folder.path()).commit(&changes).unwrap();
    let reader = reader_in(folder.path());
    let (first, second) = (changes.runs[0].run.clone(), changes.runs[1].run.clone());
    let listing = reader.dag("sales").unwrap().unwrap();
    assert_eq!((&listing.dag, &listing.last_run), (&changes.dags[0], &Some(second.clone())));
    assert_eq!(reader.dags().unwrap(), std::slice::from_ref(&listing));
    assert_eq!(reader.recent_dags(1_000).unwrap(), [listing]);
    assert_eq!(reader.dag("nope").unwrap(), None);
    assert_eq!(reader.dag_counts().unwrap(), DagCounts { total: 1, active: 0, paused: 1, broken: 1 });
    assert_eq!(reader.runs("sales", None).unwrap(), [second.clone(), first.clone()]);
    assert_eq!(reader.runs("sales", Some(1)).unwrap(), std::slice::from_ref(&second));
    assert_eq!(reader.run_by_logical_date("sales", first.logical_date.unwrap()).unwrap(), Some(first.clone()));
    assert_eq!(reader.newest_scheduled("sales").unwrap(), Some(second.clone()));
    assert_eq!(reader.previous_success("sales", second.logical_date.unwrap()).unwrap(), None);
    assert_eq!(reader.previous_success("sales", second.run_after).unwrap(), Some(second));
    assert_eq!(reader.grid("sales", 1).unwrap(), [changes.instances[2].instance.clone()]);
    assert_eq!(reader.instance(RunKey(1), "load", -1).unwrap(), Some(changes.instances[0].instance.clone()));
    let tries = reader.tries(InstanceKey(1)).unwrap();
    assert_eq!(tries, [changes.history[0].clone(), changes.instances[0].instance.clone()]);
    assert_eq!(reader.xcom(RunKey(1), "load", -1, "return_value").unwrap(), Some(json!({ "b": 1, "a": "ü" })));
    assert_eq!(reader.xcom(RunKey(2), "load", -1, "k").unwrap(), Some(Value::Null));
    assert_eq!(reader.xcom(RunKey(1), "load", 0, "return_value").unwrap(), None);
    assert_eq!(reader.import_errors().unwrap(), changes.import_errors[0].1);
    assert_eq!(reader.pools().unwrap(), changes.pools);
    assert_eq!(reader.version(VersionKey(1)).unwrap(), Some(changes.versions[0].clone()));
    assert_eq!(reader.versions("sales").unwrap(), changes.versions);
    let failures = reader.recent_failures(5).unwrap();
    assert_eq!((failures.len(), &failures[0].task_id), (1, &TaskId::from("load")));
    assert_eq!(failures[0].run_id.as_str(), "scheduled__2");
    let failed = &changes.instances[2].instance;
    assert_eq!((failures[0].start_date, &failures[0].usage), (failed.start_date, &failed.usage));
    let audit = reader.audit(&AuditFilter::default(), 5).unwrap();
    assert_eq!((audit.len(), audit[0].event.as_str(), &audit[0].extra), (1, "trigger", &json!({ "conf": {} })));
    assert_eq!(reader.schema_version().unwrap(), crate::store::SCHEMA_VERSION);
    let counts: Vec<String> =
        reader.state_counts(None).unwrap().iter().map(|c| format!("{} {} {}", c.kind, c.state, c.count)).collect();
    assert_eq!(counts, ["run running 1", "run success 1", "task failed 1", "task none 1", "task running 1"]);
    assert_eq!(reader.check().unwrap(), Vec::<String>::new());
}

#[test]
fn airflow_toml_is_no_broken_dag() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = open_in(folder.path());
    let of = |filename: &str, code: &str| {
        (filename.to_owned(), vec![ImportError { code: code.to_owned(), ..import_error(filename, 1) }])
    };
    let conflict = "asset-conflict";
    let import_errors =
        vec![of("airflow.toml", conflict), of("team/sales.toml", conflict), of("new.toml", "unknown-key")];
    let dags = vec![dag("sales", 1)];
    database
        .commit(&Changes { versions: vec![version(1, "sales")], dags, import_errors, ..Changes::default() })
        .unwrap();
    assert_eq!(reader_in(folder.path()).dag_counts().unwrap().broken, 2);
}

#[test]
fn a_try_that_starts_loses_the_xcoms_of_the_try_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = open_in(folder.path());
    database.commit(&one_of_everything()).unwrap();
    let again = Changes {
        cleared_xcoms: vec![InstanceKey(1)],
        xcoms: vec![xcom(1, "new", json!(1)), xcom(1, "new", json!(2))],
        ..Changes::default()
    };
    database.commit(&again).unwrap();
    let reader = reader_in(folder.path());
    assert_eq!(reader.xcom(RunKey(1), "load", -1, "return_value").unwrap(), None);
    assert_eq!(reader.xcom(RunKey(1), "load", -1, "new").unwrap(), Some(json!(2)));
    assert_eq!(reader.xcom(RunKey(2), "load", -1, "k").unwrap(), Some(Value::Null));
    assert_eq!(database.lengths(RunKey(1)).unwrap(), []);
}

#[test]
fn a_row_becomes_the_first_of_many_and_lengths_are_those_that_were_pushed_last() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = open_in(folder.path());
    let mut memory = MemoryStore::default();
    let stores: [&mut dyn Store; 2] = [&mut database, &mut memory];
    for store in stores {
        store.commit(&one_of_everything()).unwrap();
        let mut first = instance(2, 1, "report", TaskState::None);
        first.map_index = 0;
        let first = InstanceWrite { prior: Some(TaskState::None), ..new_instance(first) };
        let lengths = vec![length(1, "return_value", 5), length(2, "k", 0)];
        store.commit(&Changes { instances: vec![first], lengths, ..Changes::default() }).unwrap();
        assert_eq!(store.lengths(RunKey(1)).unwrap(), [length(1, "return_value", 5), length(2, "k", 0)]);
        let found = store.load().unwrap();
        assert_eq!(found.instances[&RunKey(1)].iter().map(|instance| instance.map_index).collect::<Vec<_>>(), [-1, 0]);
    }
}

#[test]
fn a_finished_run_is_found_by_its_id_and_by_its_logical_date() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = open_in(folder.path());
    let mut memory = MemoryStore::default();
    let changes = one_of_everything();
    let expected = Some(changes.runs[1].run.clone());
    let stores: [&mut dyn Store; 2] = [&mut database, &mut memory];
    for store in stores {
        store.commit(&changes).unwrap();
        let dag_id = DagId::from("sales");
        assert_eq!(store.find_run(&dag_id, &RunLookup::ById("scheduled__2".into())).unwrap(), expected);
        let date = expected.as_ref().unwrap().logical_date.unwrap();
        assert_eq!(store.find_run(&dag_id, &RunLookup::ByLogicalDate(date)).unwrap(), expected);
        assert_eq!(store.find_run(&"other".into(), &RunLookup::ByLogicalDate(date)).unwrap(), None);
    }
}

#[test]
fn the_store_in_memory_loads_what_the_file_loads() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = open_in(folder.path());
    let memory = MemoryStore::default();
    let changes = one_of_everything();
    database.commit(&changes).unwrap();
    memory.clone().commit(&changes).unwrap();
    assert_eq!(memory.clone().load().unwrap(), database.load().unwrap());
    let fault = crate::scheduler::StoreError { message: "m".to_owned(), help: "h".to_owned() };
    memory.fail_call(2, fault.clone());
    let more = audit_of(1);
    memory.clone().load().unwrap();
    assert_eq!(memory.clone().commit(&more), Err(fault));
    memory.clone().commit(&more).unwrap();
    assert_eq!(memory.commits(), [changes, more]);
}

#[test]
fn a_pool_of_readers_serves_more_threads_than_it_has_connections() {
    let folder = tempfile::tempdir().unwrap();
    let pool = ReaderPool::new(&folder.path().join("minflow.db"));
    let error = pool.with(|reader| reader.dags()).unwrap_err();
    assert!(error.message.contains("no such database"), "{error}");
    open_in(folder.path()).commit(&one_of_everything()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(pool.with(|reader| reader.dags()).unwrap().len(), 1);
                }
            });
        }
    });
}
