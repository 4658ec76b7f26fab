//! `minflow tasks states-for-dag-run`

use std::collections::BTreeMap;

use clap::Args;

use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Globals, Outcome};
use crate::model::{Instance, TaskId, TaskState};
use crate::observe::Sampler;

#[derive(Debug, Args)]
pub struct Arguments {
    dag_id: String,
    /// The run: its run_id or its logical date
    logical_date_or_run_id: String,
}

const COLUMNS: [Column; 11] = [
    Column::text("task_id"),
    Column::state("state"),
    Column::text("try_number"),
    Column::time("start_date"),
    Column::time("end_date"),
    Column::text("exit_code"),
    Column::text("signal"),
    Column::text("reason"),
    Column::text("exit_cause"),
    Column::span("user_cpu"),
    Column::bytes("max_rss"),
];

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let run = home.run(&arguments.dag_id, &arguments.logical_date_or_run_id)?;
    let mut instances = in_order(home.instances(&run)?);
    add_live(&mut instances);
    let records = home.instance_records(&run, &instances)?;
    let mut columns = COLUMNS.to_vec();
    // As Airflow shows them: only where there is something to tell.
    if instances.iter().any(|instance| instance.rendered_map_index.is_some()) {
        columns.insert(1, Column::text("rendered_map_index"));
    }
    if instances.iter().any(|instance| instance.map_index >= 0) {
        columns.insert(1, Column::text("map_index"));
    }
    if records.iter().any(|record| !record["paused_at"].is_null()) {
        columns.push(Column::time("paused_at"));
    }
    Ok(output.list(&records, &columns)?)
}

/// What runs now has used so far what `/proc` says.
fn add_live(instances: &mut [Instance]) {
    let running = instances.iter_mut().filter(|instance| instance.state == TaskState::Running);
    let mut sampler = None;
    for instance in running {
        let Some(process) = instance.process.as_deref() else { continue };
        let sample = sampler.get_or_insert_with(Sampler::now).sample(process);
        instance.usage = sample.map(|sample| Box::new(sample.usage));
    }
}

/// In the order of their tasks; those of one task by map index.
fn in_order(mut instances: Vec<Instance>) -> Vec<Instance> {
    let mut places: BTreeMap<TaskId, usize> = BTreeMap::new();
    for instance in &instances {
        let next = places.len();
        places.entry(instance.task_id.clone()).or_insert(next);
    }
    instances.sort_by_key(|instance| (places[&instance.task_id], instance.map_index));
    instances
}
