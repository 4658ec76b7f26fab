//! Runs come to be: which one a schedule is to have next, when it is created, and when it may start (SEMANTICS 6.4, 7).
//!
//! Airflow works a schedule out anew each time it parses a file, every half minute. Here that happens when something has changed:
//! a definition, a pause, the clock, and when a due run turns out to be behind its schedule ([`World::refresh_due`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::model::{
    Catchup, DagRun, DataInterval, Instance, InstanceKey, RunId, RunKey, RunState, RunType, Schedule, Task, TaskState,
};
use crate::scheduler::change::{NextRun, RunLookup};
use crate::scheduler::decide::{PIECE_ROWS, TURN_ROWS, iso};
use crate::scheduler::machine::{self, RunEvent};
use crate::scheduler::port::StoreError;
use crate::scheduler::progress::InstanceIx;
use crate::scheduler::reload::fresh_row;
use crate::scheduler::timers::Deadline;
use crate::scheduler::world::{
    DagEntry, DagIx, Definition, History, InstanceEntry, Now, Run, RunIx, Slot, TimerKey, World,
};

/// How many logical dates that have a run already one turn goes over; each is a question to the database.
const TURN_DATES: usize = 2_000;

/// The least time from one run of `@continuous` to the next: Airflow's loop makes about one a second, and tasks that end at once
/// would fill the disk.
const CONTINUOUS_PACE: SignedDuration = SignedDuration::from_secs(1);

/// A run that the schedule of a DAG gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slated {
    pub dag: DagIx,
    pub run_after: Timestamp,
    pub logical_date: Timestamp,
}

impl World {
    /// Schedules that have fallen behind skip what their catchup rule does not want. Airflow does this at each parse, so that a DAG
    /// that was paused, held back by its limit or asleep for hours does not begin with the oldest run that it missed.
    pub(super) fn refresh_due(&mut self, now: Now) {
        let due: Vec<DagIx> = self.due.iter().map(|&(_, ix)| ix).collect();
        for ix in due {
            if self.dag(ix).is_behind(now) {
                self.plan_next_run(ix, now);
            }
        }
    }

    /// One run for each DAG that is due, oldest first (SEMANTICS 7.1).
    pub(super) fn create_due_runs(&mut self, now: Now, history: &mut dyn History) -> Result<bool, StoreError> {
        if self.due.is_empty() {
            return Ok(false);
        }
        let due: Vec<(Timestamp, DagIx)> = self.due.iter().copied().collect();
        let mut has_created = false;
        for (_, ix) in due {
            if self.is_turn_full() {
                break;
            }
            has_created |= self.create_due_run(ix, now, history)?;
        }
        Ok(has_created)
    }

    /// Creates one run, or goes over one date that has a run already.
    fn create_due_run(&mut self, ix: DagIx, now: Now, history: &mut dyn History) -> Result<bool, StoreError> {
        let entry = self.dag(ix);
        let next = entry.record.next_run.filter(|next| next.run_after <= now.wall);
        let (Some(next), Some(definition), true) = (next, entry.definition.clone(), entry.may_schedule()) else {
            self.set_due(ix, None);
            return Ok(false);
        };
        if entry.exceeds_max() {
            // It stays planned; the end of a run makes it due again.
            self.set_due(ix, None);
            self.dag_quiet(ix).held_back_at = Some(now.wall);
            return Ok(false);
        }
        let dag_id = entry.record.dag_id.clone();
        let is_known = entry.dates.contains_key(&next.logical_date);
        let is_known = is_known || self.made_dates.contains(&(ix, next.logical_date));
        let is_taken = is_known || history.has_run(&dag_id, &RunLookup::ByLogicalDate(next.logical_date))?;
        if is_taken {
            self.dates_gone_over += 1;
        } else {
            let run_id = RunId::from([RunType::Scheduled.as_str(), "__", &iso(next.run_after)].concat());
            let key = RunKey(self.new_run_key());
            let row = DagRun {
                logical_date: Some(next.logical_date),
                data_interval: Some(next.data_interval),
                queued_at: Some(now.wall),
                ..DagRun::new(key, dag_id, run_id, RunType::Scheduled, next.run_after)
            };
            let is_prompt = self.dag(ix).is_planned_ahead(next);
            let run = self.create_run(ix, row, &definition);
            self.run_quiet(run).is_prompt = is_prompt;
        }
        // The schedule goes on from this run, whoever made it.
        self.dag_mut(ix).record.last_interval = Some(next.data_interval);
        self.plan_next_run(ix, now);
        Ok(true)
    }

