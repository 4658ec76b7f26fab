//! Carries out a parsed template's statements.

use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use crate::jinja::compose::Inheritance;
use crate::jinja::dict::Dict;
use crate::jinja::fault::{Fault, LIMIT, Place, Res, UNDEFINED, type_error, value_error};
use crate::jinja::functions::Namespace;
use crate::jinja::loops;
use crate::jinja::macros::MacroValue;
use crate::jinja::scope::{Found, Scope};
use crate::jinja::syntax::{Body, Expr, Kind, Node, Statement, Target, Template};
use crate::jinja::undefined::{Undefined, UndefinedKind};
use crate::jinja::value::{Items, Object, Value};
use crate::jinja::{Literals, Outside, filters, functions, literal, meter, operators, parser, print, tests_of_values};

/// How deep expressions, tags and macros may stand in each other while they are carried out.
pub const MOST_LEVELS: usize = 300;
/// The longest text that one template may become, in bytes.
pub const MOST_OUTPUT_BYTES: usize = 16 << 20;

/// What one render has at hand.
pub struct Vm<'o> {
    pub(super) outside: &'o dyn Outside,
    pub(super) undefined: UndefinedKind,
    /// The template whose statements are carried out.
    pub(super) template: Rc<Template>,
    /// Those that were loaded, by name.
    pub(super) loaded: BTreeMap<String, Rc<Template>>,
    pub(super) inheritance: Option<Inheritance>,
    pub(super) escapes: bool,
    pub(super) chance: u64,
    out: String,
    /// What is printed outside of every capture, for a native value.
    pieces: Option<Vec<Value>>,
    levels: usize,
    /// What may lead back to itself.
    kept: Vec<Kept>,
    session: meter::Session,
}

/// Something that can hold what holds it.
pub(super) enum Kept {
    Object(Weak<dyn Object>),
    List(Weak<Items>),
    Dict(Weak<Dict>),
    Scope(Weak<Scope>),
}

impl Drop for Vm<'_> {
    fn drop(&mut self) {
        for kept in self.kept.drain(..) {
            match kept {
                Kept::Object(object) => object.upgrade().iter().for_each(|object| object.forget()),
                Kept::List(list) => list.upgrade().iter().for_each(|list| list.forget()),
                Kept::Dict(dict) => dict.upgrade().iter().for_each(|dict| dict.clear()),
                Kept::Scope(scope) => scope.upgrade().iter().for_each(|scope| scope.forget()),
            }
        }
    }
}

pub fn render(source: &str, file: Option<&str>, outside: &dyn Outside, undefined: UndefinedKind) -> Res<String> {
    let mut vm = Vm::begin(source, file, outside, undefined)?;
    vm.run()?;
    meter::release(vm.out.len());
    Ok(std::mem::take(&mut vm.out))
}

pub fn native(
    source: &str,
    outside: &dyn Outside,
    undefined: UndefinedKind,
    literals: Literals,
) -> Res<serde_json::Value> {
    let mut vm = Vm::begin(source, None, outside, undefined)?;
    vm.pieces = Some(Vec::new());
    vm.run()?;
    let mut pieces = vm.pieces.take().unwrap_or_default();
    let text = match pieces.len() {
        0 if literals == Literals::Read => return Ok(serde_json::Value::Null),
        1 => match pieces.swap_remove(0) {
            Value::Text(text) => text.as_str().to_owned(),
            value => return super::json::to_json(&value),
        },
        _ => {
            let mut joined = String::new();
            for piece in &pieces {
                print::write_text(&mut joined, piece)?;
                meter::room(joined.len())?;
            }
            joined
        }
    };
    match literal::read(&text).filter(|_| literals == Literals::Read) {
        Some(value) => super::json::to_json(&value),
        None => Ok(text.into()),
    }
}

