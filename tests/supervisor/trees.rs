//! Ways in which processes try to outlive the task that started them. Beside each, another task runs, with a process of its own that
//! must live on: so nothing is ended for the mere reason that nobody else could have started it, but where a test says so.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use super::*;

/// The argument by which a test knows its processes: `sleep` takes it for a day and a fraction of a second.
pub(super) fn token(instance: i64) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    thread_local! {
        static TEST: u32 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    format!("86400.{:07}{:02}{instance:04}", std::process::id(), TEST.with(|test| *test))
}

/// The processes whose arguments hold the token.
fn bearers(token: &str) -> Vec<i32> {
    let bears = |&pid: &i32| {
        let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&cmdline).contains(token)
    };
    procfs::pids().into_iter().filter(|pid| bears(pid) && *pid != std::process::id() as i32).collect()
}

pub(super) fn assert_gone(token: &str, what: &str) {
    let left: Vec<String> = bearers(token)
        .into_iter()
        .map(|pid| {
            let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!("{pid}: {}", String::from_utf8_lossy(&cmdline).replace('\0', " "))
        })
        .collect();
    assert!(left.is_empty(), "{what}: {left:#?}");
}

/// Ends what a test that fails has started.
pub(super) struct Sweep(pub(super) String);

impl Drop for Sweep {
    fn drop(&mut self) {
        for _ in 0..100 {
            let left = bearers(&self.0);
            if left.is_empty() {
                return;
            }
            left.into_iter().for_each(|pid| drop(minflow::supervisor::sys::kill(pid, 9)));
        }
    }
}

/// How a script starts what is to escape. `$T` is the token, `$F` a file that the escaped process makes, `$R` what it runs to do
/// so and to stay: `sh`, which becomes `sleep`. `$D` is a folder for scripts.
pub(super) const ESCAPES: &[(&str, &str)] = &[
    ("a child in the background", "$R &"),
    ("nohup", "nohup $R > /dev/null 2>&1 &"),
    ("disown", "$R & disown -h; disown -a"),
    ("a process group of its own", "set -m; $R & set +m"),
    ("a session of its own", "setsid $R > /dev/null 2>&1 < /dev/null &"),
    ("a double fork", "( ( $R & ) & )"),
    ("a double fork around a session of its own", "( setsid sh -c '$R & exit' & )"),
    ("a daemon", "( cd / && exec setsid sh -c 'umask 0; $R > /dev/null 2>&1 < /dev/null & exit' )"),
    ("a child that ignores the signals", "( trap '' TERM HUP INT QUIT; exec setsid $R > /dev/null 2>&1 ) &"),
    ("a stopped child", "setsid $R > /dev/null 2>&1 & until [ -e $F ]; do :; done; kill -STOP $!"),
    (
        "a stopped child of a child that ignores the signals",
        "( trap '' TERM HUP; setsid sh -c '$R & kill -STOP $$' ) > /dev/null 2>&1 &",
    ),
    ("a child without an environment that holds the output open", "env -i PATH=\"$PATH\" setsid -f $R"),
    (
        "a child without an environment and output, in the session",
        "( set -m; env -i PATH=\"$PATH\" $R > /dev/null 2>&1 < /dev/null & )",
    ),
    (
        "one without an environment, session and output below one that has them",
        "setsid -f sh -c \"env -i PATH='$PATH' setsid $R > /dev/null 2>&1 & wait\" > /dev/null 2>&1",
    ),
    (
        "the mark of another in the middle of a tree",
        "setsid -f sh -c 'MINFLOW_TRY=other setsid $R > /dev/null 2>&1 & wait' > /dev/null 2>&1",
    ),
    ("two hundred sessions", "for i in $(seq 200); do setsid -f sleep $T > /dev/null 2>&1; done; $R &"),
    ("a chain of processes of which each starts the next one and ends", "$D/chain 300 $T > /dev/null 2>&1 &"),
    ("one that executes programs all the time", "setsid -f $D/again 1500 $T > /dev/null 2>&1 < /dev/null"),
    ("a tree that is deep and wide", "$D/spread 6 $T > /dev/null 2>&1 &"),
];

