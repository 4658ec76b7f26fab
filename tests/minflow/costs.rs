//! Limits and users of tasks, and what tries have cost, as a person sees them. What the limits do to a process is shown by the supervisor's
//! own tests; here are the ways from the file to the log, the database and the next try.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::{Value, json};

use crate::harness::{Home, until};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn xcom(home: &Home, of: &str, key: &str) -> Value {
    let all = home.json(&format!("tasks xcom {of}"));
    let found = all.as_array().unwrap().iter().find(|xcom| xcom["key"] == key);
    found.unwrap_or_else(|| panic!("no {key}: {all}"))["value"].clone()
}

#[test]
fn a_try_that_the_kernel_killed_for_memory_is_tried_again_by_its_own_rule() {
    let home = Home::new();
    // A folder that looks like a cgroup with the controller for memory: what a kernel does with it is not shown here.
    let cgroup = home.file("cgroup");
    fs::create_dir(&cgroup).unwrap();
    fs::write(cgroup.join("cgroup.controllers"), "memory").unwrap();
    home.write("airflow.toml", format!("[core]\ncgroup = {:?}\n", cgroup.to_str().unwrap()));
    home.dag(
        "fat",
        r#"[tasks.load]
bash = 'cd $MINFLOW_HOME/cgroup/minflow-*-*-1; [ $MINFLOW_TRY_NUMBER = 2 ] || { echo "oom_kill 1" > memory.events; kill -9 $$; }; echo done'
limits = { memory = "64MiB" }
retry_on = [{ out_of_memory = true, retries = 1, retry_delay = 0 }]
"#,
    );
    let minflow = home.start();
    minflow.await_dag("fat");
    home.trigger("fat", "r");
    assert_eq!(home.await_run("fat", "r"), "success");
    let log = home.log("fat", "r", "load", 1);
    assert!(log.contains("minflow: ended out of memory after"), "{log}");
    let reader = rusqlite::Connection::open(home.file("minflow.db")).unwrap();
    let sql = "SELECT reason, signal, voluntary_switches IS NOT NULL FROM task_instance_history";
    let first: (String, i32, bool) =
        reader.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    assert_eq!(first, ("out_of_memory".to_owned(), 9, true));
    assert_eq!(fs::read_to_string(cgroup.join("cgroup.subtree_control")).unwrap(), "+memory");
    let last = home.task("fat", "r", "load");
    assert_eq!([&last["exit_cause"], &last["try_number"]], [&json!("exit_code"), &json!(2)]);
}

#[test]
fn a_limit_that_ended_a_task_is_named_wherever_its_end_is_shown() {
    let home = Home::new();
    home.write("airflow.toml", "[core]\ncgroup = \"off\"\n");
    home.dag(
        "filler",
        "[tasks.fill]\nbash = 'exec head -c 50000000 /dev/zero > fat'\nlimits = { file_size = \"1MiB\" }\n\
         [tasks.strict]\nbash = 'echo began'\nlimits = { memory = \"64MiB\", enforce = \"require\" }\n\
         [tasks.hint]\nbash = 'echo ran'\nlimits = { memory = \"64MiB\", umask = \"077\" }\noutput = \"text\"\n",
    );
    let minflow = home.start();
    minflow.await_dag("filler");
    home.trigger("filler", "r");
    assert_eq!(home.await_run("filler", "r"), "failed");
    let fill = home.task("filler", "r", "fill");
    assert_eq!(
        [&fill["reason"], &fill["exit_cause"], &fill["signal"]],
        [&json!("file_size"), &json!("file_size"), &json!(25)]
    );
    let strict = home.task("filler", "r", "strict");
    assert_eq!(strict["exit_cause"], "fault");
    assert!(strict["reason"].as_str().unwrap().contains("this host does not enforce `memory`"), "{strict}");
    // What minflow says in the log is no output of the task's.
    assert_eq!(xcom(&home, "filler hint r", "return_value"), "ran");
    let log = home.log("filler", "r", "hint", 1);
    assert!(log.contains("limits.memory is not enforced by a cgroup (`core.cgroup` is \"off\")"), "{log}");
    let status = minflow.status();
    let failures = status["recent_failures"].as_array().unwrap();
    let filled = failures.iter().find(|failure| failure["task_id"] == "fill").unwrap();
    assert_eq!(filled["exit_cause"], "file_size");
    assert!(filled["duration"].as_f64() > Some(0.0) && filled["max_rss"].as_u64() > Some(500_000), "{filled}");
    assert!(filled["write_bytes"].is_u64() && filled["voluntary_switches"].is_u64(), "{filled}");
    assert_eq!(failures.iter().find(|failure| failure["task_id"] == "strict").unwrap()["max_rss"], Value::Null);
    let shown = home.cli("tasks states-for-dag-run filler r -o plain").out;
    assert!(shown.lines().next().unwrap().ends_with("exit_cause  user_cpu  max_rss"), "{shown}");
}

