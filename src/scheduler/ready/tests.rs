use std::cmp::Reverse;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::scheduler::pools::{Held, Scope};

const RUN: RunIx = RunIx(0);

fn limits(parallelism: u32, pools: &[i64], runs: &[u32]) -> Limits {
    let mut limits = Limits::new(parallelism);
    for (at, &slots) in pools.iter().enumerate() {
        limits.set_pool(&format!("p{at}").into(), slots, false);
    }
    for (at, &max_active_tasks) in runs.iter().enumerate() {
        limits.set_run(RunIx(at as u32), 0, max_active_tasks);
    }
    limits
}

fn candidate(handle: u32, priority_weight: i64, pool_slots: u32) -> Candidate {
    Candidate {
        handle,
        claim: Claim { run: RUN, pool: PoolIx(0), pool_slots, task_limit: None, need: None },
        dag: 0,
        since: Timestamp::UNIX_EPOCH,
        priority_weight,
        logical_date: None,
        map_index: -1,
        order: handle,
    }
}

fn take(queue: &mut ReadyQueue, limits: &mut Limits) -> Option<u32> {
    queue.take(limits).map(|(handle, _)| handle)
}

fn drain(queue: &mut ReadyQueue, limits: &mut Limits) -> Vec<u32> {
    std::iter::from_fn(|| take(queue, limits)).collect()
}

#[test]
fn the_order_is_weight_then_logical_date_then_map_index_then_task() {
    let mut limits = limits(32, &[-1], &[16, 16, 16]);
    let mut queue = ReadyQueue::default();
    let dated = |handle, run, second, map_index| Candidate {
        claim: Claim { run: RunIx(run), pool: PoolIx(0), pool_slots: 1, task_limit: None, need: None },
        logical_date: Some(Timestamp::from_second(second).unwrap()),
        map_index,
        ..candidate(handle, 5, 1)
    };
    queue.insert(dated(0, 1, 200, -1));
    queue.insert(dated(1, 2, 100, 1));
    queue.insert(dated(2, 2, 100, 0));
    queue.insert(dated(3, 2, 100, 0));
    queue.insert(candidate(4, 5, 1));
    queue.insert(Candidate { priority_weight: 6, ..dated(5, 1, 200, -1) });
    assert_eq!(drain(&mut queue, &mut limits), [5, 4, 2, 3, 1, 0]);
}

#[test]
fn a_smaller_task_passes_one_that_does_not_fit_and_the_blocked_one_starts_when_slots_are_free() {
    let mut limits = limits(32, &[3], &[16]);
    let mut queue = ReadyQueue::default();
    queue.insert(candidate(0, 9, 2));
    queue.insert(candidate(1, 8, 2));
    queue.insert(candidate(2, 1, 1));
    assert_eq!(drain(&mut queue, &mut limits), [0, 2]);
    assert_eq!(queue.why_not(1, &limits), Some(NotStarted::PoolFull { pool: PoolIx(0), open: 0, needed: 2 }));
    limits.release(candidate(2, 1, 1).claim, Held::Queued);
    assert_eq!(take(&mut queue, &mut limits), None);
    limits.release(candidate(0, 9, 2).claim, Held::Queued);
    assert_eq!(take(&mut queue, &mut limits), Some(1));
    assert_eq!(queue.why_not(1, &limits), None);
}

