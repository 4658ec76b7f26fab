//! What stops a template, under the name that Python gives it.

use std::rc::Rc;

/// Where in a text something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The template file, as it was asked for; None: the text itself.
    pub file: Option<Rc<str>>,
    /// Counts from 1.
    pub line: u32,
    /// Counts from 1, in characters.
    pub column: u32,
}

impl Place {
    /// Of the byte `offset` in `text`.
    pub fn of(text: &str, offset: usize, file: Option<Rc<str>>) -> Self {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &text[..offset];
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() as u32 + 1;
        Self { file, line, column: before[start..].chars().count() as u32 + 1 }
    }
}

/// An error. The class is that of Jinja or Python, e.g. `UndefinedError`, `TypeError`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub class: &'static str,
    pub message: String,
    /// As soon as it is known.
    pub place: Option<Place>,
    /// The expression whose value is undefined, e.g. `params.x`; empty for other faults.
    pub subject: String,
}

pub type Res<T> = Result<T, Box<Fault>>;

/// The classes that code asks about.
pub const UNDEFINED: &str = "UndefinedError";
pub const SYNTAX: &str = "TemplateSyntaxError";
pub const ASSERTION: &str = "TemplateAssertionError";
/// minflow's own: a bound of work or memory.
pub const LIMIT: &str = "LimitError";

impl Fault {
    pub fn new(class: &'static str, message: impl Into<String>) -> Box<Self> {
        Box::new(Self { class, message: message.into(), place: None, subject: String::new() })
    }
}

pub fn type_error<T>(message: impl Into<String>) -> Res<T> {
    Err(Fault::new("TypeError", message))
}

pub fn value_error<T>(message: impl Into<String>) -> Res<T> {
    Err(Fault::new("ValueError", message))
}
