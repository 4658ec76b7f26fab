//! What commands read of a home's database, and what they say of one that they cannot read.

use std::fs;
use std::path::Path;
use std::time::Duration;

use minflow::config::Synchronous;
use minflow::model::{
    Dag, DagRun, DataInterval, Graph, Instance, InstanceKey, NextRun, RunKey, RunState, RunType, TaskState,
};
use minflow::scheduler::{Changes, DagRecord, InstanceWrite, RunWrite, Store};
use minflow::store::{Database, SCHEMA_VERSION};
use serde_json::json;

use super::Test;

const RUN: &str = "scheduled__2026-11-21T06:00:00+00:00";

#[test]
fn migrate_makes_a_database_that_checks_as_sound() {
    let home = Test::new("db migrate").stdout(&format!("`HOME/minflow.db` has version {SCHEMA_VERSION}\n")).run();
    Test { home, ..Test::new("db check") }
        .stdout(&format!("`HOME/minflow.db` is sound: version {SCHEMA_VERSION}\n"))
        .run();
}

#[test]
fn a_newer_database_is_refused_and_left_alone() {
    let newer = |path: &Path| {
        Database::open(path, Synchronous::Full).unwrap();
        rusqlite::Connection::open(path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    };
    for command in ["db check", "db migrate", "dags list"] {
        let home = Test::new(command)
            .database(newer)
            .code(1)
            .stderr(&format!(
                "error: failed to open `HOME/minflow.db`: it has version 99, and this minflow knows versions up to \
                 {SCHEMA_VERSION}\n\
                 help: run the newer minflow that wrote it, or restore a backup made before; the file was not changed\n",
            ))
            .run();
        let connection = rusqlite::Connection::open(home.path().join("minflow.db")).unwrap();
        let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version, 99);
    }
}

#[test]
fn a_row_that_minflow_cannot_read_is_named_by_the_check_as_by_who_reads_it() {
    let odd = |path: &Path| {
        one_run(path);
        rusqlite::Connection::open(path).unwrap().execute("UPDATE dag_run SET run_type = 'odd'", []).unwrap();
    };
    let fault = "column run_type: unknown name `odd`";
    let left_out =
        format!("dag_run 1 cannot be read and is left out: {fault} (`minflow db check` names all such rows)\n");
    let heads = "dag_id | run_id | state | run_after | logical_date | start_date | end_date | lag\n\
                 =======+========+=======+===========+==============+============+==========+====\n";
    let home = Test::new("dags list-runs sales").database(odd).stdout(heads).stderr(&left_out).run();
    let said = format!(
        "error: `HOME/minflow.db` holds what minflow cannot read: dag_run 1, {fault}\nhelp: something other than minflow changed it: \
         correct these values with `sqlite3 HOME/minflow.db`, or restore a backup\n"
    );
    Test::new("db check").in_home(home).code(1).stderr(&said).run();
}

#[test]
fn a_corrupt_database_is_named_and_left_alone() {
    let garbage = "this is no database, whatever its name says. ".repeat(200);
    let home =
        Test::new("db check").file("minflow.db", &garbage).code(1).stderr_contains("error: failed to open `").run();
    assert_eq!(fs::read_to_string(home.path().join("minflow.db")).unwrap(), garbage);
}

/// A database with one finished run of `sales`.
pub fn one_run(path: &Path) {
    let instant = |text: &str| text.parse().unwrap();
    let tick = instant("2026-11-21T06:00:00Z");
    let end = instant("2026-11-21T06:00:02.5Z");
    let run = DagRun {
        state: RunState::Failed,
        logical_date: Some(tick),
        data_interval: Some(DataInterval { start: tick, end: tick }),
        queued_at: Some(tick),
        start_date: Some(tick),
        end_date: Some(end),
        reason: Some("task_failure".to_owned()),
        lag: Some(Duration::from_millis(40)),
        ..DagRun::new(RunKey(1), "sales".into(), RUN.into(), RunType::Scheduled, tick)
    };
    let instance = Instance {
        state: TaskState::Failed,
        try_number: 2,
        max_tries: 1,
        scheduled_at: Some(tick),
        queued_at: Some(tick),
        start_date: Some(tick),
        end_date: Some(end),
        exit_code: Some(3),
        usage: Some(Box::default()),
        ..Instance::new(InstanceKey(1), RunKey(1), "load", "default_pool", "bash")
    };
    let dag = DagRecord {
        is_paused: true,
        schedule: Some("0 6 * * *".to_owned()),
        pause_reason: Some("the last 3 runs failed".to_owned()),
        ..DagRecord::new(&Dag::new("sales".into(), Vec::new(), Graph::default()), "sales.toml".to_owned())
    };
    let changes = Changes {
        dags: vec![dag],
        runs: vec![RunWrite { run, prior: None }],
        instances: vec![InstanceWrite { instance, dag_id: "sales".into(), prior: None }],
        ..Changes::default()
    };
    Database::open(path, Synchronous::Full).unwrap().commit(&changes).unwrap();
}

