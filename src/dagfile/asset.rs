//! Assets in a DAG file: their definitions, the expressions of schedules, what tasks read and produce.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Reader;
use crate::config::assets::{self, fault_of_name, fault_of_uri, is_uri};
use crate::keytable::{self, Fields};
use crate::model::asset::{AssetDefinition, AssetExpression};
use crate::model::ids::AssetName;

/// The most names of one expression, and the most in- or outlets of a task.
pub const MAX_NAMES: usize = 1_000;
/// How deep brackets may be nested.
const MAX_DEPTH: usize = 64;

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionFault {
    /// In bytes of the text.
    pub range: Range<usize>,
    pub message: String,
    pub help: String,
}

impl Reader<'_, '_> {
    /// `[assets]`; those of airflow.toml may be repeated as they are.
    pub(super) fn assets(&mut self, fields: &Fields<'_>, document: &DeTable<'_>) -> Vec<AssetDefinition> {
        assets::check(document, self.faults);
        let mut found: Vec<AssetDefinition> = Vec::new();
        for (name, value) in fields.table("assets").into_iter().flatten() {
            let Some(json) = keytable::json(value.get_ref()) else { continue };
            let definition = assets::definition(name.get_ref(), &json);
            let known = self.defaults.assets.get(&definition.name).filter(|known| **known != definition);
            if known.is_some() {
                let message = format!("airflow.toml defines asset `{}` in another way", definition.name);
                let help = "keep one of the two, or make them equal";
                self.faults.add(name.span(), "asset-conflict", message, help);
            }
            let others = self.defaults.assets.values().chain(&found);
            if let Some(other) =
                others.filter(|other| other.name != definition.name).find(|other| has_uri_of(other, &definition))
            {
                let message = format!("asset `{}` has the same uri", other.name);
                self.faults.add(name.span(), "asset-conflict", message, "keep one of the two, and use its name");
            }
            found.push(definition);
        }
        found
    }

    /// `assets` of a schedule: an expression, or a list of which all must hold.
    pub(super) fn asset_schedule(&mut self, value: &Spanned<DeValue<'_>>) -> Option<AssetExpression> {
        let items: Vec<&Spanned<DeValue<'_>>> = match value.get_ref() {
            DeValue::Array(list) => list.iter().collect(),
            _ => vec![value],
        };
        let mut parts = Vec::new();
        for item in &items {
            let Some(text) = item.get_ref().as_str() else { continue };
            match parse_expression(text) {
                Ok(part) => parts.push(part),
                Err(fault) => {
                    let span = self.faults.source.inner_span(&item.span(), text, fault.range);
                    self.faults.add(span, "bad-assets", fault.message, fault.help);
                }
            }
        }
        if items.is_empty() {
            let help = "name some, as in `assets = \"orders & customers\"`";
            self.faults.add(value.span(), "bad-assets", "`assets` is empty", help);
        }
        let expression = if parts.len() == 1 { parts.pop()? } else { AssetExpression::All(parts) };
        let count = expression.names().len();
        if count > MAX_NAMES {
            let message = format!("`assets` names {count}, more than the limit of {MAX_NAMES}");
            self.faults.add(
                value.span(),
                "too-many-assets",
                message,
                "use an alias, or an asset that stands for several",
            );
        }
        (count > 0).then_some(expression)
    }

    /// `inlets` or `outlets`: names or uris, each once.
    pub(super) fn asset_names(&mut self, list: &[Spanned<DeValue<'_>>]) -> Vec<AssetName> {
        let (mut names, mut known) = (Vec::new(), BTreeSet::new());
        for item in list.iter().take(MAX_NAMES + 1) {
            let Some(text) = item.get_ref().as_str() else { continue };
            if let Some((message, help)) = fault_of(text) {
                self.faults.add(item.span(), "bad-asset", message, help);
            }
            if known.insert(text) {
                names.push(text.into());
            }
        }
        if let Some(first) = list.get(MAX_NAMES) {
            let message = format!("more than {MAX_NAMES} assets");
            self.faults.add(
                first.span(),
                "too-many-assets",
                message,
                "use an alias, or an asset that stands for several",
            );
        }
        names
    }
}

