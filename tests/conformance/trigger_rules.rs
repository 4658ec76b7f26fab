//! Kind `trigger_rules`: one instance, evaluated among upstream instances in given states.

use std::sync::Arc;

use minflow::model::{Graph, Node, Role, TaskIx, TaskState, TriggerRule};
use minflow::scheduler::progress::{InstanceIx, Progress};
use serde_json::Value;

use crate::dags::{array, state};
use crate::harness;

/// The DAG of a case, and the instance that is asked about.
#[derive(Default)]
struct Case {
    nodes: Vec<Node>,
    edges: Vec<(TaskIx, TaskIx)>,
    instances: Vec<(TaskIx, i32, TaskState)>,
}

impl Case {
    fn add(&mut self, rule: TriggerRule, role: Role, upstream: &[TaskIx], map_index: i32, state: TaskState) -> TaskIx {
        let task = TaskIx(self.nodes.len() as u32);
        self.nodes.push(Node { trigger_rule: rule, role, ..Node::default() });
        self.edges.extend(upstream.iter().map(|&up| (up, task)));
        self.instances.push((task, map_index, state));
        task
    }
}

/// What happens to the instance in one pass: `run`, `wait`, or the state that it is given.
fn check(row: &Value) -> Result<(), String> {
    let (case, asked) = case(row);
    let graph = Graph::new(case.nodes, &case.edges).expect("the vectors' DAGs have no cycle");
    let mut progress = Progress::new(Arc::new(graph), &case.instances);
    let asked = InstanceIx(asked.0);
    let pass = progress.pass();
    let got = match pass.marks.iter().find(|(instance, _)| *instance == asked) {
        Some((_, state)) => state.as_str(),
        None if pass.schedulable.contains(&asked) => "run",
        None => "wait",
    };
    let expected = row["expect"].as_str().expect("a case has an expectation");
    if got == expected { Ok(()) } else { Err(format!("expected {expected}, got {got}")) }
}

fn case(row: &Value) -> (Case, TaskIx) {
    let rule: TriggerRule = row["rule"].as_str().and_then(|rule| rule.parse().ok()).expect("a rule of Airflow's");
    let map_index = row["map_index"].as_i64().map_or(-1, |index| index as i32);
    let upstream: Vec<TaskState> = array(&row["upstream"]).iter().map(state).collect();
    let plain = TriggerRule::AllSuccess;
    let mut case = Case::default();
    let asked = if row.get("in_scope").is_some() {
        // s(setup) -> w1 -> w2 -> t, s -> t: t is asked.
        let s = case.add(plain, Role::Setup, &[], -1, upstream[0]);
        let w1 = case.add(plain, Role::Work, &[s], -1, state(&row["in_scope"][0]));
        let w2 = case.add(plain, Role::Work, &[w1], -1, upstream[1]);
        let role = Role::Teardown { setups: vec![s], on_failure_fail_dagrun: false };
        case.add(rule, role, &[s, w2], map_index, TaskState::None)
    } else if row.get("indirect_setup").is_some() {
        // s(setup) -> w -> d -> t(teardown of s), s -> t: d is asked.
        let s = case.add(plain, Role::Setup, &[], -1, state(&row["indirect_setup"]));
        let w = case.add(plain, Role::Work, &[s], -1, upstream[0]);
        let d = case.add(rule, Role::Work, &[w], map_index, TaskState::None);
        let role = Role::Teardown { setups: vec![s], on_failure_fail_dagrun: false };
        case.add(TriggerRule::AllDoneSetupSuccess, role, &[d, s], -1, TaskState::None);
        d
    } else {
        let is_setup = array(&row["upstream_is_setup"]);
        let mut direct = Vec::new();
        for (at, &upstream_state) in upstream.iter().enumerate() {
            let is_setup = is_setup.get(at).and_then(Value::as_bool) == Some(true);
            let role = if is_setup { Role::Setup } else { Role::Work };
            direct.push(case.add(plain, role, &[], -1, upstream_state));
        }
        let setups = direct.iter().copied().filter(|&up| case.nodes[up.index()].role == Role::Setup).collect();
        let role = if row["is_teardown"].as_bool() == Some(true) {
            Role::Teardown { setups, on_failure_fail_dagrun: false }
        } else {
            Role::Work
        };
        case.add(rule, role, &direct, map_index, TaskState::None)
    };
    (case, asked)
}

#[test]
fn trigger_rules() {
    harness::conform("trigger_rules", "trigger_rules", &harness::cases("trigger_rules"), check);
}
