//! History that goes, as the loop sees it: small orders, each one turn's work, given by who looks after the home (`keep`).
//!
//! Who plans reads the database beside the loop. What has changed since is seen here: a run that lives again, or that a later decision asks
//! for, stays.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::{DagId, RunId, RunKey};
use crate::scheduler::change::{AuditEntry, Changes, Earlier, Purge, RetiredRun, RunLookup};
use crate::scheduler::command::{CommandError, Done, Keep, Reply};
use crate::scheduler::port::StoreError;
use crate::scheduler::steer::refusal;
use crate::scheduler::world::{Action, DagIx, History, Now, World};

/// How many runs, instances and entries of the audit log one order takes away at most, so that a turn stays short. Of all but runs the store
/// leaves the rest to the next order once it has taken long enough: where a page is, in memory or on a slow disk, no count can tell.
pub const RETIRED_RUNS: usize = 5;
pub const STEP: Duration = Duration::from_millis(2);
pub const PURGED_ROWS: u32 = 200;
pub const FREED_PAGES: u32 = 64;

/// What an order means where nobody decides anything: no minflow runs, and who orders has read the database as it is. Answers the runs that go.
pub fn order(changes: &mut Changes, keep: Keep, at: Timestamp) -> Vec<RunKey> {
    let retirement = &mut changes.retirement;
    retirement.within = Some(STEP);
    match keep {
        Keep::Retire { runs, asked, .. } => {
            retirement.runs = runs.into_iter().map(|run| (run, at)).collect();
            changes.audit.extend(asked.map(|asked| entry(at, "clean", None, asked)));
        }
        Keep::Purge { runs } => retirement.purged = Some(Purge { runs, rows: PURGED_ROWS }),
        Keep::Forget { runs } => retirement.forgotten = runs.into_iter().map(|(key, ..)| key).collect(),
        Keep::CutAudit { until } => retirement.audit = Some((until, PURGED_ROWS)),
        Keep::FreePages => retirement.free_pages = Some(FREED_PAGES),
        Keep::DeleteDag { dag_id } => {
            changes.audit.push(entry(at, "delete", Some(dag_id.clone()), serde_json::Value::Null));
            retirement.dag = Some(dag_id);
        }
    }
    retirement.runs.iter().map(|(run, _)| run.key).collect()
}

fn entry(at: Timestamp, event: &'static str, dag_id: Option<DagId>, extra: serde_json::Value) -> AuditEntry {
    AuditEntry { at, event, dag_id, run_id: None, task_id: None, owner: "cli".to_owned(), extra }
}

impl World {
    pub(super) fn keep(&mut self, keep: Keep, now: Now, history: &mut dyn History) -> Reply {
        let mut kept = Vec::new();
        match keep {
            Keep::Retire { runs, everything, asked } => {
                for run in runs.into_iter().take(RETIRED_RUNS) {
                    let may_go = self.may_go(&run, everything, history).map_err(unread)?;
                    if may_go && self.retiring.insert((run.dag_id.clone(), run.run_id.clone())) {
                        kept.push(run.key);
                        self.changes.retirement.runs.push((run, now.wall));
                    }
                }
                if let Some(asked) = asked {
                    self.audit(now, "clean", None, None, asked);
                }
                if !kept.is_empty() {
                    self.actions.push(Action::Retired);
                }
            }
            Keep::Purge { runs } => {
                self.changes.retirement.within = Some(STEP);
                self.changes.retirement.purged = Some(Purge { runs, rows: PURGED_ROWS });
            }
            Keep::Forget { runs } => {
                for (key, dag_id, run_id) in runs {
                    self.changes.retirement.forgotten.push(key);
                    self.retiring.remove(&(dag_id.clone(), run_id));
                    if let Some(&ix) = self.dag_index.get(&dag_id) {
                        self.promotable.insert(ix);
                    }
                }
            }
            Keep::CutAudit { until } => {
                self.changes.retirement.within = Some(STEP);
                self.changes.retirement.audit = Some((until, PURGED_ROWS));
            }
            Keep::FreePages => {
                self.changes.retirement.within = Some(STEP);
                self.changes.retirement.free_pages = Some(FREED_PAGES);
            }
            Keep::DeleteDag { dag_id } => self.delete_dag(&dag_id, now, history)?,
        }
        Ok(Done::Kept { runs: kept })
    }

