//! Who runs after whom: `depends_on`, the arrows of `chain`, and what else puts one task before another.
//!
//! A group on the left of an arrow stands for its leaves, on the right for its roots (Airflow: `TaskGroup.get_leaves` and
//! `get_roots`; SEMANTICS 20). In Airflow they are those of the moment at which the arrow is drawn; here the file has no moments,
//! and they are those of the whole file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::Reader;
use super::chain::{self, Arrow};
use super::outline::{Member, Outline};
use crate::keytable::Fields;
use crate::model::graph::{Node, Role, TaskIx};
use crate::model::mapping::GroupIx;

/// `from` runs before `to`, because of what stands at `span`.
pub(super) struct Edge {
    pub from: TaskIx,
    pub to: TaskIx,
    pub span: Range<usize>,
}

/// An edge as it is written, whose ends may be groups.
pub(super) struct Relation {
    pub from: Member,
    pub to: Member,
    pub span: Range<usize>,
}

/// Lists and groups on both sides of an arrow connect each with each: a short line could ask for more than memory holds.
const MAX_EDGES: usize = 1_000_000;

impl Reader<'_, '_> {
    /// Adds what `depends_on` and `chain` say, in the order of the file.
    pub(super) fn relations(&mut self, fields: &Fields<'_>, outline: &Outline<'_>, relations: &mut Vec<Relation>) {
        for (task, to) in outline.tasks.iter().zip(0..) {
            let Some(document) = task.document else { continue };
            let names = Fields::new(&super::keys::TASK, document).list("depends_on");
            self.depend(names, Member::Task(TaskIx(to)), outline, relations);
        }
        for (group, to) in outline.groups.iter().zip(0..) {
            self.depend(group.fields.list("depends_on"), Member::Group(GroupIx(to)), outline, relations);
        }
        for item in fields.list("chain") {
            self.chain(item, outline, relations);
        }
    }

