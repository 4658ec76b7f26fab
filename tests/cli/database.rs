//! `minflow db …` and `minflow audit` on a home without a running minflow.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use minflow::config::Synchronous;
use minflow::store::{Database, SCHEMA_VERSION};
use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use super::Test;
use super::stored::one_run;

fn connect(home: &TempDir, name: &str) -> Connection {
    Connection::open(home.path().join(name)).unwrap()
}

fn count(connection: &Connection, table: &str) -> i64 {
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// The files of the home whose names begin so.
fn named(home: &TempDir, head: &str) -> Vec<String> {
    let entries = fs::read_dir(home.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(head)).collect();
    names.sort();
    names
}

#[test]
fn a_backup_is_one_whole_private_file_and_overwrites_nothing() {
    let home = Test::new("db backup copy.db")
        .database(one_run)
        .stdout(&format!("`copy.db` holds 5 rows: version {SCHEMA_VERSION}\n"))
        .run();
    assert_eq!(named(&home, "copy.db"), ["copy.db"]);
    assert_eq!(home.path().join("copy.db").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(count(&connect(&home, "copy.db"), "task_instance"), 1);
    let before = fs::read(home.path().join("copy.db")).unwrap();
    let refused = "error: failed to back up to `copy.db`: it is there already, and is left as it is\n\
                   help: name another file, or move that one away\n";
    let home = Test::new("db backup copy.db").in_home(home).code(1).stderr(refused).run();
    assert_eq!(fs::read(home.path().join("copy.db")).unwrap(), before);
    let home = Test::new("db backup -o json").in_home(home).stdout_contains("\"rows\": 5").run();
    assert_eq!(fs::read_dir(home.path().join("backups")).unwrap().count(), 1);
}

#[test]
fn what_a_killed_backup_has_left_is_taken_up_by_the_next_and_a_bad_place_is_named() {
    let test = Test::new("db backup copy.db").database(one_run).file("copy.db.part", "half of a copy");
    let home = test.stdout_contains("`copy.db` holds 5 rows").run();
    assert_eq!(named(&home, "copy.db"), ["copy.db"]);
    let home = Test::new("db backup no/such/copy.db")
        .in_home(home)
        .code(1)
        .stderr_contains("failed to write `no/such/copy.db.part`")
        .run();
    Test::new("db backup copy.db --into x").in_home(home).code(2).stderr_contains("unexpected argument").run();
    Test::new("db backup").code(1).stderr_contains("there is no such database").run();
}

#[test]
fn what_was_left_of_a_backup_is_not_written_over_if_it_is_one_and_not_through_a_link() {
    let home = Test::new("db backup first.db").database(one_run).stdout_contains("`first.db` holds 5 rows").run();
    let file = |name: &str| home.path().join(name);
    let before = fs::read(file("first.db")).unwrap();
    // Killed between the two steps in which a copy takes its name, and moved to another since.
    fs::hard_link(file("first.db"), file("second.db.part")).unwrap();
    fs::write(file("precious"), "precious").unwrap();
    std::os::unix::fs::symlink(file("precious"), file("third.db.part")).unwrap();
    fs::create_dir(file("backups")).unwrap();
    fs::write(file("backups/minflow.db.part"), "half of a copy").unwrap();
    let home = Test::new("db backup second.db").in_home(home).stdout_contains("`second.db` holds 5 rows").run();
    let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&home.path().join(name).metadata().unwrap());
    assert_ne!(inode("first.db"), inode("second.db"));
    assert_eq!(fs::read(home.path().join("first.db")).unwrap(), before);
    let refused = "failed to write `third.db.part`";
    let home = Test::new("db backup third.db").in_home(home).code(1).stderr_contains(refused).run();
    assert_eq!(fs::read_to_string(home.path().join("precious")).unwrap(), "precious");
    let home = Test::new("db backup").in_home(home).stdout_contains("holds 5 rows").run();
    assert_eq!(fs::read_dir(home.path().join("backups")).unwrap().count(), 1, "what a killed one has left is taken up");
}

#[test]
fn a_restore_brings_a_backup_back_and_keeps_what_was_there() {
    let home = Test::new("db backup copy.db").database(one_run).stdout_contains("`copy.db` holds").run();
    connect(&home, "minflow.db")
        .execute_batch("DELETE FROM task_instance; DELETE FROM state_count WHERE kind = 'task'")
        .unwrap();
    let home = Test::new("db restore copy.db").in_home(home).stdout_contains("holds 5 rows").run();
    assert_eq!(count(&connect(&home, "minflow.db"), "task_instance"), 1);
    let kept = named(&home, "minflow.db.before-restore.");
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(count(&connect(&home, &kept[0]), "task_instance"), 0);
    assert_eq!(count(&connect(&home, &kept[0]), "dag_run"), 1);
    Test::new("db check").in_home(home).stdout_contains("is sound").run();
}

#[test]
fn a_restore_follows_a_link_to_where_the_database_lies() {
    let home = Test::new("db backup copy.db").database(one_run).stdout_contains("holds 5 rows").run();
    fs::create_dir(home.path().join("disk")).unwrap();
    fs::rename(home.path().join("minflow.db"), home.path().join("disk/real.db")).unwrap();
    std::os::unix::fs::symlink("disk/real.db", home.path().join("minflow.db")).unwrap();
    let home = Test::new("db restore copy.db").in_home(home).stdout_contains("is kept as").run();
    assert!(home.path().join("minflow.db").is_symlink());
    assert_eq!(named(&home, "minflow.db."), [""; 0]);
    assert_eq!(fs::read_dir(home.path().join("disk")).unwrap().count(), 2, "it, and what was there before");
    Test::new("db check").in_home(home).stdout_contains("is sound").run();
}

#[test]
fn a_restore_takes_the_place_of_a_database_that_is_damaged_or_absent() {
    let copy = Test::new("db backup copy.db").database(one_run).stdout_contains("`copy.db` holds").run();
    let copy = copy.path().join("copy.db");
    let garbage = "no database. ".repeat(1_000);
    let test = Test::new("db restore").argument(copy.to_str().unwrap()).file("minflow.db", &garbage);
    let home = test.stdout_contains("holds 5 rows").run();
    assert_eq!(fs::read_to_string(home.path().join(&named(&home, "minflow.db.before-restore.")[0])).unwrap(), garbage);
    Test::new("db check").in_home(home).stdout_contains("is sound").run();
    let home = Test::new("db restore").argument(copy.to_str().unwrap()).stdout_contains("holds 5 rows").run();
    assert_eq!(named(&home, "minflow.db.before"), [""; 0]);
}

#[test]
fn a_restore_refuses_what_is_no_sound_backup_and_leaves_all_as_it_was() {
    let cut = |path: &Path| {
        one_run(path);
        Connection::open(path).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let whole = fs::read(path).unwrap();
        fs::write(path.with_file_name("cut.db"), &whole[..whole.len() / 2]).unwrap();
        fs::write(path.with_file_name("text.db"), "dear diary").unwrap();
        Database::open(&path.with_file_name("newer.db"), Synchronous::Full).unwrap();
        let newer = Connection::open(path.with_file_name("newer.db")).unwrap();
        newer.execute_batch("PRAGMA user_version = 99").unwrap();
    };
    let mut home = Test::new("db check").database(cut).stdout_contains("is sound").run();
    let before = fs::read(home.path().join("minflow.db")).unwrap();
    for (file, said) in [
        ("cut.db", "it is damaged"),
        ("text.db", "it is not a database"),
        ("newer.db", "it has version 99"),
        ("none.db", "there is no file `none.db`"),
    ] {
        home = Test::new("db restore").argument(file).in_home(home).code(1).stderr_contains(said).run();
        assert_eq!(fs::read(home.path().join("minflow.db")).unwrap(), before, "{file}");
        assert_eq!(named(&home, "minflow.db.before"), [""; 0], "{file}");
        assert_eq!(named(&home, "minflow.db.restored"), [""; 0], "{file}");
    }
    Test::new("db restore").in_home(home).code(2).stderr_contains("<FILE>").run();
}

#[test]
fn a_vacuum_gives_back_what_is_free_also_of_files_that_could_not_shrink_before() {
    let fat = |path: &Path| {
        Database::open(path, Synchronous::Full).unwrap();
        let connection = Connection::open(path).unwrap();
        connection.execute_batch("PRAGMA auto_vacuum = NONE; VACUUM").unwrap();
        let fill = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5000) \
                    INSERT INTO log (at, event, owner, extra) SELECT x, 'trigger', 'cli', hex(zeroblob(200)) FROM n; DELETE FROM log";
        connection.execute_batch(fill).unwrap();
    };
    let home = Test::new("db check").database(fat).stdout_contains("is sound").run();
    let path = home.path().join("minflow.db");
    let size = || path.metadata().unwrap().len();
    let before = size();
    assert!(before > 2_000_000, "{before}");
    let home = Test::new("db vacuum").in_home(home).stdout_contains("has given back").run();
    assert!(size() < 400_000, "{}", size());
    let auto_vacuum: i64 = connect(&home, "minflow.db").query_row("PRAGMA auto_vacuum", [], |row| row.get(0)).unwrap();
    assert_eq!(auto_vacuum, 2);
    Test::new("db vacuum").code(1).stderr_contains("there is no such database").run();
}

