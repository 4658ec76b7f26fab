//! `[assets]`, of airflow.toml and of DAG files alike: what they say, and what is wrong with them.

use serde_json::{Map, Value};
use toml::de::DeTable;

use super::keys;
use crate::keytable::{self, Faults, Fields};
use crate::model::asset::{AssetDefinition, SETTLE};
use crate::model::ids::MAX_ID_BYTES;
use crate::pattern::Pattern;

/// The longest uri in bytes.
pub const MAX_URI_BYTES: usize = 1_500;

/// Adds the faults of the section `assets` that the table of keys cannot express.
pub fn check(sections: &DeTable<'_>, faults: &mut Faults<'_>) {
    let assets = sections.get("assets").and_then(|section| section.get_ref().as_table());
    for (name, value) in assets.into_iter().flatten() {
        if let Some((message, help)) = fault_of_name(name.get_ref()) {
            faults.add(name.span(), "bad-asset", message, help);
        }
        let Some(table) = value.get_ref().as_table() else { continue };
        let fields = Fields::new(&keys::ASSET, table);
        if let (Some(uri), Some(value)) = (fields.text("uri"), fields.get("uri"))
            && let Some((message, help)) = fault_of_uri(uri)
        {
            faults.add(value.span(), "bad-asset", message, help);
        }
        let is_alias = fields.bool("alias") == Some(true);
        for (at, _) in
            ["uri", "extra", "settle", "catchup"].iter().filter_map(|key| fields.entry(key).filter(|_| is_alias))
        {
            let message = "an alias has nothing but a name and a `group`";
            faults.add(at, "bad-asset", message, "leave the key out: the assets that it stands for have their own");
        }
    }
}

/// Why a text cannot name an asset, and what to do.
pub fn fault_of_name(name: &str) -> Option<(String, &'static str)> {
    let is_allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.is_empty() || !name.chars().all(is_allowed) {
        let message = format!("`{}` cannot be the name of an asset", name.escape_debug());
        return Some((message, "use letters, digits, `_`, `.` and `-`, and give the rest as its `uri`"));
    }
    let is_long = name.len() > MAX_ID_BYTES;
    is_long.then(|| (format!("the name has {} bytes, more than the limit of {MAX_ID_BYTES}", name.len()), "shorten it"))
}

/// Whether a text is a uri and no name.
pub fn is_uri(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once("://") else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-'))
}

/// Why a text cannot be an asset's uri, and what to do.
pub fn fault_of_uri(uri: &str) -> Option<(String, &'static str)> {
    if uri.is_empty() || uri.contains(char::is_control) {
        return Some((
            "the uri is empty or holds control characters".to_owned(),
            "write for example `s3://bucket/orders`",
        ));
    }
    if uri.len() > MAX_URI_BYTES {
        let message = format!("the uri has {} bytes, more than the limit of {MAX_URI_BYTES}", uri.len());
        return Some((message, "shorten it: its `extra` may hold the rest"));
    }
    let path = uri.strip_prefix("file:")?;
    let Some(path) = path.strip_prefix("//").filter(|path| path.starts_with('/')) else {
        let message = format!("`{uri}` names no absolute path");
        return Some((message, "write three slashes, as in `file:///srv/in/*.csv`"));
    };
    let fault = Pattern::parse(path).err()?;
    Some((format!("`{path}` {fault}"), "write for example `file:///srv/in/*.csv`"))
}

/// What a checked table says, as JSON.
pub fn definition(name: &str, value: &Value) -> AssetDefinition {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let is = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
    let settle = value.get("settle").and_then(|settle| match settle {
        Value::String(text) => keytable::parse_duration(text),
        seconds => seconds.as_u64().map(std::time::Duration::from_secs),
    });
    let implied = AssetDefinition::implied(name);
    AssetDefinition {
        uri: text("uri").map_or(implied.uri, str::to_owned),
        group: text("group").map_or(implied.group, str::to_owned),
        extra: value.get("extra").and_then(Value::as_object).cloned().unwrap_or_else(Map::new),
        is_alias: is("alias"),
        settle: settle.unwrap_or(SETTLE),
        catchup: is("catchup"),
        name: implied.name,
    }
}
