//! `minflow tasks …`

mod clear;
mod failed_deps;
mod list;
mod log;
mod logs;
mod note;
mod pause;
mod render;
mod set_state;
mod state;
mod states_for_dag_run;
mod test;
mod usage;
mod xcom;

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
    /// Say which gates keep a task of a run from starting
    FailedDeps(failed_deps::Arguments),
    /// Print the state of a task in a run
    State(state::Arguments),
    /// List the task instances of a run
    StatesForDagRun(states_for_dag_run::Arguments),
    /// What tasks have cost over a period, and what is growing
    Usage(usage::Arguments),
    /// List or print what a task has pushed
    Xcom(xcom::Arguments),
    /// Print what a task wrote
    Logs(logs::Arguments),
    /// Do tasks over again, in one run or in many
    Clear(clear::Arguments),
    /// Say what became of a task: success, failed or skipped
    SetState(set_state::Arguments),
    /// Write a note to a task instance, or print it
    Note(note::Arguments),
    /// Have what runs of a task stand still
    Pause(pause::Arguments),
    /// Have a paused task go on
    Resume(pause::Arguments),
}

pub fn run(globals: &Globals, command: Command, output: &mut Output) -> Outcome {
    match command {
        Command::List(arguments) => list::run(globals, &arguments, output),
        Command::Test(arguments) => test::run(globals, &arguments, output),
        Command::Render(arguments) => render::run(globals, &arguments, output),
        Command::FailedDeps(arguments) => failed_deps::run(globals, &arguments, output),
        Command::State(arguments) => state::run(globals, &arguments, output),
        Command::StatesForDagRun(arguments) => states_for_dag_run::run(globals, &arguments, output),
        Command::Usage(arguments) => usage::run(globals, &arguments, output),
        Command::Xcom(arguments) => xcom::run(globals, &arguments, output),
        Command::Logs(arguments) => logs::run(globals, &arguments, output),
        Command::Clear(arguments) => clear::run(globals, arguments, output),
        Command::SetState(arguments) => set_state::run(globals, arguments, output),
        Command::Note(arguments) => note::run(globals, &arguments, output),
        Command::Pause(arguments) => pause::run(globals, &arguments, pause::Wish::Pause, output),
        Command::Resume(arguments) => pause::run(globals, &arguments, pause::Wish::Resume, output),
    }
}
