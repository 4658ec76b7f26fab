//! What tries have cost, summed up: percentiles, and what is growing.

use std::time::Duration;

use jiff::Timestamp;

/// How many tries each half must have for their difference to say something.
const LEAST_HALF: usize = 5;

/// What one try has cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    /// In user and system mode together.
    pub cpu: Duration,
    /// Peak resident memory of its largest process, in bytes.
    pub memory: u64,
    /// Bytes from and to devices.
    pub read: u64,
    pub written: u64,
}

/// Something that a try costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// In microseconds, from start to end.
    Wall,
    /// In microseconds.
    Cpu,
    Memory,
    Read,
    Written,
}

impl Measure {
    pub const ALL: [Self; 5] = [Self::Wall, Self::Cpu, Self::Memory, Self::Read, Self::Written];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Wall => "wall",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Read => "read",
            Self::Written => "written",
        }
    }

    fn of(self, cost: &Cost) -> u64 {
        match self {
            Self::Wall => cost.ended_at.duration_since(cost.started_at).unsigned_abs().as_micros() as u64,
            Self::Cpu => cost.cpu.as_micros() as u64,
            Self::Memory => cost.memory,
            Self::Read => cost.read,
            Self::Written => cost.written,
        }
    }

    /// Below it a difference is noise: a tenth of a second, a mebibyte.
    const fn least_growth(self) -> f64 {
        match self {
            Self::Wall | Self::Cpu => 100_000.0,
            Self::Memory | Self::Read | Self::Written => (1 << 20) as f64,
        }
    }
}

/// A measure over many tries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub p50: u64,
    pub p95: u64,
    pub max: u64,
    /// By which part of itself the median of the later half exceeds that of the earlier one: 0.35 is 35 % more. None where there are too few
    /// tries, or where it cannot be said.
    pub growth: Option<f64>,
    /// Whether it has grown by more than noise.
    pub is_growing: bool,
}

/// By which part a measure must have grown to be called growing.
const GROWING: f64 = 0.2;

/// Sums up one measure of tries, which are in the order of their ends. None without tries.
pub fn spread(costs: &[Cost], measure: Measure) -> Option<Spread> {
    let values: Vec<u64> = costs.iter().map(|cost| measure.of(cost)).collect();
    let mut sorted = values.clone();
    sorted.sort_unstable();
    let (earlier, later) = values.split_at(values.len() / 2);
    let is_enough = earlier.len() >= LEAST_HALF;
    let medians = median(earlier.to_vec()).zip(median(later.to_vec())).filter(|_| is_enough);
    let growth = medians.filter(|(before, _)| *before > 0.0).map(|(before, after)| (after - before) / before);
    let is_much = medians.is_some_and(|(before, after)| after - before >= measure.least_growth());
    Some(Spread {
        p50: percentile(&sorted, 50)?,
        p95: percentile(&sorted, 95)?,
        max: *sorted.last()?,
        growth,
        is_growing: is_much && growth.is_none_or(|growth| growth >= GROWING),
    })
}

/// The least of them, which are sorted, that so many of a hundred do not exceed; None of nothing.
pub fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied()
}

/// Of an even number what lies between the two in the middle; None of nothing.
pub fn median(mut values: Vec<u64>) -> Option<f64> {
    values.sort_unstable();
    let middle = values.len() / 2;
    let upper = *values.get(middle)? as f64;
    Some(if values.len().is_multiple_of(2) { f64::midpoint(values[middle - 1] as f64, upper) } else { upper })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(memory: impl IntoIterator<Item = u64>) -> Vec<Cost> {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let cost = |(number, memory)| Cost {
            started_at: at(number),
            ended_at: at(number + 2),
            cpu: Duration::from_millis(5),
            memory,
            read: 0,
            written: 0,
        };
        (0..).zip(memory).map(cost).collect()
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        let medians = [vec![], vec![9, 1, 5], vec![9, 1, 5, 7]].map(median);
        assert_eq!(medians, [None, Some(5.0), Some(6.0)]);
    }

    #[test]
    fn percentiles_are_values_that_were_there() {
        let costs = costs((1..=100).rev());
        let spread_of = |measure| spread(&costs, measure).unwrap();
        let memory = spread_of(Measure::Memory);
        assert_eq!((memory.p50, memory.p95, memory.max), (50, 95, 100));
        let wall = spread_of(Measure::Wall);
        assert_eq!((wall.p50, wall.max, wall.growth, wall.is_growing), (2_000_000, 2_000_000, Some(0.0), false));
        assert_eq!(spread_of(Measure::Read).growth, None, "there is no part of nothing");
        let one = spread(&costs[..1], Measure::Memory).unwrap();
        assert_eq!((one.p50, one.p95, one.max, one.growth), (100, 100, 100, None));
        assert_eq!(spread(&[], Measure::Memory), None);
    }

    #[test]
    fn what_grows_is_told_from_noise() {
        let mib = 1 << 20;
        let halves = |before: u64, after: u64, count: usize| {
            let costs = costs(std::iter::repeat_n(before, count).chain(std::iter::repeat_n(after, count)));
            spread(&costs, Measure::Memory).unwrap()
        };
        let grown = halves(100 * mib, 135 * mib, 5);
        assert!(grown.is_growing && (grown.growth.unwrap() - 0.35).abs() < 1e-9, "{grown:?}");
        assert!(!halves(100 * mib, 110 * mib, 5).is_growing, "little of it");
        assert!(!halves(mib, mib + mib / 2, 5).is_growing, "much of little");
        assert!(!halves(135 * mib, 100 * mib, 5).is_growing, "less");
        assert_eq!(halves(100 * mib, 200 * mib, 4).growth, None, "too few");
        assert!(halves(0, 50 * mib, 5).is_growing, "from nothing");
    }
}
