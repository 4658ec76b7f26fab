//! What `clear`, `set-state` and `note` share: how runs are named, the question before a clear, and what is shown of it.

use std::io::{IsTerminal, Write};

use clap::Args;
use serde_json::{Value, json};

use crate::cli::failure::eprint;
use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Failure, Outcome, engine};
use crate::model::{DagRun, TaskId};
use crate::scheduler::Command;
use crate::scheduler::command::{Clear, Done, Only, RunRange, Touched};

/// Which runs and states a clear is about, and how it is carried out.
#[derive(Debug, Args)]
pub struct ClearOptions {
    /// Only runs whose logical date is this or later
    #[arg(short, long, value_name = "DATE")]
    start_date: Option<String>,
    /// Only runs whose logical date is this or earlier
    #[arg(short, long, value_name = "DATE")]
    end_date: Option<String>,
    /// Only this run: its run_id or its logical date
    #[arg(long, value_name = "RUN")]
    run_id: Option<String>,
    /// Only what has failed
    #[arg(short = 'f', long)]
    only_failed: bool,
    /// Only what runs
    #[arg(short = 'r', long)]
    only_running: bool,
    /// List what would run again, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl ClearOptions {
    /// # Errors
    /// The DAG or the run is unknown, or a date is none.
    pub fn runs(&self, home: &Home, dag_id: &str) -> Result<RunRange, Failure> {
        home.expect_dag(dag_id)?;
        let instant = |text: &Option<String>| text.as_deref().map(|text| home.instant(text)).transpose();
        let run_id = self.run_id.as_deref().map(|text| home.run(dag_id, text).map(|run| run.run_id)).transpose()?;
        let (from, to) = (instant(&self.start_date)?, instant(&self.end_date)?);
        Ok(RunRange { run_id, past: false, future: false, from, to })
    }

    pub fn only(&self) -> Only {
        Only { failed: self.only_failed, running: self.only_running }
    }

    /// Whether `--run-id` names a run.
    pub fn names_run(&self) -> bool {
        self.run_id.is_some()
    }

    /// Shows what would run again, asks, and clears it.
    ///
    /// # Errors
    /// It was refused, or nobody is there to answer.
    pub fn carry_out(&self, home: &Home, clear: Clear, output: &mut Output) -> Outcome {
        if self.dry_run {
            let (instances, runs) = send(home, Clear { is_dry: true, ..clear })?;
            eprint(&format!("{} would run again\n", counted(instances.len(), runs)));
            return Ok(output.list(&records(&instances), &COLUMNS)?);
        }
        if !self.yes && !is_agreed(home, &clear)? {
            return Ok(());
        }
        let (instances, runs) = send(home, clear)?;
        if instances.is_empty() {
            eprint("nothing to clear\n");
        } else {
            eprint(&format!("{} cleared\n", counted(instances.len(), runs)));
        }
        Ok(output.list(&records(&instances), &COLUMNS)?)
    }
}

pub const COLUMNS: [Column; 5] = [
    Column::text("dag_id"),
    Column::text("run_id"),
    Column::text("task_id"),
    Column::text("map_index"),
    Column::state("state"),
];

/// One record for each instance, with the state that it had.
pub fn records(instances: &[Touched]) -> Vec<Value> {
    let record = |touched: &Touched| {
        json!({ "dag_id": touched.dag_id, "run_id": touched.run_id, "task_id": touched.task_id, "map_index": touched.map_index,
            "state": touched.state.as_nullable() })
    };
    instances.iter().map(record).collect()
}

/// `3 task instances in 2 runs`
pub fn counted(instances: usize, runs: u32) -> String {
    let (tasks, plural) = (if instances == 1 { "" } else { "s" }, if runs == 1 { "" } else { "s" });
    format!("{instances} task instance{tasks} in {runs} run{plural}")
}

fn send(home: &Home, clear: Clear) -> Result<(Vec<Touched>, u32), Failure> {
    match engine::apply(home, Command::Clear(clear))? {
        Done::Cleared { instances, runs } => Ok((instances, runs)),
        other => Err(engine::unexpected(&other)),
    }
}

/// How many lines a question shows.
const SHOWN: usize = 20;

/// True: there is something to clear, and the user wants it.
fn is_agreed(home: &Home, clear: &Clear) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage {
            message: "nobody is there to be asked whether to clear".to_owned(),
            help: "--yes clears without a question, --dry-run shows what would run again".to_owned(),
        });
    }
    let (instances, runs) = send(home, Clear { is_dry: true, ..clear.clone() })?;
    if instances.is_empty() {
        eprint("nothing to clear\n");
        return Ok(false);
    }
    for touched in instances.iter().take(SHOWN) {
        let index = if touched.map_index < 0 { String::new() } else { format!("[{}]", touched.map_index) };
        let dag = if touched.dag_id == clear.dag_id { String::new() } else { format!("{} ", touched.dag_id) };
        eprint(&format!("  {dag}{} {}{index} ({})\n", touched.run_id, touched.task_id, touched.state));
    }
    if instances.len() > SHOWN {
        eprint(&format!("  and {} more\n", instances.len() - SHOWN));
    }
    ask(&format!("{} would run again. Clear? [y/N] ", counted(instances.len(), runs)))
}

/// Asks whether to go on; `help` says how to do without the question, where nobody is there to be asked.
///
/// # Errors
/// Nobody is there.
pub fn is_confirmed(question: &str, help: &str) -> Result<bool, Failure> {
    if std::io::stdin().is_terminal() {
        return ask(question);
    }
    Err(Failure::Usage { message: "nobody is there to be asked whether to go on".to_owned(), help: help.to_owned() })
}

fn ask(question: &str) -> Result<bool, Failure> {
    eprint(question);
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    let is_yes = matches!(answer.trim().to_lowercase().as_str(), "y" | "yes");
    if !is_yes {
        eprint("nothing was changed\n");
    }
    Ok(is_yes)
}

/// A note to write.
#[derive(Debug, Args)]
pub struct NewNote {
    /// The text; without it the note is printed
    note: Option<String>,
    /// Take the note away
    #[arg(long, conflicts_with = "note")]
    remove: bool,
}

impl NewNote {
    /// Writes the note, or reads it: what it is from now on.
    ///
    /// # Errors
    /// It was refused.
    pub fn write(&self, home: &Home, run: &DagRun, task: Option<(TaskId, i32)>) -> Result<Option<String>, Failure> {
        if self.note.is_none() && !self.remove {
            return home.note(run, task.as_ref().map(|(task_id, map_index)| (task_id.as_str(), *map_index)));
        }
        let note = self.note.clone().filter(|note| !note.is_empty());
        let command =
            Command::Note { dag_id: run.dag_id.clone(), run_id: run.run_id.clone(), task, note: note.clone() };
        match engine::apply(home, command)? {
            Done::Noted => Ok(note),
            other => Err(engine::unexpected(&other)),
        }
    }
}
