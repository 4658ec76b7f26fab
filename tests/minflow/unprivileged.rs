//! What binds every user but root: minflow runs as one who has no rights, also when root runs the tests.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::harness::{Home, until};

const LINE: &str = "[tasks.one]\nbash = 'echo $MINFLOW_RUN_ID >> $MINFLOW_HOME/ledger'\n";

#[test]
fn without_processes_left_tasks_wait_and_run_once_when_there_are() {
    let home = Home::of_common_user();
    home.dag("line", LINE);
    let minflow = home.start();
    minflow.await_dag("line");
    // As `ulimit -u` sets it, of the supervisor alone, by who may: the user has more processes than one already.
    let limit = |what: &str| {
        let words = format!("--pid {} --nproc{what}", minflow.supervisor());
        let done = home.command_of("prlimit", &words).output().unwrap();
        assert!(done.status.success(), "prlimit {words}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let most = limit(" --output HARD --noheadings --raw").trim().to_owned();
    limit("=1:");
    for run in ["a", "b"] {
        home.trigger("line", run);
    }
    for run in ["a", "b"] {
        let said = until("the reason why it waits", || {
            let task = home.task("line", run, "one");
            let reason = task["reason"].as_str().map(str::to_owned);
            reason.filter(|_| task["state"] == "scheduled")
        });
        assert!(said.contains("process"), "{said}");
    }
    assert_eq!(home.read("ledger"), "");
    limit(&format!("={most}:"));
    for run in ["a", "b"] {
        assert_eq!(home.await_run("line", run), "success");
        assert_eq!(home.task("line", run, "one")["try_number"], 1, "waiting is no failed try");
    }
    let ledger = home.read("ledger");
    let mut ledger: Vec<&str> = ledger.lines().collect();
    ledger.sort_unstable();
    assert_eq!(ledger, ["a", "b"], "each once");
}

#[test]
fn a_folder_that_may_not_be_listed_is_named_and_takes_no_dag_away() {
    let home = Home::of_common_user();
    home.dag("open", LINE);
    home.write("dags/team/hidden.toml", LINE);
    let may_list = |mode| set_permissions(home.file("dags/team"), Permissions::from_mode(mode)).unwrap();
    let errors = || home.json("dags list-import-errors").as_array().unwrap().clone();
    let await_named = || {
        let named = |error: &Value| error["filename"] == "team" && error["code"] == "unreadable";
        until("the folder among the errors", || errors().iter().any(named).then_some(()));
    };
    may_list(0o000);
    let minflow = home.start();
    minflow.await_dag("open");
    await_named();
    assert_eq!(home.run_dag("open", "a").code, Some(0));
    assert_eq!(minflow.dag("hidden"), None);
    may_list(0o755);
    minflow.await_dag("hidden");
    until("no errors", || errors().is_empty().then_some(()));
    may_list(0o000);
    await_named();
    assert_eq!(home.run_dag("hidden", "b").code, Some(0), "it is not gone, only out of sight");
    may_list(0o755);
}

#[test]
fn a_start_without_processes_is_refused_and_what_runs_is_taken_over_by_the_next() {
    let home = Home::of_common_user();
    home.dag("work", "[tasks.t]\nbash = 'touch $MINFLOW_HOME/began; while ! test -e $MINFLOW_HOME/go; do sleep 0.02; done; exit 7'\n");
    let mut minflow = home.start();
    minflow.await_dag("work");
    home.trigger("work", "r");
    until("the task", || home.file("began").exists().then_some(()));
    minflow.kill();
    let program = home.command("");
    let words = format!("--nproc=1: {} run --port 0", program.get_program().to_str().unwrap());
    let mut refused = home.command_of("prlimit", &words);
    home.settle(&mut refused);
    let refused = refused.output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("failed to start the supervisor"), "{refused:?}");
    let minflow = home.start();
    until("the takeover", || minflow.said().contains("1 go on, 0 have ended meanwhile").then_some(()));
    std::fs::write(home.file("go"), "").unwrap();
    assert_eq!(home.await_run("work", "r"), "failed");
    let task = home.task("work", "r", "t");
    assert_eq!((&task["exit_code"], &task["try_number"]), (&7.into(), &1.into()), "{task}");
}
