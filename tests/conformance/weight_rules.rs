//! Kind `weight_rules`: the effective priority weight of each task of a DAG.

use minflow::scheduler::weight::effective;
use serde_json::{Map, Value};

use crate::dags::Tasks;
use crate::harness;

fn check(row: &Value) -> Result<(), String> {
    let tasks = Tasks::of(row);
    let weights = effective(&tasks.graph);
    let got: Map<String, Value> = tasks.ids.iter().cloned().zip(weights.into_iter().map(Value::from)).collect();
    let expected = &row["expect"];
    if Some(&got) == expected.as_object() {
        Ok(())
    } else {
        Err(format!("expected {expected}, got {}", Value::from(got)))
    }
}

#[test]
fn weight_rules() {
    harness::conform("weight_rules", "weight_rules", &harness::cases("weight_rules"), check);
}
