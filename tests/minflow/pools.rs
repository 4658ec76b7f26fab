//! Pools by command: what they let start, what they hold back, and which DAGs they make possible.

use rusqlite::Connection;
use serde_json::json;

use crate::harness::{Home, Minflow, until};

/// A task that ends when the home has a file `go`.
const WAITS: &str = r#"bash = 'while [ ! -e "$MINFLOW_HOME/go" ]; do sleep 0.01; done'"#;

/// Slots that run, and that are open, of a pool; none if there is no such pool.
fn slots(minflow: &Minflow, name: &str) -> Option<(i64, i64)> {
    let status = minflow.status();
    let pool = status["pools"].as_array().unwrap().iter().find(|pool| pool["name"] == name)?.clone();
    Some((pool["running"].as_i64().unwrap(), pool["open"].as_i64().unwrap()))
}

fn audit(home: &Home) -> Vec<String> {
    let database = Connection::open(home.file("minflow.db")).unwrap();
    let mut rows = database.prepare("SELECT owner, event FROM log WHERE event LIKE '%_pool' ORDER BY key").unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok(format!("{} {}", row.get::<_, String>(0)?, row.get::<_, String>(1)?));
    rows.query_map([], row).unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_pool_that_changes_while_tasks_run_and_wait_in_it_counts_at_once() {
    let home = Home::new();
    let mut minflow = home.start();
    assert_eq!(home.cli("pools set narrow 1 a").code, Some(0));
    let tasks: String = ["a", "b", "c"].map(|task| format!("[tasks.{task}]\n{WAITS}\npool = \"narrow\"\n")).concat();
    home.dag("three", &tasks);
    minflow.await_dag("three");
    home.trigger("three", "r");
    until("the first task", || (slots(&minflow, "narrow") == Some((1, 0))).then_some(()));
    assert_eq!(home.cli("pools set narrow 2 a").code, Some(0));
    until("the second task", || (slots(&minflow, "narrow") == Some((2, 0))).then_some(()));
    assert_eq!(home.cli("pools set narrow 1 a").code, Some(0));
    let deleted = home.cli("pools delete narrow");
    assert_eq!(deleted.code, Some(0), "{deleted:?}");
    assert_eq!(deleted.err, "still named by `three`: their tasks in it wait until there is such a pool again\n");
    assert_eq!(slots(&minflow, "narrow"), None);
    let running = || home.tasks("three", "r").iter().filter(|task| task["state"] == "running").count();
    assert_eq!(running(), 2, "a smaller pool, and none, end nothing");
    home.write("go", "");
    until("the end of the two", || (running() == 0).then_some(()));
    let states: Vec<_> = home.tasks("three", "r").iter().map(|task| task["state"].clone()).collect();
    assert_eq!(states, [json!("success"), json!("success"), json!("scheduled")]);
    assert_eq!(minflow.dag("three").unwrap()["is_active"], true);
    assert_eq!(home.cli("pools set narrow -1 b").code, Some(0));
    assert_eq!(home.await_run("three", "r"), "success");
    minflow.stop();
    assert_eq!(audit(&home), ["cli set_pool", "cli set_pool", "cli set_pool", "cli delete_pool", "cli set_pool"]);
}

#[test]
fn a_dag_that_was_refused_for_want_of_a_pool_is_live_as_soon_as_there_is_one() {
    let home = Home::new();
    home.write("airflow.toml", "[pools]\ndatabases = 1\n");
    home.dag("load", "[tasks.a]\nbash = \"true\"\npool = \"database\"\n");
    let minflow = home.start();
    let errors = until("the import error", || {
        let errors = minflow.status()["import_errors"].as_array().unwrap().clone();
        (!errors.is_empty()).then_some(errors)
    });
    assert_eq!(errors[0]["message"], "there is no pool `database`");
    assert_eq!(errors[0]["help"], "did you mean `databases`?");
    assert_eq!(home.cli("pools set database 1 x").code, Some(0));
    let dag = minflow.await_dag("load");
    assert_eq!(dag["has_import_errors"], false);
    assert_eq!(home.run_dag("load", "r").code, Some(0));
    // Saved again after its pool has gone, it is refused, and what it was goes on.
    assert_eq!(home.cli("pools delete database").code, Some(0));
    home.dag("load", "[tasks.a]\nbash = \"true # again\"\npool = \"database\"\n");
    until("the import error", || (minflow.await_dag("load")["has_import_errors"] == true).then_some(()));
}

#[test]
fn pools_that_were_defined_without_a_minflow_are_there_when_it_starts() {
    let home = Home::new();
    assert_eq!(home.cli("pools set database 3 x").code, Some(0));
    home.dag("load", "[tasks.a]\nbash = \"true\"\npool = \"database\"\n");
    let minflow = home.start();
    minflow.await_dag("load");
    assert_eq!(home.run_dag("load", "r").code, Some(0));
    assert_eq!(slots(&minflow, "database"), Some((0, 3)));
}
