//! What is held of each limit: pool slots, the executor's slots, the active instances of each run and of each limited task.
//!
//! Numbers change only through [`Limits::occupy`], [`Limits::start`], [`Limits::defer`], [`Limits::release`] and
//! [`Limits::follow_task_limit`], so that no limit is exceeded and none leaks. Knows no task and no order; the
//! [`ReadyQueue`](super::ready::ReadyQueue) decides who comes next.

mod shares;
mod steer;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use crate::model::PoolName;
use crate::scheduler::reserves::{Need, NeedIx, Reserves};

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

/// A limit on the instances of one task. Dense; given again after [`Limits::drop_task_limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskLimitIx(NonZeroU32);

impl TaskLimitIx {
    fn at(index: usize) -> Self {
        Self(NonZeroU32::MIN.saturating_add(index as u32))
    }

    const fn index(self) -> usize {
        self.0.get() as usize - 1
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
    include_deferred: bool,
    running: u64,
    queued: u64,
    deferred: u64,
}

impl Slots {
    fn taken(&self) -> u64 {
        self.running + self.queued + if self.include_deferred { self.deferred } else { 0 }
    }
}

impl Pools {
    /// The place of a pool; a pool that nobody has defined has no slots until [`Limits::set_pool`] gives it some.
    pub fn intern(&mut self, name: &PoolName) -> PoolIx {
        if let Some(&pool) = self.by_name.get(name) {
            return pool;
        }
        let pool = PoolIx(self.pools.len() as u32);
        let slots =
            Slots { name: name.clone(), total: None, include_deferred: false, running: 0, queued: 0, deferred: 0 };
        self.pools.push(slots);
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

    /// Slots of deferred instances, whether or not they hold them.
    pub fn deferred(&self, pool: PoolIx) -> u64 {
        self.pools[pool.index()].deferred
    }

    /// Whether deferred instances hold their slots.
    pub fn includes_deferred(&self, pool: PoolIx) -> bool {
        self.pools[pool.index()].include_deferred
    }

    /// Slots that are held.
    pub fn taken(&self, pool: PoolIx) -> u64 {
        self.pools[pool.index()].taken()
    }

    /// Free slots: -1 without limit, else never negative, even if more are held since the pool was made smaller.
    pub fn open(&self, pool: PoolIx) -> i64 {
        let slots = &self.pools[pool.index()];
        match slots.total {
            Some(total) if total < 0 => -1,
            Some(total) => total.saturating_sub_unsigned(slots.taken()).max(0),
            None => 0,
        }
    }

    /// Whether `slots` more may be held. As in Airflow nothing starts in a pool without an open slot.
    pub fn has_room(&self, pool: PoolIx, slots: u32) -> bool {
        let open = self.open(pool);
        open < 0 || (open > 0 && i64::from(slots) <= open)
    }

    /// Whether, once `slots` are held, `more` are left.
    pub fn has_room_for_both(&self, pool: PoolIx, slots: u32, more: u32) -> bool {
        let open = self.open(pool);
        open < 0 || i64::from(slots) + i64::from(more) <= open
    }

    /// Whether so many slots are free once all is over that runs now. What is deferred may stay so.
    pub fn could_free(&self, pool: PoolIx, slots: u32) -> bool {
        let of = &self.pools[pool.index()];
        let kept = if of.include_deferred { of.deferred } else { 0 };
        of.total.is_some_and(|total| total < 0 || i64::from(slots) <= total.saturating_sub_unsigned(kept))
    }

    /// Defined pools in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = PoolIx> + '_ {
        self.by_name.values().copied().filter(|&pool| self.total(pool).is_some())
    }
}

/// The state of an instance that holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    Queued,
    Running,
    /// It counts against the limits of its task, and against its pool if that includes what is deferred; nothing else.
    Deferred,
}

