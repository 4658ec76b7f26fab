use super::*;
use crate::model::{Crons, Every};

mod bounds;
mod catchup;
mod dice;
mod laws;
mod robust;
mod transition;
mod words;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn cron(text: &str, zone_name: &str) -> Timetable {
    let intervals = Intervals::Trigger(Duration::ZERO);
    let crons = Crons { expressions: vec![text.to_owned()], timezone: None, intervals };
    Timetable::new(&Schedule::Cron(crons), &zone(zone_name)).unwrap()
}

fn every(seconds: u64) -> Timetable {
    let period = crate::model::Period::Fixed(Duration::from_secs(seconds));
    let every = Every { period, intervals: Intervals::Trigger(Duration::ZERO) };
    Timetable::new(&Schedule::Every(every), &TimeZone::UTC).unwrap()
}

fn empty_at(text: &str) -> Option<DataInterval> {
    Some(DataInterval { start: at(text), end: at(text) })
}

/// The matches after (or before) `from`, in UTC.
fn walk(text: &str, zone_name: &str, from: &str, count: usize, forward: bool) -> Vec<String> {
    let (cron, zone) = (Cron::parse(text).unwrap(), zone(zone_name));
    let mut instant = at(from);
    (0..count)
        .map(|_| {
            instant = if forward { cron.next(instant, &zone) } else { cron.prev(instant, &zone) }.unwrap();
            instant.to_string()
        })
        .collect()
}

fn next(text: &str, zone_name: &str, from: &str, count: usize) -> Vec<String> {
    walk(text, zone_name, from, count, true)
}

fn prev(text: &str, zone_name: &str, from: &str, count: usize) -> Vec<String> {
    walk(text, zone_name, from, count, false)
}

#[test]
fn a_time_that_the_clocks_skip_runs_the_gap_later() {
    assert_eq!(
        next("30 2 * * *", "America/New_York", "2024-03-09T12:00:00Z", 2),
        ["2024-03-10T07:30:00Z", "2024-03-11T06:30:00Z"]
    );
}

#[test]
fn a_time_that_the_clocks_repeat_runs_at_its_second_occurrence() {
    assert_eq!(
        next("30 1 * * *", "America/New_York", "2024-11-02T12:00:00Z", 2),
        ["2024-11-03T06:30:00Z", "2024-11-04T06:30:00Z"]
    );
}

#[test]
fn a_midnight_that_does_not_exist_runs_at_one() {
    assert_eq!(next("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", 1), ["2018-11-04T03:00:00Z"]);
}

#[test]
fn an_hourly_schedule_neither_skips_nor_repeats_when_the_clocks_change() {
    let expected = ["2024-11-03T05:00:00Z", "2024-11-03T06:00:00Z", "2024-11-03T07:00:00Z", "2024-11-03T08:00:00Z"];
    assert_eq!(next("0 * * * *", "America/New_York", "2024-11-03T04:30:00Z", 4), expected);
    let mut backwards = prev("0 * * * *", "America/New_York", "2024-11-03T08:30:00Z", 4);
    backwards.reverse();
    assert_eq!(backwards, expected);
}

#[test]
fn every_two_hours_loses_a_run_in_the_repeated_hour() {
    assert_eq!(
        next("0 */2 * * *", "Europe/Berlin", "2024-10-26T21:00:00Z", 3),
        ["2024-10-26T22:00:00Z", "2024-10-27T01:00:00Z", "2024-10-27T03:00:00Z"]
    );
}

#[test]
fn restricted_days_of_month_and_week_are_either_or() {
    assert_eq!(
        next("0 0 13 * 5", "UTC", "2024-09-01T00:00:00Z", 4),
        ["2024-09-06T00:00:00Z", "2024-09-13T00:00:00Z", "2024-09-20T00:00:00Z", "2024-09-27T00:00:00Z"]
    );
}

#[test]
fn a_day_that_never_comes_leaves_the_other_day_field_alone() {
    assert_eq!(next("0 0 31 2 5", "UTC", "2022-11-01T19:00:00Z", 1), ["2023-02-03T00:00:00Z"]);
}

#[test]
fn the_dialect_finds_croniters_days() {
    let cases = [
        ("0 0 L * *", "2024-02-29T00:00:00Z", "2024-01-31T00:00:00Z"),
        ("0 0 15,L * *", "2024-02-15T00:00:00Z", "2024-01-31T00:00:00Z"),
        ("0 0 1W * *", "2024-03-01T00:00:00Z", "2024-02-01T00:00:00Z"),
        ("0 0 31w * *", "2024-02-29T00:00:00Z", "2024-01-31T00:00:00Z"),
        ("0 0 * * fri#2", "2024-02-09T00:00:00Z", "2024-01-12T00:00:00Z"),
        ("0 0 * * L5", "2024-02-23T00:00:00Z", "2024-01-26T00:00:00Z"),
        ("0 0 10 * 1#2", "2024-02-12T00:00:00Z", "2024-01-08T00:00:00Z"),
        ("0 0 * * fri-mon", "2024-02-09T00:00:00Z", "2024-02-05T00:00:00Z"),
        ("0 22-3 * * *", "2024-02-07T22:00:00Z", "2024-02-07T03:00:00Z"),
        ("0 0 1 11-2 *", "2024-11-01T00:00:00Z", "2024-02-01T00:00:00Z"),
        ("*,5 12 * * *", "2024-02-07T12:01:00Z", "2024-02-07T12:00:00Z"),
        ("0 0 29 2 *", "2024-02-29T00:00:00Z", "2020-02-29T00:00:00Z"),
        ("1-1 12 7 2 ?", "2024-02-07T12:01:00Z", "2024-02-07T12:00:00Z"),
    ];
    for (text, after, before) in cases {
        assert_eq!(next(text, "UTC", "2024-02-07T12:00:30Z", 1), [after], "after, {text}");
        assert_eq!(prev(text, "UTC", "2024-02-07T12:00:30Z", 1), [before], "before, {text}");
    }
}

