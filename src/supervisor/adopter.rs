//! What earlier supervisors of a home have left for a scheduler that starts: those that live are greeted and heard, the records of
//! those that are gone are read.
//!
//! Knows the protocol of adoption, and nothing of tasks. Called by the executor, once all earlier schedulers are gone. What none of them
//! has was never begun, if it is known that all of them have lived ([`Witnesses`]): one that is orphaned starts nothing, whatever it was
//! asked for before.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::home_socket::SocketPath;
use crate::model::TryKey;
use crate::scheduler::port::Force;
use crate::supervisor::adoption::{
    self, Ask, Ended, Lines, Name, PAST_SUFFIX, RECORDS_SUFFIX, Runs, SOCKET_SUFFIX, Told, key_of,
};
use crate::supervisor::client::{Gone, Supervise};
use crate::supervisor::procfs;
use crate::supervisor::protocol::Start;

/// How long a supervisor may take to say what it has. It has one thread, which waits for nothing but a slow disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// All that earlier supervisors have left.
#[derive(Default)]
pub struct Inheritance {
    /// In the order of their names, as the records.
    pub supervisors: Vec<Earlier>,
    pub records: Vec<Records>,
    /// What could not be taken over, in sentences for the log.
    pub faults: Vec<String>,
    pub witnesses: Witnesses,
}

/// Whether all earlier supervisors can be asked what they have begun.
#[derive(Debug, Default)]
pub struct Witnesses {
    /// When the first of them was greeted, in microseconds since 1970; None: there is none, or one has died or does not tell all.
    since: Option<i64>,
    /// What shows that they have lived or died: to be kept until all is recorded that they do not have.
    pub files: Vec<PathBuf>,
}

impl Witnesses {
    /// Whether one of them would know of what was handed over then, if it was begun. A clock that was set back makes it unknown.
    pub fn know_of(&self, handed_at: Timestamp) -> bool {
        self.since.is_some_and(|since| since <= handed_at.as_microsecond())
    }

    /// One of them does not tell what it has.
    pub fn discredit(&mut self) {
        self.since = None;
    }
}

/// A supervisor whose scheduler is gone, and that has said what it has.
pub struct Earlier {
    pub name: Name,
    pub runs: Vec<Runs>,
    pub ended: Vec<Ended>,
    home: PathBuf,
    stream: UnixStream,
    lines: Lines,
    /// What came right behind the list.
    more: Vec<Told>,
}

/// The file that a supervisor has left that is gone.
#[derive(Debug)]
pub struct Records {
    pub name: Name,
    pub path: PathBuf,
    /// The newest record of each try.
    pub ended: BTreeMap<TryKey, Ended>,
}

/// Looks for all of them. `own`: the pid of the supervisor that this scheduler has itself.
pub fn find(home: &Path, own: i32) -> Inheritance {
    let mut found = Inheritance::default();
    let (same, others): (Vec<Name>, Vec<Name>) =
        names(home, SOCKET_SUFFIX).into_iter().partition(|name| name.pid == own);
    // One that has died may have had the own one's number: in a container the numbers come again with each start.
    let mut are_sound = same.len() <= 1;
    let mut dead = Vec::new();
    if same.len() > 1 {
        dead.extend(same.into_iter().filter(|&name| is_dead(home, name)));
    }
    for name in others {
        match greet(home, name) {
            Ok(earlier) => found.supervisors.push(earlier),
            Err(Unreachable::Dead) => dead.push(name),
            Err(Unreachable::Silent(why)) => found.faults.push(format!(
                "the earlier supervisor {} cannot be taken over: {why}; its tasks are ended, and count as lost",
                name.pid
            )),
        }
    }
    // Of those that live the list tells all. One that has ended meanwhile has written its records before.
    for name in names(home, RECORDS_SUFFIX) {
        if found.supervisors.iter().any(|earlier| earlier.name == name) {
            continue;
        }
        match read_records(home, name) {
            Ok(records) => found.records.extend(records),
            Err(fault) => found.faults.push(fault),
        }
    }
    let boot_id = procfs::boot_id();
    let past = names(home, PAST_SUFFIX);
    for &name in &past {
        let written =
            found.records.iter().find(|records| records.name == name).map_or(0, |records| records.ended.len());
        let text = fs::read_to_string(home.join(name.past())).unwrap_or_default();
        are_sound &= adoption::read_past(&text, &boot_id).is_some_and(|ends| ends <= written);
    }
    are_sound &= found.faults.is_empty() && dead.iter().all(|name| past.contains(name));
    let known = found.supervisors.iter().map(|earlier| &earlier.name).chain(&past);
    let since = known.map(|name| name.greeted_at).min().filter(|_| are_sound);
    // A socket goes before what is left beside it, without which it would be that of one that has died.
    let files = dead.iter().map(|name| name.socket()).chain(past.iter().map(|name| name.past()));
    found.witnesses = Witnesses { since, files: files.map(|file| home.join(file)).collect() };
    found
}

/// Forgets what shows that earlier supervisors have lived to their ends: a database of another time follows, of which they know nothing.
///
/// # Errors
/// The home takes no file.
pub fn discredit_all(home: &Path) -> io::Result<()> {
    fs::write(home.join(Name { greeted_at: 0, pid: 0 }.past()), "")
}

/// A supervisor of this scheduler's has ended, and there is nothing that anybody could ask it.
pub fn forget(home: &Path, pid: i32) {
    for name in names(home, PAST_SUFFIX).into_iter().filter(|name| name.pid == pid) {
        let _ = fs::remove_file(home.join(name.past()));
    }
}

