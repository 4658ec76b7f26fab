//! `minflow dags note`

use clap::Args;
use serde_json::json;

use crate::cli::acts::NewNote;
use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Globals, Outcome};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  minflow dags note etl 2026-11-21 'done by hand'\n  \
    minflow dags note etl 2026-11-21             prints the note")]
pub struct Arguments {
    dag_id: String,
    /// The run: its run_id or its logical date
    logical_date_or_run_id: String,
    #[command(flatten)]
    note: NewNote,
}

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let run = home.run(&arguments.dag_id, &arguments.logical_date_or_run_id)?;
    let note = arguments.note.write(&home, &run, None)?;
    let record = json!({ "dag_id": run.dag_id, "run_id": run.run_id, "note": note });
    Ok(output.answer(note.as_deref().unwrap_or_default(), &record)?)
}
