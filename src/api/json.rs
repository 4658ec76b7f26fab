//! The JSON that users and their scripts see (CONTRACTS 9): one struct for each shape, made from the stored records.
//!
//! HTTP and the command line's `-o json` print these alike. Knows no server and no database. Fields may be added, none is
//! renamed. Instants are UTC with six decimals; null where there is none.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

pub use self::explain::{Explanation, Finding, TaskFinding};
use crate::executor::paths::{callback_log, log_path};
use crate::model::deadline::DeadlineRow;
use crate::model::instance::exit_cause;
use crate::model::{self, DagId, DagRun, Hook, PoolName, RunId, RunState, RunType, TaskId, Usage};
use crate::observe::Sample;
use crate::scheduler::change::{DagRecord, ImportError as ImportErrorRecord};
use crate::scheduler::command::RunningTry;
use crate::scheduler::gauge::{Gauges, PoolGauge};
use crate::store::{self, RecentFailure};
use crate::timetable;

mod explain;

/// An instant as every answer shows it: `2026-11-21T00:50:30.123456Z`, always six decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub Timestamp);

impl std::fmt::Display for Instant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
        f.write_str(&PRINTER.timestamp_to_string(&self.0))
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A DAG run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    pub dag_id: DagId,
    pub run_id: RunId,
    pub run_type: RunType,
    pub state: RunState,
    pub run_after: Instant,
    pub logical_date: Option<Instant>,
    pub data_interval_start: Option<Instant>,
    pub data_interval_end: Option<Instant>,
    pub queued_at: Option<Instant>,
    pub start_date: Option<Instant>,
    pub end_date: Option<Instant>,
    pub conf: Map<String, Value>,
    pub reason: Option<String>,
    /// Seconds from run_after to the start of its first task; null until then.
    pub lag: Option<f64>,
}

impl From<&DagRun> for Run {
    fn from(run: &DagRun) -> Self {
        Self {
            dag_id: run.dag_id.clone(),
            run_id: run.run_id.clone(),
            run_type: run.run_type,
            state: run.state,
            run_after: Instant(run.run_after),
            logical_date: run.logical_date.map(Instant),
            data_interval_start: run.data_interval.map(|interval| Instant(interval.start)),
            data_interval_end: run.data_interval.map(|interval| Instant(interval.end)),
            queued_at: run.queued_at.map(Instant),
            start_date: run.start_date.map(Instant),
            end_date: run.end_date.map(Instant),
            conf: run.conf.clone(),
            reason: run.reason.clone(),
            lag: run.lag.map(|lag| lag.as_secs_f64()),
        }
    }
}

/// A task instance; of its tries, the current one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskInstance {
    pub dag_id: DagId,
    pub run_id: RunId,
    pub task_id: TaskId,
    /// -1 unless mapped.
    pub map_index: i32,
    /// What its `map_index_template` gave; null where there is none.
    pub rendered_map_index: Option<Arc<str>>,
    /// Null: created, and waiting for its dependencies.
    pub state: Option<&'static str>,
    pub try_number: u32,
    pub max_tries: u32,
    pub queued_at: Option<Instant>,
    pub start_date: Option<Instant>,
    pub end_date: Option<Instant>,
    /// Seconds from start to end; null until both are known.
    pub duration: Option<f64>,
    pub pool: PoolName,
    pub pool_slots: u32,
    pub priority_weight: i64,
    pub operator: String,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub reason: Option<String>,
    /// What ended its try, in a word: `exit_code`, `signal`, `timeout`, `out_of_memory`, … Null while it has not ended.
    pub exit_cause: Option<&'static str>,
    /// Seconds.
    pub user_cpu: Option<f64>,
    /// Seconds.
    pub system_cpu: Option<f64>,
    /// Bytes.
    pub max_rss: Option<u64>,
    pub read_bytes: Option<u64>,
    pub write_bytes: Option<u64>,
    /// How often it waited for something.
    pub voluntary_switches: Option<u64>,
    /// How often it had to leave a processor to others.
    pub involuntary_switches: Option<u64>,
}

