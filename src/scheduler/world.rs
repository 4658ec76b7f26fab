//! Everything that the scheduler knows: DAGs, their unfinished runs, pools, deadlines.
//!
//! One thread owns it. It is changed by events and by decisions (its sibling modules), and gives up what it changed as [`Changes`]
//! and [`Action`]s at the end of a turn. Knows no clock: every entry is given the instant.

mod entries;
mod gauges;
mod sink;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::BootInstant;
use crate::model::{AdmissionRules, TaskState, TryKey, Wait};
use crate::model::{AssetDefinition, AssetKey};
use crate::model::{CallbackKey, Dag, DagId, DeadlineKey, Pool, PoolName, RunId, RunState};
use crate::params::Override;
use crate::scheduler::act::Acts;
use crate::scheduler::admission::Admission;
use crate::scheduler::assets::Assets;
use crate::scheduler::backfill::Backfills;
use crate::scheduler::callbacks::Callbacks;
use crate::scheduler::change::{AuditEntry, Changes, DagRecord, DeadlineWrite};
use crate::scheduler::change::{Snapshot, VersionWrite, XcomWrite};
use crate::scheduler::command::{Asker, Reply, Stop};
use crate::scheduler::cross_dag::CrossDag;
use crate::scheduler::deadlines::Deadlines;
use crate::scheduler::dense::{Dense, DenseSet};
use crate::scheduler::gauge::{Lag, TaskCounts};
use crate::scheduler::pools::Limits;
pub use crate::scheduler::pools::RunIx;
pub use crate::scheduler::port::History;
use crate::scheduler::port::{Call, FileWish, Kill, Left, ReplyTo, Work};
use crate::scheduler::ready::{Choosing, ReadyQueue};
pub use crate::scheduler::runs::Slated;
use crate::scheduler::timers::{Deadline, Timers};
use crate::scheduler::waits::is_waiting;

pub use self::entries::{DagEntry, Definition, InstanceEntry, Run};
pub(super) use self::entries::{FileEntry, FileState, Handle, ParsedFile};
pub(super) use self::gauges::count;
pub use self::sink::Sink;

/// A DAG's place in [`World::dags`]; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DagIx(pub u32);

/// An instance's place among the instances of its run, in order of their rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// The instant of a turn, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub wall: Timestamp,
    pub boot: BootInstant,
}

impl Now {
    /// When a deadline `delay` after the wall instant `from` falls due; at once if it has passed.
    pub(super) fn boot_after(&self, from: Timestamp, delay: Duration) -> BootInstant {
        let gone = Duration::try_from(self.wall.duration_since(from)).unwrap_or_default();
        self.boot.after(delay.saturating_sub(gone))
    }
}

/// What becomes of what a stop has waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// It runs on, and the next start takes it over.
    Kept,
    /// It is ended, with reason `stopped`.
    Ended,
}

/// What the configuration says to the scheduler.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where `admission` chooses it, that of the beginning.
    pub parallelism: u32,
    pub admission: AdmissionRules,
    pub drain_timeout: Duration,
    /// What becomes of what still runs after that.
    pub drained: Drained,
    pub choosing: Choosing,
    /// Those of airflow.toml, which belong to it.
    pub pools: Vec<Pool>,
    pub overrides: Override,
    /// Those of airflow.toml.
    pub assets: Vec<AssetDefinition>,
}

/// Makes a definition of a stored source text; None when it no longer holds.
pub type Restore = dyn Fn(&DagRecord, &VersionWrite) -> Option<Arc<Dag>> + Send;

