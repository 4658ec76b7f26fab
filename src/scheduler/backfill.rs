//! Backfills: runs for a range of past dates (SEMANTICS 8).
//!
//! Here are the rules, as pure functions: which dates a request means ([`plan`]), and what becomes of each ([`fate_of`]). `work`
//! makes the runs, a turn's worth at a time, and promotes them; `steer` carries out commands. The list of dates is committed before
//! the first run is made, so that a crash changes nothing about it. A queued run of a backfill is a row of the database and nothing
//! else: its instances are made, and it comes into memory, when it is promoted.

mod steer;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;

use crate::model::{
    Backfill, BackfillId, BackfillPlace, Catchup, Dag, DagRun, NextRun, Reprocess, RunId, RunType, SkipReason,
};
use crate::scheduler::change::BackfillProgress;
use crate::scheduler::command::{CommandError, NewBackfill, Reply};
use crate::scheduler::decide::iso;
use crate::scheduler::port::ReplyTo;
use crate::scheduler::world::{DagIx, World};
use crate::timetable::Timetable;

/// The longest list of dates: a schedule of each minute for half a year. The list is made and written in one turn.
pub const MAX_DATES: usize = 300_000;

/// The reason of runs that failed because their backfill was cancelled; `store::backfill` writes it.
pub const CANCELLED: &str = "backfill_cancelled";

/// The backfills that are not completed, at most one of each DAG.
#[derive(Debug, Default)]
pub(super) struct Backfills {
    live: BTreeMap<DagIx, LiveBackfill>,
    /// Their dates are to be looked at, or room for a run may be free.
    due: BTreeSet<DagIx>,
    /// The same for the next turn: it needs what this turn commits.
    next: BTreeSet<DagIx>,
    /// The database could not be asked about their dates: they are due again when it is next asked.
    unasked: BTreeSet<DagIx>,
    /// The next turn is to come without waiting for an event.
    has_more: bool,
    next_id: i64,
}

#[derive(Debug)]
struct LiveBackfill {
    row: Backfill,
    /// The dates that have not been looked at, with their places.
    pending: VecDeque<(u32, NextRun)>,
    /// Its rows are in the database: runs may be made.
    is_committed: bool,
    /// Its queued runs; `unseen` of them are not in the database yet.
    queued: u32,
    unseen: u32,
    running: u32,
    /// The place of the newest run that was promoted since the start.
    promoted: u32,
    made: Made,
    /// Who asked for it, until all dates have been looked at.
    creator: Option<ReplyTo<Reply>>,
    waiting: Vec<ReplyTo<Reply>>,
}

/// What its dates have led to since it was asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Made {
    runs: u32,
    skipped: u32,
}

impl LiveBackfill {
    fn new(progress: BackfillProgress) -> Self {
        Self {
            row: progress.backfill,
            pending: progress.pending.into(),
            is_committed: true,
            queued: progress.queued,
            unseen: 0,
            running: 0,
            promoted: 0,
            made: Made::default(),
            creator: None,
            waiting: Vec::new(),
        }
    }
}

impl Backfills {
    /// Something is left to do that needs no event.
    pub(super) fn has_more(&self) -> bool {
        self.has_more
    }

    /// A backfill may have something to promote or to complete.
    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The turn's rows are committed before the next turn begins.
    pub(super) fn end_turn(&mut self) {
        self.has_more = !self.next.is_empty();
        if self.next.is_empty() && self.unasked.is_empty() {
            return;
        }
        let mut again = std::mem::take(&mut self.next);
        again.append(&mut self.unasked);
        for ix in again {
            self.due.insert(ix);
            if let Some(live) = self.live.get_mut(&ix) {
                live.is_committed = true;
                live.unseen = 0;
            }
        }
    }

    fn find(&self, id: BackfillId) -> Option<DagIx> {
        self.live.iter().find(|(_, live)| live.row.id == id).map(|(&ix, _)| ix)
    }
}

impl World {
    pub(super) fn load_backfills(&mut self, found: Vec<BackfillProgress>, next_id: i64) {
        self.backfills.next_id = next_id;
        for progress in found {
            let Some(&ix) = self.dag_index.get(&progress.backfill.dag_id) else { continue };
            self.backfills.live.insert(ix, LiveBackfill::new(progress));
            self.backfills.due.insert(ix);
        }
    }

    /// A queued run of a backfill comes into memory by a user's word, and waits in its line no longer.
    pub(super) fn leave_backfill_line(&mut self, ix: DagIx, place: BackfillPlace) {
        if let Some(live) = self.backfills.live.get_mut(&ix).filter(|live| live.row.id == place.backfill) {
            live.queued = live.queued.saturating_sub(1);
            self.backfills.due.insert(ix);
        }
    }

    /// The backfill of the DAG, if it has one, is looked at again.
    pub(super) fn wake_backfill(&mut self, ix: DagIx) {
        if self.backfills.live.contains_key(&ix) {
            self.backfills.due.insert(ix);
        }
    }

