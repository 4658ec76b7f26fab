//! The supervisor's process: one thread that starts, limits, kills and reaps what it is told to, and remembers each end until
//! it is acknowledged.
//!
//! Knows tries as keys and processes as numbers; it knows no DAG, and decides nothing about retries. When its scheduler is gone
//! it accepts nothing more, ends its processes, and then itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::event::epoll;
use rustix::fs::inotify;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::clock::{BootInstant, Clock, SystemClock};
use crate::model::{ProcessIdentity, TryKey};
use crate::supervisor::launch::{self, Inherited, Launching, NotStarted};
use crate::supervisor::log_cap::LogCap;
use crate::supervisor::protocol::{self, Answer, Cause, Decoder, End, Exit, Refusal, Request, Start};
use crate::supervisor::{lock, procfs, sys};

/// How long news that can wait are kept back, so that those of a short task go together.
const PATIENCE: Duration = Duration::from_millis(2);
/// How often at least it is looked whether a process that is slow to execute its program has done so.
const SLOWEST_LOOK: Duration = Duration::from_millis(64);
/// How long the end of a group that was sent SIGKILL is awaited; only a process stuck in the kernel takes longer.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

const SOCKET: u64 = 0;
const CHILDREN: u64 = 1;
const TIMER: u64 = 2;
const LOGS: u64 = 3;

/// What is known of a try.
enum Record {
    Running(Box<Running>),
    /// Its leader is reaped; members of its group are still dying.
    Draining {
        until: BootInstant,
        group: i32,
        log: LogCap,
        end: Box<End>,
        wants_tail: bool,
    },
    /// Reported; kept so that it is not started again.
    Over,
}

struct Running {
    process: ProcessIdentity,
    /// Until it is known to have executed its program.
    launching: Option<Launching>,
    /// Signals that wait for that: before, there may be no group yet.
    owed: Vec<i32>,
    log: LogCap,
    started_at: Timestamp,
    times_out_at: Option<BootInstant>,
    /// When SIGKILL follows the kill signal.
    kill_at: Option<BootInstant>,
    cause: Cause,
    kill_signal: i32,
    grace: Duration,
    wants_tail: bool,
}

impl Running {
    fn signal_group(&mut self, signal: i32) {
        if self.launching.is_some() {
            self.owed.push(signal);
            return;
        }
        // The group may have ended by itself: then there is nothing to do.
        let _ = sys::kill(-self.process.pid, signal);
    }

    /// Whether it has begun to run its program since the last look.
    fn has_just_begun(&mut self) -> bool {
        if !matches!(self.launching.as_ref().map(Launching::outcome), Some(Some(Ok(())))) {
            return false;
        }
        self.launching = None;
        for signal in std::mem::take(&mut self.owed) {
            self.signal_group(signal);
        }
        true
    }

    /// The kill signal now and SIGKILL after the grace. The first cause stands.
    fn end(&mut self, cause: Cause, now: BootInstant) {
        if self.cause != Cause::Itself {
            return;
        }
        self.cause = cause;
        self.times_out_at = None;
        self.kill_at = Some(now.after(self.grace));
        self.signal_group(self.kill_signal);
        // A stopped process takes no signal before it goes on.
        self.signal_group(libc::SIGCONT);
    }

    fn due(&self) -> Option<BootInstant> {
        [self.times_out_at, self.kill_at, self.log.due()].into_iter().flatten().min()
    }

