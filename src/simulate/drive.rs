//! The virtual clock: wakes the world at its deadlines and at the ends of its tries, one instant after the other.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::clock::BootInstant;
use crate::model::deadline::DeadlineRow;
use crate::model::{RunState, TaskState, TryKey, Wait};
use crate::scheduler::DagRecord;
use crate::scheduler::event::{Event, Outcome, TryEnd, Verdict};
use crate::scheduler::world::{Action, DagIx, History, Now, Run, RunIx, Sink, Slated, Slot, World};
use crate::simulate::alike::{Alike, Models, Watched};
use crate::simulate::past::Past;
use crate::simulate::report::Report;
use crate::simulate::tally::{Counted, Tally};
use crate::simulate::{Plan, Subject, sensor, start};

/// After so many turns at one instant the clock goes on by [`STEP`]: what begins anew as soon as it is over, and takes no time,
/// would stand still for ever.
const MAX_TURNS: usize = 10_000;
const STEP: i64 = 1_000;
/// How many instants pass between two calls of the progress.
const TELL_EVERY: u64 = 4_096;

/// Nobody has run anything before, and dates only go forward.
pub(super) struct NoHistory;

impl History for NoHistory {}

/// How a try will end.
#[derive(Clone, Debug)]
struct Ending {
    key: TryKey,
    began_at: i64,
    fate: Fate,
}

#[derive(Clone, Debug, PartialEq)]
enum Fate {
    Succeeds,
    Fails,
    TimesOut,
    Killed,
    /// A sensor has looked once.
    Waits(Box<Wait>),
    /// What a sensor waits for is there, or cannot be looked for.
    Comes,
    GoesWrong,
}

/// Ends that are to come, by instant in microseconds; those of one instant in the order in which their tries began.
#[derive(Default)]
struct Agenda {
    ends: BTreeMap<i64, Vec<Ending>>,
    /// Emptied lists, to be filled again.
    spare: Vec<Vec<Ending>>,
}

impl Agenda {
    fn add(&mut self, at: i64, ending: Ending) {
        let spare = &mut self.spare;
        self.ends.entry(at).or_insert_with(|| spare.pop().unwrap_or_default()).push(ending);
    }

    fn next(&self) -> Option<i64> {
        self.ends.first_key_value().map(|(&at, _)| at)
    }

    /// What ends at `at` or earlier, if anything does.
    fn due(&mut self, at: i64) -> Option<Vec<Ending>> {
        let first = self.ends.first_entry().filter(|first| *first.key() <= at)?;
        Some(first.remove())
    }

    fn give_back(&mut self, mut list: Vec<Ending>) {
        list.clear();
        self.spare.push(list);
    }
}

/// What is expected of a task, ready to be used.
#[derive(Clone, Copy, Debug)]
struct Expected {
    /// In microseconds, at least one, at most its execution_timeout.
    lasts_for: i64,
    times_out: bool,
    /// A try whose number drawn is less fails.
    fails_below: u64,
    identity: u64,
}

/// Takes in the rows of a turn.
struct Intake<'a> {
    now: i64,
    expected: &'a [Vec<Expected>],
    agenda: &'a mut Agenda,
    tally: &'a mut Tally,
    past: &'a mut Past,
    alike: &'a [Option<Alike>],
    watched: &'a mut Option<Watched>,
}

