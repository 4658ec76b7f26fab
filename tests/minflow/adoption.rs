//! Tasks that outlive their minflow: by SIGKILL, by a stop that does not wait, by another binary; and what the next start makes of them.

use std::fs;
use std::os::unix::process::CommandExt;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Home, Minflow, copy_program, is_alive, signal, supervisors, until};

/// Ends when the home has a file of the task's name, with what stands in it for its last words.
fn waits(name: &str, then: &str, more: &str) -> String {
    let script = format!(
        "echo $$ > $MINFLOW_HOME/{name}.pid; echo begun; while [ ! -e $MINFLOW_HOME/{name} ]; do sleep 0.01; done; {then}"
    );
    format!("[tasks.{name}]\nbash = '{script}'\n{more}\n")
}

fn pid_of(home: &Home, task: &str) -> i32 {
    until(&format!("the process of {task}"), || home.read(&format!("{task}.pid")).trim().parse().ok())
}

fn await_running(home: &Home, run: &str, count: usize) {
    until("all tasks running", || {
        let running = home.tasks("d", run).iter().filter(|task| task["state"] == "running").count();
        (running == count).then_some(())
    });
}

fn shown(home: &Home, run: &str) -> Vec<Value> {
    let tasks = home.tasks("d", run);
    tasks.iter().map(|task| json!([task["task_id"], task["state"], task["exit_code"], task["try_number"]])).collect()
}

/// Until a supervisor without a scheduler has written one end down.
fn await_record(home: &Home) {
    until("its record", || {
        let entries = fs::read_dir(home.path()).unwrap().flatten();
        let mut records = entries.filter(|entry| entry.file_name().to_str().unwrap().ends_with(".ends"));
        records.any(|entry| fs::read_to_string(entry.path()).unwrap().lines().count() == 2).then_some(())
    });
}

/// A minflow whose tasks run.
fn busy(home: &Home, tasks: &[String]) -> Minflow {
    home.dag("d", &tasks.concat());
    let minflow = home.start();
    minflow.await_dag("d");
    home.trigger("d", "r");
    await_running(home, "r", tasks.len());
    minflow
}

#[test]
fn tasks_go_on_while_minflow_is_gone_and_their_true_ends_are_recorded() {
    let home = Home::new();
    let python = "[tasks.value]\npython = '''\nimport os, time\nhome = os.environ[\"MINFLOW_HOME\"]\nopen(home + \"/value.pid\", \"w\").write(str(os.getpid()))\nwhile not os.path.exists(home + \"/value\"):\n    time.sleep(0.01)\nresult = {\"rows\": 3}\n'''\n";
    let tasks = [
        waits("good", "echo last words", ""),
        waits("bad", "exit 7", ""),
        waits("skips", "exit 99", ""),
        waits("again", "[ $MINFLOW_TRY_NUMBER = 2 ] || exit 3", "retries = 1\nretry_delay = 0"),
        waits("early", "echo k=v > $MINFLOW_XCOM; exit 0", ""),
        python.to_owned(),
    ];
    let mut minflow = busy(&home, &tasks);
    let names = ["good", "bad", "skips", "again", "early", "value"];
    let pids = names.map(|name| pid_of(&home, name));
    minflow.kill();
    // Nobody is there when this one ends.
    home.write("early", "");
    until("the end of early", || (!is_alive(pids[4])).then_some(()));
    await_record(&home);
    let before = jiff::Timestamp::now();
    let minflow = home.start();
    assert!(pids.iter().enumerate().all(|(at, pid)| at == 4 || is_alive(*pid)));
    until("the takeover", || minflow.said().contains("5 go on, 1 have ended meanwhile, 0 are unknown").then_some(()));
    for name in ["good", "bad", "skips", "again", "value"] {
        home.write(name, "");
    }
    assert_eq!(home.await_run("d", "r"), "failed");
    assert_eq!(
        json!(shown(&home, "r")),
        json!([
            ["good", "success", 0, 1],
            ["bad", "failed", 7, 1],
            ["skips", "skipped", 99, 1],
            ["again", "success", 0, 2],
            ["early", "success", 0, 1],
            ["value", "success", 0, 1]
        ])
    );
    let early = home.task("d", "r", "early");
    let ended_at: jiff::Timestamp = early["end_date"].as_str().unwrap().parse().unwrap();
    assert!(ended_at < before, "it is recorded with the time at which it ended");
    assert!(early["max_rss"].as_u64().unwrap() > 0 && !early["user_cpu"].is_null(), "{early}");
    let xcoms = |task: &str| home.json(&format!("tasks xcom d r {task}"));
    let value = |task: &str, key: &str| {
        let all = xcoms(task);
        let found = all.as_array().unwrap().iter().find(|xcom| xcom["key"] == key).cloned();
        found.unwrap_or_else(|| panic!("{all}"))["value"].clone()
    };
    assert_eq!(value("good", "return_value"), "last words");
    assert_eq!(value("early", "k"), "v");
    assert_eq!(value("value", "return_value"), json!({ "rows": 3 }));
    let log = home.log("d", "r", "bad", 1);
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines[0].contains("begins try 1") && lines[1] == "begun" && lines[2].contains("exit code 7"), "{log}");
    assert_eq!(lines.len(), 3, "{log}");
    // The supervisor of before has nothing left, and has gone without a trace.
    until("the end of the earlier supervisor", || (supervisors(home.path()).len() == 1).then_some(()));
    let traces = || -> Vec<String> {
        let entries = fs::read_dir(home.path()).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("minflow.supervisor.")).collect()
    };
    until("no file but the new supervisor's socket", || (traces().len() == 1).then_some(()));
}

