//! Sensors: what waits without a process, and what ends it.

use super::tests::trigger;
use super::*;
use crate::model::{Awaited, Instance, Pace, RunState, SensorMode, Wait};
use crate::scheduler::command::{Chosen, Clear, MarkTasks, Only, RunRange, Spread};

const SECOND: Duration = Duration::from_secs(1);
const FILE: &str = "[tasks.a]\nsensor = { time_delta = \"1h\" }\nretries = 2\nretry_delay = 0\n[tasks.b]\nbash = \"x\"\ndepends_on = [\"a\"]\n";

fn triggered(text: &str) -> Simulation {
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.command(trigger("d"));
    simulation.trace();
    simulation
}

/// As a worker says it: for an instant so far ahead, with half an hour of patience.
fn wait(simulation: &Simulation, ahead: Duration) -> Wait {
    let now = simulation.clock.now();
    Wait {
        awaited: Awaited::Instant(now + ahead),
        mode: SensorMode::Poke,
        since: now,
        timeout: Some(1_800 * SECOND),
        execution_timeout: None,
        soft_fail: false,
        pace: Pace { poke_interval: 60 * SECOND, is_exponential: false, max_wait: None },
    }
}

/// The sensor `a` waits.
fn waiting(text: &str, change: impl FnOnce(Wait) -> Wait) -> Simulation {
    let mut simulation = triggered(text);
    let wait = change(wait(&simulation, 600 * SECOND));
    simulation.end("d.a", Outcome::Deferred(Box::new(wait)));
    simulation
}

fn row(simulation: &Simulation) -> Instance {
    simulation.store.instances().into_iter().find(|row| &*row.task_id == "a").unwrap()
}

#[test]
fn a_sensor_gives_its_slots_up_and_ends_when_what_it_waits_for_comes() {
    let mut simulation = waiting(FILE, |wait| wait);
    let (began_at, limits) = (simulation.clock.now(), simulation.scheduler.world().limits());
    assert_eq!(limits.executing(), 0);
    assert_eq!(row(&simulation).state, TaskState::Deferred);
    assert_eq!(row(&simulation).reason.as_deref(), Some("waits until 2026-11-21T12:40:00Z"));
    simulation.advance(599 * SECOND);
    assert_eq!(simulation.trace(), [""; 0]);
    simulation.advance(SECOND);
    assert_eq!(simulation.trace(), ["start d.b try 1"], "in the same turn");
    let row = row(&simulation);
    assert_eq!((row.state, row.try_number, row.reason, row.deferral), (TaskState::Success, 1, None, None));
    assert_eq!(row.start_date, Some(began_at));
    assert_eq!(row.end_date, Some(simulation.clock.now()));
}

#[test]
fn a_restart_keeps_the_clocks_of_what_waits() {
    for mode in [SensorMode::Poke, SensorMode::Reschedule] {
        let mut simulation = waiting(FILE, |wait| Wait { mode, ..wait });
        simulation.advance(400 * SECOND);
        let mut simulation = simulation.crash_and_restart();
        assert_eq!(simulation.trace(), [""; 0], "nothing of it is started or looked for");
        simulation.advance(199 * SECOND);
        assert_eq!(simulation.trace(), [""; 0]);
        simulation.advance(SECOND);
        assert_eq!(simulation.trace(), ["start d.b try 1"]);
    }
}

#[test]
fn what_came_while_nobody_ran_has_come() {
    let simulation = waiting(FILE, |wait| wait);
    simulation.clock.advance(700 * SECOND);
    let mut simulation = simulation.crash_and_restart();
    simulation.turn(Event::Tick);
    assert_eq!(simulation.trace(), ["start d.b try 1"]);
}

