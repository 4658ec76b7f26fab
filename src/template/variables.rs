//! The variables of a template, each made only when a template asks for it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Value, from_args};
use minijinja::{Error, ErrorKind, State};

use crate::model::{DagRun, Task};
use crate::params;
use crate::template::datetime::DateTime;
use crate::template::macros::Macros;
use crate::template::python::{self, Json, from_json};
use crate::template::{Context, outside, strftime};

/// Every variable, for did-you-mean.
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
    previous: OnceLock<Result<Option<DagRun>, String>>,
    params: OnceLock<Value>,
}

impl Root {
    pub(super) fn new(context: &Context) -> Self {
        Self { context: Arc::new(context.clone()), previous: OnceLock::new(), params: OnceLock::new() }
    }

    /// The row of SEMANTICS 18 that needs a logical date; None when the run has none.
    fn dated(&self, name: &str) -> Option<Value> {
        let run = &self.context.run;
        let at = run.logical_date?;
        Some(match name {
            "ds" => Value::from(strftime::utc(at, "%Y-%m-%d")),
            "ds_nodash" => Value::from(strftime::utc(at, "%Y%m%d")),
            "ts" => Value::from(DateTime::utc(at).isoformat()),
            "ts_nodash" => Value::from(strftime::utc(at, "%Y%m%dT%H%M%S")),
            "ts_nodash_with_tz" => Value::from(DateTime::utc(at).isoformat().replace(['-', ':'], "")),
            "logical_date" => time(at),
            "data_interval_start" => time(run.data_interval?.start),
            "data_interval_end" => time(run.data_interval?.end),
            "prev_data_interval_start_success" => {
                self.of_previous(|run| run.data_interval.map(|interval| time(interval.start)))
            }
            "prev_data_interval_end_success" => {
                self.of_previous(|run| run.data_interval.map(|interval| time(interval.end)))
            }
            _ => return None,
        })
    }

    fn of_previous(&self, read: impl Fn(&DagRun) -> Option<Value>) -> Value {
        let context = &self.context;
        let Some(before) = context.run.logical_date else { return Value::from(()) };
        match self.previous.get_or_init(|| context.lookup.previous_success(&context.dag.dag_id, before)) {
            Ok(found) => found.as_ref().and_then(read).unwrap_or(Value::from(())),
            Err(sentence) => Value::from(Error::new(ErrorKind::InvalidOperation, sentence.clone())),
        }
    }

    /// A variable of this instance alone.
    fn given(&self, name: &str) -> Option<&serde_json::Value> {
        let given = &self.context.variables;
        given.get(name).or_else(|| given.values().next().filter(|_| name == "item" && given.len() == 1))
    }

    fn key_text(&self) -> String {
        let context = &self.context;
        let last = match context.run.logical_date {
            Some(at) => strftime::utc(at, "%Y%m%d"),
            None => context.run.run_id.to_string(),
        };
        format!("{}__{}__{last}", context.dag.dag_id, task_of(context).task_id)
    }
}

fn task_of(context: &Context) -> &Task {
    context.dag.task(context.task)
}

fn time(at: jiff::Timestamp) -> Value {
    Value::from_object(DateTime::utc(at))
}

fn time_or_none(at: Option<jiff::Timestamp>) -> Value {
    at.map_or(Value::from(()), time)
}

/// DAG params, overlaid with the run's conf (SEMANTICS 17).
fn merged_params(context: &Context) -> Value {
    let merged = params::merged(&context.dag.params, &context.run.conf, context.overrides_params.into());
    from_json(serde_json::Value::Object(merged))
}

fn empty_list() -> Value {
    Value::from(Vec::<Value>::new())
}

fn empty_map() -> Value {
    from_json(serde_json::Value::Object(serde_json::Map::new()))
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<template variables>")
    }
}

