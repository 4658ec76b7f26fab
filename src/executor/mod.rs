//! Runs tries as processes of this host: a fixed pool of worker threads, each a slot, in front of the supervisor.
//!
//! Implements [`scheduler::Executor`](crate::scheduler::Executor). Knows templates, logs, run_dirs and XComs of a try; knows
//! neither states nor retries. When the supervisor dies, its tries are ended and lost, another is spawned, and work goes on.

pub mod environment;
mod output;
pub mod paths;
mod reclaim;
#[cfg(test)]
mod tests;
mod try_log;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::health::Health;
use crate::model::{ProcessIdentity, TryKey};
use crate::scheduler::event::{Attempt, Event, Outcome, TryEnd};
use crate::scheduler::port::{Executor, Kill, Stray, Work};
use crate::supervisor::protocol::{Answer, End, Refusal, Start};
use crate::supervisor::{self, Gone, Notice, Supervise, SupervisorClient, SupervisorHandle};
use crate::template::Lookup;

/// Under which the board tells of a supervisor that died.
const CONDITION: &str = "supervisor";
/// Under which it tells of tries that the host does not let start.
const WAITING: &str = "tasks";
/// Under which it tells of tries whose results cannot be read for want of something.
const UNREAD: &str = "results";
/// What a refused start says holds for so long: each is tried again after a second, unless its run has been ended meanwhile.
const REFUSAL_HOLDS: Duration = Duration::from_secs(5);
/// A template may recurse; untouched stack costs no memory.
const WORKER_STACK: usize = 1 << 20;
/// Between two looks whether the host has again what it lacked.
const LACK_PAUSE: Duration = Duration::from_millis(200);
const FIRST_RESPAWN_PAUSE: Duration = Duration::from_millis(100);
const LAST_RESPAWN_PAUSE: Duration = Duration::from_secs(30);

/// What the executor is told of its home. Paths are absolute.
#[derive(Clone, Debug)]
pub struct ExecutorSettings {
    pub home: PathBuf,
    /// `logging.base_log_folder`.
    pub logs: PathBuf,
    pub dags_folder: PathBuf,
    /// How many tries run at once.
    pub parallelism: u32,
    /// `logging.max_file_size`.
    pub max_log_bytes: u64,
    /// `core.dag_run_conf_overrides_params`.
    pub overrides_params: bool,
    /// The `PATH` on which interpreters are looked up, unless a task's `env` has its own.
    pub search_path: String,
}

impl ExecutorSettings {
    pub fn of(config: &crate::config::Config) -> Self {
        Self {
            home: config.home.clone(),
            logs: config.logging.base_log_folder.clone(),
            dags_folder: config.core.dags_folder.clone(),
            parallelism: config.core.parallelism,
            max_log_bytes: config.logging.max_file_size,
            overrides_params: config.core.dag_run_conf_overrides_params,
            search_path: std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned()),
        }
    }
}

/// A worker's next piece of work.
enum Job {
    Run(Box<Work>),
    Reclaim(Box<Stray>),
}

/// What a worker hears of the process that it waits for.
enum Told {
    NotStarted {
        kind: Refusal,
        message: String,
    },
    Ended(Box<End>),
    /// The supervisor is gone; the process, if one was started, may still live.
    Gone {
        process: Option<ProcessIdentity>,
    },
}

/// A try between `start` and its end.
#[derive(Default)]
struct Slot {
    /// Why it is to be ended.
    kill: Option<String>,
    handed: Option<Handed>,
}

/// The supervisor has it.
struct Handed {
    reply: Sender<Told>,
    process: Option<ProcessIdentity>,
}

/// What the workers, the supervisor's reader and the loop share.
struct Shared {
    settings: ExecutorSettings,
    clock: Arc<dyn Clock>,
    health: Health,
    lookup: Arc<dyn Lookup>,
    events: Sender<Event>,
    /// None while there is none, and when the executor closes.
    supervisor: Mutex<Option<Arc<dyn Supervise>>>,
    tries: Mutex<BTreeMap<TryKey, Slot>>,
    /// Disconnected when the executor closes: ends the wait between two respawns.
    closing: Receiver<()>,
}

impl Shared {
    /// Why it is to be ended, if it is.
    fn killed(&self, key: TryKey) -> Option<String> {
        self.tries.lock().get(&key)?.kill.clone()
    }

