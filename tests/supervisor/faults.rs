//! Starts that the kernel refuses, as it does on a host that lacks something, and processes that die before their program begins.
//!
//! The supervisor's own limits are lowered while it runs, so that the real calls fail.

use minflow::model::Limits;
use minflow::supervisor::protocol::User;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use super::*;

/// A limit of the supervisor, until this is dropped.
struct Lowered {
    pid: Option<Pid>,
    resource: Resource,
    before: Rlimit,
}

impl Bench {
    fn lower(&self, resource: Resource, to: u64) -> Lowered {
        let pid = Pid::from_raw(self.client.pid());
        // The hard limit stays, so that it can be raised again.
        let maximum = rustix::process::getrlimit(resource).maximum;
        let before = prlimit(pid, resource, Rlimit { current: Some(to), maximum }).unwrap();
        Lowered { pid, resource, before }
    }

    /// The supervisor lacks something for one start, and then no longer.
    fn refused_for_want(&self, resource: Resource, start: impl Fn(i64) -> Start) -> (Refusal, String) {
        let lowered = self.lower(resource, 0);
        self.client.start(vec![start(1)]).unwrap();
        let refused = self.refused();
        drop(lowered);
        assert_eq!(self.run(start(2)).exit, Exit::Code(0), "it starts when there is what it needs");
        // The next start of the same try is what a refusal for now leads to.
        let again = Start { key: TryKey { try_number: 2, ..key(1) }, ..start(3) };
        assert_eq!(self.run(again).exit, Exit::Code(0));
        refused
    }
}

impl Drop for Lowered {
    fn drop(&mut self) {
        let before = Rlimit { current: self.before.current, maximum: self.before.maximum };
        prlimit(self.pid, self.resource, before).unwrap();
    }
}

#[test]
fn without_descriptors_a_start_is_refused_for_now() {
    let bench = bench();
    let (kind, message) = bench.refused_for_want(Resource::Nofile, |number| bench.bash(number, "true"));
    assert_eq!(kind, Refusal::Transient);
    assert!(message.contains("cannot open the log") && message.contains("ulimit -n"), "{message}");
}

#[test]
fn without_processes_a_start_is_refused_for_now() {
    let bench = bench();
    // The limit is none for root, and so the task is another user's: of one who has a process already the kernel refuses the exec.
    let user = User { name: "nobody".to_owned(), uid: 65_534, gid: 65_534, groups: vec![65_534] };
    let user = rustix::process::geteuid().is_root().then_some(user);
    let start = |number, script| Start { user: user.clone(), cwd: "/".to_owned(), ..bench.bash(number, script) };
    bench.client.start(vec![start(10, "echo runs; exec sleep 1000")]).unwrap();
    bench.started();
    bench.await_log(10, "runs");
    let (kind, message) = bench.refused_for_want(Resource::Nproc, |number| start(number, "true"));
    assert_eq!(kind, Refusal::Transient);
    assert!(message.contains("no process left for `/bin/bash`") && message.contains("ulimit -u"), "{message}");
    assert!(message.contains("pids.max"), "the limit may be a cgroup's: {message}");
}

/// Its address space has no room for the program, which the kernel finds out when the old one is gone: it kills the process.
#[test]
fn a_process_that_dies_before_its_program_begins_has_failed_by_its_signal_and_leaves_nothing() {
    let bench = bench();
    let limits = Limits { memory: Some(1 << 12), ..Limits::default() };
    for number in 1..4 {
        let start = Start { limits: Some(limits.clone()), ..bench.bash(number, "echo ran") };
        let end = bench.run(start);
        assert_eq!((end.exit, end.cause), (Exit::Signal(Signal::SEGV.as_raw()), Cause::Itself));
        assert!(!bench.log(number).contains("ran"), "{}", bench.log(number));
    }
    assert!(procfs::children(bench.client.pid()).is_empty(), "nothing is left");
    assert_eq!(bench.run(bench.bash(10, "exit 0")).exit, Exit::Code(0), "it goes on");
}
