//! Airflow's pass, by the words of SEMANTICS 9 over plain lists, against the queue's.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::scheduler::pools::Scope;

/// A task: weight, pool (3: nobody defines it), slots, and its limits.
type TestTask = (i64, u32, u32, Option<u32>, Option<u32>);
/// An instance: its task, and whether it waits (0), is queued or running (1) or deferred (2).
type TestInstance = (usize, u8);

#[derive(Clone, Debug)]
struct Case {
    /// Slots, and whether they include what is deferred.
    pools: Vec<(i64, bool)>,
    /// `max_active_tasks` and the tasks.
    dags: Vec<(u32, Vec<TestTask>)>,
    /// DAG and instances; the logical dates are in no order.
    runs: Vec<(usize, Vec<TestInstance>)>,
    rows: u32,
    executor_slots: u32,
}

fn any_case() -> impl Strategy<Value = Case> {
    let any_limit = || prop_oneof![2 => Just(None), 1 => (1..3_u32).prop_map(Some)];
    let task = (1..4_i64, 0..4_u32, 1..4_u32, any_limit(), any_limit());
    let dag = (1..5_u32, prop::collection::vec(task, 1..5));
    let instance = (0..8_usize, prop_oneof![6 => Just(0_u8), 1 => Just(1), 1 => Just(2)]);
    (
        prop::collection::vec((-1..5_i64, any::<bool>()), 3),
        prop::collection::vec(dag, 1..4),
        prop::collection::vec((0..4_usize, prop::collection::vec(instance, 1..7)), 1..6),
        prop_oneof![Just(1_u32), Just(2), Just(3), Just(5), Just(16)],
        prop_oneof![Just(2_u32), Just(1_000)],
    )
        .prop_map(|(pools, dags, mut runs, rows, executor_slots)| {
            for (dag, instances) in &mut runs {
                *dag %= dags.len();
                instances.iter_mut().for_each(|(task, _)| *task %= dags[*dag].1.len());
            }
            Case { pools, dags, runs, rows, executor_slots }
        })
}

impl Case {
    fn date(run: usize) -> i64 {
        (run as i64 * 7) % 5
    }

