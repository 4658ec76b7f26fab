//! `minflow explain`, and what `tasks failed-deps` shares with it.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::api::json;
use crate::cli::home::Home;
use crate::cli::output::{Format, Output, local_time};
use crate::cli::{Failure, Globals, Outcome, engine, record};
use crate::model::{DagId, DagRun, TaskId};
use crate::scheduler::Command;
use crate::scheduler::command::Done;
use crate::scheduler::explain::{ExplainedTask, Explanation, TaskFinding};
use crate::store::{Reader, USUAL_RUNS};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  minflow explain etl 2026-11-21           why the run and its tasks are where they are\n  \
    minflow explain etl 2026-11-21 load      the same of one task\n\n\
    Without a task all but those that have succeeded are shown."
)]
pub struct Arguments {
    dag_id: String,
    /// The run: its run_id or its logical date
    logical_date_or_run_id: String,
    /// Only this task
    task_id: Option<String>,
    /// Of a mapped task, the instance
    #[arg(long, value_name = "N", requires = "task_id")]
    map_index: Option<i32>,
}

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let run = home.run(&arguments.dag_id, &arguments.logical_date_or_run_id)?;
    let task = arguments.task_id.as_deref().map(|task_id| (task_id, arguments.map_index));
    let explanation = ask(&home, &run, task)?;
    if matches!(output.format, Format::Json | Format::Yaml) {
        return Ok(output.record(&record::to_value(&json::Explanation::from(&explanation)), &[])?);
    }
    Ok(tell(&explanation, arguments.task_id.is_some(), output)?)
}

/// Has the scheduler explain a run, or one task of it, and works out when things usually end.
///
/// # Errors
/// The run, the task or the map index is unknown, or minflow cannot be reached.
pub fn ask(home: &Home, run: &DagRun, task: Option<(&str, Option<i32>)>) -> Result<Explanation, Failure> {
    let task = task.map(|(task_id, map_index)| ExplainedTask { task_id: task_id.into(), map_index });
    let command = Command::Explain { dag_id: run.dag_id.clone(), run_id: run.run_id.clone(), task };
    let mut explanation = match engine::apply(home, command)? {
        Done::Explained(explanation) => *explanation,
        other => return Err(engine::unexpected(&other)),
    };
    explanation.say_not_running();
    if let Some(reader) = &home.reader {
        let mut known = Known::default();
        explanation.expect(&mut |dag_id, task_id| known.usual(reader, dag_id, task_id), Timestamp::now());
    }
    Ok(explanation)
}

/// What was asked of the database already.
#[derive(Default)]
struct Known {
    tasks: BTreeMap<DagId, BTreeMap<TaskId, Duration>>,
    runs: BTreeMap<DagId, Option<Duration>>,
}

impl Known {
    /// What cannot be read is not known: the rest of the answer stands without it.
    fn usual(&mut self, reader: &Reader, dag_id: &DagId, task_id: Option<&TaskId>) -> Option<Duration> {
        let Some(task_id) = task_id else {
            let ask = || reader.usual_run_duration(dag_id, USUAL_RUNS).ok().flatten();
            return *self.runs.entry(dag_id.clone()).or_insert_with(ask);
        };
        let ask = || reader.usual_durations(dag_id, USUAL_RUNS).unwrap_or_default();
        self.tasks.entry(dag_id.clone()).or_insert_with(ask).get(task_id).copied()
    }
}

fn tell(explanation: &Explanation, is_one_task: bool, output: &mut Output) -> std::io::Result<()> {
    let (now, zone) = (Timestamp::now(), TimeZone::system());
    let Explanation { dag_id, run_id, state, run, .. } = explanation;
    if !is_one_task || run.gate.is_some() {
        let since = run.since.map(|since| format!(" since {}", local_time(since, &zone))).unwrap_or_default();
        writeln!(output, "{dag_id} {run_id}: {state}{since}\n    {}", run.line(now, &zone))?;
    }
    for task in &explanation.tasks {
        let since = task.finding.since.map(|since| format!(" since {}", local_time(since, &zone))).unwrap_or_default();
        // What keeps the run keeps all of it, and is said above.
        let is_said = task.finding.gate.is_some() && task.finding.message == run.message;
        let line = if is_said { "as its run".to_owned() } else { task.finding.line(now, &zone) };
        writeln!(output, "{}: {}{since}\n    {line}", name(task), task.state)?;
    }
    if explanation.omitted > 0 {
        writeln!(output, "and {} more; name a task to see its instances", explanation.omitted)?;
    }
    Ok(())
}

fn name(task: &TaskFinding) -> String {
    if task.map_index < 0 { task.task_id.to_string() } else { format!("{}[{}]", task.task_id, task.map_index) }
}
