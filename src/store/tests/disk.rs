//! A disk that fails or forgets when it is told to: SQLite's own interface to the operating system, in front of the real one.
//!
//! SQLite does all that it does to files through a VFS, so each open, write, truncation, sync and deletion of the store comes by here,
//! on the very paths of production. What happens below a folder that is no [`Disk`] goes straight to the real one.
//!
//! Of each file it knows what was synced and what was written since. A process that ends leaves all that was written; a power cut
//! leaves what was synced, and of the rest each sector or none. A sync that fails does not come again: what was to be synced is
//! neither on the disk nor written once more, unless somebody writes it (that is what Linux does).

#![allow(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Arc, LazyLock, Once};

use parking_lot::Mutex;
use rusqlite::ffi;
use tempfile::TempDir;

const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// What becomes of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It reports an error, and does nothing.
    Fails,
    /// There is no room for it.
    NoRoom,
    /// It does its first half, as far as it has one, and finds no room for the other.
    Halves,
    /// From it on all of them report an error, until the disk is mended.
    FailsOn,
    /// From it on there is room for none, until the disk is mended.
    NoRoomOn,
    /// It is the last thing that the process does; of a write the first half.
    EndsHalf,
    /// It is the last thing that the process does.
    Ends,
    /// It is the last thing before a power cut, which takes what this number says.
    PowerFails(u64),
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// Opens, writes, truncations, syncs, deletions, and pieces of shared memory.
    Changes,
    Reads,
}

/// A folder whose files are on a disk that is told when to fail.
pub(super) struct Disk {
    folder: PathBuf,
    state: Arc<Mutex<State>>,
}

static DISKS: LazyLock<Mutex<BTreeMap<PathBuf, Arc<Mutex<State>>>>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct State {
    folder: PathBuf,
    files: BTreeMap<PathBuf, Kept>,
    /// Deleted, and the folder may not know it after a power cut.
    ghosts: BTreeMap<PathBuf, Kept>,
    changes: u64,
    reads: u64,
    syncs_failed: u64,
    fails_sync: bool,
    plan: Option<(Counted, u64, Fault)>,
    /// A fault that lasts has begun.
    is_broken: bool,
    has_struck: bool,
    /// What is left when the process has ended.
    left: Option<TempDir>,
}

/// A file as far as it is certain, and what is not.
#[derive(Clone, Default)]
struct Kept {
    inode: u64,
    synced: Vec<u8>,
    /// Its folder knows of it for certain.
    is_entered: bool,
    pending: Vec<Pending>,
}

#[derive(Clone)]
struct Pending {
    act: Act,
    /// A sync of it has failed.
    is_doomed: bool,
}

#[derive(Clone)]
enum Act {
    Write { at: usize, bytes: Vec<u8> },
    Cut { length: usize },
}

impl Act {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => write_at(image, *at, bytes),
            Self::Cut { length } => image.truncate(*length),
        }
    }

    fn pages(&self) -> std::ops::Range<usize> {
        match self {
            Self::Write { at, bytes } => at / PAGE..(at + bytes.len()).div_ceil(PAGE),
            Self::Cut { length } => length / PAGE..usize::MAX,
        }
    }
}

