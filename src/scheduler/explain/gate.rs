//! Which gate keeps an instance of a live run, who holds it, and until when.

use std::time::Duration;

use jiff::Timestamp;

use crate::keytable::rough_size;
use crate::model::{Instance, RunState, TaskState, WeightRule};
use crate::scheduler::admission::RESERVE;
use crate::scheduler::explain::fate::{Scene, holder};
use crate::scheduler::explain::{Finding, Holder, MAX_HOLDERS};
use crate::scheduler::past::PastBlock;
use crate::scheduler::pools::{Claim, Held, PoolIx};
use crate::scheduler::progress::NotReady;
use crate::scheduler::ready::{Elder, NotStarted, Rival};
use crate::scheduler::reason::{Reason, RunReason};
use crate::scheduler::reserves::{Need, NeedIx, Reserves};
use crate::scheduler::timers::Deadline;
use crate::scheduler::world::{DagIx, Handle, Now, RunIx, Slot, TimerKey, World};

/// The gate of a minflow that has just started, and of a world that no minflow runs.
pub(super) const NOT_SCANNED: &str = "files_not_scanned";

impl World {
    /// What keeps the instance, or how it came to its state.
    pub(super) fn finding(&self, ix: RunIx, slot: Slot, row: &Instance, scene: &Scene<'_>, now: Now) -> Finding {
        match self.obstacle_of(ix, slot) {
            Some(reason) => self.shut(reason, ix, slot, scene, now),
            None if row.state == TaskState::Deferred => {
                let until = self.instant_of(TimerKey::Wait(ix, slot), now);
                Finding { until, ..scene.fate(row) }
            }
            None => scene.fate(row),
        }
    }

    /// What keeps the run, or how far it is.
    pub(super) fn run_finding(&self, ix: RunIx, scene: &Scene<'_>) -> Finding {
        let told = scene.run_finding();
        if scene.run.state.is_finished() {
            return told;
        }
        let Some(reason) = self.run_obstacle(ix) else { return told };
        let mut finding = self.shut_run(reason, ix);
        finding.since = finding.since.or(told.since);
        finding
    }

    /// The words for what keeps a whole run.
    fn shut_run(&self, reason: RunReason, ix: RunIx) -> Finding {
        let dag = self.run(ix).dag;
        let name = &self.dag(dag).record.dag_id;
        match reason {
            RunReason::FilesNotScanned => Finding::shut(NOT_SCANNED, "the first look at the DAG files is not over"),
            RunReason::Stopping => Finding::shut("stopping", "minflow is stopping, and starts nothing any more"),
            RunReason::DagPaused => {
                Finding::shut("dag_paused", format!("`{name}` is paused; `minflow dags unpause {name}` lets it go on"))
            }
            RunReason::DagPausedByFailures { failed_runs } => Finding::shut(
                "dag_paused",
                format!(
                    "minflow paused `{name}`, since {failed_runs} runs in a row failed; `minflow dags unpause {name}` lets it go on"
                ),
            ),
            RunReason::DagGone => Finding::shut("dag_gone", format!("no file defines `{name}` any longer")),
            RunReason::RunAhead { until } => {
                Finding { until: Some(until), ..Finding::shut("run_ahead", "its run is not due yet") }
            }
            RunReason::RunQueued { running, max_active_runs } => {
                let message =
                    format!("{running} of at most {max_active_runs} runs of `{name}` are running (max_active_runs)");
                Finding::shut("max_active_runs", message).held(self.running_runs(dag), 1)
            }
        }
    }

    fn shut(&self, reason: Reason, ix: RunIx, slot: Slot, scene: &Scene<'_>, now: Now) -> Finding {
        let row = &self.run(ix).entry(slot).row;
        match reason {
            Reason::Run(of_run) => self.shut_run(of_run, ix),
            Reason::TaskGone => Finding::shut("task_gone", "the live definition has no such task"),
            Reason::Past(block) => Finding::shut("depends_on_past", past(&block)),
            Reason::NotReady(NotReady::RetryNotOver) => {
                let until = self.instant_of(TimerKey::Retry(ix, slot), now);
                Finding { until, ..scene.fate(row) }
            }
            Reason::NotReady(unmet) => not_ready(unmet, row, scene),
            Reason::NotStarted(why) => {
                let is_ordered = has_order(why);
                let mut finding = self.not_started(why, ix, slot).since(row.scheduled_at);
                finding.message += &if is_ordered { self.turn(ix, slot, now) } else { String::new() };
                finding
            }
            Reason::NotAdmitted(why) => {
                let table = if why.iter().all(|why| why.contains(RESERVE)) { "" } else { " ([admission])" };
                let message = format!("the host lets nothing new start: {}{table}", why.join("; "));
                Finding::shut("admission", message).since(row.scheduled_at)
            }
            Reason::HostExhausted => {
                let message =
                    "the host had no processes, memory or descriptors for it; it is tried again within a second";
                Finding::shut("host_exhausted", message).since(row.scheduled_at)
            }
            Reason::NextTurn => Finding::plain("the next turn starts it").since(row.scheduled_at),
        }
    }

