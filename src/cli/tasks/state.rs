//! `minflow tasks state`

use clap::Args;

use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Globals, Outcome, record};

#[derive(Debug, Args)]
pub struct Arguments {
    dag_id: String,
    task_id: String,
    /// The run: its run_id or its logical date
    logical_date_or_run_id: String,
    /// Which instance of a mapped task
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    map_index: Option<i32>,
}

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let run = home.run(&arguments.dag_id, &arguments.logical_date_or_run_id)?;
    let instance = home.instance(&run, &arguments.task_id, arguments.map_index)?;
    let note = home.note(&run, Some((&instance.task_id, instance.map_index)))?;
    let record = record::with_note(record::instance(&run.dag_id, &run.run_id, &instance), note);
    Ok(output.answer(instance.state.as_str(), &record)?)
}
