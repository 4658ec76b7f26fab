//! What stories check of assets and callbacks: each event once, consumed once by each DAG that waits for it; one callback for each
//! end that names one, over crashes and failing commits.

use std::collections::{BTreeMap, BTreeSet};

use super::random::number_of;
use super::story::Story;
use crate::model::callback::{OccasionTask, Subject};
use crate::model::{AssetEvent, DagRun, Hook, Instance, RunState, RunType, TaskState};

impl Story {
    /// What holds after each turn.
    pub fn check_ties(&self) {
        let mut calls = BTreeSet::new();
        for row in self.simulation.store.callbacks() {
            let Some(task) = row.occasion.task.filter(|_| row.occasion.subject == Subject::Task) else { continue };
            let call = (task.instance, task.try_number, row.hook.as_str(), row.number);
            assert!(calls.insert(call), "{}[{}] called twice: {call:?}", task.task_id, task.map_index);
        }
        // Whatever has been cleared, paused, saved or lost meanwhile: no DAG consumes an event twice.
        let mut consumed = BTreeSet::new();
        for run in self.simulation.store.runs() {
            for event in self.simulation.store.triggering_events(run.key) {
                assert_eq!(run.run_type, RunType::AssetTriggered, "{}", run.run_id);
                assert!(consumed.insert((run.dag_id.clone(), event.key)), "{} consumes {event:?} again", run.run_id);
            }
        }
    }

    /// Whether the DAG's instances have come to their states by themselves, under one definition of their tasks.
    fn is_left_alone(&self, run: &DagRun) -> bool {
        let dag = number_of_dag(run);
        run.clear_number == 0 && !self.redrawn.contains(&dag) && !self.steered.contains(&dag)
    }

    /// At the end of the story: each try that came to something by itself has called whom its task names, and each run as well.
    pub fn check_calls(&self) {
        let calls = self.simulation.store.callbacks();
        let of_try = |row: &Instance, hook: Hook| {
            let is_it = |task: &OccasionTask| (task.instance, task.try_number) == (row.key, row.try_number);
            let of_task = calls.iter().filter(|call| call.occasion.subject == Subject::Task && call.hook == hook);
            of_task.filter(|call| call.occasion.task.as_ref().is_some_and(is_it)).count()
        };
        let mut tries = self.simulation.store.instances();
        tries.extend(self.simulation.store.history());
        for run in self.simulation.store.runs().iter().filter(|run| self.is_left_alone(run)) {
            let ties = &self.dags[number_of_dag(run)].ties;
            for row in tries.iter().filter(|row| row.run == run.key && row.try_number > 0) {
                // What failed because another one did was told by that.
                let is_by_itself = row.reason.as_deref() != Some("fail_fast");
                let hook = match row.state {
                    TaskState::Success => Hook::OnSuccess,
                    TaskState::Failed => Hook::OnFailure,
                    TaskState::UpForRetry => Hook::OnRetry,
                    _ => continue,
                };
                let expected = usize::from(is_by_itself && ties.hooks.contains(&hook.as_str()));
                let place = format!("{}.{}[{}] try {}", run.run_id, row.task_id, row.map_index, row.try_number);
                assert_eq!(of_try(row, hook), expected, "calls {} of {place}, which is {}", hook.as_str(), row.state);
            }
            let of_run = calls.iter().filter(|call| call.run == Some(run.key) && call.occasion.subject == Subject::Run);
            let hooks: Vec<Hook> = of_run.map(|call| call.hook).collect();
            let hook = if run.state == RunState::Success { Hook::OnSuccess } else { Hook::OnFailure };
            // A run that never began has not ended by itself.
            let is_called = ties.calls_at_ends && run.reason.as_deref() != Some(crate::scheduler::backfill::CANCELLED);
            assert_eq!(hooks, vec![hook; usize::from(is_called)], "calls of {}", run.run_id);
        }
    }

    /// At the end of the story: each success has had one event for each outlet, and a DAG that has always waited has consumed all up to
    /// its last run.
    pub fn check_events(&self) {
        let events = self.simulation.store.asset_events();
        let mut made: BTreeMap<(String, String, String, i32), Vec<String>> = BTreeMap::new();
        for event in &events {
            let source = event.source.clone().expect("only tasks produce here");
            let place = (source.dag_id, source.run_id, source.task_id, source.map_index);
            made.entry(place).or_default().push(event.name.to_string());
        }
        let rows = self.simulation.store.instances();
        for run in self.simulation.store.runs().iter().filter(|run| self.is_left_alone(run)) {
            let outlets = &self.dags[number_of_dag(run)].ties.outlets;
            for row in rows.iter().filter(|row| row.run == run.key) {
                let place = (run.dag_id.to_string(), run.run_id.to_string(), row.task_id.to_string(), row.map_index);
                let found = made.remove(&place).unwrap_or_default();
                let is_success = row.state == TaskState::Success;
                let named = outlets[number_of(&row.task_id)].iter().map(|&asset| asset.to_owned());
                let expected: Vec<String> = named.filter(|_| is_success).collect();
                assert_eq!(found, expected, "events of {place:?}, which is {}", row.state);
            }
        }
        for (at, dag) in self.dags.iter().enumerate() {
            let (None, Some(awaits)) = (dag.schedule, dag.ties.awaits) else { continue };
            if self.unsubscribed.contains(&at) || self.rescheduled.contains(&at) {
                continue;
            }
            let runs = self.simulation.store.runs().into_iter().filter(|run| number_of_dag(run) == at);
            let keys =
                |run: DagRun| self.simulation.store.triggering_events(run.key).into_iter().map(|event| event.key);
            let consumed: BTreeSet<i64> = runs.flat_map(keys).collect();
            let last = consumed.last().copied().unwrap_or_default();
            let is_meant = |event: &&AssetEvent| awaits.contains(event.name.as_str()) && event.key <= last;
            let expected: BTreeSet<i64> = events.iter().filter(is_meant).map(|event| event.key).collect();
            assert_eq!(consumed, expected, "what d{at} has consumed, which waits for {awaits}");
        }
    }
}

pub(super) fn number_of_dag(run: &DagRun) -> usize {
    run.dag_id[1..].parse().expect("DAGs are numbered")
}
