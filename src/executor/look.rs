//! One look of a sensor that asks a service: it is rendered here, made by the process that looks, and judged here.
//!
//! No slot is held, and nothing is written to the database for a look in vain. Its log is that of the sensor's try.

use std::sync::Arc;
use std::time::Duration;

use crate::builtin::looks::{Answer, Looking, Seen};
use crate::builtin::{Finality, Verdict};
use crate::executor::asked::Asked;
use crate::executor::lookout::Sight;
use crate::executor::mapped::{self, Stop};
use crate::executor::output::RETURN_VALUE;
use crate::executor::try_log::TryLog;
use crate::executor::{Shared, large, paths, worker};
use crate::model::{Operator, retry};
use crate::operators::{Fault, Place, sensor};
use crate::scheduler::event::{Outcome, TryEnd};
use crate::scheduler::port::Work;

/// A look that is under way.
pub struct Begun {
    work: Box<Work>,
    log: TryLog,
}

/// Renders a look.
///
/// # Errors
/// What ends it before anything was asked.
pub fn begin(shared: &Shared, work: Box<Work>) -> Result<(Begun, Looking), Box<TryEnd>> {
    let log = match TryLog::open(worker::log_path(shared, &work), "looks", shared.clock.now()) {
        Ok(log) => log,
        Err(Fault::Task(reason)) => return Err(Box::new(end(shared, &work, Outcome::Faulted { reason }))),
        Err(Fault::Host(reason)) => return Err(Box::new(in_vain(shared, &work, &reason))),
    };
    let asked = Arc::new(Asked::of(shared.lookup.clone(), shared.settings.secrets.clone()));
    let prepared = prepare(shared, &work, asked.clone());
    let begun = Begun { work, log };
    match prepared {
        Ok(looking) => Ok((begun, looking)),
        Err(fault) => {
            let ended = match (asked.failure(), fault) {
                (Some(reason), _) => {
                    blind(shared, &begun, &format!("a template asks for what the database has: {reason}"))
                }
                (None, Fault::Host(reason)) => blind(shared, &begun, &reason),
                (None, Fault::Task(reason)) => end(shared, &begun.work, Outcome::Faulted { reason }),
            };
            Err(Box::new(worker::close(shared, &begun.log, ended)))
        }
    }
}

fn prepare(shared: &Shared, work: &Work, lookup: Arc<Asked>) -> Result<Looking, Fault> {
    let settings = &shared.settings;
    let Operator::Sensor(sensor) = &work.dag.task(work.task).operator else {
        return Err(Fault::Task("its task is no sensor".to_owned()));
    };
    let run_dir = paths::run_dir(&settings.home, &work.dag.dag_id, &work.run.run_id);
    let mut context = worker::context(shared, work, run_dir, lookup);
    match mapped::variables(&context, &shared.values, work.epoch) {
        Ok(variables) => context.variables = Arc::new(variables),
        Err(Stop::Refused) => return Err(Fault::Task("the filter of its mapping refuses its element".to_owned())),
        Err(Stop::Fault(reason)) => return Err(Fault::Task(reason)),
    }
    let dag_file = settings.dags_folder.join(&*work.file);
    let place = Place {
        dag_folder: dag_file.parent().unwrap_or(&settings.dags_folder),
        home: &settings.home,
        scratch: &context.run_dir,
        search_path: &settings.search_path,
        context: &context,
        earlier: work.earlier.as_deref(),
        now: shared.clock.now(),
    };
    sensor::looking(sensor, &place)
}

/// From what was seen to what it means for the sensor.
pub fn conclude(shared: &Shared, begun: &Begun, sight: Sight) -> TryEnd {
    let Begun { work, log } = begun;
    let ended = match sight {
        Sight::Blind(reason) => blind(shared, begun, &reason),
        Sight::Fatal(reason) => {
            let ended = TryEnd { reason: Some(reason.clone()), ..end(shared, work, Outcome::Exited(1)) };
            matched(work, ended, &reason)
        }
        Sight::Seen(Seen { said, answer, .. }) => {
            log.write(&said, shared.settings.max_log_bytes);
            match answer {
                Answer::Found(value) => {
                    let mut found = end(shared, work, Outcome::Exited(0));
                    found.xcoms.extend(value.map(|value| (RETURN_VALUE.to_owned(), value)));
                    found
                }
                Answer::Failed(Verdict { reason, finality }) => {
                    let mut failed = end(shared, work, Outcome::Exited(1));
                    failed.reason = Some(reason);
                    failed.is_final = finality == Finality::Final;
                    matched(work, failed, &said)
                }
            }
        }
    };
    let ended = worker::measured(shared, work, worker::produced(work.dag.task(work.task), worker::looked(work, ended)));
    worker::close(shared, log, large::keep(shared, work, ended))
}

fn matched(work: &Work, ended: TryEnd, said: &str) -> TryEnd {
    let matched = retry::matched(&work.dag.task(work.task).retry_on, said);
    TryEnd { matched, ..ended }
}

/// Nothing could be asked for want of something that the host may have later: it was a look in vain.
fn blind(shared: &Shared, begun: &Begun, reason: &str) -> TryEnd {
    begun.log.note(&format!("cannot look now: {reason}"), shared.clock.now());
    in_vain(shared, &begun.work, reason)
}

fn in_vain(shared: &Shared, work: &Work, reason: &str) -> TryEnd {
    const HOLDS: Duration = Duration::from_secs(90);
    shared.health.raise_for("looks", format!("of sensors cannot be made and wait: {reason}"), HOLDS);
    worker::looked(work, end(shared, work, Outcome::Exited(0)))
}

fn end(shared: &Shared, work: &Work, outcome: Outcome) -> TryEnd {
    TryEnd::new(work.key, outcome, shared.clock.now())
}
