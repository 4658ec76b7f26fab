//! The text of a chain: `a >> [b, c] << d`.

use std::ops::Range;

/// A part of a chain's text.
pub(super) type Part = Range<usize>;
/// What is wrong with a chain, and where.
pub(super) type ChainFault = (String, Part);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrow {
    /// `>>`
    Right,
    /// `<<`
    Left,
}

/// The ids at one place of a chain, and the arrow behind them; the last link has none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Link<'t> {
    pub names: Vec<(&'t str, Part)>,
    pub arrow: Option<Arrow>,
}

/// Reads `a >> [b, c] << d`. A fault is a message and a part of the text.
pub(super) fn parse(text: &str) -> Result<Vec<Link<'_>>, ChainFault> {
    let mut links = Vec::new();
    let mut rest = 0;
    loop {
        let arrow_at = [">>", "<<"].iter().filter_map(|arrow| text[rest..].find(arrow)).min().map(|at| rest + at);
        let end = arrow_at.unwrap_or(text.len());
        let names = parse_names(text, rest..end)?;
        let Some(at) = arrow_at else {
            links.push(Link { names, arrow: None });
            break;
        };
        let arrow = if text[at..].starts_with('>') { Arrow::Right } else { Arrow::Left };
        links.push(Link { names, arrow: Some(arrow) });
        rest = at + 2;
    }
    if links.len() < 2 {
        return Err(("a chain needs an arrow".to_owned(), 0..text.len()));
    }
    Ok(links)
}

/// Reads one id, or several in brackets.
fn parse_names(text: &str, part: Part) -> Result<Vec<(&str, Part)>, ChainFault> {
    let part = trim(text, part);
    let inside = match text[part.clone()].strip_prefix('[') {
        None => return parse_name(text, part).map(|name| vec![name]),
        Some(after) if after.ends_with(']') => part.start + 1..part.end - 1,
        Some(_) => return Err(("a `[` without its `]`".to_owned(), part)),
    };
    let mut start = inside.start;
    let mut names = Vec::new();
    for piece in text[inside].split(',') {
        names.push(parse_name(text, trim(text, start..start + piece.len()))?);
        start += piece.len() + 1;
    }
    Ok(names)
}

fn parse_name(text: &str, part: Part) -> Result<(&str, Part), ChainFault> {
    let name = &text[part.clone()];
    match super::fault_of_id(name) {
        None => Ok((name, part)),
        Some(_) if name.is_empty() => Err(("an id is missing".to_owned(), part)),
        Some(_) => Err((format!("`{name}` is no id"), part)),
    }
}

fn trim(text: &str, part: Part) -> Part {
    let piece = &text[part.clone()];
    let start = part.start + (piece.len() - piece.trim_start().len());
    start..start + piece.trim().len()
}
