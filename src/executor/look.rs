//! One look of a sensor that asks a service: it is rendered here, made by the process that looks, and judged here.
//!
//! Those that are due together go together. No slot is held, and nothing is written to the database for a look in vain. Its log is that
//! of the sensor's try.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::builtin::looks::{Answer, Looking, Seen};
use crate::builtin::{Finality, Verdict};
use crate::executor::asked::Asked;
use crate::executor::farewell::farewell;
use crate::executor::lookout::{self, Lookout, Sight};
use crate::executor::mapped::{self, Stop};
use crate::executor::output::RETURN_VALUE;
use crate::executor::try_log;
use crate::executor::{Job, PANICKED, Shared, large, paths, worker};
use crate::model::{Operator, TryKey, retry};
use crate::operators::{self, Fault, Place, sensor};
use crate::scheduler::event::{Event, Outcome, TryEnd};
use crate::scheduler::port::Work;

/// Under which the board tells of looks that the host does not let be made, or be told of, and for how long.
const CONDITION: &str = "looks";
const HOLDS: Duration = Duration::from_secs(90);
/// One worker renders at most so many looks that are due together.
const TOGETHER: usize = 64;
/// So long rendered looks wait for those that are due with them.
const GATHER: Duration = Duration::from_millis(10);

/// The looks that are under way, and who makes them.
#[derive(Default)]
pub struct Looks {
    /// Started by the first.
    lookout: Option<Lookout>,
    /// None: it is being rendered.
    begun: BTreeMap<TryKey, Option<Begun>>,
}

impl Looks {
    /// Nobody wants to know what comes of it any longer.
    pub fn forget(&mut self, key: TryKey) {
        if self.begun.remove(&key).is_some()
            && let Some(lookout) = &self.lookout
        {
            lookout.forget(key);
        }
    }

    /// Who makes them, to be ended.
    pub fn take_lookout(&mut self) -> Option<Lookout> {
        self.lookout.take()
    }
}

/// A look that is under way.
pub struct Begun {
    work: Box<Work>,
    began_at: Timestamp,
}

impl Begun {
    pub fn key(&self) -> TryKey {
        self.work.key
    }
}

impl Shared {
    /// Has workers render them, and asks for them.
    pub(super) fn give_looks(&self, mut works: Vec<Work>) {
        self.looks.lock().begun.extend(works.iter().map(|work| (work.key, None)));
        while !works.is_empty() {
            let rest = works.split_off(works.len().min(TOGETHER));
            self.crew.give(Job::Look(std::mem::replace(&mut works, rest)));
        }
    }

    /// Asks for looks that are rendered.
    fn hand_looks(self: &Arc<Self>, ready: Vec<(Begun, Looking)>) {
        let mut looks = self.looks.lock();
        let mut wanted = Vec::with_capacity(ready.len());
        for (begun, looking) in ready {
            let key = begun.key();
            // One that was forgotten meanwhile has no place.
            if let Some(place) = looks.begun.get_mut(&key) {
                *place = Some(begun);
                wanted.push((key, looking));
            }
        }
        if wanted.is_empty() {
            return;
        }
        if looks.lookout.is_none() {
            match self.start_lookout() {
                Ok(lookout) => looks.lookout = Some(lookout),
                Err(error) => {
                    drop(looks);
                    let reason = format!("no thread can be started: {error}; raise the limit (ulimit -u)");
                    let blind = |(key, _)| (key, Sight::Blind(reason.clone()));
                    return self.hear_looks(wanted.into_iter().map(blind).collect());
                }
            }
        }
        if let Some(lookout) = &looks.lookout {
            lookout.look(wanted);
        }
    }

    fn start_lookout(self: &Arc<Self>) -> io::Result<Lookout> {
        let (home, shared) = (self.settings.home.clone(), Arc::downgrade(self));
        let command = move || {
            let program = operators::builtin::this_program().map_err(|fault| io::Error::other(fault.to_string()))?;
            Ok(lookout::command(&program, &home))
        };
        Lookout::start(command, move |sights| {
            if let Some(shared) = shared.upgrade() {
                shared.hear_looks(sights);
            }
        })
    }

    /// Called by the lookout's thread. One that was forgotten is not concluded.
    fn hear_looks(&self, sights: Vec<(TryKey, Sight)>) {
        let mut ends = Vec::with_capacity(sights.len());
        for (key, sight) in sights {
            let begun = self.looks.lock().begun.get_mut(&key).and_then(Option::take);
            ends.extend(begun.map(|begun| self.kept(key, || conclude(self, &begun, sight))));
        }
        self.report_looks(ends);
    }

