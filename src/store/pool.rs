//! A few readers, shared by the threads that ask.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::{Condvar, Mutex};
use serde_json::Value;

use crate::model::{DagId, DagRun, RunKey};
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
    fn xcom(&self, run: RunKey, task_id: &str, map_index: Option<i32>, key: &str) -> Result<Option<Value>, String> {
        let found = match map_index {
            Some(map_index) => self.with(|reader| reader.xcom(run, task_id, map_index, key)),
            None => self.with(|reader| reader.xcoms(run, task_id, key)).map(joined),
        };
        found.map_err(sentence)
    }

    fn previous_success(&self, dag_id: &DagId, before: Timestamp) -> Result<Option<DagRun>, String> {
        self.with(|reader| reader.previous_success(dag_id, before)).map_err(sentence)
    }
}

impl Lookup for MemoryStore {
    fn xcom(&self, run: RunKey, task_id: &str, map_index: Option<i32>, key: &str) -> Result<Option<Value>, String> {
        Ok(match map_index {
            Some(map_index) => MemoryStore::xcom(self, run, task_id, map_index, key),
            None => joined(self.xcoms(run, task_id, key)),
        })
    }

    fn previous_success(&self, dag_id: &DagId, before: Timestamp) -> Result<Option<DagRun>, String> {
        Ok(MemoryStore::previous_success(self, dag_id, before))
    }
}

/// The value of an unmapped task, else the list of those of all its instances (Airflow: `xcom_pull` without map indexes).
fn joined(mut values: Vec<(i32, Value)>) -> Option<Value> {
    match values.first() {
        None => None,
        Some((-1, _)) => Some(values.swap_remove(0).1),
        Some(_) => Some(values.into_iter().map(|(_, value)| value).collect()),
    }
}

fn sentence(error: StoreError) -> String {
    format!("failed to {}; {}", error.message, error.help)
}
