//! One live run: the states of its instances, and the pass that decides what becomes of them (SEMANTICS 2, 3, 5).
//!
//! A pass is exactly one of Airflow's: it looks at the upstream states as they stood at its start, so that a mark cascades one
//! level a pass. But it evaluates only instances whose inputs have changed since they were last evaluated, against counters that
//! are kept, so that a finished task costs its out-degree. Knows no clock, no slots and no rows; the world applies what it says.

mod counting;
mod many;
mod maps;
mod past;
mod skips;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::many::Many;
pub use self::many::{Growth, Refusal};
use self::maps::Maps;
use self::past::Past;
pub use self::past::PastRule;
use self::skips::Bars;
pub use self::skips::Choice;

use super::machine::{TaskEvent, next_task};
use super::surroundings::Surroundings;
use super::trigger_rule::{Counts, Decision, Unmet, evaluate};
use crate::model::mapping::MAX_INSTANCES;
use crate::model::{Graph, Mapping, TaskIx, TaskState, TriggerRule};

/// An instance's place in its run: dense, in the order of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceIx(pub u32);

impl InstanceIx {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What one pass says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Instances that the pass has moved, in order, with their states now. Running ones may be among them: they are killed, and
    /// keep the mark.
    pub marks: Vec<(InstanceIx, TaskState)>,
    /// Instances that may run, in order. They are left as they are: the caller sets them `scheduled`, or for `empty` `success`.
    /// Until it does, each pass names them again.
    pub schedulable: Vec<InstanceIx>,
    /// Instances that wait for nothing but the run before this one, in order. Each pass names them until
    /// [`Progress::answer_past`] has been told of them.
    pub asks: Vec<InstanceIx>,
    /// What has become of mapped tasks; what is new may be in the other lists too.
    pub growth: Growth,
    /// It was bounded, and stopped at its bound: the next one goes on.
    pub is_cut: bool,
    pub verdict: Verdict,
}

/// The state of the run after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Running,
    Success,
    Failed(RunFailure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunFailure {
    /// Everything is finished, and a leaf failed.
    TaskFailure,
    /// Something is unfinished, and nothing of it can ever run.
    AllTasksDeadlocked,
}

impl RunFailure {
    /// The run's `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TaskFailure => "task_failure",
            Self::AllTasksDeadlocked => "all_tasks_deadlocked",
        }
    }
}

/// Why an instance may not run yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// Its state is not one from which instances are scheduled.
    State(TaskState),
    /// Its trigger rule is not met: so many of its upstream instances are not finished.
    UpstreamPending { rule: TriggerRule, pending: u32, total: u32 },
    /// Setups further up have not succeeded yet.
    SetupsPending { pending: u32 },
    /// A teardown: so many instances between its setups and itself are not finished.
    ScopePending { pending: u32 },
    /// The delay before its next try is not over.
    RetryNotOver,
    /// Its own instance in the run before does not let it go on, or that has not been looked at yet.
    PastPending,
    /// The next pass gives it this state.
    Marked(TaskState),
}

/// What the last evaluation of an unfinished instance said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Nothing,
    Waits,
    Met,
    Marked,
}

#[derive(Clone, Debug)]
struct Slot {
    task: TaskIx,
    map_index: i32,
    state: TaskState,
    is_retry_over: bool,
    known: Known,
    past: Past,
    is_changed: bool,
    /// It may run.
    is_ready: bool,
    /// It is in [`Progress::listed`].
    is_listed: bool,
}

