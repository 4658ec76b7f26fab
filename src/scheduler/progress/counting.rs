//! The counters that trigger rules look at, and who is to be looked at again when one of them has moved.
//!
//! An instance's decision depends on most counts only by whether they are zero, so that a task with many instances before it, or
//! with many of its own, is looked at a few times and not at each end. Within a mapped group an instance sees those of its own
//! index alone, counted in blocks ([`super::many`]).

use super::maps::shared;
use super::{InstanceIx, Progress, Slot, Tally};
use crate::model::{Role, TaskIx, TaskState, TriggerRule};
use crate::scheduler::trigger_rule::{Counts, Decision, Inputs, Unmet};

/// Whether going from one to the other can change what a rule decides; who is surplus by it is [`Progress::touch_surplus`]'s affair.
pub(super) fn matters(before: &Counts, after: &Counts) -> bool {
    let facts = |counts: &Counts| {
        let Counts { success, failed, skipped, upstream_failed, removed, .. } = *counts;
        (counts.pending() == 0, [success, failed, skipped, upstream_failed, removed].map(|count| count > 0))
    };
    facts(before) != facts(after)
}

/// The rules that only something that has happened before them can meet.
const fn needs_somebody(rule: TriggerRule) -> bool {
    matches!(
        rule,
        TriggerRule::OneSuccess | TriggerRule::OneFailed | TriggerRule::OneDone | TriggerRule::NoneFailedMinOneSuccess
    )
}

impl Progress {
    pub(super) fn inputs(&self, task: TaskIx, map_index: i32) -> Inputs {
        let tally = &self.tallies[task.index()];
        let mut upstream = tally.upstream;
        let mut upstream_setups = self.setups.get(task.index()).copied().unwrap_or_default();
        for &near in self.maps.near(task) {
            let seen = self.seen(near, task, map_index);
            upstream = upstream.plus(&seen);
            if self.graph.node(near).role == Role::Setup {
                upstream_setups = upstream_setups.plus(&seen);
            }
        }
        let sum = |tasks: &[TaskIx]| {
            tasks.iter().fold(Counts::default(), |sum, &of| sum.plus(&self.seen(of, task, map_index)))
        };
        Inputs {
            rule: self.graph.node(task).trigger_rule,
            map_index,
            upstream,
            upstream_setups,
            indirect_setups: sum(self.surroundings.indirect_setups(task)),
            unfinished_in_scope: sum(self.surroundings.scope(task)).pending(),
        }
    }

    /// The instances of `of` that count for one of `task` (Airflow: `get_relevant_upstream_map_indexes`): within the same mapped
    /// group those of the same index, else all.
    fn seen(&self, of: TaskIx, task: TaskIx, map_index: i32) -> Counts {
        let own = self.tallies[of.index()].own;
        let (Some(up), Some(down)) = (self.many_of(of), self.many_of(task)) else { return own };
        let depth = shared(&self.graph, of, task);
        if depth == 0 {
            return own;
        }
        let Ok(index) = u64::try_from(map_index) else {
            // As soon as its length is known it waits for no index any longer, but for such a rule to be met there must be one.
            let waits_for_all =
                needs_somebody(self.graph.node(task).trigger_rule) && !self.maps.inputs(task).contains(&of);
            let is_known = self.chain(task).is_some_and(|lengths| super::maps::product(&lengths) > 0);
            return if waits_for_all || !is_known { own } else { up.unindexed };
        };
        match down.block_size(depth).zip(up.block(depth)) {
            Some((size, block)) => up.unindexed.plus(&block.at(index / size)),
            None => own,
        }
    }

    /// What a mapped task's rule lets pass, its inputs may not (Airflow: `MappedTaskUpstreamDep`): one that was to be mapped over and
    /// has failed, or was skipped, before it became many.
    pub(super) fn heed_inputs(&self, task: TaskIx, decision: Decision) -> Decision {
        if matches!(decision, Decision::Mark(_)) {
            return decision;
        }
        let ended = self.maps.inputs(task).iter().fold(Counts::default(), |sum, &input| {
            sum.plus(&self.many_of(input).map_or(self.tallies[input.index()].own, |many| many.unindexed))
        });
        if ended.failed + ended.upstream_failed > 0 {
            Decision::Mark(TaskState::UpstreamFailed)
        } else if ended.skipped > 0 {
            Decision::Mark(TaskState::Skipped)
        } else if ended.removed > 0 {
            Decision::Wait(Unmet::Upstream)
        } else {
            decision
        }
    }

    /// Counts an instance in or out under a state.
    pub(super) fn tally(&mut self, instance: InstanceIx, state: TaskState, count: fn(&mut usize)) {
        if state == TaskState::Removed {
            count(&mut self.removed);
        }
        if state.is_finished() {
            let task = self.slots[instance.index()].task;
            if state.is_failed_like() && self.surroundings.is_leaf[task.index()] {
                count(&mut self.failed_leaves);
            }
            return;
        }
        count(&mut self.unfinished);
        if state.is_executing() {
            count(&mut self.executing);
        }
        if matches!(state, TaskState::Deferred | TaskState::AwaitingInput) {
            count(&mut self.waiting_outside);
        }
        if self.depends(self.slots[instance.index()].task) {
            count(&mut self.past_bound);
        }
    }

