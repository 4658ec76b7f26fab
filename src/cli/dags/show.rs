//! `minflow dags show`: the graph of a DAG as text, under what there is to know of its runs.

use std::io::Write;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::cli::home::Home;
use crate::cli::output::{Format, Output, local_time, span};
use crate::cli::{Globals, Outcome, shape};
use crate::model::{Dag, Role, TaskIx, TriggerRule};

#[derive(Debug, Args)]
#[command(after_help = "A task that has been shown already, with what follows it, is marked `(above)`.\n\n\
    Example:\n  minflow dags show programs")]
pub struct Arguments {
    dag_id: String,
}

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = Home::open(globals)?;
    let definition = home.definition(&arguments.dag_id)?;
    let dag = &definition.dag;
    let known = home.dag_record(&definition)?;
    if matches!(output.format, Format::Json | Format::Yaml) {
        return Ok(output.record(&as_record(dag, &known), &[])?);
    }
    writeln!(
        output,
        "{}{}",
        dag.dag_id,
        if dag.description.is_empty() { String::new() } else { format!(": {}", dag.description) }
    )?;
    for (head, text) in facts(&known) {
        writeln!(output, "{head}: {text}")?;
    }
    if dag.fail_fast {
        writeln!(output, "fail_fast: the first task that fails for good ends the run")?;
    }
    for group in dag.groups.iter().filter(|group| !group.tooltip.is_empty()) {
        writeln!(output, "group {}: {}", group.group_id, group.tooltip)?;
    }
    for line in tree(dag) {
        writeln!(output, "{line}")?;
    }
    Ok(())
}

/// What a person wants to know of its runs; what is unknown is left out.
fn facts(known: &Value) -> Vec<(&'static str, String)> {
    let text = |name: &str| known[name].as_str();
    let time = |value: &Value| {
        let instant = value.as_str()?.parse::<Timestamp>().ok()?;
        Some(local_time(instant, &TimeZone::system()))
    };
    let mut facts = Vec::new();
    if let Some(words) = text("schedule_description") {
        // Only times of the day are in a zone.
        let is_by_the_clock = words.contains(':') || words.contains("hour ");
        let zone = text("timezone").filter(|_| is_by_the_clock).map(|zone| format!(", {zone}"));
        facts.push(("schedule", format!("{words}{}", zone.unwrap_or_default())));
    }
    if known["is_paused"] == true {
        let why = text("pause_reason").map(|reason| format!("{reason}; ")).unwrap_or_default();
        let dag_id = text("dag_id").unwrap_or_default();
        facts.push(("paused", format!("{why}nothing is started until `minflow dags unpause {dag_id}`")));
    }
    if let Some(next) = time(&known["next_dagrun_create_after"]) {
        facts.push(("next run", next));
    }
    let last = &known["last_run"];
    if let (Some(state), Some(at)) = (last["state"].as_str(), time(&last["run_after"])) {
        let lag = last["lag"].as_f64().map(|lag| format!(", began {} late", span(lag)));
        facts.push(("last run", format!("{state}, {at}{}", lag.unwrap_or_default())));
    }
    facts
}

fn as_record(dag: &Dag, known: &Value) -> Value {
    let ids = |tasks: &[TaskIx]| tasks.iter().map(|&ix| dag.task(ix).task_id.to_string()).collect::<Vec<_>>();
    let tasks: Vec<Value> = dag
        .graph
        .indexes()
        .map(|ix| {
            let mut record = json!({
                "task_id": dag.task(ix).task_id,
                "operator": dag.task(ix).operator.name(),
                "trigger_rule": dag.graph.node(ix).trigger_rule,
                "upstream": ids(dag.graph.upstream(ix)),
                "downstream": ids(dag.graph.downstream(ix)),
            });
            record.as_object_mut().expect("it was made as one").extend(shape::fields(dag, ix));
            record
        })
        .collect();
    let groups: Vec<Value> = dag
        .groups
        .iter()
        .map(|group| {
            let parent = group.parent.map(|parent| &dag.groups[parent.index()].group_id);
            json!({ "group_id": group.group_id, "parent": parent, "tooltip": group.tooltip })
        })
        .collect();
    json!({
        "dag_id": dag.dag_id,
        "schedule": known["schedule"],
        "schedule_description": known["schedule_description"],
        "timezone": known["timezone"],
        "next_dagrun_create_after": known["next_dagrun_create_after"],
        "last_run": known["last_run"],
        "fail_fast": dag.fail_fast,
        "groups": groups,
        "tasks": tasks,
    })
}

/// Deeper than this, a tree would be wider than any window: what follows is shown from the left again.
const DEEPEST: usize = 24;

/// One open branch of the tree.
struct Branch {
    task: TaskIx,
    /// What stands before the children of `task`.
    margin: String,
    depth: usize,
    next: usize,
}

/// The lines of the tree: every task once with all that follows it, roots first. Has a stack of its own, since a chain may be
/// 100,000 tasks long.
fn tree(dag: &Dag) -> Vec<String> {
    let graph = &dag.graph;
    let mut lines = Vec::new();
    let mut is_shown = vec![false; graph.len()];
    let mut roots: std::collections::VecDeque<TaskIx> =
        graph.indexes().filter(|&ix| graph.upstream(ix).is_empty()).collect();
    while let Some(root) = roots.pop_front() {
        if std::mem::replace(&mut is_shown[root.index()], true) {
            continue;
        }
        lines.push(label(dag, root));
        let mut stack = vec![Branch { task: root, margin: String::new(), depth: 0, next: 0 }];
        while let Some(branch) = stack.last_mut() {
            let children = graph.downstream(branch.task);
            let Some(&child) = children.get(branch.next) else {
                stack.pop();
                continue;
            };
            branch.next += 1;
            let is_last = branch.next == children.len();
            let (depth, margin) = (branch.depth + 1, branch.margin.clone());
            let arm = if is_last { "└─> " } else { "├─> " };
            let is_leaf = graph.downstream(child).is_empty();
            let remark = match (is_shown[child.index()], depth >= DEEPEST) {
                (true, _) if !is_leaf => " (above)",
                (false, true) if !is_leaf => {
                    roots.push_back(child);
                    " (below)"
                }
                _ => "",
            };
            lines.push(format!("{margin}{arm}{}{remark}", label(dag, child)));
            if remark.is_empty() {
                is_shown[child.index()] = true;
                let margin = margin + if is_last { "    " } else { "│   " };
                stack.push(Branch { task: child, margin, depth, next: 0 });
            }
        }
    }
    lines
}

/// A task with what is not usual about it.
fn label(dag: &Dag, ix: TaskIx) -> String {
    let (task, node) = (dag.task(ix), dag.graph.node(ix));
    let mut words = vec![task.operator.name().to_owned()];
    words.extend(shape::remarks(dag, ix));
    // A teardown has no other rule.
    let is_usual = match node.role {
        Role::Teardown { .. } => true,
        Role::Work | Role::Setup => node.trigger_rule == TriggerRule::AllSuccess,
    };
    if !is_usual {
        words.push(node.trigger_rule.to_string());
    }
    format!("{} [{}]", task.task_id, words.join(", "))
}
