//! Tries that stand still: whose processes are stopped, and their timeouts with them, until they are to go on.
//!
//! A paused instance stays `running` and keeps its slots. Nothing survives a restart: the supervisor ends what it had.

use serde_json::json;

use super::refusal;
use crate::diagnostic::did_you_mean;
use crate::model::{RunId, TaskId, TaskState, TryKey};
use crate::scheduler::change::PauseWrite;
use crate::scheduler::command::{CommandError, Done, PauseTask, Reply};
use crate::scheduler::port::{Force, Kill};
use crate::scheduler::steer::unreadable;
use crate::scheduler::tries::STOPPED;
use crate::scheduler::world::{Action, History, Now, World};

impl World {
    /// Pauses what runs of a task in a run, or has it go on.
    pub(super) fn set_task_paused(&mut self, asked: PauseTask, now: Now, history: &mut dyn History) -> Reply {
        let PauseTask { dag_id, run_id, task_id, map_index, is_paused } = asked;
        if is_paused && self.stopping.is_some() {
            let help = "what still runs is given `scheduler.drain_timeout`".to_owned();
            return Err(refusal("stopping", "minflow is stopping".to_owned(), help));
        }
        let keys = self.running_tries(&dag_id, &run_id, &task_id, map_index, history)?;
        let mut changed = 0;
        for &key in &keys {
            if is_paused == self.paused.contains(&key) {
                continue;
            }
            changed += 1;
            let paused_at = is_paused.then_some(now.wall);
            self.changes.pauses.push(PauseWrite { key, paused_at });
            self.actions.push(if is_paused { Action::Pause(key) } else { Action::Resume(key) });
            if is_paused {
                self.paused.insert(key);
            } else {
                self.paused.remove(&key);
            }
        }
        if changed > 0 {
            let event = if is_paused { "pause_task" } else { "resume_task" };
            let extra = if map_index.is_some() { json!({ "map_index": map_index }) } else { json!({}) };
            self.audit(now, event, Some(&dag_id), Some(&run_id), extra);
            if let Some(entry) = self.changes.audit.last_mut() {
                entry.task_id = Some(task_id.to_string());
            }
        }
        Ok(Done::TaskPausedSet { changed, unchanged: keys.len() as u32 - changed })
    }

    /// The tries of the task's instances that run: of all, or of the one with the index.
    fn running_tries(
        &self,
        dag_id: &str,
        run_id: &RunId,
        task_id: &TaskId,
        map_index: Option<i32>,
        history: &mut dyn History,
    ) -> Result<Vec<TryKey>, CommandError> {
        let ix = self.known_dag(dag_id)?;
        let row = self.known_run(ix, run_id, history)?;
        let live = self.known_runs(ix).find(|&run| self.run(run).row.key == row.key);
        let rows = match live {
            Some(run) => self.run(run).instances.iter().map(|entry| entry.row.clone()).collect(),
            None => history.instances(row.key).map_err(unreadable)?,
        };
        let help = format!("`minflow tasks states-for-dag-run {dag_id} {run_id}` shows which there are");
        let of_task: Vec<_> = rows.iter().filter(|row| row.task_id == *task_id).collect();
        if of_task.is_empty() {
            let near = did_you_mean(task_id, rows.iter().map(|row| row.task_id.as_str()));
            let help = near.map_or(help, |near| format!("did you mean `{near}`?"));
            return Err(refusal("unknown-task", format!("run `{run_id}` has no task `{task_id}`"), help));
        }
        let meant: Vec<_> =
            of_task.into_iter().filter(|row| map_index.is_none_or(|index| row.map_index == index)).collect();
        if let (Some(index), true) = (map_index, meant.is_empty()) {
            let message = format!("run `{run_id}` has no instance of map index {index} of `{task_id}`");
            return Err(refusal("unknown-map-index", message, help));
        }
        let is_running = |row: &&&crate::model::Instance| row.state == TaskState::Running && live.is_some();
        let running: Vec<TryKey> = meant
            .iter()
            .filter(is_running)
            .map(|row| row.try_key())
            .filter(|key| self.held.contains_key(key))
            .collect();
        if running.is_empty() {
            let state = match &meant[..] {
                [one] => format!("`{task_id}` does not run: it is {}", worded(one.state)),
                _ => format!("none of the {} instances of `{task_id}` runs", meant.len()),
            };
            let help =
                "only a running task can be paused, and go on; `minflow dags pause` holds back new runs".to_owned();
            return Err(refusal("not-running", state, help));
        }
        Ok(running)
    }

    /// A try is over: it stands still no longer.
    pub(in crate::scheduler) fn forget_pause(&mut self, key: TryKey) {
        if !self.paused.is_empty() && self.paused.remove(&key) {
            self.changes.pauses.push(PauseWrite { key, paused_at: None });
        }
    }

    /// Ends what stands still, since it would not end by itself: minflow stops.
    pub(in crate::scheduler) fn end_paused(&mut self) {
        for &key in &self.paused {
            self.actions.push(Action::Kill(key, Kill { reason: STOPPED.to_owned(), force: Force::Graceful }));
        }
    }
}

fn worded(state: TaskState) -> String {
    match state {
        TaskState::None => "waiting for what it depends on".to_owned(),
        state => format!("`{state}`"),
    }
}
