//! The system calls about processes that have no safe wrapper: spawning, awaiting, accounting. All of the crate's `unsafe`.
//!
//! Knows no task and no protocol. Called by the supervisor's process, and for [`kill`] by whoever ends strays.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_short};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

/// What to execute, as the kernel takes it.
pub struct Image<'a> {
    /// The path of the executable; it is not looked up.
    pub path: &'a CStr,
    pub argv: &'a [&'a CStr],
    pub env: &'a [&'a CStr],
    pub cwd: &'a CStr,
    /// Becomes standard output and standard error.
    pub output: BorrowedFd<'a>,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Exited(i32),
    Signaled(i32),
}

/// What `wait4` accounts to a child and to the descendants that it awaited.
#[derive(Clone, Copy, Debug)]
pub struct Accounts {
    pub user_cpu: Duration,
    pub system_cpu: Duration,
    /// Bytes.
    pub max_rss: u64,
    /// Bytes, from blocks of 512.
    pub read_bytes: u64,
    pub write_bytes: u64,
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Self> {
        // SAFETY: the structure is plain memory which `init` fills before anything reads it.
        let mut attributes = Self(unsafe { std::mem::zeroed() });
        // SAFETY: `attributes.0` is valid for writes.
        check(unsafe { libc::posix_spawnattr_init(&mut attributes.0) })?;
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: it was initialised by `new`, and is not used afterwards.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

struct FileActions(libc::posix_spawn_file_actions_t);

impl FileActions {
    fn new() -> io::Result<Self> {
        // SAFETY: the structure is plain memory which `init` fills before anything reads it.
        let mut actions = Self(unsafe { std::mem::zeroed() });
        // SAFETY: `actions.0` is valid for writes.
        check(unsafe { libc::posix_spawn_file_actions_init(&mut actions.0) })?;
        Ok(actions)
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: it was initialised by `new`, and is not used afterwards.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

/// `posix_spawn` and its kin give the error's number instead of setting errno.
fn check(number: c_int) -> io::Result<()> {
    if number == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(number)) }
}

/// Starts a process in a session of its own, with default signal dispositions (Rust ignores SIGPIPE, a task must not), an
/// empty signal mask and `/dev/null` as its input. Gives its pid.
///
/// # Errors
/// Those of fork, of the folder, and of exec: nothing was started.
pub fn spawn(image: &Image<'_>) -> io::Result<i32> {
    let mut actions = FileActions::new()?;
    // SAFETY: `actions.0` is initialised; glibc and musl copy the paths, and the descriptors are only numbers here.
    unsafe {
        let null = c"/dev/null".as_ptr();
        check(libc::posix_spawn_file_actions_addopen(&mut actions.0, 0, null, libc::O_RDONLY, 0))?;
        check(libc::posix_spawn_file_actions_adddup2(&mut actions.0, image.output.as_raw_fd(), 1))?;
        check(libc::posix_spawn_file_actions_adddup2(&mut actions.0, image.output.as_raw_fd(), 2))?;
        check(libc::posix_spawn_file_actions_addchdir_np(&mut actions.0, image.cwd.as_ptr()))?;
    }
    let mut attributes = Attributes::new()?;
    let flags = c_int::from(libc::POSIX_SPAWN_SETSID) | libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK;
    // SAFETY: both sets are filled by their own functions before they are read, and `attributes.0` is initialised.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        check(libc::posix_spawnattr_setsigdefault(&mut attributes.0, &all))?;
        check(libc::posix_spawnattr_setsigmask(&mut attributes.0, &none))?;
        check(libc::posix_spawnattr_setflags(&mut attributes.0, flags as c_short))?;
    }
    let argv = null_ended(image.argv);
    let env = null_ended(image.env);
    let mut pid = 0;
    // SAFETY: all pointers stay valid during the call, both vectors end with a null, and the strings are not written to.
    check(unsafe {
        libc::posix_spawn(&mut pid, image.path.as_ptr(), &actions.0, &attributes.0, argv.as_ptr(), env.as_ptr())
    })?;
    Ok(pid)
}

fn null_ended(texts: &[&CStr]) -> Vec<*mut c_char> {
    texts.iter().map(|text| text.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
}

/// A child that has ended and is not reaped yet, if there is one.
///
/// # Errors
/// There are no children (ECHILD).
pub fn peek_ended() -> io::Result<Option<i32>> {
    // SAFETY: plain memory; zero is what `waitid` leaves in `si_pid` when no child has ended.
    let mut found: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `found` is valid for writes.
    if unsafe { libc::waitid(libc::P_ALL, 0, &mut found, options) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: after a successful `waitid`, `si_pid` is set.
    Ok(Some(unsafe { found.si_pid() }).filter(|&pid| pid != 0))
}

/// Reaps a child that has ended. From now on its number may be another's.
///
/// # Errors
/// It is no child, or has not ended.
pub fn reap(pid: i32) -> io::Result<(Status, Accounts)> {
    let mut status = 0;
    // SAFETY: plain memory which `wait4` fills.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both are valid for writes.
    let got = unsafe { libc::wait4(pid, &mut status, libc::WNOHANG, &mut usage) };
    match got {
        -1 => return Err(io::Error::last_os_error()),
        0 => return Err(io::ErrorKind::WouldBlock.into()),
        _ => {}
    }
    let ended = if libc::WIFSIGNALED(status) {
        Status::Signaled(libc::WTERMSIG(status))
    } else {
        Status::Exited(libc::WEXITSTATUS(status))
    };
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1_000);
    let accounts = Accounts {
        user_cpu: time(usage.ru_utime),
        system_cpu: time(usage.ru_stime),
        max_rss: usage.ru_maxrss as u64 * 1_024,
        read_bytes: usage.ru_inblock as u64 * 512,
        write_bytes: usage.ru_oublock as u64 * 512,
    };
    Ok((ended, accounts))
}

/// Sends a signal to a process, or with a negative number to a process group. Signal 0 only asks whether there is one.
///
/// # Errors
/// There is none, or it is not ours.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    if unsafe { libc::kill(pid, signal) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Blocks SIGCHLD, and gives a descriptor that becomes readable when a child has ended.
///
/// # Errors
/// No descriptors left.
pub fn watch_children() -> io::Result<OwnedFd> {
    // SAFETY: the set is filled before it is read; the descriptor is new, and nobody else owns it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Ignores the signals by which a person or a service manager ends the scheduler: its end is what ends the supervisor.
pub fn ignore_requests_to_end() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGQUIT] {
        // SAFETY: SIG_IGN is a valid disposition for these signals.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Makes a write beyond the limit of file sizes (`ulimit -f`) an error that can be told and outlived; by default it ends the process.
pub fn outlive_file_size_limit() {
    // SAFETY: SIG_IGN is a valid disposition for this signal.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Makes every descriptor from 3 on close itself on exec, whoever left it open.
pub fn close_all_on_exec() {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: sets a flag on descriptors of this process, and closes none.
    if unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, CLOSE_RANGE_CLOEXEC) } == 0 {
        return;
    }
    // Linux 5.10 has close_range without this flag.
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
    for fd in open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<c_int>().ok()) {
        if fd >= 3 {
            // SAFETY: sets a flag; a number that is not open gives an error that harms nobody.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// Takes standard input away from its number, and puts `/dev/null` in its place.
///
/// # Errors
/// Standard input is not open, or no descriptors are left.
pub fn take_stdin() -> io::Result<OwnedFd> {
    // SAFETY: a copy is made, which nobody else owns; number 0 stays open throughout.
    unsafe {
        let fd = libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let taken = OwnedFd::from_raw_fd(fd);
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        if null < 0 || libc::dup2(null, 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::close(null);
        Ok(taken)
    }
}

/// Lets go of the program's pages that only its start needed, and has the kernel forget the peak that they made. A child's
/// peak begins with that of the process that spawned it, so this is what the smallest task seems to need.
pub fn forget_start() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for line in maps.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[range, mode, offset, _, _, path] = &fields[..] else { continue };
        // Code, and the constants in an image's first segment: never written to, relocations included.
        let is_clean = mode == "r-xp" || (mode == "r--p" && offset.bytes().all(|digit| digit == b'0'));
        let Some((from, to)) = range.split_once('-') else { continue };
        if let (true, true, Ok(from), Ok(to)) =
            (is_clean, path.starts_with('/'), usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
        {
            // SAFETY: the range is a clean mapping of a file: the kernel reads it again from there when it is needed.
            unsafe { libc::madvise(ptr::without_provenance_mut(from), to - from, libc::MADV_DONTNEED) };
        }
    }
    // Five resets the peak; a kernel without it shows a larger one, and nothing else.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// How many bytes one signal is, as read from [`watch_requests_to_end`].
pub const SIGNAL_RECORD: usize = size_of::<libc::signalfd_siginfo>();

/// A descriptor that becomes readable when SIGTERM, SIGINT or SIGHUP comes; they are blocked in this thread and in those that it
/// starts from now on.
///
/// # Errors
/// No descriptors left.
pub fn watch_requests_to_end() -> io::Result<OwnedFd> {
    // SAFETY: the set is filled before it is read; the descriptor is new, and nobody else owns it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&mut set, signal);
        }
        if libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Has the kernel keep back each connection until its client has sent something: a silent one costs nobody a thread.
///
/// # Errors
/// The socket is no TCP listener.
pub fn accept_when_spoken_to(listener: &TcpListener) -> io::Result<()> {
    let patience: c_int = 600;
    // SAFETY: the option takes one int, which lives through the call.
    let done = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const patience).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
