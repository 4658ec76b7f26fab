use super::*;
use jiff::civil::DateTime;

fn marks(text: &str, zone_name: &str, before: &str) -> Vec<Mark> {
    Cron::parse(text).unwrap().marks_after(at(before), &zone(zone_name)).unwrap()
}

fn wall(text: &str) -> DateTime {
    text.parse().unwrap()
}

const NEW_YORK: &str = "America/New_York";

#[test]
fn a_time_in_a_gap_is_marked_as_moved() {
    let (named, moved) = (wall("2024-03-10T02:30"), wall("2024-03-10T03:30"));
    let found = marks("30 2 * * *", NEW_YORK, "2024-03-09T12:00:00Z");
    assert_eq!(found, [Mark::Moved { named, at: moved }]);
    assert_eq!(found[0].to_string(), "02:30:00 does not exist, so it runs at 03:30:00");
}

#[test]
fn a_day_without_a_change_has_no_marks() {
    assert_eq!(marks("30 2 * * *", NEW_YORK, "2024-03-10T12:00:00Z"), []);
    assert_eq!(marks("0 * * * *", NEW_YORK, "2024-03-10T12:00:00Z"), []);
}

#[test]
fn a_repeated_time_is_marked_as_the_second_of_two() {
    assert_eq!(marks("30 1 * * *", NEW_YORK, "2024-11-02T12:00:00Z"), [Mark::SecondOfTwo { is_repeat: false }]);
    assert_eq!(marks("30 * * * *", NEW_YORK, "2024-11-03T05:00:00Z"), [Mark::FirstOfTwo]);
    assert_eq!(marks("30 * * * *", NEW_YORK, "2024-11-03T05:30:00Z"), [Mark::SecondOfTwo { is_repeat: true }]);
}

#[test]
fn times_in_a_gap_that_are_not_moved_are_counted_as_lost() {
    let named = wall("2024-03-10T02:00");
    assert_eq!(
        marks("*/20 1-3 * * *", NEW_YORK, "2024-03-10T06:40:00Z"),
        [Mark::Moved { named, at: wall("2024-03-10T03:00") }, Mark::Lost { first: wall("2024-03-10T02:20"), count: 2 }]
    );
    let hourly = marks("0 * * * *", NEW_YORK, "2024-03-10T06:00:00Z");
    assert_eq!(hourly, [Mark::Lost { first: named, count: 1 }]);
    assert_eq!(hourly[0].to_string(), "2024-03-10T02:00:00 is passed over by the clocks, and does not run");
}

#[test]
fn a_whole_day_that_a_zone_skips_is_lost() {
    // Samoa went over the date line: the 30th of December 2011 did not take place.
    let skipped = marks("0 */6 * * *", "Pacific/Apia", "2011-12-30T08:00:00Z");
    assert_eq!(
        skipped,
        [
            Mark::Moved { named: wall("2011-12-30T00:00"), at: wall("2011-12-31T00:00") },
            Mark::Lost { first: wall("2011-12-30T06:00"), count: 3 }
        ]
    );
    assert_eq!(skipped[0].to_string(), "2011-12-30T00:00:00 does not exist, so it runs at 2011-12-31T00:00:00");
}

#[test]
fn an_hourly_run_after_days_keeps_its_distance_and_is_marked_as_shifted() {
    // From the last hour of the first of March to the first of April, the clocks go forward.
    let named = wall("2024-04-01T00:00");
    assert_eq!(
        marks("0 * 1 * *", NEW_YORK, "2024-03-02T04:30:00Z"),
        [Mark::Shifted { named, at: wall("2024-04-01T01:00") }]
    );
}

#[test]
fn a_time_that_exists_but_lies_before_a_moved_one_is_lost_too() {
    // Half an hour is skipped from 02:00 on: 02:10 becomes 02:40, and 02:35 has passed by then.
    assert_eq!(
        marks("10,35 2 * * *", "Australia/Lord_Howe", "2024-10-05T12:00:00Z"),
        [
            Mark::Moved { named: wall("2024-10-06T02:10"), at: wall("2024-10-06T02:40") },
            Mark::Lost { first: wall("2024-10-06T02:35"), count: 1 }
        ]
    );
}
