//! The next runs of one DAG, as the scheduler would create them if each were over as soon as it began.

use std::sync::Arc;

use jiff::Timestamp;

use crate::clock::BootInstant;
use crate::model::{Dag, Graph, NextRun, Node, Operator, RunState, Schedule, Task, TaskState};
use crate::scheduler::DagRecord;
use crate::scheduler::world::{DagIx, Now, Run, RunIx, Sink, Slot};
use crate::simulate::drive::NoHistory;
use crate::simulate::{Choosing, Plan, Subject, start};

/// How many turns without a new run are waited through.
const MAX_IDLE_TURNS: usize = 10_000;

/// Notes the runs that are created.
struct Created<'a> {
    runs: Vec<NextRun>,
    /// Whether a logical date has a run already.
    is_taken: &'a mut dyn FnMut(Timestamp) -> bool,
}

impl Sink for Created<'_> {
    fn dag(&mut self, _: &DagRecord) {}

    fn run(&mut self, _: RunIx, run: &Run, prior: Option<RunState>) {
        let row = &run.row;
        if let (None, Some(logical_date), Some(data_interval)) = (prior, row.logical_date, row.data_interval)
            && !(self.is_taken)(logical_date)
        {
            self.runs.push(NextRun { logical_date, data_interval, run_after: row.run_after });
        }
    }

    fn instance(&mut self, _: RunIx, _: Slot, _: &Run, _: Option<TaskState>) {}
}

/// The next `count` runs of a DAG, in the order in which they are created from `now` on; those missed before come first, as far as its
/// catchup goes. Fewer if no more are to come. Of `@continuous` one, since the others follow from its end. `is_taken` tells whether a
/// logical date has a run already: the scheduler passes it over.
pub fn next_runs(
    subject: &Subject,
    now: Timestamp,
    count: usize,
    is_taken: &mut dyn FnMut(Timestamp) -> bool,
) -> Vec<NextRun> {
    let alone = Subject { dag: Arc::new(without_work(&subject.dag)), ..subject.clone() };
    let record = start::record(&alone, now, alone.last_interval);
    let plan = Plan {
        from: now,
        until: now,
        subjects: Vec::new(),
        parallelism: 1,
        pools: Vec::new(),
        choosing: Choosing::default(),
        seed: 0,
        is_drawn: false,
    };
    let mut world = start::world(&plan, std::slice::from_ref(&alone), vec![record]);
    if subject.dag.schedule == Schedule::Continuous {
        // What takes no time begins again at the same instant, without end.
        return world.dag(DagIx(0)).record.next_run.into_iter().take(count).collect();
    }
    let mut created = Created { runs: Vec::new(), is_taken };
    let mut at = now;
    let mut idle = 0;
    while created.runs.len() < count && idle < MAX_IDLE_TURNS {
        let boot = BootInstant(at.duration_since(now).unsigned_abs());
        let turn = Now { wall: at, boot };
        world.apply_deadlines(turn);
        // Nothing is asked that could fail.
        let _ = world.decide(turn, &mut NoHistory);
        let before = created.runs.len();
        let _ = world.end_turn(&mut created);
        idle = if created.runs.len() > before { 0 } else { idle + 1 };
        if !world.has_more() {
            let Some(next) = world.next_deadline().0 else { break };
            at = next.max(at);
        }
    }
    created.runs.truncate(count);
    created.runs
}

/// The same schedule over one task that does nothing.
fn without_work(dag: &Dag) -> Dag {
    let node = Node::default();
    let graph = Graph::new(vec![node], &[]).expect("one task without edges is no cycle");
    Dag {
        start_date: dag.earliest(),
        end_date: dag.latest(),
        tasks: vec![Task::new("nothing".into(), Operator::Empty)],
        graph: graph.into(),
        dagrun_timeout: None,
        ..dag.clone()
    }
}
