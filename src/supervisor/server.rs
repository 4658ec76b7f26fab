//! The supervisor's process: one thread that starts, limits, kills and reaps what it is told to, and remembers each end until
//! it is acknowledged.
//!
//! Knows tries as keys and processes as numbers; it knows no DAG, and decides nothing about retries. When its scheduler is gone
//! it accepts nothing more. If its tasks are to outlive that, it keeps them for the next scheduler (`estate`), else it ends them; in the
//! end it ends itself.

mod ends;
mod estate;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::epoll;
use rustix::fs::inotify;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::clock::{BootInstant, Clock, SystemClock};
use crate::lack::Lack;
use crate::model::{ProcessIdentity, TryKey};
use crate::supervisor::adoption::{Kept, Verdict};
use crate::supervisor::launch::{self, Inherited, NotStarted};
use crate::supervisor::limits::{self, Plan};
use crate::supervisor::log_cap::{self, LogCap};
use crate::supervisor::orphans::{Evidence, Orphans};
use crate::supervisor::protocol::{self, Answer, Cause, Decoder, Refusal, Request, Start, Tree};
use crate::supervisor::record::{Record, Running, Settled};
use crate::supervisor::{MARK, cgroup, lock, procfs, sys};

/// How long news that can wait are kept back, so that those of a short task go together.
const PATIENCE: Duration = Duration::from_millis(2);
/// How often at least it is looked whether a process that is slow to execute its program has done so.
const SLOWEST_LOOK: Duration = Duration::from_millis(64);

const SOCKET: u64 = 0;
const CHILDREN: u64 = 1;
const TIMER: u64 = 2;
const LOGS: u64 = 3;
const LISTENER: u64 = 4;
const HEIR: u64 = 5;

/// The whole state of the process.
pub struct Server {
    home: PathBuf,
    socket: UnixStream,
    events: OwnedFd,
    children: OwnedFd,
    timer: OwnedFd,
    /// Tells when a quiet log grows; None where the user has no inotify instance left.
    logs: Option<OwnedFd>,
    watches: BTreeMap<i32, TryKey>,
    armed: Option<BootInstant>,
    decoder: Decoder,
    out: Vec<u8>,
    /// When `out` is written at the latest; None: now.
    speaks_at: Option<BootInstant>,
    /// Tries whose processes are not known to have executed their programs, and the next look at them.
    launching: Vec<TryKey>,
    looks_at: Option<BootInstant>,
    look_interval: Duration,
    waits_for_room: bool,
    /// Held from Hello until the scheduler is gone.
    lock: Option<File>,
    is_orphan: bool,
    /// What it keeps for the next scheduler; None: its tasks end with its own.
    estate: Option<Box<estate::Estate>>,
    inherited: Inherited,
    boot_id: String,
    /// Where there are cgroups, or why there are none.
    cgroups: Result<cgroup::Base, String>,
    tries: BTreeMap<TryKey, Record>,
    by_pid: BTreeMap<i32, TryKey>,
    /// The subreapers of tries that have one of their own, by their numbers.
    reapers: BTreeMap<i32, (TryKey, sys::Reaper)>,
    /// Those of `tries` whose leaders have ended.
    draining: Vec<TryKey>,
    orphans: Orphans,
    /// The places in the order of starts of the tries that are not over, and the next one.
    alive: BTreeSet<u64>,
    next_order: u64,
}

impl Server {
    /// # Errors
    /// The host has no descriptors left, or lacks what Linux 5.10 has.
    pub fn new(home: &Path, socket: OwnedFd) -> io::Result<Self> {
        let socket = UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        let children = sys::watch_children()?;
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let logs = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok();
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&events, &socket, epoll::EventData::new_u64(SOCKET), epoll::EventFlags::IN)?;
        epoll::add(&events, &children, epoll::EventData::new_u64(CHILDREN), epoll::EventFlags::IN)?;
        epoll::add(&events, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
        if let Some(logs) = &logs {
            epoll::add(&events, logs, epoll::EventData::new_u64(LOGS), epoll::EventFlags::IN)?;
        }
        Ok(Self {
            home: home.to_owned(),
            socket,
            events,
            children,
            timer,
            logs,
            watches: BTreeMap::new(),
            armed: None,
            decoder: Decoder::default(),
            out: Vec::new(),
            speaks_at: None,
            launching: Vec::new(),
            looks_at: None,
            look_interval: PATIENCE,
            waits_for_room: false,
            lock: None,
            is_orphan: false,
            estate: None,
            inherited: Inherited::from_this_process(),
            boot_id: procfs::boot_id(),
            cgroups: cgroup::Base::find(std::env::var_os(cgroup::VARIABLE).as_deref()),
            tries: BTreeMap::new(),
            by_pid: BTreeMap::new(),
            reapers: BTreeMap::new(),
            draining: Vec::new(),
            orphans: Orphans::new(),
            alive: BTreeSet::new(),
            next_order: 0,
        })
    }

