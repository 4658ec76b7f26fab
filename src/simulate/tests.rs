//! Small simulations whose reports can be worked out by hand.

use std::time::Duration;

use jiff::Timestamp;

use crate::simulate::testing::{self, pool};
use crate::simulate::{
    Choosing, DeadlineKind, LimitKind, LimitReport, Plan, Report, Subject, draw, next_runs, simulate,
};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn subject(name: &str, text: &str, lasts: u64) -> Subject {
    testing::subject(name, text, lasts, 0.0)
}

fn plan(from: &str, until: &str, subjects: Vec<Subject>) -> Plan {
    Plan {
        from: at(from),
        until: at(until),
        subjects,
        parallelism: 32,
        pools: vec![pool("default_pool", 128), pool("narrow", 1)],
        choosing: Choosing::default(),
        seed: 7,
        is_drawn: true,
    }
}

fn run(plan: &Plan) -> Report {
    simulate(plan, &mut |_| true)
}

fn limit<'a>(report: &'a Report, kind: &LimitKind) -> &'a LimitReport {
    report.limits.iter().find(|limit| limit.kind == *kind).unwrap()
}

const HOURLY: &str =
    "schedule = \"0 * * * *\"\nchain = [\"a >> b\"]\n[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\n";

#[test]
fn an_hourly_dag_runs_at_every_hour_and_what_is_due_at_the_end_is_left_out() {
    let report = run(&plan("2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z", vec![subject("hourly", HOURLY, 600)]));
    let dag = &report.dags[0];
    assert_eq!((dag.totals.runs, dag.totals.succeeded_runs, dag.totals.instances), (24, 24, 48));
    assert_eq!((dag.first_run, dag.last_run), (Some(at("2026-11-21T00:00:00Z")), Some(at("2026-11-21T23:00:00Z"))));
    assert_eq!((dag.mean, dag.longest), (Some(seconds(1_200)), Some(seconds(1_200))));
    assert_eq!((dag.totals.overlaps, dag.peak_running), (0, 1));
    assert!(report.limits.iter().all(|limit| limit.waits.count == 0));
}

#[test]
fn a_list_that_is_not_known_ahead_is_taken_to_have_one_element() {
    let text = "schedule = \"0 * * * *\"\n[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\nexpand = { x = { xcom = \"a\" } }\n\
        [tasks.c]\nbash = \"true\"\nexpand = { x = [1, 2, 3] }\n";
    let report = run(&plan("2026-11-21T00:00:00Z", "2026-11-21T02:00:00Z", vec![subject("mapped", text, 60)]));
    let totals = &report.dags[0].totals;
    assert_eq!((totals.runs, totals.succeeded_runs, totals.succeeded_instances), (2, 2, 10));
}

#[test]
fn runs_that_take_longer_than_their_period_overlap_and_then_wait_for_max_active_runs() {
    let text = format!("max_active_runs = 2\nstart_date = 2026-11-21T00:00:00Z\ncatchup = true\n{HOURLY}");
    // Each run takes three hours, two at a time: they begin at 0, 1, 3, 4 and 6, all but the first beside another one.
    let report = run(&plan("2026-11-21T00:00:00Z", "2026-11-21T06:30:00Z", vec![subject("slow", &text, 5_400)]));
    let dag = &report.dags[0];
    assert_eq!((dag.totals.runs, dag.totals.overlaps, dag.peak_running), (5, 4, 2));
    assert_eq!(dag.totals.unfinished_runs, 2);
    let waits = &limit(&report, &LimitKind::MaxActiveRuns).waits;
    // Due at 2, 3 and 4; begun at 3, 4 and 6.
    assert_eq!((waits.count, waits.total, waits.longest), (3, seconds(4 * 3_600), seconds(2 * 3_600)));
    assert_eq!(waits.longest_of, Some(("slow".into(), None, at("2026-11-21T04:00:00Z"))));
    assert_eq!(dag.behind.map(|behind| behind.since), Some(at("2026-11-21T05:00:00Z")));
}

