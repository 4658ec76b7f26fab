//! Kind `dagrun_state`: successive passes over a run whose schedulable instances nobody touches.

use std::collections::BTreeSet;
use std::sync::Arc;

use minflow::model::{TaskIx, TaskState};
use minflow::scheduler::progress::{InstanceIx, Progress, Verdict};
use serde_json::Value;

use crate::dags::{Tasks, array, state, text};
use crate::harness;

/// Every pass is made twice: incrementally, and with all instances marked as changed.
fn check(row: &Value) -> Result<(), String> {
    let tasks = Tasks::of(row);
    let initial = &row["initial_states"];
    let instances: Vec<(TaskIx, i32, TaskState)> =
        tasks.graph.indexes().map(|task| (task, -1, state(&initial[tasks.id(task.index())]))).collect();
    let mut incremental = Progress::new(Arc::new(tasks.graph.clone()), &instances);
    // A case has no date for the next look, and without one Airflow lets the instance go on.
    for (at, _) in instances.iter().enumerate().filter(|(_, (.., state))| *state == TaskState::UpForReschedule) {
        incremental.retry_is_over(InstanceIx(at as u32));
    }
    let mut whole = incremental.clone();
    let mut run_state = "running";
    for (number, expected) in array(&row["passes"]).iter().enumerate() {
        whole.mark_all_changed();
        let pass = incremental.pass();
        if whole.pass() != pass {
            return Err(format!("pass {number}: an incremental pass differs from a whole one"));
        }
        run_state = match pass.verdict {
            Verdict::Running => "running",
            Verdict::Success => "success",
            Verdict::Failed(_) => "failed",
        };
        let schedulable: BTreeSet<&str> = pass.schedulable.iter().map(|at| tasks.id(at.index())).collect();
        let expected_schedulable: BTreeSet<&str> = array(&expected["schedulable"]).iter().map(text).collect();
        if expected["run_state"] != run_state || schedulable != expected_schedulable {
            return Err(format!("pass {number}: got {run_state} {schedulable:?}, expected {expected}"));
        }
        for (at, id) in tasks.ids.iter().enumerate() {
            let got = incremental.state(InstanceIx(at as u32));
            if got != state(&expected["task_states"][id]) {
                return Err(format!("pass {number}: `{id}` is {got}, expected {expected}"));
            }
        }
    }
    if row["expect_run_state"] == run_state { Ok(()) } else { Err(format!("the run ends as {run_state}")) }
}

#[test]
fn dagrun_state() {
    harness::conform("dagrun_state", "dagrun_state", &harness::cases("dagrun_state"), check);
}
