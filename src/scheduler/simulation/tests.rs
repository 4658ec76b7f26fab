use std::time::Duration;

use serde_json::Map;

use super::Simulation;
use super::{Event, MemoryStore, Recorded, ReplyTo};
use crate::model::{RunState, TaskState};
use crate::scheduler::StoreError;
use crate::scheduler::command::{Asker, Command, Done, LogicalDate, Stop, Trigger};
use crate::scheduler::event::{self, Outcome};
use crate::scheduler::progress::NotReady;
use crate::scheduler::ready::NotStarted;
use crate::scheduler::reason::{Reason, RunReason};

const CHAIN: &str = r#"
schedule = "0 * * * *"
[tasks.a]
bash = "true"
[tasks.b]
bash = "true"
depends_on = ["a"]
"#;

/// Three tasks side by side, run by hand.
const WIDE: &str = r#"
[tasks.a]
bash = "true"
[tasks.b]
bash = "true"
[tasks.c]
bash = "true"
"#;

pub(super) fn trigger(dag_id: &str) -> Command {
    Command::Trigger(Trigger {
        dag_id: dag_id.into(),
        run_id: None,
        logical_date: LogicalDate::RunAfter,
        data_interval: None,
        conf: Map::new(),
        unpause: false,
    })
}

const HOUR: Duration = Duration::from_secs(3_600);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_dag_seen_after_its_hour_waits_for_the_next() {
    let mut simulation = Simulation::with(&[("d.toml", "schedule = \"0 3 * * *\"\n[tasks.a]\nbash = \"true\"\n")]);
    simulation.advance(14 * HOUR);
    assert!(simulation.run_states().is_empty());
    simulation.advance(HOUR);
    assert_eq!(simulation.run_states(), [("scheduled__2026-11-22T03:00:00+00:00".to_owned(), RunState::Running)]);
    assert_eq!(simulation.trace(), ["start d.a try 1"]);
}

#[test]
fn tasks_run_in_order_and_the_run_succeeds_after_the_last() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN)]);
    simulation.advance(HOUR);
    assert_eq!(simulation.trace(), ["start d.a try 1"]);
    simulation.succeed("d.a");
    assert_eq!(simulation.trace(), ["start d.b try 1"]);
    simulation.succeed("d.b");
    assert_eq!(simulation.run_states()[0].1, RunState::Success);
}

#[test]
fn a_failure_is_retried_after_its_delay_and_the_earlier_try_goes_to_history() {
    let text = "[tasks.a]\nbash = \"false\"\nretries = 1\nretry_delay = \"30s\"\n[tasks.b]\nbash = \"true\"\ndepends_on = [\"a\"]\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.command(trigger("d"));
    simulation.end("d.a", Outcome::Exited(3));
    assert_eq!(simulation.task_state("a"), TaskState::UpForRetry);
    simulation.advance(29 * SECOND);
    assert_eq!(simulation.trace(), ["start d.a try 1"]);
    simulation.advance(SECOND);
    assert_eq!(simulation.trace(), ["start d.a try 2"]);
    let history = simulation.store.history();
    assert_eq!((history.len(), history[0].exit_code, history[0].try_number), (1, Some(3), 1));
    simulation.end("d.a", Outcome::Exited(3));
    assert_eq!(
        (simulation.task_state("a"), simulation.task_state("b")),
        (TaskState::Failed, TaskState::UpstreamFailed)
    );
    assert_eq!(simulation.run_states()[0].1, RunState::Failed);
}

#[test]
fn parallelism_is_never_exceeded_and_a_freed_slot_is_used_at_once() {
    let mut simulation = Simulation::with_parallelism(2, &[("d.toml", WIDE)]);
    simulation.command(trigger("d"));
    assert_eq!(simulation.trace(), ["start d.a try 1", "start d.b try 1"]);
    simulation.succeed("d.b");
    assert_eq!(simulation.trace(), ["start d.c try 1"]);
}

#[test]
fn a_pool_of_one_slot_lets_one_in_by_priority() {
    let text = "[default_args]\npool = \"narrow\"\n[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\npriority_weight = 5\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.command(trigger("d"));
    assert_eq!(simulation.trace(), ["start d.b try 1"]);
    simulation.succeed("d.b");
    assert_eq!(simulation.trace(), ["start d.a try 1"]);
}