/// What is counted of a task.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// The states of its instances.
    own: Counts,
    /// Of its direct upstream tasks together.
    upstream: Counts,
    /// Where its instances begin in [`Progress::instances`]; they end where those of the next task begin.
    first: u32,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Progress {
    graph: Arc<Graph>,
    surroundings: Arc<Surroundings>,
    maps: Arc<Maps>,
    /// The instances of mapped tasks, in the order of these.
    many: Vec<Many>,
    /// By the place of the XCom in `maps`: how many elements it has, by the instance that pushed it.
    lengths: Vec<BTreeMap<InstanceIx, u32>>,
    /// Mapped tasks that have instances to be made.
    filling: BTreeSet<TaskIx>,
    /// Instances that are to become many.
    expandable: BTreeSet<InstanceIx>,
    /// Mapped tasks whose number of instances is to be looked at in this pass.
    doubted: BTreeSet<TaskIx>,
    /// Lengths are still to be told since the last rebuild.
    is_unsettled: bool,
    /// By task; empty if none depends on the past.
    past: Arc<[PastRule]>,
    bars: Bars,
    slots: Vec<Slot>,
    /// Those of tasks that are not mapped: task by task, those of one task in order.
    instances: Vec<InstanceIx>,
    /// By task, and one more at the end.
    tallies: Vec<Tally>,
    /// By task what is counted of the setups among its direct upstream tasks; empty if no task is a setup.
    setups: Vec<Counts>,
    changed: Vec<InstanceIx>,
    /// All that may run, and some that no longer may; in no order.
    listed: Vec<InstanceIx>,
    /// What waits for nothing but an answer about the past.
    asking: BTreeSet<InstanceIx>,
    unfinished: usize,
    executing: usize,
    /// In `deferred` or `awaiting_input`: somebody else moves them on, so that the run cannot deadlock.
    waiting_outside: usize,
    /// Unfinished ones whose tasks depend on the past: another run may move them on, so that this one cannot deadlock.
    past_bound: usize,
    /// In `removed`: without any, nothing is surplus.
    removed: usize,
    failed_leaves: usize,
    /// Unfinished instances whose dependencies are met, retry waits left aside.
    met: usize,
    /// Unfinished instances that a deadlock's scan would mark.
    marked: usize,
}

impl Progress {
    /// A run of instances in the order of their rows. All are marked as changed; none in `up_for_retry` may start before
    /// [`Progress::retry_is_over`].
    pub fn new(graph: Arc<Graph>, instances: &[(TaskIx, i32, TaskState)]) -> Self {
        Self::mapped(graph, &[], instances)
    }

    /// As [`Progress::new`]; `mappings` are those that the graph's nodes name.
    pub fn mapped(graph: Arc<Graph>, mappings: &[Mapping], instances: &[(TaskIx, i32, TaskState)]) -> Self {
        let surroundings = Arc::new(Surroundings::of(&graph));
        let maps = Arc::new(Maps::of(&graph, mappings, |task| surroundings.observers(task)));
        Self::within(graph, surroundings, maps, instances)
    }

    /// The tasks and map indexes of its instances, in order.
    pub fn places(&self) -> Vec<(TaskIx, i32)> {
        self.slots.iter().map(|slot| (slot.task, slot.map_index)).collect()
    }

    /// The instances with which a run begins, of the tasks that `is_wanted` names: of a task whose mappings all stand in the file
    /// one for each index, of any other one. Of what is more than `most` in all only the last is named: passes make the rest.
    pub fn first_instances(&self, most: usize, is_wanted: impl Fn(TaskIx) -> bool) -> Vec<(TaskIx, i32)> {
        let mut first = Vec::with_capacity(self.graph.len());
        for task in self.graph.indexes().filter(|&task| is_wanted(task)) {
            match self.maps.literal(task).filter(|&count| count > 0 && count <= MAX_INSTANCES) {
                None => first.push((task, -1)),
                Some(count) if first.len() + count as usize <= most => {
                    first.extend((0..count as i32).map(|at| (task, at)))
                }
                Some(count) => first.push((task, count as i32 - 1)),
            }
        }
        first
    }

    /// Another run of the same graph, as [`Progress::new`] would make it.
    pub fn of_run(&self, instances: &[(TaskIx, i32, TaskState)]) -> Self {
        let (graph, surroundings) = (Arc::clone(&self.graph), Arc::clone(&self.surroundings));
        Self::within(graph, surroundings, Arc::clone(&self.maps), instances).with_past(self.past.clone())
    }

