//! Deadlines and expectations: when they are missed, that each is missed once, and that none is lost over a downtime.

use std::time::Duration;

use super::*;
use crate::model::DagRun;
use crate::scheduler::command::{Clear, RunRange};

const HOUR: Duration = Duration::from_secs(3_600);

fn hours(count: u32) -> Duration {
    HOUR * count
}

impl Simulation {
    /// The callbacks that were begun since the last look, by hook, with what they say of the reason.
    fn missed(&mut self) -> Vec<String> {
        self.trace();
        let rows = self.store.callbacks();
        let said = rows.iter().map(|row| format!("{}: {}", row.hook, row.occasion.exception.as_deref().unwrap_or("-")));
        said.collect()
    }

    fn trigger_now(&mut self) -> DagRun {
        let trigger = crate::scheduler::command::Trigger {
            dag_id: "d".into(),
            run_id: None,
            logical_date: crate::scheduler::command::LogicalDate::RunAfter,
            data_interval: None,
            conf: serde_json::Map::new(),
            unpause: false,
        };
        self.command(Command::Trigger(trigger)).try_recv().unwrap().unwrap();
        self.store.runs().pop().unwrap()
    }
}

#[test]
fn a_deadline_passes_once_and_a_success_in_time_takes_it_away() {
    let text = "deadlines = [{ reference = 'queued_at', interval = '1h', callback = { bash = 'x' } }, { reference = 2026-11-21T14:00:00Z }]\n\
                on_failure = [{ bash = 'y' }]\n[tasks.t]\nbash = 'x'";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.trigger_now();
    assert_eq!(simulation.store.deadlines().len(), 2);
    simulation.started("d.t");
    simulation.advance(HOUR);
    assert_eq!(simulation.missed(), [""; 0], "at the instant itself the run is in time");
    simulation.advance(Duration::from_secs(1));
    assert_eq!(simulation.missed(), ["deadline: the run is still running"]);
    simulation.end("d.t", Outcome::Exited(0));
    let rows = simulation.store.deadlines();
    assert_eq!(rows.len(), 1, "the other was met: {rows:?}");
    assert!(rows[0].missed_at.is_some());
    let mut simulation = simulation.crash_and_restart();
    simulation.advance(hours(3));
    assert_eq!(simulation.missed().len(), 1);
}

#[test]
fn a_deadline_that_passes_while_minflow_is_down_is_missed_at_the_next_start() {
    let text = "deadlines = [{ reference = 'logical_date', interval = '1h' }]\non_failure = [{ bash = 'y' }]\n[tasks.t]\nbash = 'x'";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.trigger_now();
    simulation.clock.advance(hours(2));
    let mut simulation = simulation.crash_and_restart();
    assert_eq!(simulation.missed(), ["deadline: the run is still running"]);
}

#[test]
fn a_clear_counts_anew_from_its_own_instant_and_a_failed_run_misses_its_deadline_all_the_same() {
    let text = "deadlines = [{ reference = 'queued_at', interval = '2h' }]\n[tasks.t]\nbash = 'x'";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    let run = simulation.trigger_now();
    simulation.started("d.t");
    simulation.end("d.t", Outcome::Exited(1));
    let before = simulation.store.deadlines()[0].at;
    simulation.advance(HOUR);
    let runs = RunRange { run_id: Some(run.run_id), ..RunRange::default() };
    simulation.cleared(Clear { runs, ..super::acts::clear("d", &["t"]) });
    let after = simulation.store.deadlines()[0].clone();
    assert_eq!(after.at.duration_since(before), jiff::SignedDuration::from_hours(1));
    simulation.started("d.t");
    simulation.end("d.t", Outcome::Exited(1));
    simulation.advance(hours(3));
    assert!(simulation.store.deadlines()[0].missed_at.is_some());
}

