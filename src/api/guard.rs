//! The guard at the door of HTTP: takes connections, reads each request to its end within bounds, and hands on only what is whole
//! and plain, so that no client can do harm to the server behind it, which has no bounds of its own.
//!
//! One thread and one `poll`. A connection brings one request and ends with its answer. Behind the guard are a few *lanes*,
//! connections that stay open and carry a request at a time; so nothing is accepted there, and at most as many requests as there
//! are lanes are answered at once. When there is no room for a newcomer, whoever has shown no progress for longest gives way.
//!
//! Called by the server; knows no routes.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{DupFlags, Errno};

use crate::api::routes::Response;
use crate::health::Health;

/// Bytes of a request line and its headers.
pub const MAX_HEAD: usize = 16 << 10;
/// Bytes of a body, which no route wants: it is read and forgotten.
pub const MAX_BODY: usize = 64 << 10;
/// Connections at once.
pub const MAX_CONNECTIONS: usize = 32;

/// How long a request may take to come.
pub const REQUEST_PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer may take to be taken.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// How long after the answer a client may go on speaking, so that it reads the answer and not of a broken connection.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(1);
/// How long an end waits for answers that are on their way.
const END_PATIENCE: Duration = Duration::from_secs(3);
/// How much of what it says then is read.
const MAX_FORGOTTEN: usize = 1 << 20;
/// Between two attempts at what failed for want of descriptors.
const RETRY: Duration = Duration::from_millis(100);

/// Read at once.
const CHUNK: usize = 8 << 10;

/// What the condition of lacking descriptors is named on the board of [`Health`].
pub const CONDITION: &str = "descriptors";
pub const LACKING: &str = "HTTP has no descriptors left to take connections with, and serves them one after the other; it goes on \
                           when some are free (raise the limit, `ulimit -n`, or see what holds them)";

/// Opens all lanes anew, to a new server.
pub type OpenLanes = dyn FnMut() -> io::Result<Vec<UnixStream>> + Send;

/// What one client has come to.
enum Stage {
    /// Its request is not whole.
    Reading {
        bytes: Vec<u8>,
        look: Look,
    },
    /// It waits for a lane, or is at one.
    Asking,
    Writing {
        answer: Vec<u8>,
        written: usize,
    },
    /// It was answered; what it still says is read and forgotten, up to a bound.
    Leaving {
        forgotten: usize,
    },
}

struct Client {
    stream: TcpStream,
    stage: Stage,
    /// When it is given up.
    until: Instant,
    /// When it last moved.
    moved: Instant,
}

/// A connection to the server behind.
struct Lane {
    stream: UnixStream,
    asked: Option<Asked>,
}

/// A request at a lane.
struct Asked {
    /// Gone when it has given up meanwhile.
    client: u64,
    is_head: bool,
    request: Vec<u8>,
    written: usize,
    answer: Vec<u8>,
}

/// The running guard.
pub struct Guard {
    /// None: it has been told to end.
    listener: Option<TcpListener>,
    /// Given up for one more connection when there are no descriptors.
    spare: Option<OwnedFd>,
    /// Nothing is accepted before.
    accepts_at: Option<Instant>,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    waiting: VecDeque<(u64, Plain)>,
    lanes: Vec<Lane>,
    open_lanes: Box<OpenLanes>,
    opens_at: Option<Instant>,
    health: Health,
}

impl Guard {
    /// # Errors
    /// No descriptors are left.
    pub fn new(listener: TcpListener, health: Health, mut open_lanes: Box<OpenLanes>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let lanes = open_lanes()?.into_iter().map(Lane::new).collect::<io::Result<_>>()?;
        let spare = Some(OwnedFd::from(listener.try_clone()?));
        Ok(Self {
            listener: Some(listener),
            spare,
            accepts_at: None,
            clients: BTreeMap::new(),
            next_client: 0,
            waiting: VecDeque::new(),
            lanes,
            open_lanes,
            opens_at: None,
            health,
        })
    }

