//! The same store without a file: for simulations, which make its calls fail, and for runs that shall leave nothing behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

use crate::model::AssetEvent;
use crate::model::deadline::DeadlineRow;
use crate::model::{
    Backfill, BackfillId, BackfillPlace, DagId, DagRun, DateFate, Instance, InstanceKey, NextRun, Pool, PoolName,
    RunKey, RunState, RunType, SkipReason, TaskId, TaskState, TryKey, VersionKey,
};
use crate::model::{CallbackKey, CallbackRow, CallbackState, DeadlineKey, SkipDecision};
use crate::scheduler::change::{
    ActWrite, AuditEntry, Changes, DagRecord, DeadlineWrite, Earlier, ExpectationWrite, ImportError, LengthWrite,
    NoteWrite, PauseWrite, RunLookup, RunSpan, Snapshot, StoredCallback, Streak, VersionWrite,
};
use crate::scheduler::change::{BackfillChanges, BackfillProgress, CancelledBackfill, PlannedDates};
use crate::scheduler::port::History;
use crate::scheduler::{Store, StoreError};
use crate::store::memory_assets::MemoryAssets;

/// Plain maps. Clones are the same store, so that a simulation keeps one and gives the other to the loop; a new loop over
/// the same store is a restart.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Memory>>);

/// Where a commit stands when the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nothing of the turn is written.
    Before,
    /// The turn is written, and nobody has been told.
    After,
}

#[derive(Clone, Debug, Default)]
struct Memory {
    dags: BTreeMap<DagId, DagRecord>,
    versions: BTreeMap<VersionKey, VersionWrite>,
    pools: BTreeMap<PoolName, Pool>,
    runs: BTreeMap<RunKey, DagRun>,
    instances: BTreeMap<InstanceKey, Instance>,
    history: BTreeMap<TryKey, Instance>,
    xcoms: BTreeMap<InstanceKey, BTreeMap<String, Value>>,
    lengths: BTreeMap<(InstanceKey, Arc<str>), u32>,
    import_errors: BTreeMap<String, Vec<ImportError>>,
    audit: Vec<AuditEntry>,
    notes: BTreeMap<(RunKey, Option<InstanceKey>), Option<String>>,
    pauses: BTreeMap<TryKey, Timestamp>,
    acts: BTreeMap<i64, Value>,
    callbacks: BTreeMap<CallbackKey, CallbackRow>,
    deadlines: BTreeMap<DeadlineKey, DeadlineRow>,
    expectations: BTreeMap<DagId, ExpectationWrite>,
    streaks: BTreeMap<(DagId, Option<TaskId>), Streak>,
    assets: MemoryAssets,
    backfills: BTreeMap<BackfillId, Backfill>,
    dates: BTreeMap<BackfillPlace, (NextRun, Option<DateFate>)>,
    retiring: BTreeMap<RunKey, (DagId, crate::model::RunId)>,
    commits: Vec<Changes>,
    calls: u64,
    faults: BTreeMap<u64, StoreError>,
    /// So many commits until the process ends, and when.
    end: Option<(u64, Moment)>,
    has_ended: bool,
}

impl MemoryStore {
    /// Makes the `n`-th call of [`Store`] from now on fail; 1 is the next one. Nothing is written by it.
    pub fn fail_call(&self, n: u64, error: StoreError) {
        let mut memory = self.0.lock();
        let call = memory.calls + n;
        memory.faults.insert(call, error);
    }

    /// The process ends at the `n`-th commit from now on; 1 is the next one. From then on every call fails.
    pub fn end_process(&self, n: u64, when: Moment) {
        self.0.lock().end = Some((n, when));
    }

    pub fn has_ended(&self) -> bool {
        self.0.lock().has_ended
    }

    /// Another process begins on what was written.
    pub fn begin_process(&self) {
        let mut memory = self.0.lock();
        (memory.end, memory.has_ended) = (None, false);
    }

