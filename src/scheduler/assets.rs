//! Assets as the loop knows them: which there are, who produces and who waits for each, what has come since the last run (SEMANTICS 21).
//!
//! Here is the state and what follows from it alone. `assets/follow.rs` keeps it in step with the DAG files, `assets/happen.rs` takes in
//! events and makes runs of them, `assets/files.rs` counts each settled file once. An event and the run that it causes are committed in
//! the turn in which it came.

mod files;
mod follow;
mod happen;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::model::{Asset, AssetDefinition, AssetExpression, AssetKey, AssetName, Stamp};
use crate::scheduler::change::AssetSnapshot;
use crate::scheduler::port::FileWish;
use crate::scheduler::world::{DagIx, World};

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Assets {
    known: BTreeMap<AssetKey, Asset>,
    names: BTreeMap<AssetName, AssetKey>,
    /// Of those that are no aliases; one that is defined goes before one that is only named.
    uris: BTreeMap<String, AssetKey>,
    /// By name, what DAG files say; where several do, the first counts.
    definitions: BTreeMap<AssetName, BTreeMap<DagIx, AssetDefinition>>,
    /// The DAGs whose schedules name it.
    consumers: BTreeMap<AssetKey, BTreeSet<DagIx>>,
    /// The DAGs with tasks that produce it.
    producers: BTreeMap<AssetKey, BTreeSet<DagIx>>,
    /// What each DAG has to do with.
    links: BTreeMap<DagIx, BTreeSet<AssetKey>>,
    /// By alias, what it has stood for.
    resolved: BTreeMap<AssetKey, BTreeSet<AssetKey>>,
    /// What has had an event since the DAG's last run, and when the last.
    queues: BTreeMap<DagIx, BTreeMap<AssetKey, Timestamp>>,
    /// The newest event that is behind the DAG. Its keys are the DAGs that wait for assets.
    consumed_until: BTreeMap<DagIx, i64>,
    /// DAGs whose assets may be complete by now.
    ripe: BTreeSet<DagIx>,
    /// Those whose files are looked for.
    watched: BTreeMap<AssetKey, FileWish>,
    /// Of these, the files that have been told and lie there.
    ledger: BTreeMap<AssetKey, BTreeMap<PathBuf, Stamp>>,
    /// Files with a fault that another file's definition causes.
    conflicted: BTreeSet<OsString>,
    has_new_definitions: bool,
    next_asset_key: i64,
    next_event_key: i64,
}

impl Assets {
    fn find(&self, name: &str) -> Option<AssetKey> {
        self.names.get(name).or_else(|| self.uris.get(name)).copied()
    }

    /// Something may be ready that a full DAG or a pause has held back.
    pub(super) fn reconsider(&mut self, dag: DagIx) {
        if self.queues.contains_key(&dag) {
            self.ripe.insert(dag);
        }
    }

    pub(super) fn has_ripe(&self) -> bool {
        !self.ripe.is_empty()
    }

    /// Whether a name of the DAG's expression has had an event: an alias by any asset that it has stood for.
    fn has_event(&self, dag: DagIx, name: &str) -> bool {
        let (Some(queue), Some(key)) = (self.queues.get(&dag), self.find(name)) else { return false };
        let is_queued = |key: &AssetKey| queue.contains_key(key);
        is_queued(&key) || self.resolved.get(&key).is_some_and(|assets| assets.iter().any(is_queued))
    }

    fn is_complete(&self, dag: DagIx, expression: &AssetExpression) -> bool {
        self.queues.contains_key(&dag) && expression.holds(&mut |name| self.has_event(dag, name))
    }
}

impl World {
    pub(super) fn load_assets(&mut self, snapshot: AssetSnapshot) {
        let dags: BTreeMap<_, DagIx> = self.dag_index.clone();
        let assets = &mut self.assets;
        assets.next_asset_key = snapshot.next_asset_key.max(1);
        assets.next_event_key = snapshot.next_event_key.max(1);
        for asset in snapshot.assets {
            assets.names.insert(asset.definition.name.clone(), asset.key);
            if !asset.definition.is_alias {
                assets.uris.insert(asset.definition.uri.clone(), asset.key);
            }
            assets.known.insert(asset.key, asset);
        }
        for (alias, asset) in snapshot.resolved {
            assets.resolved.entry(alias).or_default().insert(asset);
        }
        for (dag_id, asset, at) in snapshot.queues {
            if let Some(&dag) = dags.get(&dag_id) {
                assets.queues.entry(dag).or_default().insert(asset, at);
                assets.ripe.insert(dag);
            }
        }
        for (dag_id, until) in snapshot.consumed_until {
            assets.consumed_until.extend(dags.get(&dag_id).map(|&dag| (dag, until)));
        }
        for (asset, path, stamp) in snapshot.files {
            assets.ledger.entry(asset).or_default().insert(path, stamp);
        }
    }
}
