//! `http = …`: from rendered fields and a connection to a request.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::builtin::http::task::{Awaited, HttpTask};
use crate::builtin::http::{Keep, Request, Trust, Url, query};
use crate::model::tool::{Statuses, Taken};
use crate::operators::{Fault, Place, Program, builtin};
use crate::secrets::Connection;
use crate::template::Lookup;

const TIMEOUT: Duration = Duration::from_secs(30);
const EXPECTED: Statuses = Statuses::new(200, 299);
const RETRIED: [Statuses; 4] =
    [Statuses::new(429, 429), Statuses::new(502, 502), Statuses::new(503, 503), Statuses::new(504, 504)];

/// Keys of a connection's extra that are settings; the others are headers (Airflow: `HttpHook`).
const SETTINGS: [&str; 9] = [
    "timeout",
    "verify",
    "allow_redirects",
    "max_redirects",
    "trust_env",
    "check_response",
    "stream",
    "auth_type",
    "headers",
];

/// Airflow: `response_error_codes_allowlist` of its `HttpSensor`.
const NOT_YET: Statuses = Statuses::new(404, 404);

/// One look of a sensor, by a process of its own.
pub fn look(fields: &Map<String, Value>, place: &Place<'_>) -> Result<Program, Fault> {
    program(looking(fields, place)?, place)
}

/// One look of a sensor.
pub fn looking(fields: &Map<String, Value>, place: &Place<'_>) -> Result<HttpTask, Fault> {
    let wait_status = match fields.get("wait_status") {
        Some(Value::Array(list)) => list.iter().filter_map(Statuses::of).collect(),
        _ => vec![NOT_YET],
    };
    let contains = fields.get("contains").and_then(Value::as_str).map(str::to_owned);
    let task = task(fields, place.context.lookup.as_ref(), place.home).map_err(Fault::Task)?;
    let keep = if contains.is_some() { Keep::Whole } else { task.request.keep };
    Ok(HttpTask { request: Request { keep, ..task.request }, awaited: Some(Awaited { wait_status, contains }), ..task })
}

pub fn prepare(fields: &Map<String, Value>, place: &Place<'_>) -> Result<Program, Fault> {
    let task = task(fields, place.context.lookup.as_ref(), place.home).map_err(Fault::Task)?;
    program(task, place)
}

fn program(task: HttpTask, place: &Place<'_>) -> Result<Program, Fault> {
    let value = builtin::value_path(place);
    let task = HttpTask { value: value.clone(), verdict: builtin::verdict_path(place), ..task };
    builtin::program("http", &task, value, place)
}

/// What rendered fields ask for; where value and verdict go is left to the caller. `home` is where paths of connections begin.
///
/// # Errors
/// A sentence: no such connection, or one that asks for what there is not; an address that is none.
pub fn task(fields: &Map<String, Value>, lookup: &dyn Lookup, home: &Path) -> Result<HttpTask, String> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let statuses = |name: &str, default: &[Statuses]| match fields.get(name) {
        Some(Value::Array(list)) => list.iter().filter_map(Statuses::of).collect(),
        _ => default.to_vec(),
    };
    let response = text("response").and_then(Taken::from_name).unwrap_or_default();
    let late = |name: &str| text(name).map(str::to_owned);
    let request = request(fields, lookup, home)?;
    let is_looked_at =
        response != Taken::None || fields.contains_key("response_check") || fields.contains_key("response_filter");
    Ok(HttpTask {
        request: Request { keep: if is_looked_at { Keep::Whole } else { Keep::Beginning }, ..request },
        expect_status: statuses("expect_status", &[EXPECTED]),
        retry_status: statuses("retry_status", &RETRIED),
        response,
        response_check: late("response_check"),
        response_filter: late("response_filter"),
        awaited: None,
        value: Default::default(),
        verdict: Default::default(),
    })
}

/// The request of rendered fields, which keeps the whole body.
///
/// # Errors
/// As [`task`].
pub fn request(fields: &Map<String, Value>, lookup: &dyn Lookup, home: &Path) -> Result<Request, String> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let base = match text("connection") {
        Some(id) => Some(Base::of(id, lookup, home)?),
        None => None,
    };
    let url = address(text("url").unwrap_or_default(), base.as_ref())?;
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in fields.get("headers").and_then(Value::as_object).into_iter().flatten() {
        headers.push((name.clone(), plain(value)));
    }
    let mut add = |name: &str, value: String| {
        if !headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            headers.push((name.to_owned(), value));
        }
    };
    if let Some((login, password)) = url.login().cloned().or_else(|| base.as_ref().and_then(|base| base.login.clone()))
    {
        add("Authorization", format!("Basic {}", base64(format!("{login}:{password}").as_bytes())));
    }
    for (name, value) in base.iter().flat_map(|base| &base.headers) {
        add(name, value.clone());
    }
    let mut body = None;
    if let Some(json) = fields.get("json") {
        body = Some(json.to_string());
        add("Content-Type", "application/json".to_owned());
    } else if let Some(form) = fields.get("body").and_then(Value::as_object) {
        body = Some(pairs(form));
        add("Content-Type", "application/x-www-form-urlencoded".to_owned());
    } else if let Some(given) = text("body") {
        body = Some(given.to_owned());
        add("Content-Type", "text/plain; charset=utf-8".to_owned());
    }
    add("Accept", "*/*".to_owned());
    let params = fields.get("params").and_then(Value::as_object).map(pairs).unwrap_or_default();
    let seconds = match fields.get("timeout") {
        // Of a task it has been read; elsewhere it is as it was written.
        Some(Value::String(text)) => crate::keytable::parse_duration(text),
        given => given.and_then(Value::as_u64).map(Duration::from_secs),
    };
    let seconds = seconds.filter(|timeout| !timeout.is_zero());
    Ok(Request {
        method: text("method").unwrap_or("GET").to_owned(),
        url: url.with_query(&params).text(),
        headers,
        body,
        timeout: seconds.or(base.as_ref().and_then(|base| base.timeout)).unwrap_or(TIMEOUT),
        trust: base.map(|base| base.trust).unwrap_or_default(),
        keep: Keep::Whole,
    })
}

