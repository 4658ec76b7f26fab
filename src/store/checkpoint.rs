//! Moves committed pages from the write-ahead log into the database file, on a thread and a connection of its own, so that no
//! commit pays for it; and keeps the log's file ahead of the log.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode};

use crate::config::Synchronous;
use crate::health::Health;
use crate::scheduler::StoreError;
use crate::store::fault::Fault;
use crate::store::place::{FileIdentity, identity};
use crate::store::reserve::Reserve;
use crate::store::{Database, open};

/// The log's length in pages (of 4 KiB) from which on a checkpoint is worth its writes.
pub(super) const ENOUGH_PAGES: i32 = 1_000;

/// The length from which on its file is kept ahead of it: a minflow that rests needs no more.
const SOME_PAGES: i32 = 64;

/// A log this long is begun anew, for which the writer waits a moment: under unbroken load a passive checkpoint never reaches
/// the log's end, so the log would grow for ever.
const TOO_MANY_PAGES: i32 = 16_000;

/// What it may wait for a commit or a reader when it begins the log anew.
const PATIENCE: Duration = Duration::from_millis(20);

/// The condition under which the health board shows that checkpoints fail.
const CONDITION: &str = "checkpoint";

/// The thread that checkpoints; it ends when this is dropped.
#[derive(Debug)]
pub struct Checkpointer {
    bell: Sender<Bell>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is woken for. The writer keeps its end of the channel, so the thread cannot wait for the last one to go.
#[derive(Debug)]
enum Bell {
    /// The log's length in pages.
    Grown(i32),
    Stop,
}

impl Checkpointer {
    /// Begins to checkpoint what `database` commits. Failures are said on `health` under `checkpoint`: nothing is lost by
    /// them, but the log grows.
    ///
    /// # Errors
    /// No second connection or no thread is to be had.
    pub fn start(database: &mut Database, health: Health) -> Result<Self, StoreError> {
        let mut worker = Worker::of(database, health)?;
        let (bell, bells) = bounded(1);
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || worker.run(&bells))
            .map_err(|error| StoreError {
                message: format!("start the checkpoint thread: {error}"),
                help: "raise the limit of processes (`ulimit -u`)".to_owned(),
            })?;
        let writers = bell.clone();
        let mut look_at = SOME_PAGES;
        database.on_commit(move |pages| {
            // Full means that it is woken already.
            if (pages >= ENOUGH_PAGES || pages >= look_at) && writers.try_send(Bell::Grown(pages)).is_ok() {
                look_at = pages + ENOUGH_PAGES / 2;
            }
        })?;
        Ok(Self { bell, thread: Some(thread) })
    }
}

fn connect(path: &Path, synchronous: Synchronous) -> Result<(Connection, Option<FileIdentity>), Fault> {
    let connection = open::beside(path, synchronous)?;
    connection.busy_timeout(PATIENCE)?;
    let file = identity(path).map_err(|error| Fault::File { path: path.to_owned(), error })?;
    Ok((connection, file))
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        // Waits only while a checkpoint that has begun goes on; an error means that the thread is gone.
        let _ = self.bell.send(Bell::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread does.
pub(super) struct Worker {
    connection: Connection,
    /// The file that `connection` has open.
    file: Option<FileIdentity>,
    synchronous: Synchronous,
    reserve: Reserve,
    path: PathBuf,
    health: Health,
}

impl Worker {
    pub(super) fn of(database: &Database, health: Health) -> Result<Self, StoreError> {
        let (path, synchronous) = (database.path().to_owned(), database.synchronous());
        let (connection, file) =
            connect(&path, synchronous).map_err(|fault| fault.into_store_error("open a second connection", &path))?;
        Ok(Self { connection, file, synchronous, reserve: Reserve::of(&path), path, health })
    }

    fn run(&mut self, bells: &Receiver<Bell>) {
        while let Ok(Bell::Grown(pages)) = bells.recv() {
            self.attend(pages);
        }
    }

    /// The log has grown to so many pages.
    pub(super) fn attend(&mut self, pages: i32) {
        let done = self.follow_file().and_then(|()| {
            self.lengthen(pages);
            if pages < ENOUGH_PAGES { Ok(()) } else { self.checkpoint().map_err(Fault::from) }
        });
        match done {
            Ok(()) => self.health.clear(CONDITION),
            Err(fault) => {
                let error = fault.into_store_error("move the write-ahead log into the database", &self.path);
                self.health.raise(CONDITION, format!("{}; {}", error.message, error.help));
            }
        }
    }

    /// The writer may have put another file in the place of one that was deleted.
    fn follow_file(&mut self) -> Result<(), Fault> {
        let found = identity(&self.path).map_err(|error| Fault::File { path: self.path.clone(), error })?;
        if found.is_some() && found != self.file {
            let (connection, file) = connect(&self.path, self.synchronous)?;
            (self.file, self.reserve) = (file, Reserve::of(&self.path));
            // Never closed: SQLite might remove the new file's log.
            std::mem::forget(std::mem::replace(&mut self.connection, connection));
        }
        Ok(())
    }

    fn lengthen(&self, pages: i32) {
        // A full disk shows itself where it matters.
        if let Err(error) = self.reserve.lengthen(&self.connection, u64::from(pages.unsigned_abs())) {
            log::debug!("cannot keep the write-ahead log's file ahead of it: {error}");
        }
    }

    fn checkpoint(&self) -> rusqlite::Result<()> {
        let (pages, _moved) = self.connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE)?;
        if pages < TOO_MANY_PAGES {
            return Ok(());
        }
        // Little is left to move by now, so the writer is held up for about as long as one commit takes.
        match self.connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(()),
            result => {
                self.lengthen(0);
                result.map(|_| ())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{audit_of, open_in, pages_of_log};

    #[test]
    fn a_grown_log_is_moved_into_the_file_beside_the_writer() {
        let folder = tempfile::tempdir().unwrap();
        let mut database = open_in(folder.path());
        let health = Health::default();
        let checkpointer = Checkpointer::start(&mut database, health.clone()).unwrap();
        let file = folder.path().join("minflow.db");
        let before = file.metadata().unwrap().len();
        for _ in 0..3 {
            crate::scheduler::Store::commit(&mut database, &audit_of(3_000_000)).unwrap();
        }
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while file.metadata().unwrap().len() < before + 3_000_000 {
            assert!(std::time::Instant::now() < deadline, "no checkpoint within 20 s");
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(checkpointer);
        assert!(health.reasons().is_empty());
        assert!(pages_of_log(&database) > ENOUGH_PAGES as u64);
        crate::scheduler::Store::commit(&mut database, &audit_of(10)).unwrap();
    }
}
