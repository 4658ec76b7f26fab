//! Cgroups (version 2): the folder under which tries get one of their own, and what is written to and read from such a group.
//!
//! Touches only a cgroup that was handed to minflow: one that a service manager has delegated (systemd's `Delegate=yes`), that belongs to
//! this user and holds nobody else's processes, or that the configuration names. Knows limits, and no process but the two that may have
//! to make room. Called by the supervisor alone.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Access;

use crate::model::{Limits, TryKey};

/// Passes `core.cgroup` to the supervisor: a folder, or `off`.
pub const VARIABLE: &str = "MINFLOW_CGROUP";

/// Where minflow's own two processes go: a group with controllers for its children may hold none itself.
const LEAF: &str = "minflow";

/// The length of a period of `cpu.max`, in microseconds.
const PERIOD: u64 = 100_000;

/// A kind of limit that the kernel keeps for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    Memory,
    Cpu,
    Pids,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Pids];

    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }
}

/// The cgroup under which tries have theirs.
#[derive(Debug)]
pub struct Base {
    folder: PathBuf,
    /// What the names of this supervisor's groups begin with.
    prefix: String,
    controllers: Vec<Controller>,
}

impl Base {
    /// Finds it, makes room in it, and enables what limits need.
    ///
    /// # Errors
    /// There is none that may be used: why, as it stands after "no cgroup: ".
    pub fn find(setting: Option<&OsStr>) -> Result<Self, String> {
        let folder = match setting {
            Some(off) if off == "off" => return Err("`core.cgroup` is \"off\"".to_owned()),
            Some(folder) => named(Path::new(folder))?,
            None => delegated()?,
        };
        let prefix = format!("{LEAF}-{}-", std::process::id());
        let mut base = Self { folder, prefix, controllers: Vec::new() };
        base.sweep();
        base.enable();
        Ok(base)
    }

    pub fn has(&self, controller: Controller) -> bool {
        self.controllers.contains(&controller)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Enables the controllers for the groups below, and notes which there are.
    fn enable(&mut self) {
        let offered = words(&self.folder.join("cgroup.controllers"));
        let wanted: Vec<&str> = Controller::ALL
            .map(Controller::name)
            .into_iter()
            .filter(|name| offered.iter().any(|o| o == name))
            .collect();
        let control = self.folder.join("cgroup.subtree_control");
        let has = |enabled: &[String], name: &str| enabled.iter().any(|word| word.trim_start_matches('+') == name);
        let enabled = words(&control);
        if wanted.iter().any(|name| !has(&enabled, name)) && self.make_room() {
            let all: Vec<String> = wanted.iter().map(|name| format!("+{name}")).collect();
            if write(&control, &all.join(" ")).is_err() {
                for one in &all {
                    let _ = write(&control, one);
                }
            }
        }
        let enabled = words(&control);
        self.controllers = Controller::ALL.into_iter().filter(|controller| has(&enabled, controller.name())).collect();
    }

    /// Moves this process and the one that started it into a group of their own, if they are in the folder. False if others are, too:
    /// those are not ours to move.
    fn make_room(&self) -> bool {
        let ours = [std::process::id(), std::os::unix::process::parent_id()].map(|pid| pid.to_string());
        let inside = words(&self.folder.join("cgroup.procs"));
        // The hierarchy's root may hold processes and enable controllers.
        let is_root = self.folder.join("cgroup.procs").exists() && !self.folder.join("cgroup.events").exists();
        if inside.is_empty() || is_root {
            return true;
        }
        if inside.iter().any(|pid| !ours.contains(pid)) {
            return false;
        }
        let leaf = self.folder.join(LEAF);
        let _ = fs::create_dir(&leaf);
        inside.iter().all(|pid| write(&leaf.join("cgroup.procs"), pid).is_ok())
    }

    /// Removes what earlier supervisors have left empty.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let pid = name
                .to_str()
                .and_then(|name| name.strip_prefix(LEAF)?.strip_prefix('-')?.split('-').next()?.parse().ok());
            if pid.is_some_and(|pid: u32| !Path::new(&format!("/proc/{pid}")).exists()) {
                // A group that holds processes stays.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }

    /// Makes the group of a try.
    ///
    /// # Errors
    /// The kernel refuses, for example since there are too many groups.
    pub fn make(&self, key: TryKey) -> io::Result<Group> {
        let folder = self.folder.join(format!("{}{}-{}", self.prefix, key.instance.0, key.try_number));
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let opened = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(&folder);
        opened.map(|entrance| Group { folder: folder.clone(), entrance }).inspect_err(|_| drop(fs::remove_dir(&folder)))
    }
}

/// The cgroup of one try.
#[derive(Debug)]
pub struct Group {
    folder: PathBuf,
    entrance: File,
}

/// What the kernel has counted for a group. Zero where it does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Processes that the kernel has killed since the group had no memory left.
    pub oom_kills: u64,
    /// How often a process could not be made since the group had too many.
    pub refused_processes: u64,
    /// In bytes, with what it kept of files.
    pub peak_memory: u64,
    /// How long some of its processes waited for memory.
    pub memory_stall: Duration,
    /// How long it was held back by its limit of processors.
    pub throttled: Duration,
    pub cpu_time: Duration,
}

impl Group {
    /// The folder, open: where a process is cloned into.
    pub fn entrance(&self) -> BorrowedFd<'_> {
        self.entrance.as_fd()
    }

