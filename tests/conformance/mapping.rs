//! Kind `mapping`: what a mapping makes, which upstream instances count for whom, and when one instance becomes many.

use std::collections::BTreeMap;
use std::sync::Arc;

use minflow::mapping::{self, Fault, Source};
use minflow::model::dag::Position;
use minflow::model::{
    Form, Graph, Input, Mapping, MappingIx, Node, TaskIx, TaskState, Template, TriggerRule, XcomInput,
};
use minflow::scheduler::progress::{InstanceIx, Pass, Progress, Verdict};
use serde_json::{Map, Value, json};

use crate::dags::{array, named, state, text};
use crate::harness;

/// Literals alone; `map` and `filter` through the templates of the program.
struct Literals;

#[derive(Debug)]
enum Stop {
    Fault,
    Skip,
}

impl From<Fault> for Stop {
    fn from(_: Fault) -> Self {
        Self::Fault
    }
}

impl Source for Literals {
    type Error = Stop;

    fn xcom(&mut self, _: &XcomInput) -> Result<Arc<Value>, Stop> {
        unreachable!("the vectors' inputs are literal")
    }

    fn map(&mut self, template: &Template, element: Value) -> Result<Value, Stop> {
        let context = crate::templates::with_variables(json!({ "item": element }));
        minflow::template::native(template, &context).map_err(|_| Stop::Fault)
    }

    fn passes(&mut self, template: &Template, element: &Value) -> Result<bool, Stop> {
        let context = crate::templates::with_variables(json!({ "item": element }));
        let value = minflow::template::native(template, &context).map_err(|_| Stop::Fault)?;
        Ok(mapping::is_true(&value))
    }

    fn refused(&mut self) -> Stop {
        Stop::Skip
    }
}

fn mapping(form: Form) -> Mapping {
    Mapping { form, partial: Map::new(), at: Position::default() }
}

fn product(inputs: Vec<(&str, Input)>) -> Mapping {
    mapping(Form::Product(inputs.into_iter().map(|(name, input)| (name.to_owned(), input)).collect()))
}

fn single(input: Input) -> Mapping {
    product(vec![("v", input)])
}

fn literals(row: &Value) -> Vec<Input> {
    array(&row["input"]).iter().cloned().map(Input::Literal).collect()
}

/// The functions that the vectors pass to Airflow's `map`, as templates.
fn each(row: &Value) -> Result<Input, String> {
    let template = |text: &str| Some(Template { text: text.to_owned(), at: Position::default() });
    let (map, filter) = match text(&row["function"]) {
        "x*10" => (template("{{ item * 10 }}"), None),
        "x+1 then str" => (template("{{ (item + 1) | string }}"), None),
        "skip odd (raises skip)" => (None, template("{{ item % 2 == 0 }}")),
        other => return Err(format!("no template stands for the function `{other}`")),
    };
    Ok(Input::Each { input: Box::new(Input::Literal(row["input"].clone())), map, filter })
}

/// Every element of the mapping; `name` picks one of its names.
fn elements(mapping: &Mapping, name: Option<&str>) -> Result<Vec<Value>, Stop> {
    mapping::check(mapping)?;
    let count = mapping::found(mapping, &mut Literals)?;
    assert_eq!(mapping::length(mapping, &mut |_| None), Some(count), "a literal's length is known");
    let element = |at| match mapping::names(mapping, at, &mut Literals) {
        Ok(names) => Ok(match name {
            Some(name) => names[name].clone(),
            None => Value::Object(names),
        }),
        Err(Stop::Skip) => Ok(json!({ "__skip__": true })),
        Err(Stop::Fault) => Err(Stop::Fault),
    };
    (0..count).map(element).collect()
}

