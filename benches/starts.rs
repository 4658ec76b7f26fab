//! What a start costs, from the request to the end of `true`: bare, through the supervisor, strict, with limits, in a cgroup, as another user.
//!
//! `cargo bench --bench starts`. Whoever is not root, or has no cgroups of version 2, is told which lines are missing.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crossbeam::channel;
use minflow::model::{Enforce, InstanceKey, Limits, TryKey};
use minflow::supervisor::protocol::{Answer, Start, Tree, User};
use minflow::supervisor::{Notice, Origin, Supervise, SupervisorClient, Tasks, spawn};

const ROUNDS: usize = 500;
const PATIENCE: Duration = Duration::from_secs(30);

/// What is measured, and how long one round of it took.
type Case<'a> = (&'a str, Box<dyn FnMut() -> Duration + 'a>);

struct Bench {
    home: tempfile::TempDir,
    client: SupervisorClient,
    notices: channel::Receiver<Notice>,
    next: i64,
}

impl Bench {
    fn new(cgroup: Option<&Path>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (heard, notices) = channel::unbounded();
        let cgroup = cgroup.map_or("off", |folder| folder.to_str().unwrap()).to_owned();
        let exe = PathBuf::from(env!("CARGO_BIN_EXE_minflow"));
        let handle =
            spawn(&Origin { exe, home: home.path().to_owned(), cgroup: Some(cgroup), tasks: Tasks::EndWithIt })
                .unwrap();
        let client = SupervisorClient::connect(handle, move |notice| drop(heard.send(notice))).unwrap();
        fs::write(home.path().join("log"), "").unwrap();
        Self { home, client, notices, next: 1 }
    }

    fn once(&mut self, limits: Option<&Limits>, user: Option<&User>, tree: Tree) -> Duration {
        let key = TryKey { instance: InstanceKey(self.next), try_number: 1 };
        self.next += 1;
        let log = self.home.path().join("log");
        let start = Start {
            key,
            argv: vec!["/bin/true".to_owned()],
            cwd: "/".to_owned(),
            env: Vec::new(),
            env_removed: Vec::new(),
            limits: limits.cloned(),
            user: user.cloned(),
            log: log.to_str().unwrap().to_owned(),
            max_log_bytes: 1 << 30,
            timeout_ms: None,
            kill_signal: 15,
            grace_ms: 1_000,
            stdin: None,
            tree,
            leaves: false,
            wants_tail: false,
            output_from: 0,
            memo: String::new(),
        };
        let began = Instant::now();
        self.client.start(vec![start]).unwrap();
        loop {
            match self.notices.recv_timeout(PATIENCE).unwrap() {
                Notice::Answer(Answer::Ended(_)) => break,
                Notice::Answer(Answer::NotStarted { message, .. }) => panic!("{message}"),
                _ => {}
            }
        }
        let took = began.elapsed();
        self.client.acknowledge(&[key]);
        took
    }
}

/// Medians of what is measured in turns, so that what the host does meanwhile is in all of them.
fn medians(cases: &mut [Case<'_>]) -> Vec<Duration> {
    let mut times = vec![Vec::with_capacity(ROUNDS); cases.len()];
    for _ in 0..ROUNDS {
        for (times, (_, case)) in times.iter_mut().zip(cases.iter_mut()) {
            times.push(case());
        }
    }
    times
        .into_iter()
        .map(|mut times| {
            times.sort_unstable();
            times[times.len() / 2]
        })
        .collect()
}

fn bare() -> Duration {
    let began = Instant::now();
    assert!(Command::new("/bin/true").status().unwrap().success());
    began.elapsed()
}

/// A folder of the hierarchy of version 2 for this bench.
fn cgroup() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    let folder = PathBuf::from(mount.split(' ').nth(1)?).join(format!("minflow-bench-{}", std::process::id()));
    fs::create_dir(&folder).ok().map(|()| folder)
}

fn main() {
    let rlimits = Limits {
        open_files: Some(100),
        file_size: Some(1 << 30),
        nice: Some(1),
        umask: Some(0o027),
        enforce: Enforce::Require,
        ..Limits::default()
    };
    let in_group = Limits { memory: Some(1 << 30), processes: Some(100), ..Limits::default() };
    let nobody = User { name: "nobody".to_owned(), uid: 65_534, gid: 65_534, groups: vec![65_534] };
    let is_root = rustix::process::geteuid().is_root();
    let folder = cgroup();
    let (mut plain, mut strict) = (Bench::new(None), Bench::new(None));
    let (mut limited, mut other) = (Bench::new(None), Bench::new(None));
    let mut grouped = folder.as_deref().map(|folder| Bench::new(Some(folder)));
    let mut cases: Vec<Case<'_>> = vec![
        ("a bare spawn", Box::new(bare)),
        ("by the supervisor, in a session, accounted", Box::new(|| plain.once(None, None, Tree::Whole))),
        ("with a subreaper of its own (strict)", Box::new(|| strict.once(None, None, Tree::Strict))),
        ("with rlimits and priorities", Box::new(|| limited.once(Some(&rlimits), None, Tree::Whole))),
    ];
    if let Some(grouped) = &mut grouped {
        cases.push(("in a cgroup", Box::new(|| grouped.once(Some(&in_group), None, Tree::Whole))));
    }
    if is_root {
        cases.push(("as another user", Box::new(|| other.once(None, Some(&nobody), Tree::Whole))));
    }
    let small = medians(&mut cases);
    // The scheduler's memory is another process's, and must not matter.
    let ballast = vec![1_u8; 1 << 30];
    let large = medians(&mut cases);
    assert_eq!(ballast.iter().step_by(4096).filter(|byte| **byte == 1).count(), 1 << 18);
    println!("milliseconds for one `true`, medians of {ROUNDS}; beside it with 1 GiB more in this process");
    for (at, (name, _)) in cases.iter().enumerate() {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1_000.0;
        println!("{name:45} {:.3}  {:.3}", milliseconds(small[at]), milliseconds(large[at]));
    }
    let over = |a: usize, b: usize| (small[a].as_secs_f64() - small[b].as_secs_f64()) * 1_000.0;
    println!("supervised over bare: {:+.3} ms; strict over that: {:+.3} ms", over(1, 0), over(2, 1));
    println!("rlimits over supervised: {:+.3} ms", over(3, 1));
    match &folder {
        Some(_) => println!("a cgroup over supervised: {:+.3} ms", over(4, 1)),
        None => println!("no cgroups of version 2 that may be written to: not measured"),
    }
    if is_root {
        println!("another user over supervised: {:+.3} ms", over(cases.len() - 1, 1));
    } else {
        println!("not root: another user is not measured");
    }
    drop(cases);
    drop(grouped);
    if let Some(folder) = folder {
        let _ = fs::remove_dir(folder);
    }
}
