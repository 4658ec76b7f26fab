//! The README's examples, run as printed: ```` ```toml ```` blocks are files, ```` ```sh ```` blocks are commands with `minflow` in the
//! PATH, and the ```` ```text ```` block that follows one is what it prints.

#![allow(clippy::unwrap_used)] // a test that cannot go on is a failed test

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const README: &str = include_str!("../README.md");

struct Block<'a> {
    /// The words behind the fence.
    info: Vec<&'a str>,
    body: &'a str,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let parts: Vec<&str> = text.split("```").collect();
    assert_eq!(parts.len() % 2, 1, "a fence is not closed");
    parts
        .iter()
        .skip(1)
        .step_by(2)
        .map(|part| {
            let (info, body) = part.split_once('\n').expect("a fence ends its line");
            Block { info: info.split_whitespace().collect(), body }
        })
        .collect()
}

/// A home with the shipped examples, as a clone is.
fn home() -> tempfile::TempDir {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("dags")).unwrap();
    fs::copy(root.join("airflow.toml"), home.path().join("airflow.toml")).unwrap();
    for file in fs::read_dir(root.join("dags")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), home.path().join("dags").join(file.file_name())).unwrap();
    }
    home
}

#[test]
fn the_readmes_commands_print_what_it_says() {
    let home = home();
    let binary = Path::new(env!("CARGO_BIN_EXE_minflow"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let blocks = blocks(README);
    let mut ran = 0;
    for (at, block) in blocks.iter().enumerate() {
        match block.info.as_slice() {
            ["toml", name] => fs::write(home.path().join(name), block.body).unwrap(),
            ["sh", rest @ ..] => {
                let expected_code = rest.first().map_or(0, |code| code.strip_prefix("exit=").unwrap().parse().unwrap());
                let done = Command::new("sh")
                    .args(["-ec", block.body])
                    .current_dir(home.path())
                    .env("PATH", &path)
                    .env_remove("MINFLOW_HOME")
                    .output()
                    .unwrap();
                let stderr = String::from_utf8_lossy(&done.stderr);
                assert_eq!(done.status.code(), Some(expected_code), "{}\n{stderr}", block.body);
                let printed = String::from_utf8(done.stdout).unwrap();
                let expected = blocks.get(at + 1).filter(|next| next.info == ["text"]).expect("a text block follows");
                assert_eq!(printed.trim_end(), expected.body.trim_end(), "{}", block.body);
                ran += 1;
            }
            _ => {}
        }
    }
    assert_eq!(ran, 3, "the README has three blocks of commands");
}

#[test]
fn the_readmes_example_is_the_shipped_file() {
    let shown = blocks(README).into_iter().find(|block| block.info == ["toml"]).expect("the README shows a DAG file");
    assert_eq!(shown.body, include_str!("../dags/second_try.toml"));
}

#[test]
fn every_document_that_the_readme_names_is_there() {
    for word in README.split('`').filter(|word| word.starts_with("docs/") && word.ends_with(".md")) {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(word).is_file(), "{word} is missing");
    }
}

#[test]
fn every_dependency_has_its_reason_and_no_reason_is_left_over() {
    let manifest: toml::Table = include_str!("../Cargo.toml").parse().unwrap();
    let used: BTreeSet<&str> = ["dependencies", "dev-dependencies"]
        .iter()
        .flat_map(|section| manifest[*section].as_table().unwrap().keys().map(String::as_str))
        .collect();
    let explained: BTreeSet<&str> = include_str!("../docs/dependencies.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .filter(|name| !["crate", "---"].contains(name))
        .collect();
    assert_eq!(explained, used);
}
