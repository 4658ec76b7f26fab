//! The wait for an answer of the running minflow: says what it waits for when that takes long, and has a last word if it is ended.
//!
//! Knows no command. Nothing is given up here: what a full disk holds up is done when there is room.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::api::client::Client;
use crate::cli::failure::eprint;
use crate::cli::status;
use crate::supervisor::sys::HeldBack;

/// How long an answer may take before the wait is explained. Each look whether the reason is still the same takes twice as long to come.
const PATIENCE: Duration = Duration::from_secs(2);
const LONGEST_PATIENCE: Duration = Duration::from_secs(30);
/// How long each question about the reason may take: Ctrl-C waits for it.
const QUESTION: Duration = Duration::from_millis(500);

const LAST_WORD: &str = "the wait was ended: the running minflow has been asked, and does it when it can, if it has not been done; \
     `minflow status` shows how it is, `minflow audit` what was done\n";

/// Returns when an answer can be read, or there will be none. A signal that asks to end acts when this returns.
pub(super) fn await_answer(home: &Path, socket: BorrowedFd<'_>) {
    // Without descriptors the wait ends without a last word, as it would by SIGKILL.
    let held = HeldBack::requests_to_end().ok();
    let mut patience = PATIENCE;
    let mut said = String::new();
    loop {
        let mut watched = vec![PollFd::from_borrowed_fd(socket, PollFlags::IN)];
        watched.extend(held.as_ref().map(|held| PollFd::from_borrowed_fd(held.as_fd(), PollFlags::IN)));
        let within = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: 0 };
        match poll(&mut watched, Some(&within)) {
            Ok(0) => {
                let notice = notice(home);
                if notice != said {
                    eprint(&notice);
                    said = notice;
                }
                patience = (patience * 2).min(LONGEST_PATIENCE);
            }
            Ok(_) => {
                if watched.get(1).is_some_and(|held| !held.revents().is_empty()) {
                    eprint(LAST_WORD);
                }
                return;
            }
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// What is waited for, as far as it can be known.
fn notice(home: &Path) -> String {
    let pong = Client::connect(home).ok().and_then(|mut client| client.ping_within(QUESTION).ok());
    let Some(pong) = pong else {
        return "waiting for the running minflow, which does not answer (it stands still, or the host is very busy); Ctrl-C ends the wait\n"
            .to_owned();
    };
    let health = pong.http.as_deref().and_then(|address| address.parse().ok());
    let health = health.and_then(|address| status::ask(address, "/health", QUESTION).ok()).unwrap_or_default();
    let reasons = health["reasons"].as_array().map(Vec::as_slice).unwrap_or_default();
    let reasons: Vec<&str> = reasons.iter().filter_map(|reason| reason.as_str()).collect();
    let pid = pong.pid;
    match reasons.is_empty() {
        true => format!("waiting for the running minflow (process {pid}), which is busy; Ctrl-C ends the wait\n"),
        false => format!(
            "waiting for the running minflow (process {pid}), of which /health says: {}; Ctrl-C ends the wait\n",
            reasons.join("; ")
        ),
    }
}