impl Object for Root {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, name: &str) -> Option<Value> {
        let context = &self.context;
        if let Some(given) = self.given(name) {
            return Some(from_json(given.clone()));
        }
        Some(match name {
            "run_id" => Value::from(context.run.run_id.as_str()),
            "dag_run" => Part::value(context, Kind::Run),
            "dag" => Part::value(context, Kind::Dag),
            "task" => Part::value(context, Kind::Task),
            "ti" | "task_instance" => Part::value(context, Kind::Instance),
            "env" => Part::value(context, Kind::Environment),
            "xcom" => Part::value(context, Kind::Xcom),
            "var" => outside::variables(context),
            "conn" => outside::connections(context),
            "macros" => Value::from_object(Macros),
            "params" => self.params.get_or_init(|| merged_params(context)).clone(),
            "run_dir" => Value::from(context.run_dir.to_string_lossy().into_owned()),
            "task_instance_key_str" => Value::from(self.key_text()),
            "inlets" | "outlets" => empty_list(),
            "inlet_events" | "outlet_events" | "triggering_asset_events" => empty_map(),
            "task_reschedule_count" => Value::from(0),
            "map_index_template" | "partition_key" | "partition_date" => Value::from(()),
            "prev_start_date_success" => self.of_previous(|run| run.start_date.map(time)),
            "prev_end_date_success" => self.of_previous(|run| run.end_date.map(time)),
            _ => return self.dated(name),
        })
    }
}

