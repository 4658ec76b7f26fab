//! Branches, short circuits and `fail_fast` through the whole loop.

use super::*;
use crate::model::SkipDecision;

/// `choose` decides between `left` and `right`; `join` runs after whichever does.
const BRANCH: &str = "schedule = \"@once\"\nis_paused_upon_creation = false\n\
    tasks.choose = { bash = \"x\" }\n\
    tasks.left = { bash = \"x\", depends_on = [\"choose\"] }\n\
    tasks.right = { bash = \"x\", depends_on = [\"choose\"] }\n\
    tasks.join = { bash = \"x\", depends_on = [\"left\", \"right\"], trigger_rule = \"none_failed_min_one_success\" }\n";

impl Simulation {
    /// The try succeeds, and has decided; its worker has pushed the decision too.
    pub(super) fn decide(&mut self, name: &str, decision: SkipDecision) {
        self.started(name);
        let now = self.clock.now();
        let end = TryEnd {
            started_at: Some(now),
            xcoms: vec![(SkipDecision::XCOM_KEY.to_owned(), decision.to_xcom())],
            decision: Some(decision),
            ..TryEnd::new(self.key(name), Outcome::Exited(0), now)
        };
        self.turn(Event::Ended(Box::new(end)));
    }

    fn states(&self, tasks: &[&str]) -> Vec<&'static str> {
        tasks.iter().map(|task| self.task_state(task).as_str()).collect()
    }
}

#[test]
fn a_branch_skips_what_it_does_not_follow_and_the_join_runs() {
    let mut simulation = Simulation::with(&[("b.toml", BRANCH)]);
    simulation.decide("b.choose", SkipDecision::Followed(vec!["left".into()]));
    assert_eq!(simulation.states(&["left", "right", "join"]), ["queued", "skipped", "none"]);
    simulation.succeed("b.left");
    simulation.succeed("b.join");
    assert_eq!(simulation.run_states()[0].1, RunState::Success);
}

#[test]
fn a_short_circuit_skips_all_that_it_names_whatever_their_rules() {
    let mut simulation = Simulation::with(&[("b.toml", BRANCH)]);
    let below = ["left", "right", "join"];
    simulation.decide("b.choose", SkipDecision::Skipped(below.map(Into::into).to_vec()));
    assert_eq!(simulation.states(&below), ["skipped"; 3]);
    assert_eq!(simulation.run_states()[0].1, RunState::Success);
}

#[test]
fn a_decision_is_known_after_a_restart() {
    let text = BRANCH
        .replace("tasks.choose = { bash = \"x\" }", "tasks.choose = { bash = \"x\" }\ntasks.slow = { bash = \"x\" }");
    let text = text.replace(
        "tasks.right = { bash = \"x\", depends_on = [\"choose\"] }",
        "tasks.right = { bash = \"x\", depends_on = [\"choose\", \"slow\"] }",
    );
    let mut simulation = Simulation::with(&[("b.toml", &text)]);
    simulation.decide("b.choose", SkipDecision::Followed(vec!["left".into()]));
    let simulation = simulation.crash_and_restart();
    let run = &simulation.scheduler.world().dags[0].runs;
    let run = simulation.scheduler.world().run(run.first().unwrap().1);
    assert_eq!(run.decisions.values().collect::<Vec<_>>(), [&SkipDecision::Followed(vec!["left".into()])]);
}
#[test]
fn the_first_failure_in_a_dag_that_fails_fast_ends_all_but_teardowns() {
    let text = "schedule = \"@once\"\nis_paused_upon_creation = false\nfail_fast = true\n\
        tasks.a = { bash = \"x\" }\ntasks.b = { bash = \"x\" }\ntasks.c = { bash = \"x\" }\n\
        tasks.d = { bash = \"x\", depends_on = [\"c\"] }\n\
        tasks.open = { bash = \"x\", setup = true }\n\
        tasks.close = { bash = \"x\", teardown_of = [\"open\"] }\n";
    let mut simulation = Simulation::with(&[("f.toml", text)]);
    simulation.succeed("f.open");
    simulation.started("f.b");
    simulation.started("f.a");
    simulation.trace();
    simulation.end("f.a", Outcome::Exited(1));
    assert_eq!(simulation.states(&["a", "b", "c", "d", "close"]), ["failed", "failed", "skipped", "skipped", "queued"]);
    assert_eq!(simulation.trace(), ["kill f.b: failed", "kill f.c: skipped"]);
    simulation.succeed("f.close");
    assert_eq!(simulation.run_states()[0].1, RunState::Failed);
}

