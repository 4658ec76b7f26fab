//! The doors through which commands reach what runs DAGs: a running minflow by its socket, or this process.
//!
//! All that the command line needs of the daemon goes through this one file.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{RecvTimeoutError, bounded};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Map, Value};

use crate::api::client::{Client, ConnectError, RequestError};
use crate::api::protocol::Pong;
use crate::api::server::LOG_FILTER;
use crate::cli::failure::eprint;
use crate::cli::home::{Definition, Home};
use crate::cli::output::Output;
use crate::cli::{Failure, patience, record};
use crate::config::{self, ConfigInputs, DaemonLog, Loaded};
use crate::daemon::{self, DagTrial, Hooks, TaskTrial};
use crate::executor::paths;
use crate::health::LogProbe;
use crate::journal::{self, Log};
use crate::keep::{self, Places};
use crate::model::{BackfillId, Dag, DagId, DagRun, RunId, RunKey, RunState, TaskId, TaskIx};
use crate::scheduler::change::RetiredRun;
use crate::scheduler::command::{Asker, Done, Keep, Stop};
use crate::scheduler::{Command, CommandError};
use crate::store::{self, Archive, Database, Pages, Reader, Restored, Vacuum};
use crate::supervisor::{adopter, heap};

/// Has `command` carried out by the running minflow, else by this process under the home's lock.
///
/// # Errors
/// The command was refused, or minflow cannot be reached.
pub fn apply(home: &Home, command: Command) -> Result<Done, Failure> {
    match Client::connect(&home.config.home) {
        Ok(client) => send(client, &home.config.home, &command),
        Err(ConnectError::NotRunning(_)) => offline(home, command),
        Err(error) => Err(unreachable(&error)),
    }
}

/// Has `command` carried out by the running minflow.
///
/// # Errors
/// As [`apply`]; exit code 4 if none runs.
pub fn apply_running(home: &Home, command: Command) -> Result<Done, Failure> {
    send(connect(&home.config.home)?, &home.config.home, &command)
}

/// # Errors
/// Exit code 4: no minflow runs on this home.
pub fn expect_running(home: &Home) -> Result<(), Failure> {
    connect(&home.config.home).map(|_| ())
}

/// Asks the minflow of the home folder who it is.
///
/// # Errors
/// None runs (exit code 4), or it does not answer.
pub fn ping(home: &Path) -> Result<Pong, Failure> {
    connect(home)?.ping().map_err(|error| broken(&error))
}

/// Waits for the end of a run and answers its state, `success` or `failed`.
///
/// # Errors
/// minflow has gone, or refuses.
pub fn await_end(home: &Path, dag_id: &DagId, run_id: &RunId) -> Result<String, Failure> {
    let command = Command::Await { dag_id: dag_id.clone(), run_id: run_id.clone() };
    match send(connect(home)?, home, &command)? {
        Done::Ended { state } => Ok(state),
        other => Err(unexpected(&other)),
    }
}

/// How long `dags trigger --wait` waits for a minflow that restarts, and how often it looks.
const RESTART: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// As [`await_end`], across a restart of minflow.
///
/// # Errors
/// minflow has been gone for a minute, or refuses.
pub fn await_run(home: &Home, dag_id: &str, run_id: &str) -> Result<String, Failure> {
    let command = Command::Await { dag_id: dag_id.into(), run_id: run_id.into() };
    match await_across_restarts(&home.config.home, &command)? {
        Done::Ended { state } => Ok(state),
        other => Err(unexpected(&other)),
    }
}

/// Waits until a backfill is completed, across a restart of minflow; calls `look` at once and every `pause` meanwhile.
///
/// # Errors
/// minflow has been gone for a minute, or refuses.
pub fn await_backfill(home: &Home, id: BackfillId, pause: Duration, mut look: impl FnMut()) -> Result<(), Failure> {
    let (sender, waited) = bounded(1);
    let folder = home.config.home.clone();
    std::thread::spawn(move || {
        // Who waited may have gone.
        let _ = sender.send(await_across_restarts(&folder, &Command::AwaitBackfill { id }));
    });
    loop {
        look();
        match waited.recv_timeout(pause) {
            Ok(Ok(Done::BackfillEnded { .. })) => return Ok(()),
            Ok(Ok(other)) => return Err(unexpected(&other)),
            Ok(Err(failure)) => return Err(failure),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => unreachable!("the thread sends before it ends"),
        }
    }
}

