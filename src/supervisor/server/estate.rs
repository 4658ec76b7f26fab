//! The time without a scheduler: what runs goes on, what ends is written down, and whoever comes next is told of both.
//!
//! Knows the protocol of adoption and its files. While the own scheduler is there, all of this is a socket that nobody is let in by.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::epoll;
use rustix::net::sockopt::socket_peercred;

use crate::clock::{Clock, SystemClock};
use crate::model::TryKey;
use crate::supervisor::adoption::{self, Ask, Ended, Lines, Name, Runs, Told, key_of, try_key};
use crate::supervisor::protocol::Request;
use crate::supervisor::record::{Record, Settled};
use crate::supervisor::server::{HEIR, LISTENER, Server};
use crate::supervisor::sys;

/// What a supervisor keeps for the next scheduler. Empty until it is greeted.
#[derive(Default)]
pub(super) struct Estate {
    home: PathBuf,
    /// Of its files.
    name: Option<Name>,
    listener: Option<UnixListener>,
    heir: Option<Heir>,
    /// The file of records, once there is one.
    records: Option<File>,
}

/// The scheduler that has adopted what runs here.
struct Heir {
    stream: UnixStream,
    lines: Lines,
    out: Vec<u8>,
    /// It has said which version it speaks.
    is_greeted: bool,
    waits_for_room: bool,
}

