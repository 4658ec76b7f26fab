//! `minflow assets …`

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::dags::parse_conf;
use crate::cli::failure::eprint;
use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Failure, Globals, Outcome, engine, record};
use crate::model::{Asset, AssetEvent, AssetKey};
use crate::scheduler::command::Done;
use crate::store::{Reader, StoredReference};

/// How many events `details` shows.
const EVENTS: u32 = 10;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List all assets, with who produces and who waits for them
    List(ListArguments),
    /// Show one asset in full, with its newest events
    Details(DetailsArguments),
    /// Run the DAG that produces an asset
    Materialize(MaterializeArguments),
}

#[derive(Debug, Args)]
pub struct ListArguments {
    /// Only aliases
    #[arg(long)]
    alias: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  minflow assets details --name orders -o json")]
pub struct DetailsArguments {
    #[command(flatten)]
    which: Which,
    /// It is to be an alias
    #[arg(long)]
    alias: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  minflow assets materialize orders --conf '{\"full\": true}'")]
pub struct MaterializeArguments {
    #[command(flatten)]
    which: Which,
    /// Params of the run, as a JSON object
    #[arg(short, long, value_name = "JSON")]
    conf: Option<String>,
}

/// Which asset is meant.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Its name or uri
    #[arg(value_name = "ASSET")]
    asset: Option<String>,
    /// Its name
    #[arg(long)]
    name: Option<String>,
    /// Its uri
    #[arg(long)]
    uri: Option<String>,
}

impl Which {
    fn text(&self) -> &str {
        self.asset.as_deref().or(self.name.as_deref()).or(self.uri.as_deref()).unwrap_or_default()
    }
}

const COLUMNS: [Column; 7] = [
    Column::text("name"),
    Column::text("uri"),
    Column::text("group"),
    Column::text("kind"),
    Column::text("produced_by"),
    Column::text("waited_for_by"),
    Column::time("last_event_at"),
];
const DETAILS: [Column; 11] = [
    Column::text("name"),
    Column::text("uri"),
    Column::text("group"),
    Column::text("kind"),
    Column::text("extra"),
    Column::text("produced_by"),
    Column::text("read_by"),
    Column::text("waited_for_by"),
    Column::text("stands_for"),
    Column::time("last_event_at"),
    Column::text("events"),
];

pub fn run(globals: &Globals, command: &Command, output: &mut Output) -> Outcome {
    match command {
        Command::List(arguments) => list(globals, arguments, output),
        Command::Details(arguments) => details(globals, arguments, output),
        Command::Materialize(arguments) => materialize(globals, arguments, output),
    }
}

fn list(globals: &Globals, arguments: &ListArguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let mut records = Vec::new();
    if let Some(reader) = &home.reader {
        let references = reader.asset_references()?;
        let mut assets = reader.assets()?;
        assets.sort_by(|one, other| one.definition.name.cmp(&other.definition.name));
        for asset in assets.iter().filter(|asset| asset.definition.is_alias || !arguments.alias) {
            let newest = reader.asset_events(asset.key, 1)?;
            let record = record_of(asset, &references, newest.last());
            // What nobody names any longer is history.
            if !record.is_unused {
                records.push(record.fields);
            }
        }
    }
    Ok(output.list(&records, &COLUMNS)?)
}

fn details(globals: &Globals, arguments: &DetailsArguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let text = arguments.which.text();
    let reader = home.reader.as_ref();
    let found = reader.map(|reader| reader.find_asset(text)).transpose()?.flatten();
    let Some((asset, reader)) = found.filter(|asset| asset.definition.is_alias || !arguments.alias).zip(reader) else {
        return Err(unknown(reader, text)?);
    };
    let events = reader.asset_events(asset.key, EVENTS)?;
    let mut fields = record_of(&asset, &reader.asset_references()?, events.last()).fields;
    fields["extra"] = json!(asset.definition.extra);
    fields["stands_for"] = json!(stands_for(reader, asset.key)?);
    fields["events"] = events.iter().map(event_of).collect();
    Ok(output.record(&fields, &DETAILS)?)
}

fn unknown(reader: Option<&Reader>, text: &str) -> Result<Failure, Failure> {
    let known = reader.map(Reader::assets).transpose()?.unwrap_or_default();
    let names = known.iter().map(|asset| asset.definition.name.as_str());
    Ok(Failure::unknown("asset", text, names, "minflow assets list"))
}

/// The names of what an alias has stood for.
fn stands_for(reader: &Reader, alias: AssetKey) -> Result<Vec<String>, Failure> {
    let of_alias = reader.resolved_aliases()?.into_iter().filter(|(key, _)| *key == alias);
    let keys: Vec<AssetKey> = of_alias.map(|(_, asset)| asset).collect();
    let assets = reader.assets()?.into_iter().filter(|asset| keys.contains(&asset.key));
    Ok(assets.map(|asset| asset.definition.name.to_string()).collect())
}

struct Shown {
    fields: Value,
    is_unused: bool,
}

fn record_of(asset: &Asset, references: &[StoredReference], newest: Option<&AssetEvent>) -> Shown {
    let of_role = |role: &str| -> Vec<String> {
        let found = references.iter().filter(|reference| reference.asset == asset.key && reference.role == role);
        let name = |reference: &StoredReference| match reference.task_id.is_empty() {
            true => reference.dag_id.clone(),
            false => format!("{}.{}", reference.dag_id, reference.task_id),
        };
        found.map(name).collect()
    };
    let definition = &asset.definition;
    let kind = match asset.watched_since {
        _ if definition.is_alias => "alias",
        Some(_) => "files",
        None => "asset",
    };
    let fields = json!({
        "name": definition.name,
        "uri": (!definition.is_alias).then_some(&definition.uri),
        "group": definition.group,
        "kind": kind,
        "produced_by": of_role("outlet"),
        "read_by": of_role("inlet"),
        "waited_for_by": of_role("schedule"),
        "last_event_at": newest.map(|event| event.timestamp),
    });
    let is_unused = newest.is_none() && !references.iter().any(|reference| reference.asset == asset.key);
    Shown { fields, is_unused }
}

fn event_of(event: &AssetEvent) -> Value {
    let source = event.source.as_ref();
    json!({
        "asset": event.name,
        "uri": event.uri,
        "timestamp": event.timestamp,
        "extra": event.extra,
        "source_dag_id": source.map(|source| &source.dag_id),
        "source_run_id": source.map(|source| &source.run_id),
        "source_task_id": source.map(|source| &source.task_id),
        "source_map_index": source.map(|source| source.map_index),
    })
}

fn materialize(globals: &Globals, arguments: &MaterializeArguments, output: &mut Output) -> Outcome {
    let conf = arguments.conf.as_deref().map(|text| parse_conf(text, "--conf")).transpose()?.unwrap_or_default();
    let home = Home::open(globals)?;
    let asset = arguments.which.text().to_owned();
    let command = crate::scheduler::Command::Materialize { asset, conf };
    let (dag_id, run_id, is_paused) = match engine::apply(&home, command)? {
        Done::Materialized { dag_id, run_id, is_paused } => (dag_id, run_id, is_paused),
        other => return Err(engine::unexpected(&other)),
    };
    if is_paused {
        eprint(&format!("`{dag_id}` is paused; `minflow dags unpause {dag_id}` lets it start\n"));
    }
    // Opened again: without a running minflow the database may be as new as the run.
    let run = Home::open(globals)?.run(&dag_id, &run_id)?;
    Ok(output.answer(&format!("{dag_id} {run_id}"), &record::run(&run))?)
}
