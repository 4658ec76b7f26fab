//! A subreaper of a task's own: a process whose child the task's leader is, and to which all comes that loses its parents below it.
//!
//! It shares the supervisor's memory for as long as it lives, so that it costs a stack and no copy; it makes system calls only. When the
//! leader has ended, it ends what is left below it, and then itself: the leader, not reaped, comes to the supervisor, which sees its end,
//! its usage and its number as those of any other.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicI32, Ordering};

use super::{STACK_BYTES, Shared, ask, enter};

/// What it ends with if something is left that it cannot end.
pub const GAVE_UP: i32 = 2;

/// How often it looks whether what was sent SIGKILL has ended, a millisecond apart after the first looks.
const MOST_LOOKS: u32 = 2_000;
const QUICK_LOOKS: u32 = 50;

/// What it reads while it lives.
struct Watch {
    shared: *mut Shared,
    /// The end of the leader's stack.
    leader_stack: *mut c_void,
    /// Not zero: what the leader leaves is not ended yet.
    spares: AtomicI32,
    /// Not zero until the kernel says that it has ended.
    is_inside: AtomicI32,
    stack: Box<[MaybeUninit<UnsafeCell<u128>>]>,
}

/// The supervisor's hold on one.
pub struct Reaper {
    pid: i32,
    watch: NonNull<Watch>,
}

impl Reaper {
    /// # Errors
    /// Those of clone.
    pub(super) fn begin(shared: NonNull<Shared>, leader_stack: *mut c_void) -> io::Result<Self> {
        let stack = Box::new_uninit_slice(STACK_BYTES / size_of::<u128>());
        let (spares, is_inside) = (AtomicI32::new(0), AtomicI32::new(1));
        let watch = Box::leak(Box::new(Watch { shared: shared.as_ptr(), leader_stack, spares, is_inside, stack }));
        let top = watch.stack.as_mut_ptr_range().end.cast::<c_void>();
        let told = watch.is_inside.as_ptr();
        let mut reaper = Self { pid: 0, watch: NonNull::from(watch) };
        let null = ptr::null_mut::<c_void>();
        let flags = libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD;
        let argument = reaper.watch.as_ptr().cast::<c_void>();
        // SAFETY: the stack is aligned and large enough for `keep`, which makes system calls only. What `argument` points to stays in its
        // place, and is freed only after the kernel has cleared `is_inside`.
        reaper.pid = unsafe { libc::clone(keep, top, flags, argument, null, null, told) };
        if reaper.pid < 0 {
            let error = io::Error::last_os_error();
            reaper.watch().is_inside.store(0, Ordering::Release);
            return Err(error);
        }
        Ok(reaper)
    }

