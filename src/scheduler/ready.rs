//! Who starts next: the instances that wait for a slot, in Airflow's order, under the limits (SEMANTICS 9).
//!
//! Instances of one run that want the same number of slots of the same pool, and have the same limits on their task and the same needs, are a *group*,
//! a line of its own; groups with the same pool and number of slots are a *lane*, where their heads compete; the best of the lanes
//! compete for the next start. A full pool takes its lanes out of the queue. Whose turn has come, but whose run or task has no room, or the host,
//! is *parked* there with its group; once there is room, those parked compete with the lanes for it, and only the best goes back. So
//! what is blocked costs nothing, and one decision costs O(log n). Knows no states and no names; a handle is the world's.
//!
//! Between a lane and its groups stand *teams*: without `scheduler.fair_share` one for all groups; with it one for each DAG, and the team
//! whose DAG holds the fewest slots of the pool comes first. A park then belongs to one team, so that no number of slots that changes
//! moves more than a few teams. With `scheduler.priority_ageing` the order is that of weights that grow (`order`), and who has waited for
//! long enough may keep others back (`elders`).

use std::collections::BTreeMap;

use jiff::Timestamp;

use self::contest::Contest;
use self::elders::Kept;
use self::host_line::{Bar, HostLine};
use self::line::Line;
use self::order::{Ageing, Entry, Rank, unsigned};
use self::tournament::Tournament;
use super::pools::{Claim, Freed, Limits, PoolIx, Quota, RunIx, TaskLimitIx};
use super::reserves::NeedIx;

pub use self::order::Choosing;
pub use self::why::{Elder, NotStarted, Rival};

mod contest;
mod elders;
mod host_line;
mod line;
mod order;
mod pass;
mod tournament;
mod why;

/// An instance in state `scheduled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Dense, the world's own number of the instance.
    pub handle: u32,
    pub claim: Claim,
    /// The world's number of its DAG.
    pub dag: u32,
    /// Since when it waits for a slot.
    pub since: Timestamp,
    /// Effective (SEMANTICS 10). Higher first.
    pub priority_weight: i64,
    /// Of its run, the same for all of a run's candidates. Null first, then the earlier one.
    pub logical_date: Option<Timestamp>,
    /// Lower first.
    pub map_index: i32,
    /// The task's place in its DAG: the last tie-break, lower first.
    pub order: u32,
}

#[derive(Debug)]
struct Group {
    claim: Claim,
    team: u32,
    /// In its team.
    seat: u32,
    /// The park where it competes instead, and its seat there.
    parked: Option<(u32, u32)>,
    /// The park that has lent it back to its team, if that lends one at a time.
    lent_by: Option<u32>,
    /// Others are kept back for it: [`ReadyQueue::kept`] says who.
    keeps: bool,
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
            share: 0,
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
    teams: Contest,
    /// Its best while others are kept back for it.
    elder: Option<u32>,
}

/// Groups of a lane that share its slots: those of one DAG if DAGs share them, else all.
#[derive(Debug)]
struct Team {
    lane: u32,
    dag: u32,
    /// In its lane.
    seat: u32,
    /// The slots of the pool that the DAG holds; 0 if nobody asks.
    share: u64,
    /// Those that are parked do not compete.
    groups: Contest,
}

/// Groups whose turn had come when there was no room for them.
#[derive(Debug)]
struct Park {
    quota: Quota,
    groups: Contest,
    /// The group that has gone back to its team and has not started: no other follows it meanwhile, if DAGs share.
    lent: Option<u32>,
}

/// Where a handle waits.
#[derive(Clone, Copy, Debug)]
struct Place {
    group: u32,
    /// Of its newest entry: older ones in the line are stale.
    generation: u32,
}

const NOWHERE: u32 = u32::MAX;
/// The team of a park that is for all.
const ALL_TEAMS: u32 = u32::MAX;

/// Of the groups of one run: the lane, the limit of the task, and what it needs of the host.
type GroupKey = (u32, Option<TaskLimitIx>, Option<NeedIx>);

