//! The database of a real home: backups and vacuums beside a running minflow, and what a SIGKILL leaves of a backup or a migration.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use minflow::store::SCHEMA_VERSION;
use rusqlite::Connection;

use crate::harness::{Home, until};

fn connect(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection
}

fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Rows of some megabytes, which take their time to be copied and verified.
fn fatten(connection: &Connection, rows: u32) {
    let fill = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?1) \
                INSERT INTO log (at, event, owner, extra) SELECT x, 'trigger', 'fat', '\"' || hex(zeroblob(150)) || '\"' FROM n";
    connection.execute(fill, [rows]).unwrap();
}

fn is_sound(path: &Path) -> bool {
    let sound: String = connect(path).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    sound == "ok"
}

#[test]
fn backups_are_taken_and_the_file_shrinks_while_runs_go_on_and_a_restore_waits_for_the_end() {
    let home = Home::new();
    home.dag("busy", "[tasks.a]\nbash = \"true\"\n[tasks.b]\ndepends_on = [\"a\"]\nbash = \"true\"\n");
    let mut minflow = home.start();
    let database = home.file("minflow.db");
    for at in 0..20 {
        home.trigger("busy", &format!("r{at}"));
        if at % 5 == 0 {
            let ran = home.cli(&format!("db backup copy{at}.db"));
            assert_eq!(ran.code, Some(0), "{ran:?}");
            let copy = home.file(&format!("copy{at}.db"));
            assert!(is_sound(&copy));
            assert!(number(&connect(&copy), "SELECT count(*) FROM dag_run") > at);
        }
    }
    let refused = home.cli("db restore copy0.db");
    let said = "error: minflow runs on `HOME`, and would go on with what it has in memory\n\
                help: stop it with `minflow stop`, restore, and start it again\n";
    assert_eq!(refused.texts(), (Some(1), "", said));
    fatten(&connect(&database), 20_000);
    connect(&database).execute("DELETE FROM log WHERE owner = 'fat'", []).unwrap();
    let size = || database.metadata().unwrap().len();
    let ran = home.cli("db vacuum");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    until("the file to shrink", || (size() < 2_000_000).then_some(()));
    for at in 0..20 {
        assert_eq!(home.await_run("busy", &format!("r{at}")), "success");
    }
    until("a healthy minflow", || (minflow.get("/health").0 == 200).then_some(()));
    minflow.stop();
    let ran = home.cli("db restore copy0.db");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let check = home.cli("db check");
    assert_eq!(check.code, Some(0), "{check:?}");
    // What the copy shows as under way is dealt with as after a crash.
    let mut minflow = home.start();
    until("the end of all runs", || {
        let runs = home.runs("busy");
        runs.iter().all(|run| run["state"] == "success" || run["state"] == "failed").then_some(())
    });
    minflow.stop();
}

#[test]
fn a_database_whose_file_cannot_shrink_while_it_is_used_says_what_to_do() {
    let home = Home::new();
    let made = home.cli("db migrate");
    assert_eq!(made.code, Some(0), "{made:?}");
    let connection = connect(&home.file("minflow.db"));
    connection.execute_batch("PRAGMA auto_vacuum = NONE; VACUUM").unwrap();
    fatten(&connection, 1_000);
    connection.execute("DELETE FROM log", []).unwrap();
    drop(connection);
    let mut minflow = home.start();
    let ran = home.cli("db vacuum");
    let help =
        "help: stop minflow, run `minflow db vacuum` once, and start it again; from then on it shrinks by itself\n";
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.ends_with(help), "{ran:?}");
    minflow.stop();
}

/// Runs a command and kills it after `delay`; true: it was killed before its end.
fn kill_after(home: &Home, words: &str, delay: Duration) -> bool {
    let mut child = home.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // The moment of the kill is what is varied; nothing waits for it to be long enough.
    std::thread::sleep(delay);
    let _ = child.kill();
    child.wait().unwrap().signal().is_some()
}

#[test]
fn a_backup_that_is_killed_leaves_nothing_under_its_name_and_the_next_one_is_whole() {
    let home = Home::new();
    assert_eq!(home.cli("db migrate").code, Some(0));
    fatten(&connect(&home.file("minflow.db")), 30_000);
    let copy = home.file("copy.db");
    let (mut killed, mut in_the_midst, mut step) = (0, 0, 1);
    while step < 20_000 {
        if !kill_after(&home, "db backup copy.db", Duration::from_millis(step)) {
            break;
        }
        killed += 1;
        in_the_midst += u32::from(home.file("copy.db.part").exists());
        if copy.exists() {
            assert!(is_sound(&copy));
            fs::remove_file(&copy).unwrap();
        }
        step += 1 + step / 4;
    }
    assert!(killed > 3 && in_the_midst > 0, "{killed} were killed, {in_the_midst} of them in the midst of it");
    let _ = fs::remove_file(&copy);
    let ran = home.cli("db backup copy.db");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(is_sound(&copy) && !home.file("copy.db.part").exists());
    assert_eq!(number(&connect(&copy), "SELECT count(*) FROM log WHERE owner = 'fat'"), 30_000);
}

#[test]
fn a_migration_that_is_killed_leaves_the_old_database_or_the_new_one() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/version-1.db");
    let source = tempfile::tempdir().unwrap();
    let fat = source.path().join("fat.db");
    fs::copy(fixture, &fat).unwrap();
    fatten(&connect(&fat), 20_000);
    let (mut old, mut new, mut step) = (0, 0, 1);
    while step < 20_000 && new < 3 {
        let home = Home::new();
        let path = home.file("minflow.db");
        fs::copy(&fat, &path).unwrap();
        let was_killed = kill_after(&home, "db migrate", Duration::from_millis(step));
        assert!(is_sound(&path));
        let connection = connect(&path);
        match number(&connection, "PRAGMA user_version") {
            1 => old += 1,
            version => {
                assert_eq!(version, i64::from(SCHEMA_VERSION));
                new += 1;
            }
        }
        assert_eq!(number(&connection, "SELECT count(*) FROM log WHERE owner = 'fat'"), 20_000);
        assert_eq!(number(&connection, "SELECT count(*) FROM dag_run"), 2);
        drop(connection);
        let ran = home.cli("db migrate");
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let check = home.cli("db check");
        assert_eq!(check.code, Some(0), "{check:?}");
        assert!(was_killed || new > 0);
        step += 1 + step / 3;
    }
    assert!(old > 3 && new > 0, "{old} were old, {new} new");
}

#[test]
fn a_status_that_cannot_be_read_is_said_to_be_so() {
    let home = Home::new();
    home.dag("d", "[tasks.a]\nbash = \"true\"\n");
    let minflow = home.start();
    minflow.await_dag("d");
    assert_eq!(home.run_dag("d", "r").code, Some(0));
    let connection = connect(&home.file("minflow.db"));
    connection.execute_batch("UPDATE dag_run SET run_type = 'bogus'").unwrap();
    let ran = home.cli("status");
    assert!(ran.code == Some(0) && ran.out.contains("1 active"), "one row is left out: {ran:?}");
    connection.execute_batch("ALTER TABLE import_error RENAME TO elsewhere").unwrap();
    let ran = home.cli("status");
    let said = "runs, but does not tell its status: cannot read the database";
    assert!(ran.code == Some(1) && ran.out.is_empty() && ran.err.contains(said), "{ran:?}");
}
