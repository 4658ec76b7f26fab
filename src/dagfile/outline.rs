//! The tasks and groups of a file as they stand in it: their full ids, who holds whom, and what a name means where it is written.
//!
//! Knows tables and places, and nothing of what tasks do or in which order they run.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{MAX_GROUPS, MAX_TASKS, Reader, fault_of_id, keys};
use crate::keytable::{self, Fields};
use crate::model::graph::TaskIx;
use crate::model::ids::{MAX_ID_BYTES, TaskId};
use crate::model::mapping::{GroupIx, meaning};

/// What an id can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    Task(TaskIx),
    Group(GroupIx),
}

/// One `[tasks.ID]`, of the file or of a group.
pub(super) struct TaskEntry<'d> {
    /// With those of its groups.
    pub id: TaskId,
    /// Where its name stands.
    pub name: Range<usize>,
    /// None: it is no table, which has been reported.
    pub document: Option<&'d DeTable<'d>>,
    pub group: Option<GroupIx>,
}

/// One `[groups.ID]`.
pub(super) struct GroupEntry<'d> {
    /// With those of the groups around it; of one kind with those of tasks, since no two of them may be equal.
    pub id: TaskId,
    pub name: Range<usize>,
    pub fields: Fields<'d>,
    pub parent: Option<GroupIx>,
    /// The groups inside it are those behind it, up to this one.
    end: u32,
    /// What stands before the ids of what it holds; empty without `prefix_group_id`.
    pub prefix: String,
    /// The `default_args` that hold inside it, its own first.
    pub defaults: Vec<Fields<'d>>,
}

/// All tasks and groups of a file.
pub(super) struct Outline<'d> {
    /// In the order of the file: a task's place is its [`TaskIx`].
    pub tasks: Vec<TaskEntry<'d>>,
    /// Each is followed by the groups inside it: its place is its [`GroupIx`].
    pub groups: Vec<GroupEntry<'d>>,
    /// The DAG's `default_args`, if there are any.
    pub defaults: Vec<Fields<'d>>,
    /// By full id. Only looked up, never walked, so its order does not matter.
    ids: HashMap<TaskId, Member>,
}

/// How many tasks and groups a file has, whatever their keys; stops counting beyond the limits.
pub(super) fn count(document: &DeTable<'_>) -> (usize, usize) {
    let (mut tasks, mut groups) = (0, 0);
    let mut open = vec![document];
    while let Some(table) = open.pop() {
        tasks += table.get("tasks").and_then(|tasks| tasks.get_ref().as_table()).map_or(0, DeTable::len);
        let inner = table.get("groups").and_then(|groups| groups.get_ref().as_table());
        groups += inner.map_or(0, DeTable::len);
        if tasks > MAX_TASKS || groups > MAX_GROUPS {
            break;
        }
        open.extend(inner.into_iter().flatten().filter_map(|(_, group)| group.get_ref().as_table()));
    }
    (tasks, groups)
}

