//! Deadlines of runs and expectations of days: when each is, and what it means that it has passed (SEMANTICS 19, CONTRACTS 1).
//!
//! A deadline is a row that is committed with its run, or with the run's first turn; one that passes while minflow is down is missed
//! at the next start. An expectation is an instant kept for each DAG with `expect_by`: then a run of its day must have succeeded,
//! whether or not one has begun. Each is missed once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

use crate::model::callback::{Hook, Occasion, Subject};
use crate::model::deadline::{Deadline as Spec, DeadlineRow, Reference};
use crate::model::{DagRun, DeadlineKey, Period, RunKey, RunState, RunType, Schedule};
use crate::scheduler::change::{DeadlineWrite, ExpectationWrite, RunLookup, RunSpan};
use crate::scheduler::port::{History, StoreError};
use crate::scheduler::timers::Deadline;
use crate::scheduler::world::{DagEntry, DagIx, Definition, Now, RunIx, TimerKey, World};

/// How many newest runs are looked through for those that have ended.
const LOOKED_AT: u32 = 200;
/// How many runs of a day are looked at for one that has succeeded.
const RUNS_OF_A_DAY: usize = 2_000;

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    next_key: i64,
    /// Those that have not passed, or not been looked at since.
    open: BTreeMap<DeadlineKey, DeadlineRow>,
    by_run: BTreeMap<RunKey, BTreeSet<DeadlineKey>>,
    /// New runs that are to get theirs in this turn.
    undated: BTreeSet<RunIx>,
    /// Those that have passed.
    passed: BTreeSet<DeadlineKey>,
    /// When each DAG with `expect_by` is expected to have succeeded next.
    expected: BTreeMap<DagIx, Timestamp>,
    /// Those whose instant has come.
    due: BTreeSet<DagIx>,
}

impl Deadlines {
    fn insert(&mut self, row: DeadlineRow) {
        if let Some((run, _)) = &row.run {
            self.by_run.entry(*run).or_default().insert(row.key);
        }
        self.open.insert(row.key, row);
    }

    fn remove(&mut self, key: DeadlineKey) -> Option<DeadlineRow> {
        let row = self.open.remove(&key)?;
        if let Some((run, _)) = &row.run
            && let Some(keys) = self.by_run.get_mut(run)
        {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_run.remove(run);
            }
        }
        Some(row)
    }
}

/// A moment after it: at the instant itself a run is still in time.
fn just_after(at: Timestamp) -> Timestamp {
    at.checked_add(SignedDuration::from_micros(1)).unwrap_or(at)
}

impl World {
    pub(super) fn load_deadlines(
        &mut self,
        rows: Vec<DeadlineRow>,
        expectations: Vec<ExpectationWrite>,
        next_key: i64,
    ) {
        self.deadlines.next_key = next_key.max(1);
        for row in rows {
            self.arm(TimerKey::Deadline(row.key), Deadline::Wall(just_after(row.at)));
            self.deadlines.insert(row);
        }
        for ExpectationWrite { dag_id, at } in expectations {
            if let (Some(&ix), Some(at)) = (self.dag_index.get(&dag_id), at) {
                self.deadlines.expected.insert(ix, at);
            }
        }
    }

    /// A run is new: its deadlines are settled before the turn is committed. Runs of backfills are for dates long past and have none.
    pub(super) fn note_new_run(&mut self, run: RunIx) {
        let this = self.run(run);
        let has_any = this.definition.as_ref().is_some_and(|definition| !definition.dag.deadlines.is_empty());
        if has_any && this.row.run_type != RunType::Backfill {
            self.deadlines.undated.insert(run);
        }
    }

