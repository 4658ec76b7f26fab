//! History that goes: which runs may, that all of them goes and nothing else, and what a crash in the midst of it leaves.

use super::*;
use crate::model::TaskState;
use crate::scheduler::change::{Purge, RetireChanges, RetiredRun};
use crate::scheduler::{Store, port::History};
use crate::store::{AuditFilter, Disposal};

/// Runs 1 to `count` of `sales`, a hundred seconds apart, each with a task, its earlier try, an XCom and a deadline.
pub(super) fn filled(folder: &Path, count: i64, state: impl Fn(i64) -> RunState) -> Database {
    let mut database = open_in(folder);
    let mut changes =
        Changes { versions: vec![version(1, "sales")], dags: vec![dag("sales", 1)], ..Changes::default() };
    for key in 1..=count {
        let state = state(key);
        let end_date = Some(at(key * 100 + 3)).filter(|_| state.is_finished());
        changes.runs.push(new_run(DagRun { end_date, ..run(key, "sales", state) }));
        let done = instance(key, key, "load", TaskState::Success);
        changes.history.push(Instance { try_number: 1, state: TaskState::Failed, ..done.clone() });
        changes.instances.push(new_instance(done));
        changes.xcoms.push(xcom(key, "return_value", json!(key)));
        let row = DeadlineRow {
            key: DeadlineKey(key),
            dag_id: "sales".into(),
            run: Some((RunKey(key), format!("scheduled__{key}").into())),
            number: 1,
            at: at(0),
            missed_at: None,
        };
        changes.deadlines.push(DeadlineWrite::Put(row));
    }
    database.commit(&changes).unwrap();
    database
}

pub(super) fn may_go(folder: &Path, what: &Disposal) -> Vec<RetiredRun> {
    reader_in(folder).disposable(&"sales".into(), what).unwrap().runs
}

fn keys(runs: &[RetiredRun]) -> Vec<i64> {
    runs.iter().map(|run| run.key.0).collect()
}

pub(super) const ALL: Disposal = Disposal { before: None, keep: None, limit: usize::MAX, everything: false };

pub(super) fn retire(database: &mut Database, runs: &[RetiredRun]) {
    let runs = runs.iter().map(|run| (run.clone(), at(0))).collect();
    let retirement = RetireChanges { runs, ..RetireChanges::default() };
    database.commit(&Changes { retirement, ..Changes::default() }).unwrap();
}

pub(super) fn purge(database: &mut Database, run: i64, rows: u32) {
    let purged = Some(Purge { runs: vec![(RunKey(run), "sales".into())], rows });
    database
        .commit(&Changes { retirement: RetireChanges { purged, ..RetireChanges::default() }, ..Changes::default() })
        .unwrap();
}

#[test]
fn the_newest_run_and_the_newest_success_stay_whatever_their_age() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(folder.path(), 5, |key| if key == 2 { RunState::Success } else { RunState::Failed }));
    assert_eq!(keys(&may_go(folder.path(), &ALL)), [1, 3, 4]);
    assert_eq!(
        keys(&may_go(folder.path(), &Disposal { before: Some(at(303)), ..ALL })),
        [1],
        "run 3 ends at that instant"
    );
    assert_eq!(keys(&may_go(folder.path(), &Disposal { keep: Some(4), ..ALL })), [1]);
    assert_eq!(keys(&may_go(folder.path(), &Disposal { keep: Some(1), ..ALL })), [1, 3, 4]);
    assert_eq!(keys(&may_go(folder.path(), &Disposal { keep: Some(9), ..ALL })), [0; 0]);
    assert_eq!(keys(&may_go(folder.path(), &Disposal { everything: true, ..ALL })), [1, 2, 3, 4, 5]);
}

