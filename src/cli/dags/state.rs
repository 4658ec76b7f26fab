//! `minflow dags state`

use clap::Args;

use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Globals, Outcome, record};

#[derive(Debug, Args)]
pub struct Arguments {
    dag_id: String,
    /// The run: its run_id or its logical date
    logical_date_or_run_id: String,
}

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let run = home.run(&arguments.dag_id, &arguments.logical_date_or_run_id)?;
    let record = record::with_note(record::run(&run), home.note(&run, None)?);
    Ok(output.answer(run.state.as_str(), &record)?)
}
