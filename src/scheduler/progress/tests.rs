use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::dag::Position;
use crate::model::{Form, Input, MappingIx, Node, Role, XcomInput};
use crate::scheduler::trigger_rule::Inputs;

fn node(trigger_rule: TriggerRule, role: Role) -> Node {
    Node { trigger_rule, role, ..Node::default() }
}

fn graph(rules: &[TriggerRule], edges: &[(u32, u32)]) -> Arc<Graph> {
    let nodes = rules.iter().map(|&rule| node(rule, Role::Work)).collect();
    let edges: Vec<_> = edges.iter().map(|&(up, down)| (TaskIx(up), TaskIx(down))).collect();
    Arc::new(Graph::new(nodes, &edges).unwrap())
}

fn fresh(graph: &Arc<Graph>) -> Progress {
    started(graph, &vec![TaskState::None; graph.len()])
}

fn started(graph: &Arc<Graph>, states: &[TaskState]) -> Progress {
    let instances: Vec<_> = graph.indexes().zip(states).map(|(task, &state)| (task, -1, state)).collect();
    Progress::new(Arc::clone(graph), &instances)
}

/// What a pass says that finds nothing to do.
fn idle(verdict: Verdict) -> Pass {
    Pass { marks: vec![], schedulable: vec![], asks: vec![], growth: Growth::default(), is_cut: false, verdict }
}

const A: InstanceIx = InstanceIx(0);
const B: InstanceIx = InstanceIx(1);
const C: InstanceIx = InstanceIx(2);
const ALL_SUCCESS: TriggerRule = TriggerRule::AllSuccess;

#[test]
fn a_mark_cascades_one_level_a_pass_and_the_run_closes_a_pass_later() {
    let mut run = fresh(&graph(&[ALL_SUCCESS; 3], &[(0, 1), (1, 2)]));
    assert_eq!(run.pass().schedulable, [A]);
    run.set_state(A, TaskState::Skipped);
    let pass = run.pass();
    assert_eq!((pass.marks, pass.verdict), (vec![(B, TaskState::Skipped)], Verdict::Running));
    let pass = run.pass();
    assert_eq!((pass.marks, pass.verdict), (vec![(C, TaskState::Skipped)], Verdict::Running));
    assert_eq!(run.pass(), idle(Verdict::Success));
}

#[test]
fn both_tasks_of_a_mapped_group_become_many_and_none_of_them_is_removed() {
    let input = Input::Xcom(XcomInput { task: TaskIx(0), key: "return_value".to_owned() });
    let form = Form::Product(vec![("x".to_owned(), input)]);
    let mappings = [Mapping { form, partial: serde_json::Map::new(), at: Position::default() }];
    let mapped = Node { mappings: vec![MappingIx(0)], ..Node::default() };
    let edges = [(0, 1), (0, 2), (1, 2)].map(|(up, down)| (TaskIx(up), TaskIx(down)));
    let graph = Arc::new(Graph::new(vec![Node::default(), mapped.clone(), mapped], &edges).unwrap());
    let unstarted: Vec<_> = graph.indexes().map(|task| (task, -1, TaskState::None)).collect();
    let mut run = Progress::mapped(graph, &mappings, &unstarted);
    assert_eq!(run.pass().schedulable, [A]);
    run.set_length(A, "return_value", Some(2));
    run.set_state(A, TaskState::Success);
    let mut verdict = Verdict::Running;
    for _ in 0..20 {
        let pass = run.pass();
        assert_eq!(pass.marks, []);
        verdict = pass.verdict;
        for instance in pass.schedulable {
            run.set_state(instance, TaskState::Success);
        }
    }
    assert_eq!(verdict, Verdict::Success);
    assert_eq!(run.len(), 5, "two instances of each");
}

#[test]
fn what_nobody_touches_stays_schedulable() {
    let mut run = fresh(&graph(&[ALL_SUCCESS; 2], &[]));
    assert_eq!(run.pass().schedulable, [A, B]);
    run.set_state(A, TaskState::Scheduled);
    assert_eq!(run.pass().schedulable, [B]);
}

#[test]
fn a_retry_waits_for_its_delay_and_is_no_deadlock() {
    let mut run = started(&graph(&[ALL_SUCCESS], &[]), &[TaskState::UpForRetry]);
    assert_eq!(run.pass(), idle(Verdict::Running));
    assert_eq!(run.why_waiting(A), Some(NotReady::RetryNotOver));
    run.retry_is_over(A);
    assert_eq!(run.pass().schedulable, [A]);
    assert_eq!(run.why_waiting(A), None);
}

