//! The ready queue at a million waiting instances: decisions a second, and bytes for each instance that waits.
//!
//! `cargo bench --bench ready_queue`. The figures to hold are printed first; divan's table follows. Of a host of which most is blocked:
//! at most 5 microseconds a start, however many are blocked.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use divan::Bencher;
use divan::counter::ItemsCount;
use jiff::Timestamp;
use minflow::model::{Graph, Node, TaskIx};
use minflow::scheduler::pools::{Claim, Held, Limits, PoolIx, RunIx};
use minflow::scheduler::ready::{Candidate, Choosing, ReadyQueue};
use minflow::scheduler::weight;

use crate::memory::resident_bytes;

#[path = "stage/memory.rs"]
mod memory;

const WAITING: u32 = 1_000_000;
const RUNS: u32 = 1_000;
const POOLS: u32 = 4;

fn main() {
    let before = resident_bytes();
    let queue = full(WAITING);
    let bytes = resident_bytes() - before;
    println!("ready queue: {:.1} bytes for each of {WAITING} waiting instances", bytes as f64 / f64::from(WAITING));
    decisions_a_second(queue);
    for (name, choosing) in [
        ("plain", Choosing::default()),
        ("fair_share", Choosing { fair_share: true, ..Choosing::default() }),
        ("priority_ageing", Choosing { ageing: Some(INTERVAL), ..Choosing::default() }),
        ("both", Choosing { rows: None, fair_share: true, ageing: Some(INTERVAL) }),
    ] {
        for waiting in [10_000, 100_000, 1_000_000] {
            Crowd::new(&choosing, waiting).measure(name, waiting);
        }
    }
    divan::main();
}

const INTERVAL: Duration = Duration::from_mins(10);
/// Pools and DAGs of a host of which most is blocked.
const MANY: u32 = 1_000;

/// A thousand pools and a thousand DAGs of one run each; in one pool of a hundred slots come free, in the others never. A tenth
/// of the runs is full as well. Each fifth instance wants more slots than come free at once.
struct Crowd {
    queue: ReadyQueue,
    limits: Limits,
    running: VecDeque<(u32, Claim)>,
    next: u32,
    now: Timestamp,
}

impl Crowd {
    fn new(choosing: &Choosing, waiting: u32) -> Self {
        let mut limits = Limits::new(1_000_000);
        limits.count_shares(choosing.fair_share, []);
        for pool in 0..MANY {
            limits.set_pool(&format!("pool_{pool}").into(), if pool % 100 == 0 { 32 } else { 1 }, false);
        }
        for run in 0..MANY {
            limits.set_run(RunIx(run), run, if run % 10 == 9 { 0 } else { 1_000 });
        }
        // Of the pools that are never free, all slots are held.
        limits.set_run(RunIx(MANY), MANY, MANY);
        for pool in (0..MANY).filter(|pool| pool % 100 != 0) {
            limits.occupy(Claim { run: RunIx(MANY), pool: PoolIx(pool), pool_slots: 1, task_limit: None, need: None });
        }
        let queue = ReadyQueue::new(choosing);
        let now = Timestamp::from_second(1_700_000_000).expect("an instant");
        let mut crowd = Self { queue, limits, running: VecDeque::new(), next: 0, now };
        for _ in 0..waiting {
            crowd.arrive();
        }
        crowd
    }

    /// One instance more begins to wait.
    fn arrive(&mut self) {
        let handle = self.next;
        self.next += 1;
        self.come(handle);
    }

    fn come(&mut self, handle: u32) {
        let scattered = u64::from(handle).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        let (run, at) = ((scattered % u64::from(MANY)) as u32, (scattered / u64::from(MANY)) as u32);
        // A DAG has tasks in ten pools.
        let pool = (run + at % 10 * 101) % MANY;
        self.now += Duration::from_millis(1);
        self.queue.insert(Candidate {
            handle,
            claim: Claim {
                run: RunIx(run),
                pool: PoolIx(pool),
                pool_slots: if at % 5 == 0 { 8 } else { 1 },
                task_limit: None,
                need: None,
            },
            dag: run,
            since: self.now,
            priority_weight: (scattered >> 12 & 1_023) as i64,
            logical_date: Timestamp::from_second(1_700_000_000 + i64::from(run) * 60).ok(),
            map_index: -1,
            order: handle,
        });
    }

