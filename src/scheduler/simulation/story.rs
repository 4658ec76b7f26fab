//! A random story: random DAGs, and a random order of ends, failures, lists that are given, pauses, saves, removals, changed maps and
//! schedules, clears, marks, backfills, runs that tasks ask for and wait for, events of assets, callbacks, crashes, failing commits
//! and steps of the clock. What a seed does is the same each time.
//!
//! What must hold meanwhile is `property`'s affair, and of assets and callbacks `ties`'.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::mortal::{Lot, has_process};
use super::random::{CATCHUPS, Dice, RandomDag, SCHEDULES, Ties, Wishes, number_of};
use super::tests::trigger;
use super::{Simulation, defaults};
use crate::clock::Clock;
use crate::model::wait::{Among, AwaitedTasks};
use crate::model::{AskedDate, Awaited, AwaitedStates, DagId, Existing, Pace, RunRequest, SensorMode, Wait};
use crate::model::{DagRun, Instance, ProcessIdentity, Reprocess, RunState, SkipDecision, TaskState, TryKey};
use crate::scheduler::callbacks::LOST;
use crate::scheduler::command::{Chosen, Clear, Command, MarkTasks, NewBackfill, Only, RunRange, Spread};
use crate::scheduler::event::{Attempt, CallEnd, CallOutcome, Event, Outcome, TryEnd};
use crate::scheduler::ready::Choosing;
use crate::scheduler::{Store, StoreError};

pub(super) const PARALLELISM: u32 = 3;
pub(super) const MAX_ACTIVE_TASKS: usize = 2;
pub(super) const MAX_ACTIVE_RUNS: usize = 2;
/// From this seed on processes end at any event, and what runs may go on without them.
pub(super) const MORTAL: u64 = 1_000_000;
pub(super) const START: &str = "2026-11-21T12:00:00Z";
/// What a user may set a run to.
const RUN_STATES: [RunState; 3] = [RunState::Success, RunState::Failed, RunState::Queued];

/// In every other story a turn clears two instances of a run and reads three: small runs are cleared as large ones are.
fn clear_in_pieces(simulation: &mut Simulation, is_so: bool) {
    if is_so {
        simulation.scheduler.world.acts.set_bounds(2, 3);
    }
}

pub(super) struct Story {
    is_in_pieces: bool,
    pub simulation: Simulation,
    pub dice: Dice,
    /// For what has to do with other DAGs, assets and callbacks.
    others: Dice,
    /// For limits, and how the next start is chosen; none: these stay as they are, in each third story.
    limits: Option<Dice>,
    /// For ends of the process, from [`MORTAL`] on.
    pub deaths: Option<Dice>,
    /// For looks whether a restart would change anything, and how many there were.
    pub replays: Dice,
    pub replayed: usize,
    /// Whether what runs may go on without its process.
    pub is_mortal: bool,
    pub dags: Vec<RandomDag>,
    /// DAGs whose tasks have come and gone: an instance may have been scheduled by another graph than the one that is live.
    pub redrawn: BTreeSet<usize>,
    /// DAGs whose schedules have changed, or whose dates were filled up: their dates and what came before them are another's.
    pub rescheduled: BTreeSet<usize>,
    /// DAGs of which something was cleared or marked: how many instances there are may follow a list only when they run again.
    pub steered: BTreeSet<usize>,
    /// Tries that were scheduled before runs of their DAG were cleared or marked: they may find their upstream changed.
    pub overtaken: BTreeSet<TryKey>,
    /// DAGs whose file was gone for a while: what happened to assets meanwhile is not theirs.
    pub unsubscribed: BTreeSet<usize>,
    /// Tries that have asked for a run in this turn. Those that could not be answered begin again.
    pub asking: BTreeSet<TryKey>,
    /// Tries that have ended; they are never begun again.
    pub over: BTreeSet<TryKey>,
    pub begun: BTreeSet<TryKey>,
    /// Tries that have succeeded, until that is recorded.
    pub owed: BTreeSet<TryKey>,
    /// The wall clock was set since the last start, or is behind instants of before: what another start works out by it is another.
    pub is_stepped: bool,
    /// The latest instant that there was.
    latest: Timestamp,
    pub strays: BTreeSet<TryKey>,
    pub known: BTreeSet<TryKey>,
    /// How often all that holds was checked, and by try at which of these it was first seen on its way, and over.
    pub checks: u64,
    pub scheduled: BTreeMap<TryKey, u64>,
    pub ended: BTreeMap<TryKey, u64>,
    pub told: Vec<String>,
    saves: usize,
    /// From now on no task depends on the past.
    pub is_finishing: bool,
}