impl TaskInstance {
    pub fn new(dag_id: &DagId, run_id: &RunId, instance: &model::Instance) -> Self {
        let usage = instance.usage.as_ref();
        let span = instance.start_date.zip(instance.end_date);
        Self {
            dag_id: dag_id.clone(),
            run_id: run_id.clone(),
            task_id: instance.task_id.clone(),
            map_index: instance.map_index,
            rendered_map_index: instance.rendered_map_index.clone(),
            state: instance.state.as_nullable(),
            try_number: instance.try_number,
            max_tries: instance.max_tries,
            queued_at: instance.queued_at.map(Instant),
            start_date: instance.start_date.map(Instant),
            end_date: instance.end_date.map(Instant),
            duration: span.map(|(start, end)| end.duration_since(start).as_secs_f64()),
            pool: instance.pool.clone(),
            pool_slots: instance.pool_slots,
            priority_weight: instance.priority_weight,
            operator: instance.operator.to_string(),
            exit_code: instance.exit_code,
            signal: instance.signal,
            reason: instance.reason.clone(),
            exit_cause: instance.exit_cause(),
            user_cpu: usage.map(|usage| usage.user_cpu.as_secs_f64()),
            system_cpu: usage.map(|usage| usage.system_cpu.as_secs_f64()),
            max_rss: usage.map(|usage| usage.max_rss),
            read_bytes: usage.map(|usage| usage.read_bytes),
            write_bytes: usage.map(|usage| usage.write_bytes),
            voluntary_switches: usage.map(|usage| usage.voluntary_switches),
            involuntary_switches: usage.map(|usage| usage.involuntary_switches),
        }
    }
}

/// A DAG.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dag {
    pub dag_id: DagId,
    /// Relative to the dags folder.
    pub file: String,
    pub is_paused: bool,
    /// False when its file is gone.
    pub is_active: bool,
    pub schedule: Option<String>,
    /// The same in words, e.g. `at 06:00 on Monday to Friday`, in the wall time of `timezone`.
    pub schedule_description: Option<String>,
    pub timezone: String,
    pub tags: Vec<String>,
    pub owner: String,
    /// The logical date of the next run.
    pub next_dagrun: Option<Instant>,
    /// When the next run is due.
    pub next_dagrun_create_after: Option<Instant>,
    /// The newest run by `run_after`.
    pub last_run: Option<Run>,
    pub has_import_errors: bool,
    /// Why minflow itself paused it; null if it did not.
    pub pause_reason: Option<String>,
}

impl Dag {
    /// The DAG as it is at `now`. A paused one plans anew when it goes on, so a next run that passed meanwhile is none.
    pub fn new(dag: &DagRecord, last_run: Option<&DagRun>, now: Timestamp) -> Self {
        let next_run = dag.next_run.filter(|next| !dag.is_paused || next.run_after > now);
        Self {
            dag_id: dag.dag_id.clone(),
            file: dag.file.clone(),
            is_paused: dag.is_paused,
            is_active: dag.is_active,
            schedule: dag.schedule.clone(),
            schedule_description: dag.schedule.as_deref().map(timetable::describe),
            timezone: dag.timezone.clone(),
            tags: dag.tags.clone(),
            owner: dag.owner.clone(),
            next_dagrun: next_run.map(|next| Instant(next.logical_date)),
            next_dagrun_create_after: next_run.map(|next| Instant(next.run_after)),
            last_run: last_run.map(Run::from),
            has_import_errors: dag.has_import_errors,
            pause_reason: dag.pause_reason.clone(),
        }
    }
}

/// One fault of one DAG file; `validate -o json` prints these too.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImportError {
    /// Relative to the dags folder.
    pub filename: String,
    /// Counts from 1; 0 when the fault is of the whole file.
    pub line: u32,
    pub column: u32,
    pub code: String,
    pub message: String,
    pub help: String,
    pub timestamp: Instant,
}

impl From<&ImportErrorRecord> for ImportError {
    fn from(error: &ImportErrorRecord) -> Self {
        Self {
            filename: error.filename.clone(),
            line: error.line,
            column: error.column,
            code: error.code.clone(),
            message: error.message.clone(),
            help: error.help.clone(),
            timestamp: Instant(error.timestamp),
        }
    }
}

