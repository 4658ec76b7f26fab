//! From a host's name to its addresses, within a time.
//!
//! The system's own call can be neither bounded nor interrupted, and so is made by another thread. These threads are kept: one for each
//! name would be a good part of what a request to the same host costs. An address that is written in digits needs none of it.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use crossbeam::channel::{RecvTimeoutError, Sender, bounded, unbounded};
use parking_lot::Mutex;
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// As many as an agent can take.
const MOST_ADDRESSES: usize = 16;
/// The system's call may load modules that take more than a little.
const STACK_BYTES: usize = 512 << 10;

/// Threads with nothing to look up.
static IDLE: Mutex<Vec<Sender<Query>>> = Mutex::new(Vec::new());

type Found = io::Result<Vec<SocketAddr>>;

struct Query {
    /// With its port.
    host: String,
    found: Sender<Found>,
}

#[derive(Debug)]
pub struct Names;

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.scheme().zip(uri.authority()).and_then(|(scheme, authority)| {
            // What has no port by now has no default either.
            DefaultResolver::host_and_port(scheme, authority)
        });
        let Some(host) = host else { return Err(Error::HostNotFound) };
        let found = match host.parse() {
            Ok(address) => vec![address],
            Err(_) => look_up(host, timeout)?,
        };
        let mut addresses = self.empty();
        found.into_iter().take(MOST_ADDRESSES).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}

fn look_up(host: String, timeout: NextTimeout) -> Result<Vec<SocketAddr>, Error> {
    let (found, answer) = bounded(1);
    let idle = IDLE.lock().pop();
    let thread = match idle {
        Some(thread) => thread,
        None => start()?,
    };
    // It listens for as long as it can be sent something.
    let _ = thread.send(Query { host, found });
    match answer.recv_timeout(*timeout.after) {
        Ok(found) => Ok(found?),
        Err(RecvTimeoutError::Timeout) => Err(Error::Timeout(timeout.reason)),
        Err(RecvTimeoutError::Disconnected) => Err(Error::HostNotFound),
    }
}

fn start() -> io::Result<Sender<Query>> {
    let (give, queries) = unbounded::<Query>();
    let own = give.clone();
    std::thread::Builder::new().name("names".to_owned()).stack_size(STACK_BYTES).spawn(move || {
        while let Ok(Query { host, found }) = queries.recv() {
            let addresses = host.to_socket_addrs().map(Iterator::collect);
            // Before the answer, so that who has it finds an idle thread.
            IDLE.lock().push(own.clone());
            // Who asked may have waited long enough.
            let _ = found.send(addresses);
        }
    })?;
    Ok(give)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use ureq::Timeout;

    fn resolve(url: &str, within: Duration) -> Result<Vec<String>, Error> {
        let timeout = NextTimeout { after: within.into(), reason: Timeout::Global, ..NextTimeout::default() };
        let found = Names.resolve(&url.parse().unwrap(), &Config::default(), timeout)?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_address_in_digits_takes_no_time() {
        assert_eq!(resolve("http://127.0.0.1:81/x", Duration::ZERO).unwrap(), ["127.0.0.1:81"]);
        assert_eq!(resolve("https://[::1]/", Duration::ZERO).unwrap(), ["[::1]:443"]);
    }

    #[test]
    fn a_name_is_looked_up_by_a_thread_that_stays() {
        for _ in 0..3 {
            let found = resolve("http://localhost:81/", Duration::from_secs(60)).unwrap();
            assert!(found.iter().all(|address| ["127.0.0.1:81", "[::1]:81"].contains(&&**address)), "{found:?}");
        }
        assert!(!IDLE.lock().is_empty());
    }
}
