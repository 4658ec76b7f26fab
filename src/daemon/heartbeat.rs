//! Tells another host each minute that minflow is alive, so that a dead one is noticed there (`[heartbeat]`).
//!
//! A thread of its own asks for the address, within bounds of time, and only while nothing is wrong: a loop that stands still is as
//! dead as one that is gone. What goes wrong with the asking is said in the log, at most once an hour.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};

use crate::api::routes::STALL_AFTER;
use crate::builtin::http::{self, Keep, Request, Trust};
use crate::clock::Clock;
use crate::config;
use crate::health::Health;
use crate::scheduler::gauge::Heartbeat;

/// An address that takes longer is taken for unreachable.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two lines in the log that say the same.
const SAID_EVERY: Duration = Duration::from_secs(3_600);

/// The thread. Dropping it ends it.
pub struct Pulse {
    open: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pulse {
    /// None: no address is configured.
    ///
    /// # Errors
    /// The host has no threads left.
    pub fn start(
        settings: Option<&config::Heartbeat>,
        health: Health,
        commits: Heartbeat,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Option<Self>> {
        let Some(settings) = settings.cloned() else { return Ok(None) };
        let (open, closing) = channel::bounded(0);
        let is_well = move || {
            let is_stalled = commits.committing_for(clock.boot()).is_some_and(|since| since > STALL_AFTER);
            !is_stalled && health.reasons().is_empty()
        };
        let beat = move || beat(&settings, &closing, &is_well);
        let thread = std::thread::Builder::new().name("heartbeat".to_owned()).spawn(beat)?;
        Ok(Some(Self { open: Some(open), thread: Some(thread) }))
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.open = None;
        if let Some(thread) = self.thread.take() {
            // Its end waits for an answer at most.
            let _ = thread.join();
        }
    }
}

fn beat(settings: &config::Heartbeat, closing: &Receiver<()>, is_well: &dyn Fn() -> bool) {
    let mut said_at: Option<Instant> = None;
    loop {
        if is_well() {
            match ping(&settings.url, PATIENCE.min(settings.interval)) {
                Ok(()) => {
                    if said_at.take().is_some() {
                        log::info!("heartbeat: it is heard again");
                    }
                }
                Err(why) if said_at.is_none_or(|at| at.elapsed() >= SAID_EVERY) => {
                    log::warn!("heartbeat: {why}; check `url` of [heartbeat] (said at most once an hour)");
                    said_at = Some(Instant::now());
                }
                Err(_) => {}
            }
        }
        if closing.recv_timeout(settings.interval) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

fn ping(url: &str, timeout: Duration) -> Result<(), String> {
    let request = Request {
        method: "GET".to_owned(),
        url: url.to_owned(),
        headers: Vec::new(),
        body: None,
        timeout,
        trust: Trust::Host,
        keep: Keep::Beginning,
    };
    let response = http::send(&request).map_err(|none| none.to_string())?;
    if (200..300).contains(&response.status) { Ok(()) } else { Err(format!("it answers {}", response.status_text())) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn it_beats_while_all_is_well_and_only_then() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/ping", listener.local_addr().unwrap());
        let (heard, told) = channel::unbounded();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut first = [0; 9];
                stream.read_exact(&mut first).unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
                heard.send(String::from_utf8_lossy(&first).into_owned()).unwrap();
            }
        });
        let settings = config::Heartbeat { url, interval: Duration::from_millis(20) };
        let (open, closing) = channel::bounded::<()>(0);
        let well = Arc::new(AtomicBool::new(true));
        let (seen, asked) = (well.clone(), channel::unbounded());
        let beating = std::thread::spawn(move || {
            beat(&settings, &closing, &|| {
                let _ = asked.0.send(());
                seen.load(Ordering::SeqCst)
            });
        });
        let patience = Duration::from_secs(30);
        for _ in 0..2 {
            assert_eq!(told.recv_timeout(patience).unwrap(), "GET /ping");
        }
        well.store(false, Ordering::SeqCst);
        // One may be under way; after two more questions none is.
        (0..2).for_each(|_| asked.1.recv_timeout(patience).unwrap());
        while asked.1.try_recv().is_ok() {}
        while told.try_recv().is_ok() {}
        (0..3).for_each(|_| asked.1.recv_timeout(patience).unwrap());
        assert!(told.is_empty());
        drop(open);
        beating.join().unwrap();
    }
}
