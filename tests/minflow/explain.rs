//! Why things wait, as a person asks for it.

use serde_json::Value;

use crate::harness::{Home, until};

/// Runs until the file `go` is there.
const HOLD: &str = "until [ -e $MINFLOW_HOME/go ]; do sleep 0.05; done";

/// What is told of a task.
fn told(home: &Home, dag_id: &str, run_id: &str, task_id: &str) -> Value {
    let told = home.json(&format!("explain {dag_id} {run_id} {task_id}"));
    told["tasks"][0].clone()
}

fn await_state(home: &Home, (dag_id, run_id, task_id): (&str, &str, &str), state: &str) {
    until(state, || (home.task(dag_id, run_id, task_id)["state"] == state).then_some(()));
}

#[test]
fn eight_gates_are_explained_with_their_numbers_holders_and_instants() {
    let home = Home::new();
    home.write("airflow.toml", "[core]\nparallelism = 4\n[pools]\nnarrow = 1\n");
    home.dag(
        "gates",
        &format!(
            "[tasks.holds]\nbash = '{HOLD}'\npool = \"narrow\"\n[tasks.in_pool]\nbash = \"true\"\npool = \"narrow\"\npriority_weight = -5\n\
             [tasks.below]\nbash = \"true\"\ndepends_on = [\"holds\"]\n\
             [tasks.too_wide]\nbash = \"true\"\npool = \"narrow\"\npool_slots = 2\n\
             [tasks.again]\nbash = \"exit 3\"\nretries = 1\nretry_delay = \"1h\"\n\
             [tasks.later]\nsensor = {{ file = \"never.csv\" }}\n"
        ),
    );
    home.dag("narrow_run", &format!("max_active_tasks = 1\nmax_active_runs = 1\n[tasks.a]\nbash = '{HOLD}'\npriority_weight = 9\n[tasks.b]\nbash = '{HOLD}'\n"));
    home.dag(
        "crowd",
        &format!(
            "[tasks.c]\nbash = '{HOLD}'\n[tasks.d]\nbash = '{HOLD}'\n[tasks.e]\nbash = '{HOLD}'\npriority_weight = -1\n"
        ),
    );
    let mut minflow = home.start();
    for dag_id in ["gates", "narrow_run", "crowd"] {
        minflow.await_dag(dag_id);
    }
    home.trigger("gates", "r");
    await_state(&home, ("gates", "r", "holds"), "running");
    await_state(&home, ("gates", "r", "again"), "up_for_retry");
    await_state(&home, ("gates", "r", "later"), "deferred");
    home.trigger("narrow_run", "first");
    home.trigger("narrow_run", "second");
    await_state(&home, ("narrow_run", "first", "a"), "running");
    let max_active_tasks = told(&home, "narrow_run", "first", "b");
    home.trigger("crowd", "r");
    await_state(&home, ("crowd", "r", "c"), "running");
    await_state(&home, ("crowd", "r", "d"), "running");

    let gate = |told: &Value| told["gate"].as_str().unwrap_or_default().to_owned();
    assert_eq!(gate(&max_active_tasks), "max_active_tasks");
    assert_eq!(max_active_tasks["held_by"][0]["task_id"], "a");
    let pool = told(&home, "gates", "r", "in_pool");
    assert_eq!((gate(&pool).as_str(), pool["message"].as_str().unwrap()), ("pool_full", "pool `narrow` 1/1"));
    assert_eq!(pool["held_by"][0]["task_id"], "holds");
    assert!(pool["held_by"][0]["since"].is_string() && pool["since"].is_string(), "{pool}");
    assert_eq!(gate(&told(&home, "gates", "r", "too_wide")), "pool_too_small");
    let below = told(&home, "gates", "r", "below");
    assert_eq!(gate(&below), "trigger_rule");
    assert_eq!(below["message"], "trigger rule `all_success` waits for 1 of 1 before it: `holds` is running");
    let again = told(&home, "gates", "r", "again");
    assert_eq!((gate(&again).as_str(), again["is_expected"].as_bool()), ("retry_delay", Some(false)));
    assert!(again["until"].is_string(), "{again}");
    assert_eq!(gate(&told(&home, "gates", "r", "later")), "deferred");
    let crowd = told(&home, "crowd", "r", "e");
    assert_eq!(gate(&crowd), "parallelism");
    assert_eq!(crowd["held_by"].as_array().unwrap().len(), 4);
    let second = home.json("explain narrow_run second");
    assert_eq!((gate(&second).as_str(), second["held_by"][0]["run_id"].as_str()), ("max_active_runs", Some("first")));
    let deps = home.cli("tasks failed-deps gates in_pool r");
    assert!(
        deps.out.starts_with("Task instance dependencies not met:\npool_full: pool `narrow` 1/1; held by gates.holds")
    );
    assert_eq!(home.cli("tasks failed-deps gates holds r").out, "Task instance dependencies are all met.\n");
    let waiting = minflow.status()["waiting"].clone();
    let named: Vec<_> = waiting.as_array().unwrap().iter().map(|waits| waits["task_id"].as_str().unwrap()).collect();
    assert_eq!(named, ["in_pool", "too_wide", "b", "e"]);
    let one = minflow.get("/status?dag_id=crowd").1;
    assert_eq!(one["waiting"].as_array().unwrap().len(), 1);
    assert!(home.cli("status").out.contains("waits    gates.in_pool in r: pool `narrow` 1/1\n"));
    home.cli("dags pause gates");
    assert_eq!(gate(&told(&home, "gates", "r", "below")), "dag_paused");
    minflow.stop();
    let paused = told(&home, "gates", "r", "in_pool");
    assert_eq!(
        (gate(&paused).as_str(), paused["line"].as_str()),
        ("not_running", Some("minflow is not running; `minflow run` starts it"))
    );
}

