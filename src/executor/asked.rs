//! The questions that the templates of one try ask, and whether the database could not answer one.
//!
//! Knows no database. A question that the database does not answer says nothing about the task, so that its try waits instead of
//! failing. A connection that cannot be read is the user's to mend, and fails it.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

use crate::model::{AssetDefinition, AssetEvent, AssetName};
use crate::model::{DagId, DagRun, RunId, RunKey};
use crate::secrets::{Connection, Secrets};
use crate::template::Lookup;

/// Passes on the questions of one try.
pub struct Asked {
    lookup: Arc<dyn Lookup>,
    secrets: Arc<Secrets>,
    failure: Mutex<Option<String>>,
}

impl Asked {
    pub fn of(lookup: Arc<dyn Lookup>, secrets: Arc<Secrets>) -> Self {
        Self { lookup, secrets, failure: Mutex::new(None) }
    }

    /// Why the first question that failed did.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    fn noted<T>(&self, answer: Result<T, String>) -> Result<T, String> {
        if let Err(reason) = &answer {
            self.failure.lock().get_or_insert_with(|| reason.clone());
        }
        answer
    }
}

impl Lookup for Asked {
    fn xcom(&self, run: RunKey, task_id: &str, map_index: i32, key: &str) -> Result<Option<Value>, String> {
        self.noted(self.lookup.xcom(run, task_id, map_index, key))
    }

    fn xcoms(&self, run: RunKey, task_id: &str, key: &str) -> Result<Vec<(i32, Value)>, String> {
        self.noted(self.lookup.xcoms(run, task_id, key))
    }

    fn earlier_xcoms(
        &self,
        dag_id: &DagId,
        task_id: &str,
        key: &str,
        before: Timestamp,
    ) -> Result<Vec<(i32, Value)>, String> {
        self.noted(self.lookup.earlier_xcoms(dag_id, task_id, key, before))
    }

    fn run_key(&self, dag_id: &DagId, run_id: &RunId) -> Result<Option<RunKey>, String> {
        self.noted(self.lookup.run_key(dag_id, run_id))
    }

    fn previous_success(&self, dag_id: &DagId, before: Timestamp) -> Result<Option<DagRun>, String> {
        self.noted(self.lookup.previous_success(dag_id, before))
    }

    fn triggering_events(&self, run: RunKey) -> Result<Vec<AssetEvent>, String> {
        self.noted(self.lookup.triggering_events(run))
    }

    fn asset_events(&self, name: &AssetName, limit: u32) -> Result<Vec<AssetEvent>, String> {
        self.noted(self.lookup.asset_events(name, limit))
    }

    fn asset(&self, name: &AssetName) -> Result<Option<AssetDefinition>, String> {
        self.noted(self.lookup.asset(name))
    }

    fn variable(&self, key: &str) -> Result<Option<String>, String> {
        Ok(self.secrets.variable(key).map(str::to_owned))
    }

    fn connection(&self, conn_id: &str) -> Result<Option<Connection>, String> {
        self.secrets.connection(conn_id).map_err(|error| error.to_string())
    }
}
