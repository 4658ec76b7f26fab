//! Kind `partial_subset`: what a clear of some tasks touches, and which setups each task needs.

use std::collections::BTreeSet;

use minflow::model::TaskIx;
use minflow::scheduler::subset::{Reach, relevant_setups, subset};
use serde_json::Value;

use crate::dags::{Tasks, array, text};
use crate::harness;

fn check(row: &Value) -> Result<(), String> {
    let tasks = Tasks::of(row);
    let place = |id: &str| TaskIx(tasks.ids.iter().position(|other| other == id).expect("a task of the case") as u32);
    let chosen: Vec<TaskIx> = array(&row["select"]).iter().map(|id| place(text(id))).collect();
    let flag = |key: &str| row[key].as_bool() == Some(true);
    let reach = Reach {
        downstream: flag("include_downstream"),
        upstream: flag("include_upstream"),
        direct_upstream: flag("include_direct_upstream"),
    };
    let got: BTreeSet<&str> = subset(&tasks.graph, &chosen, reach).iter().map(|task| tasks.id(task.index())).collect();
    let expected: BTreeSet<&str> = array(&row["expect"]).iter().map(text).collect();
    if got != expected {
        return Err(format!("got {got:?}, expected {expected:?}"));
    }
    for task in tasks.graph.indexes() {
        let id = tasks.id(task.index());
        let got: BTreeSet<&str> = relevant_setups(&tasks.graph, &BTreeSet::from([task]))
            .iter()
            .map(|setup| tasks.id(setup.index()))
            .collect();
        let Some(wanted) = row["relevant_setups"].get(id) else { continue };
        let wanted: BTreeSet<&str> = array(wanted).iter().map(text).collect();
        if got != wanted {
            return Err(format!("`{id}` needs {got:?}, expected {wanted:?}"));
        }
    }
    Ok(())
}

#[test]
fn partial_subset() {
    harness::conform("partial_subset", "partial_subset", &harness::cases("partial_subset"), check);
}
