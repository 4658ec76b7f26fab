//! Limits are never exceeded, not even for an instant: each task writes down when it was there, and the overlaps are counted.

use std::collections::BTreeMap;
use std::fs;

use crate::harness::{Home, until};

/// A task that writes `RUN/TASK FROM TO` by the uptime clock, which all processes share.
const SPAN: &str = r#"read from rest < /proc/uptime; sleep 0.05; read to rest < /proc/uptime; echo "$MINFLOW_RUN_ID $MINFLOW_TASK_ID $from $to" >> $MINFLOW_HOME/spans"#;

struct Span {
    run: String,
    task: String,
    /// Hundredths of a second.
    from: u64,
    to: u64,
}

fn spans(home: &Home) -> Vec<Span> {
    let hundredths = |text: &str| text.replace('.', "").parse().unwrap();
    let text = fs::read_to_string(home.file("spans")).unwrap();
    let span = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [run, task, from, to] = words[..] else { panic!("{line}") };
        Span { run: run.to_owned(), task: task.to_owned(), from: hundredths(from), to: hundredths(to) }
    };
    text.lines().map(span).collect()
}

/// How many of `spans` were there at once, at most; those that only touch are not counted, as the clock is coarse.
fn overlap<'a>(spans: impl Iterator<Item = &'a Span>, weight: impl Fn(&Span) -> i64) -> i64 {
    let mut changes: BTreeMap<(u64, bool), i64> = BTreeMap::new();
    for span in spans {
        *changes.entry((span.from, true)).or_default() += weight(span);
        *changes.entry((span.to, false)).or_default() -= weight(span);
    }
    let mut now = 0;
    changes
        .values()
        .map(|change| {
            now += change;
            now
        })
        .max()
        .unwrap_or_default()
}

#[test]
fn parallelism_pools_and_max_active_tasks_hold_at_every_instant() {
    let home = Home::new();
    home.write("airflow.toml", "[core]\nparallelism = 5\nmax_active_runs_per_dag = 2\n[pools]\nnarrow = 3\n");
    let mut wide = String::new();
    for number in 0..12 {
        wide.push_str(&format!("[tasks.w{number}]\nbash = '{SPAN}'\n"));
    }
    let mut pooled = String::from("max_active_tasks = 2\n");
    for number in 0..8 {
        let slots = if number % 2 == 0 { 2 } else { 1 };
        pooled.push_str(&format!("[tasks.p{number}]\nbash = '{SPAN}'\npool = \"narrow\"\npool_slots = {slots}\nretries = 1\nretry_delay = 0\n"));
    }
    home.dag("wide", &wide);
    home.dag("pooled", &pooled);
    let minflow = home.start();
    minflow.await_dag("wide");
    minflow.await_dag("pooled");
    for run in ["r0", "r1", "r2"] {
        home.trigger("wide", &format!("w-{run}"));
        home.trigger("pooled", &format!("p-{run}"));
    }
    for run in ["r0", "r1", "r2"] {
        assert_eq!(home.await_run("wide", &format!("w-{run}")), "success");
        assert_eq!(home.await_run("pooled", &format!("p-{run}")), "success");
    }
    let spans = spans(&home);
    assert_eq!(spans.len(), 60);
    let all = overlap(spans.iter(), |_| 1);
    assert!((2..=5).contains(&all), "{all} tasks at once");
    let pool = |span: &Span| match span.task.strip_prefix('p').map(|number| number.parse::<u32>().unwrap() % 2) {
        Some(0) => 2,
        Some(_) => 1,
        None => 0,
    };
    let slots = overlap(spans.iter(), pool);
    assert!((2..=3).contains(&slots), "{slots} slots of the pool at once");
    for run in ["p-r0", "p-r1", "p-r2"] {
        let tasks = overlap(spans.iter().filter(|span| span.run == run), |_| 1);
        assert!((1..=2).contains(&tasks), "{tasks} tasks of {run} at once");
    }
    let mut runs: BTreeMap<&str, Span> = BTreeMap::new();
    for span in spans.iter().filter(|span| span.run.starts_with("w-")) {
        let whole = Span { run: String::new(), task: String::new(), from: span.from, to: span.to };
        let whole = runs.entry(&span.run).or_insert(whole);
        (whole.from, whole.to) = (whole.from.min(span.from), whole.to.max(span.to));
    }
    assert!(overlap(runs.values(), |_| 1) <= 2, "more than max_active_runs runs at once");

    let status = until("free slots", || Some(minflow.status()).filter(|status| status["tasks"]["running"] == 0));
    for pool in status["pools"].as_array().unwrap() {
        assert_eq!(
            (&pool["open"], pool["running"].as_u64(), pool["queued"].as_u64()),
            (&pool["slots"], Some(0), Some(0)),
            "a slot leaked"
        );
    }
}

