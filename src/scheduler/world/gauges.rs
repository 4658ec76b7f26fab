//! What the world publishes of itself: counts, pools, and how late runs begin.

use std::time::Duration;

use crate::model::TaskState;
use crate::scheduler::gauge::{Gauges, Lag, PoolGauge, TaskCounts};
use crate::scheduler::world::World;

/// How many recent runs the schedule lag is taken from.
const LAG_WINDOW: usize = 1_000;

impl World {
    pub(in crate::scheduler) fn record_lag(&mut self, lag: Duration) {
        if self.lags.len() == LAG_WINDOW {
            self.lags.pop_front();
        }
        self.lags.push_back(lag.as_secs_f64() * 1_000.0);
        self.is_lag_stale = true;
    }

    fn lag(&self) -> Lag {
        let mut lags: Vec<f64> = self.lags.iter().copied().collect();
        let Some(last) = lags.len().checked_sub(1) else { return Lag::default() };
        let mut at = |quantile: f64| {
            let place = (last as f64 * quantile).round() as usize;
            Some(*lags.select_nth_unstable_by(place, f64::total_cmp).1)
        };
        Lag { p50_ms: at(0.5), p99_ms: at(0.99) }
    }

    pub fn gauges(&mut self) -> Gauges {
        if std::mem::take(&mut self.is_lag_stale) {
            self.lag = self.lag();
        }
        let pools = &self.limits.pools;
        let gauge = |pool| PoolGauge {
            name: pools.name(pool).to_string(),
            slots: pools.total(pool).unwrap_or(0),
            running: pools.running(pool),
            queued: pools.queued(pool),
            deferred: pools.deferred(pool),
            include_deferred: pools.includes_deferred(pool),
            open: pools.open(pool),
        };
        Gauges {
            turns: 0,
            last_turn_at: None,
            queue_depth: self.counts.scheduled,
            schedule_lag: self.lag,
            parallelism: self.limits.parallelism(),
            held_back_by: self.admission.shut().to_vec(),
            tasks: TaskCounts { paused: self.paused.len() as u64, ..self.counts },
            pools: pools.iter().map(gauge).collect(),
            is_stopping: self.stopping.is_some(),
        }
    }
}

pub(in crate::scheduler) fn count(counts: &mut TaskCounts, state: TaskState, change: impl FnOnce(&mut u64)) {
    match state {
        TaskState::Running => change(&mut counts.running),
        TaskState::Queued => change(&mut counts.queued),
        TaskState::Scheduled => change(&mut counts.scheduled),
        TaskState::Deferred => change(&mut counts.deferred),
        TaskState::UpForRetry => change(&mut counts.up_for_retry),
        _ => {}
    }
}
