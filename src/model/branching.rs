//! Which tasks a decision lets run (SEMANTICS 13; Airflow: `BranchMixIn`, `SkipMixin`, `ShortCircuitOperator`).
//!
//! Pure: knows the shape of a DAG, and neither what led to the decision nor what becomes of the tasks. Workers and simulations ask
//! it for the decision of a try, the reader of DAG files whether an id means anything.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::model::mapping::meaning;
use crate::model::{Dag, Graph, GroupIx, Role, TaskId, TaskIx};

/// What a branch or a short circuit has decided (SEMANTICS 13). It is an XCom of the task too, from which it is known again when the
/// tasks after it are cleared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SkipDecision {
    /// Of the tasks directly after it only these run.
    Followed(Vec<TaskId>),
    /// These do not run, wherever they stand after it.
    Skipped(Vec<TaskId>),
}

impl SkipDecision {
    /// The key of its XCom (Airflow: `XCOM_SKIPMIXIN_KEY`).
    pub const XCOM_KEY: &str = "skipmixin_key";

    /// The value of its XCom, as Airflow's: `{"followed": [ids]}` or `{"skipped": [ids]}`.
    pub fn to_xcom(&self) -> Value {
        let (name, ids) = match self {
            Self::Followed(ids) => ("followed", ids),
            Self::Skipped(ids) => ("skipped", ids),
        };
        let ids = ids.iter().map(|id| Value::from(id.as_str())).collect();
        Value::Object([(name.to_owned(), Value::Array(ids))].into_iter().collect())
    }

    /// What [`Self::to_xcom`] wrote; None for anything else.
    pub fn from_xcom(value: &Value) -> Option<Self> {
        let ids = |name: &str| {
            let ids = value.get(name)?.as_array()?.iter();
            ids.map(|id| id.as_str().map(TaskId::from)).collect::<Option<Vec<_>>>()
        };
        ids("followed").map(Self::Followed).or_else(|| ids("skipped").map(Self::Skipped))
    }
}

/// How far below it a short circuit skips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The tasks directly after it; the others follow their trigger rules.
    Direct,
    /// All tasks after it, whatever their trigger rules.
    All,
}

/// What the ids of a DAG stand for.
#[derive(Debug)]
pub struct Names<'d> {
    dag: &'d Dag,
    tasks: BTreeMap<&'d str, TaskIx>,
    groups: BTreeMap<&'d str, GroupIx>,
}

#[derive(Clone, Copy)]
enum Named {
    Task(TaskIx),
    Group(GroupIx),
}

impl<'d> Names<'d> {
    pub fn of(dag: &'d Dag) -> Self {
        let tasks = dag.tasks.iter().zip(0..).map(|(task, at)| (&*task.task_id, TaskIx(at))).collect();
        let groups = dag.groups.iter().zip(0..).map(|(group, at)| (&*group.group_id, GroupIx(at))).collect();
        Self { dag, tasks, groups }
    }

    /// The tasks that an id means where `decider` says it ([`meaning`]): the task, or the roots of the group. None: there is nothing
    /// of that name.
    pub fn targets(&self, decider: TaskIx, id: &str) -> Option<Vec<TaskIx>> {
        let around = around(self.dag, self.dag.task(decider).group);
        let around = around.map(|group| (group, &*self.dag.groups[group.index()].prefix));
        Some(match meaning(id, around, |full_id| self.named(full_id), |group, named| self.holds(group, named))? {
            Named::Task(task) => vec![task],
            Named::Group(group) => roots(self.dag, group),
        })
    }

    fn named(&self, full_id: &str) -> Option<Named> {
        let task = self.tasks.get(full_id).copied().map(Named::Task);
        task.or_else(|| self.groups.get(full_id).copied().map(Named::Group))
    }

    fn holds(&self, group: GroupIx, named: Named) -> bool {
        let holder = match named {
            Named::Task(task) => self.dag.task(task).group,
            Named::Group(inner) => self.dag.groups[inner.index()].parent,
        };
        around(self.dag, holder).any(|outer| outer == group)
    }

    /// All full ids, those of tasks first.
    pub fn known(&self) -> impl Iterator<Item = &'d str> {
        self.tasks.keys().chain(self.groups.keys()).copied()
    }
}

