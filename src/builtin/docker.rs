//! The `docker` operator: has an engine run one container, by the docker command, and ends as the container does.
//!
//! A container is a child of the engine, and outlives whatever asked for it. So it has a name that tells its try, and a watcher
//! ([`watch`]) removes it once this process is gone, whatever ended that. What is printed before the container begins is not its
//! output: [`own_output`] tells them apart.

mod cli;
pub mod watch;

#[cfg(test)]
mod tests;

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha1_smol::Sha1;

use self::cli::{Answer, Cli, Heeds, Stopped};
use self::watch::Watcher;
use crate::builtin::{Failed, Finality, Verdict};
use crate::keytable::KILL_SIGNALS;
use crate::model::docker::{AutoRemove, Mount, MountKind, Pull};
use crate::supervisor::{MARK, procfs, sys};

/// What to do; all of it is rendered.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct DockerTask {
    /// The docker command, an absolute path.
    pub program: String,
    /// minflow's.
    pub home: PathBuf,
    pub image: String,
    /// Empty: the image's own.
    pub command: Vec<String>,
    /// As `--mount` takes them.
    pub mounts: Vec<String>,
    /// A file of variables, one to a line.
    pub variables: Option<PathBuf>,
    /// Those that no line can hold.
    pub more_variables: Vec<(String, String)>,
    pub working_dir: Option<String>,
    pub network: Option<String>,
    pub user: Option<String>,
    pub auto_remove: AutoRemove,
    pub pull: Pull,
    /// The run's folder, which the container sees under the same path.
    pub run_dir: String,
    /// What tells a person whose container it is.
    pub labels: Vec<(String, String)>,
    /// Where the reason of a failure goes.
    pub verdict: PathBuf,
}

impl fmt::Debug for DockerTask {
    // The values of variables stay out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerTask").field("image", &self.image).field("command", &self.command).finish_non_exhaustive()
    }
}

/// The last line before the container's own output: what stands before its name, and behind it.
const NAMED: &str = "minflow: container ";
const BEGINS: &str = " begins";

/// The exit code where there is no container's: that of `docker run`.
const FAILED: u8 = 125;
/// How long the engine may take to say that it is there.
const ENGINE: Duration = Duration::from_secs(15);
/// For what is done by the engine alone.
const SHORT: Duration = Duration::from_secs(60);
/// For the making of a container, which may wait for a slow disk.
const CREATION: Duration = Duration::from_secs(300);
/// For an image to come from its registry.
const PULL: Duration = Duration::from_secs(3600);
/// What of the engine's words becomes a reason, in characters.
const MAX_REASON: usize = 1_000;

const INSTANCE: &str = "minflow.instance";
const REMOVAL: &str = "minflow.auto_remove";

/// Runs the container, and gives the exit code to end with.
///
/// # Errors
/// The reason of a failure cannot be told.
pub fn run(task: &DockerTask) -> Result<u8, Failed> {
    match in_container(task) {
        Ok(Ended { code, reason: None }) => Ok(code),
        Ok(Ended { code, reason: Some(reason) }) => tell(task, code, reason, Finality::Open),
        Err(Stop::Asked) => Ok(FAILED),
        Err(Stop::Failed(reason, finality)) => tell(task, FAILED, reason, finality),
    }
}

fn tell(task: &DockerTask, code: u8, reason: String, finality: Finality) -> Result<u8, Failed> {
    eprintln!("{reason}");
    Verdict::failed(reason, finality).leave(&task.verdict)?;
    Ok(code)
}

/// What a container has written, of the end of a try's log.
pub fn own_output(tail: &[u8]) -> &[u8] {
    let begins = |line: &[u8]| {
        let text = line.strip_suffix(b"\n").and_then(|line| line.strip_suffix(BEGINS.as_bytes()));
        text.is_some_and(|text| {
            text.starts_with(b"[") && text.windows(NAMED.len()).any(|part| part == NAMED.as_bytes())
        })
    };
    let mut from = 0;
    for line in tail.split_inclusive(|&byte| byte == b'\n') {
        from += line.len();
        if begins(line) {
            return &tail[from..];
        }
    }
    // The line lies further back, or there was no container.
    tail
}

