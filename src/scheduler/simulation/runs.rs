//! Runs over time: downtime, pauses, clocks that are set, schedules that change, and tasks that depend on the past.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Map;

use super::Simulation;
use super::tests::trigger;
use crate::clock::Clock;
use crate::model::{RunState, TaskState};
use crate::scheduler::Event;
use crate::scheduler::command::{Asker, Command, LogicalDate, Stop, Trigger};
use crate::scheduler::event::{Outcome, TryEnd};
use crate::scheduler::past::PastBlock;
use crate::scheduler::reason::{Reason, RunReason};

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// Nothing to run, so that each run ends in the turn that creates it.
fn hourly(catchup: &str) -> String {
    format!(
        "schedule = \"0 * * * *\"\nstart_date = 2026-11-21T10:00:00\ncatchup = {catchup}\n[tasks.a]\nempty = true\n"
    )
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

impl Simulation {
    /// The hours (and days, from the 22nd on) of the logical dates of all runs, in the order of their creation.
    fn hours(&self) -> Vec<String> {
        let first = at("2026-11-21T00:00:00Z");
        let dates = self.store.runs().into_iter().filter_map(|run| run.logical_date);
        dates.map(|date| date.duration_since(first).as_hours().to_string()).collect()
    }

    fn pause(&mut self, is_paused: bool) {
        self.command(Command::SetPaused { dag_id: "d".into(), is_paused });
    }

    /// The host sleeps: both clocks go on, and the timer comes late.
    fn sleep(&mut self, by: Duration) {
        self.clock.advance(by);
        self.turn(Event::Tick);
    }

    fn set_clock(&mut self, to: &str) {
        self.clock.step_to(at(to));
        self.turn(Event::ClockJumped);
    }

    fn trigger_at(&mut self, date: &str) {
        self.command(Command::Trigger(Trigger {
            dag_id: "d".into(),
            run_id: Some(format!("at_{}", &date[8..13]).as_str().into()),
            logical_date: LogicalDate::At(at(date)),
            data_interval: None,
            conf: Map::new(),
            unpause: false,
        }));
    }

    fn lags(&self) -> Vec<Option<Duration>> {
        self.store.runs().into_iter().map(|run| run.lag).collect()
    }
}

#[test]
fn after_a_sleep_each_catchup_rule_creates_exactly_what_it_names() {
    for (catchup, expected) in
        [("\"all\"", "10 11 12 13 14 15 16 17 18"), ("\"latest\"", "18"), ("\"window:3h\"", "10 11 12 16 17 18")]
    {
        let mut simulation = Simulation::with(&[("d.toml", &hourly(catchup))]);
        simulation.sleep(6 * HOUR);
        assert_eq!(simulation.hours().join(" "), expected, "{catchup}");
    }
}

#[test]
fn after_a_downtime_each_catchup_rule_creates_exactly_what_it_names() {
    for (catchup, expected) in
        [("\"all\"", "10 11 12 13 14 15 16"), ("\"latest\"", "13 16"), ("\"window:90m\"", "11 12 13 15 16")]
    {
        let mut simulation = Simulation::with(&[("d.toml", &hourly(catchup))]);
        simulation.advance(HOUR);
        simulation.clock.advance(3 * HOUR);
        let simulation = simulation.crash_and_restart();
        assert_eq!(simulation.hours().join(" "), expected, "{catchup}");
    }
}

#[test]
fn an_unpaused_dag_skips_what_its_catchup_rule_does_not_want() {
    for (catchup, expected) in [("true", "10 11 12 13 14 15 16 17"), ("false", "17")] {
        let mut simulation = Simulation::with(&[("d.toml", &hourly(catchup))]);
        simulation.pause(true);
        simulation.advance(5 * HOUR);
        simulation.pause(false);
        assert_eq!(simulation.hours().join(" "), expected, "{catchup}");
    }
}

#[test]
fn a_dag_held_back_by_its_limit_goes_on_with_the_newest_run() {
    let text = "schedule = \"0 * * * *\"\nmax_active_runs = 1\n[tasks.a]\nbash = \"sleep 4h\"\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.advance(4 * HOUR + 40 * MINUTE);
    simulation.succeed("d.a");
    assert_eq!(simulation.hours(), ["13", "17"]);
}

#[test]
fn a_long_absence_is_made_up_for_turn_by_turn_each_date_once_within_the_limit() {
    let text = "schedule = \"*/10 * * * *\"\nstart_date = 2026-11-01\ncatchup = true\nmax_active_runs = 2\n[tasks.a]\nempty = true\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    while simulation.scheduler.world().has_more() {
        simulation.turn(Event::Tick);
    }
    let runs = simulation.store.runs();
    assert_eq!(runs.len(), 20 * 144 + 12 * 6 + 4);
    assert!(runs.windows(2).all(|pair| pair[0].logical_date < pair[1].logical_date));
    let largest = simulation.store.commits().iter().map(crate::scheduler::Changes::rows).max();
    assert!(largest < Some(6_000), "a turn wrote {largest:?} rows");
}

