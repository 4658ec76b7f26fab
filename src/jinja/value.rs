//! What an expression can be: Python's values, as far as templates have them.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::rc::Rc;

use crate::jinja::dict::Dict;
use crate::jinja::fault::{Fault, Res};
use crate::jinja::interpreter::Vm;
use crate::jinja::undefined::Undefined;
use crate::jinja::{arguments::Args, meter};

#[derive(Clone)]
pub enum Value {
    Undefined(Rc<Undefined>),
    None,
    Bool(bool),
    /// Python's are without limit; these have 127 bits, and a result beyond is an error.
    Int(i128),
    Float(f64),
    Text(Text),
    List(Rc<Items>),
    Tuple(Rc<Items>),
    Dict(Rc<Dict>),
    /// `range(…)`.
    Range(Range),
    /// `dict.keys()`, `.values()`, `.items()`.
    View(View, Rc<Dict>),
    /// A generator: what filters such as `map` give. Each item is given once.
    Stream(Rc<Stream>),
    Object(Rc<dyn Object>),
}

/// A text, and whether it is safe as markup (Python: `Markup`).
#[derive(Clone)]
pub struct Text(Rc<TextBody>);

struct TextBody {
    text: String,
    is_markup: bool,
}

/// What a value costs beside its content, in bytes.
const OVERHEAD: usize = 48;

impl Text {
    pub fn new(text: String, is_markup: bool) -> Self {
        meter::hold(text.capacity() + OVERHEAD);
        Self(Rc::new(TextBody { text, is_markup }))
    }

    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    pub fn is_markup(&self) -> bool {
        self.0.is_markup
    }
}

impl Drop for TextBody {
    fn drop(&mut self) {
        meter::release(self.text.capacity() + OVERHEAD);
    }
}

/// The items of a list or tuple.
pub struct Items {
    cell: RefCell<Vec<Value>>,
    held: Cell<usize>,
    mark: Mark,
}

/// What a list or tuple is beside its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Plain,
    /// It prints as JSON.
    Json,
    /// One of `groupby`: its items are `grouper` and `list` as well.
    Group,
    /// Python's `IsoCalendarDate`: its items are `year`, `week` and `weekday` as well.
    Calendar,
}

impl Items {
    pub fn new(items: Vec<Value>) -> Rc<Self> {
        Self::marked(items, Mark::Plain)
    }

    pub fn marked(items: Vec<Value>, mark: Mark) -> Rc<Self> {
        let list = Self { cell: RefCell::new(items), held: Cell::new(0), mark };
        list.weigh();
        Rc::new(list)
    }

    pub fn mark(&self) -> Mark {
        self.mark
    }

    pub fn is_empty(&self) -> bool {
        self.cell.borrow().is_empty()
    }

    pub fn len(&self) -> usize {
        self.cell.borrow().len()
    }

    pub fn get(&self, at: usize) -> Option<Value> {
        self.cell.borrow().get(at).cloned()
    }

    /// A copy of all items.
    pub fn to_vec(&self) -> Vec<Value> {
        self.cell.borrow().clone()
    }

    pub fn with<T>(&self, look: impl FnOnce(&[Value]) -> T) -> T {
        look(&self.cell.borrow())
    }

    /// Changes a list in place.
    pub fn change<T>(&self, change: impl FnOnce(&mut Vec<Value>) -> T) -> T {
        let changed = change(&mut self.cell.borrow_mut());
        self.weigh();
        changed
    }

    /// Lets go of all.
    pub(super) fn forget(&self) {
        unnest(self.change(std::mem::take));
    }

    fn weigh(&self) {
        let bytes = self.cell.borrow().capacity() * size_of::<Value>() + OVERHEAD;
        meter::release(self.held.get());
        meter::hold(bytes);
        self.held.set(bytes);
    }
}

impl Drop for Items {
    fn drop(&mut self) {
        meter::release(self.held.get());
        unnest(std::mem::take(self.cell.get_mut()));
    }
}

thread_local! {
    static NESTING: Cell<usize> = const { Cell::new(0) };
    static LATER: RefCell<Vec<Vec<Value>>> = const { RefCell::new(Vec::new()) };
}

/// Lets go of values one after another where they nest deeply: a list in a list in a list… must not take the stack.
pub(super) fn unnest(values: Vec<Value>) {
    const DEEP: usize = 32;
    if values.is_empty() {
        return;
    }
    let depth = NESTING.get();
    if depth >= DEEP {
        LATER.with_borrow_mut(|later| later.push(values));
        return;
    }
    NESTING.set(depth + 1);
    drop(values);
    if depth == 0 {
        while let Some(values) = LATER.with_borrow_mut(Vec::pop) {
            drop(values);
        }
    }
    NESTING.set(depth);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub start: i64,
    pub stop: i64,
    pub step: i64,
}