/// What a turn does after its changes are committed.
#[derive(Debug)]
pub enum Action {
    Start(Work),
    Kill(TryKey, Kill),
    /// The processes of a try stand still from now on, and its timeout with them.
    Pause(TryKey),
    Resume(TryKey),
    Reclaim(Left),
    Call(Box<Call>),
    Acknowledge(TryKey),
    /// The triggerer is to look for what the instance of this try waits for.
    Watch(TryKey, Arc<Wait>),
    /// A look for what an instance waits for that takes no worker.
    Look(Box<Work>),
    /// The instance waits no longer.
    Forget(TryKey),
    Reply(ReplyTo<Reply>, Reply),
    WatchFiles(AssetKey, FileWish),
    ForgetFiles(AssetKey),
    /// The slots of all pools, now that some have changed.
    PoolsChanged(BTreeMap<PoolName, i64>),
    /// From now on nothing starts, and what runs has so long to end, if it is not ended at once or waited for.
    Stopping(Stop, Asker, Duration),
    /// Runs have been retired: the rest of them is to go.
    Retired,
    /// The host is to be read.
    AskHost,
    /// Why the disk has too little room for anything new to start; null: it has enough again.
    TellReserve(Option<String>),
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerKey {
    /// The DAG's next run is due.
    Due(DagIx),
    /// The run's logical date or run_after lies ahead.
    Wake(RunIx),
    /// The run's dagrun_timeout.
    RunTimeout(RunIx),
    /// The instance's retry delay.
    Retry(RunIx, Slot),
    /// The instance could not be started for want of processes or memory.
    Requeue(RunIx, Slot),
    /// What the instance waits for comes.
    Wait(RunIx, Slot),
    /// The instance has waited for as long as it may.
    WaitLimit(RunIx, Slot),
    /// Instances of the run may come near to the end of what they may wait for.
    FarLimits(RunIx),
    /// What still runs is ended.
    Drain,
    /// The clock was set back before the next run of the DAG's backfill.
    Backfill(DagIx),
    /// A run's deadline has passed.
    Deadline(DeadlineKey),
    /// A run of the DAG is expected to have succeeded.
    Expect(DagIx),
    /// The callback is tried again.
    Callback(CallbackKey),
    /// The host is to be read again, since something waits for it.
    Host,
    /// The database could not be asked.
    Again,
}

const DROPPED_EVERYWHERE: &str = "a RunIx is dropped everywhere when its run leaves memory";

impl Dense for DagIx {
    fn index(self) -> u32 {
        self.0
    }
}

impl Dense for RunIx {
    fn index(self) -> u32 {
        self.0
    }
}

/// See the module's description.
pub struct World {
    pub(super) settings: Settings,
    pub(super) restore: Box<Restore>,
    pub(super) dags: Vec<DagEntry>,
    pub(super) dag_index: BTreeMap<DagId, DagIx>,
    /// By path below the dags folder. Paths are compared as bytes: `Path` takes both apart each time.
    pub(super) files: BTreeMap<OsString, FileEntry>,
    /// The files whose text defines a dag_id.
    pub(super) claims: BTreeMap<DagId, BTreeSet<PathBuf>>,
    /// The active DAG whose definition a file is.
    pub(super) owned: BTreeMap<OsString, DagId>,
    /// All files have been seen once: until then nothing is decided, since a file may have changed or gone.
    pub(super) is_scanned: bool,
    pub(super) runs: Vec<Option<Run>>,
    pub(super) free_runs: Vec<RunIx>,
    /// Tries that the executor holds.
    pub(super) held: BTreeMap<TryKey, (RunIx, Slot)>,
    /// Those of them that stand still.
    pub(super) paused: BTreeSet<TryKey>,
    /// Instances for which the triggerer looks.
    pub(super) watched: BTreeMap<TryKey, (RunIx, Slot)>,
    pub(super) limits: Limits,
    /// Runs with something that waits or runs, of whose needs it is not known what was learned.
    pub(super) unlearned: BTreeSet<RunIx>,
    /// The pools of the database.
    pub(super) stored_pools: BTreeMap<PoolName, Pool>,
    pub(super) admission: Admission,
    pub(super) ready: ReadyQueue,
    /// What each handle of the ready queue stands for.
    pub(super) handles: Vec<(RunIx, Slot)>,
    pub(super) free_handles: Vec<u32>,
    pub(super) timers: Timers<TimerKey>,
    /// DAGs whose next run is due and may be created, and runs whose next pass has something to look at.
    pub(super) due: BTreeSet<(Timestamp, DagIx)>,
    pub(super) promotable: DenseSet<DagIx>,
    pub(super) active: DenseSet<RunIx>,
    pub(super) backfills: Backfills,
    pub(super) acts: Acts,
    pub(super) callbacks: Callbacks,
    pub(super) deadlines: Deadlines,
    pub(super) assets: Assets,
    pub(super) stopping: Option<Stop>,
    /// What still runs is left to the next start, and not waited for.
    pub(super) is_leaving: bool,
    /// The file of the configuration, while it has faults that are told as import errors.
    pub(super) faulty_configuration: Option<String>,
    pub(super) counts: TaskCounts,
    lags: VecDeque<f64>,
    /// The circles of DAGs that were said.
    pub(super) said_circles: BTreeSet<String>,
    /// The names of runs that are gone, of which folders may be left.
    pub(super) retiring: BTreeSet<(DagId, RunId)>,
    /// Who waits for something in another DAG.
    pub(super) cross_dag: CrossDag,
    is_lag_stale: bool,
    lag: Lag,
    /// The last turn stopped at its bound.
    pub(super) is_full: bool,
    /// A pass has stopped at its bound in this turn.
    pub(super) is_cut: bool,
    /// How many logical dates this turn has found to have a run.
    pub(super) dates_gone_over: usize,
    /// Runs that have ended in this turn: neither alive any longer nor in the database as they are.
    pub(super) just_ended: BTreeSet<(DagIx, RunIx)>,
    /// Logical dates that this turn has queued a run of a backfill for, a new or a cleared one: not in memory, and in the database not
    /// as it is.
    pub(super) made_dates: BTreeSet<(DagIx, Timestamp)>,
    /// The newest run_after that this turn has given a run by hand.
    pub(super) given_instants: BTreeMap<DagIx, Timestamp>,
    /// DAGs of which a run has failed, and which may have failed often enough to be paused.
    pub(super) failing: BTreeSet<DagIx>,
    next_run_key: i64,
    next_instance_key: i64,
    next_version_key: i64,
    pub(super) changes: Changes,
    pub(super) actions: Vec<Action>,
    dirty_dags: DenseSet<DagIx>,
    dirty_runs: DenseSet<RunIx>,
    /// Each once; [`InstanceEntry::is_dirty`] says whether it is among them.
    dirty_instances: Vec<(RunIx, Slot)>,
}

impl World {
    /// What the database holds, before the files have been seen. Tries that were under way are reclaimed.
    pub fn new(settings: Settings, snapshot: Snapshot, restore: Box<Restore>, now: Now) -> Self {
        let mut world = Self {
            restore,
            dags: Vec::new(),
            dag_index: BTreeMap::new(),
            files: BTreeMap::new(),
            claims: BTreeMap::new(),
            owned: BTreeMap::new(),
            is_scanned: false,
            runs: Vec::new(),
            free_runs: Vec::new(),
            held: BTreeMap::new(),
            paused: BTreeSet::new(),
            watched: BTreeMap::new(),
            limits: Limits::new(settings.parallelism),
            unlearned: BTreeSet::new(),
            stored_pools: BTreeMap::new(),
            admission: Admission::new(settings.admission.clone()),
            ready: ReadyQueue::new(&settings.choosing),
            handles: Vec::new(),
            free_handles: Vec::new(),
            timers: Timers::default(),
            due: BTreeSet::new(),
            promotable: DenseSet::default(),
            active: DenseSet::default(),
            backfills: Backfills::default(),
            acts: Acts::default(),
            callbacks: Callbacks::default(),
            deadlines: Deadlines::default(),
            assets: Assets::default(),
            stopping: None,
            is_leaving: false,
            faulty_configuration: None,
            counts: TaskCounts::default(),
            lags: VecDeque::new(),
            said_circles: BTreeSet::new(),
            retiring: BTreeSet::new(),
            cross_dag: CrossDag::default(),
            is_lag_stale: false,
            is_full: false,
            is_cut: false,
            dates_gone_over: 0,
            just_ended: BTreeSet::new(),
            made_dates: BTreeSet::new(),
            given_instants: BTreeMap::new(),
            failing: BTreeSet::new(),
            lag: Lag::default(),
            next_run_key: snapshot.next_run_key,
            next_instance_key: snapshot.next_instance_key,
            next_version_key: snapshot.next_version_key,
            changes: Changes::default(),
            actions: Vec::new(),
            dirty_dags: DenseSet::default(),
            dirty_runs: DenseSet::default(),
            dirty_instances: Vec::new(),
            settings,
        };
        let AdmissionRules { memory, millicpus, .. } = world.settings.admission;
        world.limits.set_reserves(memory, millicpus);
        world.limits.count_shares(world.settings.choosing.fair_share, []);
        world.load(snapshot, now);
        world
    }

