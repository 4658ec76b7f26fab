//! Python's operators.

use std::cmp::Ordering;

use crate::jinja::fault::{Fault, Res, type_error};
use crate::jinja::print::{self, MOST_DEEP, too_deep};
use crate::jinja::value::{Items, Value};
use crate::jinja::{format, meter};

fn refused(operator: &str, left: &Value, right: &Value) -> Box<Fault> {
    for value in [left, right] {
        if let Value::Undefined(undefined) = value {
            return undefined.fault();
        }
    }
    let (left, right) = (left.type_name(), right.type_name());
    let shown = if operator == "**" { "** or pow()" } else { operator };
    Fault::new("TypeError", format!("unsupported operand type(s) for {shown}: '{left}' and '{right}'"))
}

/// A number that Python has and templates have not.
pub fn too_large() -> Box<Fault> {
    Fault::new(
        "OverflowError",
        "a whole number of more than 127 bits, which templates do not have; compute with floats",
    )
}

/// `left OPERATOR right`.
///
/// # Errors
/// Types that do not go together, a division by zero, a result that is too large.
pub fn binary(operator: &'static str, left: &Value, right: &Value) -> Res<Value> {
    if let (Some(left), Some(right)) = (left.as_int(), right.as_int()) {
        return of_ints(operator, left, right);
    }
    if let (Some(left), Some(right)) = (left.as_float(), right.as_float()) {
        return of_floats(operator, left, right);
    }
    if let Value::Object(object) = left
        && let Some(result) = object.operate(operator, right, false)
    {
        return result;
    }
    if let Value::Object(object) = right
        && let Some(result) = object.operate(operator, left, true)
    {
        return result;
    }
    match (operator, left, right) {
        ("+", Value::Text(one), Value::Text(other)) => {
            let (one_text, other_text) = (one.as_str(), other.as_str());
            meter::read(one_text.len() + other_text.len())?;
            meter::room(one_text.len() + other_text.len())?;
            if !one.is_markup() && !other.is_markup() {
                return Ok(Value::text([one_text, other_text].concat()));
            }
            let safe = |text: &crate::jinja::value::Text| {
                if text.is_markup() { Ok(text.as_str().to_owned()) } else { escape(text.as_str()) }
            };
            Ok(Value::markup(safe(one)? + &safe(other)?))
        }
        ("+", Value::List(one), Value::List(other)) => Ok(Value::list(joined(one, other)?)),
        ("+", Value::Tuple(one), Value::Tuple(other)) => Ok(Value::tuple(joined(one, other)?)),
        ("*", sequence, times) | ("*", times, sequence)
            if times.as_int().is_some() && matches!(sequence, Value::Text(_) | Value::List(_) | Value::Tuple(_)) =>
        {
            repeated(sequence, times.as_int().unwrap_or_default())
        }
        ("%", Value::Text(pattern), values) => {
            let text = format::percent(pattern.as_str(), values)?;
            Ok(if pattern.is_markup() { Value::markup(text) } else { Value::text(text) })
        }
        ("+", Value::Text(_), other) if !other.is_undefined() => {
            type_error(format!("can only concatenate str (not \"{}\") to str", other.type_name()))
        }
        ("+", Value::List(_), other) if !other.is_undefined() => {
            type_error(format!("can only concatenate list (not \"{}\") to list", other.type_name()))
        }
        _ => Err(refused(operator, left, right)),
    }
}

fn joined(one: &Items, other: &Items) -> Res<Vec<Value>> {
    let count = one.len() + other.len();
    meter::step(count)?;
    meter::room(count * size_of::<Value>())?;
    let mut all = Vec::with_capacity(count);
    one.with(|items| all.extend_from_slice(items));
    other.with(|items| all.extend_from_slice(items));
    Ok(all)
}

fn repeated(sequence: &Value, times: i128) -> Res<Value> {
    let times = usize::try_from(times.clamp(0, i128::from(u32::MAX))).unwrap_or_default();
    let bytes = match sequence {
        Value::Text(text) => text.as_str().len(),
        Value::List(items) | Value::Tuple(items) => items.len() * size_of::<Value>(),
        _ => 0,
    };
    let bytes = bytes.saturating_mul(times);
    meter::room(bytes)?;
    meter::read(bytes)?;
    let again = |items: &Items| {
        let once = items.to_vec();
        let mut all = Vec::with_capacity(once.len() * times);
        for _ in 0..times {
            all.extend_from_slice(&once);
        }
        all
    };
    Ok(match sequence {
        Value::Text(text) if text.is_markup() => Value::markup(text.as_str().repeat(times)),
        Value::Text(text) => Value::text(text.as_str().repeat(times)),
        Value::List(items) => Value::list(again(items)),
        Value::Tuple(items) => Value::tuple(again(items)),
        _ => return type_error("can't multiply sequence by non-int"),
    })
}