#[test]
fn a_clock_that_is_set_back_makes_no_date_twice_and_one_set_forward_makes_what_the_rule_names() {
    for (catchup, expected) in [("true", "10 11 12 13 14 15 16 17 18"), ("false", "13 16 17 18")] {
        let mut simulation = Simulation::with(&[("d.toml", &hourly(catchup))]);
        simulation.advance(HOUR);
        simulation.set_clock("2026-11-21T09:10:00Z");
        simulation.advance(5 * HOUR);
        simulation.set_clock("2026-11-21T16:20:00Z");
        simulation.advance(2 * HOUR);
        assert_eq!(
            simulation.hours().join(" "),
            if catchup == "true" { expected } else { "13 14 16 17 18" },
            "{catchup}"
        );
    }
}

#[test]
fn a_dag_that_was_first_seen_by_a_clock_that_ran_ahead_runs_when_the_clock_is_right() {
    let mut simulation = Simulation::with(&[]);
    simulation.set_clock("2031-01-01T00:00:00Z");
    simulation.save("d.toml", "schedule = \"0 3 * * *\"\n[tasks.a]\nempty = true\n");
    simulation.set_clock("2026-11-21T12:30:00Z");
    simulation.advance(15 * HOUR);
    assert_eq!(simulation.hours(), ["27"]);
}

#[test]
fn continuous_runs_follow_each_other_and_those_that_end_at_once_come_one_a_second() {
    let mut simulation = Simulation::with(&[(
        "d.toml",
        "schedule = \"@continuous\"\nmax_active_runs = 1\n[tasks.a]\nbash = \"true\"\n",
    )]);
    assert_eq!(simulation.trace(), ["start d.a try 1"]);
    simulation.advance(10 * SECOND);
    assert_eq!(simulation.store.runs().len(), 1);
    simulation.succeed("d.a");
    // The interval from the first run's end, which is its start, has the first run's date: Airflow goes over it as well.
    simulation.advance(SECOND);
    assert_eq!(simulation.trace(), ["start d.a try 1"]);
    simulation.advance(10 * SECOND);
    simulation.succeed("d.a");
    assert_eq!(simulation.trace(), ["start d.a try 1"]);
    let runs = simulation.store.runs();
    let intervals: Vec<_> = runs.iter().filter_map(|run| run.data_interval).collect();
    assert_eq!(intervals[1].end, intervals[2].start);
    assert_eq!(intervals[2].end, simulation.clock.now());

    let mut simulation =
        Simulation::with(&[("d.toml", "schedule = \"@continuous\"\nmax_active_runs = 1\n[tasks.a]\nempty = true\n")]);
    simulation.advance(10 * SECOND);
    let created = simulation.store.runs().len();
    assert!((10..=12).contains(&created), "{created} runs in ten seconds");
}

#[test]
fn a_schedule_that_changes_makes_no_date_twice_and_goes_on_from_its_last_run() {
    let day = |schedule: &str| format!("{schedule}\n[tasks.a]\nempty = true\n");
    let mut simulation = Simulation::with(&[("d.toml", &day("schedule = \"0 * * * *\""))]);
    simulation.advance(2 * HOUR);
    // An interval is named by its start.
    simulation.save("d.toml", &day("schedule = \"0 * * * *\"\ndata_interval = true"));
    simulation.advance(2 * HOUR);
    simulation.save("d.toml", &day("schedule = { every = \"1h\" }"));
    simulation.advance(2 * HOUR);
    simulation.save("d.toml", &day(""));
    simulation.advance(4 * HOUR);
    simulation.save("d.toml", &day("schedule = \"0 * * * *\""));
    simulation.advance(HOUR);
    let dates: Vec<Timestamp> = simulation.store.runs().into_iter().filter_map(|run| run.logical_date).collect();
    assert!(dates.windows(2).all(|pair| pair[0] < pair[1]), "{dates:?}");
    assert_eq!(simulation.hours().join(" "), "13 14 15 17 18 22 23");
}

#[test]
fn catchup_that_is_switched_on_makes_up_for_what_lies_after_the_last_run_and_no_start_date_moved_back_does_more() {
    let mut simulation = Simulation::with(&[("d.toml", &hourly("false"))]);
    simulation.advance(HOUR);
    simulation.pause(true);
    simulation.advance(3 * HOUR);
    simulation.save("d.toml", &hourly("true").replace("T10:00:00", "T05:00:00"));
    simulation.pause(false);
    assert_eq!(simulation.hours().join(" "), "13 14 15 16");
}