    fn tick(&mut self, now: BootInstant) {
        if self.times_out_at.is_some_and(|at| at <= now) {
            self.end(Cause::TimedOut, now);
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.signal_group(libc::SIGKILL);
        }
        if self.log.due().is_some_and(|at| at <= now) {
            self.log.look(now);
        }
    }
}

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
    inherited: Inherited,
    boot_id: String,
    tries: BTreeMap<TryKey, Record>,
    by_pid: BTreeMap<i32, TryKey>,
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
            inherited: Inherited::from_this_process(),
            boot_id: procfs::boot_id(),
            tries: BTreeMap::new(),
            by_pid: BTreeMap::new(),
        })
    }

    /// Serves until the scheduler is gone and the last process has ended.
    ///
    /// # Errors
    /// The kernel refuses to tell about events.
    pub fn serve(mut self) -> io::Result<()> {
        while !(self.is_orphan && self.is_idle()) {
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
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.tries.values().all(|record| matches!(record, Record::Over))
    }

    /// Sets the timer to the next thing that is due.
    fn arm(&mut self) -> io::Result<()> {
        let due = self.tries.values().filter_map(|record| match record {
            Record::Running(running) => running.due(),
            Record::Draining { until, .. } => Some(*until),
            Record::Over => None,
        });
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

    /// Accepts nothing more, and ends what runs.
    fn part(&mut self, reason: &str) {
        if self.is_orphan {
            return;
        }
        self.is_orphan = true;
        let _ = epoll::delete(&self.events, &self.socket);
        self.out.clear();
        let now = SystemClock.boot();
        for record in self.tries.values_mut() {
            if let Record::Running(running) = record {
                running.end(Cause::Killed { reason: reason.to_owned() }, now);
            }
        }
        // Only now may the next supervisor begin.
        self.lock = None;
    }

    fn obey(&mut self, request: Request) {
        match request {
            Request::Hello { version } => self.greet(version),
            Request::Start(_) if self.lock.is_none() => {}
            Request::Start(start) => self.start(start),
            Request::Kill { key, reason, immediate } => {
                if let Some(Record::Running(running)) = self.tries.get_mut(&key) {
                    running.end(Cause::Killed { reason }, SystemClock.boot());
                    if immediate {
                        running.kill_at = None;
                        running.signal_group(libc::SIGKILL);
                    }
                }
            }
            Request::Acknowledge { keys } => {
                for key in keys {
                    if matches!(self.tries.get(&key), Some(Record::Over)) {
                        self.tries.remove(&key);
                    }
                }
            }
        }
    }

    fn greet(&mut self, version: u32) {
        let pid = std::process::id() as i32;
        let greeting = if version != protocol::VERSION {
            Err(format!("the supervisor speaks version {} of its protocol, not {version}", protocol::VERSION))
        } else {
            lock::take(&self.home, &self.socket).map(|lock| self.lock = Some(lock))
        };
        match greeting {
            Ok(()) => self.answer(&Answer::Hello { version: protocol::VERSION, pid }),
            Err(message) => self.answer(&Answer::Refused { message }),
        }
    }

    fn start(&mut self, start: Box<Start>) {
        let key = start.key;
        if self.tries.contains_key(&key) {
            let message = format!("try {key} was started before and is not started again");
            self.answer(&Answer::NotStarted { key, kind: Refusal::Permanent, message });
            return;
        }
        // Recorded before it starts: whatever happens from here on, it does not happen twice.
        self.tries.insert(key, Record::Over);
        match self.launch(start) {
            Ok(running) => {
                self.by_pid.insert(running.process.pid, key);
                self.launching.push(key);
                self.look_interval = PATIENCE;
                self.looks_at = Some(SystemClock.boot().after(PATIENCE));
                self.tries.insert(key, Record::Running(Box::new(running)));
            }
            Err(refused) => self.refuse(key, refused),
        }
    }

    fn refuse(&mut self, key: TryKey, NotStarted { kind, message }: NotStarted) {
        if kind == Refusal::Transient {
            self.tries.remove(&key);
        }
        self.answer(&Answer::NotStarted { key, kind, message });
    }

    fn launch(&self, start: Box<Start>) -> Result<Running, NotStarted> {
        let log = File::options().read(true).append(true).open(&start.log).map_err(|error| NotStarted {
            kind: launch::kind_of(&error),
            message: format!("cannot open the log `{}`: {error}; check its folder", start.log),
        })?;
        let (timeout, grace) = (start.timeout_ms.map(Duration::from_millis), Duration::from_millis(start.grace_ms));
        let (limit, kill_signal, wants_tail) = (start.max_log_bytes, start.kill_signal, start.wants_tail);
        let started_at = SystemClock.now();
        let before = SystemClock.boot();
        let launching = launch::launch(start, &self.inherited, &log)?;
        let now = SystemClock.boot();
        let start_ticks = procfs::start_ticks(launching.pid(), before, now);
        let process = ProcessIdentity { pid: launching.pid(), start_ticks, boot_id: self.boot_id.clone() };
        Ok(Running {
            process,
            launching: Some(launching),
            owed: Vec::new(),
            log: LogCap::new(log, limit, now),
            started_at,
            times_out_at: timeout.map(|timeout| now.after(timeout)),
            kill_at: None,
            cause: Cause::Itself,
            kill_signal,
            grace,
            wants_tail,
        })
    }

    /// Tells of those that run their programs by now. Those that could not are told of when they are reaped.
    fn look_at_launches(&mut self) {
        if self.launching.is_empty() {
            self.looks_at = None;
            return;
        }
        for key in std::mem::take(&mut self.launching) {
            let Some(Record::Running(running)) = self.tries.get_mut(&key) else { continue };
            if running.has_just_begun() {
                let started = Answer::Started { key, process: running.process.clone(), at: running.started_at };
                self.mention(&started);
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

    /// Reaps all that has ended: leaders, and orphaned descendants that came to us.
    fn reap(&mut self) {
        while let Ok(Some(pid)) = sys::peek_ended() {
            match self.by_pid.remove(&pid) {
                Some(key) => self.reap_leader(key, pid),
                None => {
                    let _ = sys::reap(pid);
                }
            }
        }
    }

    /// The leader is still unreaped, so its group's number is still its own: the group is killed first.
    fn reap_leader(&mut self, key: TryKey, pid: i32) {
        let _ = sys::kill(-pid, libc::SIGKILL);
        let Some(Record::Running(running)) = self.tries.insert(key, Record::Over) else { return };
        let Ok((status, usage)) = sys::reap(pid) else { return };
        match running.launching.as_ref().and_then(Launching::outcome) {
            Some(Err(refused)) => return self.refuse(key, refused),
            // It was quicker than the look.
            Some(Ok(())) => self.mention(&Answer::Started { key, process: running.process, at: running.started_at }),
            None => {}
        }
        let end = End {
            key,
            exit: match status {
                sys::Status::Exited(code) => Exit::Code(code),
                sys::Status::Signaled(signal) => Exit::Signal(signal),
            },
            cause: running.cause,
            usage,
            started_at: running.started_at,
            ended_at: SystemClock.now(),
            log_bytes_dropped: 0,
            tail: None,
        };
        let until = SystemClock.boot().after(DRAIN_WAIT);
        if let Some((&watch, _)) = self.watches.iter().find(|&(_, &watched)| watched == key) {
            self.watches.remove(&watch);
            let _ = self.logs.as_ref().map(|logs| inotify::remove_watch(logs, watch));
        }
        let (log, wants_tail) = (running.log, running.wants_tail);
        self.tries.insert(key, Record::Draining { until, group: pid, log, end: Box::new(end), wants_tail });
        // Reported here when nobody else was in the group, so that a chain of short tasks loses no time.
        self.report_if_drained(key, SystemClock.boot());
    }

    fn report_if_drained(&mut self, key: TryKey, now: BootInstant) {
        let Some(Record::Draining { until, group, .. }) = self.tries.get(&key) else { return };
        if now < *until && sys::kill(-*group, 0).is_ok() {
            return;
        }
        let Some(Record::Draining { log, mut end, wants_tail, .. }) = self.tries.insert(key, Record::Over) else {
            return;
        };
        let dropped = log.finish(end.ended_at);
        end.log_bytes_dropped = dropped.bytes;
        end.tail = (wants_tail && dropped.bytes > 0).then(|| String::from_utf8_lossy(&dropped.tail).into_owned());
        self.answer(&Answer::Ended(end));
    }

    fn tick(&mut self) {
        let now = SystemClock.boot();
        let mut draining = Vec::new();
        for (&key, record) in &mut self.tries {
            match record {
                Record::Running(running) => {
                    running.tick(now);
                    // Without a watch (the user's limit of them is reached) it is looked at once a second.
                    if let Some(watch) = running.log.to_watch().and_then(|log| watch(self.logs.as_ref()?, log)) {
                        self.watches.insert(watch, key);
                        running.log.watched();
                    }
                }
                Record::Draining { .. } => draining.push(key),
                Record::Over => {}
            }
        }
        for key in draining {
            self.report_if_drained(key, now);
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
                Err(_) => return self.part("its scheduler is gone"),
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
