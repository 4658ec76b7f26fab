//! The pattern of a path, as Python's `glob` reads it: `*`, `?`, `[a-z]`, `[!a-z]`, and `**` for folders at any depth.
//!
//! Sensors and file triggers name files so. Knows names only, no disk. A wildcard matches no name that begins with a dot unless its own part begins with one.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Which paths are meant. Thousands may be kept, so it holds its text alone and takes that apart when it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Arc<str>,
    /// A folder that matches stands for all files below it (Airflow: FileSensor).
    counts_folders: bool,
}

/// What stands between two slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A name as it is.
    Name(OsString),
    Wild(Vec<Piece>),
    /// `**`: no folder, or folders at any depth, hidden ones left out.
    Depths,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Char(char),
    One,
    Any,
    Set { is_negated: bool, ranges: Vec<(char, char)> },
}

/// Why a text is no pattern. Its text fits after the pattern itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternFault {
    /// It does not begin with a slash.
    Relative,
    /// It ends with a slash, or names no more than the root.
    NoName,
    /// It holds `..`, which would lead out of what is watched.
    Upwards,
}

impl fmt::Display for PatternFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relative => "is not an absolute path",
            Self::NoName => "names no file: write what files are called, e.g. `/srv/in/*.csv`",
            Self::Upwards => "holds `..`: write the path without it",
        })
    }
}

impl std::error::Error for PatternFault {}

impl Pattern {
    /// # Errors
    /// The text is not an absolute path of at least one name, or holds `..`.
    pub fn parse(text: impl Into<Arc<str>>) -> Result<Self, PatternFault> {
        let text = text.into();
        parts(&text).map(|_| Self { text, counts_folders: false })
    }

    /// The same, where a folder that matches stands for all files below it.
    pub fn with_folders(mut self) -> Self {
        self.counts_folders = true;
        self
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it may match more than one path.
    pub fn is_wild(&self) -> bool {
        self.parts().iter().any(|part| !matches!(part, Part::Name(_)))
    }

    /// Whether a file of this path is meant.
    pub fn matches(&self, path: &Path) -> bool {
        self.has_match(&self.parts(), &names(path))
    }

    /// Whether files below a folder of this path may be meant.
    pub fn leads_through(&self, folder: &Path) -> bool {
        let (parts, names) = (self.parts(), names(folder));
        may_begin(&parts, &names) || (self.counts_folders && self.has_match(&parts, &names))
    }

    fn has_match(&self, parts: &[Part], names: &[Vec<u8>]) -> bool {
        match self.counts_folders {
            true => (1..=names.len()).any(|end| covers(parts, &names[..end])),
            false => covers(parts, names),
        }
    }

    /// # Panics
    /// Never: its text was looked at when it was made.
    pub fn parts(&self) -> Vec<Part> {
        parts(&self.text).expect("a pattern's text is one")
    }

    pub const fn counts_folders(&self) -> bool {
        self.counts_folders
    }
}

impl Part {
    /// Whether one name is meant by it.
    pub fn accepts(&self, name: &[u8]) -> bool {
        match self {
            Self::Name(own) => own.as_bytes() == name,
            Self::Depths => name.first() != Some(&b'.'),
            Self::Wild(pieces) => {
                let hides = pieces.first() != Some(&Piece::Char('.'));
                if hides && name.first() == Some(&b'.') {
                    return false;
                }
                let name: Vec<char> = String::from_utf8_lossy(name).chars().collect();
                fits(pieces, &name)
            }
        }
    }
}

/// A pattern between its slashes.
fn parts(text: &str) -> Result<Vec<Part>, PatternFault> {
    if !text.starts_with('/') {
        return Err(PatternFault::Relative);
    }
    let mut parts = Vec::new();
    for part in text.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let part = match part {
            ".." => return Err(PatternFault::Upwards),
            "**" => Part::Depths,
            _ if part.contains(['*', '?', '[']) => Part::Wild(pieces(part)),
            _ => Part::Name(part.into()),
        };
        // Two of them in a row say no more than one.
        if part != Part::Depths || parts.last() != Some(&Part::Depths) {
            parts.push(part);
        }
    }
    if parts.is_empty() || text.ends_with('/') { Err(PatternFault::NoName) } else { Ok(parts) }
}

fn names(path: &Path) -> Vec<Vec<u8>> {
    let normal = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.as_bytes().to_vec()),
        _ => None,
    });
    normal.collect()
}

fn covers(parts: &[Part], names: &[Vec<u8>]) -> bool {
    match (parts.split_first(), names.split_first()) {
        (None, None) => true,
        (Some((Part::Depths, rest)), None) => covers(rest, names),
        (Some((Part::Depths, rest)), Some((name, others))) => {
            covers(rest, names) || (Part::Depths.accepts_within(name, rest, others) && covers(parts, others))
        }
        (Some((part, rest)), Some((name, others))) => part.accepts(name) && covers(rest, others),
        _ => false,
    }
}

impl Part {
    /// Whether `**` may take `name`: a folder on the way, or at the pattern's end the file itself.
    fn accepts_within(&self, name: &[u8], rest: &[Part], others: &[Vec<u8>]) -> bool {
        self.accepts(name) && (!others.is_empty() || rest.is_empty())
    }
}

/// Whether the names match some first parts with at least one part left for what lies below.
fn may_begin(parts: &[Part], names: &[Vec<u8>]) -> bool {
    match (parts.split_first(), names.split_first()) {
        (Some(_), None) => true,
        (Some((Part::Depths, rest)), Some((name, others))) => {
            may_begin(rest, names) || (Part::Depths.accepts(name) && may_begin(parts, others))
        }
        (Some((part, rest)), Some((name, others))) => part.accepts(name) && may_begin(rest, others),
        (None, _) => false,
    }
}

