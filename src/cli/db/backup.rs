//! `minflow db backup`

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;

use crate::cli::output::Output;
use crate::cli::{Globals, Outcome, settings};
use crate::store;

#[derive(Debug, Args)]
#[command(
    after_help = "The copy shows one moment, is checked page by page, and is on the disk before it gets its name. It is one file, without a log \
    beside it; keep it on another disk. Logs, run_dirs and XComs of more than 1 MiB (`xcoms/`) are files of the home and no part of it.\n\nExamples:\n  minflow db backup\n  \
    minflow db backup /mnt/backups/minflow-$(date +%F).db"
)]
pub struct Arguments {
    /// The new file [default: backups/minflow-TIME.db in the home]
    file: Option<PathBuf>,
}

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let config = settings::load(globals)?.config;
    let database = &config.database.path;
    let (file, copied) = match &arguments.file {
        Some(file) => (file.clone(), store::copy(database, file)?),
        None => {
            let folder = config.home.join("backups");
            std::fs::create_dir_all(&folder).map_err(|error| {
                let message = format!("failed to make `{}`: {error}", folder.display());
                crate::cli::Failure::refused(message, "name a file in a folder that this user may write to")
            })?;
            let file = folder.join(format!("minflow-{}.db", Timestamp::now().strftime("%Y%m%dT%H%M%SZ")));
            let copied = store::copy_of_series(database, &file)?;
            (file, copied)
        }
    };
    let text = format!("`{}` holds {} rows: version {}", file.display(), copied.rows, copied.version);
    Ok(output.answer(&text, &super::copied(&file, copied))?)
}
