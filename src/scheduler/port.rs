//! What the loop needs of the outside, as traits: the daemon gives it the real ones, simulations give it fakes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::BootInstant;
use crate::model::{AssetKey, Stamp};
use crate::model::{Backfill, BackfillId, Instance, InstanceKey};
use crate::model::{CallbackRow, SkipDecision, Wait};
use crate::model::{Dag, DagId, DagRun, PoolName, ProcessIdentity, RunKey, TaskId, TaskIx, TaskState, TryKey};
use crate::scheduler::change::{Changes, Earlier, LengthWrite, RunLookup, RunSpan, Snapshot};
use crate::scheduler::command::{Asker, Stop};

/// The database, as the loop sees it.
pub trait Store: History + Send {
    /// # Errors
    /// The database cannot be read or holds what no minflow wrote.
    fn load(&mut self) -> Result<Snapshot, StoreError>;

    /// Commits all of `changes`, or nothing of it.
    ///
    /// # Errors
    /// Nothing was written. The loop keeps the changes and tries again.
    fn commit(&mut self, changes: &Changes) -> Result<(), StoreError>;
}

/// What is asked of the database while deciding: runs that may be over, and so are not in the scheduler's memory.
///
/// Of each question: what needed the answer is put off if the database cannot be read. Unless it is answered otherwise, the answer
/// is that of a database without runs.
pub trait History {
    /// A run that may be finished and so is not in the scheduler's memory.
    ///
    /// # Errors
    /// The database cannot be read.
    fn find_run(&mut self, dag_id: &DagId, lookup: &RunLookup) -> Result<Option<DagRun>, StoreError> {
        let _ = (dag_id, lookup);
        Ok(None)
    }

    /// Whether there is such a run, also one whose row cannot be read.
    ///
    /// # Errors
    /// As [`find_run`](Self::find_run).
    fn has_run(&mut self, dag_id: &DagId, lookup: &RunLookup) -> Result<bool, StoreError> {
        Ok(self.find_run(dag_id, lookup)?.is_some())
    }

    /// The run with the greatest logical date of those that are `earlier`, in any state.
    ///
    /// # Errors
    /// The database cannot be read.
    fn run_before(&mut self, dag_id: &DagId, earlier: Earlier) -> Result<Option<DagRun>, StoreError> {
        let _ = (dag_id, earlier);
        Ok(None)
    }

    /// The states of all instances of a task in a run; empty if it has none.
    ///
    /// # Errors
    /// The database cannot be read.
    fn task_states(&mut self, run: RunKey, task_id: &TaskId) -> Result<Vec<TaskState>, StoreError> {
        let _ = (run, task_id);
        Ok(Vec::new())
    }

    /// Whether a run with a logical date before `than` has an instance of the task.
    ///
    /// # Errors
    /// The database cannot be read.
    fn has_earlier_instance(&mut self, dag_id: &DagId, task_id: &TaskId, than: Timestamp) -> Result<bool, StoreError> {
        let _ = (dag_id, task_id, than);
        Ok(false)
    }

    /// At most `limit` runs in any state, newest first by (run_after, key).
    ///
    /// # Errors
    /// The database cannot be read.
    fn newest_runs(&mut self, dag_id: &DagId, limit: u32) -> Result<Vec<DagRun>, StoreError> {
        let _ = (dag_id, limit);
        Ok(Vec::new())
    }

    /// The keys of the same runs. Of runs that cannot be read they are known as well.
    ///
    /// # Errors
    /// The database cannot be read.
    fn newest_keys(&mut self, dag_id: &DagId, limit: u32) -> Result<Vec<RunKey>, StoreError> {
        Ok(self.newest_runs(dag_id, limit)?.into_iter().map(|run| run.key).collect())
    }