    /// All that may start does; then again and again the oldest ends, what may start does, and as many come anew.
    fn measure(mut self, name: &str, waiting: u32) {
        const STARTS: u32 = 100_000;
        self.start_all();
        let (mut started, mut slowest) = (0, Duration::ZERO);
        let began = Instant::now();
        while started < STARTS {
            let step = Instant::now();
            let Some((handle, claim)) = self.running.pop_front() else { break };
            self.limits.release(claim, Held::Queued);
            let count = self.start_all();
            started += count;
            self.come(handle);
            slowest = slowest.max(step.elapsed());
        }
        let micros = began.elapsed().as_secs_f64() * 1e6 / f64::from(started.max(1));
        println!(
            "ready queue, {name}: {micros:.2} us a start with its end and its coming, {started} starts while {} of {waiting} wait, slowest {slowest:.0?}",
            self.queue.len()
        );
    }

    fn start_all(&mut self) -> u32 {
        let mut count = 0;
        self.now += Duration::from_secs(1);
        self.queue.set_now(self.now);
        while let Some(started) = self.queue.take(&mut self.limits) {
            self.running.push_back(started);
            count += 1;
        }
        count
    }
}

fn limits() -> Limits {
    let mut limits = Limits::new(32);
    for pool in 0..POOLS {
        limits.set_pool(&format!("pool_{pool}").into(), 16, false);
    }
    for run in 0..RUNS {
        limits.set_run(RunIx(run), run, 16);
    }
    limits
}

/// Weights in no order, so that the heaps have work to do.
fn candidate(handle: u32) -> Candidate {
    let scattered = u64::from(handle).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let run = handle % RUNS;
    Candidate {
        handle,
        claim: Claim {
            run: RunIx(run),
            pool: PoolIx(scattered as u32 % POOLS),
            pool_slots: 1 + (scattered as u32 / POOLS) % 2,
            task_limit: None,
            need: None,
        },
        dag: run,
        since: Timestamp::UNIX_EPOCH,
        priority_weight: (scattered % 1_000) as i64,
        logical_date: Timestamp::from_second(1_700_000_000 + i64::from(run) * 60).ok(),
        map_index: -1,
        order: handle / RUNS,
    }
}

fn full(waiting: u32) -> ReadyQueue {
    let mut queue = ReadyQueue::default();
    for handle in 0..waiting {
        queue.insert(candidate(handle));
    }
    queue
}

/// Takes until nothing may start, then ends the oldest, as a busy host does: the limits bind at every decision.
fn take_all(queue: &mut ReadyQueue, limits: &mut Limits) -> u32 {
    let mut executing = VecDeque::new();
    let mut taken = 0;
    loop {
        while let Some((_, claim)) = queue.take(limits) {
            executing.push_back(claim);
            taken += 1;
        }
        let Some(claim) = executing.pop_front() else { return taken };
        limits.release(claim, Held::Queued);
    }
}

fn decisions_a_second(mut queue: ReadyQueue) {
    let mut limits = limits();
    let began = Instant::now();
    let taken = take_all(&mut queue, &mut limits);
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(taken, WAITING);
    println!("ready queue: {:.2} M decisions/s over {WAITING} waiting instances", f64::from(taken) / seconds / 1e6);
}

#[divan::bench(args = [1_000, 100_000])]
fn fill_and_take_all(bencher: Bencher<'_, '_>, waiting: u32) {
    bencher.counter(ItemsCount::new(waiting)).with_inputs(limits).bench_local_values(|mut limits| {
        let mut queue = full(waiting);
        take_all(&mut queue, &mut limits)
    });
}

/// 1 -> 5,000 -> 1, a chain of 10,000, and 200 layers of 100 tasks with three upstream tasks each.
#[divan::bench(args = ["wide", "chain", "layers"])]
fn priority_weights(bencher: Bencher<'_, '_>, shape: &str) {
    let edges: Vec<(u32, u32)> = match shape {
        "wide" => (1..=5_000).flat_map(|middle| [(0, middle), (middle, 5_001)]).collect(),
        "chain" => (1..10_000).map(|task| (task - 1, task)).collect(),
        _ => (100..20_000)
            .flat_map(|task| [0, 37, 61].map(|step| (task / 100 * 100 - 100 + (task + step) % 100, task)))
            .collect(),
    };
    let count = edges.iter().map(|edge| edge.1).max().map_or(0, |last| last + 1);
    let node = Node::default();
    let edges: Vec<_> = edges.into_iter().map(|(up, down)| (TaskIx(up), TaskIx(down))).collect();
    let graph = Graph::new(vec![node; count as usize], &edges).expect("all edges lead to higher numbers");
    bencher.counter(ItemsCount::new(count)).bench(|| weight::effective(&graph));
}
