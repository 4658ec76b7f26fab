//! The supervisor as a process: the real binary, real tasks, real signals.

#![allow(clippy::unwrap_used)]

mod adoption;
mod faults;
mod limits;
mod strict;
mod trees;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver};
use minflow::model::{InstanceKey, TryKey};
use minflow::scheduler::port::Force;
use minflow::supervisor::protocol::{self, Answer, Cause, Decoder, End, Exit, Refusal, Request, Start, Tree};
use minflow::supervisor::{MARK, Notice, Origin, Supervise, SupervisorClient, Tasks, procfs, spawn};

const MINFLOW: &str = env!("CARGO_BIN_EXE_minflow");
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    home: tempfile::TempDir,
    client: SupervisorClient,
    notices: Receiver<Notice>,
}

fn bench() -> Bench {
    bench_in(None)
}

/// With a cgroup, or none at all.
fn bench_in(cgroup: Option<&Path>) -> Bench {
    let home = tempfile::tempdir().unwrap();
    let (heard, notices) = channel::unbounded();
    let cgroup = cgroup.map_or("off", |folder| folder.to_str().unwrap()).to_owned();
    let origin =
        Origin { exe: MINFLOW.into(), home: home.path().to_owned(), cgroup: Some(cgroup), tasks: Tasks::EndWithIt };
    let handle = spawn(&origin).unwrap();
    let client = SupervisorClient::connect(handle, move |notice| drop(heard.send(notice))).unwrap();
    Bench { home, client, notices }
}

fn key(instance: i64) -> TryKey {
    TryKey { instance: InstanceKey(instance), try_number: 1 }
}

fn mark(instance: i64) -> String {
    format!("{}.{instance}", std::process::id())
}

fn bash(home: &Path, instance: i64, script: &str) -> Start {
    let log = home.join(format!("{instance}.log"));
    fs::write(&log, "").unwrap();
    Start {
        key: key(instance),
        argv: vec!["/bin/bash".to_owned(), "-c".to_owned(), script.to_owned()],
        cwd: home.to_str().unwrap().to_owned(),
        env: vec![("MARKED".to_owned(), instance.to_string()), (MARK.to_owned(), mark(instance))],
        env_removed: Vec::new(),
        log: log.to_str().unwrap().to_owned(),
        max_log_bytes: 1 << 20,
        timeout_ms: None,
        kill_signal: 15,
        grace_ms: 10_000,
        tree: Tree::Whole,
        leaves: false,
        stdin: None,
        limits: None,
        user: None,
        wants_tail: true,
        output_from: 0,
        memo: String::new(),
    }
}

impl Bench {
    fn bash(&self, instance: i64, script: &str) -> Start {
        bash(self.home.path(), instance, script)
    }

    fn answer(&self) -> Answer {
        loop {
            match self.notices.recv_timeout(PATIENCE).unwrap() {
                Notice::Answer(answer) => return answer,
                Notice::Quiet => {}
                Notice::Gone { reason } => panic!("{reason}"),
            }
        }
    }

    fn started(&self) -> i32 {
        match self.answer() {
            Answer::Started { process, .. } => process.pid,
            other => panic!("{other:?}"),
        }
    }

    fn ended(&self) -> End {
        match self.answer() {
            Answer::Ended(end) => *end,
            other => panic!("{other:?}"),
        }
    }

    fn refused(&self) -> (Refusal, String) {
        match self.answer() {
            Answer::NotStarted { kind, message, .. } => (kind, message),
            other => panic!("{other:?}"),
        }
    }

    fn run(&self, start: Start) -> End {
        self.client.start(vec![start]).unwrap();
        self.started();
        self.ended()
    }

    fn log(&self, instance: i64) -> String {
        String::from_utf8_lossy(&fs::read(self.home.path().join(format!("{instance}.log"))).unwrap()).into_owned()
    }

