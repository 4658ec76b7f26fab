//! Everything that is remembered: one SQLite file, written by one connection, read by others.
//!
//! [`Database`] is the scheduler's [`Store`](crate::scheduler::Store): it commits one turn's changes in one transaction and
//! gives back on a start what is not finished. [`Reader`] and [`ReaderPool`] answer the questions of the command line, the
//! status pages and the workers on connections that cannot write. [`Checkpointer`] moves what is committed from the
//! write-ahead log into the file, beside the loop. [`MemoryStore`] is the same store without a file.
//!
//! Knows how things are stored, and no rule about what is stored. No SQL stands anywhere else.

mod act;
mod archive;
mod asset;
mod backfill;
mod backup;
mod callback;
mod check;
mod checkpoint;
mod deadline;
mod export;
mod fault;
mod load;
mod memory;
mod memory_assets;
mod mend;
mod open;
mod place;
mod pool;
mod put;
mod read;
mod records;
mod reserve;
mod retire;
mod row;
mod unfinished;
mod usage;
mod usual;
mod write;
mod xcom;

#[cfg(test)]
mod tests;

pub use archive::Archive;
pub use asset::StoredReference;
pub use backfill::{BackfillCounts, BackfillDate};
pub use backup::{
    Copied, Pages, Restored, Vacuum, copy, copy_of_series, log_bytes, migration_backups, pages, restore, vacuum,
};
pub use callback::FailedCallback;
pub use checkpoint::Checkpointer;
pub use export::tables;
pub use memory::{MemoryStore, Moment};
pub use open::{OpenError, SCHEMA_VERSION};
pub use pool::ReaderPool;
pub use read::Reader;
pub use records::{AuditFilter, AuditRecord, DagCounts, DagListing, RecentFailure, StateCount};
pub use retire::{Disposable, Disposal, Unreadable};
pub use usual::USUAL_RUNS;
pub use write::Database;
pub use xcom::StoredXcom;
