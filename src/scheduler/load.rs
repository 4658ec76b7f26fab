//! What a start makes of the database: DAGs, unfinished runs, and tries that an earlier minflow left under way.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::model::SkipDecision;
use crate::model::{DagRun, Graph, Instance, InstanceKey, RunKey, RunType, TaskState, TryKey};
use crate::scheduler::change::{ImportError, LengthWrite, Snapshot};
use crate::scheduler::event::Adopted;
use crate::scheduler::port::{Left, Stray};
use crate::scheduler::progress::Progress;
use crate::scheduler::waits::is_waiting;
use crate::scheduler::world::{Action, DagEntry, DagIx, FileEntry, InstanceEntry, Now, Run, RunIx, Slot, World, count};

/// The grace of a try whose task is no longer defined.
const FORGOTTEN_GRACE: Duration = Duration::from_secs(5);

/// Whether something of its try has run: one that fails before that has an instant as well.
fn has_begun(row: &Instance) -> bool {
    row.process.is_some() || row.exit_code.is_some() || row.signal.is_some() || row.state == TaskState::Success
}

impl World {
    pub(super) fn load(&mut self, snapshot: Snapshot, now: Now) {
        self.load_pools(snapshot.pools);
        let mut errors: BTreeMap<String, Vec<ImportError>> = BTreeMap::new();
        for error in snapshot.import_errors {
            errors.entry(error.filename.clone()).or_default().push(error);
        }
        for (file, errors) in errors {
            let entry = FileEntry { errors, ..FileEntry::default() };
            self.files.insert(file.into(), entry);
        }
        for record in snapshot.dags {
            let ix = DagIx(self.dags.len() as u32);
            self.dag_index.insert(record.dag_id.clone(), ix);
            if record.is_active {
                let path = OsString::from(&record.file);
                self.files.entry(path.clone()).or_default();
                self.owned.insert(path, record.dag_id.clone());
            }
            self.dags.push(DagEntry::new(record));
        }
        for version in snapshot.versions {
            let Some(&ix) = self.dag_index.get(&version.dag_id) else { continue };
            let entry = self.dag_quiet(ix);
            entry.hash = version.hash.clone();
            entry.version_number = version.number;
            entry.stored = Some(version);
        }
        self.load_retiring(snapshot.retiring);
        self.acts.load(snapshot.acts);
        self.callbacks.load(snapshot.callbacks, snapshot.streaks, snapshot.next_callback_key);
        self.resume_callbacks(now);
        self.load_deadlines(snapshot.deadlines, snapshot.expectations, snapshot.next_deadline_key);
        self.load_assets(snapshot.assets);
        self.load_backfills(snapshot.backfills, snapshot.next_backfill_id);
        self.load_runs(snapshot.runs, snapshot.instances, snapshot.decisions, &snapshot.lengths, now);
        self.fail_impossible(now);
        self.reclaim_strays(&snapshot.paused);
        self.resume_waits(now);
    }

    fn load_runs(
        &mut self,
        runs: Vec<DagRun>,
        mut instances: BTreeMap<RunKey, Vec<Instance>>,
        decisions: Vec<(InstanceKey, SkipDecision)>,
        lengths: &[LengthWrite],
        now: Now,
    ) {
        let mut decisions: BTreeMap<InstanceKey, SkipDecision> = decisions.into_iter().collect();
        let mut dags = BTreeSet::new();
        for row in runs {
            let Some(&dag) = self.dag_index.get(&row.dag_id) else { continue };
            dags.insert(dag);
            let rows = instances.remove(&row.key).unwrap_or_default();
            let decided = rows.iter().filter_map(|row| decisions.remove_entry(&row.key)).collect();
            let run = self.load_run(dag, row, rows, decided);
            self.load_lengths(run, lengths);
        }
        for dag in dags {
            self.restore_stored(dag, now);
        }
    }

    /// Puts a stored run and its instances into memory. It has no definition yet.
    pub(super) fn load_run(
        &mut self,
        dag: DagIx,
        mut row: DagRun,
        rows: Vec<Instance>,
        mut decided: BTreeMap<InstanceKey, SkipDecision>,
    ) -> RunIx {
        if row.lag.is_none() && row.run_type != RunType::Backfill {
            // A run that began under version 1 does not begin again.
            let began = rows.iter().filter(|instance| has_begun(instance)).filter_map(|row| row.start_date).min();
            row.lag = began.map(|began| Duration::try_from(began.duration_since(row.run_after)).unwrap_or_default());
        }
        let mut instances = Vec::with_capacity(rows.len());
        let mut decisions = BTreeMap::new();
        for (row, slot) in rows.into_iter().zip((0..).map(Slot)) {
            decisions.extend(decided.remove(&row.key).map(|decision| (slot, decision)));
            count(&mut self.counts, row.state, |n| *n += 1);
            let prior = Some(row.state);
            instances.push(InstanceEntry::new(row, prior));
        }
        self.insert_run(Run {
            prior: Some(row.state),
            is_prompt: false,
            past_blocks: BTreeMap::new(),
            decisions,
            lengths: BTreeMap::new(),
            epoch: 0,
            is_examined: instances.iter().any(|entry| entry.row.try_number > 0),
            row,
            dag,
            definition: None,
            instances,
            progress: Progress::new(Arc::new(Graph::default()), &[]),
            slots: Vec::new(),
            held: 0,
            task_limits: BTreeMap::new(),
            waiting: Vec::new(),
            unwritten: 0,
            has_deadlines: false,
            weights: None,
            shared: None,
        })
    }

