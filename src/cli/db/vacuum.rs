//! `minflow db vacuum`

use serde_json::json;

use crate::cli::output::Output;
use crate::cli::{Globals, Outcome, engine, settings};

pub fn run(globals: &Globals, output: &mut Output) -> Outcome {
    let config = settings::load(globals)?.config;
    let (before, after) = engine::vacuum(&config)?;
    let path = config.database.path.display().to_string();
    let freed = (before.total * before.size).saturating_sub(after.total * after.size);
    let text = format!("`{path}` has given back {freed} bytes, and takes {}", after.total * after.size);
    let record = json!({"path": path, "bytes_before": before.total * before.size, "bytes": after.total * after.size, "freed": freed});
    Ok(output.answer(&text, &record)?)
}
