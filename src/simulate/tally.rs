//! Counts what the world does, row by row, and keeps nothing of a run that is over.

mod share;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::deadline::DeadlineRow;
use crate::model::{NextRun, RunState, TaskIx, TaskState};
use crate::scheduler::pools::PoolIx;
use crate::scheduler::ready::{Elder, NotStarted};
use crate::scheduler::world::{DagIx, Run, RunIx, Slot, World};
use crate::simulate::gauges::{Gauge, Gauges, Step};
use crate::simulate::picture::Canvas;
use crate::simulate::report::{
    Behind, DagReport, Deadline, DeadlineKind, LimitKind, LimitReport, Report, Totals, WaitReport,
};
use crate::simulate::{Plan, Subject, slots};

pub(super) use self::share::{Before, Share};

/// What a waiting instance waits for, in a byte or two: the first ones are fixed, then come the pools by their places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Cause(u16);

impl Cause {
    const UNKNOWN: Self = Self(0);
    const PARALLELISM: Self = Self(1);
    const MAX_ACTIVE_TASKS: Self = Self(2);
    const MAX_ACTIVE_RUNS: Self = Self(3);
    const DEPENDS_ON_PAST: Self = Self(4);
    const MAX_ACTIVE_TIS_PER_DAG: Self = Self(5);
    const MAX_ACTIVE_TIS_PER_DAGRUN: Self = Self(6);
    const FIRST_POOL: u16 = 7;

    fn pool(pool: PoolIx) -> Self {
        Self(u16::try_from(pool.0).map_or(Self::UNKNOWN.0, |at| at.saturating_add(Self::FIRST_POOL)))
    }

    fn of(reason: NotStarted) -> Self {
        match reason {
            NotStarted::ParallelismFull { .. } => Self::PARALLELISM,
            NotStarted::PoolUnknown { pool }
            | NotStarted::PoolTooSmall { pool, .. }
            | NotStarted::PoolFull { pool, .. } => Self::pool(pool),
            NotStarted::MaxActiveTasks { .. } => Self::MAX_ACTIVE_TASKS,
            NotStarted::MaxActiveTisPerDag { .. } => Self::MAX_ACTIVE_TIS_PER_DAG,
            NotStarted::MaxActiveTisPerDagrun { .. } => Self::MAX_ACTIVE_TIS_PER_DAGRUN,
            NotStarted::KeptFor(Elder { pool: Some(pool), .. }) => Self::pool(pool),
            // A simulated host has as much as anybody needs.
            NotStarted::KeptFor(Elder { pool: None, .. }) => Self::UNKNOWN,
            NotStarted::HostReserved { .. } | NotStarted::HostTooSmall { .. } | NotStarted::NotItsTurn => Self::UNKNOWN,
        }
    }
}

/// Waits of one DAG for one limit. Microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    count: u64,
    total: i128,
    longest: i64,
    longest_of: Option<(Option<TaskIx>, Timestamp)>,
    open: u64,
}

#[derive(Clone, Debug, Default)]
struct DagTally {
    totals: Totals,
    first_run: Option<Timestamp>,
    last_run: Option<Timestamp>,
    over: u64,
    total: i128,
    longest: i64,
    longest_run: Option<Timestamp>,
    running: u32,
    peak_running: u32,
    waits: Vec<(Cause, Waits)>,
    timed_out_runs: u64,
    first_timed_out_run: Option<Timestamp>,
    /// By task: tries that passed their execution_timeout, and the run of the first of them.
    timed_out_tries: BTreeMap<TaskIx, (u64, Timestamp)>,
    /// By the place of the deadline in the DAG's list, 0 for `expect_by`: how often it was missed, and the first instant of those.
    missed: BTreeMap<u32, (u64, Timestamp)>,
    has_past: bool,
}

/// See the module's text.
pub(super) struct Tally {
    /// The instant up to which all is counted, in microseconds.
    at: i64,
    dags: Vec<DagTally>,
    /// By [`RunIx`], by [`Slot`]: what the instance began to wait for.
    causes: Vec<Vec<Cause>>,
    /// Began to wait at this instant.
    waiting: Vec<(RunIx, Slot)>,
    /// DAGs of which a run began at this instant.
    started: Vec<DagIx>,
    gauges: Gauges,
    /// What the gauges were moved by, if it is asked for.
    steps: Option<Vec<Step>>,
    /// An instance has waited for a limit.
    has_waited: bool,
    canvas: Canvas,
}

