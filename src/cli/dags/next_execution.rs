//! `minflow dags next-execution`

use std::io::Write;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::api::json::Instant;
use crate::cli::failure::eprint;
use crate::cli::home::{Definition, Home};
use crate::cli::output::{Column, Format, Output, local_time};
use crate::cli::{Failure, Globals, Outcome, engine};
use crate::clock::{Clock, SystemClock};
use crate::model::{NextRun, Schedule};
use crate::simulate::{self, Subject};

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
    let runs = next_runs(&home, &definition, count)?;
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

/// The next `count` runs: a late one that the running minflow has planned already, and those that it would create from now on.
fn next_runs(home: &Home, definition: &Definition, count: usize) -> Result<Vec<NextRun>, Failure> {
    let (dag, record) = (&definition.dag, definition.record.as_ref());
    let now = SystemClock.now();
    let mut subject = Subject {
        dag: dag.clone(),
        file: definition.file.as_str().into(),
        first_seen_at: record.and_then(|record| record.first_seen_at),
        last_interval: record.and_then(|record| record.last_interval),
        outlooks: Vec::new(),
    };
    // It waits for a run before it to end. One that nobody runs plans anew at its start.
    let late = record.filter(|record| !record.is_paused).and_then(|record| record.next_run);
    let late = late.filter(|next| next.run_after <= now && engine::expect_running(home).is_ok());
    if let Some(next) = late {
        subject.last_interval = Some(next.data_interval);
    }
    let mut failed = None;
    let mut is_taken = |date| match home.reader.as_ref().map(|reader| reader.run_by_logical_date(&dag.dag_id, date)) {
        Some(Err(error)) => {
            failed = Some(error);
            true
        }
        Some(Ok(run)) => run.is_some(),
        None => false,
    };
    let following = simulate::next_runs(&subject, now, count - usize::from(late.is_some()), &mut is_taken);
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(late.into_iter().chain(following).collect()),
    }
}
