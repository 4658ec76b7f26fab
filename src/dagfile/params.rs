//! `[params]`: plain values, and JSON Schemas with their defaults.

use std::ops::Range;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Reader;
use crate::keytable::{self, Fields};
use crate::params::{self, Mismatch, Unsound};

/// The default of a param, which is no keyword of its schema.
const DEFAULT: &str = "default";

/// The params of a DAG file.
#[derive(Default)]
pub(super) struct Params {
    pub defaults: Map<String, Value>,
    pub schemas: Map<String, Value>,
}

impl Reader<'_, '_> {
    /// A table is always a schema: a table as a value stands in its `default`.
    pub(super) fn params(&mut self, fields: &Fields<'_>, is_scheduled: bool) -> Params {
        let mut found = Params::default();
        for (name, value) in fields.table("params").into_iter().flatten() {
            let key: &str = name.get_ref();
            match value.get_ref() {
                DeValue::Table(document) => {
                    let Some((schema, default)) = self.schema(name.span(), value, document) else { continue };
                    let default = default.or_else(|| allows_null(&schema).then_some(Value::Null));
                    if default.is_none() && is_scheduled {
                        let message = format!("param `{key}` has no default, and scheduled runs bring no value");
                        let help = "add `default = …` to it, or leave `schedule` out so that every run is triggered with a conf";
                        self.faults.add(name.span(), "bad-param", message, help);
                    }
                    found.defaults.extend(default.map(|default| (key.to_owned(), default)));
                    found.schemas.insert(key.to_owned(), schema);
                }
                plain => found.defaults.extend(keytable::json(plain).map(|value| (key.to_owned(), value))),
            }
        }
        found
    }

    /// A sound schema, and the default that stands in it. None if there is a fault.
    fn schema(
        &mut self,
        key: Range<usize>,
        value: &Spanned<DeValue<'_>>,
        document: &DeTable<'_>,
    ) -> Option<(Value, Option<Value>)> {
        let Value::Object(mut schema) = keytable::json(value.get_ref())? else { return None };
        let default = schema.shift_remove(DEFAULT);
        if !self.has_known_keywords(document) {
            return None;
        }
        let schema = Value::Object(schema);
        let place = |name: &str| document.iter().find(|(key, _)| key.get_ref() == name);
        if let Err(Unsound { path, message }) = params::check_schema(&schema) {
            let span = path.first().and_then(|first| place(first)).map_or(key, |(_, value)| value.span());
            let inside = if path.len() > 1 { format!("at `{}`: ", path.join(".")) } else { String::new() };
            let help = "correct it; the keywords are those of JSON Schema, draft 2020-12";
            self.faults.add(span, "bad-schema", format!("{inside}{message}"), help);
            return None;
        }
        let mismatch = default.as_ref().and_then(|default| params::check(&schema, default).err());
        if let Some(Mismatch { path, came, expected }) = mismatch {
            let span = place(DEFAULT).map_or(key, |(_, value)| value.span());
            let message = format!("the `default{path}` of this param is {came}, and must be {expected}");
            self.faults.add(span, "bad-param", message, "correct the default, or the schema that it contradicts");
            return None;
        }
        Some((schema, default))
    }

    fn has_known_keywords(&mut self, document: &DeTable<'_>) -> bool {
        let is_known = |name: &str| name == DEFAULT || name.starts_with("x-") || params::KEYWORDS.contains(&name);
        let is_schema = document.keys().any(|name| is_known(name.get_ref()));
        let mut is_well = true;
        for name in document.keys().filter(|name| !is_known(name.get_ref())) {
            is_well = false;
            let typed: &str = name.get_ref();
            let shown: String = typed.chars().take(60).collect();
            let near = if self.faults.is_full() {
                None
            } else {
                keytable::suggest(typed, params::KEYWORDS.iter().copied().chain([DEFAULT]))
            };
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None if is_schema => "a word of your own begins with `x-`".to_owned(),
                None => {
                    format!("a table here is a schema; a table as a value is written {{ default = {{ {shown} = … }} }}")
                }
            };
            let message = format!("`{shown}` is no keyword of JSON Schema");
            self.faults.add(name.span(), "bad-schema", message, help);
        }
        is_well
    }
}

/// TOML has no null: a schema that names it among its types has it as its default.
fn allows_null(schema: &Value) -> bool {
    match schema.get("type") {
        Some(Value::Array(types)) => types.iter().any(|name| name == "null"),
        single => single.is_some_and(|name| name == "null"),
    }
}
