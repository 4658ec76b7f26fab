//! `minflow operator`: the entrance of the built-in operators. minflow starts it for a task; it is of no use by hand.

use std::io;
use std::process::ExitCode;

use clap::Args;

use crate::builtin;
use crate::cli::failure::eprint;
use crate::cli::{Failure, Outcome};

#[derive(Debug, Args)]
pub struct Arguments {
    name: String,
}

pub fn run(arguments: &Arguments) -> Outcome {
    builtin::run(&arguments.name, io::stdin().lock()).map_err(|failed| {
        eprint(&format!("{failed}\n"));
        Failure::Code(ExitCode::FAILURE)
    })
}