#[test]
fn what_a_run_that_is_not_over_may_ask_for_stays() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(folder.path(), 6, |key| if key == 4 { RunState::Queued } else { RunState::Success }));
    assert_eq!(keys(&may_go(folder.path(), &ALL)), [1, 2], "run 3 comes before the queued one, and 5 after it");
    let connection = rusqlite::Connection::open(folder.path().join("minflow.db")).unwrap();
    connection
        .execute_batch(
            "INSERT INTO callback VALUES (1, 'sales', 1, 'on_failure', 1, '{}', '{}', 'queued', 0, 0, 1, NULL, NULL, NULL);
             INSERT INTO backfill VALUES (1, 'sales', 1, 2, 'none', 0, 3, NULL, 0, 0, 4, NULL);
             INSERT INTO backfill_dag_run VALUES (1, 1, 1, 1, 2, 2, 2, NULL)",
        )
        .unwrap();
    assert_eq!(keys(&may_go(folder.path(), &ALL)), [0; 0], "a callback and a backfill are not over");
    connection.execute_batch("UPDATE callback SET state = 'success'; UPDATE backfill SET completed_at = 5").unwrap();
    assert_eq!(keys(&may_go(folder.path(), &ALL)), [1, 2]);
}

#[test]
fn while_some_dag_looks_back_for_xcoms_the_run_with_the_newest_value_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = filled(folder.path(), 5, |_| RunState::Success);
    database.commit(&Changes { xcoms: vec![xcom(2, "rare", json!(1))], ..Changes::default() }).unwrap();
    assert_eq!(keys(&may_go(folder.path(), &ALL)), [1, 2, 3, 4]);
    let source = "[tasks.a]\nbash = \"{{ ti.xcom_pull('load', include_prior_dates=True) }}\"\n".into();
    let version = VersionWrite { source, number: 8, ..version(2, "sales") };
    database.commit(&Changes { versions: vec![version], dags: vec![dag("sales", 2)], ..Changes::default() }).unwrap();
    assert_eq!(keys(&may_go(folder.path(), &ALL)), [1, 3, 4]);
}

#[test]
fn a_retired_run_goes_as_a_whole_in_pieces_and_the_database_is_sound_at_each_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = filled(folder.path(), 4, |_| RunState::Success);
    let more = (10..20)
        .map(|key| new_instance(Instance { map_index: key as i32, ..instance(key, 1, "many", TaskState::Skipped) }));
    database.commit(&Changes { instances: more.collect(), ..Changes::default() }).unwrap();
    let reader = reader_in(folder.path());
    let sound = |step: &str| assert_eq!(reader.check().unwrap(), [""; 0], "{step}");
    let going = may_go(folder.path(), &ALL);
    retire(&mut database, &going[..1]);
    sound("the run is gone, its instances are not");
    assert_eq!(reader.runs("sales", None).unwrap().len(), 3);
    assert_eq!(reader.retired().unwrap(), [(RunKey(1), "sales".into(), going[0].run_id.clone())]);
    assert_eq!(database.load().unwrap().retiring.len(), 1, "a start goes on with it");
    assert_eq!((database.load().unwrap().deadlines.len(), reader.count_instances(RunKey(1)).unwrap()), (3, 11));
    purge(&mut database, 1, 4);
    sound("some instances are gone");
    assert_eq!(reader.count_instances(RunKey(1)).unwrap(), 7);
    purge(&mut database, 2, 100);
    assert_eq!(reader.count_instances(RunKey(2)).unwrap(), 1, "only what was retired is purged");
    purge(&mut database, 1, 100);
    sound("all instances are gone");
    let left: i64 = database
        .connection()
        .query_row("SELECT (SELECT count(*) FROM task_instance_history) + (SELECT count(*) FROM xcom)", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!((reader.has_instances(RunKey(1)).unwrap(), left), (false, 6));
    let retirement = RetireChanges { forgotten: vec![RunKey(1)], ..RetireChanges::default() };
    database.commit(&Changes { retirement, ..Changes::default() }).unwrap();
    assert_eq!(reader.retired().unwrap(), []);
    // Retired again, as by an order that was given twice: nothing of another run goes.
    retire(&mut database, &going[..1]);
    sound("nothing has changed");
    assert_eq!(reader.runs("sales", None).unwrap().len(), 3);
}

