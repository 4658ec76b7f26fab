//! What is counted again is what each run would have done: with a picture every run is lived through, without one they are repeated.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::simulate::drive::{self, Drive};
use crate::simulate::testing::{self, pool};
use crate::simulate::{Picture, Plan, Report, Subject, simulate};

const HEADS: [&str; 11] = [
    "schedule = \"*/20 * * * *\"",
    "schedule = \"0 * * * *\"",
    "schedule = \"30 1-4 * * *\"\ntimezone = \"Europe/Berlin\"",
    "schedule = \"7 * * * *\"\ntimezone = \"Australia/Lord_Howe\"\ndata_interval = true",
    "schedule = { every = \"50m\" }\nstart_date = 2026-10-24T00:00:00Z\ncatchup = true\nmax_active_runs = 1",
    "schedule = \"0 * * * *\"\ndagrun_timeout = \"25m\"",
    "schedule = \"0 * * * *\"\nend_date = 2026-10-25T07:00:00Z",
    "schedule = \"0 * * * *\"\nmax_consecutive_failed_dag_runs = 2",
    "schedule = { events = [2026-10-25T03:00:00Z, 2026-10-25T04:00:00Z, 2026-10-25T09:00:00Z, 2026-10-25T09:20:00Z] }",
    "schedule = \"0,1 * * * *\"",
    "schedule = \"0 */2 * * *\"\nmax_active_tasks = 1",
];

const TASKS: [&str; 7] = [
    "chain = [\"a >> b\"]\n[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\n",
    "[tasks.a]\nbash = \"true\"\nretries = 1\nretry_delay = \"4m\"\n[tasks.b]\nbash = \"true\"\npool = \"side\"\npool_slots = 2\n",
    "chain = [\"a >> [b, c, d] >> e\"]\n[tasks.a]\nempty = true\n[tasks.b]\nbash = \"true\"\npool = \"side\"\n[tasks.c]\nbash = \"true\"\n\
     pool = \"side\"\n[tasks.d]\nbash = \"true\"\npriority_weight = 9\n[tasks.e]\nempty = true\ntrigger_rule = \"one_success\"\n",
    "[tasks.a]\nbash = \"true\"\ndepends_on_past = true\n",
    "[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\nstart_date = 2026-10-25T02:00:00Z\nend_date = 2026-10-25T07:00:00Z\n",
    "[tasks.a]\nempty = true\n",
    "[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\nexecution_timeout = \"9m\"\n",
];

fn subject(number: usize, head: usize, tasks: usize, lasts: u64, fails: f64) -> Subject {
    testing::subject(&format!("d{number:02}"), &format!("{}\n{}", HEADS[head], TASKS[tasks]), lasts, fails)
}

fn plan(subjects: Vec<Subject>, parallelism: u32) -> Plan {
    Plan {
        from: "2026-10-24T21:30:00Z".parse().unwrap(),
        // Ten minutes into what begins with the hour.
        until: "2026-10-25T11:10:00Z".parse().unwrap(),
        subjects,
        parallelism,
        pools: vec![pool("default_pool", 128), pool("side", 2), pool("shut", 0), pool("unlimited", -1)],
        seed: 3,
        is_drawn: false,
    }
}

/// Without repeating anything.
fn one_by_one(plan: &Plan) -> Report {
    let report = drive::jointly(&Plan { is_drawn: true, ..plan.clone() }, &mut |_| true);
    Report { picture: Picture::default(), ..report }
}

/// How many DAGs have had a run that others repeat.
fn models(plan: &Plan) -> usize {
    let mut drive = Drive::new(plan, &plan.subjects);
    drive.run(plan.until.as_microsecond(), &mut |_| true);
    drive.alike.iter().flatten().filter(|alike| alike.model.is_some()).count()
}

fn drawn() -> impl Strategy<Value = Plan> {
    // Durations at which one run ends just when another is due, too.
    let lasts = prop_oneof![1_u64..1_500, Just(60), Just(600), Just(1_200), Just(3_600)];
    let one = (0..HEADS.len(), 0..TASKS.len(), lasts, prop_oneof![3 => Just(0.0), 1 => Just(0.2)]);
    (prop::collection::vec(one, 1..4), prop_oneof![Just(1_u32), Just(2), Just(32)]).prop_map(|(all, parallelism)| {
        let of = |(number, (head, tasks, lasts, fails))| subject(number, head, tasks, lasts, fails);
        plan(all.into_iter().enumerate().map(of).collect(), parallelism)
    })
}

#[test]
fn repeated_runs_come_to_what_they_come_to_one_by_one() {
    const CASES: u32 = 64;
    let with_models = Cell::new(0);
    let is_the_same = |plan: Plan| {
        let expected = one_by_one(&plan);
        prop_assert_eq!(&drive::jointly(&plan, &mut |_| true), &expected);
        prop_assert_eq!(&simulate(&plan, &mut |_| true), &expected);
        with_models.set(with_models.get() + u32::from(models(&plan) > 0));
        Ok(())
    };
    TestRunner::new(ProptestConfig::with_cases(CASES)).run(&drawn(), is_the_same).unwrap();
    assert!(with_models.get() > CASES / 4, "only {} of {CASES} homes say anything", with_models.get());
}

#[test]
fn every_kind_of_dag_comes_to_the_same_by_itself() {
    for (head, tasks) in (0..HEADS.len()).flat_map(|head| (0..TASKS.len()).map(move |tasks| (head, tasks))) {
        for (lasts, fails) in [(60, 0.0), (600, 0.1)] {
            let plan = plan(vec![subject(0, head, tasks, lasts, fails)], 2);
            let report = simulate(&plan, &mut |_| true);
            assert_eq!(report, one_by_one(&plan), "{}\n{} of {lasts} s", HEADS[head], TASKS[tasks]);
        }
    }
}

#[test]
fn only_a_dag_that_looks_at_nothing_else_has_runs_to_repeat() {
    for (head, tasks, is_repeated) in [(0, 0, true), (5, 2, true), (0, 3, false), (7, 0, false)] {
        assert_eq!(models(&plan(vec![subject(0, head, tasks, 60, 0.0)], 32)) > 0, is_repeated, "{head} {tasks}");
    }
    // Two that begin at the same instant are never by themselves.
    assert_eq!(models(&plan(vec![subject(0, 1, 0, 60, 0.0), subject(1, 1, 0, 60, 0.0)], 32)), 0);
    // One that takes as long as its period never ends by itself; nor does one of which a try passes its execution_timeout.
    assert_eq!(models(&plan(vec![subject(0, 0, 0, 600, 0.0)], 32)), 0);
    assert_eq!(models(&plan(vec![subject(0, 1, 6, 600, 0.0)], 32)), 0);
}
