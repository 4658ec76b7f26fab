//! One task table becomes one task and its node in the graph.

use std::ops::Range;
use std::str::FromStr;

use jiff::Timestamp;
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, OPERATORS};
use super::limits;
use super::outline::Outline;
use super::schedule::{Timing, instant};
use super::{Reader, UnknownPools, json_object};
use super::{needs, retry};
use crate::keytable::{self, Fields};
use crate::model::dag::{
    Bash, KillTree, Operator, Output, Position, Python, Requirements, Script, Task, Template, Venv,
};
use crate::model::graph::{Node, Role};
use crate::model::ids::{PoolName, TaskId};
use crate::model::pool::{DEFAULT_POOL, DEFAULT_POOL_SLOTS};
use crate::model::state::{TriggerRule, WeightRule};

/// The keys of a task, and those of `default_args` behind them, the innermost group's first.
#[derive(Clone, Copy)]
pub(super) struct Layers<'l, 'd> {
    own: Fields<'d>,
    shared: &'l [Fields<'d>],
}

impl<'d> Layers<'_, 'd> {
    /// Reads a key from the task, else from the first `default_args` that has it.
    fn read<T>(&self, name: &str, read: impl Fn(Fields<'d>, &str) -> Option<T>) -> Option<T> {
        let mut layers = std::iter::once(&self.own).chain(self.shared);
        layers.find(|fields| fields.get(name).is_some()).and_then(|fields| read(*fields, name))
    }

    pub(super) fn get(&self, name: &str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.read(name, |fields, name| fields.get(name))
    }

    fn text(&self, name: &str) -> Option<&'d str> {
        self.read(name, |fields, name| fields.text(name))
    }

    fn named<T: FromStr>(&self, name: &str, default: T) -> T {
        self.text(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    }
}

impl Reader<'_, '_> {
    /// All tasks and their nodes, in the order of the outline.
    pub(super) fn tasks(&mut self, outline: &Outline<'_>, dag_owner: &str, timing: &Timing) -> (Vec<Task>, Vec<Node>) {
        // Each `default_args` once: the first of a group's list is its own, if it has one.
        let of_groups = outline.groups.iter().filter(|group| group.fields.table("default_args").is_some());
        for shared in outline.defaults.first().into_iter().chain(of_groups.filter_map(|group| group.defaults.first())) {
            self.check_shared(shared);
            let [start, end] = ["start_date", "end_date"].map(|name| instant(shared, name, &timing.timezone));
            self.check_order(start, end, shared.get("end_date"));
        }
        let empty = DeTable::new();
        let mut tasks = Vec::with_capacity(outline.tasks.len());
        let mut nodes = Vec::with_capacity(outline.tasks.len());
        for (entry, by) in outline.tasks.iter().zip(0..) {
            let own = Fields::new(&keys::TASK, entry.document.unwrap_or(&empty));
            let operator = match entry.document {
                Some(document) => self.operator(&entry.id, entry.name.clone(), document, &own, (timing, by)),
                None => Operator::Empty,
            };
            self.check_shared(&own);
            let layers = Layers { own, shared: outline.defaults(entry.group) };
            let task = self.task(&entry.id, operator, &layers, dag_owner, timing);
            tasks.push(Task { group: entry.group, ..task });
            nodes.push(node(&layers));
        }
        (tasks, nodes)
    }

    /// What can be wrong in the values of a task and of `default_args` alike.
    fn check_shared(&mut self, fields: &Fields<'_>) {
        if let Some(value) = fields.get("pool")
            && let Some(pool) = value.get_ref().as_str()
            && pool != DEFAULT_POOL
            && self.defaults.unknown_pools == UnknownPools::Refused
            && !self.defaults.pools.contains_key(pool)
        {
            let known = self.defaults.pools.keys().map(PoolName::as_str).chain([DEFAULT_POOL]);
            let help = match keytable::suggest(pool, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!(
                    "add it to airflow.toml: `[pools]` and below it `{pool} = 4`; or say `minflow pools set {pool} 4 \"\"`"
                ),
            };
            self.faults.add(value.span(), "unknown-pool", format!("there is no pool `{pool}`"), help);
        }
        self.check_limits(fields);
        self.check_retry_rules(fields.list("retry_on"));
        self.check_needs(fields);
        self.check_task_callbacks(fields);
        for (name, _) in fields.table("env").into_iter().flatten() {
            let variable: &str = name.get_ref();
            if variable.is_empty() || variable.contains(['=', '\0']) {
                let message = format!("`{}` cannot be the name of a variable", variable.escape_debug());
                self.faults.add(name.span(), "bad-value", message, "use a name without `=`");
            }
        }
    }

