//! The instances of mapped tasks: how one becomes many, and how their number follows what is pushed (SEMANTICS 15).
//!
//! A mapped task begins with one instance without an index. When its dependencies are met and its lengths are known, that becomes
//! the first of many; the others are made in the same pass, or, if they are too many for one turn, in those that follow. Until then
//! they count as unfinished. The last of them is made first, so that a restart sees what is missing. Knows no rows: the world is
//! told of each instance that is made.

use std::collections::BTreeMap;
use std::fmt;

use super::counting::matters;
use super::maps::product;
use super::{InstanceIx, Progress, Slot};
use crate::model::mapping::{MAX_INSTANCES, XcomInput};
use crate::model::{Role, TaskIx, TaskState};
use crate::scheduler::trigger_rule::Counts;

/// Stands for an instance that is promised and not made yet.
const ABSENT: InstanceIx = InstanceIx(u32::MAX);
/// Stands for an instance that is not to be made any longer, between others that are.
const NEVER: InstanceIx = InstanceIx(u32::MAX - 1);

/// What a pass has made of mapped tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Instances without an index that have become the first of many: their index is 0 from now on.
    pub indexed: Vec<InstanceIx>,
    /// New instances with their tasks and map indexes, null state, in order of their places.
    pub added: Vec<(InstanceIx, TaskIx, i32)>,
    /// Why instances were marked that could not become many.
    pub refused: Vec<(InstanceIx, Refusal)>,
}

/// Why a mapped task has no instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A task whose XCom it is mapped over has not pushed it.
    NotPushed,
    /// So many would be more than there may be.
    TooMany(u64),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPushed => write!(f, "what it is mapped over was not pushed"),
            Self::TooMany(count) => {
                write!(f, "mapping makes {count} instances, and one task has at most {MAX_INSTANCES}: map over fewer")
            }
        }
    }
}

/// The instances of one mapped task.
#[derive(Clone, Debug, Default)]
pub(super) struct Many {
    /// The instance without an index.
    pub unexpanded: Option<InstanceIx>,
    /// By map index; [`ABSENT`] where one is promised.
    pub members: Vec<InstanceIx>,
    missing: usize,
    /// No member before it is missing, but perhaps the last.
    next_missing: usize,
    /// Of each of its mappings, outermost first; empty while they are not known.
    lengths: Vec<u64>,
    /// What was pushed may have changed since the number of instances was looked at.
    is_doubtful: bool,
    /// The instance without an index, counted.
    pub unindexed: Counts,
    pub blocks: Vec<Block>,
}

/// The instances of a task by the index of a group around it.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// How many of the task's mappings are the group's and those around it.
    pub depth: usize,
    /// How many instances one index of the group has.
    pub size: u64,
    pub counts: Vec<Counts>,
}

impl Block {
    pub fn at(&self, group: u64) -> Counts {
        usize::try_from(group).ok().and_then(|group| self.counts.get(group)).copied().unwrap_or_default()
    }
}

impl Many {
    pub fn member(&self, at: usize) -> Option<InstanceIx> {
        self.members.get(at).copied().filter(|&member| member < NEVER)
    }

    pub fn instances(&self) -> impl Iterator<Item = InstanceIx> + '_ {
        self.unexpanded.into_iter().chain(self.members.iter().copied().filter(|&member| member < NEVER))
    }

    /// How many instances one index of the group at `depth` has.
    pub fn block_size(&self, depth: usize) -> Option<u64> {
        self.lengths.get(depth..).filter(|_| !self.lengths.is_empty()).map(|inner| product(inner).max(1))
    }

    pub fn block(&self, depth: usize) -> Option<&Block> {
        self.blocks.iter().find(|block| block.depth == depth)
    }

    fn add(&mut self, map_index: i32, instance: InstanceIx) {
        let Ok(index) = usize::try_from(map_index) else {
            self.unexpanded = Some(instance);
            return;
        };
        if self.members.len() <= index {
            self.members.resize(index + 1, ABSENT);
        }
        self.members[index] = instance;
    }

    /// The next one to make: the last, then the others in order.
    fn next_missing(&mut self) -> Option<usize> {
        let last = self.members.len().checked_sub(1).filter(|_| self.missing > 0)?;
        if self.members[last] == ABSENT {
            return Some(last);
        }
        while self.members[self.next_missing] != ABSENT {
            self.next_missing += 1;
        }
        Some(self.next_missing)
    }
}

impl Progress {
    pub(super) fn many_of(&self, task: TaskIx) -> Option<&Many> {
        self.maps.place(task).map(|place| &self.many[place])
    }

