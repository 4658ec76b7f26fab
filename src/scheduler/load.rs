//! What a start makes of the database: DAGs, unfinished runs, and tries that an earlier minflow left under way.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use crate::model::SkipDecision;
use crate::model::{DagRun, Graph, Instance, InstanceKey, Pool, RunKey, RunType, TaskState};
use crate::scheduler::change::{ImportError, LengthWrite, Snapshot};
use crate::scheduler::pools::Claim;
use crate::scheduler::port::Stray;
use crate::scheduler::progress::Progress;
use crate::scheduler::waits::is_waiting;
use crate::scheduler::world::{Action, DagEntry, DagIx, FileEntry, InstanceEntry, Now, Run, RunIx, Slot, World, count};

/// The grace of a try whose task is no longer defined.
const FORGOTTEN_GRACE: Duration = Duration::from_secs(5);

impl World {
    pub(super) fn load(&mut self, snapshot: Snapshot, now: Now) {
        self.load_pools(&snapshot.pools);
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
        self.acts.load(snapshot.acts);
        self.callbacks.load(snapshot.callbacks, snapshot.streaks, snapshot.next_callback_key);
        self.load_deadlines(snapshot.deadlines, snapshot.expectations, snapshot.next_deadline_key);
        self.load_assets(snapshot.assets);
        self.load_backfills(snapshot.backfills, snapshot.next_backfill_id);
        self.load_runs(snapshot.runs, snapshot.instances, snapshot.decisions, &snapshot.lengths, now);
    }

    /// The pools of airflow.toml are the pools; a row that is no longer there is dropped.
    fn load_pools(&mut self, stored: &[Pool]) {
        for pool in self.settings.pools.clone() {
            self.limits.set_pool(&pool.name, pool.slots);
            if !stored.contains(&pool) {
                self.changes.pools.push(pool);
            }
        }
        let is_gone = |pool: &&Pool| !self.settings.pools.iter().any(|kept| kept.name == pool.name);
        let gone = stored.iter().filter(is_gone).map(|pool| pool.name.clone()).collect();
        self.changes.dropped_pools = gone;
    }

    fn load_runs(
        &mut self,
        runs: Vec<DagRun>,
        instances: Vec<Instance>,
        decisions: Vec<(InstanceKey, SkipDecision)>,
        lengths: &[LengthWrite],
        now: Now,
    ) {
        let mut decisions: BTreeMap<InstanceKey, SkipDecision> = decisions.into_iter().collect();
        let mut by_run: BTreeMap<RunKey, Vec<Instance>> = BTreeMap::new();
        for instance in instances {
            by_run.entry(instance.run).or_default().push(instance);
        }
        let mut dags = BTreeSet::new();
        for row in runs {
            let Some(&dag) = self.dag_index.get(&row.dag_id) else { continue };
            dags.insert(dag);
            let rows = by_run.remove(&row.key).unwrap_or_default();
            let decided = rows.iter().filter_map(|row| decisions.remove_entry(&row.key)).collect();
            let run = self.load_run(dag, row, rows, decided);
            self.load_lengths(run, lengths);
        }
        for dag in dags {
            self.restore_stored(dag, now);
        }
        self.reclaim_strays();
        self.resume_waits(now);
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
            let began = rows.iter().filter_map(|instance| instance.start_date).min();
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
            waiting: Vec::new(),
            unwritten: 0,
            has_deadlines: false,
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
                if is_waiting(self.run(run).entry(slot).row.state) {
                    self.arm_wait(run, slot, now);
                }
            }
        }
    }

    /// Tries that an earlier minflow left under way: what lives of them is ended before they are settled.
    fn reclaim_strays(&mut self) {
        let mut strays = Vec::new();
        for run in self.runs.iter().enumerate().filter_map(|(at, run)| run.as_ref().map(|_| RunIx(at as u32))) {
            for slot in self.run(run).slots_in_order() {
                let state = self.run(run).entry(slot).row.state;
                if state.is_executing() || state == TaskState::Restarting {
                    strays.push((run, slot));
                }
            }
        }
        for (run, slot) in strays {
            let entry = self.run(run).entry(slot);
            let (name, pool_slots) = (entry.row.pool.clone(), entry.row.pool_slots);
            let (is_running, process) = (entry.row.state != TaskState::Queued, entry.row.process.clone());
            let claim = Claim { run, pool: self.limits.pools.intern(&name), pool_slots };
            self.limits.occupy(claim);
            self.hold(run, slot, claim);
            if is_running {
                self.hold_as_running(run, slot);
            }
            let shared = self.shared_run(run);
            let this = self.run(run);
            let entry = this.entry(slot);
            let spec = entry.task.zip(this.definition.as_ref()).map(|(task, definition)| definition.dag.task(task));
            let (kill_signal, grace) =
                spec.map_or((libc::SIGTERM, FORGOTTEN_GRACE), |spec| (spec.kill_signal, spec.grace));
            let stray = Stray {
                key: entry.row.try_key(),
                run: shared,
                task_id: entry.row.task_id.clone(),
                map_index: entry.row.map_index,
                kill_signal,
                grace,
                process,
            };
            self.actions.push(Action::Reclaim(stray));
        }
    }
}
