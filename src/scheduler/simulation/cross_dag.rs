//! Runs that tasks ask for, and what they wait for in other DAGs.

use super::*;
use crate::model::{AskedDate, AwaitedStates, Existing, RunRequest, RunType};

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
        let trigger = crate::scheduler::command::Trigger {
            dag_id: "called".into(),
            run_id: Some("one".into()),
            logical_date: crate::scheduler::command::LogicalDate::None,
            data_interval: None,
            conf: serde_json::Map::new(),
            unpause: false,
        };
        simulation.command(Command::Trigger(trigger));
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
