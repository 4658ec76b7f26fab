//! What the service manager that started minflow is told (sd_notify): that it is up, that it reads its configuration again, that it
//! stops, and, if it wants to know, that the loop is alive.
//!
//! The manager is reached by one datagram each, at the address in `NOTIFY_SOCKET`. Its variables are taken out of the environment,
//! since a task must not speak for minflow. Without a manager nothing is sent, and without a watchdog there is no thread.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};

use crate::clock;
use crate::scheduler::event::{Event, EventSender};
use crate::scheduler::port::ReplyTo;
use crate::supervisor::sys;

/// A manager that takes longer to take a line does without it.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is left of a stop when the drain is over: what is killed may have a grace.
const FAREWELL: Duration = Duration::from_secs(60);

/// The variables by which a manager makes itself known.
const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Copies tell the same manager.
#[derive(Clone, Default)]
pub(super) struct Manager {
    line: Option<Arc<UnixDatagram>>,
    /// How often it wants to hear that the loop is alive, at the least.
    watchdog: Option<Duration>,
}

impl Manager {
    /// The manager that the environment names, which then names it no longer. To be called before there are threads.
    pub(super) fn take() -> Self {
        let [socket, period, pid] = VARIABLES.map(sys::take_variable);
        let own = || std::process::id().to_string();
        let is_ours = pid.as_ref().is_none_or(|pid| pid.to_string_lossy() == own());
        let microseconds = period.filter(|_| is_ours).and_then(|period| period.to_str()?.parse::<u64>().ok());
        let watchdog = microseconds.filter(|&microseconds| microseconds > 0).map(Duration::from_micros);
        let line = socket.filter(|socket| !socket.is_empty()).and_then(|socket| match connect(&socket) {
            Ok(line) => Some(Arc::new(line)),
            Err(error) => {
                log::warn!("the service manager cannot be told: NOTIFY_SOCKET is `{}`: {error}", socket.display());
                None
            }
        });
        Self { watchdog: watchdog.filter(|_| line.is_some()), line }
    }

    /// All is up, or the configuration has been read.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// The configuration is being read again.
    pub(super) fn reloading(&self) {
        let now = clock::monotonic().as_micros();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reading the configuration"));
    }

    /// It stops, within `drain_timeout` and what the tasks take to be killed.
    pub(super) fn stopping(&self, drain_timeout: Duration) {
        let within = drain_timeout.saturating_add(FAREWELL).as_micros();
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={within}\nSTATUS=stopping"));
    }

    pub(super) fn status(&self, status: &str) {
        self.tell(&format!("STATUS={}", one_line(status)));
    }

    fn tell(&self, text: &str) {
        if let Some(line) = &self.line
            && let Err(error) = line.send(text.as_bytes())
        {
            log::warn!("the service manager could not be told `{}`: {error}", text.lines().next().unwrap_or_default());
        }
    }

    /// Tells the manager twice in each of its periods that the loop is alive, by asking the loop. None: it does not want to know.
    ///
    /// # Errors
    /// The host has no threads left.
    pub(super) fn watch(&self, events: EventSender) -> io::Result<Option<Watchdog>> {
        let Some(period) = self.watchdog else { return Ok(None) };
        let (manager, pause) = (self.clone(), period / 2);
        let (open, closing) = channel::bounded(0);
        let watch = move || ask(&events, pause, &closing, || manager.tell("WATCHDOG=1"));
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).stack_size(128 * 1024).spawn(watch)?;
        Ok(Some(Watchdog { open: Some(open), thread: Some(thread) }))
    }
}

/// The thread that asks the loop. Dropping it ends it.
pub(super) struct Watchdog {
    open: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.open = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks the loop for a sign of life each `pause`, and tells of each that comes. While one is awaited, no other is asked for.
fn ask(events: &EventSender, pause: Duration, closing: &Receiver<()>, tell: impl Fn()) {
    loop {
        let (sender, sign) = channel::bounded(1);
        let reply = ReplyTo::new(move |()| {
            // Capacity one and one sign: never full.
            let _ = sender.try_send(());
        });
        if events.send(Event::Probe(reply)).is_err() {
            return;
        }
        crossbeam::select! {
            recv(sign) -> sign => match sign {
                Ok(()) => tell(),
                // The loop has ended.
                Err(_) => return,
            },
            recv(closing) -> _ => return,
        }
        if closing.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// The address is a path, or the name of an abstract socket after `@`.
fn connect(address: &OsString) -> io::Result<UnixDatagram> {
    let line = UnixDatagram::unbound()?;
    line.set_write_timeout(Some(PATIENCE))?;
    let bytes = address.as_bytes();
    let address = match bytes.first() {
        Some(b'@') => SocketAddr::from_abstract_name(&bytes[1..])?,
        Some(b'/') => SocketAddr::from_pathname(address)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "neither a path nor the name of an abstract socket",
            ));
        }
    };
    line.connect_addr(&address)?;
    Ok(line)
}

/// What follows a line's end would be another message.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::scheduler::event;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_loop_that_stands_still_gives_no_sign_and_is_asked_once() {
        let (events, inbox) = event::channel();
        let (_open, closing) = channel::bounded::<()>(0);
        let (told, heard) = channel::unbounded();
        let pause = Duration::from_millis(1);
        let asking = std::thread::spawn(move || ask(&events, pause, &closing, || told.send(()).unwrap()));
        let next = || match inbox.recv_timeout(LONG).unwrap() {
            Event::Probe(reply) => reply,
            other => panic!("{other:?}"),
        };
        next().send(());
        heard.recv_timeout(LONG).unwrap();
        let awaited = next();
        // Many pauses go by without an answer.
        let until = Instant::now() + 50 * pause;
        while Instant::now() < until {
            assert!(inbox.try_recv().is_err() && heard.try_recv().is_err());
        }
        awaited.send(());
        heard.recv_timeout(LONG).unwrap();
        drop(inbox);
        asking.join().unwrap();
    }
}
