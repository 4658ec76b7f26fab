//! Kind `cron_intervals`: the next run of every kind of timetable, and the runs that follow it.

use minflow::model::{Catchup, DataInterval};
use minflow::timetable::Timetable;
use serde_json::{Value, json};

use crate::harness;
use crate::schedules::{compare, instant, interval, shown, timetable};

/// The run as a case writes it, null for none, and its interval.
fn ask(row: &Value, timetable: &Timetable, last: Option<DataInterval>) -> (Value, Option<DataInterval>) {
    let catchup = if row["catchup"].as_bool().unwrap() { Catchup::All } else { Catchup::Latest };
    let (earliest, latest) = (instant(&row["earliest"]), instant(&row["latest"]));
    match timetable.next_run_by_airflow(last, earliest, latest, catchup, instant(&row["now"]).unwrap()) {
        None => (Value::Null, None),
        Some(run) => {
            assert_eq!(run.logical_date, run.data_interval.start);
            let DataInterval { start, end } = run.data_interval;
            (
                json!({"start": shown(start), "end": shown(end), "run_after": shown(run.run_after)}),
                Some(run.data_interval),
            )
        }
    }
}

fn check(row: &Value) -> Result<(), String> {
    let timetable = timetable(row);
    let (run, mut last) = ask(row, &timetable, interval(&row["last"]));
    compare("first", &row["expect"], run)?;
    for (at, expected) in row["chain"].as_array().into_iter().flatten().enumerate() {
        let (run, next) = ask(row, &timetable, last);
        compare(&format!("chain {at}"), expected, run)?;
        last = next;
    }
    Ok(())
}

#[test]
fn cron_intervals() {
    harness::conform("cron_intervals", "cron_intervals", &harness::cases("cron_intervals"), check);
}
