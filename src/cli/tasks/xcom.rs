//! `minflow tasks xcom`

use clap::Args;
use serde_json::{Value, json};

use crate::api::json::Instant;
use crate::cli::home::Home;
use crate::cli::output::{Column, Format, Output};
use crate::cli::{Failure, Globals, Outcome};
use crate::model::DagRun;
use crate::store::StoredXcom;

#[derive(Debug, Args)]
#[command(
    after_help = "The run and the task may change places. With --key the value alone is printed: a text as it is, anything \
    else as JSON.\n\nExamples:\n  minflow tasks xcom programs scheduled__2026-11-21T00:00:00+00:00 merge\n  \
    minflow tasks xcom programs 2026-11-21 merge --key return_value"
)]
pub struct Arguments {
    dag_id: String,
    /// The run: its run_id or its logical date
    logical_date_or_run_id: String,
    task_id: String,
    /// Which instance of a mapped task [default: all]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    map_index: Option<i32>,
    /// Print this one's value
    #[arg(long)]
    key: Option<String>,
}

const COLUMNS: [Column; 4] =
    [Column::text("map_index"), Column::text("key"), Column::text("value"), Column::time("timestamp")];
/// Of a value in a table, in characters.
const MAX_SHOWN: usize = 80;

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let (dag_id, first, second) = (&arguments.dag_id, &arguments.logical_date_or_run_id, &arguments.task_id);
    let (run, task_id) = match (home.find_run(dag_id, first)?, home.find_run(dag_id, second)?) {
        (None, Some(run)) => (run, first),
        (Some(run), _) => (run, second),
        (None, None) => (home.run(dag_id, first)?, second),
    };
    let instances = home.instances(&run)?;
    if !instances.iter().any(|instance| *instance.task_id == **task_id) {
        let known = instances.iter().map(|instance| instance.task_id.as_str());
        return Err(Failure::unknown("task_id", task_id, known, &format!("minflow tasks list {dag_id}")));
    }
    let found = match &home.reader {
        Some(reader) => reader.xcoms_of_task(run.key, task_id)?,
        None => Vec::new(),
    };
    let is_meant = |xcom: &&StoredXcom| arguments.map_index.is_none_or(|index| xcom.map_index == index);
    let of_instances: Vec<&StoredXcom> = found.iter().filter(is_meant).collect();
    let record = |xcom: &&StoredXcom| record(&run, task_id, xcom);
    let Some(key) = &arguments.key else {
        let mut records: Vec<Value> = of_instances.iter().map(record).collect();
        if !matches!(output.format, Format::Json | Format::Yaml) {
            records.iter_mut().for_each(shorten);
        }
        return Ok(output.list(&records, &COLUMNS)?);
    };
    let mut of_key = of_instances.iter().filter(|xcom| xcom.key == *key).copied();
    let (Some(one), other) = (of_key.next(), of_key.next()) else {
        return Err(no_such_key(task_id, key, arguments.map_index, &of_instances));
    };
    if other.is_some() {
        let message = format!("`{task_id}` is mapped, and several of its instances have pushed `{key}`");
        return Err(Failure::refused(message, "name one with --map-index, or leave --key out to list all"));
    }
    let Some(value) = &one.value else {
        let file = one.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let message = format!("the value of `{key}` lay in `{file}`, which has gone");
        return Err(Failure::refused(message, format!("run `{task_id}` again, which pushes it anew")));
    };
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(output.answer(&text, &record(&one))?)
}

fn record(run: &DagRun, task_id: &str, xcom: &StoredXcom) -> Value {
    json!({
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "task_id": task_id,
        "map_index": xcom.map_index,
        "key": xcom.key,
        "value": xcom.value,
        "timestamp": Instant(xcom.pushed_at),
        "file": xcom.file,
    })
}

fn shorten(record: &mut Value) {
    let text = match &record["value"] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let line = text.lines().next().unwrap_or_default();
    let end = line.char_indices().nth(MAX_SHOWN).map_or(line.len(), |(end, _)| end);
    if end < text.len() {
        record["value"] = Value::from(format!("{}… ({} bytes)", &line[..end], text.len()));
    }
}

fn no_such_key(task_id: &str, key: &str, map_index: Option<i32>, found: &[&StoredXcom]) -> Failure {
    let of = map_index.map_or_else(String::new, |index| format!(" of map index {index}"));
    let message = format!("`{task_id}`{of} has pushed no `{key}`");
    let mut keys: Vec<String> = found.iter().map(|xcom| format!("`{}`", xcom.key)).collect();
    keys.dedup();
    let help = match keys.len() {
        0 => "it has pushed nothing: look at its state and its log".to_owned(),
        _ => format!("it has pushed {}", keys.join(", ")),
    };
    Failure::refused(message, help)
}
