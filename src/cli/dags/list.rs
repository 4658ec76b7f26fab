//! `minflow dags list`

use std::collections::BTreeSet;
use std::io::Write;

use clap::Args;
use serde_json::Value;

use crate::cli::failure::eprint;
use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Failure, Globals, Outcome};
use crate::diagnostic::did_you_mean;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  minflow dags list --columns dag_id,schedule,is_paused")]
pub struct Arguments {
    /// The columns of the table, e.g. `dag_id,owner,tags`
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    columns: Vec<String>,
}

const ALL: [Column; 16] = [
    Column::text("dag_id"),
    Column::text("file"),
    Column::text("schedule"),
    Column::text("is_paused"),
    Column::time("next_dagrun_create_after"),
    Column::state("last_run.state"),
    Column::span("last_run.lag"),
    Column::text("is_active"),
    Column::text("schedule_description"),
    Column::text("timezone"),
    Column::text("tags"),
    Column::text("owner"),
    Column::time("next_dagrun"),
    Column::time("last_run.end_date"),
    Column::text("has_import_errors"),
    Column::text("pause_reason"),
];

/// How many of `ALL` a table has unless others are asked for.
const USUAL: usize = 7;

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let columns = choose(&arguments.columns)?;
    let home = Home::open(globals)?;
    let records: Vec<Value> = home.dag_records()?;
    output.list(&records, &columns)?;
    let faults = home.import_errors()?;
    let broken: BTreeSet<_> = faults.iter().filter_map(|fault| fault["filename"].as_str()).collect();
    if !broken.is_empty() {
        output.flush()?;
        let (files, them) = if broken.len() == 1 { ("file is", "it") } else { ("files are", "them") };
        let count = broken.len();
        eprint(&format!(
            "{count} DAG {files} broken: `minflow dags list-import-errors` says what is wrong with {them}\n"
        ));
    }
    Ok(())
}

fn choose(names: &[String]) -> Result<Vec<Column>, Failure> {
    if names.is_empty() {
        return Ok(ALL[..USUAL].to_vec());
    }
    let find = |name: &String| {
        ALL.iter().find(|column| column.name() == name).copied().ok_or_else(|| {
            let all: Vec<&str> = ALL.iter().map(|column| column.name()).collect();
            let help = match did_you_mean(name, all.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("there are {}", all.join(", ")),
            };
            Failure::Usage { message: format!("unknown column `{name}`"), help }
        })
    };
    names.iter().map(find).collect()
}