#[test]
fn slots_come_back_from_tries_that_fail_time_out_or_are_lost() {
    let home = Home::new();
    home.write("airflow.toml", "[core]\nparallelism = 2\n[pools]\none = 1\n");
    home.dag(
        "rough",
        r#"
        default_args = { pool = "one", retries = 1, retry_delay = 0, grace = "1s" }
        [tasks.fails]
        bash = "exit 1"
        [tasks.times_out]
        bash = "sleep 600"
        execution_timeout = 1
        retries = 0
        [tasks.killed]
        bash = "kill -KILL $$"
        [tasks.template]
        bash = "{{ undefined_name }}"
        [tasks.no_interpreter]
        python = { file = "none.py", interpreter = "no-such-python" }
        [tasks.no_script]
        bash = { file = "no-such-script.sh" }
        [tasks.last]
        bash = "true"
        trigger_rule = "all_done"
        depends_on = ["fails", "times_out", "killed", "template", "no_interpreter", "no_script"]
        "#,
    );
    let minflow = home.start();
    minflow.await_dag("rough");
    assert_eq!(home.run_dag("rough", "r").texts(), (Some(0), "success\n", "r\n"));
    let reason = |task: &str| home.task("rough", "r", task)["reason"].as_str().unwrap_or_default().to_owned();
    assert_eq!(reason("times_out"), "timed_out");
    assert!(reason("no_interpreter").contains("no-such-python"), "{}", reason("no_interpreter"));
    assert!(reason("no_script").contains("no-such-script.sh"), "{}", reason("no_script"));
    let status = minflow.status();
    let pool = status["pools"].as_array().unwrap().iter().find(|pool| pool["name"] == "one").unwrap().clone();
    assert_eq!(pool["open"], 1, "{pool}");
    assert_eq!(status["tasks"]["running"], 0);
}

/// With what is reserved for each there is room for ten at once; without it as many run together as there are.
#[test]
fn what_tasks_need_is_reserved_so_that_they_do_not_knock_the_host_over() {
    let home = Home::new();
    home.write(
        "airflow.toml",
        "[core]\nparallelism = 40\nmax_active_tasks_per_dag = 40\n[admission]\nmemory = \"2GB\"\n",
    );
    let fat = |number| format!("[tasks.t{number}]\nbash = '{SPAN}'\nneeds = {{ memory = \"200MB\" }}\n");
    home.dag("fat", &(0..40).map(fat).collect::<String>());
    // Each of these waits for all the others.
    let together = "mkdir -p $MINFLOW_HOME/here; touch $MINFLOW_HOME/here/$MINFLOW_TASK_ID; \
        until [ $(ls $MINFLOW_HOME/here | wc -l) -eq 11 ]; do sleep 0.02; done";
    home.dag("thin", &(0..11).map(|number| format!("[tasks.t{number}]\nbash = '{together}'\n")).collect::<String>());
    let _minflow = home.start();
    assert_eq!(home.run_dag("fat", "r").code, Some(0));
    let spans = spans(&home);
    assert_eq!(spans.len(), 40);
    let most = overlap(spans.iter(), |_| 1);
    assert!(most <= 10, "{most} at once");
    assert_eq!(home.run_dag("thin", "r").code, Some(0));
}
