//! `minflow operator`: the entrance of the built-in operators. minflow starts it for a task; it is of no use by hand.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::Args;

use crate::builtin;
use crate::cli::failure::eprint;
use crate::cli::{Failure, Outcome};
use crate::supervisor::sys::{keep_heaps_small, outlive_file_size_limit};

#[derive(Debug, Args)]
pub struct Arguments {
    name: String,
}

pub fn run(arguments: &Arguments) -> Outcome {
    match builtin::run(&arguments.name, io::stdin().lock()) {
        Ok(0) => Ok(()),
        Ok(code) => Err(Failure::Code(ExitCode::from(code))),
        Err(failed) => {
            eprint(&format!("{failed}\n"));
            Err(Failure::Code(ExitCode::FAILURE))
        }
    }
}

/// Runs an operator if this is a command line that minflow itself has written: each task would pay for the tree of all commands.
pub fn run_at_once(mut words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    words.next().filter(|word| word == "operator")?;
    let name = words.next()?.into_string().ok()?;
    words.next().filter(|word| word == "--home")?;
    words.next()?;
    if words.next().is_some() {
        return None;
    }
    // What is ignored stays ignored in the programs that it starts, which are the user's.
    if !builtin::hands_over(&name) {
        outlive_file_size_limit();
    }
    if name == builtin::looks::NAME {
        keep_heaps_small();
    }
    Some(match run(&Arguments { name }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    })
}
