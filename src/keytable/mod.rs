//! One table of keys (name, type, default, description) for each kind of file, and all that follows from it: the check of a
//! document that collects every fault, the JSON schema for editors, and the page of the documentation.
//!
//! Knows TOML and its places; knows neither DAGs nor settings: `dagfile` and `config` own their tables. Touches no disk and no clock.

mod document;
mod faults;
mod render;
mod value;
mod walk;
mod zones;

pub use document::{Limits, parse_document};
pub use faults::{Faults, Open, Source, suggest};
pub use render::{json_schema, markdown};
pub use value::{
    ENDING_SIGNALS, Edge, KILL_SIGNALS, Moment, Signals, edge_of, json, moment_of as moment, parse_duration,
    parse_moment, parse_period, parse_prefixed, parse_size, print_duration, print_period, print_size, rough_size,
    signal_number,
};
pub use walk::{Fields, check, check_table};
pub use zones::{zone, zone_help};

#[cfg(test)]
pub(crate) use render::assert_checked_in;

/// The keys of one table of a document.
#[derive(Debug)]
pub struct Table {
    /// As messages and headings call it, e.g. `a task`.
    pub name: &'static str,
    /// In groups, so that tables can share some of their keys.
    pub keys: &'static [&'static [Key]],
}

impl Table {
    pub fn iter(&self) -> impl Iterator<Item = &'static Key> + use<> {
        self.keys.iter().copied().flatten()
    }

    pub fn find(&self, name: &str) -> Option<&'static Key> {
        self.iter().find(|key| key.name == name)
    }
}

/// One key.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub default: Fallback,
    /// One sentence, without a full stop.
    pub description: &'static str,
}

/// What holds when a key is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    Nothing,
    /// This value, in TOML's notation.
    Toml(&'static str),
    /// A rule in words, such as another key.
    Words(&'static str),
}

/// What a value may be. The alternatives of [`Kind::Either`] differ in their TOML type.
#[derive(Debug)]
pub enum Kind {
    Text,
    /// Text that is rendered before use.
    Template,
    Bool,
    /// Only this truth value.
    Literal(bool),
    Integer {
        min: i64,
        max: i64,
    },
    /// A finite number, with a fraction or without, of at least this.
    Number {
        min: i64,
    },
    /// At least so many seconds.
    Duration {
        min: u64,
    },
    /// At least a second; in months and years of the calendar, too.
    Period,
    /// At least so many bytes.
    Size {
        min: u64,
    },
    Time,
    /// A time of day.
    TimeOfDay,
    /// The end of a window: a time of day, a date-time, or empty text for an open end.
    Bound,
    /// The name of a time zone.
    Zone,
    /// The name of one of these signals, with or without `SIG`.
    Signal(Signals),
    OneOf(&'static [&'static str]),
    /// One of the names, or the prefix with a duration behind it, as in `window:6h`.
    OneOfOr {
        names: &'static [&'static str],
        prefix: &'static str,
    },
    /// What JSON can hold, but not a table.
    Plain,
    /// A table that is a JSON Schema, with a default in it.
    Schema,
    /// What JSON can hold; its texts are templates.
    Any,
    /// What can be mapped over: a list or a table, of what JSON can hold.
    Elements,
    List(&'static Kind),
    /// A table whose keys the user chooses. The text names what a key is.
    Map(&'static str, &'static Kind),
    Table(&'static Table),
    Either(&'static [Kind]),
}

/// An integer of one or more.
pub const POSITIVE: Kind = Kind::Integer { min: 1, max: i32::MAX as i64 };
/// An integer of zero or more.
pub const COUNT: Kind = Kind::Integer { min: 0, max: i32::MAX as i64 };