    /// Serves until `stop` can be read, then finishes the answers that are on their way, for 3 s at most.
    pub fn serve(mut self, stop: &OwnedFd) {
        while self.listener.is_some() {
            if self.round(Some(stop), None) {
                // The port is closed from here on.
                self.listener = None;
                self.spare = None;
            }
        }
        let until = Instant::now() + END_PATIENCE;
        self.clients.retain(|_, client| matches!(client.stage, Stage::Asking | Stage::Writing { .. }));
        while self.clients.values().any(|client| !matches!(client.stage, Stage::Leaving { .. }))
            && Instant::now() < until
        {
            self.round(None, Some(until));
        }
    }

    /// Waits for news and takes them in. True: `stop` can be read.
    fn round(&mut self, stop: Option<&OwnedFd>, until: Option<Instant>) -> bool {
        let now = Instant::now();
        let is_full = self.clients.len() >= MAX_CONNECTIONS && self.least_moved().is_none();
        let accepts = !is_full && self.accepts_at.is_none_or(|at| at <= now);
        let deadlines = self.clients.values().map(|client| client.until);
        let deadline = deadlines.chain(self.accepts_at).chain(self.opens_at).chain(until).min();
        let listener = self.listener.as_ref().filter(|_| accepts);
        let (can_stop, can_accept, at_clients, at_lanes) = {
            let fixed = [stop.map(AsFd::as_fd), listener.map(AsFd::as_fd)];
            let mut watched: Vec<PollFd<'_>> =
                fixed.into_iter().flatten().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            let first_client = watched.len();
            watched.extend(self.clients.values().map(|client| PollFd::new(&client.stream, client.awaits())));
            let first_lane = watched.len();
            watched.extend(self.lanes.iter().map(|lane| PollFd::new(&lane.stream, lane.awaits())));
            let timeout = deadline.map(|at| timespec(at.saturating_duration_since(now)));
            // An interruption is taken for news: whoever is asked looks itself, and nothing blocks.
            let _ = poll(&mut watched, timeout.as_ref());
            let has_news = |at: usize| !watched[at].revents().is_empty();
            let ids: Vec<u64> = self.clients.keys().copied().collect();
            (
                stop.is_some() && has_news(0),
                listener.is_some() && has_news(first_client - 1),
                ids.into_iter().enumerate().filter(|(ix, _)| has_news(first_client + ix)).map(|(_, id)| id).collect(),
                (0..self.lanes.len()).filter(|ix| has_news(first_lane + ix)).collect::<Vec<_>>(),
            )
        };
        let at_clients: Vec<u64> = at_clients;
        at_lanes.into_iter().rev().for_each(|ix| self.serve_lane(ix));
        at_clients.into_iter().for_each(|id| self.serve_client(id));
        self.give_up_the_late();
        if can_accept {
            self.accept();
        }
        self.ask();
        can_stop
    }