#[test]
fn tables_are_exported_with_ids_for_keys_as_csv_and_as_json_lines() {
    let command = "db export --output-path out --tables task_instance,dag_run -o plain --columns x";
    Test::new(command).database(one_run).code(2).stderr_contains("unexpected argument '--columns'").run();
    let home = Test::new("db export --output-path out --tables task_instance,dag_run -o plain")
        .database(one_run)
        .stdout("table          rows  path\ndag_run        1     out/dag_run.csv\ntask_instance  1     out/task_instance.csv\n")
        .run();
    let csv = fs::read_to_string(home.path().join("out/task_instance.csv")).unwrap();
    let (head, row) = csv.trim_end().split_once('\n').unwrap();
    assert!(head.starts_with("dag_id,run_id,key,task_id,map_index,state,try_number"), "{head}");
    assert!(row.starts_with("sales,scheduled__2026-11-21T06:00:00+00:00,1,load,-1,failed,2,"), "{row}");
    assert!(row.contains("2026-11-21T06:00:02.500000Z"), "{row}");
    let home =
        Test::new("db export --output-path out --export-format json").in_home(home).stdout_contains("dag_run").run();
    let line = fs::read_to_string(home.path().join("out/dag_run.jsonl")).unwrap();
    let run: serde_json::Value = serde_json::from_str(line.trim_end()).unwrap();
    assert_eq!((&run["dag_id"], &run["conf"], &run["lag"]), (&json!("sales"), &json!({}), &json!(0.04)));
    assert_eq!(run["end_date"], "2026-11-21T06:00:02.500000Z");
    let home = Test::new("db export --output-path out").in_home(home).code(1).stderr_contains("exists").run();
    assert_eq!(fs::read_dir(home.path().join("out")).unwrap().count(), 2 + 18, "none of the other tables was written");
}

