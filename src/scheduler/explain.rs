//! Why does it not run, and how did it come to its state? One answer for commands, pages and the log.
//!
//! It is asked of the state that decides ([`reason`](super::reason)), and changes nothing. A run that is over is read from the
//! database. How long the holders of a limit usually take is not known here: who shows the answer tells it
//! ([`Explanation::expect`]).

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::diagnostic::did_you_mean;
use crate::model::{DagId, Instance, RunId, RunState, TaskId, TaskState, TryKey};
use crate::scheduler::change::RunLookup;
use crate::scheduler::command::{CommandError, RunningTry};
use crate::scheduler::steer::{refusal, unreadable};
use crate::scheduler::world::{DagIx, History, Now, RunIx, Slot, World};

use self::fate::Scene;

mod fate;
mod gate;
mod words;

/// How many instances one answer tells of; of the others it says how many they are.
const MAX_INSTANCES: usize = 1_000;
/// How many holders of a limit one finding names.
const MAX_HOLDERS: usize = 10;

/// What is known of a run and of those of its task instances that were asked about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    pub dag_id: DagId,
    pub run_id: RunId,
    pub state: RunState,
    /// Of the run itself.
    pub run: Finding,
    /// In the order of the run; without a task asked about, all but those that have succeeded.
    pub tasks: Vec<TaskFinding>,
    /// How many more there are.
    pub omitted: u32,
}

/// What is known of one task instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskFinding {
    pub dag_id: DagId,
    pub run_id: RunId,
    pub task_id: TaskId,
    /// -1 unless mapped.
    pub map_index: i32,
    pub state: TaskState,
    pub try_number: u32,
    pub finding: Finding,
}

/// Why something is where it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The gate that is shut, in lower case with `_`, e.g. `pool_full`; None: nothing keeps it.
    pub gate: Option<String>,
    /// A sentence without a full stop, and without the instants and holders below.
    pub message: String,
    /// Since when it is as it is.
    pub since: Option<Timestamp>,
    /// When the gate opens: a deadline, or what [`Explanation::expect`] has worked out.
    pub until: Option<Timestamp>,
    /// Whether `until` is what holders usually take, and not a deadline.
    pub is_expected: bool,
    /// Who holds what it waits for, the one that has it longest first.
    pub held_by: Vec<Holder>,
    /// How many more holders there are.
    pub more_holders: u32,
    /// How many of the holders' `units` must come free; 0 if no holder's end opens the gate by itself.
    pub wants: u32,
}

/// A run, or an instance of one, that others wait for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    pub dag_id: DagId,
    pub run_id: RunId,
    /// None: the whole run is meant.
    pub task_id: Option<TaskId>,
    pub map_index: i32,
    pub state: String,
    /// Of the limit: slots of a pool, else 1.
    pub units: u32,
    pub since: Option<Timestamp>,
    /// By what it usually takes; None: that is not known, or is over.
    pub expected_end: Option<Timestamp>,
}

/// How long a task's try usually takes, or, without a task, a DAG's run.
pub type Usual<'a> = dyn FnMut(&DagId, Option<&TaskId>) -> Option<Duration> + 'a;

impl Explanation {
    /// Nobody has looked at the DAG files, and nobody will: the answer comes from a world that no scheduler runs.
    pub fn say_not_running(&mut self) {
        let findings = self.tasks.iter_mut().map(|task| &mut task.finding).chain([&mut self.run]);
        for finding in findings.filter(|finding| finding.gate.as_deref() == Some(gate::NOT_SCANNED)) {
            finding.gate = Some("not_running".to_owned());
            finding.message = "minflow is not running; `minflow run` starts it".to_owned();
        }
    }

    /// Works out when holders usually end, and with it when gates open that no deadline opens.
    pub fn expect(&mut self, usual: &mut Usual<'_>, now: Timestamp) {
        self.run.expect(usual, now);
        for task in &mut self.tasks {
            task.finding.expect(usual, now);
        }
    }
}

