//! Admission through the whole loop: the host is read when something waits, and no more often.

use super::tests::trigger;
use super::*;
use crate::model::{AdmissionRules, ParallelismRange, Thresholds, Usage};
use crate::scheduler::admission::HostReading;
use crate::scheduler::ready::NotStarted;
use crate::scheduler::reason::Reason;

const WIDE: &str = "[tasks.a]\nbash = \"x\"\n[tasks.b]\nbash = \"x\"\n[tasks.c]\nbash = \"x\"\n";

fn simulation(parallelism: u32, rules: AdmissionRules) -> Simulation {
    let mut simulation = Simulation::with_parallelism(parallelism, &[("d.toml", WIDE)]);
    simulation.settings.admission = rules;
    simulation.crash_and_restart()
}

fn with_memory(available: u64) -> Event {
    let reading = HostReading {
        cores: 2,
        memory_total: Some(1_000),
        memory_available: Some(available),
        ..HostReading::default()
    };
    Event::Host(Box::new(reading))
}

fn needs(min_memory: u64) -> AdmissionRules {
    let thresholds = Thresholds { min_memory: Some(min_memory), ..Thresholds::default() };
    AdmissionRules { thresholds, ..AdmissionRules::default() }
}

#[test]
fn nothing_starts_while_the_host_is_beyond_a_threshold_and_all_does_as_soon_as_it_is_not() {
    let mut simulation = simulation(32, needs(500));
    simulation.advance(Duration::from_secs(60));
    assert_eq!(simulation.trace(), [""; 0], "nobody waits, and nobody looks");
    simulation.command(trigger("d"));
    assert_eq!(simulation.trace(), ["ask the host"]);
    simulation.turn(with_memory(300));
    assert_eq!(simulation.trace(), [""; 0]);
    assert_eq!(simulation.task_state("a"), TaskState::Scheduled);
    let shut = simulation.scheduler.world.gauges().held_back_by;
    assert_eq!(shut, ["memory available: 300 B of the 500 B that `min_memory` asks for"]);
    simulation.advance(Duration::from_secs(1));
    assert_eq!(simulation.trace(), ["ask the host"]);
    simulation.turn(with_memory(600));
    assert_eq!(simulation.trace(), ["start d.a try 1", "start d.b try 1", "start d.c try 1"]);
    simulation.advance(Duration::from_secs(60));
    assert_eq!(simulation.trace(), [""; 0], "nobody waits any longer");
}

#[test]
fn a_reading_of_a_moment_ago_serves_what_comes_next() {
    let mut simulation = simulation(32, needs(500));
    simulation.command(trigger("d"));
    simulation.turn(with_memory(600));
    assert_eq!(simulation.trace().len(), 4);
    simulation.clock.advance(Duration::from_millis(500));
    simulation.command(trigger("d"));
    assert_eq!(simulation.trace(), ["start d.a try 1", "start d.b try 1", "start d.c try 1"]);
    simulation.clock.advance(Duration::from_millis(500));
    simulation.command(trigger("d"));
    assert_eq!(simulation.trace(), ["ask the host"]);
}

#[test]
fn parallelism_follows_the_host_between_its_bounds() {
    let rules =
        AdmissionRules { parallelism: Some(ParallelismRange { floor: 1, ceiling: 2 }), ..AdmissionRules::default() };
    let mut simulation = simulation(1, rules);
    simulation.command(trigger("d"));
    assert_eq!(simulation.trace(), ["ask the host", "start d.a try 1"]);
    simulation.turn(with_memory(900));
    assert_eq!(simulation.trace(), ["start d.b try 1"], "the host is at ease");
    assert_eq!(simulation.scheduler.world.gauges().parallelism, 2);
    simulation.advance(Duration::from_secs(1));
    assert_eq!(simulation.trace(), ["ask the host"]);
    simulation.turn(with_memory(10));
    assert_eq!(simulation.scheduler.world.gauges().parallelism, 1);
    simulation.succeed("d.a");
    assert!(!simulation.trace().iter().any(|call| call.starts_with("start")), "one still runs, and one may");
    simulation.succeed("d.b");
    assert!(simulation.trace().contains(&"start d.c try 1".to_owned()));
}

#[test]
fn needs_are_reserved_from_the_start_of_a_try_to_its_end_also_over_a_restart() {
    let text = "[tasks.fat]\nbash = \"x\"\nneeds = { memory = 600 }\npriority_weight = 9\n\
        [tasks.other]\nbash = \"x\"\nneeds = { memory = 600, cpus = 0.5 }\npriority_weight = 8\n\
        [tasks.small]\nbash = \"x\"\nneeds = { memory = 400 }\n[tasks.plain]\nbash = \"x\"\n\
        [tasks.never]\nbash = \"x\"\nneeds = { cpus = 3 }\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.settings.admission =
        AdmissionRules { memory: Some(1_000), millicpus: Some(2_000), ..AdmissionRules::default() };
    let mut simulation = simulation.crash_and_restart();
    simulation.command(trigger("d"));
    assert_eq!(simulation.trace(), ["start d.fat try 1", "start d.small try 1", "start d.plain try 1"]);
    let why = |simulation: &Simulation, task: &str| {
        let run_id = simulation.run_states()[0].0.as_str().into();
        simulation.scheduler.world.why_not_running(&"d".into(), &run_id, task)
    };
    assert!(matches!(why(&simulation, "other"), Some(Reason::NotStarted(NotStarted::HostReserved { .. }))));
    assert!(matches!(why(&simulation, "never"), Some(Reason::NotStarted(NotStarted::HostTooSmall { .. }))));
    simulation.started("d.fat");
    let mut simulation = simulation.crash_and_restart();
    assert!(!simulation.trace().contains(&"start d.other try 1".to_owned()), "what may still run has its memory");
    simulation.end("d.small", Outcome::Lost);
    assert!(matches!(why(&simulation, "other"), Some(Reason::NotStarted(NotStarted::HostReserved { .. }))));
    simulation.end("d.fat", Outcome::Lost);
    assert!(simulation.trace().contains(&"start d.other try 1".to_owned()));
    assert_eq!(simulation.scheduler.world.limits().reserves().memory().0, 600);
    simulation.succeed("d.other");
    assert_eq!(simulation.scheduler.world.limits().reserves().memory().0, 0);
}

