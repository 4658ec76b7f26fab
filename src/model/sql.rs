//! `sql = …`: what a task asks a SQLite database.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::dag::{Position, Template};

/// A script of SQL, and where it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Sql {
    pub script: SqlScript,
    pub database: SqlDatabase,
    /// A list for `?`, a table for `:name`, or null. Its texts are templates.
    pub parameters: Value,
    /// Where `parameters` stand in the DAG file, for messages.
    pub parameters_at: Position,
    pub output: SqlOutput,
    /// Each statement is its own transaction; else the script is one.
    pub is_autocommit: bool,
    pub is_read_only: bool,
    /// For all of it; None: as long as it takes.
    pub timeout: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SqlScript {
    Text(Template),
    /// A path, relative to the DAG file's folder. The file is rendered, as Airflow renders a `.sql` file.
    File(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum SqlDatabase {
    /// A path, relative to the DAG file's folder, or `:memory:`.
    Path(Template),
    /// The id of a connection of the type `sqlite`.
    Connection(Template),
}

/// What of the last statement's rows becomes the task's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SqlOutput {
    /// All, as a list of tables.
    #[default]
    Rows,
    /// The first, as a table; null if there is none.
    First,
    /// The first value of the first; null if there is none.
    Value,
    None,
}

impl SqlOutput {
    /// The names in a DAG file.
    pub const NAMES: &'static [&'static str] = &["rows", "first", "value", "none"];

    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Rows, Self::First, Self::Value, Self::None];
        all.into_iter().zip(Self::NAMES).find(|(_, known)| **known == name).map(|(output, _)| output)
    }
}
