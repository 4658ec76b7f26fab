//! Backfills as a person makes them: ranges, reprocessing, pausing, cancelling, waiting, and SIGKILL in their midst.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{Home, until};

/// Not due while a test lasts, unless at midnight; each run appends its logical date to a ledger.
const DAILY: &str = r#"
schedule = "0 0 * * *"
catchup = false
[tasks.note]
bash = 'echo "{{ ds }}" >> $MINFLOW_HOME/ledger'
"#;

fn create(home: &Home, range: &str, more: &str) -> Value {
    let (from, to) = range.split_once(' ').unwrap();
    home.json(&format!("backfill create --dag-id daily --from-date {from} --to-date {to} {more}"))
}

fn ledger(home: &Home) -> Vec<String> {
    home.read("ledger").lines().map(str::to_owned).collect()
}

fn dates(home: &Home, id: &Value) -> Vec<Value> {
    home.json(&format!("backfill show {id} --dates")).as_array().unwrap().clone()
}

fn stand(home: &Home, id: &Value) -> Value {
    home.json(&format!("backfill show {id}"))
}

/// Each date with a fact of it.
fn facts(dates: &[Value], field: &str) -> Value {
    dates.iter().map(|date| json!([&date["logical_date"].as_str().unwrap()[..10], date[field]])).collect()
}

#[test]
fn a_backfill_runs_every_date_of_its_range_and_its_waiter_says_so() {
    let home = Home::new();
    home.dag("daily", DAILY);
    let minflow = home.start();
    minflow.await_dag("daily");
    let made = create(&home, "2024-02-27 2024-03-02", "--max-active-runs 1");
    assert_eq!(made["dates"], 5);
    let waited = home.cli("backfill wait 1 -o json");
    assert_eq!(waited.code, Some(0), "{waited:?}");
    let shown = waited.json();
    assert_eq!([&shown["state"], &shown["success"], &shown["queued"]], [&json!("success"), &json!(5), &json!(0)]);
    assert_eq!(ledger(&home), ["2024-02-27", "2024-02-28", "2024-02-29", "2024-03-01", "2024-03-02"]);
    let first = &dates(&home, &made["id"])[0];
    assert_eq!(first["run_id"], "backfill__2024-02-27T00:00:00+00:00");
    assert!(home.runs("daily").iter().filter(|run| run["run_type"] == "backfill").count() == 5);
}

#[test]
fn runs_that_exist_are_left_unless_they_are_to_be_done_over_again() {
    let home = Home::new();
    // A date whose mark is there fails.
    home.dag(
        "daily",
        &DAILY.replace("echo", "if [ -e $MINFLOW_HOME/fail-{{ ds }} ]; then exit 1; fi; echo \"$MINFLOW_TRY_NUMBER\" >> $MINFLOW_HOME/tries; echo"),
    );
    home.write("fail-2024-01-02", "");
    let minflow = home.start();
    minflow.await_dag("daily");
    create(&home, "2024-01-01 2024-01-02", "");
    let waited = home.cli("backfill wait 1");
    assert_eq!(waited.code, Some(1), "{waited:?}");
    assert!(waited.err.contains("1 run has failed"), "{waited:?}");
    std::fs::remove_file(home.file("fail-2024-01-02")).unwrap();

    let dry = home.json(
        "backfill create --dag-id daily --from-date 2024-01-01 --to-date 2024-01-03 --reprocess-behavior failed --dry-run",
    );
    let dry = dry.as_array().unwrap();
    assert_eq!(
        facts(dry, "action"),
        json!([["2024-01-01", "skip"], ["2024-01-02", "clear"], ["2024-01-03", "create"]])
    );
    assert_eq!(home.json("backfill list").as_array().unwrap().len(), 1, "a dry run changes nothing");

    let made = create(&home, "2024-01-01 2024-01-03", "--reprocess-behavior failed --dag-run-conf {\"k\":1}");
    assert_eq!(home.cli("backfill wait 2").code, Some(0));
    let dates = dates(&home, &made["id"]);
    assert_eq!(
        facts(&dates, "exception_reason"),
        json!([["2024-01-01", "already exists"], ["2024-01-02", null], ["2024-01-03", null]])
    );
    let run_id = dates[1]["run_id"].as_str().unwrap();
    let task = home.task("daily", run_id, "note");
    assert_eq!([&task["state"], &task["try_number"]], [&json!("success"), &json!(2)]);
    let run = home.runs("daily").into_iter().find(|run| run["run_id"] == run_id).unwrap();
    assert_eq!(run["conf"], json!({ "k": 1 }));
    assert!(home.log("daily", run_id, "note", 1).contains("exit"), "the first try's log is kept");
}

