//! Stored facts as the records that commands show (CONTRACTS 9), and how tables show them.

use serde::Serialize;
use serde_json::Value;

use crate::api::json;
use crate::cli::output::Column;
use crate::diagnostic::Diagnostic;
use crate::model::{DagId, DagRun, Instance, RunId};

/// A run as `dags list-runs` and `dags trigger` show it.
pub const RUN_COLUMNS: [Column; 8] = [
    Column::text("dag_id"),
    Column::text("run_id"),
    Column::state("state"),
    Column::time("run_after"),
    Column::time("logical_date"),
    Column::time("start_date"),
    Column::time("end_date"),
    Column::span("lag"),
];

pub fn run(run: &DagRun) -> Value {
    to_value(&json::Run::from(run))
}

pub fn instance(dag_id: &DagId, run_id: &RunId, instance: &Instance) -> Value {
    to_value(&json::TaskInstance::new(dag_id, run_id, instance))
}

/// A record with what users have noted of it; null where they have not.
pub fn with_note(mut record: Value, note: Option<String>) -> Value {
    record["note"] = note.into();
    record
}

/// A record of a task instance with the instant since which it is paused; null if it is not.
pub fn with_pause(mut record: Value, paused_at: Option<&jiff::Timestamp>) -> Value {
    record["paused_at"] = paused_at.map_or(Value::Null, |&at| to_value(&json::Instant(at)));
    record
}

/// How a try that did not succeed came to its end, in one line; None if nothing more is known than its state.
pub fn ending(instance: &Instance) -> Option<String> {
    let reason = instance.reason.as_ref().map(|reason| reason.lines().next().unwrap_or_default().to_owned());
    let code = instance.exit_code.filter(|code| *code != 0).map(|code| format!("exit code {code}"));
    reason.or(code).or_else(|| instance.signal.map(|signal| format!("signal {signal}")))
}

/// A fault found just now, in the shape of an import error.
pub fn fault(fault: &Diagnostic, now: jiff::Timestamp) -> Value {
    to_value(&json::ImportError {
        filename: fault.path.display().to_string(),
        line: fault.line,
        column: fault.column,
        code: fault.code.to_owned(),
        message: fault.message.clone(),
        help: fault.help.clone(),
        timestamp: json::Instant(now),
    })
}

pub fn to_value(record: &impl Serialize) -> Value {
    serde_json::to_value(record).expect("records have text keys and finite numbers")
}
