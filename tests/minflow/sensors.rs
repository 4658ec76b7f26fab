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
