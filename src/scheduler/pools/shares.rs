//! How many slots of each pool each DAG holds, for who shares them between DAGs (`scheduler.fair_share`).

use std::collections::BTreeMap;

use super::{Claim, Freed, Held, Limits, PoolIx};

impl Limits {
    /// From now on it is counted how many slots of each pool each DAG holds, or is no longer. What is `held` now is counted at once.
    pub fn count_shares(&mut self, is_wanted: bool, held: impl IntoIterator<Item = (Claim, Held)>) {
        self.shares = is_wanted.then(BTreeMap::new);
        for (claim, how) in held {
            if how != Held::Deferred {
                self.change_share(&claim, |holds| holds + u64::from(claim.pool_slots));
            }
        }
    }

    /// How many slots of a pool the queued and running instances of a DAG hold; 0 if they are not counted.
    pub fn share(&self, pool: PoolIx, dag: u32) -> u64 {
        self.shares.as_ref().and_then(|shares| shares.get(&(pool, dag)).copied()).unwrap_or(0)
    }

    /// Counts what has come or gone.
    pub(super) fn change_share(&mut self, claim: &Claim, change: impl Fn(u64) -> u64) {
        let dag = self.dag(claim.run);
        let Some(shares) = &mut self.shares else { return };
        let holds = change(shares.get(&(claim.pool, dag)).copied().unwrap_or(0));
        match holds {
            0 => _ = shares.remove(&(claim.pool, dag)),
            _ => _ = shares.insert((claim.pool, dag), holds),
        }
        self.freed.push(Freed::Share(claim.pool, dag));
    }
}
