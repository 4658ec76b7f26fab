//! Templates made of several files: include, import, extends and blocks.

use std::any::Any;
use std::rc::Rc;

use crate::jinja::arguments::Args;
use crate::jinja::fault::{Fault, Res, UNDEFINED};
use crate::jinja::interpreter::{self, Vm};
use crate::jinja::scope::Scope;
use crate::jinja::syntax::{Block, Expr, Template};
use crate::jinja::undefined::Undefined;
use crate::jinja::value::{Object, Value};
use crate::jinja::{meter, print};

/// A block, and the template that it stands in.
type Placed = (Rc<Block>, Rc<Template>);

/// A template with those that it extends.
pub struct Inheritance {
    /// Each block with those of the same name that it overrides, the last word first.
    blocks: Vec<(Rc<str>, Vec<Placed>)>,
    /// The scope of the outermost statements.
    scope: Rc<Scope>,
    parent: Option<Rc<Template>>,
    count: usize,
}

/// How many templates may extend each other.
const MOST_PARENTS: usize = 32;

impl Inheritance {
    pub fn of(template: &Rc<Template>, scope: &Rc<Scope>) -> Self {
        let mut inheritance = Self { blocks: Vec::new(), scope: scope.clone(), parent: None, count: 0 };
        inheritance.add(template);
        inheritance
    }

    fn add(&mut self, template: &Rc<Template>) {
        for (name, block) in &template.blocks {
            let placed = (block.clone(), template.clone());
            match self.blocks.iter_mut().find(|(known, _)| known == name) {
                Some((_, chain)) => chain.push(placed),
                None => self.blocks.push((name.clone(), vec![placed])),
            }
        }
    }

    pub fn take_parent(&mut self) -> Option<Rc<Template>> {
        self.parent.take()
    }

    fn chain(&self, name: &str) -> Option<&Vec<Placed>> {
        self.blocks.iter().find(|(known, _)| **known == *name).map(|(_, chain)| chain)
    }
}

impl Vm<'_> {
    /// Whether what stands here is not printed, since the template extends another one.
    pub(super) fn is_silent(&self, scope: &Rc<Scope>) -> bool {
        self.inheritance.as_ref().is_some_and(|own| own.parent.is_some() && Rc::ptr_eq(&own.scope, scope))
    }

    fn not_found(name: &str) -> Box<Fault> {
        Fault::new("TemplateNotFound", format!("template file `{name}` does not exist below the DAG file's folder"))
    }

    fn load(&mut self, name: &str) -> Res<Rc<Template>> {
        if let Some(loaded) = self.loaded.get(name) {
            return Ok(loaded.clone());
        }
        let Some(source) = self.outside.load(name)? else { return Err(Self::not_found(name)) };
        meter::read(source.len())?;
        let template = Rc::new(interpreter::parse(&source, Some(name.into()), self.outside)?);
        self.loaded.insert(name.to_owned(), template.clone());
        Ok(template)
    }

    fn loaded_by(&mut self, name: &Expr, scope: &Rc<Scope>) -> Res<Rc<Template>> {
        let value = self.evaluate(name, scope)?;
        let names = match &value {
            Value::List(items) | Value::Tuple(items) => items.to_vec(),
            _ => vec![value],
        };
        let mut last = None;
        for name in &names {
            match self.load(&print::text(name)?) {
                Ok(template) => return Ok(template),
                Err(fault) if fault.class == "TemplateNotFound" => last = Some(fault),
                Err(fault) => return Err(fault),
            }
        }
        Err(last.unwrap_or_else(|| Fault::new("TemplateNotFound", "no template file is named")))
    }

    pub(super) fn include(
        &mut self,
        names: &Expr,
        ignores_missing: bool,
        has_context: bool,
        scope: &Rc<Scope>,
    ) -> Res<()> {
        let template = match self.loaded_by(names, scope) {
            Ok(template) => template,
            Err(fault) if ignores_missing && fault.class == "TemplateNotFound" => return Ok(()),
            Err(fault) => return Err(fault),
        };
        let inner = if has_context { Scope::inside(scope) } else { Scope::outermost(false) };
        self.deeper(|vm| vm.carry_out(&template, &inner))
    }

    pub(super) fn import(&mut self, name: &Expr, has_context: bool, scope: &Rc<Scope>) -> Res<Value> {
        let template = self.loaded_by(name, scope)?;
        let inner = if has_context { Scope::inside(scope) } else { Scope::outermost(false) };
        let text = self.deeper(|vm| vm.captured(|vm| vm.carry_out(&template, &inner)))?;
        let name = template.file.as_deref().unwrap_or_default().to_owned();
        Ok(Value::object(Module { name, scope: inner, text: self.text(text) }))
    }

    pub(super) fn import_from(
        &mut self,
        name: &Expr,
        names: &[(Rc<str>, Rc<str>)],
        has_context: bool,
        scope: &Rc<Scope>,
    ) -> Res<()> {
        let Value::Object(module) = self.import(name, has_context, scope)? else { return Ok(()) };
        for (imported, alias) in names {
            let value = match module.attribute(imported)? {
                Some(value) => value,
                None => Value::Undefined(Rc::new(Undefined {
                    message: format!(
                        "the template {} does not export the requested name {}",
                        module.text(),
                        print::quoted(imported)
                    ),
                    name: imported.clone(),
                    shown: imported.to_string(),
                    class: UNDEFINED,
                    kind: self.undefined,
                })),
            };
            scope.set(alias.clone(), value);
        }
        Ok(())
    }

    pub(super) fn extend(&mut self, name: &Expr, scope: &Rc<Scope>) -> Res<()> {
        let parent = self.loaded_by(name, scope)?;
        let Some(inheritance) = &mut self.inheritance else { return Ok(()) };
        if inheritance.parent.is_some() {
            return Err(Fault::new("TemplateRuntimeError", "extended multiple times"));
        }
        inheritance.count += 1;
        if inheritance.count > MOST_PARENTS {
            return Err(Fault::new(
                "TemplateRuntimeError",
                format!("more than {MOST_PARENTS} templates extend each other"),
            ));
        }
        inheritance.add(&parent);
        inheritance.parent = Some(parent);
        Ok(())
    }

    pub(super) fn block(&mut self, block: &Rc<Block>, scope: &Rc<Scope>) -> Res<()> {
        if self.is_silent(scope) {
            return Ok(());
        }
        let Some(inheritance) = &self.inheritance else { return Ok(()) };
        let outer = if block.is_scoped { scope.clone() } else { inheritance.scope.clone() };
        self.overriding(&block.name, 0, &outer)
    }

    /// Writes the block of that name that `level` others override.
    fn overriding(&mut self, name: &Rc<str>, level: usize, scope: &Rc<Scope>) -> Res<()> {
        let placed =
            self.inheritance.as_ref().and_then(|own| own.chain(name)).and_then(|chain| chain.get(level)).cloned();
        let Some((block, template)) = placed else { return Ok(()) };
        if block.is_required {
            return Err(Fault::new(
                "TemplateRuntimeError",
                format!("Required block {} not found", print::quoted(name)),
            ));
        }
        let inner = Scope::inside(scope);
        let super_block: Rc<dyn Object> =
            Rc::new(BlockValue { name: name.clone(), level: level + 1, scope: scope.clone(), kind: self.undefined });
        inner.set("super".into(), Value::Object(super_block));
        let outer = std::mem::replace(&mut self.template, template);
        self.body(&block.body, &inner)?;
        self.template = outer;
        Ok(())
    }

    /// `self`: the template's own blocks.
    pub(super) fn own_blocks(&self) -> Option<Value> {
        let inheritance = self.inheritance.as_ref()?;
        Some(Value::object(Blocks { scope: inheritance.scope.clone(), kind: self.undefined }))
    }
}

