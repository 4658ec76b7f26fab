//! The way of an act: from a command to its runs, a turn's worth at a time, and to the reply and the audit log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::json;

use super::marker::Beyond;
use super::{Act, Deed, Mark, Pending, Runs, Settled, Tally, Within, ids, refusal, settle, sort_touched};
use crate::model::{DagRun, Instance, InstanceKey, RunKey, RunState, TaskId, TaskIx, TaskState};
use crate::scheduler::change::{ActWrite, RunLookup, RunSpan};
use crate::scheduler::command::Spread;
use crate::scheduler::command::{
    Chosen, Clear, Command, CommandError, Done, MarkTasks, Only, Reply, RunRange, Touched,
};
use crate::scheduler::decide::{PIECE_ROWS, iso};
use crate::scheduler::port::{ReplyTo, StoreError};
use crate::scheduler::steer::unreadable;
use crate::scheduler::subset::{self, Reach};
use crate::scheduler::world::{Action, DagIx, Definition, History, Now, RunIx, Slot, World};

/// How many instances one turn looks at for acts: those that it leaves alone write no row.
const TURN_LOOKS: usize = 4 * PIECE_ROWS;
/// How many runs are asked for at once.
const PAGE: usize = 50;

/// What an act has done in one run.
#[derive(Debug, Default)]
pub(super) struct Effect {
    pub seen: u32,
    pub touched: Vec<Touched>,
    pub cleared: u32,
    pub left: Left,
}

/// What a turn leaves of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Left {
    #[default]
    Nothing,
    /// It is not in memory yet, and not all of it was read: nothing was touched.
    ToRead,
    Behind(Within),
}

/// Instances of a run that an act touches in one turn.
pub(super) struct Piece {
    /// How many of them are meant whatever their state.
    pub seen: u32,
    pub slots: Vec<Slot>,
    /// The last one, if there may be more behind it.
    pub after: Option<InstanceKey>,
}

/// An act at work on a DAG.
struct Job<'a> {
    act: &'a Act,
    dag: DagIx,
    definition: &'a Arc<Definition>,
    now: Now,
}

/// What came of a piece of work.
enum Step {
    Over,
    /// The turn is full.
    More,
    /// Its DAG's file has not been seen yet.
    Waits,
}

impl World {
    /// Carries out a command about task instances and notes. None: it was about something else, and is given back with its reply.
    pub(in crate::scheduler) fn apply_act_command(
        &mut self,
        command: Command,
        reply: ReplyTo<Reply>,
        now: Now,
        history: &mut dyn History,
    ) -> Option<(Command, ReplyTo<Reply>)> {
        let act = match command {
            Command::Clear(clear) => self.clear_act(clear, history),
            Command::MarkTasks(mark) => self.mark_act(mark, history),
            Command::MarkRun { dag_id, run_id, state: RunState::Queued } => {
                let runs = RunRange { run_id: Some(run_id), ..RunRange::default() };
                let (tasks, spread) = (Chosen::All, Spread::default());
                let only = Only::default();
                self.clear_act(Clear { dag_id, tasks, spread, map_index: None, runs, only, is_dry: false }, history)
            }
            Command::MarkRun { dag_id, run_id, state } => {
                if self.is_held(&dag_id, &run_id) {
                    self.acts.late.push((Command::MarkRun { dag_id, run_id, state }, reply));
                    return None;
                }
                let done = self.mark_run(&dag_id, &run_id, state, now, history);
                self.actions.push(Action::Reply(reply, done));
                return None;
            }
            Command::SetTaskPaused(asked) => {
                let done = self.set_task_paused(asked, now, history);
                self.actions.push(Action::Reply(reply, done));
                return None;
            }
            Command::Note { dag_id, run_id, task, note } => {
                let done = self.write_note(&dag_id, &run_id, task, note, now, history);
                self.actions.push(Action::Reply(reply, done));
                return None;
            }
            other => return Some((other, reply)),
        };
        match act {
            Ok(act) => {
                let key = self.acts.next_key;
                self.acts.next_key += 1;
                let pending =
                    Pending { key, act, is_kept: false, touched: Vec::new(), touched_before: 0, reply: Some(reply) };
                self.acts.pending.push(pending);
            }
            Err(error) => self.actions.push(Action::Reply(reply, Err(error))),
        }
        None
    }

