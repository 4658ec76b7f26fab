//! What the world's tables hold: DAGs and their definitions, unfinished runs and their instances, DAG files.
//!
//! Data only; the world and its siblings change it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;

use super::{DagIx, Slot};
use crate::model::SkipDecision;
use crate::model::{Dag, DagId, DagRun, Instance, RunId, RunState, TaskId, TaskIx, TaskState, VersionKey, WeightRule};
use crate::scheduler::change::{DagRecord, ImportError, VersionWrite};
use crate::scheduler::command::Reply;
use crate::scheduler::decide::PIECE_ROWS;
use crate::scheduler::past::{self, PastBlock};
use crate::scheduler::pools::{Claim, Held, RunIx, TaskLimitIx};
use crate::scheduler::port::ReplyTo;
use crate::scheduler::progress::{InstanceIx, Progress};
use crate::scheduler::quotas;
use crate::scheduler::waits::is_waiting;
use crate::scheduler::weight;
use crate::timetable::Timetable;

/// A live definition of a DAG.
#[derive(Debug)]
pub struct Definition {
    pub dag: Arc<Dag>,
    /// Relative to the dags folder.
    pub file: Arc<str>,
    pub version: VersionKey,
    pub timetable: Timetable,
    /// Effective priority by task.
    pub weights: Vec<i64>,
    /// The key of each task's operator, as its rows show it.
    pub(in crate::scheduler) operators: Vec<Arc<str>>,
    pub(in crate::scheduler) has_past: bool,
    /// What some of its tasks need is learned from their tries.
    pub(in crate::scheduler) has_learned_needs: bool,
    /// Some of its tasks are weighed by how long the tasks after them take.
    pub(in crate::scheduler) has_paths: bool,
    /// Kept from the second time on that somebody asks for it: most DAGs wait, and need none for hours, or one for a run.
    blank: OnceLock<Progress>,
    has_made_blank: AtomicBool,
}

impl Definition {
    /// None when the timetable does not hold, which the parser has already refused.
    pub(in crate::scheduler) fn new(dag: Arc<Dag>, file: &str, version: VersionKey) -> Option<Self> {
        let timetable = Timetable::of(&dag).ok()?;
        let weights = weight::effective(&dag.graph);
        let mut names: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut operators = Vec::with_capacity(dag.tasks.len());
        for task in dag.graph.indexes() {
            let name = dag.task(task).operator.name();
            if !names.contains(name) {
                names.insert(name.into());
            }
            operators.extend(names.get(name).cloned());
        }
        let has_past = !past::rules_of(&dag).is_empty();
        let has_learned_needs = dag.tasks.iter().any(quotas::learns);
        let has_paths = dag.graph.indexes().any(|task| dag.graph.node(task).weight_rule == WeightRule::CriticalPath);
        let (blank, has_made_blank) = (OnceLock::new(), AtomicBool::new(false));
        Some(Self {
            dag,
            file: file.into(),
            version,
            timetable,
            weights,
            operators,
            has_past,
            has_learned_needs,
            has_paths,
            blank,
            has_made_blank,
        })
    }

    /// Its tasks by their ids, for who looks up many: a search through the tasks would be quadratic.
    pub(in crate::scheduler) fn places(&self) -> BTreeMap<&str, TaskIx> {
        self.dag.graph.indexes().map(|task| (&*self.dag.task(task).task_id, task)).collect()
    }

    /// The progress of a run that has just been created.
    pub(in crate::scheduler) fn blank(&self) -> Cow<'_, Progress> {
        if let Some(blank) = self.blank.get() {
            return Cow::Borrowed(blank);
        }
        let shape = Progress::mapped(self.dag.graph.clone(), &self.dag.mappings, &[]);
        let shape = shape.with_past(past::rules_of(&self.dag));
        let first = shape.first_instances(PIECE_ROWS, |_| true);
        let first: Vec<_> = first.iter().map(|&(task, map_index)| (task, map_index, TaskState::None)).collect();
        let made = shape.of_run(&first);
        match self.has_made_blank.swap(true, Ordering::Relaxed) {
            true => Cow::Borrowed(self.blank.get_or_init(|| made)),
            false => Cow::Owned(made),
        }
    }
}

