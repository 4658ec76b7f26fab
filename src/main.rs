//! The binary: all of it is in the library, so that tests and benches can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    minflow::cli::main()
}
