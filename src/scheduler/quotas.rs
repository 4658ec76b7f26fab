//! What an instance takes of the limits: its claim, the limits of its task, and what it holds while it is deferred.
//!
//! The limits of tasks are made when something first counts against them, and follow the live definition.

use std::collections::BTreeSet;

use crate::model::{NeededMemory, Needs, Task, TaskIx};
use crate::scheduler::StoreError;
use crate::scheduler::pools::{Claim, Held, Scope, TaskLimitIx};
use crate::scheduler::port::History;
use crate::scheduler::progress::InstanceIx;
use crate::scheduler::reserves::{Need, NeedIx};
use crate::scheduler::world::{DagIx, RunIx, Slot, World};

/// Of a limit that a task no longer has, while something counts against it.
const NO_LIMIT: u32 = u32::MAX;

/// Whether what it needs is learned from its tries.
pub(super) fn learns(task: &Task) -> bool {
    task.needs.is_some_and(|needs| needs.memory == Some(NeededMemory::Auto))
}

impl World {
    /// What the instance holds once it is queued, by its row and the live definition of its task.
    pub(super) fn claim_of(&mut self, run: RunIx, slot: Slot) -> Claim {
        if self.learning_task(run, slot).is_some_and(|task| !self.is_learned(run, task)) {
            self.unlearned.insert(run);
        }
        let task_limit = self.task_limit_of(run, slot);
        let need = self.need_of(run, slot).map(|need| self.limits.intern_need(need));
        let row = &self.runs[run.index()].as_ref().expect("a claim is of a run in memory").entry(slot).row;
        Claim { run, pool: self.limits.pools.intern(&row.pool), pool_slots: row.pool_slots, task_limit, need }
    }

    /// What the instance reserves of the host, by the live definition of its task.
    fn need_of(&self, run: RunIx, slot: Slot) -> Option<Need> {
        let this = self.run(run);
        let (task, definition) = this.entry(slot).task.zip(this.definition.as_ref())?;
        let Needs { memory, millicpus } = definition.dag.task(task).needs?;
        let learned = || self.dag(this.dag).usual_memory.get(&definition.dag.task(task).task_id).copied();
        let memory = match memory {
            Some(NeededMemory::Bytes(memory)) => memory,
            Some(NeededMemory::Auto) => {
                Need { memory: learned().flatten().unwrap_or_default(), millicpus: 0 }.rounded().memory
            }
            None => 0,
        };
        let need = Need { memory, millicpus: millicpus.unwrap_or_default() };
        (need != Need::default()).then_some(need)
    }

