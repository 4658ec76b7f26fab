//! A demonstration: 200 tasks of 200 MB each, with 2 GB that may be reserved, never are more than ten at once; the same without `needs`.
//!
//! `cargo bench --bench needs`. It judges no time, so `--profile dev` does as well. What runs is counted each twentieth of a second in
//! `/proc`, from outside: the children of the supervisor are the tasks, and what they hold is the anonymous memory of all that stands below
//! them. Without `needs` there are as many at once as `core.parallelism` lets, which is chosen so that this host bears it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const TASKS: usize = 200;
const MEGABYTES: u64 = 200;
/// What `admission.memory` lets be reserved, in megabytes.
const RESERVABLE: u64 = 2_000;
/// What is left of the host's free memory for others.
const SPARED: u64 = 6_000;
/// Of those that `needs` does not hold back, as many at once as this at most.
const PARALLELISM: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(900);

/// What was at once, at most.
#[derive(Default)]
struct Most {
    tasks: usize,
    megabytes: u64,
    samples: usize,
    seconds: f64,
}

fn main() -> ExitCode {
    let bearable = free_megabytes().saturating_sub(SPARED) / MEGABYTES;
    let parallelism = PARALLELISM.min(bearable);
    if parallelism <= RESERVABLE / MEGABYTES {
        eprintln!(
            "error: this host has too little free memory to show a difference\nhelp: free some, so that 9 GB are available"
        );
        return ExitCode::FAILURE;
    }
    println!(
        "{TASKS} tasks of {MEGABYTES} MB each; parallelism {parallelism}; [admission] memory = \"{RESERVABLE}MB\""
    );
    let with = run(parallelism, &format!("needs = {{ memory = \"{MEGABYTES}MB\" }}\n"));
    told("with needs", &with);
    let without = run(parallelism, "");
    told("without", &without);
    let bound = (RESERVABLE / MEGABYTES) as usize;
    if with.tasks > bound || without.tasks <= bound {
        eprintln!("error: with needs at most {bound} may be there at once, and without them more should be");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn told(what: &str, most: &Most) {
    let Most { tasks, megabytes, samples, seconds } = most;
    println!(
        "{what:>10}: at most {tasks:>3} at once, which held {megabytes:>6} MB together ({seconds:.0} s, {samples} looks)"
    );
}

/// All of the tasks in one run, in a home of their own.
fn run(parallelism: u64, needs: &str) -> Most {
    let home = tempfile::tempdir().expect("the host has a folder for temporary files");
    let settings = format!(
        "[core]\nparallelism = {parallelism}\nmax_active_tasks_per_dag = {TASKS}\n[admission]\nmemory = \"{RESERVABLE}MB\"\n"
    );
    fs::create_dir(home.path().join("dags")).expect("a new folder takes a folder");
    fs::write(home.path().join("airflow.toml"), settings).expect("a new folder takes a file");
    // dd fills its buffer and waits for a reader that never reads; with that reader's end it ends, too.
    let hold = format!("dd if=/dev/zero bs={MEGABYTES}000000 count=1 2> /dev/null | sleep 2");
    let mut text = String::new();
    for number in 0..TASKS {
        write!(text, "[tasks.t{number}]\nbash = \"{hold}\"\n{needs}").expect("a text takes more");
    }
    fs::write(home.path().join("dags/fat.toml"), text).expect("the dags folder takes a file");
    let mut minflow = Minflow::start(home.path());
    let supervisor = minflow.supervisor();
    let began = Instant::now();
    let mut trigger =
        command(home.path(), &["dags", "trigger", "fat", "--wait"]).spawn().expect("the binary was built");
    let mut most = Most::default();
    let status = loop {
        let (tasks, megabytes) = below(supervisor);
        most.tasks = most.tasks.max(tasks);
        most.megabytes = most.megabytes.max(megabytes);
        most.samples += 1;
        if let Some(status) = trigger.try_wait().expect("it is our child") {
            break status;
        }
        assert!(began.elapsed() < PATIENCE, "the run does not end");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "the run failed");
    most.seconds = began.elapsed().as_secs_f64();
    minflow.stop();
    most
}

fn command(home: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minflow"));
    command.arg("--home").arg(home).args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("MINFLOW_") || text.starts_with("AIRFLOW_") || text == "RUST_LOG" {
            command.env_remove(&name);
        }
    }
    command
}

/// Dropped, it is ended with all that it runs.
struct Minflow(Child);

impl Minflow {
    /// Started, with the DAG live.
    fn start(home: &Path) -> Self {
        let minflow =
            Self(command(home, &["run", "--port", "0"]).spawn().expect("the binary was built with this bench"));
        let began = Instant::now();
        let is_live = || command(home, &["dags", "details", "fat"]).status().is_ok_and(|status| status.success());
        while !(home.join("minflow.sock").exists() && is_live()) {
            assert!(began.elapsed() < Duration::from_secs(60), "minflow does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        minflow
    }

    fn supervisor(&self) -> u32 {
        let parents = parents();
        let is_supervisor = |pid: &u32| {
            let shown = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            shown.split(|&byte| byte == 0).any(|argument| argument == b"supervise")
        };
        let own = parents.iter().filter(|(_, parent)| **parent == self.0.id()).map(|(&pid, _)| pid);
        own.into_iter().find(is_supervisor).expect("minflow has a supervisor")
    }

    fn stop(&mut self) {
        let pid = Pid::from_child(&self.0);
        // A second signal has it end what still runs.
        for _ in 0..2 {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

impl Drop for Minflow {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

/// How many tasks there are, and what all below them hold, in megabytes.
fn below(supervisor: u32) -> (usize, u64) {
    let parents = parents();
    let is_below = |&pid: &u32| {
        let line = std::iter::successors(Some(pid), |pid| parents.get(pid).copied());
        line.skip(1).take(64).any(|above| above == supervisor)
    };
    let tasks = parents.values().filter(|&&parent| parent == supervisor).count();
    let kilobytes: u64 = parents.keys().copied().filter(is_below).map(anonymous_kilobytes).sum();
    (tasks, kilobytes / 1_000)
}

/// The parent of each process.
fn parents() -> BTreeMap<u32, u32> {
    let pids = fs::read_dir("/proc").expect("Linux has /proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parent = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        Some((pid, rest.split(' ').nth(1)?.parse().ok()?))
    };
    pids.filter_map(parent).collect()
}

/// 0 of a process that has ended.
fn anonymous_kilobytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    kilobytes(&text, "RssAnon:") * 1_024 / 1_000
}

fn free_megabytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kilobytes(&text, "MemAvailable:") * 1_024 / 1_000_000
}

fn kilobytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim_end_matches("kB").trim().parse().unwrap_or_default()
}
