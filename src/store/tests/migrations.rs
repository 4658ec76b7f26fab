//! Databases of every released schema become the newest one whole, or stay as they are.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::Connection;
use rusqlite::hooks::{AuthContext, Authorization};

use super::*;
use crate::scheduler::Store;
use crate::store::open::{Kind, MIGRATIONS, settle};
use crate::store::{OpenError, SCHEMA_VERSION, migration_backups};

/// Rows that stand in the tables which each version has brought, as that version wrote them.
const ROWS: [(u32, &str); 6] = [
    (
        3,
        "INSERT INTO backfill VALUES (1, 'sales', 1, 2, 'none', 0, 3, NULL, 0, 0, 4, 5);
         INSERT INTO backfill_dag_run VALUES (1, 1, 1, 1, 2, 2, 1, NULL)",
    ),
    (
        4,
        "INSERT INTO task_map VALUES (1, 'return_value', 3); INSERT INTO act VALUES (1, '{}'); UPDATE xcom SET file = 'x.json'",
    ),
    (
        5,
        "INSERT INTO asset VALUES (1, 'a', 'file:///a', 'asset', '{}', 0, 2000000, 0, NULL);
         INSERT INTO asset_event VALUES (1, 1, 7, '{}', 'sales', 'r', 'load', -1);
         INSERT INTO deadline VALUES (1, 'sales', 1, 1, 8, 9);
         INSERT INTO callback VALUES (1, 'sales', 1, 'on_failure', 1, '{}', '{}', 'failed', 1, 1, 1, 2, 3, 'no')",
    ),
    (6, "INSERT INTO pool VALUES ('cpu', 4, 'of a command', 1)"),
    (7, "UPDATE task_instance SET voluntary_switches = 1"),
    (8, "INSERT INTO paused_try VALUES (1, 1, 1)"),
];

pub(super) fn fixture(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/version-{version}.db"))
}

/// A database of that version: the one of version 1 with the steps and rows that followed.
pub(super) fn of_version(folder: &Path, version: u32) -> PathBuf {
    let path = folder.join("minflow.db");
    fs::copy(fixture(1), &path).unwrap();
    let connection = Connection::open(&path).unwrap();
    for next in 2..=version {
        connection.execute_batch(MIGRATIONS[next as usize - 1]).unwrap();
        for (_, rows) in ROWS.iter().filter(|(of, _)| *of == next) {
            connection.execute_batch(rows).unwrap();
        }
        connection.pragma_update(None, "user_version", next).unwrap();
    }
    path
}

/// All rows of all tables, as text.
pub(super) fn contents(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut tables = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").unwrap();
    let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut all = Vec::new();
    for table in tables {
        let mut rows = connection.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
        let columns = rows.column_count();
        let mut rows = rows.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let cells: Vec<_> = (0..columns).map(|at| format!("{:?}", row.get_ref(at).unwrap())).collect();
            all.push(format!("{table}: {}", cells.join(", ")));
        }
    }
    all
}

