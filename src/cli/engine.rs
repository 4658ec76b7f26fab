//! The doors through which commands reach what runs DAGs: a running minflow by its socket, or this process.
//!
//! All that the command line needs of the daemon goes through this one file.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam::channel::{RecvTimeoutError, bounded};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::api::client::{Client, ConnectError, RequestError};
use crate::api::protocol::Pong;
use crate::api::server::LOG_FILTER;
use crate::cli::failure::eprint;
use crate::cli::home::{Definition, Home};
use crate::cli::output::Output;
use crate::cli::{Failure, record};
use crate::config::Loaded;
use crate::daemon::{self, DagTrial, TaskTrial};
use crate::executor::paths;
use crate::model::{BackfillId, Dag, DagId, DagRun, RunId, RunState, TaskIx};
use crate::scheduler::Command;
use crate::scheduler::command::Done;
use crate::store::Database;
use crate::supervisor::heap;

/// Has `command` carried out by the running minflow, else by this process under the home's lock.
///
/// # Errors
/// The command was refused, or minflow cannot be reached.
pub fn apply(home: &Home, command: Command) -> Result<Done, Failure> {
    match Client::connect(&home.config.home) {
        Ok(client) => send(client, &command),
        Err(ConnectError::NotRunning(_)) => offline(home, command),
        Err(error) => Err(unreachable(&error)),
    }
}

/// Has `command` carried out by the running minflow.
///
/// # Errors
/// As [`apply`]; exit code 4 if none runs.
pub fn apply_running(home: &Home, command: Command) -> Result<Done, Failure> {
    send(connect(&home.config.home)?, &command)
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
    match send(connect(home)?, &command)? {
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

fn send(mut client: Client, command: &Command) -> Result<Done, Failure> {
    match client.request(command) {
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
pub fn run(loaded: &Loaded) -> Result<(), Failure> {
    start_log(&format!("{},{LOG_FILTER}", loaded.config.logging.level));
    for note in &loaded.notes {
        log::info!("{note}");
    }
    let config = &loaded.config;
    let started = |address: &str| {
        let home = config.home.display();
        eprint(&format!("minflow {} runs on {home}: http://{address}\n", env!("CARGO_PKG_VERSION")));
    };
    daemon::run(loaded, started).map_err(|error| split(&error.to_string()))
}

/// The log goes to standard error; `RUST_LOG` wins over the configuration.
fn start_log(level: &str) {
    let environment = env_logger::Env::default().default_filter_or(level);
    env_logger::Builder::from_env(environment).format_timestamp_millis().init();
}

/// Carries `command` out in this process. Called only when no minflow runs on the home.
fn offline(home: &Home, command: Command) -> Result<Done, Failure> {
    let reply = daemon::apply_offline(&home.config, command).map_err(|error| split(&error.to_string()))?;
    Ok(reply?)
}

/// What a trial says beside its tasks' output: that something is wrong, and that Ctrl-C was understood.
const TRIAL_LOG: &str = "warn,minflow::daemon=info";

/// `dags test`: one run of `definition` in the foreground, without the home's lock and without a row in minflow.db. Shows
/// what the tasks print as they print it, and a list of states at the end.
///
/// # Errors
/// The run failed, or could not be started.
pub fn test_dag(
    home: &Home,
    definition: &Definition,
    logical_date: Timestamp,
    conf: Map<String, Value>,
    output: &mut Output,
) -> Result<(), Failure> {
    start_log(TRIAL_LOG);
    let trial =
        DagTrial { dag: Dag::clone(&definition.dag), file: PathBuf::from(&definition.file), logical_date, conf };
    let tried = daemon::test_dag(&home.config, trial, output).map_err(|error| split(&error.to_string()))?;
    // Those of mapped tasks have come while the run was under way.
    let places: BTreeMap<&str, usize> =
        definition.dag.tasks.iter().enumerate().map(|(at, task)| (&*task.task_id, at)).collect();
    let mut instances: Vec<_> = tried.instances.iter().collect();
    instances.sort_by_key(|instance| (places.get(&*instance.task_id), instance.map_index));
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