    /// Everything of a state (0, 1 or 2), as run, place in the run, task.
    fn of_state(&self, state: u8) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        self.runs.iter().enumerate().flat_map(move |(run, (_, instances))| {
            let numbered = instances.iter().enumerate();
            numbered.filter(move |(_, it)| it.1 == state).map(move |(at, it)| (run, at, it.0))
        })
    }

    fn task(&self, run: usize, task: usize) -> &TestTask {
        &self.dags[self.runs[run].0].1[task]
    }

    /// What starts, as run and place in it, in order.
    fn by_the_book(&self) -> Vec<(usize, usize)> {
        let mut open: Vec<i64> =
            self.pools.iter().map(|&(slots, _)| if slots < 0 { i64::MAX } else { slots }).collect();
        let (mut active, mut of_dag, mut of_run) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for state in [1, 2] {
            for (run, _, task) in self.of_state(state) {
                let &(_, pool, slots, ..) = self.task(run, task);
                if let Some(of) = open.get_mut(pool as usize).filter(|of| **of != i64::MAX)
                    && (state == 1 || self.pools[pool as usize].1)
                {
                    *of -= i64::from(slots);
                }
                *active.entry(run).or_insert(0) += u32::from(state == 1);
                *of_dag.entry((self.runs[run].0, task)).or_insert(0) += 1_u32;
                *of_run.entry((run, task)).or_insert(0) += 1_u32;
            }
        }
        let budget: i64 = open.iter().fold(0, |sum: i64, &slots| sum.saturating_add(slots.max(0)));
        let rows = i64::from(self.rows).min(budget) as usize;
        let mut waiting: Vec<(usize, usize, usize)> = self.of_state(0).collect();
        waiting.retain(|(run, ..)| active.get(run).copied().unwrap_or(0) < self.dags[self.runs[*run].0].0);
        // Of what ties the task decides, and then which run was first: as the queue does.
        waiting.sort_by_key(|&(run, at, task)| (-self.task(run, task).0, Self::date(run), at, task, run));
        let mut executor_slots = self.executor_slots;
        let mut pools: BTreeSet<u32> = (0..3_u32).filter(|&pool| open[pool as usize] <= 0).collect();
        let (mut dags, mut tasks, mut tasks_of_runs) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut started = Vec::new();
        loop {
            let mut window: BTreeMap<usize, u32> = BTreeMap::new();
            let mut batch: Vec<(usize, usize, usize)> = Vec::new();
            for &(run, at, task) in &waiting {
                let dag = self.runs[run].0;
                let is_starved = pools.contains(&self.task(run, task).1)
                    || dags.contains(&dag)
                    || tasks.contains(&(dag, task))
                    || tasks_of_runs.contains(&(run, task));
                let read = window.entry(run).or_insert(0);
                if !is_starved && *read < self.dags[dag].0 {
                    *read += 1;
                    batch.push((run, at, task));
                }
            }
            batch.truncate(rows);
            let known = (pools.len(), dags.len(), tasks.len(), tasks_of_runs.len());
            for &(run, at, task) in &batch {
                let dag = self.runs[run].0;
                let &(_, pool, slots, in_all, in_one) = self.task(run, task);
                let of_pool = open.get(pool as usize).copied().unwrap_or(0);
                if of_pool <= 0 {
                    pools.insert(pool);
                } else if i64::from(slots) > of_pool {
                    tasks.insert((dag, task));
                } else if active.get(&run).copied().unwrap_or(0) >= self.dags[dag].0 {
                    dags.insert(dag);
                } else if in_all.is_some_and(|limit| of_dag.get(&(dag, task)).copied().unwrap_or(0) >= limit) {
                    tasks.insert((dag, task));
                } else if in_one.is_some_and(|limit| of_run.get(&(run, task)).copied().unwrap_or(0) >= limit) {
                    tasks_of_runs.insert((run, task));
                } else if executor_slots == 0 {
                    tasks.insert((dag, task));
                } else {
                    executor_slots -= 1;
                    if of_pool != i64::MAX {
                        open[pool as usize] -= i64::from(slots);
                    }
                    *active.entry(run).or_insert(0) += 1;
                    *of_dag.entry((dag, task)).or_insert(0) += 1;
                    *of_run.entry((run, task)).or_insert(0) += 1;
                    started.push((run, at));
                }
            }
            let is_news = known != (pools.len(), dags.len(), tasks.len(), tasks_of_runs.len());
            if !started.is_empty() || batch.len() < rows || !is_news {
                return started;
            }
        }
    }

    /// The same by the queue: what one pass starts, and what is taken without a bound.
    fn by_the_queue(&self) -> (Vec<(usize, usize)>, usize) {
        let mut limits = Limits::new(u32::MAX);
        for (at, &(slots, include_deferred)) in self.pools.iter().enumerate() {
            limits.set_pool(&format!("p{at}").into(), slots, include_deferred);
        }
        limits.pools.intern(&"p3".into());
        for (run, &(dag, _)) in self.runs.iter().enumerate() {
            limits.set_run(RunIx(run as u32), dag as u32, self.dags[dag].0);
        }
        let (mut of_dag, mut of_run) = (BTreeMap::new(), BTreeMap::new());
        let mut queue = ReadyQueue::default();
        let mut places = Vec::new();
        for (state, (run, at, task)) in
            [1, 2, 0].into_iter().flat_map(|state| self.of_state(state).map(move |it| (state, it)))
        {
            let &(priority_weight, pool, pool_slots, in_all, in_one) = self.task(run, task);
            let above = in_all.map(|limit| {
                *of_dag
                    .entry((self.runs[run].0, task))
                    .or_insert_with(|| limits.add_task_limit(Scope::Dag, limit, None))
            });
            let own = in_one.map(|limit| {
                *of_run.entry((run, task)).or_insert_with(|| limits.add_task_limit(Scope::Run, limit, above))
            });
            let claim =
                Claim { run: RunIx(run as u32), pool: PoolIx(pool), pool_slots, task_limit: own.or(above), need: None };
            match state {
                1 => limits.occupy(claim),
                2 => limits.defer(claim),
                _ => {
                    let (handle, order) = (places.len() as u32, task as u32);
                    let logical_date = Timestamp::from_second(Self::date(run)).ok();
                    queue.insert(Candidate {
                        handle,
                        claim,
                        dag: self.runs[run].0 as u32,
                        since: Timestamp::UNIX_EPOCH,
                        priority_weight,
                        logical_date,
                        map_index: at as i32,
                        order,
                    });
                    places.push((run, at));
                }
            }
        }
        limits.set_parallelism(limits.executing() + self.executor_slots);
        let name =
            |started: Vec<(u32, Claim)>| started.into_iter().map(|(handle, _)| places[handle as usize]).collect();
        let first: Vec<(usize, usize)> = name(queue.pass(&mut limits, self.rows));
        let mut more = 0;
        while queue.take(&mut limits).is_some() {
            more += 1;
        }
        assert_eq!(queue.len(), places.len() - first.len() - more);
        (first, more)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn a_pass_starts_what_the_rules_say_in_their_order(case in any_case()) {
        prop_assert_eq!(case.by_the_queue().0, case.by_the_book());
    }
}
