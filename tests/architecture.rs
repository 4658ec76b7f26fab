//! The shape that `docs/design.md` describes, held to by the sources: dependencies point down its list of modules, and what is
//! said to stand in one place stands there alone.
//!
//! Reads the sources as text: lines of comments and whatever is compiled for tests alone are left out.

#![allow(clippy::unwrap_used)] // a test that cannot go on is a failed test

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const DESIGN: &str = include_str!("../docs/design.md");
const DURABILITY: &str = include_str!("../docs/durability.md");

/// One file of `src/`, as far as it goes into the program.
struct Source {
    /// Relative to `src/`.
    path: PathBuf,
    /// Its place in the crate, e.g. `["watch", "scan"]`; empty for the crate's root.
    modules: Vec<String>,
    /// With its numbers, from 1.
    lines: Vec<(usize, String)>,
}

impl Source {
    fn top(&self) -> Option<&str> {
        self.modules.first().map(String::as_str)
    }

    fn is_under(&self, modules: &[&str]) -> bool {
        self.top().is_some_and(|top| modules.contains(&top))
    }

    /// `path:line: text` of each line that holds one of `words`.
    fn lines_with(&self, words: &[&str]) -> Vec<String> {
        let hits = self.lines.iter().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        hits.map(|(number, line)| format!("src/{}:{number}: {}", self.path.display(), line.trim())).collect()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn modules_of(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        path.with_extension("").components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|name| ["mod", "lib", "main"].contains(&name.as_str())) {
        names.pop();
    }
    names
}

/// The lines that are compiled without `cfg(test)`, and the modules (as files) that are not.
fn strip(text: &str, modules: &[String], path: &Path) -> (Vec<(usize, String)>, Vec<PathBuf>) {
    let (mut kept, mut test_files) = (Vec::new(), Vec::new());
    let mut lines = text.lines().enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        let bare = line.trim_start();
        if bare.starts_with("//") {
            continue;
        }
        if bare != "#[cfg(test)]" {
            kept.push((at + 1, line.to_owned()));
            continue;
        }
        let indent = &line[..line.len() - bare.len()];
        let mut named = None;
        while let Some((_, attribute)) = lines.next_if(|(_, next)| next.trim_start().starts_with("#[")) {
            named = attribute.trim().strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]"));
        }
        let (_, item) = lines.next().expect("an attribute stands before an item");
        match item.trim().strip_suffix(';') {
            Some(declared) => {
                let module = declared.split(' ').next_back().unwrap();
                let folder: PathBuf = modules.iter().collect();
                test_files.push(match named {
                    Some(file) => path.parent().unwrap().join(file),
                    None => folder.join(module),
                });
            }
            // rustfmt ends an item's braces at the item's own indent.
            None if item.ends_with('{') => {
                while lines.next().is_some_and(|(_, line)| line.strip_prefix(indent) != Some("}")) {}
            }
            None => {}
        }
    }
    (kept, test_files)
}

/// All files that go into the program, in order of their paths.
fn sources() -> Vec<Source> {
    let (mut paths, mut found, mut test_files) = (Vec::new(), Vec::new(), Vec::new());
    files_below(&root(), &mut paths);
    paths.sort();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(root()).unwrap().to_owned();
        let modules = modules_of(&path);
        let (lines, tests) = strip(&text, &modules, &path);
        test_files.extend(tests);
        found.push(Source { path, modules, lines });
    }
    found.retain(|source| {
        let is_test = |test: &PathBuf| source.path == *test || source.path.with_extension("").starts_with(test);
        !test_files.iter().any(is_test)
    });
    found
}

/// The modules in the order of the list in the design, from the top down.
fn listed() -> Vec<String> {
    let (_, rest) = DESIGN.split_once("## 3. Source tree").expect("the design lists the source tree");
    let block = rest.split("```").nth(1).expect("the list stands in a block");
    let paths = block.lines().filter_map(|line| line.strip_prefix("src/")?.split_whitespace().next());
    paths
        .map(|path| path.trim_end_matches('/').trim_end_matches(".rs").to_owned())
        .filter(|name| name != "main")
        .collect()
}

