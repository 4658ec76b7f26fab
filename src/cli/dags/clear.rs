//! `minflow dags clear`

use clap::Args;

use crate::cli::acts::ClearOptions;
use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Globals, Outcome};
use crate::scheduler::command::{Chosen, Clear, Spread};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  minflow dags clear etl --run-id scheduled__2026-11-21T00:00:00+00:00\n  \
    minflow dags clear etl --start-date 2026-11-01 --end-date 2026-11-07 --only-failed --dry-run")]
pub struct Arguments {
    dag_id: String,
    #[command(flatten)]
    options: ClearOptions,
}

pub fn run(globals: &Globals, arguments: Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let clear = Clear {
        runs: arguments.options.runs(&home, &arguments.dag_id)?,
        dag_id: arguments.dag_id.into(),
        tasks: Chosen::All,
        spread: Spread::default(),
        map_index: None,
        only: arguments.options.only(),
        is_dry: false,
    };
    arguments.options.carry_out(&home, clear, output)
}