/// The group and those that hold it, the innermost first.
pub fn around(dag: &Dag, group: Option<GroupIx>) -> impl Iterator<Item = GroupIx> {
    std::iter::successors(group, |group| dag.groups[group.index()].parent)
}

/// The tasks of a group, and of those inside it, before which no other of them stands.
fn roots(dag: &Dag, group: GroupIx) -> Vec<TaskIx> {
    let is_inside = |task: &TaskIx| around(dag, dag.task(*task).group).any(|outer| outer == group);
    let inside: BTreeSet<TaskIx> = dag.graph.indexes().filter(is_inside).collect();
    let is_root = |task: &&TaskIx| dag.graph.upstream(**task).iter().all(|before| !inside.contains(before));
    inside.iter().filter(is_root).copied().collect()
}

/// The decision of a branch: of the tasks directly after it those run that were chosen or come after a chosen one.
pub fn follow(dag: &Dag, decider: TaskIx, chosen: &[TaskIx]) -> SkipDecision {
    let mut followed: BTreeSet<TaskIx> = after(&dag.graph, chosen);
    followed.extend(chosen);
    let direct = dag.graph.downstream(decider).iter().filter(|task| followed.contains(task));
    SkipDecision::Followed(direct.map(|&task| dag.task(task).task_id.clone()).collect())
}

/// The decision of a branch that chooses whatever comes after it.
pub fn follow_all(dag: &Dag, decider: TaskIx) -> SkipDecision {
    follow(dag, decider, dag.graph.downstream(decider))
}

/// The decision of a short circuit whose answer is false. What tears down what was set up always runs.
pub fn cut_short(dag: &Dag, decider: TaskIx, reach: Reach) -> SkipDecision {
    let below: BTreeSet<TaskIx> = match reach {
        Reach::Direct => dag.graph.downstream(decider).iter().copied().collect(),
        Reach::All => after(&dag.graph, &[decider]),
    };
    let skipped = below.into_iter().filter(|&task| !matches!(dag.graph.node(task).role, Role::Teardown { .. }));
    SkipDecision::Skipped(skipped.map(|task| dag.task(task).task_id.clone()).collect())
}

