//! Methods of Python's own types.

mod collections;
mod text;

use crate::jinja::arguments::Args;
use crate::jinja::fault::{Fault, Res};
use crate::jinja::interpreter::Vm;
use crate::jinja::value::Value;

/// Whether `of.name` is a method.
pub fn has(of: &Value, name: &str) -> bool {
    let names: &[&str] = match of {
        Value::Text(_) => &text::NAMES,
        Value::List(_) => &collections::OF_LISTS,
        Value::Tuple(_) => &["count", "index"],
        Value::Dict(_) => &collections::OF_DICTS,
        Value::Int(_) | Value::Bool(_) => &["bit_length", "bit_count", "conjugate", "as_integer_ratio", "is_integer"],
        Value::Float(_) => &["is_integer", "conjugate", "as_integer_ratio", "hex"],
        Value::Range(_) => &["count", "index"],
        Value::Object(object) => object.methods(),
        _ => &[],
    };
    names.contains(&name)
}

/// `of.name(…)`.
///
/// # Errors
/// Wrong arguments, or what the method refuses.
pub fn call(vm: &mut Vm<'_>, of: &Value, name: &str, args: Args) -> Res<Value> {
    match of {
        Value::Text(value) => text::call(vm, value.as_str(), name, args),
        Value::List(items) => collections::of_list(vm, of, items, name, args),
        Value::Tuple(_) | Value::Range(_) => collections::of_sequence(of, name, args),
        Value::Dict(dict) => collections::of_dict(vm, dict, name, args),
        Value::Int(_) | Value::Bool(_) | Value::Float(_) => of_number(of, name, args),
        _ => Err(Fault::new("AttributeError", format!("'{}' object has no attribute '{name}'", of.type_name()))),
    }
}

fn of_number(of: &Value, name: &str, args: Args) -> Res<Value> {
    args.none(name)?;
    let whole = of.as_int();
    Ok(match (name, of) {
        ("is_integer", Value::Float(number)) => Value::Bool(number.fract() == 0.0),
        ("is_integer", _) => Value::Bool(true),
        ("bit_length", _) => Value::int(128 - whole.unwrap_or_default().unsigned_abs().leading_zeros()),
        ("bit_count", _) => Value::int(whole.unwrap_or_default().unsigned_abs().count_ones()),
        ("as_integer_ratio", Value::Int(_) | Value::Bool(_)) => {
            Value::tuple(vec![Value::Int(whole.unwrap_or_default()), Value::Int(1)])
        }
        ("conjugate", _) => of.clone(),
        _ => {
            return Err(Fault::new("AttributeError", format!("'{}' object has no attribute '{name}'", of.type_name())));
        }
    })
}

pub use text::{capitalize, lines, replaced, stripped};
