//! `minflow tasks clear`

use clap::Args;

use crate::cli::acts::ClearOptions;
use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Failure, Globals, Outcome};
use crate::scheduler::command::{Chosen, Clear, Spread};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  minflow tasks clear etl load --downstream --run-id scheduled__2026-11-21T00:00:00+00:00\n  \
    minflow tasks clear etl --only-failed --start-date 2026-11-01 --dry-run\n  \
    minflow tasks clear etl --task-regex '^load_' --yes"
)]
pub struct Arguments {
    dag_id: String,
    /// Tasks or groups; with none and no --task-regex, all
    task_id: Vec<String>,
    /// The tasks in whose id this regular expression is found
    #[arg(short, long, value_name = "REGEX", conflicts_with = "task_id")]
    task_regex: Option<String>,
    /// All that runs before them as well
    #[arg(short, long)]
    upstream: bool,
    /// All that runs after them as well
    #[arg(short, long)]
    downstream: bool,
    /// Runs before that of --run-id as well
    #[arg(long)]
    past: bool,
    /// Runs after that of --run-id as well
    #[arg(long)]
    future: bool,
    /// Of a mapped task, only this instance
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    map_index: Option<i32>,
    #[command(flatten)]
    options: ClearOptions,
}

pub fn run(globals: &Globals, arguments: Arguments, output: &mut Output) -> Outcome {
    if (arguments.past || arguments.future) && !arguments.options.names_run() {
        return Err(Failure::Usage {
            message: "--past and --future count from a run".to_owned(),
            help: "name it with --run-id, or give --start-date and --end-date".to_owned(),
        });
    }
    let home = Home::open(globals)?;
    let mut runs = arguments.options.runs(&home, &arguments.dag_id)?;
    (runs.past, runs.future) = (arguments.past, arguments.future);
    let tasks = match arguments.task_regex {
        Some(pattern) => Chosen::Matching(pattern),
        None if arguments.task_id.is_empty() => Chosen::All,
        None => Chosen::Named(arguments.task_id),
    };
    let clear = Clear {
        dag_id: arguments.dag_id.into(),
        tasks,
        spread: Spread { upstream: arguments.upstream, downstream: arguments.downstream },
        map_index: arguments.map_index,
        runs,
        only: arguments.options.only(),
        is_dry: false,
    };
    arguments.options.carry_out(&home, clear, output)
}
