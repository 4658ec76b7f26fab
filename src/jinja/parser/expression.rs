//! Expressions, each level of Jinja's grammar a function.

use std::rc::Rc;

use crate::jinja::fault::{ASSERTION, Res};
use crate::jinja::lexer::Token;
use crate::jinja::parser::Parser;
use crate::jinja::syntax::{Arguments, Expr, Node};
use crate::jinja::value::Value;

impl Parser<'_> {
    pub(super) fn expression(&mut self) -> Res<Expr> {
        self.nested(Self::conditional)
    }

    fn conditional(&mut self) -> Res<Expr> {
        let at = self.at();
        let mut then = self.or()?;
        while self.skip_name("if") {
            self.soft += 1;
            let test = Box::new(self.or()?);
            let otherwise = if self.skip_name("else") { Some(Box::new(self.expression()?)) } else { None };
            self.soft -= 1;
            then = self.expr(Node::Cond { test, then: Box::new(then), otherwise }, at)?;
        }
        Ok(then)
    }

    fn or(&mut self) -> Res<Expr> {
        let at = self.at();
        let mut left = self.and()?;
        while self.skip_name("or") {
            let right = self.and()?;
            left = self.expr(Node::Or(Box::new(left), Box::new(right)), at)?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Res<Expr> {
        let at = self.at();
        let mut left = self.not()?;
        while self.skip_name("and") {
            let right = self.not()?;
            left = self.expr(Node::And(Box::new(left), Box::new(right)), at)?;
        }
        Ok(left)
    }

    fn not(&mut self) -> Res<Expr> {
        let at = self.at();
        if self.skip_name("not") {
            let of = self.nested(Self::not)?;
            return self.expr(Node::Not(Box::new(of)), at);
        }
        self.compare()
    }

    fn compare(&mut self) -> Res<Expr> {
        let at = self.at();
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let operator = match self.peek() {
                Token::Operator(operator) if ["==", "!=", "<", "<=", ">", ">="].contains(operator) => operator,
                Token::Name(name) if **name == *"in" => "in",
                Token::Name(name)
                    if **name == *"not" && matches!(self.second(), Token::Name(name) if **name == *"in") =>
                {
                    self.advance();
                    "not in"
                }
                _ => break,
            };
            self.advance();
            rest.push((operator, self.sum()?));
        }
        if rest.is_empty() { Ok(first) } else { self.expr(Node::Compare(Box::new(first), rest), at) }
    }

    fn sum(&mut self) -> Res<Expr> {
        self.binary(&["+", "-"], Self::concat)
    }

    fn binary(&mut self, operators: &[&str], operand: fn(&mut Self) -> Res<Expr>) -> Res<Expr> {
        let at = self.at();
        let mut left = operand(self)?;
        loop {
            let operator = match self.peek() {
                Token::Operator(operator) if operators.contains(operator) => *operator,
                _ => return Ok(left),
            };
            self.advance();
            let right = operand(self)?;
            left = self.expr(Node::Binary(operator, Box::new(left), Box::new(right)), at)?;
        }
    }

    fn concat(&mut self) -> Res<Expr> {
        let at = self.at();
        let first = self.product()?;
        if !self.is_operator("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_operator("~") {
            parts.push(self.product()?);
        }
        self.expr(Node::Concat(parts), at)
    }

    fn product(&mut self) -> Res<Expr> {
        self.binary(&["*", "/", "//", "%"], Self::power)
    }

    fn power(&mut self) -> Res<Expr> {
        self.binary(&["**"], |parser| parser.unary(true))
    }

    fn unary(&mut self, takes_filters: bool) -> Res<Expr> {
        let at = self.at();
        let sign = match self.peek() {
            Token::Operator(sign @ ("-" | "+")) => Some(*sign),
            _ => None,
        };
        let mut expr = match sign {
            Some(sign) => {
                self.advance();
                let of = self.nested(|parser| parser.unary(false))?;
                self.expr(Node::Sign(sign, Box::new(of)), at)?
            }
            None => self.primary()?,
        };
        expr = self.postfix(expr)?;
        if takes_filters { self.filtered(expr) } else { Ok(expr) }
    }

    pub(super) fn primary(&mut self) -> Res<Expr> {
        let at = self.at();
        match self.peek() {
            Token::Name(_) => {
                let name = self.name()?;
                Ok(match &*name {
                    "true" | "True" => self.constant(Value::Bool(true), at),
                    "false" | "False" => self.constant(Value::Bool(false), at),
                    "none" | "None" => self.constant(Value::None, at),
                    _ => {
                        for hidden in &mut self.macros {
                            hidden.caller |= *name == *"caller";
                            hidden.more |= *name == *"varargs";
                            hidden.more_named |= *name == *"kwargs";
                        }
                        Expr::new(Node::Name(name), at)
                    }
                })
            }
            Token::Text(_) => {
                let mut text = String::new();
                while matches!(self.peek(), Token::Text(_)) {
                    if let Token::Text(part) = self.advance() {
                        text.push_str(&part);
                    }
                }
                Ok(self.constant(Value::text(text), at))
            }
            Token::Int(number) => {
                let number = *number;
                self.advance();
                Ok(self.constant(Value::Int(number), at))
            }
            Token::Float(number) => {
                let number = *number;
                self.advance();
                Ok(self.constant(Value::Float(number), at))
            }
            Token::Operator("(") => {
                self.advance();
                let mut inner = self.nested(|parser| parser.tuple_in(false, &[], true))?;
                self.expect_operator(")")?;
                inner.at = inner.at.min(at + 1);
                Ok(inner)
            }
            Token::Operator("[") => {
                self.advance();
                let mut items = Vec::new();
                while !self.is_operator("]") {
                    if !items.is_empty() {
                        self.expect_operator(",")?;
                    }
                    if self.is_operator("]") {
                        break;
                    }
                    items.push(self.expression()?);
                }
                self.expect_operator("]")?;
                self.expr(Node::List(items), at)
            }
            Token::Operator("{") => {
                self.advance();
                let mut pairs = Vec::new();
                while !self.is_operator("}") {
                    if !pairs.is_empty() {
                        self.expect_operator(",")?;
                    }
                    if self.is_operator("}") {
                        break;
                    }
                    let key = self.expression()?;
                    self.expect_operator(":")?;
                    pairs.push((key, self.expression()?));
                }
                self.expect_operator("}")?;
                self.expr(Node::Dict(pairs), at)
            }
            token => {
                let shown = token.describe();
                self.fail(format!("unexpected '{shown}'"))
            }
        }
    }

    /// One expression, or several with commas between them as a tuple. `is_plain`: without `if … else`.
    pub(super) fn tuple(&mut self, is_plain: bool, ends: &[&str]) -> Res<Expr> {
        self.tuple_in(is_plain, ends, false)
    }

    fn tuple_in(&mut self, is_plain: bool, ends: &[&str], may_be_empty: bool) -> Res<Expr> {
        let at = self.at();
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            let is_end = matches!(self.peek(), Token::EndPrint | Token::EndBlock) || self.is_operator(")");
            if is_end || ends.iter().any(|end| self.is_name(end)) {
                break;
            }
            items.push(if is_plain { self.nested(Self::or)? } else { self.expression()? });
            if !self.skip_operator(",") {
                break;
            }
            is_tuple = true;
        }
        if is_tuple || (items.is_empty() && may_be_empty) {
            return self.expr(Node::Tuple(items), at);
        }
        match items.pop() {
            Some(only) => Ok(only),
            None => {
                let shown = self.peek().describe();
                self.fail(format!("Expected an expression, got '{shown}'"))
            }
        }
    }

    pub(super) fn postfix(&mut self, mut expr: Expr) -> Res<Expr> {
        loop {
            expr = match self.peek() {
                Token::Operator("." | "[") => self.subscript(expr)?,
                Token::Operator("(") => self.call(expr)?,
                _ => return Ok(expr),
            };
        }
    }

    /// Filters, tests, and calls of what they give.
    fn filtered(&mut self, mut expr: Expr) -> Res<Expr> {
        loop {
            expr = match self.peek() {
                Token::Operator("|") => {
                    self.advance();
                    self.filters(Some(expr))?
                }
                Token::Name(name) if **name == *"is" => self.test(expr)?,
                Token::Operator("(") => self.call(expr)?,
                _ => return Ok(expr),
            };
        }
    }

    fn subscript(&mut self, of: Expr) -> Res<Expr> {
        let at = of.at;
        if self.skip_operator(".") {
            return match self.peek() {
                Token::Name(_) => {
                    let name = self.name()?;
                    self.expr(Node::Attribute(Box::new(of), name), at)
                }
                Token::Int(number) => {
                    let key = self.constant(Value::Int(*number), self.at());
                    self.advance();
                    self.expr(Node::Item(Box::new(of), Box::new(key)), at)
                }
                _ => self.fail("expected name or number"),
            };
        }
        self.expect_operator("[")?;
        let key_at = self.at();
        let mut keys = Vec::new();
        while !self.is_operator("]") {
            if !keys.is_empty() {
                self.expect_operator(",")?;
            }
            match self.slice_part()? {
                Key::Plain(key) => keys.push(key),
                Key::Slice(parts) => {
                    self.expect_operator("]")?;
                    return self.expr(Node::Slice(Box::new(of), parts), at);
                }
            }
        }
        self.expect_operator("]")?;
        let key = match keys.pop() {
            Some(only) if keys.is_empty() => only,
            last => {
                keys.extend(last);
                self.expr(Node::Tuple(keys), key_at)?
            }
        };
        self.expr(Node::Item(Box::new(of), Box::new(key)), at)
    }

    fn slice_part(&mut self) -> Res<Key> {
        let mut parts: [Option<Expr>; 3] = [None, None, None];
        if !self.is_operator(":") {
            let first = self.expression()?;
            if !self.is_operator(":") {
                return Ok(Key::Plain(first));
            }
            parts[0] = Some(first);
        }
        for part in &mut parts[1..] {
            if !self.skip_operator(":") {
                break;
            }
            if !self.is_operator(":") && !self.is_operator("]") && !self.is_operator(",") {
                *part = Some(self.expression()?);
            }
        }
        Ok(Key::Slice(Box::new(parts)))
    }

    fn call(&mut self, callee: Expr) -> Res<Expr> {
        let at = callee.at;
        let arguments = self.arguments()?;
        self.expr(Node::Call(Box::new(callee), Box::new(arguments)), at)
    }

    fn arguments(&mut self) -> Res<Arguments> {
        self.expect_operator("(")?;
        let mut arguments = Arguments::default();
        let mut is_first = true;
        while !self.is_operator(")") {
            if !is_first {
                self.expect_operator(",")?;
                if self.is_operator(")") {
                    break;
                }
            }
            is_first = false;
            let is_named = matches!(self.peek(), Token::Name(_)) && matches!(self.second(), Token::Operator("="));
            if self.is_operator("*") && arguments.star.is_none() && arguments.double_star.is_none() {
                self.advance();
                arguments.star = Some(self.expression()?);
            } else if self.is_operator("**") && arguments.double_star.is_none() {
                self.advance();
                arguments.double_star = Some(self.expression()?);
            } else if is_named && arguments.double_star.is_none() {
                let name = self.name()?;
                self.advance();
                let value = self.expression()?;
                arguments.named.push((name, value));
            } else if arguments.named.is_empty() && arguments.star.is_none() && arguments.double_star.is_none() {
                arguments.positional.push(self.expression()?);
            } else {
                return self.fail("invalid syntax for function call expression");
            }
        }
        self.expect_operator(")")?;
        Ok(arguments)
    }

    fn dotted(&mut self) -> Res<Rc<str>> {
        let mut name = self.name()?.to_string();
        while self.skip_operator(".") {
            name.push('.');
            name.push_str(&self.name()?);
        }
        Ok(name.into())
    }

    /// One filter's name and arguments, and those behind it. Its `|` has been taken.
    pub(super) fn filters(&mut self, input: Option<Expr>) -> Res<Expr> {
        let mut input = input;
        loop {
            let own_at = self.at();
            let at = input.as_ref().map_or(own_at, |input| input.at);
            let name = self.dotted()?;
            if self.soft == 0 && !(self.names.is_filter)(&name) {
                return Err(self.fault(own_at, ASSERTION, format!("No filter named '{name}'.")));
            }
            let arguments = if self.is_operator("(") { self.arguments()? } else { Arguments::default() };
            let filtered = self.expr(Node::Filter(input.map(Box::new), name, Box::new(arguments)), at)?;
            if !self.skip_operator("|") {
                return Ok(filtered);
            }
            input = Some(filtered);
        }
    }

    fn test(&mut self, input: Expr) -> Res<Expr> {
        let at = input.at;
        self.advance();
        let is_negated = self.skip_name("not");
        let own_at = self.at();
        let name = self.dotted()?;
        if self.soft == 0 && !(self.names.is_test)(&name) {
            return Err(self.fault(own_at, ASSERTION, format!("No test named '{name}'.")));
        }
        let takes_one = match self.peek() {
            Token::Name(name) => !["else", "or", "and"].contains(&&**name),
            Token::Text(_) | Token::Int(_) | Token::Float(_) | Token::Operator("[" | "{") => true,
            _ => false,
        };
        let arguments = if self.is_operator("(") {
            self.arguments()?
        } else if takes_one {
            if self.is_name("is") {
                return self.fail("You cannot chain multiple tests with is");
            }
            let only = self.primary()?;
            Arguments { positional: vec![self.postfix(only)?], ..Arguments::default() }
        } else {
            Arguments::default()
        };
        let test = Node::Test { input: Box::new(input), name, arguments: Box::new(arguments), is_negated };
        self.expr(test, at)
    }
}

enum Key {
    Plain(Expr),
    Slice(Box<[Option<Expr>; 3]>),
}
