//! Runs tries as processes of this host: a crew of threads that prepare and conclude them, in front of the supervisor.
//!
//! Implements [`scheduler::Executor`](crate::scheduler::Executor). Knows templates, logs, run_dirs and XComs of a try; knows
//! neither states nor retries. Looks of sensors that ask a service go another way ([`look`]). No thread waits for a process: what its end needs stands in a table until then. When the
//! supervisor dies, its tries are ended and lost, another is spawned, and work goes on.

pub mod asked;
mod call;
mod crew;
pub mod environment;
mod farewell;
mod large;
mod look;
mod lookout;
pub mod mapped;
mod output;
pub mod paths;
mod reclaim;
#[cfg(test)]
mod tests;
mod try_log;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};
use parking_lot::Mutex;

use crate::builtin::looks::Looking;
use crate::clock::Clock;
use crate::config::Notifier;
use crate::executor::crew::Crew;
use crate::executor::lookout::{Lookout, Sight};
use crate::executor::mapped::Values;
use crate::executor::worker::{Begun, XcomFile};
use crate::health::Health;
use crate::model::{ProcessIdentity, TryKey};
use crate::operators;
use crate::scheduler::event::{Attempt, CallEnd, CallOutcome, Event, Outcome, TryEnd};
use crate::scheduler::port::{Call, Executor, Kill, Stray, Work};
use crate::secrets::Secrets;
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
/// Between two looks whether the host has again what it lacked.
const LACK_PAUSE: Duration = Duration::from_millis(200);
const FIRST_RESPAWN_PAUSE: Duration = Duration::from_millis(100);
const LAST_RESPAWN_PAUSE: Duration = Duration::from_secs(30);

/// What the executor is told of its home. Paths are absolute.
#[derive(Clone, Debug)]
pub struct ExecutorSettings {
    pub home: PathBuf,
    /// Whose the tries are, as their marks tell: the home, or a trial's own folder.
    pub owner: PathBuf,
    /// `logging.base_log_folder`.
    pub logs: PathBuf,
    /// Where XComs lie that are too large for the database.
    pub xcoms: PathBuf,
    pub dags_folder: PathBuf,
    /// How many tries run at once.
    pub parallelism: u32,
    /// `core.max_map_length`.
    pub max_map_length: u32,
    /// `logging.max_file_size`.
    pub max_log_bytes: u64,
    /// `core.dag_run_conf_overrides_params`.
    pub overrides_params: bool,
    /// The `PATH` on which interpreters are looked up, unless a task's `env` has its own.
    pub search_path: String,
    /// The home's variables and connections.
    pub secrets: Arc<Secrets>,
    /// Those of airflow.toml, by name.
    pub notifiers: Arc<BTreeMap<String, Notifier>>,
}

impl ExecutorSettings {
    pub fn of(config: &crate::config::Config) -> Self {
        Self {
            home: config.home.clone(),
            owner: config.home.clone(),
            logs: config.logging.base_log_folder.clone(),
            xcoms: config.home.join("xcoms"),
            dags_folder: config.core.dags_folder.clone(),
            parallelism: config.core.parallelism,
            max_map_length: config.core.max_map_length,
            max_log_bytes: config.logging.max_file_size,
            overrides_params: config.core.dag_run_conf_overrides_params,
            secrets: Arc::new(Secrets::of_process(config.secrets.clone())),
            notifiers: Arc::new(config.notices.notifiers.clone()),
            search_path: std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned()),
        }
    }
}

/// Why a try ends on which a worker has panicked.
const PANICKED: &str = "minflow failed on this try, which is a fault of minflow: please report it with the DAG file and what \
     minflow has written to its standard error";

/// A worker's next piece of work.
enum Job {
    Run(Box<Work>),
    Conclude(Box<Begun>, Told),
    Reclaim(Box<Stray>),
    Look(Box<Work>),
    Call(Box<Call>),
    ConcludeCall(Box<call::Begun>, Told),
}

/// What becomes known of a process.
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
    begun: Box<Begun>,
    process: Option<ProcessIdentity>,
}

/// A callback between `call` and its end.
#[derive(Default)]
struct CallSlot {
    /// Why it is to be ended.
    kill: Option<String>,
    /// The supervisor has it.
    begun: Option<Box<call::Begun>>,
}