pub(super) fn file_of(dag: usize) -> String {
    format!("d{dag}.toml")
}

impl Story {
    pub fn begin(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let mut dags: Vec<RandomDag> = (0..1 + dice.below(3)).map(|_| RandomDag::roll(&mut dice)).collect();
        let mut others = Dice(!seed);
        let mut limits = (!seed.is_multiple_of(3)).then(|| Dice(seed.rotate_left(32)));
        for (at, dag) in dags.iter_mut().enumerate() {
            dag.ties = Ties::roll(&mut others, at, dag.tasks.len());
            if let Some(dice) = &mut limits {
                dag.wishes = Wishes::roll(dice, dag.tasks.len());
            }
        }
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
        let mut simulation = Simulation::with_parallelism(PARALLELISM, &files);
        let is_in_pieces = seed % 2 == 1;
        clear_in_pieces(&mut simulation, is_in_pieces);
        let mut story = Self {
            simulation,
            is_in_pieces,
            dice,
            others,
            limits,
            deaths: (seed >= MORTAL).then(|| Dice(seed.rotate_left(16))),
            replays: Dice(seed.rotate_left(48)),
            replayed: 0,
            is_mortal: seed >= MORTAL,
            dags,
            redrawn: BTreeSet::new(),
            rescheduled: BTreeSet::new(),
            steered: BTreeSet::new(),
            overtaken: BTreeSet::new(),
            unsubscribed: BTreeSet::new(),
            asking: BTreeSet::new(),
            over: BTreeSet::new(),
            begun: BTreeSet::new(),
            owed: BTreeSet::new(),
            is_stepped: false,
            latest: Timestamp::MIN,
            strays: BTreeSet::new(),
            known: BTreeSet::new(),
            checks: 0,
            scheduled: BTreeMap::new(),
            ended: BTreeMap::new(),
            told: Vec::new(),
            saves: 0,
            is_finishing: false,
        };
        story.change_limits();
        story
    }

    pub fn held(&self) -> BTreeSet<TryKey> {
        self.simulation.calls.0.lock().names.keys().copied().filter(|key| key.instance.0 > 0).collect()
    }

    /// The tries of callbacks that are under way.
    pub fn called(&self) -> Vec<TryKey> {
        self.simulation.calls.0.lock().names.keys().copied().filter(|key| key.instance.0 < 0).collect()
    }

    pub fn call_ended(&self, key: TryKey, outcome: CallOutcome) -> Event {
        Event::Called(Box::new(CallEnd { key, outcome, ended_at: self.simulation.clock.now() }))
    }

    pub fn attempt(&self, key: TryKey) -> Attempt {
        let process = ProcessIdentity { pid: 1_000, start_ticks: 1, boot_id: "boot".to_owned() };
        Attempt { key, process, started_at: self.simulation.clock.now() }
    }

    fn started(&mut self, key: TryKey) -> Attempt {
        self.begun.insert(key);
        let attempt = self.attempt(key);
        self.simulation.calls.0.lock().host.insert(key, Lot::Runs(attempt.clone()));
        attempt
    }

    pub fn ended(&mut self, key: TryKey, outcome: Outcome) -> Event {
        self.check_begins();
        let is_look = |awaited: &Awaited| matches!(awaited, Awaited::Look { .. } | Awaited::Service { .. });
        let looks_again = matches!(&outcome, Outcome::Deferred(wait) if is_look(&wait.awaited));
        let asks = matches!(outcome, Outcome::Asks(_));
        if asks {
            self.asking.insert(key);
        } else if outcome == Outcome::NeverBegun {
            self.strays.remove(&key);
        } else if !looks_again && !matches!(outcome, Outcome::Unstarted { .. }) {
            self.over.insert(key);
        }
        let ended_at = self.simulation.clock.now();
        let has_process = self.is_mortal && has_process(&outcome);
        let started_at = (has_process || self.begun.contains(&key)).then_some(ended_at);
        if looks_again || asks {
            self.begun.remove(&key);
        }
        let decision = if outcome == Outcome::Exited(0) { self.random_decision(key) } else { None };
        let xcoms = decision.iter().map(|decision| (SkipDecision::XCOM_KEY.to_owned(), decision.to_xcom())).collect();
        let lengths = if outcome == Outcome::Exited(0) { self.random_lengths(key) } else { Vec::new() };
        self.note_success(key, &outcome);
        let end = TryEnd { started_at, decision, xcoms, lengths, ..TryEnd::new(key, outcome, ended_at) };
        self.note_end(&end);
        Event::Ended(Box::new(end))
    }

