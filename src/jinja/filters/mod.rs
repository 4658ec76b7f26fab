//! Jinja's filters: `value | name(…)`.

mod markup;
mod sequence;
mod text;

use std::cmp::Ordering;

use crate::jinja::arguments::{Args, given, int_of, needed};
use crate::jinja::dict::Dict;
use crate::jinja::fault::{Fault, Res, UNDEFINED, type_error};
use crate::jinja::interpreter::Vm;
use crate::jinja::methods;
use crate::jinja::number::{read_float, read_int, rounded, truncated};
use crate::jinja::undefined::{Undefined, UndefinedKind};
use crate::jinja::value::{Value, View};
use crate::jinja::{format, meter, operators, print};

const NAMES: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
];

pub fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// The filters' names, for did-you-mean.
pub fn names() -> &'static [&'static str] {
    &NAMES
}

/// `input | name(…)`.
///
/// # Errors
/// There is no such filter, wrong arguments, or what the filter refuses.
pub fn call(vm: &mut Vm<'_>, name: &str, input: Value, args: Args) -> Res<Value> {
    match name {
        "default" | "d" => default(input, args),
        "abs" => {
            args.none(name)?;
            absolute(&input)
        }
        "attr" => {
            let [attribute] = args.all(name, ["name"])?;
            let attribute = print::text(&attribute)?;
            vm.plain_attribute(&input, &attribute)
        }
        "count" | "length" => {
            args.none(name)?;
            input.length().map(Value::count)
        }
        "int" => int(&input, args),
        "float" => {
            let [default] = args.bind(name, ["default"])?;
            Ok(match &input {
                Value::Undefined(undefined) => {
                    undefined.lenient()?;
                    default.unwrap_or(Value::Float(0.0))
                }
                Value::Text(text) => {
                    read_float(text.as_str()).map(Value::Float).or(default).unwrap_or(Value::Float(0.0))
                }
                _ => input.as_float().map(Value::Float).or(default).unwrap_or(Value::Float(0.0)),
            })
        }
        "round" => round(&input, args),
        "string" => {
            args.none(name)?;
            Ok(match input {
                Value::Text(_) => input,
                _ => Value::text(print::text(&input)?),
            })
        }
        "items" => {
            args.none(name)?;
            match &input {
                Value::Undefined(_) => Ok(Value::stream(Vec::new())),
                Value::Dict(dict) => Ok(Value::stream(Value::View(View::Items, dict.clone()).to_vec()?)),
                _ => type_error("Can only get item pairs from a mapping."),
            }
        }
        "format" => {
            let pattern = print::text(&input)?;
            if !args.named.is_empty() && !args.positional.is_empty() {
                return Err(Fault::new(
                    "FilterArgumentError",
                    "can't handle positional and keyword arguments at the same time",
                ));
            }
            let values = if args.named.is_empty() {
                Value::tuple(args.positional)
            } else {
                Value::Dict(Dict::of_texts(args.named.into_iter().map(|(name, value)| (name.to_string(), value))))
            };
            format::percent(&pattern, &values).map(Value::text)
        }
        "random" => {
            args.none(name)?;
            let items = input.to_vec()?;
            match items.len() {
                0 => Ok(nothing(vm, "No random item, sequence was empty.")),
                length => Ok(items[(vm.random() % length as u64) as usize].clone()),
            }
        }
        "escape" | "e" | "forceescape" | "safe" | "striptags" | "tojson" | "urlencode" | "urlize" | "xmlattr" => {
            markup::call(name, &input, args)
        }
        "capitalize" | "center" | "filesizeformat" | "indent" | "lower" | "pprint" | "replace" | "title" | "trim"
        | "truncate" | "upper" | "wordcount" | "wordwrap" => text::call(name, &input, args),
        _ if is_known(name) => sequence::call(vm, name, input, args),
        _ => Err(Fault::new("TemplateRuntimeError", format!("No filter named '{name}' found."))),
    }
}

