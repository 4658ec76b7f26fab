//! `templates`: what a template becomes, and which templates are refused.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use minflow::model::dag::Position;
use minflow::model::{Dag, DagId, DagRun, DataInterval, Graph, Node, Operator, RunKey, RunState, Task, TaskIx};
use minflow::template::{Context, Lookup, render_value};
use serde_json::{Map, Value};

use crate::harness;

/// The XComs of `templates_contexts.json`; no earlier run.
struct Stub(Map<String, Value>);

impl Lookup for Stub {
    fn xcom(&self, _: RunKey, task_id: &str, _: Option<i32>, key: &str) -> Result<Option<Value>, String> {
        Ok(self.0.get(&format!("{task_id}:{key}")).cloned())
    }

    fn previous_success(&self, _: &DagId, _: Timestamp) -> Result<Option<DagRun>, String> {
        Ok(None)
    }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is no text in {value}"))
}

fn time(value: &Value, name: &str) -> Option<Timestamp> {
    value[name].as_str().map(|text| text.parse().unwrap())
}

fn dag(all: &Value, params: Map<String, Value>) -> Dag {
    let task = Task {
        owner: text(all, "owner").to_owned(),
        retries: 2,
        ..Task::new(text(all, "task_id").into(), Operator::Empty)
    };
    let node = Node::default();
    let graph = Graph::new(vec![node], &[]).unwrap();
    Dag { owner: text(all, "owner").to_owned(), params, ..Dag::new(text(all, "dag_id").into(), vec![task], graph) }
}

fn context(all: &Value, name: &str) -> Context {
    let one = &all["contexts"][name];
    let interval = time(one, "start").zip(time(one, "end")).map(|(start, end)| DataInterval { start, end });
    let run_after = time(one, "run_after").unwrap();
    let (dag_id, run_id) = (text(all, "dag_id").into(), text(one, "run_id").into());
    let run = DagRun {
        state: RunState::Running,
        logical_date: time(one, "logical"),
        data_interval: interval,
        start_date: Some(run_after),
        conf: one["conf"].as_object().unwrap().clone(),
        ..DagRun::new(RunKey(1), dag_id, run_id, text(one, "run_type").parse().unwrap(), run_after)
    };
    Context {
        dag: Arc::new(dag(all, one["params"].as_object().unwrap().clone())),
        file: "dags/tpl_dag.toml".into(),
        task: TaskIx(0),
        run: Arc::new(run),
        try_number: all["try_number"].as_u64().unwrap() as u32,
        max_tries: all["max_tries"].as_u64().unwrap() as u32,
        map_index: all["map_index"].as_i64().unwrap() as i32,
        run_dir: PathBuf::from("/home/runs/tpl_dag/x"),
        variables: Arc::default(),
        overrides_params: true,
        environment: Arc::new(|_| None),
        lookup: Arc::new(Stub(all["xcom"].as_object().unwrap().clone())),
    }
}

/// A context of the vectors with variables of an instance's own.
pub fn with_variables(variables: Value) -> Context {
    let all = contexts();
    let name = all["contexts"].as_object().unwrap().keys().next().unwrap().clone();
    let variables = variables.as_object().unwrap().clone();
    Context { variables: Arc::new(variables), ..context(&all, &name) }
}

fn contexts() -> Value {
    let named = harness::folder().join("templates_contexts.json");
    // A folder of further cases need not repeat the contexts.
    let path = if named.exists() {
        named
    } else {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/templates_contexts.json")
    };
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

fn check(all: &Value, case: &Value) -> Result<(), String> {
    let context = context(all, text(case, "context"));
    let result = render_value(&case["template"], Position { line: 1, column: 1 }, &context);
    let expect = &case["expect"];
    let template = &case["template"];
    match result {
        Ok(rendered) => {
            let wanted = expect.get("rendered").or_else(|| expect.get("value"));
            match wanted {
                Some(wanted) if *wanted == rendered => Ok(()),
                Some(wanted) => Err(format!("{template}: {rendered} instead of {wanted}")),
                None => Err(format!("{template}: {rendered} instead of {expect}")),
            }
        }
        Err(_) if expect.get("error").is_some() => Ok(()),
        Err(error) => Err(format!("{template}: {error} instead of {expect}")),
    }
}

#[test]
fn templates_core() {
    let all = contexts();
    let mut cases = harness::cases("templates");
    cases.retain(|case| case["tag"] == "core");
    harness::conform("templates", "templates[core]", &cases, |case| check(&all, case));
}
