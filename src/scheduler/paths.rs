//! `weight_rule = "critical_path"`: a run's tasks are weighed by what the newest tries of its DAG have taken, when the run begins, and
//! again when its DAG changes or minflow has started.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{TaskId, WeightRule};
use crate::scheduler::StoreError;
use crate::scheduler::port::History;
use crate::scheduler::weight;
use crate::scheduler::world::{DagIx, Definition, RunIx, World};

impl Definition {
    /// What is usual of each task, by task; what is not known is guessed ([`weight::guess`]).
    fn lasting(&self, usual: &BTreeMap<TaskId, Duration>) -> Vec<Duration> {
        let known = |task| match self.dag.task(task).operator.is_idle() {
            true => Some(Duration::ZERO),
            false => usual.get(&self.dag.task(task).task_id).copied(),
        };
        weight::guess(&self.dag.graph.indexes().map(known).collect::<Vec<_>>())
    }
}

impl World {
    /// Weighs the run's tasks, unless that has been done. How long tries take is asked once for all runs that begin before another has ended.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(super) fn weigh(&mut self, run: RunIx, history: &mut dyn History) -> Result<(), StoreError> {
        let this = self.run(run);
        let Some(definition) = this.definition.clone().filter(|definition| definition.has_paths) else { return Ok(()) };
        if this.weights.is_some() {
            return Ok(());
        }
        let dag = this.dag;
        let usual = match &self.dag(dag).usual_durations {
            Some(known) => Arc::clone(known),
            None => {
                let asked = Arc::new(history.usual_durations(&definition.dag.dag_id)?);
                self.dag_quiet(dag).usual_durations = Some(Arc::clone(&asked));
                asked
            }
        };
        let weights: Arc<[i64]> = weight::by_paths(&definition.dag.graph, &definition.lasting(&usual)).into();
        for slot in self.run(run).slots_in_order() {
            let entry = self.run(run).entry(slot);
            let is_to_start = !entry.is_held() && !entry.row.state.is_executing() && !entry.row.state.is_finished();
            let Some(task) = entry.task.filter(|_| is_to_start) else { continue };
            let weight = weights[task.index()];
            let is_by_path = definition.dag.graph.node(task).weight_rule == WeightRule::CriticalPath;
            if is_by_path && entry.row.priority_weight != weight {
                let waits = entry.handle.is_some();
                self.entry_mut(run, slot).row.priority_weight = weight;
                if waits {
                    self.leave_ready_queue(run, slot);
                    self.enter_ready_queue(run, slot);
                }
            }
        }
        self.run_quiet(run).weights = Some(weights);
        Ok(())
    }

    /// A run of the DAG has ended: how long its tasks took is asked anew for the next one.
    pub(super) fn forget_durations(&mut self, dag: DagIx) {
        self.dag_quiet(dag).usual_durations = None;
    }
}
