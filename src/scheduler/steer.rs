//! Commands: what users ask of a running scheduler.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::clock::to_micros;
use crate::diagnostic::did_you_mean;
use crate::model::{DagRun, RunId, RunKey, RunState, RunType};
use crate::scheduler::change::{AuditEntry, RunLookup, RunWrite};
use crate::scheduler::command::{Asker, Command, CommandError, Done, LogicalDate, Reply, Stop, Trigger};
use crate::scheduler::conf;
use crate::scheduler::decide::iso;
use crate::scheduler::port::{Force, ReplyTo, StoreError};
use crate::scheduler::timers::Deadline;
use crate::scheduler::world::{Action, DagIx, Drained, History, Now, RunIx, TimerKey, World};

/// How many of those that still run a stop names.
const SHOWN_AT_STOP: usize = 20;

/// The longest run_id in bytes: a file name must hold it.
const MAX_RUN_ID_BYTES: usize = 200;

impl World {
    /// Carries out a command. Its reply leaves with the turn's actions, after the commit.
    pub(super) fn apply_command(
        &mut self,
        command: Command,
        reply: ReplyTo<Reply>,
        now: Now,
        history: &mut dyn History,
    ) {
        let Some((command, reply)) = self.apply_backfill_command(command, reply, now, history) else { return };
        let Some((command, reply)) = self.apply_act_command(command, reply, now, history) else { return };
        let done = match command {
            Command::Trigger(trigger) => self.trigger(trigger, now, history),
            Command::SetPaused { dag_id, is_paused } => self.set_paused(&dag_id, is_paused, now),
            Command::Materialize { asset, conf } => self.materialize(&asset, conf, now),
            Command::SetPools { pools } => self.set_pools(pools, now),
            Command::DeletePool { name } => self.delete_pool(&name, now),
            Command::Stop { how, by } => Ok(self.stop(how, by, now)),
            Command::Explain { dag_id, run_id, task } => {
                let explained = self.explain(&dag_id, &run_id, task.as_ref(), now, history);
                explained.map(|explanation| Done::Explained(Box::new(explanation)))
            }
            Command::Keep(keep) => self.keep(keep, now, history),
            Command::ListRunning { dag_id, limit } => Ok(Done::Running(self.running(dag_id.as_ref(), limit))),
            Command::ListWaiting { dag_id, limit } => Ok(Done::Waiting(self.waiting(dag_id.as_ref(), limit, now))),
            Command::Await { dag_id, run_id } => match self.find_awaited(&dag_id, &run_id, history) {
                Ok(Awaited::Live(run)) => {
                    self.run_quiet(run).waiting.push(reply);
                    return;
                }
                Ok(Awaited::Ended(state)) => Ok(Done::Ended { state: state.to_string() }),
                Err(error) => Err(error),
            },
            Command::Clear(_)
            | Command::MarkTasks(_)
            | Command::MarkRun { .. }
            | Command::Note { .. }
            | Command::SetTaskPaused(_)
            | Command::CreateBackfill(_)
            | Command::SetBackfillPaused { .. }
            | Command::CancelBackfill { .. }
            | Command::AwaitBackfill { .. } => return,
        };
        self.actions.push(Action::Reply(reply, done));
    }

    pub(super) fn known_dag(&self, dag_id: &str) -> Result<DagIx, CommandError> {
        if let Some((ix, _)) = self.find_dag(dag_id) {
            return Ok(ix);
        }
        let near = did_you_mean(dag_id, self.dag_index.keys().map(|id| id.as_str()));
        let help = near.map_or("`minflow dags list` shows all".to_owned(), |near| format!("did you mean `{near}`?"));
        Err(refusal("unknown-dag", format!("no DAG `{dag_id}`"), help))
    }

