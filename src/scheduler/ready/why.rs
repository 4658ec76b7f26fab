//! Why an instance that waits has not started, from the state that decides.

use super::elders::{Before, Short};
use super::{PoolIx, Quota, ReadyQueue};
use crate::scheduler::pools::{Claim, Limits, Refusal, Scope};
use crate::scheduler::reserves::NeedIx;

/// Why an instance that waits has not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStarted {
    /// As many instances execute as may at once.
    ParallelismFull {
        parallelism: u32,
    },
    /// Nobody defines its pool.
    PoolUnknown {
        pool: PoolIx,
    },
    /// It wants more slots than its pool has in all: it will never start.
    PoolTooSmall {
        pool: PoolIx,
        slots: i64,
        needed: u32,
    },
    PoolFull {
        pool: PoolIx,
        open: i64,
        needed: u32,
    },
    /// Its run has as many queued and running instances as may be.
    MaxActiveTasks {
        active: u32,
        limit: u32,
    },
    /// Its task has as many active instances as may be, in all runs of its DAG. Those that are deferred count.
    MaxActiveTisPerDag {
        active: u32,
        limit: u32,
    },
    /// As before, in its run.
    MaxActiveTisPerDagrun {
        active: u32,
        limit: u32,
    },
    /// Too much of the host is reserved for others.
    HostReserved {
        need: NeedIx,
    },
    /// It needs more than the host has to give away: it will never start.
    HostTooSmall {
        need: NeedIx,
    },
    /// What it wants is kept for one that has waited for long.
    KeptFor(Elder),
    /// It may start; others come first.
    NotItsTurn,
}

/// An instance for which others are kept back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elder {
    pub handle: u32,
    /// The pool of which it would be left too few slots; none: too little of the host.
    pub pool: Option<PoolIx>,
}

/// A DAG that comes first, since it holds fewer slots of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rival {
    /// The world's number of it.
    pub dag: u32,
    pub holds: u64,
    /// How many slots the other one holds.
    pub against: u64,
}

impl ReadyQueue {
    /// Why an instance has not started; null if it does not wait here.
    pub fn why_not(&self, handle: u32, limits: &Limits) -> Option<NotStarted> {
        if !self.contains(handle) {
            return None;
        }
        let group = self.places[handle as usize].group;
        let claim = self.groups[group as usize].claim;
        let Claim { pool, pool_slots: needed, .. } = claim;
        Some(match limits.refusal(&claim) {
            Some(Refusal::PoolUnknown) => NotStarted::PoolUnknown { pool },
            Some(Refusal::PoolTooSmall) => {
                NotStarted::PoolTooSmall { pool, slots: limits.pools.total(pool).unwrap_or_default(), needed }
            }
            Some(Refusal::PoolFull) => NotStarted::PoolFull { pool, open: limits.pools.open(pool), needed },
            Some(Refusal::Quota(Quota::Run(run))) => {
                NotStarted::MaxActiveTasks { active: limits.active(run), limit: limits.max_active_tasks(run) }
            }
            Some(Refusal::Quota(Quota::Task(ix))) => match limits.task_limit(ix) {
                (Scope::Dag, active, limit) => NotStarted::MaxActiveTisPerDag { active, limit },
                (Scope::Run, active, limit) => NotStarted::MaxActiveTisPerDagrun { active, limit },
            },
            Some(Refusal::Quota(Quota::Host(need))) if limits.reserves().could_hold(need) => {
                NotStarted::HostReserved { need }
            }
            Some(Refusal::Quota(Quota::Host(need))) => NotStarted::HostTooSmall { need },
            // Last, since it opens soonest: the others would keep the instance from starting even then.
            None if !limits.has_free_slot() => NotStarted::ParallelismFull { parallelism: limits.parallelism() },
            None => self.elder(group, limits).map_or(NotStarted::NotItsTurn, NotStarted::KeptFor),
        })
    }

    fn elder(&self, group: u32, limits: &Limits) -> Option<Elder> {
        self.ageing?;
        let Before::Elder(elder, short) = self.before(group, limits) else { return None };
        let handle = self.groups[elder as usize].line.best()?.handle;
        let pool = (short == Short::Pool).then_some(self.groups[elder as usize].claim.pool);
        Some(Elder { handle, pool })
    }

    /// Whether others have been kept back for an instance.
    pub fn keeps(&self, handle: u32) -> bool {
        let group = self.places.get(handle as usize).and_then(|place| self.groups.get(place.group as usize));
        group.is_some_and(|group| group.keeps && group.line.best().is_some_and(|best| best.handle == handle))
    }

    /// Who of those that wait for slots of the same pool comes first, since his DAG holds fewer of them; null if nobody does, or if
    /// DAGs do not share.
    pub fn rival(&self, handle: u32, limits: &Limits) -> Option<Rival> {
        if !self.is_fair || !self.contains(handle) {
            return None;
        }
        let Claim { pool, run, .. } = self.groups[self.places[handle as usize].group as usize].claim;
        let best = |&lane: &u32| self.lanes[lane as usize].teams.best();
        let teams = self.lanes_of[pool.index()].iter().filter_map(best).map(|team| &self.teams[team as usize]);
        let holds = |dag: u32| limits.share(pool, dag);
        let first = teams.map(|team| team.dag).min_by_key(|&dag| (holds(dag), dag))?;
        let against = holds(limits.dag(run));
        (holds(first) < against).then(|| Rival { dag: first, holds: holds(first), against })
    }
}
