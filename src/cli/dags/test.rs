//! `minflow dags test`

use clap::Args;

use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Failure, Globals, Outcome, engine};
use crate::clock::{Clock, SystemClock};
use crate::scheduler::conf;

use super::trigger::parse_conf;

#[derive(Debug, Args)]
#[command(after_help = "Nothing is recorded in minflow.db, and no running minflow is needed or disturbed.\n\n\
    Example:\n  minflow dags test host_report")]
pub struct Arguments {
    dag_id: String,
    /// The logical date of the run [default: now]
    logical_date: Option<String>,
    /// Params of this run, as a JSON object
    #[arg(short, long, value_name = "JSON")]
    conf: Option<String>,
}

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let conf = arguments.conf.as_deref().map(|text| parse_conf(text, "--conf")).transpose()?.unwrap_or_default();
    let home = Home::open(globals)?;
    let logical_date = match &arguments.logical_date {
        Some(text) => home.instant(text)?,
        None => SystemClock.now(),
    };
    if logical_date > SystemClock.now() {
        let message = "the logical date lies ahead, and such a run waits for it".to_owned();
        return Err(Failure::Usage { message, help: "give a date that has passed".to_owned() });
    }
    let definition = home.definition(&arguments.dag_id)?;
    conf::check(&definition.dag, &conf, home.config.core.dag_run_conf_overrides_params.into())?;
    engine::test_dag(&home, &definition, logical_date, conf, output)
}
