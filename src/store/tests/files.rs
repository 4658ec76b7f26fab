//! Files that are new, old, newer, damaged, foreign, locked or full.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::health::Health;
use crate::scheduler::Store;
use crate::store::records::AuditFilter;
use crate::store::{Checkpointer, OpenError, ReaderPool, SCHEMA_VERSION};

fn refused(path: &Path) -> OpenError {
    let before = fs::read(path).ok();
    let error = Database::open(path, Synchronous::Full).unwrap_err();
    let reading = Reader::open(path).unwrap_err();
    assert_eq!(fs::read(path).ok(), before, "the file was touched");
    assert_eq!(error.to_string(), reading.to_string());
    assert!(!error.help().is_empty());
    error
}

/// A closed database with one of everything, changed by `sql`.
fn changed_by(folder: &Path, sql: &str) -> PathBuf {
    let mut database = open_in(folder);
    database.commit(&one_of_everything()).unwrap();
    database.connection().execute_batch(sql).unwrap();
    folder.join("minflow.db")
}

#[test]
fn a_new_file_is_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let database = open_in(folder.path());
    for name in ["minflow.db", "minflow.db-wal", "minflow.db-shm"] {
        let mode = folder.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    drop(database);
}

#[test]
fn a_database_of_version_1_still_opens_with_its_history() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("minflow.db");
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/version-1.db"), &path).unwrap();
    let mut database = Database::open(&path, Synchronous::Full).unwrap();
    let found = database.load().unwrap();
    assert_eq!(found.dags, one_of_everything().dags);
    assert_eq!(found.instances.values().flatten().count(), 2);
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.schema_version().unwrap(), SCHEMA_VERSION);
    let runs = reader.runs("sales", None).unwrap();
    assert_eq!((runs.len(), runs[0].lag), (2, None), "version 1 did not know how late a run began");
    assert_eq!(reader.check().unwrap(), Vec::<String>::new());
}

#[test]
fn a_newer_database_is_refused_by_version_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = changed_by(folder.path(), "PRAGMA user_version = 99");
    let error = refused(&path);
    assert!(matches!(error, OpenError::Newer { found: 99, .. }));
    let expected = format!("it has version 99, and this minflow knows versions up to {SCHEMA_VERSION}");
    assert!(error.to_string().ends_with(&expected), "{error}");
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("minflow.db");
    fs::write(&path, "dear diary, ".repeat(1_000)).unwrap();
    assert!(matches!(refused(&path), OpenError::NotADatabase(_)));
}

#[test]
fn the_database_of_another_program_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("minflow.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE photos (x)").unwrap();
    assert!(matches!(refused(&path), OpenError::Foreign(_)));
}

#[test]
fn a_database_cut_off_in_the_middle_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = changed_by(folder.path(), "");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = refused(&path);
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(error.help().contains("backup"));
}

#[test]
fn a_database_without_one_of_its_tables_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = changed_by(folder.path(), "DROP TABLE xcom");
    assert!(refused(&path).to_string().ends_with("it is damaged: the table xcom is missing"));
}

#[test]
fn damage_that_opening_does_not_see_is_found_by_the_full_check() {
    let folder = tempfile::tempdir().unwrap();
    let path = changed_by(
        folder.path(),
        "DELETE FROM dag_run WHERE key = 2; UPDATE state_count SET count = 5 WHERE kind = 'task' AND state = 'running'",
    );
    let found = Reader::open(&path).unwrap().check().unwrap().join("\n");
    assert!(found.contains("task_instance 3 refers to a row of dag_run that is not there"), "{found}");
    assert!(found.contains("task running is kept as 5, but there are 1"), "{found}");
}

#[test]
fn an_absent_database_is_created_by_the_writer_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("minflow.db");
    assert!(matches!(Reader::open(&path).unwrap_err(), OpenError::Absent(_)));
    assert!(!path.exists());
    let nowhere = folder.path().join("no/such/minflow.db");
    let error = Database::open(&nowhere, Synchronous::Full).unwrap_err();
    assert!(matches!(error, OpenError::FolderMissing(_)));
    assert!(error.help().contains("no/such"), "{}", error.help());
    let error = Database::open(folder.path(), Synchronous::Full).unwrap_err();
    assert!(error.to_string().ends_with("it is a folder"), "{error}");
}

#[test]
fn a_file_that_its_first_minflow_makes_just_now_is_no_database_yet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("minflow.db");
    std::fs::write(&path, "").unwrap();
    let error = Reader::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Absent(_)), "{error}");
}