#[derive(Clone, Copy, Debug)]
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
        Value::from_object(Self { context: context.clone(), kind })
    }

    fn of_run(&self, name: &str) -> Option<Value> {
        let run = &self.context.run;
        Some(match name {
            "dag_id" => Value::from(run.dag_id.as_str()),
            "run_id" => Value::from(run.run_id.as_str()),
            "run_type" => Value::from_object(RunTypeName(run.run_type)),
            "state" => Value::from(run.state.as_str()),
            "conf" => from_json(serde_json::Value::Object(run.conf.clone())),
            "run_after" => time(run.run_after),
            "logical_date" => time_or_none(run.logical_date),
            "data_interval_start" => time_or_none(run.data_interval.map(|interval| interval.start)),
            "data_interval_end" => time_or_none(run.data_interval.map(|interval| interval.end)),
            "queued_at" => time_or_none(run.queued_at),
            "start_date" => time_or_none(run.start_date),
            "end_date" => time_or_none(run.end_date),
            "partition_key" => Value::from(()),
            _ => return None,
        })
    }

    fn of_dag(&self, name: &str) -> Option<Value> {
        let dag = &self.context.dag;
        Some(match name {
            "dag_id" | "dag_display_name" => Value::from(dag.dag_id.as_str()),
            "description" => Value::from(dag.description.as_str()),
            "owner" => Value::from(dag.owner.as_str()),
            "doc_md" => Value::from(dag.doc_md.as_str()),
            "tags" => dag.tags.iter().map(|tag| Value::from(tag.as_str())).collect(),
            "task_ids" => dag.tasks.iter().map(|task| Value::from(task.task_id.as_str())).collect(),
            "start_date" => time_or_none(dag.start_date),
            "end_date" => time_or_none(dag.end_date),
            "catchup" => Value::from(dag.catchup != crate::model::Catchup::Latest),
            "max_active_runs" => Value::from(dag.max_active_runs),
            "max_active_tasks" => Value::from(dag.max_active_tasks),
            "timezone" => Value::from(dag.timezone.iana_name().unwrap_or("UTC")),
            "params" => from_json(serde_json::Value::Object(dag.params.clone())),
            "fileloc" => Value::from(&*self.context.file),
            _ => return None,
        })
    }

    fn of_task(&self, name: &str) -> Option<Value> {
        let task = task_of(&self.context);
        let graph = &self.context.dag.graph;
        let names = |of: &[crate::model::TaskIx]| -> Value {
            of.iter().map(|&other| Value::from(self.context.dag.task(other).task_id.as_str())).collect()
        };
        Some(match name {
            "task_id" | "label" | "task_display_name" => Value::from(task.task_id.as_str()),
            "dag_id" => Value::from(self.context.dag.dag_id.as_str()),
            "owner" => Value::from(task.owner.as_str()),
            "doc_md" => Value::from(task.doc_md.as_str()),
            "retries" => Value::from(task.retries),
            "pool" => Value::from(task.pool.as_str()),
            "pool_slots" => Value::from(task.pool_slots),
            "operator" | "task_type" => Value::from(task.operator.name()),
            "trigger_rule" => Value::from(graph.node(self.context.task).trigger_rule.as_str()),
            "upstream_task_ids" => names(graph.upstream(self.context.task)),
            "downstream_task_ids" => names(graph.downstream(self.context.task)),
            "inlets" | "outlets" => empty_list(),
            _ => return None,
        })
    }

    fn of_instance(&self, name: &str) -> Option<Value> {
        let context = &self.context;
        Some(match name {
            "task_id" => Value::from(task_of(context).task_id.as_str()),
            "dag_id" => Value::from(context.dag.dag_id.as_str()),
            "run_id" => Value::from(context.run.run_id.as_str()),
            "try_number" => Value::from(context.try_number),
            "max_tries" => Value::from(context.max_tries),
            "map_index" => Value::from(context.map_index),
            "pool" => Value::from(task_of(context).pool.as_str()),
            "operator" => Value::from(task_of(context).operator.name()),
            "task" => Part::value(context, Kind::Task),
            "dag_run" => Part::value(context, Kind::Run),
            "logical_date" => time_or_none(context.run.logical_date),
            _ => return None,
        })
    }

    fn read_xcom(&self, task_id: &str, map_index: Option<i32>, key: &str) -> Result<Option<serde_json::Value>, Error> {
        self.context
            .lookup
            .xcom(self.context.run.key, task_id, map_index, key)
            .map_err(|sentence| Error::new(ErrorKind::InvalidOperation, sentence))
    }

    /// `ti.xcom_pull(task_ids=None, dag_id=None, key='return_value', include_prior_dates=False, …, map_indexes=…)` (SEMANTICS 16).
    fn xcom_pull(&self, args: &[Value]) -> Result<Value, Error> {
        let (task_ids, kwargs): (Option<Value>, Kwargs) = from_args(args)?;
        let task_ids = match task_ids {
            Some(given) => given,
            None => kwargs.get::<Option<Value>>("task_ids")?.unwrap_or_default(),
        };
        let key = kwargs.get::<Option<String>>("key")?.unwrap_or_else(|| "return_value".to_owned());
        let map_indexes = kwargs.get::<Option<Value>>("map_indexes")?.filter(|given| !given.is_none());
        let default = kwargs.get::<Option<Value>>("default")?.unwrap_or(Value::from(()));
        if let Some(dag_id) = kwargs.get::<Option<String>>("dag_id")?
            && *dag_id != *self.context.dag.dag_id
        {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("`xcom_pull` reads this DAG's XComs only, not those of `{dag_id}`; leave `dag_id` out"),
            ));
        }
        kwargs.assert_all_used()?;
        let (tasks, is_single) = if task_ids.is_none() || task_ids.is_undefined() {
            (vec![task_of(&self.context).task_id.to_string()], true)
        } else if let Some(one) = task_ids.as_str() {
            (vec![one.to_owned()], true)
        } else {
            (task_ids.try_iter()?.map(|id| id.to_string()).collect(), false)
        };
        let Some(map_indexes) = map_indexes else {
            // Airflow's path of no map_indexes ignores `default`.
            let mut pulled = Vec::new();
            for task_id in &tasks {
                pulled.push(self.read_xcom(task_id, None, &key)?.map_or(Value::from(()), from_json));
            }
            return Ok(if is_single { pulled.swap_remove(0) } else { Value::from(pulled) });
        };
        let (indexes, is_one_index) = match map_indexes.as_i64() {
            Some(index) => (vec![index], true),
            None => (map_indexes.try_iter()?.filter_map(|index| index.as_i64()).collect(), false),
        };
        let mut pulled = Vec::new();
        for task_id in &tasks {
            for &index in &indexes {
                let index = i32::try_from(index).map_err(|_| {
                    Error::new(ErrorKind::InvalidOperation, format!("map index {index} is out of range"))
                })?;
                pulled.push(self.read_xcom(task_id, Some(index), &key)?.map_or_else(|| default.clone(), from_json));
            }
        }
        Ok(if is_single && is_one_index { pulled.swap_remove(0) } else { Value::from(pulled) })
    }

    /// `xcom(task_id, key='return_value', map_index=none, default=…)` (CONTRACTS 7).
    fn xcom(&self, args: &[Value]) -> Result<Value, Error> {
        let (task_id, key, kwargs): (String, Option<String>, Kwargs) = from_args(args)?;
        let key = match key {
            Some(key) => key,
            None => kwargs.get::<Option<String>>("key")?.unwrap_or_else(|| "return_value".to_owned()),
        };
        let map_index = kwargs.get::<Option<i32>>("map_index")?;
        let default = if kwargs.has("default") { Some(kwargs.get::<Value>("default")?) } else { None };
        kwargs.assert_all_used()?;
        if let Some(found) = self.read_xcom(&task_id, map_index, &key)? {
            return Ok(Json::value(found));
        }
        default.ok_or_else(|| {
            let what = if self.context.dag.find(&task_id).is_some() {
                format!("task `{task_id}` has no XCom `{key}` in this run; it may not have run yet: add it to `depends_on`, or give `default=`")
            } else {
                format!("there is no task `{task_id}` in this DAG, so no XCom of it")
            };
            Error::new(ErrorKind::InvalidOperation, what)
        })
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = &self.context;
        match self.kind {
            Kind::Run => write!(f, "<DagRun {} {}>", context.dag.dag_id, context.run.run_id),
            Kind::Dag => write!(f, "<DAG: {}>", context.dag.dag_id),
            Kind::Task => write!(f, "<Task({}): {}>", task_of(context).operator.name(), task_of(context).task_id),
            Kind::Instance => {
                write!(f, "<TaskInstance: {}.{} {}>", context.dag.dag_id, task_of(context).task_id, context.run.run_id)
            }
            Kind::Environment => f.write_str("<env>"),
            Kind::Xcom => f.write_str("<function xcom>"),
        }
    }
}

