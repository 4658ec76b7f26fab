//! A connection, and how it is read from a URI or from JSON.

use std::fmt;

use serde_json::{Map, Value};

use super::uri;

/// How to reach a service: Airflow's connection. Results are those of Airflow's task SDK: what a URI's query says stays text.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Connection {
    /// Normalized: `_` for `-`, `postgres` for `postgresql`. None only where JSON or a table leaves it out.
    pub conn_type: Option<String>,
    pub description: Option<String>,
    pub host: Option<String>,
    pub login: Option<String>,
    pub password: Option<String>,
    pub schema: Option<String>,
    pub port: Option<i64>,
    /// Usually a JSON object, as text.
    pub extra: Option<String>,
}

impl fmt::Debug for Connection {
    // The password and the extra are secrets and stay out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("conn_type", &self.conn_type)
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Why a text is no connection. Its message never holds the text, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionError {
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl ConnectionError {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.help)
    }
}

impl std::error::Error for ConnectionError {}

const JSON_KEYS: [&str; 8] = ["conn_type", "description", "host", "login", "password", "schema", "port", "extra"];

impl Connection {
    /// Reads a URI, or JSON if the text starts with `{`.
    ///
    /// # Errors
    /// As [`Connection::from_uri`] and [`Connection::from_json`].
    pub fn parse(text: &str) -> Result<Self, ConnectionError> {
        let text = text.trim();
        if text.starts_with('{') { Self::from_json(text) } else { Self::from_uri(text) }
    }

    /// `type://login:password@host:port/schema?key=value`, parts percent-encoded.
    ///
    /// # Errors
    /// What Airflow refuses: too many `://`, a port that is none, brackets around what is no IPv6 address.
    pub fn from_uri(text: &str) -> Result<Self, ConnectionError> {
        uri::parse(text)
    }

    /// A JSON object with the names of the fields; `extra` may be an object or a text.
    ///
    /// # Errors
    /// Not an object, an unknown key, or a value of a kind that its field cannot have.
    pub fn from_json(text: &str) -> Result<Self, ConnectionError> {
        let fields: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
            let message = format!(
                "it is not a JSON object: {}, line {}, column {}",
                kind_of(&error),
                error.line(),
                error.column()
            );
            ConnectionError::new(message, r#"write for example {"conn_type": "http", "host": "example.com"}"#)
        })?;
        if let Some((name, _)) = fields.iter().find(|(name, _)| !JSON_KEYS.contains(&name.as_str())) {
            let help = match crate::diagnostic::did_you_mean(name, JSON_KEYS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys are {}", JSON_KEYS.map(|key| format!("`{key}`")).join(", ")),
            };
            return Err(ConnectionError::new(format!("unknown key `{name}`"), help));
        }
        let text = |name: &str| match fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(ConnectionError::new(format!("`{name}` must be text"), "put its value in quotes")),
        };
        Ok(Self {
            conn_type: text("conn_type")?.map(|given| normalize_type(&given)),
            description: text("description")?,
            host: text("host")?,
            login: text("login")?,
            password: text("password")?,
            schema: text("schema")?,
            port: port_of(fields.get("port"))?,
            extra: fields.get("extra").and_then(extra_of),
        })
    }

    /// The URI that [`Connection::from_uri`] reads back, as Airflow's `get_uri` writes it.
    pub fn uri(&self) -> String {
        uri::print(self)
    }

    /// The extra as JSON; an empty object where there is none or it is no JSON.
    pub fn extra_dejson(&self) -> Value {
        let parsed = self.extra.as_deref().filter(|text| !text.is_empty()).map(serde_json::from_str);
        parsed.and_then(Result::ok).unwrap_or_else(|| Value::Object(Map::new()))
    }
}

/// What is wrong with a JSON text, without any of it.
fn kind_of(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Data => "it is of another kind",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "there is a mistake in it",
    }
}

pub(super) fn normalize_type(given: &str) -> String {
    if given == "postgresql" { "postgres".to_owned() } else { given.replace('-', "_") }
}

/// What Python's `int` makes of it; nothing of what counts as false there.
fn port_of(given: Option<&Value>) -> Result<Option<i64>, ConnectionError> {
    let port = match given {
        None | Some(Value::Null | Value::Bool(false)) => return Ok(None),
        Some(Value::Number(number)) => number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(_) => None,
    };
    match port {
        Some(0) if !given.is_some_and(Value::is_string) => Ok(None),
        Some(port) => Ok(Some(port)),
        None => Err(ConnectionError::new("`port` is no whole number", "write for example \"port\": 5432")),
    }
}

/// What counts as false in Python is none.
fn extra_of(given: &Value) -> Option<String> {
    let is_empty = match given {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(pairs) => pairs.is_empty(),
        Value::Bool(true) => false,
    };
    let text = || given.as_str().map_or_else(|| dumps(given), str::to_owned);
    (!is_empty).then(text)
}

/// JSON as Python's `json.dumps` writes it: a space after `,` and `:`, and nothing but ASCII.
pub fn dumps(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value);
    out
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => write_text(out, text),
        Value::Number(number) => {
            let text = number.to_string();
            // Python writes the sign of an exponent, and at least two digits.
            match text.split_once('e') {
                Some((digits, exponent)) => {
                    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
                    let exponent = exponent.trim_start_matches('+');
                    out.push_str(&format!("{digits}e{sign}{exponent:0>2}"));
                }
                None => out.push_str(&text),
            }
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                write(out, item);
            }
            out.push(']');
        }
        Value::Object(pairs) => {
            out.push('{');
            for (at, (name, item)) in pairs.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                write_text(out, name);
                out.push_str(": ");
                write(out, item);
            }
            out.push('}');
        }
        Value::Null | Value::Bool(_) => out.push_str(&value.to_string()),
    }
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
}