#[test]
fn each_limit_that_holds_an_instance_back_is_named() {
    let mut limits = limits(1, &[2], &[2, 16]);
    let mut queue = ReadyQueue::default();
    queue.insert(candidate(0, 9, 1));
    queue.insert(candidate(1, 8, 1));
    queue.insert(candidate(2, 7, 3));
    let unknown = limits.pools.intern(&"unknown".into());
    queue.insert(Candidate {
        claim: Claim { run: RUN, pool: unknown, pool_slots: 1, task_limit: None, need: None },
        ..candidate(3, 9, 1)
    });
    assert_eq!(queue.why_not(1, &limits), Some(NotStarted::NotItsTurn));
    assert_eq!(drain(&mut queue, &mut limits), [0]);
    assert_eq!(queue.why_not(1, &limits), Some(NotStarted::ParallelismFull { parallelism: 1 }));
    assert_eq!(queue.why_not(2, &limits), Some(NotStarted::PoolTooSmall { pool: PoolIx(0), slots: 2, needed: 3 }));
    assert_eq!(queue.why_not(3, &limits), Some(NotStarted::PoolUnknown { pool: unknown }));
    let mut roomy = self::limits(2, &[2], &[1]);
    roomy.occupy(candidate(0, 9, 1).claim);
    assert_eq!(queue.why_not(1, &roomy), Some(NotStarted::MaxActiveTasks { active: 1, limit: 1 }));
}

#[test]
fn a_pool_that_is_defined_later_lets_its_instances_start() {
    let mut limits = limits(4, &[], &[16]);
    let pool = limits.pools.intern(&"late".into());
    let mut queue = ReadyQueue::default();
    queue.insert(Candidate {
        claim: Claim { run: RUN, pool, pool_slots: 1, task_limit: None, need: None },
        ..candidate(0, 1, 1)
    });
    assert_eq!(take(&mut queue, &mut limits), None);
    limits.set_pool(&"late".into(), 1, false);
    assert_eq!(take(&mut queue, &mut limits), Some(0));
}

#[test]
fn a_run_that_is_dropped_leaves_nothing_and_may_come_back() {
    let mut limits = limits(4, &[8], &[16, 16]);
    let mut queue = ReadyQueue::default();
    let other = Candidate {
        claim: Claim { run: RunIx(1), pool: PoolIx(0), pool_slots: 1, task_limit: None, need: None },
        ..candidate(2, 1, 1)
    };
    for candidate in [candidate(0, 9, 1), candidate(1, 9, 2), other] {
        queue.insert(candidate);
    }
    assert_eq!(queue.remove_run(RUN), 2);
    assert_eq!((queue.len(), queue.contains(0), queue.contains(2)), (1, false, true));
    queue.insert(candidate(1, 9, 2));
    assert_eq!(drain(&mut queue, &mut limits), [1, 2]);
    assert!(queue.is_empty());
}

#[test]
fn an_instance_that_waits_again_counts_once_with_its_new_weight() {
    let mut limits = limits(4, &[8], &[16]);
    let mut queue = ReadyQueue::default();
    queue.insert(candidate(0, 9, 1));
    queue.insert(candidate(1, 5, 1));
    queue.insert(candidate(0, 1, 1));
    assert_eq!(queue.len(), 2);
    assert_eq!(drain(&mut queue, &mut limits), [1, 0]);
}

/// Which limits a task has in the test below.
#[derive(Clone, Copy, Debug)]
enum TestLimit {
    None,
    InAll,
    InOne,
    Both,
}

fn any_limit() -> impl Strategy<Value = TestLimit> {
    prop::sample::select(vec![TestLimit::None, TestLimit::None, TestLimit::InAll, TestLimit::InOne, TestLimit::Both])
}

