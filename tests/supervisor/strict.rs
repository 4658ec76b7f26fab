//! `kill_tree = "strict"` together with `limits`: what holds a tree together and what bounds it do not get in each other's way.
//!
//! Where the host lets no cgroup be made, the part of it that the kernel plays is not proven here, and the test says so.

use minflow::model::{Enforce, Exceeded, Limits};

use super::limits::{MIB, RealCgroup, exceeded, fake, only_group};
use super::trees::{
    ESCAPES, Sweep, WITHOUT_A_TRACE, assert_gone, assert_undisturbed, bystander, escape, find_reaper, strict, token,
    write_scripts,
};
use super::*;

fn limited(start: Start, limits: &Limits) -> Start {
    strict(Start { limits: Some(limits.clone()), ..start })
}

#[test]
fn a_strict_task_with_limits_of_its_own_process_has_them_and_leaves_nothing() {
    let bench = bench();
    write_scripts(bench.home.path());
    let _sweep = bystander(&bench);
    // The last two are kept by a look at the tree, which has the subreaper in the middle.
    let limits = Limits {
        open_files: Some(77),
        nice: Some(11),
        umask: Some(0o027),
        processes: Some(2_000),
        memory: Some(4_096 * MIB),
        ..Limits::default()
    };
    for (&(what, how), instance) in ESCAPES.iter().chain(WITHOUT_A_TRACE).zip(2..) {
        let _sweep = Sweep(token(instance));
        let end = bench.run(limited(escape(&bench, instance, how, "ulimit -n; nice; umask; exit 7"), &limits));
        assert_eq!((end.exit, end.cause), (Exit::Code(7), Cause::Itself), "{what}: {}", bench.log(instance));
        assert!(bench.log(instance).ends_with("ready\n77\n11\n0027\n"), "{what}: {}", bench.log(instance));
        assert_gone(&token(instance), what);
    }
    assert_undisturbed(&bench);
}

#[test]
fn a_limit_that_ends_a_strict_task_is_its_cause_and_ends_what_it_has_sent_away() {
    let bench = bench();
    write_scripts(bench.home.path());
    let _sweep = bystander(&bench);
    let (_, how) = WITHOUT_A_TRACE[0];
    let hold = "(head -c 40000000 /dev/zero; sleep 100) | tail -c 50000000 &";
    let cases = [
        (
            Limits { cpu_time: Some(Duration::from_secs(1)), ..Limits::default() },
            "while :; do :; done".to_owned(),
            Exceeded::CpuTime,
        ),
        (
            Limits { memory: Some(64 * MIB), ..Limits::default() },
            format!("{hold} {hold} {hold} wait"),
            Exceeded::Memory,
        ),
        (
            Limits { processes: Some(20), ..Limits::default() },
            "for i in $(seq 60); do sleep 100 & done; wait".to_owned(),
            Exceeded::Processes,
        ),
        (
            Limits { file_size: Some(MIB), ..Limits::default() },
            "exec head -c 50000000 /dev/zero > fat".to_owned(),
            Exceeded::FileSize,
        ),
    ];
    for ((limits, rest, limit), instance) in cases.into_iter().zip(2..) {
        let _sweep = Sweep(token(instance));
        let end = bench.run(limited(escape(&bench, instance, how, &rest), &limits));
        assert_eq!(end.cause, exceeded(limit), "{:?}: {}", end.exit, bench.log(instance));
        assert_gone(&token(instance), &format!("{limit:?}"));
    }
    assert_undisturbed(&bench);
}

#[test]
fn a_strict_task_whose_limits_need_a_cgroup_has_that_in_place_of_a_subreaper() {
    let base = fake("cpu memory pids");
    let bench = bench_in(Some(base.path()));
    let limits = Limits { memory: Some(64 * MIB), processes: Some(50), enforce: Enforce::Require, ..Limits::default() };
    let script = "echo ready; until [ -e go ]; do sleep 0.01; done; exit 3";
    bench.client.start(vec![limited(bench.bash(1, script), &limits)]).unwrap();
    bench.started();
    bench.await_log(1, "ready");
    assert_eq!(find_reaper(&bench), None);
    let group = only_group(base.path());
    let read = |name: &str| fs::read_to_string(group.join(name)).unwrap_or_default();
    assert_eq!([read("memory.max"), read("pids.max"), read("cgroup.kill")], ["67108864", "50", ""]);
    fs::write(bench.home.path().join("go"), "").unwrap();
    assert_eq!(bench.ended().exit, Exit::Code(3));
    assert_eq!(read("cgroup.kill"), "1", "the kernel is asked to end all that is in it");
    // Limits that need no cgroup leave it its subreaper.
    let limits = Limits { open_files: Some(77), enforce: Enforce::Require, ..Limits::default() };
    bench.client.start(vec![limited(bench.bash(2, "ulimit -n; sleep 1000"), &limits)]).unwrap();
    bench.started();
    bench.await_log(2, "77");
    assert!(find_reaper(&bench).is_some());
    bench.client.kill(key(2), "the test is over", Force::Immediate);
    bench.ended();
}

#[test]
fn the_kernels_cgroup_ends_all_of_a_strict_task_also_what_nothing_else_tells() {
    let Some(real) = RealCgroup::new() else {
        eprintln!("skipped: no cgroup of version 2 can be made here, so the kernel's part is not proven");
        return;
    };
    let bench = bench_in(Some(real.path()));
    write_scripts(bench.home.path());
    let _sweep = bystander(&bench);
    let limits = Limits { memory: Some(512 * MIB), ..Limits::default() };
    for (&(what, how), instance) in ESCAPES.iter().chain(WITHOUT_A_TRACE).zip(2..) {
        let _sweep = Sweep(token(instance));
        let end = bench.run(limited(escape(&bench, instance, how, "exit 7"), &limits));
        assert_eq!((end.exit, end.cause), (Exit::Code(7), Cause::Itself), "{what}: {}", bench.log(instance));
        assert_gone(&token(instance), what);
    }
    assert_undisturbed(&bench);
}
