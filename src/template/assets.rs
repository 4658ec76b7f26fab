//! `triggering_asset_events`, `inlet_events`, `inlets` and `outlets`: what a task sees of assets.

use std::sync::Arc;

use crate::jinja::Value;
use crate::jinja::dict::Dict;
use crate::jinja::fault::{Fault, Res};
use crate::jinja::json::from_json;
use crate::model::{AssetDefinition, AssetEvent, AssetName};
use crate::template::Context;
use crate::template::datetime::DateTime;

/// The most events of one inlet: the newest.
const MOST_EVENTS: u32 = 1_000;

/// By asset, in the order in which they first had one, the events that have led to the run; an asset that had none has the empty list
/// (Airflow: `TriggeringAssetEventsAccessor`, over a `defaultdict(list)`).
pub(super) fn triggering(context: &Arc<Context>) -> Res<Value> {
    let events = context.lookup.triggering_events(context.run.key).map_err(unanswered)?;
    let mut names: Vec<AssetName> = Vec::new();
    for event in &events {
        if !names.contains(&event.name) {
            names.push(event.name.clone());
        }
    }
    let of = |name: &AssetName| events.iter().filter(|event| event.name == *name).map(event_value).collect();
    Ok(Value::Dict(Dict::of_lists(names.iter().map(|name| (name.to_string(), Value::list(of(name)))))))
}

/// All of them in their order (Airflow: `dag_run.consumed_asset_events`).
pub(super) fn consumed(context: &Arc<Context>) -> Res<Value> {
    let events = context.lookup.triggering_events(context.run.key).map_err(unanswered)?;
    Ok(Value::list(events.iter().map(event_value).collect()))
}

/// By inlet, as the task names it, its newest events, oldest first.
pub(super) fn of_inlets(context: &Arc<Context>) -> Res<Value> {
    let mut found = Vec::new();
    for name in &context.dag.task(context.task).inlets {
        let events = context.lookup.asset_events(name, MOST_EVENTS).map_err(unanswered)?;
        found.push((name.to_string(), Value::list(events.iter().map(event_value).collect())));
    }
    Ok(Value::Dict(Dict::of_texts(found)))
}

/// By outlet, as the task names it, nothing yet: what a task says of them goes through `$MINFLOW_XCOM`.
pub(super) fn of_outlets(context: &Arc<Context>) -> Value {
    let names = context.dag.task(context.task).outlets.iter();
    Value::Dict(Dict::of_texts(names.map(|name| (name.to_string(), Value::Dict(Dict::of_texts([]))))))
}

/// Each with its uri, group and extra.
pub(super) fn named(context: &Arc<Context>, names: &[AssetName]) -> Res<Value> {
    let mut found = Vec::new();
    for name in names {
        let known = context.lookup.asset(name).map_err(unanswered)?;
        let AssetDefinition { name, uri, group, extra, .. } = known.unwrap_or_else(|| AssetDefinition::implied(name));
        found.push(asset_value(&name, &uri, &group, Some(from_json(&serde_json::Value::Object(extra)))));
    }
    Ok(Value::list(found))
}

fn unanswered(sentence: String) -> Box<Fault> {
    Fault::new("LookupError", sentence)
}

fn asset_value(name: &str, uri: &str, group: &str, extra: Option<Value>) -> Value {
    let texts = [("name", name), ("uri", uri), ("group", group)];
    let pairs = texts.into_iter().map(|(key, text)| (key.to_owned(), Value::text(text)));
    Value::Dict(Dict::of_texts(pairs.chain(extra.map(|extra| ("extra".to_owned(), extra)))))
}

fn event_value(event: &AssetEvent) -> Value {
    let source = event.source.as_ref();
    let text = |text: Option<&String>| text.map_or(Value::None, |text| Value::text(text.as_str()));
    let (dag_id, run_id) = (text(source.map(|source| &source.dag_id)), text(source.map(|source| &source.run_id)));
    let run = [("dag_id", dag_id.clone()), ("run_id", run_id.clone())];
    let run = source.map(|_| Value::Dict(Dict::of_texts(run.map(|(key, value)| (key.to_owned(), value)))));
    let pairs = [
        ("asset", asset_value(&event.name, &event.uri, &event.group, None)),
        ("uri", Value::text(event.uri.as_str())),
        ("timestamp", Value::object(DateTime::utc(event.timestamp))),
        ("extra", from_json(&serde_json::Value::Object(event.extra.clone()))),
        ("source_dag_id", dag_id),
        ("source_run_id", run_id),
        ("source_task_id", text(source.map(|source| &source.task_id))),
        ("source_map_index", source.map_or(Value::None, |source| Value::int(source.map_index))),
        ("source_dag_run", run.unwrap_or(Value::None)),
    ];
    Value::Dict(Dict::of_texts(pairs.map(|(key, value)| (key.to_owned(), value))))
}
