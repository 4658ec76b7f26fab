//! What is told of runs and instances that wait, and of those that are over.

use super::tests::trigger;
use super::*;
use crate::model::{DagId, Exceeded, SkipDecision};
use crate::scheduler::command::{Asker, CommandError, Done, PauseTask, Stop};
use crate::scheduler::explain::{ExplainedTask, Explanation, TaskFinding};

fn ask(simulation: &mut Simulation, command: Command) -> Reply {
    simulation.command(command).try_recv().expect("it is answered in its turn")
}

/// What is told of the newest run of `d`, or of one task of it.
fn explain(simulation: &mut Simulation, task: Option<(&str, Option<i32>)>) -> Result<Explanation, CommandError> {
    let run_id = simulation.run_states().last().expect("a run").0.as_str().into();
    let task = task.map(|(task_id, map_index)| ExplainedTask { task_id: task_id.into(), map_index });
    match ask(simulation, Command::Explain { dag_id: "d".into(), run_id, task })? {
        Done::Explained(explanation) => Ok(*explanation),
        other => panic!("{other:?}"),
    }
}

/// Gate and message of a task.
fn told(simulation: &mut Simulation, task: &str) -> (String, String) {
    let explanation = explain(simulation, Some((task, None))).expect("the task is known");
    let TaskFinding { finding, .. } = explanation.tasks.into_iter().next().expect("one instance");
    (finding.gate.unwrap_or_default(), finding.message)
}

const GATES: &str = "[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\ndepends_on = [\"a\"]\n\
    [tasks.c]\nbash = \"true\"\npool = \"narrow\"\n[tasks.d]\nbash = \"true\"\npool = \"narrow\"\n\
    [tasks.e]\nbash = \"true\"\npool = \"narrow\"\npool_slots = 2\n[tasks.f]\nbash = \"false\"\nretries = 1\n\
    retry_delay = \"1m\"\n";

#[test]
fn each_gate_is_named_with_its_numbers_and_holders() {
    let mut simulation = Simulation::with(&[("d.toml", GATES)]);
    simulation.command(trigger("d"));
    simulation.started("d.a");
    simulation.end("d.f", Outcome::Exited(3));
    let (gate, message) = told(&mut simulation, "b");
    assert_eq!(gate, "trigger_rule");
    assert_eq!(message, "trigger rule `all_success` waits for 1 of 1 before it: `a` is running");
    let explanation = explain(&mut simulation, Some(("d", None))).unwrap();
    let finding = &explanation.tasks[0].finding;
    assert_eq!((finding.gate.as_deref(), finding.message.as_str()), (Some("pool_full"), "pool `narrow` 1/1"));
    assert_eq!(finding.held_by.iter().map(|h| h.task_id.as_deref().unwrap()).collect::<Vec<_>>(), ["c"]);
    assert_eq!((finding.held_by[0].units, finding.wants), (1, 1));
    let (gate, message) = told(&mut simulation, "e");
    assert_eq!(gate, "pool_too_small");
    assert!(message.starts_with("it can never run: it wants 2 slots of pool `narrow`, which has 1"), "{message}");
    let retry = explain(&mut simulation, Some(("f", None))).unwrap().tasks.remove(0);
    assert_eq!(retry.finding.gate.as_deref(), Some("retry_delay"));
    assert_eq!(retry.finding.message, "try 1 of 2 failed with exit code 3; the next waits for its delay");
    let delay = retry.finding.until.unwrap().duration_since(retry.finding.since.unwrap());
    assert_eq!(delay, jiff::SignedDuration::from_mins(1));
    simulation.command(Command::SetPaused { dag_id: "d".into(), is_paused: true });
    let explanation = explain(&mut simulation, None).unwrap();
    assert_eq!(explanation.run.gate.as_deref(), Some("dag_paused"));
    assert_eq!(told(&mut simulation, "b").0, "dag_paused");
    simulation.command(Command::SetPaused { dag_id: "d".into(), is_paused: false });
    simulation.command(Command::Stop { how: Stop::Drain, by: Asker::Signal });
    assert_eq!(told(&mut simulation, "b").0, "stopping");
}

#[test]
fn a_queued_run_names_the_runs_that_are_in_its_way() {
    let mut simulation = Simulation::with(&[("d.toml", "max_active_runs = 1\n[tasks.a]\nbash = \"true\"\n")]);
    simulation.command(trigger("d"));
    simulation.clock.advance(Duration::from_secs(1));
    simulation.command(trigger("d"));
    let first = simulation.run_states()[0].0.clone();
    let mut explanation = explain(&mut simulation, None).unwrap();
    assert_eq!(explanation.run.gate.as_deref(), Some("max_active_runs"));
    assert_eq!(explanation.run.held_by[0].run_id.as_str(), first);
    let now = simulation.clock.now();
    explanation.expect(&mut |_, task| task.is_none().then_some(Duration::from_secs(40)), now);
    let since = explanation.run.held_by[0].since.unwrap();
    assert_eq!(explanation.run.until, since.checked_add(Duration::from_secs(40)).ok());
    assert!(explanation.run.is_expected);
    let line = explanation.run.line(now, &jiff::tz::TimeZone::UTC);
    assert!(line.contains("; held by ") && line.contains("typically ends in 39 s; should clear "), "{line}");
}

