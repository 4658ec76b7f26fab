//! Whether a value fits a JSON Schema: draft 2020-12 as Python's jsonschema reads it, with references inside the schema alone.
//!
//! A schema is a DAG file's and is checked when that is read (`soundness`); what is malformed nevertheless refuses nothing.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Number, Value};

use super::{format, pattern};

/// How far references and subschemas may lead.
const MAX_DEPTH: u32 = 100;
/// How many subschemas one value may be held against: references may multiply.
const MAX_STEPS: u32 = 200_000;
/// The longest part of a value that is shown, in characters.
const MAX_SHOWN: usize = 80;

/// Why a value does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Where inside the value, e.g. `.hosts[0]`; empty for the whole of it.
    pub path: String,
    /// What stands there as JSON, shortened.
    pub came: String,
    /// As it stands after "must be".
    pub expected: String,
}

/// Holds a value against a schema.
///
/// # Errors
/// The first thing that does not fit, in the order of types, values, parts, combinations.
pub fn check(schema: &Value, value: &Value) -> Result<(), Mismatch> {
    let judge = Judge { root: schema, steps: Cell::new(0) };
    judge.apply(schema, value, &Place::Whole, 0)
}

/// Where a value stands inside the whole.
enum Place<'p> {
    Whole,
    Key(&'p Place<'p>, &'p str),
    Index(&'p Place<'p>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => Ok(()),
            Self::Key(above, key) => write!(f, "{above}.{key}"),
            Self::Index(above, index) => write!(f, "{above}[{index}]"),
        }
    }
}

type Verdict = Result<(), Mismatch>;
type Schema = Map<String, Value>;

struct Judge<'s> {
    root: &'s Value,
    steps: Cell<u32>,
}

/// What of a list or table some keyword has looked at (draft 2020-12: annotations).
#[derive(Default)]
struct Evaluated {
    all: bool,
    keys: BTreeSet<String>,
    indexes: BTreeSet<usize>,
}

fn refuse(value: &Value, place: &Place<'_>, expected: impl Into<String>) -> Verdict {
    Err(Mismatch { path: place.to_string(), came: shown(value), expected: expected.into() })
}