#[test]
fn after_its_timeout_a_sensor_fails_without_another_try_or_is_skipped() {
    for (soft_fail, state) in [(false, TaskState::Failed), (true, TaskState::Skipped)] {
        let short = |wait| Wait { timeout: Some(90 * SECOND), soft_fail, ..wait };
        let simulation = waiting(FILE, short);
        let mut simulation = simulation.crash_and_restart();
        simulation.advance(89 * SECOND);
        assert_eq!(row(&simulation).state, TaskState::Deferred);
        simulation.advance(SECOND);
        assert_eq!(row(&simulation).state, state);
        let reason = row(&simulation).reason.unwrap();
        assert_eq!(reason, "the sensor's timeout of 1m30s is over, and it still waits until 2026-11-21T12:40:00Z");
        assert_eq!(simulation.trace(), [""; 0], "no other try");
        simulation.advance(600 * SECOND);
        assert_eq!(row(&simulation).state, state);
    }
}

#[test]
fn the_execution_timeout_of_a_try_is_followed_by_another_try_with_a_clock_of_its_own() {
    let mut simulation = waiting(FILE, |wait| Wait { execution_timeout: Some(30 * SECOND), ..wait });
    simulation.advance(30 * SECOND);
    assert_eq!(simulation.trace(), ["start d.a try 2"]);
    assert_eq!(row(&simulation).deferral, None);
    let again = wait(&simulation, 600 * SECOND);
    simulation.end("d.a", Outcome::Deferred(Box::new(again)));
    simulation.advance(600 * SECOND);
    assert_eq!(simulation.trace(), ["start d.b try 1"]);
}

#[test]
fn in_mode_reschedule_all_tries_share_one_clock_until_a_clear() {
    let text = FILE.replace("time_delta = \"1h\"", "time_delta = \"1h\", mode = \"reschedule\"");
    let mut simulation = waiting(&text, |wait| Wait { mode: SensorMode::Reschedule, ..wait });
    assert_eq!(row(&simulation).state, TaskState::UpForReschedule);
    simulation.advance(600 * SECOND);
    assert_eq!(simulation.trace(), ["start d.b try 1"]);
    let mut simulation =
        waiting(&text, |wait| Wait { mode: SensorMode::Reschedule, execution_timeout: Some(30 * SECOND), ..wait });
    let since = row(&simulation).deferral.unwrap().since;
    simulation.advance(30 * SECOND);
    assert_eq!(simulation.trace(), ["start d.a try 2"]);
    assert_eq!(row(&simulation).deferral.unwrap().since, since);
    simulation.command(clear());
    simulation.end("d.a", Outcome::Killed { reason: "cleared".to_owned() });
    assert_eq!(row(&simulation).deferral, None);
}

#[test]
fn a_sensor_that_a_process_looks_for_takes_a_worker_for_each_look_alone() {
    for mode in [SensorMode::Poke, SensorMode::Reschedule] {
        let look = |simulation: &Simulation| {
            let awaited = Awaited::Look { from: simulation.clock.now(), after: 60 * SECOND };
            Outcome::Deferred(Box::new(Wait { mode, awaited, ..wait(simulation, SECOND) }))
        };
        let mut simulation = triggered(FILE);
        let began_at = simulation.clock.now();
        for _ in 0..3 {
            simulation.started("d.a");
            simulation.end("d.a", look(&simulation));
            assert_eq!(simulation.scheduler.world().limits().executing(), 0);
            simulation.advance(30 * SECOND);
            simulation = simulation.crash_and_restart();
            simulation.advance(29 * SECOND);
            assert_eq!(simulation.trace(), [""; 0], "{mode:?}");
            simulation.advance(SECOND);
            assert_eq!(simulation.trace(), ["start d.a try 1"], "{mode:?}");
        }
        simulation.succeed("d.a");
        let row = row(&simulation);
        assert_eq!((row.state, row.try_number, row.start_date), (TaskState::Success, 1, Some(began_at)), "{mode:?}");
        assert_eq!(simulation.trace(), ["start d.b try 1"]);
    }
}

const ASKING: &str = "[tasks.a]\nsensor = { http = { url = \"http://h/\" } }\nretries = 1\nretry_delay = 0\n[tasks.b]\nbash = \"x\"\ndepends_on = [\"a\"]\n";

/// The next look is due so long after this moment.
fn for_an_answer(simulation: &Simulation, after: Duration) -> Wait {
    Wait { awaited: Awaited::Service { from: simulation.clock.now(), after }, ..wait(simulation, SECOND) }
}