    /// Settles the deadlines of new runs.
    ///
    /// # Errors
    /// The database could not be asked; those that are left are settled in a later turn.
    pub(super) fn date_runs(&mut self, now: Now, history: &mut dyn History) -> Result<(), StoreError> {
        while let Some(&run) = self.deadlines.undated.first() {
            let (row, definition) = (self.run(run).row.clone(), self.run(run).definition.clone());
            let specs = definition.as_ref().map_or(&[][..], |definition| &definition.dag.deadlines);
            let mut dated = Vec::new();
            for (spec, number) in specs.iter().zip(1..) {
                dated.extend(instant_of(spec, &row, now, history)?.map(|at| (number, at)));
            }
            self.deadlines.undated.pop_first();
            for (number, at) in dated {
                let key = DeadlineKey(self.deadlines.next_key);
                self.deadlines.next_key += 1;
                let run = Some((row.key, row.run_id.clone()));
                let row = DeadlineRow { key, dag_id: row.dag_id.clone(), run, number, at, missed_at: None };
                self.open_deadline(row);
            }
        }
        Ok(())
    }

    fn open_deadline(&mut self, row: DeadlineRow) {
        self.arm(TimerKey::Deadline(row.key), Deadline::Wall(just_after(row.at)));
        self.changes.deadlines.push(DeadlineWrite::Put(row.clone()));
        self.deadlines.insert(row);
    }

    /// The run has succeeded: what it has met is no deadline any longer.
    pub(super) fn prune_deadlines(&mut self, run: RunIx) {
        let row = &self.run(run).row;
        let (key, ended_at) = (row.key, row.end_date);
        self.deadlines.undated.remove(&run);
        for deadline in self.deadlines.by_run.get(&key).cloned().unwrap_or_default() {
            let is_met = self.deadlines.open.get(&deadline).is_some_and(|row| ended_at.is_some_and(|at| at <= row.at));
            if is_met {
                self.deadlines.remove(deadline);
                self.deadlines.passed.remove(&deadline);
                self.timers.cancel(&TimerKey::Deadline(deadline));
                self.changes.deadlines.push(DeadlineWrite::Remove(deadline));
            }
        }
    }

    /// The run is done over again: what counts from `queued_at` and has not been missed counts anew.
    pub(super) fn redate_run(&mut self, run: RunIx) {
        let this = self.run(run);
        let (Some(queued_at), Some(definition)) = (this.row.queued_at, this.definition.clone()) else { return };
        for key in self.deadlines.by_run.get(&this.row.key).cloned().unwrap_or_default() {
            let Some(mut row) = self.deadlines.open.get(&key).cloned() else { continue };
            let spec = definition.dag.deadlines.get(row.number as usize - 1);
            let Some(spec) = spec.filter(|spec| spec.reference == Reference::QueuedAt) else { continue };
            let Ok(at) = queued_at.checked_add(spec.interval) else { continue };
            row.at = at;
            self.deadlines.passed.remove(&key);
            self.open_deadline(row);
        }
    }

    pub(super) fn pass_deadline(&mut self, key: DeadlineKey) {
        self.deadlines.passed.insert(key);
    }

    pub(super) fn pass_expectation(&mut self, ix: DagIx) {
        self.deadlines.due.insert(ix);
    }

    /// What has passed is missed, unless its run has succeeded in time.
    ///
    /// # Errors
    /// The database could not be asked; what is left is looked at again.
    pub(super) fn miss_deadlines(&mut self, now: Now, history: &mut dyn History) -> Result<(), StoreError> {
        while let Some(&key) = self.deadlines.passed.first() {
            let Some(row) = self.deadlines.open.get(&key).cloned() else {
                self.deadlines.passed.pop_first();
                continue;
            };
            let found = match self.find_dag(&row.dag_id).map(|(ix, _)| ix).zip(row.run.as_ref()) {
                Some((ix, (_, run_id))) => match self.find_live_run(ix, run_id) {
                    Some(live) => Some(self.run(live).row.clone()),
                    None => {
                        let lookup = RunLookup::ById(run_id.clone());
                        match history.find_run(&row.dag_id, &lookup) {
                            Err(error) if history.has_run(&row.dag_id, &lookup)? => {
                                // Nobody can tell whether it has succeeded in time.
                                log::error!(
                                    "a deadline of `{run_id}` of `{}` is forgotten: {error}; {}",
                                    row.dag_id,
                                    error.help
                                );
                                None
                            }
                            found => found?,
                        }
                    }
                },
                None => None,
            };
            self.deadlines.passed.pop_first();
            self.deadlines.remove(key);
            match found {
                Some(run) => self.miss(row, run, now),
                None => self.changes.deadlines.push(DeadlineWrite::Remove(key)),
            }
        }
        while let Some(&ix) = self.deadlines.due.first() {
            self.look_for_success(ix, now, history)?;
            self.deadlines.due.pop_first();
        }
        Ok(())
    }

