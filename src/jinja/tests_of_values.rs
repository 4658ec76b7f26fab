//! Jinja's tests: `value is name`.

use crate::jinja::arguments::Args;
use crate::jinja::fault::{Fault, Res, type_error};
use crate::jinja::operators;
use crate::jinja::value::Value;

const NAMES: [&str; 39] = [
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

pub fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

fn whole(value: &Value) -> Res<i128> {
    match value {
        Value::Undefined(undefined) => Err(undefined.fault()),
        _ => value
            .as_int()
            .or(value.as_float().filter(|number| number.fract() == 0.0).map(|number| number as i128))
            .ok_or_else(|| {
                Fault::new("TypeError", format!("unsupported operand type(s) for %: '{}' and 'int'", value.type_name()))
            }),
    }
}

/// Whether the test of that name holds.
///
/// # Errors
/// There is no such test, wrong arguments, or a comparison that Python refuses.
pub fn holds(name: &str, value: &Value, args: Args) -> Res<bool> {
    let operator = match name {
        "eq" | "equalto" | "==" => Some("=="),
        "ne" | "!=" => Some("!="),
        "lt" | "lessthan" | "<" => Some("<"),
        "le" | "<=" => Some("<="),
        "gt" | "greaterthan" | ">" => Some(">"),
        "ge" | ">=" => Some(">="),
        "in" => Some("in"),
        _ => None,
    };
    if let Some(operator) = operator {
        let [other] = args.all(name, ["other"])?;
        return operators::holds(operator, value, &other);
    }
    match name {
        "divisibleby" => {
            let [by] = args.all(name, ["num"])?;
            let by = whole(&by)?;
            if by == 0 {
                return Err(Fault::new("ZeroDivisionError", "integer modulo by zero"));
            }
            return Ok(whole(value)? % by == 0);
        }
        "sameas" => {
            let [other] = args.all(name, ["other"])?;
            return Ok(is_same(value, &other));
        }
        _ => args.none(name)?,
    }
    Ok(match name {
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "none" => value.is_none(),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_)),
        "string" => matches!(value, Value::Text(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "sequence" => match value {
            Value::Text(_) | Value::List(_) | Value::Tuple(_) | Value::Dict(_) | Value::Range(_) => true,
            Value::Undefined(_) => value.length().is_ok(),
            Value::Object(object) => object.items().is_some(),
            _ => false,
        },
        "iterable" => match value {
            Value::Undefined(_) => value.iterate().map(|_| true)?,
            _ => value.iterate().is_ok(),
        },
        "callable" => matches!(value, Value::Object(object) if object.is_callable()),
        "escaped" => matches!(value, Value::Text(text) if text.is_markup()),
        "even" => whole(value)? % 2 == 0,
        "odd" => whole(value)? % 2 != 0,
        "lower" => is_case(&crate::jinja::print::text(value)?, char::is_lowercase, char::is_uppercase),
        "upper" => is_case(&crate::jinja::print::text(value)?, char::is_uppercase, char::is_lowercase),
        "filter" => value.as_str().is_some_and(crate::jinja::filters::is_known),
        "test" => value.as_str().is_some_and(is_known),
        _ => return Err(Fault::new("TemplateRuntimeError", format!("No test named '{name}' found."))),
    })
}

/// Python's `islower` and `isupper`.
pub fn is_case(text: &str, wanted: fn(char) -> bool, unwanted: fn(char) -> bool) -> bool {
    text.chars().any(wanted) && !text.chars().any(unwanted)
}

/// Python's `is`: the small values that exist once, and the very same list, dict or object.
fn is_same(left: &Value, right: &Value) -> bool {
    use std::rc::Rc;
    match (left, right) {
        (Value::None, Value::None) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Int(left), Value::Int(right)) => left == right && (-5..=256).contains(left),
        (Value::Text(left), Value::Text(right)) => left.as_str() == right.as_str(),
        (Value::List(left), Value::List(right)) | (Value::Tuple(left), Value::Tuple(right)) => Rc::ptr_eq(left, right),
        (Value::Dict(left), Value::Dict(right)) => Rc::ptr_eq(left, right),
        (Value::Object(left), Value::Object(right)) => Rc::ptr_eq(left, right),
        _ => false,
    }
}

/// For filters that take a test by name.
///
/// # Errors
/// There is none of that name.
pub fn named(name: &Value) -> Res<String> {
    match name.as_str() {
        Some(name) if is_known(name) => Ok(name.to_owned()),
        Some(name) => Err(Fault::new("TemplateRuntimeError", format!("No test named '{name}'."))),
        None => type_error("the name of a test is a text"),
    }
}