#[test]
fn one_of_many_branches_decides_for_its_own_copy_alone() {
    let text = "schedule = \"@once\"\nis_paused_upon_creation = false\n\
        [groups.g]\nexpand = { x = [1, 2, 3] }\n[groups.g.tasks]\n\
        choose = { bash = \"x\" }\n\
        left = { empty = true, depends_on = [\"choose\"] }\n\
        right = { empty = true, depends_on = [\"choose\"] }\n\
        join = { empty = true, depends_on = [\"left\", \"right\"], trigger_rule = \"none_failed_min_one_success\" }\n\
        [tasks]\nafter = { bash = \"x\", depends_on = [\"g.choose\"] }\n";
    let mut simulation = Simulation::with(&[("b.toml", text)]);
    let ids = |ids: &[&str]| ids.iter().map(|&id| id.into()).collect::<Vec<_>>();
    let of = |simulation: &Simulation, task: &str| -> String {
        simulation.instances_of(task).iter().map(|(_, state)| &state.as_str()[..2]).collect::<Vec<_>>().join(" ")
    };
    simulation.decide("b.g.choose[1]", SkipDecision::Followed(ids(&["g.left"])));
    assert_eq!(of(&simulation, "g.left"), "no su no");
    assert_eq!(of(&simulation, "g.right"), "no sk no");
    assert_eq!(of(&simulation, "g.join"), "no su no");
    // A short circuit of many names all below it, and says no more than this to those right after it.
    simulation.decide("b.g.choose[0]", SkipDecision::Skipped(ids(&["g.left", "g.right", "g.join", "after"])));
    assert_eq!(
        [of(&simulation, "g.left"), of(&simulation, "g.right"), of(&simulation, "g.join")],
        ["sk su no", "sk sk no", "sk su no"]
    );
    let mut simulation = simulation.crash_and_restart();
    simulation.end("b.g.choose[2]", Outcome::Lost);
    assert_eq!(of(&simulation, "g.left"), "sk su up");
    assert_eq!(of(&simulation, "after"), "up", "one of many decides nothing for what is outside");
}

#[test]
fn what_fails_fast_has_failed_over_a_crash_before_or_after() {
    let text =
        "fail_fast = true\n[tasks]\na = { bash = 'x' }\nb = { bash = 'x' }\nc = { bash = 'x', depends_on = ['b'] }\n";
    for is_told_before in [true, false] {
        let mut simulation = Simulation::with(&[("d.toml", text)]);
        simulation.command(super::tests::trigger("d"));
        simulation.started("d.b");
        if is_told_before {
            simulation.end("d.a", Outcome::Exited(1));
        }
        let mut simulation = simulation.crash_and_restart();
        if !is_told_before {
            simulation.end("d.a", Outcome::Lost);
            simulation.end("d.b", Outcome::Lost);
        }
        simulation.advance(Duration::from_secs(60));
        assert_eq!(simulation.states(&["a", "b", "c"]), ["failed", "failed", "skipped"]);
        assert_eq!(simulation.run_states()[0].1, RunState::Failed);
        assert!(!simulation.trace().iter().any(|line| line.starts_with("start")));
    }
}

#[test]
fn a_setup_that_says_by_its_exit_code_that_it_is_skipped_skips_its_work_and_its_teardown() {
    let text = "[tasks]\nmake = { bash = 'x', setup = true }\nwork = { bash = 'x', depends_on = ['make'] }\n\
        drop = { bash = 'x', teardown_of = ['make'], depends_on = ['work'] }\n";
    let mut simulation = Simulation::with(&[("d.toml", text)]);
    simulation.command(super::tests::trigger("d"));
    simulation.end("d.make", Outcome::Exited(99));
    assert_eq!(simulation.states(&["make", "work", "drop"]), ["skipped"; 3]);
    assert_eq!(simulation.run_states()[0].1, RunState::Success);
}
