//! One HTTP request and its answer, within bounds of time, size and redirects.
//!
//! Knows nothing of tasks: [`task`] is the operator. Whoever calls [`send`] waits in it, never longer than the request's `timeout`.
//! Called by the operator's process, and by the triggerer for sensors.

mod agents;
mod names;
pub mod task;
mod url;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use ureq::{AsSendBody, Error};

use self::agents::Kind;
pub use self::url::{Url, query};

/// The most bytes of a body that are kept: what the XComs of a try may hold.
pub const MAX_BODY_BYTES: u64 = 16 << 20;
/// More of them are a circle in all but name.
const MAX_REDIRECTS: usize = 10;

/// What is asked.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// In capitals.
    pub method: String,
    /// Absolute, without login and password.
    pub url: String,
    /// Of two of the same name both are sent.
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
    /// For all of it: redirects, and a body that trickles.
    pub timeout: Duration,
    pub trust: Trust,
    pub keep: Keep,
}

impl fmt::Debug for Request {
    // Headers and body hold secrets and stay out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("method", &self.method).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Whose certificates are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Those that the host trusts.
    #[default]
    Host,
    /// Those of a file in PEM alone.
    File(PathBuf),
    /// Anybody's.
    Anybody,
}

/// What is kept of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// All; one of more than [`MAX_BODY_BYTES`] is a fault.
    Whole,
    /// The beginning; it is read to its end.
    Beginning,
}

/// How much of a body is kept that is not asked for, so that a message can show it.
const BEGINNING_BYTES: usize = 4 << 10;

/// What was answered, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// The status in words, such as `Not Found`; empty if it has none.
    pub reason: &'static str,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// What of the body came, kept or not.
    pub bytes: u64,
    /// Who answered, if there were redirects.
    pub url: String,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text: UTF-8, or Latin-1 if that is what the answer calls itself.
    pub fn text(&self) -> String {
        let charset = self
            .header("content-type")
            .and_then(|kind| kind.to_ascii_lowercase().split_once("charset=").map(|(_, rest)| rest.to_owned()));
        let charset = charset.as_deref().map(|name| name.trim_matches(|c: char| c == '"' || c == ';' || c == ' '));
        match charset {
            Some("iso-8859-1" | "latin-1" | "latin1") => self.body.iter().map(|&byte| char::from(byte)).collect(),
            _ => String::from_utf8_lossy(self.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.body)).into_owned(),
        }
    }

    /// Such as `404 Not Found`.
    pub fn status_text(&self) -> String {
        format!("{} {}", self.status, self.reason).trim_end().to_owned()
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAnswer {
    pub kind: Why,
    pub message: String,
    pub help: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The request cannot be made as it stands: the same would come of another try.
    Request,
    /// The server's answer is none that can be taken; the same would come of another try.
    Answer,
    /// The server cannot be reached, or not in time.
    Reach,
    /// What it says of itself is not believed.
    Trust,
}

impl NoAnswer {
    fn new(kind: Why, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { kind, message: message.into(), help: help.into() }
    }

    /// Whether another try may do better.
    pub const fn may_pass(&self) -> bool {
        matches!(self.kind, Why::Reach | Why::Trust)
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.help)
    }
}

impl std::error::Error for NoAnswer {}

/// Asks, follows redirects, and reads the answer to its end.
///
/// # Errors
/// Nobody answers, not in time, or too much; what is asked is no request; certificates are not believed; redirects lead nowhere.
pub fn send(request: &Request) -> Result<Response, NoAnswer> {
    exchange(request, Connections::Single)
}

/// The same, for who asks again and again: a connection that its server keeps open is used again.
///
/// # Errors
/// As [`send`].
pub fn send_often(request: &Request) -> Result<Response, NoAnswer> {
    exchange(request, Connections::Kept)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Connections {
    Single,
    Kept,
}

fn exchange(request: &Request, connections: Connections) -> Result<Response, NoAnswer> {
    let deadline = Instant::now() + request.timeout;
    let mut hop = Hop {
        method: request.method.clone(),
        url: Url::parse(&request.url)?,
        headers: request.headers.clone(),
        body: request.body.as_deref(),
        connections,
    };
    let mut seen = vec![hop.url.text()];
    loop {
        // The first has all the time that there is.
        let left = (seen.len() > 1).then(|| deadline.saturating_duration_since(Instant::now()));
        let (response, place) = hop.ask(request, left)?;
        let Some(target) = place else { return Ok(response) };
        let next = hop.url.join(&target)?;
        let told = next.text();
        if seen.contains(&told) && hop.method != "POST" {
            let message = format!("the redirects go in a circle: {} >> {}", seen.join(" >> "), told);
            return Err(NoAnswer::new(Why::Answer, message, "ask the address that is meant, or the server's keeper"));
        }
        if seen.len() > MAX_REDIRECTS {
            let message = format!("more than {MAX_REDIRECTS} redirects; the last leads to {told}");
            return Err(NoAnswer::new(Why::Answer, message, "ask the address that is meant"));
        }
        hop.follow(next, response.status);
        seen.push(told);
    }
}

/// One request of a row of redirects.
struct Hop<'r> {
    method: String,
    url: Url,
    headers: Vec<(String, String)>,
    body: Option<&'r str>,
    connections: Connections,
}