/// The looks that are under way, and who makes them.
#[derive(Default)]
struct Looks {
    /// Started by the first.
    lookout: Option<Lookout>,
    /// None: it is being rendered.
    begun: BTreeMap<TryKey, Option<look::Begun>>,
}

/// What the workers, the supervisor's reader and the loop share.
struct Shared {
    settings: ExecutorSettings,
    clock: Arc<dyn Clock>,
    health: Health,
    lookup: Arc<dyn Lookup>,
    values: Values,
    events: Sender<Event>,
    /// None while there is none, and when the executor closes.
    supervisor: Mutex<Option<Arc<dyn Supervise>>>,
    tries: Mutex<BTreeMap<TryKey, Slot>>,
    /// Their keys are negative.
    calls: Mutex<BTreeMap<TryKey, CallSlot>>,
    looks: Mutex<Looks>,
    /// As many threads as tries run at once, at most: none waits for another that is slow to prepare.
    crew: Crew<Job>,
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
    fn hand_over(&self, begun: Box<Begun>, start: Start) -> Result<(), (Box<Begun>, Outcome)> {
        let mut tries = self.tries.lock();
        let slot = tries.entry(start.key).or_default();
        if let Some(reason) = &slot.kill {
            return Err((begun, Outcome::Killed { reason: reason.clone() }));
        }
        let supervisor = self.supervisor.lock().clone();
        match supervisor.map_or(Err(Gone), |supervisor| supervisor.start(start)) {
            Ok(()) => {
                slot.handed = Some(Handed { begun, process: None });
                Ok(())
            }
            Err(Gone) => {
                let reason = "the supervisor is gone and another is being started".to_owned();
                Err((begun, Outcome::Unstarted { reason }))
            }
        }
    }

