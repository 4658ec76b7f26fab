//! `minflow stop`

use clap::Args;

use crate::cli::{Globals, Outcome, engine, settings};
use crate::scheduler::command::Stop;
use crate::store::Reader;

/// How many are named.
const SHOWN: usize = 20;

#[derive(Debug, Args)]
#[command(
    after_help = "Nothing new is started from then on. What still runs has `scheduler.drain_timeout` to finish, as after a SIGTERM, and \
    is then named and left running: the next start takes it over. The command waits until minflow has ended; Ctrl-C leaves minflow stopping.\n\n\
    Exit code 4: no minflow runs on this home.\n\nExample:\n  minflow stop --drain"
)]
pub struct Arguments {
    /// Wait for all that runs, however long it takes
    #[arg(long, conflicts_with_all = ["now", "keep_running"])]
    drain: bool,
    /// End at once what runs
    #[arg(long, conflicts_with = "keep_running")]
    now: bool,
    /// Wait for nothing: all that runs is left for the next start
    #[arg(long)]
    keep_running: bool,
}

pub fn run(globals: &Globals, arguments: &Arguments) -> Outcome {
    let how = match (arguments.drain, arguments.now, arguments.keep_running) {
        (true, ..) => Stop::Finish,
        (_, true, _) => Stop::Now,
        (.., true) => Stop::KeepRunning,
        (false, false, false) => Stop::Drain,
    };
    // A broken airflow.toml must not keep anybody from stopping.
    engine::stop(&settings::home(globals)?, how, || left_running(globals))
}

/// What the database has as running now that minflow has ended, at most so many names; None: it cannot be read.
fn left_running(globals: &Globals) -> Option<Vec<String>> {
    let config = settings::load(globals).ok()?.config;
    let left = Reader::open(&config.database.path).ok()?.under_way().ok()?;
    let mut names: Vec<String> =
        left.iter().take(SHOWN).map(|(dag_id, run_id, task_id)| format!("{dag_id}.{task_id} ({run_id})")).collect();
    if left.len() > SHOWN {
        names.push(format!("and {} more", left.len() - SHOWN));
    }
    Some(names)
}