    /// Another store with the same in it, which nothing befalls.
    pub fn copy(&self) -> Self {
        let mut memory = self.0.lock();
        let commits = std::mem::take(&mut memory.commits);
        let mut copy = memory.clone();
        memory.commits = commits;
        copy.faults.clear();
        (copy.end, copy.has_ended) = (None, false);
        Self(Arc::new(Mutex::new(copy)))
    }

    /// Everything that was committed, in order.
    pub fn commits(&self) -> Vec<Changes> {
        self.0.lock().commits.clone()
    }

    pub fn dag(&self, dag_id: &str) -> Option<DagRecord> {
        self.0.lock().dags.get(dag_id).cloned()
    }

    /// By key, finished ones too.
    pub fn runs(&self) -> Vec<DagRun> {
        self.0.lock().runs.values().cloned().collect()
    }

    /// By key, of all runs.
    pub fn instances(&self) -> Vec<Instance> {
        self.0.lock().instances.values().cloned().collect()
    }

    /// The tries before the current ones, by instance and number.
    pub fn history(&self) -> Vec<Instance> {
        self.0.lock().history.values().cloned().collect()
    }

    pub fn deadlines(&self) -> Vec<DeadlineRow> {
        self.0.lock().deadlines.values().cloned().collect()
    }

    pub fn callbacks(&self) -> Vec<CallbackRow> {
        self.0.lock().callbacks.values().cloned().collect()
    }

    pub fn backfills(&self) -> Vec<Backfill> {
        self.0.lock().backfills.values().cloned().collect()
    }

    /// The dates of a backfill in order, with what has become of them.
    pub fn backfill_dates(&self, id: BackfillId) -> Vec<(NextRun, Option<DateFate>)> {
        let memory = self.0.lock();
        memory.dates.iter().filter(|(place, _)| place.backfill == id).map(|(_, date)| *date).collect()
    }

    /// The note of a run, or of an instance of it.
    pub fn note(&self, run: RunKey, instance: Option<InstanceKey>) -> Option<String> {
        self.0.lock().notes.get(&(run, instance)).cloned().flatten()
    }

    /// The tries that stand still.
    pub fn paused(&self) -> Vec<TryKey> {
        self.0.lock().pauses.keys().copied().collect()
    }

    /// How many elements what was pushed has that tasks are mapped over, by instance and key.
    pub fn lengths_in(&self, run: RunKey) -> Vec<LengthWrite> {
        self.0.lock().lengths_of(|instance| instance.run == run)
    }

    /// What the branches and short circuits of a run have decided.
    pub fn decisions_in(&self, run: RunKey) -> Vec<(InstanceKey, SkipDecision)> {
        self.0.lock().decisions(|instance| instance.run == run)
    }

    /// Those of all assets, oldest first.
    pub fn asset_events(&self) -> Vec<AssetEvent> {
        self.0.lock().assets.events()
    }

    /// The events that have led to a run, oldest first.
    pub fn triggering_events(&self, run: RunKey) -> Vec<AssetEvent> {
        self.0.lock().assets.consumed(run)
    }

    pub fn audit(&self) -> Vec<AuditEntry> {
        self.0.lock().audit.clone()
    }

    /// `map_index` is -1 unless the task is mapped.
    pub fn xcom(&self, run: RunKey, task_id: &str, map_index: i32, key: &str) -> Option<Value> {
        let memory = self.0.lock();
        let is_meant = |i: &&Instance| i.run == run && &*i.task_id == task_id && i.map_index == map_index;
        let instance = memory.instances.values().find(is_meant)?;
        memory.xcoms.get(&instance.key)?.get(key).cloned()
    }

    /// The values that all instances of a task pushed under `key`, with their map indexes, in the order of these.
    pub fn xcoms(&self, run: RunKey, task_id: &str, key: &str) -> Vec<(i32, Value)> {
        let memory = self.0.lock();
        let is_meant = |i: &&Instance| i.run == run && &*i.task_id == task_id;
        let value = |i: &Instance| Some((i.map_index, memory.xcoms.get(&i.key)?.get(key)?.clone()));
        let mut values: Vec<_> = memory.instances.values().filter(is_meant).filter_map(value).collect();
        values.sort_by_key(|&(map_index, _)| map_index);
        values
    }

