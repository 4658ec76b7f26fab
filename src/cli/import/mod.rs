//! `minflow import …`: DAG files from what ran the jobs before.

mod crontab;
mod host;
mod show;

use clap::Subcommand;

use crate::cli::output::Output;
use crate::cli::{Globals, Outcome};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a DAG file of each line of a crontab, and show when cron and minflow run it
    Crontab(crontab::Arguments),
}

pub fn run(globals: &Globals, command: Command, output: &mut Output) -> Outcome {
    match command {
        Command::Crontab(arguments) => crontab::run(globals, &arguments, output),
    }
}
