//! What `/proc` tells about a process, and the name of the host. What is said of a process may be gone by the time it is read: that is
//! None, no error.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::clock::BootInstant;
use crate::supervisor::sys;

/// Fields of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `Z` or `X`: it has ended.
    pub state: u8,
    pub parent: i32,
    pub group: i32,
    pub session: i32,
    /// Clock ticks that it and the children that it has awaited kept processors busy for.
    pub ticks: u64,
    /// Those of them in user mode.
    pub user_ticks: u64,
    /// At least one.
    pub threads: u64,
    /// Bytes of memory.
    pub resident: u64,
    /// Clock ticks since boot.
    pub start_ticks: u64,
    /// Where its environment lies. 0: it is just executing its program and has none yet, or it is a thread of the kernel, or it is
    /// another user's. The kernel knows the place before anything stands there, and where the code lies only afterwards.
    pub environment: u64,
}

impl Stat {
    pub fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

pub fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22 of `/proc/PID/stat` of a process that was made between two instants. The kernel takes it from the same clock, so
/// that it need not be asked unless a tick lies between them: asking waits for a process that executes its program just now.
pub fn start_ticks(pid: i32, after: BootInstant, before: BootInstant) -> u64 {
    let tick = 1_000_000_000 / u128::from(sys::ticks_per_second().max(1));
    let (first, last) = (after.0.as_nanos() / tick, before.0.as_nanos() / tick);
    if first == last { first as u64 } else { stat(pid).map_or(0, |stat| stat.start_ticks) }
}

/// The name (field 2) may hold blanks and parentheses: fields are counted from its last parenthesis.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let after = text.iter().rposition(|&byte| byte == b')')? + 1;
    let fields: Vec<&str> = std::str::from_utf8(&text[after..]).ok()?.split_ascii_whitespace().collect();
    Some(Stat {
        state: *fields.first()?.as_bytes().first()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        ticks: fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum(),
        user_ticks: [fields.get(11)?, fields.get(13)?].iter().filter_map(|field| field.parse::<u64>().ok()).sum(),
        threads: fields.get(17)?.parse().ok()?,
        resident: fields.get(21)?.parse::<u64>().ok()? * sys::page_size(),
        start_ticks: fields.get(19)?.parse().ok()?,
        environment: if *fields.get(23)? == "0" { 0 } else { fields.get(47)?.parse().ok()? },
    })
}

/// Whether a process is over, or on its way there: what it holds is given back in moments.
pub fn is_going(pid: i32) -> bool {
    let Ok(text) = fs::read(format!("/proc/{pid}/stat")) else { return true };
    let Some(stat) = parse_stat(&text) else { return true };
    // The number behind six others that follow the name.
    let after = text.iter().rposition(|&byte| byte == b')').map_or(0, |at| at + 1);
    let fields = String::from_utf8_lossy(&text[after..]);
    let flags: u64 = fields.split_ascii_whitespace().nth(6).and_then(|flags| flags.parse().ok()).unwrap_or_default();
    stat.has_ended() || flags & EXITING != 0 || has_kill_pending(pid)
}

/// `PF_EXITING` of the kernel.
const EXITING: u64 = 0x4;

/// Whether SIGKILL was sent to it, which it has not followed yet.
fn has_kill_pending(pid: i32) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    let pending = text.lines().filter_map(|line| line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:")));
    let mut pending = pending.filter_map(|set| u64::from_str_radix(set.trim(), 16).ok());
    pending.any(|set| set & (1 << (libc::SIGKILL - 1)) != 0)
}

/// The name of this host; empty if it has none.
pub fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// The environment with which the process was started: `NAME=value`, a zero after each. Empty while it executes its program. Whole: what a
/// program has that is executed meanwhile is over between two reads, and the second would give nothing, as at the end.
pub fn environment(pid: i32) -> Option<Vec<u8>> {
    let file = File::open(format!("/proc/{pid}/environ")).ok()?;
    // Most are short, and the supervisor reads many.
    let mut short = [0; 4096];
    let count = file.read_at(&mut short, 0).ok()?;
    if count < short.len() {
        return Some(short[..count].to_vec());
    }
    let mut size = 64 << 10;
    loop {
        let mut bytes = vec![0; size];
        let count = file.read_at(&mut bytes, 0).ok()?;
        if count < size || size >= MOST_ENVIRONMENT {
            bytes.truncate(count);
            return Some(bytes);
        }
        size *= 4;
    }
}

/// More than Linux takes for a program.
const MOST_ENVIRONMENT: usize = 16 << 20;

