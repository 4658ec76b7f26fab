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
use crate::cli::{Failure, Globals, Outcome};
use crate::clock::{Clock, SystemClock};
use crate::model::{Catchup, NextRun};
use crate::timetable::Timetable;

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
        eprint(&format!("`{}` is paused: nothing is started until `minflow dags unpause`\n", arguments.dag_id));
    }
    let runs = next_runs(&definition, arguments.num_executions as usize)?;
    if runs.is_empty() {
        eprint(&format!("`{}` has no next run by its schedule\n", arguments.dag_id));
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

/// The next `count` runs: the one that the scheduler has noted, or what it would note now, and those that follow.
fn next_runs(definition: &Definition, count: usize) -> Result<Vec<NextRun>, Failure> {
    let dag = &definition.dag;
    let timetable = Timetable::new(&dag.schedule, &dag.timezone).map_err(|error| {
        Failure::refused(format!("the schedule of `{}`: {}", dag.dag_id, error.message), error.help)
    })?;
    let timetable = timetable.with_run_immediately(dag.run_immediately);
    let record = definition.record.as_ref();
    let now = SystemClock.now();
    let first_seen = record.and_then(|record| record.first_seen_at).unwrap_or(now);
    let earliest = timetable.earliest(dag.earliest(), first_seen, dag.catchup);
    let last = record.and_then(|record| record.last_interval);
    let noted = record.and_then(|record| record.next_run);
    let mut next = noted.or_else(|| timetable.next_run(last, earliest, dag.latest(), dag.catchup, now));
    let mut runs = Vec::new();
    while let Some(run) = next.filter(|_| runs.len() < count) {
        runs.push(run);
        // With catchup the timetable goes from tick to tick, as time will.
        next = timetable.next_run(Some(run.data_interval), earliest, dag.latest(), Catchup::All, now);
    }
    Ok(runs)
}
