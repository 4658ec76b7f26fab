//! `scheduler.fair_share` and `scheduler.priority_ageing`: against a search of all that waits, and that nobody waits for ever.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::scheduler::pools::{Held, Scope};
use crate::scheduler::reserves::Need;

const INTERVAL: i64 = 10;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn choosing(fair_share: bool, ages: bool) -> Choosing {
    Choosing { rows: None, fair_share, ageing: ages.then(|| Duration::from_secs(INTERVAL.unsigned_abs())) }
}

fn candidate(handle: u32, dag: u32, run: u32, pool: u32, pool_slots: u32) -> Candidate {
    Candidate {
        handle,
        claim: Claim { run: RunIx(run), pool: PoolIx(pool), pool_slots, task_limit: None, need: None },
        dag,
        since: at(0),
        priority_weight: 1,
        logical_date: None,
        map_index: -1,
        order: handle,
    }
}

fn drain(queue: &mut ReadyQueue, limits: &mut Limits) -> Vec<u32> {
    std::iter::from_fn(|| queue.take(limits).map(|(handle, _)| handle)).collect()
}

/// As many runs as DAGs, of which none holds back anything, and one pool.
fn limits(choosing: &Choosing, parallelism: u32, slots: i64) -> Limits {
    let mut limits = Limits::new(parallelism);
    limits.count_shares(choosing.fair_share, []);
    limits.set_pool(&"p".into(), slots, false);
    (0..4).for_each(|run| limits.set_run(RunIx(run), run, 100));
    limits
}

#[test]
fn dags_that_wait_for_a_pool_take_turns_though_one_has_more_priority() {
    let choosing = choosing(true, false);
    let (mut limits, mut queue) = (limits(&choosing, 32, 4), ReadyQueue::new(&choosing));
    for handle in 0..10 {
        queue.insert(Candidate { priority_weight: 9, ..candidate(handle, 0, 0, 0, 1) });
    }
    queue.insert(candidate(10, 1, 1, 0, 1));
    queue.insert(candidate(11, 1, 1, 0, 1));
    queue.insert(candidate(12, 2, 2, 0, 1));
    assert_eq!(drain(&mut queue, &mut limits), [0, 10, 12, 1]);
    assert_eq!(queue.rival(2, &limits), Some(Rival { dag: 1, holds: 1, against: 2 }));
    assert_eq!(queue.rival(11, &limits), None);
    limits.release(candidate(10, 1, 1, 0, 1).claim, Held::Queued);
    assert_eq!(drain(&mut queue, &mut limits), [11]);
    limits.release(candidate(12, 2, 2, 0, 1).claim, Held::Queued);
    assert_eq!(drain(&mut queue, &mut limits), [2], "nobody else waits, and no slot stays empty for that");
}

#[test]
fn a_weight_counts_one_more_for_each_interval() {
    let choosing = choosing(false, true);
    let (mut limits, mut queue) = (limits(&choosing, 32, 100), ReadyQueue::new(&choosing));
    queue.insert(candidate(0, 0, 0, 0, 1));
    queue.insert(Candidate { since: at(29), priority_weight: 4, ..candidate(1, 0, 0, 0, 1) });
    queue.insert(Candidate { since: at(31), priority_weight: 4, ..candidate(2, 0, 0, 0, 1) });
    queue.set_now(at(40));
    assert_eq!(drain(&mut queue, &mut limits), [1, 0, 2]);
}

#[test]
fn what_comes_free_is_kept_for_who_wants_several_slots_once_he_has_waited_for_an_interval() {
    let choosing = choosing(false, true);
    let (mut limits, mut queue) = (limits(&choosing, 32, 3), ReadyQueue::new(&choosing));
    let small = |handle| Candidate { since: at(5), ..candidate(handle, 0, 0, 0, 1) };
    (0..5).for_each(|handle| queue.insert(small(handle)));
    queue.insert(candidate(9, 1, 1, 0, 3));
    queue.set_now(at(9));
    limits.occupy(small(7).claim);
    assert_eq!(drain(&mut queue, &mut limits), [0, 1], "it has not waited for long enough");
    queue.set_now(at(10));
    limits.release(small(0).claim, Held::Queued);
    assert_eq!(drain(&mut queue, &mut limits), Vec::<u32>::new());
    assert_eq!(queue.why_not(9, &limits), Some(NotStarted::PoolFull { pool: PoolIx(0), open: 1, needed: 3 }));
    assert_eq!(queue.why_not(2, &limits), Some(NotStarted::KeptFor(Elder { handle: 9, pool: Some(PoolIx(0)) })));
    assert!(queue.keeps(9) && !queue.keeps(2));
    limits.release(small(1).claim, Held::Queued);
    assert_eq!(drain(&mut queue, &mut limits), Vec::<u32>::new());
    limits.release(small(7).claim, Held::Queued);
    assert_eq!(drain(&mut queue, &mut limits), [9]);
    limits.release(candidate(9, 1, 1, 0, 3).claim, Held::Queued);
    assert_eq!(drain(&mut queue, &mut limits), [2, 3, 4]);
}