fn of_ints(operator: &'static str, left: i128, right: i128) -> Res<Value> {
    let whole = |result: Option<i128>| result.map(Value::Int).ok_or_else(too_large);
    match operator {
        "+" => whole(left.checked_add(right)),
        "-" => whole(left.checked_sub(right)),
        "*" => whole(left.checked_mul(right)),
        "**" if right < 0 => of_floats(operator, left as f64, right as f64),
        "**" => whole(u32::try_from(right).ok().and_then(|right| left.checked_pow(right)).or(match left {
            0 | 1 => Some(left),
            -1 => Some(if right % 2 == 0 { 1 } else { -1 }),
            _ => None,
        })),
        "/" if right == 0 => Err(Fault::new("ZeroDivisionError", "division by zero")),
        "/" => Ok(Value::Float(left as f64 / right as f64)),
        "//" if right == 0 => Err(Fault::new("ZeroDivisionError", "integer division or modulo by zero")),
        "%" if right == 0 => Err(Fault::new("ZeroDivisionError", "integer modulo by zero")),
        "//" => whole(left.checked_div(right).map(|quotient| {
            let is_inexact = left.checked_rem(right).is_some_and(|rest| rest != 0);
            if is_inexact && (left < 0) != (right < 0) { quotient - 1 } else { quotient }
        })),
        _ => whole(
            left.checked_rem(right)
                .map(|rest| if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest }),
        ),
    }
}

fn of_floats(operator: &'static str, left: f64, right: f64) -> Res<Value> {
    let zero = || Fault::new("ZeroDivisionError", "float division by zero");
    Ok(Value::Float(match operator {
        "+" => left + right,
        "-" => left - right,
        "*" => left * right,
        "**" if left == 0.0 && right < 0.0 => {
            return Err(Fault::new("ZeroDivisionError", "0.0 cannot be raised to a negative power"));
        }
        "**" => left.powf(right),
        _ if right == 0.0 => return Err(zero()),
        "/" => left / right,
        "//" => (left / right).floor(),
        _ => {
            let rest = left % right;
            if rest != 0.0 && (rest < 0.0) != (right < 0.0) { rest + right } else { rest }
        }
    }))
}

/// `-value`, `+value`.
///
/// # Errors
/// It is no number.
pub fn sign(operator: &str, value: &Value) -> Res<Value> {
    let is_minus = operator == "-";
    match value {
        Value::Float(number) => Ok(Value::Float(if is_minus { -number } else { *number })),
        Value::Undefined(undefined) => Err(undefined.fault()),
        Value::Object(object) => {
            let done = object.operate(if is_minus { "neg" } else { "pos" }, &Value::None, false);
            done.unwrap_or_else(|| bad_sign(operator, value))
        }
        _ => match value.as_int() {
            Some(number) if is_minus => number.checked_neg().map(Value::Int).ok_or_else(too_large),
            Some(number) => Ok(Value::Int(number)),
            None => bad_sign(operator, value),
        },
    }
}

fn bad_sign<T>(operator: &str, value: &Value) -> Res<T> {
    type_error(format!("bad operand type for unary {operator}: '{}'", value.type_name()))
}

/// Python's `==`.
///
/// # Errors
/// A strictly undefined value, or one that is too deep.
pub fn equals(left: &Value, right: &Value) -> Res<bool> {
    same(left, right, 0)
}

