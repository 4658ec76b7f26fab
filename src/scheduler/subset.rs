//! Which tasks a clear or a mark touches when some are chosen: what runs before or after them, and the setups and teardowns that
//! they need (SEMANTICS 12; Airflow: `partial_subset`).
//!
//! Pure over a graph; knows no runs and no states.

use std::collections::BTreeSet;

use crate::model::{Graph, Role, TaskIx};

/// What comes along with the chosen tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// All that runs after them.
    pub downstream: bool,
    /// All that runs before them.
    pub upstream: bool,
    /// What runs right before each task of the subset.
    pub direct_upstream: bool,
}

/// The chosen tasks and what comes along, in the order of the graph. A work task brings the setups that it needs, and their
/// teardowns; a setup brings its teardowns.
pub fn subset(graph: &Graph, chosen: &[TaskIx], reach: Reach) -> BTreeSet<TaskIx> {
    let chosen: BTreeSet<TaskIx> = chosen.iter().copied().collect();
    let is_work = |task: &TaskIx| graph.node(*task).role == Role::Work;
    let mut found = chosen.clone();
    // Whose setups and teardowns come along.
    let mut workers: BTreeSet<TaskIx> = BTreeSet::new();
    if reach.downstream {
        let below = relatives(graph, &chosen, Graph::downstream);
        workers.extend(below.difference(&chosen).copied().filter(is_work));
        found.extend(below);
    } else {
        found.extend(chosen.iter().flat_map(|&task| teardowns_of(graph, task)));
    }
    if reach.upstream {
        let above = relatives(graph, &chosen, Graph::upstream);
        found.extend(above.iter().flat_map(|&task| teardowns_of(graph, task)));
        found.extend(above);
    } else {
        workers.extend(chosen.iter().copied().filter(is_work));
    }
    for setup in relevant_setups(graph, &workers) {
        found.insert(setup);
        found.extend(teardowns_of(graph, setup));
    }
    if reach.direct_upstream {
        let direct: Vec<TaskIx> = found.iter().flat_map(|&task| graph.upstream(task)).copied().collect();
        found.extend(direct);
    }
    found
}

/// The setups that any of these tasks needs: those above it whose teardown is below it, or which have none.
pub fn relevant_setups(graph: &Graph, tasks: &BTreeSet<TaskIx>) -> Vec<TaskIx> {
    let is_needed = |&setup: &TaskIx| {
        let teardowns: BTreeSet<TaskIx> = teardowns_of(graph, setup).collect();
        let below = relatives(graph, &BTreeSet::from([setup]), Graph::downstream);
        let mut served = tasks.intersection(&below);
        if teardowns.is_empty() {
            return served.next().is_some();
        }
        let above = relatives(graph, &teardowns, Graph::upstream);
        served.any(|task| above.contains(task))
    };
    let setups = graph.indexes().filter(|&task| graph.node(task).role == Role::Setup);
    if tasks.is_empty() { Vec::new() } else { setups.filter(is_needed).collect() }
}

/// The tasks so that each stands behind those of them that run before it; what may run at the same time stands in the order of the
/// graph.
pub fn in_order(graph: &Graph, tasks: &BTreeSet<TaskIx>) -> Vec<TaskIx> {
    let mut waits_for = vec![0_usize; graph.len()];
    for task in graph.indexes() {
        waits_for[task.index()] = graph.upstream(task).len();
    }
    let mut ready: BTreeSet<TaskIx> = graph.indexes().filter(|task| waits_for[task.index()] == 0).collect();
    let mut ordered = Vec::with_capacity(tasks.len());
    while let Some(task) = ready.pop_first() {
        if tasks.contains(&task) {
            ordered.push(task);
        }
        for &down in graph.downstream(task) {
            waits_for[down.index()] -= 1;
            if waits_for[down.index()] == 0 {
                ready.insert(down);
            }
        }
    }
    ordered
}

/// All that is reached from any of these tasks in one step or more.
fn relatives<'g>(
    graph: &'g Graph,
    from: &BTreeSet<TaskIx>,
    next: impl Fn(&'g Graph, TaskIx) -> &'g [TaskIx],
) -> BTreeSet<TaskIx> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<TaskIx> = from.iter().copied().collect();
    while let Some(task) = open.pop() {
        open.extend(next(graph, task).iter().copied().filter(|&relative| reached.insert(relative)));
    }
    reached
}

/// All that runs before any of these tasks.
pub fn above(graph: &Graph, tasks: &BTreeSet<TaskIx>) -> BTreeSet<TaskIx> {
    relatives(graph, tasks, Graph::upstream)
}

/// All that runs after any of these tasks.
pub fn below(graph: &Graph, tasks: &BTreeSet<TaskIx>) -> BTreeSet<TaskIx> {
    relatives(graph, tasks, Graph::downstream)
}

pub fn is_teardown(graph: &Graph, task: TaskIx) -> bool {
    matches!(graph.node(task).role, Role::Teardown { .. })
}

/// The teardowns right after a setup; none after any other task.
fn teardowns_of(graph: &Graph, setup: TaskIx) -> impl Iterator<Item = TaskIx> + '_ {
    let downstream = if graph.node(setup).role == Role::Setup { graph.downstream(setup) } else { &[] };
    downstream.iter().copied().filter(|&down| is_teardown(graph, down))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Node;

    /// `open >> work >> close`, `open` a setup and `close` its teardown; `after` behind `work`, `before` in front of it.
    fn scoped() -> Graph {
        let role = |role| Node { role, ..Node::default() };
        let teardown = Role::Teardown { setups: vec![TaskIx(0)], on_failure_fail_dagrun: false };
        let nodes = vec![role(Role::Setup), Node::default(), role(teardown), Node::default(), Node::default()];
        let edges = [(0, 1), (1, 2), (0, 2), (1, 3), (4, 1)].map(|(from, to)| (TaskIx(from), TaskIx(to)));
        Graph::new(nodes, &edges).unwrap()
    }

    fn of(chosen: u32, downstream: bool, upstream: bool) -> Vec<u32> {
        let reach = Reach { downstream, upstream, direct_upstream: false };
        subset(&scoped(), &[TaskIx(chosen)], reach).into_iter().map(|task| task.0).collect()
    }

    #[test]
    fn a_work_task_brings_its_setup_and_teardown_and_a_teardown_nothing() {
        assert_eq!(of(1, false, false), [0, 1, 2]);
        assert_eq!(of(2, false, false), [2]);
        assert_eq!(of(0, false, false), [0, 2]);
        assert_eq!(of(3, false, false), [3]);
    }

    #[test]
    fn what_runs_before_and_after_comes_along_if_it_is_asked_for() {
        assert_eq!(of(1, true, false), [0, 1, 2, 3]);
        assert_eq!(of(1, true, true), [0, 1, 2, 3, 4]);
        assert_eq!(of(4, true, false), [0, 1, 2, 3, 4]);
    }
}
