//! Who runs after whom: `depends_on` of the tasks and the arrows of `chain`.

use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::{Reader, keys};
use crate::keytable::{self, Fields};
use crate::model::dag::Task;
use crate::model::graph::TaskIx;

/// `from` runs before `to`, because of what stands at `span`.
pub(super) struct Edge {
    pub from: TaskIx,
    pub to: TaskIx,
    pub span: Range<usize>,
}

/// Lists on both sides of an arrow connect each with each: a short line could ask for more than memory holds.
const MAX_EDGES: usize = 1_000_000;

/// A part of a chain's text.
type Part = Range<usize>;
/// What is wrong with a chain, and where.
type ChainFault = (String, Part);

/// Only looked up, never walked, so its order does not matter.
type Ids<'t> = HashMap<&'t str, TaskIx>;

impl Reader<'_, '_> {
    pub(super) fn edges(&mut self, fields: &Fields<'_>, tasks: &[Task]) -> Vec<Edge> {
        let ids: Ids<'_> = tasks.iter().zip(0..).map(|(task, at)| (&*task.task_id, TaskIx(at))).collect();
        let mut edges = Vec::new();
        let documents = fields.table("tasks").into_iter().flatten();
        for ((_, value), to) in documents.zip(0..) {
            let Some(document) = value.get_ref().as_table() else { continue };
            for item in Fields::new(&keys::TASK, document).list("depends_on") {
                let Some(name) = item.get_ref().as_str() else { continue };
                if let Some(from) = self.find_task(name, item.span(), &ids, tasks) {
                    self.connect(from, TaskIx(to), item.span(), tasks, &mut edges);
                }
            }
        }
        for item in fields.list("chain") {
            self.chain(item, &ids, tasks, &mut edges);
        }
        if edges.len() > MAX_EDGES {
            let message = format!("the DAG has more arrows than the limit of {MAX_EDGES}");
            self.faults.add_to_file("too-many-arrows", message, "put an `empty` task between two large groups");
            edges.clear();
        }
        edges
    }

    fn find_task(&mut self, name: &str, span: Range<usize>, ids: &Ids<'_>, tasks: &[Task]) -> Option<TaskIx> {
        let found = ids.get(name).copied();
        // A task on a line that is no TOML may be missing here.
        if found.is_none() && !self.faults.has_broken_lines() {
            let near = if self.faults.is_full() {
                None
            } else {
                keytable::suggest(name, tasks.iter().map(|task| &*task.task_id))
            };
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add the task as `[tasks.{name}]`, or remove it here"),
            };
            self.faults.add(span, "unknown-task", format!("there is no task `{name}`"), help);
        }
        found
    }

    fn connect(&mut self, from: TaskIx, to: TaskIx, span: Range<usize>, tasks: &[Task], edges: &mut Vec<Edge>) {
        if from == to {
            let message = format!("task `{}` waits for itself", tasks[to.index()].task_id);
            self.faults.add(span, "cycle", message, "remove it here");
        } else if edges.len() <= MAX_EDGES {
            edges.push(Edge { from, to, span });
        }
    }

    fn chain(&mut self, item: &Spanned<DeValue<'_>>, ids: &Ids<'_>, tasks: &[Task], edges: &mut Vec<Edge>) {
        let Some(text) = item.get_ref().as_str() else { return };
        let links = match parse_chain(text) {
            Ok(links) => links,
            Err((message, part)) => {
                let span = self.faults.source.inner_span(&item.span(), text, part);
                let help = "write task ids with arrows between them, like \"a >> [b, c] >> d\" or \"d << b\"";
                self.faults.add(span, "bad-chain", message, help);
                return;
            }
        };
        let mut previous: Option<(Arrow, Vec<_>)> = None;
        for Link { names, arrow } in links {
            let mut found = Vec::new();
            for (name, part) in names {
                let span = self.faults.source.inner_span(&item.span(), text, part);
                found.extend(self.find_task(name, span.clone(), ids, tasks).map(|task| (task, span)));
            }
            if let Some((arrow, left)) = &previous {
                for (left, _) in left {
                    for (right, span) in &found {
                        let (from, to) = match arrow {
                            Arrow::Right => (*left, *right),
                            Arrow::Left => (*right, *left),
                        };
                        self.connect(from, to, span.clone(), tasks, edges);
                    }
                }
            }
            previous = arrow.map(|arrow| (arrow, found));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrow {
    /// `>>`
    Right,
    /// `<<`
    Left,
}

/// The ids at one place of a chain, and the arrow behind them; the last link has none.
#[derive(Debug, PartialEq, Eq)]
struct Link<'t> {
    names: Vec<(&'t str, Part)>,
    arrow: Option<Arrow>,
}

/// Reads `a >> [b, c] << d`. A fault is a message and a part of the text.
fn parse_chain(text: &str) -> Result<Vec<Link<'_>>, ChainFault> {
    let mut links = Vec::new();
    let mut rest = 0;
    loop {
        let arrow_at = [">>", "<<"].iter().filter_map(|arrow| text[rest..].find(arrow)).min().map(|at| rest + at);
        let end = arrow_at.unwrap_or(text.len());
        let names = parse_names(text, rest..end)?;
        let Some(at) = arrow_at else {
            links.push(Link { names, arrow: None });
            break;
        };
        let arrow = if text[at..].starts_with('>') { Arrow::Right } else { Arrow::Left };
        links.push(Link { names, arrow: Some(arrow) });
        rest = at + 2;
    }
    if links.len() < 2 {
        return Err(("a chain needs an arrow".to_owned(), 0..text.len()));
    }
    Ok(links)
}

/// Reads one id, or several in brackets.
fn parse_names(text: &str, part: Part) -> Result<Vec<(&str, Part)>, ChainFault> {
    let part = trim(text, part);
    let inside = match text[part.clone()].strip_prefix('[') {
        None => return parse_name(text, part).map(|name| vec![name]),
        Some(after) if after.ends_with(']') => part.start + 1..part.end - 1,
        Some(_) => return Err(("a `[` without its `]`".to_owned(), part)),
    };
    let mut start = inside.start;
    let mut names = Vec::new();
    for piece in text[inside].split(',') {
        names.push(parse_name(text, trim(text, start..start + piece.len()))?);
        start += piece.len() + 1;
    }
    Ok(names)
}

fn parse_name(text: &str, part: Part) -> Result<(&str, Part), ChainFault> {
    let name = &text[part.clone()];
    match super::fault_of_id(name) {
        None => Ok((name, part)),
        Some(_) if name.is_empty() => Err(("a task id is missing".to_owned(), part)),
        Some(_) => Err((format!("`{name}` is no task id"), part)),
    }
}

fn trim(text: &str, part: Part) -> Part {
    let piece = &text[part.clone()];
    let start = part.start + (piece.len() - piece.trim_start().len());
    start..start + piece.trim().len()
}