    fn not_started(&self, why: NotStarted, ix: RunIx, slot: Slot) -> Finding {
        let run = self.run(ix);
        let row = &run.entry(slot).row;
        let name = |pool: PoolIx| self.limits.pools.name(pool).clone();
        match why {
            NotStarted::ParallelismFull { parallelism } => {
                let message = format!("{parallelism} of {parallelism} task instances are under way (core.parallelism)");
                Finding::shut("parallelism", message).held(self.holders(|_, _| Some(1)), 1)
            }
            NotStarted::PoolUnknown { pool } => {
                let name = name(pool);
                let message =
                    format!("nobody defines pool `{name}`; `minflow pools set {name} SLOTS DESCRIPTION` does");
                Finding::shut("pool_unknown", message)
            }
            NotStarted::PoolTooSmall { pool, slots, needed } => {
                let message =
                    format!("it can never run: it wants {needed} slots of pool `{}`, which has {slots}", name(pool));
                Finding::shut("pool_too_small", message)
            }
            NotStarted::PoolFull { pool, open, needed } => {
                let total = self.limits.pools.total(pool).unwrap_or_default();
                let name = name(pool);
                let taken = total - open;
                let wants = if needed > 1 { format!(", and it wants {needed}") } else { String::new() };
                let message = format!("pool `{name}` {taken}/{total}{wants}");
                let is_slotless = |held| held == Held::Deferred && !self.limits.pools.includes_deferred(pool);
                let in_pool = self.claimants(|_, _, claim, held| {
                    (claim.pool == pool && !is_slotless(held)).then_some(claim.pool_slots)
                });
                Finding::shut("pool_full", message).held(in_pool, needed.saturating_sub(open.max(0) as u32))
            }
            NotStarted::MaxActiveTasks { active, limit } => {
                let message =
                    format!("{active} of at most {limit} task instances of its run are under way (max_active_tasks)");
                Finding::shut("max_active_tasks", message).held(self.holders(|run, _| (run == ix).then_some(1)), 1)
            }
            NotStarted::MaxActiveTisPerDag { active, limit } => {
                let message = format!(
                    "{active} of at most {limit} instances of it are active in all runs (max_active_tis_per_dag)"
                );
                let of_task = self.claimants(|other, row_of, _, _| {
                    (self.run(other).dag == run.dag && row_of.task_id == row.task_id).then_some(1)
                });
                Finding::shut("max_active_tis_per_dag", message).held(of_task, active.saturating_sub(limit) + 1)
            }
            NotStarted::MaxActiveTisPerDagrun { active, limit } => {
                let message = format!(
                    "{active} of at most {limit} instances of it are active in its run (max_active_tis_per_dagrun)"
                );
                let of_task =
                    self.claimants(|other, row_of, _, _| (other == ix && row_of.task_id == row.task_id).then_some(1));
                Finding::shut("max_active_tis_per_dagrun", message).held(of_task, active.saturating_sub(limit) + 1)
            }
            NotStarted::HostReserved { need } => {
                let (message, units, wants) = reserved(self.limits.reserves(), need);
                let holds = |run: RunIx, slot: Slot| {
                    let (claim, _) = self.run(run).entry(slot).claim?;
                    Some(units(self.limits.reserves().need(claim.need?))).filter(|&units| units > 0)
                };
                Finding::shut("needs", message).held(self.holders(holds), wants)
            }
            NotStarted::HostTooSmall { need } => {
                let (memory, millicpus) = (self.limits.reserves().memory().1, self.limits.reserves().millicpus().1);
                let Need { memory: needed, millicpus: busy } = self.limits.reserves().need(need);
                let message = if needed > memory {
                    format!("{} of memory, and {} may be reserved in all", rough_size(needed), rough_size(memory))
                } else {
                    format!("{} processors, and {} may be reserved in all", cpus(busy.into()), cpus(millicpus))
                };
                Finding::shut("needs_too_much", format!("it can never run: it needs {message}"))
            }
            NotStarted::KeptFor(elder) => self.kept_for(elder),
            NotStarted::NotItsTurn => {
                Finding::shut("priority", format!("others come first: its priority weight is {}", row.priority_weight))
            }
        }
    }

