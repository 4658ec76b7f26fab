//! Whole copies of a database: backups of one that is being written, restores, and files that give back what they do not use.
//!
//! A copy is made under another name, verified, and then takes its own at once: under a backup's name there never lies half of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::config::Synchronous;
use crate::scheduler::StoreError;
use crate::store::fault::{Fault, help_for};
use crate::store::open::{self, INCREMENTAL, Looked};
use crate::store::place::target;

/// How many of the backups that migrations make are kept beside the database.
pub const MIGRATION_BACKUPS: usize = 3;

/// How long a copy or a vacuum waits for a commit of the running minflow.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pages that one step of a vacuum beside the running minflow frees: its commits wait for one step at most.
const VACUUM_PAGES: u32 = 64;

/// A copy that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    pub bytes: u64,
    /// Of all tables.
    pub rows: u64,
    /// Of its schema.
    pub version: u32,
}

/// Copies the database `from`, of this or an earlier version, to the new file `to` (mode 0600) as it is at one moment, while others
/// write to it; verifies the copy and has it on the disk before it gets its name.
///
/// # Errors
/// `to` exists, one of the two cannot be read or written, or the copy is not what was copied. `to` is not there then.
pub fn copy(from: &Path, to: &Path) -> Result<Copied, StoreError> {
    copy_in(from, to, beside(to, ".part"))
}

/// As [`copy`], where each copy has a name of its own: it is made in one file of the folder `to` lies in, so that of those that are killed one
/// is left, which the next takes up.
///
/// # Errors
/// As [`copy`].
pub fn copy_of_series(from: &Path, to: &Path) -> Result<Copied, StoreError> {
    copy_in(from, to, to.with_file_name(format!("{}.part", from.file_name().unwrap_or_default().to_string_lossy())))
}

fn copy_in(from: &Path, to: &Path, part: PathBuf) -> Result<Copied, StoreError> {
    if to.symlink_metadata().is_ok() {
        return Err(exists(to));
    }
    let part = Part::at(part, to)?;
    let copied = fill(from, &part.path)?;
    part.settle(to)?;
    Ok(copied)
}

fn exists(to: &Path) -> StoreError {
    StoreError {
        message: format!("back up to `{}`: it is there already, and is left as it is", to.display()),
        help: "name another file, or move that one away".to_owned(),
    }
}

fn fill(from: &Path, part: &Path) -> Result<Copied, StoreError> {
    let Looked { connection: source, version, .. } = open::any(from)?;
    source.busy_timeout(PATIENCE).map_err(|error| uncopied(error, part))?;
    let (bytes, rows) = fill_from(&source, part)?;
    Ok(Copied { bytes, rows, version })
}

fn uncopied(error: rusqlite::Error, part: &Path) -> StoreError {
    Fault::from(error).into_store_error("copy the database", part)
}

/// Gives how many bytes and rows were copied.
fn fill_from(source: &Connection, part: &Path) -> Result<(u64, u64), StoreError> {
    let fail = |error: rusqlite::Error| uncopied(error, part);
    // Held over the copy: its rows are counted at the same moment.
    let moment = source.unchecked_transaction().map_err(fail)?;
    let rows = count_rows(&moment).map_err(fail)?;
    let mut copy =
        Connection::open_with_flags(part, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(fail)?;
    {
        let backup = Backup::new(&moment, &mut copy).map_err(fail)?;
        match backup.step(-1).map_err(fail)? {
            StepResult::Done => {}
            // A single step meets no lock of its own copy, and readers of WAL none of a writer.
            _ => return Err(damaged(part, "it was not copied to its end")),
        }
    }
    drop(moment);
    // One file, without a log beside it.
    open::pragma(&copy, "journal_mode", "DELETE").map_err(fail)?;
    verify(&copy, part)?;
    if count_rows(&copy).map_err(fail)? != rows {
        return Err(damaged(part, "it has not as many rows as what was copied"));
    }
    copy.close().map_err(|(_, error)| fail(error))?;
    let bytes = part.metadata().map_err(|error| unwritable(part, &error))?.len();
    Ok((bytes, rows.iter().map(|(_, rows)| rows).sum()))
}

/// Writes all that `connection` has committed to `path`, where its file stands no more, or without its log. It is there whole or not at
/// all.
///
/// # Errors
/// It cannot be written, or a file has come there meanwhile, which is left as it is.
pub(super) fn write_anew(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let is_there = path.exists();
    let part = Part::make(path)?;
    fill_from(connection, &part.path)?;
    // Those of the file that is gone: they mean nothing to the new one, and would be taken for its own.
    for side in ["-wal", "-shm"] {
        let side = beside(path, side);
        match fs::remove_file(&side) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(unwritable(&side, &error)),
            _ => {}
        }
    }
    if is_there { part.replace(path) } else { part.settle(path) }
}