    /// Serves until the scheduler is gone and the last process has ended.
    ///
    /// # Errors
    /// The kernel refuses to tell about events.
    pub fn serve(mut self) -> io::Result<()> {
        while !(self.is_orphan && self.has_nothing_left()) {
            self.arm()?;
            let mut ready: Vec<epoll::Event> = Vec::with_capacity(4);
            let timeout = self.patience();
            match epoll::wait(&self.events, rustix::buffer::spare_capacity(&mut ready), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in ready {
                match event.data.u64() {
                    SOCKET => self.read(),
                    CHILDREN => self.take_signals(),
                    LOGS => self.wake_logs(),
                    LISTENER => self.admit_heir(),
                    HEIR => self.hear_heir(),
                    _ => self.take_deadline(),
                }
            }
            self.look_at_launches();
            self.reap();
            self.tick();
            if self.speaks_at.is_none_or(|at| at <= SystemClock.boot()) {
                self.write();
            }
        }
        if let Some(estate) = self.estate {
            estate.close(&self.tries, &self.boot_id);
        }
        Ok(())
    }

    fn has_nothing_left(&self) -> bool {
        match &self.estate {
            None => self.tries.values().all(|record| matches!(record, Record::Over(_))),
            Some(estate) => estate.has_passed_on(&self.tries),
        }
    }

    /// Sets the timer to the next thing that is due.
    fn arm(&mut self) -> io::Result<()> {
        let due = self.tries.values().filter_map(Record::due);
        // A timer that fires too early costs less than one that is armed anew for each short task.
        let Some(at) = due.min().filter(|&at| self.armed.is_none_or(|armed| at < armed)) else { return Ok(()) };
        self.armed = Some(at);
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // All zero would disarm it; an instant that is past fires at once.
        let at = Timespec { tv_sec: at.0.as_secs() as i64, tv_nsec: i64::from(at.0.subsec_nanos().max(1)) };
        let setting = Itimerspec { it_interval: zero, it_value: at };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting)?;
        Ok(())
    }

    /// How long to wait for events: what is kept back, or launched, needs a look soon.
    fn patience(&self) -> Option<Timespec> {
        let held_back = self.speaks_at.filter(|_| !self.out.is_empty());
        let at = [held_back, self.looks_at].into_iter().flatten().min()?;
        let wait = at.since(SystemClock.boot());
        // Whole milliseconds, rounded up, are what every kernel takes.
        Some(Timespec { tv_sec: 0, tv_nsec: (wait.subsec_millis() as i64 + 1) * 1_000_000 })
    }