    /// The same of the run with the latest logical date before `before` that has any.
    pub fn earlier_xcoms(&self, dag_id: &str, task_id: &str, key: &str, before: Timestamp) -> Vec<(i32, Value)> {
        let is_earlier = |run: &&DagRun| &*run.dag_id == dag_id && run.logical_date.is_some_and(|date| date < before);
        let mut runs: Vec<_> = {
            let memory = self.0.lock();
            memory.runs.values().filter(is_earlier).map(|run| (run.logical_date, run.key)).collect()
        };
        runs.sort_by(|one, other| other.cmp(one));
        let found = runs.into_iter().map(|(_, run)| self.xcoms(run, task_id, key));
        found.into_iter().find(|values| !values.is_empty()).unwrap_or_default()
    }

    /// The key of a run, by its names.
    pub fn run_key(&self, dag_id: &str, run_id: &str) -> Option<RunKey> {
        let memory = self.0.lock();
        memory.runs.values().find(|run| &*run.dag_id == dag_id && &*run.run_id == run_id).map(|run| run.key)
    }

    /// The successful run with the latest logical date before `before`.
    pub fn previous_success(&self, dag_id: &str, before: Timestamp) -> Option<DagRun> {
        let memory = self.0.lock();
        let is_meant = |run: &&DagRun| {
            &*run.dag_id == dag_id
                && run.state == crate::model::RunState::Success
                && run.logical_date.is_some_and(|date| date < before)
        };
        memory.runs.values().filter(is_meant).max_by_key(|run| run.logical_date).cloned()
    }
}

fn ended() -> StoreError {
    StoreError { message: "use the database: the process has ended".to_owned(), help: "begin another".to_owned() }
}

impl Memory {
    fn called(&mut self) -> Result<(), StoreError> {
        if self.has_ended {
            return Err(ended());
        }
        self.calls += 1;
        self.faults.remove(&self.calls).map_or(Ok(()), Err)
    }

    fn meet_end(&mut self, now: Moment) -> Result<(), StoreError> {
        let Some((commits, when)) = &mut self.end else { return Ok(()) };
        if *when != now {
            return Ok(());
        }
        *commits = commits.saturating_sub(1);
        self.has_ended = *commits == 0;
        if self.has_ended { Err(ended()) } else { Ok(()) }
    }

    fn retire(&mut self, changes: &crate::scheduler::change::RetireChanges) {
        for (run, _) in &changes.runs {
            self.runs.remove(&run.key);
            self.retiring.insert(run.key, (run.dag_id.clone(), run.run_id.clone()));
        }
        if let Some(purge) = &changes.purged {
            let of_run = |run| self.instances.values().filter(move |instance| instance.run == run);
            let going = purge.runs.iter().flat_map(|&(run, _)| of_run(run)).take(purge.rows as usize);
            let keys: Vec<InstanceKey> = going.map(|instance| instance.key).collect();
            for key in keys {
                self.instances.remove(&key);
                self.xcoms.remove(&key);
            }
        }
        for run in &changes.forgotten {
            self.retiring.remove(run);
        }
        if let Some(dag_id) = &changes.dag {
            self.dags.remove(dag_id);
        }
    }

