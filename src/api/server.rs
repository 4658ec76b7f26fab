//! The HTTP server: listens, hands requests to [`routes`](crate::api::routes) and writes their answers in one piece.
//!
//! The only file that knows tiny_http, which has a thread for each connection and one that accepts them. That one dies
//! without a word when descriptors run out (it panics, if the last one went to the connection itself). So the listener
//! is ours, tiny_http has a duplicate, and a watcher looks after each connection whether the duplicate is still open.
//!
//! Every answer ends its connection, and the kernel keeps back a connection until it has sent something, so that neither a
//! browser's spare connection nor an idle one holds a thread. tiny_http may still promise one idle thread to more than four
//! connections that come in the same instant: the fifth then waits until another ends.
//!
//! How long a header may be and how many connections there may be, nothing bounds yet.

use std::convert::Infallible;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout, set_tcp_nodelay};

use crate::api::routes::{self, Request, Response, Site};
use crate::config::Api;
use crate::supervisor::sys;

/// Requests answered at once.
const HANDLERS: usize = 4;
const STACK_BYTES: usize = 512 * 1024;

/// A client that takes nothing of its answer for so long is given up: it holds a handler.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);

/// How long a live accept thread may take for a connection before the watcher looks again.
const SETTLE: Duration = Duration::from_millis(20);

/// Between two looks whether there are descriptors again.
const RETRY: Duration = Duration::from_millis(100);

/// For the log: what tiny_http says there is no news. It complains of its listener at every stop, and the rest is told here.
pub const LOG_FILTER: &str = "tiny_http=off";

/// Connections of a tiny_http that no longer accepts are served until they have been quiet for so long.
const QUIET: Duration = Duration::from_secs(600);

/// How long an end waits for answers that are on their way.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// Bodies up to here tiny_http has read itself before it hands a request over.
const BUFFERED_BODY: usize = 1024;

/// tiny_http throws the rest of a body away into a buffer of its announced length, and that allocation must not fail.
const MAX_BODY: usize = 1024 * 1024;

/// What the condition of lacking descriptors is named on the board of [`Health`](crate::health::Health).
const CONDITION: &str = "descriptors";

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

/// The running server. Dropping it finishes the answers that are on their way, for 3 s at most, and closes the port.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    /// Written to once: the end.
    stop: Arc<OwnedFd>,
    watcher: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens; requests are answered from now on.
    ///
    /// # Errors
    /// The address is not loopback or cannot be listened on.
    pub fn start(settings: &Api, site: Site) -> Result<Self, StartError> {
        let wanted = SocketAddr::new(settings.host, settings.port);
        if !settings.host.is_loopback() {
            return Err(StartError::NotLoopback(wanted));
        }
        Self::listen(wanted, site).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => StartError::PortTaken(wanted),
            _ => StartError::Io(wanted, error),
        })
    }

    fn listen(wanted: SocketAddr, site: Site) -> io::Result<Self> {
        let listener = TcpListener::bind(wanted)?;
        // Connections inherit both.
        set_tcp_nodelay(&listener, true)?;
        set_socket_timeout(&listener, Timeout::Send, Some(WRITE_PATIENCE))?;
        sys::accept_when_spoken_to(&listener)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let house = Arc::new(House { site, listener, address, is_stopping: AtomicBool::new(false) });
        let handlers = Handlers::new();
        let door = house.open(&handlers)?;
        let until = Arc::clone(&stop);
        let watcher = spawn("http-watcher", move || watch(&house, door, handlers, &until))?;
        Ok(Self { address, stop, watcher: Some(watcher) })
    }

    /// Where it listens: the port that was found if any free one was wanted.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Eight bytes, as an eventfd wants them; the counter has room.
        let told = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(watcher) = self.watcher.take().filter(|_| told.is_ok()) {
            // A panic of the watcher has been printed.
            let _ = watcher.join();
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(run)
}

/// What outlives every tiny_http.
struct House {
    site: Site,
    listener: TcpListener,
    address: SocketAddr,
    is_stopping: AtomicBool,
}

/// One tiny_http with its handlers.
struct Door {
    /// The descriptor of its duplicate of the listener, by number: tiny_http owns it.
    descriptor: i32,
    server: Arc<tiny_http::Server>,
    /// A newer one has taken its place.
    is_over: Arc<AtomicBool>,
    handlers: Vec<JoinHandle<()>>,
}

/// Tells when the last handler has ended: each holds a sender while it serves.
struct Handlers {
    at_work: Sender<Infallible>,
    ended: Receiver<Infallible>,
}

impl Handlers {
    fn new() -> Self {
        let (at_work, ended) = bounded(0);
        Self { at_work, ended }
    }

    /// Waits until all have ended, or the patience has.
    fn await_end(self, patience: Duration) {
        drop(self.at_work);
        // Nothing can be sent: the channel closes, or the time is over.
        let _ = self.ended.recv_timeout(patience);
    }
}