    /// One newcomer: others are there in the next round.
    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        self.accepts_at = None;
        let mut accepted = listener.accept();
        if accepted.as_ref().is_err_and(lacks_something) {
            self.health.raise(CONDITION, LACKING);
            if self.spare.take().is_some() {
                accepted = listener.accept();
            }
        } else {
            self.health.clear(CONDITION);
        }
        match accepted.and_then(|(stream, _)| stream.set_nonblocking(true).map(|()| stream)) {
            Ok(stream) => {
                if self.clients.len() >= MAX_CONNECTIONS
                    && let Some(id) = self.least_moved()
                {
                    self.part_with(id);
                }
                let now = Instant::now();
                let stage = Stage::Reading { bytes: Vec::new(), look: Look::default() };
                let client = Client { stream, stage, until: now + REQUEST_PATIENCE, moved: now };
                self.clients.insert(self.next_client, client);
                self.next_client += 1;
                self.serve_client(self.next_client - 1);
            }
            Err(error) if lacks_something(&error) => self.accepts_at = Some(Instant::now() + RETRY),
            // It has gone again.
            Err(_) => {}
        }
    }

    /// Who gives way to a newcomer. None: all wait for their answers.
    fn least_moved(&self) -> Option<u64> {
        let movable = self.clients.iter().filter(|(_, client)| !matches!(client.stage, Stage::Asking));
        movable.min_by_key(|(_, client)| client.moved).map(|(&id, _)| id)
    }

    /// Ends a connection. Its descriptor becomes the spare one if that was given up: in one step, so that nobody else takes it.
    fn part_with(&mut self, id: u64) {
        let Some(client) = self.clients.remove(&id) else { return };
        if let (None, Some(listener)) = (&self.spare, &self.listener) {
            let mut descriptor = OwnedFd::from(client.stream);
            if rustix::io::dup3(listener, &mut descriptor, DupFlags::CLOEXEC).is_ok() {
                self.spare = Some(descriptor);
                self.accepts_at = None;
            }
        }
    }

    fn give_up_the_late(&mut self) {
        let now = Instant::now();
        let late: Vec<u64> = self.clients.iter().filter(|(_, client)| client.until <= now).map(|(&id, _)| id).collect();
        for id in late {
            let Some(client) = self.clients.get_mut(&id) else { continue };
            let is_half = matches!(client.stage, Stage::Reading { .. });
            if is_half {
                let patience = REQUEST_PATIENCE.as_secs();
                let said = format!("the request did not come to its end within {patience} s");
                client.answer(refusal(408, "Request Timeout", said));
            } else {
                self.part_with(id);
            }
        }
    }

    fn serve_client(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        match client.go_on() {
            Ok(Some(plain)) => self.waiting.push_back((id, plain)),
            Ok(None) => {}
            Err(_) => self.part_with(id),
        }
    }

    /// Gives what waits to lanes that are free.
    fn ask(&mut self) {
        if self.lanes.is_empty() && self.opens_at.is_none_or(|at| at <= Instant::now()) {
            let opened = (self.open_lanes)().and_then(|lanes| lanes.into_iter().map(Lane::new).collect());
            self.opens_at = match opened {
                Ok(lanes) => {
                    self.lanes = lanes;
                    None
                }
                Err(_) => Some(Instant::now() + RETRY),
            };
        }
        while let Some(ix) = self.lanes.iter().position(|lane| lane.asked.is_none())
            && let Some((client, plain)) = self.waiting.pop_front()
        {
            if self.clients.contains_key(&client) {
                let Plain { is_head, request } = plain;
                self.lanes[ix].asked = Some(Asked { client, is_head, request, written: 0, answer: Vec::new() });
                self.serve_lane(ix);
            }
        }
    }

    fn serve_lane(&mut self, ix: usize) {
        let answer = match self.lanes[ix].go_on() {
            Ok(false) => return,
            Ok(true) => self.lanes[ix].asked.take().map(|asked| (asked.client, asked.answer)),
            // The lane is of no use any more.
            Err(_) => {
                let said = "the request could not be answered; try again".to_owned();
                let broken = refusal(502, "Bad Gateway", said);
                self.lanes.remove(ix).asked.map(|asked| (asked.client, broken))
            }
        };
        if let Some((id, answer)) = answer
            && let Some(client) = self.clients.get_mut(&id)
        {
            client.answer(answer);
            self.serve_client(id);
        }
    }
}

impl Client {
    fn awaits(&self) -> PollFlags {
        match self.stage {
            Stage::Reading { .. } | Stage::Leaving { .. } => PollFlags::IN,
            Stage::Writing { .. } => PollFlags::OUT,
            // A client that has gone is told with all others.
            Stage::Asking => PollFlags::empty(),
        }
    }

    fn answer(&mut self, answer: Vec<u8>) {
        self.stage = Stage::Writing { answer, written: 0 };
        self.until = Instant::now() + ANSWER_PATIENCE;
    }