    fn watch(&self) -> &Watch {
        // SAFETY: it is freed by `drop` alone, and nobody holds it exclusively.
        unsafe { self.watch.as_ref() }
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether what the leader leaves may end by itself.
    pub fn set_spares(&self, spares: bool) {
        self.watch().spares.store(i32::from(spares), Ordering::Release);
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        if self.watch().is_inside.load(Ordering::Acquire) == 0 {
            // SAFETY: it comes from a box, the process has ended, and nobody uses it afterwards. Otherwise it is never freed.
            drop(unsafe { Box::from_raw(self.watch.as_ptr()) });
        }
    }
}

/// The process begins here, and ends with what this gives.
extern "C" fn keep(argument: *mut c_void) -> c_int {
    // SAFETY: `Reaper::begin` passes a `Watch` that outlives this process.
    let watch = unsafe { &*argument.cast::<Watch>() };
    let _ = ask(libc::SYS_prctl, [libc::PR_SET_CHILD_SUBREAPER as usize, 1, 0, 0, 0]);
    let name = c"minflow-strict".as_ptr().expose_provenance();
    let _ = ask(libc::SYS_prctl, [libc::PR_SET_NAME as usize, name, 0, 0, 0]);
    // SAFETY: the leader has not begun, so that `Shared` is still there.
    let shared = unsafe { &*watch.shared };
    let null = ptr::null_mut::<c_void>();
    // The kernel writes its number before it begins: from then on what is shared with it may be freed.
    let flags = libc::CLONE_VM | libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD;
    let (number, told) = (shared.leader.as_ptr(), shared.is_inside.as_ptr());
    // SAFETY: as in `Launch::begin`. Should it fail, it writes to the `errno` of the old process.
    let leader = unsafe { libc::clone(enter, watch.leader_stack, flags, watch.shared.cast(), number, null, told) };
    if leader < 0 {
        shared.error.store(libc::EAGAIN, Ordering::Release);
        shared.is_inside.store(0, Ordering::Release);
        return 1;
    }
    // The supervisor's socket and locks are not kept open by it.
    let _ = ask(libc::SYS_close_range, [0, u32::MAX as usize, 0, 0, 0]);
    await_end(leader as usize);
    end_others(leader as usize, &watch.spares)
}

/// Reaps whatever ends until the leader has, which stays as it is.
fn await_end(leader: usize) {
    const NOHANG: usize = libc::WNOHANG as usize;
    loop {
        // As the kernel fills it: the number of the process lies behind four others of its size.
        let mut found = [0_i32; 32];
        let how = (libc::WEXITED | libc::WNOWAIT) as usize;
        let place = found.as_mut_ptr().expose_provenance();
        match ask(libc::SYS_waitid, [libc::P_ALL as usize, 0, place, how, 0]) {
            Err(libc::EINTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        // SAFETY: it is a place on this stack, to which the kernel has written.
        let pid = unsafe { ptr::read_volatile(found.as_ptr().add(4)) } as usize;
        if pid == leader {
            return;
        }
        let _ = ask(libc::SYS_wait4, [pid, 0, NOHANG, 0, 0]);
    }
}

/// Ends all children but the leader, and those that come to it by that.
fn end_others(leader: usize, spares: &AtomicI32) -> c_int {
    let mut looks = 0;
    loop {
        let is_spared = spares.load(Ordering::Acquire) != 0;
        match end_seen(leader, is_spared) {
            Some(0) => return 0,
            None => return GAVE_UP,
            Some(_) if !is_spared && looks > MOST_LOOKS => return GAVE_UP,
            Some(_) => {}
        }
        if !is_spared {
            looks += 1;
        }
        if looks < QUICK_LOOKS && !is_spared {
            let _ = ask(libc::SYS_sched_yield, [0; 5]);
        } else {
            let pause = [0_i64, if is_spared { 10_000_000 } else { 1_000_000 }];
            let _ = ask(libc::SYS_nanosleep, [pause.as_ptr().expose_provenance(), 0, 0, 0, 0]);
        }
    }
}

/// One look at the children: how many there are beside the leader. None: the kernel does not tell.
fn end_seen(leader: usize, is_spared: bool) -> Option<u32> {
    let path = c"/proc/thread-self/children".as_ptr().expose_provenance();
    let list = ask(libc::SYS_openat, [libc::AT_FDCWD as usize, path, libc::O_RDONLY as usize, 0, 0]).ok()?;
    let mut bytes = [0_u8; 1024];
    let read = ask(libc::SYS_read, [list, bytes.as_mut_ptr().expose_provenance(), bytes.len(), 0, 0]);
    let _ = ask(libc::SYS_close, [list, 0, 0, 0, 0]);
    let (mut others, mut pid) = (0, 0_usize);
    for at in 0..read.ok()?.min(bytes.len()) {
        // SAFETY: it is a place on this stack, to which the kernel has written.
        let byte = unsafe { ptr::read_volatile(bytes.as_ptr().add(at)) };
        if byte.is_ascii_digit() {
            pid = pid * 10 + usize::from(byte - b'0');
            continue;
        }
        if pid != 0 && pid != leader {
            others += 1;
            if !is_spared {
                let _ = ask(libc::SYS_kill, [pid, libc::SIGKILL as usize, 0, 0, 0]);
            }
            let _ = ask(libc::SYS_wait4, [pid, 0, libc::WNOHANG as usize, 0, 0]);
        }
        pid = 0;
    }
    Some(others)
}
