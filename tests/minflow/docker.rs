//! Containers in real runs. The engine is played by `fake_docker.sh`, whose containers are sessions of their own: what ends a try
//! does not end them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Home, Minflow, is_alive, signal, until};

const ENGINE: &str = include_str!("fake_docker.sh");

/// A home with an engine that has the image `alpine`.
fn home() -> Home {
    let home = Home::new();
    let state = home.file("engine");
    let docker = home.write("bin/docker", ENGINE.replace("STATE", state.to_str().unwrap()));
    std::fs::set_permissions(docker, std::fs::Permissions::from_mode(0o755)).unwrap();
    home.write("engine/images/alpine", "");
    home
}

fn with_engine(home: &Home, words: &str) -> Command {
    let mut command = home.command(words);
    command.env("PATH", format!("{}:{}", home.file("bin").display(), std::env::var("PATH").unwrap()));
    // A setting, which no container is to see.
    command.env("MINFLOW__CORE__MAX_MAP_LENGTH", "77");
    command
}

fn start(home: &Home) -> Minflow {
    home.start_as(with_engine(home, "run --port 0"))
}

/// The names of all containers.
fn containers(home: &Home) -> Vec<String> {
    let entries = std::fs::read_dir(home.file("engine/containers")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The process of the container whose name ends so, once it runs.
fn process(home: &Home, end: &str) -> i32 {
    until("a container", || {
        let name = containers(home).into_iter().find(|name| name.ends_with(end))?;
        home.read(&format!("engine/containers/{name}/pid")).trim().parse().ok()
    })
}

fn await_none(home: &Home, processes: &[i32]) {
    until("the end of all containers", || containers(home).is_empty().then_some(()));
    until("the end of their processes", || (!processes.iter().any(|&pid| is_alive(pid))).then_some(()));
}

/// Those of `minflow operator NAME` on this home.
fn operators(home: &Home, name: &str) -> Vec<i32> {
    let line = format!("operator\0{name}\0--home\0{}\0", home.path().display());
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_one = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|found| String::from_utf8_lossy(&found).contains(&line))
    };
    pids.filter(is_one).collect()
}

fn one(home: &Home, name: &str) -> i32 {
    until("a process of minflow's", || operators(home, name).first().copied())
}

/// A task that runs until it is told to end, and then has a word to say.
const LONG: &str = r#"docker = { image = "alpine", command = ["sh", "-c", "trap 'echo a last word; exit 7' TERM; : > $MINFLOW_RUN_DIR/up; while :; do sleep 0.02; done"] }"#;
/// One that does not listen.
const DEAF: &str = r#"docker = { image = "alpine", command = ["sh", "-c", "trap '' TERM; : > $MINFLOW_RUN_DIR/up; while :; do sleep 0.02; done"] }"#;

fn await_up(home: &Home, dag_id: &str, run_id: &str) {
    until("what the container says first", || home.file(&format!("runs/{dag_id}/{run_id}/up")).exists().then_some(()));
}

const GIVES: &str = r#"
params.name = "Ann"
[tasks.say]
docker = { image = "alpine", command = ["sh", "-c", "env > $MINFLOW_RUN_DIR/env; echo first; echo $GREETING from $MINFLOW_TASK_ID; echo"], environment = { GREETING = "hello {{ params.name }}" } }
[tasks.lines]
docker = { image = "alpine", command = "printenv LINES", environment = { LINES = "one\n{{ params.name }}" } }
[tasks.file]
docker = { image = "alpine", command = ["sh", "-c", "echo k={{ params.name }} > $MINFLOW_XCOM"] }
[tasks.silent]
docker = { image = "elsewhere", command = "true" }
[tasks.json]
output = "json"
docker = { image = "alpine", command = "['echo', '[1, 2]']", auto_remove = "success" }
[tasks.skips]
docker = { image = "alpine", command = ["sh", "-c", "exit 99"] }
[tasks.fails]
docker = { image = "alpine", command = ["sh", "-c", "exit 3"], mounts = ["./in:/in:ro", "data:/data"], network = "none", user = 1000, working_dir = "{{ run_dir }}" }
[tasks.kept]
docker = { image = "alpine", command = "false", auto_remove = "success" }
"#;