#[test]
fn who_waits_for_a_pool_is_said_with_how_long_and_the_pool_s_full_time() {
    let text = "schedule = \"0 * * * *\"\n[default_args]\npool = \"narrow\"\n[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\n[tasks.c]\nbash = \"true\"\n";
    let report = run(&plan("2026-11-21T00:00:00Z", "2026-11-21T01:00:00Z", vec![subject("wide", text, 60)]));
    let narrow = limit(&report, &LimitKind::Pool("narrow".into()));
    assert_eq!((narrow.size, narrow.peak, narrow.full_for), (Some(1), Some(1), Some(seconds(180))));
    assert_eq!((narrow.waits.count, narrow.waits.total, narrow.waits.longest), (2, seconds(180), seconds(120)));
    assert_eq!(narrow.waits.longest_of.as_ref().unwrap().1.as_ref().unwrap().as_str(), "c");
    assert_eq!(limit(&report, &LimitKind::Parallelism).waits.count, 0);
    assert_eq!(limit(&report, &LimitKind::Parallelism).peak, Some(1));
}

#[test]
fn the_longest_path_first_makes_a_simulated_run_shorter() {
    let mean = |rule: &str| {
        let text = format!(
            "schedule = \"0 * * * *\"\n[default_args]\nweight_rule = \"{rule}\"\n[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\n\
             [tasks.c]\nbash = \"true\"\n"
        );
        let mut subject = subject("three", &text, 600);
        subject.outlooks[2].lasts_for = seconds(1_800);
        let mut plan = plan("2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z", vec![subject]);
        plan.parallelism = 2;
        let report = run(&plan);
        assert_eq!(report.dags[0].totals.succeeded_runs, 24, "{rule}");
        report.dags[0].mean
    };
    // Only what they take tells which is the longest: a beside b, and then c; else c beside a and b.
    assert_eq!(mean("downstream"), Some(seconds(600 + 1_800)));
    assert_eq!(mean("critical_path"), Some(seconds(1_800)));
}

#[test]
fn a_narrower_executor_is_what_is_waited_for_instead() {
    let text = "schedule = \"0 * * * *\"\n[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\n";
    let mut plan = plan("2026-11-21T00:00:00Z", "2026-11-21T01:00:00Z", vec![subject("wide", text, 60)]);
    plan.parallelism = 1;
    let report = run(&plan);
    let waits = &limit(&report, &LimitKind::Parallelism).waits;
    assert_eq!((waits.count, waits.total), (1, seconds(60)));
}

#[test]
fn a_sensor_that_waits_holds_no_slot_and_gives_up_when_its_timeout_is_over() {
    let text = |timeout: &str| {
        format!(
            "schedule = \"0 * * * *\"\nchain = [\"[a, b] >> c\"]\n[default_args]\npool = \"narrow\"\n\
             [tasks.a]\nsensor = {{ file = \"in/a\", timeout = \"{timeout}\" }}\n\
             [tasks.b]\nsensor = {{ file = \"in/b\", mode = \"reschedule\" }}\n[tasks.c]\nbash = \"true\"\n"
        )
    };
    let of =
        |timeout| plan("2026-11-21T00:00:00Z", "2026-11-21T01:00:00Z", vec![subject("patient", &text(timeout), 600)]);
    let report = run(&of("1h"));
    let totals = &report.dags[0].totals;
    assert_eq!((totals.succeeded_runs, totals.succeeded_instances, totals.retries), (1, 3, 0));
    // Both sensors wait at the same time, the second after the look of the first; then one task takes as long.
    let look = Duration::from_micros(1);
    assert_eq!(report.dags[0].mean, Some(seconds(1_200) + look));
    let narrow = limit(&report, &LimitKind::Pool("narrow".into()));
    assert_eq!((narrow.full_for, narrow.waits.count, narrow.waits.total), (Some(seconds(600) + 2 * look), 1, look));
    let report = run(&of("5m"));
    let totals = &report.dags[0].totals;
    assert_eq!((totals.failed_runs, totals.failed_instances, totals.unrun_instances), (1, 1, 1));
    assert_eq!(report.dags[0].mean, Some(seconds(600) + look));
}

#[test]
fn max_active_tasks_is_named_when_it_holds_a_run_back() {
    let text =
        "schedule = \"0 * * * *\"\nmax_active_tasks = 1\n[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\n";
    let report = run(&plan("2026-11-21T00:00:00Z", "2026-11-21T01:00:00Z", vec![subject("thin", text, 60)]));
    let waits = &limit(&report, &LimitKind::MaxActiveTasks).waits;
    assert_eq!((waits.count, waits.longest), (1, seconds(60)));
}

