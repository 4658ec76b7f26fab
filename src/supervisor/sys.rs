//! The system calls about processes that have no safe wrapper: starting, awaiting, accounting. All of the crate's `unsafe`, with
//! what lies in `sys/`.
//!
//! Knows no task and no protocol. Called by the supervisor's process, and for [`kill`] by whoever ends strays.

#![allow(unsafe_code)]

mod clone;
mod reaper;
mod settings;
mod signals;
mod user;

pub use reaper::Reaper;
pub use settings::{Ids, Settings, Step};
pub use signals::{
    HeldBack, SIGNAL_RECORD, is_hangup_ignored, signal_of, watch_children, watch_requests_to_end, watch_signals,
};
pub use user::{Account, find_user};

use std::cell::UnsafeCell;
use std::ffi::{CStr, CString, OsString, c_char, c_int, c_long, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::model::Usage;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Exited(i32),
    Signaled(i32),
}

/// What to execute. It must be all that the new process needs, since that shares this one's memory until its exec.
pub struct Image {
    /// The executable's path first; it is not looked up.
    pub argv: Vec<CString>,
    /// Of these entries those whose place is not in `hidden` are passed on.
    pub inherited: Arc<[CString]>,
    /// Ascending.
    pub hidden: Vec<usize>,
    pub added: Vec<CString>,
    pub cwd: CString,
    /// Its place is taken over as standard input; None: this process's own. It may be closed once `begin` is over.
    pub input: Option<RawFd>,
    /// Its place is taken over as standard output and standard error.
    pub output: RawFd,
    /// What the process does to itself first.
    pub settings: Option<Box<Settings>>,
    /// The folder of the cgroup in which it begins; it may be closed once `begin` is over.
    pub group: Option<RawFd>,
    /// Whether it gets a subreaper of its own.
    pub has_reaper: bool,
}

impl Image {
    /// The whole environment.
    pub fn env(&self) -> impl Iterator<Item = &CStr> {
        let kept = self.inherited.iter().enumerate().filter(|(at, _)| self.hidden.binary_search(at).is_err());
        kept.map(|(_, entry)| entry).chain(&self.added).map(CString::as_c_str)
    }
}

/// What the new process reads and writes between its clone and its exec.
struct Shared {
    image: Image,
    /// The number of the new process, if its subreaper makes it; 0 before.
    leader: AtomicI32,
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    /// Not zero until the kernel says that the new process has left this memory, by its exec or its end.
    is_inside: AtomicI32,
    /// Why there was no exec; zero if there was one, or none yet.
    error: AtomicI32,
    /// At which [`Step`] that was.
    step: AtomicI32,
    /// The steps that were refused and passed over, as bits.
    refused: AtomicU32,
    /// Where it writes itself into its cgroup, if it was not cloned there; negative: nowhere.
    join: AtomicI32,
    stack: Box<[MaybeUninit<UnsafeCell<u128>>]>,
}

/// A process from its clone on. It executes its program beside this one, which goes on meanwhile: an exec can take long when
/// the processors are busy.
pub struct Launch {
    pid: i32,
    shared: NonNull<Shared>,
    /// Open for as long as the new process may write to it.
    _join: Option<OwnedFd>,
    reaper: Option<Reaper>,
}

impl Launch {
    /// Starts a process in a session of its own, with default signal dispositions (Rust ignores SIGPIPE, a task must not), an
    /// empty signal mask and this process's standard input unless it is given one.
    ///
    /// # Errors
    /// Those of clone: nothing was started. Those of the folder and of exec come with [`Launch::outcome`].
    pub fn begin(image: Image) -> io::Result<Self> {
        let argv = null_ended(image.argv.iter().map(CString::as_c_str));
        let env = null_ended(image.env());
        // Asked for here, since the new process must not.
        ignored_signals();
        let stack = Box::new_uninit_slice(STACK_BYTES / size_of::<u128>());
        let (is_inside, error) = (AtomicI32::new(1), AtomicI32::new(0));
        let (step, refused, join) = (AtomicI32::new(0), AtomicU32::new(0), AtomicI32::new(-1));
        let (leader, group, has_reaper) = (AtomicI32::new(0), image.group, image.has_reaper);
        let shared =
            Box::leak(Box::new(Shared { image, leader, argv, env, is_inside, error, step, refused, join, stack }));
        let stack = shared.stack.as_mut_ptr_range();
        let (bottom, top) = (stack.start.cast::<c_void>(), stack.end.cast::<c_void>());
        let mut launch = Self { pid: 0, shared: NonNull::from(shared), _join: None, reaper: None };
        let argument = launch.shared.as_ptr().cast::<c_void>();
        let told = launch.shared().is_inside.as_ptr();
        if let Some(group) = group {
            let cloned = clone::Cloned { enter, argument, stack: bottom, stack_bytes: STACK_BYTES, told, group };
            // SAFETY: as below.
            match unsafe { clone::into_group(&cloned) } {
                Ok(pid) => {
                    launch.pid = pid;
                    return Ok(launch);
                }
                Err(error) if is_lack(&error) => {
                    launch.shared().is_inside.store(0, Ordering::Release);
                    return Err(error);
                }
                // The kernel is older, or the folder is a test's: the process goes there by itself.
                Err(_) => launch.join(group)?,
            }
        }
        // Where the new process would have to be awaited, so would its subreaper be, for as long as it lives.
        if has_reaper && WAITS == 0 {
            let reaper = Reaper::begin(launch.shared, top);
            launch.reaper = Some(reaper.inspect_err(|_| launch.shared().is_inside.store(0, Ordering::Release))?);
            return Ok(launch);
        }
        let null = ptr::null_mut::<c_void>();
        let flags = libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD | WAITS;
        // SAFETY: the stack is aligned and large enough for `enter`, which makes system calls only. What `argument` points to
        // stays in its place, and is freed only after the kernel has cleared `is_inside`.
        launch.pid = unsafe { libc::clone(enter, top, flags, argument, null, null, told) };
        if launch.pid < 0 {
            let error = io::Error::last_os_error();
            launch.shared().is_inside.store(0, Ordering::Release);
            return Err(error);
        }
        Ok(launch)
    }

