//! Callbacks: which ends call whom, when each is made, and what becomes of it (SEMANTICS 19, CONTRACTS 6).
//!
//! A callback is a row that is committed with the end that causes it, and is made after that commit; so none is lost, and one that a
//! crash cuts off is made again. It holds no slot of a task, and never changes a task's or a run's state. Knows neither processes nor
//! how a notifier tells people.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::callback::{self, CallbackRow, CallbackState, Hook, Occasion, OccasionTask, Subject, When};
use crate::model::{CallbackKey, Dag, DagId, DagRun, Graph, Instance, Node, Operator, RunKey, RunState, Task};
use crate::model::{TaskId, TaskState};
use crate::scheduler::change::{StoredCallback, Streak};
use crate::scheduler::event::{CallEnd, CallOutcome};
use crate::scheduler::port::{Call, Force, Kill};
use crate::scheduler::timers::Deadline;
use crate::scheduler::tries::STOPPED;
use crate::scheduler::world::{Action, Definition, Now, RunIx, Slot, TimerKey, World};

/// How many are under way at once.
const AT_ONCE: usize = 4;
/// How often one is tried.
const MOST_TRIES: u32 = 3;
/// How long after a try that failed the next one comes, by how many have failed; one that is cut off then waits as long.
const DELAYS: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];
/// When the host cannot start any process, or what ran was cut off, before any try has failed.
const UNSTARTED_DELAY: Duration = Duration::from_secs(5);
/// The reason of one that an earlier minflow had begun, and that nobody knows any more.
pub const LOST: &str = "lost";
/// How many failed tasks a run's callback names.
const MOST_NAMED: usize = 20;

/// How long after the end of its last try a callback is made again.
fn pause_after(row: &CallbackRow) -> Duration {
    match (row.reason.as_deref(), row.failures) {
        // What is lost, or ended with its minflow, was not refused by the host: it need not wait.
        (Some(LOST | STOPPED), _) => Duration::ZERO,
        (_, 0) => UNSTARTED_DELAY,
        (_, failures) => DELAYS[failures.min(DELAYS.len() as u32) as usize - 1],
    }
}

/// A callback that is not over.
#[derive(Debug)]
struct Pending {
    row: CallbackRow,
    run: Arc<DagRun>,
    /// The definition at the time of its cause; None after a restart.
    definition: Option<Arc<Definition>>,
}

/// All callbacks that are not over, and what the conditions of others remember.
#[derive(Debug, Default)]
pub(super) struct Callbacks {
    next_key: i64,
    pending: BTreeMap<CallbackKey, Pending>,
    /// They may be made now.
    ready: BTreeSet<CallbackKey>,
    running: BTreeSet<CallbackKey>,
    /// By DAG, and by task of a DAG, whose last run has failed. Kept for those alone that have a callback with a condition.
    streaks: BTreeMap<(DagId, Option<TaskId>), (RunKey, u32)>,
}

impl Callbacks {
    pub fn load(&mut self, stored: Vec<StoredCallback>, streaks: Vec<Streak>, next_key: i64) {
        self.next_key = next_key.max(1);
        for StoredCallback { row, run } in stored {
            let key = row.key;
            // What an earlier minflow had begun is looked for first.
            match row.state {
                CallbackState::Running => self.running.insert(key),
                _ => self.ready.insert(key),
            };
            let run = Arc::new(run.unwrap_or_else(|| no_run(&row)));
            self.pending.insert(key, Pending { row, run, definition: None });
        }
        self.streaks = streaks.into_iter().map(|s| ((s.dag_id, s.task_id), (s.run, s.failures))).collect();
    }

    pub fn has_running(&self) -> bool {
        !self.running.is_empty()
    }

    fn has_due(&self) -> bool {
        !self.ready.is_empty() && self.running.len() < AT_ONCE
    }

