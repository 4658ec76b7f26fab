//! Stories in which the process ends at any event: before a turn is written, after it, and between the acts that follow it.
//!
//! What it has handed over has a lot of its own, which no process knows before it is told. Mostly its supervisor lives on: what runs
//! there is taken over, what has ended is told of (again, if it was told in vain), and what it was not given has never begun. A
//! supervisor that dies as well leaves at most the ends that it had written down; of the rest nobody knows, and it is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Recorded;
use super::random::Dice;
use super::story::Story;
use crate::model::{DagRun, Instance, InstanceKey, TaskState, TryKey};
use crate::scheduler::event::{Adopted, Attempt, Event, Outcome, TryEnd};
use crate::store::Moment;

/// What has become of a try that was handed over, whoever knows of it.
#[derive(Clone, Debug)]
pub enum Lot {
    /// A worker has it. Whether its process has begun shows when its own does not live any longer.
    Handed,
    Runs(Attempt),
    /// It has ended so, which is not recorded yet.
    Over(Box<TryEnd>),
    /// The process that had it has ended before any process of it began.
    NeverBegun,
    /// Nobody will know how it ended, and nothing of it lives.
    Lost,
}

/// Whether it tells of a process that has begun.
pub(super) fn has_process(outcome: &Outcome) -> bool {
    use Outcome::{Asks, Faulted, Lost, NeverBegun, Skipped, Unstarted};
    !matches!(outcome, Asks(_) | Faulted { .. } | Skipped { .. } | Unstarted { .. } | NeverBegun | Lost)
}

impl Story {
    /// At one of the next commits the process may end: before it is written, or so many acts after it.
    pub fn plan_death(&mut self) {
        let Some(dice) = &mut self.deaths else { return };
        if !dice.one_in(4) {
            return;
        }
        let (commits, acts) = (1 + dice.below(3) as u64, dice.below(4) as u32);
        let moment = if dice.one_in(3) { Moment::Before } else { Moment::After };
        self.simulation.store.end_process(commits, moment);
        self.simulation.calls.0.lock().last_acts = acts;
    }

    /// What outlives a process. Where none is adopted, nothing of its tries does.
    pub fn legacy(&self) -> Recorded {
        let mut before = self.simulation.calls.0.lock();
        Recorded {
            host: if self.is_mortal { std::mem::take(&mut before.host) } else { BTreeMap::new() },
            made: std::mem::take(&mut before.made),
            events: before.events,
            ..Recorded::default()
        }
    }

    /// Nobody begins anew for a while, and the next one may end in its first turn.
    pub fn be_gone(&mut self) {
        let Some(dice) = &mut self.deaths else { return };
        if dice.one_in(3) {
            self.simulation.clock.advance(Duration::from_secs(dice.below(120) as u64));
        }
        if dice.one_in(8) {
            self.simulation.store.end_process(1, Moment::After);
        }
    }

    /// Whether somebody has really begun to make this try of a callback.
    pub fn is_made(&self, key: TryKey) -> bool {
        self.simulation.calls.0.lock().made.contains(&key)
    }

    /// No try is handed over that is over already; that none is while something of it lives is the executor's affair.
    pub fn check_begins(&mut self) {
        for key in std::mem::take(&mut self.simulation.calls.0.lock().begins) {
            assert!(!self.over.contains(&key), "{key:?} was begun again");
        }
    }

    /// A try is told to be over. Of what has no process nobody but its worker knows.
    pub fn note_end(&self, end: &TryEnd) {
        let mut recorded = self.simulation.calls.0.lock();
        if has_process(&end.outcome) || matches!(recorded.host.get(&end.key), Some(Lot::Runs(_))) {
            recorded.host.insert(end.key, Lot::Over(Box::new(end.clone())));
        } else if end.outcome != Outcome::Lost {
            recorded.host.insert(end.key, Lot::NeverBegun);
        }
    }

    /// How a try that was not taken over comes to its end.
    pub fn left_end(&self, key: TryKey) -> Outcome {
        match self.simulation.calls.0.lock().host.get(&key) {
            Some(Lot::NeverBegun) => Outcome::NeverBegun,
            _ => Outcome::Lost,
        }
    }

    /// How one ends whose process has begun, while nobody hears of it.
    fn end_alone(&mut self, key: TryKey, dice: &mut Dice) -> Event {
        self.begun.insert(key);
        let outcome = match dice.below(8) {
            0 => Outcome::Exited(1),
            1 => Outcome::Exited(99),
            2 => Outcome::Signaled(9),
            3 => Outcome::Deferred(Box::new(self.random_wait())),
            _ => Outcome::Exited(0),
        };
        self.ended(key, outcome)
    }

