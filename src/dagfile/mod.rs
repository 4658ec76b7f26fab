//! A DAG file's text becomes a [`Dag`], or the list of all its faults with their places.
//!
//! Knows no disk and no clock: scripts that a file names are looked for when a task starts. The watcher, `validate` and
//! `dags test` call it with the bytes that they have read.

pub mod asset;
mod callback;
mod chain;
mod deadline;
mod decider;
mod edges;
pub mod keys;
mod limits;
mod mapping;
mod needs;
mod outline;
mod params;
mod retry;
mod schedule;
mod sensor;
mod setup;
mod sql;
mod task;
mod tool;
mod trigger_dag;

#[cfg(test)]
mod example_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod mapping_tests;
#[cfg(test)]
mod schedule_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::Map;
use toml::de::{DeTable, DeValue};

use crate::config::Config;
use crate::diagnostic::Diagnostic;
use crate::keytable::{self, Faults, Fields, Limits, Open, Source};
use crate::model::asset::AssetDefinition;
use crate::model::callback::{Callback, Hook};
use crate::model::dag::{Dag, Task};
use crate::model::graph::{Graph, Node};
use crate::model::ids::{AssetName, DagId, MAX_ID_BYTES, PoolName};
use crate::model::mapping::Group;
use crate::model::needs::Reservable;
use crate::model::pool::Pool;

/// The most bytes of one DAG file.
pub const MAX_BYTES: usize = 4 << 20;
/// The most tasks of one DAG.
pub const MAX_TASKS: usize = 20_000;
/// The most groups of one DAG.
pub const MAX_GROUPS: usize = 10_000;
/// How deep lists and tables may be nested.
pub const MAX_DEPTH: usize = 64;

/// What holds where a DAG file says nothing, and what it may refer to.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    pub max_active_tasks: u32,
    pub max_active_runs: u32,
    pub timezone: TimeZone,
    pub retries: u32,
    pub retry_delay: Duration,
    pub is_paused_upon_creation: bool,
    pub grace: Duration,
    pub catchup: bool,
    /// Whether runs of cron expressions and periods have the data intervals of Airflow 2.
    pub data_intervals: bool,
    /// The slots of all pools by name (-1: without limit). `default_pool` is known in any case.
    pub pools: BTreeMap<PoolName, i64>,
    /// What the needs of all tasks together may reserve of the host.
    pub reservable: Reservable,
    /// The names of all notifiers.
    pub notifiers: BTreeSet<String>,
    /// The callbacks of DAGs that give none.
    pub on_success: Vec<Callback>,
    pub on_failure: Vec<Callback>,
    /// Those of airflow.toml.
    pub assets: BTreeMap<AssetName, AssetDefinition>,
    /// Whether a pool that is not among them is a fault.
    pub unknown_pools: UnknownPools,
    pub plugins: Plugins,
}

/// What lies in the folder plugins/ of the home.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plugins {
    pub names: BTreeSet<String>,
    /// Files that nobody may execute, and so no plugins yet.
    pub closed: BTreeSet<String>,
}

/// What a pool or a plugin that nobody defines is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownPools {
    /// In a file: a fault.
    #[default]
    Refused,
    /// In a stored definition, which held when it was stored: the pool or plugin has gone since, and its tasks wait or fail.
    Awaited,
}

impl Default for Defaults {
    /// What an empty airflow.toml gives.
    fn default() -> Self {
        Self {
            max_active_tasks: 16,
            max_active_runs: 16,
            timezone: TimeZone::UTC,
            retries: 0,
            retry_delay: Duration::from_secs(300),
            is_paused_upon_creation: false,
            grace: Duration::from_secs(5),
            catchup: false,
            data_intervals: false,
            pools: BTreeMap::new(),
            reservable: Reservable::default(),
            notifiers: BTreeSet::new(),
            on_success: Vec::new(),
            on_failure: Vec::new(),
            assets: BTreeMap::new(),
            unknown_pools: UnknownPools::Refused,
            plugins: Plugins::default(),
        }
    }
}

impl Defaults {
    /// `pools` are those of the database; those of the configuration are added.
    pub fn from_config(config: &Config, pools: impl IntoIterator<Item = Pool>) -> Self {
        Self {
            max_active_tasks: config.core.max_active_tasks_per_dag,
            max_active_runs: config.core.max_active_runs_per_dag,
            timezone: crate::keytable::zone(&config.core.default_timezone)
                .expect("the configuration has been loaded, so its time zone exists"),
            retries: config.core.default_task_retries,
            retry_delay: config.core.default_task_retry_delay,
            is_paused_upon_creation: config.core.dags_are_paused_at_creation,
            grace: config.core.killed_task_cleanup_time,
            catchup: config.scheduler.catchup_by_default,
            data_intervals: config.scheduler.create_cron_data_intervals,
            pools: config.pools_with(pools).into_values().map(|pool| (pool.name, pool.slots)).collect(),
            reservable: config.admission.reservable(),
            notifiers: config.notices.notifiers.keys().cloned().collect(),
            on_success: config.notices.on_success.clone(),
            on_failure: config.notices.on_failure.clone(),
            assets: config.assets.clone(),
            unknown_pools: UnknownPools::Refused,
            plugins: Plugins::default(),
        }
    }