    /// Whether the run is over as it was planned, and nothing of this DAG asks for it. While an act goes over the DAG, all stays.
    fn may_go(&self, run: &RetiredRun, everything: bool, history: &mut dyn History) -> Result<bool, StoreError> {
        let Some(&ix) = self.dag_index.get(&run.dag_id) else { return Ok(false) };
        let is_at_work = self.acts.is_at_work() || self.find_live_run(ix, &run.run_id).is_some();
        let Some(found) = history.find_run(&run.dag_id, &RunLookup::ById(run.run_id.clone()))? else {
            return Ok(false);
        };
        let is_as_planned = found.key == run.key && found.state.is_finished() && found.end_date == Some(run.end_date);
        if is_at_work || !is_as_planned {
            return Ok(false);
        }
        if everything {
            return Ok(true);
        }
        let in_a_row =
            self.dag(ix).definition.as_ref().map_or(0, |definition| definition.dag.max_consecutive_failed_dag_runs);
        // Of the others no more is read than that: one that cannot be read keeps itself, and none of them.
        if history.newest_keys(&run.dag_id, in_a_row.max(1))?.contains(&run.key) {
            return Ok(false);
        }
        let Some(date) = found.logical_date else { return Ok(true) };
        let Some(oldest) = self.oldest_date(ix) else { return Ok(true) };
        let before = history.date_before(&run.dag_id, Earlier { than: oldest, but_manual: false })?;
        let but_manual = history.date_before(&run.dag_id, Earlier { than: oldest, but_manual: true })?;
        let needed = before.into_iter().chain(but_manual).chain([oldest]).min();
        Ok(needed.is_none_or(|needed| date < needed))
    }

    /// The least logical date of the DAG's runs that are not over.
    fn oldest_date(&self, ix: DagIx) -> Option<Timestamp> {
        self.dag(ix).runs.iter().filter_map(|&(_, run)| self.run(run).row.logical_date).min()
    }

    /// Folders of an earlier run of this name are still to go: nothing is written there until then.
    pub(super) fn is_name_taken(&self, dag_id: &DagId, run_id: &RunId) -> bool {
        !self.retiring.is_empty() && self.retiring.contains(&(dag_id.clone(), run_id.clone()))
    }

    pub(super) fn load_retiring(&mut self, found: Vec<(RunKey, DagId, RunId)>) {
        self.retiring = found.into_iter().map(|(_, dag_id, run_id)| (dag_id, run_id)).collect::<BTreeSet<_>>();
    }

    /// Forgets a DAG that has neither a file nor runs.
    fn delete_dag(&mut self, dag_id: &DagId, now: Now, history: &mut dyn History) -> Result<(), CommandError> {
        let ix = self.known_dag(dag_id)?;
        if self.dag(ix).record.is_active {
            let message = format!("`{dag_id}` has a DAG file, `{}`", self.dag(ix).record.file);
            return Err(refusal(
                "has-file",
                message,
                "remove the file first: it would be a new DAG at once".to_owned(),
            ));
        }
        let has_runs = !self.dag(ix).runs.is_empty() || !history.newest_keys(dag_id, 1).map_err(unread)?.is_empty();
        let is_going = self.retiring.iter().any(|(of, _)| of == dag_id);
        if has_runs || is_going || self.acts.is_at_work() {
            let message = format!("`{dag_id}` has runs that are not over, or that are still going");
            return Err(refusal(
                "has-runs",
                message,
                "end them with `minflow dags set-state`, then delete it".to_owned(),
            ));
        }
        self.dag_index.remove(dag_id);
        self.changes.retirement.dag = Some(dag_id.clone());
        self.audit(now, "delete", Some(dag_id), None, serde_json::Value::Null);
        Ok(())
    }
}

fn unread(error: StoreError) -> CommandError {
    CommandError { code: "database".to_owned(), message: error.message, help: error.help }
}
