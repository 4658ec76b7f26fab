//! What of a graph bears on a task beyond its direct upstream tasks: setups further up, a teardown's scope, and which tasks
//! decide the state of the run (SEMANTICS 3, 5, 20).
//!
//! Knows shapes only, no states. Worked out once for each definition; a graph without setups and teardowns costs nothing here.

use crate::model::{Graph, Role, TaskIx};

/// By [`TaskIx`]; the lists of relatives are empty (not just their elements) when the graph has no setup and no teardown.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    indirect_setups: Vec<Vec<TaskIx>>,
    scope: Vec<Vec<TaskIx>>,
    /// The tasks among whose indirect setups, or in whose scope, a task is.
    observers: Vec<Vec<TaskIx>>,
    /// Whether the task's state decides the run's (an effective leaf).
    pub is_leaf: Vec<bool>,
}

impl Surroundings {
    pub fn of(graph: &Graph) -> Self {
        let mut found = Self { is_leaf: leaves(graph), ..Self::default() };
        if graph.indexes().all(|task| graph.node(task).role == Role::Work) {
            return found;
        }
        found.indirect_setups = graph.indexes().map(|task| indirect_setups(graph, task)).collect();
        found.scope = graph.indexes().map(|task| scope(graph, task)).collect();
        found.observers = vec![Vec::new(); graph.len()];
        for task in graph.indexes() {
            for seen in found.indirect_setups[task.index()].iter().chain(&found.scope[task.index()]) {
                found.observers[seen.index()].push(task);
            }
        }
        found
    }

    /// Relevant setups that are upstream of a task that is no teardown, but not directly.
    pub fn indirect_setups(&self, task: TaskIx) -> &[TaskIx] {
        self.indirect_setups.get(task.index()).map_or(&[], Vec::as_slice)
    }

    /// What must be finished before a teardown runs: all between its setups and itself but its direct upstream tasks.
    pub fn scope(&self, task: TaskIx) -> &[TaskIx] {
        self.scope.get(task.index()).map_or(&[], Vec::as_slice)
    }

    pub fn observers(&self, task: TaskIx) -> &[TaskIx] {
        self.observers.get(task.index()).map_or(&[], Vec::as_slice)
    }
}

fn is_teardown(graph: &Graph, task: TaskIx) -> bool {
    matches!(graph.node(task).role, Role::Teardown { .. })
}

/// Airflow leaves a teardown out unless it says `on_failure_fail_dagrun`.
fn is_ignored(graph: &Graph, task: TaskIx) -> bool {
    matches!(graph.node(task).role, Role::Teardown { on_failure_fail_dagrun: false, .. })
}

fn leaves(graph: &Graph) -> Vec<bool> {
    let is_leaf = |task| !is_ignored(graph, task) && graph.downstream(task).iter().all(|&down| is_ignored(graph, down));
    let effective: Vec<bool> = graph.indexes().map(is_leaf).collect();
    if effective.contains(&true) {
        return effective;
    }
    graph.indexes().map(|task| graph.downstream(task).is_empty()).collect()
}

fn relatives<'g>(graph: &'g Graph, from: TaskIx, next: impl Fn(&'g Graph, TaskIx) -> &'g [TaskIx]) -> Vec<bool> {
    let mut reached = vec![false; graph.len()];
    let mut open = vec![from];
    while let Some(task) = open.pop() {
        for &relative in next(graph, task) {
            if !std::mem::replace(&mut reached[relative.index()], true) {
                open.push(relative);
            }
        }
    }
    reached
}

fn indirect_setups(graph: &Graph, task: TaskIx) -> Vec<TaskIx> {
    if is_teardown(graph, task) {
        return Vec::new();
    }
    let above = relatives(graph, task, Graph::upstream);
    let below = relatives(graph, task, Graph::downstream);
    let is_relevant = |setup: TaskIx| {
        let mut teardowns = graph.downstream(setup).iter().filter(|&&down| is_teardown(graph, down)).peekable();
        teardowns.peek().is_none() || teardowns.any(|teardown| below[teardown.index()])
    };
    graph
        .indexes()
        .filter(|&setup| above[setup.index()] && graph.node(setup).role == Role::Setup)
        .filter(|setup| !graph.upstream(task).contains(setup))
        .filter(|&setup| is_relevant(setup))
        .collect()
}

fn scope(graph: &Graph, task: TaskIx) -> Vec<TaskIx> {
    if !is_teardown(graph, task) {
        return Vec::new();
    }
    let above = relatives(graph, task, Graph::upstream);
    let mut is_in_scope = vec![false; graph.len()];
    for &setup in graph.upstream(task).iter().filter(|&&up| graph.node(up).role == Role::Setup) {
        for (at, is_below) in relatives(graph, setup, Graph::downstream).into_iter().enumerate() {
            is_in_scope[at] |= is_below && above[at];
        }
    }
    for direct in graph.upstream(task) {
        is_in_scope[direct.index()] = false;
    }
    graph.indexes().filter(|between| is_in_scope[between.index()]).collect()
}
