//! `minflow du`

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Failure, Globals, Outcome};
use crate::keep::folders::bytes_below;
use crate::keep::{self, Places, venvs};
use crate::store;

#[derive(Debug, Args)]
#[command(after_help = "Bytes are those that the disk gives. Examples:\n  minflow du\n  minflow du -o json")]
pub struct Arguments {}

const COLUMNS: [Column; 6] = [
    Column::text("name"),
    Column::bytes("logs"),
    Column::bytes("run_dirs"),
    Column::bytes("xcoms"),
    Column::bytes("total"),
    Column::text("note"),
];

/// The parts of the home, then the DAGs, the largest first.
pub fn run(globals: &Globals, _arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let (database, places) = (&home.config.database.path, Places::of(&home.config));
    let size = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
    let free = home.reader.as_ref().and_then(|_| store::pages(database).ok());
    let note = free.filter(|pages| pages.free > 0).map(|pages| {
        format!(
            "{} of it in pages that hold nothing: new rows come there, or `minflow db vacuum` gives them back",
            pages.free * pages.size
        )
    });
    let part = |name: &str, total: u64, note: Option<String>| json!({"name": name, "dag_id": null, "logs": null, "run_dirs": null, "xcoms": null, "total": total, "note": note});
    let backups: u64 = store::migration_backups(database)
        .iter()
        .filter_map(|path| path.metadata().ok())
        .map(|found| found.len())
        .sum();
    let mut records = vec![
        part("(database)", size(database), note),
        part("(write-ahead log)", store::log_bytes(database), None),
        part("(backups)", backups + bytes_below(&home.config.home.join("backups")), None),
        part("(archive)", size(&home.config.home.join("archive.db")), None),
        part("(venvs)", bytes_below(&places.venvs), unused_venvs(&home, &places)?),
    ];
    let mut dag_ids: BTreeMap<String, &str> = BTreeMap::new();
    if let Some(reader) = &home.reader {
        dag_ids.extend(reader.dags()?.into_iter().map(|listing| {
            (listing.dag.dag_id.to_string(), if listing.dag.is_active { "" } else { "its file is gone" })
        }));
    }
    for (folder, head) in [(&places.logs, "dag_id="), (&places.runs, ""), (&places.xcoms, "")] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(dag_id) = name.strip_prefix(head) {
                dag_ids.entry(dag_id.to_owned()).or_insert("no such DAG is known");
            }
        }
    }
    let mut dags: Vec<Value> = dag_ids
        .into_iter()
        .map(|(dag_id, note)| {
            let [logs, run_dirs, xcoms] = places.of_dag(&dag_id).map(|folder| bytes_below(&folder));
            let note = Some(note).filter(|note| !note.is_empty());
            json!({"name": dag_id, "dag_id": dag_id, "logs": logs, "run_dirs": run_dirs, "xcoms": xcoms, "total": logs + run_dirs + xcoms, "note": note})
        })
        .collect();
    dags.sort_by_key(|dag| std::cmp::Reverse(dag["total"].as_u64()));
    records.extend(dags);
    let total: u64 = records.iter().filter_map(|record| record["total"].as_u64()).sum();
    records.push(part("(all)", total, None));
    Ok(output.list(&records, &COLUMNS)?)
}

/// How many of the virtual environments are to go.
fn unused_venvs(home: &Home, places: &Places) -> Result<Option<String>, Failure> {
    let age = home.config.retention.max_venv_age;
    let before = age.and_then(|age| SystemTime::now().checked_sub(age));
    let (Some(reader), Some(before), all) = (&home.reader, before, venvs::list(&places.venvs)) else { return Ok(None) };
    if all.is_empty() {
        return Ok(None);
    }
    let unused = venvs::superfluous(&all, &keep::loaded_dags(reader)?, before);
    let bytes: u64 = unused.iter().map(|venv| bytes_below(&venv.path)).sum();
    Ok(Some(match unused.len() {
        0 => format!("{} of them", all.len()),
        count => format!(
            "{} of them; {count} with {bytes} bytes are not used any longer, and minflow removes them",
            all.len()
        ),
    }))
}
