//! Clears and marks through the whole loop.

use super::*;
use crate::model::{DagRun, Instance, SkipDecision};
use crate::scheduler::command::{
    Asker, Chosen, Clear, Done, MarkTasks, Only, PauseTask, RunRange, Spread, Stop, Touched,
};

/// `a >> b >> c`, once, with a retry for `b`.
const CHAIN: &str = "schedule = \"@once\"\nis_paused_upon_creation = false\n\
    tasks.a = { bash = \"x\" }\n\
    tasks.b = { bash = \"x\", depends_on = [\"a\"], retries = 1, retry_delay = \"10s\" }\n\
    tasks.c = { bash = \"x\", depends_on = [\"b\"] }\n";

pub(super) fn clear(dag_id: &str, tasks: &[&str]) -> Clear {
    Clear {
        dag_id: dag_id.into(),
        tasks: Chosen::Named(tasks.iter().map(|&task| task.to_owned()).collect()),
        spread: Spread::default(),
        map_index: None,
        runs: RunRange::default(),
        only: Only::default(),
        is_dry: false,
    }
}

fn downstream() -> Spread {
    Spread { downstream: true, upstream: false }
}

fn names(instances: &[Touched]) -> Vec<&str> {
    instances.iter().map(|touched| &*touched.task_id).collect()
}

impl Simulation {
    fn act(&mut self, command: Command) -> Reply {
        let replies = self.command(command);
        replies.try_recv().expect("the act is over")
    }

    pub(super) fn cleared(&mut self, clear: Clear) -> Vec<Touched> {
        match self.act(Command::Clear(clear)) {
            Ok(Done::Cleared { instances, .. }) => instances,
            other => panic!("{other:?}"),
        }
    }

    /// All turns that come without an event.
    fn settle_acts(&mut self) {
        while self.scheduler.world().has_more() {
            self.turn(Event::Tick);
        }
    }

    fn refusal(&mut self, command: Command) -> String {
        self.act(command).unwrap_err().to_string()
    }

    fn mark(&mut self, dag_id: &str, task: &str, state: TaskState, spread: Spread) -> Done {
        let (dag_id, tasks) = (dag_id.into(), vec![task.to_owned()]);
        let runs = RunRange { run_id: Some(self.last_run().run_id), ..RunRange::default() };
        self.act(Command::MarkTasks(MarkTasks { dag_id, tasks, spread, map_index: None, runs, state })).unwrap()
    }

    fn mark_run(&mut self, dag_id: &str, state: RunState) -> Done {
        let run_id = self.last_run().run_id;
        self.act(Command::MarkRun { dag_id: dag_id.into(), run_id, state }).unwrap()
    }

    fn last_run(&self) -> DagRun {
        self.store.runs().pop().expect("there is a run")
    }

    fn row(&self, task: &str) -> Instance {
        self.store.instances().into_iter().rfind(|row| &*row.task_id == task).expect("it has an instance")
    }

    fn all(&self, tasks: &[&str]) -> Vec<&'static str> {
        tasks.iter().map(|task| self.task_state(task).as_str()).collect()
    }

    /// A chain whose tasks have all succeeded.
    fn with_finished_chain() -> Self {
        let mut simulation = Self::with(&[("d.toml", CHAIN)]);
        for name in ["d.a", "d.b", "d.c"] {
            simulation.succeed(name);
        }
        assert_eq!(simulation.last_run().state, RunState::Success);
        simulation
    }
}

#[test]
fn a_dry_run_lists_in_order_what_then_runs_again() {
    let mut simulation = Simulation::with_finished_chain();
    let asked = Clear { spread: downstream(), ..clear("d", &["b"]) };
    let listed = simulation.cleared(Clear { is_dry: true, ..asked.clone() });
    assert_eq!(names(&listed), ["b", "c"]);
    assert_eq!(simulation.all(&["a", "b", "c"]), ["success"; 3]);
    simulation.trace();
    assert_eq!(simulation.cleared(asked), listed);
    simulation.succeed("d.b");
    simulation.succeed("d.c");
    let started: Vec<String> =
        simulation.trace().into_iter().map(|line| line.trim_end_matches(" try 2").to_owned()).collect();
    let expected: Vec<String> = listed.iter().map(|touched| format!("start d.{}", touched.task_id)).collect();
    assert_eq!(started, expected);
    assert_eq!(simulation.last_run().state, RunState::Success);
}