    pub fn with_plugins(self, plugins: Plugins) -> Self {
        Self { plugins, ..self }
    }

    /// On a host that has this to reserve, where the configuration does not say how much.
    pub fn with_host(self, host: Reservable) -> Self {
        Self { reservable: self.reservable.or(host), ..self }
    }

    /// For a definition that was stored when it held.
    pub fn for_stored(self) -> Self {
        Self { unknown_pools: UnknownPools::Awaited, ..self }
    }
}

/// Reads one DAG file. `path` is shown in faults, and its name is the default of `dag_id`.
///
/// # Errors
/// Every fault of the file, in the order of its text; at most a hundred.
pub fn parse(path: &Path, bytes: &[u8], defaults: &Defaults) -> Result<Dag, Vec<Diagnostic>> {
    read(path, bytes, defaults).map(|(dag, _)| dag)
}

/// As [`parse`], with what is no fault of the file and likely not meant.
///
/// # Errors
/// As those of [`parse`].
pub fn read(path: &Path, bytes: &[u8], defaults: &Defaults) -> Result<(Dag, Vec<Diagnostic>), Vec<Diagnostic>> {
    let limits = Limits { bytes: MAX_BYTES, depth: MAX_DEPTH };
    let text =
        limits.read(bytes).map_err(|(code, message, help)| vec![Diagnostic::of_file(path, code, message, help)])?;
    let source = Source::new(path, text);
    let mut faults = Faults::new(&source);
    let plugins = defaults.plugins.names.union(&defaults.plugins.closed).cloned().collect();
    faults.open(match defaults.unknown_pools {
        UnknownPools::Refused => Open { table: &keys::TASK, names: Some(&plugins) },
        UnknownPools::Awaited => Open { table: &keys::TASK, names: None },
    });
    let dag = keytable::parse_document(&limits, &mut faults)
        .and_then(|document| Reader { defaults, faults: &mut faults, named: Vec::new() }.dag(&document));
    match dag {
        Some(dag) if faults.is_empty() => Ok((dag, faults.take_warnings())),
        _ => Err(faults.into_list()),
    }
}

/// Reads a document into a DAG and notes the faults that no table of keys can express.
struct Reader<'r, 'a> {
    defaults: &'r Defaults,
    faults: &'r mut Faults<'a>,
    /// What branches name.
    named: Vec<decider::Named>,
}

impl Reader<'_, '_> {
    /// None if no DAG can be made of it; then a fault has been noted.
    fn dag(mut self, document: &DeTable<'_>) -> Option<Dag> {
        let (count, group_count) = outline::count(document);
        for (count, noun, code, limit) in
            [(count, "tasks", "too-many-tasks", MAX_TASKS), (group_count, "groups", "too-many-groups", MAX_GROUPS)]
        {
            if count > limit {
                let message = format!("the DAG has {count} {noun}, more than the limit of {limit}");
                self.faults.add_to_file(code, message, "split it into several DAGs");
                return None;
            }
        }
        keytable::check_table(&keys::DAG, document, self.faults);
        let is_table = document.get("tasks").is_none_or(|tasks| tasks.get_ref().is_table());
        if count == 0 && is_table && !self.faults.has_broken_lines() {
            let help = "add one, for example `[tasks.hello]` and below it `bash = \"echo hello\"`";
            self.faults.add_to_file("no-tasks", "the DAG has no tasks", help);
        }
        let fields = Fields::new(&keys::DAG, document);
        let timing = self.timing(&fields);
        let assets = self.assets(&fields, document);
        let params = self.params(&fields, timing.is_scheduled());
        let owner = fields.text("owner").unwrap_or("airflow").to_owned();
        let outline = self.outline(&fields);
        let (tasks, mut nodes) = self.tasks(&outline, &owner, &timing);
        let mut relations = self.roles(&outline, &mut nodes);
        let mappings = self.mappings(&outline, &mut nodes, &mut relations);
        self.relations(&fields, &outline, &mut relations);
        let edges = self.edges(&relations, &outline, &nodes);
        let fail_fast = fields.bool("fail_fast").unwrap_or(false);
        self.check_rules(fail_fast, &outline, &nodes, &edges);
        let groups = groups(&outline);
        let defaults = self.defaults;
        let on_success = self.dag_callbacks(&fields, Hook::OnSuccess, &defaults.on_success);
        let on_failure = self.dag_callbacks(&fields, Hook::OnFailure, &defaults.on_failure);
        let (expect_by, deadlines) = (self.expect_by(&fields), self.deadlines(&fields, &timing.timezone));
        let graph = self.graph(nodes, edges, &tasks);
        let dag_id = self.dag_id(&fields);
        let dag = Dag {
            description: fields.text("description").unwrap_or_default().to_owned(),
            owner,
            doc_md: fields.text("doc_md").unwrap_or_default().to_owned(),
            tags: texts(&fields, "tags"),
            schedule: timing.schedule,
            asset_schedule: timing.asset_schedule,
            assets,
            timezone: timing.timezone,
            start_date: timing.start_date,
            end_date: timing.end_date,
            catchup: timing.catchup,
            run_immediately: timing.run_immediately,
            max_active_runs: timing.max_active_runs,
            max_active_tasks: fields.integer("max_active_tasks").unwrap_or(self.defaults.max_active_tasks),
            max_consecutive_failed_dag_runs: fields.integer("max_consecutive_failed_dag_runs").unwrap_or(0),
            dagrun_timeout: fields.duration("dagrun_timeout"),
            is_paused_upon_creation: fields
                .bool("is_paused_upon_creation")
                .unwrap_or(self.defaults.is_paused_upon_creation),
            fail_fast,
            on_success,
            on_failure,
            expect_by,
            deadlines,
            params: params.defaults,
            param_schemas: params.schemas,
            groups,
            mappings,
            ..Dag::new(dag_id, tasks, graph)
        };
        self.check_named(&dag);
        Some(dag)
    }

