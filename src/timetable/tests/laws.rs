//! What holds of every expression, in every zone, around every change of the clocks from 2000 to 2040.

use super::dice::Dice;
use super::*;
use jiff::SignedDuration;
use jiff::civil::DateTime;

/// The expression's fields read in the plainest way there is: does it name this time?
fn names(cron: &Cron, fields: &[Vec<FieldValue>], at: DateTime) -> bool {
    let has = |field: usize, number: i16| {
        fields[field].iter().any(|value| match value {
            FieldValue::Any => true,
            FieldValue::Number(n) => *n == number as u32,
            FieldValue::Last => number == i16::from(at.date().days_in_month()),
        })
    };
    let is_open = |field: usize| fields[field][0] == FieldValue::Any;
    let weekday = at.weekday().to_sunday_zero_offset();
    let by_nth = |(day, nth): &(u8, Vec<u8>)| {
        let is_last = at.day() + 7 > at.date().days_in_month();
        *day == weekday as u8 && nth.iter().any(|n| if *n == 0 { is_last } else { (at.day() as u8).div_ceil(7) == *n })
    };
    let by_nearest = |wanted: u8| {
        let on = |day: i8| at.with().day(day).build().unwrap().weekday().to_monday_one_offset() <= 5;
        let wanted = (wanted as i8).min(at.date().days_in_month());
        let days = (1..=at.date().days_in_month()).filter(|day| on(*day));
        // Nearest first; of two as near as each other, the one that croniter takes: a Saturday's Friday, a Sunday's Monday.
        let nearest = days.min_by_key(|day| (day - wanted).abs());
        nearest == Some(at.day())
    };
    let nth = cron.nth_weekdays();
    let day = cron.nearest_weekday().map_or_else(|| has(2, i16::from(at.day())), by_nearest);
    let dow = if nth.is_empty() { has(4, i16::from(weekday)) } else { nth.iter().any(by_nth) };
    let days = match !is_open(2) && !is_open(4) {
        true if cron.nearest_weekday().is_some() && nth.is_empty() => day,
        true if cron.nearest_weekday().is_none() && !nth.is_empty() => dow,
        true if nth.is_empty() => day || dow,
        _ => day && dow,
    };
    let second = if fields.len() > 5 { has(5, i16::from(at.second())) } else { at.second() == 0 };
    let year = fields.len() < 7 || has(6, at.year());
    has(0, i16::from(at.minute()))
        && has(1, i16::from(at.hour()))
        && has(3, i16::from(at.month()))
        && days
        && second
        && year
}

#[test]
fn the_search_finds_the_first_and_the_last_time_that_the_fields_name() {
    let mut dice = Dice::new(1);
    let mut found = 0;
    for _ in 0..300 {
        let text = dice.expression();
        let cron = Cron::parse(&text).unwrap();
        let from = TimeZone::UTC.to_datetime(dice.instant());
        let fields = cron.normalized();
        let names = |at| names(&cron, &fields, at);
        let step = if fields.len() > 5 { SignedDuration::from_secs(1) } else { SignedDuration::from_mins(1) };
        let whole = from.with().second(0).build().unwrap();
        if let Some(next) = cron.next_naive(from) {
            assert!(next > from && names(next), "{text} after {from}: {next}");
            let mut at = whole + step;
            for _ in 0..400 {
                assert!(at <= from || at >= next || !names(at), "{text} after {from}: {next}, not {at}");
                at += step;
            }
            found += 1;
        }
        if let Some(prev) = cron.prev_naive(from) {
            assert!(prev < from && names(prev), "{text} before {from}: {prev}");
            let mut at = whole;
            for _ in 0..400 {
                assert!(at >= from || at <= prev || !names(at), "{text} before {from}: {prev}, not {at}");
                at -= step;
            }
        }
    }
    assert!(found > 200, "only {found} expressions fire at all");
}

