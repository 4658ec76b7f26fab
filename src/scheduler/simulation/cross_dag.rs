//! Runs that tasks ask for, and what they wait for in other DAGs.

use super::*;
use crate::model::wait::{Among, AwaitedTasks};
use crate::model::{AskedDate, Awaited, AwaitedStates, Existing, Pace, RunRequest, RunType, SensorMode, Wait};
use crate::scheduler::command::{Chosen, Clear, Done, Only, RunRange, Spread};

const CALLED: &str = "params.n = 1\ntasks.work = { bash = \"x\" }\n";

fn caller(keys: &str) -> String {
    format!(
        "schedule = \"@once\"\ntasks.call = {{ trigger_dag = {{ dag_id = \"called\" }}, {keys} }}\ntasks.after = {{ bash = \"x\", depends_on = [\"call\"] }}\n"
    )
}

fn request() -> RunRequest {
    RunRequest {
        dag_id: "called".into(),
        conf: serde_json::Map::new(),
        logical_date: AskedDate::Now,
        run_id: None,
        existing: Existing::Refused,
        wait: None,
    }
}

fn waiting() -> RunRequest {
    let wait = AwaitedStates { allowed: vec![RunState::Success], failed: vec![RunState::Failed] };
    RunRequest { run_id: Some("one".into()), wait: Some(wait), ..request() }
}

fn both(keys: &str) -> Simulation {
    Simulation::with(&[("caller.toml", &caller(keys)), ("called.toml", CALLED)])
}

impl Simulation {
    fn ask(&mut self, request: RunRequest) {
        self.end("caller.call", Outcome::Asks(Box::new(request)));
    }

    fn trigger_one(&mut self) {
        let trigger = crate::scheduler::command::Trigger {
            dag_id: "called".into(),
            run_id: Some("one".into()),
            logical_date: crate::scheduler::command::LogicalDate::None,
            data_interval: None,
            conf: serde_json::Map::new(),
            unpause: false,
        };
        self.command(Command::Trigger(trigger));
    }

    fn state_of(&self, task: &str) -> &'static str {
        self.task_state(task).as_str()
    }

    fn called_runs(&self) -> Vec<(String, RunType, RunState)> {
        let runs = self.store.runs().into_iter().filter(|run| &*run.dag_id == "called");
        runs.map(|run| (run.run_id.to_string(), run.run_type, run.state)).collect()
    }
}

#[test]
fn a_run_that_is_asked_for_starts_in_the_turn_in_which_its_task_ends() {
    let mut simulation = both("");
    simulation.trace();
    simulation.ask(request());
    assert_eq!(simulation.trace(), ["start called.work try 1", "start caller.after try 1"]);
    let called = simulation.called_runs();
    assert_eq!(called[0].0, "manual__2026-11-21T12:30:00+00:00");
    assert_eq!((called[0].1, called[0].2), (RunType::OperatorTriggered, RunState::Running));
    let by = simulation.store.runs()[0].key;
    for key in ["return_value", "trigger_run_id"] {
        assert_eq!(simulation.store.xcom(by, "call", -1, key), Some(called[0].0.as_str().into()));
    }
}

#[test]
fn who_waits_holds_no_slot_and_goes_on_in_the_turn_in_which_the_run_ends() {
    let mut simulation = Simulation::with_parallelism(1, &[("caller.toml", &caller("")), ("called.toml", CALLED)]);
    simulation.ask(waiting());
    assert_eq!(simulation.state_of("call"), "deferred");
    simulation.trace();
    simulation.succeed("called.work");
    assert_eq!(simulation.state_of("call"), "success");
    assert_eq!(simulation.trace(), ["start caller.after try 1"]);
}

#[test]
fn a_wait_goes_on_after_a_crash_even_if_the_run_ended_unseen() {
    let mut simulation = both("retries = 1");
    simulation.ask(waiting());
    let mut simulation = simulation.crash_and_restart();
    assert_eq!(simulation.state_of("call"), "deferred");
    simulation.end("called.work", Outcome::Lost);
    assert_eq!(simulation.called_runs(), [("one".to_owned(), RunType::OperatorTriggered, RunState::Failed)]);
    assert_eq!(simulation.state_of("call"), "up_for_retry");
    simulation.advance(Duration::from_secs(300));
    simulation.ask(waiting());
    // As in Airflow: its second try finds the run that the first one made.
    assert_eq!(simulation.state_of("call"), "failed");
    assert_eq!(simulation.called_runs().len(), 1);
}