    /// How much a success gives to those that are mapped over it. A try that began under another definition may not know of them.
    fn random_lengths(&mut self, key: TryKey) -> Vec<(String, u32)> {
        let Some(row) = self.simulation.store.instances().into_iter().find(|row| row.key == key.instance) else {
            return Vec::new();
        };
        if self.dice.one_in(20) {
            return Vec::new();
        }
        let mut lengths = Vec::new();
        for name in self.simulation.scheduler.world().awaited_lengths(key) {
            match row.map_index {
                -1 => lengths.push((name, self.dice.below(5) as u32)),
                // One of many may give nothing.
                _ if self.dice.one_in(4) => {}
                _ => lengths.push((name, 1)),
            }
        }
        lengths
    }

    /// What a task that decides lets run of those right after it.
    fn random_decision(&mut self, key: TryKey) -> Option<SkipDecision> {
        let row = self.simulation.store.instances().into_iter().find(|row| row.key == key.instance)?;
        let run = self.simulation.store.runs().into_iter().find(|run| run.key == row.run)?;
        let (dag, task): (usize, usize) = (run.dag_id[1..].parse().ok()?, number_of(&row.task_id));
        let tasks = &self.dags[dag].tasks;
        if !tasks[task].decides || self.dice.one_in(4) {
            return None;
        }
        let is_after = |down: &usize| tasks[*down].upstream.contains(&task) && tasks[*down].teardown_of.is_none();
        let after = (0..tasks.len()).filter(is_after).filter(|_| self.dice.one_in(2));
        let named = after.map(|down| self.dags[dag].id(down).as_str().into()).collect();
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
        let task = self.dice.below(self.dags[dag].tasks.len());
        let task = self.dags[dag].id(task);
        let map_index = self.dice.one_in(4).then(|| self.dice.below(3) as i32);
        let spread = Spread { upstream: self.dice.one_in(4), downstream: self.dice.one_in(2) };
        let (past, future) = (self.dice.one_in(4), self.dice.one_in(4));
        let range = RunRange { run_id: Some(run_id.clone()), past, future, ..RunRange::default() };
        let command = match self.dice.below(8) {
            0 => Command::MarkRun { dag_id: dag_id(), run_id, state: RUN_STATES[self.dice.below(3)] },
            1 | 2 => Command::MarkTasks(MarkTasks {
                dag_id: dag_id(),
                tasks: vec![task],
                spread,
                map_index,
                runs: range,
                state: [TaskState::Success, TaskState::Failed, TaskState::Skipped][self.dice.below(3)],
            }),
            _ => Command::Clear(Clear {
                dag_id: dag_id(),
                tasks: if self.dice.one_in(3) { Chosen::All } else { Chosen::Named(vec![task]) },
                spread,
                map_index,
                runs: range,
                only: Only { failed: self.dice.one_in(4), running: self.dice.one_in(6) },
                is_dry: self.dice.one_in(8),
            }),
        };
        self.overtake();
        self.steered.insert(dag);
        self.simulation.command(command);
    }

    /// What is scheduled now is not looked at again before it begins, whatever becomes of its upstream; nor is what is deferred, which
    /// becomes scheduled when its trigger has fired (SEMANTICS 1).
    pub fn overtake(&mut self) {
        let rows = self.simulation.store.instances().into_iter();
        let waits_for_no_upstream = |state| matches!(state, TaskState::Scheduled | TaskState::Deferred);
        let is_on_its_way = |row: &Instance| waits_for_no_upstream(row.state) || row.state.is_executing();
        self.overtaken.extend(rows.filter(is_on_its_way).map(|row| row.try_key()));
    }