    /// More slots than its pool has are no fault, since the pool may grow; until then the task waits.
    fn check_slots(&mut self, layers: &Layers<'_, '_>) {
        let pool = layers.text("pool").unwrap_or(DEFAULT_POOL);
        let is_default = pool == DEFAULT_POOL;
        let known = self.defaults.pools.get(pool).copied().or_else(|| is_default.then_some(DEFAULT_POOL_SLOTS));
        let wanted = layers.read("pool_slots", |fields, name| fields.integer::<i64>(name));
        let (Some(value), Some(wanted), Some(slots)) = (layers.get("pool_slots"), wanted, known) else { return };
        if slots >= 0 && wanted > slots && self.defaults.unknown_pools == UnknownPools::Refused {
            let message =
                format!("pool `{pool}` has {slots} slots: a task that takes {wanted} waits until it has more");
            let help = format!("take at most {slots}, or make the pool larger");
            self.faults.warn(value.span(), "pool-slots", message, help);
        }
    }

    fn operator(
        &mut self,
        task_id: &str,
        name: Range<usize>,
        document: &DeTable<'_>,
        own: &Fields<'_>,
        (timing, by): (&Timing, u32),
    ) -> Operator {
        let plugins = &self.defaults.plugins;
        let is_stored = self.defaults.unknown_pools == UnknownPools::Awaited;
        let lies_there = |name: &str| plugins.names.contains(name) || plugins.closed.contains(name);
        let is_plugin = |name: &str| keys::TASK.find(name).is_none() && (is_stored || lies_there(name));
        let mut given = document.iter().filter(|(key, _)| {
            let name: &str = key.get_ref();
            OPERATORS.contains(&name) || is_plugin(name)
        });
        let Some((first, value)) = given.next() else {
            // A misspelt operator has been reported as an unknown key.
            let is_misspelt = document.keys().take(keys::TASK.iter().count()).any(|key| {
                keys::TASK.find(key.get_ref()).is_none()
                    && keytable::suggest(
                        key.get_ref(),
                        OPERATORS.iter().copied().chain(plugins.names.iter().map(String::as_str)),
                    )
                    .is_some()
            });
            if !is_misspelt && !self.faults.has_broken_lines() {
                let known: Vec<String> = OPERATORS.iter().map(|name| format!("`{name}`")).collect();
                let help = format!(
                    "say what it does, for example `bash = \"echo hello\"`; the operators are {}, and those of the folder plugins/",
                    known.join(", ")
                );
                self.faults.add(name, "no-operator", format!("task `{task_id}` has no operator"), help);
            }
            return Operator::Empty;
        };
        if let Some((second, _)) = given.next() {
            let (first, second_name): (&str, &str) = (first.get_ref(), second.get_ref());
            let message = format!("task `{task_id}` has two operators, `{first}` and `{second_name}`");
            self.faults.add(second.span(), "two-operators", message, "keep one, and make a second task of the other");
        }
        let given_at = first.span();
        let first: &str = first.get_ref();
        let key = keys::TASK.find(first).and_then(|_| own.entry(first)).map_or(value.span(), |(key, _)| key);
        let operator = match (first, value.get_ref()) {
            ("bash", _) => self.bash_of(key, value).map(Operator::Bash),
            ("python", _) => self.python_of(key, value).map(Operator::Python),
            ("http", DeValue::Table(table)) => Some(self.http(key, &Fields::new(&keys::HTTP, table))),
            ("email", DeValue::Table(table)) => Some(self.email(key, &Fields::new(&keys::EMAIL, table))),
            ("docker", DeValue::Table(table)) => Some(self.docker(key, &Fields::new(&keys::DOCKER, table))),
            ("sql", DeValue::Table(table)) => Some(self.sql(key, &Fields::new(&keys::SQL, table))),
            ("trigger_dag", DeValue::Table(table)) => {
                Some(self.trigger_dag(key, &Fields::new(&keys::TRIGGER_DAG, table)))
            }
            ("external_task_marker", DeValue::Table(table)) => {
                Some(self.external_task_marker(key, &Fields::new(&keys::EXTERNAL_TASK_MARKER, table)))
            }
            ("branch", DeValue::Table(table)) => {
                Some(self.branch(key, &Fields::new(&keys::BRANCH, table), &timing.timezone, by))
            }
            ("short_circuit", DeValue::Table(table)) => {
                Some(self.short_circuit(key, &Fields::new(&keys::SHORT_CIRCUIT, table)))
            }
            ("latest_only", _) => Some(Operator::LatestOnly),
            ("sensor", DeValue::Table(table)) => {
                Some(self.sensor(key, &Fields::new(&keys::SENSOR, table), &timing.timezone))
            }
            (name, _) if keys::TASK.find(name).is_none() => {
                if !is_stored && plugins.closed.contains(name) {
                    let message = format!("`plugins/{name}` is not executable, so it is no plugin");
                    let help = format!("make it one with `chmod +x plugins/{name}`, and save this file again");
                    self.faults.add(given_at, "closed-plugin", message, help);
                }
                Some(self.plugin(name, value))
            }
            _ => None,
        };
        operator.unwrap_or(Operator::Empty)
    }