#[derive(Clone, Debug)]
enum Step {
    Insert {
        handle: u32,
        run: u32,
        pool: u32,
        pool_slots: u32,
        weight: i64,
        limit: TestLimit,
    },
    Remove(u32),
    RemoveRun(u32),
    Take,
    /// One of those that run is deferred; or one that is deferred is so no longer.
    Defer(prop::sample::Index),
    SetLimit(u32, u32),
    /// Of the one that has held its slots longest, or the one before.
    Release(prop::sample::Index, bool),
    SetPool(u32, i64, bool),
    SetRun(u32, u32),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..24_u32, 0..3_u32, 0..3_u32, 1..4_u32, -2..3_i64, any_limit())
            .prop_map(|(handle, run, pool, pool_slots, weight, limit)| {
                Step::Insert { handle, run, pool, pool_slots, weight, limit }
            }),
        1 => (0..24_u32).prop_map(Step::Remove),
        1 => (0..3_u32).prop_map(Step::RemoveRun),
        6 => Just(Step::Take),
        4 => any::<(prop::sample::Index, bool)>().prop_map(|(at, starts)| Step::Release(at, starts)),
        1 => any::<prop::sample::Index>().prop_map(Step::Defer),
        1 => (0..6_u32, 1..4_u32).prop_map(|(at, limit)| Step::SetLimit(at, limit)),
        1 => (0..3_u32, -1..6_i64, any::<bool>()).prop_map(|(pool, slots, include)| Step::SetPool(pool, slots, include)),
        1 => (0..3_u32, 1..4_u32).prop_map(|(run, limit)| Step::SetRun(run, limit)),
    ]
}

/// The best that may start, by looking at all of them.
fn best(waiting: &BTreeMap<u32, Candidate>, limits: &Limits) -> Option<(i64, Option<Timestamp>, i32, u32)> {
    waiting
        .values()
        .filter(|it| limits.has_free_slot() && limits.has_room_in_run(it.claim.run))
        .filter(|it| limits.pools.has_room(it.claim.pool, it.claim.pool_slots))
        .filter(|it| chain(limits, it.claim.task_limit).all(|(_, active, limit)| active < limit))
        .map(|it| (Reverse(it.priority_weight), it.logical_date, it.map_index, it.order))
        .min()
        .map(|(weight, date, map_index, order)| (weight.0, date, map_index, order))
}

/// A task's limits, the narrowest first.
fn chain(limits: &Limits, mut next: Option<TaskLimitIx>) -> impl Iterator<Item = (Scope, u32, u32)> + '_ {
    std::iter::from_fn(move || {
        let ix = next?;
        next = limits.above(ix);
        Some(limits.task_limit(ix))
    })
}