/// All that was counted of a world that has come to its end.
pub(super) struct Counted {
    /// In the order of the subjects, with the next run of each.
    dags: Vec<(DagTally, Option<NextRun>)>,
    pub(super) gauges: Gauges,
    canvas: Canvas,
}

impl Tally {
    /// A deadline was missed.
    pub(super) fn missed(&mut self, ix: DagIx, row: &DeadlineRow) {
        let (count, _) = self.dags[ix.0 as usize].missed.entry(row.number).or_insert((0, row.at));
        *count += 1;
    }

    /// Of a world that knows the DAGs `subjects`.
    pub(super) fn new(plan: &Plan, subjects: &[Subject], world: &World) -> Self {
        let gauges = Gauges::new(plan, world.limits());
        let has_past = |subject: &Subject| subject.dag.tasks.iter().any(|task| task.depends_on_past);
        let dags = subjects.iter().map(|subject| DagTally { has_past: has_past(subject), ..DagTally::default() });
        Self {
            at: plan.from.as_microsecond(),
            dags: dags.collect(),
            causes: Vec::new(),
            waiting: Vec::new(),
            started: Vec::new(),
            canvas: Canvas::new(plan, gauges.len()),
            gauges,
            steps: None,
            has_waited: false,
        }
    }

    pub(super) fn into_gauges(self) -> Gauges {
        self.gauges
    }

    /// Keeps from now on what the gauges are moved by.
    pub(super) fn record_steps(&mut self) {
        self.steps = Some(Vec::new());
    }

    /// Moves the steps that were recorded into `into`, in order.
    pub(super) fn give_steps(&mut self, into: &mut Vec<Step>) {
        into.extend(self.steps.iter_mut().flat_map(|steps| steps.drain(..)));
    }

    /// An instance has waited for a limit so far.
    pub(super) fn has_waited(&self) -> bool {
        self.has_waited
    }

    /// Time passes up to `at`, with everything as it is.
    pub(super) fn pass_to(&mut self, at: i64) {
        self.gauges.pass(at - self.at);
        self.canvas.hold(self.at, at, self.gauges.held());
        self.at = at;
    }

    /// All that happens at this instant has happened.
    pub(super) fn close_instant(&mut self, at: i64, world: &World) {
        self.at = at;
        self.gauges.read(at, world.limits(), self.steps.as_mut());
        for (run, slot) in self.waiting.drain(..) {
            if let Some(reason) = world.why_not_started(run, slot) {
                self.has_waited = true;
                let causes = &mut self.causes[run.index()];
                if causes.len() <= slot.0 as usize {
                    causes.resize(slot.0 as usize + 1, Cause::UNKNOWN);
                }
                causes[slot.0 as usize] = Cause::of(reason);
            }
        }
        self.started.sort_unstable();
        let mut started = std::mem::take(&mut self.started);
        for group in started.chunk_by(|a, b| a == b) {
            let dag = &mut self.dags[group[0].0 as usize];
            let begun = group.len() as u64;
            let others = u64::from(dag.running).saturating_sub(begun);
            // A run that was over as soon as it began overlaps none.
            let begun = begun.min(dag.running.into());
            dag.totals.overlaps += if others > 0 { begun } else { begun.saturating_sub(1) };
            dag.peak_running = dag.peak_running.max(dag.running);
        }
        started.clear();
        self.started = started;
    }

    pub(super) fn run(&mut self, ix: RunIx, run: &Run, prior: Option<RunState>) {
        let dag = &mut self.dags[run.dag.0 as usize];
        let row = &run.row;
        if prior.is_none() {
            dag.totals.runs += 1;
            dag.first_run = Some(dag.first_run.map_or(row.run_after, |first| first.min(row.run_after)));
            dag.last_run = dag.last_run.max(Some(row.run_after));
            if self.causes.len() <= ix.index() {
                self.causes.resize(ix.index() + 1, Vec::new());
            }
            self.causes[ix.index()].clear();
        }
        let has_begun = |state: Option<RunState>| state.is_some_and(|state| state != RunState::Queued);
        if let (true, false, Some(started)) = (has_begun(Some(row.state)), has_begun(prior), row.start_date) {
            let late = micros_between(row.run_after, started);
            dag.wait(Cause::MAX_ACTIVE_RUNS, late, None, row.run_after);
            if row.state == RunState::Running {
                dag.running += 1;
                self.started.push(run.dag);
            }
        }
        if row.state.is_finished() && !prior.is_some_and(RunState::is_finished) {
            dag.running -= u32::from(prior == Some(RunState::Running));
            dag.end_run(run);
            if prior == Some(RunState::Running)
                && row.start_date == row.end_date
                && let Some(at) = self.started.iter().rposition(|dag| *dag == run.dag)
            {
                // It counts the same whether a turn ended between its start and its end or not.
                self.started.swap_remove(at);
            }
            if let (Some(started), Some(ended)) = (row.start_date, row.end_date) {
                self.canvas.bar(run.dag.0 as usize, started, ended, row.state == RunState::Success);
            }
        }
    }