/// With a connection an address is what comes after its own. Another host would be told its password.
fn address(url: &str, base: Option<&Base>) -> Result<Url, String> {
    let Some(base) = base else { return Url::parse(url).map_err(|error| error.to_string()) };
    if url.contains("://") {
        let (own, given) = (Url::parse(&base.url), Url::parse(url));
        let (own, given) = (own.map_err(|error| error.to_string())?, given.map_err(|error| error.to_string())?);
        return if own.is_same_origin(&given) {
            Ok(given)
        } else {
            let (id, shown, given) = (&base.id, own.shown(), given.shown());
            Err(format!(
                "`{given}` is not at the address of connection `{id}`, {shown}: leave the connection or the host out"
            ))
        };
    }
    let joint = if base.url.ends_with('/') || url.starts_with(['/', '?']) || url.is_empty() { "" } else { "/" };
    let rest = if base.url.ends_with('/') { url.trim_start_matches('/') } else { url };
    Url::parse(&format!("{}{joint}{rest}", base.url)).map_err(|error| error.to_string())
}

/// What a connection gives to a request.
struct Base {
    id: String,
    url: String,
    login: Option<(String, String)>,
    headers: Vec<(String, String)>,
    timeout: Option<Duration>,
    trust: Trust,
}

impl Base {
    fn of(id: &str, lookup: &dyn Lookup, home: &Path) -> Result<Self, String> {
        let Some(connection) = lookup.connection(id)? else {
            let upper = id.to_uppercase();
            return Err(format!(
                "there is no connection `{id}`: add it to [connections] of airflow.toml, or set AIRFLOW_CONN_{upper}"
            ));
        };
        let conn_type = connection.conn_type.as_deref().unwrap_or("http");
        if conn_type != "http" && conn_type != "https" {
            return Err(format!(
                "connection `{id}` is of the type `{conn_type}`, and `http` reads `http` and `https`: write for example `https://user:password@api.example.com`"
            ));
        }
        let (headers, timeout, trust) = extra(id, &connection, home)?;
        let Connection { login, password, .. } = &connection;
        let login = login
            .as_ref()
            .or(password.as_ref())
            .map(|_| (login.clone().unwrap_or_default(), password.clone().unwrap_or_default()));
        Ok(Self { id: id.to_owned(), url: base_url(&connection, conn_type), login, headers, timeout, trust })
    }
}

/// Airflow keeps the protocol in the schema, or in the host; a schema that is none is the beginning of the path.
fn base_url(connection: &Connection, conn_type: &str) -> String {
    let host = connection.host.as_deref().unwrap_or_default();
    let schema = connection.schema.as_deref().unwrap_or_default();
    let port = connection.port.map_or_else(String::new, |port| format!(":{port}"));
    let (protocol, path) = match schema {
        "http" | "https" => (schema, ""),
        path => (conn_type, path),
    };
    let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
    if host.contains("://") {
        format!("{host}{port}{slash}{path}")
    } else {
        format!("{protocol}://{host}{port}{slash}{path}")
    }
}

type Extra = (Vec<(String, String)>, Option<Duration>, Trust);

fn extra(id: &str, connection: &Connection, home: &Path) -> Result<Extra, String> {
    let extra = connection.extra_dejson();
    let pairs = extra.as_object().cloned().unwrap_or_default();
    if pairs.contains_key("cert") || pairs.contains_key("proxies") || pairs.contains_key("proxy") {
        return Err(format!(
            "the extra of connection `{id}` has `cert` or `proxies`, which `http` does not know: a proxy is taken from HTTPS_PROXY; for a client's certificate use curl in a `bash` task"
        ));
    }
    let named = pairs.get("headers").and_then(Value::as_object).into_iter().flatten();
    let others = pairs.iter().filter(|(name, _)| !SETTINGS.contains(&name.as_str()));
    let headers = named.chain(others).map(|(name, value)| (name.clone(), plain(value))).collect();
    let timeout = pairs.get("timeout").and_then(|value| plain(value).parse().ok());
    let timeout =
        timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).filter(|timeout| !timeout.is_zero());
    let trust = match pairs.get("verify") {
        None | Some(Value::Null | Value::Bool(true)) => Trust::Host,
        Some(Value::Bool(false)) => Trust::Anybody,
        Some(value) => match plain(value).as_str() {
            "true" | "True" | "1" => Trust::Host,
            "false" | "False" | "0" => Trust::Anybody,
            path => Trust::File(home.join(path)),
        },
    };
    Ok((headers, timeout, trust))
}

/// A text as it is, anything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// As a query has them; of a list each element.
fn pairs(table: &Map<String, Value>) -> String {
    let mut flat: Vec<(&str, String)> = Vec::new();
    for (name, value) in table {
        match value {
            Value::Array(items) => flat.extend(items.iter().map(|item| (name.as_str(), plain(item)))),
            Value::Null => {}
            value => flat.push((name, plain(value))),
        }
    }
    query(flat.iter().map(|(name, value)| (*name, value.as_str())))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().enumerate().fold(0_u32, |bits, (at, &byte)| bits | u32::from(byte) << (16 - 8 * at));
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
            out.push(if at <= three.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
