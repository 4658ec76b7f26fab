//! Fair share and ageing through the whole loop, what users are told of them, and that SIGHUP turns them on and off.

use super::tests::trigger;
use super::*;
use crate::model::{AdmissionRules, Thresholds};
use crate::scheduler::admission::HostReading;
use crate::scheduler::command::Done;
use crate::scheduler::explain::ExplainedTask;

const MINUTE: Duration = Duration::from_mins(1);

/// Gate and words for the last instance of a task in a DAG's newest run.
fn told(simulation: &mut Simulation, dag_id: &str, task: &str) -> (String, String) {
    let run = simulation.store.runs().into_iter().rfind(|run| &*run.dag_id == dag_id).expect("a run");
    let task = Some(ExplainedTask { task_id: task.into(), map_index: None });
    let command = Command::Explain { dag_id: dag_id.into(), run_id: run.run_id, task };
    match simulation.command(command).try_recv() {
        Ok(Ok(Done::Explained(mut told))) => {
            let finding = told.tasks.pop().expect("an instance").finding;
            (finding.gate.unwrap_or_default(), finding.message)
        }
        other => panic!("{other:?}"),
    }
}

fn tasks(names: &str, more: &str) -> String {
    names.chars().map(|name| format!("[tasks.{name}]\nbash = \"x\"\npool = \"wide\"\n{more}\n")).collect()
}

/// A pool `wide`, and these DAGs triggered one second after the other.
fn simulation(slots: i64, choosing: Choosing, dags: &[(&str, &str)]) -> Simulation {
    let mut simulation = Simulation::with(&[]);
    simulation.settings.pools.push(pool("wide", slots));
    simulation.settings.choosing = choosing;
    for (name, text) in dags {
        simulation.files.insert((*name).to_owned(), (*text).to_owned());
    }
    let mut simulation = simulation.crash_and_restart();
    simulation.trace();
    for (name, _) in dags {
        simulation.command(trigger(name.trim_end_matches(".toml")));
        simulation.clock.advance(Duration::from_secs(1));
    }
    simulation
}

#[test]
fn a_dag_that_holds_fewer_slots_comes_first_and_explain_gives_the_numbers() {
    let dags = [("a.toml", &*tasks("abcdef", "priority_weight = 5")), ("b.toml", &tasks("xyz", ""))];
    let mut simulation = simulation(3, Choosing::default(), &dags);
    assert_eq!(simulation.trace(), ["start a.a try 1", "start a.b try 1", "start a.c try 1"]);
    assert_eq!(told(&mut simulation, "a", "d"), ("pool_full".to_owned(), "pool `wide` 3/3".to_owned()));
    simulation.reconfigure(|settings| settings.choosing.fair_share = true);
    let words = "pool `wide` 3/3; `b` comes first: it holds 0 slots of pool `wide`, and `a` 3 (scheduler.fair_share)";
    assert_eq!(told(&mut simulation, "a", "d"), ("pool_full".to_owned(), words.to_owned()));
    assert_eq!(told(&mut simulation, "b", "x").1, "pool `wide` 3/3");
    simulation.succeed("a.a");
    assert_eq!(simulation.trace(), ["start b.x try 1"]);
    simulation.succeed("a.b");
    assert_eq!(simulation.trace(), ["start a.d try 1"], "each holds one slot, and a has more priority");
    let mut simulation = simulation.crash_and_restart();
    simulation.trace();
    simulation.end("b.x", Outcome::Lost);
    assert_eq!(simulation.trace(), ["start b.y try 1"], "what is held is counted again after a restart");
    simulation.reconfigure(|settings| settings.choosing.fair_share = false);
    simulation.end("b.y", Outcome::Lost);
    assert_eq!(simulation.trace(), ["start a.e try 1"]);
}

