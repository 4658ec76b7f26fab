//! Definitions come, change and go: which assets there are, who produces and who waits for them, and what contradicts what.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use crate::model::{Asset, AssetDefinition, AssetKey, AssetName, Catchup, Dag};
use crate::scheduler::change::{AssetReference, ImportError};
use crate::scheduler::world::{DagIx, Now, World};

const CONFLICT: &str = "asset-conflict";

impl World {
    /// The DAG has another definition: what it says of assets holds from now on.
    pub(in crate::scheduler) fn follow_assets(&mut self, ix: DagIx, now: Now) {
        let Some(definition) = self.dag(ix).definition.clone().filter(|_| self.dag(ix).record.is_active) else {
            return self.drop_assets(ix, now);
        };
        let dag = &definition.dag;
        let has_any = dag.asset_schedule.is_some() || !dag.assets.is_empty() || dag.tasks.iter().any(has_assets);
        if !has_any && !self.assets.links.contains_key(&ix) {
            return;
        }
        let (before, mut changed) = self.unlink(ix);
        for asset in &dag.assets {
            let of_name = self.assets.definitions.entry(asset.name.clone()).or_default();
            of_name.insert(ix, asset.clone());
            self.assets.has_new_definitions = true;
        }
        let defined: Vec<AssetKey> = dag.assets.iter().map(|asset| self.intern(&asset.name)).collect();
        changed.extend(&defined);
        self.define(&changed);
        let references = self.references(dag);
        let mut touched: BTreeSet<AssetKey> =
            references.iter().map(|reference| reference.asset).chain(defined).collect();
        for AssetReference { asset, role, .. } in &references {
            let side = match *role {
                "schedule" => &mut self.assets.consumers,
                "outlet" => &mut self.assets.producers,
                _ => continue,
            };
            side.entry(*asset).or_default().insert(ix);
        }
        self.assets.links.insert(ix, touched.clone());
        self.changes.assets.references.push((dag.dag_id.clone(), references));
        self.subscribe(ix, dag);
        touched.extend(before);
        self.watch_files(&touched, now);
    }

    /// The DAG has no file any longer.
    pub(in crate::scheduler) fn drop_assets(&mut self, ix: DagIx, now: Now) {
        if !self.assets.links.contains_key(&ix) && !self.assets.consumed_until.contains_key(&ix) {
            return;
        }
        let (before, undefined) = self.unlink(ix);
        self.define(&undefined);
        self.assets.links.remove(&ix);
        let dag_id = self.dag(ix).record.dag_id.clone();
        self.changes.assets.references.push((dag_id, Vec::new()));
        self.unsubscribe(ix);
        self.watch_files(&before, now);
    }

    /// Takes away all that the DAG had to do with assets; what that was, and which of them it had defined.
    fn unlink(&mut self, ix: DagIx) -> (BTreeSet<AssetKey>, Vec<AssetKey>) {
        let before = self.assets.links.get(&ix).cloned().unwrap_or_default();
        let mut undefined = Vec::new();
        for key in &before {
            for side in [&mut self.assets.consumers, &mut self.assets.producers] {
                if let Some(dags) = side.get_mut(key) {
                    dags.remove(&ix);
                }
            }
            let Some(asset) = self.assets.known.get(key) else { continue };
            let name = asset.definition.name.clone();
            if let Some(of_name) = self.assets.definitions.get_mut(&name)
                && of_name.remove(&ix).is_some()
            {
                self.assets.has_new_definitions = true;
                undefined.push(*key);
            }
        }
        (before, undefined)
    }

    /// All files have been seen: what none of them says any longer does not hold.
    pub(in crate::scheduler) fn settle_assets(&mut self, now: Now) {
        let keys: Vec<AssetKey> = self.assets.known.keys().copied().collect();
        self.define(&keys);
        self.watch_files(&keys.iter().copied().collect(), now);
        for key in keys {
            if !self.assets.watched.contains_key(&key) {
                self.forget_files(key);
            }
        }
        self.say_unproduced();
    }

    /// Names that no task produces and nobody defines are likely misspelt.
    fn say_unproduced(&self) {
        for (key, dags) in &self.assets.consumers {
            let Some(asset) = self.assets.known.get(key).filter(|_| !dags.is_empty()) else { continue };
            let name = &asset.definition.name;
            let has_producer = self.assets.producers.get(key).is_some_and(|dags| !dags.is_empty());
            if has_producer || self.asset_definition(name).is_some() || asset.definition.files().is_some() {
                continue;
            }
            let names: Vec<&str> = dags.iter().map(|&ix| self.dag(ix).record.dag_id.as_str()).collect();
            let produced = self.assets.producers.iter().filter(|(_, dags)| !dags.is_empty());
            let others = produced.filter_map(|(key, _)| Some(self.assets.known.get(key)?.definition.name.as_str()));
            let near = crate::diagnostic::did_you_mean(name, others);
            let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            log::warn!("{} waits for asset `{name}`, which no task produces{near}", names.join(", "));
        }
    }