    /// A run has failed. How many in a row have, if it was not counted before.
    fn fail(&mut self, who: &(DagId, Option<TaskId>), run: RunKey) -> Option<u32> {
        let (last, failures) = self.streaks.entry(who.clone()).or_insert((run, 0));
        if *last == run && *failures > 0 {
            return None;
        }
        (*last, *failures) = (run, *failures + 1);
        Some(*failures)
    }
}

/// Stands for the run that there was not.
fn no_run(row: &CallbackRow) -> DagRun {
    let at = row.occasion.deadline.unwrap_or(row.created_at);
    let run_id = format!("{}__{}", row.hook, super::decide::iso(at));
    DagRun::new(RunKey(0), row.dag_id.clone(), run_id.into(), crate::model::RunType::Scheduled, at)
}

/// What has come to a task or a run, for which callbacks may be meant.
struct Cause {
    run: RunIx,
    hook: Hook,
    occasion: Occasion,
    /// Of a failure that is new how many there are in a row; of a success how many there were before.
    in_a_row: Option<u32>,
    definition: Arc<Definition>,
}

/// How a try that did not succeed came to its end, in one line.
fn ending(row: &Instance) -> String {
    let code = || row.exit_code.filter(|&code| code != 0).map(|code| format!("exit code {code}"));
    let signal = || row.signal.map(|signal| format!("signal {signal}"));
    row.reason.clone().or_else(code).or_else(signal).unwrap_or_else(|| row.state.to_string())
}

fn of_try(row: &Instance) -> OccasionTask {
    OccasionTask {
        instance: row.key,
        task_id: row.task_id.clone(),
        map_index: row.map_index,
        try_number: row.try_number,
        max_tries: row.max_tries,
    }
}

impl World {
    /// A try has begun or come to something: calls whom its task names for `hook`.
    pub(super) fn call_for_task(&mut self, run: RunIx, slot: Slot, hook: Hook, now: Now) {
        let this = self.run(run);
        let entry = this.entry(slot);
        let Some((task, definition)) = entry.task.zip(this.definition.clone()) else { return };
        let Some(callbacks) = definition.dag.task(task).callbacks.as_deref() else { return };
        let (row, run_key) = (&entry.row, this.row.key);
        // The news of its start may be overtaken by its end.
        let state = if hook == Hook::OnExecute { TaskState::Running } else { row.state };
        let mut occasion = Occasion { state: state.to_string(), ..Occasion::new(Subject::Task) };
        occasion.task = Some(of_try(row));
        if matches!(hook, Hook::OnFailure | Hook::OnRetry | Hook::OnSkipped) {
            let ending = ending(row);
            (occasion.reason, occasion.exception) = (Some(ending.clone()), Some(ending));
        }
        let who = (this.row.dag_id.clone(), Some(row.task_id.clone()));
        let is_mapped = row.map_index >= 0;
        let is_counted = callback::is_conditional(callbacks.iter().map(|(_, callback)| callback));
        let in_a_row = match hook {
            Hook::OnFailure if is_counted => self.count_failure(&who, run_key),
            // Of many instances all must have succeeded, which the end of the run shows.
            Hook::OnSuccess if is_counted && !is_mapped => self.count_success(&who),
            _ => None,
        };
        let list = definition.dag.task(task).callbacks(hook);
        self.call(&Cause { run, hook, occasion, in_a_row, definition: definition.clone() }, list, now);
    }

    /// A run has ended by itself: calls whom its DAG names.
    pub(super) fn call_for_run(&mut self, run: RunIx, now: Now) {
        let Some(definition) = self.run(run).definition.clone() else { return };
        self.settle_mapped(run, &definition, now);
        let this = self.run(run);
        let dag = &definition.dag;
        let has_failed = this.row.state == RunState::Failed;
        let (hook, list) =
            if has_failed { (Hook::OnFailure, &dag.on_failure) } else { (Hook::OnSuccess, &dag.on_success) };
        let who = (this.row.dag_id.clone(), None);
        let key = this.row.key;
        let is_counted = callback::is_conditional(dag.on_failure.iter().chain(&dag.on_success));
        if list.is_empty() && !is_counted {
            return;
        }
        let occasion = self.occasion_of_run(run);
        let in_a_row = match (is_counted, has_failed) {
            (false, _) => None,
            (true, true) => self.count_failure(&who, key),
            (true, false) => self.count_success(&who),
        };
        self.call(&Cause { run, hook, occasion, in_a_row, definition: definition.clone() }, list, now);
    }