#[test]
fn a_cleared_task_of_a_finished_run_has_its_tries_again_and_the_old_one_is_history() {
    let mut simulation = Simulation::with_finished_chain();
    simulation.clock.advance(Duration::from_secs(60));
    simulation.cleared(clear("d", &["b"]));
    let run = simulation.last_run();
    assert_eq!((run.state, run.clear_number, run.end_date), (RunState::Running, 1, None));
    assert_eq!(run.queued_at, Some(simulation.clock.now()));
    let row = simulation.row("b");
    assert_eq!((row.state, row.try_number, row.max_tries), (TaskState::Queued, 2, 2));
    let past: Vec<(String, u32, TaskState)> =
        simulation.store.history().iter().map(|row| (row.task_id.to_string(), row.try_number, row.state)).collect();
    assert_eq!(past, [("b".to_owned(), 1, TaskState::Success)]);
    assert_eq!(simulation.all(&["a", "c"]), ["success"; 2]);
    simulation.end("d.b", Outcome::Exited(1));
    assert_eq!(simulation.task_state("b"), TaskState::UpForRetry);
}

#[test]
fn a_running_task_that_is_cleared_is_ended_and_runs_again_whatever_its_retries() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN)]);
    simulation.started("d.a");
    simulation.trace();
    simulation.cleared(clear("d", &["a"]));
    assert_eq!(
        (simulation.task_state("a"), simulation.trace()),
        (TaskState::Restarting, vec!["kill d.a: cleared".to_owned()])
    );
    simulation.end("d.a", Outcome::Killed { reason: "cleared".to_owned() });
    let row = simulation.row("a");
    assert_eq!((row.state, row.try_number, row.max_tries), (TaskState::Queued, 2, 1));
    let past = &simulation.store.history()[0];
    assert_eq!((past.state, past.reason.as_deref()), (TaskState::Failed, Some("cleared")));
    assert_eq!(simulation.trace(), ["start d.a try 2"]);
}

#[test]
fn a_task_that_runs_stands_still_and_goes_on_and_what_does_not_run_cannot() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN)]);
    let run_id = simulation.last_run().run_id;
    let asked = |task_id: &str, map_index, is_paused| {
        let (dag_id, run_id, task_id) = ("d".into(), run_id.clone(), task_id.into());
        Command::SetTaskPaused(PauseTask { dag_id, run_id, task_id, map_index, is_paused })
    };
    let refused = "`a` does not run: it is `queued`\n\
        help: only a running task can be paused, and go on; `minflow dags pause` holds back new runs";
    assert_eq!(simulation.refusal(asked("a", None, true)), refused);
    simulation.started("d.a");
    simulation.trace();
    let set = |changed, unchanged| Ok(Done::TaskPausedSet { changed, unchanged });
    assert_eq!(simulation.act(asked("a", None, true)), set(1, 0));
    assert_eq!(simulation.act(asked("a", Some(-1), true)), set(0, 1));
    assert_eq!(simulation.trace(), ["pause d.a"], "once");
    assert_eq!((simulation.task_state("a"), simulation.store.paused().len()), (TaskState::Running, 1));
    assert_eq!(simulation.act(asked("a", None, false)), set(1, 0));
    assert_eq!(simulation.act(asked("a", None, false)), set(0, 1));
    assert_eq!(simulation.trace(), ["resume d.a"]);
    assert!(simulation.store.paused().is_empty());
    simulation.act(asked("a", None, true)).unwrap();
    simulation.end("d.a", Outcome::Exited(0));
    assert!(simulation.store.paused().is_empty(), "it is over");
    assert!(simulation.refusal(asked("a", None, false)).starts_with("`a` does not run: it is `success`"));
    assert!(simulation.refusal(asked("c", None, true)).starts_with("`c` does not run: it is waiting for what it"));
    assert!(simulation.refusal(asked("x", None, true)).contains("has no task `x`"));
    assert!(simulation.refusal(asked("a", Some(3), true)).contains("no instance of map index 3 of `a`"));
    let events: Vec<&str> = simulation.store.audit().iter().map(|entry| entry.event).collect();
    assert_eq!(events.iter().filter(|event| event.ends_with("_task")).count(), 3, "{events:?}");
}

