//! The second file: that it holds all of what has gone, of several runs of one name as well, and is taken for nothing else.

use std::path::PathBuf;

use super::retire::{ALL, filled, may_go, purge, retire};
use super::*;
use crate::model::TaskState;
use crate::scheduler::Store;
use crate::store::{Archive, AuditFilter};

fn take(path: &Path, database: &Database, runs: &[crate::scheduler::change::RetiredRun]) {
    let mut archive = Archive::open(path, database.path()).unwrap();
    archive.take(runs).unwrap();
    archive.finish().unwrap();
}

#[test]
fn the_archive_is_a_database_of_its_own_that_holds_all_of_a_run_and_takes_it_twice() {
    let folder = tempfile::tempdir().unwrap();
    let database = filled(folder.path(), 4, |_| RunState::Success);
    let path = folder.path().join("archive.db");
    let going = may_go(folder.path(), &ALL);
    for _ in 0..2 {
        let mut archive = Archive::open(&path, database.path()).unwrap();
        archive.take(&going[..2]).unwrap();
        archive.finish().unwrap();
    }
    let archived = Reader::open_archive(&path).unwrap();
    assert_eq!(archived.check().unwrap(), [""; 0]);
    let runs = archived.runs("sales", None).unwrap();
    assert_eq!(runs, reader_in(folder.path()).runs("sales", None).unwrap()[2..]);
    assert_eq!(archived.xcoms_of_task(RunKey(2), "load").unwrap()[0].value, Some(json!(2)));
    let tries: i64 =
        archived.connection().query_row("SELECT count(*) FROM task_instance_history", [], |row| row.get(0)).unwrap();
    assert_eq!(tries, 2);
}

#[test]
fn an_archive_is_no_database_that_rows_go_from_and_gives_up_no_row_of_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = filled(folder.path(), 4, |_| RunState::Success);
    database.commit(&audit_of(10)).unwrap();
    let (path, link) = (folder.path().join("archive.db"), folder.path().join("link.db"));
    std::os::unix::fs::symlink(database.path(), &link).unwrap();
    for itself in [database.path(), &link] {
        let refused = Archive::open(itself, database.path()).unwrap_err();
        assert!(refused.message.ends_with("it is the database itself"), "{refused}");
    }
    let mut archive = Archive::open(&path, database.path()).unwrap();
    archive.take(&may_go(folder.path(), &ALL)).unwrap();
    archive.take_audit(1).unwrap();
    archive.finish().unwrap();
    // The same keys stand for other runs and entries once a database is begun anew.
    let other = tempfile::tempdir().unwrap();
    let anew = filled(other.path(), 4, |_| RunState::Success);
    anew.connection().execute_batch("UPDATE dag_run SET run_id = 'another' || key").unwrap();
    anew.connection()
        .execute_batch("INSERT INTO log (at, event, owner, extra) VALUES (7, 'another', 'cli', '{}')")
        .unwrap();
    let archived = || Reader::open_archive(&path).unwrap();
    let before = (archived().runs("sales", None).unwrap(), archived().audit(&AuditFilter::default(), 9).unwrap());
    let mut archive = Archive::open(&path, anew.path()).unwrap();
    for refused in [archive.take(&may_go(other.path(), &ALL)), archive.take_audit(1)] {
        let refused = refused.unwrap_err();
        assert!(refused.message.ends_with("or this one before it was restored"), "{refused}");
    }
    drop(archive);
    assert_eq!(
        (archived().runs("sales", None).unwrap(), archived().audit(&AuditFilter::default(), 9).unwrap()),
        before
    );
}

