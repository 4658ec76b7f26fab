//! Looks after a home's history: has finished runs go that `[retention]` or a user gives up, with their logs, run_dirs and large XComs, and
//! has old logs compressed.
//!
//! Plans by reading the database beside the loop. What changes goes through a [`Port`] as small orders, so that the loop (or, without a
//! running minflow, the one connection that writes) is held for a moment only. Folders go after the rows, by the rows of `retired_run`, which
//! outlast a crash. Called by a thread of `minflow run` and by commands; decides nothing about scheduling.

mod compress;
pub mod folders;
pub mod venvs;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::Value;

pub use compress::compress;
pub use folders::Places;

use crate::config::Retention;
use crate::model::{DagId, RunKey};
use crate::scheduler::change::{Changes, RetiredRun};
use crate::scheduler::command::{CommandError, Keep};
use crate::scheduler::{RETIRED_RUNS, Store, StoreError};
use crate::store::{Archive, Database, Disposable, Disposal, Reader, pages};

/// How many runs of one DAG are looked at in one round; the next round goes on.
const ROUND: usize = 10_000;

/// Of so many runs the rows of instances go together, and then their folders.
const SWEPT_RUNS: usize = 50;

/// The file is not worth shrinking for less, in pages.
const MANY_PAGES: u64 = 1_000;

/// Carries out orders, each in a transaction of its own.
pub trait Port {
    /// Answers the runs that were retired.
    ///
    /// # Errors
    /// The order was refused, or nobody is there any longer; nothing was changed.
    fn keep(&mut self, keep: Keep) -> Result<Vec<RunKey>, CommandError>;
}

/// The database itself, while no minflow runs.
impl Port for Database {
    fn keep(&mut self, keep: Keep) -> Result<Vec<RunKey>, CommandError> {
        let mut changes = Changes::default();
        let kept = crate::scheduler::order(&mut changes, keep, Timestamp::now());
        self.commit(&changes).map_err(of_store)?;
        Ok(kept)
    }
}

pub(crate) fn of_store(error: StoreError) -> CommandError {
    CommandError { code: "database".to_owned(), message: format!("failed to {}", error.message), help: error.help }
}

/// The runs that the rules give up and nothing needs, oldest first within each DAG.
///
/// # Errors
/// The database cannot be read.
pub fn plan(reader: &Reader, rules: &Retention, places: &Places, now: Timestamp) -> Result<Disposable, StoreError> {
    let before = rules.max_age.and_then(|age| now.checked_sub(age).ok());
    let (mut planned, mut seen) = (Disposable::default(), BTreeSet::new());
    let mut add = |found: Disposable| {
        planned.unreadable.extend(found.unreadable.into_iter().filter(|run| seen.insert(run.key)));
        planned.runs.extend(found.runs.into_iter().filter(|run| seen.insert(run.key)));
    };
    let dag_ids = reader.dag_ids()?;
    for dag_id in &dag_ids {
        if before.is_some() {
            add(reader.disposable(dag_id, &Disposal { before, limit: ROUND, ..Disposal::default() })?);
        }
        if rules.max_runs.is_some() {
            add(reader.disposable(dag_id, &Disposal { keep: rules.max_runs, limit: ROUND, ..Disposal::default() })?);
        }
    }
    if let Some(most) = rules.max_bytes {
        let mut total = places.bytes(reader)?;
        let mut candidates = Vec::new();
        for dag_id in &dag_ids {
            let found = reader.disposable(dag_id, &Disposal { limit: ROUND, ..Disposal::default() })?;
            candidates.extend(found.runs);
            if total > most {
                add(Disposable { unreadable: found.unreadable, ..Disposable::default() });
            }
        }
        candidates.sort_by_key(|run| (run.end_date, run.key));
        for run in candidates {
            if total <= most {
                break;
            }
            total = total.saturating_sub(places.bytes_of(&run.dag_id, &run.run_id));
            add(Disposable { runs: vec![run], ..Disposable::default() });
        }
    }
    Ok(planned)
}

/// Has runs go, oldest first, after the archive has taken them in. Answers those that went: the others live again, or are needed by now.
///
/// # Errors
/// The archive cannot be written, or an order was refused: what went before is gone as a whole.
pub fn retire(
    port: &mut dyn Port,
    runs: &[RetiredRun],
    everything: bool,
    mut archive: Option<&mut Archive>,
    asked: Option<Value>,
) -> Result<Vec<RunKey>, CommandError> {
    let (mut gone, mut asked) = (Vec::new(), asked);
    for piece in runs.chunks(RETIRED_RUNS) {
        if let Some(archive) = archive.as_deref_mut() {
            archive.take(piece).map_err(of_store)?;
        }
        gone.extend(port.keep(Keep::Retire { runs: piece.to_vec(), everything, asked: asked.take() })?);
    }
    // Without runs it is still said who asked.
    if asked.is_some() {
        port.keep(Keep::Retire { runs: Vec::new(), everything, asked })?;
    }
    Ok(gone)
}