fn names(home: &Path, suffix: &str) -> Vec<Name> {
    let entries = fs::read_dir(home).into_iter().flatten().flatten();
    let mut names: Vec<Name> = entries.filter_map(|entry| Name::of(entry.file_name().to_str()?, suffix)).collect();
    names.sort_unstable();
    names
}

/// What a supervisor that is gone has written down; None: nothing.
///
/// # Errors
/// The file cannot be read or understood: a sentence for the log.
pub fn read_records(home: &Path, name: Name) -> Result<Option<Records>, String> {
    let path = home.join(name.records());
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(format!("the records of ended tasks `{}` cannot be read: {error}", path.display()));
        }
    };
    let ended = adoption::read_records(&text).map_err(|why| {
        format!("the file of records of ended tasks `{}` {why}: it is left as it is; remove it", path.display())
    })?;
    let ended = ended.into_iter().map(|ended| (adoption::try_key(ended.key), ended)).collect();
    Ok(Some(Records { name, path, ended }))
}

enum Unreachable {
    /// Nobody listens.
    Dead,
    Silent(String),
}

impl From<io::Error> for Unreachable {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{
            BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, TimedOut, UnexpectedEof, WouldBlock,
        };
        match error.kind() {
            ConnectionRefused | NotFound | BrokenPipe | ConnectionReset | UnexpectedEof => Self::Dead,
            WouldBlock | TimedOut => Self::Silent("it does not answer".to_owned()),
            _ => Self::Silent(error.to_string()),
        }
    }
}

/// Whether nobody listens.
fn is_dead(home: &Path, name: Name) -> bool {
    let reached = SocketPath::new(home, &name.socket()).and_then(|socket| UnixStream::connect(socket.path));
    reached.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn greet(home: &Path, name: Name) -> Result<Earlier, Unreachable> {
    let socket = SocketPath::new(home, &name.socket())?;
    let mut stream = UnixStream::connect(&socket.path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut hello = Vec::new();
    adoption::say(&Ask::Adopt { version: adoption::VERSION }, &mut hello);
    stream.write_all(&hello)?;
    let (mut lines, mut runs, mut ended, mut more) = (Lines::default(), Vec::new(), Vec::new(), Vec::new());
    let mut is_listed = false;
    let mut bytes = vec![0; 64 << 10];
    while !is_listed {
        let count = match stream.read(&mut bytes) {
            Ok(0) => return Err(Unreachable::Dead),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        lines.feed(&bytes[..count]);
        for told in lines.take::<Told>()? {
            match told {
                told if is_listed => more.push(told),
                Told::Refused { message } => return Err(Unreachable::Silent(message)),
                Told::Runs(one) => runs.push(one),
                Told::Ended(one) => ended.push(*one),
                Told::Listed => is_listed = true,
                Told::Hello { .. } | Told::Started { .. } => {}
            }
        }
    }
    stream.set_read_timeout(None)?;
    Ok(Earlier { name, runs, ended, home: home.to_owned(), stream, lines, more })
}

/// What is heard of a supervisor that was adopted.
pub enum Heard {
    Told(Told),
    /// It has ended. What it had written down before, if anything.
    Gone(Option<Records>),
}

impl Earlier {
    /// The line to it, by which its tries are killed, paused and acknowledged.
    ///
    /// # Errors
    /// The host has no descriptors left.
    pub fn line(&self) -> io::Result<Arc<AdoptedLine>> {
        Ok(Arc::new(AdoptedLine { stream: Mutex::new(self.stream.try_clone()?) }))
    }

    /// Hears it to its end, on the calling thread.
    pub fn listen(self, mut tell: impl FnMut(Heard)) {
        let Self { name, home, mut stream, mut lines, more, .. } = self;
        more.into_iter().for_each(|told| tell(Heard::Told(told)));
        let mut bytes = vec![0; 16 << 10];
        loop {
            match stream.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => lines.feed(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            }
            let Ok(all) = lines.take::<Told>() else { break };
            all.into_iter().for_each(|told| tell(Heard::Told(told)));
        }
        let records = read_records(&home, name).unwrap_or_else(|fault| {
            log::warn!("{fault}");
            None
        });
        tell(Heard::Gone(records));
    }
}

/// A supervisor that was adopted. It starts nothing any more.
pub struct AdoptedLine {
    /// Written to by one at a time. It takes little, and a supervisor that does not read for [`PATIENCE`] is given up.
    stream: Mutex<UnixStream>,
}

impl AdoptedLine {
    /// Has its reader end: minflow does. The supervisor keeps what it has.
    pub fn hang_up(&self) {
        let _ = self.stream.lock().shutdown(std::net::Shutdown::Both);
    }

    fn say(&self, ask: &Ask) {
        let mut bytes = Vec::new();
        adoption::say(ask, &mut bytes);
        let mut stream = self.stream.lock();
        if stream.write_all(&bytes).is_err() {
            // Its reader hears of it.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Supervise for AdoptedLine {
    fn start(&self, _: Vec<Start>) -> Result<(), Gone> {
        Err(Gone)
    }

    fn kill(&self, key: TryKey, reason: &str, force: Force) {
        let immediate = force == Force::Immediate;
        self.say(&Ask::Kill { key: key_of(key), reason: reason.to_owned(), immediate });
    }

    fn pause(&self, key: TryKey) {
        self.say(&Ask::Pause { key: key_of(key) });
    }

    fn resume(&self, key: TryKey) {
        self.say(&Ask::Resume { key: key_of(key) });
    }

    fn acknowledge(&self, keys: &[TryKey]) {
        self.say(&Ask::Acknowledge { keys: keys.iter().copied().map(key_of).collect() });
    }
}