#[test]
fn what_runs_has_used_something_already_and_the_past_is_summed_up() {
    let home = Home::new();
    let script = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); while [ ! -e $MINFLOW_HOME/go ]; do sleep 0.05; done";
    home.dag("work", &format!("[tasks.hold]\nbash = '''{script}'''\n[tasks.short]\nbash = 'true'\n"));
    let minflow = home.start();
    minflow.await_dag("work");
    home.trigger("work", "r");
    let live = until("what it holds", || {
        let live = home.json("tasks usage work hold --live");
        live.as_array()?.first().filter(|one| one["max_rss"].as_u64() > Some(20_000_000)).cloned()
    });
    assert_eq!([&live["run_id"], &live["task_id"]], [&json!("r"), &json!("hold")]);
    assert!(live["wall"].as_f64().unwrap() > 0.0 && live["processes"].as_u64().unwrap() >= 1, "{live}");
    // Looked at anew after two seconds: the first look may have come too early.
    let shown = until("status shows it", || {
        let status = minflow.status();
        status["running"].as_array()?.iter().find(|one| one["memory"].as_u64() > Some(20_000_000)).cloned()
    });
    let named = [&shown["dag_id"], &shown["run_id"], &shown["task_id"], &shown["is_paused"]];
    assert_eq!(named, [&json!("work"), &json!("r"), &json!("hold"), &json!(false)]);
    assert!(shown["processes"].as_u64() >= Some(1) && shown["user_cpu"].is_number(), "{shown}");
    let running = home.task("work", "r", "hold");
    assert_eq!(running["state"], "running");
    assert!(running["max_rss"].as_u64() > Some(20_000_000), "{running}");
    assert_eq!(running["exit_cause"], Value::Null);
    home.write("go", "");
    assert_eq!(home.await_run("work", "r"), "success");
    assert_eq!(home.json("tasks usage work --live"), json!([]));
    assert_eq!(minflow.status()["running"], json!([]));
    let usage = home.json("tasks usage work");
    let [hold, short] = usage.as_array().unwrap().as_slice() else { panic!("{usage}") };
    assert_eq!([&hold["task_id"], &hold["tries"], &short["task_id"]], [&json!("hold"), &json!(1), &json!("short")]);
    assert!(hold["memory"]["max"].as_u64() > Some(20_000_000), "{hold}");
    assert!(hold["wall"]["p50"].as_f64() > short["wall"]["p50"].as_f64(), "{usage}");
    assert_eq!((&hold["growing"], &hold["memory"]["growth"]), (&json!([]), &Value::Null), "one try is no trend");
    let unknown = home.cli("tasks usage work hodl");
    assert!(unknown.code == Some(1) && unknown.err.contains("did you mean `hold`?"), "{unknown:?}");
    let wrong = home.cli("tasks usage work --since yesterday");
    assert!(wrong.code == Some(2) && wrong.err.contains("write for example 12h"), "{wrong:?}");
    drop(minflow);
}

