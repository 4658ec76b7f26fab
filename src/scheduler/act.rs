//! Acts of users on runs: clears and marks (SEMANTICS 12), over one run or over years of them.
//!
//! Here is what an act means, as data and pure functions: which tasks ([`settle`]), which instances of a run ([`Act::selects`]).
//! `work` goes over the runs, a turn's worth at a time; `clear` and `mark` carry an act out in one run. What takes more than one turn
//! is kept in the database with the place that it has come to, and each turn commits both: after a crash a start goes on there. Many
//! runs are touched in the order of their run_after. A run of more instances than a turn moves is cleared in pieces, and held until the
//! last one: nothing of it is decided in between (`held`).

mod clear;
mod held;
mod mark;
mod marker;
mod note;
mod pause;
mod reset;
mod work;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::diagnostic::did_you_mean;
use crate::model::{Dag, DagId, Instance, InstanceKey, RunId, RunKey, TaskId, TaskIx, TaskState};
use crate::scheduler::command::{Chosen, Command, CommandError, Only, Reply, Spread, Touched};
use crate::scheduler::decide::PIECE_ROWS;
use crate::scheduler::port::ReplyTo;
use crate::scheduler::subset::{self, Reach};
use marker::Beyond;

/// An act that is under way. It is also what the database keeps of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Act {
    dag_id: DagId,
    deed: Deed,
    /// In an order in which they can run.
    tasks: Vec<TaskId>,
    /// Of these among them only the instance of this map index.
    narrowed: Option<(BTreeSet<TaskId>, i32)>,
    only: Only,
    runs: Runs,
    /// What was asked for, as the audit log shows it.
    asked: Value,
    tally: Tally,
    /// The run that it is in the midst of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    within: Option<Within>,
    /// The other DAGs that it reaches.
    #[serde(default)]
    beyond: Beyond,
}

/// A run that is cleared in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Within {
    run: RunKey,
    /// The last instance of the pieces before.
    after: InstanceKey,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Deed {
    Clear,
    /// Only tells what a clear would touch.
    Look,
    Mark(Mark),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Mark {
    state: TaskState,
    /// Of these, what has failed is cleared: it comes after what is marked.
    below: Vec<TaskId>,
}

/// Which runs are left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Runs {
    One(RunId),
    /// By (run_after, key), behind `after`, none younger than `until`.
    Range {
        after: Option<(Timestamp, RunKey)>,
        until: RunKey,
        /// Inclusive bounds of the logical dates.
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    },
}

/// How far it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Tally {
    /// Runs that were looked at, and their instances that are meant whatever their state.
    runs_seen: u32,
    instances_seen: u32,
    runs: u32,
    instances: u32,
    /// By a mark.
    cleared: u32,
}

/// The acts that are not over, in the order in which they have their turns. Of those on one DAG the oldest comes first.
#[derive(Debug)]
pub(super) struct Acts {
    pending: Vec<Pending>,
    next_key: i64,
    /// The next turn is to come without waiting for an event.
    has_more: bool,
    /// What has been read so far of runs that are over and have more instances than a turn reads.
    read: BTreeMap<RunKey, Vec<Instance>>,
    /// Ends of runs that are held, with who waits for them.
    late: Vec<(Command, ReplyTo<Reply>)>,
    /// How many instances of one run a turn clears, and reads.
    bounds: Bounds,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub cleared: usize,
    pub read: usize,
}

impl Default for Acts {
    fn default() -> Self {
        // A cleared instance is two rows: its own, and that of its try.
        let bounds = Bounds { cleared: PIECE_ROWS / 2, read: 4 * PIECE_ROWS };
        let (pending, late, read) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { pending, next_key: 0, has_more: false, read, late, bounds }
    }
}

#[derive(Debug)]
struct Pending {
    key: i64,
    act: Act,
    /// It is in the database.
    is_kept: bool,
    touched: Vec<Touched>,
    /// How many of these are of earlier runs.
    touched_before: usize,
    reply: Option<ReplyTo<Reply>>,
}

impl Acts {
    pub(super) fn has_more(&self) -> bool {
        self.has_more
    }

    /// An act is in the midst of the run: until it leaves it nothing of it is decided.
    pub(super) fn holds(&self, run: RunKey) -> bool {
        self.pending.iter().any(|pending| pending.act.within.is_some_and(|within| within.run == run))
    }

