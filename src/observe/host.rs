//! What the host has to spare, measured when somebody asks. Reads `/proc` and the file systems of the given folders only: the
//! list of all disks that sysinfo would make hangs on a dead mount.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use sysinfo::{MemoryRefreshKind, System};

use crate::model::Reservable;

/// How long an answer waits for the disks. A dead mount answers never.
const DISK_PATIENCE: Duration = Duration::from_millis(50);

/// One look at the host. Bytes; null where it could not be read in time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostSample {
    /// Of all cores together, since the last asking; null at first.
    pub cpu_percent: Option<f64>,
    pub load1: Option<f64>,
    pub memory_total: Option<u64>,
    pub memory_available: Option<u64>,
    /// Summed over the file systems of the folders, each counted once.
    pub disk_total: Option<u64>,
    pub disk_free: Option<u64>,
    /// Of the file system that has the least.
    pub least_free: Option<u64>,
}

/// Takes samples. Clones share what was measured last.
#[derive(Clone, Debug)]
pub struct HostProbe(Arc<Mutex<Probe>>);

#[derive(Debug)]
struct Probe {
    folders: Vec<PathBuf>,
    last_cpu: Option<CpuTime>,
    disk: Option<Disk>,
    /// A look at the disks that has not come back yet.
    pending: Option<Receiver<Option<Disk>>>,
}

impl HostProbe {
    /// `folders`: home, dags and logs. Those that do not exist are passed over.
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Self(Arc::new(Mutex::new(Probe { folders, last_cpu: None, disk: None, pending: None })))
    }

    /// Never waits for longer than about 50 ms, whatever the disks do.
    pub fn sample(&self) -> HostSample {
        let mut probe = self.0.lock();
        let cpu = std::fs::read_to_string("/proc/stat").ok().and_then(|text| CpuTime::parse(&text));
        let cpu_percent = probe.last_cpu.zip(cpu).and_then(|(before, now)| now.busy_percent_since(before));
        // Two askings within one tick of the kernel's clock: the older one stays the point of reference.
        if cpu_percent.is_some() || probe.last_cpu.is_none() {
            probe.last_cpu = cpu;
        }
        let memory = memory();
        let disk = probe.disk();
        HostSample {
            cpu_percent,
            load1: System::load_average().ok().map(|load| load.one),
            memory_total: memory.as_ref().map(System::total_memory),
            memory_available: memory.as_ref().map(System::available_memory),
            disk_total: disk.map(|disk| disk.total),
            disk_free: disk.map(|disk| disk.free),
            least_free: disk.map(|disk| disk.least_free),
        }
    }
}

impl HostProbe {
    /// Bytes free on the fullest of the folders' file systems.
    pub fn least_free(&self) -> Option<u64> {
        self.0.lock().disk().map(|disk| disk.least_free)
    }
}

impl Probe {
    /// The disks now, or as they were when they last answered. At most one thread hangs on a dead mount.
    fn disk(&mut self) -> Option<Disk> {
        // Only the asking that sends the thread waits for it.
        let (answer, patience) = match self.pending.take() {
            Some(answer) => (answer, Duration::ZERO),
            None => {
                let (sender, answer) = bounded(1);
                let folders = self.folders.clone();
                let thread = std::thread::Builder::new().name("disks".to_owned()).stack_size(64 * 1024);
                if thread.spawn(move || look(&folders, &sender)).is_err() {
                    return self.disk;
                }
                (answer, DISK_PATIENCE)
            }
        };
        match answer.recv_timeout(patience) {
            Ok(disk) => self.disk = disk,
            Err(RecvTimeoutError::Timeout) => self.pending = Some(answer),
            Err(RecvTimeoutError::Disconnected) => {}
        }
        self.disk
    }
}

/// All that it has, as far as it could be read.
pub fn reservable() -> Reservable {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    Reservable { memory: memory().map(|memory| memory.total_memory()), millicpus: Some(cores.saturating_mul(1_000)) }
}