#[test]
fn deadlines_and_expectations_are_counted_as_they_will_be_missed() {
    let keys = "deadlines = [{ reference = \"queued_at\", interval = \"15m\", callback = { bash = \"true\" } }, { reference = \"logical_date\", interval = \"25m\" }]\nexpect_by = \"01:10\"\non_failure = [{ bash = \"true\" }]\n";
    let subjects = vec![subject("late", &format!("{keys}{HOURLY}"), 600), subject("other", HOURLY, 600)];
    let report = run(&plan("2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z", subjects));
    let found: Vec<(DeadlineKind, Duration, u64, String)> = report
        .deadlines
        .iter()
        .map(|deadline| (deadline.kind, deadline.limit, deadline.count, deadline.first.to_string()))
        .collect();
    // Each of the 24 runs takes twenty minutes; at 01:10 that of midnight has succeeded.
    assert_eq!(found, [(DeadlineKind::Deadline, seconds(900), 24, "2026-11-21T00:15:00Z".to_owned())]);
}

#[test]
fn a_passed_timeout_is_a_missed_deadline_of_the_run_or_of_the_try() {
    let long = format!("dagrun_timeout = \"15m\"\n{HOURLY}");
    let cut = HOURLY.replace("[tasks.b]", "execution_timeout = \"1m\"\nretries = 1\nretry_delay = \"30s\"\n[tasks.b]");
    let subjects = vec![subject("cut", &cut, 600), subject("long", &long, 600)];
    let report = run(&plan("2026-11-21T00:00:00Z", "2026-11-21T02:00:00Z", subjects));
    let found: Vec<(DeadlineKind, &str, u64)> =
        report.deadlines.iter().map(|deadline| (deadline.kind, deadline.dag_id.as_str(), deadline.count)).collect();
    // Two runs with two tries each, and two runs of twenty minutes.
    assert_eq!(found, [(DeadlineKind::ExecutionTimeout, "cut", 4), (DeadlineKind::DagrunTimeout, "long", 2)]);
    assert_eq!((report.dags[0].totals.failed_runs, report.dags[0].totals.retries), (2, 2));
    assert_eq!(report.dags[0].longest, Some(seconds(150)));
    assert_eq!(report.dags[1].longest, Some(seconds(900)));
}

#[test]
fn about_as_many_tries_fail_as_are_to_and_the_same_ones_for_a_seed() {
    let mut simulated = plan("2026-01-01T00:00:00Z", "2026-03-01T00:00:00Z", vec![subject("hourly", HOURLY, 60)]);
    simulated.subjects[0].outlooks[0].fails = 0.25;
    let report = run(&simulated);
    let share = report.totals.failed_runs as f64 / report.totals.runs as f64;
    assert!((0.22..0.28).contains(&share), "{share}");
    assert_eq!(run(&simulated), report);
    simulated.parallelism = 1;
    assert_eq!(run(&simulated).totals.failed_runs, report.totals.failed_runs);
    simulated.seed = 8;
    assert_ne!(run(&simulated).totals.failed_runs, report.totals.failed_runs);
}

#[test]
fn changes_of_the_clocks_show_what_they_skip_double_and_move() {
    let text = |expression: &str| {
        format!("schedule = \"{expression}\"\ntimezone = \"Europe/Berlin\"\n[tasks.a]\nbash = \"true\"\n")
    };
    let subjects = vec![
        subject("daily", &text("30 2 * * *"), 1),
        subject("hourly", &text("30 * * * *"), 1),
        subject("noon", &text("0 12 * * *"), 1),
    ];
    let report = run(&plan("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", subjects.clone()));
    // A day of 25 hours: the hourly DAG runs at both 02:30, the daily one once.
    let runs: Vec<u64> = report.dags.iter().map(|dag| dag.totals.runs).collect();
    assert_eq!(runs, [1, 25, 1]);
    let doubled: Vec<(&str, u64)> =
        report.transitions.iter().map(|change| (change.dag_id.as_str(), change.doubled.count)).collect();
    assert_eq!(doubled, [("hourly", 1)]);
    assert_eq!(report.transitions[0].at, at("2026-10-25T01:00:00Z"));

    let report = run(&plan("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", subjects));
    let runs: Vec<u64> = report.dags.iter().map(|dag| dag.totals.runs).collect();
    assert_eq!(runs, [1, 23, 1]);
    let daily = &report.transitions[0];
    assert_eq!((daily.dag_id.as_str(), daily.moved.count), ("daily", 1));
    assert_eq!(daily.moved.first.unwrap().1, Some(at("2026-03-29T01:30:00Z")));
    assert_eq!(report.dags[0].first_run, Some(at("2026-03-29T01:30:00Z")));
}