    fn miss(&mut self, mut row: DeadlineRow, run: DagRun, now: Now) {
        row.missed_at = Some(now.wall);
        let state = run.state;
        let exception = match state {
            RunState::Success => {
                format!("the run has succeeded too late, at {}", shown(run.end_date.unwrap_or(now.wall)))
            }
            RunState::Failed => "the run has failed, and has not succeeded since".to_owned(),
            state => format!("the run is still {state}"),
        };
        let occasion = Occasion {
            state: state.to_string(),
            reason: Some("deadline".to_owned()),
            exception: Some(exception),
            deadline: Some(row.at),
            ..Occasion::new(Subject::Run)
        };
        self.tell_of_miss(row, Some(run), Hook::Deadline, occasion, now);
    }

    /// Writes what was missed, and calls whom the deadline names, or else the DAG.
    fn tell_of_miss(&mut self, row: DeadlineRow, run: Option<DagRun>, hook: Hook, occasion: Occasion, now: Now) {
        let definition = self.find_dag(&row.dag_id).and_then(|(_, entry)| entry.definition.clone());
        let own = definition.as_ref().zip((row.number as usize).checked_sub(1));
        let own = own.and_then(|(definition, at)| definition.dag.deadlines.get(at)).map(|spec| &spec.callbacks);
        let of_dag = definition.as_ref().map(|definition| &definition.dag.on_failure);
        let list = own.filter(|list| !list.is_empty()).or(of_dag).cloned().unwrap_or_default();
        let dag_id = row.dag_id.clone();
        self.changes.deadlines.push(DeadlineWrite::Put(row));
        let run = run.map(Arc::new);
        for (at, callback) in list.iter().enumerate() {
            let key = run.as_ref().map(|run| run.key);
            let row = self.new_callback(dag_id.clone(), key, hook, (at, callback), occasion.clone(), now);
            self.enqueue_callback(row, run.clone(), definition.clone());
        }
    }

    /// Settles when the DAG is expected to have succeeded next. One that has passed stays until it has been looked at.
    pub(super) fn plan_expectation(&mut self, ix: DagIx, now: Now) {
        let entry = self.dag(ix);
        let before = self.deadlines.expected.get(&ix).copied();
        let dag = entry.definition.as_ref().filter(|_| entry.record.is_active).map(|definition| &definition.dag);
        let rule = dag.and_then(|dag| Some((dag.expect_by?, dag.timezone.clone())));
        let next = match (rule, before) {
            (Some(_), Some(before)) if before <= now.wall => Some(before),
            (Some((time, zone)), _) => next_at(time, &zone, now.wall),
            (None, _) => None,
        };
        self.set_expectation(ix, next);
    }

    pub(super) fn set_expectation(&mut self, ix: DagIx, next: Option<Timestamp>) {
        let before = match next {
            Some(at) => self.deadlines.expected.insert(ix, at),
            None => self.deadlines.expected.remove(&ix),
        };
        match next {
            Some(at) => self.arm(TimerKey::Expect(ix), Deadline::Wall(just_after(at))),
            None => {
                self.timers.cancel(&TimerKey::Expect(ix));
                self.deadlines.due.remove(&ix);
            }
        }
        if before != next {
            let dag_id = self.dag(ix).record.dag_id.clone();
            self.changes.expectations.push(ExpectationWrite { dag_id, at: next });
        }
    }

