//! A task instance as it is stored: its state, and what is known of its current try.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::ids::{InstanceKey, PoolName, RunKey, TaskId, TryKey, VersionKey};
use crate::model::state::TaskState;
use crate::model::wait::Wait;

/// One task of one run. The columns of the current try are replaced when another try starts; the earlier try moves to history.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    pub key: InstanceKey,
    pub run: RunKey,
    pub task_id: TaskId,
    /// -1 unless mapped.
    pub map_index: i32,
    pub state: TaskState,
    /// 0 before the first try is scheduled.
    pub try_number: u32,
    pub max_tries: u32,
    pub scheduled_at: Option<Timestamp>,
    pub queued_at: Option<Timestamp>,
    pub start_date: Option<Timestamp>,
    pub end_date: Option<Timestamp>,
    pub pool: PoolName,
    pub pool_slots: u32,
    /// Effective (SEMANTICS 10).
    pub priority_weight: i64,
    /// The key of the operator, e.g. `bash`.
    pub operator: Arc<str>,
    /// The definition that the current try runs.
    pub version: Option<VersionKey>,
    pub process: Option<ProcessIdentity>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    /// Why it is where it is, if the state alone does not say: `timed_out`, `lost`, `stopped`, a template's error, …
    pub reason: Option<String>,
    pub usage: Option<Usage>,
    /// What its `map_index_template` gave: its name among the instances of its task.
    pub rendered_map_index: Option<Arc<str>>,
    /// While it is up for retry: the delay of the rule that decided so; None is the task's own.
    pub retry_delay_override: Option<Duration>,
    /// What it waits for or has waited for in this try; of one in mode `reschedule` kept for the tries that follow. Shared with who
    /// watches for it.
    pub deferral: Option<Arc<Wait>>,
}

impl Instance {
    /// Not begun, not mapped, with one slot and the weight 1. `operator` is the key of its task's operator.
    pub fn new(
        key: InstanceKey,
        run: RunKey,
        task_id: impl Into<TaskId>,
        pool: impl Into<PoolName>,
        operator: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            key,
            run,
            task_id: task_id.into(),
            map_index: -1,
            state: TaskState::None,
            try_number: 0,
            max_tries: 0,
            scheduled_at: None,
            queued_at: None,
            start_date: None,
            end_date: None,
            pool: pool.into(),
            pool_slots: 1,
            priority_weight: 1,
            operator: operator.into(),
            version: None,
            process: None,
            exit_code: None,
            signal: None,
            reason: None,
            usage: None,
            rendered_map_index: None,
            retry_delay_override: None,
            deferral: None,
        }
    }

    pub fn try_key(&self) -> TryKey {
        TryKey { instance: self.key, try_number: self.try_number }
    }
}

/// Tells a process from every other that ever had its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`, in clock ticks since boot.
    pub start_ticks: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

/// What one try used, as the kernel accounts it to the process and its awaited children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    pub user_cpu: Duration,
    pub system_cpu: Duration,
    /// Peak resident memory of the largest process, in bytes.
    pub max_rss: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
}
