//! The keys by which a task or a group becomes many instances.

use super::key;
use crate::keytable::{Fallback, Key, Kind, Table};

pub const EXPAND: Key = key(
    "expand",
    Kind::Map("variable", &Kind::Elements),
    Fallback::Nothing,
    "Makes an instance for each element: variables of templates, each with its elements; of several each with each, the last fastest",
);
pub const EXPAND_KWARGS: Key = key(
    "expand_kwargs",
    Kind::Elements,
    Fallback::Nothing,
    "Makes an instance for each element, which is a table of variables",
);
pub const PARTIAL: Key = key(
    "partial",
    Kind::Map("variable", &Kind::Any),
    Fallback::Toml("{}"),
    "Variables that are the same for all instances",
);

pub static INPUT: Table = Table {
    name: "an input",
    keys: &[&[
        key(
            "xcom",
            Kind::Text,
            Fallback::Nothing,
            "The elements are what this task gives, which becomes one that comes before; of a mapped one what its instances give",
        ),
        key("key", Kind::Text, Fallback::Toml("\"return_value\""), "The key of that XCom"),
        key(
            "zip",
            Kind::List(&Kind::Elements),
            Fallback::Nothing,
            "Inputs that are taken side by side: an element is a list of one of each, as many as the shortest has",
        ),
        key(
            "fillvalue",
            Kind::Any,
            Fallback::Nothing,
            "Stands in `zip` for what the shorter ones lack: there are as many elements as the longest has",
        ),
        key("concat", Kind::List(&Kind::Elements), Fallback::Nothing, "Inputs that are taken one after the other"),
        key("values", Kind::Elements, Fallback::Nothing, "The elements themselves, a list or a table"),
        key(
            "map",
            Kind::Template,
            Fallback::Nothing,
            "What becomes of each element, the variable `item`, before its instance gets it",
        ),
        key(
            "filter",
            Kind::Template,
            Fallback::Nothing,
            "Whether an instance runs; where it comes to something false, empty or 0 it is skipped",
        ),
    ]],
};