#[test]
fn what_stands_still_is_not_waited_for_when_minflow_stops() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN)]);
    simulation.started("d.a");
    let (dag_id, run_id, task_id) = ("d".into(), simulation.last_run().run_id, "a".into());
    let pause = PauseTask { dag_id, run_id, task_id, map_index: None, is_paused: true };
    simulation.act(Command::SetTaskPaused(pause.clone())).unwrap();
    simulation.trace();
    simulation.act(Command::Stop { how: Stop::Drain, by: Asker::Cli }).unwrap();
    assert_eq!(simulation.trace(), [""; 0]);
    assert!(simulation.scheduler.world().is_stopped());
    assert!(simulation.refusal(Command::SetTaskPaused(pause)).starts_with("minflow is stopping"));
}

#[test]
fn a_restart_that_a_crash_interrupts_is_finished_by_the_next_start() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN)]);
    simulation.started("d.a");
    simulation.cleared(clear("d", &["a"]));
    let mut simulation = simulation.crash_and_restart();
    assert_eq!(simulation.trace(), ["reclaim d.a try 1"]);
    simulation.end("d.a", Outcome::Lost);
    assert_eq!(simulation.trace(), ["start d.a try 2"]);
}

#[test]
fn a_retry_wait_and_a_place_in_the_queue_end_with_a_clear() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN)]);
    simulation.succeed("d.a");
    simulation.started("d.b");
    simulation.end("d.b", Outcome::Exited(1));
    assert_eq!(simulation.task_state("b"), TaskState::UpForRetry);
    simulation.cleared(clear("d", &["b"]));
    let row = simulation.row("b");
    assert_eq!((row.state, row.try_number, row.max_tries), (TaskState::Queued, 2, 2));
    simulation.trace();
    simulation.advance(Duration::from_secs(60));
    assert_eq!(simulation.trace(), Vec::<String>::new());
}

#[test]
fn only_what_failed_is_cleared_if_so_asked_and_runs_without_any_of_it_are_left_alone() {
    let text = CHAIN.replace("retries = 1, ", "");
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    simulation.succeed("d.a");
    simulation.started("d.b");
    simulation.end("d.b", Outcome::Exited(1));
    assert_eq!(simulation.last_run().state, RunState::Failed);
    let failed = Only { failed: true, running: false };
    let all = Clear { tasks: Chosen::All, only: failed, ..clear("d", &[]) };
    assert_eq!(names(&simulation.cleared(all.clone())), ["b", "c"]);
    simulation.succeed("d.b");
    simulation.succeed("d.c");
    assert_eq!((simulation.last_run().state, simulation.last_run().clear_number), (RunState::Success, 1));
    assert_eq!(simulation.cleared(all), []);
    assert_eq!(simulation.last_run().clear_number, 1);
}

#[test]
fn a_branch_that_was_not_taken_is_skipped_again_until_the_branch_itself_is_cleared() {
    let text = "schedule = \"@once\"\nis_paused_upon_creation = false\ntasks.choose = { bash = \"x\" }\n\
        tasks.left = { bash = \"x\", depends_on = [\"choose\"] }\n\
        tasks.right = { bash = \"x\", depends_on = [\"choose\"] }\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.decide("d.choose", SkipDecision::Followed(vec!["left".into()]));
    simulation.succeed("d.left");
    simulation.cleared(clear("d", &["left", "right"]));
    assert_eq!(simulation.all(&["left", "right"]), ["queued", "skipped"]);
    simulation.succeed("d.left");
    assert_eq!(simulation.last_run().state, RunState::Success);
    simulation.cleared(Clear { spread: downstream(), ..clear("d", &["choose"]) });
    simulation.decide("d.choose", SkipDecision::Followed(vec!["right".into()]));
    assert_eq!(simulation.all(&["left", "right"]), ["skipped", "queued"]);
}

