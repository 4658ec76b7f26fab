//! The variables of a template, each made only when a template asks for it.

use std::any::Any;
use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::jinja::fault::{Fault, Res};
use crate::jinja::json::{from_json, to_json};
use crate::jinja::{Args, Callable, Function, Object, Outside, Value, Vm, print};
use crate::model::{DagRun, Role, Task, TaskState};
use crate::template::datetime::DateTime;
use crate::template::duration::TimeDelta;
use crate::template::macros::Macros;
use crate::template::stored::Stored;
use crate::template::{Context, assets, filters, xcom};

/// Every variable, for did-you-mean and the documentation.
pub(super) const NAMES: [&str; 35] = [
    "conn",
    "dag",
    "dag_run",
    "data_interval_end",
    "data_interval_start",
    "ds",
    "ds_nodash",
    "env",
    "inlet_events",
    "inlets",
    "logical_date",
    "macros",
    "map_index_template",
    "outlet_events",
    "outlets",
    "params",
    "partition_date",
    "partition_key",
    "prev_data_interval_end_success",
    "prev_data_interval_start_success",
    "prev_end_date_success",
    "prev_start_date_success",
    "run_dir",
    "run_id",
    "task",
    "task_instance",
    "task_instance_key_str",
    "task_reschedule_count",
    "ti",
    "triggering_asset_events",
    "ts",
    "ts_nodash",
    "ts_nodash_with_tz",
    "var",
    "xcom",
];

/// The outermost names.
pub(super) struct Root {
    context: Arc<Context>,
    previous: OnceCell<Option<DagRun>>,
    params: OnceCell<Value>,
}

impl Root {
    pub(super) fn new(context: &Context) -> Self {
        Self { context: Arc::new(context.clone()), previous: OnceCell::new(), params: OnceCell::new() }
    }

    /// The row of SEMANTICS 18 that needs a logical date; None when the run has none.
    fn dated(&self, name: &str) -> Res<Option<Value>> {
        let run = &self.context.run;
        let Some(at) = run.logical_date else { return Ok(None) };
        let interval = run.data_interval;
        Ok(match name {
            "ds" | "ds_nodash" | "ts" | "ts_nodash" | "ts_nodash_with_tz" => {
                Some(Value::text(filters::date_text(name, &DateTime::utc(at))))
            }
            "logical_date" => Some(time(at)),
            "data_interval_start" => interval.map(|interval| time(interval.start)),
            "data_interval_end" => interval.map(|interval| time(interval.end)),
            "prev_data_interval_start_success" => {
                Some(self.of_previous(|run| run.data_interval.map(|interval| interval.start))?)
            }
            "prev_data_interval_end_success" => {
                Some(self.of_previous(|run| run.data_interval.map(|interval| interval.end))?)
            }
            _ => None,
        })
    }

    /// A time of the latest earlier run that succeeded; None where there is no such run.
    fn of_previous(&self, read: impl Fn(&DagRun) -> Option<Timestamp>) -> Res<Value> {
        let context = &self.context;
        let Some(before) = context.run.logical_date else { return Ok(Value::None) };
        let run = match self.previous.get() {
            Some(run) => run,
            None => {
                let found = context.lookup.previous_success(&context.dag.dag_id, before);
                let found = found.map_err(|sentence| Fault::new("LookupError", sentence))?;
                self.previous.get_or_init(|| found)
            }
        };
        Ok(time_or_none(run.as_ref().and_then(read)))
    }

    /// A variable of this instance alone.
    fn given(&self, name: &str) -> Option<&serde_json::Value> {
        let given = &self.context.variables;
        given.get(name).or_else(|| given.values().next().filter(|_| name == "item" && given.len() == 1))
    }

    fn key_text(&self) -> String {
        let context = &self.context;
        let last = match context.run.logical_date {
            Some(at) => filters::date_text("ds_nodash", &DateTime::utc(at)),
            None => context.run.run_id.to_string(),
        };
        format!("{}__{}__{last}", context.dag.dag_id, task_of(context).task_id)
    }
}

fn task_of(context: &Context) -> &Task {
    context.dag.task(context.task)
}

fn time(at: Timestamp) -> Value {
    Value::object(DateTime::utc(at))
}

fn time_or_none(at: Option<Timestamp>) -> Value {
    at.map_or(Value::None, time)
}

/// The text of the task's `map_index_template`, not rendered.
fn naming(context: &Context) -> Value {
    let template = task_of(context).map_index_template.as_ref();
    template.map_or(Value::None, |template| Value::text(template.text.as_str()))
}