fn unless(fits: bool, value: &Value, place: &Place<'_>, expected: impl FnOnce() -> String) -> Verdict {
    if fits { Ok(()) } else { refuse(value, place, expected()) }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl Judge<'_> {
    fn apply(&self, schema: &Value, value: &Value, place: &Place<'_>, depth: u32) -> Verdict {
        self.steps.set(self.steps.get() + 1);
        if depth > MAX_DEPTH || self.steps.get() > MAX_STEPS {
            return refuse(value, place, "simpler: its schema leads too far");
        }
        match schema {
            Value::Bool(false) => refuse(value, place, "left out"),
            Value::Object(schema) => self.apply_all(schema, value, place, depth + 1),
            _ => Ok(()),
        }
    }

    fn fits(&self, schema: &Value, value: &Value, depth: u32) -> bool {
        self.apply(schema, value, &Place::Whole, depth).is_ok()
    }

    fn apply_all(&self, schema: &Schema, value: &Value, place: &Place<'_>, depth: u32) -> Verdict {
        if let Some(target) = self.referred(schema) {
            self.apply(target, value, place, depth)?;
        }
        self.kind(schema, value, place)?;
        match value {
            Value::Number(number) => numbers(schema, number, value, place)?,
            Value::String(text) => texts(schema, text, value, place)?,
            Value::Array(items) => self.lists(schema, items, value, place, depth)?,
            Value::Object(pairs) => self.tables(schema, pairs, value, place, depth)?,
            Value::Null | Value::Bool(_) => {}
        }
        self.combined(schema, value, place, depth)
    }

    /// What `$ref` or `$dynamicRef` names, inside the whole schema.
    fn referred(&self, schema: &Schema) -> Option<&Value> {
        let reference = schema.get("$ref").or_else(|| schema.get("$dynamicRef"))?.as_str()?;
        find(self.root, reference)
    }

    fn kind(&self, schema: &Schema, value: &Value, place: &Place<'_>) -> Verdict {
        if let Some(types) = schema.get("type") {
            let names: Vec<&str> = match types {
                Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
                single => single.as_str().into_iter().collect(),
            };
            let fits = names.iter().any(|name| is_type(name, value));
            unless(fits, value, place, || {
                names.iter().map(|name| type_in_words(name)).collect::<Vec<_>>().join(" or ")
            })?;
        }
        if let Some(Value::Array(values)) = schema.get("enum") {
            let fits = values.iter().any(|one| equal(one, value));
            unless(fits, value, place, || {
                let all: Vec<String> = values.iter().map(shown).collect();
                format!("one of {}", all.join(", "))
            })?;
        }
        match schema.get("const") {
            Some(only) => unless(equal(only, value), value, place, || shown(only)),
            None => Ok(()),
        }
    }

    fn lists(&self, schema: &Schema, items: &[Value], value: &Value, place: &Place<'_>, depth: u32) -> Verdict {
        let bounds = [("minItems", "at least"), ("maxItems", "at most")];
        counted(schema, bounds, items.len(), "a list of", "elements", value, place)?;
        let prefix = schema.get("prefixItems").and_then(Value::as_array).map_or(&[][..], |list| list);
        for (at, (item, schema)) in items.iter().zip(prefix).enumerate() {
            self.apply(schema, item, &Place::Index(place, at), depth)?;
        }
        if let Some(rest) = schema.get("items") {
            for (at, item) in items.iter().enumerate().skip(prefix.len()) {
                self.apply(rest, item, &Place::Index(place, at), depth)?;
            }
        }
        if let Some(wanted) = schema.get("contains") {
            let found = items.iter().filter(|item| self.fits(wanted, item, depth)).count();
            let least = count_of(schema, "minContains").unwrap_or(1);
            let most = count_of(schema, "maxContains").unwrap_or(usize::MAX);
            unless((least..=most).contains(&found), value, place, || {
                let most = if most == usize::MAX { String::new() } else { format!(" and at most {most}") };
                format!("a list of which at least {least}{most} elements fit {}", shown(wanted))
            })?;
        }
        if schema.get("uniqueItems") == Some(&Value::Bool(true)) {
            let twice = items.iter().enumerate().any(|(at, item)| items[..at].iter().any(|other| equal(other, item)));
            unless(!twice, value, place, || "a list whose elements all differ".to_owned())?;
        }
        let Some(rest) = schema.get("unevaluatedItems") else { return Ok(()) };
        let seen = self.evaluated(schema, value, depth, "unevaluatedItems");
        for (at, item) in items.iter().enumerate().filter(|(at, _)| !seen.all && !seen.indexes.contains(at)) {
            self.apply(rest, item, &Place::Index(place, at), depth)?;
        }
        Ok(())
    }

    fn tables(&self, schema: &Schema, pairs: &Schema, value: &Value, place: &Place<'_>, depth: u32) -> Verdict {
        let bounds = [("minProperties", "at least"), ("maxProperties", "at most")];
        counted(schema, bounds, pairs.len(), "a table of", "keys", value, place)?;
        let needs = |names: &Value| -> Verdict {
            let missing = names
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .find(|name| !pairs.contains_key(*name));
            missing.map_or(Ok(()), |name| refuse(value, place, format!("a table with the key `{name}`")))
        };
        schema.get("required").map_or(Ok(()), needs)?;
        for (name, names) in schema.get("dependentRequired").and_then(Value::as_object).into_iter().flatten() {
            if pairs.contains_key(name) {
                needs(names)?;
            }
        }
        for (name, item) in pairs {
            let at = Place::Key(place, name);
            let mut is_known = false;
            for schema in self.of_key(schema, name) {
                is_known = true;
                self.apply(schema, item, &at, depth)?;
            }
            if let (false, Some(rest)) = (is_known, schema.get("additionalProperties")) {
                self.apply(rest, item, &at, depth)?;
            }
            if let Some(names) = schema.get("propertyNames") {
                self.apply(names, &Value::from(name.as_str()), &at, depth)?;
            }
        }
        for (name, schema) in schema.get("dependentSchemas").and_then(Value::as_object).into_iter().flatten() {
            if pairs.contains_key(name) {
                self.apply(schema, value, place, depth)?;
            }
        }
        let Some(rest) = schema.get("unevaluatedProperties") else { return Ok(()) };
        let seen = self.evaluated(schema, value, depth, "unevaluatedProperties");
        for (name, item) in pairs.iter().filter(|(name, _)| !seen.all && !seen.keys.contains(*name)) {
            self.apply(rest, item, &Place::Key(place, name), depth)?;
        }
        Ok(())
    }

    /// The schemas of `properties` and `patternProperties` that hold for a key.
    fn of_key<'x>(&self, schema: &'x Schema, name: &str) -> Vec<&'x Value> {
        let own = schema.get("properties").and_then(|all| all.get(name));
        let patterns = schema.get("patternProperties").and_then(Value::as_object).into_iter().flatten();
        let matching = patterns.filter(|(text, _)| pattern::compile(text).is_ok_and(|regex| regex.is_match(name)));
        own.into_iter().chain(matching.map(|(_, schema)| schema)).collect()
    }

    fn combined(&self, schema: &Schema, value: &Value, place: &Place<'_>, depth: u32) -> Verdict {
        for one in list(schema, "allOf") {
            self.apply(one, value, place, depth)?;
        }
        if let Some(Value::Array(any)) = schema.get("anyOf")
            && !any.iter().any(|one| self.fits(one, value, depth))
        {
            return self.none_of(any, value, place, depth, "one");
        }
        if let Some(Value::Array(one_of)) = schema.get("oneOf") {
            match one_of.iter().filter(|one| self.fits(one, value, depth)).count() {
                1 => {}
                0 => return self.none_of(one_of, value, place, depth, "exactly one"),
                count => {
                    let expected = format!("a value that fits exactly one of the schemas of `oneOf`, and not {count}");
                    return refuse(value, place, expected);
                }
            }
        }
        if let Some(not) = schema.get("not") {
            unless(!self.fits(not, value, depth), value, place, || {
                format!("a value that does not fit {}", shown(not))
            })?;
        }
        if let Some(condition) = schema.get("if") {
            let branch = if self.fits(condition, value, depth) { "then" } else { "else" };
            if let Some(then) = schema.get(branch) {
                self.apply(then, value, place, depth)?;
            }
        }
        Ok(())
    }

    /// Says what each alternative expects.
    fn none_of(&self, any: &[Value], value: &Value, place: &Place<'_>, depth: u32, how_many: &str) -> Verdict {
        let each: Vec<String> = any
            .iter()
            .filter_map(|one| self.apply(one, value, &Place::Whole, depth).err())
            .map(|mismatch| match mismatch.path.as_str() {
                "" => mismatch.expected,
                path => format!("a value whose `{}` is {}", path.trim_start_matches('.'), mismatch.expected),
            })
            .collect();
        refuse(value, place, format!("{how_many} of: {}", each.join("; ")))
    }

    /// What the keywords beside `but` have looked at.
    fn evaluated(&self, schema: &Schema, value: &Value, depth: u32, but: &str) -> Evaluated {
        let mut seen = Evaluated::default();
        if depth <= MAX_DEPTH {
            self.evaluate(schema, value, depth, but, &mut seen);
        }
        seen
    }

    fn evaluate(&self, schema: &Schema, value: &Value, depth: u32, but: &str, seen: &mut Evaluated) {
        self.steps.set(self.steps.get() + 1);
        if depth > MAX_DEPTH || self.steps.get() > MAX_STEPS {
            return;
        }
        match value {
            Value::Array(items) => {
                seen.all |= schema.contains_key("items")
                    || (but != "unevaluatedItems" && schema.contains_key("unevaluatedItems"));
                seen.indexes.extend(0..list(schema, "prefixItems").len());
                if let Some(wanted) = schema.get("contains") {
                    let fitting = items.iter().enumerate().filter(|(_, item)| self.fits(wanted, item, depth));
                    seen.indexes.extend(fitting.map(|(at, _)| at));
                }
            }
            Value::Object(pairs) => {
                seen.all |= schema.contains_key("additionalProperties")
                    || (but != "unevaluatedProperties" && schema.contains_key("unevaluatedProperties"));
                let known = pairs.keys().filter(|name| !self.of_key(schema, name).is_empty());
                seen.keys.extend(known.cloned());
            }
            _ => return,
        }
        let mut inner: Vec<&Value> = self.referred(schema).into_iter().collect();
        inner.extend(["allOf", "anyOf", "oneOf"].iter().flat_map(|name| list(schema, name)));
        if let Some(condition) = schema.get("if") {
            let holds = self.fits(condition, value, depth);
            inner.extend(holds.then_some(condition));
            inner.extend(schema.get(if holds { "then" } else { "else" }));
        }
        if let (Some(Value::Object(schemas)), Value::Object(pairs)) = (schema.get("dependentSchemas"), value) {
            inner.extend(schemas.iter().filter(|(name, _)| pairs.contains_key(*name)).map(|(_, schema)| schema));
        }
        for one in inner {
            if let Value::Object(schema) = one
                && self.fits(one, value, depth)
            {
                self.evaluate(schema, value, depth + 1, "", seen);
            }
        }
    }
}

