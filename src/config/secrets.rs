//! `[variables]` and `[connections]`: what they say, what is wrong with them, and that no fault shows a password.

use std::ops::Range;
use std::path::Path;

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::keys;
use crate::diagnostic::Diagnostic;
use crate::keytable::{Faults, Fields};
use crate::secrets::{Connection, Credential, GivenConnection, HIDDEN, Sensitive, dumps};

/// What a URI says already.
const OF_URI: [&str; 6] = ["conn_type", "host", "login", "schema", "port", "extra"];
const PASSWORDS: [&str; 3] = ["password", "password_file", "password_env"];

/// Adds the faults of connections that the table of keys cannot express.
pub(super) fn check(sections: &DeTable<'_>, faults: &mut Faults<'_>) {
    let connections = sections.get("connections").and_then(|section| section.get_ref().as_table());
    for (_, value) in connections.into_iter().flatten() {
        match value.get_ref() {
            DeValue::String(text) => {
                check_text(text, value.span(), faults);
            }
            DeValue::Table(table) => check_table(table, faults),
            _ => {}
        }
    }
}

/// Whether it holds a password.
fn check_text(text: &str, span: Range<usize>, faults: &mut Faults<'_>) -> bool {
    match Connection::parse(text) {
        Ok(connection) => connection.password.is_some(),
        Err(error) => {
            faults.add(span, "bad-connection", format!("this is no connection: {}", error.message), error.help);
            false
        }
    }
}

fn check_table(table: &DeTable<'_>, faults: &mut Faults<'_>) {
    let fields = Fields::new(&keys::CONNECTION, table);
    let mut has_password = false;
    if let (Some(uri), Some((_, value))) = (fields.text("uri"), fields.entry("uri")) {
        has_password = check_text(uri, value.span(), faults);
        for name in OF_URI {
            if let Some((span, _)) = fields.entry(name) {
                let message = format!("`{name}` is given beside `uri`, which says it too");
                faults.add(span, "conflict", message, "keep `uri`, or all the other keys");
            }
        }
    }
    for (span, _) in PASSWORDS.iter().filter_map(|name| fields.entry(name)) {
        if std::mem::replace(&mut has_password, true) {
            faults.add(span, "conflict", "the password is given twice", "keep one of the two");
        }
    }
    for name in ["password_file", "password_env"] {
        if let (Some(""), Some((_, value))) = (fields.text(name), fields.entry(name)) {
            faults.add(
                value.span(),
                "bad-value",
                format!("`{name}` is empty"),
                "name the file or the variable, or leave it out",
            );
        }
    }
    if let (Some(text), Some((_, value))) = (fields.text("extra"), fields.entry("extra"))
        && serde_json::from_str::<Value>(text).is_err()
    {
        faults.add(
            value.span(),
            "bad-connection",
            "`extra` is no JSON",
            "write a table, as in `extra = { key = \"value\" }`",
        );
    }
}

/// A variable's text: as it is, or JSON.
pub(super) fn variable(value: &Value) -> String {
    value.as_str().map_or_else(|| dumps(value), str::to_owned)
}

/// A connection that has been checked; None if it had a fault.
pub(super) fn connection(value: &Value, origin: &str, home: &Path) -> Option<GivenConnection> {
    let origin = origin.to_owned();
    let table = match value {
        Value::String(text) => {
            return Some(GivenConnection { connection: Connection::parse(text).ok()?, credential: None, origin });
        }
        _ => value.as_object()?,
    };
    let text = |name: &str| table.get(name).and_then(Value::as_str);
    let mut connection = match text("uri") {
        Some(uri) => Connection::parse(uri).ok()?,
        None => Connection::from_json(&Value::Object(json_fields(table)).to_string()).ok()?,
    };
    connection.description = text("description").map(str::to_owned);
    if let Some(password) = text("password") {
        connection.password = Some(password.to_owned());
    }
    let of_file = text("password_file").map(|path| Credential::File(home.join(path)));
    let credential = of_file.or_else(|| text("password_env").map(|name| Credential::Environment(name.to_owned())));
    Some(GivenConnection { connection, credential, origin })
}

fn json_fields(table: &Map<String, Value>) -> Map<String, Value> {
    let fields = table.iter().filter(|(name, _)| OF_URI.contains(&name.as_str()));
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The keys of a connection whose values are no secrets.
const SHOWN: [&str; 8] =
    ["conn_type", "description", "host", "login", "password_env", "password_file", "port", "schema"];

/// Hides the value that stands on a fault's line if it may be a secret. Goes by the lines of the text, since what has a fault may
/// be no TOML.
pub(super) fn conceal(fault: &mut Diagnostic, text: &str, sensitive: &Sensitive) {
    let Some(before) = (fault.line as usize).checked_sub(1) else { return };
    let line = fault.source_line.clone();
    let Some(start) = secret_part(text, before, &line, sensitive) else { return };
    let value = line[start..].trim();
    fault.source_line = format!("{}{HIDDEN}", &line[..start]);
    let column = line[..start].chars().count() as u32 + 1;
    if fault.column >= column {
        (fault.column, fault.width) = (column, HIDDEN.len() as u32);
    }
    if fault.code == "syntax" {
        fault.help = "put texts in quotes, and check the brackets and commas".to_owned();
    }
    for part in [value, value.trim_matches(['"', '\''])].into_iter().filter(|part| part.chars().count() > 2) {
        fault.message = fault.message.replace(part, HIDDEN);
        fault.help = fault.help.replace(part, HIDDEN);
    }
}

/// From where on a line may hold a secret, given how many stand before it.
fn secret_part(text: &str, before: usize, line: &str, sensitive: &Sensitive) -> Option<usize> {
    let earlier = || text.lines().take(before);
    let is_header = |line: &&str| line.trim_start().starts_with('[') && !line.contains('=');
    if is_header(&line) {
        return None;
    }
    let quotes = |mark: &str| earlier().map(|line| line.matches(mark).count()).sum::<usize>();
    let is_inside_text = quotes("\"\"\"") % 2 == 1 || quotes("\'\'\'") % 2 == 1;
    let own = line.split_once('=').filter(|_| !is_inside_text).map(|(key, _)| key);
    // What goes on over many lines has its key above them.
    let key = own.or_else(|| earlier().filter_map(|line| Some(line.split_once('=')?.0)).last()).unwrap_or_default();
    let header = earlier().filter(is_header).last().unwrap_or_default();
    let path = format!("{header}.{key}");
    let mut parts = path.split(['[', ']', '.', '"', '\'', ' ', '\t']).filter(|part| !part.is_empty());
    let is_secret = if parts.clone().any(|part| part == "connections") {
        let rest: Vec<&str> = parts.skip_while(|part| *part != "connections").skip(1).collect();
        let is_plain = rest.len() == 2 && SHOWN.contains(&rest[1]) && !key.contains(['"', '\'']);
        own.is_none() || !is_plain
    } else if parts.clone().any(|part| part == "smtp") {
        // A header that is broken stands above nothing but its own keys.
        let name = key.trim();
        own.is_none() || name.contains(['[', '{', '"', '\'']) || matches!(name, "password" | "smtp.password" | "smtp")
    } else {
        parts.any(|part| part == "variables") && (sensitive.hides(&path) || sensitive.hides(line))
    };
    let start = own.map_or(0, |key| key.len() + 1);
    is_secret.then(|| line.len() - line[start..].trim_start().len())
}