    /// Has the new process write itself into a cgroup.
    fn join(&mut self, group: RawFd) -> io::Result<()> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_CLOEXEC;
        // SAFETY: the path ends with a zero; the descriptor is new, and nobody else owns it.
        let opened = unsafe { libc::openat(group, c"cgroup.procs".as_ptr(), flags, 0o600) };
        if opened < 0 {
            let error = io::Error::last_os_error();
            self.shared().is_inside.store(0, Ordering::Release);
            return Err(error);
        }
        self.shared().join.store(opened, Ordering::Relaxed);
        // SAFETY: as above.
        self._join = Some(unsafe { OwnedFd::from_raw_fd(opened) });
        Ok(())
    }

    /// Where it has stopped, if it has.
    pub fn step(&self) -> Step {
        let number = self.shared().step.load(Ordering::Acquire);
        Step::ALL.into_iter().find(|&step| step as i32 == number).unwrap_or(Step::Other)
    }

    /// The settings that were refused and passed over; known with its outcome.
    pub fn refused(&self) -> impl Iterator<Item = Step> + use<> {
        let bits = self.shared().refused.load(Ordering::Acquire);
        Step::ALL.into_iter().filter(move |step| bits & step.bit() != 0)
    }

    fn shared(&self) -> &Shared {
        // SAFETY: it is freed by `drop` alone, and nobody holds it exclusively.
        unsafe { self.shared.as_ref() }
    }

    /// 0: its subreaper has not made it yet, or cannot.
    pub fn pid(&self) -> i32 {
        if self.pid == 0 { self.shared().leader.load(Ordering::Acquire) } else { self.pid }
    }

    /// Its subreaper, if it has one. To be kept until that is reaped.
    pub fn take_reaper(&mut self) -> Option<Reaper> {
        self.reaper.take()
    }

    pub fn image(&self) -> &Image {
        &self.shared().image
    }

    /// None before its exec, unless it has failed.
    pub fn outcome(&self) -> Option<io::Result<()>> {
        let is_inside = self.shared().is_inside.load(Ordering::Acquire) != 0;
        match self.shared().error.load(Ordering::Acquire) {
            0 if is_inside => None,
            0 => Some(Ok(())),
            number => Some(Err(io::Error::from_raw_os_error(number))),
        }
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        if self.shared().is_inside.load(Ordering::Acquire) == 0 {
            // SAFETY: it comes from a box, the new process has left this memory, and nobody uses it afterwards. Otherwise it is
            // never freed.
            drop(unsafe { Box::from_raw(self.shared.as_ptr()) });
        }
    }
}

/// [`enter`] needs a few hundred bytes.
const STACK_BYTES: usize = 16 << 10;

/// The new process begins here. It has the memory and the thread's variables of the old one, which runs on: so it allocates
/// nothing, and makes its system calls without libc, which would write to the old one's `errno`.
extern "C" fn enter(argument: *mut c_void) -> c_int {
    // SAFETY: `Launch::begin` passes a `Shared` that outlives the stay in this memory.
    let shared = unsafe { &*argument.cast::<Shared>() };
    let (step, error) = execute(shared);
    shared.step.store(step as i32, Ordering::Release);
    shared.error.store(error, Ordering::Release);
    127
}

/// Whether the host lacks something just now.
fn is_lack(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM))
}

