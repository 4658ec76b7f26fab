//! Properties that hold whatever happens in a random story: limits, exactly one beginning of a try, nothing before what comes before
//! it allows it, every run ends, and nothing is held for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::SignedDuration;

use super::random::{CATCHUPS, List, RandomDag, SCHEDULES, number_of};
use super::story::{MAX_ACTIVE_RUNS, MAX_ACTIVE_TASKS, START, Story, file_of};
use crate::model::Awaited;
use crate::model::{
    CallbackState, DagRun, Instance, InstanceKey, RunKey, RunState, RunType, SkipDecision, TaskState, TryKey,
};
use crate::scheduler::backfill::CANCELLED;
use crate::scheduler::callbacks::LOST;
use crate::scheduler::command::Command;
use crate::scheduler::event::{CallOutcome, Outcome};
use crate::scheduler::waits::is_waiting;
use crate::scheduler::world::{DagIx, InstanceEntry, RunIx, TimerKey};
use crate::store::MemoryStore;

impl Story {
    /// What holds after each turn.
    pub fn check(&mut self) {
        let (held, runs) = (self.held(), self.simulation.store.runs());
        let rows = self.simulation.store.instances();
        let by_key: BTreeMap<_, &Instance> = rows.iter().map(|row| (row.key, row)).collect();
        if self.simulation.scheduler.world().acts.is_at_work() {
            // The database could not be asked, or it was too much for a turn: it goes on later.
            self.overtake();
        }
        self.check_limits(&held, &by_key, &runs);
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
        for key in std::mem::take(&mut self.asking) {
            // Its request could not be answered as long as the database could not be asked: it waits again.
            let waits_again = by_key[&key.instance].try_key() == key
                && (by_key[&key.instance].state == TaskState::Scheduled || held.contains(&key));
            if !waits_again {
                self.over.insert(key);
            }
        }
        self.check_begins();
        for key in held.difference(&self.known) {
            let row = by_key[&key.instance];
            let run = runs.iter().find(|run| run.key == row.run).expect("an instance has a run");
            let dag: usize = run.dag_id[1..].parse().expect("DAGs are numbered");
            if !self.redrawn.contains(&dag) && !self.overtaken.contains(key) {
                let sight = Sight {
                    dag: &self.dags[dag],
                    rows: rows.iter().filter(|other| other.run == run.key).collect(),
                    lengths: lengths_in(&self.simulation.store, run.key),
                    is_settled: !self.steered.contains(&dag),
                };
                sight.check_rule(row);
                let decisions = self.simulation.store.decisions_in(run.key);
                let speaks_in_time = |decider: &Instance| self.has_ended_before_scheduling(decider, row);
                sight.check_decisions(row, &decisions, speaks_in_time);
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
        self.check_successes(&held, &by_key, &runs);
        self.check_waits();
        self.check_run_ids();
        let mut places = BTreeSet::new();
        for row in &rows {
            assert!(
                places.insert((row.run, &row.task_id, row.map_index)),
                "two instances {}[{}]",
                row.task_id,
                row.map_index
            );
        }
        self.check_progress();
        self.check_ties();
        self.note_order(&rows);
        self.known = held;
        self.check_replay();
    }

    /// No limit is exceeded by what begins; what runs goes on when one has become lower. What is reserved is what those hold who have it.
    fn check_limits(&self, held: &BTreeSet<TryKey>, by_key: &BTreeMap<InstanceKey, &Instance>, runs: &[DagRun]) {
        let world = self.simulation.scheduler.world();
        let settings = &self.simulation.settings;
        let is_new = |key: &TryKey| !self.known.contains(key);
        let within = |what: &str, taken: u64, limit: u64, has_new: bool| {
            assert!(taken <= limit || !has_new, "{what}: {taken} of {limit}, and one has just begun");
        };
        within("parallelism", held.len() as u64, settings.parallelism.into(), held.iter().any(is_new));
        let narrow = &settings.pools[1];
        let is_in = |key: &&TryKey| by_key[&key.instance].pool == narrow.name;
        let deferred = by_key.values().copied().filter(|row| row.state == TaskState::Deferred);
        let kept = deferred.clone().filter(|row| narrow.include_deferred && row.pool == narrow.name);
        let rows = held.iter().filter(is_in).map(|key| by_key[&key.instance]).chain(kept);
        let taken: u64 = rows.map(|row| u64::from(row.pool_slots)).sum();
        within("narrow", taken, narrow.slots.unsigned_abs(), held.iter().filter(is_in).any(is_new));
        let entries = || world.runs.iter().flatten().flat_map(|run| &run.instances).filter(|entry| entry.is_held());
        let reserves = world.limits.reserves();
        let need = |entry: &InstanceEntry| entry.claim.and_then(|(claim, _)| claim.need);
        let memory = |entry: &InstanceEntry| need(entry).map_or(0, |need| reserves.need(need).memory);
        let (reserved, limit) = reserves.memory();
        assert_eq!(entries().map(memory).sum::<u64>(), reserved);
        within("memory", reserved, limit, entries().any(|entry| is_new(&entry.row.try_key()) && memory(entry) > 0));
        let dag_of = |row: &Instance| runs.iter().find(|run| run.key == row.run).map(|run| &run.dag_id);
        for key in held.iter().filter(|key| is_new(key)) {
            let row = by_key[&key.instance];
            let Some(dag_id) = dag_of(row) else { continue };
            let dag: usize = dag_id[1..].parse().expect("DAGs are numbered");
            let Some(&limits) = self.dags[dag].wishes.limits.get(number_of(&row.task_id)) else { continue };
            let active = held.iter().map(|key| by_key[&key.instance]).chain(deferred.clone());
            let of_task = active.filter(|other| other.task_id == row.task_id && dag_of(other) == Some(dag_id));
            for (what, limit, is_in_run) in
                [("max_active_tis_per_dag", limits.0, false), ("max_active_tis_per_dagrun", limits.1, true)]
            {
                let counted = of_task.clone().filter(|other| !is_in_run || other.run == row.run).count();
                assert!(limit == 0 || counted <= limit, "{what} of {}: {counted} of {limit}", row.task_id);
            }
        }
        for pool in world.limits.pools.iter() {
            let shares: u64 = (0..world.dags.len() as u32).map(|dag| world.limits.share(pool, dag)).sum();
            let counted = world.limits.pools.queued(pool) + world.limits.pools.running(pool);
            assert_eq!(shares, if settings.choosing.fair_share { counted } else { 0 });
        }
    }

    /// In which turns what is scheduled came to be so, and what is over ended.
    fn note_order(&mut self, rows: &[Instance]) {
        self.checks += 1;
        for row in rows {
            let (key, is_on_its_way) = (row.try_key(), row.state == TaskState::Scheduled || row.state.is_executing());
            for (turns, holds) in [(&mut self.scheduled, is_on_its_way), (&mut self.ended, row.state.is_finished())] {
                if holds {
                    turns.entry(key).or_insert(self.checks);
                } else {
                    turns.remove(&key);
                }
            }
        }
    }

    /// Whether the end of `decider` came before `row`, which begins now, was scheduled, or in the same turn: ends are taken in first.
    fn has_ended_before_scheduling(&self, decider: &Instance, row: &Instance) -> bool {
        let turn = |turns: &BTreeMap<TryKey, u64>, row: &Instance| *turns.get(&row.try_key()).unwrap_or(&u64::MAX);
        turn(&self.ended, decider) <= turn(&self.scheduled, row)
    }

    /// What passes know is what the rows say.
    fn check_progress(&self) {
        for run in self.simulation.scheduler.world().runs.iter().flatten() {
            for entry in &run.instances {
                let Some(ix) = entry.ix else { continue };
                let known = (run.progress.map_index(ix), run.progress.state(ix));
                assert_eq!(
                    known,
                    (entry.row.map_index, entry.row.state),
                    "{} of {}",
                    entry.row.task_id,
                    run.row.run_id
                );
            }
            run.progress.check_counts();
        }
    }

    /// Each unfinished run is found by its run_id, and nothing else is.
    fn check_run_ids(&self) {
        let world = self.simulation.scheduler.world();
        for (at, dag) in world.dags.iter().enumerate() {
            for &(_, ix) in &dag.runs {
                assert_eq!(world.find_live_run(DagIx(at as u32), &world.run(ix).row.run_id), Some(ix));
            }
            assert_eq!(dag.run_ids.len(), dag.runs.len());
        }
    }

    /// What waits holds nothing, knows what it waits for, and has a deadline; nothing else has one of a wait.
    fn check_waits(&self) {
        let world = self.simulation.scheduler.world();
        let (mut waiting, mut watched) = (0, 0);
        for (at, run) in world.runs.iter().enumerate().filter_map(|(at, run)| Some((at as u32, run.as_ref()?))) {
            for slot in run.slots_in_order() {
                let entry = run.entry(slot);
                let key = TimerKey::Wait(RunIx(at), slot);
                let waits = is_waiting(entry.row.state);
                let is_armed = world.timers.get(&key).is_some();
                // The look of one of mode `reschedule` may be due, and wait until its dependencies are met again.
                let may_be_due = entry.row.state == TaskState::UpForReschedule;
                let awaited = entry.row.deferral.as_ref().map(|wait| &wait.awaited);
                let is_file = waits && matches!(awaited, Some(Awaited::File { .. }));
                let is_across = matches!(awaited, Some(Awaited::Run(_) | Awaited::Tasks(_)));
                let is_watched = world.watched.get(&entry.row.try_key()) == Some(&(RunIx(at), slot));
                assert_eq!(is_watched, is_file, "{} is {}", entry.row.task_id, entry.row.state);
                watched += usize::from(is_file);
                assert!(
                    is_armed == (waits && !is_file && !is_across) || (!is_armed && may_be_due),
                    "{} is {}",
                    entry.row.task_id,
                    entry.row.state
                );
                assert!(!waits || (!entry.is_held() && entry.row.deferral.is_some()), "{}", entry.row.task_id);
                if waits && is_across {
                    let waiter = (RunIx(at), slot, entry.row.try_key());
                    let is_known = world.cross_dag.waiters().any(|known| known == waiter);
                    assert!(is_known, "nobody looks at {} of {} again", entry.row.task_id, run.row.run_id);
                }
                waiting += u64::from(entry.row.state == TaskState::Deferred);
            }
        }
        assert_eq!(world.counts.deferred, waiting);
        assert_eq!(world.watched.len(), watched);
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

    /// Nothing disturbs any more: all files are whole, nothing is paused or scheduled, and every try succeeds.
    pub fn finish(mut self) -> Vec<String> {
        self.spend_faults();
        self.simulation.store.begin_process();
        self.deaths = None;
        self.is_finishing = true;
        self.simulation.scheduler.write_and_act();
        self.open_limits();
        for dag in 0..self.dags.len() {
            let text = self.dags[dag].text(&vec![true; self.dags[dag].tasks.len()], false, usize::MAX);
            self.simulation.save(&file_of(dag), &text);
            self.simulation.scheduler.write_and_act();
            self.check();
            let dag_id = format!("d{dag}").as_str().into();
            self.simulation.command(Command::SetPaused { dag_id, is_paused: false });
            self.simulation.scheduler.write_and_act();
            self.check();
        }
        for backfill in self.simulation.store.backfills() {
            self.simulation.command(Command::SetBackfillPaused { id: backfill.id, is_paused: false });
        }
        let is_completed = |backfill: &crate::model::Backfill| backfill.completed_at.is_some();
        for _ in 0..1_000 {
            let held = self.held();
            let is_over = self.simulation.store.runs().iter().all(|run| run.state.is_finished());
            for key in self.called() {
                let cut_off = CallOutcome::CutOff { reason: LOST.to_owned() };
                let event = self.call_ended(key, if self.is_made(key) { CallOutcome::Done } else { cut_off });
                self.simulation.turn(event);
            }
            let is_over = is_over
                && self
                    .simulation
                    .store
                    .callbacks()
                    .iter()
                    .all(|row| matches!(row.state, CallbackState::Success | CallbackState::Failed));
            // One that the database could not be asked for goes on in turns of its own, and may let a run begin again.
            let is_over = is_over && !self.simulation.scheduler.world().acts.is_at_work();
            if held.is_empty() && is_over && self.simulation.store.backfills().iter().all(is_completed) {
                break;
            }
            for key in held {
                let outcome = match self.strays.contains(&key) {
                    true if self.is_mortal => self.left_end(key),
                    true => Outcome::Lost,
                    false => Outcome::Exited(0),
                };
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
        assert!(self.owed.is_empty(), "successes were forgotten: {:?}", self.owed);
        self.check_dates();
        self.check_maps();
        self.check_calls();
        self.check_events();
        assert!(self.simulation.store.backfills().iter().all(is_completed), "a backfill is never completed");
        for backfill in self.simulation.store.backfills() {
            let dates = self.simulation.store.backfill_dates(backfill.id);
            assert!(dates.iter().all(|(_, fate)| fate.is_some()), "a date of {backfill:?} was forgotten: {dates:?}");
        }
        // A question that the database did not answer is asked again after a second.
        self.simulation.advance(Duration::from_secs(1));
        self.simulation.go_on();
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
        self.told.extend((0..self.replayed).map(|_| "replay".to_owned()));
        self.told.push(format!("events {}", self.simulation.calls.0.lock().events));
        let is_tied = |run: &DagRun| matches!(run.run_type, RunType::AssetTriggered | RunType::OperatorTriggered);
        let tied = self.simulation.store.runs().into_iter().filter(is_tied);
        self.told.extend(tied.map(|run| format!("tied {}", run.run_id)));
        self.told.extend(self.simulation.backfilled().iter().map(|run| format!("filled up {}", run.run_id)));
        self.told
    }

    /// In a DAG that nobody has touched, each mapped task has an instance for each index, and is as long as what was given. The runs
    /// of a cancelled backfill that never began are the only ones without instances: these are made when a run is promoted.
    fn check_maps(&self) {
        for run in self.simulation.store.runs() {
            let dag: usize = run.dag_id[1..].parse().expect("DAGs are numbered");
            // A run of before the start_date has no tasks.
            let start: jiff::Timestamp = START.parse().expect("an instant");
            let is_early = run.logical_date.is_some_and(|date| date < start);
            let rows = self.simulation.store.instances();
            let rows: Vec<&Instance> = rows.iter().filter(|row| row.run == run.key).collect();
            let is_cancelled = run.reason.as_deref() == Some(CANCELLED);
            if is_early
                || (is_cancelled && rows.is_empty())
                || self.redrawn.contains(&dag)
                || self.steered.contains(&dag)
            {
                continue;
            }
            let sight = Sight {
                dag: &self.dags[dag],
                rows,
                lengths: lengths_in(&self.simulation.store, run.key),
                is_settled: true,
            };
            for task in 0..sight.dag.tasks.len() {
                let mut indexes: Vec<i32> = sight.rows_of(task).map(|row| row.map_index).collect();
                indexes.sort_unstable();
                let lists = sight.dag.lists(task);
                let count = sight.product(&lists).unwrap_or_default();
                let expanded: Vec<i32> = (0..count as i32).collect();
                let is_right = match run.clear_number {
                    0 => indexes == [-1] || (!lists.is_empty() && indexes == expanded),
                    _ => sight.follows_lists(task, &indexes),
                };
                assert!(is_right, "t{task} of {} has {indexes:?}, and its lists say {count}", run.run_id);
            }
        }
    }
}

/// How many elements what was pushed in a run has, by who pushed it.
fn lengths_in(store: &MemoryStore, run: RunKey) -> BTreeMap<InstanceKey, u64> {
    store.lengths_in(run).into_iter().map(|write| (write.instance, write.length.into())).collect()
}

/// What can be seen of a run when a task of it begins: told by the model of the DAG, and not by the scheduler's own counts.
struct Sight<'s> {
    dag: &'s RandomDag,
    rows: Vec<&'s Instance>,
    lengths: BTreeMap<InstanceKey, u64>,
    /// Nobody has cleared or marked anything, so that all instances follow the lists that were given.
    is_settled: bool,
}

impl<'s> Sight<'s> {
    fn rows_of(&self, task: usize) -> impl Iterator<Item = &'s Instance> {
        self.rows.iter().copied().filter(move |row| number_of(&row.task_id) == task)
    }

    fn length(&self, list: List) -> Option<u64> {
        let List::Pushed(giver) = list else {
            let List::Literal(count) = list else { unreachable!("a list is one or the other") };
            return Some(count as u64);
        };
        let given = self.rows_of(giver).filter_map(|row| self.lengths.get(&row.key));
        if self.dag.lists(giver).is_empty() { given.copied().next() } else { Some(given.count() as u64) }
    }

    /// What was done over begins with the instances of before. Once one of them begins again, their number follows what was given
    /// since, and those that are too many are removed; of what was not given again nothing follows (SEMANTICS 15; Airflow:
    /// `_revise_map_indexes_if_mapped`, which returns where the lengths are not populated).
    fn follows_lists(&self, task: usize, indexes: &[i32]) -> bool {
        let is_whole = indexes == [-1] || (0..indexes.len() as i32).eq(indexes.iter().copied());
        let has_begun = self.rows_of(task).any(|row| matches!(row.state, TaskState::Success | TaskState::Failed));
        let left = self.rows_of(task).filter(|row| row.state != TaskState::Removed).count() as u64;
        let count = self.product(&self.dag.lists(task));
        is_whole && (indexes == [-1] || !has_begun || count.is_none_or(|count| count == left))
    }

    fn product(&self, lists: &[(usize, List)]) -> Option<u64> {
        lists.iter().try_fold(1, |product, &(_, list)| Some(product * self.length(list)?))
    }

    /// The instances of `up` that count for `row`: in the same mapped groups those of its own copy, else all. None: nobody can say.
    fn seen(&self, row: &Instance, up: usize) -> Option<Vec<&'s Instance>> {
        let (here, there) = (self.dag.lists(number_of(&row.task_id)), self.dag.lists(up));
        let shared = here.iter().zip(&there).take_while(|(one, other)| one == other).count();
        let all: Vec<&Instance> = self.rows_of(up).collect();
        let Ok(index) = u64::try_from(row.map_index) else { return Some(all) };
        let is_expanded = all.iter().any(|other| other.map_index >= 0);
        let (inner, outer) = (self.product(&here[shared..]), self.product(&there[shared..]));
        let whole = self.product(&there);
        if shared == 0 {
            let is_whole = !is_expanded || !self.is_settled || whole == Some(all.len() as u64);
            assert!(is_whole, "{}[{index}] began with {} of {whole:?} instances of t{up}", row.task_id, all.len());
            return Some(all);
        }
        let ((Some(inner), Some(outer)), true) = ((inner, outer), self.is_settled) else { return None };
        let is_near = |other: &&Instance| other.map_index as u64 / outer.max(1) == index / inner.max(1);
        let near: Vec<&Instance> = all.into_iter().filter(|other| other.map_index < 0 || is_near(other)).collect();
        let is_whole = !is_expanded || near.len() as u64 == outer;
        assert!(is_whole, "{}[{index}] began with {} of {outer} instances of t{up}", row.task_id, near.len());
        Some(near)
    }

    fn check_rule(&self, row: &Instance) {
        let task = number_of(&row.task_id);
        let model = &self.dag.tasks[task];
        assert_eq!(row.map_index >= 0, !self.dag.lists(task).is_empty(), "{} began", row.task_id);
        let seen: Option<Vec<Vec<&Instance>>> = model.upstream.iter().map(|&up| self.seen(row, up)).collect();
        let Some(seen) = seen else { return };
        let states: Vec<TaskState> = seen.iter().flatten().map(|row| row.state).collect();
        let rule = if model.teardown_of.is_some() { "all_done" } else { model.rule };
        let what = format!("{}[{}] ({rule}) began after {states:?}", row.task_id, row.map_index);
        assert!(is_met(rule, &states), "{what}");
        if let Some(setup) = model.teardown_of {
            let at = model.upstream.iter().position(|&up| up == setup).expect("a setup comes before its teardown");
            assert!(seen[at].iter().any(|row| row.state == TaskState::Success), "{what}, and no setup");
        }
    }

    /// A branch that is over and has decided against it lets no task begin; one of many speaks for its own index. Such a one skips
    /// nothing at once: what a rule like `one_success`, or a map of other length, let be scheduled before it `speaks_in_time` begins
    /// (SEMANTICS 13; Airflow looks at decisions when it schedules, and `SkipMixin` skips at once only what is not mapped).
    fn check_decisions(
        &self,
        row: &Instance,
        decisions: &[(InstanceKey, SkipDecision)],
        speaks_in_time: impl Fn(&Instance) -> bool,
    ) {
        for &up in &self.dag.tasks[number_of(&row.task_id)].upstream {
            let is_of_its_index = |other: &Instance| other.map_index == row.map_index && speaks_in_time(other);
            let speaks = |other: &&Instance| other.map_index < 0 || is_of_its_index(other);
            for decider in self.rows_of(up).filter(speaks).filter(|other| other.state.is_finished()) {
                let of_it = decisions.iter().find(|(key, _)| *key == decider.key);
                let is_against = of_it.is_some_and(|(_, decision)| match decision {
                    SkipDecision::Followed(named) => !named.contains(&row.task_id),
                    SkipDecision::Skipped(named) => named.contains(&row.task_id),
                });
                assert!(!is_against, "{}[{}] began against {decider:?}", row.task_id, row.map_index);
            }
        }
    }
}

/// The column "runs iff" of SEMANTICS 3, over the states themselves.
fn is_met(rule: &str, states: &[TaskState]) -> bool {
    use TaskState::{Failed, Removed, Skipped, Success, UpstreamFailed};
    let all = |of: &[TaskState]| states.iter().all(|state| of.contains(state));
    let any = |of: &[TaskState]| states.iter().any(|state| of.contains(state));
    let is_done = states.iter().all(|state| state.is_finished());
    states.is_empty()
        || match rule {
            "all_success" => all(&[Success, Removed]),
            "all_failed" => all(&[Failed, UpstreamFailed, Removed]),
            "all_done" => is_done,
            "one_success" => any(&[Success]),
            "one_failed" => any(&[Failed, UpstreamFailed]),
            "one_done" => any(&[Success, Failed]),
            "none_failed" => all(&[Success, Skipped, Removed]),
            "none_failed_min_one_success" => all(&[Success, Skipped, Removed]) && any(&[Success]),
            "none_skipped" => is_done && !any(&[Skipped]),
            "all_skipped" => all(&[Skipped]),
            "all_done_min_one_success" => is_done && !any(&[Skipped]) && any(&[Success]),
            other => panic!("no such rule: {other}"),
        }
}

/// A task that depends on the past begins after its own instance in the run before, and one that waits for downstream after
/// those right behind that. In a DAG that is not `is_steady`, only the runs of one backfill are known to have come in order.
fn check_past(dag: &RandomDag, is_steady: bool, run: &DagRun, row: &Instance, runs: &[DagRun], rows: &[Instance]) {
    let task: usize = number_of(&row.task_id);
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
        let there = rows.iter().filter(|other| other.run == before.key && number_of(&other.task_id) == needed);
        let states: Vec<TaskState> = there.map(|there| there.state).collect();
        let lets_go_on = states.iter().all(|state| matches!(state, TaskState::Success | TaskState::Skipped));
        assert!(lets_go_on, "t{task} of {} began after {states:?} of t{needed} in {}", run.run_id, before.run_id);
    }
}
