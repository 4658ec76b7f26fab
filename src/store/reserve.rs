//! Keeps the write-ahead log's file longer than the log, so that a commit writes over blocks that the file has.
//!
//! A commit that lengthens its file waits for the file system's journal, and with it for whatever others have changed just now; one
//! that does not waits for its own bytes. What lies behind the log's end is nothing to SQLite: frames without the log's salt.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};

use crate::store::backup::beside;
use crate::store::place::target;

/// A page of the database with its header in the log, in bytes.
const FRAME: u64 = 4096 + 24;
/// How far the file reaches beyond the log when it is lengthened, in pages: as many as there are between two checkpoints.
const AHEAD: u64 = 1_024;
/// No more of the disk is taken than the free part has so many times over: who runs short of room needs it for something else.
const SHARE_OF_FREE: u64 = 64;
/// A piece, at most.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The log's file.
#[derive(Debug)]
pub(super) struct Reserve {
    log: PathBuf,
}

impl Reserve {
    /// Of the database at `path`.
    pub(super) fn of(path: &Path) -> Self {
        Self { log: beside(&target(path), "-wal") }
    }

    /// Lengthens the file of a log of `pages` if less than half of what it should reach ahead is left, piece by piece: a commit waits for
    /// one piece at most. `connection` is one that may write. Where others write, or the disk has little room, it stays as long as it is.
    ///
    /// # Errors
    /// The log is as it was, and only commits are slower.
    pub(super) fn lengthen(&self, connection: &Connection, pages: u64) -> io::Result<()> {
        let until = (pages + AHEAD) * FRAME;
        let file = OpenOptions::new().write(true).open(&self.log)?;
        let length = file.metadata()?.len();
        if length >= until - AHEAD * FRAME / 2 || !has_room(&file, until - length)? {
            return Ok(());
        }
        while file.metadata()?.len() < until {
            // Nobody appends to the log while this transaction lasts; it changes nothing, and so leaves no trace there.
            match connection.execute_batch("BEGIN IMMEDIATE") {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => break,
                begun => begun.map_err(io::Error::other)?,
            }
            let written = add_zeros(&file, until);
            connection.execute_batch("ROLLBACK").map_err(io::Error::other)?;
            written?;
        }
        // Commits from here on need no new block, once these are on the disk.
        file.sync_data()
    }
}

fn has_room(file: &File, bytes: u64) -> io::Result<bool> {
    let disk = rustix::fs::fstatvfs(file)?;
    Ok(bytes < disk.f_bavail.saturating_mul(disk.f_frsize) / SHARE_OF_FREE)
}

/// The next piece, or as much of it as is missing until `until`; or nothing.
fn add_zeros(file: &File, until: u64) -> io::Result<()> {
    let end = file.metadata()?.len();
    let count = until.saturating_sub(end).min(ZEROS.len() as u64);
    let written = file.write_all_at(&ZEROS[..count as usize], end);
    if written.is_err() {
        file.set_len(end)?;
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Synchronous;
    use crate::scheduler::Store;
    use crate::store::tests::{audit_of, open_in};
    use crate::store::{Database, open};

    fn length_of_log(folder: &Path) -> u64 {
        folder.join("minflow.db-wal").metadata().unwrap().len()
    }

    fn count(database: &Database) -> i64 {
        database.connection().query_row("SELECT count(*) FROM log", [], |row| row.get(0)).unwrap()
    }

    /// A database with a short log, a connection beside its own, and the log's file.
    fn opened(folder: &Path) -> (Database, Connection, Reserve) {
        let path = folder.join("minflow.db");
        let mut database = open_in(folder);
        let beside = open::beside(&path, Synchronous::Full).unwrap();
        database.commit(&audit_of(10)).unwrap();
        (database, beside, Reserve::of(&path))
    }

    #[test]
    fn commits_go_on_within_the_file_and_a_start_finds_them_all() {
        let folder = tempfile::tempdir().unwrap();
        let (mut database, beside, reserve) = opened(folder.path());
        reserve.lengthen(&beside, 40).unwrap();
        let reserved = length_of_log(folder.path());
        assert!(reserved >= (40 + AHEAD) * FRAME);
        for _ in 0..20 {
            database.commit(&audit_of(10)).unwrap();
        }
        assert_eq!(length_of_log(folder.path()), reserved, "the commits have lengthened the file");
        let before = count(&database);
        assert!(before >= 21);
        // As a crash leaves it: another folder with the same two files, whose log is read from its beginning.
        let crashed = tempfile::tempdir().unwrap();
        for name in ["minflow.db", "minflow.db-wal"] {
            std::fs::copy(folder.path().join(name), crashed.path().join(name)).unwrap();
        }
        let found = open_in(crashed.path());
        assert_eq!(count(&found), before);
        let sound: String = found.connection().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
    }

    #[test]
    fn a_file_that_reaches_far_enough_is_left_alone_and_a_busy_writer_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (database, beside, reserve) = opened(folder.path());
        let before = length_of_log(folder.path());
        database.connection().execute_batch("BEGIN IMMEDIATE").unwrap();
        reserve.lengthen(&beside, 40).unwrap();
        assert_eq!(length_of_log(folder.path()), before);
        database.connection().execute_batch("ROLLBACK").unwrap();
        reserve.lengthen(&beside, 40).unwrap();
        let reserved = length_of_log(folder.path());
        reserve.lengthen(&beside, 40 + AHEAD / 2).unwrap();
        assert_eq!(length_of_log(folder.path()), reserved);
        reserve.lengthen(&beside, 41 + AHEAD / 2).unwrap();
        assert!(length_of_log(folder.path()) > reserved);
    }
}
