//! The shape of a DAG: who runs after whom, by which rule. All that deciding needs, and nothing of what a task does.

use std::collections::BTreeSet;

use crate::model::mapping::MappingIx;
use crate::model::state::{TriggerRule, WeightRule};

/// A task's place in its DAG's definition. Dense: `0..graph.len()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskIx(pub u32);

impl TaskIx {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a task is to the tasks around it (SEMANTICS 20).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Role {
    #[default]
    Work,
    Setup,
    Teardown {
        /// Its direct setups.
        setups: Vec<TaskIx>,
        /// Whether its failure counts for the state of the run.
        on_failure_fail_dagrun: bool,
    },
}

/// One task as deciding sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub trigger_rule: TriggerRule,
    pub role: Role,
    /// Clamped to ±2^31 at definition, as Airflow does.
    pub priority_weight: i64,
    pub weight_rule: WeightRule,
    /// What multiplies it: the mappings of the groups around it, outermost first, then its own. Empty: it is not mapped.
    pub mappings: Vec<MappingIx>,
}

impl Default for Node {
    /// What a file gives that says nothing of the task's place.
    fn default() -> Self {
        Self {
            trigger_rule: TriggerRule::AllSuccess,
            role: Role::Work,
            priority_weight: 1,
            weight_rule: WeightRule::Downstream,
            mappings: Vec::new(),
        }
    }
}

/// Nodes and edges; indexes are [`TaskIx`]. Acyclic by construction.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    upstream: Vec<Vec<TaskIx>>,
    downstream: Vec<Vec<TaskIx>>,
}

/// The tasks of one cycle, in order of its arrows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle(pub Vec<TaskIx>);

impl Graph {
    /// Builds the graph from nodes and `(upstream, downstream)` edges; an edge given twice counts once.
    ///
    /// # Errors
    /// The first cycle found, by the order of the nodes.
    pub fn new(nodes: Vec<Node>, edges: &[(TaskIx, TaskIx)]) -> Result<Self, Cycle> {
        let mut upstream = vec![Vec::new(); nodes.len()];
        let mut downstream = vec![Vec::new(); nodes.len()];
        let mut seen = BTreeSet::new();
        for &(from, to) in edges {
            if seen.insert((from, to)) {
                downstream[from.index()].push(to);
                upstream[to.index()].push(from);
            }
        }
        let graph = Self { nodes, upstream, downstream };
        match graph.find_cycle() {
            Some(cycle) => Err(cycle),
            None => Ok(graph),
        }
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn indexes(&self) -> impl Iterator<Item = TaskIx> + use<> {
        (0..self.nodes.len() as u32).map(TaskIx)
    }

    pub fn node(&self, task: TaskIx) -> &Node {
        &self.nodes[task.index()]
    }

    /// The direct upstream tasks, in the order in which they were declared.
    pub fn upstream(&self, task: TaskIx) -> &[TaskIx] {
        &self.upstream[task.index()]
    }

    /// The direct downstream tasks, in the order in which they were declared.
    pub fn downstream(&self, task: TaskIx) -> &[TaskIx] {
        &self.downstream[task.index()]
    }

    fn find_cycle(&self) -> Option<Cycle> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; self.len()];
        for root in self.indexes() {
            if marks[root.index()] != Mark::New {
                continue;
            }
            // Depth first with its own stack: a chain of 100,000 tasks must not overflow the thread's.
            let mut path = vec![(root, 0)];
            marks[root.index()] = Mark::Open;
            while let Some(&mut (task, ref mut next)) = path.last_mut() {
                let Some(&child) = self.downstream(task).get(*next) else {
                    marks[task.index()] = Mark::Done;
                    path.pop();
                    continue;
                };
                *next += 1;
                match marks[child.index()] {
                    Mark::New => {
                        marks[child.index()] = Mark::Open;
                        path.push((child, 0));
                    }
                    Mark::Open => {
                        let on_cycle = path.iter().map(|&(t, _)| t).skip_while(|&t| t != child);
                        return Some(Cycle(on_cycle.collect()));
                    }
                    Mark::Done => {}
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work() -> Node {
        Node::default()
    }

    fn edges(pairs: &[(u32, u32)]) -> Vec<(TaskIx, TaskIx)> {
        pairs.iter().map(|&(a, b)| (TaskIx(a), TaskIx(b))).collect()
    }

    #[test]
    fn a_cycle_is_named_in_the_order_of_its_arrows() {
        let found = Graph::new(vec![work(); 4], &edges(&[(0, 1), (1, 2), (2, 3), (3, 1)]));
        assert_eq!(found, Err(Cycle(vec![TaskIx(1), TaskIx(2), TaskIx(3)])));
    }

    #[test]
    fn a_task_upstream_of_itself_is_a_cycle_of_one() {
        assert_eq!(Graph::new(vec![work()], &edges(&[(0, 0)])), Err(Cycle(vec![TaskIx(0)])));
    }

    #[test]
    fn a_repeated_edge_counts_once() {
        let graph = Graph::new(vec![work(); 2], &edges(&[(0, 1), (0, 1)])).unwrap();
        assert_eq!(graph.upstream(TaskIx(1)), [TaskIx(0)]);
        assert_eq!(graph.downstream(TaskIx(0)), [TaskIx(1)]);
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_tasks_needs_no_deep_stack() {
        let pairs: Vec<_> = (1..100_000).map(|i| (TaskIx(i - 1), TaskIx(i))).collect();
        assert_eq!(Graph::new(vec![work(); 100_000], &pairs).unwrap().len(), 100_000);
    }
}
