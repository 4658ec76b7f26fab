//! The world at the beginning: where each DAG's schedule stands at an instant, as if all that was due before it had been run.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::clock::BootInstant;
use crate::model::{Catchup, Dag, DataInterval, Every, Period, Schedule};
use crate::params::Override;
use crate::scheduler::DagRecord;
use crate::scheduler::change::Snapshot;
use crate::scheduler::event::{DagFile, Event, Found};
use crate::scheduler::world::{Drained, Now, Settings, World};
use crate::simulate::drive::NoHistory;
use crate::simulate::{Plan, Subject};
use crate::timetable::Timetable;

/// How many ticks are walked to find the one before an instant: more than a century of ticks a minute.
const MAX_STEPS: usize = 60_000_000;

/// The interval of the newest run that was due before `at`; None: there was none, or the schedule has no ticks.
pub(super) fn last_before(subject: &Subject, at: Timestamp) -> Option<DataInterval> {
    let dag = &subject.dag;
    let mut last = subject.last_interval;
    let shortcut = match &dag.schedule {
        Schedule::Never | Schedule::Once | Schedule::Continuous => return last,
        // The phase of a period is that of the runs before; of all rules that leave runs out, a window's alone keeps it.
        Schedule::Every(Every { period: Period::Fixed(period), .. }) => Some(Catchup::Window(*period * 2)),
        Schedule::Every(_) => None,
        Schedule::Cron(_) | Schedule::Events(_) => Some(Catchup::Latest),
    };
    let Ok(timetable) = Timetable::of(dag) else { return last };
    let first_seen = subject.first_seen_at.unwrap_or(at);
    let earliest = timetable.earliest(dag.earliest(), first_seen, dag.catchup);
    let before = at - SignedDuration::from_micros(1);
    let newest = dag.latest().map_or(before, |latest| latest.min(before));
    if let Some(rule) = shortcut
        && let Some(run) = timetable.next_run(last, earliest, dag.latest(), rule, newest)
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

/// A world that knows these DAGs of the plan, each at the place of its subject, and that has nothing running.
pub(super) fn world(plan: &Plan, subjects: &[Subject], dags: Vec<DagRecord>) -> World {
    let settings = Settings {
        parallelism: plan.parallelism,
        admission: crate::model::AdmissionRules::default(),
        drain_timeout: Duration::ZERO,
        drained: Drained::Kept,
        choosing: plan.choosing.clone(),
        pools: plan.pools.clone(),
        overrides: Override::Params,
        assets: Vec::new(),
    };
    let snapshot = Snapshot { dags, next_run_key: 1, next_instance_key: 1, next_version_key: 1, ..Snapshot::default() };
    let now = Now { wall: plan.from, boot: BootInstant::default() };
    let mut world = World::new(settings, snapshot, Box::new(|_, _| None), now);
    let file = |subject: &Subject| DagFile {
        path: subject.file.as_ref().into(),
        modified_at: None,
        found: Found::Parsed { dag: silent(&subject.dag), source: "".into(), hash: "simulated".into() },
    };
    let files = subjects.iter().map(file).collect();
    world.apply(Event::DagFiles { files, complete: true }, now, &mut NoHistory);
    world.apply(Event::Scanned, now, &mut NoHistory);
    world
}

/// The DAG without callbacks: nobody makes them here, and they would only gather.
fn silent(dag: &Arc<Dag>) -> Arc<Dag> {
    let has_any = dag.tasks.iter().any(|task| task.callbacks.is_some())
        || !(dag.on_success.is_empty() && dag.on_failure.is_empty() && dag.deadlines.is_empty());
    if has_any { Arc::new(Dag::clone(dag).without_callbacks()) } else { Arc::clone(dag) }
}

/// What the scheduler would have noted of the DAG at `from`, unpaused.
pub(super) fn record(subject: &Subject, from: Timestamp, last_interval: Option<DataInterval>) -> DagRecord {
    DagRecord {
        is_paused: false,
        first_seen_at: Some(subject.first_seen_at.map_or(from, |seen| seen.min(from))),
        last_interval,
        ..DagRecord::new(&subject.dag, subject.file.to_string())
    }
}
