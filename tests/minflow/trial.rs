//! `dags test` and `tasks test`: a DAG or a task in the foreground, without a running minflow.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::harness::Home;

/// Speaks, and ends only after somebody has heard it. It is given up if nobody does.
const DIALOGUE: &str = r#"
chain = ["ask >> answer"]

[tasks.ask]
execution_timeout = "60s"
bash = '''
echo "are you there?"
until [ -e "$MINFLOW_HOME/heard" ]; do sleep 0.02; done
echo "thanks"
'''

[tasks.answer]
bash = "echo {{ xcom('ask') | sh }} | tr a-z A-Z"
"#;

/// What `command` prints, without minflow's own lines. The file that the task waits for is made when its first line has come.
fn converse(command: &str) -> (Option<i32>, String) {
    let home = Home::new();
    home.dag("dialogue", DIALOGUE);
    let mut child = home.command(command).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut printed = String::new();
    while !printed.contains("are you there?\n") {
        assert_ne!(lines.read_line(&mut printed).unwrap(), 0, "{printed}");
    }
    fs::write(home.file("heard"), "").unwrap();
    lines.read_to_string(&mut printed).unwrap();
    let tasks: Vec<&str> = printed.lines().filter(|line| !line.contains("] minflow: ")).collect();
    (child.wait().unwrap().code(), tasks.join("\n"))
}

#[test]
fn dags_test_shows_what_a_task_prints_while_it_runs() {
    let (code, printed) = converse("dags test dialogue 2026-11-21");
    let expected = [
        "--- ask try 1",
        "are you there?",
        "thanks",
        "--- ask try 1: exit code 0",
        "--- answer try 1",
        "THANKS",
        "--- answer try 1: exit code 0",
        "ask: success",
        "answer: success",
    ];
    let (states, run) = printed.rsplit_once('\n').unwrap();
    assert_eq!(states.lines().collect::<Vec<_>>(), expected);
    assert!(run.starts_with("manual__") && run.ends_with(": success"), "{run}");
    assert_eq!(code, Some(0));
}

#[test]
fn tasks_test_shows_what_the_task_prints_while_it_runs() {
    let (code, printed) = converse("tasks test dialogue ask 2026-11-21");
    assert_eq!(printed, "--- ask try 1\nare you there?\nthanks\n--- ask try 1: exit code 0");
    assert_eq!(code, Some(0));
}

#[test]
fn a_trial_has_the_data_interval_that_the_schedule_gives_its_date() {
    let home = Home::new();
    home.dag(
        "nightly",
        "schedule = \"30 1 * * *\"\ntimezone = \"Europe/London\"\ndata_interval = true\n[tasks.show]\n\
         bash = \"echo {{ data_interval_start | ts_nodash }} {{ data_interval_end | ts_nodash }}\"\n",
    );
    let output = home.command("dags test nightly 2026-10-25T12:00:00Z").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    // The night on which the clocks are set back has 25 hours; its 01:30 is the second.
    assert!(printed.contains("\n20261024T003000 20261025T013000\n"), "{printed}");
}

#[test]
fn tasks_that_match_the_success_pattern_with_their_whole_id_succeed_and_do_not_run() {
    let home = Home::new();
    home.dag(
        "line",
        "chain = [\"load_a >> load_b >> preload_a\"]\n[tasks.load_a]\nbash = \"exit 1\"\n[tasks.load_b]\nbash = \"exit 1\"\n\
         [tasks.preload_a]\nbash = \"echo runs\"\n",
    );
    let run =
        |pattern: &str| home.command(&format!("dags test line --mark-success-pattern {pattern}")).output().unwrap();
    let output = run("load_.|other");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("\nruns\n") && !printed.contains("load_a try 1\n---"), "{printed}");
    assert!(printed.contains("\nload_a: success\nload_b: success\npreload_a: success\n"), "{printed}");
    assert_eq!(output.status.code(), Some(0));
    for (pattern, code, said) in [
        ("load", 1, "no task of `line` matches `load` with its whole id"),
        ("(", 2, "`(` is no pattern"),
        ("a)|(b", 2, "`a)|(b` is no pattern"),
    ] {
        let output = run(pattern);
        assert_eq!(output.status.code(), Some(code), "{pattern}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(said), "{told}");
    }
}
