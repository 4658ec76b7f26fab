//! `minflow backfill create`

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::cli::backfill::{COLUMNS, Stand, dry_run};
use crate::cli::dags::parse_conf;
use crate::cli::failure::eprint;
use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Failure, Globals, Outcome, engine, instants};
use crate::model::Reprocess;
use crate::scheduler::Command;
use crate::scheduler::command::{Done, NewBackfill};

#[derive(Debug, Args)]
#[command(after_help = "Dates without an offset are in the zone of the DAG, and both are inclusive.\n\nExamples:\n  \
    minflow backfill create --dag-id host_report --from-date 2026-11-01 --to-date 2026-11-07 --dry-run\n  \
    minflow backfill create --dag-id host_report --from-date 2026-11-01 --to-date 2026-11-07 --reprocess-behavior failed")]
pub struct Arguments {
    #[arg(long)]
    dag_id: String,
    /// The earliest logical date
    #[arg(long, value_name = "DATE")]
    from_date: String,
    /// The latest logical date
    #[arg(long, value_name = "DATE")]
    to_date: String,
    /// Which runs that exist already are done over again
    #[arg(long, value_enum, default_value_t)]
    reprocess_behavior: Behavior,
    /// The newest date first
    #[arg(long)]
    run_backwards: bool,
    /// How many runs at once; they do not count against the DAG's own max_active_runs
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_active_runs: u32,
    /// Params of the runs, as a JSON object
    #[arg(long, value_name = "JSON")]
    dag_run_conf: Option<String>,
    /// Show what would be done for each date, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Behavior {
    /// None: only dates without a run get one
    #[default]
    None,
    /// Failed ones too
    Failed,
    /// All that have ended
    Completed,
}

pub fn run(globals: &Globals, arguments: Arguments, output: &mut Output) -> Outcome {
    let conf = arguments.dag_run_conf.as_deref().map(|text| parse_conf(text, "--dag-run-conf")).transpose()?;
    let home = Home::open(globals)?;
    let definition = home.definition(&arguments.dag_id)?;
    let zone = &definition.dag.timezone;
    let asked = NewBackfill {
        dag_id: arguments.dag_id.as_str().into(),
        from_date: instant(&arguments.from_date, zone)?,
        to_date: instant(&arguments.to_date, zone)?,
        reprocess: match arguments.reprocess_behavior {
            Behavior::None => Reprocess::None,
            Behavior::Failed => Reprocess::Failed,
            Behavior::Completed => Reprocess::Completed,
        },
        is_backwards: arguments.run_backwards,
        max_active_runs: arguments.max_active_runs,
        conf,
    };
    if arguments.dry_run {
        return dry_run::show(&home, &definition, &asked, output);
    }
    let Done::BackfillCreated { id, runs, skipped, is_paused } = engine::apply(&home, Command::CreateBackfill(asked))?
    else {
        return Err(Failure::refused("minflow answered with something else", "use the same version on both sides"));
    };
    if skipped > 0 {
        let dates = if skipped == 1 { "date has" } else { "dates have" };
        eprint(&format!("{skipped} {dates} a run already; `minflow backfill show {id} --dates` shows them\n"));
    }
    if is_paused {
        let dag_id = &arguments.dag_id;
        eprint(&format!("`{dag_id}` is paused; `minflow dags unpause {dag_id}` lets the runs start\n"));
    }
    let (runs_are, them) = if runs == 1 { ("run is", "it") } else { ("runs are", "them") };
    let next = match engine::expect_running(&home) {
        Ok(()) => format!("`minflow backfill wait {id}` waits for {them}"),
        Err(_) => format!("no minflow is running: `minflow run` starts {them}"),
    };
    eprint(&format!("{runs} {runs_are} queued; {next}\n"));
    // Opened again: without a running minflow the database may be as new as the backfill.
    let record = Stand::find(&Home::open(globals)?, id)?.record();
    Ok(output.record(&record, &COLUMNS)?)
}

fn instant(text: &str, zone: &TimeZone) -> Result<Timestamp, Failure> {
    instants::parse(text, zone).ok_or_else(|| instants::no_instant(text))
}
