//! Events of assets, and the runs that they lead to.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::model::{AssetKey, AssetName, DagRun, EventSource, OutletEvent, RunId, RunKey, RunType};
use crate::scheduler::change::{Consumption, EventWrite};
use crate::scheduler::command::{Done, Reply};
use crate::scheduler::decide::iso;
use crate::scheduler::steer::{identity_suffix, refusal};
use crate::scheduler::world::{DagIx, Definition, Now, RunIx, Slot, World};

impl World {
    /// A task has succeeded: each of its outlets has an event, and an alias those that the task has named.
    pub(in crate::scheduler) fn produce_outlets(&mut self, run: RunIx, slot: Slot, said: &[OutletEvent], now: Now) {
        let this = self.run(run);
        let (Some(task), Some(definition)) = (this.entry(slot).task, this.definition.clone()) else { return };
        let outlets = &definition.dag.task(task).outlets;
        if outlets.is_empty() {
            return;
        }
        let source = EventSource {
            dag_id: this.row.dag_id.to_string(),
            run_id: this.row.run_id.to_string(),
            task_id: this.entry(slot).row.task_id.to_string(),
            map_index: this.entry(slot).row.map_index,
        };
        for outlet in outlets {
            let key = self.intern(outlet);
            let of_outlet = || said.iter().filter(|event| event.outlet == *outlet);
            if !self.assets.known.get(&key).is_some_and(|asset| asset.definition.is_alias) {
                let mut extra = Map::new();
                of_outlet().filter(|event| event.asset.is_none()).for_each(|event| extra.extend(event.extra.clone()));
                self.happen(key, extra, Some(source.clone()), None, now);
                continue;
            }
            for event in of_outlet() {
                let Some(asset) = &event.asset else { continue };
                let asset = self.intern(asset);
                if self.assets.resolved.entry(key).or_default().insert(asset) {
                    self.changes.assets.resolved.push((key, asset));
                }
                self.happen(asset, event.extra.clone(), Some(source.clone()), Some(key), now);
            }
        }
    }

    /// One event. `extra` goes over the asset's own.
    pub(super) fn happen(
        &mut self,
        asset: AssetKey,
        extra: Map<String, Value>,
        source: Option<EventSource>,
        alias: Option<AssetKey>,
        now: Now,
    ) {
        let Some(known) = self.assets.known.get(&asset) else { return };
        let mut all = known.definition.extra.clone();
        all.extend(extra);
        let key = self.assets.next_event_key;
        self.assets.next_event_key += 1;
        let write = EventWrite { key, asset, timestamp: now.wall, extra: all, source, alias };
        self.changes.assets.events.push(write);
        let waiting = [Some(asset), alias].into_iter().flatten().filter_map(|key| self.assets.consumers.get(&key));
        let waiting: BTreeSet<DagIx> = waiting.flatten().copied().collect();
        for dag in waiting {
            // Airflow: what comes during a pause wakes nobody; the next run has it all the same.
            if self.dag(dag).may_schedule() {
                let before = self.assets.queues.entry(dag).or_default().insert(asset, now.wall);
                self.assets.ripe.insert(dag);
                if before != Some(now.wall) {
                    self.write_queue(dag);
                }
            }
        }
    }

    /// A run for each DAG whose assets are complete.
    pub(in crate::scheduler) fn create_asset_runs(&mut self, now: Now) -> bool {
        let mut has_created = false;
        for ix in std::mem::take(&mut self.assets.ripe) {
            if self.is_turn_full() {
                self.assets.ripe.insert(ix);
                continue;
            }
            let entry = self.dag(ix);
            let Some(definition) = entry.definition.clone().filter(|_| entry.may_schedule()) else { continue };
            let Some(expression) = &definition.dag.asset_schedule else { continue };
            if !self.assets.is_complete(ix, expression) {
                continue;
            }
            if self.dag(ix).exceeds_max() {
                // What comes meanwhile is consumed together; the end of a run makes it ripe again.
                self.dag_quiet(ix).held_back_at = Some(now.wall);
                continue;
            }
            self.create_asset_run(ix, &definition, &expression.names(), now);
            has_created = true;
        }
        has_created
    }