fn has_uri_of(one: &AssetDefinition, other: &AssetDefinition) -> bool {
    !one.is_alias && !other.is_alias && one.uri == other.uri
}

fn fault_of(text: &str) -> Option<(String, &'static str)> {
    if is_uri(text) || text.starts_with("file:") { fault_of_uri(text) } else { fault_of_name(text) }
}

/// Reads `a & (b | "s3://c/d")`. `&` binds more closely than `|`. A text that is a uri without blanks needs no quotes.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse_expression(text: &str) -> Result<AssetExpression, ExpressionFault> {
    let whole = text.trim();
    if is_uri(whole) && !whole.contains(char::is_whitespace) {
        return match fault_of_uri(whole) {
            Some((message, help)) => Err(ExpressionFault { range: 0..text.len(), message, help: help.to_owned() }),
            None => Ok(AssetExpression::One(whole.into())),
        };
    }
    let mut parser = Parser { text, at: 0, depth: 0 };
    let expression = parser.any()?;
    parser.skip_blanks();
    match parser.rest().chars().next() {
        None => Ok(expression),
        Some(')') => Err(parser.fault(1, "this bracket closes nothing", "remove it, or open one before")),
        Some(c) => {
            let help = "put `&` (both) or `|` (either) between two assets, and quotes around a uri";
            Err(parser.fault(c.len_utf8(), "an operator is missing here", help))
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Takes `mark` if it is next, behind blanks.
    fn takes(&mut self, mark: char) -> bool {
        self.skip_blanks();
        let is_next = self.rest().starts_with(mark);
        self.at += if is_next { mark.len_utf8() } else { 0 };
        is_next
    }

    fn fault(&self, length: usize, message: &str, help: &str) -> ExpressionFault {
        let end = (self.at + length).min(self.text.len());
        ExpressionFault { range: self.at..end, message: message.to_owned(), help: help.to_owned() }
    }

    fn any(&mut self) -> Result<AssetExpression, ExpressionFault> {
        let mut parts = vec![self.all()?];
        while self.takes('|') {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { AssetExpression::Any(parts) })
    }

    fn all(&mut self) -> Result<AssetExpression, ExpressionFault> {
        let mut parts = vec![self.one()?];
        while self.takes('&') {
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { AssetExpression::All(parts) })
    }

    fn one(&mut self) -> Result<AssetExpression, ExpressionFault> {
        if self.takes('(') {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(self.fault(0, "brackets are nested too deeply", "write it flatter"));
            }
            let inner = self.any()?;
            if !self.takes(')') {
                return Err(self.fault(1, "a closing bracket is missing here", "close each `(` with a `)`"));
            }
            self.depth -= 1;
            return Ok(inner);
        }
        let Some(first) = self.rest().chars().next() else {
            let help = "name an asset, as in `orders & customers`";
            return Err(self.fault(0, "an asset is missing at the end", help));
        };
        if matches!(first, '"' | '\'') {
            return self.quoted(first);
        }
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
        let length = self.rest().find(|c| !is_name(c)).unwrap_or(self.rest().len());
        let name = &self.rest()[..length];
        if self.rest()[length..].starts_with("://") {
            let length = self.rest().find(char::is_whitespace).unwrap_or(self.rest().len());
            return Err(self.fault(
                length,
                "a uri in an expression needs quotes",
                "write for example `a & 's3://bucket/b'`",
            ));
        }
        if name.is_empty() {
            return Err(self.fault(
                first.len_utf8(),
                "an asset is missing here",
                "name one, as in `orders & customers`",
            ));
        }
        if let Some((message, help)) = fault_of_name(name) {
            return Err(self.fault(length, &message, help));
        }
        self.at += length;
        Ok(AssetExpression::One(name.into()))
    }

    fn quoted(&mut self, quote: char) -> Result<AssetExpression, ExpressionFault> {
        let inside = &self.rest()[1..];
        let Some(end) = inside.find(quote) else {
            return Err(self.fault(1, "this quote is not closed", "close it"));
        };
        let text = &inside[..end];
        if let Some((message, help)) = fault_of(text) {
            return Err(self.fault(end + 2, &message, help));
        }
        self.at += end + 2;
        Ok(AssetExpression::One(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        parse_expression(text).unwrap().to_string()
    }

    #[test]
    fn and_binds_more_closely_than_or_and_brackets_win() {
        assert_eq!(shown("a | b & c"), "a | (b & c)");
        assert_eq!(shown("(a|b)&c"), "(a | b) & c");
        assert_eq!(shown("((a))"), "a");
        assert_eq!(shown("a & \"s3://b/c d\" | 'x'"), "(a & s3://b/c d) | x");
        assert_eq!(shown("file:///srv/in/*.csv"), "file:///srv/in/*.csv");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, place, message) in [
            ("", 0..0, "missing at the end"),
            ("a &", 3..3, "missing at the end"),
            ("a & | b", 4..5, "missing here"),
            ("a b", 2..3, "operator is missing"),
            ("(a | b", 6..6, "closing bracket is missing"),
            ("a)", 1..2, "closes nothing"),
            ("a & s3://b", 4..10, "needs quotes"),
            ("a & 's3://b", 4..5, "not closed"),
            ("'file://in/x' | a", 0..13, "no absolute path"),
        ] {
            let fault = parse_expression(text).unwrap_err();
            assert_eq!(fault.range, place, "{text}");
            assert!(fault.message.contains(message), "{text}: {}", fault.message);
        }
        assert!(parse_expression(&"(".repeat(100_000)).unwrap_err().message.contains("too deeply"));
    }

    fn expressions() -> impl Strategy<Value = AssetExpression> {
        let leaf = (0..6_u8).prop_map(|n| AssetExpression::One(format!("a{n}").into()));
        leaf.prop_recursive(4, 30, 4, |inner| {
            let parts = prop::collection::vec(inner, 2..4);
            prop_oneof![parts.clone().prop_map(AssetExpression::All), parts.prop_map(AssetExpression::Any)]
        })
    }

    /// By its meaning in words alone: each sum of products is tried.
    fn brute(expression: &AssetExpression, given: u8) -> bool {
        let alternatives = products(expression);
        alternatives.iter().any(|product| product.iter().all(|name| given & (1 << name) != 0))
    }

    fn products(expression: &AssetExpression) -> Vec<BTreeSet<u8>> {
        match expression {
            AssetExpression::One(name) => vec![BTreeSet::from([name[1..].parse().unwrap()])],
            AssetExpression::Any(parts) => parts.iter().flat_map(products).collect(),
            AssetExpression::All(parts) => parts.iter().map(products).fold(vec![BTreeSet::new()], |so_far, next| {
                let joined = so_far.iter().flat_map(|one| next.iter().map(|other| one | other).collect::<Vec<_>>());
                joined.collect::<BTreeSet<_>>().into_iter().collect()
            }),
        }
    }

    proptest! {
        #[test]
        fn an_expression_holds_when_brute_force_says_so(expression in expressions(), given: u8) {
            let read = parse_expression(&expression.to_string()).unwrap();
            let holds = |tree: &AssetExpression| {
                tree.holds(&mut |name| given & (1 << name[1..].parse::<u8>().unwrap()) != 0)
            };
            prop_assert_eq!(holds(&expression), brute(&expression, given));
            prop_assert_eq!(holds(&read), holds(&expression));
        }

        #[test]
        fn no_text_makes_the_parser_fall(text in "\\PC{0,40}") {
            let _ = parse_expression(&text);
        }
    }
}
