//! The agents that make connections. They are kept, as one of TLS takes a while to make: it reads all certificates that it believes.

use std::cell::Cell;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ureq::config::AutoHeaderValue;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::unversioned::transport::{ConnectionDetails, Connector, DefaultConnector, Transport};
use ureq::{Agent, Error};

use super::names::Names;
use super::{NoAnswer, Trust, Why};

/// How long the host's certificates are kept: a process that lives on is to see new ones.
const ROOTS_FOR: Duration = Duration::from_secs(600);
const USER_AGENT: &str = concat!("minflow/", env!("CARGO_PKG_VERSION"));
/// More kinds of requests than this are rare.
const MOST_KEPT: usize = 8;
/// Connections that nobody uses just now; each has its buffers.
const MOST_OPEN: usize = 8;
const MOST_OPEN_PER_HOST: usize = 4;
/// Shorter than servers keep them, mostly.
const OPEN_FOR: Duration = Duration::from_secs(4);
/// Room for the longest head of an answer that is taken, 64 KiB, and for what may come with it.
const INPUT_BYTES: usize = 72 << 10;
/// Room for a request's address and headers. Both are filled with zeros for each connection, and are less than what the allocator
/// asks the kernel for each time.
const OUTPUT_BYTES: usize = 16 << 10;
/// For requests that have more of them.
const LARGE_OUTPUT_BYTES: usize = 128 << 10;

/// What tells agents apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// None: without TLS.
    pub trust: Option<Trust>,
    /// Of a whole request. A request may be given less.
    pub timeout: Duration,
    pub is_large: bool,
    /// Its connections are used again, if the server keeps them open.
    pub keeps: bool,
}

impl Kind {
    /// `head` is the length in bytes of what is sent before the body.
    pub fn of(trust: Option<&Trust>, timeout: Duration, head: usize) -> Self {
        Self { trust: trust.cloned(), timeout, is_large: head > OUTPUT_BYTES / 2, keeps: false }
    }
}

thread_local! {
    static HAS_CONNECTED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread has made a connection since it was last asked, instead of using an earlier one again.
pub fn has_connected() -> bool {
    HAS_CONNECTED.take()
}

/// Notes that a connection is made.
#[derive(Debug)]
struct Noting(DefaultConnector);

impl Connector for Noting {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<()>) -> Result<Option<Self::Out>, Error> {
        HAS_CONNECTED.set(true);
        self.0.connect(details, chained)
    }
}

struct Kept {
    kind: Kind,
    roots: Option<Roots>,
    agent: Agent,
}

/// One that was made before, if it believes the same certificates as a new one would.
///
/// # Errors
/// There are no certificates to believe, or not where they should be.
pub fn agent(kind: Kind) -> Result<Agent, NoAnswer> {
    static KEPT: Mutex<VecDeque<Kept>> = Mutex::new(VecDeque::new());
    let roots = match &kind.trust {
        None => None,
        Some(Trust::Anybody) => Some(Roots::default()),
        Some(Trust::Host) => Some(roots_of_host()?),
        Some(Trust::File(path)) => Some(roots_of_file(path)?),
    };
    let mut kept = KEPT.lock();
    if let Some(at) = kept.iter().position(|kept| kept.kind == kind) {
        if are_same(kept[at].roots.as_ref(), roots.as_ref()) {
            return Ok(kept[at].agent.clone());
        }
        kept.remove(at);
    }
    kept.truncate(MOST_KEPT - 1);
    let agent = make(&kind, roots.as_ref());
    kept.push_front(Kept { kind, roots, agent: agent.clone() });
    Ok(agent)
}

fn make(kind: &Kind, roots: Option<&Roots>) -> Agent {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(kind.timeout))
        .max_idle_connections(if kind.keeps { MOST_OPEN } else { 0 })
        .max_idle_connections_per_host(MOST_OPEN_PER_HOST)
        .max_idle_age(OPEN_FOR)
        .input_buffer_size(INPUT_BYTES)
        .output_buffer_size(if kind.is_large { LARGE_OUTPUT_BYTES } else { OUTPUT_BYTES })
        .accept_encoding(AutoHeaderValue::None)
        .user_agent(USER_AGENT);
    if let Some(roots) = roots {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .disable_verification(kind.trust == Some(Trust::Anybody))
            .root_certs(RootCerts::Specific(roots.clone()));
        config = config.tls_config(tls.build());
    }
    Agent::with_parts(config.build(), Noting(DefaultConnector::new()), Names)
}

type Roots = Arc<Vec<Certificate<'static>>>;

fn are_same(one: Option<&Roots>, other: Option<&Roots>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => {
            Arc::ptr_eq(one, other) || one.iter().map(Certificate::der).eq(other.iter().map(Certificate::der))
        }
        _ => false,
    }
}

fn roots_of_host() -> Result<Roots, NoAnswer> {
    static ROOTS: Mutex<Option<(Instant, Roots)>> = Mutex::new(None);
    let mut kept = ROOTS.lock();
    if let Some((_, roots)) = kept.as_ref().filter(|(read_at, _)| read_at.elapsed() < ROOTS_FOR) {
        return Ok(roots.clone());
    }
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        let help = "install the package ca-certificates, or set SSL_CERT_FILE";
        return Err(NoAnswer::new(Why::Trust, format!("the host has no certificates that it trusts{why}"), help));
    }
    let roots: Roots = Arc::new(found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect());
    *kept = Some((Instant::now(), roots.clone()));
    Ok(roots)
}

fn roots_of_file(path: &PathBuf) -> Result<Roots, NoAnswer> {
    let wrong = |why: String| {
        let message = format!("no certificates can be read from `{}`: {why}", path.display());
        NoAnswer::new(Why::Request, message, "`verify` names a file of certificates in PEM")
    };
    let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let mut roots = Vec::new();
    for item in parse_pem(&text) {
        if let ureq::tls::PemItem::Certificate(certificate) = item.map_err(|error| wrong(error.to_string()))? {
            roots.push(certificate);
        }
    }
    if roots.is_empty() { Err(wrong("it holds none".to_owned())) } else { Ok(Arc::new(roots)) }
}
