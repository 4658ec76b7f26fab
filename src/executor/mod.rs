//! Runs tries as processes of this host: a crew of threads that prepare and conclude them, in front of the supervisor.
//!
//! Implements [`scheduler::Executor`](crate::scheduler::Executor). Knows templates, logs, run_dirs and XComs of a try; knows
//! neither states nor retries. Looks of sensors that ask a service go another way ([`look`]). No thread waits for a process: what its end needs stands in a table until then. When the
//! supervisor dies, its tries are ended and lost, another is spawned, and work goes on.

mod adopt;
pub mod asked;
mod call;
mod crew;
pub mod environment;
mod farewell;
mod gate;
mod large;
pub mod log_file;
mod look;
mod lookout;
mod lost;
pub mod mapped;
mod output;
pub mod paths;
mod reclaim;
mod run_as;
mod strays;
#[cfg(test)]
mod tests;
mod tries;
mod try_log;
mod tunables;
mod worker;

pub use tunables::{LiveTunables, Tunables};

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::executor::adopt::Adoptions;
use crate::executor::crew::Crew;
use crate::executor::gate::Gate;
use crate::executor::look::Looks;
use crate::executor::lost::Lost;
use crate::executor::mapped::Values;
use crate::executor::tries::{Handed, Slot};
use crate::executor::worker::{Begun, XcomFile};
use crate::health::Health;
use crate::model::TryKey;
use crate::scheduler::event::{Attempt, CallEnd, CallOutcome, Event, EventSender, Outcome, TryEnd};
use crate::scheduler::port::{Call, Executor, Kill, Left, Work};
use crate::supervisor::adopter::{self, AdoptedLine, Inheritance};
use crate::supervisor::protocol::{Answer, End, Refusal, Start};
use crate::supervisor::{self, Gone, Notice, Origin, Supervise, SupervisorClient, SupervisorHandle, Tasks};
use crate::template::Lookup;

/// Under which the board tells of a supervisor that died.
const CONDITION: &str = "supervisor";
/// Under which it tells of tries that the host does not let start.
const WAITING: &str = "tasks";
/// Under which it tells of tries whose results cannot be read for want of something.
const UNREAD: &str = "results";
/// What a refused start says holds for so long: each is tried again after a second, unless its run has been ended meanwhile.
const REFUSAL_HOLDS: Duration = Duration::from_secs(5);
/// Between two looks whether the host has again what it lacked: nothing tells of that.
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
    /// The `PATH` on which interpreters are looked up, unless a task's `env` has its own.
    pub search_path: String,
    /// The name of this host.
    pub host: Arc<str>,
    pub tunables: LiveTunables,
}

impl ExecutorSettings {
    pub fn of(config: &crate::config::Config) -> Self {
        Self {
            home: config.home.clone(),
            owner: config.home.clone(),
            logs: config.logging.base_log_folder.clone(),
            xcoms: config.home.join("xcoms"),
            dags_folder: config.core.dags_folder.clone(),
            tunables: LiveTunables::of(config),
            host: supervisor::procfs::host_name().into(),
            search_path: std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned()),
        }
    }
}

/// Why a try ends on which a worker has panicked.
const PANICKED: &str = "minflow failed on this try, which is a fault of minflow: please report it with the DAG file and what \
     minflow has written to its standard error";

/// A worker's next piece of work.
enum Job {
    /// The gate opens when the try is started.
    Run(Box<Work>, Arc<Gate>),
    Conclude(Box<Begun>, Told),
    EndLost(Vec<Lost>),
    /// An earlier supervisor, for which the host had no thread.
    Hear(Arc<adopt::Unheard>),
    Look(Vec<Work>),
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
    /// It was to be ended before it had one.
    Killed {
        reason: String,
    },
    /// The supervisor is gone, and what lived of the process has been ended.
    Gone,
}

impl Told {
    fn without_supervisor() -> Self {
        let message = "the supervisor is gone and another is being started".to_owned();
        Self::NotStarted { kind: Refusal::Transient, message }
    }
}

/// A callback between `call` and its end.
#[derive(Default)]
struct CallSlot {
    /// Why it is to be ended.
    kill: Option<String>,
    /// The supervisor has it.
    begun: Option<Box<call::Begun>>,
    /// An earlier one, if that is who has it.
    line: Option<Arc<AdoptedLine>>,
}

impl CallSlot {
    fn is_of(&self, line: &Arc<AdoptedLine>) -> bool {
        self.line.as_ref().is_some_and(|own| Arc::ptr_eq(own, line))
    }
}

