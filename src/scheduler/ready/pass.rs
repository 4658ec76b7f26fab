//! One pass as Airflow makes it: it reads a batch of rows, whether or not they may start, and stops as soon as a batch starts something
//! (SEMANTICS 9).
//!
//! [`ReadyQueue::take`] starts all that may start, in the same order and by the same limits; this is for who wants Airflow's pace, and
//! what comes with it: rows that are blocked take the places of others in the batch, and of each run only the first
//! `max_active_tasks` are read.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::{Entry, Rank, ReadyQueue, is_waiting};
use crate::scheduler::pools::{Claim, Limits, PoolIx, Pools, Quota, Refusal, RunIx, Scope};

/// What a pass has found to be blocked, and reads no more of. A task is its DAG's number and its place in it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Starved {
    pools: BTreeSet<PoolIx>,
    dags: BTreeSet<u32>,
    tasks: BTreeSet<(u32, u32)>,
    tasks_of_runs: BTreeSet<(RunIx, u32)>,
}

impl Starved {
    fn has(&self, claim: &Claim, dag: u32, task: u32) -> bool {
        self.pools.contains(&claim.pool)
            || self.dags.contains(&dag)
            || self.tasks.contains(&(dag, task))
            || self.tasks_of_runs.contains(&(claim.run, task))
    }

    /// Says whether it was news.
    fn add(&mut self, why: Refusal, claim: &Claim, dag: u32, task: u32, limits: &Limits) -> bool {
        match why {
            Refusal::PoolUnknown => self.pools.insert(claim.pool),
            Refusal::PoolFull if limits.pools.open(claim.pool) == 0 => self.pools.insert(claim.pool),
            Refusal::Quota(Quota::Run(_)) => self.dags.insert(dag),
            Refusal::Quota(Quota::Task(ix)) if limits.task_limit(ix).0 == Scope::Run => {
                self.tasks_of_runs.insert((claim.run, task))
            }
            Refusal::PoolTooSmall | Refusal::PoolFull | Refusal::Quota(Quota::Task(_) | Quota::Host(_)) => {
                self.tasks.insert((dag, task))
            }
        }
    }
}

/// The open slots of all pools; null if one of them has no limit.
fn budget(pools: &Pools) -> Option<usize> {
    pools.iter().try_fold(0_usize, |sum, pool| Some(sum.saturating_add(usize::try_from(pools.open(pool)).ok()?)))
}

impl ReadyQueue {
    /// What starts by one of Airflow's passes that reads `rows` at once, in order, and what each holds (as queued) from then on.
    pub fn pass(&mut self, limits: &mut Limits, rows: u32) -> Vec<(u32, Claim)> {
        self.hear(limits);
        let rows = budget(&limits.pools).map_or(rows as usize, |slots| slots.min(rows as usize));
        let mut starved = Starved::default();
        starved.pools.extend(limits.pools.iter().filter(|&pool| limits.pools.open(pool) == 0));
        let mut started = Vec::new();
        while started.is_empty() {
            let batch = self.read(limits, rows, &starved);
            let mut is_news = false;
            for &(entry, claim) in &batch {
                let (dag, task) = (limits.dag(claim.run), entry.task());
                if let Some(why) = limits.refusal(&claim) {
                    is_news |= starved.add(why, &claim, dag, task, limits);
                } else if !limits.has_free_slot() {
                    is_news |= starved.tasks.insert((dag, task));
                } else {
                    limits.occupy(claim);
                    self.remove(entry.handle);
                    started.push((entry.handle, claim));
                }
            }
            if batch.len() < rows || !is_news {
                break;
            }
        }
        started
    }

    /// The best `rows`, in order, of runs that have room: of each run at most as many as may be active in it.
    fn read(&mut self, limits: &Limits, rows: usize, starved: &Starved) -> Vec<(Entry, Claim)> {
        let mut heads = BinaryHeap::new();
        for group in 0..self.groups.len() as u32 {
            let of = &mut self.groups[group as usize];
            if !of.line.is_empty() && limits.has_room_in_run(of.claim.run) && !starved.pools.contains(&of.claim.pool) {
                of.line.sort();
                heads.push(Reverse((of.rank(), group, 0)));
            }
        }
        let (mut batch, mut read) = (Vec::new(), BTreeMap::<RunIx, u32>::new());
        while let Some(Reverse((_, group, at))) = heads.pop()
            && batch.len() < rows
        {
            let of = &self.groups[group as usize];
            let (Some(&entry), claim) = (of.line.nth(at), of.claim) else { continue };
            if let Some(next) = of.line.nth(at + 1) {
                let rank = Rank { share: 0, weight: next.weight, logical_date: of.logical_date, place: next.place };
                heads.push(Reverse((rank, group, at + 1)));
            }
            let is_starved = starved.has(&claim, limits.dag(claim.run), entry.task());
            if is_starved || !is_waiting(&self.places, group, &entry) {
                continue;
            }
            let of_run = read.entry(claim.run).or_default();
            if *of_run < limits.max_active_tasks(claim.run) {
                *of_run += 1;
                batch.push((entry, claim));
            }
        }
        batch
    }
}