    /// The rows of a run that is over have changed: what was read of them so far is read again.
    pub(super) fn forget_read(&mut self, run: RunKey) {
        self.read.remove(&run);
    }

    /// Smaller ones, so that small runs are cleared in pieces too.
    #[cfg(test)]
    pub(super) fn set_bounds(&mut self, cleared: usize, read: usize) {
        self.bounds = Bounds { cleared, read };
    }

    /// Something that was asked for is not over.
    pub(super) fn is_at_work(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Goes on with what an earlier minflow left; a body that cannot be read is another version's, and is named and left alone.
    pub(super) fn load(&mut self, found: Vec<(i64, Value)>) {
        self.next_key = found.iter().map(|(key, _)| key.saturating_add(1)).max().unwrap_or(1);
        let acts = found.into_iter().filter_map(|(key, body)| {
            let read = serde_json::from_value(body);
            let told =
                |error| log::error!("act {key}: {error}; what was asked for is not gone on with: ask for it again");
            Some((key, read.map_err(told).ok()?))
        });
        let pending =
            |(key, act)| Pending { key, act, is_kept: true, touched: Vec::new(), touched_before: 0, reply: None };
        self.pending = acts.map(pending).collect();
    }
}

impl Act {
    /// Whether it means this instance, whatever its state.
    fn covers(&self, instance: &Instance, tasks: &BTreeSet<&TaskId>) -> bool {
        let is_narrowed_out = self
            .narrowed
            .as_ref()
            .is_some_and(|(chosen, index)| instance.map_index != *index && chosen.contains(&instance.task_id));
        tasks.contains(&instance.task_id) && !is_narrowed_out
    }

    /// Whether it touches an instance that it covers in this state. A clear leaves alone what has nothing to be cleared of, and what
    /// is no longer part of its run.
    fn selects(&self, state: TaskState) -> bool {
        match &self.deed {
            Deed::Mark(mark) => state != mark.state && state != TaskState::Removed,
            Deed::Clear | Deed::Look => {
                let Only { failed, running } = self.only;
                let is_meant = (!failed && !running)
                    || (failed && state.is_failed_like())
                    || (running && state == TaskState::Running);
                is_meant && !matches!(state, TaskState::None | TaskState::Removed | TaskState::Restarting)
            }
        }
    }
}

/// The tasks that an act is about.
struct Settled {
    /// In an order in which they can run.
    tasks: Vec<TaskId>,
    /// Those that were chosen, without what comes along.
    chosen: BTreeSet<TaskIx>,
}

/// Chooses tasks, and adds what comes along.
///
/// # Errors
/// A name that the DAG does not have, a pattern that does not hold or that no task matches.
fn settle(dag: &Dag, asked: &Chosen, spread: Spread) -> Result<Settled, CommandError> {
    let chosen: BTreeSet<TaskIx> = match asked {
        Chosen::All => dag.graph.indexes().collect(),
        Chosen::Matching(pattern) => matching(dag, pattern)?,
        Chosen::Named(names) => {
            let mut found = BTreeSet::new();
            for name in names {
                found.extend(named(dag, name)?);
            }
            found
        }
    };
    let list: Vec<TaskIx> = chosen.iter().copied().collect();
    let reach = Reach { upstream: spread.upstream, downstream: spread.downstream, direct_upstream: false };
    let tasks = subset::in_order(&dag.graph, &subset::subset(&dag.graph, &list, reach));
    Ok(Settled { tasks: ids(dag, tasks), chosen })
}

fn ids(dag: &Dag, tasks: impl IntoIterator<Item = TaskIx>) -> Vec<TaskId> {
    tasks.into_iter().map(|task| dag.task(task).task_id.clone()).collect()
}

/// As Airflow: the pattern is found anywhere in the id.
fn matching(dag: &Dag, pattern: &str) -> Result<BTreeSet<TaskIx>, CommandError> {
    let found = Regex::new(pattern).map_err(|error| {
        let help = "write a regular expression, e.g. `^load_`, or name the tasks".to_owned();
        refusal("invalid-pattern", format!("`{pattern}` is no pattern: {error}"), help)
    })?;
    let tasks: BTreeSet<TaskIx> = dag.graph.indexes().filter(|&task| found.is_match(&dag.task(task).task_id)).collect();
    if tasks.is_empty() {
        let message = format!("no task of `{}` matches `{pattern}`", dag.dag_id);
        return Err(refusal("unknown-task", message, format!("`minflow tasks list {}` shows all", dag.dag_id)));
    }
    Ok(tasks)
}

/// A task, or all tasks of a group and of the groups inside it.
fn named(dag: &Dag, name: &str) -> Result<Vec<TaskIx>, CommandError> {
    if let Some(task) = dag.find(name) {
        return Ok(vec![task]);
    }
    let group = dag.groups.iter().position(|group| group.group_id == name);
    if let Some(group) = group {
        let is_inside = |task: &TaskIx| {
            let innermost = dag.task(*task).group;
            let mut around = std::iter::successors(innermost, |group| dag.groups[group.index()].parent);
            around.any(|around| around.index() == group)
        };
        return Ok(dag.graph.indexes().filter(is_inside).collect());
    }
    let known = dag.tasks.iter().map(|task| &*task.task_id).chain(dag.groups.iter().map(|group| &*group.group_id));
    let near = did_you_mean(name, known);
    let help =
        near.map_or(format!("`minflow tasks list {}` shows all", dag.dag_id), |near| format!("did you mean `{near}`?"));
    Err(refusal("unknown-task", format!("`{}` has no task `{name}`", dag.dag_id), help))
}

/// The instances in the order of their tasks, then by map index.
fn sort_touched(touched: &mut [Touched], tasks: &[TaskId]) {
    let places: BTreeMap<&TaskId, usize> = tasks.iter().zip(0..).collect();
    touched.sort_by_key(|touched| (places.get(&touched.task_id).copied(), touched.map_index));
}

fn refusal(code: &str, message: String, help: String) -> CommandError {
    CommandError { code: code.to_owned(), message, help }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Graph, Group, GroupIx, Node, Operator, Task};

