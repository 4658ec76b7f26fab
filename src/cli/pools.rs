//! `minflow pools …`

mod transfer;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::failure::eprint;
use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Failure, Globals, Outcome, engine};
use crate::model::{Pool, PoolName};
use crate::scheduler;
use crate::scheduler::command::Done;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List all pools
    List,
    /// Show one pool
    Get(Named),
    /// Define a pool, or change it; at once, also for tasks that wait
    Set(SetArguments),
    /// Take a pool away: what runs in it goes on, what would run in it waits
    Delete(Named),
    /// Define pools that a JSON file lists, in Airflow's form: all of them, or none if one cannot be
    Import(File),
    /// Write all pools to a file as JSON
    Export(File),
}

#[derive(Debug, Args)]
pub struct Named {
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  minflow pools set database 3 \"connections to the warehouse\"")]
pub struct SetArguments {
    #[arg(value_name = "NAME")]
    name: String,
    /// How many; -1 for no limit
    #[arg(value_name = "SLOTS", allow_hyphen_values = true, value_parser = clap::value_parser!(i64).range(-1..=i64::from(i32::MAX)))]
    slots: i64,
    /// What the pool is for; may be ""
    #[arg(value_name = "DESCRIPTION")]
    description: String,
    /// What is deferred keeps its slots, such as a sensor between two looks
    #[arg(long)]
    include_deferred: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The file:\n  {\"database\": {\"slots\": 3, \"description\": \"connections to the warehouse\"}}"
)]
pub struct File {
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

const COLUMNS: [Column; 5] = [
    Column::text("pool"),
    Column::text("slots"),
    Column::text("description"),
    Column::text("include_deferred"),
    Column::text("source"),
];

pub fn run(globals: &Globals, command: Command, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    match command {
        Command::List => show(&home, home.pools()?.values(), output),
        Command::Get(Named { name }) => {
            let pools = home.pools()?;
            let pool = pools.get(&*name).ok_or_else(|| unknown(&name, pools.keys()))?;
            show(&home, [pool], output)
        }
        Command::Set(SetArguments { name, slots, description, include_deferred }) => {
            let pool = Pool { name: name.into(), slots, description, include_deferred };
            if set(&home, vec![pool.clone()])? == 0 {
                eprint(&format!("`{}` was so already\n", pool.name));
            }
            show(&home, [&pool], output)
        }
        Command::Delete(Named { name }) => delete(&home, &name, output),
        Command::Import(File { file }) => transfer::import(&home, &file, output),
        Command::Export(File { file }) => transfer::export(&home, &file),
    }
}

/// Defines pools or changes them, and answers how many were not so already.
fn set(home: &Home, pools: Vec<Pool>) -> Result<u32, Failure> {
    match engine::apply(home, scheduler::Command::SetPools { pools })? {
        Done::PoolsSet { changed } => Ok(changed),
        other => Err(engine::unexpected(&other)),
    }
}

fn delete(home: &Home, name: &str, output: &mut Output) -> Outcome {
    match engine::apply(home, scheduler::Command::DeletePool { name: name.into() })? {
        Done::PoolDeleted { pool, waiting } => {
            if !waiting.is_empty() {
                let dags: Vec<String> = waiting.iter().map(|dag_id| format!("`{dag_id}`")).collect();
                let what = "their tasks in it wait until there is such a pool again";
                eprint(&format!("still named by {}: {what}\n", dags.join(", ")));
            }
            show(home, [&pool], output)
        }
        other => Err(engine::unexpected(&other)),
    }
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a PoolName>) -> Failure {
    Failure::unknown("pool", name, known.map(PoolName::as_str), "minflow pools list")
}

fn show<'a>(home: &Home, pools: impl IntoIterator<Item = &'a Pool>, output: &mut Output) -> Outcome {
    let record = |pool: &Pool| -> Value {
        let is_given = home.config.pools.get(&*pool.name).is_some_and(|setting| setting.is_given);
        let source = match is_given {
            true => "configuration",
            false if *pool == Pool::default_pool() => "default",
            false => "database",
        };
        json!({
            "pool": pool.name,
            "slots": pool.slots,
            "description": pool.description,
            "include_deferred": pool.include_deferred,
            "source": source,
        })
    };
    let records: Vec<Value> = pools.into_iter().map(record).collect();
    Ok(output.list(&records, &COLUMNS)?)
}