fn check_elements(row: &Value, mapping: &Mapping, key: &str, name: Option<&str>) -> Result<(), String> {
    match elements(mapping, name) {
        Err(_) if row["error"].is_string() => Ok(()),
        // Of many elements the vectors hold the first ones.
        Ok(found) if row["count"] == found.len() && found.starts_with(array(&row[key])) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn check_arithmetic(row: &Value) -> Result<(), String> {
    match text(&row["kind"]) {
        "expand" => {
            let pair = |pair: &Value| (text(&pair[0]).to_owned(), Input::Literal(pair[1].clone()));
            let inputs = array(&row["input"]).iter().map(pair).collect();
            check_elements(row, &mapping(Form::Product(inputs)), "kwargs", None)
        }
        "expand_kwargs" => {
            check_elements(row, &mapping(Form::Kwargs(Input::Literal(row["input"].clone()))), "kwargs", None)
        }
        "zip" => {
            let fillvalue = row.get("fillvalue").cloned();
            check_elements(row, &single(Input::Zip { inputs: literals(row), fillvalue }), "values", Some("v"))
        }
        "concat" => check_elements(row, &single(Input::Concat(literals(row))), "values", Some("v")),
        "map" => check_elements(row, &single(each(row)?), "values", Some("v")),
        other => Err(format!("unknown kind {other}")),
    }
}

/// Tasks in a row, each after the one before, with the mappings that each names.
fn row_of(tasks: &[(&Value, &[u32])]) -> Graph {
    let node = |&(rule, mappings): &(&Value, &[u32])| Node {
        trigger_rule: named(rule).unwrap_or(TriggerRule::AllSuccess),
        mappings: mappings.iter().copied().map(MappingIx).collect(),
        ..Node::default()
    };
    let edges: Vec<_> = (1..tasks.len() as u32).map(|at| (TaskIx(at - 1), TaskIx(at))).collect();
    Graph::new(tasks.iter().map(node).collect(), &edges).unwrap()
}

/// What a pass makes of an instance, in the vectors' words.
fn fate(pass: &Pass, progress: &Progress, instance: InstanceIx) -> &'static str {
    match progress.state(instance) {
        TaskState::None if pass.schedulable.contains(&instance) => "run",
        TaskState::None => "wait",
        state => state.as_str(),
    }
}

fn numbered(count: usize) -> Input {
    Input::Literal((0..count).collect())
}

fn check_downstream(row: &Value) -> Result<(), String> {
    let states: Vec<TaskState> = array(&row["instances"]).iter().map(state).collect();
    let graph = row_of(&[(&Value::Null, &[0]), (&row["rule"], &[])]);
    let mut instances: Vec<_> = (0..).zip(&states).map(|(at, &state)| (TaskIx(0), at, state)).collect();
    instances.push((TaskIx(1), -1, TaskState::None));
    let mut progress = Progress::mapped(Arc::new(graph), &[single(numbered(states.len()))], &instances);
    let pass = progress.pass();
    let found = fate(&pass, &progress, InstanceIx(states.len() as u32));
    if row["expect"] == found { Ok(()) } else { Err(format!("it is to {found}")) }
}

fn check_pairwise(row: &Value) -> Result<(), String> {
    let states: Vec<TaskState> = array(&row["a_states"]).iter().map(state).collect();
    let graph = row_of(&[(&Value::Null, &[0]), (&row["rule"], &[0])]);
    let mut instances: Vec<_> = (0..).zip(&states).map(|(at, &state)| (TaskIx(0), at, state)).collect();
    instances.extend((0..states.len() as i32).map(|at| (TaskIx(1), at, TaskState::None)));
    let mut progress = Progress::mapped(Arc::new(graph), &[single(numbered(states.len()))], &instances);
    let pass = progress.pass();
    let below = (states.len()..2 * states.len()).map(|at| fate(&pass, &progress, InstanceIx(at as u32)));
    let found: Vec<&str> = below.collect();
    if row["expect_b"] == json!(found) { Ok(()) } else { Err(format!("they are to {found:?}")) }
}

/// `src -> dst.expand(x=src) -> after(all_done)`; every pass is made twice: incrementally, and with all instances changed.
fn check_expansion(row: &Value) -> Result<(), String> {
    let rule = json!("all_done");
    let graph = row_of(&[(&Value::Null, &[]), (&Value::Null, &[0]), (&rule, &[])]);
    let src = InstanceIx(0);
    let over = single(Input::Xcom(XcomInput { task: TaskIx(0), key: "return_value".to_owned() }));
    let started =
        [(TaskIx(0), -1, state(&row["src_state"])), (TaskIx(1), -1, TaskState::None), (TaskIx(2), -1, TaskState::None)];
    let mut progress = Progress::mapped(Arc::new(graph), &[over], &started);
    if let Some(length) = row["pushed_length"].as_u64() {
        progress.set_length(src, "return_value", Some(length as u32));
    }
    let mut whole = progress.clone();
    for (number, expected) in array(&row["passes"]).iter().enumerate() {
        whole.mark_all_changed();
        let pass = progress.pass();
        if whole.pass() != pass {
            return Err(format!("pass {number}: an incremental pass differs from a whole one"));
        }
        let run_state = match pass.verdict {
            Verdict::Running => "running",
            Verdict::Success => "success",
            Verdict::Failed(_) => "failed",
        };
        let name = |instance: InstanceIx| {
            let task = ["src", "dst", "after"][progress.task(instance).index()];
            format!("{task}[{}]", progress.map_index(instance))
        };
        let mut schedulable: Vec<String> = pass.schedulable.iter().map(|&instance| name(instance)).collect();
        schedulable.sort();
        let states: BTreeMap<String, Option<&str>> =
            (0..progress.len() as u32).map(InstanceIx).map(|at| (name(at), progress.state(at).as_nullable())).collect();
        let found = json!({ "schedulable": schedulable, "states": states, "run_state": run_state });
        if found != *expected {
            return Err(format!("pass {number}: {found}"));
        }
    }
    Ok(())
}

fn check(row: &Value) -> Result<(), String> {
    match text(&row["kind"]) {
        "downstream_of_mapped" => check_downstream(row),
        "mapped_group_pairwise" => check_pairwise(row),
        "runtime_expansion" => check_expansion(row),
        _ => check_arithmetic(row),
    }
}

#[test]
fn mapping_as_airflow_maps() {
    harness::conform("mapping", "mapping", &harness::cases("mapping"), check);
}
