//! The loop: it drains its events, has the world decide, commits all changes in one transaction, and only then acts.
//!
//! It owns the world, and is the only caller of the store's `commit`. It must not stop at an error: a database that fails
//! releases no action, but the loop stays alive, keeps the changes and the events, and goes on when the database does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::Duration;

use crate::clock::{BootInstant, Clock};
use crate::health::Health;
use crate::scheduler::change::{Changes, Snapshot};
use crate::scheduler::command::{Command, CommandError, Done, Stop};
use crate::scheduler::event::{Event, EventReceiver};
use crate::scheduler::gauge::{GaugeBoard, Heartbeat};
use crate::scheduler::port::{Executor, FileWatch, Followers, HostWatch, Store, Timer, Triggerer};
use crate::scheduler::world::{Action, History, Now, Restore, Settings, World};

/// How many events one turn takes in at most.
const TURN_EVENTS: usize = 10_000;
/// How soon a failed commit is tried again; doubles up to [`MAX_RETRY_DELAY`].
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(20);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

/// What the loop is given.
pub struct Parts {
    pub store: Box<dyn Store>,
    pub executor: Box<dyn Executor>,
    pub triggerer: Box<dyn Triggerer>,
    pub timer: Box<dyn Timer>,
    pub files: Box<dyn FileWatch>,
    pub followers: Box<dyn Followers>,
    pub host: Box<dyn HostWatch>,
    pub clock: Arc<dyn Clock>,
    pub health: Health,
    pub gauges: GaugeBoard,
    pub heartbeat: Heartbeat,
}

/// The scheduler: world and loop.
pub struct Scheduler {
    pub(super) world: World,
    parts: Parts,
    turns: u64,
    /// Decided, but not yet committed.
    unwritten: Option<(Changes, Vec<Action>)>,
    /// Came while a commit was failing.
    backlog: VecDeque<Event>,
    /// Commands that came before all files had been seen, in order.
    early: Vec<Event>,
    /// The database could not be asked: nothing is decided again before the next event.
    is_blocked: bool,
    /// A stop waits for a database that fails: until then, since what runs had the drain_timeout to end.
    gives_up_at: Option<BootInstant>,
}

