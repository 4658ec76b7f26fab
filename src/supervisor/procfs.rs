//! What `/proc` tells about a process. Everything here may be gone by the time it is read: that is None, no error.

use std::fs;

use crate::clock::BootInstant;
use crate::supervisor::sys;

/// Fields of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `Z` or `X`: it has ended.
    pub state: u8,
    pub group: i32,
    /// Clock ticks since boot.
    pub start_ticks: u64,
    /// Where its environment lies. 0: it is just executing its program and has none yet, or it is a thread of the kernel, or it is
    /// another user's.
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
        group: fields.get(2)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
        environment: fields.get(47)?.parse().ok()?,
    })
}

/// The environment with which the process was started: `NAME=value`, a zero after each. Empty while it executes its program.
pub fn environment(pid: i32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/environ")).ok()
}

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

/// The numbers of all processes.
pub fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_shifts_no_field() {
        let text = b"7 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 10 18 21 22 23 24 25 0 0 0 0 0 0 0 17 1 0 0 0 0 0 \
            45 46 47 48 49 5000 51 0";
        assert_eq!(parse_stat(text), Some(Stat { state: b'S', group: 42, start_ticks: 98_765, environment: 5000 }));
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
    fn this_process_is_found_with_its_variables() {
        let pid = std::process::id() as i32;
        assert!(pids().contains(&pid));
        assert!(stat(pid).unwrap().start_ticks > 0);
        assert_eq!(variable(&environment(pid).unwrap(), "PATH"), std::env::var("PATH").ok());
    }
}
