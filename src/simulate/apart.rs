//! DAGs that never meet at a limit, each in a world of its own.
//!
//! DAGs share nothing but parallelism and the pools. As long as no instance waits for a limit in its own world, and what all worlds
//! hold together stays within every limit at the end of each instant, one world for all would have decided the same: at an instant
//! ends come first and then only starts, so that no limit is met on the way either. That is checked from window to window; where it
//! does not hold, all is done again in one world. So the report is the same either way. It pays because a small world stays in the
//! processor's cache, and because the worlds can be worked on at the same time: by whom, the caller says.

use jiff::Timestamp;

use crate::simulate::drive::{self, Drive, instant};
use crate::simulate::gauges::Step;
use crate::simulate::report::Report;
use crate::simulate::tally::Counted;
use crate::simulate::{Plan, Subject};

#[cfg(test)]
mod tests;

/// At most so many worlds; with more DAGs than that each has several, since a world takes some memory by itself.
const MAX_PARTS: usize = 2_048;
/// The first window, in microseconds; those that follow are made longer or shorter by what happens in them.
const FIRST_WINDOW: i64 = 3_600_000_000;
/// How many instants, of all worlds together, a window is to have.
const FEW: u64 = 50_000;
const MANY: u64 = 200_000;

/// Some of the DAGs, in a world of their own.
pub struct Part<'a> {
    plan: &'a Plan,
    subjects: &'a [Subject],
    drive: Option<Drive>,
    until: i64,
}

impl Part<'_> {
    /// Lives through the window that it was given. Parts do not depend on each other.
    pub fn go_on(&mut self) {
        let drive = self.drive.get_or_insert_with(|| {
            let mut drive = Drive::new(self.plan, self.subjects);
            drive.tally.record_steps();
            drive
        });
        drive.run(self.until, &mut |_| true);
    }

    fn is_entangled(&self) -> bool {
        self.drive.as_ref().is_some_and(|drive| drive.is_irregular || drive.tally.has_waited())
    }

    fn instants(&self) -> u64 {
        self.drive.as_ref().map_or(0, |drive| drive.instants)
    }
}

/// Calls [`Part::go_on`] once for each, in any order or at the same time, and returns when all are done.
pub type Crew<'a> = dyn Fn(&mut [Part<'_>]) + 'a;

/// Runs the plan to its end. `progress` is told the virtual instant from time to time, and may be told of the beginning again; when
/// it answers false, the report covers what there was until then.
pub fn simulate(plan: &Plan, progress: &mut dyn FnMut(Timestamp) -> bool) -> Report {
    simulate_with(plan, &|parts| parts.iter_mut().for_each(Part::go_on), progress)
}

/// As [`simulate`], with the work done by `crew`; the report does not depend on it.
pub fn simulate_with(plan: &Plan, crew: &Crew<'_>, progress: &mut dyn FnMut(Timestamp) -> bool) -> Report {
    apart(plan, crew, progress).unwrap_or_else(|| drive::jointly(plan, progress))
}

/// None: the DAGs may meet at a limit, or there is nothing to take apart.
fn apart(plan: &Plan, crew: &Crew<'_>, progress: &mut dyn FnMut(Timestamp) -> bool) -> Option<Report> {
    let (from, end) = (plan.from.as_microsecond(), plan.until.as_microsecond());
    // A picture is drawn while time passes, for all DAGs at once.
    if plan.is_drawn || plan.subjects.len() < 2 || from >= end {
        return None;
    }
    let size = plan.subjects.len().div_ceil(MAX_PARTS);
    let part = |subjects| Part { plan, subjects, drive: None, until: from };
    let mut parts: Vec<Part<'_>> = plan.subjects.chunks(size).map(part).collect();
    let mut gauges = Drive::new(plan, &[]).tally.into_gauges();
    let mut steps = Vec::new();
    let (mut at, mut window, mut instants) = (from, FIRST_WINDOW, 0);
    while at < end {
        let until = at.saturating_add(window).min(end);
        for part in &mut parts {
            part.until = until;
        }
        crew(&mut parts);
        if parts.iter().any(Part::is_entangled) {
            return None;
        }
        take_steps(&mut parts, &mut steps);
        gauges.follow(at, until, &steps).ok()?;
        at = until;
        let lived = parts.iter().map(Part::instants).sum::<u64>();
        window = match lived - instants {
            ..FEW => window.saturating_mul(2),
            FEW..=MANY => window,
            _ => (window / 2).max(1),
        };
        instants = lived;
        if at < end && !progress(instant(at)) {
            break;
        }
    }
    let until = instant(at);
    let counted = parts.into_iter().filter_map(|part| part.drive).map(|drive| drive.finish(until));
    let mut whole = counted.reduce(Counted::append)?;
    whole.gauges = gauges;
    Some(whole.into_report(plan, until))
}

/// The steps of all parts, in order of their instants.
fn take_steps(parts: &mut [Part<'_>], steps: &mut Vec<Step>) {
    steps.clear();
    for part in parts {
        if let Some(drive) = &mut part.drive {
            drive.tally.give_steps(steps);
        }
    }
    // Those of one instant are added up.
    steps.sort_unstable_by_key(|step| step.at);
}