/// Every number of `limits` is what those who hold something add up to.
fn assert_counted(limits: &Limits, held: &[(Claim, Held)], task_limits: &[TaskLimitIx]) {
    let sum = |keep: &dyn Fn(&Claim, Held) -> bool, of: &dyn Fn(&Claim) -> u64| -> u64 {
        held.iter().filter(|(claim, how)| keep(claim, *how)).map(|(claim, _)| of(claim)).sum()
    };
    let one = |_: &Claim| 1;
    assert_eq!(u64::from(limits.executing()), sum(&|_, how| how != Held::Deferred, &one));
    for pool in (0..3).map(PoolIx) {
        let slots = |how| sum(&|claim, held| claim.pool == pool && held == how, &|claim| claim.pool_slots.into());
        let pools = &limits.pools;
        let got = (pools.queued(pool), pools.running(pool), pools.deferred(pool));
        assert_eq!(got, (slots(Held::Queued), slots(Held::Running), slots(Held::Deferred)));
    }
    for run in (0..3).map(RunIx) {
        let active = sum(&|claim, how| claim.run == run && how != Held::Deferred, &one);
        assert_eq!(u64::from(limits.active(run)), active);
    }
    for &ix in task_limits {
        let is_of = |claim: &Claim, _| {
            claim.task_limit == Some(ix) || claim.task_limit.and_then(|of| limits.above(of)) == Some(ix)
        };
        assert_eq!(u64::from(limits.task_limit(ix).1), sum(&is_of, &one));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn it_takes_what_a_search_of_all_would_take_exceeds_no_limit_and_leaks_none(
        steps in prop::collection::vec(any_step(), 1..120),
    ) {
        let mut limits = limits(5, &[3, 4, -1], &[2, 3, 16]);
        // One in all runs, then one of each run below it, then one of each run alone.
        let in_all = limits.add_task_limit(Scope::Dag, 2, None);
        let both = [1, 2, 2].map(|limit| limits.add_task_limit(Scope::Run, limit, Some(in_all)));
        let in_one = [1, 1, 2].map(|limit| limits.add_task_limit(Scope::Run, limit, None));
        let all: Vec<TaskLimitIx> = std::iter::once(in_all).chain(both).chain(in_one).collect();
        let mut queue = ReadyQueue::default();
        let mut waiting: BTreeMap<u32, Candidate> = BTreeMap::new();
        let mut held: Vec<(Claim, Held)> = Vec::new();
        for step in steps {
            match step {
                Step::Insert { handle, run, pool, pool_slots, weight, limit } => {
                    let task_limit = match limit {
                        TestLimit::None => None,
                        TestLimit::InAll => Some(in_all),
                        TestLimit::InOne => Some(in_one[run as usize]),
                        TestLimit::Both => Some(both[run as usize]),
                    };
                    let it = Candidate {
                        claim: Claim { run: RunIx(run), pool: PoolIx(pool), pool_slots, task_limit, need: None },
                        logical_date: (run > 0).then(|| Timestamp::from_second(i64::from(run)).unwrap()),
                        ..candidate(handle, weight, pool_slots)
                    };
                    queue.insert(it);
                    waiting.insert(handle, it);
                }
                Step::Remove(handle) => {
                    prop_assert_eq!(queue.remove(handle), waiting.remove(&handle).is_some());
                }
                Step::RemoveRun(run) => {
                    let before = waiting.len();
                    waiting.retain(|_, it| it.claim.run != RunIx(run));
                    prop_assert_eq!(queue.remove_run(RunIx(run)), before - waiting.len());
                }
                Step::Take => {
                    let expected = best(&waiting, &limits);
                    let taken = queue.take(&mut limits).map(|(handle, claim)| (waiting.remove(&handle).unwrap(), claim));
                    let taken = taken.inspect(|(it, claim)| assert_eq!(it.claim, *claim)).map(|(it, _)| it);
                    prop_assert_eq!(taken.map(|it| (it.priority_weight, it.logical_date, it.map_index, it.order)), expected);
                    if let Some(it) = taken {
                        let total = limits.pools.total(it.claim.pool).unwrap();
                        let used = limits.pools.taken(it.claim.pool);
                        prop_assert!(total < 0 || used as i64 <= total);
                        prop_assert!(limits.executing() <= 5);
                        prop_assert!(limits.active(it.claim.run) <= limits.max_active_tasks(it.claim.run));
                        prop_assert!(chain(&limits, it.claim.task_limit).all(|(_, active, limit)| active <= limit));
                        held.push((it.claim, Held::Queued));
                    }
                }
                Step::Release(at, starts) if !held.is_empty() => {
                    let at = at.index(held.len());
                    if starts && held[at].1 == Held::Queued {
                        limits.start(held[at].0);
                        held[at].1 = Held::Running;
                    } else {
                        let (claim, how) = held.swap_remove(at);
                        limits.release(claim, how);
                    }
                }
                Step::Defer(at) if !held.is_empty() => {
                    let at = at.index(held.len());
                    let (claim, how) = held[at];
                    limits.release(claim, how);
                    if how == Held::Deferred {
                        held.swap_remove(at);
                    } else {
                        limits.defer(claim);
                        held[at].1 = Held::Deferred;
                    }
                }
                Step::Release(..) | Step::Defer(_) => {}
                Step::SetPool(pool, slots, include_deferred) => {
                    limits.set_pool(&format!("p{pool}").into(), slots, include_deferred);
                }
                Step::SetRun(run, limit) => limits.set_run(RunIx(run), 0, limit),
                Step::SetLimit(at, limit) => limits.set_task_limit(all[at as usize], limit),
            }
            assert_counted(&limits, &held, &all);
            prop_assert_eq!(queue.len(), waiting.len());
        }
        for (claim, how) in held {
            limits.release(claim, how);
        }
        assert_counted(&limits, &[], &all);
    }
}