/// A task instance that failed and will not be tried again by itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    pub dag_id: DagId,
    pub run_id: RunId,
    pub task_id: TaskId,
    pub map_index: i32,
    pub try_number: u32,
    pub end_date: Option<Instant>,
    pub reason: Option<String>,
    /// As that of a task instance.
    pub exit_cause: Option<&'static str>,
    /// The path of the log of that try; relative to home if it lies inside.
    pub log: String,
    /// Seconds.
    pub duration: Option<f64>,
    #[serde(flatten)]
    pub used: Used,
}

/// What a try has used; null where nobody knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Used {
    /// Seconds.
    pub user_cpu: Option<f64>,
    /// Seconds.
    pub system_cpu: Option<f64>,
    /// Bytes.
    pub max_rss: Option<u64>,
    pub read_bytes: Option<u64>,
    pub write_bytes: Option<u64>,
    pub voluntary_switches: Option<u64>,
    pub involuntary_switches: Option<u64>,
}

impl From<Option<&Usage>> for Used {
    fn from(usage: Option<&Usage>) -> Self {
        usage.map_or_else(Self::default, |usage| Self {
            user_cpu: Some(usage.user_cpu.as_secs_f64()),
            system_cpu: Some(usage.system_cpu.as_secs_f64()),
            max_rss: Some(usage.max_rss),
            read_bytes: Some(usage.read_bytes),
            write_bytes: Some(usage.write_bytes),
            voluntary_switches: Some(usage.voluntary_switches),
            involuntary_switches: Some(usage.involuntary_switches),
        })
    }
}

/// A try whose process runs, and what it has used so far.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunningTask {
    pub dag_id: DagId,
    pub run_id: RunId,
    pub task_id: TaskId,
    pub map_index: i32,
    pub try_number: u32,
    pub start_date: Option<Instant>,
    pub is_paused: bool,
    pub pid: i32,
    /// Resident now, of all its processes, in bytes. Null: it has begun or ended since the last look, which is two seconds old at most.
    pub memory: Option<u64>,
    pub processes: Option<u32>,
    #[serde(flatten)]
    pub used: Used,
}

impl RunningTask {
    pub fn new(running: &RunningTry, sample: Option<&Sample>) -> Self {
        Self {
            dag_id: running.dag_id.clone(),
            run_id: running.run_id.clone(),
            task_id: running.task_id.clone(),
            map_index: running.map_index,
            try_number: running.try_number,
            start_date: running.started_at.map(Instant),
            is_paused: running.is_paused,
            pid: running.process.pid,
            memory: sample.map(|sample| sample.memory),
            processes: sample.map(|sample| sample.processes),
            used: sample.map(|sample| &sample.usage).into(),
        }
    }
}

impl Failure {
    /// `logs` is `logging.base_log_folder`.
    pub fn new(failure: &RecentFailure, home: &Path, logs: &Path) -> Self {
        let RecentFailure { dag_id, run_id, task_id, map_index, try_number, .. } = failure;
        let log = log_path(logs, dag_id, run_id, task_id, *map_index, *try_number);
        let span = failure.start_date.zip(failure.end_date);
        Self {
            dag_id: dag_id.clone(),
            run_id: run_id.clone(),
            task_id: task_id.clone(),
            map_index: *map_index,
            try_number: *try_number,
            end_date: failure.end_date.map(Instant),
            reason: failure.reason.clone(),
            exit_cause: exit_cause(failure.reason.as_deref(), failure.exit_code, failure.signal),
            log: log.strip_prefix(home).unwrap_or(&log).display().to_string(),
            duration: span.map(|(start, end)| end.duration_since(start).as_secs_f64()),
            used: failure.usage.as_deref().into(),
        }
    }
}

/// A run that was not over in time, or a day without one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MissedDeadline {
    pub dag_id: DagId,
    /// Null: there was no run.
    pub run_id: Option<RunId>,
    /// `deadline` or `expect_by`.
    pub kind: &'static str,
    pub deadline: Instant,
    /// When it was found to be missed.
    pub missed_at: Option<Instant>,
}

impl From<&DeadlineRow> for MissedDeadline {
    fn from(row: &DeadlineRow) -> Self {
        Self {
            dag_id: row.dag_id.clone(),
            run_id: row.run.as_ref().map(|(_, run_id)| run_id.clone()),
            kind: if row.number == 0 { "expect_by" } else { "deadline" },
            deadline: Instant(row.at),
            missed_at: row.missed_at.map(Instant),
        }
    }
}