impl Object for Part {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, name: &str) -> Option<Value> {
        match self.kind {
            Kind::Run => self.of_run(name),
            Kind::Dag => self.of_dag(name),
            Kind::Task => self.of_task(name),
            Kind::Instance => self.of_instance(name),
            Kind::Environment => (self.context.environment)(name).map(Value::from),
            Kind::Xcom => None,
        }
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        match self.kind {
            Kind::Xcom => {
                let value = self.xcom(args)?;
                python::mark_json(state, &value);
                Ok(value)
            }
            _ => Err(Error::new(ErrorKind::InvalidOperation, format!("{self:?} is not a function"))),
        }
    }

    fn call_method(self: &Arc<Self>, _state: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        match (self.kind, method) {
            (Kind::Instance, "xcom_pull") => self.xcom_pull(args),
            (Kind::Environment, "get") => {
                let (name, default): (String, Option<Value>) = from_args(args)?;
                Ok((self.context.environment)(&name).map(Value::from).or(default).unwrap_or(Value::from(())))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// Prints as Python prints the enum's member.
struct RunTypeName(crate::model::RunType);

impl fmt::Debug for RunTypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DagRunType.{}", self.0.as_str().to_uppercase())
    }
}

impl Object for RunTypeName {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "value" => Some(Value::from(self.0.as_str())),
            "name" => Some(Value::from(self.0.as_str().to_uppercase())),
            _ => None,
        }
    }
}