#[test]
fn an_unknown_table_is_answered_with_the_one_that_was_meant() {
    let test = Test::new("db export --output-path out --tables task_instances").database(one_run).code(2);
    test.stderr("error: unknown table `task_instances`\nhelp: did you mean `task_instance`?\n").run();
    Test::new("db export").code(2).stderr_contains("--output-path <DIR>").run();
    Test::new("db export --output-path x --export-format xml").code(2).stderr_contains("invalid value 'xml'").run();
}

#[test]
fn a_downgrade_is_refused_with_the_way_back() {
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/version-1.db");
    let home = Test::new("db migrate")
        .database(|path| {
            fs::copy(old, path).unwrap();
        })
        .stdout(&format!("`HOME/minflow.db` has version {SCHEMA_VERSION}\n"))
        .run();
    let backups = named(&home, "minflow.db.version-1.");
    assert_eq!(backups.len(), 1, "{backups:?}");
    let version: i64 = connect(&home, &backups[0]).query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(version, 1);
    Test::new("db downgrade --to-version 3.0.0")
        .in_home(home)
        .code(1)
        .stderr(&format!(
            "error: a database does not go back to an earlier version\nhelp: the backup that was made before the last migration brings the \
             database back as it was then: stop minflow, install the earlier version, and with it run `minflow db restore {}`\n",
            backups[0]
        ))
        .run();
    Test::new("db downgrade").code(1).stderr_contains("minflow db restore FILE").run();
}

#[test]
fn the_audit_log_is_listed_newest_first_by_dag_run_kind_and_time_without_secrets() {
    let filled = |path: &Path| {
        one_run(path);
        let connection = Connection::open(path).unwrap();
        for (at, event, dag_id, run_id, extra) in [
            (1_000_000, "trigger", "sales", Some("a"), "{\"conf\":{\"key\":\"hush-hush\"}}"),
            (2_000_000, "pause", "sales", None, "null"),
            (3_000_000, "trigger", "stock", Some("b"), "null"),
        ] {
            let sql = "INSERT INTO log (at, event, dag_id, run_id, owner, extra) VALUES (?1, ?2, ?3, ?4, 'cli', ?5)";
            connection.execute(sql, rusqlite::params![at, event, dag_id, run_id, extra]).unwrap();
        }
    };
    let secret = "[variables]\nmy_password = \"hush-hush\"\n";
    let audit = |words: &str| Test::new(&format!("audit {words}")).file("airflow.toml", secret).database(filled);
    audit("-o plain --dag-id sales")
        .stdout(
            "at                       event    dag_id  run_id  task_id  owner  extra\n\
             1970-01-01 00:00:02 UTC  pause    sales                    cli\n\
             1970-01-01 00:00:01 UTC  trigger  sales   a                cli    {\"conf\":{\"key\":\"***\"}}\n",
        )
        .run();
    let entry = json!([{"at": "1970-01-01T00:00:03.000000Z", "event": "trigger", "dag_id": "stock", "run_id": "b", "task_id": null,
        "owner": "cli", "extra": null}]);
    audit("-o json --event trigger --since 1970-01-01T00:00:03").json(entry.clone()).run();
    audit("-o json --run-id b").json(entry.clone()).run();
    audit("-o json --limit 1").json(entry).run();
    audit("-o json --since 1d").json(json!([])).run();
    audit("--since yesterday").code(2).stderr_contains("`yesterday` is no date").run();
    audit("--limit 0").code(2).stderr_contains("invalid value '0'").run();
    Test::new("audit -o json").json(json!([])).run();
}