/// A DAG, live or not.
#[derive(Debug)]
pub struct DagEntry {
    pub record: DagRecord,
    /// None until its file has been read since the start, and when it never could be.
    pub definition: Option<Arc<Definition>>,
    /// Of the live definition.
    pub(in crate::scheduler) hash: Arc<str>,
    /// Of tasks with `needs.memory = "auto"`: what their tries have taken, in bytes; None: they have had too few.
    pub(in crate::scheduler) usual_memory: BTreeMap<TaskId, Option<u64>>,
    /// Where tasks are weighed by it: how long tries usually take, until a run ends.
    pub(in crate::scheduler) usual_durations: Option<Arc<BTreeMap<TaskId, Duration>>>,
    /// How many definitions it has had.
    pub(in crate::scheduler) version_number: u32,
    /// The stored text, until the first scan has shown whether it is needed.
    pub(in crate::scheduler) stored: Option<VersionWrite>,
    /// Its place in [`World::due`].
    pub(in crate::scheduler) due_at: Option<Timestamp>,
    /// Unfinished runs by run_after, then by age.
    pub runs: BTreeSet<(Timestamp, RunIx)>,
    /// The same by run_id.
    pub(in crate::scheduler) run_ids: BTreeMap<RunId, RunIx>,
    /// By logical date the runs whose rows may differ from those in the database: unfinished, or ended in this turn.
    pub(in crate::scheduler) dates: BTreeMap<Timestamp, RunIx>,
    /// How many of them belong to backfills: they do not count against max_active_runs.
    pub(in crate::scheduler) backfilled: u32,
    /// Of the others, how many run.
    pub running: u32,
    /// Runs, by logical date, in which something waits or has waited for the run before.
    pub(in crate::scheduler) past_waiters: BTreeSet<(Timestamp, RunIx)>,
    /// Of its tasks that have one, the limit in all runs (`max_active_tis_per_dag`).
    pub(in crate::scheduler) task_limits: BTreeMap<TaskId, TaskLimitIx>,
    /// Its next run was due already when it was worked out: a missed one.
    pub(in crate::scheduler) is_planned_late: bool,
    /// When its limit or a pause last kept a run from being created or from starting.
    pub(in crate::scheduler) held_back_at: Option<Timestamp>,
}

impl DagEntry {
    /// Its runs get new task instances: it is not paused and has a file.
    pub fn may_schedule(&self) -> bool {
        self.record.is_active && !self.record.is_paused && self.definition.is_some()
    }
}

/// A run that is not over, or whose last process still lives.
#[derive(Debug)]
pub struct Run {
    pub row: DagRun,
    /// As committed; None: not yet in the database.
    pub(in crate::scheduler) prior: Option<RunState>,
    pub dag: DagIx,
    /// None when the definition is gone and could not be restored.
    pub definition: Option<Arc<Definition>>,
    pub instances: Vec<InstanceEntry>,
    pub progress: Progress,
    /// For each [`InstanceIx`] of `progress` its slot.
    pub(in crate::scheduler) slots: Vec<Slot>,
    /// Tries that the executor holds.
    pub held: u32,
    /// Of its tasks that have one, the limit in this run (`max_active_tis_per_dagrun`).
    pub(in crate::scheduler) task_limits: BTreeMap<TaskIx, TaskLimitIx>,
    /// Its lag is minflow's: catchup, a limit, a pause or a downtime had no part in it.
    pub(in crate::scheduler) is_prompt: bool,
    /// A pass has looked at it.
    pub(in crate::scheduler) is_examined: bool,
    /// Why the instances wait that the past blocked when it was last asked.
    pub(in crate::scheduler) past_blocks: BTreeMap<InstanceIx, PastBlock>,
    /// What branches and short circuits have decided, by their slots.
    pub(in crate::scheduler) decisions: BTreeMap<Slot, SkipDecision>,
    /// How many elements those of its XComs have that tasks are mapped over.
    pub(in crate::scheduler) lengths: BTreeMap<(Slot, Arc<str>), u32>,
    /// How often `lengths` has changed since the run came into memory.
    pub(in crate::scheduler) epoch: u64,
    pub(in crate::scheduler) waiting: Vec<ReplyTo<Reply>>,
    /// How many of its instances are to be written.
    pub(in crate::scheduler) unwritten: u32,
    /// Whether it, or an instance of it, ever had a deadline.
    pub(in crate::scheduler) has_deadlines: bool,
    /// Of its tasks, if some are weighed by `critical_path`; none until it begins.
    pub(in crate::scheduler) weights: Option<Arc<[i64]>>,
    /// The row as workers see it; made anew when the row has changed.
    pub(in crate::scheduler) shared: Option<Arc<DagRun>>,
}