#[test]
fn nothing_is_kept_for_who_leaves_who_could_never_start_or_whom_his_run_holds_back() {
    let choosing = choosing(false, true);
    let fat = candidate(9, 1, 1, 0, 3);
    let small = |handle| Candidate { since: at(5), ..candidate(handle, 0, 0, 0, 1) };
    for case in 0..4 {
        let (mut limits, mut queue) = (limits(&choosing, 32, 3), ReadyQueue::new(&choosing));
        (0..2).for_each(|handle| queue.insert(small(handle)));
        queue.insert(fat);
        queue.set_now(at(100));
        limits.occupy(small(7).claim);
        assert_eq!(drain(&mut queue, &mut limits), Vec::<u32>::new());
        match case {
            0 => _ = queue.remove(9),
            1 => _ = limits.set_pool(&"p".into(), 2, false),
            2 => {
                limits.occupy(candidate(8, 1, 1, 0, 0).claim);
                limits.set_run(RunIx(1), 1, 1);
                limits.release(candidate(8, 1, 1, 0, 0).claim, Held::Queued);
                limits.set_run(RunIx(1), 1, 0);
                limits.set_pool(&"p".into(), 3, false);
            }
            _ => {
                let waits = Claim { pool_slots: 1, ..fat.claim };
                limits.defer(waits);
                limits.set_pool(&"p".into(), 3, true);
            }
        }
        let room = if matches!(case, 1 | 3) { 1 } else { 2 };
        assert_eq!(drain(&mut queue, &mut limits).len(), room, "case {case}");
    }
}

#[test]
fn what_the_host_gets_back_is_kept_for_who_needs_much_of_it_and_he_keeps_his_place_in_his_pool() {
    let choosing = choosing(false, true);
    let (mut limits, mut queue) = (limits(&choosing, 32, 3), ReadyQueue::new(&choosing));
    limits.set_reserves(Some(1_000), None);
    let [much, little] = [900, 100].map(|memory| limits.intern_need(Need { memory, millicpus: 0 }));
    let with = |it: Candidate, need| Candidate { claim: Claim { need: Some(need), ..it.claim }, ..it };
    let small = |handle| with(Candidate { since: at(5), ..candidate(handle, 0, 0, 0, 1) }, little);
    limits.occupy(small(7).claim);
    limits.occupy(small(7).claim);
    queue.insert(with(candidate(9, 1, 1, 0, 1), much));
    (0..3).for_each(|handle| queue.insert(small(handle)));
    queue.insert(Candidate { since: at(6), ..candidate(4, 2, 2, 0, 1) });
    queue.set_now(at(50));
    assert_eq!(drain(&mut queue, &mut limits), Vec::<u32>::new(), "one slot is left, and it is kept as well");
    assert_eq!(queue.why_not(0, &limits), Some(NotStarted::KeptFor(Elder { handle: 9, pool: None })));
    assert_eq!(queue.why_not(4, &limits), Some(NotStarted::KeptFor(Elder { handle: 9, pool: Some(PoolIx(0)) })));
    limits.release(small(7).claim, Held::Queued);
    assert_eq!(drain(&mut queue, &mut limits), [9], "now it is 0 whose slot is kept until the host has room");
    limits.release(with(candidate(9, 1, 1, 0, 1), much).claim, Held::Queued);
    assert_eq!(drain(&mut queue, &mut limits), [0, 1]);
}