    /// An instance of `task` has gone from one state to another, and one of them is finished.
    pub(super) fn recount(&mut self, task: TaskIx, map_index: i32, old: TaskState, new: TaskState) {
        let is_setup = self.graph.node(task).role == Role::Setup;
        let own = &mut self.tallies[task.index()].own;
        let before = *own;
        own.shift(old, new);
        let own_matters = matters(&before, own);
        let moved = self.shift_in_blocks(task, map_index, old, new);
        for at in 0..self.graph.downstream(task).len() {
            let down = self.graph.downstream(task)[at];
            self.touch_if_barred(down, map_index);
            if self.are_near(task, down) {
                self.touch_near(task, down, map_index, own_matters, &moved);
                continue;
            }
            let tally = &mut self.tallies[down.index()];
            let before = tally.upstream;
            tally.upstream.shift(old, new);
            let mut is_moved = matters(&before, &tally.upstream);
            if is_setup {
                let setups = &mut self.setups[down.index()];
                let before = *setups;
                setups.shift(old, new);
                is_moved |= matters(&before, setups);
            }
            if is_moved {
                self.touch_all_of(down);
            }
        }
        for at in 0..self.surroundings.observers(task).len() {
            let observer = self.surroundings.observers(task)[at];
            if self.are_near(task, observer) {
                self.touch_near(task, observer, map_index, own_matters, &moved);
            } else if own_matters {
                self.touch_all_of(observer);
            }
        }
        for at in 0..self.maps.dependents(task).len() {
            let dependent = self.maps.dependents(task)[at];
            self.doubt_length(dependent);
            // What `heed_inputs` looks at: of a mapped task the instance without an index alone, of any other one all.
            if map_index < 0 || (own_matters && self.maps.place(task).is_none()) {
                self.touch_all_of(dependent);
            }
        }
        if self.removed > 0 && (old == TaskState::Success || new == TaskState::Success) {
            self.touch_those_surplus(task);
        }
    }

    /// `task` has one success more, or one less. Where something is removed, an instance of those that look at it is surplus whose
    /// index is not below the successes that it sees (Airflow: `all_success`, and setups that are not directly upstream).
    fn touch_those_surplus(&mut self, task: TaskIx) {
        for at in 0..self.graph.downstream(task).len() {
            let down = self.graph.downstream(task)[at];
            let Tally { upstream, .. } = self.tallies[down.index()];
            self.touch_surplus(down, upstream.success, self.maps.near(down).to_vec());
        }
        for at in 0..self.surroundings.observers(task).len() {
            let observer = self.surroundings.observers(task)[at];
            let setups = self.surroundings.indirect_setups(observer);
            let (near, far): (Vec<TaskIx>, Vec<TaskIx>) =
                setups.iter().copied().partition(|&setup| self.are_near(setup, observer));
            let success = far.iter().map(|setup| self.tallies[setup.index()].own.success).sum();
            self.touch_surplus(observer, success, near);
        }
    }

    /// Touches the instances of `task` at whose indexes the number of successes may be now, or was before the last of them: all see
    /// `success` of them, and each those of its own index of `near`.
    fn touch_surplus(&mut self, task: TaskIx, success: u32, near: Vec<TaskIx>) {
        let Some(place) = self.maps.place(task) else { return };
        let of_one_index = |&of: &TaskIx| {
            let depth = shared(&self.graph, of, task);
            let many = self.many_of(of).filter(|_| self.many[place].block_size(depth).is_some());
            let seen = many.and_then(|many| Some(many.block(depth)?.size + u64::from(many.unindexed.success)));
            seen.unwrap_or_else(|| u64::from(self.tallies[of.index()].own.success))
        };
        let most = near.iter().map(of_one_index).sum::<u64>() + u64::from(success);
        let last = most.min(self.many[place].members.len() as u64);
        for at in u64::from(success.saturating_sub(1))..=last {
            self.touch_member(place, at as usize);
        }
    }

    pub(super) fn are_near(&self, task: TaskIx, other: TaskIx) -> bool {
        self.maps.len() > 0 && shared(&self.graph, task, other) > 0
    }

    /// Counts the instance in the blocks of its task; for each depth, the block and whether what moved there matters.
    fn shift_in_blocks(
        &mut self,
        task: TaskIx,
        map_index: i32,
        old: TaskState,
        new: TaskState,
    ) -> Vec<(usize, u64, bool)> {
        let Some(place) = self.maps.place(task) else { return Vec::new() };
        let many = &mut self.many[place];
        let Ok(index) = u64::try_from(map_index) else {
            many.unindexed.shift(old, new);
            return Vec::new();
        };
        let shift = |block: &mut super::many::Block| {
            let group = index / block.size;
            let counts = block.counts.get_mut(group as usize)?;
            let before = *counts;
            counts.shift(old, new);
            Some((block.depth, group, matters(&before, counts)))
        };
        many.blocks.iter_mut().filter_map(shift).collect()
    }

