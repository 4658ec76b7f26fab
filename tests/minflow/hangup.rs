//! SIGHUP: airflow.toml is read again while tasks run.

use std::panic::AssertUnwindSafe;
use std::process::{Command, Stdio};

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Beside, Heard, Home, Minflow, is_alive, signal, until};

/// A task that ends when the home has a file `go`.
const WAITS: &str = r#"bash = 'while [ ! -e "$MINFLOW_HOME/go" ]; do sleep 0.01; done'"#;

/// Has airflow.toml read again, and waits until the log says so.
fn reload(minflow: &Minflow) -> String {
    let read = |said: &str| said.matches("airflow.toml was read again").count();
    let before = read(&minflow.said());
    signal(minflow.pid(), Signal::HUP);
    until("the line of the log", || {
        let said = minflow.said();
        (read(&said) > before).then(|| said.lines().last().unwrap_or_default().to_owned())
    })
}

fn running(home: &Home, dag_id: &str) -> usize {
    home.tasks(dag_id, "r").iter().filter(|task| task["state"] == "running").count()
}

#[test]
fn limits_and_pools_of_the_file_count_at_once() {
    let home = Home::new();
    home.write("airflow.toml", "[core]\nparallelism = 1\n[pools]\nnarrow = 1\n");
    home.dag("wide", &["a", "b", "c"].map(|task| format!("[tasks.{task}]\n{WAITS}\n")).concat());
    let minflow = home.start();
    minflow.await_dag("wide");
    home.trigger("wide", "r");
    until("the first task", || (running(&home, "wide") == 1).then_some(()));
    home.write("airflow.toml", "[core]\nparallelism = 2\n[pools]\nother = 3\n");
    reload(&minflow);
    assert!(minflow.said().contains("changed: core.parallelism, [pools]"), "{}", minflow.said());
    until("the second task", || (running(&home, "wide") == 2).then_some(()));
    let status = minflow.status();
    assert_eq!(status["tasks"]["parallelism"], 2);
    let pools: Vec<&Value> = status["pools"].as_array().unwrap().iter().map(|pool| &pool["name"]).collect();
    assert_eq!(pools, [&json!("default_pool"), &json!("other")]);
    // Fewer than run: nothing is ended.
    home.write("airflow.toml", "[core]\nparallelism = 1\n");
    reload(&minflow);
    assert_eq!(running(&home, "wide"), 2);
    home.write("go", "");
    assert_eq!(home.await_run("wide", "r"), "success");
}

#[test]
fn what_holds_for_all_dags_and_tasks_follows_the_file() {
    let home = Home::new();
    home.write("airflow.toml", "[variables]\ngreeting = \"hello\"\n");
    let show =
        "[tasks.show]\nbash = \"echo {{ var.value.greeting }}\"\n[tasks.fails]\nbash = \"exit 1\"\npool = \"new\"\n";
    home.dag("d", show);
    let minflow = home.start();
    until("the fault", || (!minflow.status()["import_errors"].as_array().unwrap().is_empty()).then_some(()));
    let more = "[core]\nmax_active_tasks_per_dag = 3\ndefault_task_retries = 1\ndefault_task_retry_delay = 0\n[pools]\nnew = 1\n";
    home.write("airflow.toml", format!("{more}[variables]\ngreeting = \"good morning\"\n"));
    reload(&minflow);
    minflow.await_dag("d");
    assert_eq!(home.json("dags details d")["max_active_tasks"], 3);
    assert_eq!(home.run_dag("d", "r").code, Some(1));
    let tasks = home.tasks("d", "r");
    assert_eq!((&tasks[0]["max_tries"], &tasks[1]["try_number"]), (&json!(1), &json!(2)));
    assert!(home.log("d", "r", "show", 1).contains("good morning"));
    // The same text means what it meant before when the file does.
    home.write("airflow.toml", "[pools]\nnew = 1\n[variables]\ngreeting = \"hello\"\n");
    reload(&minflow);
    until("the retries to be gone", || {
        let run = format!("r{}", home.runs("d").len());
        home.run_dag("d", &run);
        (home.task("d", &run, "fails")["max_tries"] == 0).then_some(())
    });
    assert_eq!(home.runs("d").iter().filter(|run| run["state"] != "failed").count(), 0);
}

