//! One live run: the states of its instances, and the pass that decides what becomes of them (SEMANTICS 2, 3, 5).
//!
//! A pass is exactly one of Airflow's: it looks at the upstream states as they stood at its start, so that a mark cascades one
//! level a pass. But it evaluates only instances whose inputs have changed since they were last evaluated, against counters that
//! are kept, so that a finished task costs its out-degree. Knows no clock, no slots and no rows; the world applies what it says.

mod past;
mod skips;

use std::collections::BTreeSet;
use std::sync::Arc;

use self::past::Past;
pub use self::past::PastRule;
use self::skips::Bars;
pub use self::skips::Choice;

use super::machine::{TaskEvent, next_task};
use super::surroundings::Surroundings;
use super::trigger_rule::{Counts, Decision, Inputs, Unmet, evaluate};
use crate::model::{Graph, Role, TaskIx, TaskState, TriggerRule};

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
    /// Null when the definition no longer has its task.
    task: Option<TaskIx>,
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
    /// Of its direct upstream tasks together, and of the setups among them.
    upstream: Counts,
    upstream_setups: Counts,
    /// Where its instances begin in [`Progress::instances`]; they end where those of the next task begin.
    first: u32,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Progress {
    graph: Arc<Graph>,
    surroundings: Arc<Surroundings>,
    /// By task; empty if none depends on the past.
    past: Arc<[PastRule]>,
    bars: Bars,
    slots: Vec<Slot>,
    /// Task by task, those of one task in order.
    instances: Vec<InstanceIx>,
    /// By task, and one more at the end.
    tallies: Vec<Tally>,
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
        let surroundings = Arc::new(Surroundings::of(&graph));
        Self::within(graph, surroundings, instances)
    }

    /// Another run of the same graph, as [`Progress::new`] would make it.
    pub fn of_run(&self, instances: &[(TaskIx, i32, TaskState)]) -> Self {
        Self::within(Arc::clone(&self.graph), Arc::clone(&self.surroundings), instances).with_past(self.past.clone())
    }

    fn within(graph: Arc<Graph>, surroundings: Arc<Surroundings>, instances: &[(TaskIx, i32, TaskState)]) -> Self {
        let slots = instances.iter().map(|&(task, map_index, state)| Slot::new(Some(task), map_index, state)).collect();
        let mut progress = Self {
            surroundings,
            past: Arc::default(),
            bars: Bars::new(),
            graph,
            slots,
            instances: Vec::new(),
            tallies: Vec::new(),
            changed: Vec::new(),
            listed: Vec::new(),
            asking: BTreeSet::new(),
            unfinished: 0,
            executing: 0,
            waiting_outside: 0,
            past_bound: 0,
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

    /// Null when the definition no longer has its task.
    pub fn task(&self, instance: InstanceIx) -> Option<TaskIx> {
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
        let task = slot.task;
        self.tally(instance, old, |count| *count -= 1);
        self.tally(instance, state, |count| *count += 1);
        self.touch(instance);
        if let Some(task) = task.filter(|_| old.is_finished() || state.is_finished()) {
            self.recount(task, old, state);
        }
    }

    /// The delay of an instance in `up_for_retry` is over.
    pub fn retry_is_over(&mut self, instance: InstanceIx) {
        self.slots[instance.index()].is_retry_over = true;
        self.touch(instance);
    }

    /// The definition has changed: `moved` gives for each old task its new place, null when it has vanished. What is unstarted
    /// of a vanished task is marked `removed` by the next pass, what executes goes on to its end; neither is upstream of anything
    /// any longer. `added` are instances of new tasks, null state, in order of their rows; their places are returned.
    pub fn replace_graph(
        &mut self,
        graph: Arc<Graph>,
        moved: &[Option<TaskIx>],
        added: &[(TaskIx, i32)],
    ) -> Vec<InstanceIx> {
        for slot in &mut self.slots {
            slot.task = slot.task.and_then(|task| moved.get(task.index()).copied().flatten());
        }
        let first = self.slots.len() as u32;
        self.slots.extend(added.iter().map(|&(task, map_index)| Slot::new(Some(task), map_index, TaskState::None)));
        self.surroundings = Arc::new(Surroundings::of(&graph));
        self.graph = graph;
        self.rebuild();
        (first..self.slots.len() as u32).map(InstanceIx).collect()
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
        let mut unfinished = self.unfinished;
        let may_deadlock = unfinished > 0 && self.waiting_outside == 0 && self.past_bound == 0;
        let mut marks = self.decide();
        let schedulable = self.schedulable();
        let asks: Vec<InstanceIx> = self.asking.iter().copied().collect();
        let mut is_runnable = !marks.is_empty() || !schedulable.is_empty();
        if may_deadlock && !is_runnable {
            (marks, is_runnable) = self.scan();
            self.apply(&marks);
            // What this scan marks counts at once; what is marked above, in the next pass.
            unfinished = self.unfinished;
        } else {
            self.apply(&marks);
        }
        let verdict = if unfinished == 0 && self.failed_leaves > 0 {
            Verdict::Failed(RunFailure::TaskFailure)
        } else if unfinished == 0 {
            Verdict::Success
        } else if may_deadlock && !is_runnable {
            Verdict::Failed(RunFailure::AllTasksDeadlocked)
        } else {
            Verdict::Running
        };
        Pass { marks, schedulable, asks, verdict }
    }

    /// Why an instance is not schedulable; null if it is.
    pub fn why_waiting(&self, instance: InstanceIx) -> Option<NotReady> {
        let slot = &self.slots[instance.index()];
        if !slot.state.is_schedulable() {
            return Some(NotReady::State(slot.state));
        }
        let Some(task) = slot.task else {
            return Some(NotReady::Marked(TaskState::Removed));
        };
        let inputs = self.inputs(task, slot.map_index);
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
            Decision::Wait(Unmet::Setups) => {
                Some(NotReady::SetupsPending { pending: inputs.indirect_setups.total - inputs.indirect_setups.success })
            }
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

    /// Evaluates what has changed. The marks are not applied yet.
    fn decide(&mut self) -> Vec<(InstanceIx, TaskState)> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        let mut marks = Vec::new();
        for &instance in &changed {
            self.slots[instance.index()].is_changed = false;
            let slot = &self.slots[instance.index()];
            if slot.state.is_finished() {
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
                // A waiting instance whose task has vanished is marked wherever it waits.
                Decision::Mark(state) if is_schedulable || slot.task.is_none() => marks.push((instance, state)),
                Decision::Mark(_) => self.learn(instance, Known::Marked),
                Decision::Run => self.learn(instance, Known::Met),
                Decision::Wait(_) => self.learn(instance, Known::Waits),
            }
            if is_ready {
                let slot = &mut self.slots[instance.index()];
                slot.is_ready = true;
                if !std::mem::replace(&mut slot.is_listed, true) {
                    self.listed.push(instance);
                }
            }
        }
        changed.clear();
        self.changed = changed;
        marks
    }

    /// Airflow's search for an unfinished instance that could still run, in order of the rows and in any state: it marks what it
    /// visits, and stops at the first one whose dependencies are met. Walks only if it would mark something.
    fn scan(&self) -> (Vec<(InstanceIx, TaskState)>, bool) {
        let mut marks = Vec::new();
        if self.marked > 0 {
            for (at, slot) in self.slots.iter().enumerate() {
                match slot.known {
                    Known::Met => break,
                    Known::Marked => {
                        let instance = InstanceIx(at as u32);
                        let Decision::Mark(state) = self.evaluate(instance) else {
                            unreachable!("what is known of an instance holds until its inputs change");
                        };
                        marks.push((instance, state));
                    }
                    Known::Nothing | Known::Waits => {}
                }
            }
        }
        (marks, self.met > 0)
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
        match slot.task {
            Some(task) if self.is_barred(task, slot.map_index) => Decision::Mark(TaskState::Skipped),
            Some(task) => evaluate(&self.inputs(task, slot.map_index)),
            // It has started and goes on: as long as it does, the run is not stuck.
            None if slot.has_started() => Decision::Run,
            None => Decision::Mark(TaskState::Removed),
        }
    }

    fn inputs(&self, task: TaskIx, map_index: i32) -> Inputs {
        let sum = |tasks: &[TaskIx]| {
            tasks.iter().fold(Counts::default(), |sum, task| sum.plus(&self.tallies[task.index()].own))
        };
        let tally = &self.tallies[task.index()];
        Inputs {
            rule: self.graph.node(task).trigger_rule,
            map_index,
            upstream: tally.upstream,
            upstream_setups: tally.upstream_setups,
            indirect_setups: sum(self.surroundings.indirect_setups(task)),
            unfinished_in_scope: sum(self.surroundings.scope(task)).pending(),
        }
    }

    /// Notes that the inputs of an instance, or itself, have changed: what was known of it no longer holds.
    fn touch(&mut self, instance: InstanceIx) {
        self.learn(instance, Known::Nothing);
        self.asking.remove(&instance);
        let slot = &mut self.slots[instance.index()];
        slot.is_ready = false;
        if !std::mem::replace(&mut slot.is_changed, true) {
            self.changed.push(instance);
        }
    }

    fn touch_all_of(&mut self, task: TaskIx) {
        let (first, end) = (self.tallies[task.index()].first, self.tallies[task.index() + 1].first);
        for at in first..end {
            self.touch(self.instances[at as usize]);
        }
    }

    /// The instances of a task, in order.
    pub fn instances_of(&self, task: TaskIx) -> impl Iterator<Item = InstanceIx> + '_ {
        let (first, end) = (self.tallies[task.index()].first, self.tallies[task.index() + 1].first);
        self.instances[first as usize..end as usize].iter().copied()
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

    /// Counts an instance in or out under a state.
    fn tally(&mut self, instance: InstanceIx, state: TaskState, count: fn(&mut usize)) {
        if state.is_finished() {
            let task = self.slots[instance.index()].task;
            if state.is_failed_like() && task.is_some_and(|task| self.surroundings.is_leaf[task.index()]) {
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
    fn recount(&mut self, task: TaskIx, old: TaskState, new: TaskState) {
        let is_setup = self.graph.node(task).role == Role::Setup;
        self.tallies[task.index()].own.shift(old, new);
        for at in 0..self.graph.downstream(task).len() {
            let down = self.graph.downstream(task)[at];
            let tally = &mut self.tallies[down.index()];
            tally.upstream.shift(old, new);
            if is_setup {
                tally.upstream_setups.shift(old, new);
            }
            self.touch_all_of(down);
        }
        for at in 0..self.surroundings.observers(task).len() {
            self.touch_all_of(self.surroundings.observers(task)[at]);
        }
    }

    /// Works everything out anew from the graph and the slots.
    fn rebuild(&mut self) {
        let tasks = self.graph.len();
        self.tallies = vec![Tally::default(); tasks + 1];
        (self.unfinished, self.executing, self.failed_leaves) = (0, 0, 0);
        (self.waiting_outside, self.past_bound) = (0, 0);
        let mut is_mapped = vec![false; tasks];
        for at in 0..self.slots.len() {
            let Slot { task, map_index, state, .. } = self.slots[at];
            self.tally(InstanceIx(at as u32), state, |count| *count += 1);
            if let Some(task) = task {
                is_mapped[task.index()] |= map_index >= 0;
                let counts = &mut self.tallies[task.index()].own;
                counts.total += 1;
                if let Some(count) = counts.of(state) {
                    *count += 1;
                }
            }
        }
        self.list_instances();
        for task in self.graph.indexes() {
            let is_setup = |up: TaskIx| self.graph.node(up).role == Role::Setup;
            let upstream = self.sum_of_upstream(task, &is_mapped, |_| true);
            let upstream_setups = self.sum_of_upstream(task, &is_mapped, is_setup);
            let tally = &mut self.tallies[task.index()];
            (tally.upstream, tally.upstream_setups) = (upstream, upstream_setups);
        }
        self.mark_all_changed();
    }

    /// Sorts the instances by their tasks.
    fn list_instances(&mut self) {
        self.instances = (0..self.slots.len() as u32).map(InstanceIx).collect();
        self.instances.retain(|instance| self.slots[instance.index()].task.is_some());
        self.instances.sort_by_key(|instance| self.slots[instance.index()].task);
        let mut first = 0;
        for tally in &mut self.tallies {
            tally.first = first;
            first += tally.own.total;
        }
    }

    /// Airflow counts upstream tasks, or if one of them is mapped, their instances. So a task without an instance is waited for.
    fn sum_of_upstream(&self, task: TaskIx, is_mapped: &[bool], is_counted: impl Fn(TaskIx) -> bool) -> Counts {
        let counted = || self.graph.upstream(task).iter().copied().filter(|&up| is_counted(up));
        let mut sum = counted().fold(Counts::default(), |sum, up| sum.plus(&self.tallies[up.index()].own));
        if !counted().any(|up| is_mapped[up.index()]) {
            sum.total = counted().count() as u32;
        }
        sum
    }
}

impl Slot {
    fn new(task: Option<TaskIx>, map_index: i32, state: TaskState) -> Self {
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
        self.state == TaskState::UpForRetry && !self.is_retry_over
    }

    fn has_started(&self) -> bool {
        !self.state.is_schedulable() && self.state != TaskState::Scheduled
    }
}

#[cfg(test)]
mod tests;
