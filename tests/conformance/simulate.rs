//! Kind `simulate`: a run from its first pass to its end, where all that a pass lets run is over before the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use minflow::model::{Dag, Operator, SkipDecision, Task, TaskIx, TaskState, branching};
use minflow::scheduler::progress::{Choice, InstanceIx, Progress, Verdict};
use serde_json::Value;

use crate::dags::{Tasks, array, state, text};
use crate::harness;

fn check(row: &Value) -> Result<(), String> {
    let tasks = Tasks::of(row);
    let instances: Vec<(TaskIx, i32, TaskState)> =
        tasks.graph.indexes().map(|task| (task, -1, TaskState::None)).collect();
    let specs = tasks.ids.iter().map(|id| Task::new(id.as_str().into(), Operator::Empty)).collect();
    let dag = Dag::new("simulate".into(), specs, tasks.graph.clone());
    let mut progress = Progress::new(Arc::new(tasks.graph.clone()), &instances);
    let mut waves: Vec<Vec<&str>> = Vec::new();
    let run_state = loop {
        let pass = progress.pass();
        let mut wave: Vec<&str> = pass.schedulable.iter().map(|at| tasks.id(at.index())).collect();
        wave.sort_unstable();
        match pass.verdict {
            Verdict::Success => break "success",
            Verdict::Failed(_) => break "failed",
            Verdict::Running => waves.push(wave),
        }
        if waves.len() > tasks.ids.len() * 2 {
            return Err("the run does not end".to_owned());
        }
        for &at in &pass.schedulable {
            finish(&mut progress, &tasks, &dag, at, &row["outcomes"][tasks.id(at.index())]);
        }
    };
    let expected: Vec<Vec<&str>> =
        array(&row["waves"]).iter().map(|wave| array(wave).iter().map(text).collect()).collect();
    if waves != expected {
        return Err(format!("waves {waves:?}, expected {expected:?}"));
    }
    let finals: BTreeMap<&str, TaskState> =
        tasks.ids.iter().map(String::as_str).zip((0..).map(|at| progress.state(InstanceIx(at)))).collect();
    for (id, got) in finals {
        let wanted = state(&row["final_states"][id]);
        if got != wanted {
            return Err(format!("`{id}` ends as {got}, expected {wanted}"));
        }
    }
    if row["run_state"] == run_state { Ok(()) } else { Err(format!("the run ends as {run_state}")) }
}

/// Ends an instance as the case says. A branch decides first, as its worker does.
fn finish(progress: &mut Progress, tasks: &Tasks, dag: &Dag, at: InstanceIx, outcome: &Value) {
    let ended = state(&outcome["state"]);
    let decider = TaskIx(at.0);
    if let (TaskState::Success, Some(chosen)) = (ended, outcome["chosen"].as_array()) {
        let place = |id: &str| {
            let at = tasks.ids.iter().position(|other| other == id);
            TaskIx(at.expect("a branch follows tasks of its DAG") as u32)
        };
        let chosen: Vec<TaskIx> = chosen.iter().map(|id| place(text(id))).collect();
        let SkipDecision::Followed(followed) = branching::follow(dag, decider, &chosen) else {
            panic!("a branch says what it follows");
        };
        let expected: BTreeSet<&str> = array(&outcome["followed"]).iter().map(text).collect();
        assert_eq!(followed.iter().map(|id| &**id).collect::<BTreeSet<_>>(), expected);
        let choice = Choice::Followed(followed.iter().map(|id| place(id)).collect());
        let against = choice.against(&tasks.graph, decider);
        progress.bar(at, &against);
        progress.skip_at_once(&against);
    }
    progress.set_state(at, ended);
}

#[test]
fn simulate() {
    harness::conform("simulate", "simulate", &harness::cases("simulate"), check);
}