/// Gives the step that prevented the exec, and the number of its error.
fn execute(shared: &Shared) -> (Step, c_int) {
    let default = [0_u64; 4];
    let none = 0_u64;
    let address = |at: *const u64| at.expose_provenance();
    let text = |at: *const c_char| at.expose_provenance();
    let set_bytes = size_of::<u64>();
    let output = shared.image.output as usize;
    let take_input = || match shared.image.input {
        Some(input) => call(libc::SYS_dup3, [input as usize, 0, 0, 0]),
        None => Ok(()),
    };
    let reset =
        |signal: c_int| call(libc::SYS_rt_sigaction, [signal as usize, address(default.as_ptr()), 0, set_bytes]);
    let join = || match shared.join.load(Ordering::Relaxed) {
        procs @ 0.. => {
            call(libc::SYS_write, [procs as usize, text(c"0".as_ptr()), 1, 0]).map_err(|error| (Step::Group, error))
        }
        _ => Ok(()),
    };
    let settings = shared.image.settings.as_deref();
    let opened = call(libc::SYS_setsid, [0; 4])
        .and_then(|()| take_input())
        .and_then(|()| call(libc::SYS_dup3, [output, 1, 0, 0]))
        .and_then(|()| call(libc::SYS_dup3, [output, 2, 0, 0]))
        .and_then(|()| ignored_signals().iter().try_for_each(|&signal| reset(signal)))
        .and_then(|()| {
            call(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, address(&raw const none), 0, set_bytes])
        })
        .map_err(|error| (Step::Other, error));
    let prepared = opened
        .and_then(|()| join())
        .and_then(|()| settings.map_or(Ok(()), |settings| settings.apply(&shared.refused)))
        .and_then(|()| settings.map_or(Ok(()), Settings::become_user))
        .and_then(|()| {
            let entered = call(libc::SYS_chdir, [text(shared.image.cwd.as_ptr()), 0, 0, 0]);
            entered.map_err(|error| (Step::Folder, error))
        });
    let pointers = |list: &[*const c_char]| list.as_ptr().expose_provenance();
    let executed = prepared.and_then(|()| {
        let image = [text(shared.argv[0]), pointers(&shared.argv), pointers(&shared.env), 0];
        call(libc::SYS_execve, image).map_err(|error| (Step::Program, error))
    });
    executed.err().unwrap_or((Step::Program, libc::ENOEXEC))
}

/// Without a way around libc's `errno` the old process waits until the new one is gone from its memory.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const WAITS: c_int = 0;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const WAITS: c_int = libc::CLONE_VFORK;

/// One system call of the new process; the error is its number.
fn call(number: c_long, arguments: [usize; 4]) -> Result<(), c_int> {
    let [a, b, c, d] = arguments;
    ask(number, [a, b, c, d, 0]).map(drop)
}

/// As [`call`]; gives what the call gives.
fn ask(number: c_long, arguments: [usize; 5]) -> Result<usize, c_int> {
    let [a, b, c, d, e] = arguments;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: what the arguments of those who call this point to may be read, and where a call writes, written.
    let result = unsafe {
        let result: isize;
        std::arch::asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, in("r8") e, lateout("rcx") _, lateout("r11") _, options(nostack));
        result
    };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    let result = unsafe {
        let result: isize;
        std::arch::asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c,
            in("x3") d, in("x4") e, options(nostack));
        result
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    // SAFETY: as above.
    let result = unsafe {
        match libc::syscall(number, a, b, c, d, e) {
            -1 => -(*libc::__errno_location() as isize),
            result => result as isize,
        }
    };
    if result < 0 { Err(-result as c_int) } else { Ok(result as usize) }
}

/// The signals that this process ignores, and a program that it executes would: those with a handler fall back to their default.
fn ignored_signals() -> &'static [c_int] {
    static IGNORED: OnceLock<Vec<c_int>> = OnceLock::new();
    let is_ignored = |&signal: &c_int| {
        // SAFETY: plain memory which `sigaction` fills; nothing is set.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: `action` is valid for writes.
        let known = unsafe { libc::sigaction(signal, ptr::null(), &mut action) } == 0;
        known && action.sa_sigaction == libc::SIG_IGN
    };
    IGNORED.get_or_init(|| (1..=libc::SIGRTMAX()).filter(is_ignored).collect())
}

fn null_ended<'a>(texts: impl Iterator<Item = &'a CStr>) -> Vec<*const c_char> {
    texts.map(CStr::as_ptr).chain([ptr::null()]).collect()
}

/// The processors that this process may use, in ascending order.
pub fn processors() -> Vec<usize> {
    // SAFETY: plain memory which the kernel fills; a host with more processors than it holds gives an error.
    let mut mask: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `mask` is valid for as many writes as are named.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut mask) } < 0 {
        return Vec::new();
    }
    // SAFETY: the number is below that of the bits.
    (0..libc::CPU_SETSIZE as usize).filter(|&processor| unsafe { libc::CPU_ISSET(processor, &mask) }).collect()
}

