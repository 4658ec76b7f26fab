//! Mapped tasks through the whole loop: piece by piece, over restarts, and when what they are mapped over changes.

use std::fmt::Write;

use super::acts::clear;
use super::*;
use crate::model::{AskedDate, Existing, RunRequest};
use crate::scheduler::command::{Chosen, Clear};
use crate::scheduler::decide::PIECE_ROWS;

/// `src` pushes a list, `each` is mapped over it, and `after` runs when all of that is over.
const LINE: &str = "schedule = \"@once\"\nis_paused_upon_creation = false\n\
    tasks.src = { bash = \"x\", output = \"json\" }\n\
    tasks.each = { empty = true, expand = { x = { xcom = \"src\" } } }\n\
    tasks.after = { empty = true, depends_on = [\"each\"] }\n";

impl Simulation {
    fn push(&mut self, name: &str, length: u32) {
        self.started(name);
        let now = self.clock.now();
        let lengths = vec![("return_value".to_owned(), length)];
        let end = TryEnd { started_at: Some(now), lengths, ..TryEnd::new(self.key(name), Outcome::Exited(0), now) };
        self.turn(Event::Ended(Box::new(end)));
    }

    fn settle(&mut self) {
        while self.scheduler.world().has_more() {
            self.scheduler.turn(Vec::new());
        }
    }

    /// The map indexes and states of a task's instances, by index.
    pub(super) fn instances_of(&self, task: &str) -> Vec<(i32, TaskState)> {
        let rows = self.store.instances();
        let of_task = rows.iter().filter(|row| &*row.task_id == task);
        let mut found: Vec<_> = of_task.map(|row| (row.map_index, row.state)).collect();
        found.sort_unstable_by_key(|&(index, _)| index);
        found
    }
}

#[test]
fn a_pushed_list_is_known_after_a_restart_and_its_instances_run() {
    let mut simulation = Simulation::with(&[("m.toml", LINE)]);
    assert_eq!(simulation.instances_of("each"), [(-1, TaskState::None)]);
    simulation.push("m.src", 3);
    let simulation = simulation.crash_and_restart();
    assert_eq!(simulation.instances_of("each"), [0, 1, 2].map(|index| (index, TaskState::Success)));
    assert_eq!(simulation.run_states()[0].1, RunState::Success);
}

#[test]
fn a_large_map_is_made_in_pieces_and_a_crash_between_them_loses_none() {
    let count = 3 * PIECE_ROWS as u32 + 7;
    let mut simulation = Simulation::with(&[("m.toml", LINE)]);
    simulation.push("m.src", count);
    let made = simulation.instances_of("each").len();
    assert!(made <= PIECE_ROWS + 1 && made > 1, "one turn has made {made}");
    assert!(simulation.scheduler.world().has_more());
    let mut simulation = simulation.crash_and_restart();
    simulation.settle();
    let found = simulation.instances_of("each");
    assert!(found.iter().map(|&(index, _)| index).eq(0..count as i32), "{} instances", found.len());
    assert!(found.iter().all(|&(_, state)| state == TaskState::Success));
    assert_eq!(simulation.run_states()[0].1, RunState::Success);
    for commit in simulation.store.commits() {
        assert!(commit.rows() <= 2 * PIECE_ROWS, "a turn of {} rows", commit.rows());
    }
}

#[test]
fn a_large_list_in_the_file_is_made_in_pieces_too() {
    let mut list = String::new();
    (0..3 * PIECE_ROWS).for_each(|number| write!(list, "{number},").unwrap());
    let text = format!(
        "schedule = \"@once\"\nis_paused_upon_creation = false\n\
         tasks.each = {{ empty = true, expand = {{ x = [{list}] }} }}\n\
         tasks.after = {{ empty = true, depends_on = [\"each\"] }}\n"
    );
    let mut simulation = Simulation::with(&[("m.toml", &text)]);
    simulation.settle();
    assert_eq!(simulation.instances_of("each").len(), 3 * PIECE_ROWS);
    assert_eq!(simulation.run_states()[0].1, RunState::Success);
}

#[test]
fn a_task_that_is_mapped_no_longer_has_one_instance_again() {
    let text = LINE.replace("empty = true, expand", "bash = \"x\", expand");
    let mut simulation = Simulation::with_parallelism(1, &[("m.toml", &text)]);
    simulation.push("m.src", 2);
    simulation.save("m.toml", &text.replace(", expand = { x = { xcom = \"src\" } }", ", depends_on = [\"src\"]"));
    let found = simulation.instances_of("each");
    let indexes: Vec<i32> = found.iter().map(|&(index, _)| index).collect();
    assert!(indexes == [0, 1] || indexes == [-1, 0, 1], "{found:?}");
    assert_eq!(found.last(), Some(&(1, TaskState::Removed)));
}

#[test]
fn a_list_that_is_given_anew_after_the_runs_end_is_not_mistaken_for_the_one_before() {
    let text = "schedule = \"@once\"\nis_paused_upon_creation = false\ntasks.a = { bash = \"x\" }\ntasks.b = { bash = \"x\" }\n\
        tasks.each = { bash = \"x\", expand = { x = { xcom = \"a\" }, y = { xcom = \"b\" } } }\n";
    let mut simulation = Simulation::with(&[("m.toml", text)]);
    simulation.push("m.a", 1);
    simulation.push("m.b", 1);
    let epoch = |simulation: &Simulation| simulation.calls.0.lock().epochs["m.each[0]"];
    let first = epoch(&simulation);
    simulation.succeed("m.each");
    assert_eq!(simulation.run_states()[0].1, RunState::Success);
    // One list is removed and one is given: as many changes as before.
    simulation.cleared(Clear { tasks: Chosen::Named(vec!["a".to_owned(), "each".to_owned()]), ..clear("m", &[]) });
    simulation.push("m.a", 1);
    assert_ne!(epoch(&simulation), first, "workers keep what was given by this number");
}

