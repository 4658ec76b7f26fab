//! `minflow audit`

use clap::Args;
use serde_json::{Value, json};

use crate::api::json::Instant;
use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Failure, Globals, Outcome};
use crate::keytable::parse_duration;
use crate::store::AuditFilter;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  minflow audit --since 24h\n  minflow audit --dag-id sales -o json")]
pub struct Arguments {
    /// Only of this DAG
    #[arg(short, long, value_name = "DAG_ID")]
    dag_id: Option<String>,
    /// Only of this run
    #[arg(short, long, value_name = "RUN_ID")]
    run_id: Option<String>,
    /// Only of this kind, such as `trigger` or `clear`
    #[arg(short, long)]
    event: Option<String>,
    /// Not earlier: a date, or a duration back from now such as 12h or 30d
    #[arg(short, long, value_name = "TIME")]
    since: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

const COLUMNS: [Column; 7] = [
    Column::time("at"),
    Column::text("event"),
    Column::text("dag_id"),
    Column::text("run_id"),
    Column::text("task_id"),
    Column::text("owner"),
    Column::text("extra"),
];

/// Newest first.
pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let since = arguments.since.as_deref().map(|text| since(&home, text)).transpose()?;
    let filter = AuditFilter {
        dag_id: arguments.dag_id.as_deref(),
        run_id: arguments.run_id.as_deref(),
        since,
        event: arguments.event.as_deref(),
    };
    let found = match &home.reader {
        Some(reader) => reader.audit(&filter, arguments.limit)?,
        None => Vec::new(),
    };
    let masker = home.secrets.masker();
    let records: Vec<Value> = found
        .into_iter()
        .map(|entry| {
            let mut extra = entry.extra.to_string();
            masker.mask_in(&mut extra);
            json!({
                "at": Instant(entry.at), "event": entry.event, "dag_id": entry.dag_id, "run_id": entry.run_id,
                "task_id": entry.task_id, "owner": entry.owner,
                "extra": serde_json::from_str::<Value>(&extra).unwrap_or(Value::String(extra)),
            })
        })
        .collect();
    Ok(output.list(&records, &COLUMNS)?)
}

fn since(home: &Home, text: &str) -> Result<jiff::Timestamp, Failure> {
    match parse_duration(text) {
        Some(back) => Ok(jiff::Timestamp::now().checked_sub(back).unwrap_or(jiff::Timestamp::UNIX_EPOCH)),
        None => home.instant(text),
    }
}
