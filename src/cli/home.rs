//! The home that a command works on: its configuration, its database for reading, and the DAG files as they are now.
//!
//! Reads only, and works with or without a running minflow. Unknown ids are answered here, with what may have been meant.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::api::json;
use crate::cli::failure::eprint;
use crate::cli::{Failure, Globals, files, instants, plan, record, settings};
use crate::config::Config;
use crate::dagfile::{self, Defaults};
use crate::diagnostic::Diagnostic;
use crate::model::{Dag, DagRun, Instance, Pool, PoolName};
use crate::observe::host;
use crate::operators::plugin;
use crate::scheduler::DagRecord;
use crate::secrets::Secrets;
use crate::store::Reader;

/// An opened home.
pub struct Home {
    pub config: Config,
    /// None: there is no database yet.
    pub reader: Option<Reader>,
    /// Its variables and connections.
    pub secrets: Arc<Secrets>,
}

/// A DAG as it is defined now.
pub struct Definition {
    pub dag: Arc<Dag>,
    /// The DAG file, relative to the dags folder.
    pub file: String,
    /// What the scheduler has noted of it; None if it has not seen it yet.
    pub record: Option<DagRecord>,
}

impl Home {
    /// # Errors
    /// Faults in the configuration, or a database that cannot be read. That there is none is no error.
    pub fn open(globals: &Globals) -> Result<Self, Failure> {
        let config = settings::load(globals)?.config;
        let reader = match config.database.path.try_exists() {
            Ok(false) => None,
            _ => Some(Reader::open(&config.database.path)?.telling(|row| eprint(&format!("{row}\n")))),
        };
        let secrets = Arc::new(Secrets::of_process(config.secrets.clone()));
        Ok(Self { config, reader, secrets })
    }

    /// The zone of instants that are typed without one.
    pub fn zone(&self) -> TimeZone {
        crate::keytable::zone(&self.config.core.default_timezone).unwrap_or(TimeZone::UTC)
    }

    /// # Errors
    /// `text` is no instant.
    pub fn instant(&self, text: &str) -> Result<Timestamp, Failure> {
        instants::parse(text, &self.zone()).ok_or_else(|| instants::no_instant(text))
    }

    pub fn not_running(&self) -> Failure {
        Failure::NotRunning { home: self.config.home.display().to_string() }
    }

    /// All DAGs, in order of their ids; without a database those of the files.
    pub fn dag_records(&self) -> Result<Vec<Value>, Failure> {
        let now = Timestamp::now();
        match &self.reader {
            Some(reader) => {
                let mut listings = reader.dags()?;
                plan::renew(self, listings.iter_mut().map(|listing| &mut listing.dag), now)?;
                Ok(listings
                    .iter()
                    .map(|dag| record::to_value(&json::Dag::new(&dag.dag, dag.last_run.as_ref(), now)))
                    .collect())
            }
            None => {
                eprint("there is no database yet: these are the DAG files; `minflow run` starts them\n");
                let mut found = self.definitions_of_files();
                found.sort_by(|a, b| a.dag.dag_id.cmp(&b.dag.dag_id));
                Ok(found
                    .iter()
                    .map(|definition| record::to_value(&json::Dag::new(&unseen(definition), None, now)))
                    .collect())
            }
        }
    }

    /// What lists show of one DAG.
    pub fn dag_record(&self, definition: &Definition) -> Result<Value, Failure> {
        let last_run = match &self.reader {
            Some(reader) => reader.runs(&definition.dag.dag_id, Some(1))?.into_iter().next(),
            None => None,
        };
        let mut record = definition.record.clone().unwrap_or_else(|| unseen(definition));
        let now = Timestamp::now();
        plan::renew(self, std::iter::once(&mut record), now)?;
        Ok(record::to_value(&json::Dag::new(&record, last_run.as_ref(), now)))
    }

    /// The faults of DAG files as the scheduler has noted them; without a database those of the files now.
    pub fn import_errors(&self) -> Result<Vec<Value>, Failure> {
        if let Some(reader) = &self.reader {
            return Ok(reader
                .import_errors()?
                .iter()
                .map(|error| record::to_value(&json::ImportError::from(error)))
                .collect());
        }
        let now = Timestamp::now();
        let (defaults, folder) = (self.defaults(), &self.config.core.dags_folder);
        let faults =
            files::dag_files(folder).into_iter().filter_map(|file| parse(folder, &file, &defaults).err()).flatten();
        Ok(self.masked(faults.collect()).iter().map(|fault| record::fault(fault, now)).collect())
    }

