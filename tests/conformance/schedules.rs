//! From the rows of the kinds about time to schedules, instants and what to compare.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use minflow::model::{Crons, DataInterval, Every, Intervals, Period, RunImmediately, Schedule};
use minflow::timetable::Timetable;
use serde_json::{Value, json};

pub fn zone(row: &Value, field: &str) -> TimeZone {
    TimeZone::get(row[field].as_str().unwrap()).unwrap()
}

/// Null if the field is null or absent.
pub fn instant(value: &Value) -> Option<Timestamp> {
    value.as_str().map(|text| text.parse().unwrap())
}

pub fn interval(value: &Value) -> Option<DataInterval> {
    Some(DataInterval { start: instant(&value["start"])?, end: instant(&value["end"])? })
}

/// As the vectors write an instant: with microseconds, unless there are none.
pub fn shown(instant: Timestamp) -> Value {
    json!(if instant.subsec_nanosecond() == 0 { instant.to_string() } else { format!("{instant:.6}") })
}

/// What a row calls its timetable.
pub fn timetable(row: &Value) -> Timetable {
    Timetable::new(&schedule(row), &zone(row, "timezone")).unwrap().with_run_immediately(run_immediately(row))
}

fn schedule(row: &Value) -> Schedule {
    let trigger = || Intervals::Trigger(seconds(&row["interval_seconds"]));
    let crons = |expressions: Vec<String>, intervals| Schedule::Cron(Crons { expressions, timezone: None, intervals });
    let every = |intervals| Schedule::Every(Every { period: period(row), intervals });
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    match row["kind"].as_str().unwrap() {
        "cron_interval" => crons(vec![text(&row["expr"])], Intervals::Data),
        "cron_trigger" => crons(vec![text(&row["expr"])], trigger()),
        "multi_cron_trigger" => crons(row["exprs"].as_array().unwrap().iter().map(text).collect(), trigger()),
        "delta_interval" => every(Intervals::Data),
        "delta_trigger" => every(trigger()),
        "once" => Schedule::Once,
        "continuous" => Schedule::Continuous,
        "events" => {
            let mut events: Vec<Timestamp> = row["events"].as_array().unwrap().iter().filter_map(instant).collect();
            events.sort();
            events.dedup();
            Schedule::Events(events)
        }
        "none" => Schedule::Never,
        other => panic!("no timetable is called {other}"),
    }
}

fn seconds(value: &Value) -> Duration {
    Duration::from_secs_f64(value.as_f64().unwrap_or(0.0))
}

/// `seconds`, or the parts of a relativedelta, which all units below a month count as seconds.
fn period(row: &Value) -> Period {
    let Some(parts) = row["relativedelta"].as_object() else {
        return Period::Fixed(seconds(&row["seconds"]));
    };
    let (mut months, mut rest) = (0, 0);
    for (unit, count) in parts {
        let count = count.as_u64().unwrap();
        match unit.as_str() {
            "years" => months += 12 * count,
            "months" => months += count,
            "weeks" => rest += 7 * 86_400 * count,
            "days" => rest += 86_400 * count,
            "hours" => rest += 3_600 * count,
            "minutes" => rest += 60 * count,
            "seconds" => rest += count,
            other => panic!("a relativedelta has no {other}"),
        }
    }
    let rest = Duration::from_secs(rest);
    if months == 0 { Period::Fixed(rest) } else { Period::Calendar { months: months.try_into().unwrap(), rest } }
}

fn run_immediately(row: &Value) -> RunImmediately {
    match &row["run_immediately"] {
        Value::Bool(true) => RunImmediately::Yes,
        Value::Object(delta) => RunImmediately::Within(seconds(&delta["seconds"])),
        _ => RunImmediately::No,
    }
}

/// Whether the case's answer is `got`, where every error of Airflow's is no answer.
pub fn compare(what: &str, expected: &Value, got: Value) -> Result<(), String> {
    let expected = if expected["error"].is_string() { &Value::Null } else { expected };
    if *expected == got { Ok(()) } else { Err(format!("{what}: expected {expected}, got {got}")) }
}