    fn clear_act(&mut self, clear: Clear, history: &mut dyn History) -> Result<Act, CommandError> {
        let (ix, definition) = self.steerable(&clear.dag_id)?;
        let settled = settle(&definition.dag, &clear.tasks, clear.spread)?;
        let asked = json!({ "tasks": clear.tasks, "upstream": clear.spread.upstream, "downstream": clear.spread.downstream,
            "map_index": clear.map_index, "runs": clear.runs, "only": clear.only });
        let runs = self.runs_meant(ix, clear.runs, history)?;
        let narrowed = narrowed(&definition, &settled, clear.map_index);
        let deed = if clear.is_dry { Deed::Look } else { Deed::Clear };
        let (dag_id, only, tasks) = (clear.dag_id, clear.only, settled.tasks);
        let (tally, beyond) = (Tally::default(), Beyond::default());
        Ok(Act { dag_id, deed, tasks, narrowed, only, runs, asked, tally, within: None, beyond })
    }

    /// What comes along with a marked task is what runs before or after it, without teardowns: they run all the same.
    fn mark_act(&mut self, mark: MarkTasks, history: &mut dyn History) -> Result<Act, CommandError> {
        if !matches!(mark.state, TaskState::Success | TaskState::Failed | TaskState::Skipped) {
            let message = format!("a task cannot be set to `{}`", mark.state);
            return Err(refusal("invalid-state", message, "choose success, failed or skipped".to_owned()));
        }
        let (ix, definition) = self.steerable(&mark.dag_id)?;
        let dag = &definition.dag;
        let alone = Spread::default();
        let settled = settle(dag, &Chosen::Named(mark.tasks.clone()), alone)?;
        let is_teardown = |task: &TaskIx| subset::is_teardown(&dag.graph, *task);
        let mut marked = settled.chosen.clone();
        for (is_asked, reaches) in [
            (mark.spread.upstream, subset::above(&dag.graph, &settled.chosen)),
            (mark.spread.downstream, subset::below(&dag.graph, &settled.chosen)),
        ] {
            marked.extend(reaches.into_iter().filter(|task| is_asked && !is_teardown(task)));
        }
        let list: Vec<TaskIx> = settled.chosen.iter().copied().collect();
        let below = subset::subset(&dag.graph, &list, Reach { downstream: true, ..Reach::default() });
        let below = subset::in_order(&dag.graph, &below.difference(&marked).copied().collect());
        let asked = json!({ "tasks": mark.tasks, "upstream": mark.spread.upstream, "downstream": mark.spread.downstream,
            "map_index": mark.map_index, "runs": mark.runs, "state": mark.state });
        let runs = self.runs_meant(ix, mark.runs, history)?;
        let narrowed = narrowed(&definition, &settled, mark.map_index);
        let deed = Deed::Mark(Mark { state: mark.state, below: ids(dag, below) });
        let tasks = ids(dag, subset::in_order(&dag.graph, &marked));
        let only = Only::default();
        let (tally, beyond) = (Tally::default(), Beyond::default());
        Ok(Act { dag_id: mark.dag_id, deed, tasks, narrowed, only, runs, asked, tally, within: None, beyond })
    }

    /// A DAG whose runs may be steered: it has a definition.
    pub(in crate::scheduler) fn steerable(&self, dag_id: &str) -> Result<(DagIx, Arc<Definition>), CommandError> {
        if self.stopping.is_some() {
            let help = "ask again when it runs".to_owned();
            return Err(refusal("stopping", "minflow is stopping".to_owned(), help));
        }
        let ix = self.known_dag(dag_id)?;
        let Some(definition) = self.dag(ix).definition.clone().filter(|_| self.dag(ix).record.is_active) else {
            let message = format!("`{dag_id}` has no DAG file any longer");
            return Err(refusal("unknown-dag", message, "put its file back, then ask again".to_owned()));
        };
        Ok((ix, definition))
    }

    fn runs_meant(&self, ix: DagIx, asked: RunRange, history: &mut dyn History) -> Result<Runs, CommandError> {
        let until = RunKey(self.next_run_key() - 1);
        let Some(run_id) = asked.run_id else {
            return Ok(Runs::Range { after: None, until, from: asked.from, to: asked.to });
        };
        let row = self.known_run(ix, &run_id, history)?;
        if !asked.past && !asked.future {
            return Ok(Runs::One(run_id));
        }
        let Some(date) = row.logical_date else {
            let message = format!("run `{run_id}` has no logical date, so that no run is before or after it");
            return Err(refusal("no-runs", message, "leave --past and --future out".to_owned()));
        };
        let from = (!asked.past).then_some(date).max(asked.from);
        let to = match ((!asked.future).then_some(date), asked.to) {
            (Some(date), Some(to)) => Some(date.min(to)),
            (date, to) => date.or(to),
        };
        Ok(Runs::Range { after: None, until, from, to })
    }