#[test]
fn a_try_whose_task_was_gone_over_a_restart_reserves_its_needs_when_that_comes_back() {
    let text = "[tasks.fat]\nbash = \"x\"\nneeds = { memory = 600 }\n[tasks.plain]\nbash = \"x\"\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    let reserved = |simulation: &Simulation| simulation.scheduler.world.limits().reserves().memory().0;
    simulation.command(trigger("d"));
    simulation.started("d.fat");
    assert_eq!(reserved(&simulation), 600);
    simulation.save("d.toml", "[tasks.plain]\nbash = \"x\"\n");
    assert_eq!(reserved(&simulation), 600, "what it has it keeps");
    let mut simulation = simulation.crash_and_restart();
    assert_eq!(reserved(&simulation), 0, "nothing says any longer what it needs");
    simulation.save("d.toml", text);
    assert_eq!(reserved(&simulation), 600);
    simulation.save("d.toml", &text.replace("600", "700"));
    assert_eq!(reserved(&simulation), 700, "as a restart would have it");
    simulation.end("d.fat", Outcome::Exited(0));
    assert_eq!(reserved(&simulation), 0);
}

#[test]
fn what_was_learned_of_needs_counts_over_restarts_and_saves_for_what_runs_and_for_what_waits() {
    let text = "[tasks.fat]\nbash = \"x\"\nneeds = { memory = \"auto\" }\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.settings.admission = AdmissionRules { memory: Some(1_000), ..AdmissionRules::default() };
    let mut simulation = simulation.crash_and_restart();
    let reserved = |simulation: &Simulation| simulation.scheduler.world.limits().reserves().memory().0;
    let end = |simulation: &mut Simulation| {
        simulation.started("d.fat");
        let (key, now) = (simulation.key("d.fat"), simulation.clock.now());
        let usage = Some(Usage { max_rss: 600, ..Usage::default() });
        let end = TryEnd { started_at: Some(now), usage, ..TryEnd::new(key, Outcome::Exited(0), now) };
        simulation.turn(Event::Ended(Box::new(end)));
    };
    for _ in 0..3 {
        simulation.command(trigger("d"));
        end(&mut simulation);
        simulation.advance(Duration::from_secs(1));
    }
    simulation.command(trigger("d"));
    simulation.advance(Duration::from_secs(1));
    simulation.command(trigger("d"));
    simulation.started("d.fat");
    assert_eq!(reserved(&simulation), 640, "rounded up by an eighth at most; the other one waits");
    let mut simulation = simulation.crash_and_restart();
    assert_eq!((reserved(&simulation), simulation.trace()), (640, vec!["reclaim d.fat try 1".to_owned()]));
    simulation.save("d.toml", &format!("description = \"saved\"\n{text}"));
    assert_eq!((reserved(&simulation), simulation.trace()), (640, Vec::new()));
    end(&mut simulation);
    assert!(simulation.trace().contains(&"start d.fat try 1".to_owned()));
    assert_eq!(reserved(&simulation), 640);
}

#[test]
fn a_full_disk_keeps_new_starts_back_and_is_told_until_it_has_room_though_nothing_waits_any_longer() {
    let thresholds = Thresholds { min_free: Some(500), ..Thresholds::default() };
    let mut simulation = simulation(32, AdmissionRules { thresholds, ..AdmissionRules::default() });
    let room = |free: u64| Event::Host(Box::new(HostReading { database_free: Some(free), ..HostReading::default() }));
    let told = |simulation: &Simulation| simulation.health.reasons();
    simulation.command(trigger("d"));
    let begun = ["start d.a try 1", "start d.b try 1", "start d.c try 1"];
    assert_eq!(simulation.trace(), [&["ask the host"], &begun[..]].concat(), "no start waits for the reading");
    simulation.turn(room(499));
    let reason = "disk: disk free for the database: 499 B of the 500 B that `database.min_free` asks for: nothing new starts until there is \
                  room; free some, or see `minflow du` for what takes it";
    assert_eq!(told(&simulation), [reason]);
    simulation.command(trigger("d"));
    assert_eq!(simulation.trace(), [""; 0]);
    simulation.advance(Duration::from_secs(1));
    assert_eq!(simulation.trace(), ["ask the host"]);
    simulation.turn(room(500));
    assert_eq!((simulation.trace().len(), told(&simulation)), (3, Vec::new()));
    // Used up again after the last start: nobody waits, but `/health` is still to tell of its end.
    simulation.advance(Duration::from_secs(5));
    simulation.command(trigger("d"));
    simulation.trace();
    simulation.turn(room(1));
    assert_eq!(told(&simulation).len(), 1);
    simulation.advance(Duration::from_secs(1));
    simulation.turn(room(501));
    assert_eq!(told(&simulation), [""; 0]);
    simulation.advance(Duration::from_secs(60));
    assert_eq!(simulation.trace(), ["ask the host"], "the one of a second after it was used up, and none since");
}