#[test]
fn max_active_tasks_bounds_a_run_and_not_its_neighbour() {
    let text = format!("max_active_tasks = 1\n{WIDE}");
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    simulation.command(trigger("d"));
    simulation.clock.advance(SECOND);
    simulation.command(trigger("d"));
    assert_eq!(simulation.trace(), ["start d.a try 1", "start d.a try 1"]);
}

#[test]
fn max_active_runs_holds_further_runs_back_until_one_ends() {
    let text = format!("max_active_runs = 1\n{CHAIN}");
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    simulation.advance(3 * HOUR);
    assert_eq!(simulation.run_states().len(), 1, "a schedule creates no run beyond the limit");
    simulation.command(trigger("d"));
    assert_eq!(simulation.run_states()[1].1, RunState::Queued);
    simulation.succeed("d.a");
    simulation.succeed("d.b");
    assert_eq!(simulation.run_states()[1].1, RunState::Running);
}

#[test]
fn a_paused_dag_keeps_its_runs_queued_until_it_is_unpaused() {
    let mut simulation = Simulation::with(&[("d.toml", WIDE)]);
    let pause = |is_paused| Command::SetPaused { dag_id: "d".into(), is_paused };
    simulation.command(pause(true));
    let reply = simulation.command(trigger("d"));
    assert!(matches!(reply.recv().unwrap(), Ok(Done::Triggered { is_paused: true, .. })));
    assert!(simulation.trace().is_empty());
    simulation.command(pause(false));
    assert_eq!(simulation.trace().len(), 3);
}

#[test]
fn pausing_in_the_middle_lets_what_runs_end_and_starts_nothing_new() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN)]);
    simulation.advance(HOUR);
    simulation.command(Command::SetPaused { dag_id: "d".into(), is_paused: true });
    simulation.trace();
    simulation.succeed("d.a");
    assert!(simulation.trace().is_empty());
    simulation.command(Command::SetPaused { dag_id: "d".into(), is_paused: false });
    assert_eq!(simulation.trace(), ["start d.b try 1"]);
}

#[test]
fn a_run_follows_a_saved_definition_where_it_has_not_started() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN)]);
    simulation.advance(HOUR);
    simulation.trace();
    let changed =
        "schedule = \"0 * * * *\"\n[tasks.a]\nbash = \"true\"\n[tasks.c]\nbash = \"true\"\ndepends_on = [\"a\"]\n";
    simulation.save("d.toml", changed);
    assert_eq!(simulation.task_state("b"), TaskState::Removed);
    simulation.succeed("d.a");
    assert_eq!(simulation.trace(), ["start d.c try 1"]);
    simulation.succeed("d.c");
    assert_eq!(simulation.run_states()[0].1, RunState::Success);
    simulation.save("d.toml", CHAIN);
    assert_eq!(simulation.store.commits().iter().flat_map(|turn| &turn.versions).count(), 3);
}

#[test]
fn a_task_that_comes_back_runs_after_all() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN)]);
    simulation.advance(HOUR);
    simulation.save("d.toml", "schedule = \"0 * * * *\"\n[tasks.a]\nbash = \"true\"\n");
    assert_eq!(simulation.task_state("b"), TaskState::Removed);
    simulation.save("d.toml", CHAIN);
    simulation.trace();
    simulation.succeed("d.a");
    assert_eq!(simulation.trace(), ["start d.b try 1"]);
}

#[test]
fn a_broken_save_keeps_the_last_good_version_running_and_shows_the_fault() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN)]);
    simulation.save("d.toml", "schedule = \"0 * * * *\"\n[tasks.a]\nbsh = \"true\"\n");
    assert!(simulation.store.dag("d").unwrap().has_import_errors);
    simulation.advance(HOUR);
    assert_eq!(simulation.trace(), ["start d.a try 1"]);
    simulation.save("d.toml", CHAIN);
    assert!(!simulation.store.dag("d").unwrap().has_import_errors);
}

#[test]
fn a_broken_file_at_the_start_still_runs_by_its_last_good_version() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN)]);
    simulation.files.insert("d.toml".to_owned(), "schedule = ".to_owned());
    let mut simulation = simulation.crash_and_restart();
    simulation.advance(HOUR);
    assert_eq!(simulation.trace(), ["start d.a try 1"]);
}

