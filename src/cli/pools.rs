//! `minflow pools …`

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Globals, Outcome};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List all pools
    List,
}

const COLUMNS: [Column; 4] =
    [Column::text("pool"), Column::text("slots"), Column::text("description"), Column::text("source")];

pub fn run(globals: &Globals, command: &Command, output: &mut Output) -> Outcome {
    match command {
        Command::List => list(globals, output),
    }
}

fn list(globals: &Globals, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let of_file = &home.config.pools;
    let mut records: Vec<Value> = of_file
        .iter()
        .map(|(name, pool)| json!({"pool": name, "slots": pool.slots, "description": pool.description, "source": "configuration"}))
        .collect();
    if let Some(reader) = &home.reader {
        let others = reader.pools()?.into_iter().filter(|pool| !of_file.contains_key(pool.name.as_str()));
        records.extend(others.map(
            |pool| json!({"pool": pool.name, "slots": pool.slots, "description": pool.description, "source": "database"}),
        ));
    }
    records.sort_by_key(|record| record["pool"].to_string());
    Ok(output.list(&records, &COLUMNS)?)
}
