//! `minflow db …`

mod backup;
mod clean;
mod draft;
mod export;
mod restore;
mod vacuum;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::output::Output;
use crate::cli::{Failure, Globals, Outcome, engine, settings};
use crate::store::{Copied, Reader, SCHEMA_VERSION};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look at every page and row of the database, and say whether it is sound
    Check,
    /// Create the database, or bring it to the version of this minflow
    Migrate,
    /// Say how to go back to an earlier version
    #[command(hide = true)]
    Downgrade(Ignored),
    /// Copy the database to a file, while minflow runs
    Backup(backup::Arguments),
    /// Put a backup in the place of the database
    Restore(restore::Arguments),
    /// Have the database's file give back what it does not use
    Vacuum,
    /// Have old runs go, with their logs and files, after their rows were archived
    Clean(clean::Arguments),
    /// Write tables as CSV or as JSON lines
    Export(export::Arguments),
}

/// Airflow's options, which are all refused alike.
#[derive(Debug, clap::Args)]
pub struct Ignored {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    words: Vec<String>,
}

pub fn run(globals: &Globals, command: &Command, output: &mut Output) -> Outcome {
    match command {
        Command::Check => check(globals, output),
        Command::Migrate => migrate(globals, output),
        Command::Downgrade(_) => downgrade(globals),
        Command::Backup(arguments) => backup::run(globals, arguments, output),
        Command::Restore(arguments) => restore::run(globals, arguments, output),
        Command::Vacuum => vacuum::run(globals, output),
        Command::Clean(arguments) => clean::run(globals, arguments, output),
        Command::Export(arguments) => export::run(globals, arguments, output),
    }
}

fn check(globals: &Globals, output: &mut Output) -> Outcome {
    let config = settings::load(globals)?.config;
    let path = config.database.path.display();
    let reader = Reader::open(&config.database.path)?;
    let (mut faults, unreadable) = (reader.check()?, reader.unreadable()?);
    if faults.is_empty() && !unreadable.is_empty() {
        let help = format!(
            "something other than minflow changed it: correct these values with `sqlite3 {path}`, or restore a backup"
        );
        let message = format!("`{path}` holds what minflow cannot read: {}", unreadable.join("; "));
        return Err(Failure::refused(message, help));
    }
    faults.extend(unreadable);
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

/// Steps go forward only: what a newer version knows could not be kept.
fn downgrade(globals: &Globals) -> Outcome {
    let config = settings::load(globals)?.config;
    let backups = crate::store::migration_backups(&config.database.path);
    let way = match backups.last() {
        Some(newest) => format!(
            "the backup that was made before the last migration brings the database back as it was then: stop minflow, install the earlier \
             version, and with it run `minflow db restore {}`",
            settings::shown(newest, &config.home).display()
        ),
        None => "stop minflow, install the earlier version, and with it restore a backup that it made: `minflow db restore FILE`".to_owned(),
    };
    Err(Failure::refused("a database does not go back to an earlier version", way))
}

/// A copy as `-o json` shows it.
fn copied(path: &std::path::Path, copied: Copied) -> Value {
    json!({"path": path.display().to_string(), "bytes": copied.bytes, "rows": copied.rows, "version": copied.version})
}