    /// As far as it goes without waiting. Gives the request when it is whole.
    ///
    /// # Errors
    /// The connection is over.
    fn go_on(&mut self) -> io::Result<Option<Plain>> {
        loop {
            match &mut self.stage {
                Stage::Reading { bytes, look } => {
                    let mut chunk = [0; CHUNK];
                    let count = some(self.stream.read(&mut chunk))?;
                    let Some(count) = count else { return Ok(None) };
                    if count == 0 {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                    self.moved = Instant::now();
                    bytes.extend_from_slice(&chunk[..count]);
                    match examine(bytes, look) {
                        Ok(None) => {}
                        Ok(Some(plain)) => {
                            self.stage = Stage::Asking;
                            // Its answer is not the client's to hasten.
                            self.until = Instant::now() + ANSWER_PATIENCE;
                            return Ok(Some(plain));
                        }
                        Err(refusal) => self.answer(refusal),
                    }
                }
                // A connection with an error: nobody is there to be answered.
                Stage::Asking => return Err(ErrorKind::ConnectionReset.into()),
                Stage::Writing { answer, written } => {
                    while *written < answer.len() {
                        let Some(count) = some(self.stream.write(&answer[*written..]))? else { return Ok(None) };
                        if count == 0 {
                            return Err(ErrorKind::WriteZero.into());
                        }
                        *written += count;
                        self.moved = Instant::now();
                    }
                    self.stream.shutdown(Shutdown::Write)?;
                    self.stage = Stage::Leaving { forgotten: 0 };
                    self.until = Instant::now() + FAREWELL_PATIENCE;
                }
                Stage::Leaving { forgotten } => {
                    let Some(count) = some(self.stream.read(&mut [0; CHUNK]))? else { return Ok(None) };
                    *forgotten += count;
                    if count == 0 || *forgotten > MAX_FORGOTTEN {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }
}

impl Lane {
    fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, asked: None })
    }

    fn awaits(&self) -> PollFlags {
        match &self.asked {
            Some(asked) if asked.written < asked.request.len() => PollFlags::OUT,
            // One that nobody asks says nothing unless it ends.
            _ => PollFlags::IN,
        }
    }

    /// As far as it goes without waiting. True: the answer is whole.
    ///
    /// # Errors
    /// The lane has ended, or says what is no answer.
    fn go_on(&mut self) -> io::Result<bool> {
        let Some(asked) = &mut self.asked else { return Err(ErrorKind::UnexpectedEof.into()) };
        while asked.written < asked.request.len() {
            let Some(count) = some(self.stream.write(&asked.request[asked.written..]))? else { return Ok(false) };
            asked.written += count;
        }
        loop {
            let mut chunk = [0; CHUNK];
            let Some(count) = some(self.stream.read(&mut chunk))? else { return Ok(false) };
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            asked.answer.extend_from_slice(&chunk[..count]);
            if is_whole(&asked.answer, asked.is_head)? {
                return Ok(true);
            }
        }
    }
}

/// Whether an answer of the server behind has come to its end, which its Content-Length tells.
fn is_whole(answer: &[u8], is_head: bool) -> io::Result<bool> {
    let Some(end) = find_end(answer, 0) else { return Ok(false) };
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| ErrorKind::InvalidData)?;
    let named = head.split("\r\n").filter_map(|line| line.split_once(": "));
    let length = named.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, value)| value).next();
    let length: usize = length.and_then(|length| length.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    let expected = if is_head { end } else { end + length };
    match answer.len() {
        have if have > expected => Err(ErrorKind::InvalidData.into()),
        have => Ok(have == expected),
    }
}

/// None: it has to be waited for.
fn some(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

fn lacks_something(error: &io::Error) -> bool {
    let lacking = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|number| lacking.contains(&number))
}

fn timespec(span: Duration) -> Timespec {
    // A deadline that is not over yet is not waited for in circles.
    let span = span + Duration::from_millis(1);
    Timespec { tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(span.subsec_nanos()) }
}

fn refusal(status: u16, title: &str, detail: String) -> Vec<u8> {
    Response::problem("", status, title, detail).into_bytes(title, false)
}

/// A request as it is handed on: the request line and the headers that a route asks for, in plain form and without a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Plain {
    pub is_head: bool,
    pub request: Vec<u8>,
}

