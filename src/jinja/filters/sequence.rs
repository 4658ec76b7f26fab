//! Filters of lists and of whatever can be gone through.

use std::cmp::Ordering;

use crate::jinja::arguments::{Args, given, needed, size_of_argument};
use crate::jinja::fault::{Fault, Res, type_error};
use crate::jinja::filters::{Getter, flag, nothing, sorted_by};
use crate::jinja::interpreter::Vm;
use crate::jinja::value::{Items, Mark, Value};
use crate::jinja::{meter, operators, print, tests_of_values};

pub(super) fn call(vm: &mut Vm<'_>, name: &str, input: Value, args: Args) -> Res<Value> {
    match name {
        "list" => {
            args.none(name)?;
            Ok(Value::list(input.to_vec()?))
        }
        "first" => {
            args.none(name)?;
            Ok(input.iterate()?.next().unwrap_or_else(|| nothing(vm, "No first item, sequence was empty.")))
        }
        "last" => {
            args.none(name)?;
            if matches!(input, Value::Stream(_)) {
                return type_error("'generator' object is not reversible");
            }
            Ok(input.to_vec()?.pop().unwrap_or_else(|| nothing(vm, "No last item, sequence was empty.")))
        }
        "reverse" => {
            args.none(name)?;
            super::defined(&input)?;
            let items = input.to_vec();
            let mut items = items.map_err(|_| Fault::new("FilterArgumentError", "argument must be iterable"))?;
            items.reverse();
            Ok(match &input {
                Value::Text(_) => Value::text(items.iter().filter_map(Value::as_str).collect::<String>()),
                _ => Value::stream(items),
            })
        }
        "join" => join(vm, &input, args),
        "batch" => batch(&input, args),
        "slice" => slice(&input, args),
        "sort" => {
            let [reverse, case_sensitive, attribute] = args.bind(name, ["reverse", "case_sensitive", "attribute"])?;
            let ignores_case = !flag(case_sensitive, false)?;
            let getters = getters(attribute, ignores_case)?;
            let is_reverse = flag(reverse, false)?;
            let mut items = input.to_vec()?;
            sorted_by(&mut items, |item| key(vm, &getters, item), is_reverse)?;
            Ok(Value::list(items))
        }
        "dictsort" => dictsort(vm, &input, args),
        "groupby" => groupby(vm, &input, args),
        "unique" => unique(vm, &input, args),
        "min" | "max" => extreme(vm, name, &input, args),
        "sum" => sum(vm, &input, args),
        "map" => map(vm, &input, args),
        _ => chosen(vm, name, &input, args),
    }
}

/// Several attributes have commas between them.
fn getters(attribute: Option<Value>, ignores_case: bool) -> Res<Vec<Getter>> {
    match given(attribute) {
        Some(Value::Text(text)) => {
            let getter = |part: &str| Getter::new(Some(Value::text(part)), None, ignores_case);
            text.as_str().split(',').map(getter).collect()
        }
        other => Ok(vec![Getter::new(other, None, ignores_case)?]),
    }
}

fn key(vm: &mut Vm<'_>, getters: &[Getter], item: &Value) -> Res<Value> {
    match getters {
        [only] => only.get(vm, item),
        _ => Ok(Value::list(getters.iter().map(|getter| getter.get(vm, item)).collect::<Res<_>>()?)),
    }
}

fn join(vm: &mut Vm<'_>, input: &Value, args: Args) -> Res<Value> {
    let [separator, attribute] = args.bind("join", ["d", "attribute"])?;
    let separator = separator.map_or(Ok(String::new()), |separator| print::text(&separator))?;
    let getter = Getter::new(attribute, None, false)?;
    let items = input.to_vec()?;
    let mut joined = String::new();
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            joined.push_str(&separator);
        }
        let value = getter.get(vm, item)?;
        let length = value.as_str().map_or(0, str::len);
        meter::read(separator.len() + length)?;
        meter::room(joined.len() + separator.len() + length)?;
        if vm.escapes {
            joined.push_str(&operators::escaped(&value)?);
        } else {
            print::write_text(&mut joined, &value)?;
        }
    }
    Ok(vm.text(joined))
}