    /// Renders looks that are due together, and asks for them. Who is slow to render holds the others up for a moment only.
    pub(super) fn begin_looks(self: &Arc<Self>, works: Vec<Work>) {
        let (mut ready, mut ends) = (Vec::with_capacity(works.len()), Vec::new());
        let mut began = Instant::now();
        for work in works {
            let key = work.key;
            match catch_unwind(AssertUnwindSafe(|| begin(self, Box::new(work)))) {
                Ok(Ok(rendered)) => ready.push(rendered),
                Ok(Err(end)) => ends.push(*end),
                Err(panic) => ends.push(self.kept(key, || resume_unwind(panic))),
            }
            if began.elapsed() > GATHER {
                self.hand_looks(std::mem::take(&mut ready));
                began = Instant::now();
            }
        }
        self.hand_looks(ready);
        self.report_looks(ends);
    }

    /// The end that `act` gives; as [`perform_try`](Self::perform_try).
    fn kept(&self, key: TryKey, act: impl FnOnce() -> TryEnd) -> TryEnd {
        catch_unwind(AssertUnwindSafe(act))
            .unwrap_or_else(|_| TryEnd::new(key, Outcome::Faulted { reason: PANICKED.to_owned() }, self.clock.now()))
    }

    fn report_looks(&self, mut ends: Vec<TryEnd>) {
        let mut looks = self.looks.lock();
        ends.retain(|end| looks.begun.remove(&end.key).is_some());
        drop(looks);
        if !ends.is_empty() {
            // A loop that has ended wants no more events.
            let _ = self.events.send(Event::Looked(ends));
        }
    }
}

/// Renders a look.
///
/// # Errors
/// What ends it before anything was asked.
fn begin(shared: &Shared, work: Box<Work>) -> Result<(Begun, Looking), Box<TryEnd>> {
    let began_at = shared.clock.now();
    let asked = Arc::new(Asked::of(shared.lookup.clone(), shared.settings.tunables.now().secrets.clone()));
    let prepared = prepare(shared, &work, asked.clone());
    let begun = Begun { work, began_at };
    prepared
        .map_err(|fault| {
            Box::new(match (asked.failure(), fault) {
                (Some(reason), _) => {
                    blind(shared, &begun, &format!("a template asks for what the database has: {reason}"))
                }
                (None, Fault::Host(reason)) => blind(shared, &begun, &reason),
                (None, Fault::Task(reason)) => {
                    let ended = end(shared, &begun.work, Outcome::Faulted { reason });
                    logged(shared, &begun, "", ended)
                }
            })
        })
        .map(|looking| (begun, looking))
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
fn conclude(shared: &Shared, begun: &Begun, sight: Sight) -> TryEnd {
    let work = &begun.work;
    let (ended, said) = match sight {
        Sight::Blind(reason) => return blind(shared, begun, &reason),
        Sight::Fatal(reason) => {
            let ended = TryEnd { reason: Some(reason.clone()), ..end(shared, work, Outcome::Exited(1)) };
            (matched(work, ended, &reason), String::new())
        }
        Sight::Seen(Seen { said, answer, .. }) => {
            let ended = match answer {
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
            };
            (ended, said)
        }
    };
    let ended = worker::measured(shared, work, worker::produced(work.dag.task(work.task), worker::looked(work, ended)));
    logged(shared, begun, &said, large::keep(shared, work, ended))
}

fn matched(work: &Work, ended: TryEnd, said: &str) -> TryEnd {
    let matched = retry::matched(&work.dag.task(work.task).retry_on, said);
    TryEnd { matched, ..ended }
}

/// Nothing could be asked for want of something that the host may have later: it was a look in vain.
fn blind(shared: &Shared, begun: &Begun, reason: &str) -> TryEnd {
    shared.health.raise_for(CONDITION, format!("of sensors cannot be made and wait: {reason}"), HOLDS);
    let said = try_log::line(&format!("cannot look now: {reason}"), shared.clock.now());
    let work = &begun.work;
    logged(shared, begun, &said, worker::looked(work, end(shared, work, Outcome::Exited(0))))
}

/// Writes the log of the look at once: thousands may be under way or wait for others, and none keeps a file open. What was seen counts
/// without its log too. `said` is lines, each with its end.
fn logged(shared: &Shared, begun: &Begun, said: &str, ended: TryEnd) -> TryEnd {
    let ended = worker::masked(shared, ended);
    let head = try_log::line("looks", begun.began_at);
    let tail = try_log::line(&farewell(&ended), shared.clock.now());
    let path = worker::log_path(shared, &begun.work);
    if let Err(fault) = try_log::append(&path, [&head, said, &tail], shared.settings.tunables.now().max_log_bytes) {
        shared.health.raise_for(CONDITION, format!("of sensors cannot be told in their logs: {fault}"), HOLDS);
    }
    ended
}

fn end(shared: &Shared, work: &Work, outcome: Outcome) -> TryEnd {
    TryEnd::new(work.key, outcome, shared.clock.now())
}
