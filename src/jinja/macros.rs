//! Macros, and methods that are bound to a value.

use std::any::Any;
use std::rc::Rc;

use crate::jinja::arguments::Args;
use crate::jinja::dict::Dict;
use crate::jinja::fault::{Res, UNDEFINED, type_error};
use crate::jinja::interpreter::Vm;
use crate::jinja::meter;
use crate::jinja::scope::Scope;
use crate::jinja::syntax::{Macro, Template};
use crate::jinja::undefined::Undefined;
use crate::jinja::value::{Object, Value};

/// `{% macro %}`, with the scope that it stands in.
pub struct MacroValue {
    ast: Rc<Macro>,
    scope: Rc<Scope>,
    template: Rc<Template>,
}

impl MacroValue {
    pub fn new(ast: Rc<Macro>, scope: Rc<Scope>, template: Rc<Template>) -> Self {
        Self { ast, scope, template }
    }

    fn bound(&self, vm: &mut Vm<'_>, args: Args, scope: &Rc<Scope>) -> Res<()> {
        let ast = &self.ast;
        let mut positional = args.positional.into_iter();
        let mut named = args.named;
        let take = |named: &mut Vec<(Rc<str>, Value)>, name: &str| {
            let at = named.iter().position(|(given, _)| **given == *name)?;
            Some(named.remove(at).1)
        };
        let caller = take(&mut named, "caller");
        for (name, default) in &ast.parameters {
            // Its name is looked for among those that are left.
            meter::step(1 + named.len() / 8)?;
            let value = match positional.next() {
                Some(given) => {
                    if take(&mut named, name).is_some() {
                        return type_error(format!("macro '{}' got multiple values for argument '{name}'", ast.name));
                    }
                    given
                }
                None => match (take(&mut named, name), default) {
                    (Some(given), _) => given,
                    (None, Some(default)) => vm.evaluate(default, scope)?,
                    (None, None) => Value::Undefined(Rc::new(Undefined {
                        message: format!("parameter '{name}' was not provided"),
                        name: name.clone(),
                        shown: name.to_string(),
                        class: UNDEFINED,
                        kind: vm.undefined,
                    })),
                },
            };
            scope.set(name.clone(), value);
        }
        if ast.takes_caller {
            let nobody = || {
                Value::Undefined(Rc::new(Undefined {
                    message: "No caller defined".to_owned(),
                    name: "caller".into(),
                    shown: "caller".to_owned(),
                    class: UNDEFINED,
                    kind: vm.undefined,
                }))
            };
            scope.set("caller".into(), caller.unwrap_or_else(nobody));
        } else if caller.is_some() {
            return type_error(format!(
                "macro '{}' was invoked with two values for the special caller argument. This is most likely a bug.",
                ast.name
            ));
        }
        let more: Vec<Value> = positional.collect();
        if ast.takes_more_named {
            let pairs = named.into_iter().map(|(name, value)| (name.to_string(), value));
            scope.set("kwargs".into(), Value::Dict(Dict::of_texts(pairs)));
        } else if let Some((name, _)) = named.first() {
            return type_error(format!("macro '{}' takes no keyword argument '{name}'", ast.name));
        }
        if ast.takes_more {
            scope.set("varargs".into(), Value::tuple(more));
        } else if !more.is_empty() {
            let count = ast.parameters.len();
            return type_error(format!("macro '{}' takes not more than {count} argument(s)", ast.name));
        }
        Ok(())
    }
}

impl Object for MacroValue {
    fn type_name(&self) -> &str {
        "Macro"
    }

    fn text(&self) -> String {
        format!("<Macro '{}'>", self.ast.name)
    }

    fn attribute(&self, name: &str) -> Res<Option<Value>> {
        Ok(Some(match name {
            "name" => Value::text(&*self.ast.name),
            "arguments" => Value::tuple(self.ast.parameters.iter().map(|(name, _)| Value::text(&**name)).collect()),
            "catch_kwargs" => Value::Bool(self.ast.takes_more_named),
            "catch_varargs" => Value::Bool(self.ast.takes_more),
            "caller" => Value::Bool(self.ast.takes_caller),
            _ => return Ok(None),
        }))
    }

    fn is_callable(&self) -> bool {
        true
    }

    fn call(&self, vm: &mut Vm<'_>, args: Args) -> Res<Value> {
        let scope = Scope::inside(&self.scope);
        let outer = std::mem::replace(&mut vm.template, self.template.clone());
        self.bound(vm, args, &scope)?;
        let text = vm.captured(|vm| vm.body(&self.ast.body, &scope))?;
        vm.template = outer;
        Ok(vm.text(text))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// `value.method` without a call.
pub struct BoundMethod {
    of: Value,
    name: String,
}

impl BoundMethod {
    pub fn new(of: Value, name: &str) -> Self {
        Self { of, name: name.to_owned() }
    }
}

impl Object for BoundMethod {
    fn type_name(&self) -> &str {
        "builtin_function_or_method"
    }

    fn text(&self) -> String {
        format!("<built-in method {} of {} object>", self.name, self.of.type_name())
    }

    fn is_callable(&self) -> bool {
        true
    }

    fn call(&self, vm: &mut Vm<'_>, args: Args) -> Res<Value> {
        vm.call_method(&self.of, &self.name, args)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
