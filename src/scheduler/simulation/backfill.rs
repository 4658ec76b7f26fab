//! Backfills on a fake clock: their lists, their order, their limits, and crashes between any two of their turns.

use serde_json::json;

use super::*;
use crate::model::{BackfillId, DateFate};
use crate::model::{Reprocess, RunType, SkipReason};
use crate::scheduler::StoreError;
use crate::scheduler::command::{CommandError, Done, NewBackfill};

const HOURLY: &str = "schedule = \"0 * * * *\"\nmax_active_runs = 1\n[tasks.a]\nempty = true\n";

fn asked(from: &str, to: &str) -> NewBackfill {
    NewBackfill {
        dag_id: "d".into(),
        from_date: from.parse().unwrap(),
        to_date: to.parse().unwrap(),
        reprocess: Reprocess::None,
        is_backwards: false,
        max_active_runs: 10,
        conf: None,
    }
}

impl Simulation {
    /// Turns without events, while the loop would not sleep.
    pub(super) fn go_on(&mut self) {
        while self.scheduler.world().has_more() {
            self.scheduler.turn(Vec::new());
        }
    }

    fn backfill(&mut self, asked: NewBackfill) -> Result<Done, CommandError> {
        let replies = self.command(Command::CreateBackfill(asked));
        self.go_on();
        replies.try_recv().unwrap()
    }

    pub(super) fn backfilled(&self) -> Vec<crate::model::DagRun> {
        let mut runs = self.store.runs();
        runs.retain(|run| run.run_type == RunType::Backfill);
        runs.sort_by_key(|run| run.backfill);
        runs
    }
}

#[test]
fn a_backfill_makes_and_ends_one_run_for_each_date_and_is_completed_with_the_last() {
    let mut simulation = Simulation::with(&[("d.toml", HOURLY)]);
    let done = simulation.backfill(asked("2026-11-01T00:00:00Z", "2026-11-01T03:00:00Z"));
    assert_eq!(done, Ok(Done::BackfillCreated { id: BackfillId(1), runs: 4, skipped: 0, is_paused: false }));
    simulation.go_on();
    let runs = simulation.backfilled();
    assert_eq!(runs.len(), 4);
    assert!(runs.iter().all(|run| run.state == RunState::Success && run.lag.is_none()));
    assert_eq!(&*runs[0].run_id, "backfill__2026-11-01T00:00:00+00:00");
    assert!(simulation.store.backfills()[0].completed_at.is_some());
}

#[test]
fn a_crash_between_any_two_turns_changes_nothing_about_the_list() {
    let range = || asked("2026-01-01T00:00:00Z", "2026-04-20T00:00:00Z");
    for turns in 0..4 {
        let mut simulation = Simulation::with(&[("d.toml", HOURLY)]);
        let _replies = simulation.command(Command::CreateBackfill(range()));
        for _ in 0..turns {
            simulation.scheduler.turn(Vec::new());
        }
        let mut simulation = simulation.crash_and_restart();
        simulation.rescan();
        simulation.go_on();
        let dates = simulation.store.backfill_dates(BackfillId(1));
        let runs = simulation.backfilled();
        assert_eq!((dates.len(), runs.len()), (109 * 24 + 1, 109 * 24 + 1), "after {turns} turns");
        assert!(dates.iter().all(|(_, fate)| matches!(fate, Some(DateFate::Run(_)))));
        assert!(runs.iter().all(|run| run.state == RunState::Success), "after {turns} turns");
        assert!(runs.iter().map(|run| run.logical_date).is_sorted());
    }
}

#[test]
fn a_run_that_a_user_ends_in_the_turn_of_its_promotion_does_not_begin() {
    let text = HOURLY.replace("empty = true", "bash = 'x'");
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    let _replies = simulation.command(Command::CreateBackfill(asked("2026-11-01T00:00:00Z", "2026-11-01T02:00:00Z")));
    simulation.scheduler.turn(Vec::new());
    assert_eq!(simulation.backfilled().len(), 3, "they are made, and none is promoted");
    let run_id = "backfill__2026-11-01T01:00:00+00:00".into();
    simulation.command(Command::MarkRun { dag_id: "d".into(), run_id, state: RunState::Failed });
    simulation.go_on();
    let states: Vec<RunState> = simulation.backfilled().iter().map(|run| run.state).collect();
    assert_eq!(states, [RunState::Running, RunState::Failed, RunState::Running]);
    assert_eq!(simulation.trace(), ["start d.a try 1", "start d.a try 1"]);
}