    /// Gives a try to the supervisor, unless it was killed meanwhile. Under one lock, so that a kill comes either before, and
    /// is seen here, or after, and follows the start on the line.
    fn hand_over(&self, work: &Work, start: Start, reply: Sender<Told>) -> Result<(), Outcome> {
        let mut tries = self.tries.lock();
        let slot = tries.entry(work.key).or_default();
        if let Some(reason) = &slot.kill {
            return Err(Outcome::Killed { reason: reason.clone() });
        }
        let supervisor = self.supervisor.lock().clone();
        match supervisor.map_or(Err(Gone), |supervisor| supervisor.start(start)) {
            Ok(()) => {
                slot.handed = Some(Handed { reply, process: None });
                Ok(())
            }
            Err(Gone) => {
                Err(Outcome::Unstarted { reason: "the supervisor is gone and another is being started".to_owned() })
            }
        }
    }

    /// Called by the supervisor's reader.
    fn hear(&self, answer: Answer) {
        match answer {
            Answer::Started { key, process, at } => {
                self.health.clear(WAITING);
                if let Some(handed) = self.tries.lock().get_mut(&key).and_then(|slot| slot.handed.as_mut()) {
                    handed.process = Some(process.clone());
                }
                // A loop that has ended wants no more events.
                let _ = self.events.send(Event::Started(Attempt { key, process, started_at: at }));
            }
            Answer::NotStarted { key, kind, message } => self.tell(key, Told::NotStarted { kind, message }),
            Answer::Ended(end) => self.tell(end.key, Told::Ended(end)),
            Answer::Hello { .. } | Answer::Refused { .. } => {}
        }
    }

    fn tell(&self, key: TryKey, told: Told) {
        if let Some(handed) = self.tries.lock().get_mut(&key).and_then(|slot| slot.handed.take()) {
            let _ = handed.reply.send(told);
        }
    }

    /// The supervisor died: its tries are ended by their workers, and another supervisor takes its place.
    fn rescue(self: &Arc<Self>, reason: &str, exe: &Path, home: &Path) {
        *self.supervisor.lock() = None;
        self.health.raise(CONDITION, format!("{reason}; its tasks are ended and another is started: see the log"));
        self.abandon();
        let mut pause = FIRST_RESPAWN_PAUSE;
        loop {
            match supervisor::spawn(exe, home).and_then(|handle| self.connect(handle)) {
                Ok(()) if self.is_closing() => return *self.supervisor.lock() = None,
                Ok(()) => return self.health.clear(CONDITION),
                Err(error) => self.health.raise(CONDITION, format!("cannot start another supervisor: {error}")),
            }
            let _ = self.closing.recv_timeout(pause);
            if self.is_closing() {
                return;
            }
            pause = (pause * 2).min(LAST_RESPAWN_PAUSE);
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.try_recv() == Err(channel::TryRecvError::Disconnected)
    }

    /// Has the workers end what the supervisor had.
    fn abandon(&self) {
        let tries: Vec<Handed> = self.tries.lock().values_mut().filter_map(|slot| slot.handed.take()).collect();
        for Handed { reply, process } in tries {
            let _ = reply.send(Told::Gone { process });
        }
    }

    fn connect(self: &Arc<Self>, handle: SupervisorHandle) -> io::Result<()> {
        let (exe, home) = handle.origin();
        let shared = self.clone();
        let client = SupervisorClient::connect(handle, move |notice| match notice {
            Notice::Answer(answer) => shared.hear(answer),
            Notice::Gone { reason } => shared.rescue(&reason, &exe, &home),
        })?;
        *self.supervisor.lock() = Some(Arc::new(client));
        Ok(())
    }

    /// What the host refuses to one try concerns all; the first that starts again shows that it is over, and the first whose
    /// results are read that these can be read again.
    fn tell_of_end(&self, end: Option<&TryEnd>) {
        match end {
            Some(TryEnd { outcome: Outcome::Unstarted { reason }, .. }) => {
                self.health.raise_for(WAITING, format!("cannot be started and wait: {reason}"), REFUSAL_HOLDS);
            }
            Some(TryEnd { started_at: Some(_), .. }) => self.health.clear(UNREAD),
            _ => {}
        }
    }

    /// Waits a moment for what the host lacks. False: minflow closes, or the try is to be ended.
    fn outwait(&self, key: TryKey, lack: &str) -> bool {
        let reason = format!("of ended tasks cannot be read and wait: {lack}; raise the limit (ulimit -n)");
        self.health.raise_for(UNREAD, reason, REFUSAL_HOLDS);
        let is_open = self.closing.recv_timeout(LACK_PAUSE) == Err(channel::RecvTimeoutError::Timeout);
        is_open && self.killed(key).is_none()
    }

    fn work(&self, jobs: &Receiver<Job>) {
        for job in jobs {
            let end = match job {
                Job::Run(work) => {
                    let end = worker::run(self, &work);
                    self.tries.lock().remove(&work.key);
                    self.tell_of_end(end.as_ref());
                    end
                }
                Job::Reclaim(stray) => Some(worker::reclaim(self, &stray)),
            };
            if let Some(end) = end {
                let _ = self.events.send(Event::Ended(Box::new(end)));
            }
        }
    }
}

/// The executor of this host. Dropping it is [`LocalExecutor::shutdown`].
pub struct LocalExecutor {
    shared: Arc<Shared>,
    jobs: Option<Sender<Job>>,
    workers: Vec<JoinHandle<()>>,
    /// Dropped to say that the executor closes.
    open: Option<Sender<()>>,
}

impl LocalExecutor {
    /// Greets the supervisor and starts the workers. Returns only when no earlier supervisor of the home starts anything more.
    ///
    /// # Errors
    /// The supervisor does not come up, an earlier one does not let go, or the host has no threads left.
    pub fn start(
        settings: ExecutorSettings,
        handle: SupervisorHandle,
        lookup: Arc<dyn Lookup>,
        events: Sender<Event>,
        clock: Arc<dyn Clock>,
        health: Health,
    ) -> io::Result<Self> {
        let executor = Self::without_supervisor(settings, lookup, events, clock, health)?;
        executor.shared.connect(handle)?;
        Ok(executor)
    }