    /// Gathers the instances of mapped tasks. Those that are missing between others were promised before a restart.
    pub(super) fn gather(&mut self) {
        self.many = vec![Many::default(); self.maps.len()];
        self.lengths = vec![BTreeMap::new(); self.maps.xcoms.len()];
        self.filling.clear();
        self.is_unsettled = self.maps.len() > 0;
        for at in 0..self.slots.len() {
            let Slot { task, map_index, state, .. } = self.slots[at];
            let Some(place) = self.maps.place(task) else { continue };
            self.many[place].add(map_index, InstanceIx(at as u32));
            if map_index < 0 {
                self.many[place].unindexed.add(state);
            }
        }
        for place in 0..self.many.len() {
            let many = &mut self.many[place];
            many.is_doubtful = true;
            many.missing = many.members.iter().filter(|&&member| member == ABSENT).count();
            let missing = many.missing;
            if missing > 0 {
                let task = self.maps.task(place);
                self.tallies[task.index()].own.total += missing as u32;
                self.promise(task, missing);
            }
        }
    }

    /// So many instances of `task` count as unfinished until they are made.
    fn promise(&mut self, task: TaskIx, count: usize) {
        self.filling.insert(task);
        self.unfinished += count;
        if self.depends(task) {
            self.past_bound += count;
        }
    }

    /// Adds to, or takes from, the number of a task's instances, wherever it is counted. Those that it leaves with something to wait
    /// for, or with nothing any longer, are looked at again; of the same mapped group, by [`Self::touch_neighbours`].
    fn change_total(&mut self, task: TaskIx, change: impl Fn(&mut u32)) {
        let own = &mut self.tallies[task.index()].own;
        let before = *own;
        change(&mut own.total);
        let own_matters = matters(&before, own);
        let is_setup = self.graph.node(task).role == Role::Setup;
        for at in 0..self.graph.downstream(task).len() {
            let down = self.graph.downstream(task)[at];
            if self.are_near(task, down) {
                continue;
            }
            let tally = &mut self.tallies[down.index()];
            let before = tally.upstream;
            change(&mut tally.upstream.total);
            let mut is_moved = matters(&before, &tally.upstream);
            if is_setup {
                let setups = &mut self.setups[down.index()];
                let before = *setups;
                change(&mut setups.total);
                is_moved |= matters(&before, setups);
            }
            if is_moved {
                self.touch_all_of(down);
            }
        }
        if !own_matters {
            return;
        }
        for at in 0..self.surroundings.observers(task).len() {
            let observer = self.surroundings.observers(task)[at];
            if !self.are_near(task, observer) {
                self.touch_all_of(observer);
            }
        }
        // What a mapped task has pushed is known while all of it is finished.
        for at in 0..self.maps.dependents(task).len() {
            self.doubt_length(self.maps.dependents(task)[at]);
        }
    }

    /// How many elements of that XCom an instance has pushed, for those that are mapped over it; null: none any longer. Of a mapped
    /// task any number: it counts the instances that have pushed.
    pub fn set_length(&mut self, instance: InstanceIx, key: &str, length: Option<u32>) {
        let task = self.task(instance);
        for at in 0..self.maps.xcoms.len() {
            let XcomInput { task: of, key: name } = &self.maps.xcoms[at];
            if *of != task || name != key {
                continue;
            }
            match length {
                Some(length) => self.lengths[at].insert(instance, length),
                None => self.lengths[at].remove(&instance),
            };
            for at in 0..self.maps.dependents(task).len() {
                self.doubt_length(self.maps.dependents(task)[at]);
            }
        }
    }

    /// What a mapped task is mapped over may have changed.
    pub(super) fn doubt_length(&mut self, task: TaskIx) {
        let Some(place) = self.maps.place(task) else { return };
        self.many[place].is_doubtful = true;
        if let Some(unexpanded) = self.many[place].unexpanded {
            self.touch(unexpanded);
        }
    }

    /// The length of each of its mappings, as of now.
    pub(super) fn chain(&self, task: TaskIx) -> Option<Vec<u64>> {
        self.maps.lengths(task, |xcom| self.pushed(xcom))
    }

    /// Airflow: of a mapped task, once all its instances are finished, how many of them have pushed.
    fn pushed(&self, xcom: &XcomInput) -> Option<u64> {
        let found = &self.lengths[self.maps.xcoms.iter().position(|known| known == xcom)?];
        if self.maps.place(xcom.task).is_some() {
            return (self.tallies[xcom.task.index()].own.pending() == 0).then_some(found.len() as u64);
        }
        found.values().next().copied().map(u64::from)
    }

    /// After a rebuild, when all lengths have been told: what the instances that there are stand for.
    pub(super) fn settle(&mut self) {
        if !std::mem::replace(&mut self.is_unsettled, false) {
            return;
        }
        for place in 0..self.many.len() {
            let task = self.maps.task(place);
            let count = self.many[place].members.len() as u64;
            let known = self.chain(task).filter(|lengths| product(lengths) == count);
            let depth = self.graph.node(task).mappings.len();
            self.many[place].lengths = match known {
                _ if count == 0 => Vec::new(),
                Some(lengths) => lengths,
                None if depth == 1 => vec![count],
                None => Vec::new(),
            };
            self.count_blocks(place);
        }
    }