/// Why no container has ended by itself.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    /// A signal came.
    Asked,
    Failed(String, Finality),
}

impl Stop {
    fn failed(reason: impl Into<String>) -> Self {
        Self::Failed(reason.into(), Finality::Open)
    }
}

impl From<Stopped> for Stop {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Signal(_) => Self::Asked,
            Stopped::Late(message) | Stopped::Unstarted(message) => Self::failed(message),
        }
    }
}

/// How a container ended.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    code: u8,
    /// What the engine says beyond the code.
    reason: Option<String>,
}

/// Whose container it is, as its name and labels tell.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    /// The same for all tries of an instance, and for nobody else who shares the engine.
    instance: String,
    /// The container's.
    name: String,
}

impl Identity {
    /// Of the try with this mark on this host: several hosts, or containers with a minflow in each, may share one engine.
    fn of(mark: &str, host: &str) -> Option<Self> {
        let mut parts = mark.splitn(2, '.');
        let (owner, key) = (parts.next()?, parts.next()?);
        let (instance, _) = key.rsplit_once('.')?;
        let mut hash = Sha1::new();
        hash.update(host.as_bytes());
        hash.update(&[0]);
        hash.update(owner.as_bytes());
        let owner = &hash.digest().to_string()[..12];
        Some(Self { instance: format!("{owner}-{instance}"), name: format!("minflow-{owner}-{key}") })
    }

    fn of_this_process() -> Result<Self, Stop> {
        let mark = std::env::var(MARK).unwrap_or_default();
        Self::of(&mark, &procfs::host_name()).ok_or_else(|| {
            Stop::failed(format!("the variable {MARK} names no try; minflow starts this command by itself"))
        })
    }
}

fn in_container(task: &DockerTask) -> Result<Ended, Stop> {
    let signals = signals()?;
    let cli = Cli::new(&task.program, Some(signals));
    let identity = Identity::of_this_process()?;
    await_engine(&cli)?;
    remove_earlier(&cli, &identity)?;
    have_image(&cli, task)?;
    let name = &*identity.name;
    let mut watcher = Watcher::start(&task.home, &task.program, name).map_err(Stop::failed)?;
    let ended = create(&cli, task, &identity, &mut watcher).and_then(|()| attend(&cli, name));
    let is_kept = matches!(&ended, Ok(ended) if task.auto_remove.keeps(ended.code));
    // Else the watcher goes on trying.
    if is_kept || cli.remove(name).is_ok() {
        watcher.dismiss();
    }
    ended
}

/// Those by which a task is asked to end.
fn signals() -> Result<OwnedFd, Stop> {
    let numbers = KILL_SIGNALS.iter().map(|(_, number)| *number).filter(|&number| number != libc::SIGKILL);
    sys::watch_signals(numbers).map_err(|error| Stop::failed(format!("cannot watch for signals: {error}")))
}

fn await_engine(cli: &Cli) -> Result<(), Stop> {
    let words = ["version", "--format", "{{.Server.Version}}"];
    let answer = cli.ask(&words, ENGINE, Heeds::Signals)?;
    if answer.is_well && !answer.out.trim().is_empty() {
        return Ok(());
    }
    let said = answer.reason();
    let help = if said.to_lowercase().contains("permission denied") {
        "let minflow's user use it (the group `docker`), or set DOCKER_HOST in the task's `env`"
    } else {
        "start it (`systemctl start docker`), or set DOCKER_HOST in the task's `env`"
    };
    Err(Stop::failed(format!("no Docker engine answers: {said}; {help}")))
}

