//! What is said of a task's place in its DAG beside its arrows: its group, what it is mapped over, whether it sets up or tears down.

use serde_json::{Map, Value, json};

use crate::model::mapping::Form;
use crate::model::{Dag, Mapping, Role, TaskIx};

/// The fields of a task's record.
pub fn fields(dag: &Dag, task: TaskIx) -> Map<String, Value> {
    let role = &dag.graph.node(task).role;
    let (setups, fails_run) = match role {
        Role::Teardown { setups, on_failure_fail_dagrun } => (&setups[..], *on_failure_fail_dagrun),
        Role::Work | Role::Setup => (&[][..], false),
    };
    let setups: Vec<&str> = setups.iter().map(|&setup| dag.task(setup).task_id.as_str()).collect();
    let fields = json!({
        "group_id": dag.task(task).group.map(|group| &dag.groups[group.index()].group_id),
        "is_mapped": !dag.graph.node(task).mappings.is_empty(),
        "mapped_over": mapped_over(dag, task),
        "is_setup": *role == Role::Setup,
        "teardown_of": setups,
        "on_failure_fail_dagrun": fails_run,
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// What multiplies a task, the groups around it first: the variables of each `expand`, or where those of `expand_kwargs` come from.
pub fn mapped_over(dag: &Dag, task: TaskIx) -> Vec<String> {
    let mappings = dag.graph.node(task).mappings.iter();
    mappings.flat_map(|&mapping| variables(dag, &dag.mappings[mapping.index()])).collect()
}

fn variables(dag: &Dag, mapping: &Mapping) -> Vec<String> {
    match &mapping.form {
        Form::Product(inputs) => inputs.iter().map(|(name, _)| name.clone()).collect(),
        Form::Kwargs(_) => {
            let givers: Vec<&str> = mapping.xcoms().iter().map(|xcom| dag.task(xcom.task).task_id.as_str()).collect();
            vec![if givers.is_empty() {
                "expand_kwargs".to_owned()
            } else {
                format!("tables of {}", givers.join(", "))
            }]
        }
    }
}

/// What is not usual about it, in words.
pub fn remarks(dag: &Dag, task: TaskIx) -> Vec<String> {
    let mut remarks = Vec::new();
    match &dag.graph.node(task).role {
        Role::Work => {}
        Role::Setup => remarks.push("setup".to_owned()),
        Role::Teardown { setups, .. } => {
            let setups: Vec<&str> = setups.iter().map(|&setup| dag.task(setup).task_id.as_str()).collect();
            remarks.push(format!("teardown of {}", setups.join(", ")));
        }
    }
    let over = mapped_over(dag, task);
    if !over.is_empty() {
        remarks.push(format!("for each {}", over.join(" × ")));
    }
    remarks
}