fn await_across_restarts(home: &Path, command: &Command) -> Result<Done, Failure> {
    let mut gone_since: Option<Instant> = None;
    loop {
        let answer = Client::connect(home).map(|mut client| client.request(command));
        if answer.is_ok() {
            // It was back, whatever came of it.
            gone_since = None;
        }
        match answer {
            Ok(Ok(Ok(done))) => return Ok(done),
            Ok(Ok(Err(error))) if error.code != "stopping" => return Err(error.into()),
            Ok(Err(error @ (RequestError::Refused(_) | RequestError::Unintelligible(_)))) => {
                return Err(broken(&error));
            }
            Err(error @ ConnectError::Denied(_)) => return Err(unreachable(&error)),
            Ok(_) | Err(_) => {}
        }
        if gone_since.is_none() {
            eprint("minflow has stopped; waiting for it to come back\n");
        }
        if gone_since.get_or_insert_with(Instant::now).elapsed() > RESTART {
            return Err(Failure::NotRunning { home: home.display().to_string() });
        }
        // A socket that does not exist yet cannot be waited for.
        std::thread::sleep(LOOK_EVERY);
    }
}

/// How often `minflow stop` looks whether minflow is still there where its process cannot be watched, and how often it asks what
/// still runs.
const STOP_LOOK_EVERY: Duration = Duration::from_secs(1);
const STOP_ASK_EVERY: Duration = Duration::from_secs(10);

/// Has the minflow of the home folder stop, and waits until its process has ended; says what still runs meanwhile.
///
/// # Errors
/// None runs (exit code 4), or it does not answer.
pub fn stop(home: &Path, how: Stop, left: impl FnOnce() -> Option<Vec<String>>) -> Result<(), Failure> {
    let pid = ping(home)?.pid;
    // Before it is asked to end: afterwards its number may be another's. In another pid namespace it has another number.
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let command = Command::Stop { how, by: Asker::Cli };
    let mut running = still_running(send(connect(home)?, home, &command)?)?;
    eprint(&format!("stopping minflow (process {pid})\n"));
    let (mut said, mut asked_at) = (Vec::new(), Instant::now());
    while !has_ended(process.as_ref(), STOP_LOOK_EVERY, home, pid) {
        if asked_at.elapsed() >= STOP_ASK_EVERY {
            asked_at = Instant::now();
            // To ask once more changes nothing, and one that has just ended has nothing left to say.
            let again = Client::connect(home).ok().and_then(|mut client| client.request(&command).ok()?.ok());
            running = again.map_or_else(|| Ok(Vec::new()), still_running)?;
        }
        if running != said && !running.is_empty() {
            eprint(&format!("still running: {}\n", running.join(", ")));
        }
        said.clone_from(&running);
    }
    eprint("minflow has ended\n");
    if let Some(left) = left().filter(|left| !left.is_empty()) {
        eprint(&format!("left running for the next start: {}\n", left.join(", ")));
    }
    Ok(())
}

fn still_running(done: Done) -> Result<Vec<String>, Failure> {
    match done {
        Done::Stopping { running } => Ok(running),
        other => Err(unexpected(&other)),
    }
}

/// Waits for the end of a process, for `patience` at most; true if it has ended.
fn has_ended(process: Option<&OwnedFd>, patience: Duration, home: &Path, pid: u32) -> bool {
    let is_over = |patience: Duration| {
        let Some(process) = process else {
            std::thread::sleep(patience);
            return false;
        };
        let timeout = rustix::time::Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: 0 };
        matches!(poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)), Ok(1..))
    };
    // Without its socket it is about to end, or has been followed by another.
    let is_gone = || match Client::connect(home) {
        Ok(mut client) => client.ping().is_ok_and(|pong| pong.pid != pid),
        Err(error) => matches!(error, ConnectError::NotRunning(_)),
    };
    if is_over(patience) {
        return true;
    }
    if !is_gone() {
        return false;
    }
    // What is left of it takes moments; or the number was another's all along.
    let _ = process.is_none() || is_over(5 * patience);
    true
}

