//! Kind `manual_intervals`: the data interval of a run that somebody starts by hand.

use serde_json::{Value, json};

use crate::harness;
use crate::schedules::{compare, instant, shown, timetable};

fn check(row: &Value) -> Result<(), String> {
    let interval = timetable(row).infer_manual(instant(&row["run_after"]).unwrap());
    let got =
        interval.map_or(Value::Null, |interval| json!({"start": shown(interval.start), "end": shown(interval.end)}));
    compare("interval", &row["expect"], got)
}

#[test]
fn manual_intervals() {
    harness::conform("manual_intervals", "manual_intervals", &harness::cases("manual_intervals"), check);
}
