//! Limits on the instances of one task, and pools that include what is deferred: who counts, and that each gives its place back.

use super::tests::trigger;
use super::*;
use crate::model::{Awaited, Pace, RunState, SensorMode, Wait};
use crate::scheduler::ready::NotStarted;
use crate::scheduler::reason::Reason;
use crate::scheduler::world::{RunIx, Slot};

const SECOND: Duration = Duration::from_secs(1);

/// A sensor, or what else `first` says, and the limits of its task.
fn dag(first: &str, limits: &str) -> String {
    format!("[tasks.a]\n{first}\nretries = 1\nretry_delay = 60\n{limits}\n")
}

const SENSOR: &str = "sensor = { time_delta = \"1h\" }";
const BASH: &str = "bash = \"x\"";

/// `runs` runs of the DAG, made one second after the other.
fn triggered(text: &str, runs: usize) -> Simulation {
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    for _ in 0..runs {
        simulation.command(trigger("d"));
        simulation.clock.advance(SECOND);
    }
    simulation
}

fn defer(simulation: &mut Simulation) {
    let now = simulation.clock.now();
    let wait = Wait {
        awaited: Awaited::Instant(now + 600 * SECOND),
        mode: SensorMode::Poke,
        since: now,
        timeout: None,
        execution_timeout: None,
        soft_fail: false,
        pace: Pace { poke_interval: 60 * SECOND, is_exponential: false, max_wait: None },
    };
    simulation.end("d.a", Outcome::Deferred(Box::new(wait)));
}

fn why(simulation: &Simulation, run: usize) -> Option<Reason> {
    let run_id = &simulation.store.runs()[run].run_id;
    simulation.scheduler.world().why_not_running(&"d".into(), run_id, "a")
}

#[test]
fn a_limit_of_a_task_holds_over_all_runs_and_what_ends_fails_or_waits_for_a_retry_gives_its_place_back() {
    let mut simulation = triggered(&dag(BASH, "max_active_tis_per_dag = 1"), 4);
    assert_eq!(simulation.trace(), ["start d.a try 1"]);
    let full = NotStarted::MaxActiveTisPerDag { active: 1, limit: 1 };
    assert_eq!(why(&simulation, 1), Some(Reason::NotStarted(full)));
    simulation.succeed("d.a");
    assert_eq!(simulation.trace(), ["start d.a try 1"]);
    simulation.end("d.a", Outcome::Exited(1));
    assert_eq!(simulation.task_state("a"), TaskState::Scheduled, "of the newest run");
    assert_eq!(simulation.trace(), ["start d.a try 1"], "what waits for its retry holds nothing");
    simulation.end("d.a", Outcome::Lost);
    assert_eq!(simulation.trace(), ["start d.a try 1"]);
    simulation.advance(61 * SECOND);
    assert_eq!(simulation.trace(), [""; 0], "the retries wait for the fourth");
    simulation.succeed("d.a");
    simulation.succeed("d.a");
    simulation.succeed("d.a");
    assert_eq!(simulation.trace().len(), 2);
    assert!(simulation.run_states().iter().all(|(_, state)| *state == RunState::Success));
}

#[test]
fn a_limit_within_one_run_bounds_a_mapped_task_and_not_the_same_task_of_another_run() {
    let text = "[tasks.a]\nbash = \"x\"\nexpand = { params = [1, 2, 3] }\nmax_active_tis_per_dagrun = 2\n";
    let mut simulation = triggered(text, 2);
    assert_eq!(
        simulation.trace(),
        ["start d.a[0] try 1", "start d.a[1] try 1", "start d.a[0] try 1", "start d.a[1] try 1"]
    );
    let full = NotStarted::MaxActiveTisPerDagrun { active: 2, limit: 2 };
    let world = simulation.scheduler.world();
    let waiting = (0..3).map(Slot).find_map(|slot| world.why_not_started(RunIx(0), slot));
    assert_eq!(waiting, Some(full));
    simulation.succeed("d.a[1]");
    assert_eq!(simulation.trace(), ["start d.a[2] try 1"]);
}