#[test]
fn what_never_fires_is_known_at_once() {
    for text in [
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "0 0 29 2 * 0 2025",
        "0 0 15W * 6",
        "0 0 31 2 1#2",
        "0 0 30 2 * 0 2025-2099",
    ] {
        let cron = Cron::parse(text).unwrap();
        assert!(cron.is_never(), "{text}");
        assert_eq!(cron.next(at("2024-01-01T00:00:00Z"), &TimeZone::UTC), None, "{text}");
    }
    let mut dice = Dice::new(2);
    for _ in 0..2_000 {
        let text = dice.expression();
        let cron = Cron::parse(&text).unwrap();
        let fires = cron.next(dice.instant(), &TimeZone::UTC).is_some();
        assert!(!(fires && cron.is_never()), "{text} fires");
    }
}

#[test]
fn matches_further_away_than_fifty_years_do_not_count() {
    let cron = Cron::parse("0 12 1 1 * 0 2075").unwrap();
    assert_eq!(cron.next(at("2024-12-31T00:00:00Z"), &TimeZone::UTC), None);
    assert_eq!(cron.next(at("2025-01-01T00:00:00Z"), &TimeZone::UTC), Some(at("2075-01-01T12:00:00Z")));
    assert!(!cron.is_never());
}

/// A change of a zone's clocks.
#[derive(Clone)]
pub(super) struct Change {
    pub(super) zone: TimeZone,
    name: String,
    pub(super) at: Timestamp,
    /// What the clock would have said.
    pub(super) before: DateTime,
    /// What it says.
    pub(super) after: DateTime,
}

/// Every change of every zone from 2000 to 2040, once for those that are alike.
fn changes() -> &'static [Change] {
    static CHANGES: std::sync::LazyLock<Vec<Change>> = std::sync::LazyLock::new(|| {
        let (from, to) = (at("2000-01-01T00:00:00Z"), at("2040-12-31T00:00:00Z"));
        let nano = SignedDuration::from_nanos(1);
        let mut known = std::collections::BTreeSet::new();
        let mut changes = Vec::new();
        for name in jiff::tz::db().available() {
            let Ok(zone) = TimeZone::get(name.as_str()) else { continue };
            for change in zone.following(from).take_while(|change| change.timestamp() < to) {
                let at = change.timestamp();
                let (before, after) = (zone.to_datetime(at - nano) + nano, zone.to_datetime(at));
                if before != after && known.insert((at, before, after)) {
                    changes.push(Change { zone: zone.clone(), name: name.as_str().to_owned(), at, before, after });
                }
            }
        }
        changes
    });
    assert!(CHANGES.len() > 2_000, "only {} changes of clocks are known here", CHANGES.len());
    &CHANGES
}

/// Each change with chance that follows from its place.
pub(super) fn at_every_change(mut check: impl FnMut(&Change, &mut Dice, &str)) {
    for (change, seed) in changes().iter().zip(1..) {
        check(change, &mut Dice::new(seed), &format!("{} at {}", change.name, change.at));
    }
}

pub(super) fn is_every_hour(cron: &Cron) -> bool {
    cron.normalized()[1] == [FieldValue::Any]
}

#[test]
fn next_goes_forward_and_prev_back_but_for_repeated_and_skipped_times() {
    at_every_change(|Change { zone, at, .. }, dice, place| {
        let text = dice.expression();
        let cron = Cron::parse(&text).unwrap();
        let from = *at + SignedDuration::from_secs(dice.between(-90_000, 90_000));
        let wall = zone.to_datetime(from);
        if let Some(next) = cron.next(from, zone) {
            assert!(next > from, "{text} in {place}: {next} is not after {from}");
            let named = cron.next_naive(wall).unwrap();
            let got = zone.to_datetime(next);
            let expected = zone.to_ambiguous_timestamp(named).later().unwrap();
            if is_every_hour(&cron) {
                assert_eq!(from.duration_until(next), wall.duration_until(named), "{text} in {place}");
            } else {
                assert_eq!(next, expected, "{text} in {place}");
                assert!(got >= named, "{text} in {place}: {got} for {named}");
            }
        }
        if let Some(prev) = cron.prev(from, zone) {
            let named = cron.prev_naive(wall).unwrap();
            let is_plain = !zone.to_ambiguous_timestamp(named).is_ambiguous();
            assert!(
                prev < from || !(is_plain || is_every_hour(&cron)),
                "{text} in {place}: {prev} is not before {from}"
            );
        }
    });
}