/// A variable of such an environment.
pub fn variable(environment: &[u8], name: &str) -> Option<String> {
    environment.split(|&byte| byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

/// Names this boot of the host; empty where the kernel does not say.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// A process and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub stat: Stat,
}

/// All that have not ended.
pub fn processes() -> Vec<Process> {
    let known = pids().into_iter().filter_map(|pid| Some(Process { pid, stat: stat(pid)? }));
    known.filter(|process| !process.stat.has_ended()).collect()
}

/// Those of `all` that are among `roots`, are of the session that one of these leads, or descend from one that is.
pub fn tree<'a>(roots: &[i32], all: &'a [Process]) -> Vec<&'a Process> {
    let mut members: BTreeSet<i32> = roots.iter().copied().collect();
    members.extend(all.iter().filter(|process| roots.contains(&process.stat.session)).map(|process| process.pid));
    loop {
        let count = members.len();
        let children = all.iter().filter(|process| members.contains(&process.stat.parent)).map(|process| process.pid);
        let children: Vec<i32> = children.collect();
        members.extend(children);
        if members.len() == count {
            return all.iter().filter(|process| members.contains(&process.pid)).collect();
        }
    }
}

/// The bytes of memory that a process has, of what it shares with others its part, swapped out or not.
pub fn proportional(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some((number(&text, "Pss:") + number(&text, "SwapPss:")) << 10)
}

/// Lines of `/proc/PID/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The most bytes of memory that it had.
    pub peak: u64,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
}

pub fn status(pid: i32) -> Option<Status> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Status {
        peak: number(&text, "VmHWM:") << 10,
        voluntary_switches: number(&text, "voluntary_ctxt_switches:"),
        involuntary_switches: number(&text, "nonvoluntary_ctxt_switches:"),
    })
}

/// The bytes that a process and the children that it has awaited have read from devices and written to them. None also for a process of
/// another user.
pub fn io(pid: i32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    Some((number(&text, "read_bytes:"), number(&text, "write_bytes:")))
}

/// The first number of the line that begins with `name`; 0 if there is none.
fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// The numbers of all processes.
pub fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The processes that a process has started and not awaited, or that came to it when their parents ended.
pub fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut found = Vec::new();
    for thread in threads.flatten() {
        match File::open(thread.path().join("children")) {
            Ok(list) => Children(Some(list)).each(|child| found.push(child)),
            // The thread has ended, or this kernel keeps no such lists.
            Err(_) if thread.path().exists() => return children_by_parent(pid),
            Err(_) => {}
        }
    }
    found
}

fn children_by_parent(parent: i32) -> Vec<i32> {
    pids().into_iter().filter(|&pid| stat(pid).is_some_and(|stat| stat.parent == parent)).collect()
}

/// The list of this thread's own children, held open: a look is one system call.
pub struct Children(Option<File>);

impl Children {
    pub fn of_this_thread() -> Self {
        Self(File::open("/proc/thread-self/children").ok())
    }

    /// Those that have ended and are not reaped among them. What comes meanwhile may be missing.
    pub fn each(&self, mut tell: impl FnMut(i32)) {
        let Some(list) = &self.0 else {
            return children_by_parent(std::process::id() as i32).into_iter().for_each(tell);
        };
        // As much as the kernel gives at once. A number is cut by the end of a piece only if the kernel cuts it.
        let mut bytes = [0_u8; 4096];
        let (mut from, mut number) = (0, 0_i32);
        loop {
            let count = list.read_at(&mut bytes, from).unwrap_or(0);
            for &byte in &bytes[..count] {
                if byte.is_ascii_digit() {
                    number = number.wrapping_mul(10).wrapping_add(i32::from(byte - b'0'));
                } else if number != 0 {
                    tell(std::mem::take(&mut number));
                }
            }
            from += count as u64;
            // What it could have added is longer than any number.
            if count + 16 < bytes.len() {
                return;
            }
        }
    }
}