#[test]
fn a_fat_task_gets_what_comes_free_once_it_is_first_in_line_and_explain_says_so() {
    let small = tasks("abcde", "priority_weight = 2");
    let dags = [("a.toml", &*small), ("fat.toml", &*tasks("f", "pool_slots = 3"))];
    let mut simulation = simulation(3, Choosing { ageing: Some(10 * MINUTE), ..Choosing::default() }, &dags);
    assert_eq!(simulation.trace().len(), 3);
    simulation.clock.advance(11 * MINUTE);
    simulation.command(trigger("a"));
    simulation.succeed("a.a");
    simulation.succeed("a.b");
    assert_eq!(
        simulation.trace(),
        ["start a.d try 1", "start a.e try 1"],
        "they have waited as long, and have more priority"
    );
    simulation.succeed("a.c");
    assert_eq!(simulation.trace(), [""; 0], "those of the second run have not, and come after it now");
    let (gate, message) = told(&mut simulation, "fat", "f");
    assert_eq!(gate, "pool_full");
    let words = "pool `wide` 2/3, and it wants 3; it is first in line, and what comes free is kept for it (scheduler.priority_ageing)";
    assert_eq!(message, words);
    let (gate, message) = told(&mut simulation, "a", "a");
    assert_eq!(gate, "kept_for_another");
    let (before, after) = message.split_once("of run `manual__").expect("the run is named");
    assert_eq!(before, "what comes free is kept for fat.f ");
    let words = "`, which is first in line and wants 3 slots of pool `wide` (scheduler.priority_ageing)";
    assert!(after.ends_with(words), "{message}");
    let mut simulation = simulation.crash_and_restart();
    simulation.trace();
    simulation.end("a.d", Outcome::Lost);
    assert_eq!(simulation.trace(), [""; 0], "how long it has waited outlives a restart");
    simulation.end("a.e", Outcome::Lost);
    assert_eq!(simulation.trace(), ["start fat.f try 1"]);
    simulation.succeed("fat.f");
    assert_eq!(simulation.trace(), ["start a.a try 1", "start a.b try 1", "start a.c try 1"]);
}

#[test]
fn without_ageing_a_fat_task_is_passed_by_and_sighup_helps_it() {
    let dags = [("a.toml", &*tasks("abcdef", "")), ("fat.toml", &*tasks("f", "pool_slots = 3\npriority_weight = 9"))];
    let mut simulation = simulation(3, Choosing::default(), &dags);
    simulation.trace();
    simulation.clock.advance(MINUTE);
    simulation.succeed("a.a");
    assert_eq!(simulation.trace(), ["start a.d try 1"], "two of three slots are taken, and the third fits a small one");
    simulation.reconfigure(|settings| settings.choosing.ageing = Some(MINUTE / 2));
    for task in ["b", "c"] {
        simulation.succeed(&format!("a.{task}"));
        assert_eq!(simulation.trace(), [""; 0]);
    }
    simulation.succeed("a.d");
    assert_eq!(simulation.trace(), ["start fat.f try 1"]);
}

#[test]
fn who_has_waited_counts_for_more_and_explain_says_how_much() {
    let dags = [("a.toml", &*tasks("ab", "priority_weight = 3")), ("b.toml", &*tasks("x", ""))];
    let mut simulation = simulation(1, Choosing { ageing: Some(MINUTE), ..Choosing::default() }, &dags);
    assert_eq!(simulation.trace(), ["start a.a try 1"]);
    assert_eq!(told(&mut simulation, "b", "x").1, "pool `wide` 1/1", "less than a minute counts for nothing yet");
    simulation.clock.advance(MINUTE * 5 / 2);
    let words = "pool `wide` 1/1; its priority weight of 1 counts as 3 by now (scheduler.priority_ageing)";
    assert_eq!(told(&mut simulation, "b", "x"), ("pool_full".to_owned(), words.to_owned()));
    simulation.command(trigger("a"));
    simulation.succeed("a.a");
    assert_eq!(simulation.trace(), ["start a.b try 1"], "it has waited as long, and has more priority");
    simulation.succeed("a.b");
    assert_eq!(
        simulation.trace(),
        ["start b.x try 1"],
        "two minutes and a half count for more than the priority of the second run"
    );
    simulation.succeed("b.x");
    assert_eq!(simulation.trace(), ["start a.a try 1"]);
}

/// Of the three tasks in the newest run.
fn weights(simulation: &Simulation) -> Vec<i64> {
    let rows = simulation.store.instances();
    rows[rows.len() - 3..].iter().map(|row| row.priority_weight).collect()
}

