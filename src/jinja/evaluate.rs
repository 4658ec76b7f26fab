//! Works expressions out.

use std::rc::Rc;

use crate::jinja::arguments::Args;
use crate::jinja::dict::Dict;
use crate::jinja::fault::{Fault, Res, UNDEFINED, type_error};
use crate::jinja::interpreter::Vm;
use crate::jinja::macros::BoundMethod;
use crate::jinja::scope::Scope;
use crate::jinja::syntax::{Arguments, Expr, Node};
use crate::jinja::undefined::Undefined;
use crate::jinja::value::{Items, Mark, Value};
use crate::jinja::{filters, meter, methods, operators, print, tests_of_values};

impl Vm<'_> {
    pub(super) fn evaluate(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Res<Value> {
        meter::step(1)?;
        let value = match &expr.node {
            Node::Const(value) => return Ok(value.clone()),
            Node::Name(name) => self.resolve(name, scope),
            _ => self.deeper(|vm| vm.compute(expr, scope)),
        };
        value.map_err(|fault| self.placed(fault, expr.at))
    }

    fn compute(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Res<Value> {
        match &expr.node {
            Node::Attribute(of, name) => {
                let of = self.evaluate(of, scope)?;
                self.attribute_of(&of, name, expr)
            }
            Node::Item(of, key) => {
                let of = self.evaluate(of, scope)?;
                let key = self.evaluate(key, scope)?;
                self.item_of(&of, &key, expr)
            }
            Node::Call(..) => self.called(expr, scope, None),
            Node::Filter(Some(input), ..) => {
                let input = self.evaluate(input, scope)?;
                self.filtered_by(expr, input, scope)
            }
            Node::Binary(operator, left, right) => {
                let left = self.evaluate(left, scope)?;
                let right = self.evaluate(right, scope)?;
                operators::binary(operator, &left, &right)
            }
            Node::Not(of) => Ok(Value::Bool(!self.evaluate(of, scope)?.is_true()?)),
            Node::And(left, right) => {
                let left = self.evaluate(left, scope)?;
                if left.is_true()? { self.evaluate(right, scope) } else { Ok(left) }
            }
            Node::Or(left, right) => {
                let left = self.evaluate(left, scope)?;
                if left.is_true()? { Ok(left) } else { self.evaluate(right, scope) }
            }
            Node::Cond { test, then, otherwise } => {
                if self.evaluate(test, scope)?.is_true()? {
                    return self.evaluate(then, scope);
                }
                match otherwise {
                    Some(otherwise) => self.evaluate(otherwise, scope),
                    // Jinja: an inline if without else gives a lenient undefined value, which prints as nothing.
                    None => Ok(Value::Undefined(Rc::new(Undefined {
                        message: "the inline if-expression evaluated to false and no else section was defined."
                            .to_owned(),
                        name: "".into(),
                        shown: String::new(),
                        class: UNDEFINED,
                        kind: crate::jinja::undefined::UndefinedKind::Lenient,
                    }))),
                }
            }
            _ => self.compute_more(expr, scope),
        }
    }

    /// The other nodes, apart so that the usual ones take less of the stack.
    #[inline(never)]
    fn compute_more(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Res<Value> {
        match &expr.node {
            Node::List(items) => Ok(Value::list(self.all(items, scope)?)),
            Node::Tuple(items) => Ok(Value::tuple(self.all(items, scope)?)),
            Node::Dict(pairs) => {
                let mut entries = Vec::with_capacity(pairs.len());
                for (key, value) in pairs {
                    entries.push((self.evaluate(key, scope)?, self.evaluate(value, scope)?));
                }
                Ok(Value::Dict(Dict::from_pairs(entries)?))
            }
            Node::Concat(parts) => self.concat(parts, scope),
            Node::Sign(operator, of) => {
                let of = self.evaluate(of, scope)?;
                operators::sign(operator, &of)
            }
            Node::Compare(first, rest) => {
                let mut left = self.evaluate(first, scope)?;
                for (operator, right) in rest {
                    let right = self.evaluate(right, scope)?;
                    if !operators::holds(operator, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Node::Slice(of, parts) => {
                let of = self.evaluate(of, scope)?;
                let mut bounds = [None, None, None];
                for (bound, part) in bounds.iter_mut().zip(parts.iter()) {
                    if let Some(part) = part {
                        let value = self.evaluate(part, scope)?;
                        *bound = if value.is_none() { None } else { Some(crate::jinja::arguments::int_of(&value)?) };
                    }
                }
                slice(&of, bounds)
            }
            Node::Test { input, name, arguments, is_negated } => {
                let input = self.evaluate(input, scope)?;
                let args = self.arguments(arguments, scope)?;
                Ok(Value::Bool(tests_of_values::holds(name, &input, args)? != *is_negated))
            }
            _ => Err(Fault::new("TemplateRuntimeError", "a filter without an input")),
        }
    }

    fn all(&mut self, exprs: &[Expr], scope: &Rc<Scope>) -> Res<Vec<Value>> {
        exprs.iter().map(|expr| self.evaluate(expr, scope)).collect()
    }

    fn concat(&mut self, parts: &[Expr], scope: &Rc<Scope>) -> Res<Value> {
        let values = self.all(parts, scope)?;
        let is_markup =
            self.escapes && values.iter().any(|value| matches!(value, Value::Text(text) if text.is_markup()));
        let mut joined = String::new();
        for (value, part) in values.iter().zip(parts) {
            if let Value::Text(text) = value {
                meter::room(joined.len() + text.as_str().len())?;
            }
            if is_markup {
                joined.push_str(&operators::escaped(value)?);
            } else {
                print::write_text(&mut joined, value).map_err(|fault| self.placed(fault, part.at))?;
            }
        }
        Ok(if is_markup { Value::markup(joined) } else { Value::text(joined) })
    }

    pub(super) fn arguments(&mut self, arguments: &Arguments, scope: &Rc<Scope>) -> Res<Args> {
        let mut args = Args { positional: self.all(&arguments.positional, scope)?, named: Vec::new() };
        for (name, value) in &arguments.named {
            args.named.push((name.clone(), self.evaluate(value, scope)?));
        }
        if let Some(star) = &arguments.star {
            args.positional.extend(self.evaluate(star, scope)?.to_vec()?);
        }
        if let Some(double_star) = &arguments.double_star {
            let Value::Dict(dict) = self.evaluate(double_star, scope)? else {
                return type_error("argument after ** must be a mapping");
            };
            for (key, value) in dict.entries() {
                match key {
                    Value::Text(name) => args.named.push((name.as_str().into(), value)),
                    _ => return type_error("keywords must be strings"),
                }
            }
        }
        Ok(args)
    }

    /// `expr(…)`, perhaps with the caller that a call block hands over.
    pub(super) fn called(&mut self, expr: &Expr, scope: &Rc<Scope>, caller: Option<Value>) -> Res<Value> {
        let Node::Call(callee, arguments) = &expr.node else { return type_error("not a call") };
        let of = match &callee.node {
            Node::Attribute(of, name) => Some((self.evaluate(of, scope)?, name)),
            _ => None,
        };
        let method = match &of {
            Some((of, name)) if methods::has(of, name) => Some((of, name)),
            _ => None,
        };
        if let Some((of, name)) = method {
            let args = self.arguments(arguments, scope)?;
            return self.call_method(of, name, args);
        }
        let function = match &of {
            Some((of, name)) => self.attribute_of(of, name, callee).map_err(|fault| self.placed(fault, callee.at))?,
            None => self.evaluate(callee, scope)?,
        };
        let mut args = self.arguments(arguments, scope)?;
        if let Some(caller) = caller {
            args.named.push(("caller".into(), caller));
        }
        self.call_value(&function, args)
    }

    /// `function(…)`.
    ///
    /// # Errors
    /// It is none, or refuses.
    pub fn call_value(&mut self, function: &Value, args: Args) -> Res<Value> {
        match function {
            Value::Undefined(undefined) => Err(undefined.fault()),
            Value::Object(object) => {
                let object = object.clone();
                self.deeper(|vm| object.call(vm, args))
            }
            _ => type_error(format!("'{}' object is not callable", function.type_name())),
        }
    }

    pub(super) fn call_method(&mut self, of: &Value, name: &str, args: Args) -> Res<Value> {
        match of {
            Value::Object(object) => {
                let object = object.clone();
                self.deeper(|vm| object.call_method(vm, name, args))
            }
            _ => methods::call(self, of, name, args),
        }
    }

    /// A filter expression without an input, applied to `input`.
    pub(super) fn filtered(&mut self, expr: &Expr, input: Value, scope: &Rc<Scope>) -> Res<Value> {
        let Node::Filter(inner, ..) = &expr.node else { return type_error("not a filter") };
        let input = match inner {
            Some(inner) => self.filtered(inner, input, scope)?,
            None => input,
        };
        self.filtered_by(expr, input, scope).map_err(|fault| self.placed(fault, expr.at))
    }

    fn filtered_by(&mut self, expr: &Expr, input: Value, scope: &Rc<Scope>) -> Res<Value> {
        let Node::Filter(_, name, arguments) = &expr.node else { return type_error("not a filter") };
        let args = self.arguments(arguments, scope)?;
        self.filter(name, input, args)
    }

    /// `input | name(…)`.
    ///
    /// # Errors
    /// There is no such filter, or it refuses.
    pub fn filter(&mut self, name: &str, input: Value, args: Args) -> Res<Value> {
        meter::step(1)?;
        if let Some(filter) = self.outside.filter(name) {
            return filter(self, args.before(input));
        }
        self.deeper(|vm| filters::call(vm, name, input, args))
    }

    fn nothing(&self, message: String, shown: impl FnOnce() -> String, expr: Option<&Expr>) -> Value {
        Value::Undefined(Rc::new(Undefined {
            message,
            name: expr.map(Expr::path).unwrap_or_default().into(),
            shown: shown(),
            class: UNDEFINED,
            kind: self.undefined,
        }))
    }

    /// `of.name`.
    ///
    /// # Errors
    /// `of` is undefined, or what it comes from did not answer.
    pub fn attribute(&mut self, of: &Value, name: &str) -> Res<Value> {
        self.attribute_with(of, name, None)
    }

    fn attribute_of(&mut self, of: &Value, name: &str, expr: &Expr) -> Res<Value> {
        self.attribute_with(of, name, Some(expr))
    }

    fn attribute_with(&mut self, of: &Value, name: &str, expr: Option<&Expr>) -> Res<Value> {
        if let Value::Undefined(undefined) = of {
            return match undefined.kind {
                crate::jinja::undefined::UndefinedKind::Chainable => Ok(of.clone()),
                _ => Err(undefined.fault()),
            };
        }
        if let Some(found) = self.own_attribute(of, name)? {
            return Ok(found);
        }
        let found = match of {
            Value::Dict(dict) => dict.get_text(name).or_else(|| dict.missing()),
            Value::Object(object) => object.item(&Value::text(name))?,
            _ => None,
        };
        Ok(found.unwrap_or_else(|| self.no_attribute(of, name, expr)))
    }

    /// What Python's `getattr` finds.
    fn own_attribute(&mut self, of: &Value, name: &str) -> Res<Option<Value>> {
        if name.starts_with("__") {
            return Ok(Some(Value::Undefined(Rc::new(Undefined {
                message: format!("access to attribute '{name}' of '{}' object is unsafe.", of.type_name()),
                name: name.into(),
                shown: name.to_owned(),
                class: "SecurityError",
                kind: crate::jinja::undefined::UndefinedKind::Strict,
            }))));
        }
        if methods::has(of, name) {
            return Ok(Some(Value::object(BoundMethod::new(of.clone(), name))));
        }
        Ok(match (of, name) {
            (Value::Object(object), _) => object.attribute(name)?,
            (Value::Int(_) | Value::Bool(_), "real" | "numerator") => Some(Value::Int(of.as_int().unwrap_or_default())),
            (Value::Int(_) | Value::Bool(_), "imag") => Some(Value::Int(0)),
            (Value::Int(_) | Value::Bool(_), "denominator") => Some(Value::Int(1)),
            (Value::Float(_), "real") => Some(of.clone()),
            (Value::Float(_), "imag") => Some(Value::Float(0.0)),
            (Value::Tuple(items), "grouper") if items.mark() == Mark::Group => items.get(0),
            (Value::Tuple(items), "list") if items.mark() == Mark::Group => items.get(1),
            (Value::Tuple(items), "year") if items.mark() == Mark::Calendar => items.get(0),
            (Value::Tuple(items), "week") if items.mark() == Mark::Calendar => items.get(1),
            (Value::Tuple(items), "weekday") if items.mark() == Mark::Calendar => items.get(2),
            (Value::Range(range), "start") => Some(Value::int(range.start)),
            (Value::Range(range), "stop") => Some(Value::int(range.stop)),
            (Value::Range(range), "step") => Some(Value::int(range.step)),
            _ => None,
        })
    }

    fn no_attribute(&self, of: &Value, name: &str, expr: Option<&Expr>) -> Value {
        let shown = || format!("no such element: {}[{}]", owner(of), print::quoted(name));
        let message = format!("{} has no attribute {}", print::quoted(&owner(of)), print::quoted(name));
        self.nothing(message, shown, expr)
    }

    /// `of | attr(name)`: attributes alone.
    ///
    /// # Errors
    /// As [`Vm::attribute`].
    pub(super) fn plain_attribute(&mut self, of: &Value, name: &str) -> Res<Value> {
        if let Value::Undefined(undefined) = of {
            return Err(undefined.fault());
        }
        Ok(self.own_attribute(of, name)?.unwrap_or_else(|| self.no_attribute(of, name, None)))
    }

    /// `of[key]`.
    ///
    /// # Errors
    /// `of` is undefined, or what it comes from did not answer.
    pub fn item(&mut self, of: &Value, key: &Value) -> Res<Value> {
        self.item_with(of, key, None)
    }

    fn item_of(&mut self, of: &Value, key: &Value, expr: &Expr) -> Res<Value> {
        self.item_with(of, key, Some(expr))
    }

    fn item_with(&mut self, of: &Value, key: &Value, expr: Option<&Expr>) -> Res<Value> {
        match (of, key) {
            (Value::Undefined(undefined), _) => {
                return match undefined.kind {
                    crate::jinja::undefined::UndefinedKind::Chainable => Ok(of.clone()),
                    _ => Err(undefined.fault()),
                };
            }
            (_, Value::Undefined(undefined)) => return Err(undefined.fault()),
            _ => {}
        }
        if let Some(found) = plain_item(of, key)? {
            return Ok(found);
        }
        if let Value::Text(name) = key
            && let Some(found) = self.own_attribute(of, name.as_str())?
        {
            return Ok(found);
        }
        Ok(match key {
            Value::Text(name) => self.no_attribute(of, name.as_str(), expr),
            _ => {
                let key = print::repr_or_type(key);
                let shown = || format!("no such element: {}[{key}]", owner(of));
                self.nothing(format!("{} has no element {key}", owner(of)), shown, expr)
            }
        })
    }
}

/// What Python's `of[key]` gives; None where it raises.
fn plain_item(of: &Value, key: &Value) -> Res<Option<Value>> {
    let place = |length: usize| -> Option<usize> {
        let at = i64::try_from(key.as_int()?).ok()?;
        usize::try_from(if at < 0 { at.checked_add(i64::try_from(length).ok()?)? } else { at }).ok()
    };
    Ok(match of {
        Value::Dict(dict) => match key {
            // What cannot be a key is not in it.
            Value::List(_) | Value::Dict(_) => None,
            _ => dict.get(key)?.or_else(|| dict.missing()),
        },
        Value::List(items) | Value::Tuple(items) => place(items.len()).and_then(|at| items.get(at)),
        Value::Range(range) => place(range.len()).and_then(|at| range.get(at)),
        Value::Text(text) if key.as_int().is_some() => {
            meter::read(text.as_str().len())?;
            let at = place(text.as_str().chars().count());
            at.and_then(|at| text.as_str().chars().nth(at)).map(Value::text)
        }
        Value::Object(object) => object.item(key)?,
        _ => None,
    })
}

/// `of[start:stop:step]`.
fn slice(of: &Value, [start, stop, step]: [Option<i64>; 3]) -> Res<Value> {
    let step = step.unwrap_or(1);
    if step == 0 {
        return crate::jinja::fault::value_error("slice step cannot be zero");
    }
    if let Value::Undefined(undefined) = of {
        return Err(undefined.fault());
    }
    let (items, kind) = match of {
        Value::Text(_) => (of.to_vec()?, "str"),
        Value::List(_) => (of.to_vec()?, "list"),
        Value::Tuple(_) => (of.to_vec()?, "tuple"),
        Value::Range(_) => (of.to_vec()?, "list"),
        _ => return type_error(format!("'{}' object is not subscriptable", of.type_name())),
    };
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let bound = |given: Option<i64>, default: i64| match given {
        None => default,
        Some(at) => {
            let at = if at < 0 { at.saturating_add(length) } else { at };
            if step > 0 { at.clamp(0, length) } else { at.clamp(-1, length - 1) }
        }
    };
    let (first, last) =
        if step > 0 { (bound(start, 0), bound(stop, length)) } else { (bound(start, length - 1), bound(stop, -1)) };
    let mut taken = Vec::new();
    let mut at = first;
    while if step > 0 { at < last } else { at > last } {
        taken.extend(usize::try_from(at).ok().and_then(|at| items.get(at)).cloned());
        at = match at.checked_add(step) {
            Some(next) => next,
            None => break,
        };
    }
    Ok(match kind {
        "str" => {
            let text: String = taken.iter().filter_map(Value::as_str).collect();
            Value::text(text)
        }
        "tuple" => Value::Tuple(Items::new(taken)),
        _ => Value::list(taken),
    })
}

/// As Jinja names what an attribute was asked of.
fn owner(of: &Value) -> String {
    match of {
        Value::None => "None".to_owned(),
        _ => format!("{} object", of.type_name()),
    }
}
