//! The keys that name a task's operator, and the keys of the operators that run something.

use super::decider::{BRANCH, SHORT_CIRCUIT};
use super::key;
use super::sensor::SENSOR;
use super::tool::HTTP;
use crate::keytable::{Fallback, Key, Kind, Table};
use crate::model::sql::SqlOutput;

/// The names of the operators, each the key of a task.
pub const OPERATORS: [&str; 9] =
    ["bash", "python", "http", "sql", "empty", "branch", "short_circuit", "latest_only", "sensor"];

pub static OPERATOR_KEYS: [Key; 9] = [
    key(
        "bash",
        Kind::Either(&[Kind::Template, Kind::Table(&BASH)]),
        Fallback::Nothing,
        "Operator: a script for `bash -c` (`sh` where there is no bash)",
    ),
    key(
        "python",
        Kind::Either(&[Kind::Template, Kind::Table(&PYTHON)]),
        Fallback::Nothing,
        "Operator: a Python script, whose variable `result` is the XCom, or a function of a file",
    ),
    key("http", Kind::Table(&HTTP), Fallback::Nothing, "Operator: an HTTP request, whose answer is the XCom"),
    key("sql", Kind::Table(&SQL), Fallback::Nothing, "Operator: a script of SQL for a SQLite database"),
    key("empty", Kind::Literal(true), Fallback::Nothing, "Operator: does nothing"),
    key(
        "branch",
        Kind::Table(&BRANCH),
        Fallback::Nothing,
        "Operator: of the tasks directly after it only those run that it chooses, or that come after a chosen one",
    ),
    key(
        "short_circuit",
        Kind::Table(&SHORT_CIRCUIT),
        Fallback::Nothing,
        "Operator: the tasks after it are skipped unless its answer is true",
    ),
    key(
        "latest_only",
        Kind::Literal(true),
        Fallback::Nothing,
        "Operator: the tasks directly after it are skipped in a scheduled run that is not the latest",
    ),
    key("sensor", Kind::Table(&SENSOR), Fallback::Nothing, "Operator: waits until something is so, without a process"),
];

pub static BASH: Table = Table {
    name: "bash",
    keys: &[&[
        key("command", Kind::Template, Fallback::Nothing, "The script"),
        key(
            "file",
            Kind::Text,
            Fallback::Nothing,
            "A script's file, relative to the DAG file's folder; it is not rendered",
        ),
    ]],
};

pub static PYTHON: Table = Table {
    name: "python",
    keys: &[&[
        key(
            "file",
            Kind::Text,
            Fallback::Nothing,
            "A Python file, relative to the DAG file's folder; it is not rendered",
        ),
        key(
            "function",
            Kind::Text,
            Fallback::Words("none: the file runs as a script"),
            "The function of the file to call; what it returns is the XCom",
        ),
        key(
            "args",
            Kind::List(&Kind::Any),
            Fallback::Toml("[]"),
            "The function's arguments; texts in them are templates",
        ),
        key(
            "kwargs",
            Kind::Map("name", &Kind::Any),
            Fallback::Toml("{}"),
            "The function's arguments by name; texts in them are templates",
        ),
        key("interpreter", Kind::Template, Fallback::Toml("\"python3\""), "The Python to use"),
    ]],
};

pub static SQL: Table = Table {
    name: "sql",
    keys: &[&[
        key("sql", Kind::Template, Fallback::Nothing, "The script: one statement, or several with `;` between them"),
        key(
            "file",
            Kind::Text,
            Fallback::Nothing,
            "A script's file instead, relative to the DAG file's folder; it is rendered",
        ),
        key(
            "database",
            Kind::Template,
            Fallback::Nothing,
            "The database's file, relative to the DAG file's folder, or `:memory:`; made if there is none",
        ),
        key(
            "connection",
            Kind::Template,
            Fallback::Nothing,
            "Instead, the id of a connection of the type `sqlite`, whose path is relative to home",
        ),
        key(
            "parameters",
            Kind::Either(&[Kind::List(&Kind::Any), Kind::Map("name", &Kind::Any)]),
            Fallback::Nothing,
            "Values for the script: a list for `?`, a table for `:name`; its texts are templates",
        ),
        key(
            "output",
            Kind::OneOf(SqlOutput::NAMES),
            Fallback::Toml("\"rows\""),
            "What of the last statement becomes the XCom: all rows, the first row, its first value, or nothing",
        ),
        key(
            "autocommit",
            Kind::Bool,
            Fallback::Toml("false"),
            "Whether each statement is committed by itself; else the script is one transaction",
        ),
        key("read_only", Kind::Bool, Fallback::Toml("false"), "Whether the database must exist and cannot be written"),
    ]],
};