    fn count_blocks(&mut self, place: usize) {
        let depths = self.maps.depths(self.maps.task(place));
        let many = &self.many[place];
        let mut blocks = Vec::new();
        for &depth in depths {
            let Some(size) = many.block_size(depth) else { continue };
            let groups = (many.members.len() as u64).div_ceil(size);
            let mut counts = vec![Counts::default(); groups as usize];
            for (at, &member) in many.members.iter().enumerate().filter(|&(_, &member)| member != NEVER) {
                let state = self.slots.get(member.index()).map_or(TaskState::None, |slot| slot.state);
                counts[(at as u64 / size) as usize].add(state);
            }
            blocks.push(Block { depth, size, counts });
        }
        self.many[place].blocks = blocks;
    }

    /// Whether an instance that may run is to become many first; a mapped task whose number is in doubt is noted to be looked at.
    pub(super) fn must_expand(&mut self, instance: InstanceIx) -> bool {
        let Slot { task, map_index, .. } = self.slots[instance.index()];
        let Some(place) = self.maps.place(task) else { return false };
        if map_index < 0 {
            self.expandable.insert(instance);
        } else if self.many[place].is_doubtful {
            self.doubted.insert(task);
        }
        map_index < 0
    }

    /// Whether the next pass makes instances, or looks whether it has to.
    pub fn is_to_grow(&self) -> bool {
        !self.expandable.is_empty() || !self.doubted.is_empty()
    }

    /// Makes instances, at most `limit`; marks are what could not become many, and what is surplus. Surplus ones are marked at once.
    pub(super) fn grow(&mut self, limit: usize, marks: &mut Vec<(InstanceIx, TaskState)>) -> (Growth, Vec<InstanceIx>) {
        let mut growth = Growth::default();
        for instance in std::mem::take(&mut self.expandable) {
            self.expand(instance, &mut growth, marks);
        }
        let mut surplus = Vec::new();
        for task in std::mem::take(&mut self.doubted) {
            surplus.extend(self.revise(task, &mut growth, marks));
        }
        let mut room = limit;
        while let Some(&task) = self.filling.first() {
            self.fill(task, &mut room, &mut growth);
            if room == 0 {
                break;
            }
        }
        (growth, surplus)
    }

    /// Airflow: `TaskMap.expand_mapped_task`.
    fn expand(&mut self, instance: InstanceIx, growth: &mut Growth, marks: &mut Vec<(InstanceIx, TaskState)>) {
        let task = self.task(instance);
        let Some(place) = self.maps.place(task) else { return };
        let refusal = match self.chain(task) {
            None => Refusal::NotPushed,
            Some(lengths) => match product(&lengths) {
                0 => return marks.push((instance, TaskState::Skipped)),
                // It was mapped before, and then was not.
                _ if !self.many[place].members.is_empty() => return marks.push((instance, TaskState::Removed)),
                count if count > MAX_INSTANCES => Refusal::TooMany(count),
                count => {
                    growth.indexed.push(instance);
                    self.begin(instance, place, count as usize, lengths);
                    return self.make_last(place, &mut *growth);
                }
            },
        };
        growth.refused.push((instance, refusal));
        marks.push((instance, TaskState::UpstreamFailed));
    }

    /// The instance becomes the first of `count`.
    fn begin(&mut self, instance: InstanceIx, place: usize, count: usize, lengths: Vec<u64>) {
        let task = self.maps.task(place);
        self.become_first(instance);
        let many = &mut self.many[place];
        many.unexpanded = None;
        many.unindexed = Counts::default();
        many.members = vec![instance];
        many.is_doubtful = false;
        many.lengths = lengths;
        self.extend(place, count);
        self.touch(instance);
        self.touch_neighbours(task);
    }

    /// There are `count` members at least: those that are not there yet are promised.
    pub(super) fn extend(&mut self, place: usize, count: usize) {
        let task = self.maps.task(place);
        let many = &mut self.many[place];
        let before = many.missing;
        if many.members.len() < count {
            many.members.resize(count, ABSENT);
        }
        for member in many.members[..count].iter_mut().filter(|member| **member == NEVER) {
            *member = ABSENT;
        }
        many.missing = many.members.iter().filter(|&&member| member == ABSENT).count();
        many.next_missing = 0;
        let more = many.missing - before;
        if more > 0 {
            self.change_total(task, |total| *total += more as u32);
            self.promise(task, more);
        }
        self.count_blocks(place);
    }