    fn depend(
        &mut self,
        names: &[Spanned<DeValue<'_>>],
        to: Member,
        outline: &Outline<'_>,
        relations: &mut Vec<Relation>,
    ) {
        for item in names {
            let Some(name) = item.get_ref().as_str() else { continue };
            if let Some(from) = self.find_member(outline, name, outline.holder(to), item.span()) {
                self.relate(Relation { from, to, span: item.span() }, outline, relations);
            }
        }
    }

    /// Adds a relation, unless its ends cannot be one before the other.
    pub(super) fn relate(&mut self, relation: Relation, outline: &Outline<'_>, relations: &mut Vec<Relation>) {
        let Relation { from, to, span } = &relation;
        if from == to {
            let noun = if matches!(to, Member::Task(_)) { "task" } else { "group" };
            let message = format!("{noun} `{}` waits for itself", outline.id(*to));
            self.faults.add(span.clone(), "cycle", message, "remove it here");
            return;
        }
        let holds = |outer: &Member, inner| matches!(outer, Member::Group(group) if outline.holds(*group, inner));
        let (outer, inner) = match (holds(from, *to), holds(to, *from)) {
            (true, _) => (from, to),
            (_, true) => (to, from),
            (false, false) => {
                if relations.len() <= MAX_EDGES {
                    relations.push(relation);
                }
                return;
            }
        };
        let (outer, inner) = (outline.id(*outer), outline.id(*inner));
        let message = format!("`{inner}` is inside the group `{outer}`: neither can wait for the other");
        let help = format!("name single tasks of `{outer}` instead of the group, or remove it here");
        self.faults.add(span.clone(), "cycle", message, help);
    }

    fn chain(&mut self, item: &Spanned<DeValue<'_>>, outline: &Outline<'_>, relations: &mut Vec<Relation>) {
        let Some(text) = item.get_ref().as_str() else { return };
        let links = match chain::parse(text) {
            Ok(links) => links,
            Err((message, part)) => {
                let span = self.faults.source.inner_span(&item.span(), text, part);
                let help =
                    "write ids of tasks or groups with arrows between them, like \"a >> [b, c] >> d\" or \"d << b\"";
                self.faults.add(span, "bad-chain", message, help);
                return;
            }
        };
        let mut previous: Option<(Arrow, Vec<_>)> = None;
        for chain::Link { names, arrow } in links {
            let mut found = Vec::new();
            for (name, part) in names {
                let span = self.faults.source.inner_span(&item.span(), text, part);
                found.extend(self.find_member(outline, name, None, span.clone()).map(|member| (member, span)));
            }
            if let Some((arrow, left)) = &previous {
                for &(left, _) in left {
                    for (right, span) in &found {
                        let (from, to) = match arrow {
                            Arrow::Right => (left, *right),
                            Arrow::Left => (*right, left),
                        };
                        self.relate(Relation { from, to, span: span.clone() }, outline, relations);
                    }
                }
            }
            previous = arrow.map(|arrow| (arrow, found));
        }
    }

    /// The edges between tasks, in the order of the relations.
    pub(super) fn edges(&mut self, relations: &[Relation], outline: &Outline<'_>, nodes: &[Node]) -> Vec<Edge> {
        if relations.len() > MAX_EDGES {
            self.refuse_edges();
            return Vec::new();
        }
        let mut wiring = Wiring::new(outline, nodes);
        let mut edges: Vec<(usize, Edge)> = Vec::with_capacity(relations.len());
        for at in in_order_of_depth(relations, outline) {
            let Relation { from, to, span } = &relations[at];
            if let (&Member::Task(from), &Member::Task(to)) = (from, to) {
                wiring.connect(from, to);
                edges.push((at, Edge { from, to, span: span.clone() }));
                continue;
            }
            let (left, right) = (wiring.leaves(*from), wiring.roots(*to));
            if left.is_empty() && wiring.is_teardowns_alone(*from) {
                let message = format!(
                    "nothing of the group `{}` comes before others: it holds teardowns alone",
                    outline.id(*from)
                );
                self.faults.add(span.clone(), "bad-group", message, "name the task that is meant, or remove it here");
            }
            // Together they may be more than memory holds.
            if edges.len() + left.len() * right.len() > MAX_EDGES {
                edges.clear();
                self.refuse_edges();
                break;
            }
            for &from in &left {
                for &to in &right {
                    wiring.connect(from, to);
                    edges.push((at, Edge { from, to, span: span.clone() }));
                }
            }
        }
        edges.sort_by_key(|&(at, _)| at);
        edges.into_iter().map(|(_, edge)| edge).collect()
    }

    fn refuse_edges(&mut self) {
        let message = format!("the DAG has more arrows than the limit of {MAX_EDGES}");
        self.faults.add_to_file("too-many-arrows", message, "put an `empty` task between two large groups");
    }
}

/// The relations in the order in which they can be resolved. What a group's leaves and roots are follows from the arrows inside it,
/// so those come first: the ones between two tasks, then those whose ends meet in the deepest group.
fn in_order_of_depth(relations: &[Relation], outline: &Outline<'_>) -> Vec<usize> {
    let depth = |relation: &Relation| match (relation.from, relation.to) {
        (Member::Task(_), Member::Task(_)) => usize::MAX,
        (from, to) => {
            let holder = outline.holder(to);
            let shared = outline
                .around(outline.holder(from))
                .find(|&group| holder.is_some_and(|holder| outline.is_within(holder, group)));
            outline.around(shared).count()
        }
    };
    let mut order: Vec<usize> = (0..relations.len()).collect();
    if outline.groups.is_empty() {
        return order;
    }
    order.sort_by_cached_key(|&at| (std::cmp::Reverse(depth(&relations[at])), at));
    order
}

/// The arrows that are known so far, and what groups stand for by them.
struct Wiring<'o, 'd> {
    outline: &'o Outline<'d>,
    nodes: &'o [Node],
    /// Kept only if there are groups.
    upstream: Vec<Vec<TaskIx>>,
    downstream: Vec<Vec<TaskIx>>,
    /// All tasks by the group that holds them, so that those inside a group stand together.
    by_group: Vec<(GroupIx, TaskIx)>,
    leaves: BTreeMap<GroupIx, Vec<TaskIx>>,
    roots: BTreeMap<GroupIx, Vec<TaskIx>>,
}

impl<'o, 'd> Wiring<'o, 'd> {
    fn new(outline: &'o Outline<'d>, nodes: &'o [Node]) -> Self {
        let count = if outline.groups.is_empty() { 0 } else { outline.tasks.len() };
        let mut by_group: Vec<_> =
            outline.tasks.iter().zip(0..).filter_map(|(task, at)| Some((task.group?, TaskIx(at)))).collect();
        by_group.sort_unstable();
        Self {
            outline,
            nodes,
            upstream: vec![Vec::new(); count],
            downstream: vec![Vec::new(); count],
            by_group,
            leaves: BTreeMap::new(),
            roots: BTreeMap::new(),
        }
    }