impl Range {
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    pub fn len(self) -> usize {
        let span = if self.step > 0 {
            i128::from(self.stop) - i128::from(self.start)
        } else {
            i128::from(self.start) - i128::from(self.stop)
        };
        let step = i128::from(self.step).abs();
        usize::try_from((span + step - 1) / step).unwrap_or(0)
    }

    pub fn get(self, at: usize) -> Option<Value> {
        (at < self.len()).then(|| Value::Int(i128::from(self.start) + i128::from(self.step) * at as i128))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Keys,
    Values,
    Items,
}

/// The items that are left of a generator.
pub struct Stream {
    items: Rc<Items>,
    at: Cell<usize>,
}

impl Stream {
    pub fn next(&self) -> Option<Value> {
        let item = self.items.get(self.at.get())?;
        self.at.set(self.at.get() + 1);
        Some(item)
    }

    pub fn left(&self) -> usize {
        self.items.len().saturating_sub(self.at.get())
    }
}

/// A value with behaviour of its own: a time, a macro, a task.
pub trait Object: Any {
    /// Python's name of its class.
    fn type_name(&self) -> &str;

    /// Python's `str`.
    fn text(&self) -> String;

    /// Python's `repr`.
    fn repr(&self) -> String {
        self.text()
    }

    /// `object.name`, where that is no method.
    ///
    /// # Errors
    /// What it comes from did not answer.
    fn attribute(&self, _name: &str) -> Res<Option<Value>> {
        Ok(None)
    }

    /// `object[key]`, before its attributes are looked at.
    ///
    /// # Errors
    /// A key that it cannot have.
    fn item(&self, _key: &Value) -> Res<Option<Value>> {
        Ok(None)
    }

    /// The names that [`Object::call_method`] knows.
    fn methods(&self) -> &'static [&'static str] {
        &[]
    }

    /// `object.name(…)` of one of [`Object::methods`].
    ///
    /// # Errors
    /// Wrong arguments, or what the method refuses.
    fn call_method(&self, _vm: &mut Vm<'_>, name: &str, _args: Args) -> Res<Value> {
        Err(Fault::new("AttributeError", format!("'{}' object has no attribute '{name}'", self.type_name())))
    }

    fn is_callable(&self) -> bool {
        false
    }

    /// `object(…)`.
    ///
    /// # Errors
    /// It is no function, wrong arguments, or what the function refuses.
    fn call(&self, _vm: &mut Vm<'_>, _args: Args) -> Res<Value> {
        Err(Fault::new("TypeError", format!("'{}' object is not callable", self.type_name())))
    }

    /// What a loop over it goes through; None where there is no such thing.
    fn items(&self) -> Option<Vec<Value>> {
        None
    }

    fn is_true(&self) -> bool {
        true
    }

    /// Order against another value; None where Python has none.
    fn order(&self, _other: &Value) -> Option<Ordering> {
        None
    }

    fn equals(&self, other: &Value) -> bool {
        self.order(other) == Some(Ordering::Equal)
    }

    /// `self OPERATOR other`, or `other OPERATOR self` when `is_right`; None where Python has no such operation.
    fn operate(&self, _operator: &str, _other: &Value, _is_right: bool) -> Option<Res<Value>> {
        None
    }

    /// Python's `format(object, spec)`.
    ///
    /// # Errors
    /// A specification that the type does not know.
    fn format(&self, spec: &str) -> Res<String> {
        match spec {
            "" => Ok(self.text()),
            _ => Err(Fault::new(
                "TypeError",
                format!("unsupported format string passed to {}.__format__", self.type_name()),
            )),
        }
    }

    /// What it is as plain data, for JSON and native values.
    fn data(&self) -> Option<Value> {
        None
    }

    /// Lets go of what may lead back to itself, at the end of a render.
    fn forget(&self) {}

