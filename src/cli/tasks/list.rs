//! `minflow tasks list`

use clap::Args;
use serde_json::{Value, json};

use crate::cli::home::Home;
use crate::cli::output::{Column, Output};
use crate::cli::{Globals, Outcome, shape};

#[derive(Debug, Args)]
pub struct Arguments {
    dag_id: String,
}

/// The last two stand only where a task has something to say in them.
const COLUMNS: [Column; 8] = [
    Column::text("task_id"),
    Column::text("operator"),
    Column::text("depends_on"),
    Column::text("trigger_rule"),
    Column::text("pool"),
    Column::text("retries"),
    Column::text("mapped_over"),
    Column::text("teardown_of"),
];

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let definition = Home::open(globals)?.definition(&arguments.dag_id)?;
    let dag = &definition.dag;
    let records: Vec<Value> = dag
        .graph
        .indexes()
        .map(|ix| {
            let (task, node) = (dag.task(ix), dag.graph.node(ix));
            let upstream: Vec<&str> = dag.graph.upstream(ix).iter().map(|&up| dag.task(up).task_id.as_str()).collect();
            let mut record = json!({
                "task_id": task.task_id,
                "operator": task.operator.name(),
                "depends_on": upstream,
                "trigger_rule": node.trigger_rule,
                "pool": task.pool,
                "pool_slots": task.pool_slots,
                "priority_weight": node.priority_weight,
                "weight_rule": node.weight_rule,
                "retries": task.retries,
                "retry_delay": task.retry_delay.as_secs_f64(),
                "execution_timeout": task.execution_timeout.map(|timeout| timeout.as_secs_f64()),
                "owner": task.owner,
                "doc_md": task.doc_md,
            });
            record.as_object_mut().expect("it was made as one").extend(shape::fields(dag, ix));
            record
        })
        .collect();
    let is_told =
        |name: &str| records.iter().any(|record| record[name].as_array().is_some_and(|list| !list.is_empty()));
    let told = match (is_told("mapped_over"), is_told("teardown_of")) {
        (_, true) => 8,
        (true, false) => 7,
        (false, false) => 6,
    };
    Ok(output.list(&records, &COLUMNS[..told])?)
}
