//! Limits on the instances of one task, and pools that include what is deferred: who counts, and that each gives its place back.

use super::acts::clear;
use super::tests::trigger;
use super::*;
use crate::model::{AdmissionRules, Awaited, Pace, RunState, SensorMode, Wait};
use crate::scheduler::command::{Clear, MarkTasks, PauseTask, RunRange, Spread};
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
    defer_as(simulation, "d.a", SensorMode::Poke);
}

fn defer_as(simulation: &mut Simulation, name: &str, mode: SensorMode) {
    let now = simulation.clock.now();
    let wait = Wait {
        awaited: Awaited::Instant(now + 600 * SECOND),
        mode,
        since: now,
        timeout: None,
        execution_timeout: None,
        soft_fail: false,
        pace: Pace { poke_interval: 60 * SECOND, is_exponential: false, max_wait: None },
    };
    simulation.end(name, Outcome::Deferred(Box::new(wait)));
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

/// Each has room for one of the two instances of a task.
const LIMITS: [&str; 5] = [
    "max_active_tis_per_dag = 1",
    "max_active_tis_per_dagrun = 1",
    "pool = \"narrow\"",
    "needs = { memory = 600 }",
    "max_active_tis_per_dag = 1\nmax_active_tis_per_dagrun = 1\npool = \"narrow\"\nneeds = { memory = 600 }",
];

/// The first instance runs, and the limit keeps the second.
fn one_of_two(limit: &str) -> Simulation {
    let text = format!("[tasks.a]\nsensor = {{ file = \"{{{{ item }}}}\" }}\nexpand = {{ x = [1, 2] }}\n{limit}\n");
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    simulation.reconfigure(|settings| {
        settings.admission = AdmissionRules { memory: Some(1_000), ..AdmissionRules::default() };
    });
    simulation.command(trigger("d"));
    assert_eq!(simulation.trace(), ["start d.a[0] try 1"], "{limit}");
    simulation.started("d.a[0]");
    simulation
}

/// What is taken: slots of all, slots of the pool, memory that is reserved, and places of the limits of tasks.
fn taken(simulation: &Simulation) -> (u32, u64, u64, u32) {
    let world = simulation.scheduler.world();
    let limits = world.limits();
    let narrow = limits.pools.find("narrow").expect("it is defined");
    let of_dags = world.dags.iter().flat_map(|dag| dag.task_limits.values());
    let of_runs = world.runs.iter().flatten().flat_map(|run| run.task_limits.values());
    let active = of_dags.chain(of_runs).map(|&limit| limits.task_limit(limit).1).sum();
    (limits.executing(), limits.pools.taken(narrow), limits.reserves().memory().0, active)
}

fn clear_first(simulation: &mut Simulation) {
    simulation.command(Command::Clear(Clear { map_index: Some(0), ..clear("d", &["a"]) }));
}

fn mark_first(simulation: &mut Simulation, state: TaskState) {
    let runs = RunRange { run_id: Some(simulation.store.runs()[0].run_id.clone()), ..RunRange::default() };
    let (dag_id, tasks, map_index) = ("d".into(), vec!["a".to_owned()], Some(0));
    let mark = MarkTasks { dag_id, tasks, spread: Spread::default(), map_index, runs, state };
    simulation.command(Command::MarkTasks(mark));
}

fn pause_first(simulation: &mut Simulation, is_paused: bool) {
    let run_id = simulation.store.runs()[0].run_id.clone();
    let pause = PauseTask { dag_id: "d".into(), run_id, task_id: "a".into(), map_index: Some(0), is_paused };
    let reply = simulation.command(Command::SetTaskPaused(pause)).try_recv();
    assert!(matches!(reply, Ok(Ok(_))), "{reply:?}");
}

fn killed(reason: &str) -> Outcome {
    Outcome::Killed { reason: reason.to_owned() }
}

/// All that is left ends well, and nothing is taken any longer.
fn finish(mut simulation: Simulation, limit: &str) {
    for _ in 0..4 {
        let names: Vec<String> = simulation.calls.0.lock().names.values().cloned().collect();
        assert!(names.len() <= 1, "{limit}: {names:?} at once");
        for name in names {
            simulation.end(&name, Outcome::Exited(0));
        }
    }
    assert!(simulation.run_states().iter().all(|(_, state)| state.is_finished()), "{limit}");
    assert_eq!(taken(&simulation), (0, 0, 0, 0), "{limit}");
}

#[test]
fn a_cleared_or_marked_task_keeps_its_place_until_its_process_is_gone_and_nobody_gets_it_twice() {
    type Act = fn(&mut Simulation);
    let acts: [(&str, Act, &str); 4] = [
        ("cleared", clear_first, "start d.a[0] try 2"),
        ("marked success", |simulation| mark_first(simulation, TaskState::Success), "start d.a[1] try 1"),
        ("marked failed", |simulation| mark_first(simulation, TaskState::Failed), "start d.a[1] try 1"),
        (
            "paused, and cleared",
            |simulation| {
                pause_first(simulation, true);
                clear_first(simulation);
            },
            "start d.a[0] try 2",
        ),
    ];
    for limit in LIMITS {
        for (what, act, next) in acts {
            let mut simulation = one_of_two(limit);
            let before = taken(&simulation);
            act(&mut simulation);
            let asked: Vec<String> = simulation.trace().into_iter().filter(|call| !call.starts_with("pause")).collect();
            assert!(matches!(&asked[..], [kill] if kill.starts_with("kill d.a[0]")), "{limit}, {what}: {asked:?}");
            assert_eq!(taken(&simulation), before, "{limit}, {what}: its process is there still");
            simulation.end("d.a[0]", killed(what));
            assert_eq!(simulation.trace(), [next], "{limit}, {what}");
            assert_eq!(taken(&simulation), before, "{limit}, {what}");
            finish(simulation, limit);
        }
    }
}

#[test]
fn a_task_that_stands_still_keeps_its_place_over_a_restart_and_goes_on_with_it() {
    for limit in LIMITS {
        let mut simulation = one_of_two(limit);
        let before = taken(&simulation);
        pause_first(&mut simulation, true);
        assert_eq!((simulation.trace(), taken(&simulation)), (vec!["pause d.a[0]".to_owned()], before), "{limit}");
        let mut simulation = simulation.crash_and_restart();
        let settings = AdmissionRules { memory: Some(1_000), ..AdmissionRules::default() };
        assert_eq!((&simulation.settings.admission, taken(&simulation)), (&settings, before), "{limit}");
        simulation.trace();
        pause_first(&mut simulation, false);
        assert_eq!(simulation.trace(), ["resume d.a[0]"], "{limit}");
        simulation.end("d.a[0]", Outcome::Exited(0));
        assert_eq!(simulation.trace(), ["start d.a[1] try 1"], "{limit}");
        finish(simulation, limit);
    }
}

#[test]
fn what_is_deferred_keeps_the_places_of_its_task_alone_and_what_is_rescheduled_keeps_none() {
    for limit in LIMITS {
        for mode in [SensorMode::Poke, SensorMode::Reschedule] {
            // It waits on, is cleared, or is marked.
            for act in [
                None,
                Some(clear_first as fn(&mut Simulation)),
                Some(|s: &mut Simulation| mark_first(s, TaskState::Failed)),
            ] {
                let mut simulation = one_of_two(limit);
                defer_as(&mut simulation, "d.a[0]", mode);
                let is_kept = mode == SensorMode::Poke && limit.contains("max_active_tis");
                let expected: &[&str] = if is_kept { &[] } else { &["start d.a[1] try 1"] };
                assert_eq!(simulation.trace(), expected, "{limit}, {mode:?}");
                let (executing, in_pool, reserved, _) = taken(&simulation);
                if is_kept {
                    assert_eq!((executing, in_pool, reserved), (0, 0, 0), "{limit}");
                }
                match act {
                    Some(act) => act(&mut simulation),
                    None => simulation.advance(601 * SECOND),
                }
                assert_eq!(simulation.calls.0.lock().names.len(), 1, "{limit}, {mode:?}: the place has one owner");
                finish(simulation, limit);
            }
        }
    }
}
