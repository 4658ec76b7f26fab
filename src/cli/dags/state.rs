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
    let run = Home::open(globals)?.run(&arguments.dag_id, &arguments.logical_date_or_run_id)?;
    Ok(output.answer(run.state.as_str(), &record::run(&run))?)
}
