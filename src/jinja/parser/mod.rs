//! Tokens to statements, by Jinja's grammar with the extension `do`.

mod expression;

use std::rc::Rc;

use crate::jinja::fault::{ASSERTION, Fault, Place, Res, SYNTAX};
use crate::jinja::lexer::{self, Placed, Token};
use crate::jinja::syntax::{Block, Body, Expr, For, Kind, Macro, Node, Statement, Target, Template};
use crate::jinja::value::{Text, Value};

/// How deep tags and brackets may stand in each other.
const MOST_NESTED: usize = 64;
/// How deep expressions may stand in each other, the terms of a sum included.
const MOST_DEPTH: u16 = 200;

/// Which filters and tests there are.
pub struct Names<'n> {
    pub is_filter: &'n dyn Fn(&str) -> bool,
    pub is_test: &'n dyn Fn(&str) -> bool,
}

/// Parses a text.
///
/// # Errors
/// What Jinja refuses when it compiles a template.
pub fn parse(source: &str, file: Option<Rc<str>>, names: &Names<'_>) -> Res<Template> {
    let source = lexer::normalized(source);
    let parsed = lexer::lex(&source).and_then(|tokens| {
        let mut parser = Parser {
            source: &source,
            tokens,
            next: 0,
            open: Vec::new(),
            nesting: 0,
            soft: 0,
            macros: Vec::new(),
            blocks: Vec::new(),
            names,
        };
        let body = parser.body(&[])?;
        Ok((body, parser.blocks))
    });
    match parsed {
        Ok((body, blocks)) => Ok(Template { source, file, body, blocks }),
        Err(mut fault) => {
            if let Some(place) = &mut fault.place {
                place.file = file;
            }
            Err(fault)
        }
    }
}

/// Which of a macro's hidden parameters its body names.
#[derive(Default)]
struct Hidden {
    caller: bool,
    more: bool,
    more_named: bool,
}