/// What names a file wherever it is open: its device and its inode.
pub fn identity(file: &File) -> Option<(u64, u64)> {
    file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The files that a process has open for writing: device and inode of each.
pub fn written_files(pid: i32) -> Vec<(u64, u64)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        // Of what stands there for a descriptor the mode tells how it was opened.
        let writes = entry.metadata().is_ok_and(|link| link.mode() & 0o200 != 0);
        if let Some(file) = writes.then(|| fs::metadata(entry.path()).ok()).flatten() {
            found.push((file.dev(), file.ino()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_shifts_no_field() {
        let text = b"7 (a) b (c) S 1 42 43 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 10 18 21 22 23 24 25 0 0 0 0 0 0 0 17 1 0 0 0 0 0 \
            45 46 47 48 49 5000 51 0";
        let expected = Stat {
            state: b'S',
            parent: 1,
            group: 42,
            session: 43,
            ticks: 5 + 6 + 7 + 8,
            user_ticks: 5 + 7,
            threads: 1,
            resident: 10 * sys::page_size(),
            start_ticks: 98_765,
            environment: 5000,
        };
        assert_eq!(parse_stat(text), Some(expected));
        let executing = String::from_utf8_lossy(text).replace(" 18 21 ", " 18 0 ");
        assert_eq!(parse_stat(executing.as_bytes()), Some(Stat { environment: 0, ..expected }));
    }

    #[test]
    fn a_tree_is_a_session_and_whoever_descends_from_it() {
        let process = |pid, parent, session| {
            let stat = stat(std::process::id() as i32).unwrap();
            Process { pid, stat: Stat { parent, session, ..stat } }
        };
        // 20 leads a session of its own; 21 is its child; 30 has lost its parent and stayed in the session; 40 is another's.
        let all = [
            process(21, 20, 20),
            process(10, 1, 10),
            process(11, 10, 10),
            process(20, 11, 20),
            process(30, 1, 10),
            process(40, 1, 40),
        ];
        let members: Vec<i32> = tree(&[10], &all).iter().map(|process| process.pid).collect();
        assert_eq!(members, [21, 10, 11, 20, 30]);
    }

    #[test]
    fn what_this_process_has_is_told() {
        let pid = std::process::id() as i32;
        let own = processes().into_iter().find(|process| process.pid == pid).unwrap();
        assert!(own.stat.resident > 1 << 20 && own.stat.threads >= 1, "{own:?}");
        assert!(proportional(pid).unwrap() > 1 << 20);
    }

    #[test]
    fn the_start_of_a_process_is_known_without_asking_the_kernel() {
        use crate::clock::{Clock, SystemClock};
        for _ in 0..20 {
            let before = SystemClock.boot();
            let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
            let pid = child.id() as i32;
            let known = start_ticks(pid, before, SystemClock.boot());
            let asked = stat(pid).unwrap().start_ticks;
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(known, asked);
        }
    }

    #[test]
    fn the_children_of_a_process_and_the_files_that_it_writes_to_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let written = File::create(folder.path().join("written")).unwrap();
        std::fs::write(folder.path().join("read"), "").unwrap();
        let read = File::open(folder.path().join("read")).unwrap();
        let (to, from) = (identity(&written).unwrap(), identity(&read).unwrap());
        let own = Children::of_this_thread();
        // More than one piece of the list.
        let mut started: Vec<_> = (0..700)
            .map(|_| {
                std::process::Command::new("sleep")
                    .arg("1000")
                    .stdin(read.try_clone().unwrap())
                    .stdout(written.try_clone().unwrap())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let pids: Vec<i32> = started.iter().map(|child| child.id() as i32).collect();
        let mut listed = Vec::new();
        own.each(|pid| listed.push(pid));
        let found = children(std::process::id() as i32);
        let files = written_files(pids[0]);
        let by_parent = children_by_parent(std::process::id() as i32);
        for child in &mut started {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(listed, pids);
        for list in [found, by_parent] {
            assert!(pids.iter().all(|pid| list.contains(pid)));
        }
        assert!(files.contains(&to) && !files.contains(&from));
    }

    #[test]
    fn a_process_goes_from_its_kill_on_and_not_while_it_stands_still() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id() as i32;
        assert!(!is_going(pid));
        sys::kill(pid, libc::SIGSTOP).unwrap();
        assert!(!is_going(pid));
        sys::kill(pid, libc::SIGKILL).unwrap();
        assert!(is_going(pid), "it is not reaped, and may not have noticed");
        child.wait().unwrap();
        assert!(is_going(pid));
    }

    #[test]
    fn this_process_is_found_with_its_variables() {
        let pid = std::process::id() as i32;
        assert!(pids().contains(&pid));
        assert!(stat(pid).unwrap().start_ticks > 0);
        assert_eq!(variable(&environment(pid).unwrap(), "PATH"), std::env::var("PATH").ok());
    }

    #[test]
    fn an_environment_is_read_whole_however_long_it_is() {
        let long = "x".repeat(100_000);
        let mut child = std::process::Command::new("sleep");
        let mut child = child.arg("1000").env("LONG", &long).env("ZLAST", "here").spawn().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let found = loop {
            // Its program may not have begun yet.
            let found = environment(child.id() as i32).unwrap();
            if !found.is_empty() || std::time::Instant::now() > deadline {
                break found;
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(variable(&found, "ZLAST").as_deref(), Some("here"));
        assert_eq!(variable(&found, "LONG"), Some(long));
    }
}