    /// Others are kept back for one that has waited for long.
    fn kept_for(&self, Elder { handle, pool }: Elder) -> Finding {
        let (run, slot) = self.handles[handle as usize];
        let (run, row) = (self.run(run), &self.run(run).entry(slot).row);
        let what = match pool {
            Some(pool) => format!("{} of pool `{}`", slots(row.pool_slots.into()), self.limits.pools.name(pool)),
            None => "what it needs of the host".to_owned(),
        };
        let map_index = if row.map_index < 0 { String::new() } else { format!("[{}]", row.map_index) };
        let message = format!(
            "what comes free is kept for {}.{}{map_index} of run `{}`, which is first in line and wants {what} (scheduler.priority_ageing)",
            run.row.dag_id, row.task_id, run.row.run_id
        );
        Finding::shut("kept_for_another", message)
    }

    /// What the order has to do with it that an instance finds no slot.
    fn turn(&self, ix: RunIx, slot: Slot, now: Now) -> String {
        let run = self.run(ix);
        let entry = run.entry(slot);
        let Some(handle) = entry.handle.map(Handle::number) else { return String::new() };
        if self.ready.keeps(handle) {
            return "; it is first in line, and what comes free is kept for it (scheduler.priority_ageing)".to_owned();
        }
        let Some(Rival { dag, holds, against }) = self.ready.rival(handle, &self.limits) else {
            return self.weighed(ix, slot, now);
        };
        let (other, own) = (&self.dag(DagIx(dag)).record.dag_id, &run.row.dag_id);
        format!(
            "; `{other}` comes first: it holds {} of pool `{}`, and `{own}` {against} (scheduler.fair_share)",
            slots(holds),
            entry.row.pool
        )
    }

    /// By what it is weighed against others, as far as that is not to be seen in its file.
    fn weighed(&self, ix: RunIx, slot: Slot, now: Now) -> String {
        let run = self.run(ix);
        let entry = run.entry(slot);
        let weight = entry.row.priority_weight;
        let mut words = String::new();
        let task = entry.task.zip(run.definition.as_ref());
        let rule = task.map(|(task, definition)| definition.dag.graph.node(task).weight_rule);
        if rule == Some(WeightRule::CriticalPath) {
            words += &format!(
                "; its priority weight is {weight}, for the seconds of the longest path from it on (weight_rule = \"critical_path\")"
            );
        }
        let waited =
            entry.row.scheduled_at.map(|at| Duration::try_from(now.wall.duration_since(at)).unwrap_or_default());
        let ageing = self.settings.choosing.ageing.filter(|every| !every.is_zero());
        let older = waited.zip(ageing).map_or(0, |(waited, every)| (waited.as_nanos() / every.as_nanos()) as i64);
        if older > 0 {
            let counts = weight.saturating_add(older);
            words +=
                &format!("; its priority weight of {weight} counts as {counts} by now (scheduler.priority_ageing)");
        }
        words
    }

    /// The tries that the executor holds and of which `units` says that they count.
    fn holders(&self, units: impl Fn(RunIx, Slot) -> Option<u32>) -> Vec<Holder> {
        let held = self.held.values();
        held.filter_map(|&(run, slot)| {
            let units = units(run, slot)?;
            Some(holder(&self.run(run).row, &self.run(run).entry(slot).row, units))
        })
        .collect()
    }

    /// The instances of which `units` says that what they hold counts, those that are deferred included.
    fn claimants(&self, units: impl Fn(RunIx, &Instance, Claim, Held) -> Option<u32>) -> Vec<Holder> {
        let mut found = Vec::new();
        for (at, run) in self.runs.iter().enumerate().filter_map(|(at, run)| Some((at, run.as_ref()?))) {
            for entry in &run.instances {
                let Some((claim, held)) = entry.claim else { continue };
                let counts = units(RunIx(at as u32), &entry.row, claim, held);
                found.extend(counts.map(|units| holder(&run.row, &entry.row, units)));
            }
        }
        found
    }

    fn running_runs(&self, dag: DagIx) -> Vec<Holder> {
        let runs = self.dag(dag).runs.iter().map(|&(_, ix)| &self.run(ix).row);
        let running = runs.filter(|row| row.state == RunState::Running && row.counts_with().is_none());
        running
            .map(|row| Holder {
                dag_id: row.dag_id.clone(),
                run_id: row.run_id.clone(),
                task_id: None,
                map_index: -1,
                state: row.state.to_string(),
                units: 1,
                since: row.start_date,
                expected_end: None,
            })
            .collect()
    }

