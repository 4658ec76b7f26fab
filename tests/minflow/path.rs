//! The main path: a file is dropped, its runs happen, all of it can be read afterwards.

use serde_json::{Value, json};

use crate::harness::{Home, until};

fn of<'a>(task: &'a Value, names: &[&str]) -> Vec<&'a Value> {
    names.iter().map(|name| &task[name]).collect()
}

#[test]
fn a_file_dropped_into_a_running_home_is_live_and_its_run_is_recorded() {
    let home = Home::new();
    let minflow = home.start();
    home.dag(
        "sales",
        r#"
        [tasks.count]
        bash = "echo noise; head -c 3000000 /dev/zero | tr '\\0' x | wc -c; echo 42"
        [tasks.report]
        bash = "echo \"n={{ xcom('count') }}\" > report; pwd > where; cat report"
        depends_on = ["count"]
        [tasks.done]
        empty = true
        depends_on = ["report"]
        "#,
    );
    minflow.await_dag("sales");

    assert_eq!(home.run_dag("sales", "first").texts(), (Some(0), "success\n", "first\n"));
    let run_dir = home.path().join("runs/sales/first");
    assert_eq!(home.read("runs/sales/first/report"), "n=42\n");
    assert_eq!(home.read("runs/sales/first/where").trim_end(), run_dir.to_str().unwrap());

    let names =
        ["task_id", "state", "try_number", "max_tries", "exit_code", "signal", "reason", "operator", "priority_weight"];
    let tasks = home.tasks("sales", "first");
    let shown: Vec<_> = tasks.iter().map(|task| json!(of(task, &names))).collect();
    assert_eq!(
        json!(shown),
        json!([
            ["count", "success", 1, 0, 0, null, null, "bash", 3],
            ["report", "success", 1, 0, 0, null, null, "bash", 2],
            ["done", "success", 1, 0, null, null, null, "empty", 1],
        ])
    );
    let count = &tasks[0];
    assert!(count["user_cpu"].as_f64().unwrap() + count["system_cpu"].as_f64().unwrap() > 0.0, "{count}");
    let peak = count["max_rss"].as_u64().unwrap();
    assert!((500_000..50_000_000).contains(&peak), "{count}");
    assert!(
        count["duration"].as_f64().unwrap() > 0.0 && count["read_bytes"].is_u64() && count["write_bytes"].is_u64(),
        "{count}"
    );
    let order: Vec<&str> =
        tasks.iter().flat_map(|task| [&task["start_date"], &task["end_date"]]).map(|at| at.as_str().unwrap()).collect();
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(tasks[2]["duration"], 0.0);

    let printed = home.cli("tasks logs sales report first");
    assert!(printed.code == Some(0) && printed.out.contains("n=42\n"), "{printed:?}");
    assert_eq!(home.cli("dags state sales first").out.trim_end(), "success");
    let status = minflow.status();
    assert_eq!((&status["status"], &status["recent_failures"]), (&json!("healthy"), &json!([])));
    assert_eq!(status["dags"][0]["last_run"]["run_id"], "first");
}

#[test]
fn a_failed_run_exits_with_1_after_its_retries_and_says_where() {
    let home = Home::new();
    home.dag(
        "flaky",
        r#"
        [tasks.second_time]
        bash = "test -e tried || { touch tried; echo not yet; exit 7; }"
        retries = 1
        retry_delay = "1s"
        [tasks.never]
        bash = "echo broken; exit 3"
        retries = 1
        retry_delay = 0
        depends_on = ["second_time"]
        [tasks.signaled]
        bash = "kill -KILL $$"
        [tasks.skipped]
        bash = "exit 99"
        [tasks.after]
        bash = "true"
        depends_on = ["never"]
        "#,
    );
    let minflow = home.start();
    minflow.await_dag("flaky");
    let ran = home.run_dag("flaky", "r");
    assert_eq!((ran.code, &*ran.out), (Some(1), "failed\n"), "{ran:?}");
    let names = ["task_id", "state", "try_number", "max_tries", "exit_code", "signal"];
    let shown: Vec<_> = home.tasks("flaky", "r").iter().map(|task| json!(of(task, &names))).collect();
    assert_eq!(
        json!(shown),
        json!([
            ["second_time", "success", 2, 1, 0, null],
            ["never", "failed", 2, 1, 3, null],
            ["signaled", "failed", 1, 0, null, 9],
            ["skipped", "skipped", 1, 0, 99, null],
            ["after", "upstream_failed", 0, 0, null, null],
        ])
    );
    assert!(home.log("flaky", "r", "second_time", 1).contains("not yet\n"));
    assert!(home.log("flaky", "r", "never", 2).contains("broken\n"));
    let first = home.cli("tasks logs flaky second_time r --try-number 1");
    assert!(first.out.contains("not yet\n"), "{first:?}");
    let failures = minflow.status()["recent_failures"].clone();
    let failed: Vec<_> = failures.as_array().unwrap().iter().map(|one| one["task_id"].as_str().unwrap()).collect();
    assert_eq!(failed, ["never", "signaled"]);
    assert!(home.read(failures[0]["log"].as_str().unwrap()).contains("broken\n"), "{failures}");
}

