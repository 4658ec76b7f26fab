//! `minflow db …`

use clap::Subcommand;
use serde_json::json;

use crate::cli::output::Output;
use crate::cli::{Failure, Globals, Outcome, engine, settings};
use crate::store::{Reader, SCHEMA_VERSION};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look at every page of the database, and say whether it is sound
    Check,
    /// Create the database, or bring it to the version of this minflow
    Migrate,
}

pub fn run(globals: &Globals, command: &Command, output: &mut Output) -> Outcome {
    match command {
        Command::Check => check(globals, output),
        Command::Migrate => migrate(globals, output),
    }
}

fn check(globals: &Globals, output: &mut Output) -> Outcome {
    let config = settings::load(globals)?.config;
    let path = config.database.path.display();
    let faults = Reader::open(&config.database.path)?.check()?;
    if faults.is_empty() {
        let text = format!("`{path}` is sound: version {SCHEMA_VERSION}");
        return Ok(
            output.answer(&text, &json!({"path": path.to_string(), "version": SCHEMA_VERSION, "faults": faults}))?
        );
    }
    let help =
        format!("keep a copy of it, then restore a backup, or save what can be saved with `sqlite3 {path} .recover`");
    Err(Failure::refused(format!("`{path}` is damaged: {}", faults.join("; ")), help))
}

fn migrate(globals: &Globals, output: &mut Output) -> Outcome {
    let loaded = settings::load(globals)?;
    engine::migrate(&loaded)?;
    let path = loaded.config.database.path.display().to_string();
    let text = format!("`{path}` has version {SCHEMA_VERSION}");
    Ok(output.answer(&text, &json!({"path": path, "version": SCHEMA_VERSION}))?)
}