    fn dag_id(&mut self, fields: &Fields<'_>) -> DagId {
        if let Some(value) = fields.get("dag_id") {
            let id = value.get_ref().as_str().unwrap_or_default();
            if value.get_ref().is_str() {
                self.check_id("dag_id", id, value.span());
            }
            return DagId::from(id);
        }
        let name = self.faults.source.path.file_name().unwrap_or_default().to_string_lossy();
        let id = name.strip_suffix(".toml").unwrap_or(&name);
        if let Some(why) = fault_of_id(id) {
            let help = "rename the file, or give the DAG a name of its own with `dag_id = \"…\"`";
            self.faults.add_to_file("bad-id", format!("the file's name cannot be the dag_id: {why}"), help);
        }
        DagId::from(id)
    }

    fn check_id(&mut self, what: &str, id: &str, span: Range<usize>) {
        if let Some(why) = fault_of_id(id) {
            let shown: String = id.chars().take(60).collect();
            let help = "use letters, digits, `_`, `.` and `-`";
            self.faults.add(span, "bad-id", format!("`{shown}` cannot be a {what}: {why}"), help);
        }
    }

    fn graph(&mut self, nodes: Vec<Node>, mut edges: Vec<edges::Edge>, tasks: &[Task]) -> Graph {
        /// Each cycle costs a walk through the graph.
        const MAX_CYCLES: usize = 10;
        for _ in 0..MAX_CYCLES {
            let pairs: Vec<_> = edges.iter().map(|edge| (edge.from, edge.to)).collect();
            let cycle = match Graph::new(nodes.clone(), &pairs) {
                Ok(graph) => return graph,
                Err(cycle) => cycle.0,
            };
            let (first, last) = (cycle[0], cycle[cycle.len() - 1]);
            let closing = edges.iter().find(|edge| (edge.from, edge.to) == (last, first));
            let span = closing.expect("a cycle is made of edges").span.clone();
            edges.retain(|edge| (edge.from, edge.to) != (last, first));
            let names: Vec<&str> = cycle.iter().chain([&first]).map(|task| &*tasks[task.index()].task_id).collect();
            let message = format!("the tasks wait for each other: {}", names.join(" >> "));
            self.faults.add(span, "cycle", message, "remove one of these arrows");
        }
        Graph::default()
    }
}

/// Airflow: `^[\w.-]+$`. `.` and `..` would name folders, and a name must fit into a file's.
fn fault_of_id(id: &str) -> Option<String> {
    if id.is_empty() {
        return Some("it is empty".to_owned());
    }
    if id.len() > MAX_ID_BYTES {
        return Some(format!("it has {} bytes, more than the limit of {MAX_ID_BYTES}", id.len()));
    }
    if id == "." || id == ".." {
        return Some("it names a folder".to_owned());
    }
    let wrong = id.chars().find(|&c| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-')))?;
    Some(format!("it holds {wrong:?}"))
}

fn groups(outline: &outline::Outline<'_>) -> Vec<Group> {
    let group = |entry: &outline::GroupEntry<'_>| Group {
        group_id: entry.id.to_string(),
        parent: entry.parent,
        prefix: entry.prefix.clone(),
        tooltip: entry.fields.text("tooltip").unwrap_or_default().to_owned(),
    };
    outline.groups.iter().map(group).collect()
}

fn texts(fields: &Fields<'_>, name: &str) -> Vec<String> {
    fields.list(name).iter().filter_map(|item| item.get_ref().as_str()).map(str::to_owned).collect()
}

fn json_object(fields: &Fields<'_>, name: &str) -> Map<String, serde_json::Value> {
    let value = fields.get(name).map(|value| value.get_ref()).filter(|value: &&DeValue<'_>| value.is_table());
    match value.and_then(keytable::json) {
        Some(serde_json::Value::Object(object)) => object,
        _ => Map::new(),
    }
}
