//! `minflow tasks pause` and `minflow tasks resume`

use clap::Args;
use serde_json::json;

use crate::cli::failure::eprint;
use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Globals, Outcome, engine};
use crate::scheduler::Command;
use crate::scheduler::command::{Done, PauseTask};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  minflow tasks pause etl 2026-11-21 load\n  minflow tasks resume etl 2026-11-21 load\n\n\
    A paused task stays `running` and keeps its slots; its `execution_timeout` stands still, the DAG's `dagrun_timeout` does not."
)]
pub struct Arguments {
    dag_id: String,
    /// The run: its run_id or its logical date
    logical_date_or_run_id: String,
    task_id: String,
    /// Of a mapped task, the instance; without it all that run
    #[arg(long, value_name = "N")]
    map_index: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Pause,
    Resume,
}

const COLUMNS: [Column; 5] = [
    Column::text("dag_id"),
    Column::text("run_id"),
    Column::text("task_id"),
    Column::text("is_paused"),
    Column::text("instances"),
];

pub fn run(globals: &Globals, arguments: &Arguments, wish: Wish, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let run = home.run(&arguments.dag_id, &arguments.logical_date_or_run_id)?;
    let (task_id, is_paused) = (arguments.task_id.as_str(), wish == Wish::Pause);
    let asked = PauseTask {
        dag_id: run.dag_id.clone(),
        run_id: run.run_id.clone(),
        task_id: task_id.into(),
        map_index: arguments.map_index,
        is_paused,
    };
    let done = engine::apply_running(&home, Command::SetTaskPaused(asked))?;
    let Done::TaskPausedSet { changed, unchanged } = done else { return Err(engine::unexpected(&done)) };
    if changed == 0 {
        eprint(&format!("`{task_id}` {} already\n", if is_paused { "was paused" } else { "went on" }));
    }
    let record = json!({ "dag_id": run.dag_id, "run_id": run.run_id, "task_id": task_id, "is_paused": is_paused,
        "instances": changed + unchanged });
    Ok(output.list(&[record], &COLUMNS)?)
}
