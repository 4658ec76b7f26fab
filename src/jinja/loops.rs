//! `{% for %}`, and the variable `loop` in it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::jinja::arguments::Args;
use crate::jinja::fault::{Res, UNDEFINED, type_error};
use crate::jinja::interpreter::Vm;
use crate::jinja::scope::Scope;
use crate::jinja::syntax::{For, Template};
use crate::jinja::undefined::Undefined;
use crate::jinja::value::{Items, Object, Range, Value};
use crate::jinja::{meter, operators};

/// What a loop goes through. A list may grow meanwhile, as in Python.
#[derive(Clone)]
pub enum Over {
    Items(Rc<Items>),
    Range(Range),
}

impl Over {
    pub fn of(value: &Value) -> Res<Self> {
        Ok(match value {
            Value::List(items) | Value::Tuple(items) => Self::Items(items.clone()),
            Value::Range(range) => Self::Range(*range),
            _ => Self::Items(Items::new(value.to_vec()?)),
        })
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Items(items) => items.len(),
            Self::Range(range) => range.len(),
        }
    }

    pub fn get(&self, at: usize) -> Option<Value> {
        match self {
            Self::Items(items) => items.get(at),
            Self::Range(range) => range.get(at),
        }
    }
}

/// Goes through `over`; `depth` is 0 for the outermost of a recursive loop.
pub fn run(vm: &mut Vm<'_>, ast: &Rc<For>, over: &Value, scope: &Rc<Scope>, depth: usize) -> Res<()> {
    let over = chosen(vm, ast, Over::of(over)?, scope)?;
    if over.len() == 0 {
        return vm.body(&ast.otherwise, &Scope::inside(scope));
    }
    let object: Rc<dyn Object> = Rc::new(Loop {
        over: over.clone(),
        at: Cell::new(0),
        depth,
        last_seen: RefCell::new(None),
        ast: ast.clone(),
        scope: scope.clone(),
        template: vm.template.clone(),
        kind: vm.undefined,
    });
    let state = object.as_any().downcast_ref::<Loop>().expect("it was made here");
    let name: Rc<str> = "loop".into();
    let mut at = 0;
    while let Some(item) = over.get(at) {
        meter::step(1)?;
        state.at.set(at);
        let inner = Scope::inside(scope);
        inner.set(name.clone(), Value::Object(object.clone()));
        vm.assign(&ast.target, item, &inner)?;
        vm.body(&ast.body, &inner)?;
        at += 1;
    }
    object.forget();
    Ok(())
}

/// Those items that the loop's `if` lets through.
fn chosen(vm: &mut Vm<'_>, ast: &For, over: Over, scope: &Rc<Scope>) -> Res<Over> {
    let Some(filter) = &ast.filter else { return Ok(over) };
    let mut items = Vec::new();
    let mut at = 0;
    while let Some(item) = over.get(at) {
        meter::step(1)?;
        let inner = Scope::inside(scope);
        vm.assign(&ast.target, item.clone(), &inner)?;
        if vm.evaluate(filter, &inner)?.is_true()? {
            items.push(item);
        }
        at += 1;
    }
    Ok(Over::Items(Items::new(items)))
}

/// The variable `loop`.
struct Loop {
    over: Over,
    at: Cell<usize>,
    depth: usize,
    /// What `changed` saw last.
    last_seen: RefCell<Option<Value>>,
    ast: Rc<For>,
    scope: Rc<Scope>,
    template: Rc<Template>,
    kind: crate::jinja::undefined::UndefinedKind,
}

impl Loop {
    fn neighbour(&self, at: Option<usize>, which: &str) -> Value {
        at.and_then(|at| self.over.get(at)).unwrap_or_else(|| {
            Value::Undefined(Rc::new(Undefined {
                message: format!("there is no {which} item"),
                name: "loop".into(),
                shown: format!("there is no {which} item"),
                class: UNDEFINED,
                kind: self.kind,
            }))
        })
    }
}

impl Object for Loop {
    fn type_name(&self) -> &str {
        "LoopContext"
    }

    fn text(&self) -> String {
        format!("<LoopContext {}/{}>", self.at.get() + 1, self.over.len())
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        let (at, length) = (self.at.get(), self.over.len());
        Ok(Some(match name {
            "index" => Value::count(at + 1),
            "index0" => Value::count(at),
            "revindex" => Value::count(length.saturating_sub(at)),
            "revindex0" => Value::count(length.saturating_sub(at + 1)),
            "first" => Value::Bool(at == 0),
            "last" => Value::Bool(at + 1 == length),
            "length" => Value::count(length),
            "depth" => Value::count(self.depth + 1),
            "depth0" => Value::count(self.depth),
            "previtem" => self.neighbour(at.checked_sub(1), "previous"),
            "nextitem" => self.neighbour(Some(at + 1), "next"),
            _ => return Ok(None),
        }))
    }

    fn methods(&self) -> &'static [&'static str] {
        &["changed", "cycle"]
    }

    fn call_method(&self, _: &mut Vm<'_>, name: &str, args: Args) -> Res<Value> {
        if name == "cycle" {
            let count = args.positional.len();
            if count == 0 {
                return type_error("no items for cycling given");
            }
            return Ok(args.positional[self.at.get() % count].clone());
        }
        let seen = Value::tuple(args.positional);
        let last = self.last_seen.replace(Some(seen.clone()));
        Ok(Value::Bool(match last {
            Some(last) => !operators::equals(&last, &seen)?,
            None => true,
        }))
    }

    fn is_callable(&self) -> bool {
        true
    }

    fn call(&self, vm: &mut Vm<'_>, args: Args) -> Res<Value> {
        let [over] = args.all("loop", ["iterable"])?;
        if !self.ast.is_recursive {
            return type_error("The loop must have the 'recursive' marker to be called recursively.");
        }
        let outer = std::mem::replace(&mut vm.template, self.template.clone());
        let text = vm.captured(|vm| run(vm, &self.ast, &over, &self.scope, self.depth + 1))?;
        vm.template = outer;
        Ok(vm.text(text))
    }

    fn forget(&self) {
        self.last_seen.take();
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