impl<'o> Vm<'o> {
    fn begin(source: &str, file: Option<&str>, outside: &'o dyn Outside, undefined: UndefinedKind) -> Res<Self> {
        let session = meter::Session::begin();
        meter::read(source.len())?;
        let template = Rc::new(parse(source, file.map(Rc::from), outside)?);
        Ok(Self {
            outside,
            undefined,
            template,
            loaded: BTreeMap::new(),
            inheritance: None,
            escapes: false,
            chance: outside.seed(),
            out: String::new(),
            pieces: None,
            levels: 0,
            kept: Vec::new(),
            session,
        })
    }

    fn run(&mut self) -> Res<()> {
        let scope = Scope::outermost(true);
        let template = self.template.clone();
        self.carry_out(&template, &scope)
    }

    /// A template, with those that it extends.
    pub(super) fn carry_out(&mut self, template: &Rc<Template>, scope: &Rc<Scope>) -> Res<()> {
        let inheritance = self.inheritance.replace(Inheritance::of(template, scope));
        self.keep(Kept::Scope(Rc::downgrade(scope)));
        let outer = std::mem::replace(&mut self.template, template.clone());
        let mut current = template.clone();
        loop {
            self.body(&current.body, scope)?;
            let parent = self.inheritance.as_mut().and_then(Inheritance::take_parent);
            let Some(parent) = parent else { break };
            meter::step(100)?;
            self.template = parent.clone();
            current = parent;
        }
        self.template = outer;
        self.inheritance = inheritance;
        Ok(())
    }

    /// The instant at which the template is rendered.
    pub fn now(&self) -> jiff::Timestamp {
        self.outside.now()
    }

    /// Has what may lead back to itself let go at the end.
    pub(super) fn keep(&mut self, kept: Kept) {
        self.kept.push(kept);
    }

    /// One level deeper.
    ///
    /// # Errors
    /// Too deep.
    pub(super) fn deeper<T>(&mut self, act: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        self.levels += 1;
        if self.levels > MOST_LEVELS {
            return Err(Fault::new(LIMIT, format!("the template's recursion is deeper than {MOST_LEVELS} levels")));
        }
        let result = act(self);
        self.levels -= 1;
        result
    }

    pub(super) fn placed(&self, mut fault: Box<Fault>, at: u32) -> Box<Fault> {
        if fault.place.is_none() {
            fault.place = Some(Place::of(&self.template.source, at as usize, self.template.file.clone()));
        }
        fault
    }

    pub(super) fn write(&mut self, text: &str) -> Res<()> {
        meter::hold(text.len());
        self.out.push_str(text);
        meter::read(text.len())?;
        if self.out.len() > MOST_OUTPUT_BYTES {
            let message = format!("the template's result is longer than {} MiB", MOST_OUTPUT_BYTES >> 20);
            return Err(Fault::new(LIMIT, message));
        }
        if meter::is_heavy() {
            self.session.look();
        }
        Ok(())
    }

    /// The text that `act` writes.
    pub(super) fn captured(&mut self, act: impl FnOnce(&mut Self) -> Res<()>) -> Res<String> {
        let outer = std::mem::take(&mut self.out);
        let pieces = self.pieces.take();
        let result = act(self);
        self.pieces = pieces;
        let text = std::mem::replace(&mut self.out, outer);
        meter::release(text.len());
        result.map(|()| text)
    }

    /// A text of this render: markup where it escapes by itself.
    pub(super) fn text(&self, text: String) -> Value {
        if self.escapes { Value::markup(text) } else { Value::text(text) }
    }

    pub(super) fn body(&mut self, body: &Body, scope: &Rc<Scope>) -> Res<()> {
        self.deeper(|vm| {
            for statement in body {
                meter::step(1)?;
                vm.statement(statement, scope).map_err(|fault| vm.placed(fault, statement.at))?;
            }
            Ok(())
        })
    }

