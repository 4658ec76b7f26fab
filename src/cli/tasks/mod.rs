//! `minflow tasks …`

mod list;
mod logs;
mod render;
mod state;
mod states_for_dag_run;
mod test;

use clap::Subcommand;

use crate::cli::output::Output;
use crate::cli::{Globals, Outcome};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the tasks of a DAG
    List(list::Arguments),
    /// Run one task in the foreground, without recording anything
    Test(test::Arguments),
    /// Print the templated fields of a task as a run sees them
    Render(render::Arguments),
    /// Print the state of a task in a run
    State(state::Arguments),
    /// List the task instances of a run
    StatesForDagRun(states_for_dag_run::Arguments),
    /// Print what a task wrote
    Logs(logs::Arguments),
}

pub fn run(globals: &Globals, command: Command, output: &mut Output) -> Outcome {
    match command {
        Command::List(arguments) => list::run(globals, &arguments, output),
        Command::Test(arguments) => test::run(globals, &arguments, output),
        Command::Render(arguments) => render::run(globals, &arguments, output),
        Command::State(arguments) => state::run(globals, &arguments, output),
        Command::StatesForDagRun(arguments) => states_for_dag_run::run(globals, &arguments, output),
        Command::Logs(arguments) => logs::run(globals, &arguments, output),
    }
}