    /// For an instant, which a timeout may come before.
    pub fn random_wait(&mut self) -> Wait {
        let now = self.simulation.clock.now();
        let [until, timeout, of_try] = [300, 200, 400].map(|most| 1 + self.dice.below(most) as u64);
        Wait {
            awaited: match self.dice.below(4) {
                0 => Awaited::File { pattern: "/in/*".into(), settle: Duration::ZERO, shown: None },
                1 => Awaited::Instant(now + Duration::from_secs(until)),
                2 => Awaited::Service { from: now, after: Duration::from_secs(until) },
                _ => Awaited::Look { from: now, after: Duration::from_secs(until) },
            },
            mode: if self.dice.one_in(2) { SensorMode::Poke } else { SensorMode::Reschedule },
            since: now,
            timeout: Some(Duration::from_secs(timeout)),
            execution_timeout: self.dice.one_in(3).then(|| Duration::from_secs(of_try)),
            soft_fail: self.dice.one_in(2),
            pace: Pace { poke_interval: Duration::from_secs(60), is_exponential: false, max_wait: None },
        }
    }

    /// It asks for a run of a DAG before its own, or waits for one of its dates; so nobody waits for himself.
    fn random_tie(&mut self, key: TryKey) -> Option<Outcome> {
        let row = self.simulation.store.instances().into_iter().find(|row| row.key == key.instance)?;
        let runs = self.simulation.store.runs();
        let run = runs.iter().find(|run| run.key == row.run)?;
        let dag: usize = run.dag_id[1..].parse().ok().filter(|dag| *dag > 0)?;
        let other = self.others.below(dag);
        let dag_id: DagId = format!("d{other}").as_str().into();
        let states = AwaitedStates { allowed: vec![RunState::Success], failed: vec![RunState::Failed] };
        if self.others.one_in(3) {
            let dates: Vec<_> =
                runs.iter().filter(|run| run.dag_id == dag_id).filter_map(|run| run.logical_date).collect();
            let logical_date = *dates.get(self.others.below(dates.len().max(1)))?;
            let task = self.others.below(self.dags[other].tasks.len());
            let task_id = self.dags[other].id(task).as_str().into();
            let among = if self.others.one_in(2) { Among::Run } else { Among::Tasks(vec![task_id]) };
            let (allowed, failed) = (vec![TaskState::Success, TaskState::Skipped], vec![TaskState::Failed]);
            let tasks = AwaitedTasks { dag_id, among, logical_date, allowed, failed, skipped: Vec::new() };
            return Some(Outcome::Deferred(Box::new(Wait {
                awaited: Awaited::Tasks(Box::new(tasks)),
                ..self.random_wait()
            })));
        }
        let existing = [Existing::Refused, Existing::Skipped, Existing::Reset][self.others.below(3)];
        if existing == Existing::Reset {
            self.overtake();
            self.steered.insert(other);
        }
        Some(Outcome::Asks(Box::new(RunRequest {
            dag_id,
            conf: serde_json::Map::new(),
            logical_date: if self.others.one_in(2) { AskedDate::Now } else { AskedDate::None },
            run_id: self.others.one_in(2).then(|| format!("asked{}", self.others.below(3)).as_str().into()),
            existing,
            wait: self.others.one_in(2).then_some(states),
        })))
    }

    /// Of what an earlier process has left, and this one has not taken over.
    fn stray_end(&self, key: TryKey) -> Outcome {
        if self.is_mortal {
            return self.left_end(key);
        }
        // It is known of half of those that had not begun, as far as was told.
        let has_lived = self.begun.contains(&key) || self.over.contains(&key);
        if key.instance.0 % 2 == 0 && !has_lived { Outcome::NeverBegun } else { Outcome::Lost }
    }

    fn random_end(&mut self, key: TryKey) -> Event {
        if !self.strays.contains(&key)
            && self.others.one_in(8)
            && let Some(outcome) = self.random_tie(key)
        {
            return self.ended(key, outcome);
        }
        let outcome = match self.dice.below(10) {
            _ if self.strays.contains(&key) => self.stray_end(key),
            0 | 1 => Outcome::Exited(1),
            2 => Outcome::Exited(99),
            3 => Outcome::Signaled(9),
            4 if !self.begun.contains(&key) => Outcome::Unstarted { reason: "no processes left".to_owned() },
            5 => Outcome::Killed { reason: "skipped".to_owned() },
            // What it was to be mapped by was refused, or what it gave was no list or too long.
            7 => Outcome::Deferred(Box::new(self.random_wait())),
            6 if self.dice.one_in(4) => Outcome::Skipped { reason: "filter".to_owned() },
            6 if self.dice.one_in(4) => Outcome::Faulted { reason: "at most 1024 elements long".to_owned() },
            _ => Outcome::Exited(0),
        };
        self.ended(key, outcome)
    }

