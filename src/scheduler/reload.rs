//! Definitions come, change and go: from DAG files to live definitions, and what that means for runs that are under way.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use crate::diagnostic::Diagnostic;
use crate::model::{Dag, DagId, Instance, InstanceKey, TaskIx, TaskState, WeightRule};
use crate::scheduler::change::{DagRecord, ImportError, VersionWrite};
use crate::scheduler::decide::PIECE_ROWS;
use crate::scheduler::event::{DagFile, Found, Reconfigured};
use crate::scheduler::machine::{self, TaskEvent};
use crate::scheduler::runs::has_instance;
use crate::scheduler::world::{
    DagEntry, DagIx, Definition, FileState, InstanceEntry, Now, ParsedFile, RunIx, Settings, Slot, World,
};

/// By which definition the rows of a run are what they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// By the one that it takes: they were read from the database with it.
    OfIt,
    OfAnother,
}

impl World {
    /// Takes in what the watcher has found. `complete`: with these all files have been told that there are.
    pub(super) fn apply_files(&mut self, files: Vec<DagFile>, complete: bool, now: Now) {
        let mut touched: BTreeSet<DagId> = BTreeSet::new();
        for file in files {
            self.apply_file(file, &mut touched, now);
        }
        if complete {
            let untold = self.files.iter().filter(|(_, entry)| matches!(entry.state, FileState::Stored));
            let gone: Vec<OsString> = untold.map(|(path, _)| path.clone()).collect();
            for path in gone {
                self.forget_file(Path::new(&path), &mut touched);
            }
        }
        for dag_id in touched {
            self.settle_owner(&dag_id, now);
        }
        self.name_asset_conflicts(now);
    }

    fn apply_file(&mut self, file: DagFile, touched: &mut BTreeSet<DagId>, now: Now) {
        let path = file.path;
        touched.extend(self.owned.get(path.as_os_str()).cloned());
        self.withdraw_claim(&path, touched);
        match file.found {
            Found::Gone => self.forget_file(&path, touched),
            Found::Broken(faults) => {
                let entry = self.files.entry(path.clone().into_os_string()).or_default();
                entry.modified_at = file.modified_at;
                entry.state = FileState::Broken;
                let errors = faults.iter().map(|fault| import_error(&path, fault, now)).collect();
                self.set_errors(&path, errors);
            }
            Found::Parsed { dag, source, hash } => {
                touched.insert(dag.dag_id.clone());
                self.claims.entry(dag.dag_id.clone()).or_default().insert(path.clone());
                let entry = self.files.entry(path.clone().into_os_string()).or_default();
                entry.modified_at = file.modified_at;
                entry.state = FileState::Parsed(ParsedFile { dag, source, hash });
                self.set_errors(&path, Vec::new());
            }
        }
    }

    fn forget_file(&mut self, path: &Path, touched: &mut BTreeSet<DagId>) {
        touched.extend(self.owned.get(path.as_os_str()).cloned());
        self.withdraw_claim(path, touched);
        self.set_errors(path, Vec::new());
        self.files.remove(path.as_os_str());
    }

    /// The text of `path` no longer defines what it defined.
    fn withdraw_claim(&mut self, path: &Path, touched: &mut BTreeSet<DagId>) {
        let Some(dag_id) = self.files.get(path.as_os_str()).and_then(|file| file.state.dag_id()).cloned() else {
            return;
        };
        if let Some(paths) = self.claims.get_mut(&dag_id) {
            paths.remove(path);
        }
        touched.insert(dag_id);
    }

    pub(super) fn set_errors(&mut self, path: &Path, errors: Vec<ImportError>) {
        let Some(entry) = self.files.get_mut(path.as_os_str()) else { return };
        if entry.errors != errors {
            entry.errors.clone_from(&errors);
            self.changes.import_errors.push((path.display().to_string(), errors));
        }
    }

