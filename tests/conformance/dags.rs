//! DAGs as the vectors of `trigger_rules`, `weight_rules` and `dagrun_state` write them, made into the graphs that the rules take.

use std::collections::BTreeMap;

use minflow::model::{Graph, Node, Role, TaskIx, TaskState, TriggerRule, WeightRule};
use serde_json::Value;

/// A graph, and its tasks by id.
pub struct Tasks {
    pub graph: Graph,
    pub ids: Vec<String>,
}

impl Tasks {
    /// From a vector's `tasks`, and `edges` where they stand apart.
    pub fn of(row: &Value) -> Self {
        let tasks = array(&row["tasks"]);
        let ids: Vec<String> = tasks.iter().map(|task| text(&task["id"]).to_owned()).collect();
        let places: BTreeMap<&str, TaskIx> = ids.iter().map(String::as_str).zip((0..).map(TaskIx)).collect();
        let nodes = tasks.iter().map(|task| node(task, &places)).collect();
        let mut edges = Vec::new();
        for (task, at) in tasks.iter().zip((0..).map(TaskIx)) {
            edges.extend(array(&task["upstream"]).iter().map(|up| (places[text(up)], at)));
        }
        for edge in array(&row["edges"]) {
            edges.push((places[text(&edge[0])], places[text(&edge[1])]));
        }
        let graph = Graph::new(nodes, &edges).expect("the vectors' DAGs have no cycle");
        Self { graph, ids }
    }

    pub fn id(&self, at: usize) -> &str {
        &self.ids[at]
    }
}

fn node(task: &Value, places: &BTreeMap<&str, TaskIx>) -> Node {
    let flag = |key: &str| task[key].as_bool() == Some(true);
    let role = if flag("is_teardown") {
        Role::Teardown {
            setups: array(&task["teardown_of"]).iter().map(|setup| places[text(setup)]).collect(),
            on_failure_fail_dagrun: flag("on_failure_fail_dagrun"),
        }
    } else if flag("is_setup") {
        Role::Setup
    } else {
        Role::Work
    };
    Node {
        trigger_rule: named(&task["trigger_rule"]).unwrap_or(TriggerRule::AllSuccess),
        role,
        priority_weight: task["priority_weight"].as_i64().unwrap_or(1),
        weight_rule: named(&task["weight_rule"]).unwrap_or(WeightRule::Downstream),
        mappings: Vec::new(),
    }
}

/// A state as the vectors write it: null for none.
pub fn state(value: &Value) -> TaskState {
    named(value).unwrap_or(TaskState::None)
}

pub fn named<T: std::str::FromStr<Err = minflow::model::state::UnknownName>>(value: &Value) -> Option<T> {
    value.as_str().map(|name| name.parse().expect("the vectors use Airflow's names"))
}

pub fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub fn text(value: &Value) -> &str {
    value.as_str().expect("an id in a vector is a text")
}