    pub(super) fn instance(&mut self, ix: RunIx, slot: Slot, run: &Run, prior: Option<TaskState>) {
        let entry = run.entry(slot);
        let row = &entry.row;
        let dag = &mut self.dags[run.dag.0 as usize];
        if prior.is_none() {
            dag.totals.instances += 1;
        }
        let Some(task) = run.task_of(slot) else { return };
        if dag.has_past && row.try_number == 1 && matches!(prior, None | Some(TaskState::None)) {
            let waited = past_wait(run, slot, task);
            dag.wait(Cause::DEPENDS_ON_PAST, waited, Some(task), run.row.run_after);
        }
        match row.state {
            TaskState::Scheduled => {
                self.waiting.push((ix, slot));
                return;
            }
            TaskState::Queued => dag.totals.retries += u64::from(row.try_number > 1),
            TaskState::Success => dag.totals.succeeded_instances += 1,
            TaskState::Failed => dag.totals.failed_instances += 1,
            state if state.is_finished() => dag.totals.unrun_instances += 1,
            _ => {}
        }
        if row.reason.as_deref() == Some("timed_out") && matches!(row.state, TaskState::Failed | TaskState::UpForRetry)
        {
            let (count, first) = dag.timed_out_tries.entry(task).or_insert((0, run.row.run_after));
            *count += 1;
            *first = run.row.run_after.min(*first);
        }
        if prior == Some(TaskState::Scheduled)
            && let Some(scheduled) = row.scheduled_at
        {
            let waited = self.at - scheduled.as_microsecond();
            if waited > 0 {
                let cause = self.causes[ix.index()].get(slot.0 as usize).copied().unwrap_or_default();
                dag.wait(cause, waited, Some(task), run.row.run_after);
            }
        }
    }
}

/// How long the instance waited for the run before, when everything else was ready.
fn past_wait(run: &Run, slot: Slot, task: TaskIx) -> i64 {
    let (Some(definition), Some(scheduled)) = (&run.definition, run.entry(slot).row.scheduled_at) else { return 0 };
    if !definition.dag.task(task).depends_on_past {
        return 0;
    }
    let upstream = definition.dag.graph.upstream(task);
    let ends = run.instances.iter().enumerate().filter_map(|(at, entry)| {
        let task = run.task_of(Slot(at as u32))?;
        entry.row.end_date.filter(|_| upstream.contains(&task))
    });
    ends.chain(run.row.start_date).max().map_or(0, |ready| micros_between(ready, scheduled))
}

fn micros_between(from: Timestamp, to: Timestamp) -> i64 {
    to.as_microsecond() - from.as_microsecond()
}

impl DagTally {
    /// Counts a wait, if there was one.
    fn wait(&mut self, cause: Cause, waited: i64, task: Option<TaskIx>, run_after: Timestamp) {
        if waited <= 0 {
            return;
        }
        let at = self.waits.iter().position(|(known, _)| *known == cause).unwrap_or_else(|| {
            self.waits.push((cause, Waits::default()));
            self.waits.len() - 1
        });
        let waits = &mut self.waits[at].1;
        waits.count += 1;
        waits.total += i128::from(waited);
        // Of waits as long as each other that of the earliest run, in whichever order they end.
        let is_earlier = || waits.longest_of.is_some_and(|(of, run)| (run_after, task) < (run, of));
        if waited > waits.longest || waited == waits.longest && is_earlier() {
            waits.longest = waited;
            waits.longest_of = Some((task, run_after));
        }
    }

    fn end_run(&mut self, run: &Run) {
        let row = &run.row;
        if row.state == RunState::Success {
            self.totals.succeeded_runs += 1;
        } else {
            self.totals.failed_runs += 1;
        }
        if row.reason.as_deref() == Some("timed_out") {
            self.timed_out_runs += 1;
            let first = self.first_timed_out_run.get_or_insert(row.run_after);
            *first = row.run_after.min(*first);
        }
        if let (Some(started), Some(ended)) = (row.start_date, row.end_date) {
            let lasted = micros_between(started, ended);
            self.over += 1;
            self.total += i128::from(lasted);
            let is_earlier = lasted == self.longest && Some(row.run_after) < self.longest_run;
            if self.longest_run.is_none() || lasted > self.longest || is_earlier {
                self.longest = lasted;
                self.longest_run = Some(row.run_after);
            }
        }
    }
}

