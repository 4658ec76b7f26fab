//! Kind `params`: which values a param takes.

use minflow::params;
use serde_json::Value;

use crate::harness;

fn check(row: &Value) -> Result<(), String> {
    let value = (row["no_value"] != true).then(|| &row["value"]);
    params::check_schema(&row["schema"]).map_err(|unsound| unsound.message)?;
    match (params::resolve(&row["schema"], value), row["expect_valid"].as_bool().unwrap()) {
        (Ok(()), true) | (Err(_), false) => Ok(()),
        (Ok(()), false) => Err("it is taken, not refused".to_owned()),
        (Err(mismatch), true) => Err(format!("it is refused: {mismatch:?}")),
    }
}

#[test]
fn params() {
    harness::conform("params", "params", &harness::cases("params"), check);
}