    /// What counts the running runs of a run's kind: the DAG's, or its backfill's. None: its backfill is over.
    pub(super) fn running_of(&mut self, ix: DagIx, place: Option<BackfillPlace>) -> Option<&mut u32> {
        let Some(place) = place else { return Some(&mut self.dag_quiet(ix).running) };
        let live = self.backfills.live.get_mut(&ix)?;
        (live.row.id == place.backfill).then_some(&mut live.running)
    }
}

/// The dates that `asked` means, in the order of their runs; at least one.
///
/// # Errors
/// The DAG cannot be filled up like this (SEMANTICS 8, preconditions), or no date is left.
pub fn plan(
    dag: &Dag,
    timetable: &Timetable,
    asked: &NewBackfill,
    now: Timestamp,
) -> Result<Vec<NextRun>, CommandError> {
    check(dag, timetable, asked, now)?;
    let mut dates: Vec<NextRun> = Vec::new();
    let mut last = None;
    while let Some(next) = timetable.next_run(last, Some(asked.from_date), Some(asked.to_date), Catchup::All, now) {
        let is_stuck = dates.last().is_some_and(|before| next.logical_date <= before.logical_date);
        // Those that follow end later still.
        if next.data_interval.end >= now || is_stuck {
            break;
        }
        if dates.len() == MAX_DATES {
            let message = format!("a backfill of `{}` over this range has more than {MAX_DATES} runs", dag.dag_id);
            return Err(refusal("too-many-dates", message, "fill up a part of the range at a time"));
        }
        last = Some(next.data_interval);
        dates.push(next);
    }
    if dates.is_empty() {
        let message =
            format!("`{}` has no run to make between {} and {}", dag.dag_id, iso(asked.from_date), iso(asked.to_date));
        let help = format!(
            "its schedule is {}; both dates are inclusive, and only what is over by now is filled up",
            timetable.summary().unwrap_or_default()
        );
        return Err(refusal("no-dates", message, &help));
    }
    if asked.is_backwards {
        dates.reverse();
    }
    Ok(dates)
}

fn check(dag: &Dag, timetable: &Timetable, asked: &NewBackfill, now: Timestamp) -> Result<(), CommandError> {
    if !timetable.is_periodic() {
        let summary =
            timetable.summary().map_or("no schedule".to_owned(), |schedule| format!("the schedule `{schedule}`"));
        let message = format!("`{}` has {summary}, which gives no dates to fill up", dag.dag_id);
        return Err(refusal(
            "no-dates",
            message,
            "start its runs one by one with `minflow dags trigger --logical-date`",
        ));
    }
    if asked.from_date > asked.to_date {
        let message = format!("from {} to {} is no range", iso(asked.from_date), iso(asked.to_date));
        return Err(refusal("invalid-range", message, "--from-date is the earlier one"));
    }
    if asked.from_date > now {
        let message = "both dates lie ahead".to_owned();
        return Err(refusal("invalid-range", message, "a backfill makes up for dates that are past"));
    }
    if asked.max_active_runs == 0 {
        let message = "max_active_runs is 0".to_owned();
        return Err(refusal("invalid-limit", message, "at least one run must be allowed to run"));
    }
    let Some(task) = dag.tasks.iter().find(|task| task.depends_on_past || task.wait_for_downstream) else {
        return Ok(());
    };
    let named = format!("task `{}` of `{}` depends on past runs", task.task_id, dag.dag_id);
    if asked.is_backwards {
        let message = format!("{named}, so its dates cannot be filled up backwards");
        return Err(refusal("depends-on-past", message, "leave --run-backwards out"));
    }
    if asked.reprocess == Reprocess::None {
        let message = format!("{named}, so runs that exist must be done over again");
        return Err(refusal("depends-on-past", message, "add --reprocess-behavior failed or completed"));
    }
    Ok(())
}

/// What a date leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Create,
    /// The existing run is done over again.
    Clear,
    Skip(SkipReason),
}

/// What becomes of a date whose run, if it has one, is `existing` (SEMANTICS 8, existing DR).
pub fn fate_of(existing: Option<&DagRun>, reprocess: Reprocess) -> Fate {
    let Some(existing) = existing else { return Fate::Create };
    let has_failed = existing.state == crate::model::RunState::Failed;
    match reprocess {
        _ if !existing.state.is_finished() => Fate::Skip(SkipReason::InFlight),
        Reprocess::Completed => Fate::Clear,
        Reprocess::Failed if has_failed => Fate::Clear,
        Reprocess::Failed | Reprocess::None => Fate::Skip(SkipReason::AlreadyExists),
    }
}

/// The run_id of a new run for a date (SEMANTICS 7.2).
pub fn run_id(date: &NextRun) -> RunId {
    RunId::from(format!("{}__{}", RunType::Backfill, iso(date.run_after)))
}

fn refusal(code: &str, message: String, help: &str) -> CommandError {
    CommandError { code: code.to_owned(), message, help: help.to_owned() }
}
