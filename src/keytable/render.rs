//! What is generated from a table of keys: the JSON schema for editors, and the tables of the documentation.

use serde_json::{Map, Value, json};

use super::walk::describe;
use super::{Fallback, Key, Kind, Table, value};

/// A JSON schema (draft 7, which TOML editors understand) of a whole document.
pub fn json_schema(title: &str, table: &'static Table) -> Value {
    let shared = Shared::of(table);
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
    schema.insert("title".to_owned(), json!(title));
    if let Value::Object(body) = shared.schema_of_table(table) {
        schema.extend(body);
    }
    if !shared.0.is_empty() {
        let definition = |table: &&'static Table| (definition_name(table), shared.schema_of_table(table));
        schema.insert("definitions".to_owned(), shared.0.iter().map(definition).collect());
    }
    Value::Object(schema)
}

/// The tables that are met more than once, and are defined apart: one may even hold another of its own kind.
struct Shared(Vec<&'static Table>);

impl Shared {
    fn of(table: &'static Table) -> Self {
        let mut shared = Self(Vec::new());
        shared.collect(table, &mut Vec::new());
        shared
    }

    fn collect(&mut self, table: &'static Table, met: &mut Vec<&'static Table>) {
        if met.iter().any(|other| std::ptr::eq(*other, table)) {
            if !self.has(table) {
                self.0.push(table);
            }
            return;
        }
        met.push(table);
        for key in table.iter() {
            each_table(&key.kind, &mut |inner| self.collect(inner, met));
        }
    }

    fn has(&self, table: &Table) -> bool {
        self.0.iter().any(|shared| std::ptr::eq(*shared, table))
    }

    fn schema_of_table(&self, table: &Table) -> Value {
        let properties: Map<String, Value> =
            table.iter().map(|key| (key.name.to_owned(), self.schema_of_key(key))).collect();
        json!({ "type": "object", "additionalProperties": false, "properties": properties })
    }

    fn schema_of_key(&self, key: &Key) -> Value {
        let mut schema = Map::new();
        schema.insert("description".to_owned(), json!(key.description));
        if let Some(default) = default_json(key.default) {
            schema.insert("default".to_owned(), default);
        }
        if let Value::Object(body) = self.schema_of(&key.kind) {
            schema.extend(body);
        }
        Value::Object(schema)
    }

    fn schema_of(&self, kind: &Kind) -> Value {
        const DURATION: &str = "^(\\d+w)?(\\d+d)?(\\d+h)?(\\d+m)?(\\d+s)?$";
        const PERIOD: &str = "^(\\d+y)?(\\d+mo)?(\\d+w)?(\\d+d)?(\\d+h)?(\\d+m)?(\\d+s)?$";
        const SIZE: &str = "^\\d+ *([kKmMgGtT]([iI])?)?[bB]$";
        match kind {
            Kind::Text | Kind::Template | Kind::Zone => json!({ "type": "string" }),
            Kind::Signal(signals) => {
                let names = signals.iter().flat_map(|(name, _)| [(*name).to_owned(), format!("SIG{name}")]);
                json!({ "enum": names.collect::<Vec<_>>() })
            }
            Kind::OneOf(names) => json!({ "enum": names }),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::Literal(only) => json!({ "const": only }),
            Kind::Integer { min, max } if *max == i64::MAX => json!({ "type": "integer", "minimum": min }),
            Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
            Kind::Number { min } => json!({ "type": "number", "minimum": min }),
            Kind::Duration { min } => json!({ "anyOf": [
            { "type": "string", "pattern": DURATION, "minLength": 2 }, { "type": "integer", "minimum": min } ] }),
            Kind::Period => json!({ "anyOf": [
            { "type": "string", "pattern": PERIOD, "minLength": 2 }, { "type": "integer", "minimum": 1 } ] }),
            Kind::OneOfOr { names, prefix } => json!({ "anyOf": [
            { "enum": names }, { "type": "string", "pattern": format!("^{prefix}{}", &DURATION[1..]) } ] }),
            Kind::Size { min } => json!({ "anyOf": [
            { "type": "string", "pattern": SIZE }, { "type": "integer", "minimum": min } ] }),
            // Editors hand TOML's times on as text.
            Kind::Time | Kind::TimeOfDay | Kind::Bound => json!({ "type": "string" }),
            Kind::Plain => json!({ "type": ["string", "number", "boolean", "array"] }),
            Kind::Schema => json!({ "type": "object" }),
            Kind::Any => json!({}),
            Kind::Elements => json!({ "type": ["array", "object"] }),
            Kind::List(kind) => json!({ "type": "array", "items": self.schema_of(kind) }),
            Kind::Map(_, kind) => json!({ "type": "object", "additionalProperties": self.schema_of(kind) }),
            // What stands beside a reference is not read, so the reference stands inside.
            Kind::Table(table) if self.has(table) => {
                json!({ "allOf": [{ "$ref": format!("#/definitions/{}", definition_name(table)) }] })
            }
            Kind::Table(table) => self.schema_of_table(table),
            Kind::Either(kinds) => {
                json!({ "anyOf": kinds.iter().map(|kind| self.schema_of(kind)).collect::<Vec<_>>() })
            }
        }
    }
}

/// `a rule of \`retry_on\`` → `rule-of-retry_on`
fn definition_name(table: &Table) -> String {
    let words = table.name.trim_start_matches("a ").trim_matches(['[', ']']);
    words.replace(' ', "-").replace('`', "")
}

fn each_table(kind: &'static Kind, look_at: &mut impl FnMut(&'static Table)) {
    match kind {
        Kind::Table(table) => look_at(table),
        Kind::List(kind) | Kind::Map(_, kind) => each_table(kind, look_at),
        Kind::Either(kinds) => kinds.iter().for_each(|kind| each_table(kind, look_at)),
        _ => {}
    }
}

