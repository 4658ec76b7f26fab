//! `minflow tasks states-for-dag-run`

use std::collections::BTreeMap;

use clap::Args;

use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Globals, Outcome};
use crate::model::{Instance, TaskId};

#[derive(Debug, Args)]
pub struct Arguments {
    dag_id: String,
    /// The run: its run_id or its logical date
    logical_date_or_run_id: String,
}

const COLUMNS: [Column; 8] = [
    Column::text("task_id"),
    Column::state("state"),
    Column::text("try_number"),
    Column::time("start_date"),
    Column::time("end_date"),
    Column::text("exit_code"),
    Column::text("signal"),
    Column::text("reason"),
];

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let run = home.run(&arguments.dag_id, &arguments.logical_date_or_run_id)?;
    let instances = in_order(home.instances(&run)?);
    let records = home.instance_records(&run, &instances)?;
    let mut columns = COLUMNS.to_vec();
    // As Airflow shows them: only where there is something to tell.
    if instances.iter().any(|instance| instance.rendered_map_index.is_some()) {
        columns.insert(1, Column::text("rendered_map_index"));
    }
    if instances.iter().any(|instance| instance.map_index >= 0) {
        columns.insert(1, Column::text("map_index"));
    }
    Ok(output.list(&records, &columns)?)
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