#[test]
fn for_whom_the_host_is_kept_does_not_depend_on_who_was_asked_when() {
    let choosing = choosing(false, true);
    for was_asked in [false, true] {
        let (mut limits, mut queue) = (limits(&choosing, 32, -1), ReadyQueue::new(&choosing));
        let narrow = limits.set_pool(&"narrow".into(), 1, false);
        limits.set_reserves(Some(3), None);
        let [one, two] = [1, 2].map(|memory| limits.intern_need(Need { memory, millicpus: 0 }));
        let with = |it: Candidate, need| Candidate { claim: Claim { need, ..it.claim }, ..it };
        let fat = with(candidate(9, 1, 1, narrow.0, 1), Some(two));
        let small = |handle| with(Candidate { since: at(5), ..candidate(handle, 0, 0, 0, 1) }, Some(one));
        let before = with(candidate(7, 2, 2, 0, 1), Some(two));
        limits.occupy(before.claim);
        queue.insert(fat);
        queue.set_now(at(50));
        if was_asked {
            assert_eq!(drain(&mut queue, &mut limits), Vec::<u32>::new(), "the host has no room for it");
        }
        // As a restart takes over what runs, whatever there is room for.
        let other = candidate(8, 2, 2, narrow.0, 1);
        limits.occupy(other.claim);
        queue.insert(small(0));
        assert_eq!(
            drain(&mut queue, &mut limits),
            [0],
            "asked: {was_asked}; as long as its pool is full it has no use for the host"
        );
        limits.release(other.claim, Held::Queued);
        limits.release(small(0).claim, Held::Queued);
        queue.insert(small(1));
        assert_eq!(drain(&mut queue, &mut limits), Vec::<u32>::new());
        assert_eq!(queue.why_not(1, &limits), Some(NotStarted::KeptFor(Elder { handle: 9, pool: None })));
        limits.release(before.claim, Held::Queued);
        assert_eq!(drain(&mut queue, &mut limits), [9, 1]);
    }
}

#[test]
fn who_was_found_behind_a_limit_later_starts_before_one_that_came_back_from_it_with_less_weight() {
    let choosing = choosing(true, false);
    let (mut limits, mut queue) = (limits(&choosing, 32, 10), ReadyQueue::new(&choosing));
    limits.set_run(RunIx(4), 0, 100);
    limits.set_reserves(Some(6), None);
    let six = limits.intern_need(Need { memory: 6, millicpus: 0 });
    let needing = |it: Candidate, priority_weight| Candidate {
        claim: Claim { need: Some(six), ..it.claim },
        priority_weight,
        ..it
    };
    let before = needing(candidate(20, 3, 3, 0, 1), 1);
    // The first and the third DAG hold a slot each.
    for claim in [before, candidate(21, 0, 0, 0, 1), candidate(22, 2, 2, 0, 1)].map(|it| it.claim) {
        limits.occupy(claim);
    }
    queue.insert(needing(candidate(0, 0, 0, 0, 1), 8));
    assert_eq!(drain(&mut queue, &mut limits), Vec::<u32>::new());
    limits.release(before.claim, Held::Queued);
    limits.set_parallelism(3);
    let other = needing(candidate(1, 1, 1, 0, 1), 1);
    queue.insert(other);
    assert_eq!(
        drain(&mut queue, &mut limits),
        [1],
        "its DAG holds nothing; the other has come back, and no slot is left"
    );
    queue.insert(needing(candidate(2, 0, 4, 0, 1), 10));
    queue.insert(Candidate { priority_weight: 9, ..candidate(3, 2, 2, 0, 1) });
    limits.set_parallelism(4);
    assert_eq!(drain(&mut queue, &mut limits), [3]);
    limits.release(other.claim, Held::Queued);
    assert_eq!(drain(&mut queue, &mut limits), [2]);
}

#[derive(Clone, Debug)]
enum Step {
    /// DAG, run of it, pool, slots, weight, limit of its task, need.
    Insert(u32, (u32, u32), (u32, u32), i64, u32, u32),
    Remove(u32),
    Take,
    Wait(i64),
    Release(prop::sample::Index),
    /// One that runs is deferred, or one that is deferred no longer is.
    Defer(prop::sample::Index),
    SetPool(u32, i64, bool),
    SetRun(u32, u32),
    SetMemory(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..24_u32, (0..3_u32, 0..2_u32), (0..2_u32, 1..4_u32), -1..3_i64, 0..4_u32, 0..4_u32)
            .prop_map(|(handle, run, pool, weight, limit, need)| Step::Insert(handle, run, pool, weight, limit, need)),
        1 => (0..24_u32).prop_map(Step::Remove),
        6 => Just(Step::Take),
        3 => (1..15_i64).prop_map(Step::Wait),
        5 => any::<prop::sample::Index>().prop_map(Step::Release),
        1 => any::<prop::sample::Index>().prop_map(Step::Defer),
        1 => (0..2_u32, -1..6_i64, any::<bool>()).prop_map(|(pool, slots, include)| Step::SetPool(pool, slots, include)),
        1 => (0..6_u32, 0..4_u32).prop_map(|(run, limit)| Step::SetRun(run, limit)),
        1 => (0..9_u64).prop_map(Step::SetMemory),
    ]
}