    /// A manual run (SEMANTICS 7.3). It is created at once, and stays queued while its DAG is paused.
    fn trigger(&mut self, trigger: Trigger, now: Now, history: &mut dyn History) -> Reply {
        if self.stopping.is_some() {
            return Err(refusal("stopping", "minflow is stopping".to_owned(), "trigger again when it runs".to_owned()));
        }
        let ix = self.known_dag(&trigger.dag_id)?;
        let Some(definition) = self.dag(ix).definition.clone().filter(|_| self.dag(ix).record.is_active) else {
            let message = format!("`{}` has no DAG file any longer", trigger.dag_id);
            return Err(refusal("unknown-dag", message, "put its file back, then trigger again".to_owned()));
        };
        conf::check(&definition.dag, &trigger.conf, self.settings.overrides)?;
        let (run_id, run_after) = self.manual_run_id(ix, &trigger, now, history)?;
        let logical_date = match trigger.logical_date {
            LogicalDate::RunAfter => Some(run_after),
            LogicalDate::None => None,
            LogicalDate::At(date) => Some(to_micros(date)),
        };
        if let Some(date) = logical_date {
            self.refuse_taken(ix, &RunLookup::ByLogicalDate(date), history)?;
        }
        let infer = || logical_date.and_then(|_| definition.timetable.infer_manual(run_after));
        let data_interval = trigger.data_interval.or_else(infer);
        let key = RunKey(self.new_run_key());
        let row = DagRun {
            logical_date,
            data_interval,
            queued_at: Some(now.wall),
            conf: trigger.conf,
            ..DagRun::new(key, trigger.dag_id.clone(), run_id.clone(), RunType::Manual, run_after)
        };
        let asked = serde_json::json!({ "conf": row.conf, "logical_date": row.logical_date.map(iso) });
        self.create_run(ix, row, &definition);
        self.audit(now, "trigger", Some(&trigger.dag_id), Some(&run_id), asked);
        if trigger.unpause && self.dag(ix).record.is_paused {
            self.set_paused(&trigger.dag_id, false, now)?;
        }
        Ok(Done::Triggered { run_id, is_paused: self.dag(ix).record.is_paused })
    }

    /// The run_id asked for, or one made of the instant: the next free microsecond, should several come in one turn.
    fn manual_run_id(
        &mut self,
        ix: DagIx,
        trigger: &Trigger,
        now: Now,
        history: &mut dyn History,
    ) -> Result<(RunId, jiff::Timestamp), CommandError> {
        if let Some(run_id) = &trigger.run_id {
            check_run_id(run_id)?;
            self.refuse_taken(ix, &RunLookup::ById(run_id.clone()), history)?;
            return Ok((run_id.clone(), self.free_instant(ix, now)));
        }
        let run_after = self.free_instant(ix, now);
        let mut text = format!("{}__{}", RunType::Manual, iso(run_after));
        if trigger.logical_date == LogicalDate::None {
            // Airflow appends eight random characters; here they follow from the run's identity.
            text.push_str(&format!("_{}", identity_suffix(&trigger.dag_id, &text)));
        }
        let run_id = RunId::from(text);
        self.refuse_taken(ix, &RunLookup::ById(run_id.clone()), history)?;
        Ok((run_id, run_after))
    }

    /// The first microsecond from now on that no live run of the DAG has taken as its logical date or run_after.
    pub(super) fn free_instant(&mut self, ix: DagIx, now: Now) -> jiff::Timestamp {
        const NEXT: Duration = Duration::from_micros(1);
        let entry = self.dag(ix);
        let is_taken = |at| {
            let runs = (at, RunIx(0))..=(at, RunIx(u32::MAX));
            entry.dates.contains_key(&at) || entry.runs.range(runs).next().is_some()
        };
        // Those before the last that was given are taken: thousands may come in one turn.
        let mut at = self.given_instants.get(&ix).map_or(now.wall, |&given| given + NEXT);
        while is_taken(at) {
            at += NEXT;
        }
        self.given_instants.insert(ix, at);
        at
    }

    fn refuse_taken(&self, ix: DagIx, lookup: &RunLookup, history: &mut dyn History) -> Result<(), CommandError> {
        let entry = self.dag(ix);
        let known = match lookup {
            RunLookup::ById(run_id) => self.find_live_run(ix, run_id),
            RunLookup::ByLogicalDate(date) => entry.dates.get(date).copied(),
        };
        let live = known.map(|run| self.run(run).row.clone());
        let taken = match live {
            Some(row) => Some(row),
            None => history.find_run(&entry.record.dag_id, lookup).map_err(unreadable)?,
        };
        let Some(taken) = taken else { return Ok(()) };
        let message = match lookup {
            RunLookup::ById(run_id) => format!("`{}` already has a run `{run_id}`", entry.record.dag_id),
            RunLookup::ByLogicalDate(date) => {
                format!(
                    "`{}` already has a run for the logical date {}: `{}`",
                    entry.record.dag_id,
                    iso(*date),
                    taken.run_id
                )
            }
        };
        Err(refusal("run-exists", message, "choose another, or leave it out to have one made of the time".to_owned()))
    }

