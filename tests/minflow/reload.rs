//! Hot reload on the real watcher: saves as editors make them, and what they mean to runs that are alive.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Home, Minflow, is_alive, until, within};

/// Far below the slow rescan: what is live within it was seen by the watch. How soon it is, the bench W3 judges.
const WATCHED: Duration = Duration::from_secs(60);

const EMPTY: &str = "[tasks.one]\nempty = true\n";

fn owned_by(owner: &str) -> String {
    format!("owner = \"{owner}\"\n{EMPTY}")
}

fn await_owner(minflow: &Minflow, dag_id: &str, owner: &str) {
    within(WATCHED, &format!("{dag_id} of {owner}"), || (minflow.dag(dag_id)?["owner"] == owner).then_some(()));
}

fn await_gone(minflow: &Minflow, dag_id: &str) {
    within(WATCHED, &format!("the end of {dag_id}"), || minflow.dag(dag_id).is_none().then_some(()));
}

fn dag_ids(minflow: &Minflow) -> Vec<String> {
    let dags = minflow.status()["dags"].as_array().unwrap().clone();
    let live = dags.iter().filter(|dag| dag["is_active"] == true);
    live.map(|dag| dag["dag_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn saves_of_every_kind_are_seen_by_the_watch() {
    let home = Home::new();
    let minflow = home.start();
    home.dag("plain", &owned_by("a"));
    await_owner(&minflow, "plain", "a");
    home.dag("plain", &owned_by("b"));
    await_owner(&minflow, "plain", "b");

    home.write("dags/.plain.toml.swp", "b0VIM");
    home.write("dags/4913", "");
    home.write("dags/plain.toml~", owned_by("backup"));
    home.write("dags/.#plain.toml", "x = ");
    home.write("dags/plain.toml.tmp", owned_by("c"));
    fs::rename(home.file("dags/plain.toml.tmp"), home.file("dags/plain.toml")).unwrap();
    await_owner(&minflow, "plain", "c");
    assert_eq!(dag_ids(&minflow), ["plain"]);
    assert_eq!(minflow.status()["import_errors"], json!([]));

    home.write("dags/team/deep/nested.toml", owned_by("a"));
    await_owner(&minflow, "nested", "a");
    home.write("dags/team/deep/nested.toml", owned_by("b"));
    await_owner(&minflow, "nested", "b");

    let elsewhere = home.write("elsewhere/real.toml", owned_by("a"));
    symlink(&elsewhere, home.file("dags/linked.toml")).unwrap();
    await_owner(&minflow, "linked", "a");
    fs::write(&elsewhere, owned_by("b")).unwrap();
    await_owner(&minflow, "linked", "b");

    fs::rename(home.file("dags/team"), home.file("team")).unwrap();
    await_gone(&minflow, "nested");
    fs::rename(home.file("team"), home.file("dags/again")).unwrap();
    await_owner(&minflow, "nested", "b");
    fs::remove_file(home.file("dags/plain.toml")).unwrap();
    await_gone(&minflow, "plain");
    assert_eq!(dag_ids(&minflow), ["linked", "nested"]);
}

#[test]
fn a_broken_save_keeps_the_last_good_version_and_shows_every_fault() {
    let home = Home::new();
    home.dag("sales", "[tasks.one]\nbash = \"echo good\"\n");
    let minflow = home.start();
    minflow.await_dag("sales");
    home.dag(
        "sales",
        "shedule = \"@daily\"\n[tasks.one]\nbash = \"echo bad\"\ndepends_on = [\"tow\"]\n[tasks.two]\nempty = true\n",
    );
    let errors = within(WATCHED, "the import errors", || {
        let errors = minflow.status()["import_errors"].as_array().unwrap().clone();
        (!errors.is_empty()).then_some(errors)
    });
    let shown: Vec<_> = errors.iter().map(|error| json!([error["filename"], error["line"], error["column"]])).collect();
    assert_eq!(json!(shown), json!([["sales.toml", 1, 1], ["sales.toml", 4, 15]]));
    assert!(errors[0]["help"].as_str().unwrap().contains("schedule"), "{errors:?}");
    assert!(errors[1]["help"].as_str().unwrap().contains("two"), "{errors:?}");
    let listed = home.json("dags list-import-errors");
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    let dag = minflow.dag("sales").unwrap();
    assert_eq!((&dag["has_import_errors"], &minflow.status()["dag_counts"]["broken"]), (&json!(true), &json!(1)));
    assert_eq!(home.run_dag("sales", "r").code, Some(0));
    assert!(home.log("sales", "r", "one", 1).contains("good\n"));

    home.dag("sales", "[tasks.one]\nbash = \"echo mended\"\n");
    within(WATCHED, "no import errors", || (minflow.status()["import_errors"] == json!([])).then_some(()));
    assert_eq!(home.run_dag("sales", "s").code, Some(0));
    assert!(home.log("sales", "s", "one", 1).contains("mended\n"));
}

#[test]
fn a_half_written_file_becomes_a_dag_when_it_is_complete() {
    use std::io::Write;
    let home = Home::new();
    let minflow = home.start();
    let mut file = fs::File::create(home.file("dags/slow.toml")).unwrap();
    file.write_all(b"[tasks.one]\nba").unwrap();
    file.sync_all().unwrap();
    until("the half to be seen", || (minflow.status()["import_errors"] != json!([])).then_some(()));
    assert_eq!(dag_ids(&minflow), Vec::<String>::new());
    file.write_all(b"sh = \"true\"\n").unwrap();
    drop(file);
    within(WATCHED, "the DAG", || minflow.dag("slow"));
    assert_eq!(minflow.status()["import_errors"], json!([]));
}

#[test]
fn a_rename_with_the_same_dag_id_is_no_gap() {
    let home = Home::new();
    let text = format!(
        "dag_id = \"steady\"\nschedule = {{ every = \"1s\" }}\nstart_date = {}\ncatchup = true\n[tasks.one]\nempty = true\n",
        jiff::Timestamp::now()
    );
    home.dag("before", &text);
    let minflow = home.start();
    minflow.await_dag("steady");
    until("a run", || (!home.runs("steady").is_empty()).then_some(()));
    fs::rename(home.file("dags/before.toml"), home.file("dags/after.toml")).unwrap();
    within(WATCHED, "the new name", || (minflow.dag("steady")?["file"] == "after.toml").then_some(()));
    let count = home.runs("steady").len();
    let runs = until("two more runs", || Some(home.runs("steady")).filter(|runs| runs.len() >= count + 2));
    for pair in runs.windows(2) {
        let at = |run: &Value| run["logical_date"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        assert_eq!(at(&pair[0]).duration_since(at(&pair[1])).as_secs(), 1, "{runs:?}");
    }
}

#[test]
fn two_files_of_one_dag_id_are_both_named_and_the_older_stays_live() {
    let home = Home::new();
    home.write("dags/old.toml", format!("dag_id = \"twin\"\n{}", owned_by("old")));
    let minflow = home.start();
    await_owner(&minflow, "twin", "old");
    home.write("dags/new.toml", format!("dag_id = \"twin\"\n{}", owned_by("new")));
    let errors = within(WATCHED, "the error", || {
        let errors = minflow.status()["import_errors"].to_string();
        (errors != "[]").then_some(errors)
    });
    assert!(errors.contains("old.toml") && errors.contains("new.toml"), "{errors}");
    assert_eq!(minflow.dag("twin").unwrap()["owner"], "old");
    fs::remove_file(home.file("dags/old.toml")).unwrap();
    await_owner(&minflow, "twin", "new");
    assert_eq!(minflow.status()["import_errors"], json!([]));
}

#[test]
fn a_file_removed_while_its_run_is_alive_lets_what_runs_end_and_starts_nothing_new() {
    let home = Home::new();
    let first =
        "[tasks.first]\nbash = 'touch $MINFLOW_HOME/began; while ! test -e $MINFLOW_HOME/go; do sleep 0.02; done'\n";
    let text = format!("{first}[tasks.second]\nbash = 'true'\ndepends_on = [\"first\"]\n");
    home.dag("gone", &text);
    let minflow = home.start();
    minflow.await_dag("gone");
    home.trigger("gone", "r");
    until("the first task", || home.file("began").exists().then_some(()));
    fs::remove_file(home.file("dags/gone.toml")).unwrap();
    await_gone(&minflow, "gone");
    let refused = home.cli("dags trigger gone");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    home.write("go", "");
    until("the first task's end", || (home.task("gone", "r", "first")["state"] == "success").then_some(()));
    assert_eq!(home.task("gone", "r", "second")["state"], Value::Null);
    home.dag("gone", &text);
    assert_eq!(home.await_run("gone", "r"), "success");
}

#[test]
fn an_alive_run_keeps_what_has_started_and_follows_the_new_definition_with_the_rest() {
    let home = Home::new();
    let first = "[tasks.first]\nbash = 'echo $$ > $MINFLOW_HOME/began; while ! test -e $MINFLOW_HOME/go; do sleep 0.02; done; echo first as it was'\n";
    home.dag("live", &format!("{first}[tasks.vanishes]\nbash = 'true'\ndepends_on = [\"first\"]\n[tasks.changes]\nbash = 'echo old'\ndepends_on = [\"first\"]\n"));
    let minflow = home.start();
    minflow.await_dag("live");
    home.trigger("live", "r");
    let pid = until("the first task", || home.read("began").trim().parse::<i32>().ok());
    let changed = first.replace("as it was", "anew");
    home.dag("live", &format!("owner = \"b\"\n{changed}[tasks.changes]\nbash = 'echo new'\ndepends_on = [\"first\"]\n[tasks.appears]\nbash = 'echo here'\ndepends_on = [\"changes\"]\n"));
    await_owner(&minflow, "live", "b");
    assert!(is_alive(pid), "what has started goes on");
    home.write("go", "");
    assert_eq!(home.await_run("live", "r"), "success");
    let mut shown: Vec<_> = home
        .tasks("live", "r")
        .iter()
        .map(|task| format!("{} {} {}", task["task_id"], task["state"], task["try_number"]))
        .collect();
    shown.sort();
    let expected =
        [r#""appears" "success" 1"#, r#""changes" "success" 1"#, r#""first" "success" 1"#, r#""vanishes" "removed" 0"#];
    assert_eq!(shown, expected);
    assert!(home.log("live", "r", "first", 1).contains("first as it was\n"));
    assert!(home.log("live", "r", "changes", 1).contains("new\n"));
}

#[test]
fn a_dags_folder_that_goes_away_is_said_and_taken_up_again() {
    let home = Home::new();
    home.dag("stays", "[tasks.one]\nbash = 'true'\n");
    let minflow = home.start();
    minflow.await_dag("stays");
    fs::rename(home.file("dags"), home.file("away")).unwrap();
    let (_, health) =
        until("the missing folder in /health", || Some(minflow.get("/health")).filter(|(code, _)| *code == 503));
    assert!(health["reasons"].to_string().contains("dags"), "{health}");
    assert!(minflow.dag("stays").is_some(), "what is unknown is not gone");
    assert_eq!(home.run_dag("stays", "r").code, Some(0));
    fs::rename(home.file("away"), home.file("dags")).unwrap();
    until("health", || (minflow.get("/health").0 == 200).then_some(()));
    home.dag("stays", &owned_by("b"));
    until("the new save", || (minflow.dag("stays")?["owner"] == "b").then_some(()));
}
