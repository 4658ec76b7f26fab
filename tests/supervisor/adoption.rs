//! A supervisor whose scheduler is gone: its tasks go on, and whoever comes next is told of all of them.

use std::os::unix::fs::PermissionsExt;

use jiff::Timestamp;
use minflow::home_socket::SocketPath;
use minflow::supervisor::adopter::{self, AdoptedLine, Earlier, Heard, Inheritance};
use minflow::supervisor::adoption::{self, Ask, Ended, Lines, Name, SOCKET_SUFFIX, Told, Verdict, try_key};

use super::*;

/// A supervisor that keeps its tasks, greeted.
fn keeper(home: &Path) -> (Child, UnixStream, Decoder) {
    let (child, mut line) = raw(home);
    let mut decoder = Decoder::default();
    say(&mut line, &Request::Outlive);
    say(&mut line, &Request::Hello { version: protocol::VERSION });
    assert!(matches!(hear(&mut line, &mut decoder), Answer::Hello { .. }));
    (child, line, decoder)
}

fn start(line: &mut UnixStream, decoder: &mut Decoder, start: Start) -> i32 {
    say(line, &Request::Start(Box::new(start)));
    let Answer::Started { process, .. } = hear(line, decoder) else { panic!() };
    process.pid
}

/// A task that ends with the code when the home has a file `go`.
fn waits(home: &Path, instance: i64, code: i32) -> Start {
    bash(home, instance, &format!("echo ready; while [ ! -e go ]; do sleep 0.01; done; exit {code}"))
}

fn names(home: &Path, suffix: &str) -> Vec<Name> {
    let entries = fs::read_dir(home).unwrap().flatten();
    entries.filter_map(|entry| Name::of(entry.file_name().to_str()?, suffix)).collect()
}

/// The only supervisor that lives.
fn the_one(found: Inheritance) -> Earlier {
    assert!(found.faults.is_empty() && found.records.is_empty(), "{:?} {:?}", found.faults, found.records);
    let [earlier] = <[Earlier; 1]>::try_from(found.supervisors).ok().unwrap();
    earlier
}

struct Adopted {
    line: std::sync::Arc<AdoptedLine>,
    heard: Receiver<Heard>,
}

fn adopt(earlier: Earlier) -> Adopted {
    let line = earlier.line().unwrap();
    let (sender, heard) = channel::unbounded();
    std::thread::spawn(move || earlier.listen(|what| drop(sender.send(what))));
    Adopted { line, heard }
}

impl Adopted {
    fn ended(&self) -> End {
        match self.heard.recv_timeout(PATIENCE).unwrap() {
            Heard::Told(Told::Ended(ended)) => end_of(&ended),
            Heard::Told(other) => panic!("{other:?}"),
            Heard::Gone(_) => panic!("it has ended"),
        }
    }

    fn gone(&self) {
        assert!(matches!(self.heard.recv_timeout(PATIENCE).unwrap(), Heard::Gone(None)));
    }
}

fn end_of(ended: &Ended) -> End {
    match ended.verdict().unwrap() {
        Verdict::Ended(end) => *end,
        other @ Verdict::NotStarted { .. } => panic!("{other:?}"),
    }
}

/// What a supervisor that has ended has written down.
fn written(home: &Path) -> Vec<End> {
    let found = adopter::find(home, 0);
    assert!(found.supervisors.is_empty() && found.faults.is_empty(), "{:?}", found.faults);
    found.records.iter().flat_map(|records| records.ended.values()).map(end_of).collect()
}

