//! Everything that is remembered: one SQLite file, written by one connection, read by others.
//!
//! [`Database`] is the scheduler's [`Store`](crate::scheduler::Store): it commits one turn's changes in one transaction and
//! gives back on a start what is not finished. [`Reader`] and [`ReaderPool`] answer the questions of the command line, the
//! status pages and the workers on connections that cannot write. [`Checkpointer`] moves what is committed from the
//! write-ahead log into the file, beside the loop. [`MemoryStore`] is the same store without a file.
//!
//! Knows how things are stored, and no rule about what is stored. No SQL stands anywhere else.

mod act;
mod asset;
mod backfill;
mod callback;
mod checkpoint;
mod deadline;
mod fault;
mod memory;
mod memory_assets;
mod open;
mod pool;
mod read;
mod records;
mod row;
mod write;
mod xcom;

#[cfg(test)]
mod tests;

pub use asset::StoredReference;
pub use backfill::{BackfillCounts, BackfillDate};
pub use callback::FailedCallback;
pub use checkpoint::Checkpointer;
pub use memory::MemoryStore;
pub use open::{OpenError, SCHEMA_VERSION};
pub use pool::ReaderPool;
pub use read::Reader;
pub use records::{AuditRecord, DagCounts, DagListing, RecentFailure, StateCount};
pub use write::Database;
pub use xcom::StoredXcom;
