//! Reads the cases of a kind, has each checked, and prints `KIND: P of T`. Knows no kind's rules.

use std::io::Write as _;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

/// The most cases of a kind that may be excepted, in percent.
const MAX_EXCEPTED_PERCENT: usize = 3;
const SHOWN_MISMATCHES: usize = 20;

/// A difference from Airflow that minflow wants: all cases of a kind and tag that meet every condition.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    kind: String,
    /// None: whatever the tag, also none at all.
    tag: Option<String>,
    when: Vec<Condition>,
    /// For people; a rule without one is a fault.
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    /// A JSON pointer into the case, e.g. `/expect/error`.
    field: String,
    equals: Option<Value>,
    /// Of a text: a part of it.
    contains: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exceptions {
    #[serde(default)]
    exception: Vec<Exception>,
}

impl Condition {
    fn is_met(&self, case: &Value) -> bool {
        let Some(found) = case.pointer(&self.field) else { return false };
        let equals = self.equals.as_ref().is_none_or(|wanted| wanted == found);
        let contains =
            self.contains.as_ref().is_none_or(|part| found.as_str().is_some_and(|text| text.contains(part.as_str())));
        equals && contains
    }
}

impl Exception {
    fn covers(&self, kind: &str, case: &Value) -> bool {
        self.kind == kind
            && self.tag.as_deref().is_none_or(|tag| case["tag"] == tag)
            && self.when.iter().all(|condition| condition.is_met(case))
    }
}

/// The folder of the vectors.
pub fn folder() -> PathBuf {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    std::env::var_os("MINFLOW_VECTORS").map_or(default, PathBuf::from)
}

/// Every line of every `KIND*.jsonl`, in order of the files' names.
pub fn cases(kind: &str) -> Vec<Value> {
    let folder = folder();
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            // `templates` is `templates.dev.jsonl` and `templates.held.jsonl`, not `templates_more.jsonl`.
            name.ends_with(".jsonl")
                && name
                    .strip_prefix(kind)
                    .is_some_and(|rest| !rest.starts_with(|c: char| c == '_' || c.is_alphanumeric()))
        })
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let case =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{}:{}: {error}", file.display(), at + 1));
            cases.push(case);
        }
    }
    cases
}

/// The exceptions always come from the project: whoever brings other vectors does not bring other differences.
fn exceptions() -> Vec<Exception> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/exceptions.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let all: Exceptions = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for exception in &all.exception {
        assert!(!exception.reason.trim().is_empty(), "{exception:?} has no reason");
        assert!(!exception.when.is_empty(), "{exception:?} has no condition");
        for condition in &exception.when {
            assert!(condition.equals.is_some() || condition.contains.is_some(), "{exception:?} has an empty condition");
        }
    }
    all.exception
}

/// What became of the cases of a kind.
struct Tally {
    passed: usize,
    excepted: usize,
    mismatches: Vec<String>,
}

fn tally(kind: &str, cases: &[Value], check: impl Fn(&Value) -> Result<(), String>) -> Tally {
    let exceptions = exceptions();
    let mut tally = Tally { passed: 0, excepted: 0, mismatches: Vec::new() };
    for case in cases {
        match check(case) {
            Ok(()) => tally.passed += 1,
            Err(_) if exceptions.iter().any(|exception| exception.covers(kind, case)) => tally.excepted += 1,
            Err(difference) => {
                let id = case["id"].as_str().unwrap_or("?");
                tally.mismatches.push(format!("{id}: {difference}"));
            }
        }
    }
    tally
}

/// Checks every case and fails unless all are met or excepted. `check` says what differs.
///
/// `kind` is the name of the vectors, `shown` what the line names, e.g. `templates[core]`.
pub fn conform(kind: &str, shown: &str, cases: &[Value], check: impl Fn(&Value) -> Result<(), String>) {
    let total = cases.len();
    assert!(total > 0, "no cases of {shown} in {}", folder().display());
    let tally = tally(kind, cases, check);
    let mut line = format!("{shown}: {} of {total}", tally.passed);
    if tally.excepted > 0 {
        line.push_str(&format!(", {} excepted", tally.excepted));
    }
    // With one test thread the runner has already begun a line of its own.
    say(&format!("\n{line}"));
    for mismatch in tally.mismatches.iter().take(SHOWN_MISMATCHES) {
        say(&format!("  {mismatch}"));
    }
    assert!(tally.mismatches.is_empty(), "{shown}: {} cases differ from Airflow", tally.mismatches.len());
    assert!(
        tally.excepted * 100 <= total * MAX_EXCEPTED_PERCENT,
        "{shown}: {} exceptions of {total} are more than {MAX_EXCEPTED_PERCENT} %",
        tally.excepted
    );
}

/// Prints past the test runner's capture, so that a plain `cargo test` shows the line.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe is no reason to fail.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[test]
fn an_exception_covers_only_cases_that_meet_all_its_conditions() {
    let exception: Exception = toml::from_str(
        "kind = 'k'\ntag = 't'\nreason = 'r'\nwhen = [{ field = '/a/b', equals = 1 }, { field = '/c', contains = 'x' }]",
    )
    .unwrap();
    let case = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert!(exception.covers("k", &case(r#"{"tag":"t","a":{"b":1},"c":"axb"}"#)));
    assert!(!exception.covers("other", &case(r#"{"tag":"t","a":{"b":1},"c":"axb"}"#)));
    assert!(!exception.covers("k", &case(r#"{"a":{"b":1},"c":"axb"}"#)));
    assert!(!exception.covers("k", &case(r#"{"tag":"t","a":{"b":2},"c":"axb"}"#)));
    assert!(!exception.covers("k", &case(r#"{"tag":"t","a":{"b":1},"c":"ab"}"#)));
}

#[test]
#[should_panic(expected = "no cases")]
fn a_kind_without_cases_fails() {
    conform("absent", "absent", &[], |_| Ok(()));
}

#[test]
fn a_case_that_differs_is_counted_and_named() {
    let cases = [serde_json::json!({"id": "a1"}), serde_json::json!({"id": "a2"})];
    let tally = tally("absent", &cases, |case| if case["id"] == "a1" { Ok(()) } else { Err("differs".to_owned()) });
    assert_eq!((tally.passed, tally.excepted, tally.mismatches), (1, 0, vec!["a2: differs".to_owned()]));
}