impl<'d> Outline<'d> {
    fn group(&self, group: GroupIx) -> &GroupEntry<'d> {
        &self.groups[group.index()]
    }

    pub fn id(&self, member: Member) -> &TaskId {
        match member {
            Member::Task(task) => &self.tasks[task.index()].id,
            Member::Group(group) => &self.group(group).id,
        }
    }

    fn name(&self, member: Member) -> &Range<usize> {
        match member {
            Member::Task(task) => &self.tasks[task.index()].name,
            Member::Group(group) => &self.group(group).name,
        }
    }

    /// The innermost group that holds it.
    pub fn holder(&self, member: Member) -> Option<GroupIx> {
        match member {
            Member::Task(task) => self.tasks[task.index()].group,
            Member::Group(group) => self.group(group).parent,
        }
    }

    /// Whether `member` is inside the group, at whatever depth. A group is not inside itself.
    pub fn holds(&self, group: GroupIx, member: Member) -> bool {
        self.holder(member).is_some_and(|holder| self.is_within(holder, group))
    }

    /// Whether a group is the other one, or inside it.
    pub fn is_within(&self, group: GroupIx, outer: GroupIx) -> bool {
        (outer.0..self.group(outer).end).contains(&group.0)
    }

    /// The group and those around it, from the inside out.
    pub fn around(&self, group: Option<GroupIx>) -> impl Iterator<Item = GroupIx> {
        std::iter::successors(group, |&group| self.group(group).parent)
    }

    /// What `name` means in `scope`.
    pub fn find(&self, name: &str, scope: Option<GroupIx>) -> Option<Member> {
        let around = self.around(scope).map(|group| (group, &*self.group(group).prefix));
        meaning(name, around, |id| self.ids.get(id).copied(), |group, member| self.holds(group, member))
    }

    /// The `default_args` that hold in a group, the innermost first.
    pub fn defaults(&self, group: Option<GroupIx>) -> &[Fields<'d>] {
        group.map_or(&self.defaults, |group| &self.group(group).defaults)
    }

    fn prefix(&self, group: Option<GroupIx>) -> &str {
        group.map_or("", |group| &self.group(group).prefix)
    }

    /// Takes in what a file or a group holds. As deep as the document, which has been bounded.
    fn collect(&mut self, fields: &Fields<'d>, holder: Option<GroupIx>) {
        for (name, value) in fields.table("tasks").into_iter().flatten() {
            self.tasks.push(TaskEntry {
                id: full_id(self.prefix(holder), name.get_ref()),
                name: name.span(),
                document: value.get_ref().as_table(),
                group: holder,
            });
        }
        for (name, value) in fields.table("groups").into_iter().flatten() {
            let Some(document) = value.get_ref().as_table() else { continue };
            let group = GroupIx(self.groups.len() as u32);
            let entry = self.group_entry(name, Fields::new(&keys::GROUP, document), holder);
            let fields = entry.fields;
            self.groups.push(entry);
            self.collect(&fields, Some(group));
            self.groups[group.index()].end = self.groups.len() as u32;
        }
    }

    fn group_entry(&self, name: &Spanned<Cow<'_, str>>, fields: Fields<'d>, parent: Option<GroupIx>) -> GroupEntry<'d> {
        let id = full_id(self.prefix(parent), name.get_ref());
        let own = fields.table("default_args").map(|document| Fields::new(&keys::DEFAULT_ARGS, document));
        GroupEntry {
            name: name.span(),
            fields,
            parent,
            end: 0,
            prefix: if fields.bool("prefix_group_id") == Some(false) { String::new() } else { format!("{id}.") },
            defaults: own.into_iter().chain(self.defaults(parent).iter().copied()).collect(),
            id,
        }
    }
}

