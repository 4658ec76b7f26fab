//! XComs as templates ask for them: `ti.xcom_pull(…)` with Airflow's results (SEMANTICS 16), and `xcom(…)` (CONTRACTS 7).

use serde_json::Value as Json;

use crate::jinja::arguments::{given, int_of, needed};
use crate::jinja::fault::{Fault, Res, type_error};
use crate::jinja::json::{from_json, printed_as_json};
use crate::jinja::{Args, Value, print};
use crate::model::RunKey;
use crate::template::{Context, joined};

const RETURN_VALUE: &str = "return_value";

fn unanswered(sentence: String) -> Box<Fault> {
    Fault::new("LookupError", sentence)
}

fn map_index(value: &Value) -> Res<i32> {
    i32::try_from(int_of(value)?).map_err(|_| Fault::new("ValueError", "a map index is out of range"))
}

/// Whose XComs are pulled.
struct Source<'c> {
    context: &'c Context,
    /// None: there is no such run, and so no XCom of it.
    run: Option<RunKey>,
    dag_id: &'c str,
    key: &'c str,
    /// The latest earlier run that has it will do where this one has none.
    includes_earlier: bool,
}

impl Source<'_> {
    /// Those of all instances of a task, in order of their map indexes.
    fn all(&self, task_id: &str) -> Res<Vec<(i32, Json)>> {
        let lookup = &self.context.lookup;
        let found = match self.run {
            Some(run) => lookup.xcoms(run, task_id, self.key).map_err(unanswered)?,
            None => Vec::new(),
        };
        if !found.is_empty() || !self.includes_earlier {
            return Ok(found);
        }
        let run = &self.context.run;
        let before = run.logical_date.unwrap_or(run.run_after);
        lookup.earlier_xcoms(&self.dag_id.into(), task_id, self.key, before).map_err(unanswered)
    }

    fn one(&self, task_id: &str, map_index: i32) -> Res<Option<Json>> {
        if self.includes_earlier {
            return Ok(self.all(task_id)?.into_iter().find(|(at, _)| *at == map_index).map(|(_, value)| value));
        }
        let Some(run) = self.run else { return Ok(None) };
        self.context.lookup.xcom(run, task_id, map_index, self.key).map_err(unanswered)
    }
}

fn text_or(value: Option<Value>, default: &str) -> Res<String> {
    given(value).map_or(Ok(default.to_owned()), |value| print::text(&value))
}

/// `ti.xcom_pull(task_ids=None, dag_id=None, key='return_value', include_prior_dates=False, *, map_indexes, default=None,
/// run_id=None)`.
pub(super) fn pull(context: &Context, args: Args) -> Res<Value> {
    let names = ["task_ids", "dag_id", "key", "include_prior_dates", "*map_indexes", "*default", "*run_id", "*session"];
    let [task_ids, dag_id, key, earlier, map_indexes, default, run_id, _session] = args.bind("xcom_pull", names)?;
    let (own_dag, own_run) = (context.dag.dag_id.as_str(), context.run.run_id.as_str());
    let (dag_id, run_id) = (text_or(dag_id, own_dag)?, text_or(run_id, own_run)?);
    let run = if dag_id == own_dag && run_id == own_run {
        Some(context.run.key)
    } else {
        context.lookup.run_key(&dag_id.as_str().into(), &run_id.as_str().into()).map_err(unanswered)?
    };
    let key = text_or(key, RETURN_VALUE)?;
    let includes_earlier = earlier.map_or(Ok(false), |earlier| earlier.is_true())?;
    let source = Source { context, run, dag_id: &dag_id, key: &key, includes_earlier };
    let (tasks, is_single) = match given(task_ids) {
        None => (vec![context.dag.task(context.task).task_id.to_string()], true),
        Some(Value::Text(one)) => (vec![one.as_str().to_owned()], true),
        Some(many) => (many.to_vec()?.iter().map(print::text).collect::<Res<_>>()?, false),
    };
    let mut pulled = Vec::new();
    let Some(map_indexes) = given(map_indexes) else {
        // Airflow's path of no map indexes ignores `default`.
        for task_id in &tasks {
            let found = source.all(task_id)?;
            if found.is_empty() {
                pulled.push(Value::None);
            }
            pulled.extend(found.iter().map(|(_, value)| from_json(value)));
        }
        return Ok(if is_single && pulled.len() == 1 { pulled.swap_remove(0) } else { Value::list(pulled) });
    };
    let (indexes, is_one_index) = match map_indexes.as_int() {
        Some(_) => (vec![map_index(&map_indexes)?], true),
        None => (map_indexes.to_vec()?.iter().map(map_index).collect::<Res<_>>()?, false),
    };
    let default = default.unwrap_or(Value::None);
    for task_id in &tasks {
        for index in &indexes {
            pulled.push(source.one(task_id, *index)?.map_or_else(|| default.clone(), |value| from_json(&value)));
        }
    }
    Ok(if is_single && is_one_index { pulled.swap_remove(0) } else { Value::list(pulled) })
}

/// `xcom(task_id, key='return_value', map_index=none, default=…)`.
pub(super) fn xcom(context: &Context, args: Args) -> Res<Value> {
    let [task_id, key, index, default] = args.bind("xcom", ["task_id", "key", "map_index", "*default"])?;
    let task_id = match needed(task_id, "xcom", "task_id")? {
        Value::Text(task_id) => task_id.as_str().to_owned(),
        other => return type_error(format!("xcom() takes the task's id as a text, not {}", other.type_name())),
    };
    let key = text_or(key, RETURN_VALUE)?;
    let run = context.run.key;
    let found = match given(index) {
        Some(index) => context.lookup.xcom(run, &task_id, map_index(&index)?, &key).map_err(unanswered)?,
        None => {
            let all = context.lookup.xcoms(run, &task_id, &key).map_err(unanswered)?;
            joined(all)
        }
    };
    if let Some(found) = found {
        return Ok(printed_as_json(&found));
    }
    default.ok_or_else(|| {
        let what = if context.dag.find(&task_id).is_some() {
            format!("task `{task_id}` has no XCom `{key}` in this run; it may not have run yet: add it to `depends_on`, or give `default=`")
        } else {
            format!("there is no task `{task_id}` in this DAG, so no XCom of it")
        };
        Fault::new("LookupError", what)
    })
}
