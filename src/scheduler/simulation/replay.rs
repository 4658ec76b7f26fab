//! What a restart makes of what is written is what lives: at each moment of a story at which nothing is left to decide, another
//! process that begins on a copy of the database decides nothing either, and knows the same.

use std::collections::{BTreeMap, BTreeSet};

use super::Simulation;
use super::story::Story;
use super::ties::number_of_dag;
use crate::clock::Clock;
use crate::model::deadline::DeadlineRow;
use crate::model::{
    AssetEvent, Awaited, Backfill, CallbackRow, DagId, DagRun, Instance, InstanceKey, RunKey, TaskState, TryKey,
};
use crate::scheduler::gauge::TaskCounts;
use crate::scheduler::timers::Deadline;
use crate::scheduler::world::{DagIx, RunIx, Slot, TimerKey, World};
use crate::store::MemoryStore;

/// A deadline, by what the database calls that which it is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Run(&'static str, RunKey),
    Instance(&'static str, InstanceKey),
    Dag(&'static str, DagId),
    Deadline(i64),
    Callback(i64),
}

/// What a scheduler knows of what is not over, by the keys of the database.
#[derive(Debug, PartialEq)]
struct Known {
    runs: Vec<DagRun>,
    instances: Vec<Instance>,
    callbacks: Vec<CallbackRow>,
    backfills: Vec<Backfill>,
    deadlines: Vec<DeadlineRow>,
    events: Vec<AssetEvent>,
    held: BTreeSet<TryKey>,
    paused: BTreeSet<TryKey>,
    ready: BTreeSet<InstanceKey>,
    watched: BTreeSet<TryKey>,
    counts: TaskCounts,
    executing: u64,
    /// Slots of what is queued or runs.
    pools: Vec<u64>,
    reserved: (u64, u64),
    running: BTreeMap<DagId, (u32, bool, bool)>,
    due: BTreeMap<Due, Deadline>,
}

impl Known {
    fn of(world: &World, store: &MemoryStore) -> Self {
        let live = || world.runs.iter().flatten();
        let is_ready = |handle: u32| world.ready.contains(handle);
        let entries = || live().flat_map(|run| &run.instances);
        let ready = entries().filter(|entry| entry.handle.is_some_and(|handle| is_ready(handle.number())));
        let due = world.timers.all().filter_map(|(key, deadline)| Some((name_of(world, key)?, deadline))).collect();
        Self {
            runs: store.runs(),
            instances: store.instances(),
            callbacks: store.callbacks(),
            backfills: store.backfills(),
            deadlines: store.deadlines(),
            events: store.asset_events(),
            held: world.held.keys().copied().collect(),
            paused: world.paused.clone(),
            ready: ready.map(|entry| entry.row.key).collect(),
            watched: world.watched.keys().copied().collect(),
            counts: world.counts,
            executing: world.limits.executing().into(),
            pools: world
                .limits
                .pools
                .iter()
                .map(|pool| world.limits.pools.running(pool) + world.limits.pools.queued(pool))
                .collect(),
            reserved: world.limits.reserves().memory(),
            running: world
                .dags
                .iter()
                .filter(|dag| dag.record.is_active)
                .map(|dag| (dag.record.dag_id.clone(), (dag.running, dag.record.is_paused, dag.definition.is_some())))
                .collect(),
            due,
        }
    }
}

fn asks_service(row: &Instance) -> bool {
    let awaited = row.deferral.as_ref().map(|wait| &wait.awaited);
    row.state == TaskState::UpForReschedule && matches!(awaited, Some(Awaited::Service { .. }))
}

/// None: a process that has just begun has no such deadline, or another.
fn name_of(world: &World, key: &TimerKey) -> Option<Due> {
    let run = |run: RunIx| world.run(run).row.key;
    let instance = |run: RunIx, slot: Slot| world.run(run).entry(slot).row.key;
    let dag = |dag: DagIx| world.dags[dag.0 as usize].record.dag_id.clone();
    Some(match *key {
        TimerKey::Due(ix) => Due::Dag("due", dag(ix)),
        TimerKey::RunTimeout(ix) => Due::Run("timeout", run(ix)),
        TimerKey::Retry(ix, slot) => Due::Instance("retry", instance(ix, slot)),
        // A start puts off a look at a service to the next beat, also one that was due and waited for its dependencies.
        TimerKey::Wait(ix, slot) if asks_service(&world.run(ix).entry(slot).row) => return None,
        TimerKey::Wait(ix, slot) => Due::Instance("wait", instance(ix, slot)),
        TimerKey::WaitLimit(ix, slot) => Due::Instance("limit of a wait", instance(ix, slot)),
        TimerKey::Backfill(ix) => Due::Dag("backfill", dag(ix)),
        TimerKey::Deadline(key) => Due::Deadline(key.0),
        TimerKey::Expect(ix) => Due::Dag("expect", dag(ix)),
        TimerKey::Callback(key) => Due::Callback(key.0),
        // Each start looks at what lies far ahead after an hour of its own, and at a run that waits for its date when there is room for it.
        TimerKey::FarLimits(_) | TimerKey::Wake(_) => return None,
        // Nobody compares while one of these is armed.
        TimerKey::Requeue(..) | TimerKey::Drain | TimerKey::Host | TimerKey::Again => return None,
    })
}

impl Simulation {
    /// Another process on a copy of what is written, once it has decided what there is to decide.
    fn replayed(&self) -> Self {
        let store = self.store.copy();
        let mut other = Self::start(self.clock.clone(), store, self.settings.clone(), self.files.clone());
        other.rescan();
        while other.scheduler.world().has_more() {
            other.scheduler.turn(Vec::new());
        }
        other
    }

    /// Nothing is left to decide, and nothing waits for what a new process does not wait for.
    fn is_at_rest(&self) -> bool {
        let world = self.scheduler.world();
        let is_passing =
            |key: &TimerKey| matches!(key, TimerKey::Requeue(..) | TimerKey::Again | TimerKey::Host | TimerKey::Drain);
        // Its time was over while an act was in the midst of it: it is looked at again in a moment, and by a start at once.
        let is_put_off = |key: &TimerKey| {
            let TimerKey::RunTimeout(run) = *key else { return false };
            let (row, definition) = (&world.run(run).row, world.run(run).definition.as_ref());
            let timeout = definition.and_then(|definition| definition.dag.dagrun_timeout);
            row.start_date.zip(timeout).is_some_and(|(start, timeout)| start + timeout <= self.clock.now())
        };
        self.scheduler.has_written()
            && !self.store.has_ended()
            && self.health.reasons().is_empty()
            && !world.has_more()
            && !world.acts.is_at_work()
            && !world.timers.all().any(|(key, _)| is_passing(key) || is_put_off(key))
            && world.held.values().all(|&(run, slot)| {
                let entry = world.run(run).entry(slot);
                // What was ended by its run or by a user is nobody's any longer after a restart, which ends it as well.
                let is_awaited = entry.row.state.is_executing() || entry.row.state == TaskState::Restarting;
                // What a task needs is told by its file alone: of one that has left it a restart reserves nothing.
                is_awaited && (entry.task.is_some() || entry.claim.is_none_or(|(claim, _)| claim.need.is_none()))
            })
    }
}

impl Story {
    /// At some of the moments, since it takes as long as a start.
    pub fn check_replay(&mut self) {
        if self.is_stepped || !self.replays.one_in(5) || !self.simulation.is_at_rest() {
            return;
        }
        let other = self.simulation.replayed();
        let mut live = Known::of(self.simulation.scheduler.world(), &self.simulation.store);
        let mut replayed = Known::of(other.scheduler.world(), &other.store);
        if self.is_weighed_anew(&live, &replayed) {
            return;
        }
        self.replayed += 1;
        self.forget_path_weights(&mut live);
        self.forget_path_weights(&mut replayed);
        let now = self.simulation.clock.now();
        if let Some(told) = live.difference(&replayed) {
            let (files, asked) = (&self.simulation.files, &other.calls.0.lock().trace);
            let files: String = files.iter().map(|(name, text)| format!("\n{name}:\n{text}")).collect();
            panic!("a restart at {now} makes a difference; it asks for {asked:?}{told}{files}");
        }
    }
}

impl Story {
    /// By other weights somebody else may come first of what waits for a slot, and begin.
    fn is_weighed_anew(&self, live: &Known, replayed: &Known) -> bool {
        let runs = self.weighed_by_path(live);
        let weight = |row: &Instance| (row.key, row.priority_weight);
        let weights: BTreeMap<_, _> = replayed.instances.iter().map(weight).collect();
        let is_waiting = |row: &&Instance| runs.contains(&row.run) && live.ready.contains(&row.key);
        live.instances.iter().filter(is_waiting).map(weight).any(|(key, weight)| weights.get(&key) != Some(&weight))
    }

    /// Each start asks the database anew how long tasks take, by which `critical_path` weighs them.
    fn forget_path_weights(&self, known: &mut Known) {
        let runs = self.weighed_by_path(known);
        known.instances.iter_mut().filter(|row| runs.contains(&row.run)).for_each(|row| row.priority_weight = 0);
    }

    fn weighed_by_path(&self, known: &Known) -> BTreeSet<RunKey> {
        let by_path = |run: &&DagRun| self.dags[number_of_dag(run)].wishes.by_path;
        known.runs.iter().filter(by_path).map(|run| run.key).collect()
    }
}

impl Known {
    /// In which of its parts another one is not the same.
    fn difference(&self, replayed: &Self) -> Option<String> {
        if self == replayed {
            return None;
        }
        let mut told = String::new();
        let mut tell = |what: &str, is_same: bool, live: String, replayed: String| {
            if !is_same {
                told.push_str(&format!("\n{what}: {live}\nreplayed: {replayed}"));
            }
        };
        macro_rules! compare {
            ($($field:ident),*) => {
                $(tell(
                    stringify!($field),
                    self.$field == replayed.$field,
                    format!("{:?}", self.$field),
                    format!("{:?}", replayed.$field),
                );)*
            };
        }
        compare!(
            callbacks, backfills, deadlines, events, held, paused, ready, watched, counts, executing, pools, reserved,
            running, due
        );
        for (live, replayed) in self.runs.iter().zip(&replayed.runs) {
            tell("run", live == replayed, format!("{live:?}"), format!("{replayed:?}"));
        }
        for (live, replayed) in self.instances.iter().zip(&replayed.instances) {
            tell("instance", live == replayed, format!("{live:?}"), format!("{replayed:?}"));
        }
        let pairs = self.instances.iter().zip(&replayed.instances);
        let runs: BTreeSet<RunKey> =
            pairs.filter(|(live, replayed)| live != replayed).map(|(live, _)| live.run).collect();
        tell("all rows of these runs", runs.is_empty(), self.rows_of(&runs), replayed.rows_of(&runs));
        let counts = |known: &Self| format!("{} runs, {} instances", known.runs.len(), known.instances.len());
        tell("in all", counts(self) == counts(replayed), counts(self), counts(replayed));
        Some(told)
    }

    fn rows_of(&self, runs: &BTreeSet<RunKey>) -> String {
        let rows = self.instances.iter().filter(|row| runs.contains(&row.run));
        let words = rows.map(|row| format!("{} {}[{}] {}", row.run, row.task_id, row.map_index, row.state));
        words.collect::<Vec<_>>().join(", ")
    }
}
