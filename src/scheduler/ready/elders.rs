//! For whom others are kept back, so that nobody waits for ever (`scheduler.priority_ageing`).
//!
//! Weights that grow bring everybody to the front in time, but who wants several slots of a pool, or much of the host, finds them taken
//! there by whoever wants less, again and again. So who has waited for an interval, and is kept by his pool alone or by the host, is an
//! *elder*: nothing behind him in the order of weights starts that would not leave him what he wants of the pool, nor, if he is first of
//! those that need some of the host and his pool has room for him, what he needs of that. Of a pool he is the best of a lane; of those
//! that need some of the host, the best of all ([`HostLine`](super::host_line::HostLine)). What is deferred may stay so for days, and is
//! not counted upon; who could never start is no elder.
//!
//! Who is kept back is taken out of the queue, with all those behind him that want as many slots of the same pool, until a slot, or some
//! of the host, comes free, or his elder moves. Who keeps
//! whom back follows from what waits and what is held alone, so that a restart changes nothing about it.

use super::host_line::Bar;
use super::order::Rank;
use super::{Group, Quota, ReadyQueue};
use crate::scheduler::pools::{Claim, Limits};
use crate::scheduler::reserves::NeedIx;

/// What takes no part while others are kept back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Lane(u32),
    Park(u32),
}

impl Kept {
    fn lane(self) -> Option<u32> {
        if let Self::Lane(lane) = self { Some(lane) } else { None }
    }
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
    /// This group would, but its run, its task or the host has no room for it.
    Stuck(u32, Quota),
    /// This group would, but it is kept back itself: it would leave this elder too little of the host.
    Behind(u32, u32, NeedIx),
    /// The first of those that need some of the host would, but this is in its way.
    Barred(Bar),
    Elder(u32, Short),
}

/// What keeps one that needs some of the host for good, or within its run.
fn bar_of(claim: &Claim, limits: &Limits) -> Option<Bar> {
    let never = claim.need.filter(|&need| !limits.reserves().could_hold(need));
    match limits.full_quota(claim) {
        Some(quota @ (Quota::Run(_) | Quota::Task(_))) => Some(Bar::Quota(quota)),
        _ if !limits.pools.could_free(claim.pool, claim.pool_slots) => Some(Bar::Pool(claim.pool, claim.pool_slots)),
        _ => never.map(|need| Bar::Quota(Quota::Host(need))),
    }
}

impl ReadyQueue {
    /// The first of those that need some of the host.
    fn first_of_host(&mut self, limits: &Limits) -> Option<u32> {
        loop {
            let first = self.host_line.first()?;
            match bar_of(&self.groups[first as usize].claim, limits) {
                Some(bar) => self.host_line.bar_first(bar),
                None => return Some(first),
            }
        }
    }

    /// That one, if it is an elder and may start: where DAGs share, it might not be first in its lane, and find all taken once more.
    pub(super) fn elder_of_host(&mut self, limits: &Limits) -> Option<u32> {
        let first = self.first_of_host(limits)?;
        let may_start = limits.refusal(&self.groups[first as usize].claim).is_none();
        (may_start && self.is_elder(first) && self.ask_before(first, limits).is_none()).then_some(first)
    }

    /// Takes a group out of the queue if an elder comes before it. Says whether it has.
    pub(super) fn keep_back(&mut self, lane: u32, group: u32, limits: &Limits) -> bool {
        let Some((elder, short)) = self.ask_before(group, limits) else { return false };
        match short {
            Short::Pool => {
                self.open.set(lane, Rank::NOBODY);
                self.note_kept(elder, Kept::Lane(lane));
            }
            Short::Host(need) => self.keep_for_host(group, elder, need),
        }
        true
    }

    /// A group waits until the elder has got what he needs of the host.
    fn keep_for_host(&mut self, group: u32, elder: u32, need: NeedIx) {
        self.park(group, Quota::Host(need));
        let (park, _) = self.groups[group as usize].parked.expect("it has just been parked");
        // Another one there may come before the elder.
        if self.parks[park as usize].groups.best() == Some(group) {
            self.called.set(park, Rank::NOBODY);
        }
        self.note_kept(elder, Kept::Park(park));
    }

    fn note_kept(&mut self, elder: u32, kept: Kept) {
        let of = &mut self.groups[elder as usize];
        of.keeps = true;
        let lane = self.teams[of.team as usize].lane;
        if self.head(lane) == Some(elder) {
            self.lanes[lane as usize].elder = Some(elder);
        }
        if self.host_line.first() == Some(elder) {
            self.host_elder = Some(elder);
        }
        let all = self.kept.entry(elder).or_default();
        if !all.contains(&kept) {
            all.push(kept);
        }
    }

