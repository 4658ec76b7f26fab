//! `minflow dags next-execution`

use std::io::Write;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::api::json::Instant;
use crate::cli::failure::eprint;
use crate::cli::home::Home;
use crate::cli::output::{Column, Format, Output, local_time};
use crate::cli::{Globals, Outcome, plan};
use crate::model::{NextRun, Schedule};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  minflow dags next-execution host_report -n 3")]
pub struct Arguments {
    dag_id: String,
    /// How many
    #[arg(short, long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    num_executions: u32,
    /// Print this field alone, one line each
    #[arg(long, value_enum)]
    field: Option<Field>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Field {
    LogicalDate,
    RunAfter,
    DataIntervalStart,
    DataIntervalEnd,
}

impl Field {
    fn of(self, run: &NextRun) -> Timestamp {
        match self {
            Self::LogicalDate => run.logical_date,
            Self::RunAfter => run.run_after,
            Self::DataIntervalStart => run.data_interval.start,
            Self::DataIntervalEnd => run.data_interval.end,
        }
    }
}

const COLUMNS: [Column; 2] = [Column::time("run_after"), Column::time("logical_date")];

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let definition = home.definition(&arguments.dag_id)?;
    if definition.record.as_ref().is_some_and(|record| record.is_paused) {
        eprint(&format!("`{}` is paused: nothing is started until `minflow dags unpause {0}`\n", arguments.dag_id));
    }
    let is_continuous = definition.dag.schedule == Schedule::Continuous;
    // When a run of those is over is known once it is.
    let count = if is_continuous { 1 } else { arguments.num_executions as usize };
    let runs = plan::next_runs(&home, &definition, count)?;
    if runs.is_empty() {
        eprint(&format!("`{}` has no next run by its schedule\n", arguments.dag_id));
        if matches!(output.format, Format::Table | Format::Plain) {
            return Ok(());
        }
    }
    if is_continuous && arguments.num_executions > 1 {
        eprint(&format!("`{}` runs again as soon as a run is over; this is the next one\n", arguments.dag_id));
    }
    if let (Some(field), Format::Table | Format::Plain) = (arguments.field, output.format) {
        for run in &runs {
            writeln!(output, "{}", local_time(field.of(run), &TimeZone::system()))?;
        }
        return Ok(());
    }
    let records: Vec<Value> = runs.iter().map(as_record).collect();
    Ok(output.list(&records, &COLUMNS)?)
}

fn as_record(run: &NextRun) -> Value {
    json!({
        "logical_date": Instant(run.logical_date),
        "run_after": Instant(run.run_after),
        "data_interval_start": Instant(run.data_interval.start),
        "data_interval_end": Instant(run.data_interval.end),
    })
}
