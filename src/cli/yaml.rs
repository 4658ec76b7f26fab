//! JSON values as YAML text, for `-o yaml`. Texts that YAML could read as something else are quoted as JSON quotes them,
//! which YAML understands.

use serde_json::Value;

/// The value as a YAML document, with its final newline.
pub fn to_text(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

/// Writes `value` as lines that are indented by `depth` steps; the caller has already written what stands before it.
fn block(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                block(item, depth + 1, &mut inner);
                // The first line of the item moves up behind its dash.
                text.push_str(&format!("{indent}- {}", inner.trim_start_matches(' ')));
            }
        }
        Value::Object(fields) if !fields.is_empty() => {
            for (key, item) in fields {
                text.push_str(&format!("{indent}{}:", scalar(&Value::String(key.clone()))));
                if is_nested(item) {
                    text.push('\n');
                    block(item, depth + 1, text);
                } else {
                    text.push_str(&format!(" {}\n", scalar(item)));
                }
            }
        }
        other => text.push_str(&format!("{indent}{}\n", scalar(other))),
    }
}

fn is_nested(value: &Value) -> bool {
    match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => false,
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether YAML reads these letters as this text and as nothing else. Errs towards quoting.
fn is_plain(text: &str) -> bool {
    let begins_as_word = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == '/');
    let is_tame = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./+ ".contains(c));
    let is_reserved = matches!(
        text.to_ascii_lowercase().as_str(),
        "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "nan" | "inf"
    );
    begins_as_word && is_tame && !is_reserved && !text.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nested_records_are_written_as_blocks() {
        let value = json!([{"dag_id": "a", "tags": ["x", "y"], "last_run": {"state": null}, "conf": {}, "n": 3}, {"dag_id": "b"}]);
        assert_eq!(
            to_text(&value),
            "- dag_id: a\n  tags:\n    - x\n    - \"y\"\n  last_run:\n    state: null\n  conf: {}\n  \"n\": 3\n- dag_id: b\n"
        );
    }

    #[test]
    fn texts_that_yaml_would_misread_are_quoted() {
        for text in ["", "true", "No", "1", "1.5", "a: b", "- a", "#x", "a #b", "2026-11-21", "x\ny", "*a", " a", "a "]
        {
            assert_eq!(scalar(&json!(text)), json!(text).to_string(), "{text:?}");
        }
        assert_eq!(scalar(&json!("etl/load.toml")), "etl/load.toml");
    }

    #[test]
    fn an_empty_list_stands_alone() {
        assert_eq!(to_text(&json!([])), "[]\n");
    }
}
