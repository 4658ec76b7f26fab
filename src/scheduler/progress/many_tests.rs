//! Mapped tasks in a run's pass: growth and shrinkage, and random DAGs whose kept counts are held to counts made anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;
use crate::model::dag::Position;
use crate::model::{Form, Input, MappingIx, Node, Role, XcomInput};
use crate::scheduler::trigger_rule::Inputs;

const KEY: &str = "return_value";

fn over(input: Input) -> Mapping {
    Mapping { form: Form::Product(vec![("x".to_owned(), input)]), partial: Map::new(), at: Position::default() }
}

fn xcom(task: u32) -> Mapping {
    over(Input::Xcom(XcomInput { task: TaskIx(task), key: KEY.to_owned() }))
}

fn literal(count: usize) -> Mapping {
    over(Input::Literal((0..count).collect::<Value>()))
}

fn node(rule: TriggerRule, mappings: &[u32]) -> Node {
    Node { trigger_rule: rule, mappings: mappings.iter().copied().map(MappingIx).collect(), ..Node::default() }
}

/// A run that has just begun, of tasks with these rules and mappings.
fn begun(nodes: Vec<Node>, edges: &[(u32, u32)], mappings: &[Mapping], most: usize) -> Progress {
    let edges: Vec<_> = edges.iter().map(|&(up, down)| (TaskIx(up), TaskIx(down))).collect();
    let shape = Progress::mapped(Arc::new(Graph::new(nodes, &edges).unwrap()), mappings, &[]);
    let first = shape.first_instances(most, |_| true);
    shape.of_run(&first.into_iter().map(|(task, at)| (task, at, TaskState::None)).collect::<Vec<_>>())
}

/// `src >> dst >> after`, and `dst` is mapped over what `src` pushes.
fn line() -> Progress {
    let rule = TriggerRule::AllSuccess;
    let nodes = vec![node(rule, &[]), node(rule, &[0]), node(TriggerRule::AllDone, &[])];
    begun(nodes, &[(0, 1), (1, 2)], &[xcom(0)], usize::MAX)
}

fn at(progress: &Progress, task: u32, map_index: i32) -> InstanceIx {
    let found = progress.instances_of(TaskIx(task)).find(|&instance| progress.map_index(instance) == map_index);
    found.unwrap_or_else(|| panic!("task {task} has no instance {map_index}"))
}

fn states_of(progress: &Progress, task: u32) -> Vec<(i32, &'static str)> {
    let state = |instance| (progress.map_index(instance), progress.state(instance).as_str());
    progress.instances_of(TaskIx(task)).map(state).collect()
}

fn push(progress: &mut Progress, task: u32, length: u32) {
    let instance = at(progress, task, -1);
    progress.set_length(instance, KEY, Some(length));
    progress.set_state(instance, TaskState::Success);
}

#[test]
fn many_instances_are_made_piece_by_piece_and_what_comes_after_waits_for_all() {
    let mut run = line();
    run.pass();
    push(&mut run, 0, 10);
    let mut made = 0;
    for number in 0.. {
        let pass = run.pass_at_most(3);
        made += pass.growth.added.len();
        for instance in pass.schedulable {
            assert_ne!(run.task(instance), TaskIx(2), "`after` runs with {made} instances made");
            run.set_state(instance, TaskState::Success);
        }
        if !pass.is_cut {
            assert!(number >= 2, "ten instances in {number} pieces of three");
            break;
        }
        assert_eq!(pass.verdict, Verdict::Running);
    }
    assert_eq!(made, 9);
    assert_eq!(run.pass().schedulable, [at(&run, 2, -1)]);
}

#[test]
fn a_run_taken_up_in_the_middle_of_an_expansion_goes_on_with_what_is_missing() {
    let mut run = line();
    push(&mut run, 0, 10);
    let pass = run.pass_at_most(3);
    let first = pass.growth.indexed[0];
    run.set_state(first, TaskState::Success);
    let rows: Vec<_> =
        (0..run.len() as u32).map(InstanceIx).map(|ix| (run.task(ix), run.map_index(ix), run.state(ix))).collect();
    let mut again = run.of_run(&rows);
    again.set_length(InstanceIx(0), KEY, Some(10));
    while again.pass_at_most(3).is_cut {}
    assert_eq!(states_of(&again, 1).len(), 10);
    assert_eq!(again.unfinished(), 10);
}