    /// The next process finds what there is on the host.
    pub fn adopt(&mut self) {
        let Some(mut dice) = self.deaths.take_if(|_| !self.simulation.store.has_ended()) else { return };
        let is_alone = dice.one_in(3);
        let (mut adopted, mut ends) = (Vec::new(), Vec::new());
        let left = self.simulation.calls.0.lock().left.clone();
        for (key, is_knowable) in left {
            let lot = match self.simulation.calls.0.lock().host.remove(&key) {
                // It runs, though nobody has told of its start.
                Some(Lot::Handed) if dice.one_in(2) => Lot::Runs(self.attempt(key)),
                // It was in the hands of a worker, or of nobody. What its worker alone had told is not known any longer.
                lot @ (None | Some(Lot::Handed | Lot::NeverBegun)) if is_knowable && !is_alone => {
                    if lot.is_some() {
                        self.over.remove(&key);
                    }
                    Lot::NeverBegun
                }
                None | Some(Lot::Handed | Lot::NeverBegun) => Lot::Lost,
                Some(Lot::Runs(_) | Lot::Over(_)) if is_alone && dice.one_in(2) => Lot::Lost,
                Some(lot) => lot,
            };
            if matches!(lot, Lot::Runs(_) | Lot::Over(_)) {
                self.strays.remove(&key);
            }
            match &lot {
                // What ends when its supervisor dies as well was written down.
                Lot::Runs(_) if is_alone || dice.one_in(3) => {
                    adopted.push(Adopted::Over(key));
                    ends.push(self.end_alone(key, &mut dice));
                    continue;
                }
                Lot::Runs(attempt) => {
                    let is_told = self.begun.contains(&key) || dice.one_in(2);
                    self.begun.extend(is_told.then_some(key));
                    adopted.push(Adopted::Runs(key, is_told.then(|| attempt.clone())));
                }
                Lot::Over(end) => {
                    adopted.push(Adopted::Over(key));
                    ends.push(Event::Ended(end.clone()));
                }
                Lot::Lost => drop(self.owed.remove(&key)),
                Lot::Handed | Lot::NeverBegun => {}
            }
            self.simulation.calls.0.lock().host.insert(key, lot);
        }
        // What nobody waits for any longer is ended, or acknowledged.
        let held = self.held();
        self.simulation.calls.0.lock().host.retain(|key, _| held.contains(key));
        self.deaths = Some(dice);
        self.simulation.turn(Event::Adopted(adopted));
        self.simulation.turn_all(ends);
    }

    /// A success of what the scheduler has under way is to be recorded, whatever comes between.
    pub fn note_success(&mut self, key: TryKey, outcome: &Outcome) {
        // Without adoption what a turn has lost is lost.
        if *outcome != Outcome::Exited(0) || !self.is_mortal {
            return;
        }
        let rows = self.simulation.store.instances();
        let row = rows.iter().find(|row| row.key == key.instance);
        if row.is_some_and(|row| row.try_key() == key && row.state.is_executing()) {
            self.owed.insert(key);
        }
    }

    /// No finished work is lost: what has succeeded is a success, or will be told again. Where users, timeouts or other tasks end
    /// tries, they may have come first.
    pub fn check_successes(
        &mut self,
        held: &BTreeSet<TryKey>,
        by_key: &BTreeMap<InstanceKey, &Instance>,
        runs: &[DagRun],
    ) {
        for key in std::mem::take(&mut self.owed) {
            let row = by_key[&key.instance];
            let lot = self.simulation.calls.0.lock().host.get(&key).cloned();
            let is_told_again = held.contains(&key) && matches!(lot, Some(Lot::Over(_)));
            let was_success = || {
                let history = self.simulation.store.history();
                history.iter().any(|row| row.try_key() == key && row.state == TaskState::Success)
            };
            if (row.try_key() == key && row.state == TaskState::Success) || was_success() {
                continue;
            }
            let run = runs.iter().find(|run| run.key == row.run).expect("an instance has a run");
            let dag: usize = run.dag_id[1..].parse().expect("DAGs are numbered");
            if is_told_again {
                self.owed.insert(key);
            } else {
                let has_others = self.dags[dag].fails_fast || self.dags[dag].has_timeout;
                let is_left_alone = !has_others && !self.steered.contains(&dag) && !self.redrawn.contains(&dag);
                assert!(!is_left_alone, "{key:?} has succeeded, and {} is {}", row.task_id, row.state);
            }
        }
    }
}
