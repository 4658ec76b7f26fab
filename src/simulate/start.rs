//! Where a DAG's schedule stands at an instant, as if all that was due before it had been run.

use jiff::{SignedDuration, Timestamp};

use crate::model::{Catchup, DataInterval, Schedule};
use crate::simulate::Subject;
use crate::timetable::Timetable;

/// How many ticks are walked to find the one before an instant: more than a century of ticks a minute.
const MAX_STEPS: usize = 60_000_000;

/// The interval of the newest run that was due before `at`; None: there was none, or the schedule has no ticks.
pub(super) fn last_before(subject: &Subject, at: Timestamp) -> Option<DataInterval> {
    let dag = &subject.dag;
    let mut last = subject.last_interval;
    let is_walked = match dag.schedule {
        Schedule::Never | Schedule::Once | Schedule::Continuous => return last,
        // The phase of a period is that of the runs before.
        Schedule::Every(_) => true,
        Schedule::Cron(_) | Schedule::Events(_) => false,
    };
    let Ok(timetable) = Timetable::new(&dag.schedule, &dag.timezone) else { return last };
    let first_seen = subject.first_seen_at.unwrap_or(at);
    let earliest = timetable.earliest(dag.earliest(), first_seen, dag.catchup);
    let before = at - SignedDuration::from_micros(1);
    if !is_walked
        && let Some(run) = timetable.next_run(last, earliest, dag.latest(), Catchup::Latest, before)
        && run.run_after < at
    {
        last = Some(run.data_interval);
    }
    for _ in 0..MAX_STEPS {
        match timetable.next_run(last, earliest, dag.latest(), Catchup::All, at) {
            Some(run) if run.run_after < at => last = Some(run.data_interval),
            _ => break,
        }
    }
    last
}
