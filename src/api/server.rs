//! The HTTP server: listens, has the [guard](crate::api::guard) take requests in, and answers them by
//! [`routes`](crate::api::routes).
//!
//! The only file that knows tiny_http. It bounds nothing: a header may be endless, a request may stop in its middle for ever, two
//! lengths of a body are taken, and its accept thread dies when descriptors run out. So it meets no client. It accepts the guard's few
//! connections over a socket without a name that others could find, which is shut before the first request, and is asked only
//! what the guard has found whole and plain.

use std::convert::Infallible;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_nodelay;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};

use crate::api::guard::Guard;
use crate::api::routes::{self, Request, Site};
use crate::config::Api;
use crate::lack::Lack;
use crate::supervisor::sys;

/// Requests answered at once.
const HANDLERS: usize = 4;
const STACK_BYTES: usize = 512 * 1024;

/// For the log: what tiny_http says there is no news. It complains of its listener at every start, and the rest is told here.
pub const LOG_FILTER: &str = "tiny_http=off";

/// How long a tiny_http may take to accept its lanes.
const ACCEPT_PATIENCE: Duration = Duration::from_secs(2);

/// How long an end waits for what is still being answered.
const END_PATIENCE: Duration = Duration::from_secs(3);

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
                let help =
                    Lack::of_process(error).map_or("choose another port with `--port` or `api.port`", Lack::remedy);
                write!(f, "cannot listen on {address}: {error}\nhelp: {help}")
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
    guard: Option<JoinHandle<()>>,
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
        // Connections inherit it.
        set_tcp_nodelay(&listener, true)?;
        sys::accept_when_spoken_to(&listener)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let until = Arc::clone(&stop);
        let health = site.health.clone();
        let rooms = Rooms::new(House { site, address });
        let keeper = rooms.clone();
        let guard = Guard::new(listener, health, Box::new(move || keeper.open()))?;
        let serve = move || {
            guard.serve(&until);
            rooms.close();
        };
        Ok(Self { address, stop, guard: Some(spawn("http-guard", serve)?) })
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
        if let Some(guard) = self.guard.take().filter(|_| told.is_ok()) {
            // A panic of the guard has been printed.
            let _ = guard.join();
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(run)
}

/// What all handlers share.
struct House {
    site: Site,
    address: SocketAddr,
}

/// One tiny_http.
struct Room {
    /// Dropped, it would look for the path of its socket, which has none, and fall. What it holds goes with its lanes and handlers.
    server: ManuallyDrop<tiny_http::Server>,
    is_over: AtomicBool,
}

impl Room {
    /// Has its handlers end when they have answered what they are at.
    fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        (0..HANDLERS).for_each(|_| self.server.unblock());
    }
}

/// Makes a tiny_http with its handlers: one at the start, and another when all lanes to it have broken.
#[derive(Clone)]
struct Rooms {
    house: Arc<House>,
    newest: Arc<Mutex<Option<Arc<Room>>>>,
    /// Each handler holds one while it serves.
    at_work: Sender<Infallible>,
    /// Closed when the last handler has ended.
    ended: Receiver<Infallible>,
}

impl Rooms {
    fn new(house: House) -> Self {
        let (at_work, ended) = bounded(0);
        Self { house: Arc::new(house), newest: Arc::default(), at_work, ended }
    }

    /// Gives as many lanes as there are handlers.
    fn open(&self) -> io::Result<Vec<UnixStream>> {
        let listener = listen_without_name()?;
        let address = listener.local_addr()?;
        let door = listener.try_clone()?;
        let lanes: Vec<UnixStream> =
            (0..HANDLERS).map(|_| UnixStream::connect_addr(&address)).collect::<io::Result<_>>()?;
        // Nobody else comes in. Who stands in the queue is accepted all the same, and then the accept thread ends.
        rustix::net::shutdown(&door, Shutdown::Both)?;
        let server = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        let room = Arc::new(Room { server: ManuallyDrop::new(server), is_over: AtomicBool::new(false) });
        // Its error is the sign that all have been accepted. It says nothing if descriptors have run out meanwhile.
        if room.server.recv_timeout(ACCEPT_PATIENCE).is_ok() {
            return Err(Errno::MFILE.into());
        }
        for number in 0..HANDLERS {
            let (house, room, at_work) = (Arc::clone(&self.house), Arc::clone(&room), self.at_work.clone());
            let serve = move || {
                house.serve(&room);
                drop(at_work);
            };
            match spawn("http-handler", serve) {
                Ok(_) => {}
                Err(error) if number == 0 => return Err(error),
                // Fewer will do.
                Err(_) => break,
            }
        }
        if let Some(earlier) = self.newest.lock().replace(room) {
            earlier.end();
        }
        Ok(lanes)
    }

    /// Waits until all handlers have ended, or the patience has.
    fn close(self) {
        if let Some(room) = self.newest.lock().take() {
            room.end();
        }
        drop(self.at_work);
        // Nothing can be sent: the channel closes, or the time is over.
        let _ = self.ended.recv_timeout(END_PATIENCE);
    }
}

/// At an address of the kernel's choice, which stands in no folder.
fn listen_without_name() -> io::Result<UnixListener> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new_unnamed())?;
    rustix::net::listen(&socket, HANDLERS as i32)?;
    Ok(UnixListener::from(socket))
}

impl House {
    fn serve(&self, room: &Room) {
        while !room.is_over.load(Ordering::SeqCst) {
            // An error says that the accept thread has ended, as it should, or that the room is over.
            if let Ok(request) = room.server.recv() {
                self.handle(request);
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
        let reason = tiny_http::StatusCode(response.status).default_reason_phrase();
        let answer = response.into_bytes(reason, request.method == "HEAD");
        // tiny_http's own way is several writes and takes 44 ms. The guard may have given the request up.
        let mut writer = incoming.into_writer();
        let _ = writer.write_all(&answer).and_then(|()| writer.flush());
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