#[test]
fn a_run_keeps_the_deadline_that_has_left_its_file_and_then_calls_on_failure() {
    let rest = "on_failure = [{ bash = 'y' }]\n[tasks.t]\nbash = 'x'";
    let text =
        format!("deadlines = [{{ reference = 'queued_at', interval = '1h', callback = {{ bash = 'own' }} }}]\n{rest}");
    for (now_says, called) in [(text.replace("own", "new"), "new"), (rest.to_owned(), "y")] {
        let mut simulation = Simulation::with(&[("d.toml", &text)]);
        simulation.trigger_now();
        simulation.save("d.toml", &now_says);
        simulation.trigger_now();
        assert_eq!(simulation.store.deadlines().len(), if called == "new" { 2 } else { 1 });
        simulation.advance(HOUR + Duration::from_secs(1));
        let rows = simulation.store.callbacks();
        assert!(!rows.is_empty() && rows.iter().all(|row| format!("{:?}", row.callback).contains(called)), "{rows:?}");
    }
}

#[test]
fn the_mean_of_earlier_runs_is_a_deadline_only_when_there_are_enough_of_them() {
    let text = "deadlines = [{ reference = 'average_runtime', interval = '1m', max_runs = 2 }]\n[tasks.t]\nbash = 'x'";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    for minutes in [10_u64, 20] {
        simulation.trigger_now();
        assert!(simulation.store.deadlines().is_empty());
        simulation.started("d.t");
        simulation.advance(Duration::from_secs(minutes * 60));
        simulation.end("d.t", Outcome::Exited(0));
    }
    let run = simulation.trigger_now();
    let at = simulation.store.deadlines()[0].at;
    assert_eq!(at.duration_since(run.queued_at.unwrap()), jiff::SignedDuration::from_mins(16));
}

const DAILY: &str = "schedule = '0 3 * * *'\nexpect_by = '06:30'\non_failure = [{ bash = 'y' }]\n[tasks.t]\nbash = 'x'";

#[test]
fn a_day_without_a_success_in_time_is_said_once() {
    let mut simulation = Simulation::with(&[("d.toml", DAILY)]);
    simulation.advance(hours(15));
    simulation.succeed("d.t");
    simulation.advance(hours(9));
    assert_eq!(simulation.missed(), [""; 0], "the run of 03:00 has succeeded");
    simulation.advance(hours(24));
    let run = "scheduled__2026-11-23T03:00:00+00:00";
    assert_eq!(simulation.missed(), [format!("expect_by: run {run} is still running")]);
}

#[test]
fn days_that_pass_while_minflow_is_down_are_said_together_when_it_starts() {
    let mut simulation = Simulation::with(&[("d.toml", DAILY)]);
    simulation.clock.advance(hours(24 * 5));
    simulation = simulation.crash_and_restart();
    assert_eq!(simulation.missed().len(), 1);
    let expected = simulation.store.callbacks()[0].occasion.deadline.unwrap().to_string();
    assert_eq!(expected, "2026-11-26T06:30:00Z");
    let mut simulation = simulation.crash_and_restart();
    simulation.advance(HOUR);
    assert_eq!(simulation.missed().len(), 1);
}

#[test]
fn no_run_is_expected_on_a_day_without_one_or_of_a_dag_that_a_user_has_paused() {
    let weekly = DAILY.replace("0 3 * * *", "0 3 * * 1");
    let mut simulation = Simulation::with(&[("d.toml", &weekly)]);
    // The 21st is a Saturday.
    simulation.advance(hours(24));
    assert_eq!(simulation.missed(), [""; 0]);
    simulation.advance(hours(24));
    assert_eq!(simulation.missed().len(), 1, "the run of Monday has not ended");
    let mut simulation = Simulation::with(&[("d.toml", DAILY)]);
    simulation.command(Command::SetPaused { dag_id: "d".into(), is_paused: true }).try_recv().unwrap().unwrap();
    simulation.advance(hours(48));
    assert_eq!(simulation.missed(), [""; 0]);
}

#[test]
fn a_dag_without_a_schedule_is_expected_on_each_day() {
    let text = DAILY.replace("schedule = '0 3 * * *'\n", "");
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    simulation.advance(hours(20));
    assert_eq!(simulation.missed(), ["expect_by: no run of the day has begun"]);
}