/// How many items a row is to have at least, which a fill makes long.
fn wide(count: usize) -> Res<usize> {
    meter::step(count)?;
    meter::room(count * size_of::<Value>())?;
    Ok(count)
}

fn batch(input: &Value, args: Args) -> Res<Value> {
    let [count, fill] = args.bind("batch", ["linecount", "fill_with"])?;
    let count = size_of_argument(&needed(count, "batch", "linecount")?)?;
    let items = input.to_vec()?;
    if count == 0 {
        // Jinja's loop gives a row whenever the one at hand has as many items, and begins with none.
        let rows = vec![Value::list(Vec::new()), Value::list(items)];
        return Ok(Value::stream(if rows[1].length()? == 0 { Vec::new() } else { rows }));
    }
    let mut rows: Vec<Vec<Value>> = items.chunks(count).map(<[Value]>::to_vec).collect();
    if let (Some(fill), Some(last)) = (given(fill), rows.last_mut()) {
        last.resize(wide(count)?, fill);
    }
    Ok(Value::stream(rows.into_iter().map(Value::list).collect()))
}

fn slice(input: &Value, args: Args) -> Res<Value> {
    let [slices, fill] = args.bind("slice", ["slices", "fill_with"])?;
    let slices = wide(size_of_argument(&needed(slices, "slice", "slices")?)?)?;
    if slices == 0 {
        return Err(Fault::new("ZeroDivisionError", "integer division or modulo by zero"));
    }
    let fill = given(fill);
    let items = input.to_vec()?;
    let (each, longer) = (items.len() / slices, items.len() % slices);
    let mut rows = Vec::new();
    let mut at = 0;
    for row in 0..slices {
        let length = each + usize::from(row < longer);
        let mut part = items[at..at + length].to_vec();
        at += length;
        if let Some(fill) = &fill
            && row >= longer
        {
            part.push(fill.clone());
        }
        rows.push(Value::list(part));
    }
    Ok(Value::stream(rows))
}

fn dictsort(vm: &mut Vm<'_>, input: &Value, args: Args) -> Res<Value> {
    let [case_sensitive, by, reverse] = args.bind("dictsort", ["case_sensitive", "by", "reverse"])?;
    let ignores_case = !flag(case_sensitive, false)?;
    let at = match by.map_or(Ok("key".to_owned()), |by| print::text(&by))?.as_str() {
        "key" => 0,
        "value" => 1,
        _ => return Err(Fault::new("FilterArgumentError", "You can only sort by either \"key\" or \"value\"")),
    };
    let Value::Dict(dict) = input else {
        super::defined(input)?;
        return Err(Fault::new("AttributeError", format!("'{}' object has no attribute 'items'", input.type_name())));
    };
    let mut pairs: Vec<Value> = dict.entries().into_iter().map(|(key, value)| Value::tuple(vec![key, value])).collect();
    let getter = Getter::new(Some(Value::int(at)), None, ignores_case)?;
    sorted_by(&mut pairs, |pair| getter.get(vm, pair), flag(reverse, false)?)?;
    Ok(Value::list(pairs))
}

fn groupby(vm: &mut Vm<'_>, input: &Value, args: Args) -> Res<Value> {
    let [attribute, default, case_sensitive] = args.bind("groupby", ["attribute", "default", "case_sensitive"])?;
    let attribute = needed(attribute, "groupby", "attribute")?;
    let ignores_case = !flag(case_sensitive, false)?;
    let getter = Getter::new(Some(attribute.clone()), default.clone(), ignores_case)?;
    let shown = Getter::new(Some(attribute), default, false)?;
    let mut items = input.to_vec()?;
    sorted_by(&mut items, |item| getter.get(vm, item), false)?;
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for item in items {
        let key = getter.get(vm, &item)?;
        match groups.last_mut() {
            Some((last, _, members)) if operators::equals(last, &key)? => members.push(item),
            _ => groups.push((key, shown.get(vm, &item)?, vec![item])),
        }
    }
    let group = |(_, grouper, members): (Value, Value, Vec<Value>)| {
        Value::Tuple(Items::marked(vec![grouper, Value::list(members)], Mark::Group))
    };
    Ok(Value::list(groups.into_iter().map(group).collect()))
}

