//! How a clear reaches other DAGs: over the tasks that mark one there (SEMANTICS 12, 22; Airflow: `ExternalTaskMarker`).

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Act, Deed, Runs, settle};
use crate::model::{Dag, DagId, Operator, RunId, TaskId};
use crate::scheduler::change::RunLookup;
use crate::scheduler::command::{Chosen, Spread, Touched};
use crate::scheduler::port::StoreError;
use crate::scheduler::world::{History, World};

/// How many markers one behind the other are followed (Airflow: `recursion_depth`).
const MAX_DEPTH: u32 = 10;

/// The marked tasks of other DAGs that a clear has found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Beyond {
    /// Where the act began, once it has left there.
    origin: Option<(DagId, Option<RunId>)>,
    /// Of what it is about now.
    depth: u32,
    /// To be gone to, the first first.
    left: Vec<Marked>,
    /// Every one that was found, and what was touched beside a marker: markers may go in circles.
    found: BTreeSet<(DagId, TaskId, Timestamp)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Marked {
    dag_id: DagId,
    task_id: TaskId,
    logical_date: Timestamp,
    depth: u32,
}

impl Act {
    /// The DAG, and the one run, that the user has named.
    pub(super) fn origin(&self) -> (&DagId, Option<&RunId>) {
        match (&self.beyond.origin, &self.runs) {
            (Some((dag_id, run_id)), _) => (dag_id, run_id.as_ref()),
            (None, Runs::One(run_id)) => (&self.dag_id, Some(run_id)),
            (None, Runs::Range { .. }) => (&self.dag_id, None),
        }
    }

    /// Notes what the markers among the touched tasks of one run mark.
    pub(super) fn mark_beyond(&mut self, dag: &Dag, date: Option<Timestamp>, touched: &[Touched]) {
        let depth = self.beyond.depth + 1;
        if matches!(self.deed, Deed::Mark(_)) || depth > MAX_DEPTH {
            return;
        }
        let Some(date) = date else { return };
        let has_markers = dag.tasks.iter().any(|task| matches!(task.operator, Operator::ExternalTaskMarker(_)));
        if !has_markers {
            return;
        }
        let reached = |instance: &Touched| (dag.dag_id.clone(), instance.task_id.clone(), date);
        self.beyond.found.extend(touched.iter().map(reached));
        for instance in touched {
            let Some(task) = dag.find(&instance.task_id) else { continue };
            let Operator::ExternalTaskMarker(marker) = &dag.task(task).operator else { continue };
            let Ok(logical_date) = date.checked_add(marker.execution_delta) else { continue };
            let (dag_id, task_id) = (marker.dag_id.clone(), marker.task_id.clone());
            if self.beyond.found.insert((dag_id.clone(), task_id.clone(), logical_date)) {
                self.beyond.left.push(Marked { dag_id, task_id, logical_date, depth });
            }
        }
    }
}

impl World {
    /// Turns the act to the next marked task that there is, with what comes after it. False: none is left.
    ///
    /// # Errors
    /// The database could not be asked; nothing has changed.
    pub(super) fn reach_beyond(&mut self, act: &mut Act, history: &mut dyn History) -> Result<bool, StoreError> {
        while let Some(marked) = act.beyond.left.first() {
            let Marked { dag_id, task_id, logical_date, depth } = marked.clone();
            let tasks = self.dag_index.get(&dag_id).and_then(|&ix| {
                let definition = self.dag(ix).definition.as_ref()?;
                let downstream = Spread { downstream: true, upstream: false };
                settle(&definition.dag, &Chosen::Named(vec![task_id.to_string()]), downstream).ok()
            });
            let lookup = RunLookup::ByLogicalDate(logical_date);
            let run = match (self.dag_index.get(&dag_id), &tasks) {
                (Some(&ix), Some(_)) => self.find_run(ix, &lookup, history)?,
                _ => None,
            };
            let (_, run_id) = act.origin();
            let origin = (act.origin().0.clone(), run_id.cloned());
            act.beyond.left.remove(0);
            // A marker of what is not there marks nothing.
            let (Some(tasks), Some(run)) = (tasks, run) else { continue };
            act.beyond.origin = Some(origin);
            act.beyond.depth = depth;
            (act.dag_id, act.tasks, act.narrowed, act.runs) = (dag_id, tasks.tasks, None, Runs::One(run.run_id));
            return Ok(true);
        }
        Ok(false)
    }
}