#[test]
fn rows_of_several_runs_go_together_one_run_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = filled(folder.path(), 5, |_| RunState::Success);
    let more = (10..13)
        .map(|key| new_instance(Instance { map_index: key as i32, ..instance(key, 2, "many", TaskState::Skipped) }));
    database.commit(&Changes { instances: more.collect(), ..Changes::default() }).unwrap();
    // Of what stays nothing goes, although it is named.
    retire(&mut database, &may_go(folder.path(), &ALL)[..3]);
    let reader = reader_in(folder.path());
    let mut purge = |within: Option<Duration>| {
        let runs = (1..=4).map(|run| (RunKey(run), "sales".into())).collect();
        let retirement = RetireChanges { purged: Some(Purge { runs, rows: 4 }), within, ..RetireChanges::default() };
        database.commit(&Changes { retirement, ..Changes::default() }).unwrap();
        assert_eq!(reader.check().unwrap(), [""; 0]);
        [1, 2, 3, 4].map(|run| reader.count_instances(RunKey(run)).unwrap())
    };
    assert_eq!(purge(None), [0, 1, 1, 1]);
    assert_eq!(purge(Some(Duration::ZERO)), [0, 0, 1, 1], "without time one goes, and none of the next run");
    assert_eq!(purge(None), [0, 0, 0, 1]);
}

#[test]
fn an_order_without_time_takes_one_thing_and_the_next_ones_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = filled(folder.path(), 3, |_| RunState::Success);
    let values = (0..5).map(|number| xcom(1, &format!("k{number}"), json!("x".repeat(40_000))));
    let other = new_instance(instance(9, 1, "other", TaskState::Skipped));
    database.commit(&Changes { xcoms: values.collect(), instances: vec![other], ..Changes::default() }).unwrap();
    retire(&mut database, &may_go(folder.path(), &ALL)[..1]);
    let mut order = |retirement: RetireChanges| {
        let retirement = RetireChanges { within: Some(Duration::ZERO), ..retirement };
        database.commit(&Changes { retirement, ..Changes::default() }).unwrap();
    };
    let reader = reader_in(folder.path());
    let mut left = Vec::new();
    while reader.has_instances(RunKey(1)).unwrap() {
        let purged = Some(Purge { runs: vec![(RunKey(1), "sales".into())], rows: 200 });
        order(RetireChanges { purged, ..RetireChanges::default() });
        assert_eq!(reader.check().unwrap(), [""; 0]);
        left.push((
            reader.xcoms_of_task(RunKey(1), "load").map_or(0, |xcoms| xcoms.len()),
            reader.count_instances(RunKey(1)).unwrap(),
        ));
    }
    assert_eq!(left, [(5, 2), (4, 2), (3, 2), (2, 2), (1, 2), (0, 2), (0, 1), (0, 0)]);
    let free = || crate::store::pages(&folder.path().join("minflow.db")).unwrap().free;
    let before = free();
    order(RetireChanges { free_pages: Some(20), ..RetireChanges::default() });
    assert_eq!(free(), before - 1);
    let entries = || reader.audit(&AuditFilter::default(), 100).unwrap().len();
    let entry = |_| audit_entry(json!({}));
    order(RetireChanges::default());
    let audit = (0..50).map(entry).collect();
    open_in(folder.path()).commit(&Changes { audit, ..Changes::default() }).unwrap();
    assert!(reader.has_audit(45).unwrap());
    for expected in [30, 10, 5] {
        order(RetireChanges { audit: Some((45, 200)), ..RetireChanges::default() });
        assert_eq!(entries(), expected);
    }
    assert!(!reader.has_audit(45).unwrap());
}

#[test]
fn a_run_that_cannot_be_read_stays_and_is_told_of_and_keeps_no_other_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = filled(folder.path(), 6, |key| if key == 5 { RunState::Queued } else { RunState::Success });
    let broken = "UPDATE dag_run SET conf = '{' WHERE key IN (2, 4); UPDATE dag_run SET run_type = 'odd' WHERE key = 6;
        UPDATE task_instance SET state = x'ff' WHERE key = 1";
    database.connection().execute_batch(broken).unwrap();
    let found = reader_in(folder.path()).disposable(&"sales".into(), &ALL).unwrap();
    let told: Vec<_> = found.unreadable.iter().map(|run| (run.key.0, run.error.message.as_str())).collect();
    let what = "retire a run: dag_run 2, column conf: EOF while parsing an object at line 1 column 1";
    assert_eq!((keys(&found.runs), told), (vec![1, 3], vec![(2, what)]), "run 4 is needed");
    // What the loop asks of the others: of the newest, and of the one before the queued one.
    assert_eq!(database.newest_keys(&"sales".into(), 2).unwrap(), [RunKey(6), RunKey(5)]);
    let earlier = crate::scheduler::change::Earlier { than: at(499), but_manual: false };
    assert_eq!(database.date_before(&"sales".into(), earlier).unwrap(), Some(at(399)));
    database.connection().execute_batch("UPDATE dag_run SET logical_date = -9e18 WHERE key = 4").unwrap();
    let earlier = crate::scheduler::change::Earlier { than: at(1), but_manual: true };
    assert_eq!(database.date_before(&"sales".into(), earlier).unwrap(), Some(Timestamp::MIN));
    assert_eq!(reader_in(folder.path()).dag_ids().unwrap(), ["sales".into()]);
    assert_eq!(reader_in(folder.path()).loaded_dag_ids().unwrap(), ["sales".into()]);
    retire(&mut database, &found.runs[..1]);
    purge(&mut database, 1, 10);
    assert!(!reader_in(folder.path()).has_instances(RunKey(1)).unwrap(), "nothing counts it, and it goes");
}

