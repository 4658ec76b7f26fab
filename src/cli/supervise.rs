//! `minflow supervise`: the entrance of the process that runs tasks. `minflow run` starts it; it is of no use by hand.

use clap::Args;

use crate::cli::{Failure, Globals, Outcome, settings};
use crate::supervisor;

#[derive(Debug, Args)]
pub struct Arguments {}

pub fn run(globals: &Globals, _arguments: &Arguments) -> Outcome {
    Err(Failure::Code(supervisor::main(&settings::home(globals)?)))
}
