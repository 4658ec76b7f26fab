//! Random DAGs, and the dice that make them: the same number, the same DAG.

use super::story::{MAX_ACTIVE_RUNS, MAX_ACTIVE_TASKS};

/// All begin at [`super::story::START`].
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
/// Those of which many let something run stand there more than once.
const RULES: [&str; 16] = [
    "all_success",
    "all_success",
    "all_success",
    "all_done",
    "all_done",
    "none_failed",
    "none_failed",
    "one_success",
    "one_success",
    "all_failed",
    "one_failed",
    "one_done",
    "none_failed_min_one_success",
    "none_skipped",
    "all_skipped",
    "all_done_min_one_success",
];
/// What tasks produce, by the places of their DAGs.
const ASSETS: [&str; 3] = ["a0", "a1", "a2"];
/// By the place of a DAG, what its runs may wait for: what DAGs before it produce, so that no DAG starts itself for ever.
const EXPRESSIONS: [&[&str]; 3] = [&[], &["a0"], &["a0", "a1", "a0 & a1", "a0 | a1"]];
const CALLED: &str = "[{ bash = \"true\" }]";
const HOOKS: [&str; 5] = ["on_execute", "on_success", "on_failure", "on_retry", "on_skipped"];
/// The variables that the groups and a task in them are mapped by.
const VARIABLES: [&str; 3] = ["x", "y", "z"];
/// Where tasks stand by how many groups are around them.
const TABLES: [&str; 3] = ["tasks", "groups.g.tasks", "groups.g.groups.h.tasks"];
const PREFIXES: [&str; 3] = ["", "g.", "g.h."];

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

/// What a task or a group is mapped over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// So many elements stand in the file.
    Literal(usize),
    /// What this task gives, which is upstream.
    Pushed(usize),
}

/// A task of a random DAG; its upstream tasks stand before it.
pub(super) struct RandomTask {
    /// How many groups are around it: none, `g`, or `h` inside that.
    pub depth: usize,
    pub mapped: Option<List>,
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

/// What a random DAG has to do with others, and whom it calls. It is rolled by dice of its own.
#[derive(Default)]
pub(super) struct Ties {
    /// What its runs wait for while it has no schedule.
    pub awaits: Option<&'static str>,
    /// By task, what it produces, of [`ASSETS`].
    pub outlets: Vec<Vec<&'static str>>,
    /// The hooks of its tasks that call somebody.
    pub hooks: Vec<&'static str>,
    /// Its runs' ends call somebody.
    pub calls_at_ends: bool,
}

impl Ties {
    /// Of the DAG at this place, which produces the asset at the same one.
    pub fn roll(dice: &mut Dice, at: usize, tasks: usize) -> Self {
        let (has_hooks, awaited) = (dice.one_in(3), EXPRESSIONS[at]);
        Self {
            awaits: (!awaited.is_empty()).then(|| awaited[dice.below(awaited.len())]),
            outlets: (0..tasks).map(|_| Vec::from_iter(dice.one_in(2).then_some(ASSETS[at]))).collect(),
            hooks: HOOKS.into_iter().filter(|_| has_hooks && dice.one_in(2)).collect(),
            calls_at_ends: dice.one_in(3),
        }
    }
}

/// What bounds and orders the tasks of a random DAG, beside pools and runs. It is rolled by dice of its own.
#[derive(Default)]
pub(super) struct Wishes {
    /// By task: slots of its pool.
    pub slots: Vec<usize>,
    /// By task, in all runs and in one; 0: no limit.
    pub limits: Vec<(usize, usize)>,
    /// By task, bytes of memory.
    pub needs: Vec<usize>,
    pub by_path: bool,
    weights: Vec<usize>,
}

impl Wishes {
    pub fn roll(dice: &mut Dice, tasks: usize) -> Self {
        Self {
            slots: (0..tasks).map(|_| 1 + usize::from(dice.one_in(4))).collect(),
            limits: (0..tasks).map(|_| [(0, 0), (0, 0), (1, 0), (2, 0), (0, 1), (2, 1)][dice.below(6)]).collect(),
            needs: (0..tasks).map(|_| [0, 0, 0, 1, 2, 3][dice.below(6)]).collect(),
            by_path: dice.one_in(3),
            weights: (0..tasks).map(|_| 1 + dice.below(3)).collect(),
        }
    }

