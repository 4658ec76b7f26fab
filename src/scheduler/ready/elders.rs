//! For whom others are kept back, so that nobody waits for ever (`scheduler.priority_ageing`).
//!
//! Weights that grow bring everybody to the front in time, but who wants several slots of a pool, or much of the host, finds them taken
//! there by whoever wants less, again and again. So who has waited for an interval, and is kept by his pool alone or by the host, is an
//! *elder*: nothing behind him in the order of weights starts that would not leave him what he wants of the pool, and, while the host
//! has no room for him, of the host. Of a pool he is the best of a lane; of those who wait for the host, the best of all. What
//! is deferred may stay so for days, and is not counted upon; who could never start is no elder.
//!
//! Who is kept back is taken out of the queue, with all those behind him that want as many slots of the same pool, until a slot, or some of the host, comes free, or his elder moves.

use super::order::Rank;
use super::{Quota, ReadyQueue};
use crate::scheduler::pools::{Claim, Limits, Refusal, RunIx};
use crate::scheduler::reserves::NeedIx;

/// What takes no part while others are kept back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Lane(u32),
    Park(u32),
}

/// Of what an elder would be left too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Short {
    Pool,
    /// The host, of which the other needs this much.
    Host(NeedIx),
}

/// Who comes before a group whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    Nobody,
    /// This group would, but another limit keeps it, or it can never start.
    Stuck(u32, Option<Quota>),
    Elder(u32, Short),
}

impl ReadyQueue {
    /// Takes a group out of the queue if an elder comes before it. Says whether it has.
    pub(super) fn keep_back(&mut self, lane: u32, group: u32, limits: &Limits) -> bool {
        loop {
            match self.before(group, limits) {
                Before::Nobody => return false,
                Before::Stuck(other, quota) => self.set_aside(other, quota, limits),
                Before::Elder(elder, short) => {
                    let kept = match short {
                        Short::Pool => {
                            self.open.set(lane, Rank::NOBODY);
                            Kept::Lane(lane)
                        }
                        Short::Host(need) => {
                            self.park(group, Quota::Host(need));
                            let (park, _) = self.groups[group as usize].parked.expect("it has just been parked");
                            self.called.set(park, Rank::NOBODY);
                            Kept::Park(park)
                        }
                    };
                    let of = &mut self.groups[elder as usize];
                    of.keeps = true;
                    if of.parked.is_some() {
                        self.host_elder = Some(elder);
                    } else {
                        let lane = self.teams[of.team as usize].lane;
                        self.lanes[lane as usize].elder = Some(elder);
                    }
                    let all = self.kept.entry(elder).or_default();
                    if !all.contains(&kept) {
                        all.push(kept);
                    }
                    return true;
                }
            }
        }
    }

    /// Who comes before this group, for which there is room.
    pub(super) fn before(&self, group: u32, limits: &Limits) -> Before {
        let of = &self.groups[group as usize];
        let (rank, lane, claim) = (of.rank(), self.teams[of.team as usize].lane, of.claim);
        let leaves = |slots: u32| limits.pools.has_room_for_both(claim.pool, claim.pool_slots, slots);
        for &at in &self.lanes_of[claim.pool.index()] {
            let slots = self.lanes[at as usize].pool_slots;
            if at == lane || leaves(slots) || !limits.pools.could_free(claim.pool, slots) {
                continue;
            }
            let Some(head) = self.head(at) else { continue };
            if let Some(quota) = limits.full_quota(&self.groups[head as usize].claim) {
                return Before::Stuck(head, Some(quota));
            }
            if self.groups[head as usize].rank() < rank && self.is_elder(head) {
                return Before::Elder(head, Short::Pool);
            }
        }
        let Some(first) = self.first_of_host().filter(|&first| self.groups[first as usize].rank() < rank) else {
            return Before::Nobody;
        };
        let Claim { pool, pool_slots, need: Some(needed), .. } = self.groups[first as usize].claim else {
            return Before::Nobody;
        };
        match limits.refusal(&self.groups[first as usize].claim) {
            Some(Refusal::PoolUnknown | Refusal::PoolTooSmall) => return Before::Stuck(first, None),
            Some(Refusal::Quota(quota @ (Quota::Run(_) | Quota::Task(_)))) => return Before::Stuck(first, Some(quota)),
            _ if !limits.reserves().could_hold(needed) => return Before::Stuck(first, None),
            Some(Refusal::PoolFull | Refusal::Quota(Quota::Host(_))) | None => {}
        }
        if !self.is_elder(first) {
            return Before::Nobody;
        }
        if let Some(need) = claim.need.filter(|&need| !limits.reserves().has_room_for_both(need, needed)) {
            return Before::Elder(first, Short::Host(need));
        }
        if pool == claim.pool && !leaves(pool_slots) {
            return Before::Elder(first, Short::Pool);
        }
        Before::Nobody
    }

