//! Methods of lists, tuples, ranges and dicts.

use std::rc::Rc;

use crate::jinja::arguments::{Args, int_of};
use crate::jinja::dict::Dict;
use crate::jinja::fault::{Fault, Res, type_error, value_error};
use crate::jinja::interpreter::{Kept, Vm};
use crate::jinja::value::{Items, Value, View};
use crate::jinja::{filters, meter, operators, print};

pub(super) const OF_LISTS: [&str; 11] =
    ["append", "extend", "insert", "pop", "remove", "clear", "copy", "count", "index", "reverse", "sort"];
pub(super) const OF_DICTS: [&str; 11] =
    ["get", "keys", "values", "items", "copy", "pop", "popitem", "setdefault", "update", "clear", "fromkeys"];

pub(super) fn of_sequence(of: &Value, name: &str, args: Args) -> Res<Value> {
    let items = of.to_vec()?;
    match name {
        "count" => {
            let [wanted] = args.all(name, ["value"])?;
            let mut count = 0;
            for item in &items {
                count += usize::from(operators::equals(item, &wanted)?);
            }
            Ok(Value::count(count))
        }
        _ => {
            let [wanted, start, stop] = args.bind(name, ["value", "start", "stop"])?;
            let wanted = crate::jinja::arguments::needed(wanted, name, "value")?;
            let from = start.map_or(Ok(0), |start| int_of(&start).map(|at| bounded(at, items.len())))?;
            let to = stop.map_or(Ok(items.len()), |stop| int_of(&stop).map(|at| bounded(at, items.len())))?;
            for (at, item) in items.iter().enumerate().take(to).skip(from) {
                if operators::equals(item, &wanted)? {
                    return Ok(Value::count(at));
                }
            }
            value_error(format!("{} is not in {}", print::repr(&wanted)?, of.type_name()))
        }
    }
}

/// A place as Python's slices take it: from the end if negative, never outside.
fn bounded(at: i64, length: usize) -> usize {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    usize::try_from(if at < 0 { (at + length).max(0) } else { at.min(length) }).unwrap_or(0)
}

/// Where Python's `list[at]` is.
fn place(at: i64, length: usize) -> Option<usize> {
    let at = if at < 0 { at.checked_add(i64::try_from(length).ok()?)? } else { at };
    usize::try_from(at).ok().filter(|at| *at < length)
}

pub(super) fn of_list(vm: &mut Vm<'_>, of: &Value, items: &Rc<Items>, name: &str, args: Args) -> Res<Value> {
    if matches!(name, "append" | "extend" | "insert") {
        vm.keep(Kept::List(Rc::downgrade(items)));
    }
    match name {
        "append" => {
            let [item] = args.all(name, ["object"])?;
            items.change(|all| all.push(item));
        }
        "extend" => {
            let [more] = args.all(name, ["iterable"])?;
            let more = more.to_vec()?;
            items.change(|all| all.extend(more));
        }
        "insert" => {
            let [at, item] = args.all(name, ["index", "object"])?;
            let at = bounded(int_of(&at)?, items.len());
            meter::step(items.len() - at)?;
            items.change(|all| all.insert(at, item));
        }
        "pop" => {
            let [at] = args.bind(name, ["index"])?;
            let at = at.map_or(Ok(-1), |at| int_of(&at))?;
            if items.is_empty() {
                return Err(Fault::new("IndexError", "pop from empty list"));
            }
            let Some(at) = place(at, items.len()) else {
                return Err(Fault::new("IndexError", "pop index out of range"));
            };
            meter::step(items.len() - at)?;
            return Ok(items.change(|all| all.remove(at)));
        }
        "remove" => {
            let [wanted] = args.all(name, ["value"])?;
            for (at, item) in items.to_vec().iter().enumerate() {
                if operators::equals(item, &wanted)? {
                    let removed = items.change(|all| all.remove(at));
                    drop(removed);
                    return Ok(Value::None);
                }
            }
            return value_error("list.remove(x): x not in list");
        }
        "clear" => {
            args.none(name)?;
            items.forget();
        }
        "copy" => {
            args.none(name)?;
            return Ok(Value::list(of.to_vec()?));
        }
        "reverse" => {
            args.none(name)?;
            meter::step(items.len())?;
            items.change(|all| all.reverse());
        }
        "sort" => {
            let [key, reverse] = args.bind(name, ["*key", "*reverse"])?;
            if key.is_some_and(|key| !key.is_none()) {
                return type_error("a template has no functions to sort by; use the filter `sort(attribute=…)`");
            }
            let is_reverse = reverse.map_or(Ok(false), |reverse| reverse.is_true())?;
            let mut all = of.to_vec()?;
            filters::sorted_by(&mut all, |item| Ok(item.clone()), is_reverse)?;
            items.change(|old| *old = all);
        }
        _ => return of_sequence(of, name, args),
    }
    Ok(Value::None)
}