    /// Decides which file defines `dag_id` now, and makes its text the live definition.
    fn settle_owner(&mut self, dag_id: &DagId, now: Now) {
        let claims = self.claims.get(dag_id).cloned().unwrap_or_default();
        let mut candidates: Vec<(Option<Timestamp>, PathBuf)> = claims
            .into_iter()
            .map(|path| (self.files.get(path.as_os_str()).and_then(|file| file.modified_at), path))
            .collect();
        candidates.sort();
        let current = self
            .find_dag(dag_id)
            .filter(|(_, entry)| entry.record.is_active)
            .map(|(_, entry)| PathBuf::from(&entry.record.file));
        let keeps = current.clone().filter(|path| match self.files.get(path.as_os_str()).map(|file| &file.state) {
            Some(FileState::Broken) => true,
            Some(state) => state.dag_id() == Some(dag_id),
            None => false,
        });
        let owner = keeps.or_else(|| candidates.first().map(|(_, path)| path.clone()));
        if let Some(path) = current.filter(|path| Some(path) != owner.as_ref())
            && self.owned.get(path.as_os_str()) == Some(dag_id)
        {
            // Else the file has become another DAG's in the same event.
            self.owned.remove(path.as_os_str());
        }
        self.name_duplicates(dag_id, &candidates, owner.as_deref(), now);
        match owner {
            Some(path) => {
                self.owned.insert(path.clone().into_os_string(), dag_id.clone());
                self.adopt_file(dag_id, &path, now);
            }
            None => self.retire(dag_id, now),
        }
    }

    /// The same dag_id in several files: each says so, and which one is live.
    fn name_duplicates(
        &mut self,
        dag_id: &DagId,
        candidates: &[(Option<Timestamp>, PathBuf)],
        owner: Option<&Path>,
        now: Now,
    ) {
        let Some(owner) = owner else { return };
        let is_alone = candidates.iter().all(|(_, path)| path == owner);
        for (_, path) in candidates {
            let mut errors = self.files.get(path.as_os_str()).map(|file| file.errors.clone()).unwrap_or_default();
            errors.retain(|error| error.code != "duplicate-dag-id");
            if !is_alone {
                let others: Vec<String> = candidates
                    .iter()
                    .filter(|(_, other)| other != path)
                    .map(|(_, other)| format!("`{}`", other.display()))
                    .collect();
                let message = if path == owner {
                    format!(
                        "dag_id `{dag_id}` is also defined by {}; this file, the older, stays live",
                        others.join(", ")
                    )
                } else {
                    format!("dag_id `{dag_id}` is already defined by `{}`, which stays live", owner.display())
                };
                errors.push(ImportError {
                    filename: path.display().to_string(),
                    line: 0,
                    column: 0,
                    code: "duplicate-dag-id".to_owned(),
                    message,
                    help: "give one of them another `dag_id`, or remove it".to_owned(),
                    timestamp: now.wall,
                });
            }
            self.set_errors(path, errors);
        }
    }

    /// `path` defines `dag_id`: its text becomes the live definition, or the last good one stays while it is broken.
    fn adopt_file(&mut self, dag_id: &DagId, path: &Path, now: Now) {
        let Some(file) = self.files.get_mut(path.as_os_str()) else { return };
        let has_import_errors = !file.errors.is_empty();
        if let FileState::Parsed(parsed) = &file.state {
            let parsed = parsed.clone();
            // The text itself is kept by the version; here it would be held for as long as the file lies there.
            file.state = FileState::Live(dag_id.clone());
            self.install(path, parsed, has_import_errors, now);
            return;
        }
        let Some((ix, entry)) = self.find_dag(dag_id) else { return };
        let (is_missing, differs) = (entry.definition.is_none(), entry.record.has_import_errors != has_import_errors);
        if is_missing {
            self.restore_stored(ix, now);
        }
        if differs {
            self.dag_mut(ix).record.has_import_errors = has_import_errors;
        }
    }

    /// Takes in what a configuration that was read again says.
    pub(super) fn reconfigure(&mut self, reconfigured: Reconfigured, now: Now) {
        let Reconfigured { settings, file, changed } = reconfigured;
        // Taken apart to the last field: what is left out here would count from the next start on, and nobody would be told.
        let Settings { parallelism, admission, drain_timeout, choosing, pools, overrides, assets, drained } = settings;
        self.set_admission(parallelism, &admission);
        self.set_choosing(&choosing);
        self.set_given_pools(pools);
        let pools = std::mem::take(&mut self.settings.pools);
        self.settings = Settings { parallelism, admission, drain_timeout, choosing, pools, overrides, assets, drained };
        if let Some(faulty) = self.faulty_configuration.take() {
            self.changes.import_errors.push((faulty, Vec::new()));
        }
        if !changed.is_empty() {
            let extra = serde_json::json!({ "file": file, "changed": changed });
            self.audit_as("signal", now, "reload", (None, None), extra);
        }
    }

