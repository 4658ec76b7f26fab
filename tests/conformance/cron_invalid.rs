//! Kind `cron_invalid`: which expressions are understood, and as what.

use minflow::timetable::{Cron, FieldValue};
use serde_json::{Map, Value, json};

use crate::harness;
use crate::schedules::compare;

fn check(row: &Value) -> Result<(), String> {
    let text = row["expr"].as_str().unwrap();
    let cron = match (Cron::parse(text), row["accepted"].as_bool().unwrap()) {
        (Ok(cron), true) => cron,
        (Ok(_), false) => return Err(format!("{text:?} is accepted, not refused: {}", row["message"])),
        (Err(fault), true) => return Err(format!("{text:?} is refused: {}", fault.message)),
        (Err(fault), false) => {
            assert!(!fault.message.is_empty() && !fault.help.is_empty(), "{text:?}");
            assert!(text.get(fault.range.clone()).is_some(), "{text:?}: {:?} is no part of it", fault.range);
            return Ok(());
        }
    };
    compare("normalized", &row["normalized"], normalized(&cron))?;
    compare("nth_weekday", &sorted(&row["nth_weekday"]), nth_weekdays(&cron))?;
    let nearest: Vec<u8> = cron.nearest_weekday().into_iter().collect();
    compare("nearest_weekday", &row["nearest_weekday"], json!(nearest))
}

fn normalized(cron: &Cron) -> Value {
    let value = |value: &FieldValue| match value {
        FieldValue::Any => json!("*"),
        FieldValue::Last => json!("l"),
        FieldValue::Number(number) => json!(number),
    };
    cron.normalized().iter().map(|field| field.iter().map(value).collect::<Value>()).collect()
}

fn nth_weekdays(cron: &Cron) -> Value {
    let name = |n: &u8| if *n == 0 { "l".to_owned() } else { n.to_string() };
    let days = cron.nth_weekdays();
    let days: Map<String, Value> =
        days.iter().map(|(day, nth)| (day.to_string(), nth.iter().map(name).collect())).collect();
    sorted(&Value::Object(days))
}

/// The vectors list a set in no order.
fn sorted(days: &Value) -> Value {
    let mut days: Vec<(String, Value)> =
        days.as_object().unwrap().iter().map(|(day, nth)| (day.clone(), nth.clone())).collect();
    days.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (_, nth) in &mut days {
        nth.as_array_mut().unwrap().sort_by_key(|n| n.to_string());
    }
    json!(days)
}

#[test]
fn cron_invalid() {
    harness::conform("cron_invalid", "cron_invalid", &harness::cases("cron_invalid"), check);
}
