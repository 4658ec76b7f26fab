//! `minflow backfill create --dry-run`: the scheduler's own rules, on the database as it is.

use serde_json::{Map, Value, json};

use crate::api::json::Instant;
use crate::cli::home::{Definition, Home};
use crate::cli::output::{Column, Output};
use crate::cli::{Failure, Outcome};
use crate::clock::{Clock, SystemClock};
use crate::model::{NextRun, SkipReason};
use crate::scheduler::backfill::{self, Fate};
use crate::scheduler::command::NewBackfill;
use crate::scheduler::conf;
use crate::store::Reader;
use crate::timetable::Timetable;

const COLUMNS: [Column; 4] =
    [Column::time("logical_date"), Column::text("action"), Column::text("run_id"), Column::text("reason")];

/// Shows each date with what `create` would do for it: `create`, `clear` or `skip`.
///
/// # Errors
/// `create` would be refused.
pub fn show(home: &Home, definition: &Definition, asked: &NewBackfill, output: &mut Output) -> Outcome {
    let dag = &definition.dag;
    if let Some(reader) = &home.reader
        && let Some(other) = reader.backfills(Some(&dag.dag_id))?.iter().find(|other| other.completed_at.is_none())
    {
        let id = other.id;
        let help =
            format!("wait for it with `minflow backfill wait {id}`, or end it with `minflow backfill cancel {id}`");
        return Err(Failure::refused(format!("backfill {id} of `{}` is not completed", dag.dag_id), help));
    }
    let overrides = home.config.core.dag_run_conf_overrides_params.into();
    conf::check(dag, asked.conf.as_ref().unwrap_or(&Map::new()), overrides)?;
    let timetable = Timetable::of(dag).map_err(|error| {
        Failure::refused(format!("the schedule of `{}`: {}", dag.dag_id, error.message), error.help)
    })?;
    let mut records = Vec::new();
    for date in backfill::plan(dag, &timetable, asked, SystemClock.now())? {
        records.push(record(home.reader.as_ref(), asked, &date)?);
    }
    Ok(output.list(&records, &COLUMNS)?)
}

fn record(reader: Option<&Reader>, asked: &NewBackfill, date: &NextRun) -> Result<Value, Failure> {
    let run_id = backfill::run_id(date);
    let (existing, namesake) = match reader {
        Some(reader) => {
            (reader.run_by_logical_date(&asked.dag_id, date.logical_date)?, reader.run(&asked.dag_id, &run_id)?)
        }
        None => (None, None),
    };
    let fate = match backfill::fate_of(existing.as_ref(), asked.reprocess) {
        Fate::Create if namesake.is_some() => Fate::Skip(SkipReason::AlreadyExists),
        fate => fate,
    };
    let (action, reason) = match fate {
        Fate::Create => ("create", None),
        Fate::Clear => ("clear", None),
        Fate::Skip(reason) => ("skip", Some(reason)),
    };
    Ok(json!({
        "logical_date": Instant(date.logical_date),
        "action": action,
        "run_id": existing.or(namesake).map_or(run_id, |run| run.run_id),
        "reason": reason,
        "run_after": Instant(date.run_after),
        "data_interval_start": Instant(date.data_interval.start),
        "data_interval_end": Instant(date.data_interval.end),
    }))
}
