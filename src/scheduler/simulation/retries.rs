//! Rules for certain failures, and delays that grow.

use super::acts::clear;
use super::tests::trigger;
use super::*;
use crate::model::{Awaited, Pace, SensorMode};

const SECOND: Duration = Duration::from_secs(1);

const RULES: &str = "[tasks.a]\nbash = \"x\"\nretries = 1\nretry_delay = \"60s\"\n\
    retry_on = [{ output = 'timed out', retries = 20, retry_delay = \"5s\" }, { exit_code = 65, retries = 0 }]\n";

fn triggered(text: &str) -> Simulation {
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.command(trigger("d"));
    simulation.trace();
    simulation
}

fn reason(simulation: &Simulation) -> Option<String> {
    simulation.store.instances()[0].reason.clone()
}

/// How long until the loop is woken by the clock that counts suspend.
fn wait(simulation: &Simulation) -> Option<Duration> {
    let at = simulation.calls.0.lock().armed.1?;
    Some(at.since(simulation.clock.boot()))
}

#[test]
fn network_errors_are_tried_many_times_and_bad_data_never() {
    let mut simulation = triggered(RULES);
    for try_number in 2..=12 {
        simulation.end_matching("d.a", Outcome::Exited(1), &["timed out"]);
        assert_eq!(reason(&simulation).as_deref(), Some("rule 1 of retry_on"));
        simulation.advance(4 * SECOND);
        assert!(simulation.trace().is_empty());
        simulation.advance(SECOND);
        assert_eq!(simulation.trace(), [format!("start d.a try {try_number}")]);
    }
    simulation.end("d.a", Outcome::Exited(65));
    assert_eq!(simulation.task_state("a"), TaskState::Failed);
    assert_eq!(reason(&simulation).as_deref(), Some("rule 2 of retry_on"));
    let mut simulation = triggered(RULES);
    simulation.end("d.a", Outcome::Exited(65));
    assert_eq!(simulation.task_state("a"), TaskState::Failed, "though the task has a retry left");
}

#[test]
fn a_task_that_comes_back_is_not_woken_by_the_delay_of_its_try_before() {
    let other = "[tasks.b]\nbash = 'x'\n";
    let both = format!("{other}[tasks.a]\nbash = 'x'\nretries = 1\nretry_delay = '60s'\n");
    let mut simulation = triggered(&both);
    simulation.end("d.a", Outcome::Exited(1));
    simulation.save("d.toml", other);
    assert_eq!(simulation.task_state("a"), TaskState::Removed);
    simulation.save("d.toml", &both);
    assert_eq!(simulation.trace(), ["start d.a try 2"]);
    let now = simulation.clock.now();
    let wait = Wait {
        awaited: Awaited::Instant(now + 300 * SECOND),
        mode: SensorMode::Reschedule,
        since: now,
        timeout: None,
        execution_timeout: None,
        soft_fail: false,
        pace: Pace { poke_interval: SECOND, is_exponential: false, max_wait: None },
    };
    simulation.end("d.a", Outcome::Deferred(Box::new(wait)));
    simulation.advance(299 * SECOND);
    assert_eq!((simulation.trace(), simulation.task_state("a")), (Vec::new(), TaskState::UpForReschedule));
    simulation.advance(SECOND);
    assert_eq!(simulation.task_state("a"), TaskState::Success);
}

#[test]
fn what_no_rule_fits_follows_the_task_and_a_rule_does_not_outlast_its_failure() {
    let mut simulation = triggered(RULES);
    simulation.end("d.a", Outcome::Exited(1));
    simulation.advance(59 * SECOND);
    assert!(simulation.trace().is_empty());
    simulation.advance(SECOND);
    assert_eq!(simulation.trace(), ["start d.a try 2"]);
    simulation.end_matching("d.a", Outcome::Exited(1), &["timed out"]);
    simulation.advance(5 * SECOND);
    assert_eq!(simulation.trace(), ["start d.a try 3"]);
    assert_eq!(simulation.store.instances()[0].retry_delay_override, None, "it belongs to the try that failed");
    simulation.end("d.a", Outcome::Exited(1));
    assert_eq!((simulation.task_state("a"), reason(&simulation)), (TaskState::Failed, None));
}

#[test]
fn a_rule_for_the_timeout_and_one_for_a_signal() {
    let text = "[tasks.a]\nbash = \"x\"\nretry_on = [{ timeout = true, retries = 1, retry_delay = 0 }, \
                { signal = \"SEGV\", retries = 2, retry_delay = 0 }]\n";
    let mut simulation = triggered(text);
    simulation.end("d.a", Outcome::TimedOut);
    assert_eq!(simulation.trace(), ["start d.a try 2"]);
    simulation.end("d.a", Outcome::Signaled(11));
    assert_eq!(simulation.trace(), ["start d.a try 3"]);
    simulation.end("d.a", Outcome::Signaled(11));
    assert_eq!(simulation.task_state("a"), TaskState::Failed);
}

#[test]
fn a_growing_delay_is_the_same_after_a_restart() {
    let text = "[tasks.a]\nbash = \"x\"\nretries = 9\nretry_delay = \"60s\"\nretry_exponential_backoff = true\n\
                max_retry_delay = \"7m\"\n";
    let mut simulation = triggered(text);
    for (try_number, least) in [(1, 60), (2, 120), (3, 240), (4, 420), (5, 420)] {
        simulation.end("d.a", Outcome::Exited(1));
        let before = wait(&simulation).unwrap();
        let least = least * SECOND;
        assert!(least <= before && before <= (2 * least).min(420 * SECOND), "try {try_number}: {before:?}");
        simulation = simulation.crash_and_restart();
        assert_eq!(wait(&simulation), Some(before), "try {try_number}");
        simulation.advance(before);
        assert_eq!(simulation.trace(), [format!("start d.a try {}", try_number + 1)]);
    }
}