#[test]
fn a_clear_of_many_runs_takes_many_turns_and_goes_on_after_a_crash() {
    let mut text =
        "schedule = \"*/5 * * * *\"\nstart_date = 2026-11-21T00:00:00\ncatchup = true\nmax_active_runs = 1\n\
        is_paused_upon_creation = false\n"
            .to_owned();
    for at in 0..40 {
        text.push_str(&format!("tasks.t{at} = {{ empty = true }}\n"));
    }
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    while simulation.scheduler.world().has_more() {
        simulation.turn(Event::Tick);
    }
    let runs = simulation.store.runs();
    assert!(runs.len() > 140 && runs.iter().all(|run| run.state == RunState::Success), "{}", runs.len());
    simulation.command(Command::SetPaused { dag_id: "d".into(), is_paused: true });
    let range = RunRange { run_id: Some(runs[129].run_id.clone()), past: true, ..RunRange::default() };
    let asked = Clear { runs: range, tasks: Chosen::All, ..clear("d", &[]) };
    let replies = simulation.command(Command::Clear(asked));
    let cleared = |simulation: &Simulation| simulation.store.runs().iter().filter(|run| run.clear_number == 1).count();
    assert!(replies.try_recv().is_err(), "it is not over");
    assert!((1..130).contains(&cleared(&simulation)), "{}", cleared(&simulation));
    let mut simulation = simulation.crash_and_restart();
    while simulation.scheduler.world().has_more() {
        simulation.turn(Event::Tick);
    }
    assert_eq!(cleared(&simulation), 130);
    assert!(simulation.store.runs().iter().all(|run| run.clear_number <= 1));
    let audit = simulation.store.audit();
    let told: Vec<_> = audit.iter().filter(|entry| entry.event == "clear").map(|entry| &entry.extra).collect();
    assert_eq!(
        (told.len(), told[0]["instances"].as_u64(), told[0]["runs_touched"].as_u64()),
        (1, Some(5_200), Some(130))
    );
    assert_eq!(simulation.store.clone().load().unwrap().acts, []);
}

#[test]
fn what_waits_for_the_run_before_waits_again_when_that_is_cleared() {
    let text = "schedule = \"@hourly\"\nstart_date = 2026-11-21T11:00:00\ncatchup = true\nis_paused_upon_creation = false\n\
        tasks.a = { bash = \"x\", depends_on_past = true }\ntasks.b = { bash = \"x\", depends_on = [\"a\"] }\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.succeed("d.a");
    // The second run's `a` has started; clear the first: the second is cleared too, and waits for the first.
    simulation.cleared(clear("d", &["a"]));
    let states = |simulation: &Simulation| -> Vec<&'static str> {
        let rows = simulation.store.instances();
        rows.iter().filter(|row| &*row.task_id == "a").map(|row| row.state.as_str()).collect()
    };
    assert_eq!(states(&simulation), ["queued", "restarting"]);
}

#[test]
fn a_mark_sets_a_task_and_what_failed_after_it_runs_again() {
    let text = CHAIN.replace("retries = 1, ", "");
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    simulation.succeed("d.a");
    simulation.started("d.b");
    simulation.end("d.b", Outcome::Exited(1));
    let done = simulation.mark("d", "b", TaskState::Success, Spread::default());
    let Done::Marked { instances, cleared, .. } = done else { panic!("{done:?}") };
    assert_eq!((names(&instances), cleared), (vec!["b"], 1));
    assert_eq!(simulation.all(&["a", "b", "c"]), ["success", "success", "queued"]);
    simulation.succeed("d.c");
    assert_eq!(simulation.last_run().state, RunState::Success);
}

#[test]
fn a_mark_ends_what_runs_and_the_row_keeps_the_mark() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN)]);
    simulation.started("d.a");
    simulation.trace();
    simulation.mark("d", "a", TaskState::Success, Spread::default());
    assert_eq!(simulation.trace(), ["kill d.a: set to success", "start d.b try 1"]);
    simulation.end("d.a", Outcome::Killed { reason: "set to success".to_owned() });
    assert_eq!(simulation.task_state("a"), TaskState::Success);
}

