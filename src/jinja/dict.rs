//! Python's dict: keys in the order in which they came.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::jinja::fault::{Fault, Res};
use crate::jinja::meter;
use crate::jinja::print::{MOST_DEEP, too_deep};
use crate::jinja::value::{Value, unnest};

/// A key as equality sees it: 1, 1.0 and True are the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    None,
    Int(i128),
    /// The bits of a number that is not whole.
    Float(u64),
    Text(String),
    Tuple(Vec<Self>),
    /// An object, by its type and text.
    Other(String, String),
}

impl Key {
    /// # Errors
    /// A list or dict is no key, nor is what is too deep or too large.
    pub fn of(value: &Value) -> Res<Self> {
        Self::at(value, 0)
    }

    fn at(value: &Value, depth: usize) -> Res<Self> {
        if depth > MOST_DEEP {
            return Err(too_deep());
        }
        // A tuple may hold another many times: a key holds a copy for each.
        meter::step(1)?;
        Ok(match value {
            Value::None => Self::None,
            Value::Bool(value) => Self::Int(i128::from(*value)),
            Value::Int(number) => Self::Int(*number),
            Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e38 => Self::Int(*number as i128),
            Value::Float(number) => Self::Float(number.to_bits()),
            Value::Text(text) => {
                meter::read(text.as_str().len())?;
                Self::Text(text.as_str().to_owned())
            }
            Value::Tuple(items) => {
                let parts =
                    items.with(|items| items.iter().map(|item| Self::at(item, depth + 1)).collect::<Res<_>>())?;
                Self::Tuple(parts)
            }
            Value::Undefined(undefined) => return Err(undefined.fault()),
            Value::Object(object) => Self::Other(object.type_name().to_owned(), object.repr()),
            Value::Range(range) => Self::Other("range".to_owned(), format!("{range:?}")),
            Value::List(_) | Value::Dict(_) | Value::View(..) | Value::Stream(_) => {
                return Err(Fault::new("TypeError", format!("unhashable type: '{}'", value.type_name())));
            }
        })
    }

    /// What it holds beside itself, in bytes.
    fn bytes(&self) -> usize {
        match self {
            Self::None | Self::Int(_) | Self::Float(_) => 0,
            Self::Text(text) => text.len(),
            Self::Tuple(parts) => parts.iter().map(|part| size_of::<Self>() + part.bytes()).sum(),
            Self::Other(class, text) => class.len() + text.len(),
        }
    }
}

#[derive(Default)]
struct Entries {
    entries: Vec<(Value, Value)>,
    places: BTreeMap<Key, usize>,
}

/// What an entry costs beside its values, in bytes.
const ENTRY_BYTES: usize = 160;

#[derive(Default)]
pub struct Dict {
    inner: RefCell<Entries>,
    held: Cell<usize>,
    is_json: bool,
    has_lists: bool,
}

impl Dict {
    /// Later values of the same key win.
    ///
    /// # Errors
    /// A key that is none.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (Value, Value)>) -> Res<Rc<Self>> {
        let dict = Self::default();
        for (key, value) in pairs {
            dict.insert(key, value)?;
        }
        Ok(Rc::new(dict))
    }

    /// With texts as keys, which always are some.
    pub fn of_texts(pairs: impl IntoIterator<Item = (String, Value)>) -> Rc<Self> {
        Self::printed(pairs, false)
    }

    /// The same; it prints as JSON if `is_json`, and is any dict otherwise.
    pub fn printed(pairs: impl IntoIterator<Item = (String, Value)>, is_json: bool) -> Rc<Self> {
        Self { inner: RefCell::default(), held: Cell::new(0), is_json, has_lists: false }.filled(pairs)
    }

    /// Python's `defaultdict(list)`: a key that is missing stands for an empty list. What is looked at is not kept.
    pub fn of_lists(pairs: impl IntoIterator<Item = (String, Value)>) -> Rc<Self> {
        Self { inner: RefCell::default(), held: Cell::new(0), is_json: false, has_lists: true }.filled(pairs)
    }

    fn filled(self, pairs: impl IntoIterator<Item = (String, Value)>) -> Rc<Self> {
        for (key, value) in pairs {
            self.put(Key::Text(key.clone()), || Value::text(key), value);
        }
        Rc::new(self)
    }

    pub fn is_json(&self) -> bool {
        self.is_json
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        self.inner.borrow().entries.len()
    }

    pub fn entry(&self, at: usize) -> Option<(Value, Value)> {
        self.inner.borrow().entries.get(at).cloned()
    }

    pub fn entries(&self) -> Vec<(Value, Value)> {
        self.inner.borrow().entries.clone()
    }

    /// # Errors
    /// A key that is none.
    pub fn get(&self, key: &Value) -> Res<Option<Value>> {
        Ok(self.find(&Key::of(key)?))
    }

    pub fn get_text(&self, key: &str) -> Option<Value> {
        self.find(&Key::Text(key.to_owned()))
    }

    /// What a key stands for that is not in it.
    pub fn missing(&self) -> Option<Value> {
        self.has_lists.then(|| Value::list(Vec::new()))
    }

    fn find(&self, key: &Key) -> Option<Value> {
        let inner = self.inner.borrow();
        inner.places.get(key).and_then(|at| inner.entries.get(*at)).map(|(_, value)| value.clone())
    }

    /// # Errors
    /// A key that is none.
    pub fn insert(&self, key: Value, value: Value) -> Res<()> {
        self.put(Key::of(&key)?, || key, value);
        Ok(())
    }

    fn put(&self, key: Key, shown: impl FnOnce() -> Value, value: Value) {
        let inner = &mut *self.inner.borrow_mut();
        if let Some(at) = inner.places.get(&key) {
            inner.entries[*at].1 = value;
            return;
        }
        let bytes = ENTRY_BYTES + key.bytes();
        meter::hold(bytes);
        self.held.set(self.held.get() + bytes);
        inner.places.insert(key, inner.entries.len());
        inner.entries.push((shown(), value));
    }

    /// # Errors
    /// A key that is none.
    pub fn remove(&self, key: &Value) -> Res<Option<Value>> {
        let inner = &mut *self.inner.borrow_mut();
        let Some(at) = inner.places.remove(&Key::of(key)?) else { return Ok(None) };
        meter::step(inner.entries.len())?;
        let (_, value) = inner.entries.remove(at);
        inner.places.values_mut().filter(|place| **place > at).for_each(|place| *place -= 1);
        Ok(Some(value))
    }

    pub fn clear(&self) {
        let taken = std::mem::take(&mut *self.inner.borrow_mut());
        meter::release(self.held.replace(0));
        unnest(taken.entries.into_iter().flat_map(|(key, value)| [key, value]).collect());
    }
}

impl Drop for Dict {
    fn drop(&mut self) {
        self.clear();
    }
}