    /// What holds where a DAG file says nothing, and the pools that it may name.
    pub fn defaults(&self) -> Defaults {
        let pools = self.reader.as_ref().and_then(|reader| reader.pools().ok()).unwrap_or_default();
        Defaults::from_config(&self.config, pools)
            .with_host(host::reservable())
            .with_plugins(plugin::list(&self.config.home))
    }

    /// All pools, by name.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn pools(&self) -> Result<BTreeMap<PoolName, Pool>, Failure> {
        let stored = self.reader.as_ref().map(Reader::pools).transpose()?;
        Ok(self.config.pools_with(stored.unwrap_or_default()))
    }

    /// The DAG as its file defines it now; if that is broken or gone, as it was when it last was not.
    ///
    /// # Errors
    /// No file and no row is of this DAG; or its file is broken and was never anything else.
    pub fn definition(&self, dag_id: &str) -> Result<Definition, Failure> {
        let record = match &self.reader {
            Some(reader) => reader.dag(dag_id)?.map(|listing| listing.dag),
            None => None,
        };
        let defaults = self.defaults();
        if let Some(record) = record {
            return match self.definition_of_file(&record, &defaults) {
                Some(definition) => Ok(definition),
                None => self.stored_definition(record, &defaults),
            };
        }
        let mut found = self.definitions_of_files();
        match found.iter().position(|definition| &*definition.dag.dag_id == dag_id) {
            Some(at) => Ok(found.swap_remove(at)),
            None => Err(self.unknown_dag(dag_id, &found)),
        }
    }

    /// As the DAG's file has it now. None: it is broken, gone or another DAG's.
    pub fn definition_of_file(&self, record: &DagRecord, defaults: &Defaults) -> Option<Definition> {
        let dag = parse(&self.config.core.dags_folder, Path::new(&record.file), defaults).ok()?;
        let is_its_own = dag.dag_id == record.dag_id;
        is_its_own.then(|| Definition { dag: Arc::new(dag), file: record.file.clone(), record: Some(record.clone()) })
    }

    fn stored_definition(&self, record: DagRecord, defaults: &Defaults) -> Result<Definition, Failure> {
        let reader = self.reader.as_ref().expect("the record was read from the database");
        let version = match record.version {
            Some(version) => reader.version(version)?,
            None => None,
        };
        let Some(version) = version else {
            let message =
                format!("`{}` has no definition: its file `{}` is broken or gone", record.dag_id, record.file);
            return Err(Failure::refused(message, "`minflow validate` shows what is wrong with it"));
        };
        eprint(&format!("`{}` is broken or gone; this is its last good version\n", record.file));
        let dag = dagfile::parse(Path::new(&record.file), version.source.as_bytes(), defaults)
            .map_err(|faults| Failure::Invalid(self.masked(faults)))?;
        Ok(Definition { dag: Arc::new(dag), file: record.file.clone(), record: Some(record) })
    }

    /// Faults without the home's secrets.
    fn masked(&self, faults: Vec<Diagnostic>) -> Vec<Diagnostic> {
        let masker = self.secrets.masker();
        faults.into_iter().map(|fault| fault.masked(|text| masker.mask_in(text))).collect()
    }

    /// # Errors
    /// Nobody knows this DAG.
    pub fn expect_dag(&self, dag_id: &str) -> Result<(), Failure> {
        if let Some(reader) = &self.reader
            && reader.dag(dag_id)?.is_some()
        {
            return Ok(());
        }
        self.definition(dag_id).map(|_| ())
    }

    fn unknown_dag(&self, dag_id: &str, found: &[Definition]) -> Failure {
        if let Some(file) = self.broken_file(dag_id) {
            let file =
                settings::shown(&self.config.core.dags_folder.join(file), &self.config.home).display().to_string();
            let message = format!("`{dag_id}` has no definition: its file `{file}` is broken");
            return Failure::refused(message, format!("`minflow validate {file}` shows what is wrong with it"));
        }
        let mut known: Vec<String> = found.iter().map(|definition| definition.dag.dag_id.to_string()).collect();
        if let Some(Ok(dags)) = self.reader.as_ref().map(Reader::dags) {
            known.extend(dags.iter().map(|dag| dag.dag.dag_id.to_string()));
        }
        Failure::unknown("dag_id", dag_id, known.iter().map(String::as_str), "minflow dags list")
    }

    /// The faulty file that, going by its name, defines this DAG.
    fn broken_file(&self, dag_id: &str) -> Option<PathBuf> {
        let (defaults, folder) = (self.defaults(), &self.config.core.dags_folder);
        let named =
            files::dag_files(folder).into_iter().find(|file| file.file_stem().is_some_and(|stem| stem == dag_id));
        named.filter(|file| parse(folder, file, &defaults).is_err())
    }

    /// All DAGs whose files are sound, with what the scheduler has noted of them, in order of their ids; and how many files are not.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn sound_definitions(&self) -> Result<(Vec<Definition>, usize), Failure> {
        let mut found = self.definitions_of_files();
        let broken = files::dag_files(&self.config.core.dags_folder).len().saturating_sub(found.len());
        let records = match &self.reader {
            Some(reader) => reader.dags()?,
            None => Vec::new(),
        };
        let mut records: BTreeMap<_, _> =
            records.into_iter().map(|listing| (listing.dag.dag_id.clone(), listing.dag)).collect();
        for definition in &mut found {
            definition.record = records.remove(&definition.dag.dag_id);
        }
        found.sort_by(|a, b| a.dag.dag_id.cmp(&b.dag.dag_id));
        Ok((found, broken))
    }

    /// All DAGs whose files are sound. Of a dag_id in two files, the first by path.
    fn definitions_of_files(&self) -> Vec<Definition> {
        let (defaults, folder) = (self.defaults(), &self.config.core.dags_folder);
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for file in files::dag_files(folder) {
            if let Ok(dag) = parse(folder, &file, &defaults)
                && seen.insert(dag.dag_id.clone())
            {
                found.push(Definition { dag: Arc::new(dag), file: file.display().to_string(), record: None });
            }
        }
        found
    }

    /// All runs of a DAG, newest first.
    pub fn runs(&self, dag_id: &str) -> Result<Vec<DagRun>, Failure> {
        self.expect_dag(dag_id)?;
        match &self.reader {
            Some(reader) => Ok(reader.runs(dag_id, None)?),
            None => Ok(Vec::new()),
        }
    }

    /// # Errors
    /// The DAG is unknown, or has no run yet.
    pub fn newest_run(&self, dag_id: &str) -> Result<DagRun, Failure> {
        self.expect_dag(dag_id)?;
        let newest = match &self.reader {
            Some(reader) => reader.runs(dag_id, Some(1))?.into_iter().next(),
            None => None,
        };
        newest.ok_or_else(|| {
            Failure::refused(
                format!("`{dag_id}` has no run yet"),
                format!("`minflow dags trigger {dag_id}` starts one"),
            )
        })
    }

    /// The run that `text` names: a run_id or a logical date. None: the DAG is known, but has no such run.
    pub fn find_run(&self, dag_id: &str, text: &str) -> Result<Option<DagRun>, Failure> {
        self.expect_dag(dag_id)?;
        let Some(reader) = &self.reader else { return Ok(None) };
        if let Some(run) = reader.run(dag_id, text)? {
            return Ok(Some(run));
        }
        match instants::parse(text, &self.zone()) {
            Some(date) => Ok(reader.run_by_logical_date(dag_id, date)?),
            None => Ok(None),
        }
    }

    /// # Errors
    /// The DAG or the run is unknown.
    pub fn run(&self, dag_id: &str, text: &str) -> Result<DagRun, Failure> {
        if let Some(run) = self.find_run(dag_id, text)? {
            return Ok(run);
        }
        let ids: Vec<String> = self.runs(dag_id)?.into_iter().map(|run| run.run_id.to_string()).collect();
        let noun = format!("run of `{dag_id}`:");
        Err(Failure::unknown(&noun, text, ids.iter().map(String::as_str), &format!("minflow dags list-runs {dag_id}")))
    }

    /// The note of a run, or of an instance of it: a task and its map index.
    ///
    /// # Errors
    /// There is no such instance.
    pub fn note(&self, run: &DagRun, task: Option<(&str, i32)>) -> Result<Option<String>, Failure> {
        let Some(reader) = &self.reader else { return Ok(None) };
        let Some((task_id, map_index)) = task else {
            return Ok(reader.run_notes(&run.dag_id)?.remove(&run.key));
        };
        match reader.instance(run.key, task_id, map_index)? {
            Some(instance) => Ok(reader.instance_notes(run.key)?.remove(&instance.key)),
            None => Err(Failure::refused(
                format!("run `{}` has no instance {map_index} of `{task_id}`", run.run_id),
                format!("`minflow tasks states-for-dag-run {} {}` shows which there are", run.dag_id, run.run_id),
            )),
        }
    }

    /// Runs as records, each with its note.
    pub fn run_records(&self, dag_id: &str, runs: &[DagRun]) -> Result<Vec<Value>, Failure> {
        let mut notes = match &self.reader {
            Some(reader) => reader.run_notes(dag_id)?,
            None => BTreeMap::new(),
        };
        let mut noted = |run: &DagRun| record::with_note(record::run(run), notes.remove(&run.key));
        Ok(runs.iter().map(&mut noted).collect())
    }

    /// Task instances of a run as records, each with its note, and since when it is paused.
    pub fn instance_records(&self, run: &DagRun, instances: &[Instance]) -> Result<Vec<Value>, Failure> {
        let (mut notes, pauses) = match &self.reader {
            Some(reader) => (reader.instance_notes(run.key)?, reader.pauses(run.key)?),
            None => (BTreeMap::new(), BTreeMap::new()),
        };
        let mut noted = |instance: &Instance| {
            let record = record::instance(&run.dag_id, &run.run_id, instance);
            record::with_note(record::with_pause(record, pauses.get(&instance.key)), notes.remove(&instance.key))
        };
        Ok(instances.iter().map(&mut noted).collect())
    }

    /// The task instances of a run, in order of the DAG's tasks as they were created.
    pub fn instances(&self, run: &DagRun) -> Result<Vec<Instance>, Failure> {
        match &self.reader {
            Some(reader) => Ok(reader.instances(run.key)?),
            None => Ok(Vec::new()),
        }
    }

    /// # Errors
    /// The run has no such task, or of a mapped one no such index.
    pub fn instance(&self, run: &DagRun, task_id: &str, map_index: Option<i32>) -> Result<Instance, Failure> {
        let mut instances = self.instances(run)?;
        if !instances.iter().any(|instance| &*instance.task_id == task_id) {
            let known: BTreeSet<&str> = instances.iter().map(|instance| instance.task_id.as_str()).collect();
            let known = known.into_iter();
            return Err(Failure::unknown("task_id", task_id, known, &format!("minflow tasks list {}", run.dag_id)));
        }
        instances.retain(|instance| &*instance.task_id == task_id);
        instances.sort_by_key(|instance| instance.map_index);
        let first = instances[0].map_index;
        let at = match map_index {
            Some(index) => instances.iter().position(|instance| instance.map_index == index),
            None => Some(0).filter(|_| first < 0),
        };
        if let Some(at) = at {
            return Ok(instances.swap_remove(at));
        }
        let last = instances[instances.len() - 1].map_index;
        let (message, help) = if last < 0 {
            let message = format!("`{task_id}` has no map indexes in run `{}`", run.run_id);
            (message, "leave --map-index out".to_owned())
        } else {
            let index = map_index.map_or_else(String::new, |index| format!(", and none with index {index}"));
            let message = format!("`{task_id}` has {} instances in run `{}`{index}", instances.len(), run.run_id);
            (message, format!("ask for --map-index {first} to {last}"))
        };
        Err(Failure::refused(message, help))
    }
}