impl Finding {
    /// See [`Explanation::expect`].
    pub fn expect(&mut self, usual: &mut Usual<'_>, now: Timestamp) {
        for holder in &mut self.held_by {
            let lasts = usual(&holder.dag_id, holder.task_id.as_ref());
            let end = holder.since.zip(lasts).and_then(|(since, lasts)| since.checked_add(lasts).ok());
            holder.expected_end = end.filter(|&end| end > now);
        }
        if self.until.is_some() || self.wants == 0 {
            return;
        }
        let mut ends: Vec<_> = self.held_by.iter().filter_map(|h| h.expected_end.map(|end| (end, h.units))).collect();
        ends.sort_unstable();
        let mut open = 0;
        let enough = ends.iter().find(|(_, units)| {
            open += units;
            open >= self.wants
        });
        self.until = enough.map(|&(end, _)| end);
        self.is_expected = self.until.is_some();
    }
}

/// Which instances are meant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainedTask {
    pub task_id: TaskId,
    /// None: all of its instances.
    pub map_index: Option<i32>,
}

impl World {
    /// Explains a run, or some of its instances.
    ///
    /// # Errors
    /// The DAG, run, task or map index is unknown, or the database cannot be read.
    pub(super) fn explain(
        &self,
        dag_id: &DagId,
        run_id: &RunId,
        task: Option<&ExplainedTask>,
        now: Now,
        history: &mut dyn History,
    ) -> Result<Explanation, CommandError> {
        let dag = self.known_dag(dag_id)?;
        match self.find_live_run(dag, run_id) {
            Some(run) => self.explain_live(run, task, now),
            None => self.explain_stored(dag, run_id, task, history),
        }
    }

    fn explain_live(&self, ix: RunIx, task: Option<&ExplainedTask>, now: Now) -> Result<Explanation, CommandError> {
        let run = self.run(ix);
        let decisions = run.decisions.iter().map(|(&slot, decision)| (&run.entry(slot).row, decision));
        let dag = run.definition.as_ref().map(|definition| &*definition.dag);
        let rows = run.instances.iter().map(|entry| &entry.row);
        let scene = Scene::new(&run.row, dag, rows, decisions);
        let tasks = chosen(&scene, task)?;
        let tell = |&(place, row): &(usize, &Instance)| self.finding(ix, Slot(place as u32), row, &scene, now);
        Ok(answer(&scene, self.run_finding(ix, &scene), &tasks, tell))
    }

    fn explain_stored(
        &self,
        dag: DagIx,
        run_id: &RunId,
        task: Option<&ExplainedTask>,
        history: &mut dyn History,
    ) -> Result<Explanation, CommandError> {
        let entry = self.dag(dag);
        let dag_id = &entry.record.dag_id;
        let row = history.find_run(dag_id, &RunLookup::ById(run_id.clone())).map_err(unreadable)?.ok_or_else(|| {
            let help = format!("`minflow dags list-runs {dag_id}` shows its runs");
            refusal("unknown-run", format!("`{dag_id}` has no run `{run_id}`"), help)
        })?;
        let instances = history.instances(row.key).map_err(unreadable)?;
        let decisions = history.decisions(row.key).map_err(unreadable)?;
        let decided = decisions.iter().filter_map(|(key, decision)| {
            instances.iter().find(|instance| instance.key == *key).map(|instance| (instance, decision))
        });
        let definition = entry.definition.as_ref().map(|definition| &*definition.dag);
        let scene = Scene::new(&row, definition, &instances, decided);
        let tasks = chosen(&scene, task)?;
        Ok(answer(&scene, scene.run_finding(), &tasks, |(_, row)| scene.fate(row)))
    }

    /// At most `limit` instances that wait for a slot, of one DAG or of all, those first that wait longest.
    pub(super) fn waiting(&self, dag_id: Option<&DagId>, limit: usize, now: Now) -> Vec<TaskFinding> {
        /// Of more than these the ones with the lowest places are looked at.
        const LOOKED_AT: usize = 10_000;
        let waits = self.handles.iter().enumerate().filter(|&(handle, _)| self.ready.contains(handle as u32));
        let mut found: Vec<_> = waits
            .map(|(_, &place)| place)
            .filter(|&(run, _)| dag_id.is_none_or(|dag_id| self.run(run).row.dag_id == *dag_id))
            .take(LOOKED_AT)
            .collect();
        let scheduled_at = |&(run, slot): &(RunIx, Slot)| self.run(run).entry(slot).row.scheduled_at;
        found.sort_by_key(|place| (scheduled_at(place), *place));
        found.truncate(limit);
        let tell = |(ix, slot): (RunIx, Slot)| {
            let run = self.run(ix);
            let row = &run.entry(slot).row;
            let scene = Scene::new(&run.row, None, [], []);
            scene.of(row, self.finding(ix, slot, row, &scene, now))
        };
        found.into_iter().map(tell).collect()
    }

