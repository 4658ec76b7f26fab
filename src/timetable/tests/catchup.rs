//! Which missed runs are made up for, and that no run is lost or doubled on the way.

use super::dice::Dice;
use super::*;
use crate::model::Period;
use jiff::SignedDuration;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

fn of_cron(text: &str, zone_name: &str, intervals: Intervals) -> Timetable {
    let crons = Crons { expressions: vec![text.to_owned()], timezone: None, intervals };
    Timetable::new(&Schedule::Cron(crons), &zone(zone_name)).unwrap()
}

fn of_period(period: Period, intervals: Intervals) -> Timetable {
    Timetable::new(&Schedule::Every(Every { period, intervals }), &TimeZone::UTC).unwrap()
}

/// All runs that are due at `now`, each asked for after the one before, as the scheduler creates them.
fn due(
    timetable: &Timetable,
    last: Option<DataInterval>,
    bound: Option<Timestamp>,
    rule: Catchup,
    now: Timestamp,
) -> Vec<NextRun> {
    let mut runs: Vec<NextRun> = Vec::new();
    let mut last = last;
    while let Some(run) = timetable.next_run(last, bound, None, rule, now).filter(|run| run.run_after <= now) {
        last = Some(run.data_interval);
        runs.push(run);
        assert!(runs.len() < 10_000, "no end of runs");
    }
    runs
}

fn instants(runs: &[NextRun]) -> Vec<String> {
    runs.iter().map(|run| run.run_after.to_string()).collect()
}

const TRIGGER: Intervals = Intervals::Trigger(Duration::ZERO);

#[test]
fn a_window_makes_up_for_what_fell_due_within_it() {
    let (last, now) = (empty_at("2024-05-01T06:00:00Z"), at("2024-05-10T07:00:00Z"));
    let daily = of_cron("0 6 * * *", "UTC", TRIGGER);
    let made_up = due(&daily, last, None, Catchup::Window(DAY * 3), now);
    assert_eq!(instants(&made_up), ["2024-05-08T06:00:00Z", "2024-05-09T06:00:00Z", "2024-05-10T06:00:00Z"]);
    let at_its_edge = due(&daily, last, None, Catchup::Window(HOUR * 25), now);
    assert_eq!(instants(&at_its_edge), ["2024-05-09T06:00:00Z", "2024-05-10T06:00:00Z"]);
    assert_eq!(due(&daily, last, None, Catchup::Window(HOUR / 2), now), [], "nothing fell due within half an hour");
}

#[test]
fn a_run_that_was_not_missed_comes_whatever_the_window() {
    let daily = of_cron("0 6 * * *", "UTC", TRIGGER);
    let now = at("2024-05-10T07:00:00Z");
    let next = daily.next_run(empty_at("2024-05-10T06:00:00Z"), None, None, Catchup::Window(HOUR), now).unwrap();
    assert_eq!(next.run_after, at("2024-05-11T06:00:00Z"));
}

#[test]
fn the_window_of_a_data_interval_counts_from_its_end() {
    let daily = of_cron("0 6 * * *", "UTC", Intervals::Data);
    let last = Some(DataInterval { start: at("2024-04-30T06:00:00Z"), end: at("2024-05-01T06:00:00Z") });
    let made_up = due(&daily, last, None, Catchup::Window(HOUR * 25), at("2024-05-10T07:00:00Z"));
    assert_eq!(instants(&made_up), ["2024-05-09T06:00:00Z", "2024-05-10T06:00:00Z"]);
    assert_eq!(made_up[0].logical_date, at("2024-05-08T06:00:00Z"));
}

