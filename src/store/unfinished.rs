//! The instances of unfinished runs, and what of their XComs decides: nearly all that a start reads.
//!
//! A run's instances are made together, so their keys mostly stand side by side. A piece of each table is then read as it lies there, by the
//! first and the last of them; only where others stand between, they are looked for one by one, and sorted. Two threads share the work if
//! there is much of it. What it gives knows nothing of that.

use std::collections::{BTreeMap, HashSet};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OpenFlags, Row, Statement};

use crate::model::{Instance, InstanceKey, RunKey, SkipDecision};
use crate::scheduler::change::LengthWrite;
use crate::store::fault::Fault;
use crate::store::load::{decisions_of, instances_of, lengths_of};
use crate::store::read::{decision, length};
use crate::store::row::{Common, Fields, INSTANCE_COLUMNS, has_history, instance_columns};

pub(super) const EXTENT: &str = "SELECT min(i.key), max(i.key), count(*) FROM task_instance i WHERE i.run_key = ?1";
pub(super) const INSTANCES_BETWEEN: &str = concat!(
    "SELECT ",
    instance_columns!(),
    ", ",
    has_history!(),
    " FROM task_instance i WHERE i.key BETWEEN ?1 AND ?2 ORDER BY i.key"
);
pub(super) const LENGTHS_BETWEEN: &str = "SELECT m.instance_key, m.key, m.length FROM task_map m \
     WHERE m.instance_key BETWEEN ?1 AND ?2 ORDER BY m.instance_key, m.key";
/// The other keys of an instance are few.
pub(super) const DECISIONS_BETWEEN: &str = "SELECT x.instance_key, x.value FROM xcom x \
     WHERE x.instance_key BETWEEN ?1 AND ?2 AND x.key = 'skipmixin_key' ORDER BY x.instance_key";

/// From so many instances on two threads read them: to open another connection takes about as long as 500.
pub(super) const SHARED_FROM: i64 = 5_000;

/// All of it ordered by instance.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Unfinished {
    /// Of each run ordered by key.
    pub(super) instances: BTreeMap<RunKey, Vec<Instance>>,
    pub(super) lengths: Vec<LengthWrite>,
    pub(super) decisions: Vec<(InstanceKey, SkipDecision)>,
}

/// Where the instances of a run lie.
#[derive(Clone, Copy)]
struct Extent {
    run: RunKey,
    first: i64,
    last: i64,
    count: i64,
}

impl Extent {
    /// No other run's lie between them.
    fn is_whole(self) -> bool {
        self.last.checked_sub(self.first) == Some(self.count - 1)
    }
}

/// Of `runs`. Nobody else may write meanwhile. `shared_from`: see [`SHARED_FROM`].
pub(super) fn read(
    connection: &Connection,
    runs: impl Iterator<Item = RunKey>,
    shared_from: i64,
) -> Result<Unfinished, Fault> {
    let mut found = read_all(connection, &extents(connection, runs)?, shared_from)?;
    found.lengths.sort_unstable_by(|one, other| (one.instance, &one.key).cmp(&(other.instance, &other.key)));
    found.decisions.sort_unstable_by_key(|&(instance, _)| instance);
    Ok(found)
}

fn read_all(connection: &Connection, extents: &[Extent], shared_from: i64) -> Result<Unfinished, Fault> {
    let all: i64 = extents.iter().map(|extent| extent.count).sum();
    let beside = (all >= shared_from).then(|| beside(connection)).transpose();
    let Ok(Some(beside)) = beside else { return read_piecewise(connection, extents) };
    let (ours, theirs) = halves(extents);
    thread::scope(|scope| {
        let other = thread::Builder::new().name("load".to_owned());
        let other = other.spawn_scoped(scope, move || read_piecewise(&beside, theirs));
        let mut found = read_piecewise(connection, ours)?;
        let mut rest = match other {
            Ok(other) => other.join().unwrap_or_else(|panic| resume_unwind(panic))?,
            // The host has no thread to spare.
            Err(_) => read_piecewise(connection, theirs)?,
        };
        found.instances.append(&mut rest.instances);
        found.lengths.append(&mut rest.lengths);
        found.decisions.append(&mut rest.decisions);
        Ok(found)
    })
}

/// Two parts with about as many instances.
fn halves(extents: &[Extent]) -> (&[Extent], &[Extent]) {
    let all: i64 = extents.iter().map(|extent| extent.count).sum();
    let mut before = 0;
    let is_in_first = |extent: &&Extent| {
        before += extent.count;
        before <= all / 2
    };
    extents.split_at(extents.iter().take_while(is_in_first).count())
}

