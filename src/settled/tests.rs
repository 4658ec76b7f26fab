use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, unbounded};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::supervisor::sys::counted;

const SETTLE: Duration = Duration::from_millis(60);
const PATIENCE: Duration = Duration::from_secs(20);

struct Stage {
    folder: TempDir,
    settled: Settled<u32>,
    told: Receiver<Told<u32>>,
    health: Health,
}

impl Stage {
    fn new() -> Self {
        Self::with(Eyes::open())
    }

    fn with(eyes: Eyes<u32>) -> Self {
        let (sender, told) = unbounded();
        let health = Health::default();
        let tell = move |news| sender.send(news).unwrap();
        let settled = Settled::start_with(eyes, "files", health.clone(), tell).unwrap();
        Self { folder: TempDir::new().unwrap(), settled, told, health }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn watch(&self, key: u32, pattern: &str, until: Until) {
        let pattern = Pattern::parse(self.path(pattern).to_str().unwrap()).unwrap();
        self.settled.watch(key, Wish { pattern, settle: SETTLE, look_every: Duration::from_millis(100), until });
    }

    fn next(&self) -> Told<u32> {
        self.told.recv_timeout(PATIENCE).expect("something is told in time")
    }

    /// The files that are told next, relative to the folder.
    fn next_files(&self) -> Vec<String> {
        let files = self.next().files.into_iter();
        let name = |file: SettledFile| file.path.strip_prefix(self.folder.path()).unwrap().to_str().unwrap().to_owned();
        files.map(name).collect()
    }
}

#[test]
fn a_file_that_comes_is_told_once_it_has_settled() {
    let stage = Stage::new();
    stage.watch(1, "*.csv", Until::Forgotten);
    fs::write(stage.path("a.txt"), "x").unwrap();
    let before = Instant::now();
    fs::write(stage.path("a.csv"), "x").unwrap();
    let told = stage.next();
    assert!(before.elapsed() >= SETTLE - Duration::from_millis(20), "the kernel's clock of files ticks coarsely");
    assert_eq!((told.key, told.files.len(), told.files[0].stamp.size), (1, 1, 1));
    assert_eq!(told.files[0].path, stage.path("a.csv"));
}

#[test]
fn a_file_that_is_being_written_is_not_told() {
    let stage = Stage::new();
    stage.watch(1, "*.csv", Until::Forgotten);
    let path = stage.path("a.csv");
    let started = Instant::now();
    let mut text = String::new();
    while started.elapsed() < SETTLE * 6 {
        text.push('x');
        fs::write(&path, &text).unwrap();
        std::thread::sleep(Duration::from_millis(3));
    }
    let told = stage.next();
    // A host that stalls between two writes may let a shorter one settle; the last is told in any case.
    let mut sizes: Vec<u64> = told.files.iter().map(|file| file.stamp.size).collect();
    while sizes.last() != Some(&(text.len() as u64)) {
        sizes.extend(stage.next().files.iter().map(|file| file.stamp.size));
    }
    assert!(sizes.len() <= 3, "{sizes:?}");
}

#[test]
fn what_was_renamed_into_place_is_told_and_what_has_gone_too() {
    let stage = Stage::new();
    fs::write(stage.path("a.part"), "x").unwrap();
    stage.watch(1, "*.csv", Until::Forgotten);
    fs::rename(stage.path("a.part"), stage.path("a.csv")).unwrap();
    assert_eq!(stage.next_files(), ["a.csv"]);
    fs::remove_file(stage.path("a.csv")).unwrap();
    assert_eq!(stage.next().gone, [stage.path("a.csv")]);
}

#[test]
fn who_waits_for_the_first_file_is_told_once() {
    let stage = Stage::new();
    fs::write(stage.path("a.csv"), "x").unwrap();
    stage.watch(1, "*.csv", Until::First);
    assert_eq!(stage.next_files(), ["a.csv"]);
    fs::write(stage.path("b.csv"), "x").unwrap();
    stage.watch(2, "b.*", Until::First);
    assert_eq!(stage.next().key, 2);
    assert!(stage.told.is_empty());
}

#[test]
fn a_folder_that_is_missing_may_come_and_go_and_come_again() {
    let stage = Stage::new();
    stage.watch(1, "deep/in/*.csv", Until::Forgotten);
    for name in ["a.csv", "b.csv"] {
        fs::create_dir_all(stage.path("deep/in")).unwrap();
        fs::write(stage.path("deep/in").join(name), "x").unwrap();
        assert_eq!(stage.next_files(), [format!("deep/in/{name}")]);
        fs::remove_dir_all(stage.path("deep")).unwrap();
        assert_eq!(stage.next().gone.len(), 1);
    }
}

#[test]
fn a_folder_that_is_replaced_by_another_is_the_one_that_counts() {
    let stage = Stage::new();
    fs::create_dir(stage.path("in")).unwrap();
    stage.watch(1, "in/*", Until::Forgotten);
    fs::write(stage.path("in/a"), "x").unwrap();
    assert_eq!(stage.next_files(), ["in/a"]);
    fs::create_dir(stage.path("new")).unwrap();
    fs::write(stage.path("new/b"), "x").unwrap();
    fs::rename(stage.path("in"), stage.path("old")).unwrap();
    fs::rename(stage.path("new"), stage.path("in")).unwrap();
    let mut files = BTreeSet::new();
    while !files.contains("in/b") {
        files.extend(stage.next_files());
    }
    fs::write(stage.path("in/c"), "x").unwrap();
    assert_eq!(stage.next_files(), ["in/c"]);
}

#[test]
fn folders_that_come_below_a_double_star_are_seen_and_hidden_ones_are_not() {
    let stage = Stage::new();
    stage.watch(1, "**/*.csv", Until::Forgotten);
    fs::create_dir_all(stage.path(".hidden")).unwrap();
    fs::write(stage.path(".hidden/a.csv"), "x").unwrap();
    fs::create_dir_all(stage.path("x/y")).unwrap();
    fs::write(stage.path("x/y/b.csv"), "x").unwrap();
    assert_eq!(stage.next_files(), ["x/y/b.csv"]);
    fs::write(stage.path("x/c.csv"), "x").unwrap();
    assert_eq!(stage.next_files(), ["x/c.csv"]);
}

#[test]
fn what_comes_after_the_first_look_did_not_lie_there_however_old_it_is() {
    let stage = Stage::new();
    fs::create_dir_all(stage.path("in/first")).unwrap();
    fs::create_dir(stage.path("later")).unwrap();
    for name in ["in/first/a", "later/b", "c"] {
        fs::write(stage.path(name), "x").unwrap();
    }
    let age = fs::metadata(stage.path("c")).unwrap().ctime_nsec();
    until_the_clock_of_files_leaves(&stage, age);
    stage.watch(1, "in/*/*", Until::Forgotten);
    let told = stage.next().files.remove(0);
    assert_eq!((told.path, told.lay_there), (stage.path("in/first/a"), true));
    fs::rename(stage.path("later"), stage.path("in/later")).unwrap();
    let told = stage.next().files.remove(0);
    assert_eq!((told.path, told.lay_there), (stage.path("in/later/b"), false));
    std::os::unix::fs::symlink(stage.path("c"), stage.path("in/first/c")).unwrap();
    let told = stage.next().files.remove(0);
    assert_eq!((told.path, told.lay_there), (stage.path("in/first/c"), false));
    let target = fs::metadata(stage.path("c")).unwrap();
    let of_target = target.ctime() * 1_000_000_000 + target.ctime_nsec();
    assert!(told.changed_at > of_target, "a link is as old as itself");
}

/// The clock of files ticks coarsely: two files of one tick could not be told apart.
fn until_the_clock_of_files_leaves(stage: &Stage, nanosecond: i64) {
    let (probe, started) = (stage.path("probe"), Instant::now());
    while started.elapsed() < PATIENCE {
        fs::write(&probe, "x").unwrap();
        if fs::metadata(&probe).unwrap().ctime_nsec() != nanosecond {
            return fs::remove_file(&probe).unwrap();
        }
        fs::remove_file(&probe).unwrap();
    }
    panic!("the clock of files stands still");
}

#[test]
fn a_folder_may_stand_for_the_files_in_it() {
    let stage = Stage::new();
    let pattern = Pattern::parse(stage.path("day").to_str().unwrap()).unwrap().with_folders();
    stage.settled.watch(1, Wish { pattern, settle: SETTLE, look_every: PATIENCE, until: Until::First });
    fs::create_dir_all(stage.path("day/deep")).unwrap();
    fs::write(stage.path("day/deep/a"), "x").unwrap();
    assert_eq!(stage.next_files(), ["day/deep/a"]);
}

#[test]
fn two_paths_to_one_folder_are_both_told() {
    let stage = Stage::new();
    fs::create_dir(stage.path("in")).unwrap();
    std::os::unix::fs::symlink(stage.path("in"), stage.path("link")).unwrap();
    stage.watch(1, "in/*", Until::Forgotten);
    stage.watch(2, "link/*", Until::Forgotten);
    fs::write(stage.path("in/a"), "x").unwrap();
    let keys = BTreeSet::from([stage.next().key, stage.next().key]);
    assert_eq!(keys, [1, 2].into());
    stage.settled.forget(1);
    fs::write(stage.path("in/b"), "x").unwrap();
    let told = stage.next();
    assert_eq!((told.key, told.files[0].path.clone()), (2, stage.path("link/b")));
}

#[test]
fn one_pattern_may_reach_a_folder_by_two_paths_and_loses_one_of_them() {
    let stage = Stage::new();
    fs::create_dir(stage.path("in")).unwrap();
    std::os::unix::fs::symlink(stage.path("in"), stage.path("link")).unwrap();
    stage.watch(1, "*/*", Until::Forgotten);
    fs::write(stage.path("in/a"), "x").unwrap();
    let mut told = stage.next_files();
    while told.len() < 2 {
        told.extend(stage.next_files());
    }
    assert_eq!(told, ["in/a", "link/a"]);
    fs::remove_file(stage.path("link")).unwrap();
    assert_eq!(stage.next().gone, [stage.path("link/a")]);
    fs::write(stage.path("in/b"), "x").unwrap();
    assert_eq!(stage.next_files(), ["in/b"]);
}

#[test]
fn a_thousand_files_at_once_are_all_told() {
    let stage = Stage::new();
    stage.watch(1, "*", Until::Forgotten);
    let names: BTreeSet<String> = (0..2_500).map(|number| format!("f{number}")).collect();
    for name in &names {
        // Empty: on a busy host one with content could be seen, and settle, between its creation and its first byte.
        fs::File::create(stage.path(name)).unwrap();
    }
    let mut told = BTreeSet::new();
    while told.len() < names.len() {
        let files = stage.next_files();
        assert!(files.len() <= MOST_AT_ONCE);
        for file in files {
            assert!(told.insert(file), "told twice");
        }
    }
    assert_eq!(told, names);
}

#[test]
fn a_health_condition_is_not_raised_where_the_kernel_watches() {
    let stage = Stage::new();
    stage.watch(1, "*", Until::Forgotten);
    fs::write(stage.path("a"), "x").unwrap();
    stage.next();
    assert!(stage.health.reasons().is_empty());
}

/// What the health board says of files, once it says something.
fn said(stage: &Stage) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(reason) = stage.health.reasons().into_iter().next() {
            return reason;
        }
        assert!(Instant::now() < deadline, "nothing is said of a limit");
        std::thread::yield_now();
    }
}

