//! What is counted again is what each run would have done, had it been lived through.

use std::cell::Cell;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::simulate::alike::Model;
use crate::simulate::drive::{self, Drive};
use crate::simulate::testing::{self, pool};
use crate::simulate::{Choosing, Plan, Report, Subject, draw, simulate};

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
        choosing: Choosing {
            rows: None,
            fair_share: parallelism % 2 == 1,
            ageing: (parallelism % 3 == 1).then_some(Duration::from_secs(600)),
        },
        seed: 3,
        is_drawn: false,
    }
}

/// Without repeating anything.
fn one_by_one(plan: &Plan) -> Report {
    let mut drive = Drive::new(plan, &plan.subjects);
    drive.alike.fill_with(|| None);
    drive.run(plan.until.as_microsecond(), &mut |_| true);
    assert_eq!(drive.models.all().count(), 0);
    drive.finish(plan.until).into_report(plan, plan.until)
}

/// As [`drive::jointly`] goes through it.
fn driven(plan: &Plan) -> Drive {
    let mut drive = Drive::new(plan, &plan.subjects);
    drive.run(plan.until.as_microsecond(), &mut |_| true);
    drive
}

/// How many spells there are that others repeat.
fn models(plan: &Plan) -> usize {
    driven(plan).models.all().count()
}

/// The report, its picture and all its fractions are the same to the last bit, with whatever is repeated.
fn is_the_same(plan: &Plan) -> Result<(), TestCaseError> {
    let expected = one_by_one(plan);
    for report in [drive::jointly(plan, &mut |_| true), simulate(plan, &mut |_| true)] {
        prop_assert_eq!(&report, &expected);
        prop_assert_eq!(format!("{report:?}"), format!("{expected:?}"));
        prop_assert_eq!(draw(&report), draw(&expected));
    }
    Ok(())
}

fn drawn() -> impl Strategy<Value = Plan> {
    // Durations at which one run ends just when another is due, too.
    let lasts = prop_oneof![1_u64..1_500, Just(60), Just(600), Just(1_200), Just(3_600)];
    let one = (0..HEADS.len(), 0..TASKS.len(), lasts, prop_oneof![3 => Just(0.0), 1 => Just(0.2)]);
    let parallelism = prop_oneof![Just(1_u32), Just(2), Just(32)];
    (prop::collection::vec(one, 1..4), parallelism, any::<bool>()).prop_map(|(all, parallelism, is_drawn)| {
        let of = |(number, (head, tasks, lasts, fails))| subject(number, head, tasks, lasts, fails);
        Plan { is_drawn, ..plan(all.into_iter().enumerate().map(of).collect(), parallelism) }
    })
}

#[test]
fn repeated_runs_come_to_what_they_come_to_one_by_one() {
    const CASES: u32 = 64;
    let with_models = Cell::new(0);
    let test = |plan: Plan| {
        is_the_same(&plan)?;
        with_models.set(with_models.get() + u32::from(models(&plan) > 0));
        Ok(())
    };
    TestRunner::new(ProptestConfig::with_cases(CASES)).run(&drawn(), test).unwrap();
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
    // One that takes as long as its period never ends by itself; nor does one of which a try passes its execution_timeout.
    assert_eq!(models(&plan(vec![subject(0, 0, 0, 600, 0.0)], 32)), 0);
    assert_eq!(models(&plan(vec![subject(0, 1, 6, 600, 0.0)], 32)), 0);
}

/// Schedules that meet: at each hour, at some hours, a while later, and across a change of the clocks.
const MEETING: [&str; 11] = [
    "schedule = \"0 * * * *\"",
    "schedule = \"0 * * * *\"\ndata_interval = true",
    "schedule = \"0 */2 * * *\"\ndata_interval = true",
    "schedule = \"*/30 * * * *\"\nmax_active_runs = 1",
    "schedule = \"3 * * * *\"",
    "schedule = \"0 3,4 * * *\"\ntimezone = \"Europe/Berlin\"\ndata_interval = true",
    "schedule = \"0 * * * *\"\nmax_active_tasks = 1",
    "schedule = \"*/5 * * * *\"",
    "schedule = \"20,40,42 * * * *\"",
    "schedule = \"30 3,4 * * *\"\nexpect_by = \"05:01\"",
    "schedule = { every = \"1h\" }\nstart_date = 2026-10-24T00:02:00Z\ncatchup = true\nmax_active_runs = 2",
];

