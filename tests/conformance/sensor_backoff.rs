//! Kind `sensor_backoff`: how long after a look in vain a sensor looks again.

use minflow::model::SensorMode;
use minflow::scheduler::sensor::Beat;
use serde_json::Value;

use crate::harness;

fn check(row: &Value) -> Result<(), String> {
    let text = |name: &str| row[name].as_str().unwrap();
    let number = |name: &str| row[name].as_f64().unwrap();
    let beat = Beat {
        dag_id: text("dag_id"),
        task_id: text("task_id"),
        started_at: text("started_at"),
        mode: if text("mode") == "poke" { SensorMode::Poke } else { SensorMode::Reschedule },
        poke_interval: number("poke_interval"),
        is_exponential: row["exponential_backoff"].as_bool().unwrap(),
        max_wait: row["max_wait"].as_f64(),
        timeout: number("timeout"),
    };
    let poke_count = u32::try_from(row["poke_count"].as_u64().unwrap()).unwrap();
    let (got, expected) = (beat.next_interval(number("elapsed"), poke_count), number("expect_interval"));
    if got == expected { Ok(()) } else { Err(format!("expected {expected}, got {got}")) }
}

#[test]
fn sensor_backoff() {
    harness::conform("sensor_backoff", "sensor_backoff", &harness::cases("sensor_backoff"), check);
}
