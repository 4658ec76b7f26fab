//! Properties that hold whatever happens: random DAGs, and a random order of ends, failures, pauses, saves, removals, changed
//! schedules, backfills, crashes, failing commits and steps of the clock. What a seed does is the same each time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::SignedDuration;

use super::random::{CATCHUPS, Dice, RandomDag, SCHEDULES};
use super::tests::trigger;
use super::{Simulation, defaults};
use crate::clock::Clock;
use crate::model::{DagRun, Instance, ProcessIdentity, Reprocess, RunState, RunType, SkipDecision, TaskState, TryKey};
use crate::scheduler::command::{Chosen, Clear, Command, MarkTasks, NewBackfill, Only, RunRange, Spread};
use crate::scheduler::event::{Attempt, Event, Outcome, TryEnd};
use crate::scheduler::{Store, StoreError};

const SEEDS: u64 = 150;
const STEPS: usize = 60;
const PARALLELISM: u32 = 3;
pub(super) const MAX_ACTIVE_TASKS: usize = 2;
pub(super) const MAX_ACTIVE_RUNS: usize = 2;
pub(super) const START: &str = "2026-11-21T12:00:00Z";
/// What a user may set a run to.
const RUN_STATES: [RunState; 3] = [RunState::Success, RunState::Failed, RunState::Queued];

struct Story {
    simulation: Simulation,
    dice: Dice,
    dags: Vec<RandomDag>,
    /// DAGs whose tasks have come and gone: an instance may have been scheduled by another graph than the one that is live.
    redrawn: BTreeSet<usize>,
    /// DAGs whose schedules have changed, or whose dates were filled up: their dates and what came before them are another's.
    rescheduled: BTreeSet<usize>,
    /// Tries that were scheduled before runs of their DAG were cleared or marked: they may find their upstream changed.
    overtaken: BTreeSet<TryKey>,
    /// Tries that have ended; they are never begun again.
    over: BTreeSet<TryKey>,
    begun: BTreeSet<TryKey>,
    strays: BTreeSet<TryKey>,
    known: BTreeSet<TryKey>,
    told: Vec<String>,
    saves: usize,
    /// From now on no task depends on the past.
    is_finishing: bool,
}

fn file_of(dag: usize) -> String {
    format!("d{dag}.toml")
}

