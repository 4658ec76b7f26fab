//! The rows of mapped tasks: what a pass has made becomes instances, and what tries push is kept for those mapped over it
//! (SEMANTICS 15).
//!
//! How many there are to be is decided in [`progress`](super::progress); here it is carried out and remembered. Lengths live as long
//! as their XComs: until the next try of their task begins.

use std::sync::Arc;

use crate::model::{Instance, InstanceKey, TryKey, WeightRule};
use crate::scheduler::change::LengthWrite;
use crate::scheduler::progress::Growth;
use crate::scheduler::reload::fresh_row;
use crate::scheduler::world::{InstanceEntry, RunIx, Slot, World};

impl World {
    /// Rows for the instances that a pass has made.
    pub(super) fn apply_growth(&mut self, run: RunIx, growth: Growth) {
        for ix in growth.indexed {
            let slot = self.run(run).slot_of(ix);
            self.entry_mut(run, slot).row.map_index = 0;
        }
        for (ix, refusal) in growth.refused {
            let slot = self.run(run).slot_of(ix);
            let reason = refusal.to_string();
            let this = self.run(run);
            log::warn!("{}.{} ({}): {reason}", this.row.dag_id, this.entry(slot).row.task_id, this.row.run_id);
            self.entry_mut(run, slot).row.reason = Some(reason);
        }
        let Some(definition) = self.run(run).definition.clone().filter(|_| !growth.added.is_empty()) else { return };
        let run_key = self.run(run).row.key;
        for (ix, task, map_index) in growth.added {
            let key = InstanceKey(self.new_instance_key());
            let mut row = Instance { map_index, ..fresh_row(key, run_key, task, &definition) };
            let this = self.run_quiet(run);
            if let (Some(weights), WeightRule::CriticalPath) =
                (&this.weights, definition.dag.graph.node(task).weight_rule)
            {
                row.priority_weight = weights[task.index()];
            }
            let slot = Slot(this.instances.len() as u32);
            this.instances.push(InstanceEntry { ix: Some(ix), task: Some(task), ..InstanceEntry::new(row, None) });
            this.slots.push(slot);
            self.entry_mut(run, slot);
        }
    }

    /// The keys of the XComs of a try's task that tasks are mapped over.
    pub fn awaited_lengths(&self, key: TryKey) -> Vec<String> {
        self.held.get(&key).map_or_else(Vec::new, |&(run, slot)| self.lengths_awaited(run, slot))
    }

    /// The same of the task of an instance.
    pub(super) fn lengths_awaited(&self, run: RunIx, slot: Slot) -> Vec<String> {
        let this = self.run(run);
        let Some((task, definition)) = this.entry(slot).task.zip(this.definition.as_ref()) else { return Vec::new() };
        if definition.dag.mappings.is_empty() {
            return Vec::new();
        }
        let xcoms = definition.dag.mappings.iter().flat_map(|mapping| mapping.xcoms());
        xcoms.filter(|xcom| xcom.task == task).map(|xcom| xcom.key.clone()).collect()
    }

    /// A try has pushed what tasks are mapped over.
    pub(super) fn apply_lengths(&mut self, run: RunIx, slot: Slot, lengths: Vec<(String, u32)>) {
        if lengths.is_empty() {
            return;
        }
        self.run_quiet(run).epoch += 1;
        for (key, length) in lengths {
            let key: Arc<str> = key.into();
            let this = self.run_quiet(run);
            if let Some(ix) = this.entry(slot).ix {
                this.progress.set_length(ix, &key, Some(length));
            }
            let instance = this.entry(slot).row.key;
            this.lengths.insert((slot, key.clone()), length);
            self.changes.lengths.push(LengthWrite { instance, key, length });
        }
        self.active.insert(run);
    }

    /// What was pushed before the run came into memory; `lengths` may be of other runs too, and are ordered by instance.
    pub(super) fn load_lengths(&mut self, run: RunIx, lengths: &[LengthWrite]) {
        if lengths.is_empty() {
            return;
        }
        let this = self.run_quiet(run);
        for (entry, slot) in this.instances.iter().zip((0..).map(Slot)) {
            let first = lengths.partition_point(|write| write.instance < entry.row.key);
            let of_it = lengths[first..].iter().take_while(|write| write.instance == entry.row.key);
            this.lengths.extend(of_it.map(|write| ((slot, write.key.clone()), write.length)));
        }
    }

    /// Another try begins: what the one before has pushed is gone.
    pub(super) fn forget_lengths(&mut self, run: RunIx, slot: Slot) {
        let this = self.run_quiet(run);
        let keys: Vec<(Slot, Arc<str>)> = this
            .lengths
            .range((slot, Arc::from(""))..)
            .map_while(|(at, _)| (at.0 == slot).then(|| at.clone()))
            .collect();
        this.epoch += u64::from(!keys.is_empty());
        for at in keys {
            this.lengths.remove(&at);
            if let Some(ix) = this.entry(slot).ix {
                this.progress.set_length(ix, &at.1, None);
            }
        }
    }

    /// The run's progress is new: it is told what was pushed before.
    pub(super) fn retell_lengths(&mut self, run: RunIx) {
        let this = self.run_quiet(run);
        for ((slot, key), &length) in &this.lengths {
            if let Some(ix) = this.instances[slot.0 as usize].ix {
                this.progress.set_length(ix, key, Some(length));
            }
        }
    }
}