#[test]
fn the_longest_path_comes_first_by_what_tries_have_taken() {
    let text = "[default_args]\nweight_rule = \"critical_path\"\npool = \"wide\"\n\
        [tasks.x]\nbash = \"x\"\n[tasks.y]\nbash = \"x\"\n[tasks.z]\nbash = \"x\"\ndepends_on = [\"y\"]\n";
    let mut simulation = simulation(1, Choosing::default(), &[("d.toml", text)]);
    assert_eq!(simulation.trace(), ["start d.y try 1"], "nothing is known: two of ten seconds against one");
    assert_eq!(weights(&simulation), [10, 20, 10]);
    for (task, lasts) in [("y", 5), ("x", 100), ("z", 20)] {
        simulation.started(&format!("d.{task}"));
        let began = simulation.clock.now();
        simulation.clock.advance(Duration::from_secs(lasts));
        let (key, now) = (simulation.key(&format!("d.{task}")), simulation.clock.now());
        let end = TryEnd { started_at: Some(began), ..TryEnd::new(key, Outcome::Exited(0), now) };
        simulation.turn(Event::Ended(Box::new(end)));
    }
    assert_eq!(simulation.trace(), ["start d.x try 1", "start d.z try 1"]);
    simulation.command(trigger("d"));
    assert_eq!(simulation.trace(), ["start d.x try 1"], "100 seconds against 25");
    assert_eq!(weights(&simulation), [100, 25, 20]);
    let words = "pool `wide` 1/1; its priority weight is 25, for the seconds of the longest path from it on (weight_rule = \"critical_path\")";
    assert_eq!(told(&mut simulation, "d", "y"), ("pool_full".to_owned(), words.to_owned()));
    let mut simulation = simulation.crash_and_restart();
    simulation.save("d.toml", &text.replace("[tasks.y]\n", "[tasks.y]\npriority_weight = 3\n"));
    assert_eq!(weights(&simulation), [100, 75, 20], "what waits is weighed again, by the same times");
    simulation.save("d.toml", &text.replace("critical_path", "downstream"));
    assert_eq!(weights(&simulation), [100, 2, 1], "what runs keeps its weight");
}

#[test]
fn the_gates_of_needs_task_limits_and_admission_have_words() {
    let text = "[tasks.a]\nbash = \"x\"\nneeds = { memory = 600 }\npriority_weight = 9\n\
        [tasks.b]\nbash = \"x\"\nneeds = { memory = 600 }\n[tasks.c]\nbash = \"x\"\nneeds = { memory = 2000 }\n\
        [tasks.d]\nbash = \"x\"\nneeds = { cpus = 3 }\n[tasks.e]\nbash = \"x\"\nneeds = { cpus = 2 }\n\
        [tasks.f]\nbash = \"x\"\nneeds = { cpus = 0.5 }\n\
        [tasks.g]\nbash = \"x\"\nexpand = { params = [1, 2] }\nmax_active_tis_per_dag = 1\n\
        [tasks.h]\nbash = \"x\"\nexpand = { params = [1, 2] }\nmax_active_tis_per_dagrun = 1\n";
    let mut simulation = Simulation::with(&[("w.toml", "[tasks.a]\nbash = \"x\"\n")]);
    simulation.reconfigure(|settings| {
        settings.admission =
            AdmissionRules { memory: Some(1_000), millicpus: Some(2_000), ..AdmissionRules::default() };
    });
    simulation.save("d.toml", text);
    simulation.command(trigger("d"));
    for (task, gate, message) in [
        ("b", "needs", "600 B of 1.0 kB memory is reserved, and it needs 600 B"),
        ("c", "needs_too_much", "it can never run: it needs 2.0 kB of memory, and 1.0 kB may be reserved in all"),
        ("d", "needs_too_much", "it can never run: it needs 3 processors, and 2 may be reserved in all"),
        ("f", "needs", "2 of 2 processors are reserved, and it needs 0.5"),
        (
            "g",
            "max_active_tis_per_dag",
            "1 of at most 1 instances of it are active in all runs (max_active_tis_per_dag)",
        ),
        (
            "h",
            "max_active_tis_per_dagrun",
            "1 of at most 1 instances of it are active in its run (max_active_tis_per_dagrun)",
        ),
    ] {
        assert_eq!(told(&mut simulation, "d", task), (gate.to_owned(), message.to_owned()));
    }
    let thresholds = Thresholds { min_memory: Some(500), ..Thresholds::default() };
    simulation.reconfigure(|settings| settings.admission = AdmissionRules { thresholds, ..AdmissionRules::default() });
    simulation.command(trigger("w"));
    let reading = HostReading { memory_total: Some(1_000), memory_available: Some(300), ..HostReading::default() };
    simulation.turn(Event::Host(Box::new(reading)));
    let message = "the host lets nothing new start: memory available: 300 B of the 500 B that `min_memory` asks for ([admission])";
    assert_eq!(told(&mut simulation, "w", "a"), ("admission".to_owned(), message.to_owned()));
}