/// The sensor `a` is looked for.
fn asking(change: impl FnOnce(Wait) -> Wait) -> Simulation {
    let mut simulation = triggered(ASKING);
    let wait = change(for_an_answer(&simulation, Duration::ZERO));
    simulation.end("d.a", Outcome::Deferred(Box::new(wait)));
    assert_eq!(simulation.trace(), ["look d.a"], "in the same turn");
    simulation
}

fn looked(simulation: &mut Simulation, outcome: Outcome) {
    let key = simulation.calls.0.lock().looks.pop_first().expect("somebody looks");
    let end = TryEnd::new(key, outcome, simulation.clock.now());
    simulation.turn(Event::Looked(vec![end]));
}

#[test]
fn a_service_is_asked_by_no_worker_and_a_look_in_vain_writes_nothing() {
    let mut simulation = asking(|wait| wait);
    let before = row(&simulation);
    for _ in 0..3 {
        assert_eq!(simulation.scheduler.world().limits().executing(), 0);
        let again = for_an_answer(&simulation, 60 * SECOND);
        looked(&mut simulation, Outcome::Deferred(Box::new(Wait { since: before.start_date.unwrap(), ..again })));
        simulation.advance(59 * SECOND);
        assert_eq!(simulation.trace(), [""; 0]);
        simulation.advance(SECOND);
        assert_eq!(simulation.trace(), ["look d.a"]);
        assert_eq!(row(&simulation), before);
    }
    let mut simulation = simulation.crash_and_restart();
    assert_eq!(simulation.trace(), ["look d.a"], "it is made again");
    looked(&mut simulation, Outcome::Exited(0));
    assert_eq!(simulation.trace(), ["start d.b try 1"]);
    let after = row(&simulation);
    assert_eq!((after.state, after.try_number, after.start_date), (TaskState::Success, 1, before.start_date));
}

#[test]
fn a_look_that_takes_too_long_or_that_nobody_wants_any_longer_is_forgotten() {
    let mut simulation = asking(|wait| Wait { execution_timeout: Some(30 * SECOND), ..wait });
    let key = row(&simulation).try_key();
    simulation.advance(30 * SECOND);
    assert_eq!(simulation.trace(), ["forget", "start d.a try 2"]);
    let late = TryEnd::new(key, Outcome::Exited(0), simulation.clock.now());
    simulation.turn(Event::Looked(vec![late]));
    assert_eq!(row(&simulation).state, TaskState::Queued, "old news");

    let mut simulation = asking(|wait| wait);
    simulation.command(clear());
    assert_eq!(simulation.trace(), ["forget", "start d.a try 2"]);
    let mut simulation = asking(|wait| wait);
    looked(&mut simulation, Outcome::Exited(1));
    assert_eq!(simulation.trace(), ["start d.a try 2"], "a look that fails fails its try");
}

#[test]
fn what_is_looked_for_may_become_another_sensor_and_its_file_may_go_and_come() {
    let mut simulation = asking(|wait| wait);
    let again = for_an_answer(&simulation, 60 * SECOND);
    looked(&mut simulation, Outcome::Deferred(Box::new(again)));
    simulation.save("d.toml", "tasks = ");
    simulation.save("d.toml", &ASKING.replace("http = { url = \"http://h/\" }", "bash = \"x\""));
    simulation.advance(60 * SECOND);
    assert_eq!(simulation.trace(), ["start d.a try 1"], "a worker looks by now");

    let mut simulation = asking(|wait| wait);
    let again = for_an_answer(&simulation, 60 * SECOND);
    looked(&mut simulation, Outcome::Deferred(Box::new(again)));
    simulation.remove("d.toml");
    simulation.advance(60 * SECOND);
    assert_eq!(simulation.trace(), ["look d.a"], "what has begun goes on");
    looked(&mut simulation, Outcome::Exited(0));
    assert_eq!(simulation.trace(), [""; 0], "and nothing begins");
    simulation.save("d.toml", ASKING);
    assert_eq!(simulation.trace(), ["start d.b try 1"]);
}

