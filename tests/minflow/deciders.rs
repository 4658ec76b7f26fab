//! Tasks that decide which of those after them run, as a user has them.

use serde_json::{Value, json};

use crate::harness::Home;

/// The states of a run's tasks by their ids.
fn states(home: &Home, dag_id: &str, run_id: &str) -> Value {
    home.tasks(dag_id, run_id)
        .iter()
        .map(|task| (task["task_id"].as_str().unwrap().to_owned(), task["state"].clone()))
        .collect()
}

fn empty(names: &[&str]) -> String {
    names.iter().map(|name| format!("[tasks.{name}]\nempty = true\n")).collect()
}

/// What was decided, from the XComs of the deciding task.
fn xcom(home: &Home, dag_id: &str, task_id: &str, key: &str) -> Value {
    home.json(&format!("tasks xcom {dag_id} r {task_id} --key {key}"))["value"].clone()
}

#[test]
fn a_branch_of_every_kind_runs_what_it_chooses_and_skips_the_rest() {
    let kinds = [
        ("expr", "{ expr = \"{{ 'a_expr' if params.full else 'b_expr' }}\" }", true, false),
        ("list", "{ expr = \"{{ ['a_list', 'b_list'] }}\" }", true, true),
        ("bash", "{ bash = 'echo thinking; echo b_bash' }", false, true),
        ("json", "{ bash = '''echo '[\"a_json\"]' ''' }", true, false),
        ("python", "{ python = 'result = [\"b_python\"]' }", false, true),
        ("none", "{ bash = 'true' }", false, false),
        (
            "day",
            "{ weekday = ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'], if_true = 'a_day', if_false = 'b_day' }",
            true,
            false,
        ),
        ("past", "{ between = ['', 2001-01-01], if_true = 'a_past', if_false = ['b_past'] }", false, true),
        ("open", "{ between = ['2001-01-01', ''], if_true = 'a_open' }", true, false),
    ];
    let mut dag = "chain = [CHAINS]\nparams.full = true\n".to_owned();
    let mut chains = Vec::new();
    for (name, branch, ..) in &kinds {
        let (a, b, join) = (format!("a_{name}"), format!("b_{name}"), format!("join_{name}"));
        chains.push(format!("\"{name} >> [{a}, {b}] >> {join}\""));
        dag += &format!("[tasks.{name}]\nbranch = {branch}\n{}", empty(&[&a, &b]));
        dag += &format!("[tasks.{join}]\nempty = true\ntrigger_rule = \"none_failed_min_one_success\"\n");
    }
    let home = Home::new();
    home.dag("ways", &dag.replace("CHAINS", &chains.join(", ")));
    let _minflow = home.start();
    assert_eq!(home.run_dag("ways", "r").code, Some(0));
    let states = states(&home, "ways", "r");
    for (name, branch, a, b) in kinds {
        let state = |runs: bool| if runs { json!("success") } else { json!("skipped") };
        assert_eq!(states[name], "success", "{branch}");
        assert_eq!([&states[format!("a_{name}")], &states[format!("b_{name}")]], [&state(a), &state(b)], "{branch}");
        assert_eq!(states[format!("join_{name}")], state(a || b), "{branch}");
    }
    assert_eq!(xcom(&home, "ways", "json", "return_value"), json!(["a_json"]));
    assert_eq!(xcom(&home, "ways", "day", "return_value"), json!("a_day"));
    assert_eq!(xcom(&home, "ways", "list", "skipmixin_key"), json!({ "followed": ["a_list", "b_list"] }));
    let log = home.log("ways", "r", "bash", 1);
    assert!(log.contains("; of the tasks directly after it run 1: b_bash\n"), "{log}");
}

#[test]
fn a_branch_takes_groups_and_fails_on_what_it_does_not_know() {
    let home = Home::new();
    let group =
        "[groups.load.tasks.one]\nempty = true\n[groups.load.tasks.two]\nempty = true\ndepends_on = [\"one\"]\n";
    let branches = "[tasks.pick]\nbranch = { expr = \"load\" }\n[tasks.slip]\nbranch = { expr = \"oter\" }\n\
        [tasks.odd]\nbranch = { python = \"result = 5\" }\n[tasks.leave]\nbranch = { bash = \"exit 99\" }\n";
    let chains = "chain = [\"pick >> [load, other]\", \"slip >> after\", \"leave >> later\"]\n";
    home.dag("known", &format!("{chains}{branches}{group}{}", empty(&["other", "after", "later"])));
    let _minflow = home.start();
    assert_eq!(home.run_dag("known", "r").code, Some(1));
    let expected = json!({
        "pick": "success", "slip": "failed", "odd": "failed", "leave": "skipped", "other": "skipped", "after": "upstream_failed",
        "later": "skipped", "load.one": "success", "load.two": "success",
    });
    assert_eq!(states(&home, "known", "r"), expected);
    let reason = |task_id| home.task("known", "r", task_id)["reason"].as_str().unwrap().to_owned();
    assert_eq!(
        reason("slip"),
        "the branch chose `oter`, but the DAG has no task or group of that name: did you mean `other`?"
    );
    assert!(reason("odd").contains("but this one gave 5"), "{}", reason("odd"));
}

