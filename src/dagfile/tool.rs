//! The operators whose work is told by a table alone: `http`, `email`, `docker` and plugins.

use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::DeValue;

use super::Reader;
use crate::keytable::{self, Fields, Kind};
use crate::model::dag::Operator;
use crate::model::docker::{self, Mount};
use crate::model::retry::output_pattern;
use crate::model::tool::{Statuses, Tool, ToolField, ToolKind};

/// Rendered when the answer is there.
const LATE: [&str; 2] = ["response_check", "response_filter"];

impl Reader<'_, '_> {
    /// `key` is where `http` stands.
    pub(super) fn http(&mut self, key: Range<usize>, fields: &Fields<'_>) -> Operator {
        self.check_http(key, fields);
        Operator::Tool(Box::new(Tool { kind: ToolKind::Http, fields: self.tool_fields(fields) }))
    }

    /// `key` is where `email` stands.
    pub(super) fn email(&mut self, key: Range<usize>, fields: &Fields<'_>) -> Operator {
        let help =
            "write for example `email = { to = \"ann@example.com\", subject = \"done\", body = \"{{ ds }} is done\" }`";
        if ["to", "cc", "bcc"].iter().all(|name| fields.get(name).is_none()) {
            self.faults.add(key.clone(), "bad-operator", "`email` does not say whom it goes to", help);
        }
        if fields.get("subject").is_none() {
            self.faults.add(key, "bad-operator", "`email` needs a `subject`", help);
        }
        Operator::Tool(Box::new(Tool { kind: ToolKind::Email, fields: self.tool_fields(fields) }))
    }

    /// `key` is where `docker` stands.
    pub(super) fn docker(&mut self, key: Range<usize>, fields: &Fields<'_>) -> Operator {
        match fields.entry("image") {
            None => {
                let help = "write for example `docker = { image = \"alpine:3\", command = \"echo {{ ds }}\" }`";
                self.faults.add(key, "bad-operator", "`docker` needs an `image`", help);
            }
            Some((span, _)) if fields.text("image").is_some_and(|image| image.trim().is_empty()) => {
                let help = "name an image, such as \"alpine:3\"";
                self.faults.add(span, "bad-value", "`image` is empty", help);
            }
            Some(_) => {}
        }
        for (name, _) in fields.table("environment").into_iter().flatten() {
            if !docker::is_variable(name.get_ref()) {
                let message = format!("`{}` cannot be the name of a variable", name.get_ref().escape_debug());
                let help = "use a name without blanks and `=`, which does not begin with `#`";
                self.faults.add(name.span(), "bad-value", message, help);
            }
        }
        for mount in fields.list("mounts") {
            let json = keytable::json(mount.get_ref()).filter(|json| json.is_string() || json.is_object());
            // What templates give is looked at when the task runs.
            let json = json.filter(|json| !json.to_string().contains("{{") && !json.to_string().contains("{%"));
            if let Some(Err(message)) = json.map(|json| Mount::of(&json)) {
                let help = "a mount is text, as in \"/srv/in:/in:ro\", or a table with `source` and `target`";
                self.faults.add(mount.span(), "bad-value", message, help);
            }
        }
        Operator::Tool(Box::new(Tool { kind: ToolKind::Docker, fields: self.tool_fields(fields) }))
    }

    /// What of an HTTP request no table of keys can say.
    pub(super) fn check_http(&mut self, key: Range<usize>, fields: &Fields<'_>) {
        if fields.get("url").is_none() && fields.get("connection").is_none() {
            let help = "write for example `http = { url = \"https://api.example.com/v1/items\", response = \"json\" }`";
            self.faults.add(key, "bad-operator", "`http` needs a `url`", help);
        }
        if let (Some(_), Some((span, _))) = (fields.get("body"), fields.entry("json")) {
            self.faults.add(span, "bad-operator", "`body` and `json` cannot stand together", "keep one of them");
        }
        let given = fields.text("method").unwrap_or("GET");
        if let Some((span, _)) = fields.entry("body").or_else(|| fields.entry("json")).filter(|_| given == "HEAD") {
            self.faults.add(span, "bad-operator", "a request of the method HEAD has no body", "take POST or PUT");
        }
        let lists = ["expect_status", "retry_status", "wait_status"].into_iter();
        let known = lists.filter(|name| fields.table.find(name).is_some());
        for item in known.flat_map(|name| fields.list(name)) {
            let text = item.get_ref().as_str();
            if let Some(text) = text.filter(|text| Statuses::parse(text).is_none()) {
                let message = format!("`{text}` is neither a status nor a range of them");
                self.faults.add(item.span(), "bad-value", message, "write for example 404 or \"200..299\"");
            }
        }
    }

    /// `key` is where `http` of a sensor stands.
    pub(super) fn awaited_http(&mut self, key: Range<usize>, fields: &Fields<'_>) -> Tool {
        self.check_http(key, fields);
        if let (Some((span, _)), Some(text)) = (fields.entry("contains"), fields.text("contains"))
            && let Err(error) = output_pattern(text)
        {
            let message = format!("`contains` is not a regular expression: {error}");
            let help = "write for example `contains = 'ready|done'`; a character that is meant as it stands takes a `\\` before it, as in `\\(`";
            self.faults.add(span, "bad-pattern", message, help);
        }
        Tool { kind: ToolKind::Http, fields: self.tool_fields(fields) }
    }

    /// The plugin `name`, with whatever table it is given.
    pub(super) fn plugin(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Operator {
        let kind = ToolKind::Plugin(name.to_owned());
        let Some(table) = value.get_ref().as_table() else {
            let message = format!("`{name}` is a plugin, and takes a table");
            let help = format!("write for example `{name} = {{ key = \"value\" }}`, or `{name} = {{}}`");
            self.faults.add(value.span(), "wrong-type", message, help);
            return Operator::Empty;
        };
        let mut given = Vec::new();
        for (key, value) in table {
            match keytable::json(value.get_ref()) {
                Some(json) => given.push(self.tool_field(key.get_ref(), value, json)),
                None => {
                    let message = format!("`{}` holds a number that JSON has none for", key.get_ref());
                    self.faults.add(
                        value.span(),
                        "bad-value",
                        message,
                        "use a finite number of at most 64 bits, or text",
                    );
                }
            }
        }
        Operator::Tool(Box::new(Tool { kind, fields: given }))
    }

    /// What a table gives, durations as seconds.
    pub(super) fn tool_fields(&mut self, fields: &Fields<'_>) -> Vec<ToolField> {
        let mut given = Vec::new();
        for key in fields.table.iter() {
            let Some(value) = fields.get(key.name) else { continue };
            let json = match key.kind {
                Kind::Duration { .. } => fields.duration(key.name).map(|duration| Value::from(duration.as_secs())),
                _ => keytable::json(value.get_ref()),
            };
            // What is none has been reported.
            let field = json.map(|json| self.tool_field(key.name, value, json));
            let (is_late, is_plain) = (LATE.contains(&key.name), matches!(key.kind, Kind::Text));
            given.extend(field.map(|field| ToolField { is_late, is_plain, ..field }));
        }
        given
    }

    fn tool_field(&self, name: &str, value: &Spanned<DeValue<'_>>, json: Value) -> ToolField {
        let at = if json.is_string() { self.template(value).at } else { self.position(value) };
        ToolField { name: name.to_owned(), value: json, at, is_late: false, is_plain: false }
    }
}