/// Only a living parent tells whose these are, so they are found when their task is ended from outside.
const BELOW_THE_LEADER: &[(&str, &str)] = &[
    ("no environment, session and output", "env -i PATH=\"$PATH\" setsid $R > /dev/null 2>&1 < /dev/null &"),
    ("the mark of another", "MINFLOW_TRY=other setsid $R > /dev/null 2>&1 < /dev/null &"),
    ("a fork at the signal", "setsid $D/rebel $T > /dev/null 2>&1 < /dev/null &"),
];

/// What an escape runs. Each ends by itself in a bounded number of steps, in a process that stays.
pub(super) fn write_scripts(folder: &Path) {
    let scripts = [
        (
            "chain",
            "[ $1 -eq 0 ] && { : > \"$F\"; exec sleep $T; }\nsetsid \"$0\" $(($1 - 1)) $T &\n[ $1 -eq 200 ] && : > \"$F\"\nexit 0",
        ),
        ("again", "[ $1 -eq 0 ] && exec sleep $T\n[ $1 -eq 1000 ] && : > \"$F\"\nexec \"$0\" $(($1 - 1)) $T"),
        (
            "spread",
            "[ $1 -eq 0 ] && { : > \"$F\"; exec sleep $T; }\nsetsid \"$0\" $(($1 - 1)) $T &\n\"$0\" $(($1 - 1)) $T &\nwait",
        ),
        (
            "rebel",
            "trap 'for i in 1 2 3 4 5; do setsid sleep $T & done' TERM\n: > \"$F\"\nwhile :; do sleep 0.01; done",
        ),
    ];
    for (name, text) in scripts {
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
}

/// A task that starts what is to escape, sees it run, says so and then does `rest`.
pub(super) fn escape(bench: &Bench, instance: i64, how: &str, rest: &str) -> Start {
    let folder = bench.home.path();
    let (file, token) = (folder.join(format!("{instance}.escaped")), token(instance));
    let runs = format!("sh {} {token}", folder.join(format!("{instance}.run")).display());
    fs::write(folder.join(format!("{instance}.run")), format!(": > {}\nexec sleep {token}\n", file.display())).unwrap();
    let how = how.replace("$R", &runs).replace("$F", file.to_str().unwrap()).replace("$D", folder.to_str().unwrap());
    let script = format!(
        "export T={token} F={}\n{how}\nuntil [ -e $F ]; do sleep 0.01; done\necho ready\n{rest}",
        file.display()
    );
    let mut start = bench.bash(instance, &script);
    start.grace_ms = 300;
    start
}

/// A task beside the others, and the process that it has sent away.
pub(super) fn bystander(bench: &Bench) -> Sweep {
    let sweep = Sweep(token(1));
    bench.client.start(vec![escape(bench, 1, "setsid -f $R > /dev/null 2>&1 < /dev/null", "sleep $T")]).unwrap();
    bench.started();
    bench.await_log(1, "ready");
    sweep
}

pub(super) fn assert_undisturbed(bench: &Bench) {
    assert!(bearers(&token(1)).len() >= 2, "itself, and what it has sent away");
    bench.client.kill(key(1), "the test is over", Force::Graceful);
    assert_eq!(bench.ended().key, key(1));
    assert_gone(&token(1), "");
}

#[test]
fn nothing_outlives_a_task_that_ends_by_itself() {
    let bench = bench();
    write_scripts(bench.home.path());
    let _sweep = bystander(&bench);
    for (&(what, how), instance) in ESCAPES.iter().zip(2..) {
        let _sweep = Sweep(token(instance));
        let end = bench.run(escape(&bench, instance, how, "exit 7"));
        assert_eq!((end.exit, end.cause), (Exit::Code(7), Cause::Itself), "{what}");
        assert!(bench.log(instance).contains("ready"), "{what}: {}", bench.log(instance));
        assert_gone(&token(instance), what);
    }
    assert_undisturbed(&bench);
}

fn nothing_outlives_a_kill(force: Force) {
    let bench = bench();
    write_scripts(bench.home.path());
    let _sweep = bystander(&bench);
    for (&(what, how), instance) in ESCAPES.iter().chain(BELOW_THE_LEADER).zip(2..) {
        let _sweep = Sweep(token(instance));
        bench.client.start(vec![escape(&bench, instance, how, "sleep $T")]).unwrap();
        bench.started();
        bench.await_log(instance, "ready");
        // Of one that executes a program just now nobody knows the arguments.
        wait_until(&format!("{what} beside its task"), || bearers(&token(instance)).len() >= 2);
        bench.client.kill(key(instance), "cancelled", force);
        assert_ne!(bench.ended().cause, Cause::Itself, "{what}");
        assert_gone(&token(instance), what);
    }
    assert_undisturbed(&bench);
}

#[test]
fn nothing_outlives_a_task_that_is_cancelled() {
    nothing_outlives_a_kill(Force::Graceful);
}

#[test]
fn nothing_outlives_a_task_that_is_cancelled_at_once() {
    nothing_outlives_a_kill(Force::Immediate);
}

#[test]
fn nothing_outlives_a_task_that_times_out() {
    let bench = bench();
    let few = ESCAPES[..12].iter().zip(2..);
    let sweeps: Vec<Sweep> = few.clone().map(|(_, instance)| Sweep(token(instance))).collect();
    let starts = few.clone().map(|(&(_, how), instance)| escape(&bench, instance, how, "sleep $T"));
    // Long enough for all of them to be there.
    bench.client.start(starts.map(|start| Start { timeout_ms: Some(10_000), ..start }).collect()).unwrap();
    let mut left = few.clone().count();
    while left > 0 {
        if let Answer::Ended(end) = bench.answer() {
            assert_eq!(end.cause, Cause::TimedOut);
            left -= 1;
        }
    }
    for ((&(what, _), instance), sweep) in few.zip(&sweeps) {
        assert!(bench.log(instance).contains("ready"), "{what}");
        assert_gone(&sweep.0, what);
    }
}

#[test]
fn nothing_outlives_minflow() {
    let bench = bench();
    write_scripts(bench.home.path());
    let all = ESCAPES.iter().chain(BELOW_THE_LEADER);
    let sweeps: Vec<Sweep> = all.clone().zip(2..).map(|(_, instance)| Sweep(token(instance))).collect();
    let starts = all.clone().zip(2..).map(|(&(_, how), instance)| escape(&bench, instance, how, "sleep $T"));
    bench.client.start(starts.collect()).unwrap();
    for (_, instance) in all.clone().zip(2..) {
        bench.await_log(instance, "ready");
    }
    drop(bench.client);
    for (&(what, _), sweep) in all.zip(&sweeps) {
        assert_gone(&sweep.0, what);
    }
}

#[test]
fn what_nobody_can_tell_ends_with_the_last_task_that_could_have_started_it() {
    let bench = bench();
    let (_first, _second) = (Sweep(token(2)), bystander(&bench));
    let how = "env -i PATH=\"$PATH\" setsid -f $R > /dev/null 2>&1 < /dev/null";
    bench.run(escape(&bench, 2, how, "exit 0"));
    assert_eq!(bearers(&token(2)).len(), 1, "the task beside it could have started it");
    // A task that comes later could not.
    bench.client.start(vec![bench.bash(3, "sleep 1000")]).unwrap();
    bench.started();
    assert_undisturbed(&bench);
    assert_gone(&token(2), "");
    let _third = Sweep(token(4));
    bench.client.kill(key(3), "the test is over", Force::Graceful);
    bench.ended();
    bench.run(escape(&bench, 4, how, "exit 0"));
    assert_gone(&token(4), "nobody else could have");
}

/// What nothing tells from others, were it not for a subreaper of its task's own.
pub(super) const WITHOUT_A_TRACE: &[(&str, &str)] = &[
    ("one that nothing tells", "env -i PATH=\"$PATH\" setsid -f $R > /dev/null 2>&1 < /dev/null"),
    ("the mark of another, sent away", "MINFLOW_TRY=other setsid -f $R > /dev/null 2>&1 < /dev/null"),
    ("one that nothing tells, twice", "env -i PATH=\"$PATH\" setsid -f setsid -f $R > /dev/null 2>&1 < /dev/null"),
];

pub(super) fn strict(start: Start) -> Start {
    Start { tree: Tree::Strict, ..start }
}

#[test]
fn nothing_whatever_outlives_a_strict_task_and_other_tasks_live_on() {
    let bench = bench();
    write_scripts(bench.home.path());
    let _sweep = bystander(&bench);
    for (&(what, how), instance) in ESCAPES.iter().chain(WITHOUT_A_TRACE).zip(2..) {
        let _sweep = Sweep(token(instance));
        let end = bench.run(strict(escape(&bench, instance, how, "exit 7")));
        assert_eq!((end.exit, end.cause), (Exit::Code(7), Cause::Itself), "{what}");
        assert!(bench.log(instance).contains("ready"), "{what}: {}", bench.log(instance));
        assert_gone(&token(instance), what);
    }
    assert_undisturbed(&bench);
}

#[test]
fn nothing_whatever_outlives_a_strict_task_that_is_cancelled() {
    let bench = bench();
    write_scripts(bench.home.path());
    let _sweep = bystander(&bench);
    let all = ESCAPES.iter().chain(BELOW_THE_LEADER).chain(WITHOUT_A_TRACE);
    for (&(what, how), instance) in all.zip(2..) {
        let _sweep = Sweep(token(instance));
        bench.client.start(vec![strict(escape(&bench, instance, how, "sleep $T"))]).unwrap();
        bench.started();
        bench.await_log(instance, "ready");
        let force = if instance % 2 == 0 { Force::Graceful } else { Force::Immediate };
        bench.client.kill(key(instance), "cancelled", force);
        assert_ne!(bench.ended().cause, Cause::Itself, "{what}");
        assert_gone(&token(instance), what);
    }
    assert_undisturbed(&bench);
}

/// The subreaper of the one strict task that runs, if it has one.
pub(super) fn find_reaper(bench: &Bench) -> Option<i32> {
    let named = |&pid: &i32| {
        fs::read(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == b"minflow-strict\n")
            && procfs::stat(pid).is_some_and(|stat| !stat.has_ended())
    };
    procfs::children(bench.client.pid()).into_iter().find(named)
}

fn reaper(bench: &Bench) -> i32 {
    find_reaper(bench).expect("it has one")
}

#[test]
fn a_strict_task_whose_subreaper_is_killed_goes_on_and_leaves_nothing() {
    let bench = bench();
    write_scripts(bench.home.path());
    let _sweep = bystander(&bench);
    for (&(what, how), instance) in ESCAPES.iter().chain(WITHOUT_A_TRACE).zip(2..) {
        let _sweep = Sweep(token(instance));
        let rest = "until [ -e go ]; do sleep 0.01; done; exit 5";
        bench.client.start(vec![strict(escape(&bench, instance, how, rest))]).unwrap();
        bench.started();
        bench.await_log(instance, "ready");
        minflow::supervisor::sys::kill(reaper(&bench), 9).unwrap();
        fs::write(bench.home.path().join("go"), "").unwrap();
        assert_eq!(bench.ended().exit, Exit::Code(5), "{what}");
        fs::remove_file(bench.home.path().join("go")).unwrap();
        assert_gone(&token(instance), what);
    }
    assert_undisturbed(&bench);
}

#[test]
fn a_strict_task_shows_its_own_end_usage_input_and_identity() {
    let bench = bench();
    let input = bench.home.path().join("input");
    fs::write(&input, "from a file\n").unwrap();
    let script = "cat; echo err >&2; echo session $(ps -o sid= -p $$) $$ parent $PPID; for ((i = 0; i < 100000; i++)); do :; done; exit 3";
    let mut start = strict(bench.bash(1, script));
    start.stdin = Some(input.to_str().unwrap().to_owned());
    bench.client.start(vec![start]).unwrap();
    let leader = bench.started();
    let end = bench.ended();
    assert_eq!((end.exit, end.cause), (Exit::Code(3), Cause::Itself));
    assert!(end.usage.user_cpu > Duration::ZERO);
    let log = bench.log(1);
    assert!(log.starts_with("from a file\nerr\nsession"), "{log}");
    let words: Vec<&str> = log.lines().last().unwrap().split_whitespace().collect();
    let [_, session, own, _, parent] = words[..] else { panic!("{log}") };
    assert_eq!((session, own), (&*leader.to_string(), &*leader.to_string()));
    assert_ne!(parent, bench.client.pid().to_string());
    let mut small = bench.bash(2, "");
    small.argv = vec!["/bin/true".to_owned()];
    let plain = bench.run(small.clone()).usage.max_rss;
    let strict = bench.run(Start { key: key(3), ..strict(small) }).usage.max_rss;
    assert!(strict < plain + (1 << 20), "{strict} bytes, and {plain} otherwise");
    let killed = bench.run(self::strict(bench.bash(4, "kill -SEGV $$")));
    assert_eq!(killed.exit, Exit::Signal(11));
    let mut absent = self::strict(bench.bash(5, ""));
    absent.argv = vec!["/no/such/program".to_owned()];
    bench.client.start(vec![absent]).unwrap();
    assert!(bench.refused().1.contains("`/no/such/program` does not exist"));
    let mut late = self::strict(bench.bash(6, "sleep 1000"));
    late.timeout_ms = Some(300);
    assert_eq!(bench.run(late).cause, Cause::TimedOut);
    assert!(own_memory(&bench) < OWN_MOST, "{} kB of its own", own_memory(&bench));
    let left = procfs::children(bench.client.pid());
    assert!(left.is_empty(), "subreapers end with their tasks: {left:?}");
}

#[test]
fn the_ends_of_many_short_strict_tasks_are_all_told() {
    let bench = bench();
    let start = |instance| {
        let mut start = strict(bench.bash(instance, ""));
        start.argv = vec!["/bin/true".to_owned()];
        bench.client.start(vec![start]).unwrap();
    };
    (1..=8).for_each(start);
    let (mut started, mut ended) = (8, 0);
    while ended < 1_500 {
        if let Answer::Ended(end) = bench.answer() {
            assert_eq!(end.exit, Exit::Code(0));
            ended += 1;
            if started < 1_500 {
                started += 1;
                start(started);
            }
        }
    }
}

/// Kills a task that has started processes as `how` says, and has written `ready`: each takes its time to end at the signal, and says `bye`.
/// Gives what they said; nothing is left then.
fn said_at_the_kill_signal(how: &str, rest: &str, ready: &str, treat: impl Fn(Start) -> Start) -> String {
    let bench = bench();
    write_scripts(bench.home.path());
    let _sweep = Sweep(token(2));
    let bye = bench.home.path().join("bye");
    let polite = format!(
        "trap 'sleep 0.3; echo bye >> {}; exit' USR1; echo up >> $F; while :; do sleep 0.01; done",
        bye.display()
    );
    fs::write(bench.home.path().join("polite"), polite).unwrap();
    let mut start = treat(escape(&bench, 2, how, rest));
    (start.kill_signal, start.grace_ms) = (10, 60_000);
    bench.client.start(vec![start]).unwrap();
    bench.started();
    bench.await_log(2, ready);
    bench.client.kill(key(2), "cancelled", Force::Graceful);
    assert_eq!(bench.ended().exit, Exit::Code(3));
    let said = fs::read_to_string(bye).unwrap();
    assert_gone(&token(2), "");
    said
}

#[test]
fn what_a_strict_task_leaves_at_its_kill_signal_has_the_grace() {
    let how = "( env -i T=$T F=$F PATH=\"$PATH\" setsid bash $D/polite $T > /dev/null 2>&1 & )";
    let rest = "trap 'exit 3' USR1; while :; do sleep 0.01; done";
    assert_eq!(said_at_the_kill_signal(how, rest, "ready", strict), "bye\n");
}

#[test]
fn the_kill_signal_reaches_the_whole_tree_and_all_of_it_has_the_grace() {
    // The leader ends at once; what it has started takes its time, and says so to a file.
    let how = "setsid bash $D/polite $T > /dev/null 2>&1 & ( env -i T=$T F=$F PATH=\"$PATH\" setsid bash $D/polite $T > /dev/null 2>&1 & )";
    let rest = "trap 'exit 3' USR1; until [ $(grep -c . $F) = 2 ]; do sleep 0.01; done; echo both; while :; do sleep 0.01; done";
    assert_eq!(said_at_the_kill_signal(how, rest, "both", |start| start), "bye\nbye\n");
}

#[test]
fn what_a_task_may_leave_running_lives_on_until_somebody_ends_it() {
    let bench = bench();
    let _sweeps = [2, 3, 4].map(|instance| Sweep(token(instance)));
    let leaving = |instance, how, rest| Start { leaves: true, ..escape(&bench, instance, how, rest) };
    let how = "setsid -f $R > /dev/null 2>&1 < /dev/null; $R &";
    bench.run(leaving(2, how, "exit 0"));
    bench.run(leaving(3, "env -i PATH=\"$PATH\" setsid -f $R > /dev/null 2>&1 < /dev/null", "exit 1"));
    assert_eq!((bearers(&token(2)).len(), bearers(&token(3)).len()), (2, 1));
    // Neither the end of another try nor a kill of one that may leave something has to do with those.
    bench.run(bench.bash(5, "exit 0"));
    bench.client.start(vec![leaving(4, how, "sleep $T")]).unwrap();
    bench.started();
    bench.await_log(4, "ready");
    bench.client.kill(key(4), "cancelled", Force::Graceful);
    bench.ended();
    assert_gone(&token(4), "its own process was ended");
    drop(bench.client);
    assert_eq!((bearers(&token(2)).len(), bearers(&token(3)).len()), (2, 1), "minflow's stop leaves them too");
}

#[test]
fn what_a_left_daemon_starts_is_left_as_well() {
    let bench = bench();
    write_scripts(bench.home.path());
    let _sweep = Sweep(token(2));
    let start = Start { leaves: true, ..escape(&bench, 2, "$D/chain 300 $T > /dev/null 2>&1 &", "exit 0") };
    bench.run(start);
    let arrived = || {
        bearers(&token(2)).iter().any(|&pid| fs::read(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == b"sleep\n"))
    };
    wait_until("the last of the chain", || {
        bench.run(bench.bash(fresh(), "exit 0"));
        arrived()
    });
    bench.run(bench.bash(fresh(), "exit 0"));
    assert_eq!(bearers(&token(2)).len(), 1);
}

/// An instance that no test has used.
fn fresh() -> i64 {
    static NEXT: AtomicI64 = AtomicI64::new(1_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[test]
fn a_try_that_is_started_again_after_a_daemon_was_left_does_not_end_it() {
    let bench = bench();
    let _sweep = Sweep(token(2));
    let how = "setsid -f $R > /dev/null 2>&1 < /dev/null";
    bench.run(Start { leaves: true, ..escape(&bench, 2, how, "exit 1") });
    // The next try of the same instance has another mark.
    let mut next = bench.bash(2, "exit 0");
    next.key.try_number = 2;
    next.env = vec![(MARK.to_owned(), mark(2_002))];
    bench.run(next);
    assert_eq!(bearers(&token(2)).len(), 1);
}

#[test]
fn many_orphans_do_not_make_the_supervisor_large() {
    let bench = bench();
    let _sweep = Sweep(token(2));
    let how = "for i in $(seq 200); do setsid -f sleep $T > /dev/null 2>&1; done; $R &";
    bench.run(escape(&bench, 2, how, "exit 0"));
    assert_gone(&token(2), "");
    assert!(own_memory(&bench) < OWN_MOST, "{} kB of its own", own_memory(&bench));
}

#[test]
fn a_pause_stops_all_of_a_task_and_its_timeout_until_it_goes_on() {
    let bench = bench();
    write_scripts(bench.home.path());
    let _sweep = bystander(&bench);
    for (&(what, how), instance) in ESCAPES.iter().chain(BELOW_THE_LEADER).zip(2..) {
        let _sweep = Sweep(token(instance));
        bench.client.start(vec![escape(&bench, instance, how, "sleep $T")]).unwrap();
        bench.started();
        bench.await_log(instance, "ready");
        bench.client.pause(key(instance));
        // Whoever was stopped between vfork and exec holds its parent up in the kernel: that stands still as well.
        let stands_still =
            |pid: i32| procfs::stat(pid).is_none_or(|stat| matches!(stat.state, b'T' | b'D' | b'Z' | b'X'));
        wait_until(&format!("{what} stands still"), || bearers(&token(instance)).into_iter().all(stands_still));
        bench.client.resume(key(instance));
        wait_until(&format!("{what} goes on"), || !bearers(&token(instance)).into_iter().all(stands_still));
        // What stands still acts on its kill signal all the same.
        bench.client.pause(key(instance));
        bench.client.kill(key(instance), "cancelled", Force::Graceful);
        bench.ended();
        assert_gone(&token(instance), what);
    }
    assert_undisturbed(&bench);
}

#[test]
fn a_timeout_counts_only_what_a_task_was_not_paused() {
    let bench = bench();
    let mut start = bench.bash(1, "echo ready; sleep 1000");
    start.timeout_ms = Some(2_000);
    bench.client.start(vec![start]).unwrap();
    bench.started();
    bench.client.pause(key(1));
    let until = Instant::now() + Duration::from_millis(2_500);
    while let Ok(notice) = bench.notices.recv_deadline(until) {
        assert_eq!(notice, Notice::Quiet, "it stands still");
    }
    bench.client.resume(key(1));
    assert_eq!(bench.ended().cause, Cause::TimedOut);
}