/// What is known of a request that has not come to its end, so that each byte is looked at once.
#[derive(Debug, Default)]
pub struct Look {
    /// So many bytes hold no end of a head.
    seen: usize,
    /// It has so many bytes at least.
    needed: usize,
}

/// Looks at what has come of a request. None: more must come.
///
/// # Errors
/// The answer that refuses it.
pub fn examine(bytes: &[u8], look: &mut Look) -> Result<Option<Plain>, Vec<u8>> {
    if bytes.len() < look.needed {
        return Ok(None);
    }
    let bad = |detail: &str| refusal(400, "Bad Request", detail.to_owned());
    let too_long = || {
        let said = format!("the request line and its headers may have {MAX_HEAD} bytes; send fewer");
        refusal(431, "Request Header Fields Too Large", said)
    };
    let Some(end) = find_end(bytes, look.seen) else {
        let has_control = |byte: &u8| byte.is_ascii_control() && !b"\r\n\t".contains(byte);
        if bytes[look.seen..].iter().any(has_control) {
            return Err(bad("this is no HTTP request; is it TLS? Here is plain HTTP: use http://"));
        }
        look.seen = bytes.len().saturating_sub(3);
        return if bytes.len() > MAX_HEAD { Err(too_long()) } else { Ok(None) };
    };
    if end > MAX_HEAD {
        return Err(too_long());
    }
    // The blank line stays out.
    let head = std::str::from_utf8(&bytes[..end - 4]).map_err(|_| bad("the headers are not UTF-8"))?;
    let mut lines = head.split("\r\n");
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let &[method, target, version] = &words[..] else {
        return Err(bad("the first line is not `METHOD TARGET HTTP/1.1`"));
    };
    let is_target = |byte: u8| byte.is_ascii_graphic();
    if method.is_empty() || !method.bytes().all(is_token) || target.is_empty() || !target.bytes().all(is_target) {
        return Err(bad("the first line is not `METHOD TARGET HTTP/1.1`"));
    }
    if !["HTTP/1.1", "HTTP/1.0"].contains(&version) {
        return Err(refusal(505, "HTTP Version Not Supported", "HTTP/1.1 and HTTP/1.0 are spoken here".to_owned()));
    }
    let mut request = format!("{method} {target} HTTP/1.1\r\n");
    let mut length: Option<usize> = None;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| bad("a header has no colon"))?;
        let value = value.trim_matches([' ', '\t']);
        let is_value = |byte: u8| byte == b'\t' || !byte.is_ascii_control();
        if name.is_empty() || !name.bytes().all(is_token) || !value.bytes().all(is_value) {
            return Err(bad("a header is not `Name: value`"));
        }
        match name.to_ascii_lowercase().as_str() {
            "host" | "origin" => request.push_str(&format!("{name}: {value}\r\n")),
            "transfer-encoding" => {
                let said = "a body comes with Content-Length here, not with Transfer-Encoding".to_owned();
                return Err(refusal(501, "Not Implemented", said));
            }
            "content-length" => {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                if length.is_some() || !digits {
                    return Err(bad("Content-Length is one whole number, given once"));
                }
                // More digits than fit are too many bytes in any case.
                length = Some(value.parse().unwrap_or(usize::MAX));
            }
            _ => {}
        }
    }
    let length = length.unwrap_or(0);
    if length > MAX_BODY {
        return Err(refusal(413, "Content Too Large", format!("a body may have {MAX_BODY} bytes; no route wants one")));
    }
    if bytes.len() - end < length {
        *look = Look { seen: end - 4, needed: end + length };
        return Ok(None);
    }
    request.push_str("\r\n");
    Ok(Some(Plain { is_head: method == "HEAD", request: request.into_bytes() }))
}

/// Where the first blank line ends, at or after `from`.
fn find_end(bytes: &[u8], from: usize) -> Option<usize> {
    bytes[from..].windows(4).position(|four| four == b"\r\n\r\n").map(|at| from + at + 4)
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
