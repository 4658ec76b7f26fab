//! Wires the threads together: what `minflow run` is, and the smaller arrangements by which commands do without it.
//!
//! Order matters here, and only here: the supervisor is started before any thread, socket, lock or database exists, so that what
//! it forks keeps none of them; the loop's end comes before that of the parts which it drives.

mod defaults;
mod files;
mod heartbeat;
mod keeper;
mod lock;
mod manager;
mod offline;
mod reload;
mod screen;
mod trial;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::bounded;

use crate::api::database::DatabaseSource;
use crate::api::protocol::Pong;
use crate::api::routes::{Present, Site};
use crate::api::server::{Server, StartError};
use crate::api::socket::{Patience, SocketError, SocketServer};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Loaded};
use crate::dagfile::Defaults;
use crate::executor::{ExecutorSettings, LocalExecutor};
use crate::health::{Health, LogProbe};
use crate::lack::Lack;
use crate::model::{AdmissionRules, DagId, Reservable};
use crate::observe::LiveUsage;
use crate::observe::host::{self, HostProbe};
use crate::observe::pressure::LocalHost;
use crate::operators::plugin;
use crate::scheduler::admission::Admission;
use crate::scheduler::change::Snapshot;
use crate::scheduler::command::{Asker, Command, Done, Stop};
use crate::scheduler::event::{self, Event, EventSender};
use crate::scheduler::gauge::{GaugeBoard, Heartbeat};
use crate::scheduler::port::ReplyTo;
use crate::scheduler::ready::Choosing;
use crate::scheduler::turn::{Parts, Scheduler};
use crate::scheduler::world::{Drained, Settings};
use crate::scheduler::{Store, StoreError};
use crate::store::{Checkpointer, Database, OpenError, ReaderPool};
use crate::supervisor::{self, Origin, Tasks, sys};
use crate::timer::SystemTimer;
use crate::triggerer::LocalTriggerer;
use crate::watch::{WatchSettings, Watcher};

