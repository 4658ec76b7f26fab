//! `minflow dags list-import-errors`

use clap::Args;

use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Globals, Outcome};

#[derive(Debug, Args)]
#[command(after_help = "`minflow validate` shows the same faults with their lines, from the files as they are now.")]
pub struct Arguments {}

const COLUMNS: [Column; 6] = [
    Column::text("filename"),
    Column::text("line"),
    Column::text("column"),
    Column::text("code"),
    Column::text("message"),
    Column::text("help"),
];

pub fn run(globals: &Globals, _arguments: &Arguments, output: &mut Output) -> Outcome {
    let records = Home::open(globals)?.import_errors()?;
    Ok(output.list(&records, &COLUMNS)?)
}