    /// airflow.toml says something else of what may be under way at once, and of who comes next.
    fn change_limits(&mut self) {
        let Some(dice) = &mut self.limits else { return };
        let [parallelism, slots, memory] = [1 + dice.below(3), dice.below(4), 3 + dice.below(4)];
        let include_deferred = dice.one_in(3);
        let (fair_share, ageing) = (dice.one_in(2), [None, Some(30), Some(300)][dice.below(3)]);
        let ageing = ageing.map(Duration::from_secs);
        // What has been decided by the limits of before is written before.
        self.spend_faults();
        self.write();
        self.check();
        self.simulation.reconfigure(|settings| {
            settings.parallelism = parallelism as u32;
            settings.admission.memory = Some(memory as u64);
            settings.choosing = Choosing { rows: None, fair_share, ageing };
            (settings.pools[1].slots, settings.pools[1].include_deferred) = (slots as i64, include_deferred);
        });
    }

    /// All that there is may start some time.
    pub fn open_limits(&mut self) {
        if self.limits.is_some() {
            self.simulation.reconfigure(|settings| {
                (settings.parallelism, settings.admission.memory) = (PARALLELISM, Some(3));
                // What is deferred may wait for a run that needs its place.
                (settings.pools[1].slots, settings.pools[1].include_deferred) = (2, false);
            });
        }
    }

    pub fn step(&mut self) {
        if self.limits.as_mut().is_some_and(|dice| dice.one_in(12)) {
            self.change_limits();
            self.write();
            self.check();
        }
        self.plan_death();
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
            5 if self.dice.one_in(2) => {
                self.unsubscribed.insert(dag);
                self.simulation.remove(&file_of(dag));
            }
            5 => self.simulation.save(&file_of(dag), "tasks = "),
            6 if self.dice.one_in(2) => self.crash(),
            7 => {
                let seconds = self.dice.below(7_200) as i64 - 3_600;
                let to = self.simulation.clock.now() + SignedDuration::from_secs(seconds);
                self.is_stepped = true;
                self.latest = self.latest.max(self.simulation.clock.now());
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
        if self.simulation.store.has_ended() {
            self.crash();
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
                0 if !self.strays.contains(&key) && !self.begun.contains(&key) => {
                    events.push(Event::Started(self.started(key)));
                }
                1 | 2 => events.push(self.random_end(key)),
                _ => {}
            }
        }
        for key in self.called() {
            if !self.is_made(key) {
                events.push(self.call_ended(key, CallOutcome::CutOff { reason: LOST.to_owned() }));
                continue;
            }
            let reason = "no mailer".to_owned();
            let outcome = match self.others.below(6) {
                0 => CallOutcome::Failed { reason },
                1 => CallOutcome::CutOff { reason },
                2 | 3 => CallOutcome::Done,
                _ => continue,
            };
            events.push(self.call_ended(key, outcome));
        }
        self.simulation.turn_all(events);
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
            self.redrawn.insert(dag);
            self.dags[dag].remap(&mut self.dice);
        }
        if self.dice.one_in(4) {
            self.rescheduled.insert(dag);
            self.dags[dag].schedule = (!self.dice.one_in(4)).then(|| SCHEDULES[self.dice.below(SCHEDULES.len())]);
            self.dags[dag].catchup = CATCHUPS[self.dice.below(CATCHUPS.len())];
        }
        let text = self.dags[dag].text(&present, true, self.saves);
        self.simulation.save(&file_of(dag), &text);
    }

    pub fn crash(&mut self) {
        let told = self.simulation.trace();
        self.told.extend(told);
        self.told.push("crash".to_owned());
        self.check_begins();
        let settings = self.simulation.settings.clone();
        let (clock, store) = (self.simulation.clock.clone(), self.simulation.store.clone());
        store.begin_process();
        self.spend_faults();
        let legacy = self.legacy();
        self.be_gone();
        self.is_stepped = clock.now() < self.latest;
        self.simulation = Simulation::start_after(legacy, clock, store, settings, self.simulation.files.clone());
        clear_in_pieces(&mut self.simulation, self.is_in_pieces);
        self.strays = self.simulation.calls.0.lock().left.keys().copied().collect();
        self.known = self.strays.clone();
        self.plan_death();
        self.simulation.scheduler.write_and_act();
        self.adopt();
        self.simulation.rescan();
        if self.simulation.store.has_ended() {
            self.crash();
        }
    }

    /// The database works again.
    pub fn spend_faults(&self) {
        for _ in 0..3 {
            let _ = self.simulation.store.clone().load();
        }
    }
}
