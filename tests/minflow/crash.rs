//! Ends that nobody prepared: SIGKILL of the scheduler, of the supervisor, of both; and the ordered end.
//!
//! Tasks write a line to a ledger when they start and one when they end, so that what ran is known from what it did.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Home, is_alive, signal, until};

/// Each task says `start TASK TRY PID`, works, says `end TASK TRY`.
const LEDGER: &str = r#"echo "start $MINFLOW_RUN_ID/$MINFLOW_TASK_ID $MINFLOW_TRY_NUMBER $$" >> $MINFLOW_HOME/ledger; WORK; echo "end $MINFLOW_RUN_ID/$MINFLOW_TASK_ID $MINFLOW_TRY_NUMBER" >> $MINFLOW_HOME/ledger"#;

fn task(name: &str, work: &str, more: &str) -> String {
    format!("[tasks.{name}]\nbash = '{}'\n{more}\n", LEDGER.replace("WORK", work))
}

/// A task that sleeps in its first try alone.
fn long(name: &str, retries: u32) -> String {
    let work = r#"if [ $MINFLOW_TRY_NUMBER = 1 ]; then sleep 600; fi"#;
    task(name, work, &format!("retries = {retries}\nretry_delay = 0\ngrace = \"1s\""))
}

/// The pids of the tries that the ledger saw start.
fn started(home: &Home) -> BTreeMap<(String, u32), i32> {
    let ledger = home.read("ledger");
    let mut tries = BTreeMap::new();
    for line in ledger.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["start", task, number, pid] = words[..] {
            let before = tries.insert((task.to_owned(), number.parse().unwrap()), pid.parse().unwrap());
            assert_eq!(before, None, "{task} was started twice as try {number}:\n{ledger}");
        }
    }
    tries
}

fn pid_of(home: &Home, task: &str, number: u32) -> i32 {
    until(&format!("try {number} of {task}"), || started(home).get(&(task.to_owned(), number)).copied())
}

fn two_long_tasks() -> String {
    let quick = task("quick", "true", "");
    let stays = long("retried", 1);
    let given_up = task("given_up", "sleep 600", "grace = \"1s\"");
    format!("{quick}{stays}depends_on = [\"quick\"]\n{given_up}depends_on = [\"quick\"]\n")
}

fn await_two(home: &Home) -> [i32; 2] {
    let pids = [pid_of(home, "r/retried", 1), pid_of(home, "r/given_up", 1)];
    until("both running", || {
        let tasks = home.tasks("work", "r");
        (tasks.iter().filter(|task| task["state"] == "running").count() == 2).then_some(())
    });
    pids
}

/// What holds after any crash in the midst of [`two_long_tasks`].
fn expect_lost(home: &Home) {
    assert_eq!(home.await_run("work", "r"), "failed");
    let tasks = home.tasks("work", "r");
    let shown: Vec<_> =
        tasks.iter().map(|task| json!([task["task_id"], task["state"], task["try_number"], task["reason"]])).collect();
    assert_eq!(
        json!(shown),
        json!([["quick", "success", 1, null], ["retried", "success", 2, null], ["given_up", "failed", 1, "lost"]])
    );
    let tries: Vec<_> = started(home).into_keys().collect();
    let expected = [("r/given_up", 1), ("r/quick", 1), ("r/retried", 1), ("r/retried", 2)];
    assert_eq!(tries, expected.map(|(task, number)| (task.to_owned(), number)));
    assert!(!home.read("ledger").contains("end r/retried 1"));
}