/// What the workers, the supervisor's reader and the loop share.
struct Shared {
    settings: ExecutorSettings,
    clock: Arc<dyn Clock>,
    health: Health,
    lookup: Arc<dyn Lookup>,
    values: Values,
    events: EventSender,
    /// None while there is none, and when the executor closes.
    supervisor: Mutex<Option<Arc<dyn Supervise>>>,
    tries: Mutex<BTreeMap<TryKey, Slot>>,
    /// Their keys are negative.
    calls: Mutex<BTreeMap<TryKey, CallSlot>>,
    looks: Mutex<Looks>,
    /// Files of tries whose ends are not recorded yet.
    discarded: Mutex<BTreeMap<TryKey, Vec<PathBuf>>>,
    adoptions: Mutex<Adoptions>,
    /// Whether anything was ever taken over.
    has_adoptions: AtomicBool,
    /// As many threads as tries run at once, at most: none waits for another that is slow to prepare.
    crew: Crew<Job>,
    /// Disconnected when the executor closes: ends the wait between two respawns.
    closing: Receiver<()>,
}

impl Shared {
    /// Called by the supervisor's reader. What the loop is to hear of it is added to `news`: of a short task, start and end go together
    /// and are one turn.
    fn hear(&self, answer: Answer, news: &mut Vec<Event>) {
        match answer {
            // Its row says already that it runs.
            Answer::Started { key, .. } if call::is_call(key) => {}
            Answer::Started { key, process, at } => {
                self.health.clear(WAITING);
                self.note_process(key, &process);
                news.push(Event::Started(Attempt { key, process, started_at: at }));
            }
            Answer::NotStarted { key, kind, message } => self.tell(key, Told::NotStarted { kind, message }, news),
            Answer::Ended(end) => self.tell(end.key, Told::Ended(end), news),
            Answer::Hello { .. } | Answer::Refused { .. } => {}
        }
    }