    /// The faults of a configuration are shown as those of DAG files are.
    pub(super) fn name_configuration_faults(&mut self, file: String, faults: &[Diagnostic], now: Now) {
        let errors = faults.iter().map(|fault| import_error(Path::new(&file), fault, now)).collect();
        self.changes.import_errors.push((file.clone(), errors));
        self.faulty_configuration = Some(file);
    }

    /// Makes the stored text of a DAG its definition again: its file is gone or broken, but runs of it are alive.
    pub(super) fn restore_stored(&mut self, ix: DagIx, now: Now) {
        let entry = self.dag(ix);
        let Some(stored) = &entry.stored else { return };
        let (Some(dag), file) = ((self.restore)(&entry.record, stored), entry.record.file.clone()) else { return };
        let version = stored.key;
        if let Some(definition) = Definition::new(dag, &file, version) {
            self.dag_mut(ix).definition = Some(Arc::new(definition));
            self.follow_assets(ix, now);
            self.follow_definition(ix, Rows::OfIt, now);
            self.plan_next_run(ix, now);
            self.plan_expectation(ix, now);
        }
    }

    /// No file defines the DAG any longer: what runs may end, nothing new starts.
    fn retire(&mut self, dag_id: &DagId, now: Now) {
        let Some((ix, entry)) = self.find_dag(dag_id) else { return };
        if !entry.record.is_active {
            return;
        }
        let entry = self.dag_mut(ix);
        entry.record.is_active = false;
        entry.record.has_import_errors = false;
        entry.record.next_run = None;
        self.withdraw(ix);
        self.set_expectation(ix, None);
        self.drop_assets(ix, now);
    }

    fn install(&mut self, path: &Path, parsed: ParsedFile, has_import_errors: bool, now: Now) {
        let ParsedFile { dag, source, hash } = parsed;
        let file = path.display().to_string();
        let ix = match self.find_dag(&dag.dag_id) {
            Some((ix, _)) => ix,
            None => self.add_dag(&dag, &file),
        };
        let entry = self.dag(ix);
        // The same text means something else when what holds for all DAGs has changed.
        let is_defined = entry.definition.as_ref().is_some_and(|definition| *definition.dag == *dag);
        let is_same = *entry.hash == *hash && is_defined && entry.record.file == file;
        if is_same && entry.record.is_active && entry.record.has_import_errors == has_import_errors {
            return;
        }
        let version = match entry.record.version {
            Some(version) if *entry.hash == *hash => version,
            _ => self.add_version(ix, source, hash, now),
        };
        let Some(definition) = Definition::new(dag.clone(), &file, version) else { return };
        let summary = schedule_summary(&definition);
        let entry = self.dag_mut(ix);
        entry.definition = Some(Arc::new(definition));
        entry.stored = None;
        let record = &mut entry.record;
        record.file = file;
        record.is_active = true;
        record.has_import_errors = has_import_errors;
        record.version = Some(version);
        record.schedule = summary;
        record.timezone = dag.schedule_zone().iana_name().unwrap_or("UTC").to_owned();
        record.description.clone_from(&dag.description);
        record.owner.clone_from(&dag.owner);
        record.tags.clone_from(&dag.tags);
        record.max_active_runs = dag.max_active_runs;
        record.max_active_tasks = dag.max_active_tasks;
        if !record.is_paused && record.first_seen_at.is_none() {
            record.first_seen_at = Some(now.wall);
        }
        self.follow_assets(ix, now);
        self.say_circles(ix);
        self.follow_definition(ix, Rows::OfAnother, now);
        self.plan_next_run(ix, now);
        self.plan_expectation(ix, now);
    }

