//! Ends what still lives of a try that an earlier supervisor started, and awaits its end.
//!
//! A process is the try's if its environment bears the try's mark, if it is the recorded one (boot, number and start agree)
//! and bears no other try's mark, if it bears none and has the try's log open for writing, or if it stands below one of these.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::Timespec;

use crate::executor::environment::MARK;
use crate::model::ProcessIdentity;
use crate::model::tool::ToolKind;
use crate::supervisor::procfs::Stat;
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
    pub log: Option<PathBuf>,
    pub process: Option<ProcessIdentity>,
    pub kill_signal: i32,
    pub grace: Duration,
}

struct Found {
    group: i32,
    handle: OwnedFd,
}

/// A process of the host, at the time of a look.
struct Seen {
    pid: i32,
    parent: i32,
    start_ticks: u64,
    group: i32,
    is_ours: bool,
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
    let mut all = look(remains);
    // Whatever stands below one of the try's is the try's, a generation each time. A minflow that was started by its own task is
    // below it too, and does not end itself.
    loop {
        let has_tree = |seen: &&Seen| seen.is_ours && seen.pid != own && !ends_its_children(seen.pid);
        let ours: BTreeSet<i32> = all.iter().filter(has_tree).map(|seen| seen.pid).collect();
        let children = all.iter_mut().filter(|seen| !seen.is_ours && ours.contains(&seen.parent));
        if children.map(|seen| seen.is_ours = true).count() == 0 {
            break;
        }
    }
    let is_meant = |seen: &&Seen| seen.is_ours && seen.pid != own && Some(seen.group) != own_group;
    all.iter().filter(is_meant).filter_map(hold).collect()
}

/// Whether it is an operator that ends on its own what it starts, or has somebody who does: see `builtin::docker`.
fn ends_its_children(pid: i32) -> bool {
    let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = cmdline.split(|&byte| byte == 0).skip(1);
    words.next() == Some(b"operator") && words.next() == Some(ToolKind::Docker.name().as_bytes())
}

/// None: it is over.
fn hold(seen: &Seen) -> Option<Found> {
    // The handle first: what is read after it is of the process that it holds, or the process is over.
    let handle = pidfd_open(Pid::from_raw(seen.pid)?, PidfdFlags::empty()).ok()?;
    let stat = procfs::stat(seen.pid).filter(|stat| stat.start_ticks == seen.start_ticks && !stat.has_ended())?;
    Some(Found { group: stat.group, handle })
}

/// All processes of the host, and whether they show by themselves that they are the try's.
fn look(remains: &Remains) -> Vec<Seen> {
    let own = std::process::id() as i32;
    let recorded = remains.process.as_ref().filter(|process| process.boot_id == procfs::boot_id());
    let log = remains.log.as_ref().and_then(|path| procfs::identity(&File::open(path).ok()?));
    let deadline = Instant::now() + EXEC_WAIT;
    let mut all = Vec::new();
    for pid in procfs::pids() {
        let mark = mark(pid, deadline);
        let Some(stat) = procfs::stat(pid).filter(|stat| !stat.has_ended()) else { continue };
        let is_recorded = recorded.is_some_and(|process| process.pid == pid && process.start_ticks == stat.start_ticks);
        // This process writes to the log itself.
        let has_log = || log.is_some_and(|log| pid != own && procfs::written_files(pid).contains(&log));
        let is_ours = mark.map_or_else(|| is_recorded || has_log(), |mark| mark == remains.mark);
        let Stat { parent, group, start_ticks, .. } = stat;
        all.push(Seen { pid, parent, start_ticks, group, is_ours });
    }
    all
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

/// To each whole group: children that dropped the mark and have lost their parents may be in it.
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

    fn remains(mark: &str) -> Remains {
        Remains {
            mark: mark.to_owned(),
            log: None,
            process: None,
            kill_signal: libc::SIGTERM,
            grace: Duration::from_secs(5),
        }
    }

    #[test]
    fn what_has_dropped_the_mark_is_found_by_its_parent_and_by_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let own_mark = format!("below-{}", std::process::id());
        let script = "env -i setsid sleep 1000 > /dev/null 2>&1 & echo $!; env -i setsid -f sleep 1000; wait";
        let mut leader = Command::new("bash");
        leader.args(["-c", script]).env(MARK, &own_mark).process_group(0).stdout(File::create(&log).unwrap());
        let mut leader = leader.spawn().unwrap();
        let is_sleep = |pid: &i32| std::fs::read(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == b"sleep\n");
        let wanted = Remains { log: Some(log.clone()), ..remains(&own_mark) };
        // Both have to have executed their programs.
        let deadline = Instant::now() + KILL_WAIT;
        let all = loop {
            let all: Vec<i32> = look(&wanted).into_iter().map(|seen| seen.pid).filter(is_sleep).collect();
            let by_log: Vec<i32> = all.iter().copied().filter(|&pid| writes(pid, &log)).collect();
            let below: Vec<i32> = all.into_iter().filter(|&pid| parent(pid) == leader.id() as i32).collect();
            if let (&[by_log], &[below]) = (&by_log[..], &below[..]) {
                break [by_log, below];
            }
            assert!(Instant::now() < deadline, "{by_log:?} {below:?}");
            std::thread::sleep(EXEC_PAUSE);
        };
        // Its parent reaps the leader alone.
        let reaper = std::thread::spawn(move || leader.wait());
        assert_eq!(end(&wanted), 3);
        reaper.join().unwrap().unwrap();
        assert!(all.into_iter().all(|pid| procfs::stat(pid).is_none_or(|stat| stat.has_ended())));
    }

    fn writes(pid: i32, log: &std::path::Path) -> bool {
        procfs::written_files(pid).contains(&procfs::identity(&File::open(log).unwrap()).unwrap())
    }

    fn parent(pid: i32) -> i32 {
        procfs::stat(pid).map_or(0, |stat| stat.parent)
    }

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
