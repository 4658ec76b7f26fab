//! `minflow supervise`: the entrance of the process that runs tasks. `minflow run` starts it; it is of no use by hand.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use crate::cli::{Failure, Globals, Outcome, settings};
use crate::supervisor;

#[derive(Debug, Args)]
pub struct Arguments {}

pub fn run(globals: &Globals, _arguments: &Arguments) -> Outcome {
    Err(Failure::Code(supervisor::main(&settings::home(globals)?)))
}

/// Runs the supervisor if this is the command line that minflow itself has written: the tree of all commands would stay with a process
/// that is to be small, as memory of the heap and of the stack that was used once and is never given back.
pub fn run_at_once(mut words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    words.next().filter(|word| word == "supervise")?;
    words.next().filter(|word| word == "--home")?;
    let home = words.next()?;
    let home = Path::new(&home);
    if words.next().is_some() || !home.is_absolute() || !home.is_dir() {
        return None;
    }
    crate::supervisor::sys::outlive_file_size_limit();
    Some(supervisor::main(home))
}