impl Scheduler {
    /// Takes up what the database holds.
    pub fn new(settings: Settings, snapshot: Snapshot, restore: Box<Restore>, parts: Parts) -> Self {
        let now = Now { wall: parts.clock.now(), boot: parts.clock.boot() };
        let world = World::new(settings, snapshot, restore, now);
        Self {
            world,
            parts,
            turns: 0,
            unwritten: None,
            backlog: VecDeque::new(),
            early: Vec::new(),
            is_blocked: false,
            gives_up_at: None,
        }
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    /// All that was decided is in the database.
    pub fn has_written(&self) -> bool {
        self.unwritten.is_none()
    }

    /// Runs until a stop has been asked for and nothing runs any more, or until nobody is left to send events.
    pub fn run(mut self, events: &EventReceiver) {
        let mut retry_delay = FIRST_RETRY_DELAY;
        self.turn(Vec::new());
        loop {
            if self.unwritten.is_some() {
                if !self.outlast_failure(events, retry_delay) {
                    return;
                }
                retry_delay = (retry_delay * 2).min(MAX_RETRY_DELAY);
                self.write_and_act();
                continue;
            }
            retry_delay = FIRST_RETRY_DELAY;
            self.gives_up_at = None;
            if self.world.is_stopped() {
                return;
            }
            let Some(batch) = self.next_batch(events) else { return };
            self.turn(batch);
        }
    }

    /// Blocks until something has happened, unless something is left to do. None: nobody can send any more.
    fn next_batch(&mut self, events: &EventReceiver) -> Option<Vec<Event>> {
        let mut batch: Vec<Event> = self.backlog.drain(..).collect();
        let may_block = batch.is_empty() && (self.is_blocked || !self.world.has_more());
        if may_block {
            batch.push(events.recv().ok()?);
        }
        while batch.len() < TURN_EVENTS {
            match events.try_recv() {
                Ok(event) => batch.push(event),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        let is_too_early = !self.world.is_scanned && self.world.stopping.is_none();
        Some(if is_too_early { self.without_early(batch) } else { batch })
    }

    /// Keeps commands back until all files have been seen: the next one may define the DAG that they name. A stop is not kept, and
    /// those that came before it are then refused.
    fn without_early(&mut self, batch: Vec<Event>) -> Vec<Event> {
        let mut kept = Vec::with_capacity(batch.len());
        let mut is_early = true;
        for event in batch {
            match &event {
                Event::Command { command, .. } if is_early && command.changes_something() => self.early.push(event),
                Event::Scanned | Event::Command { command: Command::Stop { .. }, .. } => {
                    is_early = false;
                    kept.push(event);
                    kept.append(&mut self.early);
                }
                _ => kept.push(event),
            }
        }
        kept
    }

    /// One turn. The changes of a failed commit are kept, and so is what they would have led to.
    pub fn turn(&mut self, events: Vec<Event>) {
        let now = Now { wall: self.parts.clock.now(), boot: self.parts.clock.boot() };
        self.turns += 1;
        let history: &mut dyn History = &mut *self.parts.store;
        for event in events {
            self.world.apply(event, now, history);
        }
        self.world.apply_deadlines(now);
        match self.world.decide(now, history) {
            Ok(()) => self.is_blocked = false,
            Err(error) => {
                self.is_blocked = true;
                self.parts.health.raise("database", format!("{}; {}", error.message, error.help));
                self.world.try_again_later(now);
            }
        }
        let (changes, actions) = self.world.take_turn();
        self.prepare(&actions);
        self.unwritten = Some((changes, actions));
        self.write_and_act();
    }

    /// Has the executor make ready what starts after the commit, which takes about as long.
    fn prepare(&mut self, actions: &[Action]) {
        for action in actions {
            if let Action::Start(work) = action {
                self.parts.executor.prepare(work.clone());
            }
        }
    }

    pub(super) fn write_and_act(&mut self) {
        let Some((changes, actions)) = self.unwritten.take() else { return };
        if !changes.is_empty() {
            self.parts.heartbeat.begin_commit(self.parts.clock.boot());
            let written = self.parts.store.commit(&changes);
            self.parts.heartbeat.end_commit();
            if let Err(error) = written {
                self.parts.health.raise("database", format!("failed to {}; {}", error.message, error.help));
                self.unwritten = Some((changes, actions));
                self.publish();
                return;
            }
        }
        if !self.is_blocked {
            self.parts.health.clear("database");
        }
        self.act(actions);
        let (wall, boot) = self.world.next_deadline();
        self.parts.timer.arm(wall, boot);
        self.publish();
    }

    fn act(&mut self, actions: Vec<Action>) {
        let (mut starts, mut ended) = (Vec::new(), Vec::new());
        let mut actions = actions.into_iter().peekable();
        while let Some(action) = actions.next() {
            match action {
                Action::Start(work) => starts.push(work.key),
                Action::Kill(key, kill) => self.parts.executor.kill(key, kill),
                Action::Pause(key) => self.parts.executor.pause(key),
                Action::Resume(key) => self.parts.executor.resume(key),
                Action::Reclaim(left) => self.parts.executor.reclaim(left),
                Action::Call(call) => self.parts.executor.call(call),
                Action::Acknowledge(key) => ended.push(key),
                Action::Watch(key, wait) => self.parts.triggerer.watch(key, &wait),
                // Those that are due together go together.
                Action::Look(work) => {
                    let mut works = vec![*work];
                    while let Some(Action::Look(work)) = actions.next_if(|next| matches!(next, Action::Look(_))) {
                        works.push(*work);
                    }
                    self.parts.executor.look(works);
                }
                Action::Forget(key) => {
                    self.parts.triggerer.forget(key);
                    self.parts.executor.forget(key);
                }
                Action::Reply(reply, done) => reply.send(done),
                Action::AskHost => self.parts.host.ask(),
                Action::Retired => self.parts.followers.retired(),
                Action::TellReserve(Some(why)) => self.parts.health.raise(
                    "disk",
                    format!("{why}: nothing new starts until there is room; free some, or see `minflow du` for what takes it"),
                ),
                Action::TellReserve(None) => self.parts.health.clear("disk"),
                Action::WatchFiles(asset, wish) => self.parts.files.watch(asset, wish),
                Action::ForgetFiles(asset) => self.parts.files.forget(asset),
                Action::PoolsChanged(sizes) => self.parts.followers.pools_changed(sizes),
                Action::Stopping(how, by, within) => self.parts.followers.stopping(how, by, within),
            }
        }
        if !ended.is_empty() {
            self.parts.executor.acknowledge(&ended);
        }
        // After the rest: what was killed in the same turn does not start.
        if !starts.is_empty() {
            self.parts.executor.start(&starts);
        }
    }

    /// Waits a while for the database; what comes meanwhile is kept. False: minflow is to end without it.
    fn outlast_failure(&mut self, events: &EventReceiver, delay: Duration) -> bool {
        let clock = Arc::clone(&self.parts.clock);
        let until = clock.boot().after(delay);
        let drained_at = clock.boot().after(self.world.settings.drain_timeout);
        if self.world.stopping > Some(Stop::Finish) {
            self.gives_up_at.get_or_insert(drained_at);
        }
        loop {
            match events.recv_timeout(until.since(clock.boot())) {
                Ok(Event::Command { command: Command::Stop { how: Stop::Now, .. }, reply }) => {
                    // What is decided cannot be written, and the user insists: the next start finds the rest.
                    reply.send(Ok(Done::Stopping { running: Vec::new() }));
                    return false;
                }
                Ok(Event::Command { command, reply }) if command.changes_something() => {
                    let help =
                        "free the disk or end what holds the database, then ask again; `minflow status` says more"
                            .to_owned();
                    let message = "the database cannot be written now; nothing was changed".to_owned();
                    reply.send(Err(CommandError { code: "database".to_owned(), message, help }));
                }
                // It is alive: to start it again would not mend the database.
                Ok(Event::Probe(reply)) => reply.send(()),
                Ok(event) => {
                    if matches!(
                        event,
                        Event::Command { command: Command::Stop { how: Stop::Drain | Stop::KeepRunning, .. }, .. }
                    ) {
                        self.gives_up_at.get_or_insert(drained_at);
                    }
                    self.backlog.push_back(event);
                }
                Err(RecvTimeoutError::Timeout) => return self.gives_up_at.is_none_or(|at| clock.boot() < at),
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn publish(&mut self) {
        let mut gauges = self.world.gauges();
        gauges.turns = self.turns;
        gauges.last_turn_at = Some(self.parts.clock.now());
        self.parts.gauges.publish(gauges);
    }
}

impl World {
    /// Takes in one event.
    pub fn apply(&mut self, event: Event, now: Now, history: &mut dyn History) {
        match event {
            Event::DagFiles { files, complete } => self.apply_files(files, complete, now),
            Event::Scanned => self.apply_scanned(now),
            Event::Command { command, reply } => self.apply_command(command, reply, now, history),
            Event::Started(attempt) => self.apply_started(attempt, now),
            Event::Adopted(adopted) => self.apply_adopted(adopted, now),
            Event::Ended(end) => {
                let end = self.granted(*end, now, history);
                self.apply_ended(end, now);
            }
            Event::Fired { key, verdict } => self.apply_fired(key, verdict, now),
            Event::Looked(ends) => ends.into_iter().for_each(|end| self.apply_looked(end, now)),
            Event::Called(end) => self.apply_call_ended(*end, now),
            Event::Files { asset, files, gone } => self.apply_files_of(asset, files, gone, now),
            Event::Reconfigured(reconfigured) => self.reconfigure(*reconfigured, now),
            Event::ConfigurationFaults { file, faults } => self.name_configuration_faults(file, &faults, now),
            Event::Probe(reply) => reply.send(()),
            Event::Host(reading) => self.apply_host(&reading, now),
            Event::Tick => {}
            Event::ClockJumped => self.replan(now),
        }
    }
}
