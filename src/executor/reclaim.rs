//! Ends what still lives of tries whose supervisor is gone, and awaits its end. All that are lost at once are looked for together: a look
//! reads of every process of the host.
//!
//! A process is a try's if its environment bears the try's mark, if it is the recorded one (boot, number and start agree)
//! and bears no other try's mark, if it bears none and has the try's log open for writing, or if it stands below one of these.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Resource, getrlimit, pidfd_open};
use rustix::time::Timespec;

use crate::executor::LACK_PAUSE;
use crate::executor::environment::MARK;
use crate::model::ProcessIdentity;
use crate::model::tool::ToolKind;
use crate::supervisor::procfs::Stat;
use crate::supervisor::{procfs, sys};

/// How often what appears after a kill is looked for again; each round kills whole groups.
const ROUNDS: u32 = 5;
/// How long the end of what was sent SIGKILL is awaited.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// How long it is awaited that processes which execute their programs just now have done so, and how often they are looked at: the kernel
/// tells of that nobody but who traces them.
const EXEC_WAIT: Duration = Duration::from_secs(1);
const EXEC_PAUSE: Duration = Duration::from_millis(1);
/// The ends of so many processes are awaited at a time where the host sets no limit of descriptors; else of half that limit.
const MOST_AWAITED: u64 = 4_096;

/// What to look for, and how to end it.
#[derive(Clone, Debug)]
pub struct Remains {
    pub mark: String,
    pub log: Option<PathBuf>,
    pub process: Option<ProcessIdentity>,
    pub kill_signal: i32,
    pub grace: Duration,
}

/// A process of the host, at the time of a look.
#[derive(Debug)]
pub struct Seen {
    pid: i32,
    parent: i32,
    start_ticks: u64,
    group: i32,
    mark: Option<String>,
}

/// A process that is to end.
struct Target {
    pid: i32,
    start_ticks: u64,
    group: i32,
    /// None: it is not awaited yet.
    handle: Option<OwnedFd>,
}

/// One try and what is done about it.
struct Hunt<'a> {
    remains: &'a Remains,
    log: Option<(u64, u64)>,
    /// Those that have been signalled and have not ended, as far as is known.
    targets: Vec<Target>,
    /// How many processes were found at first.
    count: usize,
    /// How many times they were signalled.
    round: u32,
    /// When what does not end is signalled anew.
    until: Instant,
    is_over: bool,
}

/// Ends them all: to each its kill signal, its grace, SIGKILL. Tells of each when it is over: which, and how many processes were found
/// at first. `look` gives all processes of the host that have not ended ([`processes`]).
pub fn end(all: &[Remains], mut look: impl FnMut() -> Vec<Seen>, mut tell: impl FnMut(usize, usize)) {
    let mut hunts: Vec<Hunt<'_>> = all.iter().map(Hunt::new).collect();
    loop {
        await_targets(&mut hunts);
        let now = Instant::now();
        let is_due = |hunt: &Hunt<'_>| !hunt.is_over && (hunt.targets.is_empty() || hunt.until <= now);
        let due: Vec<usize> = (0..hunts.len()).filter(|&number| is_due(&hunts[number])).collect();
        let mut found = attribute(&hunts, &look());
        for number in due {
            let hunt = &mut hunts[number];
            hunt.go_on(found.remove(&number).unwrap_or_default());
            if hunt.is_over {
                tell(number, hunt.count);
            }
        }
        if hunts.iter().all(|hunt| hunt.is_over) {
            return;
        }
    }
}

impl<'a> Hunt<'a> {
    fn new(remains: &'a Remains) -> Self {
        let log = remains.log.as_ref().and_then(|path| procfs::identity(&File::open(path).ok()?));
        let (targets, until) = (Vec::new(), Instant::now());
        Self { remains, log, targets, count: 0, round: 0, until, is_over: false }
    }

    /// Signals what was found.
    fn go_on(&mut self, found: Vec<Target>) {
        if found.is_empty() || self.round > ROUNDS {
            self.is_over = true;
            return;
        }
        if self.round == 0 {
            self.count = found.len();
            signal(&found, &[self.remains.kill_signal, libc::SIGCONT]);
            self.until = Instant::now() + self.remains.grace;
        } else {
            signal(&found, &[libc::SIGKILL]);
            self.until = Instant::now() + KILL_WAIT;
        }
        self.round += 1;
        self.targets = found;
    }
}

