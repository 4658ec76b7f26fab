//! minflow's own bound on the first run, and kinds of schedules that Airflow's recorded cases say little of.

use super::*;

#[test]
fn the_bound_is_what_was_seen_first_unless_the_dag_asks_for_earlier_runs() {
    let (start, seen) = (at("2024-05-01T00:00:00Z"), at("2024-05-05T15:00:00Z"));
    let hour = Duration::from_secs(3_600);
    let daily = || cron("0 3 * * *", "UTC");
    let first = |timetable: &Timetable, start: Option<Timestamp>, rule| {
        let earliest = timetable.earliest(start, seen, rule);
        timetable.next_run(None, earliest, None, rule, seen).map(|run| run.run_after.to_string())
    };
    let (this_morning, tomorrow) = (Some("2024-05-05T03:00:00Z".to_owned()), Some("2024-05-06T03:00:00Z".to_owned()));
    for start in [None, Some(start)] {
        assert_eq!(first(&daily(), start, Catchup::Latest), tomorrow);
        let at_once = daily().with_run_immediately(RunImmediately::Yes);
        assert_eq!(first(&at_once, start, Catchup::Latest), this_morning);
        let if_recent = |hours| daily().with_run_immediately(RunImmediately::Within(hour * hours));
        assert_eq!(first(&if_recent(11), start, Catchup::Latest), tomorrow);
        assert_eq!(first(&if_recent(12), start, Catchup::Latest), this_morning);
    }
    assert_eq!(first(&daily(), Some(start), Catchup::All).as_deref(), Some("2024-05-01T03:00:00Z"));
    assert_eq!(first(&daily(), Some(start), Catchup::Window(hour * 24)), this_morning);
    assert_eq!(first(&daily(), None, Catchup::Window(hour * 24)), tomorrow, "no date says that there were runs before");
    let later = Some(at("2024-06-01T03:00:00Z"));
    assert_eq!(first(&daily(), later, Catchup::Latest).as_deref(), Some("2024-06-01T03:00:00Z"));
}

#[test]
fn the_first_data_interval_is_the_one_under_way_when_the_dag_was_seen() {
    let crons = Crons { expressions: vec!["0 3 * * *".to_owned()], timezone: None, intervals: Intervals::Data };
    let timetable = Timetable::new(&Schedule::Cron(crons), &TimeZone::UTC).unwrap();
    let seen = at("2024-05-05T15:00:00Z");
    let earliest = timetable.earliest(None, seen, Catchup::Latest);
    let run = timetable.next_run(None, earliest, None, Catchup::Latest, seen).unwrap();
    assert_eq!(run.logical_date, at("2024-05-05T03:00:00Z"));
    assert_eq!(run.run_after, at("2024-05-06T03:00:00Z"));
    let at_its_end = at("2024-05-06T03:00:00Z");
    let earliest = timetable.earliest(None, at_its_end, Catchup::Latest);
    let run = timetable.next_run(None, earliest, None, Catchup::Latest, at_its_end).unwrap();
    assert_eq!(run.run_after, at_its_end, "it falls due as the DAG is seen");
}

#[test]
fn what_has_no_ticks_is_not_bound() {
    let seen = at("2024-05-05T15:00:00Z");
    let events = Schedule::Events(vec![at("2024-05-05T14:00:00Z")]);
    for schedule in [Schedule::Never, Schedule::Once, Schedule::Continuous, events] {
        let timetable = Timetable::new(&schedule, &TimeZone::UTC).unwrap();
        assert_eq!(timetable.earliest(None, seen, Catchup::Latest), None, "{schedule:?}");
        let start = Some(at("2024-01-01T00:00:00Z"));
        assert_eq!(timetable.earliest(start, seen, Catchup::Latest), start, "{schedule:?}");
        assert_eq!(timetable.is_periodic(), matches!(schedule, Schedule::Events(_)), "{schedule:?}");
    }
}