#[test]
fn a_longer_list_adds_instances_and_a_shorter_one_removes_them_even_finished_ones() {
    let mut run = line();
    push(&mut run, 0, 3);
    let pass = run.pass();
    pass.schedulable.iter().for_each(|&instance| run.set_state(instance, TaskState::Success));
    // Source and the first instance are cleared, and now there are two.
    run.set_length(at(&run, 0, -1), KEY, None);
    run.set_state(at(&run, 0, -1), TaskState::None);
    run.set_state(at(&run, 1, 0), TaskState::None);
    push(&mut run, 0, 2);
    let pass = run.pass();
    assert_eq!(pass.marks, [(at(&run, 1, 2), TaskState::Removed)]);
    assert_eq!(pass.schedulable, [at(&run, 1, 0)]);
    assert_eq!(states_of(&run, 1), [(0, "none"), (1, "success"), (2, "removed")]);
    run.set_state(at(&run, 1, 0), TaskState::None);
    run.set_state(at(&run, 0, -1), TaskState::None);
    push(&mut run, 0, 5);
    let added: Vec<i32> = run.pass().growth.added.iter().map(|&(_, _, index)| index).collect();
    assert_eq!(added, [4, 3], "the last is made first; what was removed stays so");
}

#[test]
fn a_list_of_the_same_length_leaves_all_as_they_are_and_what_was_removed_stays_so() {
    let mut run = line();
    push(&mut run, 0, 3);
    run.pass().schedulable.iter().for_each(|&instance| run.set_state(instance, TaskState::Success));
    for (length, removed) in [(3, vec![]), (2, vec![(at(&run, 1, 2), TaskState::Removed)]), (2, vec![])] {
        run.set_length(at(&run, 0, -1), KEY, None);
        run.set_state(at(&run, 0, -1), TaskState::None);
        run.set_state(at(&run, 1, 0), TaskState::None);
        push(&mut run, 0, length);
        let pass = run.pass();
        assert_eq!((pass.marks, pass.growth, pass.schedulable), (removed, Growth::default(), vec![at(&run, 1, 0)]));
        run.set_state(at(&run, 1, 0), TaskState::Success);
    }
    assert_eq!(states_of(&run, 1), [(0, "success"), (1, "success"), (2, "removed")]);
    run.check_counts();
}

#[test]
fn a_list_that_becomes_too_long_fails_those_that_would_run_again() {
    let rule = TriggerRule::AllSuccess;
    let nodes = vec![node(rule, &[]), node(rule, &[0, 1])];
    let mut run = begun(nodes, &[(0, 1)], &[xcom(0), xcom(0)], usize::MAX);
    push(&mut run, 0, 2);
    run.pass().schedulable.iter().for_each(|&instance| run.set_state(instance, TaskState::Success));
    run.set_state(at(&run, 0, -1), TaskState::None);
    run.set_state(at(&run, 1, 1), TaskState::None);
    push(&mut run, 0, 600);
    let pass = run.pass();
    assert_eq!(pass.growth.refused, [(at(&run, 1, 1), Refusal::TooMany(360_000))]);
    assert_eq!(pass.marks, [(at(&run, 1, 1), TaskState::UpstreamFailed)]);
    assert!(pass.schedulable.is_empty());
    // What is cleared by itself finds the same, and nothing once the list is short again.
    run.set_state(at(&run, 1, 0), TaskState::None);
    assert_eq!(run.pass().marks, [(at(&run, 1, 0), TaskState::UpstreamFailed)]);
    run.set_state(at(&run, 0, -1), TaskState::None);
    run.set_state(at(&run, 1, 0), TaskState::None);
    push(&mut run, 0, 2);
    assert_eq!(run.pass().schedulable, [at(&run, 1, 0)]);
    run.check_counts();
}

#[test]
fn what_was_not_pushed_or_is_too_much_fails_what_is_mapped_over_it_with_a_reason() {
    let mut run = line();
    run.set_state(InstanceIx(0), TaskState::Success);
    let pass = run.pass();
    assert_eq!(pass.growth.refused, [(InstanceIx(1), Refusal::NotPushed)]);
    assert_eq!(pass.marks, [(InstanceIx(1), TaskState::UpstreamFailed)]);
    let rule = TriggerRule::AllSuccess;
    let twice = [node(rule, &[]), node(rule, &[0, 1])];
    let mut run = begun(twice.to_vec(), &[(0, 1)], &[xcom(0), xcom(0)], usize::MAX);
    push(&mut run, 0, 100_000);
    let refused = run.pass().growth.refused;
    assert_eq!(refused, [(InstanceIx(1), Refusal::TooMany(10_000_000_000))]);
    assert!(refused[0].1.to_string().contains("at most 250000"), "{}", refused[0].1);
}