    /// Learns from the database what the earlier tries of tasks with `needs.memory = "auto"` have taken, of those that are to wait for a
    /// slot now.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(super) fn learn_needs(
        &mut self,
        run: RunIx,
        instances: &[InstanceIx],
        history: &mut dyn History,
    ) -> Result<(), StoreError> {
        let this = self.run(run);
        let Some(definition) = this.definition.clone().filter(|definition| definition.has_learned_needs) else {
            return Ok(());
        };
        let dag = this.dag;
        let tasks: BTreeSet<TaskIx> = instances.iter().filter_map(|&ix| this.task_of(this.slot_of(ix))).collect();
        for task in tasks.into_iter().map(|task| definition.dag.task(task)).filter(|task| learns(task)) {
            if !self.dag(dag).usual_memory.contains_key(&task.task_id) {
                let usual = history.usual_memory(&definition.dag.dag_id, &task.task_id)?;
                self.dag_quiet(dag).usual_memory.insert(task.task_id.clone(), usual);
            }
        }
        Ok(())
    }

    /// The same of what waits or runs already: a start has not asked yet, and after a save or the end of another try it is asked anew.
    ///
    /// # Errors
    /// The database cannot be read; it is asked again.
    pub(super) fn learn_rest(&mut self, history: &mut dyn History) -> Result<(), StoreError> {
        while let Some(&run) = self.unlearned.first() {
            if self.runs.get(run.index()).is_some_and(Option::is_some) {
                self.learn_rest_of(run, history)?;
            }
            self.unlearned.remove(&run);
        }
        Ok(())
    }

    fn learn_rest_of(&mut self, run: RunIx, history: &mut dyn History) -> Result<(), StoreError> {
        let is_meant = |slot: &Slot| {
            let entry = self.run(run).entry(*slot);
            (entry.is_held() || entry.handle.is_some()) && self.learning_task(run, *slot).is_some()
        };
        let slots: Vec<Slot> = self.run(run).slots_in_order().filter(is_meant).collect();
        let instances: Vec<InstanceIx> = slots.iter().filter_map(|&slot| self.run(run).entry(slot).ix).collect();
        self.learn_needs(run, &instances, history)?;
        for slot in slots {
            if self.run(run).entry(slot).handle.is_some() {
                self.leave_ready_queue(run, slot);
                self.enter_ready_queue(run, slot);
            } else if let Some((mut claim, held)) =
                self.run(run).entry(slot).claim.filter(|claim| claim.1 != Held::Deferred)
            {
                let now = self.claim_of(run, slot).need;
                let need = self.need_under_way(run, slot, claim.need, now);
                self.limits.follow_need(&mut claim, need);
                self.run_quiet(run).instances[slot.0 as usize].claim = Some((claim, held));
            }
        }
        Ok(())
    }

    /// The task of an instance whose needs are learned.
    fn learning_task(&self, run: RunIx, slot: Slot) -> Option<TaskIx> {
        let this = self.run(run);
        let definition = this.definition.as_ref().filter(|definition| definition.has_learned_needs)?;
        this.entry(slot).task.filter(|&task| learns(definition.dag.task(task)))
    }

    fn is_learned(&self, run: RunIx, task: TaskIx) -> bool {
        let this = self.run(run);
        let task_id = this.definition.as_ref().map(|definition| &definition.dag.task(task).task_id);
        task_id.is_none_or(|task_id| self.dag(this.dag).usual_memory.contains_key(task_id))
    }

    /// A try of the task has ended: what is known of its memory is asked for anew.
    pub(super) fn forget_needs(&mut self, run: RunIx, slot: Slot) {
        let dag = self.run(run).dag;
        if !self.dag(dag).usual_memory.is_empty() {
            let task_id = self.run(run).entry(slot).row.task_id.clone();
            self.dag_quiet(dag).usual_memory.remove(&task_id);
        }
    }

    /// The narrowest limit of the instance's task; none if it has none, or has left its DAG.
    fn task_limit_of(&mut self, run: RunIx, slot: Slot) -> Option<TaskLimitIx> {
        let this = self.runs[run.index()].as_mut()?;
        let (task, definition) = this.entry(slot).task.zip(this.definition.as_ref())?;
        let spec = definition.dag.task(task);
        let (in_all, in_one) = (spec.max_active_tis_per_dag, spec.max_active_tis_per_dagrun);
        if in_all.is_none() && in_one.is_none() {
            return None;
        }
        let limits = &mut self.limits;
        let of_dag = &mut self.dags[this.dag.0 as usize].task_limits;
        let above = in_all.map(|limit| match of_dag.get(&spec.task_id) {
            Some(&known) => known,
            None => {
                let new = limits.add_task_limit(Scope::Dag, limit, None);
                of_dag.insert(spec.task_id.clone(), new);
                new
            }
        });
        let Some(limit) = in_one else { return above };
        let new = || limits.add_task_limit(Scope::Run, limit, above);
        Some(*this.task_limits.entry(task).or_insert_with(new))
    }

    /// The limits of a DAG's tasks are those of its live definition.
    pub(super) fn follow_dag_limits(&mut self, ix: DagIx) {
        let entry = &mut self.dags[ix.0 as usize];
        let Some(definition) = entry.definition.clone() else { return };
        let limits = &mut self.limits;
        entry.task_limits.retain(|task_id, &mut known| {
            let task = definition.dag.find(task_id).map(|task| definition.dag.task(task));
            let limit = task.and_then(|task| task.max_active_tis_per_dag);
            let (_, active, before) = limits.task_limit(known);
            if limit.is_none() && active == 0 {
                limits.drop_task_limit(known);
                return false;
            }
            if limit.unwrap_or(NO_LIMIT) != before {
                limits.set_task_limit(known, limit.unwrap_or(NO_LIMIT));
            }
            true
        });
    }

    /// What the run's instances hold counts by the live definition from now on. None of them waits for a slot.
    pub(super) fn follow_run_limits(&mut self, run: RunIx) {
        let before = std::mem::take(&mut self.run_quiet(run).task_limits);
        for slot in self.run(run).slots_in_order() {
            let Some((mut claim, held)) = self.run(run).entry(slot).claim else { continue };
            let now = self.claim_of(run, slot);
            if held == Held::Deferred {
                // Its row may name another pool by now.
                self.limits.release(claim, held);
                self.limits.defer(now);
                claim = now;
            }
            self.limits.follow_task_limit(&mut claim, now.task_limit);
            if held != Held::Deferred {
                let need = self.need_under_way(run, slot, claim.need, now.need);
                self.limits.follow_need(&mut claim, need);
            }
            self.run_quiet(run).instances[slot.0 as usize].claim = Some((claim, held));
        }
        for limit in before.into_values() {
            self.limits.drop_task_limit(limit);
        }
    }

    /// What an instance under way reserves: by the live definition, as after a start. Of a task that has left its DAG nothing else is
    /// known than what it had, nor is what was learned when it was queued.
    fn need_under_way(&self, run: RunIx, slot: Slot, before: Option<NeedIx>, now: Option<NeedIx>) -> Option<NeedIx> {
        let this = self.run(run);
        match this.entry(slot).task.zip(this.definition.as_ref()) {
            None => before,
            Some((task, definition)) if learns(definition.dag.task(task)) => before.or(now),
            Some(_) => now,
        }
    }

    /// The instance is deferred from now on.
    pub(super) fn hold_deferred(&mut self, run: RunIx, slot: Slot) {
        let claim = self.claim_of(run, slot);
        self.limits.defer(claim);
        self.run_quiet(run).instances[slot.0 as usize].claim = Some((claim, Held::Deferred));
    }

    /// The instance is deferred no longer.
    pub(super) fn release_deferred(&mut self, run: RunIx, slot: Slot) {
        let entry = &mut self.run_quiet(run).instances[slot.0 as usize];
        if let Some((claim, held)) = entry.claim.take_if(|(_, held)| *held == Held::Deferred) {
            self.limits.release(claim, held);
        }
    }
}