#[test]
fn a_run_that_is_there_already_is_refused_or_skipped_or_done_over_again() {
    for (existing, state) in
        [(Existing::Refused, "failed"), (Existing::Skipped, "skipped"), (Existing::Reset, "deferred")]
    {
        let mut simulation = both("retries = 3");
        simulation.trigger_one();
        simulation.succeed("called.work");
        simulation.ask(RunRequest { existing, ..waiting() });
        assert_eq!(simulation.state_of("call"), state);
        if existing == Existing::Reset {
            assert_eq!(simulation.called_runs()[0].2, RunState::Running);
            simulation.succeed("called.work");
            assert_eq!(simulation.state_of("call"), "success");
        }
    }
}

#[test]
fn a_request_that_the_database_cannot_answer_is_made_again_in_the_same_try_which_begins_once() {
    let mut simulation = both("on_execute = [{ bash = \"begun\" }]");
    simulation.trace();
    let error = crate::scheduler::StoreError { message: "disk full".to_owned(), help: "free space".to_owned() };
    simulation.store.fail_call(1, error);
    simulation.ask(request());
    assert_eq!(simulation.state_of("call"), "scheduled");
    assert!(simulation.called_runs().is_empty());
    simulation.advance(Duration::from_secs(1));
    simulation.ask(request());
    assert_eq!(simulation.called_runs().len(), 1);
    let expected = [
        "call on_execute 1 caller.call try 1",
        "start caller.call try 1",
        "start caller.after try 1",
        "start called.work try 1",
    ];
    assert_eq!(simulation.trace(), expected);
}

#[test]
fn what_has_left_its_dag_is_removed_when_its_run_is_done_over_again() {
    for is_over in [false, true] {
        let called = format!(
            "{CALLED}tasks.old = {{ bash = \"x\" }}\ntasks.older = {{ bash = \"x\", depends_on = [\"old\"] }}\n"
        );
        let mut simulation = Simulation::with(&[("caller.toml", &caller("")), ("called.toml", &called)]);
        simulation.trigger_one();
        simulation.end("called.old", Outcome::Exited(1));
        if is_over {
            simulation.succeed("called.work");
        }
        simulation.save("called.toml", CALLED);
        assert_eq!(["old", "older"].map(|task| simulation.state_of(task)), ["failed", "upstream_failed"]);
        assert_eq!(simulation.called_runs()[0].2.is_finished(), is_over);
        simulation.ask(RunRequest { existing: Existing::Reset, ..waiting() });
        assert_eq!(["old", "older"].map(|task| simulation.state_of(task)), ["removed"; 2], "run is over: {is_over}");
        let tried: Vec<_> = simulation.store.history().into_iter().map(|row| (row.task_id, row.state)).collect();
        assert!(tried.contains(&("old".into(), TaskState::Failed)), "{tried:?}");
        if !is_over {
            simulation.end("called.work", Outcome::Killed { reason: "cleared".to_owned() });
        }
        simulation.succeed("called.work");
        assert_eq!(simulation.called_runs()[0].2, RunState::Success);
        assert_eq!(simulation.state_of("call"), "success");
    }
}

#[test]
fn what_is_wrong_with_the_run_fails_the_task_and_makes_none() {
    let mut wrong = request();
    wrong.dag_id = "caled".into();
    let mut bad = request();
    bad.run_id = Some("a/b".into());
    for (request, said) in [(wrong, "no DAG `caled`; did you mean `called`?"), (bad, "a/b")] {
        let mut simulation = both("");
        simulation.ask(request);
        assert_eq!(simulation.state_of("call"), "failed");
        assert!(simulation.called_runs().is_empty());
        let row = simulation.store.instances().into_iter().find(|row| &*row.task_id == "call").unwrap();
        assert!(row.reason.as_ref().is_some_and(|reason| reason.contains(said)), "{:?}", row.reason);
    }
}

#[test]
fn a_run_that_fails_and_is_cleared_is_waited_for_again_if_its_failure_decides_nothing() {
    let mut simulation = both("");
    let wait = AwaitedStates { allowed: vec![RunState::Success], failed: Vec::new() };
    simulation.ask(RunRequest { wait: Some(wait), ..waiting() });
    simulation.end("called.work", Outcome::Exited(1));
    assert_eq!(simulation.state_of("call"), "deferred");
    let run_id = "one".into();
    simulation.command(Command::MarkRun { dag_id: "called".into(), run_id, state: RunState::Queued });
    simulation.succeed("called.work");
    assert_eq!(simulation.state_of("call"), "success");
}

const WAITER: &str = "schedule = \"0 12 * * *\"\ncatchup = true\nstart_date = 2026-11-21\n\
    tasks.call = { sensor = { task = { dag_id = \"called\", task_ids = [\"work\"] }, timeout = \"1h\" } }\n\
    tasks.after = { bash = \"x\", depends_on = [\"call\"] }\n";