fn write_at(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    image.resize(image.len().max(at + bytes.len()), 0);
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Kept {
    fn note(&mut self, act: Act) {
        self.pending.push(Pending { act, is_doomed: false });
    }

    /// What is pending is certain; but what a failed sync has dropped only if somebody has written to the same pages since.
    fn sync(&mut self) {
        let fresh = self.pending.iter().filter(|pending| !pending.is_doomed);
        let written: Vec<_> = fresh.map(|pending| pending.act.pages()).collect();
        let is_covered = |act: &Act| match act {
            Act::Write { .. } => act.pages().all(|page| written.iter().any(|pages| pages.contains(&page))),
            Act::Cut { .. } => true,
        };
        let mut lost = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            if !pending.is_doomed || is_covered(&pending.act) {
                pending.act.apply(&mut self.synced);
            } else {
                lost.push(pending);
            }
        }
        self.pending = lost;
    }

    fn fail_sync(&mut self) {
        self.pending.iter_mut().for_each(|pending| pending.is_doomed = true);
    }

    /// As a power cut leaves it: of each write each sector or not, of each cut the whole or nothing.
    fn after_power_cut(&self, dice: &mut Dice) -> Vec<u8> {
        let mut image = self.synced.clone();
        // All, none, or some of it: the first two are the likeliest of real disks, and the hardest to meet by chance.
        let mood = dice.below(4);
        for Pending { act, .. } in &self.pending {
            match act {
                Act::Cut { .. } => {
                    if mood == 0 || (mood > 1 && dice.below(2) == 0) {
                        act.apply(&mut image);
                    }
                }
                Act::Write { at, bytes } => {
                    let mut from = 0;
                    while from < bytes.len() {
                        let until = bytes.len().min((at + from) / SECTOR * SECTOR + SECTOR - at);
                        if mood == 0 || (mood > 1 && dice.below(2) == 0) {
                            write_at(&mut image, at + from, &bytes[from..until]);
                        }
                        from = until;
                    }
                }
            }
        }
        image
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// In memory, where there is room for files: what the model has synced is what counts.
pub(super) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

impl Disk {
    /// Of what SQLite does below `folder` from now on.
    pub fn of(folder: &Path) -> Self {
        register();
        let folder = folder.canonicalize().unwrap();
        let state = Arc::new(Mutex::new(State { folder: folder.clone(), ..State::default() }));
        DISKS.lock().insert(folder.clone(), state.clone());
        Self { folder, state }
    }

    /// The operation with this number, of those that are `counted` from 0, meets `fault`.
    pub fn plan(&self, counted: Counted, number: u64, fault: Fault) {
        self.state.lock().plan = Some((counted, number, fault));
    }

    pub fn fail_next_sync(&self) {
        self.state.lock().fails_sync = true;
    }

    /// Nothing fails any more.
    pub fn mend(&self) {
        let mut state = self.state.lock();
        (state.plan, state.is_broken) = (None, false);
    }

    /// So many there were.
    pub fn count(&self, counted: Counted) -> u64 {
        let state = self.state.lock();
        match counted {
            Counted::Changes => state.changes,
            Counted::Reads => state.reads,
        }
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    pub fn syncs_failed(&self) -> u64 {
        self.state.lock().syncs_failed
    }

    pub fn has_struck(&self) -> bool {
        self.state.lock().has_struck
    }

    pub fn has_ended(&self) -> bool {
        self.state.lock().left.is_some()
    }

    /// What the end of the process, which has come, has left.
    pub fn left(&self) -> Option<PathBuf> {
        self.state.lock().left.as_ref().map(|folder| folder.path().to_owned())
    }

    /// The power fails now: gives what is left.
    pub fn cut_power(&self, seed: u64) -> PathBuf {
        self.state.lock().end(Some(seed));
        self.left().expect("it has just ended")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        DISKS.lock().remove(&self.folder);
    }
}

/// What is to be done about an operation.
enum Lot {
    Done,
    /// The first half is done, and reported as this.
    Half(c_int),
    Refused(c_int),
    /// Done, or its first half; then the process ends as the fault says.
    Last(Fault),
}

impl State {
    /// `errors` are those of a fault and of want of room.
    fn lot(&mut self, counted: Counted, errors: [c_int; 2]) -> Lot {
        if self.left.is_some() {
            return Lot::Refused(errors[0]);
        }
        let number = match counted {
            Counted::Changes => &mut self.changes,
            Counted::Reads => &mut self.reads,
        };
        let own = *number;
        *number += 1;
        let Some((planned, at, fault)) = self.plan else { return Lot::Done };
        let is_its_turn = planned == counted && own == at;
        let is_broken = self.is_broken && planned == counted;
        if !is_its_turn && !is_broken {
            return Lot::Done;
        }
        self.has_struck = true;
        match fault {
            Fault::Fails => Lot::Refused(errors[0]),
            Fault::NoRoom => Lot::Refused(errors[1]),
            Fault::Halves => Lot::Half(errors[1]),
            Fault::FailsOn | Fault::NoRoomOn => {
                self.is_broken = true;
                Lot::Refused(errors[usize::from(fault == Fault::NoRoomOn)])
            }
            Fault::EndsHalf | Fault::Ends | Fault::PowerFails(_) => Lot::Last(fault),
        }
    }

    /// The process ends here; with a seed, by a power cut.
    fn end(&mut self, power: Option<u64>) {
        let to = folder();
        let mut dice = power.map(Dice);
        let mut names: BTreeSet<PathBuf> = fs::read_dir(&self.folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .collect();
        if let Some(dice) = &mut dice {
            // Nobody needs the shared memory, and what is left of it may be anything.
            let is_lasting = |path: &PathBuf| !path.to_string_lossy().ends_with("-shm");
            names = names.into_iter().filter(is_lasting).collect();
            for path in self.ghosts.keys() {
                if dice.below(2) == 0 {
                    names.insert(path.clone());
                }
            }
        }
        for path in names {
            let name = path.file_name().expect("a file has a name");
            let bytes = match &mut dice {
                Some(dice) => self.after_power_cut(&path, dice),
                None => Some(fs::read(&path).unwrap()),
            };
            if let Some(bytes) = bytes {
                fs::write(to.path().join(name), bytes).unwrap();
            }
        }
        self.left = Some(to);
    }

    /// What a power cut leaves of a file; None: its folder does not know it.
    fn after_power_cut(&self, path: &Path, dice: &mut Dice) -> Option<Vec<u8>> {
        let ghost = self.ghosts.get(path);
        let inode = path.metadata().ok().map(|found| found.ino());
        let known = self.files.get(path).filter(|kept| Some(kept.inode) == inode);
        match known {
            Some(kept) if kept.is_entered => Some(kept.after_power_cut(dice)),
            Some(kept) if dice.below(2) == 0 => Some(kept.after_power_cut(dice)),
            // Written by others than SQLite.
            None if inode.is_some() => Some(fs::read(path).unwrap()),
            _ => ghost.map(|ghost| ghost.after_power_cut(dice)),
        }
    }

    fn end_as(&mut self, fault: Fault) {
        self.end(if let Fault::PowerFails(seed) = fault { Some(seed) } else { None });
    }

    /// The folder's entries are certain.
    fn sync_folder(&mut self) {
        self.ghosts.clear();
        self.files.values_mut().for_each(|kept| kept.is_entered = true);
    }
}

/// What SQLite has of an open file.
#[repr(C)]
struct Handle {
    base: ffi::sqlite3_file,
    open: *mut Open,
}

struct Open {
    path: PathBuf,
    /// The first sync of it syncs its folder, as that of the real one does.
    is_new_journal: bool,
    state: Arc<Mutex<State>>,
    /// Room for the real one's, which `real` points to.
    _room: Vec<u64>,
    real: *mut ffi::sqlite3_file,
}

impl Open {
    fn methods(&self) -> &ffi::sqlite3_io_methods {
        // SAFETY: the real xOpen has succeeded, so its methods are set, and they are static.
        unsafe { &*(*self.real).pMethods }
    }

    fn with_kept<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(self.state.lock().files.entry(self.path.clone()).or_default())
    }
}

/// The real one and ours, which are never freed.
#[derive(Clone, Copy)]
struct Both {
    real: *mut ffi::sqlite3_vfs,
}

// SAFETY: the real VFS is static and meant for all threads.
unsafe impl Send for Both {}
// SAFETY: as above.
unsafe impl Sync for Both {}

static REAL: Mutex<Option<Both>> = Mutex::new(None);

fn real() -> *mut ffi::sqlite3_vfs {
    REAL.lock().expect("it is set before ours is registered").real
}

/// Makes ours the one that connections use which name none.
fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the default VFS is static; ours is a copy of it (whose functions know their VFS by `pAppData`, which is copied as
        // well) with two functions of the same signatures, and is leaked.
        unsafe {
            let real = ffi::sqlite3_vfs_find(ptr::null());
            *REAL.lock() = Some(Both { real });
            let mut own = *real;
            own.zName = c"disk".as_ptr();
            own.pNext = ptr::null_mut();
            own.szOsFile = own.szOsFile.max(size_of::<Handle>() as c_int);
            own.xOpen = Some(open);
            own.xDelete = Some(delete);
            assert_eq!(ffi::sqlite3_vfs_register(Box::into_raw(Box::new(own)), 1), ffi::SQLITE_OK);
        }
    });
}

/// # Safety
/// `name` is null or a string of SQLite's.
unsafe fn disk_of(name: *const c_char) -> Option<(PathBuf, Arc<Mutex<State>>)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: as the caller says.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes())).to_owned();
    let state = DISKS.lock().get(path.parent()?)?.clone();
    Some((path, state))
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let real = real();
    // SAFETY: SQLite gives what its interface says: a name that lives as long as the file, and `szOsFile` bytes at `file`.
    unsafe {
        let real_open = (*real).xOpen.expect("every VFS opens");
        let Some((path, state)) = disk_of(name) else { return real_open(real, name, file, flags, out_flags) };
        (*file).pMethods = ptr::null();
        let lot = state.lock().lot(Counted::Changes, [ffi::SQLITE_CANTOPEN, ffi::SQLITE_CANTOPEN]);
        if let Lot::Refused(code) | Lot::Half(code) = lot {
            return code;
        }
        let was_there = path.metadata().is_ok_and(|found| found.len() > 0);
        let mut room = vec![0_u64; ((*real).szOsFile as usize).div_ceil(8)];
        let real_file: *mut ffi::sqlite3_file = room.as_mut_ptr().cast();
        let code = real_open(real, name, real_file, flags, out_flags);
        if code != ffi::SQLITE_OK {
            return code;
        }
        let is_journal = flags & (ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL) != 0;
        let is_new_journal = is_journal && flags & ffi::SQLITE_OPEN_CREATE != 0;
        let open = Open { path: path.clone(), is_new_journal, state, _room: room, real: real_file };
        meet(&open, was_there);
        let state = open.state.clone();
        let handle: *mut Handle = file.cast();
        (*handle).open = Box::into_raw(Box::new(open));
        (*handle).base.pMethods = &raw const METHODS;
        if let Lot::Last(fault) = lot {
            state.lock().end_as(fault);
        }
        ffi::SQLITE_OK
    }
}