fn same(left: &Value, right: &Value, depth: usize) -> Res<bool> {
    if depth > MOST_DEEP {
        return Err(too_deep());
    }
    meter::step(1)?;
    Ok(match (left, right) {
        (Value::Undefined(undefined), other) | (other, Value::Undefined(undefined)) => {
            undefined.lenient()?;
            other.is_undefined()
        }
        (Value::None, Value::None) => true,
        (Value::Text(left), Value::Text(right)) => {
            meter::read(left.as_str().len().min(right.as_str().len()))?;
            left.as_str() == right.as_str()
        }
        (Value::List(left), Value::List(right)) | (Value::Tuple(left), Value::Tuple(right)) => {
            if left.len() != right.len() {
                return Ok(false);
            }
            for (one, other) in left.to_vec().iter().zip(&right.to_vec()) {
                if !same(one, other, depth + 1)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Dict(left), Value::Dict(right)) => {
            if left.len() != right.len() {
                return Ok(false);
            }
            for (key, one) in left.entries() {
                let is_same = match right.get(&key)? {
                    Some(other) => same(&one, &other, depth + 1)?,
                    None => false,
                };
                if !is_same {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Range(left), Value::Range(right)) => {
            left.len() == right.len()
                && left.get(0).map(|v| v.as_int()) == right.get(0).map(|v| v.as_int())
                && (left.len() < 2 || left.step == right.step)
        }
        (Value::Object(left), Value::Object(right)) if std::rc::Rc::ptr_eq(left, right) => true,
        (Value::Object(left), other) | (other, Value::Object(left)) => left.equals(other),
        (Value::Stream(left), Value::Stream(right)) => std::rc::Rc::ptr_eq(left, right),
        _ => order_of_numbers(left, right) == Some(Ordering::Equal),
    })
}

fn order_of_numbers(left: &Value, right: &Value) -> Option<Ordering> {
    match (left.as_int(), right.as_int()) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => left.as_float()?.partial_cmp(&right.as_float()?),
    }
}

/// The order of two values; None where neither comes first, as with NaN.
///
/// # Errors
/// Types without an order, a strictly undefined value.
pub fn order(operator: &str, left: &Value, right: &Value) -> Res<Option<Ordering>> {
    compare(operator, left, right, 0)
}

fn compare(operator: &str, left: &Value, right: &Value, depth: usize) -> Res<Option<Ordering>> {
    if depth > MOST_DEEP {
        return Err(too_deep());
    }
    meter::step(1)?;
    match (left, right) {
        (Value::Undefined(undefined), _) | (_, Value::Undefined(undefined)) => return Err(undefined.fault()),
        (Value::Text(left), Value::Text(right)) => {
            meter::read(left.as_str().len().min(right.as_str().len()))?;
            return Ok(Some(left.as_str().cmp(right.as_str())));
        }
        (Value::List(left), Value::List(right)) | (Value::Tuple(left), Value::Tuple(right)) => {
            let (left, right) = (left.to_vec(), right.to_vec());
            for (one, other) in left.iter().zip(&right) {
                if !same(one, other, depth + 1)? {
                    return compare(operator, one, other, depth + 1);
                }
            }
            return Ok(Some(left.len().cmp(&right.len())));
        }
        _ => {}
    }
    let is_number = |value: &Value| value.as_float().is_some();
    if is_number(left) && is_number(right) {
        return Ok(order_of_numbers(left, right));
    }
    let found = match (left, right) {
        (Value::Object(left), other) => left.order(other),
        (other, Value::Object(right)) => right.order(other).map(Ordering::reverse),
        _ => None,
    };
    found.map(Some).ok_or_else(|| {
        let (left, right) = (left.type_name(), right.type_name());
        Fault::new("TypeError", format!("'{operator}' not supported between instances of '{left}' and '{right}'"))
    })
}

/// One comparison.
///
/// # Errors
/// As [`equals`], [`order`] and [`contains`].
pub fn holds(operator: &str, left: &Value, right: &Value) -> Res<bool> {
    Ok(match operator {
        "==" => equals(left, right)?,
        "!=" => !equals(left, right)?,
        "in" => contains(right, left)?,
        "not in" => !contains(right, left)?,
        _ => {
            let order = order(operator, left, right)?;
            match operator {
                "<" => order == Some(Ordering::Less),
                ">" => order == Some(Ordering::Greater),
                "<=" => order.is_some_and(Ordering::is_le),
                _ => order.is_some_and(Ordering::is_ge),
            }
        }
    })
}

/// `item in whole`.
///
/// # Errors
/// Nothing can be in it.
pub fn contains(whole: &Value, item: &Value) -> Res<bool> {
    match (whole, item) {
        (Value::Undefined(undefined), _) => {
            undefined.lenient()?;
            Ok(false)
        }
        (Value::Text(whole), Value::Text(part)) => {
            meter::read(whole.as_str().len())?;
            Ok(whole.as_str().contains(part.as_str()))
        }
        (Value::Text(_), Value::Undefined(undefined)) => Err(undefined.fault()),
        (Value::Text(_), _) => {
            type_error(format!("'in <string>' requires string as left operand, not {}", item.type_name()))
        }
        (Value::Dict(dict) | Value::View(crate::jinja::value::View::Keys, dict), _) => Ok(dict.get(item)?.is_some()),
        _ => {
            let items = whole.iterate().map_err(|fault| match whole {
                Value::Undefined(_) => fault,
                _ => Fault::new("TypeError", format!("argument of type '{}' is not iterable", whole.type_name())),
            })?;
            for other in items {
                if equals(&other, item)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

/// A text as markup.
///
/// # Errors
/// The result is too large.
pub fn escape(text: &str) -> Res<String> {
    with_escapes(text, &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('\'', "&#39;"), ('"', "&#34;")])
}

/// `text` with another text for some of its characters.
///
/// # Errors
/// The result is too large.
pub fn with_escapes(text: &str, escapes: &[(char, &str)]) -> Res<String> {
    let escape_of = |char: char| escapes.iter().find(|(known, _)| *known == char).map(|(_, escape)| *escape);
    let size = text.chars().map(|char| escape_of(char).map_or(char.len_utf8(), str::len)).sum();
    meter::read(size)?;
    meter::room(size)?;
    let mut out = String::with_capacity(size);
    for char in text.chars() {
        match escape_of(char) {
            Some(escape) => out.push_str(escape),
            None => out.push(char),
        }
    }
    Ok(out)
}

/// A value as markup: what is markup already stays.
///
/// # Errors
/// As [`print::text`].
pub fn escaped(value: &Value) -> Res<String> {
    match value {
        Value::Text(text) if text.is_markup() => Ok(text.as_str().to_owned()),
        _ => escape(&print::text(value)?),
    }
}