    /// The logical date of what [`run_before`](Self::run_before) finds, also where that cannot be read.
    ///
    /// # Errors
    /// The database cannot be read.
    fn date_before(&mut self, dag_id: &DagId, earlier: Earlier) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.run_before(dag_id, earlier)?.and_then(|run| run.logical_date))
    }

    /// All task instances of a run, by key.
    ///
    /// # Errors
    /// The database cannot be read.
    fn instances(&mut self, run: RunKey) -> Result<Vec<Instance>, StoreError> {
        let _ = run;
        Ok(Vec::new())
    }

    /// At most `limit` task instances of a run behind `after`, by (task_id, map_index).
    ///
    /// # Errors
    /// The database cannot be read.
    fn instances_behind(
        &mut self,
        run: RunKey,
        after: Option<(&TaskId, i32)>,
        limit: usize,
    ) -> Result<Vec<Instance>, StoreError> {
        let _ = (run, after, limit);
        Ok(Vec::new())
    }

    /// The lengths of what was pushed in a run, by instance.
    ///
    /// # Errors
    /// The database cannot be read.
    fn lengths(&mut self, run: RunKey) -> Result<Vec<LengthWrite>, StoreError> {
        let _ = run;
        Ok(Vec::new())
    }

    /// At most `limit` runs of the span, in any state, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    fn runs_in(&mut self, dag_id: &DagId, span: &RunSpan, limit: usize) -> Result<Vec<DagRun>, StoreError> {
        let _ = (dag_id, span, limit);
        Ok(Vec::new())
    }

    /// What the branches and short circuits of a run have decided.
    ///
    /// # Errors
    /// The database cannot be read.
    fn decisions(&mut self, run: RunKey) -> Result<Vec<(InstanceKey, SkipDecision)>, StoreError> {
        let _ = run;
        Ok(Vec::new())
    }

    /// What nineteen of twenty of a task's newest successful tries kept within, in bytes of memory; None: there are fewer than three.
    ///
    /// # Errors
    /// The database cannot be read.
    fn usual_memory(&mut self, dag_id: &DagId, task_id: &TaskId) -> Result<Option<u64>, StoreError> {
        let _ = (dag_id, task_id);
        Ok(None)
    }

    /// The median of what the successful tries took in the newest runs of a DAG, by task.
    ///
    /// # Errors
    /// The database cannot be read.
    fn usual_durations(&mut self, dag_id: &DagId) -> Result<BTreeMap<TaskId, Duration>, StoreError> {
        let _ = dag_id;
        Ok(BTreeMap::new())
    }

    /// # Errors
    /// The database cannot be read.
    fn find_backfill(&mut self, id: BackfillId) -> Result<Option<Backfill>, StoreError> {
        let _ = id;
        Ok(None)
    }

    /// The queued runs of a backfill after the place `after`, in order, at most `limit`.
    ///
    /// # Errors
    /// The database cannot be read.
    fn queued_runs(&mut self, id: BackfillId, after: u32, limit: usize) -> Result<Vec<DagRun>, StoreError> {
        let _ = (id, after, limit);
        Ok(Vec::new())
    }
}

/// A call of the store that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// Lower-case, fits after "failed to", e.g. "commit a turn: database is locked".
    pub message: String,
    /// What the user can do about it.
    pub help: String,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)
    }
}

impl std::error::Error for StoreError {}

/// What runs task instances. It has `core.parallelism` slots; the loop never hands it more. It answers with
/// [`Event::Started`](crate::scheduler::Event::Started) and, exactly once for each try that was prepared and started (one that needs no process may end before),
/// [`Event::Ended`](crate::scheduler::Event::Ended). No call blocks.
pub trait Executor: Send {
    /// Makes a try ready while the turn that starts it is being committed. Nothing of the task runs, nothing that the turn writes
    /// is read, and nothing is done that may not be done again: the turn may never be.
    fn prepare(&mut self, work: Work);

    /// Runs tries that were prepared, and whose intent is committed by now.
    fn start(&mut self, keys: &[TryKey]);

    /// Ends a try: its kill signal, its grace, SIGKILL. `now`: SIGKILL at once. It ends with `Killed { reason }`.
    /// A try that is already over is left alone.
    fn kill(&mut self, key: TryKey, how: Kill);

    /// Stops the processes of a try and the clock of its timeout. It takes no harm from a kill, and one that is over is left alone.
    fn pause(&mut self, key: TryKey);

    /// Has them go on.
    fn resume(&mut self, key: TryKey);

    /// Takes over all that an earlier minflow has left under way, and is called once, with the first turn. What still runs goes on, and
    /// what has ended meanwhile is told of as any end; which of it was found is told by
    /// [`Event::Adopted`](crate::scheduler::Event::Adopted). What still lives of a try that nobody knows is ended and its end awaited; it
    /// ends with `Lost`, and a callback is `CutOff`. A try that nobody can have begun ends with `NeverBegun`. What runs and is not named
    /// here is ended.
    fn reclaim(&mut self, left: Left);

    /// Makes a callback whose row is committed as running; answers [`Event::Called`](crate::scheduler::Event::Called), once.
    fn call(&mut self, call: Box<Call>);

    /// Looks once for what each of these deferred instances waits for, and holds no slot; tells of each by
    /// [`Event::Looked`](crate::scheduler::Event::Looked), once, unless it is to forget it.
    fn look(&mut self, works: Vec<Work>);

    /// A look that nobody waits for any longer, if there is one. What was told before may still arrive.
    fn forget(&mut self, key: TryKey);

