//! Connection URIs as Airflow reads and writes them, which is as Python's `urllib.parse` takes them apart.

use std::net::Ipv6Addr;

use serde_json::{Map, Value};

use super::connection::{Connection, ConnectionError, dumps, normalize_type};

/// The key of a query that holds the whole extra.
const EXTRA_KEY: &str = "__extra__";

/// The characters that Unicode's compatibility forms turn into one of `/?#@:`: a host with one of them is not what it seems.
const DISGUISED: [char; 19] = [
    '\u{2047}', '\u{2048}', '\u{2049}', '\u{2100}', '\u{2101}', '\u{2105}', '\u{2106}', '\u{2a74}', '\u{fe13}',
    '\u{fe16}', '\u{fe55}', '\u{fe56}', '\u{fe5f}', '\u{fe6b}', '\u{ff03}', '\u{ff0f}', '\u{ff1a}', '\u{ff1f}',
    '\u{ff20}',
];

const FORM: &str =
    "write type://login:password@host:port/schema?key=value, with the signs :/@?#%[] inside a part percent-encoded";

fn refused(message: &str) -> ConnectionError {
    ConnectionError::new(message, FORM)
}

/// The parts of a URL; none of them decoded.
struct Split {
    /// In lower case; empty if there is none.
    scheme: String,
    netloc: String,
    path: String,
    query: String,
}

impl Split {
    /// `urllib.parse.urlsplit`.
    fn of(text: &str) -> Result<Self, ConnectionError> {
        let text = text.trim_start_matches(|c: char| c <= ' ');
        let text: String = text.chars().filter(|c| !matches!(c, '\t' | '\r' | '\n')).collect();
        let (scheme, rest) = match text.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), rest),
            _ => (String::new(), &*text),
        };
        let (netloc, rest) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => ("", rest),
        };
        check_brackets(netloc)?;
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if netloc.contains(DISGUISED) {
            return Err(refused("its host holds a character that stands for one of /?#@:"));
        }
        Ok(Self { scheme, netloc: netloc.to_owned(), path: path.to_owned(), query: query.to_owned() })
    }

    /// The login and the password.
    fn userinfo(&self) -> (Option<&str>, Option<&str>) {
        match self.netloc.rsplit_once('@') {
            None => (None, None),
            Some((userinfo, _)) => match userinfo.split_once(':') {
                None => (Some(userinfo), None),
                Some((login, password)) => (Some(login), Some(password)),
            },
        }
    }

    /// What stands for the host, and for the port.
    fn hostinfo(&self) -> (&str, &str) {
        let hostinfo = self.netloc.rsplit_once('@').map_or(&*self.netloc, |(_, hostinfo)| hostinfo);
        match hostinfo.split_once('[') {
            Some((_, bracketed)) => {
                let (host, after) = bracketed.split_once(']').unwrap_or((bracketed, ""));
                (host, after.split_once(':').map_or("", |(_, port)| port))
            }
            None => hostinfo.split_once(':').unwrap_or((hostinfo, "")),
        }
    }

    /// In lower case up to the first `%`, and decoded; what holds an encoded `/` keeps its case.
    fn host(&self) -> String {
        let (host, _) = self.hostinfo();
        let lower = match host.find('%') {
            Some(at) => host[..at].to_lowercase() + &host[at..],
            None => host.to_lowercase(),
        };
        let decoded = unquote(&lower);
        if !decoded.contains('/') {
            return decoded;
        }
        let host = self.netloc.rsplit_once('@').map_or(&*self.netloc, |(_, host)| host);
        unquote(host.split_once(':').map_or(host, |(host, _)| host))
    }

    fn port(&self) -> Result<Option<i64>, ConnectionError> {
        let (_, port) = self.hostinfo();
        if port.is_empty() {
            return Ok(None);
        }
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refused("what follows the host's `:` is no port"));
        }
        let number = port.parse().ok().filter(|number| (0..=65_535).contains(number));
        number.map(Some).ok_or_else(|| refused("its port is larger than 65535"))
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// Brackets stand around an IPv6 address.
fn check_brackets(netloc: &str) -> Result<(), ConnectionError> {
    match (netloc.find('['), netloc.contains(']')) {
        (None, false) => Ok(()),
        (Some(open), true) => {
            let rest = &netloc[open + 1..];
            let inner = rest.split_once(']').map_or(rest, |(inner, _)| inner);
            let is_good = if inner.starts_with('v') { is_future(inner) } else { is_ipv6(inner) };
            if is_good { Ok(()) } else { Err(refused("what stands in its brackets is no IPv6 address")) }
        }
        _ => Err(refused("one of its brackets has no partner")),
    }
}

fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(|zone| !zone.is_empty() && !zone.contains('%'))
}

/// `v1.x`: an address of a version yet to come (RFC 3986).
fn is_future(text: &str) -> bool {
    let Some((version, rest)) = text[1..].split_once('.') else { return false };
    !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_hexdigit()) && !rest.is_empty()
}

