//! Trials in the foreground: one run of a DAG, or one try of a task, with the real workers and supervisor, and without a server,
//! the home's lock, or a row in minflow.db.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, unbounded};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::executor::{ExecutorSettings, LocalExecutor, paths};
use crate::health::Health;
use crate::model::{AdmissionRules, Awaited, Dag, DagRun, Instance, InstanceKey, RunState, Schedule, TaskIx, TryKey};
use crate::scheduler::Event;
use crate::scheduler::change::Snapshot;
use crate::scheduler::command::{Asker, Command, Done, LogicalDate, Stop, Trigger};
use crate::scheduler::event::{self, DagFile, EventReceiver, EventSender, Found, Outcome, TryEnd};
use crate::scheduler::gauge::{GaugeBoard, Heartbeat};
use crate::scheduler::port::{Call, Executor, Force, Kill, Left, ReplyTo, Work};
use crate::scheduler::turn::{Parts, Scheduler};
use crate::scheduler::world::{Drained, Settings};
use crate::store::{MemoryStore, ReaderPool};
use crate::supervisor::{self, Origin, SupervisorHandle, Tasks, sys};
use crate::template::Lookup;
use crate::timer::SystemTimer;
use crate::timetable::Timetable;
use crate::triggerer::LocalTriggerer;

use super::screen::{LogWatch, Screen};
use super::{RunError, forward_requests_to_end, io_error, offline, scheduler_settings};

/// What `dags test` runs.
pub struct DagTrial {
    pub dag: Dag,
    /// Relative to the dags folder.
    pub file: PathBuf,
    pub logical_date: Timestamp,
    pub conf: Map<String, Value>,
}

/// What a trial run came to.
pub struct Tried {
    pub run: DagRun,
    /// In the order of the DAG file.
    pub instances: Vec<Instance>,
}

/// What `tasks test` runs.
pub struct TaskTrial {
    pub dag: Arc<Dag>,
    /// Relative to the dags folder.
    pub file: String,
    pub task: TaskIx,
    /// -1 unless mapped.
    pub map_index: i32,
    /// An existing run, whose XComs are read from minflow.db, or one that is made up.
    pub run: DagRun,
}

/// A try whose log is shown.
struct Handed {
    title: String,
    log: PathBuf,
}

/// The executor, telling what it is handed.
struct Telling {
    inner: LocalExecutor,
    logs: PathBuf,
    watch: LogWatch,
    handed: Sender<(TryKey, Handed)>,
}

impl Executor for Telling {
    fn prepare(&mut self, work: Work) {
        let handed = handed(&self.logs, &work);
        self.watch.add(&handed.log);
        // Nobody listens any more once the run has ended.
        let _ = self.handed.send((work.key, handed));
        self.inner.prepare(work);
    }

    fn start(&mut self, keys: &[TryKey]) {
        self.inner.start(keys);
    }

    fn kill(&mut self, key: TryKey, how: Kill) {
        self.inner.kill(key, how);
    }

    fn pause(&mut self, key: TryKey) {
        self.inner.pause(key);
    }

    fn resume(&mut self, key: TryKey) {
        self.inner.resume(key);
    }

    fn reclaim(&mut self, left: Left) {
        self.inner.reclaim(left);
    }

    fn call(&mut self, call: Box<Call>) {
        self.inner.call(call);
    }

    fn look(&mut self, works: Vec<Work>) {
        self.inner.look(works);
    }

    fn forget(&mut self, key: TryKey) {
        self.inner.forget(key);
    }

    fn acknowledge(&mut self, keys: &[TryKey]) {
        self.inner.acknowledge(keys);
    }
}

fn handed(logs: &std::path::Path, work: &Work) -> Handed {
    let task_id = &work.dag.task(work.task).task_id;
    let try_number = work.key.try_number;
    let log = paths::log_path(logs, &work.dag.dag_id, &work.run.run_id, task_id, work.map_index, try_number);
    Handed { title: format!("{task_id} try {try_number}"), log }
}

/// A folder of the trial's own: a running minflow has the home's supervisor lock, and the logs of real tries are not touched.
struct Aside(PathBuf);

