//! Who starts next: the instances that wait for a slot, in Airflow's order, under the limits (SEMANTICS 9).
//!
//! Instances of one run that want the same number of slots of the same pool are a *group*, a line of its own; groups with the
//! same pool and number of slots are a *lane*, where their heads compete; the best of the lanes compete for the next start. A full
//! run takes its groups out of their lanes, a full pool takes its lanes out of the queue, until [`Limits`] says that there is room
//! again. So what is blocked costs nothing, and one decision costs O(log n). Knows no states and no names; a handle is the world's.

use std::collections::BTreeMap;

use jiff::Timestamp;

use self::line::Line;
use self::tournament::Tournament;
use super::pools::{Claim, Freed, Limits, PoolIx, RunIx};

mod line;
mod tournament;

/// An instance in state `scheduled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Dense, the world's own number of the instance.
    pub handle: u32,
    pub claim: Claim,
    /// Effective (SEMANTICS 10). Higher first.
    pub priority_weight: i64,
    /// Of its run, the same for all of a run's candidates. Null first, then the earlier one.
    pub logical_date: Option<Timestamp>,
    /// Lower first.
    pub map_index: i32,
    /// The task's place in its DAG: the last tie-break, lower first.
    pub order: u32,
}

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
    /// Its run has as many active instances as may be.
    MaxActiveTasks {
        limit: u32,
    },
    /// It may start; others come first.
    NotItsTurn,
}

/// Where something stands in the order: the lowest comes first.
///
/// Weight, logical date, map index and task, each mapped to an unsigned number of the same order, so that comparing two is
/// comparing three words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    weight: u64,
    logical_date: u64,
    place: u64,
}

impl Rank {
    /// Behind all others: no instance has it, since no logical date lies so late.
    const NOBODY: Self = Self { weight: u64::MAX, logical_date: u64::MAX, place: u64::MAX };
}

/// The order of numbers with a sign as the order of numbers without.
const fn unsigned(number: i64) -> u64 {
    number.cast_unsigned() ^ (1 << 63)
}

/// An instance in the line of its group. Least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// As in [`Rank`].
    weight: u64,
    place: u64,
    handle: u32,
    generation: u32,
}

impl Entry {
    fn new(candidate: &Candidate, generation: u32) -> Self {
        let map_index = (candidate.map_index.cast_unsigned() ^ (1 << 31)) as u64;
        Self {
            weight: !unsigned(candidate.priority_weight),
            place: map_index << 32 | u64::from(candidate.order),
            handle: candidate.handle,
            generation,
        }
    }
}

#[derive(Debug)]
struct Group {
    claim: Claim,
    lane: u32,
    /// In its lane.
    seat: u32,
    /// As in [`Rank`].
    logical_date: u64,
    line: Line,
    /// Entries in the line whose instance no longer waits. The best one always does.
    stale: u32,
}

impl Group {
    /// Of the best of its instances.
    fn rank(&self) -> Rank {
        self.line.best().map_or(Rank::NOBODY, |&Entry { weight, place, .. }| Rank {
            weight,
            logical_date: self.logical_date,
            place,
        })
    }
}

#[derive(Debug)]
struct Lane {
    pool: PoolIx,
    pool_slots: u32,
    /// By seat.
    groups: Vec<u32>,
    free_seats: Vec<u32>,
    /// Of each seat, its group's best; nobody while its run is full.
    seats: Tournament,
}

/// Where a handle waits.
#[derive(Clone, Copy, Debug)]
struct Place {
    group: u32,
    /// Of its newest entry: older ones in the line are stale.
    generation: u32,
}

const NOWHERE: u32 = u32::MAX;

/// All instances that wait for a slot.
#[derive(Debug, Default)]
pub struct ReadyQueue {
    places: Vec<Place>,
    groups: Vec<Group>,
    free_groups: Vec<u32>,
    /// By run: its lanes, in order, and its group in each.
    groups_of: Vec<Vec<(u32, u32)>>,
    lanes: Vec<Lane>,
    lane_of: BTreeMap<(PoolIx, u32), u32>,
    /// By pool.
    lanes_of: Vec<Vec<u32>>,
    /// Of each lane, its best; nobody while its pool is full.
    open: Tournament,
    len: usize,
}