/// The tables with their numbers of rows, by name.
fn count_rows(connection: &Connection) -> rusqlite::Result<Vec<(String, u64)>> {
    let mut tables = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
    let tables = tables.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let count = |table: String| {
        let rows: i64 = connection.query_row(&format!("SELECT count(*) FROM \"{table}\""), [], |row| row.get(0))?;
        Ok((table, rows.unsigned_abs()))
    };
    tables.into_iter().map(count).collect()
}

fn verify(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let ask = || -> rusqlite::Result<Vec<String>> {
        let mut faults = connection.prepare("PRAGMA integrity_check(5)")?;
        faults.query_map([], |row| row.get(0))?.collect()
    };
    let faults = ask().map_err(|error| Fault::from(error).into_store_error("verify", path))?;
    if faults == ["ok"] { Ok(()) } else { Err(damaged(path, &faults.join("; "))) }
}

fn damaged(path: &Path, why: &str) -> StoreError {
    StoreError {
        message: format!("verify `{}`: {why}", path.display()),
        help: "run `minflow db check` on the database, and look for the disk in `dmesg`; nothing was changed"
            .to_owned(),
    }
}

fn unwritable(path: &Path, error: &io::Error) -> StoreError {
    let folder = path.parent().unwrap_or(path).display();
    StoreError {
        message: format!("write `{}`: {error}", path.display()),
        help: format!("see whether `{folder}` is there, has room, and may be written by this user"),
    }
}

/// The file in which a copy is made. What a process leaves that was killed is taken up by the next copy to the same name.
struct Part {
    path: PathBuf,
    /// Locked for as long as somebody writes it.
    file: File,
    /// It is not in the folder under this name any more: what is there by now is somebody else's.
    has_gone: bool,
}

impl Part {
    fn make(to: &Path) -> Result<Self, StoreError> {
        Self::at(beside(to, ".part"), to)
    }

    /// In a file of a name of its own, in the folder of `to`.
    fn at(path: PathBuf, to: &Path) -> Result<Self, StoreError> {
        let fail = |error: io::Error| unwritable(&path, &error);
        let busy = || StoreError {
            message: format!("back up to `{}`: another process is doing so just now", to.display()),
            help: "let it finish, or name another file".to_owned(),
        };
        let mut file = Self::open(&path).map_err(fail)?;
        file.try_lock().map_err(|_| busy())?;
        if file.metadata().map_err(fail)?.nlink() > 1 {
            // Who was killed had given it its name already: it is a whole copy, which is not written over.
            fs::remove_file(&path).map_err(fail)?;
            file = Self::open(&path).map_err(fail)?;
            file.try_lock().map_err(|_| busy())?;
        }
        // Whoever had the lock before may have given it its name, or have taken it away.
        let (held, there) = (file.metadata().map_err(fail)?, path.symlink_metadata().map_err(fail)?);
        if held.nlink() != 1 || (held.dev(), held.ino()) != (there.dev(), there.ino()) {
            return Err(busy());
        }
        file.set_len(0).map_err(fail)?;
        let _ = fs::remove_file(beside(&path, "-journal"));
        Ok(Self { path, file, has_gone: false })
    }

    /// Not through a link: in a folder that others may write to it could lead anywhere.
    fn open(path: &Path) -> io::Result<File> {
        let mut how = OpenOptions::new();
        how.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        how.open(path)
    }