fn span(duration: Duration) -> Value {
    Value::object(TimeDelta { micros: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX) })
}

fn texts<'t>(texts: impl Iterator<Item = &'t str>) -> Value {
    Value::list(texts.map(Value::text).collect())
}

/// DAG params, overlaid with the run's conf (SEMANTICS 17).
fn merged_params(context: &Context) -> Value {
    from_json(&serde_json::Value::Object(super::params(context)))
}

impl Outside for Root {
    fn variable(&self, name: &str) -> Res<Option<Value>> {
        let context = &self.context;
        if let Some(given) = self.given(name) {
            return Ok(Some(from_json(given)));
        }
        if let Some(added) = context.additions.functions.get(name).cloned() {
            let call = move |_: &mut Vm<'_>, args: Args| call_added(&*added, &args);
            return Ok(Some(Value::object(Callable::new(name.to_owned(), call))));
        }
        Ok(Some(match name {
            "run_id" => Value::text(context.run.run_id.as_str()),
            "dag_run" => Part::value(context, Kind::Run),
            "dag" => Part::value(context, Kind::Dag),
            "task" => Part::value(context, Kind::Task),
            "ti" | "task_instance" => Part::value(context, Kind::Instance),
            "env" => Part::value(context, Kind::Environment),
            "xcom" => Part::value(context, Kind::Xcom),
            "var" => Stored::variables(context),
            "conn" => Stored::connections(context),
            "macros" => Value::object(Macros),
            "params" => self.params.get_or_init(|| merged_params(context)).clone(),
            "run_dir" => Value::text(context.run_dir.to_string_lossy()),
            "task_instance_key_str" => Value::text(self.key_text()),
            "inlets" => assets::named(context, &task_of(context).inlets)?,
            "outlets" => assets::named(context, &task_of(context).outlets)?,
            "inlet_events" => assets::of_inlets(context)?,
            "outlet_events" => assets::of_outlets(context),
            "triggering_asset_events" => assets::triggering(context)?,
            "task_reschedule_count" => Value::Int(0),
            "map_index_template" => naming(context),
            "partition_key" | "partition_date" => Value::None,
            "prev_start_date_success" => self.of_previous(|run| run.start_date)?,
            "prev_end_date_success" => self.of_previous(|run| run.end_date)?,
            _ => return self.dated(name),
        }))
    }

    fn filter(&self, name: &str) -> Option<Function> {
        if let Some(added) = self.context.additions.filters.get(name) {
            let added = added.clone();
            return Some(Rc::new(move |_, args| call_added(&*added, &args)));
        }
        filters::named(name)
    }

    fn load(&self, name: &str) -> Res<Option<String>> {
        self.context.files.read(name).map_err(|sentence| Fault::new("TemplateNotFound", sentence))
    }

    fn prints_json(&self, name: &str) -> bool {
        name == "xcom"
    }

    fn now(&self) -> Timestamp {
        self.context.now
    }

    /// The try's own: rendered again, it draws the same chances (FNV-1a).
    fn seed(&self) -> u64 {
        let context = &self.context;
        let identity = format!(
            "{}\n{}\n{}\n{}\n{}",
            context.dag.dag_id,
            context.run.run_id,
            task_of(context).task_id,
            context.map_index,
            context.try_number
        );
        identity
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    }
}

/// A function or filter of [`crate::template::Additions`].
fn call_added(added: &crate::template::Added, args: &Args) -> Res<Value> {
    let args = args.positional.iter().map(to_json).collect::<Res<Vec<_>>>()?;
    added(&args).map(|value| from_json(&value)).map_err(|sentence| Fault::new("RuntimeError", sentence))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Run,
    Dag,
    Task,
    Instance,
    Environment,
    Xcom,
}

/// One variable that has attributes or methods of its own.
struct Part {
    context: Arc<Context>,
    kind: Kind,
}

impl Part {
    fn value(context: &Arc<Context>, kind: Kind) -> Value {
        Value::object(Self { context: context.clone(), kind })
    }

    fn of_run(&self, name: &str) -> Option<Value> {
        let run = &self.context.run;
        Some(match name {
            "dag_id" => Value::text(run.dag_id.as_str()),
            "run_id" => Value::text(run.run_id.as_str()),
            "run_type" => Value::object(RunTypeName(run.run_type)),
            "state" => Value::text(run.state.as_str()),
            "conf" => from_json(&serde_json::Value::Object(run.conf.clone())),
            "run_after" => time(run.run_after),
            "logical_date" => time_or_none(run.logical_date),
            "data_interval_start" => time_or_none(run.data_interval.map(|interval| interval.start)),
            "data_interval_end" => time_or_none(run.data_interval.map(|interval| interval.end)),
            "queued_at" => time_or_none(run.queued_at),
            "start_date" => time_or_none(run.start_date),
            "end_date" => time_or_none(run.end_date),
            "clear_number" => Value::int(run.clear_number),
            // There are no users and no partitions.
            "partition_key" | "partition_date" | "triggering_user_name" => Value::None,
            _ => return None,
        })
    }

