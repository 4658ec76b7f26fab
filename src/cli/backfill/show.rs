//! `minflow backfill show`

use clap::Args;
use serde_json::{Value, json};

use crate::api::json::Instant;
use crate::cli::backfill::{COLUMNS, OneBackfill, Stand};
use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Globals, Outcome};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  minflow backfill show 3 --dates")]
pub struct Arguments {
    #[command(flatten)]
    which: OneBackfill,
    /// List its dates in the order of their runs
    #[arg(long)]
    dates: bool,
}

const DATE_COLUMNS: [Column; 5] = [
    Column::text("sort_ordinal"),
    Column::time("logical_date"),
    Column::text("run_id"),
    Column::state("state"),
    Column::text("exception_reason"),
];

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let stand = Stand::find(&home, arguments.which.id())?;
    let Some(reader) = home.reader.as_ref().filter(|_| arguments.dates) else {
        return Ok(output.record(&stand.record(), &COLUMNS)?);
    };
    let mut records: Vec<Value> = Vec::new();
    for date in reader.backfill_dates(stand.backfill.id)? {
        records.push(json!({
            "sort_ordinal": date.ordinal,
            "logical_date": Instant(date.logical_date),
            "run_id": date.run_id,
            "state": date.state,
            "exception_reason": date.reason,
        }));
    }
    Ok(output.list(&records, &DATE_COLUMNS)?)
}