    /// `key` is where `bash` stands. None if the value has a fault.
    pub(super) fn bash_of(&mut self, key: Range<usize>, value: &Spanned<DeValue<'_>>) -> Option<Bash> {
        match value.get_ref() {
            DeValue::String(_) => Some(Bash { script: Script::Text(self.template(value)) }),
            DeValue::Table(table) => Some(self.bash(key, &Fields::new(&keys::BASH, table))),
            _ => None,
        }
    }

    fn bash(&mut self, key: Range<usize>, fields: &Fields<'_>) -> Bash {
        let script = match (fields.get("command"), fields.get("file")) {
            (Some(command), None) => Script::Text(self.template(command)),
            (None, Some(file)) => Script::File(self.file(file)),
            (command, _) => {
                let message = match command {
                    Some(_) => "`command` and `file` cannot stand together",
                    None => "`bash` needs a script",
                };
                self.faults.add(key, "bad-operator", message, "give it either `command` or `file`");
                Script::File(String::new())
            }
        };
        Bash { script }
    }

    /// `key` is where `python` stands. None if the value has a fault.
    pub(super) fn python_of(&mut self, key: Range<usize>, value: &Spanned<DeValue<'_>>) -> Option<Python> {
        match value.get_ref() {
            DeValue::String(_) => Some(Python {
                script: Script::Text(self.template(value)),
                function: None,
                args: Vec::new(),
                kwargs: serde_json::Map::new(),
                arguments_at: self.position(value),
                interpreter: self.default_interpreter(value),
                venv: None,
            }),
            DeValue::Table(table) => Some(self.python(key, value, &Fields::new(&keys::PYTHON, table))),
            _ => None,
        }
    }

    fn python(&mut self, key: Range<usize>, value: &Spanned<DeValue<'_>>, fields: &Fields<'_>) -> Python {
        let file = match fields.get("file") {
            Some(file) => self.file(file),
            None => {
                let help = "write `python = { file = \"scripts/NAME.py\", function = \"main\" }`, or the script itself as text";
                self.faults.add(key, "bad-operator", "`python` needs a `file`", help);
                String::new()
            }
        };
        let arguments = fields.entry("args").or_else(|| fields.entry("kwargs"));
        if let (Some((span, _)), None) = (&arguments, fields.get("function")) {
            let message = "arguments need a `function` that takes them";
            self.faults.add(span.clone(), "bad-operator", message, "add `function = \"main\"`, or pass them by `env`");
        }
        if let Some(function) = fields.get("function")
            && function.get_ref().as_str().is_some_and(|name| !is_python_name(name))
        {
            let message = "`function` must be the name of a Python function";
            self.faults.add(function.span(), "bad-value", message, "write for example `function = \"main\"`");
        }
        let (venv, interpreter) = self.venv(value, fields);
        Python {
            script: Script::File(file),
            function: fields.text("function").map(str::to_owned),
            args: match fields.get("args").and_then(|args| keytable::json(args.get_ref())) {
                Some(Value::Array(args)) => args,
                _ => Vec::new(),
            },
            kwargs: json_object(fields, "kwargs"),
            arguments_at: self.position(arguments.map_or(value, |(_, value)| value)),
            interpreter,
            venv,
        }
    }

