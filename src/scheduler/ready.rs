//! Who starts next: the instances that wait for a slot, in Airflow's order, under the limits (SEMANTICS 9).
//!
//! Instances of one run that want the same number of slots of the same pool are a *group*, a heap of its own; groups with the
//! same pool and number of slots are a *lane*. A full run takes its groups out of their lanes, a full pool takes its lanes out of
//! the queue, until [`Limits`] says that there is room again. So what is blocked costs nothing, and one decision costs
//! O(log n). Knows no states and no names; a handle is the world's.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use jiff::Timestamp;

use super::pools::{Claim, Freed, Limits, PoolIx, RunIx};

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

/// Greatest first: this is the order of a max-heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    priority_weight: i64,
    map_index: Reverse<i32>,
    order: Reverse<u32>,
    handle: Reverse<u32>,
    generation: u32,
}

/// The best of a group or of a lane. Least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    priority_weight: Reverse<i64>,
    /// In microseconds, as instants are kept; null is the least.
    logical_date: i64,
    map_index: i32,
    order: u32,
    group: u32,
}

#[derive(Debug)]
struct Group {
    claim: Claim,
    lane: u32,
    logical_date: i64,
    heap: BinaryHeap<Entry>,
    /// Entries in the heap whose instance no longer waits.
    stale: u32,
    /// Its head as its lane knows it; null while its run is full.
    listed: Option<Head>,
}

#[derive(Debug, Default)]
struct Lane {
    pool_slots: u32,
    heads: BTreeSet<Head>,
    /// Its best head as the queue knows it; null while its pool is full.
    listed: Option<Head>,
}

/// Where a handle waits.
#[derive(Clone, Copy, Debug)]
struct Place {
    group: u32,
    /// Of its newest entry: older ones in the heap are stale.
    generation: u32,
}

const NOWHERE: u32 = u32::MAX;

