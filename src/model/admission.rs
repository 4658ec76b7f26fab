//! What the host must have to spare before something new starts.

use super::needs::Reservable;

/// Beyond these nothing new starts. What is None is not looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Thresholds {
    /// Bytes that must be available.
    pub min_memory: Option<u64>,
    /// Bytes that must be free where home and logs lie.
    pub min_disk: Option<u64>,
    /// Bytes that must be free where the database lies, so that what runs can still be recorded.
    pub min_free: Option<u64>,
    /// Of the last minute.
    pub max_load: Option<f64>,
    /// Percent of the last ten seconds in which something waited for it (`some avg10`).
    pub max_cpu_pressure: Option<f64>,
    pub max_memory_pressure: Option<f64>,
    pub max_io_pressure: Option<f64>,
    pub waits_on_battery: bool,
}

impl Thresholds {
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }

    /// Nothing but the database's reserve is looked at. It lasts for more than the starts of a moment, so that these need not wait for a
    /// reading.
    pub fn is_reserve_alone(&self) -> bool {
        *self == Self { min_free: self.min_free, ..Self::default() }
    }
}

/// What `[admission]` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdmissionRules {
    pub thresholds: Thresholds,
    /// Bytes that tasks may have reserved at once; None: all that the host has.
    pub memory: Option<u64>,
    /// Thousandths of a processor, as before.
    pub millicpus: Option<u32>,
    /// What `core.parallelism = "auto"` chooses from; None: it is a number.
    pub parallelism: Option<ParallelismRange>,
}

impl AdmissionRules {
    /// What of the host may be reserved, as far as it is said.
    pub fn reservable(&self) -> Reservable {
        Reservable { memory: self.memory, millicpus: self.millicpus }
    }
}

/// Between these `core.parallelism = "auto"` chooses. 1 ≤ floor ≤ ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParallelismRange {
    pub floor: u32,
    pub ceiling: u32,
}