fn unique(vm: &mut Vm<'_>, input: &Value, args: Args) -> Res<Value> {
    let [case_sensitive, attribute] = args.bind("unique", ["case_sensitive", "attribute"])?;
    let getter = Getter::new(attribute, None, !flag(case_sensitive, false)?)?;
    let seen = crate::jinja::dict::Dict::from_pairs([])?;
    let mut kept = Vec::new();
    for item in input.to_vec()? {
        let key = getter.get(vm, &item)?;
        if seen.get(&key)?.is_none() {
            seen.insert(key, Value::None)?;
            kept.push(item);
        }
    }
    Ok(Value::stream(kept))
}

fn extreme(vm: &mut Vm<'_>, name: &str, input: &Value, args: Args) -> Res<Value> {
    let [case_sensitive, attribute] = args.bind(name, ["case_sensitive", "attribute"])?;
    let getter = Getter::new(attribute, None, !flag(case_sensitive, false)?)?;
    let mut best: Option<(Value, Value)> = None;
    for item in input.to_vec()? {
        let key = getter.get(vm, &item)?;
        let is_better = match &best {
            None => true,
            Some((best, _)) => {
                let (operator, wanted) = if name == "max" { (">", Ordering::Greater) } else { ("<", Ordering::Less) };
                operators::order(operator, &key, best)? == Some(wanted)
            }
        };
        if is_better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or_else(|| nothing(vm, "No aggregated item, sequence was empty."), |(_, item)| item))
}

fn sum(vm: &mut Vm<'_>, input: &Value, args: Args) -> Res<Value> {
    let [attribute, start] = args.bind("sum", ["attribute", "start"])?;
    let getter = Getter::new(attribute, None, false)?;
    let mut total = start.unwrap_or(Value::Int(0));
    if matches!(total, Value::Text(_)) {
        return type_error("sum() can't sum strings [use ''.join(seq) instead]");
    }
    for item in input.to_vec()? {
        let item = getter.get(vm, &item)?;
        total = operators::binary("+", &total, &item)?;
    }
    Ok(total)
}

fn map(vm: &mut Vm<'_>, input: &Value, args: Args) -> Res<Value> {
    let mut mapped = Vec::new();
    if args.positional.is_empty() && args.named.iter().any(|(name, _)| **name == *"attribute") {
        let [attribute, default] = args.bind("map", ["*attribute", "*default"])?;
        let getter = Getter::new(attribute, default, false)?;
        for item in input.to_vec()? {
            mapped.push(getter.get(vm, &item)?);
        }
        return Ok(Value::stream(mapped));
    }
    let mut positional = args.positional.into_iter();
    let Some(filter) = positional.next() else {
        return Err(Fault::new("FilterArgumentError", "map requires a filter argument"));
    };
    let filter = print::text(&filter)?;
    if !super::is_known(&filter) && vm.outside.filter(&filter).is_none() {
        return Err(Fault::new("TemplateRuntimeError", format!("No filter named '{filter}'.")));
    }
    let rest = Args { positional: positional.collect(), named: args.named };
    for item in input.to_vec()? {
        mapped.push(vm.filter(&filter, item, rest.clone())?);
    }
    Ok(Value::stream(mapped))
}

/// `select`, `reject`, and the two of an attribute.
fn chosen(vm: &mut Vm<'_>, name: &str, input: &Value, args: Args) -> Res<Value> {
    let mut positional = args.positional.into_iter();
    let getter = if name.ends_with("attr") {
        let attribute = positional
            .next()
            .ok_or_else(|| Fault::new("FilterArgumentError", "Missing parameter for attribute name"))?;
        Some(Getter::new(Some(attribute), None, false)?)
    } else {
        None
    };
    let test = positional.next().map(|test| tests_of_values::named(&test)).transpose()?;
    let rest = Args { positional: positional.collect(), named: args.named };
    let is_kept = name.starts_with("select");
    let mut kept = Vec::new();
    for item in input.to_vec()? {
        let value = match &getter {
            Some(getter) => getter.get(vm, &item)?,
            None => item.clone(),
        };
        let holds = match &test {
            Some(test) => tests_of_values::holds(test, &value, rest.clone())?,
            None => value.is_true()?,
        };
        if holds == is_kept {
            kept.push(item);
        }
    }
    Ok(Value::stream(kept))
}
