//! `minflow db restore`

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::cli::output::Output;
use crate::cli::{Failure, Globals, Outcome, engine, settings};

#[derive(Debug, Args)]
#[command(
    after_help = "minflow must not be running. The backup is checked page by page first, and the database that is there now is kept beside it under \
    another name. A backup of an earlier version is migrated by the next start.\n\nExamples:\n  minflow db restore backups/minflow-20261121T060000Z.db"
)]
pub struct Arguments {
    /// What `minflow db backup` or a migration has written
    file: PathBuf,
}

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let config = settings::load(globals)?.config;
    if !arguments.file.is_file() {
        let message = format!("there is no file `{}`", arguments.file.display());
        return Err(Failure::refused(message, "name a backup, such as one of `backups/` in the home"));
    }
    let restored = engine::restore(&config, &arguments.file)?;
    let path = &config.database.path;
    let mut record = super::copied(path, restored.copied);
    let kept = restored.kept.as_ref().map(|kept| kept.display().to_string());
    let before = kept.as_ref().map_or_else(String::new, |kept| format!("; what was there before is kept as `{kept}`"));
    record["kept"] = kept.map_or(Value::Null, Value::String);
    let text = format!(
        "`{}` holds {} rows: version {}{before}",
        path.display(),
        restored.copied.rows,
        restored.copied.version
    );
    Ok(output.answer(&text, &record)?)
}