/// `#`, `#/a/b` or `#anchor` inside `root`.
pub(super) fn find<'s>(root: &'s Value, reference: &str) -> Option<&'s Value> {
    let fragment = reference.strip_prefix('#')?;
    if fragment.is_empty() || fragment.starts_with('/') {
        return root.pointer(&fragment.replace("%25", "%"));
    }
    anchored(root, fragment)
}

fn anchored<'s>(schema: &'s Value, name: &str) -> Option<&'s Value> {
    let is_it = |key| schema.get(key).and_then(Value::as_str) == Some(name);
    match schema {
        Value::Object(_) if is_it("$anchor") || is_it("$dynamicAnchor") => Some(schema),
        Value::Object(pairs) => pairs.values().find_map(|inner| anchored(inner, name)),
        Value::Array(items) => items.iter().find_map(|inner| anchored(inner, name)),
        _ => None,
    }
}

fn list<'s>(schema: &'s Schema, name: &str) -> &'s [Value] {
    schema.get(name).and_then(Value::as_array).map_or(&[], |list| list)
}

fn count_of(schema: &Schema, name: &str) -> Option<usize> {
    schema.get(name)?.as_f64().map(|count| count as usize)
}

/// Bounds of a length: `what` at least or at most so many `unit`s.
fn counted(
    schema: &Schema,
    bounds: [(&str, &str); 2],
    length: usize,
    what: &str,
    unit: &str,
    value: &Value,
    place: &Place<'_>,
) -> Verdict {
    for (keyword, words) in bounds {
        let Some(bound) = count_of(schema, keyword) else { continue };
        let fits = if keyword.starts_with("min") { length >= bound } else { length <= bound };
        unless(fits, value, place, || format!("{what} {words} {bound} {unit}"))?;
    }
    Ok(())
}