    /// The elder before this group, for which there is room, and of what he would be left too little. Who may keep nobody back goes
    /// where it waits for what keeps it.
    fn ask_before(&mut self, group: u32, limits: &Limits) -> Option<(u32, Short)> {
        loop {
            match self.before(group, limits) {
                Before::Nobody => return None,
                Before::Elder(elder, short) => return Some((elder, short)),
                Before::Stuck(other, quota) => {
                    self.leave_park(other);
                    self.list(other);
                    self.park(other, quota);
                }
                Before::Behind(other, elder, need) => self.keep_for_host(other, elder, need),
                Before::Barred(bar) => self.host_line.bar_first(bar),
            }
        }
    }

    /// Who comes before this group, for which there is room.
    pub(super) fn before(&self, group: u32, limits: &Limits) -> Before {
        let of = &self.groups[group as usize];
        let (rank, lane, claim) = (of.rank(), self.teams[of.team as usize].lane, of.claim);
        let first = self.host_line.first();
        if let Some(bar) = first.and_then(|first| bar_of(&self.groups[first as usize].claim, limits)) {
            return Before::Barred(bar);
        }
        let first = first.filter(|&first| self.is_elder(first));
        if let Some((elder, need)) = first.and_then(|first| self.lacks_host(group, first, limits)) {
            return Before::Elder(elder, Short::Host(need));
        }
        let leaves = |slots: u32| limits.pools.has_room_for_both(claim.pool, claim.pool_slots, slots);
        for &at in &self.lanes_of[claim.pool.index()] {
            let slots = self.lanes[at as usize].pool_slots;
            if at == lane || leaves(slots) || !limits.pools.could_free(claim.pool, slots) {
                continue;
            }
            let Some(head) = self.head(at) else { continue };
            if let Some(quota) = limits.full_quota(&self.groups[head as usize].claim) {
                return Before::Stuck(head, quota);
            }
            if let Some((elder, need)) = first.and_then(|first| self.lacks_host(head, first, limits)) {
                return Before::Behind(head, elder, need);
            }
            if self.groups[head as usize].rank() < rank && self.is_elder(head) {
                return Before::Elder(head, Short::Pool);
            }
        }
        let is_short = |first: &u32| {
            let Group { claim: Claim { pool, pool_slots, .. }, .. } = self.groups[*first as usize];
            self.groups[*first as usize].rank() < rank && pool == claim.pool && !leaves(pool_slots)
        };
        first.filter(is_short).map_or(Before::Nobody, |first| Before::Elder(first, Short::Pool))
    }

    /// Whether a group would leave too little of the host to the first of those that need some: that one, and what the group needs
    /// itself. As long as his pool is full he has no use for the host.
    fn lacks_host(&self, group: u32, first: u32, limits: &Limits) -> Option<(u32, NeedIx)> {
        let (of, wanted) = (&self.groups[group as usize], &self.groups[first as usize]);
        let (need, needed) = of.claim.need.zip(wanted.claim.need)?;
        let comes_before =
            wanted.rank() < of.rank() && limits.pools.has_room(wanted.claim.pool, wanted.claim.pool_slots);
        (comes_before && !limits.reserves().has_room_for_both(need, needed)).then_some((first, need))
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

    /// Another one may be the best of a lane now, and who was an elder there is none.
    pub(super) fn look_at_elder(&mut self, lane: u32) {
        if let Some(elder) = self.lanes[lane as usize].elder.filter(|&elder| self.head(lane) != Some(elder)) {
            self.let_go(elder);
        }
    }

    /// One that needs some of the host has another rank.
    pub(super) fn line_up(&mut self, group: u32, rank: Rank) {
        self.host_line.set(group, rank);
        self.look_at_host_elder();
    }

    /// Another one may be the first of those that need some of the host.
    pub(super) fn look_at_host_elder(&mut self) {
        if let Some(elder) = self.host_elder.filter(|_| self.host_line.first() != self.host_elder) {
            self.let_go(elder);
        }
    }

    /// What waits and what is held may be another by now: an elder whom something else keeps keeps nobody back, and who was kept back
    /// and could not start now, nobody behind him.
    pub(super) fn look_again(&mut self, limits: &Limits) {
        let first = self.first_of_host(limits);
        self.look_at_host_elder();
        let first = first.filter(|&first| self.is_elder(first));
        let elders: Vec<u32> = self.kept.keys().copied().collect();
        for elder in elders {
            let Group { claim, team, .. } = self.groups[elder as usize];
            let is_head = self.lanes[self.teams[team as usize].lane as usize].elder == Some(elder);
            let keeps_pool = limits.full_quota(&claim).is_none()
                && limits.pools.could_free(claim.pool, claim.pool_slots)
                && first.is_none_or(|first| self.lacks_host(elder, first, limits).is_none());
            let keeps_host = limits.pools.has_room(claim.pool, claim.pool_slots);
            if (is_head && !keeps_pool) || (self.host_elder == Some(elder) && !keeps_host) {
                self.let_go(elder);
                continue;
            }
            for lane in self.kept[&elder].iter().filter_map(|kept| kept.lane()) {
                let head = self.head(lane).map(|head| &self.groups[head as usize].claim);
                if head.is_some_and(|claim| limits.full_quota(claim).is_some()) {
                    self.open.set(lane, self.lanes[lane as usize].teams.best_rank());
                }
            }
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