impl Hop<'_> {
    /// As browsers and Python's `requests` do it: after 303, and after 301 or 302 to a POST, a GET without a body.
    fn follow(&mut self, next: Url, status: u16) {
        let becomes_get = match status {
            303 => self.method != "HEAD",
            301 | 302 => self.method == "POST",
            _ => false,
        };
        let has_moved = !next.is_same_origin(&self.url);
        if becomes_get {
            self.method = "GET".to_owned();
            self.body = None;
        }
        self.headers.retain(|(name, _)| {
            let is = |known: &[&str]| known.iter().any(|known| name.eq_ignore_ascii_case(known));
            // Who asked one server to believe him has not asked another.
            !(has_moved && (is(&["authorization", "cookie", "proxy-authorization"]) || looks_secret(name)))
                && !(becomes_get && is(&["content-type", "content-length", "content-encoding"]))
        });
        self.url = next;
    }

    /// Whether it does nothing but look, so that asking twice is as asking once.
    fn may_repeat(&self) -> bool {
        self.body.is_none() && matches!(self.method.as_str(), "GET" | "HEAD" | "OPTIONS")
    }

    /// The answer, and where it leads if it is a redirect. `left` is for how long it may take, if that is not the request's timeout.
    fn ask(&self, request: &Request, left: Option<Duration>) -> Result<(Response, Option<String>), NoAnswer> {
        if left.unwrap_or(request.timeout).is_zero() {
            return Err(late(request, &self.url));
        }
        let url = self.url.text();
        let head = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() + url.len();
        let trust = Some(&request.trust).filter(|_| self.url.is_https());
        let kind = Kind::of(trust, request.timeout, head);
        let wrong = |error: ureq::http::Error| {
            let message = format!("this is no HTTP request: {error}");
            NoAnswer::new(Why::Request, message, "correct its method, url and headers")
        };
        let asked = || {
            let asked = ureq::http::Request::builder().method(self.method.as_str()).uri(&url);
            self.headers.iter().fold(asked, |asked, (name, value)| asked.header(name.as_str(), value.as_str()))
        };
        let run_once = |kind: Kind, left: Option<Duration>| {
            let agent = agents::agent(kind)?;
            Ok(match self.body {
                Some(body) => run(&agent, asked().body(body.as_bytes()).map_err(wrong)?, left),
                None => run(&agent, asked().body(()).map_err(wrong)?, left),
            })
        };
        let began = Instant::now();
        agents::has_connected();
        let mut answer =
            run_once(Kind { keeps: self.connections == Connections::Kept && self.may_repeat(), ..kind.clone() }, left)?;
        // The server may close what it has kept open while the request is on its way.
        if answer.as_ref().is_err_and(is_cut) && !agents::has_connected() {
            let rest = left.unwrap_or(request.timeout).saturating_sub(began.elapsed());
            answer = run_once(kind, Some(rest))?;
        }
        let mut answer = answer.map_err(|error| self.fault(request, error))?;
        let status = answer.status();
        let headers = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        let mut response = Response {
            status: status.as_u16(),
            reason: status.canonical_reason().unwrap_or_default(),
            headers: headers.collect(),
            body: Vec::new(),
            bytes: 0,
            url: self.url.text(),
        };
        let is_redirect = matches!(response.status, 301 | 302 | 303 | 307 | 308);
        if let Some(place) = response.header("location").filter(|_| is_redirect).map(str::to_owned) {
            return Ok((response, Some(place)));
        }
        self.read(request, answer.body_mut(), &mut response)?;
        Ok((response, None))
    }

    fn read(&self, request: &Request, body: &mut ureq::Body, response: &mut Response) -> Result<(), NoAnswer> {
        let too_large = |told: &str| {
            let message = format!("the answer of {} is {told}, and at most 16 MiB are kept", self.url.shown());
            NoAnswer::new(
                Why::Answer,
                message,
                "ask for less, take `response = \"none\"`, or fetch it into a file of the run_dir, for example with curl",
            )
        };
        if request.keep == Keep::Whole
            && let Some(length) = body.content_length().filter(|length| *length > MAX_BODY_BYTES)
            && self.method != "HEAD"
        {
            return Err(too_large(&format!("{length} bytes")));
        }
        let mut reader = body.as_reader();
        let mut piece = [0; 16 << 10];
        loop {
            let count = match reader.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.fault(request, Error::from(error))),
            };
            response.bytes += count as u64;
            if request.keep == Keep::Whole && response.bytes > MAX_BODY_BYTES {
                return Err(too_large("larger"));
            }
            let room = match request.keep {
                Keep::Whole => count,
                Keep::Beginning => count.min(BEGINNING_BYTES.saturating_sub(response.body.len())),
            };
            response.body.extend_from_slice(&piece[..room]);
        }
    }

    fn fault(&self, request: &Request, error: Error) -> NoAnswer {
        let url = self.url.shown();
        let reach = |message: String, help: &str| NoAnswer::new(Why::Reach, message, help);
        match error {
            Error::Timeout(_) => late(request, &self.url),
            Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => late(request, &self.url),
            Error::HostNotFound => {
                reach(format!("the host of {url} is not known"), "correct its name, or look at the host's DNS")
            }
            Error::ConnectionFailed => reach(format!("nobody answers at {url}"), "look whether the service runs"),
            Error::Io(error) => {
                if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                    return self.untrusted(tls);
                }
                let help = match error.kind() {
                    std::io::ErrorKind::ConnectionRefused => "look whether the service runs, and at the port",
                    std::io::ErrorKind::UnexpectedEof => {
                        "the connection ended within the answer; look at the server's log"
                    }
                    _ => "look whether the service runs, and at the way to it",
                };
                reach(format!("no answer from {url}: {error}"), help)
            }
            Error::Rustls(error) => self.untrusted(&error),
            Error::Tls(why) => {
                NoAnswer::new(Why::Trust, format!("no TLS with {url}: {why}"), "look at the server's TLS")
            }
            Error::LargeResponseHeader(..) => NoAnswer::new(
                Why::Answer,
                format!("the headers that {url} answers are larger than 64 KiB"),
                "look at the server",
            ),
            Error::BadUri(_) | Error::Http(_) | Error::InvalidProxyUrl => NoAnswer::new(
                Why::Request,
                format!("`{url}` cannot be asked: {error}"),
                "correct the url, or the proxy in the environment",
            ),
            other => reach(format!("no answer from {url}: {other}"), "look at the server's log"),
        }
    }

    fn untrusted(&self, error: &rustls::Error) -> NoAnswer {
        let url = self.url.shown();
        let help = match error {
            rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
                "let the host trust who has issued it (update-ca-certificates), or name its file: `verify` in the extra of a connection"
            }
            rustls::Error::InvalidCertificate(_) => "have the server's certificate mended",
            _ => "look whether that port speaks TLS; without it the url begins with http://",
        };
        NoAnswer::new(Why::Trust, format!("no TLS with {url}: {error}"), help)
    }
}

/// Whether a connection has ended without an answer.
fn is_cut(error: &Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error, Error::Io(error) if matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe))
}

/// Only what an agent is asked by its own timeout makes it keep what it has worked out for TLS.
fn run(
    agent: &ureq::Agent,
    asked: ureq::http::Request<impl AsSendBody>,
    left: Option<Duration>,
) -> Result<ureq::http::Response<ureq::Body>, Error> {
    match left {
        None => agent.run(asked),
        Some(left) => agent.run(agent.configure_request(asked).timeout_global(Some(left)).build()),
    }
}

fn late(request: &Request, url: &Url) -> NoAnswer {
    let seconds = request.timeout.as_secs_f64();
    let message = format!("no complete answer from {} within {seconds} s", url.shown());
    NoAnswer::new(Why::Reach, message, "give it a longer `timeout`, or look at the server")
}

/// Names of headers that hold what proves who asks, such as `X-Api-Key`.
fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["token", "key", "secret", "password", "auth"].iter().any(|part| name.contains(part))
}
