//! `minflow tasks test`

use clap::Args;

use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Globals, Outcome, engine};

use super::render::run_of;

#[derive(Debug, Args)]
#[command(after_help = "Its upstream tasks are not run; XComs are read from the run that is named.\n\n\
    Example:\n  minflow tasks test host_report memory")]
pub struct Arguments {
    dag_id: String,
    task_id: String,
    /// The run: its run_id or its logical date; a date without a run makes one up [default: now]
    logical_date_or_run_id: Option<String>,
    /// Which instance of a mapped task
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    map_index: Option<i32>,
}

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let definition = home.definition(&arguments.dag_id)?;
    let task = definition.task(&arguments.task_id)?;
    let run = run_of(&home, &definition, arguments.logical_date_or_run_id.as_deref())?;
    let map_index = definition.map_index(task, arguments.map_index)?;
    engine::test_task(&home, &definition, (task, map_index), run, output)
}
