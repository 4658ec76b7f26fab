//! The keys of a group of tasks.

use super::mapping::{EXPAND, EXPAND_KWARGS, PARTIAL};
use super::task::{A_TASK, DEFAULT_ARGS};
use super::{LIST_OF_TEXT, key};
use crate::keytable::{Fallback, Key, Kind, Table};

// A group may hold groups, so the two name each other.
pub static A_GROUP: Kind = Kind::Table(&GROUP);

pub static GROUP: Table = Table { name: "a group", keys: &[&GROUP_KEYS] };

static GROUP_KEYS: [Key; 9] = [
    key("tasks", Kind::Map("task_id", &A_TASK), Fallback::Nothing, "Its tasks"),
    key("groups", Kind::Map("group_id", &A_GROUP), Fallback::Nothing, "Groups inside it"),
    key("depends_on", LIST_OF_TEXT, Fallback::Toml("[]"), "The tasks and groups that come before its first tasks"),
    key(
        "default_args",
        Kind::Table(&DEFAULT_ARGS),
        Fallback::Toml("{}"),
        "Keys for every task inside it that does not give them itself; they win over those of the groups around it and of the DAG",
    ),
    EXPAND,
    EXPAND_KWARGS,
    PARTIAL,
    key(
        "prefix_group_id",
        Kind::Bool,
        Fallback::Toml("true"),
        "Whether what it holds has its id and a dot before its own",
    ),
    key("tooltip", Kind::Text, Fallback::Toml("\"\""), "One line that tells people what the group is for"),
];
