//! `templates`: what a template becomes, and which templates are refused.

use std::ops::Add;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use minflow::model::dag::Position;
use minflow::model::{Dag, DagRun, DataInterval, Graph, Node, Operator, RunKey, RunState, Task, TaskIx, Template};
use minflow::secrets::Connection;
use minflow::template::{Additions, Context, Lookup, NoFiles, UndefinedKind, native_literal, render_value};
use serde_json::{Map, Value};

use crate::harness;

/// What `templates_contexts.json` stores; no earlier run.
struct Stub(Value);

impl Stub {
    fn stored(&self, kind: &str, name: &str) -> Option<Value> {
        self.0[kind].get(name).cloned()
    }
}

impl Lookup for Stub {
    fn xcom(&self, run: RunKey, task_id: &str, map_index: i32, key: &str) -> Result<Option<Value>, String> {
        let found = self.xcoms(run, task_id, key)?;
        Ok(found.into_iter().find(|(at, _)| *at == map_index).map(|(_, value)| value))
    }

    fn xcoms(&self, _: RunKey, task_id: &str, key: &str) -> Result<Vec<(i32, Value)>, String> {
        Ok(self.stored("xcom", &format!("{task_id}:{key}")).map(|value| (-1, value)).into_iter().collect())
    }

    fn variable(&self, name: &str) -> Result<Option<String>, String> {
        Ok(self.stored("variables", name).and_then(|text| text.as_str().map(str::to_owned)))
    }

    fn connection(&self, id: &str) -> Result<Option<Connection>, String> {
        let found = self.stored("connections", id);
        Ok(found.map(|text| Connection::parse(text.as_str().unwrap()).unwrap()))
    }
}

/// `user_defined_macros` and `user_defined_filters` of the contexts, which are told there in words.
fn additions() -> Additions {
    let text = |args: &[Value]| args[0].as_str().unwrap().to_owned();
    let mut additions = Additions::default();
    additions.functions.insert("shout".to_owned(), Arc::new(move |args| Ok(text(args).to_uppercase().add("!").into())));
    additions
        .filters
        .insert("rev".to_owned(), Arc::new(move |args| Ok(text(args).chars().rev().collect::<String>().into())));
    additions
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
        host: "".into(),
        variables: Arc::new(Map::from_iter([("const".to_owned(), all["user_defined_macros"]["const"].clone())])),
        overrides_params: true,
        environment: Arc::new(|_| None),
        now: "2026-11-21T00:00:00Z".parse().unwrap(),
        lookup: Arc::new(Stub(all.clone())),
        files: Arc::new(NoFiles),
        additions: Arc::new(additions()),
        undefined: UndefinedKind::Strict,
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
    let mut context = context(all, text(case, "context"));
    context.undefined = match case["template_undefined"].as_str() {
        Some("Undefined") => UndefinedKind::Lenient,
        Some("ChainableUndefined") => UndefinedKind::Chainable,
        Some("DebugUndefined") => UndefinedKind::Debug,
        _ => UndefinedKind::Strict,
    };
    let at = Position { line: 1, column: 1 };
    let (expect, template) = (&case["expect"], &case["template"]);
    let result = match (case["native"].as_bool(), template) {
        (Some(true), Value::String(text)) => native_literal(&Template { text: text.clone(), at }, &context),
        _ => render_value(template, at, &context),
    };
    match result {
        Ok(rendered) => {
            let wanted = expect.get("rendered").or_else(|| expect.get("value"));
            match wanted {
                Some(wanted) if *wanted == rendered => Ok(()),
                Some(wanted) => Err(format!("{template}: {rendered} instead of {wanted}")),
                None => Err(format!("{template}: {rendered} instead of {expect}")),
            }
        }
        Err(error) if expect.get("error").is_some_and(|class| class == error.class) => Ok(()),
        Err(error) => Err(format!("{template}: {} {error} instead of {expect}", error.class)),
    }
}

#[test]
fn templates() {
    let all = contexts();
    harness::conform("templates", "templates", &harness::cases("templates"), |case| check(&all, case));
}

#[test]
fn templates_core() {
    let all = contexts();
    let mut cases = harness::cases("templates");
    cases.retain(|case| case["tag"] == "core");
    harness::conform("templates", "templates[core]", &cases, |case| check(&all, case));
}