    /// What a turn may do is done; the rest is the next turn's.
    pub(super) fn is_turn_full(&self) -> bool {
        let most = if self.is_cut { PIECE_ROWS } else { TURN_ROWS };
        self.pending_rows() >= most || self.dates_gone_over >= TURN_DATES
    }

    /// Puts a new run and its instances into memory, to be written with this turn.
    pub(super) fn create_run(&mut self, dag: DagIx, row: DagRun, definition: &Arc<Definition>) -> RunIx {
        let key = row.key;
        let blank = definition.blank();
        let is_whole = definition.dag.tasks.iter().all(|task| has_instance(&row, task));
        let first = if is_whole {
            blank.places()
        } else {
            blank.first_instances(PIECE_ROWS, |task| has_instance(&row, definition.dag.task(task)))
        };
        let mut instances = Vec::with_capacity(first.len());
        let mut present = Vec::new();
        for (task, map_index) in first {
            let instance = InstanceKey(self.new_instance_key());
            let row = Instance { map_index, ..fresh_row(instance, key, task, definition) };
            let ix = Some(InstanceIx(instances.len() as u32));
            instances.push(InstanceEntry { ix, task: Some(task), ..InstanceEntry::new(row, None) });
            if !is_whole {
                present.push((task, map_index, TaskState::None));
            }
        }
        if instances.is_empty() && !definition.dag.tasks.is_empty() {
            log::warn!(
                "{} of {} has nothing to do: its logical date lies outside the dates of all tasks",
                row.run_id,
                row.dag_id
            );
        }
        let slots = (0..instances.len() as u32).map(Slot).collect();
        let run = self.insert_run(Run {
            row,
            prior: None,
            dag,
            definition: Some(definition.clone()),
            instances,
            progress: if is_whole { blank.into_owned() } else { blank.of_run(&present) },
            slots,
            held: 0,
            task_limits: BTreeMap::new(),
            is_prompt: true,
            is_examined: false,
            past_blocks: BTreeMap::new(),
            decisions: BTreeMap::new(),
            lengths: BTreeMap::new(),
            epoch: 0,
            waiting: Vec::new(),
            unwritten: 0,
            has_deadlines: false,
            weights: None,
            shared: None,
        });
        self.run_mut(run);
        for slot in self.run(run).slots_in_order() {
            self.entry_mut(run, slot);
        }
        self.note_new_run(run);
        self.promotable.insert(dag);
        if let (Some(date), true) = (self.run(run).row.logical_date, definition.has_past) {
            self.reconsider_later(dag, date);
        }
        run
    }

    /// Once no run is left, places are given out from the first again: of what is equal the first place comes first, and so what is
    /// decided depends on no run that was there before.
    pub(super) fn clear_places(&mut self) {
        if !self.runs.is_empty() && self.free_runs.len() == self.runs.len() {
            self.runs.clear();
            self.free_runs.clear();
            self.ready.clear_seats();
        }
    }

    /// Computes the DAG's next run, and wakes when it is due (SEMANTICS 6.4, 7.1).
    pub(super) fn plan_next_run(&mut self, ix: DagIx, now: Now) {
        let next = self.dag(ix).next_run_at(now);
        let entry = self.dag_quiet(ix);
        entry.is_planned_late = next.is_some_and(|next| next.run_after < now.wall);
        if entry.record.next_run != next {
            self.dag_mut(ix).record.next_run = next;
        }
        self.await_next_run(ix, now);
    }

    /// The DAGs whose next runs are due at `at`, in order. None: something else is due then, or a deadline stands on the clock that
    /// no run's instant is told by.
    pub fn due_at(&self, at: Timestamp) -> Option<Vec<DagIx>> {
        let dag = |key: &TimerKey| if let TimerKey::Due(ix) = key { Some(*ix) } else { None };
        let is_wall_alone = self.timers.next().1.is_none();
        is_wall_alone.then(|| self.timers.on_wall_until(at).map(dag).collect())?
    }

    /// Something else than runs of schedules is due on the wall clock.
    pub fn is_more_due(&self, now: Now) -> bool {
        self.timers.on_wall_until(now.wall).any(|key| !matches!(key, TimerKey::Due(_)))
    }