impl Aside {
    fn new() -> Result<Self, RunError> {
        let path = std::env::temp_dir().join(format!("minflow-test-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(io_error("make a folder for the trial"))?;
        Ok(Self(path))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // What cannot be removed lies in the temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The parts that every trial has, begun in the order that the supervisor needs.
struct Bench {
    aside: Aside,
    supervisor: SupervisorHandle,
    signals: OwnedFd,
    clock: Arc<dyn Clock>,
    settings: ExecutorSettings,
}

impl Bench {
    fn new(config: &Config) -> Result<Self, RunError> {
        let exe = std::env::current_exe().map_err(io_error("find this program's own file"))?;
        let aside = Aside::new()?;
        let origin = Origin { exe, home: aside.0.clone(), cgroup: config.core.cgroup.clone(), tasks: Tasks::EndWithIt };
        let supervisor = supervisor::spawn(&origin).map_err(io_error("start the supervisor"))?;
        let signals = sys::watch_requests_to_end().map_err(io_error("watch for signals"))?;
        let settings = ExecutorSettings {
            // The numbers of its instances are those of others in the home.
            owner: aside.0.clone(),
            logs: aside.0.join("logs"),
            xcoms: aside.0.join("xcoms"),
            ..ExecutorSettings::of(config)
        };
        Ok(Self { aside, supervisor, signals, clock: Arc::new(SystemClock), settings })
    }
}

/// Runs a DAG once, and writes what its tasks print to `out` as they print it.
///
/// # Errors
/// The supervisor, the workers or the timer cannot be started.
pub fn test_dag(config: &Config, trial: DagTrial, out: &mut dyn Write) -> Result<Tried, RunError> {
    let bench = Bench::new(config)?;
    let store = MemoryStore::default();
    let (events, inbox) = event::channel();
    let (told, heard) = event::channel();
    let tap = tap(heard).map_err(io_error("listen to the workers"))?;
    let (handed_to, handed) = unbounded();
    let (watch, _open, grown) = LogWatch::new();
    let health = Health::default();
    let (logs, masker) = (bench.settings.logs.clone(), bench.settings.tunables.now().secrets.masker());
    let _aside = bench.aside;
    let lookup: Arc<dyn Lookup> = Arc::new(store.clone());
    let inner =
        LocalExecutor::start(bench.settings, bench.supervisor, lookup, told, bench.clock.clone(), health.clone())
            .map_err(io_error("start the workers"))?;
    // Who tries a DAG wants to see it run, however busy the host is.
    let settings =
        Settings { admission: AdmissionRules::default(), drained: Drained::Ended, ..scheduler_settings(config) };
    let parts = Parts {
        store: Box::new(store.clone()),
        executor: Box::new(Telling { inner, logs, watch, handed: handed_to }),
        triggerer: Box::new(LocalTriggerer::new(events.clone(), health.clone())),
        timer: Box::new(SystemTimer::start(events.clone()).map_err(io_error("start the timer"))?),
        files: Box::new(offline::Nobody),
        followers: Box::new(offline::Nobody),
        host: Box::new(offline::Nobody),
        clock: bench.clock,
        health,
        gauges: GaugeBoard::default(),
        heartbeat: Heartbeat::default(),
    };
    let scheduler = Scheduler::new(settings, Snapshot::default(), Box::new(|_, _| None), parts);
    forward_requests_to_end(bench.signals, events.clone(), || false).map_err(io_error("watch for signals"))?;
    begin(trial, &events);
    let looping = std::thread::Builder::new().name("scheduler".to_owned()).spawn(move || scheduler.run(&inbox));
    let looping = looping.map_err(io_error("start the scheduler"))?;
    show(&Told { tap, handed, grown }, &events, Screen::new(out, masker));
    if looping.join().is_err() {
        log::error!("the scheduler panicked; please report what stands above");
    }
    let run = store
        .runs()
        .into_iter()
        .next()
        .ok_or_else(|| RunError::Io { what: "create the run", cause: io::Error::other("the scheduler refused it") })?;
    // The run was made up, and so was its folder.
    let _ = std::fs::remove_dir_all(paths::run_dir(&config.home, &run.dag_id, &run.run_id));
    Ok(Tried { run, instances: store.instances() })
}

/// The script of a trial: the one file, one run, and a stop when it has ended.
fn begin(trial: DagTrial, events: &EventSender) {
    let dag_id = trial.dag.dag_id.clone();
    // As its schedule says; Airflow's `dags test` infers it from the logical date too.
    let timetable = Timetable::of(&trial.dag).ok();
    let data_interval = timetable.and_then(|timetable| timetable.infer_manual(trial.logical_date));
    // Nobody is to be woken by a trial.
    let dag = trial.dag.without_callbacks();
    let dag = Dag { schedule: Schedule::Never, is_paused_upon_creation: false, ..dag };
    let found = Found::Parsed { dag: Arc::new(dag), source: "".into(), hash: "".into() };
    let files = vec![DagFile { path: trial.file, modified_at: None, found }];
    let trigger = Trigger {
        dag_id: dag_id.clone(),
        run_id: None,
        logical_date: LogicalDate::At(trial.logical_date),
        data_interval,
        conf: trial.conf,
        unpause: false,
    };
    let stop = |events: &EventSender| {
        let command = Command::Stop { how: Stop::Drain, by: Asker::Cli };
        // The loop has ended already if nobody listens.
        let _ = events.send(Event::Command { command, reply: ReplyTo::new(|_| ()) });
    };
    let again = events.clone();
    let when_triggered = ReplyTo::new(move |reply| match reply {
        Ok(Done::Triggered { run_id, .. }) => {
            let ended = again.clone();
            let reply = ReplyTo::new(move |_| stop(&ended));
            let _ = again.send(Event::Command { command: Command::Await { dag_id, run_id }, reply });
        }
        other => {
            log::error!("the run was not created: {other:?}");
            stop(&again);
        }
    });
    // The loop owns the other end, and has not begun.
    let _ = events.send(Event::DagFiles { files, complete: true });
    let _ = events.send(Event::Scanned);
    let _ = events.send(Event::Command { command: Command::Trigger(trigger), reply: when_triggered });
}

/// What the executor tells, as something that can be waited for together with others.
fn tap(events: EventReceiver) -> io::Result<Receiver<Event>> {
    let (sender, tap) = unbounded();
    let forward = move || events.into_iter().all(|event| sender.send(event).is_ok());
    std::thread::Builder::new().name("tap".to_owned()).stack_size(128 * 1024).spawn(forward)?;
    Ok(tap)
}

/// What is heard during a trial run.
struct Told {
    /// From the executor.
    tap: Receiver<Event>,
    handed: Receiver<(TryKey, Handed)>,
    /// The logs that have grown.
    grown: Receiver<PathBuf>,
}

/// Passes what the executor tells on to the loop, and shows the logs as they grow. Returns when the executor has closed.
fn show(told: &Told, events: &EventSender, mut screen: Screen<'_>) {
    let mut logs: BTreeMap<TryKey, PathBuf> = BTreeMap::new();
    loop {
        let mut hear = |screen: &mut Screen<'_>| {
            for (key, Handed { title, log }) in told.handed.try_iter() {
                screen.open(log.clone(), title);
                logs.insert(key, log);
            }
        };
        crossbeam::select! {
            recv(told.tap) -> event => {
                // The loop drops its executor, and with it the tap, when it ends.
                let Ok(event) = event else { return };
                hear(&mut screen);
                let ends = match &event {
                    Event::Ended(end) => std::slice::from_ref(&**end),
                    Event::Looked(ends) => ends,
                    _ => &[],
                };
                for end in ends.iter().filter(|end| !looks_on(&end.outcome)) {
                    if let Some(log) = logs.remove(&end.key) {
                        screen.close(&log, &in_words(&end.outcome));
                    }
                }
                let _ = events.send(without_others(event));
            }
            recv(told.grown) -> path => {
                hear(&mut screen);
                path.into_iter().for_each(|path| screen.show(&path));
            }
        }
    }
}

/// A trial knows no other DAG: what asks for a run of one, or waits for its tasks, succeeds.
fn without_others(event: Event) -> Event {
    match event {
        Event::Ended(end) if needs_another(&end.outcome) => {
            Event::Ended(Box::new(TryEnd { outcome: Outcome::Exited(0), ..*end }))
        }
        other => other,
    }
}

fn needs_another(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Asks(_) => true,
        Outcome::Deferred(wait) => matches!(wait.awaited, Awaited::Tasks(_)),
        _ => false,
    }
}

/// Whether its log goes on though its try has given up its slots.
fn looks_on(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Deferred(wait) if matches!(wait.awaited, Awaited::Service { .. }))
}

fn in_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Exited(code) => format!("exit code {code}"),
        Outcome::Signaled(signal) => format!("signal {signal}"),
        Outcome::TimedOut => "timed out".to_owned(),
        Outcome::Exceeded { limit, .. } => limit.to_string(),
        Outcome::Killed { reason }
        | Outcome::Faulted { reason }
        | Outcome::GivenUp { reason }
        | Outcome::Unstarted { reason } => reason.clone(),
        Outcome::Deferred(wait) if needs_another(outcome) => format!("{}, which a test does not", wait.words()),
        Outcome::Deferred(wait) => wait.words(),
        Outcome::Asks(request) => format!("asks for a run of {}, which a test does not make", request.dag_id),
        Outcome::Skipped { reason } => format!("skipped: {reason}"),
        Outcome::NeverBegun => "never begun".to_owned(),
        Outcome::Lost => "lost".to_owned(),
    }
}

