//! Where the rows go that a turn has changed.

use crate::model::deadline::DeadlineRow;
use crate::model::{RunState, TaskState};
use crate::scheduler::change::{Changes, DagRecord, InstanceWrite, RunWrite};
use crate::scheduler::world::{DagIx, Run, RunIx, Slot};

/// Who takes in the rows that a turn has changed.
pub trait Sink {
    fn dag(&mut self, record: &DagRecord);

    /// `prior` is the state that the sink was last shown; None: the run is new. Runs come before instances, in order of their places.
    fn run(&mut self, ix: RunIx, run: &Run, prior: Option<RunState>);

    /// The instance at `slot` of `run`.
    fn instance(&mut self, ix: RunIx, slot: Slot, run: &Run, prior: Option<TaskState>);

    /// A deadline of the DAG was missed. Who keeps rows has it among them.
    fn missed(&mut self, ix: DagIx, row: &DeadlineRow) {
        let _ = (ix, row);
    }
}

impl Sink for Changes {
    fn dag(&mut self, record: &DagRecord) {
        self.dags.push(record.clone());
    }

    fn run(&mut self, _: RunIx, run: &Run, prior: Option<RunState>) {
        self.runs.push(RunWrite { run: run.row.clone(), prior });
    }

    fn instance(&mut self, _: RunIx, slot: Slot, run: &Run, prior: Option<TaskState>) {
        let instance = run.entry(slot).row.clone();
        self.instances.push(InstanceWrite { instance, dag_id: run.row.dag_id.clone(), prior });
    }
}