/// All that waits, and what is held.
struct Model {
    choosing: Choosing,
    now: i64,
    waiting: BTreeMap<u32, Candidate>,
    held: Vec<(Claim, Held)>,
    dag_of: BTreeMap<RunIx, u32>,
}

type Order = (Reverse<i64>, Option<Timestamp>, i32, u32);

impl Model {
    fn order(&self, it: &Candidate) -> Order {
        let weight = match self.choosing.ageing {
            Some(_) => it.priority_weight * INTERVAL - it.since.as_second(),
            None => it.priority_weight,
        };
        (Reverse(weight), it.logical_date, it.map_index, it.order)
    }

    /// Before that of all others: the slots that the DAG holds, by adding them up.
    fn share(&self, it: &Candidate) -> u64 {
        let is_of = |claim: &Claim| claim.pool == it.claim.pool && self.dag_of[&claim.run] == it.dag;
        let held = self.held.iter().filter(|(claim, how)| *how != Held::Deferred && is_of(claim));
        if self.choosing.fair_share { held.map(|(claim, _)| u64::from(claim.pool_slots)).sum() } else { 0 }
    }

    /// Whether the pool has so many slots once all that runs is over.
    fn could_free(&self, pool: PoolIx, slots: u32, limits: &Limits) -> bool {
        let counted = self.held.iter().filter(|(claim, how)| claim.pool == pool && *how == Held::Deferred);
        let deferred: i64 = counted.map(|(claim, _)| i64::from(claim.pool_slots)).sum();
        let total = limits.pools.total(pool).unwrap();
        let free_once = if limits.pools.includes_deferred(pool) { total - deferred } else { total };
        total < 0 || i64::from(slots) <= free_once
    }

    fn is_elder(&self, it: &Candidate) -> bool {
        self.choosing.ageing.is_some() && self.now - it.since.as_second() >= INTERVAL
    }

    /// Of all that need some of the host, and which nothing else keeps for good or within its run, the first in line.
    fn first_of_host(&self, limits: &Limits) -> Option<&Candidate> {
        let may_wait = |of: &&Candidate| {
            let Claim { pool, pool_slots, need, .. } = of.claim;
            need.is_some_and(|need| limits.reserves().could_hold(need))
                && self.could_free(pool, pool_slots, limits)
                && matches!(limits.full_quota(&of.claim), None | Some(Quota::Host(_)))
        };
        self.waiting.values().filter(may_wait).min_by_key(|of| self.order(of))
    }

    fn is_left(&self, it: &Candidate, of: &Candidate, limits: &Limits) -> bool {
        limits.pools.has_room_for_both(it.claim.pool, it.claim.pool_slots, of.claim.pool_slots)
    }

    fn elder_of_host(&self, it: &Candidate, limits: &Limits) -> Option<&Candidate> {
        self.first_of_host(limits).filter(|of| self.is_elder(of) && self.order(of) < self.order(it))
    }

    /// Whether it would leave too little of the host to who is first in line.
    fn lacks_host(&self, it: &Candidate, limits: &Limits) -> bool {
        let has_slots = |of: &&Candidate| limits.pools.has_room(of.claim.pool, of.claim.pool_slots);
        let first = self.elder_of_host(it, limits).filter(has_slots);
        let needs = first.and_then(|first| it.claim.need.zip(first.claim.need));
        needs.is_some_and(|(one, other)| !limits.reserves().has_room_for_both(one, other))
    }

    /// Null: it is not kept back. Else whether all that want as much of its pool are.
    fn kept_back(&self, it: &Candidate, limits: &Limits) -> Option<bool> {
        if self.lacks_host(it, limits) {
            return Some(false);
        }
        let pool = it.claim.pool;
        for slots in (1..4).filter(|&slots| slots != it.claim.pool_slots) {
            let in_lane = self.waiting.values().filter(|of| of.claim.pool == pool && of.claim.pool_slots == slots);
            let may_head = |of: &&Candidate| limits.full_quota(&of.claim).is_none() && !self.lacks_host(of, limits);
            let heads = in_lane.filter(may_head);
            let Some(head) = heads.min_by_key(|of| (self.share(of), self.order(of))) else { continue };
            let could_free = self.could_free(pool, slots, limits);
            if !self.is_left(it, head, limits) && could_free && self.is_elder(head) && self.order(head) < self.order(it)
            {
                return Some(true);
            }
        }
        let first = self.elder_of_host(it, limits)?;
        (first.claim.pool == pool && !self.is_left(it, first, limits)).then_some(true)
    }