    fn add_dag(&mut self, dag: &Dag, file: &str) -> DagIx {
        let ix = DagIx(self.dags.len() as u32);
        self.dag_index.insert(dag.dag_id.clone(), ix);
        let record = DagRecord::new(dag, file.to_owned());
        self.dags.push(DagEntry::new(record));
        ix
    }

    fn add_version(&mut self, ix: DagIx, source: Arc<str>, hash: Arc<str>, now: Now) -> crate::model::VersionKey {
        let key = crate::model::VersionKey(self.new_version_key());
        let entry = self.dag_mut(ix);
        entry.version_number += 1;
        entry.hash = hash.clone();
        let write = VersionWrite {
            key,
            dag_id: entry.record.dag_id.clone(),
            number: entry.version_number,
            hash,
            source,
            created_at: now.wall,
        };
        self.changes.versions.push(write);
        key
    }

    /// The runs of a DAG keep what has started; the rest follows the live definition.
    fn follow_definition(&mut self, ix: DagIx, rows: Rows, now: Now) {
        let Some(definition) = self.dag(ix).definition.clone() else { return };
        let places = definition.places();
        let runs: Vec<RunIx> = self.dag(ix).runs.iter().map(|&(_, run)| run).collect();
        for run in runs {
            self.follow_in_run(run, (&definition, rows), &places, now);
        }
        self.follow_dag_limits(ix);
        self.promotable.insert(ix);
    }

    /// A run that is new in memory takes the live definition.
    pub(super) fn take_definition(&mut self, run: RunIx, definition: &Arc<Definition>, now: Now) {
        self.follow_in_run(run, (definition, Rows::OfAnother), &definition.places(), now);
    }

    /// An instance is removed with its try, since its task is mapped no longer: once none is left the task gets the one of now.
    pub(super) fn replace_unfit(&mut self, run: RunIx, slot: Slot, now: Now) {
        let this = self.run(run);
        let Some((task, definition)) = this.entry(slot).task.zip(this.definition.clone()) else { return };
        let is_left = this.instances.iter().any(|entry| entry.task == Some(task) && !has_gone(entry, &definition));
        if !is_left && !this.row.state.is_finished() {
            self.follow_in_run(run, (&definition, Rows::OfIt), &definition.places(), now);
        }
    }

    fn follow_in_run(
        &mut self,
        run: RunIx,
        (definition, rows): (&Arc<Definition>, Rows),
        places: &BTreeMap<&str, TaskIx>,
        now: Now,
    ) {
        let dag = &definition.dag;
        // They are those of the definition before.
        self.run_quiet(run).weights = None;
        for slot in self.run(run).slots_in_order() {
            let task_id = self.run(run).entry(slot).row.task_id.clone();
            let task = places.get(&*task_id).copied();
            let entry = &mut self.run_quiet(run).instances[slot.0 as usize];
            let before = std::mem::replace(&mut entry.task, task);
            let before = before.zip(self.run(run).definition.clone()).map(|(ix, old)| old.dag.task(ix).retries);
            match task {
                // It was one of many, and its task is mapped no longer.
                Some(task) if is_unfit(self.run(run).entry(slot), task, definition) => self.vanish(run, slot),
                // It was removed as this definition has it, and keeps the instant.
                Some(_) if rows == Rows::OfIt && self.run(run).entry(slot).row.state == TaskState::Removed => {}
                Some(task) => self.follow_in_instance(run, slot, task, before, definition),
                None => self.vanish(run, slot),
            }
        }
        let stays = |entry: &&InstanceEntry| !has_gone(entry, definition);
        let known: BTreeSet<TaskIx> =
            self.run(run).instances.iter().filter(stays).filter_map(|entry| entry.task).collect();
        let is_missing =
            |task: &TaskIx| !known.contains(task) && has_instance(&self.run(run).row, definition.dag.task(*task));
        let missing = definition.blank().first_instances(PIECE_ROWS, |task| is_missing(&task));
        for (task, map_index) in missing {
            self.add_instance(run, task, map_index, definition);
        }
        let this = self.run_quiet(run);
        this.definition = Some(definition.clone());
        self.limits.set_run(run, self.run(run).dag.0, dag.max_active_tasks);
        self.follow_run_limits(run);
        self.rebuild_progress(run, definition);
        self.retell_decisions(run);
        self.retell_lengths(run);
        self.arm_run_timeout(run, now);
        for slot in self.run(run).slots_in_order() {
            match self.run(run).entry(slot).row.state {
                TaskState::UpForRetry => self.await_retry(run, slot, now),
                // The progress is new, and knows nothing of a look that was due.
                TaskState::UpForReschedule => self.arm_wait(run, slot, now),
                _ => {}
            }
        }
        self.refresh_ready_queue(run);
        self.active.insert(run);
    }