    /// When a deadline falls due, by the wall clock.
    fn instant_of(&self, key: TimerKey, now: Now) -> Option<Timestamp> {
        match self.timers.get(&key)? {
            Deadline::Wall(at) => Some(at),
            Deadline::Boot(at) => now.wall.checked_add(at.since(now.boot)).ok(),
        }
    }
}

fn past(block: &PastBlock) -> String {
    match block {
        PastBlock::Instance { run_id, state } => format!("it depends on the past, and in run `{run_id}` it is {state}"),
        PastBlock::Absent { run_id } => format!("it depends on the past, and run `{run_id}` has no instance of it"),
        PastBlock::Downstream { run_id, task_id, state } => {
            format!("it waits for what comes after it in the run before, and `{task_id}` of run `{run_id}` is {state}")
        }
    }
}

fn not_ready(unmet: NotReady, row: &Instance, scene: &Scene<'_>) -> Finding {
    match unmet {
        NotReady::UpstreamPending { rule, pending, total } => {
            let named = scene.named(row, |state| !state.is_finished());
            let named = named.map(|named| format!(": {named}")).unwrap_or_default();
            let message = format!("trigger rule `{rule}` waits for {pending} of {total} before it{named}");
            Finding::shut("trigger_rule", message).held(scene.pending(row), pending)
        }
        NotReady::SetupsPending { pending } => {
            Finding::shut("setups", format!("{pending} setups before it have not succeeded yet"))
        }
        NotReady::ScopePending { pending } => {
            Finding::shut("teardown", format!("{pending} task instances between its setups and itself are not over"))
        }
        NotReady::PastPending => {
            Finding::shut("depends_on_past", "it depends on the run before, which is looked at next")
        }
        NotReady::Marked(state) => Finding::plain(format!("the next turn makes it {state}")),
        NotReady::State(_) | NotReady::RetryNotOver => scene.fate(row),
    }
}

/// What is missing of the host: in words, how much of that an instance holds, and how much must come back. In MiB, or in thousandths
/// of a processor.
fn reserved(reserves: &Reserves, need: NeedIx) -> (String, fn(Need) -> u32, u32) {
    let Need { memory, millicpus } = reserves.need(need);
    let (taken, all) = reserves.memory();
    if taken.saturating_add(memory) > all {
        let message = format!(
            "{} of {} memory is reserved, and it needs {}",
            rough_size(taken),
            rough_size(all),
            rough_size(memory)
        );
        let mebibytes = |need: Need| u32::try_from(need.memory.div_ceil(1 << 20)).unwrap_or(u32::MAX);
        let missing = (taken.saturating_add(memory) - all).div_ceil(1 << 20);
        return (message, mebibytes, u32::try_from(missing).unwrap_or(u32::MAX));
    }
    let (taken, all) = reserves.millicpus();
    let message =
        format!("{} of {} processors are reserved, and it needs {}", cpus(taken), cpus(all), cpus(millicpus.into()));
    (message, |need| need.millicpus, (taken + u64::from(millicpus)).saturating_sub(all) as u32)
}

/// Whether it would begin sooner if it came before others.
fn has_order(why: NotStarted) -> bool {
    match why {
        NotStarted::PoolUnknown { .. }
        | NotStarted::PoolTooSmall { .. }
        | NotStarted::HostTooSmall { .. }
        | NotStarted::KeptFor(_) => false,
        NotStarted::ParallelismFull { .. }
        | NotStarted::PoolFull { .. }
        | NotStarted::MaxActiveTasks { .. }
        | NotStarted::MaxActiveTisPerDag { .. }
        | NotStarted::MaxActiveTisPerDagrun { .. }
        | NotStarted::HostReserved { .. }
        | NotStarted::NotItsTurn => true,
    }
}

fn slots(count: u64) -> String {
    if count == 1 { "1 slot".to_owned() } else { format!("{count} slots") }
}

fn cpus(millicpus: u64) -> f64 {
    millicpus as f64 / 1_000.0
}

impl Finding {
    /// Nothing keeps it.
    pub(super) fn plain(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// `gate` keeps it.
    pub(super) fn shut(gate: &str, message: impl Into<String>) -> Self {
        Self { gate: Some(gate.to_owned()), ..Self::plain(message) }
    }

    pub(super) fn since(self, since: Option<Timestamp>) -> Self {
        Self { since, ..self }
    }

    /// By these, of whose units `wants` must come free.
    fn held(self, mut by: Vec<Holder>, wants: u32) -> Self {
        by.sort_by_key(|holder| (holder.since.is_none(), holder.since));
        let more_holders = by.len().saturating_sub(MAX_HOLDERS) as u32;
        by.truncate(MAX_HOLDERS);
        Self { held_by: by, more_holders, wants, ..self }
    }
}