    fn await_log(&self, instance: i64, text: &str) {
        wait_until(&format!("{text} in the log"), || self.log(instance).contains(text));
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn lives(pid: i32) -> bool {
    procfs::stat(pid).is_some_and(|stat| !stat.has_ended())
}

#[test]
fn exit_codes_and_signals_are_told_as_they_are() {
    let bench = bench();
    assert_eq!(bench.run(bench.bash(1, "exit 0")).exit, Exit::Code(0));
    assert_eq!(bench.run(bench.bash(2, "exit 99")).exit, Exit::Code(99));
    let killed = bench.run(bench.bash(3, "kill -SEGV $$"));
    assert_eq!((killed.exit, killed.cause), (Exit::Signal(11), Cause::Itself));
}

#[test]
fn a_task_inherits_no_descriptor_no_ignored_signal_and_no_blocked_one() {
    let bench = bench();
    // Neither bash nor ls opens descriptors before the list is taken, but for the one by which ls reads the folder.
    let script = "ls -l /proc/self/fd; grep -E 'Sig(Ign|Blk)' /proc/self/status; echo session $(ps -o sid= -p $$) $$";
    bench.run(bench.bash(1, script));
    let log = bench.log(1);
    assert!(log.contains("0 -> /dev/null") && log.contains("1.log"), "{log}");
    let ignored = log.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    // The C library keeps 32 and 33 for itself, and has every process that it spawns ignore them.
    let ignored = u64::from_str_radix(ignored, 16).unwrap() & !0x1_8000_0000;
    assert!(!log.contains("socket:") && !log.contains("anon_inode") && !log.contains("minflow.supervisor"), "{log}");
    assert!(ignored == 0 && log.contains("SigBlk:\t0000000000000000"), "{log}");
}

#[test]
fn broken_pipe_is_silent_where_bash_is_silent() {
    let bench = bench();
    let end = bench.run(bench.bash(1, "yes | head -1; exit ${PIPESTATUS[0]}"));
    assert_eq!(end.exit, Exit::Code(141));
    assert_eq!(bench.log(1), "y\n");
}

#[test]
fn the_environment_is_the_inherited_one_with_additions_and_without_removals() {
    let bench = bench();
    let mut start = bench.bash(1, "echo \"$MARKED/$PATH/${HOME-unset}\"");
    start.env.push(("PATH".to_owned(), "/x".to_owned()));
    start.env_removed.push("HOME".to_owned());
    bench.run(start);
    assert_eq!(bench.log(1), "1//x/unset\n");
}

#[test]
fn a_timeout_ends_the_whole_group() {
    let bench = bench();
    let mut start = bench.bash(1, "sleep 1000 & echo child $!; sleep 1000");
    start.timeout_ms = Some(300);
    bench.client.start(vec![start]).unwrap();
    let leader = bench.started();
    bench.await_log(1, "child");
    let end = bench.ended();
    assert_eq!((end.exit, end.cause), (Exit::Signal(15), Cause::TimedOut));
    let child: i32 = bench.log(1).trim().strip_prefix("child ").unwrap().parse().unwrap();
    assert!(!lives(leader) && !lives(child), "reported before the group was gone");
}

#[test]
fn whoever_ignores_the_kill_signal_gets_sigkill_after_the_grace() {
    let bench = bench();
    let mut start = bench.bash(1, "trap '' TERM; echo ready; while :; do sleep 0.05; done");
    start.grace_ms = 300;
    bench.client.start(vec![start]).unwrap();
    bench.started();
    bench.await_log(1, "ready");
    let begun = Instant::now();
    bench.client.kill(key(1), "stopped", Force::Graceful);
    let end = bench.ended();
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!((end.exit, end.cause), (Exit::Signal(9), Cause::Killed { reason: "stopped".to_owned() }));
}

#[test]
fn the_kill_signal_is_the_tasks_own_and_an_immediate_kill_gives_no_grace() {
    let bench = bench();
    let mut polite = bench.bash(1, "trap 'echo bye; exit 3' INT; echo ready; while :; do sleep 0.05; done");
    polite.kill_signal = 2;
    bench.client.start(vec![polite]).unwrap();
    bench.started();
    bench.await_log(1, "ready");
    bench.client.kill(key(1), "stopped", Force::Graceful);
    assert_eq!(bench.ended().exit, Exit::Code(3));
    assert!(bench.log(1).ends_with("bye\n"));
    bench.client.start(vec![bench.bash(2, "trap '' TERM; echo ready; while :; do sleep 0.05; done")]).unwrap();
    bench.started();
    bench.await_log(2, "ready");
    bench.client.kill(key(2), "stopped", Force::Immediate);
    assert_eq!(bench.ended().exit, Exit::Signal(9));
}

#[test]
fn a_kill_that_comes_with_the_start_is_not_lost() {
    let bench = bench();
    for instance in 1..=40 {
        bench.client.start(vec![bench.bash(instance, "sleep 1000")]).unwrap();
        let force = if instance % 2 == 0 { Force::Graceful } else { Force::Immediate };
        bench.client.kill(key(instance), "stopped", force);
    }
    for _ in 0..80 {
        match bench.answer() {
            Answer::Started { .. } => {}
            Answer::Ended(end) => {
                assert_eq!(end.cause, Cause::Killed { reason: "stopped".to_owned() });
                assert!(matches!(end.exit, Exit::Signal(9 | 15)), "{:?}", end.exit);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_a_task_writes_to_the_disk_is_counted_with_what_its_children_write() {
    let bench = bench();
    let end = bench.run(bench.bash(1, "head -c 1000000 /dev/zero > file; sed -n 's/^write_bytes: //p' /proc/$$/io"));
    let counted: u64 = bench.log(1).trim().parse().unwrap();
    let written = end.usage.write_bytes;
    // Its last line is the one thing that it writes after it has looked.
    assert!((counted..counted + (64 << 10)).contains(&written), "{written} bytes, of which it knew {counted}");
}

#[test]
fn what_a_task_leaves_in_its_group_does_not_outlive_it() {
    let bench = bench();
    let end = bench.run(bench.bash(1, "(trap '' HUP TERM; exec sleep 1000) & echo $!"));
    assert_eq!(end.exit, Exit::Code(0));
    let child: i32 = bench.log(1).trim().parse().unwrap();
    assert!(!lives(child));
}

#[test]
fn a_gigabyte_of_output_is_cut_and_its_last_line_kept() {
    let bench = bench();
    let log = bench.home.path().join("1.log");
    bench.client.start(vec![bench.bash(1, "head -c 1000000000 /dev/zero; echo; echo the end")]).unwrap();
    bench.started();
    let mut most = 0;
    let end = loop {
        most = most.max(fs::metadata(&log).unwrap().blocks() * 512);
        match bench.notices.recv_timeout(Duration::from_millis(2)) {
            Ok(Notice::Answer(Answer::Ended(end))) => break end,
            Ok(Notice::Quiet) => {}
            Ok(other) => panic!("{other:?}"),
            Err(_) => {}
        }
    };
    assert!(most < 400_000_000, "{most} bytes on the disk at one time");
    assert_eq!(end.log_bytes_dropped, 1_000_000_000 + 9 - (1 << 20));
    assert!(end.tail.unwrap().ends_with("\nthe end\n"));
    assert!(fs::metadata(&log).unwrap().len() < (1 << 20) + 400);
    assert!(bench.log(1).contains("max_file_size"));
}

#[test]
fn usage_is_the_tasks_own_and_a_large_scheduler_does_not_show_in_it() {
    // Resident, so that it would count if tasks were spawned from here.
    let ballast = vec![1_u8; 200 << 20];
    let bench = bench();
    let mut start = bench.bash(1, "");
    start.argv = vec!["/bin/true".to_owned()];
    let end = bench.run(start);
    // A child's peak begins with the supervisor's own, which is larger when its code is not optimised.
    let most = if cfg!(debug_assertions) { 12 << 20 } else { 5 << 20 };
    assert!(end.usage.max_rss > 0 && end.usage.max_rss < most, "{} bytes", end.usage.max_rss);
    let busy = bench.run(bench.bash(2, "for ((i = 0; i < 100000; i++)); do :; done"));
    assert!(busy.usage.user_cpu > Duration::ZERO);
    assert_eq!(ballast.iter().map(|&byte| u64::from(byte)).sum::<u64>(), 200 << 20);
}

#[test]
fn the_least_peak_of_a_task_does_not_grow_with_the_tasks_before_it() {
    let bench = bench();
    let peak = |instance| {
        let mut start = bench.bash(instance, "");
        start.argv = vec!["/bin/true".to_owned()];
        bench.run(start).usage.max_rss
    };
    // The code that a supervisor runs is mapped as it is first needed, in pieces that the kernel chooses: that is not the tasks' doing.
    let settled = (1..=50).map(&peak).max().expect("there are fifty");
    let last = (51..=400).fold(settled, |_, instance| peak(instance));
    assert!(last < settled + (1 << 20), "from {settled} to {last} bytes");
}

#[test]
fn the_same_try_is_not_started_twice() {
    let bench = bench();
    let script = "echo once";
    bench.run(bench.bash(1, script));
    let mut again = bench.bash(2, script);
    again.key = key(1);
    bench.client.start(vec![again]).unwrap();
    assert_eq!(bench.refused().0, Refusal::Permanent);
    assert_eq!(bench.log(2), "");
}

#[test]
fn what_cannot_be_started_says_why() {
    let bench = bench();
    let mut try_number = 0;
    let mut refusal = |change: &dyn Fn(&mut Start)| {
        try_number += 1;
        let mut start = bench.bash(try_number, "true");
        change(&mut start);
        bench.client.start(vec![start]).unwrap();
        let (kind, message) = bench.refused();
        assert_eq!(kind, Refusal::Permanent);
        message
    };
    assert!(
        refusal(&|start| start.argv[0] = "/no/such/program".to_owned()).contains("`/no/such/program` does not exist")
    );
    assert!(refusal(&|start| start.argv[0] = "/etc/passwd".to_owned()).contains("not allowed to run `/etc/passwd`"));
    assert!(refusal(&|start| start.cwd = "/no/such/folder".to_owned()).contains("enter the folder `/no/such/folder`"));
    assert!(refusal(&|start| start.log = "/no/such/log".to_owned()).contains("cannot open the log `/no/such/log`"));
    let long = "x".repeat(128 << 10);
    assert!(refusal(&|start| start.argv[2] = long.clone()).contains("argument 2 has 131072 bytes"));
    assert!(refusal(&|start| start.env.push(("BIG".to_owned(), long.clone()))).contains("variable `BIG`"));
    assert!(refusal(&|start| start.argv[2] = "a\0b".to_owned()).contains("NUL"));
    assert_eq!(bench.run(bench.bash(100, "exit 0")).exit, Exit::Code(0), "it goes on");
}

#[test]
fn binary_output_reaches_the_log_unchanged() {
    let bench = bench();
    bench.run(bench.bash(1, "printf '\\377\\000\\200no newline'"));
    assert_eq!(fs::read(bench.home.path().join("1.log")).unwrap(), b"\xff\x00\x80no newline");
}

/// A supervisor spoken to without the client, so that the test can drop its line at any moment.
fn raw(home: &Path) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new(MINFLOW);
    command.args(["supervise", "--home"]).arg(home).stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
    (command.spawn().unwrap(), ours)
}

fn say(line: &mut UnixStream, request: &Request) {
    let mut bytes = Vec::new();
    protocol::encode(request, &mut bytes);
    std::io::Write::write_all(line, &bytes).unwrap();
}

fn hear(line: &mut UnixStream, decoder: &mut Decoder) -> Answer {
    line.set_read_timeout(Some(PATIENCE)).unwrap();
    loop {
        if let Some(answer) = decoder.take().unwrap() {
            return answer;
        }
        let mut bytes = [0; 4096];
        let count = std::io::Read::read(line, &mut bytes).unwrap();
        assert!(count > 0, "the supervisor ended");
        decoder.feed(&bytes[..count]);
    }
}

#[test]
fn when_its_scheduler_is_gone_it_ends_its_tasks_and_then_itself_and_the_next_one_waits_for_that() {
    let home = tempfile::tempdir().unwrap();
    let (mut first, mut line) = raw(home.path());
    let mut decoder = Decoder::default();
    say(&mut line, &Request::Hello { version: protocol::VERSION });
    assert!(matches!(hear(&mut line, &mut decoder), Answer::Hello { .. }));
    let start = bash(home.path(), 1, "trap 'echo bye; exit' TERM; echo ready; while :; do sleep 0.05; done");
    say(&mut line, &Request::Start(Box::new(start)));
    let Answer::Started { process, .. } = hear(&mut line, &mut decoder) else { panic!() };
    let log = home.path().join("1.log");
    wait_until("the task", || fs::read_to_string(&log).unwrap().contains("ready"));
    let (mut second, mut other) = raw(home.path());
    say(&mut other, &Request::Hello { version: protocol::VERSION });
    other.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let early = std::io::Read::read(&mut other, &mut [0; 64]);
    assert!(early.is_err(), "the second greets while the first accepts starts");
    drop(line);
    assert!(matches!(hear(&mut other, &mut Decoder::default()), Answer::Hello { .. }));
    assert!(first.wait().unwrap().success());
    assert!(!lives(process.pid));
    assert!(fs::read_to_string(&log).unwrap().ends_with("bye\n"));
    drop(other);
    assert!(second.wait().unwrap().success());
}

#[test]
fn a_supervisor_of_another_version_refuses() {
    let home = tempfile::tempdir().unwrap();
    let (mut child, mut line) = raw(home.path());
    say(&mut line, &Request::Hello { version: 999 });
    let Answer::Refused { message } = hear(&mut line, &mut Decoder::default()) else { panic!() };
    assert!(message.contains("999"));
    drop(line);
    assert!(child.wait().unwrap().success());
}

#[test]
fn it_is_small_shows_its_home_and_ignores_the_terminals_signals() {
    let bench = bench();
    let pid = bench.client.pid();
    let cmdline = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(cmdline.contains(&format!("--home\0{}", bench.home.path().display())), "{cmdline}");
    for signal in [1, 2, 15] {
        minflow::supervisor::sys::kill(pid, signal).unwrap();
    }
    assert_eq!(bench.run(bench.bash(1, "exit 7")).exit, Exit::Code(7));
    let own = own_memory(&bench);
    assert!(own < OWN_MOST, "{own} kB of its own");
}

/// In kB: a quarter of the 2 MB of its own that a supervisor may take, since most of those are its program's.
const OWN_MOST: u64 = 512;

/// Of the supervisor, in kB: what it has beside the pages of files. Of these the loader changes 1.8 MB in a program that is not optimised, and more
/// with each line of code: what the optimised one takes with them is W4's figure.
fn own_memory(bench: &Bench) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{}/smaps", bench.client.pid())).unwrap();
    let mut is_of_file = false;
    let mut own = 0;
    for line in maps.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields[..] {
            ["Anonymous:", size, "kB"] if !is_of_file => own += size.parse::<u64>().unwrap(),
            [range, _, _, _, _, ref path @ ..] if range.contains('-') => {
                is_of_file = path.first().is_some_and(|path| path.starts_with('/'));
            }
            _ => {}
        }
    }
    own
}

#[test]
fn a_quiet_task_without_a_deadline_costs_the_supervisor_nothing() {
    let bench = bench();
    // What the kernel has given the supervisor's one thread so far, in nanoseconds.
    let schedstat = format!("/proc/{}/schedstat", bench.client.pid());
    let taken = || fs::read_to_string(&schedstat).unwrap().split(' ').next().unwrap().parse::<u64>().unwrap();
    bench.client.start(vec![bench.bash(1, "sleep 3")]).unwrap();
    bench.started();
    let before = taken();
    assert_eq!(bench.ended().exit, Exit::Code(0));
    let milliseconds = (taken() - before) / 1_000_000;
    assert!(milliseconds < 100, "{milliseconds} ms of processor time for one task that slept");
}

#[test]
fn a_supervisor_that_dies_is_told_of() {
    let bench = bench();
    minflow::supervisor::sys::kill(bench.client.pid(), 9).unwrap();
    assert!(matches!(bench.notices.recv_timeout(PATIENCE).unwrap(), Notice::Gone { .. }));
    assert!(bench.client.start(vec![bench.bash(1, "true")]).is_err());
}
