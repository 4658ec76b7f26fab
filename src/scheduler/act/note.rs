//! Notes that users write to runs and task instances.

use serde_json::json;

use super::refusal;
use crate::model::{RunId, TaskId};
use crate::scheduler::change::NoteWrite;
use crate::scheduler::command::{Done, Reply};
use crate::scheduler::steer::unreadable;
use crate::scheduler::world::{History, Now, World};

/// As Airflow.
const MAX_NOTE_CHARS: usize = 1_000;

impl World {
    pub(super) fn write_note(
        &mut self,
        dag_id: &str,
        run_id: &RunId,
        task: Option<(TaskId, i32)>,
        note: Option<String>,
        now: Now,
        history: &mut dyn History,
    ) -> Reply {
        if let Some(count) = note.as_ref().map(|note| note.chars().count()).filter(|count| *count > MAX_NOTE_CHARS) {
            let message = format!("the note has {count} characters, and a note has at most {MAX_NOTE_CHARS}");
            return Err(refusal("invalid-note", message, "write less, and point to the rest".to_owned()));
        }
        let ix = self.known_dag(dag_id)?;
        let row = self.known_run(ix, run_id, history)?;
        let instance = match &task {
            None => None,
            Some((task_id, map_index)) => {
                let live = self.known_runs(ix).find(|&run| self.run(run).row.key == row.key);
                let rows = match live {
                    Some(run) => self.run(run).instances.iter().map(|entry| entry.row.clone()).collect(),
                    None => history.instances(row.key).map_err(unreadable)?,
                };
                let is_meant = |row: &&crate::model::Instance| row.task_id == *task_id && row.map_index == *map_index;
                let Some(found) = rows.iter().find(is_meant) else {
                    let index = if *map_index < 0 { String::new() } else { format!(" of map index {map_index}") };
                    let message = format!("run `{run_id}` has no instance{index} of `{task_id}`");
                    let help = format!("`minflow tasks states-for-dag-run {dag_id} {run_id}` shows which there are");
                    return Err(refusal("unknown-task", message, help));
                };
                Some(found.key)
            }
        };
        let mut extra = json!({ "note": note });
        if let Some((_, map_index)) = task.as_ref().filter(|(_, map_index)| *map_index >= 0) {
            extra["map_index"] = (*map_index).into();
        }
        self.audit(now, "note", Some(&dag_id.into()), Some(run_id), extra);
        if let (Some((task_id, _)), Some(entry)) = (task, self.changes.audit.last_mut()) {
            entry.task_id = Some(task_id.to_string());
        }
        self.changes.notes.push(NoteWrite { run: row.key, instance, note });
        Ok(Done::Noted)
    }
}