fn wait_for(failed: &[TaskState], skipped: &[TaskState], soft_fail: bool) -> Outcome {
    let awaited = AwaitedTasks {
        dag_id: "called".into(),
        among: Among::Tasks(vec!["work".into()]),
        logical_date: "2026-11-21T12:00:00Z".parse().unwrap(),
        allowed: vec![TaskState::Success],
        failed: failed.to_vec(),
        skipped: skipped.to_vec(),
    };
    Outcome::Deferred(Box::new(Wait {
        awaited: Awaited::Tasks(Box::new(awaited)),
        mode: SensorMode::Poke,
        since: "2026-11-21T12:30:00Z".parse().unwrap(),
        timeout: Some(Duration::from_secs(3_600)),
        execution_timeout: None,
        soft_fail,
        pace: Pace { poke_interval: Duration::from_secs(60), is_exponential: false, max_wait: None },
    }))
}

fn external(outcome: Outcome) -> Simulation {
    let called = format!("schedule = \"0 12 * * *\"\ncatchup = true\nstart_date = 2026-11-21\n{CALLED}");
    let mut simulation = Simulation::with(&[
        ("caller.toml", &WAITER.replace("tasks.call", "dag_id = \"caller\"\ntasks.call")),
        ("called.toml", &called),
    ]);
    simulation.trace();
    simulation.end("caller.call", outcome);
    assert_eq!(simulation.state_of("call"), "deferred");
    simulation
}

#[test]
fn a_sensor_of_another_dag_goes_on_in_the_turn_in_which_its_task_succeeds() {
    let mut simulation = external(wait_for(&[], &[], false));
    simulation.succeed("called.work");
    assert_eq!(simulation.state_of("call"), "success");
    assert_eq!(simulation.trace(), ["start caller.after try 1"]);
}

#[test]
fn a_failure_there_decides_only_if_it_is_named_and_a_clear_is_waited_for() {
    let mut simulation = external(wait_for(&[], &[], false));
    simulation.end("called.work", Outcome::Exited(1));
    assert_eq!(simulation.state_of("call"), "deferred");
    let mut simulation = simulation.crash_and_restart();
    let run_id = simulation.store.runs().into_iter().find(|run| &*run.dag_id == "called").unwrap().run_id;
    simulation.command(Command::MarkRun { dag_id: "called".into(), run_id, state: RunState::Queued });
    simulation.succeed("called.work");
    assert_eq!(simulation.state_of("call"), "success");
    for (named, soft, state) in [(true, false, "failed"), (true, true, "skipped"), (false, false, "skipped")] {
        let lists: [&[TaskState]; 2] = if named { [&[TaskState::Failed], &[]] } else { [&[], &[TaskState::Failed]] };
        let mut simulation = external(wait_for(lists[0], lists[1], soft));
        simulation.end("called.work", Outcome::Exited(1));
        assert_eq!(simulation.state_of("call"), state);
    }
}

#[test]
fn a_sensor_of_another_dag_gives_up_at_its_timeout() {
    let mut simulation = external(wait_for(&[], &[], false));
    simulation.advance(Duration::from_secs(3_601));
    assert_eq!(simulation.state_of("call"), "failed");
    let row = simulation.store.instances().into_iter().find(|row| &*row.task_id == "call").unwrap();
    assert!(row.reason.as_ref().is_some_and(|reason| reason.contains("timeout of 1h")), "{:?}", row.reason);
}

#[test]
fn a_clear_follows_markers_into_other_dags_and_circles_end() {
    let marked = |other: &str| {
        format!(
            "schedule = \"0 12 * * *\"\ncatchup = true\nstart_date = 2026-11-21\n\
            tasks.first = {{ bash = \"x\" }}\n\
            tasks.mark = {{ external_task_marker = {{ dag_id = \"{other}\", task_id = \"first\" }}, depends_on = [\"first\"] }}\n"
        )
    };
    let mut simulation = Simulation::with(&[("a.toml", &marked("b")), ("b.toml", &marked("a"))]);
    simulation.succeed("a.first");
    simulation.succeed("b.first");
    let clear = |is_dry| {
        Command::Clear(Clear {
            dag_id: "a".into(),
            tasks: Chosen::Named(vec!["first".to_owned()]),
            spread: Spread { downstream: true, upstream: false },
            map_index: None,
            runs: RunRange::default(),
            only: Only::default(),
            is_dry,
        })
    };
    let mut cleared = |is_dry| match simulation.command(clear(is_dry)).try_recv().unwrap() {
        Ok(Done::Cleared { instances, .. }) => {
            instances.iter().map(|touched| format!("{}.{}", touched.dag_id, touched.task_id)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let both = ["a.first", "a.mark", "b.first", "b.mark"];
    assert_eq!(cleared(true), both);
    assert_eq!(cleared(false), both);
    let states: Vec<RunState> = simulation.store.runs().iter().map(|run| run.state).collect();
    assert_eq!(states, [RunState::Running; 2]);
}