    /// `a >> g.b >> g.c >> load`
    fn dag() -> Dag {
        let mut tasks: Vec<Task> =
            ["a", "g.b", "g.c", "load"].map(|id| Task::new(id.into(), Operator::Empty)).into_iter().collect();
        tasks[1].group = Some(GroupIx(0));
        tasks[2].group = Some(GroupIx(0));
        let edges: Vec<_> = (1..4).map(|at| (TaskIx(at - 1), TaskIx(at))).collect();
        let graph = Graph::new(vec![Node::default(); 4], &edges).unwrap();
        let mut dag = Dag::new("d".into(), tasks, graph);
        dag.groups.push(Group {
            group_id: "g".to_owned(),
            parent: None,
            prefix: "g.".to_owned(),
            tooltip: String::new(),
        });
        dag
    }

    fn settled(asked: Chosen, spread: Spread) -> Result<Vec<String>, String> {
        let settled = settle(&dag(), &asked, spread).map_err(|error| format!("{error}"))?;
        Ok(settled.tasks.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn tasks_are_chosen_by_id_by_group_and_by_pattern() {
        let named = |names: &[&str]| Chosen::Named(names.iter().map(|&name| name.to_owned()).collect());
        let alone = Spread::default();
        assert_eq!(settled(named(&["load", "a"]), alone).unwrap(), ["a", "load"]);
        assert_eq!(settled(named(&["g"]), alone).unwrap(), ["g.b", "g.c"]);
        assert_eq!(settled(Chosen::Matching("^g".to_owned()), alone).unwrap(), ["g.b", "g.c"]);
        assert_eq!(settled(Chosen::All, alone).unwrap().len(), 4);
        let down = Spread { downstream: true, ..alone };
        assert_eq!(settled(named(&["g.c"]), down).unwrap(), ["g.c", "load"]);
    }

    #[test]
    fn an_unknown_name_and_a_pattern_of_no_task_say_what_to_do() {
        let error = |asked| settled(asked, Spread::default()).unwrap_err();
        assert_eq!(error(Chosen::Named(vec!["laod".to_owned()])), "`d` has no task `laod`\nhelp: did you mean `load`?");
        assert_eq!(
            error(Chosen::Matching("xyz".to_owned())),
            "no task of `d` matches `xyz`\nhelp: `minflow tasks list d` shows all"
        );
        assert!(error(Chosen::Matching("(".to_owned())).starts_with("`(` is no pattern"));
    }
}