#[test]
fn a_file_that_went_while_minflow_was_down_takes_its_dag_along_and_no_other() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN), ("gone.toml", CHAIN)]);
    simulation.files.remove("gone.toml");
    let simulation = simulation.crash_and_restart();
    assert!(simulation.store.dag("d").unwrap().is_active);
    assert!(!simulation.store.dag("gone").unwrap().is_active);
}

#[test]
fn a_removed_file_lets_what_runs_end_and_its_return_goes_on() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN)]);
    simulation.advance(HOUR);
    simulation.trace();
    simulation.remove("d.toml");
    assert!(!simulation.store.dag("d").unwrap().is_active);
    simulation.succeed("d.a");
    assert!(simulation.trace().is_empty());
    simulation.save("d.toml", CHAIN);
    assert_eq!(simulation.trace(), ["start d.b try 1"]);
}

#[test]
fn the_older_of_two_files_with_one_dag_id_stays_live() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN)]);
    simulation.advance(SECOND);
    simulation.save("other.toml", &format!("dag_id = \"d\"\n{WIDE}"));
    let errors = simulation.store.commits().into_iter().flat_map(|turn| turn.import_errors);
    let named: Vec<String> = errors
        .flat_map(|(file, errors)| errors.into_iter().map(move |error| format!("{file}: {}", error.code)))
        .collect();
    assert_eq!(named, ["d.toml: duplicate-dag-id", "other.toml: duplicate-dag-id"]);
    assert_eq!(simulation.store.dag("d").unwrap().file, "d.toml");
    simulation.remove("d.toml");
    assert_eq!(simulation.store.dag("d").unwrap().file, "other.toml");
    assert!(!simulation.store.dag("d").unwrap().has_import_errors);
}

#[test]
fn a_crash_loses_the_try_ends_what_lives_of_it_and_follows_the_retry_rule() {
    let text = "[tasks.a]\nbash = \"true\"\nretries = 1\nretry_delay = \"10s\"\n[tasks.b]\nbash = \"true\"\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.command(trigger("d"));
    simulation.started("d.a");
    let mut simulation = simulation.crash_and_restart();
    assert_eq!(simulation.trace(), ["reclaim d.a try 1", "reclaim d.b try 1"]);
    simulation.end("d.a", Outcome::Lost);
    simulation.end("d.b", Outcome::Lost);
    assert_eq!((simulation.task_state("a"), simulation.task_state("b")), (TaskState::UpForRetry, TaskState::Failed));
    simulation.advance(10 * SECOND);
    assert_eq!(simulation.trace(), ["start d.a try 2"]);
    let reasons: Vec<_> = simulation.store.instances().into_iter().map(|row| row.reason).collect();
    assert_eq!(reasons, [None, Some("lost".to_owned())]);
}

#[test]
fn what_no_supervisor_has_begun_begins_after_a_crash_with_the_number_it_had() {
    let mut simulation = Simulation::with(&[("d.toml", "[tasks.a]\nbash = \"true\"\n")]);
    simulation.command(trigger("d"));
    assert_eq!(simulation.trace(), ["start d.a try 1"]);
    let mut simulation = simulation.crash_and_restart();
    assert_eq!(simulation.trace(), ["reclaim d.a try 1"]);
    simulation.end("d.a", Outcome::NeverBegun);
    simulation.advance(Duration::ZERO);
    assert_eq!(simulation.trace(), ["start d.a try 1"], "without a wait");
    simulation.started("d.a");
    simulation.end("d.a", Outcome::Exited(0));
    let rows = simulation.store.instances();
    assert_eq!((rows[0].state, rows[0].try_number, &rows[0].reason), (TaskState::Success, 1, &None));
}

#[test]
fn a_task_that_left_its_dag_while_it_ran_is_reclaimed_after_a_crash_and_holds_nothing() {
    let text = "[tasks.a]\nbash = \"true\"\nretries = 1\n[tasks.b]\nbash = \"true\"\n";
    let mut simulation = Simulation::with_parallelism(1, &[("d.toml", text)]);
    simulation.command(trigger("d"));
    simulation.started("d.a");
    simulation.save("d.toml", "[tasks.b]\nbash = \"true\"\n");
    let mut simulation = simulation.crash_and_restart();
    assert_eq!(simulation.trace(), ["reclaim d.a try 1"]);
    simulation.end("d.a", Outcome::Lost);
    assert_eq!(simulation.task_state("a"), TaskState::Failed);
    assert_eq!(simulation.trace(), ["start d.b try 1"]);
    simulation.succeed("d.b");
    assert_eq!(simulation.run_states()[0].1, RunState::Success);
}

