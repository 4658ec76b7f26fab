//! Ends what still lives of a try that an earlier supervisor started, and awaits its end.
//!
//! A process is the try's if its environment bears the try's mark, or if it is the recorded one (boot, number and start agree)
//! and bears no other try's mark.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::Timespec;

use crate::executor::environment::MARK;
use crate::model::ProcessIdentity;
use crate::supervisor::{procfs, sys};

/// How often what appears after a kill is looked for again; each round kills whole groups.
const ROUNDS: u32 = 5;
/// How long the end of what was sent SIGKILL is awaited.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// How long it is awaited that processes which execute their programs just now have done so, and how often they are looked at.
const EXEC_WAIT: Duration = Duration::from_secs(1);
const EXEC_PAUSE: Duration = Duration::from_millis(1);

/// What to look for, and how to end it.
#[derive(Clone, Debug)]
pub struct Remains {
    pub mark: String,
    pub process: Option<ProcessIdentity>,
    pub kill_signal: i32,
    pub grace: Duration,
}

struct Found {
    group: i32,
    handle: OwnedFd,
}

/// Ends it: the kill signal, the grace, SIGKILL. Gives how many processes were found at first.
pub fn end(remains: &Remains) -> usize {
    let found = find(remains);
    let count = found.len();
    if count == 0 {
        return 0;
    }
    signal(&found, remains.kill_signal);
    signal(&found, libc::SIGCONT);
    await_ends(&found, remains.grace);
    for _ in 0..ROUNDS {
        let found = find(remains);
        if found.is_empty() {
            break;
        }
        signal(&found, libc::SIGKILL);
        await_ends(&found, KILL_WAIT);
    }
    count
}

fn find(remains: &Remains) -> Vec<Found> {
    let own = std::process::id() as i32;
    let own_group = procfs::stat(own).map(|stat| stat.group);
    let recorded = remains.process.as_ref().filter(|process| process.boot_id == procfs::boot_id());
    let mut found = Vec::new();
    let deadline = Instant::now() + EXEC_WAIT;
    for pid in procfs::pids() {
        // The handle first: what is read after it is of the process that it holds, or the process is over.
        let Some(handle) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            continue;
        };
        let mark = mark(pid, deadline);
        let Some(stat) = procfs::stat(pid) else { continue };
        let is_recorded = recorded.is_some_and(|process| process.pid == pid && process.start_ticks == stat.start_ticks);
        let is_ours = mark.map_or(is_recorded, |mark| mark == remains.mark);
        // A minflow that was started by its own task bears the mark too, and does not end itself.
        if is_ours && !stat.has_ended() && pid != own && Some(stat.group) != own_group {
            found.push(Found { group: stat.group, handle });
        }
    }
    found
}

/// The mark that the process bears. While it executes its program, it has no environment to be read: that is waited for.
fn mark(pid: i32, deadline: Instant) -> Option<String> {
    let mut before = None;
    loop {
        let environment = procfs::environment(pid)?;
        if !environment.is_empty() {
            return procfs::variable(&environment, MARK);
        }
        // Empty for good: it was given no variables, it is a thread of the kernel, which is in no group, or it has ended.
        let stat = procfs::stat(pid)?;
        let was_given_none = stat.environment != 0 && before == Some(stat.environment);
        if was_given_none || stat.group == 0 || stat.has_ended() || Instant::now() > deadline {
            return None;
        }
        before = Some(stat.environment);
        std::thread::sleep(EXEC_PAUSE);
    }
}

/// To each whole group: children that dropped the mark are in it.
fn signal(found: &[Found], signal: i32) {
    let groups: BTreeSet<i32> = found.iter().filter(|process| is_alive(process)).map(|process| process.group).collect();
    for group in groups {
        let _ = sys::kill(-group, signal);
    }
}

fn is_alive(process: &Found) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&process.handle, PollFlags::IN)], Some(&now)).is_ok_and(|ended| ended == 0)
}

fn await_ends(found: &[Found], at_most: Duration) {
    let deadline = Instant::now() + at_most;
    for process in found {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let _ = poll(&mut [PollFd::new(&process.handle, PollFlags::IN)], Some(&left));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn the_mark_is_read_however_lately_a_process_began_to_execute_its_program() {
        for number in 0..300 {
            let given = format!("of-a-test-{number}");
            let mut child = Command::new("sleep").arg("1000").env(MARK, &given).process_group(0).spawn().unwrap();
            let read = mark(child.id() as i32, Instant::now() + KILL_WAIT);
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(read, Some(given));
        }
    }
}