    /// What is to be said of a run that has ended, or is late.
    pub(super) fn occasion_of_run(&self, run: RunIx) -> Occasion {
        let this = self.run(run);
        let mut occasion = Occasion { state: this.row.state.to_string(), ..Occasion::new(Subject::Run) };
        let ended = |row: &&Instance| row.end_date.is_some() && row.try_number > 0;
        let rows = || this.instances.iter().map(|entry| &entry.row);
        if this.row.state == RunState::Success {
            occasion.task = rows().filter(ended).max_by_key(|row| row.end_date).map(of_try);
            return occasion;
        }
        let failed = || rows().filter(|row| row.state == TaskState::Failed);
        let first = failed().min_by_key(|row| (row.end_date, row.key));
        let name = |row: &Instance| match row.map_index {
            ..0 => row.task_id.to_string(),
            index => format!("{}[{index}]", row.task_id),
        };
        occasion.reason = this.row.reason.clone();
        occasion.exception = match first {
            Some(row) => Some(format!("task {}: {}", name(row), ending(row))),
            None => this.row.reason.clone(),
        };
        occasion.task = first.or_else(|| rows().filter(ended).max_by_key(|row| row.end_date)).map(of_try);
        occasion.failed_tasks = failed().take(MOST_NAMED).map(name).collect();
        occasion.more_failed = failed().count() - occasion.failed_tasks.len();
        occasion
    }

    /// The tasks with many instances of which none has failed in this run, and some have succeeded, are well again.
    fn settle_mapped(&mut self, run: RunIx, definition: &Arc<Definition>, now: Now) {
        if self.callbacks.streaks.is_empty() {
            return;
        }
        let dag = &definition.dag;
        let mut first: BTreeMap<TaskId, Slot> = BTreeMap::new();
        let mut failed: BTreeSet<TaskId> = BTreeSet::new();
        for slot in self.run(run).slots_in_order() {
            let row = &self.run(run).entry(slot).row;
            match row.state {
                TaskState::Success if row.map_index >= 0 => {
                    first.entry(row.task_id.clone()).or_insert(slot);
                }
                TaskState::Failed | TaskState::UpstreamFailed => {
                    failed.insert(row.task_id.clone());
                }
                _ => {}
            }
        }
        for (task_id, slot) in first.into_iter().filter(|(task_id, _)| !failed.contains(task_id)) {
            let who = (self.run(run).row.dag_id.clone(), Some(task_id));
            let Some(in_a_row) = self.count_success(&who) else { continue };
            let this = self.run(run);
            let entry = this.entry(slot);
            let Some(task) = entry.task else { continue };
            let mut occasion = Occasion { state: entry.row.state.to_string(), ..Occasion::new(Subject::Task) };
            occasion.task = Some(of_try(&entry.row));
            let list: Vec<_> = dag.task(task).callbacks(Hook::OnSuccess).to_vec();
            let recovered = list.iter().enumerate().filter(|(_, callback)| callback.when == When::Recovered);
            let hook = Hook::OnSuccess;
            let cause = Cause { run, hook, occasion, in_a_row: Some(in_a_row), definition: definition.clone() };
            for (at, callback) in recovered {
                self.add(&cause, at, callback, now);
            }
        }
    }