impl Sink for Intake<'_> {
    fn dag(&mut self, _: &DagRecord) {}

    fn run(&mut self, ix: RunIx, run: &Run, prior: Option<RunState>) {
        if run.row.state.is_finished() && !prior.is_some_and(RunState::is_finished) {
            self.past.keep(run);
        }
        if prior.is_none() {
            self.watched.take_if(|watched| !watched.take_in(run, self.now, self.alike, self.tally));
        }
        self.tally.run(ix, run, prior);
    }

    fn missed(&mut self, ix: DagIx, row: &DeadlineRow) {
        self.tally.missed(ix, row);
    }

    fn instance(&mut self, ix: RunIx, slot: Slot, run: &Run, prior: Option<TaskState>) {
        let entry = run.entry(slot);
        if entry.row.state == TaskState::Queued
            && prior != Some(TaskState::Queued)
            && let Some(task) = run.task_of(slot)
        {
            let expected = &self.expected[run.dag.0 as usize][task.index()];
            let fails = expected.fails(run.row.run_after, entry.row.try_number);
            let wait = run.definition.as_ref().and_then(|definition| {
                sensor::wait(definition.dag.task(task), entry.row.deferral.as_deref(), instant(self.now))
            });
            let fate = match expected {
                _ if wait.is_some() && fails => Fate::GoesWrong,
                _ if wait.is_some() => Fate::Comes,
                Expected { times_out: true, .. } => Fate::TimesOut,
                _ if fails => Fate::Fails,
                _ => Fate::Succeeds,
            };
            let ending = Ending { key: entry.row.try_key(), began_at: self.now, fate };
            if let Some(wait) = wait {
                self.agenda
                    .add(self.now + sensor::LOOK, Ending { fate: Fate::Waits(Box::new(wait)), ..ending.clone() });
            }
            self.agenda.add(self.now + expected.lasts_for, ending);
        }
        self.tally.instance(ix, slot, run, prior);
    }
}

impl Expected {
    /// Drawn from who it is, not in turn: another limit or another DAG does not change who fails.
    fn fails(&self, run_after: Timestamp, try_number: u32) -> bool {
        self.fails_below > 0
            && mix(self.identity ^ mix(run_after.as_microsecond().cast_unsigned() ^ u64::from(try_number) << 56))
                < self.fails_below
    }
}

/// Spreads a number over all 64 bits (the finalizer of SplitMix64).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn identity(seed: u64, dag_id: &str, task_id: &str) -> u64 {
    let bytes = dag_id.bytes().chain([0]).chain(task_id.bytes());
    mix(bytes.fold(mix(seed), |hash, byte| mix(hash ^ u64::from(byte))))
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX / 4)
}

/// A world and the virtual clock that it runs by.
pub(super) struct Drive {
    world: World,
    agenda: Agenda,
    expected: Vec<Vec<Expected>>,
    pub(super) tally: Tally,
    past: Past,
    from: i64,
    /// The instant at which it stands, in microseconds; None: nothing has happened yet.
    at: Option<i64>,
    /// How many it has lived through.
    pub(super) instants: u64,
    /// Something has happened whose order within an instant matters: a process was killed, or the clock had to be pushed on.
    pub(super) is_irregular: bool,
    /// By DAG; None of those whose runs may differ from each other.
    pub(super) alike: Vec<Option<Alike>>,
    pub(super) models: Models,
    watched: Option<Watched>,
    /// No run is under way.
    is_idle: bool,
}

/// All DAGs in one world. `progress` is told the virtual instant from time to time; when it answers false, the report covers what
/// there was until then.
pub(super) fn jointly(plan: &Plan, progress: &mut dyn FnMut(Timestamp) -> bool) -> Report {
    let mut drive = Drive::new(plan, &plan.subjects);
    let until = drive.run(plan.until.as_microsecond(), progress);
    drive.finish(instant(until)).into_report(plan, instant(until))
}

impl Drive {
    /// Of these of the plan's DAGs, before anything has happened.
    pub(super) fn new(plan: &Plan, subjects: &[Subject]) -> Self {
        let record = |subject| start::record(subject, plan.from, start::last_before(subject, plan.from));
        let records = subjects.iter().map(record).collect();
        let world = start::world(plan, subjects, records);
        let expected = subjects.iter().map(|subject| expected(subject, plan.seed)).collect();
        let tally = Tally::new(plan, subjects, &world);
        Self {
            alike: subjects.iter().map(|subject| Alike::of(&subject.dag)).collect(),
            models: Models::new(subjects.iter().map(|subject| &*subject.dag)),
            watched: None,
            is_idle: false,
            world,
            agenda: Agenda::default(),
            expected,
            tally,
            past: Past::new(subjects),
            from: plan.from.as_microsecond(),
            at: None,
            instants: 0,
            is_irregular: false,
        }
    }