fn default_json(default: Fallback) -> Option<Value> {
    let Fallback::Toml(text) = default else { return None };
    let value = toml::de::DeValue::parse(text).expect("a default in a table of keys is valid TOML");
    value::json(value.get_ref())
}

/// A Markdown table of the keys.
pub fn markdown(table: &Table) -> String {
    let mut text = "| key | type | default | what it says |\n| --- | --- | --- | --- |\n".to_owned();
    for key in table.iter() {
        let default = match key.default {
            Fallback::Nothing => "none".to_owned(),
            Fallback::Toml(value) => format!("`{value}`"),
            Fallback::Words(words) => words.to_owned(),
        };
        let kind = long_description(&key.kind).replace('|', "\\|");
        text += &format!("| `{}` | {kind} | {default} | {} |\n", key.name, key.description.replace('|', "\\|"));
    }
    text
}

fn long_description(kind: &Kind) -> String {
    match kind {
        Kind::Template => "template".to_owned(),
        Kind::OneOf(names) => names.iter().map(|name| format!("`\"{name}\"`")).collect::<Vec<_>>().join(", "),
        Kind::OneOfOr { names, prefix } => {
            let all = names.iter().map(|name| format!("`\"{name}\"`")).chain([format!("`\"{prefix}6h\"`")]);
            all.collect::<Vec<_>>().join(", ")
        }
        Kind::Elements => "list, or table: an input".to_owned(),
        Kind::Literal(only) => format!("`{only}`"),
        Kind::Integer { min, max } => match (*min, *max) {
            (min, max) if max >= i64::from(i32::MAX) => format!("integer ≥ {min}"),
            (min, max) => format!("integer {min} to {max}"),
        },
        Kind::Number { min } => format!("number ≥ {min}"),
        Kind::List(Kind::Elements) => "list of inputs".to_owned(),
        Kind::List(Kind::Table(table)) => format!("list, each {}", table.name),
        Kind::List(kind) => format!("list of {}", long_description(kind)),
        Kind::Map(what, kind) => format!("table: {what} = {}", long_description(kind)),
        Kind::Table(table) => format!("table: {}", table.name),
        Kind::Either(kinds) => kinds.iter().map(long_description).collect::<Vec<_>>().join(", or "),
        other => {
            let words = describe(other);
            words.trim_start_matches("a ").trim_start_matches("an ").to_owned()
        }
    }
}

/// Compares a generated file with the one that is checked in, or renews it if `MINFLOW_UPDATE` is set.
#[cfg(test)]
#[track_caller]
pub(crate) fn assert_checked_in(path: &str, generated: &str) {
    let full = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("MINFLOW_UPDATE").is_some() {
        std::fs::create_dir_all(full.parent().unwrap()).unwrap();
        std::fs::write(&full, generated).unwrap();
    }
    let checked_in = std::fs::read_to_string(&full).unwrap_or_default();
    assert!(
        checked_in == generated,
        "{path} is not what the table of keys says now: renew it with `MINFLOW_UPDATE=1 cargo test --lib checked_in`"
    );
}
