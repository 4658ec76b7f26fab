//! `minflow dags delete`

use clap::Args;
use serde_json::json;

use crate::cli::home::Home;
use crate::cli::output::Output;
use crate::cli::{Failure, Globals, Outcome, acts, engine};
use crate::model::DagId;
use crate::store::{Disposable, Disposal};

#[derive(Debug, Args)]
#[command(
    after_help = "For a DAG whose file is gone. Its runs, their logs, run_dirs and XComs go, and what is known of the DAG; the audit log stays.\n\n\
    Example:\n  minflow dags delete old_report --yes"
)]
pub struct Arguments {
    dag_id: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    home.expect_dag(&arguments.dag_id)?;
    let Some((reader, listing)) =
        home.reader.as_ref().and_then(|reader| Some((reader, reader.dag(&arguments.dag_id).ok()??)))
    else {
        return Err(Failure::refused(format!("`{}` has no history", arguments.dag_id), "minflow has not seen it yet"));
    };
    // A running minflow has seen it go; while none runs nobody has looked. A folder that is not there may come back.
    let folder = &home.config.core.dags_folder;
    let has_gone = || folder.is_dir() && !folder.join(&listing.dag.file).exists();
    let has_file = listing.dag.is_active && (engine::ping(&home.config.home).is_ok() || !has_gone());
    if has_file {
        let message = format!("`{}` has a DAG file, `{}`", arguments.dag_id, listing.dag.file);
        let help = "remove the file first, since it would be a new DAG at once; `minflow db clean --dag-ids` takes old runs away";
        return Err(Failure::refused(message, help));
    }
    let counts = reader.state_counts(Some(&arguments.dag_id))?;
    let is_alive = |state: &str| ["queued", "running"].contains(&state);
    let active: i64 =
        counts.iter().filter(|count| count.kind == "run" && is_alive(&count.state)).map(|count| count.count).sum();
    if active > 0 {
        let message = format!(
            "`{}` has {active} run{} that {} not over",
            arguments.dag_id,
            if active == 1 { "" } else { "s" },
            if active == 1 { "is" } else { "are" }
        );
        return Err(Failure::refused(message, "end them with `minflow dags set-state`, then delete it"));
    }
    let dag_id = DagId::from(arguments.dag_id.as_str());
    let what = Disposal { limit: usize::MAX, everything: true, ..Disposal::default() };
    let Disposable { runs, unreadable } = reader.disposable(&dag_id, &what)?;
    if let Some(run) = unreadable.into_iter().next() {
        return Err(run.error.into());
    }
    let question = format!("`{dag_id}` and its {} runs would go. Go on? [y/N] ", runs.len());
    if !arguments.yes && !acts::is_confirmed(&question, "--yes deletes without a question")? {
        return Ok(());
    }
    let gone = engine::delete_dag(&home, &dag_id, &runs)?;
    let text = format!("`{dag_id}` and its {gone} runs have gone");
    Ok(output.answer(&text, &json!({"dag_id": dag_id, "runs": gone}))?)
}
