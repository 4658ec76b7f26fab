//! The runs that are over, as far as a later one may ask for them: of DAGs whose tasks depend on the past, or that failures pause.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::{Dag, DagId, DagRun, RunKey, RunType, TaskId, TaskState};
use crate::scheduler::change::{Earlier, RunLookup, RunSpan};
use crate::scheduler::port::StoreError;
use crate::scheduler::world::{History, Run, Slot};
use crate::simulate::Subject;

/// How many runs of a DAG are kept at least.
const KEPT: usize = 64;

struct Over {
    row: DagRun,
    states: Vec<(TaskId, TaskState)>,
}

pub(super) struct Past {
    /// By DAG, its newest finished runs, oldest first; DAGs that nobody asks about are not in it.
    kept: BTreeMap<DagId, (usize, Vec<Over>)>,
    /// How long tries of a DAG's tasks take: as the plan says.
    lasting: BTreeMap<DagId, BTreeMap<TaskId, Duration>>,
}

impl Past {
    pub(super) fn new(subjects: &[Subject]) -> Self {
        let kept = |dag: &Dag| KEPT.max((dag.max_consecutive_failed_dag_runs + dag.max_active_runs) as usize);
        let asked = subjects.iter().map(|subject| &subject.dag).filter(|dag| is_asked(dag));
        let of_task = |subject: &Subject| {
            let tasks = subject.dag.tasks.iter().zip(&subject.outlooks);
            tasks.map(|(task, outlook)| (task.task_id.clone(), outlook.lasts_for)).collect()
        };
        Self {
            kept: asked.map(|dag| (dag.dag_id.clone(), (kept(dag), Vec::new()))).collect(),
            lasting: subjects.iter().map(|subject| (subject.dag.dag_id.clone(), of_task(subject))).collect(),
        }
    }

    /// A run is over.
    pub(super) fn keep(&mut self, run: &Run) {
        if self.kept.is_empty() {
            return;
        }
        let Some((most, runs)) = self.kept.get_mut(&run.row.dag_id) else { return };
        let rows = (0..run.instances.len() as u32).map(|at| &run.entry(Slot(at)).row);
        let states = rows.map(|row| (row.task_id.clone(), row.state)).collect();
        let at = runs.partition_point(|over| (over.row.run_after, over.row.key) < (run.row.run_after, run.row.key));
        runs.insert(at, Over { row: run.row.clone(), states });
        if runs.len() > *most {
            runs.remove(0);
        }
    }

    fn runs(&self, dag_id: &DagId) -> impl DoubleEndedIterator<Item = &Over> {
        self.kept.get(dag_id).into_iter().flat_map(|(_, runs)| runs)
    }
}

/// A later run of the DAG, or a deadline, may ask for those that are over.
pub(super) fn is_asked(dag: &Dag) -> bool {
    dag.max_consecutive_failed_dag_runs > 0
        || !dag.deadlines.is_empty()
        || dag.expect_by.is_some()
        || dag.tasks.iter().any(|task| task.depends_on_past || task.wait_for_downstream)
}

impl History for Past {
    fn usual_durations(&mut self, dag_id: &DagId) -> Result<BTreeMap<TaskId, Duration>, StoreError> {
        Ok(self.lasting.get(dag_id).cloned().unwrap_or_default())
    }

    fn find_run(&mut self, dag_id: &DagId, lookup: &RunLookup) -> Result<Option<DagRun>, StoreError> {
        // Dates only go forward; a deadline may outlive its run.
        let RunLookup::ById(run_id) = lookup else { return Ok(None) };
        Ok(self.runs(dag_id).map(|over| &over.row).find(|row| row.run_id == *run_id).cloned())
    }

    fn runs_in(&mut self, dag_id: &DagId, span: &RunSpan, limit: usize) -> Result<Vec<DagRun>, StoreError> {
        let rows = self.runs(dag_id).map(|over| &over.row);
        Ok(rows.filter(|row| Some((row.run_after, row.key)) > span.after).take(limit).cloned().collect())
    }

    fn run_before(&mut self, dag_id: &DagId, earlier: Earlier) -> Result<Option<DagRun>, StoreError> {
        let is_meant = |row: &&DagRun| {
            row.logical_date.is_some_and(|date| date < earlier.than)
                && !(earlier.but_manual && row.run_type == RunType::Manual)
        };
        Ok(self.runs(dag_id).map(|over| &over.row).filter(is_meant).max_by_key(|row| row.logical_date).cloned())
    }

    fn task_states(&mut self, run: RunKey, task_id: &TaskId) -> Result<Vec<TaskState>, StoreError> {
        let all = self.kept.values().flat_map(|(_, runs)| runs).find(|over| over.row.key == run);
        let states = all.into_iter().flat_map(|over| &over.states);
        Ok(states.filter(|(id, _)| id == task_id).map(|(_, state)| *state).collect())
    }

    fn has_earlier_instance(&mut self, dag_id: &DagId, task_id: &TaskId, than: Timestamp) -> Result<bool, StoreError> {
        let mut earlier = self.runs(dag_id).filter(|over| over.row.logical_date.is_some_and(|date| date < than));
        Ok(earlier.any(|over| over.states.iter().any(|(id, _)| id == task_id)))
    }

    fn newest_runs(&mut self, dag_id: &DagId, limit: u32) -> Result<Vec<DagRun>, StoreError> {
        Ok(self.runs(dag_id).rev().take(limit as usize).map(|over| over.row.clone()).collect())
    }
}
