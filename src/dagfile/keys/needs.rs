//! The keys of `needs`.

use super::key;
use crate::keytable::{Fallback, Kind, Table};

pub static NEEDS: Table = Table {
    name: "`needs`",
    keys: &[&[
        key(
            "memory",
            Kind::Either(&[Kind::OneOf(&["auto"]), Kind::Size { min: 1 }]),
            Fallback::Nothing,
            "Memory that is reserved for each instance from its start to its end; `\"auto\"`: what nineteen of twenty of its earlier tries kept within",
        ),
        key("cpus", Kind::Number { min: 0 }, Fallback::Nothing, "Processors that are reserved for it, for example 0.5"),
    ]],
};