    /// Sets what the enabled controllers take of `limits`.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn limit(&self, base: &Base, limits: &Limits) -> io::Result<()> {
        if let Some(bytes) = limits.memory.filter(|_| base.has(Controller::Memory)) {
            self.set("memory.max", &bytes.to_string())?;
            self.set("memory.oom.group", "1")?;
            // Not there on a host without swap.
            let _ = self.set("memory.swap.max", "0");
        }
        if let Some(millicpus) = limits.millicpus.filter(|_| base.has(Controller::Cpu)) {
            self.set("cpu.max", &format!("{} {PERIOD}", u64::from(millicpus) * PERIOD / 1_000))?;
        }
        if let Some(count) = limits.processes.filter(|_| base.has(Controller::Pids)) {
            self.set("pids.max", &count.to_string())?;
        }
        Ok(())
    }

    fn set(&self, name: &str, value: &str) -> io::Result<()> {
        let fail = |error: io::Error| io::Error::new(error.kind(), format!("{name} = {value}: {error}"));
        write(&self.folder.join(name), value).map_err(fail)
    }

    /// Ends all that is in it, by SIGKILL, at one instant: a process that forks meanwhile leaves nothing behind.
    ///
    /// # Errors
    /// The kernel is older than 5.14: its processes have to be killed one by one.
    pub fn kill(&self) -> io::Result<()> {
        write(&self.folder.join("cgroup.kill"), "1")
    }

    /// The processes in it.
    pub fn pids(&self) -> Vec<i32> {
        words(&self.folder.join("cgroup.procs")).iter().filter_map(|word| word.parse().ok()).collect()
    }

    /// Whether nothing runs in it any more; what has ended and is not reaped does not count.
    pub fn is_empty(&self) -> bool {
        entry(&self.folder.join("cgroup.events"), "populated").is_none_or(|count| count == 0)
    }

    pub fn counted(&self) -> Counted {
        let read = |file: &str, name: &str| entry(&self.folder.join(file), name).unwrap_or_default();
        let micros = |file: &str, name: &str| Duration::from_micros(read(file, name));
        let peak = words(&self.folder.join("memory.peak"));
        Counted {
            oom_kills: read("memory.events", "oom_kill"),
            refused_processes: read("pids.events", "max"),
            peak_memory: peak.first().and_then(|bytes| bytes.parse().ok()).unwrap_or_default(),
            memory_stall: stalled(&self.folder.join("memory.pressure")),
            throttled: micros("cpu.stat", "throttled_usec"),
            cpu_time: micros("cpu.stat", "usage_usec"),
        }
    }

    /// Removes it. One that is not empty stays, and the next supervisor removes it.
    pub fn remove(self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// The cgroup that the configuration names.
fn named(folder: &Path) -> Result<PathBuf, String> {
    if !folder.is_dir() {
        return Err(format!("the folder `{}` of `core.cgroup` does not exist", folder.display()));
    }
    if !is_writable(folder) {
        return Err(format!("the folder `{}` of `core.cgroup` cannot be written to", folder.display()));
    }
    Ok(folder.to_owned())
}

/// The cgroup of this process, or the one above it, if it was handed to us.
fn delegated() -> Result<PathBuf, String> {
    let own = own().ok_or("this host has no cgroups of version 2")?;
    let is_leaf = own.file_name() == Some(OsStr::new(LEAF));
    let candidates = [Some(own.as_path()).filter(|_| !is_leaf), own.parent()];
    let found = candidates.into_iter().flatten().find(|folder| {
        let is_own = is_marked(folder) || (is_of_this_user(folder) && (is_leaf || **folder == own));
        is_own && is_writable(folder)
    });
    found.map(Path::to_owned).ok_or_else(|| {
        format!(
            "`{}` was not delegated to minflow (systemd: `Delegate=yes`; otherwise `core.cgroup` names one)",
            own.display()
        )
    })
}

/// The cgroup of this process, as a folder.
fn own() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    place(&fs::read_to_string("/proc/self/mountinfo").ok()?, path)
}

