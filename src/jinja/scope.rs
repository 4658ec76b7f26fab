//! Names and what they stand for, one scope in another.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::jinja::meter;
use crate::jinja::value::Value;

/// What a scope and a name in it cost, in bytes.
const SCOPE_BYTES: usize = 160;
const NAME_BYTES: usize = 64;

pub struct Scope {
    held: Cell<usize>,
    names: RefCell<Vec<(Rc<str>, Value)>>,
    parent: Option<Rc<Self>>,
    /// Of an outermost scope: whether the variables from outside are seen.
    has_context: bool,
}

/// What a name is.
pub enum Found {
    Value(Value),
    /// No scope has it; ask outside if that is seen.
    Absent {
        has_context: bool,
    },
}

impl Scope {
    pub fn outermost(has_context: bool) -> Rc<Self> {
        Self::new(None, has_context)
    }

    pub fn inside(parent: &Rc<Self>) -> Rc<Self> {
        Self::new(Some(parent.clone()), true)
    }

    fn new(parent: Option<Rc<Self>>, has_context: bool) -> Rc<Self> {
        meter::hold(SCOPE_BYTES);
        Rc::new(Self { held: Cell::new(SCOPE_BYTES), names: RefCell::default(), parent, has_context })
    }

    pub fn find(&self, name: &str) -> Found {
        let mut scope = self;
        loop {
            let found =
                scope.names.borrow().iter().rev().find(|(known, _)| **known == *name).map(|(_, value)| value.clone());
            if let Some(value) = found {
                return Found::Value(value);
            }
            match &scope.parent {
                Some(parent) => scope = parent,
                None => return Found::Absent { has_context: scope.has_context },
            }
        }
    }

    pub fn set(&self, name: Rc<str>, value: Value) {
        let mut names = self.names.borrow_mut();
        match names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => {
                meter::hold(NAME_BYTES);
                self.held.set(self.held.get() + NAME_BYTES);
                names.push((name, value));
            }
        }
    }

    /// What has been set in this very scope.
    pub fn own(&self) -> Vec<(Rc<str>, Value)> {
        self.names.borrow().clone()
    }

    /// Lets go of all, also of macros that lead back here.
    pub fn forget(&self) {
        let names = std::mem::take(&mut *self.names.borrow_mut());
        crate::jinja::value::unnest(names.into_iter().map(|(_, value)| value).collect());
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        meter::release(self.held.get());
        self.forget();
    }
}