#[test]
fn next_and_prev_undo_each_other_where_the_clocks_do_not_change() {
    let mut dice = Dice::new(3);
    let names =
        ["UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "America/Sao_Paulo"];
    let mut checked = 0;
    for _ in 0..3_000 {
        let zone = zone(dice.pick::<&str>(&names));
        let text = dice.expression();
        let cron = Cron::parse(&text).unwrap();
        let from = dice.instant();
        let (Some(prev), Some(next)) = (cron.prev(from, &zone), cron.next(from, &zone)) else { continue };
        let day = SignedDuration::from_hours(24);
        if zone.following(prev - day).next().is_some_and(|change| change.timestamp() <= next + day) {
            continue;
        }
        checked += 1;
        let place = format!("{text} around {from}");
        let (Some(back), Some(forth)) = (cron.align_prev(from, &zone), cron.align_next(from, &zone)) else {
            // The tick before and the one after are more than fifty years apart.
            assert!(prev.duration_until(next) > day * 50 * 365, "{place}");
            continue;
        };
        assert_eq!(cron.next(prev, &zone), Some(forth), "{place}");
        assert_eq!(cron.prev(next, &zone), Some(back), "{place}");
        for tick in [prev, next] {
            assert_eq!(cron.align_next(tick, &zone), Some(tick), "{place}");
            assert_eq!(cron.align_prev(tick, &zone), Some(tick), "{place}");
        }
        let between = Timestamp::from_second((from.as_second() + next.as_second()) / 2).unwrap();
        assert_eq!(cron.next(between, &zone), Some(next), "{place}");
    }
    assert!(checked > 1_000, "only {checked} were checked");
}

#[test]
fn each_time_of_the_wall_clock_fires_once_around_a_change_and_of_a_gap_the_first_is_moved() {
    let mut moved = 0;
    at_every_change(|Change { zone, at, before: gap, after: end, .. }, dice, place| {
        let text = dice.of_all_days();
        let cron = Cron::parse(&text).unwrap();
        let reach = SignedDuration::from_hours(3) + gap.duration_until(*end).abs();
        let (from, to) = (*at - reach, *at + reach);
        if is_every_hour(&cron) || zone.following(from).take_while(|change| change.timestamp() < to).count() != 1 {
            return;
        }
        let (mut fire, mut fired) = (from, Vec::new());
        while let Some(next) = cron.next(fire, zone).filter(|next| *next < to) {
            fired.push(next);
            fire = next;
        }
        let (mut wall, mut named) = (zone.to_datetime(from), Vec::new());
        while let Some(next) = cron.next_naive(wall).filter(|next| *next < zone.to_datetime(to)) {
            named.push(next);
            wall = next;
        }
        let in_gap = |time: &DateTime| gap <= time && time < end;
        let first = named.iter().copied().find(in_gap);
        moved += u64::from(first.is_some());
        // What comes before the moved time's new place has been passed over.
        let passed =
            |time: &DateTime| first.is_some_and(|first| end <= time && *time < first + gap.duration_until(*end));
        let fires = named.iter().filter(|time| Some(**time) == first || !(in_gap(time) || passed(time)));
        let mut expected: Vec<Timestamp> =
            fires.map(|time| zone.to_ambiguous_timestamp(*time).later().unwrap()).filter(|due| *due < to).collect();
        expected.sort();
        expected.dedup();
        assert_eq!(fired, expected, "{text} in {place}");
    });
    assert!(moved > 100, "only {moved} times were moved");
}