#[test]
fn a_window_keeps_the_grid_of_a_period() {
    let last = empty_at("2024-01-31T10:07:00Z");
    let ninety_minutes = of_period(Period::Fixed(Duration::from_secs(5_400)), TRIGGER);
    let made_up = due(&ninety_minutes, last, None, Catchup::Window(HOUR * 3), at("2024-03-01T12:00:00Z"));
    assert_eq!(instants(&made_up), ["2024-03-01T10:07:00Z", "2024-03-01T11:37:00Z"]);
    for intervals in [TRIGGER, Intervals::Data] {
        // The last of January is the 29th in February, and stays the 29th: dateutil goes from date to date.
        let monthly = of_period(Period::Calendar { months: 1, rest: Duration::ZERO }, intervals);
        let made_up = due(&monthly, last, None, Catchup::Window(DAY * 60), at("2024-06-01T00:00:00Z"));
        assert_eq!(instants(&made_up), ["2024-04-29T10:07:00Z", "2024-05-29T10:07:00Z"], "{intervals:?}");
    }
}

#[test]
fn a_window_leaves_out_old_events() {
    let events =
        ["2024-05-01T00:00:00Z", "2024-05-09T00:00:00Z", "2024-05-10T00:00:00Z", "2024-05-20T00:00:00Z"].map(at);
    let timetable = Timetable::new(&Schedule::Events(events.to_vec()), &TimeZone::UTC).unwrap();
    let now = at("2024-05-10T12:00:00Z");
    assert_eq!(due(&timetable, None, None, Catchup::Window(DAY * 2), now).len(), 2);
    assert_eq!(due(&timetable, None, None, Catchup::All, now).len(), 3);
    assert_eq!(due(&timetable, None, None, Catchup::Latest, now).len(), 0);
}

/// The slots after `last` that are due at `now`, told by the ticks alone.
fn slots(cron: &Cron, zone: &TimeZone, last: Timestamp, now: Timestamp) -> Vec<Timestamp> {
    let ticks = std::iter::successors(Some(last), |tick| cron.next(*tick, zone));
    ticks.skip(1).take_while(|tick| *tick <= now).collect()
}