#[test]
fn what_waited_before_a_crash_waits_after_it() {
    let mut simulation = Simulation::with_parallelism(1, &[("d.toml", WIDE)]);
    simulation.command(trigger("d"));
    simulation.end("d.a", Outcome::Exited(0));
    let mut simulation = simulation.crash_and_restart();
    assert_eq!(simulation.trace(), ["reclaim d.b try 1"]);
    simulation.end("d.b", Outcome::Lost);
    assert_eq!(simulation.trace(), ["start d.c try 1"]);
    simulation.succeed("d.c");
    assert_eq!(simulation.run_states()[0].1, RunState::Failed);
}

#[test]
fn a_retry_delay_survives_a_restart_and_a_step_of_the_wall_clock() {
    let text = "[tasks.a]\nbash = \"false\"\nretries = 1\nretry_delay = \"60s\"\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.command(trigger("d"));
    simulation.end("d.a", Outcome::Exited(1));
    simulation.advance(20 * SECOND);
    let mut simulation = simulation.crash_and_restart();
    simulation.clock.step_to("2026-11-21T09:00:00Z".parse().unwrap());
    simulation.turn(crate::scheduler::Event::ClockJumped);
    simulation.advance(39 * SECOND);
    assert!(simulation.trace().is_empty());
    simulation.advance(SECOND);
    assert_eq!(simulation.trace(), ["start d.a try 2"]);
}

#[test]
fn a_run_past_its_timeout_fails_and_what_runs_is_ended_and_stays_skipped() {
    let text =
        "dagrun_timeout = \"30s\"\n[tasks.a]\nbash = \"sleep 99\"\n[tasks.b]\nbash = \"true\"\ndepends_on = [\"a\"]\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.command(trigger("d"));
    simulation.started("d.a");
    simulation.trace();
    simulation.advance(30 * SECOND);
    assert_eq!(simulation.trace(), ["kill d.a: skipped"]);
    simulation.end("d.a", Outcome::Killed { reason: "skipped".to_owned() });
    assert_eq!((simulation.task_state("a"), simulation.task_state("b")), (TaskState::Skipped, TaskState::Skipped));
    let run = simulation.store.runs().remove(0);
    assert_eq!((run.state, run.reason.as_deref()), (RunState::Failed, Some("timed_out")));
}

#[test]
fn a_failing_commit_releases_no_action_and_loses_nothing() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN)]);
    let error = StoreError { message: "commit a turn: disk full".to_owned(), help: "free some space".to_owned() };
    // The first call of that turn asks whether the run exists; the second is the commit.
    simulation.store.fail_call(2, error);
    simulation.clock.advance(HOUR);
    simulation.turn(crate::scheduler::Event::Tick);
    assert!(simulation.trace().is_empty());
    assert!(simulation.run_states().is_empty());
    assert_eq!(simulation.health.reasons().len(), 1);
    simulation.scheduler.write_and_act();
    assert_eq!(simulation.trace(), ["start d.a try 1"]);
    assert!(simulation.health.reasons().is_empty());
}

#[test]
fn what_cannot_be_started_waits_and_keeps_its_try() {
    let mut simulation = Simulation::with(&[("d.toml", "[tasks.a]\nbash = \"true\"\n")]);
    simulation.command(trigger("d"));
    simulation.trace();
    simulation.end("d.a", Outcome::Unstarted { reason: "no processes left".to_owned() });
    assert_eq!(simulation.task_state("a"), TaskState::Scheduled);
    assert!(simulation.trace().is_empty());
    simulation.advance(SECOND);
    assert_eq!(simulation.trace(), ["start d.a try 1"]);
}

#[test]
fn a_stop_starts_nothing_new_and_leaves_what_runs_after_the_drain_timeout() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN)]);
    simulation.advance(HOUR);
    simulation.started("d.a");
    simulation.trace();
    simulation.command(Command::Stop { how: Stop::Drain, by: Asker::Signal });
    assert!(!simulation.scheduler.world().is_stopped());
    simulation.advance(5 * SECOND);
    assert_eq!(simulation.trace(), [""; 0]);
    assert!(simulation.scheduler.world().is_stopped());
    assert_eq!(simulation.store.instances()[0].state, TaskState::Running);
    let audit = simulation.store.audit();
    let noted: Vec<_> = audit.iter().map(|entry| (entry.event, entry.owner.as_str())).collect();
    assert_eq!(noted, [("stop", "signal")]);
}

