//! The questions that the templates of one try ask, and whether the database could not answer one.
//!
//! Knows no database. A question that the database does not answer says nothing about the task, so that its try waits instead of
//! failing. A connection that cannot be read is the user's to mend, and fails it.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

use crate::executor::gate::{Barred, Gate};
use crate::model::{AssetDefinition, AssetEvent, AssetName};
use crate::model::{DagId, DagRun, RunId, RunKey};
use crate::secrets::{Connection, Secrets};
use crate::template::Lookup;

/// Passes on the questions of one try.
pub struct Asked {
    /// None: all that may be asked for is committed.
    gate: Option<Arc<Gate>>,
    lookup: Arc<dyn Lookup>,
    secrets: Arc<Secrets>,
    failure: Mutex<Option<String>>,
}

impl Asked {
    pub fn of(lookup: Arc<dyn Lookup>, secrets: Arc<Secrets>) -> Self {
        Self { gate: None, lookup, secrets, failure: Mutex::new(None) }
    }

    /// Asks the database only when the try's turn is committed.
    pub fn behind(gate: Arc<Gate>, lookup: Arc<dyn Lookup>, secrets: Arc<Secrets>) -> Self {
        Self { gate: Some(gate), ..Self::of(lookup, secrets) }
    }

    /// Why the first question that failed did.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    fn ask<T>(&self, question: impl FnOnce(&dyn Lookup) -> Result<T, String>) -> Result<T, String> {
        let passed = self.gate.as_ref().map_or(Ok(()), |gate| gate.pass());
        let answer = passed.map_err(|Barred| "minflow ends".to_owned()).and_then(|()| question(&*self.lookup));
        if let Err(reason) = &answer {
            self.failure.lock().get_or_insert_with(|| reason.clone());
        }
        answer
    }
}

impl Lookup for Asked {
    fn xcom(&self, run: RunKey, task_id: &str, map_index: i32, key: &str) -> Result<Option<Value>, String> {
        self.ask(|lookup| lookup.xcom(run, task_id, map_index, key))
    }

    fn xcoms(&self, run: RunKey, task_id: &str, key: &str) -> Result<Vec<(i32, Value)>, String> {
        self.ask(|lookup| lookup.xcoms(run, task_id, key))
    }

    fn earlier_xcoms(
        &self,
        dag_id: &DagId,
        task_id: &str,
        key: &str,
        before: Timestamp,
    ) -> Result<Vec<(i32, Value)>, String> {
        self.ask(|lookup| lookup.earlier_xcoms(dag_id, task_id, key, before))
    }

    fn run_key(&self, dag_id: &DagId, run_id: &RunId) -> Result<Option<RunKey>, String> {
        self.ask(|lookup| lookup.run_key(dag_id, run_id))
    }

    fn previous_success(&self, dag_id: &DagId, before: Timestamp) -> Result<Option<DagRun>, String> {
        self.ask(|lookup| lookup.previous_success(dag_id, before))
    }

    fn triggering_events(&self, run: RunKey) -> Result<Vec<AssetEvent>, String> {
        self.ask(|lookup| lookup.triggering_events(run))
    }

    fn asset_events(&self, name: &AssetName, limit: u32) -> Result<Vec<AssetEvent>, String> {
        self.ask(|lookup| lookup.asset_events(name, limit))
    }

    fn asset(&self, name: &AssetName) -> Result<Option<AssetDefinition>, String> {
        self.ask(|lookup| lookup.asset(name))
    }

    fn variable(&self, key: &str) -> Result<Option<String>, String> {
        Ok(self.secrets.variable(key).map(str::to_owned))
    }

    fn connection(&self, conn_id: &str) -> Result<Option<Connection>, String> {
        self.secrets.connection(conn_id).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::Given;
    use crate::template::NoLookup;

    #[test]
    fn nothing_is_asked_behind_a_gate_that_does_not_open() {
        let asked = |gate: Arc<Gate>| {
            let asked = Asked::behind(gate, Arc::new(NoLookup), Arc::new(Secrets::new(Given::default(), [])));
            (asked.asset(&AssetName::from("sales")), asked.failure())
        };
        let gate = Arc::new(Gate::default());
        gate.bar();
        let reason = "minflow ends".to_owned();
        assert_eq!(asked(gate), (Err(reason.clone()), Some(reason)));
        let gate = Arc::new(Gate::default());
        gate.open();
        assert_eq!(asked(gate), (Ok(None), None));
    }
}