impl Run {
    pub fn slot_of(&self, ix: InstanceIx) -> Slot {
        self.slots[ix.0 as usize]
    }

    pub fn entry(&self, slot: Slot) -> &InstanceEntry {
        &self.instances[slot.0 as usize]
    }

    /// Another number for each state of what was pushed. A run that was over counts its changes from 0 again, but only a clear brings
    /// it back.
    pub(in crate::scheduler) fn push_epoch(&self) -> u64 {
        (u64::from(self.row.clear_number) << 32) | self.epoch
    }

    /// None: the live definition has no such task.
    pub fn task_of(&self, slot: Slot) -> Option<TaskIx> {
        self.entry(slot).task
    }
}

/// A number in the ready queue, kept so that its absence takes no room: thousands of instances wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scheduler) struct Handle(NonZeroU32);

impl Handle {
    pub fn new(number: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(number))
    }

    pub fn number(self) -> u32 {
        self.0.get() - 1
    }
}

/// One task instance of an unfinished run.
#[derive(Debug)]
pub struct InstanceEntry {
    pub row: Instance,
    pub(in crate::scheduler) prior: Option<TaskState>,
    /// Its place in the run's progress; None when the live definition has no such task.
    pub(in crate::scheduler) ix: Option<InstanceIx>,
    pub(in crate::scheduler) task: Option<TaskIx>,
    /// What it holds of the limits, whatever its row says: while the executor has a try of it, and while it is deferred.
    pub(in crate::scheduler) claim: Option<(Claim, Held)>,
    /// Its handle in the ready queue.
    pub(in crate::scheduler) handle: Option<Handle>,
    /// It is to be written at the end of the turn.
    pub(in crate::scheduler) is_dirty: bool,
}

impl InstanceEntry {
    /// An instance that is in the database in state `prior`, or in none yet, and that nobody holds.
    pub(in crate::scheduler) fn new(row: Instance, prior: Option<TaskState>) -> Self {
        let mut entry = Self { row, prior, ix: None, task: None, claim: None, handle: None, is_dirty: false };
        entry.rest();
        entry
    }

    /// The executor has a try of it.
    pub(in crate::scheduler) fn is_held(&self) -> bool {
        matches!(self.claim, Some((_, Held::Queued | Held::Running)))
    }

    /// Its row is written. The reason of one that waits is told by what it waits for, and thousands may wait.
    pub(in crate::scheduler) fn rest(&mut self) {
        if is_waiting(self.row.state) && self.row.deferral.is_some() {
            self.row.reason = None;
        }
    }

    /// Its row is to be changed, and has all its columns again.
    pub(in crate::scheduler) fn rouse(&mut self) {
        if is_waiting(self.row.state)
            && let Some(wait) = &self.row.deferral
        {
            self.row.reason = Some(wait.words());
        }
    }
}

/// A file under the dags folder.
#[derive(Debug, Default)]
pub(in crate::scheduler) struct FileEntry {
    pub modified_at: Option<Timestamp>,
    pub state: FileState,
    pub errors: Vec<ImportError>,
}

#[derive(Debug, Default)]
pub(in crate::scheduler) enum FileState {
    /// Only known from the database.
    #[default]
    Stored,
    /// Its text is to become a definition, or waits because another file has the dag_id.
    Parsed(ParsedFile),
    /// Its text is the live definition of its dag_id.
    Live(DagId),
    Broken,
}

impl FileState {
    /// The dag_id that its text gives.
    pub fn dag_id(&self) -> Option<&DagId> {
        match self {
            Self::Parsed(parsed) => Some(&parsed.dag.dag_id),
            Self::Live(dag_id) => Some(dag_id),
            Self::Stored | Self::Broken => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(in crate::scheduler) struct ParsedFile {
    pub dag: Arc<Dag>,
    pub source: Arc<str>,
    pub hash: Arc<str>,
}