    fn text(&self, task: usize) -> String {
        let Some(&(in_all, in_one)) = self.limits.get(task) else { return String::new() };
        let mut text = format!("priority_weight = {}\npool_slots = {}\n", self.weights[task], self.slots[task]);
        for (key, limit) in [("max_active_tis_per_dag", in_all), ("max_active_tis_per_dagrun", in_one)] {
            if limit > 0 {
                text.push_str(&format!("{key} = {limit}\n"));
            }
        }
        if self.needs[task] > 0 {
            text.push_str(&format!("needs = {{ memory = {} }}\n", self.needs[task]));
        }
        if self.by_path {
            text.push_str("weight_rule = \"critical_path\"\n");
        }
        text
    }
}

pub(super) struct RandomDag {
    pub ties: Ties,
    pub wishes: Wishes,
    pub schedule: Option<&'static str>,
    pub catchup: &'static str,
    pub tasks: Vec<RandomTask>,
    /// What `g`, and `h` inside it, are mapped over.
    pub groups: [Option<List>; 2],
    /// The ids of what is in groups begin with theirs.
    pub has_prefixes: bool,
    pub has_timeout: bool,
    /// Then all rules are those that it allows.
    pub fails_fast: bool,
}

impl RandomDag {
    pub fn roll(dice: &mut Dice) -> Self {
        let fails_fast = dice.one_in(6);
        let has_groups = dice.one_in(2);
        let tasks = (0..1 + dice.below(5)).map(|at| RandomTask {
            depth: if has_groups { dice.below(3) } else { 0 },
            mapped: None,
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
        let tasks: Vec<RandomTask> = tasks.collect();
        let schedule = dice.one_in(2).then(|| SCHEDULES[dice.below(SCHEDULES.len())]);
        let catchup = CATCHUPS[dice.below(CATCHUPS.len())];
        let (groups, has_prefixes) = ([None; 2], dice.one_in(2));
        let (has_timeout, ties, wishes) = (dice.one_in(4), Ties::default(), Wishes::default());
        let mut dag = Self { ties, wishes, schedule, catchup, tasks, groups, has_prefixes, has_timeout, fails_fast };
        if dice.one_in(2) {
            dag.map(dice);
        }
        if dag.tasks.len() > 2 && dice.one_in(3) {
            enclose(&mut dag.tasks);
        }
        for task in dag.tasks.iter_mut().filter(|_| fails_fast) {
            task.rule = "all_success";
        }
        dag
    }

    /// Maps some groups and tasks, and lets those whose lists they are come before them.
    fn map(&mut self, dice: &mut Dice) {
        for group in 0..2 {
            let inside: Vec<usize> = (0..self.tasks.len()).filter(|&at| self.tasks[at].depth > group).collect();
            let Some(&first) = inside.first() else { continue };
            let givers = (0..first).filter(|&giver| !self.shares_map(giver, group)).collect();
            self.groups[group] = random_list(dice, givers);
            let Some(List::Pushed(giver)) = self.groups[group] else { continue };
            let is_root = |at: &usize| self.tasks[*at].upstream.iter().all(|up| self.tasks[*up].depth <= group);
            for root in inside.iter().copied().filter(is_root).collect::<Vec<_>>() {
                self.follow(giver, root);
            }
        }
        for at in 0..self.tasks.len() {
            let depth = self.tasks[at].depth;
            let givers = (0..at).filter(|&giver| !self.shares_map(giver, depth)).collect();
            self.tasks[at].mapped = random_list(dice, givers);
            if let Some(List::Pushed(giver)) = self.tasks[at].mapped {
                self.follow(giver, at);
            }
        }
    }

    /// Whether a mapped group holds the task and what has `depth` groups around it.
    fn shares_map(&self, task: usize, depth: usize) -> bool {
        self.groups[..depth.min(self.tasks[task].depth)].iter().any(Option::is_some)
    }

    fn follow(&mut self, giver: usize, task: usize) {
        let upstream = &mut self.tasks[task].upstream;
        if !upstream.contains(&giver) {
            upstream.push(giver);
            upstream.sort_unstable();
        }
    }

    /// Changes lists that stand in the file, maps what was not mapped, and takes maps away. No arrow changes.
    pub fn remap(&mut self, dice: &mut Dice) {
        for group in 0..2 {
            self.groups[group] = changed_list(dice, self.groups[group], Vec::new());
        }
        for at in 0..self.tasks.len() {
            let depth = self.tasks[at].depth;
            let upstream = self.tasks[at].upstream.iter().copied();
            let givers = upstream.filter(|&giver| !self.shares_map(giver, depth)).collect();
            self.tasks[at].mapped = changed_list(dice, self.tasks[at].mapped, givers);
        }
        // In the same mapped group each copy would get another list, which is refused.
        let is_refused = |list, depth| matches!(list, Some(List::Pushed(giver)) if self.shares_map(giver, depth));
        let refused: Vec<bool> = self.tasks.iter().map(|task| is_refused(task.mapped, task.depth)).collect();
        if is_refused(self.groups[1], 1) {
            self.groups[1] = None;
        }
        for (task, _) in self.tasks.iter_mut().zip(refused).filter(|(_, is_refused)| *is_refused) {
            task.mapped = None;
        }
    }

    /// What multiplies a task, outermost first.
    pub fn lists(&self, task: usize) -> Vec<(usize, List)> {
        let task_list = self.tasks[task].mapped.map(|list| (2 + task, list));
        let groups = self.groups[..self.tasks[task].depth].iter().enumerate();
        groups.filter_map(|(at, list)| Some((at, (*list)?))).chain(task_list).collect()
    }

    pub fn id(&self, task: usize) -> String {
        let depth = if self.has_prefixes { self.tasks[task].depth } else { 0 };
        format!("{}t{task}", PREFIXES[depth])
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
        if let (None, Some(assets), true) = (self.schedule, self.ties.awaits, whole) {
            text.push_str(&format!("schedule = {{ assets = \"{assets}\" }}\n"));
        }
        if self.has_timeout {
            text.push_str("dagrun_timeout = \"5m\"\n");
        }
        text.push_str(&format!("fail_fast = {}\n", self.fails_fast));
        if self.ties.calls_at_ends {
            text.push_str(&["on_success", "on_failure"].map(|hook| format!("{hook} = {CALLED}\n")).concat());
        }
        text.push_str("[default_args]\n");
        for hook in &self.ties.hooks {
            text.push_str(&format!("{hook} = {CALLED}\n"));
        }
        for (group, name) in ["groups.g", "groups.g.groups.h"].into_iter().enumerate() {
            if self.tasks.iter().zip(present).any(|(task, is_present)| *is_present && task.depth > group) {
                let expand = self.expand(self.groups[group], group, present);
                text.push_str(&format!("[{name}]\nprefix_group_id = {}\n{expand}", self.has_prefixes));
            }
        }
        for (at, task) in self.tasks.iter().enumerate().filter(|(at, _)| present[*at]) {
            let upstream: Vec<String> = task
                .upstream
                .iter()
                .filter(|up| present[**up] && task.teardown_of != Some(**up))
                .map(|up| format!("\"{}\"", self.id(*up)))
                .collect();
            let operator = if task.is_empty { "empty = true" } else { "bash = \"true\"" };
            let made: Vec<&str> = self.ties.outlets.get(at).into_iter().flatten().copied().collect();
            let pool = if task.is_narrow { "pool = \"narrow\"\n" } else { "" };
            text.push_str(&format!(
                "[{}.t{at}]\n{operator}\n{}{}depends_on = [{}]\n{}retries = {}\nretry_delay = \"20s\"\ndepends_on_past = {}\nwait_for_downstream = {}\noutlets = {made:?}\n{pool}",
                TABLES[task.depth],
                if task.is_empty { String::new() } else { self.wishes.text(at) },
                self.expand(task.mapped, 2, present),
                upstream.join(", "),
                self.role(at, present),
                task.retries,
                whole && task.depends_on_past,
                whole && task.waits_for_downstream,
            ));
        }
        text
    }

    /// Who gave the list may be gone: then it stands in the file.
    fn expand(&self, list: Option<List>, variable: usize, present: &[bool]) -> String {
        let input = match list {
            None => return String::new(),
            Some(List::Pushed(giver)) if present[giver] => format!("{{ xcom = \"{}\" }}", self.id(giver)),
            Some(List::Pushed(_)) => "[1, 2]".to_owned(),
            Some(List::Literal(count)) => format!("{:?}", (0..count).collect::<Vec<_>>()),
        };
        format!("expand = {{ {} = {input} }}\n", VARIABLES[variable])
    }

    /// The rule of a task, and what it is to a setup or a teardown.
    fn role(&self, task: usize, present: &[bool]) -> String {
        let task = &self.tasks[task];
        match task.teardown_of.filter(|setup| present[*setup]) {
            Some(setup) => format!("teardown_of = [\"{}\"]\n", self.id(setup)),
            None => format!("trigger_rule = \"{}\"\nsetup = {}\n", task.rule, task.is_setup),
        }
    }
}

/// The number of a task, by its id.
pub(super) fn number_of(task_id: &str) -> usize {
    let name = task_id.rsplit('.').next().and_then(|name| name.strip_prefix('t'));
    name.and_then(|number| number.parse().ok()).expect("tasks are numbered")
}

fn random_list(dice: &mut Dice, givers: Vec<usize>) -> Option<List> {
    match dice.below(4) {
        0 => Some(List::Literal(dice.below(4))),
        1 if !givers.is_empty() => Some(List::Pushed(givers[dice.below(givers.len())])),
        _ => None,
    }
}

fn changed_list(dice: &mut Dice, list: Option<List>, givers: Vec<usize>) -> Option<List> {
    match list {
        _ if dice.one_in(4) => random_list(dice, givers),
        Some(List::Literal(_)) => Some(List::Literal(dice.below(5))),
        list => list,
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