#[test]
fn a_container_gives_its_output_its_exit_code_and_its_xcoms_and_nothing_of_it_stays() {
    let home = home();
    home.dag("gives", GIVES);
    assert_eq!(home.cli("validate").code, Some(0));
    let _minflow = start(&home);
    assert_eq!(home.run_dag("gives", "r").code, Some(1));
    let log = |task: &str| home.log("gives", "r", task, 1);
    let xcom = |task: &str| home.cli(&format!("tasks xcom gives r {task}")).out;
    let state = |task: &str| home.task("gives", "r", task)["state"].clone();
    assert!(xcom("say").contains("| hello Ann from say"), "{} {}", xcom("say"), log("say"));
    assert!(xcom("lines").contains("| Ann"), "{}", log("lines"));
    assert!(xcom("file").contains("| k ") && xcom("file").contains("| Ann"), "{} {}", xcom("file"), log("file"));
    assert!(xcom("json").contains("| 1, 2 "), "{}", xcom("json"));
    assert!(log("silent").contains("pulls elsewhere\nlatest: Pulling from elsewhere\n"), "{}", log("silent"));
    assert_eq!((state("silent"), xcom("silent").contains("return_value")), (json!("success"), false));
    assert_eq!(state("skips"), json!("skipped"));
    let fails = home.task("gives", "r", "fails");
    assert_eq!((&fails["exit_code"], &fails["operator"]), (&json!(3), &json!("docker")));

    let left = containers(&home);
    assert_eq!(left.len(), 1, "{left:?}");
    let labels = home.read(&format!("engine/containers/{}/labels", left[0]));
    assert!(labels.contains("minflow.task_id=kept\n") && labels.contains("minflow.try_number=1\n"), "{labels}");
    let seen = home.read("runs/gives/r/env");
    assert!(seen.contains("MINFLOW_RUN_ID=r\n") && seen.contains("AIRFLOW_CTX_DAG_ID=gives\n"), "{seen}");
    for hidden in ["MINFLOW_TRY=", "MINFLOW__", "TZ="] {
        assert!(!seen.contains(hidden), "{hidden} {seen}");
    }
    let calls = home.read("engine/calls");
    assert!(!calls.contains("hello Ann"), "no argument holds a variable's value: {calls}");
    let made = calls.lines().find(|call| call.contains("task_id=fails")).unwrap();
    let (folder, run) = (home.file("dags/in"), home.file("runs/gives/r"));
    for words in [
        &*format!("--mount type=bind,source={0},target={0} ", run.display()),
        &*format!(
            "--mount type=bind,source={},target=/in,readonly --mount type=volume,source=data,target=/data",
            folder.display()
        ),
        &*format!("--workdir {} --network none --user 1000 ", run.display()),
    ] {
        assert!(made.contains(words), "{words}: {made}");
    }
    let files: Vec<_> =
        std::fs::read_dir(run.join(".minflow")).unwrap().flatten().map(|file| file.file_name()).collect();
    assert!(files.is_empty(), "{files:?}");
    assert_eq!(operators(&home, "docker-end"), Vec::<i32>::new());
}

#[test]
fn a_trial_runs_containers_and_touches_none_of_the_homes_own() {
    let home = home();
    home.dag("long", &format!("[tasks.a]\n{LONG}\n"));
    home.dag("short", "[tasks.a]\ndocker = { image = \"alpine\", command = \"echo in a trial\" }\n");
    let _minflow = start(&home);
    home.trigger("long", "r");
    await_up(&home, "long", "r");
    let process = process(&home, ".1");
    let done = with_engine(&home, "dags test short").output().unwrap();
    let printed = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && printed.contains("in a trial\n"), "{printed}");
    assert!(is_alive(process) && containers(&home).len() == 1, "{printed}");
    assert_eq!(home.cli("dags set-state long r failed").code, Some(0));
    await_none(&home, &[process]);
}

#[test]
fn what_is_asked_to_end_has_its_grace_and_what_does_not_listen_is_removed() {
    let home = home();
    home.dag("asked", &format!("[tasks.a]\n{LONG}\n"));
    home.dag("late", &format!("[tasks.a]\nexecution_timeout = 1\ngrace = 1\n{DEAF}\n"));
    let _minflow = start(&home);
    home.trigger("asked", "r");
    await_up(&home, "asked", "r");
    let first = process(&home, ".1");
    assert_eq!(home.cli("dags set-state asked r failed").code, Some(0));
    until("its end", || home.log("asked", "r", "a", 1).contains("minflow: ended by minflow").then_some(()));
    let log = home.log("asked", "r", "a", 1);
    assert!(log.contains("is sent the signal TERM\n") && log.contains("a last word\n"), "{log}");
    assert_eq!(containers(&home), Vec::<String>::new(), "it is gone when its try is over");
    home.trigger("late", "r");
    let second = process(&home, ".1");
    assert_eq!(home.await_run("late", "r"), "failed");
    assert_eq!(home.task("late", "r", "a")["reason"], json!("timed_out"));
    await_none(&home, &[first, second]);
}

#[test]
fn a_container_is_taken_over_from_a_killed_minflow_and_none_outlives_a_killed_supervisor() {
    let home = home();
    home.dag("long", &format!("[tasks.a]\ngrace = 1\n{DEAF}\n"));
    let mut minflow = start(&home);
    home.trigger("long", "r");
    await_up(&home, "long", "r");
    let first = process(&home, ".1");
    minflow.kill();
    let minflow = start(&home);
    assert!(is_alive(first));
    assert_eq!(home.cli("dags set-state long r failed").code, Some(0));
    await_none(&home, &[first]);
    until("its recorded end", || home.task("long", "r", "a")["end_date"].is_string().then_some(()));
    home.trigger("long", "s");
    await_up(&home, "long", "s");
    let second = process(&home, ".1");
    signal(minflow.supervisor(), Signal::KILL);
    await_none(&home, &[second]);
    assert_eq!(home.await_run("long", "s"), "failed");
    assert_eq!((operators(&home, "docker"), operators(&home, "docker-end")), (Vec::new(), Vec::new()));
}

