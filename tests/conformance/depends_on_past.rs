//! Kind `depends_on_past`: whether a task runs, by what its run before shows. The DAG is `a >> b`, with one run a day.

use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use minflow::dagfile::{self, Defaults};
use minflow::model::{Dag, DagRun, Instance, RunState, RunType, TaskState};
use minflow::scheduler::world::Action;
use serde_json::Value;

use crate::dags::{array, state};
use crate::harness;
use crate::worlds::{Stage, instance, run, stored};

fn day(row: &Value) -> Timestamp {
    let first: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    first + SignedDuration::from_hours(24 * row["day"].as_i64().unwrap())
}

fn dag(row: &Value) -> Arc<Dag> {
    let flag = |name: &str| row[name].as_bool().unwrap();
    let start = row["task_start_day"].as_i64().map_or(String::new(), |day| {
        let date = "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(24 * day);
        format!("start_date = {date}\n")
    });
    let text = format!(
        "dag_id = 'd'\nstart_date = 2020-01-01\ncatchup = {}\n[tasks.a]\nbash = 'true'\n{start}\
         depends_on_past = true\nwait_for_downstream = {}\nignore_first_depends_on_past = {}\n\
         [tasks.b]\nbash = 'true'\ndepends_on = ['a']\n",
        flag("catchup"),
        flag("wait_for_downstream"),
        flag("ignore_first_depends_on_past"),
    );
    Arc::new(dagfile::parse(Path::new("d.toml"), text.as_bytes(), &Defaults::default()).unwrap())
}

fn run_type(row: &Value) -> RunType {
    row["run_type"].as_str().unwrap().parse().unwrap()
}

/// The runs before, in this state, and the current one, which has not begun.
fn rows(row: &Value, before: RunState) -> (Vec<DagRun>, Vec<Instance>) {
    let (mut runs, mut instances) = (Vec::new(), Vec::new());
    for previous in array(&row["previous_runs"]) {
        let run = run(runs.len() as i64 + 1, run_type(previous), day(previous), before);
        for (task_id, field) in [("a", "task_state"), ("b", "downstream_state")] {
            if previous[field] != "absent" {
                instances.push(instance(instances.len() as i64 + 1, &run, task_id, state(&previous[field])));
            }
        }
        runs.push(run);
    }
    let current = run(runs.len() as i64 + 1, run_type(&row["current"]), day(&row["current"]), RunState::Running);
    for task_id in ["a", "b"] {
        instances.push(instance(instances.len() as i64 + 1, &current, task_id, TaskState::None));
    }
    runs.push(current);
    (runs, instances)
}

/// Whether `a` of the last run is started.
fn is_met(dag: &Arc<Dag>, runs: &[DagRun], instances: Vec<Instance>) -> bool {
    let current = runs.last().unwrap().key;
    let now = "2026-06-01T00:00:00Z".parse().unwrap();
    let mut stage = Stage::start(stored(dag, now, runs, instances), dag, now);
    let now = stage.now();
    stage.world.decide(now, &mut stage.store).unwrap();
    stage.commit().iter().any(|action| matches!(action, Action::Start(work) if work.run.key == current))
}

/// The runs before are over, and so only in the database; then alive, but queued, so that they stay as they are. A run that is alive
/// is given the instances that it lacks.
fn check(row: &Value) -> Result<(), String> {
    let dag = dag(row);
    let expected = &row["expect_met"];
    let (runs, instances) = rows(row, RunState::Success);
    let over = is_met(&dag, &runs, instances);
    if *expected != over {
        return Err(format!("expected {expected}, got {over} with runs that are over"));
    }
    if array(&row["previous_runs"]).iter().any(|run| run["task_state"] == "absent") {
        return Ok(());
    }
    let (runs, instances) = rows(row, RunState::Queued);
    let mut narrow = (*dag).clone();
    narrow.max_active_runs = 1;
    let alive = is_met(&Arc::new(narrow), &runs, instances);
    if *expected == alive { Ok(()) } else { Err(format!("expected {expected}, got {alive} with runs that are alive")) }
}

#[test]
fn depends_on_past() {
    harness::conform("depends_on_past", "depends_on_past", &harness::cases("depends_on_past"), check);
}