    fn set_paused(&mut self, dag_id: &str, is_paused: bool, now: Now) -> Reply {
        let ix = self.known_dag(dag_id)?;
        let was = self.dag(ix).record.is_paused;
        if was == is_paused {
            return Ok(Done::PausedSet { was });
        }
        let record = &mut self.dag_mut(ix).record;
        record.is_paused = is_paused;
        record.pause_reason = None;
        let is_first_seen = !is_paused && record.first_seen_at.is_none();
        if is_first_seen {
            record.first_seen_at = Some(now.wall);
        }
        let id = record.dag_id.clone();
        self.audit(now, if is_paused { "pause" } else { "unpause" }, Some(&id), None, Value::Null);
        if is_paused {
            self.withdraw(ix);
            return Ok(Done::PausedSet { was });
        }
        if is_first_seen {
            self.plan_next_run(ix, now);
        } else {
            self.await_next_run(ix, now);
        }
        self.resume(ix, now);
        Ok(Done::PausedSet { was })
    }

    /// Pauses the DAGs whose newest runs, as many as `max_consecutive_failed_dag_runs` says, have all failed (SEMANTICS 5).
    pub(super) fn pause_failing(&mut self, now: Now, history: &mut dyn History) -> Result<bool, StoreError> {
        let mut has_paused = false;
        while let Some(&ix) = self.failing.first() {
            let entry = self.dag(ix);
            let limit =
                entry.definition.as_ref().map_or(0, |definition| definition.dag.max_consecutive_failed_dag_runs);
            if limit > 0 && !entry.record.is_paused && self.have_all_failed(ix, limit, history)? {
                self.pause_failed(ix, limit, now);
                has_paused = true;
            }
            self.failing.remove(&ix);
        }
        Ok(has_paused)
    }

    /// Whether the newest `limit` runs are so many, and all `failed`; newest by (run_after, key).
    fn have_all_failed(&self, ix: DagIx, limit: u32, history: &mut dyn History) -> Result<bool, StoreError> {
        let entry = self.dag(ix);
        let stored = history.newest_runs(&entry.record.dag_id, limit)?;
        let mut newest: BTreeMap<(jiff::Timestamp, RunKey), RunState> =
            stored.iter().map(|row| ((row.run_after, row.key), row.state)).collect();
        // What this turn has changed is not in the database yet.
        for row in self.known_runs(ix).map(|run| &self.run(run).row) {
            newest.insert((row.run_after, row.key), row.state);
        }
        // So is what it has queued for a backfill.
        for RunWrite { run, .. } in self.changes.runs.iter().filter(|write| write.run.dag_id == entry.record.dag_id) {
            newest.insert((run.run_after, run.key), run.state);
        }
        let limit = limit as usize;
        Ok(newest.len() >= limit && newest.values().rev().take(limit).all(|state| *state == RunState::Failed))
    }

    fn pause_failed(&mut self, ix: DagIx, limit: u32, now: Now) {
        let reason =
            if limit == 1 { "the last run failed".to_owned() } else { format!("the last {limit} runs failed") };
        let record = &mut self.dag_mut(ix).record;
        record.is_paused = true;
        record.pause_reason = Some(reason.clone());
        let dag_id = record.dag_id.clone();
        log::warn!("paused `{dag_id}`: {reason}; `minflow dags unpause {dag_id}` lets it go on");
        self.changes.audit.push(AuditEntry {
            at: now.wall,
            event: "pause",
            dag_id: Some(dag_id),
            run_id: None,
            task_id: None,
            owner: "minflow".to_owned(),
            extra: serde_json::json!({ "reason": reason, "max_consecutive_failed_dag_runs": limit }),
        });
        self.withdraw(ix);
    }

