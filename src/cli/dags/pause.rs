//! `minflow dags pause` and `minflow dags unpause`

use clap::Args;
use serde_json::json;

use crate::cli::failure::eprint;
use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Globals, Outcome, engine};
use crate::scheduler::Command;
use crate::scheduler::command::Done;

#[derive(Debug, Args)]
pub struct Arguments {
    #[arg(required = true)]
    dag_id: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Pause,
    Unpause,
}

const COLUMNS: [Column; 2] = [Column::text("dag_id"), Column::text("is_paused")];

pub fn run(globals: &Globals, arguments: &Arguments, wish: Wish, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let is_paused = wish == Wish::Pause;
    // All or none: a misspelt third id must not leave the first two changed.
    for dag_id in &arguments.dag_id {
        home.expect_dag(dag_id)?;
    }
    let mut records = Vec::new();
    for dag_id in &arguments.dag_id {
        let done = engine::apply(&home, Command::SetPaused { dag_id: dag_id.as_str().into(), is_paused })?;
        if done == (Done::PausedSet { was: is_paused }) {
            eprint(&format!("`{dag_id}` was {} already\n", if is_paused { "paused" } else { "unpaused" }));
        }
        records.push(json!({ "dag_id": dag_id, "is_paused": is_paused }));
    }
    Ok(output.list(&records, &COLUMNS)?)
}
