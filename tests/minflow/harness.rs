//! A home in a temporary folder, the minflow that runs on it, and commands beside it. What is started here is ended here, by its
//! number; every wait is for a condition and has a deadline.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes on a busy host, whose disk may keep a commit waiting for half a minute.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Asks until there is an answer.
pub fn until<T>(what: &str, answer: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, answer)
}

pub fn within<T>(patience: Duration, what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process of the test's own; dropping it ends it.
pub struct Beside {
    child: Child,
    lines: Receiver<String>,
}

impl Beside {
    /// Starts it; `heard` is which of its outputs is listened to.
    pub fn start(mut command: Command, heard: Heard) -> Self {
        match heard {
            Heard::Out => command.stdout(Stdio::piped()),
            Heard::Err => command.stderr(Stdio::piped()),
        };
        let mut child = command.spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let output: Box<dyn Read + Send> = match heard {
            Heard::Out => Box::new(child.stdout.take().unwrap()),
            Heard::Err => Box::new(child.stderr.take().unwrap()),
        };
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The next line, without its end; none is left when it has ended.
    pub fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("waited in vain for a line"),
        }
    }

    pub fn write(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub fn await_end(&mut self) -> ExitStatus {
        until("the end of a process", || self.ended())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An output of a process.
#[derive(Clone, Copy)]
pub enum Heard {
    Out,
    Err,
}

pub fn is_alive(pid: i32) -> bool {
    // What is dead and not yet awaited has no command line.
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
        && fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

pub fn signal(pid: i32, signal: Signal) {
    // It may have ended already.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), signal);
}

/// What a command left behind.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn texts(&self) -> (Option<i32>, &str, &str) {
        (self.code, &self.out, &self.err)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub struct Home {
    folder: TempDir,
    path: PathBuf,
    /// Whom commands run as, by a binary of the home's own; None: who runs the tests, by the binary that was built.
    user: Option<u32>,
}

/// `nobody` by custom; a user without rights in any case.
const COMMON_USER: u32 = 65_534;

impl Home {
    pub fn new() -> Self {
        Self::below("")
    }

    /// A home some folders down.
    pub fn below(folders: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join(folders).components().collect();
        fs::create_dir_all(path.join("dags")).unwrap();
        Self { folder, path, user: None }
    }

    /// The home of a user who is bound by what binds all but root.
    pub fn of_common_user() -> Self {
        let mut home = Self::new();
        if rustix::process::geteuid().is_root() {
            // The one that was built may lie where nobody else may look.
            copy_program(env!("CARGO_BIN_EXE_minflow"), &home.file("minflow"));
            for path in [home.path.clone(), home.file("dags"), home.file("minflow")] {
                chown(path, Some(COMMON_USER), Some(COMMON_USER)).unwrap();
            }
            home.user = Some(COMMON_USER);
        }
        home
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file under the home.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub fn dag(&self, dag_id: &str, text: &str) {
        self.write(&format!("dags/{dag_id}.toml"), text);
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    pub fn command(&self, words: &str) -> Command {
        let built = PathBuf::from(env!("CARGO_BIN_EXE_minflow"));
        let mut command = self.command_of(self.user.map_or(built, |_| self.file("minflow")), words);
        self.settle(&mut command);
        command
    }

    /// Any program, as the user of the home.
    pub fn command_of(&self, program: impl AsRef<OsStr>, words: &str) -> Command {
        let mut command = Command::new(program);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.args(words.split_whitespace());
        command
    }

    /// The same folder and environment for any program.
    pub fn settle(&self, command: &mut Command) {
        command.current_dir(&self.path).env_clear().env("TZ", "UTC").env("PATH", std::env::var("PATH").unwrap());
    }

    /// Runs a command to its end; `HOME` in what it printed stands for the home's path.
    pub fn cli(&self, words: &str) -> Ran {
        let done = self.command(words).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(self.path.to_str().unwrap(), "HOME");
        Ran { code: done.status.code(), out: text(&done.stdout), err: text(&done.stderr) }
    }

    pub fn json(&self, words: &str) -> Value {
        let ran = self.cli(&format!("{words} -o json"));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.json()
    }

    /// `minflow run`, up and serving.
    pub fn start(&self) -> Minflow {
        self.start_as(self.command("run --port 0"))
    }

    /// The same by a command of the test's own, which must end up as minflow (`exec`).
    pub fn start_as(&self, command: Command) -> Minflow {
        let mut minflow = self.launch(command);
        let line = until("the first line of standard error", || {
            let said = minflow.said();
            let line = said.lines().find(|line| line.contains(" runs on ")).map(str::to_owned);
            assert!(line.is_some() || minflow.ended().is_none(), "it ended: {said}");
            line
        });
        let (_, address) = line.split_once("http://").unwrap();
        minflow.address = address.to_owned();
        minflow
    }

    /// Starts it without waiting for its address.
    pub fn launch(&self, mut command: Command) -> Minflow {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (mut lines, heard) = (BufReader::new(child.stderr.take().unwrap()), said.clone());
        std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
                heard.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        Minflow { child, address: String::new(), said, home: self.path.clone() }
    }

    /// Starts a run and gives it time to end.
    pub fn run_dag(&self, dag_id: &str, run_id: &str) -> Ran {
        self.cli(&format!("dags trigger {dag_id} --run-id {run_id} --wait"))
    }

    /// Starts a run.
    pub fn trigger(&self, dag_id: &str, run_id: &str) {
        assert_eq!(
            self.cli(&format!("dags trigger {dag_id} --run-id {run_id}")).texts(),
            (Some(0), &*format!("{run_id}\n"), "")
        );
    }

    /// Starts a run with a conf, which has no blanks.
    pub fn trigger_with(&self, dag_id: &str, run_id: &str, conf: &str) {
        let ran = self.cli(&format!("dags trigger {dag_id} --run-id {run_id} --conf {conf}"));
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    /// The task instances of a run.
    pub fn tasks(&self, dag_id: &str, run_id: &str) -> Vec<Value> {
        self.json(&format!("tasks states-for-dag-run {dag_id} {run_id}")).as_array().unwrap().clone()
    }

    /// One of them.
    pub fn task(&self, dag_id: &str, run_id: &str, task_id: &str) -> Value {
        let tasks = self.tasks(dag_id, run_id);
        tasks
            .iter()
            .find(|task| task["task_id"] == task_id)
            .unwrap_or_else(|| panic!("no {task_id}: {tasks:?}"))
            .clone()
    }

    /// The runs of a DAG, newest first.
    pub fn runs(&self, dag_id: &str) -> Vec<Value> {
        self.json(&format!("dags list-runs {dag_id}")).as_array().unwrap().clone()
    }

    pub fn run_state(&self, dag_id: &str, run_id: &str) -> String {
        let runs = self.runs(dag_id);
        let run = runs.iter().find(|run| run["run_id"] == run_id).unwrap_or_else(|| panic!("no {run_id}: {runs:?}"));
        run["state"].as_str().unwrap().to_owned()
    }

    pub fn await_run(&self, dag_id: &str, run_id: &str) -> String {
        until(&format!("the end of {dag_id} {run_id}"), || {
            let state = self.run_state(dag_id, run_id);
            matches!(&*state, "success" | "failed").then_some(state)
        })
    }

    /// The log of a try.
    pub fn log(&self, dag_id: &str, run_id: &str, task_id: &str, try_number: u32) -> String {
        self.read(&format!("logs/dag_id={dag_id}/run_id={run_id}/task_id={task_id}/attempt={try_number}.log"))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A test may have taken the right to list a folder away.
        let _ = fs::set_permissions(self.file("dags"), std::os::unix::fs::PermissionsExt::from_mode(0o755));
        // What a minflow has left running, which a test may have wanted, must not outlive the home.
        end_supervisors(&self.path);
        let _ = self.folder.path();
    }
}

/// A running `minflow run`.
pub struct Minflow {
    child: Child,
    pub address: String,
    said: Arc<Mutex<String>>,
    home: PathBuf,
}

impl Minflow {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn supervisor(&self) -> i32 {
        named_supervisor(&self.home).expect("the home names its supervisor")
    }

    /// What it has written to standard error.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub fn await_end(&mut self) -> ExitStatus {
        until("the end of minflow", || self.ended())
    }

    /// SIGKILL, and nothing before it.
    pub fn kill(&mut self) {
        signal(self.pid(), Signal::KILL);
        assert_eq!(self.await_end().signal(), Some(9), "{}", self.said());
    }

    /// SIGTERM, and its end, which must be a good one.
    pub fn stop(&mut self) {
        signal(self.pid(), Signal::TERM);
        assert_eq!(self.await_end().code(), Some(0), "{}", self.said());
    }

    /// `minflow stop --keep-running`, and its end.
    pub fn stop_keeping(&mut self) {
        let exe = fs::read_link(format!("/proc/{}/exe", self.pid())).unwrap();
        let done = Command::new(exe).args(["stop", "--keep-running", "--home"]).arg(&self.home).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        assert_eq!(self.await_end().code(), Some(0), "{}", self.said());
    }

    /// The status and the body of an answer.
    pub fn get(&self, path: &str) -> (u16, Value) {
        self.try_get(path).unwrap_or_else(|| panic!("no answer of {path}: {}", self.said()))
    }

    pub fn try_get(&self, path: &str) -> Option<(u16, Value)> {
        let mut line = TcpStream::connect(&self.address).ok()?;
        line.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(line, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address).ok()?;
        let mut answer = String::new();
        line.read_to_string(&mut answer).ok()?;
        let status = answer.split_whitespace().nth(1)?.parse().ok()?;
        let body = answer.split_once("\r\n\r\n")?.1;
        Some((status, serde_json::from_str(body).ok()?))
    }

    pub fn status(&self) -> Value {
        self.get("/status").1
    }

    /// The DAG as `/status` shows it, once it does and it is live.
    pub fn await_dag(&self, dag_id: &str) -> Value {
        until(&format!("the DAG {dag_id}"), || self.dag(dag_id))
    }

    pub fn dag(&self, dag_id: &str) -> Option<Value> {
        let dag = self.get(&format!("/status?dag_id={dag_id}")).1["dags"].get(0).cloned()?;
        (dag["is_active"] == true).then_some(dag)
    }
}

impl Drop for Minflow {
    fn drop(&mut self) {
        // Its tasks outlive it: they are ended with the home.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies a program that is to be executed, by a process of its own: were it written here, what another test starts in that moment would
/// have it open for writing, and the kernel would refuse to execute it.
pub fn copy_program(from: &str, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success(), "{from} cannot be copied");
}

/// All processes of the host: number, parent, and whether it is a supervisor of the home. What a supervisor has just made has its
/// command line until it executes its own program, and the subreaper of a strict try has it for good: neither is one.
fn processes(home: &Path) -> Vec<(i32, i32, bool)> {
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let of = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace();
        let is_over = matches!(fields.next()?, "Z" | "X");
        let parent = fields.next()?.parse().ok()?;
        let is_subreaper = head.ends_with("(minflow-strict");
        let is_one = !is_subreaper && has_supervisors_line(pid, home) && !has_supervisors_line(parent, home);
        (!is_over).then_some((pid, parent, is_one))
    };
    numbers.filter_map(of).collect()
}

/// The supervisors of a home that live.
pub fn supervisors(home: &Path) -> Vec<i32> {
    processes(home).into_iter().filter(|(.., is_supervisor)| *is_supervisor).map(|(pid, ..)| pid).collect()
}

/// Ends the supervisors of a home with all that stands below them; whose minflow has ended.
fn end_supervisors(home: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let all = processes(home);
        let mut doomed: Vec<i32> = all.iter().filter(|(.., is_root)| *is_root).map(|(pid, ..)| *pid).collect();
        if doomed.is_empty() || Instant::now() > deadline {
            return;
        }
        let roots = doomed.clone();
        let mut at = 0;
        while at < doomed.len() {
            let parent = doomed[at];
            doomed.extend(all.iter().filter(|(_, of, _)| *of == parent).map(|(pid, ..)| *pid));
            at += 1;
        }
        // A supervisor that has nothing left ends by itself; what it has stands still meanwhile and is ended first.
        doomed.iter().filter(|pid| !roots.contains(pid)).for_each(|&pid| signal(pid, Signal::KILL));
        if doomed.len() == roots.len() && Instant::now() + Duration::from_secs(18) > deadline {
            roots.iter().for_each(|&pid| signal(pid, Signal::KILL));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The supervisor that the home's file names.
fn named_supervisor(home: &Path) -> Option<i32> {
    fs::read_to_string(home.join("minflow.supervisor")).ok()?.trim().parse().ok()
}

fn has_supervisors_line(pid: i32, home: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).into_owned();
    line.contains("supervise") && line.contains(home.to_str().unwrap())
}