#[test]
fn a_second_retry_waits_again() {
    let mut run = started(&graph(&[ALL_SUCCESS], &[]), &[TaskState::UpForRetry]);
    run.retry_is_over(A);
    for state in [TaskState::Scheduled, TaskState::Queued, TaskState::Running, TaskState::UpForRetry] {
        run.set_state(A, state);
    }
    assert!(run.pass().schedulable.is_empty());
}

#[test]
fn all_skipped_over_a_removed_task_deadlocks_and_keeps_its_states() {
    let mut run =
        started(&graph(&[ALL_SUCCESS, TriggerRule::AllSkipped], &[(0, 1)]), &[TaskState::Removed, TaskState::None]);
    let pass = run.pass();
    assert_eq!(pass.verdict, Verdict::Failed(RunFailure::AllTasksDeadlocked));
    assert_eq!(run.state(B), TaskState::None);
}

#[test]
fn a_deadlock_marks_what_runs_although_it_must_not() {
    let mut run = started(&graph(&[ALL_SUCCESS; 2], &[(0, 1)]), &[TaskState::Failed, TaskState::Running]);
    let pass = run.pass();
    assert_eq!(pass.marks, [(B, TaskState::UpstreamFailed)]);
    assert_eq!(pass.verdict, Verdict::Failed(RunFailure::TaskFailure));
}

#[test]
fn a_failure_that_is_no_leaf_does_not_fail_the_run() {
    let mut run =
        started(&graph(&[ALL_SUCCESS, TriggerRule::AllDone], &[(0, 1)]), &[TaskState::Failed, TaskState::Success]);
    assert_eq!(run.pass().verdict, Verdict::Success);
    run.set_state(B, TaskState::Failed);
    assert_eq!(run.pass().verdict, Verdict::Failed(RunFailure::TaskFailure));
}

#[test]
fn the_reason_of_a_wait_has_its_numbers() {
    let mut run = fresh(&graph(&[ALL_SUCCESS; 3], &[(0, 2), (1, 2)]));
    run.set_state(A, TaskState::Success);
    assert_eq!(run.why_waiting(C), Some(NotReady::UpstreamPending { rule: ALL_SUCCESS, pending: 1, total: 2 }));
    assert_eq!(run.why_waiting(A), Some(NotReady::State(TaskState::Success)));
}

#[test]
fn a_wide_join_runs_once_all_before_it_are_done() {
    let wide = 2_000;
    let edges: Vec<(u32, u32)> = (0..wide).map(|up| (up, wide)).collect();
    let mut run = fresh(&graph(&vec![ALL_SUCCESS; wide as usize + 1], &edges));
    assert_eq!(run.pass().schedulable.len(), wide as usize);
    for up in 0..wide {
        run.set_state(InstanceIx(up), TaskState::Success);
        assert!(run.has_changed());
    }
    assert_eq!(run.pass().schedulable, [InstanceIx(wide)]);
}

/// A DAG of up to 12 tasks with any rules; some are setups or teardowns.
fn any_graph() -> impl Strategy<Value = Arc<Graph>> {
    let task = (0..TriggerRule::ALL.len(), 0..8_u8);
    (prop::collection::vec(task, 1..12), prop::collection::vec((0..12_u32, 0..12_u32), 0..24)).prop_map(
        |(tasks, edges)| {
            let count = tasks.len() as u32;
            let nodes = tasks.iter().map(|&(rule, role)| {
                let role = match role {
                    0 => Role::Setup,
                    1 => Role::Teardown { setups: vec![], on_failure_fail_dagrun: false },
                    2 => Role::Teardown { setups: vec![], on_failure_fail_dagrun: true },
                    _ => Role::Work,
                };
                node(TriggerRule::ALL[rule], role)
            });
            let edges: Vec<_> = edges
                .into_iter()
                .filter(|(up, down)| up < down && *down < count)
                .map(|(up, down)| (TaskIx(up), TaskIx(down)))
                .collect();
            Arc::new(Graph::new(nodes.collect(), &edges).unwrap())
        },
    )
}

/// What the world does between passes: picks an instance, and a way for it to go on.
type Step = (prop::sample::Index, u8);