    fn create_asset_run(&mut self, ix: DagIx, definition: &Arc<Definition>, names: &BTreeSet<AssetName>, now: Now) {
        let queue = self.assets.queues.remove(&ix).unwrap_or_default();
        // A clock that was set back makes nobody wait.
        let run_after = queue.values().max().copied().unwrap_or(now.wall).min(now.wall);
        let keys: BTreeSet<AssetKey> = names.iter().filter_map(|name| self.assets.find(name)).collect();
        let is_alias = |key: &AssetKey| self.assets.known.get(key).is_some_and(|asset| asset.definition.is_alias);
        let (aliases, assets): (Vec<AssetKey>, Vec<AssetKey>) = keys.into_iter().partition(is_alias);
        let after = self.assets.consumed_until.get(&ix).copied().unwrap_or_default();
        let until = self.assets.next_event_key - 1;
        let run = self.create_dateless_run(ix, RunType::AssetTriggered, run_after, Map::new(), definition, now);
        let run = self.run(run).row.key;
        self.changes.assets.consumptions.push(Consumption { run, after, until, assets, aliases });
        self.set_consumed_until(ix, Some(until));
        self.write_queue(ix);
    }

    /// A run without a logical date (SEMANTICS 7.2).
    fn create_dateless_run(
        &mut self,
        ix: DagIx,
        run_type: RunType,
        run_after: jiff::Timestamp,
        conf: Map<String, Value>,
        definition: &Arc<Definition>,
        now: Now,
    ) -> RunIx {
        let dag_id = self.dag(ix).record.dag_id.clone();
        let key = RunKey(self.new_run_key());
        // Airflow appends eight random characters; here they follow from the run's identity.
        let text = format!("{run_type}__{}", iso(run_after));
        let suffix = identity_suffix(&dag_id, &format!("{text} {key}"));
        let run_id = RunId::from(format!("{text}_{suffix}"));
        let row = DagRun { queued_at: Some(now.wall), conf, ..DagRun::new(key, dag_id, run_id, run_type, run_after) };
        self.create_run(ix, row, definition)
    }

    /// A run of the DAG that produces an asset (Airflow: `assets materialize`).
    pub(in crate::scheduler) fn materialize(&mut self, name: &str, conf: Map<String, Value>, now: Now) -> Reply {
        if self.stopping.is_some() {
            return Err(refusal("stopping", "minflow is stopping".to_owned(), "ask again when it runs".to_owned()));
        }
        let Some(key) = self.assets.find(name) else {
            let near = crate::diagnostic::did_you_mean(name, self.assets.names.keys().map(|name| name.as_str()));
            let help =
                near.map_or("`minflow assets list` shows all".to_owned(), |near| format!("did you mean `{near}`?"));
            return Err(refusal("unknown-asset", format!("no asset `{name}`"), help));
        };
        let producers: Vec<DagIx> = self.assets.producers.get(&key).into_iter().flatten().copied().collect();
        let ix = match producers[..] {
            [ix] => ix,
            [] => {
                let help = "add it to the `outlets` of a task, or trigger a DAG with `minflow dags trigger`".to_owned();
                return Err(refusal("no-producer", format!("no task produces `{name}`"), help));
            }
            _ => {
                let names: Vec<&str> = producers.iter().map(|&ix| self.dag(ix).record.dag_id.as_str()).collect();
                let message = format!("several DAGs produce `{name}`: {}", names.join(", "));
                return Err(refusal(
                    "several-producers",
                    message,
                    "choose one, with `minflow dags trigger`".to_owned(),
                ));
            }
        };
        let Some(definition) = self.dag(ix).definition.clone() else {
            let message = format!("`{}` has no definition now", self.dag(ix).record.dag_id);
            return Err(refusal("unknown-dag", message, "correct its file, then ask again".to_owned()));
        };
        crate::scheduler::conf::check(&definition.dag, &conf, self.settings.overrides)?;
        let asked = serde_json::json!({ "asset": name, "conf": conf });
        let run = self.create_dateless_run(ix, RunType::AssetMaterialization, now.wall, conf, &definition, now);
        let row = &self.run(run).row;
        let (dag_id, run_id) = (row.dag_id.clone(), row.run_id.clone());
        self.audit(now, "materialize", Some(&dag_id), Some(&run_id), asked);
        let is_paused = self.dag(ix).record.is_paused;
        Ok(Done::Materialized { dag_id, run_id, is_paused })
    }
}