#[test]
fn after_any_pause_each_rule_makes_exactly_the_slots_that_it_names() {
    let mut dice = Dice::new(5);
    let names =
        ["UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "America/Sao_Paulo"];
    let mut missed = 0;
    for _ in 0..300 {
        let zone_name = dice.pick::<&str>(&names);
        let text = if dice.percent(50) { dice.of_all_days() } else { dice.expression() };
        let (cron, zone) = (Cron::parse(&text).unwrap(), zone(zone_name));
        let Some(last) = cron.next(dice.instant(), &zone) else { continue };
        let Some(next) = cron.next(last, &zone) else { continue };
        let pause = last.duration_until(next).as_secs() * dice.between(0, 40) + dice.between(0, 3_600);
        let Ok(now) = last.checked_add(SignedDuration::from_secs(pause)) else { continue };
        let slots = slots(&cron, &zone, last, now);
        // What runs in every hour of some days may lose its grid when the clocks change between them, as Airflow's does.
        let is_plain = slots
            .iter()
            .chain([&last])
            .all(|slot| cron.align_next(*slot, &zone) == Some(*slot) && cron.align_prev(*slot, &zone) == Some(*slot));
        if slots.len() > 2_000 || !is_plain {
            continue;
        }
        missed += slots.len();
        let place = format!("{text} in {zone_name}, last {last}, now {now}");
        let made = |timetable: &Timetable, last: DataInterval, rule| -> Vec<Timestamp> {
            due(timetable, Some(last), None, rule, now).iter().map(|run| run.run_after).collect()
        };
        let window = Duration::from_secs(dice.between(0, pause) as u64);
        let floor = now - window;
        let within: Vec<Timestamp> = slots.iter().copied().filter(|slot| *slot >= floor).collect();
        let newest: Vec<Timestamp> = slots.last().copied().into_iter().collect();
        let trigger = of_cron(&text, zone_name, TRIGGER);
        let empty = DataInterval { start: last, end: last };
        let whole = DataInterval { start: cron.prev(last, &zone).unwrap_or(last), end: last };
        let data = of_cron(&text, zone_name, Intervals::Data);
        for (timetable, last) in [(&trigger, empty), (&data, whole)] {
            assert_eq!(made(timetable, last, Catchup::All), slots, "all: {place}");
            assert_eq!(made(timetable, last, Catchup::Window(window)), within, "{window:?}: {place}");
            if cron.next(now, &zone).is_some() {
                assert_eq!(made(timetable, last, Catchup::Latest), newest, "latest: {place}");
            }
        }
    }
    assert!(missed > 2_000, "only {missed} slots were missed");
}

/// Walks as the scheduler does: what is next is kept, made when it is due, and asked for anew after each run, at each restart, and when
/// the clock has jumped. The runs that are made, in order.
fn live(
    timetable: &Timetable,
    first: DataInterval,
    rule: Catchup,
    clock: &[Timestamp],
    dice: &mut Dice,
) -> Vec<NextRun> {
    let ask = |last, now| timetable.next_run(Some(last), None, None, rule, now);
    let mut last = first;
    let mut next = ask(last, clock[0]);
    let mut made = Vec::new();
    for &now in clock {
        if dice.percent(30) {
            next = ask(last, now);
        }
        while let Some(run) = next.filter(|run| run.run_after <= now) {
            made.push(run);
            last = run.data_interval;
            next = ask(last, now);
        }
    }
    made
}

#[test]
fn restarts_and_jumps_of_the_clock_lose_and_double_no_run_around_any_change_of_any_zone() {
    super::laws::at_every_change(|change, dice, place| {
        let text = dice.of_all_days();
        let text = text.strip_prefix("* ").map_or(text.clone(), |hours| format!("*/20 {hours}"));
        let (cron, zone) = (Cron::parse(&text).unwrap(), &change.zone);
        let begin = change.at - SignedDuration::from_hours(4);
        let Some(first) = cron.prev(begin, zone).filter(|first| *first < begin) else { return };
        let mut clock = vec![begin];
        while clock[clock.len() - 1] < change.at + SignedDuration::from_hours(4) {
            let step = if dice.percent(20) { dice.between(-7_200, -1) } else { dice.between(1, 7_200) };
            clock.push(clock[clock.len() - 1] + SignedDuration::from_secs(step));
        }
        let seen = *clock.iter().max().unwrap();
        let crons = Crons { expressions: vec![text.clone()], timezone: None, intervals: TRIGGER };
        let timetable = Timetable::new(&Schedule::Cron(crons), zone).unwrap();
        let made = live(&timetable, DataInterval { start: first, end: first }, Catchup::All, &clock, dice);
        let made: Vec<Timestamp> = made.iter().map(|run| run.run_after).collect();
        assert_eq!(made, slots(&cron, zone, first, seen), "{text} in {place}");
        let newest = live(&timetable, DataInterval { start: first, end: first }, Catchup::Latest, &clock, dice);
        let newest: Vec<Timestamp> = newest.iter().map(|run| run.run_after).collect();
        assert!(newest.windows(2).all(|pair| pair[0] < pair[1]), "doubled: {text} in {place}");
        // Looking back from beyond a gap, Airflow finds other times than looking forward from before it: the last of those that are moved,
        // and those that the first of them has passed over.
        let just_before = |wall: jiff::civil::DateTime| wall - SignedDuration::from_nanos(1);
        let in_gap = std::iter::successors(cron.next_naive(just_before(change.before)), |time| cron.next_naive(*time));
        let moved: Vec<Timestamp> = in_gap
            .take_while(|time| *time < change.after)
            .map(|time| zone.to_ambiguous_timestamp(time).later().unwrap())
            .collect();
        let by_part_of_an_hour = change.before.duration_until(change.after).as_secs() % 3_600 != 0;
        let has_other_grid = super::laws::is_every_hour(&cron) && by_part_of_an_hour;
        for run in &newest {
            let wall = zone.to_datetime(*run);
            let is_named = cron.next_naive(just_before(wall)) == Some(wall);
            let is_slot =
                made.contains(run) || has_other_grid || (!moved.is_empty() && (moved.contains(run) || is_named));
            assert!(is_slot, "made up: {run} of {text} in {place}");
        }
        assert!(newest.last() == made.last() || has_other_grid || !moved.is_empty(), "lost: {text} in {place}");
    });
}
