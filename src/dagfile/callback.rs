//! `on_success`, `on_failure` and their like, of a DAG and of its tasks.

use toml::Spanned;
use toml::de::DeValue;

use super::keys::TASK_HOOKS;
use super::{Reader, UnknownPools};
use crate::config;
use crate::keytable::{self, Fields};
use crate::model::callback::{Action, Callback, Hook, TaskCallbacks};

impl Reader<'_, '_> {
    /// A DAG's callbacks: its own, which may be none, else those of `[defaults]`.
    pub(super) fn dag_callbacks(&mut self, fields: &Fields<'_>, hook: Hook, defaults: &[Callback]) -> Vec<Callback> {
        if fields.get(hook.as_str()).is_none() {
            return defaults.to_vec();
        }
        self.check_callbacks(fields, hook);
        self.callbacks(fields, hook)
    }

    /// What can be wrong in the callbacks of a task, or of `default_args`.
    pub(super) fn check_task_callbacks(&mut self, fields: &Fields<'_>) {
        for hook in TASK_HOOKS {
            self.check_callbacks(fields, hook);
        }
    }

    fn check_callbacks(&mut self, fields: &Fields<'_>, hook: Hook) {
        let known = (self.defaults.unknown_pools == UnknownPools::Refused).then_some(&self.defaults.notifiers);
        config::check_callbacks(fields.list(hook.as_str()), hook, known, self.faults);
    }

    fn callbacks(&self, fields: &Fields<'_>, hook: Hook) -> Vec<Callback> {
        fields.list(hook.as_str()).iter().filter_map(|item| self.callback(item)).collect()
    }

    /// One that has been checked; None if it has a fault.
    pub(super) fn callback(&self, item: &Spanned<DeValue<'_>>) -> Option<Callback> {
        let mut callback = config::read_callback(&keytable::json(item.get_ref())?, self.position(item))?;
        // A script's faults are shown at its own lines.
        if let Some(script) = item.get_ref().as_table().and_then(|table| table.get("bash")) {
            callback.action = Action::Bash(self.template(script));
        }
        Some(callback)
    }

    /// Those of a task; `of` gives the table that has the hook's key, its own or that of a `default_args`.
    pub(super) fn task_callbacks<'d>(&self, of: impl Fn(&str) -> Option<Fields<'d>>) -> Option<Box<TaskCallbacks>> {
        let read = |hook: Hook| of(hook.as_str()).map_or_else(Vec::new, |fields| self.callbacks(&fields, hook));
        let callbacks = TaskCallbacks {
            on_execute: read(Hook::OnExecute),
            on_success: read(Hook::OnSuccess),
            on_failure: read(Hook::OnFailure),
            on_retry: read(Hook::OnRetry),
            on_skipped: read(Hook::OnSkipped),
        };
        let has_any = callbacks.iter().next().is_some();
        has_any.then(|| Box::new(callbacks))
    }
}
