//! Clears, marks and notes as a person makes them: on what runs, on what is over, with and without a running minflow.

use serde_json::{Value, json};

use crate::harness::{Home, Minflow, is_alive, until};

/// Each task appends its name to a ledger.
const CHAIN: &str = r#"
[tasks.load]
bash = 'echo load >> $MINFLOW_HOME/ledger'
[tasks.sum]
depends_on = ["load"]
bash = 'echo sum >> $MINFLOW_HOME/ledger; test ! -e $MINFLOW_HOME/bad'
[tasks.report]
depends_on = ["sum"]
bash = 'echo report >> $MINFLOW_HOME/ledger'
"#;

/// Its first try waits until it is ended; later ones end by themselves.
const SLOW: &str = r#"
[tasks.slow]
bash = '''
if [ "$MINFLOW_TRY_NUMBER" = 1 ]; then echo $$ > $MINFLOW_HOME/pid; exec sleep 600; fi
'''
"#;

/// A minflow that has seen the DAGs.
fn start(home: &Home, dag_ids: &[&str]) -> Minflow {
    let minflow = home.start();
    for dag_id in dag_ids {
        minflow.await_dag(dag_id);
    }
    minflow
}

/// Triggers the run, and gives the process of its first try.
fn start_slow(home: &Home) -> i32 {
    home.trigger("slow", "one");
    until("the first try", || (home.task("slow", "one", "slow")["state"] == "running").then_some(()));
    until("its number", || home.read("pid").trim().parse().ok())
}

fn ledger(home: &Home) -> Vec<String> {
    home.read("ledger").lines().map(str::to_owned).collect()
}

fn states(home: &Home, dag_id: &str, run_id: &str) -> Value {
    home.tasks(dag_id, run_id).iter().map(|task| task["state"].clone()).collect()
}

fn tasks_of(listed: &Value) -> Vec<&str> {
    listed.as_array().unwrap().iter().map(|touched| touched["task_id"].as_str().unwrap()).collect()
}

#[test]
fn a_clear_with_what_runs_after_it_does_over_again_what_its_dry_run_lists() {
    let home = Home::new();
    home.dag("chain", CHAIN);
    let _minflow = start(&home, &["chain"]);
    assert_eq!(home.run_dag("chain", "one").code, Some(0));
    let listed = home.json("tasks clear chain sum --downstream --run-id one --dry-run");
    assert_eq!(tasks_of(&listed), ["sum", "report"]);
    assert_eq!(
        listed[0],
        json!({ "dag_id": "chain", "run_id": "one", "task_id": "sum", "map_index": -1, "state": "success" })
    );
    assert_eq!(home.run_state("chain", "one"), "success");
    let cleared = home.json("tasks clear chain sum --downstream --run-id one --yes");
    assert_eq!(cleared, listed);
    assert_eq!(home.await_run("chain", "one"), "success");
    assert_eq!(ledger(&home), ["load", "sum", "report", "sum", "report"]);
    let sum = home.task("chain", "one", "sum");
    assert_eq!((&sum["try_number"], &sum["max_tries"]), (&json!(2), &json!(1)));
    assert!(home.log("chain", "one", "sum", 1) != home.log("chain", "one", "sum", 2));
}

#[test]
fn a_running_task_that_is_cleared_is_ended_and_runs_again() {
    let home = Home::new();
    home.dag("slow", SLOW);
    let _minflow = start(&home, &["slow"]);
    let pid = start_slow(&home);
    assert_eq!(tasks_of(&home.json("tasks clear slow slow --only-running --yes")), ["slow"]);
    assert_eq!(home.await_run("slow", "one"), "success");
    assert!(!is_alive(pid));
    let slow = home.task("slow", "one", "slow");
    assert_eq!((&slow["state"], &slow["try_number"]), (&json!("success"), &json!(2)));
}

#[test]
fn a_mark_lets_what_failed_after_it_run_and_ends_what_runs() {
    let home = Home::new();
    home.dag("chain", CHAIN);
    home.dag("slow", SLOW);
    home.write("bad", "");
    let _minflow = start(&home, &["chain", "slow"]);
    assert_eq!(home.run_dag("chain", "one").code, Some(1));
    assert_eq!(states(&home, "chain", "one"), json!(["success", "failed", "upstream_failed"]));
    let marked = home.json("tasks set-state chain one sum success");
    assert_eq!(tasks_of(&marked), ["sum"]);
    assert_eq!(home.await_run("chain", "one"), "success");
    assert_eq!(ledger(&home), ["load", "sum", "report"]);
    assert_eq!(home.task("chain", "one", "sum")["reason"], "set_by_user");
    let pid = start_slow(&home);
    assert_eq!(
        home.cli("dags set-state slow one failed").texts(),
        (Some(0), "failed\n", "the run was running; 1 task instance in 1 run\n")
    );
    until("the end of the process", || (!is_alive(pid)).then_some(()));
    assert_eq!(home.task("slow", "one", "slow")["state"], "failed");
    let queued = home.cli("dags set-state slow one queued");
    assert_eq!(queued.code, Some(0), "{queued:?}");
    assert_eq!(home.await_run("slow", "one"), "success");
}