    /// A stop that is asked for again, or a milder one, changes nothing.
    fn stop(&mut self, stop: Stop, by: Asker, now: Now) -> Done {
        if self.stopping.is_none() {
            self.audit_as(by.as_str(), now, "stop", (None, None), serde_json::json!({ "how": stop }));
            if self.settings.drained == Drained::Ended {
                self.end_paused();
            }
        }
        if self.stopping < Some(stop) {
            self.stopping = Some(stop);
            self.actions.push(Action::Stopping(stop, by, self.settings.drain_timeout));
            if stop == Stop::Drain {
                let at = now.boot.after(self.settings.drain_timeout);
                self.arm(TimerKey::Drain, Deadline::Boot(at));
            }
        }
        match stop {
            Stop::Now => {
                self.is_leaving = false;
                self.end_held(Force::Immediate);
            }
            Stop::KeepRunning if self.stopping == Some(stop) && self.settings.drained == Drained::Kept => {
                self.leave_held()
            }
            _ => {}
        }
        Done::Stopping { running: self.running_names() }
    }

    /// What still runs, as a stop shows it.
    fn running_names(&self) -> Vec<String> {
        let mut names = self.held_names(SHOWN_AT_STOP);
        if self.held.len() > SHOWN_AT_STOP {
            names.push(format!("and {} more", self.held.len() - SHOWN_AT_STOP));
        }
        names
    }

    fn find_awaited(&self, dag_id: &str, run_id: &RunId, history: &mut dyn History) -> Result<Awaited, CommandError> {
        let ix = self.known_dag(dag_id)?;
        if let Some(run) = self.find_live_run(ix, run_id) {
            return Ok(Awaited::Live(run));
        }
        let dag_id = &self.dag(ix).record.dag_id;
        match history.find_run(dag_id, &RunLookup::ById(run_id.clone())).map_err(unreadable)? {
            Some(DagRun { backfill: Some(place), state: RunState::Queued, .. }) => {
                let id = place.backfill;
                let help = format!("`minflow backfill wait {id}` waits for all of them");
                Err(refusal("in-backfill", format!("run `{run_id}` is now one of backfill {id}"), help))
            }
            Some(row) => Ok(Awaited::Ended(row.state)),
            None => {
                let help = format!("`minflow dags list-runs {dag_id}` shows its runs");
                Err(refusal("unknown-run", format!("`{dag_id}` has no run `{run_id}`"), help))
            }
        }
    }
}

enum Awaited {
    Live(crate::scheduler::world::RunIx),
    Ended(RunState),
}

pub(super) fn refusal(code: &str, message: String, help: String) -> CommandError {
    CommandError { code: code.to_owned(), message, help }
}

pub(super) fn unreadable(error: StoreError) -> CommandError {
    refusal("database", format!("the database cannot be read: {}", error.message), error.help)
}

/// SEMANTICS 7.2: the pattern of custom run_ids, and no other type's prefix.
pub(super) fn check_run_id(run_id: &str) -> Result<(), CommandError> {
    let invalid = |message: String, help: &str| Err(refusal("invalid-run-id", message, help.to_owned()));
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_.~:+-".contains(c);
    if run_id.is_empty() || !run_id.chars().all(is_allowed) || run_id.contains("..") {
        return invalid(format!("`{run_id}` is no run_id"), "use letters, digits and `_ . ~ : + -`, without `..`");
    }
    if run_id.len() > MAX_RUN_ID_BYTES {
        return invalid(format!("the run_id has {} bytes", run_id.len()), "a run_id has at most 200 bytes");
    }
    let foreign = RunType::ALL
        .iter()
        .filter(|kind| **kind != RunType::Manual)
        .find(|kind| run_id.starts_with(&format!("{kind}__")));
    match foreign {
        Some(kind) => invalid(
            format!("`{run_id}` has the prefix of {kind} runs"),
            "a manual run may not look like one of another type; choose another prefix",
        ),
        None => Ok(()),
    }
}

/// Eight letters and digits that follow from a run's identity (FNV-1a).
pub(super) fn identity_suffix(dag_id: &str, text: &str) -> String {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = dag_id.as_bytes().iter().chain(text.as_bytes()).fold(0xcbf2_9ce4_8422_2325, fold);
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut suffix = String::new();
    for _ in 0..8 {
        suffix.push(char::from(ALPHABET[(hash % 36) as usize]));
        hash /= 36;
    }
    suffix
}