#[test]
fn what_is_deferred_counts_until_it_is_over_also_over_a_restart() {
    for limit in ["max_active_tis_per_dag = 1", "max_active_tis_per_dag = 1\nmax_active_tis_per_dagrun = 1"] {
        let mut simulation = triggered(&dag(SENSOR, limit), 2);
        assert_eq!(simulation.trace(), ["start d.a try 1"]);
        defer(&mut simulation);
        assert_eq!(simulation.trace(), [""; 0], "the deferred one has the place");
        let mut simulation = simulation.crash_and_restart();
        assert_eq!(simulation.trace(), [""; 0]);
        simulation.advance(600 * SECOND);
        assert_eq!(simulation.trace(), ["start d.a try 1"], "the second, since the first is over");
    }
}

#[test]
fn a_limit_that_is_changed_given_or_taken_away_counts_at_once_also_for_what_is_active() {
    for first in [BASH, SENSOR] {
        let mut simulation = triggered(&dag(first, "max_active_tis_per_dag = 2"), 5);
        assert_eq!(simulation.trace().len(), 2);
        if first == SENSOR {
            defer(&mut simulation);
        }
        simulation.save("d.toml", &dag(first, "max_active_tis_per_dag = 1"));
        assert_eq!(simulation.trace(), [""; 0]);
        let full = NotStarted::MaxActiveTisPerDag { active: 2, limit: 1 };
        assert_eq!(why(&simulation, 2), Some(Reason::NotStarted(full)));
        simulation.save("d.toml", &dag(first, "max_active_tis_per_dag = 3"));
        assert_eq!(simulation.trace(), ["start d.a try 1"]);
        simulation.save("d.toml", &dag(first, ""));
        assert_eq!(simulation.trace(), ["start d.a try 1"; 2]);
        simulation.command(trigger("d"));
        assert_eq!(simulation.trace(), ["start d.a try 1"]);
        // Six are active when it gets a limit again.
        simulation.save("d.toml", &dag(first, "max_active_tis_per_dag = 6\nmax_active_tis_per_dagrun = 1"));
        simulation.clock.advance(SECOND);
        simulation.command(trigger("d"));
        assert_eq!(simulation.trace(), [""; 0]);
        simulation.end("d.a", Outcome::Exited(0));
        assert_eq!(simulation.trace(), ["start d.a try 1"]);
    }
}

#[test]
fn a_pool_that_includes_what_is_deferred_keeps_its_slots_and_gets_them_back() {
    for (include_deferred, starts) in [(false, 1), (true, 0)] {
        let text = dag(SENSOR, "pool = \"narrow\"");
        let mut simulation = Simulation::with(&[]);
        simulation.settings.pools[1].include_deferred = include_deferred;
        simulation.files.insert("d.toml".to_owned(), text);
        let mut simulation = simulation.crash_and_restart();
        simulation.command(trigger("d"));
        simulation.clock.advance(SECOND);
        simulation.command(trigger("d"));
        assert_eq!(simulation.trace(), ["start d.a try 1"]);
        defer(&mut simulation);
        assert_eq!(simulation.trace().len(), starts);
        let mut simulation = simulation.crash_and_restart();
        let limits = simulation.scheduler.world().limits();
        let narrow = limits.pools.find("narrow").unwrap();
        assert_eq!((limits.pools.deferred(narrow), limits.pools.open(narrow)), (1, 0));
        simulation.advance(600 * SECOND);
        let limits = simulation.scheduler.world().limits();
        assert_eq!(limits.pools.deferred(narrow), 0);
        let started = simulation.trace().iter().filter(|line| line.starts_with("start")).count();
        assert_eq!(started, 1 - starts, "the second one has the slot already, or gets it now");
    }
}

#[test]
fn a_run_that_is_marked_or_whose_task_has_gone_leaves_no_place_taken() {
    let both = "max_active_tis_per_dag = 1\nmax_active_tis_per_dagrun = 1";
    let mut simulation = triggered(&dag(SENSOR, both), 3);
    simulation.trace();
    defer(&mut simulation);
    let run_id = simulation.store.runs()[0].run_id.clone();
    simulation.command(Command::MarkRun { dag_id: "d".into(), run_id, state: RunState::Failed });
    assert_eq!(simulation.trace(), ["start d.a try 1"], "the place of the first run's sensor is free");
    defer(&mut simulation);
    simulation.save("d.toml", "[tasks.b]\nbash = \"x\"\n");
    assert_eq!(simulation.trace(), ["start d.b try 1"; 2], "its task is gone, and waits for nothing");
    assert_eq!(simulation.scheduler.world().limits().task_limits_in_use(), 0);
}
