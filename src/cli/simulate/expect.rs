//! What is expected of each task: how long its tries take, and how often they fail.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cli::Failure;
use crate::cli::failure::eprint;
use crate::cli::home::{Definition, Home};
use crate::keytable::{parse_duration, print_duration};
use crate::model::{TaskId, TaskIx};
use crate::simulate::{Outlook, Subject};
use crate::store::USUAL_RUNS;

/// Of a try of which nothing is known.
const UNKNOWN: Duration = Duration::from_secs(10);

/// What an option says of one task, or of all.
struct Given<T> {
    name: Option<String>,
    value: T,
}

/// # Errors
/// An option is not understood or names an unknown task; the database cannot be read.
pub(super) fn subjects(
    home: &Home,
    definitions: &[Definition],
    durations: &[String],
    fails: &[String],
) -> Result<Vec<Subject>, Failure> {
    let durations = durations.iter().map(|text| duration(text)).collect::<Result<Vec<_>, _>>()?;
    let fails = fails.iter().map(|text| probability(text)).collect::<Result<Vec<_>, _>>()?;
    let mut subjects = Vec::with_capacity(definitions.len());
    let mut guessed = 0;
    let usual = durations.iter().rev().find(|given| given.name.is_none()).map_or(UNKNOWN, |given| given.value);
    for definition in definitions {
        let medians = medians(home, definition)?;
        let dag = &definition.dag;
        let outlook = |task: &crate::model::Task| {
            let known = medians.get(&task.task_id).copied();
            guessed += usize::from(known.is_none() && !task.operator.is_idle());
            Outlook { lasts_for: known.unwrap_or(usual), fails: 0.0 }
        };
        subjects.push(Subject {
            dag: dag.clone(),
            file: definition.file.as_str().into(),
            first_seen_at: definition.record.as_ref().and_then(|record| record.first_seen_at),
            last_interval: definition.record.as_ref().and_then(|record| record.last_interval),
            outlooks: dag.tasks.iter().map(outlook).collect(),
        });
    }
    for given in &durations {
        if let Some(name) = &given.name {
            apply(&mut subjects, "--duration", name, |outlook| outlook.lasts_for = given.value)?;
        }
    }
    for given in &fails {
        match &given.name {
            Some(name) => apply(&mut subjects, "--fail", name, |outlook| outlook.fails = given.value)?,
            None => {
                subjects.iter_mut().flat_map(|of| &mut of.outlooks).for_each(|outlook| outlook.fails = given.value);
            }
        }
    }
    if guessed > 0 && durations.is_empty() {
        let tasks = if guessed == 1 { "1 task has".to_owned() } else { format!("{guessed} tasks have") };
        let lasts = print_duration(usual);
        eprint(&format!("{tasks} no history: each try is taken to last {lasts}; --duration says otherwise\n"));
    }
    Ok(subjects)
}

/// The median of the successful tries of each task in the newest runs.
fn medians(home: &Home, definition: &Definition) -> Result<BTreeMap<TaskId, Duration>, Failure> {
    let Some(reader) = &home.reader else { return Ok(BTreeMap::new()) };
    if definition.record.is_none() {
        return Ok(BTreeMap::new());
    }
    Ok(reader.usual_durations(&definition.dag.dag_id, USUAL_RUNS)?)
}

/// `name` is a task of any DAG, or `dag.task`.
fn apply(
    subjects: &mut [Subject],
    option: &str,
    name: &str,
    mut change: impl FnMut(&mut Outlook),
) -> Result<(), Failure> {
    let mut hits: Vec<(usize, TaskIx)> = Vec::new();
    for (at, subject) in subjects.iter().enumerate() {
        let qualified = name.strip_prefix(subject.dag.dag_id.as_str()).and_then(|rest| rest.strip_prefix('.'));
        let of_dag = qualified.and_then(|task_id| subject.dag.find(task_id));
        hits.extend(of_dag.or_else(|| subject.dag.find(name)).map(|task| (at, task)));
    }
    if hits.is_empty() {
        let known: Vec<String> = subjects
            .iter()
            .flat_map(|subject| subject.dag.tasks.iter().map(|task| (&subject.dag.dag_id, &task.task_id)))
            .flat_map(|(dag_id, task_id)| [task_id.to_string(), format!("{dag_id}.{task_id}")])
            .collect();
        let noun = format!("task in {option}:");
        return Err(Failure::unknown(&noun, name, known.iter().map(String::as_str), "minflow tasks list DAG_ID"));
    }
    for (at, task) in hits {
        change(&mut subjects[at].outlooks[task.index()]);
    }
    Ok(())
}

fn duration(text: &str) -> Result<Given<Duration>, Failure> {
    let (name, value) = split(text);
    parse_duration(value).map(|value| Given { name, value }).ok_or_else(|| Failure::Usage {
        message: format!("--duration `{text}` is no time"),
        help: "write it as 90s, 5m or 1h30m, for one task as TASK=5m or DAG.TASK=5m".to_owned(),
    })
}

fn probability(text: &str) -> Result<Given<f64>, Failure> {
    let (name, value) = split(text);
    let read = value.parse::<f64>().ok().filter(|value| (0.0..=1.0).contains(value));
    read.map(|value| Given { name, value }).ok_or_else(|| Failure::Usage {
        message: format!("--fail `{text}` is no probability"),
        help: "write it as 0.05 for one try in twenty, for one task as TASK=0.05 or DAG.TASK=0.05".to_owned(),
    })
}

fn split(text: &str) -> (Option<String>, &str) {
    match text.rsplit_once('=') {
        Some((name, value)) => (Some(name.to_owned()), value),
        None => (None, text),
    }
}
