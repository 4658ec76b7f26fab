//! The examples of `docs/dag-format.md`, each run by `dags test` as it stands: it succeeds, or its tasks come to what the page says.
//!
//! Programs that the examples name and no host has are made here; they do nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::Home;

const PAGE: &str = include_str!("../../docs/dag-format.md");

const PROGRAMS: [&str; 9] =
    ["audit", "fetch-sales", "load", "mail-report", "make-report", "prune", "publish", "rebuild", "report"];
/// What an example needs that is not on every host, or waits for: such a one is only read, by the parser's own tests, and what it shows is
/// run where the part is tested (`sensors.rs`, `http.rs`, `email.rs`, `assets.rs`, `callbacks.rs`).
const OUTSIDE: [&str; 7] =
    ["sensor = ", "http = ", "email = ", "outlets", "assets", "triggering_asset_events", "notify = "];
/// Downloads nothing, but for the script that looks at the download.
const CURL: &str = "#!/bin/sh\nprintf '#!/bin/sh\\n' > check && chmod +x check\n";

/// Makes a virtual environment, and installs nothing into it.
const UV: &str = "#!/bin/sh\n[ \"$1\" != venv ] || { mkdir -p \"$4/bin\" && ln -s \"$3\" \"$4/bin/python\"; }\n";

/// What stands between two fences, and the words behind the first.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let parts: Vec<&str> = PAGE.split("```").collect();
    assert_eq!(parts.len() % 2, 1, "a fence is not closed");
    parts.iter().skip(1).step_by(2).map(|part| part.split_once('\n').unwrap()).collect()
}

fn home() -> Home {
    let home = Home::new();
    let program = |name: &str, text: &str| {
        let path = home.write(&format!("bin/{name}"), text);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    PROGRAMS.iter().for_each(|name| program(name, "#!/bin/sh\n"));
    program("curl", CURL);
    program("uv", UV);
    home.write("dags/scripts/check.sh", "true\n");
    home.write("dags/scripts/report.py", "def main(day):\n    return day\n");
    home
}

/// The states that `dags test` prints at its end, without what it says about them, and the run's.
fn states(printed: &str) -> Vec<String> {
    let lines: Vec<&str> = printed.lines().collect();
    let from = lines.iter().rposition(|line| line.starts_with("--- ") || line.contains("] minflow: "));
    let listed = &lines[from.map_or(0, |at| at + 1)..];
    let state = |line: &&str| line.split(" (").next().unwrap_or_default().to_owned();
    let mut states: Vec<String> = listed.iter().map(state).collect();
    if let Some(run) = states.last_mut() {
        *run = format!("run: {}", run.rsplit(": ").next().unwrap());
    }
    states
}

#[test]
fn every_example_of_the_page_comes_to_what_the_page_says() {
    let home = home();
    let path = format!("{}:{}", home.file("bin").display(), std::env::var("PATH").unwrap());
    let blocks = blocks();
    let mut shown = 0;
    for (at, (words, example)) in blocks.iter().enumerate().filter(|(_, (words, _))| *words == "toml") {
        assert_eq!(*words, "toml");
        if OUTSIDE.iter().any(|needed| example.contains(needed)) {
            continue;
        }
        let tasks = if example.contains("tasks.") { "" } else { "[tasks.a]\nempty = true\n" };
        home.dag(&format!("example_{at}"), &format!("{example}{tasks}"));
        let done = home.command(&format!("dags test example_{at}")).env("PATH", &path).output().unwrap();
        let printed = String::from_utf8_lossy(&done.stdout);
        let said = format!("{example}\n{printed}{}", String::from_utf8_lossy(&done.stderr));
        let states = states(&printed);
        match blocks.get(at + 1) {
            Some(("text states", expected)) => {
                let success = if expected.contains("run: ") { "" } else { "run: success\n" };
                assert_eq!(states.join("\n") + "\n", format!("{expected}{success}"), "{said}");
                shown += 1;
            }
            _ => assert_eq!(states.last().map(String::as_str), Some("run: success"), "{said}"),
        }
    }
    assert!(shown > 3, "the page shows what its examples come to");
}