#[test]
fn a_mark_of_a_task_in_a_finished_run_leaves_the_run_as_it_is_unless_something_runs_again() {
    let mut simulation = Simulation::with_finished_chain();
    simulation.mark("d", "c", TaskState::Failed, Spread::default());
    assert_eq!((simulation.task_state("c"), simulation.last_run().state), (TaskState::Failed, RunState::Success));
    let done = simulation.mark("d", "a", TaskState::Skipped, Spread::default());
    assert!(matches!(done, Done::Marked { cleared: 1, .. }), "{done:?}");
    assert_eq!(simulation.last_run().state, RunState::Running);
}

#[test]
fn a_run_that_a_user_ends_ends_its_tasks() {
    let text = CHAIN.replace("tasks.c", "tasks.d = { bash = \"x\" }\ntasks.c");
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    simulation.succeed("d.d");
    simulation.started("d.a");
    simulation.trace();
    let done = simulation.mark_run("d", RunState::Failed);
    assert_eq!(done, Done::RunMarked { was: RunState::Running, instances: 3, is_open: false });
    assert_eq!(simulation.all(&["a", "b", "c", "d"]), ["failed", "skipped", "skipped", "success"]);
    assert_eq!(simulation.trace(), ["kill d.a: set to failed"]);
    simulation.end("d.a", Outcome::Killed { reason: "x".to_owned() });
    assert_eq!(simulation.last_run().state, RunState::Failed);
    let ended_at = simulation.last_run().end_date;
    simulation.clock.advance(Duration::from_secs(9));
    simulation.mark_run("d", RunState::Success);
    assert_eq!((simulation.last_run().state, simulation.last_run().end_date), (RunState::Success, ended_at));
    simulation
        .act(Command::MarkRun { dag_id: "d".into(), run_id: simulation.last_run().run_id, state: RunState::Queued })
        .unwrap();
    assert_eq!(simulation.all(&["a", "b", "c", "d"]), ["queued", "none", "none", "queued"]);
}

#[test]
fn a_clear_of_a_run_that_a_process_has_outlived_follows_a_file_that_has_fewer_tasks_since() {
    let mut simulation = Simulation::with(&[("d.toml", CHAIN)]);
    simulation.started("d.a");
    simulation.mark_run("d", RunState::Failed);
    simulation.save("d.toml", "tasks.b = { bash = \"x\", retries = 4 }");
    simulation.trace();
    assert_eq!(names(&simulation.cleared(clear("d", &["b"]))), ["b"]);
    assert_eq!(simulation.trace(), ["start d.b try 1"]);
    assert_eq!(simulation.row("b").max_tries, 4);
}

#[test]
fn what_cannot_be_cleared_says_why() {
    let mut simulation = Simulation::with_finished_chain();
    let unknown = simulation.refusal(Command::Clear(clear("d", &["bb"])));
    assert_eq!(unknown, "`d` has no task `bb`\nhelp: did you mean `b`?");
    let index = simulation.refusal(Command::Clear(Clear { map_index: Some(3), ..clear("d", &["b"]) }));
    assert!(index.starts_with("`b` has no instance of map index 3 there\nhelp: "), "{index}");
    let dates = RunRange { from: Some("2030-01-01T00:00:00Z".parse().unwrap()), ..RunRange::default() };
    let none = simulation.refusal(Command::Clear(Clear { runs: dates, ..clear("d", &["b"]) }));
    assert!(none.starts_with("`d` has no run from 2030-01-01T00:00:00+00:00\nhelp: "), "{none}");
    let run = RunRange { run_id: Some("nope".into()), ..RunRange::default() };
    let none = simulation.refusal(Command::Clear(Clear { runs: run, ..clear("d", &["b"]) }));
    assert!(none.starts_with("`d` has no run `nope`\nhelp: "), "{none}");
    let state = simulation.refusal(Command::MarkTasks(MarkTasks {
        dag_id: "d".into(),
        tasks: vec!["b".to_owned()],
        spread: Spread::default(),
        map_index: None,
        runs: RunRange::default(),
        state: TaskState::Running,
    }));
    assert_eq!(state, "a task cannot be set to `running`\nhelp: choose success, failed or skipped");
    assert_eq!(simulation.store.history(), []);
}

