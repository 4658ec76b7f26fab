//! Starts on rows that no minflow has written.

use super::*;
use crate::scheduler::simulation::tests::trigger;
use crate::scheduler::{Changes, InstanceWrite, Store};

const TWO: [(&str, &str); 2] =
    [("bad.toml", "[tasks.a]\nbash = 'true'\n"), ("good.toml", "[tasks.b]\nbash = 'true'\n")];

#[test]
fn a_run_with_an_impossible_row_fails_with_the_reason_and_the_others_go_on() {
    let mut simulation = Simulation::with(&TWO);
    simulation.command(trigger("bad"));
    simulation.command(trigger("good"));
    simulation.started("bad.a");
    simulation.started("good.b");
    let mut instance = simulation.store.instances().into_iter().find(|row| &*row.task_id == "a").unwrap();
    instance.version = None;
    let write = InstanceWrite { instance, dag_id: "bad".into(), prior: Some(TaskState::Running) };
    simulation.store.commit(&Changes { instances: vec![write], ..Changes::default() }).unwrap();
    let mut simulation = simulation.crash_and_restart();
    assert_eq!(simulation.trace(), ["reclaim good.b try 1"]);
    let failed = simulation.store.runs().into_iter().find(|run| &*run.dag_id == "bad").unwrap();
    assert_eq!(failed.state, RunState::Failed);
    let reason = failed.reason.unwrap();
    assert_eq!(reason, "an impossible row: `a` is `running`, and its try names no version of its DAG");
    assert_eq!(simulation.task_state("a"), TaskState::Skipped);
    simulation.succeed("good.b");
    assert_eq!(simulation.task_state("b"), TaskState::Success);
    // What is mended is not met again.
    let mut simulation = simulation.crash_and_restart();
    assert_eq!(simulation.trace(), [""; 0]);
}