impl Tally {
    /// What has been counted, with what still waits or runs at `until`.
    pub(super) fn finish(mut self, world: &World, until: Timestamp) -> Counted {
        self.count_unfinished(world, until);
        let next = |at: usize| world.dag(DagIx(at as u32)).record.next_run;
        let dags = self.dags.into_iter().enumerate().map(|(at, dag)| (dag, next(at))).collect();
        Counted { dags, gauges: self.gauges, canvas: self.canvas }
    }

    /// Runs and instances that are not over wait until the end.
    fn count_unfinished(&mut self, world: &World, until: Timestamp) {
        for at in 0..self.dags.len() {
            for &(run_after, ix) in &world.dag(DagIx(at as u32)).runs {
                let run = world.run(ix);
                let dag = &mut self.dags[at];
                dag.totals.unfinished_runs += 1;
                match run.row.start_date {
                    None => dag.wait_open(Cause::MAX_ACTIVE_RUNS, run_after, until, None, run_after),
                    Some(started) => self.canvas.bar(at, started, until, true),
                }
                for slot in (0..run.instances.len() as u32).map(Slot) {
                    let row = &run.entry(slot).row;
                    if let (TaskState::Scheduled, Some(since), Some(task)) =
                        (row.state, row.scheduled_at, run.task_of(slot))
                    {
                        let cause = world.why_not_started(ix, slot).map_or(Cause::UNKNOWN, Cause::of);
                        self.dags[at].wait_open(cause, since, until, Some(task), run_after);
                    }
                }
            }
        }
    }
}

impl Counted {
    /// Puts the DAGs of another world after those of this one.
    pub(super) fn append(mut self, other: Self) -> Self {
        self.dags.extend(other.dags);
        self
    }

    /// Of all that happened before `until`.
    pub(super) fn into_report(self, plan: &Plan, until: Timestamp) -> Report {
        let dags: Vec<DagReport> = self
            .dags
            .iter()
            .zip(&plan.subjects)
            .map(|((dag, next_run), subject)| dag.report(subject, *next_run, until))
            .collect();
        let mut totals = Totals::default();
        for dag in &dags {
            totals.add(&dag.totals);
        }
        let deadlines =
            self.dags.iter().zip(&plan.subjects).flat_map(|((dag, _), subject)| dag.deadlines(subject)).collect();
        Report {
            from: plan.from,
            until,
            seed: plan.seed,
            parallelism: plan.parallelism,
            totals,
            dags,
            limits: self.limits(plan, until.as_microsecond() - plan.from.as_microsecond()),
            transitions: slots::transitions(plan, until),
            deadlines,
            picture: self.canvas.into_picture(),
        }
    }

    fn limits(&self, plan: &Plan, span: i64) -> Vec<LimitReport> {
        let shared = |kind, cause, gauge: &Gauge| {
            let capacity = gauge.size.map(|size| i128::from(size) * i128::from(span)).filter(|&capacity| capacity > 0);
            LimitReport {
                kind,
                size: gauge.size,
                peak: Some(gauge.peak),
                full_for: gauge.size.map(|_| duration(gauge.full_for.into())),
                utilisation: capacity.map(|capacity| gauge.busy as f64 / capacity as f64),
                ..self.waits_for(plan, cause)
            }
        };
        let mut limits = vec![shared(LimitKind::Parallelism, Cause::PARALLELISM, &self.gauges.parallelism)];
        for (pool, gauge) in &self.gauges.pools {
            limits.push(shared(LimitKind::Pool(pool.name.clone()), Cause::pool(pool.ix), gauge));
        }
        for (kind, cause) in [
            (LimitKind::MaxActiveTasks, Cause::MAX_ACTIVE_TASKS),
            (LimitKind::MaxActiveTisPerDag, Cause::MAX_ACTIVE_TIS_PER_DAG),
            (LimitKind::MaxActiveTisPerDagrun, Cause::MAX_ACTIVE_TIS_PER_DAGRUN),
            (LimitKind::MaxActiveRuns, Cause::MAX_ACTIVE_RUNS),
            (LimitKind::DependsOnPast, Cause::DEPENDS_ON_PAST),
        ] {
            limits.push(LimitReport { kind, ..self.waits_for(plan, cause) });
        }
        limits
    }

