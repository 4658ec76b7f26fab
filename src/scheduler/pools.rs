//! What is held of each limit: pool slots, the executor's slots, each run's active instances.
//!
//! Numbers change only through [`Limits::occupy`], [`Limits::start`] and [`Limits::release`], so that no limit is exceeded and
//! none leaks. Knows no task and no order; the [`ReadyQueue`](super::ready::ReadyQueue) decides who comes next.

use std::collections::BTreeMap;

use crate::model::PoolName;

/// A pool's place. Dense, and never given to another pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolIx(pub u32);

impl PoolIx {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A run's place among the live ones. Dense; the world may give it again after [`Limits::close_run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunIx(pub u32);

impl RunIx {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// All pools that were ever named.
#[derive(Clone, Debug, Default)]
pub struct Pools {
    by_name: BTreeMap<PoolName, PoolIx>,
    pools: Vec<Slots>,
}

#[derive(Clone, Debug)]
struct Slots {
    name: PoolName,
    /// -1: without limit. Null: not defined (any longer); nothing starts in it.
    total: Option<i64>,
    running: u64,
    queued: u64,
}

impl Pools {
    /// The place of a pool; a pool that nobody has defined has no slots until [`Limits::set_pool`] gives it some.
    pub fn intern(&mut self, name: &PoolName) -> PoolIx {
        if let Some(&pool) = self.by_name.get(name) {
            return pool;
        }
        let pool = PoolIx(self.pools.len() as u32);
        self.pools.push(Slots { name: name.clone(), total: None, running: 0, queued: 0 });
        self.by_name.insert(name.clone(), pool);
        pool
    }

    pub fn find(&self, name: &str) -> Option<PoolIx> {
        self.by_name.get(name).copied()
    }

    pub fn name(&self, pool: PoolIx) -> &PoolName {
        &self.pools[pool.index()].name
    }

    /// -1 means without limit; null: the pool is not defined.
    pub fn total(&self, pool: PoolIx) -> Option<i64> {
        self.pools[pool.index()].total
    }

    /// Slots of running instances.
    pub fn running(&self, pool: PoolIx) -> u64 {
        self.pools[pool.index()].running
    }

    /// Slots of queued instances.
    pub fn queued(&self, pool: PoolIx) -> u64 {
        self.pools[pool.index()].queued
    }

    /// Free slots: -1 without limit, else never negative, even if more are held since the pool was made smaller.
    pub fn open(&self, pool: PoolIx) -> i64 {
        let slots = &self.pools[pool.index()];
        match slots.total {
            Some(total) if total < 0 => -1,
            Some(total) => total.saturating_sub_unsigned(slots.running + slots.queued).max(0),
            None => 0,
        }
    }

    /// Whether `slots` more may be held. As in Airflow nothing starts in a pool without an open slot.
    pub fn has_room(&self, pool: PoolIx, slots: u32) -> bool {
        let open = self.open(pool);
        open < 0 || (open > 0 && i64::from(slots) <= open)
    }

    /// Defined pools in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = PoolIx> + '_ {
        self.by_name.values().copied().filter(|&pool| self.total(pool).is_some())
    }
}

/// The state of an instance that holds slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    Queued,
    Running,
}

/// What one instance takes of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub run: RunIx,
    pub pool: PoolIx,
    pub pool_slots: u32,
}

/// A limit that has gained room since it was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freed {
    Pool(PoolIx),
    Run(RunIx),
}

#[derive(Clone, Copy, Debug, Default)]
struct RunLimit {
    active: u32,
    max_active_tasks: u32,
}

/// Every limit on what is queued or running (SEMANTICS 9).
#[derive(Clone, Debug)]
pub struct Limits {
    pub pools: Pools,
    parallelism: u32,
    executing: u32,
    runs: Vec<RunLimit>,
    freed: Vec<Freed>,
}

impl Limits {
    pub fn new(parallelism: u32) -> Self {
        Self { pools: Pools::default(), parallelism, executing: 0, runs: Vec::new(), freed: Vec::new() }
    }

    pub fn parallelism(&self) -> u32 {
        self.parallelism
    }

    /// Instances that hold a slot of the executor.
    pub fn executing(&self) -> u32 {
        self.executing
    }

    pub fn has_free_slot(&self) -> bool {
        self.executing < self.parallelism
    }

    /// Defines a pool or changes its slots (-1: without limit). What runs goes on if it has become smaller.
    pub fn set_pool(&mut self, name: &PoolName, slots: i64) -> PoolIx {
        let pool = self.pools.intern(name);
        self.pools.pools[pool.index()].total = Some(slots);
        self.freed.push(Freed::Pool(pool));
        pool
    }

    /// Takes a pool's definition away. Its instances wait, as in Airflow, and what runs in it goes on.
    pub fn drop_pool(&mut self, pool: PoolIx) {
        self.pools.pools[pool.index()].total = None;
    }

    /// A run becomes live, or its DAG's limit has changed. The number of its active instances stays.
    pub fn set_run(&mut self, run: RunIx, max_active_tasks: u32) {
        if self.runs.len() <= run.index() {
            self.runs.resize(run.index() + 1, RunLimit::default());
        }
        self.runs[run.index()].max_active_tasks = max_active_tasks;
        self.freed.push(Freed::Run(run));
    }

