//! Operators whose work is told by a table alone: `http`, `email`, `docker`, and plugins.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::dag::Position;

/// What a task asks of such an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    pub kind: ToolKind,
    /// Those that the file gives, in its order; durations as whole seconds.
    pub fields: Vec<ToolField>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolKind {
    Docker,
    Email,
    Http,
    /// The executable of that name among the plugins.
    Plugin(String),
}

impl ToolKind {
    /// The key that names it in a DAG file.
    pub fn name(&self) -> &str {
        match self {
            Self::Docker => "docker",
            Self::Email => "email",
            Self::Http => "http",
            Self::Plugin(name) => name,
        }
    }
}

/// One key of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolField {
    pub name: String,
    /// Its texts are templates.
    pub value: Value,
    /// Of a text its first character, else where the value stands.
    pub at: Position,
    /// Its text is rendered by the operator itself, which knows more.
    pub is_late: bool,
    /// Its text is no template.
    pub is_plain: bool,
}

/// A status of an HTTP answer, or all from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statuses {
    pub first: u16,
    pub last: u16,
}

impl Statuses {
    pub const fn new(first: u16, last: u16) -> Self {
        Self { first, last }
    }

    /// `404`, or `200..299` with both ends.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.trim().parse().ok().filter(|status| (100..=599).contains(status));
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some(Self { first, last })
    }

    /// A number, or a text as [`Statuses::parse`] reads it.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => Self::parse(&number.to_string()),
            Value::String(text) => Self::parse(text),
            _ => None,
        }
    }

    pub fn hold(all: &[Self], status: u16) -> bool {
        all.iter().any(|statuses| (statuses.first..=statuses.last).contains(&status))
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}..{}", self.first, self.last) }
    }
}

/// What of an HTTP answer becomes the value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Taken {
    /// The body as text.
    #[default]
    Text,
    /// The body, which must be JSON.
    Json,
    None,
}

impl Taken {
    /// The names in a DAG file.
    pub const NAMES: &'static [&'static str] = &["text", "json", "none"];

    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Text, Self::Json, Self::None];
        all.into_iter().zip(Self::NAMES).find(|(_, known)| **known == name).map(|(taken, _)| taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_single_or_from_one_to_another() {
        let all: Vec<_> =
            ["200..299", " 404", "301 .. 301"].iter().map(|text| Statuses::parse(text).unwrap()).collect();
        assert_eq!(all.iter().map(ToString::to_string).collect::<Vec<_>>(), ["200..299", "404", "301"]);
        let held: Vec<u16> =
            [199, 200, 299, 300, 301, 404].into_iter().filter(|&status| Statuses::hold(&all, status)).collect();
        assert_eq!(held, [200, 299, 301, 404]);
        for wrong in ["", "2xx", "299..200", "99", "600", "200..", "200...299", "200..=299"] {
            assert_eq!(Statuses::parse(wrong), None, "{wrong}");
        }
    }
}
