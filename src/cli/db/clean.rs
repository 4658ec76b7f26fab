//! `minflow db clean`

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::api::json::Instant;
use crate::cli::failure::eprint;
use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Failure, Globals, Outcome, acts, engine};
use crate::keep::Places;
use crate::model::DagId;
use crate::scheduler::change::RetiredRun;
use crate::store::{Disposable, Disposal, Reader, Unreadable};

#[derive(Debug, Args)]
#[command(
    after_help = "Finished runs that ended before the time go as a whole: their task instances, tries, XComs, callbacks, logs and run_dirs. What a later \
    run may ask for stays: the newest run of each DAG, the newest successful one, and the one before a run that is not over. The rows are first \
    copied to the archive, which `minflow db export --archive` reads; logs and files are not. Without a time, what `[retention]` says is done.\n\n\
    Examples:\n  minflow db clean --clean-before-timestamp 2026-01-01 --dry-run\n  minflow db clean --clean-before-timestamp 2026-01-01 --yes"
)]
pub struct Arguments {
    /// What ended before goes
    #[arg(long, value_name = "TIME")]
    clean_before_timestamp: Option<String>,
    /// Only these, of dag_run (with all that belongs to runs) and log (the audit log)
    #[arg(short, long, value_name = "TABLES", value_delimiter = ',')]
    tables: Vec<String>,
    /// Only runs of these DAGs
    #[arg(long, value_name = "DAG_IDS", value_delimiter = ',')]
    dag_ids: Vec<String>,
    /// No runs of these DAGs
    #[arg(long, value_name = "DAG_IDS", value_delimiter = ',', conflicts_with = "dag_ids")]
    exclude_dag_ids: Vec<String>,
    /// Only list what would go
    #[arg(long)]
    dry_run: bool,
    /// Copy nothing to the archive
    #[arg(long)]
    skip_archive: bool,
    /// The archive [default: archive.db in the home]
    #[arg(long, value_name = "FILE", conflicts_with = "skip_archive")]
    archive: Option<PathBuf>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

const COLUMNS: [Column; 4] =
    [Column::text("dag_id"), Column::text("run_id"), Column::time("end_date"), Column::text("task_instances")];

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    if let Some(table) = arguments.tables.iter().find(|table| !["dag_run", "log"].contains(&table.as_str())) {
        let parts = ["task_instance", "task_instance_history", "xcom", "callback", "deadline", "task_map"];
        let help = if parts.contains(&table.as_str()) {
            "its rows go with their runs: name dag_run"
        } else {
            "name dag_run, log or both"
        };
        return Err(Failure::Usage {
            message: format!("`{table}` is no table that is cleaned"),
            help: help.to_owned(),
        });
    }
    let Some(reader) = &home.reader else {
        return Err(Failure::refused("there is no database yet", "start minflow there once with `minflow run`"));
    };
    for dag_id in arguments.dag_ids.iter().chain(&arguments.exclude_dag_ids) {
        home.expect_dag(dag_id)?;
    }
    let before = arguments.clean_before_timestamp.as_deref().map(|text| home.instant(text)).transpose()?;
    let wants = |table: &str| arguments.tables.is_empty() || arguments.tables.iter().any(|wanted| wanted == table);
    let places = Places::of(&home.config);
    let now = jiff::Timestamp::now();
    let Disposable { mut runs, unreadable } = match before {
        _ if !wants("dag_run") => Disposable::default(),
        Some(_) => {
            let mut all = Disposable::default();
            for dag_id in reader.dag_ids()? {
                let what = Disposal { before, limit: usize::MAX, ..Disposal::default() };
                let found = reader.disposable(&dag_id, &what)?;
                all.runs.extend(found.runs);
                all.unreadable.extend(found.unreadable);
            }
            all
        }
        None if home.config.retention.is_off() => {
            return Err(Failure::Usage {
                message: "neither --clean-before-timestamp nor [retention] says what is to go".to_owned(),
                help: "add for example --clean-before-timestamp 2026-01-01".to_owned(),
            });
        }
        None => crate::keep::plan(reader, &home.config.retention, &places, now)?,
    };
    let is_named = |list: &[String], dag_id: &DagId| list.iter().any(|named| **named == **dag_id);
    let is_meant = |dag_id: &DagId| {
        (arguments.dag_ids.is_empty() || is_named(&arguments.dag_ids, dag_id))
            && !is_named(&arguments.exclude_dag_ids, dag_id)
    };
    runs.retain(|run| is_meant(&run.dag_id));
    for Unreadable { dag_id, error, .. } in unreadable.iter().filter(|run| is_meant(&run.dag_id)) {
        eprint(&format!("a run of `{dag_id}` stays: failed to {error}\nhelp: {}\n", error.help));
    }
    let audit = before.or_else(|| home.config.retention.max_audit_age.and_then(|age| now.checked_sub(age).ok()));
    let audit = match audit.filter(|_| wants("log") && arguments.dag_ids.is_empty()) {
        Some(before) => reader.audit_before(before)?,
        None => (0, 0),
    };
    if arguments.dry_run {
        show(reader, &runs, audit.0, output)?;
        return Ok(());
    }
    let counted = format!("{} runs and {} entries of the audit log", runs.len(), audit.0);
    if runs.is_empty() && audit.0 == 0 {
        eprint("nothing is to go\n");
        return report(output, 0, 0, None);
    }
    if !arguments.yes
        && !acts::is_confirmed(
            &format!("{counted} would go. Go on? [y/N] "),
            "--yes does it without a question, --dry-run lists what would go",
        )?
    {
        return Ok(());
    }
    let archive = (!arguments.skip_archive)
        .then(|| arguments.archive.clone().unwrap_or_else(|| home.config.home.join("archive.db")));
    let asked = json!({"before": before.map(Instant), "runs": runs.len(), "audit": audit.0, "archive": archive});
    let gone = engine::clean(&home, &runs, audit, archive.as_deref(), asked)?;
    report(output, gone, audit.0, archive)
}

fn show(reader: &Reader, runs: &[RetiredRun], audit: u64, output: &mut Output) -> Outcome {
    let mut records = Vec::new();
    for run in runs {
        let instances = reader.count_instances(run.key)?;
        records.push(json!({"dag_id": run.dag_id, "run_id": run.run_id, "end_date": Instant(run.end_date), "task_instances": instances}));
    }
    output.list(&records, &COLUMNS)?;
    eprint(&format!("{} runs and {audit} entries of the audit log would go\n", runs.len()));
    Ok(())
}

fn report(output: &mut Output, runs: usize, audit: u64, archive: Option<PathBuf>) -> Outcome {
    let archive = archive.map(|archive| archive.display().to_string());
    let kept = archive.as_ref().map_or_else(String::new, |archive| format!("; `{archive}` has their rows"));
    let text = format!("{runs} runs and {audit} entries of the audit log have gone{kept}");
    let record = json!({"runs": runs, "audit": audit, "archive": archive.map_or(Value::Null, Value::String)});
    Ok(output.answer(&text, &record)?)
}