    fn count_failure(&mut self, who: &(DagId, Option<TaskId>), run: RunKey) -> Option<u32> {
        let failures = self.callbacks.fail(who, run);
        if let Some(failures) = failures {
            let (dag_id, task_id) = who.clone();
            self.changes.streaks.push(Streak { dag_id, task_id, run, failures });
        }
        failures
    }

    /// How many had failed in a row before; None: none had.
    fn count_success(&mut self, who: &(DagId, Option<TaskId>)) -> Option<u32> {
        let (run, failures) = self.callbacks.streaks.remove(who)?;
        let (dag_id, task_id) = who.clone();
        self.changes.streaks.push(Streak { dag_id, task_id, run, failures: 0 });
        Some(failures)
    }

    fn call(&mut self, cause: &Cause, list: &[callback::Callback], now: Now) {
        for (at, callback) in list.iter().enumerate() {
            let is_meant = match callback.when {
                When::Every => true,
                When::First => cause.in_a_row == Some(1),
                When::InARow(count) => cause.in_a_row == Some(count),
                When::Recovered => cause.in_a_row.is_some(),
            };
            if is_meant {
                self.add(cause, at, callback, now);
            }
        }
    }

    /// `at`: the place of the callback in its list, from 0.
    fn add(&mut self, cause: &Cause, at: usize, callback: &callback::Callback, now: Now) {
        let run = self.shared_run(cause.run);
        let occasion = Occasion { in_a_row: cause.in_a_row.unwrap_or(0), ..cause.occasion.clone() };
        let dag_id = run.dag_id.clone();
        let row = self.new_callback(dag_id, Some(run.key), cause.hook, (at, callback), occasion, now);
        self.enqueue_callback(row, Some(run), Some(cause.definition.clone()));
    }

    /// A row for a callback at the place `at`, from 0, of its list.
    pub(super) fn new_callback(
        &mut self,
        dag_id: DagId,
        run: Option<RunKey>,
        hook: Hook,
        (at, callback): (usize, &callback::Callback),
        occasion: Occasion,
        now: Now,
    ) -> CallbackRow {
        let key = CallbackKey(self.callbacks.next_key);
        self.callbacks.next_key += 1;
        CallbackRow {
            key,
            dag_id,
            run,
            hook,
            number: at as u32 + 1,
            callback: callback.clone(),
            occasion,
            state: CallbackState::Queued,
            tries: 0,
            failures: 0,
            created_at: now.wall,
            started_at: None,
            ended_at: None,
            reason: None,
        }
    }

    /// It is written with this turn, and made when it is its turn.
    pub(super) fn enqueue_callback(
        &mut self,
        row: CallbackRow,
        run: Option<Arc<DagRun>>,
        definition: Option<Arc<Definition>>,
    ) {
        let key = row.key;
        self.changes.callbacks.push(row.clone());
        let run = run.unwrap_or_else(|| Arc::new(no_run(&row)));
        self.callbacks.pending.insert(key, Pending { row, run, definition });
        self.callbacks.ready.insert(key);
    }

    /// Those that an earlier minflow had begun.
    pub(super) fn stray_calls(&self) -> Vec<Call> {
        let strays = self.callbacks.running.iter().filter_map(|key| self.callbacks.pending.get(key));
        strays
            .map(|Pending { row, run, .. }| Call {
                row: row.clone(),
                dag: Arc::new(bare_dag(row)),
                file: Arc::from(""),
                run: run.clone(),
            })
            .collect()
    }

