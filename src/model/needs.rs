//! What of the host a task needs while it runs: reserved before it starts (`needs`).

/// What a file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub memory: Option<NeededMemory>,
    /// Thousandths of a processor.
    pub millicpus: Option<u32>,
}

/// How much of the host all that is under way may have reserved together. None: nobody knows, and nothing bounds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reservable {
    /// Bytes.
    pub memory: Option<u64>,
    /// Thousandths of a processor.
    pub millicpus: Option<u32>,
}

impl Reservable {
    /// Where nothing bounds it, `other` does.
    pub fn or(self, other: Self) -> Self {
        Self { memory: self.memory.or(other.memory), millicpus: self.millicpus.or(other.millicpus) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeededMemory {
    Bytes(u64),
    /// What its earlier tries have taken, but for one in twenty.
    Auto,
}