    /// Called by the supervisor's reader.
    fn hear(&self, answer: Answer) {
        match answer {
            // Its row says already that it runs.
            Answer::Started { key, .. } if call::is_call(key) => {}
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

    /// What can be concluded at once is, on this thread: a short task's end wakes no other.
    fn tell(&self, key: TryKey, told: Told) {
        if call::is_call(key) {
            let begun = self.calls.lock().get_mut(&key).and_then(|slot| slot.begun.take());
            if let Some(begun) = begun {
                self.crew.give(Job::ConcludeCall(begun, told));
            }
            return;
        }
        let handed = self.tries.lock().get_mut(&key).and_then(|slot| slot.handed.take());
        let Some(Handed { begun, .. }) = handed else { return };
        if worker::is_brief(&begun, &told) {
            self.perform_try(key, || Some(worker::conclude(self, &begun, told, XcomFile::Absent)));
        } else {
            self.crew.give(Job::Conclude(begun, told));
        }
    }

    /// Tells the loop of an end.
    fn report(&self, key: TryKey, end: TryEnd) {
        self.tries.lock().remove(&key);
        self.tell_of_end(&end);
        // A loop that has ended wants no more events.
        let _ = self.events.send(Event::Ended(Box::new(end)));
    }

    fn report_call(&self, end: CallEnd) {
        self.calls.lock().remove(&end.key);
        // A loop that has ended wants no more events.
        let _ = self.events.send(Event::Called(Box::new(end)));
    }

    /// Gives a callback to the supervisor, under one lock as a try.
    fn hand_over_call(&self, begun: Box<call::Begun>, start: Start) -> Result<(), (Box<call::Begun>, CallOutcome)> {
        let mut calls = self.calls.lock();
        let slot = calls.entry(start.key).or_default();
        if let Some(reason) = &slot.kill {
            return Err((begun, CallOutcome::CutOff { reason: reason.clone() }));
        }
        let supervisor = self.supervisor.lock().clone();
        match supervisor.map_or(Err(Gone), |supervisor| supervisor.start(start)) {
            Ok(()) => {
                slot.begun = Some(begun);
                Ok(())
            }
            Err(Gone) => {
                let reason = "the supervisor is gone and another is being started".to_owned();
                Err((begun, CallOutcome::CutOff { reason }))
            }
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
        for Handed { begun, process } in tries {
            self.crew.give(Job::Conclude(begun, Told::Gone { process }));
        }
        let calls: Vec<_> = self.calls.lock().values_mut().filter_map(|slot| slot.begun.take()).collect();
        for begun in calls {
            self.crew.give(Job::ConcludeCall(begun, Told::Gone { process: None }));
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
    fn tell_of_end(&self, end: &TryEnd) {
        if let Outcome::Unstarted { reason } = &end.outcome {
            self.health.raise_for(WAITING, format!("cannot be started and wait: {reason}"), REFUSAL_HOLDS);
        } else if end.started_at.is_some() {
            self.health.clear(UNREAD);
        }
    }

    /// Asks for a look that is rendered.
    fn hand_look(self: &Arc<Self>, key: TryKey, begun: look::Begun, looking: Looking) {
        let mut looks = self.looks.lock();
        let Some(place) = looks.begun.get_mut(&key) else { return };
        *place = Some(begun);
        if looks.lookout.is_none() {
            match self.start_lookout() {
                Ok(lookout) => looks.lookout = Some(lookout),
                Err(error) => {
                    drop(looks);
                    let reason = format!("no thread can be started: {error}; raise the limit (ulimit -u)");
                    return self.hear_look(key, Sight::Blind(reason));
                }
            }
        }
        if let Some(lookout) = &looks.lookout {
            lookout.look(key, looking);
        }
    }

    fn start_lookout(self: &Arc<Self>) -> io::Result<Lookout> {
        let (home, shared) = (self.settings.home.clone(), Arc::downgrade(self));
        let command = move || {
            let program = operators::builtin::this_program().map_err(|fault| io::Error::other(fault.to_string()))?;
            Ok(lookout::command(&program, &home))
        };
        Lookout::start(command, move |key, sight| {
            if let Some(shared) = shared.upgrade() {
                shared.hear_look(key, sight);
            }
        })
    }

    /// Called by the lookout's thread. One that was forgotten is not concluded.
    fn hear_look(&self, key: TryKey, sight: Sight) {
        let begun = self.looks.lock().begun.get_mut(&key).and_then(Option::take);
        if let Some(begun) = begun {
            self.report_look(key, || look::conclude(self, &begun, sight));
        }
    }

    /// As [`perform_try`](Self::perform_try).
    fn report_look(&self, key: TryKey, act: impl FnOnce() -> TryEnd) {
        let end = catch_unwind(AssertUnwindSafe(act))
            .unwrap_or_else(|_| TryEnd::new(key, Outcome::Faulted { reason: PANICKED.to_owned() }, self.clock.now()));
        if self.looks.lock().begun.remove(&key).is_some() {
            // A loop that has ended wants no more events.
            let _ = self.events.send(Event::Looked(Box::new(end)));
        }
    }

    /// Waits a moment for what the host lacks. False: minflow closes, or the try is to be ended.
    fn outwait(&self, key: TryKey, lack: &str) -> bool {
        let reason = format!("of ended tasks cannot be read and wait: {lack}; raise the limit (ulimit -n)");
        self.health.raise_for(UNREAD, reason, REFUSAL_HOLDS);
        let is_open = self.closing.recv_timeout(LACK_PAUSE) == Err(channel::RecvTimeoutError::Timeout);
        is_open && self.killed(key).is_none()
    }

    fn perform(self: &Arc<Self>, job: Job) {
        match job {
            Job::Look(work) => {
                let key = work.key;
                match catch_unwind(AssertUnwindSafe(|| look::begin(self, work))) {
                    Ok(Ok((begun, looking))) => self.hand_look(key, begun, looking),
                    Ok(Err(end)) => self.report_look(key, || *end),
                    Err(panic) => self.report_look(key, || resume_unwind(panic)),
                }
            }
            Job::Run(work) => {
                let key = work.key;
                self.perform_try(key, || worker::run(self, work));
            }
            Job::Conclude(begun, told) => {
                self.perform_try(begun.key(), || Some(worker::conclude(self, &begun, told, XcomFile::Possible)));
            }
            Job::Reclaim(stray) => self.perform_try(stray.key, || Some(worker::reclaim(self, &stray))),
            Job::Call(call) => {
                let key = call.row.try_key();
                self.perform_call(key, || call::run(self, call));
            }
            Job::ConcludeCall(begun, told) => {
                self.perform_call(begun.key(), || Some(call::conclude(self, &begun, told)));
            }
        }
    }

    /// A panic costs one try: it must not take the thread with it, and leave a try behind that holds its slots for good.
    fn perform_try(&self, key: TryKey, act: impl FnOnce() -> Option<TryEnd>) {
        let end = catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| {
            Some(TryEnd::new(key, Outcome::Faulted { reason: PANICKED.to_owned() }, self.clock.now()))
        });
        end.into_iter().for_each(|end| self.report(key, end));
    }

    /// As [`perform_try`](Self::perform_try).
    fn perform_call(&self, key: TryKey, act: impl FnOnce() -> Option<CallEnd>) {
        let end = catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| {
            let outcome = CallOutcome::Failed { reason: PANICKED.to_owned() };
            Some(CallEnd { key, outcome, ended_at: self.clock.now() })
        });
        end.into_iter().for_each(|end| self.report_call(end));
    }
}

/// The executor of this host. Dropping it is [`LocalExecutor::shutdown`].
pub struct LocalExecutor {
    shared: Arc<Shared>,
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
        let (open, closing) = channel::bounded(0);
        let most = settings.parallelism as usize;
        let (supervisor, tries, calls) = (Mutex::new(None), Mutex::default(), Mutex::default());
        let looks = Mutex::default();
        // The crew is part of what its jobs need, and does not keep it alive.
        let whole = Arc::new(OnceLock::<Weak<Shared>>::new());
        let seen = whole.clone();
        let crew = Crew::start("worker", most, move |job| {
            if let Some(shared) = seen.get().and_then(Weak::upgrade) {
                shared.perform(job);
            }
        })?;
        let shared = Arc::new(Shared {
            settings,
            clock,
            health,
            lookup,
            values: Values::default(),
            events,
            supervisor,
            tries,
            calls,
            looks,
            crew,
            closing,
        });
        let _ = whole.set(Arc::downgrade(&shared));
        Ok(Self { shared, open: Some(open) })
    }

    /// Closes the supervisor, which ends what still runs, and waits for the workers. Tries that are cut off by it send no event:
    /// the next start finds them.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Executor for LocalExecutor {
    fn start(&mut self, work: Work) {
        self.shared.tries.lock().insert(work.key, Slot::default());
        self.shared.crew.give(Job::Run(Box::new(work)));
    }

    fn call(&mut self, call: Box<Call>) {
        self.shared.calls.lock().insert(call.row.try_key(), CallSlot::default());
        self.shared.crew.give(Job::Call(call));
    }

    fn look(&mut self, work: Box<Work>) {
        self.shared.looks.lock().begun.insert(work.key, None);
        self.shared.crew.give(Job::Look(work));
    }

    fn forget(&mut self, key: TryKey) {
        let mut looks = self.shared.looks.lock();
        if looks.begun.remove(&key).is_some()
            && let Some(lookout) = &looks.lookout
        {
            lookout.forget(key);
        }
    }

    fn kill(&mut self, key: TryKey, how: Kill) {
        if call::is_call(key) {
            let mut calls = self.shared.calls.lock();
            let Some(slot) = calls.get_mut(&key) else { return };
            if slot.begun.is_some()
                && let Some(supervisor) = &*self.shared.supervisor.lock()
            {
                supervisor.kill(key, &how.reason, how.force);
            }
            slot.kill.get_or_insert(how.reason);
            return;
        }
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
        self.shared.crew.give(Job::Reclaim(Box::new(stray)));
    }

    fn acknowledge(&mut self, keys: &[TryKey]) {
        if let Some(supervisor) = &*self.shared.supervisor.lock() {
            supervisor.acknowledge(keys);
        }
    }
}

impl Drop for LocalExecutor {
    fn drop(&mut self) {
        self.open = None;
        self.shared.crew.close();
        // Its drop waits until the supervisor has ended.
        let supervisor = self.shared.supervisor.lock().take();
        drop(supervisor);
        self.shared.crew.join();
        let lookout = self.shared.looks.lock().lookout.take();
        drop(lookout);
    }
}