#[test]
fn nothing_starts_on_a_host_beyond_a_threshold_and_it_is_said_everywhere() {
    let home = Home::new();
    home.write("airflow.toml", "[admission]\nmin_memory = \"1000TB\"\n");
    home.dag("held", "[tasks.a]\nbash = \"true\"\n");
    let mut minflow = home.start();
    minflow.await_dag("held");
    home.trigger("held", "r");
    let told = until("the host was read", || {
        let told = told(&home, "held", "r", "a");
        (told["gate"] == "admission").then_some(told)
    });
    assert_eq!(told["state"], "scheduled");
    let message = told["message"].as_str().unwrap();
    assert!(
        message.starts_with("the host lets nothing new start: memory available: ") && message.contains("`min_memory`")
    );
    assert_eq!(minflow.status()["tasks"]["held_back_by"].as_array().unwrap().len(), 1);
    let shown = home.cli("status").out;
    assert!(shown.contains("held     nothing new starts: memory available: "), "{shown}");
    assert!(minflow.said().contains("admission: nothing new starts: memory available: "));
    minflow.stop();
    home.write(
        "airflow.toml",
        "[core]\nparallelism = \"auto\"\n[admission]\nmin_memory = \"1MB\"\nmin_parallelism = 2\nmax_parallelism = 2\n",
    );
    let minflow = home.start();
    assert_eq!(home.await_run("held", "r"), "success");
    assert_eq!(minflow.status()["tasks"]["parallelism"], 2);
}

#[test]
fn what_needs_more_than_the_host_has_can_never_run_and_is_told_when_its_file_is_read() {
    let home = Home::new();
    home.write("airflow.toml", "[admission]\ncpus = 1.5\n");
    home.dag(
        "huge",
        "[tasks.fat]\nbash = \"true\"\nneeds = { memory = \"9000TB\" }\n[tasks.busy]\nbash = \"true\"\nneeds = { cpus = 2 }\n\
         [tasks.small]\nbash = \"true\"\nneeds = { memory = \"1MB\", cpus = 0.5 }\n",
    );
    let minflow = home.start();
    minflow.await_dag("huge");
    let said = minflow.said();
    assert!(said.contains("huge.toml:3:20: needs-too-much: `needs` 9000TB of memory, and "), "{said}");
    let busy = "huge.toml:6:18: needs-too-much: `needs` 2 processors, and 1.5 may be reserved in all: the task can never start";
    assert!(said.contains(busy), "{said}");
    home.trigger("huge", "r");
    await_state(&home, ("huge", "r", "small"), "success");
    let fat = told(&home, "huge", "r", "fat");
    assert_eq!((fat["gate"].as_str(), fat["state"].as_str()), (Some("needs_too_much"), Some("scheduled")));
    let words = fat["message"].as_str().unwrap();
    assert!(words.starts_with("it can never run: it needs 9000000.0 GB of memory, and "), "{words}");
    let busy = told(&home, "huge", "r", "busy");
    assert_eq!(busy["message"], "it can never run: it needs 2 processors, and 1.5 may be reserved in all");
    // It may as soon as there is more.
    home.write("airflow.toml", "[admission]\ncpus = 2\n");
    crate::harness::signal(minflow.pid(), rustix::process::Signal::HUP);
    await_state(&home, ("huge", "r", "busy"), "success");
}

#[test]
fn what_a_holder_usually_takes_tells_when_the_gate_should_open() {
    let home = Home::new();
    home.write("airflow.toml", "[pools]\nnarrow = 1\n");
    home.dag(
        "usual",
        "[tasks.first]\nbash = 'if [ -e $MINFLOW_HOME/slow ]; then until [ -e $MINFLOW_HOME/go ]; do sleep 0.05; done; else sleep 2; fi'\n\
         pool = \"narrow\"\npriority_weight = 2\n[tasks.second]\nbash = \"exit 99\"\npool = \"narrow\"\n",
    );
    let _minflow = home.start();
    assert_eq!(home.run_dag("usual", "before").code, Some(0));
    let over = home.cli("explain usual before");
    assert!(over.out.contains("second: skipped since ") && over.out.contains("it skipped itself with exit code 99"));
    home.write("slow", "");
    home.trigger("usual", "now");
    await_state(&home, ("usual", "now", "first"), "running");
    let told = told(&home, "usual", "now", "second");
    let (until, end) = (&told["until"], &told["held_by"][0]["expected_end"]);
    // Two seconds after its start it has taken longer than usual, and nobody knows.
    assert!(until == end, "{told}");
    home.write("go", "");
    assert_eq!(home.await_run("usual", "now"), "success");
}
