//! The assets of the store without a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::Timestamp;

use crate::model::{Asset, AssetEvent, AssetKey, DagId, RunKey, Stamp};
use crate::scheduler::change::{AssetChanges, AssetSnapshot, Consumption, EventWrite};

#[derive(Clone, Debug, Default)]
pub(super) struct MemoryAssets {
    assets: BTreeMap<AssetKey, Asset>,
    resolved: BTreeSet<(AssetKey, AssetKey)>,
    events: BTreeMap<i64, EventWrite>,
    queues: BTreeMap<DagId, Vec<(AssetKey, Timestamp)>>,
    consumed_until: BTreeMap<DagId, i64>,
    consumed: BTreeMap<RunKey, BTreeSet<i64>>,
    files: BTreeMap<(AssetKey, PathBuf), Stamp>,
}

impl MemoryAssets {
    pub(super) fn apply(&mut self, changes: &AssetChanges) {
        self.assets.extend(changes.assets.iter().map(|asset| (asset.key, asset.clone())));
        self.resolved.extend(changes.resolved.iter().copied());
        for event in &changes.events {
            let before = self.events.insert(event.key, event.clone());
            debug_assert_eq!(before, None, "event {} is written once", event.key);
        }
        self.queues.extend(changes.queues.iter().cloned());
        for (dag_id, until) in &changes.consumed_until {
            match until {
                Some(until) => self.consumed_until.insert(dag_id.clone(), *until),
                None => self.consumed_until.remove(dag_id),
            };
        }
        for Consumption { run, after, until, assets, aliases } in &changes.consumptions {
            let is_meant = |event: &&EventWrite| {
                assets.contains(&event.asset) || event.alias.is_some_and(|alias| aliases.contains(&alias))
            };
            let range = self.events.range(after + 1..=*until).map(|(_, event)| event);
            self.consumed.entry(*run).or_default().extend(range.filter(is_meant).map(|event| event.key));
        }
        for asset in &changes.forgotten_files {
            self.files.retain(|(of, _), _| of != asset);
        }
        for (asset, path, stamp) in &changes.files {
            match stamp {
                Some(stamp) => self.files.insert((*asset, path.clone()), *stamp),
                None => self.files.remove(&(*asset, path.clone())),
            };
        }
    }

    pub(super) fn snapshot(&self) -> AssetSnapshot {
        let queues = self
            .queues
            .iter()
            .flat_map(|(dag_id, queue)| queue.iter().map(move |(asset, at)| (dag_id.clone(), *asset, *at)));
        let newest = self.events.last_key_value().map_or(0, |(key, _)| *key);
        AssetSnapshot {
            assets: self.assets.values().cloned().collect(),
            resolved: self.resolved.iter().copied().collect(),
            queues: queues.collect(),
            consumed_until: self.consumed_until.iter().map(|(dag_id, until)| (dag_id.clone(), *until)).collect(),
            files: self.files.iter().map(|((asset, path), stamp)| (*asset, path.clone(), *stamp)).collect(),
            next_asset_key: self.assets.last_key_value().map_or(1, |(key, _)| key.0 + 1),
            next_event_key: newest.max(self.consumed_until.values().max().copied().unwrap_or(0)) + 1,
        }
    }

    pub(super) fn events(&self) -> Vec<AssetEvent> {
        self.events.values().filter_map(|event| self.shown(event)).collect()
    }

    pub(super) fn consumed(&self, run: RunKey) -> Vec<AssetEvent> {
        let keys = self.consumed.get(&run).into_iter().flatten();
        keys.filter_map(|key| self.shown(self.events.get(key)?)).collect()
    }

    fn shown(&self, event: &EventWrite) -> Option<AssetEvent> {
        let definition = &self.assets.get(&event.asset)?.definition;
        Some(AssetEvent {
            key: event.key,
            name: definition.name.clone(),
            uri: definition.uri.clone(),
            group: definition.group.clone(),
            timestamp: event.timestamp,
            extra: event.extra.clone(),
            source: event.source.clone(),
        })
    }
}