    fn without_supervisor(
        settings: ExecutorSettings,
        lookup: Arc<dyn Lookup>,
        events: Sender<Event>,
        clock: Arc<dyn Clock>,
        health: Health,
    ) -> io::Result<Self> {
        let (jobs, taken) = channel::unbounded();
        let (open, closing) = channel::bounded(0);
        let parallelism = settings.parallelism;
        let (supervisor, tries) = (Mutex::new(None), Mutex::default());
        let shared = Arc::new(Shared { settings, clock, health, lookup, events, supervisor, tries, closing });
        let mut executor = Self { shared, jobs: Some(jobs), workers: Vec::new(), open: Some(open) };
        for number in 0..parallelism {
            let (shared, taken) = (executor.shared.clone(), taken.clone());
            let thread = std::thread::Builder::new().name(format!("worker-{number}")).stack_size(WORKER_STACK);
            executor.workers.push(thread.spawn(move || shared.work(&taken))?);
        }
        Ok(executor)
    }

    /// Closes the supervisor, which ends what still runs, and joins the workers. Tries that are cut off by it send no event:
    /// the next start finds them.
    pub fn shutdown(self) {
        drop(self);
    }

    fn queue(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // The workers live as long as the sender does.
            let _ = jobs.send(job);
        }
    }
}

impl Executor for LocalExecutor {
    fn start(&mut self, work: Work) {
        self.shared.tries.lock().insert(work.key, Slot::default());
        self.queue(Job::Run(Box::new(work)));
    }

    fn kill(&mut self, key: TryKey, how: Kill) {
        let mut tries = self.shared.tries.lock();
        let Some(slot) = tries.get_mut(&key) else { return };
        if slot.handed.is_some()
            && let Some(supervisor) = &*self.shared.supervisor.lock()
        {
            supervisor.kill(key, &how.reason, how.force);
        }
        // The first reason stands, as it does with the supervisor.
        slot.kill.get_or_insert(how.reason);
    }

    fn reclaim(&mut self, stray: Stray) {
        self.queue(Job::Reclaim(Box::new(stray)));
    }

    fn acknowledge(&mut self, keys: &[TryKey]) {
        if let Some(supervisor) = &*self.shared.supervisor.lock() {
            supervisor.acknowledge(keys);
        }
    }
}

impl Drop for LocalExecutor {
    fn drop(&mut self) {
        self.jobs = None;
        self.open = None;
        // Its drop waits until the supervisor has ended.
        let supervisor = self.shared.supervisor.lock().take();
        drop(supervisor);
        // Without a reply their workers give up, and report nothing.
        for slot in self.shared.tries.lock().values_mut() {
            slot.handed = None;
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}