#[test]
fn its_tasks_outlive_their_scheduler_and_the_next_one_hears_how_they_end() {
    let home = tempfile::tempdir().unwrap();
    let (mut first, mut line, mut decoder) = keeper(home.path());
    let mut task = waits(home.path(), 1, 7);
    (task.output_from, task.memo) = (5, "a memo".to_owned());
    let pid = start(&mut line, &mut decoder, task);
    drop(line);
    // It lets the lock go, so that the next one starts what is new.
    let (mut second, other, _) = keeper(home.path());
    assert!(lives(pid));
    let earlier = the_one(adopter::find(home.path(), second.id() as i32));
    let [runs] = &earlier.runs[..] else { panic!("{:?}", earlier.runs) };
    assert_eq!((try_key(runs.key), runs.kept.output_from, &*runs.kept.memo), (key(1), 5, "a memo"));
    assert_eq!(runs.process.as_ref().map(|process| process.pid), Some(pid));
    assert!(!runs.is_paused && earlier.ended.is_empty());
    let adopted = adopt(earlier);
    fs::write(home.path().join("go"), "").unwrap();
    let end = adopted.ended();
    assert_eq!((end.key, end.exit, end.cause), (key(1), Exit::Code(7), Cause::Itself));
    assert!(end.usage.max_rss > 0);
    assert_eq!(first.try_wait().unwrap(), None, "it ends before its end is recorded");
    adopted.line.acknowledge(&[key(1)]);
    assert!(first.wait().unwrap().success());
    adopted.gone();
    drop(other);
    assert!(second.wait().unwrap().success());
    assert_eq!(names(home.path(), SOCKET_SUFFIX), []);
    assert_eq!(written(home.path()), []);
}

