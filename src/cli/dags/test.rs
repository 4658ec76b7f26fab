//! `minflow dags test`

use clap::Args;
use regex_lite::Regex;

use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Failure, Globals, Outcome, engine};
use crate::clock::{Clock, SystemClock};
use crate::model::{Dag, Operator};
use crate::scheduler::conf;

use super::trigger::parse_conf;

#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is recorded in minflow.db, and no running minflow is needed or disturbed. Nobody is called, and \
    no run of another DAG is made: tasks that ask for one, or wait for one, succeed.\n\n\
    Example:\n  minflow dags test host_report\n  \
    minflow dags test host_report --mark-success-pattern 'send_.*'"
)]
pub struct Arguments {
    dag_id: String,
    /// The logical date of the run [default: now]
    logical_date: Option<String>,
    /// Params of this run, as a JSON object
    #[arg(short, long, value_name = "JSON")]
    conf: Option<String>,
    /// Tasks whose whole id matches this regular expression are not run: they succeed
    #[arg(long, value_name = "REGEX")]
    mark_success_pattern: Option<String>,
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
    let mut dag = Dag::clone(&definition.dag);
    if let Some(pattern) = &arguments.mark_success_pattern {
        mark_success(&mut dag, pattern)?;
    }
    engine::test_dag(&home, dag, &definition.file, logical_date, conf, output)
}

/// Leaves the tasks that match with nothing to run.
fn mark_success(dag: &mut Dag, pattern: &str) -> Result<(), Failure> {
    let invalid = |error| Failure::Usage {
        message: format!("`{pattern}` is no pattern: {error}"),
        help: "write a regular expression, e.g. `load_.*`".to_owned(),
    };
    // By itself too: a pattern must not end the brackets that it is put into.
    Regex::new(pattern).map_err(invalid)?;
    let whole = Regex::new(&format!("^(?:{pattern})$")).map_err(invalid)?;
    let mut matching = dag.tasks.iter_mut().filter(|task| whole.is_match(&task.task_id)).peekable();
    if matching.peek().is_none() {
        let message = format!("no task of `{}` matches `{pattern}` with its whole id", dag.dag_id);
        let help = format!("`minflow tasks list {}` shows all; `.*` stands for any letters", dag.dag_id);
        return Err(Failure::refused(message, help));
    }
    matching.for_each(|task| task.operator = Operator::Empty);
    Ok(())
}