    fn read(&mut self) {
        let mut bytes = [0; 16 << 10];
        match self.socket.read(&mut bytes) {
            Ok(0) => return self.part("its scheduler is gone"),
            Ok(count) => self.decoder.feed(&bytes[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return,
            Err(_) => return self.part("its scheduler is gone"),
        }
        // What did not fit is told of again.
        loop {
            match self.decoder.take() {
                Ok(Some(request)) => self.obey(request),
                Ok(None) => break,
                Err(_) => return self.part("its scheduler speaks another protocol"),
            }
        }
    }

    /// Accepts nothing more, and ends what runs unless that is kept for the next scheduler.
    fn part(&mut self, reason: &str) {
        if self.is_orphan {
            return;
        }
        self.is_orphan = true;
        let _ = epoll::delete(&self.events, &self.socket);
        self.out.clear();
        if self.estate.is_some() {
            self.keep_for_heir();
            self.lock = None;
            return;
        }
        let now = SystemClock.boot();
        let all: Vec<TryKey> = self.tries.keys().copied().collect();
        for key in all {
            self.end(key, Cause::Killed { reason: reason.to_owned() }, now);
        }
        // Only now may the next supervisor begin.
        self.lock = None;
    }

    fn obey(&mut self, request: Request) {
        match request {
            Request::Hello { version } => self.greet(version),
            Request::Outlive => self.estate = Some(Box::default()),
            Request::Start(_) if self.lock.is_none() => {}
            Request::Start(start) => self.start(start),
            Request::Kill { key, reason, immediate } => {
                let now = SystemClock.boot();
                if !immediate {
                    self.end(key, Cause::Killed { reason }, now);
                } else if let Some(Record::Running(running)) = self.tries.get_mut(&key) {
                    running.condemn(Cause::Killed { reason }, now);
                    self.strike(key);
                }
            }
            Request::Pause { key } => self.pause(key),
            Request::Resume { key } => self.resume(key),
            Request::Acknowledge { keys } => {
                for key in keys {
                    self.forget(key);
                }
            }
        }
    }

    fn greet(&mut self, version: u32) {
        let pid = std::process::id() as i32;
        let greeting = if version != protocol::VERSION {
            Err(format!("the supervisor speaks version {} of its protocol, not {version}", protocol::VERSION))
        } else {
            lock::take(&self.home, &self.socket).and_then(|lock| {
                let estate = self.estate.as_mut();
                estate.map_or(Ok(()), |estate| estate.open(&self.home, pid))?;
                self.lock = Some(lock);
                Ok(())
            })
        };
        match greeting {
            Ok(()) => self.answer(&Answer::Hello { version: protocol::VERSION, pid }),
            Err(message) => self.answer(&Answer::Refused { message }),
        }
    }

    fn start(&mut self, mut start: Box<Start>) {
        let key = start.key;
        if self.tries.contains_key(&key) {
            let message = format!("try {key} was started before and is not started again");
            self.answer(&Answer::NotStarted { key, kind: Refusal::Permanent, message });
            return;
        }
        // Recorded before it starts: whatever happens from here on, it does not happen twice.
        self.tries.insert(key, Record::Over(None));
        let kept = Kept { output_from: start.output_from, memo: std::mem::take(&mut start.memo) };
        match self.launch(start, &kept) {
            Ok(running) => {
                if running.process.pid != 0 {
                    self.by_pid.insert(running.process.pid, key);
                }
                self.launching.push(key);
                self.look_interval = PATIENCE;
                self.looks_at = Some(SystemClock.boot().after(PATIENCE));
                self.tries.insert(key, Record::Running(Box::new(running)));
            }
            Err(refused) => self.refuse(key, kept, refused),
        }
    }

    fn refuse(&mut self, key: TryKey, kept: Kept, NotStarted { kind, message }: NotStarted) {
        self.answer(&Answer::NotStarted { key, kind, message: message.clone() });
        if kind == Refusal::Transient && !self.is_orphan {
            self.tries.remove(&key);
        } else {
            self.settle_as(key, Settled::new(kept, Verdict::NotStarted { kind, message }));
        }
    }

    /// Keeps how a try has ended until somebody has recorded it.
    fn settle_as(&mut self, key: TryKey, settled: Box<Settled>) {
        self.tries.insert(key, Record::Over(Some(settled)));
        if self.is_orphan {
            self.pass_on(key);
        }
    }

    /// The end of a try is recorded.
    fn forget(&mut self, key: TryKey) {
        if matches!(self.tries.get(&key), Some(Record::Over(_))) {
            self.tries.remove(&key);
        }
    }

    fn launch(&mut self, start: Box<Start>, kept: &Kept) -> Result<Running, NotStarted> {
        let log = File::options().read(true).append(true).open(&start.log).map_err(|error| NotStarted {
            kind: launch::kind_of(&error),
            message: match Lack::of(&error) {
                Some(lack) => format!("cannot open the log `{}`: {lack}", start.log),
                None => format!("cannot open the log `{}`: {error}; check its folder", start.log),
            },
        })?;
        let (timeout, grace) = (start.timeout_ms.map(Duration::from_millis), Duration::from_millis(start.grace_ms));
        let (limit, kill_signal, wants_tail) = (start.max_log_bytes, start.kill_signal, start.wants_tail);
        let (key, tree, leaves) = (start.key, start.tree, start.leaves);
        let mark = start.env.iter().rfind(|(name, _)| name == MARK).map(|(_, mark)| mark.clone());
        let started_at = SystemClock.now();
        let mut plan = self.plan(&start)?;
        let noted_bytes = log_cap::note(&log, &plan.notes, started_at);
        if tree == Tree::Strict {
            // What is there already is not taken for its own.
            self.look_for_orphans(None);
        }
        let before = SystemClock.boot();
        let launching = launch::launch(start, &self.inherited, &log, &mut plan);
        let mut guard = plan.guard;
        let mut launching = match launching {
            Ok(launching) => launching,
            Err(refused) => {
                if let Some(guard) = guard {
                    guard.dissolve();
                }
                return Err(refused);
            }
        };
        let now = SystemClock.boot();
        if let Some(reaper) = launching.take_reaper() {
            self.reapers.insert(reaper.pid(), (key, reaper));
        }
        if let Some(guard) = &mut guard {
            guard.begin(now);
        }
        let start_ticks = procfs::start_ticks(launching.pid(), before, now);
        let process = ProcessIdentity { pid: launching.pid(), start_ticks, boot_id: self.boot_id.clone() };
        let order = self.next_order;
        self.next_order += 1;
        self.alive.insert(order);
        Ok(Running {
            evidence: Evidence { key, order, leader: process.pid, mark, tree, leaves },
            process,
            launching: Some(launching),
            guard,
            noted_bytes,
            notes: Vec::new(),
            owed: Vec::new(),
            log: LogCap::new(log, limit, now),
            started_at,
            times_out_at: timeout.map(|timeout| now.after(timeout)),
            kill_at: None,
            paused_at: None,
            cause: Cause::Itself,
            kill_signal,
            grace,
            wants_tail,
            kept: kept.clone(),
        })
    }

    fn plan(&self, start: &Start) -> Result<Plan, NotStarted> {
        let (limits, user) = (start.limits.as_ref(), start.user.as_ref());
        if limits.is_none() && user.is_none() {
            return Ok(Plan::default());
        }
        limits::plan(start.key, limits, user, self.cgroups.as_ref().map_err(String::as_str))
    }

    /// Tells of those that run their programs by now. Those that could not are told of when they are reaped.
    fn look_at_launches(&mut self) {
        if self.launching.is_empty() {
            self.looks_at = None;
            return;
        }
        self.meet_leaders();
        for key in std::mem::take(&mut self.launching) {
            let Some(Record::Running(running)) = self.tries.get_mut(&key) else { continue };
            // A leader that its subreaper has made since has to be met first.
            if running.process.pid != 0 && running.has_just_begun() {
                let started = Answer::Started { key, process: running.process.clone(), at: running.started_at };
                self.mention(&started);
                if self.is_orphan {
                    self.tell_heir_of_start(key);
                }
            } else {
                self.launching.push(key);
            }
        }
        let now = SystemClock.boot();
        if self.looks_at.is_some_and(|at| at <= now) {
            self.look_interval = (self.look_interval * 2).min(SLOWEST_LOOK);
            self.looks_at = Some(now.after(self.look_interval));
        }
    }

    fn take_signals(&self) {
        let mut bytes = [0_u8; 1024];
        // The descriptor only says that there is something to reap; `reap` asks the kernel what it is.
        let _ = rustix::io::read(&self.children, &mut bytes);
    }

    /// The timer is read as well: with nothing further due it is not armed anew, and would stay readable for ever.
    fn take_deadline(&mut self) {
        let _ = rustix::io::read(&self.timer, &mut [0_u8; 8]);
        self.armed = None;
    }

    /// Logs that were quiet grow again.
    fn wake_logs(&mut self) {
        let Some(logs) = &self.logs else { return };
        let mut bytes = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(logs, &mut bytes);
        let mut grown = Vec::new();
        while let Ok(event) = reader.next() {
            grown.push(event.wd());
        }
        let now = SystemClock.boot();
        for watch in grown {
            let key = self.watches.remove(&watch);
            if let Some(Record::Running(running)) = key.and_then(|key| self.tries.get_mut(&key)) {
                running.log.wake(now);
            }
        }
    }

    /// Says something at once.
    fn answer(&mut self, answer: &Answer) {
        if !self.is_orphan {
            protocol::encode(answer, &mut self.out);
            self.speaks_at = None;
        }
    }

    /// Says something soon, or with what comes first.
    fn mention(&mut self, answer: &Answer) {
        if !self.is_orphan {
            if self.out.is_empty() {
                self.speaks_at = Some(SystemClock.boot().after(PATIENCE));
            }
            protocol::encode(answer, &mut self.out);
        }
    }

    /// Writes what the socket takes. A scheduler that does not read must not keep the supervisor from its work.
    fn write(&mut self) {
        self.speaks_at = None;
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // What it had asked for before is heard first.
                Err(_) => return self.out.clear(),
            }
        }
        if self.waits_for_room == self.out.is_empty() && !self.is_orphan {
            self.waits_for_room = !self.out.is_empty();
            let room = if self.waits_for_room { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let interest = epoll::EventFlags::IN | room;
            let _ = epoll::modify(&self.events, &self.socket, epoll::EventData::new_u64(SOCKET), interest);
        }
    }
}

/// Has the kernel tell, once, when the file is written to.
fn watch(logs: &OwnedFd, log: &File) -> Option<i32> {
    let path = format!("/proc/self/fd/{}", log.as_raw_fd());
    inotify::add_watch(logs, path, inotify::WatchFlags::MODIFY | inotify::WatchFlags::ONESHOT).ok()
}
