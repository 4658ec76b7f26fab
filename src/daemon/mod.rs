//! Wires the threads together: what `minflow run` is, and the smaller arrangements by which commands do without it.
//!
//! Order matters here, and only here: the supervisor is started before any thread, socket, lock or database exists, so that what
//! it forks keeps none of them; the loop's end comes before that of the parts which it drives.

mod files;
mod heartbeat;
mod lock;
mod offline;
mod screen;
mod trial;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::{Sender, unbounded};

use crate::api::database::DatabaseSource;
use crate::api::protocol::Pong;
use crate::api::routes::Site;
use crate::api::server::{Server, StartError};
use crate::api::socket::{Patience, SocketError, SocketServer};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Loaded};
use crate::dagfile::{self, Defaults};
use crate::diagnostic::Diagnostic;
use crate::executor::{ExecutorSettings, LocalExecutor};
use crate::health::Health;
use crate::model::Pool;
use crate::observe::host::HostProbe;
use crate::operators::plugin;
use crate::scheduler::command::{Asker, Command, Stop};
use crate::scheduler::gauge::{GaugeBoard, Heartbeat};
use crate::scheduler::port::ReplyTo;
use crate::scheduler::turn::{Parts, Scheduler};
use crate::scheduler::world::{Restore, Settings};
use crate::scheduler::{Event, Store, StoreError};
use crate::secrets::Secrets;
use crate::store::{Checkpointer, Database, OpenError, ReaderPool};
use crate::supervisor::{self, sys};
use crate::template;
use crate::timer::SystemTimer;
use crate::triggerer::LocalTriggerer;
use crate::watch::{Parse, WatchSettings, Watcher};

pub use lock::{HomeLock, LockError};
pub use offline::apply_offline;
pub use trial::{DagTrial, TaskTrial, Tried, test_dag, test_task};

/// Why minflow could not start. Every message says what to do next.
#[derive(Debug)]
pub enum RunError {
    Lock(LockError),
    Open(OpenError),
    Store(StoreError),
    Http(StartError),
    Socket(SocketError),
    Io { what: &'static str, cause: io::Error },
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock(error) => error.fmt(f),
            Self::Open(error) => write!(f, "{error}\nhelp: {}", error.help()),
            Self::Store(error) => write!(f, "failed to {}\nhelp: {}", error.message, error.help),
            Self::Http(error) => error.fmt(f),
            Self::Socket(error) => write!(f, "failed to {error}"),
            Self::Io { what, cause } => {
                write!(
                    f,
                    "failed to {what}: {cause}\nhelp: see whether the host is out of processes, descriptors or memory"
                )
            }
        }
    }
}

impl std::error::Error for RunError {}

impl From<LockError> for RunError {
    fn from(error: LockError) -> Self {
        Self::Lock(error)
    }
}

impl From<OpenError> for RunError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl From<StoreError> for RunError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |cause| RunError::Io { what, cause }
}

/// `minflow run`: the scheduler of a home, until it is told to stop. `started` is told the address of HTTP once all is up.
///
/// # Errors
/// It could not start: another minflow has the home, the port is taken, the database cannot be used.
pub fn run(loaded: &Loaded, started: impl FnOnce(&str)) -> Result<(), RunError> {
    let config = &loaded.config;
    sys::keep_heaps_small();
    let exe = std::env::current_exe().map_err(io_error("find this program's own file"))?;
    let supervisor = supervisor::spawn(&exe, &config.home).map_err(io_error("start the supervisor"))?;
    let requests_to_end = sys::watch_requests_to_end().map_err(io_error("watch for signals"))?;
    let _lock = HomeLock::take(&config.home)?;

    let (health, gauges, heartbeat) = (Health::default(), GaugeBoard::default(), Heartbeat::default());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut database = Database::open(&config.database.path, config.database.synchronous)?;
    let _checkpointer = Checkpointer::start(&mut database, health.clone())?;
    let readers = Arc::new(ReaderPool::new(&config.database.path));
    let (events, inbox) = unbounded();
    let (board, commits) = (health.clone(), heartbeat.clone());

    let http = Server::start(&config.api, site(config, &readers, &gauges, &health, &heartbeat, &clock))
        .map_err(RunError::Http)?;
    let address = http.address().to_string();
    let pong =
        Pong { pid: std::process::id(), version: env!("CARGO_PKG_VERSION").to_owned(), http: Some(address.clone()) };
    let _socket =
        SocketServer::start(&config.home, pong, events.clone(), Patience::default()).map_err(RunError::Socket)?;

    let settings = ExecutorSettings::of(config);
    let secrets = settings.secrets.clone();
    let executor = LocalExecutor::start(settings, supervisor, readers, events.clone(), clock.clone(), health.clone())
        .map_err(io_error("start the workers"))?;
    let timer = SystemTimer::start(events.clone()).map_err(io_error("start the timer"))?;
    let defaults = Arc::new(Defaults::from_config(config, BTreeSet::new()).with_plugins(plugin::list(&config.home)));
    let snapshot = database.load()?;
    let parts = Parts {
        store: Box::new(database),
        executor: Box::new(executor),
        triggerer: Box::new(LocalTriggerer::new(events.clone(), health.clone())),
        timer: Box::new(timer),
        files: Box::new(files::FileTriggers::new(events.clone(), health.clone())),
        clock,
        health: health.clone(),
        gauges,
        heartbeat,
    };
    let scheduler = Scheduler::new(scheduler_settings(config), snapshot, restore(&defaults), parts);
    let watch = WatchSettings { dags_folder: config.core.dags_folder.clone(), home: config.home.clone() };
    let _watcher = Watcher::start(watch, parse(defaults, secrets, config.home.clone()), events.clone(), health)
        .map_err(io_error("watch the DAG files"))?;
    forward_requests_to_end(requests_to_end, events).map_err(io_error("watch for signals"))?;
    let _pulse = heartbeat::Pulse::start(config.heartbeat.as_ref(), board, commits, Arc::new(SystemClock))
        .map_err(io_error("start the heartbeat"))?;
    started(&address);
    sys::forget_start();
    scheduler.run(&inbox);
    Ok(())
}

