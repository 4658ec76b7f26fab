//! What a run's progress keeps of the past: which tasks depend on it, and what was answered when it was asked (SEMANTICS 4).
//!
//! It does not know what came before: a pass names who asks, and `scheduler::past` answers.

use std::sync::Arc;

use super::{InstanceIx, Progress};
use crate::model::{TaskIx, TaskState};
use crate::scheduler::trigger_rule::Decision;

/// How a task depends on its own instance in the run before (SEMANTICS 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PastRule {
    pub depends: bool,
    /// It is not skipped before the past allows it (`wait_for_past_depends_before_skipping`).
    pub withholds_skips: bool,
}

/// What is known of an instance's past, if its task depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    Unasked,
    Allows,
    Blocks,
}

impl Progress {
    /// The same with tasks that depend on the past, by task; empty if none does.
    pub fn with_past(mut self, past: Arc<[PastRule]>) -> Self {
        self.past = past;
        let bound = self.slots.iter().filter(|slot| !slot.state.is_finished() && self.depends(slot.task)).count();
        self.past_bound = bound + self.missing_past_bound();
        self
    }

    /// Whether the past allows an instance that a pass has asked about.
    pub fn answer_past(&mut self, instance: InstanceIx, is_allowed: bool) {
        self.asking.remove(&instance);
        self.slots[instance.index()].past = if is_allowed { Past::Allows } else { Past::Blocks };
        if is_allowed {
            self.touch(instance);
        }
    }

    /// The past of `task` has changed: its instances that have not begun are asked about again.
    pub fn ask_past_again(&mut self, task: TaskIx) {
        if !self.depends(task) {
            return;
        }
        for instance in self.instances_of(task).collect::<Vec<_>>() {
            self.slots[instance.index()].past = Past::Unasked;
            self.touch(instance);
        }
    }

    /// The run before this one is another: every task that depends on it is asked about again.
    pub fn ask_all_past_again(&mut self) {
        for at in 0..self.past.len() as u32 {
            self.ask_past_again(TaskIx(at));
        }
    }

    /// Whether any task depends on its past.
    pub fn has_past(&self) -> bool {
        !self.past.is_empty()
    }

    pub(super) fn depends(&self, task: TaskIx) -> bool {
        self.past.get(task.index()).is_some_and(|rule| rule.depends)
    }

    /// Whether the run before this one has a say in what the trigger rule has decided, and has not allowed it.
    pub(super) fn waits_for_past(&self, instance: InstanceIx, decision: Decision) -> bool {
        let slot = &self.slots[instance.index()];
        let Some(rule) = self.past.get(slot.task.index()) else { return false };
        let is_concerned = match decision {
            Decision::Run => rule.depends,
            Decision::Mark(state) => state == TaskState::Skipped && rule.withholds_skips,
            Decision::Wait(_) => false,
        };
        is_concerned && slot.past != Past::Allows
    }
}