#[test]
fn an_empty_file_becomes_a_database() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("minflow.db"), "").unwrap();
    open_in(folder.path()).commit(&one_of_everything()).unwrap();
}

#[test]
fn a_database_that_another_program_holds_is_named_and_the_same_commit_succeeds_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = open_in(folder.path());
    let other = rusqlite::Connection::open(database.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = Database::open(database.path(), Synchronous::Full).unwrap_err();
    assert!(matches!(error, OpenError::Locked(_)), "{error}");
    let changes = one_of_everything();
    let error = database.commit(&changes).unwrap_err();
    assert!(error.message.starts_with("commit a turn: database is locked"), "{error}");
    assert!(error.help.contains("fuser"), "{}", error.help);
    other.execute_batch("ROLLBACK").unwrap();
    database.commit(&changes).unwrap();
    assert_eq!(database.load().unwrap().runs.len(), 1);
}

#[test]
fn a_commit_that_finds_no_room_writes_nothing_and_succeeds_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = open_in(folder.path());
    database.commit(&audit_of(1)).unwrap();
    let before = database.load().unwrap();
    let pages: i64 = database.connection().query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    database.connection().pragma_update(None, "max_page_count", pages + 2).unwrap();
    let mut changes = one_of_everything();
    changes.audit = audit_of(100_000).audit;
    let error = database.commit(&changes).unwrap_err();
    assert!(error.message.contains("full"), "{error}");
    assert!(error.help.contains("free some space"), "{}", error.help);
    assert_eq!(database.load().unwrap(), before);
    assert!(reader_in(folder.path()).state_counts(None).unwrap().is_empty());
    database.connection().pragma_update(None, "max_page_count", 1_000_000).unwrap();
    database.commit(&changes).unwrap();
    assert_eq!(reader_in(folder.path()).check().unwrap(), Vec::<String>::new());
}

#[test]
fn an_update_of_a_row_that_is_not_there_rolls_the_whole_turn_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = open_in(folder.path());
    let mut changes = one_of_everything();
    changes.instances[1].prior = Some(TaskState::Scheduled);
    let error = database.commit(&changes).unwrap_err();
    assert_eq!(error.message, "commit a turn: there is no row 2 in task_instance");
    let found = database.load().unwrap();
    assert!(found.dags.is_empty() && found.runs.is_empty() && found.instances.is_empty());
}

#[test]
fn an_impossible_value_is_named_by_table_row_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let load = |path: &Path| Database::open(path, Synchronous::Full).unwrap().load();
    let reason = |path: &Path| -> String {
        let other = rusqlite::Connection::open(path).unwrap();
        other.query_row("SELECT reason FROM dag_run WHERE key = 1", [], |row| row.get(0)).unwrap()
    };
    let path = changed_by(folder.path(), "UPDATE dag_run SET conf = '{' WHERE key = 1");
    load(&path).unwrap();
    assert!(reason(&path).starts_with("an impossible row: dag_run 1, column conf: EOF"), "{}", reason(&path));
    let path = changed_by_again(
        &path,
        "UPDATE dag_run SET conf = '{}', state = 'running' WHERE key = 1; UPDATE task_instance SET state = 'happy' WHERE key = 2",
    );
    load(&path).unwrap();
    assert_eq!(reason(&path), "an impossible row: task_instance 2, column state: unknown name `happy`");
    let path = changed_by_again(&path, "UPDATE dag SET tags = '[1]'");
    load(&path).unwrap();
    let audit = Reader::open(&path).unwrap().audit(&AuditFilter { event: Some("mend"), ..AuditFilter::default() }, 1);
    let extra = &audit.unwrap()[0].extra;
    assert_eq!((&extra["table"], &extra["key"], &extra["column"]), (&json!("dag"), &json!("sales"), &json!("tags")));
    assert!(extra["fault"].as_str().unwrap().starts_with("invalid type"), "{extra}");
}

fn changed_by_again(path: &Path, sql: &str) -> PathBuf {
    rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
    path.to_owned()
}

/// What is in the log file of a database of audit entries, as another process finds it.
fn audit_events(path: &Path) -> usize {
    Reader::open(path).unwrap().audit(&AuditFilter::default(), 1_000).unwrap().len()
}