#[test]
fn what_a_dag_names_and_the_file_no_longer_has_is_a_fault_of_the_dag_whose_last_good_version_goes_on() {
    let home = Home::new();
    home.write("airflow.toml", "[notifiers.team]\nkind = \"bash\"\ncommand = \"true\"\n[pools]\ndb = 1\n");
    home.dag("told", "on_failure = [{ notify = \"team\" }]\n[tasks.a]\nempty = true\n");
    home.dag("pooled", "[tasks.a]\nbash = \"true\"\npool = \"db\"\n");
    let minflow = home.start();
    minflow.await_dag("told");
    minflow.await_dag("pooled");
    home.write("airflow.toml", "");
    reload(&minflow);
    until("the fault", || (minflow.await_dag("told")["has_import_errors"] == true).then_some(()));
    assert_eq!(home.run_dag("told", "r").code, Some(0));
    // A pool that goes leaves its DAGs as they are; their tasks wait.
    assert_eq!(minflow.dag("pooled").unwrap()["has_import_errors"], false);
    home.trigger("pooled", "r");
    until("its task to wait", || (home.task("pooled", "r", "a")["state"] == "scheduled").then_some(()));
    home.write("airflow.toml", "[notifiers.team]\nkind = \"bash\"\ncommand = \"true\"\n[pools]\ndb = 1\n");
    reload(&minflow);
    assert_eq!(home.await_run("pooled", "r"), "success");
    until("no fault", || (minflow.await_dag("told")["has_import_errors"] == false).then_some(()));
}