    /// The database could not be asked: wakes the loop in a while.
    pub(super) fn try_again_later(&mut self, now: Now) {
        self.arm(TimerKey::Again, Deadline::Boot(now.boot.after(Duration::from_secs(1))));
    }

    /// What is held of the limits, and how much of it there is.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn dag(&self, ix: DagIx) -> &DagEntry {
        &self.dags[ix.0 as usize]
    }

    /// The entry, to be changed; it is written at the end of the turn.
    pub(super) fn dag_mut(&mut self, ix: DagIx) -> &mut DagEntry {
        self.dirty_dags.insert(ix);
        &mut self.dags[ix.0 as usize]
    }

    pub fn find_dag(&self, dag_id: &str) -> Option<(DagIx, &DagEntry)> {
        let ix = *self.dag_index.get(dag_id)?;
        Some((ix, self.dag(ix)))
    }

    /// An unfinished run.
    ///
    /// # Panics
    /// It has left memory.
    pub fn run(&self, ix: RunIx) -> &Run {
        self.runs[ix.0 as usize].as_ref().expect(DROPPED_EVERYWHERE)
    }

    /// The entry, for changes that its row does not show.
    pub(super) fn dag_quiet(&mut self, ix: DagIx) -> &mut DagEntry {
        &mut self.dags[ix.0 as usize]
    }

