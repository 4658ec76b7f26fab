//! `minflow tasks states-for-dag-run`

use clap::Args;

use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Globals, Outcome};

#[derive(Debug, Args)]
pub struct Arguments {
    dag_id: String,
    /// The run: its run_id or its logical date
    logical_date_or_run_id: String,
}

const COLUMNS: [Column; 8] = [
    Column::text("task_id"),
    Column::state("state"),
    Column::text("try_number"),
    Column::time("start_date"),
    Column::time("end_date"),
    Column::text("exit_code"),
    Column::text("signal"),
    Column::text("reason"),
];

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let run = home.run(&arguments.dag_id, &arguments.logical_date_or_run_id)?;
    let records = home.instance_records(&run, &home.instances(&run)?)?;
    Ok(output.list(&records, &COLUMNS)?)
}