    /// Has it on the disk under its name, unless that has been taken meanwhile.
    fn settle(mut self, to: &Path) -> Result<(), StoreError> {
        let fail = |error: io::Error| unwritable(to, &error);
        self.file.sync_all().map_err(fail)?;
        match fs::hard_link(&self.path, to) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(exists(to)),
            // A file system without links.
            Err(_) => fs::rename(&self.path, to).map_err(fail)?,
        }
        let _ = fs::remove_file(&self.path);
        self.has_gone = true;
        sync_folder(to).map_err(fail)
    }

    /// Has it on the disk in the place of the file that has its name.
    fn replace(mut self, to: &Path) -> Result<(), StoreError> {
        let fail = |error: io::Error| unwritable(to, &error);
        self.file.sync_all().map_err(fail)?;
        fs::rename(&self.path, to).map_err(fail)?;
        self.has_gone = true;
        sync_folder(to).map_err(fail)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.has_gone {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A name with something behind it.
pub(super) fn beside(path: &Path, tail: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(tail);
    PathBuf::from(name)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Copies a database of the schema `version` before it is migrated, and forgets all but the newest such copies.
///
/// # Errors
/// As [`copy`]; the database is as it was.
pub(super) fn before_migration(path: &Path, version: u32) -> Result<PathBuf, StoreError> {
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ");
    let to = beside(path, &format!(".version-{version}.{stamp}"));
    copy_of_series(path, &to)?;
    let mut kept = migration_backups(path);
    kept.truncate(kept.len().saturating_sub(MIGRATION_BACKUPS));
    for old in kept {
        // What cannot be removed takes room, and nothing else.
        let _ = fs::remove_file(old);
    }
    Ok(to)
}

/// What the write-ahead log and its index take of the disk, in bytes.
pub fn log_bytes(path: &Path) -> u64 {
    let path = target(path);
    let size = |tail: &str| fs::metadata(beside(&path, tail)).map_or(0, |found| found.len());
    size("-wal") + size("-shm")
}

/// The copies that migrations of the database have made, oldest first.
pub fn migration_backups(path: &Path) -> Vec<PathBuf> {
    let head = format!("{}.version-", path.file_name().unwrap_or_default().to_string_lossy());
    let folder = path.parent().unwrap_or(Path::new("."));
    let stamp = |path: &PathBuf| path.extension().map(ToOwned::to_owned);
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let rest = name.strip_prefix(&head).and_then(|rest| rest.split_once('.'));
        rest.is_some_and(|(version, stamp)| {
            version.parse::<u32>().is_ok() && stamp.starts_with(|c: char| c.is_ascii_digit()) && stamp.ends_with('Z')
        })
    };
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).filter(is_one).collect();
    found.sort_by_key(stamp);
    found
}

/// What a restore has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub copied: Copied,
    /// Where the database lies that was there before.
    pub kept: Option<PathBuf>,
}

/// Puts a copy of `backup` in the place of the database `path`, which is kept under another name. Nobody may have it open. Of a link it is
/// the file that it leads to.
///
/// # Errors
/// `backup` is no sound database of this or an earlier version, or something cannot be written: then all is as it was.
pub fn restore(backup: &Path, path: &Path) -> Result<Restored, StoreError> {
    let path = &*target(path);
    open::present(backup)?;
    let part = Part::make(&beside(path, ".restored"))?;
    let copied = fill(backup, &part.path)?;
    let kept = set_aside(path)?;
    part.replace(path)?;
    Ok(Restored { copied, kept })
}

/// Keeps the database under another name, so that the place of its log is free: what lies there would be taken for the new one's.
fn set_aside(path: &Path) -> Result<Option<PathBuf>, StoreError> {
    let fail = |error: io::Error| unwritable(path, &error);
    let kept = beside(path, &format!(".before-restore.{}", Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ")));
    match fs::hard_link(path, &kept) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(_) => fs::copy(path, &kept).map(drop).map_err(fail)?,
    }
    let (log, kept_log) = (beside(path, "-wal"), beside(&kept, "-wal"));
    // Moves what the log holds into the file, which is the kept one as well. What is damaged keeps its log beside it.
    let is_moved =
        move_log(path).is_ok_and(|is_moved| is_moved) && log.metadata().map_or(true, |found| found.len() == 0);
    if !is_moved && log.exists() {
        fs::copy(&log, &kept_log).map_err(fail)?;
        File::open(&kept_log).and_then(|file| file.sync_all()).map_err(fail)?;
    }
    if is_moved && !same_file(path, &kept) {
        fs::copy(path, &kept).map(drop).map_err(fail)?;
    }
    File::open(&kept).and_then(|file| file.sync_all()).and_then(|()| sync_folder(&kept)).map_err(fail)?;
    for leftover in [log, beside(path, "-shm")] {
        match fs::remove_file(&leftover) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(unwritable(&leftover, &error)),
            _ => {}
        }
    }
    Ok(Some(kept))
}