    /// At most `limit` tries whose processes run, of one DAG or of all, those first that have run longest.
    pub(super) fn running(&self, dag_id: Option<&DagId>, limit: usize) -> Vec<RunningTry> {
        let row = |(run, slot): (RunIx, Slot)| &self.run(run).entry(slot).row;
        let is_meant = |&(_, &(run, slot)): &(&TryKey, &(RunIx, Slot))| {
            let is_its = dag_id.is_none_or(|dag_id| self.run(run).row.dag_id == *dag_id);
            is_its && row((run, slot)).state == TaskState::Running
        };
        let mut found: Vec<_> = self.held.iter().filter(is_meant).map(|(&key, &place)| (key, place)).collect();
        found.sort_by_key(|&(key, place)| (row(place).start_date, key));
        let tell = |(key, (run, slot)): (TryKey, (RunIx, Slot))| {
            let (run, row) = (&self.run(run).row, row((run, slot)));
            Some(RunningTry {
                dag_id: run.dag_id.clone(),
                run_id: run.run_id.clone(),
                task_id: row.task_id.clone(),
                map_index: row.map_index,
                try_number: row.try_number,
                started_at: row.start_date,
                process: row.process.as_deref()?.clone(),
                is_paused: self.paused.contains(&key),
            })
        };
        found.into_iter().filter_map(tell).take(limit).collect()
    }
}

/// The instances that were asked about, with their places.
fn chosen<'a>(scene: &Scene<'a>, task: Option<&ExplainedTask>) -> Result<Vec<(usize, &'a Instance)>, CommandError> {
    let all = scene.rows.iter().copied().enumerate();
    let Some(task) = task else {
        return Ok(all.filter(|(_, row)| row.state != TaskState::Success).collect());
    };
    let of_task: Vec<_> = all.filter(|(_, row)| row.task_id == task.task_id).collect();
    if of_task.is_empty() {
        let known = scene.rows.iter().map(|row| row.task_id.as_str());
        let near = did_you_mean(&task.task_id, known);
        let help = near.map(|near| format!("did you mean `{near}`?"));
        let help = help.unwrap_or_else(|| format!("`minflow tasks list {}` shows its tasks", scene.run.dag_id));
        let message =
            format!("run `{}` of `{}` has no instance of `{}`", scene.run.run_id, scene.run.dag_id, task.task_id);
        return Err(refusal("unknown-task", message, help));
    }
    let of_index: Vec<_> =
        of_task.iter().copied().filter(|(_, row)| task.map_index.is_none_or(|index| index == row.map_index)).collect();
    if let Some(index) = task.map_index.filter(|_| of_index.is_empty()) {
        let last = of_task.iter().map(|(_, row)| row.map_index).max().unwrap_or(-1);
        let help = match last {
            -1 => "it is not mapped; leave --map-index away".to_owned(),
            last => format!("its map indexes are 0 to {last}"),
        };
        return Err(refusal("unknown-map-index", format!("`{}` has no map index {index}", task.task_id), help));
    }
    Ok(of_index)
}

fn answer<'a>(
    scene: &Scene<'a>,
    run: Finding,
    tasks: &[(usize, &'a Instance)],
    tell: impl Fn(&(usize, &'a Instance)) -> Finding,
) -> Explanation {
    let told = tasks.iter().take(MAX_INSTANCES);
    Explanation {
        dag_id: scene.run.dag_id.clone(),
        run_id: scene.run.run_id.clone(),
        state: scene.run.state,
        run,
        tasks: told.map(|task| scene.of(task.1, tell(task))).collect(),
        omitted: tasks.len().saturating_sub(MAX_INSTANCES) as u32,
    }
}