#[test]
fn within_nested_groups_an_instance_sees_those_of_its_own_index_alone() {
    let rule = TriggerRule::AllSuccess;
    // `outer` is in a group of two, `inner` in one of three inside it; `back` is in the outer one again.
    let nodes = vec![node(rule, &[0]), node(rule, &[0, 1]), node(rule, &[0])];
    let mut run = begun(nodes, &[(0, 1), (1, 2)], &[literal(2), literal(3)], usize::MAX);
    run.set_state(at(&run, 0, 1), TaskState::Success);
    let ready = run.pass().schedulable;
    assert_eq!(ready, [at(&run, 0, 0), at(&run, 1, 3), at(&run, 1, 4), at(&run, 1, 5)]);
    run.set_state(at(&run, 1, 3), TaskState::Success);
    run.set_state(at(&run, 1, 4), TaskState::Success);
    assert!(!run.pass().schedulable.contains(&at(&run, 2, 1)));
    run.set_state(at(&run, 1, 5), TaskState::Success);
    assert!(run.pass().schedulable.contains(&at(&run, 2, 1)));
}

#[test]
fn the_end_of_one_instance_looks_at_its_own_neighbour_alone() {
    let rule = TriggerRule::AllSuccess;
    let count = 1_000;
    let nodes = vec![node(rule, &[0]), node(rule, &[0]), node(rule, &[1])];
    // `a` and `b` go index by index; `c` is another map, after all of `b`.
    let mut run = begun(nodes, &[(0, 1), (1, 2)], &[literal(count), literal(count)], usize::MAX);
    run.pass();
    let mut looks = 0;
    for index in 0..count as i32 {
        for task in [0, 1] {
            run.set_state(at(&run, task, index), TaskState::Success);
            looks += run.changed.len();
            run.pass();
        }
    }
    assert!(looks <= 5 * count, "{looks} looks at {} instances", 3 * count);
    assert_eq!(run.pass().schedulable.len(), count);
}

#[test]
fn what_a_shorter_list_removes_is_not_skipped_in_the_same_pass() {
    let rule = TriggerRule::AllSuccess;
    // `decide` has one instance for each that `each` had at first.
    let nodes = vec![node(rule, &[]), node(rule, &[1]), node(rule, &[0])];
    let mut run = begun(nodes, &[(0, 2), (1, 2)], &[xcom(0), literal(3)], usize::MAX);
    for index in 0..3 {
        let decide = at(&run, 1, index);
        run.set_state(decide, TaskState::Success);
    }
    push(&mut run, 0, 3);
    assert_eq!(run.pass().schedulable.len(), 3);
    let src = at(&run, 0, -1);
    run.set_state(src, TaskState::None);
    push(&mut run, 0, 2);
    let third = at(&run, 1, 2);
    run.bar(third, &[TaskIx(2)]);
    assert_eq!(run.pass().marks, [(at(&run, 2, 2), TaskState::Removed)]);
}

#[test]
fn a_decision_counts_again_as_soon_as_its_instance_has_ended_again() {
    let nodes = vec![node(TriggerRule::AllSuccess, &[0]), node(TriggerRule::AllDone, &[1])];
    let mut run = begun(nodes, &[(0, 1)], &[literal(3), literal(2)], usize::MAX);
    let decide = [0, 1, 2].map(|index| at(&run, 0, index));
    run.bar(decide[0], &[TaskIx(1)]);
    run.set_state(decide[1], TaskState::Success);
    assert!(run.pass().marks.is_empty());
    // To the rule nothing has changed: one more of three has succeeded.
    run.set_state(decide[0], TaskState::Success);
    assert_eq!(run.pass().marks, [(at(&run, 1, 0), TaskState::Skipped)]);
}

#[test]
fn what_comes_after_a_finished_mapped_task_waits_again_when_that_grows() {
    let mut run = line();
    push(&mut run, 0, 2);
    run.pass();
    run.set_length(at(&run, 0, -1), KEY, Some(4));
    // A pass that was cut has noted it after it had made instances; they end before the next one.
    run.doubted.insert(TaskIx(1));
    [0, 1].map(|index| at(&run, 1, index)).into_iter().for_each(|ix| run.set_state(ix, TaskState::Success));
    let pass = run.pass();
    assert_eq!(pass.schedulable, [at(&run, 1, 3), at(&run, 1, 2)], "the last is made first");
    run.check_counts();
}

