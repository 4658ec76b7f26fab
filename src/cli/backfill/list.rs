//! `minflow backfill list`

use clap::Args;
use serde_json::Value;

use crate::cli::backfill::Stand;
use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Globals, Outcome};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  minflow backfill list --dag-id host_report -o json")]
pub struct Arguments {
    /// Only those of this DAG
    #[arg(long)]
    dag_id: Option<String>,
}

const COLUMNS: [Column; 10] = [
    Column::text("id"),
    Column::text("dag_id"),
    Column::state("state"),
    Column::time("from_date"),
    Column::time("to_date"),
    Column::text("dates"),
    Column::text("queued"),
    Column::text("running"),
    Column::text("success"),
    Column::text("failed"),
];

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    if let Some(dag_id) = &arguments.dag_id {
        home.expect_dag(dag_id)?;
    }
    let mut records: Vec<Value> = Vec::new();
    if let Some(reader) = &home.reader {
        for backfill in reader.backfills(arguments.dag_id.as_deref())? {
            records.push(Stand::read(reader, backfill)?.record());
        }
    }
    Ok(output.list(&records, &COLUMNS)?)
}
