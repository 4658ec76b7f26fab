//! `simulation`: how many events a second the loop takes in on a simulated clock, with the store in memory and an executor that runs
//! nothing, on one thread: what random stories and a look ahead are made of.
//!
//! An event is one `scheduler::Event`: a trigger, a start or an end of a try, a deadline that has come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use minflow::clock::{Clock, SimulatedClock};
use minflow::model::TryKey;
use minflow::scheduler::command::{LogicalDate, Trigger};
use minflow::scheduler::port::ReplyTo;
use minflow::scheduler::turn::Scheduler;
use minflow::scheduler::{Command, Event, Outcome, Reply, Store};
use minflow::store::MemoryStore;
use serde_json::Map;

use crate::measure::Effort;
use crate::stage::{Forgetful, Notebook, file, lived, scheduler};
use crate::table::{Goal, Table};

const DAGS: usize = 10;
const RUNS: usize = 2;
const RETRY_DELAY: Duration = Duration::from_secs(20);

/// A task, eight that come after it and fail at first, and one that comes after all.
fn text() -> String {
    let task = |number| format!("[tasks.t{number}]\nbash = \"true\"\n");
    let tasks: String = (0..10).map(task).collect();
    format!(
        "chain = [\"t0 >> [t1, t2, t3, t4, t5, t6, t7, t8] >> t9\"]\n[default_args]\nretries = 1\nretry_delay = 20\n{tasks}"
    )
}

struct Simulated {
    clock: SimulatedClock,
    executor: Notebook,
    scheduler: Scheduler,
    events: u64,
}

impl Simulated {
    fn new(text: &str, store: Box<dyn Store>) -> Self {
        let clock = SimulatedClock::starting_at("2026-11-21T00:00:00Z".parse().expect("it is an instant"));
        let executor = Notebook::default();
        let files = (0..DAGS).map(|number| file(&format!("dag_{number}.toml"), text)).collect();
        let scheduler = scheduler(files, 32, store, executor.clone(), Arc::new(clock.clone()));
        Self { clock, executor, scheduler, events: 0 }
    }

    /// So many in a turn, in order.
    fn take_in(&mut self, events: Vec<Event>, in_a_turn: usize) {
        self.events += events.len() as u64;
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            self.scheduler.turn(events.by_ref().take(in_a_turn).collect());
        }
    }

    fn live(&mut self, in_a_turn: usize) {
        let triggers = (0..DAGS * RUNS).map(|number| trigger(number % DAGS)).collect();
        self.take_in(triggers, 1);
        loop {
            let begun = self.executor.take();
            if begun.is_empty() {
                self.clock.advance(RETRY_DELAY);
                self.take_in(vec![Event::Tick], 1);
                if self.scheduler.world().is_idle() {
                    return;
                }
                continue;
            }
            self.clock.advance(Duration::from_secs(1));
            let now = self.clock.now();
            let (starts, ends) = begun.into_iter().map(|key| begin_and_end(key, now)).unzip();
            self.take_in(starts, in_a_turn);
            self.take_in(ends, in_a_turn);
        }
    }
}

/// Most tries fail once.
fn begin_and_end(key: TryKey, now: Timestamp) -> (Event, Event) {
    let [start, mut end] = lived(key, now);
    if let Event::Ended(end) = &mut end
        && key.try_number == 1
        && key.instance.0 % 10 != 0
    {
        end.outcome = Outcome::Exited(1);
    }
    (start, end)
}

fn trigger(dag: usize) -> Event {
    let trigger = Trigger {
        dag_id: format!("dag_{dag}").as_str().into(),
        run_id: None,
        logical_date: LogicalDate::None,
        data_interval: None,
        conf: Map::new(),
        unpause: true,
    };
    Event::Command { command: Command::Trigger(trigger), reply: ReplyTo::new(|reply: Reply| assert!(reply.is_ok())) }
}

pub fn simulation(table: &mut Table, effort: Effort) {
    let (text, lasts) = (text(), Duration::from_secs(effort.pick(10, 2) as u64));
    let memory: fn() -> Box<dyn Store> = || Box::new(MemoryStore::default());
    let nothing: fn() -> Box<dyn Store> = || Box::new(Forgetful);
    for (store, in_a_turn, what, goal) in [
        (memory, 1, "each in a turn of its own", Goal::AtLeast(100_000.0)),
        (memory, 32, "up to 32 in a turn", Goal::AtLeast(100_000.0)),
        (nothing, 1, "each in a turn, and nothing is kept", Goal::None),
    ] {
        let (mut events, mut taken) = (0, Duration::ZERO);
        while taken < lasts {
            let mut world = Simulated::new(&text, store());
            let began = Instant::now();
            world.live(in_a_turn);
            taken += began.elapsed();
            events += world.events;
        }
        let rate = events as f64 / taken.as_secs_f64();
        table.figure(format!("simulation: events a second, {what}"), rate, "", goal);
    }
}