/// A try never runs beside the container of an earlier one.
fn remove_earlier(cli: &Cli, identity: &Identity) -> Result<(), Stop> {
    let filter = format!("label={INSTANCE}={}", identity.instance);
    let format = format!("{{{{.Names}}}}\t{{{{.State}}}}\t{{{{.Label \"{REMOVAL}\"}}}}");
    let words = ["ps", "--all", "--no-trunc", "--filter", &filter, "--format", &format];
    let answer = cli.ask(&words, SHORT, Heeds::Signals)?;
    if !answer.is_well {
        return Err(Stop::failed(format!("the engine does not list its containers: {}", answer.reason())));
    }
    for line in answer.out.lines() {
        let mut fields = line.split('\t');
        let (name, state, removal) = (fields.next(), fields.next(), fields.next());
        let name = name.unwrap_or_default().trim();
        let is_over = matches!(state, Some("exited" | "dead"));
        let is_kept = is_over && removal != Some(AutoRemove::Force.name()) && name != identity.name;
        if name.is_empty() || is_kept {
            continue;
        }
        println!("removes the container {name}, which an earlier try has left");
        cli.remove(name).map_err(|said| {
            Stop::failed(format!("the container {name} of an earlier try cannot be removed: {said}; remove it by hand"))
        })?;
    }
    Ok(())
}

fn have_image(cli: &Cli, task: &DockerTask) -> Result<(), Stop> {
    let image = &*task.image;
    let is_here = task.pull != Pull::Always && {
        let words = ["image", "inspect", "--format", "{{.Id}}", image];
        cli.ask(&words, SHORT, Heeds::Signals)?.is_well
    };
    match task.pull {
        _ if is_here => Ok(()),
        Pull::Never => Err(Stop::failed(format!(
            "the engine has no image `{image}`, and `pull` is \"never\": run `docker pull {image}`, or take `pull` out"
        ))),
        Pull::Missing | Pull::Always => {
            println!("pulls {image}");
            let answer = cli.ask_aloud(&["pull", image], PULL, Heeds::Signals)?;
            let said = answer.reason();
            // No other try makes a name of it.
            let finality = if said.contains("invalid reference format") { Finality::Final } else { Finality::Open };
            match answer.is_well {
                true => Ok(()),
                false => Err(Stop::Failed(
                    format!(
                        "the image `{image}` cannot be pulled: {said}; look at its name, `docker login` and the network"
                    ),
                    finality,
                )),
            }
        }
    }
}

/// minflow's variables of this try that a container gets. Those with two underscores are settings, which may be secret.
fn own_variables() -> Vec<String> {
    let is_for_tasks = |name: &str| {
        name.starts_with("AIRFLOW_CTX_") || (name.starts_with("MINFLOW_") && !name.starts_with("MINFLOW__"))
    };
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.filter(|name| is_for_tasks(name) && name != MARK).collect()
}

/// Whether the container sees the run's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunDir {
    Mounted,
    Absent,
}

fn create(cli: &Cli, task: &DockerTask, identity: &Identity, watcher: &mut Watcher) -> Result<(), Stop> {
    let variables = own_variables();
    let mut answer = create_with(cli, task, identity, &variables, RunDir::Mounted)?;
    // The engine is on another host, or outside of the container that minflow is in. As Airflow does it.
    if !answer.is_well && answer.err.contains(&format!("bind source path does not exist: {}", task.run_dir)) {
        println!("the engine does not see {}: the container runs without the run's folder", task.run_dir);
        let of_folder = |name: &String| ["MINFLOW_RUN_DIR", "MINFLOW_XCOM"].contains(&&**name);
        let variables: Vec<String> = variables.into_iter().filter(|name| !of_folder(name)).collect();
        answer = create_with(cli, task, identity, &variables, RunDir::Absent)?;
    }
    watcher.tell_settled();
    match answer.is_well {
        true => Ok(()),
        false => Err(Stop::failed(format!(
            "the container cannot be made: {}; correct what is named in `docker = …`",
            answer.reason()
        ))),
    }
}

fn create_with(
    cli: &Cli,
    task: &DockerTask,
    identity: &Identity,
    variables: &[String],
    run_dir: RunDir,
) -> Result<Answer, Stop> {
    let words = creation(task, identity, variables, run_dir);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut command = cli.command(&words);
    command.envs(task.more_variables.iter().map(|(name, value)| (name, value)));
    Ok(cli.hear(command, "create", CREATION, Heeds::Signals)?)
}

