//! The arguments of a call, and how a function written here takes them.

use std::rc::Rc;

use crate::jinja::fault::{Fault, Res, type_error};
use crate::jinja::value::Value;

#[derive(Clone, Default)]
pub struct Args {
    pub positional: Vec<Value>,
    pub named: Vec<(Rc<str>, Value)>,
}

impl Args {
    pub fn of(positional: Vec<Value>) -> Self {
        Self { positional, named: Vec::new() }
    }

    /// With `first` before all others.
    pub fn before(mut self, first: Value) -> Self {
        self.positional.insert(0, first);
        self
    }

    /// The values of the parameters `names`, by place or by name. A parameter that begins with `*` is taken by name alone.
    ///
    /// # Errors
    /// Too many, one twice, or one of another name.
    pub fn bind<const N: usize>(self, function: &str, names: [&str; N]) -> Res<[Option<Value>; N]> {
        let by_place = names.iter().filter(|name| !name.starts_with('*')).count();
        let given = self.positional.len();
        if given > by_place {
            return type_error(format!("{function}() takes at most {by_place} arguments but {given} were given"));
        }
        let mut values = [const { None }; N];
        for (slot, value) in values.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            let Some(at) = names.iter().position(|known| known.trim_start_matches('*') == &*name) else {
                return type_error(format!("{function}() got an unexpected keyword argument '{name}'"));
            };
            if values[at].replace(value).is_some() {
                return type_error(format!("{function}() got multiple values for argument '{name}'"));
            }
        }
        Ok(values)
    }

    /// As [`Args::bind`], of a function whose parameters are all needed.
    ///
    /// # Errors
    /// One is missing, or as there.
    pub fn all<const N: usize>(self, function: &str, names: [&str; N]) -> Res<[Value; N]> {
        let values = self.bind(function, names)?;
        for (value, name) in values.iter().zip(names) {
            if value.is_none() {
                return type_error(format!("{function}() missing 1 required positional argument: '{name}'"));
            }
        }
        Ok(values.map(|value| value.expect("it was looked at")))
    }

    /// # Errors
    /// There are some.
    pub fn none(self, function: &str) -> Res<()> {
        self.bind::<0>(function, []).map(|_| ())
    }
}

/// A parameter that must be given.
///
/// # Errors
/// It was not.
pub fn needed(value: Option<Value>, function: &str, name: &str) -> Res<Value> {
    value.ok_or_else(|| {
        Fault::new("TypeError", format!("{function}() missing 1 required positional argument: '{name}'"))
    })
}

/// The text of an argument.
///
/// # Errors
/// It is no text.
pub fn text_of<'v>(value: &'v Value, name: &str) -> Res<&'v str> {
    match value {
        Value::Text(text) => Ok(text.as_str()),
        Value::Undefined(undefined) => Err(undefined.fault()),
        _ => type_error(format!("{name} must be str, not {}", value.type_name())),
    }
}

/// The whole number of an argument.
///
/// # Errors
/// It is none, or beyond 63 bits.
pub fn int_of(value: &Value) -> Res<i64> {
    match value {
        Value::Undefined(undefined) => Err(undefined.fault()),
        _ => match value.as_int() {
            Some(number) => i64::try_from(number)
                .map_err(|_| Fault::new("OverflowError", "Python int too large to convert to C ssize_t")),
            None => type_error(format!("'{}' object cannot be interpreted as an integer", value.type_name())),
        },
    }
}

/// A number that counts something: what is negative counts as none.
///
/// # Errors
/// As [`int_of`].
pub fn size_of_argument(value: &Value) -> Res<usize> {
    Ok(usize::try_from(int_of(value)?).unwrap_or(0))
}

/// A parameter with a default: None means that it is not given.
pub fn given(value: Option<Value>) -> Option<Value> {
    value.filter(|value| !value.is_none())
}