/// A callback that has failed for good: nobody was told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailedCallback {
    pub dag_id: DagId,
    pub run_id: Option<RunId>,
    /// Null: it is of the run.
    pub task_id: Option<TaskId>,
    pub hook: Hook,
    /// Its place in the list, from 1.
    pub number: u32,
    pub end_date: Option<Instant>,
    pub reason: Option<String>,
    /// The path of its log, relative to home if it lies inside. Null: there was no run.
    pub log: Option<String>,
}

impl FailedCallback {
    /// `logs` is `logging.base_log_folder`.
    pub fn new(failed: &store::FailedCallback, home: &Path, logs: &Path) -> Self {
        let of_try = failed.task_id.as_deref().zip(failed.map_index).zip(failed.try_number);
        let of_try = of_try.map(|((task_id, map_index), try_number)| (task_id, map_index, try_number));
        let log = failed.run_id.as_deref();
        let log = log.map(|run_id| callback_log(logs, &failed.dag_id, run_id, of_try, failed.hook, failed.number));
        Self {
            dag_id: failed.dag_id.clone(),
            run_id: failed.run_id.clone(),
            task_id: failed.task_id.clone(),
            hook: failed.hook,
            number: failed.number,
            end_date: failed.ended_at.map(Instant),
            reason: failed.reason.clone(),
            log: log.map(|log| log.strip_prefix(home).unwrap_or(&log).display().to_string()),
        }
    }
}

/// `GET /status`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// `healthy`, or what is wrong.
    pub status: String,
    pub version: &'static str,
    pub pid: u32,
    pub uptime_seconds: f64,
    pub home: String,
    pub scheduler: Scheduler,
    pub tasks: Tasks,
    pub pools: Vec<Pool>,
    pub dag_counts: DagCounts,
    pub dags: Vec<Dag>,
    /// There are more DAGs than are listed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dags_truncated: bool,
    pub import_errors: Vec<ImportError>,
    pub recent_failures: Vec<Failure>,
    pub missed_deadlines: Vec<MissedDeadline>,
    pub recent_callback_failures: Vec<FailedCallback>,
    /// Instances that wait for a slot, those first that wait longest; null: the scheduler is busy with a turn.
    pub waiting: Option<Vec<TaskFinding>>,
    /// Tries whose processes run, those first that have run longest; null as `waiting` is.
    pub running: Option<Vec<RunningTask>>,
    pub host: Host,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scheduler {
    pub turns: u64,
    pub last_turn_at: Option<Instant>,
    pub queue_depth: u64,
    pub schedule_lag_ms: Percentiles,
}