    /// What is to start next, by looking at all.
    fn best(&self, limits: &Limits) -> Option<(u64, Order)> {
        let may_start = |it: &&Candidate| limits.has_free_slot() && limits.refusal(&it.claim).is_none();
        let order = |it: &&Candidate| (self.share(it), self.order(it));
        let mut all: Vec<&Candidate> = self.waiting.values().filter(may_start).collect();
        all.sort_by_key(order);
        if let Some(first) = self.first_of_host(limits).filter(|_| self.choosing.fair_share)
            && may_start(&first)
            && self.is_elder(first)
            && self.kept_back(first, limits).is_none()
        {
            return Some(order(&first));
        }
        let mut closed = BTreeSet::new();
        for it in all {
            let lane = (it.claim.pool, it.claim.pool_slots);
            if closed.contains(&lane) {
                continue;
            }
            // Who is kept back keeps those behind it back that want as much of the pool.
            match self.kept_back(it, limits) {
                None => return Some(order(&it)),
                Some(is_all) => closed.extend(is_all.then_some(lane)),
            }
        }
        None
    }
}

fn check(fair_share: bool, ages: bool, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let choosing = choosing(fair_share, ages);
    let mut limits = Limits::new(6);
    limits.count_shares(fair_share, []);
    for (pool, slots) in [(0, 3), (1, 5)] {
        limits.set_pool(&format!("p{pool}").into(), slots, false);
    }
    let dag_of: BTreeMap<RunIx, u32> = (0..6).map(|run| (RunIx(run), run / 2)).collect();
    dag_of.iter().for_each(|(&run, &dag)| limits.set_run(run, dag, 3));
    limits.set_reserves(Some(6), None);
    let needs = [2, 3, 6].map(|memory| limits.intern_need(Need { memory, millicpus: 0 }));
    let in_all = [0, 1, 2].map(|_| limits.add_task_limit(Scope::Dag, 2, None));
    let mut queue = ReadyQueue::new(&choosing);
    let mut model = Model { choosing, now: 1_000, waiting: BTreeMap::new(), held: Vec::new(), dag_of };
    queue.set_now(at(model.now));
    for step in steps {
        match step {
            Step::Insert(handle, (dag, run), (pool, slots), priority_weight, limit, need) => {
                let it = candidate(handle, dag, 2 * dag + run, pool, slots);
                // A task with a limit stands in one pool.
                let (task_limit, pool) = if limit == 0 { (Some(in_all[dag as usize]), 0) } else { (None, pool) };
                let need = needs.get(need as usize).copied();
                let claim = Claim { task_limit, need, pool: PoolIx(pool), ..it.claim };
                let logical_date = (run > 0).then(|| at(1));
                let it = Candidate { claim, priority_weight, logical_date, since: at(model.now), ..it };
                queue.insert(it);
                model.waiting.insert(handle, it);
            }
            Step::Remove(handle) => {
                prop_assert_eq!(queue.remove(handle), model.waiting.remove(&handle).is_some());
            }
            Step::Take => {
                let expected = model.best(&limits);
                let taken = queue.take(&mut limits).map(|(handle, _)| model.waiting.remove(&handle).unwrap());
                prop_assert_eq!(taken.map(|it| (model.share(&it), model.order(&it))), expected);
                model.held.extend(taken.map(|it| (it.claim, Held::Queued)));
            }
            Step::Wait(seconds) => {
                model.now += seconds;
                queue.set_now(at(model.now));
            }
            Step::Release(of) if !model.held.is_empty() => {
                let (claim, how) = model.held.swap_remove(of.index(model.held.len()));
                limits.release(claim, how);
            }
            Step::Defer(of) if !model.held.is_empty() => {
                let of = of.index(model.held.len());
                let (claim, how) = model.held[of];
                limits.release(claim, how);
                if how == Held::Deferred {
                    model.held.swap_remove(of);
                } else {
                    limits.defer(claim);
                    model.held[of].1 = Held::Deferred;
                }
            }
            Step::Release(_) | Step::Defer(_) => {}
            Step::SetPool(pool, slots, include_deferred) => {
                limits.set_pool(&format!("p{pool}").into(), slots, include_deferred);
            }
            Step::SetRun(run, limit) => limits.set_run(RunIx(run), run / 2, limit),
            Step::SetMemory(memory) => limits.set_reserves(Some(memory), None),
        }
    }
    Ok(())
}

