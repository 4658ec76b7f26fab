//! `minflow run`

use clap::Args;

use crate::cli::{Globals, Outcome, engine, settings};
use crate::config::Flag;

#[derive(Debug, Args)]
#[command(
    after_help = "Ctrl-C or SIGTERM stops it: nothing new is started, and what runs has `scheduler.drain_timeout` to finish; \
    what then still runs is left running, and the next start takes it over. A second one ends it at once. SIGHUP has airflow.toml read again.\n\nExample:\n  minflow --home my-home run"
)]
pub struct Arguments {
    /// The address to listen on, a loopback one
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// The port to listen on; 0 takes any free one
    #[arg(short, long, value_name = "PORT")]
    port: Option<String>,
}

pub fn run(globals: &Globals, arguments: &Arguments) -> Outcome {
    engine::begin();
    let flag = |name: &str, value: &Option<String>| {
        value.as_ref().map(|value| Flag {
            flag: format!("--{name}"),
            section: "api".to_owned(),
            key: name.to_owned(),
            value: value.clone(),
        })
    };
    let flags = [flag("host", &arguments.host), flag("port", &arguments.port)].into_iter().flatten().collect();
    engine::run(settings::inputs(globals, settings::home(globals)?, flags))
}