    fn waits_for(&self, plan: &Plan, cause: Cause) -> LimitReport {
        let mut by_dag = Vec::new();
        let mut sum = Waits::default();
        let mut longest_of = None;
        for ((dag, _), subject) in self.dags.iter().zip(&plan.subjects) {
            for (_, waits) in dag.waits.iter().filter(|(known, _)| *known == cause) {
                let report = waits.report(subject);
                if waits.longest > sum.longest {
                    sum.longest = waits.longest;
                    longest_of = report.longest_of.clone();
                }
                sum.count += waits.count;
                sum.total += waits.total;
                sum.open += waits.open;
                by_dag.push((subject.dag.dag_id.clone(), report));
            }
        }
        let waits = WaitReport {
            count: sum.count,
            total: duration(sum.total),
            longest: duration(sum.longest.into()),
            longest_of,
            open: sum.open,
        };
        LimitReport {
            kind: LimitKind::Parallelism,
            size: None,
            peak: None,
            full_for: None,
            utilisation: None,
            waits,
            by_dag,
        }
    }
}

impl DagTally {
    fn wait_open(
        &mut self,
        cause: Cause,
        since: Timestamp,
        until: Timestamp,
        task: Option<TaskIx>,
        run_after: Timestamp,
    ) {
        let waited = micros_between(since, until);
        self.wait(cause, waited, task, run_after);
        if let Some((_, waits)) = self.waits.iter_mut().find(|(known, _)| *known == cause && waited > 0) {
            waits.open += 1;
        }
    }

    fn report(&self, subject: &Subject, next: Option<NextRun>, until: Timestamp) -> DagReport {
        let mean = (self.over > 0).then(|| duration(self.total / i128::from(self.over)));
        DagReport {
            dag_id: subject.dag.dag_id.clone(),
            totals: self.totals,
            first_run: self.first_run,
            last_run: self.last_run,
            mean,
            longest: mean.map(|_| duration(self.longest.into())),
            longest_run: self.longest_run,
            peak_running: self.peak_running,
            behind: next.filter(|next| next.run_after < until).map(|next| Behind { since: next.run_after }),
        }
    }

    fn deadlines(&self, subject: &Subject) -> Vec<Deadline> {
        let dag = &subject.dag;
        let of_runs = dag.dagrun_timeout.zip(self.first_timed_out_run).map(|(limit, first)| Deadline {
            kind: DeadlineKind::DagrunTimeout,
            dag_id: dag.dag_id.clone(),
            task_id: None,
            limit,
            count: self.timed_out_runs,
            first,
        });
        let of_tries = self.timed_out_tries.iter().map(|(&task, &(count, first))| Deadline {
            kind: DeadlineKind::ExecutionTimeout,
            dag_id: dag.dag_id.clone(),
            task_id: Some(dag.task(task).task_id.clone()),
            limit: dag.task(task).execution_timeout.unwrap_or_default(),
            count,
            first,
        });
        let of_rows = self.missed.iter().map(|(&number, &(count, first))| {
            let spec = (number as usize).checked_sub(1).and_then(|at| dag.deadlines.get(at));
            let time = dag.expect_by.map(|time| time.duration_since(jiff::civil::Time::midnight()).unsigned_abs());
            Deadline {
                kind: if number == 0 { DeadlineKind::ExpectBy } else { DeadlineKind::Deadline },
                dag_id: dag.dag_id.clone(),
                task_id: None,
                limit: spec.map(|spec| spec.interval).or(time).unwrap_or_default(),
                count,
                first,
            }
        });
        of_runs.into_iter().chain(of_tries).chain(of_rows).collect()
    }
}

impl Waits {
    fn report(&self, subject: &Subject) -> WaitReport {
        let dag = &subject.dag;
        WaitReport {
            count: self.count,
            total: duration(self.total),
            longest: duration(self.longest.into()),
            longest_of: self.longest_of.map(|(task, run_after)| {
                (dag.dag_id.clone(), task.map(|task| dag.task(task).task_id.clone()), run_after)
            }),
            open: self.open,
        }
    }
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.succeeded_runs += other.succeeded_runs;
        self.failed_runs += other.failed_runs;
        self.unfinished_runs += other.unfinished_runs;
        self.instances += other.instances;
        self.succeeded_instances += other.succeeded_instances;
        self.failed_instances += other.failed_instances;
        self.unrun_instances += other.unrun_instances;
        self.retries += other.retries;
        self.overlaps += other.overlaps;
    }
}

fn duration(micros: i128) -> Duration {
    Duration::from_micros(u64::try_from(micros.max(0)).unwrap_or(u64::MAX))
}