#[test]
fn a_date_that_was_run_by_hand_is_not_run_again_by_the_schedule() {
    let mut simulation = Simulation::with(&[("d.toml", &hourly("true"))]);
    simulation.trigger_at("2026-11-21T14:00:00Z");
    simulation.advance(3 * HOUR);
    assert_eq!(simulation.hours().join(" "), "10 11 12 14 13 15");
}

#[test]
fn a_run_has_no_instance_of_a_task_whose_dates_it_lies_outside_and_gets_one_when_the_dates_move() {
    let text = "schedule = \"0 * * * *\"\n[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\nstart_date = 2026-11-21T14:00:00\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.advance(5 * HOUR);
    let tasks: Vec<String> = simulation.store.instances().iter().map(|row| row.task_id.to_string()).collect();
    assert_eq!(tasks.iter().filter(|task| *task == "a").count(), tasks.iter().filter(|task| *task == "b").count());
    assert_eq!(simulation.hours()[0], "14", "the first date of all tasks bounds the runs");
}

#[test]
fn so_many_failures_in_a_row_pause_the_dag_and_say_so() {
    let text = "schedule = \"0 * * * *\"\nmax_consecutive_failed_dag_runs = 2\n[tasks.a]\nbash = \"false\"\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    for _ in 0..2 {
        simulation.advance(HOUR);
        assert!(!simulation.store.dag("d").unwrap().is_paused);
        simulation.end("d.a", Outcome::Exited(1));
    }
    let record = simulation.store.dag("d").unwrap();
    assert_eq!((record.is_paused, record.pause_reason.as_deref()), (true, Some("the last 2 runs failed")));
    let audit = simulation.store.audit();
    assert_eq!((audit.last().unwrap().event, audit.last().unwrap().owner.as_str()), ("pause", "minflow"));
    simulation.command(trigger("d"));
    let waiting = simulation.store.runs().pop().unwrap();
    let reason = simulation.scheduler.world().why_not_running(&"d".into(), &waiting.run_id, "a");
    assert_eq!(reason, Some(Reason::Run(RunReason::DagPausedByFailures { failed_runs: 2 })));
    simulation.advance(5 * HOUR);
    assert_eq!(simulation.store.runs().len(), 3);
    simulation.pause(false);
    assert_eq!(simulation.store.dag("d").unwrap().pause_reason, None);
}

#[test]
fn failures_pause_the_dag_while_minflow_stops_too() {
    let text = "schedule = \"0 * * * *\"\nmax_consecutive_failed_dag_runs = 1\n[tasks.a]\nbash = \"false\"\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.advance(HOUR);
    simulation.command(Command::Stop { how: Stop::Drain, by: Asker::Signal });
    simulation.end("d.a", Outcome::Exited(1));
    let simulation = simulation.crash_and_restart();
    assert!(simulation.store.dag("d").unwrap().is_paused);
}

#[test]
fn a_success_between_failures_lets_the_dag_go_on() {
    let text = "schedule = \"0 * * * *\"\nmax_consecutive_failed_dag_runs = 2\n[tasks.a]\nbash = \"false\"\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    for code in [1, 0, 1, 0] {
        simulation.advance(HOUR);
        simulation.end("d.a", Outcome::Exited(code));
    }
    assert!(!simulation.store.dag("d").unwrap().is_paused);
}

const PAST: &str = "schedule = \"0 * * * *\"\nstart_date = 2026-11-21T10:00:00\ncatchup = true\n\
                    [tasks.a]\nbash = \"true\"\ndepends_on_past = true\n[tasks.b]\nbash = \"true\"\ndepends_on = [\"a\"]\n";

#[test]
fn tasks_that_depend_on_the_past_run_in_the_order_of_their_dates() {
    let mut simulation = Simulation::with(&[("d.toml", PAST)]);
    let mut dates = Vec::new();
    for _ in 0..3 {
        assert_eq!(simulation.trace().iter().filter(|line| line.starts_with("start d.a")).count(), 1);
        let rows = simulation.store.instances();
        let queued = rows.iter().find(|row| &*row.task_id == "a" && row.state == TaskState::Queued).unwrap();
        dates.push(queued.run);
        simulation.succeed("d.a");
    }
    assert!(dates.windows(2).all(|pair| pair[0] < pair[1]), "{dates:?}");
}

#[test]
fn a_failure_blocks_the_next_run_even_over_a_restart_and_says_why() {
    let text = PAST.replace("catchup = true", "catchup = false");
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    simulation.advance(HOUR);
    simulation.end("d.a", Outcome::Exited(1));
    assert_eq!(simulation.run_states()[0].1, RunState::Failed);
    simulation.advance(HOUR);
    let mut simulation = simulation.crash_and_restart();
    simulation.advance(MINUTE);
    let run_id = "scheduled__2026-11-21T14:00:00+00:00";
    let reason = simulation.scheduler.world().why_not_running(&"d".into(), &run_id.into(), "a");
    let before = "scheduled__2026-11-21T13:00:00+00:00".into();
    assert_eq!(reason, Some(Reason::Past(PastBlock::Instance { run_id: before, state: TaskState::Failed })));
    assert_eq!(simulation.run_states()[1].1, RunState::Running, "what waits for another run is no deadlock");
    assert!(simulation.trace().is_empty());
}

