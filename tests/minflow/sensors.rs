//! Sensors as a user runs them: what waits has no process, outlives a SIGKILL of minflow with its clock, and ends when what it waits for
//! comes.

use serde_json::json;

use crate::harness::{Home, until};
use crate::http::serve;

/// The sensors of each kind that can be seen to wait, and what comes after them.
const WAITING: &str = r#"
params = { patience = 3600 }

[tasks.inbox]
sensor = { file = "../in/{{ run_id }}/*.csv", settle = 0 }

[tasks.marker]
sensor = { bash = "echo looked; test -e $MINFLOW_HOME/marker && echo found", poke_interval = 1 }

[tasks.answer]
sensor = { python = { file = "answer.py", function = "answer" }, poke_interval = 1, mode = "reschedule" }

[tasks.late]
sensor = { time_delta = "1d", timeout = 2, soft_fail = true }
retries = 3

[tasks.after]
bash = "echo {{ ti.xcom_pull(task_ids='inbox') | join }} {{ ti.xcom_pull(task_ids='marker') }} {{ ti.xcom_pull(task_ids='answer') }}"
depends_on = ["inbox", "marker", "answer", "late"]
trigger_rule = "none_failed"
"#;

const ANSWER: &str = "
import os

def answer():
    there = os.path.exists(os.path.join(os.environ['MINFLOW_HOME'], 'marker'))
    return {'is_done': there, 'xcom_value': 42}
";

fn await_state(home: &Home, task: &str, state: &str) {
    until(&format!("{task} to be {state}"), || (home.task("w", "r", task)["state"] == state).then_some(()));
}

#[test]
fn what_waits_survives_a_sigkill_and_nothing_of_it_is_lost_or_done_twice() {
    let home = Home::new();
    home.write("dags/answer.py", ANSWER);
    home.dag("w", WAITING);
    let mut minflow = home.start();
    minflow.await_dag("w");
    home.trigger("w", "r");
    await_state(&home, "inbox", "deferred");
    await_state(&home, "late", "skipped");
    let late = home.task("w", "r", "late");
    assert_eq!(late["try_number"], 1, "{late}");
    let reason = late["reason"].as_str().unwrap();
    assert!(reason.starts_with("the sensor's timeout of 2s is over, and it still waits until "), "{reason}");
    let inbox = home.task("w", "r", "inbox");
    assert_eq!(inbox["reason"], "waits for HOME/in/r/*.csv");
    minflow.kill();

    let minflow = home.start();
    minflow.await_dag("w");
    home.write("in/r/a.csv", "1,2\n");
    home.write("marker", "");
    assert_eq!(home.await_run("w", "r"), "success");
    for task in ["inbox", "marker", "answer"] {
        let row = home.task("w", "r", task);
        assert_eq!((&row["state"], &row["try_number"]), (&json!("success"), &json!(1)), "{row}");
    }
    assert_eq!(home.task("w", "r", "inbox")["start_date"], inbox["start_date"], "its clock went on");
    let log = home.log("w", "r", "after", 1);
    assert!(log.contains("in/r/a.csv found 42\n"), "{log}");
    let looks = home.log("w", "r", "marker", 1);
    assert!(looks.matches("looked\n").count() > 1, "{looks}");
}

#[test]
fn a_folder_may_come_after_its_sensor_and_a_script_that_raises_fails_its_try() {
    let home = Home::new();
    let text = "[tasks.deep]\nsensor = { file = \"../new/**/done\", settle = 0 }\n\
                [tasks.raises]\nsensor = { python = \"raise ValueError('no answer')\" }\n\
                [tasks.upwards]\nsensor = { file = \"\" }\n";
    home.dag("w", text);
    let minflow = home.start();
    minflow.await_dag("w");
    home.trigger("w", "r");
    await_state(&home, "deep", "deferred");
    await_state(&home, "raises", "failed");
    await_state(&home, "upwards", "failed");
    assert_eq!(home.task("w", "r", "upwards")["reason"], "the sensor's path is empty: correct `file`");
    assert!(home.log("w", "r", "raises", 1).contains("ValueError: no answer"));
    home.write("new/a/b/done", "");
    await_state(&home, "deep", "success");
}

/// Services that are asked, and what goes wrong with them.
const ASKED: &str = r#"
params = { day = "2026-11-21" }

[tasks.batch]
sensor = { http = { connection = "api", url = "batch", contains = "^ready" }, poke_interval = 1 }
output = "none"

[tasks.rows]
sensor = { sql = { database = "in.db", sql = "SELECT count(*) FROM t WHERE day = :day", parameters = { day = "{{ params.day }}" } }, poke_interval = 1, mode = "reschedule" }

[tasks.tell]
bash = "echo {{ xcom('rows') }} rows"
depends_on = ["batch", "rows"]

[tasks.broken]
sensor = { http = { connection = "api", url = "broken" } }

[tasks.refused]
sensor = { http = { url = "http://127.0.0.1:1/" } }

[tasks.silent]
sensor = { http = { url = "http://SILENT/", timeout = 1 } }