/// The running minflow is of another version.
pub fn unexpected(done: &Done) -> Failure {
    Failure::refused(
        format!("the running minflow answered {done:?}"),
        "it is of another version; restart it with this one",
    )
}

fn connect(home: &Path) -> Result<Client, Failure> {
    Client::connect(home).map_err(|error| match error {
        ConnectError::NotRunning(home) => Failure::NotRunning { home: home.display().to_string() },
        error => unreachable(&error),
    })
}

fn send(mut client: Client, home: &Path, command: &Command) -> Result<Done, Failure> {
    let answer = match command {
        // Their answer comes when something has ended, which may be in days.
        Command::Await { .. } | Command::AwaitBackfill { .. } => client.request(command),
        _ => client.request_with(command, |socket| patience::await_answer(home, socket)),
    };
    match answer {
        Ok(reply) => Ok(reply?),
        Err(error) => Err(broken(&error)),
    }
}

fn broken(error: &RequestError) -> Failure {
    split(&error.to_string())
}

fn unreachable(error: &ConnectError) -> Failure {
    split(&error.to_string())
}

/// These errors carry their help as a line of their own.
fn split(text: &str) -> Failure {
    let (message, help) = text.split_once("\nhelp: ").unwrap_or((text, ""));
    Failure::refused(message, help)
}

/// What `minflow run` does before all else.
pub fn begin() {
    heap::share_freed_memory();
}

/// `minflow run`: the scheduler in the foreground until it is told to stop.
///
/// # Errors
/// It could not start.
pub fn run(inputs: ConfigInputs) -> Result<(), Failure> {
    let loaded = config::load(inputs.clone()).map_err(Failure::Invalid)?;
    let place = loaded.config.logging.daemon.clone();
    let place = place.map(|DaemonLog { path, max_bytes, keep }| journal::Place { path, max_bytes, keep });
    let log = Arc::new(Log::new(&loaded.config.logging.level, LOG_FILTER, place));
    let asked = log.clone();
    // Nobody else has set one.
    let _ = log::set_boxed_logger(Box::new(log.clone()));
    log::set_max_level(log.filter());
    for note in &loaded.notes {
        log::info!("{note}");
    }
    let home = loaded.config.home.display().to_string();
    let hooks = Hooks {
        started: Box::new(move |address| {
            eprint(&format!("minflow {} runs on {home}: http://{address}\n", env!("CARGO_PKG_VERSION")));
        }),
        load: Box::new(move || config::load(inputs.clone())),
        set_level: Box::new(move |level| log.follow(level)),
        log: LogProbe(Box::new(move || asked.fault())),
    };
    daemon::run(loaded, hooks).map_err(|error| split(&error.to_string()))
}

/// What other commands say goes to standard error; `RUST_LOG` wins over the level.
fn start_log(level: &str) {
    journal::logger(level).init();
}

/// Carries `command` out in this process. Called only when no minflow runs on the home.
fn offline(home: &Home, command: Command) -> Result<Done, Failure> {
    let reply = daemon::apply_offline(&home.config, command).map_err(|error| split(&error.to_string()))?;
    Ok(reply?)
}

/// What a trial says beside its tasks' output: that something is wrong, and that Ctrl-C was understood.
const TRIAL_LOG: &str = "warn,minflow::daemon=info";