use defaults::{Circle, LiveDefaults, words_of};
pub use lock::{HomeLock, LockError};
use manager::Manager;
pub use offline::apply_offline;
pub use reload::{Load, SetLevel};
use reload::{Reloader, Terminal};
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
            Self::Open(error) => write!(f, "failed to {error}\nhelp: {}", error.help()),
            Self::Store(error) => write!(f, "failed to {}\nhelp: {}", error.message, error.help),
            Self::Http(error) => error.fmt(f),
            Self::Socket(error) => write!(f, "failed to {error}"),
            Self::Io { what, cause } => {
                let refusal = cause.get_ref().and_then(|error| error.downcast_ref::<supervisor::Refusal>());
                if let Some((why, help)) = refusal.map(supervisor::Refusal::parts) {
                    return write!(f, "failed to {what}: {why}\nhelp: {help}");
                }
                let help = Lack::of_process(cause)
                    .map_or("see whether the host is out of processes, descriptors or memory", Lack::remedy);
                write!(f, "failed to {what}: {cause}\nhelp: {help}")
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

/// What `minflow run` leaves to who calls it.
pub struct Hooks {
    /// Is told the address of HTTP once all is up.
    pub started: Box<dyn FnOnce(&str)>,
    pub load: Box<Load>,
    pub set_level: Box<SetLevel>,
    /// Tells what is wrong with the log's file.
    pub log: LogProbe,
}

/// `minflow run`: the scheduler of a home, until it is told to stop.
///
/// # Errors
/// It could not start: another minflow has the home, the port is taken, the database cannot be used.
pub fn run(loaded: Loaded, hooks: Hooks) -> Result<(), RunError> {
    let config = &loaded.config;
    sys::keep_heaps_small();
    let manager = Manager::take();
    let terminal = Terminal::look();
    let exe = std::env::current_exe().map_err(io_error("find this program's own file"))?;
    let origin = Origin { exe, home: config.home.clone(), cgroup: config.core.cgroup.clone(), tasks: Tasks::OutliveIt };
    let supervisor = supervisor::spawn(&origin).map_err(io_error("start the supervisor"))?;
    let requests_to_end = sys::watch_requests_to_end().map_err(io_error("watch for signals"))?;
    let _lock = HomeLock::take(&config.home)?;

    let (health, gauges, heartbeat) = (Health::default(), GaugeBoard::default(), Heartbeat::default());
    health.ask_log(hooks.log);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut database = Database::open(&config.database.path, config.database.synchronous)?;
    let _checkpointer = Checkpointer::start(&mut database, health.clone())?;
    let readers = Arc::new(ReaderPool::new(&config.database.path));
    let (events, inbox) = event::channel();
    let (board, commits) = (health.clone(), heartbeat.clone());

    let http = {
        let site = site(config, &readers, &gauges, &health, &heartbeat, &clock, events.clone());
        Server::start(&config.api, site).map_err(RunError::Http)?
    };
    let address = http.address().to_string();
    let pong =
        Pong { pid: std::process::id(), version: env!("CARGO_PKG_VERSION").to_owned(), http: Some(address.clone()) };
    let _socket =
        SocketServer::start(&config.home, pong, events.clone(), Patience::default()).map_err(RunError::Socket)?;

    let settings = ExecutorSettings::of(config);
    let tunables = settings.tunables.clone();
    let executor = LocalExecutor::start(settings, supervisor, readers, events.clone(), clock.clone(), health.clone())
        .map_err(io_error("start the workers"))?;
    let timer = SystemTimer::start(events.clone()).map_err(io_error("start the timer"))?;
    let snapshot = database.load()?;
    let defaults = live_defaults(config, &snapshot);
    let watch = WatchSettings { dags_folder: config.core.dags_folder.clone(), home: config.home.clone() };
    let parse = defaults.parse(tunables.clone(), config.home.clone());
    let watcher =
        Watcher::start(watch, parse, events.clone(), health.clone()).map_err(io_error("watch the DAG files"))?;
    let watcher = Arc::new(watcher);
    let keeper = keeper::Keeper::start(config, events.clone(), health.clone()).map_err(io_error("start the keeper"))?;
    let parts = Parts {
        store: Box::new(database),
        executor: Box::new(executor),
        triggerer: Box::new(LocalTriggerer::new(events.clone(), health.clone())),
        timer: Box::new(timer),
        host: Box::new(LocalHost::new(
            vec![config.home.clone(), config.logging.base_log_folder.clone()],
            config.database.path.parent().unwrap_or(&config.home).to_owned(),
            events.clone(),
        )),
        files: Box::new(files::FileTriggers::new(events.clone(), health.clone())),
        followers: Box::new(Circle {
            defaults: defaults.clone(),
            watcher: watcher.clone(),
            manager: manager.clone(),
            keeper: keeper.bell(),
        }),
        clock,
        health: health.clone(),
        gauges,
        heartbeat,
    };
    let scheduler = Scheduler::new(scheduler_settings(config), snapshot, defaults.restore(), parts);
    let start_pulse = Box::new(move |config: &Config| {
        let clock = Arc::new(SystemClock);
        heartbeat::Pulse::start(config.heartbeat.as_ref(), board.clone(), commits.clone(), clock)
    });
    let pulse = start_pulse(config).map_err(io_error("start the heartbeat"))?;
    let _watchdog = manager.watch(events.clone()).map_err(io_error("start the watchdog"))?;
    let status = format!("http://{address}");
    let reloader = Reloader::new(reload::Parts {
        loaded,
        load: hooks.load,
        set_level: hooks.set_level,
        start_pulse,
        pulse,
        defaults,
        tunables,
        watcher,
        events: events.clone(),
        manager: manager.clone(),
        status: status.clone(),
    });
    let hang_up = move || {
        let is_reload = !terminal.is_gone();
        if is_reload {
            reloader.reload();
        }
        is_reload
    };
    forward_requests_to_end(requests_to_end, events, hang_up).map_err(io_error("watch for signals"))?;
    (hooks.started)(&address);
    manager.ready(&status);
    sys::forget_start();
    scheduler.run(&inbox);
    drop(keeper);
    manager.stopping(Duration::ZERO);
    Ok(())
}

fn site(
    config: &Config,
    readers: &Arc<ReaderPool>,
    gauges: &GaugeBoard,
    health: &Health,
    heartbeat: &Heartbeat,
    clock: &Arc<dyn Clock>,
    events: EventSender,
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
        present: Box::new(move |dag_id| present(&events, dag_id)),
        live: LiveUsage::default(),
        home: config.home.display().to_string(),
        started: Instant::now(),
    }
}