/// All instances that wait for a slot.
#[derive(Debug, Default)]
pub struct ReadyQueue {
    /// DAGs share the slots of a pool.
    is_fair: bool,
    ageing: Option<Ageing>,
    /// By handle, in milliseconds, since when it waits; empty without ageing.
    since: Vec<i64>,
    places: Vec<Place>,
    groups: Vec<Group>,
    free_groups: Vec<u32>,
    /// By run, in order of the keys.
    groups_of: Vec<Vec<(GroupKey, u32)>>,
    lanes: Vec<Lane>,
    lane_of: BTreeMap<(PoolIx, u32), u32>,
    /// By pool.
    lanes_of: Vec<Vec<u32>>,
    teams: Vec<Team>,
    /// By lane and DAG.
    team_of: BTreeMap<(u32, u32), u32>,
    /// Teams of which nobody has yet asked how many slots their DAGs hold.
    new_teams: Vec<u32>,
    /// Of each lane, its best; nobody while its pool is full.
    open: Tournament,
    parks: Vec<Park>,
    /// By quota and team.
    park_of: BTreeMap<(Quota, u32), u32>,
    /// Of each park, its best; nobody while there is no room.
    called: Tournament,
    /// With ageing, those that need some of the host.
    host_line: HostLine,
    /// The first of them while others are kept back for it.
    host_elder: Option<u32>,
    /// By group that keeps others back, what is kept from taking part.
    kept: BTreeMap<u32, Vec<Kept>>,
    len: usize,
}

impl ReadyQueue {
    /// One in which nobody waits.
    pub fn new(choosing: &Choosing) -> Self {
        Self { is_fair: choosing.fair_share, ageing: choosing.ageing.map(Ageing::new), ..Self::default() }
    }