impl Reader<'_, '_> {
    /// Reads who there is, and notes ids that cannot be or that are given twice.
    pub(super) fn outline<'d>(&mut self, fields: &Fields<'d>) -> Outline<'d> {
        let own = fields.table("default_args").map(|document| Fields::new(&keys::DEFAULT_ARGS, document));
        let defaults = own.into_iter().collect();
        let mut outline = Outline { tasks: Vec::new(), groups: Vec::new(), defaults, ids: HashMap::new() };
        outline.collect(fields, None);
        if !outline.groups.is_empty() {
            outline.tasks.sort_by_key(|task| task.name.start);
        }
        self.check_names(&outline);
        self.enter_ids(&mut outline);
        self.check_empty(&outline);
        outline
    }

    fn check_names(&mut self, outline: &Outline<'_>) {
        for group in &outline.groups {
            let own = own_name(&group.id, outline.prefix(group.parent));
            self.check_id("group_id", own, group.name.clone());
            if own.contains('.') {
                let message = format!("`{own}` cannot be a group_id: it holds '.'");
                let help =
                    "use letters, digits, `_` and `-`; a group inside a group is written `[groups.OUTER.groups.INNER]`";
                self.faults.add(group.name.clone(), "bad-id", message, help);
            }
        }
        for task in &outline.tasks {
            let own = own_name(&task.id, outline.prefix(task.group));
            if own.len() < task.id.len() && task.id.len() > MAX_ID_BYTES && fault_of_id(own).is_none() {
                let message = format!(
                    "`{own}` cannot be a task_id: with its groups it has {} bytes, more than the limit of {MAX_ID_BYTES}",
                    task.id.len()
                );
                let help = "shorten the names, or write `prefix_group_id = false` in a group";
                self.faults.add(task.name.clone(), "bad-id", message, help);
            } else {
                self.check_id("task_id", own, task.name.clone());
            }
        }
    }

    /// Fills `ids`. Of two with the same id the first in the file has it.
    fn enter_ids(&mut self, outline: &mut Outline<'_>) {
        let groups = (0..outline.groups.len() as u32).map(|at| Member::Group(GroupIx(at)));
        let tasks = (0..outline.tasks.len() as u32).map(|at| Member::Task(TaskIx(at)));
        let mut members: Vec<Member> = groups.chain(tasks).collect();
        if !outline.groups.is_empty() {
            members.sort_by_key(|&member| outline.name(member).start);
        }
        let mut ids = HashMap::with_capacity(members.len());
        for member in members {
            let id = outline.id(member);
            let Some(&first) = ids.get(id) else {
                ids.insert(id.clone(), member);
                continue;
            };
            let noun = |member| if matches!(member, Member::Task(_)) { "task" } else { "group" };
            let place = self.faults.source.position(outline.name(first).start);
            let message = format!(
                "the {} `{id}` has the id of the {} in line {}, column {}",
                noun(member),
                noun(first),
                place.line,
                place.column
            );
            self.faults.add(outline.name(member).clone(), "duplicate-id", message, "rename one of the two");
        }
        outline.ids = ids;
    }

    /// An arrow to or from nothing would be lost without a word.
    fn check_empty(&mut self, outline: &Outline<'_>) {
        if self.faults.has_broken_lines() {
            return;
        }
        let mut is_filled = vec![false; outline.groups.len()];
        for task in &outline.tasks {
            for group in outline.around(task.group) {
                if std::mem::replace(&mut is_filled[group.index()], true) {
                    break;
                }
            }
        }
        for ((group, at), is_filled) in outline.groups.iter().zip(0..).zip(is_filled) {
            // Of one that holds groups these are to blame.
            if is_filled || group.end > at + 1 {
                continue;
            }
            let help = format!("add one as `[{}.tasks.NAME]`, or remove the group", self.header(group, outline));
            self.faults.add(group.name.clone(), "no-tasks", format!("the group `{}` has no tasks", group.id), help);
        }
    }

    /// What a group is called in the header of its table.
    fn header(&self, group: &GroupEntry<'_>, outline: &Outline<'_>) -> String {
        let own = own_name(&group.id, outline.prefix(group.parent));
        let mut path = format!("groups.{own}");
        for outer in outline.around(group.parent) {
            let outer = outline.group(outer);
            path = format!("groups.{}.{path}", own_name(&outer.id, outline.prefix(outer.parent)));
        }
        path
    }

    /// Looks a name up, and says what may have been meant if there is none.
    pub(super) fn find_member(
        &mut self,
        outline: &Outline<'_>,
        name: &str,
        scope: Option<GroupIx>,
        span: Range<usize>,
    ) -> Option<Member> {
        let found = outline.find(name, scope);
        // A task on a line that is no TOML may be missing here.
        if found.is_none() && !self.faults.has_broken_lines() {
            let near = if self.faults.is_full() { None } else { nearest(outline, name, scope) };
            let what = if outline.groups.is_empty() { "task" } else { "task or group" };
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add the task as `[tasks.{name}]`, or remove it here"),
            };
            self.faults.add(span, "unknown-task", format!("there is no {what} `{name}`"), help);
        }
        found
    }

    /// As [`Reader::find_member`], where only a task can stand.
    pub(super) fn find_task(
        &mut self,
        outline: &Outline<'_>,
        value: &Spanned<DeValue<'_>>,
        scope: Option<GroupIx>,
    ) -> Option<TaskIx> {
        let name = value.get_ref().as_str()?;
        match self.find_member(outline, name, scope, value.span())? {
            Member::Task(task) => Some(task),
            Member::Group(group) => {
                let first = outline.tasks.iter().find(|task| outline.around(task.group).any(|around| around == group));
                let message = format!("`{name}` is a group, and a task is needed here");
                let help = format!("name a task of it, such as `{}`", first.map_or("", |task| &*task.id));
                self.faults.add(value.span(), "unknown-task", message, help);
                None
            }
        }
    }
}

fn full_id(prefix: &str, name: &str) -> TaskId {
    if prefix.is_empty() { TaskId::from(name) } else { TaskId::from(format!("{prefix}{name}")) }
}

/// What a task or group is called inside the group that holds it.
fn own_name<'i>(id: &'i str, prefix: &str) -> &'i str {
    id.strip_prefix(prefix).unwrap_or(id)
}

/// The id that was most likely meant: by its name in the groups around, or as a whole.
fn nearest(outline: &Outline<'_>, name: &str, scope: Option<GroupIx>) -> Option<String> {
    let ids = || outline.tasks.iter().map(|task| &*task.id).chain(outline.groups.iter().map(|group| &*group.id));
    let inside = outline.around(scope).find_map(|group| {
        let prefix = &*outline.group(group).prefix;
        keytable::suggest(name, ids().filter_map(|id| id.strip_prefix(prefix)))
    });
    let near = inside.or_else(|| keytable::suggest(name, ids()));
    // Who leaves out a group means the task of that name.
    let by_last = || ids().find(|id| id.rsplit('.').next() == Some(name));
    near.or_else(by_last).map(str::to_owned)
}