    /// A run of the DAG, in memory or not.
    pub(super) fn known_run(&self, ix: DagIx, run_id: &str, history: &mut dyn History) -> Result<DagRun, CommandError> {
        let dag_id = &self.dag(ix).record.dag_id;
        if let Some(run) = self.known_runs(ix).find(|&run| &*self.run(run).row.run_id == run_id) {
            return Ok(self.run(run).row.clone());
        }
        let found = history.find_run(dag_id, &RunLookup::ById(run_id.into())).map_err(unreadable)?;
        found.ok_or_else(|| {
            let help = format!("`minflow dags list-runs {dag_id}` shows its runs");
            refusal("unknown-run", format!("`{dag_id}` has no run `{run_id}`"), help)
        })
    }

    /// Works on acts until the turn is full. The one that has filled it comes last in the next turn, so that a small one, which may end
    /// a task, does not wait for a large one on another DAG.
    ///
    /// # Errors
    /// The database could not be asked; what is left waits.
    pub(in crate::scheduler) fn advance_acts(&mut self, now: Now, history: &mut dyn History) -> Result<(), StoreError> {
        self.acts.has_more = false;
        let mut looks = TURN_LOOKS;
        let (mut kept, mut asked) = (Vec::new(), Ok(()));
        let mut waiting = std::mem::take(&mut self.acts.pending).into_iter();
        while let Some(mut pending) = waiting.next() {
            let others = kept.iter().chain(waiting.as_slice());
            if others.into_iter().any(|other: &Pending| pending.comes_after(other)) {
                kept.push(pending);
                continue;
            }
            match self.advance_act(&mut pending, &mut looks, now, history) {
                Ok(Step::Over) => {
                    self.conclude_act(pending, now);
                    // One that was passed over may have waited for it.
                    self.acts.has_more = !kept.is_empty();
                }
                Ok(Step::Waits) => kept.push(pending),
                Ok(Step::More) => {
                    self.keep_act(&mut pending);
                    self.acts.has_more = true;
                    kept.splice(0..0, waiting);
                    kept.push(pending);
                    break;
                }
                Err(error) => {
                    asked = Err(error);
                    kept.push(pending);
                    kept.extend(waiting);
                    break;
                }
            }
        }
        self.acts.pending = kept;
        self.catch_up(now, history);
        asked
    }

    fn keep_act(&mut self, pending: &mut Pending) {
        if matches!(pending.act.deed, Deed::Look) {
            return;
        }
        pending.is_kept = true;
        let body = serde_json::to_value(&pending.act).expect("an act has no maps but those with text keys");
        self.changes.acts.push(ActWrite { key: pending.key, body: Some(body) });
    }

    fn advance_act(
        &mut self,
        pending: &mut Pending,
        looks: &mut usize,
        now: Now,
        history: &mut dyn History,
    ) -> Result<Step, StoreError> {
        loop {
            let step = self.advance_in_dag(pending, looks, now, history)?;
            if !matches!(step, Step::Over) || !self.reach_beyond(&mut pending.act, history)? {
                return Ok(step);
            }
        }
    }

    fn advance_in_dag(
        &mut self,
        pending: &mut Pending,
        looks: &mut usize,
        now: Now,
        history: &mut dyn History,
    ) -> Result<Step, StoreError> {
        let Some(&ix) = self.dag_index.get(&pending.act.dag_id) else { return Ok(Step::Over) };
        let Some(definition) = self.dag(ix).definition.clone() else {
            // A run that is cleared in part waits for the file of its DAG.
            let is_over = self.is_scanned && pending.act.within.is_none();
            return Ok(if is_over { Step::Over } else { Step::Waits });
        };
        let mut live = self.runs_by_key(ix);
        loop {
            let page = self.next_runs(ix, &pending.act, history)?;
            let is_last = page.len() < PAGE;
            for row in page {
                if *looks == 0 || self.pending_rows() >= PIECE_ROWS {
                    return Ok(Step::More);
                }
                let (place, date) = ((row.run_after, row.key), row.logical_date);
                let known = live.remove(&row.key);
                let effect = self.act_on_run(
                    &Job { act: &pending.act, dag: ix, definition: &definition, now },
                    row,
                    known,
                    history,
                )?;
                *looks = looks.saturating_sub(effect.seen as usize + 1);
                pending.act.mark_beyond(&definition.dag, date, &effect.touched);
                let is_over = effect.left == Left::Nothing;
                pending.note(effect);
                if !is_over {
                    return Ok(Step::More);
                }
                if let Runs::Range { after, .. } = &mut pending.act.runs {
                    *after = Some(place);
                }
            }
            if is_last {
                return Ok(Step::Over);
            }
        }
    }