/// Where a path of the hierarchy lies, by the mounts of this process.
fn place(mounts: &str, path: &str) -> Option<PathBuf> {
    let (root, mounted) = mounts.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        kind.starts_with("cgroup2 ").then_some((fields.next()?, fields.next()?))
    })?;
    let below = Path::new(path).strip_prefix(root).ok()?;
    Some(Path::new(mounted).join(below))
}

/// Whether a service manager says that it is not its own any more.
fn is_marked(folder: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0_u8; 8];
        rustix::fs::getxattr(folder, *name, &mut value).is_ok_and(|length| value[..length.min(8)] == *b"1")
    })
}

/// Root owns all cgroups, so that its name says nothing.
fn is_of_this_user(folder: &Path) -> bool {
    let user = rustix::process::geteuid();
    !user.is_root() && fs::metadata(folder).is_ok_and(|metadata| metadata.uid() == user.as_raw())
}

fn is_writable(folder: &Path) -> bool {
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::write(path, value)
}

fn words(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// The number behind a name, of a file with a pair on each line.
fn entry(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The total of the line `some` of a file of pressures.
fn stalled(path: &Path) -> Duration {
    let text = fs::read_to_string(path).unwrap_or_default();
    let total = text.lines().find(|line| line.starts_with("some ")).and_then(|line| line.split("total=").nth(1));
    Duration::from_micros(total.and_then(|total| total.trim().parse().ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::InstanceKey;

    const KEY: TryKey = TryKey { instance: InstanceKey(7), try_number: 2 };

    /// What the kernel makes by itself is put there by hand: what is shown is which files are written and read, and not what a kernel
    /// does with them.
    fn fake(controllers: &str) -> (tempfile::TempDir, Base) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cgroup.controllers"), controllers).unwrap();
        let base = Base::find(Some(folder.path().as_os_str())).unwrap();
        (folder, base)
    }

    #[test]
    fn limits_are_written_for_the_controllers_that_are_there() {
        let limits =
            Limits { memory: Some(64 << 20), millicpus: Some(1_500), processes: Some(20), ..Limits::default() };
        let (root, base) = fake("cpuset cpu io memory pids\n");
        assert_eq!(fs::read_to_string(root.path().join("cgroup.subtree_control")).unwrap(), "+cpu +memory +pids");
        let group = base.make(KEY).unwrap();
        group.limit(&base, &limits).unwrap();
        let read = |name: &str| fs::read_to_string(group.folder.join(name)).ok();
        assert_eq!(read("memory.max").as_deref(), Some("67108864"));
        assert_eq!(read("memory.swap.max").as_deref(), Some("0"));
        assert_eq!(read("memory.oom.group").as_deref(), Some("1"));
        assert_eq!(read("cpu.max").as_deref(), Some("150000 100000"));
        assert_eq!(read("pids.max").as_deref(), Some("20"));
        group.kill().unwrap();
        assert_eq!(read("cgroup.kill").as_deref(), Some("1"));

        let (_root, base) = fake("io pids");
        assert!(base.has(Controller::Pids) && !base.has(Controller::Memory) && !base.has(Controller::Cpu));
        let group = base.make(KEY).unwrap();
        group.limit(&base, &limits).unwrap();
        let names: Vec<_> = fs::read_dir(&group.folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["pids.max"]);
    }

    #[test]
    fn what_the_kernel_counted_is_read_back_and_is_nothing_where_it_counts_nothing() {
        let (_root, base) = fake("memory");
        let group = base.make(KEY).unwrap();
        assert_eq!(group.counted(), Counted::default());
        assert!(group.is_empty());
        let write = |name: &str, text: &str| fs::write(group.folder.join(name), text).unwrap();
        write("memory.events", "low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 1\n");
        write("pids.events", "max 4\n");
        write("memory.peak", "123456\n");
        write("memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500\nfull avg10=0.00 total=9\n");
        write("cpu.stat", "usage_usec 7000\nuser_usec 1\nthrottled_usec 2500\n");
        write("cgroup.events", "populated 1\nfrozen 0\n");
        write("cgroup.procs", "12\n34\n");
        let expected = Counted {
            oom_kills: 3,
            refused_processes: 4,
            peak_memory: 123_456,
            memory_stall: Duration::from_micros(1_500),
            throttled: Duration::from_micros(2_500),
            cpu_time: Duration::from_millis(7),
        };
        assert_eq!(group.counted(), expected);
        assert!(!group.is_empty());
        assert_eq!(group.pids(), [12, 34]);
    }

    #[test]
    fn a_group_with_processes_of_others_gets_no_controllers_and_ours_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("cgroup.controllers", "memory");
        write("cgroup.events", "populated 1\n");
        write("cgroup.procs", "1\n");
        let base = Base::find(Some(folder.path().as_os_str())).unwrap();
        assert!(!base.has(Controller::Memory));
        assert!(!folder.path().join(LEAF).exists());

        let own = std::process::id().to_string();
        write("cgroup.procs", &own);
        let base = Base::find(Some(folder.path().as_os_str())).unwrap();
        assert!(base.has(Controller::Memory));
        assert_eq!(fs::read_to_string(folder.path().join(LEAF).join("cgroup.procs")).unwrap(), own);
    }

    #[test]
    fn what_was_not_handed_to_minflow_is_not_used() {
        assert!(Base::find(Some(OsStr::new("off"))).unwrap_err().contains("off"));
        let error = Base::find(Some(OsStr::new("/nowhere/at/all"))).unwrap_err();
        assert!(error.contains("`/nowhere/at/all` of `core.cgroup` does not exist"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_marked(folder.path()));
        assert_eq!(is_of_this_user(folder.path()), !rustix::process::geteuid().is_root());
    }

    #[test]
    fn empty_groups_of_supervisors_that_are_gone_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        // No process has this number.
        let (gone, other) = (folder.path().join("minflow-4194305-1-1"), folder.path().join("minflow-x"));
        let own = folder.path().join(format!("minflow-{}-1-1", std::process::id()));
        [&gone, &other, &own].iter().for_each(|path| fs::create_dir(path).unwrap());
        Base::find(Some(folder.path().as_os_str())).unwrap();
        assert_eq!([&gone, &other, &own].map(|path| path.exists()), [false, true, true]);
    }

    #[test]
    fn a_path_of_the_hierarchy_is_found_below_its_mount() {
        let unified = "24 1 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let folder = place(unified, "/system.slice/minflow.service").unwrap();
        assert_eq!(folder, Path::new("/sys/fs/cgroup/system.slice/minflow.service"));
        let hybrid = "30 24 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            31 24 0:28 /outer /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(place(hybrid, "/outer/in").unwrap(), Path::new("/sys/fs/cgroup/unified/in"));
        assert_eq!(place(hybrid, "/elsewhere"), None);
        assert_eq!(place("30 24 0:27 / /x rw - cgroup cgroup rw\n", "/"), None);
    }
}