/// All tasks after any of `tasks`, in the order of the file.
fn after(graph: &Graph, tasks: &[TaskIx]) -> BTreeSet<TaskIx> {
    let mut found = BTreeSet::new();
    let mut open = tasks.to_vec();
    while let Some(task) = open.pop() {
        open.extend(graph.downstream(task).iter().copied().filter(|&below| found.insert(below)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Group, Node, Operator, Task};

    /// Tasks by name and arrows between their numbers; those whose name begins with `-` are teardowns, and those with a dot are in
    /// the group before it.
    fn dag(names: &[&str], arrows: &[(u32, u32)]) -> Dag {
        let mut groups: Vec<Group> = Vec::new();
        let mut tasks = Vec::new();
        let mut nodes = Vec::new();
        for name in names {
            let mut parent = None;
            for (dot, _) in name.match_indices('.') {
                let known = groups.iter().position(|group| group.group_id == name[..dot]);
                let at = known.unwrap_or_else(|| {
                    let (group_id, prefix) = (name[..dot].to_owned(), name[..=dot].to_owned());
                    groups.push(Group { group_id, parent, prefix, tooltip: String::new() });
                    groups.len() - 1
                });
                parent = Some(GroupIx(at as u32));
            }
            tasks.push(Task { group: parent, ..Task::new((*name).into(), Operator::Empty) });
            let teardown = Role::Teardown { setups: Vec::new(), on_failure_fail_dagrun: false };
            nodes.push(Node { role: if name.starts_with('-') { teardown } else { Role::Work }, ..Node::default() });
        }
        let edges: Vec<_> = arrows.iter().map(|&(from, to)| (TaskIx(from), TaskIx(to))).collect();
        Dag { groups, ..Dag::new("d".into(), tasks, Graph::new(nodes, &edges).unwrap()) }
    }

    fn names(decision: SkipDecision) -> String {
        let (SkipDecision::Followed(ids) | SkipDecision::Skipped(ids)) = decision;
        ids.iter().map(|id| &**id).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_decision_is_known_again_from_its_xcom() {
        for decision in [SkipDecision::Followed(vec!["a".into(), "b".into()]), SkipDecision::Skipped(Vec::new())] {
            assert_eq!(SkipDecision::from_xcom(&decision.to_xcom()), Some(decision));
        }
        assert_eq!(SkipDecision::from_xcom(&serde_json::json!({ "followed": ["a", 1] })), None);
        assert_eq!(SkipDecision::from_xcom(&Value::Null), None);
    }

    #[test]
    fn a_branch_is_followed_to_what_was_chosen_and_to_what_comes_after_it() {
        // 0 branches to 1, 2 and 4; 1 leads to 3 and 3 to 4; 5 stands apart.
        let dag = dag(&["b", "x", "y", "z", "join", "apart"], &[(0, 1), (0, 2), (0, 4), (1, 3), (3, 4), (2, 4)]);
        let followed = |chosen: &[u32]| {
            let chosen: Vec<_> = chosen.iter().map(|&at| TaskIx(at)).collect();
            names(follow(&dag, TaskIx(0), &chosen))
        };
        assert_eq!(followed(&[1]), "x join");
        assert_eq!(followed(&[2, 1]), "x y join");
        assert_eq!(followed(&[4]), "join");
        assert_eq!(followed(&[3]), "join", "a task further down leads to what comes after it");
        assert_eq!(followed(&[5]), "", "a task elsewhere leads nowhere");
        assert_eq!(followed(&[]), "");
        assert_eq!(names(follow_all(&dag, TaskIx(0))), "x y join");
    }

    #[test]
    fn a_short_circuit_skips_as_far_as_it_is_told_and_never_a_teardown() {
        let dag = dag(&["s", "x", "-direct", "y", "-far"], &[(0, 1), (0, 2), (1, 3), (3, 4)]);
        assert_eq!(names(cut_short(&dag, TaskIx(0), Reach::Direct)), "x");
        assert_eq!(names(cut_short(&dag, TaskIx(0), Reach::All)), "x y");
        assert_eq!(names(cut_short(&dag, TaskIx(4), Reach::All)), "");
    }

    #[test]
    fn an_id_is_a_task_or_a_groups_roots_seen_from_where_the_decider_stands() {
        let dag = dag(&["b", "x", "g.b", "g.x", "g.h.x", "g.h.y", "h.z"], &[(0, 2), (2, 3), (2, 4), (4, 5), (0, 6)]);
        let from = |decider: u32, id: &str| {
            let found = Names::of(&dag).targets(TaskIx(decider), id)?;
            Some(found.iter().map(|&task| &*dag.task(task).task_id).collect::<Vec<_>>().join(" "))
        };
        let cases = [
            (0, "x", Some("x")),
            (2, "x", Some("g.x")),
            (5, "x", Some("g.h.x")),
            (2, "g.x", Some("g.x")),
            (0, "g", Some("g.b")),
            (2, "h", Some("g.h.x")),
            (0, "h", Some("h.z")),
            (2, "g.h", Some("g.h.x")),
            (0, "b.x", None),
            (0, "", None),
        ];
        for (decider, id, expected) in cases {
            assert_eq!(from(decider, id).as_deref(), expected, "{id} from {decider}");
        }
        assert_eq!(Names::of(&dag).known().last(), Some("h"));
    }

    #[test]
    fn what_stands_beside_the_decider_is_nearer_than_what_has_its_groups_id_around_it() {
        // `g.x` is in `g`; `b` and `x` are in a group inside it that gives no prefix.
        let mut dag = dag(&["g.x", "b", "x"], &[(1, 2)]);
        let (group_id, tooltip) = ("g.h".to_owned(), String::new());
        dag.groups.push(Group { group_id, parent: Some(GroupIx(0)), prefix: String::new(), tooltip });
        for task in &mut dag.tasks[1..] {
            task.group = Some(GroupIx(1));
        }
        assert_eq!(Names::of(&dag).targets(TaskIx(1), "x"), Some(vec![TaskIx(2)]));
        assert_eq!(Names::of(&dag).targets(TaskIx(0), "x"), Some(vec![TaskIx(0)]));
    }
}
