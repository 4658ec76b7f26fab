//! A parsed template.

use std::rc::Rc;

use crate::jinja::value::{Text, Value};

/// A template, whole.
pub struct Template {
    /// The text that was parsed, for places in it.
    pub source: String,
    /// The template file, as it was asked for; None: the text itself.
    pub file: Option<Rc<str>>,
    pub body: Body,
    /// The blocks in it, wherever they stand, by name.
    pub blocks: Vec<(Rc<str>, Rc<Block>)>,
}

pub type Body = Vec<Statement>;

pub struct Statement {
    pub kind: Kind,
    /// The byte in the source at which it begins.
    pub at: u32,
}

pub enum Kind {
    Data(Text),
    Print(Expr),
    For(Rc<For>),
    If { branches: Vec<(Expr, Body)>, otherwise: Body },
    Macro(Rc<Macro>),
    Call { call: Expr, body: Rc<Macro> },
    FilterBlock { filter: Expr, body: Body },
    Set { target: Target, value: Expr },
    SetBlock { target: Target, filter: Option<Expr>, body: Body },
    With { bindings: Vec<(Target, Expr)>, body: Body },
    Do(Expr),
    Block(Rc<Block>),
    Extends(Expr),
    Include { names: Expr, ignores_missing: bool, has_context: bool },
    Import { name: Expr, alias: Rc<str>, has_context: bool },
    FromImport { name: Expr, names: Vec<(Rc<str>, Rc<str>)>, has_context: bool },
    AutoEscape { value: Expr, body: Body },
}

pub struct For {
    pub target: Target,
    pub over: Expr,
    pub filter: Option<Expr>,
    pub body: Body,
    pub otherwise: Body,
    pub is_recursive: bool,
}

/// A macro, or the body of a call block.
pub struct Macro {
    pub name: Rc<str>,
    pub parameters: Vec<(Rc<str>, Option<Expr>)>,
    pub body: Body,
    pub takes_caller: bool,
    pub takes_more: bool,
    pub takes_more_named: bool,
}

pub struct Block {
    pub name: Rc<str>,
    pub body: Body,
    pub is_scoped: bool,
    pub is_required: bool,
}

/// What is assigned to.
pub enum Target {
    Name(Rc<str>),
    Tuple(Vec<Self>),
    /// `namespace.attribute`.
    Attribute(Rc<str>, Rc<str>),
}

/// An expression.
pub struct Expr {
    pub node: Node,
    /// The byte in the source at which it begins.
    pub at: u32,
    /// How many expressions stand in each other here, itself included.
    pub depth: u16,
}

pub enum Node {
    Name(Rc<str>),
    Const(Value),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Concat(Vec<Expr>),
    Cond {
        test: Box<Expr>,
        then: Box<Expr>,
        otherwise: Option<Box<Expr>>,
    },
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    Sign(&'static str, Box<Expr>),
    Binary(&'static str, Box<Expr>, Box<Expr>),
    Compare(Box<Expr>, Vec<(&'static str, Expr)>),
    Attribute(Box<Expr>, Rc<str>),
    Item(Box<Expr>, Box<Expr>),
    Slice(Box<Expr>, Box<[Option<Expr>; 3]>),
    Call(Box<Expr>, Box<Arguments>),
    /// Without an input: what the filter's block gives.
    Filter(Option<Box<Expr>>, Rc<str>, Box<Arguments>),
    Test {
        input: Box<Expr>,
        name: Rc<str>,
        arguments: Box<Arguments>,
        is_negated: bool,
    },
}

#[derive(Default)]
pub struct Arguments {
    pub positional: Vec<Expr>,
    pub named: Vec<(Rc<str>, Expr)>,
    pub star: Option<Expr>,
    pub double_star: Option<Expr>,
}

impl Arguments {
    pub fn each(&self) -> impl Iterator<Item = &Expr> {
        let named = self.named.iter().map(|(_, value)| value);
        self.positional.iter().chain(named).chain(&self.star).chain(&self.double_star)
    }
}

impl Expr {
    pub fn new(node: Node, at: u32) -> Self {
        let depth = depth_below(&node).saturating_add(1);
        Self { node, at, depth }
    }

    /// As the user wrote it, if it is a name with attributes.
    pub fn path(&self) -> String {
        match &self.node {
            Node::Name(name) => name.to_string(),
            Node::Attribute(of, name) => format!("{}.{name}", of.path()),
            Node::Item(of, key) => match &key.node {
                Node::Const(key) => format!("{}[{}]", of.path(), crate::jinja::print::repr_or_type(key)),
                _ => of.path(),
            },
            Node::Call(of, _) => format!("{}(…)", of.path()),
            _ => String::new(),
        }
    }
}

fn depth_below(node: &Node) -> u16 {
    fn most<'e>(all: impl IntoIterator<Item = &'e Expr>) -> u16 {
        all.into_iter().map(|expr| expr.depth).max().unwrap_or(0)
    }
    match node {
        Node::Name(_) | Node::Const(_) => 0,
        Node::List(all) | Node::Tuple(all) | Node::Concat(all) => most(all),
        Node::Dict(pairs) => most(pairs.iter().flat_map(|(key, value)| [key, value])),
        Node::Cond { test, then, otherwise } => {
            most([test, then].map(|expr| &**expr).into_iter().chain(otherwise.as_deref()))
        }
        Node::And(left, right) | Node::Or(left, right) | Node::Binary(_, left, right) | Node::Item(left, right) => {
            left.depth.max(right.depth)
        }
        Node::Not(of) | Node::Sign(_, of) | Node::Attribute(of, _) => of.depth,
        Node::Compare(first, rest) => first.depth.max(most(rest.iter().map(|(_, expr)| expr))),
        Node::Slice(of, parts) => of.depth.max(most(parts.iter().flatten())),
        Node::Call(of, arguments) => of.depth.max(most(arguments.each())),
        Node::Filter(input, _, arguments) => most(input.as_deref()).max(most(arguments.each())),
        Node::Test { input, arguments, .. } => input.depth.max(most(arguments.each())),
    }
}