    fn statement(&mut self, statement: &Statement, scope: &Rc<Scope>) -> Res<()> {
        if meter::is_heavy() {
            self.session.look();
        }
        match &statement.kind {
            // What stands beside the blocks of a template that extends another is not printed.
            Kind::Data(_) | Kind::Print(_) if self.is_silent(scope) => Ok(()),
            Kind::Data(text) => match &mut self.pieces {
                Some(pieces) => {
                    pieces.push(Value::Text(text.clone()));
                    Ok(())
                }
                None => self.write(text.as_str()),
            },
            Kind::Print(expr) => self.print(expr, scope),
            Kind::If { branches, otherwise } => {
                for (test, body) in branches {
                    if self.evaluate(test, scope)?.is_true().map_err(|fault| self.placed(fault, test.at))? {
                        return self.body(body, scope);
                    }
                }
                self.body(otherwise, scope)
            }
            Kind::For(ast) => {
                let over = self.evaluate(&ast.over, scope)?;
                loops::run(self, ast, &over, scope, 0).map_err(|fault| self.placed(fault, ast.over.at))
            }
            Kind::Set { target, value } => {
                let value = self.evaluate(value, scope)?;
                self.assign(target, value, scope)
            }
            Kind::Do(expr) => self.evaluate(expr, scope).map(|_| ()),
            _ => self.rare(statement, scope),
        }
    }

    /// The statements that few templates have, apart so that the usual ones take less of the stack.
    #[inline(never)]
    fn rare(&mut self, statement: &Statement, scope: &Rc<Scope>) -> Res<()> {
        match &statement.kind {
            Kind::SetBlock { target, filter, body } => {
                let inner = self.inner(scope);
                let text = self.captured(|vm| vm.body(body, &inner))?;
                let mut value = self.text(text);
                if let Some(filter) = filter {
                    value = self.filtered(filter, value, scope)?;
                }
                self.assign(target, value, scope)
            }
            Kind::FilterBlock { filter, body } => {
                let inner = self.inner(scope);
                let text = self.captured(|vm| vm.body(body, &inner))?;
                let value = self.text(text);
                let value = self.filtered(filter, value, scope)?;
                self.print_value(&value)
            }
            Kind::With { bindings, body } => {
                let inner = self.inner(scope);
                for (target, value) in bindings {
                    let value = self.evaluate(value, scope)?;
                    self.assign(target, value, &inner)?;
                }
                self.body(body, &inner)
            }
            Kind::Macro(ast) => {
                let value = self.macro_value(ast, scope);
                scope.set(ast.name.clone(), value);
                Ok(())
            }
            Kind::Call { call, body } => {
                let caller = self.macro_value(body, scope);
                let value = self.called(call, scope, Some(caller))?;
                self.print_value(&value)
            }
            Kind::AutoEscape { value, body } => {
                let escapes = self.evaluate(value, scope)?.is_true()?;
                let outer = std::mem::replace(&mut self.escapes, escapes);
                let inner = self.inner(scope);
                let result = self.body(body, &inner);
                self.escapes = outer;
                result
            }
            Kind::Block(block) => self.block(block, scope),
            Kind::Extends(name) => self.extend(name, scope),
            Kind::Include { names, ignores_missing, has_context } => {
                self.include(names, *ignores_missing, *has_context, scope)
            }
            Kind::Import { name, alias, has_context } => {
                let module = self.import(name, *has_context, scope)?;
                scope.set(alias.clone(), module);
                Ok(())
            }
            Kind::FromImport { name, names, has_context } => self.import_from(name, names, *has_context, scope),
            _ => Ok(()),
        }
    }

    fn macro_value(&mut self, ast: &Rc<super::syntax::Macro>, scope: &Rc<Scope>) -> Value {
        let object: Rc<dyn Object> = Rc::new(MacroValue::new(ast.clone(), scope.clone(), self.template.clone()));
        // A macro sees the scope that it stands in.
        self.keep(Kept::Scope(Rc::downgrade(scope)));
        Value::Object(object)
    }