/// What stands in a file that is not known, or is another than the known one, is certain.
fn meet(open: &Open, is_entered: bool) {
    let inode = open.path.metadata().unwrap().ino();
    if open.with_kept(|kept| kept.inode == inode) {
        return;
    }
    let mut length = 0;
    // SAFETY: the real file is open; the buffer has room for what is asked for.
    let synced = unsafe {
        open.methods().xFileSize.expect("it has a size")(open.real, &mut length);
        let mut bytes = vec![0_u8; length as usize];
        open.methods().xRead.expect("it is read")(open.real, bytes.as_mut_ptr().cast(), length as c_int, 0);
        bytes
    };
    open.with_kept(|kept| *kept = Kept { inode, synced, is_entered, pending: Vec::new() });
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    let real = real();
    // SAFETY: as for `open`.
    unsafe {
        let real_delete = (*real).xDelete.expect("every VFS deletes");
        let Some((path, state)) = disk_of(name) else { return real_delete(real, name, sync_folder) };
        let lot = state.lock().lot(Counted::Changes, [ffi::SQLITE_IOERR_DELETE; 2]);
        if let Lot::Refused(code) | Lot::Half(code) = lot {
            return code;
        }
        let code = real_delete(real, name, 0);
        let mut state = state.lock();
        if let Some(kept) = state.files.remove(&path)
            && kept.is_entered
        {
            state.ghosts.insert(path, kept);
        }
        if sync_folder != 0 {
            state.sync_folder();
        }
        if let Lot::Last(fault) = lot {
            state.end_as(fault);
        }
        code
    }
}

