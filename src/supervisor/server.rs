//! The supervisor's process: one thread that starts, limits, kills and reaps what it is told to, and remembers each end until
//! it is acknowledged.
//!
//! Knows tries as keys and processes as numbers; it knows no DAG, and decides nothing about retries. When its scheduler is gone
//! it accepts nothing more, ends its processes, and then itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, epoll, poll};
use rustix::fs::{FlockOperation, flock, inotify};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::clock::{BootInstant, Clock, SystemClock};
use crate::model::{ProcessIdentity, TryKey, Usage};
use crate::supervisor::launch::{self, Inherited, NotStarted};
use crate::supervisor::log_cap::LogCap;
use crate::supervisor::protocol::{self, Answer, Cause, Decoder, End, Exit, Refusal, Request, Start};
use crate::supervisor::{procfs, sys};

/// Held by the supervisor that still accepts starts.
const LOCK_FILE: &str = "minflow.supervisor";
/// How long a new supervisor waits until the earlier one accepts nothing more.
const LOCK_WAIT: Duration = Duration::from_secs(10);
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
    pid: i32,
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
    fn signal_group(&self, signal: i32) {
        // The group may have ended by itself: then there is nothing to do.
        let _ = sys::kill(-self.pid, signal);
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
            match epoll::wait(&self.events, rustix::buffer::spare_capacity(&mut ready), None) {
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
            self.reap();
            self.tick();
            self.write();
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
        let next = due.min();
        if next != self.armed {
            self.armed = next;
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            // All zero disarms; an instant that is past fires at once.
            let at = next.map_or(zero, |at| Timespec {
                tv_sec: at.0.as_secs() as i64,
                tv_nsec: i64::from(at.0.subsec_nanos().max(1)),
            });
            let setting = Itimerspec { it_interval: zero, it_value: at };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting)?;
        }
        Ok(())
    }

    fn read(&mut self) {
        let mut bytes = [0; 16 << 10];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => return self.part("its scheduler is gone"),
                Ok(count) => self.decoder.feed(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return self.part("its scheduler is gone"),
            }
            loop {
                match self.decoder.take() {
                    Ok(Some(request)) => self.obey(request),
                    Ok(None) => break,
                    Err(_) => return self.part("its scheduler speaks another protocol"),
                }
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
            Request::Start(start) => self.start(&start),
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
            take_lock(&self.home, &self.socket).map(|lock| self.lock = Some(lock))
        };
        match greeting {
            Ok(()) => self.answer(&Answer::Hello { version: protocol::VERSION, pid }),
            Err(message) => self.answer(&Answer::Refused { message }),
        }
    }

    fn start(&mut self, start: &Start) {
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
                let start_ticks = procfs::stat(running.pid).map_or(0, |stat| stat.start_ticks);
                let process = ProcessIdentity { pid: running.pid, start_ticks, boot_id: self.boot_id.clone() };
                self.answer(&Answer::Started { key, process, at: running.started_at });
                self.by_pid.insert(running.pid, key);
                self.tries.insert(key, Record::Running(Box::new(running)));
            }
            Err(NotStarted { kind, message }) => {
                if kind == Refusal::Transient {
                    self.tries.remove(&key);
                }
                self.answer(&Answer::NotStarted { key, kind, message });
            }
        }
    }

    fn launch(&self, start: &Start) -> Result<Running, NotStarted> {
        let log = File::options().read(true).append(true).open(&start.log).map_err(|error| NotStarted {
            kind: launch::kind_of(&error),
            message: format!("cannot open the log `{}`: {error}; check its folder", start.log),
        })?;
        let started_at = SystemClock.now();
        let pid = launch::launch(start, &self.inherited, &log)?;
        let now = SystemClock.boot();
        Ok(Running {
            pid,
            log: LogCap::new(log, start.max_log_bytes, now),
            started_at,
            times_out_at: start.timeout_ms.map(|timeout| now.after(Duration::from_millis(timeout))),
            kill_at: None,
            cause: Cause::Itself,
            kill_signal: start.kill_signal,
            grace: Duration::from_millis(start.grace_ms),
            wants_tail: start.wants_tail,
        })
    }

    fn take_signals(&self) {
        let mut bytes = [0_u8; 1024];
        // The descriptor only says that there is something to reap; `reap` asks the kernel what it is.
        while matches!(rustix::io::read(&self.children, &mut bytes), Ok(count) if count > 0) {}
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
        let block_io = procfs::block_io(pid);
        let _ = sys::kill(-pid, libc::SIGKILL);
        let Some(Record::Running(running)) = self.tries.insert(key, Record::Over) else { return };
        let Ok((status, accounts)) = sys::reap(pid) else { return };
        let (read_bytes, write_bytes) = block_io.unwrap_or((accounts.read_bytes, accounts.write_bytes));
        let end = End {
            key,
            exit: match status {
                sys::Status::Exited(code) => Exit::Code(code),
                sys::Status::Signaled(signal) => Exit::Signal(signal),
            },
            cause: running.cause,
            usage: Usage {
                user_cpu: accounts.user_cpu,
                system_cpu: accounts.system_cpu,
                max_rss: accounts.max_rss,
                read_bytes,
                write_bytes,
            },
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

    fn answer(&mut self, answer: &Answer) {
        if !self.is_orphan {
            protocol::encode(answer, &mut self.out);
        }
    }

    /// Writes what the socket takes. A scheduler that does not read must not keep the supervisor from its work.
    fn write(&mut self) {
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

/// Takes the home's lock on starting processes, and waits for an earlier supervisor that has not noticed yet that its scheduler
/// is gone. Gives up when the scheduler does.
fn take_lock(home: &Path, socket: &UnixStream) -> Result<File, String> {
    let path = home.join(LOCK_FILE);
    let shown = path.display();
    let mut file = File::options()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| format!("cannot open `{shown}`: {error}; check the modes of the folder"))?;
    let begun = SystemClock.boot();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            // A file system without locks: its home is not protected against an old supervisor, but works.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOLCK) => return Ok(file),
            Err(_) => {}
        }
        if SystemClock.boot().since(begun) > LOCK_WAIT {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(format!(
                "an earlier supervisor of this home (pid {}) still holds `{shown}`: see what it waits for, or end it",
                holder.trim()
            ));
        }
        let pause = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let gone = poll(&mut [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::HUP)], Some(&pause));
        if gone.is_ok_and(|count| count > 0) {
            return Err("the scheduler is gone".to_owned());
        }
    }
    let _ = file.set_len(0);
    let _ = writeln!(file, "{}", std::process::id());
    Ok(file)
}
