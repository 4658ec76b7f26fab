//! Callbacks: who is called at which end, how often, and that none is lost.

use std::time::Duration;

use super::*;
use crate::model::{CallbackState, TryKey};
use crate::scheduler::event::{CallEnd, CallOutcome};

const ALL: &str = r#"
on_success = [{ bash = "dag well" }]
on_failure = [{ bash = "dag ill" }]
[default_args]
on_execute = [{ bash = "begun" }]
on_success = [{ bash = "well" }]
on_failure = [{ bash = "ill" }, { bash = "ill, too" }]
on_retry = [{ bash = "again" }]
on_skipped = [{ bash = "skipped" }]
"#;

fn with_tasks(tasks: &str) -> String {
    format!("{ALL}\n{tasks}")
}

impl Simulation {
    /// What has been called since the last look; each callback is done at once.
    fn called(&mut self) -> Vec<String> {
        let mut called = Vec::new();
        loop {
            let new: Vec<String> =
                self.trace().into_iter().filter_map(|line| Some(line.strip_prefix("call ")?.to_owned())).collect();
            if new.is_empty() {
                return called;
            }
            called.extend(new);
            let keys: Vec<TryKey> =
                self.calls.0.lock().names.keys().copied().filter(|key| key.instance.0 < 0).collect();
            for key in keys {
                self.call_ended(key, CallOutcome::Done);
            }
        }
    }

    fn call_ended(&mut self, key: TryKey, outcome: CallOutcome) {
        let end = CallEnd { key, outcome, ended_at: self.clock.now() };
        self.turn(Event::Called(Box::new(end)));
    }

    fn run_once(&mut self) {
        self.advance(Duration::from_secs(1));
        let trigger = crate::scheduler::command::Trigger {
            dag_id: "d".into(),
            run_id: None,
            logical_date: crate::scheduler::command::LogicalDate::RunAfter,
            data_interval: None,
            conf: serde_json::Map::new(),
            unpause: false,
        };
        self.command(Command::Trigger(trigger)).try_recv().unwrap().unwrap();
    }
}

#[test]
fn each_end_of_a_try_calls_whom_its_task_names_for_it() {
    let text = with_tasks("[tasks.t]\nbash = 'x'\nretries = 1\nretry_delay = 1");
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    simulation.run_once();
    simulation.started("d.t");
    assert_eq!(simulation.called(), ["on_execute 1 d.t try 1"]);
    simulation.end("d.t", Outcome::Exited(1));
    assert_eq!(simulation.called(), ["on_retry 1 d.t try 1"]);
    simulation.advance(Duration::from_secs(1));
    simulation.started("d.t");
    simulation.end("d.t", Outcome::Exited(1));
    let expected =
        ["on_execute 1 d.t try 1", "on_failure 1 d.t try 1", "on_failure 2 d.t try 1", "on_failure 1 d.t try 1"];
    assert_eq!(simulation.called(), expected, "the last is the DAG's");
    simulation.run_once();
    simulation.succeed("d.t");
    assert_eq!(simulation.called(), ["on_execute 1 d.t try 1", "on_success 1 d.t try 1", "on_success 1 d.t try 1"]);
    simulation.run_once();
    simulation.started("d.t");
    simulation.end("d.t", Outcome::Exited(99));
    assert_eq!(simulation.called(), ["on_execute 1 d.t try 1", "on_skipped 1 d.t try 1", "on_success 1 d.t try 1"]);
}

#[test]
fn a_try_that_begins_again_calls_nobody_for_its_beginning() {
    let text = with_tasks("[tasks.t]\nsensor = { file = '/in/*' }");
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    simulation.run_once();
    // Its worker had no process for it: it has not begun.
    let (key, now) = (simulation.key("d.t"), simulation.clock.now());
    let outcome = Outcome::Unstarted { reason: "no processes left".to_owned() };
    simulation.turn(Event::Ended(Box::new(TryEnd::new(key, outcome, now))));
    assert!(simulation.called().is_empty());
    simulation.advance(Duration::from_secs(1));
    simulation.started("d.t");
    assert_eq!(simulation.called(), ["on_execute 1 d.t try 1"]);
    for _ in 0..2 {
        // Its first look is cut off, whether the news of its start came before that or not.
        simulation.end("d.t", Outcome::Lost);
        assert_eq!(simulation.task_state("t"), TaskState::Scheduled);
        simulation = simulation.crash_and_restart();
        simulation.advance(Duration::from_secs(1));
        assert!(simulation.called().is_empty());
    }
    simulation.started("d.t");
    let began_at = simulation.store.instances()[0].start_date;
    assert_eq!(began_at, Some(simulation.clock.now()), "the look that is not cut off counts");
    simulation.end("d.t", Outcome::Exited(1));
    assert_eq!(simulation.called(), ["on_failure 1 d.t try 1", "on_failure 2 d.t try 1", "on_failure 1 d.t try 1"]);
}

