//! What watches over a try with limits: looks at what the kernel does not limit, and says at its end which limit that was.
//!
//! Knows one try. Its cgroup and its limits have been made by `limits`; the server asks it when it is due.

use std::time::Duration;

use crate::clock::BootInstant;
use crate::model::{Exceeded, Limits, Usage};
use crate::supervisor::cgroup::Group;
use crate::supervisor::procfs::{self, Process};
use crate::supervisor::{limits, sys};

/// How often it looks. All guards look at the same instants, so that one list of processes does for all.
const INTERVAL: Duration = Duration::from_millis(250);
/// What a shell adds to the number of the signal that ended its command.
const BY_SIGNAL: i32 = 128;

/// What is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    pub memory: Option<u64>,
    pub processes: Option<u32>,
    pub cpu_time: Option<Duration>,
}

#[derive(Debug)]
pub struct Guard {
    group: Option<Group>,
    limits: Limits,
    watched: Watched,
    due: Option<BootInstant>,
}

impl Guard {
    pub fn new(group: Option<Group>, limits: Limits, watched: Watched) -> Self {
        Self { group, limits, watched, due: None }
    }

    pub fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    /// From now on it looks, if there is something to look at.
    pub fn begin(&mut self, now: BootInstant) {
        self.due = (self.watched != Watched::default()).then(|| self.next(now, Duration::ZERO));
    }

    /// When to look. None: never.
    pub fn due(&self) -> Option<BootInstant> {
        self.due
    }

    fn next(&self, now: BootInstant, used: Duration) -> BootInstant {
        let step = INTERVAL.as_nanos() as u64;
        let is_patient = self.watched.memory.is_none() && self.watched.processes.is_none();
        let wait =
            self.watched.cpu_time.filter(|_| is_patient).map(|limit| limits::earliest_end(limit.saturating_sub(used)));
        let at = now.after(wait.unwrap_or_default()).0.as_nanos() as u64;
        BootInstant(Duration::from_nanos((at / step + 1) * step))
    }

    /// Looks at the tree below `roots`, the leader first, among all processes. Gives the limit that it exceeds.
    pub fn look(&mut self, roots: &[i32], all: &[Process], now: BootInstant) -> Option<Exceeded> {
        let members = match &self.group {
            Some(group) => {
                let pids = group.pids();
                all.iter().filter(|process| pids.contains(&process.pid)).collect()
            }
            None => procfs::tree(roots, all),
        };
        let ticks: u64 = members.iter().map(|process| process.stat.ticks).sum();
        let used = Duration::from_millis(ticks * 1_000 / sys::ticks_per_second().max(1));
        let used = self.group.as_ref().map_or(used, |group| used.max(group.counted().cpu_time));
        self.due = Some(self.next(now, used));
        let threads: u64 = members.iter().map(|process| process.stat.threads).sum();
        if self.watched.processes.is_some_and(|most| threads > u64::from(most)) {
            return Some(Exceeded::Processes);
        }
        if self.watched.memory.is_some_and(|most| takes_more_than(most, &members)) {
            return Some(Exceeded::Memory);
        }
        self.watched.cpu_time.filter(|&most| used >= most).map(|_| Exceeded::CpuTime)
    }

    /// The limit that ended a try which nobody else has ended.
    pub fn verdict(&self, status: sys::Status, usage: &Usage) -> Option<Exceeded> {
        if status == sys::Status::Exited(0) {
            return None;
        }
        let ended_by =
            |signal: i32| status == sys::Status::Signaled(signal) || status == sys::Status::Exited(BY_SIGNAL + signal);
        let counted = self.group.as_ref().map(Group::counted).unwrap_or_default();
        if counted.oom_kills > 0 {
            return Some(Exceeded::Memory);
        }
        let is_spent = self.limits.cpu_time.is_some_and(|most| usage.user_cpu + usage.system_cpu >= most);
        if self.limits.cpu_time.is_some() && (ended_by(libc::SIGXCPU) || (is_spent && ended_by(libc::SIGKILL))) {
            return Some(Exceeded::CpuTime);
        }
        (self.limits.file_size.is_some() && ended_by(libc::SIGXFSZ)).then_some(Exceeded::FileSize)
    }