    fn apply(&mut self, changes: &Changes) {
        self.versions.extend(changes.versions.iter().map(|version| (version.key, version.clone())));
        self.dags.extend(changes.dags.iter().map(|dag| (dag.dag_id.clone(), dag.clone())));
        self.pools.extend(changes.pools.iter().map(|pool| (pool.name.clone(), pool.clone())));
        for name in &changes.dropped_pools {
            self.pools.remove(name);
        }
        for write in &changes.runs {
            let before = self.runs.insert(write.run.key, write.run.clone());
            debug_assert_eq!(before.map(|run| run.state), write.prior, "prior state of run {}", write.run.key);
        }
        self.history.extend(changes.history.iter().map(|instance| (instance.try_key(), instance.clone())));
        for write in &changes.instances {
            let before = self.instances.insert(write.instance.key, write.instance.clone());
            debug_assert_eq!(before.map(|i| i.state), write.prior, "prior state of instance {}", write.instance.key);
        }
        for instance in &changes.cleared_xcoms {
            self.xcoms.remove(instance);
            self.lengths.retain(|(of, _), _| of != instance);
        }
        for xcom in &changes.xcoms {
            let read = |file| std::fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let value = xcom.file.as_ref().map_or_else(|| Some(xcom.value.clone()), read);
            self.xcoms.entry(xcom.instance).or_default().extend(value.map(|value| (xcom.key.clone(), value)));
        }
        for LengthWrite { instance, key, length } in &changes.lengths {
            self.lengths.insert((*instance, key.clone()), *length);
        }
        for (filename, errors) in &changes.import_errors {
            self.import_errors.insert(filename.clone(), errors.clone());
        }
        self.audit.extend(changes.audit.iter().cloned());
        for PauseWrite { key, paused_at } in &changes.pauses {
            match paused_at {
                Some(at) => self.pauses.insert(*key, *at),
                None => self.pauses.remove(key),
            };
        }
        for NoteWrite { run, instance, note } in &changes.notes {
            self.notes.insert((*run, *instance), note.clone());
        }
        for ActWrite { key, body } in &changes.acts {
            match body {
                Some(body) => self.acts.insert(*key, body.clone()),
                None => self.acts.remove(key),
            };
        }
        self.apply_backfills(&changes.backfill);
        for write in &changes.deadlines {
            match write {
                DeadlineWrite::Put(row) => self.deadlines.insert(row.key, row.clone()),
                DeadlineWrite::Remove(key) => self.deadlines.remove(key),
            };
        }
        for write in &changes.expectations {
            match write.at {
                Some(_) => self.expectations.insert(write.dag_id.clone(), write.clone()),
                None => self.expectations.remove(&write.dag_id),
            };
        }
        self.callbacks.extend(changes.callbacks.iter().map(|row| (row.key, row.clone())));
        for streak in &changes.streaks {
            let who = (streak.dag_id.clone(), streak.task_id.clone());
            match streak.failures {
                0 => self.streaks.remove(&who),
                _ => self.streaks.insert(who, streak.clone()),
            };
        }
        self.assets.apply(&changes.assets);
    }

    fn apply_backfills(&mut self, changes: &BackfillChanges) {
        self.backfills.extend(changes.backfills.iter().map(|backfill| (backfill.id, backfill.clone())));
        for PlannedDates { backfill, dates } in &changes.planned {
            let place = |ordinal| BackfillPlace { backfill: *backfill, ordinal };
            self.dates.extend((1..).zip(dates.iter()).map(|(ordinal, date)| (place(ordinal), (*date, None))));
        }
        for write in &changes.fates {
            if let Some((_, fate)) = self.dates.get_mut(&write.place) {
                *fate = Some(write.fate);
            }
        }
        for CancelledBackfill { backfill, at, .. } in &changes.cancelled {
            for run in self.runs.values_mut().filter(|run| is_queued_in(run, *backfill)) {
                run.state = RunState::Failed;
                run.end_date = Some(*at);
                run.reason = Some("backfill_cancelled".to_owned());
            }
            for (_, (_, fate)) in self.dates.iter_mut().filter(|(place, _)| place.backfill == *backfill) {
                fate.get_or_insert(DateFate::Skipped(SkipReason::Cancelled));
            }
        }
    }

    fn progress(&self, backfill: &Backfill) -> BackfillProgress {
        let dates = self.dates.iter().filter(|(place, (_, fate))| place.backfill == backfill.id && fate.is_none());
        BackfillProgress {
            backfill: backfill.clone(),
            pending: dates.map(|(place, (date, _))| (place.ordinal, *date)).collect(),
            queued: self.runs.values().filter(|run| is_queued_in(run, backfill.id)).count() as u32,
        }
    }