    pub(super) fn finish(self, until: Timestamp) -> Counted {
        self.tally.finish(&self.world, until)
    }

    /// The next instant at which something happens.
    fn next(&self) -> Option<i64> {
        let (wall, boot) = self.world.next_deadline();
        let boot = boot.map(|boot| self.from.saturating_add(micros(boot.0)));
        [self.agenda.next(), wall.map(Timestamp::as_microsecond), boot].into_iter().flatten().min()
    }

    /// From where it stands to all that happens before `until`, in microseconds; returns `until`, or the instant at which
    /// `progress` has stopped it.
    pub(super) fn run(&mut self, until: i64, progress: &mut dyn FnMut(Timestamp) -> bool) -> i64 {
        let (mut at, mut next) = match self.at {
            Some(at) => (at, self.next()),
            None => self.live_through(self.from),
        };
        // The counts of a window are given away at its end.
        self.watched = None;
        let mut told = self.instants;
        while let Some(due) = next.filter(|&next| next < until) {
            at = due.max(at);
            self.tally.pass_to(at);
            (at, next) = match self.repeat(at, until) {
                Some(over) => over,
                None => self.live_through(at),
            };
            if self.instants - told >= TELL_EVERY {
                told = self.instants;
                if !progress(instant(at)) {
                    return at;
                }
            }
        }
        self.at = Some(at);
        self.tally.pass_to(until);
        until
    }

    /// A whole spell that goes like an earlier one, if that is over before `until`; returns the instant at which it is over, and the
    /// next one.
    fn repeat(&mut self, at: i64, until: i64) -> Option<(i64, Option<i64>)> {
        let first = self.world.due_at(instant(at)).filter(|_| self.is_idle)?;
        if first.iter().any(|dag| self.alike[dag.0 as usize].is_none()) {
            return None;
        }
        // All of its instances are there, and none of their first tries fails.
        let is_smooth = |run: &Slated| {
            let alike = self.alike[run.dag.0 as usize].as_ref();
            let fails = |expected: &Expected| expected.fails(run.run_after, 1);
            alike.is_some_and(|alike| alike.is_whole(run.logical_date))
                && !self.expected[run.dag.0 as usize].iter().any(fails)
        };
        for model in self.models.of(&first) {
            let over = at + model.share.lasted;
            let Some(runs) = model.runs_from(at).filter(|runs| over < until && runs.iter().all(is_smooth)) else {
                continue;
            };
            if self.world.pass_over_runs(&runs, now(self.from, over)) {
                self.instants += model.instants;
                self.tally.repeat(&model.share, &runs);
                #[cfg(test)]
                (model.repeats += 1);
                return Some((over, self.next()));
            }
        }
        self.watched = Some(Watched::new(at, first, self.instants, self.tally.watch(), &self.models));
        None
    }

    /// At the end of an instant: the spell that was watched may be over.
    fn learn(&mut self) {
        self.is_idle = self.world.is_idle() && self.agenda.next().is_none();
        if let Some(watched) = self.watched.take_if(|_| self.is_idle) {
            watched.end(self.instants, &self.alike, &self.tally, &mut self.models);
        }
        if self.watched.is_none() {
            self.tally.unwatch();
        }
    }

    /// Something has happened whose order within an instant matters.
    fn note_irregular(&mut self) {
        self.is_irregular = true;
        self.watched = None;
    }

