//! Where instants come from. Everything that decides is given an instant; only the threads at the edge ask a clock.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

/// Time since boot on a clock that counts suspend (CLOCK_BOOTTIME). Retries, timeouts and graces count on it,
/// so that a step of the wall clock neither shortens nor lengthens them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootInstant(pub Duration);

impl BootInstant {
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(delay))
    }

    /// Zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

pub trait Clock: Send + Sync {
    /// The wall clock, in whole microseconds.
    fn now(&self) -> Timestamp;
    fn boot(&self) -> BootInstant;
}

/// The host's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        to_micros(Timestamp::now())
    }

    fn boot(&self) -> BootInstant {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        BootInstant(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }
}

/// Time on the clock by which a service manager counts (CLOCK_MONOTONIC).
pub fn monotonic() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Drops what is below a microsecond, which no row, message or run_id keeps.
pub fn to_micros(instant: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(instant.as_microsecond()).expect("an instant's microseconds are within its own range")
}

/// A clock that stands still until it is told to move; its copies move together.
#[derive(Clone, Debug)]
pub struct SimulatedClock(Arc<Mutex<(Timestamp, BootInstant)>>);

impl SimulatedClock {
    pub fn starting_at(now: Timestamp) -> Self {
        Self(Arc::new(Mutex::new((now, BootInstant(Duration::from_secs(1_000))))))
    }

    /// Both clocks move on.
    pub fn advance(&self, by: Duration) {
        let mut state = self.0.lock();
        state.0 += by;
        state.1 = state.1.after(by);
    }

    /// The wall clock alone is set, as by NTP or a user.
    pub fn step_to(&self, now: Timestamp) {
        self.0.lock().0 = now;
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        self.0.lock().0
    }

    fn boot(&self) -> BootInstant {
        self.0.lock().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_leaves_the_boot_clock_alone() {
        let clock = SimulatedClock::starting_at(Timestamp::UNIX_EPOCH);
        let boot = clock.boot();
        clock.step_to("2026-11-21T00:00:00Z".parse().unwrap());
        assert_eq!(clock.boot(), boot);
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.boot().since(boot), Duration::from_secs(5));
        assert_eq!(clock.now().to_string(), "2026-11-21T00:00:05Z");
    }

    #[test]
    fn the_system_clock_has_whole_microseconds() {
        assert_eq!(SystemClock.now().subsec_nanosecond() % 1_000, 0);
    }
}