/// Has the rest of what was retired go: rows of instances, a few at a time, then folders. `goes_on` is asked before each order.
///
/// # Errors
/// An order was refused, or the database cannot be read: the rest goes another time.
pub fn sweep(
    port: &mut dyn Port,
    reader: &Reader,
    places: &Places,
    goes_on: &dyn Fn() -> bool,
) -> Result<usize, CommandError> {
    let mut count = 0;
    for piece in reader.retired().map_err(of_store)?.chunks(SWEPT_RUNS) {
        let mut runs: Vec<_> = piece.iter().map(|(key, dag_id, _)| (*key, dag_id.clone())).collect();
        loop {
            runs = with_instances(reader, runs)?;
            if runs.is_empty() {
                break;
            }
            if !goes_on() {
                return Ok(count);
            }
            port.keep(Keep::Purge { runs: runs.clone() })?;
        }
        let mut swept = Vec::new();
        for (key, dag_id, run_id) in piece {
            match places.remove(reader, dag_id, run_id) {
                Ok(()) => swept.push((*key, dag_id.clone(), run_id.clone())),
                Err(error) => {
                    log::warn!("retention: what is left of run `{run_id}` of `{dag_id}` cannot be removed yet: {error}")
                }
            }
        }
        if !swept.is_empty() {
            count += swept.len();
            port.keep(Keep::Forget { runs: swept })?;
        }
    }
    Ok(count)
}

/// From the first run on of which rows of instances are left: they go in this order.
fn with_instances(reader: &Reader, runs: Vec<(RunKey, DagId)>) -> Result<Vec<(RunKey, DagId)>, CommandError> {
    for (at, (run, _)) in runs.iter().enumerate() {
        if reader.has_instances(*run).map_err(of_store)? {
            return Ok(runs[at..].to_vec());
        }
    }
    Ok(Vec::new())
}

/// Takes entries of the audit log away up to a key, after the archive has taken them in.
///
/// # Errors
/// As [`retire`].
pub fn cut_audit(
    port: &mut dyn Port,
    reader: &Reader,
    until: i64,
    archive: Option<&mut Archive>,
) -> Result<(), CommandError> {
    if let Some(archive) = archive {
        archive.take_audit(until).map_err(of_store)?;
    }
    while reader.has_audit(until).map_err(of_store)? {
        port.keep(Keep::CutAudit { until })?;
    }
    Ok(())
}

/// Has virtual environments go that no loaded DAG needs and that were not used for so long. Answers how many went. `goes_on` is asked
/// before each.
///
/// # Errors
/// The database cannot be read.
pub fn prune_venvs(
    reader: &Reader,
    folder: &Path,
    unused_for: Duration,
    goes_on: &dyn Fn() -> bool,
) -> Result<usize, StoreError> {
    let Some(before) = SystemTime::now().checked_sub(unused_for) else { return Ok(0) };
    let all = venvs::list(folder);
    if all.is_empty() {
        return Ok(0);
    }
    let mut count = 0;
    for venv in venvs::superfluous(&all, &loaded_dags(reader)?, before) {
        if !goes_on() {
            break;
        }
        match venvs::remove(&venv, before) {
            Ok(is_gone) => count += usize::from(is_gone),
            Err(error) => {
                log::warn!("the virtual environment `{}` cannot be removed yet: {error}", venv.path.display());
            }
        }
    }
    Ok(count)
}

/// The DAGs that have a file now.
///
/// # Errors
/// The database cannot be read.
pub fn loaded_dags(reader: &Reader) -> Result<BTreeSet<String>, StoreError> {
    Ok(reader.loaded_dag_ids()?.iter().map(ToString::to_string).collect())
}

/// Has the file give pages back, if an eighth of it holds nothing and it can be done a few at a time.
///
/// # Errors
/// As [`sweep`].
pub fn shrink(port: &mut dyn Port, database: &Path, goes_on: &dyn Fn() -> bool) -> Result<(), CommandError> {
    let found = pages(database).map_err(of_store)?;
    if !found.is_incremental || found.free < MANY_PAGES || found.free < found.total / 8 {
        return Ok(());
    }
    // Some stay, for what comes next.
    let kept = found.total / 32 + u64::from(crate::scheduler::FREED_PAGES);
    let (mut free, mut before) = (found.free, u64::MAX);
    // An order gives back what there is time for, and others use some meanwhile.
    while free > kept && free < before {
        for _ in 0..(free - kept).div_ceil(u64::from(crate::scheduler::FREED_PAGES)) {
            if !goes_on() {
                return Ok(());
            }
            port.keep(Keep::FreePages)?;
        }
        (before, free) = (free, pages(database).map_err(of_store)?.free);
    }
    Ok(())
}

/// Between two orders the loop has so long for itself, beside what it needs for others.
pub const PAUSE: Duration = Duration::from_millis(2);