#[test]
fn runs_that_exist_are_skipped_or_cleared_as_the_behaviour_says() {
    let mut simulation = Simulation::with(&[("d.toml", HOURLY)]);
    simulation.backfill(asked("2026-11-01T00:00:00Z", "2026-11-01T01:00:00Z")).unwrap();
    simulation.go_on();
    let again = asked("2026-11-01T00:00:00Z", "2026-11-01T02:00:00Z");
    let done = simulation.backfill(again.clone());
    assert_eq!(done, Ok(Done::BackfillCreated { id: BackfillId(2), runs: 1, skipped: 2, is_paused: false }));
    let fates: Vec<_> = simulation.store.backfill_dates(BackfillId(2)).into_iter().map(|(_, fate)| fate).collect();
    assert_eq!(fates[..2], [Some(DateFate::Skipped(SkipReason::AlreadyExists)); 2]);
    let conf = json!({ "k": 1 }).as_object().cloned();
    let done = simulation.backfill(NewBackfill { reprocess: Reprocess::Completed, conf: conf.clone(), ..again });
    assert_eq!(done, Ok(Done::BackfillCreated { id: BackfillId(3), runs: 3, skipped: 0, is_paused: false }));
    simulation.go_on();
    let runs = simulation.backfilled();
    assert_eq!(runs.len(), 3, "no date has a second run");
    assert!(runs.iter().all(|run| run.state == RunState::Success && Some(&run.conf) == conf.as_ref()));
    let tries: Vec<u32> = simulation.store.instances().iter().map(|instance| instance.try_number).collect();
    assert_eq!(tries.iter().filter(|number| **number == 2).count(), 3, "{tries:?}");
    assert_eq!(simulation.store.history().len(), 3, "the tries before are kept");
}

#[test]
fn a_backfill_has_a_limit_of_its_own() {
    let mut simulation =
        Simulation::with(&[("d.toml", "schedule = \"0 * * * *\"\nmax_active_runs = 1\n[tasks.a]\nbash = \"x\"\n")]);
    let two = NewBackfill { max_active_runs: 2, ..asked("2026-11-01T00:00:00Z", "2026-11-01T05:00:00Z") };
    simulation.backfill(two).unwrap();
    simulation.go_on();
    let running =
        |simulation: &Simulation| simulation.backfilled().iter().filter(|run| run.state == RunState::Running).count();
    assert_eq!(running(&simulation), 2);
    // The DAG's own limit is 1, and it is free.
    simulation.advance(Duration::from_secs(1_800));
    let scheduled = simulation.store.runs().into_iter().filter(|run| run.run_type == RunType::Scheduled).count();
    assert_eq!(scheduled, 1);
    let done = simulation.command(Command::CancelBackfill { id: BackfillId(1) }).try_recv().unwrap();
    assert_eq!(done, Ok(Done::BackfillCancelled { queued: 4 }));
    assert_eq!(running(&simulation), 2, "what runs goes on");
    let failed = simulation.backfilled().into_iter().filter(|run| run.state == RunState::Failed);
    assert!(failed.map(|run| run.reason).eq(vec![Some("backfill_cancelled".to_owned()); 4]));
}

#[test]
fn a_database_that_could_not_be_asked_about_a_date_is_asked_again() {
    let mut simulation = Simulation::with(&[("d.toml", HOURLY)]);
    let replies = simulation.command(Command::CreateBackfill(asked("2026-11-01T00:00:00Z", "2026-11-01T03:00:00Z")));
    // The second date's first question.
    let error = StoreError { message: "find a run: disk I/O error".to_owned(), help: "look at the disk".to_owned() };
    simulation.store.fail_call(3, error);
    simulation.go_on();
    assert!(replies.try_recv().is_err());
    simulation.advance(Duration::from_secs(1));
    simulation.go_on();
    assert!(replies.try_recv().unwrap().is_ok());
    assert_eq!(simulation.backfilled().len(), 4);
    assert!(simulation.backfilled().iter().all(|run| run.state == RunState::Success));
}

