//! The operators `trigger_dag` and `external_task_marker`.

use std::ops::Range;

use serde_json::{Map, Value};
use toml::de::DeValue;

use super::Reader;
use crate::keytable::{self, Fields};
use crate::model::dag::{Operator, Position, Template};
use crate::model::state::RunState;
use crate::model::trigger_dag::{AwaitedStates, Existing, ExternalTaskMarker, TriggerDag};

impl Reader<'_, '_> {
    /// `key` is where `trigger_dag` stands.
    pub(super) fn trigger_dag(&mut self, key: Range<usize>, fields: &Fields<'_>) -> Operator {
        let dag_id = match fields.get("dag_id") {
            Some(dag_id) => self.template(dag_id),
            None => {
                let help = "write for example `trigger_dag = { dag_id = \"report\" }`";
                self.faults.add(key, "bad-operator", "no DAG is named that is to run", help);
                Template { text: String::new(), at: Position::default() }
            }
        };
        let [resets, skips] = ["reset_dag_run", "skip_when_already_exists"].map(|name| fields.bool(name) == Some(true));
        let existing = match (resets, skips) {
            // Airflow looks at `reset_dag_run` first.
            (true, _) => Existing::Reset,
            (false, true) => Existing::Skipped,
            (false, false) => Existing::Refused,
        };
        let conf = fields.get("conf");
        Operator::TriggerDag(Box::new(TriggerDag {
            dag_id,
            conf_at: conf.map(|value| self.position(value)).unwrap_or_default(),
            conf: conf.and_then(|value| keytable::json(value.get_ref())).unwrap_or(Value::Object(Map::new())),
            logical_date: fields.get("logical_date").map(|value| self.template(value)),
            run_id: fields.get("run_id").map(|value| self.template(value)),
            existing,
            wait: self.awaited_states(fields),
        }))
    }

    /// `key` is where `external_task_marker` stands.
    pub(super) fn external_task_marker(&mut self, key: Range<usize>, fields: &Fields<'_>) -> Operator {
        let (Some(dag_id), Some(task_id)) = (fields.text("dag_id"), fields.text("task_id")) else {
            let help =
                "write for example `external_task_marker = { dag_id = \"report\", task_id = \"wait_for_load\" }`";
            self.faults.add(key, "bad-operator", "it needs the `dag_id` and the `task_id` that it marks", help);
            return Operator::Empty;
        };
        Operator::ExternalTaskMarker(Box::new(ExternalTaskMarker {
            dag_id: dag_id.into(),
            task_id: task_id.into(),
            execution_delta: fields.duration("execution_delta").unwrap_or_default(),
        }))
    }

    /// None: it does not wait.
    fn awaited_states(&mut self, fields: &Fields<'_>) -> Option<AwaitedStates> {
        let waits = fields.bool("wait_for_completion") == Some(true);
        for name in ["poke_interval", "allowed_states", "failed_states"] {
            if let (Some((span, _)), false) = (fields.entry(name), waits) {
                let message = format!("`{name}` means nothing to a task that does not wait");
                self.faults.add(span, "bad-operator", message, "add `wait_for_completion = true`, or remove it");
            }
        }
        let allowed = states(fields, "allowed_states").unwrap_or_else(|| vec![RunState::Success]);
        let failed = states(fields, "failed_states").unwrap_or_else(|| vec![RunState::Failed]);
        if let Some(both) = allowed.iter().find(|state| failed.contains(state)) {
            let named = fields.entry("allowed_states").or_else(|| fields.entry("failed_states"));
            let message = format!("`{both}` is among the `allowed_states` and among the `failed_states`");
            let span = named.map_or(0..0, |(span, _)| span);
            self.faults.add(
                span,
                "bad-operator",
                message,
                "name it in one of them; `failed_states` is [\"failed\"] if it is left out",
            );
        }
        waits.then_some(AwaitedStates { allowed, failed })
    }
}

fn states(fields: &Fields<'_>, name: &str) -> Option<Vec<RunState>> {
    let DeValue::Array(list) = fields.get(name)?.get_ref() else { return None };
    Some(list.iter().filter_map(|item| item.get_ref().as_str()?.parse().ok()).collect())
}