    fn connect(&mut self, from: TaskIx, to: TaskIx) {
        if !self.upstream.is_empty() {
            self.upstream[to.index()].push(from);
            self.downstream[from.index()].push(to);
        }
    }

    /// The tasks inside a group, at whatever depth.
    fn inside(&self, group: GroupIx) -> impl Iterator<Item = TaskIx> {
        let start = self.by_group.partition_point(|&(holder, _)| holder < group);
        let within =
            self.by_group[start..].iter().take_while(move |&&(holder, _)| self.outline.is_within(holder, group));
        within.map(|&(_, task)| task)
    }

    fn is_inside(&self, task: TaskIx, group: GroupIx) -> bool {
        self.outline.holds(group, Member::Task(task))
    }

    fn is_teardown(&self, task: TaskIx) -> bool {
        matches!(self.nodes[task.index()].role, Role::Teardown { .. })
    }

    fn is_teardowns_alone(&self, member: Member) -> bool {
        matches!(member, Member::Group(group) if self.inside(group).all(|task| self.is_teardown(task)))
    }

    /// What a member stands for on the right of an arrow.
    fn roots(&mut self, member: Member) -> Vec<TaskIx> {
        match member {
            Member::Task(task) => vec![task],
            Member::Group(group) => {
                let is_root = |task: &TaskIx| !self.upstream[task.index()].iter().any(|&up| self.is_inside(up, group));
                if !self.roots.contains_key(&group) {
                    let found = self.inside(group).filter(is_root).collect();
                    self.roots.insert(group, found);
                }
                self.roots[&group].clone()
            }
        }
    }

    /// What a member stands for on the left of an arrow.
    fn leaves(&mut self, member: Member) -> Vec<TaskIx> {
        match member {
            Member::Task(task) => vec![task],
            Member::Group(group) => {
                if !self.leaves.contains_key(&group) {
                    let found = self.find_leaves(group);
                    self.leaves.insert(group, found);
                }
                self.leaves[&group].clone()
            }
        }
    }

    /// The last tasks of a group. In place of a teardown stand the last tasks before it, but for its setups.
    fn find_leaves(&self, group: GroupIx) -> Vec<TaskIx> {
        let mut found = BTreeSet::new();
        let (mut seen, mut teardowns) = (BTreeSet::new(), Vec::new());
        for task in self.inside(group) {
            if self.downstream[task.index()].iter().any(|&down| self.is_inside(down, group)) {
                continue;
            }
            if !self.is_teardown(task) {
                found.insert(task);
            } else if seen.insert(task) {
                teardowns.push(task);
            }
        }
        while let Some(teardown) = teardowns.pop() {
            for &before in self.upstream[teardown.index()].iter().filter(|&&before| self.is_inside(before, group)) {
                if self.is_teardown(before) {
                    if seen.insert(before) {
                        teardowns.push(before);
                    }
                } else if self.nodes[before.index()].role != Role::Setup && self.is_last_work(before, group) {
                    found.insert(before);
                }
            }
        }
        found.into_iter().collect()
    }

    /// Whether only teardowns come after a task in its group.
    fn is_last_work(&self, task: TaskIx, group: GroupIx) -> bool {
        let mut after = self.downstream[task.index()].iter();
        after.all(|&after| self.is_teardown(after) || !self.is_inside(after, group))
    }
}