#[test]
fn who_never_ran_calls_nobody() {
    let text = with_tasks(
        "[tasks.a]\nbash = 'x'\n[tasks.b]\nbash = 'x'\ndepends_on = ['a']\n[tasks.c]\nbash = 'x'\ntrigger_rule = 'all_failed'\non_skipped = [{ bash = 'by a rule' }]\ndepends_on = ['a', 'b']",
    );
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    simulation.run_once();
    simulation.end("d.a", Outcome::Faulted { reason: "no such template".to_owned() });
    let called = simulation.called();
    assert!(called.iter().all(|name| !name.contains("d.b")), "{called:?}");
    let rows = simulation.store.callbacks();
    assert_eq!(rows[1].occasion.reason.as_deref(), Some("no such template"));
}

#[test]
fn a_callback_that_a_crash_cuts_off_is_looked_for_made_again_if_nobody_knows_it_and_no_other() {
    let text = with_tasks("[tasks.t]\nbash = 'x'");
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    simulation.run_once();
    simulation.succeed("d.t");
    let key = simulation.key("on_execute 1 d.t");
    simulation.call_ended(key, CallOutcome::Done);
    simulation.trace();
    let mut simulation = simulation.crash_and_restart();
    assert_eq!(simulation.trace(), ["reclaim on_success 1 d.t try 1", "reclaim on_success 1 d.t try 1"]);
    let keys: Vec<TryKey> = simulation.calls.0.lock().names.keys().copied().filter(|key| key.instance.0 < 0).collect();
    let [adopted, lost] = keys[..] else { panic!("{keys:?}") };
    simulation.call_ended(adopted, CallOutcome::Done);
    simulation.call_ended(lost, CallOutcome::CutOff { reason: crate::scheduler::LOST.to_owned() });
    simulation.advance(Duration::ZERO);
    assert_eq!(simulation.called(), ["on_success 1 d.t try 2"]);
    assert!(simulation.store.callbacks().iter().all(|row| row.state == CallbackState::Success));
    let mut simulation = simulation.crash_and_restart();
    assert!(simulation.called().is_empty());
}

#[test]
fn a_failing_callback_is_tried_three_times_and_changes_nothing_else() {
    let text = "on_failure = [{ bash = 'no mailer' }]\n[tasks.t]\nbash = 'x'";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.run_once();
    simulation.started("d.t");
    simulation.end("d.t", Outcome::Exited(1));
    for delay in [10, 60, 600] {
        let key = simulation.key("on_failure 1 d.t");
        simulation.call_ended(key, CallOutcome::Failed { reason: "refused".to_owned() });
        simulation.advance(Duration::from_secs(delay));
    }
    let calls: Vec<String> = simulation.trace().into_iter().filter(|line| line.starts_with("call")).collect();
    let call = |number| format!("call on_failure 1 d.t try {number}");
    assert_eq!(calls, [call(1), call(2), call(3)]);
    let row = &simulation.store.callbacks()[0];
    assert_eq!((row.state, row.failures, row.reason.as_deref()), (CallbackState::Failed, 3, Some("refused")));
    assert_eq!(simulation.task_state("t"), TaskState::Failed);
}