    /// All that happens at one instant; returns the instant at which it is over, and the next one.
    fn live_through(&mut self, mut at: i64) -> (i64, Option<i64>) {
        let mut next = None;
        self.instants += 1;
        for turn in 1_usize.. {
            let now = now(self.from, at);
            while let Some(mut ends) = self.agenda.due(at) {
                ends.drain(..).for_each(|end| self.end(end, at, now));
                self.agenda.give_back(ends);
            }
            // A spell in which something else comes is like no other.
            self.watched.take_if(|_| self.world.is_more_due(now));
            self.world.apply_deadlines(now);
            // Nothing is asked that could fail.
            let _ = self.world.decide(now, &mut self.past);
            self.end_turn(at);
            next = self.next();
            let is_over = !self.world.has_more() && next.is_none_or(|next| next > at);
            if is_over {
                break;
            }
            if turn.is_multiple_of(MAX_TURNS) {
                at += STEP;
                self.note_irregular();
            }
        }
        self.tally.close_instant(at, &self.world);
        self.learn();
        (at, next)
    }

    fn end(&mut self, Ending { key, began_at, fate }: Ending, at: i64, now: Now) {
        let outcome = match fate {
            Fate::Succeeds => Outcome::Exited(0),
            Fate::Fails => Outcome::Exited(1),
            Fate::TimesOut => Outcome::TimedOut,
            Fate::Killed => Outcome::Killed { reason: "stopped".to_owned() },
            Fate::Waits(wait) => Outcome::Deferred(wait),
            Fate::Comes => {
                // Of a list nobody knows how long it will be, and anything else counts as one element.
                return self.world.apply(
                    Event::Fired { key, verdict: Verdict::There(Value::Null) },
                    now,
                    &mut self.past,
                );
            }
            Fate::GoesWrong => {
                let verdict = Verdict::Failed { reason: "simulated".to_owned() };
                return self.world.apply(Event::Fired { key, verdict }, now, &mut self.past);
            }
        };
        // Nobody knows how long a list will be: each is taken to have one element.
        let awaited = if outcome == Outcome::Exited(0) { self.world.awaited_lengths(key) } else { Vec::new() };
        let lengths = awaited.into_iter().map(|key| (key, 1)).collect();
        let ended = TryEnd { started_at: Some(instant(began_at)), lengths, ..TryEnd::new(key, outcome, instant(at)) };
        self.world.apply_ended(ended, now);
    }

    fn end_turn(&mut self, at: i64) {
        let mut intake = Intake {
            now: at,
            expected: &self.expected,
            agenda: &mut self.agenda,
            tally: &mut self.tally,
            past: &mut self.past,
            alike: &self.alike,
            watched: &mut self.watched,
        };
        let mut actions = self.world.end_turn(&mut intake);
        for action in actions.drain(..) {
            // A start has been seen as a row; what else there is needs no process.
            if let Action::Kill(key, _) = action {
                self.agenda.add(at, Ending { key, began_at: at, fate: Fate::Killed });
                self.note_irregular();
            }
        }
        self.world.give_back(actions);
    }
}

/// The instant `at` of a clock that began at `from`.
fn now(from: i64, at: i64) -> Now {
    Now { wall: instant(at), boot: BootInstant(Duration::from_micros((at - from).unsigned_abs())) }
}

pub(super) fn instant(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX)
}

fn expected(subject: &Subject, seed: u64) -> Vec<Expected> {
    let of_task = |(task, outlook): (&crate::model::Task, &crate::simulate::Outlook)| {
        let lasts_for = micros(outlook.lasts_for).max(1);
        // How long a sensor may wait is the world's affair.
        let timeout = task.execution_timeout.filter(|_| !sensor::waits(task)).map(micros);
        let timeout = timeout.filter(|&timeout| timeout < lasts_for);
        Expected {
            lasts_for: timeout.unwrap_or(lasts_for).max(1),
            times_out: timeout.is_some(),
            fails_below: fails_below(outlook.fails),
            identity: identity(seed, &subject.dag.dag_id, &task.task_id),
        }
    };
    subject.dag.tasks.iter().zip(&subject.outlooks).map(of_task).collect()
}

/// The share `probability` of all numbers of 64 bits.
fn fails_below(probability: f64) -> u64 {
    (probability.clamp(0.0, 1.0) * u64::MAX as f64) as u64
}