#[test]
fn an_old_start_with_catchup_begins_as_if_all_before_had_been_run() {
    let text = format!("start_date = 2020-01-01\ncatchup = true\n{HOURLY}");
    let every = "start_date = 2020-01-01T00:07:00Z\ncatchup = true\nschedule = { every = \"1h\" }\n[tasks.a]\nbash = \"true\"\n";
    let subjects = vec![subject("cron", &text, 60), subject("every", every, 60)];
    let report = run(&plan("2026-11-21T00:00:00Z", "2026-11-21T03:00:00Z", subjects));
    assert_eq!(report.dags[0].first_run, Some(at("2026-11-21T00:00:00Z")));
    assert_eq!(report.dags[1].first_run, Some(at("2026-11-21T00:07:00Z")));
    assert_eq!((report.dags[0].totals.runs, report.dags[1].totals.runs), (3, 3));
}

#[test]
fn a_period_of_250_million_ticks_before_goes_on_in_its_phase() {
    let every = |more: &str| {
        let head = "start_date = 1970-01-01T00:00:03Z\ncatchup = true\nschedule = { every = \"7s\" }\n";
        subject("every", &format!("{head}{more}[tasks.a]\nempty = true\n"), 0)
    };
    let subjects = vec![every(""), every("data_interval = true\n"), every("end_date = 2020-01-01\n")];
    for (subject, runs) in subjects.into_iter().zip([8, 8, 0]) {
        let report = run(&plan("2026-11-21T00:00:00Z", "2026-11-21T00:01:00Z", vec![subject]));
        let dag = &report.dags[0];
        assert_eq!(dag.totals.runs, runs);
        // 1,795,219,205 - 3 is a multiple of 7.
        assert_eq!(dag.first_run, (runs > 0).then(|| at("2026-11-21T00:00:05Z")));
    }
}

#[test]
fn a_simulation_that_is_interrupted_reports_what_it_has_seen() {
    let subjects = (0..20).map(|number| subject(&format!("d{number:02}"), HOURLY, 61 + number)).collect();
    let simulated = plan("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", subjects);
    let report = simulate(&simulated, &mut |_| false);
    assert!(report.until < simulated.until && report.totals.runs > 0);
}

#[test]
fn a_picture_stays_small_whatever_was_simulated() {
    let subjects = (0..70).map(|number| subject(&format!("d{number:02}"), HOURLY, 60)).collect();
    let svg = draw(&run(&plan("2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z", subjects)));
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("and 10 DAGs that are less busy"));
    assert!(svg.len() < 3_000_000, "{}", svg.len());
    let few = draw(&run(&plan("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", vec![subject("a", HOURLY, 60)])));
    assert_eq!(few.matches("#16a34a").count(), 24);
}

/// The instants at which the next runs are due, at most `count`.
fn next(subject: &Subject, now: &str, count: usize) -> Vec<String> {
    let runs = next_runs(subject, at(now), count, &mut |_| false);
    runs.iter().map(|run| run.run_after.to_string()).collect()
}

#[test]
fn next_runs_follow_every_kind_of_schedule() {
    let next = |head: &str, count: usize| {
        let text = format!("{head}\n[tasks.a]\nbash = \"true\"\n[tasks.b]\nbash = \"true\"\n");
        next(&subject("d", &text, 1), "2026-11-21T12:30:00Z", count)
    };
    assert_eq!(next("schedule = \"0 6 * * *\"", 2), ["2026-11-22T06:00:00Z", "2026-11-23T06:00:00Z"]);
    assert_eq!(next("schedule = \"0 6 * * *\"\nend_date = 2026-11-22T06:00:00Z", 5), ["2026-11-22T06:00:00Z"]);
    assert_eq!(next("schedule = { every = \"1h\" }", 2), ["2026-11-21T13:30:00Z", "2026-11-21T14:30:00Z"]);
    assert_eq!(next("schedule = \"@once\"", 3), ["2026-11-21T12:30:00Z"]);
    assert_eq!(next("schedule = \"@continuous\"\nmax_active_runs = 1", 3), ["2026-11-21T12:30:00Z"]);
    assert_eq!(next("", 3), Vec::<String>::new());
    assert_eq!(
        next("schedule = { events = [2026-11-21T12:00:00Z, 2026-12-24T18:00:00Z] }", 3).last().unwrap(),
        "2026-12-24T18:00:00Z"
    );
    // An interval is run when it is over.
    assert_eq!(next("schedule = \"@daily\"\ndata_interval = true", 1), ["2026-11-22T00:00:00Z"]);
}