fn memory() -> Option<System> {
    let mut system = System::new().ok()?;
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    // What sysinfo could not read stays 0.
    (system.total_memory() > 0).then_some(system)
}

fn look(folders: &[PathBuf], sender: &Sender<Option<Disk>>) {
    // Whoever asked may have gone.
    let _ = sender.send(Disk::of(folders));
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Disk {
    total: u64,
    free: u64,
    least_free: u64,
}

impl Disk {
    fn of(folders: &[PathBuf]) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let mut by_device = BTreeMap::new();
        for folder in folders {
            if let (Ok(metadata), Ok(stat)) = (std::fs::metadata(folder), rustix::fs::statvfs(folder)) {
                let free = stat.f_bavail.saturating_mul(stat.f_frsize);
                let disk = Self { total: stat.f_blocks.saturating_mul(stat.f_frsize), free, least_free: free };
                by_device.insert(metadata.dev(), disk);
            }
        }
        let sum = |sum: Self, disk: Self| Self {
            total: sum.total + disk.total,
            free: sum.free + disk.free,
            least_free: sum.least_free.min(disk.least_free),
        };
        by_device.into_values().reduce(sum)
    }
}

/// Ticks of all cores since boot.
#[derive(Clone, Copy, Debug, PartialEq)]
struct CpuTime {
    busy: u64,
    total: u64,
}

impl CpuTime {
    /// The first line of `/proc/stat`: user nice system idle iowait irq softirq steal; guest times are in user already.
    fn parse(stat: &str) -> Option<Self> {
        let mut fields = stat.lines().next()?.split_whitespace();
        if fields.next()? != "cpu" {
            return None;
        }
        let ticks: Vec<u64> = fields.take(8).map_while(|field| field.parse().ok()).collect();
        let total: u64 = ticks.iter().sum();
        let idle = ticks.get(3)? + ticks.get(4).copied().unwrap_or(0);
        Some(Self { busy: total - idle, total })
    }

    /// Null if no tick has passed.
    fn busy_percent_since(self, before: Self) -> Option<f64> {
        let total = self.total.checked_sub(before.total).filter(|&ticks| ticks > 0)?;
        // The kernel's iowait may go backwards.
        let busy = self.busy.saturating_sub(before.busy).min(total);
        Some((busy as f64 * 1000.0 / total as f64).round() / 10.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_asking_has_no_cpu_figure_and_all_the_others() {
        let home = tempfile::tempdir().unwrap();
        let sample = HostProbe::new(vec![home.path().to_owned()]).sample();
        assert_eq!(sample.cpu_percent, None);
        assert!(sample.load1.is_some());
        assert!(sample.memory_available < sample.memory_total);
        assert!(sample.memory_total.unwrap() > 1 << 24, "memory is told in bytes");
        assert!(sample.disk_total.is_some());
    }

    #[test]
    fn cpu_is_what_was_busy_between_two_askings() {
        let before = CpuTime::parse("cpu  10 0 10 70 10 0 0 0 5 0\ncpu0 1").unwrap();
        let after = CpuTime::parse("cpu  40 0 30 110 20 0 0 0 9 0\n").unwrap();
        assert_eq!(after.busy_percent_since(before), Some(50.0));
        assert_eq!(after.busy_percent_since(after), None);
    }

    #[test]
    fn folders_on_one_file_system_are_counted_once() {
        let home = tempfile::tempdir().unwrap();
        let twice = [home.path().to_owned(), home.path().to_owned(), home.path().join("missing")];
        assert_eq!(Disk::of(&twice).unwrap().total, Disk::of(&twice[..1]).unwrap().total);
        assert_eq!(Disk::of(&twice[2..]), None);
    }

    #[test]
    fn a_disk_that_does_not_answer_leaves_the_last_figures() {
        let (_never, pending) = bounded(1);
        let known = Disk { total: 2, free: 1, least_free: 1 };
        let mut probe = Probe { folders: Vec::new(), last_cpu: None, disk: Some(known), pending: Some(pending) };
        assert_eq!(probe.disk(), Some(known));
        assert!(probe.pending.is_some(), "no second thread may be started");
    }
}