#[test]
fn growth_looks_at_those_after_it_only_if_it_changes_whether_they_wait() {
    let rule = TriggerRule::AllSuccess;
    let count = 1_000;
    // `wide` comes after a hundred maps, each of which becomes many by itself.
    let maps = 100;
    let mut nodes = vec![node(rule, &[])];
    nodes.extend((0..maps).map(|mapping| node(rule, &[mapping])));
    nodes.push(node(rule, &[maps]));
    let edges: Vec<_> = (1..=maps).flat_map(|map| [(0, map), (map, maps + 1)]).collect();
    let mut mappings: Vec<_> = (0..maps).map(|_| xcom(0)).collect();
    mappings.push(literal(count));
    let mut run = begun(nodes, &edges, &mappings, usize::MAX);
    run.pass();
    push(&mut run, 0, 2);
    run.pass();
    for map in 1..=maps {
        assert_eq!(states_of(&run, map).len(), 2);
    }
    run.changed.clear();
    for map in 1..=maps {
        let place = run.maps.place(TaskIx(map)).unwrap();
        run.extend(place, 3);
    }
    assert!(run.changed.is_empty(), "{} instances are to be looked at", run.changed.len());
}

#[test]
fn an_instance_is_surplus_no_longer_as_soon_as_so_many_have_succeeded() {
    let rule = TriggerRule::AllSuccess;
    // `down` has its rows before those of `up`, and both of its lists stand in the file.
    let mut run = begun(vec![node(rule, &[0]), node(rule, &[1])], &[(1, 0)], &[literal(4), literal(5)], usize::MAX);
    for index in 0..4 {
        run.set_state(at(&run, 0, index), TaskState::Running);
    }
    run.set_state(at(&run, 1, 4), TaskState::Removed);
    for (index, other) in [(0, 1), (1, 2)] {
        run.set_state(at(&run, 1, index), TaskState::Success);
        run.set_state(at(&run, 1, 2), TaskState::Running);
        run.set_state(at(&run, 1, 3), TaskState::Running);
        // Cleared and ended again, it is as it was.
        run.set_state(at(&run, 1, index), TaskState::None);
        run.set_state(at(&run, 1, index), TaskState::Success);
        run.decide(usize::MAX, &mut Vec::new());
        run.check_counts();
        assert_eq!(run.evaluate(at(&run, 0, other)), Decision::Mark(TaskState::Removed));
    }
    run.set_state(at(&run, 1, 2), TaskState::Success);
    run.check_counts();
    assert_eq!(run.pass().verdict, Verdict::Running);
    assert_eq!(run.evaluate(at(&run, 0, 2)), Decision::Wait(Unmet::Upstream));
}

#[test]
fn who_is_surplus_is_told_by_the_successes_of_all_maps_together() {
    let rule = TriggerRule::AllSuccess;
    // `near` and `down` go index by index; `far` is another map, of which one was removed.
    let nodes = vec![node(rule, &[0]), node(rule, &[1]), node(rule, &[0])];
    let mut run = begun(nodes, &[(0, 2), (1, 2)], &[literal(4), literal(5)], usize::MAX);
    run.pass();
    for index in 0..4 {
        run.set_state(at(&run, 2, index), TaskState::Running);
        run.set_state(at(&run, 0, index), TaskState::Success);
    }
    run.set_state(at(&run, 1, 4), TaskState::Removed);
    for index in 0..3 {
        run.set_state(at(&run, 1, index), TaskState::Success);
        run.decide(usize::MAX, &mut Vec::new());
        run.check_counts();
    }
    for index in 0..3 {
        run.set_state(at(&run, 1, index), TaskState::None);
        run.decide(usize::MAX, &mut Vec::new());
        run.check_counts();
    }
}

#[test]
fn who_sees_all_of_a_map_whose_lengths_are_not_known_is_looked_at_when_it_ends() {
    let rule = TriggerRule::AllSuccess;
    // In a group of two, `up` is mapped over two more: it has three instances, of an earlier definition, and they run.
    let nodes = vec![node(rule, &[0, 1]), node(rule, &[0])];
    let graph = Arc::new(Graph::new(nodes, &[(TaskIx(0), TaskIx(1))]).unwrap());
    let running = |at| (TaskIx(0), at, TaskState::Running);
    let waiting = |at| (TaskIx(1), at, TaskState::None);
    let rows = [running(0), running(1), running(2), waiting(0), waiting(1)];
    let mut run = Progress::mapped(graph, &[literal(2), literal(2)], &rows);
    run.pass();
    for index in 0..3 {
        run.set_state(at(&run, 0, index), TaskState::Success);
        run.decide(usize::MAX, &mut Vec::new());
        run.check_counts();
    }
    assert_eq!(run.schedulable(), [at(&run, 1, 0), at(&run, 1, 1)]);
}

