//! `minflow simulate` and `dags next-execution`: looking ahead, without a database and beside one.

use serde_json::{Value, json};

use crate::harness::{Home, Ran};

const DAYS: &str = "--from 2026-10-24T22:00:00Z --until 2026-10-25T23:00:00Z";

fn home() -> Home {
    let home = Home::new();
    let dag = |zone: &str, expression: &str| {
        format!(
            "schedule = \"{expression}\"\ntimezone = \"{zone}\"\nchain = [\"fetch >> load\"]\n\
             [tasks.fetch]\nbash = \"exit 1\"\n[tasks.load]\nbash = \"exit 1\"\n"
        )
    };
    home.dag("hourly", &dag("Europe/Berlin", "30 * * * *"));
    home.dag("nightly", &dag("Europe/Berlin", "30 2 * * *"));
    home
}

fn simulate(home: &Home, options: &str) -> Ran {
    home.cli(&format!("simulate {options}"))
}

#[test]
fn a_day_of_25_hours_is_reported_in_full_and_the_same_each_time() {
    let home = home();
    let ran = simulate(&home, &format!("{DAYS} --duration 5m -o json"));
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let report = ran.json();
    assert_eq!(report["totals"]["runs"], 26);
    assert_eq!(report["totals"]["succeeded_task_instances"], 52);
    assert_eq!(report["dags"][0]["mean_duration"], 600.0);
    let change = &report["transitions"][0];
    assert_eq!(change["dag_id"], "hourly");
    assert_eq!(change["doubled"]["first_run_after"], "2026-10-25T01:30:00.000000Z");
    assert_eq!(change["shift"], -3_600);
    assert_eq!(simulate(&home, &format!("{DAYS} --duration 5m -o json")).out, ran.out);
}

#[test]
fn what_if_questions_are_answered() {
    let home = home();
    let report = |options: &str| -> Value { simulate(&home, &format!("{DAYS} {options} -o json")).json() };
    let narrow = report("--dag hourly --duration hourly.load=100m --pool default_pool=1");
    let pool = &narrow["limits"][1];
    assert_eq!((&pool["limit"], &pool["size"], &pool["peak"]), (&json!("pool default_pool"), &json!(1), &json!(1)));
    assert!(pool["waits"]["count"].as_u64().unwrap() > 20, "{pool}");
    assert!(narrow["totals"]["overlaps"].as_u64().unwrap() > 20);
    let failing = report("--fail fetch=1 --seed 3");
    assert_eq!(failing["totals"]["failed_runs"], 26);
    assert_eq!(failing["totals"]["unrun_task_instances"], 26);
    let serial = report("--duration 10m --parallelism 1 --dag hourly --dag nightly");
    assert_eq!(serial["limits"][0]["limit"], "parallelism");
    assert!(serial["limits"][0]["waits"]["count"].as_u64().unwrap() > 0);
    let picture = simulate(&home, &format!("{DAYS} -o svg"));
    assert!(picture.out.starts_with("<svg ") && picture.out.ends_with("</svg>\n"));
}

#[test]
fn mistakes_are_answered_with_what_to_write() {
    let home = home();
    let refused = |options: &str, code: i32, said: &str| {
        let ran = simulate(&home, options);
        assert_eq!(ran.code, Some(code), "{options}: {ran:?}");
        assert!(ran.err.contains(said) && ran.err.contains("help: "), "{options}: {}", ran.err);
    };
    refused("--until yesterday", 2, "`yesterday` is neither a date nor a time");
    refused("--from 2026-10-25 --until 2026-10-25", 2, "is not after --from");
    refused("--from 1960-01-01 --until 2026-01-01", 2, "outside the years 1970 to 2099");
    refused("--until 1d --dag hourli", 1, "did you mean `hourly`?");
    refused("--until 1d --duration fetsh=5m", 1, "did you mean `fetch`?");
    refused("--until 1d --duration fetch=soon", 2, "is no time");
    refused("--until 1d --fail 2", 2, "is no probability");
    refused("--until 1d --pool default_pol=3", 1, "did you mean `default_pool`?");
    refused("--until 1d --pool default_pool=many", 2, "does not say how many slots");
    let elsewhere = home.cli("dags list -o svg");
    assert_eq!(elsewhere.code, Some(2));
    assert!(elsewhere.err.contains("only `minflow simulate` draws a picture"));
}

#[test]
fn durations_come_from_history_beside_a_running_minflow_and_nothing_is_written() {
    let home = Home::new();
    home.dag("nap", "schedule = \"0 0 1 1 *\"\n[tasks.nap]\nbash = \"sleep 0.3\"\n");
    let mut minflow = home.start();
    minflow.await_dag("nap");
    assert_eq!(home.run_dag("nap", "first").code, Some(0));
    let ran = simulate(&home, "--from 2027-01-01 --until 2027-01-02 -o json");
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let report = ran.json();
    assert_eq!(report["totals"]["runs"], 1);
    let took = report["dags"][0]["mean_duration"].as_f64().unwrap();
    assert!((0.3..9.0).contains(&took), "{took}");
    assert_eq!(home.runs("nap").len(), 1);
    let next = home.json("dags next-execution nap -n 2");
    let dates: Vec<&Value> = next.as_array().unwrap().iter().map(|run| &run["run_after"]).collect();
    let noted = minflow.await_dag("nap")["next_dagrun_create_after"].clone();
    assert_eq!(dates.len(), 2);
    assert_eq!(*dates[0], noted);
    minflow.stop();
}
