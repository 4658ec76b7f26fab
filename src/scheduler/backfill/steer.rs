//! Commands about backfills: create, pause, unpause, cancel, await.

use std::sync::Arc;

use serde_json::{Map, json};

use crate::model::{Backfill, BackfillId};
use crate::scheduler::backfill::{LiveBackfill, Made, plan, refusal};
use crate::scheduler::change::{CancelledBackfill, PlannedDates};
use crate::scheduler::command::{Command, CommandError, Done, NewBackfill, Reply};
use crate::scheduler::conf;
use crate::scheduler::decide::iso;
use crate::scheduler::port::ReplyTo;
use crate::scheduler::steer::unreadable;
use crate::scheduler::world::{Action, DagIx, History, Now, World};

impl World {
    /// Carries out a command about backfills. None: it was about something else, and is given back with its reply.
    pub(in crate::scheduler) fn apply_backfill_command(
        &mut self,
        command: Command,
        reply: ReplyTo<Reply>,
        now: Now,
        history: &mut dyn History,
    ) -> Option<(Command, ReplyTo<Reply>)> {
        let done = match command {
            Command::CreateBackfill(asked) => match self.create_backfill(asked, now) {
                Ok(ix) => {
                    if let Some(live) = self.backfills.live.get_mut(&ix) {
                        live.creator = Some(reply);
                    }
                    return None;
                }
                Err(error) => Err(error),
            },
            Command::AwaitBackfill { id } => match self.find_backfill(id, history) {
                Ok(Found::Live(ix)) => {
                    if let Some(live) = self.backfills.live.get_mut(&ix) {
                        live.waiting.push(reply);
                    }
                    return None;
                }
                Ok(Found::Completed(row)) => Ok(Done::BackfillEnded { is_cancelled: row.is_cancelled }),
                Err(error) => Err(error),
            },
            Command::SetBackfillPaused { id, is_paused } => self.set_backfill_paused(id, is_paused, now, history),
            Command::CancelBackfill { id } => self.cancel_backfill(id, now, history),
            other => return Some((other, reply)),
        };
        self.actions.push(Action::Reply(reply, done));
        None
    }

    /// Settles the list of dates. Their runs are made in the turns that follow.
    fn create_backfill(&mut self, asked: NewBackfill, now: Now) -> Result<DagIx, CommandError> {
        if self.stopping.is_some() {
            return Err(refusal("stopping", "minflow is stopping".to_owned(), "ask again when it runs"));
        }
        let ix = self.known_dag(&asked.dag_id)?;
        let Some(definition) = self.dag(ix).definition.clone().filter(|_| self.dag(ix).record.is_active) else {
            let message = format!("`{}` has no DAG file any longer", asked.dag_id);
            return Err(refusal("unknown-dag", message, "put its file back, then ask again"));
        };
        if let Some(live) = self.backfills.live.get(&ix) {
            let id = live.row.id;
            let message = format!("backfill {id} of `{}` is not completed", asked.dag_id);
            let help =
                format!("wait for it with `minflow backfill wait {id}`, or end it with `minflow backfill cancel {id}`");
            return Err(refusal("backfill-exists", message, &help));
        }
        conf::check(&definition.dag, asked.conf.as_ref().unwrap_or(&Map::new()), self.settings.overrides)?;
        let dates: Arc<[_]> = plan(&definition.dag, &definition.timetable, &asked, now.wall)?.into();
        let id = BackfillId(self.backfills.next_id);
        self.backfills.next_id += 1;
        let extra = json!({
            "backfill_id": id,
            "from_date": iso(asked.from_date),
            "to_date": iso(asked.to_date),
            "reprocess_behavior": asked.reprocess,
            "run_backwards": asked.is_backwards,
            "max_active_runs": asked.max_active_runs,
            "dag_run_conf": asked.conf,
        });
        self.audit(now, "create_backfill", Some(&asked.dag_id), None, extra);
        let row = Backfill {
            id,
            dag_id: asked.dag_id,
            from_date: asked.from_date,
            to_date: asked.to_date,
            reprocess: asked.reprocess,
            is_backwards: asked.is_backwards,
            max_active_runs: asked.max_active_runs,
            conf: asked.conf,
            is_paused: false,
            is_cancelled: false,
            created_at: now.wall,
            completed_at: None,
        };
        self.changes.backfill.backfills.push(row.clone());
        self.changes.backfill.planned.push(PlannedDates { backfill: id, dates: dates.clone() });
        let live = LiveBackfill {
            row,
            pending: (1..).zip(dates.iter().copied()).collect(),
            is_committed: false,
            queued: 0,
            unseen: 0,
            running: 0,
            promoted: 0,
            made: Made::default(),
            creator: None,
            waiting: Vec::new(),
        };
        self.backfills.live.insert(ix, live);
        self.backfills.due.insert(ix);
        Ok(ix)
    }