#[test]
fn beyond_the_limit_of_watches_it_looks_and_says_so_until_the_last_that_is_only_looked_at_is_forgotten() {
    let stage = Stage::with(Eyes::with_room(1));
    for folder in ["one", "two"] {
        fs::create_dir(stage.path(folder)).unwrap();
    }
    stage.watch(1, "one/*", Until::Forgotten);
    stage.watch(2, "two/*", Until::Forgotten);
    let reason = said(&stage);
    let (pattern, why) = (stage.path("two/*"), "the limit of inotify watches is reached; raise it with");
    let expected = format!("files: `{}` is looked at every 0.1 s instead of watched: {why}", pattern.display());
    assert!(reason.starts_with(&expected), "{reason}");
    fs::write(stage.path("two/late"), "x").unwrap();
    assert_eq!(stage.next_files(), ["two/late"], "it is found all the same");
    fs::write(stage.path("one/late"), "x").unwrap();
    assert_eq!(stage.next_files(), ["one/late"]);
    stage.settled.forget(2);
    // Orders are taken up one after the other.
    stage.watch(3, "one/late", Until::First);
    assert_eq!(stage.next_files(), ["one/late"]);
    assert!(stage.health.reasons().is_empty(), "{:?}", stage.health.reasons());
}

#[test]
fn without_an_inotify_instance_it_looks_and_says_so() {
    let stage = Stage::with(Eyes::closed());
    stage.watch(1, "*", Until::Forgotten);
    let reason = said(&stage);
    assert!(reason.contains("instead of watched: no inotify instance is left; raise the limit with"), "{reason}");
    fs::write(stage.path("late"), "x").unwrap();
    assert_eq!(stage.next_files(), ["late"]);
}