#[test]
fn a_task_that_runs_as_another_user_is_that_user_in_all_that_counts() {
    let home = Home::new();
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
    let script = "id -un; echo $HOME $USER $LOGNAME; umask; touch mine; echo '{\"k\": 7}' > $MINFLOW_XCOM; echo loud >> /dev/stderr; \
        mv .minflow theirs || rm -rf .minflow; echo last";
    home.dag(
        "other",
        &format!(
            "[tasks.a]\nbash = '''{script}'''\nrun_as = \"nobody\"\nlimits = {{ umask = \"027\" }}\n\
             [tasks.b]\npython = {{ file = \"b.py\", function = \"who\", interpreter = \"/usr/bin/python3\" }}\nrun_as = \"nobody\"\ndepends_on = [\"a\"]\n\
             [tasks.c]\nbash = 'echo $USER; true'\nrun_as = \"no-such-user-here\"\n"
        ),
    );
    home.write("dags/b.py", "import os\ndef who():\n    return os.geteuid()\n");
    let minflow = home.start();
    minflow.await_dag("other");
    home.trigger("other", "r");
    assert_eq!(home.await_run("other", "r"), "failed");
    let reason = home.task("other", "r", "c")["reason"].as_str().unwrap().to_owned();
    if !is_root() {
        assert!(reason.contains("needs a minflow that runs as root"), "{reason}");
        let first = home.task("other", "r", "a");
        assert!(first["reason"].as_str().unwrap().contains("`run_as = \"nobody\"` needs a minflow that runs as root"));
        return;
    }
    assert!(reason.contains("the user `no-such-user-here` of `run_as` does not exist"), "{reason}");
    let log = home.log("other", "r", "a", 1);
    assert_eq!(home.task("other", "r", "a")["state"], "success", "{log}");
    assert!(log.contains("\nnobody\n") && log.contains(" nobody nobody\n0027\nloud\n"), "{log}");
    assert_eq!(xcom(&home, "other a r", "k"), 7);
    assert_eq!(xcom(&home, "other a r", "return_value"), "last");
    assert_eq!(home.task("other", "r", "b")["state"], "success", "{}", home.log("other", "r", "b", 1));
    let nobody = fs::metadata(home.file("runs/other/r/mine")).unwrap().uid();
    assert_eq!(xcom(&home, "other b r", "return_value"), nobody);
    let own = fs::metadata(home.file("runs/other/r/.minflow")).unwrap();
    assert_eq!(own.uid(), 0, "the user has put nothing in its place");
    let of_log = fs::metadata(home.file("logs/dag_id=other/run_id=r/task_id=a/attempt=1.log")).unwrap();
    assert_eq!((of_log.uid(), of_log.mode() & 0o777), (nobody, 0o600));
}

#[test]
fn a_home_that_is_closed_to_the_user_is_named_and_validate_knows_who_exists() {
    let home = Home::new();
    fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
    home.dag("closed", "[tasks.a]\nbash = 'true'\nrun_as = \"nobody\"\n");
    let minflow = home.start();
    minflow.await_dag("closed");
    home.trigger("closed", "r");
    assert_eq!(home.await_run("closed", "r"), "failed");
    let reason = home.task("closed", "r", "a")["reason"].as_str().unwrap().to_owned();
    let folder = "HOME";
    let expected = if is_root() {
        format!("as `{folder}` is closed to it: open that (`chmod o+x {folder}`)")
    } else {
        "runs as root".to_owned()
    };
    assert!(reason.contains(&expected), "{reason}");

    home.dag(
        "nobodys",
        "[default_args]\nrun_as = \"no-such-user-here\"\n[tasks.a]\nbash = 'true'\n[tasks.b]\nbash = 'true'\n",
    );
    let said = home.cli("validate dags/nobodys.toml");
    let expected = "nobodys.toml:2:10: unknown-user: this host has no user `no-such-user-here`\n2 | run_as = \"no-such-user-here\"\n  |          ^^^^^^^^^^^^^^^^^^^\n";
    assert_eq!(said.code, Some(3));
    assert_eq!(said.out.matches("unknown-user").count(), 1, "{}", said.out);
    assert!(said.out.contains(expected), "{}", said.out);
}