    /// The run, for changes that its row does not show.
    pub(super) fn run_quiet(&mut self, ix: RunIx) -> &mut Run {
        self.runs[ix.0 as usize].as_mut().expect(DROPPED_EVERYWHERE)
    }

    /// The run, to be changed; its row is written at the end of the turn.
    pub(super) fn run_mut(&mut self, ix: RunIx) -> &mut Run {
        self.dirty_runs.insert(ix);
        let run = self.run_quiet(ix);
        run.shared = None;
        run
    }

    /// The instance, to be changed; its row is written at the end of the turn.
    pub(super) fn entry_mut(&mut self, run: RunIx, slot: Slot) -> &mut InstanceEntry {
        let this = self.runs[run.0 as usize].as_mut().expect(DROPPED_EVERYWHERE);
        let entry = &mut this.instances[slot.0 as usize];
        if !std::mem::replace(&mut entry.is_dirty, true) {
            entry.rouse();
            this.unwritten += 1;
            self.dirty_instances.push((run, slot));
        }
        entry
    }

    pub(super) fn find_live_run(&self, dag: DagIx, run_id: &RunId) -> Option<RunIx> {
        self.dag(dag).run_ids.get(run_id).copied()
    }

    pub(super) fn new_run_key(&mut self) -> i64 {
        next(&mut self.next_run_key)
    }

    /// The key that the next new run gets.
    pub(super) fn next_run_key(&self) -> i64 {
        self.next_run_key
    }

    pub(super) fn new_instance_key(&mut self) -> i64 {
        next(&mut self.next_instance_key)
    }

    pub(super) fn new_version_key(&mut self) -> i64 {
        next(&mut self.next_version_key)
    }

    /// Puts a run into memory. One that is over stays there for this turn, unless it is queued again.
    pub(super) fn insert_run(&mut self, run: Run) -> RunIx {
        let (dag, logical_date, is_over) = (run.dag, run.row.logical_date, run.row.state.is_finished());
        let ix = self.free_runs.pop().unwrap_or_else(|| {
            self.runs.push(None);
            RunIx(self.runs.len() as u32 - 1)
        });
        self.runs[ix.0 as usize] = Some(run);
        if is_over {
            self.limits.set_run(ix, dag.0, self.dag(dag).record.max_active_tasks);
            self.just_ended.insert((dag, ix));
            self.dag_quiet(dag).dates.extend(logical_date.map(|date| (date, ix)));
        } else {
            self.enlist(ix);
        }
        ix
    }

    /// The run is one of its DAG's that are not over.
    pub(super) fn enlist(&mut self, ix: RunIx) {
        let run = self.run(ix);
        let (dag, run_after, logical_date) = (run.dag, run.row.run_after, run.row.logical_date);
        let (is_running, place, run_id) =
            (run.row.state == RunState::Running, run.row.counts_with(), run.row.run_id.clone());
        let entry = &mut self.dags[dag.0 as usize];
        self.limits.set_run(ix, dag.0, entry.record.max_active_tasks);
        entry.runs.insert((run_after, ix));
        entry.run_ids.insert(run_id, ix);
        entry.dates.extend(logical_date.map(|date| (date, ix)));
        entry.backfilled += u32::from(place.is_some());
        if let Some(running) = self.running_of(dag, place).filter(|_| is_running) {
            *running += 1;
        }
    }