#[test]
fn a_short_circuit_skips_all_that_follows_or_what_follows_directly() {
    let home = Home::new();
    let mut dag = "chain = [CHAINS]\n".to_owned();
    let mut chains = Vec::new();
    let circuits = [
        ("all", "{ expr = \"{{ false }}\" }"),
        ("near", "{ bash = \"test -e /no/such/file\", ignore_downstream_trigger_rules = false }"),
        ("on", "{ bash = \"test -d /\" }"),
        ("said", "{ bash = \"echo 0\" }"),
        ("value", "{ python = \"result = {}\" }"),
    ];
    for (name, circuit) in circuits {
        chains.push(format!("\"{name} >> {name}_1 >> {name}_2\""));
        dag += &format!("[tasks.{name}]\nshort_circuit = {circuit}\n{}", empty(&[&format!("{name}_1")]));
        dag += &format!("[tasks.{name}_2]\nempty = true\ntrigger_rule = \"all_done\"\n");
    }
    home.dag("circuits", &dag.replace("CHAINS", &chains.join(", ")));
    let _minflow = home.start();
    assert_eq!(home.run_dag("circuits", "r").code, Some(0));
    let states = states(&home, "circuits", "r");
    let of = |name: &str| {
        [name.to_owned(), format!("{name}_1"), format!("{name}_2")].map(|id| states[id].as_str().unwrap().to_owned())
    };
    assert_eq!(of("all"), ["success", "skipped", "skipped"]);
    assert_eq!(of("near"), ["success", "skipped", "success"]);
    assert_eq!(of("on"), ["success", "success", "success"]);
    assert_eq!(of("said"), ["success", "skipped", "skipped"]);
    assert_eq!(of("value"), ["success", "skipped", "skipped"]);
    assert_eq!(xcom(&home, "circuits", "all", "skipmixin_key"), json!({ "skipped": ["all_1", "all_2"] }));
    assert_eq!(xcom(&home, "circuits", "near", "return_value"), json!(false));
    assert!(home.log("circuits", "r", "near", 1).contains("exit code 1: the short circuit's answer is false"));
}

#[test]
fn latest_only_lets_a_run_by_hand_go_on_and_skips_in_one_of_the_past() {
    let home = Home::new();
    home.dag(
        "latest",
        "schedule = \"0 0 * * *\"\nchain = [\"load >> is_latest >> mail >> tidy\"]\n[tasks.load]\nempty = true\n\
         [tasks.is_latest]\nlatest_only = true\n[tasks.mail]\nempty = true\n[tasks.tidy]\nempty = true\ntrigger_rule = \"all_done\"\n",
    );
    let minflow = home.start();
    minflow.await_dag("latest");
    assert_eq!(home.run_dag("latest", "r").code, Some(0));
    assert_eq!(
        states(&home, "latest", "r"),
        json!({ "load": "success", "is_latest": "success", "mail": "success", "tidy": "success" })
    );
    let created = home.cli("backfill create --dag-id latest --from-date 2024-01-01 --to-date 2024-01-01");
    assert_eq!(created.code, Some(0), "{created:?}");
    let run_id = "backfill__2024-01-01T00:00:00+00:00";
    assert_eq!(home.await_run("latest", run_id), "success");
    assert_eq!(
        states(&home, "latest", run_id),
        json!({ "load": "success", "is_latest": "success", "mail": "skipped", "tidy": "success" })
    );
}

#[test]
fn a_trial_of_a_decider_says_what_it_decides() {
    let home = Home::new();
    home.dag(
        "trial",
        &format!("chain = [\"pick >> [a, b]\"]\n[tasks.pick]\nbranch = {{ expr = \"b\" }}\n{}", empty(&["a", "b"])),
    );
    let ran = home.cli("dags test trial");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.out.contains("of the tasks directly after it run 1: b") && ran.out.contains("a: skipped\nb: success\n"),
        "{ran:?}"
    );
    let ran = home.cli("tasks test trial pick");
    assert!(ran.code == Some(0) && ran.out.contains("of the tasks directly after it run 1: b"), "{ran:?}");
    assert!(home.cli("tasks render trial pick").out.contains("# expr\nb\n"));
}