    /// Forgets a run, so that its place may be given to another one.
    ///
    /// # Panics
    /// Instances of it still hold slots.
    pub fn close_run(&mut self, run: RunIx) {
        assert_eq!(self.active(run), 0, "a run is closed after the last of its instances has released its slots");
        self.runs[run.index()] = RunLimit::default();
    }

    /// Queued and running instances of a run.
    pub fn active(&self, run: RunIx) -> u32 {
        self.runs.get(run.index()).map_or(0, |run| run.active)
    }

    pub fn max_active_tasks(&self, run: RunIx) -> u32 {
        self.runs.get(run.index()).map_or(0, |run| run.max_active_tasks)
    }

    pub fn has_room_in_run(&self, run: RunIx) -> bool {
        self.active(run) < self.max_active_tasks(run)
    }

    /// An instance is queued: it holds its slots from now on. Recovery may take more than there is, since what an earlier
    /// scheduler started holds its slots whatever the limits say now; [`ReadyQueue::take`](super::ready::ReadyQueue::take)
    /// never does.
    pub fn occupy(&mut self, claim: Claim) {
        self.pools.pools[claim.pool.index()].queued += u64::from(claim.pool_slots);
        self.runs[claim.run.index()].active += 1;
        self.executing += 1;
    }

    /// A queued instance has begun to run.
    pub fn start(&mut self, claim: Claim) {
        let pool = &mut self.pools.pools[claim.pool.index()];
        take(&mut pool.queued, claim.pool_slots);
        pool.running += u64::from(claim.pool_slots);
    }

    /// An instance holds nothing any longer: it is over, or goes back to waiting.
    pub fn release(&mut self, claim: Claim, held: Held) {
        let pool = &mut self.pools.pools[claim.pool.index()];
        match held {
            Held::Queued => take(&mut pool.queued, claim.pool_slots),
            Held::Running => take(&mut pool.running, claim.pool_slots),
        }
        let run = &mut self.runs[claim.run.index()];
        // Only a full run can have been found without room.
        if run.active >= run.max_active_tasks {
            self.freed.push(Freed::Run(claim.run));
        }
        run.active = run.active.checked_sub(1).expect("a run's active instances are counted when they are queued");
        self.executing = self.executing.checked_sub(1).expect("a slot of the executor is released once");
        if self.freed.last() != Some(&Freed::Pool(claim.pool)) {
            self.freed.push(Freed::Pool(claim.pool));
        }
    }

    pub(super) fn take_freed(&mut self) -> Option<Freed> {
        self.freed.pop()
    }
}

fn take(held: &mut u64, slots: u32) {
    *held =
        held.checked_sub(u64::from(slots)).expect("slots are released in the state in which they were held, and once");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(pool: PoolIx, pool_slots: u32) -> Claim {
        Claim { run: RunIx(0), pool, pool_slots }
    }

    #[test]
    fn slots_are_held_from_queued_to_the_end() {
        let mut limits = Limits::new(4);
        let pool = limits.set_pool(&"p".into(), 3);
        limits.set_run(RunIx(0), 16);
        limits.occupy(claim(pool, 2));
        assert_eq!((limits.pools.queued(pool), limits.pools.running(pool), limits.pools.open(pool)), (2, 0, 1));
        limits.start(claim(pool, 2));
        assert_eq!((limits.pools.queued(pool), limits.pools.running(pool), limits.pools.open(pool)), (0, 2, 1));
        limits.release(claim(pool, 2), Held::Running);
        assert_eq!((limits.pools.open(pool), limits.executing(), limits.active(RunIx(0))), (3, 0, 0));
    }

    #[test]
    fn a_pool_without_limit_has_room_for_all_and_an_undefined_one_for_none() {
        let mut limits = Limits::new(4);
        let endless = limits.set_pool(&"endless".into(), -1);
        let unknown = limits.pools.intern(&"unknown".into());
        assert!(limits.pools.has_room(endless, u32::MAX));
        assert!(!limits.pools.has_room(unknown, 1));
        assert_eq!((limits.pools.open(endless), limits.pools.open(unknown)), (-1, 0));
        assert_eq!(limits.pools.iter().collect::<Vec<_>>(), [endless]);
    }

    #[test]
    fn a_pool_made_smaller_shows_no_negative_room() {
        let mut limits = Limits::new(4);
        let pool = limits.set_pool(&"p".into(), 4);
        limits.set_run(RunIx(0), 16);
        limits.occupy(claim(pool, 4));
        limits.set_pool(&"p".into(), 1);
        assert_eq!(limits.pools.open(pool), 0);
        assert!(!limits.pools.has_room(pool, 1));
    }

    #[test]
    #[should_panic(expected = "and once")]
    fn a_second_release_is_a_bug_that_shows() {
        let mut limits = Limits::new(4);
        let pool = limits.set_pool(&"p".into(), 4);
        limits.set_run(RunIx(0), 16);
        limits.occupy(claim(pool, 1));
        limits.release(claim(pool, 1), Held::Queued);
        limits.release(claim(pool, 1), Held::Queued);
    }
}
