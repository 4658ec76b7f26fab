//! `minflow dags details`

use clap::Args;
use serde_json::{Value, json};

use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Globals, Outcome};
use crate::keytable::print_duration;
use crate::model::dag::{Catchup, Intervals, RunImmediately, Schedule};

#[derive(Debug, Args)]
pub struct Arguments {
    dag_id: String,
}

const COLUMNS: [Column; 31] = [
    Column::text("dag_id"),
    Column::text("description"),
    Column::text("file"),
    Column::text("owner"),
    Column::text("tags"),
    Column::text("schedule"),
    Column::text("schedule_description"),
    Column::text("timezone"),
    Column::time("start_date"),
    Column::time("end_date"),
    Column::text("catchup"),
    Column::text("data_interval"),
    Column::text("run_immediately"),
    Column::text("max_active_runs"),
    Column::text("max_active_tasks"),
    Column::text("max_consecutive_failed_dag_runs"),
    Column::text("dagrun_timeout"),
    Column::text("params"),
    Column::text("tasks"),
    Column::text("is_paused"),
    Column::text("pause_reason"),
    Column::text("is_active"),
    Column::text("has_import_errors"),
    Column::time("first_seen_at"),
    Column::time("next_dagrun"),
    Column::time("next_dagrun_create_after"),
    Column::text("last_run.run_id"),
    Column::state("last_run.state"),
    Column::span("last_run.lag"),
    Column::time("last_run.end_date"),
    Column::text("doc_md"),
];

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let definition = home.definition(&arguments.dag_id)?;
    let dag = &definition.dag;
    let mut record = home.dag_record(&definition)?;
    let more = json!({
        "description": dag.description,
        "doc_md": dag.doc_md,
        "first_seen_at": definition.record.as_ref().and_then(|record| record.first_seen_at).map(crate::api::json::Instant),
        "start_date": dag.start_date.map(crate::api::json::Instant),
        "end_date": dag.end_date.map(crate::api::json::Instant),
        "catchup": catchup(dag.catchup),
        "data_interval": has_data_intervals(&dag.schedule),
        "run_immediately": run_immediately(dag.run_immediately),
        "max_active_runs": dag.max_active_runs,
        "max_active_tasks": dag.max_active_tasks,
        "max_consecutive_failed_dag_runs": dag.max_consecutive_failed_dag_runs,
        "dagrun_timeout": dag.dagrun_timeout.map(|timeout| timeout.as_secs_f64()),
        "params": dag.params,
        "param_schemas": dag.param_schemas,
        "tasks": dag.tasks.iter().map(|task| task.task_id.as_str()).collect::<Vec<_>>(),
    });
    if let (Value::Object(record), Value::Object(more)) = (&mut record, more) {
        record.extend(more);
    }
    Ok(output.record(&record, &COLUMNS)?)
}

/// As a DAG file says it.
fn catchup(catchup: Catchup) -> Value {
    match catchup {
        Catchup::Latest => json!(false),
        Catchup::All => json!(true),
        Catchup::Window(window) => json!(format!("window:{}", print_duration(window))),
    }
}

/// As a DAG file says it.
fn run_immediately(run_immediately: RunImmediately) -> Value {
    match run_immediately {
        RunImmediately::No => json!(false),
        RunImmediately::Yes => json!(true),
        RunImmediately::Within(within) => json!(print_duration(within)),
    }
}

fn has_data_intervals(schedule: &Schedule) -> bool {
    match schedule {
        Schedule::Cron(crons) => crons.intervals == Intervals::Data,
        Schedule::Every(every) => every.intervals == Intervals::Data,
        Schedule::Never | Schedule::Once | Schedule::Continuous | Schedule::Events(_) => false,
    }
}