    /// Goes over `slated`, in order of their DAGs and then of their instants, as if each of these runs were created when it is due,
    /// and all over at `end`: for who knows already what becomes of them. No row tells of it. False, and nothing is changed: until
    /// `end` the schedules give other runs than these, or something else has a deadline.
    pub fn pass_over_runs(&mut self, slated: &[Slated], end: Now) -> bool {
        let of_dags = || slated.chunk_by(|a, b| a.dag == b.dag);
        let is_next = |next: Option<NextRun>, run: &Slated| {
            next.is_some_and(|next| (next.run_after, next.logical_date) == (run.run_after, run.logical_date))
        };
        let begins = |runs: &[Slated]| is_next(self.dag(runs[0].dag).record.next_run, &runs[0]);
        let are_alone = self.timers.next().1.is_none()
            && self.timers.on_wall_until(end.wall).count() == of_dags().count()
            && of_dags().all(begins);
        if !are_alone {
            return false;
        }
        let mut passed = Vec::new();
        for runs in of_dags() {
            let entry = self.dag(runs[0].dag);
            let (mut last, mut next) = (None, entry.record.next_run);
            for run in runs {
                if !is_next(next, run) || !entry.may_schedule() {
                    return false;
                }
                last = next.map(|next| next.data_interval);
                next = entry.next_run_after(last, run.run_after);
            }
            if next.is_some_and(|next| next.run_after <= end.wall) {
                return false;
            }
            passed.push((runs[0].dag, last, next));
        }
        for (ix, last, next) in passed {
            let record = &mut self.dag_quiet(ix).record;
            record.last_interval = last;
            record.next_run = next;
            self.await_next_run(ix, end);
        }
        true
    }

    /// The DAG has a run to create, planned for `at`; None: it has none now.
    pub(super) fn set_due(&mut self, ix: DagIx, at: Option<Timestamp>) {
        let before = std::mem::replace(&mut self.dag_quiet(ix).due_at, at);
        if before != at {
            if let Some(before) = before {
                self.due.remove(&(before, ix));
            }
            self.due.extend(at.map(|at| (at, ix)));
        }
    }

    /// Due now, or woken when it is.
    pub(super) fn await_next_run(&mut self, ix: DagIx, now: Now) {
        self.assets.reconsider(ix);
        let entry = self.dag(ix);
        let at = if entry.may_schedule() { entry.wake_at(now) } else { None };
        match at {
            Some(at) if at <= now.wall => {
                self.timers.cancel(&TimerKey::Due(ix));
                self.set_due(ix, Some(at));
            }
            Some(at) => {
                self.set_due(ix, None);
                self.arm(TimerKey::Due(ix), Deadline::Wall(at));
            }
            None => {
                self.set_due(ix, None);
                self.timers.cancel(&TimerKey::Due(ix));
            }
        }
    }

    /// The wall clock was set: what was worked out from it is worked out anew. No logical date comes twice, since schedules go on
    /// from their last run.
    pub(super) fn replan(&mut self, now: Now) {
        for at in 0..self.dags.len() {
            let ix = DagIx(at as u32);
            if self.dag(ix).record.first_seen_at.is_some_and(|seen| seen > now.wall) {
                // It was seen by a clock that ran ahead, and would not run before that instant.
                self.dag_mut(ix).record.first_seen_at = Some(now.wall);
            }
            if self.dag(ix).may_schedule() {
                self.plan_next_run(ix, now);
            }
        }
    }

    /// Queued runs start running, oldest run_after first, while their DAG's limit allows (SEMANTICS 7.4).
    pub(super) fn promote(&mut self, now: Now) -> bool {
        let mut has_changed = false;
        let promotable = self.promotable.take();
        for &ix in &promotable {
            self.wake_backfill(ix);
            if !self.dag(ix).may_schedule() || self.stopping.is_some() {
                continue;
            }
            let entry = self.dag(ix);
            let is_queued =
                |&(_, run): &(Timestamp, RunIx)| self.run(run).row.state == RunState::Queued && !self.is_run_held(run);
            let room = entry.record.max_active_runs.saturating_sub(entry.running) as usize;
            // No more than may run: thousands may be queued by hand.
            let queued: Vec<(Timestamp, RunIx)> = entry.runs.iter().copied().filter(is_queued).take(room).collect();
            let is_full = queued.len() == room;
            for (run_after, run) in queued {
                if run_after > now.wall {
                    self.arm(TimerKey::Wake(run), Deadline::Wall(run_after));
                    break;
                }
                self.promote_run(ix, run, now);
                has_changed = true;
            }
            if is_full {
                // What is queued now waits for a run to end.
                self.dag_quiet(ix).held_back_at = Some(now.wall);
            }
        }
        self.promotable.give_back(promotable);
        has_changed
    }