    /// What an instance that has not started takes from the live definition. `retries` are those of the definition that it
    /// followed before: an instance that was cleared has more tries than its task has retries.
    pub(super) fn follow_in_instance(
        &mut self,
        run: RunIx,
        slot: Slot,
        task: TaskIx,
        retries: Option<u32>,
        definition: &Definition,
    ) {
        let state = self.run(run).entry(slot).row.state;
        if state == TaskState::Removed {
            self.set_row_state(run, slot, TaskEvent::Return);
        }
        let entry = self.run(run).entry(slot);
        let state = entry.row.state;
        // At a start an instance under way is not held yet.
        let is_under_way = entry.is_held() || state.is_executing() || state == TaskState::Restarting;
        if is_under_way || state.is_finished() {
            if let (Some(retries), false) = (retries, state.is_finished()) {
                self.follow_retries(run, slot, retries, definition.dag.task(task).retries);
            }
            return;
        }
        self.follow_in_row(run, slot, task, definition);
        if let Some(retries) = retries {
            self.follow_retries(run, slot, retries, definition.dag.task(task).retries);
        }
        self.leave_ready_queue(run, slot);
    }

    /// Where its next try queues, and how it is weighed there.
    pub(super) fn follow_in_row(&mut self, run: RunIx, slot: Slot, task: TaskIx, definition: &Definition) {
        let is_by_path = definition.dag.graph.node(task).weight_rule == WeightRule::CriticalPath;
        let by_path = self.run(run).weights.as_ref().filter(|_| is_by_path).map(|weights| weights[task.index()]);
        let weight = by_path.unwrap_or(definition.weights[task.index()]);
        let (spec, operator) = (definition.dag.task(task), &definition.operators[task.index()]);
        let row = &self.run(run).entry(slot).row;
        let is_same = row.pool == spec.pool && row.pool_slots == spec.pool_slots;
        if !is_same || row.priority_weight != weight || row.operator != *operator {
            let row = &mut self.entry_mut(run, slot).row;
            (row.pool, row.pool_slots) = (spec.pool.clone(), spec.pool_slots);
            (row.priority_weight, row.operator) = (weight, operator.clone());
        }
    }

    /// What is decided at the end of a try is decided by the live definition, also of a try that has begun before.
    fn follow_retries(&mut self, run: RunIx, slot: Slot, before: u32, now: u32) {
        let max_tries = self.run(run).entry(slot).row.max_tries.saturating_sub(before).saturating_add(now);
        if max_tries != self.run(run).entry(slot).row.max_tries {
            self.entry_mut(run, slot).row.max_tries = max_tries;
        }
    }

    /// The live definition has no such task: what has not started is removed, what has started keeps its record.
    fn vanish(&mut self, run: RunIx, slot: Slot) {
        // Should its task come back, a delay of its last try is not that of the next one.
        self.forget_waits(run, slot);
        let entry = self.run(run).entry(slot);
        if !entry.is_held() && !entry.row.state.is_finished() {
            self.set_row_state(run, slot, TaskEvent::Vanish);
        }
        self.run_quiet(run).instances[slot.0 as usize].ix = None;
    }

    /// Changes a state while the progress is about to be built anew.
    fn set_row_state(&mut self, run: RunIx, slot: Slot, event: TaskEvent) {
        let state = self.run(run).entry(slot).row.state;
        if let Ok(next) = machine::next_task(state, event) {
            self.run_quiet(run).instances[slot.0 as usize].ix = None;
            self.set_task_state(run, slot, next);
        }
    }

