//! `minflow version`

use serde_json::json;

use crate::cli::Outcome;
use crate::cli::output::Output;

pub fn run(output: &mut Output) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    Ok(output.answer(version, &json!({ "version": version }))?)
}
