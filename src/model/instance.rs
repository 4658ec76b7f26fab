//! A task instance as it is stored: its state, and what is known of its current try.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::ids::{InstanceKey, PoolName, RunKey, TaskId, TryKey, VersionKey};
use crate::model::limits::Exceeded;
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
    /// Boxed as `usage` is: most instances that are in memory wait, and have neither.
    pub process: Option<Box<ProcessIdentity>>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    /// Why it is where it is, if the state alone does not say: `timed_out`, `lost`, `stopped`, a template's error, …
    pub reason: Option<String>,
    pub usage: Option<Box<Usage>>,
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

    /// What ended its try, in a word; None while it has not ended.
    pub fn exit_cause(&self) -> Option<&'static str> {
        let cause = self.end_date.and_then(|_| exit_cause(self.reason.as_deref(), self.exit_code, self.signal));
        // Others have reasons, too, such as why they were skipped.
        let has_failed = matches!(self.state, TaskState::Failed | TaskState::UpForRetry);
        cause.filter(|cause| has_failed || *cause != "fault")
    }

    pub fn try_key(&self) -> TryKey {
        TryKey { instance: self.key, try_number: self.try_number }
    }
}

/// What ended a try, in a word, by what is stored of its end. `fault`: it failed outside its process, or was not started. None: it needed no
/// process and nothing was wrong.
pub fn exit_cause(reason: Option<&str>, exit_code: Option<i32>, signal: Option<i32>) -> Option<&'static str> {
    let named = match reason {
        Some("timed_out") => Some("timeout"),
        Some("lost") => Some("lost"),
        Some("stopped") => Some("stopped"),
        Some(reason) => Exceeded::ALL.into_iter().map(Exceeded::reason).find(|known| *known == reason),
        None => None,
    };
    named.or(exit_code.map(|_| "exit_code")).or(signal.map(|_| "signal")).or(reason.map(|_| "fault"))
}

/// A reason that is one word, for people, to stand behind "try 1 of 2"; None: it says itself what has failed.
pub fn reason_in_words(reason: &str) -> Option<String> {
    let told = match reason {
        "timed_out" => "took longer than its execution_timeout, and was ended",
        "lost" => "was lost: its supervisor was killed or the host went down, and what still ran of it was ended",
        "stopped" => "was ended as minflow stopped",
        _ => {
            let limit = Exceeded::ALL.into_iter().find(|limit| limit.reason() == reason)?;
            return Some(format!("was ended {limit}"));
        }
    };
    Some(told.to_owned())
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
    /// How often it waited for something.
    pub voluntary_switches: u64,
    /// How often it had to leave a processor to others.
    pub involuntary_switches: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_an_end_is_the_most_telling_of_what_is_known() {
        let cases = [
            (None, Some(0), None, Some("exit_code")),
            (Some("rule 1 of retry_on"), Some(7), None, Some("exit_code")),
            (None, None, Some(9), Some("signal")),
            (Some("out_of_memory"), None, Some(9), Some("out_of_memory")),
            (Some("cpu_time"), Some(152), None, Some("cpu_time")),
            (Some("file_size"), None, Some(25), Some("file_size")),
            (Some("processes"), None, Some(9), Some("processes")),
            (Some("timed_out"), None, None, Some("timeout")),
            (Some("lost"), None, None, Some("lost")),
            (Some("stopped"), None, None, Some("stopped")),
            (Some("`gone.sh` does not exist"), None, None, Some("fault")),
            (None, None, None, None),
        ];
        for (reason, exit_code, signal, expected) in cases {
            assert_eq!(exit_cause(reason, exit_code, signal), expected, "{reason:?} {exit_code:?} {signal:?}");
        }
    }
}