#[test]
fn what_ended_while_all_were_gone_is_concluded_by_its_record() {
    let home = Home::new();
    let mut minflow = busy(&home, &[waits("a", "exit 5", ""), waits("b", "echo done", "")]);
    let supervisor = minflow.supervisor();
    minflow.kill();
    home.write("a", "");
    home.write("b", "");
    until("the end of the supervisor", || (!is_alive(supervisor)).then_some(()));
    let _minflow = home.start();
    assert_eq!(home.await_run("d", "r"), "failed");
    assert_eq!(json!(shown(&home, "r")), json!([["a", "failed", 5, 1], ["b", "success", 0, 1]]));
    until("the record's end", || {
        let names = fs::read_dir(home.path()).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
        (!names.into_iter().any(|name| name.ends_with(".ends"))).then_some(())
    });
}

#[test]
fn what_its_supervisor_had_written_down_before_it_was_killed_is_not_lost() {
    let home = Home::new();
    let mut minflow = busy(&home, &[waits("a", "exit 5", ""), waits("b", "true", "retries = 1\nretry_delay = 0")]);
    let (supervisor, b) = (minflow.supervisor(), pid_of(&home, "b"));
    let a = pid_of(&home, "a");
    minflow.kill();
    home.write("a", "");
    until("the end of a", || (!is_alive(a)).then_some(()));
    await_record(&home);
    signal(supervisor, Signal::KILL);
    until("the end of the supervisor", || (!is_alive(supervisor)).then_some(()));
    let _minflow = home.start();
    until("the second try of b", || (pid_of(&home, "b") != b).then_some(()));
    assert!(!is_alive(b), "two tries of one task lived at once");
    home.write("b", "");
    assert_eq!(home.await_run("d", "r"), "failed");
    assert_eq!(json!(shown(&home, "r")), json!([["a", "failed", 5, 1], ["b", "success", 0, 2]]));
}

