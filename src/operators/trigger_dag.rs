//! `trigger_dag = …`: what a task asks the scheduler for, rendered. The scheduler makes the run.

use serde_json::{Map, Value};

use crate::keytable;
use crate::model::trigger_dag::{AskedDate, RunRequest, TriggerDag};
use crate::model::{DagId, RunId};
use crate::operators::{Fault, Place};
use crate::template::{self, Context};

/// # Errors
/// A template's fault, or what it became is no date or no table.
pub fn prepare(trigger: &TriggerDag, place: &Place<'_>) -> Result<RunRequest, Fault> {
    let context = place.context;
    let dag_id = template::render(&trigger.dag_id, context)?;
    if dag_id.is_empty() {
        return Err(Fault::Task("`dag_id` of `trigger_dag` became an empty text: correct its template".to_owned()));
    }
    let run_id = trigger.run_id.as_ref().map(|run_id| template::render(run_id, context)).transpose()?;
    Ok(RunRequest {
        dag_id: DagId::from(dag_id),
        conf: conf(trigger, context)?,
        logical_date: logical_date(trigger, context)?,
        run_id: run_id.map(RunId::from),
        existing: trigger.existing,
        wait: trigger.wait.clone(),
    })
}

fn conf(trigger: &TriggerDag, context: &Context) -> Result<Map<String, Value>, Fault> {
    let rendered = template::render_value(&trigger.conf, trigger.conf_at, context)?;
    let value = match rendered {
        Value::String(text) => serde_json::from_str(&text).map_err(|error| {
            Fault::Task(format!(
                "`conf` of `trigger_dag` became a text that is no JSON ({error}): end it with `| json`"
            ))
        })?,
        value => value,
    };
    match value {
        Value::Object(conf) => Ok(conf),
        other => Err(Fault::Task(format!("`conf` of `trigger_dag` must become a table, and became `{other}`"))),
    }
}

fn logical_date(trigger: &TriggerDag, context: &Context) -> Result<AskedDate, Fault> {
    let Some(template) = &trigger.logical_date else { return Ok(AskedDate::Now) };
    let text = template::render(template, context)?;
    if matches!(&*text, "none" | "None") {
        return Ok(AskedDate::None);
    }
    let at = keytable::parse_moment(&text).and_then(|moment| moment.in_zone(&context.dag.timezone));
    at.map(AskedDate::At).ok_or_else(|| {
        Fault::Task(format!(
            "`logical_date` of `trigger_dag` became `{text}`, which is no date: write for example `{{{{ logical_date }}}}` or \"none\""
        ))
    })
}