/// `self`, whose attributes are the blocks.
struct Blocks {
    scope: Rc<Scope>,
    kind: crate::jinja::undefined::UndefinedKind,
}

impl Object for Blocks {
    fn type_name(&self) -> &str {
        "TemplateReference"
    }

    fn text(&self) -> String {
        "<TemplateReference>".to_owned()
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        let block = BlockValue { name: name.into(), level: 0, scope: self.scope.clone(), kind: self.kind };
        Ok(Some(Value::object(block)))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A block as a function: `super()`, `self.name()`.
struct BlockValue {
    name: Rc<str>,
    level: usize,
    scope: Rc<Scope>,
    kind: crate::jinja::undefined::UndefinedKind,
}

impl Object for BlockValue {
    fn type_name(&self) -> &str {
        "BlockReference"
    }

    fn text(&self) -> String {
        format!("<BlockReference {}>", print::quoted(&self.name))
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        let above =
            || Self { name: self.name.clone(), level: self.level + 1, scope: self.scope.clone(), kind: self.kind };
        Ok((name == "super").then(|| Value::object(above())))
    }

    fn is_callable(&self) -> bool {
        true
    }

    fn call(&self, vm: &mut Vm<'_>, args: Args) -> Res<Value> {
        args.none("block")?;
        let is_there =
            vm.inheritance.as_ref().and_then(|own| own.chain(&self.name)).is_some_and(|chain| chain.len() > self.level);
        if !is_there {
            return Err(Undefined {
                message: format!("there is no parent block called {}.", print::quoted(&self.name)),
                name: "super".into(),
                shown: "super".to_owned(),
                class: UNDEFINED,
                kind: self.kind,
            }
            .fault());
        }
        let text = vm.captured(|vm| vm.overriding(&self.name, self.level, &self.scope))?;
        Ok(vm.text(text))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An imported template: what it has set.
struct Module {
    name: String,
    scope: Rc<Scope>,
    text: Value,
}

impl Object for Module {
    fn type_name(&self) -> &str {
        "TemplateModule"
    }

    fn text(&self) -> String {
        self.text.as_str().unwrap_or_default().to_owned()
    }

    fn repr(&self) -> String {
        format!("<TemplateModule {}>", print::quoted(&self.name))
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        if name.starts_with('_') {
            return Ok(None);
        }
        Ok(self.scope.own().into_iter().find(|(known, _)| **known == *name).map(|(_, value)| value))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
