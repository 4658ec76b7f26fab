//! `minflow dags set-state`

use clap::Args;
use serde_json::json;

use crate::cli::acts::counted;
use crate::cli::failure::eprint;
use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Globals, Outcome, engine};
use crate::model::RunState;
use crate::scheduler::Command;
use crate::scheduler::command::Done;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  minflow dags set-state etl 2026-11-21 failed\n\n\
    success and failed end what runs and skip what has not run; teardowns still run. queued does all of the run over again.")]
pub struct Arguments {
    dag_id: String,
    /// The run: its run_id or its logical date
    logical_date_or_run_id: String,
    #[arg(value_enum)]
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum State {
    Success,
    Failed,
    Queued,
}

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let run = home.run(&arguments.dag_id, &arguments.logical_date_or_run_id)?;
    let state = match arguments.state {
        State::Success => RunState::Success,
        State::Failed => RunState::Failed,
        State::Queued => RunState::Queued,
    };
    let command = Command::MarkRun { dag_id: run.dag_id.clone(), run_id: run.run_id.clone(), state };
    match engine::apply(&home, command)? {
        Done::RunMarked { was, instances, is_open } => {
            let ended = if instances > 0 { format!("; {}", counted(instances as usize, 1)) } else { String::new() };
            if is_open {
                eprint(&format!("the run is over when its teardowns are{ended}\n"));
            } else if was == state && instances == 0 {
                eprint(&format!("nothing was changed: the run is {state} already\n"));
            } else {
                eprint(&format!("the run was {was}{ended}\n"));
            }
        }
        Done::Cleared { instances, runs } => eprint(&format!("{} cleared\n", counted(instances.len(), runs))),
        other => return Err(engine::unexpected(&other)),
    }
    // Opened again: without a running minflow it is this process that has written.
    let run = Home::open(globals)?.run(&arguments.dag_id, &run.run_id)?;
    let record = json!({ "dag_id": run.dag_id, "run_id": run.run_id, "state": run.state });
    Ok(output.answer(run.state.as_str(), &record)?)
}
