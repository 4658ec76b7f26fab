//! The processes below others, and how they are ended so that none gets away by a fork.
//!
//! Knows numbers of processes and no try. A number may be another's by the time that it is used: whoever is no child of this
//! process is signalled through a handle, once its start shows that it is still the same.

use std::collections::BTreeSet;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::supervisor::{procfs, sys};

/// How many processes one look takes in. What is beyond is seen by the next one, when these have ended.
const MOST: usize = 1_024;
/// How often those that are being stopped are looked over for what they have forked meanwhile.
const PASSES: usize = 8;

/// A process that was seen. It may have ended: of one whose first thread has, no more can be told than of one that has wholly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    pub pid: i32,
    /// Tells it from a later one with its number.
    pub start_ticks: u64,
    pub group: i32,
}

impl Member {
    /// With its parent. None: it is reaped.
    fn see(pid: i32) -> Option<(Self, i32)> {
        let stat = procfs::stat(pid)?;
        Some((Self { pid, start_ticks: stat.start_ticks, group: stat.group }, stat.parent))
    }

    /// SIGKILL to a child of this process. None: it is reaped.
    pub fn kill(pid: i32) -> Option<Self> {
        let (member, _) = Self::see(pid)?;
        let _ = sys::kill(pid, libc::SIGKILL);
        Some(member)
    }

    /// Nothing happens to another process that has its number by now.
    pub fn signal(&self, signal: i32) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        let handle = pidfd_open(pid, PidfdFlags::empty());
        // With the handle open the number stays with what it names, or that is over.
        if Self::see(self.pid).is_none_or(|(now, _)| now.start_ticks != self.start_ticks) {
            return;
        }
        let _ = match (handle, Signal::from_named_raw(signal)) {
            (Ok(handle), Some(signal)) => pidfd_send_signal(handle, signal).map_err(std::io::Error::from),
            // No descriptor is left: the moment between look and signal is a short one.
            _ => sys::kill(self.pid, signal),
        };
    }
}

/// `roots` and all that stands below them, parents before their children. Roots are children of this process.
pub fn members(roots: &[i32]) -> Vec<Member> {
    let own = std::process::id() as i32;
    let mut found: Vec<Member> = roots.iter().filter_map(|&pid| Member::see(pid)).map(|(member, _)| member).collect();
    let mut at = 0;
    while let Some(above) = found.get(at).filter(|_| found.len() < MOST).copied() {
        at += 1;
        for pid in procfs::children(above.pid) {
            // Its parent may end while it is looked at: then it is a child of this process.
            let is_below = |&(_, parent): &(Member, i32)| parent == above.pid || parent == own;
            let member = Member::see(pid).filter(is_below).map(|(member, _)| member);
            found.extend(member.filter(|member| !found.contains(member)));
        }
    }
    found
}

/// Stops `roots` and all that stands below them, and gives those that it saw: the look is repeated until it shows no other, since a
/// stopped process forks no more.
pub fn stop(roots: &[i32]) -> BTreeSet<Member> {
    let mut all = BTreeSet::new();
    for _ in 0..PASSES {
        let mut is_complete = true;
        for member in members(roots) {
            if all.insert(member) {
                member.signal(libc::SIGSTOP);
                is_complete = false;
            }
        }
        if is_complete {
            break;
        }
    }
    all
}

/// Ends `roots` and all that stands below them by SIGKILL, and gives those that it saw. They are stopped first: what is forked
/// meanwhile has no parent any longer, and could no longer be told from what others have started.
pub fn end(roots: &[i32]) -> BTreeSet<Member> {
    let all = stop(roots);
    all.iter().for_each(|member| member.signal(libc::SIGKILL));
    all
}
