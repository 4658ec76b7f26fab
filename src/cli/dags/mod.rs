//! `minflow dags …`

mod clear;
mod delete;
mod details;
mod list;
mod list_import_errors;
mod list_runs;
mod next_execution;
mod note;
mod pause;
mod set_state;
mod show;
mod state;
mod test;
mod trigger;

use clap::Subcommand;
pub use trigger::parse_conf;

use crate::cli::output::Output;
use crate::cli::{Globals, Outcome};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List all DAGs
    List(list::Arguments),
    /// Show the graph of a DAG: what runs after what
    Show(show::Arguments),
    /// Show all that is known of a DAG
    Details(details::Arguments),
    /// Start a run by hand
    Trigger(trigger::Arguments),
    /// Stop scheduling DAGs; what runs goes on
    Pause(pause::Arguments),
    /// Schedule DAGs again
    Unpause(pause::Arguments),
    /// Run a DAG once in the foreground, without a server
    Test(test::Arguments),
    /// Print the state of a run
    State(state::Arguments),
    /// List the runs of a DAG, newest first
    ListRuns(list_runs::Arguments),
    /// Do runs over again
    Clear(clear::Arguments),
    /// End a run as success or failed, or queue it again
    SetState(set_state::Arguments),
    /// Write a note to a run, or print it
    Note(note::Arguments),
    /// Have the history of a DAG go whose file is gone
    Delete(delete::Arguments),
    /// Print when a DAG runs next
    NextExecution(next_execution::Arguments),
    /// List the DAG files that do not load, and why
    ListImportErrors(list_import_errors::Arguments),
}

pub fn run(globals: &Globals, command: Command, output: &mut Output) -> Outcome {
    match command {
        Command::List(arguments) => list::run(globals, &arguments, output),
        Command::Show(arguments) => show::run(globals, &arguments, output),
        Command::Details(arguments) => details::run(globals, &arguments, output),
        Command::Trigger(arguments) => trigger::run(globals, arguments, output),
        Command::Pause(arguments) => pause::run(globals, &arguments, pause::Wish::Pause, output),
        Command::Unpause(arguments) => pause::run(globals, &arguments, pause::Wish::Unpause, output),
        Command::Test(arguments) => test::run(globals, &arguments, output),
        Command::State(arguments) => state::run(globals, &arguments, output),
        Command::ListRuns(arguments) => list_runs::run(globals, &arguments, output),
        Command::Clear(arguments) => clear::run(globals, arguments, output),
        Command::SetState(arguments) => set_state::run(globals, &arguments, output),
        Command::Note(arguments) => note::run(globals, &arguments, output),
        Command::Delete(arguments) => delete::run(globals, &arguments, output),
        Command::NextExecution(arguments) => next_execution::run(globals, &arguments, output),
        Command::ListImportErrors(arguments) => list_import_errors::run(globals, &arguments, output),
    }
}
