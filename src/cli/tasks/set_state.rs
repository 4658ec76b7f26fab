//! `minflow tasks set-state`

use clap::Args;

use crate::cli::acts::{COLUMNS, counted, records};
use crate::cli::failure::eprint;
use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Globals, Outcome, engine};
use crate::model::TaskState;
use crate::scheduler::Command;
use crate::scheduler::command::{Done, MarkTasks, RunRange, Spread};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  minflow tasks set-state etl 2026-11-21 load success --downstream\n\n\
    What runs is ended. What has failed after the task runs again.")]
pub struct Arguments {
    dag_id: String,
    /// The run: its run_id or its logical date
    logical_date_or_run_id: String,
    /// A task, or a group: all its tasks
    task_id: String,
    #[arg(value_enum)]
    state: State,
    /// Of a mapped task, only this instance
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    map_index: Option<i32>,
    /// All that runs before it as well
    #[arg(short, long)]
    upstream: bool,
    /// All that runs after it as well
    #[arg(short, long)]
    downstream: bool,
    /// In the runs before this one as well
    #[arg(long)]
    past: bool,
    /// In the runs after this one as well
    #[arg(long)]
    future: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum State {
    Success,
    Failed,
    Skipped,
}

pub fn run(globals: &Globals, arguments: Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let run = home.run(&arguments.dag_id, &arguments.logical_date_or_run_id)?;
    let state = match arguments.state {
        State::Success => TaskState::Success,
        State::Failed => TaskState::Failed,
        State::Skipped => TaskState::Skipped,
    };
    let mark = MarkTasks {
        dag_id: arguments.dag_id.into(),
        tasks: vec![arguments.task_id],
        spread: Spread { upstream: arguments.upstream, downstream: arguments.downstream },
        map_index: arguments.map_index,
        runs: RunRange {
            run_id: Some(run.run_id),
            past: arguments.past,
            future: arguments.future,
            ..RunRange::default()
        },
        state,
    };
    let (instances, cleared, runs) = match engine::apply(&home, Command::MarkTasks(mark))? {
        Done::Marked { instances, cleared, runs } => (instances, cleared, runs),
        other => return Err(engine::unexpected(&other)),
    };
    tell(instances.len(), runs, cleared, state);
    Ok(output.list(&records(&instances), &COLUMNS)?)
}

fn tell(instances: usize, runs: u32, cleared: u32, state: TaskState) {
    if instances == 0 {
        eprint(&format!("nothing was changed: all of it is {state} already\n"));
    } else {
        eprint(&format!("{} set to {state}\n", counted(instances, runs)));
    }
    if cleared > 0 {
        eprint(&format!("{cleared} that had failed after it run again\n"));
    }
}
