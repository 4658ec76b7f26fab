//! What a new process does to itself between its clone and its exec: limits, priorities, the user as whom it runs.
//!
//! All of it is prepared by the old process; the new one makes system calls only.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, Ordering};

use super::call;

/// What is set. Empty: nothing of that kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `RLIMIT_…`, and its soft and hard value.
    pub rlimits: Vec<(u32, [u64; 2])>,
    pub nice: Option<i32>,
    /// As `ioprio_set` takes it.
    pub ionice: Option<u32>,
    /// A bit for each processor that it may use.
    pub processors: Option<Vec<u64>>,
    pub umask: Option<u32>,
    pub user: Option<Ids>,
    /// Whether one that is refused ends the process, but for the user, which always does.
    pub is_strict: bool,
}

/// Whom a process becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// Where a new process has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Step {
    /// Whatever is not below.
    Other,
    Group,
    Rlimit,
    Nice,
    Ionice,
    Processors,
    User,
    Folder,
    Program,
}

impl Step {
    pub const ALL: [Self; 9] = [
        Self::Other,
        Self::Group,
        Self::Rlimit,
        Self::Nice,
        Self::Ionice,
        Self::Processors,
        Self::User,
        Self::Folder,
        Self::Program,
    ];

    pub(super) const fn bit(self) -> u32 {
        1 << self as i32
    }
}

/// `PRIO_PROCESS` and `IOPRIO_WHO_PROCESS`.
const PROCESS: [usize; 2] = [0, 1];

impl Settings {
    /// Carried out by the new process. What is refused and does not matter is marked in `refused`.
    pub(super) fn apply(&self, refused: &AtomicU32) -> Result<(), (Step, c_int)> {
        let settle = |step: Step, result: Result<(), c_int>| match result {
            Err(error) if self.is_strict => Err((step, error)),
            Err(_) => {
                refused.fetch_or(step.bit(), Ordering::Relaxed);
                Ok(())
            }
            Ok(()) => Ok(()),
        };
        for (kind, values) in &self.rlimits {
            let set = call(libc::SYS_prlimit64, [0, *kind as usize, values.as_ptr().expose_provenance(), 0]);
            settle(Step::Rlimit, set)?;
        }
        if let Some(nice) = self.nice {
            settle(Step::Nice, call(libc::SYS_setpriority, [PROCESS[0], 0, nice as isize as usize, 0]))?;
        }
        if let Some(value) = self.ionice {
            settle(Step::Ionice, call(libc::SYS_ioprio_set, [PROCESS[1], 0, value as usize, 0]))?;
        }
        if let Some(mask) = &self.processors {
            let bits = mask.as_ptr().expose_provenance();
            settle(Step::Processors, call(libc::SYS_sched_setaffinity, [0, size_of_val(mask.as_slice()), bits, 0]))?;
        }
        if let Some(umask) = self.umask {
            // It cannot fail; it gives what was there before.
            let _ = call(libc::SYS_umask, [umask as usize, 0, 0, 0]);
        }
        Ok(())
    }

    /// Carried out when files that only the old user may open are open.
    pub(super) fn become_user(&self) -> Result<(), (Step, c_int)> {
        let Some(Ids { uid, gid, groups }) = &self.user else { return Ok(()) };
        let (uid, gid) = (*uid as usize, *gid as usize);
        call(libc::SYS_setgroups, [groups.len(), groups.as_ptr().expose_provenance(), 0, 0])
            .and_then(|()| call(libc::SYS_setresgid, [gid, gid, gid, 0]))
            .and_then(|()| call(libc::SYS_setresuid, [uid, uid, uid, 0]))
            .map_err(|error| (Step::User, error))
    }
}