/// An undefined value of a filter that found nothing.
fn nothing(vm: &Vm<'_>, message: &str) -> Value {
    Value::Undefined(std::rc::Rc::new(Undefined {
        message: message.to_owned(),
        name: "".into(),
        shown: message.to_owned(),
        class: UNDEFINED,
        kind: vm.undefined,
    }))
}

fn default(input: Value, args: Args) -> Res<Value> {
    let [value, is_boolean] = args.bind("default", ["default_value", "boolean"])?;
    let is_absent = match (&input, is_boolean) {
        (Value::Undefined(undefined), _) if undefined.class != UNDEFINED => return Err(undefined.fault()),
        (Value::Undefined(_), _) => true,
        (_, Some(is_boolean)) => is_boolean.is_true()? && !input.is_true()?,
        (_, None) => false,
    };
    Ok(if is_absent { value.unwrap_or_else(|| Value::text("")) } else { input })
}

fn absolute(value: &Value) -> Res<Value> {
    match value {
        Value::Float(number) => Ok(Value::Float(number.abs())),
        Value::Undefined(undefined) => Err(undefined.fault()),
        Value::Object(object) => object
            .operate("abs", &Value::None, false)
            .unwrap_or_else(|| type_error(format!("bad operand type for abs(): '{}'", value.type_name()))),
        _ => match value.as_int() {
            Some(number) => number.checked_abs().map(Value::Int).ok_or_else(operators::too_large),
            None => type_error(format!("bad operand type for abs(): '{}'", value.type_name())),
        },
    }
}

fn int(input: &Value, args: Args) -> Res<Value> {
    let [default, base] = args.bind("int", ["default", "base"])?;
    let default = default.unwrap_or(Value::Int(0));
    let base = base.map_or(Ok(10), |base| int_of(&base))?;
    let base = u32::try_from(base).ok().filter(|base| *base == 0 || (2..=36).contains(base));
    Ok(match input {
        Value::Undefined(undefined) => {
            undefined.lenient()?;
            default
        }
        Value::Text(text) => {
            let whole = base.and_then(|base| read_int(text.as_str(), base));
            let float = || read_float(text.as_str()).and_then(|number| truncated(number).ok());
            whole.or_else(float).map_or(default, Value::Int)
        }
        Value::Float(number) => truncated(*number).map_or(default, Value::Int),
        _ => input.as_int().map_or(default, Value::Int),
    })
}

fn round(input: &Value, args: Args) -> Res<Value> {
    let [digits, method] = args.bind("round", ["precision", "method"])?;
    let digits = i32::try_from(digits.map_or(Ok(0), |digits| int_of(&digits))?.clamp(-400, 400)).unwrap_or(0);
    let method = method.map_or(Ok("common".to_owned()), |method| print::text(&method))?;
    let Some(number) = input.as_float() else {
        return match input {
            Value::Undefined(undefined) => Err(undefined.fault()),
            _ => type_error(format!("type {} doesn't define __round__ method", input.type_name())),
        };
    };
    let scale = 10_f64.powi(digits);
    Ok(match &*method {
        "common" => match input.as_int() {
            Some(whole) if digits >= 0 => Value::Int(whole),
            Some(_) => Value::Int(truncated(rounded(number, digits))?),
            None => Value::Float(rounded(number, digits)),
        },
        "ceil" => Value::Float((number * scale).ceil() / scale),
        "floor" => Value::Float((number * scale).floor() / scale),
        _ => return Err(Fault::new("FilterArgumentError", "method must be common, ceil or floor")),
    })
}

/// Jinja's way to a part of an item: names and places with dots between them.
pub(super) struct Getter {
    parts: Vec<Value>,
    default: Option<Value>,
    ignores_case: bool,
}