#[test]
fn a_backfill_runs_backwards_and_within_its_own_limit() {
    let home = Home::new();
    home.dag("daily", &format!("max_active_runs = 1\n{DAILY}"));
    let minflow = home.start();
    minflow.await_dag("daily");
    create(&home, "2024-01-01 2024-01-04", "--run-backwards --max-active-runs 1");
    assert_eq!(home.cli("backfill wait 1").code, Some(0));
    assert_eq!(ledger(&home), ["2024-01-04", "2024-01-03", "2024-01-02", "2024-01-01"]);
}

#[test]
fn a_paused_backfill_starts_no_run_and_a_cancelled_one_fails_what_is_queued() {
    let home = Home::new();
    home.dag("daily", &DAILY.replace("echo", "until [ -e $MINFLOW_HOME/go ]; do sleep 0.02; done; echo"));
    let minflow = home.start();
    minflow.await_dag("daily");
    let id = create(&home, "2024-01-01 2024-01-05", "--max-active-runs 1")["id"].clone();
    until("the first run", || (stand(&home, &id)["running"] == 1).then_some(()));
    assert_eq!(home.json("backfill pause 1")["state"], "paused");
    home.write("go", "");
    until("its end", || (stand(&home, &id)["success"] == 1).then_some(()));
    std::fs::remove_file(home.file("go")).unwrap();
    let paused = stand(&home, &id);
    assert_eq!([&paused["running"], &paused["queued"]], [&json!(0), &json!(4)]);
    home.json("backfill unpause 1");
    until("the second run", || (stand(&home, &id)["running"] == 1).then_some(()));
    let again = home.cli("backfill create --dag-id daily --from-date 2024-02-01 --to-date 2024-02-02");
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("backfill 1 of `daily` is not completed"), "{again:?}");

    let cancelled = home.json("backfill cancel 1");
    assert_eq!([&cancelled["state"], &cancelled["failed"]], [&json!("cancelled"), &json!(3)]);
    assert_eq!(cancelled["running"], 1, "what runs goes on");
    assert_eq!(home.cli("backfill wait 1").code, Some(1));
    assert_eq!(home.cli("backfill cancel 1").code, Some(1));
    home.write("go", "");
    until("the end of what runs", || (stand(&home, &id)["success"] == 2).then_some(()));
    assert_eq!(home.cli("db check").code, Some(0));
}

#[test]
fn without_a_running_minflow_a_backfill_is_made_and_runs_at_the_next_start() {
    let home = Home::new();
    home.dag("daily", DAILY);
    let made = home.cli("backfill create --dag-id daily --from-date 2024-01-01 --to-date 2024-01-03 -o json");
    assert_eq!(made.err, "3 runs are queued; no minflow is running: `minflow run` starts them\n");
    let made = made.json();
    assert_eq!([&made["queued"], &made["state"]], [&json!(3), &json!("running")]);
    assert_eq!(home.cli("backfill wait 1").code, Some(4), "nobody runs it");
    let minflow = home.start();
    minflow.await_dag("daily");
    assert_eq!(home.cli("backfill wait 1").code, Some(0));
    let mut ran = ledger(&home);
    ran.sort();
    assert_eq!(ran, ["2024-01-01", "2024-01-02", "2024-01-03"]);
}

