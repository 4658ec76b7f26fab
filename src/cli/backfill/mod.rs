//! `minflow backfill …`: runs for past dates, and what they have come to.

mod create;
mod dry_run;
mod list;
mod show;
mod steer;
mod wait;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::api::json::Instant;
use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Failure, Globals, Outcome};
use crate::model::{Backfill, BackfillId};
use crate::store::{BackfillCounts, Reader};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make runs for a range of past dates
    Create(create::Arguments),
    /// List backfills, oldest first
    List(list::Arguments),
    /// Show a backfill, or what has become of each of its dates
    Show(show::Arguments),
    /// Start no further run of a backfill; what runs goes on
    Pause(OneBackfill),
    /// Start runs of a backfill again
    Unpause(OneBackfill),
    /// End a backfill: its queued runs fail, what runs goes on
    Cancel(OneBackfill),
    /// Wait for the end of a backfill: exit 0 if all its runs succeeded, 1 if not
    Wait(OneBackfill),
}

/// The backfill that a command is about.
#[derive(Debug, Args)]
pub struct OneBackfill {
    /// Its number, as `minflow backfill list` shows it
    #[arg(value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    backfill_id: i64,
}

impl OneBackfill {
    fn id(&self) -> BackfillId {
        BackfillId(self.backfill_id)
    }
}

pub fn run(globals: &Globals, command: Command, output: &mut Output) -> Outcome {
    match command {
        Command::Create(arguments) => create::run(globals, arguments, output),
        Command::List(arguments) => list::run(globals, &arguments, output),
        Command::Show(arguments) => show::run(globals, &arguments, output),
        Command::Pause(which) => steer::set_paused(globals, &which, true, output),
        Command::Unpause(which) => steer::set_paused(globals, &which, false, output),
        Command::Cancel(which) => steer::cancel(globals, &which, output),
        Command::Wait(which) => wait::run(globals, &which, output),
    }
}

const COLUMNS: [Column; 15] = [
    Column::text("id"),
    Column::text("dag_id"),
    Column::state("state"),
    Column::time("from_date"),
    Column::time("to_date"),
    Column::text("reprocess_behavior"),
    Column::text("run_backwards"),
    Column::text("max_active_runs"),
    Column::text("dates"),
    Column::text("skipped"),
    Column::text("queued"),
    Column::text("running"),
    Column::text("success"),
    Column::text("failed"),
    Column::time("completed_at"),
];

/// A backfill and its counts.
struct Stand {
    backfill: Backfill,
    counts: BackfillCounts,
}

impl Stand {
    fn read(reader: &Reader, backfill: Backfill) -> Result<Self, Failure> {
        let counts = reader.backfill_counts(backfill.id)?;
        Ok(Self { backfill, counts })
    }

    /// # Errors
    /// There is no such backfill.
    fn find(home: &Home, id: BackfillId) -> Result<Self, Failure> {
        let unknown =
            || Failure::refused(format!("no backfill {id}"), "`minflow backfill list` shows all of them".to_owned());
        let reader = home.reader.as_ref().ok_or_else(unknown)?;
        // One look, so that the counts fit the row.
        let found = reader.at_one_moment(|reader| {
            let Some(backfill) = reader.backfill(id)? else { return Ok(None) };
            Ok(Some(Self { counts: reader.backfill_counts(id)?, backfill }))
        })?;
        found.ok_or_else(unknown)
    }

    /// In one word: `running`, `paused`, `cancelled`, `success`, or `failed` if any of its runs did.
    fn state(&self) -> &'static str {
        match &self.backfill {
            backfill if backfill.is_cancelled => "cancelled",
            backfill if backfill.completed_at.is_none() && backfill.is_paused => "paused",
            backfill if backfill.completed_at.is_none() => "running",
            _ if self.counts.failed > 0 => "failed",
            _ => "success",
        }
    }

    fn record(&self) -> Value {
        let (backfill, counts) = (&self.backfill, &self.counts);
        json!({
            "id": backfill.id,
            "dag_id": backfill.dag_id,
            "state": self.state(),
            "from_date": Instant(backfill.from_date),
            "to_date": Instant(backfill.to_date),
            "reprocess_behavior": backfill.reprocess,
            "run_backwards": backfill.is_backwards,
            "max_active_runs": backfill.max_active_runs,
            "dag_run_conf": backfill.conf,
            "is_paused": backfill.is_paused,
            "created_at": Instant(backfill.created_at),
            "completed_at": backfill.completed_at.map(Instant),
            "dates": counts.dates,
            "skipped": counts.skipped,
            "queued": counts.queued,
            "running": counts.running,
            "success": counts.success,
            "failed": counts.failed,
        })
    }
}