    /// What the kernel has counted, in a sentence for the log; None if it has nothing to tell.
    pub fn account(&self) -> Option<String> {
        let counted = self.group.as_ref()?.counted();
        let mut parts = Vec::new();
        if counted.peak_memory > 0 {
            parts
                .push(format!("its memory came to {} bytes at most, with what was kept of files", counted.peak_memory));
        }
        if counted.memory_stall >= Duration::from_millis(1) {
            parts.push(format!("it waited {:.3} s for memory", counted.memory_stall.as_secs_f64()));
        }
        if counted.throttled >= Duration::from_millis(1) {
            parts.push(format!("limits.cpus held it back for {:.3} s", counted.throttled.as_secs_f64()));
        }
        if counted.refused_processes > 0 {
            parts.push(format!("limits.processes refused a process {} times", counted.refused_processes));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// Ends what is left in its cgroup.
    pub fn kill(&self) {
        let Some(group) = &self.group else { return };
        if group.kill().is_err() {
            for pid in group.pids() {
                let _ = sys::kill(pid, libc::SIGKILL);
            }
        }
    }

    /// Whether nothing runs in its cgroup any more.
    pub fn is_empty(&self) -> bool {
        self.group.as_ref().is_none_or(Group::is_empty)
    }

    /// Its try is over.
    pub fn dissolve(self) {
        if let Some(group) = self.group {
            group.remove();
        }
    }
}

/// The sum of what is resident counts what processes share once for each; where it is too large, the shared is divided.
fn takes_more_than(most: u64, members: &[&Process]) -> bool {
    let resident: u64 = members.iter().map(|process| process.stat.resident).sum();
    if resident <= most {
        return false;
    }
    let shares = members.iter().map(|process| procfs::proportional(process.pid).unwrap_or(process.stat.resident));
    shares.sum::<u64>() > most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(limits: Limits, watched: Watched) -> Guard {
        Guard::new(None, limits, watched)
    }

    #[test]
    fn a_limit_of_cpu_time_alone_is_not_looked_at_before_it_can_be_exceeded() {
        let hour = Duration::from_secs(3_600);
        let now = BootInstant(Duration::from_millis(10_001));
        let mut patient = guard(Limits::default(), Watched { cpu_time: Some(hour), ..Watched::default() });
        patient.begin(now);
        assert!(patient.due().unwrap().since(now) >= limits::earliest_end(hour));
        let mut busy =
            guard(Limits::default(), Watched { cpu_time: Some(hour), processes: Some(9), ..Watched::default() });
        busy.begin(now);
        assert_eq!(busy.due(), Some(BootInstant(Duration::from_millis(10_250))));
        let mut idle = guard(Limits { file_size: Some(1), ..Limits::default() }, Watched::default());
        idle.begin(now);
        assert_eq!(idle.due(), None);
    }

    #[test]
    fn an_end_is_a_limits_only_if_there_is_that_limit() {
        use sys::Status::{Exited, Signaled};
        let second = Duration::from_secs(1);
        let both = Limits { cpu_time: Some(second), file_size: Some(1), ..Limits::default() };
        let none = Limits { umask: Some(0), ..Limits::default() };
        let (idle, spent) = (Usage::default(), Usage { user_cpu: second, ..Usage::default() });
        let cases = [
            (Signaled(libc::SIGXCPU), &idle, Some(Exceeded::CpuTime)),
            (Exited(128 + libc::SIGXCPU), &idle, Some(Exceeded::CpuTime)),
            (Signaled(libc::SIGKILL), &spent, Some(Exceeded::CpuTime)),
            (Signaled(libc::SIGKILL), &idle, None),
            (Signaled(libc::SIGXFSZ), &idle, Some(Exceeded::FileSize)),
            (Exited(128 + libc::SIGXFSZ), &idle, Some(Exceeded::FileSize)),
            (Exited(0), &spent, None),
            (Exited(1), &spent, None),
        ];
        for (status, usage, expected) in cases {
            assert_eq!(guard(both.clone(), Watched::default()).verdict(status, usage), expected, "{status:?}");
            assert_eq!(guard(none.clone(), Watched::default()).verdict(status, usage), None, "{status:?}");
        }
    }
}