#[test]
fn what_cannot_be_filled_up_is_refused_with_a_remedy() {
    let home = Home::new();
    home.dag("daily", DAILY);
    home.dag("manual", "[tasks.a]\nempty = true\n");
    home.dag("chained", "schedule = \"@daily\"\n[tasks.a]\nempty = true\ndepends_on_past = true\n");
    for (words, code, said) in [
        ("--dag-id dayly --from-date 2024-01-01 --to-date 2024-01-02", 1, "did you mean `daily`?"),
        ("--dag-id manual --from-date 2024-01-01 --to-date 2024-01-02", 1, "dags trigger --logical-date"),
        ("--dag-id daily --from-date 2024-01-02 --to-date 2024-01-01", 1, "--from-date is the earlier one"),
        ("--dag-id daily --from-date 2090-01-01 --to-date 2090-01-02", 1, "past"),
        ("--dag-id daily --from-date 2024-01-01T01:00 --to-date 2024-01-01T02:00", 1, "`0 0 * * *`".trim_matches('`')),
        ("--dag-id daily --from-date soon --to-date 2024-01-02", 2, "write one as"),
        ("--dag-id daily --from-date 2024-01-01 --to-date 2024-01-02 --dag-run-conf [1]", 2, "write an object"),
        ("--dag-id daily --from-date 2024-01-01 --to-date 2024-01-02 --max-active-runs 0", 2, "--max-active-runs"),
        ("--dag-id chained --from-date 2024-01-01 --to-date 2024-01-02", 1, "--reprocess-behavior"),
        (
            "--dag-id chained --from-date 2024-01-01 --to-date 2024-01-02 --run-backwards --reprocess-behavior failed",
            1,
            "--run-backwards",
        ),
    ] {
        for dry in ["", " --dry-run"] {
            let ran = home.cli(&format!("backfill create {words}{dry}"));
            assert_eq!(ran.code, Some(code), "{words}{dry}: {ran:?}");
            assert!(ran.err.contains(said), "{words}{dry}: {ran:?}");
        }
    }
    for words in ["show 7", "pause 7", "unpause 7", "cancel 7", "wait 7"] {
        let ran = home.cli(&format!("backfill {words}"));
        assert_eq!(ran.code, Some(1), "{words}: {ran:?}");
        assert!(ran.err.contains("minflow backfill list"), "{words}: {ran:?}");
    }
}

#[test]
fn dates_without_an_offset_are_in_the_zone_of_the_dag() {
    let home = Home::new();
    home.dag("daily", &format!("timezone = \"Asia/Tokyo\"\n{DAILY}"));
    let dry = home.json("backfill create --dag-id daily --from-date 2024-01-01 --to-date 2024-01-02 --dry-run");
    let found: Vec<&str> = dry.as_array().unwrap().iter().map(|date| date["logical_date"].as_str().unwrap()).collect();
    assert_eq!(found, ["2023-12-31T15:00:00.000000Z", "2024-01-01T15:00:00.000000Z"]);
}

/// The pid of a command that waits, so that the test can await its end.
fn waiter(home: &Home) -> std::process::Child {
    home.command("backfill wait 1 -o json")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_backfill_of_a_hundred_dates_survives_ten_kills_and_ends_with_a_hundred_runs_in_order() {
    let home = Home::new();
    home.dag("daily", &DAILY.replace("[tasks.note]", "[tasks.note]\nretries = 20\nretry_delay = 0\ngrace = 1"));
    let mut minflow = home.start();
    minflow.await_dag("daily");
    let asked = home
        .command("backfill create --dag-id daily --from-date 2024-01-01 --to-date 2024-04-09 --max-active-runs 1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut asked = asked.unwrap();
    let exists = || home.cli("backfill list -o json").out.contains("\"id\": 1");
    until("the backfill", || exists().then_some(()));
    // The first kill may come before its runs are made, the others while they run.
    minflow.kill();
    asked.wait().unwrap();
    minflow = home.start();
    let mut waiting = waiter(&home);
    for round in 1..10 {
        let goal = round * 9;
        until(&format!("{goal} dates"), || (ledger(&home).len() >= goal).then_some(()));
        minflow.kill();
        minflow = home.start();
    }
    assert_eq!(until("the waiter's end", || waiting.try_wait().unwrap()).code(), Some(0));
    drop(minflow);
    expect_a_hundred_in_order(&home);
}

fn expect_a_hundred_in_order(home: &Home) {
    let shown = stand(home, &json!(1));
    assert_eq!([&shown["dates"], &shown["success"], &shown["skipped"]], [&json!(100), &json!(100), &json!(0)]);
    let mut runs = home.runs("daily");
    runs.retain(|run| run["run_type"] == "backfill");
    assert_eq!(runs.len(), 100);
    runs.sort_by(|a, b| a["start_date"].as_str().cmp(&b["start_date"].as_str()));
    let started: Vec<&str> = runs.iter().map(|run| run["logical_date"].as_str().unwrap()).collect();
    assert!(started.is_sorted(), "{started:?}");
    // A try that was killed after it wrote may have been done again, next to itself.
    let mut ran = ledger(home);
    assert!(ran.is_sorted(), "{ran:?}");
    ran.dedup();
    assert_eq!(ran.len(), 100);
    assert_eq!((&*ran[0], &*ran[99]), ("2024-01-01", "2024-04-09"));
    assert_eq!(home.cli("db check").code, Some(0));
    assert!(Path::new(&home.file("minflow.db")).exists());
}