    /// Makes callbacks, in the order of their causes, while fewer than [`AT_ONCE`] are under way.
    pub(super) fn start_callbacks(&mut self, now: Now) {
        if self.stopping.is_some() {
            return;
        }
        while self.callbacks.has_due() {
            let Some(key) = self.callbacks.ready.pop_first() else { break };
            let Some(mut pending) = self.callbacks.pending.remove(&key) else { continue };
            let row = &mut pending.row;
            row.state = CallbackState::Running;
            row.tries += 1;
            row.started_at = Some(now.wall);
            (row.ended_at, row.reason) = (None, None);
            self.changes.callbacks.push(row.clone());
            let definition = pending.definition.clone().or_else(|| self.definition_of(&row.dag_id));
            let (dag, file) = match &definition {
                Some(definition) => (definition.dag.clone(), definition.file.clone()),
                None => (Arc::new(bare_dag(row)), Arc::from("")),
            };
            let call = Call { row: row.clone(), dag, file, run: pending.run.clone() };
            self.actions.push(Action::Call(Box::new(call)));
            self.callbacks.running.insert(key);
            self.callbacks.pending.insert(key, pending);
        }
    }

    fn definition_of(&self, dag_id: &DagId) -> Option<Arc<Definition>> {
        self.find_dag(dag_id)?.1.definition.clone()
    }

    /// A try of a callback is over, or never began.
    pub(super) fn apply_call_ended(&mut self, end: CallEnd, now: Now) {
        self.actions.push(Action::Acknowledge(end.key));
        let key = CallbackKey(-end.key.instance.0);
        let is_current = |pending: &Pending| pending.row.try_key() == end.key;
        if !self.callbacks.pending.get(&key).is_some_and(is_current) || !self.callbacks.running.remove(&key) {
            // A repeated report of an end that is committed already.
            return;
        }
        let Some(mut pending) = self.callbacks.pending.remove(&key) else { return };
        let row = &mut pending.row;
        row.ended_at = Some(end.ended_at);
        match end.outcome {
            CallOutcome::Done => row.state = CallbackState::Success,
            CallOutcome::Failed { reason } => {
                row.failures += 1;
                row.reason = Some(reason);
                row.state = if row.failures >= MOST_TRIES { CallbackState::Failed } else { CallbackState::Queued };
            }
            CallOutcome::CutOff { reason } => {
                row.reason = Some(reason);
                row.state = CallbackState::Queued;
            }
        }
        self.changes.callbacks.push(row.clone());
        if row.state == CallbackState::Queued {
            self.callbacks.pending.insert(key, pending);
            self.pause_callback(key, now);
        }
    }

    /// It is made again after a pause, which counts from the end of its last try.
    fn pause_callback(&mut self, key: CallbackKey, now: Now) {
        let Some(Pending { row, .. }) = self.callbacks.pending.get(&key) else { return };
        let Some(ended_at) = row.ended_at else { return };
        let at = now.boot_after(ended_at, pause_after(row));
        self.callbacks.ready.remove(&key);
        self.arm(TimerKey::Callback(key), Deadline::Boot(at));
    }

    /// What is left of the pauses that an earlier minflow has begun goes on.
    pub(super) fn resume_callbacks(&mut self, now: Now) {
        for key in self.callbacks.ready.clone() {
            self.pause_callback(key, now);
        }
    }

    /// Its delay is over.
    pub(super) fn wake_callback(&mut self, key: CallbackKey) {
        if self.callbacks.pending.contains_key(&key) {
            self.callbacks.ready.insert(key);
        }
    }

    /// Ends every callback that still runs: minflow stops, and the next one makes it again.
    pub(super) fn end_callbacks(&mut self, force: Force) {
        for key in &self.callbacks.running {
            if let Some(pending) = self.callbacks.pending.get(key) {
                let kill = Kill { reason: "stopped".to_owned(), force };
                self.actions.push(Action::Kill(pending.row.try_key(), kill));
            }
        }
    }
}

/// What is left of a DAG that nobody defines any longer: its name, and that of the task.
fn bare_dag(row: &CallbackRow) -> Dag {
    let task_id = row.occasion.task.as_ref().map_or_else(|| TaskId::from("none"), |task| task.task_id.clone());
    let graph = Graph::new(vec![Node::default()], &[]).expect("one task makes no cycle");
    Dag::new(row.dag_id.clone(), vec![Task::new(task_id, Operator::Empty)], graph)
}