    /// What counts as the definition of a name.
    fn asset_definition(&self, name: &AssetName) -> Option<&AssetDefinition> {
        let of_home = self.settings.assets.iter().find(|asset| asset.name == *name);
        of_home.or_else(|| self.assets.definitions.get(name)?.values().next())
    }

    /// These may be defined in another way than before.
    fn define(&mut self, keys: &[AssetKey]) {
        for key in keys {
            let Some(asset) = self.assets.known.get(key) else { continue };
            let name = asset.definition.name.clone();
            let definition = self.asset_definition(&name).cloned().unwrap_or_else(|| AssetDefinition::implied(&name));
            if asset.definition != definition {
                self.set_definition(*key, definition);
            }
        }
    }

    fn set_definition(&mut self, key: AssetKey, definition: AssetDefinition) {
        let assets = &mut self.assets;
        let Some(asset) = assets.known.get_mut(&key) else { return };
        let has_moved = asset.definition.uri != definition.uri;
        if assets.uris.get(&asset.definition.uri) == Some(&key) {
            assets.uris.remove(&asset.definition.uri);
        }
        if !definition.is_alias {
            assets.uris.insert(definition.uri.clone(), key);
        }
        asset.definition = definition;
        let row = asset.clone();
        self.changes.assets.assets.push(row);
        if has_moved {
            self.forget_files(key);
        }
    }

    /// The asset of a name or uri; it is made if there is none.
    pub(super) fn intern(&mut self, name: &AssetName) -> AssetKey {
        let defined = self.asset_definition(name).cloned();
        // A uri that only stood for itself until now is that of an asset with a name.
        let by_uri = || self.settings.assets.iter().find(|asset| asset.uri == **name && !asset.is_alias);
        let definition = defined.or_else(|| by_uri().cloned());
        let is_named = definition.as_ref().is_some_and(|definition| definition.name != *name);
        let found = match &definition {
            Some(definition) if is_named => self.assets.names.get(&definition.name).copied(),
            Some(_) => self.assets.names.get(name).copied(),
            None => self.assets.find(name),
        };
        if let Some(key) = found {
            return key;
        }
        let definition = definition.unwrap_or_else(|| AssetDefinition::implied(name));
        let key = AssetKey(self.assets.next_asset_key);
        self.assets.next_asset_key += 1;
        self.assets.names.insert(definition.name.clone(), key);
        let row = Asset { key, definition: AssetDefinition::implied(name), watched_since: None };
        self.assets.known.insert(key, row);
        self.set_definition(key, definition);
        key
    }

    fn references(&mut self, dag: &Dag) -> Vec<AssetReference> {
        let mut found = BTreeSet::new();
        for name in dag.asset_schedule.iter().flat_map(|expression| expression.names()) {
            let asset = self.intern(&name);
            found.insert(AssetReference { asset, role: "schedule", task_id: String::new() });
        }
        for task in &dag.tasks {
            for (role, names) in [("outlet", &task.outlets), ("inlet", &task.inlets)] {
                for name in names {
                    let asset = self.intern(name);
                    found.insert(AssetReference { asset, role, task_id: task.task_id.to_string() });
                }
            }
        }
        found.into_iter().collect()
    }

    /// From now on events of the assets of its schedule are the DAG's (Airflow: since its references were made; with catchup, all).
    fn subscribe(&mut self, ix: DagIx, dag: &Dag) {
        let Some(expression) = &dag.asset_schedule else { return self.unsubscribe(ix) };
        if !self.assets.consumed_until.contains_key(&ix) {
            let newest = self.assets.next_event_key - 1;
            let until = if dag.catchup == Catchup::All { 0 } else { newest };
            self.set_consumed_until(ix, Some(until));
        }
        let keys: BTreeSet<AssetKey> = expression.names().iter().filter_map(|name| self.assets.find(name)).collect();
        let through: BTreeSet<AssetKey> =
            keys.iter().filter_map(|key| self.assets.resolved.get(key)).flatten().copied().collect();
        let is_meant = |key: &AssetKey| keys.contains(key) || through.contains(key);
        if let Some(queue) = self.assets.queues.get_mut(&ix)
            && !queue.keys().all(is_meant)
        {
            queue.retain(|key, _| is_meant(key));
            self.write_queue(ix);
        }
        self.assets.ripe.insert(ix);
    }