#[test]
fn a_command_that_comes_before_the_files_have_been_seen_waits_for_them() {
    let Simulation { clock, settings, files, .. } = Simulation::with(&[("d.toml", "[tasks.a]\nempty = true\n")]);
    let simulation = Simulation::start(clock, MemoryStore::default(), settings, files);
    let (send, events) = event::channel();
    let (reply, replies) = crossbeam::channel::unbounded();
    let ask = |command| {
        let reply = reply.clone();
        send.send(Event::Command { command, reply: ReplyTo::new(move |said| drop(reply.send(said))) }).unwrap();
    };
    ask(trigger("d"));
    send.send(Event::DagFiles { files: vec![simulation.file("d.toml")], complete: false }).unwrap();
    send.send(Event::Scanned).unwrap();
    ask(trigger("d"));
    ask(Command::Stop { how: Stop::Drain, by: Asker::Cli });
    simulation.scheduler.run(&events);
    let said: Vec<_> = replies.try_iter().map(|said| said.unwrap()).collect();
    assert!(matches!(said[..], [Done::Triggered { .. }, Done::Triggered { .. }, Done::Stopping { .. }]), "{said:?}");
}

#[test]
fn a_run_id_is_taken_once_and_a_logical_date_too() {
    let mut simulation = Simulation::with(&[("d.toml", "[tasks.a]\nempty = true\n")]);
    let named = |run_id: &str| match trigger("d") {
        Command::Trigger(trigger) => Command::Trigger(Trigger { run_id: Some(run_id.into()), ..trigger }),
        other => other,
    };
    assert!(simulation.command(named("mine")).recv().unwrap().is_ok());
    assert_eq!(simulation.run_states(), [("mine".to_owned(), RunState::Success)]);
    simulation.clock.advance(SECOND);
    let codes: Vec<String> = ["mine", "scheduled__x", "a/b", "a..b"]
        .map(|run_id| simulation.command(named(run_id)).recv().unwrap().unwrap_err().code)
        .to_vec();
    assert_eq!(codes, ["run-exists", "invalid-run-id", "invalid-run-id", "invalid-run-id"]);
    let refused = simulation.command(trigger("e")).recv().unwrap().unwrap_err();
    assert_eq!((refused.code.as_str(), refused.help.as_str()), ("unknown-dag", "did you mean `d`?"));
}

#[test]
fn whoever_awaits_a_run_is_told_its_end_after_it_is_committed() {
    let mut simulation = Simulation::with(&[("d.toml", "[tasks.a]\nbash = \"false\"\n")]);
    let Ok(Done::Triggered { run_id, .. }) = simulation.command(trigger("d")).recv().unwrap() else {
        panic!("not triggered")
    };
    let awaited = Command::Await { dag_id: "d".into(), run_id };
    let ended = simulation.command(awaited.clone());
    assert!(ended.try_recv().is_err());
    simulation.end("d.a", Outcome::Exited(1));
    assert_eq!(ended.recv().unwrap(), Ok(Done::Ended { state: "failed".to_owned() }));
    assert_eq!(simulation.command(awaited).recv().unwrap(), Ok(Done::Ended { state: "failed".to_owned() }));
}

#[test]
fn catching_up_creates_every_missed_date_once() {
    let text = format!("catchup = true\nstart_date = 2026-11-21T09:00:00Z\n{CHAIN}");
    let simulation = Simulation::with(&[("d.toml", &text)]);
    let ids: Vec<String> = simulation.run_states().into_iter().map(|(id, _)| id).collect();
    let expected = ["09", "10", "11", "12"].map(|hour| format!("scheduled__2026-11-21T{hour}:00:00+00:00"));
    assert_eq!(ids, expected);
    let simulation = simulation.crash_and_restart();
    assert_eq!(simulation.run_states().len(), 4);
}

