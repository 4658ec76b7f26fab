//! `minflow backfill pause`, `unpause` and `cancel`

use crate::cli::backfill::{COLUMNS, OneBackfill, Stand};
use crate::cli::failure::eprint;
use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Globals, Outcome, engine};
use crate::scheduler::Command;
use crate::scheduler::command::Done;

pub fn set_paused(globals: &Globals, which: &OneBackfill, is_paused: bool, output: &mut Output) -> Outcome {
    let id = which.id();
    let home = Home::open(globals)?;
    Stand::find(&home, id)?;
    let done = engine::apply(&home, Command::SetBackfillPaused { id, is_paused })?;
    if done == (Done::PausedSet { was: is_paused }) {
        eprint(&format!("backfill {id} was {} already\n", if is_paused { "paused" } else { "unpaused" }));
    }
    Ok(output.record(&Stand::find(&home, id)?.record(), &COLUMNS)?)
}

pub fn cancel(globals: &Globals, which: &OneBackfill, output: &mut Output) -> Outcome {
    let id = which.id();
    let home = Home::open(globals)?;
    Stand::find(&home, id)?;
    let done = engine::apply(&home, Command::CancelBackfill { id })?;
    if let Done::BackfillCancelled { queued } = done {
        let runs_have = if queued == 1 { "run has" } else { "runs have" };
        eprint(&format!("{queued} queued {runs_have} failed; what runs goes on\n"));
    }
    Ok(output.record(&Stand::find(&home, id)?.record(), &COLUMNS)?)
}