    fn lengths_of(&self, is_meant: impl Fn(&Instance) -> bool) -> Vec<LengthWrite> {
        let found = self.lengths.iter().filter(|((key, _), _)| self.instances.get(key).is_some_and(&is_meant));
        found.map(|((instance, key), &length)| LengthWrite { instance: *instance, key: key.clone(), length }).collect()
    }

    fn decisions(&self, is_meant: impl Fn(&Instance) -> bool) -> Vec<(InstanceKey, SkipDecision)> {
        let decision = |key| SkipDecision::from_xcom(self.xcoms.get(key)?.get(SkipDecision::XCOM_KEY)?);
        let meant = self.instances.values().filter(|instance| is_meant(instance));
        meant.filter_map(|instance| Some((instance.key, decision(&instance.key)?))).collect()
    }

    fn unfinished_callbacks(&self) -> Vec<StoredCallback> {
        let is_unfinished = |row: &&CallbackRow| matches!(row.state, CallbackState::Queued | CallbackState::Running);
        let stored = |row: &CallbackRow| StoredCallback {
            run: row.run.and_then(|run| self.runs.get(&run).cloned()),
            row: row.clone(),
        };
        self.callbacks.values().filter(is_unfinished).map(stored).collect()
    }

    fn snapshot(&self) -> Snapshot {
        let is_live = |run: &DagRun| {
            run.state == RunState::Running || run.state == RunState::Queued && run.counts_with().is_none()
        };
        let runs: Vec<DagRun> = self.runs.values().filter(|run| is_live(run)).cloned().collect();
        let is_unfinished = |i: &&Instance| self.runs.get(&i.run).is_some_and(is_live);
        let backfills = self.backfills.values().filter(|backfill| backfill.completed_at.is_none());
        let live = |dag: &DagRecord| self.versions.get(&dag.version?).cloned();
        let retiring = self.retiring.iter().map(|(key, (dag_id, run_id))| (*key, dag_id.clone(), run_id.clone()));
        let mut instances = BTreeMap::<RunKey, Vec<Instance>>::new();
        for instance in self.instances.values().filter(is_unfinished) {
            instances.entry(instance.run).or_default().push(instance.clone());
        }
        Snapshot {
            retiring: retiring.collect(),
            dags: self.dags.values().cloned().collect(),
            versions: self.dags.values().filter_map(live).collect(),
            pools: self.pools.values().cloned().collect(),
            instances,
            paused: self.pauses.keys().copied().collect(),
            lengths: self.lengths_of(|i| self.runs.get(&i.run).is_some_and(is_live)),
            callbacks: self.unfinished_callbacks(),
            streaks: self.streaks.values().cloned().collect(),
            deadlines: self.deadlines.values().filter(|row| row.missed_at.is_none()).cloned().collect(),
            expectations: self.expectations.values().cloned().collect(),
            next_deadline_key: self.deadlines.last_key_value().map_or(1, |(key, _)| key.0 + 1),
            next_callback_key: self.callbacks.last_key_value().map_or(1, |(key, _)| key.0 + 1),
            acts: self.acts.iter().map(|(key, body)| (*key, body.clone())).collect(),
            decisions: self.decisions(|instance| is_unfinished(&instance)),
            runs,
            import_errors: self.import_errors.values().flatten().cloned().collect(),
            next_run_key: self.runs.last_key_value().map_or(1, |(key, _)| key.0 + 1),
            next_instance_key: self.instances.last_key_value().map_or(1, |(key, _)| key.0 + 1),
            next_version_key: self.versions.last_key_value().map_or(1, |(key, _)| key.0 + 1),
            backfills: backfills.map(|backfill| self.progress(backfill)).collect(),
            next_backfill_id: self.backfills.last_key_value().map_or(1, |(id, _)| id.0 + 1),
            assets: self.assets.snapshot(),
        }
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Snapshot, StoreError> {
        let mut memory = self.0.lock();
        memory.called()?;
        Ok(memory.snapshot())
    }

    fn commit(&mut self, changes: &Changes) -> Result<(), StoreError> {
        let mut memory = self.0.lock();
        memory.called()?;
        memory.meet_end(Moment::Before)?;
        memory.apply(changes);
        memory.retire(&changes.retirement);
        memory.commits.push(changes.clone());
        // Nobody hears of it, but the turn is written.
        let _ = memory.meet_end(Moment::After);
        Ok(())
    }
}

impl History for MemoryStore {
    fn find_run(&mut self, dag_id: &DagId, lookup: &RunLookup) -> Result<Option<DagRun>, StoreError> {
        let mut memory = self.0.lock();
        memory.called()?;
        let is_meant = |run: &&DagRun| {
            run.dag_id == *dag_id
                && match lookup {
                    RunLookup::ById(run_id) => run.run_id == *run_id,
                    RunLookup::ByLogicalDate(date) => run.logical_date == Some(*date),
                }
        };
        Ok(memory.runs.values().find(is_meant).cloned())
    }

