//! `dags/inventory.toml` on files of the host: groups, mapping, a branch, a short circuit, retries, a setup and its teardown.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::Home;

const FILES: [(&str, &str); 5] = [
    ("a.conf", "one\ntwo\n"),
    ("b with a blank.conf", "one\ntwo\n"),
    ("c'quoted.txt", "three\n"),
    ("d", "4\n"),
    ("e.txt", "five\nsix\nseven\n"),
];
const BYTES: u64 = 8 + 8 + 6 + 2 + 15;

/// The pipeline and a folder for it.
fn home() -> Home {
    let home = Home::new();
    let dag = include_str!("../../dags/inventory.toml");
    let folder = home.file("files");
    home.dag("inventory", &dag.replace("folder = \"/etc\"", &format!("folder = \"{}\"", folder.display())));
    for (name, text) in FILES {
        home.write(&format!("files/{name}"), text);
    }
    // What is no file, or empty, or cannot be named in JSON, is passed over.
    home.write("files/sub/inside", "not looked at\n");
    home.write("files/empty", "");
    home.write("files/g\"quoted\"", "x\n");
    home
}

/// How many instances of each task came to which state: `task: success × 5`.
fn states(home: &Home, run_id: &str) -> BTreeMap<String, String> {
    let mut counted: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for task in home.tasks("inventory", run_id) {
        let text = |field: &str| task[field].as_str().unwrap().to_owned();
        *counted.entry(text("task_id")).or_default().entry(text("state")).or_default() += 1;
    }
    let show = |states: BTreeMap<String, usize>| {
        let each =
            states.into_iter().map(|(state, count)| if count == 1 { state } else { format!("{state} × {count}") });
        each.collect::<Vec<_>>().join(", ")
    };
    counted.into_iter().map(|(task, states)| (task, show(states))).collect()
}

/// What is not one success.
fn unusual(states: &BTreeMap<String, String>) -> Vec<String> {
    states.iter().filter(|(_, state)| *state != "success").map(|(task, state)| format!("{task}: {state}")).collect()
}

#[test]
fn the_inventory_of_a_folder_comes_to_its_final_states() {
    let home = home();
    let mut minflow = home.start();
    let first = home.cli(&format!("dags trigger inventory --run-id first --wait --conf {{\"large\":{BYTES}}}"));
    assert_eq!(first.code, Some(0), "{first:?}");
    let found = states(&home, "first");
    assert_eq!(found.len(), 30, "{found:?}");
    let each = ["copy", "lines", "sum", "verify"].map(|task| format!("each.{task}: success × 5"));
    let expected = [
        "alarm: skipped",
        "digests: success × 3",
        &each[0],
        &each[1],
        &each[2],
        &each[3],
        "previous: skipped",
        "quick: skipped",
        "thorough.encode: success × 4",
    ];
    assert_eq!(unusual(&found), expected);
    assert_eq!(home.task("inventory", "first", "publish")["try_number"], 2, "its first try met a busy shelf");
    let report = home.log("inventory", "first", "report", 1);
    assert!(report.contains(&format!("files: 5 files, {BYTES} bytes, 4 different ones")), "{report}");
    assert!(report.contains("the longest has 3 lines"), "{report}");
    let run = home.file("runs/inventory/first");
    let whole: String = FILES.iter().map(|(_, text)| *text).collect();
    assert_eq!(std::fs::read_to_string(run.join("published/archive")).unwrap(), whole, "taken apart and put together");
    assert!(!run.join("scratch").exists(), "the teardown has removed it");

    // Nothing has changed, and now so few bytes are not large.
    let second = home.cli("dags trigger inventory --run-id second --wait --conf {\"large\":1000}");
    assert_eq!(second.code, Some(0), "{second:?}");
    let thorough = ["decode", "encode", "join", "split"].map(|task| format!("thorough.{task}: skipped"));
    let expected = [
        "alarm: skipped",
        "digests: success × 3",
        &each[0],
        &each[1],
        &each[2],
        &each[3],
        "note_change: skipped",
        &thorough[0],
        &thorough[1],
        &thorough[2],
        &thorough[3],
    ];
    assert_eq!(unusual(&states(&home, "second")), expected);

    // A folder that is not there: what comes after fails with it, the alarm is raised, and the scratch folder goes all the same.
    let third = home.cli("dags trigger inventory --run-id third --wait --conf {\"folder\":\"/nowhere\"}");
    assert_eq!(third.code, Some(1), "{third:?}");
    let found = states(&home, "third");
    let state = |task: &str| found[task].as_str();
    assert_eq!((state("collect.list"), state("each.copy")), ("failed", "upstream_failed"));
    assert_eq!((state("alarm"), state("report"), state("remove_scratch")), ("success", "upstream_failed", "success"));
    assert!(!home.file("runs/inventory/third/scratch").exists());
    let shown: Vec<Value> = home.runs("inventory").iter().map(|run| run["state"].clone()).collect();
    assert_eq!(shown, ["failed", "success", "success"]);
    minflow.stop();
}