#[test]
fn a_restart_does_not_shorten_the_pause_before_a_callback_is_made_again() {
    let text = "on_failure = [{ bash = 'no mailer' }]\n[tasks.t]\nbash = 'x'";
    let cut_off = |reason: &str| CallOutcome::CutOff { reason: reason.to_owned() };
    let failed = || CallOutcome::Failed { reason: "refused".to_owned() };
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.run_once();
    simulation.started("d.t");
    simulation.end("d.t", Outcome::Exited(1));
    let steps = [(cut_off("no processes"), 5), (failed(), 10), (cut_off("no processes"), 10), (failed(), 60)];
    for ((outcome, pause), number) in steps.into_iter().zip(1..) {
        let key = simulation.key("on_failure 1 d.t");
        simulation.call_ended(key, outcome);
        simulation.advance(Duration::from_secs(1));
        simulation = simulation.crash_and_restart();
        simulation.advance(Duration::from_secs(pause - 2));
        assert!(simulation.called().is_empty(), "{pause} s are not over");
        simulation.advance(Duration::from_secs(1));
        assert_eq!(simulation.trace(), [format!("call on_failure 1 d.t try {}", number + 1)]);
    }
    // Neither the host nor the callback is to blame for these.
    for (reason, number) in [(crate::scheduler::LOST, 6), ("stopped", 7)] {
        let key = simulation.key("on_failure 1 d.t");
        simulation.call_ended(key, cut_off(reason));
        assert_eq!(simulation.trace(), [format!("call on_failure 1 d.t try {number}")]);
    }
}

#[test]
fn conditions_look_at_the_runs_before() {
    let text = r#"
        on_failure = [{ bash = "a", when = "first" }, { bash = "b", when = { in_a_row = 3 } }, { bash = "c" }]
        on_success = [{ bash = "d", when = "recovered" }]
        [tasks.t]
        bash = "x"
    "#;
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    let mut outcomes = Vec::new();
    for code in [0, 1, 1, 1, 1, 0, 0, 1] {
        simulation.run_once();
        simulation.started("d.t");
        simulation.end("d.t", Outcome::Exited(code));
        let called = simulation.called();
        let numbers: Vec<String> =
            called.iter().map(|name| name.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
        outcomes.push(numbers.join(", "));
        // The count is in the database.
        simulation = simulation.crash_and_restart();
    }
    let expected = [
        "",
        "on_failure 1, on_failure 3",
        "on_failure 3",
        "on_failure 2, on_failure 3",
        "on_failure 3",
        "on_success 1",
        "",
        "on_failure 1, on_failure 3",
    ];
    assert_eq!(outcomes, expected);
}

#[test]
fn a_thousand_failing_instances_are_one_first_failure() {
    let elements = (0..1_000).map(|number| number.to_string()).collect::<Vec<_>>().join(", ");
    let text = format!(
        "max_active_tasks = 2000\n[tasks.t]\nbash = 'x'\npool = 'wide'\nexpand.x = [{elements}]\non_failure = [{{ bash = 'a', when = 'first' }}]\non_success = [{{ bash = 'b', when = 'recovered' }}]"
    )
    .replace("pool = 'wide'\n", "");
    let mut simulation = Simulation::with_parallelism(2_000, &[("d.toml", &text)]);
    for (code, expected) in [(1, vec!["on_failure 1 d.t try 1"]), (1, vec![]), (0, vec!["on_success 1 d.t try 1"])] {
        simulation.run_once();
        let mut called = Vec::new();
        loop {
            let keys: Vec<TryKey> =
                simulation.calls.0.lock().names.keys().copied().filter(|key| key.instance.0 > 0).collect();
            if keys.is_empty() && !simulation.scheduler.world().has_more() {
                break;
            }
            let now = simulation.clock.now();
            let end = |key| {
                let end = TryEnd { started_at: Some(now), ..TryEnd::new(key, Outcome::Exited(code), now) };
                Event::Ended(Box::new(end))
            };
            simulation.scheduler.turn(keys.into_iter().map(end).collect());
            called.extend(simulation.called());
        }
        assert_eq!(called, expected);
    }
}

#[test]
fn no_more_than_four_are_made_at_once() {
    let callbacks = ["{ bash = 'x' }"; 9].join(", ");
    let text = format!("on_success = [{callbacks}]\n[tasks.t]\nempty = true");
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    simulation.run_once();
    let count = |simulation: &mut Simulation| simulation.trace().iter().filter(|line| line.starts_with("call")).count();
    assert_eq!(count(&mut simulation), 4);
    let key = *simulation.calls.0.lock().names.keys().next().unwrap();
    simulation.call_ended(key, CallOutcome::Done);
    assert_eq!(count(&mut simulation), 1);
}
