use super::*;

fn claim(pool: PoolIx, pool_slots: u32) -> Claim {
    Claim { run: RunIx(0), pool, pool_slots, task_limit: None, need: None }
}

#[test]
fn slots_are_held_from_queued_to_the_end() {
    let mut limits = Limits::new(4);
    let pool = limits.set_pool(&"p".into(), 3, false);
    limits.set_run(RunIx(0), 0, 16);
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
    let endless = limits.set_pool(&"endless".into(), -1, false);
    let unknown = limits.pools.intern(&"unknown".into());
    assert!(limits.pools.has_room(endless, u32::MAX));
    assert!(!limits.pools.has_room(unknown, 1));
    assert_eq!((limits.pools.open(endless), limits.pools.open(unknown)), (-1, 0));
    assert_eq!(limits.pools.iter().collect::<Vec<_>>(), [endless]);
}

#[test]
fn a_pool_made_smaller_shows_no_negative_room() {
    let mut limits = Limits::new(4);
    let pool = limits.set_pool(&"p".into(), 4, false);
    limits.set_run(RunIx(0), 0, 16);
    limits.occupy(claim(pool, 4));
    limits.set_pool(&"p".into(), 1, false);
    assert_eq!(limits.pools.open(pool), 0);
    assert!(!limits.pools.has_room(pool, 1));
}

#[test]
#[should_panic(expected = "and once")]
fn a_second_release_is_a_bug_that_shows() {
    let mut limits = Limits::new(4);
    let pool = limits.set_pool(&"p".into(), 4, false);
    limits.set_run(RunIx(0), 0, 16);
    limits.occupy(claim(pool, 1));
    limits.release(claim(pool, 1), Held::Queued);
    limits.release(claim(pool, 1), Held::Queued);
}

#[test]
fn what_is_deferred_holds_slots_only_if_its_pool_says_so_and_counts_for_its_task_in_any_case() {
    for (include_deferred, open) in [(false, 3), (true, 1)] {
        let mut limits = Limits::new(4);
        let pool = limits.set_pool(&"p".into(), 3, include_deferred);
        limits.set_run(RunIx(0), 0, 16);
        let in_all = limits.add_task_limit(Scope::Dag, 1, None);
        let in_one = limits.add_task_limit(Scope::Run, 2, Some(in_all));
        let claim = Claim { task_limit: Some(in_one), ..claim(pool, 2) };
        limits.occupy(claim);
        limits.start(claim);
        limits.release(claim, Held::Running);
        limits.defer(claim);
        assert_eq!((limits.pools.deferred(pool), limits.pools.open(pool), limits.executing()), (2, open, 0));
        assert_eq!((limits.task_limit(in_all), limits.task_limit(in_one)), ((Scope::Dag, 1, 1), (Scope::Run, 1, 2)));
        assert_eq!(limits.full_quota(&claim), Some(Quota::Task(in_all)));
        limits.release(claim, Held::Deferred);
        assert_eq!((limits.pools.deferred(pool), limits.pools.open(pool), limits.full_quota(&claim)), (0, 3, None));
        limits.drop_task_limit(in_one);
        limits.drop_task_limit(in_all);
        assert_eq!(limits.task_limits_in_use(), 0);
    }
}