    pub(super) fn inner(&mut self, scope: &Rc<Scope>) -> Rc<Scope> {
        Scope::inside(scope)
    }

    /// `{{ expr }}`.
    fn print(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Res<()> {
        let value = self.evaluate(expr, scope)?;
        let json = match (&value, &expr.node) {
            (Value::None | Value::Bool(_), Node::Call(callee, _)) if self.pieces.is_none() => match &callee.node {
                Node::Name(name) if self.outside.prints_json(name) => Some(super::json::to_json(&value)?.to_string()),
                _ => None,
            },
            _ => None,
        };
        match json {
            Some(text) => self.write(&text),
            None => self.print_value(&value).map_err(|fault| self.placed(fault, expr.at)),
        }
    }

    pub(super) fn print_value(&mut self, value: &Value) -> Res<()> {
        if let Some(pieces) = &mut self.pieces {
            if let Value::Undefined(undefined) = value {
                undefined.lenient()?;
            }
            pieces.push(value.clone());
            return Ok(());
        }
        match value {
            Value::Text(text) if !self.escapes || text.is_markup() => self.write(text.as_str()),
            _ => {
                let text = if self.escapes { operators::escaped(value)? } else { print::text(value)? };
                self.write(&text)
            }
        }
    }

    pub(super) fn assign(&mut self, target: &Target, value: Value, scope: &Rc<Scope>) -> Res<()> {
        match target {
            Target::Name(name) => scope.set(name.clone(), value),
            Target::Attribute(of, name) => {
                let Found::Value(Value::Object(object)) = scope.find(of) else {
                    return Err(Fault::new("TemplateRuntimeError", "cannot assign attribute on non-namespace object"));
                };
                let Some(namespace) = object.as_any().downcast_ref::<Namespace>() else {
                    return Err(Fault::new("TemplateRuntimeError", "cannot assign attribute on non-namespace object"));
                };
                namespace.set(name, value);
                self.keep(Kept::Object(Rc::downgrade(&object)));
            }
            Target::Tuple(targets) => {
                let items = match value.iterate() {
                    Ok(items) if items.left() <= targets.len() => items.collect::<Vec<_>>(),
                    Ok(_) => return value_error(format!("too many values to unpack (expected {})", targets.len())),
                    Err(fault) if fault.class == UNDEFINED => return Err(fault),
                    Err(_) => return type_error(format!("cannot unpack non-iterable {} object", value.type_name())),
                };
                if items.len() < targets.len() {
                    let (wanted, got) = (targets.len(), items.len());
                    return value_error(format!("not enough values to unpack (expected {wanted}, got {got})"));
                }
                for (target, item) in targets.iter().zip(items) {
                    self.assign(target, item, scope)?;
                }
            }
        }
        Ok(())
    }

    /// What a name is: in a scope, outside, or a function of Jinja's.
    pub(super) fn resolve(&mut self, name: &Rc<str>, scope: &Scope) -> Res<Value> {
        let has_context = match scope.find(name) {
            Found::Value(value) => return Ok(value),
            Found::Absent { has_context } => has_context,
        };
        if has_context && let Some(value) = self.outside.variable(name)? {
            return Ok(value);
        }
        if **name == *"self"
            && let Some(blocks) = self.own_blocks()
        {
            return Ok(blocks);
        }
        Ok(match functions::global(name) {
            Some(function) => function,
            None => Value::Undefined(Rc::new(Undefined {
                message: format!("'{name}' is undefined"),
                name: name.clone(),
                shown: name.to_string(),
                class: UNDEFINED,
                kind: self.undefined,
            })),
        })
    }
}

pub(super) fn parse(source: &str, file: Option<Rc<str>>, outside: &dyn Outside) -> Res<Template> {
    let names = parser::Names {
        is_filter: &|name| filters::is_known(name) || outside.filter(name).is_some(),
        is_test: &tests_of_values::is_known,
    };
    parser::parse(source, file, &names)
}