#[derive(Clone, Debug)]
enum Move {
    Write(u8, u8),
    Rename(u8, u8),
    Remove(u8),
    Rest,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => (0..5_u8, 1..200_u8).prop_map(|(file, size)| Move::Write(file, size)),
        2 => (0..8_u8, 0..8_u8).prop_map(|(from, to)| Move::Rename(from, to)),
        1 => (0..8_u8).prop_map(Move::Remove),
        2 => Just(Move::Rest),
    ];
    prop::collection::vec(one, 1..25)
}

/// Names from 5 on do not match the pattern.
fn name(number: u8) -> String {
    let end = if number < 5 { "csv" } else { "part" };
    format!("f{number}.{end}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is written, renamed and removed: what lies there at the end is told exactly once as it is, and nothing twice
    /// without having gone in between.
    #[test]
    fn each_file_is_told_once_as_it_settles(moves in moves()) {
        let stage = Stage::new();
        stage.watch(1, "*.csv", Until::Forgotten);
        for step in moves {
            match step {
                Move::Write(file, size) => fs::write(stage.path(&name(file)), vec![b'x'; usize::from(size)]).unwrap(),
                // What is not there cannot be moved.
                Move::Rename(from, to) => drop(fs::rename(stage.path(&name(from)), stage.path(&name(to)))),
                Move::Remove(file) => drop(fs::remove_file(stage.path(&name(file)))),
                Move::Rest => std::thread::sleep(SETTLE / 2),
            }
        }
        fs::write(stage.path("z-last.csv"), "x").unwrap();
        let mut there = BTreeMap::new();
        for entry in fs::read_dir(stage.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "csv") {
                let stamp = stamp_of(&path);
                there.insert(path, stamp);
            }
        }
        let mut last: BTreeMap<PathBuf, Stamp> = BTreeMap::new();
        // The clock of files ticks coarsely: one that is as old as another may settle a little later.
        while last != there {
            let told = stage.next();
            for path in told.gone {
                last.remove(&path);
            }
            for file in told.files {
                let before = last.insert(file.path.clone(), file.stamp);
                prop_assert_ne!(before, Some(file.stamp), "told twice");
            }
        }
    }
}

