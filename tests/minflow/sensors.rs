//! Sensors as a user runs them: what waits has no process, outlives a SIGKILL of minflow with its clock, and ends when what it waits for
//! comes.

use serde_json::json;

use crate::harness::{Home, until};

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
