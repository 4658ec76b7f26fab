//! What becomes of the processes of tasks, by the real binary: they end with their task, stand still, go on, or are left on purpose.

use std::fs;

use serde_json::Value;

use crate::harness::{Home, is_alive, until};

/// Counts as long as it runs, in a session of its own, and so does its parent.
const COUNTING: &str = r#"
[tasks.count]
execution_timeout = "2s"
retries = 0
bash = '''
setsid bash -c 'echo $$ > $MINFLOW_HOME/below; while [ ! -e $MINFLOW_HOME/done ]; do echo x >> $MINFLOW_HOME/ticks; sleep 0.01; done' > /dev/null 2>&1 &
echo $$ > $MINFLOW_HOME/pid
until [ -e $MINFLOW_HOME/done ]; do sleep 0.01; done
'''
"#;

fn number(home: &Home, file: &str) -> i32 {
    until(file, || fs::read_to_string(home.file(file)).ok()?.trim().parse().ok())
}

/// The state of a process, as `ps` shows it.
fn state(pid: i32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('X')
}

fn begin(home: &Home) -> [i32; 2] {
    home.trigger("counting", "one");
    until("it runs", || (home.task("counting", "one", "count")["state"] == "running").then_some(()));
    [number(home, "pid"), number(home, "below")]
}

fn are_stopped(pids: [i32; 2]) -> bool {
    pids.iter().all(|&pid| state(pid) == 'T')
}

#[test]
fn a_paused_task_stands_still_with_its_timeout_and_goes_on() {
    let home = Home::new();
    home.dag("counting", COUNTING);
    let minflow = home.start();
    minflow.await_dag("counting");
    let pids = begin(&home);
    let paused = home.json("tasks pause counting one count");
    assert_eq!((&paused[0]["is_paused"], &paused[0]["instances"]), (&Value::Bool(true), &Value::from(1)));
    until("both stand still", || are_stopped(pids).then_some(()));
    let task = home.task("counting", "one", "count");
    assert_eq!(task["state"], "running");
    assert!(task["paused_at"].is_string(), "{task}");
    assert_eq!(minflow.status()["tasks"]["paused"], 1);
    let again = home.cli("tasks pause counting one count");
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.err.contains("was paused already"), "{again:?}");
    // Longer than its timeout, whenever that began.
    let since = std::time::Instant::now();
    until("more time than it has", || (since.elapsed() > std::time::Duration::from_millis(2_500)).then_some(()));
    assert!(are_stopped(pids));
    let ticks = home.read("ticks").len();
    home.json("tasks resume counting one count");
    until("it goes on", || (home.read("ticks").len() > ticks).then_some(()));
    assert_eq!(home.task("counting", "one", "count")["paused_at"], Value::Null);
    home.write("done", "");
    assert_eq!(home.await_run("counting", "one"), "success");
    let refused = home.cli("tasks pause counting one count");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("`count` does not run: it is `success`"), "{refused:?}");
    let unknown = home.cli("tasks resume counting one cuont");
    assert!(unknown.err.contains("did you mean `count`?"), "{unknown:?}");
}

#[test]
fn a_paused_task_can_be_ended_and_does_not_keep_minflow_from_its_stop() {
    let home = Home::new();
    home.dag("counting", &COUNTING.replace("execution_timeout = \"2s\"", "execution_timeout = \"1h\""));
    home.write("airflow.toml", "[scheduler]\ndrain_timeout = \"1h\"\n");
    let mut minflow = home.start();
    minflow.await_dag("counting");
    let pids = begin(&home);
    home.json("tasks pause counting one count");
    until("both stand still", || are_stopped(pids).then_some(()));
    assert_eq!(home.cli("tasks set-state counting one count failed").code, Some(0));
    assert_eq!(home.await_run("counting", "one"), "failed");
    until("nothing is left of it", || pids.iter().all(|&pid| !is_alive(pid)).then_some(()));
    for file in ["pid", "below"] {
        fs::remove_file(home.file(file)).unwrap();
    }
    home.trigger("counting", "two");
    let pids = [number(&home, "pid"), number(&home, "below")];
    until("it runs", || (home.task("counting", "two", "count")["state"] == "running").then_some(()));
    home.json("tasks pause counting two count");
    until("both stand still", || are_stopped(pids).then_some(()));
    minflow.stop();
    assert!(are_stopped(pids), "what stands still is left as it is");
    assert_eq!(home.cli("tasks pause counting two count").code, Some(4), "no minflow runs");
    let _minflow = home.start();
    assert_eq!(home.cli("tasks set-state counting two count failed").code, Some(0));
    until("nothing is left of it", || pids.iter().all(|&pid| !is_alive(pid)).then_some(()));
}

#[test]
fn a_daemon_that_a_task_leaves_on_purpose_outlives_retries_and_minflow_itself() {
    let home = Home::new();
    let daemon = "setsid -f bash -c 'echo $$ >> $MINFLOW_HOME/daemons; exec sleep 86400' > /dev/null 2>&1 < /dev/null\n\
        n=$MINFLOW_TRY_NUMBER; until [ \"$(grep -c . $MINFLOW_HOME/daemons)\" = $n ]; do sleep 0.01; done\ntest $n = 2";
    home.dag(
        "serve",
        &format!("[tasks.start]\nretries = 1\nretry_delay = 0\nleave_running = true\nbash = '''\n{daemon}\n'''\n"),
    );
    let mut minflow = home.start();
    minflow.await_dag("serve");
    assert_eq!(home.run_dag("serve", "one").code, Some(0));
    let daemons: Vec<i32> = home.read("daemons").lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(daemons.len(), 2, "one for each try");
    assert!(daemons.iter().all(|&pid| is_alive(pid)), "the second try left that of the first alone");
    // Neither its stop nor its next start, nor a crash, have to do with what is over.
    minflow.stop();
    let mut minflow = home.start();
    minflow.await_dag("serve");
    minflow.kill();
    let _minflow = home.start();
    let alive: Vec<bool> = daemons.iter().map(|&pid| is_alive(pid)).collect();
    for &pid in &daemons {
        crate::harness::signal(pid, rustix::process::Signal::KILL);
    }
    assert_eq!(alive, [true, true]);
}
