//! Kind `retry_delay`: how long after a failed try the next one may start.

use std::time::Duration;

use minflow::scheduler::retry::{Backoff, FailedTry, delay};
use serde_json::Value;

use crate::harness;

fn seconds(value: &Value) -> Option<Duration> {
    value.as_f64().map(Duration::from_secs_f64)
}

fn check(row: &Value) -> Result<(), String> {
    let backoff = Backoff {
        retry_delay: seconds(&row["retry_delay"]).unwrap(),
        // As the file's key is read: `true` is 2.
        multiplier: match &row["retry_exponential_backoff"] {
            Value::Bool(true) => 2.0,
            Value::Bool(false) | Value::Null => 0.0,
            number => number.as_f64().unwrap(),
        },
        max_retry_delay: seconds(&row["max_retry_delay"]),
    };
    let failed = FailedTry {
        dag_id: row["dag_id"].as_str().unwrap(),
        task_id: row["task_id"].as_str().unwrap(),
        logical_date: row["logical_date"].as_str().map(|date| date.parse().unwrap()),
        try_number: u32::try_from(row["try_number"].as_u64().unwrap()).unwrap(),
    };
    let got = delay(backoff, failed, seconds(&row["retry_delay_override"]));
    let expected = seconds(&row["expect"]["delay_seconds"]).unwrap();
    if got == expected { Ok(()) } else { Err(format!("expected {expected:?}, got {got:?}")) }
}

#[test]
fn retry_delay() {
    harness::conform("retry_delay", "retry_delay", &harness::cases("retry_delay"), check);
}
