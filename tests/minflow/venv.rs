//! Python with packages of its own, in real runs. No package comes from a network: the test writes its wheel.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::{Home, until};

/// A wheel is a zip file of a known form.
const WHEEL: &str = r#"
import sys, zipfile
path, said = sys.argv[1:]
with zipfile.ZipFile(path, "w") as wheel:
    wheel.writestr("hello.py", "def greet():\n    return %r\n" % said)
    info = "hello-1.0.dist-info/"
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: hello\nVersion: 1.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "")
"#;

const GREET: &str = "import hello\ndef greet():\n    return hello.greet()\n";

fn write_wheel(home: &Home, said: &str) {
    let path = home.file("dags/hello-1.0-py3-none-any.whl");
    let done = Command::new("python3").args(["-c", WHEEL]).arg(&path).arg(said).status().unwrap();
    assert!(done.success());
}

/// Those that are complete.
fn venvs(home: &Home) -> usize {
    let entries = std::fs::read_dir(home.file("venvs")).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().join("complete").exists()).count()
}

#[test]
fn tasks_that_ask_for_the_same_packages_share_what_is_made_once() {
    let home = Home::new();
    write_wheel(&home, "hello");
    home.write("dags/greet.py", GREET);
    home.write("dags/requirements.txt", "./hello-1.0-py3-none-any.whl\n");
    let list = r#"python = { file = "greet.py", function = "greet", venv = { requirements = ["--no-index", "./hello-{{ params.version }}-py3-none-any.whl"] } }"#;
    let file = r#"python = { file = "greet.py", function = "greet", venv = { requirements = "requirements.txt" } }"#;
    home.dag(
        "packed",
        &format!("[params]\nversion = \"1.0\"\n[tasks.a]\n{list}\n[tasks.b]\n{list}\n[tasks.c]\ndepends_on = [\"a\"]\n{file}\n"),
    );
    let _minflow = home.start();
    let ran = home.run_dag("packed", "r");
    let log = |task: &str| home.log("packed", "r", task, 1);
    assert_eq!(ran.code, Some(0), "{ran:?} {} {} {}", log("a"), log("b"), log("c"));
    for task in ["a", "b", "c"] {
        assert!(home.cli(&format!("tasks xcom packed r {task}")).out.contains("| hello"), "{task}");
    }
    let makers = ["a", "b"].into_iter().filter(|task| log(task).contains("makes the virtual environment")).count();
    assert_eq!((makers, venvs(&home)), (1, 2), "{} {}", log("a"), log("b"));
    write_wheel(&home, "changed");
    assert_eq!(home.run_dag("packed", "s").code, Some(0));
    assert!(home.cli("tasks xcom packed s c").out.contains("| changed"), "another wheel of the same name");
    assert_eq!(venvs(&home), 4);
}

