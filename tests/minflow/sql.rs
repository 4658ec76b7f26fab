//! The `sql` operator in real runs: a process of its own under the supervisor, whose value is an XCom and whose faults stand in the log.

use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;

use crate::harness::{Home, until};

const DAG: &str = r#"
chain = ["load >> [largest, count] >> tell"]

[tasks.load]
sql = { database = "sales.db", file = "load.sql", parameters = { day = "{{ params.day }}", amount = 7 } }

[tasks.largest]
sql = { connection = "sales", sql = "SELECT customer, amount FROM sales WHERE day = ? ORDER BY amount DESC", parameters = ["{{ params.day }}"], output = "first" }

[tasks.count]
sql = { connection = "{{ 'sales' }}", sql = "SELECT count(*) FROM {{ 'sales' }}", output = "value" }

[tasks.tell]
bash = "echo {{ xcom('largest')['customer'] | sh }} of {{ xcom('count') + 1 }}, {{ xcom('load', default='nothing') }}"

[params]
day = "it's Friday"
"#;

const LOAD: &str = "-- for {{ run_id }}
CREATE TABLE IF NOT EXISTS sales (customer TEXT, amount INTEGER, day TEXT);
INSERT INTO sales VALUES ('o''hara', :amount, :day), ('other', 1, :day);
";

fn home() -> Home {
    let home = Home::new();
    home.write("airflow.toml", "[connections]\nsales = \"sqlite:///dags/sales.db?mode=ro\"\nweb = \"http://h\"\n");
    home.write("dags/load.sql", LOAD);
    home
}

#[test]
fn rows_come_back_as_xcoms_and_a_file_is_rendered() {
    let home = home();
    home.dag("sales", DAG);
    let _minflow = home.start();
    let ran = home.run_dag("sales", "first");
    assert_eq!(ran.code, Some(0), "{ran:?} {}", home.log("sales", "first", "load", 1));
    assert!(home.log("sales", "first", "tell", 1).contains("\no'hara of 3, nothing\n"));
    let log = home.log("sales", "first", "load", 1);
    assert!(log.contains("\nstatement 1: 0 rows changed\nstatement 2: 2 rows changed\n"), "{log}");
    let left: Vec<String> = std::fs::read_dir(home.file("runs/sales/first"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".task") || name.contains(".value"))
        .collect();
    assert_eq!(left, [""; 0], "the files of a try are removed");
    let rendered = home.cli("tasks render sales largest");
    assert!(
        rendered.out.contains("# connection\nsales\n") && rendered.out.contains("[\"it's Friday\"]"),
        "{rendered:?}"
    );
}

#[test]
fn what_is_wrong_stands_in_the_log_with_its_place_and_remedy() {
    let home = home();
    let dag = r#"
[tasks.syntax]
sql = { database = "sales.db", sql = "SELECT 1;\nSELEC 2" }
[tasks.writes]
sql = { connection = "sales", sql = "CREATE TABLE t (a)" }
[tasks.no_connection]
sql = { connection = "salse", sql = "SELECT 1" }
[tasks.no_sqlite]
sql = { connection = "web", sql = "SELECT 1" }
[tasks.no_file]
sql = { database = "sales.db", file = "missing.sql" }
"#;
    home.dag("wrong", dag);
    Connection::open(home.file("dags/sales.db")).unwrap().execute_batch("CREATE TABLE sales (a)").unwrap();
    let _minflow = home.start();
    assert_eq!(home.run_dag("wrong", "r").code, Some(1));
    let syntax = home.log("wrong", "r", "syntax", 1);
    assert!(syntax.contains("sql:2:1: sql: near \"SELEC\": syntax error\n2 | SELEC 2\n  | ^^^^^\n"), "{syntax}");
    assert_eq!(home.task("wrong", "r", "syntax")["exit_code"], json!(1));
    let writes = home.log("wrong", "r", "writes", 1);
    assert!(writes.contains("attempt to write a readonly database"), "{writes}");
    let reasons = [
        ("no_connection", "there is no connection `salse`: add it to [connections]"),
        ("no_sqlite", "connection `web` is of the type `http`, and `sql` reads `sqlite` alone"),
        ("no_file", "the script `HOME/dags/missing.sql` does not exist"),
    ];
    for (task, expected) in reasons {
        let reason = home.task("wrong", "r", task)["reason"].to_string();
        let reason = reason.replace(home.path().to_str().unwrap(), "HOME");
        assert!(reason.contains(expected), "{task}: {reason}");
    }
}

#[test]
fn a_statement_without_an_end_is_ended_by_its_timeout_and_leaves_nothing_done() {
    let home = home();
    let dag = r#"
[tasks.endless]
execution_timeout = "1s"
sql = { database = "sales.db", sql = """
CREATE TABLE t (a);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n
""" }
"#;
    home.dag("endless", dag);
    let _minflow = home.start();
    assert_eq!(home.run_dag("endless", "r").code, Some(1));
    let reason = home.task("endless", "r", "endless")["reason"].to_string();
    assert!(reason.contains("timed_out"), "{reason}");
    let database = Connection::open(home.file("dags/sales.db")).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    let tables: i64 = database.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 0);
}

#[test]
fn a_database_that_another_process_holds_is_waited_for() {
    let home = home();
    home.dag(
        "waits",
        "[tasks.one]\nsql = { database = \"sales.db\", sql = \"INSERT INTO t VALUES (1) RETURNING a\" }\n",
    );
    let holder = Connection::open(home.file("dags/sales.db")).unwrap();
    holder.execute_batch("CREATE TABLE t (a); BEGIN IMMEDIATE; INSERT INTO t VALUES (0)").unwrap();
    let _minflow = home.start();
    home.trigger("waits", "r");
    until("its start", || (home.task("waits", "r", "one")["state"] == "running").then_some(()));
    holder.execute_batch("COMMIT").unwrap();
    assert_eq!(home.await_run("waits", "r"), "success");
}

#[test]
fn a_trial_runs_it_too_and_by_hand_it_says_what_it_is() {
    let home = home();
    home.dag("trial", "[tasks.one]\nsql = { database = \":memory:\", sql = \"SELECT 1 AS a\" }\n");
    let ran = home.cli("tasks test trial one");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.contains("statement 1: 1 row read"), "{ran:?}");
    let by_hand = home.cli("operator sql");
    assert_eq!(by_hand.code, Some(1));
    assert!(by_hand.err.starts_with("standard input holds no task of `sql`"), "{by_hand:?}");
    assert!(!home.cli("--help").out.contains("operator"));
}
