//! One minflow to a home: the lock that says whose it is.
//!
//! Its file may be removed by somebody who takes it for a leftover; then the socket shows that the home is taken.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam::channel::bounded;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;

use crate::api::protocol::SOCKET;
use crate::home_socket::SocketPath;
use crate::lack::Lack;
use crate::supervisor::procfs;

const LOCK: &str = "minflow.lock";

/// How long a process that is just about to be gone may still seem to listen.
const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// How long the lock of a minflow that was killed may take to be free.
const GOING: Duration = Duration::from_secs(2);

/// Held for as long as it lives; the kernel takes it back when the process ends, however it ends.
#[derive(Debug)]
pub struct HomeLock(#[allow(dead_code, reason = "holding the open file is holding the lock")] File);

/// Why a home could not be locked.
#[derive(Debug)]
pub enum LockError {
    Held { home: PathBuf, pid: String },
    Io { path: PathBuf, cause: io::Error },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { home, pid } => write!(
                f,
                "another minflow (pid {pid}) runs on `{}`\nhelp: `minflow status` shows it; stop it, or give this one another `--home`",
                home.display()
            ),
            Self::Io { path, cause } => {
                let help = Lack::of(cause)
                    .map_or("the home must exist and be writable, on a file system that knows locks", Lack::remedy);
                write!(f, "failed to lock `{}`: {cause}\nhelp: {help}", path.display())
            }
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Held { .. } => None,
            Self::Io { cause, .. } => Some(cause),
        }
    }
}

impl HomeLock {
    /// Takes the lock and writes this process's pid into it.
    ///
    /// # Errors
    /// Another process holds it, or the home does not let itself be locked.
    pub fn take(home: &Path) -> Result<Self, LockError> {
        Self::take_within(home, GOING)
    }

    fn take_within(home: &Path, patience: Duration) -> Result<Self, LockError> {
        let path = home.join(LOCK);
        let failed = |cause| LockError::Io { path: path.clone(), cause };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if may_let_go(&mut file) && is_let_go(&file, patience) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = holder(&mut file);
                let pid = if pid.is_empty() { "unknown".to_owned() } else { pid };
                return Err(LockError::Held { home: home.to_owned(), pid });
            }
            Err(TryLockError::Error(cause)) => return Err(failed(cause)),
        }
        if let Some(pid) = listener(home) {
            return Err(LockError::Held { home: home.to_owned(), pid });
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed)?;
        Ok(Self(file))
    }
}

/// Who has written into the lock's file.
fn holder(file: &mut File) -> String {
    let mut pid = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut pid));
    pid.trim().to_owned()
}

/// Whether the lock is held by who is about to be gone: a minflow that was killed, or what it had forked and what has not executed
/// its program yet. Who has no number yet is only beginning.
fn may_let_go(file: &mut File) -> bool {
    holder(file).parse().map_or(true, procfs::is_going)
}

/// Waits for the lock; false: it was not let go in time. The kernel's wait has no end of its own, so it is another thread's, which ends with
/// the process that is refused.
fn is_let_go(file: &File, patience: Duration) -> bool {
    let Ok(same) = file.try_clone() else { return false };
    let (sender, taken) = bounded(1);
    let wait = move || {
        let _ = sender.send(same.lock().is_ok());
    };
    let waiting = std::thread::Builder::new().name("lock".to_owned()).spawn(wait);
    waiting.is_ok() && taken.recv_timeout(patience).unwrap_or(false)
}

/// The pid of the minflow that listens in the home, which has lost its lock.
fn listener(home: &Path) -> Option<String> {
    let stream = UnixStream::connect(SocketPath::new(home, SOCKET).ok()?.path).ok()?;
    // Who lives waits for what is asked.
    let is_gone = poll(&mut [PollFd::new(&stream, PollFlags::IN)], Some(&MOMENT)).is_ok_and(|count| count > 0);
    let peer = socket_peercred(&stream).ok().filter(|_| !is_gone)?;
    Some(peer.pid.as_raw_nonzero().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home_socket;

    #[test]
    fn a_second_taker_is_told_who_holds_the_lock_until_it_is_dropped() {
        let home = tempfile::tempdir().unwrap();
        let held = HomeLock::take(home.path()).unwrap();
        let refused = HomeLock::take(home.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
        drop(held);
        HomeLock::take(home.path()).unwrap();
    }

    #[test]
    fn who_lives_is_not_waited_for_and_what_a_dead_one_has_left_is() {
        const LONG: Duration = Duration::from_secs(3_600);
        let home = tempfile::tempdir().unwrap();
        let held = HomeLock::take(home.path()).unwrap();
        assert!(matches!(HomeLock::take_within(home.path(), LONG), Err(LockError::Held { .. })));
        // As what a killed minflow had forked holds it.
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let path = home.path().join(LOCK);
        std::fs::write(&path, format!("{}\n", dead.id())).unwrap();
        assert!(matches!(HomeLock::take_within(home.path(), Duration::ZERO), Err(LockError::Held { .. })));
        let own = home.path().to_owned();
        let waiting = std::thread::spawn(move || HomeLock::take_within(&own, LONG).map(drop));
        let inode = format!(":{} ", std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap()));
        let is_waited_for = |line: &str| line.contains("-> ") && line.contains(&inode);
        while !std::fs::read_to_string("/proc/locks").unwrap().lines().any(is_waited_for) {
            assert!(!waiting.is_finished(), "{:?}", waiting.join());
            std::thread::yield_now();
        }
        drop(held);
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn who_listens_in_the_home_holds_it_also_without_the_file_of_its_lock() {
        let home = tempfile::tempdir().unwrap();
        let held = HomeLock::take(home.path()).unwrap();
        let listening = home_socket::listen(home.path(), SOCKET).unwrap();
        std::fs::remove_file(home.path().join(LOCK)).unwrap();
        let refused = HomeLock::take(home.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
        // A socket that a killed process has left.
        drop((held, listening));
        HomeLock::take(home.path()).unwrap();
    }
}
