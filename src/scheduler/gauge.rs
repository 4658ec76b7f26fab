//! What the loop publishes of itself after each turn, for `/status`: a copy, so that readers never wait for the loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::RwLock;

use crate::clock::BootInstant;

/// Numbers as of the end of the last turn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gauges {
    pub turns: u64,
    pub last_turn_at: Option<Timestamp>,
    /// Instances that are scheduled and wait for a slot.
    pub queue_depth: u64,
    pub schedule_lag: Lag,
    pub parallelism: u32,
    /// What of the host keeps anything new from starting, in words; empty while something may.
    pub held_back_by: Vec<String>,
    pub tasks: TaskCounts,
    pub pools: Vec<PoolGauge>,
    pub is_stopping: bool,
}

/// From a run's due instant to the start of its first task, over the last 1,000 runs that nothing but minflow made late, in
/// milliseconds: without those that catchup makes up for, and those that a downtime, a pause or `max_active_runs` held back.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lag {
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// Those that are paused among them.
    pub running: u64,
    pub paused: u64,
    pub queued: u64,
    pub scheduled: u64,
    pub deferred: u64,
    pub up_for_retry: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolGauge {
    pub name: String,
    /// -1: without limit.
    pub slots: i64,
    /// Slots of running instances.
    pub running: u64,
    /// Slots of queued instances.
    pub queued: u64,
    /// Slots of deferred instances; they are held with `include_deferred` only.
    pub deferred: u64,
    pub include_deferred: bool,
    /// -1: without limit. Never negative otherwise.
    pub open: i64,
}

/// The published copy. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct GaugeBoard(Arc<RwLock<Arc<Gauges>>>);

impl GaugeBoard {
    pub fn publish(&self, gauges: Gauges) {
        *self.0.write() = Arc::new(gauges);
    }

    pub fn read(&self) -> Arc<Gauges> {
        self.0.read().clone()
    }
}

/// Tells, without asking the loop, for how long it has been in a commit.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    pub fn begin_commit(&self, now: BootInstant) {
        self.0.store(now.0.as_micros() as u64, Ordering::Relaxed);
    }

    pub fn end_commit(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// None when no commit is under way.
    pub fn committing_for(&self, now: BootInstant) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            since => Some(now.since(BootInstant(Duration::from_micros(since)))),
        }
    }
}
