//! Files that settle are events of their assets, each file once: what has been told is kept with the event that it led to.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{AssetKey, SettledFile, Stamp};
use crate::scheduler::port::FileWish;
use crate::scheduler::world::{Action, Now, World};

/// The kernel's clock of files ticks so coarsely.
const TICK: Duration = Duration::from_millis(10);

impl World {
    /// Looks for files of those of `keys` that a DAG waits for and no task produces, and of no others.
    pub(super) fn watch_files(&mut self, keys: &BTreeSet<AssetKey>, now: Now) {
        for &key in keys {
            let is_any = |dags: Option<&BTreeSet<_>>| dags.is_some_and(|dags| !dags.is_empty());
            let Some(asset) = self.assets.known.get(&key) else { continue };
            let is_waited_for = is_any(self.assets.consumers.get(&key)) && !is_any(self.assets.producers.get(&key));
            let wish = asset.definition.files().filter(|_| is_waited_for).map(|pattern| FileWish {
                pattern: pattern.to_owned(),
                settle: asset.definition.settle,
                known: Vec::new(),
            });
            let known = self.assets.watched.get(&key);
            if known == wish.as_ref() {
                continue;
            }
            match wish {
                Some(wish) => {
                    self.assets.watched.insert(key, wish.clone());
                    self.look_first(key, now);
                    let told = self.assets.ledger.get(&key).into_iter().flatten();
                    let known = told.map(|(path, stamp)| (path.clone(), *stamp)).collect();
                    self.actions.push(Action::WatchFiles(key, FileWish { known, ..wish }));
                }
                None => {
                    self.assets.watched.remove(&key);
                    self.forget_files(key);
                    self.actions.push(Action::ForgetFiles(key));
                }
            }
        }
    }

    fn look_first(&mut self, key: AssetKey, now: Now) {
        if let Some(asset) = self.assets.known.get_mut(&key).filter(|asset| asset.watched_since.is_none()) {
            asset.watched_since = Some(now.wall);
            self.changes.assets.assets.push(asset.clone());
        }
    }

    /// What lies there then is first seen when it is looked for again.
    pub(super) fn forget_files(&mut self, key: AssetKey) {
        if self.assets.ledger.remove(&key).is_some() {
            self.changes.assets.files.retain(|(asset, _, _)| *asset != key);
            self.changes.assets.forgotten_files.push(key);
        }
        if let Some(asset) = self.assets.known.get_mut(&key).filter(|asset| asset.watched_since.is_some()) {
            asset.watched_since = None;
            self.changes.assets.assets.push(asset.clone());
        }
    }

    /// Files have settled, or those that had are gone.
    pub(in crate::scheduler) fn apply_files_of(
        &mut self,
        key: AssetKey,
        files: Vec<SettledFile>,
        gone: Vec<PathBuf>,
        now: Now,
    ) {
        if !self.assets.watched.contains_key(&key) {
            return;
        }
        let Some(asset) = self.assets.known.get(&key) else { return };
        let first_look = asset.watched_since.unwrap_or(now.wall).as_nanosecond() - TICK.as_nanos() as i128;
        let counts_all = asset.definition.catchup;
        let ledger = self.assets.ledger.entry(key).or_default();
        let mut counted = Vec::new();
        for path in gone {
            if ledger.remove(&path).is_some() {
                self.changes.assets.files.push((key, path, None));
            }
        }
        for file in files {
            let before = ledger.insert(file.path.clone(), file.stamp);
            if before == Some(file.stamp) {
                continue;
            }
            self.changes.assets.files.push((key, file.path.clone(), Some(file.stamp)));
            if before == Some(Stamp::UNKNOWN) {
                // It was told, as what it is now or as another: that it is told twice would be worse.
                continue;
            }
            // One that a later look has found has come since, however old it is: with a folder that was moved here, or from a host
            // whose clock goes wrong. One that this minflow's first look has found may have come while none ran: its time tells.
            let lay_there = before.is_none() && file.lay_there && i128::from(file.changed_at) < first_look;
            if counts_all || !lay_there {
                counted.push(file);
            }
        }
        for file in counted {
            self.happen(key, file.extra(), None, None, now);
        }
    }
}