#[test]
fn what_was_known_wrongly_of_an_instance_is_looked_at_anew_and_ends_nothing() {
    let mut run = line();
    run.set_state(InstanceIx(0), TaskState::Running);
    run.pass();
    run.learn(InstanceIx(0), Known::Marked);
    let pass = run.pass();
    assert_eq!((pass.marks, pass.is_cut, pass.verdict), (vec![], true, Verdict::Running));
    assert!(!run.pass().is_cut);
    run.check_counts();
}

/// What an instance's rule looks at, counted anew.
fn counted(run: &Progress, task: TaskIx, map_index: i32) -> Inputs {
    let relevant = |of: TaskIx| {
        let mut counts = Counts::default();
        let mut add = |index: i32, state| {
            let depth = maps::shared(&run.graph, of, task);
            let is_seen = match (depth, run.many_of(task), run.many_of(of)) {
                (0, ..) | (_, None, _) | (_, _, None) => true,
                _ if index < 0 => true,
                (_, Some(down), Some(up)) if map_index >= 0 => {
                    let (here, there) = (down.block_size(depth), up.block_size(depth));
                    here.zip(there).is_none_or(|(here, there)| map_index as u64 / here == index as u64 / there)
                }
                _ => {
                    let waits = matches!(
                        run.graph.node(task).trigger_rule,
                        TriggerRule::OneSuccess
                            | TriggerRule::OneFailed
                            | TriggerRule::OneDone
                            | TriggerRule::NoneFailedMinOneSuccess
                    );
                    let is_input = run.maps.inputs(task).contains(&of);
                    (waits && !is_input) || run.chain(task).is_none_or(|lengths| lengths.contains(&0))
                }
            };
            if is_seen {
                counts.add(state);
            }
        };
        let made: BTreeMap<i32, TaskState> = (0..run.len() as u32)
            .map(InstanceIx)
            .filter(|&ix| run.task(ix) == of)
            .map(|ix| (run.map_index(ix), run.state(ix)))
            .collect();
        made.iter().for_each(|(&index, &state)| add(index, state));
        let promised = run.many_of(of).map_or(0, |many| many.members.len());
        let is_promised =
            |index: &i32| run.many_of(of).is_some_and(|many| many.members[*index as usize] == InstanceIx(u32::MAX));
        (0..promised as i32).filter(is_promised).for_each(|index| add(index, TaskState::None));
        counts
    };
    let sum = |tasks: &[TaskIx]| tasks.iter().fold(Counts::default(), |sum, &of| sum.plus(&relevant(of)));
    let setups: Vec<TaskIx> =
        run.graph.upstream(task).iter().copied().filter(|&up| run.graph.node(up).role == Role::Setup).collect();
    let rows = |tasks: &[TaskIx]| {
        let mut counts = sum(tasks);
        // Of a task that is mapped no longer there may be instances with an index.
        let is_mapped = |up: &TaskIx| {
            !run.graph.node(*up).mappings.is_empty() || run.instances_of(*up).any(|ix| run.map_index(ix) >= 0)
        };
        if !tasks.iter().any(is_mapped) {
            counts.total = tasks.len() as u32;
        }
        counts
    };
    Inputs {
        rule: run.graph.node(task).trigger_rule,
        map_index,
        upstream: rows(run.graph.upstream(task)),
        upstream_setups: rows(&setups),
        indirect_setups: sum(run.surroundings.indirect_setups(task)),
        unfinished_in_scope: sum(run.surroundings.scope(task)).pending(),
    }
}