/// What one instance takes of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub run: RunIx,
    pub pool: PoolIx,
    pub pool_slots: u32,
    /// The narrowest limit of its task, if it has one.
    pub task_limit: Option<TaskLimitIx>,
    /// What it reserves of the host.
    pub need: Option<NeedIx>,
}

/// A bound on what is active: a number of instances of a run or of a task, or what they reserve of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Quota {
    Run(RunIx),
    Task(TaskLimitIx),
    /// What the host has to give away to those that need as much.
    Host(NeedIx),
}

/// A limit that has gained room since it was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freed {
    Pool(PoolIx),
    Quota(Quota),
    /// A DAG holds another number of slots of a pool.
    Share(PoolIx, u32),
}

/// Why an instance may not start now, however many slots the executor has: the first that Airflow looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nobody defines its pool.
    PoolUnknown,
    /// It wants more slots than its pool has in all.
    PoolTooSmall,
    PoolFull,
    Quota(Quota),
}

#[derive(Clone, Copy, Debug, Default)]
struct RunLimit {
    active: u32,
    max_active_tasks: u32,
    /// The world's number of its DAG.
    dag: u32,
}

/// Of which instances of a task a limit tells how many may be active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Of those in all runs of its DAG (`max_active_tis_per_dag`).
    Dag,
    /// Of those in one run (`max_active_tis_per_dagrun`).
    Run,
}

/// Airflow's limits on the active instances of one task. Those that are deferred count.
#[derive(Clone, Copy, Debug)]
struct TaskLimit {
    scope: Scope,
    limit: u32,
    active: u32,
    /// The limit of the task in all runs, of one in a single run.
    above: Option<TaskLimitIx>,
}

/// Every limit on what is queued or running (SEMANTICS 9).
#[derive(Clone, Debug)]
pub struct Limits {
    pub pools: Pools,
    reserves: Reserves,
    parallelism: u32,
    executing: u32,
    runs: Vec<RunLimit>,
    tasks: Vec<TaskLimit>,
    free_tasks: Vec<TaskLimitIx>,
    /// By pool and DAG the slots of queued and running instances; none: nobody asks.
    shares: Option<BTreeMap<(PoolIx, u32), u64>>,
    freed: Vec<Freed>,
}

impl Limits {
    pub fn new(parallelism: u32) -> Self {
        Self {
            pools: Pools::default(),
            reserves: Reserves::default(),
            parallelism,
            executing: 0,
            runs: Vec::new(),
            tasks: Vec::new(),
            free_tasks: Vec::new(),
            shares: None,
            freed: Vec::new(),
        }
    }

    pub fn parallelism(&self) -> u32 {
        self.parallelism
    }

    /// How many instances may execute at once from now on. What executes goes on if that is fewer.
    pub fn set_parallelism(&mut self, parallelism: u32) {
        self.parallelism = parallelism;
    }

    /// Instances that hold a slot of the executor.
    pub fn executing(&self) -> u32 {
        self.executing
    }

    pub fn has_free_slot(&self) -> bool {
        self.executing < self.parallelism
    }

    /// Defines a pool or changes its slots (-1: without limit). What runs goes on if it has become smaller.
    pub fn set_pool(&mut self, name: &PoolName, slots: i64, include_deferred: bool) -> PoolIx {
        let pool = self.pools.intern(name);
        let of = &mut self.pools.pools[pool.index()];
        of.total = Some(slots);
        of.include_deferred = include_deferred;
        self.freed.push(Freed::Pool(pool));
        pool
    }

    /// Takes a pool's definition away. Its instances wait, as in Airflow, and what runs in it goes on.
    pub fn drop_pool(&mut self, pool: PoolIx) {
        self.pools.pools[pool.index()].total = None;
    }