    fn within(
        graph: Arc<Graph>,
        surroundings: Arc<Surroundings>,
        maps: Arc<Maps>,
        instances: &[(TaskIx, i32, TaskState)],
    ) -> Self {
        let slots = instances.iter().map(|&(task, map_index, state)| Slot::new(task, map_index, state)).collect();
        let mut progress = Self {
            surroundings,
            maps,
            many: Vec::new(),
            lengths: Vec::new(),
            filling: BTreeSet::new(),
            expandable: BTreeSet::new(),
            doubted: BTreeSet::new(),
            is_unsettled: false,
            past: Arc::default(),
            bars: Bars::new(),
            graph,
            slots,
            instances: Vec::new(),
            tallies: Vec::new(),
            setups: Vec::new(),
            changed: Vec::new(),
            listed: Vec::new(),
            asking: BTreeSet::new(),
            unfinished: 0,
            executing: 0,
            waiting_outside: 0,
            past_bound: 0,
            removed: 0,
            failed_leaves: 0,
            met: 0,
            marked: 0,
        };
        progress.rebuild();
        progress
    }

    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn state(&self, instance: InstanceIx) -> TaskState {
        self.slots[instance.index()].state
    }

    /// -1 for the instance of a task that is not mapped, or not yet.
    pub fn map_index(&self, instance: InstanceIx) -> i32 {
        self.slots[instance.index()].map_index
    }

    pub fn task(&self, instance: InstanceIx) -> TaskIx {
        self.slots[instance.index()].task
    }

    /// Instances that are not finished.
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Instances that are queued or running.
    pub fn executing(&self) -> usize {
        self.executing
    }

    /// Tells that an instance has moved. Costs the number of its direct downstream instances if it finished or came back, else
    /// nothing.
    pub fn set_state(&mut self, instance: InstanceIx, state: TaskState) {
        let slot = &mut self.slots[instance.index()];
        let old = std::mem::replace(&mut slot.state, state);
        if old == state {
            return;
        }
        slot.is_retry_over = false;
        let (task, map_index) = (slot.task, slot.map_index);
        self.tally(instance, old, |count| *count -= 1);
        self.tally(instance, state, |count| *count += 1);
        self.touch(instance);
        if old.is_finished() || state.is_finished() {
            self.recount(task, map_index, old, state);
        }
    }

    /// The delay of an instance in `up_for_retry` is over.
    pub fn retry_is_over(&mut self, instance: InstanceIx) {
        self.slots[instance.index()].is_retry_over = true;
        self.touch(instance);
    }

    /// The next pass evaluates every instance.
    pub fn mark_all_changed(&mut self) {
        for at in 0..self.slots.len() as u32 {
            self.touch(InstanceIx(at));
        }
    }

    /// Whether the next pass would evaluate anything at all.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// One pass.
    pub fn pass(&mut self) -> Pass {
        self.pass_at_most(usize::MAX)
    }