    fn of_dag(&self, name: &str) -> Option<Value> {
        let dag = &self.context.dag;
        Some(match name {
            "dag_id" | "dag_display_name" => Value::text(dag.dag_id.as_str()),
            "description" => Value::text(dag.description.as_str()),
            "owner" => Value::text(dag.owner.as_str()),
            "doc_md" => Value::text(dag.doc_md.as_str()),
            "tags" => texts(dag.tags.iter().map(String::as_str)),
            "task_ids" => texts(dag.tasks.iter().map(|task| task.task_id.as_str())),
            "start_date" => time_or_none(dag.start_date),
            "end_date" => time_or_none(dag.end_date),
            "catchup" => Value::Bool(dag.catchup != crate::model::Catchup::Latest),
            "max_active_runs" => Value::int(dag.max_active_runs),
            "max_active_tasks" => Value::int(dag.max_active_tasks),
            "max_consecutive_failed_dag_runs" => Value::int(dag.max_consecutive_failed_dag_runs),
            "dagrun_timeout" => dag.dagrun_timeout.map_or(Value::None, span),
            "fail_fast" => Value::Bool(dag.fail_fast),
            "timezone" => Value::text(dag.timezone.iana_name().unwrap_or("UTC")),
            "params" => from_json(&serde_json::Value::Object(dag.params.clone())),
            "fileloc" => Value::text(&*self.context.file),
            _ => return None,
        })
    }

    fn of_task(&self, name: &str) -> Option<Value> {
        let task = task_of(&self.context);
        let graph = &self.context.dag.graph;
        let node = graph.node(self.context.task);
        let names = |of: &[crate::model::TaskIx]| -> Value {
            texts(of.iter().map(|&other| self.context.dag.task(other).task_id.as_str()))
        };
        Some(match name {
            "task_id" | "task_display_name" => Value::text(task.task_id.as_str()),
            "label" => {
                let prefix = task.group.map_or("", |group| &*self.context.dag.groups[group.index()].prefix);
                Value::text(task.task_id.strip_prefix(prefix).unwrap_or(&task.task_id))
            }
            "dag" => Part::value(&self.context, Kind::Dag),
            "dag_id" => Value::text(self.context.dag.dag_id.as_str()),
            "owner" => Value::text(task.owner.as_str()),
            "doc_md" => Value::text(task.doc_md.as_str()),
            "retries" => Value::int(task.retries),
            "retry_delay" => span(task.retry_delay),
            "retry_exponential_backoff" => Value::Float(task.retry_exponential_backoff),
            "max_retry_delay" => task.max_retry_delay.map_or(Value::None, span),
            "execution_timeout" => task.execution_timeout.map_or(Value::None, span),
            "depends_on_past" => Value::Bool(task.depends_on_past),
            "wait_for_downstream" => Value::Bool(task.wait_for_downstream),
            "start_date" => time_or_none(task.start_date),
            "end_date" => time_or_none(task.end_date),
            "map_index_template" => naming(&self.context),
            "priority_weight" => Value::int(node.priority_weight),
            "is_setup" => Value::Bool(node.role == Role::Setup),
            "is_teardown" => Value::Bool(matches!(node.role, Role::Teardown { .. })),
            "pool" => Value::text(task.pool.as_str()),
            "pool_slots" => Value::int(task.pool_slots),
            "max_active_tis_per_dag" => task.max_active_tis_per_dag.map_or(Value::None, Value::int),
            "max_active_tis_per_dagrun" => task.max_active_tis_per_dagrun.map_or(Value::None, Value::int),
            "operator" | "task_type" => Value::text(task.operator.name()),
            "trigger_rule" => Value::text(node.trigger_rule.as_str()),
            "upstream_task_ids" => names(graph.upstream(self.context.task)),
            "downstream_task_ids" => names(graph.downstream(self.context.task)),
            _ => return None,
        })
    }