    /// An instance of `task` has moved, which shares a mapped group with `down`; `own_matters`: to who sees all of `task`.
    fn touch_near(
        &mut self,
        task: TaskIx,
        down: TaskIx,
        map_index: i32,
        own_matters: bool,
        moved: &[(usize, u64, bool)],
    ) {
        let depth = shared(&self.graph, task, down);
        let place = self.maps.place(down).expect("who shares a mapped group is mapped");
        let has_blocks = self.many_of(task).is_some_and(|many| many.block(depth).is_some());
        let Some(size) = self.many[place].block_size(depth).filter(|_| map_index >= 0 && has_blocks) else {
            // As long as the lengths of one of the two are not known, each sees all of it.
            if map_index < 0 || own_matters {
                self.touch_all_of(down);
            }
            return;
        };
        if let Some(unexpanded) = self.many[place].unexpanded {
            self.touch(unexpanded);
        }
        let Some(&(_, group, true)) = moved.iter().find(|&&(at, ..)| at == depth) else { return };
        let last = (group + 1).saturating_mul(size).min(self.many[place].members.len() as u64);
        for at in group.saturating_mul(size)..last {
            self.touch_member(place, at as usize);
        }
    }

    pub(super) fn touch_all_of(&mut self, task: TaskIx) {
        if let Some(place) = self.maps.place(task) {
            if let Some(unexpanded) = self.many[place].unexpanded {
                self.touch(unexpanded);
            }
            for at in 0..self.many[place].members.len() {
                self.touch_member(place, at);
            }
            return;
        }
        let (first, end) = (self.tallies[task.index()].first, self.tallies[task.index() + 1].first);
        for at in first..end {
            self.touch(self.instances[at as usize]);
        }
    }

    pub(super) fn touch_member(&mut self, place: usize, at: usize) {
        if let Some(member) = self.many[place].member(at) {
            self.touch(member);
        }
    }

    /// The instances of a task, by map index.
    pub fn instances_of(&self, task: TaskIx) -> impl Iterator<Item = InstanceIx> + '_ {
        let many = self.many_of(task);
        let mapped = many.into_iter().flat_map(|many| many.instances());
        let (first, end) = (self.tallies[task.index()].first, self.tallies[task.index() + 1].first);
        let plain = if many.is_some() { &[] } else { &self.instances[first as usize..end as usize] };
        mapped.chain(plain.iter().copied())
    }

    /// Works everything out anew from the graph and the slots.
    pub(super) fn rebuild(&mut self) {
        let tasks = self.graph.len();
        self.tallies = vec![Tally::default(); tasks + 1];
        (self.unfinished, self.executing, self.failed_leaves) = (0, 0, 0);
        (self.waiting_outside, self.past_bound, self.removed) = (0, 0, 0);
        let mut is_mapped: Vec<bool> =
            self.graph.indexes().map(|task| !self.graph.node(task).mappings.is_empty()).collect();
        for at in 0..self.slots.len() {
            let Slot { task, map_index, state, .. } = self.slots[at];
            self.tally(InstanceIx(at as u32), state, |count| *count += 1);
            is_mapped[task.index()] |= map_index >= 0;
            self.tallies[task.index()].own.add(state);
        }
        self.list_instances();
        self.gather();
        for task in self.graph.indexes() {
            self.tallies[task.index()].upstream = self.sum_of_upstream(task, &is_mapped, |_| true);
        }
        let is_setup = |up: TaskIx| self.graph.node(up).role == Role::Setup;
        self.setups = match self.graph.indexes().any(is_setup) {
            true => self.graph.indexes().map(|task| self.sum_of_upstream(task, &is_mapped, is_setup)).collect(),
            false => Vec::new(),
        };
        self.mark_all_changed();
    }

    /// Sorts the instances of tasks that are not mapped by their tasks.
    fn list_instances(&mut self) {
        let plain = |slot: &Slot| self.maps.place(slot.task).is_none();
        self.instances = (0..self.slots.len() as u32).map(InstanceIx).collect();
        self.instances.retain(|instance| plain(&self.slots[instance.index()]));
        self.instances.sort_by_key(|instance| self.slots[instance.index()].task);
        let mut first = 0;
        for (at, tally) in self.tallies.iter_mut().enumerate() {
            tally.first = first;
            if self.maps.place(TaskIx(at as u32)).is_none() {
                first += tally.own.total;
            }
        }
    }

    /// Airflow counts upstream tasks, or if one of them is mapped, their instances. So a task without an instance is waited for.
    /// Those of the same mapped group are left out: each instance looks at them by itself.
    fn sum_of_upstream(&self, task: TaskIx, is_mapped: &[bool], is_counted: impl Fn(TaskIx) -> bool) -> Counts {
        let counted = || self.graph.upstream(task).iter().copied().filter(|&up| is_counted(up));
        let far = || counted().filter(|&up| !self.are_near(up, task));
        let mut sum = far().fold(Counts::default(), |sum, up| sum.plus(&self.tallies[up.index()].own));
        if !counted().any(|up| is_mapped[up.index()]) {
            sum.total = counted().count() as u32;
        }
        sum
    }
}
