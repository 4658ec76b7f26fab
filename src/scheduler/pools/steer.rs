//! Which pools there are, and the commands that change them.
//!
//! A pool of the configuration belongs to it: no command changes it, and while it stands there, what the database holds under its
//! name does not count. All others are rows. `default_pool` is always there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::diagnostic::did_you_mean;
use crate::model::pool::DEFAULT_POOL;
use crate::model::{DagId, Pool, PoolName};
use crate::scheduler::command::{CommandError, Done, Reply};
use crate::scheduler::steer::refusal;
use crate::scheduler::world::{Action, Now, World};

impl World {
    /// Takes in the pools of the database, beside those of the configuration.
    pub(in crate::scheduler) fn load_pools(&mut self, stored: Vec<Pool>) {
        self.stored_pools = stored.into_iter().map(|pool| (pool.name.clone(), pool)).collect();
        let given = self.settings.pools.iter().map(|pool| pool.name.clone());
        let names: Vec<PoolName> = given.chain(self.stored_pools.keys().cloned()).collect();
        for name in names.iter().chain([&DEFAULT_POOL.into()]) {
            self.settle_pool(name);
        }
    }

    /// The pools of the configuration are others now.
    pub(in crate::scheduler) fn set_given_pools(&mut self, pools: Vec<Pool>) {
        let before = std::mem::replace(&mut self.settings.pools, pools);
        if before == self.settings.pools {
            return;
        }
        let names: BTreeSet<PoolName> =
            before.into_iter().chain(self.settings.pools.iter().cloned()).map(|pool| pool.name).collect();
        for name in &names {
            self.settle_pool(name);
        }
        self.actions.push(Action::PoolsChanged(self.pool_sizes()));
    }

    /// The slots of all pools, by name.
    pub(in crate::scheduler) fn pool_sizes(&self) -> BTreeMap<PoolName, i64> {
        let pools = &self.limits.pools;
        pools.iter().map(|pool| (pools.name(pool).clone(), pools.total(pool).unwrap_or_default())).collect()
    }

    fn given_pool(&self, name: &str) -> Option<&Pool> {
        self.settings.pools.iter().find(|pool| &*pool.name == name)
    }

    fn find_pool(&self, name: &str) -> Option<Pool> {
        let found = self.given_pool(name).or_else(|| self.stored_pools.get(name)).cloned();
        found.or_else(|| (name == DEFAULT_POOL).then(Pool::default_pool))
    }

    /// Brings the limits in step with what is said of a pool.
    fn settle_pool(&mut self, name: &PoolName) {
        match self.find_pool(name) {
            Some(pool) => {
                self.limits.set_pool(name, pool.slots, pool.include_deferred);
            }
            None => {
                let pool = self.limits.pools.intern(name);
                self.limits.drop_pool(pool);
            }
        }
    }

    /// Defines pools, or changes them: all of them, or none if one may not be. One that is so already stays as it is.
    pub(in crate::scheduler) fn set_pools(&mut self, pools: Vec<Pool>, now: Now) -> Reply {
        if let Some(fault) = pools.iter().find_map(Pool::fault) {
            return Err(refusal("invalid-pool", fault, "correct it, and ask again; nothing was changed".to_owned()));
        }
        let is_meant_otherwise =
            |pool: &&Pool| self.given_pool(&pool.name).is_some_and(|given| !has_same_slots(given, pool));
        let given: Vec<&str> = pools.iter().filter(is_meant_otherwise).map(|pool| pool.name.as_str()).collect();
        if !given.is_empty() {
            return Err(of_configuration(&given));
        }
        let is_news =
            |pool: &Pool| self.given_pool(&pool.name).is_none() && self.find_pool(&pool.name).as_ref() != Some(pool);
        let changed: Vec<Pool> = pools.into_iter().filter(is_news).collect();
        let count = changed.len() as u32;
        for pool in changed {
            let before = self.find_pool(&pool.name).map(facts);
            self.audit(
                now,
                "set_pool",
                None,
                None,
                json!({ "pool": pool.name, "to": facts(pool.clone()), "from": before }),
            );
            self.changes.pools.push(pool.clone());
            let name = pool.name.clone();
            self.stored_pools.insert(name.clone(), pool);
            self.settle_pool(&name);
        }
        if count > 0 {
            self.actions.push(Action::PoolsChanged(self.pool_sizes()));
        }
        Ok(Done::PoolsSet { changed: count })
    }

    /// Takes a pool away. What runs in it goes on; what would run in it waits for a pool of that name.
    pub(in crate::scheduler) fn delete_pool(&mut self, name: &str, now: Now) -> Reply {
        if name == DEFAULT_POOL {
            let help = format!("`minflow pools set {DEFAULT_POOL} SLOTS \"\"` changes its size");
            return Err(refusal("default-pool", format!("`{DEFAULT_POOL}` cannot be deleted"), help));
        }
        if self.given_pool(name).is_some() {
            return Err(of_configuration(&[name]));
        }
        let Some(pool) = self.stored_pools.remove(name) else {
            let known = self.pool_sizes();
            let help = match did_you_mean(name, known.keys().map(PoolName::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`minflow pools list` shows all".to_owned(),
            };
            return Err(refusal("unknown-pool", format!("no pool `{name}`"), help));
        };
        self.changes.dropped_pools.push(pool.name.clone());
        self.settle_pool(&pool.name);
        self.audit(now, "delete_pool", None, None, json!({ "pool": name, "from": facts(pool.clone()) }));
        self.actions.push(Action::PoolsChanged(self.pool_sizes()));
        let waiting = self.dags_in_pool(name);
        Ok(Done::PoolDeleted { pool, waiting })
    }

    /// The DAGs that name a pool, in order of their ids.
    fn dags_in_pool(&self, name: &str) -> Vec<DagId> {
        let names_it = |ix: &&crate::scheduler::world::DagIx| {
            let entry = self.dag(**ix);
            let definition = entry.definition.as_ref().filter(|_| entry.record.is_active);
            definition.is_some_and(|definition| definition.dag.tasks.iter().any(|task| &*task.pool == name))
        };
        self.dag_index.values().filter(names_it).map(|&ix| self.dag(ix).record.dag_id.clone()).collect()
    }
}

/// Whether the two differ in words at most.
fn has_same_slots(one: &Pool, other: &Pool) -> bool {
    Pool { description: String::new(), ..one.clone() } == Pool { description: String::new(), ..other.clone() }
}

/// What there is to say of a pool beside its name.
fn facts(pool: Pool) -> Value {
    let mut facts = serde_json::to_value(pool).expect("a pool has text keys and whole numbers");
    if let Some(facts) = facts.as_object_mut() {
        facts.shift_remove("name");
    }
    facts
}

fn of_configuration(names: &[&str]) -> CommandError {
    let named: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    let (named, belong) = (named.join(", "), if names.len() == 1 { "belongs" } else { "belong" });
    let help = "change it there, then have minflow read it again (SIGHUP); `minflow config list --origins` shows where it stands";
    refusal("pool-of-configuration", format!("{named} {belong} to airflow.toml; nothing was changed"), help.to_owned())
}