pub(super) fn parse(text: &str) -> Result<Connection, ConnectionError> {
    let schemes = text.matches("://").count();
    if schemes > 2 {
        return Err(refused("it has more than two `://`"));
    }
    let conn_type = Split::of(text)?.scheme;
    let has_protocol = schemes == 2;
    let rest = text.replace(&format!("{conn_type}://"), if has_protocol { "" } else { "//" });
    if has_protocol {
        let before = rest.split_once("://").map_or(&*rest, |(before, _)| before);
        if before.contains(['@', ':']) {
            return Err(refused("login, password or port stand before its second `://`"));
        }
    }
    let parts = Split::of(&rest)?;
    let mut host = parts.host();
    if has_protocol && !parts.scheme.is_empty() && !host.is_empty() {
        host = format!("{}://{host}", parts.scheme);
    }
    let (login, password) = parts.userinfo();
    let mut first = parts.path.chars();
    first.next();
    Ok(Connection {
        conn_type: Some(normalize_type(&conn_type)),
        description: None,
        host: Some(host),
        login: login.map(unquote),
        password: password.map(unquote),
        schema: Some(unquote(first.as_str())),
        port: parts.port()?,
        extra: extra(&parts.query),
    })
}

fn extra(query: &str) -> Option<String> {
    let mut pairs = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| unquote(&text.replace('+', " "));
        pairs.insert(decode(name), Value::String(decode(value)));
    }
    match pairs.get(EXTRA_KEY) {
        Some(whole) => whole.as_str().map(str::to_owned),
        None => (!pairs.is_empty()).then(|| dumps(&Value::Object(pairs))),
    }
}

pub(super) fn print(connection: &Connection) -> String {
    let mut uri = match connection.conn_type.as_deref().filter(|given| !given.is_empty()) {
        Some(conn_type) => format!("{}://", conn_type.to_lowercase().replace('_', "-")),
        None => "//".to_owned(),
    };
    let whole_host = connection.host.as_deref().unwrap_or_default();
    let host = match whole_host.split_once("://") {
        // A protocol that is the type is not said twice.
        Some((protocol, _)) if connection.conn_type.as_deref() == Some(protocol) => whole_host,
        Some((protocol, host)) => {
            uri += &format!("{protocol}://");
            host
        }
        None => whole_host,
    };
    let mut authority = connection.login.as_deref().map(quote).unwrap_or_default();
    if let Some(password) = &connection.password {
        authority += &format!(":{}", quote(password));
    }
    if !authority.is_empty() {
        authority.push('@');
    }
    let mut block = quote(host);
    if let Some(port) = connection.port.filter(|port| *port != 0) {
        block += &if block.is_empty() && authority.is_empty() { format!("@:{port}") } else { format!(":{port}") };
    }
    let schema = connection.schema.as_deref().filter(|schema| !schema.is_empty());
    if let Some(schema) = schema {
        block += &format!("/{}", quote(schema));
    }
    uri += &authority;
    uri += &block;
    if let Some(extra) = connection.extra.as_deref().filter(|extra| !extra.is_empty()) {
        uri += if schema.is_some() { "?" } else { "/?" };
        uri += &query(extra);
    }
    uri
}

/// The pairs of an extra of texts alone, which a reader gets back as they are; else the whole extra as one.
fn query(extra: &str) -> String {
    let pairs = match serde_json::from_str(extra) {
        Ok(Value::Object(pairs)) if !pairs.is_empty() && pairs.values().all(Value::is_string) => pairs,
        _ => Map::from_iter([(EXTRA_KEY.to_owned(), Value::String(extra.to_owned()))]),
    };
    let pair = |(name, value): (&String, &Value)| {
        format!("{}={}", quote_plus(name), quote_plus(value.as_str().unwrap_or_default()))
    };
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// `urllib.parse.quote` with nothing safe but letters, digits and `_.-~`.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'.' | b'-' | b'~' => quoted.push(char::from(byte)),
            _ => quoted.push_str(&format!("%{byte:02X}")),
        }
    }
    quoted
}

fn quote_plus(text: &str) -> String {
    quote(text).replace("%20", "+")
}

/// `urllib.parse.unquote`: what is no `%` with two digits stays, what is no UTF-8 becomes U+FFFD.
fn unquote(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    // Bytes are put together only within a run of ASCII: an encoded half of a character cannot go on in a plain one.
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii()).unwrap_or(rest.len());
        decoded.push_str(&String::from_utf8_lossy(&decode(&rest.as_bytes()[..end])));
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii()).unwrap_or(rest.len());
        decoded.push_str(&rest[..end]);
        rest = &rest[end..];
    }
    decoded
}

fn decode(ascii: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ascii.len());
    let mut at = 0;
    let digit = |at: usize| ascii.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    while at < ascii.len() {
        match (ascii[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    bytes
}