fn schema(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut rows =
        connection.prepare("SELECT name || ' ' || coalesce(sql, '') FROM sqlite_schema ORDER BY name").unwrap();
    rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

pub(super) fn version_of(path: &Path) -> u32 {
    Connection::open(path).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_database_of_every_released_version_opens_whole_and_was_copied_before() {
    let fresh = tempfile::tempdir().unwrap();
    drop(open_in(fresh.path()));
    let newest = schema(&fresh.path().join("minflow.db"));
    for version in 1..SCHEMA_VERSION {
        let folder = tempfile::tempdir().unwrap();
        let path = of_version(folder.path(), version);
        let before = contents(&path);
        let mut database = open_in(folder.path());
        database.load().unwrap();
        drop(database);
        assert_eq!(version_of(&path), SCHEMA_VERSION);
        assert_eq!(schema(&path), newest, "from version {version}");
        assert_eq!(reader_in(folder.path()).check().unwrap(), [""; 0], "from version {version}");
        assert_eq!(reader_in(folder.path()).runs("sales", None).unwrap().len(), 2);
        let backups = migration_backups(&path);
        assert_eq!(backups.len(), 1, "from version {version}");
        assert_eq!((version_of(&backups[0]), contents(&backups[0])), (version, before));
        // Nothing is to be migrated any longer, and so nothing is copied.
        drop(open_in(folder.path()));
        assert_eq!(migration_backups(&path).len(), 1);
    }
}

#[test]
fn a_database_that_version_8_has_written_opens_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("minflow.db");
    fs::copy(fixture(8), &path).unwrap();
    assert_eq!(version_of(&path), 8);
    drop(open_in(folder.path()));
    let reader = reader_in(folder.path());
    assert_eq!((reader.schema_version().unwrap(), reader.check().unwrap()), (SCHEMA_VERSION, Vec::new()));
    let runs = reader.runs("story", None).unwrap();
    assert_eq!(runs.iter().map(|run| run.state).collect::<Vec<_>>(), [RunState::Failed, RunState::Success]);
    assert_eq!(reader.xcoms_of_task(runs[1].key, "push").unwrap()[0].value, Some(json!({"rows": 3})));
}

#[test]
fn a_migration_that_fails_at_any_statement_leaves_the_database_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = of_version(folder.path(), 1);
    let before = (version_of(&path), contents(&path), schema(&path));
    let mut failures = 0;
    for refused in 0.. {
        let mut connection = Connection::open(&path).unwrap();
        let seen = Arc::new(AtomicU32::new(0));
        let count = seen.clone();
        // Each thing that a statement is about to do is asked for here, so that each statement fails at each of its parts.
        let allow = move |_: AuthContext<'_>| {
            if count.fetch_add(1, Ordering::Relaxed) == refused { Authorization::Deny } else { Authorization::Allow }
        };
        connection.authorizer(Some(allow)).unwrap();
        let done = settle(&mut connection, Synchronous::Full, MIGRATIONS, Kind::Database);
        drop(connection);
        if seen.load(Ordering::Relaxed) <= refused {
            done.unwrap();
            break;
        }
        if version_of(&path) != SCHEMA_VERSION {
            assert_eq!((version_of(&path), contents(&path), schema(&path)), before, "refused at {refused}");
            failures += 1;
        } else {
            // What is refused after the commit, or is no part of the migration, harms nothing.
            assert_eq!(reader_in(folder.path()).check().unwrap(), [""; 0]);
            of_version(folder.path(), 1);
        }
    }
    assert!(failures > 100, "{failures} parts were refused");
    assert_eq!(version_of(&path), SCHEMA_VERSION);
    assert_eq!(reader_in(folder.path()).check().unwrap(), [""; 0]);
}

#[test]
fn only_the_newest_copies_are_kept_and_other_files_beside_the_database_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    for stamp in ["20260101T000000000Z", "20260102T000000000Z", "20260103T000000000Z"] {
        fs::write(folder.path().join(format!("minflow.db.version-3.{stamp}")), "old").unwrap();
    }
    let others =
        ["minflow.db.version-x.20260101T000000000Z", "minflow.db.version-3", "other.db.version-3.20260101T000000000Z"];
    for name in others {
        fs::write(folder.path().join(name), "mine").unwrap();
    }
    let path = of_version(folder.path(), 4);
    drop(open_in(folder.path()));
    let kept: Vec<_> = migration_backups(&path).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(kept.len(), 3);
    assert_eq!(kept[..2], ["minflow.db.version-3.20260102T000000000Z", "minflow.db.version-3.20260103T000000000Z"]);
    assert!(others.iter().all(|name| folder.path().join(name).exists()));
}

#[test]
fn without_its_copy_a_database_is_not_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let path = of_version(folder.path(), 2);
    // A page of a table that opening does not look at: the copy is made, and found to be damaged.
    let connection = Connection::open(&path).unwrap();
    let root: i64 = connection
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'dag_run_newest'", [], |row| row.get(0))
        .unwrap();
    drop(connection);
    let mut bytes = fs::read(&path).unwrap();
    let at = (root as usize - 1) * 4096;
    bytes[at + 8..at + 4096].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    let error = Database::open(&path, Synchronous::Full).unwrap_err();
    assert!(matches!(error, OpenError::NoBackup(_)), "{error}");
    assert!(error.to_string().starts_with("make a backup before the database is brought to version"), "{error}");
    assert_eq!(version_of(&path), 2);
    assert_eq!(
        fs::read_dir(folder.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().to_string_lossy().contains(".version-"))
            .count(),
        0
    );
}
