//! inotify over the folders that watches need, each folder once however many of them need it.
//!
//! Knows folders by the kernel's numbers alone: by which path one is reached knows who needs it.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::num::NonZeroI32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

/// What may change which files there are, or ends a change of one: not each write, which a look at the due time sees.
const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// The kernel's number of a watched folder, above zero: the same by whatever path it is reached.
pub type Number = NonZeroI32;

#[derive(Debug)]
pub struct Eyes<K> {
    /// None where the user has no inotify instance left.
    kernel: Option<OwnedFd>,
    /// Who needs each watched folder.
    needed: BTreeMap<Number, Keys<K>>,
    /// How many folders the host lets be watched, where a test says so.
    #[cfg(test)]
    room: usize,
}

/// Who needs a folder, in order. There may be thousands of folders, each of them for one.
#[derive(Debug)]
enum Keys<K> {
    One(K),
    Many(Vec<K>),
}

impl<K: Ord + Copy> Keys<K> {
    fn as_slice(&self) -> &[K] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Many(keys) => keys,
        }
    }

    fn insert(&mut self, key: K) {
        let Err(at) = self.as_slice().binary_search(&key) else { return };
        match self {
            Self::One(one) => *self = Self::Many(if at == 0 { vec![key, *one] } else { vec![*one, key] }),
            Self::Many(keys) => keys.insert(at, key),
        }
    }

    /// True if nobody is left.
    fn remove(&mut self, key: K) -> bool {
        match self {
            Self::One(one) => *one == key,
            Self::Many(keys) => {
                if let Ok(at) = keys.binary_search(&key) {
                    keys.remove(at);
                }
                keys.is_empty()
            }
        }
    }
}

/// What the kernel tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Glance<K> {
    /// Something about this name in a folder, which these need.
    At { number: Number, name: Vec<u8>, is_folder: bool, keys: Vec<K> },
    /// A folder that these need has gone or was moved.
    Lost(Vec<K>),
    /// Some of it was lost: anything may have changed.
    Anything,
}

impl<K: Ord + Copy> Eyes<K> {
    pub fn open() -> Self {
        let kernel = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok();
        Self {
            kernel,
            needed: BTreeMap::new(),
            #[cfg(test)]
            room: usize::MAX,
        }
    }

    /// As on a host whose limit of watches is reached after so many.
    #[cfg(test)]
    pub fn with_room(room: usize) -> Self {
        Self { room, ..Self::open() }
    }

    /// As on a host that has no inotify instance left.
    #[cfg(test)]
    pub fn closed() -> Self {
        Self { kernel: None, ..Self::open() }
    }

    /// Readable when there is something to tell.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.kernel.as_ref().map(AsFd::as_fd)
    }

    /// Watches a folder for `key`. None if there is none, or none that minflow may read.
    ///
    /// # Errors
    /// What stands in the way and what to do about it, if a limit is reached.
    pub fn watch(&mut self, folder: &Path, key: K) -> Result<Option<Number>, String> {
        let Some(kernel) = &self.kernel else { return Err(limit(Errno::MFILE)) };
        let number = match inotify::add_watch(kernel, folder, EVENTS) {
            Ok(number) => number,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => return Ok(None),
            Err(errno) => return Err(limit(errno)),
        };
        let Some(number) = Number::new(number) else { return Err(limit(Errno::INVAL)) };
        #[cfg(test)]
        if self.needed.len() >= self.room && !self.needed.contains_key(&number) {
            // It tells of nothing, as if it had never been.
            let _ = inotify::remove_watch(kernel, number.get());
            return Err(limit(Errno::NOSPC));
        }
        self.needed.entry(number).and_modify(|keys| keys.insert(key)).or_insert(Keys::One(key));
        Ok(Some(number))
    }

    /// `key` needs the folder no longer.
    pub fn release(&mut self, number: Number, key: K) {
        if self.needed.get_mut(&number).is_some_and(|keys| keys.remove(key)) {
            self.needed.remove(&number);
            // It may be gone already.
            let _ = self.kernel.as_ref().map(|kernel| inotify::remove_watch(kernel, number.get()));
        }
    }

    /// All that the kernel has told since the last time.
    pub fn read(&mut self) -> Vec<Glance<K>> {
        let mut told = Vec::new();
        let Some(kernel) = &self.kernel else { return Vec::new() };
        let mut bytes = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(kernel, &mut bytes);
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| name.to_bytes().to_vec());
            told.push((event.wd(), event.events(), name));
        }
        told.into_iter().filter_map(|(number, events, name)| self.interpret(number, events, name)).collect()
    }

    fn interpret(&mut self, number: i32, events: ReadFlags, name: Option<Vec<u8>>) -> Option<Glance<K>> {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            return Some(Glance::Anything);
        }
        let number = Number::new(number)?;
        let keys = self.needed.get(&number)?.as_slice().to_vec();
        // The kernel has dropped it.
        if events.contains(ReadFlags::IGNORED) {
            self.needed.remove(&number);
            return Some(Glance::Lost(keys));
        }
        let Some(name) = name else { return Some(Glance::Lost(keys)) };
        Some(Glance::At { number, name, is_folder: events.contains(ReadFlags::ISDIR), keys })
    }
}

fn limit(errno: Errno) -> String {
    match errno {
        Errno::NOSPC => {
            "the limit of inotify watches is reached; raise it with `sysctl fs.inotify.max_user_watches=524288`".to_owned()
        }
        Errno::MFILE | Errno::NFILE => {
            "no inotify instance is left; raise the limit with `sysctl fs.inotify.max_user_instances=512`, then restart minflow"
                .to_owned()
        }
        _ => format!("inotify failed: {errno}; look whether the host has run out of memory"),
    }
}

/// File systems that others change too, by the magic numbers of statfs(2): inotify does not tell of that, and their clock is not ours.
pub fn remote_name(path: &Path) -> Option<&'static str> {
    let status = rustix::fs::statfs(path.as_os_str().as_bytes()).ok()?;
    Some(match status.f_type as u32 {
        0x6969 => "NFS",
        0x0102_1997 => "a 9p share",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "an SMB share",
        0x6573_5546 => "FUSE",
        0x786f_4256 => "a VirtualBox share",
        0x00c3_6400 => "Ceph",
        0x5346_414f => "AFS",
        _ => return None,
    })
}