#[test]
fn every_act_is_in_the_audit_log_with_how_much_it_touched() {
    let mut simulation = Simulation::with_finished_chain();
    simulation.cleared(Clear { is_dry: true, ..clear("d", &["b"]) });
    simulation.cleared(Clear { spread: downstream(), ..clear("d", &["b"]) });
    simulation.mark("d", "b", TaskState::Skipped, Spread::default());
    simulation.mark_run("d", RunState::Failed);
    let run_id = simulation.last_run().run_id;
    let task = Some(("b".into(), -1));
    let note = Some("checked by hand".to_owned());
    simulation.act(Command::Note { dag_id: "d".into(), run_id: run_id.clone(), task, note: note.clone() }).unwrap();
    let told: Vec<(&str, i64)> = simulation
        .store
        .audit()
        .iter()
        .map(|entry| (entry.event, entry.extra["instances"].as_i64().unwrap_or(-1)))
        .collect();
    assert_eq!(told, [("clear", 2), ("mark_tasks", 1), ("mark_run", 0), ("note", -1)]);
    let row = simulation.row("b");
    assert_eq!(simulation.store.note(row.run, Some(row.key)), note);
}

#[test]
fn a_cleared_run_of_a_completed_backfill_runs_as_any_other() {
    let text = "schedule = \"@hourly\"\nstart_date = 2026-11-21T00:00:00\nis_paused_upon_creation = false\ntasks.a = { bash = \"x\" }\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    let replies = simulation.command(Command::CreateBackfill(crate::scheduler::command::NewBackfill {
        dag_id: "d".into(),
        from_date: "2026-11-21T01:00:00Z".parse().unwrap(),
        to_date: "2026-11-21T01:30:00Z".parse().unwrap(),
        reprocess: crate::model::Reprocess::None,
        is_backwards: false,
        max_active_runs: 1,
        conf: None,
    }));
    while simulation.scheduler.world().has_more() {
        simulation.turn(Event::Tick);
    }
    replies.try_recv().unwrap().unwrap();
    simulation.succeed("d.a");
    assert!(simulation.store.backfills()[0].completed_at.is_some());
    let backfilled = simulation.store.runs().into_iter().find(|run| run.backfill.is_some()).unwrap();
    let runs = RunRange { run_id: Some(backfilled.run_id.clone()), ..RunRange::default() };
    simulation.cleared(Clear { runs, ..clear("d", &["a"]) });
    let find = |simulation: &Simulation| simulation.store.runs().into_iter().find(|run| run.key == backfilled.key);
    let run = find(&simulation).unwrap();
    assert_eq!((run.state, run.is_released, run.backfill), (RunState::Running, true, backfilled.backfill));
    let mut simulation = simulation.crash_and_restart();
    simulation.end("d.a", Outcome::Lost);
    assert_eq!(find(&simulation).unwrap().state, RunState::Failed);
}