    /// A run of the DAG with this number becomes live, or its DAG's limit has changed. The number of its active instances stays.
    pub fn set_run(&mut self, run: RunIx, dag: u32, max_active_tasks: u32) {
        if self.runs.len() <= run.index() {
            self.runs.resize(run.index() + 1, RunLimit::default());
        }
        let of = &mut self.runs[run.index()];
        of.dag = dag;
        of.max_active_tasks = max_active_tasks;
        self.freed.push(Freed::Quota(Quota::Run(run)));
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

    /// The number that [`Limits::set_run`] was given.
    pub fn dag(&self, run: RunIx) -> u32 {
        self.runs.get(run.index()).map_or(0, |run| run.dag)
    }

    /// A task gets a limit; `above`: what else binds it.
    pub fn add_task_limit(&mut self, scope: Scope, limit: u32, above: Option<TaskLimitIx>) -> TaskLimitIx {
        let of = TaskLimit { scope, limit, active: 0, above };
        let ix = self.free_tasks.pop().unwrap_or_else(|| TaskLimitIx::at(self.tasks.len()));
        match self.tasks.get_mut(ix.index()) {
            Some(free) => *free = of,
            None => self.tasks.push(of),
        }
        ix
    }

    /// A limit has changed. What is active goes on if it has become lower.
    pub fn set_task_limit(&mut self, ix: TaskLimitIx, limit: u32) {
        self.tasks[ix.index()].limit = limit;
        self.freed.push(Freed::Quota(Quota::Task(ix)));
    }

    /// Takes a limit away.
    ///
    /// # Panics
    /// Instances count against it still.
    pub fn drop_task_limit(&mut self, ix: TaskLimitIx) {
        assert_eq!(
            self.tasks[ix.index()].active,
            0,
            "a task's limit goes after the last instance that counts against it"
        );
        self.free_tasks.push(ix);
    }

    /// Which instances a limit of a task is about, how many of them are active, and how many may be.
    pub fn task_limit(&self, ix: TaskLimitIx) -> (Scope, u32, u32) {
        let TaskLimit { scope, active, limit, .. } = self.tasks[ix.index()];
        (scope, active, limit)
    }

    #[cfg(test)]
    pub(super) fn above(&self, ix: TaskLimitIx) -> Option<TaskLimitIx> {
        self.tasks[ix.index()].above
    }

    /// The limits that are known, those that nobody uses included.
    #[cfg(test)]
    pub(super) fn task_limits_in_use(&self) -> usize {
        self.tasks.len() - self.free_tasks.len()
    }

    /// What holds this much counts against other limits of its task from now on.
    pub fn follow_task_limit(&mut self, claim: &mut Claim, limit: Option<TaskLimitIx>) {
        if claim.task_limit != limit {
            self.leave_task(claim.task_limit);
            claim.task_limit = limit;
            self.enter_task(limit);
        }
    }

    /// What is queued or runs reserves this of the host from now on.
    pub fn follow_need(&mut self, claim: &mut Claim, need: Option<NeedIx>) {
        if claim.need == need {
            return;
        }
        if let Some(before) = std::mem::replace(&mut claim.need, need) {
            self.reserves.give_back(before);
        }
        if let Some(need) = need {
            self.reserves.take(need);
        }
        self.free_reserves();
    }

    fn enter_task(&mut self, mut limit: Option<TaskLimitIx>) {
        while let Some(ix) = limit {
            let of = &mut self.tasks[ix.index()];
            of.active += 1;
            limit = of.above;
        }
    }

    fn leave_task(&mut self, mut limit: Option<TaskLimitIx>) {
        while let Some(ix) = limit {
            let of = &mut self.tasks[ix.index()];
            // Only a full one can have been found without room.
            if of.active >= of.limit {
                self.freed.push(Freed::Quota(Quota::Task(ix)));
            }
            of.active = of.active.checked_sub(1).expect("a task's active instances are counted when they begin to be");
            limit = of.above;
        }
    }

    pub(super) fn has_room(&self, quota: Quota) -> bool {
        match quota {
            Quota::Run(run) => self.has_room_in_run(run),
            Quota::Task(ix) => {
                let TaskLimit { active, limit, .. } = self.tasks[ix.index()];
                active < limit
            }
            Quota::Host(ix) => self.reserves.has_room(ix),
        }
    }

    /// What has no room for one more, in Airflow's order.
    pub(super) fn full_quota(&self, claim: &Claim) -> Option<Quota> {
        if !self.has_room_in_run(claim.run) {
            return Some(Quota::Run(claim.run));
        }
        let above = claim.task_limit.and_then(|ix| self.tasks[ix.index()].above);
        let of_task = above.into_iter().chain(claim.task_limit).map(Quota::Task);
        of_task.chain(claim.need.map(Quota::Host)).find(|&quota| !self.has_room(quota))
    }

    /// Why an instance may not start now; null: it may, if the executor has a slot.
    pub(super) fn refusal(&self, claim: &Claim) -> Option<Refusal> {
        match self.pools.total(claim.pool) {
            None => Some(Refusal::PoolUnknown),
            Some(slots) if slots >= 0 && i64::from(claim.pool_slots) > slots => Some(Refusal::PoolTooSmall),
            _ if !self.pools.has_room(claim.pool, claim.pool_slots) => Some(Refusal::PoolFull),
            _ => self.full_quota(claim).map(Refusal::Quota),
        }
    }

    /// An instance is queued: it holds its slots from now on. Recovery may take more than there is, since what an earlier
    /// scheduler started holds its slots whatever the limits say now; [`ReadyQueue::take`](super::ready::ReadyQueue::take)
    /// never does.
    pub fn occupy(&mut self, claim: Claim) {
        self.pools.pools[claim.pool.index()].queued += u64::from(claim.pool_slots);
        self.runs[claim.run.index()].active += 1;
        self.executing += 1;
        if let Some(need) = claim.need {
            self.reserves.take(need);
        }
        self.enter_task(claim.task_limit);
        if self.shares.is_some() {
            self.change_share(&claim, |holds| holds + u64::from(claim.pool_slots));
        }
    }

    /// An instance is deferred, after it has released what it held while it ran.
    pub fn defer(&mut self, claim: Claim) {
        self.pools.pools[claim.pool.index()].deferred += u64::from(claim.pool_slots);
        self.enter_task(claim.task_limit);
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
            Held::Deferred => take(&mut pool.deferred, claim.pool_slots),
        }
        let is_slotless = held == Held::Deferred && !pool.include_deferred;
        if !is_slotless && self.freed.last() != Some(&Freed::Pool(claim.pool)) {
            self.freed.push(Freed::Pool(claim.pool));
        }
        self.leave_task(claim.task_limit);
        if held == Held::Deferred {
            return;
        }
        if self.shares.is_some() {
            let less =
                |holds: u64| holds.checked_sub(claim.pool_slots.into()).expect("a share is counted when it is taken");
            self.change_share(&claim, less);
        }
        let run = &mut self.runs[claim.run.index()];
        // Only a full run can have been found without room.
        if run.active >= run.max_active_tasks {
            self.freed.push(Freed::Quota(Quota::Run(claim.run)));
        }
        run.active = run.active.checked_sub(1).expect("a run's active instances are counted when they are queued");
        self.executing = self.executing.checked_sub(1).expect("a slot of the executor is released once");
        if let Some(need) = claim.need {
            self.reserves.give_back(need);
            self.free_reserves();
        }
    }

    /// How much of the host may be reserved from now on; None: no bound.
    pub fn set_reserves(&mut self, memory: Option<u64>, millicpus: Option<u32>) {
        self.reserves.set(memory, millicpus);
        self.free_reserves();
    }

    pub fn reserves(&self) -> &Reserves {
        &self.reserves
    }

    pub fn intern_need(&mut self, need: Need) -> NeedIx {
        self.reserves.intern(need)
    }

    fn free_reserves(&mut self) {
        self.freed.extend(self.reserves.all().map(|need| Freed::Quota(Quota::Host(need))));
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
mod tests;