/// What waits for a slot and what runs, as the loop knows it; None: a turn lasts for too long just now.
fn present(events: &EventSender, dag_id: Option<&str>) -> Present {
    const SHOWN: usize = 20;
    const PATIENCE: Duration = Duration::from_millis(200);
    let (sender, answers) = bounded(2);
    let dag_id = dag_id.map(DagId::from);
    let commands =
        [Command::ListWaiting { dag_id: dag_id.clone(), limit: SHOWN }, Command::ListRunning { dag_id, limit: SHOWN }];
    for command in commands {
        let sender = sender.clone();
        let reply = ReplyTo::new(move |reply| {
            // Who asked may have given up.
            let _ = sender.send(reply);
        });
        if events.send(Event::Command { command, reply }).is_err() {
            return Present::default();
        }
    }
    let deadline = Instant::now() + PATIENCE;
    let mut present = Present::default();
    for _ in 0..2 {
        match answers.recv_deadline(deadline) {
            Ok(Ok(Done::Waiting(waiting))) => present.waiting = Some(waiting),
            Ok(Ok(Done::Running(running))) => present.running = Some(running),
            _ => {}
        }
    }
    present
}

fn live_defaults(config: &Config, snapshot: &Snapshot) -> LiveDefaults {
    let defaults = Defaults::from_config(config, snapshot.pools.iter().cloned());
    LiveDefaults::new(defaults.with_host(host::reservable()).with_plugins(plugin::list(&config.home)))
}

fn scheduler_settings(config: &Config) -> Settings {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let Reservable { memory, millicpus } = config.admission.reservable().or(host::reservable());
    Settings {
        parallelism: config
            .admission
            .parallelism
            .map_or(config.core.parallelism, |range| Admission::first_parallelism(range, cores)),
        admission: AdmissionRules { memory, millicpus, ..config.admission.clone() },
        drain_timeout: config.scheduler.drain_timeout,
        drained: Drained::Kept,
        choosing: choosing(config),
        pools: config.given_pools(),
        overrides: config.core.dag_run_conf_overrides_params.into(),
        assets: config.assets.values().cloned().collect(),
    }
}

fn choosing(config: &Config) -> Choosing {
    Choosing {
        rows: NonZeroU32::new(config.scheduler.max_tis_per_query),
        fair_share: config.scheduler.fair_share,
        ageing: config.scheduler.priority_ageing,
    }
}

/// SIGTERM and SIGINT stop minflow; a second one ends at once what still runs. So does SIGHUP, unless `hang_up` says that it has been
/// dealt with.
fn forward_requests_to_end(
    signals: std::os::fd::OwnedFd,
    events: EventSender,
    hang_up: impl Fn() -> bool + Send + 'static,
) -> io::Result<()> {
    let mut signals = File::from(signals);
    let forward = move || {
        let mut stop = Stop::Drain;
        let mut record = [0; sys::SIGNAL_RECORD];
        while signals.read_exact(&mut record).is_ok() {
            if sys::signal_of(&record) == libc::SIGHUP && hang_up() {
                continue;
            }
            log::info!("stopping: {}", words_of(stop));
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