/// The top-level modules that a line of code names by `crate::`.
fn named_in(line: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for rest in line.split("crate::").skip(1) {
        let group = rest.strip_prefix('{').map(|group| group.split('}').next().unwrap_or(group));
        let paths: Vec<&str> = group.map_or(vec![rest], |group| group.split(',').collect());
        for path in paths {
            let path = path.trim();
            let end = path.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(path.len());
            if end > 0 {
                names.push(&path[..end]);
            }
        }
    }
    names
}

fn assert_none(faults: &[String], rule: &str) {
    assert!(faults.is_empty(), "{rule}:\n{}", faults.join("\n"));
}

#[test]
fn the_design_lists_every_module_once() {
    let declared: BTreeSet<String> = fs::read_to_string(root().join("lib.rs"))
        .unwrap()
        .lines()
        .filter_map(|line| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned()))
        .collect();
    let listed = listed();
    assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), declared);
    assert_eq!(listed.len(), declared.len());
}

#[test]
fn dependencies_point_down_the_list() {
    let place: BTreeMap<String, usize> = listed().into_iter().enumerate().map(|(at, name)| (name, at)).collect();
    let mut faults = Vec::new();
    let mut edges = 0;
    for source in sources() {
        let Some(own) = source.top() else { continue };
        for (number, line) in &source.lines {
            for name in named_in(line).into_iter().filter(|name| *name != own) {
                edges += 1;
                let is_below = place.get(name).is_some_and(|below| *below > place[own]);
                if !is_below {
                    faults.push(format!("src/{}:{number}: {own} uses {name}", source.path.display()));
                }
            }
            // `super` must not lead out of the top-level module, past the check above.
            let escape = "super::".repeat(source.modules.len());
            if line.contains(&escape) {
                faults.push(format!("src/{}:{number}: say `crate::`: {}", source.path.display(), line.trim()));
            }
        }
    }
    assert_none(&faults, "a module uses what does not stand below it in the list of docs/design.md");
    assert!(edges > 100, "only {edges} uses were found: the check does not see the sources");
}

#[test]
fn sql_stands_in_the_store_alone() {
    const SQL: &[&str] = &[
        "rusqlite",
        "SELECT ",
        "INSERT INTO",
        "INSERT OR",
        "DELETE FROM",
        "PRAGMA ",
        "CREATE TABLE",
        "CREATE INDEX",
        "ON CONFLICT",
    ];
    // The `sql` operator runs what users write, in files of their own.
    let is_users = |source: &Source| source.path == Path::new("builtin/sql.rs");
    let outside = |source: &Source| source.top() != Some("store") && !is_users(source);
    let faults: Vec<String> = sources().iter().filter(|s| outside(s)).flat_map(|s| s.lines_with(SQL)).collect();
    assert_none(&faults, "SQL outside src/store/");
    let inside = sources().iter().filter(|s| !outside(s)).flat_map(|s| s.lines_with(SQL)).count();
    assert!(inside > 20, "the check does not see the store's SQL");
}

#[test]
fn one_file_knows_tiny_http() {
    let files = sources();
    let knowing: Vec<&Path> =
        files.iter().filter(|s| !s.lines_with(&["tiny_http"]).is_empty()).map(|s| s.path.as_path()).collect();
    assert_eq!(knowing, [Path::new("api/server.rs")]);
}

#[test]
fn one_module_is_unsafe() {
    const UNSAFE: &[&str] = &["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe(", "(unsafe_code"];
    let files = sources();
    let unsafes: Vec<&Path> =
        files.iter().filter(|s| !s.lines_with(UNSAFE).is_empty()).map(|s| s.path.as_path()).collect();
    let module = ["sys/clone.rs", "sys/reaper.rs", "sys/signals.rs", "sys/user.rs", "sys.rs"];
    assert_eq!(unsafes, module.map(|file| Path::new("supervisor").join(file)));
}