#[test]
fn keys_of_what_has_gone_are_not_given_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = filled(folder.path(), 3, |_| RunState::Success);
    database
        .connection()
        .execute_batch(
            "INSERT INTO callback VALUES (7, 'sales', 3, 'on_failure', 1, '{}', '{}', 'success', 0, 0, 1, NULL, NULL, NULL);
             INSERT INTO backfill VALUES (5, 'sales', 1, 2, 'none', 0, 3, NULL, 0, 0, 4, 5)",
        )
        .unwrap();
    let before = database.load().unwrap();
    retire(&mut database, &may_go(folder.path(), &Disposal { everything: true, ..ALL }));
    for run in 1..=3 {
        purge(&mut database, run, 10);
    }
    let retirement = RetireChanges { dag: Some("sales".into()), ..RetireChanges::default() };
    database.commit(&Changes { retirement, ..Changes::default() }).unwrap();
    let after = database.load().unwrap();
    let keys = |found: &crate::scheduler::Snapshot| {
        let of_runs = (found.next_callback_key, found.next_deadline_key, found.next_backfill_id);
        (found.next_run_key, found.next_instance_key, found.next_version_key, of_runs)
    };
    assert_eq!(keys(&after), keys(&before));
    assert_eq!(keys(&after).3, (8, 4, 6));
    assert!(after.dags.is_empty() && reader_in(folder.path()).state_counts(None).unwrap().is_empty());
    assert_eq!(reader_in(folder.path()).check().unwrap(), [""; 0]);
    assert_eq!(database.newest_runs(&"sales".into(), 5).unwrap(), []);
}

#[test]
fn the_audit_log_is_cut_from_its_oldest_entry_and_pages_are_given_back_beside_readers() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = open_in(folder.path());
    for _ in 0..10 {
        database.commit(&audit_of(200_000)).unwrap();
    }
    let reader = reader_in(folder.path());
    let (count, until) = reader.audit_before(at(10)).unwrap();
    assert_eq!((count, until), (9, 9), "the newest stays");
    assert_eq!(reader.audit_before(at(9)).unwrap(), (0, 0));
    let order =
        |database: &mut Database, retirement| database.commit(&Changes { retirement, ..Changes::default() }).unwrap();
    order(&mut database, RetireChanges { audit: Some((9, 4)), ..RetireChanges::default() });
    assert_eq!(reader.audit_before(at(10)).unwrap().0, 5);
    order(&mut database, RetireChanges { audit: Some((10, 100)), ..RetireChanges::default() });
    assert_eq!(reader.audit_before(at(10)).unwrap(), (0, 0));
    assert_eq!(
        reader.audit(&AuditFilter::default(), 9).unwrap().len(),
        1,
        "else the next entry had the key of one that has gone"
    );
    let free = || crate::store::pages(&folder.path().join("minflow.db")).unwrap();
    let before = free();
    assert!(before.is_incremental && before.free > 300, "{before:?}");
    order(&mut database, RetireChanges { free_pages: Some(100), ..RetireChanges::default() });
    let after = free();
    assert_eq!((after.free, after.total), (before.free - 100, before.total - 100));
    assert_eq!(reader.check().unwrap(), [""; 0]);
}