#[test]
fn next_runs_begin_with_what_was_missed_as_far_as_catchup_goes() {
    let text = |rule: &str| {
        format!(
            "start_date = 2026-11-01T00:00:00Z\ncatchup = {rule}\nschedule = \"0 6 * * *\"\n[tasks.a]\nbash = \"true\"\n"
        )
    };
    let missed = |rule: &str| {
        let mut subject = subject("d", &text(rule), 1);
        let last = at("2026-11-18T06:00:00Z");
        subject.first_seen_at = Some(at("2026-11-01T00:00:00Z"));
        subject.last_interval = Some(crate::model::DataInterval { start: last, end: last });
        next(&subject, "2026-11-21T12:00:00Z", 2)
    };
    assert_eq!(missed("true"), ["2026-11-19T06:00:00Z", "2026-11-20T06:00:00Z"]);
    assert_eq!(missed("false"), ["2026-11-21T06:00:00Z", "2026-11-22T06:00:00Z"]);
    assert_eq!(missed("\"window:36h\""), ["2026-11-20T06:00:00Z", "2026-11-21T06:00:00Z"]);
}

#[test]
fn a_date_that_has_a_run_is_passed_over() {
    let taken = at("2026-11-21T13:00:00Z");
    let runs = next_runs(&subject("d", HOURLY, 1), at("2026-11-21T12:30:00Z"), 2, &mut |date| date == taken);
    let dates: Vec<Timestamp> = runs.iter().map(|run| run.logical_date).collect();
    assert_eq!(dates, [at("2026-11-21T14:00:00Z"), at("2026-11-21T15:00:00Z")]);
}

#[test]
fn next_runs_are_those_that_a_simulation_makes() {
    let schedules = [
        "schedule = \"*/7 * * * *\"",
        "schedule = { every = \"95m\" }",
        "schedule = \"30 2 * * *\"\ntimezone = \"Europe/Berlin\"",
        "schedule = { crons = [\"0 9 * * *\", \"15 9,21 * * sat\"], timezone = \"America/New_York\" }",
        "schedule = { cron = \"0 * * * *\", interval = \"1h\" }\nend_date = 2026-10-25T12:00:00Z",
        "schedule = \"@daily\"\ndata_interval = true",
        "schedule = \"@once\"",
    ];
    for head in schedules {
        let subject = subject("d", &format!("{head}\n[tasks.a]\nbash = \"true\"\n"), 1);
        let (from, until) = ("2026-10-23T11:11:11Z", "2026-10-27T00:00:00Z");
        let mut expected = next(&subject, from, 2_000);
        expected.retain(|run_after| at(run_after) < at(until));
        let dag = &run(&plan(from, until, vec![subject])).dags[0];
        assert_eq!(dag.totals.runs, expected.len() as u64, "{head}");
        assert_eq!(dag.first_run.map(|run| run.to_string()).as_ref(), expected.first(), "{head}");
        assert_eq!(dag.last_run.map(|run| run.to_string()).as_ref(), expected.last(), "{head}");
        assert!(!expected.is_empty(), "{head}");
    }
}

#[test]
fn a_failed_run_holds_back_what_depends_on_it() {
    let text = HOURLY.replace("[tasks.a]", "[tasks.a]\ndepends_on_past = true");
    let mut simulated = plan("2026-11-21T00:00:00Z", "2026-11-21T10:00:00Z", vec![subject("d", &text, 60)]);
    simulated.subjects[0].outlooks[0].fails = 1.0;
    let totals = run(&simulated).totals;
    assert_eq!((totals.failed_runs, totals.failed_instances, totals.unfinished_runs), (1, 1, 9));
}
