//! The door of the HTTP server: bounds what a client may do before tiny_http, which bounds nothing, sees it.
//!
//! One thread for each connection, at most [`MAX_CONNECTIONS`]; it passes bytes on to tiny_http behind an inner socket and
//! back. It ends a connection whose header is too long or too slow in coming, or that does not take its answer. tiny_http
//! ends its accept thread when descriptors run out: the inner socket then refuses, and is opened anew.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub const MAX_CONNECTIONS: usize = 64;

/// One request with its header and, though no route takes any, its body.
pub const MAX_REQUEST: usize = 16 * 1024;

const TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the first to the last byte of a request, and for each part of an answer.
    pub busy: Duration,
    /// Between requests.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { busy: Duration::from_secs(10), idle: Duration::from_secs(30) }
    }
}

/// Finds the ends of requests in what passes.
#[derive(Debug, Default)]
struct Meter {
    /// Bytes since the last end.
    pending: usize,
    /// How much of `\r\n\r\n` has been seen.
    matched: usize,
}

impl Meter {
    /// False if a request is too long.
    fn pass(&mut self, bytes: &[u8]) -> bool {
        for &byte in bytes {
            self.pending += 1;
            self.matched = match (byte, self.matched) {
                (b'\r', 2) => 3,
                (b'\r', _) => 1,
                (b'\n', 1) => 2,
                (b'\n', 3) => 4,
                _ => 0,
            };
            if self.matched == 4 {
                *self = Self::default();
            } else if self.pending > MAX_REQUEST {
                return false;
            }
        }
        true
    }
}

/// Waits for the first whole request: until it is there, a client holds no thread of tiny_http. Null: the client has gone.
///
/// # Errors
/// The client was lost, or was too slow or asked too much.
pub(crate) fn read_first(client: &mut TcpStream, patience: Patience) -> io::Result<Option<Vec<u8>>> {
    let deadline = Instant::now() + patience.busy;
    let (mut request, mut meter, mut chunk) = (Vec::new(), Meter::default(), [0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        client.set_read_timeout(Some(left))?;
        let count = match client.read(&mut chunk) {
            Ok(0) => return Ok(None),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if !meter.pass(&chunk[..count]) {
            client.write_all(TOO_LARGE)?;
            return Ok(None);
        }
        request.extend_from_slice(&chunk[..count]);
        if meter.pending == 0 {
            return Ok(Some(request));
        }
    }
}

/// Passes one connection through, of which `first` has been read, until either side ends it.
///
/// # Errors
/// A side was lost, or the client was too slow or asked too much; it is closed either way.
pub(crate) fn pass_through(
    mut client: TcpStream,
    mut inner: UnixStream,
    first: &[u8],
    patience: Patience,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    client.set_nonblocking(true)?;
    inner.set_write_timeout(Some(patience.busy))?;
    inner.write_all(first)?;
    let mut meter = Meter::default();
    let mut answer: Vec<u8> = Vec::new();
    let mut chunk = [0; 16 * 1024];
    let mut deadline = Instant::now() + patience.busy;
    loop {
        // The answer is taken from tiny_http at once, so that a client that does not read holds none of its threads; and
        // nothing more is taken from a client that has not read its answer.
        let wanted = if answer.is_empty() { PollFlags::IN } else { PollFlags::OUT };
        let (to_read, from_inner) = wait(&client, wanted, &inner, deadline)?;
        if from_inner {
            match inner.read(&mut chunk)? {
                0 => return finish(&mut client, &answer, deadline),
                count => answer.extend_from_slice(&chunk[..count]),
            }
            deadline = Instant::now() + patience.busy;
        }
        if !answer.is_empty() {
            let taken = ignore_would_block(client.write(&answer))?.unwrap_or(0);
            if taken > 0 {
                answer.drain(..taken);
                let is_idle = answer.is_empty() && meter.pending == 0;
                deadline = Instant::now() + if is_idle { patience.idle } else { patience.busy };
            }
        } else if to_read {
            match ignore_would_block(client.read(&mut chunk))? {
                None => {}
                Some(0) => return Ok(()),
                Some(count) => {
                    // A request is timed from its first byte: a trickle does not prolong it.
                    if meter.pending == 0 {
                        deadline = Instant::now() + patience.busy;
                    }
                    if !meter.pass(&chunk[..count]) {
                        return client.write_all(TOO_LARGE);
                    }
                    inner.write_all(&chunk[..count])?;
                }
            }
        }
    }
}

/// tiny_http has closed; the client still gets what was answered.
fn finish(client: &mut TcpStream, answer: &[u8], deadline: Instant) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    client.set_write_timeout(Some(left))?;
    client.write_all(answer)
}

fn ignore_would_block(done: io::Result<usize>) -> io::Result<Option<usize>> {
    match done {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits for either side; whether the client, and whether tiny_http has something.
fn wait(client: &TcpStream, wanted: PollFlags, inner: &UnixStream, deadline: Instant) -> io::Result<(bool, bool)> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
    let mut watched = [PollFd::new(client, wanted), PollFd::new(inner, PollFlags::IN)];
    match poll(&mut watched, Some(&timeout)) {
        Ok(0) => Err(ErrorKind::TimedOut.into()),
        Ok(_) => {
            let [client, inner] = watched.map(|fd| !fd.revents().is_empty());
            Ok((client, inner))
        }
        Err(rustix::io::Errno::INTR) => Ok((false, false)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_measured_one_by_one() {
        let mut meter = Meter::default();
        for _ in 0..MAX_REQUEST {
            assert!(meter.pass(b"GET / HTTP/1.1\r\n\r\n"));
        }
        assert_eq!(meter.pending, 0);
        assert!(meter.pass(&vec![b'x'; MAX_REQUEST]));
        assert!(!meter.pass(b"x"));
    }
}
