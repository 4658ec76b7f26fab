//! XComs: listed, printed, too large for the database, too large at all, and not what was promised.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Home, until};

fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    found.sort();
    found
}

#[test]
fn what_a_task_has_pushed_is_listed_and_printed() {
    let home = Home::new();
    let push = "echo '{\"rows\": [1, 2], \"name\": \"x y\"}' > $MINFLOW_XCOM; echo done";
    home.dag("push", &format!("[tasks.push]\nbash = '''{push}'''\n[tasks.quiet]\nempty = true\n"));
    let _minflow = home.start();
    assert_eq!(home.run_dag("push", "r").code, Some(0));
    let listed = home.json("tasks xcom push r push");
    let pairs: Value =
        listed.as_array().unwrap().iter().map(|xcom| json!([xcom["key"], xcom["value"], xcom["map_index"]])).collect();
    assert_eq!(pairs, json!([["name", "x y", -1], ["return_value", "done", -1], ["rows", [1, 2], -1]]));
    assert_eq!(home.cli("tasks xcom push r push --key name").texts(), (Some(0), "x y\n", ""));
    assert_eq!(
        home.cli("tasks xcom push push r --key rows").texts(),
        (Some(0), "[1,2]\n", ""),
        "in the order of other commands"
    );
    assert!(home.cli("tasks xcom push r push").out.contains("return_value"));
    assert_eq!(home.json("tasks xcom push r quiet"), json!([]));
    let told = |words: &str| {
        let ran = home.cli(words);
        (ran.code, ran.err)
    };
    assert_eq!(
        told("tasks xcom push r push --key nam"),
        (Some(1), "error: `push` has pushed no `nam`\nhelp: it has pushed `name`, `return_value`, `rows`\n".to_owned())
    );
    let (code, text) = told("tasks xcom push r pus");
    assert!(code == Some(1) && text.contains("did you mean `push`?"), "{text}");
    assert_eq!(told("tasks xcom push nope push").0, Some(1));
}

#[test]
fn a_large_value_lives_in_a_file_through_a_kill_until_its_task_runs_again() {
    let home = Home::new();
    home.dag(
        "large",
        "schedule = \"0 0 * * *\"\nchain = [\"big >> use\"]\n[tasks.big]\npython = \"result = ['x' * 1000] * 3000\"\n\
         [tasks.use]\nretries = 3\nretry_delay = 0\nbash = '''touch $MINFLOW_HOME/begun\n\
         until [ -e $MINFLOW_HOME/go ]; do sleep 0.02; done\necho {{ xcom('big') | length }}'''\n",
    );
    let mut minflow = home.start();
    minflow.await_dag("large");
    let create =
        "backfill create --dag-id large --from-date 2024-01-01 --to-date 2024-01-01 --reprocess-behavior completed";
    assert_eq!(home.cli(create).code, Some(0));
    until("the second task", || home.file("begun").exists().then_some(()));
    assert_eq!(files_below(&home.file("xcoms")), ["1-1.json"]);
    minflow.kill();
    let run_id = "backfill__2024-01-01T00:00:00+00:00";
    let value = |home: &Home| home.json(&format!("tasks xcom large {run_id} big --key return_value"))["value"].clone();
    assert_eq!(value(&home).as_array().unwrap().len(), 3_000);
    home.write("go", "");
    let mut minflow = home.start();
    assert_eq!(home.await_run("large", run_id), "success");
    let used = home.cli(&format!("tasks xcom large {run_id} use --key return_value"));
    assert_eq!(used.out, "3000\n");
    assert!(home.cli(&format!("tasks xcom large {run_id} big")).out.contains("bytes)"), "a table shows its beginning");
    assert_eq!(home.cli(create).code, Some(0));
    until("the second time", || (files_below(&home.file("xcoms")) == ["2-1.json"]).then_some(()));
    assert_eq!(home.await_run("large", run_id), "success");
    assert_eq!(value(&home)[2_999], "x".repeat(1_000));
    minflow.stop();
    let moved = tempfile::tempdir().unwrap();
    fs::rename(home.file("xcoms"), moved.path().join("xcoms")).unwrap();
    let gone = home.cli(&format!("tasks xcom large {run_id} big --key return_value"));
    assert!(gone.code == Some(1) && gone.err.contains("which has gone"), "{gone:?}");
}

#[test]
fn a_value_that_is_not_what_was_promised_fails_with_what_came() {
    let home = Home::new();
    home.dag(
        "promises",
        "[default_args]\noutput = \"json\"\n[tasks.text]\nbash = \"echo all done\"\n\
         [tasks.long]\nbash = \"head -c 200000 /dev/zero | tr '\\\\0' 1\"\n\
         [tasks.huge]\npython = \"result = 'x' * (17 << 20)\"\n[tasks.file]\nbash = \"echo {1 > $MINFLOW_XCOM\"\n",
    );
    let _minflow = home.start();
    assert_eq!(home.run_dag("promises", "r").code, Some(1));
    let reason = |task_id| home.task("promises", "r", task_id)["reason"].as_str().unwrap_or_default().to_owned();
    let expected = [
        ("text", "is not JSON, which `output = \"json\"` expects: it is `all done` ("),
        (
            "long",
            "has 64 KiB or more, too much for `output = \"json\"`: write {\"return_value\": …} to the file $MINFLOW_XCOM",
        ),
        ("huge", "its XComs are larger than 16 MiB: leave the data in a file of the run_dir, and push its path"),
        ("file", "$MINFLOW_XCOM begins with `{`, so it is to be a JSON object, and it is not ("),
    ];
    for (task_id, part) in expected {
        assert!(reason(task_id).contains(part), "{task_id}: {}", reason(task_id));
    }
}

#[test]
fn what_a_task_leaves_instead_of_its_xcoms_fails_that_task_alone() {
    let home = Home::new();
    home.dag(
        "odd",
        "[tasks.deep]\nbash = '''printf '[%.0s' {1..20000}; echo'''\noutput = 'json'\n\
         [tasks.deep_file]\nbash = '''(printf '{\"a\":'; printf '[%.0s' {1..20000}) > $MINFLOW_XCOM'''\n\
         [tasks.pipe]\nbash = 'mkfifo $MINFLOW_XCOM'\n\
         [tasks.folder]\nbash = 'mkdir $MINFLOW_XCOM'\n\
         [tasks.endless]\nbash = 'ln -s /dev/zero $MINFLOW_XCOM'\n",
    );
    let _minflow = home.start();
    assert_eq!(home.run_dag("odd", "r").code, Some(1));
    let rows = home.json("tasks states-for-dag-run odd r");
    let told = |task: &str| {
        let row = rows.as_array().unwrap().iter().find(|row| row["task_id"] == task).unwrap();
        assert_eq!(row["state"], "failed", "{row}");
        row["reason"].as_str().unwrap().to_owned()
    };
    for task in ["deep", "deep_file"] {
        assert!(told(task).contains("recursion limit exceeded"), "{}", told(task));
    }
    for task in ["pipe", "folder", "endless"] {
        assert!(told(task).contains("which is no file: write one"), "{}", told(task));
    }
}