impl House {
    fn open(self: &Arc<Self>, handlers: &Handlers) -> io::Result<Door> {
        // One for tiny_http; and two that are free again at once, for the first connection, lest it die of that.
        let [duplicate, _spare, _second] =
            [self.listener.try_clone()?, self.listener.try_clone()?, self.listener.try_clone()?];
        let descriptor = duplicate.as_raw_fd();
        let server = Arc::new(tiny_http::Server::from_listener(duplicate, None).map_err(io::Error::other)?);
        let mut door = Door { descriptor, server, is_over: Arc::default(), handlers: Vec::new() };
        for _ in 0..HANDLERS {
            let (house, server, is_over) = (Arc::clone(self), Arc::clone(&door.server), Arc::clone(&door.is_over));
            let at_work = handlers.at_work.clone();
            let serve = move || {
                house.serve(&server, &is_over);
                drop(at_work);
            };
            match spawn("http-handler", serve) {
                Ok(handler) => door.handlers.push(handler),
                Err(error) if door.handlers.is_empty() => return Err(error),
                // Fewer will do.
                Err(_) => break,
            }
        }
        Ok(door)
    }

    /// Whether the accept thread lives: it closes its duplicate when it ends, however it ends.
    fn accepts(&self, duplicate: i32) -> bool {
        // The number may be another file's by now.
        let identity = |descriptor: i32| {
            let metadata = std::fs::metadata(format!("/proc/self/fd/{descriptor}")).ok()?;
            Some((metadata.dev(), metadata.ino()))
        };
        identity(duplicate) == identity(self.listener.as_raw_fd())
    }

    fn serve(self: &Arc<Self>, server: &tiny_http::Server, is_over: &AtomicBool) {
        let mut last = Instant::now();
        while !self.is_stopping.load(Ordering::SeqCst) {
            // An error means that the accept thread has ended, which the watcher sees to.
            if let Ok(Some(request)) = server.recv_timeout(QUIET) {
                last = Instant::now();
                self.admit(request);
            } else if is_over.load(Ordering::SeqCst) && last.elapsed() >= QUIET {
                return;
            }
        }
    }

    /// Answers, beside the handlers if the client may still owe its body, which no route wants but tiny_http waits for.
    fn admit(self: &Arc<Self>, request: tiny_http::Request) {
        match request.body_length().unwrap_or(0) {
            0..=BUFFERED_BODY => self.handle(request),
            length if length <= MAX_BODY => {
                let house = Arc::clone(self);
                if let Err(error) = spawn("http-body", move || house.handle(request)) {
                    log::warn!("a request was not answered: {error}");
                }
            }
            _ => {
                // The body's reader must never be dropped; that costs the connection's descriptors.
                let refusal = tiny_http::Response::empty(413);
                std::mem::forget(request.upgrade("close", refusal));
            }
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
            port: self.address.port(),
        };
        // A panic in a route must not take a handler with it; tiny_http answers 500 for a request that is let go.
        let answered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| routes::answer(&self.site, &request)));
        let Ok(response) = answered else { return };
        // The client may have gone, or may not be reading.
        let _ = send(&mut incoming.into_writer(), &serialize(&response, request.method == "HEAD"));
    }
}

/// In one piece: in several each but the first waits 44 ms for the client's delayed acknowledgement.
fn send(writer: &mut dyn Write, answer: &[u8]) -> io::Result<()> {
    writer.write_all(answer)?;
    writer.flush()
}

fn serialize(response: &Response, is_head: bool) -> Vec<u8> {
    let reason = tiny_http::StatusCode(response.status).default_reason_phrase();
    let mut head = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n",
        response.status,
        response.content_type,
        response.body.len(),
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

/// Keeps a living tiny_http at the listener until it is told to stop.
fn watch(house: &Arc<House>, first: Door, handlers: Handlers, stop: &OwnedFd) {
    let mut doors = vec![first];
    let listener = PollFd::new(&house.listener, PollFlags::IN);
    let ended = || PollFd::new(stop, PollFlags::IN);
    loop {
        // A connection that waits wakes both the accept thread and us.
        if !wait(&mut [ended(), listener.clone()], None) {
            break;
        }
        let newest = doors.last().expect("there is always one");
        if house.accepts(newest.descriptor) {
            if !wait(&mut [ended()], Some(SETTLE)) {
                break;
            }
            continue;
        }
        house.site.health.raise(CONDITION, LACKING);
        match house.open(&handlers) {
            Ok(door) => {
                newest.is_over.store(true, Ordering::SeqCst);
                doors.retain(|door| !door.handlers.iter().all(JoinHandle::is_finished));
                doors.push(door);
                house.site.health.clear(CONDITION);
            }
            // The client waits in the listener's queue.
            Err(_) if !wait(&mut [ended()], Some(RETRY)) => break,
            Err(_) => {}
        }
    }
    end(house, doors, handlers);
}

const LACKING: &str = "HTTP has no descriptors left to take a connection; it goes on when some are free \
                       (raise the limit, `ulimit -n`, or close connections to it)";

/// Waits until one is ready; false if that is the first, which says that the end has come.
fn wait(watched: &mut [PollFd<'_>], timeout: Option<Duration>) -> bool {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    });
    // An interruption is taken for readiness: the caller looks itself.
    let _ = poll(watched, timeout.as_ref());
    watched[0].revents().is_empty()
}

fn end(house: &House, doors: Vec<Door>, handlers: Handlers) {
    house.is_stopping.store(true, Ordering::SeqCst);
    for door in &doors {
        (0..HANDLERS).for_each(|_| door.server.unblock());
    }
    handlers.await_end(END_PATIENCE);
    // Closes the port, though tiny_http has a duplicate and its accept thread waits in it: that fails now and ends. First,
    // since a tiny_http that is dropped wakes its accept thread by a connection, for which nobody might be left.
    let _ = rustix::net::shutdown(&house.listener, rustix::net::Shutdown::Both);
    drop(doors);
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
