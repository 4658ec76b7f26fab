//! `minflow dags trigger`

use std::io::Write;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use crate::cli::failure::eprint;
use crate::cli::home::Home;
use crate::cli::output::{Output, local_time};
use crate::cli::{Failure, Globals, Outcome, engine, record};
use crate::model::instance::reason_in_words;
use crate::model::{DagRun, TaskState};
use crate::scheduler::Command;
use crate::scheduler::command::{Done, LogicalDate, Trigger};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  minflow dags trigger host_report --wait\n  \
    minflow dags trigger backup --conf '{\"keep\": 3}'\n  \
    minflow dags trigger time_zones --logical-date 2026-11-21")]
pub struct Arguments {
    dag_id: String,
    /// The run_id to give [default: manual__ and the moment]
    #[arg(short, long)]
    run_id: Option<String>,
    /// The logical date of the run, or `none` [default: the moment]
    #[arg(short, long, value_name = "DATE")]
    logical_date: Option<String>,
    /// Params of this run, as a JSON object
    #[arg(short, long, value_name = "JSON")]
    conf: Option<String>,
    /// Wait for the run to end: exit 0 if it succeeded, 1 if it failed
    #[arg(long)]
    wait: bool,
    /// Unpause the DAG as well
    #[arg(long)]
    unpause: bool,
}

pub fn run(globals: &Globals, arguments: Arguments, output: &mut Output) -> Outcome {
    let conf = arguments.conf.as_deref().map(|text| parse_conf(text, "--conf")).transpose()?.unwrap_or_default();
    let home = Home::open(globals)?;
    let logical_date = match arguments.logical_date.as_deref() {
        None => LogicalDate::RunAfter,
        Some("none") => LogicalDate::None,
        Some(text) => LogicalDate::At(home.instant(text)?),
    };
    home.expect_dag(&arguments.dag_id)?;
    let starts_at = match logical_date {
        LogicalDate::At(date) if date > Timestamp::now() => Some(date),
        _ => None,
    };
    let trigger = Trigger {
        dag_id: arguments.dag_id.as_str().into(),
        run_id: arguments.run_id.map(Into::into),
        logical_date,
        data_interval: None,
        conf,
        unpause: arguments.unpause,
    };
    let command = Command::Trigger(trigger);
    let done = if arguments.wait { engine::apply_running(&home, command)? } else { engine::apply(&home, command)? };
    let Done::Triggered { run_id, is_paused } = done else {
        return Err(Failure::refused("minflow answered with something else", "use the same version on both sides"));
    };
    if is_paused {
        let unpause = format!("`minflow dags unpause {}` lets it start", arguments.dag_id);
        if arguments.wait {
            let message = format!("run `{run_id}` waits: `{}` is paused", arguments.dag_id);
            return Err(Failure::refused(message, format!("{unpause}; --unpause does both")));
        }
        eprint(&format!("`{}` is paused; {unpause}\n", arguments.dag_id));
    }
    if let Some(date) = starts_at {
        let date = local_time(date, &TimeZone::system());
        eprint(&format!("its logical date lies ahead: its tasks start at {date}\n"));
    }
    if !arguments.wait {
        // Opened again: without a running minflow the database may be as new as the run.
        let run = Home::open(globals)?.run(&arguments.dag_id, &run_id)?;
        return Ok(output.answer(&run_id, &record::run(&run))?);
    }
    eprint(&format!("{run_id}\n"));
    let state = engine::await_run(&home, &arguments.dag_id, &run_id)?;
    let run = home.run(&arguments.dag_id, &run_id)?;
    output.answer(&state, &record::run(&run))?;
    if state == "success" {
        return Ok(());
    }
    output.flush()?;
    tell_failures(&home, &run)?;
    Err(Failure::Told)
}

/// Which tasks a run failed by, and where to read why.
fn tell_failures(home: &Home, run: &DagRun) -> Outcome {
    if let Some(reason) = run.reason.as_deref().filter(|reason| *reason != "task_failure") {
        match reason {
            "timed_out" => eprint("the run took longer than its dagrun_timeout, and was ended\n"),
            reason => eprint(&format!("the run failed: {reason}\n")),
        }
    }
    for instance in home.instances(run)?.iter().filter(|instance| instance.state == TaskState::Failed) {
        let ending = record::ending(instance);
        let words = ending.as_deref().and_then(reason_in_words);
        let why = words.or(ending.map(|why| format!("failed: {why}"))).unwrap_or_else(|| "failed".to_owned());
        let log = format!("minflow tasks logs {} {} {}", run.dag_id, instance.task_id, run.run_id);
        eprint(&format!("`{}` {why}\n  {log}\n", instance.task_id));
    }
    Ok(())
}

/// The JSON object that `option` gives.
pub fn parse_conf(text: &str, option: &str) -> Result<Map<String, Value>, Failure> {
    let help = format!("write an object, e.g. {option} '{{\"region\": \"eu\"}}'");
    match serde_json::from_str(text) {
        Ok(Value::Object(conf)) => Ok(conf),
        Ok(_) => Err(Failure::Usage { message: format!("{option} is JSON, but no object"), help }),
        Err(error) => Err(Failure::Usage { message: format!("{option} is not JSON: {error}"), help }),
    }
}