    /// What can be concluded at once is, on this thread: a short task's end wakes no other.
    fn tell(&self, key: TryKey, told: Told, news: &mut Vec<Event>) {
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
            let end = self.attempt(key, || Some(worker::conclude(self, &begun, told, XcomFile::Absent)));
            news.extend(end.map(|end| self.over(key, end)));
        } else {
            self.crew.give(Job::Conclude(begun, told));
        }
    }

    /// What the loop is to hear of an end.
    fn over(&self, key: TryKey, end: TryEnd) -> Event {
        self.tries.lock().remove(&key);
        self.tell_of_end(&end);
        Event::Ended(Box::new(end))
    }

    fn tell_loop(&self, news: impl IntoIterator<Item = Event>) {
        for event in news {
            // A loop that has ended wants no more events.
            let _ = self.events.send(event);
        }
    }

    fn report_call(&self, end: CallEnd) {
        self.calls.lock().remove(&end.key);
        // A loop that has ended wants no more events.
        let _ = self.events.send(Event::Called(Box::new(end)));
    }

    /// Gives a callback to the supervisor, unless it was killed meanwhile. Under one lock, so that a kill comes either before, and is
    /// seen here, or after, and follows the start on the line.
    fn hand_over_call(&self, begun: Box<call::Begun>, start: Start) -> Result<(), (Box<call::Begun>, Told)> {
        let mut calls = self.calls.lock();
        let slot = calls.entry(start.key).or_default();
        if let Some(reason) = &slot.kill {
            return Err((begun, Told::Killed { reason: reason.clone() }));
        }
        let supervisor = self.supervisor.lock().clone();
        match supervisor.map_or(Err(Gone), |supervisor| supervisor.start(vec![start])) {
            Ok(()) => {
                slot.begun = Some(begun);
                Ok(())
            }
            Err(Gone) => Err((begun, Told::without_supervisor())),
        }
    }

    /// The supervisor died: its tries are ended by their workers, and another supervisor takes its place.
    fn rescue(self: &Arc<Self>, reason: &str, origin: &Origin) {
        *self.supervisor.lock() = None;
        self.health.raise(CONDITION, format!("{reason}; its tasks are ended and another is started: see the log"));
        self.abandon();
        let mut pause = FIRST_RESPAWN_PAUSE;
        loop {
            match supervisor::spawn(origin).and_then(|handle| self.connect(handle)) {
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
        let own = |handed: &mut Handed| handed.line.is_none();
        let tries: Vec<Handed> = self.tries.lock().values_mut().filter_map(|slot| slot.handed.take_if(own)).collect();
        let tries = tries.into_iter().map(|Handed { begun, process, .. }| Lost::Try(begun, process));
        let mut calls = self.calls.lock();
        let own = calls.values_mut().filter(|slot| slot.line.is_none());
        let calls: Vec<_> = own.filter_map(|slot| slot.begun.take()).collect();
        self.lose(tries.chain(calls.into_iter().map(Lost::BegunCall)).collect());
    }

    fn connect(self: &Arc<Self>, handle: SupervisorHandle) -> io::Result<()> {
        let origin = handle.origin().clone();
        let shared = self.clone();
        let news = RefCell::new(Vec::new());
        let client = SupervisorClient::connect(handle, move |notice| match notice {
            Notice::Answer(answer) => shared.hear(answer, &mut news.borrow_mut()),
            Notice::Quiet => shared.tell_loop(news.borrow_mut().drain(..)),
            Notice::Gone { reason } => {
                shared.tell_loop(news.borrow_mut().drain(..));
                shared.rescue(&reason, &origin);
            }
        })?;
        *self.supervisor.lock() = Some(Arc::new(client));
        Ok(())
    }

    /// Keeps files of a try until its end is recorded: if that never comes about, the next minflow has to read them.
    fn discard_later<'a>(&self, key: TryKey, files: impl Iterator<Item = &'a PathBuf>) {
        let files: Vec<PathBuf> = files.cloned().collect();
        if !files.is_empty() {
            self.discarded.lock().insert(key, files);
        }
    }

    fn discard(&self, keys: &[TryKey]) {
        let mut discarded = self.discarded.lock();
        if discarded.is_empty() {
            return;
        }
        let files: Vec<PathBuf> = keys.iter().filter_map(|key| discarded.remove(key)).flatten().collect();
        drop(discarded);
        for file in files {
            let _ = std::fs::remove_file(file);
        }
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

    /// Waits a moment for what the host lacks. False: minflow closes, or the try is to be ended.
    fn outwait(&self, key: TryKey, lack: &str) -> bool {
        let reason = format!("of ended tasks cannot be read and wait: {lack}; raise the limit (ulimit -n)");
        self.health.raise_for(UNREAD, reason, REFUSAL_HOLDS);
        let is_open = self.closing.recv_timeout(LACK_PAUSE) == Err(channel::RecvTimeoutError::Timeout);
        is_open && self.killed(key).is_none()
    }

    fn perform(self: &Arc<Self>, job: Job) {
        match job {
            Job::Look(works) => self.begin_looks(works),
            Job::Hear(unheard) => self.hear_at_last(&unheard),
            Job::Run(work, gate) => {
                let key = work.key;
                self.perform_try(key, || worker::run(self, work, gate));
            }
            Job::Conclude(begun, told) => {
                self.perform_try(begun.key(), || Some(worker::conclude(self, &begun, told, XcomFile::Possible)));
            }
            Job::EndLost(lost) => self.end_lost(lost),
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
    fn attempt(&self, key: TryKey, act: impl FnOnce() -> Option<TryEnd>) -> Option<TryEnd> {
        catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| Some(self.panicked(key)))
    }

    fn perform_try(&self, key: TryKey, act: impl FnOnce() -> Option<TryEnd>) {
        self.tell_loop(self.attempt(key, act).map(|end| self.over(key, end)));
    }

    /// As [`attempt`](Self::attempt).
    fn perform_call(&self, key: TryKey, act: impl FnOnce() -> Option<CallEnd>) {
        let end = catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| Some(self.panicked_call(key)));
        end.into_iter().for_each(|end| self.report_call(end));
    }

    fn panicked(&self, key: TryKey) -> TryEnd {
        TryEnd::new(key, Outcome::Faulted { reason: PANICKED.to_owned() }, self.clock.now())
    }

    fn panicked_call(&self, key: TryKey) -> CallEnd {
        CallEnd { key, outcome: CallOutcome::Failed { reason: PANICKED.to_owned() }, ended_at: self.clock.now() }
    }
}

/// The executor of this host. Dropping it is [`LocalExecutor::shutdown`].
pub struct LocalExecutor {
    shared: Arc<Shared>,
    /// Dropped to say that the executor closes.
    open: Option<Sender<()>>,
    /// What earlier supervisors have left, until it is taken over.
    inheritance: Inheritance,
    /// The first supervisor and where it leaves its files.
    left_by: Option<(PathBuf, i32)>,
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
        events: EventSender,
        clock: Arc<dyn Clock>,
        health: Health,
    ) -> io::Result<Self> {
        let mut executor = Self::without_supervisor(settings, lookup, events, clock, health)?;
        let (origin, own) = (handle.origin().clone(), handle.pid());
        executor.shared.connect(handle)?;
        if origin.tasks == Tasks::OutliveIt {
            executor.inheritance = adopter::find(&origin.home, own);
            executor.left_by = Some((origin.home, own));
        }
        Ok(executor)
    }

    fn without_supervisor(
        settings: ExecutorSettings,
        lookup: Arc<dyn Lookup>,
        events: EventSender,
        clock: Arc<dyn Clock>,
        health: Health,
    ) -> io::Result<Self> {
        let (open, closing) = channel::bounded(0);
        let tunables = settings.tunables.clone();
        let (supervisor, tries, calls) = (Mutex::new(None), Mutex::default(), Mutex::default());
        let (looks, adoptions, has_adoptions) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        // The crew is part of what its jobs need, and does not keep it alive.
        let whole = Arc::new(OnceLock::<Weak<Shared>>::new());
        let seen = whole.clone();
        let crew = Crew::start(
            "worker",
            move || tunables.now().parallelism as usize,
            move |job| {
                if let Some(shared) = seen.get().and_then(Weak::upgrade) {
                    shared.perform(job);
                }
            },
        )?;
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
            discarded: Mutex::default(),
            adoptions,
            has_adoptions,
            crew,
            closing,
        });
        let _ = whole.set(Arc::downgrade(&shared));
        Ok(Self { shared, open: Some(open), inheritance: Inheritance::default(), left_by: None })
    }

    /// Closes the supervisor, which ends what still runs or keeps it for the next start, and waits for the workers. Tries that are cut off by it send no event:
    /// the next start finds them.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Executor for LocalExecutor {
    fn prepare(&mut self, work: Work) {
        self.shared.prepare(work);
    }

    fn start(&mut self, keys: &[TryKey]) {
        self.shared.start(keys);
    }

    fn call(&mut self, call: Box<Call>) {
        self.shared.calls.lock().insert(call.row.try_key(), CallSlot::default());
        self.shared.crew.give(Job::Call(call));
    }

    fn look(&mut self, works: Vec<Work>) {
        self.shared.give_looks(works);
    }

    fn forget(&mut self, key: TryKey) {
        self.shared.looks.lock().forget(key);
    }

    fn kill(&mut self, key: TryKey, how: Kill) {
        if call::is_call(key) {
            let mut calls = self.shared.calls.lock();
            let Some(slot) = calls.get_mut(&key) else { return };
            if let Some(line) = &slot.line {
                line.kill(key, &how.reason, how.force);
            } else if slot.begun.is_some()
                && let Some(supervisor) = &*self.shared.supervisor.lock()
            {
                supervisor.kill(key, &how.reason, how.force);
            }
            slot.kill.get_or_insert(how.reason);
            return;
        }
        self.shared.kill(key, how);
    }

    fn pause(&mut self, key: TryKey) {
        self.shared.tell_supervisor(key, |supervisor| supervisor.pause(key));
    }

    fn resume(&mut self, key: TryKey) {
        self.shared.tell_supervisor(key, |supervisor| supervisor.resume(key));
    }

    fn reclaim(&mut self, left: Left) {
        let inheritance = std::mem::take(&mut self.inheritance);
        let Inheritance { supervisors, records, witnesses, .. } = &inheritance;
        let has_any = !supervisors.is_empty() || !records.is_empty() || !witnesses.files.is_empty();
        self.shared.has_adoptions.store(has_any, Ordering::Relaxed);
        self.shared.reclaim(left, inheritance);
    }

    fn acknowledge(&mut self, keys: &[TryKey]) {
        self.shared.discard(keys);
        let own;
        let keys = if self.shared.has_adoptions.load(Ordering::Relaxed) {
            own = self.shared.acknowledge_adopted(keys);
            &own[..]
        } else {
            keys
        };
        if let Some(supervisor) = &*self.shared.supervisor.lock() {
            supervisor.acknowledge(keys);
        }
    }
}

impl Drop for LocalExecutor {
    fn drop(&mut self) {
        self.open = None;
        self.shared.crew.close();
        self.shared.tries.lock().values().for_each(|slot| slot.gate.bar());
        // Its drop waits until the supervisor has ended, unless that keeps what runs.
        let supervisor = self.shared.supervisor.lock().take();
        if let Some(supervisor) = supervisor.as_ref().filter(|_| self.shared.has_handed()) {
            supervisor.leave();
        }
        drop(supervisor);
        if let Some((home, pid)) = self.left_by.take_if(|_| self.shared.tries.lock().is_empty()) {
            adopter::forget(&home, pid);
        }
        let readers = self.shared.adoptions.lock().hang_up();
        for reader in readers {
            let _ = reader.join();
        }
        self.shared.crew.join();
        let lookout = self.shared.looks.lock().take_lookout();
        drop(lookout);
    }
}