/// Another connection to the same file.
fn beside(connection: &Connection) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(connection.path().unwrap_or_default(), flags)
}

fn extents(connection: &Connection, runs: impl Iterator<Item = RunKey>) -> Result<Vec<Extent>, Fault> {
    let mut statement = connection.prepare_cached(EXTENT)?;
    let mut found = Vec::new();
    for run in runs {
        let extent = statement.query_row([run.0], |row| match row.get(2)? {
            0 => Ok(None),
            count => Ok(Some(Extent { run, first: row.get(0)?, last: row.get(1)?, count })),
        })?;
        found.extend(extent);
    }
    Ok(found)
}

fn read_piecewise(connection: &Connection, extents: &[Extent]) -> Result<Unfinished, Fault> {
    let mut found = Unfinished::default();
    let mut pieces = Pieces::prepare(connection)?;
    for &extent in extents {
        if extent.is_whole() {
            pieces.read(extent, &mut found)?;
        } else {
            found.instances.insert(extent.run, instances_of(connection, extent.run)?);
            found.lengths.extend(lengths_of(connection, extent.run)?);
            found.decisions.extend(decisions_of(connection, extent.run)?);
        }
    }
    Ok(found)
}

struct Pieces<'a> {
    instances: CachedStatement<'a>,
    lengths: CachedStatement<'a>,
    decisions: CachedStatement<'a>,
    texts: Texts,
}

impl<'a> Pieces<'a> {
    fn prepare(connection: &'a Connection) -> Result<Self, Fault> {
        let prepare = |sql| connection.prepare_cached(sql);
        let (lengths, decisions) = (prepare(LENGTHS_BETWEEN)?, prepare(DECISIONS_BETWEEN)?);
        Ok(Self { instances: prepare(INSTANCES_BETWEEN)?, lengths, decisions, texts: Texts::default() })
    }

    fn read(&mut self, extent: Extent, found: &mut Unfinished) -> Result<(), Fault> {
        let mut instances = Vec::with_capacity(usize::try_from(extent.count).unwrap_or_default());
        let texts = &mut self.texts;
        each(&mut self.instances, extent, |row| {
            instances.push(instance(row, texts)?);
            Ok(())
        })?;
        found.instances.insert(extent.run, instances);
        each(&mut self.lengths, extent, |row| {
            found.lengths.push(length(row)?);
            Ok(())
        })?;
        each(&mut self.decisions, extent, |row| {
            found.decisions.extend(decision(row)?);
            Ok(())
        })
    }
}

fn each(
    statement: &mut Statement<'_>,
    extent: Extent,
    mut take: impl FnMut(&Row<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut rows = statement.query([extent.first, extent.last])?;
    while let Some(row) = rows.next()? {
        take(row)?;
    }
    Ok(())
}

/// Of most that wait nothing is known but what they are.
fn instance(row: &Row<'_>, texts: &mut Texts) -> Result<Instance, Fault> {
    let fields = Fields::new(row, "task_instance");
    let mut keep = |of, text: &str| texts.keep(of, text);
    match row.get_ref(INSTANCE_COLUMNS)? {
        ValueRef::Null => fields.blank_instance(&mut keep),
        _ => fields.instance_of(&mut keep),
    }
}

/// The texts that many instances say, each of them once.
#[derive(Default)]
struct Texts {
    /// What the row before said in each column: mostly this one says the same.
    last: BTreeMap<Common, Arc<str>>,
    known: HashSet<Arc<str>>,
}

impl Texts {
    fn keep(&mut self, of: Common, text: &str) -> Arc<str> {
        if let Some(last) = self.last.get(&of).filter(|last| ***last == *text) {
            return last.clone();
        }
        let kept = match self.known.get(text) {
            Some(known) => known.clone(),
            None => {
                let new: Arc<str> = text.into();
                self.known.insert(new.clone());
                new
            }
        };
        self.last.insert(of, kept.clone());
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_have_as_many_instances_whatever_the_runs_have() {
        let extent = |count| Extent { run: RunKey(1), first: 1, last: count, count };
        let halved = |counts: &[i64]| {
            let extents: Vec<Extent> = counts.iter().copied().map(extent).collect();
            let (ours, theirs) = halves(&extents);
            let sum = |part: &[Extent]| part.iter().map(|extent| extent.count).sum::<i64>();
            (sum(ours), sum(theirs))
        };
        assert_eq!(halved(&[100; 10]), (500, 500));
        assert_eq!(halved(&[1, 1, 1, 1, 4]), (4, 4));
        assert_eq!(halved(&[4, 1, 1, 1, 1]), (4, 4));
        assert_eq!(halved(&[9]), (0, 9));
    }
}