/// Time in which what runs is over.
const LONGEST: i64 = 4;
/// What keeps the first in line: before each of the other two of its run, and before itself, that its run has room, its pool and the
/// host; and a slot of the executor.
const STAGES: i64 = 10;

/// Runs of few tasks come without end, as fast as the pools bear them and faster, all with more priority than a few that want whole
/// pools and the whole host. Whoever is first in line starts in bounded time; and so in time everybody is.
fn nobody_waits_for_ever(fair_share: bool, seed: u64) {
    let mut dice = seed;
    let mut below = |most: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % most
    };
    let choosing = choosing(fair_share, true);
    let (mut limits, mut queue) = (Limits::new(5), ReadyQueue::new(&choosing));
    limits.count_shares(fair_share, []);
    limits.set_pool(&"p0".into(), 3, false);
    limits.set_pool(&"p1".into(), 2, false);
    limits.set_reserves(Some(4), None);
    let needs = [1, 2, 4].map(|memory| limits.intern_need(Need { memory, millicpus: 0 }));
    let (mut handle, mut run) = (0, 0);
    let mut waiting: BTreeMap<u32, Candidate> = BTreeMap::new();
    let mut running: BTreeSet<(i64, u32)> = BTreeSet::new();
    let mut claims: BTreeMap<u32, Claim> = BTreeMap::new();
    let mut longest = 0;
    let (mut first, mut first_since, mut fat) = (None, 0, BTreeSet::new());
    for now in 0..1_500_i64 {
        for (end, of) in running.clone() {
            if end <= now {
                running.remove(&(end, of));
                limits.release(claims[&of], Held::Queued);
            }
        }
        let is_fat = now % 100 == 20;
        if waiting.len() < 40 || is_fat {
            limits.set_run(RunIx(run), run % 3, 1 + below(2) as u32);
            for _ in 0..1 + below(3) {
                let pool = below(2) as u32;
                let of = candidate(handle, run % 3, run, pool, if is_fat { 3 - pool } else { 1 });
                let need = if is_fat { Some(needs[2]) } else { needs.get(below(4) as usize).copied() };
                let (need, priority_weight) =
                    (need.filter(|&need| is_fat || need != needs[2]), if is_fat { 0 } else { 5 });
                let it = Candidate { claim: Claim { need, ..of.claim }, since: at(now), priority_weight, ..of };
                fat.extend(is_fat.then_some(handle));
                queue.insert(it);
                waiting.insert(handle, it);
                claims.insert(handle, it.claim);
                handle += 1;
            }
            run += 1;
        }
        queue.set_now(at(now));
        while let Some((taken, _)) = queue.take(&mut limits) {
            waiting.remove(&taken);
            running.insert((now + 1 + below(LONGEST as u64) as i64, taken));
        }
        let order =
            |it: &&Candidate| (Reverse(it.priority_weight * INTERVAL - it.since.as_second()), it.claim.run, it.order);
        let best =
            waiting.values().filter(|it| now - it.since.as_second() >= INTERVAL).min_by_key(order).map(|it| it.handle);
        if best != first {
            (first, first_since) = (best, now);
        }
        if first.is_some() {
            longest = longest.max(now - first_since);
        }
    }
    // Of the DAGs that share, each may have one before it that is to become an elder first.
    let bound = if fair_share { 3 * (LONGEST * STAGES + INTERVAL) } else { LONGEST * STAGES };
    assert!(longest <= bound, "seed {seed}: somebody was first in line for {longest}");
    fat.retain(|of| waiting.get(of).is_some_and(|it| it.since < at(1_000)));
    assert!(handle > 1_000 && fat.is_empty(), "of {handle} these have never started: {fat:?}");
}

#[test]
fn whoever_is_first_in_line_starts_in_bounded_time_however_many_come_with_more_priority() {
    for seed in 0..40 {
        nobody_waits_for_ever(seed % 2 == 1, seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn it_takes_what_a_search_of_all_would_take(
        (fair_share, ages) in any::<(bool, bool)>(),
        steps in prop::collection::vec(any_step(), 1..150),
    ) {
        check(fair_share, ages, steps)?;
    }
}