/// `dags test`: one run of `dag`, which `file` (below the dags folder) defines, in the foreground, without the home's lock and without a row in minflow.db. Shows
/// what the tasks print as they print it, and a list of states at the end.
///
/// # Errors
/// The run failed, or could not be started.
pub fn test_dag(
    home: &Home,
    dag: Dag,
    file: &str,
    logical_date: Timestamp,
    conf: Map<String, Value>,
    output: &mut Output,
) -> Result<(), Failure> {
    start_log(TRIAL_LOG);
    let places: BTreeMap<TaskId, usize> = dag.tasks.iter().map(|task| task.task_id.clone()).zip(0..).collect();
    let trial = DagTrial { dag, file: PathBuf::from(file), logical_date, conf };
    let tried = daemon::test_dag(&home.config, trial, output).map_err(|error| split(&error.to_string()))?;
    // Those of mapped tasks have come while the run was under way.
    let mut instances: Vec<_> = tried.instances.iter().collect();
    instances.sort_by_key(|instance| (places.get(&instance.task_id), instance.map_index));
    for instance in instances {
        let reason = record::ending(instance).map_or(String::new(), |reason| format!(" ({reason})"));
        let index = if instance.map_index < 0 { String::new() } else { format!("[{}]", instance.map_index) };
        writeln!(output, "{}{index}: {}{reason}", instance.task_id, instance.state)?;
    }
    writeln!(output, "{}: {}", tried.run.run_id, tried.run.state)?;
    if tried.run.state == RunState::Success { Ok(()) } else { Err(Failure::Told) }
}

/// `tasks test`: one try of one task of `run`, which may be made up, in the foreground; nothing is recorded.
///
/// # Errors
/// The try failed, or could not be started.
pub fn test_task(
    home: &Home,
    definition: &Definition,
    (task, map_index): (TaskIx, i32),
    run: DagRun,
    output: &mut Output,
) -> Result<(), Failure> {
    start_log(TRIAL_LOG);
    let is_made_up = home.find_run(&run.dag_id, &run.run_id)?.is_none();
    let run_dir = paths::run_dir(&home.config.home, &run.dag_id, &run.run_id);
    let trial = TaskTrial { dag: definition.dag.clone(), file: definition.file.clone(), task, map_index, run };
    let tried = daemon::test_task(&home.config, trial, output);
    if is_made_up {
        // Nobody could ever find it again. What cannot be removed does no harm.
        let _ = std::fs::remove_dir_all(run_dir);
    }
    let state = tried.map_err(|error| split(&error.to_string()))?;
    if state == RunState::Success { Ok(()) } else { Err(Failure::Told) }
}

/// Creates the database, or brings it to this version. A running minflow has done so already.
///
/// # Errors
/// The database is newer, damaged, locked or another program's; it is left as it is.
pub fn migrate(loaded: &Loaded) -> Result<(), Failure> {
    let database = &loaded.config.database;
    match Client::connect(&loaded.config.home) {
        Ok(_) => Ok(()),
        Err(_) => Ok(Database::open(&database.path, database.synchronous).map(drop)?),
    }
}

/// Puts a backup in the place of the database, while no minflow runs.
///
/// # Errors
/// One runs, the backup cannot be used, or something cannot be written: all is as it was.
pub fn restore(config: &config::Config, backup: &Path) -> Result<Restored, Failure> {
    let _lock = daemon::HomeLock::take(&config.home).map_err(|error| match error {
        daemon::LockError::Held { .. } => Failure::refused(
            format!("minflow runs on `{}`, and would go on with what it has in memory", config.home.display()),
            "stop it with `minflow stop`, restore, and start it again",
        ),
        error => split(&error.to_string()),
    })?;
    adopter::discredit_all(&config.home)
        .map_err(|error| split(&format!("cannot write to `{}`: {error}; check its mode", config.home.display())))?;
    Ok(store::restore(backup, &config.database.path)?)
}

/// Has the database's file shrink, beside a running minflow or without one. Answers its pages before and after.
///
/// # Errors
/// It cannot be read or written, or not while minflow runs.
pub fn vacuum(config: &config::Config) -> Result<(Pages, Pages), Failure> {
    let lock = daemon::HomeLock::take(&config.home);
    let how = match &lock {
        Ok(_) => Vacuum::Whole,
        Err(daemon::LockError::Held { .. }) => Vacuum::Beside,
        Err(error) => return Err(split(&error.to_string())),
    };
    Ok(store::vacuum(&config.database.path, how)?)
}

