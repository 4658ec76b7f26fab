//! `minflow tasks note`

use clap::Args;
use serde_json::json;

use crate::cli::acts::NewNote;
use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Globals, Outcome};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  minflow tasks note etl 2026-11-21 load 'source was down, see ticket 81'\n  \
    minflow tasks note etl 2026-11-21 load             prints the note")]
pub struct Arguments {
    dag_id: String,
    /// The run: its run_id or its logical date
    logical_date_or_run_id: String,
    task_id: String,
    #[command(flatten)]
    note: NewNote,
    /// Of a mapped task, the instance
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    map_index: i32,
}

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let run = home.run(&arguments.dag_id, &arguments.logical_date_or_run_id)?;
    let (task_id, map_index) = (arguments.task_id.as_str(), arguments.map_index);
    if map_index < 0 {
        // Here an unknown id is answered with what may have been meant.
        home.instance(&run, task_id, None)?;
    }
    let note = arguments.note.write(&home, &run, Some((task_id.into(), map_index)))?;
    let record = json!({ "dag_id": run.dag_id, "run_id": run.run_id, "task_id": task_id, "map_index": map_index,
        "note": note });
    Ok(output.answer(note.as_deref().unwrap_or_default(), &record)?)
}
