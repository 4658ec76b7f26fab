//! Kind `cron_next`: the matches after and before an instant, and the alignment to them.

use jiff::Timestamp;
use minflow::timetable::Cron;
use serde_json::{Value, json};

use crate::harness;
use crate::schedules::{compare, instant, shown, zone};

fn check(row: &Value) -> Result<(), String> {
    let cron = Cron::parse(row["expr"].as_str().unwrap()).map_err(|fault| fault.message)?;
    let zone = zone(row, "tz");
    let from = instant(&row["from"]).unwrap();
    walk("next", &row["next"], from, |instant| cron.next(instant, &zone))?;
    walk("prev", &row["prev"], from, |instant| cron.prev(instant, &zone))?;
    compare("align_next", &row["align_next"], cron.align_next(from, &zone).map_or(Value::Null, shown))?;
    compare("align_prev", &row["align_prev"], cron.align_prev(from, &zone).map_or(Value::Null, shown))
}

/// A list that ends with an error is one that ends.
fn walk(
    what: &str,
    expected: &Value,
    from: Timestamp,
    step: impl Fn(Timestamp) -> Option<Timestamp>,
) -> Result<(), String> {
    let expected = expected.as_array().unwrap();
    let mut reached = from;
    let mut got = Vec::new();
    for _ in 0..expected.len() {
        let Some(next) = step(reached) else {
            got.push(Value::Null);
            break;
        };
        got.push(shown(next));
        reached = next;
    }
    let expected = expected.iter().map(|value| if value.is_string() { value.clone() } else { Value::Null }).collect();
    compare(what, &Value::Array(expected), json!(got))
}

#[test]
fn cron_next() {
    harness::conform("cron_next", "cron_next", &harness::cases("cron_next"), check);
}