#[test]
fn a_broken_file_changes_nothing_and_is_shown_until_it_is_mended() {
    let home = Home::new();
    home.write("airflow.toml", "[core]\nparallelism = 3\n");
    let mut minflow = home.start();
    home.write("airflow.toml", "[core]\nparalelism = 4\nmax_active_runs_per_dag = 0\n[pools]\nx = -2\n");
    signal(minflow.pid(), Signal::HUP);
    let errors = until("the faults", || {
        let errors = minflow.status()["import_errors"].as_array().unwrap().clone();
        (!errors.is_empty()).then_some(errors)
    });
    let places: Vec<(&Value, &Value)> = errors.iter().map(|error| (&error["line"], &error["code"])).collect();
    let codes = ["unknown-key", "out-of-range", "out-of-range"].map(Value::from);
    let lines = [2, 3, 5].map(Value::from);
    assert_eq!(places, lines.iter().zip(&codes).collect::<Vec<_>>());
    assert_eq!(errors[0]["filename"], home.file("airflow.toml").display().to_string());
    assert!(minflow.said().contains("help: did you mean `parallelism`?"), "{}", minflow.said());
    assert_eq!(minflow.status()["tasks"]["parallelism"], 3);
    assert_eq!(minflow.get("/health").0, 200);
    home.write("airflow.toml", "[core]\nparallelism = 4\n");
    reload(&minflow);
    until("no fault", || minflow.status()["import_errors"].as_array().unwrap().is_empty().then_some(()));
    assert_eq!(minflow.status()["tasks"]["parallelism"], 4);
    minflow.stop();
    let database = Connection::open(home.file("minflow.db")).unwrap();
    let audited: String =
        database.query_row("SELECT group_concat(extra) FROM log WHERE event = 'reload'", [], |row| row.get(0)).unwrap();
    assert!(audited.contains(r#""changed":["core.parallelism"]"#), "{audited}");
}

#[test]
fn what_counts_from_the_next_start_on_is_said() {
    let home = Home::new();
    home.write("airflow.toml", "");
    let minflow = home.start();
    home.dag("before", "[tasks.a]\nempty = true\n");
    home.write("airflow.toml", "[core]\ndags_folder = \"other\"\n[logging]\nlevel = \"debug\"\n[assets.x]\n");
    reload(&minflow);
    for name in ["core.dags_folder", "[assets]"] {
        let line = format!("`{name}` has changed, which counts from the next start on: restart minflow");
        assert!(minflow.said().contains(&line), "{}", minflow.said());
    }
    minflow.await_dag("before");
    let before = minflow.said().len();
    reload(&minflow);
    let said = minflow.said()[before..].to_owned();
    assert!(said.contains("core.dags_folder") && said.contains("nothing in it has changed"), "{said}");
}

#[test]
fn the_level_of_the_log_follows_the_file() {
    let home = Home::new();
    home.write("airflow.toml", "[logging]\nlevel = \"error\"\n");
    let minflow = home.start();
    let reloads = || {
        let database = Connection::open(home.file("minflow.db")).unwrap();
        let count = "SELECT count(*) FROM log WHERE event = 'reload'";
        database.query_row(count, [], |row| row.get::<_, u32>(0)).unwrap()
    };
    home.write("airflow.toml", "[logging]\nlevel = \"info\"\n");
    reload(&minflow);
    until("the audit log", || (reloads() == 1).then_some(()));
    home.write("airflow.toml", "[logging]\nlevel = \"error\"\n");
    signal(minflow.pid(), Signal::HUP);
    until("the audit log", || (reloads() == 2).then_some(()));
    let before = minflow.said();
    home.write("airflow.toml", "nonsense");
    signal(minflow.pid(), Signal::HUP);
    let said = until("the error", || {
        let said = minflow.said()[before.len()..].to_owned();
        said.contains("send SIGHUP again").then_some(said)
    });
    assert!(said.contains(" ERROR ") && !said.contains(" INFO "), "{said}");
}

/// Runs what its arguments say in a terminal, tells its number, and takes the terminal away when it is told to; then tells how it ended.
const TERMINAL: &str = "
import os, pty, signal, sys
pid, master = pty.fork()
if pid == 0:
    # Whoever runs the tests may have been started by nohup.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
said = b''
while b' runs on ' not in said:
    said += os.read(master, 4096)
print(pid, flush=True)
sys.stdin.readline()
os.close(master)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
";

#[test]
fn a_terminal_that_goes_stops_what_was_started_in_it_and_a_signal_before_is_a_reload() {
    let home = Home::new();
    let mut command = Command::new("python3");
    home.settle(&mut command);
    let minflow = [env!("CARGO_BIN_EXE_minflow"), "run", "--port", "0"];
    command.args(["-c", TERMINAL]).args(minflow).stdin(Stdio::piped());
    let mut terminal = Beside::start(command, Heard::Out);
    let pid: i32 = terminal.line().unwrap().parse().unwrap();
    let logged = |what: &str| {
        let database = Connection::open(home.file("minflow.db")).unwrap();
        let count = "SELECT count(*) FROM log WHERE event = ?1 AND owner = 'signal'";
        database.query_row(count, [what], |row| row.get::<_, u32>(0)).unwrap()
    };
    home.write("airflow.toml", "[core]\nparallelism = 2\n");
    signal(pid, Signal::HUP);
    until("the reload", || (logged("reload") == 1).then_some(()));
    assert!(is_alive(pid) && logged("stop") == 0);
    terminal.write("\n");
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| terminal.line()));
    if ended.is_err() {
        // It is nobody's child here.
        signal(pid, Signal::KILL);
    }
    assert_eq!(ended.unwrap().as_deref(), Some("0"));
    assert_eq!(logged("stop"), 1);
    assert!(terminal.await_end().success());
}