#[test]
fn adopted_tries_are_cleared_marked_timed_out_paused_and_resumed() {
    let home = Home::new();
    let tasks = [
        waits("cleared", "true", ""),
        waits("marked", "true", ""),
        waits("late", "true", "execution_timeout = \"4s\""),
        waits("paused", "echo resumed", ""),
    ];
    let mut minflow = busy(&home, &tasks);
    assert_eq!(home.cli("tasks pause d r paused").code, Some(0));
    let pids = ["cleared", "marked", "late", "paused"].map(|name| pid_of(&home, name));
    let is_stopped = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    };
    until("its standstill", || is_stopped(pids[3]).then_some(()));
    minflow.kill();
    let _minflow = home.start();
    assert_eq!(home.cli("tasks set-state d r marked success").code, Some(0));
    assert_eq!(home.cli("tasks clear d cleared --run-id r --yes").code, Some(0));
    until("the end of what was cleared", || (!is_alive(pids[0])).then_some(()));
    until("the end of what was marked", || (!is_alive(pids[1])).then_some(()));
    until("the timeout", || (home.task("d", "r", "late")["reason"] == "timed_out").then_some(()));
    assert!(is_stopped(pids[3]) && home.task("d", "r", "paused")["state"] == "running");
    home.write("paused", "");
    assert_eq!(home.cli("tasks resume d r paused").code, Some(0));
    until("its end", || (home.task("d", "r", "paused")["state"] == "success").then_some(()));
    home.write("cleared", "");
    assert_eq!(home.await_run("d", "r"), "failed");
    assert_eq!(home.task("d", "r", "marked")["state"], "success");
}

#[test]
fn a_run_that_was_adopted_is_adopted_again_and_what_has_left_its_dag_may_end() {
    let home = Home::new();
    let mut minflow = busy(&home, &[waits("a", "exit 4", ""), waits("b", "true", "")]);
    minflow.kill();
    home.dag("d", &waits("b", "true", ""));
    let mut minflow = home.start();
    minflow.await_dag("d");
    minflow.kill();
    let mut minflow = home.start();
    minflow.stop_keeping();
    let _minflow = home.start();
    home.write("a", "");
    home.write("b", "");
    until("the end of the run", || matches!(&*home.run_state("d", "r"), "success" | "failed").then_some(()));
    let tasks = home.tasks("d", "r");
    let of = |name: &str| tasks.iter().find(|task| task["task_id"] == name).unwrap().clone();
    assert_eq!((&of("a")["exit_code"], &of("a")["state"]), (&json!(4), &json!("failed")));
    assert_eq!((&of("b")["exit_code"], &of("b")["try_number"]), (&json!(0), &json!(1)));
}

#[test]
fn a_callback_that_outlives_its_minflow_is_not_made_again() {
    let home = Home::new();
    let call = "echo called >> $MINFLOW_HOME/calls; while [ ! -e $MINFLOW_HOME/go ]; do sleep 0.01; done";
    home.dag("d", &format!("[tasks.a]\nbash = 'exit 1'\non_failure = [{{ bash = '{call}' }}]\n"));
    let mut minflow = home.start();
    minflow.await_dag("d");
    home.trigger("d", "r");
    until("the callback", || (home.read("calls") == "called\n").then_some(()));
    minflow.kill();
    let mut minflow = home.start();
    minflow.kill();
    home.write("go", "");
    let _minflow = home.start();
    let log = || {
        let folder = home.file("logs/dag_id=d/run_id=r/task_id=a");
        let entries = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
        let log = entries.into_iter().find(|path| path.to_str().unwrap().contains("on_failure"));
        log.map(|log| fs::read_to_string(log).unwrap()).unwrap_or_default()
    };
    until("its end", || log().ends_with("done\n").then_some(()));
    assert_eq!(home.read("calls"), "called\n");
}

#[test]
fn another_binary_takes_over() {
    let home = Home::new();
    let mut minflow = busy(&home, &[waits("a", "exit 7", "")]);
    minflow.kill();
    let newer = home.file("newer-minflow");
    copy_program(env!("CARGO_BIN_EXE_minflow"), &newer);
    let mut command = home.command_of(&newer, "run --port 0");
    home.settle(&mut command);
    command.process_group(0);
    let minflow = home.start_as(command);
    home.write("a", "");
    assert_eq!(home.await_run("d", "r"), "failed");
    assert_eq!(json!(shown(&home, "r")), json!([["a", "failed", 7, 1]]));
    let exe = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!(exe(minflow.supervisor()), newer);
}

/// So many that their requests do not all fit into the line to the supervisor.
const MANY: usize = 16;