    /// What packages a Python is to find, and which Python it is.
    fn venv(&mut self, value: &Spanned<DeValue<'_>>, fields: &Fields<'_>) -> (Option<Venv>, Template) {
        let table = fields.get("venv").and_then(|venv| venv.get_ref().as_table());
        let Some(venv) = table.map(|table| Fields::new(&keys::VENV, table)) else {
            let given = fields.get("interpreter").map(|interpreter| self.template(interpreter));
            return (None, given.unwrap_or_else(|| self.default_interpreter(value)));
        };
        if let Some((span, _)) = fields.entry("interpreter") {
            let help = "write it as `venv = { python = … }`";
            self.faults.add(span, "bad-operator", "`interpreter` and `venv` cannot stand together", help);
        }
        let requirements = match venv.get("requirements") {
            Some(file) if file.get_ref().is_str() => {
                let name = file.get_ref().as_str().unwrap_or_default();
                if name.is_empty() {
                    let help = "name a requirements file, relative to the DAG file's folder, or give a list";
                    self.faults.add(file.span(), "bad-value", "`requirements` is empty", help);
                }
                Requirements::File(name.to_owned())
            }
            _ => Requirements::List(venv.list("requirements").iter().map(|line| self.template(line)).collect()),
        };
        let interpreter = venv.get("python").map(|python| self.template(python));
        (Some(Venv { requirements }), interpreter.unwrap_or_else(|| self.default_interpreter(value)))
    }

    pub(super) fn file(&mut self, value: &Spanned<DeValue<'_>>) -> String {
        let file = value.get_ref().as_str().unwrap_or_default();
        if value.get_ref().is_str() && file.is_empty() {
            let help = "name a file, relative to the DAG file's folder";
            self.faults.add(value.span(), "bad-value", "`file` is empty", help);
        }
        file.to_owned()
    }

    fn default_interpreter(&self, value: &Spanned<DeValue<'_>>) -> Template {
        Template { text: "python3".to_owned(), at: self.position(value) }
    }

    pub(super) fn position(&self, value: &Spanned<DeValue<'_>>) -> Position {
        self.faults.source.position(value.span().start)
    }

    pub(super) fn template(&self, value: &Spanned<DeValue<'_>>) -> Template {
        let source = self.faults.source;
        Template {
            text: value.get_ref().as_str().unwrap_or_default().to_owned(),
            at: source.position(source.content_start(&value.span())),
        }
    }

    /// A task runs neither before nor after its DAG (Airflow: `DAG.add_task`).
    fn dates(&mut self, layers: &Layers<'_, '_>, timing: &Timing) -> (Option<Timestamp>, Option<Timestamp>) {
        let [start, end] = ["start_date", "end_date"]
            .map(|name| layers.read(name, |fields, name| instant(&fields, name, &timing.timezone)));
        self.check_order(start, end, layers.own.get("end_date").or_else(|| layers.own.get("start_date")));
        (start.max(timing.start_date), [end, timing.end_date].into_iter().flatten().min())
    }