#[test]
fn clears_marks_and_notes_need_no_running_minflow() {
    let home = Home::new();
    home.dag("chain", CHAIN);
    home.write("bad", "");
    let mut minflow = start(&home, &["chain"]);
    assert_eq!(home.run_dag("chain", "one").code, Some(1));
    minflow.stop();
    assert_eq!(home.cli("tasks note chain one sum",).texts(), (Some(0), "\n", ""));
    assert_eq!(home.cli("tasks note chain one sum seen").texts(), (Some(0), "seen\n", ""));
    assert_eq!(home.cli("dags note chain one ours").texts(), (Some(0), "ours\n", ""));
    assert_eq!(home.task("chain", "one", "sum")["note"], "seen");
    assert_eq!(home.task("chain", "one", "load")["note"], Value::Null);
    assert_eq!(home.runs("chain")[0]["note"], "ours");
    let cleared = home.json("dags clear chain --only-failed --yes");
    assert_eq!(tasks_of(&cleared), ["sum", "report"]);
    assert_eq!(home.run_state("chain", "one"), "queued");
    std::fs::remove_file(home.file("bad")).unwrap();
    let _minflow = start(&home, &["chain"]);
    assert_eq!(home.await_run("chain", "one"), "success");
    assert_eq!(home.task("chain", "one", "sum")["note"], "seen");
    assert_eq!(home.cli("dags note chain one --remove").texts(), (Some(0), "\n", ""));
    assert_eq!(home.runs("chain")[0]["note"], Value::Null);
}

#[test]
fn what_cannot_be_cleared_or_marked_says_why_and_what_to_do() {
    let home = Home::new();
    home.dag("chain", CHAIN);
    let _minflow = start(&home, &["chain"]);
    assert_eq!(home.run_dag("chain", "one").code, Some(0));
    for (words, code, message) in [
        ("tasks clear chian sum --yes", 1, "did you mean `chain`?"),
        ("tasks clear chain smu --yes", 1, "`chain` has no task `smu`\nhelp: did you mean `sum`?"),
        ("tasks clear chain --task-regex ^x --yes", 1, "no task of `chain` matches `^x`"),
        ("tasks clear chain --task-regex ( --yes", 1, "`(` is no pattern"),
        ("tasks clear chain sum --run-id two --yes", 1, "unknown run of `chain`: `two`"),
        ("tasks clear chain sum --map-index 4 --yes", 1, "`sum` has no instance of map index 4"),
        ("tasks clear chain sum --start-date 2031-01-01 --yes", 1, "`chain` has no run from 2031-01-01T00:00:00+00:00"),
        ("tasks clear chain sum --start-date soon --yes", 2, "`soon` is no date"),
        ("tasks clear chain sum --past --yes", 2, "--past and --future count from a run"),
        ("tasks clear chain sum", 2, "--yes clears without a question"),
        ("tasks set-state chain one smu success", 1, "did you mean `sum`?"),
        ("tasks set-state chain one sum running", 2, "[possible values: success, failed, skipped]"),
        ("dags set-state chain two failed", 1, "unknown run of `chain`: `two`"),
        ("tasks note chain one smu x", 1, "unknown task_id `smu`"),
    ] {
        let ran = home.cli(words);
        let (found, out, said) = ran.texts();
        assert_eq!((found, out), (Some(code), ""), "{words}: {said}");
        assert!(said.contains(message), "{words}: {said}");
    }
    let nothing = home.cli("tasks clear chain --only-failed --yes -o json");
    assert_eq!(nothing.texts(), (Some(0), "[]\n", "nothing to clear\n"));
    assert_eq!(home.cli("tasks set-state chain one sum success -o json").texts().1, "[]\n");
    assert_eq!(states(&home, "chain", "one"), json!(["success", "success", "success"]));
    assert_eq!(ledger(&home), ["load", "sum", "report"]);
}