const MEETING_TASKS: [&str; 5] = [
    "chain = [\"a >> b\"]\n[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\n",
    "[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\n[tasks.c]\nbash = \"true\"\n",
    "chain = [\"a >> [b, c]\"]\n[tasks.a]\nbash = \"true\"\npool = \"side\"\n[tasks.b]\nbash = \"true\"\npool = \"side\"\npool_slots = 2\n\
     [tasks.c]\nempty = true\n",
    "[tasks.a]\nbash = \"true\"\npriority_weight = 5\n[tasks.b]\nbash = \"true\"\npriority_weight = 5\n",
    "[tasks.a]\nempty = true\n",
];

fn meeting() -> impl Strategy<Value = Plan> {
    let lasts = prop_oneof![4 => 1_u64..150, 1 => 150_u64..1_000, 1 => Just(60)];
    let fails = prop_oneof![9 => Just(0.0), 1 => Just(0.05)];
    let one = (0..MEETING.len(), 0..MEETING_TASKS.len(), lasts, fails);
    (prop::collection::vec(one, 2..9), 1_u32..4, any::<bool>()).prop_map(|(all, parallelism, is_drawn)| {
        let subjects = all.into_iter().enumerate().map(|(number, (head, tasks, lasts, fails))| {
            let text = format!("{}\n{}", MEETING[head], MEETING_TASKS[tasks]);
            testing::subject(&format!("d{number:02}"), &text, lasts, fails)
        });
        Plan { is_drawn, ..plan(subjects.collect(), parallelism) }
    })
}

#[test]
fn dags_that_meet_at_limits_come_to_what_they_come_to_one_by_one() {
    const CASES: u32 = 96;
    // Cases in which a spell of several DAGs has come again; one of them with waits; with runs that began later; with several of one DAG.
    let seen = Cell::new([0_u32; 4]);
    let test = |plan: Plan| {
        is_the_same(&plan)?;
        let drive = driven(&plan);
        let repeated = || drive.models.all().filter(|model| model.repeats > 0 && model.dags() > 1);
        let kinds = [
            repeated().count() > 0,
            repeated().any(|model| model.share.waits() > 0),
            repeated().any(Model::has_later_runs),
            repeated().any(|model| model.runs.len() > model.dags()),
        ];
        let counts = seen.get();
        seen.set(std::array::from_fn(|at| counts[at] + u32::from(kinds[at])));
        Ok(())
    };
    TestRunner::new(ProptestConfig::with_cases(CASES)).run(&meeting(), test).unwrap();
    let seen = seen.get();
    assert!(seen.iter().all(|&count| count > CASES / 16), "of {CASES} homes {seen:?} say anything");
}

#[test]
fn who_of_equals_comes_first_does_not_depend_on_the_spells_before() {
    // Each hour the longest wait is another DAG's, if places were given out in the order in which they became free.
    let text =
        "schedule = \"0 * * * *\"\nchain = [\"a >> b\"]\n[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\n";
    let subjects = (0..7).map(|number| testing::subject(&format!("d{number}"), text, 40 + 7 * (number % 3), 0.0));
    let plan = plan(subjects.collect(), 3);
    is_the_same(&plan).unwrap();
    let drive = driven(&plan);
    let found: Vec<(usize, u64)> = drive.models.all().map(|model| (model.dags(), model.repeats)).collect();
    // Of the hours from 22:00 to 11:00 all but the first.
    assert_eq!(found, [(7, 13)]);
}

