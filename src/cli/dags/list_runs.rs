//! `minflow dags list-runs`

use clap::Args;

use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Failure, Globals, Outcome, record};
use crate::diagnostic::did_you_mean;
use crate::model::{DagRun, RunState};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  minflow dags list-runs host_report --state failed --start-date 2026-11-01 -o json")]
pub struct Arguments {
    dag_id: String,
    /// Only runs in this state: queued, running, success or failed
    #[arg(long)]
    state: Option<String>,
    /// Only runs whose logical date is this or later
    #[arg(short, long, value_name = "DATE")]
    start_date: Option<String>,
    /// Only runs whose logical date is this or earlier
    #[arg(short, long, value_name = "DATE")]
    end_date: Option<String>,
}

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let state = arguments.state.as_deref().map(parse_state).transpose()?;
    let home = Home::open(globals)?;
    let start = arguments.start_date.as_deref().map(|text| home.instant(text)).transpose()?;
    let end = arguments.end_date.as_deref().map(|text| home.instant(text)).transpose()?;
    let runs: Vec<DagRun> = home
        .runs(&arguments.dag_id)?
        .into_iter()
        .filter(|run| state.is_none_or(|state| run.state == state))
        .filter(|run| start.is_none_or(|start| run.logical_date.is_some_and(|date| date >= start)))
        .filter(|run| end.is_none_or(|end| run.logical_date.is_some_and(|date| date <= end)))
        .collect();
    Ok(output.list(&home.run_records(&arguments.dag_id, &runs)?, &record::RUN_COLUMNS)?)
}

fn parse_state(text: &str) -> Result<RunState, Failure> {
    text.parse().map_err(|_| {
        let all: Vec<&str> = RunState::ALL.iter().map(|state| state.as_str()).collect();
        let help = match did_you_mean(text, all.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("a run is {}", all.join(", ")),
        };
        Failure::Usage { message: format!("unknown state `{text}`"), help }
    })
}