pub(super) fn of_dict(vm: &mut Vm<'_>, dict: &Rc<Dict>, name: &str, args: Args) -> Res<Value> {
    Ok(match name {
        "get" => {
            let [key, default] = args.bind(name, ["key", "default"])?;
            let key = crate::jinja::arguments::needed(key, name, "key")?;
            dict.get(&key)?.or(default).unwrap_or(Value::None)
        }
        "keys" | "values" | "items" => {
            args.none(name)?;
            let view = match name {
                "keys" => View::Keys,
                "values" => View::Values,
                _ => View::Items,
            };
            Value::View(view, dict.clone())
        }
        "copy" => {
            args.none(name)?;
            meter::step(dict.len())?;
            Value::Dict(Dict::from_pairs(dict.entries())?)
        }
        "pop" => {
            let [key, default] = args.bind(name, ["key", "default"])?;
            let key = crate::jinja::arguments::needed(key, name, "key")?;
            match dict.remove(&key)?.or(default) {
                Some(value) => value,
                None => return Err(Fault::new("KeyError", print::repr(&key)?)),
            }
        }
        "popitem" => {
            args.none(name)?;
            let Some((key, value)) = dict.len().checked_sub(1).and_then(|at| dict.entry(at)) else {
                return Err(Fault::new("KeyError", "'popitem(): dictionary is empty'"));
            };
            dict.remove(&key)?;
            Value::tuple(vec![key, value])
        }
        "setdefault" => {
            let [key, default] = args.bind(name, ["key", "default"])?;
            let key = crate::jinja::arguments::needed(key, name, "key")?;
            if let Some(found) = dict.get(&key)? {
                return Ok(found);
            }
            let value = default.unwrap_or(Value::None);
            vm.keep(Kept::Dict(Rc::downgrade(dict)));
            dict.insert(key, value.clone())?;
            value
        }
        "update" => {
            vm.keep(Kept::Dict(Rc::downgrade(dict)));
            let pairs = match args.positional.as_slice() {
                [] => Vec::new(),
                [Value::Dict(other)] => other.entries(),
                [pairs] => {
                    let mut entries = Vec::new();
                    for pair in pairs.to_vec()? {
                        match <[Value; 2]>::try_from(pair.to_vec()?) {
                            Ok([key, value]) => entries.push((key, value)),
                            Err(_) => {
                                return value_error("dictionary update sequence element has a length that is not 2");
                            }
                        }
                    }
                    entries
                }
                many => return type_error(format!("update expected at most 1 argument, got {}", many.len())),
            };
            let named = args.named.into_iter().map(|(name, value)| (Value::text(&*name), value));
            for (key, value) in pairs.into_iter().chain(named) {
                dict.insert(key, value)?;
            }
            Value::None
        }
        "clear" => {
            args.none(name)?;
            dict.clear();
            Value::None
        }
        _ => {
            let [keys, value] = args.bind(name, ["iterable", "value"])?;
            let keys = crate::jinja::arguments::needed(keys, name, "iterable")?.to_vec()?;
            let value = value.unwrap_or(Value::None);
            Value::Dict(Dict::from_pairs(keys.into_iter().map(|key| (key, value.clone())))?)
        }
    })
}