fn same_file(a: &Path, b: &Path) -> bool {
    let identity = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    identity(a).is_some() && identity(a) == identity(b)
}

/// Moves what the log holds into the database's file; true if nothing is left in it.
fn move_log(path: &Path) -> rusqlite::Result<bool> {
    let connection = open::beside(path, Synchronous::Full)?;
    connection.busy_timeout(PATIENCE)?;
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(busy == 0)
}

/// The pages of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    pub total: u64,
    /// Those that hold nothing.
    pub free: u64,
    /// Bytes of one.
    pub size: u64,
    /// It can give them back a few at a time.
    pub is_incremental: bool,
}

/// What of the database's file holds nothing.
///
/// # Errors
/// It cannot be read.
pub fn pages(path: &Path) -> Result<Pages, StoreError> {
    let (connection, _) = open::present(path)?;
    ask_pages(&connection).map_err(|error| Fault::from(error).into_store_error("count the pages", path))
}

fn ask_pages(connection: &Connection) -> rusqlite::Result<Pages> {
    let ask = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    Ok(Pages {
        total: ask("page_count")?.unsigned_abs(),
        free: ask("freelist_count")?.unsigned_abs(),
        size: ask("page_size")?.unsigned_abs(),
        is_incremental: ask("auto_vacuum")? == 2,
    })
}

/// Gives at most so many pages back that hold nothing; one, and more until `is_enough`.
pub(super) fn free_pages(connection: &Connection, pages: u32, is_enough: impl Fn() -> bool) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    // One for each page.
    while rows.next()?.is_some() && !is_enough() {}
    Ok(())
}

/// How a vacuum may go about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vacuum {
    /// Nobody else has the database: it is written anew, as small as it can be.
    Whole,
    /// minflow writes to it: unused pages go, a few at a time.
    Beside,
}

/// Has the database's file give back what it does not use. Answers its pages before and after.
///
/// # Errors
/// It is locked, there is no room for the copy that a whole vacuum makes, or it was made by an earlier minflow and cannot give pages back
/// while it is in use. It is as it was.
pub fn vacuum(path: &Path, how: Vacuum) -> Result<(Pages, Pages), StoreError> {
    let fail = |error: rusqlite::Error| {
        StoreError {
        message: format!("vacuum `{}`: {error}", path.display()),
        help: match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => {
                "a vacuum writes the database anew before it drops the old pages: free as much room as it takes, there and in the folder for \
                 temporary files (SQLITE_TMPDIR)"
                    .to_owned()
            }
            _ => help_for(&error, path),
        },
    }
    };
    open::present(path)?;
    let connection = open::beside(path, Synchronous::Full).map_err(fail)?;
    connection.busy_timeout(PATIENCE).map_err(fail)?;
    let before = ask_pages(&connection).map_err(fail)?;
    match how {
        Vacuum::Whole => {
            open::pragma(&connection, "auto_vacuum", INCREMENTAL).map_err(fail)?;
            connection.execute_batch("VACUUM").map_err(fail)?;
        }
        Vacuum::Beside => {
            if !before.is_incremental && before.free > 0 {
                return Err(StoreError {
                    message: format!("vacuum `{}`: an earlier minflow made it, and it cannot shrink while it is in use", path.display()),
                    help: "stop minflow, run `minflow db vacuum` once, and start it again; from then on it shrinks by itself".to_owned(),
                });
            }
            while ask_pages(&connection).map_err(fail)?.free > 0 {
                free_pages(&connection, VACUUM_PAGES, || false).map_err(fail)?;
            }
        }
    }
    let after = ask_pages(&connection).map_err(fail)?;
    // The file itself shrinks when the log is moved into it; readers may keep that from being done now, and then it is done later.
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    Ok((before, after))
}