    fn run_before(&mut self, dag_id: &DagId, earlier: Earlier) -> Result<Option<DagRun>, StoreError> {
        let mut memory = self.0.lock();
        memory.called()?;
        let is_meant = |run: &&DagRun| {
            run.dag_id == *dag_id
                && run.logical_date.is_some_and(|date| date < earlier.than)
                && !(earlier.but_manual && run.run_type == RunType::Manual)
        };
        Ok(memory.runs.values().filter(is_meant).max_by_key(|run| run.logical_date).cloned())
    }

    fn task_states(&mut self, run: RunKey, task_id: &TaskId) -> Result<Vec<TaskState>, StoreError> {
        let mut memory = self.0.lock();
        memory.called()?;
        let of_task = memory.instances.values().filter(|i| i.run == run && i.task_id == *task_id);
        Ok(of_task.map(|instance| instance.state).collect())
    }

    fn has_earlier_instance(&mut self, dag_id: &DagId, task_id: &TaskId, than: Timestamp) -> Result<bool, StoreError> {
        let mut memory = self.0.lock();
        memory.called()?;
        let is_earlier = |run: &DagRun| run.dag_id == *dag_id && run.logical_date.is_some_and(|date| date < than);
        let mut of_task = memory.instances.values().filter(|i| i.task_id == *task_id);
        Ok(of_task.any(|instance| memory.runs.get(&instance.run).is_some_and(is_earlier)))
    }

    fn usual_memory(&mut self, dag_id: &DagId, task_id: &TaskId) -> Result<Option<u64>, StoreError> {
        let mut memory = self.0.lock();
        memory.called()?;
        let is_meant = |row: &&Instance| row.task_id == *task_id && row.state == TaskState::Success;
        let of_dag = |row: &&Instance| memory.runs.get(&row.run).is_some_and(|run| run.dag_id == *dag_id);
        let rows = memory.instances.values().filter(is_meant).filter(of_dag);
        let mut taken: Vec<u64> = rows.filter_map(|row| Some(row.usage.as_ref()?.max_rss)).collect();
        taken.sort_unstable();
        Ok(crate::model::cost::percentile(&taken, 95).filter(|_| taken.len() >= 3))
    }

    fn newest_runs(&mut self, dag_id: &DagId, limit: u32) -> Result<Vec<DagRun>, StoreError> {
        let mut memory = self.0.lock();
        memory.called()?;
        let mut runs: Vec<DagRun> = memory.runs.values().filter(|run| run.dag_id == *dag_id).cloned().collect();
        runs.sort_by_key(|run| std::cmp::Reverse((run.run_after, run.key)));
        runs.truncate(limit as usize);
        Ok(runs)
    }

    fn instances(&mut self, run: RunKey) -> Result<Vec<Instance>, StoreError> {
        let mut memory = self.0.lock();
        memory.called()?;
        Ok(memory.instances.values().filter(|instance| instance.run == run).cloned().collect())
    }