impl Getter {
    /// Without an attribute it is the item itself.
    pub(super) fn new(attribute: Option<Value>, default: Option<Value>, ignores_case: bool) -> Res<Self> {
        let parts = match given(attribute) {
            None => Vec::new(),
            Some(Value::Text(text)) => {
                let part = |part: &str| match part.parse::<u32>() {
                    Ok(at) => Value::int(at),
                    Err(_) => Value::text(part),
                };
                text.as_str().split('.').map(part).collect()
            }
            Some(other) => vec![other],
        };
        Ok(Self { parts, default, ignores_case })
    }

    pub(super) fn get(&self, vm: &mut Vm<'_>, item: &Value) -> Res<Value> {
        let mut value = item.clone();
        for part in &self.parts {
            value = vm.item(&value, part)?;
            if let (Value::Undefined(_), Some(default)) = (&value, &self.default) {
                value = default.clone();
            }
        }
        Ok(match (&value, self.ignores_case) {
            (Value::Text(text), true) => Value::text(text.as_str().to_lowercase()),
            _ => value,
        })
    }
}

/// Sorts by a key, stably.
///
/// # Errors
/// Keys without an order.
pub fn sorted<T: Clone>(items: &mut Vec<T>, key: impl Fn(&T) -> Value) -> Res<()> {
    sorted_by(items, |item| Ok(key(item)), false)
}

/// Sorts by a key, stably, also in reverse.
///
/// # Errors
/// Keys without an order, or an error of `key`.
pub fn sorted_by<T: Clone>(items: &mut Vec<T>, mut key: impl FnMut(&T) -> Res<Value>, is_reverse: bool) -> Res<()> {
    let mut keyed = Vec::with_capacity(items.len());
    for item in items.iter() {
        keyed.push((key(item)?, item.clone()));
    }
    // Python's order may contradict itself (NaN), which the standard library's sort may answer with a panic: so a merge by hand.
    let mut width = 1;
    while width < keyed.len() {
        let mut merged = Vec::with_capacity(keyed.len());
        for pair in keyed.chunks(width * 2) {
            let (left, right) = pair.split_at(width.min(pair.len()));
            merge(left, right, is_reverse, &mut merged)?;
        }
        keyed = merged;
        width *= 2;
    }
    items.clear();
    items.extend(keyed.into_iter().map(|(_, item)| item));
    Ok(())
}

fn merge<T: Clone>(
    left: &[(Value, T)],
    right: &[(Value, T)],
    is_reverse: bool,
    merged: &mut Vec<(Value, T)>,
) -> Res<()> {
    let (mut one, mut other) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(first), Some(second)) = (one.peek(), other.peek()) {
        meter::step(1)?;
        let takes_second = if is_reverse {
            operators::order("<", &first.0, &second.0)? == Some(Ordering::Less)
        } else {
            operators::order("<", &second.0, &first.0)? == Some(Ordering::Less)
        };
        let next = if takes_second { other.next() } else { one.next() };
        merged.extend(next.cloned());
    }
    merged.extend(one.cloned());
    merged.extend(other.cloned());
    Ok(())
}

/// The words `true` and `false` of an argument, with its default.
fn flag(value: Option<Value>, default: bool) -> Res<bool> {
    value.map_or(Ok(default), |value| value.is_true())
}

/// Whether a filter's undefined input is an error at once.
fn defined(value: &Value) -> Res<()> {
    match value {
        Value::Undefined(undefined) if undefined.kind == UndefinedKind::Strict => Err(undefined.fault()),
        _ => Ok(()),
    }
}

fn argument(value: Option<Value>, function: &str, name: &str) -> Res<String> {
    print::text(&needed(value, function, name)?)
}

fn chars_stripped(text: &str, chars: Option<Value>) -> Res<String> {
    let chars = given(chars).map(|chars| print::text(&chars)).transpose()?;
    Ok(methods::stripped(text, "strip", chars.as_deref()).to_owned())
}