fn site(
    config: &Config,
    readers: &Arc<ReaderPool>,
    gauges: &GaugeBoard,
    health: &Health,
    heartbeat: &Heartbeat,
    clock: &Arc<dyn Clock>,
) -> Site {
    let (heartbeat, clock) = (heartbeat.clone(), clock.clone());
    let folders = [&config.home, &config.core.dags_folder, &config.logging.base_log_folder];
    Site {
        source: Arc::new(DatabaseSource {
            readers: (**readers).clone(),
            home: config.home.clone(),
            logs: config.logging.base_log_folder.clone(),
        }),
        gauges: gauges.clone(),
        health: health.clone(),
        host: HostProbe::new(folders.map(Clone::clone).to_vec()),
        turn_running_for: Box::new(move || heartbeat.committing_for(clock.boot())),
        home: config.home.display().to_string(),
        started: Instant::now(),
    }
}

fn scheduler_settings(config: &Config) -> Settings {
    Settings {
        parallelism: config.core.parallelism,
        drain_timeout: config.scheduler.drain_timeout,
        pools: pools(config),
        overrides: config.core.dag_run_conf_overrides_params.into(),
        assets: config.assets.values().cloned().collect(),
    }
}

fn pools(config: &Config) -> Vec<Pool> {
    let pool = |(name, setting): (&String, &crate::config::PoolSetting)| Pool {
        name: name.as_str().into(),
        slots: setting.slots,
        description: setting.description.clone(),
    };
    config.pools.iter().map(pool).collect()
}

/// Faults are told without the home's secrets, which a file may repeat.
fn parse(defaults: Arc<Defaults>, secrets: Arc<Secrets>, home: PathBuf) -> Parse {
    Arc::new(move |path: &Path, bytes: &[u8]| {
        let again = |faults| {
            // A plugin may have come since minflow started.
            let plugins = plugin::list(&home);
            if plugins == defaults.plugins {
                return Err(faults);
            }
            dagfile::parse(path, bytes, &Defaults::clone(&defaults).with_plugins(plugins))
        };
        let parsed = dagfile::parse(path, bytes, &defaults).or_else(again).and_then(|dag| {
            let faults = template::check(&dag, path, &String::from_utf8_lossy(bytes));
            if faults.is_empty() { Ok(dag) } else { Err(faults) }
        });
        let masker = secrets.masker();
        let masked = |fault: Diagnostic| fault.masked(|text| masker.mask_in(text));
        let parsed = parsed.map_err(|faults| faults.into_iter().map(masked).collect::<Vec<_>>());
        if let Err(faults) = &parsed {
            // Who saves a file looks at the terminal that minflow runs in, and at nothing else yet.
            for fault in faults {
                log::warn!("{fault}");
            }
        }
        parsed
    })
}

/// Stored texts become definitions by the same parser as files.
fn restore(defaults: &Defaults) -> Box<Restore> {
    let defaults = defaults.clone().for_stored();
    Box::new(move |record, version| {
        let parsed = dagfile::parse(Path::new(&record.file), version.source.as_bytes(), &defaults);
        parsed.ok().map(Arc::new)
    })
}

/// SIGTERM, SIGINT and SIGHUP stop minflow; a second one ends at once what still runs.
fn forward_requests_to_end(signals: std::os::fd::OwnedFd, events: Sender<Event>) -> io::Result<()> {
    let mut signals = File::from(signals);
    let forward = move || {
        let mut stop = Stop::Drain;
        let mut record = [0; sys::SIGNAL_RECORD];
        while signals.read_exact(&mut record).is_ok() {
            let words = match stop {
                Stop::Drain => "stopping; what still runs has the drain_timeout to end (again: ends it at once)",
                Stop::Now => "ending what still runs",
            };
            log::info!("{words}");
            let command = Command::Stop { how: stop, by: Asker::Signal };
            if events.send(Event::Command { command, reply: ReplyTo::new(|_| ()) }).is_err() {
                return;
            }
            stop = Stop::Now;
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).stack_size(128 * 1024).spawn(forward)?;
    Ok(())
}