    /// The instant has come, perhaps while minflow was down: of all that have passed since, the last that was missed is said.
    fn look_for_success(&mut self, ix: DagIx, now: Now, history: &mut dyn History) -> Result<(), StoreError> {
        let entry = self.dag(ix);
        let Some(definition) = entry.definition.clone() else { return Ok(()) };
        let (Some(time), Some(&first)) = (definition.dag.expect_by, self.deadlines.expected.get(&ix)) else {
            return Ok(());
        };
        let zone = &definition.dag.timezone;
        let next = next_at(time, zone, now.wall);
        // A user who pauses a DAG wants no runs of it; minflow pauses it because it fails.
        let is_silent = entry.record.is_paused && entry.record.pause_reason.is_none();
        let mut missed = None;
        let mut at = first;
        while at <= now.wall && !is_silent {
            let day_before = day_before(at, zone);
            if is_run_expected(entry, &definition, day_before, at) {
                let runs = self.runs_of_day(ix, day_before, at, history)?;
                let in_time =
                    |run: &DagRun| run.state == RunState::Success && run.end_date.is_some_and(|end| end <= at);
                if !runs.iter().any(in_time) {
                    missed = Some((at, runs.into_iter().next_back()));
                }
            }
            match next_at(time, zone, at) {
                Some(after) => at = after,
                None => break,
            }
        }
        self.set_expectation(ix, next);
        let Some((at, run)) = missed else { return Ok(()) };
        let what = match &run {
            None => "no run of the day has begun".to_owned(),
            Some(run) if run.state == RunState::Success => {
                format!("run {} has succeeded too late, at {}", run.run_id, shown(run.end_date.unwrap_or(now.wall)))
            }
            Some(run) if run.state == RunState::Failed => format!("run {} has failed", run.run_id),
            Some(run) => format!("run {} is still {}", run.run_id, run.state),
        };
        let paused =
            self.dag(ix).record.pause_reason.as_ref().map(|why| format!("; minflow has paused the DAG: {why}"));
        let occasion = Occasion {
            state: run.as_ref().map_or_else(String::new, |run| run.state.to_string()),
            reason: Some("expect_by".to_owned()),
            exception: Some(format!("{what}{}", paused.unwrap_or_default())),
            deadline: Some(at),
            ..Occasion::new(if run.is_some() { Subject::Run } else { Subject::Dag })
        };
        let key = DeadlineKey(self.deadlines.next_key);
        self.deadlines.next_key += 1;
        let dag_id = self.dag(ix).record.dag_id.clone();
        let of_run = run.as_ref().map(|run| (run.key, run.run_id.clone()));
        let row = DeadlineRow { key, dag_id, run: of_run, number: 0, at, missed_at: Some(now.wall) };
        self.tell_of_miss(row, run, Hook::ExpectBy, occasion, now);
        Ok(())
    }

    /// The runs whose run_after lies after `from`, up to `to`, in order; as they are now.
    fn runs_of_day(
        &self,
        ix: DagIx,
        from: Timestamp,
        to: Timestamp,
        history: &mut dyn History,
    ) -> Result<Vec<DagRun>, StoreError> {
        let span = RunSpan { after: Some((from, RunKey(i64::MAX))), until: RunKey(i64::MAX), from: None, to: None };
        let mut runs = history.runs_in(&self.dag(ix).record.dag_id, &span, RUNS_OF_A_DAY)?;
        runs.retain(|run| run.run_after <= to);
        let live = self.runs.iter().flatten().filter(|run| run.dag == ix);
        for run in live.filter(|run| run.row.run_after > from && run.row.run_after <= to) {
            match runs.iter_mut().find(|known| known.key == run.row.key) {
                Some(known) => known.clone_from(&run.row),
                None => runs.push(run.row.clone()),
            }
        }
        runs.sort_by_key(|run| (run.run_after, run.key));
        Ok(runs)
    }
}

