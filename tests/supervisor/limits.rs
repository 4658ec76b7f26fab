//! Limits on a try, and the user as whom it runs.
//!
//! What a cgroup's controllers do can be seen only where the host has them for version 2: here it is shown what they are told, and what is
//! made of what they tell, by a folder that looks like a cgroup. What needs no controller is tried on the kernel where root may.

use std::path::PathBuf;

use minflow::model::{Enforce, Exceeded, IoPriority, Limits};
use minflow::supervisor::protocol::User;

use super::*;

pub(super) const MIB: u64 = 1 << 20;

impl Bench {
    fn limited(&self, instance: i64, limits: Limits, script: &str) -> Start {
        Start { limits: Some(limits), ..self.bash(instance, script) }
    }

    fn run_limited(&self, limits: Limits, script: &str) -> (End, String) {
        let end = self.run(self.limited(1, limits, script));
        (end, self.log(1))
    }
}

pub(super) fn exceeded(limit: Exceeded) -> Cause {
    Cause::Exceeded { limit }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A folder that looks like a cgroup with these controllers.
pub(super) fn fake(controllers: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cgroup.controllers"), controllers).unwrap();
    folder
}

/// The one try's group in it.
pub(super) fn only_group(base: &Path) -> PathBuf {
    let folders = fs::read_dir(base).unwrap().map(|entry| entry.unwrap().path());
    let mut groups = folders.filter(|path| path.is_dir() && !path.ends_with("minflow"));
    let group = groups.next().unwrap();
    assert_eq!(groups.next(), None);
    group
}

#[test]
fn what_a_process_can_have_by_itself_it_has() {
    let limits = Limits {
        open_files: Some(77),
        file_size: Some(100 * MIB),
        cpu_time: Some(Duration::from_secs(1_000)),
        nice: Some(11),
        ionice: Some(IoPriority::BestEffort(6)),
        umask: Some(0o027),
        enforce: Enforce::Require,
        ..Limits::default()
    };
    let script = "ulimit -n; ulimit -f; ulimit -t; nice; umask; ionice -p $$";
    let (end, log) = bench().run_limited(limits, script);
    // bash counts file sizes in KiB.
    assert_eq!(log, "77\n102400\n1000\n11\n0027\nbest-effort: prio 6\n");
    assert_eq!((end.exit, end.cause, end.noted_bytes), (Exit::Code(0), Cause::Itself, 0));
    assert_eq!(end.notes, [] as [String; 0]);
}

#[test]
fn who_waits_for_an_idle_disk_says_so() {
    let limits = Limits { ionice: Some(IoPriority::Idle), ..Limits::default() };
    assert_eq!(bench().run_limited(limits, "ionice -p $$").1, "idle\n");
}

#[test]
fn a_file_that_grows_too_large_ends_the_task_and_is_no_larger() {
    let bench = bench();
    let limits = Limits { file_size: Some(MIB), ..Limits::default() };
    let (end, _) = bench.run_limited(limits, "exec head -c 50000000 /dev/zero > fat");
    assert_eq!((end.exit, end.cause), (Exit::Signal(libc::SIGXFSZ), exceeded(Exceeded::FileSize)));
    assert_eq!(fs::metadata(bench.home.path().join("fat")).unwrap().len(), MIB);
}

#[test]
fn what_a_shell_says_of_its_command_is_understood_as_well() {
    let limits = Limits { file_size: Some(MIB), ..Limits::default() };
    let (end, _) = bench().run_limited(limits, "head -c 50000000 /dev/zero > fat; exit $?");
    assert_eq!((end.exit, end.cause), (Exit::Code(128 + libc::SIGXFSZ), exceeded(Exceeded::FileSize)));
}

#[test]
fn cpu_time_is_limited_of_one_process_and_of_all_together() {
    let limits = Limits { cpu_time: Some(Duration::from_secs(1)), ..Limits::default() };
    let bench = bench();
    let alone = bench.run(bench.limited(1, limits.clone(), "while :; do :; done"));
    assert_eq!(alone.cause, exceeded(Exceeded::CpuTime));
    // None of them comes to a second: they end themselves before that.
    let many =
        "for i in 1 2 3 4 5 6; do (ulimit -t 1; timeout 30 bash -c 'while :; do :; done') & done; wait; sleep 100";
    let together = bench.run(bench.limited(2, limits, many));
    assert_eq!(together.cause, exceeded(Exceeded::CpuTime));
}

#[test]
fn without_a_cgroup_memory_is_limited_of_each_process_and_the_sum_is_looked_at() {
    let bench = bench();
    let limits = Limits { memory: Some(64 * MIB), ..Limits::default() };
    let (end, log) = bench.run_limited(limits.clone(), "exec tail -c 200000000 < <(head -c 300000000 /dev/zero)");
    assert_eq!(end.cause, Cause::Itself, "a process that is refused memory ends as it likes");
    assert_ne!(end.exit, Exit::Code(0));
    assert!(log.contains("minflow: limits.memory is not enforced by a cgroup (`core.cgroup` is \"off\")"), "{log}");
    assert!(log.contains("memory exhausted"), "{log}");
    // Each of them may, but not all three.
    let hold = "(head -c 40000000 /dev/zero; sleep 100) | tail -c 50000000 &";
    let end = bench.run(bench.limited(2, limits, &format!("{hold} {hold} {hold} wait")));
    assert_eq!((end.exit, end.cause), (Exit::Signal(libc::SIGKILL), exceeded(Exceeded::Memory)));
}

#[test]
fn memory_that_processes_share_counts_once() {
    let bench = bench();
    // 40 MB in the shell, which its children share with it.
    let script = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); for i in 1 2 3 4; do (read -t 2 < <(sleep 3)) & done; wait; echo done";
    let limits = Limits { memory: Some(128 * MIB), ..Limits::default() };
    let (end, log) = bench.run_limited(limits, script);
    assert_eq!((end.exit, end.cause), (Exit::Code(0), Cause::Itself), "{log}");
}

