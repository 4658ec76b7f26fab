//! `minflow tasks usage`

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Failure, Globals, Outcome};
use crate::keytable::parse_duration;
use crate::model::cost::{self, Measure, Spread};
use crate::model::{Cost, TaskId};
use crate::observe::{Sample, Sampler};

#[derive(Debug, Args)]
#[command(
    after_help = "Counted are all tries that had a process, of the runs that were due in the period. What is growing is told by the later \
    half of them: its median against that of the earlier half.\n\nExamples:\n  minflow tasks usage sales\n  \
    minflow tasks usage sales load --since 7d -o json\n  minflow tasks usage sales --live"
)]
pub struct Arguments {
    dag_id: String,
    task_id: Option<String>,
    /// How far to look back, for example 12h or 30d
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = duration)]
    since: Duration,
    /// What is running now has used so far
    #[arg(long, conflicts_with = "since")]
    live: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let read = parse_duration(text).filter(|duration| !duration.is_zero());
    read.ok_or_else(|| "write for example 12h, 7d or 1d12h".to_owned())
}

const COLUMNS: [Column; 13] = [
    Column::text("task_id"),
    Column::text("tries"),
    Column::span("wall.p50"),
    Column::span("wall.p95"),
    Column::span("wall.max"),
    Column::span("cpu.p50"),
    Column::span("cpu.p95"),
    Column::span("cpu.max"),
    Column::bytes("memory.p50"),
    Column::bytes("memory.max"),
    Column::bytes("read.max"),
    Column::bytes("written.max"),
    Column::text("growing"),
];

const LIVE: [Column; 10] = [
    Column::text("run_id"),
    Column::text("task_id"),
    Column::text("map_index"),
    Column::span("wall"),
    Column::span("user_cpu"),
    Column::span("system_cpu"),
    Column::bytes("memory"),
    Column::bytes("read_bytes"),
    Column::bytes("write_bytes"),
    Column::text("processes"),
];

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    home.expect_dag(&arguments.dag_id)?;
    if let Some(task_id) = &arguments.task_id
        && let Err(unknown) = home.definition(&arguments.dag_id).and_then(|definition| definition.task(task_id))
        // One that has left its DAG may have a past.
        && !has_past(&home, arguments)?
    {
        return Err(unknown);
    }
    if arguments.live { show_live(&home, arguments, output) } else { show_past(&home, arguments, output) }
}

fn has_past(home: &Home, arguments: &Arguments) -> Result<bool, Failure> {
    let Some(reader) = &home.reader else { return Ok(false) };
    Ok(!reader.costs(&arguments.dag_id, arguments.task_id.as_deref(), Timestamp::UNIX_EPOCH)?.is_empty())
}

fn show_past(home: &Home, arguments: &Arguments, output: &mut Output) -> Outcome {
    let since = Timestamp::now().checked_sub(arguments.since).unwrap_or(Timestamp::UNIX_EPOCH);
    let costs = match &home.reader {
        Some(reader) => reader.costs(&arguments.dag_id, arguments.task_id.as_deref(), since)?,
        None => Vec::new(),
    };
    let mut by_task: BTreeMap<TaskId, Vec<Cost>> = BTreeMap::new();
    for (task_id, cost) in costs {
        by_task.entry(task_id).or_default().push(cost);
    }
    let records: Vec<Value> = by_task.into_iter().map(|(task_id, costs)| record(&task_id, costs)).collect();
    Ok(output.list(&records, &COLUMNS)?)
}

fn record(task_id: &TaskId, mut costs: Vec<Cost>) -> Value {
    costs.sort_by_key(|cost| cost.ended_at);
    let mut fields = Map::new();
    fields.insert("task_id".to_owned(), json!(task_id));
    fields.insert("tries".to_owned(), json!(costs.len()));
    let mut growing = Vec::new();
    for measure in Measure::ALL {
        let Some(spread) = cost::spread(&costs, measure) else { continue };
        fields.insert(measure.name().to_owned(), of_spread(measure, &spread));
        if spread.is_growing {
            growing.push(match spread.growth {
                Some(growth) => format!("{} +{:.0} %", measure.name(), growth * 100.0),
                None => format!("{} from nothing", measure.name()),
            });
        }
    }
    fields.insert("growing".to_owned(), json!(growing));
    Value::Object(fields)
}

/// Times in seconds, the rest in bytes.
fn of_spread(measure: Measure, spread: &Spread) -> Value {
    let shown = |value: u64| match measure {
        Measure::Wall | Measure::Cpu => json!(Duration::from_micros(value).as_secs_f64()),
        Measure::Memory | Measure::Read | Measure::Written => json!(value),
    };
    json!({
        "p50": shown(spread.p50),
        "p95": shown(spread.p95),
        "max": shown(spread.max),
        "growth": spread.growth.map(|growth| (growth * 1_000.0).round() / 1_000.0),
    })
}

fn show_live(home: &Home, arguments: &Arguments, output: &mut Output) -> Outcome {
    let sampler = Sampler::now();
    let mut records = Vec::new();
    let running = home.reader.as_ref().map_or_else(|| Ok(Vec::new()), |reader| reader.running(&arguments.dag_id))?;
    for (run_id, instance) in running {
        let is_meant = arguments.task_id.as_ref().is_none_or(|task_id| instance.task_id.as_str() == task_id);
        let process = instance.process.as_deref().filter(|_| is_meant);
        let Some(Sample { usage, memory, processes }) = process.and_then(|process| sampler.sample(process)) else {
            continue;
        };
        let wall = instance.start_date.map(|start| Timestamp::now().duration_since(start).as_secs_f64());
        records.push(json!({
            "run_id": run_id,
            "task_id": instance.task_id,
            "map_index": instance.map_index,
            "try_number": instance.try_number,
            "wall": wall,
            "user_cpu": usage.user_cpu.as_secs_f64(),
            "system_cpu": usage.system_cpu.as_secs_f64(),
            "memory": memory,
            "max_rss": usage.max_rss,
            "read_bytes": usage.read_bytes,
            "write_bytes": usage.write_bytes,
            "voluntary_switches": usage.voluntary_switches,
            "involuntary_switches": usage.involuntary_switches,
            "processes": processes,
        }));
    }
    Ok(output.list(&records, &LIVE)?)
}
