//! When cron and minflow run a job, side by side: the next times, and what each does when the clocks change.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::json::Instant;
use crate::crontab::Job;
use crate::timetable::Cron;

/// How many times are shown.
const SHOWN: usize = 3;
/// How far ahead a change of the clocks is looked for: one of each kind lies within a year.
const AHEAD: SignedDuration = SignedDuration::from_hours(24 * 370);
/// What happens so near to a change is compared.
const NEAR: SignedDuration = SignedDuration::from_hours(26);
/// A job of every minute, near a change.
const MOST: usize = 60 * 60;
/// No expression waits longer for its first time.
const HORIZON: SignedDuration = SignedDuration::from_hours(24 * 366 * 50);

/// The next times of a job by both rules.
pub struct Sides {
    pub cron: Vec<Timestamp>,
    pub minflow: Vec<Timestamp>,
    pub changes: Vec<Change>,
}

/// What one of the two does near a change of the clocks and the other does not.
pub struct Change {
    pub at: Timestamp,
    pub cron: Vec<Timestamp>,
    pub minflow: Vec<Timestamp>,
}

impl Sides {
    pub fn new(job: &Job, now: Timestamp) -> Self {
        let cron = Cron::parse(&job.schedule.text).expect("the crontab's reader has made this expression");
        let zone = job.clocks.zone();
        let horizon = now.checked_add(HORIZON).unwrap_or(Timestamp::MAX);
        let changes = changes_of([&job.clocks.host, zone], now);
        let compare = |at: Timestamp| {
            let (from, until) = (at.checked_sub(NEAR).ok()?.max(now), at.checked_add(NEAR).ok()?);
            let theirs = job.when.fires(&job.clocks, from, until, MOST);
            let ours = minflow(&cron, zone, from, until, MOST);
            let change = Change { at, cron: without(&theirs, &ours), minflow: without(&ours, &theirs) };
            (!change.cron.is_empty() || !change.minflow.is_empty()).then_some(change)
        };
        Self {
            cron: job.when.fires(&job.clocks, now, horizon, SHOWN),
            minflow: minflow(&cron, zone, now, horizon, SHOWN),
            changes: changes.into_iter().filter_map(compare).collect(),
        }
    }

    pub fn differ(&self) -> bool {
        self.cron != self.minflow
    }

    /// A row for each of the next times; `local_time` of both.
    pub fn rows(&self, zone: &TimeZone) -> Vec<Value> {
        let shown = |times: &[Timestamp], at: usize| times.get(at).map(|time| local(*time, zone)).unwrap_or_default();
        let count = self.cron.len().max(self.minflow.len());
        (0..count).map(|at| json!({ "cron": shown(&self.cron, at), "minflow": shown(&self.minflow, at) })).collect()
    }

    /// What is to be said beside the times, in sentences.
    pub fn remarks(&self, zone: &TimeZone) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.cron.is_empty() {
            remarks.push("it never fires: no year has such a date".to_owned());
        }
        if self.differ() && self.changes.is_empty() {
            remarks.push("the two differ".to_owned());
        }
        for change in &self.changes {
            let day = change.at.to_zoned(zone.clone()).strftime("%a %Y-%m-%d").to_string();
            remarks.push(format!(
                "the clocks change on {day}: cron alone runs it {}, minflow alone {}",
                few(&change.cron, zone),
                few(&change.minflow, zone)
            ));
        }
        remarks
    }

    pub fn record(&self) -> Value {
        let times = |times: &[Timestamp]| times.iter().map(|time| Instant(*time)).collect::<Vec<_>>();
        let changes = self.changes.iter().map(|change| {
            json!({ "at": Instant(change.at), "cron_only": times(&change.cron), "minflow_only": times(&change.minflow) })
        });
        json!({
            "cron": times(&self.cron),
            "minflow": times(&self.minflow),
            "differ": self.differ(),
            "clock_changes": changes.collect::<Vec<_>>(),
        })
    }
}

fn local(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M:%S %:z").to_string()
}

/// `at 03:00 +02:00`, or `not at all`; of many the first two.
fn few(times: &[Timestamp], zone: &TimeZone) -> String {
    let shown: Vec<String> =
        times.iter().take(2).map(|at| at.to_zoned(zone.clone()).strftime("%H:%M %:z").to_string()).collect();
    match times.len() {
        0 => "not at all".to_owned(),
        1 | 2 => format!("at {}", shown.join(" and ")),
        count => format!("at {} and {} more times", shown.join(", "), count - shown.len()),
    }
}

/// The next change of each kind in either zone, in order.
fn changes_of(zones: [&TimeZone; 2], now: Timestamp) -> Vec<Timestamp> {
    let until = now.checked_add(AHEAD).unwrap_or(now);
    let mut found: Vec<Timestamp> = Vec::new();
    for zone in zones {
        let ahead = zone.following(now).map(|change| change.timestamp()).take_while(|at| *at < until);
        found.extend(ahead.take(2));
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn minflow(cron: &Cron, zone: &TimeZone, from: Timestamp, until: Timestamp, count: usize) -> Vec<Timestamp> {
    std::iter::successors(cron.next(from, zone), |at| cron.next(*at, zone))
        .take_while(|at| *at < until)
        .take(count)
        .collect()
}

/// Those of `all` that `others` has not, each as often as it is there more often.
fn without(all: &[Timestamp], others: &[Timestamp]) -> Vec<Timestamp> {
    let mut others = others.iter().peekable();
    let mut left = Vec::new();
    for at in all {
        while others.next_if(|other| *other < at).is_some() {}
        if others.next_if(|other| *other == at).is_none() {
            left.push(*at);
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crontab::{self, Form, Given};

    fn sides(line: &str, now: &str) -> (Sides, TimeZone) {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let given = Given {
            path: "crontab".as_ref(),
            text: line,
            form: Form::User,
            user: "anna",
            home: None,
            zone: ("Europe/Berlin", &zone),
            prefix: "",
        };
        let job = crontab::read(&given).jobs.remove(0);
        (Sides::new(&job, now.parse().unwrap()), zone)
    }

    #[test]
    fn a_change_of_the_clocks_is_said_where_the_two_differ() {
        let (sides, zone) = sides("30 2 * * * x\n", "2026-03-27T12:00:00Z");
        assert!(sides.differ());
        assert_eq!(
            sides.remarks(&zone),
            [
                "the clocks change on Sun 2026-03-29: cron alone runs it at 03:00 +02:00, minflow alone at 03:30 +02:00",
                "the clocks change on Sun 2026-10-25: cron alone runs it at 02:30 +02:00, minflow alone at 02:30 +01:00",
            ]
        );
    }

    #[test]
    fn far_from_a_change_the_two_agree() {
        for line in ["0 6 * * * x\n", "*/5 * * * * x\n", "0 0 1,15 * 1 x\n"] {
            let (sides, zone) = sides(line, "2026-11-21T12:00:00Z");
            assert_eq!(sides.remarks(&zone), [""; 0], "{line}");
            assert_eq!(sides.cron.len(), 3, "{line}");
        }
        let (never, zone) = sides("0 0 30 2 * x\n", "2026-11-21T12:00:00Z");
        assert_eq!(never.remarks(&zone), ["it never fires: no year has such a date"]);
    }
}
