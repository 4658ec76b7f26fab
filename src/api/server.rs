//! The HTTP server: listens, hands requests to [`routes`](crate::api::routes) and writes their answers in one piece.
//!
//! The only file that knows tiny_http. Clients come in through [`front`](crate::api::front).

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::api::front::{MAX_CONNECTIONS, Patience, pass_through, read_first};
use crate::api::routes::{self, Request, Response, Site};
use crate::config::Api;

/// Requests answered at once.
const HANDLERS: usize = 2;
const STACK_BYTES: usize = 512 * 1024;

/// Why HTTP could not be served.
#[derive(Debug)]
pub enum StartError {
    NotLoopback(SocketAddr),
    PortTaken(SocketAddr),
    Io(SocketAddr, io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoopback(address) => write!(
                f,
                "`{}` is not an address of this host alone\nhelp: set `api.host` to 127.0.0.1 or ::1",
                address.ip()
            ),
            Self::PortTaken(address) => write!(
                f,
                "port {} of {} is taken by another program\nhelp: choose another with `--port` or `api.port` (0: any free one)",
                address.port(),
                address.ip()
            ),
            Self::Io(address, error) => {
                write!(f, "cannot listen on {address}: {error}\nhelp: choose another port with `--port` or `api.port`")
            }
        }
    }
}

impl std::error::Error for StartError {}

/// The running server. Dropping it closes the port; answers that are on their way are finished.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    is_stopping: Arc<AtomicBool>,
}

impl Server {
    /// # Errors
    /// The address is not loopback or cannot be listened on.
    pub fn start(settings: &Api, site: Site, patience: Patience) -> Result<Self, StartError> {
        let wanted = SocketAddr::new(settings.host, settings.port);
        if !settings.host.is_loopback() {
            return Err(StartError::NotLoopback(wanted));
        }
        let fail = |error: io::Error| match error.kind() {
            ErrorKind::AddrInUse => StartError::PortTaken(wanted),
            _ => StartError::Io(wanted, error),
        };
        let listener = TcpListener::bind(wanted).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let inner = Arc::new(Inner { site, port: address.port(), name: Mutex::new(Vec::new()) });
        inner.open(&mut inner.name.lock()).map_err(fail)?;
        let is_stopping = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&is_stopping);
        spawn("http", move || accept(&listener, &inner, patience, &stopping)).map_err(fail)?;
        Ok(Self { address, is_stopping })
    }

    /// Where it listens: the port that was found if any free one was wanted.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        // Wakes the accept thread; if that fails it ends with the process.
        let _ = TcpStream::connect(self.address);
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(run).map(drop)
}

/// tiny_http behind a socket in the abstract namespace.
struct Inner {
    site: Site,
    port: u16,
    /// Of the socket that is open now.
    name: Mutex<Vec<u8>>,
}

impl Inner {
    /// Opens a new inner socket, with a tiny_http and its handlers.
    fn open(self: &Arc<Self>, name: &mut Vec<u8>) -> io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        *name = format!("minflow-http-{}-{count}", std::process::id()).into_bytes();
        let listener = UnixListener::bind_addr(&UnixAddress::from_abstract_name(&*name)?)?;
        let server = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        // Its Drop expects a path, which an abstract socket has none of: it is never dropped. At most one for each time
        // that descriptors run out.
        let server: &'static tiny_http::Server = Box::leak(Box::new(server));
        for _ in 0..HANDLERS {
            let inner = Arc::clone(self);
            spawn("http-handler", move || {
                while let Ok(request) = server.recv() {
                    inner.handle(request);
                }
                // The accept thread is gone; every handler has to hear of it.
                server.unblock();
            })?;
        }
        Ok(())
    }

    fn connect(self: &Arc<Self>) -> io::Result<UnixStream> {
        let mut name = self.name.lock();
        match UnixStream::connect_addr(&UnixAddress::from_abstract_name(&*name)?) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                log::warn!("the HTTP server had stopped accepting; it is started again");
                self.open(&mut name)?;
                UnixStream::connect_addr(&UnixAddress::from_abstract_name(&*name)?)
            }
            other => other,
        }
    }

    fn handle(&self, incoming: tiny_http::Request) {
        let header = |name: &'static str| {
            let named = incoming.headers().iter().filter(move |header| header.field.equiv(name));
            named.map(|header| header.value.to_string())
        };
        let request = Request {
            method: incoming.method().to_string(),
            target: incoming.url().to_owned(),
            hosts: header("Host").collect(),
            origin: header("Origin").next(),
            port: self.port,
        };
        // A panic in a route must not take a handler with it.
        let answered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| routes::answer(&self.site, &request)));
        let closes = header("Connection").any(|value| value.eq_ignore_ascii_case("close"))
            || *incoming.http_version() == tiny_http::HTTPVersion(1, 0);
        let Ok(response) = answered else { return };
        let bytes = serialize(&response, request.method == "HEAD", closes);
        let mut writer = incoming.into_writer();
        // The client may have gone.
        let _ = writer.write_all(&bytes).and_then(|()| writer.flush());
    }
}

/// The whole answer as one piece: in several it waits 44 ms for the client's delayed acknowledgement.
fn serialize(response: &Response, is_head: bool, closes: bool) -> Vec<u8> {
    let reason = tiny_http::StatusCode(response.status).default_reason_phrase();
    let mut head = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: {}\r\n",
        response.status,
        response.content_type,
        response.body.len(),
        if closes { "close" } else { "keep-alive" },
    );
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    if !is_head {
        bytes.extend_from_slice(&response.body);
    }
    bytes
}

/// Counts a connection for as long as it lives.
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn accept(listener: &TcpListener, inner: &Arc<Inner>, patience: Patience, is_stopping: &AtomicBool) {
    let seats = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = listener.accept();
        if is_stopping.load(Ordering::SeqCst) {
            return;
        }
        let mut client = match accepted {
            Ok((client, _)) => client,
            Err(error) => {
                log::warn!("a connection could not be taken: {error}");
                // No descriptors left, most likely: the connection waits in the backlog until there are.
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let taken = seats.fetch_add(1, Ordering::SeqCst);
        let seat = Seat(Arc::clone(&seats));
        if taken >= MAX_CONNECTIONS {
            let busy =
                "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n";
            // Fits into the empty send buffer of a new connection: never blocks.
            let _ = client.write_all(busy.as_bytes());
            continue;
        }
        let inner = Arc::clone(inner);
        let spawned = spawn("http-client", move || {
            let passed = serve(client, &inner, patience);
            if let Err(error) = passed {
                log::debug!("a connection was ended: {error}");
            }
            drop(seat);
        });
        if let Err(error) = spawned {
            log::warn!("a connection could not be taken: {error}");
        }
    }
}

fn serve(mut client: TcpStream, inner: &Arc<Inner>, patience: Patience) -> io::Result<()> {
    match read_first(&mut client, patience)? {
        Some(first) => pass_through(client, inner.connect()?, &first, patience),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
