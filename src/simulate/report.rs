//! What a simulation has found, in plain numbers; durations are of virtual time.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};

use crate::model::{DagId, PoolName, TaskId};

/// All that was found between `from` and `until`.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub from: Timestamp,
    /// Earlier than what was asked for if the simulation was interrupted.
    pub until: Timestamp,
    pub seed: u64,
    pub parallelism: u32,
    pub totals: Totals,
    /// In order of their dag_ids.
    pub dags: Vec<DagReport>,
    /// Parallelism, the pools by name, then the limits of DAGs.
    pub limits: Vec<LimitReport>,
    /// By instant, then by DAG.
    pub transitions: Vec<Transition>,
    /// By DAG and task.
    pub deadlines: Vec<Deadline>,
    pub picture: super::picture::Picture,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub runs: u64,
    pub succeeded_runs: u64,
    pub failed_runs: u64,
    /// Not over at the end.
    pub unfinished_runs: u64,
    pub instances: u64,
    pub succeeded_instances: u64,
    pub failed_instances: u64,
    /// Skipped, `upstream_failed` or removed.
    pub unrun_instances: u64,
    /// Tries after the first.
    pub retries: u64,
    /// Runs that began while an earlier run of their DAG was running.
    pub overlaps: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DagReport {
    pub dag_id: DagId,
    pub totals: Totals,
    /// The run_after of the first and of the last run.
    pub first_run: Option<Timestamp>,
    pub last_run: Option<Timestamp>,
    /// Of the runs that are over: from their start to their end.
    pub mean: Option<Duration>,
    pub longest: Option<Duration>,
    /// The run_after of the longest run.
    pub longest_run: Option<Timestamp>,
    /// How many of its runs were running at once, at most.
    pub peak_running: u32,
    /// Runs that are due before the end and were never created: as many as may be active were.
    pub behind: Option<Behind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The run_after of the first run that is missing.
    pub since: Timestamp,
}

/// A limit, what was held of it, and who waited for it.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitReport {
    pub kind: LimitKind,
    /// None: without limit, or another one for each DAG.
    pub size: Option<u64>,
    /// Slots held at once, at most; of limits that all DAGs share.
    pub peak: Option<u64>,
    /// How long no slot was free.
    pub full_for: Option<Duration>,
    /// The share of slots that were held, over the whole time.
    pub utilisation: Option<f64>,
    /// All waits for it, and those of each DAG, by dag_id.
    pub waits: WaitReport,
    pub by_dag: Vec<(DagId, WaitReport)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitKind {
    Parallelism,
    Pool(PoolName),
    MaxActiveTasks,
    MaxActiveTisPerDag,
    MaxActiveTisPerDagrun,
    MaxActiveRuns,
    DependsOnPast,
}

impl LimitKind {
    /// As users know it: `parallelism`, `pool db`, `max_active_runs`, …
    pub fn label(&self) -> String {
        match self {
            Self::Parallelism => "parallelism".to_owned(),
            Self::Pool(name) => format!("pool {name}"),
            Self::MaxActiveTasks => "max_active_tasks".to_owned(),
            Self::MaxActiveTisPerDag => "max_active_tis_per_dag".to_owned(),
            Self::MaxActiveTisPerDagrun => "max_active_tis_per_dagrun".to_owned(),
            Self::MaxActiveRuns => "max_active_runs".to_owned(),
            Self::DependsOnPast => "depends_on_past".to_owned(),
        }
    }
}

/// Waits for a limit: of task instances, or for `max_active_runs` of runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WaitReport {
    pub count: u64,
    pub total: Duration,
    pub longest: Duration,
    /// Who waited longest: the DAG, the task unless a run waited, and the run's run_after.
    pub longest_of: Option<(DagId, Option<TaskId>, Timestamp)>,
    /// Of `count`, how many still waited at the end.
    pub open: u64,
}

/// What a change of the clocks does to a DAG's schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    pub dag_id: DagId,
    /// When the clocks change.
    pub at: Timestamp,
    /// The zone of the schedule, and the expression.
    pub zone: String,
    pub expression: String,
    /// By how much the clocks are put forward or, negative, back.
    pub shift: SignedDuration,
    /// Times of the schedule that do not exist and do not run.
    pub skipped: Odd,
    /// Times of the schedule that exist twice and run twice.
    pub doubled: Odd,
    /// Times of the schedule that run at another wall time.
    pub moved: Odd,
}

/// Some odd times of a schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Odd {
    pub count: u64,
    /// The first of them, as the schedule names it, and when it runs; of a doubled time its second run.
    pub first: Option<(DateTime, Option<Timestamp>)>,
}

/// A limit of time that was passed.
#[derive(Clone, Debug, PartialEq)]
pub struct Deadline {
    pub kind: DeadlineKind,
    pub dag_id: DagId,
    /// None: the whole run.
    pub task_id: Option<TaskId>,
    pub limit: Duration,
    /// Tries or runs that passed it.
    pub count: u64,
    /// The run_after of the first run concerned; of `deadlines` and `expect_by` the first instant that was missed.
    pub first: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeadlineKind {
    DagrunTimeout,
    ExecutionTimeout,
    /// An entry of `deadlines`.
    Deadline,
    /// The time of day, as the time since midnight.
    ExpectBy,
}

impl DeadlineKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DagrunTimeout => "dagrun_timeout",
            Self::ExecutionTimeout => "execution_timeout",
            Self::Deadline => "deadline",
            Self::ExpectBy => "expect_by",
        }
    }
}
