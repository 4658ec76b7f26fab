//! Airflow's scheduling model: what runs, when, and what an end means.
//!
//! Events come in, decisions are made by pure functions over the [`world`], and leave as [`Changes`] for the store and
//! [`Action`](world::Action)s for the executor. Knows no file, no thread, no database and no clock: those are given to it behind the traits of
//! [`port`].

mod act;
pub mod admission;
mod admit;
mod assets;
pub mod backfill;
mod callbacks;
pub mod change;
mod circles;
pub mod command;
pub mod conf;
mod cross_dag;
mod deadlines;
pub mod decide;
mod dense;
pub mod event;
pub mod explain;
pub mod gauge;
mod growth;
mod load;
pub mod machine;
pub mod past;
mod paths;
pub mod pools;
pub mod port;
pub mod progress;
mod quotas;
pub mod ready;
pub mod reason;
mod recovery;
mod reload;
mod requests;
pub mod reserves;
mod retire;
pub mod retry;
mod runs;
pub mod sensor;
#[cfg(test)]
mod simulation;
mod skips;
mod steer;
pub mod subset;
mod surroundings;
pub mod timers;
mod tries;
pub mod trigger_rule;
pub mod turn;
mod waits;
pub mod weight;
pub mod world;

pub use callbacks::LOST;
pub use change::{Changes, DagRecord, ImportError, InstanceWrite, RunWrite, Snapshot};
pub use command::{Command, CommandError, Reply};
pub use event::{Attempt, CallEnd, CallOutcome, DagFile, Event, Found, Outcome, TryEnd};
pub use gauge::Gauges;
pub use port::{Call, Executor, Store, StoreError, Timer, Triggerer, Work};
pub use retire::{FREED_PAGES, PURGED_ROWS, RETIRED_RUNS, order};
