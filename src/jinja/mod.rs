//! Jinja as Python has it: a text with tags becomes a text, or a value.
//!
//! Knows Jinja's grammar, filters, tests and functions, and Python's values with their operators and methods as far as templates use
//! them. Knows nothing of Airflow, files, clocks and databases: variables, further filters and template files come through [`Outside`].
//! One render holds and does no more than [`meter`] allows, whatever the text says.

pub mod arguments;
mod compose;
pub mod dict;
mod evaluate;
pub mod fault;
mod filters;
pub mod format;
mod functions;
mod interpreter;
pub mod json;
mod lexer;
mod literal;
mod loops;
mod macros;
pub mod meter;
mod methods;
pub mod number;
pub mod operators;
mod parser;
pub mod print;
mod scope;
mod syntax;
mod tests_of_values;
mod undefined;
pub mod value;

use std::rc::Rc;

pub use arguments::Args;
pub use fault::{Fault, Place, Res};
pub use functions::Callable;
pub use interpreter::Vm;
pub use undefined::UndefinedKind;
pub use value::{Items, Mark, Object, Text, Value};

/// A filter or function that comes from outside.
pub type Function = Rc<dyn Fn(&mut Vm<'_>, Args) -> Res<Value>>;

/// What a template finds outside of itself.
pub trait Outside {
    /// The variable of that name.
    ///
    /// # Errors
    /// What it comes from did not answer.
    fn variable(&self, name: &str) -> Res<Option<Value>>;

    /// The filter of that name, where Jinja has none or another; what is filtered is its first argument.
    fn filter(&self, name: &str) -> Option<Function>;

    /// The text of a template file.
    ///
    /// # Errors
    /// It may not be read, or cannot be.
    fn load(&self, name: &str) -> Res<Option<String>>;

    /// Whether a call of the function of that name prints truth values and None as JSON.
    fn prints_json(&self, _name: &str) -> bool {
        false
    }

    /// The instant at which the template is rendered.
    fn now(&self) -> jiff::Timestamp;

    /// Where the chances of `random` begin, so that a template can be rendered again.
    fn seed(&self) -> u64;
}

/// The text that a template becomes. `file` is the template file that it comes from, for the places of faults.
///
/// # Errors
/// The first fault in it.
pub fn render(source: &str, file: Option<&str>, outside: &dyn Outside, undefined: UndefinedKind) -> Res<String> {
    interpreter::render(source, file, outside, undefined)
}

/// The names of Jinja's filters.
pub fn filter_names() -> &'static [&'static str] {
    filters::names()
}

/// Whether a native value that is a text with one of Python's literals becomes what that means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Literals {
    /// As Jinja's native environment does.
    Read,
    Kept,
}

/// The value that a template becomes: that of its only expression, else the text.
///
/// # Errors
/// The first fault in it.
pub fn native(
    source: &str,
    outside: &dyn Outside,
    undefined: UndefinedKind,
    literals: Literals,
) -> Res<serde_json::Value> {
    interpreter::native(source, outside, undefined, literals)
}

/// What a text means that is one Python literal; None if it is none.
pub fn read_literal(text: &str) -> Option<serde_json::Value> {
    let _session = meter::Session::begin();
    json::to_json(&literal::read(text)?).ok()
}

/// Looks whether a text is a template at all: its syntax, and the names of its filters and tests.
///
/// # Errors
/// The first fault of syntax.
pub fn check(source: &str, is_filter: &dyn Fn(&str) -> bool) -> Res<()> {
    let names = parser::Names {
        is_filter: &|name| filters::is_known(name) || is_filter(name),
        is_test: &tests_of_values::is_known,
    };
    parser::parse(source, None, &names).map(|_| ())
}

#[cfg(test)]
mod tests;