#[test]
fn whatever_does_not_run_has_a_reason() {
    let text = "max_active_runs = 1\n[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\ndepends_on = [\"a\"]\n\
        [tasks.c]\nbash = \"true\"\npool = \"narrow\"\n[tasks.d]\nbash = \"true\"\npool = \"narrow\"\n\
        [tasks.e]\nbash = \"true\"\npool = \"narrow\"\npool_slots = 2\n[tasks.f]\nbash = \"false\"\nretries = 1\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.command(trigger("d"));
    simulation.clock.advance(SECOND);
    simulation.command(trigger("d"));
    simulation.end("d.f", Outcome::Exited(1));
    let run_ids: Vec<String> = simulation.run_states().into_iter().map(|(run_id, _)| run_id).collect();
    let why = |simulation: &Simulation, run: usize, task: &str| {
        simulation.scheduler.world().why_not_running(&"d".into(), &run_ids[run].as_str().into(), task)
    };
    assert_eq!(why(&simulation, 0, "a"), None);
    assert!(matches!(why(&simulation, 0, "b"), Some(Reason::NotReady(NotReady::UpstreamPending { pending: 1, .. }))));
    assert!(matches!(
        why(&simulation, 0, "d"),
        Some(Reason::NotStarted(NotStarted::PoolFull { open: 0, needed: 1, .. }))
    ));
    assert!(matches!(why(&simulation, 0, "e"), Some(Reason::NotStarted(NotStarted::PoolTooSmall { slots: 1, .. }))));
    assert_eq!(why(&simulation, 0, "f"), Some(Reason::NotReady(NotReady::RetryNotOver)));
    assert_eq!(why(&simulation, 1, "a"), Some(Reason::Run(RunReason::RunQueued { running: 1, max_active_runs: 1 })));
    simulation.command(Command::SetPaused { dag_id: "d".into(), is_paused: true });
    assert_eq!(why(&simulation, 0, "d"), Some(Reason::Run(RunReason::DagPaused)));
    simulation.command(Command::SetPaused { dag_id: "d".into(), is_paused: false });
    simulation.end("d.a", Outcome::Unstarted { reason: "no processes left".to_owned() });
    assert_eq!(why(&simulation, 0, "a"), Some(Reason::HostExhausted));
    simulation.remove("d.toml");
    assert_eq!(why(&simulation, 1, "a"), Some(Reason::Run(RunReason::DagGone)));
    simulation.save("d.toml", text);
    simulation.command(Command::Stop { how: Stop::Drain, by: Asker::Signal });
    assert_eq!(why(&simulation, 1, "a"), Some(Reason::Run(RunReason::Stopping)));
}

#[test]
fn a_file_that_changed_its_dag_id_and_then_broke_takes_its_dag_with_it_when_it_goes() {
    let mut simulation = Simulation::with(&[("d.toml", &format!("dag_id = \"z\"\n{CHAIN}"))]);
    simulation.save("d.toml", &format!("dag_id = \"a\"\n{CHAIN}"));
    assert!(!simulation.store.dag("z").unwrap().is_active);
    simulation.save("d.toml", "dag_id = ");
    assert!(simulation.store.dag("a").unwrap().is_active, "the last good version stays");
    simulation.remove("d.toml");
    assert!(!simulation.store.dag("a").unwrap().is_active);
}

#[test]
fn a_date_that_a_manual_run_took_and_ended_within_the_turn_is_not_created_again() {
    let text = "schedule = \"* * * * *\"\ncatchup = true\nstart_date = 2026-11-21T12:30:00Z\n[tasks.a]\nempty = true\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    let Command::Trigger(by_hand) = trigger("d") else { panic!("not a trigger") };
    let date = "2026-11-21T12:33:00Z".parse().unwrap();
    simulation.clock.advance(5 * 60 * SECOND);
    simulation.command(Command::Trigger(Trigger { logical_date: LogicalDate::At(date), ..by_hand }));
    assert!(simulation.health.reasons().is_empty(), "{:?}", simulation.health.reasons());
    let dates: Vec<_> = simulation.store.runs().into_iter().filter(|run| run.logical_date == Some(date)).collect();
    assert_eq!(dates.len(), 1);
    assert_eq!(simulation.run_states().len(), 6);
}

