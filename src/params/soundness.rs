//! Whether a JSON Schema is one: known types, numbers where numbers belong, patterns that can be searched for, references that lead
//! somewhere (draft 2020-12's own schema).

use serde_json::{Map, Value};

use super::{pattern, schema};

/// What is wrong with a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsound {
    /// The keys and places that lead to it, the outermost first.
    pub path: Vec<String>,
    /// What came and what was expected.
    pub message: String,
}

/// What a keyword's value must be.
#[derive(Clone, Copy)]
enum Shape {
    Schema,
    Schemas,
    SchemasByName,
    /// By name, and each name is a pattern.
    SchemasByPattern,
    Number,
    Positive,
    Count,
    Bool,
    Text,
    Pattern,
    List,
    Names,
    NamesByName,
    Types,
    Reference,
    Anything,
}

const SHAPES: &[(&str, Shape)] = &[
    ("type", Shape::Types),
    ("enum", Shape::List),
    ("const", Shape::Anything),
    ("minimum", Shape::Number),
    ("maximum", Shape::Number),
    ("exclusiveMinimum", Shape::Number),
    ("exclusiveMaximum", Shape::Number),
    ("multipleOf", Shape::Positive),
    ("minLength", Shape::Count),
    ("maxLength", Shape::Count),
    ("pattern", Shape::Pattern),
    ("format", Shape::Text),
    ("minItems", Shape::Count),
    ("maxItems", Shape::Count),
    ("uniqueItems", Shape::Bool),
    ("items", Shape::Schema),
    ("prefixItems", Shape::Schemas),
    ("contains", Shape::Schema),
    ("minContains", Shape::Count),
    ("maxContains", Shape::Count),
    ("unevaluatedItems", Shape::Schema),
    ("minProperties", Shape::Count),
    ("maxProperties", Shape::Count),
    ("required", Shape::Names),
    ("properties", Shape::SchemasByName),
    ("patternProperties", Shape::SchemasByPattern),
    ("additionalProperties", Shape::Schema),
    ("propertyNames", Shape::Schema),
    ("unevaluatedProperties", Shape::Schema),
    ("dependentRequired", Shape::NamesByName),
    ("dependentSchemas", Shape::SchemasByName),
    ("allOf", Shape::Schemas),
    ("anyOf", Shape::Schemas),
    ("oneOf", Shape::Schemas),
    ("not", Shape::Schema),
    ("if", Shape::Schema),
    ("then", Shape::Schema),
    ("else", Shape::Schema),
    ("$ref", Shape::Reference),
    ("$dynamicRef", Shape::Reference),
    ("$defs", Shape::SchemasByName),
    ("definitions", Shape::SchemasByName),
];

/// The keywords that a param may have beside `default`; the last ones say nothing about the value, and some are for Airflow's form.
pub static KEYWORDS: &[&str] = &[
    "type",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minItems",
    "maxItems",
    "uniqueItems",
    "items",
    "prefixItems",
    "contains",
    "minContains",
    "maxContains",
    "unevaluatedItems",
    "minProperties",
    "maxProperties",
    "required",
    "properties",
    "patternProperties",
    "additionalProperties",
    "propertyNames",
    "unevaluatedProperties",
    "dependentRequired",
    "dependentSchemas",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "$ref",
    "$dynamicRef",
    "$defs",
    "definitions",
    "$anchor",
    "$dynamicAnchor",
    "$comment",
    "$schema",
    "$id",
    "title",
    "description",
    "description_md",
    "examples",
    "section",
    "values_display",
    "items_type",
    "custom_html_form",
    "readOnly",
    "writeOnly",
    "deprecated",
    "contentEncoding",
    "contentMediaType",
    "source",
];

/// Checks a schema and all inside it.
///
/// # Errors
/// The first fault, with its place.
pub fn check_schema(root: &Value) -> Result<(), Unsound> {
    let mut path = Vec::new();
    Checker { root }.schema(root, &mut path).map_err(|message| Unsound { path, message })
}

struct Checker<'s> {
    root: &'s Value,
}

/// On a fault the path is left as it led there.
type Checked = Result<(), String>;

