//! A few readers, shared by the threads that ask.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::{Condvar, Mutex};
use serde_json::Value;

use crate::model::{AssetDefinition, AssetEvent, AssetName};
use crate::model::{DagId, DagRun, RunId, RunKey};
use crate::scheduler::StoreError;
use crate::store::{MemoryStore, Reader};
use crate::template::Lookup;

/// Connections at most: each has three descriptors, and no question takes long.
const MOST: usize = 4;

/// Opens connections when they are first needed. Clones share them.
#[derive(Clone, Debug)]
pub struct ReaderPool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    readers: Mutex<Readers>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct Readers {
    idle: Vec<Reader>,
    lent: usize,
}

impl ReaderPool {
    /// Touches no file yet.
    pub fn new(path: &Path) -> Self {
        let readers = Mutex::new(Readers::default());
        Self(Arc::new(Shared { path: path.to_owned(), readers, returned: Condvar::new() }))
    }

    /// Asks with a reader that nobody else uses meanwhile; waits for one if all are lent. Not to be called within `ask`.
    ///
    /// # Errors
    /// Those of `ask`, and those of opening the database.
    pub fn with<T>(&self, ask: impl FnOnce(&Reader) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut loan = Loan { shared: &self.0, reader: self.0.borrow() };
        if let Some(reader) = loan.reader.take_if(|reader| !reader.is_current()) {
            // The file was deleted, and another stands there. Never closed: SQLite might remove the new one's log.
            std::mem::forget(reader);
        }
        let reader = match &mut loan.reader {
            Some(reader) => reader,
            none => none.insert(Reader::open(&self.0.path)?),
        };
        ask(reader)
    }
}

impl Shared {
    /// Takes a place, and an open connection if one is idle.
    fn borrow(&self) -> Option<Reader> {
        let mut readers = self.readers.lock();
        while readers.lent == MOST {
            self.returned.wait(&mut readers);
        }
        readers.lent += 1;
        readers.idle.pop()
    }
}

/// Gives the place back, also when the asker panics.
struct Loan<'a> {
    shared: &'a Shared,
    reader: Option<Reader>,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let mut readers = self.shared.readers.lock();
        readers.lent -= 1;
        readers.idle.extend(self.reader.take());
        self.shared.returned.notify_one();
    }
}

impl Lookup for ReaderPool {
    fn xcom(&self, run: RunKey, task_id: &str, map_index: i32, key: &str) -> Result<Option<Value>, String> {
        self.with(|reader| reader.xcom(run, task_id, map_index, key)).map_err(sentence)
    }

    fn xcoms(&self, run: RunKey, task_id: &str, key: &str) -> Result<Vec<(i32, Value)>, String> {
        self.with(|reader| reader.xcoms(run, task_id, key)).map_err(sentence)
    }

    fn earlier_xcoms(
        &self,
        dag_id: &DagId,
        task_id: &str,
        key: &str,
        before: Timestamp,
    ) -> Result<Vec<(i32, Value)>, String> {
        self.with(|reader| reader.earlier_xcoms(dag_id, task_id, key, before)).map_err(sentence)
    }

    fn run_key(&self, dag_id: &DagId, run_id: &RunId) -> Result<Option<RunKey>, String> {
        let found = self.with(|reader| reader.run(dag_id, run_id)).map_err(sentence)?;
        Ok(found.map(|run| run.key))
    }

    fn previous_success(&self, dag_id: &DagId, before: Timestamp) -> Result<Option<DagRun>, String> {
        self.with(|reader| reader.previous_success(dag_id, before)).map_err(sentence)
    }

    fn triggering_events(&self, run: RunKey) -> Result<Vec<AssetEvent>, String> {
        self.with(|reader| reader.triggering_events(run)).map_err(sentence)
    }

    fn asset_events(&self, name: &AssetName, limit: u32) -> Result<Vec<AssetEvent>, String> {
        let of_asset = |reader: &Reader| match reader.find_asset(name)? {
            Some(asset) => reader.asset_events(asset.key, limit),
            None => Ok(Vec::new()),
        };
        self.with(of_asset).map_err(sentence)
    }

    fn asset(&self, name: &AssetName) -> Result<Option<AssetDefinition>, String> {
        let found = self.with(|reader| reader.find_asset(name)).map_err(sentence)?;
        Ok(found.map(|asset| asset.definition))
    }
}

impl Lookup for MemoryStore {
    fn xcom(&self, run: RunKey, task_id: &str, map_index: i32, key: &str) -> Result<Option<Value>, String> {
        Ok(MemoryStore::xcom(self, run, task_id, map_index, key))
    }

    fn xcoms(&self, run: RunKey, task_id: &str, key: &str) -> Result<Vec<(i32, Value)>, String> {
        Ok(MemoryStore::xcoms(self, run, task_id, key))
    }

    fn earlier_xcoms(
        &self,
        dag_id: &DagId,
        task_id: &str,
        key: &str,
        before: Timestamp,
    ) -> Result<Vec<(i32, Value)>, String> {
        Ok(MemoryStore::earlier_xcoms(self, dag_id, task_id, key, before))
    }

    fn run_key(&self, dag_id: &DagId, run_id: &RunId) -> Result<Option<RunKey>, String> {
        Ok(MemoryStore::run_key(self, dag_id, run_id))
    }

    fn previous_success(&self, dag_id: &DagId, before: Timestamp) -> Result<Option<DagRun>, String> {
        Ok(MemoryStore::previous_success(self, dag_id, before))
    }

    fn triggering_events(&self, run: RunKey) -> Result<Vec<AssetEvent>, String> {
        Ok(MemoryStore::triggering_events(self, run))
    }
}

fn sentence(error: StoreError) -> String {
    format!("failed to {}; {}", error.message, error.help)
}