    fn instances_behind(
        &mut self,
        run: RunKey,
        after: Option<(&TaskId, i32)>,
        limit: usize,
    ) -> Result<Vec<Instance>, StoreError> {
        let mut found = self.instances(run)?;
        found.sort_by(|one, other| (&one.task_id, one.map_index).cmp(&(&other.task_id, other.map_index)));
        found.retain(|row| after.is_none_or(|after| (&row.task_id, row.map_index) > after));
        found.truncate(limit);
        Ok(found)
    }

    fn lengths(&mut self, run: RunKey) -> Result<Vec<LengthWrite>, StoreError> {
        let mut memory = self.0.lock();
        memory.called()?;
        Ok(memory.lengths_of(|instance| instance.run == run))
    }

    fn runs_in(&mut self, dag_id: &DagId, span: &RunSpan, limit: usize) -> Result<Vec<DagRun>, StoreError> {
        let mut memory = self.0.lock();
        memory.called()?;
        let is_within = |date: Option<Timestamp>| {
            span.from.is_none_or(|from| date.is_some_and(|date| date >= from))
                && span.to.is_none_or(|to| date.is_some_and(|date| date <= to))
        };
        let is_meant = |run: &&DagRun| {
            run.dag_id == *dag_id
                && Some((run.run_after, run.key)) > span.after
                && run.key <= span.until
                && is_within(run.logical_date)
        };
        let mut runs: Vec<DagRun> = memory.runs.values().filter(is_meant).cloned().collect();
        runs.sort_by_key(|run| (run.run_after, run.key));
        runs.truncate(limit);
        Ok(runs)
    }

    fn decisions(&mut self, run: RunKey) -> Result<Vec<(InstanceKey, SkipDecision)>, StoreError> {
        let mut memory = self.0.lock();
        memory.called()?;
        Ok(memory.decisions(|instance| instance.run == run))
    }

    fn usual_durations(&mut self, dag_id: &DagId) -> Result<BTreeMap<TaskId, Duration>, StoreError> {
        let mut memory = self.0.lock();
        memory.called()?;
        let is_of = |row: &&Instance| {
            row.state == TaskState::Success && memory.runs.get(&row.run).is_some_and(|run| run.dag_id == *dag_id)
        };
        let mut all: BTreeMap<TaskId, Vec<u64>> = BTreeMap::new();
        for row in memory.instances.values().filter(is_of) {
            if let (Some(began), Some(ended)) = (row.start_date, row.end_date) {
                let lasted = ended.duration_since(began).unsigned_abs().as_micros() as u64;
                all.entry(row.task_id.clone()).or_default().push(lasted);
            }
        }
        let usual = |lasted| crate::model::cost::median(lasted).map(|micros| Duration::from_micros(micros as u64));
        Ok(all.into_iter().filter_map(|(task_id, lasted)| Some((task_id, usual(lasted)?))).collect())
    }

    fn find_backfill(&mut self, id: BackfillId) -> Result<Option<Backfill>, StoreError> {
        let mut memory = self.0.lock();
        memory.called()?;
        Ok(memory.backfills.get(&id).cloned())
    }

    fn queued_runs(&mut self, id: BackfillId, after: u32, limit: usize) -> Result<Vec<DagRun>, StoreError> {
        let mut memory = self.0.lock();
        memory.called()?;
        let is_later = |run: &&DagRun| run.backfill.is_some_and(|place| place.ordinal > after);
        let mut runs: Vec<DagRun> =
            memory.runs.values().filter(|run| is_queued_in(run, id)).filter(is_later).cloned().collect();
        runs.sort_by_key(|run| run.backfill);
        runs.truncate(limit);
        Ok(runs)
    }
}

fn is_queued_in(run: &DagRun, backfill: BackfillId) -> bool {
    run.state == RunState::Queued && run.counts_with().is_some_and(|place| place.backfill == backfill)
}