fn advance(run: &mut Progress, (pick, way): &Step) {
    let movable: Vec<InstanceIx> = (0..run.len() as u32)
        .map(InstanceIx)
        .filter(|&at| {
            run.state(at).is_executing() || matches!(run.state(at), TaskState::Scheduled | TaskState::UpForRetry)
        })
        .collect();
    if movable.is_empty() {
        return;
    }
    let at = movable[pick.index(movable.len())];
    let next = match run.state(at) {
        TaskState::Scheduled => TaskEvent::Enqueue,
        TaskState::Queued => TaskEvent::Start,
        TaskState::Running => {
            [TaskEvent::Succeed, TaskEvent::Skip, TaskEvent::Fail, TaskEvent::Retry][*way as usize % 4]
        }
        _ => return run.retry_is_over(at),
    };
    run.set_state(at, next_task(run.state(at), next).unwrap());
}

/// The rule's word on an instance, from the states themselves instead of kept counts.
fn is_allowed(run: &Progress, at: InstanceIx) -> bool {
    let graph = run.graph();
    let task = run.task(at);
    let states = |tasks: &[TaskIx]| {
        tasks.iter().fold(Counts::default(), |mut counts, task| {
            counts.total += 1;
            if let Some(count) = counts.of(run.state(InstanceIx(task.0))) {
                *count += 1;
            }
            counts
        })
    };
    let upstream = graph.upstream(task);
    let setups: Vec<TaskIx> = upstream.iter().copied().filter(|&up| graph.node(up).role == Role::Setup).collect();
    let around = Surroundings::of(graph);
    let inputs = Inputs {
        rule: graph.node(task).trigger_rule,
        map_index: -1,
        upstream: states(upstream),
        upstream_setups: states(&setups),
        indirect_setups: states(around.indirect_setups(task)),
        unfinished_in_scope: states(around.scope(task)).pending(),
    };
    evaluate(&inputs) == Decision::Run
}

proptest! {
    #[test]
    fn an_incremental_pass_equals_a_whole_one_and_the_same_input_gives_the_same_decision(
        graph in any_graph(),
        initial in prop::collection::vec(0..TaskState::ALL.len(), 12),
        steps in prop::collection::vec(any::<Step>(), 0..60),
        starts_fresh in any::<bool>(),
    ) {
        let states: Vec<TaskState> =
            initial.iter().map(|&at| if starts_fresh { TaskState::None } else { TaskState::ALL[at] }).collect();
        let mut incremental = started(&graph, &states);
        let mut whole = incremental.clone();
        for step in &steps {
            whole.mark_all_changed();
            let pass = incremental.pass();
            prop_assert_eq!(&whole.pass(), &pass);
            // What is left untouched is named again by the next pass.
            for &at in pass.schedulable.iter().filter(|at| (at.0 + u32::from(step.1)) % 3 != 0) {
                incremental.set_state(at, TaskState::Scheduled);
                whole.set_state(at, TaskState::Scheduled);
            }
            advance(&mut incremental, step);
            advance(&mut whole, step);
        }
    }

    #[test]
    fn no_task_is_scheduled_before_its_rule_allows_and_every_run_ends(
        graph in any_graph(),
        steps in prop::collection::vec(any::<Step>(), 1..40),
    ) {
        let mut run = fresh(&graph);
        let mut tries = vec![0; run.len()];
        for turn in 0.. {
            prop_assert!(turn < 2_000, "the run does not end: {:?}", run);
            let pass = run.clone().pass();
            for &at in &pass.schedulable {
                prop_assert!(is_allowed(&run, at), "{:?} is schedulable too early in {:?}", at, run);
            }
            prop_assert_eq!(run.pass(), pass.clone());
            if pass.verdict != Verdict::Running {
                prop_assert!(run.executing() == 0 || pass.verdict == Verdict::Failed(RunFailure::AllTasksDeadlocked));
                break;
            }
            for &at in &pass.schedulable {
                run.set_state(at, TaskState::Scheduled);
                tries[at.index()] += 1;
            }
            let (pick, way) = &steps[turn % steps.len()];
            // At most three tries each: beyond them every end is final.
            let is_last = tries.iter().any(|&count| count > 3);
            advance(&mut run, &(*pick, if is_last { way % 3 } else { *way }));
        }
    }
}
