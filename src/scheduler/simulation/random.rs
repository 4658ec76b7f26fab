//! Random DAGs, and the dice that make them: the same number, the same DAG.

use super::property::{MAX_ACTIVE_RUNS, MAX_ACTIVE_TASKS};

/// All begin at [`super::property::START`].
pub(super) const SCHEDULES: [&str; 6] = [
    "schedule = \"*/10 * * * *\"\n",
    "schedule = \"*/10 * * * *\"\ndata_interval = true\n",
    "schedule = { every = \"7m\" }\n",
    "schedule = { crons = [\"*/15 * * * *\", \"5 * * * *\"] }\n",
    "schedule = { events = [2026-11-21T12:40:00, 2026-11-21T12:41:00, 2026-11-21T13:30:00] }\n",
    CONTINUOUS,
];
/// It allows one run at a time.
pub(super) const CONTINUOUS: &str = "schedule = \"@continuous\"\n";
pub(super) const CATCHUPS: [&str; 3] = ["catchup = true\n", "catchup = false\n", "catchup = \"window:30m\"\n"];
const RULES: [&str; 4] = ["all_success", "all_done", "none_failed", "one_success"];

/// SplitMix64.
pub(super) struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }

    pub fn one_in(&mut self, sides: usize) -> bool {
        self.below(sides) == 0
    }
}

/// A task of a random DAG; its upstream tasks stand before it.
pub(super) struct RandomTask {
    pub upstream: Vec<usize>,
    pub rule: &'static str,
    pub retries: usize,
    pub is_narrow: bool,
    pub is_empty: bool,
    pub depends_on_past: bool,
    pub waits_for_downstream: bool,
    /// Its successes may decide which of those right after it run.
    pub decides: bool,
    pub is_setup: bool,
    /// It tears down this one, which is among its upstream tasks.
    pub teardown_of: Option<usize>,
}

pub(super) struct RandomDag {
    pub schedule: Option<&'static str>,
    pub catchup: &'static str,
    pub tasks: Vec<RandomTask>,
    pub has_timeout: bool,
    /// Then all rules are those that it allows.
    pub fails_fast: bool,
}

impl RandomDag {
    pub fn roll(dice: &mut Dice) -> Self {
        let fails_fast = dice.one_in(6);
        let tasks = (0..1 + dice.below(5)).map(|at| RandomTask {
            upstream: (0..at).filter(|_| dice.one_in(2)).collect(),
            rule: RULES[dice.below(RULES.len())],
            retries: dice.below(3),
            is_narrow: dice.one_in(3),
            is_empty: dice.one_in(5),
            depends_on_past: dice.one_in(4),
            waits_for_downstream: dice.one_in(8),
            decides: dice.one_in(4),
            is_setup: false,
            teardown_of: None,
        });
        let mut tasks: Vec<RandomTask> = tasks.collect();
        if tasks.len() > 2 && dice.one_in(3) {
            enclose(&mut tasks);
        }
        for task in tasks.iter_mut().filter(|_| fails_fast) {
            task.rule = "all_success";
        }
        let schedule = dice.one_in(2).then(|| SCHEDULES[dice.below(SCHEDULES.len())]);
        let catchup = CATCHUPS[dice.below(CATCHUPS.len())];
        Self { schedule, catchup, tasks, has_timeout: dice.one_in(4), fails_fast }
    }

    /// The file with the tasks of `present`. When it is not `whole`, it has neither a schedule nor tasks that wait for other runs.
    pub fn text(&self, present: &[bool], whole: bool, comment: usize) -> String {
        let max_active_runs = if self.schedule == Some(CONTINUOUS) { 1 } else { MAX_ACTIVE_RUNS };
        let mut text = format!(
            "description = \"{comment}\"\nmax_active_runs = {max_active_runs}\nmax_active_tasks = {MAX_ACTIVE_TASKS}\n"
        );
        if let (Some(schedule), true) = (self.schedule, whole) {
            text.push_str(&format!("{schedule}start_date = 2026-11-21T12:00:00\n{}", self.catchup));
        }
        if self.has_timeout {
            text.push_str("dagrun_timeout = \"5m\"\n");
        }
        text.push_str(&format!("fail_fast = {}\n", self.fails_fast));
        for (at, task) in self.tasks.iter().enumerate().filter(|(at, _)| present[*at]) {
            let upstream: Vec<String> = task
                .upstream
                .iter()
                .filter(|up| present[**up] && task.teardown_of != Some(**up))
                .map(|up| format!("\"t{up}\""))
                .collect();
            let operator = if task.is_empty { "empty = true" } else { "bash = \"true\"" };
            let pool = if task.is_narrow { "pool = \"narrow\"\n" } else { "" };
            text.push_str(&format!(
                "[tasks.t{at}]\n{operator}\ndepends_on = [{}]\n{}retries = {}\nretry_delay = \"20s\"\ndepends_on_past = {}\nwait_for_downstream = {}\n{pool}",
                upstream.join(", "),
                task.role(present),
                task.retries,
                whole && task.depends_on_past,
                whole && task.waits_for_downstream,
            ));
        }
        text
    }
}

/// Makes the first task a setup, and the last its teardown; all between come after it, and what comes right after it has the one rule
/// that is allowed there.
fn enclose(tasks: &mut [RandomTask]) {
    let last = tasks.len() - 1;
    for (at, task) in tasks.iter_mut().enumerate().skip(1) {
        if task.upstream.is_empty() || (at == last && !task.upstream.contains(&0)) {
            task.upstream.insert(0, 0);
        }
        if task.upstream.contains(&0) {
            task.rule = "all_success";
        }
    }
    for at in [0, last] {
        let task = &mut tasks[at];
        (task.rule, task.depends_on_past, task.waits_for_downstream) = ("all_success", false, false);
    }
    tasks[0].is_setup = true;
    tasks[last].teardown_of = Some(0);
}

impl RandomTask {
    /// Its rule, and what it is to a setup or a teardown.
    fn role(&self, present: &[bool]) -> String {
        match self.teardown_of.filter(|setup| present[*setup]) {
            Some(setup) => format!("teardown_of = [\"t{setup}\"]\n"),
            None => format!("trigger_rule = \"{}\"\nsetup = {}\n", self.rule, self.is_setup),
        }
    }
}