#[test]
fn after_a_start_a_service_is_asked_on_its_beat_and_a_last_time_when_the_timeout_is_over() {
    for (timeout, due) in [(1_800, 120), (95, 95), (70, 70), (75, 75)] {
        let mut simulation = asking(|wait| Wait { timeout: Some(timeout * SECOND), ..wait });
        let again = for_an_answer(&simulation, 60 * SECOND);
        looked(&mut simulation, Outcome::Deferred(Box::new(Wait { timeout: Some(timeout * SECOND), ..again })));
        simulation.clock.advance(75 * SECOND);
        let mut simulation = simulation.crash_and_restart();
        if due > 75 {
            simulation.advance((due - 76) * SECOND);
            assert_eq!(simulation.trace(), [""; 0], "due after {due} s");
            simulation.advance(SECOND);
        }
        assert_eq!(simulation.trace(), ["look d.a"], "due after {due} s");
    }
}

#[test]
fn looks_that_are_due_within_a_tenth_of_a_second_are_made_in_one_turn() {
    let text = ASKING.replace("[tasks.b]", "[tasks.c]\nsensor = { http = { url = \"http://h/\" } }\n[tasks.b]");
    let mut simulation = triggered(&text);
    for task in ["d.a", "d.c"] {
        let first = for_an_answer(&simulation, Duration::ZERO);
        simulation.end(task, Outcome::Deferred(Box::new(first)));
    }
    assert_eq!(simulation.trace(), ["look d.a", "look d.c"]);
    for _ in 0..2 {
        simulation.clock.advance(Duration::from_millis(40));
        let again = for_an_answer(&simulation, 60 * SECOND);
        looked(&mut simulation, Outcome::Deferred(Box::new(again)));
    }
    simulation.advance(60 * SECOND - Duration::from_millis(1));
    assert_eq!(simulation.trace(), [""; 0], "none is early");
    simulation.advance(Duration::from_millis(21));
    assert_eq!(simulation.trace(), ["look d.a", "look d.c"]);
}

fn for_a_file(wait: Wait) -> Wait {
    Wait { awaited: Awaited::File { pattern: "/in/*.csv".into(), settle: 2 * SECOND, shown: None }, ..wait }
}

#[test]
fn a_file_is_looked_for_after_the_commit_and_again_after_a_restart_and_found_once() {
    let mut simulation = waiting(FILE, for_a_file);
    assert_eq!(simulation.trace(), ["watch: waits for /in/*.csv"]);
    assert_eq!(row(&simulation).reason.as_deref(), Some("waits for /in/*.csv"));
    let mut simulation = simulation.crash_and_restart();
    assert_eq!(simulation.trace(), ["watch: waits for /in/*.csv"]);
    let key = row(&simulation).try_key();
    let found = || Verdict::There(serde_json::json!(["/in/a.csv"]));
    simulation.fire(found());
    assert_eq!(simulation.trace(), ["start d.b try 1"], "who has told is not told to forget");
    let sensor = row(&simulation);
    assert_eq!(sensor.state, TaskState::Success);
    let value = simulation.store.xcom(sensor.run, "a", -1, "return_value");
    assert_eq!(value, Some(serde_json::json!(["/in/a.csv"])));
    simulation.turn(Event::Fired { key, verdict: found() });
    assert_eq!(simulation.trace(), [""; 0], "old news");
}

#[test]
fn who_looks_for_a_file_is_told_when_nobody_waits_for_it_any_longer() {
    let mut simulation = waiting(FILE, for_a_file);
    simulation.advance(1_800 * SECOND);
    assert_eq!(simulation.trace(), ["watch: waits for /in/*.csv", "forget"], "the timeout");
    assert_eq!(row(&simulation).state, TaskState::Failed);
    let mut simulation = waiting(FILE, for_a_file);
    simulation.command(clear());
    assert_eq!(simulation.trace(), ["watch: waits for /in/*.csv", "forget", "start d.a try 2"]);
    let mut simulation = waiting(FILE, for_a_file);
    simulation.trace();
    simulation.fire(Verdict::Failed { reason: "no threads left".to_owned() });
    assert_eq!(simulation.trace(), ["start d.a try 2"], "another try may have one");
}