struct Parser<'p> {
    source: &'p str,
    tokens: Vec<Placed>,
    next: usize,
    /// The tags that are open, and what each waits for.
    open: Vec<(String, Vec<&'static str>)>,
    nesting: usize,
    /// Inside an `if`, where Jinja looks filters up when they are used.
    soft: usize,
    macros: Vec<Hidden>,
    blocks: Vec<(Rc<str>, Rc<Block>)>,
    names: &'p Names<'p>,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].0
    }

    fn second(&self) -> &Token {
        &self.tokens[(self.next + 1).min(self.tokens.len() - 1)].0
    }

    fn at(&self) -> u32 {
        self.tokens[self.next].1 as u32
    }

    fn advance(&mut self) -> Token {
        let last = self.tokens.len() - 1;
        let token =
            if self.next < last { std::mem::replace(&mut self.tokens[self.next].0, Token::End) } else { Token::End };
        self.next = (self.next + 1).min(last);
        token
    }

    fn fault(&self, at: u32, class: &'static str, message: impl Into<String>) -> Box<Fault> {
        let mut fault = Fault::new(class, message);
        fault.place = Some(Place::of(self.source, at as usize, None));
        fault
    }

    fn fail<T>(&self, message: impl Into<String>) -> Res<T> {
        Err(self.fault(self.at(), SYNTAX, message))
    }

    fn is_operator(&self, operator: &str) -> bool {
        matches!(self.peek(), Token::Operator(found) if *found == operator)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if **found == *name)
    }

    fn skip_operator(&mut self, operator: &str) -> bool {
        let is_there = self.is_operator(operator);
        if is_there {
            self.advance();
        }
        is_there
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let is_there = self.is_name(name);
        if is_there {
            self.advance();
        }
        is_there
    }

    fn unexpected<T>(&self, wanted: &str) -> Res<T> {
        match self.peek() {
            Token::End => self.fail(format!("unexpected end of template, expected '{wanted}'.")),
            token => self.fail(format!("expected token '{wanted}', got '{}'", token.describe())),
        }
    }

    fn expect_operator(&mut self, operator: &'static str) -> Res<()> {
        if self.skip_operator(operator) { Ok(()) } else { self.unexpected(operator) }
    }

    fn expect_name(&mut self, name: &'static str) -> Res<()> {
        if self.skip_name(name) { Ok(()) } else { self.unexpected(name) }
    }

    fn expect(&mut self, wanted: &Token) -> Res<()> {
        if self.peek() == wanted {
            self.advance();
            return Ok(());
        }
        self.unexpected(&wanted.describe())
    }

    fn name(&mut self) -> Res<Rc<str>> {
        match self.peek() {
            Token::Name(_) => match self.advance() {
                Token::Name(name) => Ok(name),
                _ => unreachable!("the token is the one that was peeked at"),
            },
            _ => self.unexpected("name"),
        }
    }

    fn expr(&self, node: Node, at: u32) -> Res<Expr> {
        let expr = Expr::new(node, at);
        if expr.depth > MOST_DEPTH {
            return Err(self.fault(at, SYNTAX, "the expression is nested too deeply"));
        }
        Ok(expr)
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        self.nesting += 1;
        if self.nesting > MOST_NESTED {
            return self.fail("the template is nested too deeply");
        }
        let parsed = parse(self);
        self.nesting -= 1;
        parsed
    }

    /// Statements up to one of the tags `ends`, whose name is then next; without ends, up to the end of the text.
    fn body(&mut self, ends: &[&'static str]) -> Res<Body> {
        let mut body = Body::new();
        loop {
            let at = self.at();
            match self.peek() {
                Token::End if ends.is_empty() => return Ok(body),
                Token::End => return self.end_is_missing(),
                Token::Data(_) => {
                    if let Token::Data(data) = self.advance() {
                        body.push(Statement { kind: Kind::Data(Text::new(data, false)), at });
                    }
                }
                Token::BeginPrint => {
                    self.advance();
                    let at = self.at();
                    let value = self.tuple(false, &[])?;
                    self.expect(&Token::EndPrint)?;
                    body.push(Statement { kind: Kind::Print(value), at });
                }
                _ => {
                    self.advance();
                    if ends.iter().any(|end| self.is_name(end)) {
                        return Ok(body);
                    }
                    let at = self.at();
                    self.nested(|parser| parser.statement(&mut body, at))?;
                    self.expect(&Token::EndBlock)?;
                }
            }
        }
    }

    fn end_is_missing<T>(&self) -> Res<T> {
        let (tag, ends) = self.open.last().expect("a tag with ends is open");
        let ends: Vec<String> = ends.iter().map(|end| format!("'{end}'")).collect();
        self.fail(format!(
            "Unexpected end of template. Jinja was looking for the following tags: {}. The innermost block that needs to be closed is '{tag}'.",
            ends.join(" or ")
        ))
    }

    /// The body of `tag`, with the `%}` before it. The name of the end stays next.
    fn inside(&mut self, tag: &str, ends: &[&'static str]) -> Res<Body> {
        self.skip_operator(":");
        self.expect(&Token::EndBlock)?;
        self.open.push((tag.to_owned(), ends.to_vec()));
        let body = self.body(ends)?;
        self.open.pop();
        Ok(body)
    }

    /// The same, with its only end.
    fn whole(&mut self, tag: &str, end: &'static str) -> Res<Body> {
        let body = self.inside(tag, &[end])?;
        self.advance();
        Ok(body)
    }

    fn statement(&mut self, body: &mut Body, at: u32) -> Res<()> {
        let Token::Name(tag) = self.peek() else { return self.fail("tag name expected") };
        let tag = tag.clone();
        let known = [
            "for",
            "if",
            "block",
            "extends",
            "print",
            "macro",
            "include",
            "from",
            "import",
            "set",
            "with",
            "autoescape",
            "call",
            "filter",
            "do",
        ];
        if !known.contains(&&*tag) {
            return self.unknown_tag(&tag);
        }
        self.advance();
        let kind = match &*tag {
            "for" => self.parse_for()?,
            "if" => self.parse_if()?,
            "block" => self.parse_block()?,
            "extends" => Kind::Extends(self.expression()?),
            "print" => {
                while !matches!(self.peek(), Token::EndBlock) {
                    if !body.is_empty() && matches!(body.last(), Some(last) if last.at == at) {
                        self.expect_operator(",")?;
                    }
                    let value = self.expression()?;
                    body.push(Statement { kind: Kind::Print(value), at });
                }
                return Ok(());
            }
            "macro" => self.parse_macro()?,
            "include" => self.parse_include()?,
            "from" => self.parse_from()?,
            "import" => self.parse_import()?,
            "set" => self.parse_set()?,
            "with" => self.parse_with()?,
            "autoescape" => {
                let value = self.expression()?;
                Kind::AutoEscape { value, body: self.whole("autoescape", "endautoescape")? }
            }
            "call" => self.parse_call_block()?,
            "filter" => {
                let filter = self.filters(None)?;
                Kind::FilterBlock { filter, body: self.whole("filter", "endfilter")? }
            }
            _ => Kind::Do(self.tuple(false, &[])?),
        };
        body.push(Statement { kind, at });
        Ok(())
    }

    fn unknown_tag<T>(&self, tag: &str) -> Res<T> {
        let mut message = format!("Encountered unknown tag '{tag}'.");
        if let Some((open, ends)) = self.open.last() {
            let ends: Vec<String> = ends.iter().map(|end| format!("'{end}'")).collect();
            message.push_str(&format!(
                " Jinja was looking for the following tags: {}. The innermost block that needs to be closed is '{open}'.",
                ends.join(" or ")
            ));
        }
        self.fail(message)
    }

    fn parse_for(&mut self) -> Res<Kind> {
        let target = self.target(&["in"])?;
        self.expect_name("in")?;
        let over = self.tuple(true, &["recursive"])?;
        let filter = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let is_recursive = self.skip_name("recursive");
        let body = self.inside("for", &["endfor", "else"])?;
        let otherwise = if self.skip_name("else") { self.inside("for", &["endfor"])? } else { Body::new() };
        self.advance();
        Ok(Kind::For(Rc::new(For { target, over, filter, body, otherwise, is_recursive })))
    }

    fn parse_if(&mut self) -> Res<Kind> {
        let mut branches = Vec::new();
        let mut otherwise = Body::new();
        self.soft += 1;
        loop {
            let test = self.tuple(true, &[])?;
            branches.push((test, self.inside("if", &["elif", "else", "endif"])?));
            if self.skip_name("elif") {
                continue;
            }
            if self.skip_name("else") {
                otherwise = self.inside("if", &["endif"])?;
            }
            break;
        }
        self.advance();
        self.soft -= 1;
        Ok(Kind::If { branches, otherwise })
    }

    fn parse_block(&mut self) -> Res<Kind> {
        let name = self.name()?;
        let is_scoped = self.skip_name("scoped");
        let is_required = self.skip_name("required");
        if self.is_operator("-") {
            return self.fail("Block names in Jinja have to be valid Python identifiers and may not contain hyphens, use an underscore instead.");
        }
        let body = self.whole("block", "endblock")?;
        self.skip_name(&name);
        if self.blocks.iter().any(|(known, _)| *known == name) {
            return Err(self.fault(self.at(), ASSERTION, format!("block '{name}' defined twice")));
        }
        let is_blank =
            |statement: &Statement| matches!(&statement.kind, Kind::Data(text) if text.as_str().trim().is_empty());
        if is_required && !body.iter().all(is_blank) {
            return self.fail("Required blocks can only contain comments or whitespace");
        }
        let block = Rc::new(Block { name: name.clone(), body, is_scoped, is_required });
        self.blocks.push((name, block.clone()));
        Ok(Kind::Block(block))
    }

    /// `with context`, `without context`.
    fn context(&mut self) -> Option<bool> {
        let has = if self.is_name("with") {
            true
        } else if self.is_name("without") {
            false
        } else {
            return None;
        };
        if !matches!(self.second(), Token::Name(name) if **name == *"context") {
            return None;
        }
        self.advance();
        self.advance();
        Some(has)
    }

    fn parse_include(&mut self) -> Res<Kind> {
        let names = self.expression()?;
        let ignores_missing =
            self.is_name("ignore") && matches!(self.second(), Token::Name(name) if **name == *"missing");
        if ignores_missing {
            self.advance();
            self.advance();
        }
        let has_context = self.context().unwrap_or(true);
        Ok(Kind::Include { names, ignores_missing, has_context })
    }

    fn parse_import(&mut self) -> Res<Kind> {
        let name = self.expression()?;
        self.expect_name("as")?;
        let alias = self.name()?;
        let has_context = self.context().unwrap_or(false);
        Ok(Kind::Import { name, alias, has_context })
    }

    fn parse_from(&mut self) -> Res<Kind> {
        let name = self.expression()?;
        self.expect_name("import")?;
        let mut names = Vec::new();
        let mut has_context;
        loop {
            if !names.is_empty() {
                self.expect_operator(",")?;
            }
            if matches!(self.peek(), Token::Name(_)) {
                has_context = self.context();
                if has_context.is_some() {
                    break;
                }
                let imported = self.name()?;
                if imported.starts_with('_') {
                    return Err(self.fault(
                        self.at(),
                        ASSERTION,
                        "names starting with an underline can not be imported",
                    ));
                }
                let alias = if self.skip_name("as") { self.name()? } else { imported.clone() };
                names.push((imported, alias));
                has_context = self.context();
                if has_context.is_some() || !self.is_operator(",") {
                    break;
                }
            } else {
                return self.unexpected("name");
            }
        }
        Ok(Kind::FromImport { name, names, has_context: has_context.unwrap_or(false) })
    }

    fn signature(&mut self) -> Res<Vec<(Rc<str>, Option<Expr>)>> {
        let mut parameters: Vec<(Rc<str>, Option<Expr>)> = Vec::new();
        self.expect_operator("(")?;
        while !self.is_operator(")") {
            if !parameters.is_empty() {
                self.expect_operator(",")?;
            }
            let name = self.name()?;
            let default = if self.skip_operator("=") { Some(self.expression()?) } else { None };
            if default.is_none() && parameters.iter().any(|(_, default)| default.is_some()) {
                return self.fail("non-default argument follows default argument");
            }
            parameters.push((name, default));
        }
        self.expect_operator(")")?;
        Ok(parameters)
    }

    fn macro_of(
        &mut self,
        name: Rc<str>,
        parameters: Vec<(Rc<str>, Option<Expr>)>,
        tag: &str,
        end: &'static str,
    ) -> Res<Rc<Macro>> {
        self.macros.push(Hidden::default());
        let body = self.whole(tag, end)?;
        let hidden = self.macros.pop().unwrap_or_default();
        Ok(Rc::new(Macro {
            name,
            parameters,
            body,
            takes_caller: hidden.caller,
            takes_more: hidden.more,
            takes_more_named: hidden.more_named,
        }))
    }

    fn parse_macro(&mut self) -> Res<Kind> {
        let name = self.name()?;
        let parameters = self.signature()?;
        Ok(Kind::Macro(self.macro_of(name, parameters, "macro", "endmacro")?))
    }

    fn parse_call_block(&mut self) -> Res<Kind> {
        let parameters = if self.is_operator("(") { self.signature()? } else { Vec::new() };
        let call = self.expression()?;
        if !matches!(call.node, Node::Call(..)) {
            return self.fail("expected call");
        }
        let body = self.macro_of("caller".into(), parameters, "call", "endcall")?;
        Ok(Kind::Call { call, body })
    }

    fn parse_set(&mut self) -> Res<Kind> {
        let target = self.target(&[])?;
        if self.skip_operator("=") {
            return Ok(Kind::Set { target, value: self.tuple(false, &[])? });
        }
        let filter = if self.skip_operator("|") { Some(self.filters(None)?) } else { None };
        Ok(Kind::SetBlock { target, filter, body: self.whole("set", "endset")? })
    }

    fn parse_with(&mut self) -> Res<Kind> {
        let mut bindings = Vec::new();
        while !matches!(self.peek(), Token::EndBlock) {
            if !bindings.is_empty() {
                self.expect_operator(",")?;
            }
            let target = self.target_part()?;
            self.expect_operator("=")?;
            bindings.push((target, self.expression()?));
        }
        Ok(Kind::With { bindings, body: self.whole("with", "endwith")? })
    }

    /// What is assigned to: a name, several, or an attribute of a namespace.
    fn target(&mut self, ends: &[&str]) -> Res<Target> {
        let mut parts = Vec::new();
        let mut is_tuple = false;
        loop {
            let is_end = matches!(self.peek(), Token::EndBlock) || self.is_operator("=") || self.is_operator(")");
            if !parts.is_empty() && (is_end || ends.iter().any(|end| self.is_name(end))) {
                break;
            }
            parts.push(self.target_part()?);
            if !self.skip_operator(",") {
                break;
            }
            is_tuple = true;
        }
        match parts.pop() {
            Some(only) if parts.is_empty() && !is_tuple => Ok(only),
            last => {
                parts.extend(last);
                Ok(Target::Tuple(parts))
            }
        }
    }

    fn target_part(&mut self) -> Res<Target> {
        if self.is_operator("(") || self.is_operator("[") {
            let close = if self.is_operator("(") { ")" } else { "]" };
            self.advance();
            let inner = self.nested(|parser| parser.target(&[]))?;
            self.expect_operator(close)?;
            return Ok(inner);
        }
        let name = match self.peek() {
            Token::Name(_) => self.name()?,
            token => {
                let shown = token.describe();
                return self.fail(format!("can't assign to '{shown}'"));
            }
        };
        if ["true", "false", "none", "True", "False", "None"].contains(&&*name) {
            return self.fail(format!("can't assign to '{name}'"));
        }
        if self.skip_operator(".") {
            return Ok(Target::Attribute(name, self.name()?));
        }
        Ok(Target::Name(name))
    }

    fn constant(&self, value: Value, at: u32) -> Expr {
        Expr::new(Node::Const(value), at)
    }
}