/// Orders to whoever may write: the running minflow, else this process, which holds the home's lock meanwhile.
enum Orders<'a> {
    Running(&'a Home),
    Alone(Box<Database>, #[allow(dead_code, reason = "held while it lives")] daemon::HomeLock),
}

impl Orders<'_> {
    fn of(home: &Home) -> Result<Orders<'_>, Failure> {
        match Client::connect(&home.config.home) {
            Ok(_) => Ok(Orders::Running(home)),
            Err(ConnectError::NotRunning(_)) => {
                let lock = daemon::HomeLock::take(&home.config.home).map_err(|error| split(&error.to_string()))?;
                let database = &home.config.database;
                Ok(Orders::Alone(Box::new(Database::open(&database.path, database.synchronous)?), lock))
            }
            Err(error) => Err(unreachable(&error)),
        }
    }

    /// Waits until nothing is left of what was retired, or has it go.
    fn sweep(&mut self, home: &Home) -> Result<(), Failure> {
        let reader = Reader::open(&home.config.database.path)?;
        let path = &home.config.database.path;
        match self {
            Self::Alone(database, _) => {
                keep::sweep(&mut **database, &reader, &Places::of(&home.config), &|| true)?;
                Ok(keep::shrink(&mut **database, path, &|| true)?)
            }
            Self::Running(_) => {
                while !reader.retired()?.is_empty() {
                    // It goes on by itself, and after a crash its next start does.
                    ping(&home.config.home)?;
                    std::thread::sleep(LOOK_EVERY);
                }
                Ok(())
            }
        }
    }
}

impl keep::Port for Orders<'_> {
    fn keep(&mut self, keep: Keep) -> Result<Vec<RunKey>, CommandError> {
        match self {
            Self::Alone(database, _) => database.keep(keep),
            Self::Running(home) => match apply_running(home, Command::Keep(keep)) {
                Ok(Done::Kept { runs }) => Ok(runs),
                Ok(other) => Err(refusal(unexpected(&other))),
                Err(failure) => Err(refusal(failure)),
            },
        }
    }
}

fn refusal(failure: Failure) -> CommandError {
    let (message, help) = match failure {
        Failure::Refused { message, help } => (message, help),
        _ => ("minflow has gone".to_owned(), "ask again: what has gone is gone as a whole".to_owned()),
    };
    CommandError { code: "refused".to_owned(), message, help }
}

/// Has runs go, and entries of the audit log (how many, and the key of the last), after the archive has taken in their rows. Answers how many
/// runs have gone.
///
/// # Errors
/// The archive cannot be written, or nobody may write: what went before is gone as a whole.
pub fn clean(
    home: &Home,
    runs: &[RetiredRun],
    (entries, until): (u64, i64),
    archive: Option<&Path>,
    asked: Value,
) -> Result<usize, Failure> {
    let mut orders = Orders::of(home)?;
    let mut archive = archive.map(|path| Archive::open(path, &home.config.database.path)).transpose()?;
    let gone = keep::retire(&mut orders, runs, false, archive.as_mut(), Some(asked))?.len();
    if entries > 0 {
        let reader = Reader::open(&home.config.database.path)?;
        keep::cut_audit(&mut orders, &reader, until, archive.as_mut())?;
    }
    if let Some(archive) = archive {
        archive.finish()?;
    }
    orders.sweep(home)?;
    Ok(gone)
}

/// Has a DAG go with all its runs, of which none is alive. Answers how many there were.
///
/// # Errors
/// It has a file, or a run of it lives.
pub fn delete_dag(home: &Home, dag_id: &DagId, runs: &[RetiredRun]) -> Result<usize, Failure> {
    let mut orders = Orders::of(home)?;
    let gone = keep::retire(&mut orders, runs, true, None, None)?.len();
    orders.sweep(home)?;
    keep::Port::keep(&mut orders, Keep::DeleteDag { dag_id: dag_id.clone() })?;
    for folder in Places::of(&home.config).of_dag(dag_id) {
        // Empty by now, unless somebody else has put something there.
        let _ = std::fs::remove_dir(folder);
    }
    Ok(gone)
}