fn clear() -> Command {
    Command::Clear(Clear {
        dag_id: "d".into(),
        tasks: Chosen::All,
        spread: Spread::default(),
        map_index: None,
        runs: RunRange::default(),
        only: Only::default(),
        is_dry: false,
    })
}

#[test]
fn a_clear_and_a_mark_end_a_wait_and_nothing_comes_of_it_later() {
    let mut simulation = waiting(FILE, |wait| wait);
    simulation.command(clear());
    assert_eq!(simulation.trace(), ["start d.a try 2"], "no process had to be ended");
    simulation.advance(600 * SECOND);
    assert_eq!(row(&simulation).state, TaskState::Queued);

    let mut simulation = waiting(FILE, |wait| wait);
    simulation.command(Command::MarkTasks(MarkTasks {
        dag_id: "d".into(),
        tasks: vec!["a".to_owned()],
        spread: Spread::default(),
        map_index: None,
        runs: RunRange::default(),
        state: TaskState::Failed,
    }));
    simulation.advance(600 * SECOND);
    assert_eq!(row(&simulation).state, TaskState::Failed);
    assert_eq!(simulation.run_states()[0].1, RunState::Failed);
}

#[test]
fn what_waits_is_skipped_when_its_run_times_out_and_removed_when_its_task_goes() {
    let text = format!("dagrun_timeout = \"60s\"\n{FILE}");
    let mut simulation = waiting(&text, |wait| wait);
    simulation.advance(60 * SECOND);
    assert_eq!(row(&simulation).state, TaskState::Skipped);
    let mut simulation = waiting(FILE, |wait| wait);
    simulation.save("d.toml", "[tasks.b]\nbash = \"x\"\n");
    assert_eq!(row(&simulation).state, TaskState::Removed);
    assert_eq!(simulation.trace(), ["start d.b try 1"]);
    simulation.advance(600 * SECOND);
    assert_eq!(row(&simulation).state, TaskState::Removed);
}

#[test]
fn a_wait_goes_on_while_its_dag_is_paused_and_nothing_follows_it() {
    let mut simulation = waiting(FILE, |wait| wait);
    simulation.command(Command::SetPaused { dag_id: "d".into(), is_paused: true });
    simulation.advance(600 * SECOND);
    assert_eq!(row(&simulation).state, TaskState::Success);
    assert_eq!(simulation.trace(), [""; 0]);
    simulation.command(Command::SetPaused { dag_id: "d".into(), is_paused: false });
    assert_eq!(simulation.trace(), ["start d.b try 1"]);
}

#[test]
fn a_clock_that_is_set_moves_instants_and_no_timeouts() {
    let mut simulation = waiting(FILE, |wait| wait);
    let to = simulation.clock.now() + 3_600 * SECOND;
    simulation.clock.step_to(to);
    simulation.turn(Event::ClockJumped);
    assert_eq!(simulation.trace(), ["start d.b try 1"]);
    let mut simulation = waiting(FILE, |wait| Wait { timeout: Some(90 * SECOND), ..wait });
    let to = simulation.clock.now() + 60 * SECOND;
    simulation.clock.step_to(to);
    simulation.turn(Event::ClockJumped);
    simulation.advance(60 * SECOND);
    assert_eq!(row(&simulation).state, TaskState::Deferred);
    simulation.advance(30 * SECOND);
    assert_eq!(row(&simulation).state, TaskState::Failed);
}

#[test]
fn a_look_that_was_cut_off_is_made_again_in_the_same_try() {
    for outcome in [Outcome::Lost, Outcome::Killed { reason: "stopped".to_owned() }] {
        let mut simulation = triggered(FILE);
        simulation.started("d.a");
        simulation.end("d.a", outcome);
        assert_eq!(row(&simulation).state, TaskState::Scheduled);
        simulation.advance(SECOND);
        assert_eq!(simulation.trace(), ["start d.a try 1"]);
    }
}