/// Runs one try of one task, and writes what it prints to `out` as it prints it. Gives how it ended.
///
/// # Errors
/// The supervisor or the workers cannot be started.
pub fn test_task(config: &Config, trial: TaskTrial, out: &mut dyn Write) -> Result<RunState, RunError> {
    let spec = trial.dag.task(trial.task).clone();
    if spec.operator.is_idle() {
        let _ = writeln!(out, "--- {}: {}, nothing to run", spec.task_id, spec.operator.name());
        return Ok(RunState::Success);
    }
    let bench = Bench::new(config)?;
    let (events, heard) = event::channel();
    let ends = tap(heard).map_err(io_error("listen to the workers"))?;
    let (logs, masker) = (bench.settings.logs.clone(), bench.settings.tunables.now().secrets.masker());
    let _aside = bench.aside;
    let lookup: Arc<dyn Lookup> = Arc::new(ReaderPool::new(&config.database.path));
    let mut executor =
        LocalExecutor::start(bench.settings, bench.supervisor, lookup, events.clone(), bench.clock, Health::default())
            .map_err(io_error("start the workers"))?;
    forward_requests_to_end(bench.signals, events, || false).map_err(io_error("watch for signals"))?;
    let key = TryKey { instance: InstanceKey(0), try_number: 1 };
    let run = Arc::new(trial.run);
    let mut work = Work {
        key,
        dag: trial.dag,
        file: trial.file.into(),
        task: trial.task,
        map_index: trial.map_index,
        run,
        max_tries: spec.retries,
        earlier: None,
        epoch: 0,
    };
    let Handed { title, log } = handed(&logs, &work);
    let (mut watch, _open, grown) = LogWatch::new();
    watch.add(&log);
    let mut screen = Screen::new(out, masker);
    screen.open(log.clone(), title);
    executor.prepare(work.clone());
    executor.start(&[key]);
    loop {
        let event = crossbeam::select! {
            recv(ends) -> event => event,
            recv(grown) -> _ => {
                screen.show(&log);
                continue;
            }
        };
        let outcome = match event {
            Ok(Event::Ended(end)) if looks_on(&end.outcome) => {
                if let Outcome::Deferred(wait) = end.outcome {
                    work.earlier = Some(Arc::from(wait));
                }
                executor.look(vec![work.clone()]);
                continue;
            }
            Ok(Event::Ended(end)) => end.outcome,
            Ok(Event::Looked(mut ends)) => match ends.pop() {
                Some(end) => end.outcome,
                None => continue,
            },
            Ok(Event::Command { command: Command::Stop { how: stop, .. }, .. }) => {
                let force = if stop == Stop::Now { Force::Immediate } else { Force::Graceful };
                executor.kill(key, Kill { reason: "stopped".to_owned(), force });
                continue;
            }
            Ok(_) => continue,
            Err(_) => return Ok(RunState::Failed),
        };
        screen.close(&log, &in_words(&outcome));
        executor.acknowledge(&[key]);
        let is_well = match outcome {
            Outcome::Exited(code) => code == 0 || spec.skip_on_exit_code.contains(&code),
            // One look is made, nothing is waited for, and no other DAG runs.
            Outcome::Deferred(_) | Outcome::Asks(_) => true,
            _ => false,
        };
        return Ok(if is_well { RunState::Success } else { RunState::Failed });
    }
}
