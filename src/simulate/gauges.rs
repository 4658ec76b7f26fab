//! How much of the limits that all DAGs share is held, and for how long: parallelism and the pools. Knows no DAG.

use crate::model::PoolName;
use crate::scheduler::pools::{Limits, PoolIx};
use crate::simulate::Plan;

/// What is held of a limit. Times in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gauge {
    /// None: without limit.
    pub size: Option<u64>,
    pub held: u64,
    pub peak: u64,
    pub full_for: i64,
    pub busy: i128,
}

#[derive(Clone, Debug)]
pub(super) struct NamedPool {
    pub name: PoolName,
    /// The same in every world that is given the same pools, since those that are defined come first.
    pub ix: PoolIx,
}

#[derive(Clone, Debug)]
pub(super) struct Gauges {
    pub parallelism: Gauge,
    /// By name.
    pub pools: Vec<(NamedPool, Gauge)>,
}

/// At `at`, in microseconds, one world has come to hold `change` more of the gauge at this place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub at: i64,
    gauge: u32,
    change: i64,
}

impl Step {
    /// The same, so many microseconds later.
    pub(super) fn later(self, by: i64) -> Self {
        Self { at: self.at + by, ..self }
    }
}

/// By how much a gauge was moved on: what was held of it, and for how long it was full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gain {
    busy: i128,
    full_for: i64,
}

/// More is held of a limit than there is.
#[derive(Debug)]
pub(super) struct Exceeded;

impl Gauges {
    pub(super) fn new(plan: &Plan, limits: &Limits) -> Self {
        let pools = &limits.pools;
        let size = |pool| pools.total(pool).and_then(|total| u64::try_from(total).ok());
        let named = |pool: PoolIx| {
            (NamedPool { name: pools.name(pool).clone(), ix: pool }, Gauge { size: size(pool), ..Gauge::default() })
        };
        Self {
            parallelism: Gauge { size: Some(plan.parallelism.into()), ..Gauge::default() },
            pools: pools.iter().map(named).collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        1 + self.pools.len()
    }

    fn all(&self) -> impl Iterator<Item = &Gauge> {
        std::iter::once(&self.parallelism).chain(self.pools.iter().map(|(_, gauge)| gauge))
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Gauge> {
        std::iter::once(&mut self.parallelism).chain(self.pools.iter_mut().map(|(_, gauge)| gauge))
    }

    /// Of each, what it has gained since it stood at `before`.
    pub(super) fn gained_since(&self, before: &Self) -> Vec<Gain> {
        let gain = |(now, before): (&Gauge, &Gauge)| Gain {
            busy: now.busy - before.busy,
            full_for: now.full_for - before.full_for,
        };
        self.all().zip(before.all()).map(gain).collect()
    }

    /// Each gains again what it gained once.
    pub(super) fn gain(&mut self, gains: &[Gain]) {
        for (gauge, gain) in self.all_mut().zip(gains) {
            gauge.busy += gain.busy;
            gauge.full_for += gain.full_for;
        }
    }

    /// Of each, how much is held: parallelism, then the pools.
    pub(super) fn held(&self) -> impl Iterator<Item = u64> {
        self.all().map(|gauge| gauge.held)
    }

    /// So many microseconds pass.
    pub(super) fn pass(&mut self, passed: i64) {
        for gauge in self.all_mut() {
            gauge.busy += i128::from(gauge.held) * i128::from(passed);
            if gauge.size.is_some_and(|size| gauge.held >= size) {
                gauge.full_for += passed;
            }
        }
    }

    /// Takes over what a world holds at `at`; what that changes goes to `steps`.
    pub(super) fn read(&mut self, at: i64, limits: &Limits, mut steps: Option<&mut Vec<Step>>) {
        let mut set = |place: usize, gauge: &mut Gauge, held: u64| {
            if held != gauge.held
                && let Some(steps) = &mut steps
            {
                steps.push(Step { at, gauge: place as u32, change: held.cast_signed() - gauge.held.cast_signed() });
            }
            gauge.set(held);
        };
        set(0, &mut self.parallelism, limits.executing().into());
        for (place, (pool, gauge)) in self.pools.iter_mut().enumerate() {
            set(place + 1, gauge, limits.pools.taken(pool.ix));
        }
    }

    /// Goes from `from` to `until` with the steps of several worlds in between, in order of their instants.
    ///
    /// # Errors
    /// At the end of an instant they hold more of a limit than there is.
    pub(super) fn follow(&mut self, from: i64, until: i64, steps: &[Step]) -> Result<(), Exceeded> {
        let mut at = from;
        for instant in steps.chunk_by(|a, b| a.at == b.at) {
            self.pass(instant[0].at - at);
            at = instant[0].at;
            for step in instant {
                let gauge = match step.gauge.checked_sub(1) {
                    None => &mut self.parallelism,
                    Some(pool) => &mut self.pools[pool as usize].1,
                };
                // Within an instant in any order: sums of what each world holds do not pass below zero at its end.
                gauge.held = gauge.held.wrapping_add_signed(step.change);
            }
            for gauge in self.all_mut() {
                if gauge.size.is_some_and(|size| gauge.held > size) {
                    return Err(Exceeded);
                }
                gauge.set(gauge.held);
            }
        }
        self.pass(until - at);
        Ok(())
    }
}

impl Gauge {
    fn set(&mut self, held: u64) {
        self.held = held;
        self.peak = self.peak.max(held);
    }
}