#[test]
fn the_nearest_weekday_stays_in_its_month() {
    // Saturday the 1st, and Sunday the 31st.
    assert_eq!(next("0 9 1W * *", "UTC", "2024-05-31T12:00:00Z", 1), ["2024-06-03T09:00:00Z"]);
    assert_eq!(next("0 9 31W * *", "UTC", "2024-03-01T00:00:00Z", 1), ["2024-03-29T09:00:00Z"]);
    assert_eq!(next("0 9 15w * *", "UTC", "2024-06-01T00:00:00Z", 1), ["2024-06-14T09:00:00Z"]);
}

#[test]
fn a_date_that_never_comes_has_no_next_run() {
    let timetable = cron("0 0 30 2 *", "UTC");
    assert_eq!(
        timetable.next_run(None, Some(at("2024-01-01T00:00:00Z")), None, Catchup::All, at("2024-01-01T00:00:00Z")),
        None
    );
}

#[test]
fn the_search_ends_with_the_calendar() {
    let parsed = Cron::parse("0 0 29 2 *").unwrap();
    assert_eq!(parsed.next(at("9999-12-30T00:00:00Z"), &TimeZone::UTC), None);
    assert_eq!(parsed.prev(Timestamp::MIN, &TimeZone::UTC), None);
}

#[test]
fn presets_are_the_expressions_that_they_stand_for() {
    for (preset, text) in [
        ("@hourly", "0 * * * *"),
        ("@Midnight", "0 0 * * *"),
        ("@WEEKLY", "0 0 * * 0"),
        ("@quarterly", "0 0 1 */3 *"),
        ("@annually", "0 0 1 1 *"),
    ] {
        assert_eq!(Cron::parse(preset), Cron::parse(text), "{preset}");
    }
    assert_eq!(Cron::parse("@dayly").unwrap_err().help, "did you mean `@daily`?");
    assert!(Cron::parse("@QUARTERLY").is_err(), "Airflow's own presets are case-sensitive");
}

#[test]
fn a_fault_points_at_its_place_in_the_expression() {
    let cases = [
        ("60 * * * *", 0..2, "`60` is out of range for the minute"),
        ("0 24 * * *", 2..4, "`24` is out of range for the hour"),
        ("0 0 1,40 * *", 6..8, "`40` is out of range for the day of month"),
        ("0 0 0-5 * *", 4..7, "`0-5` is out of range for the day of month"),
        ("  0 0 * foo *", 8..11, "`foo` is no month"),
        ("0 0 * * MONDAY", 8..14, "`MONDAY` is no day of week"),
        ("*/0 * * * *", 0..3, "the step in the minute is at least 1"),
        ("1, * * * *", 0..2, "a list in the minute has an empty place"),
        ("? * * * *", 0..1, "`?` is not allowed as minute"),
        ("0 0 1-5W * *", 4..8, "`W` stands with one day of month alone, as in `15W`, not as in `1-5W`"),
        ("0 0 * * 1#6", 8..11, "`1#6`: what follows `#` in the day of week is 1 to 5"),
        ("0 0 * * 1,2#1", 8..13, "plain days cannot stand beside `#` or `L` ones in the day of week"),
        ("H * * * *", 0..1, "`H`: a hashed minute is not supported, its values must be written out"),
        ("0 R * * *", 2..3, "`R`: a random hour is not supported, its values must be written out"),
        ("0 0 * * * 60", 10..12, "`60` is out of range for the second"),
        ("0 0 1 1 * 0 1969", 12..16, "`1969` is out of range for the year"),
        ("0 0 * *", 0..7, "a cron expression has five to seven fields, not 4"),
        ("", 0..0, "the schedule is empty"),
    ];
    for (text, range, message) in cases {
        let fault = Cron::parse(text).unwrap_err();
        assert_eq!((fault.range, fault.message.as_str()), (range, message), "{text:?}");
        assert!(!fault.help.is_empty(), "{text:?}");
    }
}

#[test]
fn numbers_of_any_length_are_refused_not_overflowed() {
    assert!(Cron::parse("99999999999999999999 * * * *").is_err());
    assert!(Cron::parse("*/99999999999999999999 * * * *").is_ok(), "a step beyond the field is its first value");
    assert!(Cron::parse("50-10/4294967295 * * * *").is_ok());
}

