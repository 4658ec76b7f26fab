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
