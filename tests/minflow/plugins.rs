//! Plugins in real runs: those of `docs/plugins.md` as they stand there, and those that misbehave.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::harness::{Home, until};

const PAGE: &str = include_str!("../../docs/plugins.md");

/// The block of the page in that language.
fn block(language: &str) -> &'static str {
    let begin = format!("```{language}\n");
    PAGE.split_once(&begin).unwrap().1.split_once("```").unwrap().0
}

fn plugin(home: &Home, name: &str, script: &str) {
    let path = home.write(&format!("plugins/{name}"), script);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_plugins_of_the_page_do_what_it_says() {
    let home = Home::new();
    plugin(&home, "greet", block("sh"));
    plugin(&home, "count_lines", block("python"));
    home.write("in/a.csv", "1\n2\n");
    home.dag("page", &block("toml").replace("/srv/in", home.file("in").to_str().unwrap()));
    let _minflow = home.start();
    let ran = home.run_dag("page", "r");
    assert_eq!(
        ran.code,
        Some(0),
        "{ran:?} {} {}",
        home.log("page", "r", "count", 1),
        home.log("page", "r", "greet", 1)
    );
    assert!(home.cli("tasks xcom page r greet").out.contains("| hello Ann |"));
    let count = home.task("page", "r", "count");
    assert_eq!((&count["reason"], &count["operator"]), (&json!("1 files"), &json!("count_lines")));
    assert!(home.log("page", "r", "count", 1).contains("\nlooked at "));
    home.trigger_with("page", "nobody", r#"{"name":"nobody"}"#);
    assert_eq!(home.await_run("page", "nobody"), "success");
    let greet = home.task("page", "nobody", "greet");
    assert_eq!((&greet["state"], &greet["reason"]), (&json!("skipped"), &json!("there is nobody to greet")));
}

#[test]
fn a_plugin_that_misbehaves_fails_with_what_came() {
    let home = Home::new();
    plugin(&home, "hang", "#!/bin/sh\nsleep 1000\n");
    plugin(&home, "flood", "#!/bin/sh\nhead -c 3000000 /dev/zero | tr '\\0' x\necho\necho '{\"xcom\": 1}'\n");
    plugin(&home, "drown", "#!/bin/sh\nhead -c 3000000 /dev/zero | tr '\\0' x\n");
    plugin(&home, "talk", "#!/bin/sh\necho all done\n");
    plugin(&home, "die", "#!/bin/sh\nkill -9 $$\n");
    plugin(&home, "fail", "#!/bin/sh\necho '{\"xcom\": 1}'\nexit 3\n");
    plugin(&home, "say", "#!/bin/sh\necho '{\"state\": \"failed\", \"message\": \"no disk\", \"xcom\": 1}'\n");
    let mut dag = String::from("[tasks.hang]\nexecution_timeout = 1\nhang = {}\n");
    for name in ["flood", "drown", "talk", "die", "fail", "say"] {
        dag += &format!("[tasks.{name}]\n{name} = {{}}\n");
    }
    home.dag("bad", &dag);
    let _minflow = home.start();
    assert_eq!(home.run_dag("bad", "r").code, Some(1));
    let task = |name: &str| home.task("bad", "r", name);
    let reason = |name: &str| task(name)["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason("hang").contains("timed_out"), "{}", task("hang"));
    assert_eq!(task("flood")["state"], json!("success"), "{}", task("flood"));
    assert!(reason("drown").contains("has 64 KiB or more"), "{}", task("drown"));
    assert!(reason("talk").contains("it is `all done`; print one JSON object"), "{}", task("talk"));
    assert_eq!(task("die")["signal"], json!(9));
    assert_eq!(task("fail")["exit_code"], json!(3));
    assert_eq!(reason("say"), "no disk");
}

#[test]
fn an_unknown_operator_may_be_a_plugin_that_is_not_there_yet() {
    let home = Home::new();
    plugin(&home, "greet", block("sh"));
    home.dag("near", "[tasks.a]\ngret = { name = \"x\" }\n");
    let wrong = home.cli("validate");
    assert_eq!(wrong.code, Some(3));
    assert!(wrong.out.contains("unknown key `gret`") && wrong.out.contains("did you mean `greet`?"), "{wrong:?}");
    home.dag("near", "[tasks.a]\ngreet = \"x\"\n");
    assert!(home.cli("validate").out.contains("`greet` is a plugin, and takes a table"));
    home.write("plugins/closed", "#!/bin/sh\necho '{}'\n");
    home.dag("near", "[tasks.a]\nclosed = {}\n");
    let wrong = home.cli("validate");
    assert!(wrong.out.contains("2:1: closed-plugin: `plugins/closed` is not executable"), "{wrong:?}");
    assert!(wrong.out.contains("chmod +x plugins/closed") && !wrong.out.contains("unknown key"), "{wrong:?}");
    home.dag("near", "[tasks.a]\nlater = {}\n");
    let _minflow = home.start();
    until("its fault", || home.cli("dags list-import-errors").out.contains("later").then_some(()));
    plugin(&home, "later", "#!/bin/sh\necho '{}'\n");
    // The same text, saved once more.
    home.dag("near", "[tasks.a]\nlater = {}\n");
    until("its DAG", || home.cli("dags list").out.contains("near").then_some(()));
    assert_eq!(home.run_dag("near", "r").code, Some(0));
    std::fs::remove_file(home.file("plugins/later")).unwrap();
    assert_eq!(home.run_dag("near", "gone").code, Some(1));
    let reason = home.task("near", "gone", "a")["reason"].to_string();
    assert!(reason.contains("plugins/later` is gone: bring it back"), "{reason}");
}