#[test]
fn a_run_whose_definition_no_longer_holds_waits_for_one_that_does() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN)]);
    simulation.advance(HOUR);
    simulation.started("d.a");
    simulation.files.insert("d.toml".to_owned(), "schedule = ".to_owned());
    let (clock, store, files) = (simulation.clock.clone(), simulation.store.clone(), simulation.files.clone());
    let mut simulation =
        Simulation::start_with((store, Recorded::default()), clock, simulation.settings, files, Box::new(|_, _| None));
    simulation.rescan();
    assert_eq!(simulation.trace(), ["reclaim d.a try 1"]);
    simulation.end("d.a", Outcome::Lost);
    for is_paused in [true, false] {
        simulation.command(Command::SetPaused { dag_id: "d".into(), is_paused });
    }
    assert_eq!(simulation.run_states()[0].1, RunState::Running);
    simulation.save("d.toml", CHAIN);
    assert_eq!(simulation.run_states()[0].1, RunState::Failed);
}

#[test]
fn a_try_names_the_definition_that_it_runs_though_it_was_scheduled_by_an_earlier_one() {
    let mut simulation = Simulation::with_parallelism(1, &[("d.toml", WIDE)]);
    simulation.command(trigger("d"));
    let before = simulation.store.dag("d").unwrap().version;
    simulation.save("d.toml", &format!("description = \"changed\"\n{WIDE}"));
    let after = simulation.store.dag("d").unwrap().version;
    simulation.succeed("d.a");
    let versions: Vec<_> = simulation.store.instances().into_iter().map(|row| row.version).collect();
    assert_eq!((versions[0], versions[1]), (before, after));
    assert_ne!(before, after);
}

#[test]
fn what_could_not_be_started_and_has_left_its_dag_is_removed() {
    let mut simulation = Simulation::with(&[("d.toml", WIDE)]);
    simulation.command(trigger("d"));
    simulation.save("d.toml", "[tasks.b]\nbash = \"true\"\n");
    simulation.end("d.a", Outcome::Unstarted { reason: "no processes left".to_owned() });
    assert_eq!(simulation.task_state("a"), TaskState::Removed);
}

#[test]
fn a_run_is_not_over_while_a_task_that_left_the_definition_still_runs() {
    let mut simulation = Simulation::with(&[("d.toml", WIDE)]);
    simulation.command(trigger("d"));
    simulation.started("d.a");
    simulation.save("d.toml", "[tasks.b]\nbash = \"true\"\n");
    simulation.end("d.c", Outcome::Exited(0));
    simulation.succeed("d.b");
    assert_eq!(simulation.run_states()[0].1, RunState::Running);
    simulation.trace();
    let mut simulation = simulation.crash_and_restart();
    assert_eq!(simulation.trace(), ["reclaim d.a try 1"]);
    simulation.end("d.a", Outcome::Lost);
    assert_eq!((simulation.task_state("a"), simulation.run_states()[0].1), (TaskState::Failed, RunState::Success));
}

#[test]
fn a_stop_does_not_wait_for_ever_for_a_database_that_cannot_be_written() {
    let mut simulation = Simulation::with(&[("d.toml", WIDE)]);
    simulation.settings.drain_timeout = Duration::ZERO;
    let simulation = simulation.crash_and_restart();
    let before = simulation.store.commits().len();
    let (events, inbox) = event::channel();
    for command in [trigger("d"), Command::Stop { how: Stop::Drain, by: Asker::Signal }] {
        let reply = crate::scheduler::port::ReplyTo::new(|_| ());
        events.send(crate::scheduler::Event::Command { command, reply }).unwrap();
    }
    // The trigger asks twice whether its run exists; then come commits.
    for call in 3..8 {
        let error = StoreError { message: "commit a turn: disk full".to_owned(), help: "free space".to_owned() };
        simulation.store.fail_call(call, error);
    }
    simulation.scheduler.run(&inbox);
    assert_eq!(simulation.store.commits().len(), before);
    assert!(simulation.calls.0.lock().trace.is_empty(), "nothing of an uncommitted turn is begun");
}

#[test]
fn what_was_asked_for_is_in_the_audit_log() {
    let mut simulation = Simulation::with(&[("d.toml", WIDE)]);
    let Command::Trigger(plain) = trigger("d") else { panic!("not a trigger") };
    let conf = Map::from_iter([("region".to_owned(), serde_json::json!("eu"))]);
    simulation.command(Command::Trigger(Trigger { conf, ..plain }));
    simulation.command(Command::SetPaused { dag_id: "d".into(), is_paused: true });
    let audit = simulation.store.audit();
    assert_eq!(audit.iter().map(|entry| entry.event).collect::<Vec<_>>(), ["trigger", "pause"]);
    assert_eq!(audit[0].extra["conf"]["region"], "eu");
}
