//! What comes from outside is read without harm, whatever it is: no input makes a reader fall, loop, or take in what it should refuse.
//!
//! Each target takes bytes. Its corpus (`corpus/TARGET`, a file for each input, or a line of `*.lines`) is run as it stands and then
//! mutated, by chances that begin with a seed. `MINFLOW_FUZZ=N` makes N mutations of each corpus instead of a thousand, and
//! `MINFLOW_SEED=S` begins elsewhere. What fails is printed as it was, to be put into the corpus.

#![allow(clippy::unwrap_used)] // a test that cannot go on is a failed test

mod mutate;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mutate::Mutator;

/// No input of these sizes takes long; one that does has found a loop. Far more than a busy host needs.
const PATIENCE: Duration = Duration::from_secs(60);

fn number(variable: &str, otherwise: u64) -> u64 {
    let given = std::env::var(variable).ok();
    given
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is a whole number, not `{text}`")))
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut inputs = Vec::new();
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        match file.extension().is_some_and(|extension| extension == "lines") {
            true => {
                inputs.extend(bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec))
            }
            false => inputs.push(bytes),
        }
    }
    assert!(!inputs.is_empty(), "{} has no inputs", folder.display());
    inputs
}

/// Runs a target on its corpus and on mutations of it. `words`: what is put into inputs beside chance.
fn fuzz(target: &str, share: u64, words: &[&str], mut read: impl FnMut(&[u8])) {
    let inputs = corpus(target);
    let mut mutator = Mutator::new(number("MINFLOW_SEED", 1), words);
    let count = (number("MINFLOW_FUZZ", 1_000) / share).max(1) as usize;
    let mutated = std::iter::repeat_with(|| mutator.mutate(&inputs)).take(count);
    for input in inputs.iter().cloned().chain(mutated.collect::<Vec<_>>()) {
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| read(&input)));
        let taken = begun.elapsed();
        if outcome.is_err() || taken > PATIENCE {
            panic!("`{target}` fell or took too long ({taken:?}) on:\n{}\n", input.escape_ascii());
        }
    }
}

#[test]
fn dag_files() {
    let words = [
        "[tasks.a]",
        "bash = ",
        "depends_on",
        "expand = {",
        "\"\"\"",
        "'''",
        "{{ ",
        " }}",
        "{% for x in ",
        "schedule = ",
        "[[",
        "]]",
        "= {",
        "0",
        "-1",
        "9223372036854775808",
        "1e400",
        "inf",
        "\u{0}",
        "\u{fffd}",
        "1979-05-27T07:32:00Z",
        "[default_args]",
        "task_groups",
        "chain = [\"a >> b\"]",
        "include",
        "needs = { memory = \"auto\" }",
        "\"1d\"",
    ];
    fuzz("dag", 1, &words, targets::dag);
}

#[test]
fn configurations() {
    let words = [
        "[core]",
        "[pools]",
        "[connections.x]",
        "[variables]",
        "parallelism = ",
        "\"auto\"",
        "= {",
        "-1",
        "99999999999999999999",
        "[notifiers.x]",
        "kind = ",
        "[profiles.p.core]",
        "profile = \"p\"",
        "[admission]",
        "\"10%\"",
        "\"1GiB\"",
    ];
    fuzz("config", 1, &words, targets::config);
}

#[test]
fn cron_expressions() {
    let words = [
        "*",
        "/",
        "-",
        ",",
        "L",
        "W",
        "#",
        "?",
        "0",
        "59",
        "60",
        "31",
        "FEB",
        "sun",
        "99999999999",
        "@daily",
        " ",
        "2099",
    ];
    fuzz("cron", 1, &words, targets::cron);
}

#[test]
fn crontabs() {
    let words =
        ["MAILTO=", "CRON_TZ=", "@reboot", "%", "\\%", "* * * * * ", "\"", "SHELL=/bin/sh\n", "#", "\n", "PATH=$PATH"];
    fuzz("crontab", 1, &words, targets::crontab);
}

#[test]
fn templates() {
    let words = [
        "{{ ",
        " }}",
        "{% ",
        " %}",
        "{# ",
        "for x in ",
        "range(",
        "items",
        "endfor",
        "if ",
        "| ",
        "join",
        "~",
        "**",
        "*",
        "[0]",
        ".x",
        "'a'",
        "9999999999",
        "set y = ",
        "macro m(a)",
        "recursive",
        "loop(",
        "|format(",
        "|sort",
        "|map('",
        "|tojson",
        "-1",
        "\"",
        "(",
        ")",
    ];
    fuzz("template", 1, &words, targets::template);
}

#[test]
fn http_requests() {
    let words = [
        "\r\n",
        "\r\n\r\n",
        "\n",
        " ",
        ":",
        "Host: ",
        "Content-Length: ",
        "Transfer-Encoding: chunked",
        "HTTP/1.1",
        "+1",
        "-1",
        "99999999999999999999",
        "GET / HTTP/1.1\r\n",
        "\t",
        "\u{0}",
        "?dag_id=",
        "%",
        "%00",
        "Origin: null",
    ];
    fuzz("http", 1, &words, targets::http);
}

#[test]
fn answers_of_plugins() {
    let words = [
        "{",
        "}",
        "\"state\":",
        "\"xcom\":",
        "\"success\"",
        "null",
        "[[[[",
        "1e999",
        "\\ud800",
        "\n",
        ",",
        "\"message\":",
    ];
    fuzz("plugin", 1, &words, targets::plugin);
}

#[test]
fn messages_of_the_supervisor_and_commands_of_the_socket() {
    let words = ["\u{0}\u{0}\u{0}\u{0}", "\u{7f}", "{\"", "\":", "\"Trigger\"", "[", "null"];
    fuzz("protocol", 1, &words, targets::protocol);
}

/// What stands in the database by another's hand: each input says which cells get which values.
#[test]
fn rows_of_the_database() {
    let home = tempfile::tempdir().unwrap();
    let database = targets::Rows::new(home.path());
    fuzz("rows", 5, &["\u{0}", "\u{ff}"], |input| database.read(input));
}