#[test]
fn a_run_that_is_cleared_after_a_crash_has_the_tries_that_its_definition_gives() {
    let text = "schedule = \"0 * * * *\"\n[tasks.a]\nempty = true\nretries = 2\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    let one = asked("2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z");
    simulation.backfill(one.clone()).unwrap();
    simulation.go_on();
    simulation.command(Command::CreateBackfill(NewBackfill { reprocess: Reprocess::Completed, ..one }));
    let mut simulation = simulation.crash_and_restart();
    simulation.go_on();
    let instance = simulation.store.instances().pop().unwrap();
    assert_eq!((instance.try_number, instance.max_tries), (2, 3));
}

#[test]
fn a_failed_run_that_is_about_to_be_done_again_does_not_count_among_the_failures_in_a_row() {
    let text = "schedule = \"0 * * * *\"\nmax_consecutive_failed_dag_runs = 2\n[tasks.a]\nbash = \"false\"\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.advance(Duration::from_secs(1_860));
    simulation.end("d.a", Outcome::Exited(1));
    simulation.advance(Duration::from_secs(3_600));
    let again = asked("2026-11-21T13:00:00Z", "2026-11-21T13:00:00Z");
    simulation.command(Command::CreateBackfill(NewBackfill { reprocess: Reprocess::Failed, ..again }));
    // The turn that clears the first run.
    simulation.end("d.a", Outcome::Exited(1));
    let states: Vec<_> = simulation.store.runs().iter().map(|run| run.state).collect();
    assert_eq!(states, [RunState::Queued, RunState::Failed]);
    assert!(!simulation.store.dag("d").unwrap().is_paused);
}

#[test]
fn runs_that_a_cancelled_backfill_never_began_hold_back_what_depends_on_the_past() {
    let text = "schedule = \"0 * * * *\"\n[tasks.a]\nbash = \"true\"\ndepends_on_past = true\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.command(Command::SetPaused { dag_id: "d".into(), is_paused: true });
    let past = asked("2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z");
    simulation.backfill(NewBackfill { reprocess: Reprocess::Failed, ..past }).unwrap();
    simulation.command(Command::CancelBackfill { id: BackfillId(1) });
    simulation.command(Command::SetPaused { dag_id: "d".into(), is_paused: false });
    simulation.advance(Duration::from_secs(1_860));
    assert_eq!(simulation.store.runs().last().map(|run| run.state), Some(RunState::Running));
    assert!(simulation.trace().is_empty(), "as under Airflow, where their task instances exist and have not succeeded");
}

#[test]
fn a_schedule_that_catches_up_leaves_no_date_out_for_a_backfill_of_later_ones() {
    let text = "schedule = \"0 * * * *\"\nstart_date = 2026-11-21T06:00:00\ncatchup = true\nmax_active_runs = 1\n\
                [tasks.a]\nbash = \"true\"\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.backfill(asked("2026-11-21T09:00:00Z", "2026-11-21T10:00:00Z")).unwrap();
    for _ in 0..7 {
        simulation.succeed("d.a");
    }
    let mut hours: Vec<String> = simulation.store.runs().iter().map(|run| run.run_id.to_string()).collect();
    hours.sort_by_key(|run_id| run_id.split("__").nth(1).map(str::to_owned));
    let hours: Vec<String> = hours.iter().map(|run_id| run_id.replace("__2026-11-21T", " ")).collect();
    let expected =
        ["scheduled 06", "scheduled 07", "scheduled 08", "backfill 09", "backfill 10", "scheduled 11", "scheduled 12"];
    assert!(hours.iter().map(|hour| &hour[..hour.len() - 12]).eq(expected), "{hours:?}");
}