#[test]
fn runs_of_one_name_and_date_stand_beside_each_other_each_with_its_own_rows() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = filled(folder.path(), 4, |_| RunState::Success);
    let path = folder.path().join("archive.db");
    let first = may_go(folder.path(), &ALL).remove(0);
    take(&path, &database, std::slice::from_ref(&first));
    retire(&mut database, std::slice::from_ref(&first));
    purge(&mut database, 1, 10);
    // Its date is done again, as by a backfill, and its definition, after its DAG was deleted.
    let again = DagRun { key: RunKey(9), run_id: first.run_id.clone(), ..run(1, "sales", RunState::Success) };
    let mut changes = Changes { runs: vec![new_run(again)], ..Changes::default() };
    changes.instances.push(new_instance(instance(9, 9, "load", TaskState::Success)));
    changes.xcoms.push(xcom(9, "return_value", json!("again")));
    changes.versions.push(VersionWrite { number: 8, ..version(2, "sales") });
    database.commit(&changes).unwrap();
    database
        .connection()
        .execute_batch(
            "UPDATE dag_version SET number = 9 WHERE key = 1; UPDATE dag_version SET number = 7 WHERE key = 2",
        )
        .unwrap();
    let second = may_go(folder.path(), &ALL).into_iter().find(|run| run.key == RunKey(9)).unwrap();
    for _ in 0..2 {
        take(&path, &database, std::slice::from_ref(&second));
    }
    let archived = Reader::open_archive(&path).unwrap();
    assert_eq!(archived.check().unwrap(), [""; 0]);
    let mut found = archived.runs("sales", None).unwrap();
    found.sort_by_key(|run| run.key);
    assert_eq!(
        found.iter().map(|run| (run.key.0, run.run_id.clone())).collect::<Vec<_>>(),
        [(1, first.run_id.clone()), (9, first.run_id)]
    );
    let value = |run: i64| archived.xcoms_of_task(RunKey(run), "load").unwrap()[0].value.clone();
    assert_eq!((value(1), value(9)), (Some(json!(1)), Some(json!("again"))));
    assert_eq!(archived.versions("sales").unwrap().len(), 2);
    // Who reads what is exported can tell whose is whose.
    for table in ["task_instance", "task_instance_history", "xcom"] {
        let mut keys = Vec::new();
        let from = |reader: &Reader, keys: &mut Vec<Value>| {
            reader.export(table, |names, cells| {
                let at = names.iter().position(|name| name == "run_key");
                keys.extend(at.zip(cells).map(|(at, cells)| cells[at].clone()));
                true
            })
        };
        from(&archived, &mut keys).unwrap();
        assert_eq!(keys.first(), Some(&json!(1)), "{table}");
        assert_eq!(keys.last(), Some(&json!(if table == "task_instance_history" { 1 } else { 9 })), "{table}");
        keys.clear();
        from(&reader_in(folder.path()), &mut keys).unwrap();
        assert!(keys.is_empty(), "in a database there is one run of a name");
    }
}

#[test]
fn a_database_or_a_backup_is_no_archive_and_an_archive_is_no_database() {
    let folder = tempfile::tempdir().unwrap();
    let database = filled(folder.path(), 3, |_| RunState::Success);
    let in_folder = |name: &str| -> PathBuf { folder.path().join(name) };
    crate::store::copy(database.path(), &in_folder("backup.db")).unwrap();
    rusqlite::Connection::open(in_folder("other.db")).unwrap().execute_batch("CREATE TABLE a (b)").unwrap();
    for (name, said) in
        [("backup.db", "a backup of one, and no archive"), ("other.db", "the database of another program")]
    {
        let before = std::fs::read(in_folder(name)).unwrap();
        let refused = Archive::open(&in_folder(name), database.path()).unwrap_err();
        assert!(refused.message.ends_with(said), "{refused}");
        assert!(refused.help.contains("--archive") || name == "other.db", "{}", refused.help);
        assert!(std::fs::read(in_folder(name)).unwrap() == before, "{name} was written to");
    }
    take(&in_folder("archive.db"), &database, &may_go(folder.path(), &ALL));
    for refused in [
        Database::open(&in_folder("archive.db"), Synchronous::Full).map(drop).unwrap_err(),
        Reader::open(&in_folder("archive.db")).map(drop).unwrap_err(),
    ] {
        assert!(
            refused.to_string().ends_with("it is an archive of `minflow db clean`, and no database to go on with"),
            "{refused}"
        );
        assert!(refused.help().contains("minflow db export --output-path DIR --archive "), "{}", refused.help());
    }
    assert!(crate::store::restore(&in_folder("archive.db"), &in_folder("new.db")).is_err());
    assert_eq!(
        std::fs::read_dir(folder.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("new"))
            .count(),
        0
    );
    // An empty file becomes one.
    std::fs::write(in_folder("empty.db"), "").unwrap();
    take(&in_folder("empty.db"), &database, &may_go(folder.path(), &ALL));
}
