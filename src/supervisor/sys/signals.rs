//! Signals that are read or held back instead of acting.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use libc::c_int;

/// Blocks SIGCHLD, and gives a descriptor that becomes readable when a child has ended.
///
/// # Errors
/// No descriptors left.
pub fn watch_children() -> io::Result<OwnedFd> {
    // SAFETY: the set is filled before it is read; the descriptor is new, and nobody else owns it.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// How many bytes one signal is, as read from [`watch_requests_to_end`].
pub const SIGNAL_RECORD: usize = size_of::<libc::signalfd_siginfo>();

/// Which signal a record tells of.
pub fn signal_of(record: &[u8; SIGNAL_RECORD]) -> c_int {
    let [a, b, c, d, ..] = *record;
    c_int::from_ne_bytes([a, b, c, d])
}

/// Whether this process was started with SIGHUP ignored, as by `nohup`.
pub fn is_hangup_ignored() -> bool {
    // SAFETY: the kernel fills the structure before it is read, and without a new action nothing is changed.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        libc::sigaction(libc::SIGHUP, ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// A descriptor that becomes readable when SIGTERM, SIGINT or SIGHUP comes; they are blocked in this thread and in those that it
/// starts from now on.
///
/// # Errors
/// No descriptors left.
pub fn watch_requests_to_end() -> io::Result<OwnedFd> {
    watch_signals([libc::SIGTERM, libc::SIGINT, libc::SIGHUP])
}

/// A descriptor that becomes readable when one of `signals` comes, which are blocked in this thread and in those that it starts from
/// now on. A record begins with the signal's number, in four bytes.
///
/// # Errors
/// No descriptors left.
pub fn watch_signals(signals: impl IntoIterator<Item = c_int>) -> io::Result<OwnedFd> {
    // SAFETY: the set is filled before it is read; the descriptor is new, and nobody else owns it.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, signal);
        }
        if libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// SIGINT and SIGTERM, held back in this thread: they come when this is dropped, and its descriptor is readable once there is one.
pub struct HeldBack {
    before: libc::sigset_t,
    pending: OwnedFd,
}

impl HeldBack {
    /// # Errors
    /// No descriptors left.
    pub fn requests_to_end() -> io::Result<Self> {
        // SAFETY: the kernel fills the set of this thread's signals before it is read; without a new one nothing is changed.
        let before = unsafe {
            let mut before: libc::sigset_t = mem::zeroed();
            if libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut before) != 0 {
                return Err(io::Error::last_os_error());
            }
            before
        };
        match watch_signals([libc::SIGINT, libc::SIGTERM]) {
            Ok(pending) => Ok(Self { before, pending }),
            Err(error) => {
                restore(&before);
                Err(error)
            }
        }
    }
}

impl AsFd for HeldBack {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pending.as_fd()
    }
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        restore(&self.before);
    }
}

fn restore(before: &libc::sigset_t) {
    // SAFETY: the set is one that the kernel has given.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, ptr::null_mut()) };
}
