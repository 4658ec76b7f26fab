//! The writer: one turn's changes in one transaction, and what a start finds.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::clock::{Clock, SystemClock};
use crate::config::Synchronous;
use crate::model::SkipDecision;
use crate::model::{Backfill, BackfillId, DagId, DagRun, Instance, InstanceKey, RunKey, TaskId, TaskState};
use crate::scheduler::change::{Changes, Earlier, LengthWrite, RunLookup, RunSpan, Snapshot};
use crate::scheduler::port::History;
use crate::scheduler::{Store, StoreError};
use crate::store::backup::write_anew;
use crate::store::fault::{Fault, LeftOut};
use crate::store::open::Kind;
use crate::store::place::{Files, target};
use crate::store::{OpenError, act, backfill, load, mend, open, put, usual};

/// How long a commit waits for another program's lock. The loop stands still meanwhile, and tries again by itself.
const PATIENCE: Duration = Duration::from_millis(100);

/// The connection that writes.
///
/// It stays the same over every failure: when a COMMIT fails at its fsync, the pages of that turn may stand in the
/// write-ahead log whole, but outside what this connection and its neighbours hold for the log's end, and the next commit
/// overwrites them. A reopened database would find them and take them for committed. Only if the file is deleted another takes
/// its place, on a file that is written anew from what this one has committed.
pub struct Database {
    connection: Connection,
    path: PathBuf,
    synchronous: Synchronous,
    /// Those that `connection` has open.
    files: Files,
    tell: Option<Arc<Mutex<Tell>>>,
    left_out: LeftOut,
}

