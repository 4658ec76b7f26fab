//! Which tasks of a graph are mapped, over what, and which of them share a mapped group (SEMANTICS 15).
//!
//! Knows shapes only, no states. Worked out once for each definition; a graph without mapped tasks costs nothing here.

use std::collections::BTreeSet;

use crate::mapping;
use crate::model::mapping::{Mapping, MappingIx, XcomInput};
use crate::model::{Graph, TaskIx};

/// The place of a task that is not mapped.
const PLAIN: u32 = u32::MAX;

/// By [`TaskIx`]; all lists are empty (not just their elements) when no task is mapped.
#[derive(Clone, Debug, Default)]
pub(super) struct Maps {
    mappings: Vec<Mapping>,
    /// Every XCom that a mapping reads, once.
    pub xcoms: Vec<XcomInput>,
    places: Vec<u32>,
    tasks: Vec<MappedTask>,
    /// For each task those that are mapped over what it pushes.
    dependents: Vec<Vec<TaskIx>>,
}

#[derive(Clone, Debug)]
struct MappedTask {
    task: TaskIx,
    mappings: Vec<MappingIx>,
    /// The tasks whose XComs say how many there are.
    inputs: Vec<TaskIx>,
    /// Its direct upstream tasks that share a mapped group with it.
    near: Vec<TaskIx>,
    /// How many mappings it shares with those that look at it, if any: each number once, ascending.
    depths: Vec<usize>,
}

impl Maps {
    /// `observers`: who looks at a task beside those directly after it.
    pub fn of<'s>(graph: &Graph, mappings: &[Mapping], observers: impl Fn(TaskIx) -> &'s [TaskIx]) -> Self {
        let mut maps = Self { mappings: mappings.to_vec(), ..Self::default() };
        if graph.indexes().all(|task| graph.node(task).mappings.is_empty()) {
            return maps;
        }
        maps.places = vec![PLAIN; graph.len()];
        maps.dependents = vec![Vec::new(); graph.len()];
        for task in graph.indexes().filter(|&task| !graph.node(task).mappings.is_empty()) {
            maps.places[task.index()] = maps.tasks.len() as u32;
            maps.add(graph, task, observers(task));
        }
        maps
    }

    fn add(&mut self, graph: &Graph, task: TaskIx, observers: &[TaskIx]) {
        let chain = graph.node(task).mappings.clone();
        let mut inputs: Vec<TaskIx> = Vec::new();
        for xcom in chain.iter().flat_map(|ix| self.mappings[ix.index()].xcoms()).cloned().collect::<Vec<_>>() {
            if !inputs.contains(&xcom.task) {
                inputs.push(xcom.task);
                self.dependents[xcom.task.index()].push(task);
            }
            if !self.xcoms.contains(&xcom) {
                self.xcoms.push(xcom);
            }
        }
        let near = graph.upstream(task).iter().copied().filter(|&up| shared(graph, up, task) > 0).collect();
        let lookers = graph.downstream(task).iter().chain(observers);
        let depths: BTreeSet<usize> =
            lookers.map(|&looker| shared(graph, task, looker)).filter(|&depth| depth > 0).collect();
        self.tasks.push(MappedTask { task, mappings: chain, inputs, near, depths: depths.into_iter().collect() });
    }

    /// The mapped tasks, in order.
    pub fn tasks(&self) -> impl Iterator<Item = TaskIx> + '_ {
        self.tasks.iter().map(|mapped| mapped.task)
    }

    /// The mapped task at `place`.
    pub fn task(&self, place: usize) -> TaskIx {
        self.tasks[place].task
    }

    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Its place among the mapped tasks; null when it is not mapped.
    pub fn place(&self, task: TaskIx) -> Option<usize> {
        self.places.get(task.index()).filter(|&&place| place != PLAIN).map(|&place| place as usize)
    }

    fn mapped(&self, task: TaskIx) -> Option<&MappedTask> {
        self.place(task).map(|place| &self.tasks[place])
    }

    /// The tasks whose XComs say how many instances a task has.
    pub fn inputs(&self, task: TaskIx) -> &[TaskIx] {
        self.mapped(task).map_or(&[], |mapped| &mapped.inputs)
    }

    /// Its direct upstream tasks that share a mapped group with it.
    pub fn near(&self, task: TaskIx) -> &[TaskIx] {
        self.mapped(task).map_or(&[], |mapped| &mapped.near)
    }

    /// The tasks that are mapped over what `task` pushes.
    pub fn dependents(&self, task: TaskIx) -> &[TaskIx] {
        self.dependents.get(task.index()).map_or(&[], Vec::as_slice)
    }

    /// How many mappings it shares with those that look at it, if any: each number once, ascending.
    pub fn depths(&self, task: TaskIx) -> &[usize] {
        self.mapped(task).map_or(&[], |mapped| &mapped.depths)
    }

    /// The length of each of a task's mappings, outermost first; None: one of them is not known, or the task is not mapped.
    pub fn lengths(&self, task: TaskIx, mut pushed: impl FnMut(&XcomInput) -> Option<u64>) -> Option<Vec<u64>> {
        let chain = &self.mapped(task)?.mappings;
        chain.iter().map(|ix| mapping::length(&self.mappings[ix.index()], &mut pushed)).collect()
    }

    /// How many instances a task has whose mappings all stand in the file; None: not all do, or the task is not mapped.
    pub fn literal(&self, task: TaskIx) -> Option<u64> {
        self.lengths(task, |_| None).map(|lengths| product(&lengths))
    }
}

/// How many of their mappings, outermost first, two tasks have in common: those of the groups that hold both.
pub(super) fn shared(graph: &Graph, one: TaskIx, other: TaskIx) -> usize {
    let (one, other) = (&graph.node(one).mappings, &graph.node(other).mappings);
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

/// What several lengths make together.
pub(super) fn product(lengths: &[u64]) -> u64 {
    lengths.iter().fold(1, |product, &length| product.saturating_mul(length))
}