#[test]
fn without_a_cgroup_processes_are_counted() {
    let bench = bench();
    let limits = Limits { processes: Some(40), ..Limits::default() };
    let few = bench.run(bench.limited(1, limits.clone(), "for i in $(seq 30); do sleep 0.7 & done; wait"));
    assert_eq!((few.exit, few.cause), (Exit::Code(0), Cause::Itself));
    // As a fork bomb does it, but with an end.
    let bomb = "f() { if (($1)); then f $(($1-1)) & f $(($1-1)) & wait; else sleep 100; fi; }; f 7";
    let end = bench.run(bench.limited(2, limits, bomb));
    assert_eq!((end.exit, end.cause), (Exit::Signal(libc::SIGKILL), exceeded(Exceeded::Processes)));
    assert!(log_of_first_lines(&bench, 2).contains("limits.processes is not enforced by a cgroup"));
}

fn log_of_first_lines(bench: &Bench, instance: i64) -> String {
    bench.log(instance).lines().take(2).collect()
}

#[test]
fn without_a_cgroup_cpus_are_processors() {
    let bench = bench();
    let count = minflow::supervisor::sys::processors().len();
    let limits = Limits { millicpus: Some(500), ..Limits::default() };
    let (_, log) = bench.run_limited(limits.clone(), "nproc");
    assert!(log.ends_with("\n1\n"), "{log}");
    let more = Limits { millicpus: Some(count as u32 * 1_000 + 1), ..limits };
    let end = bench.run(bench.limited(2, more, "nproc"));
    let log = bench.log(2);
    assert!(log.ends_with(&format!("\n{count}\n")) && log.contains("it limits nothing"), "{log}");
    assert_eq!(end.noted_bytes as usize, log.len() - format!("{count}\n").len());
}

#[test]
fn what_must_be_enforced_and_cannot_be_is_not_started() {
    let bench = bench();
    let limits = Limits { memory: Some(64 * MIB), processes: Some(9), enforce: Enforce::Require, ..Limits::default() };
    bench.client.start(vec![bench.limited(1, limits, "echo began")]).unwrap();
    let (kind, message) = bench.refused();
    let expected = "its limits say `enforce = \"require\"`, and this host does not enforce `memory`, `processes` (no cgroup: \
        `core.cgroup` is \"off\"): give minflow what it needs, or write `enforce = \"prefer\"`";
    assert_eq!((kind, message.as_str()), (Refusal::Permanent, expected));
    assert_eq!(bench.log(1), "");
}

#[test]
fn a_cgroup_is_told_the_limits_and_the_process_begins_in_it() {
    let base = fake("cpu memory pids");
    let bench = bench_in(Some(base.path()));
    let limits = Limits {
        memory: Some(64 * MIB),
        millicpus: Some(250),
        processes: Some(50),
        enforce: Enforce::Require,
        ..Limits::default()
    };
    let (end, log) = bench.run_limited(limits, "ulimit -d; echo in it");
    assert_eq!((end.exit, end.cause, &*log), (Exit::Code(0), Cause::Itself, "unlimited\nin it\n"));
    let group = only_group(base.path());
    let read = |name: &str| fs::read_to_string(group.join(name)).unwrap();
    assert_eq!(group.file_name().unwrap().to_str().unwrap().rsplit_once('-').unwrap().1, "1", "{group:?}");
    assert_eq!([read("memory.max"), read("memory.swap.max"), read("memory.oom.group")], ["67108864", "0", "1"]);
    assert_eq!([read("cpu.max"), read("pids.max")], ["25000 100000", "50"]);
    // A folder of the disk cannot be cloned into: the process has written itself there.
    assert_eq!([read("cgroup.procs"), read("cgroup.kill")], ["0", "1"]);
}

