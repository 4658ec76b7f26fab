//! What of the host a task needs while it runs: reserved before it starts (`needs`).

/// What a file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub memory: Option<NeededMemory>,
    /// Thousandths of a processor.
    pub millicpus: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeededMemory {
    Bytes(u64),
    /// What its earlier tries have taken, but for one in twenty.
    Auto,
}