#[test]
fn one_instance_of_a_mapped_task_is_cleared_in_a_run_that_is_over_and_the_others_keep_their_states() {
    let text = "schedule = \"@once\"\nis_paused_upon_creation = false\ntasks.list = { bash = \"x\" }\n\
        [tasks.each]\nbash = \"x\"\nexpand = { x = { xcom = \"list\" } }\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.started("d.list");
    let now = simulation.clock.now();
    let end = TryEnd {
        started_at: Some(now),
        xcoms: vec![("return_value".to_owned(), serde_json::json!([1, 2, 3]))],
        lengths: vec![("return_value".to_owned(), 3)],
        ..TryEnd::new(simulation.key("d.list"), Outcome::Exited(0), now)
    };
    simulation.turn(Event::Ended(Box::new(end)));
    for _ in 0..3 {
        simulation.succeed("d.each");
    }
    assert_eq!(simulation.last_run().state, RunState::Success);
    let cleared = simulation.cleared(Clear { map_index: Some(1), ..clear("d", &["each"]) });
    assert_eq!(cleared.iter().map(|touched| touched.map_index).collect::<Vec<_>>(), [1]);
    let states = |simulation: &Simulation| -> Vec<(i32, &'static str, u32)> {
        let rows = simulation.store.instances();
        let of_each = rows.iter().filter(|row| &*row.task_id == "each");
        let mut states: Vec<_> = of_each.map(|row| (row.map_index, row.state.as_str(), row.try_number)).collect();
        states.sort_unstable();
        states
    };
    assert_eq!(states(&simulation), [(0, "success", 1), (1, "queued", 2), (2, "success", 1)]);
    let mut simulation = simulation.crash_and_restart();
    simulation.end("d.each", Outcome::Lost);
    simulation.cleared(Clear { only: Only { failed: true, running: false }, ..clear("d", &["each"]) });
    simulation.succeed("d.each");
    assert_eq!(simulation.last_run().state, RunState::Success);
    assert_eq!(states(&simulation), [(0, "success", 1), (1, "success", 3), (2, "success", 1)]);
}

/// `src`, four instances of `each` mapped over a list in the file, and `after`, all over.
fn with_finished_map() -> Simulation {
    let text = "schedule = \"@once\"\nis_paused_upon_creation = false\ntasks.src = { bash = \"x\" }\n\
        tasks.each = { empty = true, expand = { x = [1, 2, 3, 4] }, depends_on = [\"src\"] }\n\
        tasks.after = { empty = true, depends_on = [\"each\"] }\n";
    let mut simulation = Simulation::with(&[("d.toml", text), ("other.toml", "tasks.t = { bash = \"x\" }")]);
    simulation.succeed("d.src");
    assert_eq!(simulation.last_run().state, RunState::Success);
    simulation.scheduler.world.acts.set_bounds(2, 3);
    simulation.trace();
    simulation
}

fn clear_all(dag_id: &str) -> Command {
    Command::Clear(Clear { tasks: Chosen::All, ..clear(dag_id, &[]) })
}

#[test]
fn a_large_run_is_cleared_in_pieces_and_nothing_of_it_begins_before_the_last() {
    let mut simulation = with_finished_map();
    let replies = simulation.command(clear_all("d"));
    let mut cleared = Vec::new();
    while simulation.scheduler.world().has_more() {
        assert!(replies.try_recv().is_err(), "it is not over");
        let waits = simulation.store.instances().iter().filter(|row| row.state == TaskState::None).count();
        assert!(waits < 6 && simulation.trace().is_empty(), "{waits}");
        assert!(waits == 0 || simulation.last_run().state == RunState::Queued);
        cleared.push(waits);
        simulation.turn(Event::Tick);
    }
    // Six instances are read three by three and a look finds no more; then they are cleared two by two.
    assert_eq!(cleared, [0, 0, 2, 4]);
    let Ok(Ok(Done::Cleared { instances, runs: 1 })) = replies.try_recv() else { panic!("it is not over") };
    assert_eq!(names(&instances), ["src", "each", "each", "each", "each", "after"]);
    assert_eq!((simulation.last_run().clear_number, simulation.store.history().len()), (1, 6));
    assert_eq!(simulation.trace(), ["start d.src try 2"]);
    simulation.succeed("d.src");
    assert_eq!(simulation.last_run().state, RunState::Success);
    assert!(simulation.store.instances().iter().all(|row| row.try_number == 2));
    let audit = simulation.store.audit();
    let told: Vec<_> = audit.iter().map(|entry| (&entry.extra["instances"], &entry.extra["runs_touched"])).collect();
    assert_eq!(told, [(&6.into(), &1.into())]);
}