#[test]
fn what_decides_touches_no_file_no_thread_and_no_clock() {
    const PURE: &[&str] = &[
        "simulate",
        "scheduler",
        "template",
        "jinja",
        "dagfile",
        "crontab",
        "timetable",
        "mapping",
        "params",
        "model",
    ];
    const OUTSIDE: &[&str] = &[
        "std::fs",
        "std::thread",
        "std::net",
        "std::process",
        "std::env",
        "use std::{", // would hide one of the above
        "SystemTime",
        "SystemClock",
        "Timestamp::now",
        "Zoned::now",
        "Instant::now",
        "rustix::",
    ];
    let pure: Vec<Source> = sources().into_iter().filter(|source| source.is_under(PURE)).collect();
    assert!(pure.len() > 30, "the check does not see the sources");
    let faults: Vec<String> = pure.iter().flat_map(|source| source.lines_with(OUTSIDE)).collect();
    assert_none(&faults, "a module that decides reaches outside");
}

#[test]
fn what_decides_has_no_order_that_differs_from_run_to_run() {
    let files = sources();
    let deciding =
        files.iter().filter(|source| source.is_under(&["simulate", "scheduler", "timetable", "mapping", "model"]));
    let faults: Vec<String> =
        deciding.flat_map(|source| source.lines_with(&["HashMap", "HashSet", "RandomState"])).collect();
    assert_none(&faults, "a module that decides keeps things in the order of a hash");
}

#[test]
fn what_the_design_names_is_in_the_sources() {
    let mut text = include_str!("../src/store/schema.sql").to_owned();
    for source in sources() {
        text.push_str(&format!("{}\n", source.path.display()));
        text.extend(source.lines.into_iter().map(|(_, line)| line + "\n"));
    }
    let names: BTreeSet<&str> = DESIGN.split('`').skip(1).step_by(2).filter(|name| is_of_the_sources(name)).collect();
    let is_there = |name: &str| text.contains(name.rsplit("::").next().unwrap().trim_end_matches(".rs"));
    let missing: Vec<&str> = names.iter().copied().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "docs/design.md names what is not in src/: {missing:?}");
    assert!(names.len() > 40, "only {} names were found", names.len());
}

/// A function, a path of Rust or a file, rather than a command or a word.
fn is_of_the_sources(name: &str) -> bool {
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "_:.".contains(c));
    is_plain && (name.contains('_') || name.contains("::") || name.ends_with(".rs"))
}

#[test]
fn each_promise_names_a_test_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    let mut folders = vec![root.join("src"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let rows = DURABILITY
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| promise") && !line.starts_with("| ---"));
    let mut named = 0;
    for row in rows {
        let last = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let tests: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test is named: {row}");
        for test in tests {
            assert!(text.contains(&format!("fn {test}()")), "docs/durability.md names `{test}`, which is not there");
            named += 1;
        }
    }
    assert!(named > 30, "only {named} tests were found");
}

#[test]
fn an_upward_use_would_be_seen() {
    assert_eq!(named_in("use crate::{api, ui::render};"), ["api", "ui"]);
    assert_eq!(named_in("fn f(a: crate::store::Reader) -> crate::cli::Outcome"), ["store", "cli"]);
    let text =
        "use crate::api;\n#[cfg(test)]\nmod tests {\n    use crate::cli;\n}\n#[cfg(test)]\nmod fake;\nuse crate::ui;\n";
    let (lines, tests) = strip(text, &["watch".to_owned()], Path::new("watch.rs"));
    let kept: Vec<&str> = lines.iter().flat_map(|(_, line)| named_in(line)).collect();
    assert_eq!(kept, ["api", "ui"]);
    assert_eq!(tests, [PathBuf::from("watch/fake")]);
}
