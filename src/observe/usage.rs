//! What processes that run have used so far: read from `/proc` when somebody asks, and never by itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::model::{ProcessIdentity, Usage};
use crate::supervisor::procfs::{self, Process};
use crate::supervisor::sys;

const LOOKED_AT_EACH: Duration = Duration::from_secs(2);

/// What a try has used so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// As its end will tell, but that what its children have used counts once they are awaited or while they live.
    pub usage: Usage,
    /// Resident now, of all its processes; shared pages count for each.
    pub memory: u64,
    pub processes: u32,
}

/// All processes of an instant.
#[derive(Debug)]
pub struct Sampler {
    all: Vec<Process>,
    boot_id: String,
}

impl Sampler {
    pub fn now() -> Self {
        Self { all: procfs::processes(), boot_id: procfs::boot_id() }
    }

    /// None: it has ended.
    pub fn sample(&self, process: &ProcessIdentity) -> Option<Sample> {
        let leader = self.all.iter().find(|other| other.pid == process.pid)?;
        let is_same = process.boot_id == self.boot_id && leader.stat.start_ticks == process.start_ticks;
        if !is_same {
            return None;
        }
        let members = procfs::tree(&[process.pid], &self.all);
        let mut sample = Sample { usage: Usage::default(), memory: 0, processes: members.len() as u32 };
        let usage = &mut sample.usage;
        for member in members {
            let stat = &member.stat;
            usage.user_cpu += of_ticks(stat.user_ticks);
            usage.system_cpu += of_ticks(stat.ticks - stat.user_ticks);
            sample.memory += stat.resident;
            let status = procfs::status(member.pid).unwrap_or_default();
            usage.max_rss = usage.max_rss.max(status.peak);
            usage.voluntary_switches += status.voluntary_switches;
            usage.involuntary_switches += status.involuntary_switches;
            let (read, written) = procfs::io(member.pid).unwrap_or_default();
            usage.read_bytes += read;
            usage.write_bytes += written;
        }
        Some(sample)
    }
}

/// What running tries have used, looked at anew when somebody asks, and no more often than each two seconds.
#[derive(Debug, Default)]
pub struct LiveUsage(Mutex<Option<Look>>);

#[derive(Debug)]
struct Look {
    at: Instant,
    sampler: Sampler,
    /// By pid and start.
    known: BTreeMap<(i32, u64), Option<Sample>>,
}

impl LiveUsage {
    /// In the order of `processes`. None: it has ended, or has begun since the last look.
    pub fn of<'p>(
        &self,
        processes: impl IntoIterator<Item = &'p ProcessIdentity>,
        now: Instant,
    ) -> Vec<Option<Sample>> {
        let mut processes = processes.into_iter().peekable();
        if processes.peek().is_none() {
            return Vec::new();
        }
        let mut last = self.0.lock();
        let fresh = last.take().filter(|look| now.saturating_duration_since(look.at) < LOOKED_AT_EACH);
        let look =
            last.insert(fresh.unwrap_or_else(|| Look { at: now, sampler: Sampler::now(), known: BTreeMap::new() }));
        let Look { sampler, known, .. } = look;
        let sample = |process: &ProcessIdentity| {
            *known.entry((process.pid, process.start_ticks)).or_insert_with(|| sampler.sample(process))
        };
        processes.map(sample).collect()
    }
}

fn of_ticks(ticks: u64) -> Duration {
    Duration::from_micros(ticks * 1_000_000 / sys::ticks_per_second().max(1))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_tree_that_runs_is_sampled_and_another_of_its_number_is_not() {
        let script = "x=$(head -c 30000000 /dev/zero | tr '\\0' x); sleep 1000 & echo; wait";
        let mut child = Command::new("bash").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        // It says so when it has what it takes.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let pid = child.id() as i32;
        let start_ticks = procfs::stat(pid).unwrap().start_ticks;
        let process = ProcessIdentity { pid, start_ticks, boot_id: procfs::boot_id() };
        let sample = Sampler::now().sample(&process);
        let another = Sampler::now().sample(&ProcessIdentity { start_ticks: start_ticks + 1, ..process.clone() });
        for member in procfs::tree(&[pid], &procfs::processes()) {
            let _ = sys::kill(member.pid, libc::SIGKILL);
        }
        child.wait().unwrap();
        let sample = sample.unwrap();
        assert_eq!(sample.processes, 2);
        assert!(sample.memory > 25_000_000 && sample.usage.max_rss > 25_000_000, "{sample:?}");
        assert!(sample.usage.user_cpu + sample.usage.system_cpu > Duration::ZERO, "{sample:?}");
        assert_eq!(another, None);
        assert_eq!(Sampler::now().sample(&process), None, "it has ended");
    }

    #[test]
    fn who_asks_again_within_two_seconds_is_told_what_was_seen_before() {
        let live = LiveUsage::default();
        let began = Instant::now();
        assert_eq!(live.of([], began), []);
        assert!(live.0.lock().is_none(), "nothing runs, and nobody looks");
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id() as i32;
        let start_ticks = procfs::stat(pid).unwrap().start_ticks;
        let process = ProcessIdentity { pid, start_ticks, boot_id: procfs::boot_id() };
        let seen = live.of([&process], began)[0];
        assert!(seen.is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(live.of([&process], began + LOOKED_AT_EACH - Duration::from_millis(1)), [seen]);
        assert_eq!(live.of([&process], began + LOOKED_AT_EACH), [None]);
    }
}
