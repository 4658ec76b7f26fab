//! What a run's progress keeps of branches and short circuits: which tasks they have decided against (SEMANTICS 13).
//!
//! Two effects of one decision. A task that is not mapped skips at once what it decided against, whatever state that waits in
//! ([`Progress::skip_at_once`]). And for as long as the decider is finished, a task right after it that is looked at anew is skipped
//! again ([`Progress::bar`]; Airflow: `NotPreviouslySkippedDep`), so that a decision outlives a clear of what stands below it.

use std::collections::BTreeMap;

use super::{InstanceIx, Progress, Slot};
use crate::model::{Graph, TaskIx, TaskState};
use crate::scheduler::machine::{TaskEvent, next_task};

/// By barred task and map index of the decider, the instances whose decision is against it.
pub(super) type Bars = BTreeMap<(TaskIx, i32), Vec<InstanceIx>>;

/// A decision over the tasks of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Of the tasks directly after the decider only these run.
    Followed(Vec<TaskIx>),
    /// These do not run, wherever they stand after it.
    Skipped(Vec<TaskIx>),
}

impl Choice {
    /// The tasks that do not run; in the order of the decider's downstream tasks, or as they were named.
    pub fn against(&self, graph: &Graph, decider: TaskIx) -> Vec<TaskIx> {
        match self {
            Self::Followed(followed) => {
                graph.downstream(decider).iter().copied().filter(|down| !followed.contains(down)).collect()
            }
            Self::Skipped(skipped) => skipped.clone(),
        }
    }
}

impl Progress {
    /// The decision of `decider` is against `tasks`, of which those directly after it count. It replaces an earlier one.
    pub fn bar(&mut self, decider: InstanceIx, tasks: &[TaskIx]) {
        self.unbar(decider);
        let slot = &self.slots[decider.index()];
        let (task, map_index) = (slot.task, slot.map_index);
        let graph = self.graph.clone();
        for &down in graph.downstream(task).iter().filter(|down| tasks.contains(down)) {
            self.bars.entry((down, map_index)).or_default().push(decider);
            self.touch_barred(down, map_index);
        }
    }

    /// Its decision is void: it runs again.
    pub fn unbar(&mut self, decider: InstanceIx) {
        if self.bars.is_empty() {
            return;
        }
        let slot = &self.slots[decider.index()];
        let (task, map_index) = (slot.task, slot.map_index);
        let graph = self.graph.clone();
        for &down in graph.downstream(task) {
            let Some(deciders) = self.bars.get_mut(&(down, map_index)) else { continue };
            let before = deciders.len();
            deciders.retain(|&other| other != decider);
            let has_gone = deciders.len() < before;
            if deciders.is_empty() {
                self.bars.remove(&(down, map_index));
            }
            if has_gone {
                self.touch_barred(down, map_index);
            }
        }
    }

    /// An instance without an index becomes the first of many. What it decided while its task was not mapped goes with it.
    pub(super) fn become_first(&mut self, instance: InstanceIx) {
        let Slot { task, map_index, .. } = self.slots[instance.index()];
        let is_barred =
            |down: TaskIx| self.bars.get(&(down, map_index)).is_some_and(|deciders| deciders.contains(&instance));
        let barred: Vec<TaskIx> = self.graph.downstream(task).iter().copied().filter(|&down| is_barred(down)).collect();
        self.unbar(instance);
        self.slots[instance.index()].map_index = 0;
        if !barred.is_empty() {
            self.bar(instance, &barred);
        }
    }

    /// A task right before `task` has ended or begun anew: a decision of it counts from now on, or no longer.
    pub(super) fn touch_if_barred(&mut self, task: TaskIx, map_index: i32) {
        if !self.bars.is_empty() && self.bars.contains_key(&(task, map_index)) {
            self.touch_barred(task, map_index);
        }
    }

    /// Those that a decider of this index speaks for: a mapped one for its own index, any other for all.
    fn touch_barred(&mut self, task: TaskIx, map_index: i32) {
        match (usize::try_from(map_index), self.maps.place(task)) {
            (Ok(at), Some(place)) => self.touch_member(place, at),
            _ => self.touch_all_of(task),
        }
    }

    /// Skips all instances of `tasks` but those that run or are over. They are returned, in order; what is queued may be among them.
    pub fn skip_at_once(&mut self, tasks: &[TaskIx]) -> Vec<InstanceIx> {
        let mut skipped = Vec::new();
        for &task in tasks {
            for instance in self.instances_of(task).collect::<Vec<_>>() {
                if next_task(self.state(instance), TaskEvent::PassOver).is_ok() {
                    self.set_state(instance, TaskState::Skipped);
                    skipped.push(instance);
                }
            }
        }
        skipped.sort_unstable();
        skipped
    }

    /// Whether a finished task right before it has decided against it. A mapped decider speaks for its own index, any other for all.
    pub(super) fn is_barred(&self, task: TaskIx, map_index: i32) -> bool {
        let by = |index| {
            let deciders = self.bars.get(&(task, index)).map_or(&[][..], Vec::as_slice);
            deciders.iter().any(|&decider| self.state(decider).is_finished())
        };
        !self.bars.is_empty() && (by(-1) || (map_index >= 0 && by(map_index)))
    }
}
