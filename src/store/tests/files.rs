//! Files that are new, old, newer, damaged, foreign, locked or full.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::scheduler::Store;
use crate::store::{OpenError, SCHEMA_VERSION};

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
    assert_eq!(found.instances.len(), 2);
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
    let path = changed_by(folder.path(), "UPDATE dag_run SET conf = '{' WHERE key = 1");
    let error = Database::open(&path, Synchronous::Full).unwrap().load().unwrap_err();
    assert!(error.message.starts_with("load the state: dag_run 1, column conf: EOF"), "{error}");
    let path = changed_by_again(
        &path,
        "UPDATE dag_run SET conf = '{}'; UPDATE task_instance SET state = 'happy' WHERE key = 2",
    );
    let error = Database::open(&path, Synchronous::Full).unwrap().load().unwrap_err();
    assert_eq!(error.message, "load the state: task_instance 2, column state: unknown name `happy`");
    let path = changed_by_again(&path, "UPDATE task_instance SET state = NULL; UPDATE dag SET tags = '[1]'");
    let error = Database::open(&path, Synchronous::Full).unwrap().load().unwrap_err();
    assert!(error.message.starts_with("load the state: dag `sales`, column tags: invalid type"), "{error}");
}

fn changed_by_again(path: &Path, sql: &str) -> PathBuf {
    rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
    path.to_owned()
}