#[test]
fn what_is_surplus_stays_removed_when_its_run_is_done_over_again() {
    let line = LINE.replace("schedule = \"@once\"\n", "").replace("after = { empty = true", "after = { bash = \"x\"");
    let caller = "tasks.call = { trigger_dag = { dag_id = \"m\" } }\n";
    for is_over in [false, true] {
        let mut simulation = Simulation::with(&[("m.toml", &line), ("caller.toml", caller)]);
        simulation.command(super::tests::trigger("m"));
        simulation.push("m.src", 3);
        simulation.succeed("m.after");
        simulation.cleared(Clear { tasks: Chosen::All, ..clear("m", &[]) });
        simulation.push("m.src", 2);
        let two = [(0, TaskState::Success), (1, TaskState::Success), (2, TaskState::Removed)];
        assert_eq!(simulation.instances_of("each"), two);
        if is_over {
            simulation.succeed("m.after");
        }
        simulation.command(super::tests::trigger("caller"));
        let run = simulation.store.runs().into_iter().find(|run| &*run.dag_id == "m").unwrap();
        assert_eq!(run.state.is_finished(), is_over);
        let request = RunRequest {
            dag_id: "m".into(),
            conf: serde_json::Map::new(),
            logical_date: AskedDate::None,
            run_id: Some(run.run_id),
            existing: Existing::Reset,
            wait: None,
        };
        simulation.end("caller.call", Outcome::Asks(Box::new(request)));
        simulation.push("m.src", 2);
        assert_eq!(simulation.instances_of("each"), two, "run is over: {is_over}");
    }
}

#[test]
fn what_was_removed_keeps_the_instant_of_it_over_a_restart() {
    let line = LINE.replace("schedule = \"@once\"\n", "").replace("after = { empty = true", "after = { bash = \"x\"");
    let mut simulation = Simulation::with(&[("m.toml", &line)]);
    simulation.command(super::tests::trigger("m"));
    simulation.push("m.src", 3);
    simulation.succeed("m.after");
    simulation.cleared(Clear { tasks: Chosen::All, ..clear("m", &[]) });
    simulation.push("m.src", 2);
    assert_eq!(simulation.instances_of("each")[2], (2, TaskState::Removed));
    let before = simulation.store.instances();
    simulation.advance(Duration::from_secs(60));
    let simulation = simulation.crash_and_restart();
    assert_eq!(simulation.store.instances(), before);
}

#[test]
fn one_of_many_whose_task_is_mapped_no_longer_has_no_next_try() {
    let text = LINE.replace("empty = true, expand", "bash = \"x\", retries = 1, expand");
    let mut simulation = Simulation::with(&[("m.toml", &text)]);
    simulation.push("m.src", 2);
    simulation.save("m.toml", &text.replace(", expand = { x = { xcom = \"src\" } }", ", depends_on = [\"src\"]"));
    simulation.end("m.each[1]", Outcome::Exited(1));
    assert_eq!(simulation.instances_of("each")[1], (1, TaskState::Failed));
    let before = simulation.store.instances();
    let simulation = simulation.crash_and_restart();
    assert_eq!(simulation.store.instances(), before);
}

#[test]
fn a_task_whose_last_instance_of_many_goes_with_its_try_has_its_own_at_once() {
    let text = LINE.replace("empty = true, expand", "bash = \"x\", expand");
    let plain = text.replace(", expand = { x = { xcom = \"src\" } }", ", depends_on = [\"src\"]");
    for is_cleared in [false, true] {
        let mut simulation = Simulation::with(&[("m.toml", &text)]);
        simulation.push("m.src", 1);
        if is_cleared {
            simulation.started("m.each[0]");
        }
        simulation.save("m.toml", &plain);
        if is_cleared {
            simulation.cleared(Clear { tasks: Chosen::Named(vec!["each".to_owned()]), ..clear("m", &[]) });
            simulation.end("m.each[0]", Outcome::Signaled(15));
        } else {
            let outcome = Outcome::Unstarted { reason: "no processes left".to_owned() };
            let end = TryEnd::new(simulation.key("m.each[0]"), outcome, simulation.clock.now());
            simulation.turn(Event::Ended(Box::new(end)));
        }
        let found = simulation.instances_of("each");
        assert_eq!(found, [(-1, TaskState::Queued), (0, TaskState::Removed)], "cleared: {is_cleared}");
        simulation.succeed("m.each");
        assert_eq!(simulation.run_states()[0].1, RunState::Success);
    }
}

#[test]
fn what_comes_after_a_mapped_task_in_its_group_becomes_many_as_soon_as_that_has() {
    let text = "tasks.src = { bash = \"x\", output = \"json\" }\n[groups.g]\nexpand = { x = { xcom = \"src\" } }\n\
        tasks.a = { bash = \"x\" }\ntasks.b = { bash = \"x\", depends_on = [\"a\"] }\n";
    let mut simulation = Simulation::with(&[("m.toml", text)]);
    simulation.command(super::tests::trigger("m"));
    simulation.push("m.src", 2);
    assert_eq!(simulation.instances_of("g.a"), [(0, TaskState::Queued), (1, TaskState::Queued)]);
    assert_eq!(simulation.instances_of("g.b"), [(0, TaskState::None), (1, TaskState::None)]);
}