#[test]
fn the_delay_of_a_rule_survives_a_restart() {
    let mut simulation = triggered(RULES);
    simulation.end_matching("d.a", Outcome::Exited(1), &["timed out"]);
    simulation.advance(2 * SECOND);
    let mut simulation = simulation.crash_and_restart();
    simulation.advance(2 * SECOND);
    assert!(simulation.trace().is_empty());
    simulation.advance(SECOND);
    assert_eq!(simulation.trace(), ["start d.a try 2"]);
}

#[test]
fn a_saved_file_changes_the_rule_for_the_try_under_way_and_not_the_wait_that_has_begun() {
    let mut simulation = triggered(RULES);
    simulation.end_matching("d.a", Outcome::Exited(1), &["timed out"]);
    simulation.save("d.toml", &RULES.replace("\"5s\"", "\"500s\"").replace("65", "66"));
    simulation.advance(5 * SECOND);
    assert_eq!(simulation.trace(), ["start d.a try 2"]);
    simulation.end_matching("d.a", Outcome::Exited(66), &[]);
    assert_eq!(simulation.task_state("a"), TaskState::Failed);
    let mut simulation = triggered(RULES);
    simulation.save("d.toml", &RULES.replace("timed out", "broken pipe"));
    simulation.end_matching("d.a", Outcome::Exited(1), &["timed out"]);
    assert_eq!(wait(&simulation), Some(60 * SECOND), "a pattern that is gone matches nothing");
}

#[test]
fn a_saved_file_changes_the_retries_of_a_try_under_way() {
    let with = |retries| format!("[tasks.a]\nbash = \"x\"\nretries = {retries}\nretry_delay = 0\n");
    let rule = "retry_on = [{ exit_code = 7, retries = 1 }]\n";
    let mut simulation = triggered(&with(5));
    simulation.save("d.toml", &with(0));
    simulation.end("d.a", Outcome::Exited(1));
    assert_eq!(simulation.task_state("a"), TaskState::Failed);
    let mut simulation = triggered(&with(5));
    simulation.save("d.toml", &(with(0) + rule));
    simulation.end("d.a", Outcome::Exited(7));
    assert_eq!(simulation.trace(), ["start d.a try 2"]);
    simulation.end("d.a", Outcome::Exited(7));
    assert_eq!(simulation.task_state("a"), TaskState::Failed, "the rule counts from nothing, not from five");
}

#[test]
fn the_try_after_one_that_a_save_came_upon_queues_where_the_file_says_and_a_restart_changes_nothing() {
    let text = "[tasks.a]\nbash = 'x'\nretries = 1\nretry_delay = '60s'\n";
    let mut simulation = triggered(text);
    simulation.save("d.toml", &format!("{text}pool = 'narrow'\n"));
    let pool = |simulation: &Simulation| simulation.store.instances()[0].pool.to_string();
    assert_eq!(pool(&simulation), "default_pool");
    simulation.end("d.a", Outcome::Exited(1));
    assert_eq!((simulation.task_state("a"), &*pool(&simulation)), (TaskState::UpForRetry, "narrow"));
    let before = simulation.store.instances();
    let simulation = simulation.crash_and_restart();
    assert_eq!(simulation.store.instances(), before);
}

#[test]
fn what_waits_tells_what_for_when_a_save_has_moved_it_to_another_pool() {
    let text = "[tasks.a]\nsensor = { time_delta = '1h' }\n";
    let mut simulation = triggered(text);
    let now = simulation.clock.now();
    let wait = Wait {
        awaited: Awaited::Instant(now + 300 * SECOND),
        mode: SensorMode::Poke,
        since: now,
        timeout: None,
        execution_timeout: None,
        soft_fail: false,
        pace: Pace { poke_interval: SECOND, is_exponential: false, max_wait: None },
    };
    let words = wait.words();
    simulation.end("d.a", Outcome::Deferred(Box::new(wait)));
    assert_eq!(reason(&simulation), Some(words.clone()));
    simulation.save("d.toml", &format!("{text}pool = 'narrow'\n"));
    assert_eq!(&*simulation.store.instances()[0].pool, "narrow");
    assert_eq!(reason(&simulation), Some(words));
}

#[test]
fn what_is_cleared_is_weighed_by_its_path_as_before_and_keeps_its_weight_over_a_restart() {
    let text = "[default_args]\nweight_rule = 'critical_path'\n[tasks.a]\nbash = 'x'\n[tasks.b]\nbash = 'x'\ndepends_on = ['a']\n";
    let mut simulation = triggered(text);
    let weight = |simulation: &Simulation| simulation.store.instances()[0].priority_weight;
    assert_eq!(weight(&simulation), 20, "twice what is guessed");
    simulation.cleared(clear("d", &["a"]));
    simulation.end("d.a", Outcome::Signaled(15));
    assert_eq!((simulation.task_state("a"), weight(&simulation)), (TaskState::Queued, 20));
    simulation.cleared(clear("d", &["a"]));
    assert_eq!(simulation.task_state("a"), TaskState::Restarting);
    let simulation = simulation.crash_and_restart();
    assert_eq!((simulation.task_state("a"), weight(&simulation)), (TaskState::Restarting, 20));
}