    /// What waited goes on waiting, for what is left of its clocks.
    fn resume_waits(&mut self, now: Now) {
        for run in self
            .runs
            .iter()
            .enumerate()
            .filter_map(|(at, run)| run.as_ref().map(|_| RunIx(at as u32)))
            .collect::<Vec<_>>()
        {
            for slot in self.run(run).slots_in_order() {
                let state = self.run(run).entry(slot).row.state;
                if state == TaskState::Deferred {
                    self.hold_deferred(run, slot);
                }
                if is_waiting(state) {
                    self.resume_wait(run, slot, now);
                }
            }
        }
    }

    /// Tries that an earlier minflow left under way hold their slots again, and the executor looks for them.
    fn reclaim_strays(&mut self, paused: &BTreeSet<TryKey>) {
        let mut strays = Vec::new();
        for run in self.runs.iter().enumerate().filter_map(|(at, run)| run.as_ref().map(|_| RunIx(at as u32))) {
            for slot in self.run(run).slots_in_order() {
                let state = self.run(run).entry(slot).row.state;
                if state.is_executing() || state == TaskState::Restarting {
                    strays.push((run, slot));
                }
            }
        }
        let mut left = Left { tries: Vec::with_capacity(strays.len()), calls: self.stray_calls() };
        for (run, slot) in strays {
            let entry = self.run(run).entry(slot);
            let (is_running, process) = (entry.row.state != TaskState::Queued, entry.row.process.as_deref().cloned());
            let claim = self.claim_of(run, slot);
            self.limits.occupy(claim);
            self.hold(run, slot, claim);
            if is_running {
                self.hold_as_running(run, slot);
            }
            let shared = self.shared_run(run);
            let (task, definition) = (self.run(run).entry(slot).task, self.run(run).definition.clone());
            let defined = task.zip(definition);
            let work = defined.map(|(task, definition)| self.work(run, slot, &definition, task));
            let this = self.run(run);
            let entry = this.entry(slot);
            let spec = entry.task.zip(this.definition.as_ref()).map(|(task, definition)| definition.dag.task(task));
            let (kill_signal, grace) =
                spec.map_or((libc::SIGTERM, FORGOTTEN_GRACE), |spec| (spec.kill_signal, spec.grace));
            let key = entry.row.try_key();
            let is_paused = is_running && paused.contains(&key);
            let is_cleared = entry.row.state == TaskState::Restarting;
            let handed_at = entry.row.queued_at.filter(|_| entry.row.state == TaskState::Queued && process.is_none());
            let stray = Stray {
                key,
                run: shared,
                task_id: entry.row.task_id.clone(),
                map_index: entry.row.map_index,
                kill_signal,
                grace,
                process,
                handed_at,
                work,
                is_paused,
                unwanted: is_cleared.then(|| "cleared".to_owned()),
            };
            left.tries.push(stray);
            if is_paused {
                self.paused.insert(key);
            }
        }
        self.actions.push(Action::Reclaim(left));
    }

    /// Some of what an earlier minflow had left under way is not lost.
    pub(super) fn apply_adopted(&mut self, adopted: Vec<Adopted>, now: Now) {
        for adopted in adopted {
            let (key, what) = match &adopted {
                Adopted::Runs(key, _) => (*key, "runs"),
                Adopted::Over(key) => (*key, "has_ended"),
            };
            let Some(&(run, slot)) = self.held.get(&key) else { continue };
            let this = self.run(run);
            let row = &this.entry(slot).row;
            let extra = json!({ "task": what, "try_number": key.try_number, "map_index": row.map_index });
            let (dag_id, run_id, task_id) = (this.row.dag_id.clone(), this.row.run_id.clone(), row.task_id.to_string());
            self.audit_as("minflow", now, "adopt", (Some(&dag_id), Some(&run_id)), extra);
            if let Some(entry) = self.changes.audit.last_mut() {
                entry.task_id = Some(task_id);
            }
            if let Adopted::Runs(_, Some(attempt)) = adopted {
                self.apply_started(attempt, now);
            }
        }
    }
}