    fn next_runs(&self, ix: DagIx, act: &Act, history: &mut dyn History) -> Result<Vec<DagRun>, StoreError> {
        match &act.runs {
            Runs::One(run_id) => {
                let live = self.known_runs(ix).find(|&run| self.run(run).row.run_id == *run_id);
                let row = match live {
                    Some(run) => Some(self.run(run).row.clone()),
                    None => history.find_run(&act.dag_id, &RunLookup::ById(run_id.clone()))?,
                };
                Ok(row.into_iter().collect())
            }
            Runs::Range { after, until, from, to } => {
                let span = RunSpan { after: *after, until: *until, from: *from, to: *to };
                history.runs_in(&act.dag_id, &span, PAGE)
            }
        }
    }

    /// The DAG's runs in memory, those included that are over while a process of theirs still lives.
    pub(super) fn runs_by_key(&self, ix: DagIx) -> BTreeMap<RunKey, RunIx> {
        let held = self.held.values().map(|&(run, _)| run).filter(|&run| self.run(run).dag == ix);
        self.known_runs(ix).chain(held).map(|run| (self.run(run).row.key, run)).collect()
    }

    fn act_on_run(
        &mut self,
        job: &Job<'_>,
        row: DagRun,
        known: Option<RunIx>,
        history: &mut dyn History,
    ) -> Result<Effect, StoreError> {
        let act = job.act;
        let tasks: BTreeSet<&TaskId> = act.tasks.iter().collect();
        let is_look = matches!(act.deed, Deed::Look);
        // It waits for its backfill, and runs in any case.
        let waits = known.is_none() && (!row.state.is_finished() || self.is_queued_by_backfill(job.dag, &row));
        if waits && !is_look {
            return Ok(Effect::default());
        }
        let rows = match known {
            Some(_) => None,
            None => match self.read_on(row.key, history)? {
                Some(rows) => Some(rows),
                // The turn has read its share.
                None => return Ok(Effect { seen: u32::MAX, left: Left::ToRead, ..Effect::default() }),
            },
        };
        if is_look {
            let own = |run| self.run(run).instances.iter().map(|entry| entry.row.clone()).collect();
            return Ok(look(act, &tasks, &row, &rows.or_else(|| known.map(own)).unwrap_or_default()));
        }
        let (key, is_new) = (row.key, known.is_none());
        let run = match known {
            Some(run) => run,
            None => self.bring_back_with(job.dag, row, rows.unwrap_or_default(), history)?,
        };
        let within = act.within.filter(|within| within.run == key);
        let most = if matches!(act.deed, Deed::Mark(_)) { usize::MAX } else { self.acts.bounds.cleared };
        let Piece { seen, slots, after } = self.piece(run, act, &tasks, within, most);
        let mut instances: Vec<Touched> =
            slots.iter().map(|&slot| touched(&self.run(run).row, &self.run(run).entry(slot).row)).collect();
        sort_touched(&mut instances, &act.tasks);
        let cleared = match &act.deed {
            Deed::Clear | Deed::Look if within.is_none() || self.run(run).row.state.is_finished() => {
                self.clear_slots(run, &slots, job.definition, job.now);
                0
            }
            Deed::Clear | Deed::Look => {
                self.clear_rest(run, &slots, after.is_none(), job.definition, job.now);
                0
            }
            Deed::Mark(mark) => self.mark_slots(run, &slots, mark, job.definition, job.now),
        };
        if is_new && slots.is_empty() && cleared == 0 {
            self.let_go(run);
        }
        let left = after.map_or(Left::Nothing, |after| Left::Behind(Within { run: key, after }));
        Ok(Effect { seen, touched: instances, cleared, left })
    }

    /// Its backfill has queued the run in this turn, so that the database does not know yet.
    fn is_queued_by_backfill(&self, ix: DagIx, row: &DagRun) -> bool {
        row.logical_date.is_some_and(|date| self.made_dates.contains(&(ix, date)))
    }

