//! `minflow tasks failed-deps`

use std::io::Write;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::api::json;
use crate::cli::home::Home;
use crate::cli::output::{Format, Output};
use crate::cli::{Globals, Outcome, explain, record};

#[derive(Debug, Args)]
pub struct Arguments {
    dag_id: String,
    task_id: String,
    /// The run: its run_id or its logical date
    logical_date_or_run_id: String,
    /// Which instance of a mapped task
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    map_index: Option<i32>,
}

/// In Airflow's words: each gate by its name, and what it waits for.
pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let run = home.run(&arguments.dag_id, &arguments.logical_date_or_run_id)?;
    let instance = home.instance(&run, &arguments.task_id, arguments.map_index)?;
    let asked = (arguments.task_id.as_str(), Some(instance.map_index));
    let explanation = explain::ask(&home, &run, Some(asked))?;
    let finding = explanation.tasks.first().map(|task| &task.finding);
    if matches!(output.format, Format::Json | Format::Yaml) {
        let record = finding.map_or(serde_json::Value::Null, |finding| record::to_value(&json::Finding::from(finding)));
        return Ok(output.record(&record, &[])?);
    }
    match finding.and_then(|finding| Some((finding.gate.as_deref()?, finding))) {
        Some((gate, finding)) => {
            writeln!(output, "Task instance dependencies not met:")?;
            writeln!(output, "{gate}: {}", finding.line(Timestamp::now(), &TimeZone::system()))?;
        }
        None => writeln!(output, "Task instance dependencies are all met.")?,
    }
    Ok(())
}