#[test]
fn runs_and_their_tasks_are_read_without_a_running_minflow() {
    Test::new("dags list-runs sales -o plain")
        .database(one_run)
        .stdout(
            "dag_id  run_id                                state   run_after                logical_date             start_date               end_date                 lag\n\
             sales   scheduled__2026-11-21T06:00:00+00:00  failed  2026-11-21 06:00:00 UTC  2026-11-21 06:00:00 UTC  2026-11-21 06:00:00 UTC  2026-11-21 06:00:02 UTC  40 ms\n",
        )
        .run();
    Test::new("dags state sales 2026-11-21T06:00").database(one_run).stdout("failed\n").run();
    Test::new("dags state sales").argument(RUN).database(one_run).stdout("failed\n").run();
    Test::new("tasks state sales load").argument(RUN).database(one_run).stdout("failed\n").run();
    Test::new("tasks states-for-dag-run sales 2026-11-21T06:00 -o json")
        .database(one_run)
        .json(json!([{
            "dag_id": "sales", "run_id": RUN, "task_id": "load", "map_index": -1, "rendered_map_index": null, "state": "failed", "try_number": 2,
            "max_tries": 1, "queued_at": "2026-11-21T06:00:00.000000Z", "start_date": "2026-11-21T06:00:00.000000Z",
            "end_date": "2026-11-21T06:00:02.500000Z", "duration": 2.5, "pool": "default_pool", "pool_slots": 1,
            "priority_weight": 1, "operator": "bash", "exit_code": 3, "signal": null, "reason": null,
            "exit_cause": "exit_code", "user_cpu": 0.0, "system_cpu": 0.0, "max_rss": 0, "read_bytes": 0, "write_bytes": 0,
            "voluntary_switches": 0, "involuntary_switches": 0, "paused_at": null, "note": null
        }]))
        .run();
    Test::new("dags list-runs sales --state success -o json").database(one_run).json(json!([])).run();
}

/// A database in which the DAG `sales`, unpaused, is planned for a day long ago.
fn one_plan(path: &Path) {
    let at: jiff::Timestamp = "2020-01-01T06:00:00Z".parse().unwrap();
    let next_run = NextRun { logical_date: at, data_interval: DataInterval { start: at, end: at }, run_after: at };
    let dag = Dag::new("sales".into(), Vec::new(), Graph::default());
    let dag = DagRecord { next_run: Some(next_run), ..DagRecord::new(&dag, "sales.toml".to_owned()) };
    let changes = Changes { dags: vec![dag], ..Changes::default() };
    Database::open(path, Synchronous::Full).unwrap().commit(&changes).unwrap();
}

#[test]
fn a_next_run_that_passed_while_nobody_ran_it_is_the_one_that_the_next_start_makes() {
    let list = || Test::new("dags list -o plain --columns dag_id,next_dagrun_create_after").database(one_plan);
    let file = "schedule = \"0 6 * * *\"\nstart_date = 2099-01-01\n[tasks.a]\nempty = true\n";
    let head = "dag_id  next_dagrun_create_after\n";
    list().file("dags/sales.toml", file).stdout(&format!("{head}sales   2099-01-01 06:00:00 UTC\n")).run();
    list().stdout(&format!("{head}sales\n")).run();
}

#[test]
fn an_unknown_run_is_answered_with_the_nearest() {
    Test::new("dags state sales scheduled__2026-11-21T06:00:00+00:01")
        .database(one_run)
        .code(1)
        .stderr(&format!(
            "error: unknown run of `sales`: `scheduled__2026-11-21T06:00:00+00:01`\n\
             help: did you mean `{RUN}`? `minflow dags list-runs sales` lists them all\n"
        ))
        .run();
}

#[test]
fn a_try_s_log_is_printed_as_it_was_written() {
    let path = |attempt: u32| format!("logs/dag_id=sales/run_id={RUN}/task_id=load/attempt={attempt}.log");
    let test = |command: &str| {
        Test::new(command).database(one_run).file(&path(1), "first\n").file(&path(2), "second, without an end")
    };
    test("tasks logs sales load").stdout("second, without an end").run();
    test("tasks logs sales load 2026-11-21T06:00 --try-number 1").stdout("first\n").run();
    test("tasks logs sales load --try-number 3")
        .code(1)
        .stderr(&format!(
            "error: `load` has had 2 tries in run `{RUN}`, no try 3\nhelp: ask for --try-number 2, or leave it out\n"
        ))
        .run();
}