#[test]
fn wait_for_downstream_waits_for_the_tasks_right_after_too() {
    let text = PAST.replace("depends_on_past = true", "wait_for_downstream = true");
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    assert_eq!(simulation.trace(), ["start d.a try 1"]);
    simulation.succeed("d.a");
    assert_eq!(simulation.trace(), ["start d.b try 1"]);
    simulation.succeed("d.b");
    assert_eq!(simulation.trace(), ["start d.a try 1"]);
}

#[test]
fn a_run_that_comes_between_is_waited_for() {
    let text = PAST.replace("catchup = true", "catchup = false\nmax_active_runs = 3");
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    simulation.advance(HOUR + 31 * MINUTE);
    assert_eq!(simulation.hours(), ["13", "14"]);
    simulation.trace();
    // The later run waits for that of 13 o'clock, until another comes between, which waits for that in its place.
    let later = simulation.store.runs()[1].run_id.clone();
    let reason = |simulation: &Simulation| simulation.scheduler.world().why_not_running(&"d".into(), &later, "a");
    let blocked_by = |run_id: &str, state| Some(Reason::Past(PastBlock::Instance { run_id: run_id.into(), state }));
    assert_eq!(reason(&simulation), blocked_by("scheduled__2026-11-21T13:00:00+00:00", TaskState::Queued));
    simulation.trigger_at("2026-11-21T13:30:00Z");
    assert_eq!(reason(&simulation), blocked_by("at_21T13", TaskState::None));
    simulation.succeed("d.a");
    assert_eq!(simulation.trace(), ["start d.b try 1", "start d.a try 1"]);
    simulation.succeed("d.a");
    assert_eq!(reason(&simulation), None, "its own is queued");
}

#[test]
fn a_skip_is_withheld_until_the_past_allows_it_if_the_task_says_so() {
    let text = "schedule = \"0 * * * *\"\nmax_active_runs = 2\n[tasks.gate]\nbash = \"exit 99\"\n[tasks.a]\nbash = \"true\"\ndepends_on = [\"gate\"]\n\
                depends_on_past = true\nwait_for_past_depends_before_skipping = true\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.advance(HOUR);
    simulation.succeed("d.gate");
    simulation.advance(HOUR);
    simulation.end("d.gate", Outcome::Exited(99));
    assert_eq!(simulation.task_state("a"), TaskState::None, "its own instance of the run before still runs");
    simulation.succeed("d.a");
    assert_eq!(simulation.task_state("a"), TaskState::Skipped);
}

#[test]
fn the_lag_of_a_run_is_kept_and_only_prompt_runs_count_in_the_figure() {
    let text =
        "schedule = \"0 * * * *\"\nstart_date = 2026-11-21T11:00:00\ncatchup = true\n[tasks.a]\nbash = \"true\"\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.succeed("d.a");
    simulation.succeed("d.a");
    assert_eq!(simulation.lags(), [Some(90 * MINUTE), Some(30 * MINUTE)]);
    assert_eq!(simulation.scheduler.world.gauges().schedule_lag.p99_ms, None, "both were made up for");
    simulation.advance(30 * MINUTE);
    simulation.clock.advance(Duration::from_millis(40));
    simulation.succeed("d.a");
    assert_eq!(simulation.lags()[2], Some(Duration::from_millis(40)));
    assert_eq!(simulation.scheduler.world.gauges().schedule_lag.p99_ms, Some(40.0));
}

#[test]
fn a_try_that_failed_before_it_began_gives_its_run_no_lag_by_a_restart_either() {
    let text = "schedule = \"0 * * * *\"\n[tasks.a]\nbash = \"true\"\nretries = 1\nretry_delay = \"10m\"\n";
    for restarts in [false, true] {
        let mut simulation = Simulation::with(&[("d.toml", text)]);
        simulation.advance(30 * MINUTE);
        let outcome = Outcome::Faulted { reason: "its template names what is not there".to_owned() };
        let end = TryEnd::new(simulation.key("d.a"), outcome, simulation.clock.now());
        simulation.turn(Event::Ended(Box::new(end)));
        assert_eq!(simulation.task_state("a"), TaskState::UpForRetry);
        if restarts {
            simulation = simulation.crash_and_restart();
        }
        simulation.advance(10 * MINUTE);
        simulation.succeed("d.a");
        assert_eq!(simulation.lags().last(), Some(&Some(10 * MINUTE)), "restarts: {restarts}");
    }
}
