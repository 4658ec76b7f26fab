//! `clone3`, which libc does not offer: a process that is in its cgroup from its first instant on.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::RawFd;

/// Linux 5.7 and newer.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What the new process is to be, and where it begins.
pub(super) struct Cloned {
    pub enter: extern "C" fn(*mut c_void) -> c_int,
    pub argument: *mut c_void,
    /// The lowest address of its stack.
    pub stack: *mut c_void,
    pub stack_bytes: usize,
    /// Cleared when it has left this memory.
    pub told: *mut c_int,
    /// The folder of its cgroup.
    pub group: RawFd,
}

/// As `clone` with CLONE_VM, CLONE_CHILD_CLEARTID and SIGCHLD, into a cgroup. Gives the number of the new process.
///
/// # Errors
/// Those of clone3; ENOSYS also where this program does not know how to call it.
///
/// # Safety
/// All that it points to must stay in its place until `told` is cleared, and the stack must be large enough for `enter`, which may make
/// system calls only.
pub(super) unsafe fn into_group(cloned: &Cloned) -> io::Result<i32> {
    // SAFETY: plain memory; zero is none of each.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = libc::CLONE_VM as u64 | libc::CLONE_CHILD_CLEARTID as u64 | CLONE_INTO_CGROUP;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.child_tid = cloned.told.expose_provenance() as u64;
    arguments.stack = cloned.stack.expose_provenance() as u64;
    arguments.stack_size = cloned.stack_bytes as u64;
    arguments.cgroup = cloned.group as u64;
    // SAFETY: as the caller promises.
    let result = unsafe { clone3(&arguments, cloned) };
    if result < 0 { Err(io::Error::from_raw_os_error(-result as i32)) } else { Ok(result as i32) }
}

#[cfg(target_arch = "x86_64")]
unsafe fn clone3(arguments: &libc::clone_args, cloned: &Cloned) -> isize {
    let result: isize;
    // SAFETY: the old process goes on behind the label with all registers as they were but those that are named; the new one is on a stack
    // of its own, calls `enter`, and ends.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r8",
            "call r9",
            "mov edi, eax",
            "mov eax, 60",
            "syscall",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") std::ptr::from_ref(arguments), in("rsi") size_of::<libc::clone_args>(),
            in("r8") cloned.argument, in("r9") cloned.enter, lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn clone3(arguments: &libc::clone_args, cloned: &Cloned) -> isize {
    let result: isize;
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x9",
            "blr x10",
            "mov x8, #93",
            "svc 0",
            "brk #1",
            "2:",
            inlateout("x0") std::ptr::from_ref(arguments) => result, in("x1") size_of::<libc::clone_args>(),
            in("x8") libc::SYS_clone3, in("x9") cloned.argument, in("x10") cloned.enter, lateout("x30") _,
        );
    }
    result
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone3(_arguments: &libc::clone_args, _cloned: &Cloned) -> isize {
    -(libc::ENOSYS as isize)
}
