//! How an instance came to its state, from the rows of its run alone.

use std::collections::BTreeMap;

use crate::model::instance::reason_in_words;
use crate::model::{Dag, DagRun, Instance, RunState, SkipDecision, TaskIx, TaskState};
use crate::scheduler::explain::{Finding, Holder, TaskFinding};

/// How many upstream tasks one sentence names.
const MAX_NAMED: usize = 5;

/// Nothing was wrong with such a task: what its user can do is to have it run again.
const LOST_FOR_GOOD: &str = "; no try follows: `retries` gives it more, and `minflow tasks clear` has it run again";

/// A run with its instances, as a finding looks at them.
pub(super) struct Scene<'a> {
    pub run: &'a DagRun,
    dag: Option<&'a Dag>,
    pub rows: Vec<&'a Instance>,
    decisions: Vec<(&'a Instance, &'a SkipDecision)>,
    by_task: BTreeMap<&'a str, Vec<&'a Instance>>,
}

impl<'a> Scene<'a> {
    pub fn new(
        run: &'a DagRun,
        dag: Option<&'a Dag>,
        rows: impl IntoIterator<Item = &'a Instance>,
        decisions: impl IntoIterator<Item = (&'a Instance, &'a SkipDecision)>,
    ) -> Self {
        let rows: Vec<&Instance> = rows.into_iter().collect();
        let mut by_task: BTreeMap<&str, Vec<&Instance>> = BTreeMap::new();
        for row in &rows {
            by_task.entry(&row.task_id).or_default().push(row);
        }
        Self { run, dag, rows, decisions: decisions.into_iter().collect(), by_task }
    }

    /// A finding about one of its instances.
    pub fn of(&self, row: &Instance, finding: Finding) -> TaskFinding {
        TaskFinding {
            dag_id: self.run.dag_id.clone(),
            run_id: self.run.run_id.clone(),
            task_id: row.task_id.clone(),
            map_index: row.map_index,
            state: row.state,
            try_number: row.try_number,
            finding,
        }
    }

    /// What became of the run, or how far it is.
    pub fn run_finding(&self) -> Finding {
        let over = self.rows.iter().filter(|row| row.state.is_finished()).count();
        let count = format!("{over} of {} task instances are over", self.rows.len());
        let why = self.run.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        match self.run.state {
            RunState::Success => Finding::plain("succeeded").since(self.run.end_date),
            RunState::Failed => {
                let failed = self.rows.iter().filter(|row| row.state == TaskState::Failed).count();
                Finding::plain(format!("failed{why}: {failed} of {} task instances failed", self.rows.len()))
                    .since(self.run.end_date)
            }
            RunState::Running => Finding::plain(format!("runs: {count}")).since(self.run.start_date),
            RunState::Queued => Finding::plain("waits for its start").since(self.run.queued_at),
        }
    }

    /// What an instance that waits for nothing is doing, or what became of it.
    pub fn fate(&self, row: &Instance) -> Finding {
        match row.state {
            TaskState::None => Finding::plain("has not begun"),
            TaskState::Scheduled => Finding::plain("may run, and has no slot yet").since(row.scheduled_at),
            TaskState::Queued => Finding::plain("has a slot, and is being started").since(row.queued_at),
            TaskState::Running => {
                let process = row.process.as_ref().map(|process| format!(" as process {}", process.pid));
                Finding::plain(format!("runs{}", process.unwrap_or_default())).since(row.start_date)
            }
            TaskState::Restarting => {
                Finding::plain("is being ended, and is then done over again").since(row.start_date)
            }
            TaskState::UpForReschedule | TaskState::Deferred | TaskState::AwaitingInput => {
                let words = row.deferral.as_ref().map(|wait| wait.words()).or_else(|| row.reason.clone());
                let finding = Finding::shut("deferred", words.unwrap_or_else(|| "waits".to_owned()));
                finding.since(row.deferral.as_ref().map(|wait| wait.since).or(row.start_date))
            }
            TaskState::UpForRetry => {
                let ending = ending(row);
                Finding::shut("retry_delay", format!("{} {ending}; the next waits for its delay", of_tries(row)))
                    .since(row.end_date)
            }
            TaskState::Success => match &row.reason {
                Some(reason) => Finding::plain(format!("succeeded: {reason}")),
                None => Finding::plain("succeeded"),
            }
            .since(row.end_date),
            TaskState::Failed if row.try_number == 0 => Finding::plain(ending(row)).since(row.end_date),
            TaskState::Failed => {
                let next = if row.exit_cause() == Some("lost") { LOST_FOR_GOOD } else { "" };
                Finding::plain(format!("{} {}{next}", of_tries(row), ending(row))).since(row.end_date)
            }
            TaskState::UpstreamFailed => Finding::plain(self.by_rule(row)).since(row.end_date),
            TaskState::Skipped => Finding::plain(self.skipped(row)).since(row.end_date),
            TaskState::Removed => Finding::plain("the live definition has no such task").since(row.end_date),
        }
    }