    /// One pass that marks, readies and makes about `limit` instances at most.
    pub fn pass_at_most(&mut self, limit: usize) -> Pass {
        self.settle();
        let mut unfinished = self.unfinished;
        let may_deadlock = unfinished > 0 && self.waiting_outside == 0 && self.past_bound == 0;
        let mut marks = Vec::new();
        let mut is_cut = self.decide(limit, &mut marks);
        let is_growing = !self.expandable.is_empty() || !self.doubted.is_empty() || !self.filling.is_empty();
        let (mut growth, mut surplus) = (Growth::default(), Vec::new());
        if is_growing {
            (growth, surplus) = self.grow(limit, &mut marks);
            // What is not to be any longer needs no other mark.
            marks.retain(|&(instance, _)| !self.state(instance).is_finished());
            is_cut |= self.decide(limit, &mut marks) || !self.filling.is_empty();
        }
        let schedulable = self.schedulable();
        let asks: Vec<InstanceIx> = self.asking.iter().copied().collect();
        let mut is_runnable = !marks.is_empty() || !schedulable.is_empty() || is_growing || is_cut;
        if may_deadlock && !is_runnable {
            (marks, is_runnable) = self.scan();
            is_cut = self.has_changed();
            self.apply(&marks);
            // What this scan marks counts at once; what is marked above, in the next pass.
            unfinished = self.unfinished;
        } else {
            self.apply(&marks);
            if is_growing {
                // Airflow: after an expansion it counts once more.
                unfinished = self.unfinished;
            }
        }
        marks.extend(surplus.into_iter().map(|instance| (instance, TaskState::Removed)));
        let verdict = if is_cut {
            Verdict::Running
        } else if unfinished == 0 && self.failed_leaves > 0 {
            Verdict::Failed(RunFailure::TaskFailure)
        } else if unfinished == 0 {
            Verdict::Success
        } else if may_deadlock && !is_runnable {
            Verdict::Failed(RunFailure::AllTasksDeadlocked)
        } else {
            Verdict::Running
        };
        Pass { marks, schedulable, asks, growth, is_cut, verdict }
    }

    /// Why an instance is not schedulable; null if it is.
    pub fn why_waiting(&self, instance: InstanceIx) -> Option<NotReady> {
        let slot = &self.slots[instance.index()];
        if !slot.state.is_schedulable() {
            return Some(NotReady::State(slot.state));
        }
        let inputs = self.inputs(slot.task, slot.map_index);
        match self.evaluate(instance) {
            Decision::Run if slot.waits_for_retry() => Some(NotReady::RetryNotOver),
            decision if self.waits_for_past(instance, decision) => Some(NotReady::PastPending),
            Decision::Run => None,
            Decision::Mark(state) => Some(NotReady::Marked(state)),
            Decision::Wait(Unmet::Upstream) => Some(NotReady::UpstreamPending {
                rule: inputs.rule,
                pending: inputs.upstream.pending(),
                total: inputs.upstream.total,
            }),
            Decision::Wait(Unmet::Setups) => Some(NotReady::SetupsPending { pending: inputs.setups_pending() }),
            Decision::Wait(Unmet::Scope) => Some(NotReady::ScopePending { pending: inputs.unfinished_in_scope }),
        }
    }

    /// What may run, in order.
    fn schedulable(&mut self) -> Vec<InstanceIx> {
        let Self { slots, listed, .. } = self;
        listed.retain(|instance| {
            let slot = &mut slots[instance.index()];
            slot.is_listed = slot.is_ready;
            slot.is_ready
        });
        listed.sort_unstable();
        listed.clone()
    }

    /// Evaluates what has changed. The marks are not applied yet; what has one already gets no other. True: it has stopped at the
    /// limit.
    fn decide(&mut self, limit: usize, marks: &mut Vec<(InstanceIx, TaskState)>) -> bool {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        let mut marked: Vec<InstanceIx> = marks.iter().map(|&(instance, _)| instance).collect();
        marked.sort_unstable();
        let (mut done, mut room) = (0, limit);
        while let Some(&instance) = changed.get(done).filter(|_| room > 0) {
            done += 1;
            self.slots[instance.index()].is_changed = false;
            let slot = &self.slots[instance.index()];
            if slot.state.is_finished() || marked.binary_search(&instance).is_ok() {
                continue;
            }
            let decision = self.evaluate(instance);
            let is_schedulable = slot.state.is_schedulable();
            let is_its_turn = is_schedulable && !slot.waits_for_retry();
            if is_its_turn && self.waits_for_past(instance, decision) {
                if slot.past == Past::Unasked {
                    self.asking.insert(instance);
                }
                self.learn(instance, Known::Waits);
                continue;
            }
            let is_ready = decision == Decision::Run && is_its_turn;
            match decision {
                Decision::Mark(state) if is_schedulable => {
                    room -= 1;
                    marks.push((instance, state));
                }
                Decision::Mark(_) => self.learn(instance, Known::Marked),
                Decision::Run => self.learn(instance, Known::Met),
                Decision::Wait(_) => self.learn(instance, Known::Waits),
            }
            if is_ready && !self.must_expand(instance) {
                room -= 1;
                let slot = &mut self.slots[instance.index()];
                slot.is_ready = true;
                if !std::mem::replace(&mut slot.is_listed, true) {
                    self.listed.push(instance);
                }
            }
        }
        changed.drain(..done);
        self.changed = changed;
        !self.changed.is_empty()
    }