    fn of_instance(&self, name: &str) -> Option<Value> {
        let context = &self.context;
        Some(match name {
            "task_id" => Value::text(task_of(context).task_id.as_str()),
            "dag_id" => Value::text(context.dag.dag_id.as_str()),
            "run_id" => Value::text(context.run.run_id.as_str()),
            "try_number" => Value::int(context.try_number),
            "max_tries" => Value::int(context.max_tries),
            "map_index" => Value::int(context.map_index),
            "pool" => Value::text(task_of(context).pool.as_str()),
            "operator" => Value::text(task_of(context).operator.name()),
            "task" => Part::value(context, Kind::Task),
            "dag_run" => Part::value(context, Kind::Run),
            "logical_date" => time_or_none(context.run.logical_date),
            "is_mapped" => Value::Bool(context.map_index >= 0),
            // As Airflow's workers see it: it runs, has begun with its preparation, and has not ended.
            "state" => Value::text(TaskState::Running.as_str()),
            "start_date" => time(context.now),
            "hostname" => Value::text(&*context.host),
            // It is named when it has ended.
            "end_date" | "rendered_map_index" => Value::None,
            _ => return None,
        })
    }
}

impl Object for Part {
    fn type_name(&self) -> &str {
        match self.kind {
            Kind::Run => "DagRun",
            Kind::Dag => "DAG",
            Kind::Task => "Operator",
            Kind::Instance => "RuntimeTaskInstance",
            Kind::Environment => "env",
            Kind::Xcom => "function",
        }
    }

    fn text(&self) -> String {
        let context = &self.context;
        let (dag_id, task_id) = (&context.dag.dag_id, &task_of(context).task_id);
        match self.kind {
            Kind::Run => format!("<DagRun {dag_id} {}>", context.run.run_id),
            Kind::Dag => format!("<DAG: {dag_id}>"),
            Kind::Task => format!("<Task({}): {task_id}>", task_of(context).operator.name()),
            Kind::Instance => format!("<TaskInstance: {dag_id}.{task_id} {}>", context.run.run_id),
            Kind::Environment => "<env>".to_owned(),
            Kind::Xcom => "<function xcom>".to_owned(),
        }
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        Ok(match self.kind {
            Kind::Run if name == "consumed_asset_events" => Some(assets::consumed(&self.context)?),
            Kind::Run => self.of_run(name),
            Kind::Dag => self.of_dag(name),
            Kind::Task if name == "inlets" => Some(assets::named(&self.context, &task_of(&self.context).inlets)?),
            Kind::Task if name == "outlets" => Some(assets::named(&self.context, &task_of(&self.context).outlets)?),
            Kind::Task => self.of_task(name),
            Kind::Instance => self.of_instance(name),
            Kind::Environment => (self.context.environment)(name).map(Value::text),
            Kind::Xcom => None,
        })
    }

    fn methods(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Instance => &["xcom_pull"],
            Kind::Environment => &["get"],
            _ => &[],
        }
    }

    fn call_method(&self, _: &mut Vm<'_>, _: &str, args: Args) -> Res<Value> {
        if self.kind == Kind::Instance {
            return xcom::pull(&self.context, args);
        }
        let [name, default] = args.bind("get", ["name", "default"])?;
        let name = print::text(&crate::jinja::arguments::needed(name, "get", "name")?)?;
        Ok((self.context.environment)(&name).map(Value::text).or(default).unwrap_or(Value::None))
    }

    fn is_callable(&self) -> bool {
        self.kind == Kind::Xcom
    }

    fn call(&self, _: &mut Vm<'_>, args: Args) -> Res<Value> {
        match self.kind {
            Kind::Xcom => xcom::xcom(&self.context, args),
            _ => Err(Fault::new("TypeError", format!("'{}' object is not callable", self.type_name()))),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Prints as Python prints the enum's member.
struct RunTypeName(crate::model::RunType);

impl Object for RunTypeName {
    fn type_name(&self) -> &str {
        "DagRunType"
    }

    fn text(&self) -> String {
        format!("DagRunType.{}", self.0.as_str().to_uppercase())
    }

    fn repr(&self) -> String {
        format!("<{}: '{}'>", self.text(), self.0.as_str())
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        Ok(match name {
            "value" => Some(Value::text(self.0.as_str())),
            "name" => Some(Value::text(self.0.as_str().to_uppercase())),
            _ => None,
        })
    }

    fn equals(&self, other: &Value) -> bool {
        // Its members are texts as well.
        match other.downcast::<Self>() {
            Some(other) => self.0 == other.0,
            None => other.as_str() == Some(self.0.as_str()),
        }
    }

    fn data(&self) -> Option<Value> {
        Some(Value::text(self.0.as_str()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
