//! Why does it not run? One typed answer for every instance of an unfinished run, taken from the state that decides.
//!
//! Reads the world and changes nothing. Who shows the answer makes words of it.

use jiff::Timestamp;

use crate::model::{DagId, RunId, RunState, TaskState};
use crate::scheduler::past::PastBlock;
use crate::scheduler::progress::NotReady;
use crate::scheduler::ready::NotStarted;
use crate::scheduler::world::{Handle, RunIx, Slot, TimerKey, World};

/// What keeps a whole run from going on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunReason {
    /// The first look at the DAG files is not over.
    FilesNotScanned,
    /// minflow has been told to stop.
    Stopping,
    DagPaused,
    /// minflow has paused its DAG: so many of its newest runs failed, as `max_consecutive_failed_dag_runs` says.
    DagPausedByFailures {
        failed_runs: u32,
    },
    /// No file defines the DAG any longer.
    DagGone,
    /// Its run is queued: so many runs of the DAG are running, and no more may.
    RunQueued {
        running: u32,
        max_active_runs: u32,
    },
    /// Its run is not due, or its logical date lies ahead.
    RunAhead {
        until: Timestamp,
    },
}

/// The first thing that keeps an instance from starting, from the outside in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// What keeps its run keeps it.
    Run(RunReason),
    /// The live definition has no such task.
    TaskGone,
    /// The run before does not let it go on (`depends_on_past`, `wait_for_downstream`).
    Past(PastBlock),
    /// Its dependencies are not met, or its retry delay is not over.
    NotReady(NotReady),
    /// It waits for a slot.
    NotStarted(NotStarted),
    /// The host is beyond a threshold of `[admission]`, as these words say.
    NotAdmitted(Vec<String>),
    /// The host had no processes, memory or descriptors for it; it is tried again within a second.
    HostExhausted,
    /// The next turn starts it.
    NextTurn,
}

impl World {
    /// Why `task_id` of a run does not run; none if it does, has, or if nobody knows of it.
    pub fn why_not_running(&self, dag_id: &DagId, run_id: &RunId, task_id: &str) -> Option<Reason> {
        let (dag, _) = self.find_dag(dag_id)?;
        let run = self.find_live_run(dag, run_id)?;
        let slot = self.run(run).slots_in_order().find(|&slot| &*self.run(run).entry(slot).row.task_id == task_id)?;
        self.obstacle_of(run, slot)
    }

    /// Why the instance at `slot` does not run; None if it does or has, or waits for the world outside.
    pub(super) fn obstacle_of(&self, run: RunIx, slot: Slot) -> Option<Reason> {
        let state = self.run(run).entry(slot).row.state;
        let is_waiting = state.is_schedulable() || state == TaskState::Scheduled;
        is_waiting.then(|| self.obstacle(run, slot))
    }

    /// Which limit keeps the instance at `slot` from starting; None: it does not wait for one, or is no longer there.
    pub fn why_not_started(&self, run: RunIx, slot: Slot) -> Option<NotStarted> {
        let run = self.runs.get(run.index())?.as_ref()?;
        let handle = run.instances.get(slot.0 as usize)?.handle?.number();
        self.ready.why_not(handle, &self.limits)
    }

    /// What keeps the whole run from going on; None: nothing does.
    pub(super) fn run_obstacle(&self, run: RunIx) -> Option<RunReason> {
        let this = self.run(run);
        let dag = self.dag(this.dag);
        if !self.is_scanned {
            return Some(RunReason::FilesNotScanned);
        }
        if self.stopping.is_some() {
            return Some(RunReason::Stopping);
        }
        if !dag.record.is_active {
            return Some(RunReason::DagGone);
        }
        if dag.record.is_paused {
            let limit = dag.definition.as_ref().map_or(0, |definition| definition.dag.max_consecutive_failed_dag_runs);
            let by_failures = dag.record.pause_reason.is_some();
            let reason =
                if by_failures { RunReason::DagPausedByFailures { failed_runs: limit } } else { RunReason::DagPaused };
            return Some(reason);
        }
        if let Some(until) = self.ahead(run) {
            return Some(RunReason::RunAhead { until });
        }
        let (running, max_active_runs) = (dag.running, dag.record.max_active_runs);
        (this.row.state == RunState::Queued).then_some(RunReason::RunQueued { running, max_active_runs })
    }

    fn obstacle(&self, run: RunIx, slot: Slot) -> Reason {
        if let Some(of_run) = self.run_obstacle(run) {
            return Reason::Run(of_run);
        }
        let this = self.run(run);
        let entry = this.entry(slot);
        if entry.row.state == TaskState::Scheduled {
            return self.why_no_slot(run, slot);
        }
        match entry.ix {
            Some(ix) => match (this.progress.why_waiting(ix), this.past_blocks.get(&ix)) {
                (Some(NotReady::PastPending), Some(block)) => Reason::Past(block.clone()),
                (Some(unmet), _) => Reason::NotReady(unmet),
                (None, _) => Reason::NextTurn,
            },
            None => Reason::TaskGone,
        }
    }

    /// What the run waits for, if the timer that wakes it is armed.
    fn ahead(&self, run: RunIx) -> Option<Timestamp> {
        self.timers.get(&TimerKey::Wake(run))?;
        let row = &self.run(run).row;
        Some(row.logical_date.map_or(row.run_after, |date| date.max(row.run_after)))
    }

    fn why_no_slot(&self, run: RunIx, slot: Slot) -> Reason {
        if self.timers.get(&TimerKey::Requeue(run, slot)).is_some() {
            return Reason::HostExhausted;
        }
        let handle = self.run(run).entry(slot).handle.map(Handle::number);
        let limit = handle.and_then(|handle| self.ready.why_not(handle, &self.limits));
        match limit {
            // What a limit keeps would wait on an idle host as well.
            None | Some(NotStarted::NotItsTurn | NotStarted::ParallelismFull { .. })
                if !self.admission.shut().is_empty() =>
            {
                Reason::NotAdmitted(self.admission.shut().to_vec())
            }
            limit => limit.map_or(Reason::NextTurn, Reason::NotStarted),
        }
    }
}