    /// Tells who asked, and the audit log.
    fn conclude_act(&mut self, pending: Pending, now: Now) {
        let Pending { key, act, is_kept, touched, reply, .. } = pending;
        if is_kept {
            self.changes.acts.push(ActWrite { key, body: None });
        }
        let tally = act.tally;
        if tally.instances + tally.cleared > 0 && !matches!(act.deed, Deed::Look) {
            let event = if matches!(act.deed, Deed::Clear) { "clear" } else { "mark_tasks" };
            let mut extra = act.asked.clone();
            extra["instances"] = tally.instances.into();
            extra["runs_touched"] = tally.runs.into();
            if tally.cleared > 0 {
                extra["cleared"] = tally.cleared.into();
            }
            let (dag_id, run_id) = act.origin();
            self.audit(now, event, Some(dag_id), run_id, extra);
        }
        let done = act.refusal().map_or_else(|| Ok(act.done(touched)), Err);
        if let Some(reply) = reply {
            self.actions.push(Action::Reply(reply, done));
        }
    }
}

impl Pending {
    /// An older one on the same DAG, which is to come first.
    fn comes_after(&self, other: &Self) -> bool {
        other.key < self.key && other.act.dag_id == self.act.dag_id
    }

    fn note(&mut self, effect: Effect) {
        let Effect { seen, touched, cleared, left } = effect;
        if left == Left::ToRead {
            return;
        }
        let tally = &mut self.act.tally;
        let has_touched = !touched.is_empty() || cleared > 0;
        tally.instances_seen += seen;
        tally.instances += touched.len() as u32;
        tally.cleared += cleared;
        // A run counts when it is first met, and when it is first touched.
        let is_first = self.act.within.is_none();
        tally.runs_seen += u32::from(is_first);
        tally.runs += u32::from(is_first && has_touched);
        let was_within = self.act.within.is_some();
        self.act.within = match left {
            Left::Behind(within) => Some(within),
            Left::Nothing | Left::ToRead => None,
        };
        self.touched.extend(touched);
        if self.act.within.is_none() {
            if was_within {
                sort_touched(&mut self.touched[self.touched_before..], &self.act.tasks);
            }
            self.touched_before = self.touched.len();
        }
    }
}

impl Act {
    /// Nothing was there that it could have been about.
    fn refusal(&self) -> Option<CommandError> {
        let dag_id = &self.dag_id;
        let help = format!("`minflow dags list-runs {dag_id}` shows its runs");
        if self.tally.runs_seen == 0 {
            let message = match &self.runs {
                Runs::Range { from: None, to: None, .. } | Runs::One(_) => format!("`{dag_id}` has no run"),
                Runs::Range { from, to, .. } => {
                    let bound = |word: &str, date: &Option<_>| date.map(|date| format!(" {word} {}", iso(date)));
                    let (from, to) = (bound("from", from), bound("to", to));
                    format!("`{dag_id}` has no run{}{}", from.unwrap_or_default(), to.unwrap_or_default())
                }
            };
            return Some(refusal("no-runs", message, help));
        }
        let (chosen, index) = self.narrowed.as_ref()?;
        if self.tally.instances_seen > 0 {
            return None;
        }
        let names: Vec<String> = chosen.iter().map(|task| format!("`{task}`")).collect();
        let message = format!("{} has no instance of map index {index} there", names.join(", "));
        let help = format!("`minflow tasks states-for-dag-run {dag_id} RUN` shows which there are");
        Some(refusal("unknown-map-index", message, help))
    }

    fn done(&self, instances: Vec<Touched>) -> Done {
        match self.deed {
            Deed::Clear | Deed::Look => Done::Cleared { instances, runs: self.tally.runs },
            Deed::Mark(_) => Done::Marked { instances, cleared: self.tally.cleared, runs: self.tally.runs },
        }
    }
}

fn narrowed(definition: &Definition, settled: &Settled, map_index: Option<i32>) -> Option<(BTreeSet<TaskId>, i32)> {
    let chosen = ids(&definition.dag, settled.chosen.iter().copied()).into_iter().collect();
    map_index.map(|index| (chosen, index))
}

fn look(act: &Act, tasks: &BTreeSet<&TaskId>, run: &DagRun, rows: &[Instance]) -> Effect {
    let covered: Vec<&Instance> = rows.iter().filter(|instance| act.covers(instance, tasks)).collect();
    let selected = covered.iter().filter(|instance| act.selects(instance.state));
    let mut instances: Vec<Touched> = selected.map(|instance| touched(run, instance)).collect();
    sort_touched(&mut instances, &act.tasks);
    Effect { seen: covered.len() as u32, touched: instances, ..Effect::default() }
}

fn touched(run: &DagRun, instance: &Instance) -> Touched {
    Touched {
        dag_id: run.dag_id.clone(),
        run_id: run.run_id.clone(),
        task_id: instance.task_id.clone(),
        map_index: instance.map_index,
        state: instance.state,
    }
}