#[test]
fn without_catchup_the_newest_missed_run_comes_next() {
    let timetable = cron("0 6 * * *", "UTC");
    let last = empty_at("2024-01-01T06:00:00Z");
    let run = timetable.next_run(last, None, None, Catchup::Latest, at("2024-01-10T07:00:00Z")).unwrap();
    assert_eq!(run.run_after, at("2024-01-10T06:00:00Z"));
    assert_eq!((run.logical_date, Some(run.data_interval)), (run.run_after, empty_at("2024-01-10T06:00:00Z")));
}

#[test]
fn of_two_times_in_a_gap_the_later_comes_if_an_instant_lies_before_both() {
    // The clocks go from 02:00 to 03:00 at 01:00Z: the runs of 02:15 and 02:45 are due at 03:15 and 03:45, and for Airflow the one
    // before 03:10 is that of 02:45.
    let timetable = cron("15,45 2 * * *", "Europe/Berlin");
    let last = empty_at("2027-03-27T01:45:00Z");
    let run = timetable.next_run(last, None, None, Catchup::Latest, at("2027-03-28T01:10:00Z")).unwrap();
    assert_eq!(run.run_after, at("2027-03-28T01:45:00Z"));
}

#[test]
fn catchup_walks_run_by_run_and_stops_after_latest() {
    let timetable = cron("0 6 * * *", "UTC");
    let (earliest, latest) = (Some(at("2024-01-01T06:00:00Z")), Some(at("2024-01-02T06:00:00Z")));
    let now = at("2024-01-10T07:00:00Z");
    let first = timetable.next_run(None, earliest, latest, Catchup::All, now).unwrap();
    assert_eq!(first.run_after, at("2024-01-01T06:00:00Z"));
    let second = timetable.next_run(Some(first.data_interval), earliest, latest, Catchup::All, now).unwrap();
    assert_eq!(second.run_after, at("2024-01-02T06:00:00Z"));
    assert_eq!(timetable.next_run(Some(second.data_interval), earliest, latest, Catchup::All, now), None);
}

#[test]
fn a_dag_seen_in_the_afternoon_does_not_start_its_morning_run() {
    let timetable = cron("0 3 * * *", "UTC");
    let seen = at("2024-05-05T15:00:00Z");
    let earliest = timetable.earliest(None, seen, Catchup::Latest);
    assert_eq!(earliest, Some(seen));
    let run = timetable.next_run(None, earliest, None, Catchup::Latest, seen).unwrap();
    assert_eq!(run.run_after, at("2024-05-06T03:00:00Z"));
}

#[test]
fn catchup_goes_back_to_the_start_date_whenever_the_dag_was_seen() {
    let start = Some(at("2024-01-01T00:00:00Z"));
    assert_eq!(cron("@daily", "UTC").earliest(start, at("2024-05-05T00:00:00Z"), Catchup::All), start);
    assert_eq!(
        cron("@daily", "UTC").earliest(start, at("2024-05-05T00:00:00Z"), Catchup::Latest),
        Some(at("2024-05-05T00:00:00Z"))
    );
}

#[test]
fn a_period_without_start_date_first_runs_one_period_after_it_was_seen() {
    let timetable = every(300);
    let seen = at("2024-05-05T15:00:00.5Z");
    let earliest = timetable.earliest(None, seen, Catchup::Latest);
    let run = timetable.next_run(None, earliest, None, Catchup::Latest, seen).unwrap();
    assert_eq!(run.run_after, at("2024-05-05T15:05:00.5Z"));
    let next = timetable
        .next_run(Some(run.data_interval), earliest, None, Catchup::Latest, at("2024-05-05T15:05:00.6Z"))
        .unwrap();
    assert_eq!(next.run_after, at("2024-05-05T15:10:00.5Z"));
}

#[test]
fn once_runs_once() {
    let timetable = Timetable::new(&Schedule::Once, &TimeZone::UTC).unwrap();
    let now = at("2024-05-05T15:00:00Z");
    let run =
        timetable.next_run(None, timetable.earliest(None, now, Catchup::Latest), None, Catchup::Latest, now).unwrap();
    assert_eq!(run.run_after, now);
    assert_eq!(timetable.next_run(Some(run.data_interval), None, None, Catchup::Latest, now), None);
}

#[test]
fn a_dag_without_schedule_never_runs_by_itself() {
    let timetable = Timetable::new(&Schedule::Never, &TimeZone::UTC).unwrap();
    assert_eq!(timetable.next_run(None, None, None, Catchup::All, at("2024-05-05T15:00:00Z")), None);
    assert_eq!(timetable.summary(), None);
}

#[test]
fn a_summary_shows_the_schedule_as_its_author_wrote_it() {
    assert_eq!(cron("0 6 * * MON-FRI", "UTC").summary().as_deref(), Some("0 6 * * MON-FRI"));
    assert_eq!(every(5).summary().as_deref(), Some("every 5s"));
    assert_eq!(every(90_061).summary().as_deref(), Some("every 1d1h1m1s"));
}