    /// Writes an instance's state into row, progress and counts. The state is what the state machine gave.
    pub(super) fn set_task_state(&mut self, run: RunIx, slot: Slot, state: TaskState) {
        let entry = self.entry_mut(run, slot);
        let before = std::mem::replace(&mut entry.row.state, state);
        if state.is_finished() || state == TaskState::None {
            entry.row.deferral = None;
        }
        let ix = entry.ix;
        if is_waiting(before) {
            self.end_wait(run, slot);
        }
        if before == TaskState::Deferred {
            self.release_deferred(run, slot);
        }
        if state == TaskState::Deferred {
            self.hold_deferred(run, slot);
        }
        if state.is_finished() && self.cross_dag.is_awaited() {
            let dag_id = self.run(run).row.dag_id.clone();
            self.cross_dag.wake(&dag_id, None);
        }
        if let Some(ix) = ix {
            self.run_quiet(run).progress.set_state(ix, state);
            // What is on its way moves nobody else, and a pass would find nothing new: the next one sees it.
            let is_on_its_way = matches!(state, TaskState::Scheduled | TaskState::Queued | TaskState::Running);
            if !is_on_its_way || before.is_finished() {
                self.active.insert(run);
            }
        }
        let lets_go_on = |state| matches!(state, TaskState::Success | TaskState::Skipped);
        if lets_go_on(before) != lets_go_on(state) {
            self.wake_successors(run, slot);
        }
        count(&mut self.counts, before, |n| *n = n.saturating_sub(1));
        count(&mut self.counts, state, |n| *n += 1);
    }

    /// Notes what a user has asked for; `extra` are its further facts.
    pub(super) fn audit(
        &mut self,
        now: Now,
        event: &'static str,
        dag_id: Option<&DagId>,
        run_id: Option<&RunId>,
        extra: serde_json::Value,
    ) {
        self.audit_as("cli", now, event, (dag_id, run_id), extra);
    }

    /// Notes what `owner` has done, a user or minflow itself.
    pub(super) fn audit_as(
        &mut self,
        owner: &str,
        now: Now,
        event: &'static str,
        (dag_id, run_id): (Option<&DagId>, Option<&RunId>),
        extra: serde_json::Value,
    ) {
        self.changes.audit.push(AuditEntry {
            at: now.wall,
            event,
            dag_id: dag_id.cloned(),
            run_id: run_id.map(|id| id.to_string()),
            task_id: None,
            owner: owner.to_owned(),
            extra,
        });
    }

    pub(super) fn push_xcoms(&mut self, xcoms: impl IntoIterator<Item = XcomWrite>) {
        self.changes.xcoms.extend(xcoms);
    }

    /// How many rows the turn would write so far.
    pub(super) fn pending_rows(&self) -> usize {
        self.changes.rows() + self.dirty_dags.len() + self.dirty_runs.len() + self.dirty_instances.len()
    }

    /// Gives up what the turn has changed, and drops the runs that are over from memory.
    pub fn take_turn(&mut self) -> (Changes, Vec<Action>) {
        let mut changes = std::mem::take(&mut self.changes);
        let actions = self.end_turn(&mut changes);
        (changes, actions)
    }