#[test]
fn its_socket_is_private_and_lets_nobody_in_while_its_scheduler_is_there() {
    let folder = tempfile::tempdir().unwrap();
    // Deeper than a socket's address can say.
    let home = folder.path().join("d".repeat(100)).join("e".repeat(100));
    fs::create_dir_all(&home).unwrap();
    // As earlier ones left it: whoever may read it may lock it.
    fs::write(home.join("minflow.supervisor"), "").unwrap();
    fs::set_permissions(home.join("minflow.supervisor"), fs::Permissions::from_mode(0o644)).unwrap();
    let (mut child, line, _) = keeper(&home);
    let [name] = names(&home, SOCKET_SUFFIX)[..] else { panic!() };
    for private in [&*name.socket(), "minflow.supervisor"] {
        assert_eq!(fs::metadata(home.join(private)).unwrap().permissions().mode() & 0o777, 0o600, "{private}");
    }
    let mut early = UnixStream::connect(SocketPath::new(&home, &name.socket()).unwrap().path).unwrap();
    let mut hello = Vec::new();
    adoption::say(&Ask::Adopt { version: adoption::VERSION }, &mut hello);
    std::io::Write::write_all(&mut early, &hello).unwrap();
    early.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(std::io::Read::read(&mut early, &mut [0; 64]).is_err(), "it answers while it has a scheduler");
    drop(line);
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_ends_while_nobody_is_there_is_written_down_before_it_goes() {
    let home = tempfile::tempdir().unwrap();
    let (mut child, mut line, mut decoder) = keeper(home.path());
    // One is told of and not acknowledged, one is acknowledged, one cannot be started, two still run.
    for (instance, code) in [(1, 3), (2, 4)] {
        start(&mut line, &mut decoder, bash(home.path(), instance, &format!("exit {code}")));
        assert!(matches!(hear(&mut line, &mut decoder), Answer::Ended(_)));
    }
    say(&mut line, &Request::Acknowledge { keys: vec![key(2)] });
    let mut absent = bash(home.path(), 3, "");
    absent.argv[0] = "/no/such/program".to_owned();
    say(&mut line, &Request::Start(Box::new(absent)));
    assert!(matches!(hear(&mut line, &mut decoder), Answer::NotStarted { .. }));
    start(&mut line, &mut decoder, waits(home.path(), 4, 5));
    let mut late = bash(home.path(), 5, "trap '' TERM; echo ready; while :; do sleep 0.05; done");
    (late.timeout_ms, late.grace_ms) = (Some(1_000), 200);
    start(&mut line, &mut decoder, late);
    drop(line);
    fs::write(home.path().join("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
    let found = adopter::find(home.path(), 0);
    let [records] = &found.records[..] else { panic!("{:?}", found.faults) };
    let told: Vec<_> = records.ended.iter().map(|(key, ended)| (key.instance.0, ended.verdict().unwrap())).collect();
    let [
        (1, Verdict::Ended(first)),
        (3, Verdict::NotStarted { kind: Refusal::Permanent, message }),
        (4, Verdict::Ended(fourth)),
        (5, Verdict::Ended(fifth)),
    ] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!((first.exit, fourth.exit), (Exit::Code(3), Exit::Code(5)));
    assert!(message.contains("`/no/such/program` does not exist"), "{message}");
    // Nobody was there, and its timeout and its grace went on all the same.
    assert_eq!((fifth.exit, &fifth.cause), (Exit::Signal(9), &Cause::TimedOut));
    assert_eq!(fs::metadata(&records.path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_was_asked_for_before_the_scheduler_went_is_begun() {
    let home = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let (mut child, mut line, _) = keeper(home.path());
        for instance in 0..5 {
            let start = bash(home.path(), 10 * round + instance, "echo once; exit 6");
            say(&mut line, &Request::Start(Box::new(start)));
        }
        drop(line);
        assert!(child.wait().unwrap().success());
    }
    let ends = written(home.path());
    assert_eq!(ends.len(), 100);
    for end in ends {
        assert_eq!(end.exit, Exit::Code(6));
        let log = home.path().join(format!("{}.log", end.key.instance.0));
        assert_eq!(fs::read_to_string(log).unwrap(), "once\n");
    }
}

#[test]
fn tries_that_were_adopted_are_paused_resumed_and_killed() {
    let home = tempfile::tempdir().unwrap();
    let (mut child, mut line, mut decoder) = keeper(home.path());
    let mut paused = bash(home.path(), 1, "echo ready; sleep 1000");
    paused.timeout_ms = Some(1_500);
    let pid = start(&mut line, &mut decoder, paused);
    start(
        &mut line,
        &mut decoder,
        bash(home.path(), 2, "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done"),
    );
    for instance in [1, 2] {
        let log = home.path().join(format!("{instance}.log"));
        wait_until("a task", || fs::read_to_string(&log).unwrap().contains("ready"));
    }
    say(&mut line, &Request::Pause { key: key(1) });
    drop(line);
    let earlier = the_one(adopter::find(home.path(), 0));
    let paused: Vec<bool> = earlier.runs.iter().map(|runs| runs.is_paused).collect();
    assert_eq!(paused, [true, false]);
    let adopted = adopt(earlier);
    adopted.line.kill(key(2), "cleared", Force::Graceful);
    let end = adopted.ended();
    assert_eq!((end.key, end.exit), (key(2), Exit::Code(3)));
    assert_eq!(end.cause, Cause::Killed { reason: "cleared".to_owned() });
    let state = || procfs::stat(pid).is_some_and(|stat| !stat.has_ended());
    assert!(state(), "what stands still has no timeout");
    adopted.line.resume(key(1));
    let end = adopted.ended();
    assert_eq!((end.key, end.cause), (key(1), Cause::TimedOut));
    adopted.line.acknowledge(&[key(1), key(2)]);
    assert!(child.wait().unwrap().success());
}

#[test]
fn who_adopts_may_go_as_well_and_the_next_one_hears_of_all() {
    let home = tempfile::tempdir().unwrap();
    let (mut child, mut line, mut decoder) = keeper(home.path());
    start(&mut line, &mut decoder, bash(home.path(), 1, "while [ ! -e one ]; do sleep 0.01; done; exit 1"));
    start(&mut line, &mut decoder, waits(home.path(), 2, 2));
    drop(line);
    let adopted = adopt(the_one(adopter::find(home.path(), 0)));
    fs::write(home.path().join("one"), "").unwrap();
    assert_eq!(adopted.ended().exit, Exit::Code(1));
    adopted.line.hang_up();
    let earlier = loop {
        let earlier = the_one(adopter::find(home.path(), 0));
        if !earlier.ended.is_empty() {
            break earlier;
        }
    };
    assert_eq!(end_of(&earlier.ended[0]).exit, Exit::Code(1));
    assert_eq!(earlier.runs.len(), 1);
    let adopted = adopt(earlier);
    adopted.line.acknowledge(&[key(1)]);
    adopted.line.hang_up();
    fs::write(home.path().join("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
    let ends: Vec<Exit> = written(home.path()).into_iter().map(|end| end.exit).collect();
    assert_eq!(ends, [Exit::Code(2)], "what is acknowledged is written down no longer");
}

#[test]
fn a_scheduler_of_another_version_is_refused_and_the_tasks_go_on() {
    let home = tempfile::tempdir().unwrap();
    let (mut child, mut line, mut decoder) = keeper(home.path());
    let pid = start(&mut line, &mut decoder, waits(home.path(), 1, 0));
    drop(line);
    let [name] = names(home.path(), SOCKET_SUFFIX)[..] else { panic!() };
    let mut stranger = UnixStream::connect(home.path().join(name.socket())).unwrap();
    let mut hello = Vec::new();
    adoption::say(&Ask::Adopt { version: 999 }, &mut hello);
    adoption::say(&Ask::Kill { key: (1, 1), reason: "stranger".to_owned(), immediate: true }, &mut hello);
    std::io::Write::write_all(&mut stranger, &hello).unwrap();
    stranger.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = [0; 4096];
    let count = std::io::Read::read(&mut stranger, &mut bytes).unwrap();
    let mut lines = Lines::default();
    lines.feed(&bytes[..count]);
    let told: Vec<Told> = lines.take().unwrap();
    let [Told::Refused { message }] = &told[..] else { panic!("{told:?}") };
    assert!(message.contains("version 1") && message.contains("999"), "{message}");
    assert!(lives(pid));
    drop(stranger);
    fs::write(home.path().join("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn while_its_disk_takes_nothing_it_stays_until_somebody_asks() {
    let home = tempfile::tempdir().unwrap();
    let (mut child, mut line, mut decoder) = keeper(home.path());
    let [name] = names(home.path(), SOCKET_SUFFIX)[..] else { panic!() };
    fs::create_dir(home.path().join(name.records())).unwrap();
    start(&mut line, &mut decoder, bash(home.path(), 1, "exit 9"));
    assert!(matches!(hear(&mut line, &mut decoder), Answer::Ended(_)));
    drop(line);
    let (_second, other, _) = keeper(home.path());
    assert_eq!(child.try_wait().unwrap(), None);
    let own = _second.id() as i32;
    let earlier = the_one(adopter::find(home.path(), own));
    assert_eq!(end_of(&earlier.ended[0]).exit, Exit::Code(9));
    adopt(earlier).line.acknowledge(&[key(1)]);
    assert!(child.wait().unwrap().success());
    drop(other);
}

#[test]
fn without_its_home_nobody_asks_and_it_goes() {
    for is_followed in [false, true] {
        let home = tempfile::tempdir().unwrap();
        let (mut child, mut line, mut decoder) = keeper(home.path());
        start(&mut line, &mut decoder, waits(home.path(), 1, 0));
        drop(line);
        let away = home.path().with_extension("away");
        fs::rename(home.path(), &away).unwrap();
        if is_followed {
            // Another home takes its place, in which the same tries are others.
            fs::create_dir(home.path()).unwrap();
        }
        fs::write(away.join("go"), "").unwrap();
        wait_until("its end", || child.try_wait().unwrap().is_some());
        if is_followed {
            assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
        }
        fs::remove_dir_all(away).unwrap();
    }
}

#[test]
fn the_socket_of_a_dead_one_goes_also_if_its_number_has_come_again() {
    let home = tempfile::tempdir().unwrap();
    let (mut first, line, _) = keeper(home.path());
    first.kill().unwrap();
    first.wait().unwrap();
    drop(line);
    let [left] = names(home.path(), SOCKET_SUFFIX)[..] else { panic!() };
    let (mut second, line, _) = keeper(home.path());
    let own = second.id() as i32;
    fs::rename(home.path().join(left.socket()), home.path().join(Name { pid: own, ..left }.socket())).unwrap();
    let found = adopter::find(home.path(), own);
    assert!(found.supervisors.is_empty() && found.faults.is_empty(), "{:?}", found.faults);
    let dead = home.path().join(Name { pid: own, ..left }.socket());
    assert!(found.witnesses.files.contains(&dead), "it goes with the others");
    drop(line);
    assert!(second.wait().unwrap().success());
}

#[test]
fn of_one_that_was_killed_nothing_is_left_but_what_it_had_written() {
    let home = tempfile::tempdir().unwrap();
    let (mut child, mut line, mut decoder) = keeper(home.path());
    start(&mut line, &mut decoder, bash(home.path(), 1, "exit 9"));
    let pid = start_after_end(&mut line, &mut decoder, bash(home.path(), 2, "sleep 1000"));
    drop(line);
    wait_until("the record", || !names(home.path(), adoption::RECORDS_SUFFIX).is_empty());
    wait_until("the whole record", || {
        adopter::find(home.path(), child.id() as i32).supervisors.is_empty() && {
            let text = fs::read(home.path().join(names(home.path(), adoption::RECORDS_SUFFIX)[0].records())).unwrap();
            adoption::read_records(&text).unwrap().len() == 1
        }
    });
    child.kill().unwrap();
    child.wait().unwrap();
    minflow::supervisor::sys::kill(-pid, 9).unwrap();
    assert_eq!(written(home.path()).iter().map(|end| end.exit).collect::<Vec<_>>(), [Exit::Code(9)]);
    let [name] = names(home.path(), SOCKET_SUFFIX)[..] else { panic!() };
    let witnesses = adopter::find(home.path(), 0).witnesses;
    assert_eq!(witnesses.files, [home.path().join(name.socket())], "its socket tells that it was killed");
    assert!(!witnesses.know_of(Timestamp::now()));
}

#[test]
fn what_was_not_begun_is_known_if_all_earlier_supervisors_have_lived_and_not_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let knows = |own: i32| adopter::find(home, own).witnesses.know_of(Timestamp::now());
    assert!(!knows(0), "there was none");
    let before = Timestamp::now();
    let (mut first, mut line, mut decoder) = keeper(home);
    start(&mut line, &mut decoder, waits(home, 1, 4));
    drop(line);
    let (mut second, other, _) = keeper(home);
    let own = second.id() as i32;
    let witnesses = adopter::find(home, own).witnesses;
    assert!(witnesses.know_of(Timestamp::now()) && witnesses.files.is_empty(), "it lives, and says what it has");
    assert!(!witnesses.know_of(before), "it was not there yet");
    fs::write(home.join("go"), "").unwrap();
    assert!(first.wait().unwrap().success());
    assert!(knows(own), "it has left word of its one end");
    let [past] = names(home, adoption::PAST_SUFFIX)[..] else { panic!() };
    assert_eq!(adopter::find(home, own).witnesses.files, [home.join(past.past())]);
    // Its end is not where it was written.
    let text = fs::read(home.join(past.records())).unwrap();
    fs::write(home.join(past.records()), adoption::records_head()).unwrap();
    assert!(!knows(own));
    fs::write(home.join(past.records()), text).unwrap();
    assert!(knows(own));
    // Another boot's.
    let word = fs::read_to_string(home.join(past.past())).unwrap();
    fs::write(home.join(past.past()), word.replace(&procfs::boot_id(), "another")).unwrap();
    assert!(!knows(own));
    fs::write(home.join(past.past()), word).unwrap();
    // One that was killed and had the number that the own one has.
    let dead = Name { greeted_at: 1, pid: own };
    fs::write(home.join(dead.socket()), "").unwrap();
    assert!(!knows(own));
    fs::remove_file(home.join(dead.socket())).unwrap();
    assert!(knows(own));
    // The database is another one.
    adopter::discredit_all(home).unwrap();
    assert!(!knows(own));
    adopter::find(home, own).witnesses.files.iter().for_each(|file| fs::remove_file(file).unwrap());
    assert!(!knows(own), "all is forgotten");
    // The next one is killed beside one that has lived.
    drop(other);
    assert!(second.wait().unwrap().success());
    let (mut third, line, _) = keeper(home);
    assert!(knows(third.id() as i32));
    third.kill().unwrap();
    third.wait().unwrap();
    drop(line);
    assert!(!knows(0));
}

/// Starts one while the end of another may come before its start.
fn start_after_end(line: &mut UnixStream, decoder: &mut Decoder, start: Start) -> i32 {
    say(line, &Request::Start(Box::new(start)));
    loop {
        if let Answer::Started { process, .. } = hear(line, decoder) {
            return process.pid;
        }
    }
}