/// A minflow that was killed while its supervisor stood still: of the tries of one turn some are on the line, and the others are with
/// nobody. Gives the supervisor.
fn killed_before_many_starts(home: &Home) -> (Minflow, i32) {
    let task = |number: usize| {
        let script = format!("echo {number} $MINFLOW_TRY_NUMBER >> $MINFLOW_HOME/ledger");
        format!("[tasks.t{number:02}]\nbash = '{script}'\nenv = {{ PAD = \"{{{{ 'x' * 100000 }}}}\" }}\n")
    };
    home.dag("d", &(0..MANY).map(task).collect::<String>());
    let mut minflow = home.start();
    minflow.await_dag("d");
    let supervisor = minflow.supervisor();
    signal(supervisor, Signal::STOP);
    home.trigger("d", "r");
    until("all handed over", || {
        let queued = home.tasks("d", "r").iter().filter(|task| task["state"] == "queued").count();
        (queued == MANY).then_some(())
    });
    minflow.kill();
    (minflow, supervisor)
}

/// What a start has found: what goes on or is over, what is lost, and what had not begun.
fn found(said: &str) -> [usize; 3] {
    let line = said.lines().find(|line| line.contains("an earlier minflow has left tasks: ")).unwrap();
    let words = line.split("left tasks: ").nth(1).unwrap().split(", ");
    let [runs, over, lost, unbegun] =
        words.map(|words| words.split(' ').next().unwrap().parse::<usize>().unwrap()).collect::<Vec<_>>()[..]
    else {
        panic!("{line}")
    };
    [runs + over, lost, unbegun]
}

#[test]
fn a_try_that_had_not_begun_begins_with_the_number_it_had_and_costs_no_retry() {
    let home = Home::new();
    let (_killed, supervisor) = killed_before_many_starts(&home);
    // What it has been sent it begins, though nobody is there any longer.
    signal(supervisor, Signal::CONT);
    let mut minflow = home.start();
    assert_eq!(home.await_run("d", "r"), "success");
    let [begun, lost, unbegun] = found(&minflow.said());
    assert!(begun + unbegun == MANY && lost == 0 && unbegun > 0, "{}", minflow.said());
    assert!(shown(&home, "r").iter().all(|task| task[1] == "success" && task[3] == 1));
    let ledger = home.read("ledger");
    let mut ledger: Vec<&str> = ledger.lines().collect();
    ledger.sort_unstable();
    let mut expected: Vec<String> = (0..MANY).map(|number| format!("{number} 1")).collect();
    expected.sort_unstable();
    assert_eq!(ledger, expected, "each once");
    minflow.stop();
    let names = fs::read_dir(home.path()).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let left: Vec<String> = names.filter(|name| name.starts_with("minflow.supervisor.")).collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn whether_a_try_had_begun_is_unknown_once_its_supervisor_was_killed() {
    let home = Home::new();
    let (_killed, supervisor) = killed_before_many_starts(&home);
    signal(supervisor, Signal::KILL);
    until("the supervisor's end", || (!is_alive(supervisor)).then_some(()));
    let minflow = home.start();
    assert_eq!(home.await_run("d", "r"), "failed");
    assert_eq!(found(&minflow.said()), [0, MANY, 0]);
    assert!(home.tasks("d", "r").iter().all(|task| task["reason"] == "lost"));
    assert_eq!(home.read("ledger"), "");
}

#[test]
fn another_supervisor_comes_also_when_the_binary_has_been_removed_or_replaced() {
    let home = Home::new();
    let program = home.file("its-minflow");
    copy_program(env!("CARGO_BIN_EXE_minflow"), &program);
    home.dag("d", "[tasks.a]\nbash = \"true\"\n");
    let mut command = home.command_of(&program, "run --port 0");
    home.settle(&mut command);
    command.process_group(0);
    let minflow = home.start_as(command);
    minflow.await_dag("d");
    fs::remove_file(&program).unwrap();
    for run in ["removed", "replaced"] {
        let before = minflow.supervisor();
        signal(before, Signal::KILL);
        until("another supervisor", || supervisors(home.path()).into_iter().find(|&pid| pid != before));
        assert_eq!(home.run_dag("d", run).code, Some(0));
        copy_program("/bin/false", &program);
    }
}
