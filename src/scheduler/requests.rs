//! Runs that tasks ask for (SEMANTICS 22): what `trigger_dag` leads to.
//!
//! A request is granted in the turn that takes in its try's end: the run and what the end means for the task are one commit. How a task
//! waits for the run's end is `cross_dag`'s.

use serde_json::Value;

use crate::clock::to_micros;
use crate::model::{AskedDate, DagRun, Existing, RunId, RunKey, RunRequest, RunType, Wait};
use crate::scheduler::change::RunLookup;
use crate::scheduler::command::CommandError;
use crate::scheduler::conf;
use crate::scheduler::decide::iso;
use crate::scheduler::event::{Outcome, TryEnd};
use crate::scheduler::port::StoreError;
use crate::scheduler::steer::{check_run_id, identity_suffix};
use crate::scheduler::world::{DagIx, History, Now, World};

/// Airflow's name of the XCom with the id of the run that was made.
const TRIGGER_RUN_ID: &str = "trigger_run_id";
const RETURN_VALUE: &str = "return_value";

/// Why there is no run.
enum Refused {
    Faulted(CommandError),
    /// There is one already, and another try would find it as well.
    Exists(String),
    Skipped(String),
    /// The database cannot be asked just now.
    Unread(String),
}

impl From<CommandError> for Refused {
    fn from(error: CommandError) -> Self {
        match &*error.code {
            "database" | "stopping" => Self::Unread(error.message),
            _ => Self::Faulted(error),
        }
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Unread(error.message)
    }
}

impl World {
    /// The end of a try; of one that asks for a run, after the run was made or done over again.
    pub(super) fn granted(&mut self, end: TryEnd, now: Now, history: &mut dyn History) -> TryEnd {
        let Outcome::Asks(request) = &end.outcome else { return end };
        let by = self.held.get(&end.key).map(|&(run, slot)| &self.run(run).entry(slot).row);
        // What was marked or cleared meanwhile wants no run any longer.
        let Some(by) = by.filter(|row| row.state.is_executing()) else { return end };
        let by = (by.task_id.clone(), by.map_index);
        let (dag_id, wait) = (request.dag_id.clone(), request.wait.clone());
        let outcome = match self.requested_run((**request).clone(), now, history) {
            Ok(run_id) => {
                let extra = serde_json::json!({ "task_id": by.0, "map_index": by.1 });
                self.audit_as("minflow", now, "trigger_dag", (Some(&dag_id), Some(&run_id)), extra);
                let id = Value::String(run_id.to_string());
                let xcoms = vec![(RETURN_VALUE.to_owned(), id.clone()), (TRIGGER_RUN_ID.to_owned(), id)];
                let outcome = wait.map_or(Outcome::Exited(0), |states| {
                    Outcome::Deferred(Box::new(Wait::for_run(dag_id, run_id, states, now.wall)))
                });
                return TryEnd { outcome, xcoms, ..end };
            }
            Err(Refused::Faulted(error)) => Outcome::Faulted { reason: one_line(&error) },
            Err(Refused::Exists(reason)) => Outcome::GivenUp { reason },
            Err(Refused::Skipped(reason)) => Outcome::Skipped { reason },
            Err(Refused::Unread(reason)) => {
                Outcome::Unstarted { reason: format!("the run cannot be made now: {reason}") }
            }
        };
        TryEnd { outcome, ..end }
    }

    fn requested_run(&mut self, request: RunRequest, now: Now, history: &mut dyn History) -> Result<RunId, Refused> {
        let (ix, definition) = self.steerable(&request.dag_id)?;
        conf::check(&definition.dag, &request.conf, self.settings.overrides)?;
        let run_after = self.free_instant(ix, now);
        let logical_date = match request.logical_date {
            AskedDate::Now => Some(run_after),
            AskedDate::None => None,
            AskedDate::At(date) => Some(to_micros(date)),
        };
        let run_id = match request.run_id {
            Some(run_id) => {
                check_run_id(&run_id)?;
                run_id
            }
            None => {
                let text = format!("{}__{}", RunType::Manual, iso(logical_date.unwrap_or(run_after)));
                // Airflow appends eight random characters; here they follow from the run's identity.
                RunId::from(match logical_date {
                    Some(_) => text,
                    None => format!("{text}_{}", identity_suffix(&request.dag_id, &text)),
                })
            }
        };
        let lookups = [Some(RunLookup::ById(run_id.clone())), logical_date.map(RunLookup::ByLogicalDate)];
        for lookup in lookups.into_iter().flatten() {
            let Some(found) = self.find_run(ix, &lookup, history)? else { continue };
            let said = format!("`{}` has a run `{}` already", request.dag_id, found.run_id);
            return match request.existing {
                Existing::Refused => Err(Refused::Exists(format!(
                    "{said}: give the run another `run_id` and `logical_date`, or set `reset_dag_run` or `skip_when_already_exists`"
                ))),
                Existing::Skipped => Err(Refused::Skipped(said)),
                Existing::Reset => {
                    let run_id = found.run_id.clone();
                    self.reset_run(ix, found, &definition, now, history)?;
                    Ok(run_id)
                }
            };
        }
        let infer = || logical_date.and_then(|date| definition.timetable.infer_manual(date));
        let key = RunKey(self.new_run_key());
        let row = DagRun {
            logical_date,
            data_interval: infer(),
            queued_at: Some(now.wall),
            conf: request.conf,
            ..DagRun::new(key, request.dag_id, run_id.clone(), RunType::OperatorTriggered, run_after)
        };
        self.create_run(ix, row, &definition);
        Ok(run_id)
    }

    /// A run of the DAG, in memory or not, as it stands in this turn.
    pub(super) fn find_run(
        &self,
        ix: DagIx,
        lookup: &RunLookup,
        history: &mut dyn History,
    ) -> Result<Option<DagRun>, StoreError> {
        let known = self.known_runs(ix).map(|run| &self.run(run).row).find(|row| lookup.fits(row));
        match known {
            Some(row) => Ok(Some(row.clone())),
            None => history.find_run(&self.dag(ix).record.dag_id, lookup),
        }
    }
}

fn one_line(error: &CommandError) -> String {
    if error.help.is_empty() { error.message.clone() } else { format!("{}; {}", error.message, error.help) }
}