#[test]
fn any_of_several_expressions_fires_in_the_zone_of_the_schedule() {
    let expressions = ["0 6 * * *", "30 5 * * mon"].map(str::to_owned).to_vec();
    let intervals = Intervals::Trigger(Duration::ZERO);
    let crons = Crons { expressions, timezone: Some(zone("Europe/Berlin")), intervals };
    let timetable = Timetable::new(&Schedule::Cron(crons), &TimeZone::UTC).unwrap();
    let mut last = empty_at("2024-05-05T00:00:00Z");
    let mut walk = || {
        let run = timetable.next_run(last, None, None, Catchup::All, at("2024-05-05T00:00:00Z")).unwrap();
        last = Some(run.data_interval);
        run.run_after.to_string()
    };
    assert_eq!([walk(), walk(), walk()], ["2024-05-05T04:00:00Z", "2024-05-06T03:30:00Z", "2024-05-06T04:00:00Z"]);
    assert_eq!(timetable.summary().as_deref(), Some("0 6 * * *, 30 5 * * mon"));
}

#[test]
fn a_continuous_dag_goes_on_where_the_run_before_ended() {
    let timetable = Timetable::new(&Schedule::Continuous, &TimeZone::UTC).unwrap();
    let (start, now) = (at("2024-05-05T15:00:00Z"), at("2024-05-05T15:02:00Z"));
    let last = Some(DataInterval { start, end: start });
    let run = timetable.next_run(last, None, None, Catchup::Latest, now).unwrap();
    assert_eq!(run.data_interval, DataInterval { start, end: now });
    assert_eq!(timetable.next_run(last, None, Some(start), Catchup::Latest, now), None, "its end lies after end_date");
}

#[test]
fn an_expression_whose_first_date_lies_ahead_waits_for_it_where_airflow_fails() {
    for intervals in [Intervals::Trigger(Duration::ZERO), Intervals::Data] {
        let crons = Crons { expressions: vec!["0 12 1 1 * 0 2026-2028".to_owned()], timezone: None, intervals };
        let timetable = Timetable::new(&Schedule::Cron(crons), &TimeZone::UTC).unwrap();
        let seen = at("2025-05-05T15:00:00Z");
        let (mut last, mut now, mut starts) = (None, seen, Vec::new());
        let earliest = timetable.earliest(None, seen, Catchup::Latest);
        assert_eq!(timetable.next_run_by_airflow(last, earliest, None, Catchup::Latest, now), None);
        while let Some(run) = timetable.next_run(last, earliest, None, Catchup::Latest, now) {
            starts.push(run.logical_date.to_string());
            (last, now) = (Some(run.data_interval), run.run_after + jiff::SignedDuration::from_millis(3));
        }
        let all = ["2026-01-01T12:00:00Z", "2027-01-01T12:00:00Z", "2028-01-01T12:00:00Z"];
        let whole = if intervals == Intervals::Data { 2 } else { 3 };
        assert_eq!(starts, all[..whole], "{intervals:?}");
    }
}

#[test]
fn where_airflow_has_no_run_for_good_reason_none_is_made_up() {
    let mut dice = super::dice::Dice::new(9);
    for _ in 0..3_000 {
        let text = dice.of_all_days();
        let intervals = if dice.percent(50) { Intervals::Data } else { Intervals::Trigger(Duration::from_secs(3_600)) };
        let crons = Crons { expressions: vec![text.clone()], timezone: None, intervals };
        let timetable = Timetable::new(&Schedule::Cron(crons), &TimeZone::UTC).unwrap();
        let now = dice.instant();
        let mut near = |chance| {
            let off = jiff::SignedDuration::from_secs(dice.between(-200_000, 200_000));
            dice.percent(chance).then(|| now + off)
        };
        let (earliest, latest) = (near(100), near(80));
        let last = near(60).and_then(|at| timetable.infer_manual(at));
        for rule in [Catchup::Latest, Catchup::All, Catchup::Window(Duration::from_secs(7_200))] {
            let run = timetable.next_run(last, earliest, latest, rule, now);
            let by_airflow = timetable.next_run_by_airflow(last, earliest, latest, rule, now);
            assert_eq!(
                run, by_airflow,
                "{text}, {intervals:?}, {rule:?}, {last:?}, from {earliest:?} to {latest:?} at {now}"
            );
        }
    }
}