#[test]
fn a_crash_in_the_midst_of_a_large_run_leaves_it_held_until_the_rest_is_cleared() {
    let mut simulation = with_finished_map();
    simulation.command(clear_all("d"));
    (0..2).for_each(|_| simulation.turn(Event::Tick));
    assert_eq!(simulation.all(&["src", "after"]), ["none", "success"]);
    let text = simulation.files.remove("d.toml").unwrap();
    let mut simulation = simulation.crash_and_restart();
    assert_eq!((simulation.last_run().state, simulation.trace()), (RunState::Queued, vec![]), "its file is gone");
    simulation.save("d.toml", &text);
    simulation.settle_acts();
    assert_eq!((simulation.last_run().clear_number, simulation.store.history().len()), (1, 6));
    assert_eq!(simulation.trace(), ["start d.src try 2"]);
    simulation.succeed("d.src");
    assert_eq!(simulation.last_run().state, RunState::Success);
}

#[test]
fn what_a_user_sets_a_large_run_to_while_it_is_cleared_is_done_after_that() {
    let mut simulation = with_finished_map();
    simulation.command(clear_all("d"));
    (0..2).for_each(|_| simulation.turn(Event::Tick));
    assert_eq!(simulation.task_state("src"), TaskState::None);
    let run_id = simulation.last_run().run_id;
    let replies = simulation.command(Command::MarkRun { dag_id: "d".into(), run_id, state: RunState::Failed });
    simulation.settle_acts();
    let done = replies.try_recv().unwrap().unwrap();
    assert_eq!(done, Done::RunMarked { was: RunState::Queued, instances: 6, is_open: false });
    assert_eq!(simulation.last_run().state, RunState::Failed);
    assert!(simulation.store.instances().iter().all(|row| row.state == TaskState::Skipped));
}

#[test]
fn a_run_times_out_after_it_was_cleared_and_not_in_the_midst() {
    let mut text = "schedule = \"@once\"\nis_paused_upon_creation = false\ndagrun_timeout = \"60s\"\n".to_owned();
    (0..9).for_each(|at| text.push_str(&format!("tasks.t{at} = {{ empty = true }}\n")));
    text.push_str("tasks.z = { bash = \"x\" }\n");
    let mut simulation = Simulation::with(&[("d.toml", &text)]);
    simulation.scheduler.world.acts.set_bounds(2, 3);
    simulation.command(clear_all("d"));
    simulation.clock.advance(Duration::from_secs(61));
    simulation.turn(Event::Tick);
    assert_eq!((simulation.last_run().state, simulation.task_state("t8")), (RunState::Running, TaskState::Success));
    simulation.settle_acts();
    simulation.advance(Duration::from_secs(1));
    assert_eq!((simulation.last_run().state, simulation.last_run().clear_number), (RunState::Failed, 1));
}

#[test]
fn an_act_on_another_dag_does_not_wait_for_a_large_clear() {
    let mut simulation = with_finished_map();
    simulation.command(super::tests::trigger("other"));
    simulation.started("other.t");
    simulation.trace();
    let first = simulation.command(clear_all("d"));
    let second = simulation.command(clear_all("d"));
    simulation.command(clear_all("other"));
    // In this turn the first was at work; it is the other's turn now.
    simulation.turn(Event::Tick);
    assert_eq!(simulation.trace(), ["kill other.t: cleared"]);
    assert!(first.try_recv().is_err() && second.try_recv().is_err(), "the first is not over");
    simulation.settle_acts();
    let cleared = |replies: Receiver<Reply>| match replies.try_recv().unwrap().unwrap() {
        Done::Cleared { instances, .. } => instances.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(cleared(first), 6);
    // By then `src` was under way again.
    assert!(cleared(second) <= 1);
}

#[test]
fn a_dry_run_reads_a_large_run_piece_by_piece() {
    let mut simulation = with_finished_map();
    let asked = Clear { tasks: Chosen::All, is_dry: true, ..clear("d", &[]) };
    let replies = simulation.command(Command::Clear(asked));
    assert!(replies.try_recv().is_err(), "it is not over");
    simulation.settle_acts();
    let Ok(Ok(Done::Cleared { instances, .. })) = replies.try_recv() else { panic!("it is not over") };
    assert_eq!(names(&instances), ["src", "each", "each", "each", "each", "after"]);
    assert_eq!((simulation.last_run().clear_number, simulation.last_run().state), (0, RunState::Success));
}
