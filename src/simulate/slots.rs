//! What changes of the clocks do to the schedules: slots that are skipped, doubled or moved (SEMANTICS 6.3).

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::model::Schedule;
use crate::simulate::report::{Odd, Transition};
use crate::simulate::{Plan, Subject};
use crate::timetable::{Cron, Mark};

/// How many fire times around one change are looked at: a few hours of a schedule of every second.
const MAX_FIRES: usize = 20_000;

/// What is odd between the instants, by instant, then in the order of the DAGs.
pub(super) fn transitions(plan: &Plan, until: Timestamp) -> Vec<Transition> {
    let mut found: Vec<Transition> =
        plan.subjects.iter().flat_map(|subject| of_subject(subject, plan.from, until)).collect();
    found.sort_by_key(|transition| transition.at);
    found
}

fn of_subject(subject: &Subject, from: Timestamp, until: Timestamp) -> Vec<Transition> {
    let dag = &subject.dag;
    let Schedule::Cron(crons) = &dag.schedule else { return Vec::new() };
    let zone = crons.timezone.as_ref().unwrap_or(&dag.timezone);
    let from = dag.start_date.map_or(from, |start| start.max(from));
    let until = dag.end_date.map_or(until, |end| end.min(until));
    let mut found = Vec::new();
    for change in zone.following(from).take_while(|change| change.timestamp() < until) {
        for expression in &crons.expressions {
            let Ok(cron) = Cron::parse(expression) else { continue };
            let mut transition = Transition {
                dag_id: dag.dag_id.clone(),
                at: change.timestamp(),
                zone: zone.iana_name().unwrap_or("UTC").to_owned(),
                expression: expression.clone(),
                shift: SignedDuration::ZERO,
                skipped: Odd::default(),
                doubled: Odd::default(),
                moved: Odd::default(),
            };
            look_around(&mut transition, &cron, zone);
            let odd = [&transition.skipped, &transition.doubled, &transition.moved];
            if odd.iter().any(|odd| odd.count > 0) {
                found.push(transition);
            }
        }
    }
    found
}

/// Goes through the fire times after the change, for as long as the clocks are moved: those before it are as ever.
fn look_around(transition: &mut Transition, cron: &Cron, zone: &TimeZone) {
    let at = transition.at;
    let just_before = at - SignedDuration::from_micros(1);
    let (old, new) = (zone.to_offset(just_before), zone.to_offset(at));
    transition.shift = new.duration_since(old);
    let mut before = cron.prev(at, zone).filter(|fire| *fire < at).unwrap_or(just_before);
    let end = at + transition.shift.abs().max(SignedDuration::from_mins(1));
    for _ in 0..MAX_FIRES {
        let (Some(fire), Some(marks)) = (cron.next(before, zone), cron.marks_after(before, zone)) else { return };
        for mark in marks {
            transition.note(&mark, fire, zone);
        }
        if fire >= end {
            return;
        }
        before = fire;
    }
}

impl Transition {
    fn note(&mut self, mark: &Mark, fire: Timestamp, zone: &TimeZone) {
        match *mark {
            Mark::Moved { named, .. } | Mark::Shifted { named, .. } => self.moved.add(1, named, Some(fire)),
            Mark::Lost { first, count } => self.skipped.add(count, first, None),
            Mark::SecondOfTwo { is_repeat: true } => self.doubled.add(1, zone.to_datetime(fire), Some(fire)),
            Mark::FirstOfTwo | Mark::SecondOfTwo { is_repeat: false } => {}
        }
    }
}

impl Odd {
    fn add(&mut self, count: u64, named: jiff::civil::DateTime, fire: Option<Timestamp>) {
        self.count += count;
        self.first.get_or_insert((named, fire));
    }
}