/// # Safety
/// `file` is one that [`open`] has opened.
unsafe fn opened<'f>(file: *mut ffi::sqlite3_file) -> &'f Open {
    // SAFETY: as the caller says; it lives until `close`.
    unsafe { &*(*file.cast::<Handle>()).open }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file once, and uses it no more; `open` has leaked it.
    unsafe {
        let open = Box::from_raw((*file.cast::<Handle>()).open);
        (*file).pMethods = ptr::null();
        open.methods().xClose.expect("it closes")(open.real)
    }
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, count: c_int, at: i64) -> c_int {
    // SAFETY: SQLite's arguments go on as they are.
    unsafe {
        let open = opened(file);
        let lot = open.state.lock().lot(Counted::Reads, [ffi::SQLITE_IOERR_READ; 2]);
        match lot {
            Lot::Refused(code) | Lot::Half(code) => code,
            Lot::Done | Lot::Last(_) => open.methods().xRead.expect("it is read")(open.real, to, count, at),
        }
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, count: c_int, at: i64) -> c_int {
    // SAFETY: `from` has `count` bytes, of which a part is passed on.
    unsafe {
        let open = opened(file);
        let lot = open.state.lock().lot(Counted::Changes, [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_FULL]);
        let count = match lot {
            Lot::Refused(code) => return code,
            Lot::Half(_) | Lot::Last(Fault::EndsHalf) => count / 2,
            Lot::Done | Lot::Last(_) => count,
        };
        let bytes = std::slice::from_raw_parts(from.cast::<u8>(), count as usize).to_vec();
        let code = open.methods().xWrite.expect("it is written")(open.real, from, count, at);
        if code == ffi::SQLITE_OK {
            open.with_kept(|kept| kept.note(Act::Write { at: at as usize, bytes }));
        }
        finish(open, lot, code)
    }
}

fn finish(open: &Open, lot: Lot, code: c_int) -> c_int {
    match lot {
        Lot::Done | Lot::Refused(_) => code,
        Lot::Half(half) => half,
        Lot::Last(fault) => {
            open.state.lock().end_as(fault);
            code
        }
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: i64) -> c_int {
    // SAFETY: SQLite's arguments go on as they are.
    unsafe {
        let open = opened(file);
        let lot = open.state.lock().lot(Counted::Changes, [ffi::SQLITE_IOERR_TRUNCATE; 2]);
        if let Lot::Refused(code) | Lot::Half(code) = lot {
            return code;
        }
        let code = open.methods().xTruncate.expect("it is cut")(open.real, length);
        if code == ffi::SQLITE_OK {
            open.with_kept(|kept| kept.note(Act::Cut { length: length as usize }));
        }
        finish(open, lot, code)
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: SQLite's argument is an open file.
    let open = unsafe { opened(file) };
    let mut state = open.state.lock();
    let lot = state.lot(Counted::Changes, [ffi::SQLITE_IOERR_FSYNC; 2]);
    let lot = if std::mem::take(&mut state.fails_sync) { Lot::Refused(ffi::SQLITE_IOERR_FSYNC) } else { lot };
    drop(state);
    if let Lot::Refused(code) | Lot::Half(code) = lot {
        open.state.lock().syncs_failed += 1;
        open.with_kept(Kept::fail_sync);
        return code;
    }
    // The real disk is not asked: this one is the model.
    open.with_kept(Kept::sync);
    if open.is_new_journal {
        open.state.lock().sync_folder();
    }
    finish(open, lot, ffi::SQLITE_OK)
}

unsafe extern "C" fn share(
    file: *mut ffi::sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    to: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite's arguments go on as they are.
    unsafe {
        let open = opened(file);
        let lot = open.state.lock().lot(Counted::Changes, [ffi::SQLITE_IOERR_SHMMAP, ffi::SQLITE_IOERR_SHMSIZE]);
        if let Lot::Refused(code) | Lot::Half(code) = lot {
            return code;
        }
        let code = open.methods().xShmMap.expect("it shares")(open.real, page, size, extend, to);
        finish(open, lot, code)
    }
}

/// Functions that pass their arguments on to the real file.
macro_rules! passed_on {
    ($($name:ident: $method:ident($($argument:ident: $kind:ty),*);)*) => {
        $(unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file $(, $argument: $kind)*) -> c_int {
            // SAFETY: SQLite's arguments go on as they are.
            unsafe {
                let open = opened(file);
                open.methods().$method.expect("the real file has it")(open.real $(, $argument)*)
            }
        })*
    };
}

passed_on! {
    size: xFileSize(to: *mut i64);
    lock: xLock(kind: c_int);
    unlock: xUnlock(kind: c_int);
    check_lock: xCheckReservedLock(to: *mut c_int);
    control: xFileControl(what: c_int, argument: *mut c_void);
    sector_size: xSectorSize();
    characteristics: xDeviceCharacteristics();
    lock_shared: xShmLock(from: c_int, count: c_int, flags: c_int);
    unshare: xShmUnmap(is_deleted: c_int);
}

unsafe extern "C" fn barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: SQLite's argument is an open file.
    unsafe {
        let open = opened(file);
        open.methods().xShmBarrier.expect("it shares")(open.real);
    }
}

/// Without the third version's mapping of files: all reads and writes are seen.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_lock),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(share),
    xShmLock: Some(lock_shared),
    xShmBarrier: Some(barrier),
    xShmUnmap: Some(unshare),
    xFetch: None,
    xUnfetch: None,
};