    fn unsubscribe(&mut self, ix: DagIx) {
        if self.assets.consumed_until.contains_key(&ix) {
            self.set_consumed_until(ix, None);
        }
        if self.assets.queues.remove(&ix).is_some() {
            self.write_queue(ix);
        }
    }

    pub(super) fn set_consumed_until(&mut self, ix: DagIx, until: Option<i64>) {
        match until {
            Some(until) => self.assets.consumed_until.insert(ix, until),
            None => self.assets.consumed_until.remove(&ix),
        };
        let dag_id = self.dag(ix).record.dag_id.clone();
        self.changes.assets.consumed_until.push((dag_id, until));
    }

    pub(super) fn write_queue(&mut self, ix: DagIx) {
        let queue = self.assets.queues.get(&ix).into_iter().flatten().map(|(&key, &at)| (key, at)).collect();
        let dag_id = self.dag(ix).record.dag_id.clone();
        self.changes.assets.queues.push((dag_id, queue));
    }

    /// Two DAG files that define an asset differently: both say so, and the one that was there first counts.
    pub(in crate::scheduler) fn name_asset_conflicts(&mut self, now: Now) {
        if !std::mem::take(&mut self.assets.has_new_definitions) {
            return;
        }
        let mut faults: BTreeMap<OsString, Vec<String>> = BTreeMap::new();
        let file = |ix: &DagIx| self.dag(*ix).record.file.clone();
        let mut by_uri: BTreeMap<&str, (&AssetName, DagIx)> = BTreeMap::new();
        for (name, of_name) in &self.assets.definitions {
            let Some((first, counts)) = of_name.first_key_value() else { continue };
            for (other, _) in of_name.iter().filter(|(_, definition)| *definition != counts) {
                let (first, other) = (file(first), file(other));
                let message =
                    format!("asset `{name}` is defined in another way by `{other}`; what this file says counts");
                faults.entry(first.clone().into()).or_default().push(message);
                let message = format!("asset `{name}` is defined in another way by `{first}`, which counts");
                faults.entry(other.into()).or_default().push(message);
            }
            if counts.is_alias {
                continue;
            }
            if let Some((known, owner)) = by_uri.insert(&counts.uri, (name, *first)) {
                let (one, other) = (file(&owner), file(first));
                let message = format!("asset `{known}` has the uri of asset `{name}` of `{other}`");
                faults.entry(one.clone().into()).or_default().push(message);
                let message = format!("asset `{name}` has the uri of asset `{known}` of `{one}`");
                faults.entry(other.into()).or_default().push(message);
            }
        }
        let before = std::mem::replace(&mut self.assets.conflicted, faults.keys().cloned().collect());
        for path in before.union(&self.assets.conflicted.clone()) {
            self.set_conflicts(path, faults.get(path).cloned().unwrap_or_default(), now);
        }
    }

    fn set_conflicts(&mut self, path: &OsString, messages: Vec<String>, now: Now) {
        let mut errors = self.files.get(path).map(|file| file.errors.clone()).unwrap_or_default();
        let known: Vec<ImportError> = errors.extract_if(.., |error| error.code == CONFLICT).collect();
        for message in messages {
            let said = known.iter().find(|error| error.message == message).cloned();
            errors.push(said.unwrap_or_else(|| {
                log::warn!("{}: {message}", Path::new(path).display());
                ImportError {
                    filename: Path::new(path).display().to_string(),
                    line: 0,
                    column: 0,
                    code: CONFLICT.to_owned(),
                    message,
                    help: "make the two equal, or keep one of them: a definition holds for all DAG files".to_owned(),
                    timestamp: now.wall,
                }
            }));
        }
        let has_errors = !errors.is_empty();
        self.set_errors(Path::new(path), errors);
        let dag = self.owned.get(path).and_then(|dag_id| self.dag_index.get(dag_id)).copied();
        if let Some(ix) = dag.filter(|&ix| self.dag(ix).record.has_import_errors != has_errors) {
            self.dag_mut(ix).record.has_import_errors = has_errors;
        }
    }

    /// The DAGs that an outlet of the DAG's tasks may start.
    pub(in crate::scheduler) fn started_by_outlets(&self, ix: DagIx) -> BTreeSet<DagIx> {
        let links = self.assets.links.get(&ix).into_iter().flatten();
        let produced = links.filter(|key| self.assets.producers.get(key).is_some_and(|dags| dags.contains(&ix)));
        produced.filter_map(|key| self.assets.consumers.get(key)).flatten().copied().collect()
    }
}

fn has_assets(task: &crate::model::Task) -> bool {
    !task.outlets.is_empty() || !task.inlets.is_empty()
}