#[test]
fn a_next_try_never_runs_beside_the_container_of_the_one_before() {
    let home = home();
    home.dag("again", &format!("[tasks.a]\nretries = 2\nretry_delay = 0\n{LONG}\n"));
    let _minflow = start(&home);
    home.trigger("again", "r");
    await_up(&home, "again", "r");
    let first = process(&home, ".1");
    signal(one(&home, "docker"), Signal::KILL);
    let second = process(&home, ".2");
    until("the end of the first", || (!is_alive(first)).then_some(()));
    // Now nobody is left who would end the second.
    let (watcher, operator) = (one(&home, "docker-end"), one(&home, "docker"));
    signal(watcher, Signal::KILL);
    signal(operator, Signal::KILL);
    let third = process(&home, ".3");
    assert!(!is_alive(second), "it was ended before the third began");
    let log = home.log("again", "r", "a", 3);
    assert!(
        log.contains("removes the container minflow-") && log.contains(".2, which an earlier try has left"),
        "{log}"
    );
    assert_eq!(containers(&home).len(), 1);
    assert_eq!(home.cli("dags set-state again r failed").code, Some(0));
    await_none(&home, &[third]);
}

#[test]
fn a_container_that_comes_after_its_operator_has_gone_is_removed() {
    let home = home();
    home.dag("late", &format!("[tasks.a]\n{LONG}\n"));
    home.write("engine/slow", "");
    let _minflow = start(&home);
    home.trigger("late", "r");
    until("its making", || home.file("engine/creating").exists().then_some(()));
    signal(one(&home, "docker"), Signal::KILL);
    let removals = || home.read("engine/calls").matches("rm --force").count();
    until("the watcher", || (removals() > 0).then_some(()));
    std::fs::remove_file(home.file("engine/slow")).unwrap();
    until("the late container", || home.file("engine/created").exists().then_some(()));
    await_none(&home, &[]);
    assert_eq!(home.await_run("late", "r"), "failed");
    until("the end of its watcher", || operators(&home, "docker-end").is_empty().then_some(()));
    assert_eq!(containers(&home), Vec::<String>::new());
}

const LACKS: &str = r#"
[tasks.command]
env = { PATH = "/nowhere" }
docker = { image = "alpine" }
[tasks.image]
docker = { image = "nowhere", pull = "never" }
[tasks.mount]
docker = { image = "alpine", mounts = ["/unseen/x:/x"] }
[tasks.registry]
retry_on = [{ output = "i/o timeout", retries = 1, retry_delay = 0 }]
docker = { image = "elsewhere" }
[tasks.name]
docker = { image = "{{ '--privileged' }}" }
"#;

#[test]
fn what_is_lacking_is_said_with_what_to_do() {
    let home = home();
    home.dag("lacks", LACKS);
    home.dag(
        "unseen",
        "[tasks.a]\ndocker = { image = \"alpine\", command = [\"sh\", \"-c\", \"echo [$MINFLOW_XCOM]\"] }\n",
    );
    home.write("engine/unreachable", "");
    let _minflow = start(&home);
    assert_eq!(home.run_dag("lacks", "r").code, Some(1));
    let reason = |task: &str| home.task("lacks", "r", task)["reason"].as_str().unwrap_or_default().to_owned();
    for (task, words) in [
        ("command", "`docker` was not found on PATH: install the Docker command line"),
        ("image", "the engine has no image `nowhere`, and `pull` is \"never\": run `docker pull nowhere`"),
        (
            "mount",
            "the container cannot be made: Error response from daemon: bind source path does not exist: /unseen/x;",
        ),
        (
            "registry",
            "the image `elsewhere` cannot be pulled: Error response from daemon: Get \"https://registry/v2/\"",
        ),
        ("name", "`--privileged` is not the name of an image"),
    ] {
        assert!(reason(task).contains(words), "{task}: {} {}", reason(task), home.log("lacks", "r", task, 1));
    }
    let tried = home.task("lacks", "r", "registry");
    assert_eq!((&tried["try_number"], &tried["exit_code"]), (&json!(2), &json!(125)));

    let ran = home.run_dag("unseen", "r");
    assert_eq!(ran.code, Some(0), "{}", home.log("unseen", "r", "a", 1));
    assert!(home.log("unseen", "r", "a", 1).contains("the container runs without the run's folder"));
    assert!(home.cli("tasks xcom unseen r a").out.contains("| []"));

    home.write("engine/down", "");
    assert_eq!(home.run_dag("unseen", "down").code, Some(1));
    let reason = home.task("unseen", "down", "a")["reason"].to_string();
    let words = "no Docker engine answers: Cannot connect to the Docker daemon at unix:///fake.sock. Is the docker daemon running?; start it";
    assert!(reason.contains(words), "{reason}");
    assert_eq!(containers(&home), Vec::<String>::new());
    assert!(Path::new(&home.file("engine/calls")).exists());
}