impl Story {
    fn begin(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let dags: Vec<RandomDag> = (0..1 + dice.below(3)).map(|_| RandomDag::roll(&mut dice)).collect();
        let files: Vec<(String, String)> = dags
            .iter()
            .enumerate()
            .map(|(at, dag)| (file_of(at), dag.text(&vec![true; dag.tasks.len()], true, 0)))
            .collect();
        for (name, text) in &files {
            let parsed = crate::dagfile::parse(std::path::Path::new(name), text.as_bytes(), &defaults());
            assert!(parsed.is_ok(), "{text}\n{parsed:?}");
        }
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (&**name, &**text)).collect();
        Self {
            simulation: Simulation::with_parallelism(PARALLELISM, &files),
            dice,
            dags,
            redrawn: BTreeSet::new(),
            rescheduled: BTreeSet::new(),
            overtaken: BTreeSet::new(),
            over: BTreeSet::new(),
            begun: BTreeSet::new(),
            strays: BTreeSet::new(),
            known: BTreeSet::new(),
            told: Vec::new(),
            saves: 0,
            is_finishing: false,
        }
    }

    fn held(&self) -> BTreeSet<TryKey> {
        self.simulation.calls.0.lock().names.keys().copied().collect()
    }

    fn started(&mut self, key: TryKey) -> Event {
        self.begun.insert(key);
        let process = ProcessIdentity { pid: 1_000, start_ticks: 1, boot_id: "boot".to_owned() };
        Event::Started(Attempt { key, process, started_at: self.simulation.clock.now() })
    }

    fn ended(&mut self, key: TryKey, outcome: Outcome) -> Event {
        if !matches!(outcome, Outcome::Unstarted { .. }) {
            self.over.insert(key);
        }
        let ended_at = self.simulation.clock.now();
        let started_at = self.begun.contains(&key).then_some(ended_at);
        let decision = if outcome == Outcome::Exited(0) { self.random_decision(key) } else { None };
        let xcoms = decision.iter().map(|decision| (SkipDecision::XCOM_KEY.to_owned(), decision.to_xcom())).collect();
        Event::Ended(Box::new(TryEnd { started_at, decision, xcoms, ..TryEnd::new(key, outcome, ended_at) }))
    }

    /// What a task that decides lets run of those right after it.
    fn random_decision(&mut self, key: TryKey) -> Option<SkipDecision> {
        let row = self.simulation.store.instances().into_iter().find(|row| row.key == key.instance)?;
        let run = self.simulation.store.runs().into_iter().find(|run| run.key == row.run)?;
        let (dag, task): (usize, usize) = (run.dag_id[1..].parse().ok()?, row.task_id[1..].parse().ok()?);
        let tasks = &self.dags[dag].tasks;
        if !tasks[task].decides || self.dice.one_in(4) {
            return None;
        }
        let is_after = |down: &usize| tasks[*down].upstream.contains(&task) && tasks[*down].teardown_of.is_none();
        let after = (0..tasks.len()).filter(is_after).filter(|_| self.dice.one_in(2));
        let named = after.map(|down| format!("t{down}").into()).collect();
        Some(if self.dice.one_in(2) { SkipDecision::Followed(named) } else { SkipDecision::Skipped(named) })
    }

    /// A user clears or marks something, in one run or in many.
    fn act(&mut self, dag: usize) {
        let dag_id = || format!("d{dag}").as_str().into();
        let runs = self.simulation.store.runs().into_iter().filter(|run| *run.dag_id == *format!("d{dag}"));
        let runs: Vec<DagRun> = runs.collect();
        if runs.is_empty() {
            return;
        }
        let run_id = runs[self.dice.below(runs.len())].run_id.clone();
        let task = format!("t{}", self.dice.below(self.dags[dag].tasks.len()));
        let spread = Spread { upstream: self.dice.one_in(4), downstream: self.dice.one_in(2) };
        let (past, future) = (self.dice.one_in(4), self.dice.one_in(4));
        let range = RunRange { run_id: Some(run_id.clone()), past, future, ..RunRange::default() };
        let command = match self.dice.below(8) {
            0 => Command::MarkRun { dag_id: dag_id(), run_id, state: RUN_STATES[self.dice.below(3)] },
            1 | 2 => Command::MarkTasks(MarkTasks {
                dag_id: dag_id(),
                tasks: vec![task],
                spread,
                map_index: None,
                runs: range,
                state: [TaskState::Success, TaskState::Failed, TaskState::Skipped][self.dice.below(3)],
            }),
            _ => Command::Clear(Clear {
                dag_id: dag_id(),
                tasks: if self.dice.one_in(3) { Chosen::All } else { Chosen::Named(vec![task]) },
                spread,
                map_index: None,
                runs: range,
                only: Only { failed: self.dice.one_in(4), running: self.dice.one_in(6) },
                is_dry: self.dice.one_in(8),
            }),
        };
        self.overtake();
        self.simulation.command(command);
    }

    /// What is scheduled now is not looked at again before it begins, whatever becomes of its upstream.
    fn overtake(&mut self) {
        let rows = self.simulation.store.instances().into_iter();
        let is_on_its_way = |row: &Instance| row.state == TaskState::Scheduled || row.state.is_executing();
        self.overtaken.extend(rows.filter(is_on_its_way).map(|row| row.try_key()));
    }

    fn random_end(&mut self, key: TryKey) -> Event {
        let outcome = match self.dice.below(10) {
            _ if self.strays.contains(&key) => Outcome::Lost,
            0 | 1 => Outcome::Exited(1),
            2 => Outcome::Exited(99),
            3 => Outcome::Signaled(9),
            4 if !self.begun.contains(&key) => Outcome::Unstarted { reason: "no processes left".to_owned() },
            5 => Outcome::Killed { reason: "skipped".to_owned() },
            _ => Outcome::Exited(0),
        };
        self.ended(key, outcome)
    }

    fn step(&mut self) {
        if self.dice.one_in(10) {
            let error = StoreError { message: "commit a turn: disk full".to_owned(), help: "free space".to_owned() };
            let call = 1 + self.dice.below(2) as u64;
            self.simulation.store.fail_call(call, error);
        }
        let dag = self.dice.below(self.dags.len());
        match self.dice.below(20) {
            0 | 1 => drop(self.simulation.command(trigger(&format!("d{dag}")))),
            2 => {
                let seconds = self.dice.below(90) as u64;
                self.simulation.clock.advance(Duration::from_secs(seconds));
                self.simulation.turn(Event::Tick);
            }
            3 => {
                let is_paused = self.dice.one_in(2);
                let dag_id = format!("d{dag}").as_str().into();
                self.simulation.command(Command::SetPaused { dag_id, is_paused });
            }
            4 => self.save(dag),
            5 if self.dice.one_in(2) => self.simulation.remove(&file_of(dag)),
            5 => self.simulation.save(&file_of(dag), "tasks = "),
            6 if self.dice.one_in(2) => self.crash(),
            7 => {
                let seconds = self.dice.below(7_200) as i64 - 3_600;
                let to = self.simulation.clock.now() + SignedDuration::from_secs(seconds);
                self.simulation.clock.step_to(to);
                self.simulation.turn(Event::ClockJumped);
            }
            8 => self.fill_up(dag),
            9 => self.steer_backfill(),
            10 | 11 => self.act(dag),
            _ => self.report(),
        }
        // The loop tries a failed commit again before it takes in anything else, unless it dies.
        if !self.simulation.health.reasons().is_empty() && self.dice.one_in(4) {
            self.crash();
        }
        self.write();
        self.check();
        // A backfill's runs come in turns of their own; a crash may come between them.
        while !self.dice.one_in(4) && self.simulation.scheduler.world().has_more() {
            self.simulation.scheduler.turn(Vec::new());
            self.write();
            self.check();
        }
    }

    /// What a failing database has kept from being written is written. Two faults may stand one after the other.
    fn write(&mut self) {
        for _ in 0..3 {
            self.simulation.scheduler.write_and_act();
        }
    }

    fn fill_up(&mut self, dag: usize) {
        self.rescheduled.insert(dag);
        let now = self.simulation.clock.now();
        let is_backwards = self.dice.one_in(3);
        self.simulation.command(Command::CreateBackfill(NewBackfill {
            dag_id: format!("d{dag}").as_str().into(),
            from_date: now - SignedDuration::from_mins(self.dice.below(120) as i64),
            to_date: now - SignedDuration::from_mins(self.dice.below(20) as i64),
            reprocess: [Reprocess::None, Reprocess::Failed, Reprocess::Completed][self.dice.below(3)],
            is_backwards,
            max_active_runs: MAX_ACTIVE_RUNS as u32,
            conf: None,
        }));
    }

    fn steer_backfill(&mut self) {
        let Some(last) = self.simulation.store.backfills().pop() else { return };
        let is_paused = self.dice.one_in(2);
        let pause = Command::SetBackfillPaused { id: last.id, is_paused };
        let command = if self.dice.one_in(3) { Command::CancelBackfill { id: last.id } } else { pause };
        self.simulation.command(command);
    }

    /// The executor tells of some of its tries, all in one turn.
    fn report(&mut self) {
        let mut events = Vec::new();
        for key in self.held() {
            match self.dice.below(4) {
                0 if !self.strays.contains(&key) && !self.begun.contains(&key) => events.push(self.started(key)),
                1 | 2 => events.push(self.random_end(key)),
                _ => {}
            }
        }
        self.simulation.scheduler.turn(events);
    }

    fn save(&mut self, dag: usize) {
        self.saves += 1;
        let mut present = vec![true; self.dags[dag].tasks.len()];
        if self.dice.one_in(2) {
            self.redrawn.insert(dag);
            for is_present in present.iter_mut().skip(1) {
                *is_present = self.dice.one_in(2);
            }
        }
        if self.dice.one_in(4) {
            self.rescheduled.insert(dag);
            self.dags[dag].schedule = (!self.dice.one_in(4)).then(|| SCHEDULES[self.dice.below(SCHEDULES.len())]);
            self.dags[dag].catchup = CATCHUPS[self.dice.below(CATCHUPS.len())];
        }
        let text = self.dags[dag].text(&present, true, self.saves);
        self.simulation.save(&file_of(dag), &text);
    }

    fn crash(&mut self) {
        let told = self.simulation.trace();
        self.told.extend(told);
        let settings = self.simulation.settings.clone();
        let (clock, store) = (self.simulation.clock.clone(), self.simulation.store.clone());
        self.spend_faults();
        self.simulation = Simulation::start(clock, store, settings, self.simulation.files.clone());
        self.strays = self.held();
        self.known = self.strays.clone();
        self.simulation.scheduler.write_and_act();
        self.simulation.rescan();
        self.told.push("crash".to_owned());
    }

    /// The database works again.
    fn spend_faults(&self) {
        for _ in 0..3 {
            let _ = self.simulation.store.clone().load();
        }
    }

    /// What holds after each turn.
    fn check(&mut self) {
        let (held, runs) = (self.held(), self.simulation.store.runs());
        let rows = self.simulation.store.instances();
        let by_key: BTreeMap<_, &Instance> = rows.iter().map(|row| (row.key, row)).collect();
        if self.simulation.scheduler.world().acts.is_at_work() {
            // The database could not be asked, or it was too much for a turn: it goes on later.
            self.overtake();
        }
        assert!(held.len() <= PARALLELISM as usize, "parallelism: {held:?}");
        let narrow = held.iter().filter(|key| &*by_key[&key.instance].pool == "narrow").count();
        assert!(narrow <= 1, "{narrow} in a pool of one slot");
        for run in &runs {
            let active = held.iter().filter(|key| by_key[&key.instance].run == run.key).count();
            assert!(active <= MAX_ACTIVE_TASKS, "max_active_tasks: {active}");
            let group = |run: &DagRun| (run.dag_id.clone(), run.counts_with().map(|place| place.backfill));
            let of_group = |other: &&DagRun| other.state == RunState::Running && group(other) == group(run);
            assert!(runs.iter().filter(of_group).count() <= MAX_ACTIVE_RUNS, "max_active_runs of {:?}", group(run));
        }
        let mut dates = BTreeSet::new();
        for (dag_id, date) in runs.iter().filter_map(|run| Some((&run.dag_id, run.logical_date?))) {
            assert!(dates.insert((dag_id, date)), "{dag_id} has two runs of {date}");
        }
        for key in held.difference(&self.known) {
            assert!(!self.over.contains(key), "{key:?} was begun again");
            let row = by_key[&key.instance];
            let run = runs.iter().find(|run| run.key == row.run).expect("an instance has a run");
            let dag: usize = run.dag_id[1..].parse().expect("DAGs are numbered");
            if !self.redrawn.contains(&dag) && !self.overtaken.contains(key) {
                self.check_upstream(&self.dags[dag], row, &rows);
                if !self.strays.contains(key) && !self.is_finishing {
                    let is_steady = !self.rescheduled.contains(&dag);
                    check_past(&self.dags[dag], is_steady, run, row, &runs, &rows);
                }
            }
        }
        let is_awaited = |row: &&Instance| row.state.is_executing() || row.state == TaskState::Restarting;
        for row in rows.iter().filter(is_awaited) {
            assert!(held.contains(&row.try_key()), "{} is {} and nobody has it", row.task_id, row.state);
        }
        self.known = held;
    }

    /// A schedule that makes up for all leaves no date out, whatever has happened.
    fn check_dates(&self) {
        for (at, dag) in self.dags.iter().enumerate() {
            let is_steady = !self.rescheduled.contains(&at);
            if !is_steady || dag.schedule != Some(SCHEDULES[0]) || dag.catchup != CATCHUPS[0] {
                continue;
            }
            let runs = self.simulation.store.runs();
            let of_dag = || runs.iter().filter(|run| *run.dag_id == *format!("d{at}"));
            let scheduled = of_dag().filter(|run| run.run_type == RunType::Scheduled);
            let Some(last) = scheduled.filter_map(|run| run.logical_date).max() else { continue };
            let dates: BTreeSet<_> = of_dag().filter_map(|run| run.logical_date).collect();
            let mut tick: jiff::Timestamp = START.parse().expect("an instant");
            while tick <= last {
                assert!(dates.contains(&tick), "d{at} lacks {tick} of {dates:?}");
                tick += SignedDuration::from_mins(10);
            }
        }
    }

    fn check_upstream(&self, dag: &RandomDag, row: &Instance, rows: &[Instance]) {
        let task: usize = row.task_id[1..].parse().expect("tasks are numbered");
        let state_of = |up: &usize| {
            let is_it = |other: &&Instance| other.run == row.run && *other.task_id == format!("t{up}");
            rows.iter().find(is_it).expect("each task has an instance").state
        };
        let states: Vec<TaskState> = dag.tasks[task].upstream.iter().map(state_of).collect();
        if let Some(setup) = dag.tasks[task].teardown_of {
            let is_met = states.iter().all(|state| state.is_finished()) && state_of(&setup) == TaskState::Success;
            assert!(is_met, "the teardown t{task} began after {states:?}");
            return;
        }
        let is_met = match dag.tasks[task].rule {
            "all_success" => states.iter().all(|state| *state == TaskState::Success),
            "none_failed" => states.iter().all(|state| matches!(state, TaskState::Success | TaskState::Skipped)),
            "all_done" => states.iter().all(|state| state.is_finished()),
            _ => states.is_empty() || states.contains(&TaskState::Success),
        };
        assert!(is_met, "t{task} ({}) began after {states:?}", dag.tasks[task].rule);
    }

    /// Nothing disturbs any more: all files are whole, nothing is paused or scheduled, and every try succeeds.
    fn finish(mut self) -> Vec<String> {
        self.spend_faults();
        self.is_finishing = true;
        self.simulation.scheduler.write_and_act();
        for dag in 0..self.dags.len() {
            let text = self.dags[dag].text(&vec![true; self.dags[dag].tasks.len()], false, usize::MAX);
            self.simulation.save(&file_of(dag), &text);
            self.simulation.scheduler.write_and_act();
            let dag_id = format!("d{dag}").as_str().into();
            self.simulation.command(Command::SetPaused { dag_id, is_paused: false });
            self.simulation.scheduler.write_and_act();
        }
        for backfill in self.simulation.store.backfills() {
            self.simulation.command(Command::SetBackfillPaused { id: backfill.id, is_paused: false });
        }
        let is_completed = |backfill: &crate::model::Backfill| backfill.completed_at.is_some();
        for _ in 0..1_000 {
            let held = self.held();
            let is_over = self.simulation.store.runs().iter().all(|run| run.state.is_finished());
            if held.is_empty() && is_over && self.simulation.store.backfills().iter().all(is_completed) {
                break;
            }
            for key in held {
                let outcome = if self.strays.contains(&key) { Outcome::Lost } else { Outcome::Exited(0) };
                let event = self.ended(key, outcome);
                self.simulation.turn(event);
                self.check();
            }
            self.simulation.advance(Duration::from_secs(20));
            self.simulation.go_on();
            self.check();
        }
        let unfinished: Vec<_> =
            self.simulation.store.runs().into_iter().filter(|run| !run.state.is_finished()).collect();
        assert!(unfinished.is_empty(), "{unfinished:?}\n{:?}", self.simulation.store.instances());
        self.check_dates();
        assert!(self.simulation.store.backfills().iter().all(is_completed), "a backfill is never completed");
        for backfill in self.simulation.store.backfills() {
            let dates = self.simulation.store.backfill_dates(backfill.id);
            assert!(dates.iter().all(|(_, fate)| fate.is_some()), "a date of {backfill:?} was forgotten: {dates:?}");
        }
        // A question that the database did not answer is asked again after a second.
        self.simulation.advance(Duration::from_secs(1));
        let world = self.simulation.scheduler.world();
        assert!(world.held.is_empty() && self.held().is_empty(), "something is held for ever");
        assert_eq!(world.limits.executing(), 0);
        for pool in world.limits.pools.iter() {
            assert_eq!((world.limits.pools.running(pool), world.limits.pools.queued(pool)), (0, 0));
        }
        assert!(world.runs.iter().all(Option::is_none), "a run that is over stays in memory");
        assert!(!world.acts.is_at_work(), "an act is never over");
        assert!(world.ready.is_empty() && world.handles.len() == world.free_handles.len());
        assert!(world.timers.is_empty(), "a deadline is left: {:?}", world.timers);
        assert_eq!(world.counts, Default::default());
        let told = self.simulation.trace();
        self.told.extend(told);
        self.told.extend(self.simulation.backfilled().iter().map(|run| format!("filled up {}", run.run_id)));
        self.told
    }
}

