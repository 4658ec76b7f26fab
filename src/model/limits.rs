//! What a task may use of its host (`limits = { … }`), and which of that it has exceeded.

use std::fmt;
use std::time::Duration;

/// The limits of one task. None: it has none of that kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// In bytes, of all its processes together.
    pub memory: Option<u64>,
    /// Thousandths of a processor, of all its processes together.
    pub millicpus: Option<u32>,
    /// Whole seconds, of all its processes together.
    pub cpu_time: Option<Duration>,
    pub processes: Option<u32>,
    /// Of each process.
    pub open_files: Option<u32>,
    /// In bytes, of each file that it writes.
    pub file_size: Option<u64>,
    /// From -20 to 19.
    pub nice: Option<i32>,
    pub ionice: Option<IoPriority>,
    /// The bits that new files do not get.
    pub umask: Option<u32>,
    pub enforce: Enforce,
}

/// How soon the disk serves a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoPriority {
    /// When nobody else wants it.
    Idle,
    /// As usual, from 0 (first) to 7 (last).
    BestEffort(u8),
}

/// What becomes of a limit that the host does not enforce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforce {
    /// The log says so, and the task runs.
    #[default]
    Prefer,
    /// The task does not start.
    Require,
}

/// A limit that ended a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    Memory,
    CpuTime,
    Processes,
    FileSize,
}

impl Exceeded {
    pub const ALL: [Self; 4] = [Self::Memory, Self::CpuTime, Self::Processes, Self::FileSize];

    /// The reason of an instance whose try ended so.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Memory => "out_of_memory",
            Self::CpuTime => "cpu_time",
            Self::Processes => "processes",
            Self::FileSize => "file_size",
        }
    }
}

/// As the log tells it.
impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "out of memory",
            Self::CpuTime => "at its limit of CPU time",
            Self::Processes => "at its limit of processes",
            Self::FileSize => "at its limit of file sizes",
        })
    }
}