/// What is held for each of a thousand that wait, if they wait in folders of this name.
fn bytes_of_one(folder_of: impl Fn(u64) -> String) -> isize {
    const WISHES: u64 = 1_000;
    let stage = TempDir::new().unwrap();
    for number in 0..WISHES {
        fs::create_dir_all(stage.path().join(folder_of(number))).unwrap();
    }
    let mut watcher = Watcher::new("files", Health::default(), Eyes::open(), Box::new(|_| panic!("nothing is there")));
    let patterns: Vec<_> = (0..WISHES)
        .map(|number| stage.path().join(folder_of(number)).join(format!("partner_{number:04}-*.csv")))
        .map(|path| Pattern::parse(path.to_str().unwrap()).unwrap().with_folders())
        .collect();
    let before = counted::live();
    for (number, pattern) in (0..WISHES).zip(&patterns) {
        let (settle, look_every) = (Duration::from_secs(2), Duration::from_secs(60));
        // As long as the key of a try.
        watcher.take_up(
            (number, 1),
            Wish { pattern: pattern.clone(), settle, look_every, until: Until::First },
            Vec::new(),
        );
    }
    watcher.work_off();
    (counted::live() - before) / WISHES as isize
}

#[test]
fn who_waits_for_a_file_holds_a_few_hundred_bytes() {
    let together = bytes_of_one(|_| "landing".to_owned());
    let apart = bytes_of_one(|number| format!("landing/partner_{number:04}"));
    // With what the world holds for it, which has a bound of its own, a sensor is within 1,024 bytes.
    assert!(together <= 224 && apart <= 264, "in one folder {together}, in folders of their own {apart}");
}

fn stamp_of(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).unwrap();
    let modified_at = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
    Stamp { inode: metadata.ino(), size: metadata.len(), modified_at }
}
