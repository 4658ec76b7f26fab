//! What ends at the same instant may be told in any order: the run comes out the same.

use std::collections::BTreeMap;

use super::random::{Dice, List, RandomDag, number_of};
use super::tests::trigger;
use super::*;
use crate::model::SkipDecision;

/// What becomes of the try of a task's instance, whenever it is told. FNV-1a over its name.
fn fate(seed: u64, task: &str, try_number: u32) -> u64 {
    let text = format!("{seed} {task} {try_number}");
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)) >> 7
}

/// Runs the DAG once; all that the executor has ends in one turn, told in the order that `order` gives. The state of each task and of
/// the run.
fn run_once(dag: &RandomDag, seed: u64, order: &mut Dice) -> (BTreeMap<(String, i32), TaskState>, RunState) {
    let text = dag.text(&vec![true; dag.tasks.len()], false, 0);
    // A limit would let one end decide who begins next.
    let text = text.replace("max_active_tasks = 2", "max_active_tasks = 99").replace("pool = \"narrow\"\n", "");
    let text = text.replace("dagrun_timeout = \"5m\"\n", "");
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    drop(simulation.command(trigger("d")));
    for _ in 0..200 {
        let mut held: Vec<(TryKey, String)> =
            simulation.calls.0.lock().names.iter().map(|(key, name)| (*key, name.clone())).collect();
        if held.is_empty() {
            if simulation.store.runs()[0].state.is_finished() {
                break;
            }
            simulation.advance(Duration::from_secs(20));
            continue;
        }
        let mut events = Vec::new();
        while !held.is_empty() {
            let (key, name) = held.swap_remove(order.below(held.len()));
            events.push(end_of(&simulation, dag, seed, key, &name[2..]));
        }
        simulation.scheduler.turn(events);
    }
    let rows = simulation.store.instances().into_iter();
    let states = rows.map(|row| ((row.task_id.to_string(), row.map_index), row.state)).collect();
    (states, simulation.store.runs()[0].state)
}

/// `name` is that of an instance: `t1`, `g.t2[3]`.
fn end_of(simulation: &Simulation, dag: &RandomDag, seed: u64, key: TryKey, name: &str) -> Event {
    let fate = fate(seed, name, key.try_number);
    let now = simulation.clock.now();
    let task = name.split_once('[').map_or(name, |(task, _)| task);
    let (outcome, at) = (fate % 5, number_of(task));
    let outcome = match outcome {
        0 => Outcome::Exited(1),
        1 => Outcome::Exited(99),
        _ => Outcome::Exited(0),
    };
    let has_succeeded = outcome == Outcome::Exited(0);
    let after = (0..dag.tasks.len()).filter(|&down| dag.tasks[down].upstream.contains(&at) && (fate >> down) & 1 == 0);
    let named = after.map(|down| dag.id(down).as_str().into()).collect();
    let decision = (has_succeeded && dag.tasks[at].decides).then_some(SkipDecision::Followed(named));
    let awaited = simulation.scheduler.world().awaited_lengths(key).into_iter().filter(|_| has_succeeded);
    // One of many gives something or not.
    let length = if dag.lists(at).is_empty() { (fate >> 20) as u32 % 4 } else { 1 };
    let gives = dag.lists(at).is_empty() || !(fate >> 20).is_multiple_of(4);
    let lengths = awaited.filter(|_| gives).map(|name| (name, length)).collect();
    let end = TryEnd { started_at: Some(now), decision, lengths, ..TryEnd::new(key, outcome, now) };
    Event::Ended(Box::new(end))
}

#[test]
fn the_order_in_which_simultaneous_ends_are_told_changes_nothing() {
    let (mut decided, mut failed, mut mapped) = (0, 0, 0);
    for seed in 0..300 {
        let mut dag = RandomDag::roll(&mut Dice(seed));
        // Of two that end together, the first to be told fails the other: so does Airflow.
        dag.fails_fast = false;
        let first = run_once(&dag, seed, &mut Dice(1));
        for other in 2..5 {
            assert_eq!(run_once(&dag, seed, &mut Dice(other)), first, "seed {seed}, order {other}");
        }
        assert!(first.1.is_finished(), "seed {seed}: {first:?}");
        decided += usize::from(dag.tasks.iter().any(|task| task.decides));
        failed += usize::from(first.1 == RunState::Failed);
        let is_pushed = |(_, list): &(usize, List)| matches!(list, List::Pushed(_));
        let has_pushed = (0..dag.tasks.len()).any(|task| dag.lists(task).iter().any(is_pushed));
        mapped += usize::from(has_pushed && first.0.keys().any(|&(_, index)| index > 0));
    }
    assert!(decided > 60 && failed > 40, "{decided} DAGs with branches, {failed} failed runs: too tame");
    assert!(mapped > 30, "{mapped} DAGs with lists that tasks give: too tame");
}