    /// The ends of these tries are committed: nobody needs to remember them any longer.
    fn acknowledge(&mut self, keys: &[TryKey]);
}

/// What reads the host for the loop. It answers with [`Event::Host`](crate::scheduler::Event::Host), once for each asking. No call
/// blocks.
pub trait HostWatch: Send {
    fn ask(&mut self);
}

/// What looks for files that have settled. It answers with [`Event::Files`](crate::scheduler::Event::Files). No call blocks.
pub trait FileWatch: Send {
    /// Tells of each file of the asset from now on; replaces what was wished for it before.
    fn watch(&mut self, asset: AssetKey, wish: FileWish);

    fn forget(&mut self, asset: AssetKey);
}

/// Which files to tell of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileWish {
    /// A path or pattern, as the asset's uri has it.
    pub pattern: String,
    pub settle: Duration,
    /// Those that count as told.
    pub known: Vec<(PathBuf, Stamp)>,
}

/// What looks for what deferred instances wait for. It answers with [`Event::Fired`](crate::scheduler::Event::Fired), at most once for
/// each watch. No call blocks.
pub trait Triggerer: Send {
    /// The instance of the try waits, as the database has it.
    fn watch(&mut self, key: TryKey, wait: &Wait);

    /// It waits no longer. What was told before may still arrive.
    fn forget(&mut self, key: TryKey);
}

/// A try to run, with all that its worker needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Work {
    pub key: TryKey,
    pub dag: Arc<Dag>,
    /// The DAG file, relative to the dags folder.
    pub file: Arc<str>,
    pub task: TaskIx,
    pub map_index: i32,
    pub run: Arc<DagRun>,
    pub max_tries: u32,
    /// What it has waited for before: in this try, or in one whose clock it shares.
    pub earlier: Option<Arc<Wait>>,
    /// Another number when something was pushed in its run that tasks are mapped over, or was removed.
    pub epoch: u64,
}

/// A callback to make.
#[derive(Clone, Debug)]
pub struct Call {
    pub row: CallbackRow,
    pub dag: Arc<Dag>,
    /// The DAG file, relative to the dags folder; empty if there is none any longer.
    pub file: Arc<str>,
    /// Made up if there was no run.
    pub run: Arc<DagRun>,
}

/// How to end a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Recorded with the end, e.g. `stopped`, `timed_out`.
    pub reason: String,
    pub force: Force,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// The kill signal, then after the grace SIGKILL.
    Graceful,
    /// SIGKILL.
    Immediate,
}

/// What an earlier minflow has left under way.
#[derive(Clone, Debug, Default)]
pub struct Left {
    pub tries: Vec<Stray>,
    pub calls: Vec<Call>,
}

/// A try that an earlier minflow left behind. Its task, or all of its DAG's definition, may be gone by now.
#[derive(Clone, Debug)]
pub struct Stray {
    pub key: TryKey,
    pub run: Arc<DagRun>,
    pub task_id: TaskId,
    pub map_index: i32,
    /// A signal's number.
    pub kill_signal: i32,
    pub grace: Duration,
    /// Null if its start was never recorded: it may have begun all the same.
    pub process: Option<ProcessIdentity>,
    /// When it was handed over, if its start was never recorded.
    pub handed_at: Option<Timestamp>,
    /// What it needs to be concluded; None: its task is defined no longer.
    pub work: Option<Work>,
    /// It was to stand still.
    pub is_paused: bool,
    /// Why it is to be ended, if it was.
    pub unwanted: Option<String>,
}

/// The parts of the process that follow what the loop has committed, beside those that carry it out.
pub trait Followers: Send {
    /// Pools have come, gone or changed: these are all, with their slots.
    fn pools_changed(&mut self, sizes: BTreeMap<PoolName, i64>);

    /// A stop has been asked for, or a harder one than before; `within` is the drain's timeout.
    fn stopping(&mut self, how: Stop, by: Asker, within: Duration);

    /// Rows of runs have gone: what is left of these runs may go.
    fn retired(&mut self) {}
}

/// Wakes the loop with [`Event::Tick`](crate::scheduler::Event::Tick).
pub trait Timer: Send {
    /// Replaces what was armed before. Past instants fire at once; null arms nothing.
    fn arm(&mut self, wall: Option<Timestamp>, boot: Option<BootInstant>);
}

/// Where a reply goes. Sending never blocks, and a receiver that has gone is no error.
pub struct ReplyTo<T>(Box<dyn FnOnce(T) + Send>);

impl<T> ReplyTo<T> {
    pub fn new(send: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(send))
    }

    pub fn send(self, reply: T) {
        (self.0)(reply);
    }
}

impl<T> fmt::Debug for ReplyTo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyTo")
    }
}