    fn task(
        &mut self,
        task_id: &TaskId,
        operator: Operator,
        layers: &Layers<'_, '_>,
        dag_owner: &str,
        timing: &Timing,
    ) -> Task {
        let defaults = self.defaults;
        let is = |name: &str, otherwise: bool| layers.read(name, |fields, name| fields.bool(name)).unwrap_or(otherwise);
        let (start_date, end_date) = self.dates(layers, timing);
        let [inlets, outlets] = ["inlets", "outlets"]
            .map(|name| layers.read(name, |fields, name| fields.get(name).map(|_| fields.list(name))))
            .map(|list| self.asset_names(list.unwrap_or_default()));
        let env = layers.read("env", |fields, name| fields.table(name)).into_iter().flatten();
        self.check_slots(layers);
        self.check_reservable(layers);
        Task {
            owner: layers.text("owner").unwrap_or(dag_owner).to_owned(),
            doc_md: layers.text("doc_md").unwrap_or_default().to_owned(),
            retries: layers.read("retries", |fields, name| fields.integer(name)).unwrap_or(defaults.retries),
            retry_delay: layers.read("retry_delay", |f, name| f.duration(name)).unwrap_or(defaults.retry_delay),
            retry_exponential_backoff: layers.read("retry_exponential_backoff", retry::multiplier).unwrap_or_default(),
            max_retry_delay: layers.read("max_retry_delay", |f, name| f.duration(name)),
            retry_on: layers.read("retry_on", |f, name| Some(retry::rules(f.list(name)))).unwrap_or_default(),
            needs: layers.read("needs", |f, name| needs::needs(f.get(name)?)),
            execution_timeout: layers.read("execution_timeout", |f, name| f.duration(name)),
            grace: layers.read("grace", |f, name| f.duration(name)).unwrap_or(defaults.grace),
            kill_signal: layers
                .text("kill_signal")
                .and_then(|name| keytable::signal_number(keytable::KILL_SIGNALS, name))
                .unwrap_or(libc::SIGTERM),
            kill_tree: match layers.text("kill_tree") {
                Some("strict") => KillTree::Strict,
                _ => KillTree::Tree,
            },
            leave_running: is("leave_running", false),
            limits: layers.get("limits").and_then(limits::limits),
            run_as: layers.get("run_as").map(|value| Box::new(self.run_as(value))),
            pool: PoolName::from(layers.text("pool").unwrap_or(DEFAULT_POOL)),
            pool_slots: layers.read("pool_slots", |fields, name| fields.integer(name)).unwrap_or(1),
            max_active_tis_per_dag: layers.read("max_active_tis_per_dag", |fields, name| fields.integer(name)),
            max_active_tis_per_dagrun: layers.read("max_active_tis_per_dagrun", |fields, name| fields.integer(name)),
            env: env.map(|(name, value)| (name.get_ref().to_string(), self.template(value))).collect(),
            cwd: layers.get("cwd").map(|value| self.template(value)),
            output: match layers.text("output") {
                Some("json") => Output::Json,
                Some("none") => Output::None,
                _ => Output::Text,
            },
            skip_on_exit_code: skip_codes(layers),
            inlets,
            outlets,
            map_index_template: layers.get("map_index_template").map(|value| self.template(value)),
            // Airflow: the one without the other means nothing.
            depends_on_past: is("depends_on_past", false) || is("wait_for_downstream", false),
            wait_for_downstream: is("wait_for_downstream", false),
            ignore_first_depends_on_past: is("ignore_first_depends_on_past", true),
            wait_for_past_depends_before_skipping: is("wait_for_past_depends_before_skipping", false),
            start_date,
            end_date,
            callbacks: self.task_callbacks(|name| layers.read(name, |fields, _| Some(fields))),
            ..Task::new(task_id.clone(), operator)
        }
    }
}

fn node(layers: &Layers<'_, '_>) -> Node {
    Node {
        trigger_rule: layers.named("trigger_rule", TriggerRule::AllSuccess),
        role: Role::Work,
        priority_weight: layers.read("priority_weight", |fields, name| fields.integer(name)).unwrap_or(1),
        weight_rule: layers.named("weight_rule", WeightRule::Downstream),
        mappings: Vec::new(),
    }
}

fn skip_codes(layers: &Layers<'_, '_>) -> Vec<i32> {
    let Some(value) = layers.get("skip_on_exit_code") else { return vec![99] };
    let code = |value: &DeValue<'_>| keytable::json(value).and_then(|json| json.as_i64()).map(|code| code as i32);
    match value.get_ref() {
        DeValue::Array(list) => list.iter().filter_map(|item| code(item.get_ref())).collect(),
        single => code(single).into_iter().collect(),
    }
}

/// A name, or names with dots between them as for a method of a class.
fn is_python_name(name: &str) -> bool {
    name.split('.').all(|part| {
        part.starts_with(|c: char| c == '_' || c.is_alphabetic())
            && part.chars().all(|c| c == '_' || c.is_alphanumeric())
    })
}