/// Python's `fnmatch`: a bracket without its end is a bracket.
fn pieces(text: &str) -> Vec<Piece> {
    let chars: Vec<char> = text.chars().collect();
    let (mut pieces, mut at) = (Vec::new(), 0);
    while let Some(&char) = chars.get(at) {
        at += 1;
        pieces.push(match char {
            '*' if pieces.last() == Some(&Piece::Any) => continue,
            '*' => Piece::Any,
            '?' => Piece::One,
            '[' => match set(&chars[at..]) {
                Some((set, length)) => {
                    at += length;
                    set
                }
                None => Piece::Char('['),
            },
            _ => Piece::Char(char),
        });
    }
    pieces
}

/// What stands behind an opening bracket, and how many characters it takes with the closing one. A `]` that comes first is one of
/// the set; a range written backwards is empty.
fn set(chars: &[char]) -> Option<(Piece, usize)> {
    let is_negated = chars.first() == Some(&'!');
    let from = usize::from(is_negated);
    let end = from + 1 + chars.get(from + 1..)?.iter().position(|&char| char == ']')?;
    let (mut ranges, mut at) = (Vec::new(), from);
    while at < end {
        let (first, is_range) = (chars[at], at + 2 < end && chars[at + 1] == '-');
        let last = if is_range { chars[at + 2] } else { first };
        if first <= last {
            ranges.push((first, last));
        }
        at += if is_range { 3 } else { 1 };
    }
    Some((Piece::Set { is_negated, ranges }, end + 1))
}

/// Goes back to the newest `*` only, so that it takes at most pieces × characters steps.
fn fits(pieces: &[Piece], name: &[char]) -> bool {
    let (mut piece, mut at) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    while at < name.len() {
        match pieces.get(piece) {
            Some(Piece::Any) => {
                again = Some((piece + 1, at));
                piece += 1;
                continue;
            }
            Some(own) if own.accepts(name[at]) => {
                (piece, at) = (piece + 1, at + 1);
                continue;
            }
            _ => {}
        }
        let Some((from, taken)) = again else { return false };
        again = Some((from, taken + 1));
        (piece, at) = (from, taken + 1);
    }
    pieces[piece..].iter().all(|left| *left == Piece::Any)
}

impl Piece {
    fn accepts(&self, char: char) -> bool {
        match self {
            Self::Char(own) => *own == char,
            Self::One | Self::Any => true,
            Self::Set { is_negated, ranges } => {
                ranges.iter().any(|&(first, last)| (first..=last).contains(&char)) != *is_negated
            }
        }
    }
}

/// A path of `folder` and one more name.
pub fn join(folder: &Path, name: &[u8]) -> PathBuf {
    folder.join(OsString::from_vec(name.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_match_as_pythons_glob_has_them() {
        let cases = [
            ("/in/*.csv", "/in/a.csv", true),
            ("/in/*.csv", "/in/.a.csv", false),
            ("/in/.*.csv", "/in/.a.csv", true),
            ("/in/*.csv", "/in/deep/a.csv", false),
            ("/in/*.csv", "/in/a.csv.tmp", false),
            ("/in/*", "/in/ä", true),
            ("/in/?", "/in/ä", true),
            ("/in/?", "/in/ab", false),
            ("/in/[a-c]x", "/in/bx", true),
            ("/in/[!a-c]x", "/in/bx", false),
            ("/in/[]]x", "/in/]x", true),
            ("/in/[x", "/in/[x", true),
            ("/in/[c-a]", "/in/b", false),
            ("/in/a*b*c", "/in/axxbyyc", true),
            ("/in/a*b*c", "/in/axxbyy", false),
            ("/in/**", "/in/a/b.csv", true),
            ("/in/**/*.csv", "/in/a.csv", true),
            ("/in/**/*.csv", "/in/a/b/c.csv", true),
            ("/in/**/*.csv", "/in/.a/c.csv", false),
            ("/in/**/x/*.csv", "/in/a/x/c.csv", true),
            ("/*/in/a", "/srv/in/a", true),
            ("/in//./a", "/in/a", true),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(Path::new(path)), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn a_folder_leads_through_if_something_below_it_may_match() {
        let pattern = Pattern::parse("/srv/*/in/**/*.csv").unwrap();
        for folder in ["/", "/srv", "/srv/a", "/srv/a/in", "/srv/a/in/x/y"] {
            assert!(pattern.leads_through(Path::new(folder)), "{folder}");
        }
        for folder in ["/home", "/srv/.a", "/srv/a/out", "/srv/a/in/.x"] {
            assert!(!pattern.leads_through(Path::new(folder)), "{folder}");
        }
    }

    #[test]
    fn a_folder_stands_for_the_files_below_it_where_that_is_asked_for() {
        let pattern = Pattern::parse("/in/day-*").unwrap();
        assert!(!pattern.matches(Path::new("/in/day-1/a/b")));
        assert!(pattern.clone().with_folders().matches(Path::new("/in/day-1/a/b")));
        assert!(!pattern.with_folders().matches(Path::new("/in/week/a/b")));
    }

    #[test]
    fn what_names_no_file_below_the_root_is_no_pattern() {
        assert_eq!(Pattern::parse("in/*.csv"), Err(PatternFault::Relative));
        assert_eq!(Pattern::parse("/"), Err(PatternFault::NoName));
        assert_eq!(Pattern::parse("/in/"), Err(PatternFault::NoName));
        assert_eq!(Pattern::parse("/in/../x"), Err(PatternFault::Upwards));
    }
}
