//! When DAGs run next, whether a minflow runs that has planned it or none does.
//!
//! A row's next run is what the last minflow planned. Where none runs any more it may have passed, and the next start plans anew:
//! that is worked out here as it would be then.

use jiff::Timestamp;

use crate::cli::home::{Definition, Home};
use crate::cli::{Failure, engine};
use crate::clock::{Clock, SystemClock};
use crate::model::NextRun;
use crate::scheduler::DagRecord;
use crate::simulate::{self, Subject};

/// The next `count` runs: a late one that the running minflow has planned already, and those that it would create from now on.
///
/// # Errors
/// The database cannot be read.
pub fn next_runs(home: &Home, definition: &Definition, count: usize) -> Result<Vec<NextRun>, Failure> {
    let (dag, record) = (&definition.dag, definition.record.as_ref());
    let now = SystemClock.now();
    let mut subject = Subject {
        dag: dag.clone(),
        file: definition.file.as_str().into(),
        first_seen_at: record.and_then(|record| record.first_seen_at),
        last_interval: record.and_then(|record| record.last_interval),
        outlooks: Vec::new(),
    };
    // It waits for a run before it to end. One that nobody runs plans anew at its start.
    let late = record.filter(|record| !record.is_paused).and_then(|record| record.next_run);
    let late = late.filter(|next| next.run_after <= now && engine::expect_running(home).is_ok());
    if let Some(next) = late {
        subject.last_interval = Some(next.data_interval);
    }
    let mut failed = None;
    let mut is_taken = |date| match home.reader.as_ref().map(|reader| reader.run_by_logical_date(&dag.dag_id, date)) {
        Some(Err(error)) => {
            failed = Some(error);
            true
        }
        Some(Ok(run)) => run.is_some(),
        None => false,
    };
    let following = simulate::next_runs(&subject, now, count - usize::from(late.is_some()), &mut is_taken);
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(late.into_iter().chain(following).collect()),
    }
}

/// Gives the DAGs whose next run passed while nobody ran them the run that the next start of minflow would make. One whose file is
/// broken or gone has none.
///
/// # Errors
/// The database cannot be read.
pub fn renew<'r>(home: &Home, records: impl Iterator<Item = &'r mut DagRecord>, now: Timestamp) -> Result<(), Failure> {
    let has_passed = |record: &&mut DagRecord| {
        !record.is_paused && record.is_active && record.next_run.is_some_and(|next| next.run_after <= now)
    };
    let mut passed = records.filter(has_passed).peekable();
    if passed.peek().is_none() || engine::expect_running(home).is_ok() {
        return Ok(());
    }
    let defaults = home.defaults();
    for record in passed {
        record.next_run = match home.definition_of_file(record, &defaults) {
            Some(definition) => next_runs(home, &definition, 1)?.first().copied(),
            None => None,
        };
    }
    Ok(())
}
