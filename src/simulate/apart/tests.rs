//! Worlds apart come to what one world comes to, on homes drawn by chance.

use std::cell::Cell;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::simulate::Choosing;
use crate::simulate::testing::{self, pool};

const HEADS: [&str; 8] = [
    "schedule = \"*/20 * * * *\"",
    "schedule = \"17 * * * *\"\nmax_active_runs = 2",
    "schedule = { every = \"50m\" }\nstart_date = 2026-10-24T00:00:00Z\ncatchup = true\nmax_active_runs = 3",
    "schedule = \"30 2 * * *\"\ntimezone = \"Europe/Berlin\"",
    "schedule = \"@continuous\"\nmax_active_runs = 1",
    "schedule = \"0 * * * *\"\nmax_consecutive_failed_dag_runs = 3",
    "schedule = \"0 * * * *\"\ndagrun_timeout = \"25m\"",
    "schedule = \"@once\"",
];

const TASKS: [&str; 5] = [
    "chain = [\"a >> b\"]\n[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\n",
    "[tasks.a]\nbash = \"true\"\nretries = 1\nretry_delay = \"4m\"\n[tasks.b]\nbash = \"true\"\npool = \"side\"\npool_slots = 2\n",
    "chain = [\"a >> [b, c] >> d\"]\n[tasks.a]\nempty = true\n[tasks.b]\nbash = \"true\"\n[tasks.c]\nbash = \"true\"\n\
     [tasks.d]\nempty = true\ntrigger_rule = \"one_success\"\n",
    "[tasks.a]\nbash = \"true\"\ndepends_on_past = true\n",
    "[tasks.a]\nempty = true\n",
];

fn subject(number: usize, head: usize, tasks: usize, lasts: u64, fails: f64) -> Subject {
    testing::subject(&format!("d{number:02}"), &format!("{}\n{}", HEADS[head], TASKS[tasks]), lasts, fails)
}

fn plan(subjects: Vec<Subject>, parallelism: u32) -> Plan {
    Plan {
        from: "2026-10-24T22:00:00Z".parse().unwrap(),
        until: "2026-10-26T01:30:00Z".parse().unwrap(),
        subjects,
        parallelism,
        pools: vec![pool("default_pool", 128), pool("side", 4), pool("unlimited", -1)],
        choosing: Choosing {
            rows: None,
            fair_share: parallelism % 2 == 1,
            ageing: (parallelism % 3 == 1).then_some(Duration::from_secs(600)),
        },
        seed: 3,
        is_drawn: false,
    }
}

/// Backwards, as a second thread might.
fn backwards(parts: &mut [Part<'_>]) {
    parts.iter_mut().rev().for_each(Part::go_on);
}

fn drawn() -> impl Strategy<Value = Plan> {
    let one = (0..HEADS.len(), 0..TASKS.len(), 1_u64..2_000, prop_oneof![Just(0.0), Just(0.3)]);
    (prop::collection::vec(one, 2..7), prop_oneof![Just(3_u32), Just(32)]).prop_map(|(all, parallelism)| {
        let subjects = all.into_iter().enumerate();
        plan(
            subjects.map(|(number, (head, tasks, lasts, fails))| subject(number, head, tasks, lasts, fails)).collect(),
            parallelism,
        )
    })
}

#[test]
fn what_is_found_apart_is_what_one_world_finds() {
    const CASES: u32 = 48;
    let taken_apart = Cell::new(0);
    let is_the_same = |mut plan: Plan| {
        plan.until = "2026-10-25T06:30:00Z".parse().unwrap();
        if let Some(report) = apart(&plan, &backwards, &mut |_| true) {
            taken_apart.set(taken_apart.get() + 1);
            prop_assert_eq!(report, drive::jointly(&plan, &mut |_| true));
        }
        Ok(())
    };
    TestRunner::new(ProptestConfig::with_cases(CASES)).run(&drawn(), is_the_same).unwrap();
    assert!(taken_apart.get() > CASES / 10, "only {} of {CASES} homes say anything", taken_apart.get());
}

#[test]
fn dags_that_do_not_meet_are_taken_apart_and_come_to_the_same() {
    for parallelism in [2, 32] {
        let subjects = (0..4).map(|number| subject(number, number % 2, number % 2, 90, 0.0)).collect();
        let plan = plan(subjects, parallelism);
        let report = apart(&plan, &backwards, &mut |_| true);
        let jointly = drive::jointly(&plan, &mut |_| true);
        let is_met = jointly.limits.iter().any(|limit| limit.waits.count > 0);
        assert_eq!(is_met, parallelism == 2);
        assert_eq!(report.is_none(), is_met);
        assert_eq!(simulate_with(&plan, &backwards, &mut |_| true), jointly);
        assert!(report.is_none_or(|report| report == jointly && report.totals.runs > 100));
    }
}

#[test]
fn dags_that_meet_at_a_pool_late_are_put_together_again() {
    // Both hold all of the pool, hours apart but once: at midnight.
    let pooled = |number: usize, cron: &str| {
        let text = format!("schedule = \"{cron}\"\n[tasks.a]\nbash = \"true\"\npool = \"side\"\npool_slots = 4\n");
        testing::subject(&format!("d{number}"), &text, 60, 0.0)
    };
    let plan = plan(vec![pooled(0, "0 1-23/2 * * *"), pooled(1, "0 0-23/2 26 * *")], 32);
    assert!(apart(&plan, &backwards, &mut |_| true).is_some());
    let mut meeting = plan.clone();
    meeting.subjects[1] = pooled(1, "0 1 26 * *");
    assert!(apart(&meeting, &backwards, &mut |_| true).is_none());
    let report = simulate_with(&meeting, &backwards, &mut |_| true);
    assert_eq!(report.limits.iter().map(|limit| limit.waits.count).sum::<u64>(), 1);
}

#[test]
fn what_is_interrupted_apart_covers_whole_windows() {
    let plan = plan((0..3).map(|number| subject(number, 0, 0, 60, 0.0)).collect(), 32);
    let report = apart(&plan, &backwards, &mut |_| false).unwrap();
    assert_eq!(report.until.as_microsecond() - plan.from.as_microsecond(), FIRST_WINDOW);
    let mut shorter = plan.clone();
    shorter.until = report.until;
    assert_eq!(report, drive::jointly(&shorter, &mut |_| true));
}