/// A task that depends on the past begins after its own instance in the run before, and one that waits for downstream after
/// those right behind that. In a DAG that is not `is_steady`, only the runs of one backfill are known to have come in order.
fn check_past(dag: &RandomDag, is_steady: bool, run: &DagRun, row: &Instance, runs: &[DagRun], rows: &[Instance]) {
    let task: usize = row.task_id[1..].parse().expect("tasks are numbered");
    let rule = &dag.tasks[task];
    let is_first = run.backfill.is_some_and(|place| place.ordinal == 1);
    let (true, false, Some(date)) = (rule.depends_on_past || rule.waits_for_downstream, is_first, run.logical_date)
    else {
        return;
    };
    let catches_up = dag.schedule.is_some() && dag.catchup != CATCHUPS[1];
    let is_earlier = |other: &&DagRun| {
        let is_counted = !(catches_up && other.run_type == RunType::Manual);
        other.dag_id == run.dag_id && is_counted && other.logical_date.is_some_and(|other| other < date)
    };
    let Some(before) = runs.iter().filter(is_earlier).max_by_key(|run| run.logical_date) else { return };
    // A run that has come between may have found this task scheduled already.
    if before.key > run.key {
        return;
    }
    // What lies before the start_date of a DAG that catches up holds nothing back.
    if before.logical_date < Some(START.parse().expect("an instant")) {
        return;
    }
    let backfill = |run: &DagRun| run.backfill.map(|place| place.backfill);
    if !is_steady && (backfill(run).is_none() || backfill(run) != backfill(before)) {
        return;
    }
    let is_after = |down: &usize| rule.waits_for_downstream && dag.tasks[*down].upstream.contains(&task);
    for needed in std::iter::once(task).chain((0..dag.tasks.len()).filter(is_after)) {
        let there = rows.iter().find(|other| other.run == before.key && *other.task_id == format!("t{needed}"));
        let lets_go_on = there.is_none_or(|there| matches!(there.state, TaskState::Success | TaskState::Skipped));
        let state = there.map(|there| there.state);
        assert!(lets_go_on, "t{task} of {} began after {state:?} of t{needed} in {}", run.run_id, before.run_id);
    }
}

fn tell(seed: u64) -> Vec<String> {
    let mut story = Story::begin(seed);
    for _ in 0..STEPS {
        story.step();
    }
    story.finish()
}

#[test]
fn limits_hold_nothing_runs_twice_and_every_run_ends_whatever_happens() {
    let (mut starts, mut filled) = (0, 0);
    for seed in 0..SEEDS {
        let told = std::panic::catch_unwind(|| tell(seed)).unwrap_or_else(|_| panic!("with seed {seed}"));
        starts += told.iter().filter(|line| line.starts_with("start")).count();
        filled += told.iter().filter(|line| line.starts_with("filled")).count();
    }
    assert!(starts > 10 * SEEDS as usize, "only {starts} tries were started: the stories do no work");
    assert!(filled > SEEDS as usize, "only {filled} runs were made by backfills");
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in 1_000..1_010 {
        assert_eq!(tell(seed), tell(seed), "seed {seed}");
    }
}