fn numbers(schema: &Schema, number: &Number, value: &Value, place: &Place<'_>) -> Verdict {
    use Ordering::{Equal, Greater, Less};
    let rules: [(&str, &str, &[Ordering]); 4] = [
        ("minimum", "at least", &[Greater, Equal]),
        ("maximum", "at most", &[Less, Equal]),
        ("exclusiveMinimum", "more than", &[Greater]),
        ("exclusiveMaximum", "less than", &[Less]),
    ];
    for (keyword, words, fits) in rules {
        if let Some(Value::Number(bound)) = schema.get(keyword) {
            unless(fits.contains(&compared(number, bound)), value, place, || format!("{words} {bound}"))?;
        }
    }
    match schema.get("multipleOf") {
        Some(Value::Number(unit)) => {
            unless(is_multiple(number, unit), value, place, || format!("a multiple of {unit}"))
        }
        _ => Ok(()),
    }
}

fn texts(schema: &Schema, text: &str, value: &Value, place: &Place<'_>) -> Verdict {
    let bounds = [("minLength", "at least"), ("maxLength", "at most")];
    counted(schema, bounds, text.chars().count(), "text of", "characters", value, place)?;
    if let Some(Value::String(wanted)) = schema.get("pattern") {
        let fits = pattern::compile(wanted).map_or(true, |regex| regex.is_match(text));
        unless(fits, value, place, || format!("text that matches `{wanted}`"))?;
    }
    match schema.get("format").and_then(Value::as_str) {
        Some(format) => unless(format::fits(format, text), value, place, || {
            format::described(format).unwrap_or_default().to_owned()
        }),
        None => Ok(()),
    }
}

fn integer(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

fn float(number: &Number) -> f64 {
    number.as_f64().unwrap_or(f64::NAN)
}

fn compared(one: &Number, other: &Number) -> Ordering {
    match (integer(one), integer(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        _ => float(one).total_cmp(&float(other)),
    }
}

/// As Python divides.
fn is_multiple(number: &Number, unit: &Number) -> bool {
    match (integer(number), integer(unit)) {
        (_, Some(0)) => true,
        (Some(number), Some(unit)) => number % unit == 0,
        (None, Some(_)) => float(number) % float(unit) == 0.0,
        (_, None) => {
            let quotient = float(number) / float(unit);
            quotient.is_infinite() || quotient.fract() == 0.0
        }
    }
}

/// 5 and 5.0 are equal, 1 and true are not.
fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => match (integer(one), integer(other)) {
            (Some(one), Some(other)) => one == other,
            _ => float(one) == float(other),
        },
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, one)| other.get(key).is_some_and(|other| equal(one, other)))
        }
        _ => one == other,
    }
}

fn is_type(name: &str, value: &Value) -> bool {
    match (name, value) {
        ("integer", Value::Number(number)) => integer(number).is_some() || float(number).fract() == 0.0,
        ("number", Value::Number(_))
        | ("string", Value::String(_))
        | ("boolean", Value::Bool(_))
        | ("array", Value::Array(_))
        | ("object", Value::Object(_))
        | ("null", Value::Null) => true,
        _ => false,
    }
}

fn type_in_words(name: &str) -> &str {
    match name {
        "integer" => "an integer",
        "number" => "a number",
        "string" => "text",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a table",
        other => other,
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