#[test]
fn what_is_over_tells_how_it_came_to_its_state_from_memory_and_from_the_database() {
    let text = "[tasks.choose]\nbranch = { expr = \"left\" }\n[tasks.left]\nbash = \"true\"\ndepends_on = [\"choose\"]\n\
        [tasks.right]\nbash = \"true\"\ndepends_on = [\"choose\"]\n[tasks.below]\nbash = \"true\"\ndepends_on = [\"left\"]\n\
        [tasks.slow]\nbash = \"true\"\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.command(trigger("d"));
    simulation.decide("d.choose", SkipDecision::Followed(vec!["left".into()]));
    simulation.end("d.left", Outcome::Signaled(9));
    let expected = [
        ("left", TaskState::Failed, "try 1 of 1 was ended by signal 9"),
        ("right", TaskState::Skipped, "`choose` chose `left`"),
        ("below", TaskState::UpstreamFailed, "trigger rule `all_success` is not met: `left` is failed"),
    ];
    for is_over in [false, true] {
        if is_over {
            simulation.end("d.slow", Outcome::Exited(0));
        }
        let explanation = explain(&mut simulation, None).unwrap();
        for (task, state, message) in expected {
            let found = explanation.tasks.iter().find(|found| found.task_id.as_str() == task).expect("it is told");
            assert_eq!((found.state, found.finding.message.as_str()), (state, message));
            assert_eq!(found.finding.gate, None);
        }
        assert!(!explanation.tasks.iter().any(|found| found.state == TaskState::Success));
    }
    let explanation = explain(&mut simulation, None).unwrap();
    assert_eq!(explanation.run.message, "failed (task_failure): 1 of 5 task instances failed");
}

#[test]
fn how_a_try_ended_is_told_in_words() {
    let ends = [
        (Outcome::TimedOut, "took longer than its execution_timeout, and was ended"),
        (
            Outcome::Lost,
            "was lost: its supervisor was killed or the host went down, and what still ran of it was ended; no try follows: `retries` gives it more, and `minflow tasks clear` has it run again",
        ),
        (Outcome::Killed { reason: "stopped".to_owned() }, "was ended as minflow stopped"),
        (exceeded(Exceeded::Memory), "was ended out of memory"),
        (exceeded(Exceeded::CpuTime), "was ended at its limit of CPU time"),
        (Outcome::Faulted { reason: "no such script".to_owned() }, "failed: no such script"),
        (Outcome::Exited(7), "failed with exit code 7"),
    ];
    for (outcome, words) in ends {
        let mut simulation = Simulation::with(&[("d.toml", "[tasks.a]\nbash = \"true\"\n")]);
        simulation.command(trigger("d"));
        simulation.end("d.a", outcome);
        assert_eq!(told(&mut simulation, "a").1, format!("try 1 of 1 {words}"));
    }
}

fn exceeded(limit: Exceeded) -> Outcome {
    Outcome::Exceeded { limit, exit_code: None, signal: Some(9) }
}

#[test]
fn an_unknown_task_or_map_index_is_answered_with_what_there_is() {
    let mut simulation = Simulation::with(&[("d.toml", GATES)]);
    simulation.command(trigger("d"));
    let error = explain(&mut simulation, Some(("aa", None))).unwrap_err();
    assert_eq!((error.code.as_str(), error.help.as_str()), ("unknown-task", "did you mean `a`?"));
    let error = explain(&mut simulation, Some(("a", Some(3)))).unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.help.as_str()),
        ("unknown-map-index", "it is not mapped; leave --map-index away")
    );
}

#[test]
fn what_waits_for_a_slot_is_listed_and_nothing_is_written_for_it() {
    let mut simulation = Simulation::with(&[("d.toml", GATES)]);
    simulation.command(trigger("d"));
    let commits = simulation.store.commits().len();
    let Done::Waiting(waiting) = ask(&mut simulation, Command::ListWaiting { dag_id: None, limit: 1 }).unwrap() else {
        panic!("another answer")
    };
    assert_eq!(waiting.iter().map(|found| found.task_id.as_str()).collect::<Vec<_>>(), ["d"]);
    let other = Command::ListWaiting { dag_id: Some("other".into()), limit: 9 };
    assert_eq!(ask(&mut simulation, other).unwrap(), Done::Waiting(Vec::new()));
    assert_eq!(simulation.store.commits().len(), commits);
}

#[test]
fn what_runs_is_listed_with_its_process_the_oldest_first() {
    let text = "[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\n[tasks.c]\nbash = \"true\"\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.command(trigger("d"));
    simulation.clock.advance(Duration::from_secs(1));
    simulation.started("d.b");
    simulation.clock.advance(Duration::from_secs(1));
    simulation.started("d.a");
    let run_id = simulation.store.runs()[0].run_id.clone();
    let pause = PauseTask { dag_id: "d".into(), run_id, task_id: "a".into(), map_index: None, is_paused: true };
    ask(&mut simulation, Command::SetTaskPaused(pause)).unwrap();
    let listed = |simulation: &mut Simulation, dag_id: Option<&str>, limit| {
        let command = Command::ListRunning { dag_id: dag_id.map(DagId::from), limit };
        let Done::Running(running) = ask(simulation, command).unwrap() else { panic!("another answer") };
        running.iter().map(|one| (one.task_id.to_string(), one.process.pid, one.is_paused)).collect::<Vec<_>>()
    };
    let (a, b) = (("a".to_owned(), 1_000, true), ("b".to_owned(), 1_000, false));
    assert_eq!(listed(&mut simulation, None, 9), [b.clone(), a], "c is queued still");
    assert_eq!(listed(&mut simulation, Some("d"), 1), [b]);
    assert_eq!(listed(&mut simulation, Some("other"), 9), []);
}