impl Checker<'_> {
    fn schema(&self, schema: &Value, path: &mut Vec<String>) -> Checked {
        let pairs = match schema {
            Value::Bool(_) => return Ok(()),
            Value::Object(pairs) => pairs,
            other => return Err(format!("a schema is a table or a truth value, and this is {other}")),
        };
        for (keyword, value) in pairs {
            let Some((_, shape)) = SHAPES.iter().find(|(name, _)| name == keyword) else { continue };
            path.push(keyword.clone());
            self.value(*shape, keyword, value, path)?;
            path.pop();
        }
        Ok(())
    }

    fn value(&self, shape: Shape, keyword: &str, value: &Value, path: &mut Vec<String>) -> Checked {
        let must = |fits: bool, what: &str| {
            if fits { Ok(()) } else { Err(format!("`{keyword}` is {what}, and this is {value}")) }
        };
        match (shape, value) {
            (Shape::Anything, _) => Ok(()),
            (Shape::Schema, value) => self.schema(value, path),
            (Shape::Schemas, Value::Array(all)) if !all.is_empty() => self.each(all, path),
            (Shape::Schemas, _) => must(false, "a list of at least one schema"),
            (Shape::SchemasByName, Value::Object(all)) => self.each_by_name(all, path),
            (Shape::SchemasByPattern, Value::Object(all)) => {
                all.keys().try_for_each(|text| searchable(text))?;
                self.each_by_name(all, path)
            }
            (Shape::SchemasByName | Shape::SchemasByPattern, _) => must(false, "a table of schemas"),
            (Shape::Number, value) => must(value.is_number(), "a number"),
            (Shape::Positive, value) => must(value.as_f64().is_some_and(|number| number > 0.0), "a number above 0"),
            (Shape::Count, value) => must(
                value.as_f64().is_some_and(|count| count >= 0.0 && count.fract() == 0.0),
                "an integer of 0 or more",
            ),
            (Shape::Bool, value) => must(value.is_boolean(), "true or false"),
            (Shape::Text, value) => must(value.is_string(), "text"),
            (Shape::Pattern, Value::String(text)) => searchable(text),
            (Shape::Pattern, _) => must(false, "a regular expression, as text"),
            (Shape::List, value) => must(value.is_array(), "a list"),
            (Shape::Names, value) => must(is_names(value), "a list of different names"),
            (Shape::NamesByName, value) => {
                must(value.as_object().is_some_and(|all| all.values().all(is_names)), "a table of lists of names")
            }
            (Shape::Types, value) => types(value),
            (Shape::Reference, Value::String(text)) => {
                let leads = schema::find(self.root, text).is_some();
                if leads {
                    Ok(())
                } else {
                    Err(format!("`{keyword}` leads nowhere: there is no `{text}` in this schema"))
                }
            }
            (Shape::Reference, _) => must(false, "a place in this schema such as `#/$defs/NAME`"),
        }
    }

    fn each(&self, schemas: &[Value], path: &mut Vec<String>) -> Checked {
        for (at, schema) in schemas.iter().enumerate() {
            path.push(at.to_string());
            self.schema(schema, path)?;
            path.pop();
        }
        Ok(())
    }

    fn each_by_name(&self, schemas: &Map<String, Value>, path: &mut Vec<String>) -> Checked {
        for (name, schema) in schemas {
            path.push(name.clone());
            self.schema(schema, path)?;
            path.pop();
        }
        Ok(())
    }
}

fn searchable(text: &str) -> Checked {
    match pattern::compile(text) {
        Ok(_) => Ok(()),
        Err(reason) => Err(format!("`{text}` is no regular expression that minflow knows: {reason}")),
    }
}

fn is_names(value: &Value) -> bool {
    let Some(names) = value.as_array() else { return false };
    names.iter().enumerate().all(|(at, name)| name.is_string() && !names[..at].contains(name))
}

fn types(value: &Value) -> Checked {
    const TYPES: [&str; 7] = ["string", "integer", "number", "boolean", "array", "object", "null"];
    let is_type = |name: &Value| name.as_str().is_some_and(|name| TYPES.contains(&name));
    let is_well = match value {
        Value::Array(names) => {
            !names.is_empty() && names.iter().enumerate().all(|(at, name)| is_type(name) && !names[..at].contains(name))
        }
        single => is_type(single),
    };
    if is_well {
        return Ok(());
    }
    Err(format!(
        "`type` is one of {}, or a list of different ones, and this is {value}",
        TYPES.map(|name| format!("`{name}`")).join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sound_schema_passes_and_a_faulty_one_is_named_with_its_place() {
        let sound = [
            json!({}),
            json!(true),
            json!({ "type": ["null", "string"], "unknown": 1 }),
            json!({ "$defs": { "a": { "$anchor": "x" } }, "items": { "$ref": "#/$defs/a" }, "not": { "$ref": "#x" } }),
            json!({ "properties": { "type": { "type": "string" } }, "required": ["type"] }),
            json!({ "$ref": "#" }),
        ];
        for schema in sound {
            assert_eq!(check_schema(&schema), Ok(()), "{schema}");
        }
        let faulty = [
            (json!({ "type": "str" }), "type", "`type` is one of `string`"),
            (json!({ "type": [] }), "type", "and this is []"),
            (json!({ "minimum": "1" }), "minimum", "`minimum` is a number, and this is \"1\""),
            (json!({ "multipleOf": 0 }), "multipleOf", "a number above 0"),
            (json!({ "minLength": -1 }), "minLength", "an integer of 0 or more"),
            (json!({ "items": { "pattern": "(" } }), "items pattern", "`(` is no regular expression"),
            (json!({ "pattern": "(?=a)" }), "pattern", "look-around"),
            (json!({ "patternProperties": { "[": {} } }), "patternProperties", "`[` is no regular expression"),
            (json!({ "anyOf": [{}, { "enum": 1 }] }), "anyOf 1 enum", "`enum` is a list"),
            (json!({ "allOf": [] }), "allOf", "at least one schema"),
            (json!({ "properties": { "x": 1 } }), "properties x", "a schema is a table or a truth value"),
            (json!({ "required": ["a", "a"] }), "required", "different names"),
            (json!({ "$ref": "http://example.com/x" }), "$ref", "leads nowhere"),
        ];
        for (schema, path, message) in faulty {
            let unsound = check_schema(&schema).unwrap_err();
            assert_eq!(unsound.path.join(" "), path, "{schema}");
            assert!(unsound.message.contains(message), "{}", unsound.message);
        }
    }

    #[test]
    fn every_keyword_that_is_checked_may_be_written() {
        assert!(SHAPES.iter().all(|(name, _)| KEYWORDS.contains(name)));
    }
}
