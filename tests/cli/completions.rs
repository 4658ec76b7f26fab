//! `minflow completions`: scripts that the shells themselves take.

use std::process::{Command, Stdio};

use super::Test;

fn script(shell: &str) -> String {
    let done = Command::new(env!("CARGO_BIN_EXE_minflow")).args(["completions", shell]).output().unwrap();
    assert_eq!((done.status.code(), &*done.stderr), (Some(0), &b""[..]));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn each_shell_gets_a_script_with_the_commands_and_without_the_hidden_ones() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = script(shell);
        for word in ["minflow", "backfill", "list-import-errors", "profile"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        for hidden in ["supervise", "operator"] {
            let is_offered = |line: &&str| line.split(|c: char| !c.is_alphanumeric()).any(|word| word == hidden);
            assert_eq!(script.lines().find(is_offered), None, "{shell}");
        }
    }
    Test::new("completions tcsh")
        .code(2)
        .stderr_contains("[possible values: bash, elvish, fish, powershell, zsh]")
        .run();
}

#[test]
fn bash_completes_commands_and_options_by_it() {
    let ask = r#"COMP_WORDS=(minflow pools se); COMP_CWORD=2; _minflow minflow se pools; echo "${COMPREPLY[@]}"
COMP_WORDS=(minflow stop --dr); COMP_CWORD=2; _minflow minflow --dr stop; echo "${COMPREPLY[@]}""#;
    // An argument has 128 KiB at most.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("script");
    std::fs::write(&file, format!("{}\n{ask}\n", script("bash"))).unwrap();
    let done = Command::new("bash").arg("--norc").arg(&file).stdin(Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "set\n--drain\n", "{}", String::from_utf8_lossy(&done.stderr));
}
