//! inotify over the folders that watches need, each folder once however many of them need it.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::pattern::join;

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

#[derive(Debug)]
pub struct Eyes<K> {
    /// None where the user has no inotify instance left.
    kernel: Option<OwnedFd>,
    /// By the kernel's number: one folder, under all the paths that lead to it, with who needs it.
    folders: BTreeMap<i32, Vec<Watched<K>>>,
    numbers: BTreeMap<Arc<Path>, i32>,
    /// How many folders the host lets be watched, where a test says so.
    #[cfg(test)]
    room: usize,
}

/// A path that leads to a watched folder. Thousands may be kept, most of them for one who needs them.
#[derive(Debug)]
struct Watched<K> {
    path: Arc<Path>,
    /// Who needs it, in order.
    keys: Vec<K>,
}

/// What the kernel tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Glance<K> {
    /// Something about `path`, whose folder these need.
    At { path: PathBuf, is_folder: bool, keys: Vec<K> },
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
            folders: BTreeMap::new(),
            numbers: BTreeMap::new(),
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

    /// The path, shared with all who watch it.
    pub fn shared(&self, folder: &Path) -> Arc<Path> {
        self.numbers.get_key_value(folder).map_or_else(|| folder.into(), |(path, _)| path.clone())
    }

    /// Watches a folder for `key`, also if it is another folder at the same path by now. False if there is none, or none that
    /// minflow may read.
    ///
    /// # Errors
    /// What stands in the way and what to do about it, if a limit is reached.
    pub fn watch(&mut self, folder: &Arc<Path>, key: K) -> Result<bool, String> {
        let Some(kernel) = &self.kernel else { return Err(limit(Errno::MFILE)) };
        #[cfg(test)]
        if self.numbers.len() >= self.room && !self.numbers.contains_key(folder) {
            return Err(limit(Errno::NOSPC));
        }
        let number = match inotify::add_watch(kernel, &**folder, EVENTS) {
            Ok(number) => number,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => return Ok(false),
            Err(errno) => return Err(limit(errno)),
        };
        if let Some(&before) = self.numbers.get(folder)
            && before != number
        {
            self.leave(before, folder);
        }
        self.numbers.insert(folder.clone(), number);
        let paths = self.folders.entry(number).or_insert_with(|| Vec::with_capacity(1));
        match paths.iter_mut().find(|watched| watched.path == *folder) {
            Some(watched) => {
                if let Err(at) = watched.keys.binary_search(&key) {
                    watched.keys.insert(at, key);
                }
            }
            None => paths.push(Watched { path: folder.clone(), keys: vec![key] }),
        }
        Ok(true)
    }

    /// `key` needs the folder no longer.
    pub fn release(&mut self, folder: &Path, key: K) {
        let Some(&number) = self.numbers.get(folder) else { return };
        let paths = self.folders.get_mut(&number).into_iter().flatten();
        let Some(watched) = paths.into_iter().find(|watched| *watched.path == *folder) else { return };
        let Ok(at) = watched.keys.binary_search(&key) else { return };
        watched.keys.remove(at);
        if watched.keys.is_empty() {
            self.numbers.remove(folder);
            self.leave(number, folder);
        }
    }

    fn leave(&mut self, number: i32, folder: &Path) {
        let Some(paths) = self.folders.get_mut(&number) else { return };
        paths.retain(|watched| *watched.path != *folder);
        if paths.is_empty() {
            self.folders.remove(&number);
            // It may be gone already.
            let _ = self.kernel.as_ref().map(|kernel| inotify::remove_watch(kernel, number));
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
        told.into_iter().flat_map(|(number, events, name)| self.interpret(number, events, name)).collect()
    }

    fn interpret(&mut self, number: i32, events: ReadFlags, name: Option<Vec<u8>>) -> Vec<Glance<K>> {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            return vec![Glance::Anything];
        }
        // The kernel has dropped it.
        if events.contains(ReadFlags::IGNORED) {
            let Some(paths) = self.folders.remove(&number) else { return Vec::new() };
            self.numbers.retain(|_, own| *own != number);
            return vec![Glance::Lost(paths.into_iter().flat_map(|watched| watched.keys).collect())];
        }
        let Some(paths) = self.folders.get(&number) else { return Vec::new() };
        let Some(name) = name else {
            return vec![Glance::Lost(paths.iter().flat_map(|watched| &watched.keys).copied().collect())];
        };
        let is_folder = events.contains(ReadFlags::ISDIR);
        let at = |watched: &Watched<K>| Glance::At {
            path: join(&watched.path, &name),
            is_folder,
            keys: watched.keys.clone(),
        };
        paths.iter().map(at).collect()
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
