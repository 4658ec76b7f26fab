//! The keys of the operators that decide what runs after them.

use super::operator::{BASH, PYTHON};
use super::{LIST_OF_TEXT, key};
use crate::keytable::{Fallback, Kind, Table};

/// The days of the week as a branch names them, or their first three letters.
pub const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

const IDS: Kind = Kind::Either(&[Kind::Text, LIST_OF_TEXT]);
pub(super) const ASKED_BASH: Kind = Kind::Either(&[Kind::Template, Kind::Table(&BASH)]);
pub(super) const ASKED_PYTHON: Kind = Kind::Either(&[Kind::Template, Kind::Table(&PYTHON)]);

pub static BRANCH: Table = Table {
    name: "branch",
    keys: &[&[
        key("expr", Kind::Template, Fallback::Nothing, "What it becomes is the choice; no process is started"),
        key("bash", ASKED_BASH, Fallback::Nothing, "A script whose last non-empty line is the choice"),
        key("python", ASKED_PYTHON, Fallback::Nothing, "A script or function whose value is the choice"),
        key(
            "weekday",
            LIST_OF_TEXT,
            Fallback::Nothing,
            "Chooses by the day it is in the DAG's zone: `if_true` on these, such as `\"Mon\"` or `\"monday\"`",
        ),
        key(
            "between",
            Kind::List(&Kind::Bound),
            Fallback::Nothing,
            "Chooses by the time it is: `if_true` from the first to the second, both included",
        ),
        key("if_true", IDS, Fallback::Toml("[]"), "The choice then: the ids of tasks or groups"),
        key("if_false", IDS, Fallback::Toml("[]"), "The choice else"),
    ]],
};

pub static SHORT_CIRCUIT: Table = Table {
    name: "short_circuit",
    keys: &[&[
        key("expr", Kind::Template, Fallback::Nothing, "What it becomes is the answer; no process is started"),
        key("bash", ASKED_BASH, Fallback::Nothing, "A script whose exit code or last non-empty line is the answer"),
        key("python", ASKED_PYTHON, Fallback::Nothing, "A script or function whose value is the answer"),
        key(
            "ignore_downstream_trigger_rules",
            Kind::Bool,
            Fallback::Toml("true"),
            "Whether all tasks after it are skipped, or only those directly after it, and the others by their trigger rules",
        ),
    ]],
};
