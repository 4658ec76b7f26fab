//! Runs that go, as the loop sees it: what lives stays, and a name is free again when its folders have gone.

use super::tests::trigger;
use super::*;
use crate::model::{RunKey, RunState};
use crate::scheduler::change::RetiredRun;
use crate::scheduler::command::{Command, CommandError, Done, Keep, Trigger};

const DAG: &str = "[tasks.a]\nbash = \"x\"\n";

/// A simulation with so many finished runs `r1`, `r2`, ...
fn with_runs(count: u32) -> Simulation {
    let mut simulation = Simulation::with(&[("d.toml", DAG)]);
    for number in 1..=count {
        simulation.clock.advance(Duration::from_secs(60));
        start(&mut simulation, &format!("r{number}"));
        simulation.succeed("d.a");
    }
    simulation.trace();
    simulation
}

fn named(run_id: &str) -> Command {
    let Command::Trigger(asked) = trigger("d") else { unreachable!("it is a trigger") };
    Command::Trigger(Trigger { run_id: Some(run_id.into()), ..asked })
}

fn start(simulation: &mut Simulation, run_id: &str) {
    simulation.clock.advance(Duration::from_secs(1));
    simulation.command(named(run_id)).try_recv().unwrap().unwrap();
}

fn starts(simulation: &mut Simulation) -> Vec<String> {
    simulation.trace().into_iter().filter(|call| call.starts_with("start ")).collect()
}

fn found(simulation: &Simulation, run_id: &str) -> RetiredRun {
    let run = simulation.store.runs().into_iter().find(|run| &*run.run_id == run_id).unwrap();
    RetiredRun {
        key: run.key,
        dag_id: run.dag_id,
        run_id: run.run_id,
        run_after: run.run_after,
        end_date: run.end_date.unwrap_or(run.run_after),
    }
}

fn order(simulation: &mut Simulation, keep: Keep) -> Result<Vec<RunKey>, CommandError> {
    match simulation.command(Command::Keep(keep)).try_recv().unwrap()? {
        Done::Kept { runs } => Ok(runs),
        other => panic!("{other:?}"),
    }
}

fn retire(simulation: &mut Simulation, runs: Vec<RetiredRun>) -> usize {
    order(simulation, Keep::Retire { runs, everything: false, asked: None }).unwrap().len()
}

#[test]
fn a_finished_run_goes_and_the_newest_and_those_that_live_or_live_again_stay() {
    let mut simulation = with_runs(4);
    let planned: Vec<_> = ["r1", "r2", "r3", "r4"].map(|run_id| found(&simulation, run_id)).into();
    // Ended anew since it was planned.
    let stale = RetiredRun { end_date: planned[1].run_after - Duration::from_secs(1), ..planned[1].clone() };
    assert_eq!(retire(&mut simulation, vec![stale]), 0);
    assert_eq!(retire(&mut simulation, vec![planned[0].clone(), planned[3].clone()]), 1, "r4 is the newest");
    assert_eq!(retire(&mut simulation, vec![planned[0].clone()]), 0, "it has gone");
    start(&mut simulation, "r5");
    let alive = found(&simulation, "r5");
    assert_eq!(retire(&mut simulation, vec![planned[3].clone(), alive]), 0, "r5 runs, and r4 comes before it");
    assert_eq!(retire(&mut simulation, vec![planned[1].clone()]), 1);
    assert_eq!(simulation.store.runs().len(), 3);
}

#[test]
fn a_new_run_of_the_name_of_one_that_goes_waits_until_nothing_is_left_of_it_also_after_a_crash() {
    let mut simulation = with_runs(2);
    let old = found(&simulation, "r1");
    assert_eq!(retire(&mut simulation, vec![old.clone()]), 1);
    start(&mut simulation, "r1");
    assert_eq!(starts(&mut simulation), [""; 0], "its logs would lie among those that go");
    start(&mut simulation, "other");
    assert_eq!(starts(&mut simulation), ["start d.a try 1"], "no other run waits for it");
    simulation.succeed("d.a");
    simulation = simulation.crash_and_restart();
    simulation.trace();
    order(&mut simulation, Keep::Purge { runs: vec![(old.key, "d".into())] }).unwrap();
    order(&mut simulation, Keep::Forget { runs: vec![(old.key, "d".into(), "r1".into())] }).unwrap();
    assert_eq!(starts(&mut simulation), ["start d.a try 1"]);
    simulation.succeed("d.a");
    let new = simulation.store.runs().into_iter().find(|run| &*run.run_id == "r1").unwrap();
    assert!(new.key > old.key && new.state == RunState::Success);
}

#[test]
fn a_dag_is_deleted_when_it_has_neither_a_file_nor_runs_and_comes_back_as_a_new_one() {
    let mut simulation = with_runs(2);
    let delete = |simulation: &mut Simulation| {
        order(simulation, Keep::DeleteDag { dag_id: "d".into() }).map(drop).map_err(|error| error.code)
    };
    assert_eq!(delete(&mut simulation), Err("has-file".to_owned()));
    simulation.remove("d.toml");
    assert_eq!(delete(&mut simulation), Err("has-runs".to_owned()));
    let runs: Vec<_> = ["r1", "r2"].map(|run_id| found(&simulation, run_id)).into();
    assert_eq!(
        order(&mut simulation, Keep::Retire { runs: runs.clone(), everything: true, asked: None }).unwrap().len(),
        2
    );
    assert_eq!(delete(&mut simulation), Err("has-runs".to_owned()), "folders are still to go");
    let swept = runs.into_iter().map(|run| (run.key, run.dag_id, run.run_id)).collect();
    order(&mut simulation, Keep::Forget { runs: swept }).unwrap();
    assert_eq!(delete(&mut simulation), Ok(()));
    assert_eq!(delete(&mut simulation), Err("unknown-dag".to_owned()));
    assert!(simulation.store.dag("d").is_none());
}