#[test]
fn what_cannot_be_had_fails_with_the_reason() {
    let home = Home::new();
    home.write("dags/greet.py", GREET);
    let task =
        |name: &str, venv: &str| format!("[tasks.{name}]\npython = {{ file = \"greet.py\", venv = {{ {venv} }} }}\n");
    home.dag(
        "lacks",
        &(task("package", r#"requirements = ["--no-index", "nowhere-to-be-had"]"#)
            + &task("file", r#"requirements = "none.txt""#)
            + &task("python", r#"python = "python9""#)
            + &task("broken", r#"python = "../../../broken""#)),
    );
    let broken = home.write("broken", "#!/bin/sh\necho 'no module named venv' >&2\nexit 1\n");
    std::fs::set_permissions(broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let _minflow = home.start();
    assert_eq!(home.run_dag("lacks", "r").code, Some(1));
    let reason = |name: &str| home.task("lacks", "r", name)["reason"].as_str().unwrap_or_default().to_owned();
    for (name, words) in [
        ("package", "nowhere-to-be-had"),
        ("package", "Without a network name wheels"),
        ("file", "none.txt`: create it"),
        ("python", "`python9` was not found on PATH"),
        ("broken", "no module named venv"),
    ] {
        assert!(reason(name).contains(words), "{name}: {} {}", reason(name), home.log("lacks", "r", name, 1));
    }
    assert_eq!(venvs(&home), 0);
}

/// A Python that makes virtual environments for ever, until it is told to make one at once.
const SLOW: &str = "#!/bin/sh
[ \"$2\" != venv ] || while [ ! -e HOME/quick ]; do [ -e HOME/slow ] || : > HOME/slow; sleep 0.01; done
exec python3 \"$@\"
";

#[test]
fn one_that_was_half_made_is_made_again() {
    let home = Home::new();
    home.write("dags/say.py", "import sys\nresult = sys.prefix\n");
    let text = SLOW.replace("HOME", home.path().to_str().unwrap());
    let slow = home.write("slow-python", text);
    std::fs::set_permissions(&slow, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let python = slow.display();
    home.dag("half", &format!("[tasks.a]\npython = {{ file = \"say.py\", venv = {{ python = \"{python}\" }} }}\n"));
    let _minflow = home.start();
    home.trigger("half", "r");
    until("its beginning", || home.file("slow").exists().then_some(()));
    let ended = home.cli("dags set-state half r failed");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(home.await_run("half", "r"), "failed");
    assert_eq!(venvs(&home), 0);
    home.write("quick", "");
    let ran = home.run_dag("half", "s");
    assert_eq!(ran.code, Some(0), "{ran:?} {}", home.log("half", "s", "a", 1));
    let said = home.cli("tasks xcom half s a").out;
    assert!(said.contains("HOME/venvs/"), "it runs in its environment: {said}");
    assert_eq!(home.task("half", "s", "a")["exit_code"], json!(0));
    assert!(!Path::new(&home.file("venvs/requirements.txt")).exists());
}

#[test]
fn what_was_not_used_for_long_goes_but_what_a_task_has_and_what_a_loaded_dag_has_used_last() {
    let home = Home::new();
    home.write("airflow.toml", "[retention]\nmax_venv_age = \"1d\"\n");
    write_wheel(&home, "hello");
    let script = "import os, time\nhome = os.environ['MINFLOW_HOME']\nopen(home + '/began', 'w')\nwhile os.environ['MINFLOW_DAG_ID'] == 'busy' and not os.path.exists(home + '/go'):\n    time.sleep(0.01)\n";
    home.write("dags/wait.py", script);
    for (dag, times) in [("gone", 1), ("kept", 2), ("busy", 3)] {
        // The same line so often is another text.
        let options = "\"--no-index\", ".repeat(times);
        let venv = format!("requirements = [{options}\"./hello-1.0-py3-none-any.whl\"]");
        home.dag(dag, &format!("[tasks.t]\npython = {{ file = \"wait.py\", venv = {{ {venv} }} }}\n"));
    }
    let mut minflow = home.start();
    for dag in ["gone", "kept"] {
        minflow.await_dag(dag);
        let ran = home.run_dag(dag, "r");
        assert_eq!(ran.code, Some(0), "{ran:?} {}", home.log(dag, "r", "t", 1));
    }
    std::fs::remove_file(home.file("began")).unwrap();
    minflow.await_dag("busy");
    home.trigger("busy", "r");
    until("the busy task", || home.file("began").exists().then_some(()));
    minflow.stop_keeping();
    assert_eq!(venvs(&home), 3);
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(40 * 86_400);
    let age = |path: &Path| std::fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
    let below = |path: &Path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let all: Vec<_> = below(&home.file("venvs")).into_iter().filter(|path| path.is_dir()).collect();
    for venv in &all {
        below(&venv.join("users")).iter().for_each(|file| age(file));
        ["complete", "users", ""].iter().for_each(|name| age(&venv.join(name)));
    }
    for dag in ["gone", "busy"] {
        std::fs::remove_file(home.file(&format!("dags/{dag}.toml"))).unwrap();
    }
    let mut minflow = home.start();
    until("one to go", || (venvs(&home) == 2).then_some(()));
    until("what du tells of the others", || {
        let du = home.json("du");
        let part = du.as_array().unwrap().iter().find(|part| part["name"] == "(venvs)").unwrap();
        part["note"].as_str().unwrap().starts_with("2 of them; 1 with ").then_some(())
    });
    home.write("go", "");
    // Its run goes on when its DAG has a file again.
    until("the end of busy", || (home.task("busy", "r", "t")["state"] == "success").then_some(()));
    minflow.stop();
    let _minflow = home.start();
    until("the other to go", || (venvs(&home) == 1).then_some(()));
    until("one, with its lock", || (below(&home.file("venvs")).len() == 2).then_some(()));
    assert_eq!(home.run_dag("kept", "s").code, Some(0));
    assert!(!home.log("kept", "s", "t", 1).contains("makes the virtual environment"));
}