impl From<&Gauges> for Scheduler {
    fn from(gauges: &Gauges) -> Self {
        Self {
            turns: gauges.turns,
            last_turn_at: gauges.last_turn_at.map(Instant),
            queue_depth: gauges.queue_depth,
            schedule_lag_ms: Percentiles { p50: gauges.schedule_lag.p50_ms, p99: gauges.schedule_lag.p99_ms },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tasks {
    /// With `core.parallelism = "auto"` that of now.
    pub parallelism: u32,
    /// What of the host keeps anything new from starting; empty while something may.
    pub held_back_by: Vec<String>,
    pub running: u64,
    /// Those of the running ones that stand still.
    pub paused: u64,
    pub queued: u64,
    pub scheduled: u64,
    pub deferred: u64,
    pub up_for_retry: u64,
}

impl From<&Gauges> for Tasks {
    fn from(gauges: &Gauges) -> Self {
        let counts = gauges.tasks;
        Self {
            parallelism: gauges.parallelism,
            held_back_by: gauges.held_back_by.clone(),
            running: counts.running,
            paused: counts.paused,
            queued: counts.queued,
            scheduled: counts.scheduled,
            deferred: counts.deferred,
            up_for_retry: counts.up_for_retry,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    pub name: String,
    /// -1: without limit.
    pub slots: i64,
    pub running: u64,
    pub queued: u64,
    /// Slots that deferred instances would take; they do with `include_deferred`.
    pub deferred: u64,
    pub include_deferred: bool,
    /// -1: without limit.
    pub open: i64,
}

impl From<&PoolGauge> for Pool {
    fn from(pool: &PoolGauge) -> Self {
        Self {
            name: pool.name.clone(),
            slots: pool.slots,
            running: pool.running,
            queued: pool.queued,
            deferred: pool.deferred,
            include_deferred: pool.include_deferred,
            open: pool.open,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DagCounts {
    /// With a file.
    pub total: u64,
    /// With a file, and not paused.
    pub active: u64,
    /// With a file, and paused.
    pub paused: u64,
    /// Files with import errors.
    pub broken: u64,
}

/// What the host had to spare at the moment of asking. Null where it could not be read in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Host {
    /// Of all cores together, since the last asking; null at first.
    pub cpu_percent: Option<f64>,
    pub load1: Option<f64>,
    /// Bytes, like all that follow.
    pub memory_total: Option<u64>,
    pub memory_available: Option<u64>,
    /// Summed over the file systems of home, dags and logs, each counted once.
    pub disk_total: Option<u64>,
    pub disk_free: Option<u64>,
}

/// `GET /health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthAnswer {
    /// `healthy` or `unhealthy`.
    pub status: &'static str,
    pub reasons: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_always_have_six_decimals() {
        let whole: Timestamp = "2026-11-21T00:50:30Z".parse().unwrap();
        assert_eq!(Instant(whole).to_string(), "2026-11-21T00:50:30.000000Z");
        let fraction: Timestamp = "2026-11-21T01:50:30.123456+01:00".parse().unwrap();
        assert_eq!(serde_json::to_string(&Instant(fraction)).unwrap(), "\"2026-11-21T00:50:30.123456Z\"");
    }

    #[test]
    fn a_task_instance_has_exactly_the_promised_fields() {
        let instance = crate::api::testing::failed_instance();
        let shown = serde_json::to_value(TaskInstance::new(&"d".into(), &"r".into(), &instance)).unwrap();
        let fields: Vec<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
        let promised = "dag_id run_id task_id map_index rendered_map_index state try_number max_tries queued_at start_date end_date \
             duration pool pool_slots priority_weight operator exit_code signal reason exit_cause user_cpu system_cpu max_rss \
             read_bytes write_bytes voluntary_switches involuntary_switches";
        assert_eq!(fields, promised.split_whitespace().collect::<Vec<_>>());
        assert_eq!(shown["duration"], 1.5);
        assert_eq!(shown["user_cpu"], 0.25);
    }

    #[test]
    fn a_run_and_a_dag_have_exactly_the_promised_fields() {
        let shown = serde_json::to_value(crate::api::testing::dag("d")).unwrap();
        let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(
            fields(&shown),
            "dag_id file is_paused is_active schedule schedule_description timezone tags owner next_dagrun next_dagrun_create_after \
             last_run has_import_errors pause_reason"
        );
        assert_eq!(
            fields(&shown["last_run"]),
            "dag_id run_id run_type state run_after logical_date data_interval_start data_interval_end queued_at \
             start_date end_date conf reason lag"
        );
    }

    #[test]
    fn a_next_run_that_passed_is_shown_unless_the_dag_is_paused() {
        let mut record = crate::api::testing::dag_record("d");
        let due_at = record.next_run.unwrap().run_after;
        let shown_at = |record: &DagRecord, now| Dag::new(record, None, now).next_dagrun_create_after;
        let before = due_at - jiff::SignedDuration::from_secs(1);
        assert_eq!(shown_at(&record, due_at), Some(Instant(due_at)));
        record.is_paused = true;
        assert_eq!(shown_at(&record, before), Some(Instant(due_at)));
        let late = Dag::new(&record, None, due_at);
        assert_eq!((late.next_dagrun, late.next_dagrun_create_after), (None, None));
    }

    #[test]
    fn a_failure_names_the_log_of_its_try() {
        let failure = crate::api::testing::failure();
        let log = |home: &str, logs: &str| Failure::new(&failure, Path::new(home), Path::new(logs)).log;
        let path = "dag_id=d/run_id=manual__1/task_id=load/attempt=2.log";
        assert_eq!(log("/h", "/h/logs"), format!("logs/{path}"));
        assert_eq!(log("/h", "/var/log/minflow"), format!("/var/log/minflow/{path}"));
    }
}