[tasks.misspelt]
sensor = { sql = { database = "in.db", sql = "SELECT 1\nFRM t" } }

[tasks.endless]
sensor = { sql = { database = "in.db", timeout = 1, sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n" } }
"#;

#[test]
fn services_are_asked_until_they_say_yes_and_what_breaks_or_hangs_fails_with_its_reason() {
    let is_ready = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = is_ready.clone();
    let (address, asked) = serve(move |path| match path {
        "/batch" if told.load(std::sync::atomic::Ordering::Relaxed) => (200, "ready since 6\n".to_owned()),
        "/batch" => (404, "nothing".to_owned()),
        _ => (500, "sorry".to_owned()),
    });
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let home = Home::new();
    home.write("airflow.toml", format!("[connections]\napi = \"http://me:s3cretpassword@{address}\"\n"));
    home.dag("ask", &ASKED.replace("SILENT", &silent.local_addr().unwrap().to_string()));
    let database = rusqlite::Connection::open(home.path().join("dags/in.db")).unwrap();
    database.execute_batch("CREATE TABLE t (day TEXT)").unwrap();
    let minflow = home.start();
    minflow.await_dag("ask");
    home.trigger("ask", "r");
    let await_task = |task: &str, state: &str| {
        until(&format!("{task} to be {state}"), || (home.task("ask", "r", task)["state"] == state).then_some(()));
    };
    await_task("batch", "deferred");
    await_task("rows", "up_for_reschedule");
    for (task, words) in [
        ("broken", "the answer was 500 "),
        ("refused", "look whether the service runs"),
        ("silent", "no complete answer from"),
        ("misspelt", "sql:2:5: sql: near \"t\": syntax error"),
        ("endless", "it has not ended within its timeout of 1s"),
    ] {
        await_task(task, "failed");
        let log = home.log("ask", "r", task, 1);
        assert!(log.contains(words), "{task}: {log}");
    }
    assert!(home.task("ask", "r", "broken")["reason"].as_str().unwrap().contains("404 means not yet"));
    until("a second look", || {
        (asked.lock().unwrap().iter().filter(|text| text.contains(" /batch ")).count() > 1).then_some(())
    });
    for file in ["minflow.db", "minflow.db-wal"] {
        let bytes = std::fs::read(home.path().join(file)).unwrap();
        assert!(!bytes.windows(14).any(|seen| seen == b"s3cretpassword"), "{file} holds a password");
    }
    is_ready.store(true, std::sync::atomic::Ordering::Relaxed);
    database.execute_batch("INSERT INTO t VALUES ('2026-11-21')").unwrap();
    await_task("tell", "success");
    let log = home.log("ask", "r", "tell", 1);
    assert!(log.contains("\n1 rows\n"), "{log}");
    for task in ["batch", "rows"] {
        assert_eq!(home.task("ask", "r", task)["try_number"], 1, "{task}");
    }
    let log = home.log("ask", "r", "batch", 1);
    assert!(log.contains("not yet: that is what its status says") && !log.contains("is_done"), "{log}");
}

#[test]
fn a_folder_that_is_deleted_and_made_again_is_still_looked_at() {
    let home = Home::new();
    home.dag("again", "[tasks.comes]\nsensor = { file = \"../in/deep/*.csv\", settle = 0 }\n");
    home.write("in/deep/other", "");
    let minflow = home.start();
    minflow.await_dag("again");
    home.trigger("again", "r");
    until("it to wait", || (home.task("again", "r", "comes")["state"] == "deferred").then_some(()));
    std::fs::remove_dir_all(home.path().join("in")).unwrap();
    home.write("in/deep/a.csv", "1");
    until("it to come", || (home.task("again", "r", "comes")["state"] == "success").then_some(()));
}

/// One sensor of each kind, `N` times, and what comes after them all.
fn crowd(address: &str) -> String {
    let kinds = [
        "file = \"../in/gate\", settle = 0".to_owned(),
        "time_delta = \"1s\"".to_owned(),
        format!("http = {{ url = \"http://{address}/gate\" }}, poke_interval = 1"),
        format!("http = {{ url = \"http://{address}/gate\" }}, poke_interval = 1, mode = \"reschedule\""),
        "sql = { database = \"in.db\", sql = \"SELECT count(*) FROM gate\" }, poke_interval = 1".to_owned(),
        "bash = \"test -e $MINFLOW_HOME/in/gate\", poke_interval = 1".to_owned(),
        "python = \"import os; result = os.path.exists(os.environ['MINFLOW_HOME'] + '/in/gate')\", poke_interval = 2"
            .to_owned(),
        "time_delta = \"1d\", timeout = 6, soft_fail = true".to_owned(),
    ];
    let (mut text, mut ids) = (String::new(), Vec::new());
    for (number, kind) in kinds.iter().enumerate() {
        text += &format!("[tasks.s{number}]\nsensor = {{ {kind} }}\nretries = 3\n");
        ids.push(format!("\"s{number}\""));
    }
    text + &format!(
        "[tasks.after]\nbash = \"echo once >> $MINFLOW_HOME/after\"\ndepends_on = [{}]\ntrigger_rule = \"none_failed\"\n",
        ids.join(", ")
    )
}

#[test]
fn sensors_of_all_kinds_outlive_one_sigkill_after_the_other_and_each_ends_once() {
    let is_open = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = is_open.clone();
    let (address, asked) = serve(move |_| match told.load(std::sync::atomic::Ordering::Relaxed) {
        true => (200, "there".to_owned()),
        false => (404, String::new()),
    });
    let home = Home::new();
    home.write("in/other", "");
    home.dag("w", &crowd(&address));
    let database = rusqlite::Connection::open(home.path().join("dags/in.db")).unwrap();
    database.execute_batch("CREATE TABLE gate (a)").unwrap();
    let mut minflow = home.start();
    minflow.await_dag("w");
    home.trigger("w", "r");
    let rows = || (0..8).map(|number| home.task("w", "r", &format!("s{number}"))).collect::<Vec<_>>();
    until("all to have begun", || rows().iter().all(|row| !row["start_date"].is_null()).then_some(()));
    let begun: Vec<_> = rows().iter().map(|row| row["start_date"].clone()).collect();
    for round in 0..4 {
        let before = asked.lock().unwrap().len();
        // In the middle of looks, wherever they are.
        until("a look", || (asked.lock().unwrap().len() > before + round).then_some(()));
        minflow.kill();
        minflow = home.start();
    }
    is_open.store(true, std::sync::atomic::Ordering::Relaxed);
    database.execute_batch("INSERT INTO gate VALUES (1)").unwrap();
    home.write("in/gate", "");
    assert_eq!(home.await_run("w", "r"), "success");
    for (number, (row, start)) in rows().iter().zip(begun).enumerate() {
        let state = if number == 7 { "skipped" } else { "success" };
        let seen = (&row["state"], &row["try_number"], &row["start_date"]);
        assert_eq!(seen, (&json!(state), &json!(1), &start), "{row}");
    }
    assert_eq!(std::fs::read_to_string(home.path().join("after")).unwrap(), "once\n");
}

#[test]
fn looks_at_services_need_no_slot_while_a_task_has_the_only_one() {
    let (address, asked) = serve(|_| (404, String::new()));
    let home = Home::new();
    home.write("airflow.toml", "[core]\nparallelism = 1\n");
    let ask = format!("[tasks.ask]\nsensor = {{ http = {{ url = \"http://{address}/x\" }}, poke_interval = 1 }}\n");
    home.dag("ask", &ask);
    home.dag(
        "busy",
        "[tasks.long]\nbash = \"touch $MINFLOW_HOME/began; until test -e $MINFLOW_HOME/go; do sleep 0.1; done\"\n",
    );
    let minflow = home.start();
    minflow.await_dag("ask");
    minflow.await_dag("busy");
    home.trigger("ask", "r");
    await_row(&home, "ask", "ask", "deferred");
    home.trigger("busy", "r");
    until("the task has the slot", || home.path().join("began").exists().then_some(()));
    let before = asked.lock().unwrap().len();
    until("looks go on", || (asked.lock().unwrap().len() > before + 2).then_some(()));
    assert_eq!(home.task("busy", "r", "long")["state"], "running");
    assert_eq!(home.task("ask", "r", "ask")["reason"], "looks every 1 s");
    home.write("go", "");
    await_row(&home, "busy", "long", "success");
}

/// A query that no question reaches: one call of a function that takes for ever.
const STUCK: &str = r#"
[tasks.stuck]
sensor = { sql = { database = ":memory:", timeout = 1, sql = "SELECT instr(zeroblob(40000000), CAST(zeroblob(20000000) || 'x' AS BLOB))" } }

[tasks.greedy]
sensor = { sql = { database = ":memory:", sql = "SELECT length(hex(zeroblob(490000000)) || hex(zeroblob(9)))" } }

[tasks.beside]
sensor = { http = { url = "http://ADDRESS/x" }, poke_interval = 1 }
"#;

#[test]
fn a_look_that_cannot_be_stopped_or_takes_all_memory_ends_alone() {
    let (address, asked) = serve(|_| (404, String::new()));
    let home = Home::new();
    home.dag("w", &STUCK.replace("ADDRESS", &address));
    let minflow = home.start();
    minflow.await_dag("w");
    home.trigger("w", "r");
    await_row(&home, "w", "stuck", "failed");
    await_row(&home, "w", "greedy", "failed");
    let reason = home.task("w", "r", "stuck")["reason"].to_string();
    assert!(reason.contains("has not come back within 1 s and was ended"), "{reason}");
    assert!(home.log("w", "r", "greedy", 1).contains("out of memory"), "{}", home.log("w", "r", "greedy", 1));
    let before = asked.lock().unwrap().len();
    until("looks go on", || (asked.lock().unwrap().len() > before + 1).then_some(()));
    assert_eq!(home.task("w", "r", "beside")["state"], "deferred");
    drop(minflow);
}

fn await_row(home: &Home, dag: &str, task: &str, state: &str) {
    until(&format!("{task} to be {state}"), || (home.task(dag, "r", task)["state"] == state).then_some(()));
}