impl Definition {
    /// The map index that a user named for a task; -1 of one that is not mapped.
    ///
    /// # Errors
    /// One is missing, or is of no account.
    pub fn map_index(&self, task: crate::model::TaskIx, given: Option<i32>) -> Result<i32, Failure> {
        let task_id = &self.dag.task(task).task_id;
        let is_mapped = !self.dag.graph.node(task).mappings.is_empty();
        match given {
            Some(index) if is_mapped == (index >= 0) => Ok(index),
            None if !is_mapped => Ok(-1),
            Some(_) if !is_mapped => {
                Err(Failure::refused(format!("`{task_id}` is not mapped"), "leave --map-index out"))
            }
            _ => Err(Failure::refused(
                format!("`{task_id}` is mapped: each of its instances is another"),
                "name one with --map-index, from 0",
            )),
        }
    }

    /// # Errors
    /// The DAG has no such task.
    pub fn task(&self, task_id: &str) -> Result<crate::model::TaskIx, Failure> {
        self.dag.find(task_id).ok_or_else(|| {
            let known = self.dag.tasks.iter().map(|task| task.task_id.as_str());
            Failure::unknown("task_id", task_id, known, &format!("minflow tasks list {}", self.dag.dag_id))
        })
    }
}

/// What the scheduler would note of a DAG that it has not seen.
fn unseen(definition: &Definition) -> DagRecord {
    let dag = &definition.dag;
    DagRecord {
        schedule: crate::timetable::Timetable::of(dag).ok().and_then(|timetable| timetable.summary()),
        ..DagRecord::new(dag, definition.file.clone())
    }
}

/// Reads and checks one DAG file. Faults name it relative to the dags folder.
fn parse(folder: &Path, file: &Path, defaults: &Defaults) -> Result<Dag, Vec<Diagnostic>> {
    let path: PathBuf = folder.join(file);
    match files::read(&path) {
        Ok(bytes) => dagfile::parse(file, &bytes, defaults),
        Err((code, message, help)) => Err(vec![Diagnostic::of_file(file, code, message, help)]),
    }
}