/// The words of `docker create`. No variable's value is among them: others can read arguments.
fn creation(task: &DockerTask, identity: &Identity, variables: &[String], run_dir: RunDir) -> Vec<String> {
    let mut words: Vec<String> = ["create", "--name", &identity.name, "--pull", "never"].map(str::to_owned).to_vec();
    let mut put = |option: &str, value: &str| words.extend([option.to_owned(), value.to_owned()]);
    put("--label", &format!("{INSTANCE}={}", identity.instance));
    put("--label", &format!("{REMOVAL}={}", task.auto_remove.name()));
    for (name, value) in &task.labels {
        put("--label", &format!("{name}={value}"));
    }
    if run_dir == RunDir::Mounted {
        let mount = Mount {
            kind: MountKind::Bind,
            source: Some(task.run_dir.clone()),
            target: task.run_dir.clone(),
            is_read_only: false,
        };
        put("--mount", &mount.option());
    }
    for mount in &task.mounts {
        put("--mount", mount);
    }
    for (option, value) in [("--workdir", &task.working_dir), ("--network", &task.network), ("--user", &task.user)] {
        if let Some(value) = value {
            put(option, value);
        }
    }
    if let Some(file) = &task.variables {
        put("--env-file", &file.to_string_lossy());
    }
    for (name, _) in &task.more_variables {
        put("--env", name);
    }
    // The last of a name wins: minflow's tell what is so.
    for name in variables {
        put("--env", name);
    }
    words.push(task.image.clone());
    words.extend(task.command.iter().cloned());
    words
}

/// Starts the container and awaits its end, while its output goes where ours goes.
fn attend(cli: &Cli, name: &str) -> Result<Ended, Stop> {
    println!("[{:.6}] {NAMED}{name}{BEGINS}", Timestamp::now());
    let mut start = cli.command(&["start", "--attach", "--sig-proxy=false", name]);
    start.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let mut start = cli.spawn(start)?;
    let mut is_asked = false;
    while let Err(stopped) = cli.await_end(&mut start, None, Heeds::Signals) {
        let Stopped::Signal(signal) = stopped else { return Err(stopped.into()) };
        is_asked = true;
        println!("the container is sent the signal {}", name_of(signal));
        let answer = cli.ask(&["kill", &format!("--signal={signal}"), name], SHORT, Heeds::Nothing)?;
        if !answer.is_well {
            // It has only begun, or is over.
            return Err(Stop::Asked);
        }
    }
    if is_asked { Err(Stop::Asked) } else { ending(cli, name) }
}

fn name_of(signal: i32) -> String {
    let known = KILL_SIGNALS.iter().find(|(_, number)| *number == signal);
    known.map_or_else(|| signal.to_string(), |(name, _)| (*name).to_owned())
}

/// What the engine knows of a container that has ended.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: String,
    exit_code: i32,
    #[serde(default)]
    error: String,
    #[serde(default, rename = "OOMKilled")]
    is_out_of_memory: bool,
}

fn ending(cli: &Cli, name: &str) -> Result<Ended, Stop> {
    let words = ["container", "inspect", "--format", "{{json .State}}", name];
    let answer = cli.ask(&words, SHORT, Heeds::Signals)?;
    let state: Option<State> = serde_json::from_str(answer.out.trim()).ok().filter(|_| answer.is_well);
    let Some(state) = state else {
        return Err(Stop::failed(format!("how the container ended cannot be learnt: {}", answer.reason())));
    };
    judge(&state)
}

fn judge(state: &State) -> Result<Ended, Stop> {
    let code = u8::try_from(state.exit_code).unwrap_or(FAILED);
    let error = state.error.trim();
    if !error.is_empty() {
        return Ok(Ended {
            code: if code == 0 { FAILED } else { code },
            reason: Some(format!("the container did not run: {}", shortened(error))),
        });
    }
    let reason = match &*state.status {
        // The docker command has said why.
        "created" => return Err(Stop::failed("the container was not started; the engine's words stand in the log")),
        "exited" | "dead" if state.is_out_of_memory => {
            Some("the container was ended for want of memory; give it more, or have it take less".to_owned())
        }
        "exited" | "dead" => None,
        status => {
            return Err(Stop::failed(format!(
                "the docker command has ended, and the container is still {status}: the connection to the engine was lost"
            )));
        }
    };
    Ok(Ended { code, reason })
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_REASON).collect()
}