/// In bytes.
pub fn page_size() -> u64 {
    // SAFETY: takes a number and gives one.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// How many ticks of `/proc/PID/stat` a second has.
pub fn ticks_per_second() -> u64 {
    // SAFETY: takes a number and gives one.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100)
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

/// Reaps a child that has ended. From now on its number may be another's. What it used includes the descendants that it
/// awaited; the kernel counts block I/O in whole blocks of 512 bytes, which is what devices are read and written in.
///
/// # Errors
/// It is no child, or has not ended.
pub fn reap(pid: i32) -> io::Result<(Status, Usage)> {
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
    let used = Usage {
        user_cpu: time(usage.ru_utime),
        system_cpu: time(usage.ru_stime),
        max_rss: usage.ru_maxrss as u64 * 1_024,
        read_bytes: usage.ru_inblock as u64 * 512,
        write_bytes: usage.ru_oublock as u64 * 512,
        voluntary_switches: usage.ru_nvcsw as u64,
        involuntary_switches: usage.ru_nivcsw as u64,
    };
    Ok((ended, used))
}

/// Sends a signal to a process, or with a negative number to a process group. Signal 0 only asks whether there is one.
///
/// # Errors
/// There is none, or it is not ours.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    if unsafe { libc::kill(pid, signal) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has all threads share two heaps, which give back to the kernel what they no longer need. By default each thread may get one
/// of its own, and keeps in it what the busiest moment took. To be called before there are threads.
pub fn keep_heaps_small() {
    #[cfg(target_env = "gnu")]
    {
        const ENOUGH: c_int = 128 << 10;
        // SAFETY: sets numbers of the allocator; nobody else allocates meanwhile.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 2);
            // Set, they no longer grow by themselves.
            libc::mallopt(libc::M_TRIM_THRESHOLD, ENOUGH);
            libc::mallopt(libc::M_MMAP_THRESHOLD, ENOUGH);
        }
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

/// Puts `/dev/null` in the place of standard error.
pub fn silence() {
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        // SAFETY: both descriptors are open, and nobody holds the second one as a value of its own.
        unsafe { libc::dup2(null.as_raw_fd(), libc::STDERR_FILENO) };
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
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
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
            cut(from, to);
        }
    }
    // Five resets the peak; a kernel without it shows a larger one, and nothing else.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// With each page of a file that is touched, the kernel maps its neighbours, up to 64 KiB but within one mapping: of code that is
/// used a little everywhere, nearly all. Pieces that differ in a flag which does nothing else here are mappings of their own.
fn cut(from: usize, to: usize) {
    const PIECE: usize = 8 << 10;
    for piece in (from..to).step_by(2 * PIECE) {
        let length = PIECE.min(to - piece);
        // SAFETY: says of a mapped range that a core dump may leave it out, which it does with a file's pages at any rate.
        if unsafe { libc::madvise(ptr::without_provenance_mut(piece), length, libc::MADV_DONTDUMP) } != 0 {
            return;
        }
    }
}

/// The value of a variable of this process's environment, which it then has no longer. To be called before there are threads.
pub fn take_variable(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    // SAFETY: there is no other thread that could read the environment meanwhile.
    unsafe { std::env::remove_var(name) };
    Some(value)
}

/// Has the kernel end what `command` starts, by SIGKILL, when the thread that starts it ends, and gives it an empty signal mask.
pub fn end_with_this_thread(command: &mut Command) {
    let own = std::process::id() as i32;
    let prepare = move || {
        // SAFETY: all three may be called between fork and exec; the set is filled before it is read.
        unsafe {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0
                || libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut()) < 0
            {
                return Err(io::Error::last_os_error());
            }
            // It may have ended before it was asked about.
            if libc::getppid() == own { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
        }
    };
    // SAFETY: what it calls allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) };
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

/// What a test holds of memory.
#[cfg(test)]
pub mod counted {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    thread_local! {
        static LIVE: Cell<isize> = const { Cell::new(0) };
    }

    /// The bytes that this thread has taken and not given back, as the C library's allocator counts them: with its own eight for each
    /// piece, rounded up to sixteen, and at least 32.
    pub fn live() -> isize {
        LIVE.get()
    }

    struct Counted;

    fn count(sign: isize, size: usize) {
        let chunk = (size + 8).next_multiple_of(16).max(32);
        // A thread that ends gives back what it had after its counter is gone.
        let _ = LIVE.try_with(|live| live.set(live.get() + sign * chunk as isize));
    }

    // SAFETY: all is passed on to the system's allocator as it came.
    unsafe impl GlobalAlloc for Counted {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            count(1, layout.size());
            // SAFETY: as the caller promises.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            count(-1, layout.size());
            // SAFETY: as the caller promises.
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Counted = Counted;
}
