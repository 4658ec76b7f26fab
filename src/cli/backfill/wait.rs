//! `minflow backfill wait`
//!
//! The running minflow says when the backfill is over; how far it has come is read from the database meanwhile.

use std::io::IsTerminal;
use std::time::Duration;

use crate::cli::backfill::{COLUMNS, OneBackfill, Stand};
use crate::cli::failure::eprint;
use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Failure, Globals, Outcome, engine};

/// How often the database is asked how far it has come.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Characters of the bar.
const WIDTH: usize = 30;

pub fn run(globals: &Globals, which: &OneBackfill, output: &mut Output) -> Outcome {
    let id = which.id();
    let home = Home::open(globals)?;
    if Stand::find(&home, id)?.backfill.completed_at.is_none() {
        engine::expect_running(&home)?;
        let mut progress = Progress::new();
        let waited = engine::await_backfill(&home, id, LOOK_EVERY, || {
            if let Ok(stand) = Stand::find(&home, id) {
                progress.show(&stand);
            }
        });
        progress.end();
        waited?;
    }
    let stand = Stand::find(&home, id)?;
    output.record(&stand.record(), &COLUMNS)?;
    if stand.state() == "success" {
        return Ok(());
    }
    std::io::Write::flush(output)?;
    if stand.counts.failed > 0 {
        let (failed, dag_id) = (stand.counts.failed, &stand.backfill.dag_id);
        let (runs_have, them) = if failed == 1 { ("run has", "it") } else { ("runs have", "them") };
        eprint(&format!(
            "{failed} {runs_have} failed; `minflow dags list-runs {dag_id} --state failed` shows {them}\n"
        ));
    }
    Err(Failure::Told)
}

/// A bar on a terminal; elsewhere a line for each tenth.
struct Progress {
    is_terminal: bool,
    tenths: Option<u64>,
}

impl Progress {
    fn new() -> Self {
        Self { is_terminal: std::io::stderr().is_terminal(), tenths: None }
    }

    fn show(&mut self, stand: &Stand) {
        let line = line_of(stand);
        if self.is_terminal {
            eprint(&format!("\r{} {line}\x1b[K", bar(stand)));
            return;
        }
        let tenths = done(stand) * 10 / stand.counts.dates.max(1);
        if self.tenths != Some(tenths) {
            self.tenths = Some(tenths);
            eprint(&format!("{line}\n"));
        }
    }

    fn end(&self) {
        if self.is_terminal {
            eprint("\r\x1b[K");
        }
    }
}

fn done(stand: &Stand) -> u64 {
    stand.counts.success + stand.counts.failed + stand.counts.skipped
}

fn line_of(stand: &Stand) -> String {
    let counts = &stand.counts;
    let mut line = format!("{} of {}: {} running", done(stand), counts.dates, counts.running);
    for (count, what) in [(counts.failed, "failed"), (counts.skipped, "skipped")] {
        if count > 0 {
            line.push_str(&format!(", {count} {what}"));
        }
    }
    if stand.state() == "paused" {
        line.push_str(", paused");
    }
    line
}

fn bar(stand: &Stand) -> String {
    let dates = stand.counts.dates.max(1) as usize;
    let filled = (done(stand) as usize * WIDTH / dates).min(WIDTH);
    format!("[{}{}]", "#".repeat(filled), ".".repeat(WIDTH - filled))
}