/// Which processes are to end for which try, and have not ended.
fn attribute(hunts: &[Hunt<'_>], all: &[Seen]) -> BTreeMap<usize, Vec<Target>> {
    let own = std::process::id() as i32;
    let own_group = procfs::stat(own).map(|stat| stat.group);
    let mut owners = owners(hunts, all);
    // Whatever stands below one of the try's is the try's, a generation each time. A minflow that was started by its own task is
    // below it too, and does not end itself.
    let mut last = owners.clone();
    last.retain(|&pid, _| pid != own);
    while !last.is_empty() {
        last.retain(|&pid, _| !ends_its_children(pid));
        let children = all.iter().filter(|seen| !owners.contains_key(&seen.pid));
        last = children.filter_map(|seen| Some((seen.pid, *last.get(&seen.parent)?))).collect();
        last.retain(|&pid, _| pid != own);
        owners.extend(&last);
    }
    let mut found = BTreeMap::<usize, Vec<Target>>::new();
    for seen in all.iter().filter(|seen| seen.pid != own && Some(seen.group) != own_group) {
        let Some(&owner) = owners.get(&seen.pid) else { continue };
        let target = Target { pid: seen.pid, start_ticks: seen.start_ticks, group: seen.group, handle: None };
        found.entry(owner).or_default().push(target);
    }
    found
}

/// Those that show by themselves for which try they run.
fn owners(hunts: &[Hunt<'_>], all: &[Seen]) -> BTreeMap<i32, usize> {
    let own = std::process::id() as i32;
    let boot = procfs::boot_id();
    let open = || hunts.iter().enumerate().filter(|(_, hunt)| !hunt.is_over);
    let marks: BTreeMap<&str, usize> = open().map(|(number, hunt)| (&*hunt.remains.mark, number)).collect();
    let logs: BTreeMap<(u64, u64), usize> = open().filter_map(|(number, hunt)| Some((hunt.log?, number))).collect();
    let recorded = open().filter_map(|(number, hunt)| Some((hunt.remains.process.as_ref()?, number)));
    let recorded: BTreeMap<(i32, u64), usize> = recorded
        .filter(|(process, _)| process.boot_id == boot)
        .map(|(process, number)| ((process.pid, process.start_ticks), number))
        .collect();
    // This process writes to the logs itself.
    let by_log = |pid: i32| {
        let is_asked = !logs.is_empty() && pid != own;
        is_asked.then(|| procfs::written_files(pid).iter().find_map(|file| logs.get(file).copied())).flatten()
    };
    let owner = |seen: &Seen| match &seen.mark {
        Some(mark) => marks.get(&**mark).copied(),
        None => recorded.get(&(seen.pid, seen.start_ticks)).copied().or_else(|| by_log(seen.pid)),
    };
    all.iter().filter_map(|seen| Some((seen.pid, owner(seen)?))).collect()
}

/// Whether it is an operator that ends on its own what it starts, or has somebody who does: see `builtin::docker`.
fn ends_its_children(pid: i32) -> bool {
    let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = cmdline.split(|&byte| byte == 0).skip(1);
    words.next() == Some(b"operator") && words.next() == Some(ToolKind::Docker.name().as_bytes())
}

/// All processes of the host that have not ended.
pub fn processes() -> Vec<Seen> {
    let deadline = Instant::now() + EXEC_WAIT;
    let seen = |pid| {
        let mark = mark(pid, deadline);
        let Stat { parent, group, start_ticks, .. } = procfs::stat(pid).filter(|stat| !stat.has_ended())?;
        Some(Seen { pid, parent, start_ticks, group, mark })
    };
    loop {
        let all: Vec<Seen> = procfs::pids().into_iter().filter_map(&seen).collect();
        // Who does not see himself is blind: no descriptors. What he would call over may live.
        if all.iter().any(|seen| seen.pid == std::process::id() as i32) {
            return all;
        }
        std::thread::sleep(LACK_PAUSE);
    }
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
fn signal(targets: &[Target], signals: &[i32]) {
    let living = targets.iter().filter(|target| !matches!(target.hold(), Hold::Ended));
    let groups: BTreeSet<i32> = living.map(|target| target.group).collect();
    for signal in signals {
        groups.iter().for_each(|group| drop(sys::kill(-group, *signal)));
    }
}

enum Hold {
    Held(OwnedFd),
    Ended,
    /// The host lacks something just now.
    Lacking,
}

impl Target {
    fn hold(&self) -> Hold {
        let handle = Pid::from_raw(self.pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let handle = match handle {
            Some(Ok(handle)) => handle,
            Some(Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => return Hold::Lacking,
            Some(Err(_)) | None => return Hold::Ended,
        };
        // The handle first: what is read after it is of the process that it holds, or the process is over.
        match procfs::stat(self.pid) {
            Some(stat) if stat.start_ticks == self.start_ticks && !stat.has_ended() => Hold::Held(handle),
            Some(_) => Hold::Ended,
            None if has_ended(&handle) => Hold::Ended,
            None => Hold::Lacking,
        }
    }
}

fn has_ended(handle: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&now)).is_ok_and(|ended| ended > 0)
}

/// Waits until nothing is left to be awaited of a try, or its time is up.
fn await_targets(hunts: &mut [Hunt<'_>]) {
    let most = getrlimit(Resource::Nofile).current.map_or(MOST_AWAITED, |most| most / 2);
    loop {
        hold_more(hunts, most as usize);
        let now = Instant::now();
        let under_way = || hunts.iter().filter(|hunt| !hunt.is_over);
        let Some(until) = under_way().map(|hunt| if hunt.targets.is_empty() { now } else { hunt.until }).min() else {
            return;
        };
        if until <= now {
            return;
        }
        let handles = hunts.iter().flat_map(|hunt| &hunt.targets).filter_map(|target| target.handle.as_ref());
        let mut polled: Vec<PollFd<'_>> = handles.map(|handle| PollFd::new(handle, PollFlags::IN)).collect();
        let left = until.duration_since(now);
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let _ = poll(&mut polled, Some(&left));
        let mut ended = polled.iter().map(|polled| !polled.revents().is_empty()).collect::<Vec<bool>>().into_iter();
        for hunt in &mut *hunts {
            hunt.targets.retain(|target| target.handle.is_none() || !ended.next().unwrap_or(false));
        }
    }
}

/// Holds further ones that are to be awaited, and drops those that have ended.
fn hold_more(hunts: &mut [Hunt<'_>], most: usize) {
    let mut held = hunts.iter().flat_map(|hunt| &hunt.targets).filter(|target| target.handle.is_some()).count();
    for hunt in hunts {
        hunt.targets.retain_mut(|target| {
            if target.handle.is_some() || held >= most {
                return true;
            }
            match target.hold() {
                Hold::Held(handle) => target.handle = Some(handle),
                Hold::Ended => return false,
                Hold::Lacking => return true,
            }
            held += 1;
            true
        });
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
            let all: Vec<i32> = procfs::pids().into_iter().filter(is_sleep).collect();
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
        let mut told = Vec::new();
        end(&[wanted], processes, |number, count| told.push((number, count)));
        assert_eq!(told, [(0, 3)]);
        reaper.join().unwrap().unwrap();
        assert!(all.into_iter().all(|pid| procfs::stat(pid).is_none_or(|stat| stat.has_ended())));
    }

    #[test]
    fn however_many_are_lost_at_once_are_looked_for_together() {
        let mark = |number: usize| format!("together-{}-{number}", std::process::id());
        let living = [3, 70, 299];
        // Two of them do not hear the kill signal: they have a grace, and only theirs is waited for.
        let deaf = "trap '' TERM; echo; while :; do sleep 1000; done";
        let mut children: Vec<_> = living
            .into_iter()
            .map(|number| {
                let mut child = Command::new("bash");
                child.args(["-c", if number == 3 { "echo; exec sleep 1000" } else { deaf }]).env(MARK, mark(number));
                child.process_group(0).stdout(std::process::Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for child in &mut children {
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        }
        let all: Vec<Remains> =
            (0..300).map(|number| Remains { grace: Duration::from_millis(200), ..remains(&mark(number)) }).collect();
        let (looks, mut told) = (std::cell::Cell::new(0), Vec::new());
        let look = || {
            looks.set(looks.get() + 1);
            processes()
        };
        end(&all, look, |number, count| told.push((looks.get(), number, count)));
        for child in &mut children {
            assert!(!child.wait().unwrap().success());
        }
        // What had nothing is over at the first look.
        let (at_once, later) = told.split_at(297);
        assert!(at_once.iter().all(|&(look, number, count)| look == 1 && count == 0 && !living.contains(&number)));
        let mut ended: Vec<usize> = later.iter().map(|&(_, number, _)| number).collect();
        ended.sort_unstable();
        assert_eq!(ended, living);
        assert!(later.iter().all(|&(_, _, count)| count > 0), "{later:?}");
        // One for each, at most, after the first signal and after the second, and one more.
        assert!(looks.get() <= 1 + 2 * living.len() + 1, "{} looks", looks.get());
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