    fn skipped(&self, row: &Instance) -> String {
        if let Some(code) = row.exit_code {
            return format!("it skipped itself with exit code {code}");
        }
        if let Some(reason) = &row.reason {
            return reason.clone();
        }
        let by = self.decisions.iter().find(|(decider, decision)| self.is_cut_off(row, decider, decision));
        match by {
            Some((decider, SkipDecision::Followed(ids))) if ids.is_empty() => {
                format!("`{}` chose none of the tasks after it", decider.task_id)
            }
            Some((decider, SkipDecision::Followed(ids))) => {
                let chosen: Vec<_> = ids.iter().map(|id| format!("`{id}`")).collect();
                format!("`{}` chose {}", decider.task_id, chosen.join(", "))
            }
            Some((decider, SkipDecision::Skipped(_))) => format!("`{}` skipped what comes after it", decider.task_id),
            None => self.by_rule(row),
        }
    }

    fn is_cut_off(&self, row: &Instance, decider: &Instance, decision: &SkipDecision) -> bool {
        match decision {
            SkipDecision::Skipped(ids) => ids.contains(&row.task_id),
            SkipDecision::Followed(ids) => {
                let is_next = self.upstream(row).iter().any(|id| **id == *decider.task_id);
                is_next && !ids.contains(&row.task_id)
            }
        }
    }

    /// Which of its upstream tasks kept an instance from running.
    fn by_rule(&self, row: &Instance) -> String {
        let Some((dag, ix)) = self.task(row) else {
            return "its trigger rule was not met; no file defines its task any longer".to_owned();
        };
        let rule = dag.graph.node(ix).trigger_rule;
        let culprits = |state: TaskState| state != TaskState::Success;
        match self.named(row, culprits) {
            Some(named) => format!("trigger rule `{rule}` is not met: {named}"),
            None => format!("trigger rule `{rule}` is not met: all that runs before it has succeeded"),
        }
    }

    /// The direct upstream tasks that have instances in such states, with these: "`a` is failed, `b` is running (2 of 10)".
    pub fn named(&self, row: &Instance, is_meant: impl Fn(TaskState) -> bool) -> Option<String> {
        let upstream = self.upstream(row);
        let mut named = Vec::new();
        for id in &upstream {
            let Some(rows) = self.by_task.get(*id) else {
                named.push(format!("`{id}` has no instances yet"));
                continue;
            };
            let mut counts: BTreeMap<TaskState, usize> = BTreeMap::new();
            for row in rows.iter().filter(|row| is_meant(row.state)) {
                *counts.entry(row.state).or_default() += 1;
            }
            named.extend(counts.iter().map(|(state, count)| match rows.len() {
                1 => format!("`{id}` is {state}"),
                all => format!("`{id}` is {state} ({count} of {all})"),
            }));
        }
        let more = named.len().saturating_sub(MAX_NAMED);
        named.truncate(MAX_NAMED);
        if more > 0 {
            named.push(format!("and {more} more"));
        }
        (!named.is_empty()).then(|| named.join(", "))
    }

    /// The unfinished instances right before an instance.
    pub fn pending(&self, row: &Instance) -> Vec<Holder> {
        let rows = self.upstream(row).into_iter().filter_map(|id| self.by_task.get(id)).flatten();
        rows.filter(|row| !row.state.is_finished()).map(|row| self.holder(row, 1)).collect()
    }

    pub fn holder(&self, row: &Instance, units: u32) -> Holder {
        holder(self.run, row, units)
    }

    fn upstream(&self, row: &Instance) -> Vec<&'a str> {
        let Some((dag, ix)) = self.task(row) else { return Vec::new() };
        dag.graph.upstream(ix).iter().map(|&up| dag.task(up).task_id.as_str()).collect()
    }

    fn task(&self, row: &Instance) -> Option<(&'a Dag, TaskIx)> {
        let dag = self.dag?;
        let place = dag.tasks.iter().position(|task| task.task_id == row.task_id)?;
        Some((dag, TaskIx(place as u32)))
    }
}

/// An instance of `run` that others wait for.
pub(super) fn holder(run: &DagRun, row: &Instance, units: u32) -> Holder {
    Holder {
        dag_id: run.dag_id.clone(),
        run_id: run.run_id.clone(),
        task_id: Some(row.task_id.clone()),
        map_index: row.map_index,
        state: row.state.to_string(),
        units,
        since: row.start_date.filter(|_| row.state != TaskState::Scheduled).or(row.queued_at),
        expected_end: None,
    }
}

/// How the last try ended, as the end of a sentence.
fn ending(row: &Instance) -> String {
    let reason = row.reason.as_ref().and_then(|reason| reason.lines().next());
    match (reason, row.exit_code, row.signal) {
        (Some(reason), _, _) => reason_in_words(reason).unwrap_or_else(|| format!("failed: {reason}")),
        (None, Some(code), _) => format!("failed with exit code {code}"),
        (None, None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None, None) => "failed".to_owned(),
    }
}

fn of_tries(row: &Instance) -> String {
    format!("try {} of {}", row.try_number, row.max_tries.max(row.try_number.saturating_sub(1)) + 1)
}