    /// Airflow's search for an unfinished instance that could still run, in order of the rows and in any state: it marks what it
    /// visits, and stops at the first one whose dependencies are met. Walks only if it would mark something. What was known of an
    /// instance wrongly ends no run: the next pass looks at it anew.
    fn scan(&mut self) -> (Vec<(InstanceIx, TaskState)>, bool) {
        let (mut marks, mut wrong) = (Vec::new(), Vec::new());
        if self.marked > 0 {
            for (at, slot) in self.slots.iter().enumerate() {
                match slot.known {
                    Known::Met => break,
                    Known::Marked => {
                        let instance = InstanceIx(at as u32);
                        match self.evaluate(instance) {
                            Decision::Mark(state) => marks.push((instance, state)),
                            Decision::Run | Decision::Wait(_) => wrong.push(instance),
                        }
                    }
                    Known::Nothing | Known::Waits => {}
                }
            }
        }
        let is_runnable = self.met > 0 || !wrong.is_empty();
        wrong.into_iter().for_each(|instance| self.touch(instance));
        (marks, is_runnable)
    }

    fn apply(&mut self, marks: &[(InstanceIx, TaskState)]) {
        for &(instance, state) in marks {
            let next = next_task(self.state(instance), TaskEvent::Mark(state))
                .expect("only unfinished instances are marked, with states that are marks");
            self.set_state(instance, next);
        }
    }

    fn evaluate(&self, instance: InstanceIx) -> Decision {
        let slot = &self.slots[instance.index()];
        if self.is_barred(slot.task, slot.map_index) {
            return Decision::Mark(TaskState::Skipped);
        }
        self.heed_inputs(slot.task, evaluate(&self.inputs(slot.task, slot.map_index)))
    }

    /// Notes that the inputs of an instance, or itself, have changed: what was known of it no longer holds.
    fn touch(&mut self, instance: InstanceIx) {
        self.learn(instance, Known::Nothing);
        self.asking.remove(&instance);
        self.expandable.remove(&instance);
        let slot = &mut self.slots[instance.index()];
        slot.is_ready = false;
        if !std::mem::replace(&mut slot.is_changed, true) {
            self.changed.push(instance);
        }
    }

    fn learn(&mut self, instance: InstanceIx, known: Known) {
        match std::mem::replace(&mut self.slots[instance.index()].known, known) {
            Known::Met => self.met -= 1,
            Known::Marked => self.marked -= 1,
            Known::Nothing | Known::Waits => {}
        }
        match known {
            Known::Met => self.met += 1,
            Known::Marked => self.marked += 1,
            Known::Nothing | Known::Waits => {}
        }
    }
}

impl Slot {
    fn new(task: TaskIx, map_index: i32, state: TaskState) -> Self {
        Self {
            task,
            map_index,
            state,
            is_retry_over: false,
            known: Known::Nothing,
            past: Past::Unasked,
            is_changed: false,
            is_ready: false,
            is_listed: false,
        }
    }

    fn waits_for_retry(&self) -> bool {
        matches!(self.state, TaskState::UpForRetry | TaskState::UpForReschedule) && !self.is_retry_over
    }
}

#[cfg(test)]
mod many_tests;
#[cfg(test)]
mod tests;