#[test]
fn a_mistake_in_a_template_is_named_with_its_place_in_the_reason_and_in_the_log() {
    let home = Home::new();
    home.dag("wrong", "[tasks.one]\nbash = \"\"\"\necho fine\necho {{ nothing_like_it }}\n\"\"\"\n");
    let minflow = home.start();
    minflow.await_dag("wrong");
    assert_eq!(home.run_dag("wrong", "r").code, Some(1));
    let task = home.task("wrong", "r", "one");
    let reason = task["reason"].as_str().unwrap();
    assert!(reason.contains("wrong.toml:4:") && reason.contains("nothing_like_it"), "{reason}");
    let log = home.log("wrong", "r", "one", 1);
    assert!(log.contains("wrong.toml:4:") && log.contains("nothing_like_it"), "{log}");
    assert_eq!(task["exit_code"], Value::Null);
}

#[test]
fn a_paused_dag_starts_nothing_until_it_is_unpaused() {
    let home = Home::new();
    home.dag("still", "is_paused_upon_creation = true\n[tasks.one]\nbash = \"true\"\n");
    let minflow = home.start();
    assert_eq!(minflow.await_dag("still")["is_paused"], true);
    assert_eq!(home.cli("dags trigger still --run-id a").out, "a\n");
    assert_eq!(home.run_state("still", "a"), "queued");
    let refused = home.cli("dags trigger still --run-id b --wait");
    assert!(refused.code == Some(1) && refused.err.contains("paused"), "{refused:?}");
    assert_eq!(home.cli("dags unpause still").code, Some(0));
    assert_eq!(home.await_run("still", "a"), "success");
    assert_eq!(home.cli("dags pause still").code, Some(0));
    assert_eq!(minflow.await_dag("still")["is_paused"], true);
    assert_eq!(home.cli("dags trigger still --run-id c --wait --unpause").texts(), (Some(0), "success\n", "c\n"));
}

#[test]
fn a_schedule_makes_runs_named_after_their_logical_dates() {
    let home = Home::new();
    home.dag("often", "schedule = { every = \"1s\" }\n[tasks.one]\nbash = \"echo {{ ts }} >> $MINFLOW_HOME/ticks\"\n");
    let minflow = home.start();
    minflow.await_dag("often");
    let runs = until("three runs", || {
        let runs = home.runs("often");
        let done = runs.iter().filter(|run| run["state"] == "success").count();
        (done >= 3).then_some(runs)
    });
    for pair in runs.windows(2) {
        let at = |run: &Value| run["logical_date"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        assert_eq!(at(&pair[0]).duration_since(at(&pair[1])).as_secs(), 1, "{pair:?}");
    }
    let run = &runs[0];
    let date = run["logical_date"].as_str().unwrap().trim_end_matches('Z');
    assert_eq!(run["run_id"], format!("scheduled__{date}+00:00"));
    assert_eq!(run["run_type"], "scheduled");
    let ticks = home.read("ticks");
    assert_eq!(ticks.lines().count(), ticks.lines().collect::<std::collections::BTreeSet<_>>().len(), "{ticks}");
}

#[test]
fn a_run_by_hand_takes_its_logical_date_as_asked() {
    let home = Home::new();
    home.dag("by_hand", "[tasks.one]\nbash = \"echo ds={{ dag_run.logical_date }} conf={{ dag_run.conf.k }}\"\n");
    let minflow = home.start();
    minflow.await_dag("by_hand");
    let mut command = home.command("dags trigger by_hand --wait -o json --logical-date 2026-01-02T03:04:05Z --conf");
    let run: Value = serde_json::from_slice(&command.arg(r#"{"k":"v"}"#).output().unwrap().stdout).unwrap();
    assert_eq!(run["logical_date"], "2026-01-02T03:04:05.000000Z");
    assert_eq!(run["state"], "success");
    assert!(run["run_id"].as_str().unwrap().starts_with("manual__20"), "{run}");
    let log = home.log("by_hand", run["run_id"].as_str().unwrap(), "one", 1);
    assert!(log.contains("ds=2026-01-02 03:04:05+00:00 conf=v\n"), "{log}");
    let twice = home.cli("dags trigger by_hand --logical-date 2026-01-02T03:04:05Z");
    assert!(twice.code == Some(1) && twice.err.contains("already has a run for the logical date"), "{twice:?}");
    let none = home.json("dags trigger by_hand --wait --logical-date none --conf {\"k\":1}");
    assert_eq!((&none["logical_date"], &none["state"]), (&Value::Null, &json!("success")));
    let plain = home.json("dags trigger by_hand --wait --conf {\"k\":1}");
    let date = plain["logical_date"].as_str().unwrap().trim_end_matches('Z');
    assert_eq!(plain["run_id"], format!("manual__{date}+00:00"));
}

#[test]
fn a_second_run_of_the_same_id_is_refused() {
    let home = Home::new();
    home.dag("once", "[tasks.one]\nempty = true\n");
    let minflow = home.start();
    minflow.await_dag("once");
    assert_eq!(home.run_dag("once", "r").code, Some(0));
    assert_eq!(
        home.cli("dags trigger once --run-id r").texts(),
        (
            Some(1),
            "",
            "error: `once` already has a run `r`\nhelp: choose another, or leave it out to have one made of the time\n"
        )
    );
    assert_eq!(home.runs("once").len(), 1);
}