impl Estate {
    /// Listens, and lets nobody in as yet.
    ///
    /// # Errors
    /// The home cannot hold the socket: what to do.
    pub(super) fn open(&mut self, home: &Path, pid: i32) -> Result<(), String> {
        let name = Name { greeted_at: SystemClock.now().as_microsecond(), pid };
        let listen = || -> io::Result<UnixListener> {
            let listener = crate::home_socket::listen(home, &name.socket())?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = listen().map_err(|error| {
            let path = home.join(name.socket());
            format!("cannot listen at `{}`: {error}; the home must be writable and take sockets", path.display())
        })?;
        (self.home, self.name, self.listener) = (home.to_owned(), Some(name), Some(listener));
        Ok(())
    }

    /// Whether nobody needs this process any longer: who has adopted its tries has recorded all of them, or all are over and on the disk,
    /// or nobody will ever ask for them.
    pub(super) fn has_passed_on(&self, tries: &BTreeMap<TryKey, Record>) -> bool {
        match &self.heir {
            Some(heir) => tries.is_empty() && heir.out.is_empty(),
            None => tries.values().all(|record| match record {
                Record::Over(settled) => settled.as_ref().is_none_or(|settled| settled.is_on_disk),
                _ => false,
            }),
        }
    }

    /// Takes its socket away. The records stay, unless all of them were acknowledged. If no scheduler has come, the next one finds
    /// written that this supervisor has lived to its end; where the disk does not take that, the socket stays, as of one that was killed.
    pub(super) fn close(self, tries: &BTreeMap<TryKey, Record>, boot_id: &str) {
        let Some(name) = self.name.filter(|_| self.can_be_found()) else { return };
        if self.heir.is_none() {
            let ends = tries.values().filter(|record| is_on_disk(record)).count();
            let (path, text) = (self.home.join(name.past()), adoption::past(boot_id, ends));
            let write =
                || File::options().create_new(true).write(true).mode(0o600).open(&path)?.write_all(text.as_bytes());
            if write().is_err() {
                let _ = std::fs::remove_file(&path);
                return;
            }
        }
        let _ = std::fs::remove_file(self.home.join(name.socket()));
    }

    /// Whether somebody may still find its socket. With the home that goes, and what would be written then is of no use to anybody, least
    /// of all to another home in its place.
    fn can_be_found(&self) -> bool {
        let Some(name) = self.name else { return true };
        let found = self.home.join(name.socket()).symlink_metadata();
        !found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Appends what is over and not on the disk yet. A disk that does not take it is tried again with the next end.
    fn write_down(&mut self, tries: &mut BTreeMap<TryKey, Record>) {
        let settled = |record: &Record| matches!(record, Record::Over(Some(settled)) if !settled.is_on_disk);
        let mut text = Vec::new();
        for (&key, record) in tries.iter().filter(|(_, record)| settled(record)) {
            if let Record::Over(Some(settled)) = record {
                adoption::record(&Ended::new(key, &settled.kept, &settled.verdict), &mut text);
            }
        }
        if text.is_empty() || (self.can_be_found() && self.append(&text).is_err()) {
            return;
        }
        for record in tries.values_mut() {
            if let Record::Over(Some(settled)) = record {
                settled.is_on_disk = true;
            }
        }
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        let Some(name) = self.name else { return Err(io::ErrorKind::NotFound.into()) };
        if self.records.is_none() {
            let mut file =
                File::options().create(true).append(true).mode(0o600).open(self.home.join(name.records()))?;
            if file.metadata()?.len() == 0 {
                file.write_all(adoption::records_head().as_bytes())?;
            }
            // So that the file is found after a power cut.
            File::open(&self.home)?.sync_all()?;
            self.records = Some(file);
        }
        let Some(file) = &mut self.records else { return Ok(()) };
        let before = file.metadata()?.len();
        let written = file.write_all(text).and_then(|()| file.sync_data());
        if written.is_err() {
            // What was written in part would hide what follows.
            let _ = file.set_len(before);
        }
        written
    }

    /// Removes the file of records once nothing in it is waited for.
    fn tidy(&mut self, tries: &BTreeMap<TryKey, Record>) {
        if let Some(name) = self.name
            && self.records.is_some()
            && !tries.values().any(is_on_disk)
        {
            self.records = None;
            let _ = std::fs::remove_file(self.home.join(name.records()));
        }
    }
}

impl Heir {
    fn say(&mut self, told: &Told) {
        if self.is_greeted {
            adoption::say(told, &mut self.out);
        }
    }

    /// Writes what the socket takes.
    fn write(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_on_disk(record: &Record) -> bool {
    matches!(record, Record::Over(Some(settled)) if settled.is_on_disk)
}

fn ended(key: TryKey, settled: &Settled) -> Told {
    Told::Ended(Box::new(Ended::new(key, &settled.kept, &settled.verdict)))
}

impl Server {
    /// The scheduler is gone: what is over is written down, and the next scheduler is let in.
    pub(super) fn keep_for_heir(&mut self) {
        // Whoever reads to its end what minflow has written is not to wait for tasks.
        sys::silence();
        let Some(estate) = &mut self.estate else { return };
        estate.write_down(&mut self.tries);
        if let Some(listener) = &estate.listener {
            let _ = epoll::add(&self.events, listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN);
        }
    }

    /// Tells who has adopted the try that it is over, or writes it down.
    pub(super) fn pass_on(&mut self, key: TryKey) {
        let Some(estate) = &mut self.estate else { return };
        match (&mut estate.heir, self.tries.get(&key)) {
            (Some(heir), Some(Record::Over(Some(settled)))) => {
                heir.say(&ended(key, settled));
                self.write_to_heir();
            }
            _ => estate.write_down(&mut self.tries),
        }
    }

    pub(super) fn tell_heir_of_start(&mut self, key: TryKey) {
        let Some(heir) = self.estate.as_mut().and_then(|estate| estate.heir.as_mut()) else { return };
        if let Some(Record::Running(running)) = self.tries.get(&key) {
            heir.say(&Told::Started {
                key: key_of(key),
                process: running.process.clone().into(),
                started_at: running.started_at.as_microsecond(),
            });
            self.write_to_heir();
        }
    }

    /// Lets the next scheduler in. One that was let in before is gone: a home has one.
    pub(super) fn admit_heir(&mut self) {
        let Some(estate) = &mut self.estate else { return };
        let Some(Ok((stream, _))) = estate.listener.as_ref().map(UnixListener::accept) else { return };
        let uid = socket_peercred(&stream).map(|peer| peer.uid);
        let is_ours = uid.is_ok_and(|uid| uid.is_root() || uid == rustix::process::geteuid());
        if !is_ours || stream.set_nonblocking(true).is_err() {
            return;
        }
        self.part_from_heir();
        if epoll::add(&self.events, &stream, epoll::EventData::new_u64(HEIR), epoll::EventFlags::IN).is_err() {
            return;
        }
        let heir = Heir { stream, lines: Lines::default(), out: Vec::new(), is_greeted: false, waits_for_room: false };
        if let Some(estate) = &mut self.estate {
            estate.heir = Some(heir);
        }
    }

    pub(super) fn hear_heir(&mut self) {
        let Some(heir) = self.estate.as_mut().and_then(|estate| estate.heir.as_mut()) else { return };
        let mut bytes = [0; 4096];
        match heir.stream.read(&mut bytes) {
            Ok(0) => return self.part_from_heir(),
            Ok(count) => heir.lines.feed(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return self.part_from_heir(),
        }
        let Ok(asked) = heir.lines.take::<Ask>() else { return self.part_from_heir() };
        asked.into_iter().for_each(|ask| self.obey_heir(ask));
        self.write_to_heir();
    }

    fn obey_heir(&mut self, ask: Ask) {
        let is_greeted =
            self.estate.as_ref().and_then(|estate| estate.heir.as_ref()).is_some_and(|heir| heir.is_greeted);
        match ask {
            Ask::Adopt { version } => self.greet_heir(version),
            _ if !is_greeted => {}
            Ask::Kill { key, reason, immediate } => self.obey(Request::Kill { key: try_key(key), reason, immediate }),
            Ask::Pause { key } => self.pause(try_key(key)),
            Ask::Resume { key } => self.resume(try_key(key)),
            Ask::Acknowledge { keys } => {
                keys.into_iter().for_each(|key| self.forget(try_key(key)));
                if let Some(estate) = &mut self.estate {
                    estate.tidy(&self.tries);
                }
            }
        }
    }

    fn greet_heir(&mut self, version: u32) {
        self.meet_leaders();
        let pid = std::process::id() as i32;
        let Some(heir) = self.estate.as_mut().and_then(|estate| estate.heir.as_mut()) else { return };
        let own = adoption::VERSION;
        if version != own {
            let message =
                format!("the supervisor {pid} speaks version {own} of the protocol of adoption, not {version}");
            adoption::say(&Told::Refused { message }, &mut heir.out);
            return;
        }
        heir.is_greeted = true;
        heir.say(&Told::Hello { version, pid });
        for (&key, record) in &self.tries {
            let runs = |process, started_at: jiff::Timestamp, is_paused, kept| {
                let started_at = started_at.as_microsecond();
                Told::Runs(Runs { key: key_of(key), process, started_at, is_paused, kept })
            };
            match record {
                Record::Running(running) => {
                    let has_begun = running.launching.is_none();
                    let process = has_begun.then(|| running.process.clone().into());
                    let is_paused = running.paused_at.is_some();
                    heir.say(&runs(process, running.started_at, is_paused, running.kept.clone()));
                }
                Record::Draining(draining) => {
                    heir.say(&runs(None, draining.end.started_at, false, draining.kept.clone()));
                }
                Record::Over(Some(settled)) => heir.say(&ended(key, settled)),
                Record::Over(None) => {}
            }
        }
        heir.say(&Told::Listed);
    }

    fn write_to_heir(&mut self) {
        let Some(heir) = self.estate.as_mut().and_then(|estate| estate.heir.as_mut()) else { return };
        if heir.write().is_err() {
            return self.part_from_heir();
        }
        let wants_room = !heir.out.is_empty();
        if std::mem::replace(&mut heir.waits_for_room, wants_room) != wants_room {
            let room = if wants_room { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let interest = epoll::EventFlags::IN | room;
            let _ = epoll::modify(&self.events, &heir.stream, epoll::EventData::new_u64(HEIR), interest);
        }
    }

    /// Who had adopted is gone, too: what it has not acknowledged is written down.
    fn part_from_heir(&mut self) {
        let Some(estate) = &mut self.estate else { return };
        if let Some(heir) = estate.heir.take() {
            let _ = epoll::delete(&self.events, &heir.stream);
            estate.write_down(&mut self.tries);
        }
    }
}