impl Progress {
    /// Every unfinished instance is decided by counts that are right, and nothing that is known of it is out of date.
    pub(in crate::scheduler) fn check_counts(&self) {
        for instance in (0..self.len() as u32).map(InstanceIx) {
            let slot = &self.slots[instance.index()];
            if slot.state.is_finished() {
                continue;
            }
            let task = slot.task;
            let expected = counted(self, task, slot.map_index);
            assert_eq!(self.inputs(task, slot.map_index), expected, "task {} [{}]", task.0, slot.map_index);
            let decision = self.evaluate(instance);
            let is_its_turn = slot.state.is_schedulable() && !slot.waits_for_retry();
            if !slot.is_changed {
                let known = match decision {
                    _ if is_its_turn && self.waits_for_past(instance, decision) => Known::Waits,
                    Decision::Run => Known::Met,
                    Decision::Mark(_) => Known::Marked,
                    Decision::Wait(_) => Known::Waits,
                };
                assert_eq!(slot.known, known, "task {} [{}] is {decision:?}", task.0, slot.map_index);
            }
        }
    }
}

#[derive(Clone, Debug)]
struct RandomTask {
    rule: TriggerRule,
    role: u8,
    /// None, in the group, in the group inside it.
    depth: usize,
    upstream: u8,
    /// Mapped by itself over the first task, if that stands before it and it is in no group.
    is_mapped: bool,
}

fn random_task() -> impl Strategy<Value = RandomTask> {
    let rules = proptest::sample::select(TriggerRule::ALL.to_vec());
    (rules, 0..8_u8, 0..3_usize, any::<u8>(), any::<bool>())
        .prop_map(|(rule, role, depth, upstream, is_mapped)| RandomTask { rule, role, depth, upstream, is_mapped })
}

/// The tasks after a first one, which pushes a list; the outer group is mapped over that or over a literal.
fn random_run(tasks: &[RandomTask], outer: Option<usize>, inner: usize, most: usize) -> Progress {
    let mappings = [outer.map_or_else(|| xcom(0), literal), literal(inner), xcom(0)];
    let mut nodes = vec![node(TriggerRule::AllSuccess, &[])];
    let mut edges = Vec::new();
    for (task, place) in tasks.iter().zip(1_u32..) {
        let chain: &[u32] = match task.depth {
            0 if task.is_mapped => &[2],
            depth => &[0, 1][..depth],
        };
        let role = match task.role {
            0 => Role::Setup,
            1 => Role::Teardown { setups: vec![], on_failure_fail_dagrun: false },
            _ => Role::Work,
        };
        nodes.push(Node { role, ..node(task.rule, chain) });
        edges.extend((0..place).filter(|up| task.upstream >> up & 1 == 1).map(|up| (up, place)));
        if !chain.is_empty() {
            edges.push((0, place));
        }
    }
    begun(nodes, &edges, &mappings, most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn kept_counts_are_those_made_anew_and_every_run_of_mapped_tasks_ends(
        tasks in proptest::collection::vec(random_task(), 1..6),
        outer in proptest::option::of(0..4_usize),
        inner in 0..4_usize,
        pushed in proptest::option::of(0..5_u32),
        outcomes in proptest::collection::vec(0..10_u8, 1..40),
        limit in prop_oneof![Just(usize::MAX), 1..4_usize],
        most in prop_oneof![Just(usize::MAX), Just(2_usize)],
    ) {
        let mut run = random_run(&tasks, outer, inner, most);
        let mut lengths = pushed;
        let mut outcomes = outcomes.iter().cycle();
        let mut ended = false;
        for _ in 0..600 {
            let pass = run.pass_at_most(limit);
            run.check_counts();
            if pass.verdict != Verdict::Running {
                ended = true;
                break;
            }
            for &instance in &pass.schedulable {
                prop_assert_eq!(run.evaluate(instance), Decision::Run, "it was let run");
            }
            for instance in pass.schedulable {
                if run.state(instance) != TaskState::None {
                    continue;
                }
                let task = run.task(instance);
                let outcome = *outcomes.next().unwrap();
                if task == TaskIx(0)
                    && let Some(length) = lengths
                {
                    run.set_length(instance, KEY, Some(length));
                }
                run.set_state(instance, match outcome {
                    0 => TaskState::Failed,
                    1 => TaskState::Skipped,
                    _ => TaskState::Success,
                });
                run.check_counts();
                // The first task is cleared, with all that has come after it, and pushes another list.
                if outcome == 9 && lengths.is_some_and(|length| length < 5) {
                    let again: Vec<InstanceIx> = (0..run.len() as u32).map(InstanceIx).collect();
                    for other in again {
                        run.set_state(other, TaskState::None);
                    }
                    lengths = lengths.map(|length| if length == 0 { 5 } else { 5 + length % 2 });
                    run.check_counts();
                    break;
                }
            }
        }
        prop_assert!(ended, "the run does not end");
    }
}