    /// The best of a park, if it is an elder for whom the host has room now: where DAGs share, it might not be first in its lane, and
    /// find all taken once more.
    pub(super) fn elder_of_host(&self, park: u32, limits: &Limits) -> Option<u32> {
        let of = &self.parks[park as usize];
        let group = of.groups.best().filter(|_| self.is_fair && matches!(of.quota, Quota::Host(_)))?;
        let may_start = limits.refusal(&self.groups[group as usize].claim).is_none();
        (may_start && self.is_elder(group) && self.before(group, limits) == Before::Nobody).then_some(group)
    }

    /// The best of a lane, whether or not its pool has room.
    fn head(&self, lane: u32) -> Option<u32> {
        let team = self.lanes[lane as usize].teams.best()?;
        self.teams[team as usize].groups.best()
    }

    /// Whether the best of a group has waited for long enough.
    pub(super) fn is_elder(&self, group: u32) -> bool {
        let best = self.groups[group as usize].line.best();
        self.ageing.zip(best).is_some_and(|(ageing, best)| ageing.is_over(self.since[best.handle as usize]))
    }

    /// Who may keep nobody back goes where it waits for what keeps it.
    fn set_aside(&mut self, group: u32, quota: Option<Quota>, limits: &Limits) {
        let of = &self.groups[group as usize];
        let could_hold = of.claim.need.is_none_or(|need| limits.reserves().could_hold(need));
        match (of.parked, quota) {
            (Some((park, _)), None) if !could_hold => self.host_waits.set(park, Rank::NOBODY),
            _ => {
                self.leave_park(group);
                self.list(group);
            }
        }
        if let Some(quota) = quota {
            self.park(group, quota);
        }
    }

    /// Another one may be the best of a lane now, and who was an elder there is none.
    pub(super) fn look_at_elder(&mut self, lane: u32) {
        if let Some(elder) = self.lanes[lane as usize].elder.filter(|&elder| self.head(lane) != Some(elder)) {
            self.let_go(elder);
        }
    }

    /// The best of a park of those who wait for the host has changed.
    pub(super) fn set_host_wait(&mut self, park: u32, rank: Rank) {
        self.host_waits.set(park, rank);
        if let Some(elder) = self.host_elder.filter(|_| self.first_of_host() != self.host_elder) {
            self.let_go(elder);
        }
    }

    fn first_of_host(&self) -> Option<u32> {
        self.host_waits.best().and_then(|park| self.parks[park as usize].groups.best())
    }

    /// A run is full now: whoever of it others are kept back for cannot start, nor can who was kept back, before those behind him.
    pub(super) fn pass_over_run(&mut self, run: RunIx) {
        for (_, group) in self.groups_of[run.index()].clone() {
            self.let_go(group);
            let lane = self.teams[self.groups[group as usize].team as usize].lane;
            self.open.set(lane, self.lanes[lane as usize].teams.best_rank());
        }
    }

    /// A limit is lower than it was, and may hold back who is an elder, or who is kept back.
    pub(super) fn let_all_go(&mut self) {
        while let Some((&group, _)) = self.kept.first_key_value() {
            self.let_go(group);
        }
    }

    /// Who was kept back for a group takes part again.
    pub(super) fn let_go(&mut self, group: u32) {
        let of = &mut self.groups[group as usize];
        of.keeps = false;
        let lane = self.teams[of.team as usize].lane;
        self.lanes[lane as usize].elder.take_if(|elder| *elder == group);
        self.host_elder.take_if(|elder| *elder == group);
        for kept in self.kept.remove(&group).unwrap_or_default() {
            match kept {
                Kept::Lane(lane) => self.open.set(lane, self.lanes[lane as usize].teams.best_rank()),
                Kept::Park(park) => self.show(park),
            }
        }
    }
}
