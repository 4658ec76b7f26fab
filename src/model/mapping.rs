//! Dynamic mapping: how one task, or one group of tasks, becomes many (SEMANTICS 15).

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::model::dag::{Position, Template};
use crate::model::graph::TaskIx;

/// A mapping's place in [`crate::model::Dag::mappings`]. Dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MappingIx(pub u32);

impl MappingIx {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A task group's place in [`crate::model::Dag::groups`]. Dense; a group stands behind the one that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupIx(pub u32);

impl GroupIx {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// `[groups.ID]`. Its tasks are those whose [`crate::model::Task::group`] is it or a group inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// With those of the groups around it, e.g. `outer.inner`.
    pub group_id: String,
    pub parent: Option<GroupIx>,
    /// What stands before the ids of what it holds; empty without `prefix_group_id`.
    pub prefix: String,
    pub tooltip: String,
}

/// What `name` means where `around` are the groups, from the inside out, each with its prefix: something in that group, by its path
/// from there; else in one of the groups around it; else what has it as its full id. `of_id` knows the full ids, and `holds` whether
/// something is inside a group, at whatever depth.
pub fn meaning<'p, M: Copy>(
    name: &str,
    around: impl Iterator<Item = (GroupIx, &'p str)>,
    of_id: impl Fn(&str) -> Option<M>,
    holds: impl Fn(GroupIx, M) -> bool,
) -> Option<M> {
    let mut around = around;
    let nearest = around.find_map(|(group, prefix)| {
        let path = if prefix.is_empty() { Cow::Borrowed(name) } else { Cow::Owned(format!("{prefix}{name}")) };
        of_id(&path).filter(|&member| holds(group, member))
    });
    nearest.or_else(|| of_id(name))
}

/// The most instances that one task may have: they take some 400 MB while their run is under way.
pub const MAX_INSTANCES: u64 = 250_000;

/// What an `expand` or `expand_kwargs` of a task or group says. Whom it multiplies is in the graph ([`crate::model::Node::mappings`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    pub form: Form,
    /// `partial`: the same for every instance.
    pub partial: Map<String, Value>,
    /// Where it stands in the DAG file, for messages.
    pub at: Position,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// `expand`: the product of the inputs, in the order of the file; the last varies fastest. At least one.
    Product(Vec<(String, Input)>),
    /// `expand_kwargs`: each element is a table of names.
    Kwargs(Input),
}

/// Where the elements of a mapping come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A list, or a table whose elements are `[key, value]`.
    Literal(Value),
    Xcom(XcomInput),
    /// Element by element; as long as the shortest, or with `fillvalue` as the longest.
    Zip {
        inputs: Vec<Self>,
        fillvalue: Option<Value>,
    },
    /// One after the other.
    Concat(Vec<Self>),
    /// `map` and `filter` over another input, worked out for each instance by itself: they do not change the length. An element that
    /// `filter` refuses skips its instance.
    Each {
        input: Box<Self>,
        map: Option<Template>,
        filter: Option<Template>,
    },
}

/// What an upstream task has pushed; of a mapped one the list of what its instances have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XcomInput {
    pub task: TaskIx,
    pub key: String,
}

impl Mapping {
    /// The XComs that it needs, in the order of the file, each once.
    pub fn xcoms(&self) -> Vec<&XcomInput> {
        let mut found = Vec::new();
        match &self.form {
            Form::Product(inputs) => inputs.iter().for_each(|(_, input)| input.collect(&mut found)),
            Form::Kwargs(input) => input.collect(&mut found),
        }
        found
    }

    /// The names that are known before any run: those of `expand` and `partial`, and of the elements that stand in the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let (of_product, elements) = match &self.form {
            Form::Product(inputs) => (&inputs[..], &[][..]),
            Form::Kwargs(Input::Literal(Value::Array(elements))) => (&[][..], &elements[..]),
            Form::Kwargs(_) => (&[][..], &[][..]),
        };
        let of_elements = elements.iter().filter_map(Value::as_object).flat_map(Map::keys);
        of_product.iter().map(|(name, _)| name).chain(of_elements).chain(self.partial.keys()).map(String::as_str)
    }

    /// `map` and `filter` wherever they stand.
    pub fn templates(&self) -> Vec<&Template> {
        let mut found = Vec::new();
        match &self.form {
            Form::Product(inputs) => inputs.iter().for_each(|(_, input)| input.collect_templates(&mut found)),
            Form::Kwargs(input) => input.collect_templates(&mut found),
        }
        found
    }
}

impl Input {
    fn collect_templates<'i>(&'i self, found: &mut Vec<&'i Template>) {
        match self {
            Self::Literal(_) | Self::Xcom(_) => {}
            Self::Zip { inputs, .. } | Self::Concat(inputs) => {
                inputs.iter().for_each(|input| input.collect_templates(found));
            }
            Self::Each { input, map, filter } => {
                found.extend(map.iter().chain(filter));
                input.collect_templates(found);
            }
        }
    }

    fn collect<'i>(&'i self, found: &mut Vec<&'i XcomInput>) {
        match self {
            Self::Literal(_) => {}
            Self::Xcom(xcom) if found.contains(&xcom) => {}
            Self::Xcom(xcom) => found.push(xcom),
            Self::Zip { inputs, .. } | Self::Concat(inputs) => inputs.iter().for_each(|input| input.collect(found)),
            Self::Each { input, .. } => input.collect(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_xcoms_of_a_mapping_are_named_once_wherever_they_stand() {
        let xcom = |task| Input::Xcom(XcomInput { task: TaskIx(task), key: "return_value".to_owned() });
        let zip = Input::Zip { inputs: vec![xcom(2), Input::Literal(Value::Null)], fillvalue: None };
        let each = Input::Each { input: Box::new(xcom(1)), map: None, filter: None };
        let form = Form::Product(vec![("a".to_owned(), Input::Concat(vec![zip, each])), ("b".to_owned(), xcom(2))]);
        let mapping = Mapping { form, partial: Map::new(), at: Position::default() };
        let tasks: Vec<u32> = mapping.xcoms().iter().map(|xcom| xcom.task.0).collect();
        assert_eq!(tasks, [2, 1]);
    }
}