    /// Those in the same mapped group see other instances from now on.
    fn touch_neighbours(&mut self, task: TaskIx) {
        for at in 0..self.graph.downstream(task).len() {
            let down = self.graph.downstream(task)[at];
            if self.are_near(task, down) {
                self.touch_all_of(down);
            }
        }
        for at in 0..self.surroundings.observers(task).len() {
            let observer = self.surroundings.observers(task)[at];
            if self.are_near(task, observer) {
                self.touch_all_of(observer);
            }
        }
    }

    /// The number of instances follows what was pushed since (Airflow: `_revise_map_indexes_if_mapped`). The surplus ones are
    /// returned, and are `removed`. Of what was not pushed again nothing follows: an instance that asks for it fails.
    fn revise(
        &mut self,
        task: TaskIx,
        growth: &mut Growth,
        marks: &mut Vec<(InstanceIx, TaskState)>,
    ) -> Vec<InstanceIx> {
        let Some(place) = self.maps.place(task) else { return Vec::new() };
        self.many[place].is_doubtful = false;
        let Some(lengths) = self.chain(task).filter(|lengths| *lengths != self.many[place].lengths) else {
            return Vec::new();
        };
        if product(&lengths) > MAX_INSTANCES {
            self.refuse(place, Refusal::TooMany(product(&lengths)), growth, marks);
            return Vec::new();
        }
        let count = product(&lengths) as usize;
        self.many[place].lengths = lengths;
        self.withdraw(place, count);
        self.extend(place, count);
        self.make_last(place, growth);
        // With other lengths they see other instances before them, too.
        self.touch_all_of(task);
        self.touch_neighbours(task);
        let mut surplus = Vec::new();
        for at in count..self.many[place].members.len() {
            if let Some(member) = self.many[place].member(at).filter(|&member| self.state(member) != TaskState::Removed)
            {
                self.set_state(member, TaskState::Removed);
                surplus.push(member);
            }
        }
        surplus
    }

    /// None of the task's instances that may run stands for an element any longer. Those that may later are looked at then.
    fn refuse(&mut self, place: usize, why: Refusal, growth: &mut Growth, marks: &mut Vec<(InstanceIx, TaskState)>) {
        self.many[place].is_doubtful = true;
        let task = self.maps.task(place);
        let is_meant = |instance: &&InstanceIx| {
            let slot = &self.slots[instance.index()];
            slot.is_ready && slot.task == task
        };
        let ready: Vec<InstanceIx> = self.listed.iter().filter(is_meant).copied().collect();
        for instance in ready {
            self.touch(instance);
            growth.refused.push((instance, why));
            marks.push((instance, TaskState::UpstreamFailed));
        }
    }

    /// Promises no members any longer from `first` on.
    fn withdraw(&mut self, place: usize, first: usize) {
        let task = self.maps.task(place);
        let many = &mut self.many[place];
        let mut gone = 0;
        for member in many.members.iter_mut().skip(first).filter(|member| **member == ABSENT) {
            *member = NEVER;
            gone += 1;
        }
        if gone == 0 {
            return;
        }
        many.missing -= gone;
        self.unfinished -= gone;
        if self.depends(task) {
            self.past_bound -= gone;
        }
        self.change_total(task, |total| *total -= gone as u32);
    }

    /// How many instances of tasks that depend on the past are still to be made.
    pub(super) fn missing_past_bound(&self) -> usize {
        let bound = self.maps.tasks().zip(&self.many).filter(|&(task, _)| self.depends(task));
        bound.map(|(_, many)| many.missing).sum()
    }

    /// Whatever room there is: a restart sees by it what is promised.
    fn make_last(&mut self, place: usize, growth: &mut Growth) {
        if self.many[place].missing > 0
            && let Some(at) = self.many[place].next_missing().filter(|&at| at + 1 == self.many[place].members.len())
        {
            self.make(place, at, growth);
        }
    }

    fn make(&mut self, place: usize, at: usize, growth: &mut Growth) {
        let task = self.maps.task(place);
        let instance = InstanceIx(self.slots.len() as u32);
        let map_index = i32::try_from(at).expect("a task has at most MAX_INSTANCES instances");
        self.slots.push(Slot::new(task, map_index, TaskState::None));
        self.many[place].members[at] = instance;
        self.many[place].missing -= 1;
        self.touch(instance);
        growth.added.push((instance, task, map_index));
    }

    fn fill(&mut self, task: TaskIx, room: &mut usize, growth: &mut Growth) {
        let Some(place) = self.maps.place(task) else { return };
        while *room > 0 {
            let Some(at) = self.many[place].next_missing() else { break };
            self.make(place, at, growth);
            *room -= 1;
        }
        if self.many[place].missing == 0 {
            self.filling.remove(&task);
            self.many[place].next_missing = 0;
        }
    }
}
