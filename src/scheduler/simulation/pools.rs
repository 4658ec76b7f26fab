//! Pools that commands define, change and take away while tasks run and wait in them.

use super::*;
use crate::scheduler::command::Done;

fn set(simulation: &mut Simulation, pools: &[(&str, i64)]) -> Reply {
    let pools = pools.iter().map(|&(name, slots)| pool(name, slots)).collect();
    simulation.command(Command::SetPools { pools }).recv().unwrap()
}

fn delete(simulation: &mut Simulation, name: &str) -> Reply {
    simulation.command(Command::DeletePool { name: name.into() }).recv().unwrap()
}

fn code(reply: Reply) -> String {
    reply.unwrap_err().code
}

/// The pools of the database, as `name slots`.
fn stored(simulation: &Simulation) -> Vec<String> {
    let pools = simulation.store.clone().load().unwrap().pools;
    pools.iter().map(|pool| format!("{} {}", pool.name, pool.slots)).collect()
}

fn starts(simulation: &mut Simulation) -> Vec<String> {
    simulation.trace().into_iter().filter(|line| line.starts_with("start ")).collect()
}

const THREE: &str =
    "[default_args]\npool = \"wide\"\n[tasks.a]\nbash = 'true'\n[tasks.b]\nbash = 'true'\n[tasks.c]\nbash = 'true'\n";

/// A DAG whose three tasks are in the pool `wide`, which has one slot; its run has begun.
fn three() -> Simulation {
    let mut simulation = Simulation::with(&[]);
    assert_eq!(set(&mut simulation, &[("wide", 1)]), Ok(Done::PoolsSet { changed: 1 }));
    simulation.save("d.toml", THREE);
    let trigger = crate::scheduler::command::Trigger {
        dag_id: "d".into(),
        run_id: Some("r".into()),
        logical_date: crate::scheduler::command::LogicalDate::None,
        data_interval: None,
        conf: serde_json::Map::new(),
        unpause: false,
    };
    simulation.command(Command::Trigger(trigger)).recv().unwrap().unwrap();
    simulation
}

#[test]
fn a_pool_that_grows_starts_what_waits_in_the_same_turn_and_one_that_shrinks_ends_nothing() {
    let mut simulation = three();
    assert_eq!(starts(&mut simulation), ["start d.a try 1"]);
    set(&mut simulation, &[("wide", 2)]).unwrap();
    assert_eq!(starts(&mut simulation), ["start d.b try 1"]);
    set(&mut simulation, &[("wide", 0)]).unwrap();
    assert_eq!(simulation.trace(), ["pools: default_pool 128, narrow 1, wide 0"]);
    simulation.succeed("d.a");
    assert_eq!(starts(&mut simulation), Vec::<String>::new());
    set(&mut simulation, &[("wide", -1)]).unwrap();
    assert_eq!(starts(&mut simulation), ["start d.c try 1"]);
}

#[test]
fn what_names_a_pool_that_was_deleted_waits_until_it_is_defined_again_also_over_a_restart() {
    let mut simulation = three();
    simulation.trace();
    let deleted = Done::PoolDeleted { pool: pool("wide", 1), waiting: vec!["d".into()] };
    assert_eq!(delete(&mut simulation, "wide"), Ok(deleted));
    assert_eq!(stored(&simulation), Vec::<String>::new());
    simulation.succeed("d.a");
    assert_eq!(starts(&mut simulation), Vec::<String>::new());
    // The file is not parsed anew: the DAG stays as it is, and so does its run.
    let mut simulation = simulation.crash_and_restart();
    assert_eq!(starts(&mut simulation), Vec::<String>::new());
    assert_eq!(code(delete(&mut simulation, "wide")), "unknown-pool");
    set(&mut simulation, &[("wide", 1)]).unwrap();
    assert_eq!(starts(&mut simulation), ["start d.b try 1"]);
    assert_eq!(stored(&simulation), ["wide 1"]);
}

#[test]
fn default_pool_can_be_changed_and_not_be_deleted_and_outlives_a_restart() {
    let mut simulation = Simulation::with(&[]);
    simulation.settings.pools.clear();
    let mut simulation = simulation.crash_and_restart();
    simulation.trace();
    assert_eq!(code(delete(&mut simulation, "default_pool")), "default-pool");
    set(&mut simulation, &[("default_pool", 3)]).unwrap();
    assert_eq!(simulation.trace(), ["pools: default_pool 3"]);
    let simulation = simulation.crash_and_restart();
    let limits = simulation.scheduler.world().limits();
    assert_eq!(limits.pools.total(limits.pools.find("default_pool").unwrap()), Some(3));
}

#[test]
fn a_pool_of_the_configuration_belongs_to_it_and_hides_one_of_the_database() {
    let mut simulation = Simulation::with(&[]);
    assert_eq!(code(set(&mut simulation, &[("narrow", 2)])), "pool-of-configuration");
    assert_eq!(code(delete(&mut simulation, "narrow")), "pool-of-configuration");
    // What is so already is no change; with one that may not be, nothing is done.
    assert_eq!(set(&mut simulation, &[("narrow", 1)]), Ok(Done::PoolsSet { changed: 0 }));
    assert_eq!(code(set(&mut simulation, &[("free", 2), ("narrow", 2)])), "pool-of-configuration");
    assert_eq!(code(set(&mut simulation, &[("free", 2), ("odd", -2)])), "invalid-pool");
    assert_eq!(stored(&simulation), Vec::<String>::new());
    set(&mut simulation, &[("free", 2)]).unwrap();
    simulation.settings.pools.push(pool("free", 5));
    let total = |simulation: &Simulation| {
        let pools = &simulation.scheduler.world().limits().pools;
        pools.find("free").and_then(|pool| pools.total(pool))
    };
    let mut simulation = simulation.crash_and_restart();
    assert_eq!((total(&simulation), stored(&simulation)), (Some(5), vec!["free 2".to_owned()]));
    simulation.settings.pools.pop();
    let simulation = simulation.crash_and_restart();
    assert_eq!(total(&simulation), Some(2));
}

#[test]
fn each_change_of_a_pool_is_in_the_audit_log_once() {
    let mut simulation = Simulation::with(&[]);
    set(&mut simulation, &[("free", 2)]).unwrap();
    set(&mut simulation, &[("free", 2)]).unwrap();
    set(&mut simulation, &[("free", 3)]).unwrap();
    delete(&mut simulation, "free").unwrap();
    let log = simulation.store.audit();
    let told: Vec<String> =
        log.iter().map(|entry| format!("{} {} {}", entry.owner, entry.event, entry.extra)).collect();
    assert_eq!(
        told,
        [
            r#"cli set_pool {"pool":"free","to":{"slots":2,"description":"","include_deferred":false},"from":null}"#,
            r#"cli set_pool {"pool":"free","to":{"slots":3,"description":"","include_deferred":false},"from":{"slots":2,"description":"","include_deferred":false}}"#,
            r#"cli delete_pool {"pool":"free","from":{"slots":3,"description":"","include_deferred":false}}"#,
        ]
    );
}