#[test]
fn more_runs_than_one_turn_creates_go_like_those_of_the_hour_before() {
    let tasks: String = (0..5).map(|task| format!("[tasks.t{task}]\nbash = \"true\"\n")).collect();
    let subjects = (0..900).map(|number| {
        let (interval, weight) = (number % 3 == 0, 1 + number % 2);
        let text = format!(
            "schedule = \"0 * * * *\"\ndata_interval = {interval}\nchain = [\"t0 >> t1 >> t2 >> t3 >> t4\"]\n\
             [default_args]\npriority_weight = {weight}\n{tasks}"
        );
        testing::subject(&format!("d{number:03}"), &text, 10, 0.0)
    });
    let mut plan = plan(subjects.collect(), 32);
    plan.from = "2026-10-25T00:30:00Z".parse().unwrap();
    // Ten minutes into those of the last hour, which are lived through.
    plan.until = "2026-10-25T04:10:00Z".parse().unwrap();
    is_the_same(&plan).unwrap();
    let drive = driven(&plan);
    let found: Vec<(usize, u64)> = drive.models.all().map(|model| (model.dags(), model.repeats)).collect();
    assert_eq!(found, [(900, 2)]);
}

#[test]
fn a_spell_in_which_something_else_comes_is_not_repeated() {
    let hourly = testing::subject("d0", &format!("{}\n{}", HEADS[1], TASKS[0]), 130, 0.0);
    let expected =
        testing::subject("d1", &format!("schedule = \"0 6 * * *\"\nexpect_by = \"22:03\"\n{}", TASKS[5]), 1, 0.0);
    let plan = Plan { is_drawn: true, ..plan(vec![hourly, expected], 32) };
    let until = |text: &str| Plan { until: text.parse().unwrap(), ..plan.clone() };
    assert_eq!(models(&until("2026-10-24T22:30:00Z")), 0);
    assert_eq!(models(&until("2026-10-24T23:30:00Z")), 1);
    is_the_same(&plan).unwrap();
}

#[test]
fn a_dag_whose_next_run_comes_too_soon_is_not_taken_for_one_that_has_ended() {
    // That of 22:20 is over when the next comes, which is known when those of 22:40 and 22:42 overlap.
    let text = format!("schedule = \"20,40,42 * * * *\"\n{}", TASKS[0]);
    let mut plan = plan(vec![testing::subject("d0", &text, 130, 0.0)], 32);
    plan.from = "2026-10-24T22:10:00Z".parse().unwrap();
    is_the_same(&plan).unwrap();
    let found: Vec<(usize, u64)> = driven(&plan).models.all().map(|model| (model.runs.len(), model.repeats)).collect();
    assert_eq!(found, [(1, 12), (2, 12)]);
}

#[test]
fn what_is_remembered_is_bounded_and_begins_anew_when_it_is_full() {
    // Of each hour another set of DAGs: two to the power of six.
    let head = |number: u32| {
        let hours: Vec<String> = (0..64_u32)
            .filter(|hour| hour >> number & 1 == 1)
            .map(|hour| {
                let at = "2026-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap()
                    + jiff::SignedDuration::from_hours(hour.into());
                at.to_string()
            })
            .collect();
        format!("schedule = {{ events = [{}] }}\n", hours.join(", "))
    };
    let subjects =
        (0..6).map(|number| testing::subject(&format!("d{number}"), &format!("{}{}", head(number), TASKS[5]), 1, 0.0));
    let mut plan = plan(subjects.collect(), 32);
    plan.from = "2025-12-31T23:30:00Z".parse().unwrap();
    plan.until = "2026-01-03T23:30:00Z".parse().unwrap();
    is_the_same(&plan).unwrap();
    let drive = driven(&plan);
    assert!(drive.models.all().count() > 0);
    let mut narrow = Drive::new(&plan, &plan.subjects);
    narrow.models.most = 40;
    narrow.run(plan.until.as_microsecond(), &mut |_| true);
    let kept: usize = narrow.models.all().map(|model| model.runs.len() + model.share.entries()).sum();
    assert!(kept <= 40 && narrow.models.all().count() > 0, "{kept}");
    assert_eq!(narrow.finish(plan.until).into_report(&plan, plan.until), one_by_one(&plan));
}