#[test]
fn what_the_kernel_killed_for_memory_is_out_of_memory_and_no_signal() {
    let base = fake("memory");
    let bench = bench_in(Some(base.path()));
    let limits = Limits { memory: Some(64 * MIB), ..Limits::default() };
    let group = format!("{}/minflow-*-*-1", base.path().display());
    let script = format!("cd {group}; echo 'oom_kill 2' > memory.events; echo 67108864 > memory.peak; kill -9 $$");
    let end = bench.run(bench.limited(1, limits, &script));
    assert_eq!((end.exit, end.cause), (Exit::Signal(9), exceeded(Exceeded::Memory)));
    assert_eq!(end.notes, ["its memory came to 67108864 bytes at most, with what was kept of files"]);
    let end = bench.run(bench.bash(2, "kill -9 $$"));
    assert_eq!(end.cause, Cause::Itself);
}

/// A folder of the real hierarchy, empty.
pub(super) struct RealCgroup(PathBuf);

impl RealCgroup {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
        let folder = PathBuf::from(mount.split(' ').nth(1)?).join(format!("minflow-test-{}", std::process::id()));
        fs::create_dir(&folder).ok().map(|()| Self(folder))
    }
}

impl Drop for RealCgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_real_cgroup_holds_the_whole_tree_from_its_first_instant_and_ends_it() {
    let Some(real) = RealCgroup::new() else {
        // No cgroups of version 2, or not ours: that there are none is what is told.
        let bench = bench_in(Some(Path::new("/sys/fs/cgroup/no-such-group")));
        let (_, log) = bench.run_limited(Limits { memory: Some(64 * MIB), ..Limits::default() }, "echo ran");
        assert!(log.contains("no-such-group` of `core.cgroup` does not exist") && log.ends_with("\nran\n"), "{log}");
        return;
    };
    let bench = bench_in(Some(&real.0));
    let limits = Limits { memory: Some(64 * MIB), ..Limits::default() };
    // A grandchild in a session of its own, without the mark, the log and its parent.
    let script = "grep ^0:: /proc/self/cgroup; setsid env -i sleep 1000 > /dev/null 2>&1 < /dev/null & sleep 0.3; cat /proc/self/cgroup > /dev/null";
    bench.client.start(vec![bench.limited(1, limits, script)]).unwrap();
    bench.started();
    bench.await_log(1, "0::");
    let group = only_group(&real.0);
    assert!(bench.log(1).contains(&format!("/{}\n", group.file_name().unwrap().to_str().unwrap())), "{}", bench.log(1));
    let end = bench.ended();
    assert_eq!((end.exit, end.cause), (Exit::Code(0), Cause::Itself));
    assert!(!group.exists(), "a group with a process in it could not be removed");
}

#[test]
fn another_user_has_its_numbers_and_groups_and_nothing_of_roots() {
    let bench = bench();
    let user = User { name: "nobody".to_owned(), uid: 65_534, gid: 65_534, groups: vec![65_534, 7] };
    let script = "id -u; id -g; id -G; grep -E '^(Uid|Gid|CapEff)' /proc/self/status; cat /etc/shadow";
    let start = Start { user: Some(user), cwd: "/".to_owned(), ..bench.bash(1, script) };
    bench.client.start(vec![start]).unwrap();
    if is_root() {
        bench.started();
        assert_ne!(bench.ended().exit, Exit::Code(0));
        let log = bench.log(1);
        let expected = "65534\n65534\n65534 7\nUid:\t65534\t65534\t65534\t65534\nGid:\t65534\t65534\t65534\t65534\nCapEff:\t0000000000000000\n";
        assert!(log.starts_with(expected) && log.contains("Permission denied"), "{log}");
    } else {
        let (kind, message) = bench.refused();
        assert_eq!(kind, Refusal::Permanent);
        assert!(message.starts_with("cannot become the user `nobody` of `run_as`"), "{message}");
    }
}

#[test]
fn a_folder_that_is_closed_to_the_user_is_named() {
    let bench = bench();
    let closed = bench.home.path().join("closed");
    fs::create_dir_all(closed.join("inner")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    fs::set_permissions(bench.home.path(), mode(0o755)).unwrap();
    fs::set_permissions(&closed, mode(0o700)).unwrap();
    let user = User { name: "nobody".to_owned(), uid: 65_534, gid: 65_534, groups: vec![65_534] };
    let cwd = closed.join("inner").to_str().unwrap().to_owned();
    bench.client.start(vec![Start { user: Some(user), cwd, ..bench.bash(1, "echo began") }]).unwrap();
    let (kind, message) = bench.refused();
    assert_eq!(kind, Refusal::Permanent);
    let closed = closed.to_str().unwrap();
    let expected = if is_root() {
        format!("as `{closed}` is closed to it: open that (`chmod o+x {closed}`)")
    } else {
        "cannot become the user".to_owned()
    };
    assert!(message.contains(&expected), "{message}");
}