    pub(super) fn promote_run(&mut self, dag: DagIx, run: RunIx, now: Now) {
        let held_back_at = self.dag(dag).held_back_at;
        let this = self.run_mut(run);
        let row = &mut this.row;
        row.state = machine::next_run(row.state, RunEvent::Promote).expect("only queued runs are promoted");
        row.start_date = Some(now.wall);
        let waited = row.queued_at.is_some_and(|queued_at| queued_at < now.wall);
        this.is_prompt &= !(waited && held_back_at >= this.row.queued_at);
        let place = this.row.counts_with();
        if let Some(running) = self.running_of(dag, place) {
            *running += 1;
        }
        self.arm_run_timeout(run, now);
        self.active.insert(run);
    }

    /// Wakes when the run's dagrun_timeout has passed since its start.
    pub(super) fn arm_run_timeout(&mut self, run: RunIx, now: Now) {
        let this = self.run(run);
        let timeout = this.definition.as_ref().and_then(|definition| definition.dag.dagrun_timeout);
        let key = TimerKey::RunTimeout(run);
        match (timeout, this.row.start_date) {
            (Some(timeout), Some(started)) if this.row.state == RunState::Running => {
                self.arm(key, Deadline::Boot(now.boot_after(started, timeout)));
            }
            _ if this.has_deadlines => {
                self.timers.cancel(&key);
            }
            _ => {}
        }
    }
}

impl DagEntry {
    /// No further run of its schedule is created now: as many as it may have are queued or running (Airflow:
    /// `exceeds_max_non_backfill`). Runs by hand count, but are never refused.
    pub fn exceeds_max(&self) -> bool {
        let limit = if self.is_continuous() { 1 } else { self.record.max_active_runs as usize };
        self.runs.len() - self.backfilled as usize >= limit
    }

    fn is_continuous(&self) -> bool {
        self.definition.as_ref().is_some_and(|definition| definition.dag.schedule == Schedule::Continuous)
    }

    /// The bounds of its runs, both inclusive (SEMANTICS 6.4).
    fn bounds(&self, definition: &Definition, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
        let dag = &definition.dag;
        let first_seen = self.record.first_seen_at.unwrap_or(now);
        (definition.timetable.earliest(dag.earliest(), first_seen, dag.catchup), dag.latest())
    }

    /// The run that its schedule gives after its last one, as of now.
    fn next_run_at(&self, now: Now) -> Option<NextRun> {
        self.next_run_after(self.record.last_interval, now.wall)
    }

    /// The same if its last run had the interval `last`.
    fn next_run_after(&self, last: Option<DataInterval>, now: Timestamp) -> Option<NextRun> {
        let definition = self.definition.as_ref().filter(|_| self.record.is_active)?;
        let (earliest, latest) = self.bounds(definition, now);
        definition.timetable.next_run(last, earliest, latest, definition.dag.catchup, now)
    }

    /// Its next run is due, and its catchup rule would not choose it any longer.
    fn is_behind(&self, now: Now) -> bool {
        let (Some(next), Some(definition)) = (self.record.next_run, &self.definition) else { return false };
        if next.run_after >= now.wall {
            return false;
        }
        if self.is_continuous() {
            // Its interval ends when it is created.
            return true;
        }
        match definition.dag.catchup {
            Catchup::All => false,
            Catchup::Window(window) => now.wall.checked_sub(window).is_ok_and(|floor| next.run_after < floor),
            Catchup::Latest => {
                let (earliest, latest) = self.bounds(definition, now.wall);
                let last = Some(next.data_interval);
                let after = definition.timetable.next_run(last, earliest, latest, Catchup::All, now.wall);
                after.is_some_and(|after| after.run_after <= now.wall)
            }
        }
    }

    /// Nothing but its instant keeps the run waiting: it was not missed, and no limit held it back.
    fn is_planned_ahead(&self, next: NextRun) -> bool {
        !self.is_planned_late && self.held_back_at < Some(next.run_after)
    }

    /// When its schedule is to be looked at.
    fn wake_at(&self, now: Now) -> Option<Timestamp> {
        let next = self.record.next_run?;
        let Some(last) = self.record.last_interval.filter(|_| self.is_continuous()) else {
            return Some(next.run_after);
        };
        let age = now.wall.duration_since(last.end);
        let is_too_soon = !age.is_negative() && age < CONTINUOUS_PACE;
        Some(if is_too_soon { last.end + CONTINUOUS_PACE } else { next.run_after })
    }
}

/// A run has an instance of a task whose dates include its logical date (SEMANTICS 1); a backfill asks for its dates, whatever
/// the task says.
pub(super) fn has_instance(run: &DagRun, task: &Task) -> bool {
    let Some(date) = run.logical_date.filter(|_| run.run_type != RunType::Backfill) else { return true };
    task.start_date.is_none_or(|start| start <= date) && task.end_date.is_none_or(|end| date <= end)
}