    fn as_any(&self) -> &dyn Any;
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Text::new(text.into(), false))
    }

    pub fn markup(text: impl Into<String>) -> Self {
        Self::Text(Text::new(text.into(), true))
    }

    pub fn list(items: Vec<Self>) -> Self {
        Self::List(Items::new(items))
    }

    pub fn tuple(items: Vec<Self>) -> Self {
        Self::Tuple(Items::new(items))
    }

    pub fn stream(items: Vec<Self>) -> Self {
        Self::Stream(Rc::new(Stream { items: Items::new(items), at: Cell::new(0) }))
    }

    pub fn int(number: impl Into<i128>) -> Self {
        Self::Int(number.into())
    }

    /// A length or a count.
    pub fn count(number: usize) -> Self {
        Self::Int(number as i128)
    }

    pub fn object(object: impl Object) -> Self {
        Self::Object(Rc::new(object))
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// The whole number that this is; a bool is 0 or 1, as in Python.
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Self::Bool(value) => Some(i128::from(*value)),
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            _ => self.as_int().map(|number| number as f64),
        }
    }

    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    pub fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined(_))
    }

    /// The object of this type that it is.
    pub fn downcast<T: Object>(&self) -> Option<&T> {
        match self {
            Self::Object(object) => object.as_any().downcast_ref(),
            _ => None,
        }
    }

    /// Python's name of its type.
    pub fn type_name(&self) -> &str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(text) if text.is_markup() => "Markup",
            Self::Text(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Range(_) => "range",
            Self::View(View::Keys, _) => "dict_keys",
            Self::View(View::Values, _) => "dict_values",
            Self::View(View::Items, _) => "dict_items",
            Self::Stream(_) => "generator",
            Self::Object(object) => object.type_name(),
        }
    }

    /// Python's truth.
    ///
    /// # Errors
    /// A strictly undefined value.
    pub fn is_true(&self) -> Res<bool> {
        Ok(match self {
            Self::Undefined(undefined) => {
                undefined.lenient()?;
                false
            }
            Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.as_str().is_empty(),
            Self::List(items) | Self::Tuple(items) => !items.is_empty(),
            Self::Dict(dict) | Self::View(_, dict) => !dict.is_empty(),
            Self::Range(range) => !range.is_empty(),
            Self::Stream(_) => true,
            Self::Object(object) => object.is_true(),
        })
    }

    /// Python's `len`.
    ///
    /// # Errors
    /// It has none.
    pub fn length(&self) -> Res<usize> {
        Ok(match self {
            Self::Undefined(undefined) => {
                undefined.lenient()?;
                0
            }
            Self::Text(text) => {
                meter::read(text.as_str().len())?;
                text.as_str().chars().count()
            }
            Self::List(items) | Self::Tuple(items) => items.len(),
            Self::Dict(dict) | Self::View(_, dict) => dict.len(),
            Self::Range(range) => range.len(),
            Self::Object(object) if object.items().is_some() => object.items().map_or(0, |items| items.len()),
            _ => return Err(Fault::new("TypeError", format!("object of type '{}' has no len()", self.type_name()))),
        })
    }

    /// Goes through its items.
    ///
    /// # Errors
    /// It has none to go through.
    pub fn iterate(&self) -> Res<Iter> {
        Ok(match self {
            Self::Undefined(undefined) => {
                undefined.lenient()?;
                Iter::Items(Items::new(Vec::new()), 0)
            }
            Self::Text(text) => Iter::Chars(text.clone(), 0),
            Self::List(items) | Self::Tuple(items) => Iter::Items(items.clone(), 0),
            Self::Dict(dict) => Iter::View(View::Keys, dict.clone(), 0),
            Self::View(view, dict) => Iter::View(*view, dict.clone(), 0),
            Self::Range(range) => Iter::Range(*range, 0),
            Self::Stream(stream) => Iter::Stream(stream.clone()),
            Self::Object(object) if object.items().is_some() => {
                Iter::Items(Items::new(object.items().unwrap_or_default()), 0)
            }
            _ => return Err(Fault::new("TypeError", format!("'{}' object is not iterable", self.type_name()))),
        })
    }

    /// All its items; each costs a step.
    ///
    /// # Errors
    /// As [`Value::iterate`], or too many.
    pub fn to_vec(&self) -> Res<Vec<Self>> {
        let items = self.iterate()?;
        let expected = items.left();
        meter::step(expected)?;
        meter::room(expected * size_of::<Self>())?;
        let mut all = Vec::with_capacity(expected);
        for item in items {
            all.push(item);
        }
        Ok(all)
    }
}

/// Where a loop stands. Lists are seen as they are then, as in Python.
pub enum Iter {
    Items(Rc<Items>, usize),
    Chars(Text, usize),
    View(View, Rc<Dict>, usize),
    Range(Range, usize),
    Stream(Rc<Stream>),
}

impl Iter {
    /// How many items are left, as far as can be said.
    pub fn left(&self) -> usize {
        match self {
            Self::Items(items, at) => items.len().saturating_sub(*at),
            Self::Chars(text, at) => text.as_str()[*at..].chars().count(),
            Self::View(_, dict, at) => dict.len().saturating_sub(*at),
            Self::Range(range, at) => range.len().saturating_sub(*at),
            Self::Stream(stream) => stream.left(),
        }
    }
}

impl Iterator for Iter {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        match self {
            Self::Items(items, at) => {
                let item = items.get(*at)?;
                *at += 1;
                Some(item)
            }
            Self::Chars(text, at) => {
                let char = text.as_str()[*at..].chars().next()?;
                *at += char.len_utf8();
                Some(Value::text(char))
            }
            Self::View(view, dict, at) => {
                let (key, item) = dict.entry(*at)?;
                *at += 1;
                Some(match view {
                    View::Keys => key,
                    View::Values => item,
                    View::Items => Value::tuple(vec![key, item]),
                })
            }
            Self::Range(range, at) => {
                let item = range.get(*at)?;
                *at += 1;
                Some(item)
            }
            Self::Stream(stream) => stream.next(),
        }
    }
}