/// Is told the log's length in pages.
type Tell = dyn FnMut(i32) + Send;

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Database {
    /// Opens the database, creates it (mode 0600) where there is none, and brings an older one to [`SCHEMA_VERSION`] in one
    /// transaction.
    ///
    /// [`SCHEMA_VERSION`]: crate::store::SCHEMA_VERSION
    ///
    /// # Errors
    /// It is no database of minflow's, newer, damaged, locked or inaccessible: it is left as it is.
    pub fn open(path: &Path, synchronous: Synchronous) -> Result<Self, OpenError> {
        let connection = connect(path, synchronous)?;
        let files = Files::at(path).map_err(|source| OpenError::Inaccessible { path: path.to_owned(), source })?;
        Ok(Self { connection, path: path.to_owned(), synchronous, files, tell: None, left_out: LeftOut::logged() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn synchronous(&self) -> Synchronous {
        self.synchronous
    }

    /// Has `tell` called after each commit, on the committing thread, with the log's length in pages.
    pub(super) fn on_commit(&mut self, tell: impl FnMut(i32) + Send + 'static) -> Result<(), StoreError> {
        self.tell = Some(Arc::new(Mutex::new(tell)));
        self.hook().map_err(|error| Fault::from(error).into_store_error("watch the write-ahead log", &self.path))
    }

    fn hook(&mut self) -> rusqlite::Result<()> {
        let Some(tell) = self.tell.clone() else { return Ok(()) };
        // The hook must not fail: COMMIT would report its error although the turn is committed.
        let hook = move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            tell.lock()(pages);
            Ok(())
        };
        self.connection.wal_hook(Some(hook))
    }

    /// Sees to it that what is committed is found again. A file that was deleted is written anew, and so is one whose log was; another
    /// one in its place is left alone.
    fn keep_files(&mut self) -> Result<(), Fault> {
        let fail = |error| Fault::File { path: self.path.clone(), error };
        let found = Files::at(&self.path).map_err(fail)?;
        if !self.files.are_gone(&found) {
            return Ok(());
        }
        if found.main.is_some() && found.main != self.files.main {
            return Err(Fault::Replaced);
        }
        write_anew(&self.connection, &target(&self.path)).map_err(Fault::Gone)?;
        let fresh = connect(&self.path, self.synchronous).map_err(|error| Fault::Gone(error.into()))?;
        self.files = Files::at(&self.path).map_err(fail)?;
        // Never closed: SQLite would remove the log of the last connection by its name, which is the new file's by now.
        std::mem::forget(std::mem::replace(&mut self.connection, fresh));
        self.hook()?;
        log::error!(
            "`{}`{} was deleted while minflow ran; it was written anew, with all that was in it. To begin with an empty history, stop \
             minflow first",
            self.path.display(),
            if found.main.is_some() { ", or rather its `-wal` or `-shm` file," } else { "" }
        );
        Ok(())
    }

    fn answer<T>(&self, action: &str, ask: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, StoreError> {
        ask(&self.connection).map_err(|fault| fault.into_store_error(action, &self.path))
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn try_commit(&mut self, changes: &Changes) -> Result<(), Fault> {
        if !self.connection.is_autocommit() {
            // A rollback after a failure failed as well.
            self.connection.execute_batch("ROLLBACK")?;
        }
        self.keep_files()?;
        let transaction = Transaction::new(&mut self.connection, TransactionBehavior::Immediate)?;
        put::put(&transaction, changes, self.path.parent().unwrap_or(&self.path))?;
        transaction.commit()?;
        Ok(())
    }
}

fn load(connection: &Connection) -> Result<Snapshot, Fault> {
    // What a crash has left of tries that are over.
    const STALE: &str = "DELETE FROM paused_try WHERE NOT EXISTS (SELECT 1 FROM task_instance WHERE key = instance_key \
        AND task_instance.try_number = paused_try.try_number AND state = 'running')";
    // Of which try it is, is to be known first.
    act::paused(connection)?;
    connection.execute(STALE, [])?;
    load::snapshot(connection)
}

fn connect(path: &Path, synchronous: Synchronous) -> Result<Connection, OpenError> {
    let connection = open::writer(path, synchronous, Kind::Database)?;
    connection.busy_timeout(PATIENCE).map_err(|source| OpenError::Sqlite { path: path.to_owned(), source })?;
    Ok(connection)
}

impl Store for Database {
    fn load(&mut self) -> Result<Snapshot, StoreError> {
        let loaded = match load(&self.connection) {
            // A row that no minflow wrote fails its run, and not the start.
            Err(Fault::Value { .. }) => {
                mend::mend(&mut self.connection, SystemClock.now()).and_then(|()| load(&self.connection))
            }
            loaded => loaded,
        };
        loaded.map_err(|fault| fault.into_store_error("load the state", &self.path))
    }

    fn commit(&mut self, changes: &Changes) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.try_commit(changes).map_err(|fault| fault.into_store_error("commit a turn", &self.path))
    }
}

impl History for Database {
    fn find_run(&mut self, dag_id: &DagId, lookup: &RunLookup) -> Result<Option<DagRun>, StoreError> {
        self.answer("find a run", |connection| load::find_run(connection, dag_id, lookup))
    }

    fn has_run(&mut self, dag_id: &DagId, lookup: &RunLookup) -> Result<bool, StoreError> {
        self.answer("look for a run", |connection| load::has_run(connection, dag_id, lookup))
    }

    fn run_before(&mut self, dag_id: &DagId, earlier: Earlier) -> Result<Option<DagRun>, StoreError> {
        self.answer("find the run before", |connection| load::run_before(connection, dag_id, earlier))
    }

    fn task_states(&mut self, run: RunKey, task_id: &TaskId) -> Result<Vec<TaskState>, StoreError> {
        self.answer("read the states of a task", |connection| load::task_states(connection, run, task_id))
    }

    fn has_earlier_instance(&mut self, dag_id: &DagId, task_id: &TaskId, than: Timestamp) -> Result<bool, StoreError> {
        self.answer("look for a task", |connection| load::has_earlier_instance(connection, dag_id, task_id, than))
    }

    fn usual_memory(&mut self, dag_id: &DagId, task_id: &TaskId) -> Result<Option<u64>, StoreError> {
        self.answer("read what a task has taken", |connection| {
            usual::memory(connection, dag_id, task_id, &self.left_out)
        })
    }

    fn usual_durations(&mut self, dag_id: &DagId) -> Result<BTreeMap<TaskId, Duration>, StoreError> {
        self.answer("read how long tasks took", |connection| {
            usual::durations(connection, dag_id, usual::PATH_RUNS, &self.left_out)
        })
    }

    fn newest_runs(&mut self, dag_id: &DagId, limit: u32) -> Result<Vec<DagRun>, StoreError> {
        self.answer("list the runs", |connection| load::newest_runs(connection, dag_id, limit, &self.left_out))
    }

    fn newest_keys(&mut self, dag_id: &DagId, limit: u32) -> Result<Vec<RunKey>, StoreError> {
        self.answer("list the runs", |connection| load::newest_keys(connection, dag_id, limit))
    }

    fn date_before(&mut self, dag_id: &DagId, earlier: Earlier) -> Result<Option<Timestamp>, StoreError> {
        self.answer("find the run before", |connection| load::date_before(connection, dag_id, earlier))
    }

    fn instances(&mut self, run: RunKey) -> Result<Vec<Instance>, StoreError> {
        self.answer("list the task instances", |connection| load::instances_of(connection, run))
    }

    fn instances_behind(
        &mut self,
        run: RunKey,
        after: Option<(&TaskId, i32)>,
        limit: usize,
    ) -> Result<Vec<Instance>, StoreError> {
        self.answer("list the task instances", |connection| load::instances_behind(connection, run, after, limit))
    }

    fn lengths(&mut self, run: RunKey) -> Result<Vec<LengthWrite>, StoreError> {
        self.answer("read the lengths of XComs", |connection| load::lengths_of(connection, run))
    }

    fn runs_in(&mut self, dag_id: &DagId, span: &RunSpan, limit: usize) -> Result<Vec<DagRun>, StoreError> {
        self.answer("list the runs", |connection| act::runs_in(connection, dag_id, span, limit, &self.left_out))
    }

    fn decisions(&mut self, run: RunKey) -> Result<Vec<(InstanceKey, SkipDecision)>, StoreError> {
        self.answer("read what branches have decided", |connection| load::decisions_of(connection, run))
    }

    fn find_backfill(&mut self, id: BackfillId) -> Result<Option<Backfill>, StoreError> {
        self.answer("find a backfill", |connection| backfill::find(connection, id))
    }

    fn queued_runs(&mut self, id: BackfillId, after: u32, limit: usize) -> Result<Vec<DagRun>, StoreError> {
        self.answer("list the runs of a backfill", |connection| backfill::queued_runs(connection, id, after, limit))
    }
}
