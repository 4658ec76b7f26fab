//! The order of what waits: weights, dates and places as unsigned numbers, and weights that grow while somebody waits.

use std::num::NonZeroU32;
use std::time::Duration;

use jiff::Timestamp;

use super::Candidate;

/// How the next start is chosen, as far as users have a say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choosing {
    /// `scheduler.max_tis_per_query`: how many rows a pass reads, blocked ones included ([`ReadyQueue::pass`](super::ReadyQueue::pass));
    /// none: all that may start starts.
    pub rows: Option<NonZeroU32>,
    /// Of those that wait for slots of a pool, the DAG that holds the fewest of them comes first; Airflow's order decides among its own.
    pub fair_share: bool,
    /// For each such time of waiting an instance's weight counts one more; none: it stays as it is. At least a millisecond.
    pub ageing: Option<Duration>,
}

/// Where something stands in the order: the lowest comes first.
///
/// The share of its DAG, then weight, logical date, map index and task, each mapped to an unsigned number of the same order, so that
/// comparing two is comparing four words. The share is 0 but where teams of DAGs compete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub share: u64,
    pub weight: u64,
    pub logical_date: u64,
    pub place: u64,
}

impl Rank {
    /// Behind all others: no instance has it, since no logical date lies so late.
    pub const NOBODY: Self = Self { share: u64::MAX, weight: u64::MAX, logical_date: u64::MAX, place: u64::MAX };

    /// Nobody stays nobody.
    pub fn with_share(self, share: u64) -> Self {
        if self == Self::NOBODY { self } else { Self { share, ..self } }
    }
}

/// The order of numbers with a sign as the order of numbers without.
pub(super) const fn unsigned(number: i64) -> u64 {
    number.cast_unsigned() ^ (1 << 63)
}

/// An instance in the line of its group. Least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// As in [`Rank`].
    pub weight: u64,
    pub place: u64,
    pub handle: u32,
    pub generation: u32,
}

impl Entry {
    pub fn new(candidate: &Candidate, generation: u32, ageing: Option<&Ageing>) -> Self {
        let map_index = (candidate.map_index.cast_unsigned() ^ (1 << 31)) as u64;
        let weight = match ageing {
            Some(ageing) => ageing.weight(candidate.priority_weight, candidate.since),
            None => candidate.priority_weight,
        };
        Self {
            weight: !unsigned(weight),
            place: map_index << 32 | u64::from(candidate.order),
            handle: candidate.handle,
            generation,
        }
    }

    /// The task's place in its DAG.
    pub const fn task(&self) -> u32 {
        self.place as u32
    }
}

/// Weights that grow by one each interval. All grow alike, so that the order of two never changes, and no timer is needed: what
/// a weight is by now is `weight + (now - since) / interval`, which is in the order of `weight * interval - since`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ageing {
    /// In milliseconds, as all instants here.
    interval: i64,
    now: i64,
}

impl Ageing {
    pub fn new(interval: Duration) -> Self {
        let interval = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
        Self { interval: interval.max(1), now: i64::MIN }
    }

    pub fn set_now(&mut self, now: Timestamp) {
        self.now = now.as_millisecond();
    }

    /// A weight that stays as it is while its instance waits.
    fn weight(self, weight: i64, since: Timestamp) -> i64 {
        weight.saturating_mul(self.interval).saturating_sub(since.as_millisecond())
    }

    /// Whether who waits since then has waited for an interval.
    pub fn is_over(self, since: i64) -> bool {
        self.now.saturating_sub(since) >= self.interval
    }
}