    fn set_backfill_paused(
        &mut self,
        id: BackfillId,
        is_paused: bool,
        now: Now,
        history: &mut dyn History,
    ) -> Result<Done, CommandError> {
        let ix = self.uncompleted_backfill(id, history)?;
        let Some(live) = self.backfills.live.get_mut(&ix) else { return Ok(Done::PausedSet { was: is_paused }) };
        let was = std::mem::replace(&mut live.row.is_paused, is_paused);
        if was != is_paused {
            let row = live.row.clone();
            self.backfills.due.insert(ix);
            let event = if is_paused { "pause_backfill" } else { "unpause_backfill" };
            self.audit(now, event, Some(&row.dag_id), None, json!({ "backfill_id": id }));
            self.changes.backfill.backfills.push(row);
        }
        Ok(Done::PausedSet { was })
    }

    /// Its queued runs fail at once, with their task instances as they are; what runs goes on (SEMANTICS 8).
    fn cancel_backfill(&mut self, id: BackfillId, now: Now, history: &mut dyn History) -> Result<Done, CommandError> {
        let ix = self.uncompleted_backfill(id, history)?;
        let Some(live) = self.backfills.live.get_mut(&ix) else { return Ok(Done::BackfillCancelled { queued: 0 }) };
        live.row.is_paused = true;
        live.row.is_cancelled = true;
        let (queued, dag_id) = (live.queued, live.row.dag_id.clone());
        if let Some(creator) = live.creator.take() {
            let message = format!("backfill {id} was cancelled before all of its runs were made");
            let help = "create it again if that was a mistake".to_owned();
            let error = CommandError { code: "backfill-cancelled".to_owned(), message, help };
            self.actions.push(Action::Reply(creator, Err(error)));
        }
        self.audit(now, "cancel_backfill", Some(&dag_id), None, json!({ "backfill_id": id }));
        self.complete_backfill(ix, now);
        self.changes.backfill.cancelled.push(CancelledBackfill { backfill: id, dag_id, at: now.wall });
        Ok(Done::BackfillCancelled { queued })
    }

    fn uncompleted_backfill(&self, id: BackfillId, history: &mut dyn History) -> Result<DagIx, CommandError> {
        match self.find_backfill(id, history)? {
            Found::Live(ix) => Ok(ix),
            Found::Completed(row) => {
                let how = if row.is_cancelled { "was cancelled" } else { "is completed" };
                let help = format!("`minflow backfill show {id}` shows what has become of it");
                Err(refusal("backfill-completed", format!("backfill {id} {how}"), &help))
            }
        }
    }

    fn find_backfill(&self, id: BackfillId, history: &mut dyn History) -> Result<Found, CommandError> {
        if let Some(ix) = self.backfills.find(id) {
            return Ok(Found::Live(ix));
        }
        match history.find_backfill(id).map_err(unreadable)? {
            Some(row) => Ok(Found::Completed(row)),
            None => Err(refusal("unknown-backfill", format!("no backfill {id}"), "`minflow backfill list` shows all")),
        }
    }
}

enum Found {
    Live(DagIx),
    Completed(Backfill),
}