/// All instances that wait for a slot.
#[derive(Debug, Default)]
pub struct ReadyQueue {
    places: Vec<Place>,
    groups: Vec<Group>,
    free_groups: Vec<u32>,
    /// Of each run, its groups by lane.
    group_of: BTreeMap<(RunIx, u32), u32>,
    lanes: Vec<Lane>,
    lane_of: BTreeMap<(PoolIx, u32), u32>,
    /// By pool.
    lanes_of: Vec<Vec<u32>>,
    /// The best of each lane whose pool is not known to be full, with the lane.
    open: BTreeSet<(Head, u32)>,
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
        let entry = Entry {
            priority_weight: candidate.priority_weight,
            map_index: Reverse(candidate.map_index),
            order: Reverse(candidate.order),
            handle: Reverse(candidate.handle),
            generation: place.generation,
        };
        self.len += 1;
        let heap = &mut self.groups[group as usize].heap;
        let is_best = heap.peek().is_none_or(|best| entry > *best);
        heap.push(entry);
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
        let is_best = of.heap.peek().is_some_and(|best| best.handle.0 == handle);
        if of.stale as usize * 2 > of.heap.len() {
            let places = &self.places;
            of.heap.retain(|entry| is_waiting(places, group, entry));
            of.stale = 0;
        }
        if is_best || of.heap.is_empty() {
            self.list(group);
        }
        true
    }

    /// Drops all that waits of a run, because it is over or paused. Returns how many.
    pub fn remove_run(&mut self, run: RunIx) -> usize {
        let groups: Vec<u32> = self.group_of.range((run, 0)..=(run, u32::MAX)).map(|(_, &group)| group).collect();
        let before = self.len;
        for group in groups {
            for entry in std::mem::take(&mut self.groups[group as usize].heap) {
                if is_waiting(&self.places, group, &entry) {
                    self.places[entry.handle.0 as usize].group = NOWHERE;
                    self.len -= 1;
                }
            }
            self.list(group);
        }
        before - self.len
    }

    /// The next instance that may start now, if there is one. It holds its slots (as queued) from then on.
    pub fn take(&mut self, limits: &mut Limits) -> Option<u32> {
        while let Some(freed) = limits.take_freed() {
            match freed {
                Freed::Pool(pool) => self.unblock_pool(pool, limits),
                Freed::Run(run) => self.unblock_run(run),
            }
        }
        if !limits.has_free_slot() {
            return None;
        }
        while let Some(&(head, lane)) = self.open.first() {
            let claim = self.groups[head.group as usize].claim;
            if !limits.pools.has_room(claim.pool, claim.pool_slots) {
                self.open.pop_first();
                self.lanes[lane as usize].listed = None;
            } else if !limits.has_room_in_run(claim.run) {
                self.lanes[lane as usize].heads.remove(&head);
                self.groups[head.group as usize].listed = None;
                self.list_lane(lane);
            } else {
                limits.occupy(claim);
                return Some(self.pop(head.group));
            }
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
        let lane = *self.lane_of.entry((claim.pool, claim.pool_slots)).or_insert_with(|| {
            let lane = self.lanes.len() as u32;
            self.lanes.push(Lane { pool_slots: claim.pool_slots, ..Lane::default() });
            if self.lanes_of.len() <= claim.pool.index() {
                self.lanes_of.resize(claim.pool.index() + 1, Vec::new());
            }
            self.lanes_of[claim.pool.index()].push(lane);
            lane
        });
        *self.group_of.entry((claim.run, lane)).or_insert_with(|| {
            let group = Group {
                claim,
                lane,
                logical_date: candidate.logical_date.map_or(i64::MIN, Timestamp::as_microsecond),
                heap: BinaryHeap::new(),
                stale: 0,
                listed: None,
            };
            match self.free_groups.pop() {
                Some(free) => {
                    self.groups[free as usize] = group;
                    free
                }
                None => {
                    self.groups.push(group);
                    self.groups.len() as u32 - 1
                }
            }
        })
    }

    fn pop(&mut self, group: u32) -> u32 {
        let entry = self.groups[group as usize].heap.pop().expect("a listed group has a head that waits");
        self.places[entry.handle.0 as usize].group = NOWHERE;
        self.len -= 1;
        self.list(group);
        entry.handle.0
    }

    /// Tells the lane of a group its head now. A group without one is given up.
    fn list(&mut self, group: u32) {
        let of = &mut self.groups[group as usize];
        while of.heap.peek().is_some_and(|best| !is_waiting(&self.places, group, best)) {
            of.heap.pop();
            of.stale -= 1;
        }
        let head = of.heap.peek().map(|best| Head {
            priority_weight: Reverse(best.priority_weight),
            logical_date: of.logical_date,
            map_index: best.map_index.0,
            order: best.order.0,
            group,
        });
        let lane = of.lane;
        let listed = std::mem::replace(&mut of.listed, head);
        if head.is_none() {
            self.group_of.remove(&(of.claim.run, lane));
            of.heap = BinaryHeap::new();
            of.stale = 0;
            self.free_groups.push(group);
        }
        if listed != head {
            let heads = &mut self.lanes[lane as usize].heads;
            if let Some(old) = listed {
                heads.remove(&old);
            }
            heads.extend(head);
            self.list_lane(lane);
        }
    }

    /// Tells the queue the best head of a lane now.
    fn list_lane(&mut self, lane: u32) {
        let of = &mut self.lanes[lane as usize];
        let head = of.heads.first().copied();
        let listed = std::mem::replace(&mut of.listed, head);
        if listed != head {
            if let Some(old) = listed {
                self.open.remove(&(old, lane));
            }
            self.open.extend(head.map(|head| (head, lane)));
        }
    }

    fn unblock_pool(&mut self, pool: PoolIx, limits: &Limits) {
        let Some(lanes) = self.lanes_of.get(pool.index()) else { return };
        for at in 0..lanes.len() {
            let lane = self.lanes_of[pool.index()][at];
            let of = &self.lanes[lane as usize];
            if of.listed.is_none() && limits.pools.has_room(pool, of.pool_slots) {
                self.list_lane(lane);
            }
        }
    }

    fn unblock_run(&mut self, run: RunIx) {
        let groups: Vec<u32> = self.group_of.range((run, 0)..=(run, u32::MAX)).map(|(_, &group)| group).collect();
        for group in groups {
            self.list(group);
        }
    }
}

fn is_waiting(places: &[Place], group: u32, entry: &Entry) -> bool {
    let place = places[entry.handle.0 as usize];
    place.group == group && place.generation == entry.generation
}

#[cfg(test)]
mod tests;