    /// The instant of what is decided from now on. Only ageing asks for it.
    pub fn set_now(&mut self, now: Timestamp) {
        if let Some(ageing) = &mut self.ageing {
            ageing.set_now(now);
        }
    }

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
        let entry = Entry::new(&candidate, place.generation, self.ageing.as_ref());
        if self.ageing.is_some() {
            self.since.resize(self.places.len(), 0);
            self.since[at] = candidate.since.as_millisecond();
        }
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
        self.hear(limits);
        if !limits.has_free_slot() {
            return None;
        }
        loop {
            // Of what is equal the lanes decide. Where DAGs share, who is parked may keep others back that come before him.
            let may_overtake = self.is_fair && self.ageing.is_some();
            let is_called = may_overtake || self.called.best_rank() <= self.open.best_rank();
            if let Some(park) = self.called.best().filter(|_| is_called) {
                self.call(park, limits);
                continue;
            }
            if may_overtake && let Some(elder) = self.elder_of_host(limits) {
                return Some(self.start(elder, limits));
            }
            let at = self.open.best()?;
            let lane = &self.lanes[at as usize];
            if !limits.pools.has_room(lane.pool, lane.pool_slots) {
                self.open.set(at, Rank::NOBODY);
                continue;
            }
            let team = lane.teams.best().expect("a lane is open as long as one of its teams competes");
            let group =
                self.teams[team as usize].groups.best().expect("a team competes as long as one of its groups does");
            let claim = self.groups[group as usize].claim;
            if let Some(quota) = limits.full_quota(&claim) {
                self.park(group, quota);
                continue;
            }
            if self.ageing.is_some() && self.keep_back(at, group, limits) {
                continue;
            }
            return Some(self.start(group, limits));
        }
    }

    /// The best of a group starts, and holds its slots.
    fn start(&mut self, group: u32, limits: &mut Limits) -> (u32, Claim) {
        let claim = self.groups[group as usize].claim;
        limits.occupy(claim);
        (self.pop(group), claim)
    }

    /// Seats are given out from the first again. Does nothing while anybody waits.
    pub fn clear_seats(&mut self) {
        if self.len == 0 {
            self.lanes.iter_mut().for_each(|lane| lane.teams.clear());
            self.teams.clear();
            self.team_of.clear();
            self.new_teams.clear();
            self.parks.clear();
            self.park_of.clear();
            self.called = Tournament::default();
            self.host_line = HostLine::default();
        }
    }

    /// The group of a candidate, made if there is none.
    fn group(&mut self, candidate: &Candidate) -> u32 {
        let claim = candidate.claim;
        let lane = self.lane(claim.pool, claim.pool_slots);
        if self.groups_of.len() <= claim.run.index() {
            self.groups_of.resize(claim.run.index() + 1, Vec::new());
        }
        let siblings = &mut self.groups_of[claim.run.index()];
        let key = (lane, claim.task_limit, claim.need);
        let at = match siblings.binary_search_by_key(&key, |sibling| sibling.0) {
            Ok(found) => return siblings[found].1,
            Err(at) => at,
        };
        let group = self.free_groups.pop().unwrap_or(self.groups.len() as u32);
        siblings.insert(at, (key, group));
        let team = self.team(lane, if self.is_fair { candidate.dag } else { 0 });
        let seat = self.teams[team as usize].groups.join(group);
        let logical_date = unsigned(candidate.logical_date.map_or(i64::MIN, Timestamp::as_microsecond));
        let line = self.groups.get_mut(group as usize).map(|free| std::mem::take(&mut free.line)).unwrap_or_default();
        let (parked, lent_by, keeps, stale) = (None, None, false, 0);
        let new = Group { claim, team, seat, parked, lent_by, keeps, logical_date, line, stale };
        match self.groups.get_mut(group as usize) {
            Some(free) => *free = new,
            None => self.groups.push(new),
        }
        group
    }

    fn lane(&mut self, pool: PoolIx, pool_slots: u32) -> u32 {
        *self.lane_of.entry((pool, pool_slots)).or_insert_with(|| {
            let lane = self.lanes.len() as u32;
            self.lanes.push(Lane { pool, pool_slots, teams: Contest::default(), elder: None });
            if self.lanes_of.len() <= pool.index() {
                self.lanes_of.resize(pool.index() + 1, Vec::new());
            }
            self.lanes_of[pool.index()].push(lane);
            lane
        })
    }

    fn team(&mut self, lane: u32, dag: u32) -> u32 {
        if let Some(&team) = self.team_of.get(&(lane, dag)) {
            return team;
        }
        let team = self.teams.len() as u32;
        let seat = self.lanes[lane as usize].teams.join(team);
        self.teams.push(Team { lane, dag, seat, share: 0, groups: Contest::default() });
        self.team_of.insert((lane, dag), team);
        if self.is_fair {
            self.new_teams.push(team);
        }
        team
    }

    fn pop(&mut self, group: u32) -> u32 {
        self.take_back(group);
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

    /// Tells the team of a group its best, the lane the team's, and the queue the lane's; or its park, if it is parked.
    fn list(&mut self, group: u32) {
        let of = &self.groups[group as usize];
        let (rank, keeps, needs_host) = (of.rank(), of.keeps, of.claim.need.is_some());
        if let Some((park, seat)) = of.parked {
            let at = &mut self.parks[park as usize];
            let before = at.groups.best_rank();
            at.groups.set(seat, rank);
            let best = at.groups.best_rank();
            // Those there may be kept back for somebody who does not come before this one.
            let is_first = at.lent.is_some() || (self.ageing.is_some() && best < before);
            if self.called.rank(park) != Rank::NOBODY || (is_first && self.may_lend(park)) {
                self.called.set(park, best);
            }
        } else {
            let (team, seat) = (of.team, of.seat);
            self.teams[team as usize].groups.set(seat, rank);
            self.list_team(team);
        }
        if self.ageing.is_some() && needs_host {
            self.line_up(group, rank);
        }
        if keeps {
            self.let_go(group);
        }
    }

    fn list_team(&mut self, team: u32) {
        let of = &self.teams[team as usize];
        let teams = &mut self.lanes[of.lane as usize].teams;
        teams.set(of.seat, of.groups.best_rank().with_share(of.share));
        self.open.set(of.lane, teams.best_rank());
        self.look_at_elder(of.lane);
    }

    fn give_up(&mut self, group: u32) {
        self.take_back(group);
        self.leave_park(group);
        self.host_line.leave(group);
        let of = &mut self.groups[group as usize];
        of.line.shrink();
        let team = &mut self.teams[of.team as usize];
        team.groups.leave(of.seat);
        let key = (team.lane, of.claim.task_limit, of.claim.need);
        let siblings = &mut self.groups_of[of.claim.run.index()];
        if let Ok(at) = siblings.binary_search_by_key(&key, |sibling| sibling.0) {
            siblings.remove(at);
        }
        self.free_groups.push(group);
    }

    /// The best of a team leaves it until there is room for it elsewhere.
    fn park(&mut self, group: u32, quota: Quota) {
        self.take_back(group);
        let of = &mut self.groups[group as usize];
        let team = of.team;
        self.teams[team as usize].groups.set(of.seat, Rank::NOBODY);
        let key = (quota, if self.is_fair { team } else { ALL_TEAMS });
        let park = *self.park_of.entry(key).or_insert_with(|| {
            self.parks.push(Park { quota, groups: Contest::default(), lent: None });
            self.parks.len() as u32 - 1
        });
        of.parked = Some((park, self.parks[park as usize].groups.join(group)));
        self.list_team(team);
        self.list(group);
    }

    /// The best of a park goes back to its team, if there is room.
    fn call(&mut self, park: u32, limits: &Limits) {
        let of = &mut self.parks[park as usize];
        if !limits.has_room(of.quota) {
            self.called.set(park, Rank::NOBODY);
            return;
        }
        let group = of.groups.best().expect("a park is called as long as one of its groups competes");
        self.leave_park(group);
        let of = &mut self.parks[park as usize];
        if self.is_fair {
            of.lent = Some(group);
            self.groups[group as usize].lent_by = Some(park);
            self.called.set(park, Rank::NOBODY);
        } else {
            self.called.set(park, of.groups.best_rank());
        }
        self.list(group);
    }

    fn leave_park(&mut self, group: u32) {
        if let Some((park, seat)) = self.groups[group as usize].parked.take() {
            self.parks[park as usize].groups.leave(seat);
        }
    }

    /// A group that was lent has started one, or has gone: its park may lend another.
    fn take_back(&mut self, group: u32) {
        if let Some(park) = self.groups[group as usize].lent_by.take() {
            self.parks[park as usize].lent = None;
            self.show(park);
        }
    }

    /// A park takes part in the choice, unless the one that it has lent is still to start.
    fn show(&mut self, park: u32) {
        if self.may_lend(park) {
            self.called.set(park, self.parks[park as usize].groups.best_rank());
        }
    }

    /// It has lent nobody, or somebody there comes before who is lent.
    fn may_lend(&self, park: u32) -> bool {
        let of = &self.parks[park as usize];
        of.lent.is_none_or(|lent| of.groups.best_rank() < self.groups[lent as usize].rank())
    }

    /// What has gained room takes part again.
    fn hear(&mut self, limits: &mut Limits) {
        while let Some(freed) = limits.take_freed() {
            match freed {
                Freed::Pool(pool) => {
                    self.unblock_pool(pool, limits);
                    self.host_line.open_pool(pool);
                }
                Freed::Quota(quota) => {
                    self.unblock_quota(quota, limits);
                    self.host_line.open(Bar::Quota(quota));
                }
                Freed::Share(pool, dag) => self.follow_share(pool, dag, limits),
            }
        }
        while let Some(team) = self.new_teams.pop() {
            let Team { lane, dag, .. } = self.teams[team as usize];
            self.set_share(team, limits.share(self.lanes[lane as usize].pool, dag));
        }
        if !self.kept.is_empty() {
            self.look_again(limits);
        }
    }

    fn follow_share(&mut self, pool: PoolIx, dag: u32, limits: &Limits) {
        let Some(lanes) = self.lanes_of.get(pool.index()) else { return };
        for at in 0..lanes.len() {
            if let Some(&team) = self.team_of.get(&(self.lanes_of[pool.index()][at], dag)) {
                self.set_share(team, limits.share(pool, dag));
            }
        }
    }

    fn set_share(&mut self, team: u32, share: u64) {
        self.teams[team as usize].share = share;
        let of = &self.teams[team as usize];
        let lane = &mut self.lanes[of.lane as usize];
        lane.teams.set(of.seat, of.groups.best_rank().with_share(share));
        // A lane that was taken out stays out.
        let at = of.lane;
        if self.open.rank(at) != Rank::NOBODY {
            self.open.set(at, lane.teams.best_rank());
        }
        self.look_at_elder(at);
    }

    fn unblock_pool(&mut self, pool: PoolIx, limits: &Limits) {
        let Some(lanes) = self.lanes_of.get(pool.index()) else { return };
        for &at in lanes {
            let lane = &self.lanes[at as usize];
            if limits.pools.has_room(pool, lane.pool_slots) {
                self.open.set(at, lane.teams.best_rank());
            }
        }
    }

    fn unblock_quota(&mut self, quota: Quota, limits: &Limits) {
        if !limits.has_room(quota) {
            return;
        }
        for (_, &park) in self.park_of.range((quota, 0)..=(quota, ALL_TEAMS)) {
            if self.may_lend(park) {
                self.called.set(park, self.parks[park as usize].groups.best_rank());
            }
        }
    }
}

fn is_waiting(places: &[Place], group: u32, entry: &Entry) -> bool {
    let place = places[entry.handle as usize];
    place.group == group && place.generation == entry.generation
}

#[cfg(test)]
mod choice_tests;
#[cfg(test)]
mod pass_tests;
#[cfg(test)]
mod tests;