/// Whether the schedule, or none, asks for a run after `from`, up to `to`.
fn is_run_expected(entry: &DagEntry, definition: &Definition, from: Timestamp, to: Timestamp) -> bool {
    const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);
    let is_planned = entry.record.next_run.is_some_and(|next| next.run_after <= to);
    let is_within = |at: Timestamp| at > from && at <= to;
    match &definition.dag.schedule {
        Schedule::Cron(_) | Schedule::Events(_) => definition.timetable.last_due(to).is_some_and(is_within),
        Schedule::Every(every) => match every.period {
            Period::Fixed(period) => period <= DAY || is_planned,
            Period::Calendar { .. } => is_planned,
        },
        Schedule::Once => false,
        _ => true,
    }
}

/// None: the database is to be asked no further; the run has no such deadline.
fn instant_of(spec: &Spec, run: &DagRun, now: Now, history: &mut dyn History) -> Result<Option<Timestamp>, StoreError> {
    let base = match spec.reference {
        Reference::LogicalDate => run.logical_date,
        Reference::QueuedAt => run.queued_at,
        Reference::At(at) => Some(at),
        Reference::AverageRuntime { max_runs, min_runs } => {
            let runs = history.newest_runs(&run.dag_id, max_runs.saturating_add(LOOKED_AT))?;
            mean_runtime(runs, max_runs, min_runs).and_then(|mean| now.wall.checked_add(mean).ok())
        }
    };
    Ok(base.and_then(|base| base.checked_add(spec.interval).ok()))
}

/// Of the newest runs by logical date that have ended, in any state.
fn mean_runtime(mut runs: Vec<DagRun>, max_runs: u32, min_runs: u32) -> Option<SignedDuration> {
    runs.retain(|run| run.start_date.is_some() && run.end_date.is_some() && run.state.is_finished());
    runs.sort_by_key(|run| std::cmp::Reverse(run.logical_date));
    runs.truncate(max_runs as usize);
    if runs.is_empty() || runs.len() < min_runs as usize {
        return None;
    }
    let total: i64 =
        runs.iter().filter_map(|run| Some(run.end_date?.as_microsecond() - run.start_date?.as_microsecond())).sum();
    Some(SignedDuration::from_micros(total / runs.len() as i64))
}

/// The first such time of day after `after`.
fn next_at(time: Time, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let today = after.to_zoned(zone.clone()).date();
    let on = |days: i64| {
        let day = today.checked_add(days.days()).ok()?;
        Some(zone.to_ambiguous_zoned(day.to_datetime(time)).compatible().ok()?.timestamp())
    };
    (0..3).filter_map(on).find(|&at| at > after)
}

fn day_before(at: Timestamp, zone: &TimeZone) -> Timestamp {
    let local = at.to_zoned(zone.clone());
    local.checked_sub(1.day()).map_or(at, |before| before.timestamp())
}

fn shown(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunId;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_time_of_day_comes_once_on_each_day_also_when_the_clocks_change() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let time = jiff::civil::time(2, 30, 0, 0);
        let mut next = at("2026-03-27T12:00:00Z");
        let mut found = Vec::new();
        for _ in 0..4 {
            next = next_at(time, &zone, next).unwrap();
            found.push(next.to_string());
        }
        // On the 29th there is no 02:30: an hour later by the clock, as Python's fold 0 has it.
        let expected = ["2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_mean_is_of_the_newest_runs_by_logical_date_that_have_ended() {
        let run = |day: u32, seconds: Option<i64>, state| {
            let date = at(&format!("2026-11-{day:02}T00:00:00Z"));
            let mut run = DagRun::new(RunKey(1), "d".into(), RunId::from("r"), RunType::Scheduled, date);
            run.logical_date = Some(date);
            run.start_date = Some(date);
            run.end_date = seconds.map(|seconds| date + SignedDuration::from_secs(seconds));
            run.state = state;
            run
        };
        let runs = || {
            vec![
                run(4, None, RunState::Running),
                run(1, Some(1_000), RunState::Success),
                run(3, Some(30), RunState::Failed),
                run(2, Some(10), RunState::Success),
            ]
        };
        assert_eq!(mean_runtime(runs(), 2, 2), Some(SignedDuration::from_secs(20)));
        assert_eq!(mean_runtime(runs(), 10, 4), None);
        assert_eq!(mean_runtime(Vec::new(), 10, 0), None);
    }
}