    fn add_instance(&mut self, run: RunIx, task: TaskIx, map_index: i32, definition: &Definition) {
        let key = InstanceKey(self.new_instance_key());
        let run_key = self.run(run).row.key;
        let row = Instance { map_index, ..fresh_row(key, run_key, task, definition) };
        let entry = InstanceEntry { task: Some(task), ..InstanceEntry::new(row, None) };
        let instances = &mut self.run_quiet(run).instances;
        instances.push(entry);
        let slot = Slot(instances.len() as u32 - 1);
        self.entry_mut(run, slot);
    }

    /// Builds the run's progress from the rows of the tasks that the definition has.
    pub(super) fn rebuild_progress(&mut self, run: RunIx, definition: &Definition) {
        let run = self.run_quiet(run);
        let mut present = Vec::with_capacity(run.instances.len());
        run.slots.clear();
        for (at, entry) in run.instances.iter_mut().enumerate() {
            entry.ix = None;
            if let Some(task) = entry.task {
                entry.ix = Some(crate::scheduler::progress::InstanceIx(present.len() as u32));
                present.push((task, entry.row.map_index, entry.row.state));
                run.slots.push(Slot(at as u32));
            }
        }
        run.past_blocks.clear();
        run.progress = definition.blank().of_run(&present);
    }

    /// The first look at the files is over. A DAG whose file could not be seen goes on by its last good version.
    pub(super) fn apply_scanned(&mut self, now: Now) {
        self.is_scanned = true;
        for at in 0..self.dags.len() {
            let ix = DagIx(at as u32);
            let entry = self.dag(ix);
            if entry.definition.is_none() && (entry.record.is_active || !entry.runs.is_empty()) {
                self.restore_stored(ix, now);
            }
            // From now on a definition comes from a file.
            self.dags[at].stored = None;
        }
        self.settle_assets(now);
    }
}

impl super::world::Run {
    pub(super) fn slots_in_order(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.instances.len() as u32).map(Slot)
    }
}

impl DagEntry {
    pub(super) fn new(record: DagRecord) -> Self {
        Self {
            record,
            definition: None,
            hash: Arc::from(""),
            version_number: 0,
            stored: None,
            due_at: None,
            runs: BTreeSet::new(),
            dates: BTreeMap::new(),
            backfilled: 0,
            running: 0,
            run_ids: BTreeMap::new(),
            past_waiters: BTreeSet::new(),
            task_limits: BTreeMap::new(),
            usual_memory: BTreeMap::new(),
            usual_durations: None,
            is_planned_late: false,
            held_back_at: None,
        }
    }
}

/// As lists show it: the timetable's, the assets', or both.
fn schedule_summary(definition: &Definition) -> Option<String> {
    let of_time = definition.timetable.summary();
    let Some(assets) = &definition.dag.asset_schedule else { return of_time };
    Some(of_time.map_or_else(|| format!("assets: {assets}"), |of_time| format!("{of_time}, or assets: {assets}")))
}

/// Whether it has a map index, and its task is not mapped.
pub(super) fn is_unfit(entry: &InstanceEntry, task: TaskIx, definition: &Definition) -> bool {
    entry.row.map_index >= 0 && definition.dag.graph.node(task).mappings.is_empty()
}

/// Such a one that does not stand for its task any longer.
fn has_gone(entry: &InstanceEntry, definition: &Definition) -> bool {
    entry.row.state == TaskState::Removed && entry.task.is_some_and(|task| is_unfit(entry, task, definition))
}

/// The row of an instance that has not begun.
pub(super) fn fresh_row(
    key: InstanceKey,
    run: crate::model::RunKey,
    task: TaskIx,
    definition: &Definition,
) -> Instance {
    let spec = definition.dag.task(task);
    Instance {
        max_tries: spec.retries,
        pool_slots: spec.pool_slots,
        priority_weight: definition.weights[task.index()],
        ..Instance::new(key, run, spec.task_id.clone(), spec.pool.clone(), definition.operators[task.index()].clone())
    }
}

fn import_error(path: &Path, fault: &Diagnostic, now: Now) -> ImportError {
    ImportError {
        filename: path.display().to_string(),
        line: fault.line,
        column: fault.column,
        code: fault.code.to_owned(),
        message: fault.message.clone(),
        help: fault.help.clone(),
        timestamp: now.wall,
    }
}