    /// Shows `sink` each row that the turn has changed, once, and drops the runs that are over from memory. What is in no row of
    /// a DAG, run or instance (earlier tries, XComs, the audit log) is forgotten: who keeps rows calls [`World::take_turn`].
    pub fn end_turn(&mut self, sink: &mut impl Sink) -> Vec<Action> {
        if !self.changes.is_empty() {
            let changes = std::mem::take(&mut self.changes);
            for write in &changes.deadlines {
                if let DeadlineWrite::Put(row) = write
                    && let (Some(_), Some((ix, _))) = (row.missed_at, self.find_dag(&row.dag_id))
                {
                    sink.missed(ix, row);
                }
            }
        }
        for (dag, run) in std::mem::take(&mut self.just_ended) {
            if let Some(date) = self.run(run).row.logical_date {
                self.dag_quiet(dag).dates.remove(&date);
            }
        }
        self.made_dates.clear();
        self.given_instants.clear();
        self.backfills.end_turn();
        self.dates_gone_over = 0;
        let dags = self.dirty_dags.take();
        for &ix in &dags {
            sink.dag(&self.dag(ix).record);
        }
        self.dirty_dags.give_back(dags);
        let mut touched = self.dirty_runs.take();
        for &ix in &touched {
            let run = self.run_quiet(ix);
            let prior = run.prior.replace(run.row.state);
            sink.run(ix, run, prior);
        }
        let mut dirty = std::mem::take(&mut self.dirty_instances);
        dirty.sort_unstable();
        for (ix, slot) in dirty.drain(..) {
            let run = self.run_quiet(ix);
            if std::mem::take(&mut run.unwritten) > 0 {
                touched.push(ix);
            }
            let entry = &mut run.instances[slot.0 as usize];
            entry.is_dirty = false;
            let prior = entry.prior.replace(entry.row.state);
            sink.instance(ix, slot, run, prior);
            run.instances[slot.0 as usize].rest();
        }
        self.dirty_instances = dirty;
        for &ix in &touched {
            self.forget_if_over(ix);
        }
        self.dirty_runs.give_back(touched);
        self.clear_places();
        std::mem::take(&mut self.actions)
    }

    /// Takes the memory of actions that were carried out, to be filled again by the next turn.
    pub fn give_back(&mut self, mut actions: Vec<Action>) {
        actions.clear();
        if self.actions.is_empty() {
            self.actions = actions;
        }
    }

    /// Drops a run that is over, once no process of it is left.
    pub(super) fn forget_if_over(&mut self, ix: RunIx) {
        let Some(run) = self.runs[ix.0 as usize].as_ref() else { return };
        let is_written = run.unwritten == 0 && !self.dirty_runs.contains(ix);
        if !run.row.state.is_finished() || run.held > 0 || !is_written {
            return;
        }
        let Some(run) = self.runs[ix.0 as usize].take() else { return };
        // What a deadlocked run leaves unfinished waits for nothing any longer.
        for entry in &run.instances {
            count(&mut self.counts, entry.row.state, |n| *n = n.saturating_sub(1));
            if let Some((claim, held)) = entry.claim {
                self.limits.release(claim, held);
            }
        }
        for &limit in run.task_limits.values() {
            self.limits.drop_task_limit(limit);
        }
        self.active.remove(ix);
        self.limits.close_run(ix);
        self.free_runs.push(ix);
    }

    /// Something is left to do without waiting for an event: the last turn stopped at its bound.
    pub fn has_more(&self) -> bool {
        self.is_full || self.backfills.has_more() || self.acts.has_more()
    }

    /// When the loop must wake at the latest.
    pub fn next_deadline(&self) -> (Option<Timestamp>, Option<BootInstant>) {
        self.timers.next()
    }

    /// A stop was asked for, and what still runs, if anything, is left to the next start. What is to begin is waited for: nobody would
    /// know whether it has.
    pub fn is_stopped(&self) -> bool {
        let Some(stop) = self.stopping else { return false };
        let keeps = self.settings.drained == Drained::Kept && stop != Stop::Now;
        match self.is_leaving {
            true => self.held.values().all(|&(run, slot)| self.run(run).entry(slot).row.state != TaskState::Queued),
            // What stands still would not end by itself.
            false if keeps => self.held.len() == self.paused.len() && !self.callbacks.has_running(),
            false => self.held.is_empty() && !self.callbacks.has_running(),
        }
    }

    /// Who still runs, for the log of a stop: at most `most` names.
    pub fn held_names(&self, most: usize) -> Vec<String> {
        let name = |&(run, slot): &(RunIx, Slot)| {
            let run = self.run(run);
            format!("{}.{} ({})", run.row.dag_id, run.entry(slot).row.task_id, run.row.run_id)
        };
        self.held.values().take(most).map(name).collect()
    }

    pub(super) fn arm(&mut self, key: TimerKey, deadline: Deadline) {
        if let TimerKey::Wake(run)
        | TimerKey::RunTimeout(run)
        | TimerKey::FarLimits(run)
        | TimerKey::Retry(run, _)
        | TimerKey::Requeue(run, _)
        | TimerKey::Wait(run, _)
        | TimerKey::WaitLimit(run, _) = key
        {
            self.run_quiet(run).has_deadlines = true;
        }
        self.timers.set(key, deadline);
    }
}

fn next(counter: &mut i64) -> i64 {
    let key = *counter;
    *counter += 1;
    key
}
