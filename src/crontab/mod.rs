//! A crontab becomes jobs that minflow can run, or faults with their places where it would not run them as cron does.
//!
//! Pure: knows Vixie's grammar and cronie's additions, and no file, clock, user or home; who calls it (`minflow import crontab`) says
//! whose crontab it is and what time zone the host has. `line` takes a line apart, `when` reads its time, `fires` says when cron starts
//! it, `expression` what minflow must be told for the same, `command` and `text` what its script is, `dag` writes the DAG file.

mod command;
mod dag;
mod expression;
mod fires;
mod line;
mod name;
mod reader;
mod text;
mod when;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use jiff::tz::TimeZone;

use crate::diagnostic::Diagnostic;

pub use command::Command;
pub use expression::Expression;
pub use fires::Clocks;
pub use when::{When, WhenFault};

/// More lines than any crontab has.
pub const MAX_JOBS: usize = 5_000;

/// Whose crontab it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A user's own, as `crontab -l` prints it.
    User,
    /// `/etc/crontab` and the files of `/etc/cron.d`: a user stands between time and command.
    System,
}

/// A crontab to read, and what cron knows beside it.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// As faults show it.
    pub path: &'a Path,
    pub text: &'a str,
    pub form: Form,
    /// The user as whom minflow runs the jobs; a line of another one is refused.
    pub user: &'a str,
    /// That user's home: cron starts jobs there.
    pub home: Option<&'a str>,
    /// The host's time zone, with the name that DAG files give it.
    pub zone: (&'a str, &'a TimeZone),
    /// What every dag_id begins with.
    pub prefix: &'a str,
}

/// What a crontab holds.
#[derive(Clone, Debug, Default)]
pub struct Crontab {
    pub jobs: Vec<Job>,
    /// Lines that no schedule can stand for: not wrong, but left out.
    pub reboots: Vec<Reboot>,
    /// What minflow would not run as cron does, in the order of the text.
    pub refused: Vec<Diagnostic>,
}

/// A line with `@reboot`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reboot {
    pub line: u32,
    pub command: String,
}

/// A line that minflow can run.
#[derive(Clone, Debug)]
pub struct Job {
    /// Counts from 1.
    pub line: u32,
    /// The line, without blanks at its ends.
    pub source: String,
    /// The comment right above it.
    pub comment: Option<String>,
    pub dag_id: String,
    pub when: When,
    pub clocks: Clocks,
    /// The name of the zone of its fields.
    pub timezone: String,
    pub schedule: Expression,
    pub command: Command,
    /// The environment that cron gives it, without the user's name.
    pub env: BTreeMap<String, String>,
    /// Variables of `env` that the crontab leaves to cron.
    pub defaults: Vec<&'static str>,
    /// What cron does with its output.
    pub mail: Mail,
    /// What else differs, in whole sentences.
    pub remarks: Vec<String>,
}

/// Where cron sends what a job prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mail {
    /// `MAILTO` is empty.
    Nowhere,
    /// There is no `MAILTO`.
    User,
    To(String),
}

/// Reads a crontab.
pub fn read(given: &Given<'_>) -> Crontab {
    reader::read(given)
}