#[test]
fn a_file_that_is_deleted_is_written_anew_with_all_that_was_committed() {
    let all = ["minflow.db", "minflow.db-wal", "minflow.db-shm"];
    for gone in [&all[..], &all[..1], &all[1..2], &all[2..]] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("minflow.db");
        let mut database = open_in(folder.path());
        let health = Health::default();
        let checkpointer = Checkpointer::start(&mut database, health.clone()).unwrap();
        let pool = ReaderPool::new(&path);
        let read = || pool.with(|reader| Ok(reader.audit(&AuditFilter::default(), 1_000).unwrap().len())).unwrap();
        database.commit(&one_of_everything()).unwrap();
        let before = read();
        for round in 1..4 {
            gone.iter().for_each(|name| fs::remove_file(folder.path().join(name)).unwrap());
            database.commit(&audit_of(10)).unwrap();
            // Large enough for a checkpoint, which is of the new file too.
            database.commit(&audit_of(6_000_000)).unwrap();
            let expected = before + 2 * round;
            assert_eq!((read(), audit_events(&path)), (expected, expected));
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while path.metadata().unwrap().len() < 18_000_000 {
            assert!(std::time::Instant::now() < deadline, "no checkpoint");
            database.commit(&audit_of(10)).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(health.reasons(), Vec::<String>::new());
        let expected = read();
        drop((checkpointer, pool, database));
        let reader = Reader::open(&path).unwrap();
        assert_eq!(
            (reader.check().unwrap(), reader.audit(&AuditFilter::default(), 10_000).unwrap().len().min(1_000)),
            (Vec::new(), expected)
        );
        assert_eq!(Database::open(&path, Synchronous::Full).unwrap().load().unwrap().dags, one_of_everything().dags);
    }
}

#[test]
fn a_file_behind_a_link_that_is_deleted_is_written_anew_where_it_lay() {
    let all = ["real.db", "real.db-wal", "real.db-shm"];
    for gone in [&all[..], &all[..1], &all[1..2]] {
        let folder = tempfile::tempdir().unwrap();
        let (disk, path) = (folder.path().join("disk"), folder.path().join("minflow.db"));
        fs::create_dir(&disk).unwrap();
        std::os::unix::fs::symlink("hop", &path).unwrap();
        std::os::unix::fs::symlink("disk/real.db", folder.path().join("hop")).unwrap();
        let mut database = open_in(folder.path());
        let health = Health::default();
        let checkpointer = Checkpointer::start(&mut database, health.clone()).unwrap();
        for round in 1..4 {
            database.commit(&audit_of(10)).unwrap();
            gone.iter().for_each(|name| fs::remove_file(disk.join(name)).unwrap());
            database.commit(&audit_of(6_000_000)).unwrap();
            assert_eq!((audit_events(&path), audit_events(&disk.join("real.db"))), (2 * round, 2 * round));
            assert!(path.is_symlink() && folder.path().join("hop").is_symlink());
        }
        drop(checkpointer);
        assert_eq!(health.reasons(), Vec::<String>::new());
        // The link itself is as the file: another one takes its place.
        fs::remove_file(&path).unwrap();
        database.commit(&audit_of(10)).unwrap();
        assert_eq!((audit_events(&path), path.is_symlink()), (7, false));
        drop(database);
        assert_eq!(reader_in(folder.path()).check().unwrap(), [""; 0]);
    }
}

#[test]
fn another_file_in_its_place_is_left_alone_until_it_is_moved_away() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("minflow.db"), folder.path().join("other"));
    let mut database = open_in(folder.path());
    database.commit(&audit_of(10)).unwrap();
    fs::write(&other, "another").unwrap();
    fs::rename(&other, &path).unwrap();
    for _ in 0..2 {
        let error = database.commit(&audit_of(10)).unwrap_err();
        assert!(
            error.message.ends_with(&format!("another file has taken the place of `{}`", path.display())),
            "{error}"
        );
        assert!(error.help.starts_with("move it away"), "{}", error.help);
        assert_eq!(fs::read_to_string(&path).unwrap(), "another");
    }
    fs::rename(&path, &other).unwrap();
    database.commit(&audit_of(10)).unwrap();
    assert_eq!(audit_events(&path), 2);
    assert_eq!(fs::read_to_string(&other).unwrap(), "another");
}

#[test]
fn what_cannot_be_written_anew_fails_the_commit_and_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let (home, away) = (folder.path().join("home"), folder.path().join("away"));
    fs::create_dir(&home).unwrap();
    let mut database = open_in(&home);
    database.commit(&audit_of(10)).unwrap();
    fs::rename(&home, &away).unwrap();
    assert!(!database.commit(&audit_of(10)).unwrap_err().help.is_empty());
    // The same file, where it was: nothing has to be written anew.
    fs::rename(&away, &home).unwrap();
    database.commit(&audit_of(10)).unwrap();
    assert_eq!(audit_events(&home.join("minflow.db")), 2);
}
