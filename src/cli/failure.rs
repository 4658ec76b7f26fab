//! What a command tells when it cannot do what was asked, and the exit code that goes with it (CONTRACTS 8).

use std::io::{self, Write};
use std::process::ExitCode;

use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::scheduler::{CommandError, StoreError};
use crate::store::OpenError;

/// Why a command ends without success.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 1: the thing asked for failed, is unknown, or is refused. `help` says what to do next; it may be empty.
    Refused { message: String, help: String },
    /// Exit code 1: all has been said already.
    Told,
    /// Exit code 2: the arguments do not fit together.
    Usage { message: String, help: String },
    /// Exit code 3: faults in DAG files or the configuration.
    Invalid(Vec<Diagnostic>),
    /// Exit code 3: the faults have been shown already.
    InvalidTold,
    /// Exit code 4: no minflow runs on this home.
    NotRunning { home: String },
    /// A code that another part has settled and explained.
    Code(ExitCode),
    /// Standard output could not be written. A reader that went away is no failure.
    Output(io::Error),
}

impl Failure {
    pub fn refused(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), help: help.into() }
    }

    /// An id that nobody knows, with the known one that it may have meant. `listing` is the command that lists them all.
    pub fn unknown<'a>(noun: &str, typed: &str, known: impl IntoIterator<Item = &'a str>, listing: &str) -> Self {
        let help = match did_you_mean(typed, known) {
            Some(meant) => format!("did you mean `{meant}`? `{listing}` lists them all"),
            None => format!("`{listing}` lists them all"),
        };
        Self::refused(format!("unknown {noun} `{typed}`"), help)
    }

    /// Says it on standard error, and gives the exit code.
    pub fn tell(self) -> ExitCode {
        match self {
            Self::Refused { message, help } => tell("error", &message, &help, 1),
            Self::Usage { message, help } => tell("error", &message, &help, 2),
            Self::Told => ExitCode::from(1),
            Self::InvalidTold => ExitCode::from(3),
            Self::Invalid(faults) => {
                for fault in &faults {
                    eprint(&format!("{fault}\n"));
                }
                ExitCode::from(3)
            }
            Self::NotRunning { home } => tell(
                "error",
                &format!("no minflow is running on `{home}`"),
                "start one with `minflow run`, or name its home with --home",
                4,
            ),
            Self::Code(code) => code,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Self::Output(error) => tell("error", &format!("failed to write to standard output: {error}"), "", 1),
        }
    }
}

fn tell(head: &str, message: &str, help: &str, code: u8) -> ExitCode {
    let mut text = format!("{head}: {message}\n");
    if !help.is_empty() {
        text.push_str(&format!("help: {help}\n"));
    }
    eprint(&text);
    ExitCode::from(code)
}

/// Writes to standard error; unlike `eprint!` it does not panic when nobody reads it.
pub fn eprint(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::refused(format!("failed to {}", error.message), error.help)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        StoreError::from(error).into()
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        Self::refused(error.message, error.help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_id_is_answered_with_the_nearest_known_one() {
        let failure = Failure::unknown("dag_id", "host_reprot", ["backup", "host_report"], "minflow dags list");
        let Failure::Refused { message, help } = failure else { panic!("{failure:?}") };
        assert_eq!(message, "unknown dag_id `host_reprot`");
        assert_eq!(help, "did you mean `host_report`? `minflow dags list` lists them all");
    }
}
