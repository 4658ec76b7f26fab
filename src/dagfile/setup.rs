//! Setups and teardowns (SEMANTICS 20), and the trigger rules that they and `fail_fast` allow.

use std::collections::BTreeSet;
use std::ops::Range;

use super::edges::{Edge, Relation};
use super::outline::{Member, Outline, TaskEntry};
use super::{Reader, keys};
use crate::keytable::Fields;
use crate::model::graph::{Node, Role, TaskIx};
use crate::model::state::TriggerRule;

impl TaskEntry<'_> {
    fn fields(&self) -> Option<Fields<'_>> {
        self.document.map(|document| Fields::new(&keys::TASK, document))
    }

    fn is_setup(&self) -> bool {
        self.fields().and_then(|fields| fields.bool("setup")).unwrap_or(false)
    }
}

impl Reader<'_, '_> {
    /// Gives the nodes their roles, and the teardowns their rule. The arrows from setups to their teardowns are answered.
    pub(super) fn roles(&mut self, outline: &Outline<'_>, nodes: &mut [Node]) -> Vec<Relation> {
        let mut relations = Vec::new();
        for ((entry, node), at) in outline.tasks.iter().zip(nodes).zip(0..) {
            let Some(fields) = entry.fields() else { continue };
            let is_teardown = !fields.list("teardown_of").is_empty();
            if is_teardown {
                node.role = self.teardown(TaskIx(at), &fields, outline, &mut relations);
                node.trigger_rule = TriggerRule::AllDoneSetupSuccess;
            } else if entry.is_setup() {
                node.role = Role::Setup;
            }
            if let Some((span, value)) = fields.entry("on_failure_fail_dagrun")
                && !is_teardown
                && value.get_ref().as_bool() == Some(true)
            {
                let message = "only a teardown can have `on_failure_fail_dagrun`";
                let help =
                    "remove it: the failure of any other task counts for the run; or name its setups by `teardown_of`";
                self.faults.add(span, "bad-teardown", message, help);
            }
        }
        relations
    }

    fn teardown(
        &mut self,
        task: TaskIx,
        fields: &Fields<'_>,
        outline: &Outline<'_>,
        relations: &mut Vec<Relation>,
    ) -> Role {
        let entry = &outline.tasks[task.index()];
        if entry.is_setup() {
            let span = fields.entry("teardown_of").map_or(entry.name.clone(), |(span, _)| span);
            let message = format!("task `{}` cannot be both a setup and a teardown", entry.id);
            self.faults.add(span, "bad-teardown", message, "keep one, and make a second task of the other");
        }
        if let Some(value) = fields.get("trigger_rule")
            && fields.text("trigger_rule") != Some(TriggerRule::AllDoneSetupSuccess.as_str())
        {
            let message = "a teardown runs by the rule `all_done_setup_success` alone";
            self.faults.add(value.span(), "bad-trigger-rule", message, "remove `trigger_rule` here");
        }
        let mut setups = Vec::new();
        for item in fields.list("teardown_of") {
            let Some(setup) = self.find_task(outline, item, entry.group) else { continue };
            let named = &outline.tasks[setup.index()];
            if !named.is_setup() && setup != task {
                let message = format!("task `{}` is no setup", named.id);
                let help = "write `setup = true` in its table, or name by `depends_on` what is not set up";
                self.faults.add(item.span(), "bad-teardown", message, help);
            }
            if !setups.contains(&setup) {
                setups.push(setup);
            }
            let relation = Relation { from: Member::Task(setup), to: Member::Task(task), span: item.span() };
            self.relate(relation, outline, relations);
        }
        let on_failure_fail_dagrun = fields.bool("on_failure_fail_dagrun").unwrap_or(false);
        Role::Teardown { setups, on_failure_fail_dagrun }
    }

    /// Rules that the DAG as a whole refuses (Airflow: `DAG.validate_setup_teardown`, `FailFastDagInvalidTriggerRule`).
    pub(super) fn check_rules(&mut self, is_fail_fast: bool, outline: &Outline<'_>, nodes: &[Node], edges: &[Edge]) {
        let after_setups: BTreeSet<(TaskIx, TaskIx)> = edges
            .iter()
            .filter(|edge| nodes[edge.from.index()].role == Role::Setup)
            .filter(|edge| !matches!(nodes[edge.to.index()].role, Role::Teardown { .. }))
            .map(|edge| (edge.to, edge.from))
            .collect();
        for (task, at) in outline.tasks.iter().zip(0..) {
            let rule = nodes[at as usize].trigger_rule;
            if rule == TriggerRule::AllSuccess {
                continue;
            }
            if let Some(&(_, setup)) =
                after_setups.range((TaskIx(at), TaskIx(0))..).next().filter(|pair| pair.0.0 == at)
            {
                let message = format!(
                    "task `{}` comes right after the setup `{}`, so its rule can only be `all_success`, not `{rule}`",
                    task.id,
                    outline.id(Member::Task(setup)),
                );
                let help = "remove the rule, or put a task between the two";
                self.faults.add(rule_span(task, outline), "bad-trigger-rule", message, help);
            }
            if is_fail_fast && rule != TriggerRule::AllDoneSetupSuccess {
                let message = format!("task `{}` has the rule `{rule}`, which `fail_fast` does not allow", task.id);
                let help =
                    "use `all_success`, or remove `fail_fast`: with it nothing runs after a failure but teardowns";
                self.faults.add(rule_span(task, outline), "bad-trigger-rule", message, help);
            }
        }
    }
}

/// Where a task's rule stands: in its own table, or in `default_args`.
pub(super) fn rule_span(task: &TaskEntry<'_>, outline: &Outline<'_>) -> Range<usize> {
    let own = task.fields();
    let mut layers = own.iter().chain(outline.defaults(task.group));
    layers.find_map(|fields| fields.get("trigger_rule")).map_or(task.name.clone(), |value| value.span())
}