impl ReadyQueue {
    /// Instances that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn contains(&self, handle: u32) -> bool {
        self.places.get(handle as usize).is_some_and(|place| place.group != NOWHERE)
    }

    /// An instance begins to wait. If it waits already, its new claim and weight replace the old ones.
    pub fn insert(&mut self, candidate: Candidate) {
        self.remove(candidate.handle);
        let at = candidate.handle as usize;
        if self.places.len() <= at {
            self.places.resize(at + 1, Place { group: NOWHERE, generation: 0 });
        }
        let group = self.group(&candidate);
        let place = &mut self.places[at];
        place.group = group;
        place.generation = place.generation.wrapping_add(1);
        let entry = Entry::new(&candidate, place.generation);
        self.len += 1;
        let line = &mut self.groups[group as usize].line;
        let is_best = line.best().is_none_or(|best| entry < *best);
        line.push(entry);
        if is_best {
            self.list(group);
        }
    }

    /// An instance waits no longer. Says whether it did.
    pub fn remove(&mut self, handle: u32) -> bool {
        if !self.contains(handle) {
            return false;
        }
        let group = std::mem::replace(&mut self.places[handle as usize].group, NOWHERE);
        self.len -= 1;
        let of = &mut self.groups[group as usize];
        of.stale += 1;
        let is_best = of.line.best().is_some_and(|best| best.handle == handle);
        if of.stale as usize * 2 > of.line.len() {
            let places = &self.places;
            of.line.retain(|entry| is_waiting(places, group, entry));
            of.stale = 0;
        }
        if is_best || of.line.is_empty() {
            self.settle(group);
        }
        true
    }

    /// Drops all that waits of a run, because it is over or paused. Returns how many.
    pub fn remove_run(&mut self, run: RunIx) -> usize {
        let before = self.len;
        while let Some(&(_, group)) = self.groups_of.get(run.index()).and_then(|groups| groups.last()) {
            for entry in self.groups[group as usize].line.drain() {
                if is_waiting(&self.places, group, &entry) {
                    self.places[entry.handle as usize].group = NOWHERE;
                    self.len -= 1;
                }
            }
            self.groups[group as usize].stale = 0;
            self.settle(group);
        }
        before - self.len
    }

    /// The next instance that may start now, if there is one, and what it holds (as queued) from then on.
    pub fn take(&mut self, limits: &mut Limits) -> Option<(u32, Claim)> {
        while let Some(freed) = limits.take_freed() {
            match freed {
                Freed::Pool(pool) => self.unblock_pool(pool, limits),
                Freed::Run(run) => self.unblock_run(run),
            }
        }
        if !limits.has_free_slot() {
            return None;
        }
        while let Some(at) = self.open.best() {
            let lane = &mut self.lanes[at as usize];
            if !limits.pools.has_room(lane.pool, lane.pool_slots) {
                self.open.set(at, Rank::NOBODY);
                continue;
            }
            let seat = lane.seats.best().expect("a lane is open as long as one of its groups has a head");
            let group = lane.groups[seat as usize];
            let claim = self.groups[group as usize].claim;
            if limits.has_room_in_run(claim.run) {
                limits.occupy(claim);
                return Some((self.pop(group), claim));
            }
            lane.seats.set(seat, Rank::NOBODY);
            self.open.set(at, lane.seats.best_rank());
        }
        None
    }

    /// Why an instance has not started; null if it does not wait here.
    pub fn why_not(&self, handle: u32, limits: &Limits) -> Option<NotStarted> {
        if !self.contains(handle) {
            return None;
        }
        let claim = self.groups[self.places[handle as usize].group as usize].claim;
        let Claim { run, pool, pool_slots: needed } = claim;
        Some(match limits.pools.total(pool) {
            None => NotStarted::PoolUnknown { pool },
            Some(slots) if slots >= 0 && i64::from(needed) > slots => NotStarted::PoolTooSmall { pool, slots, needed },
            _ if !limits.has_free_slot() => NotStarted::ParallelismFull { parallelism: limits.parallelism() },
            _ if !limits.pools.has_room(pool, needed) => {
                NotStarted::PoolFull { pool, open: limits.pools.open(pool), needed }
            }
            _ if !limits.has_room_in_run(run) => NotStarted::MaxActiveTasks { limit: limits.max_active_tasks(run) },
            _ => NotStarted::NotItsTurn,
        })
    }

    /// The group of a candidate, made if there is none.
    fn group(&mut self, candidate: &Candidate) -> u32 {
        let claim = candidate.claim;
        let lane = self.lane(claim.pool, claim.pool_slots);
        if self.groups_of.len() <= claim.run.index() {
            self.groups_of.resize(claim.run.index() + 1, Vec::new());
        }
        let siblings = &mut self.groups_of[claim.run.index()];
        let at = match siblings.binary_search_by_key(&lane, |sibling| sibling.0) {
            Ok(found) => return siblings[found].1,
            Err(at) => at,
        };
        let group = self.free_groups.pop().unwrap_or(self.groups.len() as u32);
        siblings.insert(at, (lane, group));
        let of = &mut self.lanes[lane as usize];
        let seat = of.free_seats.pop().unwrap_or(of.groups.len() as u32);
        match of.groups.get_mut(seat as usize) {
            Some(place) => *place = group,
            None => of.groups.push(group),
        }
        let logical_date = unsigned(candidate.logical_date.map_or(i64::MIN, Timestamp::as_microsecond));
        match self.groups.get_mut(group as usize) {
            Some(free) => {
                let line = std::mem::take(&mut free.line);
                *free = Group { claim, lane, seat, logical_date, line, stale: 0 };
            }
            None => self.groups.push(Group { claim, lane, seat, logical_date, line: Line::default(), stale: 0 }),
        }
        group
    }

    fn lane(&mut self, pool: PoolIx, pool_slots: u32) -> u32 {
        *self.lane_of.entry((pool, pool_slots)).or_insert_with(|| {
            let lane = self.lanes.len() as u32;
            let seats = Tournament::default();
            self.lanes.push(Lane { pool, pool_slots, groups: Vec::new(), free_seats: Vec::new(), seats });
            if self.lanes_of.len() <= pool.index() {
                self.lanes_of.resize(pool.index() + 1, Vec::new());
            }
            self.lanes_of[pool.index()].push(lane);
            lane
        })
    }

    fn pop(&mut self, group: u32) -> u32 {
        let entry = self.groups[group as usize].line.pop().expect("a listed group has a head that waits");
        self.places[entry.handle as usize].group = NOWHERE;
        self.len -= 1;
        self.settle(group);
        entry.handle
    }

    /// Lets the best of a group be one that waits, and tells its lane. A group without one is given up.
    fn settle(&mut self, group: u32) {
        let of = &mut self.groups[group as usize];
        while of.stale > 0 && of.line.best().is_some_and(|best| !is_waiting(&self.places, group, best)) {
            of.line.pop();
            of.stale -= 1;
        }
        self.list(group);
        if self.groups[group as usize].line.is_empty() {
            self.give_up(group);
        }
    }

    /// Tells the lane of a group its best, and the queue the lane's.
    fn list(&mut self, group: u32) {
        let of = &self.groups[group as usize];
        let seats = &mut self.lanes[of.lane as usize].seats;
        seats.set(of.seat, of.rank());
        self.open.set(of.lane, seats.best_rank());
    }

    fn give_up(&mut self, group: u32) {
        let of = &mut self.groups[group as usize];
        of.line.shrink();
        self.lanes[of.lane as usize].free_seats.push(of.seat);
        let siblings = &mut self.groups_of[of.claim.run.index()];
        siblings.retain(|sibling| sibling.1 != group);
        self.free_groups.push(group);
    }

    fn unblock_pool(&mut self, pool: PoolIx, limits: &Limits) {
        let Some(lanes) = self.lanes_of.get(pool.index()) else { return };
        for &at in lanes {
            let lane = &self.lanes[at as usize];
            if limits.pools.has_room(pool, lane.pool_slots) {
                self.open.set(at, lane.seats.best_rank());
            }
        }
    }

    fn unblock_run(&mut self, run: RunIx) {
        let groups = self.groups_of.get(run.index()).map_or(0, Vec::len);
        for at in 0..groups {
            self.list(self.groups_of[run.index()][at].1);
        }
    }
}

fn is_waiting(places: &[Place], group: u32, entry: &Entry) -> bool {
    let place = places[entry.handle as usize];
    place.group == group && place.generation == entry.generation
}

#[cfg(test)]
mod tests;