#[test]
fn after_a_kill_of_scheduler_and_supervisor_what_still_lives_is_ended_before_it_is_tried_again() {
    let home = Home::new();
    home.dag("work", &two_long_tasks());
    let mut minflow = home.start();
    minflow.await_dag("work");
    home.trigger("work", "r");
    let pids = await_two(&home);
    let supervisor = minflow.supervisor();
    signal(supervisor, Signal::STOP);
    minflow.kill();
    signal(supervisor, Signal::KILL);
    until("the supervisor's end", || (!is_alive(supervisor)).then_some(()));
    assert!(pids.iter().all(|pid| is_alive(*pid)), "the tasks were to outlive both");
    let minflow = home.start();
    minflow.await_dag("work");
    pid_of(&home, "r/retried", 2);
    assert!(!is_alive(pids[0]), "two tries of one task lived at once");
    expect_lost(&home);
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn after_a_kill_of_the_supervisor_its_tries_are_lost_and_work_goes_on() {
    let home = Home::new();
    home.dag("work", &two_long_tasks());
    let minflow = home.start();
    minflow.await_dag("work");
    home.trigger("work", "r");
    let pids = await_two(&home);
    let supervisor = minflow.supervisor();
    signal(supervisor, Signal::KILL);
    expect_lost(&home);
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
    assert_ne!(minflow.supervisor(), supervisor);
    until("health", || (minflow.get("/health").0 == 200).then_some(()));
}

#[test]
fn sigterm_lets_tasks_end_and_leaves_the_others_to_the_next_start() {
    let home = Home::new();
    home.write("airflow.toml", "[scheduler]\ndrain_timeout = \"2s\"\n");
    let short = task("short", "sleep 0.7", "");
    let long = task("long", "while [ ! -e $MINFLOW_HOME/go ]; do sleep 0.01; done", "");
    let after = task("after", "true", "depends_on = [\"short\"]");
    home.dag("work", &format!("{short}{long}{after}"));
    let mut minflow = home.start();
    minflow.await_dag("work");
    home.trigger("work", "r");
    pid_of(&home, "r/short", 1);
    let pid = pid_of(&home, "r/long", 1);
    minflow.stop();
    assert!(minflow.said().contains("left for the next start to take over: work.long (r)"), "{}", minflow.said());
    assert!(is_alive(pid));
    let state = |task: &str| {
        let task = home.task("work", "r", task);
        json!([task["state"], task["reason"], task["try_number"]])
    };
    assert_eq!(state("short"), json!(["success", null, 1]));
    assert_eq!(state("long"), json!(["running", null, 1]));
    assert!(!home.read("ledger").contains("after"), "nothing new starts while it stops");
    let _minflow = home.start();
    home.write("go", "");
    assert_eq!(home.await_run("work", "r"), "success");
    assert_eq!(state("long"), json!(["success", null, 1]));
    assert_eq!(started(&home).len(), 3);
}

#[test]
fn a_second_sigterm_ends_what_runs_at_once() {
    let home = Home::new();
    home.write("airflow.toml", "[scheduler]\ndrain_timeout = \"10m\"\n");
    home.dag("work", &task("stubborn", "trap \"\" TERM; sleep 600; sleep 600", "grace = \"10m\""));
    let mut minflow = home.start();
    minflow.await_dag("work");
    home.trigger("work", "r");
    let pid = pid_of(&home, "r/stubborn", 1);
    signal(minflow.pid(), Signal::TERM);
    until("the first signal to be taken", || minflow.said().contains("stopping").then_some(()));
    assert!(is_alive(pid) && minflow.ended().is_none());
    signal(minflow.pid(), Signal::TERM);
    assert_eq!(minflow.await_end().code(), Some(0), "{}", minflow.said());
    assert!(!is_alive(pid));
    assert_eq!(home.task("work", "r", "stubborn")["reason"], "stopped");
    assert_eq!(home.run_state("work", "r"), "failed");
}

#[test]
fn twenty_kills_at_random_instants_lose_nothing_and_repeat_nothing() {
    let home = Home::new();
    let mut dag =
        String::from("default_args.retries = 50\ndefault_args.retry_delay = 0\ndefault_args.grace = \"1s\"\n");
    for row in 0..12 {
        for column in 0..4 {
            let after = if row == 0 { String::new() } else { format!("depends_on = [\"t{}_{column}\"]", row - 1) };
            dag.push_str(&task(&format!("t{row}_{column}"), "sleep 0.05", &after));
        }
    }
    home.dag("grid", &dag);
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut random = seed;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut minflow = home.start();
    minflow.await_dag("grid");
    for run in 0..4 {
        home.trigger("grid", &format!("r{run}"));
    }
    let begun = Instant::now();
    let mut kills = 0;
    while kills < 20 && begun.elapsed() < Duration::from_secs(20) {
        // The instant is the subject here: nothing is waited for.
        std::thread::sleep(Duration::from_millis(next(300)));
        match next(3) {
            0 => {
                signal(minflow.supervisor(), Signal::KILL);
                minflow.kill();
                minflow = home.start();
            }
            1 => signal(minflow.supervisor(), Signal::KILL),
            _ => {
                minflow.kill();
                minflow = home.start();
            }
        }
        kills += 1;
    }
    for run in 0..4 {
        assert_eq!(home.await_run("grid", &format!("r{run}")), "success", "seed {seed}: {}", minflow.said());
    }
    let ledger = home.read("ledger");
    let tries = started(&home);
    for run in 0..4 {
        for task in home.tasks("grid", &format!("r{run}")) {
            let id = format!("r{run}/{}", task["task_id"].as_str().unwrap());
            let last = task["try_number"].as_u64().unwrap() as u32;
            assert!(tries.contains_key(&(id.clone(), last)), "seed {seed}: {id} succeeded unstarted");
            assert!(!tries.contains_key(&(id.clone(), last + 1)), "seed {seed}: {id} was repeated");
            let ends = format!("end {id} {last}\n");
            assert_eq!(ledger.matches(&ends).count(), 1, "seed {seed}: {id}");
            // Of an earlier try an end line may stand only if its end was never told; then the try was lost, and run again.
            let position = |line: &str| ledger.find(line);
            for number in 2..=last {
                let (before, after) = (format!("end {id} {}\n", number - 1), format!("start {id} {number} "));
                if let (Some(end), Some(start)) = (position(&before), position(&after)) {
                    assert!(end < start, "seed {seed}: {id}: try {number} began before the one before had ended");
                }
            }
        }
    }
    assert_eq!(minflow.get("/health").0, 200, "seed {seed}");
}

#[test]
fn a_stop_is_told_without_a_complaint() {
    let home = Home::new();
    let mut minflow = home.command("run --port 0").stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(minflow.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains(" runs on ") {
        assert_ne!(lines.read_line(&mut said).unwrap(), 0, "{said}");
    }
    signal(minflow.id() as i32, Signal::TERM);
    lines.read_to_string(&mut said).unwrap();
    assert!(said.contains("stopping") && !said.contains("ERROR") && !said.contains("WARN"), "{said}");
    assert_eq!(minflow.wait().unwrap().code(), Some(0));
}
